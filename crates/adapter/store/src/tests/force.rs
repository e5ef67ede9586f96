//! A member goes on alone when its majority is lost for good, and whoever comes back
//! neither leads nor undoes what was done since.

use super::net::{Net, ids, three, until};
use super::{put, reopenable};
use crate::{EmbeddedStore, GENERATION_SHIFT, begin_anew, generation, take_over};
use fastrand::Rng;
use kernel::{FencingEpoch, NodeId};
use node::store::{LEASE_SPAN, Operation, Store, StoreError, Transaction};
use std::sync::Arc;

const FIRST: u64 = (1 << GENERATION_SHIFT) | 3;

async fn keys(store: &EmbeddedStore) -> usize {
    store.range("/key/").await.expect("reads").entries.len()
}

/// Of three members the third is left, with all that was acknowledged; returns the
/// epoch that it knew last.
async fn one_is_left() -> (Arc<Net>, FencingEpoch) {
    let (net, mut members) = three().await;
    for number in 0..70_u32 {
        let key = format!("/key/{number}");
        members[0].transact(put(&key, b"1")).await.expect("writes");
    }
    let lease = members[1].grant("seat", "one", *LEASE_SPAN.end()).await;
    let third = members.pop().expect("three");
    assert_eq!(keys(&third).await, 70);
    for (member, node) in members.into_iter().zip(1..) {
        net.kill(member, node, &mut Rng::new()).await;
    }
    let refused = third.transact(put("/key/lost", b"1")).await;
    let is_known = matches!(refused, Err(StoreError::NoQuorum | StoreError::Unknown));
    assert!(is_known, "{refused:?}");
    net.kill(third, 3, &mut Rng::new()).await;
    (net, lease.expect("grants").epoch)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_left_goes_on_with_all_it_had() {
    let (net, before) = one_is_left().await;
    let told = put("/told", b"at once");
    net.take_over(3, FIRST, told.clone());
    let third = net.open(3, false).await;
    let members = third.members();
    assert_eq!(
        (members.voters, members.leader),
        (ids(&[3]), Some(NodeId(3)))
    );
    assert_eq!(third.generation(), 1);
    assert!(keys(&third).await >= 70);
    let found = third.range("/told").await.expect("reads").entries;
    assert_eq!(found.len(), 1);
    let written = third.transact(put("/key/new", b"1")).await.expect("writes");
    assert!(written.revision.0 > 1 << GENERATION_SHIFT);
    let lease = third
        .grant("other", "one", *LEASE_SPAN.end())
        .await
        .expect("grants");
    assert!(lease.epoch.0 > 1 << GENERATION_SHIFT && lease.epoch > before);
    // Done again after a crash, it changes nothing; so does the next start.
    let last = third.last();
    net.kill(third, 3, &mut Rng::new()).await;
    net.take_over(3, FIRST, told);
    let third = net.open(3, false).await;
    assert!(third.members().log_last <= last.1 + 2);
    assert_eq!(third.generation(), 1);
    assert_eq!(
        third.range("/key/new").await.expect("reads").entries.len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_as_it_was_gets_no_vote_and_who_begins_anew_gets_all() {
    let (net, _) = one_is_left().await;
    net.take_over(3, FIRST, Transaction::default());
    let third = net.open(3, false).await;
    third.transact(put("/key/new", b"1")).await.expect("writes");
    let term = third.members().term;
    let first = net.open(1, true).await;
    let refused = first.transact(put("/key/old", b"1")).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_ne!(first.members().leader, Some(NodeId(1)));
    let members = third.members();
    assert_eq!((members.leader, members.term), (Some(NodeId(3)), term));
    net.kill(first, 1, &mut Rng::new()).await;
    let mut back = Vec::new();
    for node in [1, 2] {
        net.set_disk(node, Vec::new());
        back.push(net.open(node, false).await);
    }
    let grown = third.set_members(ids(&[1, 2, 3]), ids(&[])).await;
    grown.expect("lets them in");
    let count = keys(&third).await;
    for member in &back {
        assert_eq!(keys(member).await, count);
        assert_eq!(member.generation(), 1);
    }
    net.kill(third, 3, &mut Rng::new()).await;
    until("another leads", || {
        let leader = back[0].members().leader;
        leader.filter(|leader| *leader != NodeId(3))
    })
    .await;
    assert_eq!(keys(&back[1]).await, count);
}

#[tokio::test]
async fn a_file_is_put_aside_once_and_nothing_of_it_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = reopenable(folder.path());
    let (path, node) = (options.path.clone(), options.node);
    assert_eq!(generation(&path, node).expect("reads"), None);
    let store = EmbeddedStore::open(options.clone()).await.expect("opens");
    store.transact(put("/key/old", b"1")).await.expect("writes");
    store.shutdown().await;
    drop(store);
    assert_eq!(generation(&path, node).expect("reads"), Some(0));
    let aside = begin_anew(&path, node, FIRST).expect("begins");
    let aside = aside.expect("something was there");
    assert_eq!(begin_anew(&path, node, FIRST).expect("again"), None);
    assert_eq!(generation(&path, node).expect("reads"), Some(FIRST));
    assert_eq!(generation(&aside, node).expect("reads"), Some(0));
    let store = EmbeddedStore::open(options.clone()).await.expect("opens");
    assert_eq!(keys(&store).await, 0);
    store.shutdown().await;
    drop(store);
    // What was aside can be looked at, and led by its own.
    let then = Transaction {
        then: vec![Operation::Put("/key/new".into(), Vec::new())],
        ..Transaction::default()
    };
    take_over(&aside, node, FIRST + 1, then).expect("takes over");
    let options = crate::Options {
        path: aside,
        ..options
    };
    let store = EmbeddedStore::open(options).await.expect("opens");
    assert_eq!(keys(&store).await, 2);
    store.shutdown().await;
}
