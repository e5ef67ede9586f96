//! The store against openraft's own suite, ours, and a cruel disk.

mod calls;

use crate::types::{StorageError, TypeConfig};
use crate::{EmbeddedStore, Options, disk, raft, shared};
use kernel::NodeId;
use node::store::{Operation, Store, Transaction};

struct Builder;

impl openraft::testing::StoreBuilder<TypeConfig, raft::Log, raft::Machine, ()> for Builder {
    async fn build(&self) -> Result<((), raft::Log, raft::Machine), StorageError> {
        let memory = redb::backends::InMemoryBackend::new();
        let open = || redb::Builder::new().create_with_backend(memory);
        let (database, loaded) = disk::load(open, 0).expect("opens");
        let disk = disk::start(database, std::sync::Arc::default()).expect("starts");
        let (log, machine) =
            raft::halves(&disk, loaded, std::sync::Arc::new(shared::Shared::new(100)))
                .expect("decodes");
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
