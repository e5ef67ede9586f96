//! The captured lines of a replica, in numbered files.
//!
//! Layout: `logs/NNNNNNNNNN.log`, the highest number is written to; a line is
//! `UNIX_MS o|e TEXT`. Numbers only grow, so a reader's place (file, offset)
//! survives rotation. Holds: at most `log_files_max` files of about
//! `log_bytes_max` each; a line over [`LINE_BYTES_MAX`] is cut into several.
//! Never: fails the replica; what cannot be written is dropped.

use crate::clock;
use kernel::{ReplicaId, ScopedName};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use wire::api::LogLine;

pub const LOG_BYTES_MAX: u64 = 8 << 20;
pub const LOG_FILES_MAX: u32 = 5;
pub const LINE_BYTES_MAX: usize = 16 << 10;
/// What one read of a follower takes at most from one file.
const READ_BYTES_MAX: u64 = 4 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

pub struct LogWriter {
    directory: PathBuf,
    bytes_max: u64,
    files_max: u32,
    number: u64,
    file: File,
    bytes: u64,
    /// Unfinished lines, by [`Stream`].
    partial: [Vec<u8>; 2],
}

impl LogWriter {
    /// Of a replica that has no shim: beside the others', within their bounds.
    pub fn of_replica(replicas: &Path, replica: &ReplicaId) -> io::Result<Self> {
        let directory = log_directory(&replicas.join(replica.to_string()));
        Self::open(&directory, LOG_BYTES_MAX, LOG_FILES_MAX)
    }

    pub fn open(directory: &Path, bytes_max: u64, files_max: u32) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let number = numbers(directory)?.last().copied().unwrap_or(1);
        let file = open_append(directory, number)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            directory: directory.to_owned(),
            bytes_max: bytes_max.max(1),
            files_max: files_max.max(1),
            number,
            file,
            bytes,
            partial: [Vec::new(), Vec::new()],
        })
    }

    pub fn push(&mut self, stream: Stream, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let partial = &mut self.partial[stream as usize];
            partial.extend_from_slice(piece);
            while self.partial[stream as usize].len() > LINE_BYTES_MAX {
                let rest = self.partial[stream as usize].split_off(LINE_BYTES_MAX);
                self.finish(stream);
                self.partial[stream as usize] = rest;
            }
            if piece.ends_with(b"\n") {
                self.finish(stream);
            }
        }
    }

    /// Writes what has no newline yet: its writer is gone.
    pub fn flush(&mut self) {
        for stream in [Stream::Out, Stream::Err] {
            if !self.partial[stream as usize].is_empty() {
                self.finish(stream);
            }
        }
    }

    fn finish(&mut self, stream: Stream) {
        let mut text = std::mem::take(&mut self.partial[stream as usize]);
        while matches!(text.last(), Some(b'\n' | b'\r')) {
            text.pop();
        }
        let mark = match stream {
            Stream::Out => 'o',
            Stream::Err => 'e',
        };
        let mut line = format!("{} {mark} ", clock::unix_ms()).into_bytes();
        line.append(&mut text);
        line.push(b'\n');
        if self.bytes >= self.bytes_max {
            self.rotate();
        }
        if self.file.write_all(&line).is_ok() {
            self.bytes += u64::try_from(line.len()).unwrap_or(0);
        }
    }

    fn rotate(&mut self) {
        let Ok(file) = open_append(&self.directory, self.number + 1) else {
            return;
        };
        self.number += 1;
        self.file = file;
        self.bytes = 0;
        let oldest = self.number.saturating_sub(u64::from(self.files_max) - 1);
        for number in numbers(&self.directory).unwrap_or_default() {
            if number < oldest {
                let _ = std::fs::remove_file(file_path(&self.directory, number));
            }
        }
    }
}

/// A follower's place in a replica's log.
#[derive(Clone, Debug)]
pub struct LogCursor {
    replica: String,
    directory: PathBuf,
    number: u64,
    offset: u64,
}

impl LogCursor {
    /// At the oldest line kept. `directory` is `DATA/replicas/ID`.
    pub fn oldest(directory: &Path) -> Self {
        let replica = directory.file_name().unwrap_or_default();
        Self {
            replica: replica.to_string_lossy().into_owned(),
            directory: log_directory(directory),
            number: 0,
            offset: 0,
        }
    }

