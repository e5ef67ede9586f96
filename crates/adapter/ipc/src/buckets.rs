//! Buckets over the agent's socket: many calls in flight on one connection.
//!
//! Holds: while the agent is away a call waits up to [`HOLD_MAX`], then it is
//! refused; a call that is sent again keeps its number, by which the agent knows
//! whether it was done; a watch goes on after the last change that it told.
//! Never: does a call twice.

use crate::connection::{IpcError, ReceiveHalf, SendHalf, connect};
use kernel::Revision;
use node::BoxFuture;
use node::buckets::{BucketWatch, Buckets, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use wire::bucket::{
    Answer, BucketError, Call, FromBuckets, HOLD_MAX, ToBuckets, VERSION, WatchEvent,
};

const IN_FLIGHT_MAX: usize = 1_024;
/// Events of one watch that wait for their reader; then it watches anew.
const EVENTS_QUEUED_MAX: usize = 64;
const CONNECT_AGAIN: Duration = Duration::from_millis(20);

/// Cheap to clone; a process needs one.
#[derive(Clone)]
pub struct BucketClient {
    asks: mpsc::UnboundedSender<Ask>,
    places: Arc<Semaphore>,
    watches: Arc<AtomicU64>,
}

type Told = Result<WatchEvent, BucketError>;

/// What the client asks of the task that holds the connection.
enum Ask {
    Call {
        target: Target,
        call: Call,
        pending: Pending,
    },
    Watch {
        id: u64,
        message: ToBuckets,
        events: mpsc::Sender<Told>,
    },
    Unwatch(u64),
}

struct Pending {
    answer: oneshot::Sender<Result<Answer, BucketError>>,
    until: Instant,
    _place: OwnedSemaphorePermit,
}

fn away(may_be_done: bool) -> BucketError {
    BucketError::Unavailable {
        why: format!("the agent did not answer within {}s", HOLD_MAX.as_secs()),
        may_be_done,
    }
}

fn ended() -> BucketError {
    BucketError::Unavailable {
        why: "this process ends".to_owned(),
        may_be_done: true,
    }
}

impl BucketClient {
    /// Connects as soon as there is somebody to connect to; within a runtime.
    pub fn new(socket: &Path) -> std::io::Result<Self> {
        let (asks, queue) = mpsc::unbounded_channel();
        let keeper = Keeper {
            socket: socket.to_owned(),
            client: random_name()?,
            last: 0,
            pending: BTreeMap::new(),
            ends: BTreeSet::new(),
            was_connected: false,
            watches: BTreeMap::new(),
        };
        tokio::spawn(keeper.run(queue));
        Ok(Self {
            asks,
            places: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            watches: Arc::default(),
        })
    }

    fn begin_watch(
        &self,
        target: &Target,
        prefix: &str,
        after: Revision,
    ) -> (u64, mpsc::Receiver<Told>) {
        let id = self.watches.fetch_add(1, Ordering::Relaxed);
        let (events, told) = mpsc::channel(EVENTS_QUEUED_MAX);
        let message = ToBuckets::Watch {
            id,
            capability: target.capability.to_string(),
            binding: target.binding.to_string(),
            prefix: prefix.to_owned(),
            after,
        };
        let ask = Ask::Watch {
            id,
            message,
            events,
        };
        let _ = self.asks.send(ask);
        (id, told)
    }
}

/// Drawn at random: nobody takes another's answers.
fn random_name() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

impl Buckets for BucketClient {
    fn call<'a>(
        &'a self,
        target: &'a Target,
        call: Call,
    ) -> BoxFuture<'a, Result<Answer, BucketError>> {
        Box::pin(async move {
            call.check()?;
            let until = Instant::now() + HOLD_MAX;
            let place = Arc::clone(&self.places).acquire_owned();
            let place = tokio::time::timeout_at(until, place).await;
            let place = place.map_err(|_| away(false))?.map_err(|_| ended())?;
            let (answer, answered) = oneshot::channel();
            let ask = Ask::Call {
                target: target.clone(),
                call,
                pending: Pending {
                    answer,
                    until,
                    _place: place,
                },
            };
            let _ = self.asks.send(ask);
            answered.await.unwrap_or_else(|_| Err(ended()))
        })
    }

    fn watch<'a>(
        &'a self,
        target: &'a Target,
        prefix: &'a str,
        after: Revision,
    ) -> BoxFuture<'a, Result<Box<dyn BucketWatch>, BucketError>> {
        let (id, told) = self.begin_watch(target, prefix, after);
        let watching = Watching {
            client: self.clone(),
            target: target.clone(),
            prefix: prefix.to_owned(),
            after,
            last: None,
            id,
            told,
        };
        Box::pin(async move { Ok(Box::new(watching) as Box<dyn BucketWatch>) })
    }
}

