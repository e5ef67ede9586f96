//! Peers and strangers who send garbage, for ever, and packets that are
//! replayed, reordered, cut and forged on the way.

mod common;

use common::hostile::{self, connect, endpoint, greet, say, say_once};
use common::{Cluster, Node, SOON, echo, node, until};
use kernel::NodeId;
use net::join::{Applicant, Future, Refused as Refusal, Welcome};
use net::transport::{Event, PeerState, Refused};
use net::{Credentials, Doorkeeper, JoinToken, Kind, NodeKey, TokenId, TokenVerifier};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::UdpSocket;
use wire::net::frame::{Call, Head, Kind as FrameKind};
use wire::net::join::{BY_NODE, BY_TOKEN, EXPORT_LABEL, JoinRequest, Wish};

/// Knows one token and admits nobody.
#[derive(Default)]
struct Door {
    token: Mutex<Option<JoinToken>>,
    asked: AtomicUsize,
    applied: AtomicUsize,
}

impl Doorkeeper for Door {
    fn verifier(&self, _: TokenId) -> Future<'_, Result<Option<TokenVerifier>, Refusal>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let token = self.token.lock().expect("unpoisoned");
        let verifier = token.as_ref().map(TokenVerifier::of);
        Box::pin(async move { Ok(verifier) })
    }

    fn admit(&self, _: Applicant) -> Future<'_, Result<Welcome, Refusal>> {
        self.applied.fetch_add(1, Ordering::Relaxed);
        Box::pin(async {
            Err(Refusal {
                why: wire::net::join::Refusal::Unable,
                words: String::new(),
            })
        })
    }
}

fn guarded(cluster: &Cluster) -> (Node, Arc<Door>) {
    let door = Arc::new(Door::default());
    let mut options = cluster.options(2);
    options.doorkeeper = Some(door.clone());
    options.limits.handshake_time = Duration::from_millis(500);
    (node(options), door)
}

/// A member's credentials, for one who breaks the protocol.
fn member(cluster: &Cluster, id: u64) -> Credentials {
    let key = Arc::new(NodeKey::generate().expect("a key"));
    let credentials = cluster.credentials(Kind::Agent, id, &key);
    cluster
        .table
        .admit(&credentials.view().expect("reads").identity);
    credentials
}

async fn still_serves(cluster: &Cluster, b: &mut Node) {
    let a = cluster.node(100);
    a.knows(b);
    echo(&mut b.incoming.calls);
    a.transport.call(b.id, 1, "x", SOON).await.expect("answers");
}

