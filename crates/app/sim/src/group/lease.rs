//! Singletons' leases in the world: the ways between holders and the grantor, as
//! the agent's.
//!
//! In: what nodes know of singletons, who leads. Out: what each node may run; their
//! changes of place, written; what shims end.
//! Holds: the rules are `node::lease`'s alone; clocks are each machine's own. What a
//! leader writes is tried at whoever leads by then, as long as it believes that it
//! does itself: so does the store's writer. It compares the mark of its leadership.

use crate::client::{Answer, Ask as Put};
use crate::world::{What as Happening, World};
use kernel::{FencingEpoch, NodeId, Revision, ScopedName, Time};
use node::NodeEvent;
use node::lease::{ASK_EVERY, Ask, Change, Grant, Grantor, Holder, Lease, changes, rights};
use node::store::{Compare, Operation, Transaction};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// The same as the agent's.
const MARK_KEY: &str = "/lead";
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
    /// None before its mark is written.
    marked: Option<Marked>,
    term: u32,
    look_at: Option<Time>,
    /// One look at a time.
    looks: bool,
}

struct Marked {
    grantor: Grantor,
    /// The revision at which the mark was written.
    mark: Revision,
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
    mark: Revision,
    changes: VecDeque<Change>,
    epoch: FencingEpoch,
    /// Of the first of them, once it is known what is to be written.
    transaction: Option<Transaction>,
    tries: u32,
}

/// One look of a leader's.
#[derive(Clone, Debug)]
pub struct Looking {
    term: u32,
    waiting: Vec<Asked>,
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
    /// A majority has confirmed that it leads; its mark is looked at next.
    Mark(Looking),
    /// What is wished is read next.
    Lend(Looking),
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
            What::Mark(looking) => self.look_at_mark(at, looking),
            What::Lend(looking) => self.lend(at, looking),
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

    /// A new leader knows of no grant, and writes its mark at once: what others granted
    /// is waited out from then on.
    pub fn begin_granting(&mut self, at: usize) {
        let term = self.group.terms;
        if let Some(running) = &mut self.machines[at].running {
            running.leases.granting = Some(Granting {
                marked: None,
                term,
                look_at: None,
                looks: false,
            });
        }
        self.look_at_leases(at, Duration::ZERO);
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

    fn marked(&mut self, at: usize, term: u32) -> Option<&mut Marked> {
        self.granting(at, Some(term))?.marked.as_mut()
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
            let looking = Looking {
                term,
                waiting,
                tries: 0,
            };
            self.put_lease(at, wait, What::Mark(looking));
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

    /// Whether it still believes that it leads and reaches the store; it tries again
    /// if it does not.
    fn can_read(
        &mut self,
        at: usize,
        looking: Looking,
        again: fn(Looking) -> What,
    ) -> Option<Looking> {
        let term = looking.term;
        self.granting(at, Some(term))?;
        if self.store_of(at).is_some() {
            return Some(looking);
        }
        if looking.tries < TRIES {
            let tries = looking.tries + 1;
            self.put_lease(at, AGAIN, again(Looking { tries, ..looking }));
        } else {
            self.looked(at, term);
        }
        None
    }

    /// Nothing is granted or placed without a mark of its own: where another one's is,
    /// another has begun since, and this one begins anew if it leads at all.
    fn look_at_mark(&mut self, at: usize, looking: Looking) {
        let Some(looking) = self.can_read(at, looking, What::Mark) else {
            return;
        };
        let term = looking.term;
        let kept = self.mark();
        let Some(granting) = self.granting(at, Some(term)) else {
            return;
        };
        granting.marked = granting.marked.take().filter(|own| kept == Some(own.mark));
        if granting.marked.is_none() {
            if !self.commits(at) {
                return self.looked(at, term);
            }
            self.write_mark(at, term);
        }
        if self.marked(at, term).is_none() {
            return self.looked(at, term);
        }
        let wait = self.takes();
        self.put_lease(at, wait, What::Lend(looking));
    }

    fn mark(&self) -> Option<Revision> {
        let range = self.host.range(MARK_KEY);
        range.entries.first().map(|entry| entry.modified)
    }

    fn write_mark(&mut self, at: usize, term: u32) {
        let value = format!("{} {}", self.machines[at].node, self.now.0);
        let put = Put::Transact {
            number: 0,
            transaction: Transaction {
                then: vec![Operation::Put(MARK_KEY.to_owned(), value.into_bytes())],
                ..Transaction::default()
            },
        };
        let from = (at, self.machines[at].boot);
        let answer = self.ask_host(at, from, put);
        let (local, mark) = (self.machines[at].local(self.now), self.mark());
        if let (Some(Answer::Done { .. }), Some(mark)) = (answer, mark)
            && let Some(granting) = self.granting(at, Some(term))
        {
            // Whatever another one granted was granted before.
            let grantor = Grantor::new(local);
            granting.marked = Some(Marked { grantor, mark });
        }
    }

    fn lend(&mut self, at: usize, looking: Looking) {
        let Some(looking) = self.can_read(at, looking, What::Lend) else {
            return;
        };
        let Looking { term, waiting, .. } = looking;
        let (desired, _) = self.heads();
        let (all, nodes) = (rights(&desired), self.node_table());
        let local = self.machines[at].local(self.now);
        let marked = self.marked(at, term);
        let Some((mut grantor, mark)) = marked.map(|it| (it.grantor.clone(), it.mark)) else {
            return;
        };
        for Asked { node, from, ask } in waiting {
            let grant = grantor.grant(node, ask, &all, local);
            let (to, boot) = from;
            self.carry(at, to, boot, Happening::Lease(What::Granted(grant)));
        }
        let known = |node| self.known(at, node);
        let changes = changes(&desired, &nodes, &grantor, known, local);
        if let Some(marked) = self.marked(at, term) {
            marked.grantor = grantor;
        }
        let writing = Writing {
            term,
            mark,
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
        let Some(marked) = self.marked(at, term) else {
            return;
        };
        if writing.tries == 0 {
            marked.grantor.changes(&change, local);
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
                compare: vec![
                    Compare::Modified(MARK_KEY.to_owned(), writing.mark),
                    Compare::Modified(key.clone(), expected),
                ],
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
        let before = self.host.revision();
        let answer = self.ask_host(leader, from, put);
        let is_done = matches!(answer, Some(Answer::Done { .. }));
        let is_sure = is_done && self.rng.below(UNHEARD) > 0;
        if is_sure && self.host.revision() > before {
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
        if let (Some(done), Some(marked)) = (done, self.marked(at, writing.term))
            && is_sure
        {
            marked.grantor.is_sure(&done.service);
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
