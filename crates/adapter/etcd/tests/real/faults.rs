//! Members that lose power.

use crate::server::{Server, put, until};
use node::store::{Store, StoreError, WatchEvent};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_and_a_watch_outlive_a_power_cut() {
    let Some(mut server) = Server::start(1) else {
        return;
    };
    let store = server.open().await;
    let before = store.range("").await.expect("reads").revision;
    let mut watch = store.watch("/", before).await.expect("watches");
    let first = store.transact(put("/a", b"1")).await.expect("writes");
    let told = watch.next().await.expect("watches");
    assert!(matches!(told, WatchEvent::Changes { revision, .. } if revision == first.revision));
    server.cut_power(0);
    let refused = store.range("/").await.expect_err("no member has power");
    assert_eq!(refused, StoreError::NoQuorum);
    let refused = store.transact(put("/a", b"lost")).await;
    let refused = refused.expect_err("no member has power");
    assert_eq!(refused, StoreError::NoQuorum, "there was no connection");
    server.give_power(0);
    let second = until("a write", async || {
        store.transact(put("/b", b"2")).await.ok()
    })
    .await;
    let WatchEvent::Changes { revision, events } = watch.next().await.expect("watches") else {
        panic!("history is there");
    };
    assert_eq!((revision, events.len()), (second.revision, 1));
    let entries = store.range("/").await.expect("reads").entries;
    let values: Vec<_> = entries.into_iter().map(|entry| entry.value).collect();
    assert_eq!(values, [b"1".to_vec(), b"2".to_vec()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_members_go_on_and_one_alone_says_so() {
    let Some(mut server) = Server::start(3) else {
        return;
    };
    let store = server.open().await;
    until("a write", async || {
        store.transact(put("/a", b"1")).await.ok()
    })
    .await;
    let lease = store.grant("seat", "one", Duration::from_mins(1)).await;
    let lease = lease.expect("grants");
    server.cut_power(0);
    until("a write by two", async || {
        match store.transact(put("/a", b"2")).await {
            Ok(_) => Some(()),
            Err(StoreError::Unknown | StoreError::NoQuorum) => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
    until("a renewal by two", async || {
        store.renew("seat", lease.epoch).await.ok()
    })
    .await;
    server.cut_power(1);
    let refused = store.range("/").await.expect_err("one of three");
    assert_eq!(refused, StoreError::NoQuorum);
    let refused = store
        .transact(put("/a", b"3"))
        .await
        .expect_err("one of three");
    assert!(
        matches!(refused, StoreError::NoQuorum | StoreError::Unknown),
        "{refused}"
    );
    server.give_power(0);
    until("a write by two", async || {
        store.transact(put("/b", b"4")).await.ok()
    })
    .await;
    let entries = until("a read", async || store.range("/").await.ok())
        .await
        .entries;
    // Whose outcome was not known may have been done.
    let value = entries[0].value.as_slice();
    assert!(value == b"2" || value == b"3", "{value:?}");
    store.renew("seat", lease.epoch).await.expect("held on");
}
