//! A peer's process and all that it starts.
//!
//! In: a command that will listen. Out: a server that accepts.
//! Holds: it is ended by its process id when it is dropped.

use crate::Failure;
use crate::machine::{is_alive, with_descendants};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const READY_MAX: Duration = Duration::from_secs(20);
const END_MAX: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);

pub struct Child {
    pub address: SocketAddr,
    child: std::process::Child,
}

impl Child {
    /// Starts it and waits until it accepts; what it says goes to `said.log` in
    /// its home.
    pub fn start(
        name: &str,
        mut command: Command,
        address: SocketAddr,
        home: &Path,
    ) -> Result<Self, Failure> {
        let log = File::create(home.join("said.log"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|why| format!("{name} does not start: {why}"))?;
        let mut started = Self { address, child };
        started.wait_until_ready(name, home)?;
        Ok(started)
    }

    fn wait_until_ready(&mut self, name: &str, home: &Path) -> Result<(), Failure> {
        let deadline = Instant::now() + READY_MAX;
        while TcpStream::connect(self.address).is_err() {
            let ended = self.child.try_wait()?.is_some();
            if ended || Instant::now() >= deadline {
                let said = fs::read_to_string(home.join("said.log")).unwrap_or_default();
                let errors = fs::read_to_string(home.join("error.log")).unwrap_or_default();
                return Err(format!("{name} is not ready: {said}{errors}").into());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    pub fn processes(&self) -> Vec<u32> {
        with_descendants(&[self.child.id()]).into_iter().collect()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let family = self.processes();
        let pid = Pid::from_child(&self.child);
        let _ = kill_process(pid, Signal::TERM);
        let deadline = Instant::now() + END_MAX;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
            std::thread::sleep(LOOK);
        }
        while family.iter().any(|pid| is_alive(*pid)) && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
    }
}

/// An installed program, by the first of its names that there is.
pub fn installed(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    places
        .flat_map(|place| names.iter().map(move |name| place.join(name)))
        .find(|program| program.is_file())
}

pub fn free_address() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
