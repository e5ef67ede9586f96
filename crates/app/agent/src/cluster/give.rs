//! What a replica alone may know, for replicas on followers: its secrets, its
//! capability for buckets, and the way to them.
//!
//! Holds: a node is given only what a replica placed on it names; a follower's
//! copies are sealed with its own key.
//! Never: gives a value to a node for asking.

use super::{Cluster, stream};
use crate::shared::Shared;
use kernel::{NodeId, ReplicaId, error_chain};
use net::transport::{CallError, Priority, Stream};
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

/// The holder's side.
pub async fn give(shared: &Shared, from: NodeId, replica: &ReplicaId) -> Result<Given, String> {
    let desired = crate::apply::read_desired(&shared.store).await;
    let desired = desired.map_err(|error| error.to_string())?;
    let project = desired.projects.get(&replica.service.project);
    let applied = project.ok_or_else(|| format!("there is no {replica}"))?;
    let service = applied.manifest.services.get(&replica.service.name);
    let service = service.ok_or_else(|| format!("there is no {replica}"))?;
    if applied.share(&replica.service.name, service, from) == 0 {
        return Err(format!("{replica} is not placed on that node"));
    }
    let settings = node::Settings {
        node: from,
        layout: shared.layout.clone(),
        ..node::Settings::default()
    };
    let spec = node::replica_spec(replica.clone(), service, applied, &desired, &settings);
    let secrets = crate::secrets::of_replica(shared, &spec).await;
    let secrets = secrets.map_err(|error| error_chain(&error))?;
    let capability = crate::components::capability(shared, &spec).await;
    Ok(Given {
        secrets: secrets.0,
        capability: capability.map_err(|error| error_chain(&error))?,
    })
}

fn copy_of(layout: &Layout, replica: &ReplicaId) -> PathBuf {
    let name = format!("{replica}.sealed");
    layout.cluster().join("given").join(name)
}

/// What a copy is sealed under.
fn sealed_as(replica: &ReplicaId) -> String {
    format!("given/{replica}")
}

/// The follower's side: from the holder, or what it gave before.
pub async fn ask(
    cluster: &Cluster,
    layout: &Layout,
    holder: NodeId,
    spec: &ReplicaSpec,
) -> Result<Given, String> {
    if spec.secrets.is_empty() && spec.buckets.is_empty() {
        return Ok(Given::default());
    }
    let request = GiveRequest {
        replica: spec.id.clone(),
    };
    let body = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
    let asked = cluster.transport().call(holder, GIVE, body, CALL_MAX);
    match asked.await {
        Ok(body) => {
            let given: Given = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
            if let Err(why) = keep(layout, &spec.id, &body) {
                tracing::warn!(replica = %spec.id, why, "cannot start without the holder later");
            }
            Ok(given)
        }
        Err(CallError::Refused { error, .. }) => Err(String::from_utf8_lossy(&error).into_owned()),
        // A new epoch is the holder's to give: one of two actors would be it.
        Err(error) if spec.singleton => Err(error.to_string()),
        Err(error) => kept(layout, &spec.id).map_err(|_| error.to_string()),
    }
}

fn keep(layout: &Layout, replica: &ReplicaId, given: &[u8]) -> Result<(), String> {
    let path = copy_of(layout, replica);
    let sealed = Vault::open(&layout.keys())
        .and_then(|vault| vault.seal_bytes(&sealed_as(replica), given.to_vec()))
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

/// A follower's socket for buckets: each connection goes to the holder.
pub fn serve_buckets(shared: &Arc<Shared>, holder: NodeId) -> std::io::Result<()> {
    let listener = crate::bind_private(&shared.layout.buckets_socket())?;
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((client, _)) => {
                    let shared = Arc::clone(&shared);
                    tokio::spawn(async move { to_buckets(&shared.cluster, holder, client).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "the buckets' socket accepts nobody");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    });
    Ok(())
}

/// Byte for byte.
async fn to_buckets(cluster: &Cluster, holder: NodeId, mut client: UnixStream) {
    let open = stream(BUCKETS, Priority::Normal);
    // Its client holds its calls and comes back when this connection ends.
    match cluster.transport().open(holder, open).await {
        Ok(mut stream) => drop(copy_bidirectional(&mut client, &mut stream).await),
        Err(error) => tracing::debug!(%error, "the holder's buckets are not reached"),
    }
}

/// The holder's side: as if the replica were here.
pub async fn buckets(shared: &Shared, mut stream: Stream) {
    match UnixStream::connect(shared.layout.buckets_socket()).await {
        Ok(mut socket) => drop(copy_bidirectional(&mut stream, &mut socket).await),
        Err(error) => tracing::warn!(%error, "the buckets' socket is not reached"),
    }
}

/// Forgets what was given to a replica that is gone.
pub fn forget(layout: &Layout, replica: &ReplicaId) {
    let _ = std::fs::remove_file(copy_of(layout, replica));
}
