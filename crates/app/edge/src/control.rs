//! The edge's socket: the agent's snapshots come in, readings and evidence go
//! out; a supervisor takes the listening sockets back.
//!
//! In: [`ToEdge`] from any number of connections. Out: [`FromEdge`].
//! Holds: the path leads to the newest living edge; what cannot be understood
//! ends its connection and nothing else.
//! Never: keeps a connection while the edge leaves, so that the agent finds the
//! next one.

use crate::data_plane::DataPlane;
use crate::evidence::Failed;
use crate::listeners::Listeners;
use ipc::{Connection, IpcError, Listener, SendHalf};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use wire::edge::{FromEdge, ToEdge};

const CONNECTIONS_MAX: usize = 64;
const EVERY: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(50);
/// A peer that takes nothing for so long is left.
const SEND_MAX: Duration = Duration::from_secs(10);
const HELLO_MAX: Duration = Duration::from_secs(2);
/// Longer than a supervisor takes to tell the old edge to go.
const SUCCEEDED_MAX: Duration = Duration::from_secs(20);

pub struct Control {
    pub socket: PathBuf,
    pub plane: Arc<DataPlane>,
    pub listeners: Arc<Listeners>,
    /// Turns true once, when this edge is to leave.
    pub leave: watch::Sender<bool>,
}

impl Control {
    /// Answers until the edge leaves.
    pub async fn run(self: Arc<Self>) {
        let mut leaving = self.leave.subscribe();
        let left = leaving.wait_for(|leaving| *leaving);
        tokio::select! {
            _ = left => {}
            () = self.answer_for_ever() => {}
        }
    }

