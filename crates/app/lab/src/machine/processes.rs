//! Which processes are a node's: those in its network namespace, or, without
//! one, those that name its data directory in their command or environment.
//!
//! Holds: a process is looked at again once a descriptor names it, so that a
//! reused number is never killed.

use super::namespace;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use wire::lab::{LabKind, LabPlan, Part};

#[derive(Debug)]
pub struct Member {
    pub pid: u32,
    descriptor: OwnedFd,
}

impl Member {
    pub fn stop(&self) {
        let _ = pidfd_send_signal(&self.descriptor, Signal::STOP);
    }

    pub fn go_on(&self) {
        let _ = pidfd_send_signal(&self.descriptor, Signal::CONT);
    }

    pub fn stands_still(&self) -> bool {
        let state = state(Path::new(&format!("/proc/{}", self.pid)));
        state.is_none_or(|state| matches!(state, 'T' | 't' | 'Z' | 'X'))
    }

    pub fn kill(&self) {
        // One that has ended already needs no signal.
        let _ = pidfd_send_signal(&self.descriptor, Signal::KILL);
    }
}

enum Mark {
    Network(u64),
    Directory(Vec<u8>),
}

impl Mark {
    fn of(plan: &LabPlan, end: usize) -> Option<Self> {
        let node = plan.nodes.get(end)?;
        match plan.kind {
            LabKind::Namespaces => {
                let namespace = std::fs::metadata(namespace::path(plan.id, node));
                Some(Self::Network(namespace.ok()?.ino()))
            }
            LabKind::Loopback => {
                let path = node.data.as_os_str().as_encoded_bytes();
                Some(Self::Directory(path.to_vec()))
            }
        }
    }

    fn is_on(&self, process: &Path) -> bool {
        match self {
            Self::Network(number) => std::fs::metadata(process.join("ns/net"))
                .is_ok_and(|namespace| namespace.ino() == *number),
            Self::Directory(path) => ["cmdline", "environ"].iter().any(|file| {
                let text = std::fs::read(process.join(file)).unwrap_or_default();
                text.windows(path.len()).any(|window| window == path)
            }),
        }
    }
}

/// All living ones of a node.
pub fn of(plan: &LabPlan, end: usize) -> Vec<Member> {
    Mark::of(plan, end).map_or_else(Vec::new, |mark| marked(&mark))
}

/// Kills a part of a node that is in no lab; how many that were.
pub fn kill_part(data: &Path, part: Part) -> usize {
    let mark = Mark::Directory(data.as_os_str().as_encoded_bytes().to_vec());
    let chosen = parts(marked(&mark), part);
    chosen.iter().for_each(Member::kill);
    chosen.len()
}

fn marked(mark: &Mark) -> Vec<Member> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let process = entry.path();
            if pid == std::process::id() || !mark.is_on(&process) {
                return None;
            }
            let number = Pid::from_raw(i32::try_from(pid).ok()?)?;
            let descriptor = pidfd_open(number, PidfdFlags::empty()).ok()?;
            (mark.is_on(&process) && !has_ended(&process)).then_some(Member { pid, descriptor })
        })
        .collect()
}

/// Waiting for its parent to look.
fn has_ended(process: &Path) -> bool {
    state(process).is_none_or(|state| matches!(state, 'Z' | 'X'))
}

/// As the kernel abbreviates it; none: there is no such process.
fn state(process: &Path) -> Option<char> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.trim_start().chars().next()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// The word after the program: what part of a node it is.
fn role(pid: u32) -> Option<String> {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let word = command.split(|byte| *byte == 0).nth(1)?;
    Some(String::from_utf8_lossy(word).into_owned())
}

/// Those of a node that are that part of it.
pub fn parts(members: Vec<Member>, part: Part) -> Vec<Member> {
    let is_part = |member: &Member| match part {
        // A replica is what a shim started.
        Part::Replica => parent(member.pid).and_then(role).as_deref() == Some("shim"),
        other => role(member.pid).as_deref() == Some(other.word()),
    };
    members
        .into_iter()
        .filter(|member| is_part(member))
        .collect()
}
