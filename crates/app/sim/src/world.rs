//! The world: machines, their network, the store, and time.
//!
//! In: acts. Out: what was seen, up to the next act that is due.
//! Holds: all randomness comes from one seed; what happens is hashed in order.

use crate::apply::Order;
use crate::check::Checker;
use crate::client::{Answer, Ask, Client};
use crate::group::lease;
use crate::group::{self, GATHER, Group};
use crate::host::Host;
use crate::machine::{Disk, Machine, Running};
use crate::network::{Network, part};
use crate::plane::{Later, Plane};
use crate::queue::Queue;
use crate::store::StoreFaults;
use crate::table::{self, Tables};
use crate::trace::Trace;
use aggregation::membership::{Effect, Event, Membership, Parameters, Start, Table};
use kernel::{NodeId, Rng, Time, ZonePath};
use node::Settings;
use node::nodes::{NodeReport, node_key};
use node::store::{Operation, Transaction};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A change of what runs is told so much later, with what else has changed.
const REPORT: Duration = Duration::from_millis(100);
/// A report that was lost, or was for another leader, is made up for.
const REPORT_AGAIN: Duration = Duration::from_secs(2);
/// Larger clusters are told of changes of the node table at most so often.
const TABLE_EVERY: Duration = Duration::from_secs(1);
const TABLE_AT_ONCE_MAX: usize = 100;

pub enum What {
    Core,
    Packet {
        from: NodeId,
        payload: Vec<u8>,
    },
    Plane(Later),
    Client,
    /// Arrives at the store.
    Ask {
        from: usize,
        boot: u32,
        ask: Ask,
    },
    Push {
        to: usize,
        boot: u32,
    },
    Answer(Answer),
    /// A node tells the leader what it runs.
    Report,
    Reported {
        node: NodeId,
        report: Arc<NodeReport>,
    },
    /// The leader looks at the cluster.
    Lookout,
    Lease(lease::What),
    /// Those of leased replicas look at the time, which they do without an agent.
    Shims,
    /// It has been paused.
    GoesOn,
    /// Who keeps the store is looked at.
    Group,
    /// Not the world's own.
    Act(usize),
    Look,
}

/// What the world stops for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Act(usize),
    Look,
    Over,
}

struct Happening {
    machine: usize,
    boot: u32,
    what: What,
}

pub struct World {
    pub rng: Rng,
    pub now: Time,
    pub network: Network,
    pub machines: Vec<Machine>,
    /// The first are the script's; clones follow.
    pub nodes: usize,
    pub host: Host,
    pub group: Group,
    pub orders: Vec<Order>,
    pub repair: control::repair::Parameters,
    pub check: Checker,
    pub trace: Trace,
    /// Clocks gain or lose up to as many millionths.
    pub drift_ppm: u32,
    /// Only membership: no store, no replicas.
    pub bare: bool,
    pub packets: u64,
    pub packet_bytes: u64,
    queue: Queue<Happening>,
    tables: Tables,
    clones: BTreeMap<NodeId, Vec<usize>>,
    parameters: Parameters,
}

/// A bad crystal's.
pub const DRIFT_PPM: u32 = 200;

/// Where simulated time starts.
pub const BEGAN: Time = Time(1_000_000_000);
/// What is nobody's own stands here.
const NOBODY: usize = 0;

impl World {
    pub fn new(seed: u64, faults: StoreFaults) -> Self {
        Self {
            rng: Rng::seeded(seed),
            now: BEGAN,
            network: Network::default(),
            machines: Vec::new(),
            nodes: 0,
            host: Host::new(faults),
            group: Group::default(),
            orders: Vec::new(),
            repair: control::repair::Parameters::default(),
            check: Checker::default(),
            trace: Trace::default(),
            drift_ppm: DRIFT_PPM,
            bare: false,
            packets: 0,
            packet_bytes: 0,
            queue: Queue::default(),
            tables: Tables::default(),
            clones: BTreeMap::new(),
            parameters: Parameters::default(),
        }
    }

