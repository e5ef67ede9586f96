//! Decides what content a node fetches, mends and lets go.
//!
//! In: what is desired, what is here and who needs it, what was found damaged,
//! who else holds what, free room; the ends of fetches. Out: what to fetch or
//! mend next, what to drop, what cannot be had now. Content is named as desired
//! state names it: a tree with its files is one.
//! Holds: what is desired, pinned, leased, younger than the grace, or among the
//! last copies that the cluster asks for, is never dropped; at most so many are
//! fetched at a time, and none that would not fit; one that failed rests for a
//! while that doubles; what nobody needs goes when its time is over, sooner
//! only where room is short; what cannot be had is said once.

use crate::engine::{Controller, Decided};
use kernel::{Bytes, Hash, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const DOUBLINGS_MAX: u32 = 6;

pub struct Holding;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// What is younger may be on its way into desired state.
    pub grace_ms: u64,
    /// How long what nobody needs is kept for a roll-back.
    pub keep_ms: u64,
    /// Of the disk, what stays free.
    pub room_left: Bytes,
    pub fetches_max: u32,
    /// After the first failure.
    pub rest_ms: u64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            grace_ms: 3_600_000,
            keep_ms: 7 * 24 * 3_600_000,
            room_left: Bytes(256 << 20),
            fetches_max: 4,
            rest_ms: 1_000,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub fetching: BTreeMap<Hash, Bytes>,
    pub failed: BTreeMap<Hash, Failed>,
    /// What could not be had when it was last looked at, and was said.
    pub held_back: BTreeSet<Hash>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    pub times: u32,
    pub rests_until: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    Looked(Seen),
    Fetched { hash: Hash },
    FetchFailed { hash: Hash },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// In the order in which they are needed.
    pub desired: Vec<Desired>,
    /// What desired state does not name and the cluster asks copies of.
    pub asked: Vec<Asked>,
    /// Files of what is here whose bytes are wrong, or gone.
    pub damaged: BTreeSet<Hash>,
    pub here: Vec<Held>,
    pub pinned: BTreeSet<Hash>,
    pub leased: BTreeSet<Hash>,
    pub free: Bytes,
    /// Nodes that can be asked for content.
    pub others: u32,
    /// What people call it.
    pub names: BTreeMap<Hash, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    pub hash: Hash,
    /// Zero where nobody knows.
    pub bytes: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub hash: Hash,
    /// Copies that the cluster asks for, less those that other nodes have.
    pub lacking: u32,
    /// Nodes that come before this one, and have it not either.
    pub before: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub hash: Hash,
    /// What dropping it would free.
    pub bytes: Bytes,
    /// Since it came or was last needed.
    pub age_ms: u64,
    pub copies_wanted: u32,
    /// Copies on nodes that come before this one: two nodes never drop theirs
    /// for one another's.
    pub copies_elsewhere: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    pub fetch: Vec<Hash>,
    /// To be checked first: only what is wrong of it is fetched.
    pub mend: Vec<Hash>,
    pub drop: Vec<Hash>,
    /// Each with why it cannot be had now.
    pub held_back: Vec<(Hash, String)>,
}

impl Controller for Holding {
    const NAME: &'static str = "holding";
    type Parameters = Parameters;
    type State = State;
    type Reading = Reading;
    type Action = Action;

    fn decide(
        parameters: &Parameters,
        state: &State,
        reading: &Reading,
        now: Time,
    ) -> Decided<State, Action> {
        let mut next = state.clone();
        match reading {
            Reading::Looked(seen) => looked(parameters, next, seen, now),
            Reading::Fetched { hash } => {
                next.fetching.remove(hash);
                next.failed.remove(hash);
                next.held_back.remove(hash);
                Decided::nothing(next)
            }
            Reading::FetchFailed { hash } => {
                next.fetching.remove(hash);
                let times = next.failed.get(hash).map_or(0, |failed| failed.times);
                let rest = Duration::from_millis(parameters.rest_ms);
                let rests_until = now + rest * 2_u32.pow(times.min(DOUBLINGS_MAX));
                let times = times.saturating_add(1);
                next.failed.insert(*hash, Failed { times, rests_until });
                Decided::nothing(next)
            }
        }
    }
}

