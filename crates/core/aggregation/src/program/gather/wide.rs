//! Adds floats without rounding, so that their sum does not depend on order.
//!
//! Holds: the sum is exact until it is asked for, and then rounded once, to the
//! nearest. Chunks of 32 bits are kept in 64, so that carries wait.
//!
//! Source: Neal, "Fast exact summation using small and large
//! superaccumulators", 2015.

use wire::attributes::{WIDE_BYTES_MAX, Wide};

/// 2,098 bits of a float's range, and room for sums and their sums.
const CHUNKS: usize = 70;

/// What is added to a chunk is below 2^54, so that many fit.
const ADDED_MAX: u32 = 500;

/// 1 in units of 2^-1074.
const ONE: usize = 1_074;

#[derive(Clone, Debug)]
pub(in crate::program) struct WideSum {
    chunks: [i64; CHUNKS],
    added: u32,
}

impl Default for WideSum {
    fn default() -> Self {
        Self {
            chunks: [0; CHUNKS],
            added: 0,
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "parts of numbers are cut on purpose"
)]
impl WideSum {
    /// Of a finite number.
    #[inline]
    pub(in crate::program) fn add(&mut self, number: f64) {
        let bits = number.to_bits();
        let exponent = (bits >> 52) as usize & 0x7ff;
        let fraction = bits & ((1 << 52) - 1);
        let (mantissa, shift) = match exponent {
            0 => (fraction, 0),
            _ => (fraction | 1 << 52, exponent - 1),
        };
        self.put(mantissa, shift, bits >> 63 == 1);
    }

    pub(in crate::program) fn add_whole(&mut self, whole: i128) {
        let magnitude = whole.unsigned_abs();
        for part in 0..4 {
            let bits = (magnitude >> (32 * part)) as u64 & 0xffff_ffff;
            self.put(bits, ONE + 32 * part, whole < 0);
        }
    }

    pub(in crate::program) fn merge(&mut self, wide: &Wide) {
        for (place, digit) in wide.digits.iter().enumerate() {
            let at = 8 * (usize::from(wide.offset) + place);
            self.put(u64::from(*digit), at, wide.negative);
        }
    }

    /// Adds `bits` (below 2^53) times 2^`shift`.
    #[inline]
    fn put(&mut self, bits: u64, shift: usize, negative: bool) {
        let (chunk, within) = (shift / 32, shift % 32);
        let low = ((bits << within) & 0xffff_ffff) as i64;
        let high = (bits >> (32 - within)) as i64;
        let (low, high) = if negative { (-low, -high) } else { (low, high) };
        if chunk + 1 < CHUNKS {
            self.chunks[chunk] += low;
            self.chunks[chunk + 1] += high;
        }
        self.added += 1;
        if self.added == ADDED_MAX {
            self.carry();
        }
    }

    /// Leaves 32 bits in each chunk but the last, which has the sign.
    fn carry(&mut self) {
        let mut carry = 0;
        for chunk in &mut self.chunks[..CHUNKS - 1] {
            let sum = *chunk + carry;
            *chunk = sum & 0xffff_ffff;
            carry = sum >> 32;
        }
        self.chunks[CHUNKS - 1] += carry;
        self.added = 0;
    }

