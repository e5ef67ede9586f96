//! Runs the streams of HTTP/2 connections, and ends those whose client takes
//! nothing of its answer.
//!
//! A client that gives a stream no window makes no write wait, so the
//! connection's own watch cannot see it. Each stream's task looks at whose turn
//! it is; ending the task resets the stream alone.
//!
//! Holds: a timer exists only for a stream that waits for its client.

use hyper::rt::Executor;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

tokio::task_local! {
    static PACE: Arc<Pace>;
}

/// Counts the pieces of an answer; odd while the client has one to take.
#[derive(Debug, Default)]
pub struct Pace {
    pieces: AtomicU64,
    stalled: AtomicBool,
}

impl Pace {
    /// Of the stream that the caller runs on.
    pub fn current() -> Option<Arc<Self>> {
        PACE.try_with(Arc::clone).ok()
    }

    pub fn piece_given(&self) {
        let before = self.pieces.load(Relaxed);
        self.pieces.store((before | 1) + 2, Relaxed);
    }

    pub fn piece_awaited(&self) {
        self.pieces.fetch_and(!1, Relaxed);
    }

    /// The stream is being ended because its client took nothing.
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Relaxed)
    }

    /// The piece the client has to take.
    fn given(&self) -> Option<u64> {
        Some(self.pieces.load(Relaxed)).filter(|count| count % 2 == 1)
    }
}

#[derive(Clone, Debug)]
pub struct Streams {
    pub stall: Duration,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        tokio::spawn(run(stream, self.stall));
    }
}

async fn run<F: Future<Output = ()>>(stream: F, stall: Duration) {
    let pace = Arc::new(Pace::default());
    let mut stream = pin!(PACE.scope(Arc::clone(&pace), stream));
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    let mut waits_for = None;
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let given = pace.given();
        if given.is_none() {
            waits_for = None;
            return Poll::Pending;
        }
        let deadline = Instant::now() + stall;
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if given != waits_for {
            timer.as_mut().reset(deadline);
            waits_for = given;
        }
        let over = timer.as_mut().poll(cx);
        pace.stalled.store(over.is_ready(), Relaxed);
        over
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turn_is_the_clients_from_a_piece_given_to_the_next_one_awaited() {
        let pace = Pace::default();
        assert_eq!(pace.given(), None);
        pace.piece_given();
        let first = pace.given();
        pace.piece_given();
        assert!(first.is_some() && pace.given().is_some() && pace.given() != first);
        pace.piece_awaited();
        assert_eq!(pace.given(), None);
    }
}
