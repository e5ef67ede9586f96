//! A report as a table for people.
//!
//! In: a [`ReplayReport`]. Out: lines, the most wanted first. Never: leaves out
//! what went wrong.

use crate::report::{
    Failures, Held, LogReport, MappingReport, Quantiles, ReplayReport, Sample, SkippedLine,
};
use kernel::Bytes;
use std::fmt::Write as _;

/// The report as a table for people.
pub fn render(report: &ReplayReport) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: &str| {
        let _ = writeln!(out, "{name:<9} {text}");
    };
    line("sent", &sent(report));
    let statuses: Vec<_> = report
        .statuses
        .iter()
        .map(|(class, count)| format!("{class} {count}"))
        .collect();
    let received = Bytes(report.body_bytes);
    line("answers", &format!("{}   {received}", joined(&statuses)));
    line("failures", &failures(report));
    for sample in &report.first_failures {
        let Sample {
            path,
            due_seconds,
            why,
        } = sample;
        line("", &format!("{due_seconds:.3} s  {path}  {why}"));
    }
    let from = if report.speed > 0.0 { "due" } else { "sent" };
    let latency = times(&report.latency);
    line("latency", &format!("{latency}   (ms, since {from})"));
    if report.speed > 0.0 {
        line("sender", &format!("{}   (ms late)", times(&report.lag)));
        let Held {
            in_flight_most,
            requests,
            longest_ms,
        } = report.held;
        let mut text = format!("{in_flight_most} at most");
        if requests > 0 {
            let _ = write!(
                text,
                "; {requests} had to wait for room, up to {longest_ms:.1} ms: \
                 the load was slower than its plan"
            );
        }
        line("in flight", &text);
    }
    if let Some(log) = &report.log {
        line("log", &log_line(log));
        for SkippedLine { line: number, why } in &log.first_skipped {
            line("", &format!("line {number}  {why}"));
        }
    }
    if let Some(mapping) = &report.mapping {
        line("mapping", &mapping_line(mapping));
    }
    out
}

fn sent(report: &ReplayReport) -> String {
    let ReplayReport {
        sent,
        planned,
        seconds,
        target,
        ..
    } = report;
    let rate = f64::from(u32::try_from(*sent).unwrap_or(u32::MAX)) / seconds.max(1e-9);
    let pace = if report.speed > 0.0 {
        format!("at {} times the plan's pace", report.speed)
    } else {
        "as fast as answered".to_owned()
    };
    let cut = if report.interrupted {
        ", interrupted"
    } else {
        ""
    };
    format!("{sent} of {planned} to {target} in {seconds:.1} s, {rate:.0}/s, {pace}{cut}")
}

fn failures(report: &ReplayReport) -> String {
    let Failures {
        connect,
        reset,
        timeout,
        incomplete,
        protocol,
        server_error,
        mismatch,
    } = report.failures;
    let kinds: Vec<_> = [
        ("connect", connect),
        ("reset", reset),
        ("timeout", timeout),
        ("incomplete", incomplete),
        ("protocol", protocol),
        ("5xx", server_error),
        ("mismatch", mismatch),
    ]
    .into_iter()
    .filter(|(_, count)| *count > 0)
    .map(|(kind, count)| format!("{kind} {count}"))
    .collect();
    if kinds.is_empty() {
        return report.failed.to_string();
    }
    format!("{}: {}", report.failed, kinds.join("   "))
}

fn joined(parts: &[String]) -> String {
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join("   ")
    }
}

fn times(quantiles: &Quantiles) -> String {
    let Quantiles {
        count,
        p50,
        p90,
        p99,
        p99_9,
        max,
    } = quantiles;
    if *count == 0 {
        return "none".to_owned();
    }
    format!("p50 {p50:.2}   p90 {p90:.2}   p99 {p99:.2}   p99.9 {p99_9:.2}   max {max:.2}")
}

fn log_line(log: &LogReport) -> String {
    let mut text = format!("{} lines, {} used", log.lines, log.used);
    if log.malformed > 0 {
        let _ = write!(text, ", {} not understood", log.malformed);
    }
    for (method, count) in &log.methods {
        let _ = write!(text, ", {count} {method} left out");
    }
    if log.beyond_limit {
        text.push_str("; the limit ended it, the log goes on");
    }
    text
}

fn mapping_line(mapping: &MappingReport) -> String {
    let MappingReport {
        recorded,
        documents,
        dealt_again,
        searches,
    } = mapping;
    let mut text = format!("{recorded} recorded paths onto {documents} documents by popularity");
    if *dealt_again > 0 {
        let _ = write!(text, ", the last {dealt_again} dealt from the front again");
    }
    if *searches > 0 {
        let _ = write!(text, "; {searches} requests became searches");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::tallied;
    use std::collections::BTreeMap;

    #[test]
    fn the_table_says_what_went_wrong() {
        let mut report = tallied();
        "http://h".clone_into(&mut report.target);
        report.held.requests = 4;
        report.log = Some(LogReport {
            lines: 7,
            used: 5,
            malformed: 1,
            methods: BTreeMap::from([("POST".to_owned(), 1)]),
            first_skipped: vec![SkippedLine {
                line: 3,
                why: "column 9: no".to_owned(),
            }],
            beyond_limit: false,
        });
        let table = render(&report);
        for part in [
            "sent      100 of 120 to http://h in 10.0 s, 10/s, at 2 times the plan's pace, interrupted\n",
            "failures  3: connect 1   timeout 1   5xx 1\n",
            "2.000 s  /a  no connection: so it was\n",
            "; 4 had to wait for room",
            "7 lines, 5 used, 1 not understood, 1 POST left out\n",
            "line 3  column 9: no\n",
        ] {
            assert!(table.contains(part), "{part}\n{table}");
        }
        let nothing = render(&ReplayReport::default());
        assert!(nothing.contains("latency   none"), "{nothing}");
    }
}
