//! Jobs: what runs to its end.

use crate::model::{Binding, Goals, Limits, Probes, Run, Service, optional_duration_text};
use crate::rollout::Rollout;
use crate::schedule::Schedule;
use kernel::{Name, duration_text};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// A process that has done its work when it ends with exit code 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub run: Run,
    /// Without it, it runs when it is applied and when somebody asks.
    pub schedule: Option<Schedule>,
    /// How late a run that was missed may still begin.
    #[serde(with = "duration_text")]
    pub catch_up: Duration,
    pub overlap: Overlap,
    /// Attempts of each part, after the first one.
    pub retries: u32,
    /// Before the second attempt; doubled before each further one.
    #[serde(with = "duration_text")]
    pub backoff: Duration,
    /// Of a whole run.
    #[serde(default, with = "optional_duration_text")]
    pub deadline: Option<Duration>,
    #[serde(default, with = "optional_duration_text")]
    pub attempt_timeout: Option<Duration>,
    /// Parts of a run, each of which must succeed.
    pub indices: u32,
    /// Parts that run at the same time.
    pub parallel: u32,
    /// No part of it runs twice at the same time, or again after an end that is not known.
    pub once: bool,
    /// Runs that have ended and are remembered.
    pub keep_runs: u32,
    pub node: Option<Name>,
    pub limits: Limits,
    pub environment: BTreeMap<String, String>,
    pub secrets: BTreeMap<String, Name>,
    pub bindings: BTreeMap<Name, Binding>,
    #[serde(with = "duration_text")]
    pub stop_grace: Duration,
}

/// What is done when a run is due and the one before goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    #[default]
    Skip,
    Allow,
    Replace,
}

impl Job {
    /// One attempt of it as a service: it is started and placed like one.
    pub fn as_service(&self) -> Service {
        Service {
            run: self.run.clone(),
            replicas: 1,
            node: self.node.clone(),
            singleton: false,
            routes: Vec::new(),
            port: None,
            allow_from: Vec::new(),
            goals: Goals::default(),
            probes: Probes::default(),
            limits: self.limits.clone(),
            environment: self.environment.clone(),
            secrets: self.secrets.clone(),
            bindings: self.bindings.clone(),
            deadline: Duration::ZERO,
            stop_grace: self.stop_grace,
            rollout: Rollout::default(),
        }
    }

    /// Whether its attempts begin from the same as those of `other`: how often and when
    /// it runs may differ.
    pub fn starts_alike(&self, other: &Self) -> bool {
        self.run == other.run
            && self.environment == other.environment
            && self.secrets == other.secrets
            && self.bindings == other.bindings
            && self.limits == other.limits
            && self.indices == other.indices
            && self.once == other.once
    }
}
