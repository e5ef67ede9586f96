//! What can go wrong with telemetry, each with its path.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    #[error("cannot {action} `{}`", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("`{}` is not a row segment of version {expected}", path.display())]
    NotASegment { path: PathBuf, expected: u8 },
    #[error("cannot {action} the Parquet file `{}`", path.display())]
    Parquet {
        action: &'static str,
        path: PathBuf,
        source: parquet::errors::ParquetError,
    },
    #[error("a journal entry cannot be written as JSON")]
    Entry(#[source] serde_json::Error),
}

impl TelemetryError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// Files of a directory with that extension, by name.
pub(crate) fn list(directory: &Path, extension: &str) -> Result<Vec<PathBuf>, TelemetryError> {
    let fail = || TelemetryError::io("read the directory", directory);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(fail())? {
        let path = entry.map_err(fail())?.path();
        if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
