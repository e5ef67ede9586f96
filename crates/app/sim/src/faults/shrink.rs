//! Leaves out steps of a history that did not hold, as long as it does not hold.
//!
//! Holds: what comes out does not hold either, with the same seed.

use super::Faults;
use crate::play::Report;

/// Histories that are tried at most.
const TRIES: usize = 400;

pub fn shrink(faults: &Faults) -> Faults {
    let mut least = faults.clone();
    let wanted = kind(&faults.play());
    let mut tries = 0;
    // Without what makes peace there is nothing to be as wished.
    let expectations = faults.script.expectations.iter();
    let peace = expectations.map(|one| one.at).min().unwrap_or_default();
    // Halves, quarters, …, single steps; the start and the apply stay.
    let mut span = least.script.steps.len() / 2;
    while span > 0 {
        let mut at = 2;
        loop {
            let troubles = least.script.steps.partition_point(|step| step.at < peace);
            if at >= troubles || tries >= TRIES {
                break;
            }
            let mut fewer = least.clone();
            let end = (at + span).min(troubles);
            fewer.script.steps.drain(at..end);
            tries += 1;
            if kind(&fewer.play()) == wanted {
                least = fewer;
            } else {
                at += span;
            }
        }
        span /= 2;
    }
    least
}

/// What was broken first, without when and how many.
fn kind(report: &Report) -> Option<String> {
    let first = report.broken.first()?;
    let (_, what) = first.split_once(": ")?;
    Some(what.chars().filter(|one| !one.is_ascii_digit()).collect())
}
