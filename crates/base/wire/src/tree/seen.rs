//! What a reader has seen of a zone, which it passes on to be shown nothing
//! older elsewhere.

use super::{Stamp, StampError};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// As text, `7.12.3`; or of a zone that each node computes for itself (the root)
/// `eu@7.12.3,us@4.1.9`: which rows went into it, by the children's last names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Row(Stamp),
    Parts(BTreeMap<String, Stamp>),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row(stamp) => stamp.fmt(f),
            Self::Parts(parts) => {
                for (at, (name, stamp)) in parts.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    write!(f, "{comma}{name}@{stamp}")?;
                }
                Ok(())
            }
        }
    }
}

impl FromStr for Seen {
    type Err = StampError;

    fn from_str(text: &str) -> Result<Self, StampError> {
        if !text.contains('@') {
            return text.parse().map(Self::Row);
        }
        let part = |part: &str| {
            let (name, stamp) = part.split_once('@').ok_or(StampError)?;
            Ok((name.to_owned(), stamp.parse()?))
        };
        text.split(',')
            .map(part)
            .collect::<Result<_, _>>()
            .map(Self::Parts)
    }
}
