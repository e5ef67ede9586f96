//! The law of jobs, whatever befalls one: attempts that fail, end unseen or are
//! lost, reports that come twice and late, leaders that restart from what was
//! written, clocks that jump.

use jobs::{Cause, Effect, End, Event, Machine, Now, Part, Record, Verdict};
use kernel::{FencingEpoch, Name, NodeId, Revision, UnixMillis};
use manifest::{Job, Overlap};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const BEGIN: u64 = 1_700_000_000_000;
const HOUR: i64 = 3_600_000;

#[derive(Clone, Debug)]
enum Op {
    Pass {
        millis: u64,
    },
    /// Somebody sets the wall's clock.
    Jump {
        millis: i64,
    },
    Ask,
    Cancel,
    /// All that wants a place gets one, or none does.
    Place {
        refuse: bool,
    },
    Running {
        which: usize,
    },
    End {
        which: usize,
        how: u8,
    },
    Lost {
        which: usize,
        ran: bool,
    },
    /// An old report comes again.
    Again {
        which: usize,
    },
    /// Another leads, whose clock differs; what was not written is lost.
    Lead {
        offset: i64,
        forgets: bool,
    },
    Apply,
    Remove,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let which = 0..32_usize;
    let op = prop_oneof![
        6 => (0..120_000_u64).prop_map(|millis| Op::Pass { millis }),
        1 => (-HOUR..HOUR).prop_map(|millis| Op::Jump { millis }),
        1 => Just(Op::Ask),
        1 => Just(Op::Cancel),
        8 => any::<bool>().prop_map(|refuse| Op::Place { refuse }),
        2 => which.clone().prop_map(|which| Op::Running { which }),
        8 => (which.clone(), 0..4_u8).prop_map(|(which, how)| Op::End { which, how }),
        1 => (which.clone(), any::<bool>()).prop_map(|(which, ran)| Op::Lost { which, ran }),
        2 => which.prop_map(|which| Op::Again { which }),
        2 => (-HOUR..HOUR, any::<bool>())
            .prop_map(|(offset, forgets)| Op::Lead { offset, forgets }),
        1 => Just(Op::Apply),
        1 => Just(Op::Remove),
    ];
    prop::collection::vec(op, 1..120)
}

fn job() -> impl Strategy<Value = Job> {
    let overlap = prop_oneof![
        Just(Overlap::Skip),
        Just(Overlap::Allow),
        Just(Overlap::Replace)
    ];
    let indices = 1..6_u32;
    let spans = (prop::option::of(1..20_u64), prop::option::of(1..10_u64));
    (
        indices,
        1..6_u32,
        0..4_u32,
        any::<bool>(),
        any::<bool>(),
        overlap,
        spans,
    )
        .prop_map(
            |(indices, parallel, retries, once, scheduled, overlap, (deadline, timeout))| {
                let text = "[project]\nname = \"p\"\n[job.j]\nrun = { process = [\"true\"] }\n";
                let schedule = "schedule = \"*/3 * * * *\"\n";
                let text = format!("{text}{}", if scheduled { schedule } else { "" });
                let name = Name::new("p").expect("a name");
                let manifest = manifest::parse(&text, &name).expect("a manifest");
                let job = manifest.jobs[&Name::new("j").expect("a name")].clone();
                Job {
                    indices,
                    parallel: parallel.min(indices),
                    retries,
                    once,
                    overlap,
                    deadline: deadline.map(Duration::from_mins),
                    attempt_timeout: timeout.map(Duration::from_mins),
                    backoff: Duration::from_secs(20),
                    keep_runs: 3,
                    ..job
                }
            },
        )
}

/// What became of one part, as the world saw it.
#[derive(Default)]
struct Seen {
    attempts: Vec<u64>,
    successes: u32,
    unknown: bool,
}

struct World {
    job: Job,
    wanted: bool,
    generation: u64,
    /// As it lies in the store.
    written: Record,
    wall: u64,
    steady: u64,
    asked: BTreeSet<(u64, u32)>,
    reports: Vec<Event>,
    parts: BTreeMap<(u64, u32), Seen>,
    instants: BTreeSet<u64>,
    ended: BTreeMap<u64, Verdict>,
    epoch: u64,
}

impl World {
    fn new(job: Job) -> Self {
        Self {
            job,
            wanted: true,
            generation: 1,
            written: Record::default(),
            wall: BEGIN,
            steady: BEGIN,
            asked: BTreeSet::new(),
            reports: Vec::new(),
            parts: BTreeMap::new(),
            instants: BTreeSet::new(),
            ended: BTreeMap::new(),
            epoch: 0,
        }
    }

