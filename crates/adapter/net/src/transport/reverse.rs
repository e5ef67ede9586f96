//! Asks a peer that cannot be dialled to dial instead.
//!
//! In: a connection to it, whoever dialled that, through a relay or not. Out:
//! one call on it; on the other side, a dial to the addresses that its own
//! table has of the caller.
//! Holds: nobody is made to dial elsewhere than to the peer who asks, more than
//! once at a time, or sooner than its back-off says.
//! Never: fails anything: what there was stays in use.

use super::call::Call;
use super::link::Link;
use super::{Inner, Purpose};
use bytes::Bytes;
use kernel::NodeId;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::net::frame::{DIAL_ME, DialFor, Status};

/// The call's answer is that a dial has begun; the dial is waited for as long.
const ASK_MAX: Duration = Duration::from_secs(3);

/// Asks for a direct connection; whether one is on its way.
pub(super) async fn ask(inner: Arc<Inner>, node: NodeId, purpose: Purpose) -> bool {
    let wanted = match purpose {
        Purpose::Main => DialFor::Main,
        Purpose::Bulk => DialFor::Bulk,
        Purpose::Join => return false,
    };
    let call = Call {
        method: DIAL_ME,
        body: Bytes::copy_from_slice(&wanted.encode()),
        deadline: ASK_MAX,
    };
    let Some(link) = inner.living(node) else {
        return false;
    };
    let answer = inner.call_on(&link, node, &call);
    matches!(tokio::time::timeout(ASK_MAX, answer).await, Ok(Ok(_)))
}

/// The same within a dial, until it is there. Whether it is.
pub(super) async fn ask_and_wait(inner: &Arc<Inner>, node: NodeId, purpose: Purpose) -> bool {
    let dialled = inner.peers().dialled(node, purpose);
    let Some(mut dialled) = dialled else {
        return true;
    };
    if !ask(inner.clone(), node, purpose).await {
        return false;
    }
    // Its connection ends the dial that this one is.
    let came = dialled.wait_for(Option::is_some);
    tokio::time::timeout(ASK_MAX, came).await.is_ok()
}

/// A peer asks to be dialled.
pub(super) fn heard(inner: &Arc<Inner>, link: &Link, body: &[u8]) -> Status {
    let purpose = match DialFor::decode(body) {
        Some(DialFor::Main) => Purpose::Main,
        Some(DialFor::Bulk) => Purpose::Bulk,
        None => return Status::Refused,
    };
    let node = link.identity.node;
    let addresses = inner.peers().redial_directly(node, purpose, Instant::now());
    match addresses {
        Some(addresses) => {
            inner.dial(node, purpose, addresses);
            Status::Done
        }
        None => Status::Refused,
    }
}
