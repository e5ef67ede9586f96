//! Bad input over HTTP/1.1: what two readers could read differently, bombs and
//! tricks. Each is refused with its status, and has its row.

use crate::support::mortal::{Mortal, Reply, eventually};
use crate::support::{World, ok};
use ingress::Limits;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(20);

async fn with_echo(limits: Limits) -> (World, Mortal) {
    let mut world = World::start(limits, false).await;
    let echo = Mortal::start(|request| Reply::Text(ok(request))).await;
    world.endpoints(&[echo.address], DEADLINE);
    (world, echo)
}

#[tokio::test]
async fn doubtful_hosts_and_targets_are_refused_and_logged() {
    let world = World::plain().await;
    for (status, line, host) in [
        (400, "GET /", "x: y"),
        (400, "GET /", "host: site.test\r\nhost: app.test"),
        (400, "GET /", "host: site.test, app.test"),
        (400, "GET /", "host: site.test/x"),
        (400, "GET /", "host: user@site.test"),
        (400, "GET /", "host: site.test:99999"),
        (400, "GET /", "host:"),
        (400, "GET /", "host : site.test"),
        (400, "GET /", " host: site.test"),
        (400, "GET http://user@site.test/", "host: site.test"),
        (400, "GET ftp://site.test/", "host: site.test"),
        (400, "GET *", "host: site.test"),
        (400, "OPTIONS / x", "host: site.test"),
        (400, "GET /\u{1}", "host: site.test"),
        (501, "TRACE /", "host: app.test"),
        (501, "CONNECT app.test:443", "host: app.test:443"),
    ] {
        let request = format!("{line} HTTP/1.1\r\n{host}\r\n\r\n");
        refuses(&world, status, &request).await;
    }
}

#[tokio::test]
async fn ambiguous_framing_is_refused_and_logged() {
    let (world, echo) = with_echo(Limits::default()).await;
    for (status, fields, body) in [
        (
            400,
            "content-length: 4\r\ntransfer-encoding: chunked",
            "0\r\n\r\n",
        ),
        (
            400,
            "transfer-encoding: chunked\r\ncontent-length: 4",
            "0\r\n\r\n",
        ),
        (400, "content-length: 4\r\ncontent-length: 5", "abcd"),
        (400, "content-length: 4, 5", "abcd"),
        (400, "content-length: -1", ""),
        (400, "content-length: +4", "abcd"),
        (400, "content-length: 99999999999999999999", ""),
        (400, "transfer-encoding: gzip", ""),
        (501, "transfer-encoding: gzip, chunked", "0\r\n\r\n"),
        (
            501,
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "0\r\n\r\n",
        ),
    ] {
        let request = format!("POST / HTTP/1.1\r\nhost: app.test\r\n{fields}\r\n\r\n{body}");
        refuses(&world, status, &request).await;
    }
    let old = "POST / HTTP/1.0\r\nhost: app.test\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    refuses(&world, 400, old).await;
    assert_eq!(echo.heard().len(), 0);
}

#[tokio::test]
async fn heads_that_are_none_are_refused_and_logged() {
    let world = World::plain().await;
    for request in [
        "GET / HTTP/1.1\r\nhost: site.test\r\nx: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: site.test\r\nx\u{0}y: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: site.test\r\nx: a\u{0}b\r\n\r\n",
        "GET / HTTP/9.9\r\nhost: site.test\r\n\r\n",
        "\u{1}\u{2}\u{3} nonsense\r\n\r\n",
    ] {
        refuses(&world, 400, request).await;
    }
}

/// Exactly one answer with the status, the connection closed, one row.
async fn refuses(world: &World, status: u16, request: &str) {
    world.rows.rows.lock().expect("lock").clear();
    let answer = world.raw(request).await;
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "{request:?}: {answer:?}"
    );
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{request:?}");
    let row = world.row(|row| row.status == status).await;
    let rows = world.rows.rows.lock().expect("lock").len();
    assert_eq!((rows, row.client.as_str()), (1, "127.0.0.0"), "{request:?}");
}

