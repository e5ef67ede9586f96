//! Leases and pins against collection.

use crate::support::{Manner, PIECE, Place, fetch, fetch_tree, noise};
use content::{Content, Pin, PinKind, Wanted};
use kernel::UnixMillis;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

fn later(by: Duration) -> UnixMillis {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let at = now.expect("after 1970") + by;
    UnixMillis(u64::try_from(at.as_millis()).expect("small"))
}

fn collect(content: &Content) {
    content
        .collect_older(&[], &[], Duration::ZERO)
        .expect("collects");
}

#[test]
fn what_is_leased_is_not_collected_until_the_last_lease_ends() {
    let place = Place::new();
    let tree = place.tree(&[
        ("a".to_owned(), b"a".to_vec()),
        ("b".to_owned(), noise(2 * PIECE, 1)),
    ]);
    let file = place.content.tree(tree).expect("reads").entries["a"].hash;
    let whole = place.content.lease_tree(tree).expect("is here");
    let one = place.content.lease(file);
    let clone = place.content.clone();
    collect(&clone);
    place.content.tree(tree).expect("leased");
    place.content.read_verified(file).expect("leased");
    assert_eq!(place.content.leased().len(), 3);
    drop(whole);
    collect(&clone);
    assert!(!place.content.path(tree).exists());
    place.content.read_verified(file).expect("leased still");
    drop(one);
    collect(&clone);
    assert!(!place.content.path(file).exists());
    let lists = fs::read_dir(place.directory.path().join("content/pieces")).expect("lists");
    let left =
        lists.flat_map(|entry| fs::read_dir(entry.expect("an entry").path()).expect("lists"));
    assert_eq!(left.count(), 0, "a list goes after its file");
}

#[test]
fn a_pin_keeps_content_until_its_end_over_restarts() {
    let place = Place::new();
    let tree = place.tree(&[("a".to_owned(), b"a".to_vec())]);
    let file = place.file(b"b");
    let ended = place.file(b"c");
    let pin = |hash, kind, until| Pin { hash, kind, until };
    let hour = later(Duration::from_hours(1));
    let pins = [
        ("roll-back", pin(tree, PinKind::Tree, hour)),
        ("binary", pin(file, PinKind::File, hour)),
        ("ended", pin(ended, PinKind::File, later(Duration::ZERO))),
        ("absent", pin(kernel::Hash([9; 32]), PinKind::Tree, hour)),
    ];
    for (name, pin) in pins {
        place.content.pin(name, pin).expect("pins");
    }
    let again = Content::open(place.directory.path().join("content")).expect("opens");
    assert_eq!(again.pins(later(Duration::ZERO)).expect("reads").len(), 3);
    collect(&again);
    let entry = again.tree(tree).expect("pinned").entries["a"].hash;
    again.read_verified(entry).expect("pinned with its tree");
    again.read_verified(file).expect("pinned");
    assert!(!again.path(ended).exists());
    assert!(again.unpin("roll-back").expect("was there"));
    assert!(!again.unpin("roll-back").expect("was not there"));
    collect(&again);
    assert!(!again.path(tree).exists());
}

#[test]
fn unreadable_pins_stop_a_collection_before_it_removes_anything() {
    let place = Place::new();
    let file = place.file(b"b");
    fs::write(place.directory.path().join("content/pins"), b"\x07").expect("writes");
    place
        .content
        .collect_older(&[], &[], Duration::ZERO)
        .expect_err("refused");
    place.content.read_verified(file).expect("is here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_at_any_moment_takes_nothing_from_a_fetch() {
    let (ours, theirs) = (Place::new(), Place::new());
    let files: Vec<_> = (0..2_000_usize)
        .map(|at| (format!("{at}"), noise(500 + at, at as u64)))
        .chain([("long".to_owned(), noise(30 * PIECE, 7))])
        .collect();
    let tree = theirs.tree(&files);
    let holder = theirs.holder("good", Manner::Good);
    let (content, done) = (ours.content.clone(), Arc::new(()));
    let goes_on = Arc::downgrade(&done);
    let collecting = tokio::task::spawn_blocking(move || {
        let mut rounds = 0;
        while goes_on.strong_count() > 0 {
            collect(&content);
            rounds += 1;
        }
        rounds
    });
    let served = theirs.content.clone();
    let lease = served.lease_tree(tree).expect("is here");
    let client = ours.fetcher();
    let kept = ours.content.lease(tree);
    let fetched = fetch_tree(&client, tree, &[&holder]).await;
    fetched.expect("fetches");
    let whole = ours.content.lease_tree(tree);
    drop(done);
    let rounds: u32 = collecting.await.expect("no panic");
    assert!(rounds > 0);
    // Between the fetch's own leases and ours a collection may come: only what
    // stood under one all the time must be there.
    ours.content
        .tree(tree)
        .expect("leased from before the fetch");
    drop((whole, kept, lease));
    let fetched = fetch_tree(&client, tree, &[&holder]).await;
    fetched.expect("completes it");
    for entry in ours.content.tree(tree).expect("is here").entries.values() {
        ours.content.read_verified(entry.hash).expect("is here");
    }
    let other = theirs.file(b"other");
    let wanted = Wanted::new(other);
    let fetched = fetch(&client, wanted, &[&holder]).await;
    fetched.expect("fetches");
}
