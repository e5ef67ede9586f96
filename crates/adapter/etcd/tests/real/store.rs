//! What each store must do, and what etcd makes hard.

use crate::server::{Server, put};
use etcd::{EtcdStore, OpenError, Options, Tls};
use node::store::{Compare, Operation, Store, StoreError, Transaction, WatchEvent};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use store::suite::{self, Subject};

const HISTORY: u64 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_does_what_every_store_must() {
    let Some(server) = Server::start(1) else {
        return;
    };
    let options = Options {
        history_revisions_max: Some(HISTORY),
        ..server.options()
    };
    let store = server.open_with(options).await;
    let since = Instant::now();
    let subject = Subject {
        store: &store,
        // Compacted some revisions at a time.
        history_revisions: HISTORY + HISTORY / 5,
        pause: &|| Box::pin(tokio::time::sleep(Duration::from_millis(50))),
        now: &|| since.elapsed(),
    };
    suite::all(&subject).await;
}

#[tokio::test]
async fn operations_of_one_transaction_are_done_in_their_order() {
    let Some(server) = Server::start(1) else {
        return;
    };
    let store = server.open().await;
    store.transact(put("/a/old", b"0")).await.expect("writes");
    let text = |key: &str| key.to_owned();
    let then = vec![
        Operation::Put(text("/a/gone"), b"1".to_vec()),
        Operation::DeletePrefix(text("/a/")),
        Operation::Put(text("/a/kept"), b"2".to_vec()),
        Operation::Put(text("/a/kept"), b"3".to_vec()),
        Operation::Put(text("/b"), b"4".to_vec()),
        Operation::Delete(text("/b")),
    ];
    let written = Transaction {
        then,
        ..Transaction::default()
    };
    let done = store.transact(written).await.expect("writes");
    let found = store.range("").await.expect("reads");
    assert_eq!(found.revision, done.revision);
    let found = found.entries.into_iter();
    let found: Vec<_> = found.map(|entry| (entry.key, entry.value)).collect();
    assert_eq!(found, [("/a/kept".to_owned(), b"3".to_vec())]);
}

/// Each write gives all of many keys one value: whoever reads sees one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_of_many_pages_is_of_one_revision() {
    const KEYS: usize = 3_500;
    let Some(server) = Server::start(1) else {
        return;
    };
    let store = server.open().await;
    let write = |value: u8| {
        let put = |at| Operation::Put(format!("/many/{at:05}"), vec![value]);
        Transaction {
            then: (0..KEYS).map(put).collect(),
            ..Transaction::default()
        }
    };
    store.transact(write(0)).await.expect("writes");
    let writes = async {
        for value in 1..30 {
            store.transact(write(value)).await.expect("writes");
        }
    };
    let reads = async {
        let mut seen = BTreeSet::new();
        while seen.last() != Some(&29) {
            let range = store.range("/many/").await.expect("reads");
            assert_eq!(range.entries.len(), KEYS);
            let revisions = range.entries.iter().map(|entry| entry.modified);
            let revisions: BTreeSet<_> = revisions.collect();
            assert_eq!(revisions.len(), 1, "{revisions:?}");
            let values = range.entries.iter().map(|entry| entry.value[0]);
            let values: BTreeSet<u8> = values.collect();
            assert_eq!(values.len(), 1, "{values:?}");
            seen.extend(values);
        }
        seen
    };
    let ((), seen) = tokio::join!(writes, reads);
    assert!(seen.len() > 1, "reads were too slow to see anything");
}

#[tokio::test]
async fn stores_of_different_roots_share_an_etcd_and_no_key() {
    let Some(server) = Server::start(1) else {
        return;
    };
    let one = server.open().await;
    let other = server
        .open_with(Options {
            root: "homeostat2".to_owned(),
            ..server.options()
        })
        .await;
    one.transact(put("/a", b"1")).await.expect("writes");
    assert!(other.range("").await.expect("reads").entries.is_empty());
    let long = Duration::from_mins(1);
    one.grant("seat", "one", long).await.expect("grants");
    other.grant("seat", "two", long).await.expect("grants");
    assert_eq!(other.range("").await.expect("reads").entries, []);
}

