//! What the holder of the store does when a person asks for a change: the same
//! decisions as the agent's, on what its node knows at that moment.
//!
//! In: a manifest, a node to revoke. Out: a transaction, or a word on why not.

use crate::world::{STORE, World};
use kernel::{NodeId, UnixMillis};
use manifest::Manifest;
use node::desired::{Applied, Desired, FIRST_NODE, head_key};
use node::nodes::{NODES_PREFIX, NodeRecord, NodeTable, node_key};
use node::placing::{Known, placements};
use node::store::{Compare, Operation, Transaction};
use std::collections::BTreeMap;

impl World {
    fn node_table(&self) -> NodeTable {
        let range = self.host.range(NODES_PREFIX);
        let records = range.entries.iter();
        records
            .filter_map(|entry| {
                let record: NodeRecord = serde_json::from_slice(&entry.value).ok()?;
                Some((record.id, record))
            })
            .collect()
    }

    /// Without power on the holder nobody can ask it.
    pub fn apply(&mut self, manifest: &Manifest) {
        let Some(running) = &self.machines[STORE].running else {
            return self.check.broken(self.now, "nobody is there who applies");
        };
        let key = head_key(&manifest.project);
        let range = self.host.range(&key);
        let head = range.entries.iter().find(|entry| entry.key == key);
        let old: Option<Applied> = head.and_then(|it| serde_json::from_slice(&it.value).ok());
        let is_up = |node: NodeId| {
            let seen = running.core.view(node);
            // Of those out of view only the zone tree tells, which is a world of
            // its own here.
            node == FIRST_NODE || seen.is_none_or(|view| view.reach.is_up())
        };
        let known = |node| Known::reach(is_up(node));
        let desired = Desired {
            revision: range.revision,
            projects: old
                .iter()
                .map(|old| (manifest.project.clone(), old.clone()))
                .collect(),
            policies: BTreeMap::new(),
        };
        let dealt = placements(manifest, &desired, &self.node_table(), known);
        let placements = match dealt {
            Ok(placements) => placements,
            Err(why) => return self.check.broken(self.now, &format!("apply: {why}")),
        };
        let mut applied = Applied {
            number: old.as_ref().map_or(0, |old| old.number) + 1,
            at_unix: UnixMillis(0),
            manifest: manifest.clone(),
            directory: "/script".into(),
            trees: BTreeMap::new(),
            programs: BTreeMap::new(),
            generations: BTreeMap::new(),
            placements,
            epochs: BTreeMap::new(),
            origin: FIRST_NODE,
        };
        applied.generations = applied.generations_after(old.as_ref());
        let compare = match head {
            Some(head) => Compare::Modified(key.clone(), head.modified),
            None => Compare::Absent(key.clone()),
        };
        self.write(Transaction {
            compare: vec![compare],
            then: vec![Operation::Put(
                key,
                serde_json::to_vec(&applied).unwrap_or_default(),
            )],
            otherwise: Vec::new(),
        });
    }

    pub fn revoke(&mut self, node: NodeId) {
        let Some(record) = self.node_table().remove(&node) else {
            return self
                .check
                .broken(self.now, &format!("{node} was never admitted"));
        };
        let revoked = NodeRecord {
            revoked_at: Some(UnixMillis(1)),
            ..record
        };
        let value = serde_json::to_vec(&revoked).unwrap_or_default();
        self.write(Transaction {
            then: vec![Operation::Put(node_key(node), value)],
            ..Transaction::default()
        });
        for machine in &mut self.machines {
            machine.revoked |= machine.node == node;
        }
    }
}
