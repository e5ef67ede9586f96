//! Random kills under load: whatever is killed, in whatever order, the node is
//! back by itself and nothing acknowledged is lost or done twice.
//!
//! The seed is printed; `HOMEOSTAT_SEED` replays its kills (the load beside them
//! has its own timing), `HOMEOSTAT_RANDOM_SECONDS` makes it longer or shorter.

use black_box::processes::{self, Process};
use black_box::{TestNode, ask, get, program, until};
use fastrand::Rng;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const READERS: usize = 2;

/// One request that got no good answer.
#[derive(Debug)]
struct Failed {
    began: Instant,
    ended: Instant,
    what: String,
}

#[derive(Debug, Default)]
struct Seen {
    good: u64,
    failed: Vec<Failed>,
}

/// A client on a thread, asking until told to stop.
struct Client<T> {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<T>,
}

impl<T: Default + Send + 'static> Client<T> {
    fn start(mut turn: impl FnMut(&mut T) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = T::default();
            while !stopped.load(Ordering::Relaxed) {
                turn(&mut seen);
            }
            seen
        });
        Self { stop, thread }
    }

    fn stop(self) -> T {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a client ends")
    }
}

/// GETs that must be answered by 200 and a whole page.
fn reader(node: &TestNode, path: &'static str, whole: fn(&[u8]) -> bool) -> Client<Seen> {
    let address = node.http;
    Client::start(move |seen: &mut Seen| {
        let began = Instant::now();
        let what = match get(address, "localhost", path) {
            Ok(answer) if answer.status == 200 && whole(&answer.body) => {
                seen.good += 1;
                return;
            }
            Ok(answer) => format!("status {}, {} bytes", answer.status, answer.body.len()),
            Err(error) => error.to_string(),
        };
        let ended = Instant::now();
        seen.failed.push(Failed { began, ended, what });
    })
}

/// POSTs with a number each, and the numbers that were acknowledged.
fn writer(node: &TestNode) -> Client<Vec<u64>> {
    let address = node.http;
    let mut number = 0;
    Client::start(move |acknowledged: &mut Vec<u64>| {
        number += 1;
        let answer = ask(
            address,
            "POST",
            "localhost",
            &format!("/echo/count?{number}"),
            b"x",
        );
        if answer.is_ok_and(|answer| answer.status == 200) {
            acknowledged.push(number);
        }
    })
}

/// A change is told by its number: in the page, in a host of the site, and now
/// and then in the service's environment.
fn write_change(directory: &Path, count_file: &Path, number: u64) {
    let page = format!("{number} {} end", "x".repeat(20_000));
    std::fs::create_dir_all(directory.join("site")).expect("a directory");
    std::fs::write(directory.join("site/index.html"), page).expect("a page");
    let text = format!(
        r#"[project]
name = "test"

[site.web]
root = "site"
hosts = ["localhost", "v{number}.localhost"]

[service.echo]
run = {{ process = ["{program}"] }}
replicas = 2
routes = [{{ host = "localhost", path = "/echo" }}]
deadline = "10s"
stop_grace = "1s"
environment = {{ COUNT_FILE = "{count_file}", VERSION = "{version}" }}

[service.echo.probes]
startup = {{ http = "/", every = "50ms", timeout = "1s", failures = 100 }}
readiness = {{ http = "/", every = "200ms", timeout = "1s", failures = 2 }}
"#,
        program = program("black-box-service").display(),
        count_file = count_file.display(),
        version = number / 5,
    );
    std::fs::write(directory.join("homeostat.toml"), text).expect("a manifest");
}

/// Change by change, as a person would; what was acknowledged, with its revision.
#[derive(Debug, Default)]
struct Changes {
    /// Change and its revision.
    acknowledged: Vec<(u64, u64)>,
    refused: Vec<String>,
}

