//! Fetches content from whoever holds it: nearest first, from several at once,
//! resumed where an earlier fetch was cut off.
//!
//! In: hashes, and holders that give a stream each time they are asked. Out:
//! content that is here, whole and durable, or why not.
//! Holds: what a holder sends counts only after it was checked against the
//! hash; a tree becomes visible after all of its files; memory, requests and
//! time are bounded; an end in the middle, by whatever cause, leaves a state
//! from which the next fetch goes on.
//! Never: knows how streams reach a holder.

mod engine;
mod partial;
mod plan;
mod run;

pub(crate) use partial::Partial;

use crate::error::ContentError;
use crate::pieces::Pieces;
use crate::stage::Stage;
use crate::{Checked, Content, ContentEvent};
use engine::{Engine, Held};
use futures_util::future::BoxFuture;
use kernel::{Bytes, Hash};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use wire::content::{Tree, TreeEntry};

/// Small files become visible together: so many bytes of them, or so many.
const FLUSH_BYTES: u64 = 16 << 20;
const FLUSH_FILES: usize = 4096;
/// A tree is read whole into memory.
const TREE_BYTES_MAX: u64 = 256 << 20;

/// Somebody who may hold content.
pub trait Holder: Send + Sync {
    /// Who it is, in reports; one name is one holder.
    fn name(&self) -> &str;
    /// The round trip to it, or an estimate: the nearest is asked first.
    fn distance(&self) -> Duration;
    /// A new stream to it, whose other end a [`crate::Server`] answers. When
    /// it is dropped, the answer is no longer wanted.
    fn open(&self) -> BoxFuture<'_, io::Result<HolderStream>>;
}

/// Both directions of a stream. Its writer is shut down after the request.
pub struct HolderStream {
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
}

#[derive(Clone, Copy, Debug)]
pub struct FetchOptions {
    /// Requests to one holder at a time.
    pub requests_per_holder: usize,
    /// Requests of one fetch at a time.
    pub requests_max: usize,
    /// Fetches at a time; others wait.
    pub fetches_max: usize,
    /// For bytes on their way to the disk, of all fetches.
    pub memory: Bytes,
    /// How long a holder may take for each piece of 256 KiB; for longer ones
    /// accordingly. After failures it gets more.
    pub piece_within: Duration,
    /// Without progress for so long (and four times the distance), a further
    /// holder is asked for the same.
    pub patience: Duration,
    /// Before a holder that failed is asked again; doubled each time.
    pub rest: Duration,
    /// Failures in a row after which a fetch gives a holder up.
    pub failures_max: u32,
    /// How long a holder that sent wrong bytes is left alone, by all fetches.
    pub wrong_rest: Duration,
    /// Of the disk, what a fetch leaves free.
    pub room_left: Bytes,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            requests_per_holder: 2,
            requests_max: 16,
            fetches_max: 8,
            memory: Bytes(64 << 20),
            piece_within: Duration::from_secs(10),
            patience: Duration::from_millis(400),
            rest: Duration::from_millis(200),
            failures_max: 5,
            wrong_rest: Duration::from_mins(10),
            room_left: Bytes(16 << 20),
        }
    }
}

/// One file to be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub hash: Hash,
    /// If known, another length is an error.
    pub bytes: Option<u64>,
    /// To be run from [`Content::path`].
    pub executable: bool,
    /// Handed over instead of becoming visible.
    pub(crate) hold: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchProgress {
    pub files: u64,
    pub files_total: u64,
    pub bytes: u64,
    /// As far as lengths are known.
    pub bytes_total: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Those that were not here before.
    pub files: u64,
    /// Taken over from an earlier fetch, or from a damaged file.
    pub resumed: Bytes,
    /// What each holder gave.
    pub from: BTreeMap<String, Bytes>,
    /// Holders that sent wrong bytes.
    pub wrong: BTreeSet<String>,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    #[error("nobody gave content {hash}: {}", told(.holders))]
    Unreachable {
        hash: Hash,
        /// Each holder that was asked, and why it did not.
        holders: Vec<(String, String)>,
    },
    #[error("content {hash} has {found} bytes, where {expected} were expected")]
    Length {
        hash: Hash,
        expected: u64,
        found: u64,
    },
    #[error("{need} are to be fetched and {free} are free on this disk, of which {left} stay free")]
    NoRoom {
        need: Bytes,
        free: Bytes,
        left: Bytes,
    },
    #[error("tree {hash} has {found}, where {limit} are allowed")]
    TreeTooLong {
        hash: Hash,
        found: Bytes,
        limit: Bytes,
    },
    #[error(transparent)]
    Content(#[from] ContentError),
}

impl FetchError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { .. } => Some("bring a node that holds it back, or apply it again"),
            Self::NoRoom { .. } => Some("free space on that disk; what is here already is kept"),
            Self::Content(error) => error.hint(),
            Self::Length { .. } | Self::TreeTooLong { .. } => None,
        }
    }
}

