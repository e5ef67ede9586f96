//! Lists the files under a root.
//!
//! Out: relative `/`-separated path → file, sorted. Holds: links are followed
//! only inside the root; counts and depth are bounded. Never: lists what is
//! kept beside documents but is none: hidden files (a `.git`, an `.env`), and
//! the manifest itself, whose environments may hold secrets.

use crate::error::ContentError;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) const FILES_MAX: usize = 1_000_000;
const DEPTH_MAX: usize = 64;
/// The one hidden directory that clients are meant to see (RFC 8615).
const WELL_KNOWN: &str = ".well-known";
const MANIFEST: &str = "homeostat.toml";

pub(crate) fn walk(root: &Path) -> Result<BTreeMap<String, PathBuf>, ContentError> {
    let real = fs::canonicalize(root).map_err(ContentError::io("read the directory", root))?;
    let mut walk = Walk {
        root: real.clone(),
        above: Vec::new(),
        files: BTreeMap::new(),
    };
    walk.directory(&real, "")?;
    Ok(walk.files)
}

fn private(prefix: &str, name: &OsStr) -> bool {
    let hidden = name.as_encoded_bytes().starts_with(b".") && name != WELL_KNOWN;
    hidden || prefix.is_empty() && name == MANIFEST
}

struct Walk {
    root: PathBuf,
    /// Real paths of the directories being listed, outermost first.
    above: Vec<PathBuf>,
    files: BTreeMap<String, PathBuf>,
}

impl Walk {
    fn directory(&mut self, real: &Path, prefix: &str) -> Result<(), ContentError> {
        if self.above.len() >= DEPTH_MAX {
            return Err(ContentError::TooMany {
                path: real.to_owned(),
                what: "levels of directories",
                limit: DEPTH_MAX,
            });
        }
        self.above.push(real.to_owned());
        let fail = || ContentError::io("read the directory", real);
        for entry in fs::read_dir(real).map_err(fail())? {
            let entry = entry.map_err(fail())?;
            let path = entry.path();
            let name = entry.file_name();
            if private(prefix, &name) {
                continue;
            }
            let name = name
                .to_str()
                .ok_or_else(|| ContentError::Name { path: path.clone() })?;
            self.entry(&path, format!("{prefix}{name}"))?;
        }
        self.above.pop();
        Ok(())
    }

    fn entry(&mut self, path: &Path, key: String) -> Result<(), ContentError> {
        let look = |path: &Path| fs::symlink_metadata(path).map_err(ContentError::io("read", path));
        let mut real = path.to_owned();
        let mut kind = look(path)?.file_type();
        if kind.is_symlink() {
            real = fs::canonicalize(path).map_err(ContentError::io("follow the link", path))?;
            if !real.starts_with(&self.root) {
                return Err(ContentError::Escapes {
                    path: path.to_owned(),
                    root: self.root.clone(),
                });
            }
            if self.above.contains(&real) {
                return Err(ContentError::Cycle {
                    path: path.to_owned(),
                });
            }
            kind = look(&real)?.file_type();
        }
        if kind.is_dir() {
            return self.directory(&real, &format!("{key}/"));
        }
        if !kind.is_file() {
            return Err(ContentError::NotAFile {
                path: path.to_owned(),
            });
        }
        if self.files.len() >= FILES_MAX {
            return Err(ContentError::TooMany {
                path: self.root.clone(),
                what: "files",
                limit: FILES_MAX,
            });
        }
        self.files.insert(key, real);
        Ok(())
    }
}
