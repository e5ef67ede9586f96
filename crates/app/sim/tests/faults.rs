//! Random clusters and random faults, one seed a history: what runs in the end is
//! what is wished. `SIM_SEED` replays one, or a range such as `100..200`;
//! `cargo xtask sim faults` plays thousands, and finds the fewest steps of what
//! fails.

use node::script::Script;
use sim::faults::{Faults, shrink};
use sim::{play_with, seeds};
use std::time::Duration;

const SEEDS: u64 = 60;

#[test]
fn whatever_befell_it_a_cluster_in_peace_is_as_wished() {
    let wanted = std::env::var("SIM_SEED").ok();
    for seed in wanted.map_or(0..SEEDS, |text| seeds(&text)) {
        let faults = Faults::seeded(seed);
        let report = faults.play();
        let script = &faults.script;
        assert!(
            report.is_good(),
            "SIM_SEED={seed} replays this\n{report}\n{script}"
        );
    }
}

#[test]
fn one_seed_is_one_history_and_its_script_can_be_kept() {
    for seed in 0..5 {
        let faults = Faults::seeded(seed);
        assert_eq!(faults.play(), faults.play());
        let text = faults.script.to_string();
        let kept = Script::parse("kept", &text).expect("a script");
        assert_eq!(kept.to_string(), text);
        let again = play_with(&kept, seed, &faults.options);
        assert!(again.is_good(), "{again}");
    }
}

/// A repair that never acts is noticed, and by the step that matters.
#[test]
fn what_is_not_repaired_is_said_with_the_fewest_steps() {
    let text = "nodes 5 in /eu/1\nservice search replicas 5\nat 0s start all\nat 5s apply\n\
                at 20s crash n2\nat 25s kill n3\nat 30s poweroff n4\nat 40s crash n1\n\
                at 50s heal\nat 50s within 90s as-wished\nend 150s";
    let mut faults = Faults::seeded(1);
    faults.script = Script::parse("wrong", text).expect("a script");
    assert!(faults.play().is_good());
    faults.options.repair.settle_ms = 3_600_000;
    let report = faults.play();
    let said = report.to_string();
    assert!(
        !report.is_good() && said.contains("is placed on n4"),
        "{said}"
    );
    let least = shrink(&faults);
    let left = least.script.steps.iter();
    let left: Vec<Duration> = left.map(|step| step.at).collect();
    assert_eq!(left, [0, 5, 30, 50].map(Duration::from_secs));
}
