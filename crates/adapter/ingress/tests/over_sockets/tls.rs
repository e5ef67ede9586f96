//! TLS: which certificate, which protocol, and clients that do not speak it.

use crate::support::World;
use crate::support::h2::{client, get};
use crate::support::tls::{certificate, connect};
use h2::client::Builder;
use ingress::Limits;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::edge::CertificateView;

async fn world(certificates: &[&CertificateView], limits: Limits) -> World {
    let mut world = World::start(limits, true).await;
    certify(&mut world, certificates);
    world
}

fn certify(world: &mut World, certificates: &[&CertificateView]) {
    world.snapshot.version += 1;
    world.snapshot.certificates = certificates.iter().map(|view| (*view).clone()).collect();
    world.ingress.set_snapshot(&world.snapshot).expect("taken");
}

async fn get_once<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> String {
    let head = "GET / HTTP/1.1\r\nhost: site.test\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("writes");
    let mut answer = String::new();
    let mut buffer = [0; 1024];
    while !answer.ends_with("0123456789") {
        let read = stream.read(&mut buffer).await.expect("reads");
        assert!(read > 0, "closed after {answer:?}");
        answer.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    answer
}

#[tokio::test]
async fn server_name_chooses_the_certificate() {
    let (site, wild) = (certificate(&["site.test"]), certificate(&["*.wild.test"]));
    let world = world(&[&site, &wild], Limits::default()).await;
    for (name, expected) in [
        ("site.test", Some(&site)),
        ("SITE.test", Some(&site)),
        ("a.wild.test", Some(&wild)),
        ("a.b.wild.test", None),
        ("wild.test", None),
        ("else.test", None),
        // An address makes no server name: the first certificate is sent.
        ("127.0.0.1", None),
    ] {
        for view in [&site, &wild] {
            let works = connect(world.address, name, view, &["http/1.1"])
                .await
                .is_ok();
            assert_eq!(works, expected == Some(view), "{name}");
        }
    }
}

#[tokio::test]
async fn name_that_none_covers_gets_the_first_certificate() {
    let address = certificate(&["127.0.0.1"]);
    let site = certificate(&["site.test"]);
    let world = world(&[&address, &site], Limits::default()).await;
    let stream = connect(world.address, "127.0.0.1", &address, &["http/1.1"]).await;
    assert!(
        get_once(&mut stream.expect("trusted"))
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test]
async fn protocol_is_what_both_speak() {
    let site = certificate(&["site.test"]);
    let world = world(&[&site], Limits::default()).await;
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some(&b"h2"[..])),
        (&["http/1.1", "h2"], Some(b"h2")),
        (&["http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let stream = connect(world.address, "site.test", &site, offered).await;
        let mut stream = stream.expect("handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
        if chosen == Some(b"h2") {
            let mut client = client(stream, &Builder::new()).await;
            let answer = client.send(get("https://site.test/"), b"").await;
            assert_eq!(answer.into_body(), b"0123456789");
        } else {
            get_once(&mut stream).await;
        }
    }
    assert!(
        connect(world.address, "site.test", &site, &["spdy/3"])
            .await
            .is_err()
    );
    let row = world.row(|row| row.protocol == "HTTP/2.0").await;
    assert!(row.tls && row.host == "site.test");
}

#[tokio::test]
async fn new_certificate_is_used_at_once_and_cuts_no_connection() {
    let (old, new) = (certificate(&["site.test"]), certificate(&["site.test"]));
    let mut world = world(&[&old], Limits::default()).await;
    let stream = connect(world.address, "site.test", &old, &["http/1.1"]).await;
    let mut before = stream.expect("old one");
    get_once(&mut before).await;
    certify(&mut world, &[&new]);
    get_once(&mut before).await;
    assert!(
        connect(world.address, "site.test", &old, &["http/1.1"])
            .await
            .is_err()
    );
    let stream = connect(world.address, "site.test", &new, &["http/1.1"]).await;
    get_once(&mut stream.expect("new one")).await;
    get_once(&mut before).await;
}

#[tokio::test]
async fn unusable_certificate_leaves_the_old_one_in_force() {
    let site = certificate(&["site.test"]);
    let mut world = world(&[&site], Limits::default()).await;
    let mut broken = certificate(&["site.test"]);
    broken.key_pem = certificate(&["site.test"]).key_pem;
    world.snapshot.version += 1;
    world.snapshot.certificates = vec![broken];
    let error = world
        .ingress
        .set_snapshot(&world.snapshot)
        .expect_err("refused");
    assert!(error.to_string().contains("site.test"), "{error}");
    assert!(
        connect(world.address, "site.test", &site, &["h2"])
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn plaintext_on_the_tls_port_is_closed() {
    let site = certificate(&["site.test"]);
    let world = world(&[&site], Limits::default()).await;
    let answer = world.raw("GET / HTTP/1.1\r\nhost: site.test\r\n\r\n").await;
    assert!(!answer.contains("0123456789"), "{answer}");
}

#[tokio::test]
async fn handshake_that_does_not_go_on_is_closed() {
    let limits = Limits {
        tls_handshake_time: Duration::from_millis(100),
        ..Limits::default()
    };
    let site = certificate(&["site.test"]);
    let world = world(&[&site], limits).await;
    let mut stream = TcpStream::connect(world.address).await.expect("connects");
    // The first bytes of a hello, and no more.
    stream
        .write_all(&[22, 3, 1, 0, 200, 1])
        .await
        .expect("writes");
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    let _ = tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .expect("closes");
}

#[tokio::test]
async fn head_time_holds_after_the_handshake() {
    let limits = Limits {
        head_time: Duration::from_millis(100),
        ..Limits::default()
    };
    let site = certificate(&["site.test"]);
    let world = world(&[&site], limits).await;
    for protocol in ["http/1.1", "h2"] {
        let stream = connect(world.address, "site.test", &site, &[protocol]).await;
        let mut stream = stream.expect("handshake");
        stream.write_all(b"GET / HT").await.expect("writes");
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest);
        let _ = tokio::time::timeout(Duration::from_secs(20), read)
            .await
            .expect("closes");
    }
    assert_eq!(world.row(|row| row.status == 408).await.method, "GET");
}
