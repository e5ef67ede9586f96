//! What the store keeps of alerts.
//!
//! Holds: what cannot be asked, or tells nobody, is refused before it is kept.

use super::{api_error, storage};
use crate::shared::Shared;
use aggregation::program::{Limits, Program};
use control::alert::{Condition, Parameters, Standing};
use kernel::{Name, ZonePath};
use node::store::{Entry, Operation, Store, StoreError, Transaction};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use wire::api::{AlertRequest, AlertView, ApiError};

const PREFIX: &str = "/alerts/";
const TOLD: &str = "/alerts-told/";
const EVERY: Duration = Duration::from_secs(2);
const EVERY_MIN: Duration = Duration::from_secs(1);
const EVERY_MAX: Duration = Duration::from_hours(1);
const FOR_MAX: Duration = Duration::from_hours(24 * 7);
/// Each asks all of its zone's nodes.
const ALERTS_MAX: usize = 100;
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_LONGEST: Duration = Duration::from_mins(5);
const DELIVER_WITHIN: Duration = Duration::from_mins(1);
const EXAMPLE: &str = "homeostat alerts add hot --when \"AVG(cpu) > 0.9\" --for 10s --webhook https://hooks.example.com/ops";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub zone: ZonePath,
    /// `SELECT …`
    pub question: String,
    pub condition: Condition,
    pub every_ms: u64,
    pub target: Target,
}

/// Who is told. What is shown of it has no secrets.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Webhook(String),
    Command(Vec<String>),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Webhook(url) => {
                let url = reqwest::Url::parse(url).ok();
                let host = url.as_ref().and_then(|url| url.host_str());
                write!(f, "webhook {}", host.unwrap_or("?"))
            }
            Self::Command(words) => {
                write!(f, "command {}", words.first().map_or("?", String::as_str))
            }
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Record {
    pub fn parameters(&self) -> Parameters {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Parameters {
            condition: self.condition,
            retry_first_ms: millis(RETRY_FIRST),
            retry_longest_ms: millis(RETRY_LONGEST),
            deliver_within_ms: millis(DELIVER_WITHIN),
        }
    }
}

pub async fn read_all(shared: &Shared) -> Result<BTreeMap<String, Record>, ApiError> {
    let range = shared.control.range(PREFIX).await;
    let mut records = BTreeMap::new();
    for entry in range.map_err(|error| storage(&error))?.entries {
        let name = entry.key.strip_prefix(PREFIX).unwrap_or_default();
        if let Some(record) = read_record(&entry) {
            records.insert(name.to_owned(), record);
        }
    }
    Ok(records)
}

fn read_record(entry: &Entry) -> Option<Record> {
    let record = serde_json::from_slice(&entry.value);
    record
        .inspect_err(|error| tracing::error!(key = entry.key, %error, "an alert is not read"))
        .ok()
}

pub async fn read(shared: &Shared, name: &str) -> Result<Option<Record>, ApiError> {
    let key = format!("{PREFIX}{name}");
    let entry = node::store::get(&shared.control, &key).await;
    let Some(entry) = entry.map_err(|error| storage(&error))? else {
        return Ok(None);
    };
    // As `read_all`: one that cannot be read is none.
    Ok(read_record(&entry))
}

/// What cannot be read counts as nothing told: rather twice than never.
pub async fn read_told(shared: &Shared, name: &str) -> Standing {
    let key = format!("{TOLD}{name}");
    let entry = node::store::get(&shared.control, &key).await.ok().flatten();
    let told = entry.and_then(|entry| serde_json::from_slice(&entry.value).ok());
    told.unwrap_or_default()
}

pub async fn write_told(shared: &Shared, name: &str, told: &Standing) -> Result<(), StoreError> {
    let value = serde_json::to_vec(told).map_err(|error| StoreError::Invalid(error.to_string()))?;
    let put = Operation::Put(format!("{TOLD}{name}"), value);
    transact(shared, vec![put]).await
}

