//! What actors may try: each is ended and named, and the next request starts
//! the actor afresh.

use crate::bench::{ANSWER, Bench, ask, counting, module};
use std::time::Duration;
use wasm::{ActorError, ActorSpec, Limits};

/// What `/b` ends with; before and after it the actor counts from one.
async fn ends_with(code: &str) -> ActorError {
    let bench = Bench::new();
    let actor = bench.actor(&counting(code));
    assert_eq!(ask(&actor, "/a").await.expect("answers"), "1");
    assert_eq!(ask(&actor, "/a").await.expect("answers"), "2");
    let error = ask(&actor, "/b").await.expect_err("ended");
    assert_eq!(ask(&actor, "/a").await.expect("starts afresh"), "1");
    error
}

#[tokio::test]
async fn a_loop_is_ended_by_its_time() {
    let error = ends_with("(loop $again (br $again))").await;
    assert_eq!(error, ActorError::Time(Duration::from_millis(300)));
    assert_eq!(error.to_string(), "the actor took longer than 300ms");
}

#[tokio::test]
async fn growth_without_end_is_named_by_its_limit() {
    let code = "(loop $again
        (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
        (br $again))";
    assert_eq!(ends_with(code).await, ActorError::Memory(8 << 20));
}

#[tokio::test]
async fn an_actor_that_lives_with_a_refused_growth_lives() {
    let bench = Bench::new();
    let code = "(drop (memory.grow (i32.const 1000)))";
    let actor = bench.actor(&counting(code));
    assert_eq!(ask(&actor, "/b").await.expect("answers"), "1");
    assert_eq!(ask(&actor, "/a").await.expect("answers"), "2");
}

#[tokio::test]
async fn traps_and_deep_recursion_are_named() {
    let says = |error: ActorError| match error {
        ActorError::Trap(how) => how,
        other => panic!("{other}"),
    };
    let how = says(ends_with("unreachable").await);
    assert!(how.contains("unreachable"), "{how}");
    let how = says(ends_with("(drop (call $recurse (i32.const 1)))").await);
    assert!(how.contains("call stack exhausted"), "{how}");
    let how = says(ends_with("(drop (i32.load (i32.const 0x7fffffff)))").await);
    assert!(how.contains("out of bounds memory access"), "{how}");
    let how = says(ends_with("(drop (i32.div_u (i32.const 1) (i32.const 0)))").await);
    assert!(how.contains("divide by zero"), "{how}");
}

#[tokio::test]
async fn wild_pointers_are_named_whichever_call_they_are_given_to() {
    let memory = 2 << 16;
    for (code, what, address, bytes) in [
        (
            "(drop (call $publish (i32.const 0x20000) (i32.const 1) (i32.const 0) (i32.const 0)))",
            "channel",
            0x2_0000,
            1,
        ),
        (
            "(drop (call $publish (i32.const 28) (i32.const 1) (i32.const 0x1ffff) (i32.const 2)))",
            "event",
            0x1_ffff,
            2,
        ),
        (
            "(call $random (i32.const -1) (i32.const 2))",
            "randomness",
            u32::MAX,
            2,
        ),
        (
            "(call $log (i32.const 0) (i32.const -1) (i32.const 1))",
            "log line",
            u32::MAX,
            1,
        ),
        (
            "(drop (call $environ (i32.const 0) (i32.const 0x1fffb)))",
            "environment",
            0x1_fffb,
            17,
        ),
        (
            "(return (i64.const 0x0001ffff00000002))",
            "answer",
            0x1_ffff,
            2,
        ),
    ] {
        let expected = ActorError::Wild {
            what,
            address,
            bytes,
            memory,
        };
        assert_eq!(ends_with(code).await, expected, "{code}");
    }
}

#[tokio::test]
async fn huge_lengths_are_named_before_anything_is_copied() {
    for (code, what, bytes, max) in [
        (
            "(drop (call $publish (i32.const 28) (i32.const 1) (i32.const 0) (i32.const -1)))",
            "event",
            u32::MAX,
            64 << 10,
        ),
        (
            "(call $random (i32.const 0) (i32.const 0x10001))",
            "randomness",
            0x1_0001,
            64 << 10,
        ),
        (
            "(return (i64.const 0xffffffff))",
            "answer",
            u32::MAX,
            16 << 20,
        ),
    ] {
        let expected = ActorError::Long { what, bytes, max };
        assert_eq!(ends_with(code).await, expected, "{code}");
    }
    // Vectors that end beyond the address space, and such as are not there.
    let code = "(drop (call $write (i32.const 1) (i32.const -8) (i32.const 9) (i32.const 0)))";
    assert!(matches!(ends_with(code).await, ActorError::Trap(_)));
    let code = "(drop (call $write (i32.const 1) (i32.const -16) (i32.const 1) (i32.const 0)))";
    let error = ends_with(code).await;
    assert!(
        matches!(error, ActorError::Wild { what: "vector", .. }),
        "{error}"
    );
}

#[tokio::test]
async fn an_answer_over_its_own_request_is_only_read() {
    // It answers with what it was told, where it was told it: no reply.
    let bench = Bench::new();
    let fields = r#"(func (export "handle") (param i32 i32) (result i64)
        (i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32))
            (i64.extend_i32_u (local.get 1))))"#;
    let actor = bench.actor(&module(fields));
    let error = ask(&actor, "/a").await.expect_err("no answer");
    assert!(matches!(error, ActorError::Reply(_)), "{error}");
}

