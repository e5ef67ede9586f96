//! What replicas and the agent say about buckets on `run/buckets.sock`, and the
//! capability that each call carries.
//!
//! Holds: a call is checked against the limits here before it is sent, and
//! again before it is done; bytes travel as base64, names and numbers as they
//! are. Never: says who may do what: the agent's mark on a capability does.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use kernel::{Bytes, FencingEpoch, Name, Revision};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::time::Duration;

pub const VERSION: u32 = 1;
/// Where a worker finds the socket and its replica's capability.
pub const SOCKET_VARIABLE: &str = "HOMEOSTAT_BUCKETS";
pub const CAPABILITY_VARIABLE: &str = "HOMEOSTAT_CAPABILITY";
pub const KEY_BYTES_MAX: usize = 512;
pub const VALUE_BYTES_MAX: usize = 1 << 20;
pub const BATCH_KEYS_MAX: usize = 256;
/// Of all keys and values of one batch.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
pub const PAGE_KEYS_MAX: u32 = 1_000;
/// What an entry counts towards its quota beside its key, with its whole path,
/// and its value.
pub const ENTRY_BYTES: u64 = 64;
/// How long a call is held while the agent is away.
pub const HOLD_MAX: Duration = Duration::from_secs(5);

/// Bytes; base64 without padding as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD_NO_PAD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD_NO_PAD.decode(text);
        bytes.map(Self).map_err(serde::de::Error::custom)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    Get {
        key: String,
    },
    Exists {
        key: String,
    },
    GetMany {
        keys: Vec<String>,
    },
    /// Keys in order that start with `prefix` and come after `after`.
    List {
        prefix: String,
        after: Option<String>,
        limit: u32,
    },
    Set {
        key: String,
        value: Blob,
    },
    Delete {
        key: String,
    },
    /// All or none.
    SetMany {
        entries: Vec<(String, Blob)>,
    },
    /// All or none.
    DeleteMany {
        keys: Vec<String>,
    },
    /// Done if the key was last changed at `expected`; `None`: if it is absent.
    /// A `value` of `None` deletes.
    CompareAndSet {
        key: String,
        expected: Option<Revision>,
        value: Option<Blob>,
    },
    /// The value is a decimal number; an absent one counts as zero.
    Add {
        key: String,
        delta: i64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Value(Option<Value>),
    Exists(bool),
    /// In the order of the keys that were asked for.
    Values(Vec<Option<Value>>),
    Keys(KeyPage),
    /// Durably done; the revision is that of the state after it.
    Done(Revision),
    /// Nothing was changed: this is what is there.
    Differs(Option<Value>),
    Number(i64),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    pub bytes: Blob,
    /// Of its last change.
    pub revision: Revision,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPage {
    pub keys: Vec<String>,
    /// Whether there are more after the last one.
    pub more: bool,
    /// Of the state that was read: a watch may begin after it.
    pub revision: Revision,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Set { key: String, value: Value },
    Deleted { key: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchEvent {
    /// All changes of one revision under the watched prefix.
    Changes {
        revision: Revision,
        changes: Vec<Change>,
    },
    /// Changes before `oldest` are no longer known: list the keys again and
    /// watch from that page's revision. The watch has ended.
    Resync { oldest: Revision },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BucketError {
    #[error("there is no bucket `{name}` here")]
    NoSuchBucket { name: String },
    #[error("this is not allowed: {why}")]
    NotAllowed { why: String },
    #[error(
        "a newer `{holder}` has taken over: epoch {} was seen, this one has {}",
        highest.0,
        epoch.0
    )]
    Fenced {
        holder: String,
        epoch: FencingEpoch,
        highest: FencingEpoch,
    },
    /// Nothing was changed. `subject` is `bucket/comments` or `project/news`.
    #[error("{subject} is full: {used} of {quota} are used, and this would make it {wanted}")]
    Quota {
        subject: String,
        used: Bytes,
        wanted: Bytes,
        quota: Bytes,
    },
    /// Nothing was changed.
    #[error("{subject} is called more than {per_second} times a second")]
    Rate {
        subject: String,
        per_second: u32,
        retry_after_ms: u64,
    },
    /// Nothing was changed.
    #[error("{0}")]
    Invalid(String),
    #[error("buckets are not available: {why}{}", unknown(*may_be_done))]
    Unavailable {
        why: String,
        /// The call may have been done all the same.
        may_be_done: bool,
    },
}

fn unknown(may_be_done: bool) -> &'static str {
    if may_be_done {
        "; the call may have been done"
    } else {
        ""
    }
}

impl BucketError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoSuchBucket { .. } => {
                Some("open it by its binding's name: NAME = { to = \"bucket/…\" }")
            }
            Self::NotAllowed { .. } | Self::Fenced { .. } | Self::Invalid(_) => None,
            Self::Quota { .. } => {
                Some("delete what is not needed (that still works), or raise `quota`")
            }
            Self::Rate { .. } => Some("call less often, or raise `rate`"),
            Self::Unavailable { .. } => Some("homeostat doctor"),
        }
    }
}

