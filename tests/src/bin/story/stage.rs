//! The news example in a directory of its own, and a node beside it.

use crate::Told;
use black_box::{Answer, TestNode, program, says};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Stage {
    pub node: TestNode,
    pub news: PathBuf,
    /// The manifest as it is in the repository.
    pub manifest: String,
}

impl Stage {
    pub fn set() -> Told<Self> {
        let node = TestNode::new();
        let news = node.scratch().join("news");
        let error = |why: std::io::Error| format!("cannot set the stage: {why}");
        fs::create_dir_all(news.join("bin")).map_err(error)?;
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/news");
        let manifest = fs::read_to_string(example.join("homeostat.toml")).map_err(error)?;
        fs::write(news.join("homeostat.toml"), &manifest).map_err(error)?;
        fs::copy(program("news-search"), news.join("bin/news-search")).map_err(error)?;
        fs::write(news.join("bin/comments.wasm"), guests::COMMENTS).map_err(error)?;
        fs::write(news.join("bin/visitors.wasm"), guests::VISITORS).map_err(error)?;
        let generated = Command::new(program("news-generator"))
            .arg("--out")
            .arg(news.join("site"))
            .arg("--popularity")
            .arg(news.join("popularity.tsv"))
            .output()
            .map_err(error)?;
        if !generated.status.success() {
            return Err(String::from_utf8_lossy(&generated.stderr).into_owned());
        }
        Ok(Self {
            node,
            news,
            manifest,
        })
    }

    pub fn write_manifest(&self, text: &str) -> Told {
        fs::write(self.news.join("homeostat.toml"), text).map_err(|why| why.to_string())
    }

    /// A command that must succeed: what it printed.
    pub fn ok(&self, words: &[&str]) -> Told<String> {
        let output = self.node.run(words);
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(format!(
            "{words:?} ended with {}: {}",
            output.status,
            says(&output)
        ))
    }

    /// A command that must fail with this code: what it said.
    pub fn refused(&self, words: &[&str], code: i32) -> Told<String> {
        let output = self.node.run(words);
        if output.status.code() == Some(code) {
            return Ok(says(&output));
        }
        Err(format!(
            "{words:?} ended with {}, not {code}: {}",
            output.status,
            says(&output)
        ))
    }

    pub fn news(&self) -> &str {
        self.news.to_str().unwrap_or("news")
    }

    pub fn get(&self, path: &str) -> Told<Answer> {
        self.node.get(path).map_err(|why| format!("{path}: {why}"))
    }
}

/// An error unless `holds`.
pub fn expect(holds: bool, what: impl FnOnce() -> String) -> Told {
    if holds { Ok(()) } else { Err(what()) }
}
