//! The processes a node is made of: the same program under another word.

use crate::arguments::{Listen, Worker, WorkerKind};
use crate::failure::Failure;
use kernel::error_chain;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use wire::layout::Layout;
use wire::supervise::release::Release;

pub fn shim(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(directory), Some(socket)) = (words.next(), words.next()) else {
        return ExitCode::from(2);
    };
    keep_memory_private();
    drivers::run_shim(Path::new(&directory), Path::new(&socket))
}

/// The compiler, apart from the agent that asked for it.
pub fn compile(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    use agent::components::{Kind, compile};
    let kind = words.next();
    let kind = kind.as_deref().and_then(OsStr::to_str).and_then(Kind::read);
    let (Some(kind), Some(cache), Some(file)) = (kind, words.next(), words.next()) else {
        return ExitCode::from(2);
    };
    let Err(unfit) = compile(kind, Path::new(&cache), Path::new(&file)) else {
        return ExitCode::SUCCESS;
    };
    let told = serde_json::to_string(&unfit).unwrap_or_default();
    let _ = crate::output::data(&told);
    ExitCode::FAILURE
}

/// What a lab lives by.
pub fn lab_keeper(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(directory) = words.next() else {
        return ExitCode::from(2);
    };
    start_log();
    lab::run_keeper(Path::new(&directory))
}

/// Becomes a program in a lab's node.
pub fn lab_enter(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(directory), Some(node)) = (words.next(), words.next()) else {
        return ExitCode::from(2);
    };
    let command: Vec<OsString> = words.collect();
    let error = lab::enter(Path::new(&directory), &node.to_string_lossy(), &command);
    Failure::from(error).report()
}

/// `HOMEOSTAT_LOG`: `info`, or per part, `agent=debug,ingress=trace`.
fn start_log() {
    let wanted = std::env::var("HOMEOSTAT_LOG").ok();
    let filter = wanted
        .and_then(|text| text.parse::<Targets>().ok())
        // The store's library tells each step, and each try at a member that is
        // away, many a second; what comes of them the agent says itself.
        .unwrap_or_else(|| {
            let usual = Targets::new().with_default(LevelFilter::INFO);
            usual.with_target("openraft", LevelFilter::OFF)
        });
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .init();
}

/// Secrets pass through: no core file, no pipe to a program that keeps one, no
/// other process of the same user that reads along. The hard limit stays: a
/// replica may raise its own, unless it has secrets.
fn keep_memory_private() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit};
    let limits = Rlimit {
        current: Some(0),
        ..rustix::process::getrlimit(Resource::Core)
    };
    let limited = rustix::process::setrlimit(Resource::Core, limits);
    let hidden = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if let Err(error) = limited.and(hidden) {
        tracing::warn!(%error, "a crash may leave secrets in a core dump");
    }
}

fn runtime(mut builder: Builder) -> Result<Runtime, Failure> {
    Ok(builder.enable_all().build()?)
}

/// The file that this process is of: by its path, unless another one is there by
/// now.
pub fn program() -> Result<PathBuf, Failure> {
    let path = std::env::current_exe()?;
    if path.exists() {
        return Ok(path);
    }
    Ok(PathBuf::from("/proc/self/exe"))
}

pub fn agent(layout: &Layout, admin_listen: Option<SocketAddr>) -> Result<ExitCode, Failure> {
    keep_memory_private();
    start_log();
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).max_blocking_threads(16);
    let outcome = runtime(builder)?.block_on(agent::run(agent::Options {
        root: layout.root.clone(),
        program: program()?,
        admin_listen,
    }));
    end("agent", outcome, agent::AgentError::hint)
}

pub fn edge(layout: &Layout) -> ExitCode {
    // Components start faster with it; where there is none, they start all the same.
    let _ = wasm::watch_own_pages();
    keep_memory_private();
    start_log();
    edge::run(&layout.root, peer_listen(layout))
}

