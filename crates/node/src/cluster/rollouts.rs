//! Rollouts over the whole cluster, in desired state: two generations of a service
//! that run beside each other.
//!
//! In: what is applied over what; nodes' reports. Out: how many replicas of each
//! generation a node runs, which of them take requests; what the leader's loop reads;
//! the next desired state.
//! Holds: while a rollout goes on, the old generation runs whole wherever the service
//! is placed (but for what batches have replaced), and the new one on those places, in
//! part or whole: who moves the service moves both. An earlier version of this program reads the new generation alone.

use crate::desired::{Applied, Desired, FIRST_NODE};
use crate::nodes::NodeReport;
use control::stage::{At, Parameters, Plan, Reading, Side, Stage};
use kernel::{Hash, Name, NodeId, Revision, ScopedName, UnixMillis};
use manifest::{Rollout, Run, Service};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use wire::attributes::Quantiles;
use wire::edge::{GenerationReadings, LATENCY_LEVEL, add_counts, counts_since};

/// Of a service of the manifest; what is there is the new generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnderWay {
    pub from: Service,
    pub from_generation: Revision,
    #[serde(default)]
    pub from_program: Option<Hash>,
    pub stage: Stage,
    /// Of [`Stage::Rolling`], those whose new replicas are all ready.
    #[serde(default)]
    pub batches: u32,
    #[serde(default)]
    pub paused: bool,
    /// When the stage began.
    pub since_unix: UnixMillis,
}

/// What one node does for a service that is rolled out.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    pub old: u32,
    pub new: u32,
    pub old_routed: bool,
    pub new_routed: bool,
}

impl UnderWay {
    /// The generation that all of it would be, were nothing decided any more.
    pub fn stands_on(&self, new: Revision) -> Revision {
        match self.stage {
            Stage::Rolling | Stage::Canary | Stage::Coming => self.from_generation,
            Stage::Switched => new,
        }
    }

    pub fn at(&self, new: Revision) -> At {
        At {
            generation: new,
            stage: self.stage,
            batches: self.batches,
        }
    }

    /// Of [`Stage::Rolling`]: how many old replicas have left, and how many new ones
    /// there are to be, on all nodes.
    fn replaced(&self, service: &Service) -> (u32, u32) {
        let Rollout::Batches(batches) = &service.rollout else {
            return (0, 0);
        };
        let each = batches.of(service.replicas);
        let all = |batches: u32| each.saturating_mul(batches).min(service.replicas);
        (all(self.batches), all(self.batches.saturating_add(1)))
    }
}

pub fn plan(rollout: &Rollout) -> Option<(Plan, Stage)> {
    let ms = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    match rollout {
        Rollout::Rolling => None,
        Rollout::Batches(_) => Some((Plan::Batches, Stage::Rolling)),
        Rollout::Canary(canary) => {
            let plan = Plan::Canary {
                good_for_ms: canary.good_for.map(ms),
                max_error_rate: canary.max_error_rate,
                max_latency_ms: canary.max_latency.map(|span| span.as_secs_f64() * 1e3),
                min_requests: canary.min_requests,
            };
            Some((plan, Stage::Canary))
        }
        Rollout::BlueGreen(blue_green) => {
            let keep_ms = ms(blue_green.keep);
            Some((Plan::BlueGreen { keep_ms }, Stage::Coming))
        }
    }
}

impl Applied {
    /// A service's generation that all of it would be, were nothing decided any more.
    pub fn stands_on(&self, name: &Name) -> Revision {
        let generation = self.generations.get(name).copied().unwrap_or_default();
        let under_way = self.rollouts.get(name);
        under_way.map_or(generation, |it| it.stands_on(generation))
    }

    /// Programs by whose name they are, those of old generations that still run too.
    pub fn all_programs(&self) -> impl Iterator<Item = (&Name, &Hash)> {
        let old = self.rollouts.iter();
        let old = old.filter_map(|(name, it)| Some((name, it.from_program.as_ref()?)));
        self.programs.iter().chain(old)
    }

    /// The same with a service as it was: what its old generation is started from.
    pub fn as_before(&self, name: &Name) -> Option<Self> {
        let under_way = self.rollouts.get(name)?;
        let mut before = self.clone();
        before.rollouts.remove(name);
        let UnderWay {
            from,
            from_generation,
            from_program,
            ..
        } = under_way;
        before.manifest.services.insert(name.clone(), from.clone());
        before.generations.insert(name.clone(), *from_generation);
        match from_program {
            Some(program) => before.programs.insert(name.clone(), *program),
            None => before.programs.remove(name),
        };
        Some(before)
    }