#[tokio::test]
async fn conflicting_framing_is_seen_when_the_head_comes_in_pieces() {
    let (world, echo) = with_echo(Limits::default()).await;
    let mut stream = TcpStream::connect(world.address).await.expect("connects");
    stream.set_nodelay(true).expect("set");
    let pieces = [
        "POST / HTTP/1.1\r\nhost: app.test\r\ncontent-len",
        "gth: 4\r\ntransfer-enc",
        "oding: chunked\r\n",
        "\r\n0\r\n\r\n",
    ];
    for piece in pieces {
        stream.write_all(piece.as_bytes()).await.expect("writes");
        // Each piece is read for itself: nothing else tells that it was.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("reads");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(echo.heard().len(), 0);
}

#[tokio::test]
async fn conflicting_framing_behind_another_request_smuggles_nothing() {
    let (world, echo) = with_echo(Limits::default()).await;
    let first = "GET /1 HTTP/1.1\r\nhost: app.test\r\n\r\n";
    let second = "POST /2 HTTP/1.1\r\nhost: app.test\r\ncontent-length: 5\r\n\
        transfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let smuggled = "GET /3 HTTP/1.1\r\nhost: app.test\r\n\r\n";
    let answer = world.raw(&format!("{first}{second}{smuggled}")).await;
    assert!(!answer.contains("/3"), "{answer}");
    for heard in echo.heard() {
        assert!(!heard.contains("/3") && !heard.contains("content-length: 5"));
    }
}

#[tokio::test]
async fn bombs_in_heads_get_431() {
    let world = World::plain().await;
    let field = |count: usize| format!("x: {}\r\n", "a".repeat(count));
    for fields in [
        field(60_000),
        field(5_000_000),
        "x: y\r\n".repeat(500),
        field(100).repeat(5_000),
    ] {
        let request = format!("GET / HTTP/1.1\r\nhost: site.test\r\n{fields}\r\n");
        refuses(&world, 431, &request).await;
    }
    let request = format!(
        "GET /{} HTTP/1.1\r\nhost: site.test\r\n\r\n",
        "a".repeat(100_000)
    );
    refuses(&world, 431, &request).await;
    let row = world.row(|row| row.status == 431).await;
    assert!(row.method == "GET" && row.path.starts_with("/aaa") && row.path.len() < 2048);
}

#[tokio::test]
async fn bodies_over_the_limit_get_413() {
    let limits = Limits {
        body_bytes_max: 1_000,
        ..Limits::default()
    };
    let (world, echo) = with_echo(limits).await;
    let stated = format!(
        "POST / HTTP/1.1\r\nhost: app.test\r\ncontent-length: 3000000\r\n\r\n{}",
        "a".repeat(3_000_000)
    );
    refuses(&world, 413, &stated).await;
    let chunk = format!("3e8\r\n{}\r\n", "a".repeat(1_000));
    let unstated = format!(
        "POST / HTTP/1.1\r\nhost: app.test\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(2_000)
    );
    refuses(&world, 413, &unstated).await;
    assert_eq!(echo.heard().len(), 0);
    assert_eq!(world.rows.failed.lock().expect("lock").len(), 0);
}

#[tokio::test]
async fn broken_chunks_get_400_and_never_look_whole_to_the_replica() {
    let (world, echo) = with_echo(Limits::default()).await;
    for body in [
        "zz\r\nabc\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "5\r\nabcdefgh\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "3 x\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
    ] {
        let head = "POST / HTTP/1.1\r\nhost: app.test\r\ntransfer-encoding: chunked\r\n\r\n";
        refuses(&world, 400, &format!("{head}{body}")).await;
    }
    assert_eq!(echo.heard().len(), 0);
    assert_eq!(world.rows.failed.lock().expect("lock").len(), 0);
}

#[tokio::test]
async fn paths_that_climb_are_refused_everywhere() {
    let (world, echo) = with_echo(Limits::default()).await;
    for host in ["site.test", "app.test"] {
        for path in [
            "/../x",
            "/a/../../x",
            "/%2e%2e/x",
            "/.%2E/x",
            "/./x",
            "/x/..",
            "/%00",
            "/a\\b",
        ] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
            refuses(&world, 400, &request).await;
        }
    }
    for path in ["//", "//site.test/dir", "/dir//", "/%2f", "/%", "/%5c"] {
        let answer = world.get("site.test", path, "").await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
    }
    assert_eq!(echo.heard().len(), 0);
}

#[tokio::test]
async fn absolute_target_decides_and_the_replica_sees_its_host() {
    let (world, echo) = with_echo(Limits::default()).await;
    let request =
        "GET http://APP.test./a?b HTTP/1.1\r\nhost: site.test\r\nconnection: close\r\n\r\n";
    let answer = world.raw(request).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let heard = echo.heard().remove(0);
    assert!(heard.starts_with("GET /a?b HTTP/1.1\r\n"), "{heard}");
    assert!(heard.contains("\r\nhost: app.test.\r\n"), "{heard}");
    assert!(!heard.contains("site.test"), "{heard}");
}

