//! A disk that fails under a running store: what is told, and what is kept.

use super::cruel::{Disk, Trouble};
use super::put;
use crate::file::Place;
use crate::room::ROOM_BYTES_MIN;
use crate::{EmbeddedStore, OpenError, Tuning};
use fastrand::Rng;
use kernel::{Bytes, NodeId, Revision};
use node::store::{Operation, Store, StoreError, Transaction};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const WRITES_MAX: usize = 200;

async fn try_open(disk: &Disk) -> Result<EmbeddedStore, OpenError> {
    let tuning = Tuning {
        entries_per_snapshot: 8,
        history_revisions_max: 100,
        ..Tuning::default()
    };
    EmbeddedStore::open_at(
        Place::layer(disk.clone()),
        NodeId(1),
        crate::Group::Alone,
        tuning,
    )
    .await
}

async fn open(disk: &Disk) -> EmbeddedStore {
    try_open(disk).await.expect("opens")
}

async fn closed_store() -> Vec<u8> {
    let disk = Disk::default();
    let store = open(&disk).await;
    store.transact(put("/before", b"")).await.expect("writes");
    store.shutdown().await;
    disk.live()
}

fn told<T: std::fmt::Debug>(done: &Result<T, StoreError>, words: &str) {
    let Err(StoreError::Stopped(reason)) = done else {
        panic!("a stopped store answers {done:?}");
    };
    for word in ["`a file layer`", words] {
        assert!(reason.contains(word), "`{reason}` lacks `{word}`");
    }
}

/// Writes until the trouble that begins `after` steps; returns how many writes
/// were acknowledged.
async fn meet(disk: &Disk, after: usize, trouble: Trouble, words: &str) -> usize {
    let store = open(disk).await;
    let mut watch = store.watch("/none", Revision(0)).await.expect("watches");
    let idle = tokio::spawn(async move { watch.next().await });
    disk.fail_from(disk.steps() + after, trouble);
    let mut acknowledged = 0;
    let first = loop {
        assert!(acknowledged < WRITES_MAX, "the disk never failed");
        let write = put(&format!("/{acknowledged:03}"), &[7; 2_000]);
        match store.transact(write).await {
            Ok(_) => acknowledged += 1,
            failed => break failed,
        }
    };
    told(&first, words);
    told(&store.transact(put("/late", b"")).await, words);
    told(&store.range("/").await, words);
    told(
        &store.grant("seat", "me", Duration::from_secs(9)).await,
        words,
    );
    told(&idle.await.expect("ends"), words);
    assert!(store.watch("/", Revision(0)).await.is_err());
    let fault = store.fault().expect("says so");
    assert!(fault.contains(words), "`{fault}` lacks `{words}`");
    store.shutdown().await;
    assert!(store.fault().is_some(), "a shutdown hides the fault");
    acknowledged
}

async fn keeps(image: Vec<u8>, acknowledged: usize) {
    let store = open(&Disk::holding(image)).await;
    let entries = store.range("/").await.expect("reads").entries;
    let keys: Vec<_> = entries.into_iter().map(|entry| entry.key).collect();
    let mut expected: Vec<_> = (0..acknowledged).map(|n| format!("/{n:03}")).collect();
    let unknown = format!("/{acknowledged:03}");
    if keys.contains(&unknown) {
        expected.push(unknown);
    }
    expected.push("/before".into());
    assert_eq!(keys, expected);
    store.transact(put("/after", b"")).await.expect("writes");
    store.shutdown().await;
}

async fn stops_and_keeps(trouble: Trouble, words: &str) {
    let base = closed_store().await;
    let mut rng = Rng::with_seed(11);
    for after in 0..60 {
        let disk = Disk::holding(base.clone());
        let acknowledged = meet(&disk, after, trouble, words).await;
        keeps(disk.live(), acknowledged).await;
        keeps(disk.after_cut(disk.steps(), &mut rng), acknowledged).await;
    }
}

#[tokio::test]
async fn a_failing_sync_stops_the_store_and_loses_nothing_acknowledged() {
    stops_and_keeps(Trouble::SyncFails, "check its disk").await;
}

#[tokio::test]
async fn a_full_disk_stops_the_store_and_loses_nothing_acknowledged() {
    stops_and_keeps(Trouble::Full, "free space on its disk").await;
}

#[tokio::test]
async fn a_disk_that_fails_while_opening_is_an_error_and_changes_nothing() {
    let base = closed_store().await;
    for trouble in [Trouble::SyncFails, Trouble::Full] {
        for after in 0..40 {
            let disk = Disk::holding(base.clone());
            disk.fail_from(after, trouble);
            match try_open(&disk).await {
                Ok(store) => store.shutdown().await,
                Err(error @ (OpenError::File { .. } | OpenError::Raft(_))) => {
                    let text = error.to_string();
                    assert!(text.contains("`a file layer`"), "{text}");
                }
                Err(error) => panic!("a failing disk is told as {error}"),
            }
            keeps(disk.live(), 0).await;
        }
    }
}

#[tokio::test]
async fn a_nearly_full_disk_refuses_what_grows_until_there_is_room() {
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let asked = Arc::clone(&free);
    let place = Place::layer_with(
        Disk::default(),
        Arc::new(move || Ok(asked.load(Ordering::SeqCst))),
    );
    let opened =
        EmbeddedStore::open_at(place, NodeId(1), crate::Group::Alone, Tuning::default()).await;
    let store = opened.expect("opens");
    store.transact(put("/a", b"")).await.expect("writes");
    let span = Duration::from_mins(1);
    let lease = store.grant("seat", "me", span).await.expect("grants");
    free.store(ROOM_BYTES_MIN - 1, Ordering::SeqCst);
    let full = StoreError::Full {
        path: "a file layer".into(),
        free: Bytes(ROOM_BYTES_MIN - 1),
        need: Bytes(ROOM_BYTES_MIN),
    };
    assert_eq!(store.transact(put("/b", b"")).await, Err(full.clone()));
    assert_eq!(store.grant("other", "me", span).await, Err(full));
    let delete = Transaction {
        then: vec![Operation::Delete("/a".into())],
        ..Transaction::default()
    };
    store.transact(delete).await.expect("deletes");
    store.renew("seat", lease.epoch).await.expect("renews");
    assert_eq!(store.fault(), None);
    free.store(ROOM_BYTES_MIN, Ordering::SeqCst);
    store.transact(put("/b", b"")).await.expect("writes again");
    let entries = store.range("/").await.expect("reads").entries;
    assert_eq!(entries.len(), 1);
    store.shutdown().await;
}
