//! Reads a directory of a site's pages into an index.
//!
//! In: a directory. Out: the index, and what was left out. Holds: the walk has
//! an end and a bounded memory, whatever the directory holds.

use crate::index::Index;
use crate::text;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

const PAGE_BYTES_MAX: u64 = 4 << 20;
const SITE_BYTES_MAX: u64 = 64 << 20;
const DEPTH_MAX: usize = 32;
/// Its words are about no page.
const NOT_FOUND: &str = "404.html";

#[derive(Debug)]
pub enum SiteError {
    Unreadable(PathBuf, io::Error),
    Empty(PathBuf),
}

impl std::fmt::Display for SiteError {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Unreadable(path, error) => {
                write!(out, "cannot read `{}`: {error}", path.display())
            }
            Self::Empty(path) => write!(
                out,
                "no page in `{}`; NEWS_SITE must name a directory with .html files",
                path.display()
            ),
        }
    }
}

pub struct Read {
    pub index: Index,
    /// Pages left out because a limit was reached.
    pub left_out: usize,
}

/// # Errors
/// [`SiteError`] when something cannot be read or there is no page at all.
pub fn read(root: &Path) -> Result<Read, SiteError> {
    let mut pages = Vec::new();
    walk(root, "", 0, &mut pages)?;
    let mut read = Read {
        index: Index::default(),
        left_out: 0,
    };
    let mut total = 0;
    for page in &pages {
        let path = root.join(page);
        let failed = |error| SiteError::Unreadable(path.clone(), error);
        let bytes = fs::metadata(&path).map_err(failed)?.len();
        if bytes > PAGE_BYTES_MAX || total + bytes > SITE_BYTES_MAX {
            read.left_out += 1;
            continue;
        }
        total += bytes;
        let html = fs::read(&path).map_err(failed)?;
        let page_text = text::page(&String::from_utf8_lossy(&html));
        read.index.add(address(page), page_text);
    }
    if read.index.documents() == 0 {
        return Err(SiteError::Empty(root.to_owned()));
    }
    Ok(read)
}

/// The pages under `root/below`, in the order of their names.
fn walk(root: &Path, below: &str, depth: usize, pages: &mut Vec<String>) -> Result<(), SiteError> {
    let directory = root.join(below);
    let failed = |error| SiteError::Unreadable(directory.clone(), error);
    let mut entries = fs::read_dir(&directory)
        .map_err(failed)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        // A name that is not text has no address that we could show.
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = format!("{below}{name}");
        let page = Path::new(&name)
            .extension()
            .is_some_and(|end| end == "html");
        let kind = fs::metadata(root.join(&path)).map_err(failed)?;
        if kind.is_dir() && depth < DEPTH_MAX {
            walk(root, &format!("{path}/"), depth + 1, pages)?;
        } else if kind.is_file() && page && path != NOT_FOUND {
            pages.push(path);
        }
    }
    Ok(())
}

/// The address of a page: percent-encoded, `index.html` left off.
fn address(path: &str) -> String {
    let shown = match path.strip_suffix("index.html") {
        Some(directory) if directory.is_empty() || directory.ends_with('/') => directory,
        _ => path,
    };
    let mut out = String::from("/");
    for byte in shown.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_site() {
        assert_eq!(address("index.html"), "/");
        assert_eq!(address("city/index.html"), "/city/");
        assert_eq!(address("city/reindex.html"), "/city/reindex.html");
        assert_eq!(address("a b/\"ü?.html"), "/a%20b/%22%C3%BC%3F.html");
    }

    #[test]
    fn pages_are_read_and_what_is_no_page_is_not() {
        let home = tempfile::tempdir().expect("a directory");
        let write = |path: &str, bytes: &[u8]| {
            let path = home.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, bytes).expect("a file");
        };
        assert!(matches!(read(home.path()), Err(SiteError::Empty(_))));
        write("city/ferry.html", b"<title>Ferry</title>\xff<p>left");
        write("404.html", b"<p>left");
        write("feed.xml", b"left");
        let found = read(home.path()).expect("a site").index.search("left");
        assert_eq!(found.total, 1);
        assert_eq!(found.results[0].address, "/city/ferry.html");
        let nowhere = home.path().join("nowhere");
        assert!(matches!(read(&nowhere), Err(SiteError::Unreadable(..))));
    }

    #[test]
    fn a_directory_inside_itself_does_not_trap_the_walk() {
        let home = tempfile::tempdir().expect("a directory");
        fs::write(home.path().join("a.html"), "<p>ferry").expect("a page");
        std::os::unix::fs::symlink(home.path(), home.path().join("self")).expect("a link");
        let read = read(home.path()).expect("a site");
        assert!(read.index.documents() <= DEPTH_MAX + 1);
    }
}
