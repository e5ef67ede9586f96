//! A component and its limits, from the side of who asks.

mod common;

use http_body_util::BodyExt;
use std::path::Path;
use wasm::{Answer, GuestError, Limits, Line, Service, WasmError};

use common::{Bench, ask, ask_with, request, short};

#[tokio::test]
async fn a_component_answers_reads_bodies_and_sees_its_environment_only() {
    let bench = Bench::new();
    let service = bench.service(Limits::default());
    assert_eq!(ask(&service, "/hello").await.expect("answers"), "hello");
    let echoed = ask_with(&service, "/echo", b"as it came").await;
    assert_eq!(echoed.expect("answers"), "as it came");
    let greeting = ask(&service, "/environment?GREETING").await;
    assert_eq!(greeting.expect("answers"), "good day");
    assert_eq!(
        ask(&service, "/environment?PATH").await.expect("answers"),
        ""
    );
}

#[tokio::test]
async fn nothing_of_one_request_is_left_for_the_next() {
    let bench = Bench::new();
    let service = bench.service(Limits::default());
    for _ in 0..5 {
        assert_eq!(ask(&service, "/count").await.expect("answers"), "1");
    }
}

/// One instance at a time, used again.
fn reused(reuse: u32) -> Limits {
    Limits {
        reuse,
        concurrency: 1,
        ..Limits::default()
    }
}

/// Asks as soon as the last request has left the guest.
async fn ask_when_free(service: &Service, path: &str) -> Result<String, GuestError> {
    loop {
        match ask(service, path).await {
            Err(GuestError::Busy(_)) => tokio::task::yield_now().await,
            other => return other,
        }
    }
}

async fn begin_when_free(service: &Service, path: &str) -> Answer {
    loop {
        match service.handle(request(path, b"")).await {
            Err(GuestError::Busy(_)) => tokio::task::yield_now().await,
            begun => return begun.expect("begins"),
        }
    }
}

async fn count(service: &Service) -> String {
    ask_when_free(service, "/count").await.expect("answers")
}

#[tokio::test]
async fn an_instance_answers_as_many_requests_as_the_limits_allow_then_another_does() {
    let bench = Bench::new();
    let service = bench.service(reused(3));
    let mut said = Vec::new();
    for _ in 0..7 {
        said.push(count(&service).await);
    }
    assert_eq!(said, ["1", "2", "3", "1", "2", "3", "1"]);
}

#[tokio::test]
async fn an_instance_is_not_used_again_after_a_trap_a_limit_or_a_body_left_open() {
    let bench = Bench::new();
    let service = bench.service(reused(1_000));
    for bad in ["/trap", "/recurse", "/grow", "/open"] {
        assert_eq!(count(&service).await, "1", "before {bad}");
        assert_eq!(count(&service).await, "2", "before {bad}");
        let _ = ask_when_free(&service, bad).await;
    }
    // A reader that leaves ends the guest under it too.
    assert_eq!(count(&service).await, "1");
    drop(begin_when_free(&service, "/endless").await);
    assert_eq!(count(&service).await, "1");
}

#[tokio::test]
async fn an_instance_that_grew_is_not_kept() {
    let bench = Bench::new();
    let service = bench.service(reused(1_000));
    assert_eq!(count(&service).await, "1");
    let held = ask_when_free(&service, "/hold?33554432").await;
    assert_eq!(held.expect("answers"), "held");
    assert_eq!(count(&service).await, "1");
    let held = ask_when_free(&service, "/hold?1024").await;
    assert_eq!(held.expect("answers"), "held");
    assert_eq!(count(&service).await, "2");
}

#[tokio::test]
async fn a_body_that_was_written_whole_has_its_length() {
    use http_body::Body as _;
    let bench = Bench::new();
    let service = bench.service(Limits::default());
    // On a machine that has no time for it, a guest may pass for one that
    // computes for long: its length is then not waited for.
    let mut known = None;
    for _ in 0..100 {
        let answer = service.handle(request("/hello", b"")).await.expect("one");
        known = answer.body().size_hint().exact();
        let body = answer.into_body().collect().await.expect("a whole body");
        assert_eq!(body.to_bytes(), "hello");
        if known.is_some() {
            break;
        }
    }
    assert_eq!(known, Some(5));
}

#[tokio::test]
async fn a_task_that_asks_again_and_again_without_a_pause_is_always_answered() {
    let bench = Bench::new();
    let service = bench.service(Limits::default());
    for _ in 0..300 {
        assert_eq!(ask(&service, "/hello").await.expect("answers"), "hello");
    }
}

#[tokio::test]
async fn files_and_calls_are_denied() {
    let bench = Bench::new();
    let service = bench.service(Limits::default());
    for path in ["/files?/", "/files?.", "/files?../../etc"] {
        let said = ask(&service, path).await.expect("answers");
        assert!(said.starts_with("refused"), "{path}: {said}");
    }
    let said = ask(&service, "/call?127.0.0.1:1").await.expect("answers");
    assert!(
        said.contains("HttpRequestDenied") || said.contains("HTTP_REQUEST_DENIED"),
        "{said}"
    );
}

#[tokio::test]
async fn what_a_guest_prints_is_taken_by_stream() {
    let bench = Bench::new();
    let service = bench.service(Limits::default());
    ask(&service, "/print?words").await.expect("answers");
    for line in [Line::Out, Line::Error] {
        let bytes = bench.printed(line);
        assert_eq!(bytes, b"words\n", "{line:?}");
    }
}

