//! What can be wrong with a key or a sealed value, and what to do then.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    #[error("cannot use the key of secrets, {path}")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the key of secrets, {path}, is damaged: {why}")]
    Key { path: PathBuf, why: &'static str },
    #[error("the operating system gives no random bytes")]
    Random,
    #[error(
        "the secret `{name}` has {bytes} bytes; {} at most",
        crate::VALUE_BYTES_MAX
    )]
    TooLarge { name: String, bytes: usize },
    #[error("the secret `{name}` is damaged in the store")]
    Damaged { name: String },
    #[error("the secret `{name}` was sealed with another key than {path}")]
    OtherKey { name: String, path: PathBuf },
    #[error(
        "the secret `{name}` is sealed in the format `{found}`, which this program cannot read"
    )]
    Format { name: String, found: String },
}

impl VaultError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::File { .. } => Some("let the node's user, and nobody else, read and write it"),
            Self::Key { .. } => Some(
                "bring the key back from a copy of the data directory; without one, move it away, \
                 start the node and set each secret again",
            ),
            Self::Damaged { .. } => Some("set it again: homeostat secret set NAME"),
            Self::OtherKey { .. } => Some(
                "bring back the key it was sealed with, or set it again: homeostat secret set NAME",
            ),
            Self::Format { .. } => Some("use the release that wrote it, or set it again"),
            Self::TooLarge { .. } => Some("keep large things in a file or a bucket"),
            Self::Random => None,
        }
    }
}