    /// The sum in its one spelling. Only lies get beyond the largest.
    pub(in crate::program) fn wide(&mut self) -> Wide {
        self.carry();
        let negative = self.chunks[CHUNKS - 1] < 0;
        if negative {
            self.chunks.iter_mut().for_each(|chunk| *chunk = -*chunk);
            self.carry();
        }
        let used = |chunk: &i64| *chunk != 0;
        let first = self.chunks.iter().position(used);
        let last = self.chunks.iter().rposition(used);
        let (Some(first), Some(last)) = (first, last) else {
            return Wide::default();
        };
        let mut digits: Vec<u8> = Vec::with_capacity(4 * (last + 1 - first));
        for chunk in &self.chunks[first..=last] {
            digits.extend_from_slice(&(*chunk as u32).to_le_bytes());
        }
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        let mut offset = 4 * first + zeros;
        digits.drain(..zeros);
        while digits.last() == Some(&0) {
            digits.pop();
        }
        if offset + digits.len() > WIDE_BYTES_MAX {
            (offset, digits) = (0, vec![0xff; WIDE_BYTES_MAX]);
        }
        Wide {
            negative,
            offset: offset as u16,
            digits,
        }
    }
}

/// The nearest float, of two as near the even one; `None` beyond the largest.
pub(in crate::program) fn rounded(wide: &Wide) -> Option<f64> {
    /// Bytes that hold 53 bits, wherever they begin, and one more to round by.
    const BYTES: usize = 9;
    let below = wide.digits.len().saturating_sub(BYTES);
    let top = wide.digits.get(below..).unwrap_or_default();
    let word = top
        .iter()
        .rev()
        .fold(0_u128, |word, byte| word << 8 | u128::from(*byte));
    if word == 0 {
        return Some(0.0);
    }
    // Where the word's lowest bit stands, in units of 2^-1074.
    let base = 8 * (usize::from(wide.offset) + below);
    let length = word.ilog2() as usize + 1;
    // A float's mantissa has 53 bits, or fewer where no smaller ones exist.
    let cut = length.saturating_sub(53);
    let mut mantissa = word >> cut;
    if cut > 0 {
        let rest = word & ((1 << cut) - 1);
        let half = 1 << (cut - 1);
        // The first digit is not 0: below the word there is something.
        let is_more = rest > half || (rest == half && below > 0);
        if is_more || (rest == half && mantissa & 1 == 1) {
            mantissa += 1;
        }
    }
    let low = base + cut;
    let missing = 53_usize.saturating_sub(length - cut).min(low);
    let (mantissa, low) = (u64::try_from(mantissa << missing).ok()?, low - missing);
    // A mantissa without its first bit is of the smallest floats; one that has
    // just grown to 54 bits carries into the exponent by itself.
    if low >= 2_046 {
        return None;
    }
    let float = f64::from_bits(((low as u64) << 52) + mantissa);
    let signed = if wide.negative { -float } else { float };
    float.is_finite().then_some(signed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wide(of: &[f64]) -> WideSum {
        let mut sum = WideSum::default();
        for number in of {
            sum.add(*number);
        }
        sum
    }

    fn sum(of: &[f64]) -> Option<f64> {
        rounded(&wide(of).wide())
    }

    #[test]
    fn nothing_is_lost_on_the_way() {
        assert_eq!(sum(&[1e308, 1.0, -1e308]), Some(1.0));
        assert_eq!(sum(&[0.1; 10]), Some(1.0));
        assert_eq!(sum(&[f64::MAX, f64::MAX]), None);
        assert_eq!(sum(&[f64::MAX, f64::MAX, -f64::MAX]), Some(f64::MAX));
        let least = f64::from_bits(1);
        assert_eq!(sum(&[least, least]), Some(f64::from_bits(2)));
        assert_eq!(
            sum(&[f64::MIN_POSITIVE, -least]),
            Some(f64::from_bits((1 << 52) - 1))
        );
        assert_eq!(sum(&[]), Some(0.0));
        // Halfway: to the even neighbour, and beyond it for the least bit more.
        assert_eq!(
            sum(&[9_007_199_254_740_992.0, 1.0]),
            Some(9_007_199_254_740_992.0)
        );
        assert_eq!(
            sum(&[9_007_199_254_740_992.0, 1.0, least]),
            Some(9_007_199_254_740_994.0)
        );
    }

    #[test]
    fn integers_and_floats_add_up() {
        let mut sum = WideSum::default();
        sum.add_whole(i128::from(i64::MIN) * 3);
        sum.add(0.5);
        sum.add_whole(i128::from(i64::MIN) * -3);
        assert_eq!(rounded(&sum.wide()), Some(0.5));
    }

    fn floats() -> impl Strategy<Value = f64> {
        any::<f64>().prop_filter("finite", |float| float.is_finite())
    }

    proptest! {
        #[test]
        fn one_float_stays_itself(float in floats()) {
            prop_assert_eq!(sum(&[float]), Some(float + 0.0));
        }

        #[test]
        fn two_are_added_as_the_processor_does(one in floats(), other in floats()) {
            let native = one + other;
            prop_assert_eq!(sum(&[one, other]), native.is_finite().then_some(native + 0.0));
        }

        #[test]
        fn groups_make_the_same(mut all in prop::collection::vec(floats(), 0..40), at in 0..40_usize) {
            let whole = wide(&all).wide();
            prop_assert!(whole.is_sound());
            let rest = all.split_off(at.min(all.len()));
            let mut parts = WideSum::default();
            for part in [rest, all] {
                parts.merge(&wide(&part).wide());
            }
            prop_assert_eq!(parts.wide(), whole);
        }
    }
}
