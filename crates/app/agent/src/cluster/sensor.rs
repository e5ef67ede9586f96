//! Reads what this node is doing: its machine, its edge, its services.
//!
//! In: the kernel's counters, the edge's readings. Out: readings for the node's
//! row.

use super::rows::whole;
use crate::shared::Shared;
use aggregation::readings::{Reading, Step};
use kernel::Bytes;
use node::nodes::MachineReport;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use telemetry::{MachineReadings, MachineSensor};
use wire::attributes::{Quantiles, Value};
use wire::edge::{EdgeReadings, LATENCY_LEVEL, ServiceReadings, counts_since};

const EVERY: Duration = Duration::from_secs(2);
/// What rates and latencies are of.
const WINDOW: Duration = Duration::from_secs(10);

/// What a look counts in the mean: about five make a new one.
const SMOOTHING: f64 = 0.3;

/// Of numbers between 0 and 1.
const PART: Step = Step::Over(0.1);
const RATE: Step = Step::Share {
    part: 0.2,
    least: 1.0,
};
const BYTE_RATE: Step = Step::Share {
    part: 0.5,
    least: 65_536.0,
};
const BYTES: Step = Step::Share {
    part: 0.1,
    least: 16_777_216.0,
};

/// Looks for ever.
pub async fn run(shared: Arc<Shared>) {
    let cluster = &shared.cluster;
    let mut machine = MachineSensor::new(shared.layout.root.clone());
    let mut window = Window::default();
    let mut cpu = None;
    loop {
        let looked = tokio::task::spawn_blocking(move || {
            let readings = machine.read();
            (machine, readings)
        });
        let Ok((sensor, read)) = looked.await else {
            return;
        };
        machine = sensor;
        let mut read = read.unwrap_or_else(|error| {
            tracing::warn!(%error, "this machine is not read");
            MachineReadings::default()
        });
        cluster.has.send_if_modified(|has| {
            let now = has_of(&read);
            let news = now.is_some() && *has != now;
            if news {
                *has = now;
            }
            news
        });
        // What lasts a moment is nobody's news.
        cpu = match (cpu, read.cpu) {
            (Some(before), Some(now)) => Some(before + (now - before) * SMOOTHING),
            (before, now) => now.or(before),
        };
        read.cpu = cpu;
        window.push(Instant::now(), shared.readings.borrow().clone());
        let mut readings = of_machine(&read);
        readings.extend(window.readings());
        let (http, _) = *shared.listeners.borrow();
        if let Some(http) = cluster.ingress(http) {
            add(
                &mut readings,
                "ingress",
                9,
                Step::Any,
                text(&http.to_string()),
            );
        }
        cluster.rows.read(readings);
        tokio::time::sleep(EVERY).await;
    }
}

/// None of a machine that was not read.
fn has_of(machine: &MachineReadings) -> Option<MachineReport> {
    (machine.cores > 0).then(|| MachineReport {
        cpu_thousandths: machine.cores as u64 * 1_000,
        memory: Bytes(machine.memory_bytes),
        disk: Bytes(machine.disk_bytes),
        architecture: std::env::consts::ARCH.to_owned(),
    })
}

