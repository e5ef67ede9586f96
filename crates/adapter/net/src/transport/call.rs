//! One request, one answer: a stream of its own for each.
//!
//! Holds: a caller who stops waiting cancels the call; an error says whether
//! something may have been done. Never: sends a call twice, but when the
//! connection was ended before anything ran on it.

use super::link::{Fault, InUse, Link};
use super::{Inner, ReachError, Refused, Transport, code, frames};
use crate::tls::Purpose;
use bytes::Bytes;
use kernel::{NodeId, format_duration};
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, WriteError};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use wire::net::Identity;
use wire::net::frame::{self, Head, Reply, Status};

/// A call to make.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: u16,
    pub body: Bytes,
    /// How long the caller waits, connection included.
    pub deadline: Duration,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    #[error(transparent)]
    Unreachable(#[from] ReachError),
    #[error("{limit} calls to node {node} wait for their answers already")]
    Busy { node: NodeId, limit: usize },
    #[error("node {node} has too much to do")]
    PeerBusy { node: NodeId },
    #[error("a call's body of {bytes} bytes is over the limit of {limit}")]
    TooLong { bytes: usize, limit: usize },
    #[error("node {node} knows no method {method}")]
    UnknownMethod { node: NodeId, method: u16 },
    /// The method's own error, in its own encoding.
    #[error("node {node} refused")]
    Refused { node: NodeId, error: Bytes },
    #[error("node {node} did not answer within {}", format_duration(*deadline))]
    Late { node: NodeId, deadline: Duration },
    #[error("node {node} gave the call up")]
    Abandoned { node: NodeId },
    #[error("the connection to node {node} was lost: {why}")]
    Lost { node: NodeId, why: String },
    #[error("node {node} broke the protocol: {what:?}")]
    Protocol { node: NodeId, what: Refused },
}

impl CallError {
    /// Whether the call may have had an effect.
    pub fn may_have_run(&self) -> bool {
        match self {
            Self::Unreachable(_)
            | Self::Busy { .. }
            | Self::PeerBusy { .. }
            | Self::TooLong { .. }
            | Self::UnknownMethod { .. } => false,
            Self::Refused { .. }
            | Self::Late { .. }
            | Self::Abandoned { .. }
            | Self::Lost { .. }
            | Self::Protocol { .. } => true,
        }
    }
}

/// A peer's call, to be answered. Dropped, it is told as abandoned.
#[derive(Debug)]
pub struct IncomingCall {
    pub from: Arc<Identity>,
    pub method: u16,
    pub body: Bytes,
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// Of the caller's cluster generation.
    pub generation: u16,
    answer: oneshot::Sender<Answer>,
}

type Answer = (Status, Bytes);

impl IncomingCall {
    pub(super) fn new(
        from: Arc<Identity>,
        call: &frame::Call,
        deadline: Instant,
        body: Bytes,
    ) -> (Self, oneshot::Receiver<Answer>) {
        let (answer, receiver) = oneshot::channel();
        let incoming = Self {
            from,
            method: call.method,
            body,
            deadline,
            generation: call.generation,
            answer,
        };
        (incoming, receiver)
    }

    pub fn done(self, body: impl Into<Bytes>) {
        self.send(Status::Done, body.into());
    }

    /// The method's own error.
    pub fn refuse(self, error: impl Into<Bytes>) {
        self.send(Status::Refused, error.into());
    }

    pub fn unknown_method(self) {
        self.send(Status::UnknownMethod, Bytes::new());
    }

    /// Nothing was done.
    pub fn busy(self) {
        self.send(Status::Busy, Bytes::new());
    }

    /// Until nobody waits for the answer any more.
    pub async fn cancelled(&mut self) {
        self.answer.closed().await;
    }

    fn send(self, status: Status, body: Bytes) {
        // The caller may be gone.
        let _ = self.answer.send((status, body));
    }
}

pub(super) async fn reply(
    send: &mut SendStream,
    version: u8,
    status: Status,
    body: &[u8],
) -> Result<(), Fault> {
    let head = Head::Reply(Reply {
        status,
        body_bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
    });
    let mut frame = head.encode(version).map_err(|_| Fault::Ended)?;
    if body.len() < 1_024 {
        frame.extend_from_slice(body);
        send.write_all(&frame).await.map_err(|_| Fault::Ended)?;
    } else {
        send.write_all(&frame).await.map_err(|_| Fault::Ended)?;
        send.write_all(body).await.map_err(|_| Fault::Ended)?;
    }
    send.finish().map_err(|_| Fault::Ended)
}

impl Transport {
    /// Calls a peer and waits for its answer.
    pub async fn call(
        &self,
        node: NodeId,
        method: u16,
        body: impl Into<Bytes>,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        let call = Call {
            method,
            body: body.into(),
            deadline,
        };
        let within = tokio::time::timeout(deadline, self.inner.call(node, &call));
        within
            .await
            .unwrap_or(Err(CallError::Late { node, deadline }))
    }
}

