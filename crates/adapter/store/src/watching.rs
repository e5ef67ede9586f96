//! A watch: reads history from where it stands, then waits.
//!
//! Holds: no revision is skipped; what history no longer has is told as a
//! resync, once and for ever; a stopped store wakes it.

use crate::health::Health;
use crate::shared::Shared;
use kernel::Revision;
use node::BoxFuture;
use node::store::{StoreError, Watch, WatchEvent};
use std::sync::Arc;
use tokio::sync::watch;

pub struct Watching {
    prefix: String,
    after: Revision,
    resync: Option<Revision>,
    changed: watch::Receiver<()>,
    shared: Arc<Shared>,
    health: Arc<Health>,
}

impl Watching {
    pub fn new(prefix: String, after: Revision, shared: Arc<Shared>, health: Arc<Health>) -> Self {
        Self {
            prefix,
            after,
            resync: None,
            changed: shared.changed.subscribe(),
            shared,
            health,
        }
    }

    fn step(&mut self) -> Option<WatchEvent> {
        if let Some(oldest) = self.resync {
            return Some(WatchEvent::Resync { oldest });
        }
        let (revision, oldest, found) = self.shared.with(|_, state| {
            let found = state.next_events(&self.prefix, self.after);
            (state.revision(), state.oldest(), found)
        });
        if self.after.0.saturating_add(1) < oldest.0 {
            self.resync = Some(oldest);
            return Some(WatchEvent::Resync { oldest });
        }
        if let Some((revision, events)) = found {
            self.after = revision;
            return Some(WatchEvent::Changes { revision, events });
        }
        self.after = self.after.max(revision);
        None
    }
}

impl Watch for Watching {
    fn next(&mut self) -> BoxFuture<'_, Result<WatchEvent, StoreError>> {
        Box::pin(async move {
            loop {
                self.changed.mark_unchanged();
                if let Some(event) = self.step() {
                    return Ok(event);
                }
                tokio::select! {
                    biased;
                    stopped = self.health.ended() => return Err(stopped),
                    changed = self.changed.changed() => if changed.is_err() {
                        return Err(self.health.ended().await);
                    }
                }
            }
        })
    }
}
