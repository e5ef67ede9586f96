//! Singletons' leases in the world: the ways between holders and the grantor, as
//! the agent's.
//!
//! In: what nodes know of singletons, who leads. Out: what each node may run; their
//! changes of place, written; what shims end.
//! Holds: the rules are `node::lease`'s alone; clocks are each machine's own. What a
//! leader writes is tried at whoever leads by then, as long as it believes that it
//! does itself: so does the store's writer.

use crate::client::{Answer, Ask as Put};
use crate::world::{What as Happening, World};
use kernel::{FencingEpoch, NodeId, ScopedName, Time};
use node::NodeEvent;
use node::lease::{ASK_EVERY, Ask, Change, Grant, Grantor, Holder, Lease, changes, rights};
use node::store::{Compare, Operation, Transaction};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// The same as the agent's.
const GATHER: Duration = Duration::from_millis(50);
const LOOK: Duration = Duration::from_millis(500);
/// What a read or a write of the store takes at most, when all is well.
const STORE: Duration = Duration::from_millis(20);
const AGAIN: Duration = Duration::from_millis(50);
/// Of tries, within the time after which a call is given up.
const TRIES: u32 = 100;
/// Of its writes, those of which the leader does not hear what became of them.
const UNHEARD: u64 = 20;

/// A node's, for as long as its agent runs.
#[derive(Default)]
pub struct Leases {
    holder: Holder,
    told: BTreeMap<ScopedName, Lease>,
    is_asking: bool,
    granting: Option<Granting>,
    /// Asks that wait for this node's next look as the leader.
    waiting: Vec<Asked>,
}

/// Of one leadership.
struct Granting {
    grantor: Grantor,
    term: u32,
    look_at: Option<Time>,
    /// One look at a time.
    looks: bool,
}

#[derive(Clone, Debug)]
pub struct Asked {
    node: NodeId,
    /// The agent's run that waits for it.
    from: (usize, u32),
    ask: Ask,
}

#[derive(Clone, Debug)]
pub struct Writing {
    term: u32,
    changes: VecDeque<Change>,
    epoch: FencingEpoch,
    /// Of the first of them, once it is known what is to be written.
    transaction: Option<Transaction>,
    tries: u32,
}

#[derive(Clone, Debug)]
pub enum What {
    Ask,
    End,
    /// Reaches the leader.
    Asked(Asked),
    Granted(Grant),
    Look,
    /// A majority has confirmed that it leads; what is wished is read next.
    Lend {
        term: u32,
        waiting: Vec<Asked>,
        tries: u32,
    },
    Write(Writing),
}

impl World {
    fn put_lease(&mut self, at: usize, wait: Duration, what: What) {
        let boot = self.machines[at].boot;
        self.put(self.now + wait, at, boot, Happening::Lease(what));
    }

    pub fn on_lease(&mut self, at: usize, what: What) {
        match what {
            What::Ask => self.ask_for_leases(at),
            What::End => self.tell_leases(at),
            What::Asked(asked) => self.on_asked(at, asked),
            What::Granted(grant) => self.on_granted(at, grant),
            What::Look => self.on_lease_look(at),
            What::Lend {
                term,
                waiting,
                tries,
            } => self.lend(at, term, waiting, tries),
            What::Write(writing) => self.write_change(at, writing),
        }
    }

    /// What a node's replicas ask for, once it has done anything.
    pub fn tend_leases(&mut self, at: usize) {
        let now = self.now;
        let Some(running) = &mut self.machines[at].running else {
            return;
        };
        let shims = std::mem::take(&mut running.plane.shims);
        let began = std::mem::take(&mut running.plane.leased_began);
        let asks = running.plane.has_singletons && !running.leases.is_asking;
        running.leases.is_asking |= asks;
        for local in shims {
            let when = self.machines[at].global(local).max(now);
            self.put(when, at, 0, Happening::Shims);
        }
        if asks {
            self.put_lease(at, Duration::ZERO, What::Ask);
        }
        if began {
            self.check_once();
        }
    }

    fn ask_for_leases(&mut self, at: usize) {
        let leader = self.follows(at);
        let machine = &mut self.machines[at];
        let local = machine.local(self.now);
        let (node, from) = (machine.node, (at, machine.boot));
        let Some(running) = &mut machine.running else {
            return;
        };
        let singletons = running.plane.singletons();
        if !singletons.is_empty() {
            let ask = running.leases.holder.ask(singletons, local);
            if let Some(leader) = leader {
                let boot = self.machines[leader].boot;
                let asked = What::Asked(Asked { node, from, ask });
                self.carry(at, leader, boot, Happening::Lease(asked));
            }
        }
        self.put_lease(at, ASK_EVERY, What::Ask);
    }

