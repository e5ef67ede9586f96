//! Attempts of jobs on a node, and the leader's look at them.

use aggregation::membership::Reach;
use jobs::{Effect, End, Event, Now, Record, Verdict};
use kernel::{FencingEpoch, Hash, Name, NodeId, ReplicaId, Revision, ScopedName, Time, UnixMillis};
use node::attempts::{AttemptStatus, attempt_id};
use node::desired::{Applied, Desired, FIRST_NODE};
use node::driver::{Adopted, DriverEvent, Found, Running, Work};
use node::jobs::{Look, machine};
use node::lease::{Ask, Grantor, Lease, TIME_TO_LIVE, rights};
use node::nodes::{NodeRecord, NodeReport, NodeTable};
use node::placing::Known;
use node::{Node, NodeEffect, NodeEvent, Settings};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire::shim::Exit;

const WALL: u64 = 1_700_000_000_000;

fn name() -> ScopedName {
    "p/j".parse().expect("a name")
}

fn desired(more: &str) -> Desired {
    let text =
        format!("[project]\nname = \"p\"\n[job.j]\nrun = {{ process = [\"work\"] }}\n{more}\n");
    let ScopedName { project, name } = name();
    let manifest = manifest::parse(&text, &project).expect("a manifest");
    let applied = Applied {
        number: 1,
        at_unix: UnixMillis(0),
        manifest,
        directory: "/p".into(),
        trees: BTreeMap::new(),
        programs: BTreeMap::new(),
        generations: BTreeMap::from([(name, Revision(1))]),
        placements: BTreeMap::new(),
        epochs: BTreeMap::new(),
        rollouts: BTreeMap::new(),
        origin: FIRST_NODE,
    };
    Desired {
        revision: Revision(1),
        projects: BTreeMap::<Name, Applied>::from([(project, applied)]),
        ..Desired::default()
    }
}

fn clocks() -> Now {
    Now {
        wall: UnixMillis(WALL),
        steady: UnixMillis(WALL),
    }
}

/// The record with all that wants a place on the first node.
fn placed(mut desired: Desired) -> Desired {
    let mut machine = machine(&desired, &name());
    for effect in machine.handle(Event::Tick, clocks()) {
        if let Effect::Place { run, index } = effect {
            let placed = Event::Placed {
                run,
                index,
                node: FIRST_NODE,
                epoch: FencingEpoch(9),
            };
            let _ = machine.handle(placed, clocks());
        }
    }
    let record = machine.into_record();
    desired.jobs.insert(name(), record);
    desired
}

fn first_attempt(desired: &Desired) -> ReplicaId {
    let record = &desired.jobs[&name()];
    let (.., attempt) = record.attempts().next().expect("one goes on");
    attempt_id(&name(), attempt)
}

fn ended(mut desired: Desired, end: End) -> Desired {
    let mut machine = machine(&desired, &name());
    let _ = machine.handle(Event::Ended { attempt: 1, end }, clocks());
    desired.jobs.insert(name(), machine.into_record());
    desired
}

#[test]
fn an_end_that_is_heard_of_before_what_was_found_is_not_lost() {
    let desired = placed(desired(""));
    let replica = first_attempt(&desired);
    let running = Running {
        pid: 7,
        address: None,
        since: Time(1),
    };
    let found = vec![Adopted {
        replica: replica.clone(),
        state: Found::Running(running),
    }];
    // It was running when the driver looked, and ends before or after that is told.
    let exited = NodeEvent::Driver(DriverEvent::Exited {
        replica: replica.clone(),
        exit: Exit::Code(0),
        at: Time(2),
    });
    for is_early in [true, false] {
        let adopted = NodeEvent::Adopted(found.clone());
        let mut told = vec![adopted, exited.clone()];
        if is_early {
            told.reverse();
        }
        let mut node = Node::new(1, Settings::default());
        for event in told {
            let _ = node.handle(event, Time(2));
        }
        let effects = node.handle(NodeEvent::Desired(desired.clone()), Time(3));
        assert!(starts(&effects).is_empty());
        let status = node.status().attempts[&replica].clone();
        assert_eq!(status, AttemptStatus::Ended(End::Succeeded), "{is_early}");
    }
}

