//! Builds what the story needs, and tells it.
//!
//! In: the workspace; `HOMEOSTAT_DATA` for recorded requests. Out: whether the
//! story holds.

use crate::steps::{programs, run as run_command, say, step};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

/// # Errors
/// Names the step that failed.
pub fn run() -> Result<(), String> {
    let choice =
        "--package homeostat --package news-generator --package news-search --package black-box";
    tell(&step("build", || programs(choice))?)
}

/// With programs that are built already.
///
/// # Errors
/// As [`run`].
pub fn tell(programs: &BTreeMap<String, PathBuf>) -> Result<(), String> {
    say("==> story");
    run_command(&mut Command::new(&programs["story"]))
}
