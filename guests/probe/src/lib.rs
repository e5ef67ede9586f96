//! A guest for tests, well-behaved or not as a request's path says.
//!
//! `/hello`, `/echo` (the body), `/environment?NAME`, `/print?TEXT`,
//! `/count` (how often this instance was asked), `/sleep?MS`, `/files?PATH`,
//! `/loop`, `/grow`, `/trap`, `/recurse`,
//! `/silent` (no answer), `/endless` (a body without an end), `/open` (a body
//! that it never finishes), `/hold?BYTES` (memory that it does not give back),
//! `/call?AUTHORITY/PATH`, `/inject` (which odd headers and addresses it could
//! make), `/kv` (see `stores`), `/headers` (an answer of endless headers), `/shout` (endless output).

use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam,
    Scheme,
};

wasip2::http::proxy::export!(Probe);

struct Probe;

static ASKED: AtomicU64 = AtomicU64::new(0);

impl wasip2::exports::http::incoming_handler::Guest for Probe {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let text = match path {
            "/hello" => b"hello".to_vec(),
            "/echo" => body(&request),
            "/environment" => std::env::var(query).unwrap_or_default().into_bytes(),
            "/count" => (ASKED.fetch_add(1, Ordering::Relaxed) + 1)
                .to_string()
                .into_bytes(),
            "/print" => {
                println!("{query}");
                eprintln!("{query}");
                b"printed".to_vec()
            }
            "/sleep" => {
                std::thread::sleep(Duration::from_millis(query.parse().unwrap_or(0)));
                b"slept".to_vec()
            }
            "/files" => match std::fs::read_dir(query).map(Iterator::count) {
                Ok(count) => format!("{count} files").into_bytes(),
                Err(error) => format!("refused: {error}").into_bytes(),
            },
            "/call" => call(query).into_bytes(),
            "/kv" => stores(query).into_bytes(),
            "/inject" => inject().into_bytes(),
            "/headers" => return headers(answer),
            "/shout" => shout(),
            "/loop" => spin(),
            "/grow" => grow(),
            "/recurse" => recurse(1).to_string().into_bytes(),
            "/trap" => panic!("told to"),
            "/silent" => return,
            "/endless" => return endless(answer),
            "/open" => return std::mem::forget(begin(answer)),
            "/hold" => {
                let held = vec![1_u8; query.parse().unwrap_or(0)];
                std::mem::forget(std::hint::black_box(held));
                b"held".to_vec()
            }
            _ => b"no such thing".to_vec(),
        };
        let body = begin(answer);
        if let Ok(mut out) = body.write() {
            let _ = out.write_all(&text).and_then(|()| Write::flush(&mut out));
        }
        let _ = OutgoingBody::finish(body, None);
    }
}

mod keyvalue {
    wit_bindgen::generate!({
        path: "../../crates/adapter/wasm/wit/keyvalue",
        world: "wasi:keyvalue/imports",
    });
}

/// `WHAT,STORE,KEY,VALUE`: one operation on a store, its result as text.
fn stores(query: &str) -> String {
    use keyvalue::wasi::keyvalue::{atomics, batch, store};
    let mut words = query.split(',');
    let mut word = || words.next().unwrap_or_default().to_owned();
    let (what, name, key, value) = (word(), word(), word(), word());
    let done = || -> Result<String, store::Error> {
        let bucket = store::open(&name)?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(match what.as_str() {
            "get" => bucket.get(&key)?.map_or("nothing".to_owned(), text),
            "set" => format!("{:?}", bucket.set(&key, value.as_bytes())?),
            "delete" => format!("{:?}", bucket.delete(&key)?),
            "exists" => bucket.exists(&key)?.to_string(),
            "increment" => {
                atomics::increment(&bucket, &key, value.parse().unwrap_or(1))?.to_string()
            }
            "many" => {
                let entries: Vec<_> = (0..value.parse::<usize>().unwrap_or(0))
                    .map(|number| (format!("{key}{number:05}"), b"x".to_vec()))
                    .collect();
                for part in entries.chunks(200) {
                    batch::set_many(&bucket, part)?;
                }
                let keys: Vec<_> = entries.into_iter().take(3).map(|(key, _)| key).collect();
                batch::delete_many(&bucket, &keys[..1])?;
                let found = batch::get_many(&bucket, &keys)?;
                format!("{}", found.iter().flatten().count())
            }
            "keys" => {
                let (mut count, mut cursor) = (0, None);
                loop {
                    let page = bucket.list_keys(cursor)?;
                    count += page.keys.len();
                    cursor = page.cursor;
                    if cursor.is_none() {
                        break count.to_string();
                    }
                }
            }
            "cursor" => bucket.list_keys(Some(77))?.keys.len().to_string(),
            _ => "no such thing".to_owned(),
        })
    };
    match done() {
        Ok(text) => text,
        Err(error) => format!("refused: {error:?}"),
    }
}

