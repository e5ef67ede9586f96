//! The small process that holds a node's listening sockets and restarts what
//! dies.
//!
//! In: options, signals, requests on its socket. Out: a living agent and edge.
//! Holds: one supervisor per data directory; when it is killed, agent and edge
//! live on, and its successor adopts them and takes the sockets back.
//! Never: reads desired state, or carries a request.

mod children;
mod directory;
mod error;
mod listeners;
mod program;
mod slot;
mod socket;
mod upgrade;

pub use error::SupervisorError;
pub use upgrade::{SUCCESSION, Succession, not_become};

use children::name;
use ipc::{Connection, Identity, Listener};
use listeners::Listeners;
use program::Program;
use rustix::process::{Signal, WaitOptions};
use slot::Slot;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use upgrade::{Checked, Upgrade};
use wire::layout::Layout;
use wire::supervise::release::Release;
use wire::supervise::{Child, FromSupervisor, ListenerName, SupervisorStatus};

const EVENTS_MAX: usize = 256;
/// What ignores its signal for so long is killed when the node goes down.
const SHUTDOWN_MAX: Duration = Duration::from_secs(10);
const FAREWELL_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct Options {
    pub data_directory: PathBuf,
    pub http: SocketAddr,
    pub https: SocketAddr,
    /// Started as `PROGRAM agent --data-dir DIR` and `PROGRAM edge --data-dir DIR`.
    pub program: PathBuf,
    pub agent_arguments: Vec<OsString>,
    pub edge_arguments: Vec<OsString>,
    /// What `program` is.
    pub release: Release,
    /// Of a supervisor that another program's became.
    pub succession: Option<Succession>,
}

/// How a supervisor ends that did not fail.
#[derive(Clone, Debug)]
pub enum Ended {
    Down,
    /// To be replaced in its process by that program's supervisor, which is told of
    /// the succession by [`SUCCESSION`].
    Becomes(PathBuf, Succession),
}

/// What the one loop hears.
pub(crate) enum Event {
    Exited(Child, Identity),
    Due(Child),
    /// Whether a new edge answers on its socket.
    Answers(Identity, bool),
    Restart(Child, oneshot::Sender<FromSupervisor>),
    Inspect(Option<PathBuf>, oneshot::Sender<FromSupervisor>),
    Upgrade(Option<PathBuf>, oneshot::Sender<FromSupervisor>),
    /// What a program said of itself that is to be gone over to.
    Checked(Checked, oneshot::Sender<FromSupervisor>),
    /// A new edge took the old one's place, or why it did not.
    EdgeExchanged(Option<String>),
    /// Whether a new agent answers on its socket.
    AgentAnswers(Identity, bool),
    Shutdown(Option<Connection>),
}

/// Runs until it is told to go down, by signal or on its socket, or to become
/// another program. Needs a Tokio runtime with time and I/O, and reaps every child
/// of its process.
pub async fn run(mut options: Options) -> Result<Ended, SupervisorError> {
    options.data_directory = std::path::absolute(&options.data_directory).map_err(|source| {
        SupervisorError::Directory {
            path: options.data_directory.clone(),
            source,
        }
    })?;
    let layout = Layout::new(&options.data_directory);
    let lock = directory::prepare(&layout).await?;
    let mut signals = Heard::listen().map_err(SupervisorError::Signals)?;
    // Children of the program that this process was before.
    reap();
    let mut living = listeners::find_edge(&layout).await;
    let wanted = [
        (ListenerName::Http, options.http),
        (ListenerName::Https, options.https),
    ];
    let (listeners, lacks) = listeners::open(&layout, wanted, living.as_mut()).await?;
    let (events, inbox) = mpsc::channel(EVENTS_MAX);
    let mut supervisor = Supervisor::new(options, &listeners, events);
    let desk = socket::Desk {
        listeners: Arc::new(listeners),
        status: supervisor.status.subscribe(),
        events: supervisor.events.clone(),
    };
    let listener = Listener::bind(&layout.supervisor_socket()).await?;
    supervisor.adopt(living.map(|edge| edge.identity), lacks);
    // Whoever is answered finds agent and edge in place.
    tokio::spawn(socket::serve(listener, desk));
    let end = supervisor.watch_over(inbox, &mut signals).await;
    let ended = match end {
        End::Becomes(program) => {
            let leaving = supervisor.edge.leaving();
            Ended::Becomes(program, Succession { leaving })
        }
        End::Down(asked) => {
            supervisor.shut_down(asked).await;
            Ended::Down
        }
    };
    drop(lock);
    Ok(ended)
}

