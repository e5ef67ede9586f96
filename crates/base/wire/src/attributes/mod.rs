//! What a node or a zone publishes of itself: named, typed values.
//!
//! Layout: [`VERSION`], then names and values in the order of names, by
//! postcard.
//! Holds: what is written or read is within the limits and has one spelling
//! only, so that its hash may be signed.

mod json;
mod partial;
mod sketch;
mod total;
mod value;

pub use partial::{Entry, KEPT_BYTES_MAX, KEPT_MAX, KEYS_MAX, Partial, STATES_MAX, State};
pub use sketch::{
    Average, Bloom, Distinct, FEW_MAX, HISTOGRAM_BOUNDS_MAX, Histogram, QUANTILE_BUCKETS_MAX,
    QUANTILE_LEVEL_MAX, Quantiles, REGISTERS,
};
pub use total::{COUNT_MAX, Total, WIDE_BYTES_MAX, Wide};
pub use value::{Scalar, Value};

use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

pub const VERSION: u8 = 1;
pub const ROW_BYTES_MAX: usize = 4 << 10;
pub const ATTRIBUTES_MAX: usize = 256;
pub const NAME_BYTES_MAX: usize = 64;

/// Attributes by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Row(pub BTreeMap<AttributeName, Value>);

/// A lower-case letter, then lower-case letters, digits and `_`: as a column of
/// SQL is written without quotes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AttributeName(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    #[error(
        "`{0}` is no name of an attribute: a lower-case letter, then up to 63 lower-case letters, digits or `_`"
    )]
    Name(String),
    #[error("a row of {bytes} bytes is over the limit of {ROW_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("a row of {count} attributes is over the limit of {ATTRIBUTES_MAX}")]
    TooMany { count: usize },
    #[error("row version {found}, this program speaks {VERSION}")]
    Version { found: u8 },
    #[error("a row cannot be read")]
    Garbled,
    #[error(
        "`{name}` is given {found}: a value is true or false, a number, a text or a list of texts"
    )]
    Json { name: String, found: &'static str },
}

impl Row {
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub fn encode(&self) -> Result<Vec<u8>, RowError> {
        if self.0.len() > ATTRIBUTES_MAX {
            let count = self.0.len();
            return Err(RowError::TooMany { count });
        }
        let bytes = postcard::to_extend(self, vec![VERSION]).map_err(|_| RowError::Garbled)?;
        match bytes.len() {
            bytes if bytes > ROW_BYTES_MAX => Err(RowError::TooLong { bytes }),
            _ => Ok(bytes),
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        if bytes.len() > ROW_BYTES_MAX {
            let bytes = bytes.len();
            return Err(RowError::TooLong { bytes });
        }
        let (version, rest) = bytes.split_first().ok_or(RowError::Garbled)?;
        if *version != VERSION {
            return Err(RowError::Version { found: *version });
        }
        let row: Self = postcard::from_bytes(rest).map_err(|_| RowError::Garbled)?;
        // Numbers, orders and repetitions can be spelt in several ways.
        match row.encode()? {
            again if again == bytes && row.0.values().all(Value::is_sound) => Ok(row),
            _ => Err(RowError::Garbled),
        }
    }
}

impl FromStr for AttributeName {
    type Err = RowError;

    fn from_str(text: &str) -> Result<Self, RowError> {
        let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
        let goes_on = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !begins || text.len() > NAME_BYTES_MAX || !text.chars().all(goes_on) {
            let shown = text.chars().take(NAME_BYTES_MAX).collect();
            return Err(RowError::Name(shown));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for AttributeName {
    type Error = RowError;

    fn try_from(text: String) -> Result<Self, RowError> {
        text.parse()
    }
}

impl From<AttributeName> for String {
    fn from(name: AttributeName) -> Self {
        name.0
    }
}

impl Borrow<str> for AttributeName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AttributeName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AttributeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
