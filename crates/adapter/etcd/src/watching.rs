//! A watch that outlives the member of etcd that serves it.
//!
//! Holds: each revision is told once and whole, in order; what was compacted
//! away is told as a resync, once and for ever; a stream that breaks is begun
//! again after what was told last. Safe to drop between two events.

use crate::layout::Layout;
use crate::serve::{ANSWER_BYTES_MAX, entry, number, signed};
use etcd_client::{
    Event as Told, EventType, WatchClient, WatchOptions, WatchResponse, WatchStream,
};
use kernel::Revision;
use node::BoxFuture;
use node::store::{Event, StoreError, Watch, WatchEvent};
use std::collections::VecDeque;
use std::time::Duration;

/// Between two tries to watch.
const AGAIN: Duration = Duration::from_millis(200);
const BEGIN_SPAN_MAX: Duration = Duration::from_secs(5);

pub struct Watching {
    client: WatchClient,
    layout: Layout,
    start: Vec<u8>,
    end: Vec<u8>,
    after: Revision,
    stream: Option<WatchStream>,
    /// Told by etcd, and not yet here.
    waiting: VecDeque<WatchEvent>,
    resync: Option<Revision>,
}

impl Watching {
    pub fn new(client: WatchClient, layout: Layout, prefix: &str, after: Revision) -> Self {
        let (start, end) = layout.under(prefix);
        Self {
            client: client.max_decoding_message_size(ANSWER_BYTES_MAX),
            layout,
            start,
            end,
            after,
            stream: None,
            waiting: VecDeque::new(),
            resync: None,
        }
    }

    async fn begin(&mut self) {
        let options = WatchOptions::new()
            .with_range(self.end.clone())
            .with_start_revision(signed(self.after.0.saturating_add(1)));
        let begun = self.client.watch(self.start.clone(), Some(options));
        match tokio::time::timeout(BEGIN_SPAN_MAX, begun).await {
            Ok(Ok(stream)) => self.stream = Some(stream),
            Ok(Err(error)) => {
                tracing::debug!(%error, "etcd cannot be watched");
                tokio::time::sleep(AGAIN).await;
            }
            Err(_) => {}
        }
    }

    fn take(&mut self, response: &WatchResponse) {
        if response.canceled() {
            self.stream = None;
            // The oldest that is left to be watched.
            let oldest = response.compact_revision();
            self.resync = (oldest > 0).then(|| Revision(number(oldest)));
            return;
        }
        let at = |told: &Told| told.kv().map_or(0, |row| number(row.mod_revision()));
        let told = response.events();
        for told in told.chunk_by(|one, next| at(one) == at(next)) {
            let revision = Revision(told.first().map_or(0, at));
            if revision <= self.after {
                continue;
            }
            self.after = revision;
            let events = told.iter().filter_map(|told| self.event(told));
            let events: Vec<Event> = events.collect();
            if !events.is_empty() {
                self.waiting
                    .push_back(WatchEvent::Changes { revision, events });
            }
        }
    }

    fn event(&self, told: &Told) -> Option<Event> {
        let row = told.kv()?;
        match told.event_type() {
            EventType::Put => entry(row, &self.layout).map(Event::Put),
            EventType::Delete => self.layout.key(row.key()).map(Event::Deleted),
        }
    }
}

impl Watch for Watching {
    fn next(&mut self) -> BoxFuture<'_, Result<WatchEvent, StoreError>> {
        Box::pin(async move {
            loop {
                if let Some(event) = self.waiting.pop_front() {
                    return Ok(event);
                }
                if let Some(oldest) = self.resync {
                    return Ok(WatchEvent::Resync { oldest });
                }
                let Some(stream) = &mut self.stream else {
                    self.begin().await;
                    continue;
                };
                let Ok(Some(response)) = stream.message().await else {
                    self.stream = None;
                    tokio::time::sleep(AGAIN).await;
                    continue;
                };
                self.take(&response);
                if response.canceled() && self.resync.is_none() {
                    tracing::debug!(why = response.cancel_reason(), "etcd ended a watch");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        })
    }
}