    pub fn add_machine(&mut self, name: kernel::Name, zone: &ZonePath) -> usize {
        let at = self.machines.len();
        let boot_clock = self.rng.below(1 << 50);
        let most = i32::try_from(self.drift_ppm).unwrap_or_default();
        let drift = self.rng.below(2 * u64::from(self.drift_ppm));
        let drift = i32::try_from(drift).unwrap_or_default() - most;
        self.machines.push(Machine {
            node: NodeId(at as u64 + 1),
            name,
            zone: zone.clone(),
            zone_at: self.network.zone(zone),
            boot: 0,
            running: None,
            disk: Disk::default(),
            slow: Duration::ZERO,
            paused_until: Time(0),
            clock_off_s: 0,
            boot_clock,
            drift_ppm: drift,
            up_since: Time(0),
            silent: false,
            revoked: false,
            memory: None,
            has_power: false,
        });
        self.nodes = self.machines.len();
        at
    }

    /// A second machine with a copy of this one's disk, as it is now.
    pub fn clone_of(&mut self, original: usize) {
        let one = &self.machines[original];
        let copy = Machine {
            node: one.node,
            name: one.name.clone(),
            zone: one.zone.clone(),
            zone_at: one.zone_at,
            boot: 0,
            running: None,
            disk: one.disk.clone(),
            slow: Duration::ZERO,
            paused_until: Time(0),
            clock_off_s: 0,
            boot_clock: one.boot_clock / 2,
            drift_ppm: -one.drift_ppm,
            up_since: self.now,
            silent: false,
            revoked: one.revoked,
            memory: one.memory,
            has_power: false,
        };
        let at = self.machines.len();
        self.clones
            .entry(copy.node)
            .or_insert_with(|| vec![original])
            .push(at);
        self.machines.push(copy);
        self.start(at);
    }

    pub fn put_act(&mut self, at: Time, act: usize) {
        self.put(at, NOBODY, 0, What::Act(act));
    }

    pub fn put_look(&mut self, at: Time) {
        self.put(at, NOBODY, 0, What::Look);
    }

    pub fn put_group(&mut self) {
        self.put(self.now + group::LOOK, NOBODY, 0, What::Group);
    }

    pub fn put(&mut self, at: Time, machine: usize, boot: u32, what: What) {
        let happening = Happening {
            machine,
            boot,
            what,
        };
        self.queue.put(at.max(self.now), happening);
    }

    /// Everything up to the next act or look, or to `end`.
    pub fn advance(&mut self, end: Time) -> Turn {
        while let Some((at, happening)) = self.queue.take(end) {
            self.now = at;
            match happening.what {
                What::Act(act) => return Turn::Act(act),
                What::Look => return Turn::Look,
                What::Group => self.on_group(),
                What::Shims => self.on_shims(happening.machine),
                What::GoesOn => self.goes_on(happening.machine),
                _ => self.happen(happening),
            }
        }
        self.now = end;
        Turn::Over
    }

    fn happen(&mut self, happening: Happening) {
        let Happening {
            machine,
            boot,
            what,
        } = happening;
        let one = &self.machines[machine];
        if one.running.is_none() || one.boot != boot {
            return;
        }
        if one.paused_until > self.now {
            let until = one.paused_until;
            return self.put(until, machine, boot, what);
        }
        let now = self.now;
        match what {
            What::Core => self.on_core_wake(machine),
            What::Packet { from, payload } => {
                self.trace.event(now, machine, 1);
                self.trace.bytes(&payload);
                self.tell(machine, Event::Received { from, payload });
            }
            What::Plane(later) => {
                self.trace.event(now, machine, 2);
                self.with_plane(machine, |plane, rng| plane.happen(later, rng, now));
            }
            What::Client => self.on_client_wake(machine),
            What::Ask { from, boot, ask } => self.on_ask(machine, (from, boot), ask),
            What::Push { to, boot } => {
                if self.commits(machine)
                    && let Some(answer) = self.host.push(to, boot)
                {
                    self.carry(machine, to, boot, What::Answer(answer));
                }
            }
            What::Answer(answer) => {
                self.trace.event(now, machine, 3);
                if let Some(running) = &mut self.machines[machine].running {
                    running.client.on_answer(answer, &mut self.tables);
                }
                self.on_client_wake(machine);
                self.replace_next(machine);
            }
            What::Report => self.on_report(machine),
            What::Reported { node, report } => {
                self.trace.event(now, machine, 12);
                self.on_reported(machine, node, report);
            }
            What::Lookout => self.on_lookout(machine),
            What::Lease(what) => self.on_lease(machine, what),
            What::Shims | What::GoesOn | What::Group | What::Act(_) | What::Look => {}
        }
    }

