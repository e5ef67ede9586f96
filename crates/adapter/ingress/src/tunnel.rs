//! Carries an upgraded connection (WebSocket and the like) both ways.
//!
//! Holds: ends when either side ends, when nothing moved for the idle time, or
//! when the edge is cut off; the request's row is written then.

use crate::log::Account;
use crate::pool::Lease;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

const BUFFER_BYTES: usize = 16 * 1024;

pub struct Tunnel {
    pub client: OnUpgrade,
    pub replica: OnUpgrade,
    pub idle: Duration,
    pub account: Box<Account>,
    pub lease: Lease,
}

type Half = TokioIo<Upgraded>;

/// The two directions share when something last moved.
struct Activity {
    born: Instant,
    last_ms: AtomicU64,
    idle: Duration,
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
        };
        let sent = AtomicU64::new(0);
        let unused = AtomicU64::new(0);
        tokio::join!(
            copy(client_read, replica_write, &activity, &unused),
            copy(replica_read, client_write, &activity, &sent),
        );
        self.account.row.bytes = sent.load(Relaxed);
        drop(self.lease);
    }
}

async fn copy<S>(mut from: ReadHalf<S>, mut to: WriteHalf<S>, activity: &Activity, sent: &AtomicU64)
where
    S: AsyncRead + AsyncWrite,
{
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = match tokio::time::timeout(activity.idle, from.read(&mut buffer)).await {
            Err(_) if activity.is_over() => break,
            Err(_) => continue,
            Ok(Err(_) | Ok(0)) => break,
            Ok(Ok(read)) => read,
        };
        activity.last_ms.store(activity.now_ms(), Relaxed);
        match tokio::time::timeout(activity.idle, to.write_all(&buffer[..read])).await {
            Ok(Ok(())) => sent.fetch_add(read as u64, Relaxed),
            _ => break,
        };
    }
    // Tells the other side; its copy ends when that side closes in turn.
    let _ = to.shutdown().await;
}
