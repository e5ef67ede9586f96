//! Our side: the engine behind a plain HTTP/1.1 server.

use crate::Bench;
use bench_common::Failure;
use bench_common::child::{Child, free_address};
use bench_common::machine::pinned;

/// A host that reaches a guest which loops for ever; all others reach one that
/// answers.
pub const HOG: &str = "hog";

pub fn start(bench: &Bench, name: &str, reuse: u32) -> Result<Child, Failure> {
    let home = bench.directory(name)?;
    let address = free_address()?;
    let mut command = pinned(&bench.cores.server, &bench.server);
    command
        .arg(address.to_string())
        .arg(&bench.component)
        .arg(reuse.to_string());
    Child::start("our server", command, address, &home)
}
