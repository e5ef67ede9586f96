//! Leases for singletons: the grantor on the leader, the holder on each node.
//!
//! The rules are `node::lease`; here are the ways between them, what is read and
//! what is written.
//! Holds: one look at a time: what is granted is told before anything is placed
//! elsewhere, and nothing is granted while that is written; what is written of jobs
//! (`apply::jobs`) waits for the same lock. What is written compares the mark of this
//! leadership: of a leader that stood still meanwhile nothing is taken, also where it
//! is passed on to the next one.

use crate::apply::{read_desired, read_head, write_head_fenced};
use crate::machine::{now, unix_now};
use crate::shared::{Message, Shared};
use kernel::{FencingEpoch, NodeId, Revision};
use node::NodeEvent;
use node::driver::Driver;
use node::lease::{ASK_EVERY, Ask, Change, Grant, Grantor, Holder, changes, rights};
use node::store::{Compare, Operation, Store, StoreError, Transaction};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, watch};

/// Asks of many nodes that come together are answered together.
const GATHER: Duration = Duration::from_millis(50);
/// Leases end also where nobody asks.
const LOOK: Duration = Duration::from_millis(500);
const ASKS_MAX: usize = 4_096;
const GRANTS_MAX: usize = 16;

/// A node's question on its way to the leader's grantor.
pub struct Asked {
    pub from: NodeId,
    pub ask: Ask,
    /// Back to the node.
    pub answer: mpsc::Sender<Grant>,
}

pub struct Leases {
    /// To the grantor, on the leader.
    pub asks: mpsc::Sender<Asked>,
    asked: Mutex<mpsc::Receiver<Asked>>,
    /// This node's own last one, for the stream to the leader.
    pub asking: watch::Sender<Option<Ask>>,
    /// What came back on it.
    pub grants: mpsc::Sender<Grant>,
    granted: Mutex<mpsc::Receiver<Grant>>,
}

impl Default for Leases {
    fn default() -> Self {
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let (grants, granted) = mpsc::channel(GRANTS_MAX);
        Self {
            asks,
            asked: Mutex::new(asked),
            asking: watch::Sender::default(),
            grants,
            granted: Mutex::new(granted),
        }
    }
}

/// A way back for grants on a follower's stream.
pub fn way_back() -> (mpsc::Sender<Grant>, mpsc::Receiver<Grant>) {
    mpsc::channel(GRANTS_MAX)
}

/// Where each leadership's mark is.
const MARK_KEY: &str = "/lead";

/// Who has which leases, as one leadership knows it.
pub struct Term {
    pub grantor: Grantor,
    /// The revision at which its mark was written: only while that is there does it
    /// grant and place.
    mark: Revision,
}

impl Term {
    /// What each of its writes compares.
    pub fn fence(&self) -> Compare {
        Compare::Modified(MARK_KEY.to_owned(), self.mark)
    }
}

/// Of one leadership; none before its mark is written.
pub type Granting = Arc<Mutex<Option<Term>>>;

/// The term, with its mark still there, or begun anew; none where this node leads no
/// more.
pub async fn marked<'a>(
    shared: &Shared,
    term: &'a mut Option<Term>,
) -> Result<Option<&'a mut Term>, StoreError> {
    if let Some(known) = &*term {
        let kept = node::store::get(&shared.control, MARK_KEY).await?;
        if kept.is_none_or(|kept| kept.modified != known.mark) {
            tracing::warn!("another leadership has begun since: leases are counted anew");
            *term = None;
        }
    }
    if term.is_none() && shared.control.is_leader().await {
        let value = format!("{} {}", shared.cluster.own.id, unix_now().0);
        let put = Operation::Put(MARK_KEY.to_owned(), value.into_bytes());
        let transaction = Transaction {
            then: vec![put],
            ..Transaction::default()
        };
        let mark = shared.control.transact(transaction).await?.revision;
        // Whatever another one granted was granted before.
        let grantor = Grantor::new(now());
        *term = Some(Term { grantor, mark });
    }
    Ok(term.as_mut())
}

/// On the leader; ends with its leadership.
pub async fn grant(shared: Arc<Shared>, granting: Granting) {
    let mut asked = shared.cluster.leases.asked.lock().await;
    loop {
        {
            // Before it is needed: what others granted is waited out from here on.
            let mut term = granting.lock().await;
            if term.is_none()
                && let Err(error) = marked(&shared, &mut term).await
            {
                tracing::warn!(%error, "no leases are granted yet");
            }
        }
        let mut waiting = Vec::new();
        if let Ok(Some(first)) = tokio::time::timeout(LOOK, asked.recv()).await {
            waiting.push(first);
            tokio::time::sleep(GATHER).await;
            while let Ok(more) = asked.try_recv() {
                waiting.push(more);
            }
        }
        let has_any = !shared.status.borrow().singletons.is_empty();
        // Whoever asked after this was confirmed is answered by the next look.
        if (has_any || !waiting.is_empty()) && shared.control.is_leader().await {
            match marked(&shared, &mut *granting.lock().await).await {
                Ok(Some(term)) => look(&shared, term, waiting).await,
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "no leases are granted"),
            }
        }
    }
}

