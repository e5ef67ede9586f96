//! The cluster's stores over the agents' network: who leads, who keeps them, and
//! what only the leader does.
//!
//! Holds: a node acts as the leader only while a majority answers it; what must
//! happen once goes through the store, also where two believe to lead.
//! Never: is needed by what runs and serves already.

pub mod control;
mod entrust;
mod force;
pub mod generation;
mod lead;
pub mod lease;
mod line;
mod tend;
mod uptime;

pub use entrust::{give, keep as keep_entrusted};
pub use force::force_leader;
pub use lead::{Lead, run};
pub use line::{Line, Network};
pub use tend::{let_go, run as tend, status};

use super::{Cluster, Kept};
use crate::shared::Shared;
use kernel::NodeId;
use node::members::{MEMBERS_KEY, Members};
use node::store::{Store, StoreError};
use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;
use wire::cluster::StoreGroup;
use wire::layout::Layout;

const MEMBERS_NOTE: &str = "members.json";

/// The others that keep the cluster's state together with this node, as it was
/// told last; of a node that may not run.
pub fn others_noted(layout: &Layout) -> BTreeSet<NodeId> {
    let kept = Kept::new(layout);
    let noted = kept.note(MEMBERS_NOTE);
    let noted: Option<Members> = noted.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut others = noted.unwrap_or_default().voters;
    if let Ok(Some(own)) = kept.own() {
        others.remove(&own.id);
    }
    others
}

/// Who asks waits so long until somebody leads.
pub const LEAD_MAX: Duration = Duration::from_secs(5);

/// Who is wanted as members, and what was read of it; nobody in a cluster whose
/// leader has not decided yet.
pub async fn wanted(store: &dyn Store) -> Result<(Members, Option<Vec<u8>>), StoreError> {
    let entry = node::store::get(store, MEMBERS_KEY).await?;
    let Some(entry) = entry else {
        return Ok((Members::default(), None));
    };
    let members = serde_json::from_slice(&entry.value)
        .map_err(|error| StoreError::Invalid(format!("{MEMBERS_KEY}: {error}")))?;
    Ok((members, Some(entry.value)))
}

/// How this node keeps a group: the one that the cluster began with is its first
/// member, the others are let in.
pub fn kept_with(is_first: bool, network: &Network, group: StoreGroup) -> store::Group {
    let line: Arc<dyn store::Carry> = Arc::new(Line {
        network: Arc::clone(network),
        group,
    });
    if is_first {
        store::Group::First(line)
    } else {
        store::Group::Joining(line)
    }
}

/// A member's question to the one on this node. A store that nobody has let in yet
/// would believe whoever speaks first: only those are heard that the leader named.
pub async fn answer(shared: &Shared, from: NodeId, body: &[u8]) -> Result<Vec<u8>, String> {
    if !shared.cluster.trusted().contains(&from) {
        return Err(format!("node {from} is not known as a member here"));
    }
    let (group, body) = body.split_first().ok_or("an empty question")?;
    match StoreGroup::of_byte(*group) {
        Some(StoreGroup::Control) => shared.control.answer(from, body).await,
        Some(StoreGroup::Buckets) => Ok(shared.buckets.store().answer(from, body).await),
        None => Err(format!("there is no group {group}")),
    }
}

impl Cluster {
    pub fn lead(&self) -> Lead {
        *self.lead.borrow()
    }

    pub fn leads(&self) -> bool {
        self.lead() == Lead::Here
    }

    /// As soon as it is known; unknown after [`LEAD_MAX`].
    pub async fn lead_known(&self) -> Lead {
        self.lead_within(LEAD_MAX).await
    }

    pub async fn lead_within(&self, at_most: Duration) -> Lead {
        let mut lead = self.lead.subscribe();
        let known = lead.wait_for(|lead| *lead != Lead::Unknown);
        match tokio::time::timeout(at_most, known).await {
            Ok(Ok(lead)) => *lead,
            Ok(Err(_)) | Err(_) => Lead::Unknown,
        }
    }

    /// Until another node than `before` is known to lead. Safe to drop.
    pub async fn led_by_another(&self, before: NodeId) {
        let mut lead = self.lead.subscribe();
        let other = |lead: &Lead| *lead != Lead::Unknown && *lead != Lead::At(before);
        if lead.wait_for(other).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Until it is another than `before`. Safe to drop.
    pub async fn lead_changes(&self, before: Lead) {
        let mut lead = self.lead.subscribe();
        let _ = lead.wait_for(|lead| *lead != before).await;
    }

    pub(super) fn set_lead(&self, now: Lead) {
        self.generation.lead_is_known(now != Lead::Unknown);
        if let Lead::Here | Lead::At(_) = now {
            let node = now.node().unwrap_or(self.own.id);
            self.led_last.send_if_modified(|last| {
                let news = *last != node;
                *last = node;
                news
            });
        }
        let own = self.own.id;
        self.lead.send_if_modified(|lead| {
            let news = *lead != now;
            if news {
                tracing::info!(node = %own, ?now, "the control group's leader");
            }
            *lead = now;
            news
        });
    }

    /// It does not say that it leads any more.
    pub(super) fn lost(&self, node: NodeId) {
        self.lead.send_if_modified(|lead| {
            let led = *lead == Lead::At(node);
            if led {
                *lead = Lead::Unknown;
                self.generation.lead_is_known(false);
            }
            led
        });
    }

    /// Who leads, or did as far as it was ever known here.
    pub fn led_last(&self) -> NodeId {
        *self.led_last.borrow()
    }

    /// Whether this node has what a member must have.
    pub fn is_entrusted(&self) -> bool {
        self.authority.get().is_some()
    }

    /// Whether this node is one of those who lead, and has what that takes.
    fn may_lead(&self) -> bool {
        let members = self.members.borrow();
        // In a cluster's first moments nobody is chosen yet.
        let is_first = members.voters.is_empty() && self.own.holder.is_none();
        self.is_entrusted() && (is_first || members.has(self.own.id))
    }

    /// Those who keep the stores, as far as this node was told.
    pub fn members(&self) -> Members {
        self.members.borrow().clone()
    }

    /// For whoever restores a backup while the node does not run.
    pub(super) fn note_members(&self, members: &Members) {
        let bytes = serde_json::to_vec(members).unwrap_or_default();
        if let Err(error) = self.kept.keep_note(MEMBERS_NOTE, &bytes) {
            tracing::warn!(%error, "who keeps the cluster's state is not noted down");
        }
    }

    fn leaving(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose word counts in what concerns the whole cluster.
    pub fn trusted(&self) -> BTreeSet<NodeId> {
        let mut trusted = self.members.borrow().all();
        trusted.insert(self.led_last());
        trusted.extend(self.generation.raised.as_ref().map(|raised| raised.by));
        trusted
    }
}
