//! Distances, cuts, rates, disks and limits as programs in a node meet them.

use crate::support::{Server, curl, installed, lab, options, reaches, says, sh, skipped, until};
use kernel::Bytes;
use lab::Lab;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use wire::lab::{Between, Fault};

fn between(lab: &Lab, one_way: bool) -> Between {
    Between {
        from: wire::lab::Place::Node(lab.name(0).clone()),
        to: Some(wire::lab::Place::Node(lab.name(1).clone())),
        one_way,
    }
}

/// Seconds until connected, and the answer's status.
fn asked(said: &str) -> (f64, u16) {
    let (seconds, status) = said.split_once(' ').expect("two words");
    (
        seconds.parse().expect("seconds"),
        status.parse().expect("a status"),
    )
}

#[test]
fn programs_of_others_are_as_far_apart_as_was_said() {
    let Some(()) = installed("curl").and(installed("python3")) else {
        return;
    };
    let Some(lab) = lab(options()) else { return };
    let _server = Server::start(&lab, 1);
    let url = format!("http://{}/", lab.nodes()[1].address);
    let said = says(&lab, lab.name(0), &curl(&url)).expect("curl in a node");
    let (seconds, status) = asked(&said);
    assert_eq!(status, 200);
    assert!(seconds >= 0.080, "40 ms each way took {seconds} s");

    // This machine's own programs choose the zone they are in by their address.
    let far = lab.plan().clients[0].address;
    let line = format!("{} --interface {far}", curl(&url));
    let output = Command::new("sh").args(["-c", &line]).output().expect("sh");
    let (seconds, status) = asked(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(status, 200);
    assert!(seconds >= 0.080, "40 ms each way took {seconds} s");
    let counts = lab.status().expect("a status").packets;
    assert!(counts.delivered > 8 && counts.lost == 0, "{counts:?}");
}

#[test]
fn a_node_has_its_own_name_and_no_way_out() {
    let Some(lab) = lab(options()) else { return };
    assert_eq!(says(&lab, lab.name(1), "uname -n").as_deref(), Some("n2"));
    let inside = says(
        &lab,
        lab.name(1),
        "ls /sys/class/net > /dev/null; ip -o -4 address",
    );
    let inside = inside.expect("addresses");
    assert!(
        inside.contains("198.18.") && !inside.contains("eth0"),
        "{inside}"
    );
    let routes = says(&lab, lab.name(1), "ip route").expect("routes");
    assert!(!routes.contains("default"), "{routes}");
    let told = says(&lab, lab.name(1), "echo $HOMEOSTAT_DATA_DIR").expect("a variable");
    assert_eq!(Path::new(&told), lab.nodes()[1].data);
}

#[test]
fn a_cut_is_undone_by_itself_and_sooner_by_command() {
    let Some(()) = installed("python3") else {
        return;
    };
    let Some(lab) = lab(options()) else { return };
    let _server = Server::start(&lab, 0);
    let address = lab.nodes()[0].http;
    let alone = Fault::PowerOff {
        node: lab.name(1).clone(),
    };
    // A fault elsewhere changes nothing here.
    lab.begin(alone, None).expect("a fault");
    assert!(reaches(address));
    let cut = Fault::Cut(Between {
        to: None,
        ..between(&lab, false)
    });
    lab.begin(cut.clone(), None).expect("a cut");
    assert!(!reaches(address));
    assert_eq!(lab.undo(None).expect("undone"), 2);
    assert!(reaches(address));

    let span = Some(Duration::from_millis(300));
    let id = lab.begin(cut, span).expect("a cut").expect("a number");
    let active = || lab.status().expect("a status").faults;
    until("the end of the cut", || active().is_empty().then_some(()));
    assert!(reaches(address));
    assert_eq!(lab.undo(Some(id)).expect("nothing"), 0);
}

/// Listens for datagrams in one node, sends one from the other.
fn arrives(lab: &Lab, from: usize, to: usize) -> bool {
    let address = lab.nodes()[to].address;
    let receive = format!(
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('{address}', 9))\n\
         print('bound', flush=True)\ns.settimeout(1)\ntry:\n  s.recv(9); print('came', flush=True)\nexcept OSError:\n  pass"
    );
    let mut receiver = lab
        .command(lab.name(to), "python3")
        .args(["-c", &receive])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3");
    let out = receiver.stdout.take().expect("its output");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(out));
    assert_eq!(lines.next().expect("a line").expect("text"), "bound");
    let send = format!(
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('{address}', 9))"
    );
    let outcome = lab
        .command(lab.name(from), "python3")
        .args(["-c", &send])
        .status();
    assert!(outcome.expect("python3").success());
    let came = lines.next().is_some();
    receiver.wait().expect("an end");
    came
}

