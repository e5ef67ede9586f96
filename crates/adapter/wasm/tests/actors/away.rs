//! Put away and woken, an actor is what it was.

use crate::bench::{Bench, NEVER, ask, counting, module, send};
use http_body_util::BodyExt;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::OnceLock;
use std::time::Duration;
use wasm::{Actor, ActorSpec};

/// Answers with a mark of all it was ever told, kept in a global, in floats, in
/// memory that it grows, and in memory that it sets to zero.
fn history() -> Vec<u8> {
    module(
        r#"(global $mark (mut i64) (i64.const -3750763034362895579))
        (global $sum (mut f64) (f64.const 0.1))
        (global $small (mut f32) (f32.const 0.1))
        (global $wide (mut v128) (v128.const i64x2 1 2))
        (global $room (mut i32) (i32.const 131072))
        (data (i32.const 4096) "not zero")
        (start $once)
        (func $once
            (i32.store (i32.const 8192) (i32.add (i32.load (i32.const 8192)) (i32.const 1))))
        (func $mix (param $with i64)
            (global.set $mark (i64.mul (i64.const 1099511628211)
                (i64.xor (global.get $mark) (local.get $with)))))
        (func (export "handle") (param $at i32) (param $length i32) (result i64)
            (local $byte i32) (local $left i32)
            (local.set $left (local.get $length))
            (loop $next
                (local.set $byte (i32.load8_u (local.get $at)))
                (call $mix (i64.extend_i32_u (local.get $byte)))
                (global.set $sum (f64.sqrt (f64.add (global.get $sum)
                    (f64.convert_i32_u (local.get $byte)))))
                (global.set $small (f32.div (global.get $small) (f32.const 0)))
                (global.set $wide (i64x2.add (global.get $wide) (global.get $wide)))
                (local.set $at (i32.add (local.get $at) (i32.const 1)))
                (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
            (if (i32.and (local.get $length) (i32.const 1))
                (then
                    (drop (memory.grow (i32.const 1)))
                    (i64.store (global.get $room) (global.get $mark))
                    (global.set $room (i32.add (global.get $room) (i32.const 65536)))
                    (i64.store (i32.const 4096) (i64.const 0))))
            (call $mix (i64.reinterpret_f64 (global.get $sum)))
            (call $mix (i64.extend_i32_u (i32.reinterpret_f32 (global.get $small))))
            (call $mix (i64x2.extract_lane 1 (global.get $wide)))
            (call $mix (i64.load (i32.sub (global.get $room) (i32.const 65536))))
            (call $mix (i64.load (i32.const 4096)))
            (call $mix (i64.extend_i32_u (i32.load (i32.const 8192))))
            (call $mix (i64.extend_i32_u (memory.size)))
            (i64.store (i32.const 28) (global.get $mark))
            (i64.or (i64.shl (i64.const 16) (i64.const 32)) (i64.const 20)))"#,
    )
}

async fn tell(actor: &Actor, body: &[u8]) -> Vec<u8> {
    let answer = send(actor, "/", body).await.expect("answers");
    let body = answer.into_body().collect().await.expect("never fails");
    body.to_bytes().to_vec()
}

/// What may happen to an actor between two requests.
#[derive(Clone, Copy, Debug)]
enum Between {
    Nothing,
    PutAway,
    /// And its worker killed.
    Killed,
    Stopped,
}

fn between() -> impl Strategy<Value = Between> {
    prop_oneof![
        Just(Between::Nothing),
        Just(Between::PutAway),
        Just(Between::Killed),
        Just(Between::Stopped),
    ]
}

fn shared() -> &'static (Bench, Vec<u8>) {
    static SHARED: OnceLock<(Bench, Vec<u8>)> = OnceLock::new();
    SHARED.get_or_init(|| (Bench::new(), history()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn put_away_and_woken_at_any_point_it_answers_as_if_it_never_was(
        said in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..40), between()), 1..12)
    ) {
        let (bench, module) = shared();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let place = tempfile::tempdir().expect("a directory");
            let spec = ActorSpec { state: Some(place.path().to_owned()), ..bench.spec() };
            let never = bench.actor_as(module, ActorSpec { state: None, ..bench.spec() });
            let mut often = bench.actor_as(module, spec.clone());
            for (body, between) in &said {
                prop_assert_eq!(tell(&often, body).await, tell(&never, body).await);
                match between {
                    Between::Nothing => continue,
                    Between::PutAway => {
                        prop_assert!(often.put_away().await.expect("put away"));
                        continue;
                    }
                    Between::Killed => prop_assert!(often.put_away().await.expect("put away")),
                    Between::Stopped => prop_assert!(often.stop().await.expect("put away")),
                }
                often = bench.actor_as(module, spec.clone());
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn an_idle_actor_is_put_away_by_itself_and_the_file_is_its_owners_alone() {
    let bench = Bench::new();
    let spec = ActorSpec {
        idle: Duration::from_millis(1),
        ..bench.spec()
    };
    let actor = bench.actor_as(&counting("nop"), spec);
    let file = bench.state().join("actor.checkpoint");
    for count in 1..4 {
        assert_eq!(ask(&actor, "/a").await.expect("answers"), count.to_string());
        while !file.exists() {
            tokio::task::yield_now().await;
        }
        let found = fs::metadata(&file).expect("a file");
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
    }
    let place = fs::metadata(bench.state()).expect("a directory");
    assert_eq!(place.permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn what_was_woken_is_no_longer_on_disk_so_that_the_past_does_not_come_back() {
    let bench = Bench::new();
    let first = bench.actor(&counting("nop"));
    assert_eq!(ask(&first, "/a").await.expect("answers"), "1");
    assert!(first.put_away().await.expect("put away"));
    assert!(!first.put_away().await.expect("was put away already"));
    assert_eq!(ask(&first, "/a").await.expect("answers"), "2");
    // Killed here.
    let second = bench.actor(&counting("nop"));
    assert_eq!(ask(&second, "/a").await.expect("answers"), "1");
}

#[tokio::test]
async fn damaged_and_foreign_files_are_not_taken_and_it_starts_afresh() {
    let bench = Bench::new();
    let file = bench.state().join("actor.checkpoint");
    let refused = bench.state().join("actor.refused");
    let actor = bench.actor(&counting("nop"));
    ask(&actor, "/a").await.expect("answers");
    assert!(actor.put_away().await.expect("put away"));
    let whole = fs::read(&file).expect("a file");
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    let longer = [&whole[..], b"x"].concat();
    for damaged in [
        &changed[..],
        &whole[..whole.len() / 2],
        &longer,
        b"",
        b"text",
    ] {
        fs::write(&file, damaged).expect("written");
        let actor = bench.actor(&counting("nop"));
        assert_eq!(ask(&actor, "/a").await.expect("answers"), "1");
        assert!(!file.exists());
        assert_eq!(fs::read(&refused).expect("kept for a look"), damaged);
    }
    // Whole, but of another module.
    fs::write(&file, &whole).expect("written");
    let actor = bench.actor(&counting("unreachable"));
    assert_eq!(ask(&actor, "/a").await.expect("answers"), "1");
    // Whole and of this module: taken.
    fs::write(&file, &whole).expect("written");
    let actor = bench.actor(&counting("nop"));
    assert_eq!(ask(&actor, "/a").await.expect("answers"), "2");
}

#[tokio::test]
async fn where_nothing_can_be_written_the_actor_goes_on_in_memory() {
    let bench = Bench::new();
    let actor = bench.actor(&counting("nop"));
    ask(&actor, "/a").await.expect("answers");
    // A directory in the way of the file.
    fs::create_dir(bench.state().join("actor.checkpoint.new")).expect("a directory");
    actor.put_away().await.expect_err("cannot");
    assert_eq!(ask(&actor, "/a").await.expect("answers"), "2");
}

#[tokio::test]
async fn an_actors_own_clock_never_goes_back() {
    let bench = Bench::new();
    let clock = module(
        r#"(func (export "handle") (param i32 i32) (result i64)
            (i64.store (i32.const 28) (call $now))
            (i64.or (i64.shl (i64.const 16) (i64.const 32)) (i64.const 20)))"#,
    );
    let mut before = 0;
    let mut actor = bench.actor(&clock);
    for _ in 0..5 {
        let now = tell(&actor, b"").await;
        let now = u64::from_le_bytes(now.try_into().expect("eight bytes"));
        assert!(now > before, "{now} after {before}");
        before = now;
        actor.stop().await.expect("put away");
        let spec = ActorSpec {
            idle: NEVER,
            ..bench.spec()
        };
        actor = bench.actor_as(&clock, spec);
    }
}
