//! A zone's children as a representative keeps them: what its programs read of
//! them, by column.
//!
//! In: rows as they come, one at a time. Out: columns for evaluations.
//! Holds: only what a program names is kept, so that a stranger's row with many
//! attributes costs nothing; parts are checked once, when they come.

use super::Program;
use kernel::{Name, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use wire::attributes::{AttributeName, Partial, Row, Value};

/// Made anew when the programs change, from the rows.
#[derive(Clone, Debug, Default)]
pub struct Children {
    /// In no order that means anything.
    nodes: Vec<NodeId>,
    places: BTreeMap<NodeId, usize>,
    columns: BTreeMap<AttributeName, Vec<Option<Value>>>,
    zones: BTreeSet<Name>,
    parts: BTreeMap<AttributeName, BTreeMap<Name, Partial>>,
}

impl Children {
    /// Of nobody yet, for these programs.
    pub fn of<'a>(programs: impl IntoIterator<Item = &'a Program>) -> Self {
        let mut children = Self::default();
        for program in programs {
            for column in program.columns() {
                children.columns.entry(column.clone()).or_default();
            }
            children.parts.entry(program.parts().clone()).or_default();
        }
        children
    }

    /// A node's row, or its newer one.
    pub fn put_node(&mut self, node: NodeId, row: &Row) {
        let place = self.places.get(&node).copied();
        if place.is_none() {
            self.places.insert(node, self.nodes.len());
            self.nodes.push(node);
        }
        for (name, column) in &mut self.columns {
            let value = row
                .get(name.as_str())
                .filter(|value| value.is_sound())
                .cloned();
            match place.and_then(|place| column.get_mut(place)) {
                Some(known) => *known = value,
                None => column.push(value),
            }
        }
    }

    pub fn remove_node(&mut self, node: NodeId) {
        let Some(place) = self.places.remove(&node) else {
            return;
        };
        self.nodes.swap_remove(place);
        for column in self.columns.values_mut() {
            column.swap_remove(place);
        }
        if let Some(moved) = self.nodes.get(place) {
            self.places.insert(*moved, place);
        }
    }

    /// A child zone's row, or its newer one.
    pub fn put_zone(&mut self, zone: Name, row: &Row) {
        for (name, parts) in &mut self.parts {
            match row.get(name.as_str()) {
                Some(Value::Partial(partial)) if partial.is_sound() => {
                    parts.insert(zone.clone(), partial.as_ref().clone());
                }
                _ => {
                    parts.remove(&zone);
                }
            }
        }
        self.zones.insert(zone);
    }

    pub fn remove_zone(&mut self, zone: &Name) {
        self.zones.remove(zone);
        for parts in self.parts.values_mut() {
            parts.remove(zone);
        }
    }

    pub(super) fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    pub(super) fn column(&self, name: &AttributeName) -> Option<&[Option<Value>]> {
        self.columns.get(name).map(Vec::as_slice)
    }

    /// What the zones have gathered for a program.
    pub(super) fn partials(&self, parts: &AttributeName) -> impl Iterator<Item = &Partial> {
        self.parts.get(parts).into_iter().flat_map(BTreeMap::values)
    }

    pub(super) fn zones(&self) -> usize {
        self.zones.len()
    }
}
