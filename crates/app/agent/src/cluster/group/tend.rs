//! Chooses who keeps the stores, and lets them in and go.
//!
//! In: the node table, who is there and how far, who has what a member must have.
//! Out: the wanted members in the control group; the groups' own members.
//! Holds: the control group's leader decides; each group's leader carries out.

use super::{Lead, generation, wanted};
use crate::apply::api_error;
use crate::shared::Shared;
use kernel::NodeId;
use node::members::{MEMBERS_KEY, Members, Standing};
use node::nodes::NodeTable;
use node::store::{Compare, Operation, Store, StoreError, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use store::EmbeddedStore;
use tokio::time::Instant;
use wire::api::{ApiError, GroupView, StoreView};

const CONTROL: &str = "control";
const BUCKETS: &str = "buckets";
const LOOK: Duration = Duration::from_millis(500);
/// Letting in and letting go, with all that a new member must be sent.
const CHANGE_MAX: Duration = Duration::from_secs(30);
const LET_GO_MAX: Duration = Duration::from_secs(15);
const LET_GO_LOOK: Duration = Duration::from_millis(50);

/// On the control group's leader: writes down who is wanted; runs for ever.
pub async fn choose(shared: Arc<Shared>) {
    let mut silent = BTreeMap::new();
    loop {
        match choose_once(&shared, &mut silent).await {
            Ok(None) => {}
            Ok(Some(members)) => tracing::info!(?members, "wanted as members of the stores"),
            Err(error) => tracing::warn!(%error, "members of the stores are not chosen"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// * `silent`: since when nodes are not there.
///
/// Returns who is wanted, where that is news.
async fn choose_once(
    shared: &Shared,
    silent: &mut BTreeMap<NodeId, Instant>,
) -> Result<Option<Members>, StoreError> {
    let cluster = &shared.cluster;
    let (before, kept) = wanted(&shared.control).await?;
    let table = cluster.nodes.borrow().clone();
    let now = Instant::now();
    let standing: BTreeMap<NodeId, Standing> = table
        .keys()
        .map(|node| {
            if cluster.reach(*node).is_up() {
                silent.remove(node);
            } else {
                silent.entry(*node).or_insert(now);
            }
            let standing = Standing {
                silent_for: silent.get(node).map(|since| now.duration_since(*since)),
                round_trip: cluster.transport().rtt(*node),
            };
            (*node, standing)
        })
        .collect();
    let mut table = NodeTable::clone(&table);
    for node in cluster.leaving().iter() {
        table.remove(node);
    }
    let chosen = node::members::choose(&table, &standing, cluster.own.id, &before);
    if chosen == before {
        return Ok(None);
    }
    let value = serde_json::to_vec(&chosen);
    let value = value.map_err(|error| StoreError::Invalid(error.to_string()))?;
    let key = MEMBERS_KEY.to_owned();
    let compare = match kept {
        Some(kept) => Compare::Value(key.clone(), kept),
        None => Compare::Absent(key.clone()),
    };
    let transaction = Transaction {
        compare: vec![compare],
        then: vec![Operation::Put(key, value)],
        otherwise: Vec::new(),
    };
    shared.control.transact(transaction).await?;
    Ok(Some(chosen))
}

/// On the leader: has a node keep nothing any more, so that its vote is not missed
/// when it is revoked.
///
/// # Errors
/// Its vote is needed now: nothing is as before but that it was tried.
pub async fn let_go(shared: &Shared, node: NodeId) -> Result<(), ApiError> {
    let cluster = &shared.cluster;
    let votes = || {
        let mut groups = groups(shared).into_iter();
        groups.any(|(_, store)| store.members().voters.contains(&node))
    };
    if !votes() {
        return Ok(());
    }
    cluster.leaving().insert(node);
    let until = Instant::now() + LET_GO_MAX;
    while votes() {
        if Instant::now() >= until {
            cluster.leaving().remove(&node);
            let called = cluster.called(node);
            let message = format!("the vote of `{called}` is needed: it cannot be let go of now");
            return Err(api_error(
                "conflict",
                message,
                Some("homeostat store status"),
            ));
        }
        tokio::time::sleep(LET_GO_LOOK).await;
    }
    Ok(())
}

/// Where this node leads a group: makes its members those that are wanted; runs
/// for ever.
pub async fn run(shared: Arc<Shared>) {
    let mut members = shared.cluster.members.subscribe();
    loop {
        let wanted = members.borrow_and_update().clone();
        for (name, store) in groups(&shared) {
            let changing = carry_out(&shared, store, &wanted);
            match tokio::time::timeout(CHANGE_MAX, changing).await {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => tracing::info!(group = name, ?wanted, "members changed"),
                Ok(Err(error)) => tracing::warn!(group = name, %error, "members not changed"),
                Err(_) => tracing::warn!(group = name, "members not changed yet"),
            }
        }
        let _ = tokio::time::timeout(LOOK, members.changed()).await;
    }
}

/// Those that have members.
fn groups(shared: &Shared) -> Vec<(&'static str, &EmbeddedStore)> {
    let control = shared.control.embedded();
    let control = control.map(|store| (CONTROL, store));
    let buckets = (BUCKETS, shared.buckets.store());
    control.into_iter().chain([buckets]).collect()
}

/// Whether something was done.
async fn carry_out(
    shared: &Shared,
    store: &EmbeddedStore,
    wanted: &Members,
) -> Result<bool, StoreError> {
    let own = shared.cluster.own.id;
    let now = store.members();
    if now.leader != Some(own) || wanted.voters.is_empty() {
        return Ok(false);
    }
    let is_new = |node: &&NodeId| !now.voters.contains(node) && !now.learners.contains(node);
    let reports = shared.cluster.reports.borrow().clone();
    let is_ready = |node: &NodeId| reports.get(node).is_some_and(|report| report.entrusted);
    // All new ones at once: with some of them, a majority might be harder to
    // reach than before.
    if !wanted.all().iter().filter(is_new).all(is_ready) {
        return Ok(false);
    }
    if (&now.voters, &now.learners) == (&wanted.voters, &wanted.learners) {
        return Ok(false);
    }
    let (voters, learners) = (wanted.voters.clone(), wanted.learners.clone());
    store.set_members(voters, learners).await?;
    Ok(true)
}

/// How this node's members of the groups stand.
pub fn status(shared: &Shared) -> StoreView {
    let cluster = &shared.cluster;
    let names = |nodes: &BTreeSet<NodeId>| nodes.iter().map(|it| cluster.called(*it)).collect();
    let others = generation::others(&cluster.nodes.borrow(), cluster.own.id);
    let groups = groups(shared).into_iter().map(|(name, store)| {
        let members = store.members();
        let is_one = members.voters.len() == 1 && !others.is_empty();
        let lacks = members.is_degraded || members.learners.is_empty();
        let behind = members.behind.iter();
        GroupView {
            group: name.to_owned(),
            leader: members.leader.map(|leader| cluster.called(leader)),
            term: members.term,
            voters: names(&members.voters),
            learners: names(&members.learners),
            entries: members.log_last,
            applied: members.log_applied,
            behind: behind
                .map(|(node, entries)| (cluster.called(*node), *entries))
                .collect(),
            degraded: is_one && (lacks || members.leader.is_none()),
            kept_in: None,
            fault: store.fault(),
        }
    });
    let outside = shared.control.kept_in();
    let outside = outside.map(|url| outside_view(shared, url));
    let wanted = cluster.members();
    StoreView {
        node: cluster.name().to_string(),
        wanted_voters: names(&wanted.voters),
        wanted_learners: names(&wanted.learners),
        groups: outside.into_iter().chain(groups).collect(),
        generation: cluster.generation.number(),
    }
}

/// Desired state that is in an etcd.
fn outside_view(shared: &Shared, url: &str) -> GroupView {
    let cluster = &shared.cluster;
    let leader = match cluster.lead() {
        Lead::Here => Some(cluster.own.id),
        other => other.node(),
    };
    GroupView {
        group: CONTROL.to_owned(),
        leader: leader.map(|leader| cluster.called(leader)),
        term: shared.control.members().term,
        voters: Vec::new(),
        learners: Vec::new(),
        entries: 0,
        applied: 0,
        behind: BTreeMap::new(),
        degraded: false,
        kept_in: Some(url.to_owned()),
        fault: shared.control.fault(),
    }
}
