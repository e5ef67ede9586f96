//! Notices who leads the control group, and does here what its leader does for as
//! long as that is this node.

use super::super::{follow, observe, zones};
use super::{generation, tend};
use crate::apply::{jobs, repair, rollouts, settling};
use crate::shared::Shared;
use kernel::NodeId;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// A leader that hears no majority is noticed this long after.
const LOOK: Duration = Duration::from_millis(200);
/// How long this node goes on as the leader when no majority is heard.
const DOUBT_MAX: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    Here,
    At(NodeId),
    /// Nobody, as far as this node can tell.
    Unknown,
}

impl Lead {
    /// Whether `node` leads, asked on the node `own`.
    pub fn is(self, node: NodeId, own: NodeId) -> bool {
        match self {
            Self::Here => node == own,
            Self::At(leader) => node == leader,
            Self::Unknown => false,
        }
    }

    /// Where that is another one.
    pub fn node(self) -> Option<NodeId> {
        match self {
            Self::At(node) => Some(node),
            Self::Here | Self::Unknown => None,
        }
    }
}

/// Runs for ever.
pub async fn run(shared: Arc<Shared>) {
    let cluster = &shared.cluster;
    let mut led: Option<JoinSet<()>> = None;
    let mut doubted: Option<Instant> = None;
    generation::ask_before_leading(&shared).await;
    loop {
        shared.control.may_lead(cluster.may_lead());
        let members = shared.control.members();
        let votes = members.voters.contains(&cluster.own.id);
        match members.leader.filter(|_| votes) {
            Some(leader) if leader == cluster.own.id => cluster.set_lead(Lead::Here),
            Some(leader) => cluster.set_lead(Lead::At(leader)),
            None if cluster.leads() => {
                // Members that have just changed have not answered yet.
                let since = *doubted.get_or_insert_with(Instant::now);
                if since.elapsed() >= DOUBT_MAX {
                    cluster.set_lead(Lead::Unknown);
                }
            }
            // Whoever does not vote, or does no more and was not told, hears of
            // the leader by following it.
            None => {}
        }
        if members.leader.is_some() {
            doubted = None;
        }
        if cluster.leads() {
            if led.is_none() {
                led = Some(begin(&shared));
            }
        } else if led.take().is_some() {
            tracing::warn!("this node leads the control group no more");
            zones::alerts::rest(&shared).await;
        }
        shared.control.members_changed(LOOK).await;
    }
}

/// What ends with the leadership: the root's seat.
fn begin(shared: &Arc<Shared>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    shared.cluster.seats.begin();
    tasks.spawn(follow::mirror_here(Arc::clone(shared)));
    tasks.spawn(tend::choose(Arc::clone(shared)));
    tasks.spawn(observe::moves(Arc::clone(shared)));
    tasks.spawn(super::uptime::watch(Arc::clone(shared)));
    tasks.spawn(zones::aggregates::keep(Arc::clone(shared)));
    tasks.spawn(settling::take_back_unattended(Arc::clone(shared)));
    tasks.spawn(zones::alerts::run(Arc::clone(shared)));
    tasks.spawn(repair::run(Arc::clone(shared)));
    tasks.spawn(rollouts::run(Arc::clone(shared)));
    let granting = super::lease::Granting::default();
    tasks.spawn(super::lease::grant(
        Arc::clone(shared),
        Arc::clone(&granting),
    ));
    tasks.spawn(jobs::run(Arc::clone(shared), granting));
    tasks
}
