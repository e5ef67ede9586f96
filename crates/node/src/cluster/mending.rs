//! The loop that places elsewhere what ran on nodes that are gone; on the leader.

use crate::event::NodeEffect;
use crate::replica::Turn;
use control::repair::{Parameters, Reading, Repair};
use control::{Effort, Loop};
use kernel::{ObjectRef, ScopedName};

pub(crate) struct Mending(Loop<Repair>);

impl Mending {
    pub fn new(parameters: Parameters) -> Self {
        // What has no place waits by itself.
        let effort = Effort {
            futile_max: u32::MAX,
            ..Effort::default()
        };
        Self(Loop::new(
            parameters,
            ObjectRef::new("cluster", "cluster"),
            effort,
        ))
    }

    /// * `as_wished`: whether all that is wished runs where it is placed.
    /// * `about`: the services that have replicas on nodes that are gone.
    pub fn seen(
        &mut self,
        reading: &Reading,
        as_wished: bool,
        about: &[ScopedName],
        turn: &mut Turn<'_>,
    ) {
        let entry = if as_wished {
            self.0.came("as wished", turn.now)
        } else {
            self.0.expire(turn.now)
        };
        turn.record(entry);
        let first = turn.effects.len();
        let action = turn.step(&mut self.0, reading, Vec::new());
        let about = about
            .iter()
            .map(|name| ObjectRef::new("service", name.to_string()));
        let about: Vec<ObjectRef> = about.collect();
        for effect in &mut turn.effects[first..] {
            if let NodeEffect::Record(wire::decision::JournalEntry::Decision(decision)) = effect {
                decision.about.clone_from(&about);
            }
        }
        if let Some(replace) = action {
            turn.effects.push(NodeEffect::Replace {
                nodes: replace.nodes,
                at_most: replace.at_most,
            });
        }
    }
}
