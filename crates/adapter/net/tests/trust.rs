//! Who is refused at the handshake, and who is put out later.

mod common;

use common::{Cluster, Node, SOON, echo, node, now, until};
use kernel::{NodeId, UnixMillis};
use net::identity::{Clock, Refusal};
use net::transport::{CallError, Event, Failure, ReachError, Refused};
use net::{Kind, NodeKey, Options};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why `from` does not reach `to`.
async fn why(from: &Node, to: u64) -> Vec<Failure> {
    let failed = from.transport.call(NodeId(to), 1, "x", SOON).await;
    match failed.expect_err("not reached") {
        CallError::Unreachable(ReachError::Failed { attempts, .. }) => {
            attempts.into_iter().map(|(_, why)| why).collect()
        }
        other => panic!("{other}"),
    }
}

async fn refused_by(from: &Node, to: &Node, what: Refusal) {
    from.knows(to);
    let why = why(from, to.id.0).await;
    assert!(matches!(why[..], [Failure::RefusedBy(_)]), "{why:?}");
    until("counted", || to.stats().refused(Refused::Peer(what)) > 0).await;
}

#[tokio::test]
async fn another_clusters_node_is_refused_by_both_sides() {
    let (ours, theirs) = (Cluster::new(), Cluster::new());
    let (a, b) = (ours.node(1), theirs.node(2));
    a.knows(&b);
    let failed = why(&a, 2).await;
    assert!(matches!(failed[..], [Failure::Refused(Refusal::Chain)]));
    assert_eq!(a.stats().refused(Refused::Peer(Refusal::Chain)), 1);
}

#[tokio::test]
async fn unknown_revoked_and_otherwise_keyed_nodes_are_refused() {
    let cluster = Cluster::new();
    let b = cluster.node(2);
    let key = Arc::new(NodeKey::generate().expect("a key"));
    let stranger = |id| {
        let credentials = cluster.credentials(Kind::Agent, id, &key);
        node(Options::new(
            common::any_port(),
            credentials,
            cluster.table.hook(),
        ))
    };
    refused_by(&stranger(7), &b, Refusal::Unknown).await;
    // One key under the name of another node.
    let c = cluster.node(3);
    refused_by(&stranger(3), &b, Refusal::OtherKey).await;
    cluster.table.revoke(NodeId(3));
    refused_by(&c, &b, Refusal::Revoked).await;
}

#[tokio::test]
async fn an_edge_is_refused_where_an_agent_is_required_and_the_other_way_round() {
    let cluster = Cluster::new();
    let (agent, edge) = (cluster.node(1), node(cluster.edge_options(2)));
    edge.knows(&agent);
    let failed = why(&edge, 1).await;
    assert!(matches!(failed[..], [Failure::Refused(Refusal::Kind)]));

    // An edge that would believe agents still shows its own certificate.
    let mut options = cluster.edge_options(3);
    options.peers = Kind::Agent;
    refused_by(&node(options), &agent, Refusal::Kind).await;

    let mut other = node(cluster.edge_options(4));
    echo(&mut other.incoming.calls);
    edge.knows(&other);
    edge.transport
        .call(NodeId(4), 1, "x", SOON)
        .await
        .expect("edges speak");
}

#[tokio::test]
async fn whoever_answers_at_the_address_must_be_the_node_that_was_called() {
    let cluster = Cluster::new();
    let (a, b, c) = (cluster.node(1), cluster.node(2), cluster.node(3));
    a.transport
        .set_peer(NodeId(3), vec![b.address().into(), c.address().into()]);
    a.transport
        .connect(NodeId(3))
        .await
        .expect("the second address is its own");
    assert_eq!(a.stats().refused(Refused::Peer(Refusal::Node)), 1);
}

