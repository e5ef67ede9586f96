//! Decides whether sources keep their budgets and open with what they hold.
//!
//! In: the members' folders. Out: each file and folder that is too large, and
//! each file without a header. Functions' lengths and macros that stand for
//! unwritten code are Clippy's to find.
//! Never: looks into build output, hidden folders or folders of other members.

use crate::workspace::Workspace;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 800;
const FOLDER_ENTRIES_MAX: usize = 20;

pub fn check(workspace: &Workspace) -> Vec<String> {
    let mut findings = Vec::new();
    for member in &workspace.members {
        folder(workspace, &member.directory, &mut findings);
    }
    findings
}

fn folder(workspace: &Workspace, path: &Path, findings: &mut Vec<String>) {
    let shown = workspace.shown(path).to_string();
    let entries = match entries(path) {
        Ok(entries) => entries,
        Err(why) => return findings.push(format!("cannot read {shown}: {why}")),
    };
    if entries.len() > FOLDER_ENTRIES_MAX && entries.iter().any(|entry| is_source(entry)) {
        findings.push(format!(
            "{shown} has {} entries, {FOLDER_ENTRIES_MAX} at most: gather some in a folder",
            entries.len()
        ));
    }
    for entry in entries {
        let is_other_member = workspace
            .members
            .iter()
            .any(|member| member.directory == entry);
        if entry.is_dir() && !is_other_member {
            folder(workspace, &entry, findings);
        } else if is_source(&entry) {
            let shown = workspace.shown(&entry).to_string();
            match std::fs::read_to_string(&entry) {
                Ok(text) => findings.extend(file(&shown, &text)),
                Err(why) => findings.push(format!("cannot read {shown}: {why}")),
            }
        }
    }
}

fn entries(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut entries = std::fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<Vec<_>>>()?;
    entries.retain(|entry| {
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        !name.starts_with('.') && name != "target"
    });
    entries.sort();
    Ok(entries)
}

fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs") && path.is_file()
}

fn file(shown: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        findings.push(format!(
            "{shown} has {lines} lines, {FILE_LINES_MAX} at most: split it by what it decides"
        ));
    }
    let header = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("//!"));
    if header.is_none_or(|words| words.trim().is_empty()) {
        findings.push(format!(
            "{shown} does not open with a `//!` line that says what it is for"
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture;
    use std::fs;

    #[test]
    fn a_file_may_be_as_long_as_its_budget_and_no_longer() {
        let text = |lines| format!("//! Counts.\n{}", "fn f() {}\n".repeat(lines - 1));
        assert_eq!(file("a.rs", &text(FILE_LINES_MAX)), Vec::<String>::new());
        assert_eq!(
            file("a.rs", &text(FILE_LINES_MAX + 1)),
            ["a.rs has 801 lines, 800 at most: split it by what it decides"]
        );
    }

    #[test]
    fn a_file_opens_with_its_purpose() {
        assert_eq!(file("a.rs", "//! Counts.\n"), Vec::<String>::new());
        for text in [
            "",
            "use std::fs;\n//! Late.\n",
            "//!\n//! Late.\n",
            "/// Other.\n",
        ] {
            assert_eq!(
                file("a.rs", text),
                ["a.rs does not open with a `//!` line that says what it is for"],
                "{text:?}"
            );
        }
    }

    #[test]
    fn folders_are_walked_and_counted_but_not_build_output() {
        let home = tempfile::tempdir().expect("a directory");
        let workspace = fixture::write(home.path(), &[("crates/base/kernel", &[])]);
        let kernel = home.path().join("crates/base/kernel");
        fs::create_dir_all(kernel.join("target/debug")).expect("a folder");
        fs::write(kernel.join("target/debug/made.rs"), "").expect("a file");
        fs::create_dir_all(kernel.join("tests/data")).expect("a folder");
        for number in 0..30 {
            fs::write(kernel.join(format!("tests/data/{number}.json")), "").expect("a file");
        }
        for number in 1..FOLDER_ENTRIES_MAX {
            fs::write(kernel.join(format!("src/m{number}.rs")), "//! One.").expect("a file");
        }
        assert_eq!(check(&workspace), Vec::<String>::new());

        fs::write(kernel.join("src/last.rs"), "//! One too many.").expect("a file");
        fs::write(kernel.join("tests/bare.rs"), "fn main() {}").expect("a file");
        assert_eq!(
            check(&workspace),
            [
                "crates/base/kernel/src has 21 entries, 20 at most: gather some in a folder",
                "crates/base/kernel/tests/bare.rs does not open with a `//!` line that says what it is for",
            ]
        );
    }
}
