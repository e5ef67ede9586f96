//! As much of wasi preview 1 as standard libraries need to start: output,
//! environment, clocks, randomness. The rest is there and denied.
//!
//! Holds: no descriptor is ever opened, so that there is none to put away.

use super::error::ActorError;
use super::imports::{Inside, View, view, wall_ns};
use crate::guest::Line;
use wasmtime::{Caller, FuncType, Linker, Val, ValType};

pub(super) const MODULE: &str = "wasi_snapshot_preview1";

/// Of wasi's numbers.
const SUCCESS: u32 = 0;
const BAD_DESCRIPTOR: i32 = 8;
const INVALID: u32 = 28;
const NOT_SUPPORTED: i32 = 58;

/// Vectors that one write takes; a write may be partial.
const VECTORS_MAX: u32 = 1024;
const WRITE_BYTES_MAX: usize = 64 << 10;

/// What is denied: name, parameters (`i` of 32, `I` of 64 bits).
const DENIED: [(&str, &str); 36] = [
    ("fd_advise", "iIIi"),
    ("fd_allocate", "iII"),
    ("fd_close", "i"),
    ("fd_datasync", "i"),
    ("fd_fdstat_get", "ii"),
    ("fd_fdstat_set_flags", "ii"),
    ("fd_fdstat_set_rights", "iII"),
    ("fd_filestat_get", "ii"),
    ("fd_filestat_set_size", "iI"),
    ("fd_filestat_set_times", "iIIi"),
    ("fd_pread", "iiiIi"),
    ("fd_prestat_dir_name", "iii"),
    ("fd_prestat_get", "ii"),
    ("fd_pwrite", "iiiIi"),
    ("fd_read", "iiii"),
    ("fd_readdir", "iiiIi"),
    ("fd_renumber", "ii"),
    ("fd_seek", "iIii"),
    ("fd_sync", "i"),
    ("fd_tell", "ii"),
    ("path_create_directory", "iii"),
    ("path_filestat_get", "iiiii"),
    ("path_filestat_set_times", "iiiiIIi"),
    ("path_link", "iiiiiii"),
    ("path_open", "iiiiiIIii"),
    ("path_readlink", "iiiiii"),
    ("path_remove_directory", "iii"),
    ("path_rename", "iiiiii"),
    ("path_symlink", "iiiii"),
    ("path_unlink_file", "iii"),
    ("poll_oneoff", "iiii"),
    ("proc_raise", "i"),
    ("sock_accept", "iii"),
    ("sock_recv", "iiiiii"),
    ("sock_send", "iiiii"),
    ("sock_shutdown", "ii"),
];

pub(super) fn add(linker: &mut Linker<Inside>) -> wasmtime::Result<()> {
    deny(linker)?;
    linker
        .func_wrap(
            MODULE,
            "args_sizes_get",
            |mut caller: Call, count: u32, size: u32| {
                let mut view = view(&mut caller)?;
                view.put(count, 0)?;
                view.put(size, 0)
            },
        )?
        .func_wrap(MODULE, "args_get", |_: Call, _: u32, _: u32| SUCCESS)?
        .func_wrap(MODULE, "environ_sizes_get", environ_sizes_get)?
        .func_wrap(MODULE, "environ_get", environ_get)?
        .func_wrap(
            MODULE,
            "clock_res_get",
            |mut caller: Call, _: u32, at: u32| {
                written(view(&mut caller)?.write("clock", at, &1_u64.to_le_bytes()))
            },
        )?
        .func_wrap(MODULE, "clock_time_get", clock_time_get)?
        .func_wrap(MODULE, "fd_write", fd_write)?
        .func_wrap(
            MODULE,
            "random_get",
            |mut caller: Call, at: u32, bytes: u32| {
                view(&mut caller)?.random(at, bytes).map(|()| SUCCESS)
            },
        )?
        .func_wrap(MODULE, "sched_yield", |_: Call| SUCCESS)?
        .func_wrap(MODULE, "proc_exit", |_: Call, status: u32| {
            Err::<(), _>(wasmtime::Error::msg(format!(
                "it exited with status {status}"
            )))
        })?;
    Ok(())
}

