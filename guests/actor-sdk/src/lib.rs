//! Actors in Rust: one value that lives on between requests.
//!
//! ```ignore
//! #[derive(Default)]
//! struct Counter(u64);
//!
//! impl actor_sdk::Actor for Counter {
//!     fn handle(&mut self, _: actor_sdk::Request) -> actor_sdk::Response {
//!         self.0 += 1;
//!         actor_sdk::Response::text(format!("{}\n", self.0))
//!     }
//! }
//!
//! actor_sdk::export!(Counter);
//! ```
//!
//! A crate with `crate-type = ["cdylib"]`, built for `wasm32-wasip1`, is an
//! actor. `docs/actors.md` says what lives how long.

mod abi;
mod buckets;
mod host;
mod message;

pub use abi::{alloc, handle};
pub use buckets::{Bucket, BucketError, Value};
pub use host::{Level, log, monotonic, publish, random, wall};
pub use message::{Reply, Request, Response};

/// What an actor does. One call at a time; `Default` makes a fresh one.
pub trait Actor: Default {
    fn handle(&mut self, request: Request) -> Response;

    /// A client has a channel's events from now on.
    fn joined(&mut self, _change: Change) {}

    /// It has them no more.
    fn left(&mut self, _change: Change) {}
}

/// Who came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub channel: String,
    /// Never used twice.
    pub subscriber: u64,
    /// How many the channel has now.
    pub subscribers: u32,
}

/// Makes a module's exports of an [`Actor`].
#[macro_export]
macro_rules! export {
    ($actor:ty) => {
        thread_local! {
            static ACTOR: ::core::cell::RefCell<$actor> = ::core::default::Default::default();
        }

        #[unsafe(no_mangle)]
        extern "C" fn alloc(length: u32) -> u32 {
            $crate::alloc(length)
        }

        #[unsafe(no_mangle)]
        extern "C" fn handle(_at: u32, _length: u32) -> u64 {
            ACTOR.with_borrow_mut(|actor| $crate::handle(actor))
        }
    };
}