fn changer(node: &Arc<TestNode>, directory: PathBuf, count_file: PathBuf) -> Client<Changes> {
    let node = Arc::clone(node);
    let mut number = 1;
    Client::start(move |changes: &mut Changes| {
        number += 1;
        write_change(&directory, &count_file, number);
        let output = node.run(&["apply", directory.to_str().expect("UTF-8")]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let revision = said.lines().find_map(|line| {
            let rest = line.strip_prefix("revision ")?;
            rest.split_once(':')?.0.parse().ok()
        });
        match revision.filter(|_| output.status.success()) {
            Some(revision) => changes.acknowledged.push((number, revision)),
            None => changes.refused.push(format!("{number}: {said}")),
        }
    })
}

/// What was killed when, and the times without a listening socket.
#[derive(Debug, Default)]
struct Deeds {
    counts: BTreeMap<&'static str, u64>,
    /// From before the kill until the process was gone.
    edges: Vec<(Instant, Instant)>,
    /// Neither supervisor nor edge lived: nobody held the sockets.
    dark: Vec<(Instant, Instant)>,
}

struct Chaos<'a> {
    node: &'a TestNode,
    rng: Rng,
    deeds: Deeds,
}

impl Chaos<'_> {
    fn parts(&self, role: &str) -> Vec<Process> {
        let all = processes::of(self.node.scratch());
        all.into_iter().filter(|one| one.is_part(role)).collect()
    }

    /// Kills one process and waits for its end.
    fn end(&mut self, what: &'static str, process: &Process) {
        *self.deeds.counts.entry(what).or_default() += 1;
        let pid = process.pid;
        // It may have ended meanwhile.
        let _ = std::process::Command::new("kill")
            .args(["-9", &pid.to_string()])
            .stderr(std::process::Stdio::null())
            .status();
        until("the end of a killed process", || {
            (!processes::is_alive(pid)).then_some(())
        });
    }

    fn end_role(&mut self, role: &'static str) {
        for process in self.parts(role) {
            self.end(role, &process);
        }
    }

    fn end_edge(&mut self) {
        let before = Instant::now();
        self.end_role("edge");
        self.deeds.edges.push((before, Instant::now()));
    }

    /// Ends the supervisor and what else is named, then brings it back.
    fn end_supervisor(&mut self, and_agent: bool, and_edge: bool) {
        let before = Instant::now();
        // An edge that is on its way does not hold the sockets yet.
        let recent = |(_, at): &(Instant, Instant)| before - *at < Duration::from_secs(2);
        let dark = and_edge || self.deeds.edges.last().is_some_and(recent);
        self.end_role("supervisor");
        if and_agent {
            self.end_role("agent");
        }
        if and_edge {
            self.end_edge();
        }
        self.node.ok(&["up"]);
        if dark {
            self.deeds.dark.push((before, Instant::now()));
        }
    }

    fn end_one_of(&mut self, what: &'static str, is_it: impl Fn(&Process) -> bool) {
        let all = processes::of(self.node.scratch());
        let found: Vec<Process> = all.into_iter().filter(is_it).collect();
        if let Some(process) = self.rng.choice(&found) {
            let process = process.clone();
            self.end(what, &process);
        }
    }

    fn deed(&mut self) {
        match self.rng.u32(0..16) {
            0..=2 => self.end_role("agent"),
            3..=5 => self.end_edge(),
            6..=9 => self.end_one_of("replica", |one| {
                !one.command
                    .first()
                    .is_some_and(|it| it.ends_with("homeostat"))
            }),
            10 => self.end_one_of("shim", |one| one.is_part("shim")),
            11 | 12 => self.end_supervisor(false, false),
            13 => self.end_supervisor(true, false),
            14 => self.end_supervisor(false, true),
            _ => self.end_supervisor(true, true),
        }
    }

    fn go_on_for(&mut self, span: Duration) {
        let end = Instant::now() + span;
        while Instant::now() < end {
            // The faults come at random times; nothing is awaited here.
            std::thread::sleep(Duration::from_millis(self.rng.u64(50..1_200)));
            self.deed();
        }
    }
}

fn is_whole_page(body: &[u8]) -> bool {
    body.ends_with(b" end") && body.len() > 20_000
}

fn is_whole_answer(body: &[u8]) -> bool {
    body.ends_with(b"}\n")
}

fn number_from(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => otherwise,
    }
}

/// All who use the node while it is killed.
struct Crowd {
    readers: Vec<Client<Seen>>,
    service_reader: Client<Seen>,
    writer: Client<Vec<u64>>,
    changer: Client<Changes>,
}