async fn transact(shared: &Shared, then: Vec<Operation>) -> Result<(), StoreError> {
    let transaction = Transaction {
        compare: Vec::new(),
        then,
        otherwise: Vec::new(),
    };
    shared.control.transact(transaction).await.map(drop)
}

pub async fn add(shared: &Arc<Shared>, asked: AlertRequest) -> Result<AlertView, ApiError> {
    let (name, record) = record(asked)?;
    let all = read_all(shared).await?;
    if all.len() >= ALERTS_MAX && !all.contains_key(name.as_str()) {
        let message = format!("there are {ALERTS_MAX} alerts, as many as one node asks for");
        return Err(api_error(
            "over_quota",
            message,
            Some("homeostat alerts ls"),
        ));
    }
    let value = serde_json::to_vec(&record);
    let value = value.map_err(|error| api_error("internal", error.to_string(), None))?;
    let mut then = vec![Operation::Put(format!("{PREFIX}{name}"), value)];
    if all.get(name.as_str()).is_some_and(|it| *it != record) {
        // What was told of another question says nothing about this one.
        then.push(Operation::Delete(format!("{TOLD}{name}")));
    }
    let done = transact(shared, then).await;
    done.map_err(|error| storage(&error))?;
    if all.get(name.as_str()) != Some(&record) {
        shared.alerts.told().remove(name.as_str());
    }
    shared.alerts.changed.notify_one();
    Ok(super::view(shared, name.as_str(), &record))
}

pub async fn remove(shared: &Arc<Shared>, name: &str) -> Result<AlertView, ApiError> {
    let record = read(shared, name).await?.ok_or_else(|| absent(name))?;
    let view = super::view(shared, name, &record);
    let then = [PREFIX, TOLD].map(|prefix| Operation::Delete(format!("{prefix}{name}")));
    let done = transact(shared, then.to_vec()).await;
    done.map_err(|error| storage(&error))?;
    shared.alerts.changed.notify_one();
    Ok(view)
}

pub fn absent(name: &str) -> ApiError {
    let message = format!("no alert is called `{name}`");
    api_error("not_found", message, Some("homeostat alerts ls"))
}

fn invalid(message: &str, help: &str) -> ApiError {
    api_error("invalid_alert", message, Some(help))
}

fn record(asked: AlertRequest) -> Result<(Name, Record), ApiError> {
    let name = Name::new(&asked.name).map_err(|error| invalid(&error.to_string(), EXAMPLE))?;
    let zone = asked.zone.as_deref().unwrap_or("/");
    let zone: ZonePath = zone
        .parse()
        .map_err(|error| invalid(&format!("{error}"), EXAMPLE))?;
    let every = asked.every_ms.map_or(EVERY, Duration::from_millis);
    if !(EVERY_MIN..=EVERY_MAX).contains(&every) {
        return Err(invalid(
            "it is asked each second to each hour",
            "--every 2s",
        ));
    }
    let span = Duration::from_millis(asked.for_ms.unwrap_or_default());
    if span > FOR_MAX {
        return Err(invalid("a week is the longest wait", "--for 10s"));
    }
    let condition = match (asked.on_change, asked.for_ms) {
        (true, Some(_)) => {
            let message = "a change is told at once: `for` and `on change` exclude each other";
            return Err(invalid(message, "leave one of them out"));
        }
        (true, None) => Condition::Changes,
        (false, _) => Condition::Holds {
            for_ms: asked.for_ms.unwrap_or_default(),
        },
    };
    let record = Record {
        question: question(&asked.when)?,
        target: target(asked.webhook, asked.command)?,
        zone,
        condition,
        every_ms: u64::try_from(every.as_millis()).unwrap_or(u64::MAX),
    };
    Ok((name, record))
}

/// A bare condition is the first value of a question.
fn question(when: &str) -> Result<String, ApiError> {
    let first = when.split_whitespace().next().unwrap_or_default();
    let text = if first.eq_ignore_ascii_case("select") {
        when.trim().to_owned()
    } else {
        format!("SELECT {}", when.trim())
    };
    let name = "alert".parse().expect("a name");
    let program = Program::compile(&name, &text, Limits::default()).map_err(|error| {
        let hint = error.hint().unwrap_or(EXAMPLE).to_owned();
        invalid(&error.to_string(), &hint)
    })?;
    drop(program);
    Ok(text)
}

