//! What each node of the lab says of itself and of the others, by its admin API.

use crate::exchange;
use kernel::ReplicaId;
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use wire::layout::Layout;

const ANSWER_MAX: Duration = Duration::from_secs(2);

/// One node, as another one or itself sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// `alive`, `dead`, …, as `node ls` has it.
    pub state: String,
    /// Two processes were found to have its key.
    pub cloned: bool,
    /// The one that was asked has a connection to it.
    pub connected: bool,
}

/// What one node answered, all at about the same moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Of those that belong, and revoked ones under names that are free.
    pub nodes: BTreeMap<String, Seen>,
    /// Its own.
    pub state: String,
    /// Its own replicas that run, and whether each is ready.
    pub replicas: BTreeMap<ReplicaId, bool>,
}

impl View {
    /// Whether its node still takes part.
    pub fn speaks(&self) -> bool {
        self.state != "superseded"
    }

    pub fn ready(&self, service: &str) -> usize {
        let of_it = |id: &ReplicaId| id.service.name.as_str() == service;
        let replicas = self.replicas.iter();
        replicas.filter(|(id, ready)| **ready && of_it(id)).count()
    }
}

/// None: it does not answer.
///
/// * `replicas`: whether there can be any.
pub fn look(layout: &Layout, replicas: bool) -> Option<View> {
    let mut view = View::default();
    let mut own = None;
    for node in get(layout, "/v1/nodes")?.as_array()? {
        let text = |field: &str| Some(node.get(field)?.as_str()?.to_owned());
        let seen = Seen {
            state: text("state")?,
            cloned: node["cloned"] == true,
            connected: !node["round_trip_us"].is_null(),
        };
        if node["this"] == true {
            view.state.clone_from(&seen.state);
            own = text("name");
        }
        // A revoked one's name may be another's by now.
        let name = text("name")?;
        if seen.state != "revoked" || !view.nodes.contains_key(&name) {
            view.nodes.insert(name, seen);
        }
    }
    if !replicas {
        return Some(view);
    }
    let on = format!("on {}, ", own?);
    let alone = view.nodes.len() == 1;
    for replica in get(layout, "/v1/objects/replica")?.as_array()? {
        let is_own = alone || replica["summary"].as_str()?.starts_with(&on);
        if is_own && !replica["observed"]["pid"].is_null() {
            let ready = replica["state"] == "ready";
            view.replicas
                .insert(replica["name"].as_str()?.parse().ok()?, ready);
        }
    }
    Some(view)
}

fn get(layout: &Layout, path: &str) -> Option<Value> {
    let mut stream = UnixStream::connect(layout.admin_socket()).ok()?;
    stream.set_read_timeout(Some(ANSWER_MAX)).ok()?;
    let answer = exchange(&mut stream, "GET", "localhost", path, b"").ok()?;
    let good = answer.status == 200;
    good.then(|| serde_json::from_slice(&answer.body).ok())?
}
