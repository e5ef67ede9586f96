//! A tree of content: paths to hashes. A tree is itself stored by its hash, so
//! a site's head is one hash and moves atomically.

pub mod exchange;

use kernel::{Hash, UnixMillis};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const TREE_VERSION: u8 = 1;

/// Stored through [`crate::record`] with [`TREE_VERSION`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Keys are relative, `/`-separated, without `.` or `..` components.
    pub entries: BTreeMap<String, TreeEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEntry {
    pub hash: Hash,
    pub bytes: u64,
    /// Seconds since 1970, for `last-modified`.
    pub modified_unix: u64,
    /// For example `text/html; charset=utf-8`.
    pub media_type: String,
}

pub const PINS_VERSION: u8 = 1;

/// Content that is kept until a given time, by the names of who wants it.
/// Stored through [`crate::record`] with [`PINS_VERSION`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins {
    pub by_name: BTreeMap<String, Pin>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    pub hash: Hash,
    pub kind: PinKind,
    pub until: UnixMillis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PinKind {
    File,
    /// With all its files.
    Tree,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_pins_of_version_1() {
        let pin = Pin {
            hash: Hash([7; 32]),
            kind: PinKind::Tree,
            until: UnixMillis(300),
        };
        let pins = Pins {
            by_name: BTreeMap::from([("roll-back".to_owned(), pin)]),
        };
        let bytes = crate::record::encode(PINS_VERSION, &pins).expect("encodes");
        let hex = "07".repeat(32);
        let expected = [
            &b"\x01\x01\x09roll-back\x40"[..],
            hex.as_bytes(),
            b"\x01\xac\x02",
        ];
        assert_eq!(bytes, expected.concat());
        let read: Pins = crate::record::decode(PINS_VERSION, &bytes).expect("reads");
        assert_eq!(read, pins);
    }
}
