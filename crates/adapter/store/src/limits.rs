//! What a call may ask for, and how much may wait.

use crate::change::{BOUND_SLASHES_MAX, Change, Step};
use crate::types::Command;
use node::store::{
    Compare, KEY_BYTES_MAX, Operation, StoreError, TRANSACTION_OPERATIONS_MAX, Transaction,
    VALUE_BYTES_MAX,
};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Of all keys and values of one transaction.
pub const TRANSACTION_BYTES_MAX: usize = 8 << 20;
pub const LEASE_NAME_BYTES_MAX: usize = 256;
pub const LEASE_SPAN: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);

fn invalid(what: &str, found: usize, unit: &str, max: usize) -> StoreError {
    StoreError::Invalid(format!(
        "{what} has {found} {unit}; at most {max} are allowed"
    ))
}

fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() {
        return Err(StoreError::Invalid("a key is empty".into()));
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(invalid("a key", key.len(), "bytes", KEY_BYTES_MAX));
    }
    Ok(())
}

fn check_value(value: &[u8]) -> Result<(), StoreError> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(invalid("a value", value.len(), "bytes", VALUE_BYTES_MAX));
    }
    Ok(())
}

fn check_label(what: &str, label: &str) -> Result<(), StoreError> {
    if label.is_empty() {
        return Err(StoreError::Invalid(format!("{what} is empty")));
    }
    if label.len() > LEASE_NAME_BYTES_MAX {
        return Err(invalid(what, label.len(), "bytes", LEASE_NAME_BYTES_MAX));
    }
    Ok(())
}

pub fn check_prefix(prefix: &str) -> Result<(), StoreError> {
    if prefix.is_empty() {
        return Ok(());
    }
    check_key(prefix)
}

pub fn check(command: &Command) -> Result<(), StoreError> {
    match command {
        Command::Transact(transaction) => check_transaction(transaction),
        Command::Change(change) => check_change(change),
        Command::Grant {
            name,
            holder,
            time_to_live,
        } => {
            check_label("a lease's name", name)?;
            check_label("a lease's holder", holder)?;
            if !LEASE_SPAN.contains(time_to_live) {
                return Err(StoreError::Invalid(format!(
                    "a lease lives {time_to_live:?}; {:?} to {:?} are allowed",
                    LEASE_SPAN.start(),
                    LEASE_SPAN.end(),
                )));
            }
            Ok(())
        }
        Command::Renew { name, .. }
        | Command::Release { name, .. }
        | Command::Expire { name, .. } => check_label("a lease's name", name),
        Command::From { .. } => Ok(()),
    }
}

fn check_transaction(transaction: &Transaction) -> Result<(), StoreError> {
    let Transaction {
        compare,
        then,
        otherwise,
    } = transaction;
    let count = compare.len() + then.len() + otherwise.len();
    if count > TRANSACTION_OPERATIONS_MAX {
        let max = TRANSACTION_OPERATIONS_MAX;
        return Err(invalid("a transaction", count, "operations", max));
    }
    for compare in compare {
        match compare {
            Compare::Absent(key) | Compare::Present(key) | Compare::Modified(key, _) => {
                check_key(key)?;
            }
            Compare::Value(key, value) => check_key(key).and_then(|()| check_value(value))?,
            Compare::Lease(name, _) => check_label("a lease's name", name)?,
        }
    }
    for operation in then.iter().chain(otherwise) {
        match operation {
            Operation::Put(key, value) => check_key(key).and_then(|()| check_value(value))?,
            Operation::Delete(key) => check_key(key)?,
            Operation::DeletePrefix(prefix) => check_prefix(prefix)?,
        }
    }
    let bytes = transaction_bytes(transaction);
    if bytes > TRANSACTION_BYTES_MAX {
        let max = TRANSACTION_BYTES_MAX;
        return Err(invalid("a transaction", bytes, "bytes", max));
    }
    Ok(())
}

