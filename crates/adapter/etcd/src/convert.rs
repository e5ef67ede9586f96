//! A transaction of the store as one of etcd's.
//!
//! In: comparisons, and operations that are done one after the other. Out:
//! operations whose order does not matter, for etcd takes no two of a
//! transaction that touch one key.
//! Holds: afterwards each key is as if all had been done in their order.

use crate::layout::{Layout, successor};
use etcd_client::{Compare as Comparison, CompareOp, DeleteOptions, GetOptions, Txn, TxnOp};
use kernel::{FencingEpoch, Revision};
use node::store::{Compare, Operation, Transaction};
use std::collections::BTreeMap;
use std::ops::Bound;

/// What is left of operations when their order is taken away.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Writes {
    puts: BTreeMap<Vec<u8>, Vec<u8>>,
    /// From the first on, before the second; none has a key that is put.
    deletions: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Writes {
    fn of(operations: Vec<Operation>, layout: &Layout) -> Self {
        let mut puts = BTreeMap::new();
        let mut gone = Vec::new();
        for operation in operations {
            let (start, end) = match operation {
                Operation::Put(key, value) => {
                    puts.insert(layout.entry(&key), value);
                    continue;
                }
                Operation::Delete(key) => {
                    let key = layout.entry(&key);
                    let end = successor(&key);
                    (key, end)
                }
                Operation::DeletePrefix(prefix) => layout.under(&prefix),
            };
            puts.retain(|key, _| !(start <= *key && *key < end));
            gone.push((start, end));
        }
        let mut deletions = Vec::new();
        for (mut start, end) in gone {
            let from = (Bound::Included(&start), Bound::Excluded(&end));
            for put in puts.range::<Vec<u8>, _>(from).map(|(key, _)| key) {
                if start < *put {
                    deletions.push((start, put.clone()));
                }
                start = successor(put);
            }
            if start < end {
                deletions.push((start, end));
            }
        }
        Self { puts, deletions }
    }

    fn operations(self) -> Vec<TxnOp> {
        let deletions = self.deletions.into_iter().map(|(start, end)| {
            let range = DeleteOptions::new().with_range(end);
            TxnOp::delete(start, Some(range))
        });
        let puts = self.puts.into_iter();
        let puts = puts.map(|(key, value)| TxnOp::put(key, value, None));
        deletions.chain(puts).collect()
    }
}

pub fn transaction(transaction: Transaction, layout: &Layout) -> Txn {
    let Transaction {
        compare,
        then,
        otherwise,
    } = transaction;
    let compare = compare.into_iter().map(|one| comparison(one, layout));
    let compare: Vec<Comparison> = compare.collect();
    let mut then = Writes::of(then, layout).operations();
    let mut otherwise = Writes::of(otherwise, layout).operations();
    if then.is_empty() && otherwise.is_empty() {
        // Without anything to do, etcd compares with what the asked member has,
        // which may be behind; a read makes it ask the others first.
        then.push(look(layout));
        otherwise.push(look(layout));
    }
    Txn::new().when(compare).and_then(then).or_else(otherwise)
}

fn look(layout: &Layout) -> TxnOp {
    TxnOp::get(layout.entry(""), Some(GetOptions::new().with_count_only()))
}

fn comparison(compare: Compare, layout: &Layout) -> Comparison {
    match compare {
        Compare::Absent(key) => is_absent(layout.entry(&key)),
        Compare::Present(key) => {
            Comparison::create_revision(layout.entry(&key), CompareOp::Greater, 0)
        }
        Compare::Modified(key, Revision(at)) => modified(layout.entry(&key), at),
        // Of a key that is not there, etcd finds no value equal.
        Compare::Value(key, value) => {
            Comparison::value(layout.entry(&key), CompareOp::Equal, value)
        }
        Compare::Lease(name, FencingEpoch(epoch)) => modified(layout.lease(&name), epoch),
    }
}

pub fn is_absent(key: Vec<u8>) -> Comparison {
    Comparison::create_revision(key, CompareOp::Equal, 0)
}

/// Zero is what etcd says of a key that is not there: here, it never holds.
pub fn modified(key: Vec<u8>, at: u64) -> Comparison {
    match i64::try_from(at) {
        Ok(at) if at > 0 => Comparison::mod_revision(key, CompareOp::Equal, at),
        _ => Comparison::create_revision(key, CompareOp::Less, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

    fn one_by_one(rows: &mut Rows, operations: &[Operation], layout: &Layout) {
        for operation in operations {
            match operation {
                Operation::Put(key, value) => {
                    rows.insert(layout.entry(key), value.clone());
                }
                Operation::Delete(key) => drop(rows.remove(&layout.entry(key))),
                Operation::DeletePrefix(prefix) => {
                    let prefix = layout.entry(prefix);
                    rows.retain(|key, _| !key.starts_with(&prefix));
                }
            }
        }
    }

    fn at_once(rows: &mut Rows, writes: &Writes) {
        for (start, end) in &writes.deletions {
            rows.retain(|key, _| !(start <= key && key < end));
        }
        rows.extend(writes.puts.clone());
    }

    fn key() -> impl Strategy<Value = String> {
        "[ab/]{1,3}"
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            (key(), any::<u8>()).prop_map(|(key, byte)| Operation::Put(key, vec![byte])),
            key().prop_map(Operation::Delete),
            "[ab/]{0,2}".prop_map(Operation::DeletePrefix),
        ]
    }

    proptest! {
        #[test]
        fn without_their_order_operations_do_the_same(
            before in proptest::collection::btree_set(key(), 0..10),
            operations in proptest::collection::vec(operation(), 0..12),
        ) {
            let layout = Layout::new("r");
            let before = before.iter().map(|key| (layout.entry(key), vec![0]));
            let mut expected: Rows = before.collect();
            let mut found = expected.clone();
            one_by_one(&mut expected, &operations, &layout);
            let writes = Writes::of(operations, &layout);
            at_once(&mut found, &writes);
            prop_assert_eq!(found, expected);
            // What etcd would refuse.
            let put: BTreeSet<_> = writes.puts.keys().collect();
            for (start, end) in &writes.deletions {
                prop_assert!(start < end);
                prop_assert!(!put.iter().any(|key| start <= *key && *key < end));
            }
        }
    }
}
