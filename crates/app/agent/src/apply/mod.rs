//! From a manifest's text to desired state, in one transaction, and the wait
//! until it runs.
//!
//! Holds: content and programs are durable before the head moves; a change
//! that does not come up is taken back, and what ran before keeps running.

use crate::machine::unix_now;
pub mod jobs;
pub mod links;
pub mod placing;
pub mod repair;
pub mod rollouts;
pub mod settling;
pub mod taking;
pub mod zone;

use crate::shared::Shared;
use control::stage::Stage;
use kernel::{Name, NodeId, Revision, ScopedName, error_chain};
use manifest::{BindingTarget, Manifest};
use node::desired::{Applied, Desired, head_key, history_key};
use node::store::{Compare, Operation, Store, StoreError, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use wire::api::{ApiError, ApplyRequest, Change, Diagnostic, PlanReply, Progress};

/// How long an apply waits for the edge, which serves without the agent and may
/// be on its way back.
pub const EDGE_MAX: Duration = Duration::from_secs(3);
/// Applied states kept for `rollback`; older ones' content may be collected.
const HISTORY_MAX: u64 = 20;
/// How long a change may take to come up before it is taken back.
const SETTLE_MAX: Duration = Duration::from_mins(1);

pub fn api_error(code: &str, message: impl Into<String>, help: Option<&str>) -> ApiError {
    ApiError {
        code: code.to_owned(),
        message: message.into(),
        help: help.map(str::to_owned),
        diagnostics: Vec::new(),
    }
}

pub fn storage(error: &StoreError) -> ApiError {
    let help = match error {
        StoreError::Full { .. } => "free space on that disk, then try again",
        _ => "homeostat doctor",
    };
    api_error("storage", error.to_string(), Some(help))
}

pub fn not_kept(what: &str, error: &content::ContentError) -> ApiError {
    let message = format!("{what}: {}", error_chain(error));
    api_error("content", message, error.hint())
}

/// All projects' heads at one revision.
pub async fn read_desired(store: &dyn Store) -> Result<Desired, StoreError> {
    let range = store.range(node::desired::PREFIX).await?;
    let mut projects = BTreeMap::new();
    for entry in range.entries {
        let applied: Applied = serde_json::from_slice(&entry.value)
            .map_err(|error| StoreError::Invalid(format!("{}: {error}", entry.key)))?;
        projects.insert(applied.manifest.project.clone(), applied);
    }
    let jobs = jobs::read(store).await?.into_iter();
    Ok(Desired {
        revision: range.revision,
        projects,
        policies: crate::projects::read_policies(store).await?,
        jobs: jobs.map(|(name, (record, _))| (name, record)).collect(),
        ..Desired::default()
    })
}

/// A project's head and the revision at which it was written.
pub async fn read_head(
    store: &dyn Store,
    project: &Name,
) -> Result<Option<(Applied, Revision)>, ApiError> {
    let key = head_key(project);
    let entry = node::store::get(store, &key).await;
    let Some(entry) = entry.map_err(|error| storage(&error))? else {
        return Ok(None);
    };
    let applied = serde_json::from_slice(&entry.value).map_err(|error| {
        api_error(
            "storage",
            format!("the head of {project} is damaged: {error}"),
            None,
        )
    })?;
    Ok(Some((applied, entry.modified)))
}

/// The applied states of a project, oldest first.
pub async fn read_history(store: &dyn Store, project: &Name) -> Result<Vec<Applied>, ApiError> {
    let prefix = format!("/history/{project}/");
    let range = store
        .range(&prefix)
        .await
        .map_err(|error| storage(&error))?;
    let read = |entry: &node::store::Entry| serde_json::from_slice(&entry.value).ok();
    Ok(range.entries.iter().filter_map(read).collect())
}

pub fn parse(request: &ApplyRequest) -> Result<Manifest, ApiError> {
    let directory_name = request
        .directory
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| Name::new(name.to_lowercase()).ok());
    let fallback = match directory_name {
        Some(name) => name,
        None => {
            Name::new("project").map_err(|error| api_error("internal", error.to_string(), None))?
        }
    };
    manifest::parse(&request.manifest, &fallback).map_err(|mistakes| {
        let count = mistakes.len();
        let mut error = api_error(
            "invalid_manifest",
            format!(
                "the manifest has {count} mistake{}; nothing was changed",
                if count == 1 { "" } else { "s" }
            ),
            None,
        );
        error.diagnostics = mistakes
            .into_iter()
            .map(|mistake| {
                let position = mistake.position(&request.manifest);
                Diagnostic {
                    message: mistake.message,
                    start: mistake.span.start,
                    end: mistake.span.end,
                    line: position.line,
                    column: position.column,
                    help: mistake.help,
                }
            })
            .collect();
        error
    })
}

