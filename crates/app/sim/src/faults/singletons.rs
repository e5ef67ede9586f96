//! Singletons whose nodes are cut, one cut after the other: by power, off from all
//! others with power on, or stopped for a while; the leader's node too, alone or
//! with them.
//!
//! In: a seed, how many cuts. Out: whether two ever ran at once, in simulated true
//! time; how long it took until one ran elsewhere.
//! Holds: one seed, one history; after each cut that is waited for, and at the end,
//! each runs once.

use crate::check::Checker;
use crate::store::StoreFaults;
use crate::world::{DRIFT_PPM, Turn, World};
use kernel::{Name, Rng, ScopedName, ZonePath};
use node::script::Invariant;
use std::collections::BTreeMap;
use std::time::Duration;

const SINGLETONS: usize = 3;
const ZONES: [&str; 3] = ["/eu/1", "/eu/2", "/us/1"];
const STEP: Duration = Duration::from_millis(20);
/// Of peace, within which each runs again.
const CALM: Duration = Duration::from_secs(90);
const SHORT: Duration = Duration::from_secs(8);
const LONG: Duration = Duration::from_secs(30);

/// One history.
#[derive(Clone, Copy, Debug)]
pub struct Cuts {
    pub seed: u64,
    pub cuts: u64,
    /// By how many millionths clocks may be too fast or too slow.
    pub drift_ppm: u32,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cutting {
    /// Of all that happened, in order.
    pub hash: u64,
    pub events: u64,
    /// Two of one at once: when, and where.
    pub twice: Vec<String>,
    /// What did not run again.
    pub amiss: Vec<String>,
    /// Of singletons whose node was struck: from then until each ran on another one.
    pub elsewhere: Vec<Duration>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Power,
    /// From all others; or they do not hear it, or it does not hear them.
    Off {
        sends: bool,
        hears: bool,
    },
    Pause,
}

struct History {
    world: World,
    rng: Rng,
    names: Vec<ScopedName>,
    done: Cutting,
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap_or_else(|_| unreachable!("`{text}` is a name"))
}

fn below(rng: &mut Rng, bound: usize) -> usize {
    usize::try_from(rng.below(bound as u64)).unwrap_or_default()
}

impl Cuts {
    /// With clocks as wrong as leases allow for, or nearly.
    pub fn seeded(seed: u64, cuts: u64) -> Self {
        let drift_ppm = if seed.is_multiple_of(3) {
            DRIFT_PPM
        } else {
            60_000
        };
        Self {
            seed,
            cuts,
            drift_ppm,
        }
    }

    pub fn play(&self) -> Cutting {
        let mut history = History::new(self);
        history.calm();
        for _ in 0..self.cuts {
            history.cut();
            if history.rng.below(3) > 0 {
                history.calm();
            }
        }
        history.calm();
        let History {
            world, mut done, ..
        } = history;
        let Checker { broken, .. } = world.check;
        let twice = Invariant::SingletonsRunOnce.name();
        (done.twice, done.amiss) = broken.into_iter().partition(|what| what.contains(twice));
        (done.hash, done.events) = (world.trace.hash, world.trace.events);
        done
    }
}

impl History {
    fn new(cuts: &Cuts) -> Self {
        let mut rng = Rng::seeded(cuts.seed ^ 0x006f_6e63_6521);
        let mut world = World::new(cuts.seed, StoreFaults::default());
        world.drift_ppm = cuts.drift_ppm;
        world.check.always.insert(Invariant::SingletonsRunOnce);
        let nodes = [5, 5, 7, 9][below(&mut rng, 4)];
        for at in 0..nodes {
            let zone: ZonePath = ZONES[at % ZONES.len()].parse().unwrap_or_default();
            world.add_machine(name(&format!("n{}", at + 1)), &zone);
        }
        let project = name("once");
        let mut text = String::new();
        let mut names = Vec::new();
        for at in 0..SINGLETONS {
            text += "[service.s";
            text += &at.to_string();
            text += "]\nrun = { process = [\"true\"] }\nsingleton = true\n";
            names.push(ScopedName::new(project.clone(), name(&format!("s{at}"))));
        }
        for at in 0..nodes {
            world.start(at);
        }
        let mut history = Self {
            world,
            rng,
            names,
            done: Cutting::default(),
        };
        history.wait(Duration::from_secs(10), |_| false);
        match manifest::parse(&text, &project) {
            Ok(manifest) => history.world.apply(&manifest),
            Err(why) => unreachable!("{why:?}"),
        }
        history
    }

