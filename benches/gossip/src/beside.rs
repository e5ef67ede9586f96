//! Our agents beside Serf's: a death known everywhere, a changed attribute seen
//! by all, bytes on the wire.
//!
//! Holds: both run in the same namespaces at the same time, with the same notes
//! and the same churn; the same node dies in both at once; packets are counted
//! by the kernel, by port, with their IP heads.

use crate::cluster::{AGENT_PORT, Cluster, finish, possible};
use crate::heard::What;
use crate::serf::{PORT, Serf};
use crate::{Bench, Report, goals};
use bench_common::child::installed;
use bench_common::figure::{Figure, quantile};
use bench_common::{Failure, beside, conditions, note, say};
use std::fmt::Write as _;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ZONE: &str = "/lab";
/// Of a note's text; with the agent's own facts ours takes some 70 more.
const NOTE_BYTES: usize = 320;
/// So that what was changed before is no news any more.
const CALM: Duration = Duration::from_secs(3);
const CHANGE_EVERY: Duration = Duration::from_secs(5);

pub fn measure(bench: &Bench, report: Report) -> Result<(), Failure> {
    let goals = [goals::SERF_DEATH, goals::SERF_CHANGE, goals::SERF_BYTES];
    if !possible() {
        say("    no network namespaces can be made here: `serf` needs root and /dev/net/tun");
        for goal in goals {
            report(Figure::alone(goal, f64::NAN));
        }
        return Ok(());
    }
    let peer = installed(&["serf"]);
    let count = bench.lengths.agents;
    let cluster = Cluster::start(&beside("homeostat")?, count, &[ZONE])?;
    let notes: Vec<String> = (0..count).map(|at| text(at, 0)).collect();
    for (at, text) in notes.iter().enumerate() {
        cluster.publish(at, text)?;
    }
    let scratch = tempfile::tempdir()?;
    let serf = if let Some(program) = &peer {
        Some(Serf::start(&cluster, program, scratch.path(), &notes)?)
    } else {
        say("    Serf is missing (Debian package serf): its figures have peer=-");
        None
    };
    conditions::tell([(
        "gossip beside Serf",
        format!(
            "{count} nodes of `homeostat up` without services and {}, in one zone of a lab, a namespace each, 0.5 ms apart, all on one machine; {NOTE_BYTES} bytes of text published by each",
            peer.as_ref().map_or_else(
                || "no Serf".to_owned(),
                |_| format!(
                    "as many agents of Serf (Debian {}), LAN profile, encrypted",
                    version()
                )
            )
        ),
    )])?;
    let mut pair = Pair {
        cluster,
        serf,
        notes,
        round: 0,
    };
    let figures = [
        pair.deaths(bench)?,
        pair.changes(bench)?,
        pair.bytes(bench)?,
    ];
    for (goal, (ours, peer)) in goals.into_iter().zip(figures) {
        report(Figure { goal, ours, peer });
    }
    Ok(())
}

fn version() -> String {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${Version}", "serf"]);
    finish(query).unwrap_or_else(|_| "package of unknown version".to_owned())
}

/// As hard to shorten as what nodes may publish.
fn text(at: usize, round: usize) -> String {
    let mut state = (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ((round as u64) << 32);
    let mut text = String::new();
    while text.len() < NOTE_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let _ = write!(text, "{state:016x}");
    }
    text.truncate(NOTE_BYTES);
    text
}

type Both = (f64, Option<f64>);

struct Pair {
    cluster: Cluster,
    serf: Option<Serf>,
    /// What each publishes now.
    notes: Vec<String>,
    round: usize,
}

impl Pair {
    /// Seconds until a killed agent was dead to all others; the longest.
    fn deaths(&mut self, bench: &Bench) -> Result<Both, Failure> {
        let (mut ours, mut peer) = (Vec::new(), Vec::new());
        for round in 0..bench.lengths.deaths {
            std::thread::sleep(CALM);
            let at = self.victim(round);
            let (one, other) = self.death(at)?;
            ours.push(one);
            peer.extend(other);
        }
        note("killed to dead everywhere, ours, s", &ours);
        note("killed to dead everywhere, Serf, s", &peer);
        Ok((most(&ours), longest(&peer)))
    }

    /// Never the first, whom those that start again ask.
    fn victim(&self, round: usize) -> usize {
        1 + (round * 7 + 3) % (self.cluster.lab.nodes().len() - 1)
    }

    /// One of each, at the same time; both are there again when it returns.
    fn death(&mut self, at: usize) -> Result<(f64, Option<f64>), Failure> {
        self.cluster.ear.forget();
        let mut peer = None;
        if let Some(serf) = &mut self.serf {
            serf.forget();
            peer = Some(serf.kill(at)?);
        }
        let moment = self.cluster.kill(at)?;
        let ours = self.cluster.heard(What::Dead, at, moment)?;
        let mut other = None;
        if let (Some(serf), Some(moment)) = (&self.serf, peer) {
            other = Some(serf.heard(&self.cluster, (What::Dead, at), moment)?);
        }
        self.come_back(at)?;
        Ok((ours, other))
    }

