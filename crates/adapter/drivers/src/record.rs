//! What a shim leaves on disk for whoever comes after it: `spec.json`,
//! `state.json`.
//!
//! Holds: a file is replaced as a whole or not at all; a process is signalled
//! only while its start time and boot are those recorded, so a reused pid is
//! never hit. Not synced, but for what must never run twice: a record speaks of
//! processes, which no power cut outlives.

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use wire::shim::{ShimSpec, ShimState};

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessMark {
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
    pub boot: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    pub state: ShimState,
    pub shim: Option<ProcessMark>,
    /// Set while the replica runs.
    pub replica: Option<ProcessMark>,
}

impl ProcessMark {
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self {
            pid,
            start_ticks: start_ticks(pid)?,
            boot: boot()?,
        })
    }

    pub fn alive(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks) && boot().as_ref() == Some(&self.boot)
    }

    /// Kills it if it is still the process that was recorded.
    pub fn kill(&self) {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return;
        };
        // The descriptor pins the process; what is checked is what is killed.
        let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
            return;
        };
        if self.alive() {
            let _ = rustix::process::pidfd_send_signal(&handle, Signal::KILL);
        }
    }

    /// Kills the process group it leads, while it lives.
    pub fn kill_group(&self) {
        if let Some(pid) = Pid::from_raw(self.pid)
            && self.alive()
        {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }
}

/// The fields of `/proc/PID/stat` after the name: the state comes first.
pub fn stat_fields(pid: i32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// None also for a zombie: it runs no more.
fn start_ticks(pid: i32) -> Option<u64> {
    let fields = stat_fields(pid)?;
    if matches!(fields.first().map(String::as_str), Some("Z" | "X")) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

fn boot() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

pub fn spec_path(directory: &Path) -> PathBuf {
    directory.join("spec.json")
}

pub fn state_path(directory: &Path) -> PathBuf {
    directory.join("state.json")
}

pub fn read_spec(directory: &Path) -> io::Result<ShimSpec> {
    read(&spec_path(directory))
}

/// One that says the same is left as it is: a replica must come back on a full
/// disk too.
pub fn write_spec(directory: &Path, spec: &ShimSpec) -> io::Result<()> {
    if read_spec(directory).is_ok_and(|found| found == *spec) {
        return Ok(());
    }
    write(&spec_path(directory), spec)?;
    // What must never run twice leaves a trace before it starts, for after a power cut.
    if spec.leased {
        for path in [&spec_path(directory), directory] {
            std::fs::File::open(path)?.sync_all()?;
        }
        if let Some(parent) = directory.parent() {
            std::fs::File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

/// None when there is no state, or none that this program understands.
pub fn read_state(directory: &Path) -> Option<Recorded> {
    read(&state_path(directory)).ok()
}

pub fn write_state(directory: &Path, state: &Recorded) -> io::Result<()> {
    write(&state_path(directory), state)
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    serde_json::from_slice(&std::fs::read(path)?).map_err(io::Error::other)
}

fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec(value).map_err(io::Error::other)?;
    // Driver and shim may both write a state: each its own temporary file.
    let temporary = path.with_extension(format!("json.{}", std::process::id()));
    let written =
        std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_cannot_be_put_in_place_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().expect("folder");
        let target = folder.path().join("state.json");
        std::fs::create_dir_all(target.join("in the way")).expect("makes");
        write(&target, &1).expect_err("refused");
        let left = std::fs::read_dir(folder.path()).expect("lists").count();
        assert_eq!(left, 1);
    }

    #[test]
    fn a_reused_pid_is_not_alive() {
        let pid = i32::try_from(std::process::id()).expect("pids are small");
        let mut mark = ProcessMark::of(pid).expect("this process runs");
        assert!(mark.alive());
        mark.start_ticks += 1;
        assert!(!mark.alive());
        // Were it not checked, this would end the test.
        mark.kill();
        mark.kill_group();
    }
}
