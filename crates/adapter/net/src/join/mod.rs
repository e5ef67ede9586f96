//! How a machine with a token becomes a node.
//!
//! Holds: the one who joins believes the root whose hash the token names, and
//! proves that it knows the token's secret in this very session; the secret is
//! never sent. What a stranger sends is bounded in bytes and time and checked
//! before the doorkeeper hears of it. Never: decides who is admitted.

mod enter;
mod serve;

pub use enter::{JoinError, Joined, Joining, join};
pub use serve::{Applicant, Doorkeeper, Future, Refused, Welcome};

pub(crate) use serve::serve;

use quinn::Connection;
use wire::net::join::{EXPORT_BYTES, EXPORT_LABEL};

/// What only the two ends of this session know.
fn export(connection: &Connection) -> Option<[u8; EXPORT_BYTES]> {
    let mut bytes = [0; EXPORT_BYTES];
    connection
        .export_keying_material(&mut bytes, EXPORT_LABEL, b"")
        .ok()?;
    Some(bytes)
}
