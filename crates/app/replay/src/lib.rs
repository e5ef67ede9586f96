//! Sends a recorded or generated load to a server, and reports what its clients
//! would have seen.
//!
//! In: an access log or a generator's settings, an address. Out: a
//! [`ReplayReport`]. Holds: with a `speed`, requests leave when the plan says,
//! whatever became of the earlier ones, and each latency counts from that
//! moment, so that a stall shows in all it delayed; what this sender itself was
//! late, and what its bound held back, is reported beside. Never: retries what
//! may have reached the server, follows redirects, sends a body.

mod client;
mod drive;
mod log;
mod path;
mod plan;
mod popularity;
mod report;
mod table;
mod target;

pub use drive::Progress;
pub use log::{Entry, Line, LineError, Lines, parse};
pub use popularity::ZIPF_EXPONENT;
pub use report::{
    Failures, Held, LogReport, MappingReport, Quantiles, ReplayReport, Sample, SkippedLine,
};
pub use table::render;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug)]
pub enum Source {
    /// An access log in common or combined format.
    Log(PathBuf),
    Generated(Generated),
}

/// Independent clients: exponential gaps, documents by their popularity.
#[derive(Clone, Copy, Debug)]
pub struct Generated {
    /// Mean rate at speed 1.
    pub per_second: f64,
}

/// Which requests of a mapped log become searches.
#[derive(Clone, Debug)]
pub struct Search {
    /// The target's search; asked as `PATH?q=WORD`, a word of a document's path.
    pub path: String,
    /// Of all requests, 0 to 1; recorded searches become searches besides.
    pub share: f64,
}

#[derive(Clone, Debug)]
pub struct ReplayOptions {
    pub source: Source,
    /// `http://HOST[:PORT]` or `https://…`.
    pub target: String,
    /// 10 is ten times as fast as recorded. 0 keeps no times: the next request
    /// leaves when one of `concurrency` is answered, and latency counts from
    /// sending.
    pub speed: f64,
    /// Requests at most.
    pub limit: Option<u64>,
    /// Requests in flight at most, and so connections.
    pub concurrency: usize,
    /// The host asked for; the target's own by default.
    pub host: Option<String>,
    pub seed: u64,
    /// The target's documents, a path a line, by rank or with weights. Given
    /// with a log, recorded paths are mapped onto them.
    pub popularity: Option<PathBuf>,
    pub search: Option<Search>,
    /// Silences of the plan are cut to this, before scaling.
    pub gap_max: Option<Duration>,
    /// For connecting, and for the whole answer.
    pub timeout: Duration,
    /// Sends recorded methods besides GET and HEAD too, without their bodies.
    pub all_methods: bool,
    /// The authority whose certificate an https target has, as a PEM file.
    pub authority: Option<PathBuf>,
}

impl ReplayOptions {
    pub fn new(source: Source, target: impl Into<String>) -> Self {
        Self {
            source,
            target: target.into(),
            speed: 1.0,
            limit: None,
            concurrency: 256,
            host: None,
            seed: 1,
            popularity: None,
            search: None,
            gap_max: None,
            timeout: Duration::from_secs(30),
            all_methods: false,
            authority: None,
        }
    }

    fn check(&self) -> Result<(), ReplayError> {
        let wrong = |what| Err(ReplayError::Setting(what));
        if !(self.speed.is_finite() && self.speed >= 0.0) {
            return wrong("the speed must be 0 or more");
        }
        if self.concurrency == 0 {
            return wrong("there must be room for a request in flight");
        }
        if let Source::Generated(Generated { per_second }) = self.source
            && !(per_second.is_finite() && per_second > 0.0)
        {
            return wrong("the rate must be above 0");
        }
        match &self.search {
            Some(search) if !(0.0..=1.0).contains(&search.share) => {
                wrong("the share of searches must be from 0 to 1")
            }
            Some(search) if !search.path.starts_with('/') => {
                wrong("the path of the search must begin with `/`")
            }
            _ => Ok(()),
        }
    }
}

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    #[error("cannot read `{}`", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("line {line} of `{}`: {what}", path.display())]
    List {
        path: PathBuf,
        line: usize,
        what: &'static str,
    },
    #[error("the load has no request to send")]
    Nothing,
    #[error("{0}")]
    Setting(&'static str),
    #[error("`{address}` is no target: {what}")]
    Target { address: String, what: &'static str },
    #[error("cannot find `{host}`")]
    Resolve {
        host: String,
        source: std::io::Error,
    },
    #[error("cannot use the authority in `{}`: {what}", path.display())]
    Authority { path: PathBuf, what: String },
    #[error("the plan was not made")]
    Plan(#[source] tokio::task::JoinError),
}

impl ReplayError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Nothing => Some("the log must have lines in common or combined format"),
            Self::List { .. } => Some("write a path a line, or `PATH<tab>WEIGHT`"),
            Self::Target { .. } => Some("write it like `http://127.0.0.1:8080`"),
            Self::Authority { .. } => Some("`homeostat trust --to FILE` writes a node's own"),
            _ => None,
        }
    }
}

/// Sends the load. `progress` is told often; by its answer it can end the
/// sending early: what is in flight is waited for, and the report says so.
///
/// # Errors
/// [`ReplayError`]; then nothing was sent. What fails later is in the report.
pub async fn replay(
    options: ReplayOptions,
    progress: impl FnMut(&Progress) -> ControlFlow<()>,
) -> Result<ReplayReport, ReplayError> {
    options.check()?;
    let target = target::Target::find(&options).await?;
    let options = Arc::new(options);
    let planning = Arc::clone(&options);
    let plan = tokio::task::spawn_blocking(move || plan::plan(&planning))
        .await
        .map_err(ReplayError::Plan)??;
    let client = client::Client::new(target, options.timeout);
    let send = move |request| {
        let client = Arc::clone(&client);
        async move { client.send(request).await }
    };
    let pace = drive::Pace {
        speed: options.speed,
        concurrency: options.concurrency,
    };
    let mut report = drive::drive(&plan, pace, send, progress).await;
    report.target.clone_from(&options.target);
    report.log = plan.log;
    report.mapping = plan.mapping;
    Ok(report)
}
