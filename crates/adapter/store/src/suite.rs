//! What each implementation of the store must do, as checks to run against it.
//!
//! In: a store and what the checks need of the world around. Out: a panic that
//! says what was broken.
//! Holds: each check keeps to keys and leases of its own, so one store serves
//! all; a lease is called lost too early only when the clock proves it.
//! Never: needs a runtime, a clock or a file of its own.

use kernel::{FencingEpoch, Revision};
use node::BoxFuture;
use node::store::{
    Compare, Event, KEY_BYTES_MAX, Operation, Outcome, Store, StoreError,
    TRANSACTION_OPERATIONS_MAX, Transaction, VALUE_BYTES_MAX, Watch, WatchEvent,
};
use std::collections::BTreeMap;
use std::time::Duration;

pub struct Subject<'a> {
    pub store: &'a dyn Store,
    /// After so many more revisions, an old one is gone from history.
    pub history_revisions: u64,
    /// Lets a little time pass.
    pub pause: &'a (dyn Fn() -> BoxFuture<'a, ()> + Sync),
    /// Since some moment; leases run by it.
    pub now: &'a (dyn Fn() -> Duration + Sync),
}

const TIME_TO_LIVE: Duration = Duration::from_secs(1);

pub async fn all(subject: &Subject<'_>) {
    let store = subject.store;
    a_transaction_does_all_or_nothing(store).await;
    revisions_grow_by_one_per_writing_transaction(store).await;
    each_comparison_decides_as_it_says(store).await;
    one_of_many_compare_and_sets_wins(store).await;
    a_prefix_is_deleted_whole_and_nothing_beside_it(store).await;
    a_watch_tells_all_changes_in_order(store).await;
    a_watch_begins_after_its_revision(store).await;
    a_watch_of_lost_history_says_resync(subject).await;
    a_lease_has_one_holder_and_growing_epochs(store).await;
    a_write_under_an_old_epoch_fails(store).await;
    a_silent_holder_loses_its_lease(subject).await;
    a_renewed_lease_is_kept(subject).await;
    limits_hold_just_where_they_are(store).await;
}

fn puts<const N: usize>(rows: [(&str, &str); N]) -> Vec<Operation> {
    let put = |(key, value): (&str, &str)| Operation::Put(key.into(), value.into());
    rows.into_iter().map(put).collect()
}

fn write(then: Vec<Operation>) -> Transaction {
    Transaction {
        then,
        ..Transaction::default()
    }
}

async fn done(store: &dyn Store, transaction: Transaction) -> Outcome {
    store.transact(transaction).await.expect("transacts")
}

async fn rows(store: &dyn Store, prefix: &str) -> BTreeMap<String, String> {
    let range = store.range(prefix).await.expect("reads");
    assert!(range.entries.is_sorted_by(|a, b| a.key < b.key));
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let row = |entry: node::store::Entry| (entry.key, text(entry.value));
    range.entries.into_iter().map(row).collect()
}

async fn revision(store: &dyn Store) -> Revision {
    store.range("/suite/none").await.expect("reads").revision
}

pub async fn a_transaction_does_all_or_nothing(store: &dyn Store) {
    let all = puts([("/suite/whole/a", "1"), ("/suite/whole/b", "2")]);
    let both = done(store, write(all)).await;
    assert!(both.succeeded);
    let range = store.range("/suite/whole/").await.expect("reads");
    assert_eq!(range.entries.len(), 2);
    for entry in &range.entries {
        assert_eq!(
            (entry.created, entry.modified),
            (both.revision, both.revision)
        );
    }
    let neither = Transaction {
        compare: vec![
            Compare::Present("/suite/whole/a".into()),
            Compare::Absent("/suite/whole/b".into()),
        ],
        then: puts([("/suite/whole/a", "9"), ("/suite/whole/c", "9")]),
        otherwise: puts([("/suite/whole/d", "3")]),
    };
    let outcome = done(store, neither).await;
    assert!(!outcome.succeeded);
    let found = rows(store, "/suite/whole/").await;
    let expected = [("a", "1"), ("b", "2"), ("d", "3")];
    let expected = expected.map(|(k, v)| (format!("/suite/whole/{k}"), v.to_owned()));
    assert_eq!(found, BTreeMap::from(expected));
    let again = done(store, write(puts([("/suite/whole/a", "4")]))).await;
    let range = store.range("/suite/whole/a").await.expect("reads");
    let entry = &range.entries[0];
    assert_eq!(
        (entry.created, entry.modified),
        (both.revision, again.revision)
    );
}

