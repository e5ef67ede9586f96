//! The data plane of a node: serves sites and services from the last snapshot,
//! whether or not an agent is there.
//!
//! In: listening sockets from the supervisor, snapshots from disk and agent,
//! requests of clients and other nodes' edges. Out: answers, access rows, readings, evidence.
//! Holds: serving depends on no other process; a new edge on the same sockets
//! serves before the old one leaves.
//! Never: decides what should run, or stops serving because of the disk.

mod cache;
mod components;
mod control;
mod data_plane;
mod discovery;
mod documents;
mod error;
mod evidence;
mod listeners;
mod outputs;
mod peers;
mod rows;
mod saved;

pub use error::EdgeError;

use crate::control::Control;
use crate::data_plane::DataPlane;
use crate::listeners::Listeners;
use crate::peers::Peers;
use crate::rows::Rows;
use ipc::Asked;
use rustix::process::{Pid, Resource, Rlimit, getppid, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::sync::watch;
use wire::layout::Layout;
use wire::supervise::ListenerName;

/// Shorter than a supervisor waits before it kills.
const DRAIN_MAX: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_secs(1);
const PARENT_LOOK: Duration = Duration::from_millis(200);
/// For reads of files that are still going on at the end.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Serves until it is told to leave (SIGTERM, SIGINT, or `Drain` on its
/// socket); then finishes what is in flight, within 30 s. Logs to the tracing
/// subscriber that the caller has set.
///
/// * `peer_listen`: where other nodes' edges find this one (UDP); used once a
///   snapshot says who this edge is.
pub fn run(data_directory: &Path, peer_listen: SocketAddr) -> ExitCode {
    match serve(data_directory, peer_listen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(
                error = kernel::error_chain(&error),
                hint = error.hint(),
                "the edge ends"
            );
            ExitCode::FAILURE
        }
    }
}

/// As [`run`], for callers that report errors themselves.
pub fn serve(data_directory: &Path, peer_listen: SocketAddr) -> Result<(), EdgeError> {
    let root = std::path::absolute(data_directory).map_err(EdgeError::Directory)?;
    let layout = Layout::new(root);
    raise_descriptor_limit();
    let content = content::Content::open(layout.content())?;
    let rows = Arc::new(Rows::new(layout.access_rows()));
    let peers = Arc::new(Peers::new(peer_listen));
    let mut plane = DataPlane::new(content, Arc::clone(&rows), peers, &layout);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = Builder::new_multi_thread()
        .worker_threads(cores)
        .thread_name("edge")
        .enable_all()
        .build()
        .map_err(EdgeError::Runtime)?;
    let outcome = runtime.block_on(async {
        let asked = Asked::listen().map_err(EdgeError::Signals)?;
        plane.restore();
        work(&layout, Arc::new(plane), asked).await
    });
    runtime.shutdown_timeout(FAREWELL_MAX);
    rows.close();
    outcome
}

async fn work(layout: &Layout, plane: Arc<DataPlane>, mut asked: Asked) -> Result<(), EdgeError> {
    let supervisor = layout.supervisor_socket();
    let listeners = tokio::select! {
        listeners = Listeners::take(&supervisor) => Arc::new(listeners),
        () = asked.received() => return Ok(()),
        () = parent_gone() => return Err(EdgeError::Orphan),
    };
    let serving = listeners.for_serving().map_err(EdgeError::Listeners)?;
    for (name, listener) in serving {
        let tls = name == ListenerName::Https;
        tokio::spawn(Arc::clone(&plane.ingress).serve(listener, tls));
    }
    let leave = watch::Sender::new(false);
    let mut leaving = leave.subscribe();
    let control = Arc::new(Control {
        socket: layout.edge_socket(),
        plane: Arc::clone(&plane),
        listeners,
        leave,
    });
    let controlling = tokio::spawn(Arc::clone(&control).run());
    let meeting = tokio::spawn(Arc::clone(&plane.peers).run(Arc::clone(&plane.ingress)));
    let housekeeping = tokio::spawn(keep_house(Arc::clone(&plane)));
    tracing::info!(pid = std::process::id(), "edge up");
    tokio::select! {
        () = asked.received() => {}
        _ = leaving.wait_for(|leaving| *leaving) => {}
    }
    tracing::info!("draining");
    control.leave.send_replace(true);
    // The next edge listens where this one did.
    plane.discovery.leave();
    let _ = controlling.await;
    drop(control);
    tokio::join!(
        plane.ingress.drain(DRAIN_MAX),
        plane.peers.leave(&plane.ingress, &meeting)
    );
    housekeeping.abort();
    tracing::info!("drained");
    Ok(())
}

/// What is looked at each second, away from requests.
async fn keep_house(plane: Arc<DataPlane>) {
    loop {
        tokio::time::sleep(EVERY).await;
        plane.save_again().await;
        let rows = Arc::clone(&plane.rows);
        let _ = tokio::task::spawn_blocking(move || rows.check()).await;
    }
}

/// An edge without sockets is of no use to a later supervisor, which starts
/// its own.
async fn parent_gone() {
    let parent = getppid().map(Pid::as_raw_nonzero);
    while getppid().map(Pid::as_raw_nonzero) == parent {
        tokio::time::sleep(PARENT_LOOK).await;
    }
}

/// Each connection needs a descriptor or two; the usual soft limit is 1,024.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, limit = limit.current, "the limit of open files stays");
    }
}
