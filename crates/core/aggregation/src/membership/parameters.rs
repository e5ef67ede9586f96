//! How often, how long, how many: chosen together, so change them together.
//!
//! A silent node is found by the first of its neighbours that probes it: with
//! one probe a node each `probe_interval`, in shuffled rounds, that takes one
//! interval in the mean and under five in 99 of 100. A direct and an indirect
//! try follow (a quarter and half a second at first, then by measured round
//! trips), then a suspicion of `suspicion_min`, which three independent
//! confirmations allow; those who hear of it probe at once, to confirm or to
//! clear. In the sum a death is known in under four seconds, two and a half in the mean.
//!
//! A ping and its answer each `probe_interval`, both ways, are about 13 small
//! datagrams a second sent and as many received; in a quiet cluster that is all but
//! one exchange of hashes each `entropy_interval`.

use std::time::Duration;

/// Attributes that change each 20 s cost each node so about 3 KB/s.
pub const WHOLE_MAX: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Between two probes of this node; grows with its local health's score.
    pub probe_interval: Duration,
    /// For an answer while no round trip was measured.
    pub answer_first: Duration,
    /// Bounds of the wait for an answer, by measured round trips.
    pub answer_min: Duration,
    pub answer_max: Duration,
    /// How many are asked to ping a node that did not answer.
    pub relays: usize,
    /// From suspicion to death once `confirmations` others agree; it grows with
    /// the digits of the cluster's size beyond 32.
    pub suspicion_min: Duration,
    /// The same while nobody agrees.
    pub suspicion_max: Duration,
    /// At most 3.
    pub confirmations: usize,
    /// The worst score of local health; the waits grow up to this and one.
    pub health_max: u32,
    /// Fresh news wait this long for others to travel with.
    pub coalesce: Duration,
    /// Between two tellings of the same news.
    pub gossip_interval: Duration,
    /// How many are told then.
    pub fanout: usize,
    /// How often news is told on where all know all; times the digits of the
    /// cluster's size elsewhere.
    pub retransmissions: u32,
    /// Between two comparisons with a random neighbour, once they have found
    /// nothing for a while.
    pub entropy_interval: Duration,
    /// Between them while they find something; from there it doubles.
    pub entropy_again: Duration,
    /// Packets a second that comparisons may answer with.
    pub entropy_rate: u32,
    /// Between two tries of this node to reach the dead and the unheard.
    pub knock_interval: Duration,
    /// So long after its start, what a node hears of the unheard it keeps to
    /// itself.
    pub young: Duration,
    /// How long a leaving node tells.
    pub leave: Duration,
    /// Whoever is woken this much too late has slept itself, and judges nobody
    /// by it.
    pub late: Duration,
    /// In a cluster up to this size all know all.
    pub whole_max: usize,
    /// A leaf zone up to this size is a full mesh.
    pub full_mesh_max: usize,
    /// Nodes on each side that keep two zones together.
    pub links: usize,
}

impl Default for Parameters {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            probe_interval: ms(500),
            answer_first: ms(250),
            answer_min: ms(100),
            answer_max: ms(500),
            relays: 3,
            suspicion_min: ms(1_600),
            suspicion_max: ms(3_200),
            confirmations: 3,
            health_max: 8,
            coalesce: ms(10),
            gossip_interval: ms(100),
            fanout: 2,
            retransmissions: 3,
            entropy_interval: ms(10_000),
            entropy_again: ms(300),
            entropy_rate: 200,
            knock_interval: ms(1_000),
            young: ms(2_000),
            leave: ms(400),
            late: ms(100),
            whole_max: WHOLE_MAX,
            full_mesh_max: 32,
            links: 3,
        }
    }
}
