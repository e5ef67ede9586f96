//! `wasi:keyvalue` for guests, on the buckets that their service is bound to.
//!
//! In: a guest's calls. Out: the same on [`Bucket`], and its errors in words.
//! Holds: a guest opens a bucket by its binding's name, and nothing else; a
//! service without buckets can link, and finds no store.
//! Never: keeps a value.

use crate::guest::Guest;
use node::buckets::{Bucket, BucketAccess};
use wasmtime::component::{HasData, Linker, Resource, ResourceTable, ResourceTableError};
use wire::bucket::{BucketError, PAGE_KEYS_MAX};

mod generated {
    wasmtime::component::bindgen!({
        path: "wit/keyvalue",
        world: "wasi:keyvalue/imports",
        imports: { default: async | trappable },
        with: { "wasi:keyvalue/store.bucket": crate::keyvalue::Open },
        trappable_error_type: { "wasi:keyvalue/store.error" => crate::keyvalue::Error },
    });
}

use generated::wasi::keyvalue::{atomics, batch, store};

/// Cursors that one open bucket gives out.
const CURSORS_MAX: usize = 10_000;

/// A bucket that a guest has open.
pub struct Open {
    bucket: Bucket,
    /// The last key of each page that had another one after it; a cursor is
    /// the number of its page.
    pages: Vec<String>,
}

#[derive(Debug)]
pub enum Error {
    NoSuchStore,
    AccessDenied,
    Other(String),
    /// The guest gave what is no bucket: it is ended.
    Table(ResourceTableError),
}

impl From<BucketError> for Error {
    fn from(error: BucketError) -> Self {
        match &error {
            BucketError::NoSuchBucket { .. } => Self::NoSuchStore,
            BucketError::NotAllowed { .. } => Self::AccessDenied,
            other => Self::Other(match other.hint() {
                Some(hint) => format!("{other}; {hint}"),
                None => other.to_string(),
            }),
        }
    }
}

impl From<ResourceTableError> for Error {
    fn from(error: ResourceTableError) -> Self {
        match error {
            ResourceTableError::Full => Self::Other("too much is open".to_owned()),
            other => Self::Table(other),
        }
    }
}

pub struct KeyValue<'a> {
    pub(crate) access: Option<&'a BucketAccess>,
    pub(crate) table: &'a mut ResourceTable,
}

struct HasKeyValue;

impl HasData for HasKeyValue {
    type Data<'a> = KeyValue<'a>;
}

pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    store::add_to_linker::<_, HasKeyValue>(linker, Guest::key_value)?;
    atomics::add_to_linker::<_, HasKeyValue>(linker, Guest::key_value)?;
    batch::add_to_linker::<_, HasKeyValue>(linker, Guest::key_value)
}

impl KeyValue<'_> {
    fn bucket(&self, open: &Resource<Open>) -> Result<Bucket, Error> {
        Ok(self.table.get(open)?.bucket.clone())
    }
}

impl store::Host for KeyValue<'_> {
    async fn open(&mut self, identifier: String) -> Result<Resource<Open>, Error> {
        let access = self.access.ok_or(Error::NoSuchStore)?;
        let open = Open {
            bucket: access.open(&identifier)?,
            pages: Vec::new(),
        };
        Ok(self.table.push(open)?)
    }

    fn convert_error(&mut self, error: Error) -> wasmtime::Result<store::Error> {
        match error {
            Error::NoSuchStore => Ok(store::Error::NoSuchStore),
            Error::AccessDenied => Ok(store::Error::AccessDenied),
            Error::Other(why) => Ok(store::Error::Other(why)),
            Error::Table(error) => Err(error.into()),
        }
    }
}

impl store::HostBucket for KeyValue<'_> {
    async fn get(&mut self, open: Resource<Open>, key: String) -> Result<Option<Vec<u8>>, Error> {
        let found = self.bucket(&open)?.get(key).await?;
        Ok(found.map(|value| value.bytes.0))
    }

    async fn set(
        &mut self,
        open: Resource<Open>,
        key: String,
        value: Vec<u8>,
    ) -> Result<(), Error> {
        self.bucket(&open)?.set(key, value).await?;
        Ok(())
    }

    async fn delete(&mut self, open: Resource<Open>, key: String) -> Result<(), Error> {
        self.bucket(&open)?.delete(key).await?;
        Ok(())
    }

    async fn exists(&mut self, open: Resource<Open>, key: String) -> Result<bool, Error> {
        Ok(self.bucket(&open)?.exists(key).await?)
    }

    async fn list_keys(
        &mut self,
        open: Resource<Open>,
        cursor: Option<u64>,
    ) -> Result<store::KeyResponse, Error> {
        let Open { bucket, pages } = self.table.get_mut(&open)?;
        let after = match cursor {
            None => None,
            Some(number) => {
                let page = usize::try_from(number)
                    .ok()
                    .and_then(|page| pages.get(page));
                let unknown = || Error::Other(format!("no page has the cursor {number}"));
                Some(page.ok_or_else(unknown)?.clone())
            }
        };
        let page = bucket.list("", after, PAGE_KEYS_MAX).await?;
        let cursor = match page.keys.last().filter(|_| page.more) {
            None => None,
            Some(_) if pages.len() >= CURSORS_MAX => {
                return Err(Error::Other(format!("{CURSORS_MAX} cursors are given out")));
            }
            Some(last) => {
                pages.push(last.clone());
                Some(pages.len() as u64 - 1)
            }
        };
        Ok(store::KeyResponse {
            keys: page.keys,
            cursor,
        })
    }

    async fn drop(&mut self, open: Resource<Open>) -> wasmtime::Result<()> {
        self.table.delete(open)?;
        Ok(())
    }
}

impl atomics::Host for KeyValue<'_> {
    async fn increment(
        &mut self,
        open: Resource<Open>,
        key: String,
        delta: u64,
    ) -> Result<u64, Error> {
        let most = || Error::Other(format!("a number goes up to {}", i64::MAX));
        let delta = i64::try_from(delta).map_err(|_| most())?;
        let sum = self.bucket(&open)?.increment(key, delta).await?;
        u64::try_from(sum).map_err(|_| Error::Other(format!("the number is {sum}, below zero")))
    }
}

impl batch::Host for KeyValue<'_> {
    async fn get_many(
        &mut self,
        open: Resource<Open>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<(String, Vec<u8>)>>, Error> {
        let found = self.bucket(&open)?.get_many(keys.clone()).await?;
        let pairs = keys.into_iter().zip(found);
        Ok(pairs
            .map(|(key, value)| value.map(|value| (key, value.bytes.0)))
            .collect())
    }

    async fn set_many(
        &mut self,
        open: Resource<Open>,
        entries: Vec<(String, Vec<u8>)>,
    ) -> Result<(), Error> {
        self.bucket(&open)?.set_many(entries).await?;
        Ok(())
    }

    async fn delete_many(&mut self, open: Resource<Open>, keys: Vec<String>) -> Result<(), Error> {
        self.bucket(&open)?.delete_many(keys).await?;
        Ok(())
    }
}
