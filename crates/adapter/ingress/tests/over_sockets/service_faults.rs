//! Replicas that die under requests: what is sent again, what is held, what is
//! not.

use crate::support::mortal::{Mortal, Reply, eventually};
use crate::support::puppet::Wire;
use crate::support::{World, ok};
use ingress::Limits;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const DEADLINE: Duration = Duration::from_secs(20);
const GET: &str = "GET / HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\n\r\n";
const POST: &str =
    "POST /p HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello";

/// Says nothing to the first request and answers those after it.
fn silent_once() -> impl Fn(&str) -> Reply + Send + Sync + 'static {
    let count = AtomicU32::new(0);
    move |_: &str| match count.fetch_add(1, Relaxed) {
        0 => Reply::Never,
        _ => Reply::Text(ok("back")),
    }
}

async fn is_held(world: &World, count: u64) {
    eventually("a request is held", || world.service().held >= count).await;
}

#[tokio::test]
async fn get_is_held_while_its_only_replica_is_dead() {
    let mut world = World::plain().await;
    let mut replica = Mortal::start(silent_once()).await;
    world.endpoints(&[replica.address], DEADLINE);
    let client = world.send(GET);
    replica.has_heard(1).await;
    replica.kill().await;
    is_held(&world, 1).await;
    replica.revive().await;
    let answer = client.await.expect("joins");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("back"));
    assert_eq!(replica.heard().len(), 2);
    let row = world.row(|row| row.status == 200).await;
    assert!(row.retries >= 1);
    assert_eq!(world.service().errors, 0);
}

#[tokio::test]
async fn post_that_was_sent_is_not_sent_again() {
    let mut world = World::plain().await;
    let mut replica = Mortal::start(silent_once()).await;
    world.endpoints(&[replica.address], DEADLINE);
    let client = world.send(POST);
    replica.has_heard(1).await;
    replica.kill().await;
    replica.revive().await;
    let answer = client.await.expect("joins");
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(world.send(GET).await.expect("joins").ends_with("back"));
    let posts = replica
        .heard()
        .iter()
        .filter(|request| request.starts_with("POST"))
        .count();
    assert_eq!(posts, 1);
    assert_eq!(world.row(|row| row.status == 502).await.retries, 0);
}

#[tokio::test]
async fn empty_post_that_was_sent_is_not_sent_again() {
    let mut world = World::plain().await;
    let mut replica = Mortal::start(silent_once()).await;
    world.endpoints(&[replica.address], DEADLINE);
    let client = world.send(&POST.replace("content-length: 5\r\n\r\nhello", "\r\n"));
    replica.has_heard(1).await;
    replica.kill().await;
    replica.revive().await;
    assert!(client.await.expect("joins").starts_with("HTTP/1.1 502"));
    assert_eq!(replica.heard().len(), 1);
}

