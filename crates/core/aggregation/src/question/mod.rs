//! Asks all nodes of a zone at once: what a program comes to now, how many of
//! how many answered, and the rows behind it.
//!
//! In: a question, this node's [`Tree`], answers from other nodes. Out: calls to
//! representatives of zones further down, and the answer.
//! Holds: each node counts once, or the answer says that nodes are being moved;
//! a zone that does not answer is named with its age and what it expects, and is
//! in no number; of a zone's contacts one is asked after the other, the next
//! before the last has failed; an answer comes within its time, whole or with
//! what is missing said.
//! Never: reads a clock, does I/O, believes more of an answer than it may be.
//!
//! How an agent drives it: [`Asking::begin`] where the question comes in; each
//! [`Effect::Call`] is the same question to another node, which begins an
//! [`Asking`] of its own; [`Event::Tick`] when [`Asking::next_wake`] says so;
//! until [`Effect::Done`].

mod plan;

use crate::program::{Children, Context, Limits, Outcome, Program, ProgramError};
use kernel::{Name, NodeId, Time, ZonePath};
use plan::Plan;
use std::collections::BTreeMap;
use std::time::Duration;
use wire::attributes::Row;
use wire::tree::question::{
    Answer, HOPS_MAX, NodeRow, Question, ROWS_BYTES_MAX, ROWS_MAX, Reply, Rows, SILENT_MAX,
    Silence, Silences,
};
use wire::tree::{Contact, Coverage};

use crate::tree::Tree;

/// What a program is called that nobody has named.
pub const NAME: &str = "ask";
/// A contact that has not answered for so long is asked no more alone.
const NEXT_AFTER: Duration = Duration::from_millis(300);
/// Of the time that is left, what the nodes further down may take: who asked
/// wants an answer, also one with something missing.
const SHARE: f64 = 0.85;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u32);

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Replied {
        call: CallId,
        reply: Box<Reply>,
    },
    /// The node is not reached, or answers nothing that can be read.
    Failed {
        call: CallId,
    },
    Tick,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Call {
        call: CallId,
        to: Contact,
        question: Question,
    },
    /// The last one.
    Done(Box<Done>),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    Answered {
        outcome: Outcome,
        answer: Box<Answer>,
    },
    NoZone(ZonePath),
    /// In words.
    Refused(String),
}

impl Done {
    /// For whoever asked over the network.
    pub fn reply(self) -> Reply {
        match self {
            Self::Answered { answer, .. } => Reply::Answer(*answer),
            Self::NoZone(zone) => Reply::NoZone(zone),
            Self::Refused(why) => Reply::Refused(why),
        }
    }
}

/// One question under way here.
pub struct Asking {
    question: Question,
    program: Program,
    children: Children,
    coverage: Coverage,
    silent: Silences,
    rows: Rows,
    rows_bytes: usize,
    parts: Vec<Part>,
    calls: BTreeMap<CallId, usize>,
    next_call: u32,
    layout: u64,
    moving: bool,
    ends: Time,
    over: bool,
}

/// A zone that others answer for.
#[derive(Clone, Debug)]
struct Part {
    zone: ZonePath,
    /// Not asked yet, best last.
    contacts: Vec<Contact>,
    under_way: usize,
    next_at: Time,
    /// What is said of it if nobody answers.
    silence: Silence,
    over: bool,
}

impl Asking {
    /// # Errors
    /// The text is no program.
    pub fn begin(
        question: Question,
        tree: &Tree,
        limits: Limits,
        now: Time,
    ) -> Result<(Self, Vec<Effect>), ProgramError> {
        let name = NAME.parse().expect("a name");
        let program = Program::compile(&name, &question.text, limits)?;
        let within = Duration::from_millis(question.within_ms);
        let mut asking = Self {
            children: Children::of([&program]),
            ends: now + within.mul_f64(SHARE),
            program,
            coverage: Coverage::default(),
            silent: Silences::default(),
            rows: Rows::default(),
            rows_bytes: 0,
            parts: Vec::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            layout: tree.layout(),
            moving: false,
            over: false,
            question,
        };
        let mut effects = Vec::new();
        if let Some(plan) = plan::of(tree, &asking.question, now) {
            asking.take(plan, now);
        } else {
            let zone = asking.question.zone.clone();
            asking.finish(Done::NoZone(zone), &mut effects);
        }
        asking.go_on(now, &mut effects);
        Ok((asking, effects))
    }