    /// A reliable stream: what is lost comes later, what is cut does not come.
    pub fn carry(&mut self, from: usize, to: usize, boot: u32, what: What) {
        if self.network.cuts.contains(&(from, to)) {
            return;
        }
        let (one, other) = (self.machines[from].zone_at, self.machines[to].zone_at);
        let distance = self.network.distance(one, other);
        let mut delay =
            distance + part(distance, &mut self.rng) + part(self.machines[to].slow, &mut self.rng);
        while self.rng.unit() < self.network.loss {
            delay += distance * 3 + Duration::from_millis(25);
        }
        self.put(self.now + delay, to, boot, what);
    }

    /// Who does not lead, or leads nobody, has no answer.
    fn on_ask(&mut self, at: usize, (from, boot): (usize, u32), ask: Ask) {
        if !self.commits(at) {
            return;
        }
        if let Some(answer) = self.ask_host(at, (from, boot), ask) {
            self.carry(at, from, boot, What::Answer(answer));
        }
    }

    /// Of the leader `at`.
    pub fn ask_host(&mut self, at: usize, (from, boot): (usize, u32), ask: Ask) -> Option<Answer> {
        let before = self.host.revision();
        let (answer, pushes) = self.host.on_ask((from, boot), ask, self.now, &mut self.rng);
        let after = self.host.revision();
        if after != before {
            self.trace.event(self.now, from, 4);
            self.trace.word(after.0);
            self.check_places(before);
            self.look_out_at(at, self.now + GATHER);
        }
        let own_boot = self.machines[at].boot;
        for (to, boot, lag) in pushes {
            self.put(self.now + lag, at, own_boot, What::Push { to, boot });
        }
        answer
    }

    fn on_report(&mut self, at: usize) {
        let now = self.now;
        let (node, memory) = (self.machines[at].node, self.machines[at].memory);
        let Some(running) = &mut self.machines[at].running else {
            return;
        };
        if running.report_at.is_none_or(|due| due > now) {
            return;
        }
        running.report_at = None;
        if let Some(leader) = self.group.leader {
            let report = Arc::new(running.plane.report(memory));
            let boot = self.machines[leader].boot;
            self.carry(at, leader, boot, What::Reported { node, report });
        }
        self.put_report(at, now + REPORT_AGAIN);
    }

    fn put_report(&mut self, at: usize, when: Time) {
        let boot = self.machines[at].boot;
        let Some(running) = &mut self.machines[at].running else {
            return;
        };
        if running.report_at.is_none_or(|due| when < due) {
            running.report_at = Some(when);
            self.put(when, at, boot, What::Report);
        }
    }

    pub fn start(&mut self, at: usize) {
        if self.machines[at].running.is_some() {
            return;
        }
        let seed = self.rng.next_u64();
        let nonce = u32::try_from(self.rng.below(1 << 32)).unwrap_or_default();
        let now = self.now;
        let machine = &mut self.machines[at];
        machine.boot += 1;
        machine.up_since = now;
        machine.silent = false;
        let start = Start {
            node: machine.node,
            nonce,
            remembered: machine.disk.epoch,
            wall: machine.wall(now),
            attributes: format!(
                "{} in {}, boot {}",
                machine.name, machine.zone, machine.boot
            )
            .into_bytes(),
        };
        let core = Membership::new(start, self.parameters.clone(), seed, machine.local(now));
        machine.has_power = true;
        let left = machine.disk.replicas.clone();
        let settings = Settings {
            node: machine.node,
            repair: self.repair.clone(),
            ..Settings::default()
        };
        let plane = Plane::new(seed, settings, &left, &mut self.rng, now);
        machine.running = Some(Running {
            core,
            wake: None,
            table: Arc::default(),
            table_at: Time(0),
            client: Client::default(),
            client_wake: None,
            plane,
            leads: false,
            lookout: None,
            reports: BTreeMap::new(),
            report_at: None,
            leases: lease::Leases::default(),
        });
        self.trace.event(now, at, 5);
        let rows = self.machines[at].disk.rows.clone();
        if !rows.is_empty() {
            self.tell_table(at, rows);
        }
        if !self.bare {
            if !self.group.began {
                self.group.began = true;
                self.put_group();
            }
            self.tend_group();
            self.put_report(at, now + REPORT);
            self.join(at);
            if let Some(desired) = self.machines[at].disk.desired.clone() {
                self.with_plane(at, |plane, rng| plane.want(desired, rng, now));
            }
            self.on_client_wake(at);
        }
    }

