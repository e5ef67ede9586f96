//! Snapshots: from disk, from the agent, and such as cannot be used.

mod support;

use std::io::Write;
use support::{Node, add_site, body, empty, play, request};
use wire::edge::{FromEdge, RouteEntry, SNAPSHOT_VERSION, Target, ToEdge};

#[test]
fn role() {
    play();
}

#[tokio::test]
async fn it_serves_from_the_last_snapshot_alone() {
    let node = Node::new();
    node.save_snapshot(&node.page(7, "from disk"));
    let supervisor = node.supervise().await;
    let _edge = node.ready_edge().await;
    drop(supervisor);
    assert_eq!(body(&node.get("/")), "from disk");
}

#[tokio::test]
async fn a_newer_snapshot_is_applied_and_survives_a_restart() {
    let node = Node::new();
    node.save_snapshot(&node.page(7, "old"));
    let _supervisor = node.supervise().await;
    let mut edge = node.ready_edge().await;
    let newer = node.page(8, "new");
    assert_eq!(node.link_to(&edge).await.push(&newer).await, Ok(8));
    assert_eq!(body(&node.get("/")), "new");
    edge.kill();
    let _next = node.ready_edge().await;
    assert_eq!(body(&node.get("/")), "new");
}

#[tokio::test]
async fn an_older_snapshot_is_ignored_and_the_same_one_confirmed() {
    let node = Node::new();
    let _supervisor = node.supervise().await;
    let edge = node.ready_edge().await;
    let mut link = node.link_to(&edge).await;
    let (older, newer) = (node.page(8, "older"), node.page(9, "newer"));
    assert_eq!(link.push(&newer).await, Ok(9));
    let why = link.push(&older).await.expect_err("ignored");
    assert!(why.contains("version 9"), "{why}");
    assert_eq!(link.push(&newer).await, Ok(9));
    assert_eq!(body(&node.get("/")), "newer");
    assert_eq!(node.saved(), Some(newer));
}

#[tokio::test]
async fn an_unusable_snapshot_is_refused_and_changes_nothing() {
    let node = Node::new();
    let _supervisor = node.supervise().await;
    let edge = node.ready_edge().await;
    let mut link = node.link_to(&edge).await;
    let good = node.page(5, "good");
    assert_eq!(link.push(&good).await, Ok(5));
    let mut lacking = empty(6);
    add_site(&mut lacking, "site", "*", kernel::Hash([9; 32]));
    let mut dangling = empty(7);
    dangling.routes.push(RouteEntry {
        host: "*".to_owned(),
        path: "/".to_owned(),
        target: Target::Service(support::name("nobody")),
    });
    let mut other = empty(8);
    other.format = SNAPSHOT_VERSION + 1;
    for (snapshot, names) in [
        (lacking, "09090909"),
        (dangling, "nobody"),
        (other, "format"),
    ] {
        let why = link.push(&snapshot).await.expect_err("refused");
        assert!(why.contains(names), "{why}");
        assert_eq!(body(&node.get("/")), "good");
        assert_eq!(node.saved().as_ref(), Some(&good));
    }
    assert_eq!(link.push(&node.page(6, "better")).await, Ok(6));
}

#[tokio::test]
async fn garbage_on_its_socket_ends_that_connection_only() {
    let node = Node::new();
    let _supervisor = node.supervise().await;
    let edge = node.ready_edge().await;
    let mut link = node.link_to(&edge).await;
    assert_eq!(link.push(&node.page(1, "good")).await, Ok(1));
    let long = vec![0xff; 100_000];
    let version = b"\0\0\0\x09\x63\x83\x1a\x2a\0\"up\"".to_vec();
    let message = wire::frame::encode(&"nonsense").expect("encodes");
    for bytes in [long, version, message] {
        let mut link = node.link_to(&edge).await;
        let mut stream =
            std::os::unix::net::UnixStream::connect(node.layout.edge_socket()).expect("connects");
        // The edge may close while we still write.
        let _ = stream.write_all(&bytes);
        link.tell(&ToEdge::TakeListeners).await;
        assert!(matches!(link.said().await, Some(FromEdge::Listeners(_))));
        assert_eq!(body(&node.get("/")), "good");
    }
    assert_eq!(link.push(&node.page(2, "better")).await, Ok(2));
}

#[tokio::test]
async fn a_saved_snapshot_that_cannot_be_read_is_set_aside() {
    for text in [
        &b"\0\xff{"[..],
        br#"{"format":77,"version":3,"routes":"other"}"#,
    ] {
        let node = Node::new();
        node.save(text);
        let _supervisor = node.supervise().await;
        let edge = node.ready_edge().await;
        assert!(node.get("/").starts_with("HTTP/1.1 404"));
        let aside = node.snapshot_file().with_extension("json.unusable");
        assert_eq!(std::fs::read(aside).expect("kept"), text);
        assert!(node.log().contains("the last snapshot is not used"));
        let mut link = node.link_to(&edge).await;
        assert_eq!(link.push(&node.page(4, "fresh")).await, Ok(4));
        assert_eq!(body(&node.get("/")), "fresh");
    }
}

#[tokio::test]
async fn a_damaged_site_does_not_take_the_others_away() {
    let node = Node::new();
    let mut snapshot = node.page(3, "whole");
    add_site(&mut snapshot, "lost", "lost.test", kernel::Hash([9; 32]));
    node.save_snapshot(&snapshot);
    let _supervisor = node.supervise().await;
    let edge = node.ready_edge().await;
    assert_eq!(body(&node.get("/")), "whole");
    // The agent, which knows better, sends the same version again.
    let tree = node.ingest(&[("index.html", b"found")]);
    snapshot
        .sites
        .get_mut(&support::name("lost"))
        .expect("there")
        .tree = tree;
    assert_eq!(node.link_to(&edge).await.push(&snapshot).await, Ok(3));
    let answer = request(node.http, "lost.test", "/", "").expect("answers");
    assert_eq!(body(&answer), "found");
}

#[tokio::test]
async fn a_snapshot_that_the_disk_refuses_is_in_force_and_saved_later() {
    let node = Node::new();
    let place = node.layout.root.join("edge");
    std::fs::write(&place, "in the way").expect("writes");
    let _supervisor = node.supervise().await;
    let edge = node.ready_edge().await;
    let snapshot = node.page(2, "page");
    assert_eq!(node.link_to(&edge).await.push(&snapshot).await, Ok(2));
    assert_eq!(body(&node.get("/")), "page");
    assert!(node.log().contains("in force but not on disk"));
    std::fs::remove_file(&place).expect("removes");
    support::until("it is saved", || node.saved().map(|_| ()));
    assert_eq!(node.saved(), Some(snapshot));
}