pub async fn revisions_grow_by_one_per_writing_transaction(store: &dyn Store) {
    let first = done(store, write(puts([("/suite/count/a", "1")]))).await;
    let many = puts([("/suite/count/b", "1"), ("/suite/count/c", "1")]);
    let second = done(store, write(many)).await;
    assert_eq!(second.revision, Revision(first.revision.0 + 1));
    for idle in [vec![], vec![Operation::Delete("/suite/count/none".into())]] {
        assert_eq!(done(store, write(idle)).await.revision, second.revision);
    }
    assert_eq!(revision(store).await, second.revision);
    let last = done(
        store,
        write(vec![Operation::Delete("/suite/count/a".into())]),
    )
    .await;
    assert_eq!(last.revision, Revision(second.revision.0 + 1));
}

pub async fn each_comparison_decides_as_it_says(store: &dyn Store) {
    let key = || "/suite/compare/a".to_owned();
    let none = || "/suite/compare/none".to_owned();
    let at = done(store, write(puts([("/suite/compare/a", "1")])))
        .await
        .revision;
    let lease = store.grant("suite-compare", "me", TIME_TO_LIVE * 60).await;
    let epoch = lease.expect("grants").epoch;
    let seat = || "suite-compare".to_owned();
    let cases = [
        (Compare::Absent(none()), true),
        (Compare::Absent(key()), false),
        (Compare::Present(key()), true),
        (Compare::Present(none()), false),
        (Compare::Modified(key(), at), true),
        (Compare::Modified(key(), Revision(at.0 + 1)), false),
        (Compare::Modified(none(), at), false),
        (Compare::Value(key(), b"1".into()), true),
        (Compare::Value(key(), b"2".into()), false),
        (Compare::Value(none(), Vec::new()), false),
        (Compare::Lease(seat(), epoch), true),
        (Compare::Lease(seat(), FencingEpoch(epoch.0 + 1)), false),
        (Compare::Lease("suite-nobody".into(), epoch), false),
    ];
    for (compare, holds) in cases {
        let transaction = Transaction {
            compare: vec![compare.clone()],
            ..Transaction::default()
        };
        let outcome = done(store, transaction).await;
        assert_eq!(outcome.succeeded, holds, "{compare:?}");
    }
    store.release("suite-compare", epoch).await.expect("gives");
}

/// Adds one `rounds` times, by comparing and setting; returns how often it lost.
async fn increment(store: &dyn Store, key: &str, rounds: u64) -> u64 {
    let mut lost = 0;
    for _ in 0..rounds {
        loop {
            let range = store.range(key).await.expect("reads");
            let old = range.entries.first();
            let value: u64 = old.map_or(0, |entry| {
                let text = String::from_utf8_lossy(&entry.value);
                text.parse().expect("a number")
            });
            let compare = match old {
                Some(entry) => Compare::Modified(key.into(), entry.modified),
                None => Compare::Absent(key.into()),
            };
            let next = (value + 1).to_string().into_bytes();
            let transaction = Transaction {
                compare: vec![compare],
                then: vec![Operation::Put(key.into(), next)],
                otherwise: Vec::new(),
            };
            if done(store, transaction).await.succeeded {
                break;
            }
            lost += 1;
        }
    }
    lost
}

pub async fn one_of_many_compare_and_sets_wins(store: &dyn Store) {
    let key = "/suite/counter";
    let one = || increment(store, key, 10);
    let _ = tokio::join!(one(), one(), one(), one());
    let found = rows(store, key).await;
    assert_eq!(found.get(key).map(String::as_str), Some("40"));
}

pub async fn a_prefix_is_deleted_whole_and_nothing_beside_it(store: &dyn Store) {
    let keys = [
        ("/suite/gone/a", "1"),
        ("/suite/gone/b/c", "1"),
        ("/suite/gone", "1"),
        ("/suite/gone0", "1"),
    ];
    done(store, write(puts(keys))).await;
    let delete = vec![Operation::DeletePrefix("/suite/gone/".into())];
    done(store, write(delete)).await;
    let left: Vec<_> = rows(store, "/suite/gone").await.into_keys().collect();
    assert_eq!(left, ["/suite/gone", "/suite/gone0"]);
}

async fn next(watch: &mut Box<dyn Watch>) -> (Revision, Vec<Event>) {
    match watch.next().await.expect("watches") {
        WatchEvent::Changes { revision, events } => (revision, events),
        WatchEvent::Resync { oldest } => panic!("history is there, yet resync to {oldest:?}"),
    }
}

