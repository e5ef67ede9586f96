//! The listening sockets: taken from the supervisor, handed to the next one.
//!
//! Holds: they are the same open sockets in every process that has them, so a
//! client's connection waits in the kernel while edges and supervisors change.

use ipc::IpcError;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;
use wire::supervise::{FromSupervisor, ListenerName, ToSupervisor};

const ANSWER_MAX: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(20);
/// Said again after so many tries in vain.
const SAY_EVERY: u32 = 500;

#[derive(Debug)]
pub struct Listeners(Vec<(ListenerName, TcpListener)>);

#[derive(Debug, thiserror::Error)]
enum TakeError {
    #[error("no answer within {} s", ANSWER_MAX.as_secs())]
    Late,
    #[error("it closed the connection")]
    Closed,
    #[error("it gave no listening sockets, but {0}")]
    Other(String),
    #[error("it named {names} listening sockets and gave {descriptors}")]
    Count { names: usize, descriptors: usize },
    #[error(transparent)]
    Ipc(#[from] IpcError),
}

impl Listeners {
    /// Asks until the supervisor has given them.
    pub async fn take(supervisor: &Path) -> Self {
        let mut tries: u32 = 0;
        loop {
            let asked = tokio::time::timeout(ANSWER_MAX, Self::ask(supervisor)).await;
            let error = match asked {
                Ok(Ok(listeners)) => return listeners,
                Ok(Err(error)) => error,
                Err(_) => TakeError::Late,
            };
            if tries.is_multiple_of(SAY_EVERY) {
                tracing::warn!(%error, "the supervisor has not given the listening sockets yet");
            }
            tries = tries.wrapping_add(1);
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn ask(supervisor: &Path) -> Result<Self, TakeError> {
        let mut connection = ipc::connect(supervisor).await?;
        connection.send(&ToSupervisor::TakeListeners).await?;
        let answer = connection.receive::<FromSupervisor>().await?;
        let (answer, descriptors) = answer.ok_or(TakeError::Closed)?;
        match answer {
            FromSupervisor::Listeners(names) if names.len() == descriptors.len() => {
                let sockets = descriptors.into_iter().map(TcpListener::from);
                Ok(Self(names.into_iter().zip(sockets).collect()))
            }
            FromSupervisor::Listeners(names) => Err(TakeError::Count {
                names: names.len(),
                descriptors: descriptors.len(),
            }),
            other => Err(TakeError::Other(format!("{other:?}"))),
        }
    }

    /// Ones to accept on; they share their queues with these.
    pub fn for_serving(&self) -> io::Result<Vec<(ListenerName, tokio::net::TcpListener)>> {
        self.0
            .iter()
            .map(|(name, socket)| {
                let socket = socket.try_clone()?;
                socket.set_nonblocking(true)?;
                Ok((*name, tokio::net::TcpListener::from_std(socket)?))
            })
            .collect()
    }

    /// Names and descriptors in the same order.
    pub fn beside(&self) -> (Vec<ListenerName>, Vec<BorrowedFd<'_>>) {
        self.0
            .iter()
            .map(|(name, socket)| (*name, socket.as_fd()))
            .unzip()
    }
}