/// When something that failed may be tried again, of what rested at `looked`.
pub fn next_try(state: &State, looked: Time) -> Option<Time> {
    let rests = state.failed.values().map(|failed| failed.rests_until);
    rests.filter(|until| *until > looked).min()
}

/// What should come, the most urgent first; each once.
fn wanted(seen: &Seen, state: &State) -> Vec<(Desired, bool)> {
    let here: BTreeSet<Hash> = seen.here.iter().map(|item| item.hash).collect();
    let unknown = |hash| Desired {
        hash,
        bytes: Bytes(0),
    };
    // Its room on the disk is taken already.
    let damaged = seen.damaged.iter().map(|hash| (unknown(*hash), true));
    let desired = seen.desired.iter().map(|item| (*item, false));
    let asked = seen.asked.iter().filter(|item| item.before < item.lacking);
    let asked = asked.map(|item| (unknown(item.hash), false));
    let mut known = BTreeSet::new();
    damaged
        .chain(desired)
        .chain(asked)
        .filter(|(item, mend)| *mend || !here.contains(&item.hash))
        .filter(|(item, _)| !state.fetching.contains_key(&item.hash))
        .filter(|(item, _)| known.insert(item.hash))
        .collect()
}

fn looked(
    parameters: &Parameters,
    mut next: State,
    seen: &Seen,
    now: Time,
) -> Decided<State, Action> {
    let desired: BTreeSet<Hash> = seen.desired.iter().map(|item| item.hash).collect();
    let wanted = wanted(seen, &next);
    let is_wanted = |hash: &Hash| {
        let asked = || seen.asked.iter().any(|item| item.hash == *hash);
        desired.contains(hash) || seen.damaged.contains(hash) || asked()
    };
    next.failed.retain(|hash, _| is_wanted(hash));
    let still: BTreeSet<Hash> = wanted.iter().map(|(item, _)| item.hash).collect();
    next.held_back.retain(|hash| still.contains(hash));
    let coming = sum(next.fetching.values().copied());
    let to_come = sum(wanted.iter().map(|(item, _)| item.bytes)).saturating_add(coming);
    let short = (parameters.room_left.0.saturating_add(to_come)).saturating_sub(seen.free.0);
    let mut action = Action {
        drop: drops(parameters, seen, &desired, short),
        ..Action::default()
    };
    // What is dropped now is counted when it is seen to be free.
    let mut room = seen
        .free
        .0
        .saturating_sub(parameters.room_left.0.saturating_add(coming));
    for (item, mend) in wanted {
        if next.fetching.len() >= parameters.fetches_max as usize {
            break;
        }
        let rests = next.failed.get(&item.hash);
        if rests.is_some_and(|failed| failed.rests_until > now) {
            continue;
        }
        if let Some(why) = hindrance(parameters, seen, item, mend, room) {
            if next.held_back.insert(item.hash) {
                action.held_back.push((item.hash, why));
            }
            continue;
        }
        room = room.saturating_sub(item.bytes.0);
        next.held_back.remove(&item.hash);
        next.fetching.insert(item.hash, item.bytes);
        if mend {
            action.mend.push(item.hash);
        } else {
            action.fetch.push(item.hash);
        }
    }
    if action == Action::default() {
        return Decided::nothing(next);
    }
    let (saw, decided) = told(seen, &action);
    let comes = !action.fetch.is_empty() || !action.mend.is_empty();
    let decided = Decided::act(next, action, saw, decided);
    if comes {
        return decided.expecting("it is here, whole", now + HERE_WITHIN);
    }
    decided
}

/// Of a fetch of whatever length over whatever line.
const HERE_WITHIN: Duration = Duration::from_hours(24);

