//! What nodes publish of themselves: this one's row, and those of the others.
//!
//! In: this node's status, what a person publishes, bytes that gossip brought.
//! Out: this node's row for gossip, all rows for the admin API.
//! Holds: the agent's own attributes are never a person's; a row fits gossip
//! whatever the agent's own become; what a person publishes is on disk before
//! it is told; bytes that are no row change nothing and are counted.

use super::Kept;
use crate::apply::api_error;
use crate::machine::now;
use crate::shared::Shared;
use aggregation::membership::Event;
use aggregation::readings::{LEFT_OUT, Reading, Readings};
use kernel::{NodeId, Time, error_chain};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use wire::api::{ApiError, PublishReply, PublishRequest};
use wire::attributes::{AttributeName, Row, RowError, Value};
use wire::gossip::{ATTRIBUTES_BYTES_MAX, AttributesVersion};

const NOTE: &str = "published.row";
/// What the agent says of this node, beside what a person says.
const OWN: [&str; 4] = ["cores", "memory_bytes", "ready", "version"];
/// Kept free for that.
const OWN_BYTES_MAX: usize = 128;
/// What it reads, as far as there is room for it.
const READ: [&str; 16] = [
    "cpu",
    "cpu_pressure",
    "disk_bytes",
    "disk_free_bytes",
    "errors_per_s",
    "headroom",
    "in_flight",
    "ingress",
    "io_pressure",
    "latency_ms",
    LEFT_OUT,
    "memory_free_bytes",
    "memory_pressure",
    "received_bytes_per_s",
    "requests_per_s",
    "sent_bytes_per_s",
];
/// Between a project and its service, in the names of a service's readings.
const OF_SERVICE: &str = "__";
const PUBLISHED_BYTES_MAX: usize = 384;
const _: () = assert!(PUBLISHED_BYTES_MAX + OWN_BYTES_MAX <= ATTRIBUTES_BYTES_MAX);
/// What changes by itself is told at most this often.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// A program's version that is longer is cut.
const VERSION_BYTES_MAX: usize = 32;

/// What was heard of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    pub row: Row,
    /// As it was published; `version` counts the times.
    pub bytes: Arc<[u8]>,
    pub version: AttributesVersion,
    /// When it last differed from what it was before; none before the first.
    pub changed: Option<Time>,
    pub unreadable: u64,
}

/// Of this machine, as it was when the agent started.
/// Milliseconds since the change of a row, before it.
const AGE_BYTES: usize = 8;

impl Seen {
    /// What a node answers that was asked for its row, by this node's clock.
    pub fn read(bytes: &[u8]) -> Self {
        let mut seen = Self::default();
        let told = bytes.split_first_chunk::<AGE_BYTES>();
        match told.map(|(age, row)| (u64::from_be_bytes(*age), Row::decode(row))) {
            Some((age, Ok(row))) => {
                seen.changed = Some(now() - Duration::from_millis(age));
                seen.row = row;
            }
            _ => seen.unreadable = 1,
        }
        seen
    }

    fn tell(&self) -> Vec<u8> {
        let age = self.changed.map(|at| now().since(at)).unwrap_or_default();
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        [&age.to_be_bytes()[..], &self.bytes].concat()
    }
}

#[derive(Clone, Copy, Debug)]
struct Machine {
    cores: usize,
    memory_bytes: u64,
}

impl Machine {
    fn here() -> Self {
        let system = rustix::system::sysinfo();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: system.totalram.saturating_mul(system.mem_unit.into()),
        }
    }
}

pub struct Rows {
    machine: Machine,
    /// By a person.
    published: watch::Sender<Row>,
    /// One change at a time.
    publishing: Mutex<()>,
    readings: watch::Sender<Vec<Reading>>,
    seen: watch::Sender<BTreeMap<NodeId, Seen>>,
}

impl Rows {
    pub fn open(kept: &Kept) -> Self {
        let published = kept.note(NOTE).map(|bytes| Row::decode(&bytes));
        let published = published.unwrap_or_else(|| Ok(Row::default()));
        let published = published.unwrap_or_else(|error| {
            tracing::error!(%error, file = NOTE, "what was published of this node is lost");
            Row::default()
        });
        Self {
            machine: Machine::here(),
            published: watch::Sender::new(published),
            publishing: Mutex::default(),
            readings: watch::Sender::default(),
            seen: watch::Sender::default(),
        }
    }

    pub fn of(&self, node: NodeId) -> Seen {
        self.seen.borrow().get(&node).cloned().unwrap_or_default()
    }

    /// For a node that does not hear of it by gossip.
    pub fn told(&self, node: NodeId) -> Vec<u8> {
        self.of(node).tell()
    }

    /// What the sensor has read of this node.
    pub fn read(&self, readings: Vec<Reading>) {
        self.readings.send_replace(readings);
    }

    pub fn changes(&self) -> watch::Receiver<BTreeMap<NodeId, Seen>> {
        self.seen.subscribe()
    }