    /// What a node runs of a service that is rolled out.
    pub fn both_shares(&self, name: &Name, service: &Service, node: NodeId) -> Option<Share> {
        let under_way = self.rollouts.get(name)?;
        let share = self.share(name, service, node);
        let of_canary = || match &service.rollout {
            Rollout::Canary(canary) => self.dealt(name, service, canary.of(service.replicas), node),
            Rollout::Rolling | Rollout::Batches(_) | Rollout::BlueGreen(_) => share,
        };
        Some(match under_way.stage {
            Stage::Rolling => {
                let (replaced, new) = under_way.replaced(service);
                Share {
                    old: share - self.dealt(name, service, replaced, node),
                    new: self.dealt(name, service, new, node),
                    old_routed: true,
                    new_routed: true,
                }
            }
            Stage::Canary => Share {
                old: share,
                new: of_canary(),
                old_routed: true,
                new_routed: true,
            },
            Stage::Coming => Share {
                old: share,
                new: share,
                old_routed: true,
                new_routed: false,
            },
            Stage::Switched => Share {
                old: share,
                new: share,
                old_routed: false,
                new_routed: true,
            },
        })
    }

    /// What a node would go back to, or on from, were the rollout over now.
    pub fn stands_on_at(&self, name: &Name, both: &Share) -> Revision {
        if both.old == 0 {
            return self.generations.get(name).copied().unwrap_or_default();
        }
        self.stands_on(name)
    }

    /// So many of a service's places, one on each node in turn.
    fn dealt(&self, name: &Name, service: &Service, count: u32, node: NodeId) -> u32 {
        let alone = BTreeMap::from([(FIRST_NODE, service.replicas)]);
        let placed = self.placements.get(name).unwrap_or(&alone);
        let most = placed.values().copied().max().unwrap_or(0);
        let turns = (0..most).flat_map(|turn| {
            let has = placed.iter().filter(move |(_, share)| **share > turn);
            has.map(|(node, _)| *node)
        });
        let mine = turns.take(count as usize).filter(|on| *on == node);
        u32::try_from(mine.count()).unwrap_or(u32::MAX)
    }

    /// Says for each service how it gets from `old` to what is applied now.
    ///
    /// * `by_stages`: as the manifest says; else at once, as a person goes back.
    pub fn begin_rollouts(&mut self, old: &Self, by_stages: bool, now: UnixMillis) {
        self.rollouts.clear();
        for (name, service) in &self.manifest.services {
            let Some(was) = old.manifest.services.get(name) else {
                continue;
            };
            let generation = self.generations.get(name).copied().unwrap_or_default();
            let old_generation = old.generations.get(name).copied().unwrap_or_default();
            let under_way = old.rollouts.get(name);
            if let (Some(under_way), Some(before)) = (under_way, old.as_before(name))
                && self.starts_alike(&before, name)
            {
                let generation = under_way.from_generation;
                self.generations.insert(name.clone(), generation);
                continue;
            }
            let Some((_, stage)) = plan(&service.rollout) else {
                continue;
            };
            if generation == old_generation {
                let same = |it: &&UnderWay| is_of(service, it.stage);
                let goes_on = under_way.filter(same).cloned();
                self.rollouts.extend(goes_on.map(|it| (name.clone(), it)));
                continue;
            }
            if !by_stages || was.singleton || !matches!(was.run, Run::Process(_)) {
                continue;
            }
            let begun = match under_way {
                // What took the places of old ones is itself replaced there: the old
                // ones are gone.
                Some(under_way) => UnderWay {
                    batches: if under_way.stage == stage {
                        under_way.batches
                    } else {
                        0
                    },
                    stage,
                    paused: false,
                    since_unix: now,
                    ..under_way.clone()
                },
                None => UnderWay {
                    from: was.clone(),
                    from_generation: old_generation,
                    from_program: old.programs.get(name).copied(),
                    stage,
                    batches: 0,
                    paused: false,
                    since_unix: now,
                },
            };
            self.rollouts.insert(name.clone(), begun);
        }
    }

    /// A stage further: the same state under the same number, for nobody asked for
    /// another one.
    #[must_use]
    pub fn switched(mut self, name: &Name, now: UnixMillis) -> Self {
        if let Some(under_way) = self.rollouts.get_mut(name) {
            under_way.stage = Stage::Switched;
            under_way.since_unix = now;
        }
        self
    }

    /// The next batch; the same state too.
    #[must_use]
    pub fn stepped(mut self, name: &Name, now: UnixMillis) -> Self {
        if let Some(under_way) = self.rollouts.get_mut(name) {
            under_way.batches += 1;
            under_way.since_unix = now;
        }
        self
    }

    /// The new generation is all there is from now on.
    #[must_use]
    pub fn finished(mut self, name: &Name) -> Self {
        self.rollouts.remove(name);
        self
    }

    /// The old generation is wanted again; a state of its own.
    pub fn aborted(&self, name: &Name, now: UnixMillis) -> Option<Self> {
        let before = self.as_before(name)?;
        Some(Self {
            number: self.number + 1,
            at_unix: now,
            ..before
        })
    }
}

