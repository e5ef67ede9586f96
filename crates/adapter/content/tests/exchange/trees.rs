//! Whole trees.

use crate::support::{Manner, PIECE, Place, all, fetch_tree, noise};
use content::{ContentError, FetchError};
use std::sync::atomic::Ordering;

fn small_files(count: usize) -> Vec<(String, Vec<u8>)> {
    let file = |at: usize| (format!("page-{at}.html"), noise(at % 3_000, at as u64));
    (0..count).map(file).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_small_files_cost_few_round_trips() {
    let (ours, theirs) = (Place::new(), Place::new());
    let tree = theirs.tree(&small_files(10_000));
    let holders = ["a", "b", "c"].map(|name| theirs.holder(name, Manner::Good));
    let mut last = content::FetchProgress::default();
    let [a, b, c] = &holders;
    let fetched = ours
        .fetcher()
        .fetch_tree(tree, &all(&[a, b, c]), &mut |progress| last = progress)
        .await
        .expect("fetches");
    assert_eq!(last.files, last.files_total);
    assert_eq!(last.bytes, last.bytes_total);
    let opened = holders
        .iter()
        .map(|holder| holder.opened.load(Ordering::Relaxed));
    let opened: u64 = opened.sum();
    assert!(opened < 400, "{opened} requests");
    let entries = ours.content.tree(tree).expect("is here").entries;
    assert_eq!(entries.len(), 10_000);
    for entry in entries.values() {
        let bytes = ours.content.read_verified(entry.hash).expect("is here");
        assert_eq!(bytes.len() as u64, entry.bytes);
    }
    assert!(fetched.files > 2_999, "{fetched:?}");
    assert_eq!(ours.temporary(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_and_small_files_of_a_tree_come_together() {
    let (ours, theirs) = (Place::new(), Place::new());
    let mut files = small_files(300);
    for at in 0..60_usize {
        let length = 3 * PIECE + at * 1_000;
        files.push((format!("photo-{at}.bin"), noise(length, 90 + at as u64)));
    }
    let tree = theirs.tree(&files);
    let [a, b] = ["a", "b"].map(|name| theirs.holder(name, Manner::Good));
    let fetched = fetch_tree(&ours.fetcher(), tree, &[&a, &b]).await;
    let received = fetched.expect("fetches").received();
    for (name, entry) in ours.content.tree(tree).expect("is here").entries {
        let bytes = ours.content.read_verified(entry.hash).expect("is here");
        let (_, expected) = files.iter().find(|(file, _)| *file == name).expect("known");
        assert!(&bytes == expected, "{name}");
    }
    let all: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(received.0 < all as u64 + 100_000, "{received} of {all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_visible_only_after_all_its_files() {
    let (ours, theirs) = (Place::new(), Place::new());
    let tree = theirs.tree(&small_files(200));
    let lost = theirs.content.tree(tree).expect("reads").entries["page-77.html"].hash;
    let kept = std::fs::read(theirs.content.path(lost)).expect("reads");
    std::fs::remove_file(theirs.content.path(lost)).expect("removes");
    let holder = theirs.holder("a", Manner::Good);
    let error = fetch_tree(&ours.fetcher(), tree, &[&holder]).await;
    match error.expect_err("a file is missing") {
        FetchError::Unreachable { hash, .. } => assert_eq!(hash, lost),
        other => panic!("{other}"),
    }
    let here = ours.content.tree(tree);
    assert!(matches!(here, Err(ContentError::Missing { .. })));
    assert_eq!(theirs.file(&kept), lost);
    let fetched = fetch_tree(&ours.fetcher(), tree, &[&holder]).await;
    assert!(fetched.expect("fetches").files < 200, "what came is kept");
    ours.content.tree(tree).expect("is here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_is_here_with_a_file_missing_is_completed() {
    let (ours, theirs) = (Place::new(), Place::new());
    let tree = theirs.tree(&small_files(20));
    let holder = theirs.holder("a", Manner::Good);
    let fetch = || async {
        let fetched = fetch_tree(&ours.fetcher(), tree, &[&holder]).await;
        fetched.expect("fetches").files
    };
    assert_eq!(fetch().await, 21);
    let lost = ours.content.tree(tree).expect("reads").entries["page-7.html"].hash;
    std::fs::remove_file(ours.content.path(lost)).expect("removes");
    assert_eq!(fetch().await, 1);
    assert_eq!(fetch().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_names_a_path_out_of_its_root_is_refused() {
    let (ours, theirs) = (Place::new(), Place::new());
    let tree = theirs.tree(&small_files(2));
    let mut read = theirs.content.tree(tree).expect("reads");
    let entry = read.entries.remove("page-1.html").expect("there");
    read.entries.insert("../out".to_owned(), entry);
    let bytes = wire::record::encode(wire::content::TREE_VERSION, &read).expect("encodes");
    let hash = theirs.file(&bytes);
    let holder = theirs.holder("a", Manner::Good);
    let error = fetch_tree(&ours.fetcher(), hash, &[&holder]).await;
    let error = error.expect_err("refused");
    assert!(matches!(
        error,
        FetchError::Content(ContentError::TreePath { .. })
    ));
    assert!(!ours.content.path(hash).exists());
}
