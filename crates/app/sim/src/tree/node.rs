//! One simulated node: its two cores, its clock, and what it publishes.

use super::keys::SimKeys;
use super::rows::{Facts, SimPrograms};
use super::shape::contact;
use aggregation::installed::Installed;
use aggregation::membership::{Membership, Reach};
use aggregation::tree::{Mate, Programs, Tools, Tree};
use kernel::{Time, UnixMillis};
use std::rc::Rc;
use std::sync::Arc;
use wire::gossip::AttributesVersion;

pub struct Node {
    pub alive: bool,
    /// None where the leaf zone's gossip is not simulated.
    pub membership: Option<Membership>,
    pub tree: Tree,
    pub keys: SimKeys,
    pub programs: SimPrograms,
    /// In their place, where the world runs SQL.
    pub installed: Option<Rc<Installed>>,
    pub facts: Facts,
    pub version: AttributesVersion,
    pub attributes: Arc<[u8]>,
    /// Its boot-time clock reads as much more than simulated time.
    pub clock: u64,
    /// Its wall clock is off by as much.
    pub wall_off_ms: i64,
    /// On the wire, sent and received, payloads only.
    pub bytes: u64,
}

impl Node {
    pub fn local(&self, now: Time) -> Time {
        Time(now.0 + self.clock)
    }

    pub fn global(&self, local: Time) -> Time {
        Time(local.0.saturating_sub(self.clock))
    }

    /// Hands the tree to `with`, and what it is lent.
    pub fn with_tree<T>(
        &mut self,
        wall: UnixMillis,
        with: impl FnOnce(&mut Tree, Tools) -> T,
    ) -> T {
        let programs: &dyn Programs = match &self.installed {
            Some(installed) => installed.as_ref(),
            None => &self.programs,
        };
        let tools = Tools {
            keys: &self.keys,
            programs,
            wall,
        };
        with(&mut self.tree, tools)
    }

    /// As its membership has it; without one, all are alive.
    pub fn mate(&self, at: usize, version: AttributesVersion, attributes: Arc<[u8]>) -> Mate {
        Mate {
            contact: contact(at),
            fitness: 1,
            domain: 0,
            reach: Reach::Alive,
            since: Time(0),
            version,
            attributes,
        }
    }
}