fn is_of(service: &Service, stage: Stage) -> bool {
    match stage {
        Stage::Rolling => matches!(&service.rollout, Rollout::Batches(_)),
        Stage::Canary => matches!(&service.rollout, Rollout::Canary(_)),
        Stage::Coming | Stage::Switched => matches!(&service.rollout, Rollout::BlueGreen(_)),
    }
}

/// What nodes' reports come to, over time.
#[derive(Debug, Default)]
pub struct Watched {
    last: BTreeMap<(ScopedName, Revision, NodeId), GenerationReadings>,
    counted: BTreeMap<ScopedName, Counted>,
}

/// Both generations over the same time: since a stage is looked at.
#[derive(Debug)]
struct Counted {
    at: At,
    sums: BTreeMap<Revision, GenerationReadings>,
}

impl Watched {
    /// What the leader's loop is to be told of each rollout under way.
    pub fn look(
        &mut self,
        desired: &Desired,
        reports: &BTreeMap<NodeId, NodeReport>,
    ) -> BTreeMap<ScopedName, (Parameters, Reading)> {
        let mut all = BTreeMap::new();
        for (name, service, applied) in desired.services() {
            let Some(under_way) = applied.rollouts.get(&name.name) else {
                continue;
            };
            let Some((plan, _)) = plan(&service.rollout) else {
                continue;
            };
            let generation = applied.generations.get(&name.name).copied();
            let generation = generation.unwrap_or_default();
            let at = under_way.at(generation);
            self.gather(&name, at, reports);
            let shares = reports
                .keys()
                .filter_map(|node| applied.both_shares(&name.name, service, *node));
            let (old, new) = shares.fold((0, 0), |sum, it| (sum.0 + it.old, sum.1 + it.new));
            let new = match under_way.stage {
                // None can come up where nobody reports.
                Stage::Rolling | Stage::Canary => new.max(1),
                Stage::Coming | Stage::Switched => new.max(service.replicas),
            };
            let reading = Reading {
                at,
                to_come: service
                    .replicas
                    .saturating_sub(under_way.replaced(service).1),
                paused: under_way.paused,
                old: self.side(&name, under_way.from_generation, old, reports),
                new: self.side(&name, generation, new, reports),
            };
            all.insert(name, (Parameters::of(plan), reading));
        }
        self.last.retain(|(name, ..), _| all.contains_key(name));
        self.counted.retain(|name, _| all.contains_key(name));
        all
    }

    fn gather(&mut self, name: &ScopedName, at: At, reports: &BTreeMap<NodeId, NodeReport>) {
        let none = || Counted {
            at,
            sums: BTreeMap::new(),
        };
        let counted = self.counted.entry(name.clone()).or_insert_with(none);
        if counted.at != at {
            *counted = none();
        }
        for (node, report) in reports {
            let Some(generations) = report.generations.get(name) else {
                continue;
            };
            for (generation, counts) in generations {
                let key = (name.clone(), *generation, *node);
                let sum = counted.sums.entry(*generation).or_default();
                if let Some(last) = self.last.insert(key, counts.clone()) {
                    add_new(sum, &last, counts);
                }
            }
        }
    }

    fn side(
        &self,
        name: &ScopedName,
        generation: Revision,
        wanted: u32,
        reports: &BTreeMap<NodeId, NodeReport>,
    ) -> Side {
        let services = reports.values();
        let services = services.filter_map(|report| report.status.services.get(name));
        let replicas = services.flat_map(|status| &status.replicas);
        let replicas = replicas.filter(|one| one.replica.generation == generation);
        let (mut ready, mut restarts) = (0, 0);
        for one in replicas {
            ready += u32::from(one.state == "ready");
            restarts = restarts.max(one.restarts);
        }
        let counted = self.counted.get(name);
        let sum = counted.and_then(|counted| counted.sums.get(&generation));
        let sum = sum.cloned().unwrap_or_default();
        Side {
            wanted,
            ready,
            restarts,
            requests: sum.requests,
            errors: sum.errors,
            latency_p99_ms: p99(&sum.latency_ms),
        }
    }
}

/// Counts that are smaller than before began anew.
fn add_new(sum: &mut GenerationReadings, last: &GenerationReadings, now: &GenerationReadings) {
    let nothing = GenerationReadings::default();
    let last = if now.requests < last.requests {
        &nothing
    } else {
        last
    };
    sum.requests += now.requests.saturating_sub(last.requests);
    sum.errors += now.errors.saturating_sub(last.errors);
    let new = counts_since(&last.latency_ms, &now.latency_ms);
    add_counts(&mut sum.latency_ms, &new);
}

/// In milliseconds, the upper bound of its bucket.
fn p99(counts: &[(i32, u64)]) -> Option<f64> {
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    let beyond = all / 100;
    let mut left = all;
    counts.iter().find_map(|(index, count)| {
        left = left.saturating_sub(*count);
        (left <= beyond).then(|| Quantiles::bounds(*index, LATENCY_LEVEL).1)
    })
}
