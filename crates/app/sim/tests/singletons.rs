//! Singletons whose nodes are cut: never two of one at once, in true time; each runs
//! elsewhere in the end; and a check that can fail. `SIM_SEED` replays one history,
//! or a range such as `100..200`; `cargo xtask sim singletons` plays hundreds.

use node::script::Script;
use sim::faults::singletons::{Cuts, middle_and_most};
use sim::{play, seeds};
use std::time::Duration;

const CUTS: u64 = 10;

fn holds(seeds: impl Iterator<Item = u64>) -> Vec<Duration> {
    let mut elsewhere = Vec::new();
    for seed in seeds {
        let done = Cuts::seeded(seed, CUTS).play();
        assert!(
            done.twice.is_empty() && done.amiss.is_empty(),
            "SIM_SEED={seed} replays this\n{done:#?}"
        );
        elsewhere.extend(done.elsewhere);
    }
    elsewhere
}

#[test]
fn no_two_of_one_run_at_once_and_each_runs_again() {
    let wanted = std::env::var("SIM_SEED").ok();
    let elsewhere = holds(wanted.map_or(1..21, |text| seeds(&text)));
    assert!(middle_and_most(&elsewhere).is_some(), "none was struck");
}

/// A leader that had stood still went on, decided on what it had heard before, and its
/// write was passed on to the next one, which had granted to the old node meanwhile.
#[test]
fn what_a_leader_decided_before_another_began_is_not_taken() {
    holds(278..279);
}

#[test]
fn one_seed_is_one_history() {
    let cuts = Cuts::seeded(7, CUTS);
    assert_eq!(cuts.play(), cuts.play());
    assert_ne!(cuts.play().hash, Cuts::seeded(8, CUTS).play().hash);
}

/// Two at once are seen: where clocks differ by more than leases allow for.
#[test]
fn clocks_that_are_worse_than_leases_allow_are_noticed() {
    let twice = |seed: &u64| {
        let cuts = Cuts {
            drift_ppm: 250_000,
            ..Cuts::seeded(*seed, CUTS)
        };
        !cuts.play().twice.is_empty()
    };
    assert!((1..41).any(|seed| twice(&seed)));
}

/// Its node and the leader stand still, are cut off, lose their power or their agents,
/// and go on.
#[test]
fn scripts_have_singletons_too() {
    let text = "nodes 5 in /eu/1..2 /us\nservice lock replicas 1 singleton\n\
                service once replicas 1 on n4 singleton\nservice search replicas 4\n\
                at 0s start all\nat 6s apply\nat 6s within 20s as-wished\n\
                at 30s pause n1..n3 for 8s\nat 45s cut n1 from n2..n5\nat 60s heal\n\
                at 70s pause n1 for 20s\nat 70s poweroff n4\nat 95s start n4\n\
                at 100s kill n1..n5\nat 110s crash n1..n5\n\
                at 115s change lock anew\nat 120s drain n2\n\
                at 120s within 60s as-wished\nalways singletons-run-once\nend 185s";
    let script = Script::parse("singletons", text).expect("a script");
    for seed in 0..10 {
        let report = play(&script, seed);
        assert!(report.is_good(), "{report}");
    }
}
