//! Drives the node's state machine: events in, effects carried out.
//!
//! One task owns the machine, so that its events have one order; what takes
//! time (starting, stopping, probing) runs beside it and comes back as events.

use crate::buckets::ProjectLimits;
use crate::cluster::{Use, give};
use crate::shared::{Message, Settlement, Shared};
use kernel::{ReplicaId, Time, UnixMillis};
use node::desired::Desired;
use node::driver::{Driver, DriverError, DriverEvent, ProbeOutcome, ReplicaSpec, Work};
use node::store::{Store, StoreError, WatchEvent};
use node::{Node, NodeEffect, NodeEvent};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use wire::bucket::{CAPABILITY_VARIABLE, SOCKET_VARIABLE};
use wire::decision::JournalEntry;
use wire::edge::{CertificateView, EdgeSnapshot};
use wire::shim::Secrets;

/// Now, on the boot-time clock.
pub fn now() -> Time {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Time(seconds * 1_000_000_000 + nanos)
}

pub fn unix_now() -> UnixMillis {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Runs until the node is told to go down and all replicas have stopped.
pub async fn run(mut node: Node, shared: Arc<Shared>, mut messages: mpsc::Receiver<Message>) {
    let mut removals = JoinSet::new();
    loop {
        let event = tokio::select! {
            message = messages.recv() => match message {
                None => return,
                Some(Message::Node(event)) => event,
                Some(Message::Down) => NodeEvent::Shutdown,
                Some(Message::Certificates(answer)) => {
                    let _ = answer.send(publish_again(&shared));
                    continue;
                }
            },
            () = wake(node.next_wake()) => NodeEvent::Tick,
        };
        let effects = node.handle(event, now());
        shared.status.send_replace(Arc::new(node.status()));
        while removals.try_join_next().is_some() {}
        for effect in effects {
            match effect {
                NodeEffect::Remove { replica } => {
                    removals.spawn(remove(Arc::clone(&shared), replica));
                }
                NodeEffect::AllStopped => {
                    // What is not removed now is left behind: the agent ends next.
                    while removals.join_next().await.is_some() {}
                    shared.driver.rest().await;
                    let _ = shared.settlements.send(Settlement::AllStopped);
                    return;
                }
                other => carry_out(&shared, other),
            }
        }
    }
}

async fn wake(at: Option<Time>) {
    match at {
        None => std::future::pending().await,
        Some(at) => tokio::time::sleep(at.since(now())).await,
    }
}

async fn remove(shared: Arc<Shared>, replica: ReplicaId) {
    give::forget(&shared.layout, &replica);
    if shared.components.has(&replica) {
        shared.components.forget(&replica);
        return;
    }
    if let Err(error) = shared.driver.remove(&replica).await {
        tracing::warn!(%replica, %error, "not removed");
    }
}

fn carry_out(shared: &Arc<Shared>, effect: NodeEffect) {
    match effect {
        NodeEffect::Start { spec } => {
            tokio::spawn(start(Arc::clone(shared), spec));
        }
        NodeEffect::Stop { replica, grace } => {
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                if shared.components.has(&replica) {
                    // Out of the routes, it ends with its last request.
                    let exit = wire::shim::Exit::Code(0);
                    let at = now();
                    tell(&shared, DriverEvent::Exited { replica, exit, at }).await;
                    return;
                }
                if let Err(error) = shared.driver.stop(&replica, grace).await {
                    tracing::warn!(%replica, %error, "stop failed");
                }
            });
        }
        NodeEffect::Probe {
            replica,
            kind,
            address,
            check,
            timeout,
        } => {
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                let outcome: ProbeOutcome = shared.driver.probe(address, &check, timeout).await;
                let event = NodeEvent::Probed {
                    replica,
                    kind,
                    outcome,
                };
                let _ = shared.messages.send(Message::Node(event)).await;
            });
        }
        NodeEffect::Publish(snapshot) => {
            publish(shared, snapshot);
        }
        NodeEffect::Record(entry) => record(shared, entry),
        NodeEffect::ServiceSettled { .. }
        | NodeEffect::RolloutFailed { .. }
        | NodeEffect::RestartDone { .. } => settle(shared, effect),
        NodeEffect::FetchContent { .. }
        | NodeEffect::MendContent { .. }
        | NodeEffect::DropContent { .. }
        | NodeEffect::ContentHeldBack { .. } => {
            crate::cluster::content::act::carry_out(shared, effect);
        }
        NodeEffect::Replace { .. }
        | NodeEffect::ReplaceWithin { .. }
        | NodeEffect::Advance { .. } => write_down(shared, effect),
        NodeEffect::Notify { name, standing } => {
            crate::cluster::zones::alerts::notify(shared, name, standing);
        }
        // The loop's own.
        NodeEffect::Remove { .. } | NodeEffect::AllStopped => {}
    }
}

