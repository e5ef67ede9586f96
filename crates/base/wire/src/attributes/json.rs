//! Values as people and programs write and read them.
//!
//! Holds: bytes, times and durations say what they are; a number that JSON does
//! not have is its name.

use super::{RowError, Value};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;

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
            Self::Set(texts) => texts.iter().map(String::as_str).collect(),
            Self::List(all) => all
                .iter()
                .map(|one| Self::from(one.clone()).to_json())
                .collect(),
            Self::Average(average) => json!({
                "average": average.sum / average.weight,
                "weight": average.weight,
            }),
            // For programs: people are shown what is asked of them.
            sketch => serde_json::to_value(sketch).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
