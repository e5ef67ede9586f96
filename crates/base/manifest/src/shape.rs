//! Compares a parsed tree with the schema.
//!
//! In: the tree, the schema of [`crate::raw`]. Out: a mistake for each unknown
//! key, wrong type, number out of range and list too long. Holds: what is left
//! of the tree afterwards has the raw types' shape, so one bad value does not
//! hide the mistakes of the others. Never: judges meaning.

use crate::mistake::{Mistake, list, nearest, short};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Findings {
    pub mistakes: Vec<Mistake>,
    /// Where keys and values start that are, or contain, a mistake: what is
    /// missing there may just have been dropped.
    pub flawed: BTreeSet<usize>,
}

type Node<'i> = Spanned<DeValue<'i>>;

/// Checks a table against an object schema and drops what does not fit.
pub fn check_table(
    schema: &Value,
    table: &mut DeTable<'_>,
    span: &Range<usize>,
    place: &str,
    found: &mut Findings,
) {
    if let Some(max) = limit(schema, "maxProperties")
        && table.len() > max
    {
        let message = format!("{place} has {} entries, {max} are allowed", table.len());
        found
            .mistakes
            .push(Mistake::new("range", span.clone(), message));
    }
    let keys: Vec<(String, Range<usize>)> = table
        .keys()
        .map(|key| (key.get_ref().to_string(), key.span()))
        .collect();
    for (key, key_span) in keys {
        let member = schema
            .get("properties")
            .and_then(|properties| properties.get(&key))
            .or_else(|| {
                schema
                    .get("additionalProperties")
                    .filter(|any| any.is_object())
            });
        let before = found.mistakes.len();
        let mut starts = vec![key_span.start];
        starts.extend(table.get(key.as_str()).map(|node| node.span().start));
        let keep = if let (Some(member), Some(node)) = (member, table.get_mut(key.as_str())) {
            check(member, node, &key, found)
        } else {
            found
                .mistakes
                .push(unknown_key(schema, &key, key_span, place));
            false
        };
        if found.mistakes.len() > before {
            found.flawed.extend(starts);
        }
        if !keep {
            table.remove(key.as_str());
        }
    }
}

fn unknown_key(schema: &Value, key: &str, span: Range<usize>, place: &str) -> Mistake {
    let known = || {
        let properties = schema.get("properties").and_then(Value::as_object);
        properties
            .into_iter()
            .flat_map(|map| map.keys().map(String::as_str))
    };
    let help = nearest(key, known()).map_or_else(
        || format!("{place} knows {}", list(known())),
        |near| format!("did you mean `{near}`?"),
    );
    let message = format!("unknown key `{}` in {place}", short(key));
    Mistake::new("unknown-key", span, message).help(help)
}

/// Whether `node` may stay.
fn check(schema: &Value, node: &mut Node<'_>, key: &str, found: &mut Findings) -> bool {
    let span = node.span();
    let kind = schema
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or("object");
    match (kind, node.get_mut()) {
        ("object", DeValue::Table(table)) => {
            check_table(schema, table, &span, &format!("`{}`", short(key)), found);
            true
        }
        ("array", DeValue::Array(items)) => {
            let before = found.mistakes.len();
            check_length(schema, items.len(), &span, key, found);
            let item_schema = &schema["items"];
            for item in items.iter_mut() {
                check(item_schema, item, key, found);
            }
            // A list with holes would shift its other items' meaning.
            found.mistakes.len() == before
        }
        ("integer", DeValue::Integer(integer)) => {
            let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
            #[expect(clippy::cast_precision_loss, reason = "bounds are far below 2^53")]
            let number = number.map(|number| number as f64);
            check_range(schema, number, &span, key, found)
        }
        ("number", DeValue::Integer(integer)) => {
            let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
            #[expect(clippy::cast_precision_loss, reason = "bounds are far below 2^53")]
            let number = number.map(|number| number as f64);
            check_range(schema, number, &span, key, found)
        }
        ("number", DeValue::Float(float)) => {
            check_range(schema, float.as_str().parse().ok(), &span, key, found)
        }
        ("string", DeValue::String(_)) | ("boolean", DeValue::Boolean(_)) => true,
        (_, other) => {
            found
                .mistakes
                .push(wrong_type(schema, kind, other, span, key));
            false
        }
    }
}

fn check_length(
    schema: &Value,
    length: usize,
    span: &Range<usize>,
    key: &str,
    found: &mut Findings,
) {
    let (min, max) = (limit(schema, "minItems"), limit(schema, "maxItems"));
    let message = if min.is_some_and(|min| length < min) {
        format!("`{key}` is empty")
    } else if let Some(max) = max.filter(|max| length > *max) {
        format!("`{key}` has {length} items, {max} are allowed")
    } else {
        return;
    };
    found
        .mistakes
        .push(Mistake::new("range", span.clone(), message));
}

fn check_range(
    schema: &Value,
    number: Option<f64>,
    span: &Range<usize>,
    key: &str,
    found: &mut Findings,
) -> bool {
    let bound = |word: &str, open: f64| schema.get(word).and_then(Value::as_f64).unwrap_or(open);
    let (min, max) = (bound("minimum", f64::MIN), bound("maximum", f64::MAX));
    // Not a number, and what no machine integer holds, are out of any range.
    if number.is_some_and(|number| (min..=max).contains(&number)) {
        return true;
    }
    let message = format!("`{key}` is out of range");
    let help = format!("write a number from {min} to {max}");
    found
        .mistakes
        .push(Mistake::new("range", span.clone(), message).help(help));
    false
}

fn wrong_type(
    schema: &Value,
    kind: &str,
    found: &DeValue<'_>,
    span: Range<usize>,
    key: &str,
) -> Mistake {
    let wanted = schema
        .get("title")
        .and_then(Value::as_str)
        .unwrap_or(match kind {
            "string" => "a text in quotes",
            "integer" => "a whole number",
            "number" => "a number",
            "boolean" => "`true` or `false`",
            "array" => "a list, `[…]`",
            _ => "a table, `{ key = … }`",
        });
    let found = match found {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    let message = format!("`{}` cannot be {found}", short(key));
    Mistake::new("type", span, message).help(format!("write {wanted}"))
}

fn limit(schema: &Value, word: &str) -> Option<usize> {
    let number = schema.get(word)?.as_u64()?;
    usize::try_from(number).ok()
}
