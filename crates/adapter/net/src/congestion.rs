//! Congestion control of bulk: gives way to everything else on the path.
//!
//! In: when packets were sent, acknowledged and lost. Out: the window.
//! Holds: all that give way keep the narrowest queue a few milliseconds long
//! together, and a few packets more for each, which makes their shares alike;
//! from time to time each lets the queue drain, so that all measure the
//! distance anew.
//! Never: fills a queue until it overflows, as controllers that wait for loss do.
//!
//! Source: Wei, Jin, Low, Hegde, "FAST TCP: Motivation, Architecture,
//! Algorithms, Performance", IEEE/ACM Transactions on Networking 14(6), 2006;
//! the draining after Balasubramanian, Ertugay, Havey, "LEDBAT++", 2020.

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory, CubicConfig};
use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Packets of one connection in the queue: what makes shares alike.
const QUEUED_PACKETS: u64 = 4;
/// And the queue may be so long, or this part of the distance: what a busy
/// machine's unsteady measurements are not taken for a queue.
const QUEUE: Duration = Duration::from_millis(3);
const QUEUE_PART: u32 = 16;
/// On fast paths no more than this for the first: what a socket holds is soon
/// over.
const QUEUE_BYTES: u64 = 64 << 10;
const WINDOW_PACKETS_MIN: u64 = 2;
const WINDOW_PACKETS_FIRST: u64 = 10;
/// Distances are remembered for three spans of this.
const SPAN: Duration = Duration::from_secs(10);
const SPANS: usize = 3;
/// Batches of acknowledgements that must all have met a queue.
const BATCHES: usize = 4;
/// After so many rounds without a queue the window grows faster; more than the
/// rounds that another lets it drain.
const EMPTY_ROUNDS: u32 = 8;
/// How often the queue is left to drain.
const DRAIN_EVERY: Duration = Duration::from_secs(8);
/// Two round trips with half the window, then one for each eighth more, lest it
/// come back as a burst.
const DRAIN_ROUNDS: u64 = 5;

#[derive(Clone, Debug, Default)]
pub(crate) struct YieldingConfig;

impl ControllerFactory for YieldingConfig {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Yielding::new(now, mtu))
    }
}

/// The shortest round trip of the last spans.
#[derive(Clone, Debug)]
struct Distance {
    /// Start and shortest of each span, oldest first.
    spans: VecDeque<(Instant, Duration)>,
}

impl Distance {
    fn see(&mut self, now: Instant, round_trip: Duration) {
        match self.spans.back_mut() {
            Some((start, shortest)) if now.saturating_duration_since(*start) < SPAN => {
                *shortest = (*shortest).min(round_trip);
            }
            _ => self.spans.push_back((now, round_trip)),
        }
        if self.spans.len() > SPANS {
            self.spans.pop_front();
        }
    }

    fn shortest(&self) -> Option<Duration> {
        self.spans.iter().map(|(_, shortest)| *shortest).min()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Grows by half each round trip, until a queue is seen.
    Start,
    Steady,
    /// The window to go back to, and how many round trips are left.
    Drain {
        window: u64,
        rounds: u64,
    },
}

#[derive(Clone, Debug)]
struct Yielding {
    mtu: u64,
    window: u64,
    phase: Phase,
    distance: Distance,
    /// A round ends when a packet that was sent after its start arrives.
    round_start: Instant,
    round_over: bool,
    round_shortest: Option<Duration>,
    /// What arrived in it.
    round_bytes: u64,
    drain_at: Instant,
    /// Shortest of each of the last batches of acknowledgements.
    batches: VecDeque<Duration>,
    batch_shortest: Option<Duration>,
    /// Rounds in which hardly anything was queued.
    empty_rounds: u32,
    /// Losses of packets sent before this were answered already.
    answered: Instant,
}

impl Yielding {
    fn new(now: Instant, mtu: u16) -> Self {
        let mtu = u64::from(mtu);
        Self {
            mtu,
            window: WINDOW_PACKETS_FIRST * mtu,
            phase: Phase::Start,
            distance: Distance {
                spans: VecDeque::new(),
            },
            round_start: now,
            round_over: false,
            round_shortest: None,
            round_bytes: 0,
            drain_at: now + DRAIN_EVERY,
            batches: VecDeque::new(),
            batch_shortest: None,
            empty_rounds: 0,
            answered: now,
        }
    }

