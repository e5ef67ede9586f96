//! How often, how long, how many: chosen together, so change them together.
//!
//! A row that changed waits `coalesce` at each step for others to travel with;
//! one that did not is confirmed each `beat_interval`, and beats wait
//! `beat_hold` at each step, so that one packet carries many. Five steps of a
//! beat and its interval are under `unknown_after`, with one loss on the way.

use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Fresh rows wait this long at each step.
    pub coalesce: Duration,
    /// Beats wait this long at each step, unless a row goes the same way.
    pub beat_hold: Duration,
    /// Acknowledgements wait this long.
    pub ack_hold: Duration,
    /// A copy for another representative, who should have its own, waits
    /// between this and three times this for a sign of it.
    pub spare_hold: Duration,
    pub beat_interval: Duration,
    /// That one signature covers.
    pub beats: u16,
    /// A zone of which nothing was heard for so long is unknown.
    pub unknown_after: Duration,
    /// A zone whose leader is silent for so long is led by the next …
    pub takeover_after: Duration,
    /// … each waiting for those before it, so long for each.
    pub takeover_step: Duration,
    /// A node that starts leads nothing before; twice that one level up.
    pub start_grace: Duration,
    /// A suspect keeps its posts for so long.
    pub doubt_hold: Duration,
    /// Changes of a zone's inputs wait this long for others.
    pub issue_coalesce: Duration,
    /// Between two rows of a zone that goes on changing …
    pub issue_interval: Duration,
    /// … once so many went out at once.
    pub issue_burst: u32,
    /// Between two comparisons with another node.
    pub compare_interval: Duration,
    /// A row that nothing confirmed for so long is asked for.
    pub stale_after: Duration,
    /// Packets a second that comparisons may be answered with.
    pub answer_rate: u32,
    /// Between two looks at what is due without an event.
    pub look_interval: Duration,
    /// Until a packet is sent again, while no round trip was measured …
    pub resend_first: Duration,
    /// … and its bounds.
    pub resend_min: Duration,
    pub resend_max: Duration,
    /// Where many packets are lost, rows are sent again so soon, without waiting
    /// for an answer.
    pub double_after: Duration,
    /// Sendings of one packet.
    pub tries: u8,
    /// To a mate that is alive: nobody else tells it, and where a seventh of
    /// all is lost one of a thousand nodes would miss five.
    pub tries_near: u8,
    /// A node that acknowledged none of them is passed over for so long.
    pub silent: Duration,
    /// What is known of a way to a node is kept for so long unused.
    pub link_idle: Duration,
    /// Of a zone.
    pub representatives: usize,
    /// Members of a leaf zone that one node serves, at most.
    pub served: usize,
    /// A leaf zone with more is warned of.
    pub leaf_advised: usize,
    /// An ended zone is remembered for so long.
    pub ended_keep: Duration,
}

impl Default for Parameters {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            coalesce: ms(15),
            beat_hold: ms(500),
            ack_hold: ms(15),
            spare_hold: ms(40),
            beat_interval: ms(2_000),
            beats: 256,
            unknown_after: ms(6_500),
            takeover_after: ms(3_500),
            takeover_step: ms(400),
            start_grace: ms(1_000),
            doubt_hold: ms(300),
            issue_coalesce: ms(10),
            issue_interval: ms(2_000),
            issue_burst: 3,
            compare_interval: ms(1_000),
            stale_after: ms(4_000),
            answer_rate: 64,
            look_interval: ms(500),
            resend_first: ms(400),
            resend_min: ms(40),
            resend_max: ms(2_000),
            double_after: ms(25),
            tries: 5,
            tries_near: 7,
            silent: ms(5_000),
            link_idle: ms(120_000),
            representatives: 3,
            served: 16,
            leaf_advised: 32,
            ended_keep: ms(3_600_000),
        }
    }
}
