//! Our side: the real program, started by `homeostat up` in a scratch
//! directory, ended by `homeostat down`.
//!
//! In: the built program, a manifest. Out: addresses, process ids, the admin API.
//! Holds: what still runs in its directory after `down` is killed by its id.

use crate::Failure;
use crate::child::free_address;
use crate::machine::{boot_time, mentioning, pinned, with_descendants};
use client::Client;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use wire::api::{Object, Status};
use wire::layout::Layout;
use wire::shim::ShimState;

pub const PATIENCE: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(1);

pub struct Node {
    pub layout: Layout,
    pub http: SocketAddr,
    https: SocketAddr,
    program: PathBuf,
    manifest: PathBuf,
    runtime: tokio::runtime::Runtime,
    client: Client,
    /// Empty: all of them.
    cores: Vec<usize>,
}

impl Node {
    /// Of a directory and free ports; nothing runs yet. On these cores only, or
    /// on all.
    pub fn new(
        program: &Path,
        home: &Path,
        manifest: PathBuf,
        cores: Option<&[usize]>,
    ) -> Result<Self, Failure> {
        let layout = Layout::new(home.join("d"));
        if !Layout::sockets_fit(&layout.root) {
            return Err(format!("{} is too long for sockets", layout.root.display()).into());
        }
        Ok(Self {
            client: Client::new(layout.admin_socket()),
            layout,
            http: free_address()?,
            https: free_address()?,
            program: program.to_owned(),
            manifest,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
            cores: cores.map(<[usize]>::to_vec).unwrap_or_default(),
        })
    }

    /// One of its commands, with what it says on standard output thrown away.
    pub fn command(&self, word: &str) -> Command {
        let mut command = if self.cores.is_empty() {
            Command::new(&self.program)
        } else {
            pinned(&self.cores, &self.program)
        };
        command
            .arg(word)
            .env("HOMEOSTAT_DATA_DIR", &self.layout.root)
            .env("HOMEOSTAT_HTTP", self.http.to_string())
            .env("HOMEOSTAT_HTTPS", self.https.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Starts `up` without waiting for it.
    pub fn begin_up(&self) -> Result<std::process::Child, Failure> {
        Ok(self.command("up").arg(&self.manifest).spawn()?)
    }

    /// Runs `up` to its end: all replicas are ready then.
    pub fn up(&self) -> Result<(), Failure> {
        let output = self.begin_up()?.wait_with_output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("`homeostat up` ended with {}: {said}", output.status).into())
    }

    pub fn down(&self) -> Result<(), Failure> {
        let output = self.command("down").output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("`homeostat down` ended with {}: {said}", output.status).into())
    }

    pub fn status(&self) -> Option<Status> {
        let answer = self.runtime.block_on(self.client.get("/v1/status"));
        answer.ok()
    }

    /// Process ids of ready replicas by name; none while one is not ready or
    /// the agent does not answer.
    pub fn ready(&self) -> Option<BTreeMap<String, u64>> {
        let answer = self
            .runtime
            .block_on(self.client.get("/v1/objects/replica"));
        let replicas: Vec<Object> = answer.ok()?;
        let ready = replicas.into_iter().map(|replica| {
            let pid = replica.observed["pid"].as_u64()?;
            (replica.state == "ready").then_some((replica.name, pid))
        });
        ready
            .collect::<Option<_>>()
            .filter(|found: &BTreeMap<_, _>| !found.is_empty())
    }

    /// What the shim recorded of each replica: its process and, on the
    /// boot-time clock in nanoseconds, since when it runs.
    pub fn running(&self) -> BTreeMap<PathBuf, (u32, u64)> {
        let entries = fs::read_dir(self.layout.replicas()).into_iter().flatten();
        entries
            .flatten()
            .filter_map(|entry| {
                let path = entry.path().join("state.json");
                let (pid, since) = recorded(&path)?;
                Some((path, (pid, since)))
            })
            .collect()
    }

    /// The process that plays this role.
    pub fn role(&self, role: &str) -> Result<u32, Failure> {
        let found = mentioning(&self.layout.root)
            .into_iter()
            .find(|(_, words)| words.get(1).is_some_and(|word| word == role));
        let (pid, _) = found.ok_or_else(|| format!("no process is the {role}"))?;
        Ok(pid)
    }

    /// Every process of the node: supervisor, agent, edge, shims, replicas.
    pub fn processes(&self) -> Vec<u32> {
        let named = mentioning(&self.layout.root);
        let roots: Vec<u32> = named.into_iter().map(|(pid, _)| pid).collect();
        with_descendants(&roots).into_iter().collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(why) = self.down() {
            crate::say(&format!("a node did not go down: {why}"));
        }
        for pid in mentioning(&self.layout.root)
            .into_iter()
            .map(|(pid, _)| pid)
        {
            let _ = kill(pid);
        }
    }
}

/// Process and start of a replica that runs.
pub fn recorded(path: &Path) -> Option<(u32, u64)> {
    let bytes = fs::read(path).ok()?;
    let record: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    match serde_json::from_value(record["state"].clone()).ok()? {
        ShimState::Running { pid, since, .. } => Some((pid, since.0)),
        _ => None,
    }
}

/// Kills a process; returns the moment before, on the boot-time clock.
pub fn kill(pid: u32) -> Result<u64, Failure> {
    let pid = Pid::from_raw(i32::try_from(pid)?).ok_or("no process has the id 0")?;
    let at = boot_time();
    kill_process(pid, Signal::KILL)?;
    Ok(at)
}

/// Waits for a condition.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> Result<T, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(format!("{what} did not come within {} s", PATIENCE.as_secs()).into());
        }
        std::thread::sleep(LOOK);
    }
}
