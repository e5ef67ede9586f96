//! The gate: what must hold before a change may land.
//!
//! In: the workspace. Out: every finding of the first step that has any.
//! Holds: the same by hand and in CI; the cheap steps run first.

use crate::steps::{cargo, step};
use crate::suite::FEATURES;
use crate::workspace::Workspace;
use crate::{clippy_files, direction, generated, purity, system, tidy, tools};

/// # Errors
/// The findings of the first step that failed, one a line.
pub fn run() -> Result<(), String> {
    step("format", || cargo("fmt --all --check"))?;
    let workspace = step("metadata", Workspace::load)?;
    step("direction", || none(&direction::check(&workspace)))?;
    step("purity", || {
        let mut findings = purity::check(&workspace);
        findings.extend(clippy_files::check(&workspace));
        none(&findings)
    })?;
    step("tidy", || none(&tidy::check(&workspace)))?;
    step("generated pages", || {
        none(&generated::check(&workspace.root))
    })?;
    tools::guest_target()?;
    system::install(&system::PROTOC)?;
    step("lints", || {
        cargo(&format!(
            "clippy --workspace --all-targets --keep-going {FEATURES} -- -D warnings"
        ))
    })?;
    step("lints of what the main command builds", || {
        cargo("clippy --workspace --lib --bins --keep-going -- -D warnings")
    })
}

fn none(findings: &[String]) -> Result<(), String> {
    match findings.len() {
        0 => Ok(()),
        count => Err(format!("{count} found\n  {}", findings.join("\n  "))),
    }
}

#[cfg(test)]
mod tests {
    use super::none;

    #[test]
    fn findings_fail_the_step_and_are_all_named() {
        assert_eq!(none(&[]), Ok(()));
        let why = none(&["a is wrong".into(), "b is wrong".into()]).expect_err("two");
        assert_eq!(why, "2 found\n  a is wrong\n  b is wrong");
    }
}
