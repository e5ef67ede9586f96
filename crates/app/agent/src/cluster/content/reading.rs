//! Puts a look together into the loop's reading, and what it found into what
//! other nodes and `doctor` are told.

use super::kept::Kept;
use super::look::{Elsewhere, Found, Wishes};
use super::told::{Damaged, Need};
use crate::shared::Shared;
use control::holding::{Asked, Desired, Held, Seen};
use kernel::{Bytes, Hash, NodeId, ObjectRef};
use node::NodeEvent;
use node::desired::FIRST_NODE;
use node::nodes::ContentReport;
use std::collections::{BTreeMap, BTreeSet};

pub fn tell(shared: &Shared, kept: &Kept, found: Found, elsewhere: &Elsewhere) -> NodeEvent {
    let (names, objects) = called(kept, &found);
    report(shared, kept, &found);
    let Found {
        wishes,
        known,
        damaged,
        pinned,
        free,
    } = found;
    let counted = Counted {
        own: shared.cluster.own.id,
        leader: shared.cluster.led_last(),
        elsewhere,
    };
    let desired = wishes.desired.iter().map(|hash| known_bytes(kept, *hash));
    let seen = Seen {
        desired: desired.collect(),
        asked: counted.asked(&wishes),
        damaged: damaged.keys().copied().collect(),
        here: counted.held(kept, &wishes),
        pinned,
        leased: shared.content.leased().into_iter().collect(),
        free,
        others: super::others(&shared.cluster),
        names,
    };
    shared.holdings.set_damaged(&known, damaged);
    keep(shared, kept, wishes);
    NodeEvent::ContentSeen {
        seen: Box::new(seen),
        objects,
    }
}

/// What people call each thing, and the objects that it belongs to.
fn called(kept: &Kept, found: &Found) -> (BTreeMap<Hash, String>, BTreeMap<Hash, Vec<ObjectRef>>) {
    let mut names = BTreeMap::new();
    let mut objects = BTreeMap::new();
    for (hash, one) in &kept.held {
        names.insert(*hash, one.name.clone());
    }
    for (hash, asked) in &found.wishes.asked {
        names.insert(*hash, asked.name.clone());
    }
    let damaged = found.damaged.iter();
    let damaged = damaged.filter_map(|(hash, it)| Some((hash, it.need.as_ref()?)));
    for (hash, need) in found.wishes.needs.iter().chain(damaged) {
        names.insert(*hash, need.name.clone());
        objects.insert(*hash, need.objects.clone());
    }
    (names, objects)
}

/// For the other nodes.
fn report(shared: &Shared, kept: &Kept, found: &Found) {
    let trees = |it: &Damaged| it.trees.clone();
    let broken: BTreeSet<Hash> = found.damaged.values().flat_map(trees).collect();
    let here = kept.held.keys().filter(|hash| !broken.contains(hash));
    let report = ContentReport {
        here: here.copied().collect(),
        asked: if shared.cluster.leads() {
            found.wishes.asked.clone()
        } else {
            BTreeMap::new()
        },
    };
    shared.holdings.report.send_if_modified(|last| {
        let news = *last != report;
        *last = report;
        news
    });
}

/// For fetches, collections and `doctor`.
fn keep(shared: &Shared, kept: &Kept, wishes: Wishes) {
    let mut needs = wishes.needs;
    for (hash, asked) in wishes.asked {
        needs.entry(hash).or_insert_with(|| Need {
            tree: asked.tree,
            name: asked.name,
            objects: Vec::new(),
            origin: FIRST_NODE,
        });
    }
    let bytes = Bytes(kept.held.values().map(|one| one.bytes).sum());
    let here = (kept.held.len() as u64, bytes);
    let held = kept.held.iter().map(|(hash, one)| (*hash, one.tree));
    shared.holdings.looked(needs, held.collect(), here);
}

fn known_bytes(kept: &Kept, hash: Hash) -> Desired {
    let bytes = kept.held.get(&hash).map_or(0, |one| one.bytes);
    Desired {
        hash,
        bytes: Bytes(bytes),
    }
}

struct Counted<'a> {
    own: NodeId,
    /// It keeps its copies.
    leader: NodeId,
    elsewhere: &'a Elsewhere,
}

impl Counted<'_> {
    fn copies(&self, hash: &Hash) -> node::Copies {
        let others = self.elsewhere.iter();
        let others = others.map(|(node, report)| (*node, &report.here));
        node::copies(hash, self.own, self.leader, others)
    }

    fn asked(&self, wishes: &Wishes) -> Vec<Asked> {
        let wanted = wishes.asked.iter();
        let asked = wanted.map(|(hash, asked)| {
            let copies = self.copies(hash);
            Asked {
                hash: *hash,
                lacking: asked.copies.saturating_sub(copies.elsewhere),
                before: copies.without_before,
            }
        });
        asked.collect()
    }

    fn held(&self, kept: &Kept, wishes: &Wishes) -> Vec<Held> {
        let held = kept.held.iter().map(|(hash, one)| {
            let wanted = wishes.asked.get(hash);
            Held {
                hash: *hash,
                bytes: Bytes(one.bytes),
                age_ms: one.age_ms,
                copies_wanted: wanted.map_or(0, |asked| asked.copies),
                copies_elsewhere: self.copies(hash).before,
            }
        });
        held.collect()
    }
}
