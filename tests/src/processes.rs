//! A node's processes as the machine sees them, whatever the node says.

use crate::signal;
use std::path::Path;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    pub command: Vec<String>,
    pub state: char,
}

impl Process {
    /// Whether it is the part of the node that this subcommand runs.
    pub fn is_part(&self, role: &str) -> bool {
        self.command
            .first()
            .is_some_and(|program| program.ends_with("homeostat"))
            && self.command.get(1).is_some_and(|word| word == role)
    }
}

/// Living processes that name `directory` in their command or environment:
/// the node's parts, shims and replicas.
pub fn of(directory: &Path) -> Vec<Process> {
    let mark = directory.display().to_string();
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let named = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(&mark);
        if pid == std::process::id() || !(named(&command) || named(&environment)) {
            return None;
        }
        let (state, parent) = state(pid)?;
        (!matches!(state, 'Z' | 'X')).then(|| Process {
            pid,
            parent,
            command: String::from_utf8_lossy(&command)
                .split_terminator('\0')
                .map(str::to_owned)
                .collect(),
            state,
        })
    })
    .collect()
}

/// Whether any of its threads is: the others may hold its sockets a moment
/// longer than the first one, and one that has ended keeps its number until
/// its parent looks.
pub fn is_alive(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let mut tasks = tasks.into_iter().flatten().flatten();
    tasks.any(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat"));
        stat.is_ok_and(|stat| {
            read_stat(&stat).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
        })
    })
}

fn state(pid: u32) -> Option<(char, u32)> {
    read_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// State and parent.
fn read_stat(stat: &str) -> Option<(char, u32)> {
    let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
    Some((rest.next()?.chars().next()?, rest.next()?.parse().ok()?))
}

/// The most memory it has ever held, in bytes.
pub fn peak_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// A process that stands still, until this is dropped.
pub struct Stopped(u32);

impl Stopped {
    /// # Panics
    /// When there is no such process.
    pub fn new(pid: u32) -> Self {
        signal(pid, "STOP");
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal(self.0, "CONT");
    }
}
