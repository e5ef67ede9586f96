//! Runs the project's chores: `check`, `generate`, `test`, `story`, `up`, `bench`,
//! `sim`, `lab`, `fuzz`, `cases`, `soak`, `chaos`.
//!
//! In: one word. Out: the exit status of the first chore that failed.
//! Holds: the tests run last, so that their summary closes the output.
//! Never: changes a source file, except the pages that `generate` writes.

mod bench;
mod cases;
mod check;
mod clippy_files;
mod direction;
mod fuzz;
mod generated;
mod lab;
mod purity;
mod sim;
mod soak;
mod steps;
mod story;
mod suite;
mod system;
mod tidy;
mod tools;
mod up;
mod workspace;

use std::io::Write as _;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask CHORE
  check      format, direction, purity, budgets, generated pages, lints
  generate   writes the generated pages anew
  test       check, licences, build, documentation tests, the story, all tests
  story      the whole product in one run, judged by its clients
  up         builds, makes the example news site, starts a node on it; what follows
             goes to `homeostat up`
  bench      measures against peers: `bench spine`, `bench spine --quick`
  sim        plays scripts in the simulated world: `sim --seed 7 power-cut`; random
             clusters and faults, counted: `sim faults --count 2000`; cuts of
             singletons' nodes: `sim singletons --count 1000`
  lab        plays the same with real agents, beside it: `lab power-cut`; all
             without a name, `lab --quick` those that the tests play
  chaos      random faults in a lab, and what users saw: `chaos --count 200`
  fuzz       tries what reads others' bytes: `fuzz gossip --seconds 300`; all
             targets without a name
  cases      random cases in large numbers: `cases evaluator 1000000`
  soak       random simulated worlds for as long as asked for: `soak --for 1h`";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let chore = words.next();
    let rest: Vec<String> = words.collect();
    let outcome = match (chore.as_deref(), rest.is_empty()) {
        (Some("check"), true) => check::run(),
        (Some("generate"), true) => generated::write(),
        (Some("test"), true) => suite::run(),
        (Some("story"), true) => story::run(),
        (Some("up"), _) => up::run(&rest),
        (Some("bench"), _) => bench::run(&rest),
        (Some("sim"), _) => sim::run(&rest),
        (Some("lab"), _) => lab::run(&rest),
        (Some("chaos"), _) => lab::chaos(&rest),
        (Some("cases"), _) => cases::run(&rest),
        (Some("soak"), _) => soak::run(&rest),
        (Some("fuzz"), _) => fuzz::run(&rest),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "xtask: {why}");
            ExitCode::FAILURE
        }
    }
}
