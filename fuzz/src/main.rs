//! libFuzzer around one of the targets.
//!
//! In: `FUZZ_TARGET`, a target's name; libFuzzer's own arguments. Out: what it
//! found, in files.

#![no_main]

mod targets;

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use targets::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found
        .unwrap_or_else(|| panic!("FUZZ_TARGET={name} names no target"))
        .1
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