    fn now(&self) -> Now {
        Now {
            wall: UnixMillis(self.wall),
            steady: UnixMillis(self.steady),
        }
    }

    /// One event; what comes of it is written, unless the leader is lost before.
    fn handle(&mut self, event: &Event, is_written: bool) {
        let job = self.job.clone();
        let job = self.wanted.then_some(&job);
        let record = self.written.clone();
        let mut machine = Machine::new(job, Revision(self.generation), record);
        let effects = machine.handle(event.clone(), self.now());
        if !is_written {
            return;
        }
        let before = std::mem::replace(&mut self.written, machine.into_record());
        self.note_attempts(&before);
        self.note_end(&before, event);
        self.asked.clear();
        for effect in effects {
            match effect {
                Effect::Place { run, index } => {
                    self.asked.insert((run, index));
                }
                Effect::Began {
                    cause: Cause::Scheduled(due),
                    ..
                } => {
                    assert!(due.0 <= self.wall, "begun before it was due");
                    assert!(self.instants.insert(due.0), "{due:?} began two runs");
                }
                Effect::Finished { run, verdict } => self.note_verdict(run, verdict),
                _ => {}
            }
        }
        self.check();
    }

    fn note_attempts(&mut self, before: &Record) {
        let known: BTreeSet<u64> = before.attempts().map(|(.., it)| it.serial).collect();
        for (run, index, attempt) in self.written.attempts() {
            if known.contains(&attempt.serial) {
                continue;
            }
            let seen = self.parts.entry((run.number, index)).or_default();
            assert!(!seen.unknown || !run.once, "run again after an unknown end");
            assert_eq!(seen.successes, 0, "run again after it had succeeded");
            seen.attempts.push(attempt.serial);
            let count = u32::try_from(seen.attempts.len()).expect("few");
            assert_eq!(attempt.number, count);
            assert!(count <= self.job.retries + 1, "{count} attempts");
            if let Some(deadline) = self.job.deadline {
                let took = attempt.placed.0 - run.began.0;
                assert!(
                    u128::from(took) < deadline.as_millis(),
                    "after the deadline"
                );
            }
        }
    }

    /// What a report ended, if it was the first to.
    fn note_end(&mut self, before: &Record, event: &Event) {
        let (serial, end) = match event {
            Event::Ended { attempt, end } => (*attempt, end.clone()),
            Event::Lost {
                attempt,
                may_have_run: true,
                ..
            } => (*attempt, End::Unknown(String::new())),
            _ => return,
        };
        let mut attempts = before.attempts();
        let Some((run, index, attempt)) = attempts.find(|(.., it)| it.serial == serial) else {
            return;
        };
        let seen = self.parts.entry((run.number, index)).or_default();
        match end {
            End::Succeeded if attempt.stopping.is_none() => seen.successes += 1,
            End::Unknown(_) => seen.unknown = true,
            _ => {}
        }
        assert!(seen.successes <= 1, "it succeeded twice");
    }

    fn note_verdict(&mut self, run: u64, verdict: Verdict) {
        if verdict == Verdict::Succeeded {
            for index in 0..self.job.indices {
                let seen = &self.parts[&(run, index)];
                assert_eq!(seen.successes, 1, "part {index} of run {run}");
            }
        } else {
            assert!(verdict.why().is_some_and(|why| !why.is_empty()));
        }
        assert_eq!(
            self.ended.insert(run, verdict),
            None,
            "run {run} ended twice"
        );
    }

    /// What holds of a record at any moment.
    fn check(&self) {
        let record = &self.written;
        let mut busy = 0;
        for run in record.going() {
            let going = run.attempts().count();
            assert!(going <= self.job.parallel as usize, "{going} at once");
            busy += usize::from(going > 0);
        }
        if self.job.once || self.job.overlap != Overlap::Allow {
            assert!(busy <= 1, "{busy} runs at once");
        }
        let over = record.runs.iter().filter(|run| run.ended.is_some());
        assert!(over.count() <= self.job.keep_runs as usize);
        let bytes = serde_json::to_vec(record).expect("writes");
        assert!(bytes.len() < 1 << 19, "{} bytes", bytes.len());
        let read: Record = serde_json::from_slice(&bytes).expect("reads again");
        assert_eq!(read, *record);
    }

    fn which(&self, which: usize) -> Option<u64> {
        let all: Vec<u64> = self.written.attempts().map(|(.., it)| it.serial).collect();
        Some(*all.get(which % all.len().max(1))?)
    }