/// What the cluster is to wish from now on.
fn write_down(shared: &Arc<Shared>, effect: NodeEffect) {
    let shared = Arc::clone(shared);
    match effect {
        NodeEffect::Replace { nodes, at_most } => {
            tokio::spawn(crate::apply::repair::replace(shared, nodes, at_most));
        }
        NodeEffect::ReplaceWithin {
            zone,
            epoch,
            nodes,
            at_most,
        } => {
            let its = (zone, epoch);
            tokio::spawn(crate::apply::zone::replace(shared, its, nodes, at_most));
        }
        NodeEffect::Advance {
            service,
            at,
            action,
        } => {
            tokio::spawn(crate::apply::rollouts::advance(shared, service, at, action));
        }
        _ => {}
    }
}

/// Tells who waits for it how something ended.
fn settle(shared: &Shared, effect: NodeEffect) {
    let settlement = match effect {
        NodeEffect::ServiceSettled {
            service,
            generation,
        } => Settlement::Settled {
            service,
            generation,
        },
        NodeEffect::RolloutFailed {
            service,
            generation,
            why,
        } => Settlement::Failed {
            service,
            generation,
            why,
        },
        NodeEffect::RestartDone { service, failed } => Settlement::Restarted { service, failed },
        _ => return,
    };
    let _ = shared.settlements.send(settlement);
}

async fn start(shared: Arc<Shared>, spec: ReplicaSpec) {
    let started = async {
        if let Work::Component(component) = &spec.work {
            shared.components.prepare(&shared, &spec, component).await?;
            let replica = spec.id.clone();
            tell(&shared, DriverEvent::Prepared { replica, at: now() }).await;
            return Ok(());
        }
        shared.driver.prepare(&spec).await?;
        let (mut secrets, capability) = of_replica(&shared, &spec).await?;
        if let Some(capability) = capability {
            let socket = shared.layout.buckets_socket();
            let socket = socket.to_string_lossy().into_owned();
            secrets.0.insert(SOCKET_VARIABLE.to_owned(), socket);
            secrets.0.insert(CAPABILITY_VARIABLE.to_owned(), capability);
        }
        shared.driver.start(&spec.id, secrets).await
    };
    let started: Result<(), DriverError> = started.await;
    if let Err(error) = started {
        let why = match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        let event = DriverEvent::StartFailed {
            replica: spec.id,
            why,
            at: now(),
        };
        tell(&shared, event).await;
    }
}

/// What a replica alone may know: its secrets, and its capability for buckets.
async fn of_replica(
    shared: &Shared,
    spec: &ReplicaSpec,
) -> Result<(Secrets, Option<String>), DriverError> {
    let given = give::of_replica(shared, spec).await;
    let given = given.map_err(|why| DriverError::Failed {
        what: format!("cannot give `{}` what it may know: {why}", spec.id),
        source: None,
    })?;
    Ok((Secrets(given.secrets), given.capability))
}

async fn tell(shared: &Shared, event: DriverEvent) {
    let event = Message::Node(NodeEvent::Driver(event));
    let _ = shared.messages.send(event).await;
}

/// Snapshots of this agent outrank those of the one before, whose counter is
/// lost: versions start at the wall clock's milliseconds.
fn publish(shared: &Shared, mut snapshot: EdgeSnapshot) -> u64 {
    snapshot.certificates = certificates(shared, &snapshot);
    snapshot.identity = shared.cluster.edge_identity();
    snapshot.peers = shared.cluster.edge_peers();
    snapshot.headroom = crate::cluster::zones::headroom(shared);
    snapshot.relays = shared.cluster.relays();
    shared.components.complete(&mut snapshot);
    let last = shared.snapshot.borrow().version;
    snapshot.version = unix_now().0.max(last + 1);
    let version = snapshot.version;
    shared.snapshot.send_replace(Arc::new(snapshot));
    version
}

