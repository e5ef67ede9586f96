//! Which part of a question this node answers itself, and whom it asks for the
//! rest.
//!
//! Holds: own zones are gone into, down to the leaf zone, whose rows are here;
//! each zone beside them is one part, asked of its row's contacts.

use super::{NodeId, Part, Question, Row, Silence, Time, Tree, ZonePath, may_go_on};
use crate::membership::Reach;
use crate::tree::View;
use std::collections::BTreeMap;
use wire::tree::Coverage;

pub struct Plan {
    pub leaf: ZonePath,
    pub nodes: BTreeMap<NodeId, Row>,
    pub coverage: Coverage,
    pub silent: Vec<Silence>,
    pub parts: Vec<Part>,
}

/// `None` when there is no such zone, as far as this node knows.
pub fn of(tree: &Tree, question: &Question, now: Time) -> Option<Plan> {
    let leaf = tree.zone();
    let mut plan = Plan {
        leaf: leaf.clone(),
        nodes: BTreeMap::new(),
        coverage: Coverage::default(),
        silent: Vec::new(),
        parts: Vec::new(),
    };
    if question.zone.contains(leaf) {
        for depth in question.zone.depth()..leaf.depth() {
            let (above, own) = (leaf.ancestor(depth), leaf.ancestor(depth + 1));
            let beside = tree.children(&above);
            for view in beside.filter(|view| view.row.row.zone != own) {
                plan.ask(&view, question);
            }
        }
        plan.look(tree, question, now);
        return Some(plan);
    }
    // Towards it: the zone beside one of this node's own that has it.
    let common = (0..=leaf.depth())
        .rev()
        .map(|depth| leaf.ancestor(depth))
        .find(|own| own.contains(&question.zone))?;
    let towards = question.zone.ancestor(common.depth() + 1);
    let view = tree.children(&common).find(|view| {
        let row = &view.row.row;
        row.zone == towards && !row.ended
    })?;
    plan.ask(&view, question);
    // It is asked for the zone itself, wherever below that one it lies.
    for part in &mut plan.parts {
        part.zone = question.zone.clone();
    }
    Some(plan)
}

impl Plan {
    /// A zone beside this node's own.
    fn ask(&mut self, view: &View, question: &Question) {
        let row = &view.row.row;
        if row.ended {
            return;
        }
        let age_ms = u64::try_from(view.age.as_millis()).unwrap_or(u64::MAX);
        let silence = Silence {
            zone: row.zone.clone(),
            nodes: row.coverage.expected,
            age_ms: age_ms.saturating_add(row.coverage.oldest_ms),
        };
        // A zone of which nothing is heard is not waited for.
        if view.unknown || row.contacts.is_empty() || !may_go_on(question) {
            let sum = &mut self.coverage.expected;
            *sum = sum.saturating_add(silence.nodes);
            self.silent.push(silence);
            return;
        }
        self.parts.push(Part {
            zone: row.zone.clone(),
            contacts: row.contacts.iter().rev().copied().collect(),
            under_way: 0,
            next_at: Time::default(),
            silence,
            over: false,
        });
    }

    /// The rows of the leaf zone.
    fn look(&mut self, tree: &Tree, question: &Question, now: Time) {
        let mut known = 0_u64;
        for mate in tree.mates() {
            known += 1;
            let silent = match mate.reach {
                Reach::Suspect => now.since(mate.since).as_millis(),
                _ => 0,
            };
            let silent = u64::try_from(silent).unwrap_or(u64::MAX);
            let fresh = question.fresh_ms.is_none_or(|most| silent <= most);
            if !mate.reach.is_up() || mate.version.number == 0 || !fresh {
                continue;
            }
            // A row that cannot be read is not heard.
            let Ok(row) = Row::decode(&mate.attributes) else {
                continue;
            };
            self.nodes.insert(mate.contact.node, row);
            let oldest = &mut self.coverage.oldest_ms;
            *oldest = silent.max(*oldest);
        }
        let expected = tree.expected().max(known);
        let sum = &mut self.coverage;
        sum.expected = sum.expected.saturating_add(expected);
        let here = u64::try_from(self.nodes.len()).unwrap_or(u64::MAX);
        sum.reporting = sum.reporting.saturating_add(here);
    }
}
