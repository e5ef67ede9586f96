//! The right to run what must never run twice at once, singletons (Gray and
//! Cheriton, "Leases", SOSP 1989).
//!
//! The leader is the grantor: it grants to the node on which a singleton is
//! placed, for a while, over and over, and only after a majority has confirmed
//! that it still leads. Nothing of it is written down: a new leader waits until
//! all that another one granted must be over. Each node is a holder: it counts
//! from before it asked, and lets go sooner than the grantor counts on.
//!
//! In: what nodes ask and say that they run. Out: grants; which singletons may
//! have another place.
//! Holds: a singleton gets a place only when no node runs it, or may start it,
//! by what it was granted before; its epoch grows with each change of place.
//! Never: trusts clocks to agree, only to run alike within the margin.

use crate::desired::{Applied, Desired};
use crate::nodes::NodeTable;
use crate::placing::{Known, world};
use kernel::{FencingEpoch, Name, NodeId, ScopedName, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// For so long the grantor lets nobody else run what it granted.
pub const TIME_TO_LIVE: Duration = Duration::from_secs(5);
/// For so long, from before it asked, a holder runs it: the rest is for clocks
/// that run at different speeds.
pub const HELD_FOR: Duration = Duration::from_secs(4);
/// Before the end of that, what runs is asked to end by itself.
const POLITE: Duration = Duration::from_secs(1);
/// A holder asks this often.
pub const ASK_EVERY: Duration = Duration::from_millis(500);

/// What a node knows of a singleton.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knows {
    /// Of the desired state that it acts on; none where it has none of it.
    pub epoch: Option<FencingEpoch>,
    /// A replica runs there, or is starting or ending.
    pub runs: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Which one of this node's.
    pub number: u64,
    pub singletons: BTreeMap<ScopedName, Knows>,
}

/// What the asking node may run, and under which epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Of the [`Ask`].
    pub number: u64,
    pub epochs: BTreeMap<ScopedName, FencingEpoch>,
}

/// Where a singleton is wished to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub epoch: FencingEpoch,
    pub on: Option<NodeId>,
}

impl Placed {
    fn of(applied: &Applied, name: &Name) -> Self {
        Self {
            epoch: applied.epoch(name),
            on: applied.place(name),
        }
    }
}

/// All singletons of a desired state.
pub fn placed(desired: &Desired) -> BTreeMap<ScopedName, Placed> {
    let singletons = desired
        .services()
        .filter(|(_, service, _)| service.singleton);
    let placed = singletons.map(|(name, _, applied)| {
        let placed = Placed::of(applied, &name.name);
        (name, placed)
    });
    placed.collect()
}

/// Which nodes may run what, each from which epoch on: the one that a singleton is
/// placed on, and those with attempts of a job that runs `once`.
pub type Rights = BTreeMap<ScopedName, BTreeMap<NodeId, FencingEpoch>>;

pub fn rights(desired: &Desired) -> Rights {
    let mut rights = Rights::new();
    for (name, placed) in placed(desired) {
        let on = placed.on.map(|node| (node, placed.epoch));
        rights.insert(name, on.into_iter().collect());
    }
    for (name, record) in &desired.jobs {
        for (run, _, attempt) in record.attempts() {
            if run.once {
                let on = rights.entry(name.clone()).or_default();
                // A node's attempts are lost together: none is left that is older.
                let least = on.entry(attempt.node).or_insert(attempt.epoch);
                *least = attempt.epoch.min(*least);
            }
        }
    }
    rights
}

/// What a leader knows of an attempt that runs `once`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its node may run it.
    Held,
    /// Its node never had the right to.
    NeverHeld,
    /// Its node cannot run it any more.
    Over,
}

/// The leader's side; made anew with each leadership.
#[derive(Clone, Debug)]
pub struct Grantor {
    /// Before, another one may have granted anything.
    began: Time,
    granted: BTreeMap<(NodeId, ScopedName), Time>,
    said: BTreeMap<NodeId, BTreeMap<ScopedName, Knows>>,
    /// When attempts of jobs were placed, by this leader.
    placed: BTreeMap<(ScopedName, u64), Time>,
    /// It was written that their place changes, and it is not known whether that
    /// was done: nobody is granted them.
    unsure: BTreeSet<ScopedName>,
}