impl Inner {
    async fn call(self: &Arc<Self>, node: NodeId, call: &Call) -> Result<Bytes, CallError> {
        let limits = &self.options.limits;
        let (bytes, limit) = (call.body.len(), limits.call_bytes_max);
        if bytes > limit {
            return Err(CallError::TooLong { bytes, limit });
        }
        let calls_out = self.peers().peer(node, limits).calls_out.clone();
        let Ok(_permit) = calls_out.try_acquire() else {
            let limit = limits.calls_out_max;
            return Err(CallError::Busy { node, limit });
        };
        let (mut again, began) = (true, Instant::now());
        loop {
            let link = self.link(node, Purpose::Main).await?;
            let call = Call {
                deadline: call.deadline.saturating_sub(began.elapsed()),
                ..call.clone()
            };
            match self.call_on(&link, node, &call).await {
                // Ended while nothing ran on it: nothing was heard of this call.
                Err(CallError::Lost { .. }) if again && superseded(&link) => again = false,
                Err(CallError::Protocol { node, what }) => {
                    self.counters.refuse(what);
                    return Err(CallError::Protocol { node, what });
                }
                other => return other,
            }
        }
    }

    pub(super) async fn call_on(
        &self,
        link: &Arc<Link>,
        node: NodeId,
        call: &Call,
    ) -> Result<Bytes, CallError> {
        let mut under_way = UnderWay::open(link, node).await?;
        let limit = self.options.limits.call_bytes_max;
        under_way.exchange(call, self.generation(), limit).await
    }
}

fn superseded(link: &Link) -> bool {
    matches!(
        link.connection.close_reason(),
        Some(ConnectionError::ApplicationClosed(close)) if close.error_code == code::SUPERSEDED
    )
}

/// A call's stream; dropped before its end, it cancels the call.
struct UnderWay {
    node: NodeId,
    version: u8,
    send: SendStream,
    recv: RecvStream,
    ended: bool,
    _in_use: InUse,
}

impl UnderWay {
    async fn open(link: &Arc<Link>, node: NodeId) -> Result<Self, CallError> {
        let in_use = link.use_it();
        let opened = link.connection.open_bi().await;
        let (send, recv) = opened.map_err(|why| CallError::Lost {
            node,
            why: why.to_string(),
        })?;
        let _ = send.set_priority(super::Priority::Urgent.of_stream());
        Ok(Self {
            node,
            version: link.version,
            send,
            recv,
            ended: false,
            _in_use: in_use,
        })
    }

    async fn exchange(
        &mut self,
        call: &Call,
        generation: u16,
        limit: usize,
    ) -> Result<Bytes, CallError> {
        let node = self.node;
        self.ask(call, generation).await?;
        // An answer begins when its maker is done: the caller's deadline bounds it.
        let head = frames::read_head(&mut self.recv, self.version, Duration::from_hours(24)).await;
        let reply = match head {
            Ok(Head::Reply(reply)) => reply,
            Ok(_) => return Err(self.broken(Refused::FrameKind)),
            Err(fault) => return Err(self.fault(&fault).await),
        };
        let bytes = usize::try_from(reply.body_bytes).unwrap_or(usize::MAX);
        if bytes > limit {
            return Err(self.broken(Refused::FrameTooLong));
        }
        let body = match frames::read_body(&mut self.recv, bytes).await {
            Ok(body) => body.freeze(),
            Err(fault) => return Err(self.fault(&fault).await),
        };
        self.ended = true;
        let method = call.method;
        match reply.status {
            Status::Done => Ok(body),
            Status::Refused => Err(CallError::Refused { node, error: body }),
            Status::Busy => Err(CallError::PeerBusy { node }),
            Status::UnknownMethod => Err(CallError::UnknownMethod { node, method }),
            Status::Late => Err(CallError::Late {
                node,
                deadline: call.deadline,
            }),
            Status::Abandoned => Err(CallError::Abandoned { node }),
        }
    }

    async fn ask(&mut self, call: &Call, generation: u16) -> Result<(), CallError> {
        let head = Head::Call(frame::Call {
            method: call.method,
            deadline_ms: u32::try_from(call.deadline.as_millis()).unwrap_or(u32::MAX),
            body_bytes: u32::try_from(call.body.len()).unwrap_or(u32::MAX),
            generation,
        });
        let lost = |why: &dyn std::fmt::Display| CallError::Lost {
            node: self.node,
            why: why.to_string(),
        };
        let frame = head.encode(self.version).map_err(|why| lost(&why))?;
        let mut chunks = [Bytes::from(frame), call.body.clone()];
        match self.send.write_all_chunks(&mut chunks).await {
            // The answer, a refusal, is there before all was read.
            Ok(()) | Err(WriteError::Stopped(_)) => {}
            Err(why) => return Err(lost(&why)),
        }
        let _ = self.send.finish();
        Ok(())
    }

    fn broken(&self, what: Refused) -> CallError {
        CallError::Protocol {
            node: self.node,
            what,
        }
    }

    async fn fault(&mut self, fault: &Fault) -> CallError {
        let node = self.node;
        match fault {
            Fault::Refused(what) => self.broken(*what),
            Fault::Ended => {
                let why = match self.recv.read_chunk(1, true).await {
                    Err(ReadError::Reset(why)) if why == code::BUSY => {
                        return CallError::PeerBusy { node };
                    }
                    Err(ReadError::Reset(why)) => code::name(why).to_owned(),
                    Err(why) => why.to_string(),
                    Ok(_) => "it ended early".to_owned(),
                };
                CallError::Lost { node, why }
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.send.reset(code::CANCELLED);
            let _ = self.recv.stop(code::CANCELLED);
        }
    }
}
