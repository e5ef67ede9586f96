//! What a member must have so that it can lead: the cluster's authorities, and
//! the keys of what its stores have.
//!
//! Holds: only who is wanted as a member is given it, by one who has it; it is
//! kept only if it is of this cluster, sealed or private, before the node says
//! that it has it.

use super::{control, wanted};
use crate::shared::Shared;
use kernel::{NodeId, error_chain};
use net::Authority;
use std::sync::Arc;
use std::time::Duration;
use vault::Vault;
use wire::cluster::{ENTRUST, Entrusted};

const RETRY: Duration = Duration::from_secs(1);
const CALL_MAX: Duration = Duration::from_secs(5);

/// A member's side.
pub async fn give(shared: &Shared, from: NodeId) -> Result<Entrusted, String> {
    let cluster = &shared.cluster;
    let authority = cluster.authority.get().ok_or("this node has none")?;
    let (members, _) = wanted(&shared.control)
        .await
        .map_err(|error| error.to_string())?;
    if !members.has(from) {
        return Err(format!("node {from} is not to be a member"));
    }
    let secrets_key = Vault::cluster_key(&shared.layout.keys());
    let secrets_key = secrets_key.map_err(|error| error_chain(&error))?;
    let sites = shared.certificates.entrusted();
    let (sites_pem, sites_key_pem) = sites.map_err(|error| error_chain(&error))?;
    let etcd = control::outside::read(&shared.layout).map_err(|error| error_chain(&error))?;
    tracing::warn!(node = %from, "entrusted with the cluster's authority and keys");
    Ok(Entrusted {
        authority: authority.to_bytes().to_vec(),
        sites_pem,
        sites_key_pem,
        secrets_key: secrets_key.to_string(),
        buckets_key: shared.buckets.key(),
        etcd,
    })
}

/// Asks for it once this node is to be a member; runs until it has it.
pub async fn keep(shared: Arc<Shared>) {
    let cluster = &shared.cluster;
    let mut members = cluster.members.subscribe();
    while cluster.authority.get().is_none() {
        let own = cluster.own.id;
        if members.wait_for(|members| members.has(own)).await.is_err() {
            return;
        }
        match ask(&shared).await {
            Ok(()) => {
                tracing::info!("this node has what a member of the stores must have");
                cluster.entrusted.send_replace(true);
                return;
            }
            Err(why) => tracing::warn!(why, "not yet a member of the stores"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn ask(shared: &Arc<Shared>) -> Result<(), String> {
    let cluster = &shared.cluster;
    let leader = cluster.lead_known().await.node();
    let leader = leader.ok_or("nobody is known to lead")?;
    let body: Vec<u8> = Vec::new();
    let asked = cluster.transport().call(leader, ENTRUST, body, CALL_MAX);
    let answer = asked.await.map_err(|error| error.to_string())?;
    let given: Entrusted = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
    let shared = Arc::clone(shared);
    let keeping = tokio::task::spawn_blocking(move || take(&shared, &given));
    keeping.await.map_err(|error| error.to_string())?
}

fn take(shared: &Shared, given: &Entrusted) -> Result<(), String> {
    let cluster = &shared.cluster;
    let authority = Authority::from_bytes(&given.authority);
    let authority = authority.map_err(|error| error_chain(&error))?;
    if cluster.kept.root().map_err(|error| error_chain(&error))? != authority.root() {
        return Err("the authority is another cluster's".to_owned());
    }
    Vault::keep_cluster_key(&shared.layout.keys(), &given.secrets_key)
        .map_err(|error| error_chain(&error))?;
    (shared.buckets.entrust(&given.buckets_key)).map_err(|error| error_chain(&error))?;
    (shared.certificates)
        .entrust(&given.sites_pem, &given.sites_key_pem)
        .map_err(|error| error_chain(&error))?;
    if let Some(access) = &given.etcd {
        if !cfg!(feature = "etcd") {
            let url = access.url();
            return Err(control::outside::OutsideError::NotBuilt { url }.to_string());
        }
        control::outside::keep(&cluster.kept, access).map_err(|error| error_chain(&error))?;
    }
    // Last: by it the next start knows that it has everything.
    (cluster.kept.keep_authority(&authority)).map_err(|error| error_chain(&error))?;
    let _ = cluster.authority.set(authority);
    if given.etcd.is_some() && shared.control.kept_in().is_none() {
        tracing::info!("desired state is in an etcd: starts anew, to use it");
        cluster.generation.restart.notify_one();
    }
    Ok(())
}
