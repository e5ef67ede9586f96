//! The store as its users see it.

use crate::calls::{self, Unanswered};
use crate::layout::{Layout, successor};
use crate::leases::Leases;
use crate::watching::Watching;
use crate::{OpenError, Options, Tls, convert};
use etcd_client::{
    Certificate, Client, ConnectOptions, GetOptions, GetResponse, Identity, KeyValue, KvClient,
    TlsOptions,
};
use kernel::{FencingEpoch, Revision};
use node::BoxFuture;
use node::store::{
    Entry, Lease, Outcome, RangeReply, Store, StoreError, Transaction, Watch, check_label,
    check_lease, check_prefix,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Of a range, at once: a thousand small entries, or a gigabyte of the largest.
const PAGE_ENTRIES: i64 = 1_000;
/// Answers of etcd's own limit and no smaller one.
pub const ANSWER_BYTES_MAX: usize = i32::MAX as usize;
const CONNECT_SPAN_MAX: Duration = Duration::from_secs(2);
/// etcd hangs up on who asks more often than each 5 s.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(6);
const KEEP_ALIVE_SPAN_MAX: Duration = Duration::from_secs(3);
/// How many revisions may be kept beyond those that must be, as a part of them.
const COMPACTION_SHARE: u64 = 10;
const COMPACTION_SPAN_MAX: Duration = Duration::from_secs(1);

pub struct EtcdStore {
    client: Client,
    kv: KvClient,
    layout: Layout,
    leases: Leases,
    history_revisions_max: Option<u64>,
    /// Up to where this store has had history compacted.
    compacted: AtomicU64,
}

impl EtcdStore {
    /// # Errors
    /// What was given is wrong, or etcd does not answer.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let endpoints = options.endpoints.join(", ");
        let store = Self::to(options).await?;
        // Whoever opens it hears now what each call would say later.
        match store.range("/").await {
            Ok(_) => Ok(store),
            Err(why) => Err(OpenError::Silent { endpoints, why }),
        }
    }

    /// The same, whether etcd answers by now or not.
    ///
    /// # Errors
    /// What was given is wrong; or, where there is a password, etcd does not answer.
    pub async fn to(options: Options) -> Result<Self, OpenError> {
        if options.root.is_empty() || options.root.contains('/') {
            return Err(OpenError::Root(options.root));
        }
        let wanted = connect_options(&options);
        let client = Client::connect(&options.endpoints, Some(wanted)).await;
        let client = client.map_err(|source| OpenError::Client {
            endpoints: options.endpoints.join(", "),
            source,
        })?;
        let layout = Layout::new(&options.root);
        let kv = client.kv_client();
        let kv = kv.max_decoding_message_size(ANSWER_BYTES_MAX);
        Ok(Self {
            leases: Leases::new(&client, kv.clone(), layout.clone()),
            client,
            kv,
            layout,
            history_revisions_max: options.history_revisions_max,
            compacted: AtomicU64::new(0),
        })
    }

    /// All pages at the revision of the first.
    async fn range_at_once(&self, prefix: &str) -> Result<RangeReply, Unanswered> {
        let (mut start, end) = self.layout.under(prefix);
        let mut entries = Vec::new();
        let mut revision = 0;
        loop {
            let page = self.page(&start, &end, revision).await?;
            if revision == 0 {
                revision = page
                    .header()
                    .map_or(0, etcd_client::ResponseHeader::revision);
            }
            let ours = page.kvs().iter().filter_map(|row| entry(row, &self.layout));
            entries.extend(ours);
            match page.kvs().last() {
                Some(last) if page.more() => start = successor(last.key()),
                _ => break,
            }
        }
        let revision = Revision(number(revision));
        Ok(RangeReply { revision, entries })
    }

    async fn page(&self, start: &[u8], end: &[u8], at: i64) -> Result<GetResponse, Unanswered> {
        calls::read(|| {
            let options = GetOptions::new()
                .with_range(end)
                .with_limit(PAGE_ENTRIES)
                .with_revision(at);
            let mut kv = self.kv.clone();
            async move { kv.get(start, Some(options)).await }
        })
        .await
    }

    /// etcd keeps all history until it is told otherwise.
    async fn compact(&self, revision: Revision) {
        let Some(kept) = self.history_revisions_max else {
            return;
        };
        let (upto, before) = (
            revision.0.saturating_sub(kept),
            self.compacted.load(Ordering::Relaxed),
        );
        if upto < before + (kept / COMPACTION_SHARE).max(1) {
            return;
        }
        self.compacted.fetch_max(upto, Ordering::Relaxed);
        let mut kv = self.kv.clone();
        let asked = kv.compact(signed(upto), None);
        // Another node may have been first; what fails is tried with a later
        // revision.
        match tokio::time::timeout(COMPACTION_SPAN_MAX, asked).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, upto, "etcd was not compacted"),
            Err(_) => tracing::debug!(upto, "etcd did not compact in time"),
        }
    }
}

