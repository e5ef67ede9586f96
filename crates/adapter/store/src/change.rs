//! A change that is decided where it is applied: steps with their results,
//! bounds on what they may fill, a fence, and a memory of what was done.
//!
//! Holds: all steps or none; a change with a [`Once`] is done once at most,
//! and gives the same result each time it is asked for until it is answered;
//! under a fence, no change of a lower epoch follows one of a higher.

use kernel::{FencingEpoch, Revision};
use node::store::{Entry, Key, StoreError};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub fence: Option<Fence>,
    pub once: Option<Once>,
    /// What has grown past one of them is undone; what shrinks never is.
    pub bounds: Vec<Bound>,
    pub steps: Vec<Step>,
}

/// The highest epoch that was seen for `holder` is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    pub holder: String,
    pub epoch: FencingEpoch,
}

/// * `number`: names this change among those of `client`.
/// * `answered`: the client has the results of all up to here, or wants none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    pub client: String,
    pub number: u64,
    pub answered: u64,
}

/// How much all entries under a prefix may weigh; see [`weight`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Ends with `/`, and has [`BOUND_SLASHES_MAX`] of them at most.
    pub prefix: Key,
    pub bytes_max: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    Put(Key, Vec<u8>),
    Delete(Key),
    /// Nothing of the change is done when the key was not last changed at
    /// `expected` (`None`: is there). A `value` of `None` deletes.
    CompareAndSet {
        key: Key,
        expected: Option<Revision>,
        value: Option<Vec<u8>>,
    },
    /// To a decimal number; an absent one is zero.
    Add(Key, i64),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Changed {
    Done {
        /// Of the state after it.
        revision: Revision,
        /// What the last addition made.
        sum: Option<i64>,
    },
    /// A comparison failed; this is what is there.
    Differs { current: Option<Entry> },
}

/// Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ChangeRefusal {
    #[error("epoch {} of `{holder}` was seen already", highest.0)]
    Fenced {
        holder: String,
        highest: FencingEpoch,
    },
    #[error("`{prefix}` would weigh {wanted} bytes; {bytes_max} are allowed")]
    Full {
        prefix: Key,
        used: u64,
        wanted: u64,
        bytes_max: u64,
    },
    #[error("the value of `{key}` is no number")]
    NotANumber { key: Key },
    #[error("the number in `{key}` would leave its range")]
    Overflow { key: Key },
    /// It came late: its client has given it up or has its result.
    #[error("change {number} was answered before")]
    Answered { number: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error(transparent)]
    Refused(#[from] ChangeRefusal),
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub const BOUND_SLASHES_MAX: usize = 4;
/// What an entry takes beside its key and its value, about.
const ENTRY_BYTES: u64 = 64;
/// Where changes keep what was done, and which epochs were seen.
pub const ONCE_PREFIX: &str = "/once/";
pub const FENCE_PREFIX: &str = "/fence/";

/// What an entry counts under a [`Bound`], in bytes.
pub fn weight(key: &str, value: &[u8]) -> u64 {
    ENTRY_BYTES + key.len() as u64 + value.len() as u64
}

/// All that is kept for one client.
pub fn once_prefix(client: &str) -> Key {
    format!("{ONCE_PREFIX}{client}/")
}
