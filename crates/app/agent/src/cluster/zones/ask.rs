//! Drives questions about zones: one from a person, or from another node that
//! asks on somebody's behalf.
//!
//! Holds: so many are under way at once and no more.

use super::now;
use crate::machine::unix_now;
use crate::shared::Shared;
use aggregation::program::{Limits, ProgramError};
use aggregation::question::{Asking, CallId, Done, Effect, Event};
use kernel::ZonePath;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use wire::cluster::ASK;
use wire::tree::question::{Question, Reply};

/// Under way on this node.
const ASKED_MAX: usize = 64;
static UNDER_WAY: Semaphore = Semaphore::const_new(ASKED_MAX);
const ANSWERS_QUEUED_MAX: usize = 1_024;
/// A node that waits for an answer takes it up to so long after its time.
const GRACE: Duration = Duration::from_millis(200);

/// Between two times of asking while nodes are moved, which not all know of at
/// once.
const PAUSE: Duration = Duration::from_millis(50);
/// Then it is answered, and said.
const MOVING_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("{ASKED_MAX} questions are under way on this node")]
    Busy,
    #[error("this node is not in its cluster's table yet")]
    Nowhere,
}

/// What a person asks.
#[derive(Clone, Debug)]
pub struct Asked {
    pub zone: ZonePath,
    pub text: String,
    pub fresh: Option<Duration>,
    pub rows: u32,
    pub within: Duration,
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

pub async fn ask(shared: &Arc<Shared>, asked: Asked) -> Result<(Done, Vec<String>), AskError> {
    let question = Question {
        zone: asked.zone,
        text: asked.text,
        fresh_ms: asked.fresh.map(millis),
        rows: asked.rows,
        asked_at: unix_now(),
        within_ms: millis(asked.within),
        hops: 0,
    };
    run(shared, question).await
}

/// For another node.
pub async fn answer(shared: &Arc<Shared>, bytes: &[u8]) -> Reply {
    let question = match Question::decode(bytes) {
        Ok(question) => question,
        Err(error) => return Reply::Refused(error.to_string()),
    };
    match run(shared, question).await {
        Ok((done, _)) => done.reply(),
        Err(error) => Reply::Refused(error.to_string()),
    }
}

/// Asks until the zones stand still, or for as long as is left.
async fn run(shared: &Arc<Shared>, question: Question) -> Result<(Done, Vec<String>), AskError> {
    let _one = UNDER_WAY.try_acquire().map_err(|_| AskError::Busy)?;
    let begun = now();
    let within = Duration::from_millis(question.within_ms);
    loop {
        let left = within.saturating_sub(now().since(begun));
        let again = Question {
            within_ms: millis(left),
            ..question.clone()
        };
        let found = once(shared, again).await?;
        let moving = matches!(&found.0, Done::Answered { answer, .. } if answer.moving);
        // The next time takes about as long as this one did.
        if !moving || now().since(begun) + PAUSE > MOVING_MAX.min(within / 2) {
            return Ok(found);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What came of it, and the names of what the program gives.
async fn once(shared: &Arc<Shared>, question: Question) -> Result<(Done, Vec<String>), AskError> {
    let zones = &shared.cluster.zones;
    let asking = zones.read(|tree| Asking::begin(question, tree, Limits::default(), now()));
    let (mut asking, mut effects) = asking.ok_or(AskError::Nowhere)??;
    let names = asking.program().names().map(ToString::to_string).collect();
    let (answers, mut answered) = mpsc::channel(ANSWERS_QUEUED_MAX);
    loop {
        for effect in effects {
            match effect {
                Effect::Done(done) => return Ok((*done, names)),
                Effect::Call { call, to, question } => {
                    let calling = call_node(Arc::clone(shared), call, to, question);
                    let answers = answers.clone();
                    tokio::spawn(async move {
                        // Nobody waits any more when it is over.
                        let _ = answers.send(calling.await).await;
                    });
                }
            }
        }
        let event = tokio::select! {
            event = answered.recv() => event.unwrap_or(Event::Tick),
            () = wake(&asking) => Event::Tick,
        };
        effects = asking.handle(event, now());
    }
}

async fn wake(asking: &Asking) {
    match asking.next_wake() {
        None => std::future::pending().await,
        Some(at) => tokio::time::sleep(at.since(now())).await,
    }
}

async fn call_node(
    shared: Arc<Shared>,
    call: CallId,
    to: wire::tree::Contact,
    question: Question,
) -> Event {
    let within = Duration::from_millis(question.within_ms) + GRACE;
    let failed = Event::Failed { call };
    // A node that left the table is spoken to no more.
    let Some(record) = shared.cluster.record(to.node) else {
        return failed;
    };
    let Ok(bytes) = question.encode() else {
        return failed;
    };
    let to = record.id;
    let asked = shared.cluster.transport().call(to, ASK, bytes, within);
    match asked.await.map(|bytes| Reply::decode(&bytes)) {
        Ok(Ok(reply)) => Event::Replied {
            call,
            reply: Box::new(reply),
        },
        Ok(Err(error)) => {
            tracing::warn!(node = %to, %error, "an answer that cannot be read");
            failed
        }
        Err(error) => {
            tracing::debug!(node = %to, %error, "no answer");
            failed
        }
    }
}