fn target(webhook: Option<String>, command: Vec<String>) -> Result<Target, ApiError> {
    let target = match (webhook, command.is_empty()) {
        (Some(url), true) => Target::Webhook(url),
        (None, false) => Target::Command(command),
        _ => {
            return Err(invalid(
                "an alert tells one: a webhook or a command",
                EXAMPLE,
            ));
        }
    };
    match &target {
        Target::Webhook(url) => {
            let parsed = reqwest::Url::parse(url)
                .map_err(|error| invalid(&format!("the webhook is no URL: {error}"), EXAMPLE))?;
            if !matches!(parsed.scheme(), "http" | "https") {
                return Err(invalid("a webhook is http or https", EXAMPLE));
            }
        }
        Target::Command(words) => {
            if !words.first().is_some_and(|first| first.starts_with('/')) {
                let message = "a command is named by its whole path";
                return Err(invalid(message, "--command /usr/local/bin/page --arg ops"));
            }
        }
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> AlertRequest {
        AlertRequest {
            name: "hot".to_owned(),
            when: "AVG(cpu) > 0.9".to_owned(),
            webhook: Some("http://user:key@hooks.example/secret?token=1".to_owned()),
            ..AlertRequest::default()
        }
    }

    #[test]
    fn what_is_shown_of_a_target_has_no_secrets() {
        let (_, record) = record(asked()).expect("an alert");
        assert_eq!(record.target.to_string(), "webhook hooks.example");
        assert!(!format!("{record:?}").contains("key"));
        let words = ["/bin/page", "--key", "secret"].map(str::to_owned);
        assert_eq!(
            Target::Command(words.into()).to_string(),
            "command /bin/page"
        );
    }

    #[test]
    fn a_bare_condition_is_a_question_s_first_value() {
        let (_, bare) = record(asked()).expect("an alert");
        assert_eq!(bare.question, "SELECT AVG(cpu) > 0.9");
        let when = " select MAX(cpu) > 0.5 AS hot, MAX(cpu) ".to_owned();
        let (_, whole) = record(AlertRequest { when, ..asked() }).expect("an alert");
        assert_eq!(whole.question, "select MAX(cpu) > 0.5 AS hot, MAX(cpu)");
    }

    #[test]
    fn what_cannot_be_asked_or_told_is_refused_with_the_reason() {
        let refused = |change: &dyn Fn(&mut AlertRequest)| {
            let mut asked = asked();
            change(&mut asked);
            let error = record(asked).expect_err("is refused");
            assert!(error.help.is_some(), "{error:?}");
            error.message
        };
        assert!(refused(&|it| it.name = "Not a name".into()).contains("name"));
        assert!(refused(&|it| it.when = "SELECT".into()).contains("1:"));
        assert!(refused(&|it| it.when = "cpu > 0.9".into()).contains("cpu"));
        assert!(refused(&|it| it.zone = Some("eu".into())).contains('/'));
        assert!(refused(&|it| it.every_ms = Some(1)).contains("each second"));
        assert!(refused(&|it| it.for_ms = Some(u64::MAX)).contains("a week"));
        assert!(refused(&|it| it.webhook = None).contains("tells one"));
        assert!(refused(&|it| it.command = vec!["/bin/true".into()]).contains("tells one"));
        assert!(refused(&|it| it.webhook = Some("ftp://x".into())).contains("http"));
        assert!(refused(&|it| it.webhook = Some("what".into())).contains("URL"));
        let both = |it: &mut AlertRequest| {
            it.on_change = true;
            it.for_ms = Some(5);
        };
        assert!(refused(&both).contains("exclude"));
        let bare = |it: &mut AlertRequest| {
            it.webhook = None;
            it.command = vec!["page".into()];
        };
        assert!(refused(&bare).contains("whole path"));
    }
}
