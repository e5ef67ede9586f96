//! Alerts: questions that are asked again and again on the leader, each answer a reading for its loop; notices carried out.
//!
//! In: what people add and remove; answers; the loops' decisions. Out: notices,
//! by webhook or command; what was told last, in the store.
//! Holds: what was acknowledged is in the store; each notice ends in one word to
//! its loop.

mod deliver;
mod kept;

pub use kept::{add, remove};

use crate::api::asked_reply;
use crate::apply::{api_error, storage};
use crate::cluster::zones::ask::{self, Asked};
use crate::machine::{now, unix_now};
use crate::shared::{Message, Shared};
use control::alert::{Condition, Standing};
use kept::Record;
use kernel::format_duration;
use node::{AlertSpec, AlertStatus, NodeEvent};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use wire::api::{AlertNotice, AlertView, ApiError, AskReply};

/// Of the rows behind a number, in a notice.
const ROWS: u32 = 5;
const WITHIN_MAX: Duration = Duration::from_secs(5);

/// What the tasks share of alerts.
#[derive(Default)]
pub struct Alerts {
    changed: Notify,
    /// By alert: the newest answer, or why there is none.
    answers: Mutex<BTreeMap<String, Result<AskReply, String>>>,
    /// What the store has of what was told.
    told: Mutex<BTreeMap<String, Standing>>,
}

impl Alerts {
    fn answer(&self, name: &str) -> Option<Result<AskReply, String>> {
        let answers = self.answers.lock();
        let answers = answers.unwrap_or_else(PoisonError::into_inner);
        answers.get(name).cloned()
    }

    fn put(&self, name: &str, answer: Result<AskReply, String>) {
        let answers = self.answers.lock();
        let mut answers = answers.unwrap_or_else(PoisonError::into_inner);
        answers.insert(name.to_owned(), answer);
    }

    fn forget(&self, name: &str) {
        let answers = self.answers.lock();
        let mut answers = answers.unwrap_or_else(PoisonError::into_inner);
        answers.remove(name);
    }

    fn told(&self) -> MutexGuard<'_, BTreeMap<String, Standing>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends with its owner.
struct Asking(AbortHandle);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where this node leads no more: its loops have nothing to tell.
pub async fn rest(shared: &Shared) {
    let event = Message::Node(NodeEvent::Alerts(BTreeMap::new()));
    let _ = shared.messages.send(event).await;
    shared.alerts.told().clear();
}

/// Keeps them on the leader, for ever.
pub async fn run(shared: Arc<Shared>) {
    let mut asking: BTreeMap<String, (Record, Asking)> = BTreeMap::new();
    let mut status = shared.status.subscribe();
    loop {
        match kept::read_all(&shared).await {
            Ok(records) => {
                let specs = specs(&shared, &records).await;
                let event = Message::Node(NodeEvent::Alerts(specs));
                if shared.messages.send(event).await.is_err() {
                    return;
                }
                ask_all(&shared, records, &mut asking);
            }
            Err(error) => tracing::error!(error = error.message, "alerts are not read"),
        }
        loop {
            tokio::select! {
                () = shared.alerts.changed.notified() => break,
                changed = status.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let alerts = status.borrow_and_update().alerts.clone();
                    keep_told(&shared, &alerts).await;
                }
            }
        }
    }
}

async fn specs(shared: &Shared, records: &BTreeMap<String, Record>) -> BTreeMap<String, AlertSpec> {
    let alerts = &shared.alerts;
    alerts.told().retain(|name, _| records.contains_key(name));
    let mut specs = BTreeMap::new();
    for (name, record) in records {
        let known = alerts.told().get(name).cloned();
        let told = match known {
            Some(told) => told,
            None => kept::read_told(shared, name).await,
        };
        alerts.told().insert(name.clone(), told.clone());
        let parameters = record.parameters();
        specs.insert(name.clone(), AlertSpec { parameters, told });
    }
    specs
}

/// What loops took for told without a notice, and what could not be kept then.
async fn keep_told(shared: &Shared, alerts: &BTreeMap<String, AlertStatus>) {
    for (name, alert) in alerts {
        let kept = shared.alerts.told().get(name).cloned();
        if kept.is_some_and(|kept| kept != alert.told) {
            // Where it fails, the next status finds the same difference.
            keep(shared, name, &alert.told).await;
        }
    }
}

/// So that a restart tells nothing twice.
async fn keep(shared: &Shared, name: &str, told: &Standing) {
    match kept::write_told(shared, name, told).await {
        Ok(()) => {
            shared.alerts.told().insert(name.to_owned(), told.clone());
        }
        Err(error) => tracing::warn!(alert = name, %error, "what was told is not kept"),
    }
}

fn ask_all(
    shared: &Arc<Shared>,
    records: BTreeMap<String, Record>,
    asking: &mut BTreeMap<String, (Record, Asking)>,
) {
    asking.retain(|name, (record, _)| {
        let same = records.get(name) == Some(record);
        if !same {
            shared.alerts.forget(name);
        }
        same
    });
    for (name, record) in records {
        asking.entry(name.clone()).or_insert_with(|| {
            let task = ask_again_and_again(Arc::clone(shared), name, record.clone());
            (record, Asking(tokio::spawn(task).abort_handle()))
        });
    }
}

