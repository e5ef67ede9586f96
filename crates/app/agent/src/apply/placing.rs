//! Where replicas run.

use crate::apply::api_error;
use crate::cluster::table;
use crate::shared::Shared;
use kernel::{Bytes, Name, NodeId, ScopedName, ZonePath};
use manifest::Manifest;
use node::desired::{Applied, Desired};
use node::nodes::NodeTable;
use node::placing::{
    Known, Lack, PlaceError, Placements, WhyNot, Without, can_move, placements, what_if, world,
    world_of_movable,
};
use std::collections::{BTreeMap, BTreeSet};
use wire::api::{ApiError, Change, WhyNotBehind, WhyNotReply, WithoutMove, WithoutReply};
use wire::attributes::Value;

/// Where each service's replicas run: by hand, or where it is best.
pub fn place(
    shared: &Shared,
    manifest: &Manifest,
    desired: &Desired,
) -> Result<Placements, ApiError> {
    let nodes = shared.cluster.nodes.borrow().clone();
    let known = |node| known(shared, node);
    placements(manifest, desired, &nodes, known).map_err(|error| {
        let code = match error {
            PlaceError::NoNode { .. } => "invalid_placement",
            _ => "unplaceable",
        };
        api_error(code, error.to_string(), Some(error.hint()))
    })
}

/// What placement is told of a node.
pub fn known(shared: &Shared, node: NodeId) -> Known {
    let cluster = &shared.cluster;
    let row = cluster.rows.of(node).row;
    let bytes = |name: &str| match row.get(name) {
        Some(Value::Int(bytes)) => u64::try_from(*bytes).ok().map(Bytes),
        _ => None,
    };
    let reports = cluster.reports.borrow();
    Known {
        reachable: cluster.reach(node).is_up(),
        machine: reports.get(&node).and_then(|report| report.machine.clone()),
        memory_free: bytes("memory_free_bytes"),
        disk_free: bytes("disk_free_bytes"),
        failure: cluster
            .uptimes
            .borrow()
            .get(&node)
            .map(|uptime| uptime.failure(crate::machine::unix_now())),
    }
}

/// The nodes that are meant by a node's name or a zone's path.
fn named(nodes: &NodeTable, of: &str) -> Result<(BTreeSet<NodeId>, Without), ApiError> {
    if !of.starts_with('/') {
        let record = table::find(nodes, of).ok_or_else(|| table::none_called(of))?;
        return Ok((BTreeSet::from([record.id]), Without::Node(record.id)));
    }
    let zone: ZonePath = of
        .parse()
        .map_err(|error| api_error("invalid_name", format!("{error}"), None))?;
    let within = nodes.values().filter(|record| zone.contains(&record.zone));
    let within: BTreeSet<NodeId> = within.map(|record| record.id).collect();
    if within.is_empty() {
        let message = format!("no node is in {zone}");
        return Err(api_error("not_found", message, Some("homeostat node ls")));
    }
    Ok((within, Without::Zone(zone)))
}

/// What would come of the loss of a node, or of a zone.
pub async fn without(shared: &Shared, of: &str) -> Result<WithoutReply, ApiError> {
    let cluster = &shared.cluster;
    let desired = super::read_desired(shared.known()).await;
    let desired = desired.map_err(|error| super::storage(&error))?;
    let nodes = cluster.nodes.borrow().clone();
    let (lost, without) = named(&nodes, of)?;
    let is_movable = |name: &ScopedName| {
        let mut all = desired.services();
        all.any(|(one, service, _)| one == *name && can_move(service))
    };
    let gone = nodes
        .keys()
        .copied()
        .filter(|id| !cluster.reach(*id).is_up());
    let gone: BTreeSet<NodeId> = gone.collect();
    let all = world(&desired, &nodes, &gone, |node| known(shared, node));
    let is_there = |on: &BTreeMap<NodeId, u32>| on.keys().any(|id| lost.contains(id));
    let there = all.running.iter().filter(|(_, on)| is_there(on));
    let wait = there.filter(|(name, _)| !is_movable(name));
    let kind = |name: &ScopedName| match desired.job(name) {
        Some(_) => "job",
        None => "service",
    };
    let wait: Vec<String> = wait
        .map(|(name, _)| format!("{}/{name}", kind(name)))
        .collect();
    let world = world_of_movable(&desired, &nodes, &gone, can_move, |node| {
        known(shared, node)
    });
    let what_if = what_if(&world, &without);
    let moves = what_if.plan.choices.iter();
    let moves = moves.filter(|choice| is_movable(&choice.service));
    let moves = moves.map(|choice| WithoutMove {
        service: format!("service/{}", choice.service),
        to: cluster.called(choice.place),
        why: choice.score.to_string(),
    });
    let why = |name: &ScopedName| {
        let refused = what_if.plan.refused.iter().find(|it| it.service == *name);
        refused.map_or_else(String::new, ToString::to_string)
    };
    let lost_services = what_if.lost.keys().filter(|name| is_movable(name));
    let members = cluster.members();
    let left = members.voters.difference(&lost).count();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(WithoutReply {
        without: of.to_owned(),
        moves: moves.collect(),
        lost: lost_services
            .map(|name| (format!("service/{name}"), why(name)))
            .collect(),
        wait,
        voters: count(members.voters.len()),
        voters_left: count(left),
    })
}