#[tokio::test]
async fn fields_of_one_hop_stay_on_it() {
    let mut world = World::plain().await;
    let replica = Mortal::start(|_| {
        Reply::Text(
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: x-secret, Keep-Alive\r\n\
            x-secret: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: close\r\nx-kept: 1\r\n\r\nok"
                .to_owned(),
        )
    });
    let replica = replica.await;
    world.endpoints(&[replica.address], DEADLINE);
    let fields = "connection: x-hop, te, X-FORWARDED-FOR, host\r\nx-hop: 1\r\nte: trailers\r\n\
        keep-alive: 5\r\nproxy-connection: x\r\nproxy-authorization: x\r\ntrailer: x\r\n\
        x-real-ip: 6.6.6.6\r\nx-forwarded-port: 6\r\nproxy: 6.6.6.6\r\n\
        x_forwarded_for: 6.6.6.6\r\nx-forwarded-user: root\r\nx-kept: 1\r\nupgrade: h2c\r\n\
        http2-settings: AAMAAABkAAQAAP\r\n";
    let answer = world.get("app.test", "/", fields).await;
    assert!(
        answer.ends_with("ok") && answer.contains("x-kept: 1\r\n"),
        "{answer}"
    );
    for gone in ["x-secret", "keep-alive", "proxy-connection"] {
        assert!(!answer.contains(gone), "{gone} in {answer}");
    }
    let heard = replica.heard().remove(0);
    for kept in [
        "x-kept: 1\r\n",
        "x-forwarded-for: 127.0.0.1\r\n",
        "host: app.test\r\n",
    ] {
        assert!(heard.contains(kept), "{kept} in {heard}");
    }
    for gone in [
        "x-hop",
        "\r\nte:",
        "keep-alive",
        "proxy-",
        "trailer",
        "6.6.6.6",
        "upgrade",
        "h2c",
        "http2-settings",
        "x-forwarded-port",
        "x_forwarded",
        "root",
    ] {
        assert!(!heard.contains(gone), "{gone} in {heard}");
    }
}

#[tokio::test]
async fn change_to_http2_behind_the_edge_is_not_made() {
    let (world, echo) = with_echo(Limits::default()).await;
    for protocol in ["h2c", "websocket, h2c", "HTTP/2.0", "TLS/1.2"] {
        let request = format!(
            "GET / HTTP/1.1\r\nhost: app.test\r\nconnection: upgrade, http2-settings\r\n\
            upgrade: {protocol}\r\nhttp2-settings: AAMAAABkAAQAAP\r\n\r\n"
        );
        let mut stream = TcpStream::connect(world.address).await.expect("connects");
        stream.write_all(request.as_bytes()).await.expect("writes");
        let mut answer = [0; 4096];
        let read = stream.read(&mut answer).await.expect("reads");
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{protocol}");
    }
    assert!(echo.heard().iter().all(|heard| !heard.contains("upgrade")));
}

#[tokio::test]
async fn requests_beyond_the_limits_are_shed_with_a_time_to_return() {
    let limits = Limits {
        requests_max: 1,
        connections_max: 2,
        ..Limits::default()
    };
    let mut world = World::start(limits, false).await;
    let silent = Mortal::start(|_| Reply::Never).await;
    world.endpoints(&[silent.address], DEADLINE);
    let request = "GET / HTTP/1.1\r\nhost: app.test\r\n\r\n";
    let mut held = TcpStream::connect(world.address).await.expect("connects");
    held.write_all(request.as_bytes()).await.expect("writes");
    silent.has_heard(1).await;
    let shed = world.get("app.test", "/", "").await;
    assert!(
        shed.starts_with("HTTP/1.1 503") && shed.contains("retry-after: 1\r\n"),
        "{shed}"
    );
    world.row(|row| row.status == 503).await;
    let health = world
        .get("x.test", "/.well-known/homeostat/health", "")
        .await;
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    let _second = TcpStream::connect(world.address).await.expect("connects");
    let shed = world.get("app.test", "/", "").await;
    assert!(
        shed.starts_with("HTTP/1.1 503") && shed.contains("retry-after: 1\r\n"),
        "{shed}"
    );
    drop(held);
    eventually("its place is free", || {
        world.ingress.readings().in_flight == 0
    })
    .await;
}

#[tokio::test]
async fn method_that_is_made_up_is_logged_in_part() {
    let (world, _echo) = with_echo(Limits::default()).await;
    let method = "X".repeat(5_000);
    let head = format!("{method} / HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\n\r\n");
    let answer = world.raw(&head).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(world.row(|row| row.status == 200).await.method.len(), 32);
}

#[tokio::test]
async fn bytes_behind_an_answer_are_nobodys_answer() {
    let mut world = World::plain().await;
    let evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let replica = Mortal::start(move |_| Reply::Text(format!("{}{evil}", ok("good")))).await;
    world.endpoints(&[replica.address], DEADLINE);
    for _ in 0..20 {
        let answer = world.get("app.test", "/", "").await;
        assert!(answer.ends_with("good"), "{answer}");
    }
}
