//! What a replay found, counted.
//!
//! In: what each request came to. Out: a [`ReplayReport`], fit for JSON.
//! Holds: each planned request is in exactly one of answered, failed without an
//! answer, and not sent; a timeout counts in the latencies with the time that
//! was waited, and no other missing answer does.

use crate::client::{Failure, Outcome};
use crate::drive::Ended;
use hdrhistogram::Histogram;
use http::uri::PathAndQuery;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

const SAMPLES_MAX: usize = 10;
const SAMPLE_CHARS_MAX: usize = 200;
/// Three digits, up to an hour: 0.1 % is finer than any two runs agree.
const DIGITS: u8 = 3;
const MICROS_MAX: u64 = 3_600_000_000;

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ReplayReport {
    pub target: String,
    /// Of the recorded pace; 0 when the pace was that of the answers.
    pub speed: f64,
    /// The load was ended before all was sent.
    pub interrupted: bool,
    pub seconds: f64,
    pub planned: u64,
    pub sent: u64,
    /// Whole answers, whatever their status.
    pub answered: u64,
    pub body_bytes: u64,
    /// Answers by status, `2xx` and so on.
    pub statuses: BTreeMap<String, u64>,
    /// All of `failures`, each request once.
    pub failed: u64,
    pub failures: Failures,
    pub first_failures: Vec<Sample>,
    /// From the moment a request was due (with speed 0: sent) to its end.
    pub latency: Quantiles,
    /// How much later than due the sender let requests go.
    pub lag: Quantiles,
    pub held: Held,
    pub log: Option<LogReport>,
    pub mapping: Option<MappingReport>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Failures {
    /// No connection was made.
    pub connect: u64,
    /// The connection ended before an answer.
    pub reset: u64,
    pub timeout: u64,
    /// The connection ended within an answer.
    pub incomplete: u64,
    /// What came was no HTTP.
    pub protocol: u64,
    /// Answers with a 5xx status.
    pub server_error: u64,
    /// Answers whose body was another than before under the same `ETag`.
    pub mismatch: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    pub path: String,
    /// When it was due, seconds since the start.
    pub due_seconds: f64,
    pub why: String,
}

/// In milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    pub count: u64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

/// What the bound on requests in flight did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Held {
    /// The most in flight at once.
    pub in_flight_most: usize,
    /// Requests that were due and had to wait for room.
    pub requests: u64,
    pub longest_ms: f64,
}

/// What became of a log's lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LogReport {
    /// Read, empty ones left out.
    pub lines: u64,
    pub used: u64,
    pub malformed: u64,
    /// Left out for their method.
    pub methods: BTreeMap<String, u64>,
    pub first_skipped: Vec<SkippedLine>,
    /// The log goes on after the last request that the limit allows.
    pub beyond_limit: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SkippedLine {
    /// From 1.
    pub line: u64,
    pub why: String,
}

/// How recorded paths met the target's documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MappingReport {
    pub recorded: usize,
    pub documents: usize,
    /// Recorded paths beyond the documents' number, dealt over them again.
    pub dealt_again: usize,
    /// Requests that became searches.
    pub searches: u64,
}

/// Counts while requests end.
pub struct Tally {
    report: ReplayReport,
    latency: Histogram<u64>,
    lag: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            report: ReplayReport::default(),
            latency: histogram(),
            lag: histogram(),
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MICROS_MAX, DIGITS).expect("the bounds are in order")
}

fn record(histogram: &mut Histogram<u64>, took: Duration) {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    histogram.saturating_record(micros);
}

impl Tally {
    pub fn sent(&mut self, late: Duration) {
        self.report.sent += 1;
        record(&mut self.lag, late);
    }

    pub fn in_flight(&mut self, count: usize) {
        let most = &mut self.report.held.in_flight_most;
        *most = count.max(*most);
    }

    pub fn held(&mut self, waited: Duration) {
        let held = &mut self.report.held;
        held.requests += 1;
        held.longest_ms = held.longest_ms.max(millis(waited));
    }

    pub fn ended(&mut self, ended: &Ended, path: &PathAndQuery) {
        let why = match &ended.outcome {
            Outcome::Answered {
                status,
                bytes,
                mismatch,
            } => {
                self.report.answered += 1;
                self.report.body_bytes += bytes;
                record(&mut self.latency, ended.took);
                let class = format!("{}xx", status / 100);
                *self.report.statuses.entry(class).or_default() += 1;
                self.answer(*status, *mismatch)
            }
            Outcome::Failed {
                failure,
                detail,
                bytes,
            } => {
                self.report.body_bytes += bytes;
                Some(self.failure(*failure, ended.took, detail))
            }
        };
        if let Some(why) = why {
            self.report.failed += 1;
            self.sample(ended.due, path.as_str(), &why);
        }
    }

    /// Why an answer counts as a failure, if it does.
    fn answer(&mut self, status: u16, mismatch: bool) -> Option<String> {
        if status >= 500 {
            self.report.failures.server_error += 1;
            return Some(format!("status {status}"));
        }
        if mismatch {
            self.report.failures.mismatch += 1;
            return Some("another body under the same ETag".to_owned());
        }
        None
    }

