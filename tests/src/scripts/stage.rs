//! The nodes of a lab as a script's steps treat them: started, ended, robbed
//! of their disks, copied.
//!
//! Holds: a node's clock is off only where its start said so, and it is checked
//! that it is.

use crate::{processes, program, says};
use lab::{Lab, Options};
use node::script::{Memory, PROJECT, Script};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use wire::lab::{Between, Fault, Part, Place};
use wire::layout::Layout;

/// What shows programs a wall clock that is off.
pub const CLOCK: &str = "homeostat-clock.so";
const CLOCK_SOURCE: &str = include_str!("clock.c");
const TOKEN: &str = "HOMEOSTAT_TOKEN";
/// One way, where a script says nothing.
const FAR_MS: f64 = 20.0;
const NEAR_MS: f64 = 0.5;
/// What a node without memory still has of `cluster/`: who it is.
const IDENTITY: [&str; 6] = [
    "node.json",
    "root.der",
    "listen.json",
    "authority.sealed",
    "key",
    "chain",
];

pub type Told<T = ()> = Result<T, String>;
/// What is under way.
pub type Job = JoinHandle<Told>;

pub struct Stage {
    pub lab: Arc<Lab>,
    home: Arc<tempfile::TempDir>,
    /// Of the script; those after them are for copies.
    pub nodes: usize,
    /// By node, the power-off that is in force.
    off: Vec<Option<u64>>,
    pub names: Vec<String>,
    pub layouts: Vec<Layout>,
}

/// In the order in which a lab deals nodes out over them.
pub fn zones(script: &Script) -> Vec<kernel::ZonePath> {
    let mut zones = Vec::new();
    for node in &script.nodes {
        if !zones.contains(&node.zone) {
            zones.push(node.zone.clone());
        }
    }
    zones
}

fn options(script: &Script, copies: usize) -> Options {
    let zones = zones(script);
    let one_way = |one: &kernel::ZonePath, other: &kernel::ZonePath| {
        let mut said = script.distances.iter();
        let found = said.find(|(a, b, _)| (a, b) == (one, other) || (b, a) == (one, other));
        match found {
            Some((_, _, distance)) => distance.as_secs_f64() * 1e3,
            None if one == other => NEAR_MS,
            None => FAR_MS,
        }
    };
    let row = |one| zones.iter().map(move |other| one_way(one, other) * 2.0);
    Options {
        nodes: script.nodes.len() + copies,
        round_trip_ms: zones.iter().map(|one| row(one).collect()).collect(),
        disk: kernel::Bytes::mebibytes(256),
        bound: true,
        zones: zones.clone(),
        ..Options::new(program("homeostat"))
    }
}

impl Stage {
    /// The lab, with nothing running in it.
    pub fn set(script: &Script, copies: usize) -> Told<Self> {
        let lab = Lab::start(options(script, copies)).map_err(|error| {
            let hint = error.hint().unwrap_or_default();
            format!("no lab can be made: {} {hint}", kernel::error_chain(&error))
        })?;
        let home = tempfile::tempdir().map_err(|why| why.to_string())?;
        let manifest = script.manifest(&program("black-box-service").display().to_string());
        fs::write(home.path().join("homeostat.toml"), manifest).map_err(|why| why.to_string())?;
        let layouts = lab.nodes().iter().map(|node| Layout::new(&node.data));
        let names = lab.nodes().iter().map(|node| node.name.to_string());
        Ok(Self {
            layouts: layouts.collect(),
            names: names.collect(),
            off: vec![None; lab.nodes().len()],
            nodes: script.nodes.len(),
            lab: Arc::new(lab),
            home: Arc::new(home),
        })
    }

    /// The first start of each: the first node makes the cluster, the others
    /// join it, a few at a time.
    pub fn first_starts(&self, nodes: &[usize], clock_off_s: i64) -> Job {
        const AT_ONCE: usize = 4;
        let (lab, mut nodes) = (Arc::clone(&self.lab), nodes.to_vec());
        std::thread::spawn(move || {
            if nodes.first() == Some(&0) {
                nodes.remove(0);
                let mut up = up(&lab, 0, clock_off_s)?;
                finish(up.args(["--zone", &lab.nodes()[0].zone.to_string()]))?;
            }
            for some in nodes.chunks(AT_ONCE) {
                let joins = some.iter().map(|node| {
                    let (lab, node) = (Arc::clone(&lab), *node);
                    std::thread::spawn(move || join(&lab, node, clock_off_s))
                });
                let joins: Vec<Job> = joins.collect();
                for join in joins {
                    ended(join)?;
                }
            }
            Ok(())
        })
    }

