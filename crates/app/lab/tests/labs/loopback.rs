//! Labs without root: addresses of their own, distances in a file.

use crate::support::{options, until};
use lab::{Lab, Options};
use std::time::Duration;
use wire::lab::{Between, Fault, IMPAIRMENTS, Impairments, LabKind};

fn lab() -> Lab {
    let kind = Some(LabKind::Loopback);
    Lab::start(Options { kind, ..options() }).expect("a lab")
}

fn impairments(lab: &Lab) -> Impairments {
    let output = lab
        .command(lab.name(0), "sh")
        .args(["-c", &format!("cat \"${IMPAIRMENTS}\"")])
        .output()
        .expect("a shell");
    Impairments::read(&String::from_utf8_lossy(&output.stdout)).expect("impairments")
}

#[test]
fn distances_and_faults_are_in_the_file_that_transports_read() {
    let lab = lab();
    let calm = impairments(&lab);
    assert_eq!(calm.links.len(), 2);
    assert_eq!(calm.links[0].from, lab.nodes()[0].address);
    assert!((calm.links[0].one_way_ms - 40.0).abs() < 1e-9 && !calm.links[0].cut);
    let cut = Fault::Cut(Between {
        from: "/a".parse().expect("a place"),
        to: Some("/b".parse().expect("a place")),
        one_way: true,
    });
    let span = Some(Duration::from_millis(300));
    lab.begin(cut, span).expect("a cut");
    let cut = impairments(&lab);
    assert_eq!([cut.links[0].cut, cut.links[1].cut], [true, false]);
    until("the end of the cut", || {
        (impairments(&lab) == calm).then_some(())
    });
}

#[test]
fn power_off_ends_what_belongs_to_the_node() {
    let lab = lab();
    let inside = |node: usize| {
        let mut command = lab.command(lab.name(node), "sleep");
        command.arg("1000").spawn().expect("sleep")
    };
    let (mut first, mut second) = (inside(0), inside(1));
    // It has become the sleeper once its environment says where it is.
    let data = |node: usize| lab.nodes()[node].data.display().to_string();
    for (child, node) in [(&first, 0), (&second, 1)] {
        until("its environment", || {
            let path = format!("/proc/{}/environ", child.id());
            let text = std::fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&text)
                .contains(&data(node))
                .then_some(())
        });
    }
    let off = Fault::PowerOff {
        node: lab.name(0).clone(),
    };
    lab.begin(off, None).expect("a power-off");
    assert!(!first.wait().expect("an end").success());
    assert!(
        second.try_wait().expect("asked").is_none(),
        "the other node's ended too"
    );
    lab.down().expect("down");
    assert!(!second.wait().expect("an end").success());
}

#[test]
fn a_paused_node_stands_still_until_all_pauses_are_over() {
    let lab = lab();
    let mark = lab.nodes()[0].data.join("mark");
    let script = format!("while :; do echo >> {}; sleep 0.01; done", mark.display());
    let mut child = lab
        .command(lab.name(0), "sh")
        .args(["-c", &script])
        .spawn()
        .expect("sh");
    let lines = || std::fs::read(&mark).map_or(0, |text| text.len());
    until("its first word", || (lines() > 0).then_some(()));
    let node = lab.name(0).clone();
    let begin = || lab.begin(Fault::Pause { node: node.clone() }, None);
    let (first, second) = (begin().expect("a pause"), begin().expect("another"));
    let before = lines();
    let stands = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id()));
        stat.is_ok_and(|stat| stat.contains(") T "))
    };
    assert!(stands(), "it goes on");
    lab.undo(first).expect("undone");
    assert!(stands(), "it goes on while another pause is in force");
    assert_eq!(lines(), before, "it went on");
    lab.undo(second).expect("undone");
    until("more words", || (lines() > before).then_some(()));
    lab.begin(Fault::Pause { node }, None).expect("a pause");
    // What stands still is ended all the same.
    lab.down().expect("down");
    assert!(!child.wait().expect("an end").success());
}

#[test]
fn what_needs_root_is_refused_with_the_reason() {
    let lab = lab();
    let fill = Fault::Fill {
        node: lab.name(0).clone(),
        leave: kernel::Bytes(0),
    };
    let refused = lab.begin(fill, None).expect_err("no disk");
    assert!(
        refused.to_string().contains("no disk of its own"),
        "{refused}"
    );
    assert_eq!(lab.status().expect("a status").faults, []);
}