    /// Forgets what was heard of the others.
    pub fn keep(&self, is_seen: impl Fn(NodeId) -> bool) {
        self.seen.send_if_modified(|seen| {
            let before = seen.len();
            seen.retain(|node, _| is_seen(*node));
            seen.len() < before
        });
    }

    /// What gossip brought of a node, or told of this one.
    pub fn heard(&self, node: NodeId, version: AttributesVersion, bytes: &[u8]) {
        let row = Row::decode(bytes);
        self.seen.send_modify(|seen| {
            let seen = seen.entry(node).or_default();
            match row {
                Ok(row) => {
                    take(seen, row);
                    seen.bytes = bytes.into();
                    seen.version = version;
                    tracing::debug!(%node, "attributes");
                }
                Err(error) => {
                    seen.unreadable = seen.unreadable.saturating_add(1);
                    tracing::warn!(%node, %error, bytes = bytes.len(), "attributes not read");
                }
            }
        });
    }
}

fn take(seen: &mut Seen, row: Row) {
    if seen.changed.is_none() || seen.row != row {
        seen.row = row;
        seen.changed = Some(now());
    }
}

/// This node's row as things are, without its readings.
pub fn own(shared: &Shared) -> Row {
    let services = &shared.status.borrow().services;
    let ready: usize = services.values().map(|one| one.endpoints.len()).sum();
    let rows = &shared.cluster.rows;
    with_own(&rows.published.borrow(), rows.machine, ready)
}