    /// On what its disk has; power comes back if it was off.
    pub fn start(&mut self, node: usize, memory: Memory, clock_off_s: i64) -> Told<Job> {
        if memory == Memory::Lost {
            forget(&self.layouts[node])?;
        }
        if let Some(fault) = self.off[node].take() {
            self.lab.undo(Some(fault)).map_err(|why| why.to_string())?;
        }
        let mut up = up(&self.lab, node, clock_off_s)?;
        let (layout, is_off) = (self.layouts[node].clone(), clock_off_s != 0);
        Ok(std::thread::spawn(move || {
            finish(&mut up)?;
            if is_off {
                clock_is_off(&layout)
            } else {
                Ok(())
            }
        }))
    }

    pub fn power_off(&mut self, node: usize) -> Told {
        let name = self.lab.name(node).clone();
        let begun = self.lab.begin(Fault::PowerOff { node: name }, None);
        self.off[node] = begun.map_err(|why| why.to_string())?;
        Ok(())
    }

    pub fn leave(&self, node: usize) -> Job {
        let mut down = homeostat(&self.lab, node);
        down.arg("down");
        std::thread::spawn(move || finish(&mut down).map(drop))
    }

    pub fn revoke(&self, node: usize) -> Told {
        let mut revoke = homeostat(&self.lab, 0);
        finish(revoke.args(["node", "revoke", &self.names[node]])).map(drop)
    }

    pub fn apply(&self) -> Job {
        let (lab, home) = (Arc::clone(&self.lab), Arc::clone(&self.home));
        std::thread::spawn(move || {
            let mut apply = homeostat(&lab, 0);
            let project = format!("{PROJECT}, applied");
            let outcome = finish(apply.arg("apply").arg(home.path()));
            outcome.map(drop).map_err(|why| format!("{project}: {why}"))
        })
    }

    pub fn crash(&self, node: usize) -> Told {
        let (node, part) = (self.lab.name(node).clone(), Part::Replica);
        let begun = self.lab.begin(Fault::Kill { node, part }, None);
        begun.map(drop).map_err(|why| why.to_string())
    }

    /// A fault of the network, until it is undone.
    pub fn impair(&self, fault: Fault) -> Told<u64> {
        let begun = self.lab.begin(fault, None).map_err(|why| why.to_string())?;
        begun.ok_or_else(|| "the fault was over at once".to_owned())
    }

    pub fn place(&self, node: usize) -> Place {
        Place::Node(self.lab.name(node).clone())
    }

    /// All that goes to or comes from a node.
    pub fn around(&self, node: usize) -> Between {
        Between {
            from: self.place(node),
            to: None,
            one_way: false,
        }
    }

    /// Starts `copy` with what is on the disk of `original`, which goes on.
    pub fn start_copy(&self, original: usize, copy: usize) -> Told<Job> {
        let (from, to) = (&self.layouts[original].root, &self.layouts[copy].root);
        let all = processes::of(from);
        let signal = |word: &str| {
            let pids = all.iter().map(|one| one.pid.to_string());
            run(Command::new("kill").arg(word).args(pids))
        };
        signal("-STOP")?;
        let copied = run(Command::new("cp").arg("-a").arg(from.join(".")).arg(to));
        signal("-CONT")?;
        copied?;
        // Sockets and locks of processes that are not there.
        let _ = fs::remove_dir_all(self.layouts[copy].run());
        let mut up = up(&self.lab, copy, 0)?;
        Ok(std::thread::spawn(move || finish(&mut up).map(drop)))
    }

    /// What a node's parts said, for a script that breaks.
    pub fn logs(&self, node: usize) -> String {
        let read = |role: &str| {
            let path = self.layouts[node].logs().join(format!("{role}.log"));
            let text = fs::read_to_string(path).unwrap_or_default();
            let last: Vec<&str> = text.lines().rev().take(40).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            format!("== {} {role}\n{}\n", self.names[node], last.join("\n"))
        };
        ["supervisor", "agent", "edge"].map(read).concat()
    }
}

