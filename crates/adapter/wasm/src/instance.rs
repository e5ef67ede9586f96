//! One instance of a component, and those that wait for their next request.
//!
//! Decides whether an instance may answer another request.
//! Holds: never after a trap, a limit or a request it left open, nor once it
//! has grown, is old, or has answered as many as it may. Idle instances are
//! bounded over all services, and gone a while after their last request.

use crate::guest::Guest;
use crate::limits::Limits;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::Proxy;

/// From its start; what it knows of the world is no older.
const AGE_MAX: Duration = Duration::from_mins(1);
/// Without a request.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// Of one that is kept: a guest that needed more once does not hold on to it.
const KEPT_BYTES_MAX: usize = 32 << 20;
/// Over all services.
const IDLE_INSTANCES_MAX: usize = 500;
const IDLE_BYTES_MAX: usize = 512 << 20;

pub(crate) struct Instance {
    pub(crate) store: Store<Guest>,
    pub(crate) proxy: Proxy,
    answered: u32,
    born: Instant,
    since: Instant,
}

impl Instance {
    pub(crate) fn new(store: Store<Guest>, proxy: Proxy) -> Self {
        let now = Instant::now();
        Self {
            store,
            proxy,
            answered: 0,
            born: now,
            since: now,
        }
    }

    /// After a request that it answered without an error.
    fn may_go_on(&mut self, limits: &Limits) -> bool {
        self.answered += 1;
        self.answered < limits.reuse
            && self.store.data().memory_bytes <= KEPT_BYTES_MAX
            && self.store.data_mut().is_clean()
            && self.born.elapsed() < AGE_MAX
    }

    fn bytes(&self) -> usize {
        self.store.data().memory_bytes
    }
}

/// What idle instances of all services hold.
#[derive(Default)]
pub(crate) struct Room {
    instances: AtomicUsize,
    bytes: AtomicUsize,
    idle: Mutex<Vec<Weak<Mutex<Vec<Instance>>>>>,
}

impl Room {
    pub(crate) fn is_empty(&self) -> bool {
        self.instances.load(Ordering::Acquire) == 0
    }

    /// Whether it fits; then it counts.
    fn enter(&self, instance: &Instance) -> bool {
        let bytes = instance.bytes();
        let instances = self.instances.fetch_add(1, Ordering::AcqRel);
        let held = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        let fits = instances < IDLE_INSTANCES_MAX && held + bytes <= IDLE_BYTES_MAX;
        if !fits {
            self.leave(instance);
        }
        fits
    }

    fn leave(&self, instance: &Instance) {
        self.instances.fetch_sub(1, Ordering::AcqRel);
        self.bytes.fetch_sub(instance.bytes(), Ordering::AcqRel);
    }

    /// Ends what was idle for long.
    pub(crate) fn sweep(&self) {
        self.end_those(|instance| instance.since.elapsed() >= IDLE_MAX);
    }

    /// Ends all: somebody needs their places.
    pub(crate) fn clear(&self) {
        self.end_those(|_| true);
    }

    fn end_those(&self, ends: impl Fn(&Instance) -> bool) {
        let stacks: Vec<_> = {
            let mut idle = locked(&self.idle);
            idle.retain(|stack| stack.strong_count() > 0);
            idle.iter().filter_map(Weak::upgrade).collect()
        };
        for stack in stacks {
            // Dropped outside of the lock: it gives memory back to the system.
            let ended: Vec<Instance> = {
                let mut stack = locked(&stack);
                stack.extract_if(.., |instance| ends(instance)).collect()
            };
            for instance in &ended {
                self.leave(instance);
            }
        }
    }
}

/// One service's idle instances; the last one used is the next.
pub(crate) struct Idle {
    room: Arc<Room>,
    kept: Arc<Mutex<Vec<Instance>>>,
}

impl Idle {
    pub(crate) fn new(room: &Arc<Room>, limits: &Limits) -> Self {
        let kept = Arc::default();
        if limits.reuse > 1 {
            locked(&room.idle).push(Arc::downgrade(&kept));
        }
        Self {
            room: Arc::clone(room),
            kept,
        }
    }

    pub(crate) fn take(&self, limits: &Limits) -> Option<Instance> {
        if limits.reuse <= 1 {
            return None;
        }
        let instance = locked(&self.kept).pop()?;
        self.room.leave(&instance);
        Some(instance)
    }

    /// Keeps it for the next request, if it may have one.
    pub(crate) fn put(&self, mut instance: Instance, limits: &Limits) {
        if instance.may_go_on(limits) && self.room.enter(&instance) {
            instance.since = Instant::now();
            locked(&self.kept).push(instance);
        }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        locked(&self.kept)
            .drain(..)
            .for_each(|instance| self.room.leave(&instance));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
