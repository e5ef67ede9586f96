//! Scripts as people write them.

use super::*;
use proptest::prelude::*;

#[test]
fn all_scripts_can_be_read_and_expect_something() {
    for (name, _) in SCRIPTS {
        let script = built_in(name).expect("known").expect("a script");
        let last = script.steps.last().expect("steps").at;
        assert!(script.end > last, "{name} ends before its last step");
        assert!(!script.expectations.is_empty(), "{name}");
        for expectation in &script.expectations {
            assert!(expectation.at + expectation.within <= script.end, "{name}");
        }
    }
}

#[test]
fn nodes_are_named_by_range_zone_and_name() {
    let text = "nodes 5 in /eu/1 /us\nat 1s poweroff n2..n3\nat 0s start /eu over 2s behind 1h\n\
                at 2s cut /us to all # one way\nat 3s loss 5%";
    let script = Script::parse("here", text).expect("a script");
    let actions: Vec<&Action> = script.steps.iter().map(|step| &step.action).collect();
    assert_eq!(
        actions,
        [
            &Action::Start {
                nodes: vec![0, 2, 4],
                over: Duration::from_secs(2),
                memory: Memory::Kept,
                clock_off_s: -3_600,
            },
            &Action::PowerOff(vec![1, 2]),
            &Action::Cut {
                from: vec![1, 3],
                to: vec![0, 2, 4],
                both: false,
            },
            &Action::Loss(0.05),
        ]
    );
}

#[test]
fn a_wrong_line_is_named() {
    let wrong = |text: &str| {
        let text = format!("nodes 2 in /eu\n{text}");
        Script::parse("here", &text)
            .expect_err("refused")
            .to_string()
    };
    assert_eq!(
        wrong("at 1s poweroff n3"),
        "line 2, `at 1s poweroff n3`: no node is `n3`; say how many there are first"
    );
    assert!(wrong("at 1s poweroff /us").contains("no node is in `/us`"));
    assert!(wrong("at 1s loss 500%").contains("is not a share"));
    assert!(wrong("always all-is-well").contains("no invariant is"));
    assert!(wrong("at 1s within 2s ready search").contains("no service is `search`"));
    assert!(wrong("nodes 99999999 in /eu").contains("at most"));
}

proptest! {
    #[test]
    fn the_reader_never_panics(text in "(nodes|at|end|always|[a-z0-9./% \n]){0,40}") {
        let _ = Script::parse("any", &text);
    }
}
