//! More machines: they join with a line, serve what the first one does, and one
//! of them loses its power while readers read.

use crate::Told;
use crate::stage::{Stage, expect};
use black_box::{Load, TestNode, kill, until};
use serde_json::Value;
use std::time::Instant;

pub struct Neighbours {
    pub second: TestNode,
    pub third: TestNode,
}

/// A machine joins with one line; when that was pasted.
pub fn join(stage: &Stage, node: &TestNode, zone: &str) -> Told<Instant> {
    let words = ["token", "create", "--ttl", "5m", "--owner", "admin"];
    let line = stage.ok(&[&words[..], &["--zone", zone]].concat())?;
    let began = Instant::now();
    let output = node.run(&["up", "--join", line.trim()]);
    expect(output.status.success(), || black_box::says(&output))?;
    Ok(began)
}

impl Neighbours {
    pub fn new() -> Self {
        Self {
            second: TestNode::new().named("two"),
            third: TestNode::new().named("three"),
        }
    }

    /// Each pastes its line, and serves the site and what runs on the first.
    pub fn join(&self, stage: &Stage) -> Told<String> {
        let page = stage.get("/published.html")?;
        let mut longest = 0.0_f64;
        for (node, zone) in [(&self.second, "/eu/2"), (&self.third, "/us/1")] {
            let began = join(stage, node, zone)?;
            let served = until("the page on the new node", || {
                let answer = node.get("/published.html").ok()?;
                (answer.status == 200).then_some(answer)
            });
            longest = longest.max(began.elapsed().as_secs_f64());
            expect(served.body == page.body, || "another page".to_owned())?;
            until("the search from the new node", || {
                let answer = node.get("/search?q=market&format=json").ok()?;
                (answer.status == 200).then_some(())
            });
        }
        until("all alive to all", || {
            let nodes = [&stage.node, &self.second, &self.third];
            let seen = nodes.map(|node| states(node).filter(|state| state == "alive").count());
            (seen == [3, 3, 3]).then_some(())
        });
        Ok(format!("member and serving {longest:.2} s after the line"))
    }

    /// A person is told when one is missing, and zones change their names, while
    /// others read.
    pub fn zones_move(&self, stage: &Stage) -> Told<String> {
        let told = self.told();
        let script = format!("cat >> {0}; echo >> {0}", told.display());
        let when = "SELECT COUNT(*) < 3, COUNT(*) AS nodes";
        let words = [
            "alerts", "add", "few", "--when", when, "--for", "1s", "--every", "1s",
        ];
        let words = words
            .into_iter()
            .chain(["--command", "/bin/sh", "-c", &script]);
        stage.ok(&words.collect::<Vec<_>>())?;
        let reader = Load::of(self.second.http, "/published.html");
        let began = Instant::now();
        stage.ok(&["zones", "mv", "/eu/2", "/eu/vienna"])?;
        for node in [&stage.node, &self.second, &self.third] {
            until("its new name", || {
                let words = ["ask", "SELECT COUNT(*)", "--zone", "/eu", "--rows", "1"];
                let output = node.run(&[&words[..], &["-o", "json"]].concat());
                let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
                (answer["rows"][0]["zone"] == "/eu/vienna").then_some(())
            });
        }
        let took = began.elapsed();
        let all = ask(&stage.node, "SELECT COUNT(*)")?;
        expect(all["reporting"] == 3 && all["expected"] == 3, || {
            all.to_string()
        })?;
        let outcome = reader.stop();
        expect(outcome.bad.is_empty(), || {
            format!("a reader there saw {:?}", outcome.bad)
        })?;
        Ok(format!(
            "known to all nodes after {:.2} s, {} requests meanwhile answered",
            took.as_secs_f64(),
            outcome.good
        ))
    }

    /// What the alert's command wrote down.
    fn told(&self) -> std::path::PathBuf {
        self.second.scratch().join("told")
    }