fn told(holders: &[(String, String)]) -> String {
    if holders.is_empty() {
        return "nobody is known to hold it".to_owned();
    }
    let each = holders.iter().map(|(name, why)| format!("{name}: {why}"));
    each.collect::<Vec<_>>().join("; ")
}

/// Fetches into one store. Cheap to clone; clones share their bounds, and know
/// together who sent wrong bytes.
#[derive(Clone, Debug)]
pub struct Fetcher {
    content: Content,
    options: FetchOptions,
    shared: Arc<Fetchers>,
}

#[derive(Debug)]
struct Fetchers {
    fetches: Semaphore,
    memory: Arc<Semaphore>,
    /// When holders sent wrong bytes.
    wrong: Mutex<BTreeMap<String, Instant>>,
}

/// What the runs of one fetch share.
#[derive(Debug)]
struct Context {
    content: Content,
    memory: Arc<Semaphore>,
    stage: Mutex<Stage>,
    /// Bytes staged since the last flush.
    staged: Mutex<u64>,
    partials: Mutex<BTreeMap<Hash, Opening>>,
}

type Opening = Arc<Mutex<Option<Arc<Partial>>>>;

impl Wanted {
    pub fn new(hash: Hash) -> Self {
        Self {
            hash,
            bytes: None,
            executable: false,
            hold: false,
        }
    }

    #[must_use]
    pub fn of_length(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    #[must_use]
    pub fn executable(mut self) -> Self {
        self.executable = true;
        self
    }

    fn entry(entry: &TreeEntry) -> Self {
        Self::new(entry.hash).of_length(entry.bytes)
    }
}

impl Fetcher {
    pub fn new(content: Content, options: FetchOptions) -> Self {
        // Any one frame must fit.
        let memory = options.memory.0.max(32 << 20) / u64::from(run::MEMORY_UNIT);
        let memory = usize::try_from(memory).unwrap_or(Semaphore::MAX_PERMITS);
        let shared = Fetchers {
            fetches: Semaphore::new(options.fetches_max.max(1)),
            memory: Arc::new(Semaphore::new(memory.min(Semaphore::MAX_PERMITS))),
            wrong: Mutex::default(),
        };
        Self {
            content,
            options,
            shared: Arc::new(shared),
        }
    }

    /// Has one file here. What is here already is not checked: see
    /// [`Content::check`].
    pub async fn fetch(
        &self,
        wanted: Wanted,
        holders: &[Arc<dyn Holder>],
        progress: &mut (dyn FnMut(FetchProgress) + Send),
    ) -> Result<Fetched, FetchError> {
        let _lease = self.content.lease(wanted.hash);
        if !self.content.path(wanted.hash).exists() {
            self.has_room(&[wanted])?;
        }
        let (fetched, _) = self.engine(vec![wanted], holders, progress).await?;
        Ok(fetched)
    }

