//! A store that is no kinder than the real ones: the simulator's.

mod model;
mod shared;

pub use model::{Model, StoreFaults};
pub use shared::ModelStore;
