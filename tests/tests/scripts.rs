//! The runner of scripts in labs: what does not come true is said to be broken,
//! and what no lab can do is said and not passed over. What holds is played by
//! `cargo xtask lab`.

use black_box::scripts::play;
use node::script::{SCRIPTS, Script, built_in};
use std::time::Duration;

fn script(text: &str) -> Script {
    Script::parse("here", text).expect("a script")
}

#[test]
fn a_lab_says_what_does_not_hold_in_it() {
    // The simulated world agrees: what is expected never comes true there.
    let wrong = script(
        "nodes 2 in /eu/1\nat 0s start all\nat 1s within 1ms dead n2\n\
         at 1s within 10s alive all\nend 2s",
    );
    let report = play(&wrong, 1, Duration::from_secs(5)).expect("a lab");
    assert!(
        report
            .broken_in_lab
            .iter()
            .all(|line| line.starts_with("==")),
        "{report}"
    );
    let [dead, alive] = report.outcomes.as_slice() else {
        panic!("{report}");
    };
    assert_eq!((dead.in_sim, dead.in_lab), (None, None), "{report}");
    assert!(alive.in_sim.is_some() && alive.in_lab.is_some(), "{report}");
    assert!(!report.is_good());
    assert!(report.to_string().contains("BROKEN"), "{report}");
}

#[test]
fn what_no_lab_can_do_is_said() {
    let many = built_in("thousand-joins")
        .expect("known")
        .expect("a script");
    let line = "nodes 2 in /eu/1\nat 0s start all\nat 3s start n1 without memory\nend 4s";
    for (unfit, word) in [(many, "1000 nodes"), (script(line), "n1 holds the store")] {
        let reasons = black_box::scripts::unfit(&unfit);
        assert!(
            reasons.len() == 1 && reasons[0].contains(word),
            "{reasons:?}"
        );
    }
}

#[test]
fn ten_scripts_at_least_are_fit_for_a_lab() {
    let scripts = SCRIPTS.map(|(name, _)| built_in(name).expect("known").expect("a script"));
    let unfit: Vec<&str> = scripts
        .iter()
        .filter(|script| !black_box::scripts::unfit(script).is_empty())
        .map(|script| script.name.as_str())
        .collect();
    let simulated = [
        "died-unseen",
        "drain-undone",
        "coming-up-with-more",
        "leader-killed",
    ];
    assert_eq!(unfit[..2], ["thousand-joins", "ten-thousand"]);
    assert_eq!(unfit[2..], simulated);
}
