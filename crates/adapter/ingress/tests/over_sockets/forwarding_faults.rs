//! Other edges that are dead, slow, leaving or hostile.

use crate::support::lines::{State, nodes};
use crate::support::mortal::eventually;
use crate::support::puppet::{Puppet, Wire};
use crate::support::{World, ok, replica};
use ingress::Limits;
use kernel::NodeId;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const DEADLINE: Duration = Duration::from_secs(20);
const GET: &str = "GET / HTTP/1.1\r\nhost: app.test\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\n\
    content-length: 2\r\n\r\nhi";

fn quick() -> Limits {
    Limits {
        peer_greeting_time: Duration::from_millis(150),
        ..Limits::default()
    }
}

/// A replica on each of nodes 2 and 3 that says which; 2 is nearer.
async fn three(limits: Limits) -> [World; 3] {
    let mut worlds = nodes::<3>(limits).await;
    let second = replica(|_| Some(ok("second"))).await;
    let third = replica(|_| Some(ok("third"))).await;
    for world in &mut worlds {
        world.replicas(&[(2, second), (3, third)], DEADLINE);
    }
    worlds[0].lines.set_round_trip(2, Duration::from_millis(1));
    worlds[0].lines.set_round_trip(3, Duration::from_millis(9));
    worlds
}

#[tokio::test]
async fn first_failure_moves_all_later_requests_and_none_is_lost() {
    for state in [State::Silent, State::Lost] {
        let [one, _two, _three] = three(Limits {
            probation_first: Duration::from_mins(1),
            ..quick()
        })
        .await;
        assert!(one.get("app.test", "/", "").await.ends_with("second"));
        one.lines.set(2, state);
        for _ in 0..20 {
            assert!(one.get("app.test", "/", "").await.ends_with("third"));
            assert!(one.raw(POST).await.ends_with("third"));
        }
        assert_eq!(one.lines.opened(2), 2, "one more than before");
        assert_eq!(one.evidence().len(), 1, "{:?}", one.evidence());
        assert!(one.evidence()[0].starts_with("node 2: "));
        assert_eq!(one.service().errors, 0);
        assert_eq!(one.service().retried, 1);
    }
}

#[tokio::test]
async fn request_that_must_not_be_repeated_survives_a_dead_node() {
    let [one, _two, _three] = three(quick()).await;
    one.lines.set(2, State::Silent);
    let answer = one.raw(POST).await;
    assert!(answer.ends_with("third"), "{answer}");
    assert_eq!(one.evidence().len(), 1);
}

