//! Builds what a benchmark needs, optimised, and runs it.
//!
//! In: a benchmark's name; what follows is for it. Out: what it says.
//! Holds: the programs measured are of the release profile; the benchmark finds
//! them beside itself.

use crate::steps::{cargo_command, run as run_command, say, step};
use crate::tools;
use crate::workspace::Workspace;
use std::process::Command;

struct Bench {
    name: &'static str,
    /// The package whose program of the same name measures.
    package: &'static str,
    /// Packages whose programs are measured or used.
    packages: &'static [&'static str],
    examples: &'static [&'static str],
}

const BENCHES: [Bench; 9] = [
    Bench {
        name: "aggregation",
        package: "bench-aggregation",
        packages: &[],
        examples: &[],
    },
    Bench {
        name: "content",
        package: "bench-content",
        packages: &["homeostat"],
        examples: &[],
    },
    Bench {
        name: "evaluator",
        package: "bench-evaluator",
        packages: &[],
        examples: &[],
    },
    Bench {
        name: "gossip",
        package: "bench-gossip",
        packages: &["homeostat", "net"],
        examples: &["heartbeat"],
    },
    Bench {
        name: "placement",
        package: "bench-placement",
        packages: &[],
        examples: &[],
    },
    Bench {
        name: "repair",
        package: "bench-repair",
        packages: &["homeostat", "black-box"],
        examples: &[],
    },
    Bench {
        name: "spine",
        package: "bench-spine",
        packages: &["homeostat", "black-box", "store"],
        examples: &["writes"],
    },
    Bench {
        name: "store3",
        package: "bench-store3",
        packages: &["store"],
        examples: &["writes", "member"],
    },
    Bench {
        name: "wasm",
        package: "bench-wasm",
        packages: &["homeostat", "store", "agent"],
        examples: &["writes", "sets"],
    },
];

/// # Errors
/// Names the step that failed, or the benchmarks there are.
pub fn run(arguments: &[String]) -> Result<(), String> {
    let name = arguments.first().map_or("", String::as_str);
    let bench = find(name)?;
    let target = Workspace::load()?.target;
    step("build, optimised", || run_command(&mut build(bench)))?;
    let mut command = Command::new(target.join("release").join(bench.package));
    if bench.name == "aggregation" {
        // A simulated world is spread over gigabytes: in small pages, every
        // second wait for memory is for where a page is.
        command.env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");
    }
    if bench.name == "wasm" {
        match tools::wasmtime() {
            Ok(program) => drop(command.env("HOMEOSTAT_BENCH_WASMTIME", program)),
            Err(why) => say(&format!("    {why}")),
        }
    }
    say(&format!("==> {}", bench.package));
    run_command(command.args(&arguments[1..]))
}

fn find(name: &str) -> Result<&'static Bench, String> {
    let found = BENCHES.iter().find(|bench| bench.name == name);
    found.ok_or_else(|| {
        let known: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
        let known = known.join(", ");
        format!("no benchmark is called `{name}`; there are: {known}\nusage: cargo xtask bench NAME [--quick]")
    })
}

fn build(bench: &Bench) -> Command {
    let mut command = cargo_command();
    command.args(["build", "--release", "--bins", "--package", bench.package]);
    for package in bench.packages {
        command.args(["--package", package]);
    }
    for example in bench.examples {
        command.args(["--example", example]);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_benchmark_is_told_which_there_are() {
        let why = find("spin").err().expect("there is none");
        assert!(why.contains("`spin`") && why.contains("spine"), "{why}");
        assert!(find("spine").is_ok());
    }

    #[test]
    fn all_that_is_named_is_in_the_workspace() {
        let workspace = Workspace::load().expect("this workspace");
        for bench in &BENCHES {
            for package in bench.packages.iter().chain([&bench.package]) {
                let known = workspace
                    .members
                    .iter()
                    .any(|member| member.name == *package);
                assert!(known, "{package}");
            }
        }
    }
}
