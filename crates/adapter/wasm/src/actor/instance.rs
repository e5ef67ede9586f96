//! One live actor: its memory, its globals, and one call at a time.
//!
//! In: a message. Out: the actor's answer as bytes; its state as a checkpoint.
//! Holds: woken from a checkpoint, it is what it was; nothing of it runs for
//! that. Never: goes on after a call that failed within it.

use super::error::{ActorError, WakeError};
use super::host::ActorModule;
use super::imports::{Inside, range};
use super::module::{START, global};
use crate::engine::Clock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use wasmtime::{
    AsContextMut, Global, Memory, Store, TypedFunc, UpdateDeadline, V128, Val, WasmParams,
    WasmResults,
};
use wire::checkpoint::{Checkpoint, PAGE_BYTES, Session, Value};

/// Of one answer.
const ANSWER_BYTES_MAX: u32 = 16 << 20;
const WASM_PAGE_BYTES: usize = 64 << 10;
static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

pub(super) struct Instance {
    store: Store<Inside>,
    exports: wasmtime::Instance,
    memory: Memory,
    alloc: TypedFunc<u32, u32>,
    handle: TypedFunc<(u32, u32), u64>,
    globals: Vec<Global>,
    clock: Arc<Clock>,
    /// The subscribers that it has been told of.
    pub told: BTreeMap<u64, String>,
}

/// A checkpoint and its pages.
pub(super) type Saved = (Checkpoint, Vec<u8>);

impl Instance {
    /// Starts it with nothing behind it.
    pub(super) async fn fresh(module: &ActorModule, inside: Inside) -> Result<Self, ActorError> {
        let mut made = Self::new(module, inside).await?;
        // What the module starts itself with, what a wasi library does, what
        // the author wants: each of them optional.
        for name in [START, "_initialize", "init"] {
            if let Some(start) = made.exports.get_func(&mut made.store, name) {
                let start = start.typed::<(), ()>(&made.store);
                let start = start.map_err(|error| ActorError::Trap(format!("{error:#}")))?;
                made.call(&start, ()).await?;
            }
        }
        Ok(made)
    }

    /// Brings it back from what it was.
    pub(super) async fn woken(
        module: &ActorModule,
        inside: Inside,
        (state, pages): &Saved,
    ) -> Result<Self, WakeError> {
        let mut made = Self::new(module, inside).await.map_err(WakeError::Start)?;
        made.set_globals(&state.globals)?;
        made.set_memory(state, pages)?;
        let sessions = state.sessions.iter().cloned();
        made.told = sessions
            .map(|session| (session.subscriber, session.channel))
            .collect();
        Ok(made)
    }

    async fn new(module: &ActorModule, inside: Inside) -> Result<Self, ActorError> {
        let mut store = Store::new(&module.host.engine, inside);
        store.limiter(|inside| inside);
        store.epoch_deadline_callback(|context| {
            let inside = context.data();
            if Instant::now() > inside.deadline {
                return Err(ActorError::Time(inside.limits.time).into());
            }
            // Others get their turn.
            Ok(UpdateDeadline::Yield(1))
        });
        store.data_mut().begin();
        store.set_epoch_deadline(1);
        let running = module.host.clock.run();
        let linked = module.linked.instantiate_async(&mut store).await;
        drop(running);
        let instance = linked.map_err(|error| why(store.data(), &error))?;
        let lacking = |error: wasmtime::Error| ActorError::Trap(format!("{error:#}"));
        let memory = instance
            .get_memory(&mut store, "memory")
            .ok_or_else(|| ActorError::Trap("it exports no memory".to_owned()))?;
        let alloc = instance.get_typed_func(&mut store, "alloc");
        let handle = instance.get_typed_func(&mut store, "handle");
        let globals = (0..module.checked.globals)
            .filter_map(|index| instance.get_global(&mut store, &global(index)))
            .collect();
        Ok(Self {
            exports: instance,
            memory,
            alloc: alloc.map_err(lacking)?,
            handle: handle.map_err(lacking)?,
            globals,
            clock: Arc::clone(&module.host.clock),
            store,
            told: BTreeMap::new(),
        })
    }

    async fn call<P, R>(
        &mut self,
        function: &TypedFunc<P, R>,
        parameters: P,
    ) -> Result<R, ActorError>
    where
        P: WasmParams + Sync,
        R: WasmResults + Sync,
    {
        let _running = self.clock.run();
        self.store.data_mut().begin();
        self.store.set_epoch_deadline(1);
        let called = function.call_async(&mut self.store, parameters).await;
        called.map_err(|error| why(self.store.data(), &error))
    }