fn over(what: &str, found: usize, max: usize, unit: &str) -> BucketError {
    BucketError::Invalid(format!(
        "{what} has {found} {unit}; at most {max} are allowed"
    ))
}

fn check_key(key: &str) -> Result<(), BucketError> {
    if key.is_empty() {
        return Err(BucketError::Invalid("a key is empty".to_owned()));
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(over("a key", key.len(), KEY_BYTES_MAX, "bytes"));
    }
    Ok(())
}

/// Of a list or a watch; an empty one is all.
pub fn check_prefix(prefix: &str) -> Result<(), BucketError> {
    if prefix.is_empty() {
        return Ok(());
    }
    check_key(prefix)
}

fn check_value(value: &Blob) -> Result<(), BucketError> {
    if value.0.len() > VALUE_BYTES_MAX {
        return Err(over("a value", value.0.len(), VALUE_BYTES_MAX, "bytes"));
    }
    Ok(())
}

fn check_batch(keys: usize, bytes: usize) -> Result<(), BucketError> {
    if keys > BATCH_KEYS_MAX {
        return Err(over("a batch", keys, BATCH_KEYS_MAX, "keys"));
    }
    if bytes > BATCH_BYTES_MAX {
        return Err(over("a batch", bytes, BATCH_BYTES_MAX, "bytes"));
    }
    Ok(())
}

impl Call {
    pub fn check(&self) -> Result<(), BucketError> {
        match self {
            Self::Get { key }
            | Self::Exists { key }
            | Self::Delete { key }
            | Self::Add { key, .. } => check_key(key),
            Self::Set { key, value } => check_key(key).and_then(|()| check_value(value)),
            Self::CompareAndSet { key, value, .. } => {
                check_key(key)?;
                value.as_ref().map_or(Ok(()), check_value)
            }
            Self::List { prefix, after, .. } => {
                check_prefix(prefix)?;
                after.as_deref().map_or(Ok(()), check_prefix)
            }
            Self::GetMany { keys } | Self::DeleteMany { keys } => {
                check_batch(keys.len(), keys.iter().map(String::len).sum())?;
                keys.iter().try_for_each(|key| check_key(key))
            }
            Self::SetMany { entries } => {
                let bytes = entries.iter().map(|(key, value)| key.len() + value.0.len());
                check_batch(entries.len(), bytes.sum())?;
                entries
                    .iter()
                    .try_for_each(|(key, value)| check_key(key).and_then(|()| check_value(value)))
            }
        }
    }

