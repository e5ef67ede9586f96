//! Reads the lines of a script.

use super::{
    Action, Change, Expectation, Expected, Invariant, Memory, Nodes, Script, ScriptNode,
    ScriptService, Step,
};
use kernel::{Bytes, Name, ZonePath, parse_duration};
use std::time::Duration;

/// A line, and why it cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, `{text}`: {why}")]
pub struct ScriptError {
    pub line: usize,
    pub text: String,
    pub why: String,
}

/// More are no script but a load.
const NODES_MAX: usize = 10_000;
const ZONES_MAX: u32 = 1_000;

pub fn script(name: &str, text: &str) -> Result<Script, ScriptError> {
    let mut script = Script {
        name: name.to_owned(),
        nodes: Vec::new(),
        services: Vec::new(),
        distances: Vec::new(),
        steps: Vec::new(),
        expectations: Vec::new(),
        always: Vec::new(),
        end: Duration::ZERO,
    };
    for (number, text) in (1..).zip(text.lines()) {
        let bare = text.split('#').next().unwrap_or_default();
        let words: Vec<&str> = bare.split_whitespace().collect();
        line(&mut script, &words).map_err(|why| ScriptError {
            line: number,
            text: text.to_owned(),
            why,
        })?;
    }
    script.steps.sort_by_key(|step| step.at);
    Ok(script)
}

fn line(script: &mut Script, words: &[&str]) -> Result<(), String> {
    match words {
        [] => {}
        ["nodes", count, "in", zones @ ..] if !zones.is_empty() => {
            let count: usize = number(count)?;
            if count + script.nodes.len() > NODES_MAX {
                return Err(format!("at most {NODES_MAX} nodes"));
            }
            let zones: Vec<ZonePath> = zones
                .iter()
                .map(|one| self::zones(one))
                .collect::<Result<Vec<_>, _>>()?
                .concat();
            for zone in zones.iter().cycle().take(count) {
                let name = format!("n{}", script.nodes.len() + 1);
                script.nodes.push(ScriptNode {
                    name: self::name(&name)?,
                    zone: zone.clone(),
                    memory: None,
                });
            }
        }
        ["memory", memory, which] => {
            let memory = bytes(memory)?;
            for at in nodes(script, which)? {
                script.nodes[at].memory = Some(memory);
            }
        }
        ["service", service, "replicas", count, more @ ..] => {
            let service = self::service(script, (service, count), more)?;
            script.services.push(service);
        }
        ["distance", one, other, span] => {
            let (one, other) = (zone(one)?, zone(other)?);
            script.distances.push((one, other, duration(span)?));
        }
        ["at", at, "within", within, what @ ..] => {
            let expectation = Expectation {
                at: duration(at)?,
                within: duration(within)?,
                what: expected(script, what)?,
            };
            script.expectations.push(expectation);
        }
        ["at", at, what @ ..] => {
            let at = duration(at)?;
            let action = action(script, what)?;
            script.steps.push(Step { at, action });
        }
        ["always", invariants @ ..] => {
            for invariant in invariants {
                let found = Invariant::ALL.iter().find(|(name, _)| name == invariant);
                let (_, found) = found.ok_or_else(|| format!("no invariant is `{invariant}`"))?;
                script.always.push(*found);
            }
        }
        ["end", at] => script.end = duration(at)?,
        _ => return Err("not a line of a script".to_owned()),
    }
    Ok(())
}

