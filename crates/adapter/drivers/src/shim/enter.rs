//! What a replica does between fork and exec: the one unsafe place here.

use rustix::process::{Resource, Rlimit, Signal};
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

#[derive(Clone, Copy)]
pub struct Limits {
    pub open_files: Option<u64>,
    pub no_core: bool,
}

/// Makes the child enter `groups` (open `cgroup.procs` files), take its
/// limits, give up gaining privileges, and end with its shim.
#[expect(
    unsafe_code,
    reason = "limits must hold before the replica's first instruction; only exec offers the moment"
)]
pub fn before_exec(command: &mut Command, groups: Vec<File>, limits: Limits) {
    // SAFETY: after fork the closure makes only system calls on values made
    // before it: no allocation, no lock, no other thread's state.
    unsafe {
        command.pre_exec(move || enter(&groups, limits));
    }
}

fn enter(groups: &[File], limits: Limits) -> io::Result<()> {
    for group in groups {
        rustix::io::write(group, b"0")?;
    }
    let both = |limit| Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    if let Some(limit) = limits.open_files {
        rustix::process::setrlimit(Resource::Nofile, both(limit))?;
    }
    if limits.no_core {
        rustix::process::setrlimit(Resource::Core, both(0))?;
    }
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}
