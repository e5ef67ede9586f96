//! Decides when each packet arrives, if it does.
//!
//! In: packets as they are sent, the shape of the network, the time. Out:
//! packets that are due.
//! Holds: on the way from one end to another packets keep their order; what is
//! on its way is bounded in bytes; one seed, one outcome.
//! Never: reads a clock or a device.

use crate::shape::Shape;
use kernel::{Rng, Time};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;
use wire::lab::PacketCounts;

/// On its way at once, over all; more is lost as in any full buffer.
const FLYING_BYTES_MAX: usize = 256 << 20;
/// What a rate lets through at once.
const BURST_BYTES: u64 = 16 << 10;
/// Waits before a rate, but never less than so many bytes.
const QUEUE: Duration = Duration::from_millis(100);
const QUEUE_BYTES_MIN: u64 = 32 << 10;
const NANOS_PER_S: u128 = 1_000_000_000;

#[derive(Debug, PartialEq, Eq)]
pub struct Packet {
    pub from: usize,
    pub to: usize,
    pub bytes: Vec<u8>,
}

#[derive(Debug)]
struct Flight {
    due: Time,
    sequence: u64,
    /// It has crossed the distance; the receiver's own rate is passed too.
    received: bool,
    packet: Packet,
}

impl PartialEq for Flight {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Flight {}
impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Flight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.sequence).cmp(&(other.due, other.sequence))
    }
}

/// A token bucket with a bounded queue before it, kept as the time at which all
/// that was let in has gone out.
#[derive(Clone, Copy, Debug, Default)]
struct Gate(Time);

impl Gate {
    /// When a packet of that size is through; none when the queue is full.
    fn pass(&mut self, rate: Option<u64>, bytes: usize, now: Time) -> Option<Time> {
        let Some(rate) = rate.filter(|rate| *rate > 0) else {
            return Some(now);
        };
        let bytes = bytes as u64;
        let waiting = self.0.since(now);
        let room = bytes_in(QUEUE, rate).max(QUEUE_BYTES_MIN);
        if bytes_in(waiting, rate) + bytes > room {
            return None;
        }
        let start = self.0.max(now - span_of(BURST_BYTES, rate));
        self.0 = start + span_of(bytes, rate);
        Some(self.0.max(now))
    }
}