struct Watching {
    client: BucketClient,
    target: Target,
    prefix: String,
    after: Revision,
    /// What it ended with.
    last: Option<Told>,
    id: u64,
    told: mpsc::Receiver<Told>,
}

impl BucketWatch for Watching {
    fn next(&mut self) -> BoxFuture<'_, Told> {
        Box::pin(async move {
            loop {
                if let Some(last) = &self.last {
                    return last.clone();
                }
                match self.told.recv().await {
                    Some(Ok(WatchEvent::Changes { revision, changes })) => {
                        self.after = revision;
                        return Ok(WatchEvent::Changes { revision, changes });
                    }
                    Some(last) => self.last = Some(last),
                    None if self.client.asks.is_closed() => self.last = Some(Err(ended())),
                    // The connection was lost, or this reader was slow.
                    None => {
                        let client = &self.client;
                        (self.id, self.told) =
                            client.begin_watch(&self.target, &self.prefix, self.after);
                    }
                }
            }
        })
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.client.asks.send(Ask::Unwatch(self.id));
    }
}

struct Waiting {
    target: Target,
    call: Call,
    pending: Pending,
    sent: bool,
}

struct Watched {
    message: ToBuckets,
    events: mpsc::Sender<Told>,
}

/// Holds the connection, and all that waits for it.
struct Keeper {
    socket: PathBuf,
    client: String,
    /// The number of the last call.
    last: u64,
    pending: BTreeMap<u64, Waiting>,
    /// When each of them is given up.
    ends: BTreeSet<(Instant, u64)>,
    watches: BTreeMap<u64, Watched>,
    was_connected: bool,
}

/// What was kept, and is to be sent where there is a connection.
enum Kept {
    Call(u64),
    Message(ToBuckets),
}

type Queue = mpsc::UnboundedReceiver<Ask>;

impl Keeper {
    /// Until the last client is gone.
    async fn run(mut self, mut queue: Queue) {
        loop {
            let Some((sender, receiver)) = self.reach(&mut queue).await else {
                return;
            };
            let (out, messages) = mpsc::unbounded_channel();
            let writing = tokio::spawn(write(sender, messages));
            let goes_on = self.talk(&mut queue, receiver, &out).await;
            writing.abort();
            if !goes_on {
                return;
            }
            // Their readers begin anew from where they stand.
            self.watches.clear();
        }
    }

    /// Connects, and holds calls meanwhile; `None` when nobody calls any more.
    async fn reach(&mut self, queue: &mut Queue) -> Option<(SendHalf, ReceiveHalf)> {
        let socket = self.socket.clone();
        let again = std::mem::replace(&mut self.was_connected, true);
        let attempt = async {
            // One that closes at once must not keep us busy.
            if again {
                tokio::time::sleep(CONNECT_AGAIN).await;
            }
            loop {
                if let Ok(connection) = connect(&socket).await {
                    return connection.into_split();
                }
                tokio::time::sleep(CONNECT_AGAIN).await;
            }
        };
        tokio::pin!(attempt);
        loop {
            tokio::select! {
                halves = &mut attempt => return Some(halves),
                ask = queue.recv() => drop(self.keep(ask?)),
                () = until(self.next_end()) => self.give_up(),
            }
        }
    }