    fn failure(&mut self, failure: Failure, took: Duration, detail: &str) -> String {
        let failures = &mut self.report.failures;
        let (count, what) = match failure {
            Failure::Connect => (&mut failures.connect, "no connection"),
            Failure::Reset => (&mut failures.reset, "ended before an answer"),
            Failure::Timeout => (&mut failures.timeout, "timeout"),
            Failure::Incomplete => (&mut failures.incomplete, "ended within the answer"),
            Failure::Protocol => (&mut failures.protocol, "no HTTP"),
        };
        *count += 1;
        if failure == Failure::Timeout {
            record(&mut self.latency, took);
        }
        format!("{what}: {detail}")
    }

    /// A request whose end nobody saw.
    pub fn lost(&mut self, why: &str) {
        self.report.failed += 1;
        self.report.failures.reset += 1;
        self.sample(Duration::ZERO, "?", why);
    }

    fn sample(&mut self, due: Duration, path: &str, why: &str) {
        let short = |text: &str| text.chars().take(SAMPLE_CHARS_MAX).collect();
        if self.report.first_failures.len() < SAMPLES_MAX {
            self.report.first_failures.push(Sample {
                path: short(path),
                due_seconds: due.as_secs_f64(),
                why: short(why),
            });
        }
    }

    pub fn sent_so_far(&self) -> u64 {
        self.report.sent
    }

    pub fn ended_so_far(&self) -> u64 {
        let failures = &self.report.failures;
        let unanswered = failures.connect
            + failures.reset
            + failures.timeout
            + failures.incomplete
            + failures.protocol;
        self.report.answered + unanswered
    }

    pub fn failed_so_far(&self) -> u64 {
        self.report.failed
    }

    pub fn report(
        self,
        planned: u64,
        elapsed: Duration,
        speed: f64,
        interrupted: bool,
    ) -> ReplayReport {
        ReplayReport {
            planned,
            seconds: elapsed.as_secs_f64(),
            speed,
            interrupted,
            latency: quantiles(&self.latency),
            lag: quantiles(&self.lag),
            ..self.report
        }
    }
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

fn quantiles(histogram: &Histogram<u64>) -> Quantiles {
    if histogram.is_empty() {
        return Quantiles::default();
    }
    let millis = |micros: u64| millis(Duration::from_micros(micros));
    let at = |share| millis(histogram.value_at_quantile(share).min(histogram.max()));
    Quantiles {
        count: histogram.len(),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p99_9: at(0.999),
        max: millis(histogram.max()),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn ended(outcome: Outcome, millis: u64) -> Ended {
        Ended {
            index: 0,
            due: Duration::from_secs(2),
            took: Duration::from_millis(millis),
            outcome,
        }
    }

    fn answered(status: u16) -> Outcome {
        Outcome::Answered {
            status,
            bytes: 1024,
            mismatch: false,
        }
    }

    fn failed(failure: Failure) -> Outcome {
        Outcome::Failed {
            failure,
            detail: "so it was".to_owned(),
            bytes: 0,
        }
    }

    pub fn tallied() -> ReplayReport {
        let path = PathAndQuery::from_static("/a");
        let mut tally = Tally::default();
        for millis in 1..=97 {
            tally.sent(Duration::ZERO);
            tally.ended(&ended(answered(200), millis), &path);
        }
        for outcome in [
            answered(503),
            failed(Failure::Timeout),
            failed(Failure::Connect),
        ] {
            tally.sent(Duration::from_millis(3));
            tally.ended(&ended(outcome, 5_000), &path);
        }
        tally.report(120, Duration::from_secs(10), 2.0, true)
    }

    #[test]
    fn each_request_counts_once_and_timeouts_count_as_slow() {
        let report = tallied();
        assert_eq!((report.sent, report.answered, report.failed), (100, 98, 3));
        let counted = (report.failures.server_error, report.failures.timeout);
        assert_eq!((counted, report.failures.connect), ((1, 1), 1));
        assert_eq!(report.statuses["2xx"], 97);
        assert_eq!(report.latency.count, 99);
        assert!(
            (report.latency.p50 - 50.0).abs() < 0.1,
            "{:?}",
            report.latency
        );
        assert!(
            (report.latency.max - 5_000.0).abs() < 5.0,
            "{:?}",
            report.latency
        );
        assert!((report.lag.max - 3.0).abs() < 0.01);
        assert_eq!(report.first_failures.len(), 3);
    }

    #[test]
    fn samples_are_few_and_short() {
        let path = PathAndQuery::try_from(format!("/{}", "a".repeat(5_000))).expect("a path");
        let mut tally = Tally::default();
        for _ in 0..50 {
            tally.ended(&ended(failed(Failure::Reset), 1), &path);
        }
        let report = tally.report(50, Duration::from_secs(1), 1.0, false);
        assert_eq!(report.failures.reset, 50);
        assert_eq!(report.first_failures.len(), SAMPLES_MAX);
        assert!(report.first_failures[0].path.len() <= SAMPLE_CHARS_MAX);
    }

    #[test]
    fn the_report_is_json() {
        let text = serde_json::to_string(&tallied()).expect("JSON");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["failures"]["server_error"], 1);
        assert_eq!(value["statuses"]["5xx"], 1);
        assert!(value["latency"]["p99_9"].is_number());
    }
}
