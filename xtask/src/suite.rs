//! Everything that must pass, the tests last.
//!
//! In: the workspace, the tools (installed if missing). Out: the first failure.
//! Holds: nextest's summary closes the output.
//! Never: asks for advisories, which change without the code changing.

use crate::steps::{cargo, programs, run as run_command, say, step};
use crate::{check, lab, story, system, tools};
use std::process::Command;

/// What the main command does not build.
pub const FEATURES: &str = "--features homeostat/etcd";

/// # Errors
/// Names the step that failed.
pub fn run() -> Result<(), String> {
    let nextest = tools::find(&tools::NEXTEST)?;
    let deny = tools::find(&tools::DENY)?;
    // Not there for every machine: one test goes without it.
    let python = tools::package(&tools::COMPONENTIZE_PY);
    let etcd = system::install(&system::ETCD);
    check::run()?;
    step("licences, bans, sources", || {
        run_command(Command::new(deny).args([
            "--log-level",
            "error",
            "check",
            "--hide-inclusion-graph",
            "licenses",
            "bans",
            "sources",
        ]))
    })?;
    // The tests switch on features of libraries: with all targets, each library
    // is built once for both.
    let built = step("build", || {
        programs(&format!("--workspace --all-targets {FEATURES}"))
    })?;
    step("documentation tests", || {
        cargo(&format!("test --quiet --workspace --doc {FEATURES}"))
    })?;
    story::tell(&built)?;
    step("the quickest scripts, with real agents", || {
        lab::play(&built, &["--quick".to_owned()])
    })?;
    say("==> tests");
    let mut tests = Command::new(nextest);
    tests.args(["nextest", "run", "--workspace"]);
    tests.args(FEATURES.split(' '));
    match &python {
        Ok(place) => drop(tests.env("HOMEOSTAT_COMPONENTIZE_PY", place)),
        Err(why) => say(&format!(
            "    the test of another toolchain is skipped: {why}"
        )),
    }
    if let Err(why) = etcd {
        say(&format!("    the tests on etcd are skipped: {why}"));
    }
    run_command(&mut tests)
}
