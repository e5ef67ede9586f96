//! A person has this node lead without the others, whose majority is lost for good.
//!
//! In: how all that answer stand. Out: what it would mean; a new generation, noted
//! down, which the agent takes over at its next start.
//! Holds: nobody is overruled who can still lead; of those who are left, only the
//! one that knows most.

use super::super::group::Lead;
use super::generation;
use crate::apply::api_error;
use crate::machine::unix_now;
use crate::shared::Shared;
use kernel::{NodeId, error_chain};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use wire::api::{ApiError, ForceLeaderReply};
use wire::cluster::{Raised, Standing};
use wire::net::Kind;

/// For the answer to leave before the agent does.
const LEAVE_AFTER: Duration = Duration::from_millis(300);

/// # Errors
/// Somebody leads, a majority can still choose a leader, or another node knows
/// more: nothing was changed.
pub async fn force_leader(
    shared: &Arc<Shared>,
    confirmed: bool,
) -> Result<ForceLeaderReply, ApiError> {
    let cluster = &shared.cluster;
    let own = cluster.own.id;
    if let Some(url) = shared.control.kept_in() {
        let message = format!("desired state is in {url}: whoever reaches it can lead");
        let help = "bring back a majority of its members: etcdctl endpoint status";
        return Err(refused(&message, Some(help)));
    }
    if cluster.lead() == Lead::Here {
        return Err(refused("this node leads already", None));
    }
    let members = shared.control.members();
    let has = |node: NodeId| members.voters.contains(&node) || members.learners.contains(&node);
    let last = shared.control.last();
    if !has(own) || last.1 == 0 {
        let voters = cluster.members().all();
        let names: Vec<String> = voters.iter().map(|it| cluster.called(*it)).collect();
        let message = format!(
            "this node keeps none of the cluster's state; {} did",
            names.join(", ")
        );
        return Err(refused(&message, Some("run it on one of them")));
    }
    let nodes = cluster.nodes.borrow().clone();
    let mut others: BTreeSet<NodeId> = nodes
        .values()
        .filter(|record| record.belongs())
        .map(|record| record.id)
        .collect();
    others.extend(members.voters.iter().chain(&members.learners));
    others.remove(&own);
    let standing = generation::ask(cluster, &others).await;
    may_be_forced(shared, last, &standing)?;
    let named = |is_reached: bool| {
        let others = others.iter().filter(|node| has(**node));
        let found = others.filter(|node| standing.contains_key(node) == is_reached);
        found.map(|node| cluster.called(*node)).collect()
    };
    let number = cluster.generation.number().checked_add(1);
    let number = number.ok_or_else(|| refused("no generation is left", None))?;
    let leaderless = cluster.generation.leaderless_for();
    if confirmed {
        raise(shared, number)?;
    }
    Ok(ForceLeaderReply {
        node: cluster.name().to_string(),
        generation: number,
        entries: last.1,
        leaderless_ms: leaderless.and_then(|it| u64::try_from(it.as_millis()).ok()),
        unreached: named(false),
        reached: named(true),
        done: confirmed,
    })
}

fn may_be_forced(
    shared: &Shared,
    last: (u64, u64),
    standing: &BTreeMap<NodeId, Standing>,
) -> Result<(), ApiError> {
    let cluster = &shared.cluster;
    let status = Some("homeostat store status");
    if let Some((node, _)) = standing.iter().find(|(_, standing)| standing.leads) {
        let called = cluster.called(*node);
        return Err(refused(&format!("`{called}` leads and answers"), status));
    }
    let rank = cluster.generation.raised.as_ref().map(Raised::rank);
    let later = |standing: &Standing| standing.raised.as_ref().map(Raised::rank) > rank;
    if standing.values().any(later) {
        let message = "another node was made to lead meanwhile; this one follows it";
        return Err(refused(message, status));
    }
    let voters = shared.control.members().voters;
    let is_there = |node: &&NodeId| **node == cluster.own.id || standing.contains_key(node);
    let there = voters.iter().filter(is_there).count();
    if there > voters.len() / 2 {
        let message = format!(
            "{there} of the {} voters answer, which is a majority: they choose a leader by \
             themselves",
            voters.len()
        );
        return Err(refused(&message, status));
    }
    let most = standing.iter().max_by_key(|(_, standing)| standing.last);
    if let Some((node, other)) = most.filter(|(_, other)| other.last > last) {
        let called = cluster.called(*node);
        let message = format!(
            "`{called}` knows more: its log goes to entry {}, this node's to {}",
            other.last.1, last.1
        );
        return Err(refused(&message, Some("run it on that node")));
    }
    Ok(())
}

fn raise(shared: &Arc<Shared>, generation: u16) -> Result<(), ApiError> {
    let cluster = &shared.cluster;
    let own = cluster.own.id;
    let internal = |why: String| api_error("storage", why, Some("homeostat doctor"));
    let key = cluster.kept.key(Kind::Agent);
    let key = key.map_err(|error| internal(error_chain(&error)))?;
    let at = unix_now();
    let raised = Raised {
        generation,
        by: own,
        at,
        key: key.public().0,
        signature: key.sign(&Raised::statement(generation, own, at)).0.to_vec(),
    };
    generation::keep(&cluster.kept, &raised).map_err(internal)?;
    tracing::warn!(generation, "a person has this node lead without the others");
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        tokio::time::sleep(LEAVE_AFTER).await;
        shared.cluster.generation.restart.notify_one();
    });
    Ok(())
}

fn refused(message: &str, help: Option<&str>) -> ApiError {
    api_error("conflict", message, help)
}
