//! A store with several members: how they reach one another, what they ask, who
//! they are.
//!
//! In: bytes that a member sent and the transport has proven. Out: its answer.
//! Holds: what one member proposes is done once, however often it was sent;
//! who is no member may ask for nothing. Whose entries and votes are taken, the
//! program decides, which knows whom the cluster trusts.

mod answer;
mod early;
mod fitness;
mod force;
mod members;
mod message;
mod network;
mod once;
mod pulse;
mod second;
mod ways;
mod writer;

pub use force::{begin_anew, generation, set_generation, take_over};
pub use members::Members;
pub use ways::{Carry, CarryError};

pub(crate) use early::Early;
pub(crate) use fitness::Aside;
#[cfg(test)]
pub(crate) use force::take_over_in;
pub(crate) use network::Network;
pub(crate) use once::{Before, Once};
pub(crate) use pulse::{ANSWER_BEATS, LEASE_BEATS, Silence, pulse};
pub(crate) use second::Second;
pub(crate) use ways::Ways;
pub(crate) use writer::{NoLeader, UNSENT_MAX, Writer, Wrote, read_index};
