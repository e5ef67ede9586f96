//! Nodes that cannot be dialled, reached through relays.

mod common;

use bytes::Bytes;
use common::{Cluster, Node, SOON, echo, node, until};
use kernel::NodeId;
use net::identity::Refusal;
use net::transport::{Failure, Open, PeerState, Priority, ReachError, Refused};
use net::{Address, Impairment, Impairments};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// `hidden` keeps a connection to `relay`, and `a` knows it by that alone.
async fn behind(cluster: &Cluster, relay: &Node, id: u64) -> Node {
    let hidden = cluster.node(id);
    hidden.knows(relay);
    hidden.transport.set_relays(vec![relay.id]);
    until("connected to the relay", || {
        relay.transport.rtt(hidden.id).is_some()
    })
    .await;
    hidden
}

#[tokio::test]
async fn a_hidden_node_is_called_and_calls_through_its_relay() {
    let cluster = Cluster::new();
    let (mut a, relay) = (cluster.node(1), cluster.node(2));
    let mut hidden = behind(&cluster, &relay, 3).await;
    a.knows(&relay);
    a.transport
        .set_peer(NodeId(3), vec![Address::Via(NodeId(2))]);
    echo(&mut hidden.incoming.calls);
    let answer = a.transport.call(NodeId(3), 1, "x", SOON).await;
    assert_eq!(&answer.expect("an answer")[..], b"x");
    assert!(matches!(
        a.transport.state(NodeId(3)),
        PeerState::Connected {
            address: Address::Via(NodeId(2)),
            ..
        }
    ));
    // And back, on the same connection.
    echo(&mut a.incoming.calls);
    until("known", || hidden.transport.rtt(NodeId(1)).is_some()).await;
    hidden
        .transport
        .call(NodeId(1), 1, "y", SOON)
        .await
        .expect("answers");
    a.transport
        .send_datagram(NodeId(3), &[1; 1_100])
        .expect("sent");
    let received = hidden.incoming.datagrams.recv().await.expect("a datagram");
    assert_eq!(received.from.node, NodeId(1));
    // The relay heard none of it, nor was it called.
    let mut relay = relay;
    assert!(relay.incoming.calls.try_recv().is_err());
    assert!(relay.incoming.datagrams.try_recv().is_err());
}

#[tokio::test]
async fn much_data_passes_a_relay_whole() {
    let cluster = Cluster::new();
    let relay = cluster.node(2);
    let hidden = behind(&cluster, &relay, 3).await;
    let mut other = behind(&cluster, &relay, 4).await;
    // Both hidden: each knows the other by the relay alone.
    hidden
        .transport
        .set_peer(NodeId(4), vec![Address::Via(NodeId(2))]);
    let open = Open {
        method: 1,
        head: Bytes::new(),
        priority: Priority::Bulk,
        within: SOON,
    };
    let mut stream = hidden.transport.open(NodeId(4), open).await.expect("opens");
    let sent: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_be_bytes).collect();
    let writing = {
        let sent = sent.clone();
        tokio::spawn(async move {
            stream.write_all(&sent).await?;
            stream.shutdown().await
        })
    };
    let mut incoming = other.incoming.streams.recv().await.expect("a stream");
    let mut read = Vec::new();
    incoming.stream.read_to_end(&mut read).await.expect("reads");
    writing.await.expect("ran").expect("writes");
    assert!(read == sent);
}

#[tokio::test]
async fn a_relay_that_does_not_reach_the_node_or_does_not_relay_is_passed_over() {
    let cluster = Cluster::new();
    let mut options = cluster.options(1);
    options.limits.handshake_time = std::time::Duration::from_millis(500);
    let a = node(options);
    let (far, good) = (cluster.node(5), cluster.node(6));
    let mut options = cluster.options(2);
    options.relays = false;
    let unwilling = node(options);
    let mut hidden = behind(&cluster, &good, 3).await;
    hidden.knows(&unwilling);
    hidden.transport.connect(NodeId(2)).await.expect("connects");
    echo(&mut hidden.incoming.calls);
    for relay in [&unwilling, &far, &good] {
        a.knows(relay);
    }
    let ways = [2, 5, 6].map(|relay| Address::Via(NodeId(relay)));
    a.transport.set_peer(NodeId(3), ways.to_vec());
    a.transport
        .call(NodeId(3), 1, "x", SOON)
        .await
        .expect("the third does");
    assert!(unwilling.stats().refused(Refused::Relay) > 0);
    assert!(far.stats().refused(Refused::Relay) > 0);
    a.transport
        .set_peer(NodeId(7), vec![Address::Via(NodeId(5))]);
    let failed = a.transport.connect(NodeId(7)).await.expect_err("nobody");
    assert!(matches!(
        failed,
        ReachError::Failed { attempts, .. } if matches!(attempts[..], [(_, Failure::Silent)])
    ));
}

#[tokio::test]
async fn who_was_reached_through_a_relay_dials_back_and_the_direct_way_is_taken() {
    let cluster = Cluster::new();
    let (a, relay) = (cluster.node(1), cluster.node(2));
    let mut hidden = behind(&cluster, &relay, 3).await;
    a.knows(&relay);
    hidden.knows(&a);
    a.transport
        .set_peer(NodeId(3), vec![Address::Via(NodeId(2))]);
    echo(&mut hidden.incoming.calls);
    let answer = a.transport.call(NodeId(3), 1, "x", SOON).await;
    assert_eq!(&answer.expect("an answer")[..], b"x");
    until("direct", || {
        matches!(
            a.transport.state(NodeId(3)),
            PeerState::Connected {
                address: Address::Direct(_),
                ..
            }
        )
    })
    .await;
    // The one through the relay is ended by whoever dialled it.
    until("one is left", || a.transport.connections(NodeId(3)) == 1).await;
    let answer = a.transport.call(NodeId(3), 1, "y", SOON).await;
    assert_eq!(&answer.expect("an answer")[..], b"y");
}

