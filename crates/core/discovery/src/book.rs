//! Gives out addresses, and remembers them.
//!
//! Holds: an address is kept for as long as its key is wanted, whatever comes
//! and goes besides; two keys never share one; the same seed and the same
//! history give the same addresses.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// 127.64.0.0/10: of the loopback network, what hardly anybody else uses.
const FIRST: u32 = 0x7f40_0000;
const COUNT: u32 = 1 << 22;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// Another one on each node: several may share a machine.
    seed: u64,
    addresses: BTreeMap<String, Ipv4Addr>,
}

impl Book {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            addresses: BTreeMap::new(),
        }
    }

    pub fn address(&self, key: &str) -> Option<Ipv4Addr> {
        self.addresses.get(key).copied()
    }

    /// Forgets all others, and gives an address to each that has none; where
    /// all are taken, to none.
    pub fn keep(&mut self, wanted: &BTreeSet<String>) {
        self.addresses.retain(|key, _| wanted.contains(key));
        let mut taken: BTreeSet<Ipv4Addr> = self.addresses.values().copied().collect();
        for key in wanted {
            if self.addresses.contains_key(key) || taken.len() >= COUNT as usize {
                continue;
            }
            let bytes = self.seed.to_be_bytes().into_iter().chain(key.bytes());
            let hash = mixed(kernel::fnv1a(bytes)) % u64::from(COUNT);
            let start = u32::try_from(hash).unwrap_or_default();
            let tried = (0..COUNT).map(|step| Ipv4Addr::from_bits(FIRST + (start + step) % COUNT));
            for address in tried {
                if taken.insert(address) {
                    self.addresses.insert(key.clone(), address);
                    break;
                }
            }
        }
    }
}

/// FNV leaves alike texts near each other.
fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn addresses_stay_and_are_never_shared(
            seed: u64,
            steps in proptest::collection::vec(proptest::collection::btree_set("[a-d]{1,2}", 0..12), 1..12),
        ) {
            let mut book = Book::new(seed);
            for wanted in steps {
                let before = book.clone();
                book.keep(&wanted);
                let given: BTreeSet<Ipv4Addr> = book.addresses.values().copied().collect();
                prop_assert_eq!(given.len(), wanted.len());
                for key in &wanted {
                    let address = book.address(key).expect("given");
                    prop_assert_eq!(before.address(key).unwrap_or(address), address);
                    prop_assert!(address.octets()[0] == 127 && (64..128).contains(&address.octets()[1]));
                }
            }
        }
    }

    #[test]
    fn a_taken_address_is_passed_over() {
        let key = |text: &str| BTreeSet::from([text.to_owned()]);
        let mut book = Book::new(7);
        book.keep(&key("a"));
        let first = book.address("a").expect("given");
        let mut other = Book::new(7);
        other.addresses.insert("b".to_owned(), first);
        other.keep(&BTreeSet::from(["a".to_owned(), "b".to_owned()]));
        assert_eq!(other.address("b"), Some(first));
        let next = Ipv4Addr::from_bits(FIRST + (first.to_bits() - FIRST + 1) % COUNT);
        assert_eq!(other.address("a"), Some(next));
    }
}
