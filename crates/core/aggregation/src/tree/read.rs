//! What a reader on this node is given.
//!
//! Holds: a row comes with its age, its coverage, and whether it is unknown; a
//! reader that asks for more than is here is told so, and gets nothing.

use super::event::{Aggregate, Demand, Mate, ReadError, View};
use super::table::Entry;
use super::{Input, Table, Tools, Tree};
use crate::membership::Reach;
use kernel::{NodeId, ZonePath};
use std::collections::BTreeMap;
use std::time::Duration;
use wire::tree::{Coverage, Seen, Stamp, ZoneKey};

/// Of what a zone is computed from.
struct Part {
    stamp: Stamp,
    age: Duration,
}

fn seen(parts: &BTreeMap<String, Part>) -> Seen {
    let parts = parts.iter().map(|(name, part)| (name.clone(), part.stamp));
    Seen::Parts(parts.collect())
}

fn is_young_enough(age: Duration, demand: &Demand) -> Result<(), ReadError> {
    match demand.age_max {
        Some(most) if age > most => Err(ReadError::Stale { age }),
        _ => Ok(()),
    }
}

impl Tree {
    /// The row of a child of one of this node's zones, as it was issued.
    pub fn view(&self, zone: &ZonePath) -> Option<View> {
        let level = zone.depth().checked_sub(1)?;
        let entry = self.tables.get(level)?.get(ZoneKey::of(zone))?;
        if entry.row.row.zone != *zone {
            return None;
        }
        Some(View {
            row: entry.row.clone(),
            age: entry.confirmed.age(self.now),
            unknown: entry.unknown,
            ended: entry.ended,
            coverage: entry.row.row.coverage,
        })
    }

    /// The same, unless it is older than the reader can use.
    ///
    /// # Errors
    /// What is here does not meet the demand.
    pub fn read(&self, zone: &ZonePath, demand: &Demand) -> Result<View, ReadError> {
        let view = self.view(zone).ok_or(ReadError::Nothing)?;
        let stamp = view.row.row.stamp;
        let is_behind = match &demand.at_least {
            None => false,
            Some(Seen::Row(least)) => stamp < *least,
            Some(Seen::Parts(_)) => return Err(ReadError::OfAnother),
        };
        if is_behind {
            let here = Seen::Row(stamp);
            return Err(ReadError::Behind { here });
        }
        is_young_enough(view.age, demand)?;
        Ok(view)
    }

    /// The same of one of this node's zones as it is computed here: of the root,
    /// which has no row. All that goes into it must meet the demand.
    ///
    /// # Errors
    /// What is here does not meet the demand.
    pub fn read_computed(
        &self,
        zone: &ZonePath,
        demand: &Demand,
        tools: Tools,
    ) -> Result<Aggregate, ReadError> {
        let place = self.path.iter().position(|step| step.zone == *zone);
        let place = place.ok_or(ReadError::Nothing)?;
        let parts = self.parts(place);
        let is_behind = match &demand.at_least {
            None => false,
            Some(Seen::Parts(least)) => least.iter().any(|(name, least)| {
                let here = parts.get(name).map(|part| part.stamp);
                here.is_none_or(|here| here < *least)
            }),
            Some(Seen::Row(_)) => return Err(ReadError::OfAnother),
        };
        if is_behind {
            let here = seen(&parts);
            return Err(ReadError::Behind { here });
        }
        let oldest = parts.values().map(|part| part.age).max();
        is_young_enough(oldest.unwrap_or_default(), demand)?;
        Ok(self.compute(place, tools))
    }

    /// What that is computed from, for a reader who passes it on.
    pub fn seen(&self, zone: &ZonePath) -> Option<Seen> {
        let place = self.path.iter().position(|step| step.zone == *zone)?;
        Some(seen(&self.parts(place)))
    }

