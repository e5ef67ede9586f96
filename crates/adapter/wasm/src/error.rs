//! What can be wrong with a component, and how a request to one can end.

use crate::Limits;
use std::path::PathBuf;
use std::time::Duration;

/// A component that cannot be run at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WasmError {
    #[error("this machine cannot run wasm: {0}")]
    Engine(String),
    #[error("this is not a component: {0}")]
    Invalid(String),
    #[error("this is a core module, not a component")]
    CoreModule,
    #[error("nothing here provides `{import}`, which the component imports")]
    Import {
        import: String,
        nearest: Option<String>,
    },
    #[error("the component does not export `wasi:http/incoming-handler`: {0}")]
    Export(String),
    #[error("cannot keep compiled code in {path}: {source}")]
    Cache {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl WasmError {
    /// The next step.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::CoreModule => {
                Some("encode it as a component, with `wasm-tools component new`".to_owned())
            }
            Self::Import {
                nearest: Some(nearest),
                ..
            } => Some(format!("the nearest that is provided is `{nearest}`")),
            Self::Export(_) => Some("build it for the world `wasi:http/proxy`".to_owned()),
            _ => None,
        }
    }
}

/// How a request to a guest ended without an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    #[error("{0} requests are in the guest already")]
    Busy(usize),
    #[error("the guest took longer than {}", kernel::format_duration(*.0))]
    Time(Duration),
    #[error("the guest asked for more memory than its limit of {0} bytes")]
    Memory(usize),
    #[error("the guest asked for a table of more than {0} elements")]
    Table(usize),
    #[error("the guest ended: {0}")]
    Trap(String),
    #[error("the guest gave no answer")]
    NoAnswer,
    #[error("the request cannot be given to the guest: {0}")]
    Request(String),
    #[error("the machine has no room for another instance: {0}")]
    Room(String),
}

/// Which limit a guest ran into, as its store saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    Memory,
    Table,
}

impl Exceeded {
    pub(crate) fn of_actor(self, limits: &Limits) -> crate::ActorError {
        match self {
            Self::Memory => crate::ActorError::Memory(limits.memory_bytes),
            Self::Table => crate::ActorError::Table(limits.table_elements),
        }
    }

    pub fn error(self, limits: &Limits) -> GuestError {
        match self {
            Self::Memory => GuestError::Memory(limits.memory_bytes),
            Self::Table => GuestError::Table(limits.table_elements),
        }
    }
}
