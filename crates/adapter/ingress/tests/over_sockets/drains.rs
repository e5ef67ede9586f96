//! Draining: what is in flight ends, what is new goes elsewhere, and nothing
//! outlives the deadline.

use crate::support::World;
use crate::support::mortal::eventually;
use crate::support::puppet::{Puppet, Wire};
use ingress::Limits;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(20);
const GET: &str = "GET / HTTP/1.1\r\nhost: app.test\r\n\r\n";

#[tokio::test]
async fn request_in_flight_is_answered_and_its_connection_closed() {
    let mut world = World::plain().await;
    let puppet = Puppet::new().await;
    world.endpoints(&[puppet.address], DEADLINE);
    let mut idle = Wire::connect(world.address).await;
    idle.write("GET / HTTP/1.1\r\nhost: site.test\r\n\r\n")
        .await;
    idle.until("0123456789").await;
    let mut client = Wire::connect(world.address).await;
    client.write(GET).await;
    let (mut replica, _) = puppet.request().await;
    let draining = {
        let ingress = Arc::clone(&world.ingress);
        tokio::spawn(async move { ingress.drain(DEADLINE).await })
    };
    assert_eq!(idle.rest().await, "");
    let refused = || std::net::TcpStream::connect(world.address).is_err();
    eventually("new connections are refused", refused).await;
    replica
        .write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")
        .await;
    let answer = client.rest().await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("done"),
        "{answer}"
    );
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    draining.await.expect("ends");
    assert_eq!(world.row(|row| row.bytes == 4).await.status, 200);
}

#[tokio::test]
async fn what_outlives_the_deadline_is_cut_and_logged() {
    let mut world = World::plain().await;
    let puppet = Puppet::new().await;
    world.endpoints(&[puppet.address], DEADLINE);
    let mut client = Wire::connect(world.address).await;
    client.write(GET).await;
    let (mut replica, _) = puppet.request().await;
    world.ingress.drain(Duration::from_millis(50)).await;
    assert_eq!(client.rest().await, "");
    assert_eq!(replica.rest().await, "");
    world.row(|row| row.status == 499).await;
}

#[tokio::test]
async fn client_that_says_nothing_does_not_hold_up_a_drain() {
    let limits = Limits {
        head_time: Duration::from_millis(500),
        ..Limits::default()
    };
    let world = World::start(limits, false).await;
    let _silent = TcpStream::connect(world.address).await.expect("connects");
    let mut half = Wire::connect(world.address).await;
    half.write("GET / HT").await;
    let mut whole = Wire::connect(world.address).await;
    whole
        .write("GET / HTTP/1.1\r\nhost: site.test\r\n\r\n")
        .await;
    whole.until("0123456789").await;
    let drained = tokio::time::timeout(DEADLINE, world.ingress.drain(DEADLINE * 10));
    drained.await.expect("in time");
    world.row(|row| row.status == 408).await;
}
