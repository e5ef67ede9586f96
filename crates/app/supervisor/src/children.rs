//! Agent and edge as processes: started, adopted, watched.
//!
//! In: the program, the data directory. Out: processes named by descriptors.
//! Holds: a child lives in its own process group and outlives the supervisor.

use crate::Options;
use ipc::{Identity, Watched};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::edge::FromEdge;
use wire::layout::Layout;
use wire::supervise::Child;

/// One that dies sooner counts as dying at once.
const QUICK: Duration = Duration::from_secs(1);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
const HELLO_MAX: Duration = Duration::from_secs(10);
const HELLO_RETRY: Duration = Duration::from_millis(5);

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
pub fn start(options: &Options, child: Child) -> io::Result<Process> {
    let layout = Layout::new(&options.data_directory);
    let log = File::options()
        .create(true)
        .append(true)
        .open(layout.logs().join(format!("{}.log", name(child))))?;
    let arguments: &[OsString] = match child {
        Child::Agent => &options.agent_arguments,
        Child::Edge => &options.edge_arguments,
    };
    let started = Command::new(&options.program)
        .arg(name(child))
        .arg("--data-dir")
        .arg(&options.data_directory)
        .args(arguments)
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