#[tokio::test]
async fn many_at_once_are_all_answered_when_a_node_dies_under_them() {
    let [one, _two, _three] = three(quick()).await;
    let clients: Vec<_> = (0..50)
        .map(|at| {
            if at == 25 {
                one.lines.set(2, State::Silent);
            }
            one.send("GET / HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\n\r\n")
        })
        .collect();
    for client in clients {
        let answer = client.await.expect("joins");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[tokio::test]
async fn those_who_wait_for_a_node_move_when_others_find_it_dead() {
    let mut worlds = nodes::<3>(quick()).await;
    let puppet = Puppet::new().await;
    let third = replica(|_| Some(ok("third"))).await;
    for world in &mut worlds {
        world.replicas(&[(2, puppet.address), (3, third)], DEADLINE);
    }
    let [one, _two, _three] = worlds;
    one.lines.set_round_trip(2, Duration::from_micros(1));
    let mut waiting = Wire::connect(one.address).await;
    waiting.write(GET).await;
    let (_request, _) = puppet.request().await;
    one.lines.set(2, State::Silent);
    // In flight there counts against it: the next one goes elsewhere by itself
    // unless the way is long.
    one.lines.set_round_trip(3, Duration::from_secs(1));
    assert!(one.get("app.test", "/", "").await.ends_with("third"));
    assert!(waiting.until("third").await.starts_with("HTTP/1.1 200 "));
    assert_eq!(one.evidence().len(), 1);
}

#[tokio::test]
async fn node_that_comes_back_is_used_again() {
    let limits = Limits {
        probation_first: Duration::from_millis(100),
        ..quick()
    };
    let [one, _two, _three] = three(limits).await;
    one.lines.set(2, State::Lost);
    assert!(one.get("app.test", "/", "").await.ends_with("third"));
    one.lines.set(2, State::Well);
    let begun = Instant::now();
    while !one.get("app.test", "/", "").await.ends_with("second") {
        assert!(begun.elapsed() < DEADLINE, "never asked again");
    }
    assert_eq!(one.service().errors, 0);
}

#[tokio::test]
async fn requests_wait_while_the_only_node_is_out() {
    let limits = Limits {
        probation_first: Duration::from_millis(100),
        ..quick()
    };
    let mut worlds = nodes::<2>(limits).await;
    let second = replica(|_| Some(ok("second"))).await;
    for world in &mut worlds {
        world.replicas(&[(2, second)], DEADLINE);
    }
    let [one, _two] = worlds;
    one.lines.set(2, State::Lost);
    let waiting = one.send(POST);
    eventually("one is held", || one.service().held == 1).await;
    one.lines.set(2, State::Well);
    assert!(waiting.await.expect("joins").ends_with("second"));
}

#[tokio::test]
async fn slow_replica_elsewhere_is_no_fault_of_its_node() {
    let mut worlds = nodes::<2>(quick()).await;
    let puppet = Puppet::new().await;
    let short = Duration::from_millis(400);
    for world in &mut worlds {
        world.replicas(&[(2, puppet.address)], short);
    }
    // The second node would wait longer: what is left of the deadline counts.
    worlds[1].replicas(&[(2, puppet.address)], DEADLINE);
    let [one, two] = worlds;
    let answer = one.send("GET / HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\n\r\n");
    let (mut replica, _) = puppet.request().await;
    assert!(answer.await.expect("joins").starts_with("HTTP/1.1 504 "));
    replica.rest().await;
    two.row(|row| row.status == 504 || row.status == 499).await;
    assert_eq!(one.evidence(), [""; 0]);
}

#[tokio::test]
async fn deadline_goes_along() {
    let [one, mut two] = nodes::<2>(quick()).await;
    let puppet = Puppet::new().await;
    two.replicas(&[(2, puppet.address)], DEADLINE);
    let mut stream = World::peer_stream(two.peer_port(&one), 1).await;
    stream
        .write(&head("via=0000000000000001; left_ms=50"))
        .await;
    let answer = stream.until("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(
        answer.contains("homeostat-answered: node=0000000000000002"),
        "{answer}"
    );
}

/// A forwarded request as another edge would write it.
fn head(told: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nhost: app.test\r\nhomeostat-forwarded: {told}; \
         replica=test.app-g1-0; client=192.0.2.7; tls=1; request=0000000000000007\r\n\r\n"
    )
}

#[tokio::test]
async fn circles_and_long_ways_are_refused() {
    let [one, mut two] = nodes::<2>(quick()).await;
    two.replicas(&[(2, replica(|_| Some(ok("hi"))).await)], DEADLINE);
    let port = two.peer_port(&one);
    for via in [
        // Seen already.
        "0000000000000002,0000000000000001",
        // Three hops.
        "0000000000000004,0000000000000003,0000000000000001",
    ] {
        let mut stream = World::peer_stream(port, 1).await;
        stream
            .write(&head(&format!("via={via}; left_ms=5000")))
            .await;
        let answer = stream.until("\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 508 "), "{answer}");
        assert!(answer.contains("homeostat-answered: refused=1"), "{answer}");
    }
}

