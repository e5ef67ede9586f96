//! Entries that were sent before they were synced: power cuts at any moment lose
//! nothing acknowledged, and nobody takes another's place in the log.

use super::cruel::Disk;
use super::net::{Net, three, until};
use super::put;
use crate::EmbeddedStore;
use fastrand::Rng;
use node::store::{Entry, Store, StoreError};
use std::io::Write as _;
use std::sync::{Arc, Mutex};

const WRITERS: u64 = 4;
const WRITES_PER_WRITER: u64 = 25;
const CUTS: usize = 24;
/// Each waits for five seconds at most.
const READS_MAX: usize = 6;

/// What the disks had done at moments in their order, and what was acknowledged
/// before each.
#[derive(Default)]
struct Moments(Mutex<Vec<(Vec<usize>, Option<String>)>>);

impl Moments {
    fn note(&self, disks: &[Disk], acknowledged: Option<String>) {
        let mut moments = self.0.lock().expect("no panic");
        let steps = Disk::steps_of_all(disks);
        moments.push((steps, acknowledged));
    }
}

/// Says how to come back here, when the test fails.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "replay with STORE_SEED={}", self.0);
        }
    }
}

async fn write(
    store: Arc<EmbeddedStore>,
    disks: Vec<Disk>,
    moments: Arc<Moments>,
    writer: u64,
    mut rng: Rng,
) {
    for round in 0..WRITES_PER_WRITER {
        let key = format!("/{writer}/{round:03}");
        let value = vec![b'v'; rng.usize(1..6_000)];
        store.transact(put(&key, &value)).await.expect("writes");
        moments.note(&disks, Some(key));
        // Between two answers as well.
        tokio::task::yield_now().await;
        moments.note(&disks, None);
    }
}

/// A vote may come between, on a machine that stood still.
async fn read_all(member: &EmbeddedStore) -> Vec<Entry> {
    for _ in 0..READS_MAX {
        match member.range("/").await {
            Err(StoreError::NoQuorum) => {}
            read => return read.expect("reads").entries,
        }
    }
    panic!("no majority came");
}

/// Two of them, on what the cut left, have all that was acknowledged by then.
async fn check(disks: &[Disk], steps: &[usize], absent: usize, keys: &[String], rng: &mut Rng) {
    let net = Arc::new(Net::default());
    let mut members = Vec::new();
    for (at, disk) in disks.iter().enumerate().filter(|(at, _)| *at != absent) {
        let node = at as u64 + 1;
        net.set_disk(node, disk.after_cut(steps[at], rng));
        members.push(net.open(node, at == 0).await);
    }
    for member in &members {
        until("a leader", || member.members().leader).await;
        let found = read_all(member).await;
        let lost = keys
            .iter()
            .find(|key| found.binary_search_by(|entry| entry.key.cmp(key)).is_err());
        assert_eq!(
            lost,
            None,
            "cut at {steps:?}, without member {}",
            absent + 1
        );
    }
    for member in members {
        member.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_two_of_three_have_what_was_acknowledged_before_a_power_cut() {
    let given = std::env::var("STORE_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |s| s.parse().expect("a number"));
    let _replay = Replay(seed);
    let mut rng = Rng::with_seed(seed);
    let (net, members) = three().await;
    let disks: Vec<Disk> = (1..=3).map(|node| net.disk(node)).collect();
    let moments = Arc::new(Moments::default());
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&members[usize::from(writer == 3)]);
            write(
                store,
                disks.clone(),
                Arc::clone(&moments),
                writer,
                rng.fork(),
            )
        })
        .map(tokio::spawn)
        .collect();
    for writer in writers {
        writer.await.expect("ends");
    }
    for member in members {
        member.shutdown().await;
    }
    let moments = std::mem::take(&mut *moments.0.lock().expect("no panic"));
    for cut in 0..CUTS {
        let at = rng.usize(..moments.len());
        let keys: Vec<String> = moments[..=at]
            .iter()
            .filter_map(|(_, key)| key.clone())
            .collect();
        check(&disks, &moments[at].0, cut % 3, &keys, &mut rng).await;
    }
}

/// The others have an entry of its term that its own disk has lost: it must not
/// give its place to another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_lost_its_tail_is_elected_anew() {
    let mut rng = Rng::new();
    let (net, mut members) = three().await;
    for round in 0..5_u8 {
        let written = members[0].transact(put("/before", &[round])).await;
        written.expect("writes");
    }
    let leader = members.remove(0);
    let before = leader.members();
    let known = |member: &EmbeddedStore| member.members().log_last;
    until("all have all", || {
        let all = members
            .iter()
            .all(|member| known(member) == before.log_last);
        all.then_some(())
    })
    .await;
    let left = net.disk(1).lose_power(&mut rng);
    let lost = leader.transact(put("/tail", b"1")).await;
    lost.expect_err("its disk is gone");
    until("another has what the leader lost", || {
        let mut others = members.iter();
        others
            .find(|member| known(member) > before.log_last)
            .map(|_| ())
    })
    .await;
    net.set_disk(1, left);
    leader.shutdown().await;
    let leader = net.open(1, true).await;
    until("a leader", || leader.members().leader).await;
    leader.transact(put("/after", b"2")).await.expect("writes");
    assert!(leader.members().term > before.term);
    members.insert(0, leader);
    let found = members[0].range("/").await.expect("reads");
    for member in &members {
        assert_eq!(member.range("/").await.expect("reads"), found);
    }
}