#[tokio::test]
async fn a_revoked_node_is_put_out_at_once_and_does_not_come_back() {
    let cluster = Cluster::new();
    let (a, mut b) = cluster.pair();
    let mut c = cluster.node(3);
    echo(&mut b.incoming.calls);
    echo(&mut c.incoming.calls);
    c.knows(&b);
    b.knows(&c);
    for (one, to) in [(&a, 2), (&c, 2)] {
        one.transport
            .call(NodeId(to), 1, "x", SOON)
            .await
            .expect("answers");
    }
    until("both known", || b.transport.connected().len() == 2).await;
    cluster.table.revoke(NodeId(1));
    b.transport.reauthorise();
    until("only c is left", || {
        let left = b.transport.connected();
        left.len() == 1 && left[0].node == NodeId(3)
    })
    .await;
    until("a noticed", || a.transport.rtt(NodeId(2)).is_none()).await;
    a.transport
        .call(NodeId(2), 1, "x", SOON)
        .await
        .expect_err("revoked");
    until("counted", || {
        b.stats().refused(Refused::Peer(Refusal::Revoked)) > 0
    })
    .await;
    c.transport
        .call(NodeId(2), 1, "x", SOON)
        .await
        .expect("others go on");
    let mut told = Vec::new();
    while let Ok(event) = b.incoming.events.try_recv() {
        told.push(event);
    }
    assert!(told.iter().any(|event| matches!(
        event,
        Event::Disconnected { node, .. } if *node == NodeId(1)
    )));
}

fn at(offset_hours: i64) -> Clock {
    Arc::new(move || {
        let offset = offset_hours * 3_600_000;
        UnixMillis(now().0.saturating_add_signed(offset))
    })
}

#[tokio::test]
async fn a_clock_an_hour_off_on_one_side_harms_nobody() {
    for offset in [-1, 1] {
        let cluster = Cluster::new();
        let mut options = cluster.options(1);
        options.clock = at(offset);
        let (mut a, mut b) = (node(options), cluster.node(2));
        a.knows(&b);
        b.knows(&a);
        echo(&mut a.incoming.calls);
        echo(&mut b.incoming.calls);
        a.transport
            .call(NodeId(2), 1, "x", SOON)
            .await
            .expect("answers");
        until("b knows a", || b.transport.rtt(NodeId(1)).is_some()).await;
        b.transport
            .call(NodeId(1), 1, "x", SOON)
            .await
            .expect("answers");
    }
}

#[tokio::test]
async fn an_ended_certificate_is_refused_but_while_there_is_no_quorum() {
    let cluster = Cluster::new();
    let key = Arc::new(NodeKey::generate().expect("a key"));
    let day_before = UnixMillis(now().0 - 25 * 3_600_000);
    let credentials = cluster.credentials_at(Kind::Agent, 1, &key, day_before);
    cluster
        .table
        .admit(&credentials.view().expect("reads").identity);
    let mut a = node(Options::new(
        common::any_port(),
        credentials,
        cluster.table.hook(),
    ));
    let mut b = cluster.node(2);
    echo(&mut b.incoming.calls);
    refused_by(&a, &b, Refusal::Expired).await;
    b.transport.set_no_quorum(true);
    until("called again", || {
        a.knows(&b);
        a.transport.rtt(NodeId(2)).is_some() || {
            let _ = a.transport.send_datagram(NodeId(2), b"x");
            false
        }
    })
    .await;
    // A quorum again, and no renewal: put out.
    b.transport.set_no_quorum(false);
    until("put out", || b.transport.rtt(NodeId(1)).is_none()).await;

    // Renewed, it is let in.
    let renewed = cluster.credentials(Kind::Agent, 1, &key);
    a.transport.set_credentials(&renewed).expect("swapped");
    until("back", || {
        let _ = a.transport.send_datagram(NodeId(2), b"x");
        a.transport.rtt(NodeId(2)).is_some()
    })
    .await;
    echo(&mut a.incoming.calls);
}