fn begin(answer: ResponseOutparam) -> OutgoingBody {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("asked once");
    ResponseOutparam::set(answer, Ok(response));
    body
}

fn body(request: &IncomingRequest) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(body) = request.consume()
        && let Ok(mut stream) = body.stream()
    {
        let _ = stream.read_to_end(&mut bytes);
    }
    bytes
}

fn call(target: &str) -> String {
    let (authority, path) = target.split_once('/').unwrap_or((target, ""));
    let request = OutgoingRequest::new(Fields::new());
    let _ = request.set_scheme(Some(&Scheme::Http));
    if request.set_authority(Some(authority)).is_err()
        || request
            .set_path_with_query(Some(&format!("/{path}")))
            .is_err()
    {
        return "refused: no such address".to_owned();
    }
    let future = match outgoing_handler::handle(request, None) {
        Err(code) => return format!("refused: {code:?}"),
        Ok(future) => future,
    };
    future.subscribe().block();
    match future.get() {
        Some(Ok(Ok(answer))) => {
            let mut bytes = Vec::new();
            let read = answer.consume().ok().and_then(|body| {
                let mut stream = body.stream().ok()?;
                let outcome = stream.read_to_end(&mut bytes);
                Some(outcome.is_ok())
            });
            let whole = read == Some(true);
            format!("{} with {} bytes, whole {whole}", answer.status(), bytes.len())
        }
        Some(Ok(Err(code))) => format!("refused: {code:?}"),
        _ => "nothing came".to_owned(),
    }
}

/// What should have been refused and was not.
fn inject() -> String {
    let mut taken = Vec::new();
    let odd: [(&str, &[u8]); 8] = [
        ("x-a", b"b\r\nevil: 1"),
        ("x-a", b"b\nevil: 1"),
        ("x-a", b"b\0"),
        ("x\r\nevil", b"1"),
        ("x evil", b"1"),
        ("", b"1"),
        ("host", b"elsewhere"),
        ("transfer-encoding", b"chunked"),
    ];
    for (name, value) in odd {
        if Fields::new().append(name, value).is_ok()
            || Fields::from_list(&[(name.to_owned(), value.to_vec())]).is_ok()
        {
            taken.push(format!("header {name:?}: {value:?}"));
        }
    }
    let request = OutgoingRequest::new(Fields::new());
    for authority in ["a\r\nevil: 1", "a b", "a/../b", "a#b"] {
        if request.set_authority(Some(authority)).is_ok() {
            taken.push(format!("authority {authority:?}"));
        }
    }
    for path in ["/a\r\nevil: 1", "/a b", "/a\0"] {
        if request.set_path_with_query(Some(path)).is_ok() {
            taken.push(format!("path {path:?}"));
        }
    }
    taken.join(", ")
}

fn headers(answer: ResponseOutparam) {
    let fields = Fields::new();
    let mut number = 0_u64;
    while fields.append(&format!("x-{number}"), &[b'x'; 512]).is_ok() {
        number += 1;
    }
    let response = OutgoingResponse::new(fields);
    if let Ok(body) = response.body() {
        ResponseOutparam::set(answer, Ok(response));
        let _ = OutgoingBody::finish(body, None);
    }
}

fn shout() -> ! {
    loop {
        println!("{}", "x".repeat(1000));
    }
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

fn grow() -> ! {
    let mut kept = Vec::new();
    loop {
        kept.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

#[expect(unconditional_recursion, reason = "that is what it is for")]
fn recurse(depth: u64) -> u64 {
    let here = std::hint::black_box([depth; 64]);
    recurse(here[0] + 1) + std::hint::black_box(here)[1]
}

fn endless(answer: ResponseOutparam) {
    let body = begin(answer);
    if let Ok(mut out) = body.write() {
        while out
            .write_all(&[b'x'; 4096])
            .and_then(|()| Write::flush(&mut out))
            .is_ok()
        {}
    }
}
