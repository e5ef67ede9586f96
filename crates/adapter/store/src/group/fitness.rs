//! Whether a member is fit to lead, and when one that leads and is not steps aside.
//!
//! In: at each beat, whether its disk is in trouble (full, or syncs take long) and
//! whether it leads. Out: whether it beats, stands still, or waits longer before it
//! stands.
//! Holds: it steps aside once for each trouble, for as long as the others need to
//! choose; where none of them leads then it leads on, for a slow leader is better
//! than none.
//! Never: says who leads instead.

use std::sync::atomic::{AtomicBool, Ordering};

/// Trouble that passes is none: a disk that takes a large file stalls for seconds. A
/// moment without is not its end.
const TROUBLE_BEATS: u32 = 60;
const WELL_BEATS: u32 = 100;
/// For the lease, each other voter's turn, and their votes.
const ASIDE_BEATS: u32 = 25;
/// Who is not fit stands for election so many times later.
pub const UNFIT_WAIT_FACTOR: u32 = 4;

#[derive(Debug, Default)]
pub struct Fitness {
    /// Beats in a row.
    troubled: u32,
    well: u32,
    is_unfit: bool,
    has_stepped_aside: bool,
    /// Beats that are left of standing aside.
    aside: u32,
}

impl Fitness {
    /// Whether it stands aside at this beat.
    pub fn beat(&mut self, in_trouble: bool, leads: bool) -> bool {
        if in_trouble {
            self.well = 0;
            self.troubled = self.troubled.saturating_add(1);
            self.is_unfit |= self.troubled >= TROUBLE_BEATS;
        } else {
            self.troubled = 0;
            self.well = self.well.saturating_add(1);
            if self.well >= WELL_BEATS {
                self.is_unfit = false;
                self.has_stepped_aside = false;
            }
        }
        if !leads {
            self.aside = 0;
            return false;
        }
        if self.is_unfit && !self.has_stepped_aside {
            self.has_stepped_aside = true;
            self.aside = ASIDE_BEATS;
        }
        let is_aside = self.aside > 0;
        self.aside = self.aside.saturating_sub(1);
        is_aside
    }

    pub fn is_unfit(&self) -> bool {
        self.is_unfit
    }
}

/// Whether this member stands aside now: then it takes nothing as a leader, so that
/// the others hear nothing of it and choose.
#[derive(Debug, Default)]
pub struct Aside(AtomicBool);

impl Aside {
    /// Whether that is new.
    pub fn set(&self, aside: bool) -> bool {
        self.0.swap(aside, Ordering::Relaxed) != aside
    }

    pub fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beats that it stood aside.
    fn lead(fitness: &mut Fitness, in_trouble: bool, beats: u32) -> u32 {
        let aside = (0..beats).filter(|_| fitness.beat(in_trouble, true));
        u32::try_from(aside.count()).expect("few")
    }

    #[test]
    fn a_leader_steps_aside_once_for_each_trouble() {
        let mut fitness = Fitness::default();
        assert_eq!(lead(&mut fitness, false, 1_000), 0);
        // What passes is no trouble.
        for _ in 0..10 {
            assert_eq!(lead(&mut fitness, true, TROUBLE_BEATS - 1), 0);
            assert_eq!(lead(&mut fitness, false, 1), 0);
        }
        assert_eq!(lead(&mut fitness, true, 1_000), ASIDE_BEATS);
        assert_eq!(lead(&mut fitness, false, WELL_BEATS - 1), 0);
        assert_eq!(lead(&mut fitness, true, 1_000), 0, "the same trouble");
        assert_eq!(lead(&mut fitness, false, WELL_BEATS), 0);
        assert_eq!(lead(&mut fitness, true, 1_000), ASIDE_BEATS);
    }

    #[test]
    fn whoever_is_unfit_and_is_chosen_before_it_stepped_aside_does_so_then() {
        let mut fitness = Fitness::default();
        for _ in 0..100 {
            assert!(!fitness.beat(true, false));
        }
        assert!(fitness.is_unfit());
        assert_eq!(lead(&mut fitness, true, 10), 10);
        // Another one leads now.
        assert!(!fitness.beat(true, false));
        assert_eq!(lead(&mut fitness, true, 1_000), 0, "nobody else did");
    }
}
