//! What the plan promises, with holders that behave in every way.

use super::*;
use kernel::Rng;
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    runs_per_holder: 2,
    runs_max: 16,
    run_bytes_min: 256 << 10,
    run_bytes_first: 1 << 20,
    run_bytes_max: 8 << 20,
    run_units_max: 512,
    run_time: Duration::from_millis(500),
    patience: Duration::from_millis(400),
    rest: Duration::from_millis(200),
    failures_max: 5,
};
const PIECE: u64 = 256 << 10;

fn added(units: std::ops::Range<UnitId>) -> Vec<Event> {
    let file = 0;
    let bytes = PIECE;
    units
        .map(|unit| Event::Added { unit, file, bytes })
        .collect()
}

fn millis(at: u64) -> Time {
    Time(0) + Duration::from_millis(at)
}

fn near_and_far() -> Plan {
    Plan::new(
        LIMITS,
        &[Duration::from_millis(1), Duration::from_millis(40)],
    )
}

fn starts(effects: &[Effect]) -> Vec<(RunId, HolderId, Vec<UnitId>)> {
    let start = |effect: &Effect| match effect {
        Effect::Start { run, holder, units } => Some((*run, *holder, units.clone())),
        _ => None,
    };
    effects.iter().filter_map(start).collect()
}

#[test]
fn a_single_unit_is_asked_of_the_nearest_alone_until_it_is_overdue() {
    let mut plan = near_and_far();
    let effects = plan.handle(&added(0..1), millis(0));
    assert_eq!(starts(&effects), [(0, 0, vec![0])]);
    let Some(Effect::WakeAt(at)) = effects.last() else {
        panic!("no time to wake: {effects:?}");
    };
    let before = Time(at.0 - 1);
    assert_eq!(starts(&plan.handle(&[Event::Tick], before)), []);
    assert_eq!(starts(&plan.handle(&[Event::Tick], *at)), [(1, 1, vec![0])]);
    let effects = plan.handle(&[Event::Arrived { run: 1, unit: 0 }], *at);
    assert_eq!(effects, [Effect::Stop(0)]);
}

#[test]
fn many_units_go_to_all_holders_and_no_unit_to_two() {
    let mut plan = near_and_far();
    let runs = starts(&plan.handle(&added(0..100), millis(0)));
    let holders: Vec<HolderId> = runs.iter().map(|(_, holder, _)| *holder).collect();
    assert_eq!(holders, [0, 0, 1, 1]);
    let units: Vec<UnitId> = runs.into_iter().flat_map(|(.., units)| units).collect();
    assert_eq!(units, (0..16).collect::<Vec<_>>());
}

#[test]
fn what_only_a_lost_holder_has_is_said_to_be_stuck() {
    let mut plan = near_and_far();
    let _ = plan.handle(&added(0..1), millis(0));
    let effects = plan.handle(&[Event::Lacking { run: 0, unit: 0 }], millis(1));
    assert_eq!(starts(&effects), [(1, 1, vec![0])]);
    let effects = plan.handle(&[Event::Wrong { run: 1 }], millis(2));
    assert_eq!(effects, [Effect::Stop(1), Effect::Stuck(0)]);
}

#[test]
fn a_holder_that_fails_rests_longer_each_time_and_is_given_up() {
    let mut plan = Plan::new(LIMITS, &[Duration::ZERO]);
    let mut now = millis(0);
    let mut effects = plan.handle(&added(0..1), now);
    for rest_ms in [200, 400, 800, 1_600] {
        let [(run, ..)] = starts(&effects)[..] else {
            panic!("one run: {effects:?}");
        };
        effects = plan.handle(&[Event::Failed { run }], now);
        let wake = now + Duration::from_millis(rest_ms);
        assert_eq!(effects, [Effect::WakeAt(wake)]);
        now = wake;
        effects = plan.handle(&[Event::Tick], now);
    }
    let [(run, ..)] = starts(&effects)[..] else {
        panic!("one run: {effects:?}");
    };
    let effects = plan.handle(&[Event::Failed { run }], now);
    assert_eq!(effects, [Effect::Stuck(0)]);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Good,
    Silent,
    Breaking,
    Lacking,
    Lying,
}

/// Runs a plan against holders of those kinds and rates until all is here, or
/// nothing moves. Returns whether all came, how many bytes were sent, and when.
struct World {
    plan: Plan,
    holders: Vec<(Kind, u64)>,
    /// When which run delivers its next unit, and the rest of them.
    due: BTreeMap<(Time, RunId), (HolderId, VecDeque<UnitId>)>,
    arrived: BTreeSet<UnitId>,
    sent: u64,
    stuck: bool,
    wake: Option<Time>,
    now: Time,
}

impl World {
    fn new(holders: &[(Kind, u64)]) -> Self {
        let distances = vec![Duration::from_millis(10); holders.len()];
        Self {
            plan: Plan::new(LIMITS, &distances),
            holders: holders.to_vec(),
            due: BTreeMap::new(),
            arrived: BTreeSet::new(),
            sent: 0,
            stuck: false,
            wake: None,
            now: Time(0),
        }
    }

    fn step(&mut self, events: &[Event]) {
        let effects = self.plan.handle(events, self.now);
        self.wake = None;
        for effect in effects {
            match effect {
                Effect::Start { run, holder, units } => {
                    let at = self.due_after(holder);
                    self.due.insert((at, run), (holder, units.into()));
                }
                Effect::Stop(run) => self.due.retain(|(_, other), _| *other != run),
                Effect::WakeAt(at) => {
                    assert!(at > self.now, "it wakes in the future");
                    self.wake = Some(at);
                }
                Effect::Stuck(_) => self.stuck = true,
            }
        }
        for holder in 0..self.holders.len() {
            let runs = self.due.values().filter(|(other, _)| *other == holder);
            assert!(runs.count() <= LIMITS.runs_per_holder);
        }
    }

