//! The audit log: who changed what, when, and how it ended, chained by hash.
//!
//! In: changes as they are asked for and as they end. Out: JSON lines in
//! `DATA/audit`, each naming the hash of the one before.
//! Holds: a change is on disk before it begins, and its outcome before it is
//! answered; the newest line's number and hash are in the store too, so that
//! lines cut off are missed; [`FILES_MAX`] files of [`FILE_BYTES_MAX`] are kept.
//! Never: holds a value; keeps the node from starting.

mod line;
mod read;

pub use line::{Entry, Outcome};
pub use read::{Head, Verdict, verify};

use crate::apply::{api_error, storage};
use crate::machine::unix_now;
use kernel::Hash;
use line::{GENESIS, text_of};
use node::store::{Operation, Store, StoreError, Transaction};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::EmbeddedStore;
use tokio::sync::Mutex;
use wire::api::ApiError;

const HEAD_KEY: &str = "/audit/head";
/// After it, another file is begun.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Before the oldest one is let go: hundreds of thousands of changes.
const FILES_MAX: usize = 64;

/// What is told of a change; numbers and hashes are the log's.
#[derive(Clone, Debug)]
pub struct Told {
    pub who: String,
    pub act: String,
    pub object: String,
    pub outcome: Outcome,
    /// The number of the line in which it was asked for; 0 in that line itself.
    pub change: u64,
    pub why: Option<String>,
}

impl Told {
    fn of_the_log(outcome: Outcome, why: String) -> Self {
        Self {
            who: "node".to_owned(),
            act: "audit".to_owned(),
            object: "audit".to_owned(),
            outcome,
            change: 0,
            why: Some(why),
        }
    }
}

struct State {
    head: Head,
    /// The file that is written to, and how long it is.
    file: Option<(File, u64)>,
    file_bytes_max: u64,
}

pub struct Audit {
    directory: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Audit {
    /// Goes on where the log ended. What is wrong with it is said in the node's
    /// log and, as soon as it can be, in a line of its own.
    pub async fn open(directory: PathBuf, store: &dyn Store) -> Result<Self, StoreError> {
        Self::open_with(directory, store, FILE_BYTES_MAX).await
    }

    async fn open_with(
        directory: PathBuf,
        store: &dyn Store,
        file_bytes_max: u64,
    ) -> Result<Self, StoreError> {
        let known = read_head(store).await?;
        let found = read::end(&directory);
        let (head, complaints) = go_on(&found, known);
        let audit = Self {
            directory,
            state: Arc::new(Mutex::new(State {
                head,
                file: None,
                file_bytes_max,
            })),
        };
        for told in complaints {
            tracing::warn!(why = told.why, "the audit log was looked through");
            if let Err(error) = audit.append(store, told).await {
                tracing::error!(error = error.message, "audit log not written");
            }
        }
        Ok(audit)
    }

    /// Durable when this returns; the line's number.
    pub async fn append(&self, store: &dyn Store, told: Told) -> Result<u64, ApiError> {
        let mut state = Arc::clone(&self.state).lock_owned().await;
        let directory = self.directory.clone();
        let (mut state, written) = tokio::task::spawn_blocking(move || {
            let written = state.write(&directory, told);
            (state, written)
        })
        .await
        .map_err(|error| api_error("internal", error.to_string(), None))?;
        written.map_err(|error| {
            // Whatever was written is looked at again.
            state.file = None;
            let message = format!("cannot write the audit log: {error}");
            api_error("storage", message, Some("homeostat doctor"))
        })?;
        write_head(store, &state.head)
            .await
            .map_err(|error| storage(&error))?;
        Ok(state.head.count)
    }

    /// The newest lines, oldest first, `limit` at most.
    pub async fn newest(&self, limit: usize) -> io::Result<Vec<Entry>> {
        let _state = self.state.lock().await;
        let directory = self.directory.clone();
        let read = tokio::task::spawn_blocking(move || read::newest(&directory, limit));
        read.await.map_err(io::Error::other)?
    }

    /// Compares the files with each other and with what the store knows.
    pub async fn verify(&self, store: &dyn Store) -> Result<Verdict, ApiError> {
        let _state = self.state.lock().await;
        let head = read_head(store).await.map_err(|error| storage(&error))?;
        let directory = self.directory.clone();
        tokio::task::spawn_blocking(move || verify(&directory, head.as_ref()))
            .await
            .map_err(|error| api_error("internal", error.to_string(), None))
    }
}

/// Where the log ends is known to the node's own store; in data of before there
/// was one, to the control group's.
pub async fn carry_over(control: &EmbeddedStore, store: &EmbeddedStore) -> Result<(), StoreError> {
    let known = control.read_here(|view| view.get(HEAD_KEY));
    let Some(known) = known.filter(|_| !store.read_here(|view| view.has(HEAD_KEY))) else {
        return Ok(());
    };
    let transaction = Transaction {
        then: vec![Operation::Put(HEAD_KEY.to_owned(), known.value)],
        ..Transaction::default()
    };
    store.transact(transaction).await.map(drop)
}

/// From the end of the files and of what the store knows to where the next line
/// is chained, and what is to be said.
fn go_on(found: &read::End, known: Option<Head>) -> (Head, Vec<Told>) {
    let mut complaints = Vec::new();
    if found.torn_bytes > 0 {
        let why = format!(
            "a last line was cut short: its {} bytes, of a change never answered, are dropped",
            found.torn_bytes
        );
        complaints.push(Told::of_the_log(Outcome::Done, why));
    }
    let known = known.unwrap_or_default();
    let mut failed = |why| complaints.push(Told::of_the_log(Outcome::Failed, why));
    let head = match found.head {
        // Its head was not written before the end: the usual end of a kill.
        Some(head) if head.count == known.count + 1 => head,
        Some(head) if head.count == known.count && head.hash == known.hash => known,
        Some(head) if head.count > known.count => {
            failed(format!(
                "lines {} to {} are not known to the store",
                known.count + 1,
                head.count
            ));
            head
        }
        Some(head) if head.count == known.count => {
            failed(format!("line {} is not what was written", head.count));
            known
        }
        None if known.count == 0 => known,
        other => {
            let last = other.map_or(0, |head| head.count);
            failed(format!("lines {} to {} are missing", last + 1, known.count));
            known
        }
    };
    (head, complaints)
}

impl State {
    fn write(&mut self, directory: &Path, told: Told) -> io::Result<()> {
        let number = self.head.count + 1;
        let (mut file, length) = match self.file.take() {
            Some((file, length)) if length < self.file_bytes_max => (file, length),
            _ => self.open(directory, number)?,
        };
        let entry = Entry {
            number,
            at_unix_ms: unix_now().0,
            who: told.who,
            act: told.act,
            object: told.object,
            outcome: told.outcome,
            change: told.change,
            why: told.why,
            previous: self.head.hash,
        };
        let (text, hash) = text_of(&entry);
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_data());
        if let Err(error) = written {
            let _ = file.set_len(length);
            return Err(error);
        }
        self.head.count = number;
        self.head.hash = hash;
        self.file = Some((file, length + text.len() as u64));
        Ok(())
    }

