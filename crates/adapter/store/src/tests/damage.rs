//! Files that are not what they should be: refused by name, never made anew,
//! never a panic.

use super::cruel::Disk;
use super::{put, reopenable};
use crate::file::{Loaded, Place};
use crate::types::SnapshotMeta;
use crate::{EmbeddedStore, OpenError, disk, file};
use fastrand::Rng;
use kernel::NodeId;
use node::store::Store;
use openraft::storage::RaftStateMachine;
use openraft::testing::StoreBuilder;
use redb::TableDefinition;
use std::io::Cursor;
use std::path::Path;

const NODE: u64 = 7;

async fn written(folder: &Path) -> Vec<u8> {
    let options = reopenable(folder);
    let store = EmbeddedStore::open(options.clone()).await.expect("opens");
    for n in 0..20 {
        let write = put(&format!("/{n}"), &vec![n; 700]);
        store.transact(write).await.expect("writes");
    }
    store.shutdown().await;
    std::fs::read(options.path).expect("reads")
}

async fn refused(folder: &Path) -> OpenError {
    let options = reopenable(folder);
    let path = options.path.display().to_string();
    let opened = EmbeddedStore::open(options).await;
    let error = opened.err().expect("is refused");
    assert!(error.to_string().contains(&path), "{error}");
    assert!(error.hint().is_some(), "{error} gives no next step");
    error
}

fn is_damaged(error: &OpenError) {
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
}

#[tokio::test]
async fn a_file_of_something_else_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let path = reopenable(folder.path()).path;
    for bytes in [
        vec![],
        b"notes".to_vec(),
        vec![0; 5_000],
        vec![b'x'; 90_000],
    ] {
        std::fs::write(&path, &bytes).expect("writes");
        is_damaged(&refused(folder.path()).await);
        assert!(std::fs::read(&path).expect("reads") == bytes);
    }
    std::fs::remove_file(&path).expect("removes");
    let other = redb::Database::create(&path).expect("makes");
    let writing = other.begin_write().expect("begins");
    let table = TableDefinition::<u64, u64>::new("theirs");
    drop(writing.open_table(table).expect("opens"));
    writing.commit().expect("commits");
    drop(other);
    is_damaged(&refused(folder.path()).await);
}

#[tokio::test]
async fn a_truncated_file_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let good = written(folder.path()).await;
    let path = reopenable(folder.path()).path;
    for length in [1, 9, 100, 512, 4_095, 4_096, 8_192, good.len() / 2] {
        std::fs::write(&path, &good[..length]).expect("writes");
        is_damaged(&refused(folder.path()).await);
        let left = std::fs::metadata(&path).expect("is there").len();
        assert!(left > 0, "emptied");
    }
}

fn content(loaded: &Loaded) -> Vec<Vec<u8>> {
    let mut content = vec![
        disk::encode(&loaded.vote).expect("encodes"),
        disk::encode(&loaded.purged).expect("encodes"),
        disk::encode(&loaded.snapshot).expect("encodes"),
    ];
    let entries = loaded.log.values();
    content.extend(entries.map(|entry| disk::encode(entry).expect("encodes")));
    content
}

#[tokio::test]
async fn flipped_bits_are_refused_or_harmless() {
    let folder = tempfile::tempdir().expect("folder");
    let good = written(folder.path()).await;
    let open = |image| file::open(Place::layer(Disk::holding(image)), NODE);
    let (database, loaded) = open(good.clone()).expect("opens");
    drop(database);
    let expected = content(&loaded);
    let mut rng = Rng::with_seed(5);
    let mut refused = 0;
    let header = 9..400;
    let body = (0..600).map(|_| rng.usize(400..good.len()));
    for at in header.chain(body).collect::<Vec<_>>() {
        let bit = 1 << rng.u8(..8);
        let mut image = good.clone();
        image[at] ^= bit;
        match open(image) {
            Ok((_, loaded)) => {
                assert!(content(&loaded) == expected, "byte {at}, bit {bit:#x}");
            }
            Err(OpenError::Damaged { .. }) => refused += 1,
            Err(error) => panic!("byte {at}, bit {bit:#x}: {error}"),
        }
    }
    assert!(refused > 0, "no flip was noticed");
}

#[tokio::test]
async fn another_format_and_another_node_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    written(folder.path()).await;
    let mut options = reopenable(folder.path());
    options.node = NodeId(NODE + 1);
    let other = EmbeddedStore::open(options.clone()).await;
    assert!(matches!(other, Err(OpenError::OtherNode { .. })));
    let database = redb::Database::open(&options.path).expect("opens");
    let writing = database.begin_write().expect("begins");
    let mut meta = writing.open_table(disk::META).expect("opens");
    let next = (disk::FORMAT + 1).to_le_bytes();
    meta.insert("format", next.as_slice()).expect("inserts");
    drop(meta);
    writing.commit().expect("commits");
    drop(database);
    let error = refused(folder.path()).await;
    assert!(matches!(error, OpenError::Format { found: 2, .. }));
}

#[tokio::test]
async fn a_file_in_use_is_refused_and_its_user_served() {
    let folder = tempfile::tempdir().expect("folder");
    let options = reopenable(folder.path());
    let store = EmbeddedStore::open(options).await.expect("opens");
    let error = refused(folder.path()).await;
    assert!(matches!(error, OpenError::Busy { .. }), "{error:?}");
    store.transact(put("/a", b"")).await.expect("writes");
    store.shutdown().await;
}

#[tokio::test]
async fn a_folder_that_is_absent_or_read_only_is_named_with_the_next_step() {
    let folder = tempfile::tempdir().expect("folder");
    let absent = folder.path().join("absent");
    let error = refused(&absent).await;
    assert_eq!(error.hint(), Some("make its folder first"));
    // Nobody makes files there, not even root.
    let error = refused(Path::new("/sys")).await;
    let hint = error.hint().expect("gives a next step");
    assert!(hint.starts_with("let this user write"), "{error:?}");
    let path = reopenable(folder.path()).path;
    std::fs::create_dir(path).expect("makes");
    let error = refused(folder.path()).await;
    assert!(matches!(error, OpenError::File { .. }), "{error:?}");
}

/// What another member sent is not kept unless it can be read: the next start
/// would end by it.
#[tokio::test]
async fn a_snapshot_that_cannot_be_read_is_not_kept() {
    let ((), _, mut machine) = super::Builder.build().await.expect("builds");
    for bytes in [&b""[..], &[1, 255, 255], &[2, 255], &[9, 0, 0]] {
        let sent = Box::new(Cursor::new(bytes.to_vec()));
        let meta = SnapshotMeta::default();
        machine
            .install_snapshot(&meta, sent)
            .await
            .expect_err("is refused");
        let kept = machine.get_current_snapshot().await.expect("reads");
        assert!(kept.is_none());
    }
}
