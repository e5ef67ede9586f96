//! A control group for all of a node's processes, with its limits.
//!
//! Holds: what a node's agent makes for replicas lies inside it, because the
//! agent is told so; where this machine grants no groups, there are none.

use crate::LabError;
use drivers::{ControlGroups, control_groups};
use kernel::Name;
use manifest::Limits;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use wire::lab::{LabNode, LabPlan};

const EMPTIED_MAX: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);
/// Where processes are: a group with others below may hold none in version 2.
const OWN: &str = "own";

/// Below the groups' roots, as the agent's variable wants it.
pub fn of_node(id: u8, node: &Name) -> PathBuf {
    of_lab(id).join(node.as_str())
}

fn of_lab(id: u8) -> PathBuf {
    Path::new(drivers::CONTROL_GROUP_ROOT).join(format!("lab-{id}"))
}

fn limits(plan: &LabPlan, cpu: Option<f64>) -> Limits {
    Limits {
        memory: plan.memory,
        cpu,
        ..Limits::default()
    }
}

pub fn make(plan: &LabPlan, node: &LabNode) {
    let groups = control_groups();
    let group = of_node(plan.id, &node.name);
    groups.make_at(&group, &limits(plan, plan.cpu));
    groups.make_at(&group.join(OWN), &Limits::default());
}

/// The directories a node's process enters.
pub fn nodes_groups(id: u8, node: &Name) -> Vec<PathBuf> {
    let groups = control_groups();
    let paths = mounts(&groups).map(|mount| mount.join(of_node(id, node)).join(OWN));
    paths.filter(|path| path.is_dir()).collect()
}

fn mounts(groups: &ControlGroups) -> impl Iterator<Item = &PathBuf> {
    groups.hierarchies.iter().map(|hierarchy| &hierarchy.mount)
}

/// Cores of a node from now on; none is the plan's.
pub fn limit_cpu(plan: &LabPlan, node: &Name, cores: Option<f64>) -> Result<(), LabError> {
    let groups = control_groups();
    if !groups.limits("cpu") {
        return Err(LabError::Refused {
            why: "this machine grants no control group that limits cpu".to_owned(),
            help: Some("homeostat doctor".to_owned()),
        });
    }
    let cores = cores.or(plan.cpu);
    groups.make_at(&of_node(plan.id, node), &limits(plan, cores));
    Ok(())
}

/// Removes the lab's groups. Who was killed leaves them a moment later.
pub fn unmake(id: u8) -> Result<(), LabError> {
    let groups = control_groups();
    let deadline = Instant::now() + EMPTIED_MAX;
    for mount in mounts(&groups) {
        let lab = mount.join(of_lab(id));
        loop {
            match remove_tree(&lab) {
                Ok(()) => break,
                Err(source) if Instant::now() >= deadline => {
                    let what = format!("remove the control group {}", lab.display());
                    return Err(LabError::io(what, source));
                }
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    }
    Ok(())
}

/// A group's files cannot be removed, and need not be.
fn remove_tree(group: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(group) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    std::fs::remove_dir(group)
}
