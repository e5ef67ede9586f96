//! A small disk of the test's own: a memory file system, made as root.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug)]
pub struct Disk {
    directory: tempfile::TempDir,
}

impl Disk {
    /// `None`, with a line that says so, where this may not be done.
    pub fn of(mebibytes: u64) -> Option<Self> {
        let directory = tempfile::Builder::new()
            .prefix("hd")
            .tempdir()
            .expect("a directory");
        let disk = Self { directory };
        let options = format!("size={mebibytes}m,mode=0755");
        let mounted = disk.mount(&["-t", "tmpfs", "-o", &options, "tmpfs"]);
        if !mounted {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: a disk cannot be mounted here; this test needs root"
            );
        }
        mounted.then_some(disk)
    }

    fn mount(&self, words: &[&str]) -> bool {
        let output = Command::new("mount")
            .args(words)
            .arg(self.directory.path())
            .output();
        output.is_ok_and(|output| output.status.success())
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// # Panics
    /// When something still writes to it.
    pub fn set_read_only(&self, read_only: bool) {
        let options = if read_only {
            "remount,ro"
        } else {
            "remount,rw"
        };
        assert!(self.mount(&["-o", options]), "not remounted");
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Takes all but about `left_bytes` of what is free.
    pub fn fill(&self, left_bytes: u64) {
        let free = self.free_bytes();
        let mut ballast = File::options()
            .create(true)
            .append(true)
            .open(self.ballast())
            .expect("opens");
        let mut left = free.saturating_sub(left_bytes);
        let block = vec![7; 4_096];
        while left > 0 {
            let count = usize::try_from(left.min(4_096)).expect("small");
            match ballast.write(&block[..count]) {
                Ok(0) | Err(_) => return,
                Ok(written) => left -= written as u64,
            }
        }
    }

    pub fn make_room(&self) {
        std::fs::remove_file(self.ballast()).expect("removes");
    }

    pub fn free_bytes(&self) -> u64 {
        let output = Command::new("stat")
            .args(["-f", "-c", "%a %S"])
            .arg(self.path())
            .output()
            .expect("stat runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut numbers = text.split_whitespace().map(|word| {
            let number: u64 = word.parse().expect("a number");
            number
        });
        numbers.next().expect("blocks") * numbers.next().expect("their size")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A directory that nothing is mounted on is refused, and that is well.
        let _ = Command::new("umount").arg(self.directory.path()).output();
    }
}
