//! What the parts of the care for content share: what is needed, what was found
//! damaged, what could not be had; told to `doctor` and to other nodes.
//!
//! Holds: every damage stays here until its file is whole again, or nobody
//! needs it; lists are bounded.

use ::content::ContentEvent;
use kernel::{Bytes, Hash, NodeId, ObjectRef, UnixMillis, format_duration};
use node::nodes::ContentReport;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use wire::api::{ContentStatus, Fault};

/// How long content that nothing needs stays.
const KEEP: &str = "HOMEOSTAT_CONTENT_KEEP";
/// From the start of one round of reading all content to the next.
const SCRUB_EVERY: &str = "HOMEOSTAT_SCRUB_EVERY";

const KEEP_USUAL: Duration = Duration::from_hours(7 * 24);
const GRACE: Duration = ::content::GRACE;
const SCRUB_USUAL: Duration = Duration::from_hours(12);
/// What stays free of a disk: a twentieth, and not more than this.
const ROOM_LEFT_MAX: Bytes = Bytes::mebibytes(256);
const FAULTS_MAX: usize = 20;

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub keep: Duration,
    pub scrub_every: Duration,
}

impl Settings {
    /// What is no duration is as if it were not there.
    pub fn from_environment() -> Self {
        let read = |name: &str, usual| {
            let Ok(text) = std::env::var(name) else {
                return usual;
            };
            kernel::parse_duration(&text).unwrap_or_else(|error| {
                tracing::warn!(name, %error, "not understood");
                usual
            })
        };
        Self {
            keep: read(KEEP, KEEP_USUAL),
            scrub_every: read(SCRUB_EVERY, SCRUB_USUAL),
        }
    }

    /// What is younger may be on its way into desired state.
    pub fn grace(self) -> Duration {
        self.keep.min(GRACE)
    }

    /// What stays free of the disk that content lies on.
    fn room_left(content: &Path) -> Bytes {
        rustix::fs::statvfs(content).map_or(ROOM_LEFT_MAX, |disk| {
            let whole = disk.f_blocks.saturating_mul(disk.f_frsize);
            Bytes((whole / 20).min(ROOM_LEFT_MAX.0))
        })
    }

    pub fn fetching(content: &Path) -> ::content::FetchOptions {
        ::content::FetchOptions {
            room_left: Self::room_left(content),
            ..::content::FetchOptions::default()
        }
    }

    pub fn parameters(self, content: &Path) -> control::holding::Parameters {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        control::holding::Parameters {
            grace_ms: millis(self.grace()),
            keep_ms: millis(self.keep),
            room_left: Self::room_left(content),
            ..control::holding::Parameters::default()
        }
    }
}

/// Something that is named by desired state, or asked for.
#[derive(Clone, Debug)]
pub struct Need {
    pub tree: bool,
    pub name: String,
    pub objects: Vec<ObjectRef>,
    /// The node it was applied on.
    pub origin: NodeId,
}

impl Need {
    pub fn is_program(&self) -> bool {
        !self.tree && self.name.starts_with("service/")
    }
}

/// A file that is damaged or gone.
#[derive(Clone, Debug)]
pub struct Damaged {
    /// Where it belongs, as far as known.
    pub need: Option<Need>,
    /// The trees here that name it.
    pub trees: BTreeSet<Hash>,
    pub since: UnixMillis,
}

#[derive(Debug)]
pub struct Holdings {
    pub settings: Settings,
    pub report: watch::Sender<ContentReport>,
    wake: Notify,
    looks: watch::Sender<u64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    needs: BTreeMap<Hash, Need>,
    held: Option<BTreeMap<Hash, bool>>,
    damaged: BTreeMap<Hash, Damaged>,
    troubles: BTreeMap<Hash, Fault>,
    mended: u64,
    mended_last: Option<(UnixMillis, Hash)>,
    wrong: BTreeMap<String, (UnixMillis, Hash)>,
    here: (u64, Bytes),
    scrubbed: Option<Round>,
    /// What was to be dropped and is too young after all.
    young: BTreeSet<Hash>,
}

/// How the reading of all content goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    pub files: u64,
    pub bytes: Bytes,
    pub done_at: Option<UnixMillis>,
}