#[tokio::test]
async fn edge_speaks_for_nobody_but_itself() {
    let [one, mut two] = nodes::<2>(quick()).await;
    let seen = replica(|_| panic!("reached")).await;
    two.replicas(&[(2, seen)], DEADLINE);
    let port = two.peer_port(&one);
    for told in [
        // Another node's way.
        "via=0000000000000003; left_ms=5000",
        "via=; left_ms=5000",
        "left_ms=5000",
        "via=0000000000000001",
        "via=0000000000000001; left_ms=99999999999999999999",
    ] {
        let mut stream = World::peer_stream(port, 1).await;
        stream.write(&head(told)).await;
        let answer = stream.until("\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{told}: {answer}");
    }
    let mut stream = World::peer_stream(port, 1).await;
    stream.write(GET).await;
    assert!(stream.until("\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn two_requests_in_one_are_refused_between_edges_as_well() {
    let [one, mut two] = nodes::<2>(quick()).await;
    two.replicas(&[(2, replica(|_| panic!("reached")).await)], DEADLINE);
    let port = two.peer_port(&one);
    let both = "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n";
    let good = head("via=0000000000000001; left_ms=5000");
    for (from, to) in [
        ("\r\n\r\n", format!("\r\n{both}0\r\n\r\n")),
        (
            "host: app.test",
            "host: app.test\r\nhost: other.test".to_owned(),
        ),
        ("GET / ", "GET /../x ".to_owned()),
        ("client=192.0.2.7", "client=192.0.2.7\r\n x: y".to_owned()),
    ] {
        let mut stream = World::peer_stream(port, 1).await;
        stream.write(&good.replace(from, &to)).await;
        let answer = stream.rest_or_head().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{to}: {answer}");
    }
}

#[tokio::test]
async fn garbage_ends_its_own_stream_only() {
    let [one, mut two] = nodes::<2>(quick()).await;
    let puppet = Puppet::new().await;
    two.replicas(&[(2, puppet.address)], DEADLINE);
    let port = two.peer_port(&one);
    let mut good = World::peer_stream(port, 1).await;
    good.write(&head("via=0000000000000001; left_ms=15000"))
        .await;
    let (mut replica, _) = puppet.request().await;
    for garbage in [
        "\0\u{1}\u{2}\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET",
        "",
    ] {
        let mut stream = World::peer_stream(port, 1).await;
        let _ = stream.stream.write_all(garbage.as_bytes()).await;
        let _ = stream.stream.shutdown().await;
        let said = stream.rest().await;
        assert!(
            said.is_empty() || said.starts_with("HTTP/1.1 400 "),
            "{said}"
        );
    }
    let mut stream = World::peer_stream(port, 1).await;
    // A head without an end: it is read away for a while, and kept by nobody.
    let _ = stream.flood(8 << 20).await;
    let said = stream.rest().await;
    assert!(
        said.is_empty() || said.starts_with("HTTP/1.1 431 "),
        "{said}"
    );
    replica.write(&ok("still here")).await;
    good.until("still here").await;
    eventually("nothing is in flight", || two.service().in_flight == 0).await;
}

/// What listens as node 2 instead of its edge: says `greeting`, then `answer`
/// to each head.
async fn impostor(one: &World, greeting: &'static [u8], answer: &'static str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    one.lines.add(2, listener.local_addr().expect("address"));
    one.lines.set_round_trip(2, Duration::from_millis(1));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.read_u64().await.expect("whose");
                stream.write_all(greeting).await.expect("writes");
                let mut wire = Wire { stream };
                if !answer.is_empty() {
                    wire.until("\r\n\r\n").await;
                    wire.write(answer).await;
                }
                wire.rest().await;
            });
        }
    });
}

#[tokio::test]
async fn peer_that_says_what_nobody_understands_is_left() {
    for greeting in [&b"HT"[..], &[2, 0], &[1, 9]] {
        let [one, _two, _three] = three(quick()).await;
        impostor(&one, greeting, "").await;
        for _ in 0..3 {
            assert!(one.get("app.test", "/", "").await.ends_with("third"));
            assert!(one.raw(POST).await.ends_with("third"));
        }
        assert_eq!(one.evidence().len(), 1, "{greeting:?}");
    }
}

#[tokio::test]
async fn peer_that_leaves_or_is_full_is_passed_over_without_evidence() {
    for greeting in [&[1, 1], &[1, 2]] {
        let [one, _two, _three] = three(quick()).await;
        impostor(&one, greeting, "").await;
        for _ in 0..3 {
            assert!(one.get("app.test", "/", "").await.ends_with("third"));
            assert!(one.raw(POST).await.ends_with("third"));
        }
        assert_eq!(one.evidence(), [""; 0]);
        assert_eq!(one.service().errors, 0);
    }
}

#[tokio::test]
async fn answer_that_does_not_say_whose_it_is_is_none() {
    let [one, _two, _three] = three(quick()).await;
    impostor(
        &one,
        &[1, 0],
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfake",
    )
    .await;
    assert!(one.get("app.test", "/", "").await.ends_with("third"));
    let [one, _two, _three] = three(quick()).await;
    impostor(&one, &[1, 0], "no http at all\r\n\r\n").await;
    assert!(one.get("app.test", "/", "").await.ends_with("third"));
}