/// Everything `apply` would write, with content copied in (which changes
/// nothing that runs).
struct Prepared {
    applied: Applied,
    head: Option<(Applied, Revision)>,
    changes: Vec<Change>,
}

pub type Report = mpsc::Sender<Progress>;

/// Who wants a change.
#[derive(Clone, Debug, Default)]
pub struct Asker {
    /// The one project that they may know of.
    pub only: Option<Name>,
    /// The node that passed it on.
    pub via: Option<NodeId>,
}

async fn prepare(
    shared: &Arc<Shared>,
    request: &ApplyRequest,
    asker: &Asker,
    report: Option<&Report>,
) -> Result<Prepared, ApiError> {
    let manifest = parse(request)?;
    let desired = read_desired(&shared.control)
        .await
        .map_err(|error| storage(&error))?;
    collisions(&desired, &manifest, asker.only.as_ref())?;
    crate::projects::require(&shared.control, &manifest).await?;
    crate::secrets::require(&shared.control, &manifest).await?;
    let head = read_head(&shared.control, &manifest.project).await?;
    let old = head.as_ref().map(|(applied, _)| applied);
    let placements = placing::place(shared, &manifest, &desired)?;
    let own = shared.cluster.own.id;
    let mut applied = Applied {
        number: old.map_or(0, |applied| applied.number) + 1,
        at_unix: unix_now(),
        manifest,
        directory: request.directory.clone(),
        trees: BTreeMap::new(),
        programs: BTreeMap::new(),
        generations: BTreeMap::new(),
        placements,
        epochs: BTreeMap::new(),
        rollouts: BTreeMap::new(),
        origin: asker.via.unwrap_or(own),
    };
    applied.keep_singletons(old, desired.next_epoch());
    taking::take_in(shared, request, asker, &mut applied, report).await?;
    crate::components::require(shared, &applied.manifest, &applied.programs).await?;
    applied.generations = applied.generations_after(old);
    if let Some(old) = old {
        applied.begin_rollouts(old, true, unix_now());
    }
    let mut changes = changes(old, &applied);
    placing::tell(shared, old, &applied, &mut changes);
    Ok(Prepared {
        applied,
        head,
        changes,
    })
}

/// A route belongs to one project. Whoever may know of `only` one is not told
/// whose it is.
fn collisions(desired: &Desired, manifest: &Manifest, only: Option<&Name>) -> Result<(), ApiError> {
    let others = desired.projects.values().map(|applied| &applied.manifest);
    for other in others.filter(|other| other.project != manifest.project) {
        let theirs: BTreeSet<_> = routes(other).collect();
        let Some((host, path)) = routes(manifest).find(|route| theirs.contains(route)) else {
            continue;
        };
        if only.is_some() {
            let message = format!("the route {host}{path} is taken on this node");
            return Err(api_error("conflict", message, Some("choose another")));
        }
        let owner = &other.project;
        let message = format!("the route {host}{path} belongs to project `{owner}` already");
        let help = "take it out of one of the two manifests; see: homeostat get revisions -o json";
        return Err(api_error("conflict", message, Some(help)));
    }
    Ok(())
}

fn routes(manifest: &Manifest) -> impl Iterator<Item = (&str, &str)> {
    let sites = manifest.sites.values().map(|site| &site.routes);
    let services = manifest.services.values().map(|service| &service.routes);
    sites
        .chain(services)
        .flatten()
        .map(|route| (route.host.0.as_str(), route.path.0.as_str()))
}

