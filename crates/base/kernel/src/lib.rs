//! The words every part shares: names and ids, boot-clock time, units, hashes,
//! zone paths and seeded randomness.
//!
//! Holds: a value of these types is valid by construction; parsing is the only
//! way in from text. Never: reads a clock, does I/O, draws unseeded randomness.

mod error;
mod hash;
mod id;
mod rng;
mod time;
mod units;
mod zone;

pub use error::error_chain;
pub use hash::{Hash, HashError, fnv1a};
pub use id::{
    DecisionId, FencingEpoch, Name, NameError, NodeId, ObjectRef, ReplicaId, ReplicaIdError,
    Revision, ScopedName, ScopedNameError,
};
pub use rng::Rng;
pub use time::{DurationError, Time, UnixMillis, duration_text, format_duration, parse_duration};
pub use units::{Bytes, BytesError};
pub use zone::{ZonePath, ZonePathError};
