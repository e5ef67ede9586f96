//! Becomes a program inside a node of a lab.
//!
//! In: a lab's directory, a node, a command. Out: the calling process is that
//! command, in the node's network and control group, under the node's name.
//! Holds: the environment tells `homeostat` which node it is at.

use crate::LabError;
use crate::directory::Directory;
use crate::machine;
use kernel::Name;
use rustix::thread::UnshareFlags;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use wire::lab::{IMPAIRMENTS, LabKind, LabNode, LabPlan};

/// The variable that names the lab a program is in.
pub const LAB: &str = "HOMEOSTAT_LAB";

/// What a program in a node finds in its environment.
pub fn environment(plan: &LabPlan, node: &LabNode) -> Vec<(&'static str, OsString)> {
    let mut found: Vec<(&'static str, OsString)> = vec![
        (LAB, plan.id.to_string().into()),
        ("HOMEOSTAT_DATA_DIR", node.data.clone().into()),
        ("HOMEOSTAT_HTTP", node.http.to_string().into()),
        ("HOMEOSTAT_HTTPS", node.https.to_string().into()),
        ("HOMEOSTAT_NAME", node.name.as_str().into()),
    ];
    match plan.kind {
        LabKind::Namespaces => found.push((
            drivers::CONTROL_GROUP,
            machine::group_of_node(plan.id, &node.name).into(),
        )),
        LabKind::Loopback => {
            found.push((IMPAIRMENTS, Directory::of(plan.id).impairments().into()));
        }
    }
    found
}

/// Returns only when it failed.
pub fn enter(directory: &Path, node: &str, command: &[OsString]) -> LabError {
    match prepare(directory, node, command) {
        Ok(mut command) => {
            let program = command.get_program().to_string_lossy().into_owned();
            let source = command.exec();
            LabError::io(format!("run `{program}`"), source)
        }
        Err(error) => error,
    }
}

fn prepare(directory: &Path, node: &str, command: &[OsString]) -> Result<Command, LabError> {
    let plan = Directory {
        path: directory.to_owned(),
    }
    .plan()?;
    let found = Name::new(node).ok().and_then(|name| plan.node(&name));
    let Some(node) = found.and_then(|at| plan.nodes.get(at)) else {
        return Err(LabError::Refused {
            why: format!("there is no `{node}` in lab {}", plan.id),
            help: Some("homeostat lab ls".to_owned()),
        });
    };
    let Some((program, words)) = command.split_first() else {
        return Err(LabError::Refused {
            why: "no command was given".to_owned(),
            help: None,
        });
    };
    if plan.kind == LabKind::Namespaces {
        move_into(&plan, node)
            .map_err(|source| LabError::io(format!("enter {}", node.name), source))?;
    }
    let mut command = Command::new(program);
    command.args(words).envs(environment(&plan, node));
    Ok(command)
}

fn move_into(plan: &LabPlan, node: &LabNode) -> std::io::Result<()> {
    for group in machine::nodes_groups(plan.id, &node.name) {
        // Zero is who writes.
        std::fs::write(group.join("cgroup.procs"), "0")?;
    }
    machine::join_network(plan.id, node)?;
    #[expect(
        deprecated,
        reason = "the successor is unsafe for the sake of one flag that is not used here"
    )]
    rustix::thread::unshare(UnshareFlags::NEWUTS)?;
    Ok(rustix::system::sethostname(
        OsStr::new(node.name.as_str()).as_encoded_bytes(),
    )?)
}
