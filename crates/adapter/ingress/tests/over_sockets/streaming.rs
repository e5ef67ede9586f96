//! Bodies as they move: at once, no faster than they are taken, and never cut
//! without a word.

use crate::support::World;
use crate::support::h2::{client, get};
use crate::support::mortal::eventually;
use crate::support::puppet::{Puppet, Wire};
use h2::client::Builder;
use ingress::Limits;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(20);
const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    transfer-encoding: chunked\r\n\r\n";
const GET: &str = "GET / HTTP/1.1\r\nhost: app.test\r\n\r\n";
/// More than the buffers of all sockets on the way.
const FLOOD_BYTES: usize = 64 << 20;

async fn with_puppet(limits: Limits) -> (World, Puppet) {
    let mut world = World::start(limits, false).await;
    let puppet = Puppet::new().await;
    world.endpoints(&[puppet.address], DEADLINE);
    (world, puppet)
}

#[tokio::test]
async fn each_event_passes_at_once() {
    let (world, puppet) = with_puppet(Limits::default()).await;
    let mut client = Wire::connect(world.address).await;
    client.write(GET).await;
    let (mut replica, _) = puppet.request().await;
    replica.write(EVENTS).await;
    assert!(client.until("\r\n\r\n").await.contains("text/event-stream"));
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        replica.write(&format!("9\r\n{event}\r\n")).await;
        assert_eq!(client.until(event).await.lines().last(), Some(""));
        client.until("\r\n").await;
    }
    replica.write("0\r\n\r\n").await;
    client.until("0\r\n\r\n").await;
    assert_eq!(world.row(|row| row.status == 200).await.bytes, 27);
}

#[tokio::test]
async fn each_event_passes_at_once_with_a_request_queued_behind() {
    let (world, puppet) = with_puppet(Limits::default()).await;
    let mut client = Wire::connect(world.address).await;
    client.write(&format!("{GET}{GET}")).await;
    let (mut replica, _) = puppet.request().await;
    replica.write(EVENTS).await;
    replica.write("9\r\ndata: 1\n\n\r\n").await;
    client.until("data: 1\n\n").await;
}

#[tokio::test]
async fn each_event_passes_at_once_over_http2() {
    let (world, puppet) = with_puppet(Limits::default()).await;
    let stream = TcpStream::connect(world.address).await.expect("connects");
    let mut client = client(stream, &Builder::new()).await;
    let sent = client.sender.send_request(get("http://app.test/"), true);
    let response = sent.expect("sent").0;
    let (mut replica, _) = puppet.request().await;
    replica.write(EVENTS).await;
    let mut body = response.await.expect("head").into_body();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        replica.write(&format!("9\r\n{event}\r\n")).await;
        let data = body.data().await.expect("more").expect("data");
        assert_eq!(data, event.as_bytes());
    }
    // A replica that breaks off is no end of the body.
    drop(replica);
    let error = body.data().await.expect("ends").expect_err("is reset");
    assert!(error.is_reset(), "{error}");
    assert_eq!(world.row(|row| row.status == 502).await.bytes, 18);
}