#[test]
fn a_cut_of_one_way_leaves_the_other_way() {
    let Some(()) = installed("python3") else {
        return;
    };
    let Some(lab) = lab(options()) else { return };
    assert!(arrives(&lab, 0, 1) && arrives(&lab, 1, 0));
    lab.begin(Fault::Cut(between(&lab, true)), None)
        .expect("a cut");
    assert!(!arrives(&lab, 0, 1));
    assert!(arrives(&lab, 1, 0));
}

#[test]
fn power_off_ends_everything_in_a_node_and_its_command_comes_back() {
    let Some(lab) = lab(options()) else { return };
    let node = lab.name(0).clone();
    let mark = lab.nodes()[0].data.join("starts");
    let command = format!("echo again >> {}; exec sleep 1000", mark.display());
    let words = ["sh", "-c", &command].map(str::to_owned);
    let mut first = lab
        .command(&node, "sh")
        .args(["-c", "sleep 1000 & sleep 1000"])
        .spawn()
        .expect("sh");
    lab.restart_with(&node, &words).expect("noted");
    // Seen from inside, by the network they are in.
    let look = "own=$(readlink /proc/self/ns/net); for p in /proc/[0-9]*; do \
                [ \"$(readlink $p/ns/net)\" = \"$own\" ] && cat $p/comm; done | grep -c '^sleep$'";
    let sleeping = || {
        let count = says(&lab, lab.name(0), look);
        count.and_then(|count| count.parse().ok()).unwrap_or(0)
    };
    until("both sleepers", || (sleeping() == 2).then_some(()));
    let off = Fault::PowerOff { node: node.clone() };
    let span = Some(Duration::from_millis(300));
    lab.begin(off, span).expect("a power-off");
    assert!(!first.wait().expect("an end").success());
    until("the node's own start", || mark.exists().then_some(()));
    assert_eq!(lab.status().expect("a status").faults, []);
    until("its only sleeper", || (sleeping() == 1).then_some(()));
}

#[test]
fn a_disk_is_small_can_be_filled_and_is_emptied_again() {
    let Some(lab) = lab(options()) else { return };
    let data = lab.nodes()[0].data.clone();
    let write = |name: &str| std::fs::write(data.join(name), vec![7; 1 << 20]);
    write("before").expect("room");
    let fill = Fault::Fill {
        node: lab.name(0).clone(),
        leave: Bytes(0),
    };
    lab.begin(fill, None).expect("full");
    let refused = write("meanwhile").expect_err("no room");
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull);
    // The other node's disk is another one.
    std::fs::write(lab.nodes()[1].data.join("other"), "x").expect("room");
    lab.undo(None).expect("emptied");
    write("after").expect("room");
    let over = std::fs::write(data.join("over"), vec![7; 80 << 20]);
    assert!(over.is_err(), "64 MiB held 80");
}

#[test]
fn a_node_has_no_more_memory_than_it_was_given() {
    if !drivers::control_groups().limits("memory") {
        skipped("no control group limits memory here");
        return;
    }
    let mut options = options();
    options.memory = Some(Bytes::mebibytes(48));
    let Some(lab) = lab(options) else { return };
    // `tail` keeps a line without an end whole.
    let modest = "head -c 4M /dev/zero | tail -n 1 | wc -c";
    assert_eq!(says(&lab, lab.name(0), modest).as_deref(), Some("4194304"));
    let greedy = "head -c 200M /dev/zero | tail -n 1 | wc -c";
    assert_ne!(
        says(&lab, lab.name(0), greedy).as_deref(),
        Some("209715200")
    );
}

