//! Streams and datagrams: HTTP on them, thousands at once, slow readers, ends.

mod common;

use bytes::Bytes;
use common::{Cluster, Node, SOON, node, until};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kernel::NodeId;
use net::transport::{IncomingStream, Open, Priority, Refused, SendError, Stream};
use std::convert::Infallible;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn to_open(method: u16, priority: Priority) -> Open {
    Open {
        method,
        head: Bytes::from_static(b"head"),
        priority,
        within: SOON,
    }
}

async fn open(from: &Node, to: u64, priority: Priority) -> Stream {
    let opened = from.transport.open(NodeId(to), to_open(5, priority)).await;
    opened.expect("opens")
}

/// Answers each stream as an HTTP server would, with the request's path.
fn serve_http(node: &mut Node) {
    let (_, empty) = tokio::sync::mpsc::channel(1);
    let mut streams = std::mem::replace(&mut node.incoming.streams, empty);
    tokio::spawn(async move {
        while let Some(incoming) = streams.recv().await {
            tokio::spawn(async move {
                let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
                    let path = request.uri().path().to_owned();
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(path))))
                });
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(incoming.stream), service)
                    .await
            });
        }
    });
}

async fn get(from: &Node, to: u64, path: String) -> Bytes {
    let stream = open(from, to, Priority::Normal).await;
    let (mut requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("a handshake");
    let running = tokio::spawn(connection);
    let request = Request::get(path)
        .body(Full::new(Bytes::new()))
        .expect("a request");
    let answer = requests.send_request(request).await.expect("an answer");
    let body = answer.into_body().collect().await.expect("a body");
    drop(requests);
    running.await.expect("ran").expect("ends well");
    body.to_bytes()
}

#[tokio::test]
async fn edges_speak_http_on_a_stream_for_each_request_thousands_at_once() {
    let cluster = Cluster::new();
    let (a, mut b) = (node(cluster.edge_options(1)), node(cluster.edge_options(2)));
    a.knows(&b);
    serve_http(&mut b);
    assert_eq!(&get(&a, 2, "/one".to_owned()).await[..], b"/one");
    let held: Vec<Stream> = {
        let mut held = Vec::new();
        for _ in 0..3_000 {
            held.push(open(&a, 2, Priority::Normal).await);
        }
        held
    };
    assert_eq!(&get(&a, 2, "/among".to_owned()).await[..], b"/among");
    drop(held);
    assert_eq!(&get(&a, 2, "/after".to_owned()).await[..], b"/after");
}

async fn pair_of_streams(a: &Node, b: &mut Node, priority: Priority) -> (Stream, IncomingStream) {
    let stream = open(a, b.id.0, priority).await;
    let incoming = b.incoming.streams.recv().await.expect("a stream");
    assert_eq!(&incoming.head[..], b"head");
    assert_eq!((incoming.method, incoming.priority), (5, priority));
    assert_eq!(incoming.from.node, a.id);
    (stream, incoming)
}

#[tokio::test]
async fn bytes_go_both_ways_and_ends_are_told_from_breaks() {
    let cluster = Cluster::new();
    let (a, mut b) = cluster.pair();
    let (mut stream, mut incoming) = pair_of_streams(&a, &mut b, Priority::Normal).await;
    stream.write_all(b"there").await.expect("writes");
    stream.shutdown().await.expect("ends");
    let mut text = String::new();
    let read = incoming.stream.read_to_string(&mut text).await;
    assert_eq!((read.expect("the end"), text.as_str()), (5, "there"));
    incoming.stream.write_all(b"back").await.expect("writes");
    drop(incoming);
    let broken = stream.read_to_end(&mut Vec::new()).await;
    broken.expect_err("a part is not taken for the whole");
}

#[tokio::test]
async fn a_reader_that_goes_away_stops_the_writer() {
    let cluster = Cluster::new();
    let (a, mut b) = cluster.pair();
    let (mut stream, incoming) = pair_of_streams(&a, &mut b, Priority::Bulk).await;
    drop(incoming);
    let writing = async { while stream.write_all(&vec![0; 1 << 16]).await.is_ok() {} };
    tokio::time::timeout(SOON, writing).await.expect("stopped");
}

#[tokio::test]
async fn a_slow_reader_holds_up_its_writer_and_nobody_else() {
    let cluster = Cluster::new();
    let (a, mut b) = cluster.pair();
    let (mut slow, held) = pair_of_streams(&a, &mut b, Priority::Normal).await;
    let written = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = written.clone();
    let writing = tokio::spawn(async move {
        while slow.write_all(&vec![0; 1 << 16]).await.is_ok() {
            counter.fetch_add(1 << 16, std::sync::atomic::Ordering::Relaxed);
        }
    });
    // The window, and what the sender holds itself.
    until("the window is full", || {
        written.load(std::sync::atomic::Ordering::Relaxed) >= (2 << 20) - (1 << 16)
    })
    .await;
    let (mut other, mut incoming) = pair_of_streams(&a, &mut b, Priority::Normal).await;
    other.write_all(&vec![1; 1 << 18]).await.expect("writes");
    other.shutdown().await.expect("ends");
    let mut read = Vec::new();
    incoming.stream.read_to_end(&mut read).await.expect("reads");
    assert_eq!(read.len(), 1 << 18);
    let written = written.load(std::sync::atomic::Ordering::Relaxed);
    assert!(written < 24 << 20, "{written}");
    drop(held);
    writing.await.expect("ran");
}

#[tokio::test]
async fn streams_that_are_turned_away_or_taken_by_nobody_read_as_errors() {
    let cluster = Cluster::new();
    let mut options = cluster.options(2);
    options.limits.streams_queued_max = 1;
    let mut b = node(options);
    let a = cluster.node(1);
    a.knows(&b);
    let (mut busy, incoming) = pair_of_streams(&a, &mut b, Priority::Normal).await;
    incoming.busy();
    busy.read_u8().await.expect_err("busy");
    let (mut unknown, incoming) = pair_of_streams(&a, &mut b, Priority::Normal).await;
    incoming.unknown_method();
    unknown.read_u8().await.expect_err("unknown");

    let mut streams = [
        open(&a, 2, Priority::Normal).await,
        open(&a, 2, Priority::Normal).await,
    ];
    until("one did not fit", || {
        b.stats().refused(Refused::StreamQueue) == 1
    })
    .await;
    let (first, second) = streams.split_at_mut(1);
    tokio::select! {
        read = first[0].read_u8() => drop(read.expect_err("did not fit")),
        read = second[0].read_u8() => drop(read.expect_err("did not fit")),
    }
}

#[tokio::test]
async fn bulk_has_a_connection_of_its_own() {
    let cluster = Cluster::new();
    let (a, mut b) = cluster.pair();
    let _main = pair_of_streams(&a, &mut b, Priority::Normal).await;
    assert_eq!(a.transport.connections(NodeId(2)), 1);
    let (mut bulk, mut incoming) = pair_of_streams(&a, &mut b, Priority::Bulk).await;
    assert_eq!(a.transport.connections(NodeId(2)), 2);
    let writing = tokio::spawn(async move {
        for _ in 0..1_000 {
            bulk.send.write_bytes(Bytes::from(vec![3; 20_000])).await?;
        }
        bulk.send.finish();
        std::io::Result::Ok(())
    });
    let mut read = 0;
    while let Some(bytes) = incoming
        .stream
        .recv
        .read_bytes(1 << 20)
        .await
        .expect("reads")
    {
        read += bytes.len();
    }
    assert_eq!(read, 20_000_000);
    writing.await.expect("ran").expect("writes");
}

#[tokio::test]
async fn datagrams_arrive_also_those_that_waited_for_the_connection() {
    let cluster = Cluster::new();
    let (a, mut b) = cluster.pair();
    a.transport.set_generation(9);
    for number in 0..4_u8 {
        a.transport
            .send_datagram(NodeId(2), &[number])
            .expect("waits");
    }
    for number in 0..4_u8 {
        let received = b.incoming.datagrams.recv().await.expect("a datagram");
        assert_eq!(received.bytes[..], [number]);
        assert_eq!((received.from.node, received.generation), (NodeId(1), 9));
    }
    let most = vec![1; 1_100];
    a.transport.send_datagram(NodeId(2), &most).expect("sent");
    let received = b.incoming.datagrams.recv().await.expect("a datagram");
    assert_eq!(received.bytes, most);
    let more = a.transport.send_datagram(NodeId(2), &vec![1; 1_101]);
    assert!(matches!(more, Err(SendError::TooLong { .. })));
}

#[tokio::test]
async fn datagrams_that_nobody_takes_are_dropped_and_counted() {
    let cluster = Cluster::new();
    let mut options = cluster.options(2);
    options.limits.datagrams_queued_max = 4;
    let b = node(options);
    let a = cluster.node(1);
    a.knows(&b);
    until("dropped", || {
        a.transport.send_datagram(NodeId(2), b"x").expect("sent");
        b.stats().refused(Refused::DatagramQueue) > 3
    })
    .await;
}
