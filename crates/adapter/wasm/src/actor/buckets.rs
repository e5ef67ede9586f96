//! What an actor keeps for good: buckets, by the names of its bindings.
//!
//! In: names, keys and values in the actor's memory. Out: numbers; a negative
//! one says what was wrong.
//! Holds: what a call waits for its bucket is not counted to the actor's time,
//! up to [`WAIT_MAX`]. Never: tells one actor of another's buckets.

use super::error::ActorError;
use super::imports::{Inside, MODULE, View, view};
use kernel::Revision;
use node::buckets::{Bucket, Compared};
use std::time::{Duration, Instant};
use wasmtime::{Caller, Linker};
use wire::bucket::{BucketError, KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// Of one call of an actor: a bucket's call is held for some seconds while its
/// agent is away.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// As `docs/actors.md` has them.
const ABSENT: i64 = -1;
const NO_SUCH_BUCKET: i64 = -2;
const NOT_ALLOWED: i64 = -3;
const FULL: i64 = -4;
const TOO_OFTEN: i64 = -5;
const INVALID: i64 = -6;
const NOT_DONE: i64 = -7;
const MAY_BE_DONE: i64 = -8;
const DIFFERS: i64 = -9;
const FENCED: i64 = -10;

fn code(error: &BucketError) -> i64 {
    tracing::debug!(%error, "a bucket's call");
    match error {
        BucketError::NoSuchBucket { .. } => NO_SUCH_BUCKET,
        BucketError::NotAllowed { .. } => NOT_ALLOWED,
        BucketError::Quota { .. } => FULL,
        BucketError::Rate { .. } => TOO_OFTEN,
        BucketError::Invalid(_) => INVALID,
        BucketError::Fenced { .. } => FENCED,
        BucketError::Unavailable {
            may_be_done: false, ..
        } => NOT_DONE,
        // Of a later version: nothing is known of it.
        _ => MAY_BE_DONE,
    }
}

/// Where something is in the actor's memory.
type At = (u32, u32);

struct Place {
    bucket: Bucket,
    key: String,
}

fn long(what: &'static str, bytes: u32, max: usize) -> Result<(), ActorError> {
    let max = u32::try_from(max).unwrap_or(u32::MAX);
    (bytes <= max)
        .then_some(())
        .ok_or(ActorError::Long { what, bytes, max })
}

impl View<'_> {
    fn name(&self, what: &'static str, (at, bytes): At) -> Result<String, ActorError> {
        // What is a little too long is the bucket's to refuse.
        long(what, bytes, KEY_BYTES_MAX * 2)?;
        Ok(String::from_utf8_lossy(self.read(what, at, bytes)?).into_owned())
    }

    fn value(&self, (at, bytes): At) -> Result<Vec<u8>, ActorError> {
        long("value", bytes, VALUE_BYTES_MAX * 2)?;
        Ok(self.read("value", at, bytes)?.to_vec())
    }

    /// The bucket bound to the name, and a key; or the number to return.
    fn place(&self, name: At, key: At) -> Result<Result<Place, i64>, ActorError> {
        let name = self.name("bucket", name)?;
        let key = self.name("key", key)?;
        let access = self.inside.buckets.as_ref();
        let opened = access.map_or(Err(NO_SUCH_BUCKET), |access| {
            access.open(&name).map_err(|error| code(&error))
        });
        Ok(opened.map(|bucket| Place { bucket, key }))
    }
}

/// Gives the actor back the time that passes in `work`.
async fn waiting<T>(caller: &mut Caller<'_, Inside>, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let done = work.await;
    let inside = caller.data_mut();
    let passed = began.elapsed().min(WAIT_MAX.saturating_sub(inside.waited));
    inside.waited += passed;
    inside.deadline += passed;
    done
}

fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

