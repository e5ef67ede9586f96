//! The node's alerts: a loop for each.
//!
//! In: which alerts there are, answers to their questions, the ends of
//! deliveries. Out: notices to deliver, each decision's record.
//! Holds: an alert that was changed begins anew with what was told last; the
//! end of a delivery that nobody waits for any more changes nothing.

use crate::event::NodeEffect;
use crate::replica::Turn;
use control::alert::{Alert, Notify, Parameters, Reading, Standing, State};
use control::{Effort, Loop};
use kernel::{ObjectRef, Time};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// An alert that this node keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertSpec {
    pub parameters: Parameters,
    /// What was delivered last, as it was kept.
    pub told: Standing,
}

#[derive(Default)]
pub(crate) struct Alerts(BTreeMap<String, Kept>);

struct Kept {
    parameters: Parameters,
    watch: Loop<Alert>,
    value: Option<Value>,
    answered: Option<Time>,
    failed: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AlertStatus {
    /// `quiet`, `pending`, `firing`, `ending`, `watching`, `unknown`.
    pub state: String,
    /// Of what `state` says, where it is known.
    pub since: Option<Time>,
    pub value: Option<Value>,
    pub told: Standing,
    /// Why the last delivery failed, until one works.
    pub failed: Option<String>,
}

impl Alerts {
    pub fn are(&mut self, specs: BTreeMap<String, AlertSpec>, turn: &mut Turn<'_>) {
        let gone = self.0.extract_if(.., |name, kept| {
            let same = specs.get(name).map(|spec| &spec.parameters);
            same != Some(&kept.parameters)
        });
        for (_, mut kept) in gone {
            turn.record(kept.watch.abandon("the alert was changed", turn.now));
        }
        for (name, spec) in specs {
            self.0
                .entry(name)
                .or_insert_with_key(|name| Kept::new(name, spec));
        }
    }

    pub fn answered(&mut self, name: &str, value: Option<Value>, turn: &mut Turn<'_>) {
        let Some(kept) = self.0.get_mut(name) else {
            return;
        };
        turn.record(kept.watch.expire(turn.now));
        kept.value.clone_from(&value);
        kept.answered = Some(turn.now);
        let reading = Reading::Answered { value };
        let action = turn.step(&mut kept.watch, &reading, Vec::new());
        if let Some(Notify { standing }) = action {
            let name = name.to_owned();
            turn.effects.push(NodeEffect::Notify { name, standing });
        }
    }

    pub fn delivered(&mut self, name: &str, outcome: Result<(), String>, turn: &mut Turn<'_>) {
        let Some(kept) = self.0.get_mut(name) else {
            return;
        };
        let (reading, entry) = match outcome {
            Ok(()) => {
                kept.failed = None;
                (Reading::Delivered, kept.watch.came("delivered", turn.now))
            }
            Err(why) => {
                kept.failed = Some(why.clone());
                let entry = kept.watch.failed(&why, turn.now);
                (Reading::DeliveryFailed { why }, entry)
            }
        };
        turn.record(entry);
        let _ = turn.step(&mut kept.watch, &reading, Vec::new());
    }

    pub fn status(&self) -> BTreeMap<String, AlertStatus> {
        let all = self.0.iter();
        all.map(|(name, kept)| (name.clone(), kept.status()))
            .collect()
    }
}

impl Kept {
    fn new(name: &str, spec: AlertSpec) -> Self {
        // Deliveries that fail rest by themselves.
        let effort = Effort {
            futile_max: u32::MAX,
            ..Effort::default()
        };
        let subject = ObjectRef::new("alert", name);
        let state = State {
            told: spec.told,
            ..State::default()
        };
        Self {
            watch: Loop::new(spec.parameters.clone(), subject, effort).beginning_with(state),
            parameters: spec.parameters,
            value: None,
            answered: None,
            failed: None,
        }
    }

