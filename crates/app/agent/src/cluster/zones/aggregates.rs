//! Aggregates: programs that run at a zone and all below, installed by a person
//! on the leader.
//!
//! In: what a person adds or removes; the store; notices from the tree. Out:
//! signed notices, the programs that this node runs.
//! Holds: what was acknowledged is in the store, and said again after a restart
//! until its time is over; a removed version never comes back.

use super::{Shared, handle};
use crate::apply::{api_error, storage};
use crate::machine::unix_now;
use aggregation::installed::Installed;
use aggregation::program::{Limits, Program};
use aggregation::tree::{Applied, Event, Failed, Standing, Tree};
use kernel::{NodeId, UnixMillis, ZonePath};
use node::store::{Compare, Operation, Store, Transaction};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use wire::api::{AggregateRequest, AggregateView, ApiError};
use wire::attributes::AttributeName;
use wire::tree::{Notice, Run, Says, SignedNotice};

const PREFIX: &str = "/aggregates/";
/// Steps of a number under two hundredths are not told.
const THRESHOLD: u16 = 20;
const PRIORITY: u8 = 100;
const TRIAL: Duration = Duration::from_secs(2);
/// Until it is said anew by whoever leads.
const LIFETIME: Duration = Duration::from_hours(24 * 365);
/// Another writer was faster so often: somebody else's trouble.
const TRIES_MAX: usize = 8;
const LOOK: Duration = Duration::from_hours(1);

/// What there is before anybody asks for more.
const HEALTH: &str = "health";
const HEALTH_TEXT: &str = "SELECT COUNT(*) AS nodes, SUM(cores) AS cores, AVG(cpu, cores) AS cpu, \
    MIN(headroom) AS headroom_min, AVG(headroom, cores) AS headroom, \
    SUM(requests_per_s) AS requests_per_s, SUM(errors_per_s) AS errors_per_s, \
    SUM(in_flight) AS in_flight, QUANTILE(latency_ms, 0.99) AS latency_p99_ms, \
    FIRST(3, ingress ORDER BY cpu) AS ingress FROM children";

/// What this node runs, and what came of it.
#[derive(Default)]
pub struct Programs {
    installed: Mutex<Arc<Installed>>,
    failed: Mutex<BTreeMap<ZonePath, Vec<Failed>>>,
}

impl Programs {
    pub fn current(&self) -> Arc<Installed> {
        let installed = self.installed.lock();
        Arc::clone(&installed.unwrap_or_else(PoisonError::into_inner))
    }

    pub fn replace(&self, applied: &[Applied]) {
        let new = Arc::new(Installed::of(applied));
        let installed = self.installed.lock();
        *installed.unwrap_or_else(PoisonError::into_inner) = new;
    }

    pub fn failed(&self, zone: ZonePath, failed: Vec<Failed>) {
        for one in &failed {
            let (program, version, why) = (&one.program, one.version, &one.why);
            tracing::warn!(%zone, %program, version, why, "an aggregate gives nothing");
        }
        let all = self.failed.lock();
        all.unwrap_or_else(PoisonError::into_inner)
            .insert(zone, failed);
    }
}

/// What the store keeps of a program, also of one that was removed.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    version: u64,
    /// Whose text it is: the program's own, or a person's.
    built_in: bool,
    removed: bool,
    zone: ZonePath,
    text: String,
    said_at: UnixMillis,
    lifetime_ms: u64,
    /// Signed.
    notice: Vec<u8>,
}

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

async fn read(shared: &Shared, name: &str) -> Result<Option<(Record, Vec<u8>)>, ApiError> {
    let key = key(name);
    let entry = node::store::get(&shared.control, &key).await;
    let Some(entry) = entry.map_err(|error| storage(&error))? else {
        return Ok(None);
    };
    let record = serde_json::from_slice(&entry.value);
    let record = record.map_err(|error| api_error("storage", error.to_string(), None))?;
    Ok(Some((record, entry.value)))
}

/// `make` is given what there was, and its version.
async fn change(
    shared: &Arc<Shared>,
    name: &str,
    make: impl Fn(Option<&Record>) -> Result<Record, ApiError>,
) -> Result<Record, ApiError> {
    for _ in 0..TRIES_MAX {
        let before = read(shared, name).await?;
        let record = make(before.as_ref().map(|(record, _)| record))?;
        let value = serde_json::to_vec(&record);
        let value = value.map_err(|error| api_error("internal", error.to_string(), None))?;
        let compare = match before {
            Some((_, value)) => Compare::Value(key(name), value),
            None => Compare::Absent(key(name)),
        };
        let transaction = Transaction {
            compare: vec![compare],
            then: vec![Operation::Put(key(name), value)],
            otherwise: Vec::new(),
        };
        let done = shared.control.transact(transaction).await;
        if done.map_err(|error| storage(&error))?.succeeded {
            say(shared, &record);
            return Ok(record);
        }
    }
    Err(api_error("conflict", "somebody else changes it too", None))
}

