//! What can be wrong with an actor's module, and how a call to one can end.

use crate::error::WasmError;
use std::time::Duration;
use wire::actor::ReplyError;

/// A module that cannot be run as an actor at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActorModuleError {
    #[error("this is a component, not a core module")]
    Component,
    #[error("this is not a core module that can be an actor: {0}")]
    Invalid(String),
    #[error("nothing here provides `{import}`, which the module imports")]
    Import {
        import: String,
        nearest: Option<String>,
    },
    #[error("the module does not export `{0}`")]
    Export(&'static str),
    /// Its state could not be put away, or moved.
    #[error("function {function} uses `{instruction}`, which changes what no checkpoint holds")]
    Instruction {
        function: u32,
        instruction: &'static str,
    },
    #[error("mutable global {0} holds a reference, which no checkpoint can")]
    Reference(u32),
    #[error(transparent)]
    Wasm(#[from] WasmError),
}

impl ActorModuleError {
    /// The next step.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Component => Some("run it as a component: run = { wasm = … }".to_owned()),
            Self::Import {
                nearest: Some(nearest),
                ..
            } => Some(format!("the nearest that is provided is `{nearest}`")),
            Self::Export(_) => Some("docs/actors.md lists what an actor exports".to_owned()),
            Self::Wasm(error) => error.hint(),
            _ => None,
        }
    }
}

/// How a call to an actor ended without an answer. Where the actor itself is at
/// fault, its memory is gone: the next request starts it afresh.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ActorError {
    #[error("{0} requests wait for the actor already")]
    Busy(usize),
    #[error("{0} clients have its events already")]
    Subscribers(usize),
    #[error("the request has {bytes} bytes, {max} at most")]
    Request { bytes: usize, max: usize },
    #[error("the actor has no room for a request of {0} bytes")]
    NoRoom(usize),
    #[error("the actor took longer than {}", kernel::format_duration(*.0))]
    Time(Duration),
    #[error("the actor asked for more memory than its limit of {0} bytes")]
    Memory(usize),
    #[error("the actor asked for a table of more than {0} elements")]
    Table(usize),
    #[error("the actor's {what} of {bytes} bytes at {address} is not in its memory of {memory}")]
    Wild {
        what: &'static str,
        address: u32,
        bytes: u32,
        memory: usize,
    },
    #[error("the actor's {what} has {bytes} bytes, {max} at most")]
    Long {
        what: &'static str,
        bytes: u32,
        max: u32,
    },
    #[error("the actor's answer cannot be read: {0}")]
    Reply(#[from] ReplyError),
    #[error("the actor's answer has {0}, which HTTP does not allow")]
    Http(String),
    #[error("the actor's channel is not taken: {0}")]
    Channel(ReplyError),
    #[error("the actor ended: {0}")]
    Trap(String),
    #[error("the actor is being stopped")]
    Stopped,
}

impl ActorError {
    /// Whether the actor is gone for it, and its memory with it.
    pub fn ends(&self) -> bool {
        match self {
            Self::Busy(_)
            | Self::Subscribers(_)
            | Self::Request { .. }
            | Self::NoRoom(_)
            | Self::Reply(_)
            | Self::Http(_)
            | Self::Stopped => false,
            Self::Time(_)
            | Self::Memory(_)
            | Self::Table(_)
            | Self::Wild { .. }
            | Self::Long { .. }
            | Self::Channel(_)
            | Self::Trap(_) => true,
        }
    }
}

/// A checkpoint that is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WakeError {
    #[error("it cannot be read: {0}")]
    Read(#[from] std::io::Error),
    #[error(transparent)]
    Format(#[from] wire::checkpoint::CheckpointError),
    #[error("it is of module {found}, not of this one")]
    Module { found: String },
    #[error("it is of version {found} of the actor ABI")]
    Abi { found: u8 },
    #[error("its {0} are not those of this module")]
    Shape(&'static str),
    #[error("its module does not start: {0}")]
    Start(ActorError),
}
