//! Decides which holder is asked for what, and when another is asked as well.
//!
//! In: units of work as they become known, and how the runs given out are
//! doing. Out: ordered [`Effect`]s. A *unit* is one piece or one description; a
//! *run* is one request to one holder for several of them.
//! Holds: each unit is wanted until it has arrived once; a unit has a second
//! run only when the first shows no progress, or would take far longer; nearer
//! holders are filled first; a holder that sent wrong bytes gets no more; when
//! no holder is left for a unit, that is said.
//! Never: reads a clock, does I/O.

use kernel::Time;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub(crate) type UnitId = u64;
pub(crate) type RunId = u64;
pub(crate) type FileId = u64;
/// An index into the holders, nearest first.
pub(crate) type HolderId = usize;

/// What a rate is measured over.
const RATE_WINDOW: Duration = Duration::from_millis(200);
const REST_DOUBLINGS_MAX: u32 = 6;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Runs of one holder at a time: while one ends, the next is on its way.
    pub runs_per_holder: usize,
    /// Of all holders; those that do not move are not counted.
    pub runs_max: usize,
    pub run_bytes_min: u64,
    /// Of a holder whose rate is not known yet.
    pub run_bytes_first: u64,
    pub run_bytes_max: u64,
    pub run_units_max: usize,
    /// What a run should take.
    pub run_time: Duration,
    /// Without progress for so long, others are asked too.
    pub patience: Duration,
    /// After a failure, doubled with each further one.
    pub rest: Duration,
    /// Failures in a row after which a holder is given up.
    pub failures_max: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Added {
        unit: UnitId,
        file: FileId,
        bytes: u64,
    },
    Arrived {
        run: RunId,
        unit: UnitId,
    },
    /// What came is being written: until the run's next event, it is this node
    /// that takes its time.
    Writing {
        run: RunId,
    },
    /// The holder does not have the unit's file.
    Lacking {
        run: RunId,
        unit: UnitId,
    },
    /// The holder sent wrong bytes.
    Wrong {
        run: RunId,
    },
    /// It did not answer, or not in time, or broke off.
    Failed {
        run: RunId,
    },
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Start {
        run: RunId,
        holder: HolderId,
        units: Vec<UnitId>,
    },
    Stop(RunId),
    WakeAt(Time),
    /// No holder is left that could give this.
    Stuck(UnitId),
}

#[derive(Debug)]
struct Unit {
    file: FileId,
    bytes: u64,
    runs: Vec<RunId>,
}

#[derive(Debug)]
struct Run {
    holder: HolderId,
    /// Still to come, in the order asked for.
    left: VecDeque<UnitId>,
    progress_at: Time,
    writing: bool,
}

#[derive(Debug, Default)]
struct State {
    distance: Duration,
    runs: usize,
    /// Bytes per second.
    rate: Option<f64>,
    window_from: Time,
    window_bytes: u64,
    failures: u32,
    rests_until: Time,
    banned: bool,
}

#[derive(Debug)]
pub(crate) struct Plan {
    limits: Limits,
    holders: Vec<State>,
    units: BTreeMap<UnitId, Unit>,
    /// Units in no run, and the bytes of them.
    open: BTreeSet<UnitId>,
    open_bytes: u64,
    runs: BTreeMap<RunId, Run>,
    lacking: BTreeSet<(FileId, HolderId)>,
    next_run: RunId,
}

impl Plan {
    /// `distances`: of the holders, nearest first.
    pub fn new(limits: Limits, distances: &[Duration]) -> Self {
        let holders = distances.iter().map(|&distance| State {
            distance,
            ..State::default()
        });
        Self {
            limits,
            holders: holders.collect(),
            units: BTreeMap::new(),
            open: BTreeSet::new(),
            open_bytes: 0,
            runs: BTreeMap::new(),
            lacking: BTreeSet::new(),
            next_run: 0,
        }
    }

    /// How many units are still wanted.
    pub fn wanted(&self) -> usize {
        self.units.len()
    }

    /// How often in a row a holder has failed.
    pub fn failures(&self, holder: HolderId) -> u32 {
        self.holders[holder].failures
    }

