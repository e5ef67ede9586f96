//! Calls between two nodes: answers, errors, deadlines, cancelling, bounds.

mod common;

use common::{Cluster, SOON, echo, node, until};
use kernel::NodeId;
use net::transport::{CallError, Event, PeerState, ReachError, Refused};
use std::time::Duration;

#[tokio::test]
async fn a_call_is_answered_and_says_from_whom_it_came() {
    let cluster = Cluster::new();
    let (a, mut b) = cluster.pair();
    a.transport.set_generation(3);
    let answering = tokio::spawn(async move {
        let call = b.incoming.calls.recv().await.expect("a call");
        assert_eq!(call.from.node, NodeId(1));
        assert_eq!((call.method, call.generation), (7, 3));
        assert_eq!(&call.body[..], b"ping");
        call.done("pong");
        b
    });
    let answer = a.transport.call(NodeId(2), 7, "ping", SOON).await;
    assert_eq!(&answer.expect("an answer")[..], b"pong");
    let b = answering.await.expect("answered");
    assert!(matches!(
        b.transport.state(NodeId(1)),
        PeerState::Connected { version: 2, .. }
    ));
    assert!(a.transport.rtt(NodeId(2)).is_some());
}

#[tokio::test]
async fn the_answerer_calls_back_on_the_same_connection() {
    let cluster = Cluster::new();
    let (mut a, mut b) = (cluster.node(1), cluster.node(2));
    a.knows(&b);
    echo(&mut a.incoming.calls);
    echo(&mut b.incoming.calls);
    let unknown = b.transport.call(NodeId(1), 1, "x", SOON).await;
    assert!(matches!(
        unknown,
        Err(CallError::Unreachable(ReachError::NoAddress { .. }))
    ));
    a.transport
        .call(NodeId(2), 1, "x", SOON)
        .await
        .expect("answers");
    until("b knows a", || b.transport.rtt(NodeId(1)).is_some()).await;
    b.transport
        .call(NodeId(1), 1, "x", SOON)
        .await
        .expect("answers");
    assert!(matches!(
        b.incoming.events.recv().await,
        Some(Event::Connected { identity, .. }) if identity.node == NodeId(1)
    ));
}

#[tokio::test]
async fn big_bodies_pass_and_bigger_are_refused_before_they_are_sent() {
    let cluster = Cluster::new();
    let (a, mut b) = cluster.pair();
    echo(&mut b.incoming.calls);
    let body = vec![7; 4 << 20];
    let answer = a.transport.call(NodeId(2), 1, body.clone(), SOON).await;
    assert_eq!(answer.expect("an answer"), body);
    let longer = vec![7; (4 << 20) + 1];
    let refused = a.transport.call(NodeId(2), 1, longer, SOON).await;
    assert!(matches!(refused, Err(CallError::TooLong { .. })));
}

#[tokio::test]
async fn errors_say_what_happened_and_whether_it_may_have_run() {
    let cluster = Cluster::new();
    let (a, mut b) = cluster.pair();
    let answering = tokio::spawn(async move {
        while let Some(call) = b.incoming.calls.recv().await {
            match call.method {
                1 => call.refuse("no"),
                2 => call.unknown_method(),
                3 => call.busy(),
                4 => drop(call),
                _ => {
                    let mut call = call;
                    call.cancelled().await;
                }
            }
        }
    });
    let call = |method| a.transport.call(NodeId(2), method, "x", SOON);
    let refused = call(1).await.expect_err("refused");
    assert!(matches!(&refused, CallError::Refused { error, .. } if &error[..] == b"no"));
    let unknown = call(2).await.expect_err("unknown");
    assert!(matches!(
        unknown,
        CallError::UnknownMethod { method: 2, .. }
    ));
    assert!(!unknown.may_have_run());
    let busy = call(3).await.expect_err("busy");
    assert!(matches!(busy, CallError::PeerBusy { .. }) && !busy.may_have_run());
    let abandoned = call(4).await.expect_err("abandoned");
    assert!(matches!(abandoned, CallError::Abandoned { .. }) && abandoned.may_have_run());
    let short = Duration::from_millis(50);
    let late = a.transport.call(NodeId(2), 5, "x", short).await;
    let late = late.expect_err("late");
    assert!(matches!(late, CallError::Late { .. }) && late.may_have_run());
    answering.abort();
}

#[tokio::test]
async fn a_caller_that_stops_waiting_cancels_the_call() {
    let cluster = Cluster::new();
    let (a, mut b) = cluster.pair();
    let caller = {
        let transport = a.transport.clone();
        tokio::spawn(async move { transport.call(NodeId(2), 1, "x", SOON * 10).await })
    };
    let mut call = b.incoming.calls.recv().await.expect("a call");
    caller.abort();
    tokio::time::timeout(SOON, call.cancelled())
        .await
        .expect("told");
}