fn service(
    script: &Script,
    (called, count): (&str, &str),
    mut more: &[&str],
) -> Result<ScriptService, String> {
    let mut service = ScriptService::new(name(called)?, number(count)?);
    loop {
        more = match more {
            [] => break,
            ["actor", rest @ ..] => {
                service.is_actor = true;
                rest
            }
            ["singleton", rest @ ..] => {
                service.is_singleton = true;
                rest
            }
            ["in", project, rest @ ..] => {
                service.project = name(project)?;
                rest
            }
            ["on", node, rest @ ..] => {
                service.node = Some(one(script, node)?);
                rest
            }
            ["needs", memory, rest @ ..] => {
                service.memory = bytes(memory)?;
                rest
            }
            ["calls", other, rest @ ..] => {
                let other = name(other)?;
                known(script, &other)?;
                service.calls.insert(other);
                rest
            }
            _ => return Err(format!("`service` knows no {more:?}")),
        };
    }
    if script.services.iter().any(|one| one.name == service.name) {
        return Err(format!("there are two `{called}`"));
    }
    if service.is_actor && service.replicas != 1 {
        return Err("there is one of an actor".to_owned());
    }
    if service.is_singleton && (service.replicas != 1 || service.is_actor) {
        return Err("there is one of a singleton, and it is no actor".to_owned());
    }
    let others = script.services.iter();
    let elsewhere = others.filter(|one| one.project != service.project);
    if let Some(other) = elsewhere
        .into_iter()
        .find(|one| service.calls.contains(&one.name))
    {
        return Err(format!("`{}` is of another project", other.name));
    }
    if service.is_actor && !service.calls.is_empty() {
        return Err("an actor calls nobody".to_owned());
    }
    Ok(service)
}

fn known(script: &Script, service: &Name) -> Result<(), String> {
    let mut all = script.services.iter();
    let known = all.any(|one| one.name == *service);
    known
        .then_some(())
        .ok_or_else(|| format!("no service is `{service}`"))
}

fn bytes(word: &str) -> Result<Bytes, String> {
    word.parse()
        .map_err(|_| format!("`{word}` is no size, such as 512MiB"))
}

fn change(script: &Script, service: &str, how: &[&str]) -> Result<Action, String> {
    let service = name(service)?;
    known(script, &service)?;
    let change = match how {
        ["replicas", count] => Change::Replicas(number(count)?),
        ["anew"] => Change::Anew,
        _ => return Err(format!("`change` knows no {how:?}")),
    };
    Ok(Action::Change { service, change })
}

fn action(script: &Script, words: &[&str]) -> Result<Action, String> {
    let nodes = |word: &&str| nodes(script, word);
    Ok(match words {
        ["start", which, rest @ ..] => {
            let (mut over, mut memory, mut clock_off_s) = (Duration::ZERO, Memory::Kept, 0);
            for pair in rest.chunks(2) {
                match pair {
                    ["over", span] => over = duration(span)?,
                    ["without", "memory"] => memory = Memory::Lost,
                    ["with", "memory"] => memory = Memory::Kept,
                    ["ahead", span] => clock_off_s = seconds(span)?,
                    ["behind", span] => clock_off_s = -seconds(span)?,
                    _ => return Err(format!("`start` knows no {pair:?}")),
                }
            }
            Action::Start {
                nodes: nodes(which)?,
                over,
                memory,
                clock_off_s,
            }
        }
        ["poweroff", which] => Action::PowerOff(nodes(which)?),
        ["leave", which] => Action::Leave(nodes(which)?),
        ["crash", which] => Action::Crash(nodes(which)?),
        ["cut", from, "to", to] => cut(nodes(from)?, nodes(to)?, false),
        ["cut", from, "from", to] => cut(nodes(from)?, nodes(to)?, true),
        ["heal"] => Action::Heal,
        ["apply"] if script.services.is_empty() => {
            return Err("there is no service to apply; say which first".to_owned());
        }
        ["apply"] => Action::Apply,
        ["change", service, how @ ..] => change(script, service, how)?,
        ["kill", which] => Action::Kill(nodes(which)?),
        ["pause", which, "for", span] => Action::Pause {
            nodes: nodes(which)?,
            span: duration(span)?,
        },
        ["drain", which] => Action::Drain {
            node: one(script, which)?,
            draining: true,
        },
        ["undrain", which] => Action::Drain {
            node: one(script, which)?,
            draining: false,
        },
        ["slow", which, "by", span] => Action::Slow {
            nodes: nodes(which)?,
            by: duration(span)?,
        },
        ["loss", share] => Action::Loss(percent(share)?),
        ["clone", which] => Action::Clone(one(script, which)?),
        ["revoke", which] => Action::Revoke(one(script, which)?),
        _ => return Err(format!("nothing can be done by {words:?}")),
    })
}

