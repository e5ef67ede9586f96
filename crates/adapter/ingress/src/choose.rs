//! Which replica a request is given to.
//!
//! Holds: those on this node come first; another node's are chosen when none
//! here takes the request, by requests in flight, distance and how much its
//! zone has free, and never on an edge that has seen it, nor beyond the last
//! hop.

use crate::peer::PeerState;
use crate::pool::{EndpointState, Place};
use crate::server::Ingress;
use kernel::{NodeId, ReplicaId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What a node whose distance is not known is taken to be away, and what a
/// request costs there besides.
const USUAL: Duration = Duration::from_millis(1);

/// A node that says it has less free is not believed to be slower for it.
const HEADROOM_LEAST: f64 = 0.02;

/// How a request came here, and what it has met.
#[derive(Default)]
pub struct Way {
    pub tried: Vec<Arc<EndpointState>>,
    /// What another edge wants.
    pub wanted: Option<ReplicaId>,
    /// Edges that have seen it; this one's clients' requests have seen none.
    pub via: Vec<NodeId>,
    /// No other edge may see it.
    pub ends_here: bool,
}

impl Way {
    fn untried(&self, endpoint: &Arc<EndpointState>) -> bool {
        !self.tried.iter().any(|known| Arc::ptr_eq(known, endpoint))
    }

    /// Whether the request may go there at all, now or later.
    pub fn leads_to(&self, endpoint: &EndpointState) -> bool {
        match &endpoint.place {
            Place::Peer(peer) => !self.ends_here && !self.via.contains(&peer.node),
            _ => true,
        }
    }
}

pub fn choose(
    ingress: &Ingress,
    endpoints: &[Arc<EndpointState>],
    way: &Way,
) -> Option<Arc<EndpointState>> {
    if let [only] = endpoints
        && only.is_local()
    {
        let free = way.tried.is_empty() && only.has_room();
        return free.then(|| Arc::clone(only));
    }
    let untried = |endpoint: &&Arc<EndpointState>| {
        endpoint.is_local() && endpoint.has_room() && way.untried(endpoint)
    };
    let well = |endpoint: &&Arc<EndpointState>| untried(endpoint) && !endpoint.is_paused();
    if let Some(wanted) = &way.wanted {
        let found = endpoints.iter().filter(well);
        let found = found.into_iter().find(|one| one.replica == *wanted);
        if found.is_some() {
            return found.cloned();
        }
    }
    less_busy(endpoints, well, &ingress.dice)
        .or_else(|| elsewhere(ingress, endpoints, way))
        .or_else(|| endpoints.iter().find(untried).cloned())
}

/// The less busy of two, drawn from those with room that neither were tried nor
/// failed just now.
fn less_busy(
    endpoints: &[Arc<EndpointState>],
    well: impl Fn(&&Arc<EndpointState>) -> bool,
    dice: &AtomicU64,
) -> Option<Arc<EndpointState>> {
    let count = endpoints.iter().filter(&well).count();
    if count == 0 {
        return None;
    }
    let draw = draw(dice);
    let first = usize::try_from(draw >> 33).unwrap_or(0) % count;
    let second = (first + 1 + usize::try_from(draw & 0xffff).unwrap_or(0) % count.max(2)) % count;
    let first = endpoints.iter().filter(&well).nth(first);
    let second = endpoints.iter().filter(&well).nth(second);
    first
        .into_iter()
        .chain(second)
        .min_by_key(|endpoint| endpoint.in_flight.load(Relaxed))
        .cloned()
}

fn elsewhere(
    ingress: &Ingress,
    endpoints: &[Arc<EndpointState>],
    way: &Way,
) -> Option<Arc<EndpointState>> {
    let cost = |endpoint: &Arc<EndpointState>, peer: &PeerState| {
        let away = ingress.peers.round_trip(peer.node);
        cost(endpoint.in_flight.load(Relaxed), away, peer.headroom())
    };
    let candidates = endpoints.iter().filter_map(|endpoint| {
        let Place::Peer(peer) = &endpoint.place else {
            return None;
        };
        let may = way.leads_to(endpoint) && way.untried(endpoint);
        let open = may && !endpoint.is_paused() && peer.admits();
        open.then(|| (cost(endpoint, peer), endpoint))
    });
    let best = candidates.min_by_key(|(cost, _)| *cost);
    best.map(|(_, endpoint)| Arc::clone(endpoint))
}

/// Requests before it, each as long as the way there and what it costs there,
/// which is more where little is free.
fn cost(in_flight: usize, away: Option<Duration>, headroom: f64) -> Duration {
    let there = USUAL.mul_f64(1.0 / headroom.clamp(HEADROOM_LEAST, 1.0));
    let each = away.unwrap_or(USUAL) + there;
    each.saturating_mul(u32::try_from(in_flight + 1).unwrap_or(u32::MAX))
}

/// `SplitMix64` over a shared counter: needs no lock, and no good randomness.
pub fn draw(dice: &AtomicU64) -> u64 {
    let mut z = dice.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_node_is_preferred_until_it_is_much_busier() {
        let near = Some(Duration::from_millis(1));
        let far = Some(Duration::from_millis(39));
        assert!(cost(0, near, 1.0) < cost(0, far, 1.0));
        assert!(cost(18, near, 1.0) < cost(0, far, 1.0));
        assert!(cost(20, near, 1.0) > cost(0, far, 1.0));
        assert!(cost(1, None, 1.0) > cost(0, None, 1.0));
    }

    #[test]
    fn full_zone_is_passed_over_for_a_free_one_that_is_not_much_farther() {
        let near = Some(Duration::from_millis(5));
        let far = Some(Duration::from_millis(25));
        assert!(cost(0, near, 0.5) < cost(0, far, 0.5));
        assert!(cost(0, near, 0.02) > cost(0, far, 0.5));
        let very_far = Some(Duration::from_millis(100));
        assert!(cost(0, near, 0.0) < cost(0, very_far, 1.0));
    }
}
