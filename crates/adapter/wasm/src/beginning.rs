//! Until a guest's answer begins, or the guest ends without one.
//!
//! Decides when the head of an answer is passed on.
//! Holds: a guest that only gave way to others is waited for: its short body is
//! mostly whole after its next turn, and so known in length. One that waits
//! for anything else, or computes for long, holds back nothing.

use crate::answer::{self, Answer};
use crate::error::GuestError;
use crate::progress::Progress;
use crate::work::Work;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::oneshot;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

type Head = http::Response<HyperOutgoingBody>;
pub(crate) type Given = Result<Head, ErrorCode>;

pub(crate) struct Beginning {
    work: Option<Work>,
    given: Option<oneshot::Receiver<Given>>,
    held: Option<Head>,
    progress: Arc<Progress>,
}

impl Beginning {
    pub(crate) fn new(
        work: Work,
        given: oneshot::Receiver<Given>,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            work: Some(work),
            given: Some(given),
            held: None,
            progress,
        }
    }

    /// What the guest gave as its answer, if it did by now.
    fn look(&mut self, has_ended: bool, context: &mut Context<'_>) -> Result<(), GuestError> {
        let Some(given) = &mut self.given else {
            return Ok(());
        };
        let came = match Pin::new(&mut *given).poll(context) {
            Poll::Ready(came) => came.ok(),
            // It may hold back what is there, for other tasks' sake; after the
            // end nobody asks again.
            Poll::Pending if has_ended => given.try_recv().ok(),
            Poll::Pending => return Ok(()),
        };
        self.given = None;
        match came {
            Some(Ok(head)) => self.held = Some(head),
            Some(Err(code)) => {
                let why = format!("it answered with the error {code:?}");
                return Err(GuestError::Trap(why));
            }
            None => {}
        }
        Ok(())
    }
}

impl Future for Beginning {
    type Output = Result<Answer, GuestError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = match self.work.as_mut().map(|work| Pin::new(work).poll(context)) {
            Some(Poll::Ready(outcome)) => {
                self.work = None;
                Some(outcome)
            }
            Some(Poll::Pending) | None => None,
        };
        if let Err(error) = self.look(ended.is_some(), context) {
            return Poll::Ready(Err(error));
        }
        let goes_on = self.work.as_ref().is_some_and(Work::gave_way);
        if let Some(head) = self.held.take_if(|_| !goes_on) {
            let progress = Arc::clone(&self.progress);
            let answer = answer::begin(head, progress, self.work.take(), context);
            return Poll::Ready(Ok(answer));
        }
        match ended {
            Some(outcome) => Poll::Ready(Err(outcome.err().unwrap_or(GuestError::NoAnswer))),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Host;
    use crate::lane::TURNS_AMONG_OTHERS;
    use crate::work::Boxed;
    use bytes::Bytes;
    use http_body::Body;
    use http_body_util::{BodyExt, StreamBody};
    use std::future::poll_fn;
    use tokio::sync::mpsc;
    use wasmtime_wasi_http::Error;

    /// As a guest gives way: it is to be asked again at once.
    async fn gives_way(progress: &Progress) {
        let mut had = false;
        poll_fn(|context| {
            if had {
                return Poll::Ready(());
            }
            had = true;
            progress.had_turn();
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Begins its answer, gives way so often, waits for `held`, and writes.
    fn guest(turns: u32, held: Option<oneshot::Receiver<()>>) -> Beginning {
        let progress = Arc::<Progress>::default();
        let (give, given) = oneshot::channel();
        let known = Arc::clone(&progress);
        let work: Boxed = Box::pin(async move {
            let (write, written) = mpsc::channel::<Bytes>(1);
            let pieces = futures_util::stream::unfold(written, |mut written| async {
                let bytes = written.recv().await?;
                Some((Ok::<_, Error>(http_body::Frame::data(bytes)), written))
            });
            let body = BodyExt::boxed_unsync(StreamBody::new(pieces));
            let _ = give.send(Ok(http::Response::new(body)));
            for _ in 0..turns {
                gives_way(&known).await;
            }
            if let Some(held) = held {
                let _ = held.await;
            }
            let _ = write.send(Bytes::from_static(b"hello")).await;
            known.is_done();
            Ok(())
        });
        let host = Host::new().expect("a host");
        Beginning::new(
            Work::new(work, host, Arc::clone(&progress)),
            given,
            progress,
        )
    }

    #[tokio::test]
    async fn a_short_body_has_its_length_though_its_guest_gave_way_meanwhile() {
        for turns in 0..TURNS_AMONG_OTHERS {
            let answer = guest(turns, None).await.expect("an answer");
            assert_eq!(answer.body().size_hint().exact(), Some(5));
            let body = answer.into_body().collect().await.expect("whole");
            assert_eq!(body.to_bytes(), "hello");
        }
    }

    #[tokio::test]
    async fn a_head_is_not_held_back_for_a_guest_that_waits() {
        for turns in 0..=TURNS_AMONG_OTHERS {
            let (let_go, held) = oneshot::channel();
            let answer = guest(turns, Some(held)).await.expect("an answer");
            assert_eq!(answer.body().size_hint().exact(), None);
            let_go.send(()).expect("it waits");
            let body = answer.into_body().collect().await.expect("whole");
            assert_eq!(body.to_bytes(), "hello");
        }
    }
}