/// Nobody is cut off from itself.
fn cut(from: Nodes, mut to: Nodes, both: bool) -> Action {
    to.retain(|node| !from.contains(node));
    Action::Cut { from, to, both }
}

fn expected(script: &Script, words: &[&str]) -> Result<Expected, String> {
    let nodes = |word: &&str| nodes(script, word);
    Ok(match words {
        ["alive", which] => Expected::Alive(nodes(which)?),
        ["dead", which] => Expected::Dead(nodes(which)?),
        ["left", which] => Expected::Left(nodes(which)?),
        ["revoked", which] => Expected::Revoked(one(script, which)?),
        ["apart", some, others] => {
            let (some, mut others) = (nodes(some)?, nodes(others)?);
            others.retain(|node| !some.contains(node));
            Expected::Apart(some, others)
        }
        ["agree"] => Expected::Agree,
        ["cloned", which] => Expected::Cloned(one(script, which)?),
        ["ready", service] => {
            let service = name(service)?;
            known(script, &service)?;
            Expected::Ready(service)
        }
        ["as-wished"] => Expected::AsWished,
        _ => return Err(format!("nothing can be expected by {words:?}")),
    })
}

/// `all`, a zone with what is below it, `n3`, or `n3..n5` with both ends.
fn nodes(script: &Script, word: &str) -> Result<Nodes, String> {
    let all = 0..script.nodes.len();
    if word == "all" {
        return Ok(all.collect());
    }
    if word.starts_with('/') {
        let zone = zone(word)?;
        let found: Nodes = all
            .filter(|at| zone.contains(&script.nodes[*at].zone))
            .collect();
        return if found.is_empty() {
            Err(format!("no node is in `{word}`"))
        } else {
            Ok(found)
        };
    }
    if let Some((first, last)) = word.split_once("..") {
        return Ok((one(script, first)?..=one(script, last)?).collect());
    }
    Ok(vec![one(script, word)?])
}

fn one(script: &Script, word: &str) -> Result<usize, String> {
    let mut nodes = script.nodes.iter();
    nodes
        .position(|node| node.name.as_str() == word)
        .ok_or_else(|| format!("no node is `{word}`; say how many there are first"))
}

/// One, or `/eu/1..8`.
fn zones(word: &str) -> Result<Vec<ZonePath>, String> {
    let range = word.rsplit_once('/').and_then(|(above, last)| {
        let (first, end) = last.split_once("..")?;
        Some((above, first, end))
    });
    let Some((above, first, end)) = range else {
        return Ok(vec![zone(word)?]);
    };
    let (first, end): (u32, u32) = (number(first)?, number(end)?);
    if first > end || end - first >= ZONES_MAX {
        return Err(format!("`{word}` is no range of at most {ZONES_MAX} zones"));
    }
    (first..=end)
        .map(|at| zone(&format!("{above}/{at}")))
        .collect()
}

fn number<N: std::str::FromStr>(word: &str) -> Result<N, String> {
    word.parse().map_err(|_| format!("`{word}` is not a count"))
}

fn name(word: &str) -> Result<Name, String> {
    Name::new(word).map_err(|why| why.to_string())
}

fn zone(word: &str) -> Result<ZonePath, String> {
    word.parse()
        .map_err(|why: kernel::ZonePathError| why.to_string())
}

fn duration(word: &str) -> Result<Duration, String> {
    parse_duration(word).map_err(|why| why.to_string())
}

fn seconds(word: &str) -> Result<i64, String> {
    let seconds = duration(word)?.as_secs();
    i64::try_from(seconds).map_err(|_| format!("`{word}` is too long"))
}

fn percent(word: &str) -> Result<f64, String> {
    let number = word.strip_suffix('%').and_then(|word| word.parse().ok());
    let share = number.map(|number: f64| number / 100.0);
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| format!("`{word}` is not a share, such as 5%"))
}
