//! Why an edge could not start, or stopped.

use std::io;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EdgeError {
    #[error("the data directory's path cannot be made absolute")]
    Directory(#[source] io::Error),
    #[error("the runtime did not start")]
    Runtime(#[source] io::Error),
    #[error("signals cannot be received")]
    Signals(#[source] io::Error),
    #[error("content did not open")]
    Content(#[from] content::ContentError),
    #[error("the listening sockets cannot be used")]
    Listeners(#[source] io::Error),
    #[error("the supervisor that started this edge is gone, before it gave the listening sockets")]
    Orphan,
}

impl EdgeError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Directory(_) => Some("give an existing one with `--data-dir DIR`"),
            Self::Content(error) => error.hint(),
            Self::Orphan => Some("start the node again: `homeostat up` starts its edge"),
            Self::Runtime(_) | Self::Signals(_) | Self::Listeners(_) => None,
        }
    }
}