    /// What happened, several things at once; then what is to be done.
    #[must_use = "effects must be carried out"]
    pub fn handle(&mut self, events: &[Event], now: Time) -> Vec<Effect> {
        let mut effects = Vec::new();
        for event in events {
            match *event {
                Event::Added { unit, file, bytes } => self.on_added(unit, file, bytes),
                Event::Arrived { run, unit } => self.on_arrived(run, unit, now, &mut effects),
                Event::Lacking { run, unit } => self.on_lacking(run, unit, now),
                Event::Wrong { run } => self.on_wrong(run, &mut effects),
                Event::Failed { run } => self.on_failed(run, now),
                Event::Writing { run } => {
                    if let Some(found) = self.runs.get_mut(&run) {
                        found.writing = true;
                    }
                }
                Event::Tick => {}
            }
        }
        self.assign(now, &mut effects);
        self.look_ahead(now, &mut effects);
        effects
    }

    fn on_added(&mut self, unit: UnitId, file: FileId, bytes: u64) {
        let runs = Vec::new();
        self.units.insert(unit, Unit { file, bytes, runs });
        self.open.insert(unit);
        self.open_bytes += bytes;
    }

    fn on_arrived(&mut self, run: RunId, unit: UnitId, now: Time, effects: &mut Vec<Effect>) {
        let arrived = self.take_unit(unit);
        let mut touched = arrived
            .as_ref()
            .map_or(Vec::new(), |unit| unit.runs.clone());
        if let Some(found) = self.runs.get_mut(&run) {
            found.progress_at = now;
            found.writing = false;
            found.left.retain(|&left| left != unit);
            let holder = &mut self.holders[found.holder];
            holder.failures = 0;
            if let Some(unit) = arrived {
                holder.count(unit.bytes, now);
            }
            if !touched.contains(&run) {
                touched.push(run);
            }
        }
        for other in touched {
            let Some(found) = self.runs.get(&other) else {
                continue;
            };
            // What comes next on its stream is here already: not worth waiting for.
            let next = found.left.front();
            if next.is_none_or(|next| !self.units.contains_key(next)) {
                let whole = next.is_none() && other == run;
                self.end(other);
                if !whole {
                    effects.push(Effect::Stop(other));
                }
            }
        }
    }

    fn on_lacking(&mut self, run: RunId, unit: UnitId, now: Time) {
        let Some(found) = self.runs.get_mut(&run) else {
            return;
        };
        found.progress_at = now;
        found.writing = false;
        found.left.retain(|&left| left != unit);
        let (holder, done) = (found.holder, found.left.is_empty());
        if let Some(wanted) = self.units.get_mut(&unit) {
            self.lacking.insert((wanted.file, holder));
            wanted.runs.retain(|&other| other != run);
            if wanted.runs.is_empty() && self.open.insert(unit) {
                self.open_bytes += wanted.bytes;
            }
        }
        if done {
            self.end(run);
        }
    }

