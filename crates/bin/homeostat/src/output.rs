//! Data on standard output in the format asked for; talk on standard error.

use crate::arguments::Format;
use crate::failure::Failure;
use std::io::{IsTerminal, Write};
use wire::api::Object;

/// A line of data. A reader that has gone away ends the program quietly.
pub fn data(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => Ok(written?),
    }
}

/// A line for the person.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

pub fn json(value: &impl serde::Serialize, format: Format) -> Result<(), Failure> {
    let text = match format {
        Format::Jsonl => serde_json::to_string(value),
        _ => serde_json::to_string_pretty(value),
    };
    data(&text.map_err(|error| Failure::new(1, error.to_string(), None))?)
}

pub fn objects(objects: &[Object], format: Format) -> Result<(), Failure> {
    let head = ["NAME", "STATE", "SUMMARY"];
    let row =
        |object: &Object| [called(object), &object.state, &object.summary].map(ToString::to_string);
    let rows = objects.iter().map(row);
    list(objects, format, |it| it.reference.clone(), (head, rows))
}

/// All of them in the format asked for.
///
/// * `name`: what `-o name` prints of each.
/// * `table`: its head, and its rows.
pub fn list<T: serde::Serialize, const N: usize>(
    all: &[T],
    format: Format,
    name: impl Fn(&T) -> String,
    table: ([&str; N], impl Iterator<Item = [String; N]>),
) -> Result<(), Failure> {
    match format {
        Format::Json => json(&all, format),
        Format::Jsonl => all.iter().try_for_each(|one| json(one, format)),
        Format::Name => all.iter().try_for_each(|one| data(&name(one))),
        Format::Table => rows(table.0, table.1),
    }
}

/// Its name, with its project's before it where that matters.
fn called(object: &Object) -> &str {
    let (_, called) = object.reference.split_once('/').unwrap_or_default();
    called
}

/// A table of rows that were made for it.
pub fn rows<const N: usize>(
    head: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> Result<(), Failure> {
    let rows: Vec<[String; N]> = rows.collect();
    let cells: Vec<[&str; N]> = rows
        .iter()
        .map(|row| row.each_ref().map(String::as_str))
        .collect();
    table(head, &cells)
}

fn table<const N: usize>(head: [&str; N], rows: &[[&str; N]]) -> Result<(), Failure> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in std::iter::once(&head).chain(rows) {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        data(line.join("  ").trim_end())?;
    }
    Ok(())
}

/// Whether progress bars and colours make sense.
pub fn terminal() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