    fn come_back(&mut self, at: usize) -> Result<(), Failure> {
        let now = Instant::now();
        if let Some(serf) = &mut self.serf {
            serf.start_again(&self.cluster, at, &self.notes[at])?;
        }
        self.cluster.start_again(at)?;
        self.cluster.heard(What::Alive, at, now)?;
        if let Some(serf) = &self.serf {
            serf.heard(&self.cluster, (What::Alive, at), now)?;
        }
        Ok(())
    }

    /// Seconds from the command until all others had seen the change.
    fn changes(&mut self, bench: &Bench) -> Result<Both, Failure> {
        let (mut ours, mut peer) = (Vec::new(), Vec::new());
        for round in 0..bench.lengths.changes {
            std::thread::sleep(CALM);
            let at = self.victim(round);
            let (one, other) = self.change(at)?;
            ours.push(one);
            peer.extend(other);
        }
        note("changed to seen by all, ours, s", &ours);
        note("changed to seen by all, Serf, s", &peer);
        Ok((most(&ours), longest(&peer)))
    }

    fn change(&mut self, at: usize) -> Result<(f64, Option<f64>), Failure> {
        self.round += 1;
        self.notes[at] = text(at, self.round);
        let note = &self.notes[at];
        self.cluster.ear.forget();
        let moment = self.cluster.publish(at, note)?;
        let ours = self.cluster.heard(What::Changed, at, moment)?;
        let Some(theirs) = &self.serf else {
            return Ok((ours, None));
        };
        theirs.forget();
        let moment = theirs.publish(&self.cluster, at, note)?;
        let peer = theirs.heard(&self.cluster, (What::Changed, at), moment)?;
        Ok((ours, Some(peer)))
    }

    /// Bytes a node and second, sent and received, while attributes change and
    /// one node dies and comes back.
    fn bytes(&mut self, bench: &Bench) -> Result<Both, Failure> {
        for at in 0..self.cluster.lab.nodes().len() {
            self.count_from_now(at)?;
        }
        let began = Instant::now();
        let before = self.counted()?;
        let span = bench.lengths.counted;
        let mut next = began;
        let mut round = 0;
        let mut died = false;
        while began.elapsed() < span {
            let at = self.victim(round);
            self.change(at)?;
            round += 1;
            if !died && began.elapsed() > span / 3 {
                died = true;
                let at = self.victim(round);
                self.death(at)?;
            }
            next += CHANGE_EVERY;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        let seconds = began.elapsed().as_secs_f64();
        let after = self.counted()?;
        #[expect(clippy::cast_precision_loss, reason = "bytes of a few minutes")]
        let per_second = |which: usize| {
            let bytes = after[which] - before[which];
            bytes as f64 / seconds / self.cluster.lab.nodes().len() as f64
        };
        say(&format!(
            "    {round} changes and a death in {seconds:.0} s"
        ));
        Ok((per_second(0), self.serf.is_some().then(|| per_second(1))))
    }

    /// Counters of both in a node's namespace.
    fn count_from_now(&self, at: usize) -> Result<(), Failure> {
        let name = self.cluster.lab.name(at);
        let mut command = self.cluster.lab.command(name, "/usr/sbin/nft");
        command.args(["-f", "-"]).stdin(Stdio::piped());
        let mut child = command.spawn()?;
        let rules = rules();
        let given = child
            .stdin
            .take()
            .map(|mut input| input.write_all(rules.as_bytes()));
        given.ok_or("nft has no input")??;
        let status = child.wait()?;
        status
            .success()
            .then_some(())
            .ok_or_else(|| format!("nft ended with {status}").into())
    }

    /// Ours and Serf's, of all nodes so far.
    fn counted(&self) -> Result<[u64; 2], Failure> {
        let mut sums = [0; 2];
        for node in self.cluster.lab.nodes() {
            let mut command = self.cluster.lab.command(&node.name, "/usr/sbin/nft");
            command.args(["-j", "list", "counters"]);
            let said: serde_json::Value = serde_json::from_str(&finish(command)?)?;
            let all = said["nftables"].as_array().ok_or("nft lists nothing")?;
            for (which, name) in ["ours", "serf"].iter().enumerate() {
                let mut named = all.iter().map(|one| &one["counter"]);
                let found = named.find(|one| one["name"] == *name);
                let bytes = found.and_then(|one| one["bytes"].as_u64());
                sums[which] += bytes.ok_or("a counter is missing")?;
            }
        }
        Ok(sums)
    }
}

fn rules() -> String {
    let mut text = "table inet bench {\ncounter ours { }\ncounter serf { }\n".to_owned();
    for hook in ["input", "output"] {
        let _ = writeln!(text, "chain {hook} {{ type filter hook {hook} priority 0;");
        for (name, protocol, port) in [
            ("ours", "udp", AGENT_PORT),
            ("serf", "udp", PORT),
            ("serf", "tcp", PORT),
        ] {
            let _ = writeln!(
                text,
                "{protocol} dport {port} counter name {name} accept\n\
                 {protocol} sport {port} counter name {name} accept"
            );
        }
        text.push_str("}\n");
    }
    text.push_str("}\n");
    text
}

fn most(values: &[f64]) -> f64 {
    quantile(values, 1.0)
}

fn longest(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| most(values))
}