fn check_change(change: &Change) -> Result<(), StoreError> {
    let count = change.steps.len() + change.bounds.len();
    if count > TRANSACTION_OPERATIONS_MAX {
        let max = TRANSACTION_OPERATIONS_MAX;
        return Err(invalid("a change", count, "steps", max));
    }
    if let Some(fence) = &change.fence {
        check_label("a fence's holder", &fence.holder)?;
    }
    if let Some(once) = &change.once {
        check_label("a client's name", &once.client)?;
        if once.client.contains('/') {
            return Err(StoreError::Invalid("a client's name has a `/`".into()));
        }
    }
    for bound in &change.bounds {
        let slashes = bound.prefix.matches('/').count();
        if !bound.prefix.ends_with('/') || slashes > BOUND_SLASHES_MAX {
            let reason = format!("`{}` cannot be bounded", bound.prefix);
            return Err(StoreError::Invalid(reason));
        }
    }
    for step in &change.steps {
        check_key(key_of(step))?;
        check_value(value_of(step).unwrap_or_default())?;
    }
    let bytes = change_bytes(change);
    if bytes > TRANSACTION_BYTES_MAX {
        let max = TRANSACTION_BYTES_MAX;
        return Err(invalid("a change", bytes, "bytes", max));
    }
    Ok(())
}

fn key_of(step: &Step) -> &str {
    match step {
        Step::Put(key, _)
        | Step::Delete(key)
        | Step::Add(key, _)
        | Step::CompareAndSet { key, .. } => key,
    }
}

fn value_of(step: &Step) -> Option<&[u8]> {
    match step {
        Step::Put(_, value) => Some(value),
        Step::CompareAndSet { value, .. } => value.as_deref(),
        Step::Delete(_) | Step::Add(..) => None,
    }
}

fn change_bytes(change: &Change) -> usize {
    let steps = change.steps.iter();
    let steps = steps.map(|step| key_of(step).len() + value_of(step).map_or(0, <[u8]>::len));
    let bounds = change.bounds.iter().map(|bound| bound.prefix.len());
    let once = change.once.as_ref().map_or(0, |once| once.client.len());
    let fence = change.fence.as_ref().map_or(0, |fence| fence.holder.len());
    steps.sum::<usize>() + bounds.sum::<usize>() + once + fence
}

/// Whether the state grows by it; what only shrinks it helps a full disk.
pub fn takes_room(command: &Command) -> bool {
    match command {
        Command::Transact(transaction) => {
            let mut operations = transaction.then.iter().chain(&transaction.otherwise);
            operations.any(|operation| matches!(operation, Operation::Put(..)))
        }
        Command::Change(change) => change
            .steps
            .iter()
            .any(|step| value_of(step).is_some() || matches!(step, Step::Add(..))),
        Command::Grant { .. } => true,
        Command::Renew { .. }
        | Command::Release { .. }
        | Command::Expire { .. }
        | Command::From { .. } => false,
    }
}

fn transaction_bytes(transaction: &Transaction) -> usize {
    let compared = transaction.compare.iter().map(|compare| match compare {
        Compare::Absent(key)
        | Compare::Present(key)
        | Compare::Modified(key, _)
        | Compare::Lease(key, _) => key.len(),
        Compare::Value(key, value) => key.len() + value.len(),
    });
    let operations = transaction.then.iter().chain(&transaction.otherwise);
    let written = operations.map(|operation| match operation {
        Operation::Put(key, value) => key.len() + value.len(),
        Operation::Delete(key) | Operation::DeletePrefix(key) => key.len(),
    });
    compared.sum::<usize>() + written.sum::<usize>()
}

/// What the command takes in the log, give or take its numbers.
pub fn command_bytes(command: &Command) -> usize {
    const NUMBERS_BYTES: usize = 64;
    NUMBERS_BYTES
        + match command {
            Command::Transact(transaction) => transaction_bytes(transaction),
            Command::Change(change) => change_bytes(change),
            Command::Grant { name, holder, .. } => name.len() + holder.len(),
            Command::Renew { name, .. }
            | Command::Release { name, .. }
            | Command::Expire { name, .. } => name.len(),
            Command::From { .. } => 0,
        }
}
