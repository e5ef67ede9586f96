//! Distances, losses, cuts and narrow links, imposed in the socket.

mod common;

use bytes::Bytes;
use common::{Cluster, Node, SOON, echo, node, until};
use kernel::NodeId;
use net::transport::{Open, Priority};
use net::{Impairment, Impairments};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

fn impaired(cluster: &Cluster, id: u64) -> (Node, Impairments) {
    let impairments = Impairments::new();
    let mut options = cluster.options(id);
    options.impairments = Some(impairments.clone());
    options.limits.idle = Duration::from_secs(1);
    options.limits.keep_alive = Duration::from_millis(200);
    options.limits.handshake_time = Duration::from_secs(1);
    (node(options), impairments)
}

fn acquainted(a: &Node, b: &Node) {
    a.knows(b);
    b.knows(a);
}

#[tokio::test]
async fn a_distance_is_there_for_all_traffic_and_can_change() {
    let cluster = Cluster::new();
    let (a, there) = impaired(&cluster, 1);
    let (mut b, back) = impaired(&cluster, 2);
    acquainted(&a, &b);
    echo(&mut b.incoming.calls);
    let far = |ms| Impairment::delayed(Duration::from_millis(ms));
    there.set(b.address(), far(30));
    back.set(a.address(), far(20));
    let began = Instant::now();
    a.transport
        .call(NodeId(2), 1, "x", SOON)
        .await
        .expect("answers");
    // The handshake alone is a round trip, the call another.
    assert!(began.elapsed() >= Duration::from_millis(100));
    let rtt = a.transport.rtt(NodeId(2)).expect("connected");
    assert!(rtt >= Duration::from_millis(50), "{rtt:?}");
    there.clear_all();
    back.clear_all();
    until("near again", || {
        let _ = a.transport.send_datagram(NodeId(2), b"x");
        a.transport
            .rtt(NodeId(2))
            .is_some_and(|rtt| rtt < Duration::from_millis(40))
    })
    .await;
}

#[tokio::test]
async fn a_cut_in_one_direction_ends_the_connection_and_it_heals() {
    for to in [true, false] {
        let cluster = Cluster::new();
        let (a, impairments) = impaired(&cluster, 1);
        let (mut b, _) = impaired(&cluster, 2);
        acquainted(&a, &b);
        echo(&mut b.incoming.calls);
        a.transport
            .call(NodeId(2), 1, "x", SOON)
            .await
            .expect("answers");
        impairments.set_ip(
            b.address().ip(),
            Impairment {
                cut_to: to,
                cut_from: !to,
                ..Impairment::default()
            },
        );
        until("both noticed", || {
            a.transport.rtt(NodeId(2)).is_none() && b.transport.rtt(NodeId(1)).is_none()
        })
        .await;
        impairments.clear_ip(b.address().ip());
        let again = async {
            while a.transport.call(NodeId(2), 1, "x", SOON).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, again).await.expect("healed");
    }
}

#[tokio::test]
async fn calls_survive_loss() {
    let cluster = Cluster::new();
    let (a, there) = impaired(&cluster, 1);
    let (mut b, back) = impaired(&cluster, 2);
    acquainted(&a, &b);
    echo(&mut b.incoming.calls);
    a.transport.connect(NodeId(2)).await.expect("connects");
    let lossy = Impairment {
        loss: 0.1,
        ..Impairment::default()
    };
    there.set(b.address(), lossy.clone());
    back.set(a.address(), lossy);
    for number in 0..100_u32 {
        let body = number.to_be_bytes().to_vec();
        let answer = a.transport.call(NodeId(2), 1, body.clone(), SOON).await;
        assert_eq!(answer.expect("an answer"), body);
    }
    assert!(there.lost() > 0);
}