/// Why something cannot be had now.
fn hindrance(
    parameters: &Parameters,
    seen: &Seen,
    item: Desired,
    mend: bool,
    room: u64,
) -> Option<String> {
    if seen.others == 0 {
        return Some("no other node can be asked for it".to_owned());
    }
    if mend || (item.bytes.0 <= room && seen.free > parameters.room_left) {
        return None;
    }
    let need = match item.bytes {
        Bytes(0) => String::new(),
        bytes => format!("it needs {bytes}, and "),
    };
    let (free, left) = (seen.free, parameters.room_left);
    let why = format!("{need}{free} are free on this disk, of which {left} stay free");
    Some(why)
}

/// The oldest first; what is to be kept for a roll-back only while room is
/// `short` by so many bytes.
fn drops(parameters: &Parameters, seen: &Seen, desired: &BTreeSet<Hash>, short: u64) -> Vec<Hash> {
    let mut free: Vec<&Held> = seen
        .here
        .iter()
        .filter(|item| {
            !desired.contains(&item.hash)
                && !seen.pinned.contains(&item.hash)
                && !seen.leased.contains(&item.hash)
                && item.age_ms >= parameters.grace_ms
                && item.copies_elsewhere >= item.copies_wanted
        })
        .collect();
    free.sort_by_key(|item| (std::cmp::Reverse(item.age_ms), item.hash));
    let mut freed = 0_u64;
    let mut drop = Vec::new();
    for item in free {
        if item.age_ms >= parameters.keep_ms || freed < short {
            freed = freed.saturating_add(item.bytes.0);
            drop.push(item.hash);
        }
    }
    drop
}

fn sum(bytes: impl Iterator<Item = Bytes>) -> u64 {
    bytes.fold(0, |sum, bytes| sum.saturating_add(bytes.0))
}