/// Why a service has no replica on a node.
pub async fn why_not(
    shared: &Shared,
    service: &ScopedName,
    of: &str,
) -> Result<WhyNotReply, ApiError> {
    let cluster = &shared.cluster;
    let desired = super::read_desired(shared.known()).await;
    let desired = desired.map_err(|error| super::storage(&error))?;
    let nodes = cluster.nodes.borrow().clone();
    let record = table::find(&nodes, of).filter(|record| record.belongs());
    let record = record.ok_or_else(|| table::none_called(of))?;
    let world = world(&desired, &nodes, &BTreeSet::new(), |node| {
        known(shared, node)
    });
    let why = node::placing::why_not(&world, service, record.id);
    let mut reply = WhyNotReply {
        service: format!("service/{service}"),
        node: record.name.to_string(),
        ..WhyNotReply::default()
    };
    match why {
        Some(WhyNot::Runs(copies)) => reply.runs = copies,
        Some(WhyNot::Lacks(lacks)) => {
            let told = lacks.iter().map(|lack| match lack {
                Lack::Draining if record.witness => "it is a witness".to_owned(),
                other => other.to_string(),
            });
            reply.lacks = told.collect();
        }
        Some(WhyNot::Behind { score, than, its }) => {
            reply.behind = Some(WhyNotBehind {
                score: score.total(),
                why: score.to_string(),
                than: cluster.called(than),
                its_score: its.total(),
                its_why: its.to_string(),
            });
        }
        Some(WhyNot::Unwanted) | None => {}
    }
    Ok(reply)
}

fn shares(
    applied: &Applied,
    name: &Name,
    nodes: impl Iterator<Item = NodeId>,
) -> BTreeMap<NodeId, u32> {
    let Some(service) = applied.manifest.services.get(name) else {
        return BTreeMap::new();
    };
    let share = |id: NodeId| (id, applied.share(name, service, id));
    nodes.map(share).filter(|(_, count)| *count > 0).collect()
}

/// Adds to the changes on which nodes services run, where that changes.
pub fn tell(shared: &Shared, old: Option<&Applied>, new: &Applied, changes: &mut Vec<Change>) {
    let nodes = shared.cluster.nodes.borrow().clone();
    if nodes.len() < 2 {
        return;
    }
    for name in new.manifest.services.keys() {
        let ids = || nodes.keys().copied();
        let after = shares(new, name, ids());
        let before = old.map(|old| shares(old, name, ids()));
        if before.as_ref() == Some(&after) {
            continue;
        }
        let on = after.iter().filter_map(|(id, count)| {
            let record = nodes.get(id)?;
            Some(format!("{} ({count})", record.name))
        });
        let detail = format!("on: {}", on.collect::<Vec<_>>().join(", "));
        let object = format!("service/{name}");
        match changes.iter_mut().find(|change| change.object == object) {
            Some(change) => change.details.push(detail),
            None => changes.push(Change {
                action: "update".to_owned(),
                object,
                details: vec![detail],
            }),
        }
    }
}
