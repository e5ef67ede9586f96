//! Sockets, descriptors and processes between our own programs.
//!
//! In: messages and descriptors to send, process numbers to watch.
//! Out: whole messages with their descriptors, exits.
//! Holds: a peer of another user is never answered.
//! Never: decides what a message means.

mod asked;
pub mod buckets;
pub mod connection;
pub mod process;

pub use asked::Asked;
pub use connection::{Connection, IpcError, Listener, ReceiveHalf, SendHalf, connect};
pub use process::{Identity, LockFile, Watched, lock_file, write_pid_file};
