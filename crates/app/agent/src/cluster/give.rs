//! What a replica alone may know: its secrets, its capability for buckets; and the
//! way to buckets.
//!
//! Holds: a node is given only what a replica placed on it names; a follower's
//! copies are sealed with its own key.
//! Never: gives a value to a node for asking.

use super::group::Lead;
use super::{Cluster, stream};
use crate::shared::Shared;
use kernel::{NodeId, ReplicaId, error_chain};
use net::transport::{CallError, Priority, Stream};
use node::attempts::{attempt_id, attempt_spec};
use node::desired::{Applied, Desired};
use node::driver::ReplicaSpec;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::UnixStream;
use vault::Vault;
use wire::cluster::{BUCKETS, GIVE, GiveRequest, Given};
use wire::layout::Layout;

const CALL_MAX: Duration = Duration::from_secs(5);
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// What is remembered of buckets' clients is looked through so often.
const SWEEP: Duration = Duration::from_mins(1);

/// The leader's side.
pub async fn give(shared: &Shared, from: NodeId, replica: &ReplicaId) -> Result<Given, String> {
    if !shared.cluster.leads() {
        return Err("this node does not lead".to_owned());
    }
    let desired = crate::apply::read_desired(&shared.control).await;
    let desired = desired.map_err(|error| error.to_string())?;
    let project = desired.projects.get(&replica.service.project);
    let applied = project.ok_or_else(|| format!("there is no {replica}"))?;
    let settings = node::Settings {
        node: from,
        layout: shared.layout.clone(),
        ..node::Settings::default()
    };
    let spec = placed(&desired, applied, replica, from, &settings)?;
    let secrets = crate::secrets::of_replica(shared, &spec).await;
    let secrets = secrets.map_err(|error| error_chain(&error))?;
    let capability = crate::components::capability(shared, &spec).await;
    Ok(Given {
        secrets: secrets.0,
        capability: capability.map_err(|error| error_chain(&error))?,
    })
}

/// What is placed on a node, and may know what it names.
fn placed(
    desired: &Desired,
    applied: &Applied,
    replica: &ReplicaId,
    on: NodeId,
    settings: &node::Settings,
) -> Result<ReplicaSpec, String> {
    let elsewhere = || format!("{replica} is not placed on that node");
    let name = &replica.service;
    let before = applied.as_before(&name.name).filter(|before| {
        let generation = before.generations.get(&name.name);
        generation == Some(&replica.generation)
    });
    let applied = before.as_ref().unwrap_or(applied);
    if let Some(service) = applied.manifest.services.get(&name.name) {
        if applied.share(&name.name, service, on) == 0 {
            return Err(elsewhere());
        }
        let id = replica.clone();
        return Ok(node::replica_spec(id, service, applied, desired, settings));
    }
    let job = desired
        .job(name)
        .ok_or_else(|| format!("there is no {replica}"))?;
    let record = desired.jobs.get(name).ok_or_else(elsewhere)?;
    let mut attempts = record.attempts();
    let attempt = attempts.find(|(.., it)| it.node == on && attempt_id(name, it) == *replica);
    let attempt = attempt.ok_or_else(elsewhere)?;
    Ok(attempt_spec(
        replica.clone(),
        attempt,
        job,
        desired,
        settings,
    ))
}

fn copy_of(layout: &Layout, replica: &ReplicaId) -> PathBuf {
    let name = format!("{replica}.sealed");
    layout.cluster().join("given").join(name)
}

/// What a copy is sealed under.
fn sealed_as(replica: &ReplicaId) -> String {
    format!("given/{replica}")
}

/// What a replica on this node may know: from the leader, or what one gave before.
pub async fn of_replica(shared: &Shared, spec: &ReplicaSpec) -> Result<Given, String> {
    if spec.secrets.is_empty() && spec.buckets.is_empty() {
        return Ok(Given::default());
    }
    let cluster = &shared.cluster;
    let given = match cluster.lead_known().await {
        Lead::Here => give(shared, cluster.own.id, &spec.id).await,
        Lead::At(leader) => match ask(cluster, leader, spec).await {
            Err(CallError::Refused { error, .. }) => {
                return Err(String::from_utf8_lossy(&error).into_owned());
            }
            other => other.map_err(|error| error.to_string()),
        },
        Lead::Unknown => Err("nobody is known to lead".to_owned()),
    };
    match given {
        Ok(given) => {
            if let Err(why) = keep(&shared.layout, &spec.id, &given) {
                tracing::warn!(replica = %spec.id, why, "cannot start without a leader later");
            }
            Ok(given)
        }
        // A new epoch is the leader's to give: one of two actors would be it.
        Err(error) if spec.singleton => Err(error),
        Err(error) => kept(&shared.layout, &spec.id).map_err(|_| error),
    }
}

