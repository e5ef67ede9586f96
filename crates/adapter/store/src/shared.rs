//! The state with what surrounds it: how far it is applied, when its leases
//! lapse, who waits for its next revision.
//!
//! Holds: a lease's deadline is set when its grant or renewal is applied, so
//! after a restart each lease runs its full time again.

use crate::disk::{decode, decode_as, encode, encode_as};
use crate::group::{Before, Once};
use crate::state::State;
use crate::types::{Command, LogId, Replies, SnapshotMeta};
use kernel::{FencingEpoch, Time};
use openraft::{BasicNode, StoredMembership};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Of snapshots that say what was done last for each member.
const WITH_ONCE: u8 = 2;

#[derive(Clone, Debug, Default)]
pub struct Applied {
    pub last: Option<LogId>,
    pub membership: StoredMembership<u64, BasicNode>,
}

/// What a snapshot has.
pub struct Kept {
    state: State,
    once: Once,
}

impl Kept {
    pub fn read(data: &[u8]) -> Result<Self, String> {
        let (state, once) = match data.first() {
            Some(&WITH_ONCE) => decode_as(WITH_ONCE, data)?,
            _ => (decode(data)?, Once::default()),
        };
        Ok(Self { state, once })
    }
}

struct Deadline {
    epoch: FencingEpoch,
    renewals: u64,
    at: Time,
}

#[derive(Default)]
struct Inner {
    applied: Applied,
    state: State,
    once: Once,
    deadlines: BTreeMap<String, Deadline>,
    /// The same, by time.
    lapses: BTreeSet<(Time, String)>,
}

pub struct Shared {
    history_revisions_max: usize,
    inner: Mutex<Inner>,
    /// Touched after each change, and when the store stops.
    pub changed: watch::Sender<()>,
}

/// The boot-time clock, which a suspended machine does not stop.
pub fn now() -> Time {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(at.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(at.tv_nsec).unwrap_or_default();
    Time(seconds * 1_000_000_000 + nanoseconds)
}

impl Shared {
    pub fn new(history_revisions_max: usize) -> Self {
        Self {
            history_revisions_max,
            inner: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn with<T>(&self, read: impl FnOnce(&Applied, &State) -> T) -> T {
        let inner = self.lock();
        read(&inner.applied, &inner.state)
    }

    pub fn apply(&self, id: LogId, commands: Vec<Command>) -> Replies {
        let mut inner = self.lock();
        inner.applied.last = Some(id);
        let replies = inner.apply_once(commands);
        inner.state.trim_history(self.history_revisions_max);
        drop(inner);
        self.changed.send_replace(());
        replies
    }

    pub fn join(&self, id: LogId, membership: StoredMembership<u64, BasicNode>) {
        self.lock().applied = Applied {
            last: Some(id),
            membership,
        };
        self.changed.send_replace(());
    }

    /// Whether that batch, or a later one of the same run, is applied here.
    pub fn has_done(&self, member: u64, nonce: u64, number: u64) -> bool {
        let inner = self.lock();
        !matches!(inner.once.look(member, nonce, number), Before::New)
    }

    /// As it is kept and sent, and up to where.
    pub fn snapshot(&self) -> Result<(Applied, Vec<u8>), String> {
        let inner = self.lock();
        let data = if inner.once.is_empty() {
            encode(&inner.state)
        } else {
            // A state alone is read first.
            encode_as(WITH_ONCE, &(&inner.state, &inner.once))
        };
        Ok((inner.applied.clone(), data?))
    }

    pub fn install(&self, meta: &SnapshotMeta, Kept { state, once }: Kept) {
        let mut inner = self.lock();
        inner.applied = Applied {
            last: meta.last_log_id,
            membership: meta.last_membership.clone(),
        };
        (inner.state, inner.once) = (state, once);
        inner.deadlines.clear();
        inner.lapses.clear();
        let names: Vec<String> = inner.state.leases().keys().cloned().collect();
        for name in names {
            inner.set_deadline(&name);
        }
        drop(inner);
        self.changed.send_replace(());
    }

    /// What has lapsed, as up to `count` commands to propose.
    pub fn lapsed(&self, count: usize) -> Vec<Command> {
        let now = now();
        let inner = self.lock();
        let lapsed = inner.lapses.iter().take_while(|(at, _)| *at <= now);
        lapsed
            .take(count)
            .filter_map(|(_, name)| {
                let held = inner.state.leases().get(name)?;
                Some(Command::Expire {
                    name: name.clone(),
                    epoch: held.epoch,
                    renewals: held.renewals,
                })
            })
            .collect()
    }

    pub fn until_next_lapse(&self) -> Option<Duration> {
        let inner = self.lock();
        let (at, _) = inner.lapses.first()?;
        Some(Duration::from_nanos(at.0.saturating_sub(now().0)))
    }
}

impl Inner {
    fn apply_once(&mut self, mut commands: Vec<Command>) -> Replies {
        let Some(&Command::From {
            member,
            nonce,
            number,
        }) = commands.first()
        else {
            return self.apply(commands);
        };
        match self.once.look(member, nonce, number) {
            Before::Done(replies) => replies,
            Before::Late => Vec::new(),
            Before::New => {
                commands.remove(0);
                let replies = self.apply(commands);
                self.once.remember(member, nonce, number, replies.clone());
                replies
            }
        }
    }

    fn apply(&mut self, commands: Vec<Command>) -> Replies {
        let mut replies = Vec::with_capacity(commands.len());
        for command in commands {
            let lease = command.lease().map(str::to_owned);
            replies.push(self.state.apply(command));
            if let Some(name) = lease.filter(|_| replies.last().is_some_and(Result::is_ok)) {
                self.set_deadline(&name);
            }
        }
        replies
    }

    fn set_deadline(&mut self, name: &str) {
        let held = self.state.leases().get(name);
        let set = self.deadlines.get(name);
        if let (Some(held), Some(set)) = (held, set)
            && (held.epoch, held.renewals) == (set.epoch, set.renewals)
        {
            return;
        }
        let next = held.map(|held| Deadline {
            epoch: held.epoch,
            renewals: held.renewals,
            at: now() + held.time_to_live,
        });
        if let Some(old) = self.deadlines.remove(name) {
            self.lapses.remove(&(old.at, name.to_owned()));
        }
        if let Some(next) = next {
            self.lapses.insert((next.at, name.to_owned()));
            self.deadlines.insert(name.to_owned(), next);
        }
    }
}
