//! Power cuts under concurrent writers.
//!
//! One run of writers is recorded step by step on a cruel disk; then the power
//! is cut at many of its steps, and each file left over is opened. The next run
//! begins on one of those files.
//! Holds: what was acknowledged before the cut is there; what is there is the
//! state after some revision, exactly.

use super::cruel::Disk;
use crate::file::Place;
use crate::{EmbeddedStore, Tuning};
use fastrand::Rng;
use kernel::{FencingEpoch, NodeId, Revision};
use node::store::{Compare, Entry, Operation, Store, StoreError, Transaction};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

const RUNS: usize = 20;
const CUTS_PER_RUN: usize = 25;
const WRITERS: usize = 6;
const WRITES_PER_WRITER: usize = 12;
const LEASE_SPAN: Duration = Duration::from_hours(1);

type Rows = BTreeMap<String, Entry>;

/// Says how to come back here, when the test fails.
struct Replay {
    seed: u64,
    image: Vec<u8>,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = std::env::temp_dir().join(format!("store-cut-{}.redb", self.seed));
            let kept = std::fs::write(&path, &self.image);
            let _ = writeln!(
                std::io::stderr(),
                "replay with STORE_SEED={}; the file of the last cut: {} ({kept:?})",
                self.seed,
                path.display(),
            );
        }
    }
}

/// A write that was acknowledged, and how many steps the disk had done by then.
struct Written {
    steps: usize,
    revision: Revision,
    operations: Vec<Operation>,
}

struct Granted {
    steps: usize,
    epoch: FencingEpoch,
}

#[derive(Default)]
struct Acknowledged {
    writes: Vec<Written>,
    grants: Vec<Granted>,
}

async fn open(disk: &Disk) -> EmbeddedStore {
    let tuning = Tuning {
        entries_per_snapshot: 15,
        history_revisions_max: 20,
        ..Tuning::default()
    };
    let opened = EmbeddedStore::open_at(
        Place::layer(disk.clone()),
        NodeId(1),
        crate::Group::Alone,
        tuning,
    )
    .await;
    opened.expect("opens after a cut")
}

async fn rows(store: &EmbeddedStore) -> (Revision, Rows) {
    let range = store.range("").await.expect("reads");
    let entries = range.entries.into_iter();
    let rows = entries.map(|entry| (entry.key.clone(), entry)).collect();
    (range.revision, rows)
}

fn random_write(writer: usize, round: usize, rng: &mut Rng) -> Transaction {
    let bytes = match rng.u8(..10) {
        0 => 40_000,
        1..4 => 3_000,
        _ => 20,
    };
    let value = |bytes: usize| format!("{writer}.{round}.{}", "v".repeat(bytes)).into_bytes();
    let mut then = vec![
        Operation::Put(format!("/{writer}/left"), value(bytes)),
        Operation::Put(format!("/{writer}/right"), value(bytes)),
        Operation::Put(format!("/shared/{}", rng.u8(..8)), value(bytes / 2)),
    ];
    if rng.u8(..5) == 0 {
        then.push(Operation::DeletePrefix(format!(
            "/{}/",
            rng.usize(..WRITERS)
        )));
    }
    let otherwise = vec![Operation::Put(format!("/{writer}/lost"), value(1))];
    Transaction {
        compare: vec![Compare::Absent(format!("/shared/{}", rng.u8(..8)))],
        then,
        otherwise,
    }
}

async fn write(store: Arc<EmbeddedStore>, disk: Disk, writer: usize, seed: u64) -> Acknowledged {
    let mut rng = Rng::with_seed(seed);
    let mut acknowledged = Acknowledged::default();
    for round in 0..WRITES_PER_WRITER {
        let transaction = random_write(writer, round, &mut rng);
        let Transaction {
            then, otherwise, ..
        } = transaction.clone();
        let outcome = store.transact(transaction).await.expect("writes");
        acknowledged.writes.push(Written {
            steps: disk.steps(),
            revision: outcome.revision,
            operations: if outcome.succeeded { then } else { otherwise },
        });
        if writer == 0 {
            let lease = store.grant("seat", "one", LEASE_SPAN).await;
            let epoch = lease.expect("grants").epoch;
            let steps = disk.steps();
            acknowledged.grants.push(Granted { steps, epoch });
        }
    }
    acknowledged
}

