//! Membership in a small simulated network.

mod faults;
mod hostile;
mod lives;
mod scope;
mod world;
