//! What nodes say to one another: who they are, the line that lets a machine
//! join, and the frames of calls, streams and datagrams.
//!
//! Holds: a frame is read only under the version its connection agreed on;
//! lengths are checked before anything is kept.

pub mod frame;
pub mod identity;
pub mod join;
pub mod token;

pub use frame::{VERSION, VERSION_MIN};
pub use identity::{ClusterId, Identity, IdentityError, Kind};
pub use token::{JoinToken, TokenError, TokenId};