#[tokio::test]
async fn noise_on_the_port_is_counted_and_disturbs_nobody() {
    let cluster = Cluster::new();
    let mut b = cluster.node(2);
    let noise = UdpSocket::bind(common::any_port()).await.expect("binds");
    let mut random = fastrand::Rng::with_seed(7);
    for number in 0..5_000_usize {
        let mut packet = vec![0; 1 + number % 1_400];
        random.fill(&mut packet);
        // Some look like the first packet of a handshake.
        if number % 3 == 0 && packet.len() > 5 {
            packet[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
        }
        noise.send_to(&packet, b.address()).await.expect("sends");
    }
    still_serves(&cluster, &mut b).await;
    assert!(b.stats().rx_packets > 1_000);
    assert!(b.transport.connected().len() <= 1);
}

#[tokio::test]
async fn a_stranger_may_join_and_nothing_else() {
    let cluster = Cluster::new();
    let (mut b, door) = guarded(&cluster);
    let endpoint = endpoint();
    for protocol in ["homeostat-main/2", "homeostat-bulk/1"] {
        let stranger = connect(&endpoint, b.address(), None, protocol).await;
        let stranger = stranger.expect("the handshake itself is open to those who join");
        // No leave to open a stream ever comes.
        stranger.open_bi().await.expect_err("sent away");
    }
    assert_eq!(b.stats().refused(Refused::Stranger), 2);
    // A member does not join again.
    let again = member(&cluster, 9);
    let again = connect(&endpoint, b.address(), Some(&again), "homeostat-join/2").await;
    again
        .expect("shaken")
        .open_bi()
        .await
        .expect_err("sent away");
    connect(&endpoint, b.address(), None, "h3")
        .await
        .expect_err("no protocol of ours");
    connect(&endpoint, b.address(), None, "homeostat-join/9")
        .await
        .expect_err("no version");
    assert_eq!(b.stats().refused(Refused::Stranger), 3);
    assert_eq!(door.asked.load(Ordering::Relaxed), 0);
    still_serves(&cluster, &mut b).await;
}

#[tokio::test]
async fn what_joins_without_a_right_request_is_refused_before_the_doorkeeper_hears_of_it() {
    let cluster = Cluster::new();
    let (mut b, door) = guarded(&cluster);
    let endpoint = endpoint();
    let call = Head::Call(Call {
        method: 1,
        deadline_ms: 1_000,
        body_bytes: 0,
        generation: 0,
    });
    let said: [Vec<u8>; 6] = [
        Vec::new(),
        vec![2, FrameKind::Join as u8, 0, 0, 0, 9, 1],
        vec![2, FrameKind::Join as u8, 0xff, 0xff, 0xff, 0xff],
        vec![0xff; 100_000],
        call.encode(2).expect("encodes"),
        vec![1, FrameKind::Join as u8, 0, 0, 0, 0],
    ];
    for (number, bytes) in said.iter().enumerate() {
        let stranger = connect(&endpoint, b.address(), None, "homeostat-join/2").await;
        say(&stranger.expect("shaken"), bytes).await;
        let wanted = u64::try_from(number).expect("few") + 1;
        until("counted", || b.stats().refused(Refused::Join) == wanted).await;
    }
    // One that says nothing is not waited for.
    let silent = connect(&endpoint, b.address(), None, "homeostat-join/2").await;
    silent.expect("shaken").closed().await;
    until("counted", || b.stats().refused(Refused::Join) == 7).await;
    assert_eq!(door.asked.load(Ordering::Relaxed), 0);
    still_serves(&cluster, &mut b).await;
}

fn join_request(token: &JoinToken, key: &NodeKey, export: &[u8; 32]) -> JoinRequest {
    let wish = Wish {
        token: token.id,
        public_key: key.public().0,
        name: None,
        addresses: Vec::new(),
        words: Vec::new(),
    };
    let by_token = net::identity::sign_with_token(token, &wish.statement(BY_TOKEN, export));
    let by_node = key.sign(&wish.statement(BY_NODE, export));
    JoinRequest {
        wish,
        by_token,
        by_node,
    }
}

#[tokio::test]
async fn a_join_that_is_replayed_in_another_session_or_for_another_key_is_worth_nothing() {
    let cluster = Cluster::new();
    let (b, door) = guarded(&cluster);
    let token = JoinToken {
        id: TokenId(1),
        secret: [3; 16],
        root: cluster.authority.root_hash(),
        zone: "/eu".parse().expect("a zone"),
        addresses: Vec::new(),
    };
    *door.token.lock().expect("unpoisoned") = Some(token.clone());
    let key = NodeKey::generate().expect("a key");
    let endpoint = endpoint();
    let session = || async {
        let session = connect(&endpoint, b.address(), None, "homeostat-join/2").await;
        let session = session.expect("shaken");
        let mut export = [0; 32];
        session
            .export_keying_material(&mut export, EXPORT_LABEL, b"")
            .expect("exports");
        (session, export)
    };
    let (first, export) = session().await;
    let good = join_request(&token, &key, &export);
    let frame = Head::Join(good.clone()).encode(2).expect("encodes");
    say(&first, &frame).await;
    until("heard", || door.applied.load(Ordering::Relaxed) == 1).await;

    let (second, export) = session().await;
    say(&second, &frame).await;
    until("counted", || b.stats().refused(Refused::Join) == 1).await;

    // The thief signs with a key of its own: the token's word is for another.
    let thief = NodeKey::generate().expect("a key");
    let mut stolen = join_request(&token, &thief, &export);
    stolen.by_token = good.by_token;
    let (third, _) = session().await;
    let frame = Head::Join(stolen).encode(2).expect("encodes");
    say(&third, &frame).await;
    until("counted", || b.stats().refused(Refused::Join) == 2).await;
    assert_eq!(door.applied.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn strangers_beyond_the_bound_are_told_to_come_back() {
    let cluster = Cluster::new();
    let door = Arc::new(Door::default());
    let mut options = cluster.options(2);
    options.doorkeeper = Some(door);
    options.limits.strangers_max = 2;
    let mut b = node(options);
    let endpoint = endpoint();
    let mut held = Vec::new();
    for _ in 0..2 {
        let stranger = connect(&endpoint, b.address(), None, "homeostat-join/2").await;
        let stranger = stranger.expect("shaken");
        held.push(stranger.open_bi().await.expect("heard"));
    }
    let third = connect(&endpoint, b.address(), None, "homeostat-join/2").await;
    third.expect("shaken").closed().await;
    assert_eq!(b.stats().refused(Refused::Stranger), 1);
    still_serves(&cluster, &mut b).await;
}

#[tokio::test]
async fn a_flood_of_handshakes_from_one_address_does_not_shut_out_another() {
    let cluster = Cluster::new();
    let mut options = cluster.options(2);
    options.bind = "0.0.0.0:0".parse().expect("an address");
    options.limits.handshakes_per_address = 8;
    let mut b = node(options);
    let port = b.address().port();
    let to: SocketAddr = ([127, 0, 0, 1], port).into();
    let endpoint = endpoint();
    let mut flood = Vec::new();
    for _ in 0..200 {
        let config = hostile::config(None, "homeostat-main/2");
        flood.push(endpoint.connect_with(config, to, "x").expect("an address"));
    }
    until("counted", || {
        b.stats().refused(Refused::HandshakeRate) > 100
    })
    .await;
    let mut options = cluster.options(3);
    options.bind = "127.0.0.2:0".parse().expect("an address");
    let a = node(options);
    a.transport.set_peer(NodeId(2), vec![to.into()]);
    echo(&mut b.incoming.calls);
    a.transport
        .call(NodeId(2), 1, "x", SOON)
        .await
        .expect("answers");
    drop(flood);
}

#[tokio::test]
async fn a_member_that_sends_garbage_is_counted_and_not_heard_for_a_while() {
    let cluster = Cluster::new();
    let mut options = cluster.options(2);
    options.limits.faults_max = 6;
    options.limits.penalty = Duration::from_hours(1);
    let mut b = node(options);
    let bad = member(&cluster, 9);
    let endpoint = endpoint();
    let link = connect(&endpoint, b.address(), Some(&bad), "homeostat-main/2").await;
    let link = link.expect("shaken");
    greet(&link).await;
    let call = |bytes| {
        let call = Head::Call(Call {
            method: 1,
            deadline_ms: 10_000,
            body_bytes: bytes,
            generation: 0,
        });
        call.encode(2).expect("encodes")
    };
    let with = |mut frame: Vec<u8>, more: &[u8]| {
        frame.extend_from_slice(more);
        frame
    };
    let cases = [
        (vec![9; 40], Refused::FrameVersion),
        (vec![2, 99, 0, 0, 0, 0], Refused::FrameKind),
        (with(call(10), b"cut"), Refused::FrameTruncated),
        (with(call(3), b"more than that"), Refused::FrameTrailing),
        (call(u32::MAX), Refused::FrameTooLong),
    ];
    for (bytes, what) in cases {
        say(&link, &bytes).await;
        until("counted", || b.stats().refused(what) == 1).await;
    }
    assert!(link.close_reason().is_none());
    link.send_datagram(vec![2, 99, 0, 0].into()).expect("sends");
    link.closed().await;
    until("counted", || b.stats().refused(Refused::FrameKind) == 2).await;

    // It comes back at once, with its good certificate.
    let again = connect(&endpoint, b.address(), Some(&bad), "homeostat-main/2").await;
    let again = again.expect("shaken");
    greet(&again).await;
    again.closed().await;
    until("counted", || b.stats().refused(Refused::Penalty) == 1).await;
    assert!(b.incoming.calls.try_recv().is_err());
    still_serves(&cluster, &mut b).await;
}

#[tokio::test]
async fn a_process_that_shows_our_own_certificate_is_named_a_clone() {
    let cluster = Cluster::new();
    let own = member(&cluster, 2);
    let options = net::Options::new(common::any_port(), own.clone(), cluster.table.hook());
    let mut b = node(options);
    let endpoint = endpoint();
    let link = connect(&endpoint, b.address(), Some(&own), "homeostat-main/2").await;
    let link = link.expect("shaken");
    greet(&link).await;
    link.closed().await;
    assert!(matches!(
        b.incoming.events.recv().await,
        Some(Event::Clones { node, .. }) if node == NodeId(2)
    ));
    assert!(b.transport.connected().is_empty());
}

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("reads");
    let pages = pages.split_whitespace().nth(1).expect("a second number");
    pages.parse::<usize>().expect("a number") * 4_096
}

#[tokio::test]
async fn a_member_that_holds_all_it_may_and_sends_without_end_costs_bounded_memory() {
    let cluster = Cluster::new();
    let mut options = cluster.options(2);
    // Not put out: what it holds is bounded all the same.
    options.limits.faults_max = u32::MAX;
    options.limits.streams_queued_max = 64;
    let b = node(options);
    let bad = member(&cluster, 9);
    let endpoint = endpoint();
    let link = connect(&endpoint, b.address(), Some(&bad), "homeostat-main/2").await;
    let link = link.expect("shaken");
    greet(&link).await;
    let before = resident();
    let mut frame = Head::Call(Call {
        method: 1,
        deadline_ms: 60_000,
        body_bytes: 4 << 20,
        generation: 0,
    })
    .encode(2)
    .expect("encodes");
    frame.extend_from_slice(&[1; 2_000]);
    let mut held = Vec::new();
    let opening = async {
        // Calls whose bodies never end, until there is no leave for more.
        loop {
            let (mut send, recv) = link.open_bi().await.expect("lives");
            send.write_all(&frame).await.expect("writes");
            held.push((send, recv));
        }
    };
    tokio::select! {
        () = opening => {}
        () = until("busy", || b.stats().refused(Refused::CallQueue) > 100) => {}
    }
    let noise = bytes::Bytes::from(vec![9; 1_000]);
    until("much was refused", || {
        for _ in 0..100 {
            let _ = link.send_datagram(noise.clone());
        }
        b.stats().refused(Refused::FrameVersion) > 20_000
    })
    .await;
    // Its bodies are bounded together, not each by itself: 256 times 4 MiB
    // would be a gigabyte.
    let grown = resident().saturating_sub(before);
    assert!(grown < 128 << 20, "{grown}");
}

#[tokio::test]
async fn a_member_that_does_not_greet_as_it_should_is_not_heard() {
    let cluster = Cluster::new();
    let mut options = cluster.options(2);
    options.limits.handshake_time = Duration::from_millis(300);
    let mut b = node(options);
    let endpoint = endpoint();
    let call = Head::Call(Call {
        method: 1,
        deadline_ms: 1_000,
        body_bytes: 0,
        generation: 0,
    });
    for (id, said) in [
        (10, Some(vec![9; 100])),
        (11, Some(call.encode(2).expect("encodes"))),
        (12, None),
    ] {
        let credentials = member(&cluster, id);
        let link = connect(
            &endpoint,
            b.address(),
            Some(&credentials),
            "homeostat-main/2",
        )
        .await;
        let link = link.expect("shaken");
        if let Some(bytes) = said {
            say_once(&link, &bytes).await;
        } else {
            let (mut send, _recv) = link.open_bi().await.expect("leave");
            let frame = call.encode(2).expect("encodes");
            send.write_all(&frame).await.expect("writes");
        }
        link.closed().await;
        assert!(matches!(b.transport.state(NodeId(id)), PeerState::Unknown));
    }
    assert!(b.incoming.calls.try_recv().is_err());
    still_serves(&cluster, &mut b).await;
}

/// Passes packets on between a caller and `to`, and does them harm.
async fn harmful_path(to: SocketAddr) -> SocketAddr {
    let path = UdpSocket::bind(common::any_port()).await.expect("binds");
    let address = path.local_addr().expect("bound");
    tokio::spawn(async move {
        let mut random = fastrand::Rng::with_seed(11);
        let mut caller = to;
        let mut kept: Vec<(Vec<u8>, SocketAddr)> = Vec::new();
        let mut buffer = vec![0; 65_536];
        loop {
            let (bytes, from) = path.recv_from(&mut buffer).await.expect("receives");
            let target = if from == to {
                caller
            } else {
                caller = from;
                to
            };
            let packet = buffer[..bytes].to_vec();
            let mut out = vec![(packet.clone(), target)];
            match random.u8(0..10) {
                // Replayed at once, and kept to be replayed later.
                0 | 1 => {
                    out.push((packet.clone(), target));
                    kept.push((packet, target));
                }
                // Kept, to come after later ones.
                2 => kept.append(&mut out),
                // Cut.
                3 => out.push((packet[..bytes / 2].to_vec(), target)),
                // Forged: a bit changed.
                4 => {
                    let mut forged = packet;
                    let at = random.usize(..bytes);
                    forged[at] ^= 1 << random.u8(0..8);
                    out.push((forged, target));
                }
                5 if !kept.is_empty() => out.push(kept.swap_remove(random.usize(..kept.len()))),
                _ => {}
            }
            for (packet, target) in out {
                path.send_to(&packet, target).await.expect("sends");
            }
        }
    });
    address
}

#[tokio::test]
async fn replayed_reordered_cut_and_forged_packets_change_nothing_that_is_heard() {
    let cluster = Cluster::new();
    let (a, mut b) = (cluster.node(1), cluster.node(2));
    let path = harmful_path(b.address()).await;
    a.transport.set_peer(NodeId(2), vec![path.into()]);
    let hearing = tokio::spawn(async move {
        let mut heard = Vec::new();
        while heard.len() < 300 {
            let call = b.incoming.calls.recv().await.expect("a call");
            heard.push(call.body.to_vec());
            let body = call.body.clone();
            call.done(body);
        }
        let mut datagrams = Vec::new();
        while let Ok(received) = b.incoming.datagrams.try_recv() {
            datagrams.push(received.bytes.to_vec());
        }
        (heard, datagrams, b)
    });
    for number in 0..300_u32 {
        let body = number.to_be_bytes().repeat(50);
        a.transport.send_datagram(NodeId(2), &body).expect("sent");
        let answer = a.transport.call(NodeId(2), 1, body.clone(), SOON).await;
        assert_eq!(answer.expect("an answer"), body);
    }
    let (heard, datagrams, b) = hearing.await.expect("heard");
    let sent: BTreeSet<Vec<u8>> = (0..300_u32).map(|n| n.to_be_bytes().repeat(50)).collect();
    assert_eq!(heard.iter().cloned().collect::<BTreeSet<_>>(), sent);
    let once: BTreeSet<&Vec<u8>> = datagrams.iter().collect();
    assert_eq!(once.len(), datagrams.len(), "a datagram was heard twice");
    assert!(datagrams.iter().all(|datagram| sent.contains(datagram)));
    // None of it was taken for a frame.
    let stats = b.stats();
    let frames = stats
        .refused
        .keys()
        .filter(|what| format!("{what:?}").starts_with("Frame"));
    assert_eq!(frames.count(), 0, "{stats:?}");
}
