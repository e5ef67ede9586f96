//! Machine code compiled ahead, kept by the component's hash.
//!
//! Holds: only code that this node made is run: a keyed hash (BLAKE3) beside
//! each file says so, and what was tampered with, truncated, or made by another
//! version of the engine is compiled anew.

use crate::engine::Host;
use crate::error::WasmError;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

const KEY_BYTES: usize = 32;

pub struct CompiledCache {
    directory: PathBuf,
    key: [u8; KEY_BYTES],
}

impl CompiledCache {
    /// Makes the directory and its key (mode 0600) where they are missing.
    pub fn open(directory: &Path) -> Result<Self, WasmError> {
        let cannot = |source| WasmError::Cache {
            path: directory.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(cannot)?;
        let key = key(&directory.join("key")).map_err(cannot)?;
        Ok(Self {
            directory: directory.to_owned(),
            key,
        })
    }

    /// Compiles the component unless it was, and says whether it had to.
    pub fn prepare(&self, host: &Host, component: &[u8]) -> Result<bool, WasmError> {
        let compile = || host.compile(component);
        self.load_as::<Component, _>(&host.engine, component, compile)
            .map(|(_, made)| made)
    }

    pub(crate) fn load(&self, host: &Host, component: &[u8]) -> Result<Component, WasmError> {
        let compile = || host.compile(component);
        self.load_as(&host.engine, component, compile)
            .map(|(component, _)| component)
    }

    /// The machine code of `source`, and whether it had to be compiled.
    pub(crate) fn load_as<C: Code, E: From<WasmError>>(
        &self,
        engine: &Engine,
        source: &[u8],
        compile: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<(C, bool), E> {
        if let Some(found) = self.find(engine, source) {
            return Ok((found, false));
        }
        self.keep(source, &compile()?)?;
        let found = self.find(engine, source).ok_or_else(|| WasmError::Cache {
            path: self.directory.clone(),
            source: io::Error::other("what was just compiled cannot be read back"),
        })?;
        Ok((found, true))
    }

    fn paths(&self, component: &blake3::Hash) -> (PathBuf, PathBuf) {
        let name = component.to_hex();
        let code = self.directory.join(format!("{name}.code"));
        let mark = self.directory.join(format!("{name}.mark"));
        (code, mark)
    }

    fn mark(&self, component: &blake3::Hash, code: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(component.as_bytes());
        hasher.update(code);
        hasher.finalize()
    }

    fn find<C: Code>(&self, engine: &Engine, source: &[u8]) -> Option<C> {
        let hash = blake3::hash(source);
        let (code_path, mark_path) = self.paths(&hash);
        let code = fs::read(&code_path).ok()?;
        let kept = blake3::Hash::from_slice(&fs::read(mark_path).ok()?).ok()?;
        // Compared in constant time.
        if kept != self.mark(&hash, &code) {
            tracing::warn!(path = %code_path.display(), "not what was compiled here: made anew");
            return None;
        }
        #[expect(
            unsafe_code,
            reason = "machine code of our own making, as the keyed hash has just shown; mapped \
                      from its file so that idle services share the page cache"
        )]
        let found = unsafe { C::map(engine, &code_path) };
        found
            .map_err(|error| tracing::info!(%error, "compiled by another version: made anew"))
            .ok()
    }

    fn keep(&self, source: &[u8], code: &[u8]) -> Result<(), WasmError> {
        let hash = blake3::hash(source);
        let mark = self.mark(&hash, code);
        let (code_path, mark_path) = self.paths(&hash);
        for (path, bytes) in [(code_path, code), (mark_path, mark.as_bytes())] {
            replace(&path, bytes).map_err(|source| WasmError::Cache { path, source })?;
        }
        Ok(())
    }
}

/// What is compiled: components, and actors' modules.
#[expect(unsafe_code, reason = "it is run as it is found")]
pub(crate) trait Code: Sized {
    /// # Safety
    /// The file is one that this engine wrote.
    unsafe fn map(engine: &Engine, path: &Path) -> wasmtime::Result<Self>;
}

#[expect(unsafe_code, reason = "as the trait demands it")]
impl Code for Component {
    unsafe fn map(engine: &Engine, path: &Path) -> wasmtime::Result<Self> {
        unsafe { Self::deserialize_file(engine, path) }
    }
}

#[expect(unsafe_code, reason = "as the trait demands it")]
impl Code for Module {
    unsafe fn map(engine: &Engine, path: &Path) -> wasmtime::Result<Self> {
        unsafe { Self::deserialize_file(engine, path) }
    }
}

fn key(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    match fs::read(path) {
        Ok(found) if found.len() == KEY_BYTES => {
            key.copy_from_slice(&found);
            return Ok(key);
        }
        // A damaged key vouches for nothing: all is compiled anew.
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    replace(path, &key)?;
    Ok(key)
}

/// The whole old or the whole new file; its owner's alone.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension(format!("new{}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}
