//! The one engine of a process: code generation, the pool of instances, the
//! clock that interrupts guests.
//!
//! Holds: instances come from a pool whose memory is copied on write from the
//! component's image, so that a start costs microseconds.

use crate::error::WasmError;
use crate::guest::Guest;
use crate::instance::Room;
use crate::lane::Lane;
use crate::limits::{MEMORY_BYTES_MAX, TABLE_ELEMENTS_MAX};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// How long a guest computes before others get their turn.
const TURN: Duration = Duration::from_millis(1);
/// Between two looks for instances that were idle for long.
const SWEEP: Duration = Duration::from_secs(1);
/// Instances alive at once: address space, not memory, is what they reserve.
const INSTANCES_MAX: u32 = 1_000;
/// Of one guest's calls: deep recursion ends in a trap well inside the host's.
pub(crate) const STACK_BYTES_MAX: usize = 512 << 10;
pub(crate) const ASYNC_STACK_BYTES: usize = 1 << 20;
/// Of what an instance used, what stays for the next one instead of being given
/// back and faulted in again: where the kernel tells which pages were written,
/// only those are reset; where it cannot, all of this is, so it is less.
const KEPT_IF_TOLD_BYTES: usize = 1 << 20;
const KEPT_BYTES: usize = 64 << 10;
const PARTS_PER_COMPONENT: u32 = 20;

/// Has the kernel tell this process which of its pages were written, and says
/// whether it does. To be called before a process hides its memory from others
/// of its user: from then on only root is told, and instances start slower.
pub fn watch_own_pages() -> bool {
    PoolingAllocationConfig::is_pagemap_scan_available()
}

/// Runs components. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    pub(crate) engine: Engine,
    pub(crate) linker: Arc<Linker<Guest>>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) room: Arc<Room>,
    pub(crate) lane: Arc<Lane>,
}

impl Host {
    pub fn new() -> Result<Self, WasmError> {
        let engine = Engine::new(&config()).map_err(|error| because(&error))?;
        let mut linker = Linker::new(&engine);
        // Everything of wasi is there to link with; what it may reach is decided
        // by each guest's context, which denies files and sockets.
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(|error| because(&error))?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)
            .map_err(|error| because(&error))?;
        crate::keyvalue::add_to_linker(&mut linker).map_err(|error| because(&error))?;
        let room = Arc::<Room>::default();
        Ok(Self {
            clock: Clock::start(engine.clone(), Arc::clone(&room)),
            engine,
            linker: Arc::new(linker),
            room,
            lane: Arc::default(),
        })
    }

    /// Machine code for this machine and this version of the engine.
    pub fn compile(&self, component: &[u8]) -> Result<Vec<u8>, WasmError> {
        if is_core_module(component) {
            return Err(WasmError::CoreModule);
        }
        let invalid = |error: &wasmtime::Error| WasmError::Invalid(format!("{error:#}"));
        let component = Component::from_binary(&self.engine, component);
        let component = component.map_err(|error| invalid(&error))?;
        component.serialize().map_err(|error| invalid(&error))
    }
}

fn because(error: &wasmtime::Error) -> WasmError {
    WasmError::Engine(format!("{error:#}"))
}

/// The layer is in the second half of the version field.
fn is_core_module(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\0asm\x01\0\0\0")
}

fn config() -> Config {
    let kept = if watch_own_pages() {
        KEPT_IF_TOLD_BYTES
    } else {
        KEPT_BYTES
    };
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(INSTANCES_MAX)
        .total_core_instances(INSTANCES_MAX * 4)
        .total_memories(INSTANCES_MAX * 2)
        .total_tables(INSTANCES_MAX * 4)
        .total_stacks(INSTANCES_MAX)
        .max_core_instances_per_component(PARTS_PER_COMPONENT)
        .max_memories_per_component(PARTS_PER_COMPONENT)
        .max_tables_per_component(PARTS_PER_COMPONENT)
        .max_memory_size(MEMORY_BYTES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .linear_memory_keep_resident(kept)
        .table_keep_resident(kept)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .memory_reservation(MEMORY_BYTES_MAX as u64)
        .memory_init_cow(true)
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES_MAX)
        .async_stack_size(ASYNC_STACK_BYTES);
    config
}

/// Advances the engine's epoch while guests compute, and ends instances that
/// were idle for long; still otherwise, so that an idle host wakes nobody.
pub(crate) struct Clock {
    running: AtomicUsize,
    thread: std::sync::OnceLock<std::thread::Thread>,
}

impl Clock {
    pub(crate) fn start(engine: Engine, room: Arc<Room>) -> Arc<Self> {
        let clock = Arc::new(Self {
            running: AtomicUsize::new(0),
            thread: std::sync::OnceLock::new(),
        });
        let held = Arc::downgrade(&clock);
        let handle = std::thread::spawn(move || {
            let mut swept = Instant::now();
            while let Some(clock) = held.upgrade() {
                // An instance is put by while it counts as running: seen as idle
                // here, it is in the room already.
                let idle = clock.running.load(Ordering::Acquire) == 0;
                drop(clock);
                match (idle, room.is_empty()) {
                    (true, true) => std::thread::park(),
                    (true, false) => std::thread::park_timeout(SWEEP),
                    (false, _) => {
                        std::thread::sleep(TURN);
                        engine.increment_epoch();
                    }
                }
                if swept.elapsed() >= SWEEP {
                    room.sweep();
                    swept = Instant::now();
                }
            }
        });
        let _ = clock.thread.set(handle.thread().clone());
        clock
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// A guest computes for as long as this lives.
    pub(crate) fn run(&self) -> Running<'_> {
        if self.running.fetch_add(1, Ordering::AcqRel) == 0 {
            self.wake();
        }
        Running(self)
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        // The thread finds nothing to hold any more, and ends.
        self.wake();
    }
}

pub(crate) struct Running<'a>(&'a Clock);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}