    /// Its row in the node table, once.
    fn join(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        let row = serde_json::to_vec(&table::record(machine)).unwrap_or_default();
        let key = node_key(machine.node);
        if let Some(running) = &mut machine.running {
            running.client.write(Transaction {
                compare: vec![node::store::Compare::Absent(key.clone())],
                then: vec![Operation::Put(key, row)],
                otherwise: Vec::new(),
            });
        }
    }

    /// A write by a leader, until it is done.
    pub fn write(&mut self, at: usize, transaction: Transaction) {
        if let Some(running) = &mut self.machines[at].running {
            running.client.write(transaction);
        }
        self.on_client_wake(at);
    }

    pub fn power_off(&mut self, at: usize) {
        self.trace.event(self.now, at, 6);
        self.end_agent(at);
        let machine = &mut self.machines[at];
        machine.has_power = false;
        machine.paused_until = Time(0);
        for process in machine.disk.replicas.values_mut() {
            process.cut();
        }
    }

    /// Its agent alone ends: replicas go on, and whoever is asked later may start
    /// it again.
    pub fn kill(&mut self, at: usize) {
        self.trace.event(self.now, at, 13);
        self.end_agent(at);
    }

    fn end_agent(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        if let Some(running) = machine.running.take() {
            machine.disk.replicas = running.plane.processes;
        }
        if !self.bare {
            self.tend_group();
        }
    }

    fn on_client_wake(&mut self, at: usize) {
        if self.bare {
            return;
        }
        let now = self.now;
        let Some(running) = &mut self.machines[at].running else {
            return;
        };
        running.client_wake = running.client_wake.filter(|wake| *wake > now);
        let asks = running.client.asks(now);
        let rows = running.client.rows.len();
        let is_time = rows <= TABLE_AT_ONCE_MAX || now >= running.table_at + TABLE_EVERY;
        let table = (running.client.rows_changed && is_time).then(|| {
            running.client.rows_changed = false;
            running.table_at = now;
            running.client.rows.clone()
        });
        let desired = std::mem::take(&mut running.client.desired_changed)
            .then(|| running.client.desired.clone());
        let boot = self.machines[at].boot;
        // Nobody answers where nobody leads.
        for (ask, leader) in asks.into_iter().zip(std::iter::repeat(self.group.leader)) {
            let Some(leader) = leader else { break };
            let store_boot = self.machines[leader].boot;
            let from = at;
            self.carry(at, leader, store_boot, What::Ask { from, boot, ask });
        }
        if let Some(table) = table {
            self.machines[at].disk.rows = table.clone();
            self.tell_table(at, table);
        }
        if let Some(desired) = desired {
            self.machines[at].disk.desired = Some(desired.clone());
            self.with_plane(at, |plane, rng| plane.want(desired, rng, now));
        }
        if let Some(running) = &mut self.machines[at].running {
            let next = running
                .client
                .next_wake()
                .max(now + Duration::from_millis(1));
            if running.client_wake.is_none_or(|wake| next < wake) {
                running.client_wake = Some(next);
                self.put(next, at, boot, What::Client);
            }
        }
    }

    pub fn tell_table(&mut self, at: usize, table: Arc<Table>) {
        if let Some(running) = &mut self.machines[at].running {
            running.table = table.clone();
        }
        self.tell(at, Event::Table(table));
    }

    pub fn with_plane(&mut self, at: usize, act: impl FnOnce(&mut Plane, &mut Rng)) {
        let (now, boot) = (self.now, self.machines[at].boot);
        let local = self.machines[at].local(now);
        let Some(running) = &mut self.machines[at].running else {
            return;
        };
        let plane = &mut running.plane;
        plane.local = local;
        act(plane, &mut self.rng);
        let later = std::mem::take(&mut plane.later);
        let wake = plane.new_wake(now);
        if let Some(broken) = plane.broken.take() {
            self.check.broken(now, &broken);
        }
        self.trace.word(running.plane.decisions);
        let says_more = std::mem::take(&mut running.plane.status_changed);
        if says_more {
            self.put_report(at, now + REPORT);
        }
        for (wait, what) in later {
            self.put(now + wait, at, boot, What::Plane(what));
        }
        if let Some(wake) = wake {
            self.put(wake, at, boot, What::Plane(Later::Tick));
        }
        self.tend_leases(at);
    }

