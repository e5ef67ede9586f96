//! What every benchmark needs: load, processes, figures and how they are said.
//!
//! In: addresses, programs, goals. Out: what came, in one line a figure.
//! Never: decides what is measured; each benchmark does.

pub mod ask;
pub mod child;
pub mod closed;
pub mod conditions;
pub mod figure;
pub mod http;
pub mod labs;
pub mod machine;
pub mod node;
pub mod paced;

use std::io::Write as _;
use std::path::PathBuf;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Tells people, on standard error.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Tells people of single runs.
pub fn note(what: &str, values: &[f64]) {
    let words: Vec<String> = values.iter().map(|value| format!("{value:.3}")).collect();
    say(&format!("    {what}: {}", words.join(" ")));
}

/// A condition or a figure, on standard output.
pub fn data(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}

/// Measures, tells each figure as it comes, and then that all went well.
pub fn report(
    measure: impl FnOnce(&mut dyn FnMut(figure::Figure)) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut told = Ok(());
    measure(&mut |figure| {
        if told.is_ok() {
            told = data(&figure.to_string());
        }
    })?;
    told?;
    conditions::tell_end()
}

/// A built program beside this one, where cargo puts them.
pub fn beside(name: &str) -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()?;
    let place = own.parent().ok_or("this program has no directory")?;
    let program = place.join(name);
    if program.is_file() {
        return Ok(program);
    }
    let bench = own.file_name().unwrap_or_default().to_string_lossy();
    let bench = bench.trim_start_matches("bench-");
    Err(format!(
        "{} is not built; start this by: cargo xtask bench {bench}",
        program.display()
    )
    .into())
}
