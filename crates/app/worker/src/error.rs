//! Why a worker could not start, or stopped.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use wasm::{ActorModuleError, WasmError};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    #[error("`{name}` is missing in the environment or not right: {found}")]
    Environment { name: &'static str, found: String },
    #[error("core dumps cannot be forbidden")]
    CoreDumps(#[source] io::Error),
    #[error("the runtime did not start")]
    Runtime(#[source] io::Error),
    #[error("signals cannot be received")]
    Signals(#[source] io::Error),
    #[error("{path} cannot be read")]
    Module {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} cannot be used for the actor's state")]
    State {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("what the actor holds cannot be sealed")]
    Key(#[from] vault::VaultError),
    #[error("buckets cannot be reached")]
    Buckets(#[source] io::Error),
    #[error("the replica's capability cannot be used")]
    Capability(#[from] wire::bucket::BucketError),
    #[error("{address} cannot be listened on")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Actor(#[from] ActorModuleError),
    #[error(transparent)]
    Component(#[from] WasmError),
}

impl WorkerError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Actor(error) => error.hint(),
            Self::Component(error) => error.hint(),
            Self::Key(error) => error.hint().map(str::to_owned),
            Self::Environment { .. } => {
                Some("a worker is started by its node, not by hand".to_owned())
            }
            _ => None,
        }
    }
}