enum End {
    /// Who awaits an answer.
    Down(Option<Connection>),
    Becomes(PathBuf),
}

/// The signals that end us, and the one that tells of ended children.
struct Heard {
    terminate: Signals,
    interrupt: Signals,
    child: Signals,
}

impl Heard {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            child: signal(SignalKind::child())?,
        })
    }
}

struct Supervisor {
    options: Options,
    layout: Layout,
    program: Program,
    agent: Slot,
    edge: Slot,
    upgrade: Option<Upgrade>,
    status: watch::Sender<SupervisorStatus>,
    events: mpsc::Sender<Event>,
}

impl Supervisor {
    fn new(options: Options, listeners: &Listeners, events: mpsc::Sender<Event>) -> Self {
        let status = SupervisorStatus {
            pid: std::process::id(),
            version: options.release.version.clone(),
            http: listeners.address(ListenerName::Http),
            https: listeners.address(ListenerName::Https),
            agent: None,
            edge: None,
            upgrade: None,
        };
        tracing::info!(http = ?status.http, https = ?status.https, "listening");
        Self {
            layout: Layout::new(&options.data_directory),
            program: Program::hold(&options.program),
            options,
            agent: Slot::new(Child::Agent),
            edge: Slot::new(Child::Edge),
            upgrade: None,
            status: watch::Sender::new(status),
            events,
        }
    }

    /// Takes over what lives and starts what does not.
    fn adopt(&mut self, edge: Option<Identity>, lacks_a_listener: bool) {
        if let Some(edge) = edge {
            self.edge.adopt(edge, &self.events);
        }
        self.start(Child::Edge);
        if edge.is_some() && lacks_a_listener {
            tracing::info!("the adopted edge has other listeners: a new one replaces it");
            self.restart_edge(self.program.command(), oneshot::channel().0);
        }
        self.start(Child::Agent);
        self.take_upgrade_over();
        self.publish();
    }

    /// Until something asks us to go down, or edge and agent are of another program.
    async fn watch_over(&mut self, mut inbox: mpsc::Receiver<Event>, heard: &mut Heard) -> End {
        loop {
            tokio::select! {
                _ = heard.terminate.recv() => return End::Down(None),
                _ = heard.interrupt.recv() => return End::Down(None),
                _ = heard.child.recv() => reap(),
                event = inbox.recv() => match event {
                    None => return End::Down(None),
                    Some(Event::Shutdown(asked)) => return End::Down(asked),
                    Some(event) => self.handle(event),
                },
            }
            if let Some(program) = self.becomes() {
                return End::Becomes(program.to_owned());
            }
            self.publish();
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Exited(child, identity) => {
                if child == Child::Agent {
                    self.agent_ended(Some(identity));
                }
                if let Some(wait) = self.slot(child).exited(identity) {
                    self.start_after(child, wait);
                }
            }
            Event::Due(child) => self.start(child),
            Event::Answers(identity, answers) => self.edge.answered(identity, answers),
            Event::Restart(Child::Agent, reply) => self.agent.end_for_restart(reply),
            Event::Restart(Child::Edge, reply) => {
                self.restart_edge(self.program(Child::Edge).command(), reply);
            }
            Event::Inspect(program, reply) => self.inspect(program, reply),
            Event::Upgrade(program, reply) => self.begin_upgrade(program, reply),
            Event::Checked(checked, reply) => self.checked(checked, reply),
            Event::EdgeExchanged(failed) => self.edge_exchanged(failed),
            Event::AgentAnswers(identity, answers) => self.agent_answers(identity, answers),
            Event::Shutdown(_) => {}
        }
    }

