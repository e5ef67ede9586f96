//! Edges that come and go: sockets handed over, requests finished.

mod support;

use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use support::{BOUND, Node, add_service, body, empty, play, request, until};
use wire::edge::{FromEdge, ToEdge};
use wire::supervise::ListenerName;

#[test]
fn role() {
    play();
}

/// A replica that answers each request once it is told to.
struct Slow {
    address: SocketAddr,
    asked: mpsc::Receiver<()>,
    answer: mpsc::Sender<()>,
}

impl Slow {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("address");
        let (asked, has_asked) = mpsc::channel();
        let (answer, may_answer) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("accepts");
                let mut buffer = [0; 4096];
                while !matches!(stream.read(&mut buffer), Ok(0) | Err(_)) {
                    if asked.send(()).is_err() || may_answer.recv().is_err() {
                        return;
                    }
                    let text = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nslow";
                    stream.write_all(text).expect("writes");
                }
            }
        });
        Self {
            address,
            asked: has_asked,
            answer,
        }
    }
}

#[tokio::test]
async fn the_sockets_it_hands_over_accept() {
    let node = Node::new();
    node.save_snapshot(&node.page(1, "page"));
    let supervisor = node.supervise().await;
    let mut edge = node.ready_edge().await;
    drop(supervisor);
    let mut link = node.link_to(&edge).await;
    link.tell(&ToEdge::TakeListeners).await;
    let (said, descriptors) = link
        .0
        .receive::<FromEdge>()
        .await
        .expect("reads")
        .expect("open");
    let names = vec![ListenerName::Http, ListenerName::Https];
    assert_eq!(said, FromEdge::Listeners(names));
    let [http, https] = <[_; 2]>::try_from(descriptors)
        .expect("two")
        .map(TcpListener::from);
    let found = [&http, &https].map(|socket| socket.local_addr().expect("address"));
    assert_eq!(found, [node.http, node.https]);
    // It served on them; without it, they are as good as before.
    assert_eq!(body(&node.get("/")), "page");
    edge.kill();
    let client = TcpStream::connect(node.http).expect("connects");
    http.set_nonblocking(false).expect("blocking");
    let (_, peer) = http.accept().expect("accepts");
    assert_eq!(peer, client.local_addr().expect("address"));
}

#[tokio::test]
async fn a_draining_edge_finishes_while_its_successor_serves() {
    let node = Node::new();
    let _supervisor = node.supervise().await;
    let mut old = node.ready_edge().await;
    let mut link = node.link_to(&old).await;
    let slow = Slow::new();
    let mut snapshot = node.page(1, "page");
    add_service(&mut snapshot, "slow.test", &[slow.address]);
    assert_eq!(link.push(&snapshot).await, Ok(1));
    let http = node.http;
    let waiting = std::thread::spawn(move || request(http, "slow.test", "/", ""));
    slow.asked.recv_timeout(BOUND).expect("in flight");
    let _new = node.ready_edge().await;
    old.signal(Signal::TERM);
    // It lets its connections go at once, so that the agent finds the new one.
    while link.said().await.is_some() {}
    assert_eq!(body(&node.get("/")), "page");
    assert!(old.has_ended().is_none(), "a request is in flight");
    slow.answer.send(()).expect("answers");
    let answer = waiting.join().expect("ends").expect("answered");
    assert_eq!(body(&answer), "slow");
    assert!(old.ends().success());
    assert_eq!(body(&node.get("/")), "page");
}

#[tokio::test]
async fn drain_on_its_socket_ends_it_as_a_signal_does() {
    let node = Node::new();
    let _supervisor = node.supervise().await;
    let mut edge = node.ready_edge().await;
    node.link_to(&edge).await.tell(&ToEdge::Drain).await;
    assert!(edge.ends().success());
}

#[tokio::test]
async fn it_ends_at_once_while_it_still_waits_for_its_sockets() {
    let node = Node::new();
    let mut edge = node.edge();
    until("it waits", || {
        node.log().contains("has not given").then_some(())
    });
    edge.signal(Signal::TERM);
    assert!(edge.ends().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_while_edges_replace_each_other() {
    let node = Node::new();
    node.save_snapshot(&node.page(1, "page"));
    let _supervisor = node.supervise().await;
    let mut edge = node.ready_edge().await;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| keep_asking(node.http, &stop)))
            .collect();
        let runtime = tokio::runtime::Handle::current();
        for _ in 0..3 {
            let next = tokio::task::block_in_place(|| runtime.block_on(node.ready_edge()));
            edge.signal(Signal::TERM);
            assert!(edge.ends().success());
            edge = next;
        }
        stop.store(true, Relaxed);
        for client in clients {
            let (served, lost) = client.join().expect("ends");
            assert!(served > 0 && lost == 0, "{served} served, {lost} lost");
        }
    });
}

/// Asks on one connection until it is told, or tells, that it closes; then on
/// the next. Counts what was answered, and what was not.
fn keep_asking(address: SocketAddr, stop: &AtomicBool) -> (u64, u64) {
    let (mut served, mut lost) = (0, 0);
    let mut connection: Option<TcpStream> = None;
    while !stop.load(Relaxed) {
        let fresh = || TcpStream::connect(address).ok();
        let Some(mut stream) = connection.take().or_else(fresh) else {
            lost += 1;
            continue;
        };
        match ask(&mut stream) {
            None => lost += 1,
            Some(closes) => {
                served += 1;
                connection = (!closes).then_some(stream);
            }
        }
    }
    (served, lost)
}

/// Whether the answer says that the connection closes; `None` without one.
fn ask(stream: &mut TcpStream) -> Option<bool> {
    stream.set_read_timeout(Some(BOUND)).ok()?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: any.test\r\n\r\n")
        .ok()?;
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while !answer.ends_with(b"\r\n\r\npage") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
        }
    }
    let text = String::from_utf8_lossy(&answer).to_lowercase();
    Some(text.contains("connection: close"))
}

#[tokio::test]
async fn the_socket_is_taken_back_when_a_successor_dies() {
    let node = Node::new();
    let _supervisor = node.supervise().await;
    let old = node.ready_edge().await;
    let mut new = node.ready_edge().await;
    new.kill();
    let mut link = node.link_to(&old).await;
    assert_eq!(link.push(&empty(1)).await, Ok(1));
}
