//! The scripts in the simulated world: what they expect comes true, with many
//! seeds; one seed is one history; and a world that is broken is noticed.

use node::script::{SCRIPTS, Script, built_in};
use sim::play;

/// By `cargo xtask sim NAME`.
const LONG: [&str; 2] = ["thousand-joins", "ten-thousand"];

/// Each on its own: they run side by side.
fn holds(name: &str, seeds: std::ops::Range<u64>) {
    let script = built_in(name).expect("known").expect("a script");
    for seed in seeds {
        let report = play(&script, seed);
        assert!(report.is_good(), "{report}");
    }
}

#[test]
fn three_join() {
    holds("join", 0..20);
}

#[test]
fn a_power_cut_is_known() {
    holds("power-cut", 0..20);
}

#[test]
fn restarts_with_memory_and_without() {
    holds("restart-with-memory", 0..10);
    holds("restart-without-memory", 0..10);
    holds("clock-off", 0..10);
}

#[test]
fn cuts_of_links_and_of_zones() {
    holds("one-way-cut", 0..10);
    holds("zone-cut", 0..20);
}

#[test]
fn clones_and_leaves() {
    holds("two-with-one-key", 0..20);
    holds("clean-leave", 0..20);
}

#[test]
fn what_a_person_and_a_crash_end_is_made_up_for() {
    holds("crash", 0..20);
    holds("revoked", 0..20);
    holds("holder-off", 0..20);
}

#[test]
fn what_a_node_had_that_is_gone_is_elsewhere() {
    holds("died-unseen", 0..20);
    holds("drain-undone", 0..20);
    holds("coming-up-with-more", 0..20);
    holds("leader-killed", 0..20);
}

#[test]
fn a_slow_node_on_a_lossy_network() {
    holds("slow-and-lossy", 0..5);
}

/// At the pace of a thousand a minute; the whole thousand by
/// `cargo xtask sim thousand-joins`.
#[test]
fn two_hundred_join_in_twelve_seconds() {
    let text = "nodes 200 in /a/1 /a/2 /a/3 /b/1 /b/2 /b/3 /c\nat 0s start all over 12s\n\
                at 12s within 10s alive all\nat 12s within 20s agree\n\
                always silence-removes-nobody nobody-well-is-dead\nend 32s";
    let report = play(&Script::parse("joins", text).expect("a script"), 1);
    assert!(report.is_good(), "{report}");
}

#[test]
fn one_seed_is_one_history_bit_for_bit() {
    for (name, _) in SCRIPTS.iter().filter(|(name, _)| !LONG.contains(name)) {
        let script = built_in(name).expect("known").expect("a script");
        let (first, again) = (play(&script, 7), play(&script, 7));
        assert_eq!(first, again);
        assert_ne!(first.hash, play(&script, 8).hash, "{name}");
    }
}

#[test]
fn what_does_not_come_true_is_said() {
    let text = "nodes 3 in /eu\nat 0s start all\nat 5s within 5s dead n2\nend 20s";
    let report = play(&Script::parse("wrong", text).expect("a script"), 1);
    assert!(!report.is_good());
    assert!(
        report.to_string().contains("n2 dead: not in time"),
        "{report}"
    );
}

#[test]
fn what_must_not_be_is_said() {
    // A node that nobody can hear for a while is well all the same.
    let text = "nodes 6 in /eu\nat 0s start all\nat 10s slow n6 by 1h\n\
                always nobody-well-is-dead\nend 60s";
    let report = play(&Script::parse("wrong", text).expect("a script"), 1);
    assert!(
        report
            .broken
            .iter()
            .any(|one| one.contains("nobody-well-is-dead")),
        "{report}"
    );
}