async fn ask(cluster: &Cluster, leader: NodeId, spec: &ReplicaSpec) -> Result<Given, CallError> {
    let request = GiveRequest {
        replica: spec.id.clone(),
    };
    // Of names and numbers, which JSON has.
    let body = serde_json::to_vec(&request).unwrap_or_default();
    let asked = cluster.transport().call(leader, GIVE, body, CALL_MAX);
    let answer = asked.await?;
    serde_json::from_slice(&answer).map_err(|error| CallError::Refused {
        node: leader,
        error: error.to_string().into_bytes().into(),
    })
}

fn keep(layout: &Layout, replica: &ReplicaId, given: &Given) -> Result<(), String> {
    let path = copy_of(layout, replica);
    let given = serde_json::to_vec(given).map_err(|error| error.to_string())?;
    let sealed = Vault::open(&layout.keys())
        .and_then(|vault| vault.seal_bytes(&sealed_as(replica), given))
        .map_err(|error| error.to_string())?;
    let directory = path.parent().unwrap_or(&layout.root);
    std::fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    crate::tls::write_private(&path, &sealed).map_err(|error| error.to_string())
}

fn kept(layout: &Layout, replica: &ReplicaId) -> Result<Given, String> {
    let path = copy_of(layout, replica);
    let sealed = std::fs::read(&path).map_err(|error| error.to_string())?;
    let opened = Vault::read(&layout.keys())
        .and_then(|vault| vault.open_bytes(&sealed_as(replica), &sealed))
        .map_err(|error| error.to_string())?;
    serde_json::from_slice(&opened).map_err(|error| error.to_string())
}

/// This node's socket for buckets: each connection is served here while this node
/// leads, and goes to the leader otherwise. It ends when another one leads; its
/// client holds its calls and comes back.
pub fn serve_buckets(shared: &Arc<Shared>) -> std::io::Result<()> {
    let listener = crate::bind_private(&shared.layout.buckets_socket())?;
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((client, _)) => {
                        tokio::spawn(serve_client(Arc::clone(&shared), client));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the buckets' socket accepts nobody");
                        tokio::time::sleep(ACCEPT_AGAIN).await;
                    }
                },
                _ = sweep.tick(), if shared.cluster.leads() => shared.buckets.forget().await,
            }
        }
    });
    Ok(())
}

async fn serve_client(shared: Arc<Shared>, client: UnixStream) {
    let cluster = &shared.cluster;
    let lead = cluster.lead_known().await;
    tokio::select! {
        () = cluster.lead_changes(lead) => {}
        () = async {
            match lead {
                Lead::Here => shared.buckets.serve(ipc::Connection::new(client)).await,
                Lead::At(leader) => to_buckets(cluster, leader, client).await,
                Lead::Unknown => {}
            }
        } => {}
    }
}

/// Byte for byte.
async fn to_buckets(cluster: &Cluster, leader: NodeId, mut client: UnixStream) {
    let open = stream(BUCKETS, Priority::Normal);
    match cluster.transport().open(leader, open).await {
        Ok(mut stream) => drop(copy_bidirectional(&mut client, &mut stream).await),
        Err(error) => tracing::debug!(%error, "the leader's buckets are not reached"),
    }
}

/// The leader's side: as if the replica were here.
pub async fn buckets(shared: &Shared, mut stream: Stream) {
    // Passed on once: whoever asked comes back, and asks another.
    if !shared.cluster.leads() {
        return;
    }
    match UnixStream::connect(shared.layout.buckets_socket()).await {
        Ok(mut socket) => drop(copy_bidirectional(&mut stream, &mut socket).await),
        Err(error) => tracing::warn!(%error, "the buckets' socket is not reached"),
    }
}

/// Forgets what was given to a replica that is gone.
pub fn forget(layout: &Layout, replica: &ReplicaId) {
    let _ = std::fs::remove_file(copy_of(layout, replica));
}