fn node(found: Vec<Adopted>) -> Node {
    let mut node = Node::new(1, Settings::default());
    let _ = node.handle(NodeEvent::Adopted(found), Time(1));
    node
}

fn starts(effects: &[NodeEffect]) -> Vec<&ReplicaId> {
    let starts = effects.iter().filter_map(|effect| match effect {
        NodeEffect::Start { spec } => Some(&spec.id),
        _ => None,
    });
    starts.collect()
}

#[test]
fn an_attempt_starts_once_and_is_told_until_its_end_is_written_down() {
    let desired = placed(desired(
        "environment = { A = \"b\", HOMEOSTAT_JOB_RUN = \"x\" }",
    ));
    let id = first_attempt(&desired);
    let mut node = node(Vec::new());
    let effects = node.handle(NodeEvent::Desired(desired.clone()), Time(2));
    let spec = effects.iter().find_map(|effect| match effect {
        NodeEffect::Start { spec } => Some(spec),
        _ => None,
    });
    let spec = spec.expect("it starts");
    assert!(!spec.leased && matches!(&spec.work, Work::Process { .. }));
    for (variable, value) in [
        ("A", "b"),
        ("HOMEOSTAT_JOB_RUN", "1"),
        ("HOMEOSTAT_JOB_INDEX", "0"),
        ("HOMEOSTAT_JOB_INDICES", "1"),
        ("HOMEOSTAT_JOB_ATTEMPT", "1"),
        ("HOMEOSTAT_EPOCH", "9"),
    ] {
        assert_eq!(spec.environment[variable], value, "{variable}");
    }
    let again = node.handle(NodeEvent::Desired(desired.clone()), Time(3));
    assert!(starts(&again).is_empty());
    let (replica, at) = (id.clone(), Time(4));
    let started = DriverEvent::Started {
        replica,
        pid: 7,
        address: None,
        at,
    };
    let _ = node.handle(NodeEvent::Driver(started), at);
    assert_eq!(
        node.status().attempts[&id],
        AttemptStatus::Running { pid: 7 }
    );
    let replica = id.clone();
    let exit = Exit::Code(0);
    let exited = DriverEvent::Exited { replica, exit, at };
    let _ = node.handle(NodeEvent::Driver(exited), at);
    let told = AttemptStatus::Ended(End::Succeeded);
    assert_eq!(node.status().attempts[&id], told);
    let written = ended(desired, End::Succeeded);
    let effects = node.handle(NodeEvent::Desired(written), Time(5));
    let removed = NodeEffect::Remove { replica: id };
    assert!(effects.contains(&removed), "{effects:?}");
    assert!(node.status().attempts.is_empty());
}

#[test]
fn what_an_earlier_agent_began_is_not_begun_again() {
    let desired = placed(desired(""));
    let replica = first_attempt(&desired);
    for (state, told) in [
        (
            Found::Ended(Some(Exit::Code(3))),
            End::Failed("exit code 3".to_owned()),
        ),
        (
            Found::Ended(None),
            End::Unknown("its node does not know whether it ran".to_owned()),
        ),
    ] {
        let replica = replica.clone();
        let found = vec![Adopted {
            replica: replica.clone(),
            state,
        }];
        let mut node = node(found);
        let effects = node.handle(NodeEvent::Desired(desired.clone()), Time(2));
        assert!(starts(&effects).is_empty());
        let status = node.status().attempts[&replica].clone();
        assert_eq!(status, AttemptStatus::Ended(told));
    }
}

