//! Actors built with the SDK, by a compiler, with a heap of their own.

use crate::bench::{Bench, NEVER, ask, send};
use http_body_util::BodyExt;
use proptest::prelude::*;
use std::sync::OnceLock;
use wasm::{Actor, ActorError, ActorSpec, Limits};

#[tokio::test]
async fn memory_lives_on_between_requests() {
    let bench = Bench::new();
    let actor = bench.actor(guests::PROBE_ACTOR);
    for count in 1..=3 {
        let said = ask(&actor, "/count").await.expect("answers");
        assert_eq!(said, format!("{count} {count}"));
    }
    let answer = send(&actor, "/echo", b"as it came").await.expect("answers");
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.headers()["x-method"], "POST");
    let body = answer.into_body().collect().await.expect("never fails");
    assert_eq!(body.to_bytes(), &b"as it came"[..]);
    assert_eq!(ask(&actor, "/count").await.expect("answers"), "5 4");
}

#[tokio::test]
async fn a_standard_library_finds_what_it_needs_and_no_more() {
    let bench = Bench::new();
    let actor = bench.actor(guests::PROBE_ACTOR);
    let greeting = ask(&actor, "/environment?GREETING").await;
    assert_eq!(greeting.expect("answers"), "good day");
    let path = ask(&actor, "/environment?PATH").await;
    assert_eq!(path.expect("answers"), "");
    for path in ["/files?/", "/files?.", "/files?../../etc"] {
        let said = ask(&actor, path).await.expect("answers");
        assert!(said.starts_with("refused"), "{path}: {said}");
    }
    ask(&actor, "/print?words").await.expect("answers");
    ask(&actor, "/log?words").await.expect("answers");
    assert_eq!(bench.said(), "words\nwords\nwarning: words\n");
    let (one, two) = (ask(&actor, "/random").await, ask(&actor, "/random").await);
    assert_ne!(one.expect("answers"), two.expect("answers"));
}

#[tokio::test]
async fn what_a_compiled_actor_does_wrong_is_named_and_it_starts_afresh() {
    let bench = Bench::new();
    let actor = bench.actor(guests::PROBE_ACTOR);
    for (path, expected) in [
        ("/loop", "the actor took longer than 300ms"),
        (
            "/grow",
            "the actor asked for more memory than its limit of 8388608 bytes",
        ),
        ("/trap", "unreachable"),
        ("/recurse", "wasm trap"),
        ("/exit", "it exited with status 3"),
    ] {
        assert_eq!(ask(&actor, "/count").await.expect("answers"), "1 1");
        let error = ask(&actor, path).await.expect_err("ended");
        assert!(error.ends(), "{path}");
        assert!(error.to_string().contains(expected), "{path}: {error}");
    }
    assert!(bench.said().contains("told to"), "{}", bench.said());
}

#[tokio::test]
async fn a_body_as_large_as_allowed_comes_through_and_a_larger_one_is_refused() {
    let bench = Bench::new();
    let actor = bench.actor(guests::PROBE_ACTOR);
    let largest = vec![b'x'; wasm::REQUEST_BYTES_MAX];
    let answer = send(&actor, "/echo", &largest).await.expect("answers");
    let body = answer.into_body().collect().await.expect("never fails");
    assert_eq!(body.to_bytes(), largest);
    let refused = send(&actor, "/echo", &[&largest[..], b"x"].concat()).await;
    let refused = refused.err().expect("refused");
    assert!(matches!(refused, ActorError::Request { .. }), "{refused}");
    let small = Limits {
        memory_bytes: 1536 << 10,
        ..bench.spec().limits
    };
    let spec = ActorSpec {
        limits: small,
        state: None,
        ..bench.spec()
    };
    let actor = bench.actor_as(guests::PROBE_ACTOR, spec);
    let refused = send(&actor, "/echo", &largest).await.err();
    assert!(
        matches!(refused, Some(ActorError::NoRoom(_))),
        "{refused:?}"
    );
    assert_eq!(ask(&actor, "/count").await.expect("lives"), "1 1");
}

async fn event(body: &mut wasm::ActorBody) -> String {
    let frame = body.frame().await.expect("an event").expect("never fails");
    let bytes = frame.into_data().expect("data");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn visitors_are_counted_as_they_come_and_go() {
    let bench = Bench::new();
    let actor = bench.actor(guests::VISITORS);
    let count = ask_get(&actor, "/visitors").await;
    assert_eq!(count, r#"{"visitors":0,"seen":0}"#);
    let mut one = events(&actor).await;
    assert_eq!(event(&mut one).await, told(1, 1));
    let two = events(&actor).await;
    assert_eq!(event(&mut one).await, told(2, 2));
    assert!(actor.put_away().await.expect("put away"));
    drop(two);
    assert_eq!(event(&mut one).await, told(1, 2));
    let count = ask_get(&actor, "/visitors").await;
    assert_eq!(count, r#"{"visitors":1,"seen":2}"#);
    let refused = send(&actor, "/visitors", b"").await.expect("answers");
    assert_eq!(refused.status(), 405);
}

fn told(visitors: u32, seen: u32) -> String {
    format!("data: {{\"visitors\":{visitors},\"seen\":{seen}}}\n\n")
}

async fn get(actor: &Actor, path: &str) -> wasm::ActorBody {
    let request = http::Request::get(path).body(bytes::Bytes::new());
    let answer = actor.handle(request.expect("a request")).await;
    answer.expect("answers").into_body()
}

async fn ask_get(actor: &Actor, path: &str) -> String {
    let body = get(actor, path).await.collect().await;
    let body = body.expect("never fails").to_bytes();
    String::from_utf8_lossy(&body).into_owned()
}

async fn events(actor: &Actor) -> wasm::ActorBody {
    let mut body = get(actor, "/visitors/events").await;
    assert!(event(&mut body).await.starts_with("retry"));
    body
}

fn shared() -> &'static Bench {
    static SHARED: OnceLock<Bench> = OnceLock::new();
    SHARED.get_or_init(Bench::new)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_heap_put_away_and_woken_at_any_point_is_as_if_it_never_was(
        said in proptest::collection::vec(("[a-z]{0,2000}", 0..3_u8), 1..10)
    ) {
        let bench = shared();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let place = tempfile::tempdir().expect("a directory");
            let spec = ActorSpec {
                state: Some(place.path().to_owned()),
                idle: NEVER,
                ..bench.spec()
            };
            let mut actor = bench.actor_as(guests::PROBE_ACTOR, spec.clone());
            let mut kept: Vec<&str> = Vec::new();
            for (text, between) in &said {
                kept.push(text);
                let all = ask(&actor, &format!("/keep?{text}")).await;
                prop_assert_eq!(all.expect("answers"), kept.join(","));
                match between {
                    0 => {}
                    1 => prop_assert!(actor.put_away().await.expect("put away")),
                    _ => {
                        prop_assert!(actor.stop().await.expect("put away"));
                        actor = bench.actor_as(guests::PROBE_ACTOR, spec.clone());
                    }
                }
            }
            Ok(())
        })?;
    }
}
