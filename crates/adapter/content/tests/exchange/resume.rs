//! Fetches that are killed, and go on.

use crate::support::{Manner, PIECE, Place, all, fetch, noise};
use content::{Content, FetchOptions, Fetcher, Wanted};
use kernel::Hash;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const DIRECTORY: &str = "CONTENT_TEST_DIRECTORY";
const HASH: &str = "CONTENT_TEST_HASH";
const PIECES: usize = 64;

fn got(of: &Place, hash: Hash) -> PathBuf {
    let temporary = of.directory.path().join("content/tmp");
    temporary.join(format!("partial-{hash}.got"))
}

fn count(got: &Path) -> usize {
    let bytes = fs::read(got).unwrap_or_default();
    bytes.into_iter().filter(|&byte| byte == 1).count()
}

/// Runs as a process of its own, which is killed: it fetches from a holder
/// that falls silent in the middle.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the other tests start it"]
async fn child() {
    let (Ok(directory), Ok(hash)) = (std::env::var(DIRECTORY), std::env::var(HASH)) else {
        return;
    };
    let theirs = Place::new();
    let known: Hash = hash.parse().expect("a hash");
    let hash = theirs.file(&noise(PIECES * PIECE, 1));
    assert_eq!(hash, known);
    let silent = theirs.holder("silent", Manner::SilentAfter(40 * PIECE as u64));
    let content = Content::open(PathBuf::from(directory)).expect("opens");
    let options = FetchOptions {
        piece_within: std::time::Duration::from_hours(1),
        ..FetchOptions::default()
    };
    let client = Fetcher::new(content, options);
    let fetched = fetch(&client, Wanted::new(hash), &[&silent]);
    fetched.await.expect("killed before");
}

fn start(place: &Place, hash: Hash) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "resume::child", "--ignored"])
        .env(DIRECTORY, place.directory.path().join("content"))
        .env(HASH, hash.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_fetch_goes_on_where_it_was() {
    let (ours, theirs) = (Place::new(), Place::new());
    let bytes = noise(PIECES * PIECE, 1);
    let hash = theirs.file(&bytes);
    let mut child = start(&ours, hash);
    while count(&got(&ours, hash)) < 30 {
        assert!(
            child.try_wait().expect("waits").is_none(),
            "it is killed, not ended"
        );
        tokio::task::yield_now().await;
    }
    child.kill().expect("kills");
    child.wait().expect("ends");
    let there = count(&got(&ours, hash));
    // A power cut may leave what was never written: two pieces are not right.
    let partial = ours
        .directory
        .path()
        .join("content/tmp")
        .join(format!("partial-{hash}"));
    let mut torn = fs::read(&partial).expect("there");
    let had: Vec<usize> = fs::read(got(&ours, hash))
        .expect("reads")
        .iter()
        .enumerate()
        .filter_map(|(at, &byte)| (byte == 1).then_some(at))
        .take(2)
        .collect();
    for at in had {
        torn[at * PIECE + 5] ^= 1;
    }
    fs::write(&partial, torn).expect("writes");
    ours.content
        .collect(&[], &[])
        .expect("a collection spares it");
    let good = theirs.holder("good", Manner::Good);
    let fetched = ours.fetcher();
    let fetched = fetch(&fetched, Wanted::new(hash), &[&good]);
    let fetched = fetched.await.expect("goes on");
    assert!(ours.content.read_verified(hash).expect("reads") == bytes);
    let resumed = fetched.resumed.0 / PIECE as u64;
    assert_eq!(resumed, there as u64 - 2);
    assert_eq!(fetched.received().0, bytes.len() as u64 - fetched.resumed.0);
    assert_eq!(ours.temporary(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_is_no_longer_wanted_leaves_what_it_had() {
    let (ours, theirs) = (Place::new(), Place::new());
    let bytes = noise(PIECES * PIECE, 1);
    let hash = theirs.file(&bytes);
    let silent = theirs.holder("silent", Manner::SilentAfter(20 * PIECE as u64));
    let client = ours.patient();
    let task = {
        let (client, holders) = (client.clone(), all(&[&silent]));
        tokio::spawn(async move {
            let _ = client.fetch(Wanted::new(hash), &holders, &mut |_| {}).await;
        })
    };
    while count(&got(&ours, hash)) < 10 {
        tokio::task::yield_now().await;
    }
    task.abort();
    let _ = task.await;
    assert!(ours.content.leased().is_empty());
    let good = theirs.holder("good", Manner::Good);
    let fetched = fetch(&client, Wanted::new(hash), &[&good]).await;
    assert!(fetched.expect("goes on").resumed.0 >= 10 * PIECE as u64);
    assert!(ours.content.read_verified(hash).expect("reads") == bytes);
}
