//! When each node's cores want to be woken, apart from the nodes: most wakes
//! come earlier than their core still wants, and are put off without a look at
//! it.

use kernel::Time;

/// Of one core.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wake {
    /// When it wants to be woken.
    due: Option<Time>,
    /// The first that is queued.
    queued: Option<Time>,
}

/// Of one node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Due {
    pub alive: bool,
    /// Counts starts: what was under way in an earlier one is lost.
    pub boot: u32,
    pub membership: Wake,
    pub tree: Wake,
}

/// What a wake that has come is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    Tick,
    Again(Time),
    /// Another has taken its place.
    Never,
}

impl Wake {
    /// Returns when to queue a wake, unless one comes before.
    pub fn want(&mut self, due: Time, now: Time) -> Option<Time> {
        let due = due.max(now);
        self.due = Some(due);
        let is_first = self.queued.is_none_or(|at| due < at);
        is_first.then(|| {
            self.queued = Some(due);
            due
        })
    }

    pub fn come(&mut self, now: Time) -> Woken {
        if self.queued != Some(now) {
            return Woken::Never;
        }
        match self.due {
            Some(due) if due > now => {
                self.queued = Some(due);
                Woken::Again(due)
            }
            _ => {
                self.queued = None;
                Woken::Tick
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_woken_when_it_wants_and_not_before() {
        let mut wake = Wake::default();
        assert_eq!(wake.want(Time(10), Time(0)), Some(Time(10)));
        assert_eq!(wake.want(Time(20), Time(5)), None);
        assert_eq!(wake.come(Time(10)), Woken::Again(Time(20)));
        assert_eq!(wake.want(Time(15), Time(12)), Some(Time(15)));
        assert_eq!(wake.come(Time(15)), Woken::Tick);
        assert_eq!(wake.want(Time(30), Time(15)), Some(Time(30)));
        assert_eq!(wake.come(Time(20)), Woken::Never);
        assert_eq!(wake.come(Time(30)), Woken::Tick);
    }
}
