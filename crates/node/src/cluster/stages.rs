//! The loops that take rollouts further, one for each under way; on the leader.
//!
//! In: what `control::stage` reads. Out: what is to be done, for the agent to write.

use crate::event::NodeEffect;
use crate::replica::Turn;
use control::stage::{Parameters, Reading, Stages};
use control::{Effort, Loop};
use kernel::{ObjectRef, ScopedName};
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) struct AllStages(BTreeMap<ScopedName, (Parameters, Loop<Stages>)>);

impl AllStages {
    /// * `seen`: of all rollouts under way.
    pub fn seen(&mut self, seen: BTreeMap<ScopedName, (Parameters, Reading)>, turn: &mut Turn<'_>) {
        self.0.retain(|name, (parameters, _)| {
            seen.get(name).is_some_and(|(now, _)| now == parameters)
        });
        for (service, (parameters, reading)) in seen {
            let new = || {
                // What cannot be written now is tried on.
                let effort = Effort {
                    futile_max: u32::MAX,
                    ..Effort::default()
                };
                let subject = ObjectRef::new("service", &service);
                let tended = Loop::new(parameters.clone(), subject, effort);
                (parameters.clone(), tended)
            };
            let (_, tended) = self.0.entry(service.clone()).or_insert_with(new);
            let Some(action) = turn.step(tended, &reading, Vec::new()) else {
                continue;
            };
            turn.effects.push(NodeEffect::Advance {
                service,
                at: reading.at,
                action,
            });
        }
    }
}
