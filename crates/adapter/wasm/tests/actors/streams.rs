//! Clients that have an actor's events.

use crate::bench::{ANSWER, Bench, ask, module, send};
use bytes::Bytes;
use http_body_util::BodyExt;
use wasm::{Actor, ActorBody};

/// Subscribes who asks for `/b` to `c`, publishes the digit of how many there
/// are at each join and leave, and answers others with that digit; `/x` ends it.
fn live() -> Vec<u8> {
    module(&format!(
        r#"(data (i32.const 512) "\01\01\01\00\00\00c\00\00\00\00")
        (data (i32.const 600) "c")
        (func (export "handle") (param $at i32) (param $length i32) (result i64)
            (if (i32.load8_u (i32.add (local.get $at) (i32.const 1)))
                (then
                    (i64.store (i32.const 28) (i64.extend_i32_u (i32.add (i32.const 0x30)
                        (i32.load8_u (i32.add (local.get $at) (i32.const 15))))))
                    (drop (call $publish
                        (i32.const 600) (i32.const 1) (i32.const 28) (i32.const 1)))
                    (return (i64.const 0))))
            (if (i32.eq (i32.load8_u (i32.add (local.get $at) (i32.const 15))) (i32.const 0x78))
                (then unreachable))
            (if (i32.eq (i32.load8_u (i32.add (local.get $at) (i32.const 15))) (i32.const 0x62))
                (then (return (i64.or
                    (i64.shl (i64.const 512) (i64.const 32)) (i64.const 11)))))
            {ANSWER})"#
    ))
}

async fn join(actor: &Actor) -> ActorBody {
    let answer = send(actor, "/b", b"").await.expect("subscribes");
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let mut body = answer.into_body();
    assert_eq!(
        next(&mut body).await.as_deref(),
        Some(&b"retry: 1000\n\n"[..])
    );
    body
}

async fn next(body: &mut ActorBody) -> Option<Bytes> {
    let frame = body.frame().await?.expect("never fails");
    frame.into_data().ok()
}

async fn says(body: &mut ActorBody, text: &str) {
    let came = next(body).await.expect("an event");
    assert_eq!(came, format!("data: {text}\n\n"));
}

#[tokio::test]
async fn an_actor_is_told_who_comes_and_goes_and_tells_the_others() {
    let bench = Bench::new();
    let actor = bench.actor(&live());
    let mut one = join(&actor).await;
    says(&mut one, "1").await;
    let mut two = join(&actor).await;
    says(&mut one, "2").await;
    says(&mut two, "2").await;
    drop(one);
    says(&mut two, "1").await;
    assert_eq!(ask(&actor, "/a").await.expect("answers"), "1");
    drop(two);
    while ask(&actor, "/a").await.expect("answers") != "0" {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn streams_outlive_their_actor_and_a_fresh_one_is_told_of_them() {
    let bench = Bench::new();
    let actor = bench.actor(&live());
    let mut one = join(&actor).await;
    says(&mut one, "1").await;
    ask(&actor, "/x").await.expect_err("ended");
    assert_eq!(ask(&actor, "/a").await.expect("starts afresh"), "1");
    says(&mut one, "1").await;
}

#[tokio::test]
async fn an_actor_that_was_put_away_is_woken_by_who_leaves() {
    let bench = Bench::new();
    let actor = bench.actor(&live());
    let mut one = join(&actor).await;
    says(&mut one, "1").await;
    let two = join(&actor).await;
    says(&mut one, "2").await;
    assert!(actor.put_away().await.expect("put away"));
    drop(two);
    says(&mut one, "1").await;
}

#[tokio::test]
async fn who_was_there_when_the_worker_was_killed_has_left_for_the_woken_actor() {
    let bench = Bench::new();
    let first = bench.actor(&live());
    let mut one = join(&first).await;
    says(&mut one, "1").await;
    assert!(first.put_away().await.expect("put away"));
    // Killed here: nobody tells the actor that its client is gone.
    let second = bench.actor(&live());
    assert_eq!(ask(&second, "/a").await.expect("answers"), "0");
    drop(one);
}

#[tokio::test]
async fn a_stop_ends_the_streams_and_the_actor_knows() {
    let bench = Bench::new();
    let first = bench.actor(&live());
    let mut one = join(&first).await;
    says(&mut one, "1").await;
    assert!(first.stop().await.expect("put away"));
    assert_eq!(next(&mut one).await, None);
    assert_eq!(ask(&first, "/a").await, Err(wasm::ActorError::Stopped));
    let second = bench.actor(&live());
    assert_eq!(ask(&second, "/a").await.expect("answers"), "0");
}