    /// Has a tree and all its files here. Compressed variants do not travel:
    /// make them with [`Content::precompress`].
    pub async fn fetch_tree(
        &self,
        hash: Hash,
        holders: &[Arc<dyn Holder>],
        progress: &mut (dyn FnMut(FetchProgress) + Send),
    ) -> Result<Fetched, FetchError> {
        let _lease = self.content.lease(hash);
        let (tree, held, mut fetched) = self.tree_object(hash, holders, progress).await?;
        let files: BTreeMap<Hash, Wanted> = tree
            .entries
            .values()
            .map(|entry| (entry.hash, Wanted::entry(entry)))
            .collect();
        drop(tree);
        let _files = self.content.lease_all(files.keys().copied());
        let content = self.content.clone();
        let missing = blocking(move || {
            let mut files: Vec<Wanted> = files.into_values().collect();
            files.retain(|file| !content.has(file.hash, file.bytes.unwrap_or(0)));
            Ok(files)
        });
        let missing = missing.await?;
        self.has_room(&missing)?;
        let (of_files, _) = self.engine(missing, holders, progress).await?;
        fetched.add(of_files);
        if let Some(held) = held {
            let content = self.content.clone();
            blocking(move || held.publish(&content, hash)).await?;
        }
        Ok(fetched)
    }

    /// The whole of a file: from here, or, where it is missing or damaged, from
    /// holders. Damage is reported, and mended.
    pub async fn read(
        &self,
        hash: Hash,
        holders: &[Arc<dyn Holder>],
    ) -> Result<Vec<u8>, FetchError> {
        let _lease = self.content.lease(hash);
        let content = self.content.clone();
        match blocking(move || content.read_verified(hash)).await {
            Err(ContentError::Damaged { .. } | ContentError::Missing { .. }) => {
                self.mend(hash, holders).await?;
                let content = self.content.clone();
                Ok(blocking(move || content.read_verified(hash)).await?)
            }
            other => Ok(other?),
        }
    }

    /// Checks a file, and fetches what of it is wrong or missing. Says so when
    /// it was damaged: see [`ContentEvent`].
    pub async fn mend(
        &self,
        hash: Hash,
        holders: &[Arc<dyn Holder>],
    ) -> Result<Fetched, FetchError> {
        let _lease = self.content.lease(hash);
        let content = self.content.clone();
        let checked = blocking(move || content.check(hash)).await?;
        if matches!(checked, Checked::Right { .. }) {
            return Ok(Fetched::default());
        }
        let fetched = self.fetch(Wanted::new(hash), holders, &mut |_| {}).await?;
        self.content.tell(ContentEvent::Mended { hash });
        Ok(fetched)
    }

    async fn tree_object(
        &self,
        hash: Hash,
        holders: &[Arc<dyn Holder>],
        progress: &mut (dyn FnMut(FetchProgress) + Send),
    ) -> Result<(Tree, Option<Held>, Fetched), FetchError> {
        let content = self.content.clone();
        match blocking(move || content.tree(hash)).await {
            Ok(tree) => return Ok((tree, None, Fetched::default())),
            Err(ContentError::Missing { .. }) => {}
            Err(ContentError::Damaged { .. }) => {
                let content = self.content.clone();
                blocking(move || content.check(hash)).await?;
            }
            Err(error) => return Err(error.into()),
        }
        let mut wanted = Wanted::new(hash);
        wanted.hold = true;
        let (fetched, held) = self.engine(vec![wanted], holders, progress).await?;
        let Some(held) = held else {
            // Another fetch has made it visible meanwhile.
            let content = self.content.clone();
            let tree = blocking(move || content.tree(hash)).await?;
            return Ok((tree, None, fetched));
        };
        if held.bytes() > TREE_BYTES_MAX {
            return Err(FetchError::TreeTooLong {
                hash,
                found: Bytes(held.bytes()),
                limit: Bytes(TREE_BYTES_MAX),
            });
        }
        let read = blocking(move || {
            let tree = Content::read_tree(hash, &held.read()?)?;
            Ok((tree, held))
        });
        let (tree, held) = read.await?;
        Ok((tree, Some(held), fetched))
    }

    /// Refuses early what would not fit.
    fn has_room(&self, files: &[Wanted]) -> Result<(), FetchError> {
        let need = files.iter().filter_map(|file| file.bytes).sum();
        if need == 0 {
            return Ok(());
        }
        let path = self.content.temporary();
        let found = rustix::fs::statvfs(&path).map_err(io::Error::from);
        let found = found.map_err(ContentError::io("read", &path))?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        let left = self.options.room_left;
        if free.saturating_sub(left.0) >= need {
            return Ok(());
        }
        // What is half here has its room already.
        let partial: u64 = files
            .iter()
            .map(|file| Partial::bytes_of(&self.content, file.hash))
            .sum();
        if free.saturating_sub(left.0).saturating_add(partial) >= need {
            return Ok(());
        }
        Err(FetchError::NoRoom {
            need: Bytes(need),
            free: Bytes(free),
            left,
        })
    }