async fn look(shared: &Arc<Shared>, term: &mut Term, waiting: Vec<Asked>) {
    let fence = term.fence();
    let grantor = &mut term.grantor;
    let desired = match read_desired(&shared.control).await {
        Ok(desired) => desired,
        Err(error) => {
            tracing::warn!(%error, "no leases are granted: what is wished is not read");
            return;
        }
    };
    let all = rights(&desired);
    for Asked { from, ask, answer } in waiting {
        let grant = grantor.grant(from, ask, &all, now());
        // One that does not take it asks again.
        let _ = answer.try_send(grant);
    }
    let nodes = shared.cluster.nodes.borrow().clone();
    let known = |node| crate::apply::placing::known(shared, node);
    let epoch = desired.next_epoch();
    for change in changes(&desired, &nodes, grantor, known, now()) {
        grantor.changes(&change, now());
        if write(shared, &change, epoch, &fence).await {
            grantor.is_sure(&change.service);
        }
    }
}

/// Whether it is known what became of it.
async fn write(
    shared: &Arc<Shared>,
    change: &Change,
    epoch: FencingEpoch,
    fence: &Compare,
) -> bool {
    let service = &change.service;
    let to = change.to.map(|node| shared.cluster.called(node));
    let written = async {
        let Some((applied, revision)) = read_head(&shared.control, &service.project).await? else {
            return Ok(false);
        };
        // As it was looked at: its epoch has not changed since.
        if applied.epoch(&service.name) >= epoch {
            return Ok(false);
        }
        let applied = change.made(&applied, epoch);
        write_head_fenced(shared, &applied, revision, fence.clone()).await?;
        Ok::<_, wire::api::ApiError>(true)
    };
    match written.await {
        Ok(done) => {
            if done {
                tracing::info!(%service, ?to, why = change.why, "a singleton has another place");
                let event = NodeEvent::SingletonPlaced {
                    service: service.clone(),
                    to,
                    why: change.why.to_owned(),
                };
                let _ = shared.messages.send(Message::Node(event)).await;
            }
            true
        }
        Err(error) => {
            tracing::warn!(%service, ?to, error = error.message, "a singleton is not placed");
            error.code == "conflict"
        }
    }
}

/// On each node; runs for ever.
pub async fn hold(shared: Arc<Shared>) {
    let cluster = &shared.cluster;
    let mut granted = cluster.leases.granted.lock().await;
    let mut holder = Holder::default();
    let mut told = BTreeMap::new();
    let mut asks = tokio::time::interval(ASK_EVERY);
    loop {
        let end = holder.next_end(now());
        tokio::select! {
            _ = asks.tick() => ask(&shared, &mut holder),
            grant = granted.recv() => {
                let Some(grant) = grant else { return };
                for (service, until) in holder.granted(grant) {
                    shared.driver.lease(&service, until).await;
                }
            }
            () = until(end) => {}
        }
        let leases = holder.leases(now());
        if leases != told {
            let event = NodeEvent::Leases(leases.clone());
            if shared.messages.send(Message::Node(event)).await.is_err() {
                return;
            }
            told = leases;
        }
    }
}

async fn until(end: Option<kernel::Time>) {
    match end {
        None => std::future::pending().await,
        Some(end) => tokio::time::sleep(end.since(now())).await,
    }
}

fn ask(shared: &Shared, holder: &mut Holder) {
    let cluster = &shared.cluster;
    let singletons = shared.status.borrow().singletons.clone();
    if singletons.is_empty() {
        return;
    }
    let ask = holder.ask(singletons, now());
    if cluster.leads() {
        let asked = Asked {
            from: cluster.own.id,
            ask,
            answer: cluster.leases.grants.clone(),
        };
        let _ = cluster.leases.asks.try_send(asked);
    } else {
        cluster.leases.asking.send_replace(Some(ask));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::layout::Layout;

    #[tokio::test(flavor = "multi_thread")]
    async fn once_another_leadership_has_begun_an_earlier_one_writes_nothing() {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(home.path().join("store")).expect("makes");
        let layout = Layout::new(home.path());
        let (messages, _inbox) = mpsc::channel(64);
        let shared = crate::open(&layout, "/bin/true".into(), messages).await;
        let shared = shared.expect("opens");
        let [mut early, mut late] = [None, None];
        let fence = async |term: &mut Option<Term>| {
            let term = marked(&shared, term).await.expect("reads and writes");
            term.expect("this node leads").fence()
        };
        let is_taken = async |fence: &Compare| {
            let put = Operation::Put("/probe".to_owned(), b"x".to_vec());
            let write = Transaction {
                compare: vec![fence.clone()],
                then: vec![put],
                ..Transaction::default()
            };
            let done = shared.control.transact(write).await;
            done.expect("an answer").succeeded
        };
        let first = fence(&mut early).await;
        assert!(is_taken(&first).await);
        assert_eq!(fence(&mut early).await, first, "its mark is there");
        let second = fence(&mut late).await;
        assert!(!is_taken(&first).await);
        assert!(is_taken(&second).await);
        // It notices, and as long as it leads it begins anew.
        let third = fence(&mut early).await;
        assert!(third != first && is_taken(&third).await);
        assert!(!is_taken(&second).await);
    }
}
