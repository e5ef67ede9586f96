//! What a replica does between fork and exec: the one unsafe place here.

use rustix::process::{Resource, Rlimit, Signal};
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes the child enter `groups` (open `cgroup.procs` files), take its limit
/// of open files, give up gaining privileges, and end with its shim.
#[expect(
    unsafe_code,
    reason = "limits must hold before the replica's first instruction; only exec offers the moment"
)]
pub fn before_exec(command: &mut Command, groups: Vec<File>, open_files: Option<u64>) {
    // SAFETY: after fork the closure makes only system calls on values made
    // before it: no allocation, no lock, no other thread's state.
    unsafe {
        command.pre_exec(move || enter(&groups, open_files));
    }
}

fn enter(groups: &[File], open_files: Option<u64>) -> io::Result<()> {
    for group in groups {
        rustix::io::write(group, b"0")?;
    }
    if let Some(limit) = open_files {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        rustix::process::setrlimit(Resource::Nofile, limit)?;
    }
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}
