//! Tokens: made, shown once, kept as hashes, checked, revoked.
//!
//! Holds: what is compared is compared in constant time; what is kept does not
//! tell the token (a hash of 256 random bits); an expired token is as good as
//! none. Never: logs a token.

use crate::apply::{api_error, storage};
use crate::auth::Who;
use crate::machine::unix_now;
use crate::shared::Shared;
use kernel::{Name, UnixMillis};
use node::store::{Compare, Entry, Operation, Store, Transaction};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use wire::api::{ApiError, Role, TokenReply, TokenView};

pub const PREFIX: &str = "/token/";
/// What people recognise one by, and tools that look for leaked ones.
const MARK: &str = "hs_";
pub const LIFE_USUAL: Duration = Duration::from_hours(30 * 24);
const LIFE_MAX: Duration = Duration::from_hours(10 * 366 * 24);
const TOKENS_MAX: usize = 10_000;
/// The clock may be set while a token is waited for.
const LOOK_MAX: Duration = Duration::from_mins(1);

#[derive(Serialize, Deserialize)]
struct Kept {
    /// BLAKE3 of the whole token.
    hash: kernel::Hash,
    role: Role,
    project: Option<Name>,
    created: UnixMillis,
    expires: UnixMillis,
}

fn key(id: &str) -> String {
    format!("{PREFIX}{id}")
}

fn refused(message: impl Into<String>) -> ApiError {
    api_error(
        "unauthenticated",
        message,
        Some("ask an admin for: homeostat token create"),
    )
}

/// Who a token stands for.
pub async fn check(shared: &Shared, token: &str) -> Result<Who, ApiError> {
    let unknown = || refused("the token is not valid here: wrong, or revoked");
    let id = token
        .strip_prefix(MARK)
        .and_then(|rest| rest.split_once('_'))
        .map(|(id, _)| id)
        .filter(|id| id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .ok_or_else(unknown)?;
    let key = key(id);
    let entry = node::store::get(shared.known(), &key).await;
    let entry = entry.map_err(|error| storage(&error))?;
    let kept: Kept = entry
        .and_then(|entry| serde_json::from_slice(&entry.value).ok())
        .ok_or_else(unknown)?;
    // Its comparison takes as long for any two hashes.
    if vault::hash(token.as_bytes()) != vault::known(kept.hash.0) {
        return Err(unknown());
    }
    if kept.expires <= unix_now() {
        let at = crate::objects::date(kept.expires);
        return Err(refused(format!("the token expired at {at}")));
    }
    Ok(Who::Token {
        id: id.to_owned(),
        role: kept.role,
        project: kept.project,
    })
}

/// Returns once whoever asks has no rights any more, because their token was
/// revoked or has expired. What goes on for long is to end with it.
pub async fn ended(shared: &Shared, who: &Who) {
    let Who::Token { id, .. } = who else {
        return std::future::pending().await;
    };
    let key = key(id);
    loop {
        // A store that does not answer vouches for nobody.
        let Ok(range) = shared.known().range(&key).await else {
            return;
        };
        let entry = range.entries.iter().find(|entry| entry.key == key);
        let kept: Option<Kept> = entry.and_then(|entry| serde_json::from_slice(&entry.value).ok());
        let left_ms = kept.map_or(0, |kept| kept.expires.0.saturating_sub(unix_now().0));
        let Ok(mut watch) = shared.known().watch(&key, range.revision).await else {
            return;
        };
        if left_ms == 0 {
            return;
        }
        let left = Duration::from_millis(left_ms).min(LOOK_MAX);
        // Whichever comes: it is looked at again.
        let _ = tokio::time::timeout(left, watch.next()).await;
    }
}

/// Shown this once.
pub async fn create(
    shared: &Shared,
    role: Role,
    project: Option<Name>,
    life: Duration,
) -> Result<TokenReply, ApiError> {
    if life.is_zero() || life > LIFE_MAX {
        return Err(api_error(
            "invalid_token",
            "a token lives for up to ten years, and for more than no time",
            Some("homeostat token create --ttl 30d"),
        ));
    }
    let range = shared.control.range(PREFIX).await;
    if range.map_err(|error| storage(&error))?.entries.len() >= TOKENS_MAX {
        return Err(api_error(
            "conflict",
            format!("there are {TOKENS_MAX} tokens, the most that are kept"),
            Some("homeostat token ls; homeostat token revoke ID"),
        ));
    }
    let (id, token) = vault::token(MARK)
        .map_err(|error| api_error("internal", error.to_string(), error.hint()))?;
    let created = unix_now();
    let life_ms = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
    let kept = Kept {
        hash: kernel::Hash(*vault::hash(token.as_bytes()).as_bytes()),
        role,
        project,
        created,
        expires: UnixMillis(created.0.saturating_add(life_ms)),
    };
    let value = serde_json::to_vec(&kept)
        .map_err(|error| api_error("internal", error.to_string(), None))?;
    let transaction = Transaction {
        compare: vec![Compare::Absent(key(&id))],
        then: vec![Operation::Put(key(&id), value)],
        otherwise: Vec::new(),
    };
    let outcome = shared.control.transact(transaction).await;
    if !outcome.map_err(|error| storage(&error))?.succeeded {
        return Err(api_error("conflict", "its id is taken", Some("try again")));
    }
    Ok(TokenReply {
        id,
        token,
        expires_unix_ms: kept.expires.0,
    })
}

pub async fn list(shared: &Shared) -> Result<Vec<TokenView>, ApiError> {
    let range = shared.control.range(PREFIX).await;
    let entries = range.map_err(|error| storage(&error))?.entries;
    let now = unix_now();
    let view = |entry: Entry| {
        let kept: Kept = serde_json::from_slice(&entry.value).ok()?;
        Some(TokenView {
            id: entry.key.strip_prefix(PREFIX)?.to_owned(),
            role: kept.role,
            project: kept.project.map(|project| project.to_string()),
            created_unix_ms: kept.created.0,
            expires_unix_ms: kept.expires.0,
            expired: kept.expires <= now,
        })
    };
    Ok(entries.into_iter().filter_map(view).collect())
}

pub async fn revoke(shared: &Shared, id: &str) -> Result<(), ApiError> {
    let transaction = Transaction {
        compare: vec![Compare::Present(key(id))],
        then: vec![Operation::Delete(key(id))],
        otherwise: Vec::new(),
    };
    let outcome = shared.control.transact(transaction).await;
    if outcome.map_err(|error| storage(&error))?.succeeded {
        return Ok(());
    }
    Err(unknown(id))
}

pub fn unknown(id: &str) -> ApiError {
    api_error(
        "not_found",
        format!("no token has the id `{id}`"),
        Some("homeostat token ls"),
    )
}