impl Grantor {
    pub fn new(now: Time) -> Self {
        Self {
            began: now,
            granted: BTreeMap::new(),
            said: BTreeMap::new(),
            placed: BTreeMap::new(),
            unsure: BTreeSet::new(),
        }
    }

    /// * `rights`: read after the ask had come, when a majority had confirmed,
    ///   after that too, that this node leads.
    pub fn grant(&mut self, node: NodeId, ask: Ask, rights: &Rights, now: Time) -> Grant {
        let sure = rights
            .iter()
            .filter(|(name, _)| !self.unsure.contains(*name));
        let its = sure.filter_map(|(name, on)| Some((name.clone(), *on.get(&node)?)));
        let epochs: BTreeMap<_, _> = its.collect();
        for name in epochs.keys() {
            self.granted.insert((node, name.clone()), now);
        }
        self.said.insert(node, ask.singletons);
        Grant {
            number: ask.number,
            epochs,
        }
    }

    /// Before it is written that attempts of a job start, or are over.
    ///
    /// * `placed`: serials of new ones.
    pub fn job_changes(&mut self, job: &ScopedName, placed: &[u64], now: Time) {
        self.unsure.insert(job.clone());
        for serial in placed {
            self.placed.insert((job.clone(), *serial), now);
        }
    }

    /// What was written last of these is not known: nobody is granted them until it
    /// is written again.
    pub fn unsure(&self) -> &BTreeSet<ScopedName> {
        &self.unsure
    }

    /// Forgets attempts that are over.
    pub fn keep_attempts(&mut self, going: &BTreeSet<(ScopedName, u64)>) {
        self.placed.retain(|attempt, _| going.contains(attempt));
    }

    /// * `serial`: of an attempt of `job` that is placed on `node`.
    pub fn standing(&self, job: &ScopedName, serial: u64, node: NodeId, now: Time) -> Standing {
        let granted = self.granted.get(&(node, job.clone())).copied();
        let placed = self.placed.get(&(job.clone(), serial)).copied();
        match placed.filter(|placed| granted.is_none_or(|granted| granted < *placed)) {
            Some(placed) if placed + TIME_TO_LIVE <= now => Standing::NeverHeld,
            None if self.is_over(node, job, now) => Standing::Over,
            Some(_) | None => Standing::Held,
        }
    }

    /// Before its change is written. Its next node has the time of a lease to ask.
    pub fn changes(&mut self, change: &Change, now: Time) {
        self.unsure.insert(change.service.clone());
        if let Some(to) = change.to {
            self.granted.insert((to, change.service.clone()), now);
        }
    }

    /// The change was made, or certainly was not.
    pub fn is_sure(&mut self, service: &ScopedName) {
        self.unsure.remove(service);
    }

    /// Whether all that was ever granted to `node` of it is over.
    fn is_over(&self, node: NodeId, service: &ScopedName, now: Time) -> bool {
        let last = self.granted.get(&(node, service.clone())).copied();
        let last = last.unwrap_or(self.began).max(self.began);
        last + TIME_TO_LIVE <= now
    }

    /// Whether `node` does not run it and cannot start it, whatever it has not
    /// heard of.
    fn is_free(&self, node: NodeId, service: &ScopedName, epoch: FencingEpoch, now: Time) -> bool {
        let said = self.said.get(&node).and_then(|said| said.get(service));
        let stopped = said.is_some_and(|it| !it.runs && it.epoch.is_some_and(|it| it >= epoch));
        stopped || self.is_over(node, service, now)
    }
}

/// A singleton's change of place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub service: ScopedName,
    /// None: it stops where it is, and gets a place when it has.
    pub to: Option<NodeId>,
    pub why: &'static str,
}

