//! What clients send and get through a whole node: streams, large bodies, slow
//! readers, another protocol, HTTP/2.

use black_box::{TestNode, ask, get, processes, project, tls};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

const LARGE: usize = 100 << 20;
/// What a large body may add to the edge: its buffers, never the body.
const GROWTH_MAX: u64 = 32 << 20;
const CONCURRENT: usize = 64;

fn up(node: &TestNode) {
    let directory = project(node, "one", 1, "");
    node.ok(&["up", directory.to_str().expect("UTF-8")]);
}

fn connect(node: &TestNode) -> TcpStream {
    let stream = TcpStream::connect(node.http).expect("connects");
    let patience = Some(Duration::from_secs(30));
    stream.set_read_timeout(patience).expect("a timeout");
    stream.set_write_timeout(patience).expect("a timeout");
    stream
}

/// A request without a body, and the answer's head; what follows is unread.
fn open(stream: &TcpStream, request: &str) -> (String, BufReader<TcpStream>) {
    let mut writer = stream;
    writer.write_all(request.as_bytes()).expect("writes");
    let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).expect("reads") > 0, "{head}");
    }
    (head, reader)
}

fn edge_peak(node: &TestNode) -> u64 {
    processes::peak_bytes(node.pids().2).expect("an edge")
}

#[test]
fn large_bodies_pass_both_ways_and_the_edge_stays_small() {
    let node = TestNode::new();
    up(&node);
    assert_eq!(
        get(node.http, "localhost", "/echo")
            .expect("answers")
            .status,
        200
    );
    let before = edge_peak(&node);
    let body = vec![b'y'; LARGE];
    let took = ask(node.http, "POST", "localhost", "/echo/take", &body).expect("answers");
    let said = String::from_utf8_lossy(&took.body).into_owned();
    assert!(said.contains(&format!("\"took\":{LARGE}}}")), "{said}");
    drop(body);

    let path = format!("/echo/give?{LARGE}");
    let given = get(node.http, "localhost", &path).expect("answers");
    assert_eq!((given.status, given.body.len()), (200, LARGE));
    let grown = edge_peak(&node).saturating_sub(before);
    assert!(grown < GROWTH_MAX, "the edge grew by {grown} bytes");
}

#[test]
fn readers_that_read_nothing_cost_the_edge_no_more_than_buffers() {
    let node = TestNode::new();
    up(&node);
    let before = edge_peak(&node);
    let request =
        format!("GET /echo/give?{LARGE} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let slow: Vec<_> = (0..8)
        .map(|_| {
            let stream = connect(&node);
            open(&stream, &request)
        })
        .collect();
    // Beside them others are answered.
    for _ in 0..20 {
        assert_eq!(
            get(node.http, "localhost", "/echo")
                .expect("answers")
                .status,
            200
        );
    }
    let grown = edge_peak(&node).saturating_sub(before);
    assert!(grown < GROWTH_MAX, "the edge grew by {grown} bytes");
    // Whoever reads again gets all of it.
    let mut all = 0;
    let (head, reader) = slow.into_iter().next().expect("a reader");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut reader = reader;
    let mut piece = vec![0; 64 << 10];
    loop {
        match reader.read(&mut piece).expect("reads") {
            0 => break,
            read => all += read,
        }
    }
    assert_eq!(all, LARGE);
}

#[test]
fn a_body_beyond_the_limit_is_refused_before_it_is_sent() {
    let node = TestNode::new();
    up(&node);
    let stream = connect(&node);
    let request = "POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999\r\n\r\n";
    let (head, _) = open(&stream, request);
    assert!(head.starts_with("HTTP/1.1 413"), "{head}");
}

#[test]
fn events_come_one_by_one_as_they_are_sent() {
    let node = TestNode::new();
    up(&node);
    let stream = connect(&node);
    let request = "GET /echo/events?3 HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let (head, mut reader) = open(&stream, request);
    assert!(head.contains("text/event-stream"), "{head}");
    for number in 1..=3 {
        // The service sends it only now: it cannot have waited for others.
        get(node.http, "localhost", "/echo/next").expect("answers");
        let wanted = format!("data: {number}\n");
        let mut line = String::new();
        while line != wanted {
            line.clear();
            assert!(
                reader.read_line(&mut line).expect("reads") > 0,
                "ended early"
            );
        }
    }
}

#[test]
fn a_changed_protocol_carries_bytes_both_ways() {
    let node = TestNode::new();
    up(&node);
    let stream = connect(&node);
    let request = "GET /echo/socket HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\n\
        upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let (head, mut reader) = open(&stream, request);
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    for round in 0..3_u8 {
        let sent = vec![round; 10_000];
        (&stream).write_all(&sent).expect("writes");
        let mut came = vec![0; sent.len()];
        reader.read_exact(&mut came).expect("reads");
        assert!(came == sent, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_share_one_http2_connection_that_the_nodes_authority_vouches_for() {
    let node = TestNode::new();
    up(&node);
    let mut config = Arc::unwrap_or_clone(tls::trusting_node(&node));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = tokio::net::TcpStream::connect(node.https)
        .await
        .expect("connects");
    let name = "localhost".try_into().expect("a name");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, socket).await.expect("is trusted");
    let (client, connection) = h2::client::handshake(stream).await.expect("speaks HTTP/2");
    tokio::spawn(connection);
    let mut client = client.ready().await.expect("is ready");
    let mut answers = tokio::task::JoinSet::new();
    for number in 0..CONCURRENT {
        let path = if number % 2 == 0 { "/" } else { "/echo" };
        let request = http::Request::get(format!("https://localhost{path}"))
            .body(())
            .expect("a request");
        client = client.ready().await.expect("is ready");
        let (answer, _) = client.send_request(request, true).expect("sends");
        answers.spawn(async move {
            let answer = answer.await.expect("answers");
            let (head, mut body) = answer.into_parts();
            let mut bytes = 0;
            while let Some(piece) = body.data().await {
                bytes += piece.expect("a piece").len();
            }
            (head.status.as_u16(), bytes)
        });
    }
    while let Some(answer) = answers.join_next().await {
        let (status, bytes) = answer.expect("no panic");
        assert!(status == 200 && bytes > 0, "{status}, {bytes} bytes");
    }
}