/// As an attribute.
pub fn whole(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn with_own(published: &Row, machine: Machine, ready: usize) -> Row {
    let mut version = env!("CARGO_PKG_VERSION");
    version = version.get(..VERSION_BYTES_MAX).unwrap_or(version);
    let own = [
        whole(machine.cores as u64),
        whole(machine.memory_bytes),
        whole(ready as u64),
        Value::Text(version.to_owned()),
    ];
    let named = OWN
        .iter()
        .zip(own)
        .filter_map(|(name, value)| Some((name.parse().ok()?, value)));
    let mut row = published.clone();
    row.0.extend(named);
    row
}

/// Tells the others when this node's row has changed; runs for ever.
pub async fn tell(shared: Arc<Shared>) {
    let cluster = &shared.cluster;
    let mut status = shared.status.subscribe();
    let mut published = cluster.rows.published.subscribe();
    let mut read = cluster.rows.readings.subscribe();
    let mut readings = Readings::default();
    loop {
        let fixed = own(&shared);
        let read_now = read.borrow_and_update().clone();
        let row = readings.look(&fixed, &read_now, ATTRIBUTES_BYTES_MAX, now());
        if let Some(Ok(bytes)) = row.map(Row::encode)
            && cluster.gossip.send(Event::Attributes(bytes)).await.is_err()
        {
            return;
        }
        tokio::select! {
            changed = published.changed() => if changed.is_err() { return },
            changed = read.changed() => if changed.is_err() { return },
            changed = status.changed() => {
                if changed.is_err() {
                    return;
                }
                // A person does not wait for it.
                let _ = tokio::time::timeout(TELL_EVERY, published.changed()).await;
                let _ = status.borrow_and_update();
            }
        }
    }
}

/// Changes what is published of this node by hand.
pub async fn publish(
    shared: &Arc<Shared>,
    asked: PublishRequest,
) -> Result<PublishReply, ApiError> {
    let rows = &shared.cluster.rows;
    let _one = rows.publishing.lock().await;
    let before = rows.published.borrow().clone();
    let (row, bytes) = changed(&before, &asked)?;
    let length = bytes.len();
    if row != before {
        let keeper = Arc::clone(shared);
        let kept = move || keeper.cluster.kept.keep_note(NOTE, &bytes);
        let kept = tokio::task::spawn_blocking(kept).await;
        kept.map_err(|error| api_error("internal", error.to_string(), None))?
            .map_err(|error| {
                let help = "free space on that disk, then try again";
                api_error("storage", error_chain(&error), Some(help))
            })?;
        rows.published.send_replace(row.clone());
    }
    Ok(PublishReply {
        attributes: as_json(&row),
        bytes: length as u64,
        bytes_max: PUBLISHED_BYTES_MAX as u64,
    })
}

/// What is published after the change, if it may be so.
fn changed(before: &Row, asked: &PublishRequest) -> Result<(Row, Vec<u8>), ApiError> {
    let mut row = before.clone();
    for name in &asked.remove {
        if row.0.remove(name.as_str()).is_none() {
            let all: Vec<&str> = before.0.keys().map(AttributeName::as_str).collect();
            let all = all.join(", ");
            let message = format!("`{name}` is not published by hand; what is: {all}");
            let help = "homeostat node show NAME";
            return Err(api_error("not_found", message, Some(help)));
        }
    }
    for (name, given) in &asked.set {
        let example = "homeostat publish rack=7 disk=ssd";
        let wrong = |error: RowError| invalid(&error.to_string(), example);
        let named: AttributeName = name.parse().map_err(wrong)?;
        if OWN.contains(&name.as_str()) || READ.contains(&name.as_str()) {
            let own = [&OWN[..], &READ].concat().join(", ");
            let message = format!("`{name}` is what the agent itself says of its node");
            return Err(invalid(&message, &format!("take a name beside {own}")));
        }
        if name.contains(OF_SERVICE) {
            let message = format!("`{name}` is named as readings of services are");
            return Err(invalid(&message, "take a name with single `_`"));
        }
        let value = Value::from_json(name, given).map_err(wrong)?;
        row.0.insert(named, value);
    }
    let before = before.encode().map_or(0, |bytes| bytes.len());
    match row.encode() {
        Ok(bytes) if bytes.len() <= PUBLISHED_BYTES_MAX => Ok((row, bytes)),
        Ok(bytes) => Err(over(bytes.len(), before)),
        Err(RowError::TooLong { bytes }) => Err(over(bytes, before)),
        Err(error) => Err(invalid(&error.to_string(), "publish fewer")),
    }
}

fn over(bytes: usize, before: usize) -> ApiError {
    let message = format!(
        "this node's published attributes would take {bytes} bytes, over the limit of \
         {PUBLISHED_BYTES_MAX}; now they take {before}"
    );
    invalid(&message, "shorten them, or: homeostat publish --remove KEY")
}

fn invalid(message: &str, help: &str) -> ApiError {
    api_error("invalid_attribute", message, Some(help))
}

/// As the admin API shows a row.
pub fn as_json(row: &Row) -> BTreeMap<String, serde_json::Value> {
    let all = row.0.iter();
    all.map(|(name, value)| (name.to_string(), value.to_json()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(set: serde_json::Value, remove: &[&str]) -> PublishRequest {
        PublishRequest {
            set: serde_json::from_value(set).expect("a map"),
            remove: remove.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn after(before: &Row, set: serde_json::Value, remove: &[&str]) -> Result<Row, ApiError> {
        changed(before, &asked(set, remove)).map(|(row, _)| row)
    }

    #[test]
    fn what_is_set_stays_until_it_is_removed() {
        let row = after(&Row::default(), json!({ "rack": 7, "disk": "ssd" }), &[]).expect("fits");
        let row = after(&row, json!({ "disk": "old" }), &["rack"]).expect("fits");
        assert_eq!(
            as_json(&row),
            BTreeMap::from([("disk".to_owned(), json!("old"))])
        );
        let error = after(&row, json!({}), &["rack"]).expect_err("it is gone");
        assert_eq!(error.code, "not_found");
    }

    #[test]
    fn the_agents_own_names_are_refused() {
        for name in OWN.into_iter().chain(READ).chain(["news__count_in_flight"]) {
            let error = after(&Row::default(), json!({ name: 1 }), &[]).expect_err("its own");
            assert!(error.message.contains(name), "{error:?}");
        }
        for wrong in [json!({ "A": 1 }), json!({ "a": null })] {
            assert!(after(&Row::default(), wrong, &[]).is_err());
        }
    }

    #[test]
    fn a_row_fits_gossip_whatever_the_agents_own_become() {
        let mut longest = PUBLISHED_BYTES_MAX;
        let row = loop {
            match after(&Row::default(), json!({ "note": "x".repeat(longest) }), &[]) {
                Ok(row) => break row,
                Err(error) => assert!(error.message.contains("384"), "{error:?}"),
            }
            longest -= 1;
        };
        assert!(longest > 370, "{longest}");
        let most = Machine {
            cores: usize::MAX,
            memory_bytes: u64::MAX,
        };
        let all = with_own(&row, most, usize::MAX).encode().expect("a row");
        assert!(all.len() <= ATTRIBUTES_BYTES_MAX, "{}", all.len());
        let others = ATTRIBUTES_BYTES_MAX - all.len();
        assert!(others > VERSION_BYTES_MAX, "a longer version would not fit");
    }

    #[test]
    fn bytes_that_are_no_row_change_nothing_and_are_counted() {
        let home = tempfile::tempdir().expect("a directory");
        let rows = Rows::open(&Kept::new(&wire::layout::Layout::new(home.path())));
        let node = NodeId(2);
        let good = with_own(&Row::default(), Machine::here(), 3);
        let version = AttributesVersion {
            epoch: 1,
            number: 1,
        };
        rows.heard(node, version, &good.encode().expect("a row"));
        let before = rows.of(node);
        assert_eq!(before.row, good);
        for wrong in [&[][..], &[9], &[1, 255, 255], &[1, 1, 1, b'A', 1, 0]] {
            rows.heard(node, version, wrong);
        }
        let seen = rows.of(node);
        assert_eq!((seen.unreadable, seen.changed), (4, before.changed));
        assert_eq!(seen.row, good);
    }
}