#[tokio::test]
async fn much_data_for_a_node_without_an_address_runs_on_a_connection_that_it_dials() {
    let cluster = Cluster::new();
    let relay = cluster.node(2);
    let mut hidden = behind(&cluster, &relay, 3).await;
    // The relay knows no way to it but what it dialled.
    let open = || Open {
        method: 1,
        head: Bytes::new(),
        priority: Priority::Bulk,
        within: SOON,
    };
    let mut stream = relay
        .transport
        .open(NodeId(3), open())
        .await
        .expect("opens");
    stream.write_all(b"bulk").await.expect("writes");
    stream.shutdown().await.expect("ends");
    let mut incoming = hidden.incoming.streams.recv().await.expect("a stream");
    let mut read = Vec::new();
    incoming.stream.read_to_end(&mut read).await.expect("reads");
    assert_eq!(read, b"bulk");
    assert_eq!(relay.transport.connections(NodeId(3)), 2);
    // One that nobody dials is not waited for: an error names it.
    let failed = relay.transport.open(NodeId(9), open()).await;
    assert!(failed.is_err());
}

#[tokio::test]
async fn who_asks_to_be_dialled_is_dialled_where_the_table_has_it_or_not_at_all() {
    use wire::net::frame::DIAL_ME;
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1), cluster.node(2));
    a.knows(&b);
    // It has a direct connection, b has no address of it, or it asks for what
    // there is not: nothing is dialled, and the connection lives on.
    for body in [&b"\0"[..], b"\x01", b"\x07", b"", b"192.0.2.1:1"] {
        let refused = a.transport.call(NodeId(2), DIAL_ME, body, SOON).await;
        assert!(matches!(
            refused,
            Err(net::transport::CallError::Refused { .. })
        ));
    }
    assert_eq!(b.transport.connections(NodeId(1)), 1);
}

#[tokio::test]
async fn a_relay_that_was_not_chosen_brings_nothing_in() {
    let cluster = Cluster::new();
    let mut options = cluster.options(1);
    options.limits.handshake_time = std::time::Duration::from_millis(300);
    let a = node(options);
    let (relay, b) = (cluster.node(2), cluster.node(3));
    // Connected, but no relay of its choice.
    b.knows(&relay);
    b.transport.connect(NodeId(2)).await.expect("connects");
    a.knows(&relay);
    a.transport
        .set_peer(NodeId(3), vec![Address::Via(NodeId(2))]);
    a.transport
        .connect(NodeId(3))
        .await
        .expect_err("not let in");
    assert!(b.stats().refused(Refused::Relay) > 0);
}

#[tokio::test]
async fn who_answers_behind_a_relay_is_judged_like_anybody() {
    let cluster = Cluster::new();
    let (a, relay) = (cluster.node(1), cluster.node(2));
    let hidden = behind(&cluster, &relay, 3).await;
    a.knows(&relay);
    cluster.table.revoke(NodeId(1));
    // The relay has not heard of it yet; the hidden node has.
    a.transport
        .set_peer(NodeId(3), vec![Address::Via(NodeId(2))]);
    let table_of_relay = relay.transport.connect(NodeId(1)).await;
    assert!(table_of_relay.is_err());
    let failed = a.transport.connect(NodeId(3)).await;
    assert!(failed.is_err());
    assert!(
        hidden.stats().refused(Refused::Peer(Refusal::Revoked))
            + relay.stats().refused(Refused::Peer(Refusal::Revoked))
            > 0
    );
}

#[tokio::test]
async fn a_relay_that_dies_is_replaced_by_another_way() {
    let cluster = Cluster::new();
    let impairments = Impairments::new();
    let mut options = cluster.options(1);
    options.impairments = Some(impairments.clone());
    options.limits.idle = std::time::Duration::from_secs(1);
    options.limits.keep_alive = std::time::Duration::from_millis(200);
    let a = node(options);
    let (first, second) = (cluster.node(2), cluster.node(3));
    let mut options = cluster.options(4);
    options.limits.idle = std::time::Duration::from_secs(1);
    options.limits.keep_alive = std::time::Duration::from_millis(200);
    let mut hidden = node(options);
    for relay in [&first, &second] {
        hidden.knows(relay);
        a.knows(relay);
    }
    hidden.transport.set_relays(vec![NodeId(2), NodeId(3)]);
    until("both relays", || hidden.transport.connected().len() == 2).await;
    echo(&mut hidden.incoming.calls);
    let ways = [2, 3].map(|relay| Address::Via(NodeId(relay)));
    a.transport.set_peer(NodeId(4), ways.to_vec());
    a.transport
        .call(NodeId(4), 1, "x", SOON)
        .await
        .expect("answers");
    impairments.set(first.address(), Impairment::cut());
    let again = async {
        while a
            .transport
            .call(NodeId(4), 1, "x", std::time::Duration::from_secs(2))
            .await
            .is_err()
        {}
    };
    tokio::time::timeout(SOON, again)
        .await
        .expect("by the second");
}