fn add(readings: &mut Vec<Reading>, name: &str, priority: u8, step: Step, value: Value) {
    // A name that is too long names nothing.
    if let Ok(name) = name.parse() {
        readings.push(Reading {
            name,
            value,
            step,
            priority,
        });
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// To three digits: further ones cost bytes and say nothing.
fn part(part: f64) -> Value {
    Value::Float((part * 1e3).round() / 1e3)
}

fn of_machine(machine: &MachineReadings) -> Vec<Reading> {
    let mut all = Vec::new();
    let used = ratio(
        machine
            .memory_bytes
            .saturating_sub(machine.memory_free_bytes),
        machine.memory_bytes,
    );
    if let Some(cpu) = machine.cpu {
        add(&mut all, "cpu", 8, PART, part(cpu));
        let headroom = 1.0 - cpu.max(used.unwrap_or(0.0));
        add(&mut all, "headroom", 9, PART, part(headroom));
    }
    let memory = whole(machine.memory_free_bytes);
    add(&mut all, "memory_free_bytes", 7, BYTES, memory);
    let disk = whole(machine.disk_free_bytes);
    add(&mut all, "disk_free_bytes", 7, BYTES, disk);
    add(&mut all, "disk_bytes", 4, BYTES, whole(machine.disk_bytes));
    for (name, value, step) in [
        ("cpu_pressure", machine.cpu_pressure, PART),
        ("memory_pressure", machine.memory_pressure, PART),
        ("io_pressure", machine.io_pressure, PART),
        (
            "received_bytes_per_s",
            machine.received_bytes_per_s,
            BYTE_RATE,
        ),
        ("sent_bytes_per_s", machine.sent_bytes_per_s, BYTE_RATE),
    ] {
        if let Some(value) = value {
            add(&mut all, name, 5, step, part(value));
        }
    }
    all
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn ratio(of: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| of as f64 / all as f64)
}

/// The edge's counts of the last while.
#[derive(Default)]
struct Window(VecDeque<(Instant, EdgeReadings)>);

impl Window {
    fn push(&mut self, at: Instant, readings: EdgeReadings) {
        // An edge that started anew counts from zero.
        let is_new = |last: &EdgeReadings| last.requests > readings.requests;
        if self.0.back().is_some_and(|(_, last)| is_new(last)) {
            self.0.clear();
        }
        self.0.push_back((at, readings));
        while self.0.len() > 2
            && self
                .0
                .get(1)
                .is_some_and(|(second, _)| at.saturating_duration_since(*second) >= WINDOW)
        {
            self.0.pop_front();
        }
    }

    fn readings(&self) -> Vec<Reading> {
        let mut all = Vec::new();
        let (Some((begun, first)), Some((ended, last))) = (self.0.front(), self.0.back()) else {
            return all;
        };
        let span = ended.saturating_duration_since(*begun).as_secs_f64();
        if span <= 0.0 {
            return all;
        }
        let counts = |of: &EdgeReadings| ServiceReadings {
            requests: of.requests,
            errors: of.errors,
            in_flight: of.in_flight,
            latency_ms: of.latency_ms.clone(),
            ..ServiceReadings::default()
        };
        rates(&mut all, "", 8, span, &counts(first), &counts(last));
        let nothing = ServiceReadings::default();
        for (name, last) in &last.services {
            let first = first.services.get(name).unwrap_or(&nothing);
            let name = format!("{}__{}_", name.project, name.name).replace('-', "_");
            rates(&mut all, &name, 2, span, first, last);
        }
        all
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates")]
fn rates(
    all: &mut Vec<Reading>,
    of: &str,
    priority: u8,
    span: f64,
    first: &ServiceReadings,
    last: &ServiceReadings,
) {
    let rate = |last: u64, first: u64| part(last.saturating_sub(first) as f64 / span);
    let mut add = |name: &str, priority, step, value| {
        add(all, &format!("{of}{name}"), priority, step, value);
    };
    add(
        "requests_per_s",
        priority,
        RATE,
        rate(last.requests, first.requests),
    );
    add(
        "errors_per_s",
        priority,
        RATE,
        rate(last.errors, first.errors),
    );
    let step = Step::Share {
        part: 0.5,
        least: 4.0,
    };
    add("in_flight", priority, step, whole(last.in_flight));
    if let Some(latency) = latency(&first.latency_ms, &last.latency_ms) {
        add(
            "latency_ms",
            priority.saturating_sub(1),
            Step::WithOthers,
            latency,
        );
    }
}

/// Of what was answered since.
fn latency(first: &[(i32, u64)], last: &[(i32, u64)]) -> Option<Value> {
    let buckets = counts_since(first, last);
    let smallest = Quantiles::bounds(buckets.first()?.0, LATENCY_LEVEL).0;
    let largest = Quantiles::bounds(buckets.last()?.0, LATENCY_LEVEL).1;
    let quantiles = Quantiles {
        level: LATENCY_LEVEL,
        smallest,
        largest,
        buckets,
    };
    quantiles
        .is_sound()
        .then(|| Value::Quantiles(Box::new(quantiles)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(requests: u64, latency_ms: &[(i32, u64)]) -> EdgeReadings {
        let service = ServiceReadings {
            requests,
            latency_ms: latency_ms.to_vec(),
            ..ServiceReadings::default()
        };
        EdgeReadings {
            requests,
            latency_ms: latency_ms.to_vec(),
            services: [("news/live-count".parse().expect("a name"), service)].into(),
            ..EdgeReadings::default()
        }
    }

    fn value(readings: &[Reading], name: &str) -> Option<Value> {
        let mut readings = readings.iter();
        let found = readings.find(|one| one.name.as_str() == name);
        found.map(|one| one.value.clone())
    }

    #[test]
    fn rates_and_latencies_are_of_the_last_while() {
        let at = Instant::now();
        let bucket = |ms| Quantiles::bucket(ms, LATENCY_LEVEL);
        let (fast, slow) = (bucket(1.0), bucket(100.0));
        let mut window = Window::default();
        window.push(at, counts(100, &[(fast, 100)]));
        assert_eq!(window.readings(), []);
        window.push(
            at + Duration::from_secs(5),
            counts(150, &[(fast, 100), (slow, 50)]),
        );
        let readings = window.readings();
        assert_eq!(value(&readings, "requests_per_s"), Some(Value::Float(10.0)));
        let of_service = value(&readings, "news__live_count_requests_per_s");
        assert_eq!(of_service, Some(Value::Float(10.0)));
        let Some(Value::Quantiles(latency)) = value(&readings, "latency_ms") else {
            panic!("{readings:?}");
        };
        assert_eq!(latency.buckets, [(slow, 50)]);
        assert!(latency.smallest <= 100.0 && latency.largest > 100.0);
        // What is older than the window is let go.
        for second in [10, 15, 20] {
            window.push(at + Duration::from_secs(second), counts(150, &[]));
        }
        let readings = window.readings();
        assert_eq!(value(&readings, "requests_per_s"), Some(Value::Float(0.0)));
        assert_eq!(value(&readings, "latency_ms"), None);
        // An edge that starts anew.
        window.push(at + Duration::from_secs(21), counts(3, &[]));
        assert_eq!(window.readings(), []);
    }

    #[test]
    fn a_machine_that_is_full_has_no_headroom() {
        let machine = MachineReadings {
            cpu: Some(0.25),
            memory_bytes: 100,
            memory_free_bytes: 10,
            ..MachineReadings::default()
        };
        let readings = of_machine(&machine);
        assert_eq!(value(&readings, "headroom"), Some(Value::Float(0.1)));
        assert_eq!(value(&readings, "io_pressure"), None);
    }
}