/// What they saw.
struct Heard {
    sites: Seen,
    services: Seen,
    posted: Vec<u64>,
    changes: Changes,
}

impl Crowd {
    fn gather(node: &Arc<TestNode>, directory: &Path, count_file: &Path) -> Self {
        Self {
            readers: (0..READERS)
                .map(|_| reader(node, "/", is_whole_page))
                .collect(),
            service_reader: reader(node, "/echo", is_whole_answer),
            writer: writer(node),
            changer: changer(node, directory.to_owned(), count_file.to_owned()),
        }
    }

    fn leave(self) -> Heard {
        let changes = self.changer.stop();
        let posted = self.writer.stop();
        let mut sites = Seen::default();
        for reader in self.readers {
            let one = reader.stop();
            sites.good += one.good;
            sites.failed.extend(one.failed);
        }
        let services = self.service_reader.stop();
        Heard {
            sites,
            services,
            posted,
            changes,
        }
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_while_everything_is_killed() {
    let random = number_from("HOMEOSTAT_SEED", fastrand::u64(..));
    say(&format!(
        "seed {random}; replay with HOMEOSTAT_SEED={random}"
    ));
    let seconds = number_from("HOMEOSTAT_RANDOM_SECONDS", 60);
    let node = Arc::new(TestNode::new());
    let directory = node.scratch().join("project");
    let count_file = node.scratch().join("count");
    write_change(&directory, &count_file, 1);
    node.ok(&["up", directory.to_str().expect("UTF-8")]);

    let crowd = Crowd::gather(&node, &directory, &count_file);
    let mut chaos = Chaos {
        node: &node,
        rng: Rng::with_seed(random),
        deeds: Deeds::default(),
    };
    chaos.go_on_for(Duration::from_secs(seconds));
    let deeds = chaos.deeds;
    let heard = crowd.leave();
    say(&format!(
        "killed {:?}; {} pages, {} answers, {} posts, {} changes, {} refused while the agent was gone",
        deeds.counts,
        heard.sites.good,
        heard.services.good,
        heard.posted.len(),
        heard.changes.acknowledged.len(),
        heard.changes.refused.len(),
    ));

    back_by_itself(&node);
    counted_once(&count_file, &heard.posted);
    let newest = nothing_lost(&node, &heard.changes);
    served_whole(&node, newest);
    only_in_hand("site", &heard.sites, READERS, &deeds);
    only_in_hand("service", &heard.services, 1, &deeds);
    // It still changes, and the change is the newest.
    write_change(&directory, &count_file, 1_000_000);
    node.ok(&["apply", directory.to_str().expect("UTF-8")]);
    served_whole(&node, 1_000_000);
    node.ok(&["down"]);
    let left = processes::of(node.scratch());
    assert!(left.is_empty(), "{left:?}");
}

/// Ready, and with one of each part: nobody helps it any more.
fn back_by_itself(node: &TestNode) {
    until("a ready node", || {
        let output = node.run(&["get", "services", "-o", "json"]);
        let services: Vec<Value> = serde_json::from_slice(&output.stdout).ok()?;
        let output = node.run(&["get", "nodes", "-o", "json"]);
        let nodes: Vec<Value> = serde_json::from_slice(&output.stdout).ok()?;
        let ready = |all: &[Value]| all.len() == 1 && all[0]["state"] == "ready";
        (ready(&services) && ready(&nodes) && node.run(&["doctor"]).status.code() != Some(1))
            .then_some(())
    });
    let count = |role: &str| {
        let all = processes::of(node.scratch());
        all.iter().filter(|one| one.is_part(role)).count()
    };
    until("one of each part, and two replicas", || {
        let counts = ["supervisor", "agent", "edge", "shim"].map(count);
        let all = processes::of(node.scratch()).len();
        (counts == [1, 1, 1, 2] && all == 7).then_some(())
    });
}

/// The service counts when it acts: an acknowledged POST stands there once, and
/// one that was not may, but not twice, for it is never sent again.
fn counted_once(count_file: &Path, acknowledged: &[u64]) {
    let text = std::fs::read_to_string(count_file).expect("the count");
    let mut counted: BTreeMap<u64, u64> = BTreeMap::new();
    for line in text.lines() {
        *counted.entry(line.parse().expect("a number")).or_default() += 1;
    }
    let twice: Vec<_> = counted.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "done twice: {twice:?}");
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|number| !counted.contains_key(number))
        .collect();
    assert!(
        !acknowledged.is_empty() && lost.is_empty(),
        "lost: {lost:?}"
    );
}

