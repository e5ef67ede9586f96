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
    let two = "service a replicas 1\nservice b replicas 1 in shop calls a";
    assert!(wrong(two).contains("`a` is of another project"));
    assert!(wrong("service a replicas 2 actor").contains("one of an actor"));
    assert!(wrong("service a replicas 2 singleton").contains("one of a singleton"));
    assert!(wrong("memory much all").contains("is no size"));
    assert!(wrong("nodes 99999999 in /eu").contains("at most"));
}

#[test]
fn what_is_written_is_read_as_the_same() {
    let text = "nodes 3 in /eu/1 /us\nmemory 4GiB n1..n2\nservice search replicas 3 in shop\n\
                service count replicas 1 actor needs 128MiB in shop\n\
                service lock replicas 1 singleton needs 16MiB in shop\n\
                service front replicas 2 on n2 in shop calls search\n\
                distance /eu/1 /us 40ms\nat 0s start all over 2s behind 1h\nat 1s apply\n\
                at 2s cut n1 to n2\nat 3s kill n3\nat 3s pause n2 for 8s\nat 4s drain n2\nat 5s undrain n2\n\
                at 6s change search replicas 5\nat 7s change count anew\nat 8s loss 5%\n\
                at 9s heal\nat 9s within 90s as-wished\nat 9s within 9s dead n3\n\
                always places-have-room\nend 100s";
    let script = Script::parse("here", text).expect("a script");
    let again = Script::parse("here", &script.to_string()).expect("a script too");
    assert_eq!(script, again);
    let manifests = script.manifests(&script.services, "./program");
    for (project, text) in manifests {
        let manifest = manifest::parse(&text, &project).expect("a manifest");
        assert_eq!(manifest.services.len(), 4, "{text}");
    }
}

proptest! {
    #[test]
    fn the_reader_never_panics(text in "(nodes|at|end|always|[a-z0-9./% \n]){0,40}") {
        let _ = Script::parse("any", &text);
    }
}
