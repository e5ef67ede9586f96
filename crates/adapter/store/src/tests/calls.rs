//! Limits, ends, and what a call or watch hears of them.

use super::cruel::Disk;
use super::{put, reopenable};
use crate::file::Place;
use crate::{EmbeddedStore, Tuning};
use kernel::{FencingEpoch, NodeId, Revision};
use node::store::{Operation, Store, StoreError, Transaction};
use redb::backends::InMemoryBackend;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

async fn in_memory() -> EmbeddedStore {
    let place = Place::layer(InMemoryBackend::new());
    let opened =
        EmbeddedStore::open_at(place, NodeId(1), crate::Group::Alone, Tuning::default()).await;
    opened.expect("opens")
}

fn refused<T: std::fmt::Debug>(done: &Result<T, StoreError>) {
    assert!(matches!(done, Err(StoreError::Invalid(_))), "{done:?}");
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_changes_nothing() {
    let store = in_memory().await;
    refused(&store.transact(put("", b"")).await);
    refused(&store.transact(put(&"k".repeat(2_000), b"")).await);
    refused(&store.transact(put("/k", &vec![0; (1 << 20) + 1])).await);
    let nine = (0..9).map(|i| Operation::Put(format!("/{i}"), vec![0; 1 << 20]));
    let large = Transaction {
        then: nine.collect(),
        ..Transaction::default()
    };
    refused(&store.transact(large).await);
    let second = Duration::from_secs(1);
    refused(&store.grant("", "me", second).await);
    refused(&store.grant("seat", "", second).await);
    refused(&store.grant(&"s".repeat(300), "me", second).await);
    refused(&store.grant("seat", "me", Duration::from_millis(999)).await);
    refused(&store.grant("seat", "me", Duration::from_hours(2)).await);
    refused(&store.renew("", FencingEpoch(1)).await);
    refused(&store.release(&"s".repeat(300), FencingEpoch(1)).await);
    let range = store.range("").await.expect("reads");
    assert_eq!((range.revision, range.entries.len()), (Revision(0), 0));
    store.shutdown().await;
}

#[tokio::test]
async fn large_transactions_at_once_are_all_done() {
    let store = Arc::new(in_memory().await);
    let value = vec![7; 1 << 20];
    let writes: Vec<_> = (0..12)
        .map(|i| (Arc::clone(&store), put(&format!("/{i:02}"), &value)))
        .map(|(store, write)| tokio::spawn(async move { store.transact(write).await }))
        .collect();
    for write in writes {
        write.await.expect("ends").expect("writes");
    }
    assert_eq!(store.range("/").await.expect("reads").entries.len(), 12);
    store.shutdown().await;
}

#[tokio::test]
async fn a_clean_end_is_no_fault_and_wakes_an_idle_watch() {
    let store = in_memory().await;
    let mut watch = store.watch("/", Revision(0)).await.expect("watches");
    let idle = tokio::spawn(async move { watch.next().await });
    tokio::task::yield_now().await;
    store.shutdown().await;
    let told = idle.await.expect("ends");
    assert!(matches!(told, Err(StoreError::Stopped(_))), "{told:?}");
    assert_eq!(store.fault(), None);
    let after = store.transact(put("/a", b"")).await;
    assert!(matches!(after, Err(StoreError::Stopped(_))), "{after:?}");
    let after = store.range("/").await;
    assert!(matches!(after, Err(StoreError::Stopped(_))), "{after:?}");
}

#[tokio::test]
async fn a_dropped_store_lets_go_of_its_file() {
    let folder = tempfile::tempdir().expect("folder");
    let options = reopenable(folder.path());
    for round in 0..3 {
        let store = EmbeddedStore::open(options.clone()).await.expect("opens");
        let entries = store.range("/").await.expect("reads").entries;
        assert_eq!(entries.len(), round);
        let key = format!("/{round}");
        store.transact(put(&key, b"")).await.expect("writes");
        drop(store);
    }
}

async fn write_until_stopped(
    store: Arc<EmbeddedStore>,
    writer: usize,
    acknowledged: mpsc::UnboundedSender<String>,
) -> StoreError {
    for round in 0.. {
        let key = format!("/{writer}/{round}");
        match store.transact(put(&key, b"")).await {
            Ok(_) => acknowledged.send(key).expect("is counted"),
            Err(error) => return error,
        }
    }
    unreachable!("the store never stopped")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_under_writers_answers_all_and_keeps_what_it_acknowledged() {
    let disk = Disk::default();
    let open = async |disk: &Disk| {
        let place = Place::layer(disk.clone());
        let opened =
            EmbeddedStore::open_at(place, NodeId(1), crate::Group::Alone, Tuning::default()).await;
        opened.expect("opens")
    };
    let store = Arc::new(open(&disk).await);
    let (sender, mut acknowledged) = mpsc::unbounded_channel();
    let writers: Vec<_> = (0..16)
        .map(|writer| write_until_stopped(Arc::clone(&store), writer, sender.clone()))
        .map(tokio::spawn)
        .collect();
    drop(sender);
    let mut keys = Vec::new();
    while keys.len() < 200 {
        keys.push(acknowledged.recv().await.expect("writes go on"));
    }
    store.shutdown().await;
    for writer in writers {
        let told = writer.await.expect("ends");
        assert!(matches!(told, StoreError::Stopped(_)), "{told:?}");
    }
    while let Some(key) = acknowledged.recv().await {
        keys.push(key);
    }
    assert_eq!(store.fault(), None);
    let again = open(&Disk::holding(disk.live())).await;
    let entries = again.range("/").await.expect("reads").entries;
    let kept: BTreeSet<_> = entries.into_iter().map(|entry| entry.key).collect();
    for key in keys {
        assert!(kept.contains(&key), "{key} was acknowledged");
    }
    again.shutdown().await;
}