    fn slot(&mut self, child: Child) -> &mut Slot {
        match child {
            Child::Agent => &mut self.agent,
            Child::Edge => &mut self.edge,
        }
    }

    fn start_after(&mut self, child: Child, wait: Duration) {
        if wait.is_zero() {
            return self.start(child);
        }
        tracing::warn!(child = name(child), ?wait, "dies at once: waits");
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = events.send(Event::Due(child)).await;
        });
    }

    fn start(&mut self, child: Child) {
        if self.slot(child).is_filled() {
            return;
        }
        if child == Child::Agent
            && let Some(agent) = children::find_agent(&self.layout)
        {
            let events = self.events.clone();
            return self.agent.put(agent, &events);
        }
        match children::start(&self.options, self.program(child).command(), child) {
            Ok(process) => {
                let events = self.events.clone();
                let identity = process.identity();
                self.slot(child).put(process, &events);
                if child == Child::Agent {
                    self.agent_started(identity);
                }
            }
            Err(error) => {
                tracing::error!(child = name(child), %error, "cannot be started");
                if child == Child::Agent {
                    self.agent_ended(None);
                }
                let wait = self.slot(child).not_started();
                self.start_after(child, wait);
            }
        }
    }

    /// Starts a successor; the old one drains once the new one answers.
    fn restart_edge(&mut self, command: Command, reply: oneshot::Sender<FromSupervisor>) {
        if self.edge.has_successor() {
            let why = "a new edge is being started already".to_owned();
            let _ = reply.send(FromSupervisor::Failed { why });
            return;
        }
        match children::start(&self.options, command, Child::Edge) {
            Ok(process) => {
                let identity = process.identity();
                self.edge.put_successor(process, reply, &self.events);
                let (layout, events) = (self.layout.clone(), self.events.clone());
                tokio::spawn(async move {
                    let answers = children::edge_answers(&layout, identity).await;
                    let _ = events.send(Event::Answers(identity, answers)).await;
                });
            }
            Err(error) => {
                let why = format!("cannot start a new edge: {error}");
                let _ = reply.send(FromSupervisor::Failed { why });
            }
        }
    }

    fn publish(&self) {
        let (agent, edge) = (self.agent.status(), self.edge.status());
        self.status.send_if_modified(|status| {
            let changed = status.agent != agent || status.edge != edge;
            status.agent = agent;
            status.edge = edge;
            changed
        });
    }

    async fn shut_down(&mut self, asked: Option<Connection>) {
        tracing::info!("going down");
        let mut processes = self.agent.processes();
        processes.extend(self.edge.processes());
        for process in &processes {
            // One that has ended already cannot be told.
            let _ = process.watched.signal(Signal::TERM);
        }
        let all = async {
            for process in &processes {
                let _ = process.watched.exited().await;
            }
        };
        if tokio::time::timeout(SHUTDOWN_MAX, all).await.is_err() {
            tracing::warn!("something did not end in time and is killed");
            for process in &processes {
                let _ = process.watched.signal(Signal::KILL);
                let _ = tokio::time::timeout(FAREWELL_MAX, process.watched.exited()).await;
            }
        }
        reap();
        for path in [
            self.layout.supervisor_socket(),
            self.layout.edge_socket(),
            self.layout.agent_pid(),
        ] {
            let _ = std::fs::remove_file(path);
        }
        if let Some(mut connection) = asked {
            let told = connection.send(&FromSupervisor::Done);
            let _ = tokio::time::timeout(FAREWELL_MAX, told).await;
        }
    }
}

/// Ended children, and orphans where we are a container's first process.
fn reap() {
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        tracing::debug!(pid = pid.as_raw_nonzero(), ?status, "reaped");
    }
}
