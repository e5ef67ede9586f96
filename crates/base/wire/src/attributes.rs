//! What a node or a zone publishes of itself: named, typed values.
//!
//! Layout: [`VERSION`], then names and values in the order of names, by
//! postcard.
//! Holds: what is written or read is within the limits and has one spelling
//! only, so that its hash may be signed.

use base64::prelude::{BASE64_STANDARD, Engine};
use kernel::UnixMillis;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
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

/// One fact. That nothing is known is the absence of the attribute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Time(UnixMillis),
    /// In nanoseconds; below zero where two times are compared.
    Duration(i64),
    /// Of texts.
    Set(BTreeSet<String>),
}

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
            again if again == bytes => Ok(row),
            _ => Err(RowError::Garbled),
        }
    }
}

impl Value {
    /// What a person gave for the attribute `name`. Bytes, times and durations
    /// cannot be given so.
    pub fn from_json(name: &str, given: &Json) -> Result<Self, RowError> {
        let wrong = |found| {
            let name = name.to_owned();
            RowError::Json { name, found }
        };
        match given {
            Json::Bool(truth) => Ok(Self::Bool(*truth)),
            Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Ok(Self::Int(whole)),
                (None, Some(float)) if float.is_finite() => Ok(Self::Float(float)),
                _ => Err(wrong("a number that is too large")),
            },
            Json::String(text) => Ok(Self::Text(text.clone())),
            Json::Array(texts) => {
                let texts = texts.iter().map(|text| text.as_str().map(str::to_owned));
                let set: Option<BTreeSet<String>> = texts.collect();
                set.map(Self::Set)
                    .ok_or_else(|| wrong("a list of other things"))
            }
            Json::Null => Err(wrong("null")),
            Json::Object(_) => Err(wrong("an object")),
        }
    }

    /// As people and programs read it.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Bool(truth) => Json::from(*truth),
            Self::Int(whole) => Json::from(*whole),
            Self::Float(float) if float.is_finite() => Json::from(*float),
            Self::Float(float) => Json::from(float.to_string()),
            Self::Text(text) => Json::from(text.as_str()),
            Self::Bytes(bytes) => json!({ "base64": BASE64_STANDARD.encode(bytes) }),
            Self::Time(at) => json!({ "unix_ms": at.0 }),
            Self::Duration(nanoseconds) => json!({ "nanoseconds": nanoseconds }),
            Self::Set(texts) => Json::from_iter(texts.iter().map(String::as_str)),
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> AttributeName {
        text.parse().expect("a name")
    }

    fn values() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_map(Value::Float),
            ".{0,20}".prop_map(Value::Text),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bytes),
            any::<u64>().prop_map(|ms| Value::Time(UnixMillis(ms))),
            any::<i64>().prop_map(Value::Duration),
            prop::collection::btree_set(".{0,8}", 0..5).prop_map(Value::Set),
        ]
    }

    fn rows() -> impl Strategy<Value = Row> {
        let named = (
            "[a-z][a-z0-9_]{0,20}".prop_map(|text| name(&text)),
            values(),
        );
        prop::collection::vec(named, 0..12).prop_map(|all| Row(all.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(row in rows()) {
            let bytes = row.encode().expect("small");
            let again = Row::decode(&bytes).expect("reads");
            prop_assert_eq!(again.encode().expect("small"), bytes);
        }

        #[test]
        fn what_is_read_has_one_spelling(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            if let Ok(row) = Row::decode(&bytes) {
                prop_assert_eq!(row.encode().expect("small"), bytes);
            }
        }
    }

    #[test]
    fn what_a_person_gives_is_shown_as_it_was_given() {
        let given = json!([true, -3, 0.5, "ssd", ["b", "a"]]);
        for one in given.as_array().expect("a list") {
            let shown = Value::from_json("a", one).expect("a value").to_json();
            match one.as_array() {
                None => assert_eq!(shown, *one),
                Some(_) => assert_eq!(shown, json!(["a", "b"])),
            }
        }
        for wrong in [json!(null), json!({}), json!([1])] {
            assert!(Value::from_json("a", &wrong).is_err(), "{wrong}");
        }
        assert_eq!(Value::Float(f64::NAN).to_json(), json!("NaN"));
    }

    #[test]
    fn limits_are_told() {
        let many = (0..=ATTRIBUTES_MAX).map(|i| (name(&format!("a{i}")), Value::Bool(true)));
        let error = Row(many.collect()).encode().expect_err("too many");
        assert_eq!(error, RowError::TooMany { count: 257 });
        let long = Value::Text("x".repeat(ROW_BYTES_MAX));
        let error = Row([(name("a"), long)].into())
            .encode()
            .expect_err("too long");
        assert_eq!(error, RowError::TooLong { bytes: 4_103 });
        for wrong in ["", "A", "1a", "a-b", "é", &"a".repeat(65)] {
            assert!(wrong.parse::<AttributeName>().is_err(), "{wrong}");
        }
    }

    /// Bytes of version 1: they are read for as long as it is spoken.
    #[test]
    fn version_1_stays() {
        let row = Row([
            (name("cpu"), Value::Float(0.5)),
            (name("up"), Value::Bool(true)),
            (name("zone"), Value::Text("/eu".to_owned())),
        ]
        .into());
        let hex: String = row
            .encode()
            .expect("small")
            .iter()
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        assert_eq!(
            hex,
            "0103036370750200000000000000e03f0275700001047a6f6e650303\
             2f6575"
        );
    }
}
