//! Plays the scripts of `node::script` with real agents, in a lab, beside the
//! same in the simulated world.
//!
//! In: a script, a seed for the simulated world. Out: a [`Report`]: what came
//! true after how long in each of the two, what was broken, what a lab cannot
//! show of it.
//! Holds: what a script expects and what must always hold decides; times are
//! reported, and a late one is only said to be late, for machines are shared.
//! Never: passes over what it cannot do: the report says it.

mod history;
mod limits;
mod look;
mod play;
mod stage;

use kernel::format_duration;
use node::script::{Expectation, Script};
use std::fmt;
use std::time::Duration;

pub use limits::unfit;
pub use play::PATIENCE;

/// What both worlds made of one expectation.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub expectation: Expectation,
    /// None: not in time.
    pub in_sim: Option<Duration>,
    /// From the moment from which it was expected; none: not within the patience
    /// beyond the script's time.
    pub in_lab: Option<Duration>,
}

#[derive(Clone, Debug, Default)]
pub struct Report {
    pub script: String,
    pub seed: u64,
    /// Why no lab can play it; then none did.
    pub unfit: Vec<String>,
    /// What the lab does otherwise than the simulated world.
    pub notes: Vec<String>,
    pub outcomes: Vec<Outcome>,
    pub broken_in_sim: Vec<String>,
    pub broken_in_lab: Vec<String>,
    pub took: Duration,
}

/// Both, one after the other.
///
/// * `patience`: how much later than the script says something may come true in
///   the lab.
///
/// # Errors
/// Says why no lab could be made.
pub fn play(script: &Script, seed: u64, patience: Duration) -> Result<Report, String> {
    let sim = sim::play(script, seed);
    let outcomes = sim.outcomes.into_iter().map(|one| Outcome {
        expectation: one.expectation,
        in_sim: one.took,
        in_lab: None,
    });
    let mut report = Report {
        script: script.name.clone(),
        seed,
        unfit: limits::unfit(script),
        notes: limits::notes(script),
        outcomes: outcomes.collect(),
        broken_in_sim: sim.broken,
        ..Report::default()
    };
    if report.unfit.is_empty() {
        play::play(script, patience, &mut report)?;
    }
    Ok(report)
}

impl Report {
    /// A script that no lab can play says so; it is none that failed.
    pub fn is_good(&self) -> bool {
        let mut outcomes = self.outcomes.iter();
        self.broken_in_sim.is_empty()
            && self.broken_in_lab.is_empty()
            && outcomes
                .all(|one| one.in_sim.is_some() && (one.in_lab.is_some() || !self.unfit.is_empty()))
    }
}

/// To the millisecond: nothing is looked at more often.
fn shown(took: Option<Duration>, within: Duration) -> String {
    let Some(took) = took else {
        return "never".to_owned();
    };
    let late = if took > within { " late" } else { "" };
    format!("{:.2}s{late}", took.as_secs_f64())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match (self.is_good(), self.unfit.is_empty()) {
            (true, true) => "held in both",
            (true, false) => "held in the simulated world, NOT PLAYED in the lab",
            (false, _) => "BROKEN",
        };
        let took = self.took.as_secs();
        writeln!(
            f,
            "script {} seed {}: {word} ({took} s)",
            self.script, self.seed
        )?;
        writeln!(
            f,
            "  {:<28} {:>6} {:>7} {:>9} {:>12}",
            "EXPECTED", "FROM", "WITHIN", "SIM", "LAB"
        )?;
        for one in &self.outcomes {
            let Expectation { at, within, what } = &one.expectation;
            let in_lab = if self.unfit.is_empty() {
                shown(one.in_lab, *within)
            } else {
                "-".to_owned()
            };
            writeln!(
                f,
                "  {:<28} {:>6} {:>7} {:>9} {in_lab:>12}",
                what.to_string(),
                format_duration(*at),
                format_duration(*within),
                shown(one.in_sim, *within),
            )?;
        }
        for (label, lines) in [
            ("not in a lab:", &self.unfit),
            ("otherwise in the lab:", &self.notes),
            ("broken in the simulated world:", &self.broken_in_sim),
            ("broken in the lab:", &self.broken_in_lab),
        ] {
            for line in lines {
                writeln!(f, "  {label} {line}")?;
            }
        }
        Ok(())
    }
}