fn apply(rows: &mut Rows, operations: &[Operation], revision: Revision) {
    for operation in operations {
        match operation {
            Operation::Put(key, value) => {
                let created = rows.get(key).map_or(revision, |old| old.created);
                let entry = Entry {
                    key: key.clone(),
                    value: value.clone(),
                    created,
                    modified: revision,
                };
                rows.insert(key.clone(), entry);
            }
            Operation::Delete(key) => drop(rows.remove(key)),
            Operation::DeletePrefix(prefix) => rows.retain(|key, _| !key.starts_with(prefix)),
        }
    }
}

/// One run of writers with all states it went through.
struct Run {
    disk: Disk,
    acknowledged: Acknowledged,
    first: Revision,
    /// The first at `first`, then one per revision.
    states: Vec<Rows>,
}

async fn run(disk: Disk, rng: &mut Rng) -> Run {
    let store = Arc::new(open(&disk).await);
    let (first, rows) = rows(&store).await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| write(Arc::clone(&store), disk.clone(), writer, rng.u64(..)))
        .map(tokio::spawn)
        .collect();
    let mut acknowledged = Acknowledged::default();
    for writer in writers {
        let done = writer.await.expect("ends");
        acknowledged.writes.extend(done.writes);
        acknowledged.grants.extend(done.grants);
    }
    store.shutdown().await;
    acknowledged.writes.sort_by_key(|write| write.revision);
    let mut states = vec![rows];
    for (expected, write) in (first.0 + 1..).zip(&acknowledged.writes) {
        assert_eq!(write.revision.0, expected, "revisions have a gap");
        let mut rows = states[states.len() - 1].clone();
        apply(&mut rows, &write.operations, write.revision);
        states.push(rows);
    }
    Run {
        disk,
        acknowledged,
        first,
        states,
    }
}

impl Run {
    async fn check(&self, cut: usize, image: &[u8]) {
        let store = open(&Disk::holding(image.to_vec())).await;
        let (revision, rows) = rows(&store).await;
        let writes = self.acknowledged.writes.iter();
        let promised = writes.filter(|write| write.steps <= cut);
        let promised = promised.map(|write| write.revision).max();
        let promised = promised.unwrap_or(self.first);
        assert!(
            revision >= promised,
            "{revision:?} is there, {promised:?} was acknowledged"
        );
        let state = usize::try_from(revision.0 - self.first.0).expect("small");
        let expected = self.states.get(state).expect("no revision was invented");
        assert!(rows == *expected, "the state is not that of {revision:?}");
        let grants = self.acknowledged.grants.iter();
        let granted = grants.filter(|grant| grant.steps <= cut);
        if let Some(newest) = granted.map(|grant| grant.epoch).max() {
            let other = store.grant("seat", "two", LEASE_SPAN).await;
            assert!(
                matches!(other, Err(StoreError::LeaseHeld { .. })),
                "{other:?}"
            );
            let again = store.grant("seat", "one", LEASE_SPAN).await;
            assert!(again.expect("grants").epoch > newest);
        }
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_power_cuts_lose_nothing_acknowledged_and_halve_nothing() {
    let given = std::env::var("STORE_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |s| s.parse().expect("a number"));
    let mut replay = Replay {
        seed,
        image: Vec::new(),
    };
    let mut rng = Rng::with_seed(seed);
    let empty = Disk::default();
    open(&empty).await.shutdown().await;
    let mut image = empty.live();
    for _ in 0..RUNS {
        let run = run(Disk::holding(image), &mut rng).await;
        for _ in 0..CUTS_PER_RUN {
            let cut = rng.usize(..=run.disk.steps());
            replay.image = run.disk.after_cut(cut, &mut rng);
            run.check(cut, &replay.image).await;
        }
        image = replay.image.clone();
    }
}
