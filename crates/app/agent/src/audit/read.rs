//! Reads the log's files: where it ends, what is newest, whether it is whole.

use super::line::{Entry, GENESIS, read};
use kernel::Hash;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use utoipa::ToSchema;

/// Where the log ends, as the store keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The oldest line that is kept.
    pub first: u64,
    /// The newest line's number.
    pub count: u64,
    pub hash: Hash,
}

/// What became of looking through the whole log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verdict {
    /// Lines that are in order, before the first that is not.
    pub lines: u64,
    pub first: u64,
    /// The last good line's.
    #[schema(value_type = String)]
    pub hash: Hash,
    /// Where the first bad line is, `FILE:LINE`, and what is wrong with it.
    pub fault: Option<String>,
    /// Bytes of a last line that was cut short: a kill, not tampering.
    pub torn_bytes: u64,
    /// Whether the store's knowledge of the end was compared.
    pub compared: bool,
}

/// The end of the files, mended.
pub struct End {
    pub head: Option<Head>,
    pub torn_bytes: u64,
}

pub fn file_name(first: u64) -> String {
    format!("log-{first:020}.jsonl")
}

/// With the number of each one's first line, oldest first.
pub fn files(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name
            .and_then(|name| name.strip_prefix("log-")?.strip_suffix(".jsonl"))
            .and_then(|number| number.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort();
    Ok(found)
}

/// Cuts off a last line without its newline, and reads the one before.
pub fn end(directory: &Path) -> End {
    let mut end = End {
        head: None,
        torn_bytes: 0,
    };
    let Ok(files) = files(directory) else {
        return end;
    };
    let first = files.first().map_or(1, |(first, _)| *first);
    for (_, path) in files.iter().rev() {
        let Ok(bytes) = fs::read(path) else { continue };
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        if whole < bytes.len() {
            end.torn_bytes += (bytes.len() - whole) as u64;
            let cut = fs::OpenOptions::new().write(true).open(path);
            let cut =
                cut.and_then(|file| file.set_len(whole as u64).and_then(|()| file.sync_all()));
            if let Err(error) = cut {
                tracing::error!(path = %path.display(), %error, "a torn line was not cut off");
            }
        }
        let text = String::from_utf8_lossy(&bytes[..whole]);
        if let Some(last) = text.lines().last() {
            end.head = read(last).ok().map(|(entry, hash)| Head {
                first,
                count: entry.number,
                hash,
            });
            return end;
        }
    }
    end
}

/// The newest entries that can be read, oldest first.
pub fn newest(directory: &Path, limit: usize) -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    for (_, path) in files(directory)?.iter().rev() {
        let bytes = fs::read(path)?;
        let text = String::from_utf8_lossy(&bytes);
        let entries = text.lines().rev().filter_map(|line| read(line).ok());
        found.extend(entries.map(|(entry, _)| entry).take(limit - found.len()));
        if found.len() >= limit {
            break;
        }
    }
    found.reverse();
    Ok(found)
}

/// Looks through a directory of logs, or one file.
pub fn verify(path: &Path, head: Option<&Head>) -> Verdict {
    let mut verdict = Verdict {
        lines: 0,
        first: head.map_or(0, |head| head.first),
        hash: Hash(GENESIS),
        fault: None,
        torn_bytes: 0,
        compared: head.is_some(),
    };
    let files = if path.is_file() {
        Ok(vec![(0, path.to_owned())])
    } else {
        files(path)
    };
    let files = match files {
        Ok(files) => files,
        Err(error) => {
            verdict.fault = Some(format!("cannot list {}: {error}", path.display()));
            return verdict;
        }
    };
    let mut walk = Walk {
        verdict,
        last: None,
        head,
    };
    let count = files.len();
    for (index, (_, path)) in files.iter().enumerate() {
        if let Err(fault) = walk.file(path, index + 1 == count) {
            walk.verdict.fault = Some(fault);
            return walk.verdict;
        }
    }
    walk.end()
}

struct Walk<'a> {
    verdict: Verdict,
    last: Option<u64>,
    head: Option<&'a Head>,
}

impl Walk<'_> {
    fn file(&mut self, path: &Path, newest: bool) -> Result<(), String> {
        let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut rest = &bytes[..];
        let mut at = 0;
        while !rest.is_empty() {
            at += 1;
            let place = |why: String| format!("{}:{at}: {why}", path.display());
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                if !newest {
                    return Err(place("it is cut short".to_owned()));
                }
                self.verdict.torn_bytes = rest.len() as u64;
                return Ok(());
            };
            let text =
                std::str::from_utf8(&rest[..end]).map_err(|_| place("no text".to_owned()))?;
            let (entry, hash) = read(text).map_err(place)?;
            self.line(&entry, hash).map_err(place)?;
            rest = &rest[end + 1..];
        }
        Ok(())
    }

    fn line(&mut self, entry: &Entry, hash: Hash) -> Result<(), String> {
        match self.last {
            Some(last) if entry.number != last + 1 => {
                let (from, to) = (last + 1, entry.number.saturating_sub(1));
                return Err(if entry.number > last {
                    format!("lines {from} to {to} are missing before it")
                } else {
                    format!("it is line {}, after line {last}", entry.number)
                });
            }
            Some(_) if entry.previous != self.verdict.hash => {
                return Err("it does not follow from the line before".to_owned());
            }
            Some(_) => {}
            None => self.opening(entry)?,
        }
        if let Some(head) = self.head.filter(|head| head.count == entry.number)
            && head.hash != hash
        {
            return Err("it is not the line that the store knows".to_owned());
        }
        self.last = Some(entry.number);
        self.verdict.lines += 1;
        self.verdict.hash = hash;
        Ok(())
    }

    /// The oldest line there is: the first of all, or the oldest that is kept.
    fn opening(&mut self, entry: &Entry) -> Result<(), String> {
        let first = self.head.map_or(entry.number, |head| head.first);
        self.verdict.first = entry.number;
        if entry.number != first {
            return Err(format!(
                "the log begins with line {first}, not {}",
                entry.number
            ));
        }
        if entry.number == 1 && entry.previous != Hash(GENESIS) {
            return Err("the first line does not begin a log".to_owned());
        }
        Ok(())
    }

    fn end(mut self) -> Verdict {
        let last = self.last.unwrap_or(0);
        if let Some(head) = self.head {
            if last < head.count {
                let from = last + 1;
                let why = format!("lines {from} to {} are missing at the end", head.count);
                self.verdict.fault = Some(why);
            } else if last > head.count + 1 {
                let from = head.count + 1;
                let why = format!("lines {from} to {last} are not known to the store");
                self.verdict.fault = Some(why);
            }
        }
        self.verdict
    }
}