impl Holdings {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            report: watch::Sender::default(),
            wake: Notify::new(),
            looks: watch::Sender::new(0),
            state: Mutex::default(),
        }
    }

    /// Something changed: look again soon.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Changes with each look.
    pub fn looks(&self) -> watch::Receiver<u64> {
        let mut looks = self.looks.subscribe();
        looks.mark_changed();
        looks
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of content on this disk, from any thread.
    pub fn on_event(&self, event: ContentEvent) {
        let now = crate::machine::unix_now();
        match event {
            ContentEvent::Damaged { hash } => {
                tracing::error!(%hash, "content on this disk is damaged");
                self.doubt(hash);
            }
            ContentEvent::Mended { hash } => {
                let mut state = self.state();
                state.damaged.remove(&hash);
                state.mended += 1;
                state.mended_last = Some((now, hash));
            }
            ContentEvent::WrongBytes { holder, hash } => {
                self.state().wrong.insert(holder, (now, hash));
            }
            _ => {}
        }
        self.wake();
    }

    /// That file is damaged or gone, wherever it belongs.
    pub fn doubt(&self, hash: Hash) {
        let damaged = Damaged {
            need: None,
            trees: BTreeSet::new(),
            since: crate::machine::unix_now(),
        };
        self.state().damaged.entry(hash).or_insert(damaged);
        self.wake();
    }

    pub fn damaged(&self) -> BTreeMap<Hash, Damaged> {
        self.state().damaged.clone()
    }

    /// What a look found out of those it knew; `known` are those it knew.
    pub fn set_damaged(&self, known: &BTreeSet<Hash>, found: BTreeMap<Hash, Damaged>) {
        let mut state = self.state();
        state.damaged.retain(|hash, _| !known.contains(hash));
        for (hash, damaged) in found {
            state.damaged.insert(hash, damaged);
        }
    }

    /// * `held`: each tree and program here, and whether it is a tree.
    pub fn looked(
        &self,
        needs: BTreeMap<Hash, Need>,
        held: BTreeMap<Hash, bool>,
        here: (u64, Bytes),
    ) {
        let mut state = self.state();
        let State {
            troubles, damaged, ..
        } = &mut *state;
        troubles.retain(|hash, _| needs.contains_key(hash) || damaged.contains_key(hash));
        state.needs = needs;
        state.held = Some(held);
        state.here = here;
        drop(state);
        self.looks.send_modify(|count| *count += 1);
    }

    /// As the last look found it; none before the first.
    pub fn held(&self) -> Option<BTreeMap<Hash, bool>> {
        self.state().held.clone()
    }

    pub fn need(&self, hash: Hash) -> Option<Need> {
        let state = self.state();
        let damaged = state.damaged.get(&hash);
        let need = state.needs.get(&hash);
        need.or_else(|| damaged?.need.as_ref()).cloned()
    }

    /// It could not be had.
    pub fn trouble(&self, hash: Hash, why: &str, mend: Option<&str>) {
        let fault = Fault {
            found: why.to_owned(),
            mend: mend.map(str::to_owned),
        };
        self.state().troubles.insert(hash, fault);
    }

    pub fn came(&self, hash: Hash) {
        let mut state = self.state();
        state.troubles.remove(&hash);
        state.damaged.remove(&hash);
    }

    pub fn is_young(&self, hashes: impl IntoIterator<Item = Hash>) {
        self.state().young.extend(hashes);
    }

    pub fn take_young(&self) -> BTreeSet<Hash> {
        std::mem::take(&mut self.state().young)
    }

    pub fn scrubbed(&self, round: Round) {
        self.state().scrubbed = Some(round);
    }

    /// For `doctor`.
    pub fn status(&self) -> ContentStatus {
        let state = self.state();
        let (count, bytes) = state.here;
        ContentStatus {
            summary: format!("{count} trees and programs, {bytes}; {}", rounds(&state)),
            faults: faults(&state),
            notes: notes(&state),
        }
    }
}

fn rounds(state: &State) -> String {
    match state.scrubbed {
        None => "not yet read through".to_owned(),
        Some(round) => match round.done_at {
            None => format!("{} read through so far", round.bytes),
            Some(at) => format!(
                "all {} files read through {} ago",
                round.files,
                format_duration(ago(at))
            ),
        },
    }
}

fn ago(at: UnixMillis) -> Duration {
    let millis = crate::machine::unix_now().0.saturating_sub(at.0);
    Duration::from_secs(millis / 1_000)
}

fn faults(state: &State) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (hash, damaged) in state.damaged.iter().take(FAULTS_MAX) {
        let need = damaged.need.as_ref();
        let name = need.map_or_else(|| hash.short(), |need| need.name.clone());
        let trouble = state.troubles.get(hash);
        let why = trouble.map_or("it is being mended", |trouble| &trouble.found);
        faults.push(Fault {
            found: format!("{name}: what this disk has of it is damaged or gone: {why}"),
            mend: Some(
                "apply it again (its files are then written anew); check the disk".to_owned(),
            ),
        });
    }
    let missing = state.troubles.iter();
    let missing = missing.filter(|(hash, _)| !state.damaged.contains_key(hash));
    for (hash, trouble) in missing.take(FAULTS_MAX) {
        let name = state.needs.get(hash);
        let name = name.map_or_else(|| hash.short(), |need| need.name.clone());
        faults.push(Fault {
            found: format!("{name} is not here: {}", trouble.found),
            mend: trouble.mend.clone(),
        });
    }
    faults
}

fn notes(state: &State) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some((at, hash)) = state.mended_last {
        let (count, date) = (state.mended, crate::objects::date(at));
        let plural = if count == 1 { "" } else { "s" };
        notes.push(format!(
            "{count} damaged file{plural} fetched again from other nodes, the last ({}) {date}: check this disk",
            hash.short()
        ));
    }
    for (holder, (at, hash)) in state.wrong.iter().take(FAULTS_MAX) {
        let date = crate::objects::date(*at);
        notes.push(format!(
            "{holder} sent wrong bytes of {} {date}: homeostat doctor there",
            hash.short()
        ));
    }
    notes
}
