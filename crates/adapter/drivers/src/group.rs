//! Control groups: which are in force here, one per replica with its limits,
//! what they count, and how all in one is killed.
//!
//! Holds: our groups lie under `homeostat/`; nothing outside is written to or
//! killed. A limit that this machine does not grant is a reason for
//! `doctor`, never an error.

use kernel::Bytes;
use manifest::Limits;
use node::driver::ReplicaStats;
use rustix::process::{Pid, Signal};
use std::path::{Path, PathBuf};
use std::time::Duration;

const ROOT: &str = "homeostat";
const CONTROLLERS: [&str; 4] = ["memory", "cpu", "cpuacct", "pids"];
const CPU_PERIOD_US: f64 = 100_000.0;
/// Forks race with the kill; each round catches what the last one missed.
const KILL_ROUNDS_MAX: u32 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupVersion {
    V1,
    V2,
    None,
}

/// One mounted hierarchy that can count or limit a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Of `memory`, `cpu`, `cpuacct`, `pids`.
    pub controllers: Vec<String>,
    pub mount: PathBuf,
    /// Why no group can be made in it; `None` when one can.
    pub refused: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlGroups {
    pub version: GroupVersion,
    pub hierarchies: Vec<Hierarchy>,
}

impl ControlGroups {
    /// Whether a limit on `controller` will be kept.
    pub fn limits(&self, controller: &str) -> bool {
        let has = |hierarchy: &Hierarchy| hierarchy.controllers.iter().any(|c| c == controller);
        self.hierarchies
            .iter()
            .any(|hierarchy| hierarchy.refused.is_none() && has(hierarchy))
    }
}

impl std::fmt::Display for ControlGroups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.version {
            GroupVersion::V1 => f.write_str("v1")?,
            GroupVersion::V2 => f.write_str("v2")?,
            GroupVersion::None => return f.write_str("none"),
        }
        for hierarchy in &self.hierarchies {
            write!(f, ", {}", hierarchy.controllers.join("+"))?;
            if let Some(why) = &hierarchy.refused {
                write!(f, " (not writable: {why})")?;
            }
        }
        Ok(())
    }
}

/// Which control groups are in force on this machine.
pub fn control_groups() -> ControlGroups {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut found = read_mounts(&mounts);
    for hierarchy in &mut found.hierarchies {
        if found.version == GroupVersion::V2 {
            let path = hierarchy.mount.join("cgroup.controllers");
            let text = std::fs::read_to_string(path).unwrap_or_default();
            hierarchy.controllers = known(text.split_whitespace());
        }
        let ours = hierarchy.mount.join(ROOT);
        // There already, it may be another user's.
        let can_write = std::fs::create_dir_all(&ours)
            .and_then(|()| Ok(rustix::fs::access(&ours, rustix::fs::Access::WRITE_OK)?));
        hierarchy.refused = can_write.err().map(|error| error.to_string());
    }
    found
}

/// A controller that is mounted as v1 is not available in v2, so v1 wins.
fn read_mounts(mounts: &str) -> ControlGroups {
    let (mut v1, mut v2) = (Vec::new(), Vec::new());
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(mount), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let hierarchy = |controllers| Hierarchy {
            controllers,
            mount: PathBuf::from(mount),
            refused: None,
        };
        match kind {
            "cgroup" => {
                let controllers = known(options.split(','));
                if !controllers.is_empty() {
                    v1.push(hierarchy(controllers));
                }
            }
            "cgroup2" => v2.push(hierarchy(Vec::new())),
            _ => {}
        }
    }
    let (version, hierarchies) = match (v1.is_empty(), v2.is_empty()) {
        (false, _) => (GroupVersion::V1, v1),
        (true, false) => (GroupVersion::V2, v2),
        (true, true) => (GroupVersion::None, v1),
    };
    ControlGroups {
        version,
        hierarchies,
    }
}

fn known<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    names
        .filter(|name| CONTROLLERS.contains(name))
        .map(str::to_owned)
        .collect()
}

impl ControlGroups {
    /// Makes `homeostat/NODE/REPLICA` where that is allowed, limits it, and
    /// returns the directories a replica must enter.
    pub(crate) fn make(&self, node: &str, replica: &str, limits: &Limits) -> Vec<PathBuf> {
        let mut made = Vec::new();
        for hierarchy in self.hierarchies.iter().filter(|h| h.refused.is_none()) {
            let ours = hierarchy.mount.join(ROOT);
            let directory = ours.join(node).join(replica);
            if let Err(error) = std::fs::create_dir_all(&directory) {
                tracing::warn!(?directory, %error, "control group refused");
                continue;
            }
            if self.version == GroupVersion::V2 {
                let enable: Vec<String> = hierarchy
                    .controllers
                    .iter()
                    .map(|c| format!("+{c}"))
                    .collect();
                for above in [&hierarchy.mount, &ours, &ours.join(node)] {
                    set(above, "cgroup.subtree_control", &enable.join(" "));
                }
            }
            self.limit(&directory, &hierarchy.controllers, limits);
            made.push(directory);
        }
        made
    }

