//! Content on its way in: from a manifest's directory here, or from the node
//! that passed a request on.
//!
//! Holds: what is applied is in content, whole and durable, before desired
//! state names it.

use crate::apply::{Asker, Report, api_error, not_kept, parse};
use crate::shared::Shared;
use kernel::{Hash, Name, error_chain};
use manifest::Manifest;
use node::desired::Applied;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use wire::api::{ApiError, ApplyRequest, Progress, Resolved};

/// Takes in what a manifest names of its directory, for the holder of the store
/// to fetch from here.
pub async fn resolve(shared: &Arc<Shared>, request: &ApplyRequest) -> Result<Resolved, ApiError> {
    let manifest = parse(request)?;
    let trees = ingest_sites(shared, &manifest, &request.directory, None).await?;
    let programs = ingest_programs(shared, &manifest, &request.directory).await?;
    let text = |all: BTreeMap<Name, Hash>| {
        let all = all.into_iter();
        all.map(|(name, hash)| (name.to_string(), hash.to_string()))
            .collect()
    };
    Ok(Resolved {
        trees: text(trees),
        programs: text(programs),
    })
}

fn hashes(told: &BTreeMap<String, String>) -> Result<BTreeMap<Name, Hash>, ApiError> {
    let read = |(name, hash): (&String, &String)| {
        let name = Name::new(name.clone()).ok()?;
        Some((name, hash.parse().ok()?))
    };
    let all: Option<_> = told.iter().map(read).collect();
    all.ok_or_else(|| {
        let message = "the node that passed this on names its content in no way known here";
        api_error("content", message, None)
    })
}

/// Content from the directory here, or from the node that passed this on.
pub async fn take_in(
    shared: &Arc<Shared>,
    request: &ApplyRequest,
    asker: &Asker,
    applied: &mut Applied,
    report: Option<&Report>,
) -> Result<(), ApiError> {
    let manifest = &applied.manifest;
    let (Some(resolved), Some(_)) = (&request.resolved, asker.via) else {
        applied.trees = ingest_sites(shared, manifest, &request.directory, report).await?;
        applied.programs = ingest_programs(shared, manifest, &request.directory).await?;
        return Ok(());
    };
    applied.trees = hashes(&resolved.trees)?;
    applied.programs = hashes(&resolved.programs)?;
    let project = applied.manifest.project.to_string();
    let mut tell = |progress: content::FetchProgress| {
        if let Some(report) = report {
            let _ = report.try_send(Progress::Content {
                site: project.clone(),
                files: progress.files,
                files_total: progress.files_total,
                bytes: progress.bytes,
            });
        }
    };
    let fetched = crate::cluster::content::fetch(shared, applied, &mut tell).await;
    fetched.map_err(|error| {
        let help = error.hint();
        api_error("content", error_chain(&error), help)
    })
}

async fn ingest_sites(
    shared: &Arc<Shared>,
    manifest: &Manifest,
    directory: &Path,
    report: Option<&Report>,
) -> Result<BTreeMap<Name, Hash>, ApiError> {
    let mut trees = BTreeMap::new();
    for (name, site) in &manifest.sites {
        let root = directory.join(&site.root);
        let content = shared.content.clone();
        let report = report.cloned();
        let site_name = name.to_string();
        let ingested = tokio::task::spawn_blocking(move || {
            content.ingest_tree(&root, &mut |progress| {
                if let Some(report) = &report {
                    // Progress that nobody reads in time is not worth waiting for.
                    let _ = report.try_send(Progress::Content {
                        site: site_name.clone(),
                        files: progress.files,
                        files_total: progress.files_total,
                        bytes: progress.bytes,
                    });
                }
            })
        })
        .await
        .map_err(|error| api_error("internal", error.to_string(), None))?
        .map_err(|error| not_kept(&format!("site/{name}"), &error))?;
        trees.insert(name.clone(), ingested.tree);
    }
    Ok(trees)
}

/// Programs that lie beside the manifest are copied by hash, so that what runs
/// is what was applied, and a rollback brings the old one back.
async fn ingest_programs(
    shared: &Arc<Shared>,
    manifest: &Manifest,
    directory: &Path,
) -> Result<BTreeMap<Name, Hash>, ApiError> {
    let mut programs = BTreeMap::new();
    let services = manifest.services.iter();
    let services = services.map(|(name, service)| ("service", name, &service.run));
    let jobs = manifest.jobs.iter();
    let jobs = jobs.map(|(name, job)| ("job", name, &job.run));
    for (kind, name, run) in services.chain(jobs) {
        let Some(file) = run.file() else {
            continue;
        };
        let path = directory.join(file);
        let content = shared.content.clone();
        let hash = tokio::task::spawn_blocking(move || content.ingest_file(&path, true))
            .await
            .map_err(|error| api_error("internal", error.to_string(), None))?
            .map_err(|error| not_kept(&format!("{kind}/{name}"), &error))?;
        programs.insert(name.clone(), hash);
    }
    Ok(programs)
}
