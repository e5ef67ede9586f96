//! Several members in one process, over a network that can be cut, each on a
//! disk of its own that keeps for certain only what was synced.

use super::cruel::Disk;
use crate::file::{self, Place};
use crate::group::{Carry, CarryError, take_over_in};
use crate::{EmbeddedStore, Group, Tuning};
use fastrand::Rng;
use kernel::NodeId;
use node::BoxFuture;
use node::store::Transaction;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// Members in one process; packets between those on both sides of a cut are lost.
#[derive(Default)]
pub struct Net {
    members: Mutex<BTreeMap<NodeId, Weak<EmbeddedStore>>>,
    disks: Mutex<BTreeMap<NodeId, Disk>>,
    cut: Mutex<BTreeSet<NodeId>>,
    /// Whose disks have no room.
    full: Arc<Mutex<BTreeSet<NodeId>>>,
    /// Answers of writes that are lost on their way back, one in so many.
    pub lossy: Mutex<Option<u64>>,
    /// Where not 0, all ways carry so many bytes a millisecond.
    pub bytes_per_ms: AtomicU64,
    counted: AtomicU64,
}

struct Line {
    own: NodeId,
    net: Arc<Net>,
}

impl Carry for Line {
    fn call(
        &self,
        to: NodeId,
        body: Vec<u8>,
        within: Duration,
    ) -> BoxFuture<'_, Result<Vec<u8>, CarryError>> {
        Box::pin(async move {
            let failed = |why: &str| CarryError {
                node: to,
                why: why.to_owned(),
            };
            let parted = || {
                let cut = self.net.cut.lock().expect("no panic");
                cut.contains(&to) != cut.contains(&self.own)
            };
            if parted() {
                tokio::time::sleep(within).await;
                return Err(failed("cut"));
            }
            let member = {
                let members = self.net.members.lock().expect("no panic");
                members.get(&to).and_then(Weak::upgrade)
            };
            let member = member.ok_or_else(|| failed("no power"))?;
            let takes =
                (body.len() as u64).checked_div(self.net.bytes_per_ms.load(Ordering::Relaxed));
            tokio::time::sleep(Duration::from_millis(takes.unwrap_or(0))).await;
            let answer = member.answer(self.own, &body).await;
            if parted() || self.loses_answer() {
                tokio::time::sleep(within).await;
                return Err(failed("lost"));
            }
            Ok(answer)
        })
    }
}

impl Line {
    fn loses_answer(&self) -> bool {
        let lossy = *self.net.lossy.lock().expect("no panic");
        let counted = self.net.counted.fetch_add(1, Ordering::Relaxed) + 1;
        lossy.is_some_and(|one_in| counted.is_multiple_of(one_in))
    }
}

fn tuning() -> Tuning {
    Tuning {
        entries_per_snapshot: 50,
        history_revisions_max: 60,
        beat_ms: 30,
    }
}

impl Net {
    /// On what is left of its disk.
    pub async fn open(self: &Arc<Self>, node: u64, first: bool) -> Arc<EmbeddedStore> {
        let own = NodeId(node);
        let line: Arc<dyn Carry> = Arc::new(Line {
            own,
            net: Arc::clone(self),
        });
        let group = if first {
            Group::First(line)
        } else {
            Group::Joining(line)
        };
        let disk = {
            let mut disks = self.disks.lock().expect("no panic");
            disks.entry(own).or_default().clone()
        };
        let full = Arc::clone(&self.full);
        let free = move || {
            let is_full = full.lock().expect("no panic").contains(&own);
            Ok(if is_full { 0 } else { u64::MAX })
        };
        let place = Place::layer_with(disk, Arc::new(free));
        let opened = EmbeddedStore::open_at(place, own, group, tuning()).await;
        let opened = Arc::new(opened.expect("opens"));
        let mut members = self.members.lock().expect("no panic");
        members.insert(own, Arc::downgrade(&opened));
        opened
    }

    pub fn disk(&self, node: u64) -> Disk {
        let disks = self.disks.lock().expect("no panic");
        disks.get(&NodeId(node)).cloned().expect("it was opened")
    }

    pub fn set_disk(&self, node: u64, left: Vec<u8>) {
        let mut disks = self.disks.lock().expect("no panic");
        disks.insert(NodeId(node), Disk::holding(left));
    }

    /// It answers nobody, and is not told; of what was not synced, its disk keeps
    /// something or nothing.
    pub async fn kill(&self, member: Arc<EmbeddedStore>, node: u64, rng: &mut Rng) {
        let left = self.disk(node).lose_power(rng);
        self.set_disk(node, left);
        self.members.lock().expect("no panic").remove(&NodeId(node));
        member.shutdown().await;
    }

    /// As [`crate::take_over`] does it to a file.
    pub fn take_over(&self, node: u64, rank: u64, then: Transaction) {
        let place = Place::layer(self.disk(node));
        let (database, loaded) = file::open(place, node).expect("opens");
        let what = (rank, then);
        take_over_in(&database, &loaded, NodeId(node), what, "a disk").expect("takes over");
    }

    pub fn fill(&self, nodes: &[u64]) {
        *self.full.lock().expect("no panic") = ids(nodes);
    }

    pub fn cut_off(&self, nodes: &[u64]) {
        *self.cut.lock().expect("no panic") = ids(nodes);
    }
}

pub fn ids(nodes: &[u64]) -> BTreeSet<NodeId> {
    nodes.iter().copied().map(NodeId).collect()
}

pub async fn three() -> (Arc<Net>, Vec<Arc<EmbeddedStore>>) {
    let net = Arc::new(Net::default());
    let mut members = Vec::new();
    for node in 1..=3 {
        members.push(net.open(node, node == 1).await);
    }
    let made = members[0].set_members(ids(&[1, 2, 3]), ids(&[])).await;
    made.expect("three members");
    (net, members)
}

pub async fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "not: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
