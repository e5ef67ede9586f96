//! `sim faults`: many random histories, and how many of them end as wished.
//!
//! In: how many, from which seed. Out: the figure; of each that did not hold its
//! seed, what was broken, and the script with the fewest steps that still is.

use super::{figure, progress};
use sim::faults::{Faults, shrink};
use std::io::Write as _;
use std::time::Instant;

pub const CLOSES: u64 = 2_000;
const FINAL: u64 = 10_000;
/// Of histories that did not hold, those that are told with their steps.
const TOLD_MAX: u64 = 3;
const SAY_EVERY: u64 = 100;

/// Whether all held.
pub fn run((count, from): (u64, u64)) -> bool {
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
            progress(&format!("{done} of {count}, {failed} failed, {seconds} s"));
        }
    }
    let seconds = began.elapsed().as_secs();
    let _ = writeln!(
        out,
        "condition histories: {count} from seed {from}, {events} events, {seconds} s"
    );
    let goals = [CLOSES, FINAL].map(|goal| format!("{goal}/{goal}"));
    figure(
        "random_faults_isomorphic",
        &format!("{}/{count}", count - failed),
        (&goals[0], &goals[1]),
        failed == 0 && count >= CLOSES,
    );
    failed == 0
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
