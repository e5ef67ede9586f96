//! Where guests go on that compute for long: threads that give way to others.
//!
//! Holds: what a request costs its neighbours on the same core is bounded by
//! the turns it has before it comes here, however long it computes.
//! Never: starts a thread before the first guest comes.

use rustix::process::setpriority_process;
use std::sync::OnceLock;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// Turns that a guest has among the others.
pub(crate) const TURNS_AMONG_OTHERS: u32 = 2;
/// Of the kernel's scale from -20 to 19: on a busy core about a tenth of what a
/// usual thread gets, and a usual thread that wakes does not wait for it.
const PRIORITY: i32 = 10;

#[derive(Default)]
pub(crate) struct Lane {
    runtime: OnceLock<Option<Runtime>>,
}

impl Lane {
    /// None when the system gives no threads: then it goes on where it is.
    pub(crate) fn spawn<F>(&self, work: F) -> Result<JoinHandle<F::Output>, F>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        match self.runtime.get_or_init(start) {
            Some(runtime) => Ok(runtime.spawn(work)),
            None => Err(work),
        }
    }
}

fn start() -> Option<Runtime> {
    let started = Builder::new_multi_thread()
        .thread_name("wasm-lane")
        .on_thread_start(|| {
            // On Linux this is the calling thread's own.
            if let Err(error) = setpriority_process(None, PRIORITY) {
                tracing::warn!(%error, "guests that compute for long have no lower priority");
            }
        })
        .enable_all()
        .build();
    started
        .map_err(|error| tracing::warn!(%error, "no threads for guests that compute for long"))
        .ok()
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(Some(runtime)) = self.runtime.take() {
            // May be within another runtime, where waiting is not allowed.
            runtime.shutdown_background();
        }
    }
}
