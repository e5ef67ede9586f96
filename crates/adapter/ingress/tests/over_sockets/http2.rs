//! HTTP/2 with prior knowledge: many streams, and clients that mean harm.

use crate::support::h2::{Client, client, get};
use crate::support::mortal::{Mortal, Reply, eventually};
use crate::support::puppet::Puppet;
use crate::support::{World, large, ok, replica};
use h2::client::Builder;
use ingress::Limits;
use std::time::Duration;
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(20);

async fn connect(world: &World, builder: &Builder) -> Client {
    let stream = TcpStream::connect(world.address).await.expect("connects");
    client(stream, builder).await
}

#[tokio::test]
async fn sites_and_services_are_served_on_many_streams_at_once() {
    let mut world = World::plain().await;
    let echo = replica(|head| Some(ok(head))).await;
    world.endpoints(&[echo], DEADLINE);
    let mut client = connect(&world, &Builder::new()).await;
    // The first answer comes after the limits: from then on streams queue.
    client.send(get("http://site.test/"), b"").await;
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..200 {
        let mut client = Client {
            sender: client.sender.clone(),
            connection: tokio::spawn(async { Ok(()) }),
        };
        requests.spawn(async move {
            if number % 2 == 0 {
                let answer = client.send(get("http://site.test/"), b"").await;
                assert_eq!(answer.into_body(), b"0123456789");
            } else {
                let uri = format!("http://app.test/{number}");
                let answer = client.send(get(&uri), b"").await;
                let text = String::from_utf8(answer.into_body()).expect("text");
                assert!(text.starts_with(&format!("GET /{number} HTTP/1.1\r\n")));
            }
        });
    }
    while let Some(ended) = requests.join_next().await {
        ended.expect("answered");
    }
    let rows = || world.rows.rows.lock().expect("lock").len();
    eventually("each has its row", || rows() == 201).await;
    assert_eq!(world.row(|_| true).await.protocol, "HTTP/2.0");
}

#[tokio::test]
async fn large_documents_and_bodies_cross_the_flow_control() {
    let mut world = World::plain().await;
    let echo = Mortal::start(|request| {
        let body = request.split_once("\r\n\r\n").expect("head").1;
        Reply::Text(ok(&body.len().to_string()))
    });
    let echo = echo.await;
    world.endpoints(&[echo.address], DEADLINE);
    let mut client = connect(&world, &Builder::new()).await;
    let uri = "http://site.test/assets/large.bin";
    let answer = client.send(get(uri), b"").await;
    assert!(answer.into_body() == large());
    let body = vec![b'x'; 50_000];
    let request = http::Request::put("http://app.test/")
        .header("content-length", body.len())
        .body(())
        .expect("request");
    let answer = client.send(request, &body).await;
    assert_eq!(answer.into_body(), b"50000");
}

#[tokio::test]
async fn cookies_in_pieces_reach_the_replica_as_one() {
    let mut world = World::plain().await;
    let echo = replica(|head| Some(ok(head))).await;
    world.endpoints(&[echo], DEADLINE);
    let mut client = connect(&world, &Builder::new()).await;
    let request = http::Request::get("http://app.test/")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("te", "trailers")
        .body(())
        .expect("request");
    let answer = client.send(request, b"").await;
    let text = String::from_utf8(answer.into_body()).expect("text");
    assert!(text.contains("cookie: a=1; b=2\r\n"), "{text}");
    assert!(!text.contains("te: ") && text.contains("host: app.test\r\n"));
}

#[tokio::test]
async fn host_that_contradicts_the_authority_is_refused() {
    let world = World::plain().await;
    let mut client = connect(&world, &Builder::new()).await;
    let request = http::Request::get("http://site.test/")
        .header("host", "app.test")
        .body(())
        .expect("request");
    assert_eq!(client.send(request, b"").await.status(), 400);
    assert_eq!(
        client.send(get("http://site.test/"), b"").await.status(),
        200
    );
}

#[tokio::test]
async fn streams_beyond_the_limit_wait() {
    let limits = Limits {
        h2_streams_max: 2,
        ..Limits::default()
    };
    let mut world = World::start(limits, false).await;
    let silent = Mortal::start(|_| Reply::Never).await;
    world.endpoints(&[silent.address], DEADLINE);
    let client = connect(&world, &Builder::new()).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        // The limit is known once the connection's first frames came.
        let mut sender = client.sender.clone().ready().await.expect("ready");
        held.push(sender.send_request(get("http://app.test/"), true));
        let known = held.len().min(2);
        silent.has_heard(known).await;
    }
    assert_eq!(world.service().in_flight, 2);
    drop(held.remove(0));
    silent.has_heard(3).await;
    drop(held);
    eventually("they are given up", || world.service().in_flight == 0).await;
}

