//! What each project may do on this node.

use kernel::Name;
use node::desired::{POLICY_PREFIX, ProjectPolicy};
use node::store::{Store, StoreError};
use std::collections::BTreeMap;

/// A policy that cannot be read is an error, never a project without limits.
pub async fn read_policies(store: &dyn Store) -> Result<BTreeMap<Name, ProjectPolicy>, StoreError> {
    let range = store.range(POLICY_PREFIX).await?;
    let mut policies = BTreeMap::new();
    for entry in range.entries {
        let damaged =
            |error: &dyn std::error::Error| StoreError::Invalid(format!("{}: {error}", entry.key));
        let name = entry.key.strip_prefix(POLICY_PREFIX).unwrap_or_default();
        let project = Name::new(name).map_err(|error| damaged(&error))?;
        let policy = serde_json::from_slice(&entry.value).map_err(|error| damaged(&error))?;
        policies.insert(project, policy);
    }
    Ok(policies)
}
