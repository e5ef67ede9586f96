//! Clients, and what they were told.

use super::Members;
use super::spec::{Answer, Call, Done};
use crate::EmbeddedStore;
use fastrand::Rng;
use kernel::Revision;
use node::store::{Compare, Operation, Store, StoreError, Transaction};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

const KEYS: u8 = 3;

pub struct Record {
    /// Counts beginnings and ends in their order.
    clock: Mutex<u64>,
    done: Mutex<Vec<Done>>,
    count: watch::Sender<usize>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            clock: Mutex::default(),
            done: Mutex::default(),
            count: watch::Sender::new(0),
        }
    }
}

impl Record {
    fn tick(&self) -> u64 {
        let mut clock = self.clock.lock().expect("no panic");
        *clock += 1;
        *clock
    }

    /// Until so many more calls have been answered, or there are no more.
    pub async fn more(&self, count: usize) {
        let mut seen = self.count.subscribe();
        let enough = *seen.borrow() + count;
        let all = usize::try_from(super::CLIENTS).expect("small")
            * usize::try_from(super::CALLS_PER_CLIENT).expect("small");
        let _ = seen.wait_for(|count| *count >= enough.min(all)).await;
    }

    pub fn done(&self) -> Vec<Done> {
        self.done.lock().expect("no panic").clone()
    }

    /// What was found, where it was a read.
    pub async fn call(&self, store: &EmbeddedStore, call: Call) -> Option<Rows> {
        let began = self.tick();
        let answer = ask(store, &call).await;
        let ended = self.tick();
        self.count.send_modify(|count| *count += 1);
        // Nothing was changed, and nothing seen.
        let answer = answer?;
        let found = match &answer {
            Answer::Found { rows, .. } => Some(rows.clone()),
            Answer::Wrote { .. } | Answer::Unknown => None,
        };
        let done = Done {
            call,
            answer,
            began,
            ended,
        };
        self.done.lock().expect("no panic").push(done);
        found
    }
}

pub type Rows = BTreeMap<String, (Vec<u8>, Revision)>;

async fn ask(store: &EmbeddedStore, call: &Call) -> Option<Answer> {
    let written = match call {
        Call::Read => {
            let range = store.range("/").await.ok()?;
            let rows = range.entries.into_iter();
            return Some(Answer::Found {
                revision: range.revision,
                rows: rows
                    .map(|row| (row.key, (row.value, row.modified)))
                    .collect(),
            });
        }
        Call::Put { key, value } => (None, key, value),
        Call::Swap {
            key,
            expected,
            value,
        } => {
            let compare = match expected {
                Some(revision) => Compare::Modified(key.clone(), *revision),
                None => Compare::Absent(key.clone()),
            };
            (Some(compare), key, value)
        }
    };
    let (compare, key, value) = written;
    let transaction = Transaction {
        compare: compare.into_iter().collect(),
        then: vec![Operation::Put(key.clone(), value.clone())],
        otherwise: Vec::new(),
    };
    match store.transact(transaction).await {
        Ok(outcome) => Some(Answer::Wrote {
            succeeded: outcome.succeeded,
            revision: outcome.revision,
        }),
        Err(StoreError::NoQuorum) => None,
        Err(StoreError::Unknown | StoreError::Stopped(_)) => Some(Answer::Unknown),
        Err(error) => panic!("{error}"),
    }
}

/// Asks now this member, now that one; no value is written twice.
pub async fn client(members: Arc<Members>, record: Arc<Record>, number: u64, mut rng: Rng) {
    let mut seen = Rows::new();
    for round in 0..super::CALLS_PER_CLIENT {
        let at = rng.usize(..3);
        let store = loop {
            match members.at(at) {
                Some(store) => break store,
                // All are without power.
                None => tokio::task::yield_now().await,
            }
        };
        let key = format!("/{}", rng.u8(..KEYS));
        let value = format!("{number}.{round}").into_bytes();
        let call = match rng.u8(..10) {
            0..4 => Call::Put { key, value },
            4..7 => {
                let expected = seen.get(&key).map(|(_, revision)| *revision);
                Call::Swap {
                    key,
                    expected,
                    value,
                }
            }
            _ => Call::Read,
        };
        if let Some(found) = record.call(&store, call).await {
            seen = found;
        }
    }
}