#[tokio::test]
async fn client_that_resets_each_stream_is_cut_off() {
    let limits = Limits {
        h2_aborts_max: 30,
        ..Limits::default()
    };
    let mut world = World::start(limits, false).await;
    let silent = Mortal::start(|_| Reply::Never).await;
    world.endpoints(&[silent.address], DEADLINE);
    let mut client = connect(&world, &Builder::new()).await;
    let mut sent = 0;
    while sent < 2_000 {
        let Ok(ready) = client.sender.clone().ready().await else {
            break;
        };
        client.sender = ready;
        let Ok((response, _)) = client.sender.send_request(get("http://app.test/"), true) else {
            break;
        };
        sent += 1;
        // The request is taken up before it is given up.
        eventually("it is under way", || {
            world.service().requests >= sent || client.connection.is_finished()
        })
        .await;
        drop(response);
    }
    assert!(sent < 200, "{sent} requests were taken");
    eventually("nothing stays", || world.ingress.readings().in_flight == 0).await;
    assert_eq!(
        world.row(|row| row.status == 499).await.protocol,
        "HTTP/2.0"
    );
}

#[tokio::test]
async fn stream_without_window_is_reset_and_the_others_go_on() {
    let limits = Limits {
        write_stall: Duration::from_millis(100),
        ..Limits::default()
    };
    let world = World::start(limits, false).await;
    let mut builder = Builder::new();
    builder.initial_window_size(0);
    let mut client = connect(&world, &builder).await;
    client.sender = client.sender.ready().await.expect("ready");
    let sent = client.sender.send_request(get("http://site.test/"), true);
    let answer = sent.expect("sent").0.await.expect("head");
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    let error = body.data().await.expect("ends").expect_err("is reset");
    assert!(error.is_reset(), "{error}");
    assert_eq!(world.row(|row| row.status == 499).await.bytes, 10);
    let head = http::Request::head("http://site.test/").body(());
    let answer = client.send(head.expect("request"), b"").await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn idle_connection_is_told_to_go() {
    let limits = Limits {
        keep_alive_idle: Duration::from_millis(50),
        ..Limits::default()
    };
    let world = World::start(limits, false).await;
    let mut client = connect(&world, &Builder::new()).await;
    assert_eq!(
        client.send(get("http://site.test/"), b"").await.status(),
        200
    );
    let ended = client.connection.await.expect("joins");
    assert!(ended.is_ok(), "{ended:?}");
}

#[tokio::test]
async fn drain_finishes_streams_in_flight_and_takes_no_new_ones() {
    let mut world = World::plain().await;
    let mut slow = Mortal::dead(|_| Reply::Text(ok("done"))).await;
    world.endpoints(&[slow.address], DEADLINE);
    let mut client = connect(&world, &Builder::new()).await;
    client.sender = client.sender.ready().await.expect("ready");
    let sent = client.sender.send_request(get("http://app.test/"), true);
    let response = sent.expect("sent").0;
    eventually("it is held", || world.service().held == 1).await;
    let draining = {
        let ingress = std::sync::Arc::clone(&world.ingress);
        tokio::spawn(async move { ingress.drain(DEADLINE).await })
    };
    let sender = client.sender.clone();
    tokio::spawn(async move {
        let mut sender = sender;
        while let Ok(ready) = sender.ready().await {
            sender = ready;
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("new streams are refused");
    slow.revive().await;
    assert_eq!(response.await.expect("answer").status(), 200);
    draining.await.expect("drained");
}

#[tokio::test]
async fn bombs_in_heads_get_431() {
    let world = World::plain().await;
    let mut client = connect(&world, &Builder::new()).await;
    let many = (0..200).fold(
        http::Request::get("http://site.test/"),
        |request, number| request.header(format!("x-{number}"), "y"),
    );
    let long = http::Request::get("http://site.test/").header("x", "a".repeat(40_000));
    for request in [many, long] {
        let answer = client.send(request.body(()).expect("request"), b"").await;
        assert_eq!(answer.status(), 431);
        world.row(|row| row.status == 431).await;
        world.rows.rows.lock().expect("lock").clear();
    }
    let answer = client.send(get("http://site.test/"), b"").await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn client_that_reads_nothing_is_dropped() {
    let limits = Limits {
        write_stall: Duration::from_millis(200),
        keep_alive_idle: Duration::from_millis(200),
        ..Limits::default()
    };
    let mut world = World::start(limits, false).await;
    let puppet = Puppet::new().await;
    world.endpoints(&[puppet.address], DEADLINE);
    let stream = TcpStream::connect(world.address).await.expect("connects");
    let mut builder = Builder::new();
    // Only the sockets hold the answer up.
    builder
        .initial_window_size(1 << 30)
        .initial_connection_window_size(1 << 30);
    let (mut sender, mut connection) = builder
        .handshake::<_, bytes::Bytes>(stream)
        .await
        .expect("handshake");
    let sent = sender.send_request(get("http://app.test/"), true);
    let _response = sent.expect("sent");
    let asked = async {
        tokio::select! {
            ended = &mut connection => panic!("{ended:?}"),
            asked = puppet.request() => asked.0,
        }
    };
    // From here on nobody drives the client's connection.
    let mut replica = asked.await;
    let bytes = 64 << 20;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
    replica.write(&head).await;
    assert!(replica.flood(bytes).await, "all was taken");
    let row = world.row(|row| row.status == 499).await;
    assert!(row.bytes < 32 << 20, "{} bytes", row.bytes);
}
