//! What a living connection brings: its streams and datagrams, until it ends.
//!
//! Holds: a frame that is refused is counted, and too many end the connection
//! and close the door for a while; a call is answered `busy` rather than
//! queued beyond its bound.

use super::call::{self, IncomingCall};
use super::link::{Fault, Link};
use super::stats::Refused;
use super::stream::{IncomingStream, Priority, Stream};
use super::{Inner, Received, code, frames, relay, reverse};
use bytes::Bytes;
use quinn::{RecvStream, SendStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::error::TrySendError;
use wire::net::frame::{Call, Content, DIAL_ME, Datagram, Head, Open, Status};

pub(super) async fn run(inner: Arc<Inner>, link: Arc<Link>) {
    tokio::select! {
        () = streams(&inner, &link) => {}
        () = datagrams(&inner, &link) => {}
    }
    link.connection.closed().await;
    let event = inner.peers().unregister(&link);
    if let Some(event) = event {
        inner.tell(event);
    }
}

async fn streams(inner: &Arc<Inner>, link: &Arc<Link>) {
    while let Ok((send, recv)) = link.connection.accept_bi().await {
        let (inner, link) = (inner.clone(), link.clone());
        tokio::spawn(async move {
            if let Err(Fault::Refused(what)) = stream(&inner, &link, send, recv).await {
                refuse(&inner, &link, what);
            }
        });
    }
}

async fn datagrams(inner: &Arc<Inner>, link: &Arc<Link>) {
    while let Ok(frame) = link.connection.read_datagram().await {
        let datagram = match Datagram::decode(&frame, link.version) {
            Ok(datagram) => datagram,
            Err(why) => {
                refuse(inner, link, (&why).into());
                continue;
            }
        };
        match datagram.content {
            Content::Gossip(bytes) => {
                let received = Received {
                    from: link.identity.clone(),
                    generation: datagram.generation,
                    bytes: frame.slice_ref(bytes),
                };
                if inner.outlets.datagrams.try_send(received).is_err() {
                    inner.counters.refuse(Refused::DatagramQueue);
                }
            }
            Content::Relay(piece) => relay::heard(inner, link, &piece),
        }
    }
}

/// Counts what a peer did wrong; too much of it closes the door for a while.
fn refuse(inner: &Inner, link: &Link, what: Refused) {
    inner.counters.refuse(what);
    if link.fault(inner.options.limits.faults_max) {
        let until = Instant::now() + inner.options.limits.penalty;
        if let Some(peer) = inner.peers().known.get_mut(&link.identity.node) {
            peer.penalty_until = Some(until);
        }
        link.close(code::PENALTY);
    }
}

async fn stream(
    inner: &Arc<Inner>,
    link: &Arc<Link>,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), Fault> {
    let within = inner.options.limits.head_time;
    match frames::read_head(&mut recv, link.version, within).await {
        Ok(Head::Call(call)) => answer(inner, link, call, send, recv).await,
        Ok(Head::Open(open)) => {
            opened(inner, link, open, send, recv);
            Ok(())
        }
        Ok(_) => {
            turn_away(&mut send, &mut recv, code::PROTOCOL);
            Err(Fault::Refused(Refused::FrameKind))
        }
        Err(fault) => {
            turn_away(&mut send, &mut recv, code::PROTOCOL);
            Err(fault)
        }
    }
}

fn turn_away(send: &mut SendStream, recv: &mut RecvStream, why: quinn::VarInt) {
    // A stream that is closed already needs no word.
    let _ = send.reset(why);
    let _ = recv.stop(why);
}

async fn answer(
    inner: &Arc<Inner>,
    link: &Arc<Link>,
    call: Call,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), Fault> {
    let limits = &inner.options.limits;
    // As the call itself went.
    let _ = send.set_priority(Priority::Urgent.of_stream());
    let bytes = usize::try_from(call.body_bytes).unwrap_or(usize::MAX);
    if bytes > limits.call_bytes_max {
        turn_away(&mut send, &mut recv, code::PROTOCOL);
        return Err(Fault::Refused(Refused::FrameTooLong));
    }
    let deadline = Instant::now() + Duration::from_millis(u64::from(call.deadline_ms));
    let (calls_in, calls_bytes) = {
        let mut peers = inner.peers();
        let peer = peers.peer(link.identity.node, limits);
        (peer.calls_in.clone(), peer.calls_bytes.clone())
    };
    let Ok(_permit) = calls_in.try_acquire() else {
        inner.counters.refuse(Refused::CallQueue);
        let _ = recv.stop(code::BUSY);
        return call::reply(&mut send, link.version, Status::Busy, &[]).await;
    };
    let room = u32::try_from(bytes.min(limits.calls_bytes_max)).unwrap_or(u32::MAX);
    let body = async {
        // What does not fit waits unread, and flow control holds the sender.
        let room = calls_bytes.acquire_many(room).await;
        let body = frames::read_body(&mut recv, bytes).await?;
        Ok((room, body.freeze()))
    };
    let by = deadline.min(Instant::now() + limits.head_time * 3);
    let Ok(read) = tokio::time::timeout_at(by.into(), body).await else {
        turn_away(&mut send, &mut recv, code::CANCELLED);
        return Err(Fault::Refused(Refused::FrameLate));
    };
    let (_room, body) = read?;
    let _in_use = link.use_it();
    if call.method == DIAL_ME {
        let status = reverse::heard(inner, link, &body);
        return call::reply(&mut send, link.version, status, &[]).await;
    }
    let (incoming, answer) = IncomingCall::new(link.identity.clone(), &call, deadline, body);
    match inner.outlets.calls.try_send(incoming) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => {
            inner.counters.refuse(Refused::CallQueue);
            return call::reply(&mut send, link.version, Status::Busy, &[]).await;
        }
        Err(TrySendError::Closed(_)) => {
            return call::reply(&mut send, link.version, Status::UnknownMethod, &[]).await;
        }
    }
    let (status, body) = tokio::select! {
        // Gone: the handler's half of the channel tells it so.
        _ = send.stopped() => return Ok(()),
        () = tokio::time::sleep_until(deadline.into()) => (Status::Late, Bytes::new()),
        answer = answer => answer.unwrap_or((Status::Abandoned, Bytes::new())),
    };
    call::reply(&mut send, link.version, status, &body).await
}

fn opened(
    inner: &Arc<Inner>,
    link: &Arc<Link>,
    open: Open,
    mut send: SendStream,
    mut recv: RecvStream,
) {
    let priority = Priority::read(open.priority);
    let _ = send.set_priority(priority.of_stream());
    let permit = match inner.outlets.streams.try_reserve() {
        Ok(permit) => permit,
        Err(TrySendError::Full(())) => {
            inner.counters.refuse(Refused::StreamQueue);
            return turn_away(&mut send, &mut recv, code::BUSY);
        }
        Err(TrySendError::Closed(())) => {
            return turn_away(&mut send, &mut recv, code::UNKNOWN_METHOD);
        }
    };
    permit.send(IncomingStream {
        from: link.identity.clone(),
        method: open.method,
        head: open.head.into(),
        priority,
        generation: open.generation,
        stream: Stream::new(send, recv, link),
    });
}
