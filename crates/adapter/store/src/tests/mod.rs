//! The store against openraft's own suite, ours, and a cruel disk.

use crate::types::{StorageError, TypeConfig};
use crate::{EmbeddedStore, Options, disk, raft};
use kernel::NodeId;
use node::store::{Operation, Store, Transaction};

struct Builder;

impl openraft::testing::StoreBuilder<TypeConfig, raft::Log, raft::Machine, ()> for Builder {
    async fn build(&self) -> Result<((), raft::Log, raft::Machine), StorageError> {
        let memory = redb::backends::InMemoryBackend::new();
        let open = || redb::Builder::new().create_with_backend(memory);
        let (database, loaded) = disk::load(open, 0).expect("opens");
        let disk = disk::start(database, disk::Fault::default()).expect("starts");
        let (log, machine) =
            raft::halves(&disk, loaded, std::sync::Arc::default()).expect("decodes");
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

#[tokio::test]
async fn what_was_written_is_there_after_reopening() {
    let folder = tempfile::tempdir().expect("folder");
    let options = Options {
        path: folder.path().join("store.redb"),
        node: NodeId(7),
    };
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
