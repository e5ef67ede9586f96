//! What of a node's attributes has changed, as bytes to put into those of the
//! version before.
//!
//! Layout: `[check][keep][take away][length][bytes]…`; numbers are LEB128, the
//! check is four bytes of a hash of the outcome; what is after the last step is
//! kept.
//! Holds: a patch put into other bytes than it was made for gives nothing.

use super::ATTRIBUTES_BYTES_MAX;
use crate::compact::{Reader, put};
use kernel::fnv1a;

/// Bytes alike between two that differ, which are sent sooner than passed over.
const GAP: usize = 4;

/// `None` where all of `new` is hardly longer.
pub fn diff(old: &[u8], new: &[u8]) -> Option<Vec<u8>> {
    let mut patch = check(new).to_vec();
    let mut kept = 0;
    for (from, old_end, new_end, new_from) in changes(old, new) {
        put(&mut patch, (from - kept) as u64);
        put(&mut patch, (old_end - from) as u64);
        put(&mut patch, (new_end - new_from) as u64);
        patch.extend_from_slice(&new[new_from..new_end]);
        kept = old_end;
    }
    (patch.len() * 4 < new.len() * 3).then_some(patch)
}

pub fn apply(old: &[u8], patch: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(patch);
    let wanted: [u8; 4] = reader.array().ok()?;
    let mut new = Vec::with_capacity(old.len());
    let mut rest = old;
    while reader.left() > 0 {
        let mut number = || usize::try_from(reader.number().ok()?).ok();
        let (keep, away, length) = (number()?, number()?, number()?);
        let (kept, after) = rest.split_at_checked(keep)?;
        new.extend_from_slice(kept);
        rest = after.get(away..)?;
        new.extend_from_slice(reader.take(length).ok()?);
        if new.len() > ATTRIBUTES_BYTES_MAX {
            return None;
        }
    }
    new.extend_from_slice(rest);
    (new.len() <= ATTRIBUTES_BYTES_MAX && check(&new) == wanted).then_some(new)
}

fn check(bytes: &[u8]) -> [u8; 4] {
    let hash = fnv1a(bytes.iter().copied());
    let [a, b, c, d, ..] = hash.to_be_bytes();
    [a, b, c, d]
}

/// Where they differ: from and to in the old, to and from in the new. Numbers
/// change in their place mostly; what moves all behind it is sent as one piece.
fn changes(old: &[u8], new: &[u8]) -> Vec<(usize, usize, usize, usize)> {
    let pairs = || old.iter().zip(new);
    let front = pairs().take_while(|(a, b)| a == b).count();
    let ends = old[front..].iter().rev().zip(new[front..].iter().rev());
    let back = ends.take_while(|(a, b)| a == b).count();
    let (old_end, new_end) = (old.len() - back, new.len() - back);
    if old.len() != new.len() {
        return vec![(front, old_end, new_end, front)];
    }
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (at, (a, b)) in pairs().enumerate() {
        if a == b {
            continue;
        }
        match runs.last_mut() {
            Some((_, end)) if at - *end <= GAP => *end = at + 1,
            _ => runs.push((at, at + 1)),
        }
    }
    let runs = runs.into_iter();
    runs.map(|(from, end)| (from, end, end, from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_that_change_in_their_place_cost_little() {
        let old = vec![7; 600];
        let mut new = old.clone();
        new[100..108].fill(1);
        new[500] = 2;
        let patch = diff(&old, &new).expect("short");
        assert!(patch.len() < 30, "{}", patch.len());
        assert_eq!(apply(&old, &patch), Some(new));
    }

    #[test]
    fn a_patch_of_other_bytes_gives_nothing() {
        let old = vec![7; 100];
        let mut new = old.clone();
        new[50] = 1;
        let patch = diff(&old, &new).expect("short");
        let mut other = old;
        other[10] = 9;
        assert_eq!(apply(&other, &patch), None);
        assert_eq!(apply(&[], &patch), None);
    }

    #[test]
    fn what_is_hardly_shorter_is_no_patch() {
        assert_eq!(diff(b"abc", b"xyz"), None);
        assert_eq!(diff(b"", b"new"), None);
    }

    proptest! {
        #[test]
        fn what_is_patched_is_the_new(
            old in proptest::collection::vec(0_u8..4, 0..300),
            edits in proptest::collection::vec((any::<usize>(), 0_usize..5, proptest::collection::vec(any::<u8>(), 0..5)), 0..4),
        ) {
            let mut new = old.clone();
            for (at, away, bytes) in edits {
                let from = at % (new.len() + 1);
                let to = (from + away).min(new.len());
                new.splice(from..to, bytes);
            }
            if let Some(patch) = diff(&old, &new) {
                prop_assert_eq!(apply(&old, &patch), Some(new));
            }
        }

        #[test]
        fn hostile_patches_never_panic_nor_grow(old: Vec<u8>, patch: Vec<u8>) {
            if let Some(new) = apply(&old, &patch) {
                prop_assert!(new.len() <= ATTRIBUTES_BYTES_MAX);
            }
        }
    }
}
