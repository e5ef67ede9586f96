//! Carries an upgraded connection (WebSocket and the like) both ways.
//!
//! Holds: a side that ends is passed on and the other may still speak; the
//! tunnel ends when both ended, when one broke or took nothing for the stall
//! time, when nothing moved for the idle time, or when the edge is cut off; the
//! request's row is written then. No more than a buffer waits in each direction.

use crate::log::Account;
use crate::pool::Lease;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::timeout;

const BUFFER_BYTES: usize = 16 * 1024;

pub struct Tunnel {
    pub client: OnUpgrade,
    pub replica: OnUpgrade,
    pub idle: Duration,
    pub stall: Duration,
    pub account: Box<Account>,
    pub lease: Lease,
}

type Half = TokioIo<Upgraded>;

/// The two directions share when something last moved.
struct Activity {
    born: Instant,
    last_ms: AtomicU64,
    idle: Duration,
    stall: Duration,
}

impl Activity {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_over(&self) -> bool {
        let since = self.now_ms().saturating_sub(self.last_ms.load(Relaxed));
        u128::from(since) >= self.idle.as_millis()
    }
}

impl Tunnel {
    pub async fn run(mut self) {
        let Ok((client, replica)) = futures_util::future::try_join(self.client, self.replica).await
        else {
            return;
        };
        let (client_read, client_write) = tokio::io::split(Half::new(client));
        let (replica_read, replica_write) = tokio::io::split(Half::new(replica));
        let activity = Activity {
            born: Instant::now(),
            last_ms: AtomicU64::new(0),
            idle: self.idle,
            stall: self.stall,
        };
        let sent = AtomicU64::new(0);
        let unused = AtomicU64::new(0);
        let both = futures_util::future::try_join(
            copy(client_read, replica_write, &activity, &unused),
            copy(replica_read, client_write, &activity, &sent),
        );
        if let Err(why) = both.await {
            tracing::debug!(why, "a tunnel was ended");
        }
        self.account.row.bytes = sent.load(Relaxed);
        drop(self.lease);
    }
}

async fn copy<S>(
    mut from: ReadHalf<S>,
    mut to: WriteHalf<S>,
    activity: &Activity,
    sent: &AtomicU64,
) -> Result<(), &'static str>
where
    S: AsyncRead + AsyncWrite,
{
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = match timeout(activity.idle, from.read(&mut buffer)).await {
            Err(_) if activity.is_over() => return Err("nothing moved"),
            Err(_) => continue,
            Ok(Err(_)) => return Err("one side broke"),
            Ok(Ok(0)) => break,
            Ok(Ok(read)) => read,
        };
        activity.last_ms.store(activity.now_ms(), Relaxed);
        match timeout(activity.stall, to.write_all(&buffer[..read])).await {
            Ok(Ok(())) => sent.fetch_add(read as u64, Relaxed),
            Ok(Err(_)) => return Err("one side broke"),
            Err(_) => return Err("one side took nothing"),
        };
    }
    // Tells the other side; its copy ends when that side closes in turn.
    let _ = timeout(activity.stall, to.shutdown()).await;
    Ok(())
}
