//! What simulated nodes publish, and the program that their zones' rows are
//! computed by.
//!
//! A mark of depth `d` counts changes that are worth telling up to zones of
//! that depth and not beyond: so the load decides how often the row of each
//! zone changes.

use aggregation::tree::{Evaluated, Input, Programs};
use kernel::{UnixMillis, ZonePath};
use std::collections::BTreeMap;
use wire::attributes::{Row, Value};

pub const DEPTH_MAX: usize = 8;

/// A node's own facts.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub cpu: f64,
    pub memory_free: f64,
    /// By depth; 0 is told to nobody.
    pub marks: [i64; DEPTH_MAX + 1],
}

impl Facts {
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Row::default();
        let mut put = |name: &str, value| {
            if let Ok(name) = name.parse() {
                row.0.insert(name, value);
            }
        };
        put("cpu", Value::Float(self.cpu));
        put("memory_free", Value::Float(self.memory_free));
        put("requests", Value::Float(self.cpu * 1_000.0));
        put("version", Value::Text("0.1.0".to_owned()));
        for (depth, mark) in self.marks.iter().enumerate() {
            if *mark > 0 {
                put(&format!("m{depth}"), Value::Int(*mark));
            }
        }
        row.encode().unwrap_or_default()
    }
}

/// `SELECT sum(nodes), avg(cpu), sum(memory_free), sum(requests), max(m…)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimPrograms {
    /// Says other things than it found.
    pub lies: bool,
}

/// A step of the mean load that is worth telling.
const CPU_STEP: f64 = 0.1;

impl Programs for SimPrograms {
    fn fingerprint(&self, _: &ZonePath) -> u64 {
        0
    }

    fn evaluate(&self, zone: &ZonePath, _: UnixMillis, inputs: &[Input]) -> Evaluated {
        let mut sums: BTreeMap<String, f64> = BTreeMap::new();
        let mut marks: BTreeMap<String, i64> = BTreeMap::new();
        let mut nodes = 0_u64;
        for input in inputs {
            nodes += input.nodes;
            let Ok(row) = Row::decode(input.attributes) else {
                continue;
            };
            for (name, value) in &row.0 {
                let name = name.as_str();
                match value {
                    Value::Int(mark)
                        if depth_of(name).is_some_and(|depth| depth <= zone.depth()) =>
                    {
                        let held = marks.entry(name.to_owned()).or_default();
                        *held = (*held).max(*mark);
                    }
                    Value::Float(value) => {
                        let weight = if name == "cpu" {
                            weight(input.nodes)
                        } else {
                            1.0
                        };
                        *sums.entry(name.to_owned()).or_default() += value * weight;
                    }
                    _ => {}
                }
            }
        }
        let mut row = Row::default();
        let mut put = |name: &str, value| {
            if let Ok(name) = name.parse() {
                row.0.insert(name, value);
            }
        };
        for (name, sum) in sums {
            let value = if name == "cpu" {
                sum / weight(nodes.max(1))
            } else {
                sum
            };
            put(&name, Value::Float(value));
        }
        for (name, mark) in marks {
            put(&name, Value::Int(mark));
        }
        let nodes = if self.lies { nodes + 1 } else { nodes };
        put(
            "nodes",
            Value::Int(i64::try_from(nodes).unwrap_or(i64::MAX)),
        );
        Evaluated {
            attributes: row.encode().unwrap_or_default(),
            failed: Vec::new(),
        }
    }

    fn differs(&self, _: &ZonePath, old: &[u8], new: &[u8]) -> bool {
        let (Ok(old), Ok(new)) = (Row::decode(old), Row::decode(new)) else {
            return old != new;
        };
        let marks = |row: &Row| -> Vec<(String, Value)> {
            let marks = row
                .0
                .iter()
                .filter(|(name, _)| depth_of(name.as_str()).is_some());
            marks
                .map(|(name, value)| (name.to_string(), value.clone()))
                .collect()
        };
        let cpu = |row: &Row| match row.get("cpu") {
            Some(Value::Float(cpu)) => *cpu,
            _ => 0.0,
        };
        marks(&old) != marks(&new)
            || old.get("nodes") != new.get("nodes")
            || (cpu(&old) - cpu(&new)).abs() > CPU_STEP
    }
}

fn depth_of(name: &str) -> Option<usize> {
    name.strip_prefix('m')?.parse().ok()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "there are fewer nodes than 2^53"
)]
fn weight(nodes: u64) -> f64 {
    nodes as f64
}

/// A zone's or node's mark of that depth.
pub fn mark(attributes: &[u8], depth: usize) -> i64 {
    let row = Row::decode(attributes).unwrap_or_default();
    match row.get(&format!("m{depth}")) {
        Some(Value::Int(mark)) => *mark,
        _ => 0,
    }
}

/// How many nodes a row says it has.
pub fn nodes(attributes: &[u8]) -> i64 {
    let row = Row::decode(attributes).unwrap_or_default();
    match row.get("nodes") {
        Some(Value::Int(nodes)) => *nodes,
        _ => 0,
    }
}