    /// Any node knows where it is busiest; one that is cut off is unknown, and
    /// no silent zero, until it is back.
    pub fn questions(&self, stage: &Stage) -> Told<String> {
        let crowd = Load::of(self.third.http, "/published.html");
        // What came before it elsewhere is forgotten within seconds.
        let began = Instant::now();
        until("the zone with the crowd is the busiest", || {
            let zones = zones(&stage.node)?;
            let leaves = zones.iter().filter(|zone| zone["issuer"].is_string());
            let rate = |zone: &Value| zone["attributes"]["requests_per_s"].as_f64();
            let rated = leaves.filter_map(|zone| Some((rate(zone)?, zone["zone"].as_str()?)));
            let rated: Vec<_> = rated.collect();
            let busiest = rated
                .iter()
                .max_by(|one, other| one.0.total_cmp(&other.0))?;
            // A zone that is new counts from its first row on.
            (rated.len() == 3 && busiest.1 == "/us").then_some(())
        });
        let found = began.elapsed().as_secs_f64();
        let outcome = crowd.stop();
        expect(outcome.bad.is_empty(), || {
            format!("the crowd saw {:?}", outcome.bad)
        })?;
        let asked = Instant::now();
        let answer = ask(
            &stage.node,
            "SELECT COUNT(*) AS nodes, SUM(requests_per_s) AS rate",
        )?;
        let took = asked.elapsed();
        expect(answer["reporting"] == 3 && answer["expected"] == 3, || {
            answer.to_string()
        })?;

        // Its agent is gone: who reads there does not notice.
        let reader = Load::of(self.third.http, "/published.html");
        let (supervisor, agent, _) = self.third.pids();
        for pid in [supervisor, agent] {
            kill(pid);
        }
        let cut = Instant::now();
        until("unknown since", || {
            let zones = zones(&stage.node)?;
            let mut zones = zones.iter().filter(|zone| zone["zone"] == "/us");
            zones.next()?["unknown_since_ms"].as_u64()
        });
        let unknown = cut.elapsed().as_secs_f64();
        let answer = ask(&stage.node, "SELECT COUNT(*) AS nodes")?;
        expect(answer["reporting"] == 2 && answer["expected"] == 3, || {
            answer.to_string()
        })?;
        expect(answer["silent"][0]["zone"] == "/us", || answer.to_string())?;
        let output = self.third.run(&["up"]);
        expect(output.status.success(), || black_box::says(&output))?;
        let back = Instant::now();
        until("known again", || {
            let answer = ask(&stage.node, "SELECT COUNT(*) AS nodes").ok()?;
            (answer["reporting"] == 3).then_some(())
        });
        let outcome = reader.stop();
        expect(outcome.bad.is_empty(), || {
            format!("a reader there saw {:?}", outcome.bad)
        })?;
        Ok(format!(
            "the busiest zone known after {found:.1} s; all three answered in {:.0} ms; unknown {unknown:.1} s after it was silent, back after {:.1} s",
            took.as_secs_f64() * 1e3,
            back.elapsed().as_secs_f64(),
        ))
    }

    /// Whoever reads at the other nodes does not notice.
    pub fn power_cut(&self, stage: &Stage) -> Told<String> {
        let three = stage.manifest.replace("replicas = 2", "replicas = 3");
        stage.write_manifest(&three.replace("VERSION = \"1\"", "VERSION = \"2\""))?;
        stage.ok(&["apply", stage.news()])?;
        let replicas = stage.ok(&["get", "replicas"])?;
        expect(replicas.contains("on two"), || {
            format!("not dealt out: {replicas}")
        })?;
        let readers = [stage.node.http, self.third.http].map(|address| {
            [
                Load::of(address, "/search?q=market"),
                Load::of(address, "/published.html"),
            ]
        });
        let (supervisor, agent, edge) = self.second.pids();
        let cut = Instant::now();
        for pid in [supervisor, agent, edge] {
            kill(pid);
        }
        until("it is dead to both", || {
            let nodes = [&stage.node, &self.third];
            let dead = nodes.map(|node| states(node).any(|state| state == "dead"));
            (dead == [true, true]).then_some(())
        });
        let took = cut.elapsed().as_secs_f64();
        until("a person is told of it", || {
            let told = std::fs::read_to_string(self.told()).ok()?;
            told.contains("\"state\":\"firing\"").then_some(())
        });
        let told = cut.elapsed().as_secs_f64();
        let mut good = 0;
        for reader in readers.into_iter().flatten() {
            let outcome = reader.stop();
            expect(outcome.bad.is_empty(), || {
                format!("readers saw {:?}", outcome.bad)
            })?;
            good += outcome.good;
        }
        Ok(format!(
            "dead to the others after {took:.1} s, a person told after {told:.1} s; {good} of {good} requests answered"
        ))
    }
}

