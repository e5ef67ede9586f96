//! Buckets from an actor's side, on a bucket that is only a map.

use crate::bench::{ANSWER, Bench, ask, module, send};
use http_body_util::BodyExt;
use kernel::{Bytes, Revision};
use node::BoxFuture;
use node::buckets::{BucketAccess, BucketWatch, Buckets, Target};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wasm::{Actor, ActorSpec};
use wire::bucket::{Answer, Blob, BucketError, BucketGrant, Call, Capability, Grant, Value};

#[derive(Default)]
struct Map {
    state: Mutex<(u64, BTreeMap<String, Value>)>,
    /// Each call is held for so long.
    held: Duration,
    failing: Option<BucketError>,
}

impl Map {
    fn answer(&self, call: Call) -> Result<Answer, BucketError> {
        let mut state = self.state.lock().expect("not poisoned");
        let (revision, entries) = &mut *state;
        if call.writes() {
            *revision += 1;
        }
        let now = Revision(*revision);
        let value = |bytes: Blob| Value {
            bytes,
            revision: now,
        };
        match call {
            Call::Get { key } => Ok(Answer::Value(entries.get(&key).cloned())),
            Call::Set { key, value: bytes } => {
                entries.insert(key, value(bytes));
                Ok(Answer::Done(now))
            }
            Call::Delete { key } => {
                entries.remove(&key);
                Ok(Answer::Done(now))
            }
            Call::CompareAndSet {
                key,
                expected,
                value: Some(bytes),
            } => {
                let current = entries.get(&key).cloned();
                if current.as_ref().map(|found| found.revision) != expected {
                    return Ok(Answer::Differs(current));
                }
                entries.insert(key, value(bytes));
                Ok(Answer::Done(now))
            }
            Call::Add { key, delta } => {
                let text = entries.get(&key).map(|found| found.bytes.0.clone());
                let text = String::from_utf8(text.unwrap_or(b"0".to_vec()));
                let sum: i64 = text
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .ok_or_else(|| BucketError::Invalid("no number".to_owned()))?;
                let sum = sum + delta;
                entries.insert(key, value(Blob(sum.to_string().into_bytes())));
                Ok(Answer::Number(sum))
            }
            other => panic!("{other:?}"),
        }
    }
}

impl Buckets for Map {
    fn call<'a>(
        &'a self,
        target: &'a Target,
        call: Call,
    ) -> BoxFuture<'a, Result<Answer, BucketError>> {
        Box::pin(async move {
            assert_eq!(&*target.binding, "kept");
            tokio::time::sleep(self.held).await;
            match &self.failing {
                Some(error) => Err(error.clone()),
                None => self.answer(call),
            }
        })
    }

    fn watch<'a>(
        &'a self,
        _: &'a Target,
        _: &'a str,
        _: Revision,
    ) -> BoxFuture<'a, Result<Box<dyn BucketWatch>, BucketError>> {
        unreachable!("actors do not watch")
    }
}

fn access(map: &Arc<Map>) -> BucketAccess {
    let bucket = BucketGrant {
        bucket: "comments".parse().expect("a name"),
        quota: Bytes(1 << 20),
        rate: 1000,
    };
    let grant = Grant {
        project: "news".parse().expect("a name"),
        service: "test".parse().expect("a name"),
        replica: "test-0".to_owned(),
        bindings: BTreeMap::from([("kept".to_owned(), bucket)]),
        fence: None,
    };
    let capability = Capability::new(grant, |_| [0; 32]).text();
    BucketAccess::new(map.clone(), &capability).expect("an access")
}

fn actor(bench: &Bench, module: &[u8], map: Map) -> Actor {
    let spec = ActorSpec {
        buckets: Some(access(&Arc::new(map))),
        ..bench.spec()
    };
    bench.actor_as(module, spec)
}

async fn put(actor: &Actor, path: &str, value: &[u8]) -> String {
    let answer = send(actor, path, value).await.expect("answers");
    let body = answer.into_body().collect().await.expect("never fails");
    String::from_utf8_lossy(&body.to_bytes()).into_owned()
}

