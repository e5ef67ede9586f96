//! Backup and restore of what the node was told and what its services keep:
//! the control group and the buckets, at one cut.
//!
//! Holds: a restore is whole or leaves all as it was; stores that are there are
//! moved aside, never written over.
//! Never: contains content, logs or keys; `docs/operating.md` says what goes
//! along.

use crate::cluster;
use crate::machine::unix_now;
use crate::shared::Shared;
use kernel::Revision;
use node::desired::FIRST_NODE;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use store::{Backup, BackupError, Options};
use wire::layout::Layout;

const CONTROL: &str = "control";
const BUCKETS: &str = "buckets";

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    #[error("a node runs on {0}")]
    Running(PathBuf),
    #[error("there is a store at {0} already")]
    There(PathBuf),
    #[error(
        "{others} other nodes keep this cluster's state and go on without this one: restored \
         here, it would be a second cluster, and what was changed since the backup would be lost"
    )]
    Others { others: usize },
    #[error("cannot use {path}")]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Outside(#[from] cluster::group::control::outside::OutsideError),
    #[error(transparent)]
    Backup(#[from] BackupError),
}

impl RestoreError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Running(_) => Some("homeostat down"),
            Self::There(_) => Some("give `--replace`: what is there is moved aside"),
            Self::Others { .. } => Some(
                "start this node as it is: the others bring it up to date; where they are lost \
                 for good, give `--alone`",
            ),
            Self::File { .. } => Some("let this user write the data directory"),
            Self::Outside(error) => error.hint(),
            Self::Backup(error) => error.hint(),
        }
    }
}

/// One file's bytes, without desired state where that is in an etcd; secrets in it are sealed as they are in the store.
pub async fn backup(shared: &Shared) -> Result<Vec<u8>, BackupError> {
    let control = shared.control.embedded();
    let control = control.map(|store| (CONTROL, store));
    let buckets = (BUCKETS, shared.buckets.store());
    let stores: Vec<_> = control.into_iter().chain([buckets]).collect();
    store::backup(&stores, unix_now()).await
}

/// Makes the stores of a node that does not run. Blocks.
///
/// * `replace`: stores that are there are moved aside.
/// * `alone`: also where other nodes keep the cluster's state.
///
/// Returns the cut's revisions, by store.
pub fn restore(
    layout: &Layout,
    bytes: &[u8],
    (replace, alone): (bool, bool),
) -> Result<Vec<(String, Revision)>, RestoreError> {
    let kept = Backup::read(bytes)?;
    let file = |path: &Path, source| RestoreError::File {
        path: path.to_owned(),
        source,
    };
    let lock = layout.agent_lock();
    for path in [&lock, &layout.control()] {
        let folder = path.parent().unwrap_or(&layout.root);
        fs::create_dir_all(folder).map_err(|source| file(folder, source))?;
    }
    let _lock = ipc::lock_file(&lock).map_err(|_| RestoreError::Running(layout.root.clone()))?;
    let others = cluster::group::others_noted(layout).len();
    if others > 0 && !alone {
        return Err(RestoreError::Others { others });
    }
    let own = cluster::Kept::new(layout).own().ok().flatten();
    let node = own.map_or(FIRST_NODE, |own| own.id);
    let mut targets = vec![(CONTROL, layout.control()), (BUCKETS, layout.buckets())];
    if cluster::group::control::outside::read(layout)?.is_some() {
        targets.retain(|(name, _)| *name != CONTROL);
    }
    let there = targets.iter().find(|(_, path)| path.exists());
    if let Some((_, path)) = there.filter(|_| !replace) {
        return Err(RestoreError::There(path.clone()));
    }
    let mut moved = Moved::default();
    for (_, path) in &targets {
        moved.aside(path).map_err(|source| file(path, source))?;
    }
    for (name, path) in &targets {
        moved.made.push(path.clone());
        let options = Options {
            path: path.clone(),
            node,
            group: store::Group::Alone,
        };
        kept.restore(name, &options)?;
    }
    let marked = cluster::group::generation::mark(layout, node);
    marked.map_err(BackupError::Make)?;
    moved.done = true;
    let revisions = kept.revisions();
    Ok(revisions
        .map(|(name, revision)| (name.to_owned(), revision))
        .collect())
}

/// What was moved aside, and comes back unless all went well.
#[derive(Default)]
struct Moved {
    from_to: Vec<(PathBuf, PathBuf)>,
    made: Vec<PathBuf>,
    done: bool,
}

impl Moved {
    fn aside(&mut self, path: &Path) -> io::Result<()> {
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".before-{}", unix_now().0));
        let aside = PathBuf::from(aside);
        match fs::rename(path, &aside) {
            Ok(()) => self.from_to.push((path.to_owned(), aside)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        for path in &self.made {
            let _ = fs::remove_file(path);
        }
        for (path, aside) in &self.from_to {
            let _ = fs::rename(aside, path);
        }
    }
}
