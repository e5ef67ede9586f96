//! A host, a cache, a place; and actors written by hand.

use bytes::Bytes;
use http_body_util::BodyExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wasm::{
    Actor, ActorBody, ActorError, ActorHost, ActorModuleError, ActorSpec, CompiledCache, Limits,
};

pub struct Bench {
    pub host: ActorHost,
    pub cache: CompiledCache,
    pub directory: tempfile::TempDir,
    pub printed: Arc<Mutex<Vec<u8>>>,
}

/// Longer than any test.
pub const NEVER: Duration = Duration::from_hours(1);

impl Bench {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self {
            host: ActorHost::new().expect("an engine"),
            cache: CompiledCache::open(&directory.path().join("compiled")).expect("a cache"),
            directory,
            printed: Arc::default(),
        }
    }

    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub fn spec(&self) -> ActorSpec {
        let printed = Arc::clone(&self.printed);
        ActorSpec {
            name: "test".to_owned(),
            limits: Limits {
                time: Duration::from_millis(300),
                memory_bytes: 8 << 20,
                ..Limits::default()
            },
            environment: vec![("GREETING".to_owned(), "good day".to_owned())],
            output: Arc::new(move |_, bytes| {
                let mut printed = printed.lock().expect("not poisoned");
                printed.extend_from_slice(bytes);
            }),
            buckets: None,
            state: Some(self.state()),
            seal: None,
            idle: NEVER,
            subscribers_max: 10,
        }
    }

    pub fn actor(&self, module: &[u8]) -> Actor {
        self.actor_as(module, self.spec())
    }

    pub fn actor_as(&self, module: &[u8], spec: ActorSpec) -> Actor {
        Actor::new(&self.host, &self.cache, module, spec).expect("an actor")
    }

    pub fn refused(&self, module: &[u8]) -> ActorModuleError {
        match Actor::new(&self.host, &self.cache, module, self.spec()) {
            Ok(_) => panic!("accepted"),
            Err(error) => error,
        }
    }

    pub fn said(&self) -> String {
        let printed = self.printed.lock().expect("not poisoned");
        String::from_utf8_lossy(&printed).into_owned()
    }
}

pub async fn send(
    actor: &Actor,
    path: &str,
    body: &[u8],
) -> Result<http::Response<ActorBody>, ActorError> {
    let request = http::Request::post(path).body(Bytes::copy_from_slice(body));
    actor.handle(request.expect("a request")).await
}

pub async fn ask(actor: &Actor, path: &str) -> Result<String, ActorError> {
    let body = send(actor, path, b"").await?.into_body();
    let body = body.collect().await.expect("never fails").to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    Ok(text.trim_end_matches('\0').to_owned())
}

/// A module of `fields`, with a memory of two pages whose second one takes the
/// request, and at 16 an answer of status 200 and the eight bytes at 28.
pub fn module(fields: &str) -> Vec<u8> {
    let text = format!(
        r#"(module {IMPORTS}
            (memory (export "memory") 2)
            (data (i32.const 16) "\01\00\c8\00\00\00\00\00\08\00\00\00\00\00")
            (func (export "alloc") (param i32) (result i32) (i32.const 65536))
            {fields})"#
    );
    wat::parse_str(text).expect("a module")
}

const IMPORTS: &str = r#"
    (import "homeostat" "publish" (func $publish (param i32 i32 i32 i32) (result i32)))
    (import "homeostat" "random" (func $random (param i32 i32)))
    (import "homeostat" "log" (func $log (param i32 i32 i32)))
    (import "homeostat" "clock_monotonic" (func $now (result i64)))
    (import "homeostat" "bucket_increment"
        (func $add (param i32 i32 i32 i32 i64 i32) (result i64)))
    (import "wasi_snapshot_preview1" "fd_write"
        (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))"#;

/// As [`module`], whose `handle` answers with how often it was asked, one
/// digit, after doing `code` if the path is `/b`.
pub fn counting(code: &str) -> Vec<u8> {
    module(&format!(
        r#"(global $count (mut i64) (i64.const 0x30))
        (func $recurse (param i32) (result i32)
            (i32.add (i32.const 1) (call $recurse (local.get 0))))
        (func (export "handle") (param $at i32) (param $length i32) (result i64)
            (global.set $count (i64.add (global.get $count) (i64.const 1)))
            (i64.store (i32.const 28) (global.get $count))
            (if (i32.eq (i32.load8_u (i32.add (local.get $at) (i32.const 15))) (i32.const 0x62))
                (then {code}))
            {ANSWER})"#
    ))
}

/// Twenty bytes at 16.
pub const ANSWER: &str = "(i64.or (i64.shl (i64.const 16) (i64.const 32)) (i64.const 20))";
