//! Pure composition of the cores: node events in, node effects out; and the
//! traits behind which the adapters stand.
//!
//! Never: reads a clock, does I/O, knows a runtime.

pub mod desired;
pub mod driver;
pub mod store;

/// A future behind a trait object.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
