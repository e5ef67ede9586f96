//! Rollouts by stages: on the leader, looks at all under way and writes what is decided;
//! and what people ask of them.
//!
//! The rules are `control::stage`'s, in the node's machine; here are its sensor and its
//! actuator.
//! Holds: a stage is written over the state that was looked at, and nothing else: of two
//! leaders one fails; nodes act on what is written.

use super::{api_error, collisions, read_desired, read_head, storage, write_head};
use crate::machine::unix_now;
use crate::shared::{Message, Shared};
use control::stage::{Action, At, Parameters, Reading, Side, Stage};
use kernel::{Name, Revision, ScopedName};
use node::NodeEvent;
use node::desired::{Applied, Desired};
use node::rollouts::{UnderWay, Watched};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use wire::api::{ApiError, GenerationView, RolloutView};

/// Spans end also where nothing is said.
const LOOK: Duration = Duration::from_secs(1);
/// What changes more often is looked at this often.
const GATHER: Duration = Duration::from_millis(50);

/// As the leader saw them last.
pub type Seen = BTreeMap<ScopedName, (Parameters, Reading)>;

/// What a person says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Pause,
    Resume,
    Promote,
    Abort,
}

/// On the leader; ends with its leadership.
pub async fn run(shared: Arc<Shared>) {
    let mut watched = Watched::default();
    let mut reports = shared.cluster.reports.subscribe();
    let mut mirrored = shared.cluster.mirrored.subscribe();
    let mut were_any = false;
    loop {
        let has_any = match read_desired(&shared.control).await {
            Ok(desired) => {
                let seen = look(&shared, &mut watched, &desired);
                let has_any = !seen.is_empty();
                shared.rollouts.send_replace(seen.clone());
                if has_any || were_any {
                    let event = Message::Node(NodeEvent::RolloutsSeen(seen));
                    if shared.messages.send(event).await.is_err() {
                        return;
                    }
                }
                has_any
            }
            Err(error) => {
                tracing::warn!(%error, "rollouts are not looked at");
                true
            }
        };
        were_any = has_any;
        tokio::select! {
            changed = reports.changed(), if has_any => if changed.is_err() { return },
            changed = mirrored.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK), if has_any => {}
        }
        tokio::time::sleep(GATHER).await;
        let _ = reports.borrow_and_update();
        let _ = mirrored.borrow_and_update();
    }
}

fn look(shared: &Shared, watched: &mut Watched, desired: &Desired) -> Seen {
    let cluster = &shared.cluster;
    let mut reports = cluster.reports.borrow().clone();
    reports.retain(|node, _| *node == cluster.own.id || cluster.reach(*node).is_up());
    watched.look(desired, &reports)
}

/// Carries a decision out.
pub async fn advance(shared: Arc<Shared>, service: ScopedName, at: At, action: Action) {
    let _applying = shared.applying.lock().await;
    let still = |applied: &Applied, under_way: &UnderWay| {
        let now = applied.generations.get(&service.name).copied();
        under_way.at(now.unwrap_or_default()) == at
    };
    let done = change(&shared, &service, |applied, under_way| {
        still(applied, under_way).then_some(action)
    });
    match done.await {
        Ok(()) => tracing::info!(%service, ?action, "a rollout goes on"),
        Err(error) if error.code == "conflict" => {}
        Err(error) => tracing::warn!(%service, error = error.message, "a rollout stands still"),
    }
}

/// The caller holds `applying`. `decide`: none where nothing is to be done.
async fn change(
    shared: &Arc<Shared>,
    service: &ScopedName,
    decide: impl Fn(&Applied, &UnderWay) -> Option<Action>,
) -> Result<(), ApiError> {
    let (head, revision) = under_way(shared, service).await?;
    let name = &service.name;
    let action = head
        .rollouts
        .get(name)
        .and_then(|under_way| decide(&head, under_way));
    let Some(action) = action else { return Ok(()) };
    let (next, failed) = match action {
        Action::Step => (head.stepped(name, unix_now()), None),
        Action::Switch => (head.switched(name, unix_now()), None),
        Action::Finish => (head.finished(name), None),
        Action::Abort => {
            let failed = head.number;
            (aborted(shared, head, name).await?, Some(failed))
        }
    };
    write_head(shared, &next, Some(revision), failed)
        .await
        .map(drop)
}

async fn aborted(shared: &Arc<Shared>, head: Applied, name: &Name) -> Result<Applied, ApiError> {
    let routes = head.manifest.services.get(name);
    let routes = routes.map_or_else(Vec::new, |service| service.routes.clone());
    let Some(mut before) = head.aborted(name, unix_now()) else {
        return Ok(head);
    };
    let desired = read_desired(&shared.control).await;
    let desired = desired.map_err(|error| storage(&error))?;
    // Another project may have taken what the new generation had given up.
    if collisions(&desired, &before.manifest, None).is_err()
        && let Some(service) = before.manifest.services.get_mut(name)
    {
        service.routes = routes;
    }
    Ok(before)
}

