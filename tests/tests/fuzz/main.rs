//! The fuzz targets without a fuzzer: all seeds, and what was found once, pass;
//! and the seeds are what this program writes today.
//!
//! `HOMEOSTAT_WRITE_SEEDS=1` writes them anew after a format has changed.

mod seeds;
#[path = "../../../fuzz/src/targets.rs"]
mod targets;

use std::path::PathBuf;
use targets::TARGETS;

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus")
}

#[test]
fn whatever_the_corpus_has_is_read_or_refused() {
    for (name, target) in TARGETS {
        let folder = std::fs::read_dir(corpus().join(name)).expect("seeds");
        let mut played = 0;
        for entry in folder {
            let path = entry.expect("an entry").path();
            let bytes = std::fs::read(&path).expect("a seed");
            // Said before it is tried: a panic ends the test.
            let shown = path.display().to_string();
            let outcome = std::panic::catch_unwind(|| target(&bytes));
            assert!(outcome.is_ok(), "{shown}");
            played += 1;
        }
        assert!(played > 0, "{name} has no seeds");
    }
}

#[test]
fn seeds_are_what_is_written_today() {
    let write = std::env::var_os("HOMEOSTAT_WRITE_SEEDS").is_some();
    for (target, name, bytes) in seeds::all() {
        assert!(
            TARGETS.iter().any(|(known, _)| *known == target),
            "{target}"
        );
        let path = corpus().join(target).join(format!("seed-{name}"));
        if write {
            std::fs::create_dir_all(corpus().join(target)).expect("a folder");
            std::fs::write(&path, &bytes).expect("writes");
        }
        let kept = std::fs::read(&path).unwrap_or_default();
        assert_eq!(kept, bytes, "{}: the format has changed", path.display());
    }
}
