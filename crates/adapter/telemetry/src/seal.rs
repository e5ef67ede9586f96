//! Turns closed segments of rows into Parquet files, and bounds those.
//!
//! In: segments of rows. Out: Parquet files, oldest removed first.
//! Holds: each row ends in one Parquet file, across a crash at any point: a
//! file names its segments, and segments that a file names are only removed.

use crate::error::{TelemetryError, list};
use crate::parquet_file::{AccessFile, segments};
use crate::segment::{CLOSED, OPEN, read_segment};
use kernel::Bytes;
use std::fs::{self, File, TryLockError};
use std::io::{BufWriter, ErrorKind};
use std::path::{Path, PathBuf};

const BATCH_BYTES: u64 = 64 << 20;
const GROUP_ROWS: usize = 32 << 10;
const PARQUET: &str = "parquet";
const PARTIAL: &str = "partial";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    pub segments: u64,
    pub rows: u64,
    pub files: u64,
    /// Parquet files removed to stay under the cap.
    pub removed: u64,
    /// Segments of another format, put aside as `.bad`.
    pub bad: u64,
    /// Whole rows of another version, left out.
    pub unreadable: u64,
}

/// Seals every closed segment, and those whose writer has died. One caller at a
/// time.
pub fn seal(
    rows_directory: &Path,
    parquet_directory: &Path,
    cap: Bytes,
) -> Result<Sealed, TelemetryError> {
    for directory in [rows_directory, parquet_directory] {
        fs::create_dir_all(directory).map_err(TelemetryError::io("create", directory))?;
    }
    for partial in list(parquet_directory, PARTIAL)? {
        remove(&partial)?;
    }
    close_dead(rows_directory)?;
    let mut sealed = Sealed::default();
    let left = without_sealed(rows_directory, parquet_directory)?;
    for batch in batches(left)? {
        seal_batch(&batch, parquet_directory, &mut sealed)?;
        batch.iter().try_for_each(|path| remove(path))?;
        sync(rows_directory)?;
    }
    sealed.removed = enforce(parquet_directory, cap)?;
    Ok(sealed)
}

/// A writer holds its segment's lock while it lives.
fn close_dead(rows: &Path) -> Result<(), TelemetryError> {
    for path in list(rows, OPEN)? {
        let file = match File::open(&path) {
            // Its writer closed it just now.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            other => other.map_err(TelemetryError::io("open", &path))?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => {
                return Err(TelemetryError::io("lock", &path)(error));
            }
        }
        // Renamed under the lock: a writer that was about to take it looks again.
        match fs::rename(&path, path.with_extension(CLOSED)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(TelemetryError::io("close", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The closed segments, after removing those a Parquet file already holds.
fn without_sealed(rows: &Path, parquet: &Path) -> Result<Vec<PathBuf>, TelemetryError> {
    let mut paths = list(rows, CLOSED)?;
    for file in list(parquet, PARQUET)? {
        let stem = stem(&file);
        let Some((first, last)) = stem.split_once("..") else {
            continue;
        };
        let within = |path: &PathBuf| (first..=last).contains(&crate::seal::stem(path));
        if !paths.iter().any(within) {
            continue;
        }
        let held = segments(&file).map_err(|source| TelemetryError::Parquet {
            action: "read",
            path: file.clone(),
            source,
        })?;
        for name in held.lines() {
            if let Some(at) = paths
                .iter()
                .position(|path| crate::seal::stem(path) == name)
            {
                remove(&paths.remove(at))?;
            }
        }
    }
    Ok(paths)
}

fn batches(paths: Vec<PathBuf>) -> Result<Vec<Vec<PathBuf>>, TelemetryError> {
    let mut batches: Vec<Vec<PathBuf>> = Vec::new();
    let mut room = 0;
    for path in paths {
        let bytes = size(&path)?;
        match batches.last_mut() {
            Some(batch) if bytes <= room => batch.push(path),
            _ => {
                room = BATCH_BYTES.max(bytes);
                batches.push(vec![path]);
            }
        }
        room -= bytes;
    }
    Ok(batches)
}

fn seal_batch(
    batch: &[PathBuf],
    directory: &Path,
    sealed: &mut Sealed,
) -> Result<(), TelemetryError> {
    let (Some(first), Some(last)) = (batch.first(), batch.last()) else {
        return Ok(());
    };
    let target = directory.join(format!("{}..{}.{PARQUET}", stem(first), stem(last)));
    let partial = directory.join(format!("{}.{PARTIAL}", stem(first)));
    let before = sealed.rows;
    let written = write_batch(batch, &partial, sealed);
    if written.is_err() || sealed.rows == before {
        let _ = fs::remove_file(&partial);
        return written;
    }
    fs::rename(&partial, &target).map_err(TelemetryError::io("create", &target))?;
    sync(directory)?;
    sealed.files += 1;
    Ok(())
}

fn write_batch(
    batch: &[PathBuf],
    partial: &Path,
    sealed: &mut Sealed,
) -> Result<(), TelemetryError> {
    let fail = |source| TelemetryError::Parquet {
        action: "write",
        path: partial.to_owned(),
        source,
    };
    let file = File::create(partial).map_err(TelemetryError::io("create", partial))?;
    let names: Vec<_> = batch.iter().map(|path| stem(path)).collect();
    let mut to = AccessFile::new(BufWriter::new(file), &names.join("\n")).map_err(fail)?;
    let mut group = Vec::new();
    for path in batch {
        let mut rows = match read_segment(path) {
            Err(TelemetryError::NotASegment { .. }) => {
                let aside = path.with_extension("bad");
                fs::rename(path, &aside).map_err(TelemetryError::io("put aside", path))?;
                sealed.bad += 1;
                continue;
            }
            other => other?,
        };
        sealed.segments += 1;
        for row in rows.by_ref() {
            group.push(row);
            if group.len() >= GROUP_ROWS {
                to.write(&group).map_err(fail)?;
                sealed.rows += group.len() as u64;
                group.clear();
            }
        }
        sealed.unreadable += rows.unreadable();
    }
    if !group.is_empty() {
        to.write(&group).map_err(fail)?;
        sealed.rows += group.len() as u64;
    }
    to.finish()
        .map_err(fail)?
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error)
        .and_then(|file| file.sync_all())
        .map_err(TelemetryError::io("write", partial))
}

/// Removes the oldest files until the rest fit; how many.
fn enforce(directory: &Path, cap: Bytes) -> Result<u64, TelemetryError> {
    let mut files = Vec::new();
    for path in list(directory, PARQUET)? {
        files.push((size(&path)?, path));
    }
    let mut total: u64 = files.iter().map(|(bytes, _)| bytes).sum();
    let mut removed = 0;
    for (bytes, path) in files {
        if total <= cap.0 {
            break;
        }
        remove(&path)?;
        total -= bytes;
        removed += 1;
    }
    Ok(removed)
}

fn stem(path: &Path) -> &str {
    path.file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or("")
}

fn size(path: &Path) -> Result<u64, TelemetryError> {
    fs::metadata(path)
        .map(|found| found.len())
        .map_err(TelemetryError::io("read", path))
}

fn remove(path: &Path) -> Result<(), TelemetryError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(TelemetryError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn sync(directory: &Path) -> Result<(), TelemetryError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(TelemetryError::io("sync", directory))
}