impl Neighbours {
    /// The one that the cluster began with, and that leads it: another leads then,
    /// what ran there runs elsewhere, and whoever reads does not notice.
    pub fn leader_cut(&self, stage: &Stage) -> Told<String> {
        let output = self.second.run(&["up"]);
        expect(output.status.success(), || black_box::says(&output))?;
        until("all three keep the cluster's state", || {
            let output = stage.node.run(&["store", "status", "-o", "json"]);
            let status: Value = serde_json::from_slice(&output.stdout).ok()?;
            let groups = status["groups"].as_array()?;
            let whole = |group: &Value| {
                let behind = group["behind"].as_object().into_iter().flatten();
                group["voters"].as_array().map(Vec::len) == Some(3)
                    && behind.filter(|(_, entries)| **entries != 0).count() == 0
            };
            groups.iter().all(whole).then_some(())
        });
        // What ran on the second has its new place too: one machine is lost at a time.
        until_searched(&stage.node);
        let readers = [&self.second, &self.third].map(|node| {
            [
                Load::of(node.http, "/search?q=market"),
                Load::of(node.http, "/published.html"),
            ]
        });
        let without = stage.ok(&["plan", "--without", "one"])?;
        let why_not = stage.ok(&["why-not", "search", "two"])?;
        expect(why_not.contains("two"), || {
            format!("it is not told why: {why_not}")
        })?;
        let cut = Instant::now();
        stage.node.power_off();
        let three = stage.manifest.replace("replicas = 2", "replicas = 3");
        let three = three.replace("VERSION = \"1\"", "VERSION = \"3\"");
        stage.write_manifest(&three)?;
        let mut asked = 0;
        until("a change without the first", || {
            asked += 1;
            let output = self.third.run(&["apply", stage.news()]);
            output.status.success().then_some(())
        });
        let changed = cut.elapsed().as_secs_f64();
        until_searched(&self.third);
        let whole = cut.elapsed().as_secs_f64();
        let mut good = 0;
        for reader in readers.into_iter().flatten() {
            let outcome = reader.stop();
            expect(outcome.bad.is_empty(), || {
                format!("readers saw {:?}", outcome.bad)
            })?;
            good += outcome.good;
        }
        let output = stage.node.run(&["up"]);
        expect(output.status.success(), || black_box::says(&output))?;
        until("the first is back", || {
            let nodes = [&self.second, &self.third];
            let alive = nodes.map(|node| states(node).filter(|it| it == "alive").count());
            (alive == [3, 3]).then_some(())
        });
        Ok(format!(
            "changed by another one after {changed:.1} s ({asked} asked), all replicas of search ready again after {whole:.1} s; {good} of {good} requests answered; told before: {} moves",
            without
                .lines()
                .filter(|line| line.contains("service/"))
                .count()
        ))
    }
}

/// All replicas of search are ready, as a node sees it.
fn until_searched(by: &TestNode) {
    until("all replicas of search", || {
        let output = by.run(&["get", "replicas", "-o", "json"]);
        let found: Vec<Value> = serde_json::from_slice(&output.stdout).ok()?;
        let ready = found.iter().filter(|one| one["state"] == "ready");
        let its = ready.filter(|one| one["desired"]["service"] == "search");
        (its.count() == 3).then_some(())
    });
}

fn zones(node: &TestNode) -> Option<Vec<Value>> {
    let output = node.run(&["zones", "-o", "json"]);
    let found: Value = serde_json::from_slice(&output.stdout).ok()?;
    found["zones"].as_array().cloned()
}

fn ask(node: &TestNode, question: &str) -> Told<Value> {
    let output = node.run(&["ask", question, "-o", "json"]);
    serde_json::from_slice(&output.stdout).map_err(|_| black_box::says(&output))
}

pub fn states(node: &TestNode) -> impl Iterator<Item = String> + use<> {
    let output = node.run(&["node", "ls", "-o", "json"]);
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let states = found.into_iter();
    states.filter_map(|node| Some(node["state"].as_str()?.to_owned()))
}
