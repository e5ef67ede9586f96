//! A node's own copy of what it must know of the control group.
//!
//! In: the leader's keys under [`PREFIXES`]. Out: the same keys in this node's
//! file, from which the agent works, also while nobody leads.
//! Holds: a key is here as it was there; keys change here in the order in
//! which they changed there. Never: has secrets; is written by anyone else.

use futures_util::future::try_join_all;
use kernel::Revision;
use node::desired::{JOBS_PREFIX, POLICY_PREFIX, PREFIX};
use node::members::{MEMBERS_KEY, MEMBERS_PREFIX, Members};
use node::nodes::NODES_PREFIX;
use node::store::{
    Event, Operation, Store, StoreError, TRANSACTION_OPERATIONS_MAX, Transaction, WatchEvent,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const PREFIXES: [&str; 6] = [
    PREFIX,
    JOBS_PREFIX,
    POLICY_PREFIX,
    NODES_PREFIX,
    MEMBERS_PREFIX,
    crate::tokens::PREFIX,
];

/// Below a transaction's own limits, as keys and values are counted there.
const PART_BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mirrored {
    /// All there is, as of a revision of the leader's. Values are JSON.
    Whole(Revision, BTreeMap<String, String>),
    /// In order, up to such a revision; none for a key that is gone.
    Changes(Revision, Vec<Changed>),
}

impl Mirrored {
    pub fn revision(&self) -> Revision {
        match self {
            Self::Whole(revision, _) | Self::Changes(revision, _) => *revision,
        }
    }
}

/// What came of keeping it.
#[derive(Debug, Default)]
pub struct Kept {
    /// Of this node's own store: by then it is all here. None where nothing had
    /// to be written.
    pub revision: Revision,
    /// Who is wanted as members, where that was told.
    pub members: Option<Members>,
}

type Changed = (String, Option<String>);

fn is_mirrored(key: &str) -> bool {
    PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

/// What a follower is to know, whole and then each change.
pub struct Source<'a> {
    store: &'a dyn Store,
    watch: Option<Box<dyn node::store::Watch>>,
}

impl<'a> Source<'a> {
    pub fn new(store: &'a dyn Store) -> Self {
        Self { store, watch: None }
    }

    /// Safe to drop before it is done.
    pub async fn next(&mut self) -> Result<Mirrored, StoreError> {
        loop {
            let Some(watch) = &mut self.watch else {
                return self.whole().await;
            };
            match watch.next().await? {
                WatchEvent::Resync { .. } => self.watch = None,
                WatchEvent::Changes { events, revision } => {
                    let changes = events.into_iter().filter_map(change);
                    let changes = changes.collect::<Result<Vec<_>, _>>()?;
                    if !changes.is_empty() {
                        return Ok(Mirrored::Changes(revision, changes));
                    }
                }
            }
        }
    }

    async fn whole(&mut self) -> Result<Mirrored, StoreError> {
        // The watch begins at the oldest of the ranges: a change may be told
        // twice, and none is missed.
        let ranges = PREFIXES.map(|prefix| self.store.range(prefix));
        let ranges = try_join_all(ranges).await?;
        let oldest = ranges.iter().map(|range| range.revision).min();
        let oldest = oldest.unwrap_or_default();
        let mut all = BTreeMap::new();
        for entry in ranges.into_iter().flat_map(|range| range.entries) {
            let value = text(&entry.key, entry.value)?;
            all.insert(entry.key, value);
        }
        self.watch = Some(self.store.watch("/", oldest).await?);
        Ok(Mirrored::Whole(oldest, all))
    }
}

fn change(event: Event) -> Option<Result<Changed, StoreError>> {
    let (key, value) = match event {
        Event::Put(entry) => (entry.key, Some(entry.value)),
        Event::Deleted(key) => (key, None),
    };
    let read = |value: Option<Vec<u8>>| value.map(|value| text(&key, value)).transpose();
    is_mirrored(&key).then(|| Ok((key.clone(), read(value)?)))
}

fn text(key: &str, value: Vec<u8>) -> Result<String, StoreError> {
    String::from_utf8(value).map_err(|_| StoreError::Invalid(format!("{key} is no text")))
}

/// Writes it down here.
pub async fn keep(store: &dyn Store, mirrored: Mirrored) -> Result<Kept, StoreError> {
    let changes = match mirrored {
        Mirrored::Changes(_, changes) => changes,
        Mirrored::Whole(_, all) => difference(store, all).await?,
    };
    let mut kept = Kept::default();
    let mut operations = Vec::new();
    let mut bytes = 0;
    for (key, value) in changes {
        if !is_mirrored(&key) {
            let message = format!("the leader sent the key {key}");
            return Err(StoreError::Invalid(message));
        }
        if key == MEMBERS_KEY
            && let Some(value) = &value
        {
            kept.members = serde_json::from_str(value).ok();
        }
        bytes += key.len() + value.as_ref().map_or(0, String::len);
        operations.push(match value {
            Some(value) => Operation::Put(key, value.into_bytes()),
            None => Operation::Delete(key),
        });
        if bytes >= PART_BYTES_MAX || operations.len() == TRANSACTION_OPERATIONS_MAX {
            kept.revision = write(store, &mut operations).await?;
            bytes = 0;
        }
    }
    if !operations.is_empty() {
        kept.revision = write(store, &mut operations).await?;
    }
    Ok(kept)
}

async fn write(store: &dyn Store, operations: &mut Vec<Operation>) -> Result<Revision, StoreError> {
    let transaction = Transaction {
        then: std::mem::take(operations),
        ..Transaction::default()
    };
    Ok(store.transact(transaction).await?.revision)
}

async fn difference(
    store: &dyn Store,
    mut all: BTreeMap<String, String>,
) -> Result<Vec<Changed>, StoreError> {
    let mut changes = Vec::new();
    for prefix in PREFIXES {
        for entry in store.range(prefix).await?.entries {
            match all.remove(&entry.key) {
                Some(value) if value.as_bytes() == entry.value => {}
                Some(value) => changes.push((entry.key, Some(value))),
                None => changes.push((entry.key, None)),
            }
        }
    }
    changes.extend(all.into_iter().map(|(key, value)| (key, Some(value))));
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use node::desired::FIRST_NODE;
    use store::EmbeddedStore;

    async fn opened(folder: &tempfile::TempDir, name: &str) -> EmbeddedStore {
        let options = store::Options {
            path: folder.path().join(name),
            node: FIRST_NODE,
            group: store::Group::Alone,
        };
        EmbeddedStore::open(options).await.expect("opens")
    }

    async fn put(store: &dyn Store, key: &str, value: &[u8]) {
        let mut operations = vec![Operation::Put(key.to_owned(), value.to_vec())];
        write(store, &mut operations).await.expect("writes");
    }

    async fn desired(store: &dyn Store) -> Vec<(String, Vec<u8>)> {
        let entries = store.range("/desired/").await.expect("reads").entries;
        let pairs = entries.into_iter().map(|entry| (entry.key, entry.value));
        pairs.collect()
    }

    #[tokio::test]
    async fn a_follower_has_what_the_leader_has_and_no_secrets() {
        let folder = tempfile::tempdir().expect("a folder");
        let (holder, follower) = (opened(&folder, "a").await, opened(&folder, "b").await);
        put(&holder, "/desired/news/head", b"1").await;
        put(&holder, "/secret/news/key", b"sealed").await;
        put(&follower, "/desired/gone/head", b"old").await;
        put(&follower, "/own/thing", b"mine").await;
        let mut source = Source::new(&holder);
        let whole = source.next().await.expect("reads");
        keep(&follower, whole).await.expect("keeps");
        assert_eq!(desired(&follower).await, desired(&holder).await);
        put(&holder, "/secret/news/key", b"other").await;
        put(&holder, "/desired/news/head", b"2").await;
        let change = source.next().await.expect("changes");
        keep(&follower, change).await.expect("keeps");
        assert_eq!(desired(&follower).await, desired(&holder).await);
        let own = follower.range("/own/").await.expect("reads").entries;
        assert_eq!(own.len(), 1, "what is the follower's own stays");
        let secrets = follower.range("/secret/").await.expect("reads").entries;
        assert_eq!(secrets, []);
    }

    #[tokio::test]
    async fn keys_beside_the_mirrored_ones_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let follower = opened(&folder, "a").await;
        let forged = vec![("/audit/end".to_owned(), None)];
        let forged = Mirrored::Changes(Revision(1), forged);
        assert!(keep(&follower, forged).await.is_err());
    }
}
