//! What the disk changed, and how it is mended.

use crate::support::{Manner, PIECE, Place, all, fetch, noise};
use content::{Checked, ContentEvent, ScrubCursor, Wanted};
use kernel::Bytes;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[tokio::test(flavor = "multi_thread")]
async fn only_the_damaged_piece_of_a_long_file_travels_again() {
    let (ours, theirs) = (Place::new(), Place::new());
    let bytes = noise(8 * PIECE + 5, 1);
    let hash = theirs.file(&bytes);
    assert_eq!(ours.file(&bytes), hash);
    ours.damage(hash, 3 * PIECE + 9);
    let holder = theirs.holder("good", Manner::Good);
    let fetched = ours
        .fetcher()
        .mend(Wanted::new(hash), &all(&[&holder]))
        .await
        .expect("mends");
    assert_eq!(fetched.received(), Bytes(PIECE as u64));
    assert_eq!(fetched.resumed, Bytes(7 * PIECE as u64 + 5));
    let expected = [
        ContentEvent::Damaged { hash },
        ContentEvent::Mended { hash },
    ];
    assert_eq!(ours.events(), expected);
    assert!(ours.content.read_verified(hash).expect("reads") == bytes);
    let nothing = ours
        .fetcher()
        .mend(Wanted::new(hash), &[])
        .await
        .expect("is right");
    assert_eq!(nothing.files, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_program_is_mended_as_one_that_can_be_run() {
    let (ours, theirs) = (Place::new(), Place::new());
    let path = ours.site().join("program");
    fs::write(&path, noise(2 * PIECE, 2)).expect("writes");
    let hash = ours.content.ingest_file(&path, true).expect("ingests");
    theirs.content.ingest_file(&path, false).expect("ingests");
    ours.damage(hash, 1);
    let holder = theirs.holder("good", Manner::Good);
    ours.fetcher()
        .mend(Wanted::new(hash), &all(&[&holder]))
        .await
        .expect("mends");
    let mode = |hash| {
        let found = fs::metadata(ours.content.path(hash)).expect("there");
        found.permissions().mode() & 0o777
    };
    assert_eq!(mode(hash), 0o555);
    for length in [10, 2 * PIECE] {
        let hash = theirs.file(&noise(length, 3));
        let wanted = Wanted::new(hash).executable();
        let fetched = fetch(&ours.fetcher(), wanted, &[&holder]).await;
        fetched.expect("fetches");
        assert_eq!(mode(hash), 0o555);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_what_is_damaged_or_missing_brings_it_back() {
    let (ours, theirs) = (Place::new(), Place::new());
    let holder = theirs.holder("good", Manner::Good);
    for (seed, length) in [(3, 100), (4, 3 * PIECE)] {
        let bytes = noise(length, seed);
        let hash = theirs.file(&bytes);
        let read = ours.fetcher().read(hash, &all(&[&holder])).await;
        assert!(read.expect("was missing") == bytes);
        ours.damage(hash, length - 1);
        let read = ours.fetcher().read(hash, &all(&[&holder])).await;
        assert!(read.expect("was damaged") == bytes);
        assert!(ours.events().contains(&ContentEvent::Damaged { hash }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_does_not_send_what_is_damaged_there_and_says_so() {
    let (ours, theirs, others) = (Place::new(), Place::new(), Place::new());
    let bytes = noise(9 * PIECE, 5);
    let hash = theirs.file(&bytes);
    others.file(&bytes);
    theirs.damage(hash, 2 * PIECE);
    let damaged = theirs.holder("damaged", Manner::Good);
    let good = others.holder_at("good", 30, Manner::Good);
    let fetched = ours.fetcher();
    let fetched = fetch(&fetched, Wanted::new(hash), &[&damaged, &good]);
    assert!(fetched.await.expect("fetches").wrong.is_empty());
    assert!(ours.content.read_verified(hash).expect("reads") == bytes);
    assert_eq!(theirs.events(), [ContentEvent::Damaged { hash }]);
    assert!(!theirs.content.path(hash).exists(), "set aside");
}

#[test]
fn scrubbing_finds_all_damage_within_its_budget() {
    let place = Place::new();
    let long = place.file(&noise(20 * PIECE, 6));
    let mut damaged = BTreeSet::new();
    for at in 0..40 {
        let hash = place.file(&noise(1_000 + at, at as u64));
        if at % 10 == 0 {
            place.damage(hash, at);
            damaged.insert(hash);
        }
    }
    place.damage(long, 17 * PIECE);
    damaged.insert(long);
    let mut found = BTreeSet::new();
    let mut cursor = ScrubCursor::default();
    let mut calls = 0;
    loop {
        let budget = Bytes(2 * PIECE as u64);
        let scrubbed = place.content.scrub(cursor, budget).expect("scrubs");
        assert!(scrubbed.bytes.0 < 4 * PIECE as u64, "{}", scrubbed.bytes);
        found.extend(scrubbed.damaged);
        calls += 1;
        if scrubbed.round_done {
            break;
        }
        cursor = ScrubCursor::from_text(&scrubbed.next.to_text());
        assert_eq!(cursor, scrubbed.next);
    }
    assert_eq!(found, damaged);
    assert!(calls >= 8, "{calls} calls");
    assert_eq!(place.events().len(), damaged.len());
    for hash in damaged {
        let missing = place.content.check(hash).expect("checks");
        assert_eq!(missing, Checked::Missing);
    }
    assert_eq!(ScrubCursor::from_text("no cursor"), ScrubCursor::default());
}

#[test]
fn a_list_of_pieces_that_is_damaged_or_lost_is_made_anew() {
    let place = Place::new();
    let hash = place.file(&noise(20 * PIECE, 7));
    let text = hash.to_string();
    let list = place.directory.path().join("content/pieces");
    let list = list.join(&text[..2]).join(&text[2..]);
    for bytes in [
        None,
        Some(&b""[..]),
        Some(b"\x01\x05\x00"),
        Some(&[0xff; 99]),
    ] {
        fs::remove_file(&list).expect("there");
        if let Some(bytes) = bytes {
            fs::write(&list, bytes).expect("writes");
        }
        let again = content::Content::open(place.directory.path().join("content"));
        let checked = again.expect("opens").check(hash).expect("checks");
        assert!(matches!(checked, Checked::Right { .. }));
    }
    assert!(fs::metadata(&list).expect("there").len() > 20 * 32);
}
