//! Two adjacent versions speak with each other; strangers' versions do not.

mod common;

use bytes::Bytes;
use common::{Cluster, SOON, echo, node};
use kernel::NodeId;
use net::transport::{CallError, Failure, Open, PeerState, Priority, ReachError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::net::{VERSION, VERSION_MIN};

#[tokio::test]
async fn a_node_of_the_version_before_speaks_with_one_of_this_in_all_ways() {
    for old_calls in [true, false] {
        let cluster = Cluster::new();
        let mut options = cluster.options(1);
        options.versions = VERSION - 1..=VERSION - 1;
        let (mut old, mut new) = (node(options), cluster.node(2));
        new.transport.set_generation(4);
        let (caller, answerer) = if old_calls {
            (&mut old, &mut new)
        } else {
            (&mut new, &mut old)
        };
        caller.knows(answerer);
        echo(&mut answerer.incoming.calls);
        let answer = caller.transport.call(answerer.id, 1, "x", SOON).await;
        assert_eq!(&answer.expect("an answer")[..], b"x");
        assert!(matches!(
            caller.transport.state(answerer.id),
            PeerState::Connected { version, .. } if version == VERSION - 1
        ));
        caller
            .transport
            .send_datagram(answerer.id, b"rows")
            .expect("sent");
        let received = answerer
            .incoming
            .datagrams
            .recv()
            .await
            .expect("a datagram");
        assert_eq!(&received.bytes[..], b"rows");
        // The version before has no word for it.
        assert_eq!(received.generation, 0);
        let open = Open {
            method: 1,
            head: Bytes::from_static(b"head"),
            priority: Priority::Bulk,
            within: SOON,
        };
        let mut stream = caller
            .transport
            .open(answerer.id, open)
            .await
            .expect("opens");
        stream.write_all(b"there").await.expect("writes");
        stream.shutdown().await.expect("ends");
        let mut incoming = answerer.incoming.streams.recv().await.expect("a stream");
        let mut text = String::new();
        incoming
            .stream
            .read_to_string(&mut text)
            .await
            .expect("reads");
        assert_eq!((&incoming.head[..], text.as_str()), (&b"head"[..], "there"));
    }
}

#[tokio::test]
async fn the_newest_that_both_know_is_spoken() {
    let cluster = Cluster::new();
    let (a, mut b) = cluster.pair();
    echo(&mut b.incoming.calls);
    a.transport
        .call(NodeId(2), 1, "x", SOON)
        .await
        .expect("answers");
    assert!(matches!(
        a.transport.state(NodeId(2)),
        PeerState::Connected {
            version: VERSION,
            ..
        }
    ));
    const { assert!(VERSION_MIN < VERSION) };
}

#[tokio::test]
async fn versions_that_do_not_meet_are_named_as_the_cause() {
    let cluster = Cluster::new();
    let mut options = cluster.options(1);
    options.versions = VERSION_MIN..=VERSION_MIN;
    let old = node(options);
    let mut options = cluster.options(2);
    options.versions = VERSION..=VERSION;
    let new = node(options);
    old.knows(&new);
    let failed = old.transport.call(NodeId(2), 1, "x", SOON).await;
    let Err(CallError::Unreachable(ReachError::Failed { attempts, .. })) = failed else {
        panic!("{failed:?}");
    };
    assert!(
        matches!(attempts[..], [(_, Failure::Version)]),
        "{attempts:?}"
    );
}
