//! Snapshots and purges: the file stays small, and what it holds stays whole.

use super::put;
use crate::file::{self, Place};
use crate::{EmbeddedStore, Tuning};
use kernel::{NodeId, Revision};
use node::store::{Store, WatchEvent};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use std::io;
use std::sync::Arc;
use std::time::Duration;

const ENTRIES_PER_SNAPSHOT: u64 = 40;
const KEYS: usize = 10;
const VALUE_BYTES: usize = 4_096;
const OVERWRITES: usize = 10_000;

/// Memory that outlives the store on it.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<InMemoryBackend>);

impl StorageBackend for Memory {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read(offset, out)
    }

    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), io::Error> {
        self.0.write(offset, bytes)
    }
}

async fn open(memory: &Memory) -> EmbeddedStore {
    let tuning = Tuning {
        entries_per_snapshot: ENTRIES_PER_SNAPSHOT,
        history_revisions_max: 100,
        ..Tuning::default()
    };
    let place = Place::layer(memory.clone());
    let opened = EmbeddedStore::open_at(place, NodeId(1), crate::Group::Alone, tuning).await;
    opened.expect("opens")
}

async fn overwrite(store: &EmbeddedStore, rounds: usize) {
    for round in 0..rounds {
        let value = vec![b'a' + u8::try_from(round % 20).expect("small"); VALUE_BYTES];
        let write = put(&format!("/{}", round % KEYS), &value);
        store.transact(write).await.expect("writes");
    }
}

#[tokio::test]
async fn overwriting_does_not_grow_the_file() {
    let memory = Memory::default();
    let store = open(&memory).await;
    overwrite(&store, OVERWRITES).await;
    let written = (OVERWRITES * VALUE_BYTES) as u64;
    let length = memory.len().expect("has a length");
    // It was a fortieth; a snapshot may lag behind the writes for a while.
    assert!(length <= written / 4, "{written} bytes left {length}");
    store.shutdown().await;
}

#[tokio::test]
async fn a_restart_from_snapshot_and_log_gives_the_same_state() {
    let memory = Memory::default();
    let mut store = open(&memory).await;
    let long = Duration::from_hours(1);
    let mut lease = store.grant("seat", "me", long).await.expect("grants");
    let mut purged = None;
    for rounds in [1, 39, 40, 41, 97, 200] {
        overwrite(&store, rounds).await;
        let before = store.range("").await.expect("reads");
        store.shutdown().await;
        let (database, loaded) = file::open(Place::layer(memory.clone()), 1).expect("opens");
        drop(database);
        purged = loaded.purged.map(|id| id.index);
        store = open(&memory).await;
        assert_eq!(store.range("").await.expect("reads"), before);
        store.renew("seat", lease.epoch).await.expect("is held");
        let again = store.grant("seat", "me", long).await.expect("grants");
        assert!(again.epoch > lease.epoch);
        lease = again;
    }
    assert!(
        purged.is_some(),
        "no snapshot took the place of log entries"
    );
    store.shutdown().await;
}

#[tokio::test]
async fn a_watch_across_a_restart_skips_nothing_or_says_resync() {
    let memory = Memory::default();
    let store = open(&memory).await;
    overwrite(&store, 5).await;
    store.shutdown().await;
    // No snapshot yet: the log gives the whole history again.
    let store = open(&memory).await;
    let mut watch = store.watch("", Revision(2)).await.expect("watches");
    for expected in 3..=5 {
        let told = watch.next().await.expect("watches");
        let WatchEvent::Changes { revision, .. } = told else {
            panic!("the log is there, yet {told:?}");
        };
        assert_eq!(revision, Revision(expected));
    }
    overwrite(&store, 500).await;
    store.shutdown().await;
    let store = open(&memory).await;
    let mut watch = store.watch("", Revision(2)).await.expect("watches");
    let told = watch.next().await.expect("watches");
    assert!(matches!(told, WatchEvent::Resync { .. }), "{told:?}");
    assert_eq!(watch.next().await.expect("watches"), told);
    store.shutdown().await;
}
