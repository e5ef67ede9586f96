//! Builds the fuzz targets with coverage, and lets libFuzzer try them.
//!
//! In: `fuzz [TARGET…] [--seconds N]`. Out: whether nothing was found.
//! Holds: one core; what was found lies in the build folder, and stays there
//! until it is a test; the seeds in `fuzz/corpus` are not written to.

use crate::steps::{cargo_command, run as run_command, say, step};
use crate::workspace::Workspace;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `cargo fuzz` sets without a sanitizer: all of it stable. Our code has
/// no `unsafe` that a sanitizer would watch.
const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];
const SECONDS: &str = "60";
/// More than any format's longest message of interest.
const BYTES_MAX: &str = "8192";

/// # Errors
/// Names the target that found something, and where it is.
pub fn run(arguments: &[String]) -> Result<(), String> {
    let workspace = Workspace::load()?;
    let home = workspace.root.join("fuzz");
    let known = targets(&home)?;
    let (chosen, seconds) = read(arguments, &known)?;
    let work = workspace.target.join("fuzz");
    let program = step("build, with coverage", || build(&home, &work))?;
    for name in chosen {
        say(&format!("==> fuzz {name}, {seconds} s"));
        let (found, corpus) = (work.join("found"), work.join("corpus").join(&name));
        for folder in [&found, &corpus] {
            std::fs::create_dir_all(folder)
                .map_err(|why| format!("{}: {why}", folder.display()))?;
        }
        let mut command = Command::new(&program);
        command
            .env("FUZZ_TARGET", &name)
            .arg(&corpus)
            .arg(home.join("corpus").join(&name))
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={BYTES_MAX}"))
            .arg(format!("-artifact_prefix={}/{name}-", found.display()))
            .args([
                "-timeout=10",
                "-rss_limit_mb=2048",
                "-print_final_stats=1",
                "-verbosity=0",
            ]);
        run_command(&mut command)
            .map_err(|why| format!("{why}\nwhat {name} found is in {}", found.display()))?;
    }
    Ok(())
}

/// By the folders of their seeds.
fn targets(home: &Path) -> Result<Vec<String>, String> {
    let folder = home.join("corpus");
    let entries =
        std::fs::read_dir(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    names.sort();
    Ok(names)
}

fn read(arguments: &[String], known: &[String]) -> Result<(Vec<String>, u64), String> {
    let usage = || {
        format!(
            "usage: cargo xtask fuzz [TARGET…] [--seconds N]\n  targets: {}",
            known.join(" ")
        )
    };
    let (mut chosen, mut seconds) = (Vec::new(), SECONDS);
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        if word == "--seconds" {
            seconds = rest.next().map_or("", String::as_str);
        } else if known.contains(word) {
            chosen.push(word.clone());
        } else {
            return Err(usage());
        }
    }
    if chosen.is_empty() {
        chosen = known.to_vec();
    }
    let seconds = seconds.parse().map_err(|_| usage())?;
    Ok((chosen, seconds))
}

/// For the machine's own target, said aloud: build scripts and macros then go
/// without coverage.
fn build(home: &Path, work: &Path) -> Result<PathBuf, String> {
    let version = Command::new("rustc").arg("-vV").output();
    let version = version.map_err(|why| format!("rustc: {why}"))?;
    let version = String::from_utf8_lossy(&version.stdout);
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.ok_or("rustc does not say what machine this is")?;
    let mut command = cargo_command();
    command
        .args(["build", "--release", "--locked", "--target", host])
        .current_dir(home)
        .env("CARGO_TARGET_DIR", work.join("build"))
        .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f"));
    run_command(&mut command)?;
    Ok(work.join("build").join(host).join("release/fuzz"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_seconds_are_read_and_others_are_listed() {
        let known = ["head".to_owned(), "row".to_owned()];
        let read = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            super::read(&words, &known)
        };
        assert_eq!(read(&[]), Ok((known.to_vec(), 60)));
        assert_eq!(
            read(&["row", "--seconds", "5"]),
            Ok((vec!["row".to_owned()], 5))
        );
        let why = read(&["column"]).expect_err("there is none");
        assert!(why.contains("head row"), "{why}");
        assert!(read(&["--seconds", "long"]).is_err());
    }

    #[test]
    fn each_target_of_the_program_has_seeds() {
        let workspace = Workspace::load().expect("this workspace");
        let home = workspace.root.join("fuzz");
        let source = std::fs::read_to_string(home.join("src/targets.rs")).expect("targets");
        let names = targets(&home).expect("a corpus");
        assert!(names.len() >= 15, "{names:?}");
        for name in names {
            assert!(source.contains(&format!("(\"{name}\", ")), "{name}");
        }
    }
}
