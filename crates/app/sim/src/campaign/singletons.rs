//! `sim singletons`: many cuts of singletons' nodes, and how often two of one ran at
//! once.
//!
//! In: how many cuts, from which seed. Out: the figure, and how long singletons took
//! until they ran elsewhere; of each history that did not hold its seed and what
//! was seen.

use super::{figure, progress};
use sim::faults::singletons::{Cuts, middle_and_most};
use std::io::Write as _;
use std::time::Instant;

pub const CLOSES: u64 = 1_000;
const CUTS_PER_HISTORY: u64 = 10;
const SAY_EVERY: u64 = 10;

/// Whether all held.
pub fn run((count, from): (u64, u64)) -> bool {
    let (began, mut left, mut events) = (Instant::now(), count, 0);
    let (mut twice, mut amiss, mut elsewhere) = (0, 0, Vec::new());
    let mut out = std::io::stdout();
    let mut seed = from;
    while left > 0 {
        let cuts = Cuts::seeded(seed, left.min(CUTS_PER_HISTORY));
        let history = cuts.play();
        for what in history.twice.iter().chain(&history.amiss) {
            let _ = writeln!(out, "seed {seed} with {} cuts: {what}", cuts.cuts);
        }
        twice += history.twice.len();
        amiss += history.amiss.len();
        events += history.events;
        elsewhere.extend(history.elsewhere);
        left -= cuts.cuts;
        seed += 1;
        if (seed - from).is_multiple_of(SAY_EVERY) {
            let seconds = began.elapsed().as_secs();
            progress(&format!(
                "{} of {count} cuts, {twice} ran twice, {amiss} amiss, {seconds} s",
                count - left
            ));
        }
    }
    let seconds = began.elapsed().as_secs();
    let _ = writeln!(
        out,
        "condition cuts: {count} in {} histories from seed {from}, {events} events, {seconds} s",
        seed - from
    );
    if let Some((middle, most)) = middle_and_most(&elsewhere) {
        let _ = writeln!(
            out,
            "condition elsewhere: {} times, median {:.2} s, most {:.2} s",
            elsewhere.len(),
            middle.as_secs_f64(),
            most.as_secs_f64()
        );
    }
    let is_ok = twice == 0 && count >= CLOSES;
    figure(
        "singleton_ran_twice_sim",
        &twice.to_string(),
        ("<=0", "<=0"),
        is_ok,
    );
    twice + amiss == 0
}
