//! Jobs: on the leader, looks at all of them and writes down what that comes to;
//! and what people ask of them.
//!
//! The rules are `jobs::Machine`'s, the look is `node::jobs`; here is what is read
//! and what is written.
//! Holds: a record is written before anybody acts on it, and only over the one that
//! was looked at: of two leaders one fails, and has started nothing.

mod view;

pub use view::list;

use crate::apply::{api_error, placing, read_desired, storage};
use crate::cluster::group::lease::{Granting, Term, marked};
use crate::machine::{now, unix_now};
use crate::shared::{Message, Shared};
use ::jobs::{Effect, Event, Now, Record};
use kernel::{Revision, ScopedName, Time, UnixMillis};
use node::NodeEvent;
use node::desired::{Desired, JOBS_PREFIX, job_key};
use node::jobs::{Look, Looked, machine};
use node::lease::Grantor;
use node::store::{Compare, Operation, Store, StoreError, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use wire::api::{ApiError, JobCancelReply, JobRunReply};

/// Leases end, and nodes are given up, also where nothing is said.
const LOOK: Duration = Duration::from_secs(1);
/// What changes more often is looked at this often.
const GATHER: Duration = Duration::from_millis(20);
/// How often a person's word is said again when something else was written meanwhile.
const TRIES: u32 = 5;

/// All records, each with the revision at which it was written.
pub async fn read(
    store: &dyn Store,
) -> Result<BTreeMap<ScopedName, (Record, Revision)>, StoreError> {
    let range = store.range(JOBS_PREFIX).await?;
    let mut all = BTreeMap::new();
    for entry in range.entries {
        let invalid = |why: String| StoreError::Invalid(format!("{}: {why}", entry.key));
        let name = entry.key.strip_prefix(JOBS_PREFIX).unwrap_or_default();
        let name: ScopedName = name.parse().map_err(|_| invalid("no job".to_owned()))?;
        let record = serde_json::from_slice(&entry.value);
        let record = record.map_err(|error| invalid(error.to_string()))?;
        all.insert(name, (record, entry.modified));
    }
    Ok(all)
}

/// The wall's clock as it was once, and when that was.
static BEGAN: LazyLock<(UnixMillis, Time)> = LazyLock::new(|| (unix_now(), now()));

/// The wall's clock, and one that goes on evenly from where that was when this
/// agent began to ask.
fn clocks() -> Now {
    let (wall, since) = *BEGAN;
    let passed = u64::try_from(now().since(since).as_millis()).unwrap_or(u64::MAX);
    Now {
        wall: unix_now(),
        steady: UnixMillis(wall.0.saturating_add(passed)),
    }
}

/// On the leader; ends with its leadership.
pub async fn run(shared: Arc<Shared>, granting: Granting) {
    let since = now();
    let cluster = &shared.cluster;
    let mut reports = cluster.reports.subscribe();
    let mut reach = cluster.reach_changes();
    let mut mirrored = cluster.mirrored.subscribe();
    loop {
        let wake = match look(&shared, &mut *granting.lock().await, since).await {
            Ok(wake) => wake,
            Err(error) => {
                tracing::warn!(%error, "jobs are not looked at");
                Some(LOOK)
            }
        };
        let wake = async {
            match wake {
                Some(wake) => tokio::time::sleep(wake).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = reports.changed() => if changed.is_err() { return },
            changed = reach.changed() => if changed.is_err() { return },
            changed = mirrored.changed() => if changed.is_err() { return },
            () = wake => {}
        }
        tokio::time::sleep(GATHER).await;
        let _ = reports.borrow_and_update();
        let _ = reach.borrow_and_update();
        let _ = mirrored.borrow_and_update();
    }
}

/// Returns how long from now it is to be looked at again; none while there is
/// nothing to look at.
async fn look(
    shared: &Arc<Shared>,
    term: &mut Option<Term>,
    since: Time,
) -> Result<Option<Duration>, StoreError> {
    // Its own copy tells whether there is anything, without a word with the others;
    // where that changes, this is looked at again.
    let copy = read_desired(&shared.store).await?;
    if copy.jobs.is_empty() && copy.manifest_jobs().next().is_none() {
        return Ok(None);
    }
    let Some(term) = marked(shared, term).await? else {
        return Ok(Some(LOOK));
    };
    let fence = term.fence();
    let grantor = &mut term.grantor;
    // After the mark: what another leadership wrote before it was over is here.
    let desired = read_desired(&shared.control).await?;
    let records = read(&shared.control).await?;
    let desired = with_records(desired, &records);
    let going = desired.jobs.iter().flat_map(|(name, record)| {
        let attempts = record.attempts();
        attempts.map(|(.., attempt)| (name.clone(), attempt.serial))
    });
    grantor.keep_attempts(&going.collect::<BTreeSet<_>>());
    let (mut looked, wake) = look_at(shared, grantor, &desired, since);
    for job in grantor.unsure() {
        // Written again as it is: then what was written before cannot be done later.
        let is_looked_at = looked.iter().any(|one| one.job == *job);
        if let (Some((record, _)), false) = (records.get(job), is_looked_at) {
            looked.push(Looked {
                job: job.clone(),
                record: record.clone(),
                effects: Vec::new(),
                placed: Vec::new(),
            });
        }
    }
    for one in looked {
        let written = records.get(&one.job).map(|(_, revision)| *revision);
        grantor.job_changes(&one.job, &one.placed, now());
        match write(shared, &one.job, &one.record, written, Some(&fence)).await {
            Ok(true) => {
                grantor.is_sure(&one.job);
                tell(shared, &one.job, &one.effects).await;
            }
            // Somebody was faster, and is looked at next.
            Ok(false) => grantor.is_sure(&one.job),
            Err(error) => tracing::warn!(job = %one.job, %error, "not written down"),
        }
    }
    Ok(Some(wake.map_or(LOOK, |wake| wake.min(LOOK))))
}

fn look_at(
    shared: &Shared,
    grantor: &Grantor,
    desired: &Desired,
    since: Time,
) -> (Vec<Looked>, Option<Duration>) {
    let cluster = &shared.cluster;
    let nodes = cluster.nodes.borrow().clone();
    let reports = cluster.reports.borrow().clone();
    let look = Look {
        nodes: &nodes,
        reports: &reports,
        grantor,
        reach: &|node| cluster.reach(node),
        known: &|node| placing::known(shared, node),
        called: &|node| cluster.called(node),
        epoch: desired.next_epoch(),
        since,
        now: now(),
        clocks: clocks(),
    };
    look.at(desired)
}

fn with_records(desired: Desired, records: &BTreeMap<ScopedName, (Record, Revision)>) -> Desired {
    let records = records.iter();
    Desired {
        jobs: records
            .map(|(name, (record, _))| (name.clone(), record.clone()))
            .collect(),
        ..desired
    }
}

/// Whether it was written: over what was read, and nothing else.
async fn write(
    shared: &Shared,
    job: &ScopedName,
    record: &Record,
    over: Option<Revision>,
    fence: Option<&Compare>,
) -> Result<bool, StoreError> {
    let key = job_key(job);
    let value = serde_json::to_vec(record);
    let value = value.map_err(|error| StoreError::Invalid(error.to_string()))?;
    let compare = match over {
        Some(revision) => Compare::Modified(key.clone(), revision),
        None => Compare::Absent(key.clone()),
    };
    let transaction = Transaction {
        compare: fence.cloned().into_iter().chain([compare]).collect(),
        then: vec![Operation::Put(key, value)],
        otherwise: Vec::new(),
    };
    Ok(shared.control.transact(transaction).await?.succeeded)
}

/// For whoever asks why.
async fn tell(shared: &Shared, job: &ScopedName, effects: &[Effect]) {
    for (seen, decided) in effects.iter().filter_map(Effect::told) {
        let job = job.clone();
        let event = NodeEvent::JobDecided { job, seen, decided };
        let _ = shared.messages.send(Message::Node(event)).await;
    }
}

/// Has a person's word in a job's record.
async fn say(shared: &Shared, job: &ScopedName, event: &Event) -> Result<Vec<Effect>, ApiError> {
    for _ in 0..TRIES {
        let desired = read_desired(&shared.control).await;
        let desired = desired.map_err(|error| storage(&error))?;
        let records = read(&shared.control).await;
        let records = records.map_err(|error| storage(&error))?;
        let over = records.get(job).map(|(_, revision)| *revision);
        let desired = with_records(desired, &records);
        let mut machine = machine(&desired, job);
        let mut effects = machine.handle(event.clone(), clocks());
        effects.retain(|effect| !matches!(effect, Effect::Place { .. }));
        let declined = effects.iter().find_map(|effect| match effect {
            Effect::Declined { why } => Some(why.clone()),
            _ => None,
        });
        if let Some(why) = declined {
            let message = format!("job/{job}: {why}");
            let help = format!("homeostat job runs {job}");
            return Err(api_error("conflict", message, Some(&help)));
        }
        let written = write(shared, job, machine.record(), over, None).await;
        if written.map_err(|error| storage(&error))? {
            tell(shared, job, &effects).await;
            return Ok(effects);
        }
    }
    let message = format!("job/{job} changes faster than anybody can ask");
    Err(api_error("conflict", message, Some("try again")))
}

/// Begins a run, as a person asks.
pub async fn ask(
    shared: &Shared,
    job: &ScopedName,
    arguments: Vec<String>,
) -> Result<JobRunReply, ApiError> {
    let effects = say(shared, job, &Event::Asked { arguments }).await?;
    let run = effects.iter().rev().find_map(|effect| match effect {
        Effect::Began { run, .. } => Some(*run),
        _ => None,
    });
    Ok(JobRunReply {
        job: job.to_string(),
        run: run.unwrap_or_default(),
    })
}

/// Ends a run, or all that go on.
pub async fn cancel(
    shared: &Shared,
    job: &ScopedName,
    run: Option<u64>,
) -> Result<JobCancelReply, ApiError> {
    let desired = read_desired(&shared.control).await;
    let desired = desired.map_err(|error| storage(&error))?;
    let going = desired.jobs.get(job).into_iter().flat_map(Record::going);
    let going = going.map(|one| one.number);
    let runs = going
        .filter(|one| run.is_none_or(|run| run == *one))
        .collect();
    say(shared, job, &Event::Cancelled { run }).await?;
    Ok(JobCancelReply {
        job: job.to_string(),
        runs,
    })
}
