//! The model behind the trait that all stores have, so that one suite judges
//! them all.
//!
//! Holds: time passes only when it is told to.

use super::model::Model;
use kernel::{FencingEpoch, Revision, Time};
use node::BoxFuture;
use node::store::{Lease, Outcome, RangeReply, Store, StoreError, Transaction, Watch, WatchEvent};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

#[derive(Debug)]
struct Inner {
    model: Model,
    now: Time,
    waiting: Vec<Waker>,
}

#[derive(Clone, Debug)]
pub struct ModelStore(Arc<Mutex<Inner>>);

impl ModelStore {
    pub fn new(history_max: usize) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            model: Model::new(history_max),
            now: Time(1),
            waiting: Vec::new(),
        })))
    }

    pub fn pass(&self, span: Duration) {
        let mut inner = self.lock();
        inner.now = inner.now + span;
    }

    pub fn now(&self) -> Time {
        self.lock().now
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whoever panicked has failed already; the model is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at_once<T>(&self, act: impl FnOnce(&mut Model, Time) -> T) -> T {
        let mut inner = self.lock();
        let now = inner.now;
        let done = act(&mut inner.model, now);
        for waker in inner.waiting.drain(..) {
            waker.wake();
        }
        done
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(value))
}

impl Store for ModelStore {
    fn transact(&self, transaction: Transaction) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        ready(self.at_once(|model, now| model.transact(&transaction, now)))
    }

    fn range(&self, prefix: &str) -> BoxFuture<'_, Result<RangeReply, StoreError>> {
        ready(Ok(self.lock().model.range(prefix)))
    }

    fn watch(
        &self,
        prefix: &str,
        after: Revision,
    ) -> BoxFuture<'_, Result<Box<dyn Watch>, StoreError>> {
        let watch = ModelWatch {
            store: self.clone(),
            prefix: prefix.to_owned(),
            after,
            told: VecDeque::new(),
        };
        ready(Ok(Box::new(watch)))
    }

    fn grant(
        &self,
        name: &str,
        holder: &str,
        time_to_live: Duration,
    ) -> BoxFuture<'_, Result<Lease, StoreError>> {
        ready(self.at_once(|model, now| model.grant(name, holder, time_to_live, now)))
    }

    fn renew(&self, name: &str, epoch: FencingEpoch) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(self.at_once(|model, now| model.renew(name, epoch, now)))
    }

    fn release(&self, name: &str, epoch: FencingEpoch) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(self.at_once(|model, now| model.release(name, epoch, now)))
    }

    fn fault(&self) -> Option<String> {
        None
    }
}

struct ModelWatch {
    store: ModelStore,
    prefix: String,
    after: Revision,
    told: VecDeque<WatchEvent>,
}

impl Watch for ModelWatch {
    fn next(&mut self) -> BoxFuture<'_, Result<WatchEvent, StoreError>> {
        Box::pin(std::future::poll_fn(|context| {
            let mut inner = self.store.lock();
            if self.told.is_empty() {
                self.told = inner.model.changes(&self.prefix, self.after).into();
            }
            let Some(event) = self.told.pop_front() else {
                inner.waiting.push(context.waker().clone());
                return Poll::Pending;
            };
            if let WatchEvent::Changes { revision, .. } = event {
                self.after = revision;
            }
            Poll::Ready(Ok(event))
        }))
    }
}