    fn least(&self) -> u64 {
        WINDOW_PACKETS_MIN * self.mtu
    }

    /// The window with which the queue would be as long as it may be.
    fn goal(&self, distance: Duration, round_trip: Duration) -> u64 {
        let far = self.scaled(distance / QUEUE_PART, round_trip);
        let near = self.scaled(QUEUE, round_trip).min(QUEUE_BYTES);
        self.scaled(distance, round_trip)
            .saturating_add(far.max(near))
            .saturating_add(QUEUED_PACKETS * self.mtu)
    }

    /// What of the window would be in flight if a round trip took `distance`.
    fn scaled(&self, distance: Duration, round_trip: Duration) -> u64 {
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX).max(1);
        let whole = u128::from(self.window) * u128::from(nanos(distance));
        u64::try_from(whole / u128::from(nanos(round_trip))).unwrap_or(u64::MAX)
    }

    fn arrived(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool) {
        let round_trip = now.saturating_duration_since(sent);
        self.distance.see(now, round_trip);
        let least = |before: Option<Duration>| before.unwrap_or(round_trip).min(round_trip);
        self.round_shortest = Some(least(self.round_shortest));
        self.batch_shortest = Some(least(self.batch_shortest));
        self.round_over |= sent >= self.round_start;
        self.round_bytes = self.round_bytes.saturating_add(bytes);
        if self.phase == Phase::Start && !app_limited {
            self.window = self.window.saturating_add(bytes / 2);
        }
    }

    fn end_batch(&mut self, now: Instant, app_limited: bool) {
        if let Some(shortest) = self.batch_shortest.take() {
            self.batches.push_back(shortest);
            if self.batches.len() > BATCHES {
                self.batches.pop_front();
            }
        }
        if self.phase == Phase::Start && self.batches.len() == BATCHES {
            self.look_for_queue(now);
        }
        if self.round_over {
            self.end_round(now, app_limited);
        }
    }

    /// Ends the start at the first queue, not a round trip later.
    fn look_for_queue(&mut self, now: Instant) {
        let (Some(round_trip), Some(distance)) =
            (self.batches.iter().min(), self.distance.shortest())
        else {
            return;
        };
        let goal = self.goal(distance, *round_trip);
        if goal < self.window {
            self.window = goal.max(self.least());
            self.phase = Phase::Steady;
            // The first drain soon: others' queue may have been taken for
            // distance.
            self.drain_at = now + distance * 8;
        }
    }

    fn end_round(&mut self, now: Instant, app_limited: bool) {
        let (Some(round_trip), Some(distance)) =
            (self.round_shortest.take(), self.distance.shortest())
        else {
            return;
        };
        let used = std::mem::take(&mut self.round_bytes);
        self.round_start = now;
        self.round_over = false;
        let goal = self.goal(distance, round_trip);
        match self.phase {
            Phase::Start => {}
            Phase::Steady => {
                let without = self.scaled(distance, round_trip);
                let is_empty = without.saturating_add(self.mtu) > self.window;
                self.empty_rounds = if is_empty { self.empty_rounds + 1 } else { 0 };
                let next = if self.empty_rounds > EMPTY_ROUNDS {
                    // The path got wider, or the start was ended by a flutter.
                    self.window.saturating_add(self.window / 8)
                } else {
                    u64::midpoint(self.window, goal)
                };
                // What is not used says nothing about the path: something else
                // holds the sender back.
                let proven = (2 * used).max(WINDOW_PACKETS_FIRST * self.mtu);
                let next = next.min(proven.max(self.window));
                if next < self.window || !app_limited {
                    self.window = next.max(self.least());
                }
                if now >= self.drain_at {
                    self.phase = Phase::Drain {
                        window: self.window,
                        rounds: DRAIN_ROUNDS,
                    };
                    self.window = (self.window / 2).max(self.least());
                }
            }
            Phase::Drain { window, rounds } if rounds <= 1 => {
                self.window = window;
                self.phase = Phase::Steady;
                self.drain_at = now + DRAIN_EVERY;
            }
            Phase::Drain { window, rounds } => {
                let eighths = (9 - rounds).max(4);
                self.window = (window / 8 * eighths).max(self.least());
                self.phase = Phase::Drain {
                    window,
                    rounds: rounds - 1,
                };
            }
        }
    }
}

