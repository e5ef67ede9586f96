//! The socket: connections, calls in flight, watches.
//!
//! Holds: of a client, one connection is served at a time, up to
//! [`IN_FLIGHT_MAX`] calls at once; when the agent goes down, what was not
//! answered is left to the client to send again.

use super::BucketServer;
use super::calls::{Fail, Watching};
use super::presence::Turn;
use ipc::{Connection, SendHalf};
use node::store::{Operation, Store, Transaction};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Once, once_prefix};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use wire::bucket::{BucketError, FromBuckets, ToBuckets, VERSION, WatchEvent};

const IN_FLIGHT_MAX: usize = 1_024;
const WATCHES_MAX: usize = 1_024;
const ANSWERS_QUEUED_MAX: usize = 1_024;
const HELLO_MAX: Duration = Duration::from_secs(10);
const CLIENT_BYTES_MAX: usize = 64;

pub async fn forget(server: &BucketServer) {
    for client in server.presence.forget(Instant::now()) {
        let transaction = Transaction {
            then: vec![Operation::DeletePrefix(once_prefix(&client))],
            ..Transaction::default()
        };
        if let Err(error) = server.store.transact(transaction).await {
            tracing::warn!(%error, "what was remembered of a client is kept");
        }
    }
}

fn is_client(name: &str) -> bool {
    (1..=CLIENT_BYTES_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

pub async fn serve(server: Arc<BucketServer>, mut connection: Connection) {
    let hello = tokio::time::timeout(HELLO_MAX, connection.receive()).await;
    let client = match hello {
        Ok(Ok(Some((ToBuckets::Hello { version, client }, _))))
            if version == VERSION && is_client(&client) =>
        {
            client
        }
        Ok(Ok(Some((ToBuckets::Hello { version, .. }, _)))) => {
            tracing::warn!(
                version,
                ours = VERSION,
                "a client of buckets speaks otherwise"
            );
            return;
        }
        _ => return,
    };
    let turn = server.presence.enter(&client).await;
    let (sender, receiver) = connection.into_split();
    let (answers, queue) = mpsc::channel(ANSWERS_QUEUED_MAX);
    let mut session = Session {
        server,
        client,
        answers,
        work: JoinSet::new(),
        watches: BTreeMap::new(),
    };
    let ended = session.run(receiver, sender, queue, turn).await;
    tracing::debug!(client = session.client, ended, "a client of buckets left");
}

/// What a task of a session ends with.
enum Done {
    Answered,
    Watched(u64),
    Leaving,
}

struct Session {
    server: Arc<BucketServer>,
    client: String,
    answers: mpsc::Sender<FromBuckets>,
    work: JoinSet<Done>,
    watches: BTreeMap<u64, AbortHandle>,
}

impl Session {
    async fn run(
        &mut self,
        mut receiver: ipc::ReceiveHalf,
        sender: SendHalf,
        queue: mpsc::Receiver<FromBuckets>,
        mut turn: Turn,
    ) -> &'static str {
        let mut writing = Box::pin(write(sender, queue));
        let ended = loop {
            let room = self.work.len() - self.watches.len() < IN_FLIGHT_MAX;
            tokio::select! {
                () = &mut writing => break "it reads no more",
                () = turn.replaced() => break "it came anew",
                Some(done) = self.work.join_next(), if !self.work.is_empty() => match done {
                    Ok(Done::Leaving) => break "the agent goes down",
                    Ok(Done::Watched(id)) => drop(self.watches.remove(&id)),
                    Ok(Done::Answered) | Err(_) => {}
                },
                message = receiver.receive(), if room => match message {
                    Ok(Some((message, _))) => {
                        if !self.take(message) {
                            break "it said what cannot be";
                        }
                    }
                    Ok(None) => break "it closed",
                    Err(_) => break "its connection failed",
                },
            }
        };
        // Before the client's next connection is served.
        self.work.shutdown().await;
        ended
    }

    fn take(&mut self, message: ToBuckets) -> bool {
        let (server, answers) = (Arc::clone(&self.server), self.answers.clone());
        match message {
            ToBuckets::Hello { .. } => return false,
            ToBuckets::Call {
                id,
                answered,
                capability,
                binding,
                call,
            } => {
                let once = Once {
                    client: self.client.clone(),
                    number: id,
                    answered,
                };
                self.work.spawn(async move {
                    let answer = match server.call(Some(once), &capability, &binding, call).await {
                        Ok(answer) => Ok(answer),
                        Err(Fail::Told(error)) => Err(error),
                        Err(Fail::Leaving) => return Done::Leaving,
                    };
                    let _ = answers.send(FromBuckets::Answer { id, answer }).await;
                    Done::Answered
                });
            }
            ToBuckets::Unwatch { id } => {
                if let Some(watch) = self.watches.remove(&id) {
                    watch.abort();
                }
            }
            ToBuckets::Watch { id, .. } if self.watches.contains_key(&id) => return false,
            ToBuckets::Watch { id, .. } if self.watches.len() >= WATCHES_MAX => {
                let why = format!("a client watches {WATCHES_MAX} prefixes at most");
                let event = Err(BucketError::Invalid(why));
                return answers.try_send(FromBuckets::Watched { id, event }).is_ok();
            }
            ToBuckets::Watch {
                id,
                capability,
                binding,
                prefix,
                after,
            } => {
                let watch = self.work.spawn(async move {
                    let watching = server.watch(&capability, &binding, &prefix, after).await;
                    match tell(&server, id, watching, &answers).await {
                        Ok(()) => Done::Watched(id),
                        Err(Fail::Leaving) => Done::Leaving,
                        Err(Fail::Told(error)) => {
                            let event = Err(error);
                            let _ = answers.send(FromBuckets::Watched { id, event }).await;
                            Done::Watched(id)
                        }
                    }
                });
                self.watches.insert(id, watch);
            }
        }
        true
    }
}

/// Tells what is watched until that fails; a resync is the last that is told.
async fn tell(
    server: &BucketServer,
    id: u64,
    watching: Result<Watching, Fail>,
    answers: &mpsc::Sender<FromBuckets>,
) -> Result<(), Fail> {
    let mut watching = watching?;
    loop {
        let event = server.next(&mut watching).await?;
        let last = matches!(event, WatchEvent::Resync { .. });
        let event = FromBuckets::Watched {
            id,
            event: Ok(event),
        };
        if answers.send(event).await.is_err() || last {
            return Ok(());
        }
    }
}

/// Until the client reads no more, or nobody has anything to say.
async fn write(mut sender: SendHalf, mut queue: mpsc::Receiver<FromBuckets>) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, ANSWERS_QUEUED_MAX).await > 0 {
        if sender.send_many(&waiting).await.is_err() {
            return;
        }
        waiting.clear();
    }
}
