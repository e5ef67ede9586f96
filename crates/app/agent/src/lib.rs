//! The control plane of a node: desired state, loops, drivers' supervision,
//! identity, the admin API.
//!
//! Holds: nothing that serves or runs depends on this process: the edge serves
//! from its last snapshot, replicas belong to their shims; a new agent finds
//! both again.

mod api;
mod apply;
pub mod audit;
mod auth;
pub mod backup;
pub mod buckets;
mod care;
pub mod cluster;
pub mod components;
mod edge_link;
pub mod given;
mod logs;
mod machine;
mod objects;
mod projects;
pub mod secrets;
mod shared;
mod tls;
mod tokens;

pub use api::Document;
pub use machine::unix_now;

use crate::cluster::group::control::Control;
use crate::shared::{Message, Shared};
use drivers::{ProcessDriver, ProcessOptions};
use kernel::{DecisionId, Name};
use node::desired::FIRST_NODE;
use node::driver::{Driver, DriverEvents};
use node::{Node, NodeEvent, NodeStatus, Settings};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::EmbeddedStore;
use tokio::net::UnixListener;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Mutex, broadcast, mpsc, watch};
use wire::cluster::StoreGroup;
use wire::edge::{EdgeReadings, EdgeSnapshot};
use wire::layout::Layout;

