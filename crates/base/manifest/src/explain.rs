//! What a field of the manifest means, from the schema.

use crate::mistake::nearest;
use crate::raw::schema;
use serde_json::Value;

/// A field of the manifest, for people.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Explanation {
    /// As asked, `service.replicas`.
    pub path: String,
    /// `a whole number, 1 to 1000`.
    pub kind: String,
    pub default: Option<String>,
    pub description: String,
    /// What can be written below it.
    pub fields: Vec<FieldExplanation>,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FieldExplanation {
    pub name: String,
    pub kind: String,
    /// The first sentence of what [`explain`] says of it.
    pub summary: String,
}

/// Explains a field: `service`, `service.replicas`; also with the name of an
/// object in between, `service.search.replicas`. The empty path is the whole.
pub fn explain(path: &str) -> Option<Explanation> {
    let root = schema();
    let mut node = &root;
    let mut description = text(node, "description");
    for part in parts(path) {
        node = step(node, part)?;
        // A name a person chose has no words of its own; keep those above it.
        description = text(node, "description").or(description);
    }
    let inner = inside(node);
    let properties = inner.get("properties").and_then(Value::as_object);
    let fields = properties
        .into_iter()
        .flatten()
        .map(|(name, field)| FieldExplanation {
            name: name.clone(),
            kind: kind(field),
            summary: first_sentence(&text(field, "description").unwrap_or_default()),
        })
        .collect();
    Some(Explanation {
        path: path.to_owned(),
        kind: kind(node),
        default: node.get("default").map(ToString::to_string),
        // Where the source wraps a line is nobody's business.
        description: description.unwrap_or_default().replace('\n', " "),
        fields,
    })
}

fn first_sentence(text: &str) -> String {
    let line = text.replace('\n', " ");
    let end = line.find(". ").map_or(line.trim_end().len(), |at| at + 1);
    line[..end].to_owned()
}

/// The valid paths nearest to one that [`explain`] does not know, best first.
pub fn suggest(path: &str) -> Vec<String> {
    let root = schema();
    let mut node = &root;
    let mut known: Vec<&str> = Vec::new();
    for part in parts(path) {
        if let Some(next) = step(node, part) {
            node = next;
            known.push(part);
            continue;
        }
        let properties = inside(node).get("properties").and_then(Value::as_object);
        let names = || {
            properties
                .into_iter()
                .flat_map(|map| map.keys().map(String::as_str))
        };
        let near: Vec<&str> = match nearest(part, names()) {
            Some(near) => vec![near],
            None => names().collect(),
        };
        let join = |name: &str| [known.as_slice(), &[name]].concat().join(".");
        return near.into_iter().map(join).collect();
    }
    Vec::new()
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('.').filter(|part| !part.is_empty())
}

/// Through lists and maps of named objects to what has properties.
fn inside(node: &Value) -> &Value {
    let next = node.get("items").or_else(|| {
        node.get("additionalProperties")
            .filter(|any| any.is_object())
    });
    match next {
        Some(next) => inside(next),
        None => node,
    }
}

fn step<'v>(node: &'v Value, part: &str) -> Option<&'v Value> {
    let property = |node: &'v Value| node.get("properties")?.get(part);
    let direct = property(node).or_else(|| property(inside(node)));
    direct.or_else(|| {
        let named = node.get("additionalProperties")?;
        let object = named.get("properties").is_some();
        let fits = kernel::Name::new(part).is_ok() && !misspelt(named, part);
        (named.is_object() && (fits || !object)).then_some(named)
    })
}

/// Whether `part` is meant as a field rather than as an object's name.
fn misspelt(object: &Value, part: &str) -> bool {
    let properties = object.get("properties").and_then(Value::as_object);
    let names = properties
        .into_iter()
        .flat_map(|map| map.keys().map(String::as_str));
    nearest(part, names).is_some()
}

fn kind(node: &Value) -> String {
    if let Some(title) = text(node, "title").filter(|_| node.get("$schema").is_none()) {
        return title;
    }
    let number = |word: &str| node.get(word).map(ToString::to_string);
    let range = number("minimum")
        .zip(number("maximum"))
        .map_or_else(String::new, |(min, max)| format!(", {min} to {max}"));
    match node.get("type").and_then(Value::as_str) {
        Some("integer") => format!("a whole number{range}"),
        Some("number") => format!("a number{range}"),
        Some("string") => "a text".to_owned(),
        Some("boolean") => "true or false".to_owned(),
        Some("array") => format!("a list; each item {}", kind(&node["items"])),
        _ => match node
            .get("additionalProperties")
            .filter(|any| any.is_object())
        {
            Some(named) => format!("a table of names; each {}", kind(named)),
            None => "a table".to_owned(),
        },
    }
}

fn text(node: &Value, word: &str) -> Option<String> {
    node.get(word)?.as_str().map(str::to_owned)
}