fn told(seen: &Seen, action: &Action) -> (String, String) {
    let damaged = match seen.damaged.len() {
        0 => String::new(),
        count => format!(", {count} damaged"),
    };
    let saw = format!(
        "{} desired, {} here, {} free{damaged}",
        seen.desired.len(),
        seen.here.len(),
        seen.free
    );
    let called = |hash: &Hash| match seen.names.get(hash) {
        Some(name) => format!("{name} ({})", hash.short()),
        None => hash.short(),
    };
    let mut parts = Vec::new();
    let lists = [
        ("mend", &action.mend),
        ("fetch", &action.fetch),
        ("drop", &action.drop),
    ];
    for (verb, hashes) in lists {
        if !hashes.is_empty() {
            let names: Vec<String> = hashes.iter().map(called).collect();
            parts.push(format!("{verb} {}", names.join(", ")));
        }
    }
    for (hash, why) in &action.held_back {
        parts.push(format!("go without {}: {why}", called(hash)));
    }
    (saw, parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;
    const HOUR_MS: u64 = 3_600_000;

    fn hash(of: u8) -> Hash {
        Hash([of; 32])
    }

    fn desired(of: u8, mebibytes: u64) -> Desired {
        let bytes = Bytes(mebibytes * MIB);
        Desired {
            hash: hash(of),
            bytes,
        }
    }

    fn held(of: u8, hours: u64) -> Held {
        Held {
            hash: hash(of),
            bytes: Bytes(100 * MIB),
            age_ms: hours * HOUR_MS,
            copies_wanted: 0,
            copies_elsewhere: 0,
        }
    }

    fn decide(state: &State, seen: &Seen, now: Time) -> (State, Action) {
        let reading = Reading::Looked(seen.clone());
        let decided = Holding::decide(&Parameters::default(), state, &reading, now);
        (decided.next_state, decided.action.unwrap_or_default())
    }

    #[test]
    fn what_is_desired_and_not_here_is_fetched_in_order_and_once() {
        let seen = Seen {
            desired: (1..=6).rev().map(|of| desired(of, 1)).collect(),
            here: vec![held(5, 1)],
            free: Bytes(1024 * MIB),
            others: 1,
            ..Seen::default()
        };
        let (state, action) = decide(&State::default(), &seen, Time(0));
        assert_eq!(action.fetch, [hash(6), hash(4), hash(3), hash(2)]);
        let (state, action) = decide(&state, &seen, Time(1));
        assert_eq!(action, Action::default());
        let done = Reading::Fetched { hash: hash(6) };
        let decided = Holding::decide(&Parameters::default(), &state, &done, Time(2));
        let mut seen = seen;
        seen.here.push(held(6, 0));
        let (_, action) = decide(&decided.next_state, &seen, Time(3));
        assert_eq!(action.fetch, [hash(1)]);
    }

    #[test]
    fn a_failed_fetch_rests_twice_as_long_each_time() {
        let seen = Seen {
            desired: vec![desired(1, 1)],
            free: Bytes(1024 * MIB),
            others: 1,
            ..Seen::default()
        };
        let mut state = State::default();
        let mut now = Time(0);
        for rest_ms in [1_000, 2_000, 4_000] {
            let (fetching, action) = decide(&state, &seen, now);
            assert_eq!(action.fetch, [hash(1)]);
            let failed = Reading::FetchFailed { hash: hash(1) };
            state = Holding::decide(&Parameters::default(), &fetching, &failed, now).next_state;
            let early = now + Duration::from_millis(rest_ms - 1);
            assert_eq!(decide(&state, &seen, early).1, Action::default());
            now = now + Duration::from_millis(rest_ms);
        }
    }

    #[test]
    fn short_room_takes_the_oldest_that_nobody_needs_and_no_more() {
        let mut last = held(4, 90);
        last.copies_wanted = 1;
        let seen = Seen {
            desired: vec![desired(1, 300)],
            here: vec![
                held(2, 2),
                held(3, 30),
                last,
                held(5, 20),
                held(6, 80),
                held(7, 0),
            ],
            pinned: [hash(6)].into(),
            leased: [hash(5)].into(),
            free: Bytes(500 * MIB),
            others: 1,
            ..Seen::default()
        };
        let (state, action) = decide(&State::default(), &seen, Time(0));
        assert_eq!((action.fetch, action.drop), (vec![], vec![hash(3)]));
        assert_eq!(action.held_back.len(), 1, "and it is said");
        let mut seen = seen;
        seen.here.retain(|item| item.hash != hash(3));
        seen.free = Bytes(600 * MIB);
        let (_, action) = decide(&state, &seen, Time(1));
        assert_eq!((action.fetch, action.drop), (vec![hash(1)], vec![]));
    }

    #[test]
    fn what_nobody_needs_goes_after_its_time() {
        let seen = Seen {
            here: vec![held(1, 7 * 24), held(2, 7 * 24 - 1)],
            free: Bytes(4096 * MIB),
            ..Seen::default()
        };
        let (_, action) = decide(&State::default(), &seen, Time(0));
        assert_eq!(action.drop, [hash(1)]);
    }

    #[test]
    fn on_a_full_disk_nothing_is_fetched_of_whatever_length_and_this_is_said_once() {
        let mut seen = Seen {
            desired: vec![desired(1, 0)],
            free: Bytes(10 * MIB),
            others: 1,
            ..Seen::default()
        };
        let (state, action) = decide(&State::default(), &seen, Time(0));
        assert_eq!((action.fetch, action.held_back.len()), (vec![], 1));
        let (state, action) = decide(&state, &seen, Time(1));
        assert_eq!(action, Action::default());
        seen.free = Bytes(300 * MIB);
        let (_, action) = decide(&state, &seen, Time(2));
        assert_eq!(action.fetch, [hash(1)]);
    }

    #[test]
    fn what_is_damaged_comes_first_also_where_room_is_short() {
        let seen = Seen {
            desired: vec![desired(1, 1)],
            here: vec![held(3, 1)],
            damaged: [hash(2), hash(3)].into(),
            others: 1,
            ..Seen::default()
        };
        let (_, action) = decide(&State::default(), &seen, Time(0));
        assert_eq!(
            (action.mend, action.fetch),
            (vec![hash(2), hash(3)], vec![])
        );
    }

    #[test]
    fn where_nobody_else_is_nothing_is_tried_and_this_is_said_once() {
        let mut seen = Seen {
            damaged: [hash(2)].into(),
            names: [(hash(2), "site/news/front /a.html".to_owned())].into(),
            free: Bytes(1024 * MIB),
            ..Seen::default()
        };
        let reading = Reading::Looked(seen.clone());
        let decided = Holding::decide(&Parameters::default(), &State::default(), &reading, Time(0));
        assert!(
            decided
                .decided
                .contains("go without site/news/front /a.html"),
            "{decided:?}"
        );
        let (state, action) = decide(&decided.next_state, &seen, Time(1));
        assert_eq!(action, Action::default());
        seen.others = 1;
        let (_, action) = decide(&state, &seen, Time(2));
        assert_eq!(action.mend, [hash(2)]);
    }

    #[test]
    fn a_lacking_copy_is_fetched_by_as_many_nodes_as_are_first_in_turn() {
        let asked = |lacking, before| Seen {
            asked: vec![Asked {
                hash: hash(1),
                lacking,
                before,
            }],
            free: Bytes(1024 * MIB),
            others: 3,
            ..Seen::default()
        };
        let fetches = |seen| !decide(&State::default(), &seen, Time(0)).1.fetch.is_empty();
        assert!(fetches(asked(1, 0)) && fetches(asked(2, 1)));
        assert!(!fetches(asked(0, 0)) && !fetches(asked(1, 1)));
    }

    prop_compose! {
        fn any_held()(of in 0..20_u8, hours in 0..400_u64, wanted in 0..3_u32, elsewhere in 0..3_u32)
            -> Held {
            let item = held(of, hours);
            Held { copies_wanted: wanted, copies_elsewhere: elsewhere, ..item }
        }
    }

    proptest! {
        #[test]
        fn what_is_needed_is_never_dropped_and_what_is_fetched_fits(
            wanted in prop::collection::btree_map(0..20_u8, 0..400_u64, 0..10),
            here in prop::collection::vec(any_held(), 0..20),
            pinned in prop::collection::btree_set(0..20_u8, 0..5),
            leased in prop::collection::btree_set(0..20_u8, 0..5),
            free in 0..2_000_u64,
        ) {
            let here: BTreeMap<Hash, Held> = here.into_iter().map(|item| (item.hash, item)).collect();
            let seen = Seen {
                desired: wanted.iter().map(|(&of, &mebibytes)| desired(of, mebibytes)).collect(),
                here: here.values().copied().collect(),
                pinned: pinned.into_iter().map(hash).collect(),
                leased: leased.into_iter().map(hash).collect(),
                free: Bytes(free * MIB),
                others: 1,
                ..Seen::default()
            };
            let (_, action) = decide(&State::default(), &seen, Time(0));
            for dropped in &action.drop {
                let item = &here[dropped];
                prop_assert!(!seen.desired.iter().any(|item| item.hash == *dropped));
                prop_assert!(!seen.pinned.contains(dropped) && !seen.leased.contains(dropped));
                prop_assert!(item.age_ms >= HOUR_MS && item.copies_elsewhere >= item.copies_wanted);
            }
            let length = |hash: &Hash| {
                let item = seen.desired.iter().find(|item| item.hash == *hash);
                item.expect("desired").bytes.0
            };
            let fetched: u64 = action.fetch.iter().map(length).sum();
            prop_assert!(action.fetch.is_empty() || fetched + 256 * MIB <= seen.free.0);
            prop_assert!(action.fetch.iter().all(|hash| !here.contains_key(hash)));
            let unique: BTreeSet<_> = action.fetch.iter().collect();
            prop_assert_eq!(unique.len(), action.fetch.len());
        }
    }
}
