//! Stores that fetch from one another, with holders that misbehave.

mod damage;
mod disk;
mod fetching;
mod hostile;
mod keeping;
mod resume;
mod support;
mod trees;
