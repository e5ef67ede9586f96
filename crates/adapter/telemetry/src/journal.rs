//! The journal of decisions: lines of `CRC32 JSON`, in files that rotate.
//!
//! In: entries. Out: `decisions-SERIAL.jsonl`.
//! Holds: an appended entry is with the kernel; a broken line costs only
//! itself; the directory stays under its cap, the newest file spared.

use crate::error::{TelemetryError, list};
use kernel::{Bytes, DecisionId, UnixMillis};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;
use wire::decision::JournalEntry;

const EXTENSION: &str = "jsonl";

#[derive(Clone, Copy, Debug)]
pub struct JournalOptions {
    pub file: Bytes,
    pub cap: Bytes,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            file: Bytes::mebibytes(4),
            cap: Bytes::mebibytes(64),
        }
    }
}

#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    options: JournalOptions,
    writer: Mutex<Writer>,
}

#[derive(Debug)]
struct Writer {
    serial: u64,
    file: Option<(File, PathBuf, u64)>,
}

impl Journal {
    /// Opens for appending. What an earlier process left is not written to.
    pub fn open(directory: &Path, options: JournalOptions) -> Result<Self, TelemetryError> {
        fs::create_dir_all(directory).map_err(TelemetryError::io("create", directory))?;
        let serial = list(directory, EXTENSION)?
            .iter()
            .filter_map(|path| path.file_stem()?.to_str()?.rsplit('-').next()?.parse().ok())
            .max()
            .unwrap_or(0);
        Ok(Self {
            directory: directory.to_owned(),
            options,
            writer: Mutex::new(Writer { serial, file: None }),
        })
    }

    /// Appends an entry, stamping the wall clock where the core left zero.
    pub fn append(&self, entry: &JournalEntry) -> Result<(), TelemetryError> {
        let mut entry = entry.clone();
        let stamp = match &mut entry {
            JournalEntry::Decision(decision) => &mut decision.at_unix,
            JournalEntry::Observation(observation) => &mut observation.at_unix,
        };
        if *stamp == UnixMillis(0) {
            *stamp = now();
        }
        let json = serde_json::to_string(&entry).map_err(TelemetryError::Entry)?;
        let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut file, path, bytes) = match writer.file.take() {
            Some(open) => open,
            None => self.next_file(&mut writer)?,
        };
        // After an error the line may be torn: the next entry opens a new file.
        file.write_all(line.as_bytes())
            .map_err(TelemetryError::io("append to", &path))?;
        let bytes = bytes + line.len() as u64;
        if bytes < self.options.file.0 {
            writer.file = Some((file, path, bytes));
        }
        Ok(())
    }

    fn next_file(&self, writer: &mut Writer) -> Result<(File, PathBuf, u64), TelemetryError> {
        self.enforce()?;
        writer.serial += 1;
        let path = self
            .directory
            .join(format!("decisions-{:010}.{EXTENSION}", writer.serial));
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(&path)
            .map_err(TelemetryError::io("create", &path))?;
        Ok((file, path, 0))
    }

    /// Makes room for one more file, sparing the newest.
    fn enforce(&self) -> Result<(), TelemetryError> {
        let mut kept = self.options.file.0;
        for (index, path) in list(&self.directory, EXTENSION)?.iter().rev().enumerate() {
            kept += fs::metadata(path)
                .map_err(TelemetryError::io("read", path))?
                .len();
            if index > 0 && kept > self.options.cap.0 {
                fs::remove_file(path).map_err(TelemetryError::io("remove", path))?;
            }
        }
        Ok(())
    }
}

/// Every whole entry, oldest first; none where there is no directory.
pub fn read_all(directory: &Path) -> Result<Vec<JournalEntry>, TelemetryError> {
    let mut entries = Vec::new();
    for path in files(directory)? {
        entries.extend(read_file(&path)?);
    }
    Ok(entries)
}

/// The greatest id of a decision in the newest file that has one.
pub fn last_decision_id(directory: &Path) -> Result<Option<DecisionId>, TelemetryError> {
    for path in files(directory)?.iter().rev() {
        let ids = read_file(path)?
            .into_iter()
            .filter_map(|entry| match entry {
                JournalEntry::Decision(decision) => Some(decision.id),
                JournalEntry::Observation(_) => None,
            });
        if let Some(id) = ids.max_by_key(|id| id.0) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

fn files(directory: &Path) -> Result<Vec<PathBuf>, TelemetryError> {
    if directory.exists() {
        list(directory, EXTENSION)
    } else {
        Ok(Vec::new())
    }
}

fn read_file(path: &Path) -> Result<Vec<JournalEntry>, TelemetryError> {
    let bytes = fs::read(path).map_err(TelemetryError::io("read", path))?;
    Ok(bytes
        .split(|byte| *byte == b'\n')
        .filter_map(read_line)
        .collect())
}

fn read_line(line: &[u8]) -> Option<JournalEntry> {
    let (checksum, json) = line.split_at_checked(9)?;
    let checksum = std::str::from_utf8(checksum).ok()?.strip_suffix(' ')?;
    if crc32fast::hash(json) != u32::from_str_radix(checksum, 16).ok()? {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn now() -> UnixMillis {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
