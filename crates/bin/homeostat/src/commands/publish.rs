//! What a person publishes of the node.

use super::Context;
use crate::arguments::Format;
use crate::failure::{Failure, USAGE};
use crate::output::{self, data, say};
use std::collections::BTreeMap;
use std::process::ExitCode;
use wire::api::{PublishReply, PublishRequest};

pub async fn run(
    context: &Context,
    set: &[String],
    remove: Vec<String>,
) -> Result<ExitCode, Failure> {
    let request = PublishRequest {
        set: pairs(set)?,
        remove: remove.into_iter().collect(),
    };
    let reply: PublishReply = context.client.post("/v1/attributes", &request).await?;
    match context.output {
        Format::Json | Format::Jsonl => output::json(&reply, context.output)?,
        Format::Name => reply.attributes.keys().try_for_each(|name| data(name))?,
        Format::Table => {
            let rows = reply.attributes.iter();
            let rows = rows.map(|(name, value)| [name.clone(), shown(value)]);
            output::rows(["NAME", "VALUE"], rows)?;
            let (bytes, most) = (reply.bytes, reply.bytes_max);
            say(&format!("{bytes} of at most {most} bytes are used"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A text without its quotes.
pub fn shown(value: &serde_json::Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn pairs(words: &[String]) -> Result<BTreeMap<String, serde_json::Value>, Failure> {
    let mut all = BTreeMap::new();
    for word in words {
        let usage = |why: String| {
            let help = "homeostat publish rack=7 disk=ssd";
            Failure::new(USAGE, why, Some(help))
        };
        let (name, text) = word
            .split_once('=')
            .ok_or_else(|| usage(format!("`{word}` is not KEY=VALUE")))?;
        let before = all.insert(name.to_owned(), value(text));
        if before.is_some() {
            return Err(usage(format!("`{name}` is given twice")));
        }
    }
    Ok(all)
}

/// What reads as JSON and can be published is taken as that: `"7"` is a text.
fn value(text: &str) -> serde_json::Value {
    match serde_json::from_str(text) {
        Ok(serde_json::Value::Null | serde_json::Value::Object(_)) | Err(_) => text.into(),
        Ok(value) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_taken_as_what_they_look_like() {
        for (text, wanted) in [
            ("7", json!(7)),
            ("007", json!("007")),
            ("\"7\"", json!("7")),
            ("true", json!(true)),
            ("0.5", json!(0.5)),
            ("[\"a\"]", json!(["a"])),
            ("ssd", json!("ssd")),
            ("null", json!("null")),
            ("a=b", json!("a=b")),
            ("", json!("")),
        ] {
            assert_eq!(value(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_pair_is_told() {
        for words in [&["rack"][..], &["rack=1", "rack=2"]] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(pairs(&words).expect_err("wrong").exit, USAGE);
        }
    }
}
