//! The programs that run at this node, as [`crate::tree`] asks for them.
//!
//! In: what the tree says is to run. Out: zones' attributes, and which programs
//! gave none, and why.
//! Holds: programs do not see one another: one that fails, or finds no room, is
//! named and its attributes are absent; the larger priority goes first, then
//! the name, so that everybody leaves out the same.
//! Never: keeps anything between evaluations.

use crate::program::{Children, Context, Limits, Program, differs};
use crate::tree::{Applied, Evaluated, Failed, Input, Programs, Source, Standing};
use kernel::{Name, NodeId, UnixMillis, ZonePath};
use std::collections::BTreeMap;
use wire::attributes::{AttributeName, Row};
use wire::tree::NoticeKey;

/// Made anew when [`crate::tree::Effect::Programs`] says so.
#[derive(Clone, Debug, Default)]
pub struct Installed {
    running: Vec<Running>,
}

#[derive(Clone, Debug)]
struct Running {
    key: NoticeKey,
    name: AttributeName,
    /// Where it was installed: it runs there and below.
    zone: ZonePath,
    /// Where it runs while it is tried.
    within: ZonePath,
    /// Else it is tried beside an earlier version, and what it gives is not
    /// used.
    is_used: bool,
    version: u64,
    issued_at: UnixMillis,
    threshold: u16,
    priority: u8,
    compiled: Result<Program, String>,
}

impl Installed {
    pub fn of<'a>(applied: impl IntoIterator<Item = &'a Applied>) -> Self {
        let running = applied.into_iter().filter_map(Running::of);
        let mut running: Vec<Running> = running.collect();
        running.sort_by(|one, other| {
            let rank = |one: &Running| (u8::MAX - one.priority, one.zone.depth(), !one.is_used);
            let names = (&one.name, one.version).cmp(&(&other.name, other.version));
            rank(one).cmp(&rank(other)).then(names)
        });
        Self { running }
    }

    /// The nodes whose rows a number of a leaf zone was made of; none when no
    /// such program runs there.
    pub fn rows_behind(
        &self,
        zone: &ZonePath,
        name: &str,
        now: UnixMillis,
        inputs: &[Input],
    ) -> Option<Vec<NodeId>> {
        let mut those = self.at(zone);
        let one = those.find(|one| one.is_used && one.name.as_str() == name)?;
        let program = one.compiled.as_ref().ok()?;
        let children = children(&[program], inputs);
        program.rows_behind(&children, &one.context(now)).ok()
    }

    fn at(&self, zone: &ZonePath) -> impl Iterator<Item = &Running> {
        let running = self.running.iter();
        running.filter(move |one| one.within.contains(zone))
    }

    fn thresholds(&self, zone: &ZonePath) -> BTreeMap<&str, u16> {
        let mut found = BTreeMap::new();
        for one in self.at(zone).filter(|one| one.is_used) {
            let Ok(program) = &one.compiled else {
                continue;
            };
            for name in program.names().chain([program.parts()]) {
                found.entry(name.as_str()).or_insert(one.threshold);
            }
        }
        found
    }
}

impl Running {
    fn of(applied: &Applied) -> Option<Self> {
        let notice = &applied.notice.notice;
        let wire::tree::Says::Run(run) = &notice.says else {
            return None;
        };
        let (within, is_used) = match &applied.standing {
            Standing::Runs => (&notice.zone, true),
            Standing::Canary { alone } => (&run.canary, *alone),
            _ => return None,
        };
        let compiled = Program::compile(&notice.program, &run.text, Limits::default());
        Some(Self {
            key: applied.notice.key,
            name: notice.program.clone(),
            zone: notice.zone.clone(),
            within: within.clone(),
            is_used,
            version: notice.version,
            issued_at: run.issued_at,
            threshold: run.threshold,
            priority: run.priority,
            compiled: compiled.map_err(|why| why.to_string()),
        })
    }

    fn context(&self, now: UnixMillis) -> Context {
        Context {
            zone: self.zone.clone(),
            version: self.version,
            issued_at: self.issued_at,
            now,
        }
    }

    /// Its attributes into the row, or why not; the row is as before then.
    fn run(&self, children: &Children, now: UnixMillis, row: &mut Row) -> Result<(), String> {
        let program = self.compiled.as_ref().map_err(Clone::clone)?;
        let outcome = program.evaluate(children, &self.context(now));
        let outcome = outcome.map_err(|why| why.to_string())?;
        let mut names = program.names().chain([program.parts()]);
        let taken = names.find(|name| row.get(name.as_str()).is_some());
        if let Some(taken) = taken.filter(|_| self.is_used) {
            return Err(format!("another program gives `{taken}` already"));
        }
        let mut with = if self.is_used {
            row.clone()
        } else {
            Row::default()
        };
        program.write(outcome, &mut with);
        with.encode().map_err(|why| why.to_string())?;
        if self.is_used {
            *row = with;
        }
        Ok(())
    }
}

impl Programs for Installed {
    fn fingerprint(&self, zone: &ZonePath) -> u64 {
        let used = self.at(zone).filter(|one| one.is_used);
        used.fold(0, |sum, one| sum.rotate_left(7) ^ one.key.0)
    }

    fn evaluate(&self, zone: &ZonePath, now: UnixMillis, inputs: &[Input]) -> Evaluated {
        let compiled = self.at(zone).filter_map(|one| one.compiled.as_ref().ok());
        let children = children(&compiled.collect::<Vec<_>>(), inputs);
        let mut row = Row::default();
        let mut failed = Vec::new();
        for one in self.at(zone) {
            if let Err(why) = one.run(&children, now, &mut row) {
                failed.push(Failed {
                    key: one.key,
                    program: one.name.clone(),
                    version: one.version,
                    why,
                });
            }
        }
        // Each program's row was encoded before it was kept.
        let attributes = row.encode().unwrap_or_default();
        Evaluated { attributes, failed }
    }

    fn differs(&self, zone: &ZonePath, old: &[u8], new: &[u8]) -> bool {
        let (Ok(old), Ok(new)) = (Row::decode(old), Row::decode(new)) else {
            return old != new;
        };
        let thresholds = self.thresholds(zone);
        let names = old.0.keys().chain(new.0.keys());
        names.map(AttributeName::as_str).any(|name| {
            let most = thresholds.get(name).copied().unwrap_or(0);
            differs(old.get(name), new.get(name), most)
        })
    }
}

fn children(programs: &[&Program], inputs: &[Input]) -> Children {
    let mut children = Children::of(programs.iter().copied());
    for input in inputs {
        // What cannot be read has nothing to say, and is counted among those.
        let row = Row::decode(input.attributes).unwrap_or_default();
        match input.of {
            Source::Node(node) => children.put_node(node, &row),
            Source::Zone(zone) => {
                let text = zone.to_string();
                let last = text.rsplit('/').next().unwrap_or_default();
                if let Ok(name) = Name::new(last) {
                    children.put_zone(name, &row);
                }
            }
        }
    }
    children
}
