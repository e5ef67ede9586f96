//! The smallest, the largest, and the first few in an order.
//!
//! Holds: entries are ordered by their keys and then by the value, so that only
//! the same are equal: which of them is kept then makes no difference.

use crate::program::cell::{Cell, order};
use std::cmp::Ordering;
use wire::attributes::{Entry, Scalar};

/// Takes a value when it is before the one kept.
#[inline]
pub(in crate::program) fn keep(kept: &mut Option<Scalar>, cell: &Cell, largest: bool) {
    let better = match (cell, &*kept) {
        (_, None) => true,
        (Cell::Int(new), Some(Scalar::Int(old))) => new != old && (new > old) == largest,
        (Cell::Float(new), Some(Scalar::Float(old))) => {
            (new > old && largest) || (new < old && !largest)
        }
        (Cell::Text(new), Some(Scalar::Text(old))) => match new.as_bytes().cmp(old.as_bytes()) {
            Ordering::Equal => false,
            order => (order == Ordering::Greater) == largest,
        },
        (cell, Some(old)) => {
            let new = cell.scalar();
            new.is_some_and(|new| order(&new, old, largest) == Ordering::Less)
        }
    };
    if better {
        *kept = cell.scalar();
    }
}

#[derive(Clone, Debug)]
pub(in crate::program) struct First {
    pub(super) most: usize,
    pub(super) descending: Vec<bool>,
    pub(super) entries: Vec<Entry>,
}

impl First {
    /// Whether a row with this first key may still get in: told without looking
    /// at the rest of it.
    #[inline]
    pub(in crate::program) fn may_enter(&self, key: &Cell) -> bool {
        let last = match self.entries.last() {
            Some(last) if self.entries.len() == self.most => last,
            _ => return true,
        };
        let descending = self.descending.first() == Some(&true);
        match (key, last.keys.first()) {
            (Cell::Null, Some(Some(_))) => false,
            (
                Cell::Int(_) | Cell::Float(_) | Cell::Time(_) | Cell::Duration(_),
                Some(Some(last)),
            ) => key
                .scalar()
                .is_none_or(|key| order(&key, last, descending) != Ordering::Greater),
            _ => true,
        }
    }

    pub(in crate::program) fn add(&mut self, entry: Entry) {
        let found = self
            .entries
            .binary_search_by(|known| compare(known, &entry, &self.descending));
        let (Ok(at) | Err(at)) = found;
        if at < self.most {
            self.entries.truncate(self.most - 1);
            self.entries.insert(at, entry);
        }
    }
}

fn compare(one: &Entry, other: &Entry, descending: &[bool]) -> Ordering {
    let keys = one.keys.iter().zip(&other.keys).zip(descending);
    keys.map(|((one, other), descending)| match (one, other) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(one), Some(other)) => order(one, other, *descending),
    })
    .find(|order| *order != Ordering::Equal)
    .unwrap_or_else(|| order(&one.value, &other.value, false))
}