/// What is not denied.
const GIVEN: [&str; 10] = [
    "args_get",
    "args_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_write",
    "proc_exit",
    "random_get",
    "sched_yield",
];

/// All that links.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    GIVEN.into_iter().chain(DENIED.map(|(name, _)| name))
}

type Call<'a> = Caller<'a, Inside>;

fn deny(linker: &mut Linker<Inside>) -> wasmtime::Result<()> {
    for (name, parameters) in DENIED {
        let parameters = parameters.chars().map(|kind| match kind {
            'I' => ValType::I64,
            _ => ValType::I32,
        });
        let kind = FuncType::new(linker.engine(), parameters, [ValType::I32]);
        let number = match name.split('_').next() {
            Some("fd" | "path") => BAD_DESCRIPTOR,
            _ => NOT_SUPPORTED,
        };
        linker.func_new(MODULE, name, kind, move |_, _, results| {
            results[0] = Val::I32(number);
            Ok(())
        })?;
    }
    Ok(())
}

fn written(outcome: Result<(), ActorError>) -> wasmtime::Result<u32> {
    outcome?;
    Ok(SUCCESS)
}

impl View<'_> {
    fn put(&mut self, at: u32, number: u32) -> wasmtime::Result<u32> {
        written(self.write("result", at, &number.to_le_bytes()))
    }

    fn number(&self, at: u32) -> Result<u32, ActorError> {
        let bytes = self.read("vector", at, 4)?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
    }
}

fn environ_sizes_get(mut caller: Call, count: u32, size: u32) -> wasmtime::Result<u32> {
    let mut view = view(&mut caller)?;
    let all = &view.inside.environment;
    let variables = u32::try_from(all.len())?;
    let bytes = u32::try_from(all.iter().map(|one| one.len() + 1).sum::<usize>())?;
    view.put(count, variables)?;
    view.put(size, bytes)
}

fn environ_get(mut caller: Call, pointers: u32, texts: u32) -> wasmtime::Result<u32> {
    let mut view = view(&mut caller)?;
    let all = view.inside.environment.clone();
    let (mut pointer, mut text) = (pointers, texts);
    let beyond = || wasmtime::Error::msg("its environment does not fit");
    for one in &*all {
        view.put(pointer, text)?;
        view.write("environment", text, one.as_bytes())?;
        let end = text
            .checked_add(u32::try_from(one.len())?)
            .ok_or_else(beyond)?;
        view.write("environment", end, &[0])?;
        text = end.checked_add(1).ok_or_else(beyond)?;
        pointer = pointer.checked_add(4).ok_or_else(beyond)?;
    }
    Ok(SUCCESS)
}

fn clock_time_get(mut caller: Call, clock: u32, _: u64, at: u32) -> wasmtime::Result<u32> {
    let mut view = view(&mut caller)?;
    let now = match clock {
        0 => wall_ns(),
        1 => view.inside.clock.now_ns(),
        _ => return Ok(INVALID),
    };
    written(view.write("clock", at, &now.to_le_bytes()))
}

fn fd_write(
    mut caller: Call,
    descriptor: u32,
    vectors: u32,
    count: u32,
    result: u32,
) -> wasmtime::Result<u32> {
    let mut view = view(&mut caller)?;
    let line = match descriptor {
        1 => Line::Out,
        2 => Line::Error,
        _ => return Ok(BAD_DESCRIPTOR.cast_unsigned()),
    };
    let mut out = Vec::new();
    let ends = vectors.checked_add(count.min(VECTORS_MAX) * 8);
    let ends = ends.ok_or_else(|| wasmtime::Error::msg("its vectors are not in its memory"))?;
    for at in (vectors..ends).step_by(8) {
        let (start, bytes) = (view.number(at)?, view.number(at + 4)?);
        let piece = view.read("output", start, bytes)?;
        let room = WRITE_BYTES_MAX - out.len();
        out.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() >= room {
            break;
        }
    }
    (view.inside.output)(line, &out);
    view.put(result, u32::try_from(out.len())?)
}
