//! Who leads when a member's disk is full, or slow.

use super::net::{three, until};
use super::put;
use kernel::NodeId;
use node::store::{Store, StoreError};
use std::time::Duration;

/// Another than the first, as the second sees it.
async fn another_leads(members: &[std::sync::Arc<crate::EmbeddedStore>]) {
    until("another leads", || {
        let leader = members[1].members().leader;
        leader.filter(|leader| *leader != NodeId(1))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_room_steps_aside_and_what_the_others_have_room_for_is_written() {
    let (net, members) = three().await;
    members[1].transact(put("/a", b"1")).await.expect("writes");
    net.fill(&[1]);
    another_leads(&members).await;
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
