//! The access log: each request's row goes to the row log, which writes it.
//!
//! Holds: no request waits for the disk; rows that find no room are counted,
//! and said once for each time that begins.

use arc_swap::ArcSwapOption;
use ingress::AccessLog;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use telemetry::{RowLog, RowLogOptions};
use wire::rows::AccessRow;

const PREFIX: &str = "access";

pub struct Rows {
    directory: PathBuf,
    log: ArcSwapOption<RowLog>,
    /// While there was no log.
    missed: AtomicU64,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    dropped: u64,
    dropping: bool,
    not_open: bool,
}

impl Rows {
    pub fn new(directory: PathBuf) -> Self {
        let rows = Self {
            directory,
            log: ArcSwapOption::empty(),
            missed: AtomicU64::new(0),
            said: Mutex::default(),
        };
        rows.check();
        rows
    }

    /// Called each second: opens the log where that failed, and says when rows
    /// begin to be dropped. May touch the disk.
    pub fn check(&self) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if self.log.load().is_none() {
            match RowLog::create(&self.directory, PREFIX, RowLogOptions::default()) {
                Ok(log) => {
                    self.log.store(Some(log.into()));
                    said.not_open = false;
                }
                Err(error) if !said.not_open => {
                    tracing::error!(%error, "there is no access log; requests are served without");
                    said.not_open = true;
                }
                Err(_) => {}
            }
        }
        let dropped = self.dropped();
        let dropping = dropped > said.dropped;
        if dropping && !said.dropping {
            tracing::error!(dropped, "access rows are dropped; requests are served on");
        } else if said.dropping && !dropping {
            tracing::info!(dropped, "access rows are kept again");
        }
        said.dropping = dropping;
        said.dropped = dropped;
    }

    fn dropped(&self) -> u64 {
        let log = self.log.load();
        let dropped = log.as_ref().map_or(0, |log| log.counts().dropped);
        dropped + self.missed.load(Relaxed)
    }

    /// Writes what is buffered; rows after this are lost.
    pub fn close(&self) {
        drop(self.log.swap(None));
    }
}

impl AccessLog for Rows {
    fn record(&self, row: AccessRow) {
        match &*self.log.load() {
            Some(log) => log.append(&row),
            None => {
                self.missed.fetch_add(1, Relaxed);
            }
        }
    }
}
