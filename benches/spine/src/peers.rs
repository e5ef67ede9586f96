//! The named peers, run as child processes in scratch directories.
//!
//! In: a committed configuration, free ports. Out: a running peer.
//! Holds: one that is not installed is `None`, and its figures are said without it.

use bench_common::Failure;
use bench_common::child::{Child, free_address, installed};
use bench_common::machine::{pinned, said_by};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
        installed(self.programs())
    }

    /// What it says of its version.
    pub fn version(self, program: &Path) -> String {
        let word = match self {
            Self::Etcd => "--version",
            Self::Nginx | Self::Httpd => "-v",
        };
        said_by(program, &[word]).unwrap_or_default()
    }
}

/// Starts it and waits until it accepts; `site` is what a web server serves.
pub fn start(
    kind: Kind,
    program: &Path,
    home: &Path,
    site: &Path,
    cores: Option<&[usize]>,
) -> Result<Child, Failure> {
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
    Child::start(kind.name(), command, address, home)
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