#[test]
fn what_runs_once_starts_only_under_a_lease_from_its_epoch_on() {
    let desired = placed(desired("once = true"));
    let mut node = node(Vec::new());
    let effects = node.handle(NodeEvent::Desired(desired.clone()), Time(2));
    assert!(starts(&effects).is_empty());
    let knows = node.status().singletons[&name()];
    assert_eq!((knows.epoch, knows.runs), (Some(FencingEpoch(9)), false));
    for (lease, begins) in [
        (Lease::Over, false),
        (Lease::Held(FencingEpoch(10)), false),
        (Lease::Held(FencingEpoch(9)), true),
    ] {
        let leases = BTreeMap::from([(name(), lease)]);
        let effects = node.handle(NodeEvent::Leases(leases), Time(3));
        assert_eq!(!starts(&effects).is_empty(), begins, "{lease:?}");
    }
    // What is given up is stopped, also when it was only starting.
    let mut gone = desired;
    let record = gone.jobs.get_mut(&name()).expect("a record");
    record.runs.clear();
    let _ = node.handle(NodeEvent::Desired(gone.clone()), Time(4));
    let id = {
        let mut attempts = node.status().attempts.into_keys();
        attempts.next().expect("it is starting")
    };
    let started = DriverEvent::Started {
        replica: id.clone(),
        pid: 7,
        address: None,
        at: Time(5),
    };
    let effects = node.handle(NodeEvent::Driver(started), Time(5));
    let stops = |effect: &NodeEffect| matches!(effect, NodeEffect::Stop { .. });
    assert!(effects.iter().any(stops), "{effects:?}");
    let exited = DriverEvent::Exited {
        replica: id.clone(),
        exit: Exit::Signal(15),
        at: Time(6),
    };
    let effects = node.handle(NodeEvent::Driver(exited), Time(6));
    assert!(effects.contains(&NodeEffect::Remove { replica: id }));
}

/// A leader of three nodes.
struct Leader {
    desired: Desired,
    nodes: NodeTable,
    reports: BTreeMap<NodeId, NodeReport>,
    grantor: Grantor,
    dead: BTreeSet<NodeId>,
    now: Time,
}

impl Leader {
    fn new(more: &str) -> Self {
        let record = |at: u64| {
            let called = Name::new(format!("n{at}")).expect("a name");
            let zone = "/z".parse().expect("a zone");
            let key = Hash([0; 32]);
            NodeRecord::new(NodeId(at), called, zone, key, UnixMillis(0))
        };
        Self {
            desired: desired(more),
            nodes: (1..=3).map(|at| (NodeId(at), record(at))).collect(),
            reports: BTreeMap::new(),
            grantor: Grantor::new(Time(0)),
            dead: BTreeSet::new(),
            now: Time(0) + Duration::from_secs(10),
        }
    }

    fn look(&mut self) -> Vec<Effect> {
        let dead = self.dead.clone();
        let up = |node: NodeId| !dead.contains(&node);
        let passed = self.now.0 / 1_000_000;
        let clock = UnixMillis(WALL + passed);
        self.desired.revision.0 += 1;
        let look = Look {
            nodes: &self.nodes,
            reports: &self.reports,
            grantor: &self.grantor,
            reach: &|node| if up(node) { Reach::Alive } else { Reach::Dead },
            known: &|node| Known::reach(up(node)),
            called: &|node| format!("n{}", node.0),
            epoch: self.desired.next_epoch(),
            since: Time(0),
            now: self.now,
            clocks: Now {
                wall: clock,
                steady: clock,
            },
        };
        let (all, _) = look.at(&self.desired);
        let mut effects = Vec::new();
        for one in all {
            self.grantor.job_changes(&one.job, &one.placed, self.now);
            self.grantor.is_sure(&one.job);
            self.desired.jobs.insert(one.job, one.record);
            effects.extend(one.effects);
        }
        effects
    }

    fn record(&self) -> &Record {
        &self.desired.jobs[&name()]
    }

    fn on(&self) -> BTreeSet<NodeId> {
        let attempts = self.record().attempts();
        attempts.map(|(.., attempt)| attempt.node).collect()
    }