    /// Whether it may change anything: such a call is done once at most.
    pub fn writes(&self) -> bool {
        match self {
            Self::Get { .. } | Self::Exists { .. } | Self::GetMany { .. } | Self::List { .. } => {
                false
            }
            Self::Set { .. }
            | Self::Delete { .. }
            | Self::SetMany { .. }
            | Self::DeleteMany { .. }
            | Self::CompareAndSet { .. }
            | Self::Add { .. } => true,
        }
    }

    /// What it counts towards a rate: its keys, one at least.
    pub fn weight(&self) -> u32 {
        let keys = match self {
            Self::GetMany { keys } | Self::DeleteMany { keys } => keys.len(),
            Self::SetMany { entries } => entries.len(),
            _ => 1,
        };
        u32::try_from(keys.max(1)).unwrap_or(u32::MAX)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToBuckets {
    /// First on each connection. `client` is drawn at random by a process and
    /// kept over its reconnections: the server remembers by it what was done.
    Hello {
        version: u32,
        client: String,
    },
    /// `id` grows with each call and is kept when it is sent again; all up to
    /// `answered` are answered and may be forgotten.
    Call {
        id: u64,
        answered: u64,
        capability: String,
        binding: String,
        call: Call,
    },
    Watch {
        id: u64,
        capability: String,
        binding: String,
        prefix: String,
        after: Revision,
    },
    Unwatch {
        id: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromBuckets {
    Answer {
        id: u64,
        answer: Result<Answer, BucketError>,
    },
    /// An error ends the watch, as a resync does.
    Watched {
        id: u64,
        event: Result<WatchEvent, BucketError>,
    },
}

/// What the bearer of a capability may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub project: Name,
    pub service: Name,
    /// For messages: `news.visitors-g12-0`.
    pub replica: String,
    /// By the binding's name.
    pub bindings: BTreeMap<String, BucketGrant>,
    /// Of a singleton: who has a larger one fences this one.
    pub fence: Option<Fence>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketGrant {
    pub bucket: Name,
    pub quota: Bytes,
    /// Calls a second.
    pub rate: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// What there may be one of: `news/visitors/0`.
    pub holder: String,
    pub epoch: FencingEpoch,
}

pub const MARK_BYTES: usize = 32;
const CAPABILITY_KIND: &str = "hb1";
const CAPABILITY_BYTES_MAX: usize = 64 << 10;

/// A capability as its bearer holds it: `hb1.GRANT.MARK`, both base64 for URLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    pub grant: Grant,
    /// What the mark is made over.
    pub marked: Vec<u8>,
    pub mark: [u8; MARK_BYTES],
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no capability for buckets")]
pub struct CapabilityError;

impl Capability {
    /// * `mark`: makes the mark over the grant's bytes.
    pub fn new(grant: Grant, mark: impl FnOnce(&[u8]) -> [u8; MARK_BYTES]) -> Self {
        let marked = serde_json::to_vec(&grant).unwrap_or_default();
        let mark = mark(&marked);
        Self {
            grant,
            marked,
            mark,
        }
    }

    pub fn text(&self) -> String {
        let grant = URL_SAFE_NO_PAD.encode(&self.marked);
        let mark = URL_SAFE_NO_PAD.encode(self.mark);
        format!("{CAPABILITY_KIND}.{grant}.{mark}")
    }

    /// What a text says; whether its mark is true is for the agent to tell.
    pub fn read(text: &str) -> Result<Self, CapabilityError> {
        if text.len() > CAPABILITY_BYTES_MAX {
            return Err(CapabilityError);
        }
        let mut parts = text.split('.');
        let (Some(CAPABILITY_KIND), Some(grant), Some(mark), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(CapabilityError);
        };
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| CapabilityError);
        let (marked, mark) = (bytes(grant)?, bytes(mark)?);
        Ok(Self {
            grant: serde_json::from_slice(&marked).map_err(|_| CapabilityError)?,
            marked,
            mark: mark.try_into().map_err(|_| CapabilityError)?,
        })
    }
}

#[cfg(test)]
mod tests;
