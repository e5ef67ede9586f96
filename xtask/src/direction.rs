//! Decides whether crates depend only on layers below their own.
//!
//! In: the workspace. Out: every arrow that points the wrong way.
//! Holds: within base, kernel ← manifest ← wire and nothing else.
//! Never: judges dependencies that only tests use.

use crate::workspace::{Layer, Workspace};

const BASE: [&str; 3] = ["kernel", "manifest", "wire"];

pub fn check(workspace: &Workspace) -> Vec<String> {
    let layer_of = |name: &str| {
        let member = workspace.members.iter().find(|other| other.name == name)?;
        member.layer
    };
    let mut wrong = Vec::new();
    for member in &workspace.members {
        for need in &member.internal {
            if !allowed((member.layer, &member.name), (layer_of(need), need)) {
                wrong.push(format!(
                    "`{}` must not depend on `{need}`: arrows point down, bin → app → adapter → node → core → base",
                    member.name
                ));
            }
        }
    }
    wrong
}

fn allowed(from: (Option<Layer>, &str), to: (Option<Layer>, &str)) -> bool {
    match (from.0, to.0) {
        (None, _) => true,
        (Some(Layer::Base), Some(Layer::Base)) => {
            let rank = |name| BASE.iter().position(|known| *known == name);
            rank(to.1) < rank(from.1) && rank(to.1).is_some()
        }
        (Some(from), Some(to)) => to < from,
        (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture;

    #[test]
    fn arrows_point_down_and_never_sideways() {
        let (base, core) = (Some(Layer::Base), Some(Layer::Core));
        let (node, adapter) = (Some(Layer::Node), Some(Layer::Adapter));
        assert!(allowed((Some(Layer::App), "agent"), (adapter, "ipc")));
        assert!(!allowed((adapter, "ipc"), (adapter, "store")));
        assert!(!allowed((core, "control"), (node, "node")));
        assert!(allowed((base, "wire"), (base, "manifest")));
        assert!(!allowed((base, "kernel"), (base, "wire")));
        assert!(!allowed((base, "other"), (base, "wire")));
        assert!(!allowed((core, "control"), (None, "xtask")));
        assert!(allowed((None, "xtask"), (base, "manifest")));
    }

    #[test]
    fn a_wrong_arrow_in_a_workspace_is_named() {
        let home = tempfile::tempdir().expect("a directory");
        let workspace = fixture::write(
            home.path(),
            &[
                ("crates/base/kernel", &[]),
                ("crates/adapter/store", &["crates/base/kernel"]),
                ("crates/adapter/net", &["crates/adapter/store"]),
            ],
        );
        let wrong = check(&workspace);
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(
            wrong[0].starts_with("`net` must not depend on `store`"),
            "{wrong:?}"
        );
    }
}