    /// Says whether anybody still calls.
    async fn talk(
        &mut self,
        queue: &mut Queue,
        mut receiver: ReceiveHalf,
        out: &mpsc::UnboundedSender<ToBuckets>,
    ) -> bool {
        let _ = out.send(ToBuckets::Hello {
            version: VERSION,
            client: self.client.clone(),
        });
        let numbers: Vec<u64> = self.pending.keys().copied().collect();
        for id in numbers {
            if let Some(message) = self.message(id) {
                let _ = out.send(message);
            }
        }
        for watched in self.watches.values() {
            let _ = out.send(watched.message.clone());
        }
        loop {
            tokio::select! {
                ask = queue.recv() => {
                    let Some(ask) = ask else { return false };
                    let message = match self.keep(ask) {
                        Some(Kept::Call(id)) => self.message(id),
                        Some(Kept::Message(message)) => Some(message),
                        None => None,
                    };
                    if let Some(message) = message {
                        let _ = out.send(message);
                    }
                }
                heard = receiver.receive() => match heard {
                    Ok(Some((message, _))) => {
                        if let Some(message) = self.receive(message) {
                            let _ = out.send(message);
                        }
                    }
                    Ok(None) | Err(_) => return true,
                },
                () = until(self.next_end()) => self.give_up(),
            }
        }
    }

    fn keep(&mut self, ask: Ask) -> Option<Kept> {
        match ask {
            Ask::Call {
                target,
                call,
                pending,
            } => {
                self.last += 1;
                self.ends.insert((pending.until, self.last));
                let waiting = Waiting {
                    target,
                    call,
                    pending,
                    sent: false,
                };
                self.pending.insert(self.last, waiting);
                Some(Kept::Call(self.last))
            }
            Ask::Watch {
                id,
                message,
                events,
            } => {
                let sent = Kept::Message(message.clone());
                self.watches.insert(id, Watched { message, events });
                Some(sent)
            }
            Ask::Unwatch(id) => {
                self.watches.remove(&id)?;
                Some(Kept::Message(ToBuckets::Unwatch { id }))
            }
        }
    }

    fn message(&mut self, id: u64) -> Option<ToBuckets> {
        let oldest = *self.pending.keys().next()?;
        let waiting = self.pending.get_mut(&id)?;
        waiting.sent = true;
        Some(ToBuckets::Call {
            id,
            answered: oldest - 1,
            capability: waiting.target.capability.to_string(),
            binding: waiting.target.binding.to_string(),
            call: waiting.call.clone(),
        })
    }

    fn receive(&mut self, message: FromBuckets) -> Option<ToBuckets> {
        match message {
            FromBuckets::Answer { id, answer } => {
                if let Some(waiting) = self.pending.remove(&id) {
                    self.ends.remove(&(waiting.pending.until, id));
                    let _ = waiting.pending.answer.send(answer);
                }
                None
            }
            FromBuckets::Watched { id, event } => {
                let watched = self.watches.get(&id)?;
                let last = !matches!(event, Ok(WatchEvent::Changes { .. }));
                let kept = watched.events.try_send(event).is_ok();
                if kept && !last {
                    return None;
                }
                self.watches.remove(&id);
                (!last).then_some(ToBuckets::Unwatch { id })
            }
        }
    }

    fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(until, _)| *until)
    }

    fn give_up(&mut self) {
        let now = Instant::now();
        while let Some((until, id)) = self.ends.first().copied()
            && until <= now
        {
            self.ends.remove(&(until, id));
            if let Some(waiting) = self.pending.remove(&id) {
                let may_be_done = waiting.sent && waiting.call.writes();
                let _ = waiting.pending.answer.send(Err(away(may_be_done)));
            }
        }
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

async fn write(
    mut sender: SendHalf,
    mut messages: mpsc::UnboundedReceiver<ToBuckets>,
) -> Result<(), IpcError> {
    let mut waiting = Vec::new();
    while messages.recv_many(&mut waiting, IN_FLIGHT_MAX).await > 0 {
        sender.send_many(&waiting).await?;
        waiting.clear();
    }
    Ok(())
}
