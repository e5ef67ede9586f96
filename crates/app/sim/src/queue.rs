//! What is to happen, in order of time; what falls on one moment, in the order
//! in which it was put there.
//!
//! A wheel of short spans, each put in order when its time comes: most of what
//! is to happen is near, and is moved twice. What is further away than the
//! wheel reaches waits in a heap.

use kernel::Time;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Nanoseconds of a span, as a power of two: a quarter of a millisecond.
const SPAN_BITS: u32 = 18;
/// Spans of the wheel: a second.
const SPANS: u64 = 4_096;

#[derive(Debug)]
struct Put<W> {
    at: Time,
    order: u64,
    what: W,
}

#[derive(Debug)]
pub struct Queue<W> {
    /// Of the span that time is in, the next last.
    now: Vec<Put<W>>,
    /// The number of that span.
    span: u64,
    /// Later ones, by number modulo [`SPANS`].
    wheel: Vec<Vec<Put<W>>>,
    /// How many are in the wheel.
    waiting: usize,
    far: BinaryHeap<Put<W>>,
    order: u64,
}

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self {
            now: Vec::new(),
            span: 0,
            wheel: (0..SPANS).map(|_| Vec::new()).collect(),
            waiting: 0,
            far: BinaryHeap::new(),
            order: 0,
        }
    }
}

impl<W> Queue<W> {
    pub fn put(&mut self, at: Time, what: W) {
        self.order += 1;
        let put = Put {
            at,
            order: self.order,
            what,
        };
        self.place(put);
    }

    fn place(&mut self, put: Put<W>) {
        let span = put.at.0 >> SPAN_BITS;
        if span <= self.span {
            let later = self.now.partition_point(|one| put.key() < one.key());
            self.now.insert(later, put);
        } else if span - self.span < SPANS {
            self.slot(span).push(put);
            self.waiting += 1;
        } else {
            self.far.push(put);
        }
    }

    fn slot(&mut self, span: u64) -> &mut Vec<Put<W>> {
        let slot = usize::try_from(span % SPANS).unwrap_or_default();
        &mut self.wheel[slot]
    }

    /// The next, unless it is later than `until`.
    pub fn take(&mut self, until: Time) -> Option<(Time, W)> {
        while self.now.is_empty() {
            if !self.turn(until.0 >> SPAN_BITS) {
                return None;
            }
        }
        let is_due = self.now.last().is_some_and(|one| one.at <= until);
        let next = is_due.then(|| self.now.pop()).flatten()?;
        Some((next.at, next.what))
    }

    /// Goes to the next span, at most to `last`; whether there was one.
    fn turn(&mut self, last: u64) -> bool {
        if self.span >= last {
            return false;
        }
        let far = self.far.peek().map(|one| one.at.0 >> SPAN_BITS);
        self.span = if self.waiting > 0 {
            self.span + 1
        } else {
            // Nothing is near.
            far.map_or(last, |far| far.min(last)).max(self.span + 1)
        };
        let reaches = self.span + SPANS;
        while self
            .far
            .peek()
            .is_some_and(|one| one.at.0 >> SPAN_BITS < reaches)
        {
            if let Some(put) = self.far.pop() {
                self.slot(put.at.0 >> SPAN_BITS).push(put);
                self.waiting += 1;
            }
        }
        let span = self.span;
        self.now = std::mem::take(self.slot(span));
        self.waiting -= self.now.len();
        self.now
            .sort_unstable_by_key(|one| std::cmp::Reverse(one.key()));
        true
    }
}

impl<W> Put<W> {
    fn key(&self) -> (Time, u64) {
        (self.at, self.order)
    }
}

/// The soonest is the greatest.
impl<W> Ord for Put<W> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

impl<W> PartialOrd for Put<W> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<W> PartialEq for Put<W> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<W> Eq for Put<W> {}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::Rng;

    #[test]
    fn order_is_by_time_and_then_by_coming() {
        let mut queue = Queue::default();
        for (at, what) in [(5, "d"), (1, "a"), (3, "b"), (3, "c")] {
            queue.put(Time(at), what);
        }
        let mut out = Vec::new();
        while let Some((at, what)) = queue.take(Time(3)) {
            out.push((at.0, what));
            if what == "a" {
                queue.put(Time(2), "a2");
            }
        }
        assert_eq!(out, [(1, "a"), (2, "a2"), (3, "b"), (3, "c")]);
        assert_eq!(queue.take(Time(9)), Some((Time(5), "d")));
        assert_eq!(queue.take(Time(9)), None);
    }

    #[test]
    fn near_and_far_come_in_one_order() {
        let mut rng = Rng::seeded(1);
        let mut queue = Queue::default();
        let (mut all, mut now, mut taken) = (Vec::new(), 0, Vec::new());
        for order in 0..20_000_u64 {
            // Nanoseconds to two minutes ahead, the near more often.
            let near = rng.below(38);
            let ahead = rng.below(1 << near);
            queue.put(Time(now + ahead), order);
            all.push((now + ahead, order));
            if order % 3 == 0 {
                let until = now + rng.below(1 << 30);
                while let Some((at, what)) = queue.take(Time(until)) {
                    now = at.0;
                    taken.push((at.0, what));
                }
                now = now.max(until);
            }
        }
        while let Some((at, what)) = queue.take(Time(u64::MAX)) {
            taken.push((at.0, what));
        }
        all.sort_unstable();
        assert_eq!(taken, all);
    }
}
