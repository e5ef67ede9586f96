//! Builds what the story needs, and tells it.
//!
//! In: the workspace; `HOMEOSTAT_DATA` for recorded requests. Out: whether the
//! story holds.

use crate::steps::{programs, run as run_command, say, step};
use std::process::Command;

/// # Errors
/// Names the step that failed.
pub fn run() -> Result<(), String> {
    let names = ["homeostat", "news-generator", "news-search", "black-box"];
    let programs = step("build", || programs(&names))?;
    say("==> story");
    run_command(&mut Command::new(&programs["story"]))
}
