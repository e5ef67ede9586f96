//! Decides whether Clippy judges each crate by the file meant for its layer.
//!
//! In: the workspace. Out: crates that another file reaches first, members
//! without the workspace's lints, budgets that the pure layers' file forgot.
//! Holds: Clippy takes the nearest file and merges nothing, as done here.

use crate::workspace::{Layer, Workspace};
use std::path::{Path, PathBuf};

/// What bans clocks, threads, locks, I/O and unordered maps.
const PURE: &str = "crates/core/clippy.toml";
const COMMON: &str = "clippy.toml";

pub fn check(workspace: &Workspace) -> Vec<String> {
    let mut wrong = Vec::new();
    for member in &workspace.members {
        let pure = member.layer.is_some_and(|layer| layer <= Layer::Node);
        let meant = workspace.root.join(if pure { PURE } else { COMMON });
        let found = nearest(&workspace.root, &member.directory);
        if found
            .as_deref()
            .map(Path::canonicalize)
            .and_then(Result::ok)
            != meant.canonicalize().ok()
            || found.is_none()
        {
            wrong.push(format!(
                "`{}` is to be judged by {}, but Clippy would take {}",
                member.name,
                workspace.shown(&meant),
                found.map_or("none".to_owned(), |file| workspace.shown(&file).to_string()),
            ));
        }
        if !takes_the_lints(&member.directory) {
            wrong.push(format!(
                "`{}` lacks `[lints] workspace = true` in its Cargo.toml",
                member.name
            ));
        }
    }
    wrong.extend(forgotten(&workspace.root));
    wrong
}

/// The file Clippy takes for a crate in `directory`.
fn nearest(root: &Path, directory: &Path) -> Option<PathBuf> {
    directory
        .ancestors()
        .take_while(|folder| folder.starts_with(root))
        .flat_map(|folder| [folder.join(".clippy.toml"), folder.join("clippy.toml")])
        .find(|file| file.is_file())
}

fn takes_the_lints(directory: &Path) -> bool {
    table(&directory.join("Cargo.toml"))
        .and_then(|manifest| manifest.get("lints")?.get("workspace")?.as_bool())
        .unwrap_or(false)
}

fn forgotten(root: &Path) -> Vec<String> {
    let (Some(common), Some(pure)) = (table(&root.join(COMMON)), table(&root.join(PURE))) else {
        return vec![format!("{COMMON} and {PURE} must both be readable TOML")];
    };
    common
        .iter()
        .filter(|(key, value)| pure.get(*key) != Some(*value))
        .map(|(key, value)| format!("{PURE} must repeat `{key} = {value}` of {COMMON}"))
        .collect()
}

fn table(file: &Path) -> Option<toml::Table> {
    std::fs::read_to_string(file).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture;
    use std::fs;

    /// A workspace whose files are as they should be.
    fn sound(home: &Path) -> Workspace {
        let workspace = fixture::write(home, &[("crates/core/control", &[]), ("outside", &[])]);
        fs::write(home.join(COMMON), "too-many-lines-threshold = 70").expect("a file");
        fs::write(home.join(PURE), "too-many-lines-threshold = 70").expect("a file");
        workspace
    }

    #[test]
    fn sound_files_give_no_findings() {
        let home = tempfile::tempdir().expect("a directory");
        assert_eq!(check(&sound(home.path())), Vec::<String>::new());
    }

    #[test]
    fn a_nearer_file_that_would_lift_the_bans_is_found() {
        let home = tempfile::tempdir().expect("a directory");
        let workspace = sound(home.path());
        fs::write(home.path().join("crates/core/control/.clippy.toml"), "").expect("a file");
        assert_eq!(
            check(&workspace),
            [
                "`control` is to be judged by crates/core/clippy.toml, but Clippy would take crates/core/control/.clippy.toml"
            ]
        );
    }

    #[test]
    fn a_missing_file_a_forgotten_budget_and_absent_lints_are_found() {
        let home = tempfile::tempdir().expect("a directory");
        let workspace = sound(home.path());
        fs::write(home.path().join(PURE), "too-many-lines-threshold = 100").expect("a file");
        fs::write(home.path().join("outside/Cargo.toml"), "[package]").expect("a file");
        assert_eq!(
            check(&workspace),
            [
                "`outside` lacks `[lints] workspace = true` in its Cargo.toml",
                "crates/core/clippy.toml must repeat `too-many-lines-threshold = 70` of clippy.toml",
            ]
        );
        fs::remove_file(home.path().join(PURE)).expect("it was there");
        assert!(
            check(&workspace)
                .iter()
                .any(|line| line.contains("Clippy would take clippy.toml"))
        );
    }
}
