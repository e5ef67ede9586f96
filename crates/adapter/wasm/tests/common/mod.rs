//! Services of the probe and how they are asked, for all tests.

#![allow(dead_code, reason = "each test program uses a part")]

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wasm::{CompiledCache, GuestError, Host, Limits, Line, Service, ServiceSpec, WasmError};

pub type Printed = Arc<Mutex<Vec<(Line, u8)>>>;

pub struct Bench {
    pub host: Host,
    pub cache: CompiledCache,
    pub printed: Printed,
    pub directory: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self {
            host: Host::new().expect("an engine"),
            cache: CompiledCache::open(directory.path()).expect("a cache"),
            printed: Printed::default(),
            directory,
        }
    }

    pub fn spec(&self, limits: Limits) -> ServiceSpec {
        let printed = Arc::clone(&self.printed);
        ServiceSpec {
            name: "probe".to_owned(),
            limits,
            environment: vec![("GREETING".to_owned(), "good day".to_owned())],
            output: Arc::new(move |line, bytes| {
                let mut printed = printed.lock().expect("not poisoned");
                printed.extend(bytes.iter().map(|byte| (line, *byte)));
            }),
            calls: Arc::default(),
            buckets: None,
        }
    }

    pub fn service(&self, limits: Limits) -> Service {
        self.service_of(guests::PROBE, limits)
    }

    pub fn service_of(&self, component: &[u8], limits: Limits) -> Service {
        self.new_service(component, limits).expect("a service")
    }

    pub fn service_with(&self, component: &[u8], spec: ServiceSpec) -> Service {
        Service::new(&self.host, &self.cache, component, spec).expect("a service")
    }

    pub fn new_service(&self, component: &[u8], limits: Limits) -> Result<Service, WasmError> {
        Service::new(&self.host, &self.cache, component, self.spec(limits))
    }

    pub fn refused(&self, component: &[u8]) -> WasmError {
        match self.new_service(component, Limits::default()) {
            Ok(_) => panic!("accepted"),
            Err(error) => error,
        }
    }

    pub fn printed(&self, line: Line) -> Vec<u8> {
        let printed = self.printed.lock().expect("not poisoned");
        let those = printed.iter().filter(|one| one.0 == line);
        those.map(|one| one.1).collect()
    }
}

pub fn request(
    path: &str,
    body: &'static [u8],
) -> http::Request<http_body_util::combinators::BoxBody<Bytes, wasmtime_wasi_http::Error>> {
    let body = Full::new(Bytes::from_static(body)).map_err(|never| match never {});
    http::Request::post(path)
        .header("host", "localhost")
        .body(body.boxed())
        .expect("a request")
}

pub async fn ask(service: &Service, path: &str) -> Result<String, GuestError> {
    ask_with(service, path, b"").await
}

pub async fn ask_with(
    service: &Service,
    path: &str,
    body: &'static [u8],
) -> Result<String, GuestError> {
    let answer = service.handle(request(path, body)).await?;
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().collect().await.expect("a whole body");
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

pub fn short() -> Limits {
    Limits {
        time: Duration::from_millis(200),
        ..Limits::default()
    }
}
