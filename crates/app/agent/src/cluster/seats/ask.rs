//! A node's side: asks for its zone's seat, over and over, where it is to.
//!
//! Holds: one ask is under way at a time. An older leader does not know the question:
//! then nobody holds a zone's seat, and that leader does everything.

use super::{call, give};
use crate::cluster::group::Lead;
use crate::machine::now;
use crate::shared::Shared;
use aggregation::membership::Reach;
use node::seats::{self, ASK_EVERY, Answer, Ask, Holder};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use wire::cluster::SEAT;

/// A later answer is of little use.
const ASK_MAX: Duration = Duration::from_secs(1);

/// On each node; runs for ever.
pub async fn run(shared: Arc<Shared>) {
    let mut holder = Holder::default();
    let mut asks = tokio::time::interval(ASK_EVERY);
    asks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = asks.tick() => {}
            () = shared.cluster.seats.soon.notified() => {}
        }
        ask(&shared, &mut holder).await;
        let held = holder.held(now()).cloned();
        shared.cluster.seats.holds(held);
    }
}

async fn ask(shared: &Arc<Shared>, holder: &mut Holder) {
    let cluster = &shared.cluster;
    let own = cluster.own.id;
    let nodes = cluster.nodes.borrow().clone();
    let seated = cluster.zones.seated(&nodes);
    let zone = cluster.zones.leaf_of(&nodes, own);
    let its = zone.and_then(|zone| Some((seated.get(&zone)?, zone)));
    let Some((able, zone)) = its else {
        holder.let_go();
        return;
    };
    let is_alive = |node| cluster.reach(node) == Reach::Alive;
    if !seats::asks(own, able, holder.keeps(&zone), is_alive) {
        return;
    }
    let ask = Ask {
        zone: zone.clone(),
        left: super::locked(&cluster.seats.lost).left(now()),
    };
    let asked = now();
    let answer: Result<Answer, String> = match cluster.lead() {
        Lead::Here => give::answer(shared, own, &ask).await,
        Lead::At(leader) => call(cluster, (leader, SEAT), &ask, ASK_MAX).await,
        Lead::Unknown => return,
    };
    match answer {
        Ok(answer) => holder.answered(&zone, asked, answer),
        Err(why) => tracing::debug!(%zone, why, "the zone's seat is not answered for"),
    }
}
