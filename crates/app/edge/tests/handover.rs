//! Edges that come and go: sockets handed over, requests finished.

mod support;

use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
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
