//! One file from several holders.

use crate::support::{Manner, PIECE, Place, all, fetch, noise};
use content::{ContentEvent, FetchError, FetchOptions, Wanted};
use proptest::prelude::*;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn long_file_comes_from_three_holders_at_once() {
    let (ours, theirs) = (Place::new(), Place::new());
    let bytes = noise(200 * MIB + 77, 1);
    let hash = theirs.file(&bytes);
    let [a, b, c] = ["a", "b", "c"].map(|name| theirs.holder(name, Manner::Good));
    let mut last = 0;
    let fetched = ours
        .fetcher()
        .fetch(Wanted::new(hash), &all(&[&a, &b, &c]), &mut |progress| {
            assert!(progress.bytes >= last, "it never goes back");
            last = progress.bytes;
        })
        .await
        .expect("fetches");
    assert_eq!(last, bytes.len() as u64);
    assert_eq!(fetched.received().0, bytes.len() as u64);
    assert!(fetched.from.len() == 3, "{:?}", fetched.from);
    assert!(fs::read(ours.content.path(hash)).expect("reads") == bytes);
    assert_eq!(ours.temporary(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_all_lengths_come_whole() {
    let (ours, theirs) = (Place::new(), Place::new());
    let near = theirs.holder_at("near", 1, Manner::Good);
    let far = theirs.holder_at("far", 50, Manner::Good);
    let client = ours.fetcher_with(FetchOptions {
        patience: Duration::from_hours(1),
        ..FetchOptions::default()
    });
    for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 5 * MIB + 1] {
        let bytes = noise(length, 2);
        let hash = theirs.file(&bytes);
        let wanted = Wanted::new(hash).of_length(length as u64);
        let fetched = fetch(&client, wanted, &[&far, &near]);
        let fetched = fetched.await.expect("fetches");
        assert_eq!(fetched.files, 1);
        assert!(
            ours.content.read_verified(hash).expect("reads") == bytes,
            "{length}"
        );
        if length <= PIECE {
            assert!(!fetched.from.contains_key("far"), "the nearest is enough");
        }
        let again = fetch(&client, wanted, &[&far, &near]);
        assert_eq!(again.await.expect("is here").files, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_slow_and_vanished_holders_delay_nothing() {
    let (ours, theirs) = (Place::new(), Place::new());
    let bytes = noise(40 * MIB, 3);
    let hash = theirs.file(&bytes);
    let silent = theirs.holder("silent", Manner::SilentAfter(MIB as u64));
    let gone = theirs.holder("gone", Manner::GoneAfter(2 * MIB as u64));
    let slow = theirs.holder("slow", Manner::Slow);
    let good = theirs.holder_at("good", 30, Manner::Good);
    let fetched = fetch(
        &ours.patient(),
        Wanted::new(hash),
        &[&silent, &gone, &slow, &good],
    )
    .await
    .expect("fetches");
    assert!(ours.content.read_verified(hash).expect("reads") == bytes);
    let good = fetched.from["good"].0;
    assert!(good > 20 * MIB as u64, "{:?}", fetched.from);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nearest_holder_that_never_answers_is_not_waited_for() {
    let (ours, theirs) = (Place::new(), Place::new());
    let hash = theirs.file(b"small");
    let silent = theirs.holder("silent", Manner::SilentAfter(0));
    let good = theirs.holder_at("good", 30, Manner::Good);
    let fetched = ours.patient();
    let fetched = fetch(&fetched, Wanted::new(hash), &[&silent, &good]);
    assert!(fetched.await.expect("fetches").from.contains_key("good"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_of_wrong_bytes_is_named_and_left_alone() {
    let (ours, theirs) = (Place::new(), Place::new());
    let bytes = noise(10 * MIB, 4);
    let hash = theirs.file(&bytes);
    let liar = theirs.holder("liar", Manner::FlipsAfter(PIECE as u64));
    let good = theirs.holder_at("good", 30, Manner::Good);
    let client = ours.fetcher();
    let holders = all(&[&liar, &good]);
    let fetched = client.fetch(Wanted::new(hash), &holders, &mut |_| {}).await;
    let fetched = fetched.expect("fetches");
    assert!(ours.content.read_verified(hash).expect("reads") == bytes);
    assert_eq!(fetched.wrong.iter().collect::<Vec<_>>(), ["liar"]);
    let holder = "liar".to_owned();
    assert_eq!(ours.events(), [ContentEvent::WrongBytes { holder, hash }]);
    let opened = liar.opened.load(Ordering::Relaxed);
    let other = theirs.file(b"another");
    let again = client
        .clone()
        .fetch(Wanted::new(other), &holders, &mut |_| {})
        .await;
    assert!(again.expect("fetches").from.contains_key("good"));
    assert_eq!(liar.opened.load(Ordering::Relaxed), opened);
    let third = theirs.file(b"a third");
    let error = fetch(&client, Wanted::new(third), &[&liar]).await;
    let error = error.expect_err("nobody is left").to_string();
    assert!(error.contains("liar: it sent wrong bytes"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_holds_is_said_with_each_reason() {
    let (ours, theirs) = (Place::new(), Place::new());
    let hash = Place::new().file(b"only there");
    let lacking = theirs.holder("lacking", Manner::Good);
    let gone = theirs.holder("gone", Manner::GoneAfter(0));
    let fetched = ours.fetcher();
    let error = fetch(&fetched, Wanted::new(hash), &[&lacking, &gone]);
    let error = error.await.expect_err("nobody holds it");
    let text = error.to_string();
    assert!(text.contains("lacking: it is not there"), "{text}");
    assert!(text.contains("gone: connection refused"), "{text}");
    let error = fetched.fetch(Wanted::new(hash), &[], &mut |_| {}).await;
    assert!(matches!(error, Err(FetchError::Unreachable { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_length_than_expected_is_an_error_of_who_expected_it() {
    let (ours, theirs) = (Place::new(), Place::new());
    let good = theirs.holder("good", Manner::Good);
    for length in [5, 3 * PIECE] {
        let hash = theirs.file(&noise(length, 5));
        let wanted = Wanted::new(hash).of_length(length as u64 + 1);
        let error = fetch(&ours.fetcher(), wanted, &[&good]).await;
        assert!(matches!(error, Err(FetchError::Length { .. })), "{error:?}");
    }
    assert_eq!(ours.events(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn fetches_of_the_same_file_at_once_fetch_it_once() {
    let (ours, theirs) = (Place::new(), Place::new());
    let bytes = noise(20 * MIB, 6);
    let hash = theirs.file(&bytes);
    let good = theirs.holder("good", Manner::Good);
    let client = ours.fetcher_with(FetchOptions {
        memory: kernel::Bytes(1),
        ..FetchOptions::default()
    });
    let at_once = (0..6).map(|_| {
        let (client, holders) = (client.clone(), all(&[&good]));
        tokio::spawn(async move {
            let fetched = client.fetch(Wanted::new(hash), &holders, &mut |_| {}).await;
            fetched.expect("fetches").files
        })
    });
    let mut files = 0;
    for fetch in at_once.collect::<Vec<_>>() {
        files += fetch.await.expect("no panic");
    }
    assert_eq!(files, 1);
    assert!(ours.content.read_verified(hash).expect("reads") == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_with_too_much_to_do_is_asked_again() {
    let (ours, theirs) = (Place::new(), Place::new());
    let hash = theirs.file(&noise(3 * MIB, 7));
    let options = content::ServeOptions {
        requests_max: 1,
        ..content::ServeOptions::default()
    };
    let busy = Arc::new(theirs.holder_with("busy", options));
    let fetched = ours.fetcher();
    let fetched = fetch(&fetched, Wanted::new(hash), &[&busy]);
    assert_eq!(fetched.await.expect("fetches").files, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_keeps_no_deadline_is_given_up_by_name() {
    let (ours, theirs) = (Place::new(), Place::new());
    let hash = theirs.file(&noise(3 * PIECE, 8));
    let client = ours.fetcher_with(FetchOptions {
        piece_within: Duration::from_millis(10),
        rest: Duration::from_millis(1),
        failures_max: 3,
        ..FetchOptions::default()
    });
    let silent = theirs.holder("silent", Manner::SilentAfter(0));
    let error = fetch(&client, Wanted::new(hash), &[&silent]).await;
    let error = error.expect_err("nobody answers").to_string();
    assert!(
        error.contains("silent: it did not go on in time"),
        "{error}"
    );
    assert_eq!(silent.opened.load(Ordering::Relaxed), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_of_wrong_bytes_is_asked_again_after_its_rest() {
    let (ours, theirs) = (Place::new(), Place::new());
    let hash = theirs.file(&noise(PIECE, 9));
    let client = ours.fetcher_with(FetchOptions {
        wrong_rest: Duration::ZERO,
        ..FetchOptions::default()
    });
    let liar = theirs.holder("mended", Manner::FlipsAfter(100));
    let good = theirs.holder("mended", Manner::Good);
    fetch(&client, Wanted::new(hash), &[&liar])
        .await
        .expect_err("wrong");
    fetch(&client, Wanted::new(hash), &[&good])
        .await
        .expect("right now");
}

fn any_manner() -> impl Strategy<Value = Manner> {
    prop_oneof![
        (0..3_000_000_u64).prop_map(Manner::GoneAfter),
        (0..3_000_000_u64).prop_map(Manner::SilentAfter),
        (0..600_000_u64).prop_map(Manner::FlipsAfter),
        Just(Manner::Noise),
        Just(Manner::Slow),
        Just(Manner::Good),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn whatever_others_do_one_good_holder_is_enough(
        manners in prop::collection::vec(any_manner(), 0..4),
        length in 0..3_000_000_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("starts").block_on(async {
            let (ours, theirs) = (Place::new(), Place::new());
            let bytes = noise(length, 10);
            let hash = theirs.file(&bytes);
            let holders: Vec<_> = manners
                .iter()
                .enumerate()
                .map(|(at, manner)| theirs.holder(&format!("other-{at}"), *manner))
                .chain([theirs.holder_at("good", 20, Manner::Good)])
                .collect();
            let holders: Vec<_> = holders.iter().collect();
            let fetched = fetch(&ours.patient(), Wanted::new(hash), &holders).await;
            let fetched = fetched.expect("one is good");
            assert!(!fetched.wrong.contains("good"));
            assert_eq!(fetched.received().0, length as u64);
            assert!(ours.content.read_verified(hash).expect("reads") == bytes);
            assert_eq!(ours.temporary(), [""; 0]);
        });
    }
}