#[tokio::test]
async fn a_guest_that_loops_for_ever_is_ended_and_its_neighbours_answer_meanwhile() {
    let bench = Bench::new();
    let hog = bench.service(short());
    let neighbour = bench.service(Limits::default());
    // One thread for both: the neighbour is answered only if the hog yields.
    let looping = ask(&hog, "/loop");
    let answering = async {
        for _ in 0..20 {
            assert_eq!(ask(&neighbour, "/hello").await.expect("answers"), "hello");
        }
    };
    let (looped, ()) = tokio::join!(looping, answering);
    assert!(matches!(looped, Err(GuestError::Time(_))), "{looped:?}");
    assert_eq!(ask(&hog, "/hello").await.expect("answers"), "hello");
}

#[tokio::test]
async fn memory_recursion_traps_and_silence_are_each_named() {
    let bench = Bench::new();
    let service = bench.service(Limits::default());
    let grown = ask(&service, "/grow").await;
    assert!(matches!(grown, Err(GuestError::Memory(_))), "{grown:?}");
    for path in ["/recurse", "/trap"] {
        let ended = ask(&service, path).await;
        assert!(
            matches!(ended, Err(GuestError::Trap(_))),
            "{path}: {ended:?}"
        );
    }
    let silent = ask(&service, "/silent").await;
    assert!(matches!(silent, Err(GuestError::NoAnswer)), "{silent:?}");
    let slept = ask(&bench.service(short()), "/sleep?60000").await;
    assert!(matches!(slept, Err(GuestError::Time(_))), "{slept:?}");
    assert_eq!(ask(&service, "/hello").await.expect("answers"), "hello");
}

#[tokio::test]
async fn a_body_without_an_end_is_cut_by_the_time_or_by_its_reader() {
    let bench = Bench::new();
    let service = bench.service(Limits {
        concurrency: 1,
        ..short()
    });
    let answer = service
        .handle(request("/endless", b""))
        .await
        .expect("begins");
    let whole = answer.into_body().collect().await;
    assert!(whole.is_err(), "it looked whole");

    let answer = begin_when_free(&service, "/endless").await;
    let busy = ask(&service, "/hello").await;
    assert!(matches!(busy, Err(GuestError::Busy(1))), "{busy:?}");
    drop(answer);
    while matches!(ask(&service, "/hello").await, Err(GuestError::Busy(_))) {
        tokio::task::yield_now().await;
    }
}

fn files(directory: &Path, extension: &str) -> Vec<std::path::PathBuf> {
    let found = std::fs::read_dir(directory).expect("a directory").flatten();
    found
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect()
}

#[tokio::test]
async fn compiled_code_is_kept_and_made_anew_when_it_was_tampered_with() {
    let bench = Bench::new();
    assert!(
        bench
            .cache
            .prepare(&bench.host, guests::PROBE)
            .expect("compiles")
    );
    assert!(
        !bench
            .cache
            .prepare(&bench.host, guests::PROBE)
            .expect("is kept")
    );
    let code = files(bench.directory.path(), "code").pop().expect("a file");
    let whole = std::fs::read(&code).expect("code");
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    for damaged in [&changed[..], &whole[..whole.len() / 2], b""] {
        std::fs::write(&code, damaged).expect("written");
        assert!(
            bench
                .cache
                .prepare(&bench.host, guests::PROBE)
                .expect("compiles")
        );
    }
    // Code with the mark of another component is not this one's.
    let mark = files(bench.directory.path(), "mark").pop().expect("a file");
    std::fs::write(&mark, [7; 32]).expect("written");
    assert!(
        bench
            .cache
            .prepare(&bench.host, guests::PROBE)
            .expect("compiles")
    );
    let service = bench.service(Limits::default());
    assert_eq!(ask(&service, "/hello").await.expect("answers"), "hello");
}

#[test]
fn what_is_no_component_is_refused_by_name() {
    let bench = Bench::new();
    let module = b"\0asm\x01\0\0\0";
    assert!(matches!(bench.refused(module), WasmError::CoreModule));
    let empty = b"\0asm\x0d\0\x01\0";
    let error = bench.refused(empty);
    assert!(matches!(error, WasmError::Export(_)), "{error}");
    for bytes in [&b""[..], b"text", &guests::PROBE[..guests::PROBE.len() / 2]] {
        let error = bench.refused(bytes);
        assert!(matches!(error, WasmError::Invalid(_)), "{error}");
    }
}

#[test]
fn an_import_that_nothing_provides_is_named_with_the_nearest_known() {
    let bench = Bench::new();
    let importing = |name: &str| {
        let text = format!(r#"(component (import "{name}" (func)))"#);
        let text = if name.contains('/') {
            format!(r#"(component (import "{name}" (instance (export "run" (func)))))"#)
        } else {
            text
        };
        wat::parse_str(text).expect("a component")
    };
    let error = bench.refused(&importing("wasi:http/typo@0.2.0"));
    assert!(
        error.to_string().contains("`wasi:http/typo@0.2.0`"),
        "{error}"
    );
    let hint = error.hint().expect("a hint");
    assert!(hint.contains("`wasi:http/types`"), "{hint}");
    let error = bench.refused(&importing("launch"));
    assert!(error.to_string().contains("`launch`"), "{error}");
    assert_eq!(error.hint(), None);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn no_damage_makes_it_panic(at in 0_usize..4096, byte: u8) {
        let bench = Bench::new();
        let mut bytes = guests::PROBE[..4096].to_vec();
        bytes[at] = byte;
        bench.refused(&bytes);
    }
}

#[tokio::test]
async fn a_service_without_buckets_finds_no_store() {
    let bench = Bench::new();
    let service = bench.service(Limits::default());
    let said = ask(&service, "/kv?get,log,a").await.expect("answers");
    assert_eq!(said, "refused: Error::NoSuchStore");
}
