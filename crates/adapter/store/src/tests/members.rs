//! Several members over a network that can be cut: what was acknowledged stays,
//! whoever dies.

use super::put;
use crate::file::Place;
use crate::group::{Carry, CarryError};
use crate::suite::{self, Subject};
use crate::{EmbeddedStore, Group, Tuning};
use kernel::NodeId;
use node::BoxFuture;
use node::store::{Compare, Operation, Store, StoreError, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

/// Members in one process; packets between those on both sides of a cut are lost.
#[derive(Default)]
struct Net {
    members: Mutex<BTreeMap<NodeId, Weak<EmbeddedStore>>>,
    cut: Mutex<BTreeSet<NodeId>>,
    /// Answers of writes that are lost on their way back, one in so many.
    lossy: Mutex<Option<u64>>,
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
    async fn open(self: &Arc<Self>, folder: &Path, node: u64, first: bool) -> Arc<EmbeddedStore> {
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
        let place = Place::File(folder.join(format!("{node}.redb")));
        let opened = EmbeddedStore::open_at(place, own, group, tuning()).await;
        let opened = Arc::new(opened.expect("opens"));
        let mut members = self.members.lock().expect("no panic");
        members.insert(own, Arc::downgrade(&opened));
        opened
    }

    /// As without power: it answers nobody, and is not told.
    async fn kill(&self, member: Arc<EmbeddedStore>, node: u64) {
        self.members.lock().expect("no panic").remove(&NodeId(node));
        member.shutdown().await;
    }

    fn cut_off(&self, nodes: &[u64]) {
        let cut = nodes.iter().copied().map(NodeId).collect();
        *self.cut.lock().expect("no panic") = cut;
    }
}

fn ids(nodes: &[u64]) -> BTreeSet<NodeId> {
    nodes.iter().copied().map(NodeId).collect()
}

async fn three() -> (tempfile::TempDir, Arc<Net>, Vec<Arc<EmbeddedStore>>) {
    let folder = tempfile::tempdir().expect("folder");
    let net = Arc::new(Net::default());
    let mut members = Vec::new();
    for node in 1..=3 {
        members.push(net.open(folder.path(), node, node == 1).await);
    }
    let made = members[0].set_members(ids(&[1, 2, 3]), ids(&[])).await;
    made.expect("three members");
    (folder, net, members)
}

async fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "not: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Writes at any cost but twice: what is not known is looked for.
async fn write(store: &EmbeddedStore, key: &str, value: &[u8]) {
    loop {
        match store.transact(put(key, value)).await {
            Ok(_) => return,
            Err(StoreError::NoQuorum | StoreError::Unknown) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_does_what_every_store_must() {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let (_folder, _net, members) = three().await;
    let subject = Subject {
        store: &*members[1],
        history_revisions: 60,
        pause: &|| Box::pin(tokio::time::sleep(Duration::from_millis(50))),
        now: &|| BEGAN.get_or_init(Instant::now).elapsed(),
    };
    suite::all(&subject).await;
    // All of it came to the others.
    let all = members[1].range("").await.expect("reads");
    for member in &members {
        assert_eq!(member.range("").await.expect("reads"), all);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_the_leader() {
    let (folder, net, mut members) = three().await;
    for number in 0..120_u32 {
        let key = format!("/before/{number}");
        write(&members[1], &key, b"1").await;
    }
    let leader = members.remove(0);
    assert_eq!(leader.members().leader, Some(NodeId(1)));
    net.kill(leader, 1).await;
    for number in 0..20_u32 {
        let key = format!("/after/{number}");
        write(&members[0], &key, b"1").await;
    }
    let found = members[1].range("/").await.expect("reads");
    assert_eq!(found.entries.len(), 140);
    // It comes back behind a snapshot, and has all.
    let back = net.open(folder.path(), 1, true).await;
    assert_eq!(back.range("/").await.expect("reads").entries.len(), 140);
    assert!(back.members().leader.is_some_and(|one| one != NodeId(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_smaller_side_changes_nothing_and_says_so() {
    let (_folder, net, members) = three().await;
    write(&members[0], "/key", b"old").await;
    net.cut_off(&[1]);
    until("another leader", || {
        let leader = members[1].members().leader;
        leader.filter(|leader| *leader != NodeId(1))
    })
    .await;
    write(&members[1], "/key", b"new").await;
    until("the old leader's doubt", || {
        members[0].members().leader.is_none().then_some(())
    })
    .await;
    let began = Instant::now();
    let refused = members[0].transact(put("/key", b"wrong")).await;
    let refused = refused.expect_err("the smaller side");
    assert_eq!(refused, StoreError::NoQuorum);
    let refused = members[0].range("/").await.expect_err("a stale read");
    assert_eq!(refused, StoreError::NoQuorum);
    assert!(began.elapsed() < Duration::from_secs(15));
    net.cut_off(&[]);
    let entries = members[0].range("/key").await.expect("reads").entries;
    assert_eq!(entries[0].value, b"new");
}

/// Each of many adds to one number by comparing, and answers get lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_again_is_done_once() {
    let (_folder, net, members) = three().await;
    write(&members[0], "/sum", b"0").await;
    *net.lossy.lock().expect("no panic") = Some(7);
    let mut adders = Vec::new();
    for (at, member) in members.iter().cloned().enumerate() {
        let adder = async move {
            let mut done = 0_u32;
            while done < 15 {
                let Ok(read) = member.range("/sum").await else {
                    continue;
                };
                let sum: u32 = String::from_utf8(read.entries[0].value.clone())
                    .expect("text")
                    .parse()
                    .expect("a number");
                let added = Transaction {
                    compare: vec![Compare::Modified("/sum".into(), read.entries[0].modified)],
                    then: vec![
                        Operation::Put("/sum".into(), (sum + 1).to_string().into_bytes()),
                        Operation::Put(format!("/done/{at}/{done}"), Vec::new()),
                    ],
                    otherwise: Vec::new(),
                };
                match member.transact(added).await {
                    Ok(outcome) if outcome.succeeded => done += 1,
                    Ok(_) | Err(StoreError::NoQuorum) => {}
                    Err(StoreError::Unknown) => {
                        let seen = member.range(&format!("/done/{at}/{done}")).await;
                        let seen = seen.map(|seen| seen.entries.len());
                        done += u32::from(seen == Ok(1));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        };
        adders.push(tokio::spawn(adder));
    }
    for adder in adders {
        adder.await.expect("adds");
    }
    *net.lossy.lock().expect("no panic") = None;
    let sum = members[2].range("/sum").await.expect("reads");
    assert_eq!(sum.entries[0].value, b"45");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_let_in_and_let_go() {
    let (folder, net, members) = three().await;
    write(&members[0], "/key", b"1").await;
    let fourth = net.open(folder.path(), 4, false).await;
    let wrong = members[1].set_members(ids(&[1, 2, 4]), ids(&[])).await;
    assert!(matches!(wrong, Err(StoreError::Invalid(_))), "{wrong:?}");
    let leader = &members[0];
    leader
        .set_members(ids(&[1, 2, 3]), ids(&[4]))
        .await
        .expect("learns");
    assert_eq!(leader.members().learners, ids(&[4]));
    assert_eq!(fourth.range("/").await.expect("reads").entries.len(), 1);
    leader
        .set_members(ids(&[1, 2, 4]), ids(&[]))
        .await
        .expect("replaces");
    let seen = leader.members();
    assert_eq!((seen.voters, seen.learners), (ids(&[1, 2, 4]), ids(&[])));
    // Who was let go is answered no more.
    let left = members[2].transact(put("/key", b"2")).await;
    assert!(left.is_err(), "{left:?}");
    write(&fourth, "/key", b"3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_hostile_bytes_get_nothing() {
    let (_folder, _net, members) = three().await;
    write(&members[0], "/key", b"1").await;
    let before = members[0].members();
    for length in 0..200_usize {
        let bytes: Vec<u8> = (0..length).map(|_| fastrand::u8(..)).collect();
        for from in [2, 9] {
            let _ = members[0].answer(NodeId(from), &bytes).await;
            let marked = [&[1_u8][..], &bytes].concat();
            let _ = members[0].answer(NodeId(from), &marked).await;
        }
    }
    let after = members[0].members();
    assert_eq!((before.term, before.leader), (after.term, after.leader));
    assert_eq!(members[2].range("/").await.expect("reads").entries.len(), 1);
}
