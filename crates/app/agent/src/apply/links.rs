//! Addresses by which services of this node find each other.
//!
//! In: desired state, and what runs here. Out: what each caller is told.
//! Holds: replicas that run find what they were told for as long as they may
//! call it, whoever was restarted meanwhile: what was given out is on disk first,
//! unless the disk does not take it.

use crate::shared::Shared;
use crate::tls::write_private;
use discovery::Book;
use kernel::{NodeId, ScopedName};
use node::desired::Desired;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use wire::layout::Layout;

pub struct Links {
    path: PathBuf,
    book: Mutex<Book>,
}

impl Links {
    pub fn open(layout: &Layout) -> Self {
        let path = layout.links();
        let kept = std::fs::read(&path).ok();
        let kept = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let root = layout.root.to_string_lossy();
        let new = || Book::new(kernel::fnv1a(root.bytes()));
        Self {
            path,
            book: Mutex::new(kept.unwrap_or_else(new)),
        }
    }

    /// Fills in what callers of this node are told.
    pub fn complete(&self, shared: &Shared, desired: &mut Desired) {
        let mut here = wanted_here(desired, shared.cluster.own.id);
        // Those that drain call on.
        here.extend(shared.status.borrow().services.keys().cloned());
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let before = book.clone();
        desired.callers = discovery::callers(&desired.manifests(), &here, &mut book);
        if *book == before {
            return;
        }
        let written = serde_json::to_vec(&*book).map_err(|error| error.to_string());
        let written = written.and_then(|bytes| {
            write_private(&self.path, &bytes).map_err(|error| kernel::error_chain(&error))
        });
        if let Err(why) = written {
            tracing::error!(
                why,
                "services' addresses are not on disk: after a restart they may be others"
            );
        }
    }
}

/// Services that are placed here, and all jobs, which come without notice.
fn wanted_here(desired: &Desired, own: NodeId) -> BTreeSet<ScopedName> {
    let services = desired.services();
    let placed =
        services.filter(|(name, service, applied)| applied.share(&name.name, service, own) > 0);
    let placed = placed.map(|(name, ..)| name);
    let jobs = desired.manifest_jobs().map(|(name, ..)| name);
    placed.chain(jobs).collect()
}
