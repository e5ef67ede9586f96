//! What the kernel says about this machine and about processes.
//!
//! In: process ids. Out: CPU time, memory, descendants, descriptions.
//! Never: signals a process.

use crate::Failure;
use rustix::thread::CpuSet;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The cores of the servers and those of the load generators.
#[derive(Clone, Debug)]
pub struct Cores {
    pub server: Vec<usize>,
    pub load: Vec<usize>,
}

impl Cores {
    /// Half for each; a machine's only core is shared.
    pub fn split() -> Result<Self, Failure> {
        let set = rustix::thread::sched_getaffinity(None)?;
        let all: Vec<usize> = (0..CpuSet::MAX_CPU)
            .filter(|cpu| set.is_set(*cpu))
            .collect();
        let (server, load) = match all.len() {
            1 => (all.clone(), all.clone()),
            count => (all[..count / 2].to_vec(), all[count / 2..].to_vec()),
        };
        Ok(Self { server, load })
    }

    pub fn are_shared(&self) -> bool {
        self.server == self.load
    }
}

fn list(cores: &[usize]) -> String {
    let words: Vec<String> = cores.iter().map(ToString::to_string).collect();
    words.join(",")
}

/// A command that runs on these cores only, with all that it starts.
pub fn pinned(cores: &[usize], program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(list(cores)).arg(program);
    command
}

/// Keeps the calling thread on these cores.
pub fn pin_thread(cores: &[usize]) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// The fields of `/proc/PID/stat` after the name; none when it is gone.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// Whether it still runs; a zombie does not.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| !matches!(fields[0].as_str(), "Z" | "X"))
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// These processes and all that descends from them.
pub fn with_descendants(roots: &[u32]) -> BTreeSet<u32> {
    let parents: BTreeMap<u32, u32> = pids()
        .filter_map(|pid| Some((pid, stat(pid)?.get(1)?.parse().ok()?)))
        .collect();
    let mut found: BTreeSet<u32> = roots.iter().copied().collect();
    loop {
        let more: Vec<u32> = parents
            .iter()
            .filter(|(pid, parent)| found.contains(parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// The arguments of each process that mentions this path in one of them.
pub fn mentioning(path: &Path) -> Vec<(u32, Vec<String>)> {
    let wanted = path.to_string_lossy().into_owned();
    pids()
        .filter(|pid| *pid != std::process::id())
        .filter_map(|pid| {
            let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let words: Vec<String> = bytes
                .split(|byte| *byte == 0)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect();
            let named = words.iter().any(|word| word.starts_with(&wanted));
            named.then_some((pid, words))
        })
        .collect()
}

/// User and system CPU seconds of these processes so far, and of those of their
/// children that have ended and were waited for.
pub fn cpu_seconds(pids: &BTreeSet<u32>) -> f64 {
    let ticks: u64 = pids
        .iter()
        .filter_map(|pid| stat(*pid))
        .flat_map(|fields| {
            let own = fields.into_iter().skip(11).take(4);
            own.filter_map(|field| field.parse::<u64>().ok())
        })
        .sum();
    #[expect(
        clippy::cast_precision_loss,
        reason = "ticks are hundredths of seconds"
    )]
    let (ticks, per_second) = (ticks as f64, rustix::param::clock_ticks_per_second() as f64);
    ticks / per_second
}

/// Proportional set size, bytes.
pub fn pss(pid: u32) -> Result<u64, Failure> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|why| format!("{path}: {why}"))?;
    let kib = text
        .lines()
        .find_map(|line| {
            line.strip_prefix("Pss:")?
                .split_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
        })
        .ok_or_else(|| format!("{path} has no Pss"))?;
    Ok(kib * 1024)
}

/// The boot-time clock in nanoseconds: the one that a node's records use.
pub fn boot_time() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}

pub fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    });
    model.unwrap_or_else(|| "unknown".to_owned())
}

pub fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

/// The first line of what a program says on being asked; none when it is missing.
pub fn said_by(program: &Path, words: &[&str]) -> Option<String> {
    let output = Command::new(program).args(words).output().ok()?;
    let bytes = if output.stdout.is_empty() {
        output.stderr
    } else {
        output.stdout
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Some(text.lines().next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_found_under_its_parent_and_its_cpu_counts() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleeps");
        let family = with_descendants(&[std::process::id()]);
        assert!(family.contains(&child.id()));
        assert!(is_alive(child.id()));
        child.kill().expect("it runs");
        while is_alive(child.id()) {
            std::thread::yield_now();
        }
        child.wait().expect("it ended");

        let own = BTreeSet::from([std::process::id()]);
        let before = cpu_seconds(&own);
        while cpu_seconds(&own) <= before {
            std::hint::spin_loop();
        }
        assert!(pss(std::process::id()).expect("it is ours") > 100_000);
    }

    #[test]
    fn cores_are_split_without_overlap_where_there_are_two() {
        let cores = Cores::split().expect("affinity");
        assert!(!cores.server.is_empty() && !cores.load.is_empty());
        let overlap = cores.server.iter().any(|core| cores.load.contains(core));
        assert_eq!(overlap, cores.are_shared());
    }
}
