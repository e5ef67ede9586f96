//! What the leader does when a person asks for a change: the same decisions as
//! the agent's, on what its node knows at that moment. A person who gets no answer,
//! or is refused, asks again.
//!
//! In: a manifest, a node to revoke or to empty. Out: a transaction, or a word on
//! why there was none for long.

use crate::world::World;
use kernel::{NodeId, Time, UnixMillis};
use manifest::Manifest;
use node::desired::{Applied, FIRST_NODE};
use node::nodes::{NodeRecord, node_key};
use node::placing::placements;
use node::store::{Operation, Transaction};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a person goes on asking.
const PATIENCE: Duration = Duration::from_mins(3);
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub enum What {
    Apply {
        manifest: Box<Manifest>,
        /// What it is to become, once it was asked for.
        number: Option<u64>,
    },
    Revoke(NodeId),
    Drain {
        node: NodeId,
        draining: bool,
    },
}

#[derive(Clone, Debug)]
pub struct Order {
    what: What,
    since: Time,
    asked_at: Time,
    why_not: String,
}

enum Asked {
    /// The store may not have it yet.
    Written,
    Done,
    Not(String),
}

impl World {
    pub fn apply(&mut self, manifest: &Manifest) {
        // Who asks anew does not ask for what was before.
        self.orders.retain(|order| match &order.what {
            What::Apply { manifest: old, .. } => old.project != manifest.project,
            _ => true,
        });
        self.order(What::Apply {
            manifest: Box::new(manifest.clone()),
            number: None,
        });
    }

    pub fn order(&mut self, what: What) {
        // The later word about a node's emptying holds.
        if let What::Drain { node, .. } = &what {
            let about =
                |order: &Order| matches!(&order.what, What::Drain { node: it, .. } if it == node);
            self.orders.retain(|order| !about(order));
        }
        self.orders.push(Order {
            what,
            since: self.now,
            asked_at: Time(0),
            why_not: "nobody leads".to_owned(),
        });
        self.carry_orders();
    }

    pub fn carry_orders(&mut self) {
        for mut order in std::mem::take(&mut self.orders) {
            let is_first = order.asked_at == Time(0);
            if !is_first && self.now < order.asked_at + AGAIN {
                self.orders.push(order);
                continue;
            }
            let leader = self.group.leader.filter(|at| self.commits(*at));
            let asked = match leader {
                Some(leader) => self.ask(leader, &mut order),
                None => Asked::Not("nobody leads".to_owned()),
            };
            order.asked_at = self.now;
            match asked {
                Asked::Done => continue,
                Asked::Written => {}
                Asked::Not(why) => order.why_not = why,
            }
            if self.now.since(order.since) > PATIENCE {
                let why = format!("{}: {}", order.name(), order.why_not);
                self.check.broken(self.now, &why);
                continue;
            }
            self.orders.push(order);
        }
    }

    fn ask(&mut self, leader: usize, order: &mut Order) -> Asked {
        let running = self.machines[leader].running.as_ref();
        if running.is_none_or(|running| running.client.writes()) {
            return Asked::Not("another change is under way".to_owned());
        }
        match &mut order.what {
            What::Apply { manifest, number } => self.ask_apply(leader, manifest, number),
            What::Revoke(node) => {
                let node = *node;
                let done = self.ask_record(leader, node, |record| {
                    record.revoked_at.get_or_insert(UnixMillis(1));
                });
                if !matches!(done, Asked::Not(_)) {
                    for machine in &mut self.machines {
                        machine.revoked |= machine.node == node;
                    }
                }
                done
            }
            What::Drain { node, draining } => {
                let draining = *draining;
                self.ask_record(leader, *node, |record| record.draining = draining)
            }
        }
    }

    fn ask_apply(&mut self, leader: usize, manifest: &Manifest, wanted: &mut Option<u64>) -> Asked {
        let (desired, modified) = self.heads();
        let old = desired.projects.get(&manifest.project);
        let number = old.map_or(0, |old| old.number);
        let wanted = *wanted.get_or_insert(number + 1);
        if number >= wanted && old.is_some_and(|old| old.manifest == *manifest) {
            return Asked::Done;
        }
        let nodes = self.node_table();
        let dealt = placements(manifest, &desired, &nodes, |node| self.known(leader, node));
        let placements = match dealt {
            Ok(placements) => placements,
            Err(why) => return Asked::Not(why.to_string()),
        };
        let mut applied = Applied {
            number: number + 1,
            at_unix: UnixMillis(0),
            manifest: manifest.clone(),
            directory: "/script".into(),
            trees: BTreeMap::new(),
            programs: BTreeMap::new(),
            generations: BTreeMap::new(),
            placements,
            epochs: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            origin: FIRST_NODE,
        };
        applied.keep_singletons(old, desired.next_epoch());
        applied.generations = applied.generations_after(old);
        self.write_head(leader, &applied, modified.get(&manifest.project).copied());
        Asked::Written
    }

    fn ask_record(
        &mut self,
        leader: usize,
        node: NodeId,
        change: impl FnOnce(&mut NodeRecord),
    ) -> Asked {
        let Some(record) = self.node_table().get(&node).cloned() else {
            return Asked::Not(format!("{node} was never admitted"));
        };
        let mut changed = record.clone();
        change(&mut changed);
        if changed == record {
            return Asked::Done;
        }
        let value = serde_json::to_vec(&changed).unwrap_or_default();
        self.write(
            leader,
            Transaction {
                then: vec![Operation::Put(node_key(node), value)],
                ..Transaction::default()
            },
        );
        Asked::Written
    }
}

impl Order {
    fn name(&self) -> String {
        match &self.what {
            What::Apply { manifest, .. } => format!("apply of {}", manifest.project),
            What::Revoke(node) => format!("revocation of {node}"),
            What::Drain { node, draining } => format!("{node} draining: {draining}"),
        }
    }
}