/// The head of the project, where the service is being rolled out.
async fn under_way(
    shared: &Arc<Shared>,
    service: &ScopedName,
) -> Result<(Applied, Revision), ApiError> {
    let head = read_head(&shared.control, &service.project).await?;
    let rolled = head.filter(|(head, _)| head.rollouts.contains_key(&service.name));
    rolled.ok_or_else(|| {
        let message = format!("service/{service}: nothing is being rolled out by stages");
        let help = format!("homeostat why service/{service}");
        api_error("conflict", message, Some(&help))
    })
}

/// Does what a person says.
pub async fn say(
    shared: &Arc<Shared>,
    service: &ScopedName,
    word: Word,
) -> Result<RolloutView, ApiError> {
    let _applying = shared.applying.lock().await;
    let (head, revision) = under_way(shared, service).await?;
    let view = view_of(shared, service, &head)?;
    match word {
        Word::Pause | Word::Resume => {
            let mut next = head;
            if let Some(under_way) = next.rollouts.get_mut(&service.name) {
                under_way.paused = word == Word::Pause;
            }
            let shown = view_of(shared, service, &next)?;
            write_head(shared, &next, Some(revision), None).await?;
            return Ok(shown);
        }
        Word::Promote if view.new.ready < view.new.wanted => {
            let (ready, wanted) = (view.new.ready, view.new.wanted);
            let message =
                format!("{ready} of {wanted} new replicas of service/{service} are ready");
            let help = format!("homeostat rollout status {service}");
            return Err(api_error("conflict", message, Some(&help)));
        }
        Word::Promote | Word::Abort => {}
    }
    change(shared, service, |_, under_way| {
        Some(match (word, under_way.stage) {
            (Word::Promote, Stage::Coming) => Action::Switch,
            (Word::Promote, _) => Action::Finish,
            _ => Action::Abort,
        })
    })
    .await?;
    Ok(view)
}

/// How a rollout stands.
pub async fn status(shared: &Arc<Shared>, service: &ScopedName) -> Result<RolloutView, ApiError> {
    let (head, _) = under_way(shared, service).await?;
    view_of(shared, service, &head)
}

fn view_of(shared: &Shared, service: &ScopedName, head: &Applied) -> Result<RolloutView, ApiError> {
    let gone = || api_error("internal", format!("service/{service} is gone"), None);
    let under_way = head.rollouts.get(&service.name).ok_or_else(gone)?;
    let generation = head.generations.get(&service.name).copied();
    let generation = generation.unwrap_or_default();
    let seen = shared.rollouts.borrow().get(service).cloned();
    // Of the stage before, until the loop has looked.
    let seen = seen.filter(|(_, it)| it.at.generation == generation);
    let (old, new) = seen.map_or_else(
        || {
            let nothing = Side {
                wanted: 1,
                ..Side::default()
            };
            (Side::default(), nothing)
        },
        |(_, it)| (it.old, it.new),
    );
    let rollout = head.manifest.services.get(&service.name);
    let rollout = &rollout.ok_or_else(gone)?.rollout;
    let span = match (rollout, under_way.stage) {
        (manifest::Rollout::Canary(canary), _) => canary.good_for,
        (manifest::Rollout::BlueGreen(it), Stage::Switched) => Some(it.keep),
        _ => None,
    };
    let after = |span: Duration| {
        let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        under_way.since_unix.0.saturating_add(span)
    };
    let (stage, waits_for) = waits_for(under_way, &new, span.is_some());
    Ok(RolloutView {
        service: service.to_string(),
        strategy: match rollout {
            manifest::Rollout::BlueGreen(_) => "blue-green",
            manifest::Rollout::Batches(_) => "rolling",
            _ => "canary",
        }
        .to_owned(),
        stage: stage.to_owned(),
        paused: under_way.paused,
        since_unix_ms: under_way.since_unix.0,
        goes_on_unix_ms: span.filter(|_| !under_way.paused).map(after),
        old: shown(
            under_way.from_generation,
            &old,
            under_way.stage != Stage::Switched,
        ),
        new: shown(generation, &new, under_way.stage != Stage::Coming),
        waits_for: waits_for.to_owned(),
    })
}

fn waits_for(under_way: &UnderWay, new: &Side, by_itself: bool) -> (&'static str, &'static str) {
    let stage = match under_way.stage {
        Stage::Rolling => "rolling",
        Stage::Canary => "canary",
        Stage::Coming => "coming",
        Stage::Switched => "switched",
    };
    let waits_for = match under_way.stage {
        _ if new.ready < new.wanted => "its new replicas to be ready",
        _ if under_way.paused => "homeostat rollout resume",
        Stage::Rolling => "the next batch",
        Stage::Canary if by_itself => "the canary to be good for long enough",
        Stage::Canary => "homeostat rollout promote, or abort",
        Stage::Coming => "the switch",
        Stage::Switched => "the end of the time that the old generation is kept for",
    };
    (stage, waits_for)
}

fn shown(generation: Revision, side: &Side, routed: bool) -> GenerationView {
    GenerationView {
        generation: generation.0,
        wanted: side.wanted,
        ready: side.ready,
        routed,
        requests: side.requests,
        errors: side.errors,
        latency_p99_ms: side.latency_p99_ms,
    }
}
