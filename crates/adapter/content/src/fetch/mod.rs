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
mod terms;

pub(crate) use partial::Partial;
pub use terms::{FetchError, FetchOptions, FetchProgress, Fetched, Wanted};

use crate::error::ContentError;
use crate::pieces::Pieces;
use crate::stage::Stage;
use crate::{Checked, Content, ContentEvent};
use engine::{Engine, Held};
use futures_util::future::BoxFuture;
use kernel::{Bytes, Hash};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use wire::content::Tree;

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
                self.mend(Wanted::new(hash), holders).await?;
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
        wanted: Wanted,
        holders: &[Arc<dyn Holder>],
    ) -> Result<Fetched, FetchError> {
        let hash = wanted.hash;
        let _lease = self.content.lease(hash);
        let content = self.content.clone();
        let checked = blocking(move || content.check(hash)).await?;
        if matches!(checked, Checked::Right { .. }) {
            return Ok(Fetched::default());
        }
        let fetched = self.fetch(wanted, holders, &mut |_| {}).await?;
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

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ContentError> + Send + 'static,
) -> Result<T, ContentError> {
    spawn_blocking(work).await.unwrap_or_else(|error| {
        let fail = ContentError::io("work on", std::path::Path::new("content"));
        Err(fail(io::Error::other(error)))
    })
}
