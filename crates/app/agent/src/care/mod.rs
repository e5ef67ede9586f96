//! Keeps the data directory in order: compressed forms of what is served are
//! made ahead, what nothing names any more is collected, logs stay bounded, the
//! certificate of our own is renewed in time.
//!
//! Never: touches what a head or a state kept for `rollback` names.

pub mod seal;

use crate::shared::{Message, Shared};
use kernel::Hash;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

const COLLECT_EVERY: Duration = Duration::from_hours(1);
/// Often against the third of its life in which a leaf is made anew.
const RENEW_EVERY: Duration = Duration::from_hours(12);
const LOGS_EVERY: Duration = Duration::from_mins(1);
const LOG_BYTES_MAX: u64 = 16 << 20;

/// Runs for ever.
pub async fn run(shared: Arc<Shared>) {
    tokio::join!(
        precompress(&shared),
        collect(&shared),
        bound_logs(&shared),
        renew(&shared)
    );
}

/// A node on which nothing changes would show its first certificate for ever.
async fn renew(shared: &Shared) {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        let (answer, published) = oneshot::channel();
        let _ = shared.messages.send(Message::Certificates(answer)).await;
        // A node that goes down has other cares.
        let _ = published.await;
    }
}

/// After each change of desired state; a newer change ends the work on an
/// older one.
async fn precompress(shared: &Arc<Shared>) {
    let mut snapshots = shared.snapshot.subscribe();
    let mut seen = BTreeSet::new();
    while snapshots.changed().await.is_ok() {
        let trees: BTreeSet<Hash> = {
            let snapshot = snapshots.borrow_and_update();
            snapshot.sites.values().map(|site| site.tree).collect()
        };
        if trees.is_subset(&seen) {
            continue;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (content, stopped, wanted) = (shared.content.clone(), Arc::clone(&stop), trees.clone());
        let mut work = tokio::task::spawn_blocking(move || {
            wanted
                .into_iter()
                .try_for_each(|tree| content.precompress(tree, &stopped).map(drop))
        });
        let outcome = tokio::select! {
            outcome = &mut work => outcome,
            () = newer(&mut snapshots, &trees) => {
                stop.store(true, Ordering::Relaxed);
                work.await
            }
        };
        match outcome {
            Ok(Ok(())) if !stop.load(Ordering::Relaxed) => seen = trees,
            Ok(Ok(())) => snapshots.mark_changed(),
            Ok(Err(error)) => tracing::warn!(%error, "not compressed ahead"),
            Err(error) => tracing::error!(%error, "compressing ended badly"),
        }
    }
}

async fn newer(
    snapshots: &mut tokio::sync::watch::Receiver<Arc<wire::edge::EdgeSnapshot>>,
    trees: &BTreeSet<Hash>,
) {
    let closed = snapshots
        .wait_for(|snapshot| {
            snapshot
                .sites
                .values()
                .any(|site| !trees.contains(&site.tree))
        })
        .await
        .is_err();
    if closed {
        std::future::pending::<()>().await;
    }
}

async fn collect(shared: &Arc<Shared>) {
    loop {
        tokio::time::sleep(COLLECT_EVERY).await;
        if let Err(error) = crate::cluster::content::act::collect(shared, &BTreeSet::new()).await {
            tracing::warn!(error, "content not collected");
        }
    }
}

async fn bound_logs(shared: &Arc<Shared>) {
    loop {
        for role in ["supervisor", "agent", "edge"] {
            let path = shared.layout.logs().join(format!("{role}.log"));
            if let Err(error) = bound_log(&path, LOG_BYTES_MAX) {
                tracing::warn!(path = %path.display(), %error, "log not bounded");
            }
        }
        tokio::time::sleep(LOGS_EVERY).await;
    }
}

/// Its writers append, so the file itself is emptied once it has been copied.
fn bound_log(path: &Path, bytes_max: u64) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.len() > bytes_max => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    fs::copy(path, path.with_extension("log.1"))?;
    File::options().write(true).open(path)?.set_len(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_log_over_its_bound_starts_anew_and_its_writer_goes_on() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("edge.log");
        let mut writer = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .expect("opens");
        writer.write_all(b"one two three\n").expect("writes");
        bound_log(&path, 100).expect("looks");
        assert_eq!(fs::read(&path).expect("reads"), b"one two three\n");
        bound_log(&path, 10).expect("bounds");
        writer.write_all(b"four\n").expect("writes");
        assert_eq!(fs::read(&path).expect("reads"), b"four\n");
        let old = fs::read(folder.path().join("edge.log.1")).expect("reads");
        assert_eq!(old, b"one two three\n");
    }
}
