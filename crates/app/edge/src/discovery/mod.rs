//! Where services of this node find each other: an address for each that may be
//! called, and names for them.
//!
//! In: callers, from the snapshot in force. Out: connections, for the ingress to
//! carry; answers to questions for names.
//! Holds: what a snapshot still has goes on undisturbed; what it has no more is
//! broken off. An address that another edge of this node still has is waited for.
//! Never: holds back a snapshot.

mod answer;
mod resolver;

use ingress::Ingress;
use kernel::ScopedName;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use wire::edge::{CallerView, Callers};

const RETRY: Duration = Duration::from_millis(50);
/// Said again after so many tries in vain.
const SAY_EVERY: u32 = 400;
/// At one address; more wait to be accepted.
const CONNECTIONS_MAX: usize = 4_096;

/// What listens at an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Door {
    Link {
        address: SocketAddr,
        callee: ScopedName,
        requests: bool,
    },
    Resolver(SocketAddr),
}

struct Opened {
    task: JoinHandle<()>,
    /// Of a resolver.
    names: watch::Sender<Arc<CallerView>>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub struct Discovery {
    ingress: Arc<Ingress>,
    opened: Mutex<BTreeMap<Door, Opened>>,
    leaving: watch::Sender<bool>,
}

impl Discovery {
    pub fn new(ingress: Arc<Ingress>) -> Self {
        Self {
            ingress,
            opened: Mutex::default(),
            leaving: watch::Sender::new(false),
        }
    }

    pub fn follow(&self, callers: &Callers) {
        let mut wanted: BTreeMap<Door, Arc<CallerView>> = BTreeMap::new();
        for view in callers.values() {
            let view = Arc::new(view.clone());
            for (callee, link) in &view.links {
                let door = Door::Link {
                    address: link.address,
                    callee: callee.clone(),
                    requests: link.requests,
                };
                wanted.insert(door, Arc::clone(&view));
            }
            wanted.insert(Door::Resolver(view.resolver), view);
        }
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.retain(|door, _| wanted.contains_key(door));
        for (door, view) in wanted {
            match opened.get(&door) {
                Some(there) => drop(there.names.send_replace(view)),
                None => drop(opened.insert(door.clone(), self.open(door, view))),
            }
        }
    }

    /// Accepts no more, so that another edge can; what goes on is carried to its
    /// end.
    pub fn leave(&self) {
        self.leaving.send_replace(true);
    }

    fn open(&self, door: Door, view: Arc<CallerView>) -> Opened {
        let names = watch::Sender::new(view);
        let (ingress, leaving) = (Arc::clone(&self.ingress), self.leaving.subscribe());
        let task = match door {
            Door::Link {
                address,
                callee,
                requests,
            } => tokio::spawn(link(ingress, address, callee, requests, leaving)),
            Door::Resolver(address) => {
                tokio::spawn(resolver::run(address, names.subscribe(), leaving))
            }
        };
        Opened { task, names }
    }
}

async fn link(
    ingress: Arc<Ingress>,
    address: SocketAddr,
    callee: ScopedName,
    requests: bool,
    mut leaving: watch::Receiver<bool>,
) {
    // Dropped with this task, it ends them.
    let mut connections = JoinSet::new();
    let accepting = async {
        let listener = until_bound(address, || TcpListener::bind(address)).await;
        loop {
            tokio::select! {
                accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                    let Ok((stream, peer)) = accepted else {
                        // Out of descriptors, as a rule: wait for some to close.
                        tokio::time::sleep(RETRY).await;
                        continue;
                    };
                    let (ingress, callee) = (Arc::clone(&ingress), callee.clone());
                    connections.spawn(async move {
                        if requests {
                            ingress.link_requests(stream, peer, &callee).await;
                        } else {
                            ingress.link(stream, &callee).await;
                        }
                    });
                }
                Some(_) = connections.join_next() => {}
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        _ = leaving.wait_for(|leaving| *leaving) => {}
    }
    while connections.join_next().await.is_some() {}
}

/// Tries until it is possible.
async fn until_bound<T, F>(address: SocketAddr, bind: impl Fn() -> F) -> T
where
    F: Future<Output = io::Result<T>>,
{
    let mut tries: u32 = 0;
    loop {
        match bind().await {
            Ok(bound) => return bound,
            Err(error) if tries % SAY_EVERY == SAY_EVERY - 1 => {
                tracing::warn!(%address, %error, "services cannot be found there yet");
            }
            Err(_) => {}
        }
        tries = tries.wrapping_add(1);
        tokio::time::sleep(RETRY).await;
    }
}