    fn place_all(&mut self, refuse: bool) {
        for (run, index) in self.asked.clone() {
            self.epoch += 1;
            let answer = if refuse {
                let why = "no room".to_owned();
                Event::Refused { run, index, why }
            } else {
                Event::Placed {
                    run,
                    index,
                    node: NodeId(1 + self.epoch % 3),
                    epoch: FencingEpoch(self.epoch),
                }
            };
            // Answers to one question come together, and none of them asks again.
            let asked = self.asked.clone();
            self.handle(&answer, true);
            self.asked = asked;
        }
        self.handle(&Event::Tick, true);
    }

    fn report(&mut self, event: Event) {
        self.handle(&event, true);
        self.reports.push(event);
    }

    fn play(&mut self, op: &Op) {
        match op {
            Op::Pass { millis } => {
                self.wall += millis;
                self.steady += millis;
                self.handle(&Event::Tick, true);
            }
            Op::Jump { millis } => {
                self.wall = self.wall.saturating_add_signed(*millis);
                self.handle(&Event::Tick, true);
            }
            Op::Ask => {
                let arguments = vec!["x".to_owned()];
                self.handle(&Event::Asked { arguments }, true);
            }
            Op::Cancel => self.handle(&Event::Cancelled { run: None }, true),
            Op::Place { refuse } => self.place_all(*refuse),
            Op::Running { which } => {
                if let Some(attempt) = self.which(*which) {
                    self.report(Event::Running { attempt });
                }
            }
            Op::End { which, how } => {
                let end = match how {
                    0 | 1 => End::Succeeded,
                    2 => End::Failed("exit code 1".to_owned()),
                    _ => End::Unknown("nobody saw".to_owned()),
                };
                if let Some(attempt) = self.which(*which) {
                    self.report(Event::Ended { attempt, end });
                }
            }
            Op::Lost { which, ran } => {
                if let Some(attempt) = self.which(*which) {
                    let (why, may_have_run) = ("its node was lost".to_owned(), *ran);
                    self.report(Event::Lost {
                        attempt,
                        why,
                        may_have_run,
                    });
                }
            }
            Op::Again { which } => {
                let count = self.reports.len().max(1);
                if let Some(event) = self.reports.get(which % count).cloned() {
                    self.handle(&event, true);
                }
            }
            Op::Lead { offset, forgets } => {
                if *forgets {
                    self.handle(&Event::Tick, false);
                }
                self.steady = self.wall.saturating_add_signed(*offset);
                self.handle(&Event::Tick, true);
            }
            Op::Apply => {
                self.generation += 1;
                self.wanted = true;
                self.handle(&Event::Tick, true);
            }
            Op::Remove => {
                self.wanted = false;
                self.handle(&Event::Tick, true);
            }
        }
    }

