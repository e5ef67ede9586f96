//! Trees of zones in the simulated world. One seed, one history; a failing run
//! says its seed.

mod faults;
mod hostile;
mod programs;
mod questions;
mod random;
mod spreading;
mod sql;
