//! Certificates of a day, renewed long before they end, and when the node is put
//! into another zone.
//!
//! Holds: a node that nobody certifies keeps what it has, and tries on; a new
//! certificate is on disk before it is shown.

use super::{Cluster, Kept, join};
use crate::machine::unix_now;
use crate::shared::Shared;
use kernel::NodeId;
use net::{Credentials, PublicKey};
use node::nodes::NodeTable;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use wire::cluster::{CERTIFY, Certified, CertifyRequest};
use wire::edge::PeerIdentity;
use wire::net::Kind;

/// With less than this left, another one is asked for.
const LEFT_MIN: Duration = Duration::from_hours(16);
const LOOK: Duration = Duration::from_mins(5);
const RETRY: Duration = Duration::from_secs(10);
const CALL_MAX: Duration = Duration::from_secs(10);

/// Runs for ever.
pub async fn run(shared: Arc<Shared>) {
    let mut nodes = shared.cluster.nodes.subscribe();
    loop {
        let _ = nodes.borrow_and_update();
        let wait = match look(&shared).await {
            Ok(()) => LOOK,
            Err(why) => {
                tracing::warn!(why, "this node's certificates are not renewed");
                RETRY
            }
        };
        let _ = tokio::time::timeout(wait, until_moved(&shared, &mut nodes)).await;
    }
}

/// Until the table says that this node is where its certificates do not.
async fn until_moved(shared: &Shared, nodes: &mut watch::Receiver<Arc<NodeTable>>) {
    let agent = shared.cluster.kept.credentials(Kind::Agent);
    while nodes.changed().await.is_ok() {
        let agent = agent.as_ref();
        if agent.is_ok_and(|agent| is_elsewhere(&shared.cluster, agent)) {
            return;
        }
    }
    std::future::pending::<()>().await;
}

fn is_elsewhere(cluster: &Cluster, credentials: &Credentials) -> bool {
    let record = cluster.record(cluster.own.id);
    let view = credentials.view();
    record.is_some_and(|record| view.is_ok_and(|view| view.identity.zone != record.zone))
}

fn ends_soon(credentials: &Credentials) -> bool {
    let left = credentials
        .view()
        .map_or(0, |view| view.not_after.0.saturating_sub(unix_now().0));
    u128::from(left) < LEFT_MIN.as_millis()
}

async fn look(shared: &Shared) -> Result<(), String> {
    let cluster = &shared.cluster;
    let text = |error: super::KeptError| error.to_string();
    let agent = cluster.kept.credentials(Kind::Agent).map_err(text)?;
    let edge = cluster.kept.credentials(Kind::Edge).map_err(text)?;
    let is_due = |one: &Credentials| ends_soon(one) || is_elsewhere(cluster, one);
    if !is_due(&agent) && !is_due(&edge) {
        return Ok(());
    }
    let request = CertifyRequest {
        agent_key: agent.key.public().0,
        edge_key: edge.key.public().0,
    };
    let certified = if cluster.is_entrusted() {
        certify(cluster, cluster.own.id, &request)?
    } else {
        let leader = cluster.lead_known().await.node();
        let leader = leader.ok_or("nobody is known to lead")?;
        let body = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
        let transport = cluster.transport();
        let answer = transport.call(leader, CERTIFY, body, CALL_MAX);
        let answer = answer.await.map_err(|error| error.to_string())?;
        serde_json::from_slice(&answer).map_err(|error| error.to_string())?
    };
    for (kind, chain) in [
        (Kind::Agent, &certified.agent),
        (Kind::Edge, &certified.edge),
    ] {
        cluster.kept.keep_chain(kind, chain).map_err(text)?;
    }
    let renewed = cluster.kept.credentials(Kind::Agent).map_err(text)?;
    let shown = cluster.transport().set_credentials(&renewed);
    shown.map_err(|error| error.to_string())?;
    let edge = edge_identity(&cluster.kept, cluster.own.id);
    cluster.edge_identity.send_replace(edge);
    super::observe::publish(shared).await;
    tracing::info!("certificates renewed");
    Ok(())
}

/// For a node that belongs, its agent's with the key it joined with.
pub fn certify(
    cluster: &Cluster,
    node: NodeId,
    request: &CertifyRequest,
) -> Result<Certified, String> {
    let record = cluster.record(node).ok_or("the node is not known")?;
    let (agent, edge) = (PublicKey(request.agent_key), PublicKey(request.edge_key));
    if agent.fingerprint() != record.key {
        return Err("the node joined with another key".to_owned());
    }
    Ok(Certified {
        agent: join::issue(cluster, Kind::Agent, &record, &agent)?.chain,
        edge: join::issue(cluster, Kind::Edge, &record, &edge)?.chain,
    })
}

/// What the edge shows to others; none where that cannot be read.
pub fn edge_identity(kept: &Kept, node: NodeId) -> Option<PeerIdentity> {
    let credentials = kept.credentials(Kind::Edge);
    let credentials = credentials
        .inspect_err(|error| tracing::error!(%error, "the edge has no certificate for others"))
        .ok()?;
    let pem = |label, der: &[u8]| pem::encode(&pem::Pem::new(label, der));
    let chain = credentials.chain.iter();
    Some(PeerIdentity {
        node,
        chain_pem: chain.map(|der| pem("CERTIFICATE", der)).collect(),
        key_pem: pem("PRIVATE KEY", &credentials.key.to_pkcs8()),
        root_pem: pem("CERTIFICATE", &credentials.root),
    })
}