    async fn engine(
        &self,
        files: Vec<Wanted>,
        holders: &[Arc<dyn Holder>],
        progress: &mut (dyn FnMut(FetchProgress) + Send),
    ) -> Result<(Fetched, Option<Held>), FetchError> {
        let permit = self.shared.fetches.acquire().await;
        let _permit = permit.map_err(|error| {
            let fail = ContentError::io("fetch into", &self.content.root);
            fail(io::Error::other(error))
        })?;
        let context = Arc::new(Context {
            content: self.content.clone(),
            memory: Arc::clone(&self.shared.memory),
            stage: Mutex::new(self.content.stage()),
            staged: Mutex::default(),
            partials: Mutex::default(),
        });
        let mut engine = Engine::new(self, Arc::clone(&context), files, holders);
        let result = engine.run(progress).await;
        let (fetched, held) = engine.into_results();
        // What came so far is kept, whether or not all did.
        let flushed = blocking(move || context.flush()).await;
        result?;
        flushed?;
        Ok((fetched, held))
    }

    /// How long ago that holder sent wrong bytes, while it is left alone.
    fn wrong_ago(&self, name: &str) -> Option<Duration> {
        let mut wrong = self.wrong();
        wrong.retain(|_, at| at.elapsed() < self.options.wrong_rest);
        wrong.get(name).map(Instant::elapsed)
    }

    fn on_wrong(&self, name: &str, hash: Hash) {
        self.wrong().insert(name.to_owned(), Instant::now());
        let holder = name.to_owned();
        self.content.tell(ContentEvent::WrongBytes { holder, hash });
    }

    fn wrong(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Instant>> {
        let wrong = &self.shared.wrong;
        wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Context {
    /// The file that is being put together; opened by who comes first.
    fn partial(&self, pieces: Arc<Pieces>, executable: bool) -> Result<Arc<Partial>, ContentError> {
        let partials = self.partials.lock();
        let mut partials = partials.unwrap_or_else(PoisonError::into_inner);
        let opening = Arc::clone(partials.entry(pieces.hash).or_default());
        drop(partials);
        let mut opening = opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(partial) = &*opening {
            return Ok(Arc::clone(partial));
        }
        let partial = Arc::new(Partial::open(&self.content, pieces, executable)?);
        *opening = Some(Arc::clone(&partial));
        Ok(partial)
    }

    fn forget(&self, hash: Hash) {
        let partials = self.partials.lock();
        partials
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&hash);
    }

    /// Called with the stage at hand, after `bytes` were added to it.
    fn flush_when_many(&self, stage: &mut Stage, bytes: u64) -> Result<(), ContentError> {
        let mut staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        *staged += bytes;
        if *staged < FLUSH_BYTES && stage.len() < FLUSH_FILES {
            return Ok(());
        }
        *staged = 0;
        stage.flush()
    }

    fn flush(&self) -> Result<(), ContentError> {
        self.stage
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .flush()
    }
}

impl Fetched {
    /// What came over the network.
    pub fn received(&self) -> Bytes {
        Bytes(self.from.values().map(|bytes| bytes.0).sum())
    }

    fn add(&mut self, more: Self) {
        self.files += more.files;
        self.resumed = Bytes(self.resumed.0 + more.resumed.0);
        self.wrong.extend(more.wrong);
        for (name, bytes) in more.from {
            let sum = self.from.entry(name).or_insert(Bytes(0));
            *sum = Bytes(sum.0 + bytes.0);
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ContentError> + Send + 'static,
) -> Result<T, ContentError> {
    spawn_blocking(work).await.unwrap_or_else(|error| {
        let fail = ContentError::io("work on", std::path::Path::new("content"));
        Err(fail(io::Error::other(error)))
    })
}
