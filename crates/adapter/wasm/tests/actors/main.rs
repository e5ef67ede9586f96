//! Actors from the side of who asks: written by hand where no compiler would.

mod away;
mod bench;
mod hostile;
mod kept;
mod modules;
mod sdk;
mod streams;