/// Sends `bytes` in bulk from one to the other.
async fn bulk(from: &Node, to: &mut Node, bytes: usize) {
    let open = Open {
        method: 1,
        head: Bytes::new(),
        priority: Priority::Bulk,
        within: SOON,
    };
    let stream = from.transport.open(to.id, open).await.expect("opens");
    let (mut send, _recv) = stream.split();
    let writing = tokio::spawn(async move {
        for _ in 0..bytes / 10_000 {
            send.write_bytes(vec![5; 10_000].into()).await?;
        }
        send.finish();
        std::io::Result::Ok(())
    });
    let mut incoming = to.incoming.streams.recv().await.expect("a stream");
    let mut read = Vec::new();
    incoming.stream.read_to_end(&mut read).await.expect("reads");
    assert_eq!(read.len(), bytes);
    writing.await.expect("ran").expect("writes");
}

#[tokio::test]
async fn a_call_is_answered_beside_streams_that_fill_the_link_without_end() {
    let cluster = Cluster::new();
    let (a, _) = impaired(&cluster, 1);
    let (mut b, back) = impaired(&cluster, 2);
    acquainted(&a, &b);
    echo(&mut b.incoming.calls);
    back.set(
        a.address(),
        Impairment {
            bytes_per_second: Some(1_000_000),
            queue_bytes_max: 64_000,
            ..Impairment::default()
        },
    );
    let open = Open {
        method: 1,
        head: Bytes::new(),
        priority: Priority::Normal,
        within: SOON,
    };
    let mut stream = a.transport.open(NodeId(2), open).await.expect("opens");
    let mut incoming = b.incoming.streams.recv().await.expect("a stream");
    let writing = tokio::spawn(async move {
        let chunk = Bytes::from(vec![5; 10_000]);
        while incoming
            .stream
            .send
            .write_bytes(chunk.clone())
            .await
            .is_ok()
        {}
    });
    let reading =
        tokio::spawn(
            async move { while let Ok(Some(_)) = stream.recv.read_bytes(1 << 20).await {} },
        );
    for _ in 0..10 {
        a.transport
            .call(NodeId(2), 1, "x", SOON)
            .await
            .expect("answers");
    }
    assert!(!writing.is_finished() && !reading.is_finished());
    reading.abort();
}

#[tokio::test]
async fn bulk_fills_a_narrow_link_but_never_its_queue_so_that_no_heartbeat_is_lost() {
    // Once dialled by the sender, once by the receiver: each side has its own
    // congestion control.
    for dialled_by_sender in [true, false] {
        let cluster = Cluster::new();
        let (a, there) = impaired(&cluster, 1);
        let (mut b, back) = impaired(&cluster, 2);
        there.set(
            b.address(),
            Impairment {
                delay: Duration::from_millis(10),
                bytes_per_second: Some(4_000_000),
                // 64 ms: what waits for loss to slow down overflows it.
                queue_bytes_max: 256_000,
                ..Impairment::default()
            },
        );
        back.set(a.address(), Impairment::delayed(Duration::from_millis(10)));
        a.knows(&b);
        if !dialled_by_sender {
            b.knows(&a);
            let open = Open {
                method: 1,
                head: Bytes::new(),
                priority: Priority::Bulk,
                within: SOON,
            };
            drop(b.transport.open(NodeId(1), open).await.expect("opens"));
        }
        a.transport.connect(NodeId(2)).await.expect("connects");
        let beating = {
            let transport = a.transport.clone();
            tokio::spawn(async move {
                let mut beats = 0_u32;
                loop {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    if transport.send_datagram(NodeId(2), b"beat").is_ok() {
                        beats += 1;
                    }
                    if beats == 100 {
                        return beats;
                    }
                }
            })
        };
        bulk(&a, &mut b, 8_000_000).await;
        let beats = beating.await.expect("ran");
        for _ in 0..beats {
            let heard = tokio::time::timeout(SOON, b.incoming.datagrams.recv()).await;
            heard.expect("no beat was lost").expect("open");
        }
        assert_eq!(there.lost(), 0);
    }
}