    /// One holder's runs share its rate.
    fn due_after(&self, holder: HolderId) -> Time {
        let (kind, rate) = self.holders[holder];
        let nanos = match kind {
            Kind::Silent => u64::MAX / 2,
            _ => PIECE * 1_000_000_000 / rate * 2,
        };
        self.now + Duration::from_millis(10) + Duration::from_nanos(nanos)
    }

    fn turn(&mut self, rng: &mut Rng) -> bool {
        let next = self.due.keys().next().copied();
        let next = next.filter(|(at, _)| self.wake.is_none_or(|wake| *at <= wake));
        let Some((at, run)) = next else {
            let Some(wake) = self.wake else {
                return false;
            };
            self.now = wake;
            self.step(&[Event::Tick]);
            return true;
        };
        self.now = at;
        let Some((holder, mut units)) = self.due.remove(&(at, run)) else {
            return false;
        };
        let unit = units.pop_front().expect("a run has units");
        let event = match self.holders[holder].0 {
            Kind::Good | Kind::Silent => Event::Arrived { run, unit },
            Kind::Breaking if rng.below(3) > 0 => Event::Arrived { run, unit },
            Kind::Breaking => Event::Failed { run },
            Kind::Lacking => Event::Lacking { run, unit },
            Kind::Lying => Event::Wrong { run },
        };
        if let Event::Arrived { .. } = event {
            self.arrived.insert(unit);
            self.sent += 1;
        }
        let over = matches!(event, Event::Failed { .. } | Event::Wrong { .. });
        if !over && !units.is_empty() {
            let at = self.due_after(holder);
            self.due.insert((at, run), (holder, units));
        }
        self.step(&[event]);
        true
    }
}

fn run(holders: &[(Kind, u64)], units: u64, seed: u64) -> World {
    let mut world = World::new(holders);
    let mut rng = Rng::seeded(seed);
    world.step(&added(0..units));
    for _ in 0..200_000 {
        if world.plan.wanted() == 0 || world.stuck || !world.turn(&mut rng) {
            break;
        }
    }
    world
}

#[test]
fn one_slow_and_one_silent_holder_delay_nothing() {
    let fast = 12_500_000;
    let alone = run(&[(Kind::Good, fast), (Kind::Good, fast)], 400, 1);
    let holders = [
        (Kind::Good, fast / 50),
        (Kind::Silent, fast),
        (Kind::Good, fast),
        (Kind::Good, fast),
    ];
    let mixed = run(&holders, 400, 1);
    assert_eq!(mixed.plan.wanted(), 0);
    let (alone, mixed_time) = (alone.now.0, mixed.now.0);
    assert!(
        mixed_time < alone + alone / 5,
        "{mixed_time} against {alone}"
    );
    assert!(mixed.sent < 400 + 40, "{} were sent", mixed.sent);
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Good),
        Just(Kind::Silent),
        Just(Kind::Breaking),
        Just(Kind::Lacking),
        Just(Kind::Lying),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn all_comes_while_one_good_holder_is_there(
        mut holders in prop::collection::vec((any_kind(), 100_000..100_000_000_u64), 0..6),
        good in 100_000..100_000_000_u64, at: prop::sample::Index,
        units in 1..600_u64, seed: u64,
    ) {
        holders.insert(at.index(holders.len() + 1), (Kind::Good, good));
        let world = run(&holders, units, seed);
        prop_assert!(!world.stuck);
        prop_assert_eq!(world.plan.wanted(), 0);
        prop_assert_eq!(world.arrived.len() as u64, units);
        prop_assert_eq!(world.plan.runs.len(), 0);
        prop_assert!(world.plan.holders.iter().all(|holder| holder.runs == 0));
        prop_assert_eq!(world.plan.open_bytes, 0);
    }

    #[test]
    fn without_a_good_holder_it_ends_by_saying_so(
        holders in prop::collection::vec(
            prop_oneof![Just(Kind::Lacking), Just(Kind::Lying)].prop_map(|kind| (kind, 1_000_000)),
            0..5,
        ),
        units in 1..100_u64,
    ) {
        let world = run(&holders, units, 1);
        prop_assert!(world.stuck);
    }

    #[test]
    fn any_order_of_events_keeps_the_counts_right(
        script in prop::collection::vec((0..6_u8, 0..12_u64, 0..40_u64, 1..2_000_u64), 0..200),
    ) {
        let mut plan = near_and_far();
        let mut now = Time(0);
        for (what, run, unit, wait) in script {
            now = now + Duration::from_millis(wait);
            let event = match what {
                0 => Event::Arrived { run, unit },
                1 => Event::Lacking { run, unit },
                2 => Event::Failed { run },
                4 => Event::Writing { run },
                3 => Event::Added { unit: unit + 1_000 + now.0, file: unit % 3, bytes: PIECE },
                _ => Event::Tick,
            };
            let _ = plan.handle(&[event], now);
            let open: u64 = plan.open.iter().map(|id| plan.units[id].bytes).sum();
            prop_assert_eq!(open, plan.open_bytes);
            for (at, holder) in plan.holders.iter().enumerate() {
                let runs = plan.runs.values().filter(|run| run.holder == at).count();
                prop_assert_eq!(runs, holder.runs);
            }
            for (id, unit) in &plan.units {
                prop_assert_eq!(unit.runs.is_empty(), plan.open.contains(id));
            }
        }
    }
}