    fn says(&mut self, attempt: ReplicaId, node: NodeId, status: AttemptStatus) {
        let report = self.reports.entry(node).or_default();
        report.status.attempts.insert(attempt, status);
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
    }
}

#[test]
fn parts_are_spread_and_a_lost_nodes_are_tried_elsewhere() {
    let mut leader = Leader::new("indices = 3\nbackoff = \"1s\"");
    let _ = leader.look();
    assert_eq!(leader.on().len(), 3, "{:?}", leader.record());
    leader.dead.insert(NodeId(2));
    let effects = leader.look();
    assert!(
        matches!(effects.as_slice(), [Effect::Retried { .. }]),
        "{effects:?}"
    );
    leader.pass(Duration::from_secs(2));
    let _ = leader.look();
    assert_eq!(leader.record().attempts().count(), 3);
    assert!(!leader.on().contains(&NodeId(2)));
}

#[test]
fn what_runs_once_is_unknown_only_when_its_nodes_lease_is_over() {
    let mut leader = Leader::new("once = true\nnode = \"n2\"");
    let _ = leader.look();
    let id = first_attempt(&leader.desired);
    let ask = || Ask {
        number: 1,
        singletons: BTreeMap::new(),
    };
    let allowed = rights(&leader.desired);
    let grant = leader.grantor.grant(NodeId(2), ask(), &allowed, leader.now);
    assert!(grant.epochs.contains_key(&name()));
    let other = leader.grantor.grant(NodeId(3), ask(), &allowed, leader.now);
    assert!(other.epochs.is_empty(), "it is not placed there");
    leader.says(id.clone(), NodeId(2), AttemptStatus::Running { pid: 1 });
    leader.dead.insert(NodeId(2));
    leader.pass(TIME_TO_LIVE / 2);
    let _ = leader.look();
    assert_eq!(leader.record().runs[0].word(), "going", "it may run there");
    leader.pass(TIME_TO_LIVE);
    let _ = leader.look();
    let verdict = leader.record().runs[0].verdict.clone();
    let is_unknown = matches!(&verdict, Some(Verdict::Unknown(why)) if why.contains("n2"));
    assert!(is_unknown, "{verdict:?}");
    assert!(rights(&leader.desired).values().all(BTreeMap::is_empty));
    // How it ended is said too late, and changes nothing.
    leader.says(id, NodeId(2), AttemptStatus::Ended(End::Succeeded));
    assert_eq!(leader.look(), []);
}

#[test]
fn what_runs_once_and_was_never_begun_is_placed_again() {
    let mut leader = Leader::new("once = true\nbackoff = \"1s\"");
    let _ = leader.look();
    let on = leader.on();
    leader.dead.extend(on.clone());
    leader.pass(TIME_TO_LIVE);
    let effects = leader.look();
    assert!(
        matches!(effects.as_slice(), [Effect::Retried { .. }]),
        "{effects:?}"
    );
    leader.pass(Duration::from_secs(2));
    let _ = leader.look();
    assert!(leader.on().is_disjoint(&on));
    // Another leader does not know whether it was: it waits, and says unknown.
    leader.grantor = Grantor::new(leader.now);
    leader.dead.extend(leader.on());
    leader.pass(TIME_TO_LIVE);
    let _ = leader.look();
    assert_eq!(leader.record().runs[0].word(), "unknown");
}

#[test]
fn what_has_no_place_waits_and_says_why() {
    let mut leader = Leader::new("deadline = \"1m\"");
    leader.dead.extend([NodeId(1), NodeId(2), NodeId(3)]);
    let _ = leader.look();
    assert!(leader.record().runs[0].waits.is_some());
    leader.pass(Duration::from_secs(61));
    let _ = leader.look();
    let verdict = leader.record().runs[0].verdict.clone();
    let why = verdict.as_ref().and_then(Verdict::why).expect("a reason");
    assert!(why.contains("not done after 1m"), "{why}");
}
