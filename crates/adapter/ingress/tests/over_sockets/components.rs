//! Components in this process: what a request to one comes to.

use crate::support::World;
use crate::support::here::CONCURRENCY;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

const DEADLINE: Duration = Duration::from_secs(5);

async fn until(what: impl Fn() -> bool) {
    let wait = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), wait).await;
    waited.expect("it comes to that");
}

#[tokio::test]
async fn a_component_answers_with_the_requests_own_host_and_body() {
    let mut world = World::plain().await;
    world.component(DEADLINE);
    assert!(world.get("app.test", "/", "").await.ends_with("hello"));
    assert!(
        world
            .get("app.test", "/host", "")
            .await
            .ends_with("app.test")
    );
    let post = "POST /echo HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\ncontent-length: 4\r\n\r\nbody";
    assert!(world.raw(post).await.ends_with("body"));
    let row = world.row(|row| row.path == "/echo").await;
    assert_eq!(
        (row.status, row.bytes, row.replica.is_some()),
        (200, 4, true)
    );
}

#[tokio::test]
async fn how_a_component_failed_is_the_status_and_no_evidence_against_it() {
    let mut world = World::plain().await;
    world.component(DEADLINE);
    assert!(
        world
            .get("app.test", "/broken", "")
            .await
            .starts_with("HTTP/1.1 502")
    );
    assert!(
        world
            .get("app.test", "/late", "")
            .await
            .starts_with("HTTP/1.1 504")
    );
    let cut = world.get("app.test", "/cut", "").await;
    assert!(!cut.ends_with("0\r\n\r\n"), "not taken for whole: {cut}");
    assert_eq!(world.row(|row| row.path == "/cut").await.status, 502);
    assert!(world.rows.failed.lock().expect("lock").is_empty());
    assert!(world.get("app.test", "/", "").await.ends_with("hello"));
}

#[tokio::test]
async fn requests_beyond_its_places_are_held_until_one_is_free() {
    let mut world = World::plain().await;
    world.component(DEADLINE);
    let wait = "GET /wait HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\n\r\n";
    let clients: Vec<_> = (0..CONCURRENCY * 3).map(|_| world.send(wait)).collect();
    until(|| world.service().held == 2 * CONCURRENCY as u64).await;
    assert_eq!(world.acting().inside.load(Relaxed), CONCURRENCY);
    let go_on = async {
        loop {
            world.acting().go_on.notify_waiters();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let all = async {
        for client in clients {
            assert!(client.await.expect("joins").ends_with("waited"));
        }
    };
    tokio::select! {
        () = all => {}
        () = go_on => {}
    }
}

#[tokio::test]
async fn a_component_that_takes_too_long_is_left_at_the_services_deadline() {
    let mut world = World::plain().await;
    world.component(Duration::from_millis(50));
    assert!(
        world
            .get("app.test", "/wait", "")
            .await
            .starts_with("HTTP/1.1 504")
    );
    assert_eq!(world.acting().dropped.load(Relaxed), 1);
    until(|| world.service().in_flight == 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_what_was_done_for_it() {
    let mut world = World::plain().await;
    world.component(DEADLINE);
    let mut client = tokio::net::TcpStream::connect(world.address)
        .await
        .expect("connects");
    let head = "GET /wait HTTP/1.1\r\nhost: app.test\r\n\r\n";
    client.write_all(head.as_bytes()).await.expect("writes");
    until(|| world.acting().inside.load(Relaxed) == 1).await;
    drop(client);
    until(|| world.acting().dropped.load(Relaxed) == 1).await;
    assert_eq!(world.row(|row| row.path == "/wait").await.status, 499);
}