impl Controller for Yielding {
    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        _: &RttEstimator,
    ) {
        self.arrived(now, sent, bytes, app_limited);
    }

    fn on_end_acks(&mut self, now: Instant, _: u64, app_limited: bool, _: Option<u64>) {
        self.end_batch(now, app_limited);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        _: u64,
    ) {
        if is_persistent_congestion {
            self.window = self.least();
            self.phase = Phase::Start;
            self.answered = now;
        } else if sent > self.answered {
            self.answered = now;
            self.window = (self.window / 10 * 7).max(self.least());
            self.phase = Phase::Steady;
        }
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.mtu = u64::from(mtu);
        self.window = self.window.max(self.least());
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        WINDOW_PACKETS_FIRST * self.mtu
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// For accepted connections: what they are for is known after the handshake.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChoosingConfig;

impl ControllerFactory for ChoosingConfig {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Choosing {
            yields: Arc::default(),
            usual: Arc::new(CubicConfig::default()).build(now, mtu),
            yielding: Yielding::new(now, mtu),
        })
    }
}

/// As usual, until it is told to give way.
struct Choosing {
    /// Shared with the copies that a connection hands out.
    yields: Arc<AtomicBool>,
    usual: Box<dyn Controller>,
    yielding: Yielding,
}

/// Makes an accepted connection give way.
pub(crate) fn yield_from_now_on(connection: &quinn::Connection) {
    if let Ok(copy) = connection
        .congestion_state()
        .into_any()
        .downcast::<Choosing>()
    {
        copy.yields.store(true, Ordering::Relaxed);
    }
}

impl Choosing {
    fn chosen(&mut self) -> &mut dyn Controller {
        if self.yields.load(Ordering::Relaxed) {
            &mut self.yielding
        } else {
            &mut *self.usual
        }
    }
}