pub(super) fn add(linker: &mut Linker<Inside>) -> wasmtime::Result<()> {
    linker
        .func_wrap_async(
            MODULE,
            "bucket_get",
            |mut caller: Caller<'_, Inside>,
             (a, b, c, d, value, room, revision): (u32, u32, u32, u32, u32, u32, u32)| {
                Box::new(
                    async move { get(&mut caller, (a, b), (c, d), (value, room), revision).await },
                )
            },
        )?
        .func_wrap_async(
            MODULE,
            "bucket_set",
            |mut caller: Caller<'_, Inside>, (a, b, c, d, e, f): (u32, u32, u32, u32, u32, u32)| {
                Box::new(async move { set(&mut caller, (a, b), (c, d), (e, f)).await })
            },
        )?
        .func_wrap_async(
            MODULE,
            "bucket_delete",
            |mut caller: Caller<'_, Inside>, (a, b, c, d): (u32, u32, u32, u32)| {
                Box::new(async move { delete(&mut caller, (a, b), (c, d)).await })
            },
        )?
        .func_wrap_async(
            MODULE,
            "bucket_compare_and_set",
            |mut caller: Caller<'_, Inside>,
             (a, b, c, d, expected, e, f): (u32, u32, u32, u32, u64, u32, u32)| {
                Box::new(
                    async move { compare(&mut caller, (a, b), (c, d), expected, (e, f)).await },
                )
            },
        )?
        .func_wrap_async(
            MODULE,
            "bucket_increment",
            |mut caller: Caller<'_, Inside>,
             (a, b, c, d, delta, sum): (u32, u32, u32, u32, i64, u32)| {
                Box::new(async move { increment(&mut caller, (a, b), (c, d), delta, sum).await })
            },
        )?;
    Ok(())
}

async fn get(
    caller: &mut Caller<'_, Inside>,
    name: At,
    key: At,
    (value_at, room): At,
    revision_at: u32,
) -> wasmtime::Result<i64> {
    let place = match view(caller)?.place(name, key)? {
        Ok(place) => place,
        Err(code) => return Ok(code),
    };
    let got = waiting(caller, place.bucket.get(place.key)).await;
    let found = match got {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(ABSENT),
        Err(error) => return Ok(code(&error)),
    };
    let mut view = view(caller)?;
    let revision = found.revision.0.to_le_bytes();
    view.write("revision", revision_at, &revision)?;
    let bytes = found.bytes.0;
    // What does not fit is not written: its length says what would.
    if u32::try_from(bytes.len()).is_ok_and(|length| length <= room) {
        view.write("value", value_at, &bytes)?;
    }
    Ok(i64::try_from(bytes.len()).unwrap_or(i64::MAX))
}

async fn set(
    caller: &mut Caller<'_, Inside>,
    name: At,
    key: At,
    value: At,
) -> wasmtime::Result<i64> {
    let view = view(caller)?;
    let value = view.value(value)?;
    let place = match view.place(name, key)? {
        Ok(place) => place,
        Err(code) => return Ok(code),
    };
    let done = waiting(caller, place.bucket.set(place.key, value)).await;
    Ok(done.map_or_else(|error| code(&error), number))
}

async fn delete(caller: &mut Caller<'_, Inside>, name: At, key: At) -> wasmtime::Result<i64> {
    let place = match view(caller)?.place(name, key)? {
        Ok(place) => place,
        Err(code) => return Ok(code),
    };
    let done = waiting(caller, place.bucket.delete(place.key)).await;
    Ok(done.map_or_else(|error| code(&error), number))
}

async fn compare(
    caller: &mut Caller<'_, Inside>,
    name: At,
    key: At,
    expected: u64,
    value: At,
) -> wasmtime::Result<i64> {
    let view = view(caller)?;
    let value = view.value(value)?;
    let place = match view.place(name, key)? {
        Ok(place) => place,
        Err(code) => return Ok(code),
    };
    let expected = (expected > 0).then_some(Revision(expected));
    let work = place
        .bucket
        .compare_and_set(place.key, expected, Some(value));
    Ok(match waiting(caller, work).await {
        Ok(Compared::Done(revision)) => number(revision),
        Ok(Compared::Differs(_)) => DIFFERS,
        Err(error) => code(&error),
    })
}

async fn increment(
    caller: &mut Caller<'_, Inside>,
    name: At,
    key: At,
    delta: i64,
    sum_at: u32,
) -> wasmtime::Result<i64> {
    let mut view_before = view(caller)?;
    // Before anything is added.
    view_before.write("sum", sum_at, &[0; 8])?;
    let place = match view_before.place(name, key)? {
        Ok(place) => place,
        Err(code) => return Ok(code),
    };
    match waiting(caller, place.bucket.increment(place.key, delta)).await {
        Ok(sum) => {
            view(caller)?.write("sum", sum_at, &sum.to_le_bytes())?;
            Ok(0)
        }
        Err(error) => Ok(code(&error)),
    }
}
