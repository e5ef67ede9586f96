//! Carries one fetch out: feeds the plan, starts and stops its runs, and puts
//! together what they bring.
//!
//! Holds: nothing is taken up while [`UNITS_MAX`] units or [`LONG_FILES_MAX`] long
//! files are at hand, however many are wanted; a file that another fetch of this
//! process is at is waited for.

use super::plan::{Effect, Event, FileId, HolderId, Limits, Plan, RunId, UnitId};
use super::run::{Item, Job, Note, Run, Told};
use super::{Context, FetchError, FetchProgress, Fetched, Fetcher, Holder, Partial, Wanted};
use crate::Content;
use crate::error::ContentError;
use crate::leases::Claim;
use kernel::{Bytes, Hash, Time};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use wire::exchange::{PIECE_BYTES_MIN, WANTS_MAX, piece_bytes};

const UNITS_MAX: usize = 4 * WANTS_MAX;
const LONG_FILES_MAX: usize = 32;
const NOTES_MAX: usize = 64;
/// What a file of unknown length is taken for.
const USUAL_BYTES: u64 = 64 << 10;
const RUN_TIME: Duration = Duration::from_millis(500);
/// Handles of ended runs are let go when there are more.
const HANDLES_MAX: usize = 64;

/// A file that was fetched and is not visible yet.
#[derive(Debug)]
pub(crate) enum Held {
    Small(Vec<u8>),
    Long(Arc<Partial>, Claim),
}

#[derive(Debug)]
struct File {
    wanted: Wanted,
    claim: Claim,
    partial: Option<Arc<Partial>>,
    /// Pieces still to come.
    left: usize,
    /// Of several pieces, or of unknown length.
    long: bool,
}

pub(crate) struct Engine<'a> {
    fetcher: &'a Fetcher,
    context: Arc<Context>,
    holders: Vec<Arc<dyn Holder>>,
    plan: Plan,
    pending: VecDeque<Wanted>,
    /// At which another fetch is.
    deferred: Vec<Wanted>,
    freed: watch::Receiver<u64>,
    files: BTreeMap<FileId, File>,
    long_files: usize,
    /// The file of each unit, and its piece unless it is a description.
    units: BTreeMap<UnitId, (FileId, Option<u32>)>,
    next_id: u64,
    runs: BTreeMap<RunId, AbortHandle>,
    tasks: JoinSet<()>,
    finishing: JoinSet<(FileId, Result<(), ContentError>)>,
    notes: (mpsc::Sender<Told>, mpsc::Receiver<Told>),
    began: Instant,
    wake: Option<Instant>,
    whys: BTreeMap<String, String>,
    progress: FetchProgress,
    fetched: Fetched,
    held: Option<Held>,
}

impl<'a> Engine<'a> {
    pub fn new(
        fetcher: &'a Fetcher,
        context: Arc<Context>,
        files: Vec<Wanted>,
        holders: &[Arc<dyn Holder>],
    ) -> Self {
        let options = &fetcher.options;
        let mut whys = BTreeMap::new();
        let mut holders = holders.to_vec();
        holders.retain(|holder| match fetcher.wrong_ago(holder.name()) {
            Some(ago) => {
                let why = format!("it sent wrong bytes {} s ago", ago.as_secs());
                whys.insert(holder.name().to_owned(), why);
                false
            }
            None => true,
        });
        holders.sort_by(|a, b| (a.distance(), a.name()).cmp(&(b.distance(), b.name())));
        let limits = Limits {
            runs_per_holder: options.requests_per_holder.max(1),
            runs_max: options.requests_max.max(1),
            run_bytes_min: PIECE_BYTES_MIN,
            run_bytes_first: 4 * PIECE_BYTES_MIN,
            run_bytes_max: 32 * PIECE_BYTES_MIN,
            run_units_max: WANTS_MAX,
            run_time: RUN_TIME,
            patience: options.patience,
            rest: options.rest,
            failures_max: options.failures_max.max(1),
        };
        let distances: Vec<Duration> = holders.iter().map(|holder| holder.distance()).collect();
        let progress = FetchProgress {
            files_total: files.len() as u64,
            bytes_total: files.iter().filter_map(|file| file.bytes).sum(),
            ..FetchProgress::default()
        };
        Self {
            fetcher,
            context,
            holders,
            plan: Plan::new(limits, &distances),
            pending: files.into(),
            deferred: Vec::new(),
            freed: fetcher.content.shared.freed.subscribe(),
            files: BTreeMap::new(),
            long_files: 0,
            units: BTreeMap::new(),
            next_id: 0,
            runs: BTreeMap::new(),
            tasks: JoinSet::new(),
            finishing: JoinSet::new(),
            notes: mpsc::channel(NOTES_MAX),
            began: Instant::now(),
            wake: None,
            whys,
            progress,
            fetched: Fetched::default(),
            held: None,
        }
    }

