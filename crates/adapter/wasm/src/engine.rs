//! The one engine of a process: code generation, the pool of instances, the
//! clock that interrupts guests.
//!
//! Holds: instances come from a pool whose memory is copied on write from the
//! component's image, so that a start costs microseconds.

use crate::error::WasmError;
use crate::guest::Guest;
use crate::limits::{MEMORY_BYTES_MAX, TABLE_ELEMENTS_MAX};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// How long a guest computes before others get their turn.
const TURN: Duration = Duration::from_millis(1);
/// Instances alive at once: address space, not memory, is what they reserve.
const INSTANCES_MAX: u32 = 1_000;
/// Of one guest's calls: deep recursion ends in a trap well inside the host's.
const STACK_BYTES_MAX: usize = 512 << 10;
const ASYNC_STACK_BYTES: usize = 1 << 20;
/// Pages an instance used that are kept for the next one instead of given back.
const KEEP_RESIDENT_BYTES: usize = 64 << 10;
const PARTS_PER_COMPONENT: u32 = 20;

/// Runs components. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    pub(crate) engine: Engine,
    pub(crate) linker: Arc<Linker<Guest>>,
    pub(crate) clock: Arc<Clock>,
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
        let clock = Clock::start(engine.clone());
        Ok(Self {
            engine,
            linker: Arc::new(linker),
            clock,
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
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(KEEP_RESIDENT_BYTES);
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

/// Advances the engine's epoch while guests compute; still otherwise, so that
/// an idle host wakes nobody.
pub(crate) struct Clock {
    running: AtomicUsize,
    thread: std::sync::OnceLock<std::thread::Thread>,
}

impl Clock {
    fn start(engine: Engine) -> Arc<Self> {
        let clock = Arc::new(Self {
            running: AtomicUsize::new(0),
            thread: std::sync::OnceLock::new(),
        });
        let held = Arc::downgrade(&clock);
        let handle = std::thread::spawn(move || {
            while let Some(clock) = held.upgrade() {
                let idle = clock.running.load(Ordering::Acquire) == 0;
                drop(clock);
                if idle {
                    std::thread::park();
                } else {
                    std::thread::sleep(TURN);
                    engine.increment_epoch();
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
    pub(crate) fn run(self: &Arc<Self>) -> Running {
        if self.running.fetch_add(1, Ordering::AcqRel) == 0 {
            self.wake();
        }
        Running(Arc::clone(self))
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        // The thread finds nothing to hold any more, and ends.
        self.wake();
    }
}

pub(crate) struct Running(Arc<Clock>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}
