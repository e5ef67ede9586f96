//! A lab's parts of this machine: made, changed, and taken away.
//!
//! In: a plan. Out: a device of the network for each node and for this machine.
//! Holds: everything bears the lab's number, is made again without harm, and is
//! found and taken away from the plan alone.
//! Never: touches what is not of a lab.

mod disk;
mod group;
mod namespace;
pub(crate) mod processes;
mod tool;

pub use disk::{fill, limit_writes, unfill};
pub use group::{limit_cpu, nodes_groups, of_node as group_of_node};
pub use namespace::{host_device, join as join_network, name as namespace_name};

use crate::LabError;
use crate::directory::Directory;
use processes::Member;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};
use tun_rs::SyncDevice;
use wire::lab::{LabKind, LabPlan};

const END_MAX: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(5);

/// A device that carries packets of some ends.
pub struct Port {
    pub device: SyncDevice,
    pub ends: Vec<(Ipv4Addr, usize)>,
}

/// Whether this user may make namespaces, devices and mounts.
pub fn may_make_namespaces() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/dev/net/tun").exists()
}

/// Makes all that the plan says; what is there already is made anew.
pub fn set_up(plan: &LabPlan, directory: &Directory) -> Result<Vec<Port>, LabError> {
    let mut ports = Vec::new();
    if plan.kind == LabKind::Namespaces {
        ports.push(namespace::host_port(plan)?);
    }
    for (end, node) in plan.nodes.iter().enumerate() {
        if plan.kind == LabKind::Namespaces {
            ports.push(namespace::make(plan, end)?);
            group::make(plan, node);
            disk::make(plan, directory, node)?;
        }
        std::fs::create_dir_all(&node.data)
            .map_err(|source| LabError::io(format!("make {}", node.data.display()), source))?;
    }
    Ok(ports)
}

/// Ends everything in the lab and takes away what it consists of.
///
/// # Errors
/// The first part that stayed; the others are gone all the same.
pub fn tear_down(plan: &LabPlan, directory: &Directory) -> Result<(), LabError> {
    let mut first = Ok(());
    let mut note = |outcome: Result<(), LabError>| {
        if first.is_ok() {
            first = outcome;
        }
    };
    for end in 0..plan.nodes.len() {
        note(kill_node(plan, end));
    }
    if plan.kind == LabKind::Namespaces {
        for node in &plan.nodes {
            note(disk::unmake(directory, node));
            note(namespace::unmake(plan, node));
        }
        note(group::unmake(plan.id));
    }
    if first.is_ok() {
        let removed = std::fs::remove_dir_all(&directory.path);
        first = match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(LabError::io(
                format!("remove {}", directory.path.display()),
                error,
            )),
            _ => Ok(()),
        };
    }
    first
}

/// Kills all of a node's processes, as without power.
pub fn kill_node(plan: &LabPlan, end: usize) -> Result<(), LabError> {
    each_process(plan, end, "end", Member::kill, |_| false)
}

/// Stops all of a node's processes, as a virtual machine's pause does.
pub fn pause_node(plan: &LabPlan, end: usize) -> Result<(), LabError> {
    each_process(plan, end, "stop", Member::stop, Member::stands_still)
}

/// After [`pause_node`].
pub fn go_on(plan: &LabPlan, end: usize) {
    processes::of(plan, end).iter().for_each(Member::go_on);
}

/// Until all that there are, are `done`.
fn each_process(
    plan: &LabPlan,
    end: usize,
    word: &str,
    act: fn(&Member),
    done: fn(&Member) -> bool,
) -> Result<(), LabError> {
    let deadline = Instant::now() + END_MAX;
    loop {
        // Forks race with the signal; each round catches what the last one missed.
        let members = processes::of(plan, end);
        if members.iter().all(done) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let name = plan.nodes.get(end).map(|node| node.name.to_string());
            let what = format!("{word} all processes of {}", name.unwrap_or_default());
            return Err(LabError::io(what, std::io::ErrorKind::TimedOut.into()));
        }
        members.iter().for_each(act);
        std::thread::sleep(LOOK);
    }
}