async fn ask_again_and_again(shared: Arc<Shared>, name: String, record: Record) {
    let every = Duration::from_millis(record.every_ms);
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = ask_once(&shared, &record, every.min(WITHIN_MAX)).await;
        if let Err(why) = &answer {
            tracing::debug!(alert = name, why, "no answer");
        }
        let first = answer.as_ref().ok().and_then(|it| it.values.first());
        let value = first.map(|first| first.value.clone());
        shared.alerts.put(&name, answer);
        let name = name.clone();
        let event = Message::Node(NodeEvent::AlertAnswered { name, value });
        if shared.messages.send(event).await.is_err() {
            return;
        }
    }
}

async fn ask_once(
    shared: &Arc<Shared>,
    record: &Record,
    within: Duration,
) -> Result<AskReply, String> {
    let asked = Asked {
        zone: record.zone.clone(),
        text: record.question.clone(),
        fresh: None,
        rows: ROWS,
        within,
    };
    let (done, names) = ask::ask(shared, asked)
        .await
        .map_err(|error| error.to_string())?;
    asked_reply(shared, &record.zone, done, names).map_err(|error| error.message)
}

/// Carries out what a loop decided.
pub fn notify(shared: &Arc<Shared>, name: String, standing: Standing) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let state = match &standing {
            Standing::Firing => "firing",
            Standing::Quiet => "resolved",
            Standing::Is(_) => "changed",
        };
        let outcome = match kept::read(&shared, &name).await {
            Ok(Some(record)) => deliver(&shared, &name, &record, state).await,
            Ok(None) => Err("the alert is gone".to_owned()),
            Err(error) => Err(error.message),
        };
        match &outcome {
            // Before the loop knows of it: whoever sees it told finds it kept.
            Ok(()) => {
                tracing::info!(alert = name, state, "told");
                keep(&shared, &name, &standing).await;
            }
            Err(why) => tracing::warn!(alert = name, state, why, "not told; trying on"),
        }
        let event = NodeEvent::AlertDelivered { name, outcome };
        let _ = shared.messages.send(Message::Node(event)).await;
    });
}

async fn deliver(shared: &Shared, name: &str, record: &Record, state: &str) -> Result<(), String> {
    let answer = shared.alerts.answer(name).and_then(Result::ok);
    let notice = notice(shared, name, record, state, answer.unwrap_or_default());
    deliver::deliver(&record.target, &notice).await
}

fn notice(
    shared: &Shared,
    name: &str,
    record: &Record,
    state: &str,
    answer: AskReply,
) -> AlertNotice {
    let values = answer.values.iter();
    let values = values.map(|one| format!("{} = {}", one.name, one.value));
    let values: Vec<String> = values.collect();
    let zone = record.zone.to_string();
    AlertNotice {
        alert: name.to_owned(),
        state: state.to_owned(),
        text: format!(
            "{name} at {zone}: {state}; {}; {} of {} nodes are in it",
            values.join(", "),
            answer.reporting,
            answer.expected
        ),
        zone,
        question: record.question.clone(),
        values: answer.values,
        expected: answer.expected,
        reporting: answer.reporting,
        rows: answer.rows,
        node: shared.cluster.name().to_string(),
        at_unix_ms: unix_now().0,
    }
}

/// Tells it now, whatever holds, and how that went.
pub async fn test(shared: &Arc<Shared>, name: &str) -> Result<AlertView, ApiError> {
    let record = kept::read(shared, name).await?;
    let record = record.ok_or_else(|| kept::absent(name))?;
    let told = deliver(shared, name, &record, "test").await;
    told.map_err(|why| {
        let help = "mend the target, or: homeostat alerts rm";
        api_error(
            "not_told",
            format!("`{name}` told nobody: {why}"),
            Some(help),
        )
    })?;
    Ok(view(shared, name, &record))
}

pub async fn list(shared: &Shared) -> Result<Vec<AlertView>, ApiError> {
    let records = kept::read_all(shared).await?;
    let views = records
        .iter()
        .map(|(name, record)| view(shared, name, record));
    Ok(views.collect())
}

fn view(shared: &Shared, name: &str, record: &Record) -> AlertView {
    let status = shared.status.borrow().alerts.get(name).cloned();
    let status = status.unwrap_or_else(|| AlertStatus {
        state: "unknown".to_owned(),
        ..AlertStatus::default()
    });
    let since = status.since.map(|since| now().since(since));
    AlertView {
        name: name.to_owned(),
        zone: record.zone.to_string(),
        question: record.question.clone(),
        condition: match record.condition {
            Condition::Changes => "on change".to_owned(),
            Condition::Holds { for_ms } => {
                format!("for {}", format_duration(Duration::from_millis(for_ms)))
            }
        },
        every_ms: record.every_ms,
        tells: record.target.to_string(),
        state: status.state,
        since_ms: since.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        value: status.value,
        trouble: shared.alerts.answer(name).and_then(Result::err),
        failed: status.failed,
    }
}