fn changes(old: Option<&Applied>, new: &Applied) -> Vec<Change> {
    let before = old.map(|applied| &applied.manifest);
    let mut changes: Vec<Change> = manifest::diff(before, &new.manifest)
        .into_iter()
        .map(|change| Change {
            action: change.action.to_string(),
            object: change.object.to_string(),
            details: change.details,
        })
        .collect();
    let Some(old) = old else { return changes };
    let mut add = |object: String, detail: String| match changes
        .iter_mut()
        .find(|change| change.object == object)
    {
        Some(change) => change.details.push(detail),
        None => changes.push(Change {
            action: "update".to_owned(),
            object,
            details: vec![detail],
        }),
    };
    for (what, before, after) in [
        ("site", &old.trees, &new.trees),
        ("service", &old.programs, &new.programs),
    ] {
        let noun = if what == "site" { "content" } else { "program" };
        for (name, hash) in after {
            let is_job = what == "service" && new.manifest.jobs.contains_key(name);
            let what = if is_job { "job" } else { what };
            if let Some(previous) = before.get(name).filter(|previous| *previous != hash) {
                add(
                    format!("{what}/{name}"),
                    format!("{noun}: {} -> {}", previous.short(), hash.short()),
                );
            }
        }
    }
    for (name, generation) in &new.generations {
        let moved = old
            .generations
            .get(name)
            .is_some_and(|old| old != generation);
        if moved && new.manifest.jobs.contains_key(name) {
            let told = "what starts from now on is of this version".to_owned();
            add(format!("job/{name}"), told);
        } else if moved {
            let how = match new.rollouts.get(name).map(|it| it.stage) {
                Some(Stage::Canary) => "a canary takes requests beside the replicas of before",
                Some(Stage::Rolling) => "replicas are replaced, a batch at a time",
                Some(_) => "new replicas come up beside those of before",
                None => "replicas are replaced one by one",
            };
            add(format!("service/{name}"), how.to_owned());
        }
    }
    changes
}

pub async fn plan(
    shared: &Arc<Shared>,
    request: &ApplyRequest,
    asker: &Asker,
) -> Result<PlanReply, ApiError> {
    let prepared = prepare(shared, request, asker, None).await?;
    Ok(PlanReply {
        changes: prepared.changes,
    })
}

pub async fn apply(shared: Arc<Shared>, request: ApplyRequest, asker: Asker, report: Report) {
    let applying = shared.applying.lock().await;
    let outcome = match prepare(&shared, &request, &asker, Some(&report)).await {
        Ok(prepared) => commit(&shared, prepared, &report).await,
        Err(error) => Err(error),
    };
    drop(applying);
    // What was damaged here may have been written anew.
    shared.holdings.wake();
    finish(&report, outcome).await;
}

/// `number` 0: the one before the current one.
pub async fn rollback(
    shared: Arc<Shared>,
    project: Name,
    number: u64,
    only: Option<Name>,
    report: Report,
) {
    let applying = shared.applying.lock().await;
    let outcome = match prepare_rollback(&shared, &project, number, only.as_ref()).await {
        Ok(prepared) => commit(&shared, prepared, &report).await,
        Err(error) => Err(error),
    };
    drop(applying);
    finish(&report, outcome).await;
}

async fn prepare_rollback(
    shared: &Arc<Shared>,
    project: &Name,
    number: u64,
    only: Option<&Name>,
) -> Result<Prepared, ApiError> {
    let Some((current, revision)) = read_head(&shared.control, project).await? else {
        return Err(api_error(
            "not_found",
            format!("no project `{project}` is applied"),
            Some("homeostat get revisions"),
        ));
    };
    let history = read_history(&shared.control, project).await?;
    let wanted = if number == 0 {
        // A restored state is written again under a new number: what says the
        // same as the current one is no way back.
        history
            .iter()
            .rev()
            .find(|old| old.number < current.number && !says_the_same(old, &current))
    } else {
        history.iter().find(|old| old.number == number)
    };
    let Some(wanted) = wanted else {
        return Err(api_error(
            "not_found",
            format!("`{project}` has no such earlier revision"),
            Some("homeostat get revisions"),
        ));
    };
    let desired = read_desired(&shared.control)
        .await
        .map_err(|error| storage(&error))?;
    // A route that was given up since may be another project's by now.
    collisions(&desired, &wanted.manifest, only)?;
    crate::projects::require(&shared.control, &wanted.manifest).await?;
    crate::secrets::require(&shared.control, &wanted.manifest).await?;
    let mut applied = Applied {
        number: current.number + 1,
        at_unix: unix_now(),
        ..wanted.clone()
    };
    applied.generations = applied.generations_after(Some(&current));
    applied.begin_rollouts(&current, false, unix_now());
    applied.placements = placing::place(shared, &applied.manifest, &desired)?;
    applied.keep_singletons(Some(&current), desired.next_epoch());
    let mut changes = changes(Some(&current), &applied);
    placing::tell(shared, Some(&current), &applied, &mut changes);
    Ok(Prepared {
        applied,
        head: Some((current, revision)),
        changes,
    })
}