    fn limit(&self, directory: &Path, controllers: &[String], limits: &Limits) {
        let memory = limits.memory.map(|bytes| bytes.0.to_string());
        let pids = limits.processes.map(|count| count.to_string());
        let quota = limits
            .cpu
            .map(|cores| format!("{:.0}", cores * CPU_PERIOD_US));
        let v1 = self.version == GroupVersion::V1;
        for controller in controllers {
            match (controller.as_str(), v1) {
                ("memory", true) => {
                    // With memsw, the two must not cross while they change.
                    let memory = memory.as_deref().unwrap_or("-1");
                    try_set(directory, "memory.memsw.limit_in_bytes", memory);
                    set(directory, "memory.limit_in_bytes", memory);
                    try_set(directory, "memory.memsw.limit_in_bytes", memory);
                }
                ("memory", false) => {
                    set(directory, "memory.max", memory.as_deref().unwrap_or("max"));
                    let swap = if memory.is_some() { "0" } else { "max" };
                    try_set(directory, "memory.swap.max", swap);
                }
                ("cpu", true) => {
                    set(directory, "cpu.cfs_period_us", "100000");
                    let quota = quota.as_deref().unwrap_or("-1");
                    set(directory, "cpu.cfs_quota_us", quota);
                }
                ("cpu", false) => {
                    let quota = quota.as_deref().unwrap_or("max");
                    set(directory, "cpu.max", &format!("{quota} 100000"));
                }
                ("pids", _) => set(directory, "pids.max", pids.as_deref().unwrap_or("max")),
                _ => {}
            }
        }
    }
}

fn set(directory: &Path, file: &str, value: &str) {
    if let Err(error) = std::fs::write(directory.join(file), value) {
        tracing::warn!(?directory, file, value, %error, "control group limit refused");
    }
}

/// For files that not every kernel has.
fn try_set(directory: &Path, file: &str, value: &str) {
    let _ = std::fs::write(directory.join(file), value);
}

fn is_ours(directory: &Path) -> bool {
    directory.components().any(|part| part.as_os_str() == ROOT)
}

fn members(directory: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Kills every process in the groups.
pub fn kill_all(groups: &[PathBuf]) {
    for directory in groups.iter().filter(|group| is_ours(group)) {
        let kill = directory.join("cgroup.kill");
        if kill.exists() && std::fs::write(kill, "1").is_ok() {
            continue;
        }
        for _ in 0..KILL_ROUNDS_MAX {
            let members = members(directory);
            if members.is_empty() {
                break;
            }
            for pid in members.into_iter().filter_map(Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// Removes empty groups; false while one still has processes.
pub fn remove(groups: &[PathBuf]) -> bool {
    let mut gone = true;
    for directory in groups.iter().filter(|group| is_ours(group)) {
        if std::fs::remove_dir(directory).is_err() {
            gone &= !directory.exists();
        }
    }
    gone
}

/// How many processes of the groups the kernel has killed for memory so far.
pub fn out_of_memory_kills(groups: &[PathBuf]) -> u64 {
    let count = |group: &PathBuf| {
        ["memory.oom_control", "memory.events"]
            .iter()
            .find_map(|file| field(&group.join(file), "oom_kill"))
    };
    groups.iter().filter_map(count).sum()
}

fn field(path: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == name).then(|| value.trim().parse().ok())?
    })
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// What the groups have counted. `cpu` is since the replica was prepared;
/// `memory` leaves out files the kernel can drop at will.
pub fn stats(groups: &[PathBuf]) -> (Option<Duration>, ReplicaStats) {
    let (mut cpu, mut stats) = (None, ReplicaStats::default());
    for group in groups {
        if let Some(nanos) = number(&group.join("cpuacct.usage")) {
            cpu = Some(Duration::from_nanos(nanos));
        } else if let Some(micros) = field(&group.join("cpu.stat"), "usage_usec") {
            cpu = Some(Duration::from_micros(micros));
        }
        let memory = [
            ("memory.usage_in_bytes", "total_inactive_file"),
            ("memory.current", "inactive_file"),
        ];
        for (usage, droppable) in memory {
            if let Some(bytes) = number(&group.join(usage)) {
                let droppable = field(&group.join("memory.stat"), droppable).unwrap_or(0);
                stats.memory = Some(Bytes(bytes.saturating_sub(droppable)));
            }
        }
        stats.processes = stats.processes.or(number(&group.join("pids.current")));
    }
    stats.cpu = cpu.unwrap_or_default();
    (cpu, stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixed_mounts_count_as_v1() {
        let found = read_mounts(
            "cgroup /c/cpu cgroup rw,relatime,cpu,cpuacct 0 0\n\
             cgroup /c/systemd cgroup rw,name=systemd 0 0\n\
             cgroup2 /c/unified cgroup2 rw 0 0\n",
        );
        assert_eq!(found.version, GroupVersion::V1);
        assert_eq!(found.hierarchies.len(), 1);
        assert_eq!(found.hierarchies[0].controllers, ["cpu", "cpuacct"]);
    }

    #[test]
    fn a_lone_unified_mount_is_v2_and_nothing_is_none() {
        let found = read_mounts("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n");
        assert_eq!(found.version, GroupVersion::V2);
        assert_eq!(read_mounts("").version, GroupVersion::None);
    }

    #[test]
    fn foreign_groups_are_not_ours() {
        assert!(!is_ours(Path::new("/sys/fs/cgroup/pids")));
        assert!(is_ours(Path::new(
            "/sys/fs/cgroup/pids/homeostat/n/p.a-g1-0"
        )));
    }
}