fn key_of(event: &Event) -> &str {
    match event {
        Event::Put(entry) => &entry.key,
        Event::Deleted(key) => key,
    }
}

fn keys(events: &[Event]) -> Vec<&str> {
    events.iter().map(key_of).collect()
}

pub async fn a_watch_tells_all_changes_in_order(store: &dyn Store) {
    let before = revision(store).await;
    let mut early = store.watch("/suite/watch/", before).await.expect("watches");
    let writes = async {
        let mut at = Vec::new();
        for round in 0..20 {
            let (a, b) = (format!("/suite/watch/{round}"), "/suite/beside/a");
            let rows = puts([(a.as_str(), "1"), (b, "1")]);
            at.push(done(store, write(rows)).await.revision);
            done(store, write(puts([(b, "2")]))).await;
        }
        let all = vec![Operation::DeletePrefix("/suite/watch/".into())];
        at.push(done(store, write(all)).await.revision);
        at
    };
    let reads = async {
        let mut told = Vec::new();
        for _ in 0..21 {
            told.push(next(&mut early).await);
        }
        told
    };
    let (at, told) = tokio::join!(writes, reads);
    let revisions: Vec<_> = told.iter().map(|(revision, _)| *revision).collect();
    assert_eq!(revisions, at);
    for (round, (revision, events)) in told[..20].iter().enumerate() {
        assert_eq!(keys(events), [format!("/suite/watch/{round}")]);
        let Event::Put(entry) = &events[0] else {
            panic!("a put is told as {events:?}");
        };
        assert_eq!(
            (entry.modified, entry.value.as_slice()),
            (*revision, &b"1"[..])
        );
    }
    let deleted = &told[20].1;
    assert_eq!(deleted.len(), 20);
    assert!(deleted.iter().all(|e| matches!(e, Event::Deleted(_))));
    let mut late = store.watch("/suite/watch/", before).await.expect("watches");
    for expected in told {
        assert_eq!(next(&mut late).await, expected);
    }
}

pub async fn a_watch_begins_after_its_revision(store: &dyn Store) {
    let first = done(store, write(puts([("/suite/after", "1")]))).await;
    let second = done(store, write(puts([("/suite/after", "2")]))).await;
    for (after, expected) in [
        (Revision(first.revision.0 - 1), first.revision),
        (first.revision, second.revision),
    ] {
        let mut watch = store.watch("/suite/after", after).await.expect("watches");
        assert_eq!(next(&mut watch).await.0, expected);
    }
}

pub async fn a_watch_of_lost_history_says_resync(subject: &Subject<'_>) {
    let store = subject.store;
    let old = done(store, write(puts([("/suite/old", "1")])))
        .await
        .revision;
    for _ in 0..=subject.history_revisions {
        done(store, write(puts([("/suite/old", "2")]))).await;
    }
    let mut watch = store.watch("/suite/old", old).await.expect("watches");
    let told = watch.next().await.expect("watches");
    let WatchEvent::Resync { oldest } = told else {
        panic!("lost history is told as {told:?}");
    };
    assert!(oldest.0 > old.0 + 1, "{oldest:?} is not after {old:?}");
    let range = store.range("/suite/old").await.expect("reads");
    let mut watch = store
        .watch("/suite/old", range.revision)
        .await
        .expect("watches");
    let last = done(store, write(puts([("/suite/old", "3")]))).await;
    assert_eq!(next(&mut watch).await.0, last.revision);
}

fn is_lost<T>(done: &Result<T, StoreError>) -> bool {
    matches!(done, Err(StoreError::LeaseLost { .. }))
}

pub async fn a_lease_has_one_holder_and_growing_epochs(store: &dyn Store) {
    let name = "suite-seat";
    let long = TIME_TO_LIVE * 60;
    let first = store.grant(name, "one", long).await.expect("grants");
    assert_eq!((first.name.as_str(), first.holder.as_str()), (name, "one"));
    let other = store.grant(name, "two", long).await;
    let Err(StoreError::LeaseHeld { holder, .. }) = other else {
        panic!("two holders: {other:?}");
    };
    assert_eq!(holder, "one");
    store.renew(name, first.epoch).await.expect("renews");
    let again = store.grant(name, "one", long).await.expect("grants");
    assert!(again.epoch > first.epoch);
    assert!(is_lost(&store.renew(name, first.epoch).await));
    assert!(is_lost(&store.release(name, first.epoch).await));
    store.release(name, again.epoch).await.expect("releases");
    assert!(is_lost(&store.renew(name, again.epoch).await));
    let two = store.grant(name, "two", long).await.expect("grants");
    assert!(two.epoch > again.epoch);
    store.release(name, two.epoch).await.expect("releases");
}

