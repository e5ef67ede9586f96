//! An etcd of one member, for nodes whose desired state is in it.
//!
//! Holds: only what was started here is ended.

use crate::{ports, until};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

pub struct Etcd {
    home: tempfile::TempDir,
    client: SocketAddr,
    peer: SocketAddr,
    child: Option<Child>,
}

impl Etcd {
    /// None, with a line that says so, where it is not installed.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Option<Self> {
        let found = Command::new("etcd")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if found.is_err() {
            let why = "etcd is not installed; `cargo xtask test` installs Debian's `etcd-server`";
            let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
            return None;
        }
        let mut etcd = Self {
            home: tempfile::tempdir().expect("a directory"),
            client: ports::free(),
            peer: ports::free(),
            child: None,
        };
        etcd.go_on();
        Some(etcd)
    }

    /// Under a root of its own.
    pub fn url(&self, root: &str) -> String {
        format!("etcd://{}/{root}", self.client)
    }

    /// Kills it.
    ///
    /// # Panics
    /// When it does not end.
    pub fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it runs");
            child.wait().expect("it ends");
        }
    }

    /// Starts it with what it had.
    ///
    /// # Panics
    /// When it does not start.
    pub fn go_on(&mut self) {
        let [client, peer] = [self.client, self.peer].map(|address| format!("http://{address}"));
        let log = std::fs::File::create(self.home.path().join("log")).expect("a log");
        let child = Command::new("etcd")
            .args(["--name", "m", "--initial-cluster-state", "new"])
            .args(::etcd::SERVER_FLAGS)
            .arg(format!(
                "--data-dir={}",
                self.home.path().join("d").display()
            ))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=m={peer}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("etcd starts"));
        until("etcd answers", || TcpStream::connect(self.client).ok());
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
