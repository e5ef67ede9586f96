//! Leases on what the edge serves and replicas run, so that nothing under them
//! is collected.
//!
//! In: snapshots, which of them the edge has in force, replicas. Holds: a site's
//! files stay until the edge has had a later snapshot for as long as a request
//! may take; a program stays while a replica of its generation is there.

use crate::shared::Shared;
use ::content::Lease;
use kernel::{Hash, Revision, ScopedName};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use wire::edge::EdgeSnapshot;

/// Longer than an edge that leaves takes for what it has in flight.
const LINGER: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_secs(1);

struct Used {
    _lease: Lease,
    /// Since when nothing uses it.
    free_since: Option<Instant>,
}

/// Which trees and modules a snapshot names.
fn of_snapshot(snapshot: &EdgeSnapshot) -> BTreeSet<Hash> {
    let sites = snapshot.sites.values().map(|site| site.tree);
    let modules = snapshot.components.values().map(|it| it.module);
    sites.chain(modules).collect()
}

/// Follows all three; runs for ever.
pub async fn run(shared: Arc<Shared>) {
    let mut snapshots = shared.snapshot.subscribe();
    let mut in_force = shared.edge_applied.subscribe();
    let mut status = shared.status.subscribe();
    // What the edge may have in force, the oldest first; at first, what it
    // serves from its disk.
    let mut given: Vec<(u64, BTreeSet<Hash>)> = saved(&shared).into_iter().collect();
    let mut used: BTreeMap<Hash, Used> = BTreeMap::new();
    let mut programs: BTreeMap<(ScopedName, Revision), Hash> = BTreeMap::new();
    loop {
        let newest = Arc::clone(&*snapshots.borrow_and_update());
        let has = *in_force.borrow_and_update();
        if given
            .last()
            .is_none_or(|(version, _)| *version < newest.version)
        {
            given.push((newest.version, of_snapshot(&newest)));
        }
        // All before the one in force are over.
        let current = given.iter().rposition(|(version, _)| *version <= has);
        given.drain(..current.unwrap_or(0));
        generations(&shared, &mut programs).await;
        let _ = status.borrow_and_update();
        let mut needed: BTreeSet<Hash> = given.iter().flat_map(|(_, of)| of.clone()).collect();
        needed.extend(programs.values());
        hold(&shared, &mut used, needed).await;
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            changed = in_force.changed() => if changed.is_err() { return },
            changed = status.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK), if used.values().any(|it| it.free_since.is_some()) => {}
        }
    }
}

fn saved(shared: &Shared) -> Option<(u64, BTreeSet<Hash>)> {
    let bytes = std::fs::read(shared.layout.edge_snapshot()).ok()?;
    let snapshot: EdgeSnapshot = serde_json::from_slice(&bytes).ok()?;
    Some((snapshot.version, of_snapshot(&snapshot)))
}

/// The program of each generation that has a replica here, or will.
async fn generations(shared: &Shared, programs: &mut BTreeMap<(ScopedName, Revision), Hash>) {
    let Ok(desired) = crate::apply::read_desired(&shared.store).await else {
        return;
    };
    let mut current = BTreeSet::new();
    for applied in desired.projects.values() {
        for (name, program) in &applied.programs {
            let generation = applied.generations.get(name).copied().unwrap_or_default();
            let key = (applied.scoped(name), generation);
            programs.insert(key.clone(), *program);
            current.insert(key);
        }
        for (name, under_way) in &applied.rollouts {
            let key = (applied.scoped(name), under_way.from_generation);
            programs.extend(under_way.from_program.map(|it| (key.clone(), it)));
            current.insert(key);
        }
    }
    let status = Arc::clone(&*shared.status.borrow());
    let replicas = status.services.values().flat_map(|it| &it.replicas);
    current.extend(replicas.map(|one| (one.replica.service.clone(), one.replica.generation)));
    programs.retain(|key, _| current.contains(key));
}

async fn hold(shared: &Arc<Shared>, used: &mut BTreeMap<Hash, Used>, needed: BTreeSet<Hash>) {
    let linger = LINGER.min(shared.holdings.settings.keep);
    let mut freed = false;
    for (hash, one) in used.iter_mut() {
        if needed.contains(hash) {
            one.free_since = None;
        } else {
            one.free_since.get_or_insert_with(Instant::now);
        }
    }
    used.retain(|_, one| {
        let over = one
            .free_since
            .is_some_and(|since| since.elapsed() >= linger);
        freed |= over;
        !over
    });
    let new: Vec<Hash> = needed
        .into_iter()
        .filter(|hash| !used.contains_key(hash))
        .collect();
    for hash in new {
        let content = shared.content.clone();
        // A program, or a tree of which nothing is here, is one hash.
        let leased = spawn_blocking(move || {
            let tree = content.lease_tree(hash);
            tree.unwrap_or_else(|_| content.lease(hash))
        });
        if let Ok(lease) = leased.await {
            let one = Used {
                _lease: lease,
                free_since: None,
            };
            used.insert(hash, one);
        }
    }
    if freed {
        shared.holdings.wake();
    }
}
