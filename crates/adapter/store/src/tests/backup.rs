//! Backups: one cut through two stores, believed whole or not at all.

use crate::{Backup, BackupError, EmbeddedStore, OpenError, Options, backup};
use kernel::{NodeId, UnixMillis};
use node::store::{Operation, Store, Transaction};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

fn options(folder: &Path, name: &str) -> Options {
    Options {
        path: folder.join(name),
        node: NodeId(1),
        group: crate::Group::Alone,
    }
}

async fn open(folder: &Path, name: &str) -> EmbeddedStore {
    let opened = EmbeddedStore::open(options(folder, name)).await;
    opened.expect("opens")
}

fn put(key: &str, value: u64) -> Transaction {
    Transaction {
        then: vec![Operation::Put(key.into(), value.to_be_bytes().to_vec())],
        ..Transaction::default()
    }
}

async fn value(store: &EmbeddedStore, key: &str) -> u64 {
    let entries = store.range(key).await.expect("reads").entries;
    let bytes = entries.first().map(|entry| entry.value.clone());
    bytes.map_or(0, |bytes| {
        u64::from_be_bytes(bytes.try_into().expect("a number"))
    })
}

const AT: UnixMillis = UnixMillis(1_000);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_one_cut_through_stores_that_are_written_to() {
    let folder = tempfile::tempdir().expect("folder");
    let first = Arc::new(open(folder.path(), "first").await);
    let second = Arc::new(open(folder.path(), "second").await);
    let done = Arc::new(AtomicBool::new(false));
    // The second store never has more than the first had before it.
    let writer = {
        let (first, second, done) = (Arc::clone(&first), Arc::clone(&second), Arc::clone(&done));
        tokio::spawn(async move {
            let mut count = 0;
            while !done.load(Relaxed) {
                count += 1;
                first.transact(put("/count", count)).await.expect("writes");
                second.transact(put("/count", count)).await.expect("writes");
            }
            count
        })
    };
    while value(&second, "/count").await < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for round in 0..20 {
        let both = [("first", &*first), ("second", &*second)];
        let acknowledged = value(&second, "/count").await;
        let bytes = backup(&both, AT).await.expect("backs up");
        let kept = Backup::read(&bytes).expect("whole");
        assert_eq!(kept.made_at(), AT);
        let mut counts = Vec::new();
        for name in ["first", "second"] {
            let options = options(folder.path(), &format!("{name}-{round}"));
            kept.restore(name, &options).expect("restores");
            let store = EmbeddedStore::open(options).await.expect("opens");
            counts.push(value(&store, "/count").await);
            store.shutdown().await;
        }
        let (first, second) = (counts[0], counts[1]);
        assert!(second >= acknowledged && first - second <= 1, "{counts:?}");
    }
    done.store(true, Relaxed);
    assert!(writer.await.expect("joins") > 3);
}

#[tokio::test]
async fn a_restored_store_goes_on_with_revisions_epochs_and_leases() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path(), "store").await;
    for count in 0..5 {
        store.transact(put("/key", count)).await.expect("writes");
    }
    let hour = Duration::from_hours(1);
    let lease = store.grant("seat", "one", hour).await.expect("grants");
    let before = store.range("/").await.expect("reads");
    let bytes = backup(&[("store", &store)], AT).await.expect("backs up");
    store.shutdown().await;
    let kept = Backup::read(&bytes).expect("whole");
    let revisions: Vec<_> = kept.revisions().collect();
    assert_eq!(revisions, [("store", before.revision)]);

    let target = options(folder.path(), "restored");
    kept.restore("store", &target).expect("restores");
    let again = kept.restore("store", &target).expect_err("it is there");
    assert!(matches!(again, BackupError::Make(OpenError::File { .. })));
    let missing = kept.restore("other", &target).expect_err("not in it");
    assert!(matches!(missing, BackupError::Missing(_)));
    for _ in 0..2 {
        let restored = EmbeddedStore::open(target.clone()).await.expect("opens");
        let after = restored.range("/").await.expect("reads");
        assert_eq!(after.entries, before.entries);
        restored.renew("seat", lease.epoch).await.expect("holds on");
        let held = restored.grant("seat", "two", hour).await;
        held.expect_err("it is held");
        let other = restored.grant("other", "two", hour).await.expect("grants");
        assert!(other.epoch > lease.epoch);
        restored
            .release("other", other.epoch)
            .await
            .expect("lets go");
        restored.shutdown().await;
    }
    let restored = EmbeddedStore::open(target).await.expect("opens");
    let written = restored.transact(put("/new", 1)).await.expect("writes");
    assert_eq!(written.revision.0, before.revision.0 + 1);
}

#[tokio::test]
async fn what_is_not_a_whole_backup_is_named_and_makes_no_store() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path(), "store").await;
    store.transact(put("/key", 1)).await.expect("writes");
    let bytes = backup(&[("store", &store)], AT).await.expect("backs up");
    let refused = |bytes: &[u8]| Backup::read(bytes).err().expect("refused").to_string();
    assert_eq!(refused(b""), "this is not a backup");
    assert_eq!(refused(b"SQLite format 3\0"), "this is not a backup");
    for length in 8..bytes.len() {
        let told = refused(&bytes[..length]);
        assert!(told.contains("cut off"), "{length}: {told}");
    }
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        assert!(Backup::read(&flipped).is_err(), "byte {at}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(refused(&longer).contains("damaged"));
    let mut newer = bytes;
    newer[11] = 9;
    assert!(refused(&newer).contains("version 9"));
}
