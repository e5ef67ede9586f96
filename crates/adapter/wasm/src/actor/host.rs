//! The engine for actors: deterministic code, interrupted by a clock.
//!
//! Holds: the same module computes the same on every machine, to the last bit
//! of a float, so that its state can be taken up elsewhere.

use super::buckets;
use super::error::ActorModuleError;
use super::imports::{self, Inside};
use super::module::{Checked, check};
use super::preview1;
use crate::compiled::CompiledCache;
use crate::engine::{ASYNC_STACK_BYTES, Clock, STACK_BYTES_MAX};
use crate::error::WasmError;
use crate::import::nearest;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use wasmtime::{Config, Engine, FuncType, InstancePre, Linker, Module, ValType};

/// Runs actors. Cheap to clone.
#[derive(Clone)]
pub struct ActorHost {
    pub(super) engine: Engine,
    linker: Arc<Linker<Inside>>,
    pub(super) clock: Arc<Clock>,
    pub(super) entropy: Arc<File>,
}

/// A module that can be an actor, compiled and linked.
pub(super) struct ActorModule {
    pub host: ActorHost,
    pub checked: Checked,
    pub linked: InstancePre<Inside>,
}

impl ActorHost {
    pub fn new() -> Result<Self, WasmError> {
        let because = |error: &dyn std::fmt::Display| WasmError::Engine(format!("{error:#}"));
        let mut config = Config::new();
        config
            .cranelift_nan_canonicalization(true)
            .relaxed_simd_deterministic(true)
            .epoch_interruption(true)
            .max_wasm_stack(STACK_BYTES_MAX)
            .async_stack_size(ASYNC_STACK_BYTES);
        let engine = Engine::new(&config).map_err(|error| because(&error))?;
        let mut linker = Linker::new(&engine);
        imports::add(&mut linker).map_err(|error| because(&error))?;
        buckets::add(&mut linker).map_err(|error| because(&error))?;
        preview1::add(&mut linker).map_err(|error| because(&error))?;
        let entropy = File::open("/dev/urandom").map_err(|error| because(&error))?;
        Ok(Self {
            clock: Clock::start(engine.clone(), Arc::default()),
            engine,
            linker: Arc::new(linker),
            entropy: Arc::new(entropy),
        })
    }

    /// Checks, and compiles unless it was; says whether it had to.
    pub fn prepare(&self, cache: &CompiledCache, module: &[u8]) -> Result<bool, ActorModuleError> {
        let checked = check(module)?;
        let (module, made) = self.compiled(cache, &checked)?;
        self.link(&module)?;
        Ok(made)
    }

    pub(super) fn load(
        &self,
        cache: &CompiledCache,
        module: &[u8],
    ) -> Result<ActorModule, ActorModuleError> {
        let checked = check(module)?;
        let (module, _) = self.compiled(cache, &checked)?;
        Ok(ActorModule {
            host: self.clone(),
            linked: self.link(&module)?,
            checked,
        })
    }

    fn compiled(
        &self,
        cache: &CompiledCache,
        checked: &Checked,
    ) -> Result<(Module, bool), ActorModuleError> {
        let compile = || {
            let module = Module::from_binary(&self.engine, &checked.bytes);
            let code = module.and_then(|module| module.serialize());
            code.map_err(|error| ActorModuleError::Invalid(format!("{error:#}")))
        };
        cache.load_as(&self.engine, &checked.bytes, compile)
    }

    fn link(&self, module: &Module) -> Result<InstancePre<Inside>, ActorModuleError> {
        for import in module.imports() {
            known(import.module(), import.name())?;
        }
        let linked = self.linker.instantiate_pre(module);
        let linked = linked.map_err(|error| ActorModuleError::Invalid(format!("{error:#}")))?;
        exports(module)?;
        Ok(linked)
    }

    pub(super) fn random(&self) -> std::io::Result<u64> {
        let mut bytes = [0; 8];
        (&*self.entropy).read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

fn exports(module: &Module) -> Result<(), ActorModuleError> {
    let memory = module.get_export("memory");
    if memory.is_none_or(|found| found.memory().is_none()) {
        return Err(ActorModuleError::Export("memory"));
    }
    let (i32, i64) = (|| ValType::I32, || ValType::I64);
    let alloc = FuncType::new(module.engine(), [i32()], [i32()]);
    let handle = FuncType::new(module.engine(), [i32(), i32()], [i64()]);
    for (name, shown, kind) in [
        ("alloc", "alloc(i32) -> i32", alloc),
        ("handle", "handle(i32, i32) -> i64", handle),
    ] {
        let found = module.get_export(name);
        let found = found.as_ref().and_then(wasmtime::ExternType::func);
        if found.is_none_or(|found| !FuncType::eq(found, &kind)) {
            return Err(ActorModuleError::Export(shown));
        }
    }
    Ok(())
}

/// Whether an import is provided under this name, of whatever type.
fn known(module: &str, name: &str) -> Result<(), ActorModuleError> {
    let provided: Vec<String> = imports::PROVIDED
        .iter()
        .map(|name| format!("{}.{name}", imports::MODULE))
        .chain(preview1::names().map(|name| format!("{}.{name}", preview1::MODULE)))
        .collect();
    let import = format!("{module}.{name}");
    if provided.contains(&import) {
        return Ok(());
    }
    let nearest = nearest(&import, provided.iter().map(String::as_str));
    Err(ActorModuleError::Import { import, nearest })
}
