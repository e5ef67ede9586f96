//! `scripts [--seed N] [--quick] [SCRIPT…]`: plays scripts in a lab of real
//! agents, beside the same in the simulated world.
//!
//! In: names of built-in scripts, or files; without any, all of them. Out: what
//! came true when in each of the two, on standard output.

use black_box::scripts;
use node::script::{SCRIPTS, Script, built_in};
use std::io::Write as _;
use std::process::ExitCode;

/// The shortest that between them join, cut, crash and leave: a minute or two.
const QUICK: [&str; 4] = ["join", "crash", "revoked", "two-with-one-key"];

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
    let (mut seed, mut names) = (1, Vec::new());
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--seed" => {
                let text = rest.next().map_or("", String::as_str);
                seed = text.parse().map_err(|_| format!("`{text}` is no seed"))?;
            }
            "--quick" => names.extend(QUICK),
            flag if flag.starts_with('-') => return Err(usage()),
            name => names.push(name),
        }
    }
    if names.is_empty() {
        names.extend(SCRIPTS.map(|(name, _)| name));
    }
    let scripts = names.into_iter().map(read);
    let scripts = scripts.collect::<Result<Vec<Script>, _>>()?;
    let mut broken = Vec::new();
    let mut unplayed = Vec::new();
    let count = scripts.len();
    for script in scripts {
        let report = scripts::play(&script, seed, scripts::PATIENCE)?;
        let _ = writeln!(std::io::stdout(), "{report}");
        if !report.is_good() {
            broken.push(report.script);
        } else if !report.unfit.is_empty() {
            unplayed.push(report.script);
        }
    }
    let list = |names: &[String]| match names {
        [] => "none".to_owned(),
        names => names.join(" "),
    };
    let _ = writeln!(
        std::io::stdout(),
        "{count} scripts; broken: {}; not played in a lab: {}",
        list(&broken),
        list(&unplayed)
    );
    Ok(broken.is_empty())
}

fn usage() -> String {
    let known: Vec<&str> = SCRIPTS.iter().map(|(name, _)| *name).collect();
    format!(
        "usage: scripts [--seed N] [--quick] [SCRIPT…]\n  a file, or some of: {}",
        known.join(" ")
    )
}

fn read(name: &str) -> Result<Script, String> {
    let parsed = built_in(name).unwrap_or_else(|| {
        let text = std::fs::read_to_string(name).unwrap_or_default();
        Script::parse(name, &text)
    });
    let script = parsed.map_err(|why| format!("{name}: {why}"))?;
    if script.nodes.is_empty() {
        return Err(format!(
            "{name}: no script is called so, and no file has one\n{}",
            usage()
        ));
    }
    Ok(script)
}
