//! From text to the checked model.
//!
//! In: the text of `homeostat.toml`. Out: the model, or every mistake in the
//! order of the text. Holds: never panics; an error has at least one mistake
//! and each mistake's span lies in the text.

use crate::check::check;
use crate::mistake::Mistake;
use crate::model::Manifest;
use crate::raw::{RawManifest, schema};
use crate::shape::{Findings, check_table};
use kernel::Name;
use serde::Deserialize;
use std::collections::BTreeSet;
use toml::de::DeTable;

/// The longest manifest that is read.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// More than anybody mends in one go.
pub const MISTAKES_MAX: usize = 100;

/// Reads and checks a manifest.
///
/// * `default_project`: the project's name where the text gives none.
///
/// # Errors
/// Every mistake found, at most 100, in the order of the text.
pub fn parse(text: &str, default_project: &Name) -> Result<Manifest, Vec<Mistake>> {
    let mut findings = Findings::default();
    let manifest = read(text, default_project, &mut findings);
    let mut mistakes = findings.mistakes;
    match manifest {
        Some(manifest) if mistakes.is_empty() => return Ok(manifest),
        None if mistakes.is_empty() => {
            mistakes.push(Mistake::new("syntax", 0..text.len(), "this cannot be read"));
        }
        _ => {}
    }
    for mistake in &mut mistakes {
        mistake.clamp(text);
    }
    mistakes.sort_by_key(|mistake| (mistake.span.start, mistake.span.end));
    mistakes.dedup();
    mistakes.truncate(MISTAKES_MAX);
    Err(mistakes)
}

fn read(text: &str, default_project: &Name, findings: &mut Findings) -> Option<Manifest> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("the manifest has {} bytes, 1 MiB is allowed", text.len());
        findings.mistakes.push(Mistake::new("range", 0..0, message));
        return None;
    }
    let (mut tree, errors) = DeTable::parse_recoverable(text);
    let span = tree.span();
    if errors.is_empty() && tree.get_ref().is_empty() {
        // An empty file is far more often a lost one than a wish to stop all.
        let help = "write a `[site.NAME]`, `[service.NAME]` or `[job.NAME]`, or `[project]` alone to run nothing";
        let empty = Mistake::new("missing", 0..text.len(), "the manifest is empty").help(help);
        findings.mistakes.push(empty);
        return None;
    }
    check_table(&schema(), tree.get_mut(), &span, "the manifest", findings);
    if !errors.is_empty() {
        syntax(text, &errors, findings);
        return None;
    }
    match RawManifest::deserialize(toml::Deserializer::from(tree)) {
        Ok(raw) => Some(check(raw, default_project, findings)),
        Err(error) => {
            let span = error.span().unwrap_or(0..text.len());
            findings
                .mistakes
                .push(Mistake::new("type", span, error.message()));
            None
        }
    }
}

/// Adds the syntax errors and drops what the parser only guessed: mistakes on
/// their lines, below a broken header, or beside texts of many lines, one of
/// which may have swallowed the rest.
fn syntax(text: &str, errors: &[toml::de::Error], findings: &mut Findings) {
    // Looked up rather than counted: hostile texts have an error a line.
    let newlines: Vec<usize> = text
        .match_indices('\n')
        .map(|(newline, _)| newline)
        .collect();
    let line_of = |offset: usize| newlines.partition_point(|newline| *newline < offset);
    let mut broken = BTreeSet::new();
    let mut told = Vec::new();
    for error in errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        let mut mistake = Mistake::new("syntax", span, error.message());
        mistake.clamp(text);
        // The parser stumbles on after an error; its first word on a line counts.
        if broken.insert(line_of(mistake.span.start)) {
            told.push(mistake);
        }
    }
    let mut below_broken_header = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with('[') {
            below_broken_header = broken.contains(&index);
        } else if below_broken_header {
            broken.insert(index);
        }
    }
    let swallowed = text.contains("\"\"\"") || text.contains("'''");
    findings
        .mistakes
        .retain(|mistake| !swallowed && !broken.contains(&line_of(mistake.span.start)));
    findings.mistakes.append(&mut told);
}
