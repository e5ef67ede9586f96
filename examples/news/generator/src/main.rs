//! `news-generator`: writes the example's site and its popularity list.
//!
//! In: a directory, a seed. Out: the site in the directory, the list beside it
//! (`path TAB weight`, falling, weights of 1 in all). Holds: the directory
//! changes in one step; a directory with anything else in it is left alone.

mod media;
mod pages;
mod shape;
mod site;
mod words;

use clap::Parser;
use std::error::Error as _;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Writes a deterministic news site.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// The directory of the site; what an earlier run wrote there is replaced.
    #[arg(long)]
    out: PathBuf,
    /// One seed, one site.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the popularity list goes; beside the site unless given.
    #[arg(long)]
    popularity: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("`{}` holds something that this tool did not write", .0.display())]
    Foreign(PathBuf),
    #[error("cannot write `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people speaks on its standard streams"
)]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let site = site::build(arguments.seed);
    let list = arguments.popularity.unwrap_or_else(|| {
        let beside = arguments.out.parent().unwrap_or(Path::new(""));
        beside.join("popularity.tsv")
    });
    match write(&site, &arguments.out, &list) {
        Ok(()) => {
            let bytes: usize = site.files.values().map(Vec::len).sum();
            println!(
                "{} files, {} bytes in {}",
                site.files.len(),
                bytes,
                arguments.out.display()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            match error.source() {
                Some(cause) => eprintln!("error: {error}: {cause}"),
                None => eprintln!("error: {error}"),
            }
            ExitCode::FAILURE
        }
    }
}

fn write(site: &site::Site, out: &Path, list: &Path) -> Result<(), WriteError> {
    if out.exists() && !is_ours(out) {
        return Err(WriteError::Foreign(out.to_owned()));
    }
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = out.with_file_name(name);
    remove(&fresh)?;
    for (path, bytes) in &site.files {
        let path = fresh.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(at(parent))?;
        }
        std::fs::write(&path, bytes).map_err(at(&path))?;
    }
    let mut text = String::new();
    for (path, weight) in &site.popularity {
        let _ = writeln!(text, "{path}\t{weight:.9}");
    }
    std::fs::write(list, text).map_err(at(list))?;
    remove(out)?;
    std::fs::rename(&fresh, out).map_err(at(out))
}

/// Whether `out` is empty or an earlier run's.
fn is_ours(out: &Path) -> bool {
    let empty = std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    let front = std::fs::read_to_string(out.join("index.html")).unwrap_or_default();
    empty || front.contains(&format!("content=\"{}\"", pages::GENERATOR))
}

fn remove(directory: &Path) -> Result<(), WriteError> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(directory)(error)),
        _ => Ok(()),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> WriteError {
    let path = path.to_owned();
    move |source| WriteError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_replaces_the_first_and_nothing_else() {
        let home = tempfile::tempdir().expect("a directory");
        let (out, list) = (home.path().join("site"), home.path().join("popularity.tsv"));
        let site = site::build(1);
        write(&site, &out, &list).expect("the first run");
        std::fs::write(out.join("stale.html"), "old").expect("a stale file");
        write(&site, &out, &list).expect("the second run");
        assert!(!out.join("stale.html").exists() && out.join("404.html").exists());
        assert!(list.exists() && !out.join("popularity.tsv").exists());

        let other = home.path().join("letters");
        std::fs::create_dir(&other).expect("a directory");
        std::fs::write(other.join("letter.txt"), "dear").expect("a letter");
        assert!(matches!(
            write(&site, &other, &list),
            Err(WriteError::Foreign(_))
        ));
        assert!(other.join("letter.txt").exists());
    }
}
