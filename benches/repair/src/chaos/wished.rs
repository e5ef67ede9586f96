//! Whether a cluster is as it was wished, as a client of each of its nodes finds it.
//!
//! In: what was applied. Out: what is not so.
//! Holds: every node is asked; what runs is also counted as processes, so that
//! nothing that nobody lists runs beside it.

use crate::cluster::{Cluster, HOST};
use crate::load::answers;
use serde_json::Value;
use std::collections::BTreeMap;

/// Supervisor, agent and edge.
const PARTS: usize = 3;
/// A replica, and its shim.
const PER_REPLICA: usize = 2;

/// Replicas of each service.
pub type Wished = BTreeMap<&'static str, usize>;

/// The first thing that is not as wished.
pub fn lacks(cluster: &Cluster, wished: &Wished) -> Option<String> {
    for at in cluster.all() {
        if !cluster.sees_all(at) {
            return Some(format!("{} does not find all alive", cluster.name(at)));
        }
    }
    if !cluster.voters_lack_nothing() {
        return Some("there are not three voters that lack nothing".to_owned());
    }
    let mut on = BTreeMap::new();
    for at in cluster.all() {
        match seen(cluster, at, wished) {
            Ok(seen) => on = seen,
            Err(why) => return Some(format!("{} says: {why}", cluster.name(at))),
        }
    }
    for at in cluster.all() {
        let replicas = on.get(cluster.name(at).as_str()).copied().unwrap_or(0);
        let (run, wanted) = (cluster.processes(at), PARTS + PER_REPLICA * replicas);
        if run != wanted {
            let name = cluster.name(at);
            return Some(format!(
                "on {name} run {run} processes, {wanted} are wished"
            ));
        }
    }
    let silent = cluster.all().find(|at| !answers(cluster.target(*at), HOST));
    silent.map(|at| format!("the edge of {} does not answer", cluster.name(at)))
}

/// How many replicas are on each node, if these are what is wished: all ready, all
/// of one version.
fn seen(cluster: &Cluster, at: usize, wished: &Wished) -> Result<BTreeMap<String, usize>, String> {
    let all = cluster.asked(at, &["get", "replicas"]);
    let all = all.map_err(|why| why.to_string())?;
    let all = all.as_array().ok_or("no list of replicas")?;
    let mut on = BTreeMap::new();
    let mut versions: BTreeMap<&str, &Value> = BTreeMap::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for replica in all {
        let name = replica["name"].as_str().unwrap_or_default();
        if replica["state"] != "ready" {
            return Err(format!("{name} is {}", replica["state"]));
        }
        let service = replica["desired"]["service"].as_str().unwrap_or_default();
        *counts.entry(service).or_default() += 1;
        let version = &replica["desired"]["generation"];
        if *versions.entry(service).or_insert(version) != version {
            return Err(format!("{service} runs in two versions"));
        }
        let summary = replica["summary"].as_str().unwrap_or_default();
        let node = summary
            .strip_prefix("on ")
            .and_then(|it| it.split(',').next());
        *on.entry(node.unwrap_or_default().to_owned()).or_default() += 1;
    }
    if counts == *wished {
        Ok(on)
    } else {
        Err(format!("there are {counts:?}, {wished:?} are wished"))
    }
}