fn change_of(revision: &Value) -> Option<u64> {
    let routes = revision["desired"]["manifest"].to_string();
    let (_, rest) = routes.split_once("\"v")?;
    rest.split_once(".localhost")?.0.parse().ok()
}

/// Each acknowledged revision that the history still holds says its change, and
/// the current one is the last acknowledged or one tried after it.
fn nothing_lost(node: &TestNode, changes: &Changes) -> u64 {
    let revisions: Vec<Value> =
        serde_json::from_str(&node.ok(&["get", "revisions", "-o", "json"])).expect("JSON");
    let by_number: BTreeMap<u64, &Value> = revisions
        .iter()
        .filter_map(|one| Some((one["desired"]["number"].as_u64()?, one)))
        .collect();
    let oldest = *by_number.keys().next().expect("a revision");
    let mut checked = 0;
    for (change, revision) in &changes.acknowledged {
        if *revision >= oldest {
            let found = by_number.get(revision).and_then(|one| change_of(one));
            assert_eq!(found, Some(*change), "revision {revision}");
            checked += 1;
        }
    }
    let (last, _) = changes.acknowledged.last().expect("a change went through");
    assert!(checked > 0, "no acknowledged revision is held");
    let current = revisions
        .iter()
        .find(|one| one["state"] == "current")
        .and_then(change_of)
        .expect("a current revision");
    assert!(
        current >= *last,
        "{current} is current, {last} was acknowledged later\n{:?}",
        changes.refused
    );
    current
}

/// Page and routes are of the same change.
fn served_whole(node: &TestNode, change: u64) {
    let page = format!("{change} ");
    let host = format!("v{change}.localhost");
    let of_it = |answer: std::io::Result<black_box::Answer>| {
        answer.is_ok_and(|answer| {
            answer.status == 200
                && answer.body.starts_with(page.as_bytes())
                && is_whole_page(&answer.body)
        })
    };
    until("the newest change at the edge", || {
        (of_it(get(node.http, "localhost", "/")) && of_it(get(node.http, &host, "/"))).then_some(())
    });
    for other in [change.saturating_sub(1), change + 1] {
        let host = format!("v{other}.localhost");
        let answer = get(node.http, &host, "/").expect("answers");
        assert_ne!(answer.status, 200, "{other} is routed beside {change}");
    }
}

/// A failed request was begun before an edge was gone, one for each client and
/// killed edge: what it had accepted dies with it, what waits in the kernel's
/// queue does not, for the supervisor holds the sockets. Where both were killed
/// the sockets were nobody's until the supervisor was back.
fn only_in_hand(what: &str, seen: &Seen, clients: usize, deeds: &Deeds) {
    assert!(seen.good > 0);
    let in_dark =
        |one: &Failed| (deeds.dark.iter()).any(|(from, to)| one.began <= *to && one.ended >= *from);
    let in_hand = |one: &Failed| {
        (deeds.edges.iter()).any(|(from, to)| one.began <= *to && one.ended >= *from)
    };
    let unexplained: Vec<_> = seen
        .failed
        .iter()
        .filter(|one| !in_dark(one) && !in_hand(one))
        .map(|one| {
            let since = deeds
                .edges
                .iter()
                .map(|(_, to)| *to)
                .rfind(|to| *to < one.ended);
            let after_an_edge = since.map(|at| one.ended - at);
            (&one.what, one.ended - one.began, after_an_edge)
        })
        .collect();
    assert!(unexplained.is_empty(), "{what}: {unexplained:?}");
    let lost = seen.failed.iter().filter(|one| !in_dark(one)).count();
    assert!(
        lost <= clients * deeds.edges.len(),
        "{what}: {lost} failed, {} edges were killed",
        deeds.edges.len()
    );
}