/// With what etcd takes by itself, a large transaction is refused whole.
#[tokio::test]
async fn an_etcd_with_small_limits_says_so_and_changes_nothing() {
    let Some(server) = Server::limited() else {
        return;
    };
    let store = server.open().await;
    let many = Transaction {
        then: (0..200)
            .map(|at| Operation::Put(format!("/{at}"), Vec::new()))
            .collect(),
        ..Transaction::default()
    };
    let refused = store.transact(many).await.expect_err("too many");
    assert!(
        matches!(&refused, StoreError::Invalid(why) if why.contains("too many operations")),
        "{refused}"
    );
    assert!(store.range("").await.expect("reads").entries.is_empty());
}

/// A lease is fenced by its epoch wherever the write comes from.
#[tokio::test]
async fn who_lost_its_lease_writes_no_more_through_another_connection() {
    let Some(server) = Server::start(1) else {
        return;
    };
    let (one, two) = (server.open().await, server.open().await);
    let short = Duration::from_secs(1);
    let first = one.grant("seat", "one", short).await.expect("grants");
    let second = loop {
        match two.grant("seat", "two", short).await {
            Ok(lease) => break lease,
            Err(StoreError::LeaseHeld { holder, .. }) => assert_eq!(holder, "one"),
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(second.epoch > first.epoch);
    let fenced = |epoch| Transaction {
        compare: vec![Compare::Lease("seat".into(), epoch)],
        ..put("/led-by", b"")
    };
    let late = one.transact(fenced(first.epoch)).await.expect("answers");
    assert!(!late.succeeded);
    let lost = one.renew("seat", first.epoch).await;
    assert!(
        matches!(lost, Err(StoreError::LeaseLost { .. })),
        "{lost:?}"
    );
    two.renew("seat", second.epoch).await.expect("renews");
    let good = two.transact(fenced(second.epoch)).await.expect("answers");
    assert!(good.succeeded);
}

/// Whoever falls behind is told to read again, also in the midst of a watch.
#[tokio::test]
async fn a_watch_of_what_was_compacted_away_ends_with_a_resync() {
    let Some(server) = Server::start(1) else {
        return;
    };
    let options = Options {
        history_revisions_max: Some(10),
        ..server.options()
    };
    let store = server.open_with(options).await;
    let first = store.transact(put("/a", b"0")).await.expect("writes");
    for round in 0..40_u8 {
        store.transact(put("/a", &[round])).await.expect("writes");
    }
    let mut watch = store.watch("/", first.revision).await.expect("watches");
    for _ in 0..2 {
        let told = watch.next().await.expect("watches");
        let WatchEvent::Resync { oldest } = told else {
            panic!("{told:?}");
        };
        assert!(oldest > first.revision);
        // From there on, nothing is missing.
        let mut again = store.watch("/", oldest).await.expect("watches");
        let told = again.next().await.expect("watches");
        assert!(matches!(told, WatchEvent::Changes { .. }), "{told:?}");
    }
}

/// Both sides show certificates, and whoever has none is not heard.
#[tokio::test]
async fn an_etcd_with_tls_is_a_store_for_who_has_a_certificate() {
    let Some(server) = Server::secured() else {
        return;
    };
    let store = server.open().await;
    store.transact(put("/a", b"1")).await.expect("writes");
    assert_eq!(store.range("").await.expect("reads").entries.len(), 1);
    let own = server.options().tls.expect("its keys");
    let other = crate::server::keys();
    let stranger = Tls {
        certificate: other.certificate,
        key: other.key,
        ..own
    };
    let options = Options {
        tls: Some(stranger),
        ..server.options()
    };
    let refused = EtcdStore::open(options).await.err().expect("a stranger");
    assert!(matches!(refused, OpenError::Silent { .. }), "{refused}");
}