fn fenced(name: &str, epoch: FencingEpoch, value: &str) -> Transaction {
    Transaction {
        compare: vec![Compare::Lease(name.into(), epoch)],
        then: puts([("/suite/fenced", value)]),
        otherwise: Vec::new(),
    }
}

pub async fn a_write_under_an_old_epoch_fails(store: &dyn Store) {
    let name = "suite-fence";
    let long = TIME_TO_LIVE * 60;
    let old = store.grant(name, "one", long).await.expect("grants").epoch;
    assert!(done(store, fenced(name, old, "old")).await.succeeded);
    store.release(name, old).await.expect("releases");
    assert!(!done(store, fenced(name, old, "free")).await.succeeded);
    let new = store.grant(name, "two", long).await.expect("grants").epoch;
    assert!(done(store, fenced(name, new, "new")).await.succeeded);
    assert!(!done(store, fenced(name, old, "late")).await.succeeded);
    let found = rows(store, "/suite/fenced").await;
    assert_eq!(found.get("/suite/fenced").map(String::as_str), Some("new"));
    store.release(name, new).await.expect("releases");
}

pub async fn a_silent_holder_loses_its_lease(subject: &Subject<'_>) {
    let (store, name) = (subject.store, "suite-silent");
    let asked = (subject.now)();
    let silent = store.grant(name, "one", TIME_TO_LIVE).await;
    let silent = silent.expect("grants").epoch;
    let next = loop {
        match store.grant(name, "two", TIME_TO_LIVE).await {
            Ok(lease) => break lease,
            Err(StoreError::LeaseHeld { .. }) => (subject.pause)().await,
            Err(error) => panic!("{error}"),
        }
    };
    let held = (subject.now)().saturating_sub(asked);
    assert!(held >= TIME_TO_LIVE, "lost after {held:?}");
    assert!(next.epoch > silent);
    assert!(is_lost(&store.renew(name, silent).await));
    assert!(!done(store, fenced(name, silent, "late")).await.succeeded);
    let _ = store.release(name, next.epoch).await;
}

pub async fn a_renewed_lease_is_kept(subject: &Subject<'_>) {
    let (store, name) = (subject.store, "suite-kept");
    let since = (subject.now)();
    let held = store.grant(name, "one", TIME_TO_LIVE).await;
    let epoch = held.expect("grants").epoch;
    let mut renewed = since;
    while (subject.now)() < since + TIME_TO_LIVE * 2 {
        let asked = (subject.now)();
        match store.renew(name, epoch).await {
            Ok(()) => renewed = asked,
            // A pause of this program may really have been so long.
            Err(StoreError::LeaseLost { .. }) => {
                let silent = (subject.now)().saturating_sub(renewed);
                assert!(silent >= TIME_TO_LIVE, "lost after {silent:?}");
                return;
            }
            Err(error) => panic!("{error}"),
        }
        (subject.pause)().await;
    }
    store.release(name, epoch).await.expect("releases");
}

pub async fn limits_hold_just_where_they_are(store: &dyn Store) {
    let prefix = "/suite/limits/";
    let before = revision(store).await;
    let key = |bytes: usize| format!("{prefix}{}", "k".repeat(bytes - prefix.len()));
    let put = |key_bytes, value_bytes| {
        write(vec![Operation::Put(
            key(key_bytes),
            vec![b'v'; value_bytes],
        )])
    };
    let many = |count: usize| {
        let put = |i| Operation::Put(format!("{prefix}{i}"), Vec::new());
        write((0..count).map(put).collect())
    };
    for large in [
        put(KEY_BYTES_MAX + 1, 1),
        put(100, VALUE_BYTES_MAX + 1),
        many(TRANSACTION_OPERATIONS_MAX + 1),
        write(vec![Operation::Put(String::new(), Vec::new())]),
    ] {
        let refused = store.transact(large).await;
        assert!(
            matches!(refused, Err(StoreError::Invalid(_))),
            "{refused:?}"
        );
    }
    assert_eq!(revision(store).await, before);
    for fitting in [
        put(KEY_BYTES_MAX, 1),
        put(100, VALUE_BYTES_MAX),
        many(TRANSACTION_OPERATIONS_MAX),
    ] {
        assert!(done(store, fitting).await.succeeded);
    }
    let all = vec![Operation::DeletePrefix(prefix.into())];
    done(store, write(all)).await;
    assert!(rows(store, prefix).await.is_empty());
}
