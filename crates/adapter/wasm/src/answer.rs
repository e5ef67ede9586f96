//! An answer's body, as the guest writes it.
//!
//! Holds: a body that its guest wrote whole before its head was taken is known
//! in length; one that was cut off ends with an error, never as a whole one.

use crate::progress::Progress;
use crate::work::{Outcome, Work};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::task::JoinHandle;
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

pub type Answer = http::Response<AnswerBody>;

pub struct AnswerBody {
    /// What has come already.
    ready: VecDeque<Frame<Bytes>>,
    /// None once it ended.
    rest: Option<HyperOutgoingBody>,
    /// Bytes that its head announced and that are still to come.
    announced: Option<u64>,
    progress: Arc<Progress>,
    guest: Going,
}

/// A guest that goes on while its answer is read: it is ended with the answer.
struct Going(Option<JoinHandle<Outcome>>);

impl Drop for Going {
    fn drop(&mut self) {
        if let Some(guest) = &self.0 {
            guest.abort();
        }
    }
}

/// The answer of a guest that may not have returned yet.
pub(crate) fn begin(
    answer: http::Response<HyperOutgoingBody>,
    progress: Arc<Progress>,
    going: Option<Work>,
    context: &mut Context<'_>,
) -> Answer {
    let announced = answer
        .headers()
        .get(http::header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    answer.map(|rest| {
        let mut body = AnswerBody {
            ready: VecDeque::new(),
            rest: Some(rest),
            announced,
            progress,
            guest: Going(None),
        };
        match going {
            Some(work) => body.guest = Going(Some(tokio::spawn(work))),
            None => body.take_what_came(context),
        }
        body
    })
}

impl AnswerBody {
    /// The guest has returned: often all is here.
    fn take_what_came(&mut self, context: &mut Context<'_>) {
        while let Poll::Ready(Some(Ok(frame))) = self.next(context) {
            self.ready.push_back(frame);
        }
    }

    fn next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(rest) = &mut self.rest else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(rest).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) && !self.progress.was_cut() {
            self.rest = None;
        }
        polled
    }

    fn is_whole(&self) -> bool {
        self.announced == Some(0) || (self.rest.is_none() && self.ready.is_empty())
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = match self.ready.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => self.next(context),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let came = frame.data_ref().map_or(0, Bytes::len) as u64;
                self.announced = self.announced.map(|left| left.saturating_sub(came));
            }
            Poll::Ready(None) if self.rest.take().is_some() => {
                return Poll::Ready(Some(Err(Error::HttpResponseIncomplete)));
            }
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.ready.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let came = self.ready.iter().filter_map(Frame::data_ref);
        let bytes = came.map(|data| data.len() as u64).sum();
        let mut hint = SizeHint::new();
        hint.set_lower(bytes);
        if self.rest.is_none() && self.ready.iter().all(Frame::is_data) {
            hint.set_exact(bytes);
        }
        hint
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        if self.is_whole() {
            // What the guest does after its answer is bounded by its time.
            self.guest.0 = None;
        }
    }
}
