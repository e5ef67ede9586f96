//! Sites over HTTP/1.1, and what clients must not do.

use crate::support::{World, large};
use ingress::Limits;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn documents_come_with_validators_and_caching_fields() {
    let world = World::plain().await;
    let answer = world.get("SITE.test:80", "/", "").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for field in [
        "cache-control: public, max-age=60\r\n",
        "vary: accept-encoding\r\n",
        "last-modified: Sun, 09 Sep 2001",
        "content-length: 10\r\n",
        "date: ",
    ] {
        assert!(answer.contains(field), "{field} in {answer}");
    }
    assert!(answer.ends_with("\r\n\r\n0123456789"));
    let etag = format!("if-none-match: \"{}\"\r\n", "01".repeat(16));
    let answer = world.get("site.test", "/", &etag).await;
    assert!(answer.starts_with("HTTP/1.1 304"), "{answer}");
    let answer = world
        .get("site.test", "/", "accept-encoding: br, gzip\r\n")
        .await;
    assert!(
        answer.contains("content-encoding: gzip\r\n") && answer.ends_with("gzip!"),
        "{answer}"
    );
    let row = world.row(|row| row.status == 304).await;
    assert_eq!(
        (row.client.as_str(), row.host.as_str(), row.bytes),
        ("127.0.0.0", "site.test", 0)
    );
}

#[tokio::test]
async fn directories_redirect_and_missing_paths_get_the_page() {
    let world = World::plain().await;
    let answer = world.get("site.test", "/dir?q=1", "").await;
    assert!(
        answer.starts_with("HTTP/1.1 301") && answer.contains("location: /dir/?q=1\r\n"),
        "{answer}"
    );
    assert!(
        world
            .get("site.test", "/dir/", "")
            .await
            .ends_with("0123456789")
    );
    let answer = world.get("site.test", "/gone", "").await;
    assert!(
        answer.starts_with("HTTP/1.1 404") && answer.ends_with("lost\n"),
        "{answer}"
    );
    assert!(
        world
            .get("site.test", "/%2e%2e/etc/passwd", "")
            .await
            .starts_with("HTTP/1.1 400")
    );
    assert!(
        world
            .get("else.test", "/", "")
            .await
            .starts_with("HTTP/1.1 404")
    );
    assert!(
        world
            .get("else.test", "/.well-known/homeostat/health", "")
            .await
            .ends_with("ok\n")
    );
    let answer = world
        .raw("POST / HTTP/1.1\r\nhost: site.test\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 405") && answer.contains("allow: GET, HEAD\r\n"),
        "{answer}"
    );
    let answer = world
        .raw("HEAD / HTTP/1.1\r\nhost: site.test\r\nconnection: close\r\n\r\n")
        .await;
    assert!(
        answer.contains("content-length: 10\r\n") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn ranges_single_multiple_and_outside() {
    let world = World::plain().await;
    let answer = world.get("site.test", "/", "range: bytes=2-4\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 206") && answer.ends_with("\r\n\r\n234"),
        "{answer}"
    );
    assert!(
        answer.contains("content-range: bytes 2-4/10\r\n"),
        "{answer}"
    );
    let answer = world.get("site.test", "/", "range: bytes=0-0,-2\r\n").await;
    assert!(
        answer.contains("content-type: multipart/byteranges; boundary="),
        "{answer}"
    );
    assert!(
        answer.contains("content-range: bytes 0-0/10\r\n\r\n0\r\n--"),
        "{answer}"
    );
    assert!(
        answer.contains("content-range: bytes 8-9/10\r\n\r\n89\r\n--"),
        "{answer}"
    );
    let answer = world.get("site.test", "/", "range: bytes=10-\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 416") && answer.contains("content-range: bytes */10\r\n"),
        "{answer}"
    );
    let answer = world
        .get(
            "site.test",
            "/",
            "range: bytes=2-4\r\nif-range: \"old\"\r\n",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn large_file_arrives_whole() {
    let world = World::plain().await;
    let mut stream = tokio::net::TcpStream::connect(world.address)
        .await
        .expect("connects");
    stream
        .write_all(
            b"GET /assets/large.bin HTTP/1.1\r\nhost: site.test\r\nconnection: close\r\n\r\n",
        )
        .await
        .expect("writes");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("reads");
    assert!(answer.ends_with(&large()));
    assert!(String::from_utf8_lossy(&answer[..600]).contains("immutable"));
    let row = world.row(|row| row.status == 200).await;
    assert_eq!(row.bytes, large().len() as u64);
}

#[tokio::test]
async fn slow_head_and_idle_connection_are_closed() {
    let limits = Limits {
        head_time: Duration::from_millis(100),
        keep_alive_idle: Duration::from_millis(100),
        ..Limits::default()
    };
    let world = World::start(limits, false).await;
    assert_eq!(world.raw("").await, "");
    assert_eq!(world.raw("GET /slow HTTP/1.1\r\nhost:").await, "");
    assert_eq!(world.row(|row| row.status == 408).await.path, "/slow");
    let answer = world.raw("GET / HTTP/1.1\r\nhost: site.test\r\n\r\n").await;
    assert!(answer.ends_with("0123456789"), "{answer}");
}

#[tokio::test]
async fn a_request_that_is_on_its_way_when_draining_begins_is_answered() {
    let limits = Limits {
        drain_idle: Duration::from_secs(30),
        ..Limits::default()
    };
    let world = World::start(limits, false).await;
    let text = b"GET / HTTP/1.1\r\nhost: site.test\r\n\r\n";
    let mut stream = tokio::net::TcpStream::connect(world.address)
        .await
        .expect("connects");
    stream.write_all(text).await.expect("writes");
    world.row(|row| row.status == 200).await;
    let draining = {
        let ingress = std::sync::Arc::clone(&world.ingress);
        tokio::spawn(async move { ingress.drain(Duration::from_secs(30)).await })
    };
    while tokio::net::TcpStream::connect(world.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    stream.write_all(text).await.expect("writes");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.expect("closes");
    assert_eq!(answers.matches("0123456789").count(), 2, "{answers}");
    assert_eq!(answers.matches("connection: close").count(), 1);
    drop(stream);
    draining.await.expect("drained");
}

#[tokio::test]
async fn drain_lets_idle_connections_go() {
    let world = World::plain().await;
    let mut stream = tokio::net::TcpStream::connect(world.address)
        .await
        .expect("connects");
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: site.test\r\n\r\n")
        .await
        .expect("writes");
    world.row(|row| row.status == 200).await;
    let begun = std::time::Instant::now();
    world.ingress.drain(Duration::from_secs(5)).await;
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert!(tokio::net::TcpStream::connect(world.address).await.is_err());
}