#[tokio::test]
async fn too_many_calls_are_refused_at_once_on_either_side() {
    let cluster = Cluster::new();
    let mut options = cluster.options(2);
    options.limits.calls_in_max = 2;
    let mut b = node(options);
    let mut options = cluster.options(1);
    options.limits.calls_out_max = 3;
    let a = node(options);
    a.knows(&b);
    let call =
        |transport: net::Transport| async move { transport.call(NodeId(2), 1, "x", SOON).await };
    let mut held = Vec::new();
    let mut waiting = Vec::new();
    for _ in 0..2 {
        waiting.push(tokio::spawn(call(a.transport.clone())));
        held.push(b.incoming.calls.recv().await.expect("a call"));
    }
    let busy = call(a.transport.clone()).await;
    assert!(matches!(busy, Err(CallError::PeerBusy { .. })));
    assert_eq!(b.stats().refused(Refused::CallQueue), 1);
    for one in held {
        one.done("y");
    }
    for one in waiting {
        one.await.expect("ran").expect("answers");
    }

    let mut c = cluster.node(3);
    a.knows(&c);
    let call =
        |transport: net::Transport| async move { transport.call(NodeId(3), 1, "x", SOON).await };
    let mut held = Vec::new();
    for _ in 0..3 {
        tokio::spawn(call(a.transport.clone()));
        held.push(c.incoming.calls.recv().await.expect("a call"));
    }
    let busy = call(a.transport.clone()).await;
    assert!(matches!(busy, Err(CallError::Busy { limit: 3, .. })));
}

#[tokio::test]
async fn nobody_at_the_address_is_said_and_not_called_again_at_once() {
    let cluster = Cluster::new();
    let mut options = cluster.options(1);
    options.limits.handshake_time = Duration::from_millis(200);
    let a = node(options);
    let silent = std::net::UdpSocket::bind(common::any_port()).expect("binds");
    let address = silent.local_addr().expect("bound");
    a.transport.set_peer(NodeId(2), vec![address.into()]);
    let failed = a.transport.call(NodeId(2), 1, "x", SOON).await;
    let failed = failed.expect_err("nobody");
    assert!(!failed.may_have_run());
    assert!(
        failed.to_string().contains(&address.to_string()),
        "{failed}"
    );
    let again = a.transport.call(NodeId(2), 1, "x", SOON).await;
    assert!(matches!(
        again,
        Err(CallError::Unreachable(ReachError::BackOff { .. }))
    ));
    assert!(matches!(
        a.transport.state(NodeId(2)),
        PeerState::BackOff { failures: 1, .. }
    ));
    // A new address is tried at once.
    let b = cluster.node(2);
    a.knows(&b);
    a.transport.connect(NodeId(2)).await.expect("connects");
}

#[tokio::test]
async fn a_silent_first_address_does_not_hold_up_the_second() {
    let cluster = Cluster::new();
    let (a, mut b) = (cluster.node(1), cluster.node(2));
    echo(&mut b.incoming.calls);
    let silent = std::net::UdpSocket::bind(common::any_port()).expect("binds");
    let silent = silent.local_addr().expect("bound");
    let addresses = vec![silent.into(), b.address().into()];
    a.transport.set_peer(NodeId(2), addresses);
    a.transport
        .call(NodeId(2), 1, "x", SOON)
        .await
        .expect("answers");
}

#[tokio::test]
async fn a_transport_that_is_dropped_says_goodbye_and_frees_its_port() {
    let cluster = Cluster::new();
    let (a, b) = cluster.pair();
    a.transport.connect(NodeId(2)).await.expect("connects");
    let address = b.address();
    drop(b);
    until("told", || a.transport.rtt(NodeId(2)).is_none()).await;
    until("free", || std::net::UdpSocket::bind(address).is_ok()).await;
    let (a, b) = cluster.pair();
    a.transport.connect(NodeId(2)).await.expect("connects");
    b.transport.close().await;
    until("told", || a.transport.rtt(NodeId(2)).is_none()).await;
    drop(a);
}

#[tokio::test]
async fn both_calling_at_once_end_with_one_connection_and_lose_no_call() {
    let cluster = Cluster::new();
    let (mut a, mut b) = cluster.pair();
    echo(&mut a.incoming.calls);
    echo(&mut b.incoming.calls);
    for _ in 0..20 {
        let (there, back) = tokio::join!(
            a.transport.call(NodeId(2), 1, "x", SOON),
            b.transport.call(NodeId(1), 1, "x", SOON),
        );
        there.expect("answers");
        back.expect("answers");
    }
    let loads = |node: &common::Node| node.transport.connected().len();
    assert_eq!((loads(&a), loads(&b)), (1, 1));
    let (mut there, mut back) = (0, 0);
    until("one connection", || {
        there = a.transport.connections(NodeId(2));
        back = b.transport.connections(NodeId(1));
        there == 1 && back == 1
    })
    .await;
    a.transport
        .call(NodeId(2), 1, "x", SOON)
        .await
        .expect("answers");
    b.transport
        .call(NodeId(1), 1, "x", SOON)
        .await
        .expect("answers");
}