    async fn answer_for_ever(self: &Arc<Self>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut door = self.bind().await;
        let mut look = tokio::time::interval(EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut succeeded: Option<Instant> = None;
        loop {
            tokio::select! {
                accepted = door.listener.accept() => match accepted {
                    Ok(connection) => self.welcome(connection, &places),
                    Err(error) => {
                        tracing::warn!(%error, "accepting on the edge's socket failed");
                        tokio::time::sleep(RETRY).await;
                    }
                },
                _ = look.tick() => {
                    if identity(&self.socket) == door.identity {
                        succeeded = None;
                    } else if answers(&self.socket).await {
                        let since = *succeeded.get_or_insert_with(Instant::now);
                        if since.elapsed() >= SUCCEEDED_MAX {
                            tracing::warn!("another edge has taken over: this one leaves");
                            self.leave.send_replace(true);
                        }
                    } else {
                        tracing::warn!("nobody answers on the edge's socket: taking it back");
                        succeeded = None;
                        door = self.bind().await;
                    }
                }
            }
        }
    }

    /// Tries until it is possible: a full disk refuses sockets too.
    async fn bind(&self) -> Door {
        let mut said = false;
        loop {
            match Listener::replace(&self.socket) {
                Ok(listener) => {
                    return Door {
                        identity: identity(&self.socket),
                        listener,
                    };
                }
                Err(error) if !said => {
                    tracing::error!(%error, "the edge's socket is not there; requests are served");
                    said = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn welcome(self: &Arc<Self>, connection: Connection, places: &Arc<Semaphore>) {
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            tracing::warn!("too many connections on the edge's socket: one is closed");
            return;
        };
        let control = Arc::clone(self);
        tokio::spawn(async move {
            let mut leaving = control.leave.subscribe();
            let left = leaving.wait_for(|leaving| *leaving);
            tokio::select! {
                _ = left => {}
                ended = control.converse(connection) => {
                    if let Err(error) = ended {
                        tracing::warn!(%error, "a connection on the edge's socket is closed");
                    }
                }
            }
            drop(place);
        });
    }

    async fn converse(self: &Arc<Self>, connection: Connection) -> Result<(), IpcError> {
        let (mut sender, mut receiver) = connection.into_split();
        let pid = std::process::id();
        send(&mut sender, &FromEdge::Hello { pid }).await?;
        // Whoever sends snapshots is the agent.
        let mut evidence: Option<broadcast::Receiver<Failed>> = None;
        let mut taking: Option<JoinHandle<FromEdge>> = None;
        let (in_force, mut news) = self.tell_components();
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                answer = taken(&mut taking) => {
                    send(&mut sender, &answer).await?;
                    in_force.send_replace(());
                }
                Some(word) = news.recv() => send(&mut sender, &word).await?,
                failed = heard(&mut evidence) => {
                    send(&mut sender, &FromEdge::from(failed)).await?;
                }
                _ = every.tick(), if evidence.is_some() => {
                    let readings = self.plane.ingress.readings();
                    send(&mut sender, &FromEdge::Readings(readings)).await?;
                }
                said = receiver.receive::<ToEdge>(), if taking.is_none() => {
                    let Some((message, _)) = said? else { return Ok(()) };
                    match message {
                        ToEdge::Snapshot(snapshot) => {
                            evidence.get_or_insert_with(|| self.plane.witness.listen());
                            let plane = Arc::clone(&self.plane);
                            let take = async move { plane.take(*snapshot).await };
                            taking = Some(tokio::spawn(take));
                        }
                        ToEdge::TakeListeners => self.hand_over(&mut sender).await?,
                        ToEdge::Drain => {
                            self.leave.send_replace(true);
                        }
                    }
                }
            }
        }
    }

    /// Beside the conversation, for loading takes time: after each snapshot,
    /// what became of its components. Ends with the returned halves.
    fn tell_components(self: &Arc<Self>) -> (watch::Sender<()>, mpsc::Receiver<FromEdge>) {
        let in_force = watch::Sender::new(());
        let (words, news) = mpsc::channel(64);
        let mut changed = in_force.subscribe();
        let plane = Arc::clone(&self.plane);
        tokio::spawn(async move {
            let mut told = BTreeMap::new();
            while changed.changed().await.is_ok() {
                plane.load_components(&mut told, &words).await;
            }
        });
        (in_force, news)
    }

    async fn hand_over(&self, sender: &mut SendHalf) -> Result<(), IpcError> {
        let (names, descriptors) = self.listeners.beside();
        let answer = FromEdge::Listeners(names);
        let sending = sender.send_with_descriptors(&answer, &descriptors);
        within(sending).await
    }
}

struct Door {
    listener: Listener,
    identity: Option<(u64, u64)>,
}

/// Which socket a path leads to.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

async fn answers(socket: &Path) -> bool {
    let hello = async {
        let mut connection = ipc::connect(socket).await.ok()?;
        connection.receive::<FromEdge>().await.ok()?
    };
    let heard = tokio::time::timeout(HELLO_MAX, hello).await;
    matches!(heard, Ok(Some((FromEdge::Hello { .. }, _))))
}

async fn send(sender: &mut SendHalf, message: &FromEdge) -> Result<(), IpcError> {
    within(sender.send(message)).await
}

async fn within(sending: impl Future<Output = Result<(), IpcError>>) -> Result<(), IpcError> {
    match tokio::time::timeout(SEND_MAX, sending).await {
        Ok(sent) => sent,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

/// The answer to the snapshot being taken; pending while there is none.
async fn taken(taking: &mut Option<JoinHandle<FromEdge>>) -> FromEdge {
    loop {
        let Some(handle) = taking else {
            return std::future::pending().await;
        };
        let outcome = handle.await;
        *taking = None;
        match outcome {
            Ok(answer) => return answer,
            Err(error) => tracing::error!(%error, "taking a snapshot broke off"),
        }
    }
}

async fn heard(evidence: &mut Option<broadcast::Receiver<Failed>>) -> Failed {
    loop {
        let Some(receiver) = evidence else {
            return std::future::pending().await;
        };
        match receiver.recv().await {
            Ok(failed) => return failed,
            Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "evidence missed"),
            Err(RecvError::Closed) => *evidence = None,
        }
    }
}
