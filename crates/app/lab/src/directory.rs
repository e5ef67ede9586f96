//! Where labs keep what they are, and which of them live.
//!
//! Holds: a lab's keeper has its lock for as long as it lives, so a lab whose
//! lock is free is dead, however it died; numbers are given under one lock.

use crate::LabError;
use kernel::Name;
use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use wire::lab::{ActiveFault, LabPlan};

/// The variable that puts labs elsewhere.
const LABS: &str = "HOMEOSTAT_LABS";

/// Where this user's labs are: short, for sockets lie below, and on a disk.
pub fn labs_directory() -> PathBuf {
    if let Some(given) = std::env::var_os(LABS) {
        return PathBuf::from(given);
    }
    let user = rustix::process::geteuid();
    if user.is_root() {
        PathBuf::from("/var/lib/homeostat-lab")
    } else {
        PathBuf::from(format!("/var/tmp/homeostat-lab-{}", user.as_raw()))
    }
}

pub fn node_directory(labs: &Path, id: u8, node: &Name) -> PathBuf {
    labs.join(id.to_string()).join(node.as_str())
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    pub path: PathBuf,
}

impl Directory {
    pub fn of(id: u8) -> Self {
        Self {
            path: labs_directory().join(id.to_string()),
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }
    pub fn log(&self) -> PathBuf {
        self.path.join("keeper.log")
    }
    pub fn impairments(&self) -> PathBuf {
        self.path.join("impairments.json")
    }
    pub fn image(&self, node: &Name) -> PathBuf {
        self.path.join(format!("{node}.img"))
    }
    pub fn mount(&self, node: &Name) -> PathBuf {
        self.path.join(node.as_str())
    }
    fn lock(&self) -> PathBuf {
        self.path.join("lock")
    }
    fn plan_file(&self) -> PathBuf {
        self.path.join("plan.json")
    }
    fn faults_file(&self) -> PathBuf {
        self.path.join("faults.json")
    }

    pub fn plan(&self) -> Result<LabPlan, LabError> {
        let path = self.plan_file();
        let text = std::fs::read_to_string(&path)
            .map_err(|source| LabError::io(format!("read {}", path.display()), source))?;
        Ok(LabPlan::read(&text)?)
    }

    pub fn write_plan(&self, plan: &LabPlan) -> Result<(), LabError> {
        let text = serde_json::to_string_pretty(plan).map_err(wire::lab::LabFormatError::from)?;
        replace(&self.plan_file(), &text)
    }

    /// For people, and for whoever finds the lab dead.
    pub fn write_faults(&self, faults: &[ActiveFault]) -> Result<(), LabError> {
        let text = serde_json::to_string_pretty(faults).map_err(wire::lab::LabFormatError::from)?;
        replace(&self.faults_file(), &text)
    }

    /// The lock, if nobody has it.
    pub fn take(&self) -> io::Result<File> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.lock())?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(file)
    }

    pub fn is_live(&self) -> bool {
        let taken = File::options().write(true).open(self.lock());
        taken.is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err())
    }
}

/// Held while a lab's devices are made: numbers are the machine's, wherever
/// labs keep their files.
pub fn lock_machine() -> Result<File, LabError> {
    let path = Path::new("/run/homeostat-lab.lock");
    let failed = |source| LabError::io(format!("lock {}", path.display()), source);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(failed)?;
    flock(&file, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
    Ok(file)
}

pub fn replace(path: &Path, text: &str) -> Result<(), LabError> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text)
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(|source| LabError::io(format!("write {}", path.display()), source))
}

/// Held while numbers are given and dead labs are cleared away.
pub fn lock_all() -> Result<File, LabError> {
    let labs = labs_directory();
    let failed = |source| LabError::io(format!("use {}", labs.display()), source);
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(&labs).map_err(failed)?;
    // In a directory that all may write to, somebody else may have been first.
    let found = std::fs::symlink_metadata(&labs).map_err(failed)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(failed(io::ErrorKind::PermissionDenied.into()));
    }
    let lock = labs.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(lock)
        .map_err(failed)?;
    flock(&file, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
    Ok(file)
}

/// Every lab's number, living or dead.
pub fn numbers() -> Vec<u8> {
    let entries = std::fs::read_dir(labs_directory()).into_iter().flatten();
    let mut found: Vec<u8> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    found.sort_unstable();
    found
}
