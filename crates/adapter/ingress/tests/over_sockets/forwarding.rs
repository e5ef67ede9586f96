//! Requests for replicas on other nodes, from edge to edge.

use crate::support::lines::nodes;
use crate::support::mortal::eventually;
use crate::support::puppet::{Puppet, Wire};
use crate::support::{World, nobody, ok, replica};
use ingress::Limits;
use kernel::NodeId;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const DEADLINE: Duration = Duration::from_secs(20);
const UPLOAD_BYTES: usize = 100 << 20;
/// More than the buffers of all sockets on the way.
const FLOOD_BYTES: usize = 64 << 20;
const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    transfer-encoding: chunked\r\n\r\n";

/// Two nodes, and a replica on the second.
async fn two(limits: Limits, replica: SocketAddr) -> [World; 2] {
    let mut worlds = nodes::<2>(limits).await;
    for world in &mut worlds {
        world.replicas(&[(2, replica)], DEADLINE);
    }
    worlds
}

#[tokio::test]
async fn replica_of_another_node_answers_and_hears_of_the_client() {
    let echo = replica(|head| Some(ok(head))).await;
    let [one, two] = two(Limits::default(), echo).await;
    let answer = one
        .get("app.test", "/a?b=c", "x-forwarded-for: 6.6.6.6\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("GET /a?b=c HTTP/1.1\r\n"), "{answer}");
    assert!(
        answer.contains("x-forwarded-for: 127.0.0.1\r\n"),
        "{answer}"
    );
    assert!(answer.contains("forwarded: for=127.0.0.1;host=\"app.test\";proto=http\r\n"));
    assert!(
        !answer.contains("6.6.6.6") && !answer.contains("homeostat-"),
        "{answer}"
    );
    let asked = one.row(|row| row.status == 200).await;
    let told = two.row(|row| row.status == 200).await;
    assert_eq!((asked.node, asked.forwarded_by), (Some(NodeId(2)), None));
    assert_eq!((told.node, told.forwarded_by), (None, Some(NodeId(1))));
    assert!(asked.request.is_some() && asked.request == told.request);
    assert_eq!((told.client, told.host), (asked.client, asked.host));
    assert_eq!(told.replica, asked.replica);
}

#[tokio::test]
async fn forwarded_request_counts_as_a_clients_once() {
    let [one, two] = two(Limits::default(), replica(|_| Some(ok("hi"))).await).await;
    assert!(one.get("app.test", "/", "").await.ends_with("hi"));
    two.row(|row| row.status == 200).await;
    let (asked, told) = (one.ingress.readings(), two.ingress.readings());
    assert_eq!((asked.requests, asked.forwarded), (1, 0));
    assert_eq!((told.requests, told.forwarded), (0, 1));
    assert_eq!((one.service().requests, two.service().requests), (1, 0));
    assert_eq!(two.service().forwarded, 1);
    // Errors as well.
    let [one, two] = self::two(Limits::default(), replica(|_| None).await).await;
    assert!(
        one.get("app.test", "/", "")
            .await
            .starts_with("HTTP/1.1 502 ")
    );
    two.row(|row| row.status == 502).await;
    assert_eq!(one.service().errors, 1);
    assert_eq!(
        (two.service().errors, two.ingress.readings().errors),
        (0, 0)
    );
}

#[tokio::test]
async fn replica_here_is_preferred_and_one_elsewhere_takes_its_place() {
    let [mut one, mut two] = nodes::<2>(Limits::default()).await;
    let [here, there] = [
        replica(|_| Some(ok("here"))).await,
        replica(|_| Some(ok("there"))).await,
    ];
    two.replicas(&[(1, here), (2, there)], DEADLINE);
    one.replicas(&[(1, here), (2, there)], DEADLINE);
    for _ in 0..10 {
        assert!(one.get("app.test", "/", "").await.ends_with("here"));
    }
    assert_eq!(one.lines.opened(2), 0);
    one.replicas(&[(1, nobody().await), (2, there)], DEADLINE);
    for _ in 0..3 {
        assert!(one.get("app.test", "/", "").await.ends_with("there"));
    }
    let row = one.row(|row| row.node == Some(NodeId(2))).await;
    assert_eq!(row.replica.map(|id| id.index), Some(1));
}

#[tokio::test]
async fn nearer_node_is_chosen() {
    let [mut one, mut two, mut three] = nodes::<3>(Limits::default()).await;
    let [near, far] = [
        replica(|_| Some(ok("near"))).await,
        replica(|_| Some(ok("far"))).await,
    ];
    for world in [&mut one, &mut two, &mut three] {
        world.replicas(&[(2, far), (3, near)], DEADLINE);
    }
    one.lines.set_round_trip(2, Duration::from_millis(40));
    one.lines.set_round_trip(3, Duration::from_millis(2));
    for _ in 0..5 {
        assert!(one.get("app.test", "/", "").await.ends_with("near"));
    }
    assert_eq!(one.lines.opened(2), 0);
}

#[tokio::test]
async fn events_pass_at_once_over_two_edges() {
    let puppet = Puppet::new().await;
    let [one, two] = two(Limits::default(), puppet.address).await;
    let mut client = Wire::connect(one.address).await;
    client
        .write("GET / HTTP/1.1\r\nhost: app.test\r\n\r\n")
        .await;
    let (mut replica, _) = puppet.request().await;
    replica.write(EVENTS).await;
    assert!(client.until("\r\n\r\n").await.contains("text/event-stream"));
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        replica.write(&format!("9\r\n{event}\r\n")).await;
        client.until(event).await;
        client.until("\r\n").await;
    }
    replica.write("0\r\n\r\n").await;
    client.until("0\r\n\r\n").await;
    assert_eq!(one.row(|row| row.status == 200).await.bytes, 27);
    assert_eq!(two.row(|row| row.status == 200).await.bytes, 27);
}