#[test]
fn a_slow_processor_is_slow_until_it_is_undone() {
    if !drivers::control_groups().limits("cpu") {
        skipped("no control group limits cpu here");
        return;
    }
    let Some(lab) = lab(options()) else { return };
    let quota = || {
        let groups = drivers::control_groups().hierarchies;
        let path = format!("homeostat/lab-{}/n1", lab.id());
        let read = |file: &str| {
            let mut found = groups
                .iter()
                .map(|group| group.mount.join(&path).join(file));
            found.find_map(|path| std::fs::read_to_string(path).ok())
        };
        let text = read("cpu.cfs_quota_us").or_else(|| read("cpu.max"));
        text.expect("a quota")
            .split_whitespace()
            .next()
            .map(str::to_owned)
    };
    let before = quota();
    let slow = |cores| Fault::Cpu {
        node: lab.name(0).clone(),
        cores,
    };
    lab.begin(slow(0.5), None).expect("slow");
    lab.begin(slow(0.25), None).expect("slower");
    assert_eq!(quota().as_deref(), Some("25000"));
    lab.undo(None).expect("undone");
    assert_eq!(quota(), before);
}

#[test]
fn a_slow_disk_is_slow_until_it_is_undone() {
    let Some(lab) = lab(options()) else { return };
    let slow = |writes_per_s| Fault::Disk {
        node: lab.name(0).clone(),
        writes_per_s,
    };
    match lab.begin(slow(37), None) {
        Err(refused) if refused.to_string().contains("version 1") => {
            skipped(&refused.to_string());
            return;
        }
        begun => drop(begun.expect("slow")),
    }
    lab.begin(slow(7), None).expect("slower");
    let began = Instant::now();
    let file = lab.nodes()[0].data.join("synced");
    let line = format!(
        "dd if=/dev/zero of={} bs=4k count=14 oflag=dsync status=none",
        file.display()
    );
    assert!(sh(&lab, lab.name(0), &line).status.success());
    // Each is one write at least.
    assert!(began.elapsed() >= Duration::from_secs(1));
    lab.undo(None).expect("undone");
    let limits = std::fs::read_to_string("/sys/fs/cgroup/blkio/blkio.throttle.write_iops_device");
    let limits = limits.unwrap_or_default();
    assert!(!limits.lines().any(|line| line.ends_with(" 7")), "{limits}");
}

#[test]
fn a_rate_holds_what_is_sent_back() {
    let Some(()) = installed("curl").and(installed("python3")) else {
        return;
    };
    let mut options = options();
    options.rate_bits_per_s = Some(8_000_000);
    let Some(lab) = lab(options) else { return };
    let _server = Server::start(&lab, 1);
    std::fs::write(lab.nodes()[1].data.join("file"), vec![7; 500_000]).expect("a file");
    let url = format!("http://{}/file", lab.nodes()[1].address);
    let line = format!(
        "curl --silent --output /dev/null --max-time 20 --write-out '%{{time_total}} %{{size_download}}' {url}"
    );
    let said = says(&lab, lab.name(0), &line).expect("curl in a node");
    let (seconds, bytes) = said.split_once(' ').expect("two words");
    assert_eq!(bytes, "500000");
    // Half a megabyte at one megabyte a second, less what a bucket lets through.
    assert!(seconds.parse::<f64>().expect("seconds") >= 0.45, "{said}");
}

#[test]
fn what_is_not_in_the_lab_is_refused_by_name() {
    let Some(lab) = lab(options()) else { return };
    let fault = Fault::Cut(Between {
        from: "/mars".parse().expect("a place"),
        to: None,
        one_way: false,
    });
    let refused = lab.begin(fault, None).expect_err("no such zone");
    assert!(refused.to_string().contains("/mars"), "{refused}");
    let none = kernel::Name::new("n9").expect("a name");
    assert!(!sh(&lab, &none, "true").status.success());
}