    fn on_core_wake(&mut self, at: usize) {
        let local = self.machines[at].local(self.now);
        let Some(running) = &mut self.machines[at].running else {
            return;
        };
        if running.wake.is_none_or(|wake| wake > self.now) {
            // A sooner one came after it was put, and was followed by another.
            return;
        }
        running.wake = None;
        if running.core.next_wake().is_some_and(|wake| wake <= local) {
            self.trace.event(self.now, at, 0);
            self.tell(at, Event::Tick);
        } else {
            self.put_core_wake(at);
        }
    }

    pub fn tell(&mut self, at: usize, event: Event) {
        let local = self.machines[at].local(self.now);
        let Some(running) = &mut self.machines[at].running else {
            return;
        };
        let effects = running.core.handle(event, local);
        for effect in effects {
            self.carry_out(at, effect);
        }
        self.put_core_wake(at);
    }

    fn put_core_wake(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        let boot = machine.boot;
        let Some(running) = &machine.running else {
            return;
        };
        let Some(next) = running.core.next_wake().map(|next| machine.global(next)) else {
            return;
        };
        if running.wake.is_none_or(|wake| next < wake) {
            if let Some(running) = &mut machine.running {
                running.wake = Some(next);
            }
            self.put(next, at, boot, What::Core);
        }
    }

    fn carry_out(&mut self, at: usize, effect: Effect) {
        let now = self.now;
        match effect {
            Effect::Send { to, payload } => self.send(at, to, payload),
            Effect::Reach { node, is, life, .. } => {
                self.trace.event(now, at, 7);
                self.trace.word(node.0 << 3 | is as u64);
                self.check_turn(at, node, is, life);
                self.look_out_at(at, now + GATHER);
            }
            Effect::Attributes { .. } => {}
            Effect::Remember { epoch } => self.machines[at].disk.epoch = Some(epoch),
            Effect::Cloned { node, .. } => {
                self.trace.event(now, at, 8);
                self.check.cloned.insert(node);
            }
            Effect::Superseded { .. } => {
                self.trace.event(now, at, 9);
                self.machines[at].silent = true;
                let node = self.machines[at].node;
                self.check.superseded.insert(node);
            }
            Effect::Left => {
                self.machines[at].silent = true;
                self.power_off(at);
            }
        }
    }

    /// Of machines with one identity, one that speaks.
    fn machine_of(&mut self, node: NodeId) -> usize {
        if let Some(all) = self.clones.get(&node) {
            let speaking: Vec<usize> = all
                .iter()
                .copied()
                .filter(|at| self.machines[*at].speaks())
                .collect();
            let at = usize::try_from(self.rng.below(speaking.len() as u64)).unwrap_or_default();
            if let Some(found) = speaking.get(at) {
                return *found;
            }
        }
        usize::try_from(node.0 - 1).unwrap_or_default()
    }

    fn send(&mut self, at: usize, to: NodeId, payload: Vec<u8>) {
        self.packets += 1;
        self.packet_bytes += payload.len() as u64;
        self.check_send(at, to);
        let target = self.machine_of(to);
        let (one, other) = (&self.machines[at], &self.machines[target]);
        if other.running.is_none() {
            return;
        }
        let (from, boot, slow) = (one.node, other.boot, one.slow.max(other.slow));
        let ends = ((at, one.zone_at), (target, other.zone_at));
        let [first, second] = self.network.delays(ends.0, ends.1, slow, &mut self.rng);
        if let Some(delay) = second {
            let payload = payload.clone();
            self.put(
                self.now + delay,
                target,
                boot,
                What::Packet { from, payload },
            );
        }
        if let Some(delay) = first {
            self.put(
                self.now + delay,
                target,
                boot,
                What::Packet { from, payload },
            );
        }
    }
}
