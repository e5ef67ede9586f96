//! Identity and transport between nodes: who belongs, how a machine joins, and
//! datagrams, calls and streams over QUIC with mutual TLS.
//!
//! In: credentials, the node table's word, what to send. Out: what authenticated
//! peers send, and how they stand. Holds: no unauthenticated byte is acted on
//! but a join's, which is bounded and proved first.
//! Never: keeps the node table, tokens or keys; the agent does.

mod congestion;
pub mod identity;
pub mod join;
mod socket;
mod tls;
pub mod transport;

pub use identity::{Authority, Credentials, NodeKey, PublicKey, TokenVerifier};
pub use join::{Doorkeeper, Joined, Joining, join};
pub use socket::{Impairment, Impairments, impairments_from};
pub use transport::{Address, Incoming, Limits, Options, Transport, versions_spoken};
pub use wire::net::{ClusterId, Identity, JoinToken, Kind, TokenId};