    fn on_wrong(&mut self, run: RunId, effects: &mut Vec<Effect>) {
        let Some(found) = self.runs.get(&run) else {
            return;
        };
        let holder = found.holder;
        self.holders[holder].banned = true;
        let of_holder = self.runs.iter().filter(|(_, run)| run.holder == holder);
        for other in of_holder.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.end(other);
            effects.push(Effect::Stop(other));
        }
    }

    fn on_failed(&mut self, run: RunId, now: Time) {
        let Some(found) = self.runs.get(&run) else {
            return;
        };
        let holder = &mut self.holders[found.holder];
        // Runs that fail together are one failure.
        if holder.rests_until <= now {
            let doublings = holder.failures.min(REST_DOUBLINGS_MAX);
            holder.rests_until = now + self.limits.rest * 2_u32.pow(doublings);
            holder.failures += 1;
        }
        self.end(run);
    }

    fn take_unit(&mut self, unit: UnitId) -> Option<Unit> {
        let taken = self.units.remove(&unit)?;
        if self.open.remove(&unit) {
            self.open_bytes -= taken.bytes;
        }
        Some(taken)
    }

    /// Forgets a run; what only it would have brought is open again.
    fn end(&mut self, run: RunId) {
        let Some(ended) = self.runs.remove(&run) else {
            return;
        };
        self.holders[ended.holder].runs -= 1;
        for id in ended.left {
            let Some(unit) = self.units.get_mut(&id) else {
                continue;
            };
            unit.runs.retain(|&other| other != run);
            if unit.runs.is_empty() && self.open.insert(id) {
                self.open_bytes += unit.bytes;
            }
        }
    }

    fn assign(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let moving = self.runs.values().filter(|run| self.overdue_at(run) > now);
        let mut places = self.limits.runs_max.saturating_sub(moving.count());
        for holder in 0..self.holders.len() {
            while places > 0 && self.is_free(holder, now) {
                let mut units = self.of_open(holder);
                if units.is_empty() {
                    units = self.of_others(holder, now);
                }
                if units.is_empty() {
                    break;
                }
                effects.push(self.start(holder, units, now));
                places -= 1;
            }
        }
    }

    fn start(&mut self, holder: HolderId, units: Vec<UnitId>, now: Time) -> Effect {
        let run = self.next_run;
        self.next_run += 1;
        for id in &units {
            if let Some(unit) = self.units.get_mut(id) {
                unit.runs.push(run);
                if self.open.remove(id) {
                    self.open_bytes -= unit.bytes;
                }
            }
        }
        let state = &mut self.holders[holder];
        if state.runs == 0 {
            state.window_from = now;
            state.window_bytes = 0;
        }
        state.runs += 1;
        let left = units.iter().copied().collect();
        self.runs.insert(
            run,
            Run {
                holder,
                left,
                progress_at: now,
                writing: false,
            },
        );
        Effect::Start { run, holder, units }
    }

    fn of_open(&self, holder: HolderId) -> Vec<UnitId> {
        let limit = self.run_bytes(holder);
        let mut bytes = 0;
        let mut units = Vec::new();
        for id in &self.open {
            let unit = &self.units[id];
            if self.lacking.contains(&(unit.file, holder)) {
                continue;
            }
            let over = bytes + unit.bytes > limit || units.len() >= self.limits.run_units_max;
            if over && !units.is_empty() {
                break;
            }
            bytes += unit.bytes;
            units.push(*id);
        }
        units
    }

    /// Units that are on their way from elsewhere, but not soon enough.
    fn of_others(&self, holder: HolderId, now: Time) -> Vec<UnitId> {
        let limit = self.run_bytes(holder);
        let late: BTreeSet<RunId> = self
            .runs
            .iter()
            .filter(|(_, run)| run.holder != holder && self.is_late(run, holder, now))
            .map(|(&id, _)| id)
            .collect();
        let mut best = Vec::new();
        for id in &late {
            let run = &self.runs[id];
            let free: Vec<UnitId> = run
                .left
                .iter()
                .copied()
                .filter(|id| self.may_copy(*id, holder, &late))
                .collect();
            // Of one that moves, the half that would come last.
            let overdue = self.overdue_at(run) <= now;
            let from = if overdue { 0 } else { free.len() / 2 };
            let picked = self.up_to(&free[from..], limit);
            if picked.len() > best.len() && (overdue || self.is_worth_it(run, holder, &picked)) {
                best = picked;
            }
        }
        best
    }

    /// Whether a run does not move, or is far slower than the holder.
    fn is_late(&self, run: &Run, holder: HolderId, now: Time) -> bool {
        let last: Vec<UnitId> = run.left.back().copied().into_iter().collect();
        self.overdue_at(run) <= now || self.is_worth_it(run, holder, &last)
    }

    /// Whether each run that was to bring this is late.
    fn may_copy(&self, id: UnitId, holder: HolderId, late: &BTreeSet<RunId>) -> bool {
        let Some(unit) = self.units.get(&id) else {
            return false;
        };
        let is_written = |run: &RunId| {
            let run = self.runs.get(run);
            run.is_some_and(|run| run.writing && run.left.front() == Some(&id))
        };
        !self.lacking.contains(&(unit.file, holder))
            && unit.runs.iter().all(|run| late.contains(run))
            && !unit.runs.iter().any(is_written)
    }

    fn up_to(&self, units: &[UnitId], limit: u64) -> Vec<UnitId> {
        let mut bytes = 0;
        let within = units.iter().take_while(|id| {
            let first = bytes == 0;
            bytes += self.units.get(id).map_or(0, |unit| unit.bytes);
            first || bytes <= limit
        });
        within.copied().take(self.limits.run_units_max).collect()
    }

    /// Whether the holder would have them in less than half the time.
    fn is_worth_it(&self, run: &Run, holder: HolderId, units: &[UnitId]) -> bool {
        let (victim, thief) = (&self.holders[run.holder], &self.holders[holder]);
        let (Some(slow), Some(fast)) = (victim.rate, thief.rate) else {
            return false;
        };
        let bytes = |units: &mut dyn Iterator<Item = &UnitId>| {
            let all: u64 = units
                .filter_map(|id| self.units.get(id))
                .map(|unit| unit.bytes)
                .sum();
            float(all)
        };
        let share = slow / float(victim.runs.max(1) as u64);
        let left = bytes(&mut run.left.iter()) / share.max(1.0);
        let own = bytes(&mut units.iter()) / fast.max(1.0) + 2.0 * thief.distance.as_secs_f64();
        left > 2.0 * own
    }

    /// From when on a run counts as one that does not move.
    fn overdue_at(&self, run: &Run) -> Time {
        if run.writing {
            return Time(u64::MAX);
        }
        let state = &self.holders[run.holder];
        let next = run.left.front().and_then(|id| self.units.get(id));
        let expected = match (state.rate, next) {
            (Some(rate), Some(unit)) => {
                let share = (rate / float(state.runs.max(1) as u64)).max(1.0);
                let seconds = (4.0 * float(unit.bytes) / share).min(3600.0);
                Duration::from_secs_f64(seconds)
            }
            _ => Duration::ZERO,
        };
        run.progress_at + self.limits.patience + 4 * state.distance + expected
    }

    fn is_free(&self, holder: HolderId, now: Time) -> bool {
        let state = &self.holders[holder];
        !self.is_lost(holder) && state.rests_until <= now && state.runs < self.runs_of(holder)
    }

    /// One that failed last is tried with one run.
    fn runs_of(&self, holder: HolderId) -> usize {
        if self.holders[holder].failures > 0 {
            1
        } else {
            self.limits.runs_per_holder
        }
    }

    fn is_lost(&self, holder: HolderId) -> bool {
        let state = &self.holders[holder];
        state.banned || state.failures >= self.limits.failures_max
    }

    /// Towards the end runs get shorter, so that all end together.
    fn run_bytes(&self, holder: HolderId) -> u64 {
        let limits = &self.limits;
        let good = match self.holders[holder].rate {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a positive number of bytes, clamped next"
            )]
            Some(rate) => (rate * limits.run_time.as_secs_f64()) as u64,
            None => limits.run_bytes_first,
        };
        let usable = (0..self.holders.len()).filter(|&holder| !self.is_lost(holder));
        let places = (usable.count() * limits.runs_per_holder).max(1) as u64;
        good.min(self.open_bytes / places)
            .clamp(limits.run_bytes_min, limits.run_bytes_max)
    }

    fn look_ahead(&self, now: Time, effects: &mut Vec<Effect>) {
        if self.units.is_empty() {
            return;
        }
        let resting = (0..self.holders.len())
            .filter(|&holder| !self.is_lost(holder))
            .map(|holder| self.holders[holder].rests_until);
        let overdue = self.runs.values().map(|run| self.overdue_at(run));
        let wake = resting
            .chain(overdue)
            .filter(|&at| at > now && at < Time(u64::MAX))
            .min();
        let gives = |unit: &Unit, holder| {
            !self.is_lost(holder) && !self.lacking.contains(&(unit.file, holder))
        };
        let hopeless = self.open.iter().find(|id| {
            let unit = &self.units[id];
            !(0..self.holders.len()).any(|holder| gives(unit, holder))
        });
        match (hopeless, wake) {
            (Some(&unit), _) => effects.push(Effect::Stuck(unit)),
            (None, Some(at)) => effects.push(Effect::WakeAt(at)),
            (None, None) => {}
        }
    }
}

impl State {
    fn count(&mut self, bytes: u64, now: Time) {
        self.window_bytes += bytes;
        let window = now.since(self.window_from);
        if window < RATE_WINDOW {
            return;
        }
        let sample = float(self.window_bytes) / window.as_secs_f64();
        self.rate = Some(self.rate.map_or(sample, |rate| f64::midpoint(rate, sample)));
        self.window_from = now;
        self.window_bytes = 0;
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "an estimate of a rate needs no more than 52 bits"
)]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