#[tokio::test]
async fn an_actor_keeps_reads_counts_and_compares_in_its_bucket() {
    let bench = Bench::new();
    let actor = actor(&bench, guests::PROBE_ACTOR, Map::default());
    let none = ask(&actor, "/bucket/get?a").await.expect("answers");
    assert_eq!(none, "Ok(None)");
    assert_eq!(put(&actor, "/bucket/set?a", b"four").await, "Ok(1)");
    let four = ask(&actor, "/bucket/get?a").await.expect("answers");
    assert_eq!(four, "Ok(Some(4))");
    // Longer than the SDK's first guess.
    let large = vec![b'x'; 100_000];
    assert_eq!(put(&actor, "/bucket/set?a", &large).await, "Ok(2)");
    let read = ask(&actor, "/bucket/get?a").await.expect("answers");
    assert_eq!(read, "Ok(Some(100000))");
    for sum in ["Ok(1)", "Ok(2)"] {
        assert_eq!(ask(&actor, "/bucket/add?n").await.expect("answers"), sum);
    }
    let no_number = ask(&actor, "/bucket/add?a").await.expect("answers");
    assert_eq!(no_number, "Err(Invalid)");
    let swapped = put(&actor, "/bucket/swap?a", b"new").await;
    assert_eq!(swapped, "(Ok(None), Ok(Some(7)))");
    let deleted = ask(&actor, "/bucket/delete?a").await.expect("answers");
    assert_eq!(deleted, "Ok(8)");
    let none = ask(&actor, "/bucket/get?a").await.expect("answers");
    assert_eq!(none, "Ok(None)");
    // Put away, it has its bucket still.
    assert!(actor.put_away().await.expect("put away"));
    assert_eq!(
        ask(&actor, "/bucket/add?n").await.expect("answers"),
        "Ok(3)"
    );
}

#[tokio::test]
async fn a_bucket_that_is_not_bound_is_not_there() {
    let bench = Bench::new();
    let bound = actor(&bench, guests::PROBE_ACTOR, Map::default());
    let said = ask(&bound, "/other").await.expect("answers");
    assert_eq!(said, "Err(NoSuchBucket)");
    let unbound = bench.actor(guests::PROBE_ACTOR);
    let said = ask(&unbound, "/bucket/get?a").await.expect("answers");
    assert_eq!(said, "Err(NoSuchBucket)");
}

#[tokio::test]
async fn what_is_wrong_with_a_bucket_reaches_the_actor_as_what_it_is() {
    let bench = Bench::new();
    let unavailable = |may_be_done| BucketError::Unavailable {
        why: "gone".to_owned(),
        may_be_done,
    };
    let why = || "no".to_owned();
    for (failing, expected) in [
        (BucketError::NotAllowed { why: why() }, "Err(NotAllowed)"),
        (BucketError::Invalid(why()), "Err(Invalid)"),
        (unavailable(false), "Err(NotDone)"),
        (unavailable(true), "Err(MayBeDone)"),
    ] {
        let map = Map {
            failing: Some(failing),
            ..Map::default()
        };
        let actor = actor(&bench, guests::PROBE_ACTOR, map);
        assert_eq!(
            ask(&actor, "/bucket/get?a").await.expect("answers"),
            expected
        );
        assert_eq!(put(&actor, "/bucket/set?a", b"").await, expected);
    }
}

#[tokio::test]
async fn what_a_call_waits_for_its_bucket_is_not_the_actors_time() {
    let bench = Bench::new();
    let map = Map {
        held: Duration::from_millis(400),
        ..Map::default()
    };
    let actor = actor(&bench, guests::PROBE_ACTOR, map);
    assert_eq!(
        ask(&actor, "/bucket/add?n").await.expect("answers"),
        "Ok(1)"
    );
}

#[tokio::test]
async fn wild_pointers_into_a_bucket_end_the_actor_and_change_nothing() {
    let bench = Bench::new();
    let call = |place: &str| {
        let text = format!(
            r#"(func (export "handle") (param i32 i32) (result i64)
                (drop (call $add (i32.const 600) (i32.const 4) {place}))
                {ANSWER})
            (data (i32.const 600) "kept")"#
        );
        module(&text)
    };
    for place in [
        "(i32.const 0x1ffff) (i32.const 2) (i64.const 1) (i32.const 0)",
        "(i32.const 600) (i32.const -1) (i64.const 1) (i32.const 0)",
        "(i32.const 600) (i32.const 4) (i64.const 1) (i32.const 0x1fff9)",
    ] {
        let map = Arc::new(Map::default());
        let spec = ActorSpec {
            buckets: Some(access(&map)),
            ..bench.spec()
        };
        let actor = bench.actor_as(&call(place), spec);
        let error = ask(&actor, "/a").await.expect_err("ended");
        assert!(error.ends(), "{place}: {error}");
        assert_eq!(map.state.lock().expect("not poisoned").0, 0, "{place}");
    }
}
