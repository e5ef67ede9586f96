//! Decides whether crates depend only on layers below their own.
//!
//! In: the workspace's metadata. Out: every arrow that points the wrong way.
//! Holds: layers are read from folders; base allows kernel, manifest, wire.
//! Never: judges dependencies that only tests use.

use cargo_metadata::{DependencyKind, MetadataCommand};

const LAYERS: [&str; 6] = ["base", "core", "node", "adapter", "app", "bin"];
const BASE: [&str; 3] = ["kernel", "manifest", "wire"];

/// # Errors
/// Names each wrong arrow, or says why the metadata could not be read.
pub fn check() -> Result<(), String> {
    let metadata = MetadataCommand::new()
        .no_deps()
        .exec()
        .map_err(|why| why.to_string())?;
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        for dependency in &package.dependencies {
            let Some(path) = &dependency.path else {
                continue;
            };
            if dependency.kind != DependencyKind::Normal {
                continue;
            }
            let from = layer(package.manifest_path.as_str());
            let to = layer(path.as_str());
            if !allowed(
                (from, package.name.as_str()),
                (to, dependency.name.as_str()),
            ) {
                wrong.push(format!(
                    "{} must not depend on {}",
                    package.name, dependency.name
                ));
            }
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("\n"))
    }
}

fn layer(path: &str) -> Option<usize> {
    let folder = path.split("/crates/").nth(1)?.split('/').next()?;
    LAYERS.iter().position(|name| *name == folder)
}

fn allowed(from: (Option<usize>, &str), to: (Option<usize>, &str)) -> bool {
    match (from.0, to.0) {
        (None, _) => true,
        (Some(0), Some(0)) => {
            let rank = |name| BASE.iter().position(|known| *known == name);
            rank(to.1) < rank(from.1) && rank(to.1).is_some()
        }
        (Some(from), Some(to)) => to < from,
        (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::allowed;

    #[test]
    fn arrows_point_down_and_never_sideways() {
        assert!(allowed((Some(4), "agent"), (Some(3), "ipc")));
        assert!(!allowed((Some(3), "ipc"), (Some(3), "store")));
        assert!(!allowed((Some(1), "control"), (Some(2), "node")));
        assert!(allowed((Some(0), "wire"), (Some(0), "manifest")));
        assert!(!allowed((Some(0), "kernel"), (Some(0), "wire")));
    }
}