#[tokio::test]
async fn post_that_no_replica_took_is_held_and_sent_once() {
    let mut world = World::plain().await;
    let mut replica = Mortal::dead(|_| Reply::Text(ok("taken"))).await;
    world.endpoints(&[replica.address], DEADLINE);
    let chunked = POST.replace(
        "content-length: 5\r\n\r\nhello",
        "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    let clients = [world.send(POST), world.send(&chunked)];
    is_held(&world, 2).await;
    replica.revive().await;
    for client in clients {
        assert!(client.await.expect("joins").ends_with("taken"));
    }
    let heard = replica.heard();
    assert_eq!(heard.len(), 2);
    assert!(heard.iter().all(|request| request.contains("hello")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn post_after_a_restart_does_not_fall_into_a_stale_connection() {
    let mut world = World::plain().await;
    let mut replica = Mortal::start(|_| Reply::Text(ok("fine"))).await;
    world.endpoints(&[replica.address], DEADLINE);
    for _ in 0..100 {
        assert!(world.send(GET).await.expect("joins").ends_with("fine"));
        replica.kill().await;
        replica.revive().await;
        let answer = world.send(POST).await.expect("joins");
        assert!(answer.ends_with("fine"), "{answer}");
    }
    assert_eq!(replica.heard().len(), 200);
}

#[tokio::test]
async fn get_goes_to_another_replica_when_one_dies_under_it() {
    let mut world = World::plain().await;
    let dying = Mortal::start(|_| Reply::Close).await;
    let living = Mortal::start(|_| Reply::Text(ok("alive"))).await;
    world.endpoints(&[dying.address, living.address], DEADLINE);
    for _ in 0..8 {
        let answer = world.send(GET).await.expect("joins");
        assert!(answer.ends_with("alive"), "{answer}");
    }
    let row = world.row(|row| row.retries == 1).await;
    assert_eq!(row.replica.map(|id| id.index), Some(1));
    assert_eq!(world.rows.failed.lock().expect("lock").len(), 1);
}

#[tokio::test]
async fn answer_cut_in_its_head_counts_as_none() {
    let mut world = World::plain().await;
    let count = AtomicU32::new(0);
    let replica = Mortal::start(move |_| match count.fetch_add(1, Relaxed) {
        0 => Reply::Text("HTTP/1.1 200 OK\r\ncontent-le".to_owned()),
        _ => Reply::Text(ok("whole")),
    });
    let mut replica = replica.await;
    world.endpoints(&[replica.address], DEADLINE);
    let client = world.send(GET);
    replica.has_heard(1).await;
    replica.kill().await;
    replica.revive().await;
    assert!(client.await.expect("joins").ends_with("whole"));
}

#[tokio::test]
async fn what_breaks_each_replica_gets_up() {
    let mut world = World::plain().await;
    let replica = Mortal::start(|_| Reply::Close).await;
    world.endpoints(&[replica.address], DEADLINE);
    let answer = world.send(GET).await.expect("joins");
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert_eq!(replica.heard().len(), 3);
}

#[tokio::test]
async fn silent_replica_is_given_the_deadline_and_then_let_go() {
    let mut world = World::plain().await;
    let replica = Mortal::start(|_| Reply::Never).await;
    world.endpoints(&[replica.address], Duration::from_millis(100));
    let answer = world.send(GET).await.expect("joins");
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    assert_eq!(replica.heard().len(), 1);
    eventually("nothing is in flight", || world.service().in_flight == 0).await;
}

#[tokio::test]
async fn client_that_leaves_while_held_frees_its_place() {
    let limits = Limits {
        held_max: 1,
        ..Limits::default()
    };
    let mut world = World::start(limits, false).await;
    let mut replica = Mortal::dead(|_| Reply::Text(ok("late"))).await;
    world.endpoints(&[replica.address], DEADLINE);
    let mut leaver = tokio::net::TcpStream::connect(world.address)
        .await
        .expect("connects");
    leaver.write_all(GET.as_bytes()).await.expect("writes");
    is_held(&world, 1).await;
    let mut shed = String::new();
    let mut second = tokio::net::TcpStream::connect(world.address)
        .await
        .expect("connects");
    second.write_all(GET.as_bytes()).await.expect("writes");
    second.read_to_string(&mut shed).await.expect("reads");
    assert!(shed.starts_with("HTTP/1.1 503") && shed.contains("retry-after: 1"));
    drop(leaver);
    world.row(|row| row.status == 499).await;
    let third = world.send(GET);
    is_held(&world, 2).await;
    replica.revive().await;
    assert!(third.await.expect("joins").ends_with("late"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_get_is_lost_while_its_only_replica_restarts() {
    let mut world = World::plain().await;
    let mut replica = Mortal::start(|_| Reply::Text(ok("fine"))).await;
    world.endpoints(&[replica.address], DEADLINE);
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (address, over) = (world.address, Arc::clone(&over));
        clients.spawn(async move {
            let mut client = Wire::connect(address).await;
            let mut count = 0;
            while !over.load(Relaxed) {
                client
                    .write("GET / HTTP/1.1\r\nhost: app.test\r\n\r\n")
                    .await;
                let answer = client.until("fine").await;
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                count += 1;
            }
            count
        });
    }
    for _ in 0..10 {
        // So that those held before have been answered.
        replica.has_heard(replica.heard().len() + 50).await;
        let held = world.service().held;
        replica.kill().await;
        is_held(&world, held + 1).await;
        replica.revive().await;
    }
    over.store(true, Relaxed);
    let answered: u64 = clients.join_all().await.into_iter().sum();
    eventually("all are counted", || world.service().requests == answered).await;
    assert_eq!(world.service().errors, 0);
}

fn failing(text: &'static str) -> impl Fn(&str) -> Reply + Send + Sync + 'static {
    let body = text.len();
    move |_: &str| {
        Reply::Text(format!(
            "HTTP/1.1 500 Broken\r\ncontent-length: {body}\r\n\r\n{text}"
        ))
    }
}

/// Until `count` of them are `200`; how many were not before.
async fn errors_until_good(world: &World, count: u32) -> u32 {
    let (mut good, mut errors) = (0, 0);
    while good < count {
        let answer = world.send(GET).await.expect("joins");
        if answer.starts_with("HTTP/1.1 200") {
            good += 1;
        } else {
            assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
            errors += 1;
            assert!(errors < 100, "it is not passed over");
        }
    }
    errors
}

#[tokio::test]
async fn a_replica_that_answers_with_errors_while_another_does_not_is_told_of() {
    let mut world = World::plain().await;
    let broken = Mortal::start(failing("broken")).await;
    let well = Mortal::start(|_: &str| Reply::Text(ok("well"))).await;
    world.endpoints(&[broken.address, well.address], DEADLINE);
    let errors = errors_until_good(&world, 50).await;
    assert!((5..50).contains(&errors), "{errors}");
    let failed = world.rows.failed.lock().expect("lock").clone();
    let told = failed.first().expect("it is told");
    assert!(
        told.starts_with("test.app-g1-0: ")
            && told.ends_with("500 Internal Server Error, others answer"),
        "{told}"
    );
}

#[tokio::test]
async fn errors_of_all_replicas_are_the_services_own() {
    let mut world = World::plain().await;
    let first = Mortal::start(failing("one")).await;
    let second = Mortal::start(failing("two")).await;
    world.endpoints(&[first.address, second.address], DEADLINE);
    for _ in 0..40 {
        let answer = world.send(GET).await.expect("joins");
        assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    }
    assert_eq!(world.service().held, 0);
    assert!(world.rows.failed.lock().expect("lock").is_empty());
}