/// Into the tree, as old as it is.
fn say(shared: &Arc<Shared>, record: &Record) {
    let age = unix_now().0.saturating_sub(record.said_at.0);
    let notice = Event::Notice {
        notice: record.notice.clone(),
        age: Duration::from_millis(age),
    };
    handle(shared, notice);
}

fn signed(shared: &Shared, notice: Notice) -> Result<Vec<u8>, ApiError> {
    let encoded = notice.encode();
    let encoded = encoded.map_err(|error| invalid(&error.to_string(), EXAMPLE))?;
    let signature = shared.cluster.zones.keys.sign(&encoded);
    Ok(SignedNotice::new(notice, encoded, &signature)
        .bytes()
        .to_vec())
}

const EXAMPLE: &str = "homeostat aggregates add busy \"SELECT MAX(cpu) AS busiest\" --zone /eu";

fn invalid(message: &str, help: &str) -> ApiError {
    api_error("invalid_question", message, Some(help))
}

/// Where a new version is tried first: in this node's own zone, where that lies
/// in the program's, else all over it.
fn canary(shared: &Shared, zone: &ZonePath) -> ZonePath {
    let leaf = shared.cluster.zones.read(|tree| tree.zone().clone());
    leaf.filter(|leaf| zone.contains(leaf))
        .unwrap_or_else(|| zone.clone())
}

/// What is to run, said by this node.
struct Wanted {
    name: AttributeName,
    zone: ZonePath,
    text: String,
    lifetime: Duration,
    trial: Duration,
    priority: u8,
    built_in: bool,
}

fn record(shared: &Shared, wanted: &Wanted, before: Option<&Record>) -> Result<Record, ApiError> {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let (version, said_at) = (before.map_or(0, |it| it.version) + 1, unix_now());
    let lifetime_ms = millis(wanted.lifetime);
    let notice = Notice {
        program: wanted.name.clone(),
        zone: wanted.zone.clone(),
        version,
        issuer: shared.cluster.own.id,
        lifetime_ms,
        says: Says::Run(Run {
            text: wanted.text.clone(),
            issued_at: said_at,
            threshold: THRESHOLD,
            priority: wanted.priority,
            canary: canary(shared, &wanted.zone),
            canary_ms: millis(wanted.trial),
        }),
    };
    Ok(Record {
        version,
        built_in: wanted.built_in,
        removed: false,
        zone: wanted.zone.clone(),
        text: wanted.text.clone(),
        said_at,
        lifetime_ms,
        notice: signed(shared, notice)?,
    })
}

/// Adds a program, or another version of it.
pub async fn add(shared: &Arc<Shared>, asked: AggregateRequest) -> Result<AggregateView, ApiError> {
    let zone = asked.zone.as_deref().unwrap_or("/");
    let zone: ZonePath = zone
        .parse()
        .map_err(|error| invalid(&format!("{error}"), EXAMPLE))?;
    let name: AttributeName = asked
        .name
        .parse()
        .map_err(|error| invalid(&format!("{error}"), EXAMPLE))?;
    Program::compile(&name, &asked.text, Limits::default()).map_err(|error| {
        let hint = error.hint().unwrap_or(EXAMPLE).to_owned();
        invalid(&error.to_string(), &hint)
    })?;
    let wanted = Wanted {
        lifetime: asked.life_ms.map_or(LIFETIME, Duration::from_millis),
        trial: asked.trial_ms.map_or(TRIAL, Duration::from_millis),
        priority: PRIORITY,
        built_in: false,
        text: asked.text,
        name: name.clone(),
        zone,
    };
    let moved = |before: &Record| !before.removed && before.zone != wanted.zone;
    let made = change(shared, name.as_str(), |before| {
        if let Some(before) = before.filter(|before| moved(before)) {
            let message = format!("`{name}` runs at {} already", before.zone);
            let help = format!("homeostat aggregates rm {name}");
            return Err(api_error("conflict", message, Some(&help)));
        }
        record(shared, &wanted, before)
    });
    let made = made.await?;
    Ok(view_of_record(&name, &made))
}

fn view_of_record(name: &AttributeName, record: &Record) -> AggregateView {
    AggregateView {
        name: name.to_string(),
        zone: record.zone.to_string(),
        version: record.version,
        state: "said".to_owned(),
        why: None,
        text: record.text.clone(),
        ends_ms: record.lifetime_ms,
    }
}

/// Ends a program wherever it runs.
pub async fn remove(shared: &Arc<Shared>, name: &str) -> Result<AggregateView, ApiError> {
    let named: Result<AttributeName, _> = name.parse();
    let absent = || {
        let message = format!("no aggregate is called `{name}`");
        api_error("not_found", message, Some("homeostat aggregates ls"))
    };
    let named = named.map_err(|_| absent())?;
    let made = change(shared, name, |before| {
        let before = before.filter(|before| !before.removed).ok_or_else(absent)?;
        let notice = Notice {
            program: named.clone(),
            zone: before.zone.clone(),
            version: before.version,
            issuer: shared.cluster.own.id,
            lifetime_ms: before.lifetime_ms,
            says: Says::Remove,
        };
        Ok(Record {
            removed: true,
            said_at: unix_now(),
            notice: signed(shared, notice)?,
            ..before.clone()
        })
    });
    let removed = view_of_record(&named, &made.await?);
    Ok(AggregateView {
        state: "removed".to_owned(),
        ..removed
    })
}