fn says_the_same(one: &Applied, other: &Applied) -> bool {
    one.manifest == other.manifest
        && one.trees == other.trees
        && one.programs == other.programs
        && one.directory == other.directory
}

async fn finish(report: &Report, outcome: Result<Progress, ApiError>) {
    let last = outcome.unwrap_or_else(|error| Progress::Failed { error });
    // A client that went away has its answer in `get` and `why`.
    let _ = report.send(last).await;
}

pub async fn say(report: &Report, what: impl Into<String>) {
    let _ = report.send(Progress::Step { what: what.into() }).await;
}

async fn commit(
    shared: &Arc<Shared>,
    prepared: Prepared,
    report: &Report,
) -> Result<Progress, ApiError> {
    let Prepared {
        applied,
        head,
        changes,
    } = prepared;
    if changes.is_empty() && head.is_some() {
        let revision = applied.number - 1;
        return Ok(done(shared, &applied, revision, changes));
    }
    lay_out_sites(shared, &applied).await?;
    let mut settlements = shared.settlements.subscribe();
    let expected = head.as_ref().map(|(_, revision)| *revision);
    let written = write_head(shared, &applied, expected, None).await?;
    say(report, format!("revision {} is durable", applied.number)).await;
    for name in applied.rollouts.keys() {
        let service = applied.scoped(name);
        let told = format!("service/{name} by stages: homeostat rollout status {service}");
        say(report, told).await;
    }
    let waited = settling::settle(
        shared,
        &applied,
        head.as_ref().map(|(old, _)| old),
        written,
        &mut settlements,
        report,
    );
    let settled = tokio::time::timeout(SETTLE_MAX, waited)
        .await
        .unwrap_or_else(|_| {
            Err(api_error(
                "deadline",
                "still not ready after 60s",
                Some("homeostat get replicas"),
            ))
        });
    match (settled, head) {
        (Ok(()), _) => Ok(done(shared, &applied, applied.number, changes)),
        (Err(mut error), None) => {
            error
                .message
                .push_str("; nothing ran before it, so it stays applied and is tried on");
            Err(error)
        }
        (Err(error), Some((old, _))) => Err(take_back(shared, old, &applied, error).await),
    }
}

fn done(shared: &Shared, applied: &Applied, revision: u64, changes: Vec<Change>) -> Progress {
    Progress::Done {
        revision,
        changes,
        addresses: crate::api::addresses(shared, applied),
    }
}

/// Makes the old state desired again, under a new number.
async fn take_back(
    shared: &Arc<Shared>,
    old: Applied,
    failed: &Applied,
    mut error: ApiError,
) -> ApiError {
    let before = old.number;
    let number = failed.number + 1;
    let restored = async {
        // Singletons may have got their places since.
        let desired = read_desired(&shared.control).await;
        let desired = desired.map_err(|error| storage(&error))?;
        let now = read_head(&shared.control, &failed.manifest.project).await?;
        let now = now.filter(|(now, _)| now.number == failed.number);
        let Some((now, revision)) = now else {
            return Err(changed_meanwhile(&failed.manifest.project));
        };
        let mut restored = Applied {
            number,
            at_unix: unix_now(),
            ..old
        };
        restored.keep_singletons(Some(&now), desired.next_epoch());
        write_head(shared, &restored, Some(revision), Some(failed.number)).await
    };
    let told = match restored.await {
        Ok(_) => format!("; taken back: revision {number} says what {before} said"),
        Err(why) => format!("; taking it back failed: {}", why.message),
    };
    error.message.push_str(&told);
    error
}