    fn status(&self) -> AlertStatus {
        let state = self.watch.state();
        let is_known = self.value.as_ref().is_some_and(|value| !value.is_null());
        let (word, since) = match (state.seen, &state.told) {
            _ if !is_known => ("unknown", self.answered),
            (Some(seen), told) => {
                let is_firing = *told == Standing::Firing;
                let word = match (seen.holds, is_firing) {
                    (true, true) => "firing",
                    (true, false) => "pending",
                    (false, true) => "ending",
                    (false, false) => "quiet",
                };
                (word, Some(seen.since))
            }
            (None, Standing::Is(_)) => ("watching", None),
            (None, _) => ("unknown", self.answered),
        };
        AlertStatus {
            state: word.to_owned(),
            since,
            value: self.value.clone(),
            told: state.told.clone(),
            failed: self.failed.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::DecisionIds;
    use control::alert::Condition;
    use kernel::DecisionId;
    use serde_json::json;
    use wire::decision::JournalEntry;

    struct World {
        alerts: Alerts,
        ids: DecisionIds,
        effects: Vec<NodeEffect>,
        now: Time,
    }

    impl World {
        fn new() -> Self {
            Self {
                alerts: Alerts::default(),
                ids: DecisionIds::starting_at(DecisionId(1)),
                effects: Vec::new(),
                now: Time(0),
            }
        }

        fn with(&mut self, act: impl FnOnce(&mut Alerts, &mut Turn<'_>)) -> Vec<NodeEffect> {
            self.now = self.now + std::time::Duration::from_secs(1);
            let mut turn = Turn {
                ids: &mut self.ids,
                effects: &mut self.effects,
                now: self.now,
            };
            act(&mut self.alerts, &mut turn);
            std::mem::take(&mut self.effects)
        }

        fn are(&mut self, for_ms: u64, told: Standing) -> Vec<NodeEffect> {
            let parameters = Parameters {
                condition: Condition::Holds { for_ms },
                retry_first_ms: 1_000,
                retry_longest_ms: 1_000,
                deliver_within_ms: 5_000,
            };
            let spec = AlertSpec { parameters, told };
            let specs = BTreeMap::from([("hot".to_owned(), spec)]);
            self.with(|alerts, turn| alerts.are(specs, turn))
        }

        fn answer(&mut self, value: Value) -> Vec<NodeEffect> {
            self.with(|alerts, turn| alerts.answered("hot", Some(value), turn))
        }

        fn state(&self) -> String {
            self.alerts.status()["hot"].state.clone()
        }
    }

    fn notices(effects: &[NodeEffect]) -> Vec<&Standing> {
        let notices = effects.iter().filter_map(|effect| match effect {
            NodeEffect::Notify { standing, .. } => Some(standing),
            _ => None,
        });
        notices.collect()
    }

    #[test]
    fn each_notice_is_a_decision_that_ends_in_one_observation() {
        let mut world = World::new();
        world.are(1_000, Standing::Quiet);
        assert_eq!(world.state(), "unknown");
        assert_eq!(notices(&world.answer(json!(true))), [&Standing::Quiet; 0]);
        assert_eq!(world.state(), "pending");
        let effects = world.answer(json!(true));
        assert_eq!(notices(&effects), [&Standing::Firing]);
        let [NodeEffect::Record(JournalEntry::Decision(decision)), _] = &*effects else {
            panic!("{effects:?}");
        };
        assert_eq!(decision.subject, ObjectRef::new("alert", "hot"));
        assert_eq!(
            control::replay(decision).map_err(|it| it.to_string()),
            Ok(())
        );
        let why = || Err("refused".to_owned());
        let told = world.with(|alerts, turn| alerts.delivered("hot", why(), turn));
        let [NodeEffect::Record(JournalEntry::Observation(told))] = &*told else {
            panic!("{told:?}");
        };
        assert!(!told.worked && told.decision == decision.id);
        assert_eq!(
            world.alerts.status()["hot"].failed,
            Some("refused".to_owned())
        );
        assert_eq!(notices(&world.answer(json!(true))), [&Standing::Firing]);
        world.with(|alerts, turn| alerts.delivered("hot", Ok(()), turn));
        assert_eq!(world.state(), "firing");
        assert_eq!(world.alerts.status()["hot"].failed, None);
    }

    #[test]
    fn one_that_was_told_before_a_restart_is_not_told_again() {
        let mut world = World::new();
        world.are(0, Standing::Firing);
        assert_eq!(world.answer(json!(true)), []);
        assert_eq!(notices(&world.answer(json!(false))), [&Standing::Quiet]);
    }

    #[test]
    fn one_that_was_changed_begins_anew_and_one_that_is_gone_hears_nothing() {
        let mut world = World::new();
        world.are(0, Standing::Quiet);
        assert_eq!(notices(&world.answer(json!(true))), [&Standing::Firing]);
        assert_eq!(world.are(0, Standing::Quiet), [], "as before");
        let effects = world.are(1, Standing::Quiet);
        assert!(matches!(
            &*effects,
            [NodeEffect::Record(JournalEntry::Observation(_))]
        ));
        world.with(|alerts, turn| alerts.are(BTreeMap::new(), turn));
        assert_eq!(world.answer(json!(true)), []);
        let late = world.with(|alerts, turn| alerts.delivered("hot", Ok(()), turn));
        assert_eq!(late, []);
    }
}
