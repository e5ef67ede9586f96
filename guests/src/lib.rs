//! Components built from this repository's sources, as bytes.

/// Does what a request's path says, good and bad: `probe/src/lib.rs` lists it.
pub const PROBE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probe.wasm"));

/// The same for actors, as a core module: `probe-actor/src/lib.rs` lists it.
pub const PROBE_ACTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probe-actor.wasm"));

/// Counts who has its events open, live.
pub const VISITORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/visitors.wasm"));
/// Readers' comments, kept in the bucket bound as `comments`.
pub const COMMENTS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/comments.wasm"));
