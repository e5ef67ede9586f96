//! A guest's work for one request, wherever it is done.
//!
//! Holds: it is done by whoever waits for it, without a task of its own, until
//! its answer begins; one that computes for long goes on in the slow lane;
//! dropping it ends the guest.

use crate::engine::Host;
use crate::error::GuestError;
use crate::lane::TURNS_AMONG_OTHERS;
use crate::progress::Progress;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;

pub(crate) type Outcome = Result<(), GuestError>;
pub(crate) type Boxed = Pin<Box<dyn Future<Output = Outcome> + Send>>;

pub(crate) struct Work {
    place: Place,
    host: Host,
    progress: Arc<Progress>,
    gave_way: bool,
}

enum Place {
    Here(Boxed),
    Lane(JoinHandle<Outcome>),
    Over,
}

impl Work {
    pub(crate) fn new(work: Boxed, host: Host, progress: Arc<Progress>) -> Self {
        Self {
            place: Place::Here(work),
            host,
            progress,
            gave_way: false,
        }
    }

    /// Whether it is still here and waits for nothing but its next turn.
    pub(crate) fn gave_way(&self) -> bool {
        self.gave_way
    }

    fn change_lane(&mut self) {
        if let Place::Here(work) = mem::replace(&mut self.place, Place::Over) {
            self.place = match self.host.lane.spawn(work) {
                Ok(handle) => Place::Lane(handle),
                Err(work) => Place::Here(work),
            };
        }
    }
}

impl Future for Work {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let had = self.progress.turns();
        self.gave_way = false;
        if let Place::Here(work) = &mut self.place {
            if let Poll::Ready(outcome) = work.as_mut().poll(context) {
                self.place = Place::Over;
                return Poll::Ready(outcome);
            }
            let turns = self.progress.turns();
            if turns < TURNS_AMONG_OTHERS {
                self.gave_way = turns > had;
                return Poll::Pending;
            }
            self.change_lane();
        }
        match &mut self.place {
            Place::Lane(handle) => {
                let joined = ready!(Pin::new(handle).poll(context));
                self.place = Place::Over;
                Poll::Ready(joined.unwrap_or_else(|error| Err(GuestError::Trap(error.to_string()))))
            }
            // What is over was asked once too often; what stayed here has woken us.
            Place::Here(_) | Place::Over => Poll::Pending,
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Place::Lane(handle) = &self.place {
            handle.abort();
        }
    }
}
