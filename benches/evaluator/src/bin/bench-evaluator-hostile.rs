//! Reads and evaluates hostile programs, and counts panics, time and memory.
//!
//! In: how many. Out: lines of `key=number`.
//! Holds: time is the shortest of three, since others use the machine too.

#[expect(dead_code, reason = "the tests' file, of which this needs a part")]
#[path = "../../../../crates/core/aggregation/tests/program/samples.rs"]
mod samples;

use aggregation::program::{Children, Limits, Program};
use bench_common::{Failure, data};
use kernel::{Name, NodeId, Rng};
use peak_alloc::PeakAlloc;
use samples::{context, hostile_row, mutated, name, pick, program};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;
use wire::attributes::Row;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

#[derive(Default)]
struct Most {
    ms: f64,
    kib: f64,
}

impl Most {
    /// Runs it three times.
    fn of<T>(&mut self, mut work: impl FnMut() -> T) -> T {
        let mut shortest = f64::INFINITY;
        let mut once = || {
            let before = MEMORY.current_usage();
            MEMORY.reset_peak_usage();
            let began = Instant::now();
            let result = work();
            shortest = shortest.min(began.elapsed().as_secs_f64() * 1e3);
            let kib = f64::from(
                u32::try_from(MEMORY.peak_usage().saturating_sub(before)).unwrap_or(u32::MAX),
            ) / 1024.0;
            self.kib = self.kib.max(kib);
            result
        };
        once();
        once();
        let result = once();
        self.ms = self.ms.max(shortest);
        result
    }
}

fn main() -> Result<(), Failure> {
    let programs: u64 = std::env::args().nth(1).ok_or("how many?")?.parse()?;
    let (mut reading, mut evaluating) = (Most::default(), Most::default());
    let (mut read, mut evaluated, mut panics) = (0, 0, 0);
    for seed in 0..programs {
        let one = AssertUnwindSafe(|| one(seed, &mut reading, &mut evaluating));
        match catch_unwind(one) {
            Ok((was_read, was_evaluated)) => {
                read += u64::from(was_read);
                evaluated += u64::from(was_evaluated);
            }
            Err(_) => panics += 1,
        }
    }
    data(&format!(
        "programs={programs}\nread={read}\nevaluated={evaluated}\npanics={panics}"
    ))?;
    data(&format!("read_ms={}\nread_kib={}", reading.ms, reading.kib))?;
    data(&format!(
        "evaluate_ms={}\nevaluate_kib={}",
        evaluating.ms, evaluating.kib
    ))?;
    Ok(())
}

fn one(seed: u64, reading: &mut Most, evaluating: &mut Most) -> (bool, bool) {
    let mut rng = Rng::seeded(seed);
    let text = text(&mut rng);
    let name = name("p");
    let read = reading.of(|| Program::compile(&name, &text, Limits::default()));
    let Ok(program) = read else {
        return (false, false);
    };
    let mut children = Children::of([&program]);
    for node in 0..64 {
        children.put_node(NodeId(node), &hostile_row(&mut rng));
    }
    let context = context();
    let Ok(outcome) = evaluating.of(|| program.evaluate(&children, &context)) else {
        return (true, false);
    };
    // The level above: what all its children gathered.
    let mut row = Row::default();
    program.write(outcome, &mut row);
    let mut above = Children::of([&program]);
    for zone in 0..32 {
        if let Ok(zone) = Name::new(format!("z{zone}")) {
            above.put_zone(zone, &row);
        }
    }
    let merged = evaluating.of(|| program.evaluate(&above, &context));
    (true, merged.is_ok())
}

/// By the grammar, by the grammar and far too much of it, or mutated.
fn text(rng: &mut Rng) -> String {
    let sound = program(rng);
    match rng.below(8) {
        0..=2 => sound,
        3 => {
            let many = (0..14).map(|index| {
                sound
                    .replacen("SELECT ", "", 1)
                    .replace(" AS o", &format!(" AS o{index}_"))
            });
            let outputs: Vec<String> = many
                .filter_map(|text| {
                    text.split_once(" FROM ")
                        .map(|(outputs, _)| outputs.to_owned())
                })
                .collect();
            format!("SELECT {} FROM children", outputs.join(", "))
        }
        _ => {
            let text = mutated(rng, &sound);
            if pick(rng, &[true, false]) {
                mutated(rng, &text)
            } else {
                text
            }
        }
    }
}