    #[must_use = "effects must be carried out"]
    pub fn handle(&mut self, event: Event, now: Time) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Replied { call, reply } => self.on_reply(call, *reply, &mut effects),
            Event::Failed { call } => drop(self.end_call(call)),
            Event::Tick => {}
        }
        self.go_on(now, &mut effects);
        effects
    }

    /// When to be called next, if nothing comes; `None` once it is done.
    pub fn next_wake(&self) -> Option<Time> {
        if self.over {
            return None;
        }
        let open = self.parts.iter().filter(|part| !part.over);
        let next = open.filter(|part| !part.contacts.is_empty());
        let next = next.map(|part| part.next_at).min();
        Some(next.map_or(self.ends, |at| at.min(self.ends)))
    }

    pub fn program(&self) -> &Program {
        &self.program
    }

    fn context(&self) -> Context {
        Context {
            zone: self.question.zone.clone(),
            version: 0,
            issued_at: self.question.asked_at,
            now: self.question.asked_at,
        }
    }

    fn take(&mut self, plan: Plan, now: Time) {
        self.coverage = plan.coverage;
        for (node, row) in &plan.nodes {
            self.children.put_node(*node, row);
        }
        if self.question.rows > 0 {
            self.show(&plan);
        }
        for silence in plan.silent {
            self.silence(silence);
        }
        self.parts = plan.parts;
        for part in &mut self.parts {
            part.next_at = now;
        }
    }

    /// The rows of this node's own zone that `WHERE` lets through.
    fn show(&mut self, plan: &Plan) {
        let behind = self.program.rows_behind(&self.children, &self.context());
        // What cannot be evaluated is said at the end.
        for node in behind.unwrap_or_default() {
            let Some(row) = plan.nodes.get(&node) else {
                continue;
            };
            let mut read = Row::default();
            for column in self.program.columns() {
                if let Some(value) = row.get(column.as_str()) {
                    read.0.insert(column.clone(), value.clone());
                }
            }
            self.add_row(NodeRow {
                node,
                zone: plan.leaf.clone(),
                attributes: read,
            });
        }
    }

    fn add_row(&mut self, row: NodeRow) {
        let bytes = row.attributes.encode().map_or(0, |bytes| bytes.len()) + 64;
        let most = (self.question.rows as usize).min(ROWS_MAX);
        if self.rows.shown.len() >= most || self.rows_bytes + bytes > ROWS_BYTES_MAX {
            self.rows.more = self.rows.more.saturating_add(1);
            return;
        }
        self.rows_bytes += bytes;
        self.rows.shown.push(row);
    }

    fn silence(&mut self, silence: Silence) {
        if self.silent.shown.len() < SILENT_MAX {
            self.silent.shown.push(silence);
        } else {
            self.silent.more = self.silent.more.saturating_add(1);
        }
    }

    fn end_call(&mut self, call: CallId) -> Option<usize> {
        let at = self.calls.remove(&call)?;
        let part = self.parts.get_mut(at)?;
        part.under_way = part.under_way.saturating_sub(1);
        Some(at)
    }

    fn on_reply(&mut self, call: CallId, reply: Reply, effects: &mut Vec<Effect>) {
        let Some(at) = self.end_call(call) else {
            return;
        };
        if self.parts[at].over {
            return;
        }
        let is_whole = self.parts[at].zone == self.question.zone;
        match reply {
            Reply::Answer(answer) => {
                self.parts[at].over = true;
                self.merge(at, answer);
            }
            // Another contact may know more, unless this one is in the zone.
            Reply::NoZone(zone) if is_whole => self.finish(Done::NoZone(zone), effects),
            Reply::Refused(why) if is_whole => self.finish(Done::Refused(why), effects),
            Reply::NoZone(_) | Reply::Refused(_) => {}
        }
    }

    fn merge(&mut self, at: usize, answer: Answer) {
        let mut row = Row::default();
        let partial = wire::attributes::Value::Partial(Box::new(answer.partial));
        row.0.insert(self.program.parts().clone(), partial);
        // Zones of several levels may end alike: their places here differ.
        if let Ok(name) = Name::new(format!("part{at}")) {
            self.children.put_zone(name, &row);
        }
        self.moving |= answer.moving || answer.layout != self.layout;
        let coverage = answer.coverage;
        let sum = &mut self.coverage;
        sum.expected = sum.expected.saturating_add(coverage.expected);
        sum.reporting = sum.reporting.saturating_add(coverage.reporting);
        sum.oldest_ms = sum.oldest_ms.max(coverage.oldest_ms);
        self.silent.more = self.silent.more.saturating_add(answer.silent.more);
        for silence in answer.silent.shown {
            self.silence(silence);
        }
        self.rows.more = self.rows.more.saturating_add(answer.rows.more);
        for row in answer.rows.shown {
            self.add_row(row);
        }
    }

    /// Asks whom it is time to ask; ends what is at its end.
    fn go_on(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if self.over {
            return;
        }
        let late = now >= self.ends;
        for at in 0..self.parts.len() {
            let part = &mut self.parts[at];
            if part.over {
                continue;
            }
            if late || (part.contacts.is_empty() && part.under_way == 0) {
                part.over = true;
                let silence = part.silence.clone();
                self.coverage.expected = self.coverage.expected.saturating_add(silence.nodes);
                self.silence(silence);
                continue;
            }
            if part.under_way > 0 && now < part.next_at {
                continue;
            }
            if let Some(to) = part.contacts.pop() {
                part.under_way += 1;
                part.next_at = now + NEXT_AFTER;
                let zone = part.zone.clone();
                effects.push(self.call(at, to, zone, now));
            }
        }
        if self.parts.iter().all(|part| part.over) {
            self.evaluate(effects);
        }
    }

    fn call(&mut self, at: usize, to: Contact, zone: ZonePath, now: Time) -> Effect {
        let call = CallId(self.next_call);
        self.next_call = self.next_call.wrapping_add(1);
        self.calls.insert(call, at);
        let left = self.ends.since(now).as_millis();
        let question = Question {
            zone,
            within_ms: u64::try_from(left).unwrap_or(u64::MAX),
            hops: self.question.hops + 1,
            ..self.question.clone()
        };
        Effect::Call { call, to, question }
    }

    fn evaluate(&mut self, effects: &mut Vec<Effect>) {
        let done = match self.program.evaluate(&self.children, &self.context()) {
            Ok(outcome) => Done::Answered {
                answer: Box::new(Answer {
                    partial: outcome.partial.clone(),
                    coverage: self.coverage,
                    silent: std::mem::take(&mut self.silent),
                    rows: std::mem::take(&mut self.rows),
                    layout: self.layout,
                    moving: self.moving,
                }),
                outcome,
            },
            Err(error) => Done::Refused(error.to_string()),
        };
        self.finish(done, effects);
    }

    fn finish(&mut self, done: Done, effects: &mut Vec<Effect>) {
        self.over = true;
        effects.push(Effect::Done(Box::new(done)));
    }
}

/// Whether a question may go on from here.
fn may_go_on(question: &Question) -> bool {
    question.hops < HOPS_MAX
}