#[tokio::test]
async fn room_for_the_request_is_checked() {
    let bench = Bench::new();
    for (at, expected) in [
        ("0", "the actor has no room for a request of 24 bytes"),
        (
            "0x1fffc",
            "the actor's room of 24 bytes at 131068 is not in its memory of 131072",
        ),
        (
            "-1",
            "the actor's room of 24 bytes at 4294967295 is not in its memory of 131072",
        ),
    ] {
        let text = format!(
            r#"(module (memory (export "memory") 2)
                (func (export "alloc") (param i32) (result i32) (i32.const {at}))
                (func (export "handle") (param i32 i32) (result i64) unreachable))"#
        );
        let actor = bench.actor(&wat::parse_str(text).expect("a module"));
        let error = ask(&actor, "/a").await.expect_err("no room");
        assert_eq!(error.to_string(), expected);
    }
}

#[tokio::test]
async fn a_start_that_does_not_end_is_ended_and_tried_again_with_the_next_request() {
    let looping = "(func $begin (loop $again (br $again)))";
    for start in [
        "(start $begin)",
        r#"(export "_initialize" (func $begin))"#,
        r#"(export "init" (func $begin))"#,
    ] {
        let bench = Bench::new();
        let handle = format!(
            r#"{looping} {start} (func (export "handle") (param i32 i32) (result i64) {ANSWER})"#
        );
        let actor = bench.actor(&module(&handle));
        for _ in 0..2 {
            let error = ask(&actor, "/a").await.expect_err("does not start");
            assert!(matches!(error, ActorError::Time(_)), "{start}: {error}");
        }
    }
}

#[tokio::test]
async fn memory_and_tables_beyond_the_limit_do_not_start() {
    let bench = Bench::new();
    let big = |what: &str| {
        let text = format!(
            r#"(module {what}
                (func (export "alloc") (param i32) (result i32) (i32.const 8))
                (func (export "handle") (param i32 i32) (result i64) unreachable))"#
        );
        bench.actor(&wat::parse_str(text).expect("a module"))
    };
    let actor = big(r#"(memory (export "memory") 129)"#);
    let error = ask(&actor, "/a").await.expect_err("does not start");
    assert_eq!(error, ActorError::Memory(8 << 20));
    let actor = big(r#"(memory (export "memory") 1) (table 10001 funcref)"#);
    let error = ask(&actor, "/a").await.expect_err("does not start");
    assert_eq!(error, ActorError::Table(10_000));
}

#[tokio::test]
async fn neighbours_answer_while_one_loops_and_what_waits_is_bounded() {
    let bench = Bench::new();
    let limits = Limits {
        concurrency: 2,
        ..bench.spec().limits
    };
    let spec = ActorSpec {
        limits,
        state: None,
        ..bench.spec()
    };
    let hog = bench.actor_as(&counting("(loop $again (br $again))"), spec.clone());
    let neighbour = bench.actor_as(&counting("nop"), spec);
    // One thread for all: the neighbour is answered only if the hog yields.
    let looping = ask(&hog, "/b");
    let answering = async {
        for _ in 0..9 {
            ask(&neighbour, "/a").await.expect("answers");
        }
        let (one, two, three) = tokio::join!(ask(&hog, "/a"), ask(&hog, "/a"), ask(&hog, "/a"));
        assert_eq!(three, Err(ActorError::Busy(2)));
        [one, two]
    };
    let (looped, waited) = tokio::join!(looping, answering);
    assert!(matches!(looped, Err(ActorError::Time(_))), "{looped:?}");
    assert_eq!(waited, [Ok("1".to_owned()), Ok("2".to_owned())]);
}

#[tokio::test]
async fn answers_that_http_does_not_allow_are_named_and_the_actor_lives() {
    let bench = Bench::new();
    for (reply, expected) in [
        (&b"\x01\x00\x64\0\0\0\0\0\0\0\0\0"[..], "the status 100"),
        (
            b"\x01\x00\xc8\0\x01\0\0\0\x0e\0\0\0content-length\0\0\0\0\0\0\0\0",
            "the header `content-length`",
        ),
        (
            b"\x01\x00\xc8\0\x01\0\0\0\x01\0\0\0a\x09\0\0\0b\r\nc: d\r\n\0\0\0\0",
            "the header `a`",
        ),
        (
            b"\x01\x00\xc8\0\x01\0\0\0\x03\0\0\0a\r\n\0\0\0\0\0\0\0\0",
            "the header `a\\r\\n`",
        ),
        (
            b"\x01\x01\x01\0\0\0c\x01\0\0\0\x06\0\0\0a: b\r\n\0\0\0\0",
            "the header `a: b\\r\\n`",
        ),
    ] {
        let text = reply
            .iter()
            .fold(String::new(), |text, byte| format!("{text}\\{byte:02x}"));
        let length = reply.len();
        let actor = bench.actor(&module(&format!(
            r#"(data (i32.const 512) "{text}")
            (global $once (mut i32) (i32.const 0))
            (func (export "handle") (param i32 i32) (result i64)
                (if (global.get $once) (then (return {ANSWER})))
                (global.set $once (i32.const 1))
                (i64.or (i64.shl (i64.const 512) (i64.const 32)) (i64.const {length})))"#
        )));
        let error = ask(&actor, "/a").await.expect_err("no answer");
        assert_eq!(error, ActorError::Http(expected.to_owned()));
        ask(&actor, "/a").await.expect("it lives");
    }
}
