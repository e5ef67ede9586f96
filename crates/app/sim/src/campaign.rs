//! `sim faults`: many random histories, and how many of them end as wished.
//!
//! In: how many, from which seed. Out: the figure; of each that did not hold its
//! seed, what was broken, and the script with the fewest steps that still is.

use sim::faults::{Faults, shrink};
use std::io::Write as _;
use std::time::Instant;

pub const USAGE: &str = "       sim faults [--count N] [--from SEED]";

const CLOSES: u64 = 2_000;
const FINAL: u64 = 10_000;
/// Of histories that did not hold, those that are told with their steps.
const TOLD_MAX: u64 = 3;
const SAY_EVERY: u64 = 100;

/// Whether all held.
pub fn run(words: &[String]) -> Result<bool, String> {
    let (count, from) = read(words)?;
    let (began, mut failed, mut events) = (Instant::now(), 0, 0);
    let mut out = std::io::stdout();
    for (done, seed) in (1..).zip(from..from.saturating_add(count)) {
        let faults = Faults::seeded(seed);
        let report = faults.play();
        events += report.events;
        if !report.is_good() {
            failed += 1;
            let _ = writeln!(out, "{report}");
            if failed <= TOLD_MAX {
                tell(&faults);
            }
        }
        if done % SAY_EVERY == 0 {
            let seconds = began.elapsed().as_secs();
            let _ = writeln!(
                std::io::stderr(),
                "    {done} of {count}, {failed} failed, {seconds} s"
            );
        }
    }
    let good = count - failed;
    let word = if failed == 0 && count >= CLOSES {
        "ok"
    } else {
        "short"
    };
    let seconds = began.elapsed().as_secs();
    let _ = writeln!(
        out,
        "condition histories: {count} from seed {from}, {events} events, {seconds} s\n\
         figure random_faults_isomorphic ours={good}/{count} peer=- ratio=- \
         closes={CLOSES}/{CLOSES} final={FINAL}/{FINAL} {word}"
    );
    Ok(failed == 0)
}

fn tell(faults: &Faults) {
    let least = shrink(faults);
    let _ = writeln!(
        std::io::stdout(),
        "# `sim faults --count 1 --from {}`; of its steps, these are enough (repair.moves_max = {}):\n{}{}\n",
        faults.seed,
        least.options.repair.moves_max,
        least.script,
        least.play()
    );
}

fn read(words: &[String]) -> Result<(u64, u64), String> {
    let (mut count, mut from) = (CLOSES, 1);
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let number = rest.next().and_then(|text| text.parse().ok());
        let number: u64 = number.ok_or_else(|| format!("usage:\n{USAGE}"))?;
        match word.as_str() {
            "--count" if number > 0 => count = number,
            "--from" => from = number,
            _ => return Err(format!("usage:\n{USAGE}")),
        }
    }
    Ok((count, from))
}
