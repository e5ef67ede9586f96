//! Leadership by a fenced lease in etcd, for a cluster whose desired state is there.
//!
//! In: what etcd says of the lease, whether this node may lead. Out: who leads.
//! Holds: this node leads while its lease was renewed less than its life, less a
//! margin, ago by its own clock; the next one gets it only once etcd let it lapse.
//! Never: needs etcd to start, but for a cluster's first moment.

use super::ControlError;
use crate::cluster::{Own, table};
use etcd::{EtcdStore, Options, Tls};
use kernel::{FencingEpoch, Hash, NodeId};
use node::store::{Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::{EmbeddedStore, Members};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use wire::cluster::EtcdAccess;

const LEASE: &str = "control-leader";
/// etcd makes shorter ones longer.
const LIFE: Duration = Duration::from_secs(2);
/// Whoever leads stops so long before its lease may be another's: in doubt it
/// goes on for half a second (`lead`), and clocks differ.
const MARGIN: Duration = Duration::from_millis(800);
const LOOK: Duration = Duration::from_millis(300);
const CALL_MAX: Duration = Duration::from_secs(1);
/// At its start a first node waits so long to lead; one before it may have to
/// lapse.
const FIRST_MAX: Duration = Duration::from_secs(6);

/// What was heard of the lease last.
#[derive(Clone, Debug, Default, PartialEq)]
struct Heard {
    /// This node's own, and when a renewal was last asked for that was granted.
    held: Option<(FencingEpoch, Instant)>,
    /// Who else has it.
    other: Option<NodeId>,
    fault: Option<String>,
}

impl Heard {
    fn leads(&self, now: Instant) -> bool {
        self.held
            .is_some_and(|(_, asked)| now.saturating_duration_since(asked) + MARGIN < LIFE)
    }

    fn epoch(&self) -> Option<FencingEpoch> {
        self.held.map(|(epoch, _)| epoch)
    }
}

pub struct Seat {
    store: Arc<EtcdStore>,
    url: String,
    own: NodeId,
    may_lead: watch::Sender<bool>,
    heard: watch::Receiver<Heard>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Seat {
    /// * `own_store`: the node's, by which it knows whether it was ever in a
    ///   cluster.
    pub async fn open(
        access: &EtcdAccess,
        own: &Own,
        key: Hash,
        own_store: &EmbeddedStore,
    ) -> Result<Self, ControlError> {
        let url = access.url();
        let is_fresh = match own.holder {
            Some(_) => false,
            None => {
                own_store.read_here(|view| view.keys(node::nodes::NODES_PREFIX, None, 1).is_empty())
            }
        };
        let options = options(access);
        let store = if is_fresh {
            let store = EtcdStore::open(options).await?;
            is_its_own(&store, own.id, key, &url).await?;
            store
        } else {
            EtcdStore::to(options).await?
        };
        let store = Arc::new(store);
        let (may_lead, may) = watch::channel(own.holder.is_none());
        let (hear, heard) = watch::channel(Heard::default());
        let holder = holder(own.id, key);
        let task = tokio::spawn(keep(Arc::clone(&store), holder, may, hear));
        let mut seat = Self {
            store,
            url,
            own: own.id,
            may_lead,
            heard,
            task: Mutex::new(Some(task)),
        };
        if is_fresh {
            seat.first().await?;
        }
        Ok(seat)
    }

    /// Until this node leads: it begins the cluster.
    async fn first(&mut self) -> Result<(), ControlError> {
        let leads = self.heard.wait_for(|heard| heard.held.is_some());
        if let Ok(Ok(_)) = tokio::time::timeout(FIRST_MAX, leads).await {
            return Ok(());
        }
        let heard = self.heard.borrow().clone();
        let why = match heard.other {
            Some(node) => format!("node {node} leads"),
            None => heard
                .fault
                .unwrap_or_else(|| "it does not answer".to_owned()),
        };
        let url = self.url.clone();
        Err(ControlError::NotBegun { url, why })
    }

    pub fn store(&self) -> &EtcdStore {
        &self.store
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn members(&self) -> Members {
        let heard = self.heard.borrow();
        let leads = heard.leads(Instant::now());
        let may_lead = *self.may_lead.borrow();
        Members {
            voters: may_lead.then_some(self.own).into_iter().collect(),
            learners: BTreeSet::new(),
            leader: if leads { Some(self.own) } else { heard.other },
            term: heard.epoch().map_or(0, |epoch| epoch.0),
            log_last: 0,
            log_applied: 0,
            behind: BTreeMap::new(),
            quorum_age: None,
            is_degraded: false,
        }
    }

    pub async fn changed(&self, at_most: Duration) {
        let mut heard = self.heard.clone();
        heard.mark_unchanged();
        let _ = tokio::time::timeout(at_most, heard.changed()).await;
    }

    pub fn may_lead(&self, may: bool) {
        self.may_lead.send_if_modified(|before| {
            let news = *before != may;
            *before = may;
            news
        });
    }

    pub async fn is_confirmed(&self) -> bool {
        let Some(epoch) = self.heard.borrow().epoch() else {
            return false;
        };
        let renewed = self.store.renew(LEASE, epoch);
        matches!(tokio::time::timeout(CALL_MAX, renewed).await, Ok(Ok(())))
    }

    pub fn fault(&self) -> Option<String> {
        self.heard.borrow().fault.clone()
    }

    /// The next one need not wait until the lease lapses.
    pub async fn leave(&self) {
        let task = self
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(task) = task {
            task.abort();
        }
        let epoch = self.heard.borrow().epoch();
        if let Some(epoch) = epoch {
            let released = self.store.release(LEASE, epoch);
            let _ = tokio::time::timeout(CALL_MAX, released).await;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task.take() {
            task.abort();
        }
    }
}

fn options(access: &EtcdAccess) -> Options {
    let scheme = match access.tls {
        Some(_) => "https",
        None => "http",
    };
    let endpoints = access.endpoints.iter();
    let endpoints = endpoints.map(|endpoint| format!("{scheme}://{endpoint}"));
    let tls = access.tls.as_ref().map(|tls| Tls {
        authority: tls.authority.clone(),
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
    });
    Options {
        root: access.root.clone(),
        tls,
        ..Options::new(endpoints.collect())
    }
}

/// A first node has the same number in each cluster, and never the same key.
fn holder(node: NodeId, key: Hash) -> String {
    format!("{}-{key}", node.0)
}

fn held_by(holder: &str) -> Option<NodeId> {
    let (node, _) = holder.split_once('-')?;
    node.parse().ok().map(NodeId)
}

/// Nobody's yet, or this node's from before it could write that down.
async fn is_its_own(
    store: &EtcdStore,
    own: NodeId,
    key: Hash,
    url: &str,
) -> Result<(), ControlError> {
    let foreign = || ControlError::Foreign {
        url: url.to_owned(),
    };
    let nodes = table::read_all(store).await;
    let (nodes, _) = nodes.map_err(|error| match error {
        StoreError::NoQuorum | StoreError::Unknown => ControlError::NotBegun {
            url: url.to_owned(),
            why: error.to_string(),
        },
        // What is there is not a node table of ours.
        _ => foreign(),
    })?;
    let is_own = nodes.is_empty() || nodes.get(&own).is_some_and(|record| record.key == key);
    is_own.then_some(()).ok_or_else(foreign)
}

/// Runs for ever.
async fn keep(
    store: Arc<EtcdStore>,
    holder: String,
    mut may: watch::Receiver<bool>,
    hear: watch::Sender<Heard>,
) {
    loop {
        let next = Instant::now() + LOOK;
        let before = hear.borrow().clone();
        let may_lead = *may.borrow_and_update();
        let heard = look(&store, &holder, may_lead, &before).await;
        if let Some(fault) = &heard.fault {
            tracing::debug!(fault, "etcd");
        }
        hear.send_if_modified(|before| {
            let news = *before != heard;
            *before = heard;
            news
        });
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            changed = may.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

async fn look(store: &EtcdStore, holder: &str, may_lead: bool, before: &Heard) -> Heard {
    let asked = Instant::now();
    let calling = async {
        match (before.epoch(), may_lead) {
            (Some(epoch), true) => store.renew(LEASE, epoch).await.map(|()| Some(epoch)),
            (Some(epoch), false) => store.release(LEASE, epoch).await.map(|()| None),
            (None, true) => {
                let lease = store.grant(LEASE, holder, LIFE).await?;
                Ok(Some(lease.epoch))
            }
            (None, false) => Ok(None),
        }
    };
    let answer = tokio::time::timeout(CALL_MAX, calling).await;
    after(before, asked, answer.unwrap_or(Err(StoreError::NoQuorum)))
}

/// * `asked`: when that was asked which `answer` answers: a lease's life is counted
///   from there.
fn after(
    before: &Heard,
    asked: Instant,
    answer: Result<Option<FencingEpoch>, StoreError>,
) -> Heard {
    match answer {
        Ok(epoch) => Heard {
            held: epoch.map(|epoch| (epoch, asked)),
            ..Heard::default()
        },
        Err(StoreError::LeaseHeld { holder, .. }) => Heard {
            other: held_by(&holder),
            ..Heard::default()
        },
        Err(StoreError::LeaseLost { .. }) => Heard::default(),
        // It may still be this node's; until when, it knows.
        Err(error) => Heard {
            other: None,
            fault: Some(error.to_string()),
            held: before.held,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE_7: Option<FencingEpoch> = Some(FencingEpoch(7));

    #[test]
    fn whoever_is_not_renewed_stops_before_another_can_begin() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let heard = after(&Heard::default(), at(0), Ok(LEASE_7));
        assert!(heard.leads(at(1_199)));
        assert!(!heard.leads(at(1_200)), "in doubt it goes on for 500 ms");
        let renewed = after(&heard, at(300), Ok(LEASE_7));
        assert!(renewed.leads(at(1_499)));
        // An answer that did not come does not lengthen it, nor ends it.
        let silent = after(&renewed, at(600), Err(StoreError::Unknown));
        assert!(silent.leads(at(1_499)) && !silent.leads(at(1_500)));
        assert_eq!(silent.epoch(), Some(FencingEpoch(7)));
        assert!(silent.fault.is_some());
        let lost = StoreError::LeaseLost {
            name: LEASE.to_owned(),
        };
        let lost = after(&silent, at(900), Err(lost));
        assert!(!lost.leads(at(900)));
        let held = StoreError::LeaseHeld {
            name: LEASE.to_owned(),
            holder: holder(NodeId(3), Hash([7; 32])),
        };
        let other = after(&lost, at(1_200), Err(held));
        assert_eq!(other.other, Some(NodeId(3)));
        assert!(!other.leads(at(1_200)));
    }

    #[test]
    fn a_holder_that_is_none_of_ours_is_nobody_here() {
        for foreign in ["", "3", "one-key", "-1-key", "3 4-5"] {
            assert_eq!(held_by(foreign), None, "{foreign}");
        }
    }
}