    /// Whether it came true.
    fn wait(&mut self, span: Duration, mut until: impl FnMut(&World) -> bool) -> bool {
        let end = self.world.now + span;
        while self.world.now < end {
            if until(&self.world) {
                return true;
            }
            let next = self.world.now + STEP;
            self.world.put_look(next);
            while self.world.advance(next) == Turn::Act(0) {}
        }
        false
    }

    /// Nothing is wrong any more, until each runs on a node that all reach.
    fn calm(&mut self) {
        let names = self.names.clone();
        let is_calm = self.wait(CALM, |world| {
            let run = world.singletons_run();
            let leads = world.group.leader.is_some_and(|at| world.commits(at));
            leads
                && names
                    .iter()
                    .all(|name| run.get(name).is_some_and(|on| on.len() == 1))
        });
        if !is_calm {
            let run = self.world.singletons_run();
            let what = format!("after {CALM:?} of peace there run {run:?}");
            self.world.check.broken(self.world.now, &what);
        }
    }

    fn cut(&mut self) {
        let struck = self.strike();
        let run = self.world.singletons_run();
        let ran = run.into_iter().filter_map(|(name, on)| {
            let on = on.first().copied().filter(|at| struck.contains_key(at));
            Some((name, on?))
        });
        let mut ran: BTreeMap<ScopedName, usize> = ran.collect();
        let most = if self.rng.below(3) == 0 { SHORT } else { LONG };
        let span = Duration::from_millis(300) + crate::network::part(most, &mut self.rng);
        let began = self.world.now;
        for (at, kind) in &struck {
            self.begin(*at, *kind, span);
        }
        let mut elsewhere = Vec::new();
        self.wait(span, |world| {
            let run = world.singletons_run();
            let moved = |name: &ScopedName, from: &usize| {
                let on = run.get(name).and_then(|on| on.first());
                on.is_some_and(|on| on != from)
            };
            ran.retain(|name, from| {
                let moved = moved(name, from);
                elsewhere.extend(moved.then(|| world.now.since(began)));
                !moved
            });
            false
        });
        self.done.elsewhere.append(&mut elsewhere);
        self.world.network.cuts.clear();
        for at in struck.into_keys() {
            self.world.start(at);
        }
    }

    /// Whom, and by what.
    fn strike(&mut self) -> BTreeMap<usize, Kind> {
        let run = self.world.singletons_run();
        let wanted = &self.names[below(&mut self.rng, self.names.len())];
        let runs_on = run.get(wanted).and_then(|on| on.first()).copied();
        let leader = self.world.group.leader;
        let (one, other) = match self.rng.below(5) {
            0 => (leader, None),
            1 | 2 => (runs_on, leader),
            _ => (runs_on, None),
        };
        let mut struck = BTreeMap::new();
        let at_random = below(&mut self.rng, self.world.nodes);
        let some = [one.or(Some(at_random)), other];
        for at in some.into_iter().flatten() {
            let kind = match self.rng.below(5) {
                0 => Kind::Power,
                1 => Kind::Pause,
                2 => {
                    let sends = self.rng.below(2) == 0;
                    Kind::Off {
                        sends,
                        hears: !sends,
                    }
                }
                _ => Kind::Off {
                    sends: false,
                    hears: false,
                },
            };
            struck.insert(at, kind);
        }
        struck
    }

    fn begin(&mut self, at: usize, kind: Kind, span: Duration) {
        match kind {
            Kind::Power => self.world.power_off(at),
            Kind::Pause => self.world.pause(at, span),
            Kind::Off { sends, hears } => {
                for other in (0..self.world.nodes).filter(|other| *other != at) {
                    let cuts = &mut self.world.network.cuts;
                    let lost = [(at, other, sends), (other, at, hears)];
                    cuts.extend(lost.iter().filter(|it| !it.2).map(|it| (it.0, it.1)));
                }
            }
        }
    }
}

/// So long, in the middle and at most; none of none.
pub fn middle_and_most(spans: &[Duration]) -> Option<(Duration, Duration)> {
    let mut sorted = spans.to_vec();
    sorted.sort_unstable();
    Some((*sorted.get(sorted.len() / 2)?, *sorted.last()?))
}
