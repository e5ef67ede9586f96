//! A worker: one wasm replica in a process of its own, seen from outside as any
//! process replica, HTTP/1.1 on `HOST`:`PORT`.
//!
//! In: a module, its limits, an environment; requests; a signal to stop. Out:
//! answers, the guest's output line by line, an actor's state on disk.
//! Holds: one worker at a time has an actor's state; a stop finishes what is in
//! flight and puts the actor away; no core dump of what guests hold.
//! Never: decides what runs, or how often.

mod environment;
mod error;
mod guest;
mod output;
mod place;
mod serve;

pub use environment::Environment;
pub use error::WorkerError;

use guest::Guest;
use ipc::Asked;
use output::Lines;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::watch;
use wasm::Limits;
use wire::edge::AllowedCall;

/// What is still at work in the runtime when all is done is left behind.
const FAREWELL_MAX: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Actor,
    Component,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub kind: Kind,
    pub module: PathBuf,
    /// Where compiled code is kept.
    pub cache: PathBuf,
    /// Where an actor is while it is put away.
    pub state: PathBuf,
    /// Where the node's key is, if what is put away must be sealed.
    pub keys: Option<PathBuf>,
    /// The service's name, `news/search`.
    pub service: String,
    pub limits: Limits,
    /// Whom a component may call; nobody else.
    pub calls: Vec<AllowedCall>,
    /// How long an actor may have nothing to do before it is put away.
    pub idle: Duration,
    /// From the signal to stop until the node kills: half of it is for requests
    /// in flight, the rest for putting an actor away.
    pub grace: Duration,
    pub environment: Environment,
}

/// Runs until it is told to stop.
pub fn run(options: Options) -> Result<(), WorkerError> {
    // What guests hold, secrets too, is not left behind in a file.
    let nothing = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // The second holds where cores are piped to a program, too.
    setrlimit(Resource::Core, nothing)
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(|error| WorkerError::CoreDumps(error.into()))?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("worker")
        .enable_all()
        .build()
        .map_err(WorkerError::Runtime)?;
    let lines = Lines::start();
    let outcome = runtime.block_on(work(options, &lines));
    runtime.shutdown_timeout(FAREWELL_MAX);
    lines.finish();
    outcome
}

async fn work(options: Options, lines: &Lines) -> Result<(), WorkerError> {
    let mut asked = Asked::listen().map_err(WorkerError::Signals)?;
    let address = options.environment.address;
    let drain_max = options.grace / 2;
    let guest = Guest::prepare(options, lines.sink())?;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| WorkerError::Listen { address, source })?;
    tracing::info!(%address, "ready");
    let (give, given) = watch::channel(None);
    let serving = serve::serve(listener, given, asked.received(), drain_max);
    let place = guest.place();
    let beginning = async {
        // The worker before this one may still have it.
        place.wait().await?;
        give.send_replace(Some(guest.begin()?));
        // For as long as the worker lives.
        std::future::pending::<()>().await;
        Ok(())
    };
    tokio::select! {
        () = serving => {}
        ended = beginning => return ended,
    }
    let begun = give.borrow().clone();
    if let Some(begun) = begun {
        begun.stop().await;
    }
    Ok(())
}
