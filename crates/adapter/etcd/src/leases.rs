//! Fenced leases as etcd's: a key that goes when its lease does.
//!
//! Holds: the epoch is the revision at which the key was put, which grows with
//! each grant and which a renewal leaves; a comparison with it fences writes.
//! Never: trusts a renewal alone. One that a deposed leader of etcd has answered
//! may come too late by its election's time; writes are fenced all the same.

use crate::calls::{self, CALL_SPAN_MAX, Unanswered};
use crate::convert;
use crate::layout::Layout;
use crate::serve::{number, signed};
use etcd_client::{
    Client, KvClient, LeaseClient, PutOptions, ResponseHeader, Txn, TxnOp, TxnResponse,
};
use kernel::FencingEpoch;
use node::store::{Lease, StoreError};
use std::time::Duration;
use tokio::time::Instant;

pub struct Leases {
    kv: KvClient,
    client: LeaseClient,
    layout: Layout,
}

/// Who holds a lease.
struct Held {
    holder: String,
    epoch: FencingEpoch,
    /// etcd's name of it.
    id: i64,
}

fn lost(name: &str) -> StoreError {
    StoreError::LeaseLost {
        name: name.to_owned(),
    }
}

impl Leases {
    pub fn new(client: &Client, kv: KvClient, layout: Layout) -> Self {
        let client = client.lease_client();
        Self { kv, client, layout }
    }

    pub async fn grant(
        &self,
        name: String,
        holder: String,
        time_to_live: Duration,
    ) -> Result<Lease, StoreError> {
        let until = Instant::now() + CALL_SPAN_MAX;
        while Instant::now() < until {
            let held = self.held(&name).await?;
            if let Some(other) = held.as_ref().filter(|held| held.holder != holder) {
                let holder = other.holder.clone();
                return Err(StoreError::LeaseHeld { name, holder });
            }
            let id = self.new_lease(time_to_live).await?;
            match self.take(&name, &holder, held.as_ref(), id).await {
                Ok(Some(epoch)) => {
                    if let Some(old) = held {
                        // Its key is the new lease's now.
                        self.revoke(old.id).await;
                    }
                    return Ok(Lease {
                        name,
                        holder,
                        epoch,
                        time_to_live,
                    });
                }
                // Another was quicker, or the lease lapsed meanwhile.
                Ok(None) | Err(Unanswered::Gone) => self.revoke(id).await,
                Err(why) => {
                    // Perhaps it is held now: then it is no more.
                    self.revoke(id).await;
                    return Err(why.into());
                }
            }
        }
        Err(StoreError::NoQuorum)
    }

    pub async fn renew(&self, name: &str, epoch: FencingEpoch) -> Result<(), StoreError> {
        let held = self.held_under(name, epoch).await?;
        let kept = calls::read(|| {
            let mut client = self.client.clone();
            async move { client.keep_alive(held.id).await }
        });
        match kept.await {
            Ok(_) => Ok(()),
            Err(Unanswered::Gone) => Err(lost(name)),
            // It may live on a while.
            Err(Unanswered::Store(StoreError::NoQuorum)) => Err(StoreError::Unknown),
            Err(why) => Err(why.into()),
        }
    }

    pub async fn release(&self, name: &str, epoch: FencingEpoch) -> Result<(), StoreError> {
        let held = self.held_under(name, epoch).await?;
        let key = self.layout.lease(name);
        let gone = Txn::new()
            .when([convert::modified(key.clone(), epoch.0)])
            .and_then([TxnOp::delete(key, None)]);
        let done = self.transact(gone).await?;
        if !done.succeeded() {
            return Err(lost(name));
        }
        self.revoke(held.id).await;
        Ok(())
    }

    async fn held(&self, name: &str) -> Result<Option<Held>, StoreError> {
        let key = self.layout.lease(name);
        let found = calls::read(|| {
            let (mut kv, key) = (self.kv.clone(), key.clone());
            async move { kv.get(key, None).await }
        });
        let found = found.await?;
        Ok(found.kvs().first().map(|row| Held {
            holder: String::from_utf8_lossy(row.value()).into_owned(),
            epoch: FencingEpoch(number(row.mod_revision())),
            id: row.lease(),
        }))
    }

    async fn held_under(&self, name: &str, epoch: FencingEpoch) -> Result<Held, StoreError> {
        let held = self.held(name).await?;
        held.filter(|held| held.epoch == epoch)
            .ok_or_else(|| lost(name))
    }

    /// One that holds nothing yet. etcd makes short ones a little longer, to
    /// outlive an election.
    async fn new_lease(&self, time_to_live: Duration) -> Result<i64, StoreError> {
        let seconds = time_to_live.as_millis().div_ceil(1_000);
        let seconds = signed(u64::try_from(seconds).unwrap_or(u64::MAX));
        let granted = calls::read(|| {
            let mut client = self.client.clone();
            async move { client.grant(seconds, None).await }
        });
        Ok(granted.await?.id())
    }

    async fn transact(&self, asked: Txn) -> Result<TxnResponse, Unanswered> {
        calls::write(|| {
            let (mut kv, asked) = (self.kv.clone(), asked.clone());
            async move { kv.txn(asked).await }
        })
        .await
    }

    /// The epoch; none if it is not as it was.
    async fn take(
        &self,
        name: &str,
        holder: &str,
        before: Option<&Held>,
        id: i64,
    ) -> Result<Option<FencingEpoch>, Unanswered> {
        let key = self.layout.lease(name);
        let unchanged = match before {
            None => convert::is_absent(key.clone()),
            Some(held) => convert::modified(key.clone(), held.epoch.0),
        };
        let put = PutOptions::new().with_lease(id);
        let taken = Txn::new()
            .when([unchanged])
            .and_then([TxnOp::put(key, holder, Some(put))]);
        let done = self.transact(taken).await?;
        let revision = done.header().map_or(0, ResponseHeader::revision);
        Ok(done.succeeded().then(|| FencingEpoch(number(revision))))
    }

    /// One that is not revoked lapses.
    async fn revoke(&self, id: i64) {
        let mut client = self.client.clone();
        let revoked = client.revoke(id);
        match tokio::time::timeout(CALL_SPAN_MAX, revoked).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, id, "a lease of etcd is left to lapse"),
            Err(_) => tracing::debug!(id, "a lease of etcd is left to lapse"),
        }
    }
}