    /// Everything works from now on: what was begun comes to its end.
    fn come_to_rest(&mut self) {
        let begun = self.written.runs_begun;
        for _ in 0..200 {
            self.steady += 700_000;
            self.place_all(false);
            while let Some(attempt) = self.which(0) {
                let end = End::Succeeded;
                self.handle(&Event::Ended { attempt, end }, true);
                if self.written.runs_begun > begun + 1_000 {
                    return;
                }
            }
            if self.written.going().all(|run| run.number > begun) {
                return;
            }
        }
        panic!("runs that never end: {:#?}", self.written);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn each_part_succeeds_once_or_the_run_ends_with_a_reason(job in job(), ops in ops()) {
        let mut world = World::new(job);
        world.handle(&Event::Tick, true);
        for op in &ops {
            world.play(op);
        }
        world.come_to_rest();
    }
}

fn fixed(more: &str) -> World {
    let text =
        format!("[project]\nname = \"p\"\n[job.j]\nrun = {{ process = [\"true\"] }}\n{more}\n");
    let name = Name::new("p").expect("a name");
    let manifest = manifest::parse(&text, &name).expect("a manifest");
    let mut world = World::new(manifest.jobs[&Name::new("j").expect("a name")].clone());
    world.handle(&Event::Tick, true);
    world
}

fn end_all(world: &mut World, end: &End) {
    while let Some(attempt) = world.which(0) {
        let end = end.clone();
        world.handle(&Event::Ended { attempt, end }, true);
    }
}

fn last(world: &World) -> &jobs::Run {
    world.written.runs.last().expect("a run")
}

#[test]
fn waits_between_attempts_are_doubled_up_to_a_most() {
    let mut world = fixed("retries = 9\nbackoff = \"1m\"");
    let mut waits = Vec::new();
    for _ in 0..9 {
        world.place_all(false);
        end_all(&mut world, &End::Failed("exit code 1".to_owned()));
        let Some(Part::Waiting { due, .. }) = last(&world).parts.get(&0) else {
            panic!("it waits: {:?}", last(&world));
        };
        waits.push((due.0 - world.steady) / 60_000);
        world.steady = due.0;
        world.handle(&Event::Tick, true);
    }
    assert_eq!(waits, [1, 2, 4, 8, 10, 10, 10, 10, 10]);
    world.place_all(false);
    end_all(&mut world, &End::Failed("exit code 1".to_owned()));
    let why = last(&world).verdict.as_ref().and_then(Verdict::why);
    assert_eq!(why, Some("part 0, attempt 10: exit code 1"));
}

#[test]
fn of_several_that_were_missed_the_last_one_runs_if_it_is_not_too_late() {
    let mut world = fixed("schedule = \"0 * * * *\"\ncatch_up = \"10m\"");
    let from = world.wall;
    // Nobody looked for five hours; then the last hour is a moment ago.
    let hour = 3_600_000;
    world.wall = from - from % hour + 5 * hour + 60_000;
    world.handle(&Event::Tick, true);
    assert_eq!(world.written.runs.len(), 1);
    world.handle(&Event::Tick, true);
    assert_eq!(world.written.runs.len(), 1, "once");
    end_all(&mut world, &End::Succeeded);
    world.wall += 2 * hour + 20 * 60_000;
    world.handle(&Event::Tick, true);
    assert_eq!(world.written.runs.len(), 1, "too late by 21 minutes");
    // An hour back, and forth again: the same hour is no other one.
    world.wall -= hour;
    world.handle(&Event::Tick, true);
    world.wall += hour;
    world.handle(&Event::Tick, true);
    assert_eq!(world.written.runs.len(), 1);
}

#[test]
fn a_clock_that_was_years_ahead_does_not_stop_a_schedule_for_years() {
    let mut world = fixed("schedule = \"0 * * * *\"");
    let now = world.wall;
    world.wall = now + 40_000_000_000;
    world.handle(&Event::Tick, true);
    world.wall = now;
    world.handle(&Event::Tick, true);
    world.wall = now + 3_600_000;
    let before = world.written.runs_begun;
    world.handle(&Event::Tick, true);
    assert_eq!(world.written.runs_begun, before + u64::from(before == 0));
    assert!(world.written.dealt_until.0 <= now + 3_600_000);
}

fn lose(world: &mut World, which: usize, why: &str, may_have_run: bool) {
    let lost = Event::Lost {
        attempt: world.which(which).expect("it goes on"),
        why: why.to_owned(),
        may_have_run,
    };
    world.handle(&lost, true);
}

#[test]
fn one_part_that_ran_once_and_ended_unseen_ends_the_run_and_stops_the_others() {
    let mut world = fixed("once = true\nindices = 3\nretries = 9");
    world.place_all(false);
    lose(&mut world, 1, "its node was lost", true);
    assert_eq!(last(&world).word(), "stopping");
    assert!(
        last(&world)
            .attempts()
            .all(|(.., it)| it.stopping.is_some())
    );
    end_all(&mut world, &End::Failed("signal 15".to_owned()));
    assert_eq!(last(&world).word(), "unknown");
    // It never ran there: it may run elsewhere.
    world.handle(&Event::Asked { arguments: vec![] }, true);
    world.place_all(false);
    lose(&mut world, 0, "its node never began it", false);
    assert_eq!(last(&world).word(), "going");
}

#[test]
fn a_run_that_takes_anothers_place_begins_when_that_one_has_ended() {
    let mut world = fixed("overlap = \"replace\"");
    world.place_all(false);
    world.handle(&Event::Asked { arguments: vec![] }, true);
    assert_eq!(world.written.runs[0].word(), "stopping");
    assert!(world.asked.is_empty(), "it waits");
    end_all(&mut world, &End::Failed("signal 15".to_owned()));
    assert_eq!(world.written.runs[0].word(), "cancelled");
    assert_eq!(world.asked.len(), 1);
    // One that skips declines, and says what goes on.
    world.job.overlap = Overlap::Skip;
    let begun = world.written.runs_begun;
    world.handle(&Event::Asked { arguments: vec![] }, true);
    assert_eq!(world.written.runs_begun, begun);
}
