//! A question to a world as it stands: each node that is asked runs the core
//! that agents run, and words take their ways.
//!
//! Holds: nodes that are dead, or on another side of a cut, never answer.

use super::shape::at;
use super::world::TreeWorld;
use crate::queue::Queue;
use aggregation::program::Limits;
use aggregation::question::{Asking, CallId, Done, Effect, Event};
use kernel::Time;
use std::time::Duration;
use wire::tree::question::{Question, Reply};

/// One node's part of it.
struct Part {
    node: usize,
    asking: Option<Asking>,
    /// Who waits for it, and for what.
    asked_by: Option<(usize, CallId)>,
}

enum What {
    Begin(Box<Question>),
    Event(Event),
    Tick,
}

struct Asked<'a> {
    world: &'a mut TreeWorld,
    parts: Vec<Part>,
    queue: Queue<(usize, What)>,
    now: Time,
}

/// What came of it, and after how long. The world stands still meanwhile.
///
/// # Errors
/// The text is no program, or nothing came.
pub fn ask(
    world: &mut TreeWorld,
    node: usize,
    question: &Question,
) -> Result<(Done, Duration), String> {
    let began = world.now;
    let mut asked = Asked {
        now: began,
        world,
        parts: Vec::new(),
        queue: Queue::default(),
    };
    asked.parts.push(Part {
        node,
        asking: None,
        asked_by: None,
    });
    let first = What::Begin(Box::new(question.clone()));
    asked.queue.put(began, (0, first));
    while let Some((now, (part, what))) = asked.queue.take(Time(u64::MAX)) {
        asked.now = now;
        if let Some(done) = asked.step(part, what)? {
            return Ok((done, now.since(began)));
        }
    }
    Err("the question was never answered".to_owned())
}

impl Asked<'_> {
    fn step(&mut self, part: usize, what: What) -> Result<Option<Done>, String> {
        let node = &self.world.nodes[self.parts[part].node];
        let local = node.local(self.now);
        let effects = match what {
            What::Begin(question) => {
                let begun = Asking::begin(*question, &node.tree, Limits::default(), local);
                let (asking, effects) = begun.map_err(|why| why.to_string())?;
                self.parts[part].asking = Some(asking);
                effects
            }
            What::Event(event) => self.hear(part, event, local),
            What::Tick => self.hear(part, Event::Tick, local),
        };
        for effect in effects {
            match effect {
                Effect::Call { call, to, question } => {
                    self.call(part, call, at(to.node), question);
                }
                Effect::Done(done) => match self.parts[part].asked_by {
                    None => return Ok(Some(*done)),
                    Some((above, call)) => self.reply(part, above, call, done.reply()),
                },
            }
        }
        let wake = self.parts[part].asking.as_ref().and_then(Asking::next_wake);
        if let Some(wake) = wake {
            let node = &self.world.nodes[self.parts[part].node];
            let wake = node.global(wake).max(self.now + Duration::from_nanos(1));
            self.queue.put(wake, (part, What::Tick));
        }
        Ok(None)
    }

    fn hear(&mut self, part: usize, event: Event, local: Time) -> Vec<Effect> {
        let asking = self.parts[part].asking.as_mut();
        let asking = asking.filter(|asking| asking.next_wake().is_some());
        asking.map_or_else(Vec::new, |asking| asking.handle(event, local))
    }

    fn call(&mut self, from: usize, call: CallId, to: usize, question: Question) {
        let asks = self.parts[from].node;
        let is_there = self.world.nodes.get(to).is_some_and(|node| node.alive);
        let sides = self.world.sides.as_ref();
        if !is_there || sides.is_some_and(|sides| sides[asks] != sides[to]) {
            return;
        }
        let arrives = self.now + self.way(asks, to);
        self.parts.push(Part {
            node: to,
            asking: None,
            asked_by: Some((from, call)),
        });
        let what = What::Begin(Box::new(question));
        self.queue.put(arrives, (self.parts.len() - 1, what));
    }

    fn reply(&mut self, from: usize, to: usize, call: CallId, reply: Reply) {
        let (answers, waits) = (self.parts[from].node, self.parts[to].node);
        let arrives = self.now + self.way(answers, waits);
        let reply = Box::new(reply);
        let what = What::Event(Event::Replied { call, reply });
        self.queue.put(arrives, (to, what));
    }

    /// On a stream: what is lost comes a round trip later.
    fn way(&mut self, from: usize, to: usize) -> Duration {
        let world = &mut *self.world;
        let mut way = world.ways.way(&world.shape, from, to, &mut world.rng);
        while world.rng.unit() < world.loss {
            way += way * 2;
        }
        way
    }
}
