//! What a hostile component tries, and that all of it is refused and named
//! while its neighbours answer.

mod common;

use common::{Bench, ask, request, short};
use http_body_util::BodyExt as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use wasm::{AllowedCall, GuestError, Limits, Line, Service, WasmError};

/// A component by hand: what its core module does is told in its own words.
///
/// * `lib`: in a module whose memory and `realloc` the host uses.
/// * `parts`: in the module, beside its imports; it has a memory and `handle`.
fn by_hand(realloc: &str, parts: &str, body: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
          (import "wasi:http/types@0.2.0" (instance $types
            (export "incoming-request" (type (sub resource)))
            (export "response-outparam" (type (sub resource)))
            (export "fields" (type $fields (sub resource)))
            (export "[constructor]fields" (func (result (own $fields))))
            (export "[method]fields.has"
              (func (param "self" (borrow $fields)) (param "name" string) (result bool)))))
          (import "wasi:random/random@0.2.0" (instance $random
            (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
          (alias export $types "incoming-request" (type $request))
          (alias export $types "response-outparam" (type $outparam))
          (core module $lib
            (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) {realloc}))
          (core instance $lib (instantiate $lib))
          (alias core export $lib "memory" (core memory $memory))
          (alias core export $lib "realloc" (core func $realloc))
          (core func $fields (canon lower (func $types "[constructor]fields")))
          (core func $has (canon lower (func $types "[method]fields.has") (memory $memory)))
          (core func $bytes (canon lower (func $random "get-random-bytes")
            (memory $memory) (realloc $realloc)))
          (core module $main
            (import "lib" "memory" (memory 1))
            (import "host" "fields" (func $fields (result i32)))
            (import "host" "has" (func $has (param i32 i32 i32) (result i32)))
            (import "host" "bytes" (func $bytes (param i64 i32)))
            (func $spin (loop $more (br $more)))
            (func $recurse (call $recurse) (call $recurse))
            {parts}
            (func (export "handle") (param i32 i32) {body}))
          (core instance $main (instantiate $main
            (with "lib" (instance $lib))
            (with "host" (instance
              (export "fields" (func $fields))
              (export "has" (func $has))
              (export "bytes" (func $bytes))))))
          (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
            (canon lift (core func $main "handle")))
          (instance $handler (export "handle" (func $handle)))
          (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
    );
    wat::parse_str(text).expect("a component")
}

const REALLOC: &str = "(i32.const 1024)";

/// How it ends, beside a neighbour that must answer meanwhile and afterwards.
async fn end(component: &[u8], limits: Limits) -> GuestError {
    let bench = Bench::new();
    let hostile = bench.service_of(component, limits);
    let neighbour = bench.service(Limits::default());
    let hostile = async {
        let answer = hostile.handle(request("/", b"")).await;
        answer.err().expect("it answered")
    };
    let answering = async {
        for _ in 0..10 {
            assert_eq!(ask(&neighbour, "/hello").await.expect("answers"), "hello");
        }
    };
    let (error, ()) = tokio::join!(hostile, answering);
    assert_eq!(ask(&neighbour, "/hello").await.expect("answers"), "hello");
    error
}

#[tokio::test]
async fn host_calls_with_wild_pointers_and_handles_are_traps() {
    for (what, body) in [
        (
            "a name beyond the memory",
            "(drop (call $has (call $fields) (i32.const -16) (i32.const 100)))",
        ),
        (
            "a name longer than the memory",
            "(drop (call $has (call $fields) (i32.const 0) (i32.const 0x7fffffff)))",
        ),
        (
            "a name whose end wraps around",
            "(drop (call $has (call $fields) (i32.const 65535) (i32.const -1)))",
        ),
        (
            "an answer beyond the memory",
            "(call $bytes (i64.const 8) (i32.const -16))",
        ),
        (
            "an answer at no multiple of its alignment",
            "(call $bytes (i64.const 8) (i32.const 3))",
        ),
        (
            "a handle of nothing",
            "(drop (call $has (i32.const 12345) (i32.const 0) (i32.const 1)))",
        ),
        (
            "a handle of another kind",
            "(drop (call $has (local.get 1) (i32.const 0) (i32.const 1)))",
        ),
    ] {
        let error = end(&by_hand(REALLOC, "", body), Limits::default()).await;
        assert!(matches!(error, GuestError::Trap(_)), "{what}: {error}");
    }
    for realloc in ["(i32.const -16)", "(i32.const 3000000)", "unreachable"] {
        let body = "(call $bytes (i64.const 64) (i32.const 8))";
        let error = end(&by_hand(realloc, "", body), Limits::default()).await;
        assert!(matches!(error, GuestError::Trap(_)), "{realloc}: {error}");
    }
}

#[tokio::test]
async fn giant_demands_are_refused_and_the_limit_is_named() {
    let unless = |grown: &str| format!("(if (i32.eq {grown} (i32.const -1)) (then unreachable))");
    let grown = unless("(memory.grow (i32.const 60000))");
    let error = end(&by_hand(REALLOC, "", &grown), Limits::default()).await;
    assert!(matches!(error, GuestError::Memory(_)), "{error}");

    let table = "(table $table 1 funcref)";
    let grown = unless("(table.grow $table (ref.null func) (i32.const 2000000))");
    let error = end(&by_hand(REALLOC, table, &grown), Limits::default()).await;
    assert!(matches!(error, GuestError::Table(_)), "{error}");

    let table = "(table $table 20000 funcref)";
    let error = end(&by_hand(REALLOC, table, ""), Limits::default()).await;
    assert!(matches!(error, GuestError::Table(_)), "{error}");

    let asked = "(call $bytes (i64.const 0x100000000000) (i32.const 8))";
    let error = end(&by_hand(REALLOC, "", asked), Limits::default()).await;
    assert!(matches!(error, GuestError::Trap(_)), "{error}");

    // What the host keeps for a guest has an end too.
    let hoard = "(loop $more (drop (call $fields)) (br $more))";
    let error = end(&by_hand(REALLOC, "", hoard), Limits::default()).await;
    assert!(matches!(error, GuestError::Trap(_)), "{error}");
}

#[tokio::test]
async fn more_memory_or_tables_than_any_guest_may_have_are_refused() {
    let bench = Bench::new();
    for parts in [
        "(table 2000000 funcref)",
        "(memory $other 40000)",
        "(table 0xffffffff funcref)",
    ] {
        let component = by_hand(REALLOC, parts, "");
        match bench.new_service(&component, Limits::default()) {
            Err(error) => assert!(matches!(error, WasmError::Invalid(_)), "{parts}: {error}"),
            Ok(service) => {
                let answer = service.handle(request("/", b"")).await;
                let error = answer.err().expect("it answered");
                assert!(!matches!(error, GuestError::NoAnswer), "{parts}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn a_start_that_never_ends_or_recurses_is_ended_as_a_request_is() {
    let error = end(&by_hand(REALLOC, "(start $spin)", ""), short()).await;
    assert!(matches!(error, GuestError::Time(_)), "{error}");
    let error = end(&by_hand(REALLOC, "(start $recurse)", ""), short()).await;
    assert!(matches!(error, GuestError::Trap(_)), "{error}");
    let error = end(&by_hand(REALLOC, "", "(call $recurse)"), short()).await;
    assert!(matches!(error, GuestError::Trap(_)), "{error}");
}

#[tokio::test]
async fn requests_that_pile_up_in_a_guest_take_no_place_from_others() {
    let bench = Bench::new();
    let hostile = bench.service(Limits {
        concurrency: 8,
        ..short()
    });
    let neighbour = bench.service(Limits::default());
    let tries: Vec<_> = (0..100)
        .map(|_| {
            let hostile = hostile.clone();
            tokio::spawn(async move { ask(&hostile, "/loop").await })
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(ask(&neighbour, "/hello").await.expect("answers"), "hello");
    }
    let (mut busy, mut ended) = (0, 0);
    for one in tries {
        match one.await.expect("no panic") {
            Err(GuestError::Busy(8)) => busy += 1,
            Err(GuestError::Time(_)) => ended += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(busy > 0 && ended >= 8 && busy + ended == 100);
}

#[tokio::test]
async fn endless_output_is_kept_up_to_a_bound_and_that_is_said() {
    let bench = Bench::new();
    let error = ask(&bench.service(short()), "/shout").await;
    assert!(matches!(error, Err(GuestError::Time(_))), "{error:?}");
    let printed = bench.printed(Line::Out);
    assert!(printed.len() < 300 << 10, "{} bytes", printed.len());
    let said = String::from_utf8_lossy(&printed[printed.len() - 80..]).into_owned();
    assert!(said.contains("printed more than a request may"), "{said}");
}

#[tokio::test]
async fn headers_and_addresses_cannot_be_broken_out_of() {
    let bench = Bench::new();
    let service = bench.service(Limits::default());
    assert_eq!(ask(&service, "/inject").await.expect("answers"), "");
}

#[tokio::test]
async fn headers_and_bodies_without_an_end_are_bounded() {
    let bench = Bench::new();
    let service = bench.service(Limits::default());
    let error = ask(&service, "/headers").await;
    let error = error.expect_err("it answered").to_string();
    assert!(error.contains("size of fields exceeds"), "{error}");

    let endless = http_body_util::StreamBody::new(futures_util::stream::repeat_with(|| {
        let data = bytes::Bytes::from_static(&[b'x'; 16 << 10]);
        Ok::<_, wasmtime_wasi_http::Error>(http_body::Frame::data(data))
    }));
    let request = http::Request::post("/echo")
        .header("host", "localhost")
        .body(endless)
        .expect("a request");
    // A guest may live on without the memory that it was refused.
    match service.handle(request).await {
        Err(error) => assert!(matches!(error, GuestError::Memory(_)), "{error}"),
        Ok(answer) => {
            let body = answer.into_body().collect().await.expect("a whole body");
            assert!(body.to_bytes().len() < Limits::default().memory_bytes);
        }
    }
}

/// Answers each connection once with so many bytes; tells what was asked.
fn server(bytes: usize) -> (SocketAddr, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0)
            {
                head.push(byte[0]);
            }
            let _ = tell.send(String::from_utf8_lossy(&head).into_owned());
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
            let _ = std::io::copy(&mut std::io::repeat(b'x').take(bytes as u64), &mut stream);
        }
    });
    (address, told)
}

fn bound(bench: &Bench, authority: &str, address: SocketAddr, limits: Limits) -> Service {
    let mut spec = bench.spec(limits);
    spec.calls = Arc::new([AllowedCall {
        authority: authority.to_owned(),
        address,
        paths: vec!["/api".to_owned()],
    }]);
    bench.service_with(guests::PROBE, spec)
}

#[tokio::test]
async fn a_call_goes_where_it_is_bound_to_and_nowhere_else() {
    let bench = Bench::new();
    let (address, told) = server(5);
    let service = bound(&bench, "other.example", address, Limits::default());
    let said = ask(&service, "/call?other.example/api/x%20y?z=1").await;
    assert_eq!(said.expect("answers"), "200 with 5 bytes, whole true");
    let asked = told.recv().expect("asked");
    assert!(
        asked.starts_with("GET /api/x%20y?z=1 HTTP/1.1\r\n"),
        "{asked}"
    );
    assert!(asked.contains("host: other.example\r\n"), "{asked}");
    for target in [
        "other.example/",
        "other.example/apis",
        "other.example/api/../secret",
        "other.example/api/%2e%2e/secret",
        &format!("{address}/api"),
        "localhost/api",
        "169.254.169.254/api",
    ] {
        let said = ask(&service, &format!("/call?{target}")).await;
        let said = said.expect("answers");
        assert!(said.contains("HttpRequestDenied"), "{target}: {said}");
    }
    assert!(told.try_recv().is_err(), "something else went out");
}

#[tokio::test]
async fn a_called_service_that_sends_too_much_or_nothing_is_cut_off() {
    let bench = Bench::new();
    let (address, _told) = server(17 << 20);
    let service = bound(&bench, "other.example", address, Limits::default());
    let said = ask(&service, "/call?other.example/api").await;
    let said = said.expect("answers");
    assert!(said.contains("whole false"), "{said}");

    // Accepted by the system, never answered.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("its address");
    let limits = Limits {
        time: Duration::from_millis(300),
        ..Limits::default()
    };
    let service = bound(&bench, "other.example", address, limits);
    let said = ask(&service, "/call?other.example/api").await;
    assert!(matches!(said, Err(GuestError::Time(_))), "{said:?}");
}

#[test]
fn foreign_bytes_are_refused() {
    let bench = Bench::new();
    let own = std::fs::read(std::env::current_exe().expect("a program")).expect("its bytes");
    let mut twice = guests::PROBE.to_vec();
    twice.extend_from_slice(guests::PROBE);
    for bytes in [
        &own[..],
        b"\x1f\x8b\x08\0\0\0\0\0",
        b"PK\x03\x04",
        b"<!doctype html>",
        b"\0asm",
        b"\0asm\x0d\0\x01\0\xff\xff\xff\xff\x7f",
        &twice,
        &guests::PROBE[1..],
    ] {
        let error = bench.refused(bytes);
        assert!(matches!(error, WasmError::Invalid(_)), "{error}");
    }
}