#[tokio::test]
async fn each_piece_of_a_request_passes_at_once() {
    let (world, puppet) = with_puppet(Limits::default()).await;
    let mut client = Wire::connect(world.address).await;
    client
        .write("POST / HTTP/1.1\r\nhost: app.test\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    client.write("3\r\none\r\n").await;
    let (mut replica, head) = puppet.request().await;
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    replica.until("one").await;
    client.write("3\r\ntwo\r\n").await;
    replica.until("two").await;
    // The answer may begin before the request has ended.
    replica.write(EVENTS).await;
    client.until("\r\n\r\n").await;
    client.write("5\r\nthree\r\n0\r\n\r\n").await;
    replica.until("three\r\n0\r\n\r\n").await;
    replica.write("2\r\nok\r\n0\r\n\r\n").await;
    client.until("ok\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn client_that_asks_first_is_told_to_continue() {
    let (world, puppet) = with_puppet(Limits::default()).await;
    let mut client = Wire::connect(world.address).await;
    client
        .write("POST / HTTP/1.1\r\nhost: app.test\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        .await;
    let (mut replica, head) = puppet.request().await;
    assert!(!head.contains("expect"), "{head}");
    assert!(client.until("\r\n\r\n").await.starts_with("HTTP/1.1 100 "));
    client.write("hi").await;
    replica.until("hi").await;
    replica.write("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(client.until("\r\n\r\n").await.starts_with("HTTP/1.1 204 "));
}

#[tokio::test]
async fn client_that_takes_nothing_slows_the_replica_and_is_dropped() {
    let limits = Limits {
        write_stall: Duration::from_millis(300),
        ..Limits::default()
    };
    let (world, puppet) = with_puppet(limits).await;
    let mut client = Wire::connect(world.address).await;
    client.write(GET).await;
    let (mut replica, _) = puppet.request().await;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {FLOOD_BYTES}\r\n\r\n");
    replica.write(&head).await;
    assert!(replica.flood(FLOOD_BYTES).await, "all was taken");
    let row = world.row(|row| row.status == 499).await;
    assert!(row.bytes < FLOOD_BYTES as u64 / 2, "{} bytes", row.bytes);
    assert_eq!(world.service().errors, 0);
    drop(client);
}

#[tokio::test]
async fn client_that_leaves_ends_the_work_of_the_replica() {
    let (world, puppet) = with_puppet(Limits::default()).await;
    for head in ["", EVENTS] {
        let mut client = Wire::connect(world.address).await;
        client.write(GET).await;
        let (mut replica, _) = puppet.request().await;
        replica.write(head).await;
        if !head.is_empty() {
            replica.write("3\r\none\r\n").await;
            client.until("one").await;
        }
        drop(client);
        replica.rest().await;
        let bytes = if head.is_empty() { 0 } else { 3 };
        world
            .row(|row| row.status == 499 && row.bytes == bytes)
            .await;
    }
    eventually("nothing is in flight", || world.service().in_flight == 0).await;
}

#[tokio::test]
async fn replica_that_breaks_off_never_makes_a_whole_answer() {
    let (world, puppet) = with_puppet(Limits::default()).await;
    for head in [
        EVENTS,
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n5\r\n",
    ] {
        let mut client = Wire::connect(world.address).await;
        client.write(GET).await;
        let (mut replica, _) = puppet.request().await;
        replica.write(head).await;
        replica.write("3\r\none\r\n").await;
        client.until("one").await;
        drop(replica);
        let rest = client.rest().await;
        assert!(!rest.contains("0\r\n"), "{rest:?}");
        world.row(|row| row.status == 502).await;
        world.rows.rows.lock().expect("lock").clear();
    }
    assert!(world.rows.failed.lock().expect("lock")[0].contains("in the middle"));
    assert_eq!(world.service().errors, 2);
}

#[tokio::test]
async fn replica_that_falls_silent_in_its_answer_is_given_up() {
    let limits = Limits {
        answer_body_idle: Duration::from_millis(100),
        ..Limits::default()
    };
    let (world, puppet) = with_puppet(limits).await;
    let mut client = Wire::connect(world.address).await;
    client.write(GET).await;
    let (mut replica, _) = puppet.request().await;
    replica.write(EVENTS).await;
    replica.write("3\r\none\r\n").await;
    assert!(!client.rest().await.contains("0\r\n\r\n"));
    world.row(|row| row.status == 504).await;
    replica.rest().await;
}

#[tokio::test]
async fn client_that_falls_silent_in_its_request_gets_408() {
    let limits = Limits {
        request_body_idle: Duration::from_millis(100),
        ..Limits::default()
    };
    let (world, puppet) = with_puppet(limits).await;
    let mut client = Wire::connect(world.address).await;
    client
        .write("POST / HTTP/1.1\r\nhost: app.test\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    let (mut replica, _) = puppet.request().await;
    assert_eq!(replica.rest().await, "half");
    assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
    world.row(|row| row.status == 408).await;
    assert_eq!(world.rows.failed.lock().expect("lock").len(), 0);
}

#[tokio::test]
async fn client_of_http_1_0_is_reset_when_the_replica_breaks_off() {
    let (world, puppet) = with_puppet(Limits::default()).await;
    let mut client = Wire::connect(world.address).await;
    client
        .write("GET / HTTP/1.0\r\nhost: app.test\r\n\r\n")
        .await;
    let (mut replica, _) = puppet.request().await;
    replica.write(EVENTS).await;
    replica.write("3\r\none\r\n").await;
    client.until("one").await;
    drop(replica);
    let end = client.stream.read_u8().await.expect_err("ends");
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    world.row(|row| row.status == 502).await;
}

#[tokio::test]
async fn replica_that_refuses_a_long_body_early_is_heard() {
    let (world, puppet) = with_puppet(Limits::default()).await;
    for _ in 0..10 {
        let body = "x".repeat(8 << 20);
        let request = format!(
            "POST / HTTP/1.1\r\nhost: app.test\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let client = world.send(&request);
        let (mut replica, _) = puppet.request().await;
        replica
            .write("HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno")
            .await;
        drop(replica);
        let answer = client.await.expect("joins");
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
}