    /// The newest file if there is room in it, else one that begins with `number`.
    fn open(&mut self, directory: &Path, number: u64) -> io::Result<(File, u64)> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let mut options = OpenOptions::new();
        options.append(true).mode(0o600);
        let mut files = read::files(directory)?;
        if let Some((_, path)) = files.last() {
            let file = options.open(path)?;
            let length = file.metadata()?.len();
            if length < self.file_bytes_max {
                return Ok((file, length));
            }
        }
        while files.len() >= FILES_MAX {
            let (_, oldest) = files.remove(0);
            std::fs::remove_file(oldest)?;
        }
        self.head.first = files.first().map_or(number, |(first, _)| *first);
        let file = options
            .create(true)
            .open(directory.join(read::file_name(number)))?;
        File::open(directory)?.sync_all()?;
        Ok((file, 0))
    }
}

async fn read_head(store: &dyn Store) -> Result<Option<Head>, StoreError> {
    let Some(entry) = node::store::get(store, HEAD_KEY).await? else {
        return Ok(None);
    };
    let damaged = |error| StoreError::Invalid(format!("{HEAD_KEY}: {error}"));
    serde_json::from_slice(&entry.value)
        .map(Some)
        .map_err(damaged)
}

async fn write_head(store: &dyn Store, head: &Head) -> Result<(), StoreError> {
    let value = serde_json::to_vec(head).map_err(|error| StoreError::Invalid(error.to_string()))?;
    let transaction = Transaction {
        then: vec![Operation::Put(HEAD_KEY.to_owned(), value)],
        ..Transaction::default()
    };
    store.transact(transaction).await.map(drop)
}

impl Default for Head {
    fn default() -> Self {
        Self {
            first: 1,
            count: 0,
            hash: Hash(GENESIS),
        }
    }
}

#[cfg(test)]
mod tests;