/// The supervisor starts us and answers at once, or is not there at all.
const SUPERVISOR_MAX: Duration = Duration::from_secs(2);
/// For changes under way when the agent ends.
const CHANGES_END_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    #[error("cannot use {path}")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("another agent runs on {0}")]
    Running(PathBuf),
    #[error("the store did not open")]
    Store(#[source] store::OpenError),
    #[error("desired state")]
    Control(#[source] cluster::group::control::ControlError),
    #[error("the end of the audit log cannot be read")]
    Audit(#[source] node::store::StoreError),
    #[error("buckets did not open")]
    Buckets(#[source] buckets::BucketsError),
    #[error("this node's place in its cluster")]
    Cluster(#[source] cluster::ClusterError),
    #[error("content did not open")]
    Content(#[source] content::ContentError),
    #[error("the process driver did not start")]
    Driver(#[source] node::driver::DriverError),
    #[error("the decision journal did not open")]
    Journal(#[source] telemetry::TelemetryError),
    #[error("TLS is not available")]
    Tls(#[source] tls::TlsError),
}

impl AgentError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Control(error) => error.hint(),
            Self::Buckets(error) => error.hint(),
            Self::Cluster(error) => error.hint(),
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Some("free space on that disk; the node then starts by itself")
            }
            Self::File { .. } => Some("let this user write the data directory"),
            Self::Content(error) => error.hint(),
            Self::Running(_) => Some("homeostat doctor"),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory.
    pub root: PathBuf,
    /// Ourselves, for the roles that the agent starts.
    pub program: PathBuf,
    /// Where the admin API listens beside its Unix socket.
    pub admin_listen: Option<SocketAddr>,
}

/// Runs the agent until it is told to go down.
pub async fn run(options: Options) -> Result<(), AgentError> {
    let (root, program) = (options.root.as_path(), options.program);
    let layout = Layout::new(root);
    let file = |path: PathBuf| move |source| AgentError::File { path, source };
    let store = layout.control();
    for directory in [
        store.parent().unwrap_or(root).to_owned(),
        layout.run(),
        layout.replica_sockets(),
        layout.replicas(),
        layout.sites(),
    ] {
        std::fs::create_dir_all(&directory).map_err(file(directory.clone()))?;
    }
    let _lock =
        ipc::lock_file(&layout.agent_lock()).map_err(|_| AgentError::Running(root.to_owned()))?;
    ipc::write_pid_file(&layout.agent_pid()).map_err(file(layout.agent_pid()))?;
    let (messages, inbox) = mpsc::channel(4_096);
    let shared = open(&layout, program.clone(), messages.clone()).await?;
    cluster::give::serve_buckets(&shared).map_err(file(layout.buckets_socket()))?;
    cluster::Cluster::start(&shared)
        .await
        .map_err(AgentError::Cluster)?;
    // Bindings to services name the edge's address.
    let _ = tokio::time::timeout(SUPERVISOR_MAX, ask_supervisor(&shared)).await;
    let node = Node::new(machine::now().0, settings(&shared, program)?);
    let mut adopted = shared.driver.adopt().await.map_err(AgentError::Driver)?;
    adopted.extend(shared.components.adopt(&layout));
    tracing::info!(replicas = adopted.len(), "adopted");
    let _ = messages
        .send(Message::Node(NodeEvent::Adopted(adopted)))
        .await;
    tokio::spawn(cluster::content::in_use::run(Arc::clone(&shared)));
    tokio::spawn(cluster::content::run(Arc::clone(&shared)));
    tokio::spawn(cluster::content::scrub::run(Arc::clone(&shared)));
    tokio::spawn(machine::follow_store(Arc::clone(&shared)));
    tokio::spawn(edge_link::run(Arc::clone(&shared), messages));
    tokio::spawn(care::seal::run(Arc::clone(&shared)));
    tokio::spawn(care::run(Arc::clone(&shared)));
    // Before the socket: whoever is answered there is told of the port too.
    if let Some(address) = options.admin_listen {
        api::port::open(&shared, address).await;
    }
    let listener = bind_private(&layout.admin_socket()).map_err(file(layout.admin_socket()))?;
    let router = api::router(Arc::clone(&shared), api::Door::Owner);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the admin API ended");
        }
    });
    tracing::info!(pid = std::process::id(), "agent up");
    tokio::spawn(api::upgrades::tell_outcome(Arc::clone(&shared)));
    // After `down` the machine's task ends, and the agent stays idle until the
    // supervisor ends it: one that left by itself would be started again.
    tokio::spawn(machine::run(node, Arc::clone(&shared), inbox));
    let end = tokio::select! {
        end = terminated() => end,
        () = shared.cluster.generation.restart.notified() => {
            tracing::warn!("ends, to start anew");
            End::Replaced
        }
    };
    close(&shared, end).await;
    Ok(())
}

/// Soon, where another agent comes: the node is back before the others do without it.
/// What was done is in the audit log first.
async fn close(shared: &Shared, end: End) {
    shared.cluster.leave(end == End::Down).await;
    let _no_more = tokio::time::timeout(CHANGES_END_MAX, shared.changes.write()).await;
    tokio::join!(
        shared.buckets.store().shutdown(),
        shared.control.shutdown(),
        shared.store.shutdown(),
    );
}

/// This node's own store, what the cluster wishes, and the member of the buckets'
/// group.
async fn open_stores(
    layout: &Layout,
    own: &cluster::Own,
    network: &cluster::group::Network,
) -> Result<(EmbeddedStore, Control, Arc<buckets::BucketServer>), AgentError> {
    if own.holder.is_some() && !layout.store().exists() {
        // Of a node that kept what it follows where members keep theirs.
        let _ = std::fs::rename(layout.control(), layout.store());
        let _ = std::fs::remove_file(layout.buckets());
    }
    let is_first = {
        let (layout, own) = (layout.clone(), own.clone());
        let prepared =
            tokio::task::spawn_blocking(move || cluster::group::generation::prepare(&layout, &own));
        let prepared = prepared
            .await
            .map_err(|error| AgentError::Store(store::OpenError::Raft(error.to_string())))?;
        prepared.map_err(AgentError::Store)?
    };
    let store = EmbeddedStore::open(store::Options {
        path: layout.store(),
        node: FIRST_NODE,
        group: store::Group::Alone,
    });
    let store = store.await.map_err(AgentError::Store)?;
    let key = cluster::Cluster::key(layout).map_err(AgentError::Cluster)?;
    let control = Control::open(layout, (own, key), &store, network, is_first).await;
    let control = control.map_err(AgentError::Control)?;
    if let Some(control) = control.embedded() {
        // Of what a change writes, the audit log's entry is first.
        control.shares_disk_with(&store);
        audit::carry_over(control, &store)
            .await
            .map_err(AgentError::Audit)?;
    }
    let group = cluster::group::kept_with(is_first, network, StoreGroup::Buckets);
    let buckets = buckets::BucketServer::open(layout, own.id, group).await;
    let buckets = Arc::new(buckets.map_err(AgentError::Buckets)?);
    buckets.store().shares_disk_with(&store);
    Ok((store, control, buckets))
}

async fn open(
    layout: &Layout,
    program: PathBuf,
    messages: mpsc::Sender<Message>,
) -> Result<Arc<Shared>, AgentError> {
    let own = cluster::Cluster::who(layout, &node_name()).map_err(AgentError::Cluster)?;
    let network = cluster::group::Network::default();
    let (store, control, buckets) = open_stores(layout, &own, &network).await?;
    let audit = audit::Audit::open(layout.audit(), &store)
        .await
        .map_err(AgentError::Audit)?;
    let cluster = cluster::Cluster::open(layout, own, &store, &control, network).await;
    let cluster = cluster.map_err(AgentError::Cluster)?;
    let settings = cluster::content::Settings::from_environment();
    let holdings = Arc::new(cluster::content::Holdings::new(settings));
    let told = Arc::clone(&holdings);
    let content = content::Content::open(layout.content())
        .map_err(AgentError::Content)?
        .reporting_to(move |event| told.on_event(event));
    let fetching = cluster::content::Settings::fetching(&layout.content());
    let certificates = cluster::Certificates::open(&layout.tls(), cluster.is_entrusted())
        .map_err(AgentError::Tls)?;
    let given = given::Given::open(&layout.tls()).map_err(AgentError::Tls)?;
    let journal = telemetry::Journal::open(&layout.journal(), telemetry::JournalOptions::default())
        .map_err(AgentError::Journal)?;
    let events = messages.clone();
    let events: DriverEvents = Arc::new(move |event| {
        // In order, as a start and an exit must stay; only where thousands wait
        // already may one come late.
        let message = Message::Node(NodeEvent::Driver(event));
        if let Err(TrySendError::Full(message)) = events.try_send(message) {
            let events = events.clone();
            tokio::spawn(async move { events.send(message).await });
        }
    });
    let options = ProcessOptions {
        directory: layout.replicas(),
        run_directory: layout.replica_sockets(),
        shim_command: vec![program.clone().into(), "shim".into()],
        cgroup_name: cgroup_name(&layout.root),
    };
    let driver = ProcessDriver::new(options, events).map_err(AgentError::Driver)?;
    Ok(Arc::new(Shared {
        layout: layout.clone(),
        store,
        control,
        buckets,
        content_server: content::Server::new(content.clone(), content::ServeOptions::default()),
        fetcher: content::Fetcher::new(content.clone(), fetching),
        holdings,
        content,
        cluster,
        driver,
        components: components::Components::new(program),
        links: apply::links::Links::open(layout),
        certificates,
        given,
        journal,
        audit,
        alerts: cluster::zones::alerts::Alerts::default(),
        status: watch::Sender::new(Arc::new(NodeStatus::default())),
        snapshot: watch::Sender::new(Arc::new(EdgeSnapshot::default())),
        readings: watch::Sender::new(EdgeReadings::default()),
        edge_connected: watch::Sender::new(false),
        edge_applied: watch::Sender::new(0),
        listeners: watch::Sender::new((None, None)),
        admin_port: watch::Sender::new(None),
        rollouts: watch::Sender::default(),
        settlements: broadcast::Sender::new(1_024),
        messages,
        applying: Mutex::new(()),
        changes: Arc::default(),
    }))
}

fn settings(shared: &Shared, program: PathBuf) -> Result<Settings, AgentError> {
    let last =
        telemetry::last_decision_id(&shared.layout.journal()).map_err(AgentError::Journal)?;
    let http = shared.listeners.borrow().0;
    Ok(Settings {
        node: shared.cluster.own.id,
        layout: shared.layout.clone(),
        program,
        base_url: http.map_or_else(
            || Settings::default().base_url,
            |address| format!("http://{address}"),
        ),
        holding: shared
            .holdings
            .settings
            .parameters(&shared.layout.content()),
        called: shared.cluster.name().to_string(),
        first_decision: DecisionId(last.map_or(1, |last| last.0 + 1)),
        ..Settings::default()
    })
}

/// Of a first node: the machine's, as far as it can be a name.
pub fn node_name() -> Name {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy().to_lowercase();
    let label = host.split('.').next().unwrap_or_default();
    let letters = label.chars().take(63);
    let letters = letters.map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
    let text: String = letters.collect();
    let named = Name::new(text.trim_matches('-'));
    named.unwrap_or_else(|_| Name::new("node").expect("a name"))
}

/// Two nodes on one machine must not share control groups.
fn cgroup_name(root: &Path) -> String {
    format!("{:016x}", kernel::fnv1a(root.to_string_lossy().bytes()))
}

fn bind_private(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    // The agent's lock is held: a socket left here is nobody's.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Learns where the edge listens.
async fn ask_supervisor(shared: &Shared) {
    loop {
        if let Ok(status) = api::upgrades::status(shared).await {
            shared.listeners.send_replace((status.http, status.https));
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The node goes down.
    Down,
    /// Another agent takes this one's place at once.
    Replaced,
}

async fn terminated() -> End {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [SignalKind::terminate(), SignalKind::user_defined1()];
    let [down, replaced] = kinds.map(signal);
    match (down, replaced) {
        (Ok(mut down), Ok(mut replaced)) => tokio::select! {
            _ = down.recv() => End::Down,
            _ = replaced.recv() => End::Replaced,
        },
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "cannot listen for the signals that end it");
            std::future::pending().await
        }
    }
}