fn join(lab: &Lab, node: usize, clock_off_s: i64) -> Told {
    let zone = lab.nodes()[node].zone.to_string();
    let mut token = homeostat(lab, 0);
    let token = finish(token.args(["token", "create", "--ttl", "15m", "--zone", &zone]))?;
    let token = String::from_utf8_lossy(&token.stdout).trim().to_owned();
    let mut up = up(lab, node, clock_off_s)?;
    finish(up.args(["--join", &token]))?;
    if clock_off_s == 0 {
        return Ok(());
    }
    clock_is_off(&Layout::new(&lab.nodes()[node].data))
}

/// `homeostat` at a node's place.
fn homeostat(lab: &Lab, node: usize) -> Command {
    let mut command = lab.command(lab.name(node), program("homeostat"));
    // What a person has set for nodes of their own.
    command.env_remove(TOKEN);
    command
}

fn up(lab: &Lab, node: usize, clock_off_s: i64) -> Told<Command> {
    let of = &lab.nodes()[node];
    let at = |port| SocketAddr::new(of.address, port).to_string();
    let mut up = homeostat(lab, node);
    up.arg("up").arg("--data-dir").arg(&of.data);
    for (flag, value) in [
        ("--http", of.http.to_string()),
        ("--https", of.https.to_string()),
        ("--name", of.name.to_string()),
        ("--agent-listen", at(7_600)),
        ("--edge-listen", at(7_601)),
    ] {
        up.args([flag, &value]);
    }
    if clock_off_s != 0 {
        up.env("LD_PRELOAD", clock()?);
        up.env("HOMEOSTAT_CLOCK_OFF_S", clock_off_s.to_string());
    }
    Ok(up)
}

/// All but who it is.
fn forget(layout: &Layout) -> Told {
    let failed = |why: std::io::Error| format!("{}: {why}", layout.root.display());
    for entry in fs::read_dir(&layout.root).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path != layout.cluster() {
            remove(&path).map_err(failed)?;
        }
    }
    for entry in fs::read_dir(layout.cluster()).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let kept = |word: &str| name == word || name.ends_with(&format!(".{word}"));
        if !IDENTITY.iter().any(|word| kept(word)) {
            remove(&path).map_err(failed)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

/// Built beside this program, where it is not yet.
///
/// # Errors
/// Says why it cannot be.
pub fn clock() -> Told<PathBuf> {
    let path = program(CLOCK);
    let source = path.with_extension("c");
    if fs::read_to_string(&source).is_ok_and(|built| built == CLOCK_SOURCE) && path.exists() {
        return Ok(path);
    }
    fs::write(&source, CLOCK_SOURCE).map_err(|why| why.to_string())?;
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"]);
    let built = run(cc.arg(&path).arg(&source));
    built.map(|_| path)
}

/// That the node's agent really sees another time.
fn clock_is_off(layout: &Layout) -> Told {
    let all = processes::of(&layout.root);
    let agent = all.iter().find(|one| one.is_part("agent"));
    let agent = agent.ok_or("a node whose clock is off has no agent")?;
    let maps = fs::read_to_string(format!("/proc/{}/maps", agent.pid));
    if maps.is_ok_and(|maps| maps.contains(CLOCK)) {
        return Ok(());
    }
    Err("the agent's clock is not off as it should be".to_owned())
}

pub fn ended(job: Job) -> Told {
    job.join()
        .unwrap_or_else(|_| Err("a thread of this runner panicked".to_owned()))
}

fn run(command: &mut Command) -> Told<Output> {
    finish(command)
}

/// What a command that must succeed said.
fn finish(command: &mut Command) -> Told<Output> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|why| format!("{command:?}: {why}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let words = command.get_args().map(|word| word.to_string_lossy());
    let words: Vec<_> = words.collect();
    // In a node, what follows is the program and its words; never a token.
    let shown = match words.as_slice() {
        [enter, _, node, _, words @ ..] if enter == "lab-enter" => {
            let words: Vec<&str> = words.iter().take(2).map(AsRef::as_ref).collect();
            format!("homeostat {} … in {node}", words.join(" "))
        }
        _ => command.get_program().to_string_lossy().into_owned(),
    };
    let said = says(&output);
    Err(format!("{shown}: {}: {}", output.status, said.trim()))
}
