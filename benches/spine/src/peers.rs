//! The named peers, run as child processes in scratch directories.
//!
//! In: a committed configuration, free ports. Out: a running peer.
//! Holds: a peer is ended by its process id when it is dropped; one that is not
//! installed is `None`, and its figures are said without it.

use crate::Failure;
use crate::machine::{is_alive, pinned, with_descendants};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const READY_MAX: Duration = Duration::from_secs(20);
const END_MAX: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Httpd,
    Etcd,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Httpd => "httpd",
            Self::Etcd => "etcd",
        }
    }

    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Nginx => &["nginx"],
            Self::Httpd => &["apache2", "httpd"],
            Self::Etcd => &["etcd"],
        }
    }

    pub fn package(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Httpd => "apache2",
            Self::Etcd => "etcd-server",
        }
    }

    fn configuration(self) -> &'static str {
        match self {
            Self::Nginx => include_str!("../nginx.conf"),
            Self::Httpd => include_str!("../httpd.conf"),
            Self::Etcd => include_str!("../etcd.flags"),
        }
    }

    /// Where it is installed.
    pub fn find(self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
        places
            .flat_map(|place| self.programs().iter().map(move |name| place.join(name)))
            .find(|program| program.is_file())
    }

    /// What it says of its version.
    pub fn version(self, program: &Path) -> String {
        let word = match self {
            Self::Etcd => "--version",
            Self::Nginx | Self::Httpd => "-v",
        };
        crate::machine::said_by(program, &[word]).unwrap_or_default()
    }
}

pub struct Peer {
    pub address: SocketAddr,
    child: Child,
}

impl Peer {
    /// Starts it and waits until it accepts; `site` is what a web server serves.
    pub fn start(
        kind: Kind,
        program: &Path,
        home: &Path,
        site: &Path,
        cores: Option<&[usize]>,
    ) -> Result<Self, Failure> {
        fs::create_dir_all(home)?;
        let address = free_address()?;
        let workers = cores.map_or(1, <[usize]>::len);
        let text = kind
            .configuration()
            .replace("@PORT@", &address.port().to_string())
            .replace("@PEER_PORT@", &free_address()?.port().to_string())
            .replace("@WORKERS@", &workers.to_string())
            .replace("@HERE@", &home.to_string_lossy())
            .replace("@SITE@", &site.to_string_lossy())
            .replace("@MODULES@", &modules().to_string_lossy());
        let file = home.join("configuration");
        fs::write(&file, &text)?;
        let mut command = match cores {
            Some(cores) => pinned(cores, program),
            None => Command::new(program),
        };
        match kind {
            Kind::Nginx => command
                .args(["-e", "error.log", "-p"])
                .arg(home)
                .arg("-c")
                .arg(&file),
            Kind::Httpd => command.arg("-DFOREGROUND").arg("-f").arg(&file),
            Kind::Etcd => command.args(text.lines()),
        };
        let log = File::create(home.join("said.log"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|why| format!("{} does not start: {why}", kind.name()))?;
        let mut peer = Self { address, child };
        peer.wait_until_ready(kind, home)?;
        Ok(peer)
    }

    fn wait_until_ready(&mut self, kind: Kind, home: &Path) -> Result<(), Failure> {
        let deadline = Instant::now() + READY_MAX;
        while TcpStream::connect(self.address).is_err() {
            let ended = self.child.try_wait()?.is_some();
            if ended || Instant::now() >= deadline {
                let said = fs::read_to_string(home.join("said.log")).unwrap_or_default();
                let errors = fs::read_to_string(home.join("error.log")).unwrap_or_default();
                return Err(format!("{} is not ready: {said}{errors}", kind.name()).into());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    pub fn processes(&self) -> Vec<u32> {
        with_descendants(&[self.child.id()]).into_iter().collect()
    }
}

impl Drop for Peer {
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

/// Where Debian or others keep httpd's modules.
fn modules() -> PathBuf {
    let places = [
        "/usr/lib/apache2/modules",
        "/usr/lib64/httpd/modules",
        "/usr/libexec/apache2",
    ];
    let found = places.iter().find(|place| Path::new(place).is_dir());
    found.unwrap_or(&places[0]).into()
}

pub fn free_address() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
