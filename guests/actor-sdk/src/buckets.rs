//! What an actor keeps for good: strong buckets, by their bindings' names.
//!
//! Holds: what returned `Ok` is durable; no call is done twice.

use std::fmt;

mod raw {
    #[link(wasm_import_module = "homeostat")]
    unsafe extern "C" {
        pub safe fn bucket_get(
            bucket: *const u8,
            bucket_bytes: usize,
            key: *const u8,
            key_bytes: usize,
            value: *mut u8,
            room: usize,
            revision: *mut u64,
        ) -> i64;
        pub safe fn bucket_set(
            bucket: *const u8,
            bucket_bytes: usize,
            key: *const u8,
            key_bytes: usize,
            value: *const u8,
            value_bytes: usize,
        ) -> i64;
        pub safe fn bucket_delete(
            bucket: *const u8,
            bucket_bytes: usize,
            key: *const u8,
            key_bytes: usize,
        ) -> i64;
        pub safe fn bucket_compare_and_set(
            bucket: *const u8,
            bucket_bytes: usize,
            key: *const u8,
            key_bytes: usize,
            expected: u64,
            value: *const u8,
            value_bytes: usize,
        ) -> i64;
        pub safe fn bucket_increment(
            bucket: *const u8,
            bucket_bytes: usize,
            key: *const u8,
            key_bytes: usize,
            delta: i64,
            sum: *mut i64,
        ) -> i64;
    }
}

/// A first guess at a value's length.
const USUAL_BYTES: usize = 4096;

/// Why a call was not done, or may not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BucketError {
    /// No binding has this name.
    NoSuchBucket,
    NotAllowed,
    /// At its quota; deleting still works.
    Full,
    /// More calls a second than allowed.
    TooOften,
    /// The key, the value, or a number that is none.
    Invalid,
    /// The bucket could not be reached; nothing was done.
    NotDone,
    /// The bucket was lost meanwhile; it may be done.
    MayBeDone,
    /// A newer actor has taken over from this one.
    Fenced,
}

impl fmt::Display for BucketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuchBucket => "no binding has this name",
            Self::NotAllowed => "this is not allowed",
            Self::Full => "the bucket is at its quota",
            Self::TooOften => "the bucket is called too often",
            Self::Invalid => "the key or the value is not right",
            Self::NotDone => "the bucket could not be reached",
            Self::MayBeDone => "the bucket was lost; the call may have been done",
            Self::Fenced => "a newer actor has taken over",
        })
    }
}

impl std::error::Error for BucketError {}

fn error(code: i64) -> BucketError {
    match code {
        -2 => BucketError::NoSuchBucket,
        -3 => BucketError::NotAllowed,
        -4 => BucketError::Full,
        -5 => BucketError::TooOften,
        -6 => BucketError::Invalid,
        -7 => BucketError::NotDone,
        -10 => BucketError::Fenced,
        _ => BucketError::MayBeDone,
    }
}

fn number(code: i64) -> Result<u64, BucketError> {
    u64::try_from(code).map_err(|_| error(code))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub bytes: Vec<u8>,
    /// Of its last change.
    pub revision: u64,
}

/// One bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket<'a>(&'a str);

impl<'a> Bucket<'a> {
    /// By its binding's name; whether there is one, the first call tells.
    pub fn named(binding: &'a str) -> Self {
        Self(binding)
    }

    pub fn get(&self, key: &str) -> Result<Option<Value>, BucketError> {
        let mut bytes = vec![0; USUAL_BYTES];
        loop {
            let mut revision = 0;
            let got = raw::bucket_get(
                self.0.as_ptr(),
                self.0.len(),
                key.as_ptr(),
                key.len(),
                bytes.as_mut_ptr(),
                bytes.len(),
                &raw mut revision,
            );
            if got == -1 {
                return Ok(None);
            }
            let length = usize::try_from(number(got)?).unwrap_or(usize::MAX);
            let fits = length <= bytes.len();
            // What does not fit was not written: ask again with more room.
            bytes.resize(length, 0);
            if fits {
                return Ok(Some(Value { bytes, revision }));
            }
        }
    }

    /// The key's new revision.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<u64, BucketError> {
        number(raw::bucket_set(
            self.0.as_ptr(),
            self.0.len(),
            key.as_ptr(),
            key.len(),
            value.as_ptr(),
            value.len(),
        ))
    }

    pub fn delete(&self, key: &str) -> Result<u64, BucketError> {
        number(raw::bucket_delete(
            self.0.as_ptr(),
            self.0.len(),
            key.as_ptr(),
            key.len(),
        ))
    }

    /// Sets the key if it was last changed at `expected`, or if it is absent
    /// where that is `None`; `None` if not.
    pub fn compare_and_set(
        &self,
        key: &str,
        expected: Option<u64>,
        value: &[u8],
    ) -> Result<Option<u64>, BucketError> {
        let done = raw::bucket_compare_and_set(
            self.0.as_ptr(),
            self.0.len(),
            key.as_ptr(),
            key.len(),
            expected.unwrap_or(0),
            value.as_ptr(),
            value.len(),
        );
        match done {
            -9 => Ok(None),
            done => number(done).map(Some),
        }
    }

    /// Adds to a decimal number, absent as zero; the sum.
    pub fn increment(&self, key: &str, delta: i64) -> Result<i64, BucketError> {
        let mut sum = 0;
        number(raw::bucket_increment(
            self.0.as_ptr(),
            self.0.len(),
            key.as_ptr(),
            key.len(),
            delta,
            &raw mut sum,
        ))?;
        Ok(sum)
    }
}
