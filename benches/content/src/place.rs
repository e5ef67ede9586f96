//! Where it is measured: four nodes of a lab, three of them behind a line of
//! 100 Mbit/s, each 20 ms from every other.
//!
//! Holds: the lines are the kernel's own token buckets, on what leaves a holder;
//! the lab's relay gives the distance. All is gone with this process.

use crate::Lengths;
use crate::rsync::Peer;
use bench_common::{Failure, beside, conditions};
use lab::{Lab, Options};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use wire::lab::LabKind;

pub const HOLDERS: usize = 3;
/// The lab's device in each node.
const DEVICE: &str = "wan0";
const BLOCK_BYTES: usize = 1 << 20;
const SHAPE: &str = r#"
nodes = 4
zones = ["/a", "/b", "/c", "/d"]
round_trips = [
    ["/a", "/b", "20ms"], ["/a", "/c", "20ms"], ["/a", "/d", "20ms"],
    ["/b", "/c", "20ms"], ["/b", "/d", "20ms"], ["/c", "/d", "20ms"],
]
disk = "4 GiB"
"#;

pub struct Place {
    pub lab: Lab,
    pub program: PathBuf,
    pub lengths: Lengths,
    scratch: tempfile::TempDir,
}

impl Place {
    pub fn new(lengths: Lengths) -> Result<Self, Failure> {
        let program = beside("homeostat")?;
        let mut options = Options::new(&program).read(SHAPE)?;
        options.bound = true;
        let scratch = tempfile::Builder::new().prefix("bench-content").tempdir()?;
        let lab = Lab::start(options)?;
        if lab.plan().kind != LabKind::Namespaces {
            return Err("it needs root, for namespaces of the network".into());
        }
        let place = Self {
            lab,
            program,
            lengths,
            scratch,
        };
        place.write_site()?;
        Ok(place)
    }

    /// For what the peer keeps.
    pub fn home(&self) -> &Path {
        self.scratch.path()
    }

    /// A project of one site.
    pub fn project(&self) -> PathBuf {
        self.home().join("project")
    }

    pub fn site(&self) -> PathBuf {
        self.project().join("site")
    }

    /// One file of bytes that nothing compresses, always the same.
    fn write_site(&self) -> Result<(), Failure> {
        fs::create_dir_all(self.site())?;
        let manifest = "[project]\nname = \"bench\"\n\n[site.front]\nroot = \"site\"\nhosts = [\"localhost\"]\n";
        fs::write(self.project().join("homeostat.toml"), manifest)?;
        let mut random = fastrand::Rng::with_seed(7);
        let mut file = fs::File::create(self.site().join("film.bin"))?;
        let mut left = self.lengths.bytes;
        let mut block = vec![0; BLOCK_BYTES];
        while left > 0 {
            random.fill(&mut block);
            let count = usize::try_from(left)
                .unwrap_or(BLOCK_BYTES)
                .min(BLOCK_BYTES);
            file.write_all(&block[..count])?;
            left -= count as u64;
        }
        Ok(file.sync_all()?)
    }

    /// A command in a node, from 0.
    pub fn command(&self, node: usize, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.lab.command(self.lab.name(node), program);
        command.stdin(Stdio::null());
        command
    }

    /// From now on each holder is behind its line.
    pub fn narrow(&self) -> Result<(), Failure> {
        for holder in 0..HOLDERS {
            let mut command = self.command(holder, "tc");
            command.args(["qdisc", "add", "dev", DEVICE, "root", "tbf"]);
            command.args(["rate", "100mbit", "burst", "32kb", "latency", "50ms"]);
            finish(command)?;
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    pub fn rate(&self, seconds: f64) -> f64 {
        self.lengths.bytes as f64 * 8.0 / seconds / 1e6
    }

    pub fn conditions(&self, peer: Option<&Peer>) -> Vec<conditions::Line> {
        let mut lines = conditions::host(&self.program);
        lines.push((
            "what is fetched",
            format!("one file of {} bytes, incompressible", self.lengths.bytes),
        ));
        lines.push((
            "links",
            format!(
                "{HOLDERS} holders, each behind 100 Mbit/s (tbf, burst 32 kB, 50 ms of queue) on its own network namespace, 20 ms there and back (the lab's relay); the receiver's own line is not limited"
            ),
        ));
        lines.push((
            "ours",
            "the real program: a node that is started without content, from its `up` until its site is whole and durable; QUIC, three holders".to_owned(),
        ));
        let peer = peer.map_or_else(
            || "missing: apt-get install rsync stunnel4".to_owned(),
            |peer| {
                format!(
                    "{}, whole file, from one holder, over the same link",
                    peer.versions
                )
            },
        );
        lines.push(("peer", peer));
        lines
    }
}

/// What a command said; its failure in its own words.
pub fn finish(mut command: Command) -> Result<String, Failure> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{command:?}: {said}").into())
}
