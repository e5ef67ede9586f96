//! Aggregate programs: what each function gives, that trees give what one zone
//! would, that nothing hostile gets through, and that `SQLite` agrees.

mod hostile;
mod language;
mod samples;
mod sqlite;
mod trees;