    /// Gives it one message. What fails within it leaves it undone: it must not
    /// be called again after an error that [`ActorError::ends`].
    pub(super) async fn handle(&mut self, message: &[u8]) -> Result<Vec<u8>, ActorError> {
        let no_room = ActorError::NoRoom(message.len());
        let bytes = u32::try_from(message.len()).map_err(|_| no_room.clone())?;
        let at = self.call(&self.alloc.clone(), bytes).await?;
        if at == 0 {
            return Err(no_room);
        }
        let place = range("room", self.memory.data_size(&self.store), at, bytes)?;
        self.memory.data_mut(&mut self.store)[place].copy_from_slice(message);
        let packed = self.call(&self.handle.clone(), (at, bytes)).await?;
        let (at, bytes) = halves(packed);
        if bytes > ANSWER_BYTES_MAX {
            return Err(ActorError::Long {
                what: "answer",
                bytes,
                max: ANSWER_BYTES_MAX,
            });
        }
        let memory = self.memory.data(&self.store);
        Ok(memory[range("answer", memory.len(), at, bytes)?].to_vec())
    }

    /// All that it is, between two calls.
    pub(super) fn save(&mut self, module: &ActorModule) -> Saved {
        let mut context = self.store.as_context_mut();
        let globals = self.globals.iter();
        let globals = globals.filter_map(|global| value(&global.get(&mut context)));
        let globals = globals.collect();
        let memory = self.memory.data(&self.store);
        let (mut indices, mut pages) = (Vec::new(), Vec::new());
        for (index, page) in (0..).zip(memory.chunks(PAGE_BYTES)) {
            if page != &ZEROS[..page.len()] {
                indices.push(index);
                pages.extend_from_slice(page);
            }
        }
        let sessions = self.told.iter();
        let sessions = sessions.map(|(subscriber, channel)| Session {
            channel: channel.clone(),
            subscriber: *subscriber,
        });
        let state = Checkpoint {
            module: module.checked.hash,
            abi: wire::actor::VERSION,
            monotonic_ns: self.store.data().clock.now_ns(),
            globals,
            sessions: sessions.collect(),
            memory_bytes: u64::try_from(memory.len()).unwrap_or(u64::MAX),
            pages: indices,
        };
        (state, pages)
    }

    fn set_globals(&mut self, values: &[Value]) -> Result<(), WakeError> {
        if values.len() != self.globals.len() {
            return Err(WakeError::Shape("globals"));
        }
        for (global, value) in self.globals.iter().zip(values) {
            let set = global.set(&mut self.store, number(*value));
            set.map_err(|_| WakeError::Shape("globals"))?;
        }
        Ok(())
    }

    fn set_memory(&mut self, state: &Checkpoint, pages: &[u8]) -> Result<(), WakeError> {
        const WRONG: WakeError = WakeError::Shape("pages");
        let wanted = usize::try_from(state.memory_bytes).map_err(|_| WRONG)?;
        let begun = self.memory.data_size(&self.store);
        let more = wanted.checked_sub(begun).ok_or(WRONG)?;
        if more % WASM_PAGE_BYTES != 0 {
            return Err(WRONG);
        }
        let more = u64::try_from(more / WASM_PAGE_BYTES).map_err(|_| WRONG)?;
        self.memory.grow(&mut self.store, more).map_err(|_| WRONG)?;
        let memory = self.memory.data_mut(&mut self.store);
        // What it began with may have been made zero since.
        memory[..begun].fill(0);
        for (index, page) in state.pages.iter().zip(pages.chunks(PAGE_BYTES)) {
            let start = usize::try_from(*index).map_err(|_| WRONG)?;
            let start = start.checked_mul(PAGE_BYTES).ok_or(WRONG)?;
            let place = memory
                .get_mut(start..)
                .and_then(|rest| rest.get_mut(..PAGE_BYTES));
            place.ok_or(WRONG)?.copy_from_slice(page);
        }
        Ok(())
    }
}

/// Address and length, as an actor packs them.
fn halves(packed: u64) -> (u32, u32) {
    let low = u32::try_from(packed & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    (u32::try_from(packed >> 32).unwrap_or(u32::MAX), low)
}

fn value(global: &Val) -> Option<Value> {
    match global {
        Val::I32(bits) => Some(Value::I32(bits.cast_unsigned())),
        Val::I64(bits) => Some(Value::I64(bits.cast_unsigned())),
        Val::F32(bits) => Some(Value::F32(*bits)),
        Val::F64(bits) => Some(Value::F64(*bits)),
        Val::V128(bits) => Some(Value::V128(bits.as_u128())),
        // The module was refused if it has such a one.
        _ => None,
    }
}

fn number(value: Value) -> Val {
    match value {
        Value::I32(bits) => Val::I32(bits.cast_signed()),
        Value::I64(bits) => Val::I64(bits.cast_signed()),
        Value::F32(bits) => Val::F32(bits),
        Value::F64(bits) => Val::F64(bits),
        Value::V128(bits) => Val::V128(V128::from(bits)),
    }
}

fn why(inside: &Inside, error: &wasmtime::Error) -> ActorError {
    if let Some(exceeded) = inside.exceeded {
        return exceeded.of_actor(&inside.limits);
    }
    if let Some(named) = error.downcast_ref::<ActorError>() {
        return named.clone();
    }
    match error.downcast_ref::<wasmtime::Trap>() {
        Some(trap) => ActorError::Trap(trap.to_string()),
        None => ActorError::Trap(error.root_cause().to_string()),
    }
}
