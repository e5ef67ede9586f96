//! Appends rows to segments from a thread of its own.
//!
//! In: rows, from any thread. Out: `PREFIX-MILLIS-PID-SERIAL.open`, renamed to
//! `.rows` when closed.
//! Holds: a segment is locked while its writer lives, so that others can tell an
//! abandoned one; a row is with the kernel within a flush interval of its append while
//! the disk takes writes; the buffer is bounded, beyond it rows are dropped and
//! counted. Never: makes the appender wait for the disk.

use crate::error::TelemetryError;
use crate::segment::{CLOSED, HEADER, OPEN, frame};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use wire::rows::AccessRow;

#[derive(Clone, Copy, Debug)]
pub struct RowLogOptions {
    pub flush_every: Duration,
    pub segment_bytes: u64,
    pub segment_age: Duration,
    /// Rows wait here while the disk does not take them.
    pub buffer_bytes: usize,
}

impl Default for RowLogOptions {
    fn default() -> Self {
        Self {
            flush_every: Duration::from_millis(200),
            segment_bytes: 16 << 20,
            segment_age: Duration::from_mins(1),
            buffer_bytes: 8 << 20,
        }
    }
}

/// What has become of rows since the log was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowLogCounts {
    pub appended: u64,
    pub dropped: u64,
    /// Attempts to write that failed; the bytes are tried again.
    pub failed_writes: u64,
}

/// Dropping it writes what is buffered and closes the segment.
#[derive(Debug)]
pub struct RowLog {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    options: RowLogOptions,
}

#[derive(Debug, Default)]
struct State {
    buffer: Vec<u8>,
    counts: RowLogCounts,
    stop: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RowLog {
    pub fn create(
        directory: &Path,
        prefix: &str,
        options: RowLogOptions,
    ) -> Result<Self, TelemetryError> {
        fs::create_dir_all(directory).map_err(TelemetryError::io("create", directory))?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            options,
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            directory: directory.to_owned(),
            prefix: prefix.to_owned(),
            serial: 0,
            pending: Vec::new(),
            segment: None,
        };
        let thread = std::thread::Builder::new()
            .name("row-log".to_owned())
            .spawn(move || writer.run())
            .map_err(TelemetryError::io("start the writer of", directory))?;
        Ok(Self {
            shared,
            writer: Some(thread),
        })
    }

    /// Keeps a row, or drops and counts it when the buffer is full.
    pub fn append(&self, row: &AccessRow) {
        let frame = frame(row);
        let mut state = self.shared.lock();
        let limit = self.shared.options.buffer_bytes;
        match frame {
            Some(frame) if state.buffer.len() + frame.len() <= limit => {
                state.buffer.extend_from_slice(&frame);
                state.counts.appended += 1;
                let crowded = state.buffer.len() > limit / 4;
                drop(state);
                if crowded {
                    self.shared.wake.notify_one();
                }
            }
            _ => state.counts.dropped += 1,
        }
    }

    pub fn counts(&self) -> RowLogCounts {
        self.shared.lock().counts
    }
}

impl Drop for RowLog {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_one();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

struct Segment {
    file: File,
    path: PathBuf,
    bytes: u64,
    since: Instant,
}

struct Writer {
    shared: Arc<Shared>,
    directory: PathBuf,
    prefix: String,
    serial: u64,
    /// Taken from the buffer, not yet with the kernel.
    pending: Vec<u8>,
    segment: Option<Segment>,
}

impl Writer {
    fn run(mut self) {
        loop {
            let stop = self.wait();
            let written = self.write();
            if let Err(error) = &written {
                self.shared.lock().counts.failed_writes += 1;
                tracing::warn!(%error, directory = %self.directory.display(), "rows wait for the disk");
            }
            let options = &self.shared.options;
            let full = self.segment.as_ref().is_some_and(|segment| {
                segment.bytes >= options.segment_bytes
                    || segment.since.elapsed() >= options.segment_age
            });
            // A frame cut by a full disk goes on in the same segment.
            if self.pending.is_empty() && (full || stop) {
                self.close();
            }
            if stop {
                if let Err(error) = &written {
                    let bytes = self.pending.len();
                    tracing::error!(%error, bytes, "rows are lost at the end of their log");
                }
                return;
            }
            if written.is_err() {
                std::thread::park_timeout(self.shared.options.flush_every);
            }
        }
    }

    /// Waits for the interval or a crowded buffer; whether to stop.
    fn wait(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let limit = shared.options.buffer_bytes / 4;
        let (mut state, _) = shared
            .wake
            .wait_timeout_while(shared.lock(), shared.options.flush_every, |state| {
                !state.stop && state.buffer.len() <= limit
            })
            .unwrap_or_else(PoisonError::into_inner);
        // While bytes are pending the buffer stays, so both are bounded.
        if self.pending.is_empty() {
            std::mem::swap(&mut self.pending, &mut state.buffer);
        }
        state.stop
    }

    fn write(&mut self) -> std::io::Result<()> {
        while !self.pending.is_empty() {
            let mut segment = match self.segment.take() {
                Some(segment) => segment,
                None => self.open()?,
            };
            let written = segment.file.write(&self.pending);
            if let Ok(count) = written {
                segment.bytes += count as u64;
                self.pending.drain(..count);
            }
            self.segment = Some(segment);
            match written {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn open(&mut self) -> std::io::Result<Segment> {
        let millis = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_millis());
        self.serial += 1;
        let name = format!(
            "{}-{millis:014}-{}-{:06}.{OPEN}",
            self.prefix,
            std::process::id(),
            self.serial
        );
        let path = self.directory.join(name);
        let mut file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(&path)?;
        let begun = file.lock().and_then(|()| file.write_all(&HEADER));
        if let Err(error) = begun {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        if !path.exists() {
            // Taken for abandoned before it was locked: tried again with another.
            return Err(ErrorKind::Interrupted.into());
        }
        Ok(Segment {
            file,
            path,
            bytes: HEADER.len() as u64,
            since: Instant::now(),
        })
    }

    fn close(&mut self) {
        if let Some(segment) = self.segment.take() {
            let closed = segment.path.with_extension(CLOSED);
            if let Err(error) = fs::rename(&segment.path, &closed) {
                tracing::warn!(%error, path = %closed.display(), "a segment stays open");
            }
        }
    }
}
