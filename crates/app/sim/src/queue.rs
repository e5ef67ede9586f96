//! What is to happen, in order of time; what falls on one moment, in the order
//! in which it was put there.

use kernel::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

#[derive(Debug)]
pub struct Queue<W> {
    heap: BinaryHeap<Reverse<(Time, u64, u32)>>,
    /// By number; the heap moves numbers only.
    held: Vec<Option<W>>,
    free: Vec<u32>,
    order: u64,
}

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            held: Vec::new(),
            free: Vec::new(),
            order: 0,
        }
    }
}

impl<W> Queue<W> {
    pub fn put(&mut self, at: Time, what: W) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.held.push(None);
            u32::try_from(self.held.len() - 1).unwrap_or(u32::MAX)
        });
        self.held[slot as usize] = Some(what);
        self.order += 1;
        self.heap.push(Reverse((at, self.order, slot)));
    }

    /// The next, unless it is later than `until`.
    pub fn take(&mut self, until: Time) -> Option<(Time, W)> {
        let Reverse((at, _, slot)) = *self.heap.peek()?;
        if at > until {
            return None;
        }
        self.heap.pop();
        self.free.push(slot);
        let what = self.held[slot as usize].take()?;
        Some((at, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
