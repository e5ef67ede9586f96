//! The node's listening sockets: bound once, or taken back from a living edge.
//!
//! In: addresses, the edge's socket. Out: listeners which outlive every edge.
//! Holds: while any edge or supervisor lives, the sockets stay open, so that
//! clients' connections wait in the kernel rather than being refused.

use crate::SupervisorError;
use ipc::{Identity, IpcError};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};
use wire::edge::{FromEdge, ToEdge};
use wire::layout::Layout;
use wire::supervise::ListenerName;

const BACKLOG: i32 = 4_096;
const TAKE_MAX: Duration = Duration::from_secs(5);
/// An edge that was killed keeps its sockets until the kernel has ended it.
const FREED_MAX: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub struct Listeners(BTreeMap<ListenerName, TcpListener>);

impl Listeners {
    pub fn address(&self, name: ListenerName) -> Option<SocketAddr> {
        self.0.get(&name)?.local_addr().ok()
    }

    /// Names and descriptors in the same order.
    pub fn beside(&self) -> (Vec<ListenerName>, Vec<BorrowedFd<'_>>) {
        self.0
            .iter()
            .map(|(name, listener)| (*name, listener.as_fd()))
            .unzip()
    }
}

/// A living edge, found through its socket.
#[derive(Debug)]
pub struct LivingEdge {
    pub identity: Identity,
    listeners: BTreeMap<ListenerName, TcpListener>,
}

/// `None` when no edge answers.
pub async fn find_edge(layout: &Layout) -> Option<LivingEdge> {
    match tokio::time::timeout(TAKE_MAX, ask_edge(layout)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::debug!(%error, "no edge to take listeners from");
            None
        }
        Err(_) => {
            tracing::warn!("an edge does not answer");
            None
        }
    }
}

async fn ask_edge(layout: &Layout) -> Result<Option<LivingEdge>, IpcError> {
    let mut edge = ipc::connect(&layout.edge_socket()).await?;
    edge.send(&ToEdge::TakeListeners).await?;
    let mut identity = None;
    let mut descriptors = Vec::new();
    while let Some((message, beside)) = edge.receive::<FromEdge>().await? {
        // They may come with a message before the one that names them.
        descriptors.extend(beside);
        match message {
            FromEdge::Hello { pid } => identity = Identity::of(pid).ok(),
            FromEdge::Listeners(names) => {
                let sockets = descriptors.into_iter().map(TcpListener::from);
                let listeners = names.into_iter().zip(sockets).collect();
                return Ok(identity.map(|identity| LivingEdge {
                    identity,
                    listeners,
                }));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// All listeners, and whether the living edge lacks one of them.
pub async fn open(
    layout: &Layout,
    wanted: [(ListenerName, SocketAddr); 2],
    living: Option<&mut LivingEdge>,
) -> Result<(Listeners, bool), SupervisorError> {
    let mut taken = living
        .map(|edge| std::mem::take(&mut edge.listeners))
        .unwrap_or_default();
    let earlier = layout.edge_socket().exists();
    let mut listeners = BTreeMap::new();
    let mut lacks = false;
    for (name, address) in wanted {
        let fits = |listener: &TcpListener| {
            listener
                .local_addr()
                .is_ok_and(|found| serves(found, address))
        };
        let listener = if let Some(listener) = taken.remove(&name).filter(fits) {
            listener
        } else {
            lacks = true;
            let patience = if earlier { FREED_MAX } else { Duration::ZERO };
            bind_patiently(name, address, patience).await?
        };
        listeners.insert(name, listener);
    }
    Ok((Listeners(listeners), lacks))
}

fn serves(found: SocketAddr, wanted: SocketAddr) -> bool {
    found.ip() == wanted.ip() && (wanted.port() == 0 || wanted.port() == found.port())
}

async fn bind_patiently(
    listener: ListenerName,
    address: SocketAddr,
    patience: Duration,
) -> Result<TcpListener, SupervisorError> {
    let deadline = Instant::now() + patience;
    loop {
        match bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if Instant::now() >= deadline {
                    return Err(SupervisorError::AddressInUse { address, listener });
                }
                tokio::time::sleep(RETRY).await;
            }
            outcome => {
                return outcome.map_err(|source| SupervisorError::Listen {
                    address,
                    listener,
                    source,
                });
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_named_with_the_flag_that_changes_it() {
        let other = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = other.local_addr().expect("address");
        let error = bind_patiently(ListenerName::Https, address, Duration::ZERO)
            .await
            .expect_err("in use");
        assert!(error.to_string().contains(&address.to_string()));
        assert!(error.hint().expect("hint").contains("--https"));
    }
}