    /// Whom it takes for the leader: while there is none, one that still believes.
    fn follows(&self, at: usize) -> Option<usize> {
        let believes = |at: &usize| {
            let running = self.machines[*at].running.as_ref();
            running.is_some_and(|running| running.leads)
        };
        let own = Some(at).filter(believes);
        let leads = own.or(self.group.leader);
        leads.or_else(|| (0..self.machines.len()).find(believes))
    }

    fn on_asked(&mut self, at: usize, asked: Asked) {
        // Nobody is connected to a node that does not belong.
        let table = self.node_table();
        if table.get(&asked.node).is_none_or(|it| !it.belongs()) {
            return;
        }
        if let Some(running) = &mut self.machines[at].running {
            running.leases.waiting.push(asked);
        }
        self.look_at_leases(at, GATHER);
    }

    /// A new leader knows of no grant.
    pub fn begin_granting(&mut self, at: usize) {
        let (local, term) = (self.machines[at].local(self.now), self.group.terms);
        if let Some(running) = &mut self.machines[at].running {
            running.leases.granting = Some(Granting {
                grantor: Grantor::new(local),
                term,
                look_at: None,
                looks: false,
            });
        }
        self.look_at_leases(at, LOOK);
    }

    fn look_at_leases(&mut self, at: usize, wait: Duration) {
        let when = self.now + wait;
        let Some(granting) = self.granting(at, None) else {
            return;
        };
        if granting.look_at.is_none_or(|due| when < due) {
            granting.look_at = Some(when);
            self.put_lease(at, wait, What::Look);
        }
    }

    /// None where it does not believe (any more) that it leads, in that term.
    fn granting(&mut self, at: usize, term: Option<u32>) -> Option<&mut Granting> {
        let running = self.machines[at].running.as_mut()?;
        let granting = running.leases.granting.as_mut();
        granting.filter(|it| running.leads && term.is_none_or(|term| it.term == term))
    }

    fn on_lease_look(&mut self, at: usize) {
        let (now, commits) = (self.now, self.commits(at));
        let Some(granting) = self.granting(at, None) else {
            return;
        };
        if granting.look_at.is_none_or(|due| due > now) {
            return;
        }
        granting.look_at = None;
        if granting.looks {
            return;
        }
        granting.looks = commits;
        let term = granting.term;
        self.look_at_leases(at, LOOK);
        let Some(running) = &mut self.machines[at].running else {
            return;
        };
        let waiting = std::mem::take(&mut running.leases.waiting);
        if commits {
            let wait = self.takes();
            let lend = What::Lend {
                term,
                waiting,
                tries: 0,
            };
            self.put_lease(at, wait, lend);
        }
    }

    fn takes(&mut self) -> Duration {
        crate::network::part(STORE, &mut self.rng)
    }

    /// Whoever keeps the store now, if this machine reaches it.
    fn store_of(&self, at: usize) -> Option<usize> {
        let leader = self.group.leader.filter(|leader| self.commits(*leader))?;
        self.hear_each_other(at, leader).then_some(leader)
    }

    fn lend(&mut self, at: usize, term: u32, waiting: Vec<Asked>, tries: u32) {
        if self.granting(at, Some(term)).is_none() {
            return;
        }
        if self.store_of(at).is_none() {
            if tries < TRIES {
                let tries = tries + 1;
                let lend = What::Lend {
                    term,
                    waiting,
                    tries,
                };
                return self.put_lease(at, AGAIN, lend);
            }
            return self.looked(at, term);
        }
        let (desired, _) = self.heads();
        let (all, nodes) = (rights(&desired), self.node_table());
        let local = self.machines[at].local(self.now);
        let Some(mut grantor) = self.granting(at, Some(term)).map(|it| it.grantor.clone()) else {
            return;
        };
        for Asked { node, from, ask } in waiting {
            let grant = grantor.grant(node, ask, &all, local);
            let (to, boot) = from;
            self.carry(at, to, boot, Happening::Lease(What::Granted(grant)));
        }
        let known = |node| self.known(at, node);
        let changes = changes(&desired, &nodes, &grantor, known, local);
        if let Some(granting) = self.granting(at, Some(term)) {
            granting.grantor = grantor;
        }
        let writing = Writing {
            term,
            changes: changes.into(),
            epoch: desired.next_epoch(),
            transaction: None,
            tries: 0,
        };
        self.write_change(at, writing);
    }

    fn looked(&mut self, at: usize, term: u32) {
        let Some(granting) = self.granting(at, Some(term)) else {
            return;
        };
        granting.looks = false;
        let running = self.machines[at].running.as_ref();
        let waits = running.is_some_and(|running| !running.leases.waiting.is_empty());
        self.look_at_leases(at, if waits { GATHER } else { LOOK });
    }

