//! The notices of one of this node's zones: which programs are to run there and
//! below.
//!
//! Holds: of one program the newest version runs that was tried and not found
//! to fail; while a newer one is tried, the one before it goes on; what a
//! removal names never comes back while the removal lasts, and that is as long
//! as what it removes would.

use super::table::Moment;
use kernel::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use wire::attributes::AttributeName;
use wire::tree::{NOTICES_MAX, Notice, NoticeKey, Run, Says, SignedNotice};

/// What became of a version of a program here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Runs,
    /// It is tried in its canary zone; beside another version, unless `alone`.
    Canary {
        alone: bool,
    },
    Quarantined {
        why: String,
    },
    /// A newer one is tried, or runs.
    Outdone,
}

/// A version of a program and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub notice: Arc<SignedNotice>,
    pub age: Duration,
    pub standing: Standing,
}

#[derive(Clone, Debug)]
pub struct Held {
    pub notice: Arc<SignedNotice>,
    pub signed: Moment,
}

#[derive(Clone, Debug, Default)]
pub struct Board {
    held: BTreeMap<NoticeKey, Held>,
    hash: u64,
}

impl Board {
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.held.len() >= NOTICES_MAX
    }

    /// Of the names of all that is held.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn get(&self, key: NoticeKey) -> Option<&Held> {
        self.held.get(&key)
    }

    pub fn keys(&self) -> impl Iterator<Item = NoticeKey> {
        self.held.keys().copied()
    }

    pub fn put(&mut self, notice: Arc<SignedNotice>, signed: Moment) {
        let key = notice.key;
        if self.held.insert(key, Held { notice, signed }).is_none() {
            self.hash ^= super::table::mix(key.0);
        }
    }

    /// The same notice came with another age: the larger one is believed.
    pub fn was_signed(&mut self, key: NoticeKey, signed: Moment) {
        if let Some(held) = self.held.get_mut(&key) {
            held.signed = held.signed.min(signed);
        }
    }

    /// That version, to be run.
    pub fn run_of(&self, program: &AttributeName, version: u64) -> Option<&Run> {
        let mut all = self.held.values().map(|held| &held.notice.notice);
        all.find_map(|notice| match &notice.says {
            Says::Run(run) if notice.version == version && notice.program == *program => Some(run),
            _ => None,
        })
    }

    /// Whether what is here has outdone it.
    pub fn is_outdone(&self, notice: &Notice, age: Duration, now: Time) -> bool {
        age > Duration::from_millis(notice.lifetime_ms)
            || self.of(&notice.program).outdoes(notice, now)
    }

    /// Forgets what is outdone or has had its time.
    pub fn prune(&mut self, now: Time) -> bool {
        let outdone = self.held.iter().filter(|(_, held)| {
            let age = held.signed.age(now);
            self.is_outdone(&held.notice.notice, age, now)
        });
        let outdone: Vec<NoticeKey> = outdone.map(|(key, _)| *key).collect();
        for key in &outdone {
            self.held.remove(key);
            self.hash ^= super::table::mix(key.0);
        }
        !outdone.is_empty()
    }

    pub fn applied(&self, now: Time) -> Vec<Applied> {
        let runs = self.held.values().filter_map(|held| {
            let notice = &held.notice.notice;
            matches!(notice.says, Says::Run(_)).then(|| Applied {
                notice: held.notice.clone(),
                age: held.signed.age(now),
                standing: self.of(&notice.program).standing(notice.version, now),
            })
        });
        runs.collect()
    }

    fn of<'a>(&'a self, program: &AttributeName) -> Versions<'a> {
        let mut found = Versions::default();
        for held in self.held.values() {
            let notice = &held.notice.notice;
            if notice.program != *program {
                continue;
            }
            match &notice.says {
                Says::Run(run) => {
                    found.runs.insert(notice.version, (run, held.signed));
                }
                Says::Remove => found.removed = found.removed.max(Some(notice.version)),
                Says::Quarantine { why } => {
                    found.failed.insert(notice.version, why);
                }
            }
        }
        found
    }
}

/// All that is said of one program.
#[derive(Default)]
struct Versions<'a> {
    runs: BTreeMap<u64, (&'a Run, Moment)>,
    failed: BTreeMap<u64, &'a String>,
    removed: Option<u64>,
}

impl Versions<'_> {
    /// The newest that was tried for `times` its time and did not fail.
    fn tried(&self, times: u32, now: Time) -> Option<u64> {
        let mut runs = self.runs.iter().rev();
        let found = runs.find(|(version, (run, signed))| {
            let trial = Duration::from_millis(run.canary_ms).saturating_mul(times);
            !self.failed.contains_key(version) && signed.age(now) >= trial
        });
        found.map(|(version, _)| *version)
    }

    fn standing(&self, version: u64, now: Time) -> Standing {
        if let Some(why) = self.failed.get(&version) {
            let why = (*why).clone();
            return Standing::Quarantined { why };
        }
        let runs = self.tried(1, now);
        let newest = self.runs.keys().rev();
        let newest: BTreeSet<u64> = newest
            .filter(|version| !self.failed.contains_key(version))
            .take(1)
            .copied()
            .collect();
        match runs {
            Some(one) if one == version => Standing::Runs,
            Some(one) if one > version => Standing::Outdone,
            _ if !newest.contains(&version) => Standing::Outdone,
            _ => Standing::Canary {
                alone: runs.is_none(),
            },
        }
    }

    /// A version that has run for as long again as it was tried, elsewhere
    /// perhaps shorter, is gone back from no more.
    fn outdoes(&self, notice: &Notice, now: Time) -> bool {
        let tried = self.tried(2, now);
        match notice.says {
            Says::Remove => self.removed > Some(notice.version),
            _ => self.removed >= Some(notice.version) || tried > Some(notice.version),
        }
    }
}
