//! Which clients are connected: each by one connection at a time.
//!
//! Holds: what came in by an earlier connection of a client has ended before a
//! later one is served, so that a call sent again never overtakes itself; what
//! is remembered of a client is forgotten only long after it can have calls
//! left to send again.

use super::lock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use store::{EmbeddedStore, ONCE_PREFIX, once_prefix};
use tokio::sync::{OwnedMutexGuard, watch};

const FORGET_AFTER: Duration = Duration::from_mins(10);

struct Client {
    turn: Arc<tokio::sync::Mutex<()>>,
    newest: watch::Sender<u64>,
    connections: usize,
    left: Instant,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            turn: Arc::default(),
            newest: watch::Sender::new(0),
            connections: 0,
            left: Instant::now(),
        }
    }
}

type Clients = Arc<Mutex<BTreeMap<String, Client>>>;

#[derive(Default)]
pub struct Presence(Clients);

/// A connection's right to serve its client.
pub struct Turn {
    clients: Clients,
    client: String,
    number: u64,
    newest: watch::Receiver<u64>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Presence {
    /// Those of whom something is remembered and nobody is known here are away.
    pub fn learn(&self, store: &EmbeddedStore) {
        let found = store.read_here(|view| {
            let mut clients = Vec::new();
            let mut after: Option<String> = None;
            while let Some(key) = view.keys(ONCE_PREFIX, after.as_deref(), 1).pop() {
                let rest = key.strip_prefix(ONCE_PREFIX).unwrap_or_default();
                let client = rest.split('/').next().unwrap_or_default().to_owned();
                // After all that is kept for it.
                after = Some(once_prefix(&client) + "~");
                clients.push(client);
            }
            clients
        });
        let mut clients = lock(&self.0);
        for client in found {
            clients.entry(client).or_default();
        }
    }

    /// Ends the client's earlier connection, and waits until it has.
    pub async fn enter(&self, client: &str) -> Turn {
        let (mut turn, place) = {
            let mut clients = lock(&self.0);
            let known = clients.entry(client.to_owned()).or_default();
            known.connections += 1;
            known.newest.send_modify(|newest| *newest += 1);
            let turn = Turn {
                clients: Arc::clone(&self.0),
                client: client.to_owned(),
                number: *known.newest.borrow(),
                newest: known.newest.subscribe(),
                guard: None,
            };
            (turn, Arc::clone(&known.turn))
        };
        turn.guard = Some(place.lock_owned().await);
        turn
    }

    /// The clients that have been away for long; they are strangers from now on.
    pub fn forget(&self, now: Instant) -> Vec<String> {
        let mut clients = lock(&self.0);
        let gone = |client: &Client| {
            client.connections == 0 && now.saturating_duration_since(client.left) > FORGET_AFTER
        };
        let names: Vec<String> = clients
            .iter()
            .filter(|(_, client)| gone(client))
            .map(|(name, _)| name.clone())
            .collect();
        for name in &names {
            clients.remove(name);
        }
        names
    }
}

impl Turn {
    /// Waits until the client has come by a newer connection.
    pub async fn replaced(&mut self) {
        let number = self.number;
        let forgotten = {
            let newer = self.newest.wait_for(|newest| *newest != number);
            newer.await.is_err()
        };
        if forgotten {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(client) = lock(&self.clients).get_mut(&self.client) {
            client.connections -= 1;
            client.left = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_later_connection_waits_for_the_end_of_the_earlier_one() {
        let presence = Presence::default();
        let mut first = presence.enter("c").await;
        let later = presence.enter("c");
        let serving = async {
            first.replaced().await;
            drop(first);
        };
        let (second, ()) = tokio::join!(later, serving);
        let other = presence.enter("d").await;
        let long_after = Instant::now() + FORGET_AFTER * 2;
        assert_eq!(presence.forget(long_after), [""; 0]);
        drop(second);
        assert_eq!(presence.forget(long_after), ["c"]);
        drop(other);
        assert_eq!(presence.forget(Instant::now()), [""; 0]);
    }
}
