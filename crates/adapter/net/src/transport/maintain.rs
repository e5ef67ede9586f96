//! Looks after living connections: superfluous ones, ended certificates.
//!
//! Holds: only who dialled a superfluous connection ends it, and only when
//! nothing has run on it for two looks.

use super::{Inner, code, relay, reverse};
use crate::tls::Purpose;
use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(1);

pub(super) async fn run(inner: Weak<Inner>) {
    let mut ticks = tokio::time::interval(EVERY);
    let mut idle_before = BTreeSet::new();
    loop {
        ticks.tick().await;
        let Some(inner) = inner.upgrade() else {
            return;
        };
        idle_before = look(&inner, &idle_before);
        relay::keep(&inner);
    }
}

/// Returns the superfluous connections on which nothing ran.
fn look(inner: &Inner, idle_before: &BTreeSet<usize>) -> BTreeSet<usize> {
    let now = (inner.trust.clock())();
    let mut idle = BTreeSet::new();
    let links = inner.peers().all_links();
    for link in links.iter().filter(|link| link.is_open()) {
        if now > inner.trust.accepted_until(link.not_after) {
            link.close(code::EXPIRED);
            continue;
        }
        if !link.dialled || !link.is_idle() || !inner.peers().is_superseded(link) {
            continue;
        }
        let id = link.connection.stable_id();
        if idle_before.contains(&id) {
            link.close(code::SUPERSEDED);
        } else {
            idle.insert(id);
        }
    }
    idle
}

/// Dials anew where the own renewed certificate makes a connection last longer.
pub(super) fn refresh(inner: &Arc<Inner>) {
    let own = inner.own.load().not_after;
    let mut peers = inner.peers();
    let mut wanted = BTreeSet::new();
    for link in peers.all_links() {
        if own.min(link.not_after) > link.rank().first_end {
            wanted.insert((link.identity.node, link.purpose));
        }
    }
    wanted.retain(|(_, purpose)| *purpose != Purpose::Join);
    for (node, purpose) in wanted {
        match peers.redial(node, purpose) {
            Some(addresses) => inner.dial(node, purpose, addresses),
            // One that we cannot dial dials us.
            None => drop(tokio::spawn(reverse::ask(inner.clone(), node, purpose))),
        }
    }
}