/// As it was chosen for this node. Any free port where that cannot be read: the
/// edge serves clients all the same.
fn peer_listen(layout: &Layout) -> SocketAddr {
    let chosen = agent::cluster::read_listen(layout);
    let chosen = chosen.inspect_err(|error| {
        tracing::error!(
            error = error_chain(error),
            "the edge takes any port for other nodes"
        );
    });
    chosen.map_or_else(
        |_| SocketAddr::from(([0, 0, 0, 0], 0)),
        |listen| listen.edge,
    )
}

pub fn worker(given: Worker) -> Result<ExitCode, Failure> {
    start_log();
    let calls = given.calls.iter().map(|call| serde_json::from_str(call));
    let calls = calls.collect::<Result<_, _>>();
    let calls = calls
        .map_err(|error| Failure::new(crate::failure::USAGE, format!("--call: {error}"), None))?;
    let usual = wasm::Limits::default();
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let outcome = worker::Environment::read(environment).and_then(|environment| {
        worker::run(worker::Options {
            kind: match given.kind {
                WorkerKind::Actor => worker::Kind::Actor,
                WorkerKind::Component => worker::Kind::Component,
            },
            module: given.module,
            cache: given.cache,
            state: given.state,
            keys: given.keys,
            service: given.service,
            limits: wasm::Limits {
                memory_bytes: given.memory.unwrap_or(usual.memory_bytes),
                time: given.time.unwrap_or(usual.time),
                concurrency: given.concurrency.unwrap_or(usual.concurrency),
                reuse: given.reuse.unwrap_or(usual.reuse),
                ..usual
            },
            calls,
            idle: given.idle,
            grace: given.grace,
            environment,
        })
    });
    end("worker", outcome, worker::WorkerError::hint)
}

pub fn supervisor(layout: &Layout, listen: &Listen) -> Result<ExitCode, Failure> {
    start_log();
    let program = program()?;
    let told = std::env::var(supervisor::SUCCESSION).ok();
    let mut succession = told.and_then(|text| serde_json::from_str(&text).ok());
    loop {
        let options = supervisor::Options {
            data_directory: layout.root.clone(),
            http: listen.http(),
            https: listen.https(),
            program: program.clone(),
            agent_arguments: listen
                .admin_listen
                .into_iter()
                .flat_map(|address| ["--admin-listen".into(), address.to_string().into()])
                .collect(),
            edge_arguments: Vec::new(),
            release: release(),
            succession: succession.take(),
        };
        let outcome = runtime(Builder::new_current_thread())?.block_on(supervisor::run(options));
        match outcome {
            Ok(supervisor::Ended::Becomes(program, left)) => {
                let error = become_supervisor_of(&program, &left);
                tracing::error!(%error, program = %program.display(), "cannot become it");
                supervisor::not_become(layout, &error);
            }
            other => {
                let outcome = other.map(drop);
                return end("supervisor", outcome, supervisor::SupervisorError::hint);
            }
        }
    }
}

/// The same process with the same words; returns only when that failed.
fn become_supervisor_of(program: &Path, left: &supervisor::Succession) -> std::io::Error {
    use std::os::unix::process::CommandExt;
    let left = match serde_json::to_string(left) {
        Ok(left) => left,
        Err(error) => return error.into(),
    };
    std::process::Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(supervisor::SUCCESSION, left)
        .exec()
}

/// What this program reads and writes.
pub fn release() -> Release {
    Release::of(env!("CARGO_PKG_VERSION"), &net::versions_spoken())
}

fn end<E: std::error::Error, H: AsRef<str>>(
    role: &str,
    outcome: Result<(), E>,
    hint: impl Fn(&E) -> Option<H>,
) -> Result<ExitCode, Failure> {
    outcome.map_err(|error| {
        tracing::error!(role, error = error_chain(&error), "ended");
        let hint = hint(&error);
        let hint = hint.as_ref().map(AsRef::as_ref);
        Failure::new(1, error_chain(&error), hint)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Becomes the supervisor; returns only when that failed.
pub fn exec_supervisor(layout: &Layout, listen: &Listen) -> std::io::Error {
    use std::os::unix::process::CommandExt;
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error,
    };
    std::process::Command::new(program)
        .arg("supervisor")
        .arg("--data-dir")
        .arg(&layout.root)
        .args(listen.words())
        .exec()
}