#[tokio::test]
async fn pieces_of_a_request_pass_at_once_over_two_edges() {
    let puppet = Puppet::new().await;
    let [one, _two] = two(Limits::default(), puppet.address).await;
    let mut client = Wire::connect(one.address).await;
    client
        .write("POST / HTTP/1.1\r\nhost: app.test\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    client.write("3\r\none\r\n").await;
    let (mut replica, _) = puppet.request().await;
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

/// A replica that reads a body whole and says how long it was.
async fn counter() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accepts");
        let mut wire = Wire { stream };
        wire.until("\r\n\r\n").await;
        let mut count = 0;
        let mut buffer = vec![0; 64 * 1024];
        while count < UPLOAD_BYTES {
            count += wire.stream.read(&mut buffer).await.expect("reads");
        }
        wire.write(&ok(&count.to_string())).await;
    });
    address
}

#[tokio::test]
async fn upload_of_100_mb_passes_whole() {
    let [one, _two] = two(Limits::default(), counter().await).await;
    let mut client = Wire::connect(one.address).await;
    client
        .write(&format!(
            "POST / HTTP/1.1\r\nhost: app.test\r\ncontent-length: {UPLOAD_BYTES}\r\n\r\n"
        ))
        .await;
    let block = vec![b'x'; 1 << 20];
    for _ in 0..UPLOAD_BYTES / block.len() {
        client.stream.write_all(&block).await.expect("writes");
    }
    let answer = client.until(&UPLOAD_BYTES.to_string()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn upload_is_no_faster_than_the_replica_reads() {
    let puppet = Puppet::new().await;
    let limits = Limits {
        request_body_idle: Duration::from_millis(500),
        write_stall: Duration::from_millis(500),
        ..Limits::default()
    };
    let [one, _two] = two(limits, puppet.address).await;
    let mut client = Wire::connect(one.address).await;
    client
        .write(&format!(
            "POST / HTTP/1.1\r\nhost: app.test\r\ncontent-length: {FLOOD_BYTES}\r\n\r\n"
        ))
        .await;
    let (replica, _) = puppet.request().await;
    let block = vec![b'x'; 64 * 1024];
    let mut written = 0;
    // All that two edges and three sockets hold, and not a whole body.
    while written < FLOOD_BYTES {
        let write = client.stream.write_all(&block);
        match tokio::time::timeout(Duration::from_secs(2), write).await {
            Ok(Ok(())) => written += block.len(),
            _ => break,
        }
    }
    assert!(written < FLOOD_BYTES / 2, "{written} bytes were taken");
    drop(replica);
}

#[tokio::test]
async fn upgraded_connection_passes_both_ways_over_two_edges() {
    let puppet = Puppet::new().await;
    let [one, two] = two(Limits::default(), puppet.address).await;
    let mut client = Wire::connect(one.address).await;
    client
        .write(
            "GET /chat HTTP/1.1\r\nhost: app.test\r\nconnection: Upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-key: x\r\n\r\n",
        )
        .await;
    let (mut replica, head) = puppet.request().await;
    assert!(head.contains("upgrade: websocket\r\n") && head.contains("sec-websocket-key: x"));
    replica
        .write(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-accept: y\r\n\r\n",
        )
        .await;
    let answer = client.until("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains("sec-websocket-accept: y"));
    assert!(!answer.contains("homeostat-"), "{answer}");
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
    let row = one.row(|row| row.status == 101).await;
    assert_eq!((row.bytes, row.node), (18, Some(NodeId(2))));
    two.row(|row| row.status == 101 && row.bytes == 18).await;
    eventually("nothing is in flight", || {
        one.service().in_flight + two.service().in_flight == 0
    })
    .await;
}

#[tokio::test]
async fn client_that_leaves_ends_the_work_on_the_other_node() {
    let puppet = Puppet::new().await;
    let [one, two] = two(Limits::default(), puppet.address).await;
    for head in ["", EVENTS] {
        let mut client = Wire::connect(one.address).await;
        client
            .write("GET / HTTP/1.1\r\nhost: app.test\r\n\r\n")
            .await;
        let (mut replica, _) = puppet.request().await;
        replica.write(head).await;
        if !head.is_empty() {
            client.until("\r\n\r\n").await;
        }
        drop(client);
        replica.rest().await;
    }
    eventually("nothing is in flight", || {
        one.service().in_flight + two.service().in_flight == 0
    })
    .await;
    assert_eq!(one.evidence(), [""; 0]);
}

#[tokio::test]
async fn request_that_names_no_host_is_forwarded_too() {
    let echo = replica(|head| Some(ok(head))).await;
    let [mut one, _two] = two(Limits::default(), echo).await;
    one.snapshot.version += 1;
    one.snapshot.routes[1].host = "*".to_owned();
    one.ingress.set_snapshot(&one.snapshot).expect("taken");
    let answer = one.raw("GET /old HTTP/1.0\r\n\r\n").await;
    assert!(answer.contains("GET /old HTTP/1.1\r\n"), "{answer}");
}

#[tokio::test]
async fn second_hop_is_the_last() {
    let [mut one, mut two, mut three] = nodes::<3>(Limits::default()).await;
    let good = replica(|_| Some(ok("third"))).await;
    one.replicas(&[(2, good)], DEADLINE);
    // Each node knows more than the one before.
    two.replicas(&[(3, good)], DEADLINE);
    three.replicas(&[(3, good)], DEADLINE);
    assert!(one.get("app.test", "/", "").await.ends_with("third"));
    let row = one.row(|row| row.status == 200).await;
    assert_eq!(row.node, Some(NodeId(3)));
    let last = three.row(|row| row.status == 200).await;
    assert_eq!(last.forwarded_by, Some(NodeId(2)));
    assert_eq!(last.request, row.request);
}

#[tokio::test]
async fn request_never_returns_to_an_edge_that_has_seen_it() {
    let [mut one, mut two] = nodes::<2>(Limits::default()).await;
    let anywhere = nobody().await;
    let short = Duration::from_millis(700);
    one.replicas(&[(2, anywhere)], short);
    two.replicas(&[(1, anywhere)], short);
    let answer = one.get("app.test", "/", "").await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert_eq!(two.lines.opened(1), 0);
    two.row(|row| row.status == 421).await;
    assert_eq!(one.evidence(), [""; 0]);
}