    fn parts(&self, place: usize) -> BTreeMap<String, Part> {
        if place == self.depth() {
            let of_mate = |(node, mate): (&NodeId, &Mate)| {
                let stamp = Stamp {
                    epoch: mate.version.epoch,
                    number: mate.version.number,
                    issuer: *node,
                };
                let age = match mate.reach {
                    Reach::Alive | Reach::Suspect => Duration::ZERO,
                    _ => self.now.since(mate.since),
                };
                (node.to_string(), Part { stamp, age })
            };
            return self.mates.iter().map(of_mate).collect();
        }
        let entries = self.tables.get(place).into_iter().flat_map(Table::iter);
        let of_child = |(_, entry): (_, &Entry)| {
            let row = &entry.row.row;
            // One that has ended grows no older.
            let age = if entry.ended {
                Duration::ZERO
            } else {
                entry.confirmed.age(self.now)
            };
            let name = row.zone.to_string();
            let name = name.rsplit('/').next().unwrap_or_default().to_owned();
            let stamp = row.stamp;
            (name, Part { stamp, age })
        };
        entries.map(of_child).collect()
    }

    /// This node's leaf zone.
    pub fn zone(&self) -> &ZonePath {
        &self.path[self.depth()].zone
    }

    /// The nodes of the leaf zone, as far as they are known here.
    pub fn mates(&self) -> impl Iterator<Item = &Mate> {
        self.mates.values()
    }

    /// How many belong there.
    pub fn expected(&self) -> u64 {
        self.expected
    }

    /// The zones' layout that all here goes by.
    pub fn layout(&self) -> u64 {
        self.layout
    }

    /// The children of one of this node's zones; none of any other's.
    pub fn children(&self, zone: &ZonePath) -> impl Iterator<Item = View> {
        let level = self.path.iter().position(|step| step.zone == *zone);
        let table = level.and_then(|level| self.tables.get(level));
        let entries = table.into_iter().flat_map(Table::iter);
        entries.map(|(_, entry)| View {
            row: entry.row.clone(),
            age: entry.confirmed.age(self.now),
            unknown: entry.unknown,
            ended: entry.ended,
            coverage: entry.row.row.coverage,
        })
    }

    /// The row of one of this node's zones as its children's rows give it here
    /// and now; the root's too.
    pub fn aggregate(&self, zone: &ZonePath, tools: Tools) -> Option<Aggregate> {
        let place = self.path.iter().position(|step| step.zone == *zone)?;
        Some(self.compute(place, tools))
    }

    /// What that row is computed from: to find the rows behind a number.
    pub fn inputs_of(&self, zone: &ZonePath) -> Vec<Input<'_>> {
        let place = self.path.iter().position(|step| step.zone == *zone);
        place.map_or_else(Vec::new, |place| self.inputs(place))
    }

    /// How much of one of this node's zones its row has, without computing it.
    pub fn coverage_of(&self, zone: &ZonePath) -> Option<Coverage> {
        let place = self.path.iter().position(|step| step.zone == *zone)?;
        Some(self.coverage(place))
    }

    /// The same for nodes that hold the same rows of that zone's children.
    pub fn fingerprint(&self, zone: &ZonePath) -> Option<u64> {
        let place = self.path.iter().position(|step| step.zone == *zone)?;
        self.tables.get(place).map(super::Table::hash)
    }

    /// Whether this node issues the row of that zone.
    pub fn leads(&self, zone: &ZonePath) -> bool {
        let level = zone.depth().checked_sub(1);
        let post = level.and_then(|level| self.posts.get(level));
        let is_own = self
            .path
            .get(zone.depth())
            .is_some_and(|step| step.zone == *zone);
        is_own && post.is_some_and(|post| post.lead.is_some())
    }

    /// Those elected to represent that zone of this node's, as it sees them.
    pub fn representatives(&self, zone: &ZonePath) -> Vec<NodeId> {
        let is_own = self
            .path
            .get(zone.depth())
            .is_some_and(|step| step.zone == *zone);
        let level = zone.depth().checked_sub(1).filter(|_| is_own);
        let post = level.and_then(|level| self.posts.get(level));
        let servers = post.map_or(&[][..], |post| &post.servers);
        let some = servers.iter().take(self.parameters.representatives);
        some.map(|one| one.node).collect()
    }
}
