//! `sim --seed N SCRIPT`: plays a script and says what came of it; `sim faults`:
//! random clusters and random faults, counted; `sim singletons`: what must never run
//! twice, under cuts.
//!
//! In: a seed; the name of a built-in script, or a file. Out: the report on
//! standard output, with the hash of all that happened.

mod campaign;

use node::script::{SCRIPTS, Script, built_in};
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "{why}");
            ExitCode::from(2)
        }
    }
}

/// Whether all held.
fn run(words: &[String]) -> Result<bool, String> {
    if let Some(done) = campaign::run(words) {
        return done;
    }
    let (mut seed, mut names) = (1, Vec::new());
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        if word == "--seed" {
            let text = rest.next().map_or("", String::as_str);
            seed = text.parse().map_err(|_| format!("`{text}` is no seed"))?;
        } else {
            names.push(word);
        }
    }
    if names.is_empty() {
        let known: Vec<&str> = SCRIPTS.iter().map(|(name, _)| *name).collect();
        return Err(format!(
            "usage: sim [--seed N] SCRIPT…\n  a file, or one of: {}\n{}",
            known.join(" "),
            campaign::USAGE
        ));
    }
    let mut good = true;
    for name in names {
        let script = read(name)?;
        let report = sim::play(&script, seed);
        good &= report.is_good();
        let _ = writeln!(std::io::stdout(), "{report}");
    }
    Ok(good)
}

fn read(name: &str) -> Result<Script, String> {
    let parsed = built_in(name).unwrap_or_else(|| {
        let text = std::fs::read_to_string(name).unwrap_or_default();
        Script::parse(name, &text)
    });
    let script = parsed.map_err(|why| format!("{name}: {why}"))?;
    if script.nodes.is_empty() {
        return Err(format!(
            "{name}: no script is called so, and no file has one"
        ));
    }
    Ok(script)
}