    /// The first of them, and then the others.
    fn write_change(&mut self, at: usize, mut writing: Writing) {
        let (term, local) = (writing.term, self.machines[at].local(self.now));
        let Some(change) = writing.changes.front().cloned() else {
            return self.looked(at, term);
        };
        let Some(granting) = self.granting(at, Some(term)) else {
            return;
        };
        if writing.tries == 0 {
            granting.grantor.changes(&change, local);
        }
        writing.tries += 1;
        let Some(leader) = self.store_of(at) else {
            // Whether it is done, if it was ever sent, nobody knows.
            if writing.tries > TRIES {
                self.next_change(writing, at, false);
            } else {
                self.put_lease(at, AGAIN, What::Write(writing));
            }
            return;
        };
        let Some(transaction) = &writing.transaction else {
            let (desired, modified) = self.heads();
            let project = &change.service.project;
            let head = desired.projects.get(project);
            let head = head.filter(|it| it.epoch(&change.service.name) < writing.epoch);
            let Some(head) = head else {
                return self.next_change(writing, at, true);
            };
            let key = node::desired::head_key(project);
            let expected = modified.get(project).copied().unwrap_or_default();
            let value = serde_json::to_vec(&change.made(head, writing.epoch));
            writing.transaction = Some(Transaction {
                compare: vec![Compare::Modified(key.clone(), expected)],
                then: vec![Operation::Put(key, value.unwrap_or_default())],
                otherwise: Vec::new(),
            });
            let wait = self.takes();
            return self.put_lease(at, wait, What::Write(writing));
        };
        let put = Put::Transact {
            number: 0,
            transaction: transaction.clone(),
        };
        let from = (at, self.machines[at].boot);
        let answer = self.ask_host(leader, from, put);
        let is_done = matches!(answer, Some(Answer::Done { .. }));
        let is_sure = is_done && self.rng.below(UNHEARD) > 0;
        if is_sure {
            let (service, to, why) = (change.service, change.to, change.why.to_owned());
            let to = to.map(|node| node.to_string());
            let event = NodeEvent::SingletonPlaced { service, to, why };
            let now = self.now;
            self.with_plane(at, |plane, rng| plane.see(event, rng, now));
        }
        self.next_change(writing, at, is_sure);
    }

    fn next_change(&mut self, mut writing: Writing, at: usize, is_sure: bool) {
        let done = writing.changes.pop_front();
        if let (Some(done), Some(granting)) = (done, self.granting(at, Some(writing.term)))
            && is_sure
        {
            granting.grantor.is_sure(&done.service);
        }
        writing.transaction = None;
        writing.tries = 0;
        self.put_lease(at, Duration::ZERO, What::Write(writing));
    }

    fn on_granted(&mut self, at: usize, grant: Grant) {
        let Some(running) = &mut self.machines[at].running else {
            return;
        };
        for (service, until) in running.leases.holder.granted(grant) {
            running.plane.lease(&service, until);
        }
        self.tell_leases(at);
    }

    fn tell_leases(&mut self, at: usize) {
        let (now, local) = (self.now, self.machines[at].local(self.now));
        let Some(running) = &mut self.machines[at].running else {
            return;
        };
        let leases = running.leases.holder.leases(local);
        let end = running.leases.holder.next_end(local);
        let is_new = leases != running.leases.told;
        running.leases.told.clone_from(&leases);
        if is_new {
            self.with_plane(at, |plane, rng| plane.hold(leases, rng, now));
        } else {
            self.tend_leases(at);
        }
        if let Some(end) = end {
            let when = self.machines[at].global(end).since(now);
            self.put_lease(at, when, What::End);
        }
    }

    /// Shims of leased replicas look at their clocks.
    pub fn on_shims(&mut self, at: usize) {
        let now = self.now;
        let machine = &mut self.machines[at];
        if !machine.has_power || machine.paused_until > now {
            return;
        }
        let local = machine.local(now);
        let is_over = machine.processes().values().any(|one| one.is_over(local));
        if !is_over {
            return;
        }
        self.trace.event(now, at, 14);
        if machine.running.is_some() {
            self.with_plane(at, |plane, rng| plane.end_leased(rng, now));
        } else {
            let left = machine.disk.replicas.values_mut();
            left.filter(|one| one.is_over(local))
                .for_each(|one| one.running = false);
        }
    }

    pub fn pause(&mut self, at: usize, span: Duration) {
        if !self.machines[at].has_power {
            return;
        }
        let until = self.now + span;
        self.trace.event(self.now, at, 15);
        self.machines[at].paused_until = until;
        self.put(until, at, 0, Happening::GoesOn);
        self.tend_group();
    }

    /// Shims are the first: what a replica does before it is ended is not promised.
    pub fn goes_on(&mut self, at: usize) {
        self.on_shims(at);
        // Others may go on in the same instant, and come later in the queue.
        for other in 0..self.machines.len() {
            if self.machines[other].paused_until == self.now {
                self.on_shims(other);
            }
        }
        self.check_once();
    }
}
