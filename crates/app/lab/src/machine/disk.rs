//! A file system of limited size for each node, in a file of its own.
//!
//! Holds: the file takes no more of the real disk than was written to it.

use super::{END_MAX, LOOK, tool};
use crate::LabError;
use crate::directory::Directory;
use kernel::{Bytes, Name};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use wire::lab::{LabNode, LabPlan};

/// What was killed a moment ago may stand in it for so long.
const SHELL_MAX: Duration = Duration::from_secs(1);
/// What takes the room away.
const BALLAST: &str = "ballast";
/// Taken in such pieces, the largest that still fits first.
const PIECES: [u64; 5] = [256 << 20, 16 << 20, 1 << 20, 64 << 10, 4 << 10];

pub fn make(plan: &LabPlan, directory: &Directory, node: &LabNode) -> Result<(), LabError> {
    unmake(directory, node)?;
    let (image, mount) = (directory.image(&node.name), directory.mount(&node.name));
    let failed = |source| LabError::io(format!("make {}", image.display()), source);
    let file = File::create(&image).map_err(failed)?;
    file.set_len(plan.disk.0).map_err(failed)?;
    std::fs::create_dir_all(&mount).map_err(failed)?;
    let words = [
        "-q",
        "-F",
        "-m",
        "0",
        "-E",
        "lazy_itable_init=1,lazy_journal_init=1",
    ];
    let (image, mount) = (image.display().to_string(), mount.display().to_string());
    let words: Vec<&str> = words.into_iter().chain([image.as_str()]).collect();
    tool::run("mkfs.ext4", &words)?;
    tool::run("mount", &["-o", "loop,noatime", &image, &mount])
}

pub fn unmake(directory: &Directory, node: &LabNode) -> Result<(), LabError> {
    let mount = directory.mount(&node.name);
    while is_mounted(&mount) {
        // The limit is the device's, which serves others after this.
        if let Some(throttle) = Throttle::of(directory, &node.name) {
            throttle.limit(None)?;
        }
        let path = mount.display().to_string();
        if tool::run("umount", &[&path]).is_ok() {
            let_go(&directory.image(&node.name), END_MAX)?;
        } else {
            tool::run("umount", &["-l", &path])?;
            // Somebody's shell may stand in it: then it goes when that has gone.
            let _ = let_go(&directory.image(&node.name), SHELL_MAX);
        }
    }
    Ok(())
}

/// Waits for the kernel, which lets go of the file behind a mount after the
/// mount is gone, and later still while another looks for a free loop device.
fn let_go(image: &Path, max: Duration) -> Result<(), LabError> {
    let deadline = Instant::now() + max;
    while is_behind_a_device(image) {
        if Instant::now() >= deadline {
            let what = format!("let go of {}", image.display());
            return Err(LabError::io(what, std::io::ErrorKind::TimedOut.into()));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn is_behind_a_device(image: &Path) -> bool {
    device(image).is_some()
}

/// What the kernel tells of the loop device that the file is behind.
fn device(image: &Path) -> Option<PathBuf> {
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten();
    let mut devices = devices.flatten().map(|device| device.path());
    devices.find(|device| {
        let file = std::fs::read_to_string(device.join("loop/backing_file"));
        file.is_ok_and(|file| Path::new(file.trim_end()) == image)
    })
}

/// Writes that the node's disk takes a second from now on; none: no limit.
///
/// # Errors
/// This machine has no control groups of version 1 that limit them.
pub fn limit_writes(
    directory: &Directory,
    node: &Name,
    writes_per_s: Option<u32>,
) -> Result<(), LabError> {
    match Throttle::of(directory, node) {
        Some(throttle) => throttle.limit(writes_per_s),
        None if writes_per_s.is_none() => Ok(()),
        None => Err(LabError::Refused {
            why: "a disk is slowed by control groups of version 1, `blkio` among them; \
                  this machine has none"
                .to_owned(),
            help: Some("homeostat chaos slow NODE --cpu 0.1".to_owned()),
        }),
    }
}

/// The limit of one device, in the group of all: what the kernel writes back
/// for a process is counted there, not in the group of that process.
struct Throttle {
    file: PathBuf,
    /// `MAJOR:MINOR`.
    device: String,
}

impl Throttle {
    fn of(directory: &Directory, node: &Name) -> Option<Self> {
        let device = device(&directory.image(node))?;
        let number = std::fs::read_to_string(device.join("dev")).ok()?;
        let file = blkio()?.join("blkio.throttle.write_iops_device");
        file.exists().then(|| Self {
            file,
            device: number.trim_end().to_owned(),
        })
    }

    fn limit(&self, writes_per_s: Option<u32>) -> Result<(), LabError> {
        let line = format!("{} {}", self.device, writes_per_s.unwrap_or(0));
        let what = || format!("write `{line}` to {}", self.file.display());
        std::fs::write(&self.file, &line).map_err(|source| LabError::io(what(), source))
    }
}

fn blkio() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mut groups = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, kind, options) = (words.next()?, words.next()?, words.next()?);
        let is_it = kind == "cgroup" && options.split(',').any(|option| option == "blkio");
        is_it.then(|| PathBuf::from(point))
    });
    groups.next()
}

fn is_mounted(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    points.any(|point| Path::new(point) == path)
}

/// Takes all but so much of what is free beside the node's data.
pub fn fill(beside: &Path, leave: Bytes) -> Result<(), LabError> {
    let path = beside.join(BALLAST);
    let failed = |source| LabError::io(format!("fill {}", beside.display()), source);
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(failed)?;
    for piece in PIECES {
        loop {
            let found = statvfs(beside).map_err(|errno| failed(errno.into()))?;
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            if free < leave.0.saturating_add(piece) {
                break;
            }
            let at = file.metadata().map_err(failed)?.len();
            match fallocate(&file, FallocateFlags::empty(), at, piece) {
                Ok(()) => {}
                // The file system wants some of it for itself.
                Err(Errno::NOSPC | Errno::DQUOT) => break,
                Err(errno) => return Err(failed(errno.into())),
            }
        }
    }
    Ok(())
}

pub fn unfill(beside: &Path) -> Result<(), LabError> {
    match std::fs::remove_file(beside.join(BALLAST)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(LabError::io(
            format!("make room in {}", beside.display()),
            error,
        )),
        _ => Ok(()),
    }
}
