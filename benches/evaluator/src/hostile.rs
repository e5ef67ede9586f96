//! Programs and rows that mean no good, in a process that counts its memory.

use crate::{Bench, Report, goals};
use bench_common::figure::Figure;
use bench_common::{Failure, beside, conditions};
use std::process::Command;

pub fn measure(bench: &Bench, report: Report) -> Result<(), Failure> {
    let program = beside("bench-evaluator-hostile")?;
    let output = Command::new(program)
        .arg(bench.lengths.hostile.to_string())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let found = |key: &str| -> Result<f64, Failure> {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        Ok(line
            .ok_or_else(|| format!("nothing was said of {key}: {text}"))?
            .parse()?)
    };
    conditions::tell([(
        "hostile",
        format!(
            "{} programs, half made by the grammar and half mutated, over 64 hostile rows, then merged; {} were read, {} evaluated; reading took at most {:.3} ms and {:.0} KiB",
            found("programs")?,
            found("read")?,
            found("evaluated")?,
            found("read_ms")?,
            found("read_kib")?
        ),
    )])?;
    report(Figure::alone(goals::PANICS, found("panics")?));
    report(Figure::alone(goals::LONGEST, found("evaluate_ms")?));
    report(Figure::alone(goals::LARGEST, found("evaluate_kib")?));
    Ok(())
}
