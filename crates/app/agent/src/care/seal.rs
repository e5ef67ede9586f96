//! Seals the edge's row segments into Parquet, within the cap: now and then, and
//! as soon as an edge has come or gone, for it may have left some behind.

use crate::shared::Shared;
use kernel::Bytes;
use std::sync::Arc;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(30);
const CAP_MAX: Bytes = Bytes(10_000_000_000);

/// Runs for ever.
pub async fn run(shared: Arc<Shared>) {
    let mut edge = shared.edge_connected.subscribe();
    loop {
        edge.mark_unchanged();
        let rows = shared.layout.access_rows();
        let parquet = shared.layout.access_parquet();
        let cap = cap(&shared.layout.root);
        let sealed = tokio::task::spawn_blocking(move || telemetry::seal(&rows, &parquet, cap));
        match sealed.await {
            Ok(Ok(sealed)) => tracing::debug!(?sealed, "sealed"),
            Ok(Err(error)) => tracing::warn!(%error, "access rows not sealed"),
            Err(error) => tracing::error!(%error, "sealing ended badly"),
        }
        // It ends with the agent only.
        let _ = tokio::time::timeout(EVERY, edge.changed()).await;
    }
}

/// The smaller of 5 % of the disk and 10 GB.
fn cap(root: &std::path::Path) -> Bytes {
    rustix::fs::statvfs(root).map_or(CAP_MAX, |disk| {
        let disk_bytes = disk.f_blocks.saturating_mul(disk.f_frsize);
        Bytes((disk_bytes / 20).min(CAP_MAX.0))
    })
}