pub async fn take_back_failed(
    shared: &Arc<Shared>,
    service: &ScopedName,
    generation: Revision,
    why: &str,
) -> Result<(), ApiError> {
    let desired = read_desired(&shared.control)
        .await
        .map_err(|error| storage(&error))?;
    let failed = desired.projects.get(&service.project).filter(|applied| {
        let moved = applied.generations.get(&service.name) == Some(&generation);
        moved && applied.number == generation.0
    });
    let Some(failed) = failed else { return Ok(()) };
    let project = &failed.manifest.project;
    let Some((current, _)) = read_head(&shared.control, project).await? else {
        return Ok(());
    };
    let history = read_history(&shared.control, project).await?;
    let before = history.into_iter().rfind(|old| old.number < failed.number);
    let (Some(before), true) = (before, current.number == failed.number) else {
        return Ok(());
    };
    // Nobody kept its routes for it meanwhile.
    collisions(&desired, &before.manifest, None)?;
    let cause = api_error("rollout_failed", why, None);
    let outcome = take_back(shared, before, failed, cause).await;
    tracing::warn!(%service, outcome = outcome.message, "a change did not come up");
    Ok(())
}

pub async fn lay_out_sites(shared: &Arc<Shared>, applied: &Applied) -> Result<(), ApiError> {
    let manifest = &applied.manifest;
    let services = manifest.services.values().map(|service| &service.bindings);
    let jobs = manifest.jobs.values().map(|job| &job.bindings);
    for binding in services.chain(jobs).flat_map(BTreeMap::values) {
        let BindingTarget::Site(site) = &binding.target else {
            continue;
        };
        let Some(tree) = applied.trees.get(site).copied() else {
            continue;
        };
        let to = shared.layout.site(&applied.scoped(site), &tree);
        let content = shared.content.clone();
        tokio::task::spawn_blocking(move || content.export_tree(tree, &to))
            .await
            .map_err(|error| api_error("internal", error.to_string(), None))?
            .map_err(|error| not_kept(&format!("site/{site}"), &error))?;
    }
    Ok(())
}

/// `failed`: the number of a state that did not come up, which `rollback` must
/// not find.
pub async fn write_head(
    shared: &Arc<Shared>,
    applied: &Applied,
    expected: Option<Revision>,
    failed: Option<u64>,
) -> Result<Revision, ApiError> {
    write_head_with(shared, applied, expected, failed, Vec::new()).await
}

/// The same, with `also` in the same transaction.
pub async fn write_head_with(
    shared: &Arc<Shared>,
    applied: &Applied,
    expected: Option<Revision>,
    failed: Option<u64>,
    also: Vec<Operation>,
) -> Result<Revision, ApiError> {
    let key = head_key(&applied.manifest.project);
    let compare = match expected {
        Some(revision) => Compare::Modified(key, revision),
        None => Compare::Absent(key),
    };
    write_head_where(shared, applied, vec![compare], failed, also).await
}

/// Over the head of that revision, if `fence` holds too.
pub async fn write_head_fenced(
    shared: &Arc<Shared>,
    applied: &Applied,
    expected: Revision,
    fence: Compare,
) -> Result<Revision, ApiError> {
    let head = Compare::Modified(head_key(&applied.manifest.project), expected);
    write_head_where(shared, applied, vec![fence, head], None, Vec::new()).await
}

async fn write_head_where(
    shared: &Arc<Shared>,
    applied: &Applied,
    compare: Vec<Compare>,
    failed: Option<u64>,
    also: Vec<Operation>,
) -> Result<Revision, ApiError> {
    let project = &applied.manifest.project;
    let value = serde_json::to_vec(applied)
        .map_err(|error| api_error("internal", error.to_string(), None))?;
    let key = head_key(project);
    let mut then = vec![
        Operation::Put(key, value.clone()),
        Operation::Put(history_key(project, applied.number), value),
    ];
    then.extend(also);
    let forgotten = [applied.number.checked_sub(HISTORY_MAX), failed];
    for number in forgotten.into_iter().flatten() {
        then.push(Operation::Delete(history_key(project, number)));
    }
    let transaction = Transaction {
        compare,
        then,
        otherwise: Vec::new(),
    };
    let outcome = shared
        .control
        .transact(transaction)
        .await
        .map_err(|error| storage(&error))?;
    if outcome.succeeded {
        return Ok(outcome.revision);
    }
    Err(changed_meanwhile(project))
}

fn changed_meanwhile(project: &Name) -> ApiError {
    let message = format!("`{project}` was changed by somebody else meanwhile");
    api_error("conflict", message, Some("homeostat plan"))
}
