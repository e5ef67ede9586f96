//! The wait until what was applied runs, here and on other nodes; and what
//! becomes of a change that nobody waits for any more.
//!
//! Holds: a node that cannot be reached holds nobody up: it follows when it is
//! back.

use crate::apply::{EDGE_MAX, Report, api_error, read_head, say, take_back_failed};
use crate::shared::{Settlement, Shared};
use kernel::{NodeId, Revision, ScopedName};
use manifest::Run;
use node::desired::Applied;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use wire::api::ApiError;

/// A singleton's place is looked for this often.
const PLACE_LOOK: Duration = Duration::from_millis(100);

/// What is still waited for: on which nodes, in which generation.
struct Waiting {
    generation: Revision,
    nodes: BTreeSet<NodeId>,
    /// A singleton that gets a place once none of it runs anywhere.
    unplaced: bool,
}

struct Wait<'a> {
    shared: &'a Shared,
    applied: &'a Applied,
    waiting: BTreeMap<ScopedName, Waiting>,
    report: &'a Report,
}

/// Waits until each changed service runs in its new generation where it is
/// placed, and the edge has the routes.
pub async fn settle(
    shared: &Arc<Shared>,
    applied: &Applied,
    old: Option<&Applied>,
    written: Revision,
    settlements: &mut broadcast::Receiver<Settlement>,
    report: &Report,
) -> Result<(), ApiError> {
    let mut wait = Wait {
        shared,
        applied,
        waiting: changed(shared, applied, old),
        report,
    };
    for service in wait.waiting.keys() {
        say(report, format!("starting service/{}", service.name)).await;
    }
    let own = shared.cluster.own.id;
    let mut reports = shared.cluster.reports.subscribe();
    let mut reach = shared.cluster.reach_changes();
    let mut looks = tokio::time::interval(PLACE_LOOK);
    while !wait.waiting.is_empty() {
        tokio::select! {
            _ = looks.tick() => if wait.find_places().await? {
                wait.heard().await?;
            },
            settlement = settlements.recv() => match settlement {
                Ok(Settlement::Settled { service, generation }) => {
                    wait.settled(&service, generation, own).await;
                }
                Ok(Settlement::Failed { service, generation, why }) => {
                    wait.failed(&service, generation, &why)?;
                }
                Ok(Settlement::AllStopped) | Err(RecvError::Closed) => {
                    return Err(api_error("internal", "the node is going down", None));
                }
                Ok(Settlement::Restarted { .. }) | Err(RecvError::Lagged(_)) => {}
            },
            _ = reports.changed() => wait.heard().await?,
            _ = reach.changed() => wait.heard().await?,
        }
    }
    let _ = tokio::time::timeout(EDGE_MAX, edge_has_written(shared, written)).await;
    Ok(())
}

/// The same of a revision of the control group.
async fn edge_has_written(shared: &Arc<Shared>, written: Revision) {
    let mut mirrored = shared.cluster.mirrored.subscribe();
    let here = match mirrored.wait_for(|upto| upto.of >= written).await {
        Ok(upto) => upto.here,
        Err(_) => return,
    };
    edge_has(shared, here).await;
}

/// The services that start anew or elsewhere, and the nodes they do it on.
fn changed(
    shared: &Shared,
    applied: &Applied,
    old: Option<&Applied>,
) -> BTreeMap<ScopedName, Waiting> {
    let ids: Vec<NodeId> = shared.cluster.nodes.borrow().keys().copied().collect();
    let mut all = BTreeMap::new();
    for (name, generation) in &applied.generations {
        let Some(service) = applied.manifest.services.get(name) else {
            continue;
        };
        if applied.rollouts.contains_key(name) {
            // The leader's loop takes it further, or back.
            continue;
        }
        let before = |id| {
            let old = old?;
            let same = old.generations.get(name) == Some(generation);
            let service = old.manifest.services.get(name).filter(|_| same)?;
            Some(old.share(name, service, id)).filter(|share| *share > 0)
        };
        let starts = ids
            .iter()
            .copied()
            .filter(|id| applied.share(name, service, *id) > 0 && before(*id).is_none());
        let nodes: BTreeSet<NodeId> = starts.collect();
        let waiting = Waiting {
            generation: *generation,
            unplaced: service.singleton && applied.place(name).is_none(),
            nodes,
        };
        if waiting.unplaced || !waiting.nodes.is_empty() {
            all.insert(applied.scoped(name), waiting);
        }
    }
    all
}