fn span_of(bytes: u64, rate: u64) -> Duration {
    let nanos = u128::from(bytes) * 8 * NANOS_PER_S / u128::from(rate);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

fn bytes_in(span: Duration, rate: u64) -> u64 {
    let bits = span.as_nanos().saturating_mul(u128::from(rate)) / NANOS_PER_S;
    u64::try_from(bits / 8).unwrap_or(u64::MAX)
}

#[derive(Debug)]
pub struct Fabric {
    shape: Arc<Shape>,
    flying: BinaryHeap<Reverse<Flight>>,
    flying_bytes: usize,
    sequence: u64,
    /// When the last packet from one end to another was due; `[from][to]`, flat.
    last: Vec<Time>,
    out: Vec<Gate>,
    into: Vec<Gate>,
    random: Rng,
    counts: PacketCounts,
}

impl Fabric {
    pub fn new(shape: Arc<Shape>, seed: u64) -> Self {
        let ends = shape.ends();
        Self {
            shape,
            flying: BinaryHeap::new(),
            flying_bytes: 0,
            sequence: 0,
            last: vec![Time(0); ends * ends],
            out: vec![Gate::default(); ends],
            into: vec![Gate::default(); ends],
            random: Rng::seeded(seed),
            counts: PacketCounts::default(),
        }
    }

    /// What is on its way keeps its time, but a cut loses it.
    ///
    /// The ends stay what they are: a shape with others is refused by doing nothing.
    pub fn reshape(&mut self, shape: Arc<Shape>) {
        if shape.ends() == self.shape.ends() {
            self.shape = shape;
        }
    }

    pub fn counts(&self) -> PacketCounts {
        self.counts
    }

    /// A packet that is not of these ends.
    pub fn count_foreign(&mut self) {
        self.counts.foreign += 1;
    }

    /// A packet is sent.
    pub fn send(&mut self, packet: Packet, now: Time) {
        let (from, to) = (packet.from, packet.to);
        if from >= self.shape.ends() || to >= self.shape.ends() {
            return self.count_foreign();
        }
        let link = self.shape.link(from, to);
        if link.cut {
            self.counts.cut += 1;
            return;
        }
        if link.loss > 0.0 && self.random.unit() < link.loss {
            self.counts.lost += 1;
            return;
        }
        if self.flying_bytes + packet.bytes.len() > FLYING_BYTES_MAX {
            self.counts.overflown += 1;
            return;
        }
        let rate = self.shape.rate(from);
        let Some(gone) = self.out[from].pass(rate, packet.bytes.len(), now) else {
            self.counts.overflown += 1;
            return;
        };
        let jitter = if link.jitter.is_zero() {
            Duration::ZERO
        } else {
            link.jitter.mul_f64(self.random.unit())
        };
        let last = &mut self.last[from * self.shape.ends() + to];
        *last = (gone + link.delay + jitter).max(*last);
        let due = *last;
        self.fly(due, false, packet);
    }

    fn fly(&mut self, due: Time, received: bool, packet: Packet) {
        self.sequence += 1;
        self.flying_bytes += packet.bytes.len();
        self.flying.push(Reverse(Flight {
            due,
            sequence: self.sequence,
            received,
            packet,
        }));
    }

    /// The next packet that has arrived by now.
    pub fn arrived(&mut self, now: Time) -> Option<Packet> {
        loop {
            let first = self.flying.peek_mut()?;
            if first.0.due > now {
                return None;
            }
            let flight = std::collections::binary_heap::PeekMut::pop(first).0;
            let (due, packet) = (flight.due, flight.packet);
            self.flying_bytes -= packet.bytes.len();
            if self.shape.link(packet.from, packet.to).cut {
                self.counts.cut += 1;
                continue;
            }
            let rate = self.shape.rate(packet.to);
            if !flight.received && rate.is_some() {
                // From when it came, not from when we looked.
                match self.into[packet.to].pass(rate, packet.bytes.len(), due) {
                    Some(through) => self.fly(through, true, packet),
                    None => self.counts.overflown += 1,
                }
                continue;
            }
            self.counts.delivered += 1;
            self.counts.delivered_bytes += packet.bytes.len() as u64;
            return Some(packet);
        }
    }

    /// When [`Self::arrived`] has something next.
    pub fn next(&self) -> Option<Time> {
        self.flying.peek().map(|Reverse(flight)| flight.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use proptest::prelude::*;
    use wire::lab::{Between, Fault, LabPlan};

    const MILLI: u64 = 1_000_000;

    /// Two nodes, 40 ms apart each way.
    fn plan() -> LabPlan {
        let mut options = Options::new("/bin/true");
        options.nodes = 2;
        options.round_trip_ms = vec![vec![0.0, 80.0, 0.0], vec![80.0; 3], vec![0.0; 3]];
        options.plan(1, "/x".as_ref())
    }

    fn fabric(plan: &LabPlan, faults: &[Fault]) -> Fabric {
        Fabric::new(Arc::new(Shape::of(plan, faults.iter())), 7)
    }

    fn packet(bytes: usize) -> Packet {
        Packet {
            from: 0,
            to: 1,
            bytes: vec![0; bytes],
        }
    }

    fn between() -> Between {
        Between {
            from: "n1".parse().expect("a place"),
            to: Some("n2".parse().expect("a place")),
            one_way: true,
        }
    }

    #[test]
    fn a_packet_arrives_when_its_distance_is_over() {
        let mut fabric = fabric(&plan(), &[]);
        fabric.send(packet(100), Time(MILLI));
        assert_eq!(fabric.next(), Some(Time(41 * MILLI)));
        assert_eq!(fabric.arrived(Time(41 * MILLI - 1)), None);
        assert_eq!(fabric.arrived(Time(41 * MILLI)), Some(packet(100)));
        assert_eq!(fabric.next(), None);
        assert_eq!(fabric.counts().delivered_bytes, 100);
    }

    #[test]
    fn a_cut_one_way_lets_the_other_way_through_and_loses_what_flies() {
        let plan = plan();
        let mut fabric = fabric(&plan, &[]);
        fabric.send(packet(1), Time(0));
        let cut = Fault::Cut(between());
        fabric.reshape(Arc::new(Shape::of(&plan, std::iter::once(&cut))));
        fabric.send(packet(1), Time(0));
        fabric.send(
            Packet {
                from: 1,
                to: 0,
                bytes: vec![9],
            },
            Time(0),
        );
        let back = fabric.arrived(Time(1_000 * MILLI)).expect("arrives");
        assert_eq!(back.bytes, [9]);
        assert_eq!(fabric.arrived(Time(1_000 * MILLI)), None);
        assert_eq!(fabric.counts().cut, 2);
    }

    #[test]
    fn loss_is_as_often_as_said() {
        let fault = Fault::Loss {
            between: between(),
            share: 0.1,
        };
        let mut fabric = fabric(&plan(), &[fault]);
        for _ in 0..10_000 {
            fabric.send(packet(1), Time(0));
        }
        let lost = fabric.counts().lost;
        assert!((900..1_100).contains(&lost), "{lost}");
    }

    #[test]
    fn a_rate_spaces_packets_and_a_full_queue_loses_them() {
        let rate = Fault::Rate {
            node: plan().nodes[1].name.clone(),
            bits_per_s: 8_000_000,
        };
        let mut fabric = fabric(&plan(), &[rate]);
        // A megabyte a second: 1,000 bytes a millisecond, offered all at once.
        for _ in 0..1_000 {
            fabric.send(packet(1_000), Time(0));
        }
        let mut last = Time(0);
        let mut count = 0;
        while let Some(next) = fabric.next() {
            while fabric.arrived(next).is_some() {
                last = next;
                count += 1;
            }
        }
        assert_eq!(count + fabric.counts().overflown, 1_000);
        // 100 ms of queue and the burst before it.
        assert!((100..=120).contains(&count), "{count}");
        assert!(last.0 / MILLI >= 40 + 100 - 1, "{last:?}");
    }

    #[test]
    fn what_flies_is_bounded() {
        let mut fabric = fabric(&plan(), &[]);
        for _ in 0..300 {
            fabric.send(packet(1 << 20), Time(0));
        }
        assert_eq!(fabric.counts().overflown, 300 - 256);
    }

    proptest! {
        #[test]
        fn packets_keep_their_order_however_they_jitter(
            gaps in proptest::collection::vec(0_u64..5 * MILLI, 1..200),
            jitter_ms in 0.0..50.0_f64,
            limited: bool,
            seed: u64,
        ) {
            let mut plan = plan();
            plan.jitter_ms = jitter_ms;
            plan.rate_bits_per_s = limited.then_some(1_000_000_000);
            let shape = Arc::new(Shape::of(&plan, std::iter::empty()));
            let mut fabric = Fabric::new(shape, seed);
            let mut now = Time(0);
            for (number, gap) in gaps.iter().enumerate() {
                now = now + Duration::from_nanos(*gap);
                let bytes = u64::try_from(number).expect("small").to_le_bytes().to_vec();
                fabric.send(Packet { from: 0, to: 1, bytes }, now);
            }
            let mut seen = Vec::new();
            while let Some(next) = fabric.next() {
                while let Some(packet) = fabric.arrived(next) {
                    seen.push(u64::from_le_bytes(packet.bytes.try_into().expect("eight")));
                }
            }
            prop_assert_eq!(seen, (0..gaps.len() as u64).collect::<Vec<_>>());
        }

        #[test]
        fn a_rate_is_never_exceeded(
            sizes in proptest::collection::vec(1_usize..1_500, 1..300),
            rate in 100_000_u64..1_000_000_000,
        ) {
            let mut gate = Gate::default();
            let (mut through, mut end) = (0_u64, Time(0));
            let start = Time(1_000_000_000_000);
            for size in sizes {
                if let Some(at) = gate.pass(Some(rate), size, start) {
                    through += size as u64;
                    end = end.max(at);
                }
            }
            let allowed = bytes_in(end.since(start), rate) + BURST_BYTES + 1_500;
            prop_assert!(through <= allowed, "{} > {}", through, allowed);
        }
    }
}
