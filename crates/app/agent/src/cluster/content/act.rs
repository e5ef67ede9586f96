//! The actuators of the loop over content: fetches, mends, drops, collections.
//!
//! Holds: each fetch that is begun is answered by one event; nothing is dropped
//! or collected while something is taken in, nor what is leased.

use super::holders;
use super::told::Need;
use crate::apply::{read_desired, read_history};
use crate::shared::{Message, Shared};
use ::content::{Checked, FetchError, Fetched, Wanted};
use kernel::{Hash, error_chain};
use node::desired::FIRST_NODE;
use node::{NodeEffect, NodeEvent};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};
use tokio::task::spawn_blocking;

/// Carries out what the loop decided.
pub fn carry_out(shared: &Arc<Shared>, effect: NodeEffect) {
    let shared = Arc::clone(shared);
    match effect {
        NodeEffect::FetchContent { hash } => {
            tokio::spawn(async move { fetch(&shared, hash, false).await });
        }
        NodeEffect::MendContent { hash } => {
            tokio::spawn(async move { fetch(&shared, hash, true).await });
        }
        NodeEffect::DropContent { hashes } => {
            tokio::spawn(async move {
                let hashes: BTreeSet<Hash> = hashes.into_iter().collect();
                if let Err(error) = collect(&shared, &hashes).await {
                    tracing::warn!(error, "content not dropped");
                }
                let stayed = |hash: &Hash| shared.content.path(*hash).exists();
                shared.holdings.is_young(hashes.into_iter().filter(stayed));
                shared.holdings.wake();
            });
        }
        NodeEffect::ContentHeldBack { hash, why } => {
            tracing::warn!(%hash, why, "content cannot be had now");
            shared.holdings.trouble(hash, &why, None);
        }
        _ => {}
    }
}

async fn fetch(shared: &Shared, hash: Hash, mend: bool) {
    let need = shared.holdings.need(hash);
    let name = need
        .as_ref()
        .map_or_else(|| hash.short(), |need| need.name.clone());
    let event = match bring(shared, hash, need, mend).await {
        Ok(fetched) => {
            tracing::info!(%hash, name, ?fetched, "content is here");
            shared.holdings.came(hash);
            NodeEvent::ContentFetched {
                hash,
                what: told(&name, &fetched),
            }
        }
        Err(error) => {
            let why = error_chain(&error);
            tracing::warn!(%hash, name, why, "content did not come; trying on");
            shared.holdings.trouble(hash, &why, error.hint());
            let why = format!("{name}: {why}");
            NodeEvent::ContentFetchFailed { hash, why }
        }
    };
    let _ = shared.messages.send(Message::Node(event)).await;
    shared.holdings.wake();
}

async fn bring(
    shared: &Shared,
    hash: Hash,
    need: Option<Need>,
    mend: bool,
) -> Result<Fetched, FetchError> {
    let origin = need.as_ref().map_or(FIRST_NODE, |need| need.origin);
    let holders = holders(&shared.cluster, origin);
    let tree = need.as_ref().is_some_and(|need| need.tree);
    let program = need.is_some_and(|need| need.is_program());
    let mut wanted = Wanted::new(hash);
    if program {
        wanted = wanted.executable();
    }
    match (mend, tree) {
        (true, _) => shared.fetcher.mend(wanted, &holders).await,
        (false, true) => {
            let fetcher = &shared.fetcher;
            fetcher.fetch_tree(hash, &holders, &mut |_| {}).await
        }
        (false, false) => shared.fetcher.fetch(wanted, &holders, &mut |_| {}).await,
    }
}

fn told(name: &str, fetched: &Fetched) -> String {
    let mut text = format!("{name} is here, whole");
    let from: Vec<String> = fetched
        .from
        .iter()
        .map(|(holder, bytes)| format!("{bytes} from {holder}"))
        .collect();
    if !from.is_empty() {
        text.push_str(": ");
        text.push_str(&from.join(", "));
    }
    if fetched.resumed.0 > 0 {
        text.extend(["; ", &fetched.resumed.to_string(), " were here already"]);
    }
    for holder in &fetched.wrong {
        text.extend(["; ", holder.as_str(), " sent wrong bytes"]);
    }
    text
}

