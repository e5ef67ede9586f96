//! Why a supervisor could not start.

use ipc::IpcError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use wire::layout::DATA_VERSION;
use wire::supervise::ListenerName;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    #[error("cannot use the data directory: {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("the data directory's path is too long for sockets below it: {}", path.display())]
    PathTooLong { path: PathBuf },
    #[error(
        "{} says that the data has version `{found}`, this program knows {DATA_VERSION}",
        path.display()
    )]
    Version { path: PathBuf, found: String },
    #[error("a node runs already on {}", path.display())]
    Running { path: PathBuf },
    #[error("{address} is in use by another program")]
    AddressInUse {
        address: SocketAddr,
        listener: ListenerName,
    },
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        listener: ListenerName,
        source: io::Error,
    },
    #[error("cannot answer on the supervisor's socket")]
    Socket(#[from] IpcError),
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
}

impl SupervisorError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Directory { .. } => Some("give one that can be written: `--data-dir DIR`"),
            Self::PathTooLong { .. } => {
                Some("give one with at most 40 characters: `--data-dir DIR`")
            }
            Self::Version { .. } => Some("use the program that wrote it, or another `--data-dir`"),
            Self::Running { .. } => Some("give another one with `--data-dir DIR`"),
            Self::AddressInUse { listener, .. } | Self::Listen { listener, .. } => {
                Some(match listener {
                    ListenerName::Http => "give another address with `--http ADDR`",
                    ListenerName::Https => "give another address with `--https ADDR`",
                })
            }
            Self::Socket(_) | Self::Signals(_) => None,
        }
    }
}
