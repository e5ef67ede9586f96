//! Writes a manifest for a directory of web content.
//!
//! Holds: what it writes can be applied beside what the node runs already.

use super::Context;
use super::apply::MANIFEST;
use crate::failure::{CONFLICT, Failure, NOT_FOUND};
use crate::output::{data, say};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use wire::api::Object;

const NAME_CHARACTERS_MAX: usize = 63;

/// Where a site's documents usually lie, first found first taken.
const ROOTS: [&str; 6] = ["site", "public", "dist", "build", "_site", "www"];

/// What other projects of the node have.
#[derive(Default)]
struct Taken {
    /// Of projects and sites.
    names: BTreeSet<String>,
    localhost: bool,
}

/// Nothing, when no node runs here.
async fn taken(context: &Context, directory: &Path) -> Taken {
    let mut taken = Taken::default();
    let asked = context.client.get("/v1/objects/revision").await;
    let revisions: Vec<Object> = asked.unwrap_or_default();
    for Object { state, desired, .. } in revisions {
        if state != "current" || desired["directory"].as_str().map(Path::new) == Some(directory) {
            continue;
        }
        let manifest = &desired["manifest"];
        taken
            .names
            .extend(manifest["project"].as_str().map(str::to_owned));
        for (name, site) in manifest["sites"].as_object().into_iter().flatten() {
            taken.names.insert(name.clone());
            let mut routes = site["routes"].as_array().into_iter().flatten();
            taken.localhost |= routes.any(|route| route["host"] == "localhost");
        }
    }
    taken
}

fn free_name(wanted: &str, taken: &BTreeSet<String>) -> String {
    let numbered = (2..=u32::MAX).map(|number| {
        let suffix = format!("-{number}");
        // A name is cut so that all of it stays within the limit.
        let kept = wanted.get(..NAME_CHARACTERS_MAX - suffix.len());
        format!("{}{suffix}", kept.unwrap_or(wanted).trim_end_matches('-'))
    });
    std::iter::once(wanted.to_owned())
        .chain(numbered)
        .find(|name| !taken.contains(name))
        .unwrap_or_else(|| wanted.to_owned())
}

pub async fn run(context: &Context, directory: &Path) -> Result<ExitCode, Failure> {
    if !directory.is_dir() {
        return Err(Failure::new(
            NOT_FOUND,
            format!("{} is not a directory", directory.display()),
            None,
        ));
    }
    let full = directory.canonicalize()?;
    let name: String = full
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(NAME_CHARACTERS_MAX)
        .collect();
    let name = match name.trim_matches('-') {
        "" => "site",
        trimmed => trimmed,
    };
    let root = ROOTS
        .iter()
        .find(|root| directory.join(root).is_dir())
        .copied()
        .or_else(|| directory.join("index.html").is_file().then_some("."));
    let Some(root) = root else {
        return Err(Failure::new(
            NOT_FOUND,
            format!("found no web content in {}", directory.display()),
            Some(&format!(
                "put an index.html there, or in one of: {}",
                ROOTS.join(", ")
            )),
        ));
    };
    let path = directory.join(MANIFEST);
    let taken = taken(context, &full).await;
    let name = free_name(name, &taken.names);
    let localhost = if taken.localhost {
        ""
    } else {
        ", \"localhost\""
    };
    let text = format!(
        "[project]\nname = \"{name}\"\n\n[site.{name}]\nroot = \"{root}\"\nhosts = [\"{name}.localhost\"{localhost}]\n"
    );
    let mut file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Failure::new(
                CONFLICT,
                format!("{} is there already; nothing was changed", path.display()),
                Some(&format!("homeostat up {}", directory.display())),
            ),
            _ => error.into(),
        })?;
    file.write_all(text.as_bytes())?;
    data(&path.display().to_string())?;
    say(&format!("next: homeostat up {}", directory.display()));
    Ok(ExitCode::SUCCESS)
}
