//! Writes a manifest for a directory of web content.

use super::apply::MANIFEST;
use crate::failure::{CONFLICT, Failure, NOT_FOUND};
use crate::output::{data, say};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Where a site's documents usually lie, first found first taken.
const ROOTS: [&str; 6] = ["site", "public", "dist", "build", "_site", "www"];

pub fn run(directory: &Path) -> Result<ExitCode, Failure> {
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
        .take(63)
        .collect();
    let name = match name.trim_matches('-') {
        "" => "site".to_owned(),
        trimmed => trimmed.to_owned(),
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
    let text = format!(
        "[project]\nname = \"{name}\"\n\n[site.{name}]\nroot = \"{root}\"\nhosts = [\"{name}.localhost\", \"localhost\"]\n"
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