impl Controller for Choosing {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.chosen().on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.chosen().on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.chosen()
            .on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.chosen()
            .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.usual.on_mtu_update(mtu);
        self.yielding.on_mtu_update(mtu);
    }

    fn window(&self) -> u64 {
        if self.yields.load(Ordering::Relaxed) {
            self.yielding.window()
        } else {
            self.usual.window()
        }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            yields: self.yields.clone(),
            usual: self.usual.clone_box(),
            yielding: self.yielding.clone(),
        })
    }

    fn initial_window(&self) -> u64 {
        self.usual.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The queue is three milliseconds most of the time; the bounds below are met
    // for a moment, when a window returns after a drain.

    /// A path of one queue, shared by senders that always have something to
    /// send; one step is the time of one packet.
    struct Path {
        distance: Duration,
        packet: Duration,
        start: Instant,
        now: Instant,
        free_at: Instant,
        queue_max: Duration,
        senders: Vec<Sender>,
    }

    struct Sender {
        control: Yielding,
        /// Sent and to be acknowledged at.
        flying: VecDeque<(Instant, Instant)>,
        delivered: u64,
        /// When the pace allows the next.
        next_at: Instant,
    }

    const MTU: u16 = 1_250;

    impl Path {
        /// 100 Mbit/s: a packet takes 0.1 ms.
        fn new(distance: Duration) -> Self {
            let now = Instant::now();
            Self {
                distance,
                packet: Duration::from_micros(100),
                start: now,
                now,
                free_at: now,
                queue_max: Duration::ZERO,
                senders: Vec::new(),
            }
        }

        fn join(&mut self) {
            self.senders.push(Sender {
                control: Yielding::new(self.now, MTU),
                flying: VecDeque::new(),
                delivered: 0,
                next_at: self.now,
            });
        }

        fn run(&mut self, span: Duration) {
            let end = self.now + span;
            while self.now < end {
                for sender in &mut self.senders {
                    let mut acked = false;
                    while let Some((sent, at)) = sender.flying.front().copied()
                        && at <= self.now
                    {
                        sender.flying.pop_front();
                        sender.delivered += 1;
                        let bytes = u64::from(MTU);
                        sender.control.arrived(self.now, sent, bytes, false);
                        acked = true;
                    }
                    if acked {
                        sender.control.end_batch(self.now, false);
                    }
                    let flying = u64::try_from(sender.flying.len()).expect("few");
                    let window = sender.control.window();
                    if flying * u64::from(MTU) < window && sender.next_at <= self.now {
                        // Paced as the transport does: a quarter faster than
                        // the window asks for.
                        let packets = u32::try_from(window / u64::from(MTU)).expect("few");
                        let pace = self.distance * 4 / (packets * 5);
                        sender.next_at = self.now.max(sender.next_at + pace);
                        self.free_at = self.free_at.max(self.now) + self.packet;
                        let at = self.free_at + self.distance;
                        sender.flying.push_back((self.now, at));
                    }
                }
                self.queue_max = self.queue_max.max(self.free_at - self.now);
                self.now += self.packet / 2;
            }
        }

        fn shares(&mut self) -> Vec<u64> {
            self.senders
                .iter_mut()
                .map(|sender| std::mem::take(&mut sender.delivered))
                .collect()
        }
    }

    #[test]
    fn one_fills_the_path_and_hardly_its_queue() {
        let mut path = Path::new(Duration::from_millis(40));
        path.join();
        path.run(Duration::from_secs(3));
        path.shares();
        path.queue_max = Duration::ZERO;
        path.run(Duration::from_secs(20));
        let share = path.shares()[0];
        assert!(share > 200_000 / 100 * 97, "{share} of 200000");
        assert!(path.queue_max < path.distance / 4, "{:?}", path.queue_max);
        assert!(path.now > path.start);
    }

    #[test]
    fn late_comers_share_alike_within_seconds_and_the_queue_stays_short() {
        let mut path = Path::new(Duration::from_millis(40));
        path.join();
        path.run(Duration::from_secs(5));
        path.join();
        path.run(Duration::from_secs(5));
        path.join();
        path.run(Duration::from_secs(20));
        path.shares();
        path.queue_max = Duration::ZERO;
        path.run(Duration::from_secs(20));
        let shares = path.shares();
        let total: u64 = shares.iter().sum();
        assert!(total > 200_000 / 100 * 95, "{shares:?}");
        for share in &shares {
            assert!(*share > 200_000 / 3 / 2, "{shares:?}");
        }
        assert!(path.queue_max < path.distance / 3, "{:?}", path.queue_max);
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow() {
        let mut now = Instant::now();
        let mut control = Yielding::new(now, MTU);
        control.phase = Phase::Steady;
        // Eight packets a round, as the other side's window allows, and never a
        // queue: a fast path for an hour.
        for round in 0..1_000_000_u32 {
            let sent = now;
            now += Duration::from_micros(200);
            for _ in 0..8 {
                control.arrived(now, sent, MTU.into(), false);
            }
            control.end_batch(now, false);
            assert!(control.window() <= 16 * u64::from(MTU), "round {round}");
        }
    }

    #[test]
    fn a_loss_is_answered_once_and_the_window_never_vanishes() {
        let now = Instant::now();
        let mut control = Yielding::new(now, MTU);
        control.window = 100 * u64::from(MTU);
        let sent = now + Duration::from_millis(1);
        let seen = now + Duration::from_millis(41);
        control.on_congestion_event(seen, sent, false, 1_250);
        assert_eq!(control.window(), 70 * u64::from(MTU));
        control.on_congestion_event(seen, sent, false, 1_250);
        assert_eq!(control.window(), 70 * u64::from(MTU));
        for step in 0..50 {
            let sent = seen + Duration::from_secs(step + 1);
            control.on_congestion_event(sent, sent, false, 1_250);
        }
        assert_eq!(control.window(), control.least());
        control.on_congestion_event(seen, sent, true, 1_250);
        assert_eq!(control.window(), control.least());
    }
}
