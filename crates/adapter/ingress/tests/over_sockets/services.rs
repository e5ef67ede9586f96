//! Services: proxying, retries, holding, upgrades.

use crate::support::{World, nobody, ok, replica};
use ingress::Limits;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const DEADLINE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn replica_hears_where_the_request_came_from() {
    let mut world = World::plain().await;
    let echo = replica(|head| Some(ok(head))).await;
    world.endpoints(&[echo], DEADLINE);
    let fields = "x-forwarded-for: 6.6.6.6\r\nforwarded: for=6.6.6.6\r\nkeep-alive: 5\r\n";
    let answer = world.get("app.test", "/a?b=c", fields).await;
    assert!(answer.contains("GET /a?b=c HTTP/1.1\r\n"), "{answer}");
    assert!(
        answer.contains("x-forwarded-for: 127.0.0.1\r\n"),
        "{answer}"
    );
    assert!(answer.contains("forwarded: for=127.0.0.1;host=\"app.test\";proto=http\r\n"));
    assert!(answer.contains("host: app.test\r\n") && !answer.contains("6.6.6.6"));
    assert!(!answer.contains("keep-alive: 5"), "{answer}");
    let row = world.row(|row| row.status == 200).await;
    assert_eq!(row.replica.map(|id| id.index), Some(0));
}

#[tokio::test]
async fn refused_connection_goes_to_another_replica() {
    let mut world = World::plain().await;
    let good = replica(|_| Some(ok("good"))).await;
    world.endpoints(&[nobody().await, good], DEADLINE);
    for _ in 0..10 {
        let answer = world.get("app.test", "/", "").await;
        assert!(answer.ends_with("good"), "{answer}");
    }
}

#[tokio::test]
async fn broken_get_is_repeated_and_broken_post_is_not() {
    let mut world = World::plain().await;
    let count = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&count);
    let flaky = move |_: &str| (seen.fetch_add(1, Relaxed) > 0).then(|| ok("second"));
    world.endpoints(&[replica(flaky).await], DEADLINE);
    assert!(world.get("app.test", "/", "").await.ends_with("second"));
    assert_eq!(world.rows.failed.lock().expect("lock").len(), 1);
    world.endpoints(&[replica(|_| None).await], DEADLINE);
    let post =
        "POST / HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi";
    assert!(world.raw(post).await.starts_with("HTTP/1.1 502"));
}

#[tokio::test]
async fn request_is_held_until_a_replica_is_there() {
    let mut world = World::plain().await;
    let good = replica(|_| Some(ok("late"))).await;
    let address = world.address;
    let client = tokio::spawn(async move {
        let mut stream = tokio::net::TcpStream::connect(address)
            .await
            .expect("connects");
        let head = "GET / HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads");
        answer
    });
    while world.ingress.readings().services[&crate::support::name("app")].held == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    world.endpoints(&[good], DEADLINE);
    assert!(client.await.expect("joins").ends_with("late"));
}

#[tokio::test]
async fn nobody_within_the_deadline_is_504_and_too_many_held_503() {
    let mut world = World::plain().await;
    world.endpoints(&[nobody().await], Duration::from_millis(100));
    assert!(
        world
            .get("app.test", "/", "")
            .await
            .starts_with("HTTP/1.1 504")
    );
    let limits = Limits {
        held_max: 0,
        ..Limits::default()
    };
    let world = World::start(limits, false).await;
    let answer = world.get("app.test", "/", "").await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"),
        "{answer}"
    );
}

#[tokio::test]
async fn upgrade_becomes_a_tunnel() {
    let mut world = World::plain().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bound");
    world.endpoints(&[listener.local_addr().expect("address")], DEADLINE);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accepts");
        let mut buffer = [0; 2048];
        let read = stream.read(&mut buffer).await.expect("reads");
        assert!(String::from_utf8_lossy(&buffer[..read]).contains("upgrade: websocket"));
        let head =
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("writes");
        let read = stream.read(&mut buffer).await.expect("reads");
        stream.write_all(&buffer[..read]).await.expect("echoes");
    });
    let mut stream = tokio::net::TcpStream::connect(world.address)
        .await
        .expect("connects");
    let head =
        "GET / HTTP/1.1\r\nhost: app.test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("writes");
    let mut answer = [0; 2048];
    let read = stream.read(&mut answer).await.expect("reads");
    assert!(answer[..read].starts_with(b"HTTP/1.1 101"));
    stream.write_all(b"ping").await.expect("writes");
    let read = stream.read(&mut answer).await.expect("reads");
    assert_eq!(&answer[..read], b"ping");
    drop(stream);
    assert_eq!(world.row(|row| row.status == 101).await.bytes, 4);
}
