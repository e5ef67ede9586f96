//! Moves services to new generations while their manifest stays: what they are
//! started with has changed elsewhere.
//!
//! Holds: the cause (a secret, a policy) and the new generations are written in
//! one transaction. The caller holds `applying`.

use crate::apply::{read_head, storage, write_head_with};
use crate::machine::unix_now;
use crate::shared::Shared;
use kernel::{Name, Revision};
use manifest::Service;
use node::desired::Applied;
use node::store::{Operation, Store, Transaction};
use std::sync::Arc;
use wire::api::ApiError;

/// Returns the services that are replaced, `service/NAME` each.
pub async fn roll(
    shared: &Arc<Shared>,
    project: &Name,
    concerns: impl Fn(&Service) -> bool,
    cause: Vec<Operation>,
) -> Result<Vec<String>, ApiError> {
    let head = read_head(&shared.control, project).await?;
    let moved: Vec<Name> = head
        .iter()
        .flat_map(|(applied, _)| &applied.manifest.services)
        .filter(|(_, service)| concerns(service))
        .map(|(name, _)| name.clone())
        .collect();
    match head {
        Some((current, revision)) if !moved.is_empty() => {
            let mut applied = Applied {
                number: current.number + 1,
                at_unix: unix_now(),
                ..current
            };
            for name in &moved {
                let generation = Revision(applied.number);
                applied.generations.insert(name.clone(), generation);
            }
            write_head_with(shared, &applied, Some(revision), None, cause).await?;
        }
        _ => {
            let transaction = Transaction {
                then: cause,
                ..Transaction::default()
            };
            let done = shared.control.transact(transaction).await;
            done.map_err(|error| storage(&error))?;
        }
    }
    Ok(moved.iter().map(|name| format!("service/{name}")).collect())
}
