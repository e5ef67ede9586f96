//! Upgraded connections: both ways, no faster than taken, ended in time.

use crate::support::World;
use crate::support::mortal::eventually;
use crate::support::puppet::{Puppet, Wire};
use ingress::Limits;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

const DEADLINE: Duration = Duration::from_secs(20);
const ASK: &str = "GET /chat HTTP/1.1\r\nhost: app.test\r\nconnection: Upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-key: x\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-accept: y\r\n\r\n";
const FLOOD_BYTES: usize = 64 << 20;

async fn tunnel(limits: Limits) -> (World, Wire, Wire) {
    let mut world = World::start(limits, false).await;
    let puppet = Puppet::new().await;
    world.endpoints(&[puppet.address], DEADLINE);
    let mut client = Wire::connect(world.address).await;
    client.write(ASK).await;
    let (mut replica, head) = puppet.request().await;
    assert!(head.contains("upgrade: websocket\r\n") && head.contains("sec-websocket-key: x"));
    replica.write(SWITCH).await;
    let answer = client.until("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains("sec-websocket-accept: y"));
    (world, client, replica)
}

#[tokio::test]
async fn both_sides_speak_and_each_may_end_first() {
    let (world, mut client, mut replica) = tunnel(Limits::default()).await;
    for _ in 0..3 {
        client.write("ping").await;
        replica.until("ping").await;
        replica.write("pong!").await;
        client.until("pong!").await;
    }
    client.stream.shutdown().await.expect("half");
    assert_eq!(replica.rest().await, "");
    replica.write("bye").await;
    drop(replica);
    assert_eq!(client.rest().await, "bye");
    let row = world.row(|row| row.status == 101).await;
    assert_eq!((row.bytes, row.path.as_str()), (18, "/chat"));
    eventually("nothing is in flight", || world.service().in_flight == 0).await;
}

#[tokio::test]
async fn client_that_vanishes_ends_the_replicas_side() {
    let (world, client, mut replica) = tunnel(Limits::default()).await;
    drop(client);
    assert_eq!(replica.rest().await, "");
    drop(replica);
    world.row(|row| row.status == 101).await;
}

#[tokio::test]
async fn silent_tunnel_ends_after_its_time() {
    let limits = Limits {
        tunnel_idle: Duration::from_millis(100),
        ..Limits::default()
    };
    let (world, mut client, mut replica) = tunnel(limits).await;
    assert_eq!(client.rest().await, "");
    assert_eq!(replica.rest().await, "");
    world.row(|row| row.status == 101).await;
}

#[tokio::test]
async fn tunnel_is_no_faster_than_its_reader_and_drops_one_that_takes_nothing() {
    let limits = Limits {
        write_stall: Duration::from_millis(300),
        ..Limits::default()
    };
    let (world, client, mut replica) = tunnel(limits).await;
    assert!(replica.flood(FLOOD_BYTES).await, "all was taken");
    let row = world.row(|row| row.status == 101).await;
    assert!(row.bytes < FLOOD_BYTES as u64 / 2, "{} bytes", row.bytes);
    drop(client);
}

#[tokio::test]
async fn drain_ends_tunnels_at_its_deadline() {
    let (world, mut client, mut replica) = tunnel(Limits::default()).await;
    world.ingress.drain(Duration::from_millis(50)).await;
    assert_eq!(client.rest().await, "");
    assert_eq!(replica.rest().await, "");
    world.row(|row| row.status == 101).await;
}

#[tokio::test]
async fn switch_that_nobody_asked_for_is_502() {
    let mut world = World::plain().await;
    let puppet = Puppet::new().await;
    world.endpoints(&[puppet.address], DEADLINE);
    let answer = world.send("GET / HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\n\r\n");
    let (mut replica, _) = puppet.request().await;
    replica.write(SWITCH).await;
    assert!(answer.await.expect("joins").starts_with("HTTP/1.1 502 "));
}