/// Which singletons are to change their place now.
///
/// * `known`: of each node, for its choice.
pub fn changes(
    desired: &Desired,
    nodes: &NodeTable,
    grantor: &Grantor,
    known: impl Fn(NodeId) -> Known,
    now: Time,
) -> Vec<Change> {
    let mut changes = Vec::new();
    let singletons = desired
        .services()
        .filter(|(_, service, _)| service.singleton);
    for (name, service, applied) in singletons {
        let placed = Placed::of(applied, &name.name);
        let pinned = service.node.as_ref();
        let (gone, why) = match placed.on {
            None => {
                let stops = |node: &NodeId| grantor.is_free(*node, &name, placed.epoch, now);
                if !nodes.keys().all(stops) {
                    continue;
                }
                (None, "it runs nowhere")
            }
            // Written again there too, it is sure again.
            Some(on) if grantor.is_over(on, &name, now) && grantor.unsure.contains(&name) => {
                (None, "it is not known where it was placed")
            }
            Some(on) if grantor.is_over(on, &name, now) => (Some(on), "its node has no lease"),
            Some(on) => {
                let record = nodes.get(&on);
                let leaves = record.is_some_and(|it| !it.takes_replicas());
                let elsewhere = pinned.is_some_and(|pin| record.is_some_and(|it| it.name != *pin));
                let why = match (leaves, elsewhere) {
                    (true, _) => "its node is being drained",
                    (_, true) => "it is to run on another node",
                    (false, false) => continue,
                };
                if choose(desired, nodes, &name, Some(on), &known).is_some() {
                    let (service, to) = (name, None);
                    changes.push(Change { service, to, why });
                }
                continue;
            }
        };
        if let Some(to) = choose(desired, nodes, &name, gone, &known) {
            let (service, to) = (name, Some(to));
            changes.push(Change { service, to, why });
        }
    }
    changes
}

/// The best place for it, other than `not`.
fn choose(
    desired: &Desired,
    nodes: &NodeTable,
    service: &ScopedName,
    not: Option<NodeId>,
    known: impl Fn(NodeId) -> Known,
) -> Option<NodeId> {
    let known = |node| known(node).if_told();
    let away = nodes
        .values()
        .filter(|it| !it.belongs() || !it.takes_replicas() || !known(it.id).reachable);
    let gone: BTreeSet<NodeId> = away.map(|it| it.id).chain(not).collect();
    let mut world = world(desired, nodes, &gone, known);
    world.running.remove(service);
    let plan = placement::cluster(&world);
    plan.assigned.get(service)?.keys().next().copied()
}

impl Change {
    /// The project's state with it.
    ///
    /// * `epoch`: greater than all before.
    #[must_use]
    pub fn made(&self, applied: &Applied, epoch: FencingEpoch) -> Applied {
        let mut applied = applied.clone();
        let name = self.service.name.clone();
        let on = self.to.map(|node| (node, 1)).into_iter().collect();
        applied.placements.insert(name.clone(), on);
        applied.epochs.insert(name, epoch);
        applied
    }
}

/// Whether a node may run a singleton.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    Held(FencingEpoch),
    /// It was held, and is not any more.
    Over,
}

/// A node's side; made anew with each agent. A singleton that it never held is
/// in nobody's hands as far as it knows: one that an earlier agent started runs
/// until its shim says that its lease is over.
#[derive(Clone, Debug, Default)]
pub struct Holder {
    next: u64,
    asked: BTreeMap<u64, Time>,
    held: BTreeMap<ScopedName, (FencingEpoch, Time)>,
}

impl Holder {
    /// * `now`: before it is sent.
    pub fn ask(&mut self, singletons: BTreeMap<ScopedName, Knows>, now: Time) -> Ask {
        self.asked.retain(|_, at| *at + HELD_FOR > now);
        self.next += 1;
        self.asked.insert(self.next, now);
        Ask {
            number: self.next,
            singletons,
        }
    }

    /// Returns until when each of them may run. A grant of an ask that is not known
    /// (any more) is none.
    pub fn granted(&mut self, grant: Grant) -> Vec<(ScopedName, Time)> {
        let Some(at) = self.asked.remove(&grant.number) else {
            return Vec::new();
        };
        let until = at + HELD_FOR;
        let mut extended = Vec::new();
        for (name, epoch) in grant.epochs {
            let held = self.held.entry(name.clone()).or_insert((epoch, until));
            // Answers may come out of order.
            if epoch > held.0 || (epoch == held.0 && until >= held.1) {
                *held = (epoch, until);
                extended.push((name, until));
            }
        }
        extended
    }

    pub fn leases(&self, now: Time) -> BTreeMap<ScopedName, Lease> {
        let leases = self.held.iter().map(|(name, (epoch, until))| {
            let lease = if now + POLITE < *until {
                Lease::Held(*epoch)
            } else {
                Lease::Over
            };
            (name.clone(), lease)
        });
        leases.collect()
    }

    /// When one of them is over.
    pub fn next_end(&self, now: Time) -> Option<Time> {
        let ends = self
            .held
            .values()
            .map(|(_, until)| Time(until.0.saturating_sub(nanos(POLITE))));
        ends.filter(|end| *end > now).min()
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