#[tokio::test]
async fn a_renewed_certificate_replaces_connections_without_losing_a_call() {
    let cluster = Cluster::new();
    let clock_at = Arc::new(AtomicU64::new(now().0));
    let key = Arc::new(NodeKey::generate().expect("a key"));
    let earlier = UnixMillis(now().0 - 12 * 3_600_000);
    let of_yesterday = |id, key| {
        let credentials = cluster.credentials_at(Kind::Agent, id, key, earlier);
        cluster
            .table
            .admit(&credentials.view().expect("reads").identity);
        let hook = cluster.table.hook();
        node(Options::new(common::any_port(), credentials, hook))
    };
    let a = of_yesterday(1, &key);
    let unrenewed = of_yesterday(3, &Arc::new(NodeKey::generate().expect("a key")));
    let mut options = cluster.options(2);
    let shared = clock_at.clone();
    options.clock = Arc::new(move || UnixMillis(shared.load(Ordering::Relaxed)));
    let mut b = node(options);
    a.knows(&b);
    echo(&mut b.incoming.calls);
    a.transport
        .call(NodeId(2), 1, "x", SOON)
        .await
        .expect("answers");

    let calling = {
        let transport = a.transport.clone();
        tokio::spawn(async move {
            for _ in 0..2_000 {
                transport.call(NodeId(2), 1, "x", SOON).await?;
            }
            Ok::<(), CallError>(())
        })
    };
    let renewed = cluster.credentials(Kind::Agent, 1, &key);
    a.transport.set_credentials(&renewed).expect("swapped");
    calling.await.expect("ran").expect("no call was lost");
    until("one connection", || a.transport.connections(NodeId(2)) == 1).await;
    // Where the first certificate has ended, the connection goes on.
    unrenewed.knows(&b);
    unrenewed
        .transport
        .connect(NodeId(2))
        .await
        .expect("still valid");
    clock_at.fetch_add(13 * 3_600_000, Ordering::Relaxed);
    until("who did not renew is out", || {
        unrenewed.transport.rtt(NodeId(2)).is_none()
    })
    .await;
    assert!(b.transport.rtt(NodeId(1)).is_some());
    a.transport
        .call(NodeId(2), 1, "x", SOON)
        .await
        .expect("answers");
}

#[test]
fn a_node_that_was_killed_and_started_again_says_so_to_who_still_calls_the_old_one() {
    let cluster = Cluster::new();
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime")
    };
    let mut options = cluster.options(1);
    options.limits.idle = std::time::Duration::from_hours(1);
    let (here, there) = (runtime(), runtime());
    let a = here.block_on(async { node(options) });
    let mut options = cluster.options(2);
    options.limits.idle = std::time::Duration::from_hours(1);
    let b = there.block_on(async { node(options.clone()) });
    options.bind = b.address();
    a.knows(&b);
    let connecting = here.spawn({
        let transport = a.transport.clone();
        async move { transport.connect(NodeId(2)).await }
    });
    there.block_on(async {
        until("connected", || b.transport.rtt(NodeId(1)).is_some()).await;
    });
    here.block_on(connecting).expect("ran").expect("connects");
    // Without a word: its tasks are gone, its socket is closed.
    drop(b);
    there.shutdown_timeout(SOON);
    here.block_on(async {
        let mut b = node(options);
        echo(&mut b.incoming.calls);
        until("the old connection is known to be dead", || {
            let _ = a.transport.send_datagram(NodeId(2), b"x");
            a.transport.connections(NodeId(2)) == 1 && b.transport.rtt(NodeId(1)).is_some()
        })
        .await;
        a.transport
            .call(NodeId(2), 1, "x", SOON)
            .await
            .expect("answers");
    });
}

#[tokio::test]
async fn a_restarted_node_replaces_itself_and_clones_are_named() {
    let cluster = Cluster::new();
    let mut b = cluster.node(2);
    echo(&mut b.incoming.calls);
    let options = cluster.options(1);
    let first = node(options.clone());
    first.knows(&b);
    first
        .transport
        .call(NodeId(2), 1, "x", SOON)
        .await
        .expect("answers");
    let second = node(options);
    second.knows(&b);
    second
        .transport
        .call(NodeId(2), 1, "x", SOON)
        .await
        .expect("answers");
    until("the first was put out", || {
        first.transport.rtt(NodeId(2)).is_none()
    })
    .await;
    // A restart looks like this, and is no clone; but the first lives.
    while let Ok(event) = b.incoming.events.try_recv() {
        assert!(!matches!(event, Event::Clones { .. }));
    }
    first
        .transport
        .call(NodeId(2), 1, "x", SOON)
        .await
        .expect("answers");
    let named = async {
        loop {
            if let Some(Event::Clones { node, .. }) = b.incoming.events.recv().await {
                return node;
            }
        }
    };
    let named = tokio::time::timeout(SOON, named).await.expect("named");
    assert_eq!(named, NodeId(1));
}
