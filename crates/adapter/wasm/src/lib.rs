//! Runs `wasi:http` components (wasi 0.2) and actors (core modules whose memory
//! lives on between requests), small and isolated.
//!
//! In: a component's bytes, requests. Out: answers, or which limit ended it.
//! Holds: a guest is denied all but its environment, its output and the
//! calls it is bound to; one that loops, grows or traps is ended and named, and
//! never stops its host.
//! Never: knows routes, replicas or desired state.

mod actor;
mod answer;
mod beginning;
mod compiled;
mod engine;
mod error;
mod guest;
mod import;
mod instance;
mod keyvalue;
mod lane;
mod limits;
mod outgoing;
mod progress;
mod service;
mod work;

pub use actor::{
    Actor, ActorBody, ActorError, ActorHost, ActorModuleError, ActorSpec, Events,
    REQUEST_BYTES_MAX, Seal, WakeError,
};
pub use answer::{Answer, AnswerBody};
pub use compiled::CompiledCache;
pub use engine::{Host, watch_own_pages};
pub use error::{GuestError, WasmError};
pub use guest::{Line, OutputSink};
pub use limits::Limits;
pub use outgoing::AllowedCall;
pub use service::{Service, ServiceSpec, check};
pub use wasmtime_wasi_http::Error as HttpError;
