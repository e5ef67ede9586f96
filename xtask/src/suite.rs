//! Everything that must pass, the tests last.
//!
//! Out: nextest's summary closes the output.

use crate::check;
use crate::steps::{cargo, say, step};

/// # Errors
/// Names the step that failed.
pub fn run() -> Result<(), String> {
    check::run()?;
    step("build", || cargo("build --workspace"))?;
    step("documentation tests", || {
        cargo("test --quiet --workspace --doc")
    })?;
    say("==> tests");
    cargo("nextest run --workspace")
}
