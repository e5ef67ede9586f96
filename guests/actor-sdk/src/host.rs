//! What the host does for an actor: module `homeostat`.

use std::time::{Duration, SystemTime};

mod raw {
    #[link(wasm_import_module = "homeostat")]
    unsafe extern "C" {
        pub safe fn log(level: u32, at: *const u8, bytes: usize);
        pub safe fn clock_wall() -> u64;
        pub safe fn clock_monotonic() -> u64;
        pub safe fn random(at: *mut u8, bytes: usize);
        pub safe fn publish(
            channel: *const u8,
            channel_bytes: usize,
            data: *const u8,
            data_bytes: usize,
        ) -> u32;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Error,
    Warning,
    Info,
    Debug,
}

/// A line in the service's log; at most 64 KiB.
pub fn log(level: Level, text: &str) {
    raw::log(level as u32, text.as_ptr(), text.len());
}

/// Gives an event, at most 64 KiB, to all who have `channel`'s; how many.
pub fn publish(channel: &str, data: &str) -> u32 {
    raw::publish(channel.as_ptr(), channel.len(), data.as_ptr(), data.len())
}

/// At most 64 KiB of it.
pub fn random(bytes: &mut [u8]) {
    raw::random(bytes.as_mut_ptr(), bytes.len());
}

/// The time of day.
pub fn wall() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(raw::clock_wall())
}

/// Since the actor was started afresh; it never goes back, and stands still
/// while the actor is put away.
pub fn monotonic() -> Duration {
    Duration::from_nanos(raw::clock_monotonic())
}
