//! How many idle services one machine holds, each ready to answer at once.
//!
//! Holds: all were compiled before and are loaded from what was kept; none has
//! an instance; each is asked once, and counts if its first answer comes in
//! time. Their code is of a few components, each loaded by many services.

use crate::{Bench, Report, goals};
use bench_common::figure::{Figure, quantile};
use bench_common::{Failure, machine, say};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wasm::{CompiledCache, Host, Limits, Service, ServiceSpec};

const FIRST_MAX: Duration = Duration::from_millis(5);
const OWN_FILES: usize = 100;
/// Different components among the services.
const COMPONENTS: usize = 20;

pub fn measure(bench: &Bench, report: Report) -> Result<(), Failure> {
    let files = raise_files()?;
    let count = bench.lengths.idle_services.min(files);
    let directory = bench.directory("i")?;
    let components: Vec<Vec<u8>> = (0..COMPONENTS).map(component).collect();
    let host = Host::new()?;
    let cache = CompiledCache::open(&directory)?;
    for component in &components {
        cache.prepare(&host, component)?;
    }
    let before = machine::pss(std::process::id())?;
    let begun = Instant::now();
    let services: Vec<Service> = (0..count)
        .map(|number| {
            let component = &components[number % COMPONENTS];
            service(&host, &cache, component, Limits::default())
        })
        .collect::<Result<_, _>>()?;
    let loaded = begun.elapsed();
    let each = machine::pss(std::process::id())?.saturating_sub(before) / services.len() as u64;
    say(&format!(
        "    {} services loaded in {:.1} s, {} KB each",
        services.len(),
        loaded.as_secs_f64(),
        each / 1000
    ));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut spans_ms = Vec::new();
    for service in &services {
        let begun = Instant::now();
        runtime.block_on(answered(service))?;
        spans_ms.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let in_time = spans_ms
        .iter()
        .filter(|span| **span <= FIRST_MAX.as_secs_f64() * 1e3)
        .count();
    say(&format!(
        "    first answer, ms: median {:.3}, p99 {:.3}, longest {:.3}; {in_time} in time",
        quantile(&spans_ms, 0.5),
        quantile(&spans_ms, 0.99),
        quantile(&spans_ms, 1.0)
    ));
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let in_time = in_time as f64;
    report(Figure::alone(goals::IDLE, in_time));
    Ok(())
}

/// The probe with a section that says its number: other bytes, other code kept.
fn component(number: usize) -> Vec<u8> {
    let mut bytes = guests::PROBE.to_vec();
    // A custom section: its kind, its length, the name's length, the name.
    let name = format!("number {number:03}");
    let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    bytes.extend([0, length + 1, length]);
    bytes.extend(name.as_bytes());
    bytes
}

/// Each keeps its code's file open: how many the system allows, less what else
/// this process has open.
fn raise_files() -> Result<usize, Failure> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    let most = limit.current.map_or(usize::MAX, |most| {
        usize::try_from(most).unwrap_or(usize::MAX)
    });
    Ok(most.saturating_sub(OWN_FILES))
}

pub fn service(
    host: &Host,
    cache: &CompiledCache,
    component: &[u8],
    limits: Limits,
) -> Result<Service, Failure> {
    let spec = ServiceSpec {
        name: "measured".to_owned(),
        limits,
        environment: Vec::new(),
        output: Arc::new(|_, _| {}),
        calls: Arc::default(),
        buckets: None,
    };
    Ok(Service::new(host, cache, component, spec)?)
}

/// One request and all of its answer.
pub async fn answered(service: &Service) -> Result<(), Failure> {
    let request = http::Request::get("/hello")
        .header(http::header::HOST, "localhost")
        .body(Empty::<Bytes>::new())?;
    let answer = service.handle(request).await?;
    let body = answer.into_body().collect().await;
    let body = body.map_err(|why| format!("the answer broke off: {why}"))?;
    if body.to_bytes() == "hello" {
        Ok(())
    } else {
        Err("the guest said something else".into())
    }
}
