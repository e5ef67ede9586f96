//! Many random histories, counted.
//!
//! In: which, how many, from which seed. Out: a figure each, and of what did not
//! hold how to see it again.

mod faults;
mod singletons;

use std::io::Write as _;

pub const USAGE: &str = "       sim faults [--count N] [--from SEED]
       sim singletons [--count CUTS] [--from SEED]";

/// Whether all held; none where the words ask for no campaign.
pub fn run(words: &[String]) -> Option<Result<bool, String>> {
    let (first, rest) = words.split_first()?;
    match first.as_str() {
        "faults" => Some(read(rest, faults::CLOSES).map(faults::run)),
        "singletons" => Some(read(rest, singletons::CLOSES).map(singletons::run)),
        _ => None,
    }
}

/// How many, from which seed.
fn read(words: &[String], mut count: u64) -> Result<(u64, u64), String> {
    let mut from = 1;
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let number = rest.next().and_then(|text| text.parse().ok());
        let number: u64 = number.ok_or_else(|| format!("usage:\n{USAGE}"))?;
        match word.as_str() {
            "--count" if number > 0 => count = number,
            "--from" => from = number,
            _ => return Err(format!("usage:\n{USAGE}")),
        }
    }
    Ok((count, from))
}

/// * `goals`: where it closes, and where it should end.
fn figure(name: &str, ours: &str, goals: (&str, &str), is_ok: bool) {
    let word = if is_ok { "ok" } else { "short" };
    let (closes, end) = goals;
    let _ = writeln!(
        std::io::stdout(),
        "figure {name} ours={ours} peer=- ratio=- closes={closes} final={end} {word}"
    );
}

fn progress(what: &str) {
    let _ = writeln!(std::io::stderr(), "    {what}");
}
