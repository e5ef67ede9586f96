//! Writes a script as people would, so that what was made by chance can be kept.
//!
//! In: a [`Script`]. Out: lines. Holds: they are read as the same script.

use super::{Action, Change, Expectation, Expected, Memory, PROJECT, Script, ScriptService, Step};
use kernel::format_duration;
use std::fmt;

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for node in &self.nodes {
            writeln!(f, "nodes 1 in {}", node.zone)?;
        }
        for node in &self.nodes {
            if let Some(memory) = node.memory {
                writeln!(f, "memory {}MiB {}", memory.0 >> 20, node.name)?;
            }
        }
        for service in &self.services {
            self.write_line(service, f)?;
        }
        for (one, other, distance) in &self.distances {
            writeln!(f, "distance {one} {other} {}", format_duration(*distance))?;
        }
        for Step { at, action } in &self.steps {
            let at = format_duration(*at);
            for line in self.lines(action) {
                writeln!(f, "at {at} {line}")?;
            }
        }
        for Expectation { at, within, what } in &self.expectations {
            let (at, within) = (format_duration(*at), format_duration(*within));
            for line in self.expected(what) {
                writeln!(f, "at {at} within {within} {line}")?;
            }
        }
        for invariant in &self.always {
            writeln!(f, "always {}", invariant.name())?;
        }
        writeln!(f, "end {}", format_duration(self.end))
    }
}

impl Script {
    fn called(&self, node: usize) -> &str {
        self.nodes.get(node).map_or("?", |node| node.name.as_str())
    }

    /// A line for each: words name one, all, a zone or a range.
    fn each(&self, nodes: &[usize], line: impl Fn(&str) -> String) -> Vec<String> {
        if nodes.len() > 1 && nodes.len() == self.nodes.len() {
            return vec![line("all")];
        }
        nodes.iter().map(|node| line(self.called(*node))).collect()
    }

    fn write_line(&self, service: &ScriptService, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service {} replicas {}", service.name, service.replicas)?;
        if service.project.as_str() != PROJECT {
            write!(f, " in {}", service.project)?;
        }
        if service.is_actor {
            write!(f, " actor")?;
        }
        if service.is_singleton {
            write!(f, " singleton")?;
        }
        if let Some(node) = service.node {
            write!(f, " on {}", self.called(node))?;
        }
        write!(f, " needs {}MiB", service.memory.0 >> 20)?;
        for called in &service.calls {
            write!(f, " calls {called}")?;
        }
        writeln!(f)
    }

    fn lines(&self, action: &Action) -> Vec<String> {
        let one = |word: &str, node: usize| vec![format!("{word} {}", self.called(node))];
        let each = |word: &str, nodes: &[usize]| self.each(nodes, |it| format!("{word} {it}"));
        match action {
            Action::Start {
                nodes,
                over,
                memory,
                clock_off_s,
            } => {
                let after = if over.is_zero() {
                    String::new()
                } else {
                    format!(" over {}", format_duration(*over))
                };
                let memory = match memory {
                    Memory::Lost => " without memory",
                    Memory::Kept => "",
                };
                let clock = match clock_off_s {
                    0 => String::new(),
                    1.. => format!(" ahead {clock_off_s}s"),
                    _ => format!(" behind {}s", clock_off_s.unsigned_abs()),
                };
                self.each(nodes, |it| format!("start {it}{after}{memory}{clock}"))
            }
            Action::PowerOff(nodes) => each("poweroff", nodes),
            Action::Leave(nodes) => each("leave", nodes),
            Action::Crash(nodes) => each("crash", nodes),
            Action::Kill(nodes) => each("kill", nodes),
            Action::Cut { from, to, both } => {
                let word = if *both { "from" } else { "to" };
                let pairs = from.iter().flat_map(|one| {
                    let others = to.iter().filter(move |other| *other != one);
                    others.map(move |other| (*one, *other))
                });
                pairs
                    .map(|(one, other)| {
                        format!("cut {} {word} {}", self.called(one), self.called(other))
                    })
                    .collect()
            }
            Action::Pause { nodes, span } => {
                let span = format_duration(*span);
                self.each(nodes, |it| format!("pause {it} for {span}"))
            }
            Action::Heal => vec!["heal".to_owned()],
            Action::Slow { nodes, by } => {
                let by = format_duration(*by);
                self.each(nodes, |it| format!("slow {it} by {by}"))
            }
            Action::Loss(share) => vec![format!("loss {}%", share * 100.0)],
            Action::Clone(node) => one("clone", *node),
            Action::Revoke(node) => one("revoke", *node),
            Action::Drain { node, draining } => {
                one(if *draining { "drain" } else { "undrain" }, *node)
            }
            Action::Apply => vec!["apply".to_owned()],
            Action::Change { service, change } => vec![match change {
                Change::Replicas(count) => format!("change {service} replicas {count}"),
                Change::Anew => format!("change {service} anew"),
            }],
        }
    }

    fn expected(&self, what: &Expected) -> Vec<String> {
        let each = |word: &str, nodes: &[usize]| self.each(nodes, |it| format!("{word} {it}"));
        match what {
            Expected::Alive(nodes) => each("alive", nodes),
            Expected::Dead(nodes) => each("dead", nodes),
            Expected::Left(nodes) => each("left", nodes),
            Expected::Apart(some, others) => {
                let pairs = some.iter().flat_map(|one| {
                    let pair = move |other: &usize| {
                        format!("apart {} {}", self.called(*one), self.called(*other))
                    };
                    others.iter().map(pair)
                });
                pairs.collect()
            }
            Expected::Revoked(node) => vec![format!("revoked {}", self.called(*node))],
            Expected::Cloned(node) => vec![format!("cloned {}", self.called(*node))],
            Expected::Agree => vec!["agree".to_owned()],
            Expected::Ready(service) => vec![format!("ready {service}")],
            Expected::AsWished => vec!["as-wished".to_owned()],
        }
    }
}
