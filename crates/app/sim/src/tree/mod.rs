//! Trees of zones at scale: the cores that agents run, thousands to a hundred
//! thousand of them, over recorded distances.
//!
//! In: a shape, a seed, what befalls it. Out: what every node knows when, and
//! what it cost.

mod ask;
mod due;
mod keys;
mod measure;
mod node;
mod rows;
mod run;
mod shape;
mod ways;
mod world;

pub use ask::ask;
pub use keys::{AUTHORITY, SIGN_NANOS, Shelf, SimKeys, VERIFY_NANOS, signature};
pub use measure::{Traffic, TrafficShare, Watch};
pub use node::Node;
pub use rows::{Facts, SimPrograms, mark, nodes};
pub use run::{CHURN_EVERY, TreeFound, TreeRun, settle};
pub use shape::{Shape, contact, id};
pub use ways::Ways;
pub use world::{TreeWorld, WorldStart};