/// As this node sees it.
pub fn list(shared: &Shared) -> Vec<AggregateView> {
    let programs = &shared.cluster.programs;
    let failed = programs.failed.lock();
    let failed = failed.unwrap_or_else(PoisonError::into_inner);
    let applied = shared
        .cluster
        .zones
        .read(Tree::programs)
        .unwrap_or_default();
    let fails = |one: &Applied| {
        let mut failed = failed.iter().flat_map(|(zone, all)| {
            let all = all.iter().filter(|it| it.key == one.notice.key);
            all.map(move |it| format!("at {zone}: {}", it.why))
        });
        failed.next()
    };
    let shown = applied.iter().filter_map(|one| {
        let notice = &one.notice.notice;
        let Says::Run(run) = &notice.says else {
            return None;
        };
        let (state, why) = match &one.standing {
            Standing::Runs => ("runs", fails(one)),
            Standing::Canary { .. } => ("is tried", fails(one)),
            Standing::Quarantined { why } => ("in quarantine", Some(why.clone())),
            Standing::Outdone => return None,
        };
        let age = u64::try_from(one.age.as_millis()).unwrap_or(u64::MAX);
        Some(AggregateView {
            name: notice.program.to_string(),
            zone: notice.zone.to_string(),
            version: notice.version,
            state: state.to_owned(),
            why,
            text: run.text.clone(),
            ends_ms: notice.lifetime_ms.saturating_sub(age),
        })
    });
    shown.collect()
}

/// On the leader: says again what the store has, and the built-in program
/// anew when it is another or half its time is over; runs for ever.
pub async fn keep(shared: Arc<Shared>) {
    let mut begun = shared.cluster.zones.begun.subscribe();
    loop {
        // Nothing can be said before this node has its place in the tree.
        if *begun.borrow_and_update() > 0
            && let Err(error) = keep_once(&shared).await
        {
            tracing::warn!(error = error.message, "aggregates are not said");
        }
        let _ = tokio::time::timeout(LOOK, begun.changed()).await;
    }
}

/// Whether the notice is of one of these nodes, so that all others take it.
fn is_signed_by(record: &Record, trusted: &BTreeSet<NodeId>) -> bool {
    let notice = SignedNotice::decode(&record.notice);
    notice.is_ok_and(|signed| trusted.contains(&signed.notice.issuer))
}

/// The same in this node's name, after one that does not keep the stores any
/// more.
fn sign_again(shared: &Shared, name: &str, before: Option<&Record>) -> Result<Record, ApiError> {
    let gone = || {
        api_error(
            "not_found",
            format!("no aggregate is called `{name}`"),
            None,
        )
    };
    let before = before.ok_or_else(gone)?;
    let unreadable = |error: &dyn std::fmt::Display| api_error("storage", error.to_string(), None);
    let signed_before = SignedNotice::decode(&before.notice);
    let notice = Notice {
        version: before.version + 1,
        issuer: shared.cluster.own.id,
        ..signed_before.map_err(|error| unreadable(&error))?.notice
    };
    Ok(Record {
        version: notice.version,
        notice: signed(shared, notice)?,
        said_at: unix_now(),
        ..before.clone()
    })
}

async fn keep_once(shared: &Arc<Shared>) -> Result<(), ApiError> {
    let name: AttributeName = HEALTH.parse().expect("a name");
    let wanted = Wanted {
        name,
        zone: ZonePath::root(),
        text: HEALTH_TEXT.to_owned(),
        lifetime: LIFETIME,
        trial: Duration::ZERO,
        priority: u8::MAX,
        built_in: true,
    };
    let before = read(shared, HEALTH).await?.map(|(record, _)| record);
    let is_due = before.as_ref().is_none_or(|before| {
        let age = unix_now().0.saturating_sub(before.said_at.0);
        before.built_in
            && !before.removed
            && (before.text != wanted.text || age > before.lifetime_ms / 2)
    });
    if is_due {
        change(shared, HEALTH, |before| record(shared, &wanted, before)).await?;
    }
    let range = shared.control.range(PREFIX).await;
    let trusted = shared.cluster.trusted();
    for entry in range.map_err(|error| storage(&error))?.entries {
        match serde_json::from_slice::<Record>(&entry.value) {
            Ok(record) if is_signed_by(&record, &trusted) => say(shared, &record),
            Ok(_) => {
                let name = entry.key.strip_prefix(PREFIX).unwrap_or(&entry.key);
                change(shared, name, |before| sign_again(shared, name, before)).await?;
            }
            Err(error) => tracing::error!(key = entry.key, %error, "an aggregate is not read"),
        }
    }
    Ok(())
}
