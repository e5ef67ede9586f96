//! An exact sum, as it travels.
//!
//! Holds: a sum has one spelling, whatever the order of its parts; sound totals
//! can be added up without overflow.

use serde::{Deserialize, Serialize};

/// No more parts are counted; far above what a cluster has, and far enough
/// below 2^64 that adding counts cannot overflow.
pub const COUNT_MAX: u64 = 1 << 48;

/// The sum of [`COUNT_MAX`] of the largest floats: 2,098 bits and 48.
pub const WIDE_BYTES_MAX: usize = 269;

/// The sum of integers and floats, without any rounding.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Total {
    /// How many numbers are in it.
    pub count: u64,
    /// Of the integers.
    pub whole: i128,
    /// Of the floats, when there were any.
    pub floats: Option<Wide>,
}

/// A number in units of 2^-1074, the smallest float: `digits`, least first,
/// base 256, times 256^`offset`. Neither the first nor the last digit is 0; zero
/// has none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wide {
    pub negative: bool,
    pub offset: u16,
    pub digits: Vec<u8>,
}

impl Total {
    pub(super) fn bytes_at_most(&self) -> usize {
        let floats = self.floats.as_ref().map_or(0, |wide| 6 + wide.digits.len());
        8 + 19 + 1 + floats
    }

    pub fn is_sound(&self) -> bool {
        let largest = u128::from(self.count.min(COUNT_MAX)) << 63;
        self.count <= COUNT_MAX
            && self.whole.unsigned_abs() <= largest
            && self.floats.as_ref().is_none_or(Wide::is_sound)
    }
}

impl Wide {
    pub fn is_sound(&self) -> bool {
        match (self.digits.first(), self.digits.last()) {
            (Some(first), Some(last)) => {
                let end = usize::from(self.offset) + self.digits.len();
                *first != 0 && *last != 0 && end <= WIDE_BYTES_MAX
            }
            _ => !self.negative && self.offset == 0,
        }
    }
}
