//! How soon a process that was killed runs again, against podman's restart policy.
//!
//! Holds: both run the same script, which tells of its start first of all; kills of
//! one process are far enough apart that no back-off is measured.

use crate::{Report, goals};
use bench_common::figure::{Figure, median};
use bench_common::labs::finish;
use bench_common::node::{Node, kill, until};
use bench_common::{Failure, beside, note, say};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Killed in turn.
const PROCESSES: usize = 5;
/// A run this long ends a row of crashes: the next end is answered at once.
const STABLE: Duration = Duration::from_millis(10_500);

pub fn measure(kills: usize, report: Report) -> Result<(), Failure> {
    let scratch = tempfile::tempdir()?;
    let ours = ours(scratch.path(), kills)?;
    note("killed to started again, ms", &ours);
    let peer = if let Some(podman) = Podman::find() {
        podman.measure(scratch.path(), kills)?
    } else {
        say("    no podman, or no runc: apt-get install podman runc busybox-static");
        None
    };
    if let Some(spans) = &peer {
        note("by podman, ms", spans);
    }
    report(Figure {
        goal: goals::RESTART,
        ours: median(&ours),
        peer: peer.map(|spans| median(&spans)),
    });
    Ok(())
}

/// Tells of its start in a file, and its process id; then runs for ever.
fn script(file: &Path, then: &str) -> String {
    format!("echo $$ >> {}; exec {then}", file.display())
}

/// Process ids of all starts.
fn starts(file: &Path) -> Vec<u32> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Kills what tells of its starts in these files, in turn.
///
/// * `pid`: of the process that tells in that file, after so many starts.
fn killed(
    files: &[PathBuf],
    kills: usize,
    pid: impl Fn(usize) -> Result<u32, Failure>,
) -> Result<Vec<f64>, Failure> {
    let mut last = vec![Instant::now(); files.len()];
    let mut spans = Vec::new();
    for at in (0..files.len()).cycle().take(kills) {
        std::thread::sleep(STABLE.saturating_sub(last[at].elapsed()));
        let before = starts(&files[at]).len();
        let pid = pid(at)?;
        let moment = Instant::now();
        kill(pid)?;
        until("its next start", || {
            (starts(&files[at]).len() > before).then_some(())
        })?;
        spans.push(moment.elapsed().as_secs_f64() * 1e3);
        last[at] = Instant::now();
    }
    Ok(spans)
}

fn files(scratch: &Path, who: &str) -> Vec<PathBuf> {
    let file = |at| scratch.join(format!("{who}-{at}"));
    (0..PROCESSES).map(file).collect()
}

fn ours(scratch: &Path, kills: usize) -> Result<Vec<f64>, Failure> {
    let files = files(scratch, "ours");
    // A service listens.
    let service = beside("black-box-service")?.display().to_string();
    let services = files.iter().enumerate().map(|(at, file)| {
        let script = script(file, &service);
        format!("[service.s{at}]\nrun = {{ process = [\"sh\", \"-c\", \"{script}\"] }}\n")
    });
    let manifest = scratch.join("homeostat.toml");
    fs::write(&manifest, services.collect::<String>())?;
    let node = Node::new(&beside("homeostat")?, scratch, manifest, None)?;
    node.up()?;
    killed(&files, kills, |at| {
        starts(&files[at])
            .last()
            .copied()
            .ok_or_else(|| "it did not start".into())
    })
}

struct Podman {
    program: PathBuf,
    busybox: PathBuf,
}

impl Podman {
    fn find() -> Option<Self> {
        let find = |name: &str| {
            let path = std::env::var_os("PATH")?;
            let mut found = std::env::split_paths(&path).map(|folder| folder.join(name));
            found.find(|path| path.is_file())
        };
        find("runc")?;
        Some(Self {
            program: find("podman")?,
            busybox: find("busybox")?,
        })
    }

    fn command(&self, scratch: &Path) -> Command {
        let mut command = Command::new(&self.program);
        let folder = |name| scratch.join(name).into_os_string();
        command.arg("--root").arg(folder("pods"));
        command.arg("--runroot").arg(folder("pods-run"));
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
        // It works under control groups v1 too.
        command.args(["--runtime", "runc"]);
        command
    }

    /// None where it cannot run a container here.
    fn measure(&self, scratch: &Path, kills: usize) -> Result<Option<Vec<f64>>, Failure> {
        let root = scratch.join("root");
        for folder in ["bin", "proc", "dev", "sys", "etc", "tmp", "run"] {
            fs::create_dir_all(root.join(folder))?;
        }
        fs::copy(&self.busybox, root.join("bin/busybox"))?;
        std::os::unix::fs::symlink("busybox", root.join("bin/sh"))?;
        let running = Containers {
            podman: self,
            scratch,
        };
        let files = files(scratch, "podman");
        for (at, file) in files.iter().enumerate() {
            let mut run = self.command(scratch);
            run.args([
                "run",
                "--detach",
                "--restart",
                "always",
                "--network",
                "host",
            ]);
            run.args([
                "--ulimit",
                "nofile=1024:1024",
                "--ulimit",
                "nproc=1000:1000",
            ]);
            run.args(["--name", &format!("c{at}"), "--volume"]);
            run.arg(format!("{0}:{0}", scratch.display()));
            run.arg("--rootfs").arg(&root);
            run.args(["/bin/sh", "-c", &script(file, "/bin/busybox sleep 100000")]);
            if let Err(why) = finish(run) {
                say(&format!("    podman runs nothing here: {why}"));
                return Ok(None);
            }
        }
        let pid = |at| {
            let mut inspect = self.command(scratch);
            inspect.args(["inspect", &format!("c{at}"), "--format", "{{.State.Pid}}"]);
            Ok(finish(inspect)?.trim().parse()?)
        };
        let spans = killed(&files, kills, pid)?;
        drop(running);
        Ok(Some(spans))
    }
}

/// They go when this does.
struct Containers<'a> {
    podman: &'a Podman,
    scratch: &'a Path,
}

impl Drop for Containers<'_> {
    fn drop(&mut self) {
        let mut remove = self.podman.command(self.scratch);
        remove.args(["rm", "--all", "--force", "--time", "0"]);
        if let Err(why) = finish(remove) {
            say(&format!("    containers were left: {why}"));
        }
    }
}