/// The newest snapshot with the certificates of now, once there is one.
fn publish_again(shared: &Shared) -> Option<u64> {
    let snapshot = EdgeSnapshot::clone(&shared.snapshot.borrow());
    (snapshot.version > 0).then(|| publish(shared, snapshot))
}

/// Our own first, which is shown for a name that none covers; each host that a
/// given one covers is left to that.
fn certificates(shared: &Shared, snapshot: &EdgeSnapshot) -> Vec<CertificateView> {
    let hosts = snapshot.routes.iter().map(|route| route.host.clone());
    let hosts: BTreeSet<String> = hosts.filter(|host| !shared.given.covers(host)).collect();
    let mut all = Vec::new();
    match shared.certificates.show(Use::Sites, &hosts) {
        Ok(own) => all.extend(own.map(|mut own| {
            own.hosts.retain(|host| !shared.given.covers(host));
            own
        })),
        Err(error) => tracing::error!(%error, "no certificate of our own for the edge"),
    }
    all.extend(shared.given.views());
    all
}

pub fn record(shared: &Shared, mut entry: JournalEntry) {
    match &mut entry {
        JournalEntry::Decision(decision) => {
            decision.at_unix = unix_now();
            tracing::info!(
                id = decision.id.0,
                control_loop = decision.control_loop,
                subject = %decision.subject,
                seen = decision.seen,
                decided = decision.decided,
                "decision"
            );
        }
        JournalEntry::Observation(observation) => observation.at_unix = unix_now(),
    }
    if let Err(error) = shared.journal.append(&entry) {
        tracing::error!(%error, "decision not recorded");
    }
}

/// What buckets may take is what was applied last, for old capabilities too.
fn define_buckets(shared: &Shared, desired: &Desired) {
    for (project, applied) in &desired.projects {
        let mut limits = ProjectLimits::default();
        if let Some(quota) = desired.policy(project).bucket_bytes {
            limits.quota = quota;
        }
        let buckets = applied.manifest.buckets.clone();
        shared.buckets.define(project, buckets, limits);
    }
}

/// Follows the store and hands each new desired state to the machine.
pub async fn follow_store(shared: Arc<Shared>) {
    loop {
        let mut desired = match crate::apply::read_desired(&shared.store).await {
            Ok(desired) => desired,
            Err(error) => {
                tracing::error!(%error, "cannot read desired state");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        define_buckets(&shared, &desired);
        crate::cluster::content::ready(&shared, &desired).await;
        shared.links.complete(&shared, &mut desired);
        let event = Message::Node(NodeEvent::Desired(desired.clone()));
        if shared.messages.send(event).await.is_err() {
            return;
        }
        if let Err(error) = follow_jobs(&shared, desired).await {
            tracing::error!(%error, "the watch on desired state ended");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Hands on what becomes of jobs, until something else has changed: then all is
/// read anew, for the heads are few.
async fn follow_jobs(shared: &Shared, mut desired: Desired) -> Result<(), StoreError> {
    let revision = desired.revision;
    let mut heads = shared.store.watch(node::desired::PREFIX, revision).await?;
    let mut jobs = shared
        .store
        .watch(node::desired::JOBS_PREFIX, revision)
        .await?;
    loop {
        tokio::select! {
            // One change or a resync.
            changed = heads.next() => return changed.map(drop),
            changed = jobs.next() => {
                if let WatchEvent::Resync { .. } = changed? {
                    return Ok(());
                }
            }
        }
        let records = crate::apply::jobs::read(&shared.store).await?;
        let records = records
            .into_iter()
            .map(|(name, (record, _))| (name, record));
        desired.jobs = records.collect();
        let event = Message::Node(NodeEvent::Desired(desired.clone()));
        if shared.messages.send(event).await.is_err() {
            return Ok(());
        }
    }
}
