//! The state with what surrounds it: how far it is applied, when its leases
//! lapse, who waits for its next revision.
//!
//! Holds: a lease's deadline is set when its grant or renewal is applied, so
//! after a restart each lease runs its full time again.

use crate::state::State;
use crate::types::{Command, LogId, Replies, SnapshotMeta};
use kernel::{FencingEpoch, Time};
use openraft::{BasicNode, StoredMembership};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

#[derive(Clone, Debug, Default)]
pub struct Applied {
    pub last: Option<LogId>,
    pub membership: StoredMembership<u64, BasicNode>,
}

#[derive(Default)]
struct Inner {
    applied: Applied,
    state: State,
    deadlines: BTreeMap<String, (FencingEpoch, u64, Time)>,
}

pub struct Shared {
    inner: Mutex<Inner>,
    /// Touched after each change, and when the store stops.
    pub changed: watch::Sender<()>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }
}

/// The boot-time clock, which a suspended machine does not stop.
pub fn now() -> Time {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(at.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(at.tv_nsec).unwrap_or_default();
    Time(seconds * 1_000_000_000 + nanoseconds)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn with<T>(&self, read: impl FnOnce(&Applied, &State) -> T) -> T {
        let inner = self.lock();
        read(&inner.applied, &inner.state)
    }

    pub fn apply(&self, id: LogId, commands: Vec<Command>) -> Replies {
        let mut inner = self.lock();
        inner.applied.last = Some(id);
        let replies = commands
            .into_iter()
            .map(|command| inner.state.apply(command))
            .collect();
        inner.set_deadlines();
        drop(inner);
        self.changed.send_replace(());
        replies
    }

    pub fn join(&self, id: LogId, membership: StoredMembership<u64, BasicNode>) {
        self.lock().applied = Applied {
            last: Some(id),
            membership,
        };
    }

    pub fn install(&self, meta: &SnapshotMeta, state: State) {
        let mut inner = self.lock();
        inner.applied = Applied {
            last: meta.last_log_id,
            membership: meta.last_membership.clone(),
        };
        inner.state = state;
        inner.set_deadlines();
        drop(inner);
        self.changed.send_replace(());
    }

    /// What has lapsed, as commands to propose.
    pub fn lapsed(&self) -> Vec<Command> {
        let now = now();
        let inner = self.lock();
        let lapsed = inner.deadlines.iter().filter(|(_, at)| at.2 <= now);
        lapsed
            .map(|(name, (epoch, renewals, _))| Command::Expire {
                name: name.clone(),
                epoch: *epoch,
                renewals: *renewals,
            })
            .collect()
    }
}

impl Inner {
    fn set_deadlines(&mut self) {
        if self.state.leases().is_empty() && self.deadlines.is_empty() {
            return;
        }
        let leases = self.state.leases();
        self.deadlines.retain(|name, _| leases.contains_key(name));
        for (name, held) in leases {
            let known = self.deadlines.get(name);
            if known.is_none_or(|at| (at.0, at.1) != (held.epoch, held.renewals)) {
                let at = (held.epoch, held.renewals, now() + held.time_to_live);
                self.deadlines.insert(name.clone(), at);
            }
        }
    }
}
