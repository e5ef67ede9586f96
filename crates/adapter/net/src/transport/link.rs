//! One live connection to a peer, authenticated and greeted.
//!
//! Holds: both sides rank the connections between them alike: a direct one goes
//! before one through a relay; then the later the sooner-ending certificate ends
//! the better, then the one that the smaller node dialled, then the newer.

use super::code;
use super::options::Address;
use super::relay::Relaying;
use super::stats::Refused;
use crate::identity::CertificateView;
use crate::tls::Purpose;
use kernel::{NodeId, UnixMillis};
use quinn::{Connection, ConnectionError, VarInt};
use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;
use wire::net::Identity;
use wire::net::frame::Hello;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    direct: bool,
    /// Of the two certificates.
    pub(super) first_end: UnixMillis,
    caller: Reverse<NodeId>,
    sequence: u64,
    instance: u64,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(super) connection: Connection,
    /// The peer's.
    pub(super) identity: Arc<Identity>,
    /// How it was reached, or reached us.
    pub(super) address: Address,
    /// Of the peer's certificate.
    pub(super) not_after: UnixMillis,
    pub(super) purpose: Purpose,
    pub(super) version: u8,
    pub(super) dialled: bool,
    /// The peer's.
    pub(super) hello: Hello,
    rank: Rank,
    /// Calls and streams that run on it.
    in_use: AtomicUsize,
    faults: AtomicU32,
    pub(super) relaying: Relaying,
}

/// What this side brings to a connection.
pub(super) struct Own {
    pub(super) node: NodeId,
    pub(super) not_after: UnixMillis,
    pub(super) hello: Hello,
}

impl Link {
    pub(super) fn new(
        connection: Connection,
        view: CertificateView,
        (purpose, version): (Purpose, u8),
        dialled: bool,
        own: &Own,
        hello: Hello,
        address: Address,
    ) -> Self {
        let caller = if dialled {
            own.node
        } else {
            view.identity.node
        };
        let by = if dialled { &own.hello } else { &hello };
        let rank = Rank {
            direct: address.is_direct(),
            first_end: own.not_after.min(view.not_after),
            caller: Reverse(caller),
            sequence: by.sequence,
            instance: by.instance,
        };
        Self {
            connection,
            identity: Arc::new(view.identity),
            address,
            not_after: view.not_after,
            purpose,
            version,
            dialled,
            hello,
            rank,
            in_use: AtomicUsize::new(0),
            faults: AtomicU32::new(0),
            relaying: Relaying::default(),
        }
    }

    pub(super) fn rank(&self) -> Rank {
        self.rank
    }

    pub(super) fn is_direct(&self) -> bool {
        self.rank.direct
    }

    pub(super) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    pub(super) fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    pub(super) fn close(&self, code: VarInt) {
        self.connection.close(code, code::name(code).as_bytes());
    }

    pub(super) fn why_closed(&self) -> String {
        match self.connection.close_reason() {
            Some(ConnectionError::ApplicationClosed(close)) => {
                code::name(close.error_code).to_owned()
            }
            Some(reason) => reason.to_string(),
            None => String::new(),
        }
    }

    pub(super) fn use_it(self: &Arc<Self>) -> InUse {
        self.in_use.fetch_add(1, Ordering::Relaxed);
        InUse(self.clone())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_use.load(Ordering::Relaxed) == 0
    }

    /// Counts a refused frame; true when there were too many.
    pub(super) fn fault(&self, limit: u32) -> bool {
        self.faults.fetch_add(1, Ordering::Relaxed) + 1 >= limit
    }
}

/// Keeps a connection from being ended as superfluous.
#[derive(Debug)]
pub(crate) struct InUse(pub(super) Arc<Link>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.in_use.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A frame that was refused.
#[derive(Debug)]
pub(crate) enum Fault {
    Refused(Refused),
    /// The connection or stream ended: nobody's fault.
    Ended,
}
