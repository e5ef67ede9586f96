//! Comments in the bucket: `PAGE@NUMBER` is one, `PAGE#ID` its number, and
//! `PAGE@` the highest number of its page.
//!
//! The interface lists all keys of a bucket and none of a prefix; numbers find a
//! page's newest comments without it.
//! Holds: reading a page costs what it shows, however full the bucket is. A
//! number whose comment was never written is a gap; the same comment, sent twice
//! at once, may have two numbers and is shown once.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use wasi::keyvalue::store::{self, Bucket, Error};
use wasi::keyvalue::{atomics, batch};

wit_bindgen::generate!({ path: "wit", world: "comments", generate_all });

/// Of one page, the newest.
const SHOWN_MAX: u64 = 200;
const BATCH_MAX: usize = 100;

#[derive(Serialize, Deserialize)]
pub struct Comment {
    pub id: String,
    pub at_unix_ms: u64,
    pub text: String,
}

pub enum Failed {
    Full(String),
    Bucket(String),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        match error {
            Error::NoSuchStore => Self::Bucket("no bucket is bound as `comments`".to_owned()),
            Error::AccessDenied => Self::Bucket("access is denied".to_owned()),
            Error::Other(why) if why.contains("is full") => Self::Full(why),
            Error::Other(why) => Self::Bucket(why),
        }
    }
}

/// The comment, and whether it is new.
pub fn put(page: &str, id: String, text: String) -> Result<(Comment, bool), Failed> {
    let bucket = store::open("comments")?;
    let by_id = format!("{page}#{id}");
    if let Some(number) = number(&bucket, &by_id)?
        && let Some(there) = bucket.get(&numbered(page, number))?.and_then(|bytes| read(&bytes))
    {
        return Ok((there, false));
    }
    let number = atomics::increment(&bucket, &highest(page), 1)?;
    let comment = Comment::new(id, text);
    let bytes = serde_json::to_vec(&comment).unwrap_or_default();
    // Both or none.
    let entries = [
        (numbered(page, number), bytes),
        (by_id, number.to_string().into_bytes()),
    ];
    batch::set_many(&bucket, &entries)?;
    Ok((comment, true))
}

/// Of a page, oldest first.
pub fn of(page: &str) -> Result<Vec<Comment>, Failed> {
    let bucket = store::open("comments")?;
    let last = number(&bucket, &highest(page))?.unwrap_or(0);
    let first = last.saturating_sub(SHOWN_MAX) + 1;
    let keys: Vec<_> = (first..=last).map(|number| numbered(page, number)).collect();
    let (mut comments, mut seen) = (Vec::new(), BTreeSet::new());
    for keys in keys.chunks(BATCH_MAX) {
        let found = batch::get_many(&bucket, keys)?;
        let found = found.into_iter().flatten().filter_map(|(_, bytes)| read(&bytes));
        comments.extend(found.filter(|comment| seen.insert(comment.id.clone())));
    }
    Ok(comments)
}

fn highest(page: &str) -> String {
    format!("{page}@")
}

fn numbered(page: &str, number: u64) -> String {
    format!("{page}@{number}")
}

fn number(bucket: &Bucket, key: &str) -> Result<Option<u64>, Failed> {
    let found = bucket.get(key)?;
    Ok(found.and_then(|digits| str::from_utf8(&digits).ok()?.parse().ok()))
}

fn read(bytes: &[u8]) -> Option<Comment> {
    serde_json::from_slice(bytes).ok()
}