#[tokio::test]
async fn refused_request_goes_to_another_node() {
    let [one, mut two, _three] = three(quick()).await;
    // It has lost its replica, which the first one does not know yet.
    two.replicas(&[], DEADLINE);
    assert!(one.get("app.test", "/", "").await.ends_with("third"));
    // With a body, the second node sends it on.
    let [one, mut two, mut three] = self::three(quick()).await;
    let third = replica(|_| Some(ok("third"))).await;
    two.replicas(&[(3, third)], DEADLINE);
    three.replicas(&[(3, third)], DEADLINE);
    assert!(one.raw(POST).await.ends_with("third"));
    let row = one.row(|row| row.method == "POST").await;
    assert_eq!(row.node, Some(NodeId(3)));
}

#[tokio::test]
async fn draining_edge_ends_what_it_has_and_takes_nothing_new() {
    let mut worlds = nodes::<3>(quick()).await;
    let puppet = Puppet::new().await;
    let third = replica(|_| Some(ok("third"))).await;
    for world in &mut worlds {
        world.replicas(&[(2, puppet.address), (3, third)], DEADLINE);
    }
    let [one, two, _three] = worlds;
    one.lines.set_round_trip(3, Duration::from_secs(1));
    let mut client = Wire::connect(one.address).await;
    client.write(GET).await;
    let (mut replica, _) = puppet.request().await;
    let draining = std::sync::Arc::clone(&two.ingress);
    let drained = tokio::spawn(async move { draining.drain(DEADLINE).await });
    while World::greeting(two.peer_port(&one), 1).await.1 != [1, 1] {}
    assert!(one.get("app.test", "/", "").await.ends_with("third"));
    replica.write(&ok("old")).await;
    client.until("old").await;
    drained.await.expect("drains");
    assert_eq!(one.evidence(), [""; 0]);
}

#[tokio::test]
async fn answer_cut_by_its_replica_is_no_evidence_and_one_cut_by_the_node_is() {
    for lost in [false, true] {
        let mut worlds = nodes::<2>(quick()).await;
        let puppet = Puppet::new().await;
        for world in &mut worlds {
            world.replicas(&[(2, puppet.address)], DEADLINE);
        }
        let [one, _two] = worlds;
        let mut client = Wire::connect(one.address).await;
        client.write(GET).await;
        let (mut replica, _) = puppet.request().await;
        replica
            .write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
            .await;
        client.until("half").await;
        if lost {
            one.lines.set(2, State::Lost);
        } else {
            drop(replica);
        }
        assert_eq!(client.rest().await, "");
        one.row(|row| row.status == 502).await;
        assert_eq!(one.evidence().len(), usize::from(lost), "{lost}");
    }
}

#[tokio::test]
async fn client_cannot_pass_itself_off_as_an_edge() {
    let mut worlds = nodes::<2>(quick()).await;
    let echo = replica(|head| Some(ok(head))).await;
    for world in &mut worlds {
        world.replicas(&[(2, echo)], DEADLINE);
    }
    let fields = "homeostat-forwarded: via=0000000000000002; left_ms=1; replica=test.app-g1-0; \
        client=6.6.6.6; tls=1; request=0000000000000007\r\n\
        homeostat_forwarded: via=1\r\nhomeostat-answered: refused=1\r\n";
    // Here and on the way to another node.
    for world in &worlds {
        let answer = world.get("app.test", "/", fields).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(
            answer.contains("x-forwarded-for: 127.0.0.1\r\n"),
            "{answer}"
        );
        assert!(
            !answer.contains("homeostat") && !answer.contains("6.6.6.6"),
            "{answer}"
        );
    }
    let row = worlds[0].row(|row| row.status == 200).await;
    assert_eq!(row.forwarded_by, None);
}

#[tokio::test]
async fn replica_does_not_speak_for_its_edge() {
    let mut worlds = nodes::<2>(quick()).await;
    let liar = replica(|_| {
        Some(
            "HTTP/1.1 200 OK\r\nhomeostat-answered: refused=1\r\ncontent-length: 2\r\n\r\nhi"
                .into(),
        )
    });
    let liar = liar.await;
    for world in &mut worlds {
        world.replicas(&[(2, liar)], DEADLINE);
    }
    let answer = worlds[0].get("app.test", "/", "").await;
    assert!(
        answer.ends_with("hi") && !answer.contains("homeostat"),
        "{answer}"
    );
}
