//! The UDP socket under all connections.
//!
//! Holds: every packet is counted with its headers, and obeys the laboratory's
//! impairments where there are any; packets of tunnelled connections go to
//! their relays and are counted there.

mod from_file;
mod impair;
mod tunnel;

pub use from_file::impairments_from;
pub use impair::{Impairment, Impairments};
pub(crate) use tunnel::{Outbound, Tunnels, is_tunnelled};

use crate::transport::stats::Counters;
use impair::Verdict;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

#[derive(Debug)]
pub(crate) struct Socket {
    inner: Arc<dyn AsyncUdpSocket>,
    impairments: Option<Impairments>,
    counters: Arc<Counters>,
    own: SocketAddr,
    pub(crate) tunnels: Tunnels,
}

impl Socket {
    pub(crate) fn new(
        socket: std::net::UdpSocket,
        impairments: Option<Impairments>,
        counters: Arc<Counters>,
    ) -> io::Result<(Self, mpsc::Receiver<Outbound>)> {
        let own = socket.local_addr()?;
        // A burst of bulk must not push a heartbeat out of the queue.
        let buffers = socket2::SockRef::from(&socket);
        // A smaller limit of the system's is a smaller buffer, no error.
        let _ = buffers.set_recv_buffer_size(2 << 20);
        let _ = buffers.set_send_buffer_size(2 << 20);
        let inner = TokioRuntime.wrap_udp_socket(socket)?;
        if let Some(impairments) = &impairments {
            impairments.attach(&inner);
        }
        let (tunnels, outbound) = Tunnels::new();
        let socket = Self {
            inner,
            impairments,
            counters,
            own,
            tunnels,
        };
        Ok((socket, outbound))
    }
}

/// How many packets `bytes` are, each of at most `each`.
fn packets(bytes: usize, each: Option<usize>) -> usize {
    each.map_or(1, |each| bytes.div_ceil(each.max(1)))
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if is_tunnelled(transmit.destination) {
            self.tunnels.send(transmit);
            return Ok(());
        }
        let (bytes, each) = (transmit.contents.len(), transmit.segment_size);
        let verdict = match &self.impairments {
            Some(impairments) => impairments.send(&self.inner, transmit),
            None => Verdict::Now,
        };
        match verdict {
            Verdict::Now => self.inner.try_send(transmit)?,
            Verdict::Later => {}
        }
        let packets = packets(bytes, each);
        self.counters.sent(transmit.destination, bytes, packets);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let tunnelled = self.tunnels.poll_recv(cx, buffers, meta, self.own);
        if let Poll::Ready(received) = tunnelled {
            return Poll::Ready(Ok(received));
        }
        let received = std::task::ready!(self.inner.poll_recv(cx, buffers, meta))?;
        for one in &mut meta[..received] {
            let packets = packets(one.len, Some(one.stride));
            self.counters.received(one.addr, one.len, packets);
            let cut = |impairments: &Impairments| impairments.refuses(one.addr);
            if self.impairments.as_ref().is_some_and(cut) {
                one.len = 0;
            }
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}
