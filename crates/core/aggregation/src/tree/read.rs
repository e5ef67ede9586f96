//! What a reader on this node is given.
//!
//! Holds: a row comes with its age, its coverage, and whether it is unknown; a
//! reader that asks for more than is here is told so, and gets nothing.

use super::event::{Aggregate, Demand, Mate, ReadError, View};
use super::{Input, Tools, Tree};
use kernel::{NodeId, ZonePath};
use wire::tree::{Coverage, ZoneKey};

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
    pub fn read(&self, zone: &ZonePath, demand: Demand) -> Result<View, ReadError> {
        let view = self.view(zone).ok_or(ReadError::Nothing)?;
        let stamp = view.row.row.stamp;
        if demand.at_least.is_some_and(|least| stamp < least) {
            return Err(ReadError::Behind { stamp });
        }
        if demand.age_max.is_some_and(|most| view.age > most) {
            return Err(ReadError::Stale { age: view.age });
        }
        Ok(view)
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

    /// The children of one of this node's zones; none of any other's.
    pub fn children(&self, zone: &ZonePath) -> impl Iterator<Item = View> {
        let level = self.path.iter().position(|step| step.zone == *zone);
        let table = level.and_then(|level| self.tables.get(level));
        let entries = table.into_iter().flat_map(super::Table::iter);
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
