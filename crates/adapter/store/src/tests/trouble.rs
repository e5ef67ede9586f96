//! Who leads when a member's disk is full, or slow.

use super::cruel::Disk;
use super::net::{ids, three, until};
use super::put;
use crate::file::Place;
use crate::{EmbeddedStore, Group, Tuning};
use fastrand::Rng;
use kernel::NodeId;
use node::store::{Store, StoreError};
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_room_steps_aside_and_what_the_others_have_room_for_is_written() {
    let (net, members) = three().await;
    members[1].transact(put("/a", b"1")).await.expect("writes");
    net.fill(&[1]);
    until("another leads", || {
        let leader = members[1].members().leader;
        leader.filter(|leader| *leader != NodeId(1))
    })
    .await;
    members[2].transact(put("/b", b"2")).await.expect("writes");
    // Who has no room asks for nothing, and has what the others wrote.
    let refused = members[0].transact(put("/c", b"3")).await;
    assert!(
        matches!(refused, Err(StoreError::Full { .. })),
        "{refused:?}"
    );
    let found = members[0].range("/").await.expect("reads");
    assert_eq!(found.entries.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_on_a_slow_disk_steps_aside() {
    let (net, members) = three().await;
    net.disk(1).slow_down(Duration::from_millis(600));
    let mut written = 0_u32;
    while members[1]
        .members()
        .leader
        .is_none_or(|leader| leader == NodeId(1))
    {
        // A disk that nobody writes to is not known to be slow.
        let key = format!("/{written}");
        match members[1].transact(put(&key, b"1")).await {
            Ok(_) => written += 1,
            Err(StoreError::NoQuorum | StoreError::Unknown) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(written < 10_000, "it leads on");
    }
    net.disk(1).slow_down(Duration::ZERO);
    let found = members[0].range("/").await.expect("reads");
    assert!(found.entries.len() >= written as usize);
}

/// What a change writes elsewhere first may take so long that nothing comes to the
/// leader's own file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_is_slow_for_another_store_steps_aside() {
    let (_net, members) = three().await;
    let disk = Disk::default();
    let place = Place::layer_with(disk.clone(), Arc::new(|| Ok(u64::MAX)));
    let beside = EmbeddedStore::open_at(place, NodeId(1), Group::Alone, Tuning::default());
    let beside = beside.await.expect("opens");
    members[0].shares_disk_with(&beside);
    disk.slow_down(Duration::from_millis(600));
    let mut written = 0;
    while members[1].members().leader.is_none_or(|it| it == NodeId(1)) {
        let put = put(&format!("/{written}"), b"1");
        beside.transact(put).await.expect("writes");
        written += 1;
        assert!(written < 100, "it leads on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_disk_has_room_somebody_leads_all_the_same() {
    let (net, members) = three().await;
    net.fill(&[1, 2, 3]);
    until("the first steps aside", || {
        let led = members[0].members();
        (led.leader != Some(NodeId(1))).then_some(())
    })
    .await;
    until("one leads", || members[1].members().leader).await;
    assert_eq!(members[2].range("/").await.expect("reads").entries.len(), 0);
    net.fill(&[]);
    members[1].transact(put("/a", b"1")).await.expect("writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lags_hears_a_leader_that_it_does_not_know_yet() {
    let (net, mut members) = three().await;
    members[0].transact(put("/a", b"1")).await.expect("writes");
    net.cut_off(&[3]);
    let fourth = net.open(4, false).await;
    let changed = members[0].set_members(ids(&[1, 3, 4]), ids(&[])).await;
    changed.expect("the fourth in the second's place");
    members[0].transact(put("/b", b"2")).await.expect("writes");
    net.kill(members.remove(0), 1, &mut Rng::new()).await;
    net.cut_off(&[]);
    // The third is needed, and knows nothing of the fourth.
    until("the fourth leads", || {
        (fourth.members().leader == Some(NodeId(4))).then_some(())
    })
    .await;
    fourth.transact(put("/c", b"3")).await.expect("writes");
    let found = members[1].range("/").await.expect("reads");
    assert_eq!(found.entries.len(), 3);
}