impl Wait<'_> {
    /// Whether a singleton has its place by now.
    async fn find_places(&mut self) -> Result<bool, ApiError> {
        if !self.waiting.values().any(|waiting| waiting.unplaced) {
            return Ok(false);
        }
        let project = &self.applied.manifest.project;
        let Some((now, _)) = read_head(&self.shared.control, project).await? else {
            return Ok(false);
        };
        let mut found = false;
        for (service, waiting) in &mut self.waiting {
            if let (true, Some(on)) = (waiting.unplaced, now.place(&service.name)) {
                waiting.unplaced = false;
                waiting.nodes.insert(on);
                found = true;
            }
        }
        Ok(found)
    }

    async fn settled(&mut self, service: &ScopedName, generation: Revision, on: NodeId) {
        let Some(waiting) = self.waiting.get_mut(service) else {
            return;
        };
        if waiting.generation != generation {
            return;
        }
        waiting.nodes.remove(&on);
        if waiting.nodes.is_empty() && !waiting.unplaced {
            self.waiting.remove(service);
            say(self.report, format!("service/{} is ready", service.name)).await;
        }
    }

    fn failed(
        &self,
        service: &ScopedName,
        generation: Revision,
        why: &str,
    ) -> Result<(), ApiError> {
        let waiting = self.waiting.get(service);
        if waiting.is_none_or(|waiting| waiting.generation != generation) {
            return Ok(());
        }
        Err(api_error(
            "rollout_failed",
            format!("service/{} did not come up: {why}", service.name),
            Some(&to_look_at(self.applied, service)),
        ))
    }

    /// What nodes said, and which of them are not there.
    async fn heard(&mut self) -> Result<(), ApiError> {
        let cluster = &self.shared.cluster;
        let reports = cluster.reports.borrow().clone();
        let services: Vec<ScopedName> = self.waiting.keys().cloned().collect();
        for service in services {
            let Some(waiting) = self.waiting.get(&service) else {
                continue;
            };
            let generation = waiting.generation;
            for node in waiting.nodes.clone() {
                let status = reports.get(&node);
                let status = status.and_then(|report| report.status.services.get(&service));
                if let Some((failed, why)) = status.and_then(|status| status.failed.as_ref()) {
                    self.failed(&service, *failed, why)?;
                }
                let ready = status.is_some_and(|status| status.generation == Some(generation));
                let is_away = node != cluster.own.id && !cluster.reach(node).is_up();
                if ready || is_away {
                    self.settled(&service, generation, node).await;
                }
            }
        }
        Ok(())
    }
}

fn to_look_at(applied: &Applied, service: &ScopedName) -> String {
    let run = applied
        .manifest
        .services
        .get(&service.name)
        .map(|it| &it.run);
    match run {
        Some(Run::Process(_)) => format!(
            "homeostat logs {service} (it must listen on the HOST and PORT of its environment)"
        ),
        _ => format!("homeostat logs {service}"),
    }
}

/// Until the edge has in force what was made from `revision` of this node's own
/// store.
pub async fn edge_has(shared: &Arc<Shared>, revision: Revision) {
    let mut snapshots = shared.snapshot.subscribe();
    let Ok(version) = snapshots
        .wait_for(|snapshot| snapshot.revision >= revision)
        .await
        .map(|snapshot| snapshot.version)
    else {
        return;
    };
    let mut applied = shared.edge_applied.subscribe();
    let _ = applied.wait_for(|in_force| *in_force >= version).await;
}

/// Takes back what does not come up when nobody waits for it any more: the
/// agent was restarted while the change was rolled out. Runs for ever.
pub async fn take_back_unattended(shared: Arc<Shared>) {
    let mut settlements = shared.settlements.subscribe();
    let mut reports = shared.cluster.reports.subscribe();
    let mut seen = BTreeSet::new();
    loop {
        tokio::select! {
            settlement = settlements.recv() => match settlement {
                Ok(Settlement::Failed { service, generation, why }) => {
                    take_back(&shared, &service, generation, &why).await;
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            changed = reports.changed() => {
                if changed.is_err() {
                    return;
                }
                for (service, generation, why) in failed_elsewhere(&shared) {
                    if seen.insert((service.clone(), generation)) {
                        take_back(&shared, &service, generation, &why).await;
                    }
                }
            }
        }
    }
}

fn failed_elsewhere(shared: &Shared) -> Vec<(ScopedName, Revision, String)> {
    let own = shared.cluster.own.id;
    let reports = shared.cluster.reports.borrow();
    let others = reports.iter().filter(|(node, _)| **node != own);
    let services = others.flat_map(|(_, report)| &report.status.services);
    let failed = services.filter_map(|(name, status)| {
        let (generation, why) = status.failed.clone()?;
        Some((name.clone(), generation, why))
    });
    failed.collect()
}

async fn take_back(shared: &Arc<Shared>, service: &ScopedName, generation: Revision, why: &str) {
    // Whoever applied it holds this lock until it has decided.
    let _applying = shared.applying.lock().await;
    if let Err(error) = take_back_failed(shared, service, generation, why).await {
        tracing::error!(%service, error = error.message, "not taken back");
    }
}
