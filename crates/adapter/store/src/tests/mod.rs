//! The store against openraft's own suite, ours, and a cruel disk.

mod backup;
mod calls;
mod changes;
mod cruel;
mod cuts;
mod damage;
mod early;
mod faults;
mod force;
mod growth;
mod histories;
mod members;
mod net;
mod state;
mod trouble;

use crate::file::Place;
use crate::group::{Early, Ways};
use crate::suite::{self, Subject};
use crate::types::{StorageError, TypeConfig};
use crate::{EmbeddedStore, Options, Tuning, disk, file, raft, shared};
use kernel::NodeId;
use node::store::{Operation, Store, Transaction};
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Builder;

impl openraft::testing::StoreBuilder<TypeConfig, raft::Log, raft::Machine, ()> for Builder {
    async fn build(&self) -> Result<((), raft::Log, raft::Machine), StorageError> {
        let memory = redb::backends::InMemoryBackend::new();
        let (database, loaded) = file::open(Place::layer(memory), 0).expect("opens");
        let health = Arc::default();
        let disk = disk::start(database, "memory".into(), health).expect("starts");
        let shared = Arc::new(shared::Shared::new(100));
        let early = Arc::new(Early::new(Ways(None), 0, Duration::ZERO));
        let (log, machine) = raft::halves(&disk, loaded, shared, early).expect("decodes");
        Ok(((), log, machine))
    }
}

#[test]
fn openraft_accepts_the_storage() {
    openraft::testing::Suite::test_all(Builder).expect("passes");
}

pub fn put(key: &str, value: &[u8]) -> Transaction {
    Transaction {
        then: vec![Operation::Put(key.into(), value.into())],
        ..Transaction::default()
    }
}

pub fn reopenable(folder: &std::path::Path) -> Options {
    Options {
        path: folder.join("store.redb"),
        node: NodeId(7),
        group: crate::Group::Alone,
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_reopening() {
    let folder = tempfile::tempdir().expect("folder");
    let options = reopenable(folder.path());
    let store = EmbeddedStore::open(options.clone()).await.expect("opens");
    store.transact(put("/a", b"1")).await.expect("writes");
    store.transact(put("/b", b"2")).await.expect("writes");
    let before = store.range("/").await.expect("reads");
    assert_eq!(before.entries.len(), 2);
    store.shutdown().await;
    let store = EmbeddedStore::open(options).await.expect("opens again");
    assert_eq!(store.range("/").await.expect("reads"), before);
    store.shutdown().await;
}

#[tokio::test]
async fn the_embedded_store_does_what_every_store_must() {
    let folder = tempfile::tempdir().expect("folder");
    let tuning = Tuning {
        entries_per_snapshot: 50,
        history_revisions_max: 60,
        ..Tuning::default()
    };
    let place = Place::File(folder.path().join("store.redb"));
    let store = EmbeddedStore::open_at(place, NodeId(1), crate::Group::Alone, tuning).await;
    let store = store.expect("opens");
    let since = Instant::now();
    let subject = Subject {
        store: &store,
        history_revisions: 60,
        pause: &|| Box::pin(tokio::time::sleep(Duration::from_millis(50))),
        now: &|| since.elapsed(),
    };
    suite::all(&subject).await;
    store.shutdown().await;
}