    pub fn into_results(self) -> (Fetched, Option<Held>) {
        (self.fetched, self.held)
    }

    pub async fn run(
        &mut self,
        progress: &mut (dyn FnMut(FetchProgress) + Send),
    ) -> Result<(), FetchError> {
        let mut events = Vec::new();
        loop {
            self.feed(&mut events);
            let effects = self.plan.handle(&events, self.now());
            events.clear();
            self.carry_out(effects)?;
            progress(self.progress);
            if self.is_done() {
                return Ok(());
            }
            self.wait(&mut events).await?;
        }
    }

    fn is_done(&self) -> bool {
        self.files.is_empty() && self.pending.is_empty() && self.deferred.is_empty()
    }

    fn now(&self) -> Time {
        let nanos = self.began.elapsed().as_nanos();
        Time(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Takes up what is next, as far as the bounds allow.
    fn feed(&mut self, events: &mut Vec<Event>) {
        while self.plan.wanted() + events.len() < UNITS_MAX && self.long_files < LONG_FILES_MAX {
            let Some(wanted) = self.pending.pop_front() else {
                return;
            };
            let content = &self.fetcher.content;
            let Some(claim) = content.claim(wanted.hash) else {
                self.deferred.push(wanted);
                continue;
            };
            if is_here(content, &wanted) {
                self.count_file(false);
                continue;
            }
            let long = wanted.bytes.is_none_or(|bytes| bytes > PIECE_BYTES_MIN);
            let bytes = wanted.bytes.unwrap_or(USUAL_BYTES);
            let bytes = bytes.min(piece_bytes(bytes));
            let (file, unit) = (self.next_id, self.next_id + 1);
            self.next_id += 2;
            self.long_files += usize::from(long);
            self.files.insert(
                file,
                File {
                    wanted,
                    claim,
                    partial: None,
                    left: 0,
                    long,
                },
            );
            self.units.insert(unit, (file, None));
            events.push(Event::Added { unit, file, bytes });
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) -> Result<(), FetchError> {
        self.wake = None;
        for effect in effects {
            match effect {
                Effect::Start { run, holder, units } => self.start(run, holder, &units),
                Effect::Stop(run) => {
                    if let Some(handle) = self.runs.remove(&run) {
                        handle.abort();
                    }
                }
                Effect::WakeAt(at) => self.wake = Some(self.began + at.since(Time(0))),
                Effect::Stuck(unit) => return Err(self.stuck(unit)),
            }
        }
        if self.runs.len() > HANDLES_MAX {
            self.runs.retain(|_, handle| !handle.is_finished());
        }
        Ok(())
    }

    fn start(&mut self, run: RunId, holder: HolderId, units: &[UnitId]) {
        let job = |unit: &UnitId| {
            let (file, piece) = self.units.get(unit)?;
            let file = self.files.get(file)?;
            let job = match (piece, &file.partial) {
                (None, _) => Job::Describe(file.wanted),
                (Some(index), Some(partial)) => Job::Piece {
                    partial: Arc::clone(partial),
                    index: *index,
                },
                (Some(_), None) => return None,
            };
            Some(Item { unit: *unit, job })
        };
        let items = units.iter().filter_map(job).collect();
        let failures = self.plan.failures(holder).min(3);
        let task = Run {
            id: run,
            holder_id: holder,
            holder: Arc::clone(&self.holders[holder]),
            items,
            context: Arc::clone(&self.context),
            within: self.fetcher.options.piece_within * 2_u32.pow(failures),
            notes: self.notes.0.clone(),
        };
        let handle = self.tasks.spawn(task.carry_out());
        self.runs.insert(run, handle);
    }

    fn stuck(&self, unit: UnitId) -> FetchError {
        let file = self.units.get(&unit);
        let file = file.and_then(|(file, _)| self.files.get(file));
        let hash = file.map_or(Hash([0; 32]), |file| file.wanted.hash);
        let whys = self.whys.clone().into_iter();
        FetchError::Unreachable {
            hash,
            holders: whys.collect(),
        }
    }

    async fn wait(&mut self, events: &mut Vec<Event>) -> Result<(), FetchError> {
        let wake = self.wake.unwrap_or_else(Instant::now);
        tokio::select! {
            note = self.notes.1.recv() => {
                if let Some(told) = note {
                    self.on_note(told, events)?;
                }
                while let Ok(told) = self.notes.1.try_recv() {
                    self.on_note(told, events)?;
                }
            }
            Some(finished) = self.finishing.join_next() => {
                let (file, result) = finished.map_err(|error| {
                    let fail = ContentError::io("finish", &self.fetcher.content.root);
                    fail(std::io::Error::other(error))
                })?;
                result?;
                self.end_file(file);
            }
            Some(ended) = self.tasks.join_next() => {
                // Its last notes are on their way; only a panic says nothing.
                if let Err(error) = ended && error.is_panic() {
                    let fail = ContentError::io("fetch into", &self.fetcher.content.root);
                    return Err(fail(std::io::Error::other(error)).into());
                }
            }
            () = sleep_until(wake), if self.wake.is_some() => events.push(Event::Tick),
            _ = self.freed.changed(), if !self.deferred.is_empty() => {
                self.pending.extend(self.deferred.drain(..));
            }
        }
        Ok(())
    }

    fn on_note(&mut self, told: Told, events: &mut Vec<Event>) -> Result<(), FetchError> {
        let Told { run, holder, note } = told;
        match note {
            Note::Whole { unit, bytes, held } => {
                events.push(Event::Arrived { run, unit });
                if let Some((file, _)) = self.units.remove(&unit) {
                    self.give(holder, bytes);
                    self.held = held.map(Held::Small);
                    self.end_file(file);
                }
            }
            Note::Described {
                unit,
                partial,
                bytes,
            } => {
                events.push(Event::Arrived { run, unit });
                if let Some((file, _)) = self.units.remove(&unit) {
                    self.give(holder, bytes);
                    self.on_described(file, partial, bytes, events);
                }
            }
            Note::Piece { unit, bytes } => {
                events.push(Event::Arrived { run, unit });
                if let Some((id, _)) = self.units.remove(&unit)
                    && let Some(file) = self.files.get_mut(&id)
                {
                    file.left -= 1;
                    self.give(holder, bytes);
                    self.finish_if_whole(id);
                }
            }
            Note::Writing => events.push(Event::Writing { run }),
            Note::Lacking { unit, refusal } => {
                self.because(holder, refusal.to_string());
                events.push(Event::Lacking { run, unit });
            }
            Note::Wrong { hash } => {
                let name = self.holders[holder].name().to_owned();
                if self.fetched.wrong.insert(name.clone()) {
                    self.fetcher.on_wrong(&name, hash);
                }
                self.because(holder, "it sent wrong bytes".to_owned());
                events.push(Event::Wrong { run });
            }
            Note::Failed { why } => {
                self.because(holder, why);
                events.push(Event::Failed { run });
            }
            Note::Length {
                hash,
                expected,
                found,
            } => {
                return Err(FetchError::Length {
                    hash,
                    expected,
                    found,
                });
            }
            Note::Fatal(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn on_described(
        &mut self,
        id: FileId,
        partial: Arc<Partial>,
        bytes: u64,
        events: &mut Vec<Event>,
    ) {
        let Some(file) = self.files.get_mut(&id) else {
            return;
        };
        let length = partial.pieces().length();
        if file.wanted.bytes.is_none() {
            self.progress.bytes_total += length;
        }
        let missing = partial.missing();
        file.left = missing.len();
        let mut to_come = 0;
        for index in missing {
            let unit = self.next_id;
            self.next_id += 1;
            let range = partial.pieces().range(index);
            let bytes = range.map_or(0, |(_, length)| length as u64);
            to_come += bytes;
            self.units.insert(unit, (id, Some(index)));
            events.push(Event::Added {
                unit,
                file: id,
                bytes,
            });
        }
        file.partial = Some(partial);
        let resumed = length.saturating_sub(to_come).saturating_sub(bytes);
        self.fetched.resumed = Bytes(self.fetched.resumed.0 + resumed);
        self.progress.bytes += resumed;
        self.finish_if_whole(id);
    }

    fn finish_if_whole(&mut self, id: FileId) {
        let Some(file) = self.files.get(&id).filter(|file| file.left == 0) else {
            return;
        };
        let Some(partial) = file.partial.clone() else {
            return;
        };
        if file.wanted.hold {
            if let Some(file) = self.files.remove(&id) {
                self.long_files -= usize::from(file.long);
                self.held = Some(Held::Long(partial, file.claim));
                self.count_file(true);
            }
            return;
        }
        self.finishing.spawn(async move {
            let finished = spawn_blocking(move || partial.finish()).await;
            let result = finished.unwrap_or_else(|error| {
                let fail = ContentError::io("finish", std::path::Path::new("content"));
                Err(fail(std::io::Error::other(error)))
            });
            (id, result)
        });
    }

    fn end_file(&mut self, id: FileId) {
        if let Some(file) = self.files.remove(&id) {
            self.context.forget(file.wanted.hash);
            self.long_files -= usize::from(file.long);
            self.count_file(true);
        }
    }

    fn count_file(&mut self, new: bool) {
        self.progress.files += 1;
        self.fetched.files += u64::from(new);
    }

    fn give(&mut self, holder: HolderId, bytes: u64) {
        self.progress.bytes += bytes;
        let name = self.holders[holder].name().to_owned();
        let sum = self.fetched.from.entry(name).or_insert(Bytes(0));
        *sum = Bytes(sum.0 + bytes);
    }

    fn because(&mut self, holder: HolderId, why: String) {
        let name = self.holders[holder].name().to_owned();
        tracing::debug!(holder = name, why, "a holder did not give content");
        self.whys.insert(name, why);
    }
}

impl Held {
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Small(bytes) => bytes.len() as u64,
            Self::Long(partial, _) => partial.pieces().length(),
        }
    }

    /// Blocks.
    pub fn read(&self) -> Result<Vec<u8>, ContentError> {
        match self {
            Self::Small(bytes) => Ok(bytes.clone()),
            Self::Long(partial, _) => partial.bytes(),
        }
    }

    /// Makes it visible. Blocks.
    pub fn publish(self, content: &Content, hash: Hash) -> Result<(), ContentError> {
        match self {
            Self::Small(bytes) => {
                let mut stage = content.stage();
                stage.add_bytes(content.path(hash), &bytes)?;
                stage.flush()
            }
            Self::Long(partial, _claim) => partial.finish(),
        }
    }
}

/// Of unknown length, what is visible is taken for whole.
fn is_here(content: &Content, wanted: &Wanted) -> bool {
    match wanted.bytes {
        Some(bytes) => content.has(wanted.hash, bytes),
        None => content.path(wanted.hash).exists(),
    }
}
