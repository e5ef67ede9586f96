//! Several members over a network that can be cut: what was acknowledged stays,
//! whoever dies.

use super::net::{ids, three, until};
use super::put;
use crate::EmbeddedStore;
use crate::suite::{self, Subject};
use fastrand::Rng;
use kernel::NodeId;
use node::store::{Compare, Operation, Store, StoreError, Transaction};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Writes at any cost but twice: what is not known is looked for.
async fn write(store: &EmbeddedStore, key: &str, value: &[u8]) {
    loop {
        match store.transact(put(key, value)).await {
            Ok(_) => return,
            Err(StoreError::NoQuorum | StoreError::Unknown) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_does_what_every_store_must() {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let (_net, members) = three().await;
    let subject = Subject {
        store: &*members[1],
        history_revisions: 60,
        pause: &|| Box::pin(tokio::time::sleep(Duration::from_millis(50))),
        now: &|| BEGAN.get_or_init(Instant::now).elapsed(),
    };
    suite::all(&subject).await;
    // All of it came to the others.
    let all = members[1].range("").await.expect("reads");
    for member in &members {
        assert_eq!(member.range("").await.expect("reads"), all);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_the_leader() {
    let (net, mut members) = three().await;
    for number in 0..120_u32 {
        let key = format!("/before/{number}");
        write(&members[1], &key, b"1").await;
    }
    let leader = members.remove(0);
    assert_eq!(leader.members().leader, Some(NodeId(1)));
    net.kill(leader, 1, &mut Rng::new()).await;
    for number in 0..20_u32 {
        let key = format!("/after/{number}");
        write(&members[0], &key, b"1").await;
    }
    let found = members[1].range("/").await.expect("reads");
    assert_eq!(found.entries.len(), 140);
    // It comes back behind a snapshot, and has all.
    let back = net.open(1, true).await;
    assert_eq!(back.range("/").await.expect("reads").entries.len(), 140);
    assert!(back.members().leader.is_some_and(|one| one != NodeId(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_smaller_side_changes_nothing_and_says_so() {
    let (net, members) = three().await;
    write(&members[0], "/key", b"old").await;
    net.cut_off(&[1]);
    until("another leader", || {
        let leader = members[1].members().leader;
        leader.filter(|leader| *leader != NodeId(1))
    })
    .await;
    write(&members[1], "/key", b"new").await;
    until("the old leader's doubt", || {
        members[0].members().leader.is_none().then_some(())
    })
    .await;
    let began = Instant::now();
    let refused = members[0].transact(put("/key", b"wrong")).await;
    let refused = refused.expect_err("the smaller side");
    assert_eq!(refused, StoreError::NoQuorum);
    let refused = members[0].range("/").await.expect_err("a stale read");
    assert_eq!(refused, StoreError::NoQuorum);
    assert!(began.elapsed() < Duration::from_secs(15));
    net.cut_off(&[]);
    let entries = members[0].range("/key").await.expect("reads").entries;
    assert_eq!(entries[0].value, b"new");
}

/// Each of many adds to one number by comparing, and answers get lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_again_is_done_once() {
    let (net, members) = three().await;
    write(&members[0], "/sum", b"0").await;
    *net.lossy.lock().expect("no panic") = Some(7);
    let mut adders = Vec::new();
    for (at, member) in members.iter().cloned().enumerate() {
        let adder = async move {
            let mut done = 0_u32;
            while done < 15 {
                let Ok(read) = member.range("/sum").await else {
                    continue;
                };
                let sum: u32 = String::from_utf8(read.entries[0].value.clone())
                    .expect("text")
                    .parse()
                    .expect("a number");
                let added = Transaction {
                    compare: vec![Compare::Modified("/sum".into(), read.entries[0].modified)],
                    then: vec![
                        Operation::Put("/sum".into(), (sum + 1).to_string().into_bytes()),
                        Operation::Put(format!("/done/{at}/{done}"), Vec::new()),
                    ],
                    otherwise: Vec::new(),
                };
                match member.transact(added).await {
                    Ok(outcome) if outcome.succeeded => done += 1,
                    Ok(_) | Err(StoreError::NoQuorum) => {}
                    Err(StoreError::Unknown) => {
                        let seen = member.range(&format!("/done/{at}/{done}")).await;
                        let seen = seen.map(|seen| seen.entries.len());
                        done += u32::from(seen == Ok(1));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        };
        adders.push(tokio::spawn(adder));
    }
    for adder in adders {
        adder.await.expect("adds");
    }
    *net.lossy.lock().expect("no panic") = None;
    let sum = members[2].range("/sum").await.expect("reads");
    assert_eq!(sum.entries[0].value, b"45");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_let_in_and_let_go() {
    let (net, members) = three().await;
    write(&members[0], "/key", b"1").await;
    let fourth = net.open(4, false).await;
    let wrong = members[1].set_members(ids(&[1, 2, 4]), ids(&[])).await;
    assert!(matches!(wrong, Err(StoreError::Invalid(_))), "{wrong:?}");
    let leader = &members[0];
    leader
        .set_members(ids(&[1, 2, 3]), ids(&[4]))
        .await
        .expect("learns");
    assert_eq!(leader.members().learners, ids(&[4]));
    assert_eq!(fourth.range("/").await.expect("reads").entries.len(), 1);
    leader
        .set_members(ids(&[1, 2, 4]), ids(&[]))
        .await
        .expect("replaces");
    let seen = leader.members();
    assert_eq!((seen.voters, seen.learners), (ids(&[1, 2, 4]), ids(&[])));
    // Who was let go is answered no more.
    let left = members[2].transact(put("/key", b"2")).await;
    assert!(left.is_err(), "{left:?}");
    write(&fourth, "/key", b"3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_hostile_bytes_get_nothing() {
    let (_net, members) = three().await;
    write(&members[0], "/key", b"1").await;
    let before = members[0].members();
    for length in 0..200_usize {
        let bytes: Vec<u8> = (0..length).map(|_| fastrand::u8(..)).collect();
        for from in [2, 9] {
            let _ = members[0].answer(NodeId(from), &bytes).await;
            let marked = [&[1_u8][..], &bytes].concat();
            let _ = members[0].answer(NodeId(from), &marked).await;
        }
    }
    let after = members[0].members();
    assert_eq!((before.term, before.leader), (after.term, after.leader));
    assert_eq!(members[2].range("/").await.expect("reads").entries.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_the_second_has_what_is_acknowledged_and_is_missed_when_it_is_gone() {
    let net = std::sync::Arc::new(super::net::Net::default());
    let first = net.open(1, true).await;
    let second = net.open(2, false).await;
    let made = first.set_members(ids(&[1]), ids(&[2])).await;
    made.expect("learns");
    for number in 0..40_u32 {
        let key = format!("/key/{number}");
        first.transact(put(&key, b"1")).await.expect("writes");
        if !first.members().is_degraded {
            let log = second.last().1;
            assert!(
                log >= first.last().1,
                "acknowledged before the second had it"
            );
        }
    }
    assert!(!first.members().is_degraded);
    net.cut_off(&[2]);
    first.transact(put("/alone", b"1")).await.expect("writes");
    assert!(first.members().is_degraded);
    until("the learner misses its leader", || {
        second.members().leader.is_none().then_some(())
    })
    .await;
    net.cut_off(&[]);
    let began = Instant::now();
    while first.members().is_degraded {
        first.transact(put("/again", b"1")).await.expect("writes");
        assert!(began.elapsed() < Duration::from_mins(1));
    }
    assert_eq!(second.last(), first.last());
}

/// An answer may take 90 ms; 100 KB take half a second here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_slow_ways_what_is_large_arrives_and_nobody_else_leads_for_it() {
    let (net, members) = three().await;
    let all_have = || {
        let last = members[0].last();
        members.iter().all(|it| it.last() == last).then_some(())
    };
    let term = members[0].members().term;
    net.bytes_per_ms.store(200, Ordering::Relaxed);
    let large = vec![b'7'; 100_000];
    let written = members[0].transact(put("/large", &large)).await;
    written.expect("writes");
    until("all have it", all_have).await;
    assert_eq!(members[0].members().term, term);

    net.cut_off(&[3]);
    for number in 0..40 {
        let put = put(&format!("/{number}"), &large[..2_000]);
        members[0].transact(put).await.expect("writes");
    }
    net.cut_off(&[]);
    until("who was cut off has all", all_have).await;
}
