//! What is left of a lab, however it ended: nothing.

use crate::support::{lab, options, until};
use lab::Lab;
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use wire::lab::LabPlan;

/// Every trace of a lab on this machine.
fn traces(plan: &LabPlan, directory: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |path: PathBuf| {
        if path.exists() {
            found.push(path.display().to_string());
        }
    };
    note(directory.to_owned());
    note(PathBuf::from("/sys/class/net").join(lab::host_device(plan.id)));
    for node in &plan.nodes {
        note(PathBuf::from("/run/netns").join(lab::namespace_name(plan.id, node)));
    }
    for hierarchy in drivers::control_groups().hierarchies {
        note(hierarchy.mount.join(format!("homeostat/lab-{}", plan.id)));
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    let ours = format!("{}/", directory.display());
    found.extend(
        mounts
            .lines()
            .filter(|line| line.contains(&ours))
            .map(str::to_owned),
    );
    let loops = std::fs::read_dir("/sys/block").expect("devices").flatten();
    for device in loops {
        let file = std::fs::read_to_string(device.path().join("loop/backing_file"));
        found.extend(file.ok().filter(|file| file.starts_with(&ours)));
    }
    found
}

fn parts(lab: &Lab) -> (LabPlan, PathBuf) {
    (lab.plan().clone(), lab.directory().to_owned())
}

fn sleeper(lab: &Lab) -> std::process::Child {
    let mut command = lab.command(lab.name(0), "sleep");
    command.arg("1000").spawn().expect("sleep")
}

#[test]
fn a_lab_that_is_ended_leaves_nothing() {
    let Some(lab) = lab(options()) else { return };
    let (plan, directory) = parts(&lab);
    // Every trace is looked for where it is.
    assert!(
        traces(&plan, &directory).len() >= 8,
        "{:?}",
        traces(&plan, &directory)
    );
    let mut inside = sleeper(&lab);
    lab.down().expect("down");
    assert!(!inside.wait().expect("an end").success());
    assert_eq!(traces(&plan, &directory), Vec::<String>::new());
}

#[test]
fn a_lab_whose_keeper_was_killed_is_taken_away_by_command() {
    let Some(lab) = lab(options()) else { return };
    let (plan, directory) = parts(&lab);
    let mut inside = sleeper(&lab);
    let pid = lab.status().expect("a status").pid;
    let pid = Pid::from_raw(i32::try_from(pid).expect("a number")).expect("a process");
    kill_process(pid, Signal::KILL).expect("killed");
    until("the keeper's end", || {
        let (_, dead) = Lab::all();
        dead.contains(&plan.id).then_some(())
    });
    lab::take_down(plan.id).expect("taken away");
    assert!(!inside.wait().expect("an end").success());
    assert_eq!(traces(&plan, &directory), Vec::<String>::new());
}

#[test]
fn a_bound_lab_goes_when_its_owner_is_killed() {
    let mut unbound = options();
    unbound.bound = false;
    let Some(lab) = lab(unbound) else { return };
    // Its owner is a process of its own, which the test can kill.
    let mut owner = lab
        .command(lab.name(0), crate::support::helper())
        .arg("hold")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the helper");
    let out = owner.stdout.take().expect("its output");
    let mut line = String::new();
    let mut reader = std::io::BufReader::new(out);
    std::io::BufRead::read_line(&mut reader, &mut line).expect("a line");
    let held: LabPlan = LabPlan::read(&line).expect("a plan");
    let directory = lab.directory().with_file_name(held.id.to_string());
    assert!(!traces(&held, &directory).is_empty());
    owner.kill().expect("killed");
    owner.wait().expect("an end");
    until("the end of the held lab", || {
        traces(&held, &directory).is_empty().then_some(())
    });
    let (plan, directory) = parts(&lab);
    lab.down().expect("down");
    assert_eq!(traces(&plan, &directory), Vec::<String>::new());
}

/// A lab that nobody holds.
fn kept() -> Option<(LabPlan, PathBuf)> {
    let mut lab = lab(options())?;
    lab.keep().expect("kept");
    Some(parts(&lab))
}

#[test]
fn a_lab_that_is_kept_stays_when_its_holder_is_dropped() {
    let Some((plan, directory)) = kept() else {
        return;
    };
    assert!(!traces(&plan, &directory).is_empty());
    lab::take_down(plan.id).expect("taken away");
    assert_eq!(traces(&plan, &directory), Vec::<String>::new());
}

#[test]
fn a_lab_ends_whole_while_another_looks_at_its_disks() {
    let Some((plan, directory)) = kept() else {
        return;
    };
    let image = format!("{}/n1.img", directory.display());
    let behind = |device: &std::fs::DirEntry| {
        let file = std::fs::read_to_string(device.path().join("loop/backing_file"));
        file.is_ok_and(|file| file.trim_end() == image)
    };
    let mut devices = std::fs::read_dir("/sys/block").expect("devices").flatten();
    let device = devices.find(behind).expect("the first node's device");
    // As `mount -o loop` does for a moment, which looks for a free one.
    let look = std::fs::File::open(PathBuf::from("/dev").join(device.file_name())).expect("opened");
    let id = plan.id;
    let end = std::thread::spawn(move || lab::take_down(id));
    until("the end of the mount", || {
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
        let mount = format!("{}/n1 ", directory.display());
        (!mounts.contains(&mount)).then_some(())
    });
    drop(look);
    end.join().expect("no panic").expect("taken away");
    assert_eq!(traces(&plan, &directory), Vec::<String>::new());
}
