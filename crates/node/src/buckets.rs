//! Buckets as the edge and the workers see them: behind a trait, with what the
//! bearer of a capability may ask for.
//!
//! Holds, for each implementation: an `Ok` of a call that writes is durable; no
//! call is done twice; reads see all that was acknowledged before them; a watch
//! skips no change, or says that it must resync.

use crate::BoxFuture;
use kernel::Revision;
use std::sync::Arc;
use wire::bucket::{
    Answer, Blob, BucketError, Call, Capability, KeyPage, Value, WatchEvent, check_prefix,
};

/// Which bucket a call is for, and who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// A [`Capability`] as text.
    pub capability: Arc<str>,
    /// The name under which the capability has the bucket.
    pub binding: Arc<str>,
}

pub trait Buckets: Send + Sync + 'static {
    fn call<'a>(
        &'a self,
        target: &'a Target,
        call: Call,
    ) -> BoxFuture<'a, Result<Answer, BucketError>>;

    /// Changes under `prefix` after revision `after`.
    fn watch<'a>(
        &'a self,
        target: &'a Target,
        prefix: &'a str,
        after: Revision,
    ) -> BoxFuture<'a, Result<Box<dyn BucketWatch>, BucketError>>;
}

pub trait BucketWatch: Send {
    fn next(&mut self) -> BoxFuture<'_, Result<WatchEvent, BucketError>>;
}

/// All that one replica may open.
#[derive(Clone)]
pub struct BucketAccess {
    buckets: Arc<dyn Buckets>,
    capability: Arc<str>,
    bindings: Arc<[Arc<str>]>,
}

impl BucketAccess {
    /// # Errors
    /// [`BucketError::NotAllowed`] when `capability` cannot be read.
    pub fn new(buckets: Arc<dyn Buckets>, capability: &str) -> Result<Self, BucketError> {
        let read = Capability::read(capability).map_err(|error| BucketError::NotAllowed {
            why: error.to_string(),
        })?;
        let bindings = read.grant.bindings.keys().map(|name| name.as_str().into());
        Ok(Self {
            buckets,
            capability: capability.into(),
            bindings: bindings.collect(),
        })
    }

    /// Opens by the binding's name.
    ///
    /// # Errors
    /// [`BucketError::NoSuchBucket`] when there is no such binding.
    pub fn open(&self, binding: &str) -> Result<Bucket, BucketError> {
        let bound = self.bindings.iter().find(|name| &***name == binding);
        let bound = bound.ok_or_else(|| BucketError::NoSuchBucket {
            name: binding.to_owned(),
        })?;
        Ok(Bucket {
            buckets: Arc::clone(&self.buckets),
            target: Target {
                capability: Arc::clone(&self.capability),
                binding: Arc::clone(bound),
            },
        })
    }
}

/// One open bucket. Cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    buckets: Arc<dyn Buckets>,
    target: Target,
}

/// How a comparison ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compared {
    /// Done; the key now has this revision.
    Done(Revision),
    /// Nothing was changed: this is what is there.
    Differs(Option<Value>),
}

fn unexpected<T>() -> Result<T, BucketError> {
    Err(BucketError::Unavailable {
        why: "an answer of another kind came back".to_owned(),
        may_be_done: true,
    })
}

impl Bucket {
    pub async fn call(&self, call: Call) -> Result<Answer, BucketError> {
        call.check()?;
        self.buckets.call(&self.target, call).await
    }

    pub async fn get(&self, key: impl Into<String>) -> Result<Option<Value>, BucketError> {
        match self.call(Call::Get { key: key.into() }).await? {
            Answer::Value(value) => Ok(value),
            _ => unexpected(),
        }
    }

    pub async fn exists(&self, key: impl Into<String>) -> Result<bool, BucketError> {
        match self.call(Call::Exists { key: key.into() }).await? {
            Answer::Exists(exists) => Ok(exists),
            _ => unexpected(),
        }
    }

    /// In the order of `keys`, as of one revision.
    pub async fn get_many(&self, keys: Vec<String>) -> Result<Vec<Option<Value>>, BucketError> {
        match self.call(Call::GetMany { keys }).await? {
            Answer::Values(values) => Ok(values),
            _ => unexpected(),
        }
    }

    /// * `after`: the last key of the page before.
    /// * `limit`: keys; at most [`wire::bucket::PAGE_KEYS_MAX`] come at once.
    pub async fn list(
        &self,
        prefix: impl Into<String>,
        after: Option<String>,
        limit: u32,
    ) -> Result<KeyPage, BucketError> {
        let prefix = prefix.into();
        let call = Call::List {
            prefix,
            after,
            limit,
        };
        match self.call(call).await? {
            Answer::Keys(page) => Ok(page),
            _ => unexpected(),
        }
    }

    async fn write(&self, call: Call) -> Result<Revision, BucketError> {
        match self.call(call).await? {
            Answer::Done(revision) => Ok(revision),
            _ => unexpected(),
        }
    }

    pub async fn set(
        &self,
        key: impl Into<String>,
        value: impl Into<Vec<u8>>,
    ) -> Result<Revision, BucketError> {
        let (key, value) = (key.into(), Blob(value.into()));
        self.write(Call::Set { key, value }).await
    }

    pub async fn delete(&self, key: impl Into<String>) -> Result<Revision, BucketError> {
        self.write(Call::Delete { key: key.into() }).await
    }

    /// All or none.
    pub async fn set_many(&self, entries: Vec<(String, Vec<u8>)>) -> Result<Revision, BucketError> {
        let entries = entries.into_iter();
        let entries = entries.map(|(key, value)| (key, Blob(value))).collect();
        self.write(Call::SetMany { entries }).await
    }

    /// All or none; absent ones are no error.
    pub async fn delete_many(&self, keys: Vec<String>) -> Result<Revision, BucketError> {
        self.write(Call::DeleteMany { keys }).await
    }

    /// Sets (or with `None` deletes) the key if it was last changed at
    /// `expected`, or if it is absent where that is `None`.
    pub async fn compare_and_set(
        &self,
        key: impl Into<String>,
        expected: Option<Revision>,
        value: Option<Vec<u8>>,
    ) -> Result<Compared, BucketError> {
        let call = Call::CompareAndSet {
            key: key.into(),
            expected,
            value: value.map(Blob),
        };
        match self.call(call).await? {
            Answer::Done(revision) => Ok(Compared::Done(revision)),
            Answer::Differs(current) => Ok(Compared::Differs(current)),
            _ => unexpected(),
        }
    }

    /// Adds to a decimal number and returns the sum; an absent one was zero.
    pub async fn increment(&self, key: impl Into<String>, delta: i64) -> Result<i64, BucketError> {
        let key = key.into();
        match self.call(Call::Add { key, delta }).await? {
            Answer::Number(sum) => Ok(sum),
            _ => unexpected(),
        }
    }

    pub async fn watch(
        &self,
        prefix: &str,
        after: Revision,
    ) -> Result<Box<dyn BucketWatch>, BucketError> {
        check_prefix(prefix)?;
        self.buckets.watch(&self.target, prefix, after).await
    }
}