    /// The whole lines since the last call, oldest first; empty when there are
    /// none yet. Lines rotated away meanwhile are skipped.
    pub fn next_lines(&mut self) -> io::Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        let numbers = match numbers(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(lines),
            other => other?,
        };
        for (index, &number) in numbers.iter().enumerate() {
            if number < self.number {
                continue;
            }
            if number > self.number {
                (self.number, self.offset) = (number, 0);
            }
            let more = self.read_file(&mut lines)?;
            // The next file is begun only when this one is read out.
            if more || index + 1 == numbers.len() {
                break;
            }
        }
        Ok(lines)
    }

    /// Whether the file holds more than was taken.
    fn read_file(&mut self, lines: &mut Vec<LogLine>) -> io::Result<bool> {
        let mut file = match File::open(file_path(&self.directory, self.number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n');
        let Some(whole) = whole.map(|at| at + 1) else {
            return Ok(false);
        };
        self.offset += u64::try_from(whole).unwrap_or(0);
        for line in bytes[..whole].split(|byte| *byte == b'\n') {
            lines.extend(self.parse(line));
        }
        Ok(u64::try_from(bytes.len()).unwrap_or(0) == READ_BYTES_MAX)
    }

    fn parse(&self, line: &[u8]) -> Option<LogLine> {
        let line = String::from_utf8_lossy(line);
        let mut parts = line.splitn(3, ' ');
        let at_unix_ms = parts.next()?.parse().ok()?;
        let stream = match parts.next()? {
            "o" => "out",
            "e" => "err",
            _ => return None,
        };
        Some(LogLine {
            replica: self.replica.clone(),
            stream: stream.to_owned(),
            at_unix_ms,
            text: parts.next()?.to_owned(),
        })
    }
}

/// The last `tail_lines` lines of a replica, oldest first, and the place to
/// follow from. `directory` is `DATA/replicas/ID`; no log gives no lines.
pub fn read_log(directory: &Path, tail_lines: usize) -> io::Result<(Vec<LogLine>, LogCursor)> {
    let mut cursor = LogCursor::oldest(directory);
    let mut tail = Vec::new();
    loop {
        let lines = cursor.next_lines()?;
        if lines.is_empty() {
            return Ok((tail, cursor));
        }
        tail.extend(lines);
        let surplus = tail.len().saturating_sub(tail_lines);
        tail.drain(..surplus);
    }
}

/// The directories of all of a service's replicas that have logs here, removed
/// ones too, oldest generation first. `replicas` is `DATA/replicas`.
pub fn replica_directories(replicas: &Path, service: &ScopedName) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<(ReplicaId, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(replicas)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Ok(id) = name.parse::<ReplicaId>()
            && id.service == *service
        {
            found.push((id, path.clone()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

pub fn log_directory(directory: &Path) -> PathBuf {
    directory.join("logs")
}

fn file_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:010}.log"))
}

fn open_append(directory: &Path, number: u64) -> io::Result<File> {
    let path = file_path(directory, number);
    File::options().append(true).create(true).open(path)
}

fn numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn a_follower_survives_rotation() {
        let home = tempfile::tempdir().expect("a directory");
        let mut log = LogWriter::open(&log_directory(home.path()), 100, 3).expect("opens");
        let mut cursor = LogCursor::oldest(home.path());
        let mut seen = Vec::new();
        for number in 0..50 {
            log.push(Stream::Out, format!("line {number}\n").as_bytes());
            if number % 5 == 0 {
                seen.extend(cursor.next_lines().expect("reads"));
            }
        }
        seen.extend(cursor.next_lines().expect("reads"));
        let expected: Vec<String> = (0..50).map(|number| format!("line {number}")).collect();
        assert_eq!(texts(&seen), expected);
        assert!(numbers(&log_directory(home.path())).expect("lists").len() <= 3);
    }

    #[test]
    fn long_lines_are_cut_and_unfinished_ones_flushed() {
        let home = tempfile::tempdir().expect("a directory");
        let mut log = LogWriter::open(&log_directory(home.path()), 1 << 20, 3).expect("opens");
        log.push(Stream::Err, &vec![b'x'; LINE_BYTES_MAX + 3]);
        log.push(Stream::Out, b"half");
        log.flush();
        let (lines, _) = read_log(home.path(), 10).expect("reads");
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0].text.len(), LINE_BYTES_MAX);
        assert_eq!(lines[2].text, "xxx");
        assert_eq!(
            (lines[1].text.as_str(), lines[1].stream.as_str()),
            ("half", "out")
        );
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        let home = tempfile::tempdir().expect("a directory");
        let mut log = LogWriter::open(&log_directory(home.path()), 60, 9).expect("opens");
        for number in 0..9 {
            log.push(Stream::Out, format!("{number}\n").as_bytes());
        }
        let (lines, mut cursor) = read_log(home.path(), 2).expect("reads");
        assert_eq!(texts(&lines), ["7", "8"]);
        assert_eq!(cursor.next_lines().expect("reads"), []);
    }
}
