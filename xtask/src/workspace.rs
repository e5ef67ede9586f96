//! The workspace as the rules see it: members, their layers, what they reach.
//!
//! In: `cargo metadata`, read as plain JSON: a typed reader would switch on
//! features of `serde_json` for all of us, and so build our crates twice.
//! Out: members in order of their names.
//! Holds: layers are read from the folders under `crates`, from the root down.
//! Never: looks at dependencies that only tests or build scripts use.

use crate::steps::cargo_command;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    Base,
    Core,
    Node,
    Adapter,
    App,
    Bin,
}

#[derive(Debug)]
pub struct Member {
    pub name: String,
    pub directory: PathBuf,
    /// None for what stands outside `crates`: tests, examples, chores.
    pub layer: Option<Layer>,
    /// Direct normal dependencies inside the workspace.
    pub internal: Vec<String>,
}

#[derive(Debug)]
pub struct Workspace {
    pub root: PathBuf,
    /// Where cargo puts what it builds.
    pub target: PathBuf,
    pub members: Vec<Member>,
    /// Normal dependencies by name, of everything that runs.
    pub reaches: BTreeMap<String, BTreeSet<String>>,
}

impl Workspace {
    /// # Errors
    /// Says why the metadata could not be read.
    pub fn load() -> Result<Self, String> {
        Self::load_at(Path::new("Cargo.toml"))
    }

    /// # Errors
    /// Says why the metadata could not be read.
    pub fn load_at(manifest: &Path) -> Result<Self, String> {
        let failed = |why: String| format!("cannot read the workspace: {why}");
        let output = cargo_command()
            .args(["metadata", "--format-version=1", "--manifest-path"])
            .arg(manifest)
            .stderr(std::process::Stdio::inherit())
            .output()
            .map_err(|why| failed(why.to_string()))?;
        if !output.status.success() {
            return Err(failed(format!("cargo metadata: {}", output.status)));
        }
        let metadata: Value =
            serde_json::from_slice(&output.stdout).map_err(|why| failed(why.to_string()))?;
        let root = PathBuf::from(text(&metadata["workspace_root"]));
        let ours: BTreeSet<&str> = list(&metadata["workspace_members"]).map(text).collect();
        let mut members: Vec<Member> = list(&metadata["packages"])
            .filter(|package| ours.contains(text(&package["id"])))
            .map(|package| member(&root, package))
            .collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        if members.is_empty() {
            return Err(failed("it has no members".to_owned()));
        }
        Ok(Self {
            reaches: reaches(&metadata),
            target: PathBuf::from(text(&metadata["target_directory"])),
            root,
            members,
        })
    }

    /// The path as people say it: from the workspace's root.
    pub fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn member(root: &Path, package: &Value) -> Member {
    let manifest = Path::new(text(&package["manifest_path"]));
    let directory = manifest.parent().unwrap_or(root).to_owned();
    let internal = list(&package["dependencies"])
        .filter(|dependency| is_normal(dependency) && dependency["path"].is_string())
        .map(|dependency| text(&dependency["name"]).to_owned())
        .collect();
    Member {
        name: text(&package["name"]).to_owned(),
        layer: layer(root, &directory),
        directory,
        internal,
    }
}

/// Cargo says `null` for the kind of what a crate itself uses.
fn is_normal(dependency: &Value) -> bool {
    dependency.get("kind").is_some_and(Value::is_null)
}

fn layer(root: &Path, directory: &Path) -> Option<Layer> {
    let inside = directory.strip_prefix(root.join("crates")).ok()?;
    match inside.iter().next()?.to_str()? {
        "base" => Some(Layer::Base),
        "core" => Some(Layer::Core),
        "node" => Some(Layer::Node),
        "adapter" => Some(Layer::Adapter),
        "app" => Some(Layer::App),
        "bin" => Some(Layer::Bin),
        _ => None,
    }
}

/// Macros run in the compiler, so they and what they need are left out.
fn reaches(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let runs: BTreeMap<&str, &str> = list(&metadata["packages"])
        .filter(|package| !is_macro(package))
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let mut reaches: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for node in list(&metadata["resolve"]["nodes"]) {
        let Some(from) = runs.get(text(&node["id"])) else {
            continue;
        };
        let to = list(&node["deps"])
            .filter(|need| list(&need["dep_kinds"]).any(is_normal))
            .filter_map(|need| runs.get(text(&need["pkg"])))
            .map(|name| (*name).to_owned());
        reaches.entry((*from).to_owned()).or_default().extend(to);
    }
    reaches
}

fn is_macro(package: &Value) -> bool {
    list(&package["targets"])
        .flat_map(|target| list(&target["kind"]))
        .any(|kind| kind == "proc-macro")
}

#[cfg(test)]
pub mod fixture {
    use super::*;

    /// A workspace on disk; each crate is `(folder, dependencies by folder)`.
    pub fn write(root: &Path, crates: &[(&str, &[&str])]) -> Workspace {
        let name = |folder: &str| folder.rsplit('/').next().unwrap_or(folder).to_owned();
        let quoted: Vec<String> = crates.iter().map(|(path, _)| format!("{path:?}")).collect();
        let text = format!(
            "[workspace]\nresolver = \"3\"\nmembers = [{}]\n[workspace.lints.rust]\nunsafe_code = \"deny\"\n",
            quoted.join(", ")
        );
        std::fs::write(root.join("Cargo.toml"), text).expect("the workspace");
        for (folder, needs) in crates {
            let home = root.join(folder);
            std::fs::create_dir_all(home.join("src")).expect("a folder");
            std::fs::write(home.join("src/lib.rs"), "//! A crate.\n").expect("a source");
            let mut text = format!(
                "[package]\nname = \"{}\"\nedition = \"2024\"\n\n[lints]\nworkspace = true\n\n[dependencies]\n",
                name(folder)
            );
            for need in *needs {
                let path = root.join(need);
                text.extend([name(need), format!(" = {{ path = {path:?} }}\n")]);
            }
            std::fs::write(home.join("Cargo.toml"), text).expect("a manifest");
        }
        Workspace::load_at(&root.join("Cargo.toml")).expect("a workspace")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_read_from_the_root_down() {
        let root = Path::new("/home/me/crates/app");
        let of = |folder: &str| layer(root, &root.join(folder));
        assert_eq!(of("crates/core/control"), Some(Layer::Core));
        assert_eq!(of("crates/node"), Some(Layer::Node));
        assert_eq!(of("xtask"), None);
        assert_eq!(of("examples/crates/base/x"), None);
    }

    #[test]
    fn members_know_their_layer_and_what_they_reach() {
        let home = tempfile::tempdir().expect("a directory");
        let workspace = fixture::write(
            home.path(),
            &[
                ("crates/base/kernel", &["outside/tokio"]),
                ("crates/core/control", &["crates/base/kernel"]),
                ("outside/tokio", &[]),
            ],
        );
        let control = &workspace.members[0];
        assert_eq!(control.name, "control");
        assert_eq!(control.layer, Some(Layer::Core));
        assert_eq!(control.internal, ["kernel"]);
        assert!(workspace.reaches["kernel"].contains("tokio"));
        assert_eq!(workspace.members[2].layer, None);
    }
}