/// Somebody could not read that file: it is looked at, and mended if need be.
pub async fn doubt(shared: &Shared, hash: Hash) {
    let content = shared.content.clone();
    let checked = spawn_blocking(move || content.check(hash)).await;
    match checked {
        // Reported by the check itself.
        Ok(Ok(Checked::Damaged)) => {}
        Ok(Ok(Checked::Missing)) => shared.holdings.doubt(hash),
        // Then it is a compressed form of it, which can be made again.
        Ok(Ok(Checked::Right { .. })) => {
            let content = shared.content.clone();
            let forgotten = spawn_blocking(move || content.forget_variants(hash)).await;
            tracing::info!(%hash, ?forgotten, "it is right; its compressed forms are gone");
        }
        Ok(Err(error)) => tracing::warn!(%hash, %error, "not checked"),
        Err(error) => tracing::error!(%hash, %error, "not checked"),
    }
}

/// Removes what no state here names: of what is held, only `dropped`.
pub async fn collect(shared: &Arc<Shared>, dropped: &BTreeSet<Hash>) -> Result<(), String> {
    // Nothing is taken in meanwhile.
    let _applying = shared.applying.lock().await;
    let desired = read_desired(&shared.store).await;
    let desired = desired.map_err(|error| error_chain(&error))?;
    let mut applied: Vec<_> = desired.projects.values().cloned().collect();
    // States kept for a roll-back are known to the leader alone.
    let known = shared.cluster.leads().then(|| desired.projects.keys());
    for project in known.into_iter().flatten() {
        let history = read_history(&shared.control, project).await;
        applied.extend(history.map_err(|error| error.message)?);
    }
    let (content, sites) = (shared.content.clone(), shared.layout.sites());
    let leased: BTreeSet<Hash> = content.leased().into_iter().collect();
    let mut trees: BTreeSet<Hash> = BTreeSet::new();
    let mut files: BTreeSet<Hash> = BTreeSet::new();
    for one in &applied {
        trees.extend(one.trees.values());
        files.extend(one.all_programs().map(|(_, hash)| hash));
    }
    let held = shared.holdings.held();
    let held = held.ok_or("what is held is not known yet")?;
    for (hash, tree) in held {
        if !dropped.contains(&hash) || leased.contains(&hash) {
            let kept = if tree { &mut trees } else { &mut files };
            kept.insert(hash);
        }
    }
    let grace = shared.holdings.settings.grace();
    let work = move || {
        let text = |error: &dyn std::error::Error| error.to_string();
        // What is not here has nothing to keep; its fetch has leases.
        trees.retain(|hash| content.path(*hash).exists());
        let trees: Vec<Hash> = trees.into_iter().collect();
        let files: Vec<Hash> = files.into_iter().collect();
        remove_laid_out(&sites, &trees).map_err(|error| text(&error))?;
        let collected = content.collect_older(&trees, &files, grace);
        collected.map_err(|error| text(&error))
    };
    let collected = spawn_blocking(work).await;
    let collected = collected.map_err(|error| error.to_string())??;
    tracing::info!(?collected, dropped = dropped.len(), "content collected");
    Ok(())
}

/// Trees laid out for replicas, `sites/PROJECT.SITE/HASH`, that nothing names.
fn remove_laid_out(sites: &Path, live: &[Hash]) -> io::Result<()> {
    let names: BTreeSet<String> = live.iter().map(Hash::to_string).collect();
    for site in fs::read_dir(sites)? {
        for tree in fs::read_dir(site?.path())? {
            let tree = tree?;
            if !names.contains(&*tree.file_name().to_string_lossy()) {
                fs::remove_dir_all(tree.path())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trees_that_nothing_names_are_removed() {
        let folder = tempfile::tempdir().expect("folder");
        let live: Hash = "a".repeat(64).parse().expect("hash");
        let dead = "b".repeat(64);
        for name in [live.to_string(), dead.clone()] {
            fs::create_dir_all(folder.path().join("news").join(name)).expect("makes");
        }
        remove_laid_out(folder.path(), &[live]).expect("removes");
        assert!(folder.path().join("news").join(live.to_string()).exists());
        assert!(!folder.path().join("news").join(dead).exists());
    }
}
