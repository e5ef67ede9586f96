//! Decides whether the pages made from the code are those that are committed.
//!
//! In: the code, as linked here. Out: the pages that differ; or the pages, written.

use crate::steps::say;
use crate::workspace::Workspace;
use std::path::Path;

struct Page {
    path: &'static str,
    text: fn() -> String,
}

const PAGES: [Page; 1] = [Page {
    path: "docs/manifest.schema.json",
    text: manifest_schema,
}];

pub fn check(root: &Path) -> Vec<String> {
    PAGES
        .iter()
        .filter(|page| std::fs::read_to_string(root.join(page.path)).ok() != Some((page.text)()))
        .map(|page| {
            format!(
                "{} is not what the code makes now: run `cargo xtask generate`",
                page.path
            )
        })
        .collect()
}

/// # Errors
/// Names the page that could not be written.
pub fn write() -> Result<(), String> {
    write_to(&Workspace::load()?.root)
}

fn write_to(root: &Path) -> Result<(), String> {
    for page in &PAGES {
        std::fs::write(root.join(page.path), (page.text)())
            .map_err(|why| format!("cannot write {}: {why}", page.path))?;
        say(&format!("wrote {}", page.path));
    }
    Ok(())
}

fn manifest_schema() -> String {
    format!("{:#}\n", manifest::schema())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_current_until_it_is_touched() {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(home.path().join("docs")).expect("a folder");
        assert_eq!(check(home.path()).len(), PAGES.len());
        write_to(home.path()).expect("a folder to write to");
        assert_eq!(check(home.path()), Vec::<String>::new());

        let page = home.path().join(PAGES[0].path);
        let old = std::fs::read_to_string(&page).expect("written above");
        std::fs::write(&page, old.replace("probes", "tests")).expect("a folder to write to");
        assert_eq!(check(home.path()).len(), 1);
    }
}
