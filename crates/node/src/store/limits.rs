//! What a call of a store may ask for, the same for each implementation.
//!
//! In: keys, values, transactions, leases. Out: why one is refused.
//! Holds: what passes here, each implementation takes.

use super::{Compare, Operation, StoreError, Transaction};
use std::ops::RangeInclusive;
use std::time::Duration;

pub const KEY_BYTES_MAX: usize = 1 << 10;
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Comparisons are counted too.
pub const TRANSACTION_OPERATIONS_MAX: usize = 4_096;
/// Of all keys and values of one transaction.
pub const TRANSACTION_BYTES_MAX: usize = 8 << 20;
pub const LEASE_NAME_BYTES_MAX: usize = 256;
pub const LEASE_SPAN: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);

pub fn too_large(what: &str, found: usize, unit: &str, max: usize) -> StoreError {
    StoreError::Invalid(format!(
        "{what} has {found} {unit}; at most {max} are allowed"
    ))
}

pub fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() {
        return Err(StoreError::Invalid("a key is empty".into()));
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(too_large("a key", key.len(), "bytes", KEY_BYTES_MAX));
    }
    Ok(())
}

/// An empty one is that of all keys.
pub fn check_prefix(prefix: &str) -> Result<(), StoreError> {
    if prefix.is_empty() {
        return Ok(());
    }
    check_key(prefix)
}

pub fn check_value(value: &[u8]) -> Result<(), StoreError> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(too_large("a value", value.len(), "bytes", VALUE_BYTES_MAX));
    }
    Ok(())
}

/// * `what`: how messages call it, such as `a lease's name`.
pub fn check_label(what: &str, label: &str) -> Result<(), StoreError> {
    if label.is_empty() {
        return Err(StoreError::Invalid(format!("{what} is empty")));
    }
    if label.len() > LEASE_NAME_BYTES_MAX {
        return Err(too_large(what, label.len(), "bytes", LEASE_NAME_BYTES_MAX));
    }
    Ok(())
}

pub fn check_lease(name: &str, holder: &str, time_to_live: Duration) -> Result<(), StoreError> {
    check_label("a lease's name", name)?;
    check_label("a lease's holder", holder)?;
    if !LEASE_SPAN.contains(&time_to_live) {
        return Err(StoreError::Invalid(format!(
            "a lease lives {time_to_live:?}; {:?} to {:?} are allowed",
            LEASE_SPAN.start(),
            LEASE_SPAN.end(),
        )));
    }
    Ok(())
}

impl Transaction {
    /// # Errors
    /// [`StoreError::Invalid`]: it is larger than a store takes.
    pub fn check(&self) -> Result<(), StoreError> {
        let count = self.compare.len() + self.then.len() + self.otherwise.len();
        if count > TRANSACTION_OPERATIONS_MAX {
            let max = TRANSACTION_OPERATIONS_MAX;
            return Err(too_large("a transaction", count, "operations", max));
        }
        for compare in &self.compare {
            match compare {
                Compare::Absent(key) | Compare::Present(key) | Compare::Modified(key, _) => {
                    check_key(key)?;
                }
                Compare::Value(key, value) => check_key(key).and_then(|()| check_value(value))?,
                Compare::Lease(name, _) => check_label("a lease's name", name)?,
            }
        }
        for operation in self.then.iter().chain(&self.otherwise) {
            match operation {
                Operation::Put(key, value) => check_key(key).and_then(|()| check_value(value))?,
                Operation::Delete(key) => check_key(key)?,
                Operation::DeletePrefix(prefix) => check_prefix(prefix)?,
            }
        }
        let bytes = self.bytes();
        if bytes > TRANSACTION_BYTES_MAX {
            let max = TRANSACTION_BYTES_MAX;
            return Err(too_large("a transaction", bytes, "bytes", max));
        }
        Ok(())
    }

    /// Of all its keys and values.
    pub fn bytes(&self) -> usize {
        let compared = self.compare.iter().map(|compare| match compare {
            Compare::Absent(key)
            | Compare::Present(key)
            | Compare::Modified(key, _)
            | Compare::Lease(key, _) => key.len(),
            Compare::Value(key, value) => key.len() + value.len(),
        });
        let operations = self.then.iter().chain(&self.otherwise);
        let written = operations.map(|operation| match operation {
            Operation::Put(key, value) => key.len() + value.len(),
            Operation::Delete(key) | Operation::DeletePrefix(key) => key.len(),
        });
        compared.sum::<usize>() + written.sum::<usize>()
    }
}
