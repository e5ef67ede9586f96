//! Agent and edge as processes: started, adopted, watched.
//!
//! In: the program, the data directory. Out: processes named by descriptors.
//! Holds: a child lives in its own process group and outlives the supervisor.

use crate::{Options, SUCCESSION};
use ipc::{Identity, Watched};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use wire::api::Status;
use wire::edge::FromEdge;
use wire::layout::Layout;
use wire::supervise::Child;

/// One that dies sooner counts as dying at once.
const QUICK: Duration = Duration::from_secs(1);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
const HELLO_MAX: Duration = Duration::from_secs(10);
const HELLO_RETRY: Duration = Duration::from_millis(5);
/// Opening the stores takes most of it.
const AGENT_MAX: Duration = Duration::from_secs(20);
const AGENT_RETRY: Duration = Duration::from_millis(20);
const ANSWER_MAX: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: u64 = 1 << 20;

#[derive(Clone, Debug)]
pub struct Process {
    pub watched: Arc<Watched>,
    pub adopted: bool,
    since: Instant,
}

impl Process {
    pub fn adopt(identity: Identity) -> io::Result<Self> {
        Self::watch(identity, true)
    }

    fn watch(identity: Identity, adopted: bool) -> io::Result<Self> {
        Ok(Self {
            watched: Arc::new(Watched::open(identity)?),
            adopted,
            since: Instant::now(),
        })
    }

    pub fn identity(&self) -> Identity {
        self.watched.identity()
    }

    pub fn died_at_once(&self) -> bool {
        !self.adopted && self.since.elapsed() < QUICK
    }
}

pub fn name(child: Child) -> &'static str {
    match child {
        Child::Agent => "agent",
        Child::Edge => "edge",
    }
}

/// Starts a child. Its end is noticed by descriptor and reaped apart.
pub fn start(options: &Options, mut command: Command, child: Child) -> io::Result<Process> {
    let layout = Layout::new(&options.data_directory);
    let log = File::options()
        .create(true)
        .append(true)
        .open(layout.logs().join(format!("{}.log", name(child))))?;
    let arguments: &[OsString] = match child {
        Child::Agent => &options.agent_arguments,
        Child::Edge => &options.edge_arguments,
    };
    let started = command
        .arg(name(child))
        .arg("--data-dir")
        .arg(&options.data_directory)
        .args(arguments)
        .env_remove(SUCCESSION)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir("/")
        .process_group(0)
        .spawn()?;
    // Even a child that has ended keeps its number until it is reaped.
    Process::watch(Identity::of(started.id())?, false)
}

/// The agent that wrote its identity and still lives. One that has ended keeps
/// its number until it is reaped, and is not taken for a living one.
pub fn find_agent(layout: &Layout) -> Option<Process> {
    let text = std::fs::read(layout.agent_pid()).ok()?;
    let agent = Process::adopt(serde_json::from_slice(&text).ok()?).ok()?;
    (!agent.watched.has_exited()).then_some(agent)
}

/// Whether this edge answers on the edge's socket, within a bound.
pub async fn edge_answers(layout: &Layout, edge: Identity) -> bool {
    let answers = async {
        loop {
            if let Ok(mut connection) = ipc::connect(&layout.edge_socket()).await
                && let Ok(Some((FromEdge::Hello { pid }, _))) = connection.receive().await
                && pid == edge.pid
            {
                return;
            }
            tokio::time::sleep(HELLO_RETRY).await;
        }
    };
    tokio::time::timeout(HELLO_MAX, answers).await.is_ok()
}

/// Whether this agent answers on the admin socket and has found the edge, within
/// a bound.
pub async fn agent_answers(layout: &Layout, agent: Identity) -> bool {
    let answers = async {
        loop {
            if let Some(status) = agent_status(layout).await
                && status.agent_pid == agent.pid
                && status.edge_connected
            {
                return;
            }
            tokio::time::sleep(AGENT_RETRY).await;
        }
    };
    tokio::time::timeout(AGENT_MAX, answers).await.is_ok()
}

async fn agent_status(layout: &Layout) -> Option<Status> {
    let mut stream = UnixStream::connect(layout.admin_socket()).await.ok()?;
    let request = "GET /v1/status HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    let mut stream = stream.take(ANSWER_BYTES_MAX);
    let reading = stream.read_to_end(&mut answer);
    tokio::time::timeout(ANSWER_MAX, reading).await.ok()?.ok()?;
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    serde_json::from_slice(answer.get(body..)?).ok()
}

/// How long to wait before starting what died at once that many times in a row.
pub fn backoff(quick_deaths: u32) -> Duration {
    match quick_deaths.checked_sub(2) {
        None => Duration::ZERO,
        Some(more) => BACKOFF_FIRST
            .saturating_mul(1 << more.min(10))
            .min(BACKOFF_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_death_is_repaired_at_once_and_waits_stay_bounded() {
        assert_eq!(backoff(0), Duration::ZERO);
        assert_eq!(backoff(1), Duration::ZERO);
        assert_eq!(backoff(2), BACKOFF_FIRST);
        assert_eq!(backoff(3), BACKOFF_FIRST * 2);
        assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
    }
}
