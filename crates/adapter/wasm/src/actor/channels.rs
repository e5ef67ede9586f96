//! Clients that have an actor's events: server-sent events, by channel.
//!
//! In: joins, leaves, what the actor publishes. Out: each client's stream.
//! Holds: a client that takes nothing loses its stream once [`EVENTS_MAX`] wait
//! for it; the others' are not held up. Never: keeps events for later.

use super::error::ActorError;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Interval, MissedTickBehavior};

/// That wait for one client.
const EVENTS_MAX: usize = 64;
/// So that a client which is gone without a word is found out.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What a browser waits before it comes again: the worker may just have been
/// replaced.
const BEGIN: &[u8] = b"retry: 1000\n\n";

pub(super) struct Hub {
    state: Mutex<State>,
    /// Somebody joined or left.
    pub(super) changed: Notify,
    subscribers_max: usize,
}

struct State {
    subscribers: BTreeMap<u64, Subscriber>,
    next: u64,
    /// Nobody joins any more.
    closed: bool,
}

struct Subscriber {
    channel: String,
    events: mpsc::Sender<Bytes>,
}

impl Hub {
    /// `first`: numbers of subscribers begin here, so that those of another run
    /// are not taken for ours.
    pub(super) fn new(first: u64, subscribers_max: usize) -> Arc<Self> {
        let state = State {
            subscribers: BTreeMap::new(),
            next: first,
            closed: false,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Notify::new(),
            subscribers_max,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn join(self: &Arc<Self>, channel: String) -> Result<Events, ActorError> {
        let mut state = self.lock();
        if state.closed {
            return Err(ActorError::Stopped);
        }
        if state.subscribers.len() >= self.subscribers_max {
            return Err(ActorError::Subscribers(self.subscribers_max));
        }
        let subscriber = state.next;
        state.next = state.next.wrapping_add(1);
        let (events, came) = mpsc::channel(EVENTS_MAX);
        let entry = Subscriber { channel, events };
        state.subscribers.insert(subscriber, entry);
        let mut keep_alive = tokio::time::interval(KEEP_ALIVE);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        keep_alive.reset();
        Ok(Events {
            begun: false,
            came,
            keep_alive,
            subscriber,
            hub: Arc::clone(self),
        })
    }

    /// Gives an event to everybody on `channel`; how many that were.
    pub(super) fn publish(&self, channel: &str, data: &[u8]) -> u32 {
        let event = event(data);
        let mut state = self.lock();
        let (mut given, mut lost) = (0, 0_u32);
        state.subscribers.retain(|_, subscriber| {
            if subscriber.channel != channel {
                return true;
            }
            let taken = subscriber.events.try_send(event.clone()).is_ok();
            if taken {
                given += 1;
            } else {
                lost += 1;
            }
            taken
        });
        drop(state);
        if lost > 0 {
            tracing::info!(channel, lost, "clients too slow for their events");
            self.changed.notify_one();
        }
        given
    }

    fn leave(&self, subscriber: u64) {
        if self.lock().subscribers.remove(&subscriber).is_some() {
            self.changed.notify_one();
        }
    }

    /// Ends all streams: each client is told by the end of its own.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.subscribers.clear();
    }

    pub(super) fn channels(&self) -> BTreeMap<u64, String> {
        let state = self.lock();
        let all = state.subscribers.iter();
        all.map(|(subscriber, entry)| (*subscriber, entry.channel.clone()))
            .collect()
    }
}

/// One `data:` line for each line of `data`.
fn event(data: &[u8]) -> Bytes {
    let text = String::from_utf8_lossy(data);
    let mut event = String::with_capacity(text.len() + 8);
    for line in text.replace("\r\n", "\n").split(['\n', '\r']) {
        event.extend(["data: ", line, "\n"]);
    }
    event.push('\n');
    event.into()
}

/// One client's stream; dropping it leaves the channel.
pub struct Events {
    begun: bool,
    came: mpsc::Receiver<Bytes>,
    keep_alive: Interval,
    subscriber: u64,
    hub: Arc<Hub>,
}

impl Events {
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if !self.begun {
            self.begun = true;
            return Poll::Ready(Some(Bytes::from_static(BEGIN)));
        }
        if let Poll::Ready(came) = self.came.poll_recv(context) {
            self.keep_alive.reset();
            return Poll::Ready(came);
        }
        let tick = Pin::new(&mut self.keep_alive).poll_tick(context);
        tick.map(|_| Some(Bytes::from_static(b":\n\n")))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.hub.leave(self.subscriber);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_line_of_data_and_no_line_ends_the_event() {
        let text = |data: &[u8]| String::from_utf8_lossy(&event(data)).into_owned();
        assert_eq!(text(b"1"), "data: 1\n\n");
        assert_eq!(text(b""), "data: \n\n");
        assert_eq!(
            text(b"a\nevent: b\r\nc\rd\n\n"),
            "data: a\ndata: event: b\ndata: c\ndata: d\ndata: \ndata: \n\n"
        );
    }

    #[tokio::test]
    async fn a_slow_reader_is_dropped_and_the_others_go_on() {
        let hub = Hub::new(1, 2);
        let mut slow = hub.join("live".to_owned()).expect("joins");
        let mut quick = hub.join("live".to_owned()).expect("joins");
        let full = hub.join("live".to_owned()).err();
        assert_eq!(full, Some(ActorError::Subscribers(2)));
        let begin = next(&mut quick).await;
        assert_eq!(begin.as_deref(), Some(BEGIN));
        for count in 0..=EVENTS_MAX {
            let given = hub.publish("live", count.to_string().as_bytes());
            assert_eq!(given, if count < EVENTS_MAX { 2 } else { 1 });
            let event = next(&mut quick).await.expect("an event");
            assert_eq!(event, format!("data: {count}\n\n"));
        }
        assert_eq!(hub.channels().len(), 1);
        // What was there already is given still, then its stream ends.
        let mut given = 0;
        while next(&mut slow).await.is_some() {
            given += 1;
        }
        assert_eq!(given, EVENTS_MAX + 1);
        drop(quick);
        assert!(hub.channels().is_empty());
    }

    async fn next(events: &mut Events) -> Option<Bytes> {
        std::future::poll_fn(|context| events.poll_next(context)).await
    }
}