fn connect_options(options: &Options) -> ConnectOptions {
    let mut wanted = ConnectOptions::new()
        .with_connect_timeout(CONNECT_SPAN_MAX)
        .with_keep_alive(KEEP_ALIVE_EVERY, KEEP_ALIVE_SPAN_MAX)
        .with_keep_alive_while_idle(true)
        .with_require_leader(true);
    if let Some(Tls {
        authority,
        certificate,
        key,
    }) = &options.tls
    {
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(authority))
            .identity(Identity::from_pem(certificate, key));
        wanted = wanted.with_tls(tls);
    }
    if let Some((name, password)) = &options.user {
        wanted = wanted
            .with_user(name, password)
            .with_auto_token_refresh(true);
    }
    wanted
}

pub fn entry(row: &KeyValue, layout: &Layout) -> Option<Entry> {
    Some(Entry {
        key: layout.key(row.key())?,
        value: row.value().to_vec(),
        created: Revision(number(row.create_revision())),
        modified: Revision(number(row.mod_revision())),
    })
}

/// etcd's are never negative.
pub fn number(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or_default()
}

pub fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

impl Store for EtcdStore {
    fn transact(&self, transaction: Transaction) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        Box::pin(async move {
            transaction.check()?;
            let asked = convert::transaction(transaction, &self.layout);
            let done = calls::write(|| {
                let (mut kv, asked) = (self.kv.clone(), asked.clone());
                async move { kv.txn(asked).await }
            });
            let done = done.await?;
            let revision = done
                .header()
                .map_or(0, etcd_client::ResponseHeader::revision);
            let outcome = Outcome {
                succeeded: done.succeeded(),
                revision: Revision(number(revision)),
            };
            self.compact(outcome.revision).await;
            Ok(outcome)
        })
    }

    fn range(&self, prefix: &str) -> BoxFuture<'_, Result<RangeReply, StoreError>> {
        let prefix = prefix.to_owned();
        Box::pin(async move {
            check_prefix(&prefix)?;
            let until = tokio::time::Instant::now() + calls::CALL_SPAN_MAX;
            loop {
                match self.range_at_once(&prefix).await {
                    // The pages took longer than history is kept.
                    Err(Unanswered::Compacted) if tokio::time::Instant::now() < until => {}
                    Err(Unanswered::Compacted) => return Err(StoreError::NoQuorum),
                    done => return Ok(done?),
                }
            }
        })
    }

    fn watch(
        &self,
        prefix: &str,
        after: Revision,
    ) -> BoxFuture<'_, Result<Box<dyn Watch>, StoreError>> {
        let prefix = prefix.to_owned();
        Box::pin(async move {
            check_prefix(&prefix)?;
            let client = self.client.watch_client();
            let watching = Watching::new(client, self.layout.clone(), &prefix, after);
            Ok(Box::new(watching) as Box<dyn Watch>)
        })
    }

    fn grant(
        &self,
        name: &str,
        holder: &str,
        time_to_live: Duration,
    ) -> BoxFuture<'_, Result<Lease, StoreError>> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        Box::pin(async move {
            check_lease(&name, &holder, time_to_live)?;
            self.leases.grant(name, holder, time_to_live).await
        })
    }

    fn renew(&self, name: &str, epoch: FencingEpoch) -> BoxFuture<'_, Result<(), StoreError>> {
        let name = name.to_owned();
        Box::pin(async move {
            check_label("a lease's name", &name)?;
            self.leases.renew(&name, epoch).await
        })
    }

    fn release(&self, name: &str, epoch: FencingEpoch) -> BoxFuture<'_, Result<(), StoreError>> {
        let name = name.to_owned();
        Box::pin(async move {
            check_label("a lease's name", &name)?;
            self.leases.release(&name, epoch).await
        })
    }

    /// It may come back, as long as it is asked.
    fn fault(&self) -> Option<String> {
        None
    }
}
