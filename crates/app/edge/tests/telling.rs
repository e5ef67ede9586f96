//! What it tells: readings and evidence to the agent, rows to the disk.

mod support;

use std::net::TcpListener;
use std::time::{Duration, Instant};
use support::{Node, add_service, body, play, request, rows, until};
use wire::edge::{FromEdge, ToEdge};

#[test]
fn role() {
    play();
}

#[tokio::test]
async fn readings_come_to_whoever_sends_snapshots() {
    let node = Node::new();
    let _supervisor = node.supervise().await;
    let edge = node.ready_edge().await;
    let mut agent = node.link_to(&edge).await;
    assert_eq!(agent.push(&node.page(1, "page")).await, Ok(1));
    for _ in 0..3 {
        assert_eq!(body(&node.get("/")), "page");
    }
    let readings = agent
        .said_when(|said| match said {
            FromEdge::Readings(readings) if readings.requests == 3 => Some(readings),
            _ => None,
        })
        .await;
    assert_eq!((readings.errors, readings.in_flight), (0, 0));
}

#[tokio::test]
async fn a_replica_that_does_not_take_requests_is_told_of_at_once() {
    let node = Node::new();
    let _supervisor = node.supervise().await;
    let edge = node.ready_edge().await;
    let mut agent = node.link_to(&edge).await;
    let nobody = TcpListener::bind("127.0.0.1:0").expect("binds");
    let somebody = TcpListener::bind("127.0.0.1:0").expect("binds");
    let [gone, here] = [&nobody, &somebody].map(|socket| socket.local_addr().expect("address"));
    drop(nobody);
    std::thread::spawn(move || {
        for stream in somebody.incoming() {
            let mut stream = stream.expect("accepts");
            let text = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nhere";
            let mut buffer = [0; 4096];
            let _ = std::io::Read::read(&mut stream, &mut buffer);
            let _ = std::io::Write::write_all(&mut stream, text);
        }
    });
    let mut snapshot = support::empty(1);
    add_service(&mut snapshot, "*", &[gone, here]);
    assert_eq!(agent.push(&snapshot).await, Ok(1));
    let http = node.http;
    // Several: which replica is tried first is up to chance.
    for _ in 0..32 {
        let answer = tokio::task::spawn_blocking(move || request(http, "any.test", "/", ""));
        let answer = answer.await.expect("ends").expect("answers");
        assert_eq!(body(&answer), "here");
    }
    let failed = agent
        .said_when(|said| match said {
            FromEdge::EndpointFailed { replica, .. } => Some(replica),
            _ => None,
        })
        .await;
    assert_eq!(failed.to_string(), "test.app-g1-0");
}

#[tokio::test]
async fn a_killed_edge_loses_the_rows_of_its_last_second_at_most() {
    let node = Node::new();
    node.save_snapshot(&node.page(1, "page"));
    let _supervisor = node.supervise().await;
    let mut edge = node.ready_edge().await;
    let begun = Instant::now();
    let mut answered = Vec::new();
    while begun.elapsed() < Duration::from_millis(2500) {
        assert_eq!(body(&node.get(&format!("/?{}", answered.len()))), "page");
        answered.push(Instant::now());
    }
    let killed = Instant::now();
    edge.kill();
    let found: Vec<String> = rows(&node).into_iter().map(|row| row.path).collect();
    for (number, at) in answered.iter().enumerate() {
        let path = format!("/?{number}");
        let times = found.iter().filter(|found| **found == path).count();
        let late = killed.duration_since(*at) < Duration::from_secs(1);
        assert!(times == 1 || (times == 0 && late), "row {number}: {times}");
    }
}

#[tokio::test]
async fn an_edge_that_leaves_has_written_every_row() {
    let node = Node::new();
    node.save_snapshot(&node.page(1, "page"));
    let _supervisor = node.supervise().await;
    let mut edge = node.ready_edge().await;
    for _ in 0..20 {
        assert_eq!(body(&node.get("/")), "page");
    }
    node.link_to(&edge).await.tell(&ToEdge::Drain).await;
    assert!(edge.ends().success());
    assert_eq!(rows(&node).len(), 20);
}

#[tokio::test]
async fn without_a_place_for_rows_it_serves_and_says_so() {
    let node = Node::new();
    node.save_snapshot(&node.page(1, "page"));
    let place = node.layout.access_rows();
    std::fs::create_dir_all(place.parent().expect("parent")).expect("creates");
    std::fs::write(&place, "in the way").expect("writes");
    let _supervisor = node.supervise().await;
    let _edge = node.ready_edge().await;
    assert_eq!(body(&node.get("/")), "page");
    until("it says that rows are dropped", || {
        let log = node.log();
        let said = log.contains("there is no access log") && log.contains("rows are dropped");
        said.then_some(())
    });
    std::fs::remove_file(&place).expect("removes");
    until("rows are kept again", || {
        assert_eq!(body(&node.get("/")), "page");
        (!rows(&node).is_empty()).then_some(())
    });
}
