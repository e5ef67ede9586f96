//! What can go wrong with content, each with the path and the next step.

use kernel::Hash;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    #[error("the disk under `{}` is full; nothing of this change is visible", path.display())]
    Full { path: PathBuf, source: io::Error },
    #[error("cannot {action} `{}`", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("`{}` is a link that leads out of `{}`", path.display(), root.display())]
    Escapes { path: PathBuf, root: PathBuf },
    #[error("`{}` is a link to a directory that contains it", path.display())]
    Cycle { path: PathBuf },
    #[error("`{}` is neither a file nor a directory", path.display())]
    NotAFile { path: PathBuf },
    #[error("the name of `{}` is not UTF-8", path.display())]
    Name { path: PathBuf },
    #[error("`{}` kept changing while it was read", path.display())]
    Changing { path: PathBuf },
    #[error("`{}` holds more than {limit} {what}", path.display())]
    TooMany {
        path: PathBuf,
        what: &'static str,
        limit: usize,
    },
    #[error("content {hash} is missing: no `{}`", path.display())]
    Missing { hash: Hash, path: PathBuf },
    #[error("content {hash} is damaged: the bytes of `{}` have another hash", path.display())]
    Damaged { hash: Hash, path: PathBuf },
    #[error("tree {hash} cannot be read")]
    Tree {
        hash: Hash,
        source: wire::record::RecordError,
    },
    #[error("the pins in `{}` cannot be read", path.display())]
    Pins {
        path: PathBuf,
        source: wire::record::RecordError,
    },
    #[error("what holders say to each other cannot be written")]
    Exchange {
        source: wire::exchange::ExchangeError,
    },
    #[error("tree {hash} names the path `{path}`, which is not allowed")]
    TreePath { hash: Hash, path: String },
}

impl ContentError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Full { .. } => Some("free space on that disk and apply again"),
            Self::Escapes { .. } => {
                Some("copy what it points to into the site, or remove the link")
            }
            Self::Cycle { .. } | Self::NotAFile { .. } => Some("remove it from the site"),
            Self::Name { .. } => Some("rename it"),
            Self::Changing { .. } => Some("apply again when nothing writes to it"),
            Self::TooMany { .. } => Some("split it into several sites"),
            Self::Missing { .. } | Self::Damaged { .. } => {
                Some("apply the site again: what is missing or damaged is then written anew")
            }
            Self::Tree { .. } | Self::TreePath { .. } => Some("apply the site again"),
            Self::Pins { .. } => Some("remove that file: what it kept is then collected"),
            Self::Io { .. } | Self::Exchange { .. } => None,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { path, source }
            }
            _ => Self::Io {
                action,
                path,
                source,
            },
        }
    }
}
