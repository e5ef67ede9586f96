//! What a call may ask for, and how much may wait.

use crate::change::{BOUND_SLASHES_MAX, Change, Step};
use crate::types::Command;
use node::store::{
    Operation, StoreError, TRANSACTION_BYTES_MAX, TRANSACTION_OPERATIONS_MAX, check_key,
    check_label, check_lease, check_value, too_large,
};

pub fn check(command: &Command) -> Result<(), StoreError> {
    match command {
        Command::Transact(transaction) => transaction.check(),
        Command::Change(change) => check_change(change),
        Command::Grant {
            name,
            holder,
            time_to_live,
        } => check_lease(name, holder, *time_to_live),
        Command::Renew { name, .. }
        | Command::Release { name, .. }
        | Command::Expire { name, .. } => check_label("a lease's name", name),
        Command::From { .. } | Command::Raise { .. } => Ok(()),
    }
}

fn check_change(change: &Change) -> Result<(), StoreError> {
    let count = change.steps.len() + change.bounds.len();
    if count > TRANSACTION_OPERATIONS_MAX {
        let max = TRANSACTION_OPERATIONS_MAX;
        return Err(too_large("a change", count, "steps", max));
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
        return Err(too_large("a change", bytes, "bytes", max));
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
        | Command::From { .. }
        | Command::Raise { .. } => false,
    }
}

/// What the command takes in the log, give or take its numbers.
pub fn command_bytes(command: &Command) -> usize {
    const NUMBERS_BYTES: usize = 64;
    NUMBERS_BYTES
        + match command {
            Command::Transact(transaction) => transaction.bytes(),
            Command::Change(change) => change_bytes(change),
            Command::Grant { name, holder, .. } => name.len() + holder.len(),
            Command::Renew { name, .. }
            | Command::Release { name, .. }
            | Command::Expire { name, .. } => name.len(),
            Command::From { .. } | Command::Raise { .. } => 0,
        }
}
