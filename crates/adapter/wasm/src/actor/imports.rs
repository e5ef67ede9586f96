//! What an actor may ask its host for: module `homeostat`.
//!
//! Holds: each pointer is checked against the actor's memory, each length
//! against its limit; what is wrong ends the actor and is named.
//! Never: keeps anything for an actor that its checkpoint does not hold.

use super::channels::Hub;
use super::error::ActorError;
use crate::error::Exceeded;
use crate::guest::{Line, OutputSink};
use crate::limits::Limits;
use node::buckets::BucketAccess;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use wasmtime::{Caller, Extern, Linker};

pub(super) const MODULE: &str = "homeostat";
/// Functions of [`MODULE`], for whoever asks for another.
pub(super) const PROVIDED: [&str; 10] = [
    "bucket_compare_and_set",
    "bucket_delete",
    "bucket_get",
    "bucket_increment",
    "bucket_set",
    "clock_monotonic",
    "clock_wall",
    "log",
    "publish",
    "random",
];
const LEVELS: [&str; 4] = ["error", "warning", "info", "debug"];
/// Of one log line, event, or piece of randomness.
const BYTES_MAX: u32 = 64 << 10;

/// What one instance has around it.
pub(super) struct Inside {
    pub limits: Limits,
    /// Which limit refused it something in this call.
    pub exceeded: Option<Exceeded>,
    /// Of this call.
    pub deadline: Instant,
    pub output: OutputSink,
    /// Each `NAME=value`.
    pub environment: Arc<[String]>,
    pub hub: Arc<Hub>,
    pub entropy: Arc<File>,
    pub clock: OwnClock,
    pub buckets: Option<BucketAccess>,
    /// For buckets, in this call.
    pub waited: Duration,
}

/// Goes on from where it stood when the actor was put away.
#[derive(Clone, Copy)]
pub(super) struct OwnClock {
    before: Duration,
    since: Instant,
}

impl OwnClock {
    pub fn from(before_ns: u64) -> Self {
        Self {
            before: Duration::from_nanos(before_ns),
            since: Instant::now(),
        }
    }

    pub fn now_ns(&self) -> u64 {
        let passed = self.before.saturating_add(self.since.elapsed());
        u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX)
    }
}

pub(super) fn wall_ns() -> u64 {
    let passed = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX)
}

impl Inside {
    /// A call begins.
    pub fn begin(&mut self) {
        self.exceeded = None;
        self.waited = Duration::ZERO;
        self.deadline = Instant::now() + self.limits.time;
    }

    fn allow(&mut self, desired: usize, limit: usize, exceeded: Exceeded) -> bool {
        let within = desired <= limit;
        if !within {
            self.exceeded = Some(exceeded);
        }
        within
    }
}

impl wasmtime::ResourceLimiter for Inside {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.allow(desired, self.limits.memory_bytes, Exceeded::Memory))
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.allow(desired, self.limits.table_elements, Exceeded::Table))
    }
}

/// The actor's memory with what is around it.
pub(super) struct View<'a> {
    pub memory: &'a mut [u8],
    pub inside: &'a mut Inside,
}

pub(super) fn view<'a>(caller: &'a mut Caller<'_, Inside>) -> wasmtime::Result<View<'a>> {
    let found = caller.get_export("memory").and_then(Extern::into_memory);
    let memory = found.ok_or_else(|| wasmtime::Error::msg("it has no memory"))?;
    let (memory, inside) = memory.data_and_store_mut(caller);
    Ok(View { memory, inside })
}

/// Where `bytes` at `address` are in a memory of `memory` bytes.
pub(super) fn range(
    what: &'static str,
    memory: usize,
    address: u32,
    bytes: u32,
) -> Result<Range<usize>, ActorError> {
    let wild = || ActorError::Wild {
        what,
        address,
        bytes,
        memory,
    };
    let start = usize::try_from(address).map_err(|_| wild())?;
    let length = usize::try_from(bytes).map_err(|_| wild())?;
    let end = start.checked_add(length).ok_or_else(wild)?;
    (end <= memory).then_some(start..end).ok_or_else(wild)
}

impl View<'_> {
    pub fn read(&self, what: &'static str, at: u32, bytes: u32) -> Result<&[u8], ActorError> {
        Ok(&self.memory[range(what, self.memory.len(), at, bytes)?])
    }

    /// As [`View::read`], of at most [`BYTES_MAX`].
    fn short(&self, what: &'static str, at: u32, bytes: u32) -> Result<&[u8], ActorError> {
        bounded(what, bytes)?;
        self.read(what, at, bytes)
    }

    pub fn write(&mut self, what: &'static str, at: u32, bytes: &[u8]) -> Result<(), ActorError> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let range = range(what, self.memory.len(), at, length)?;
        self.memory[range].copy_from_slice(bytes);
        Ok(())
    }

    pub fn random(&mut self, at: u32, bytes: u32) -> wasmtime::Result<()> {
        bounded("randomness", bytes)?;
        let range = range("randomness", self.memory.len(), at, bytes)?;
        (&*self.inside.entropy).read_exact(&mut self.memory[range])?;
        Ok(())
    }
}

fn bounded(what: &'static str, bytes: u32) -> Result<(), ActorError> {
    let max = BYTES_MAX;
    (bytes <= max)
        .then_some(())
        .ok_or(ActorError::Long { what, bytes, max })
}

pub(super) fn add(linker: &mut Linker<Inside>) -> wasmtime::Result<()> {
    linker
        .func_wrap(MODULE, "log", log)?
        .func_wrap(MODULE, "clock_wall", |_: Caller<'_, Inside>| wall_ns())?
        .func_wrap(MODULE, "clock_monotonic", |caller: Caller<'_, Inside>| {
            caller.data().clock.now_ns()
        })?
        .func_wrap(
            MODULE,
            "random",
            |mut caller: Caller<'_, Inside>, at: u32, bytes: u32| {
                view(&mut caller)?.random(at, bytes)
            },
        )?
        .func_wrap(MODULE, "publish", publish)?;
    Ok(())
}

fn log(mut caller: Caller<'_, Inside>, level: u32, at: u32, bytes: u32) -> wasmtime::Result<()> {
    let view = view(&mut caller)?;
    let text = String::from_utf8_lossy(view.short("log line", at, bytes)?);
    let level = usize::try_from(level).unwrap_or(usize::MAX);
    let level = LEVELS.get(level).unwrap_or(&LEVELS[LEVELS.len() - 1]);
    (view.inside.output)(Line::Error, format!("{level}: {text}\n").as_bytes());
    Ok(())
}

fn publish(
    mut caller: Caller<'_, Inside>,
    channel_at: u32,
    channel_bytes: u32,
    data_at: u32,
    data_bytes: u32,
) -> wasmtime::Result<u32> {
    let view = view(&mut caller)?;
    let name = view.short("channel", channel_at, channel_bytes)?;
    let channel = wire::actor::channel(name).map_err(ActorError::Channel)?;
    let data = view.short("event", data_at, data_bytes)?;
    Ok(view.inside.hub.publish(&channel, data))
}
