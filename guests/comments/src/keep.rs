//! Comments in the bucket: a key each, `PAGE#ID`.

use serde::{Deserialize, Serialize};
use wasi::keyvalue::batch;
use wasi::keyvalue::store::{self, Bucket, Error};

wit_bindgen::generate!({ path: "wit", world: "comments", generate_all });

/// Of one page, the newest.
const SHOWN_MAX: usize = 200;
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
    let key = format!("{page}#{id}");
    if let Some(there) = bucket.get(&key)?.and_then(|bytes| read(&bytes)) {
        return Ok((there, false));
    }
    let comment = Comment::new(id, text);
    let bytes = serde_json::to_vec(&comment).unwrap_or_default();
    bucket.set(&key, &bytes)?;
    Ok((comment, true))
}

/// Of a page, oldest first.
pub fn of(page: &str) -> Result<Vec<Comment>, Failed> {
    let bucket = store::open("comments")?;
    let mut comments = Vec::new();
    for keys in keys(&bucket, &format!("{page}#"))?.chunks(BATCH_MAX) {
        let found = batch::get_many(&bucket, keys)?;
        comments.extend(found.into_iter().flatten().filter_map(|(_, bytes)| read(&bytes)));
    }
    comments.sort_by(|a, b| (a.at_unix_ms, &a.id).cmp(&(b.at_unix_ms, &b.id)));
    let hidden = comments.len().saturating_sub(SHOWN_MAX);
    comments.drain(..hidden);
    Ok(comments)
}

/// The interface lists all keys of a bucket; for one page they are picked here.
fn keys(bucket: &Bucket, prefix: &str) -> Result<Vec<String>, Failed> {
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        let page = bucket.list_keys(cursor)?;
        found.extend(page.keys.into_iter().filter(|key| key.starts_with(prefix)));
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(found);
        }
    }
}

fn read(bytes: &[u8]) -> Option<Comment> {
    serde_json::from_slice(bytes).ok()
}
