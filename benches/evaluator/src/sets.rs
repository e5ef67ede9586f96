//! Sets of four programs over the 64 rows of a zone, on one core, beside
//! `SQLite`.
//!
//! Holds: both have the same rows, kept up to date one row at a time, and the
//! same questions, read once before; before anything is measured their answers
//! are compared.

use crate::{Bench, Report, goals};
use aggregation::program::{Children, Context, Limits, Program};
use bench_common::figure::{Figure, median};
use bench_common::{Failure, conditions, note};
use kernel::{NodeId, Rng, UnixMillis};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Statement, params};
use std::hint::black_box;
use std::time::{Duration, Instant};
use wire::attributes::{AttributeName, Row, Scalar, Value};

const ROWS: u64 = 64;

/// Rows that take turns, so that each change is one.
const TURNS: u64 = 512;

/// Ours, then `SQLite`'s where its words differ.
const PROGRAMS: [(&str, &str, Option<&str>); 4] = [
    (
        "load",
        "SELECT COUNT(*) AS nodes, COUNT(*) FILTER (WHERE up) AS nodes_up, AVG(load) AS load, \
         MAX(load) AS load_max FROM children",
        None,
    ),
    (
        "room",
        "SELECT SUM(cores - cores_used) AS cores_free, MAX(memory - memory_used) AS gap_max, \
         MIN(disk_free) AS disk_free_min FROM children WHERE up AND load < 0.9",
        None,
    ),
    (
        "traffic",
        "SELECT SUM(requests) AS requests, SUM(errors) * 1.0 / SUM(requests) AS error_share, \
         AVG(latency_ms, requests) AS latency_ms FROM children WHERE requests > 0",
        Some(
            "SELECT SUM(requests) AS requests, SUM(errors) * 1.0 / SUM(requests) AS error_share, \
             SUM(latency_ms * requests) / SUM(requests) AS latency_ms FROM children WHERE requests > 0",
        ),
    ),
    (
        "contacts",
        "SELECT FIRST(3, address ORDER BY load) AS contacts, COUNT(DISTINCT version) AS versions, \
         SUM(CASE WHEN disk_free < 20000000000 THEN 1 ELSE 0 END) AS disk_short FROM children WHERE up",
        Some(
            "SELECT (SELECT group_concat(address) FROM (SELECT address FROM children WHERE up \
             ORDER BY load, address LIMIT 3)) AS contacts, COUNT(DISTINCT version) AS versions, \
             SUM(CASE WHEN disk_free < 20000000000 THEN 1 ELSE 0 END) AS disk_short FROM children WHERE up",
        ),
    ),
];

const SCHEMA: &str = "CREATE TABLE children (id INTEGER PRIMARY KEY, up INTEGER, load REAL,
    cores REAL, cores_used REAL, memory INTEGER, memory_used INTEGER, disk_free INTEGER,
    requests INTEGER, errors INTEGER, latency_ms REAL, address TEXT, version TEXT)";

const UPDATE: &str =
    "INSERT OR REPLACE INTO children VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// What one node publishes.
struct Published {
    node: NodeId,
    up: bool,
    load: f64,
    cores_used: f64,
    memory_used: i64,
    disk_free: i64,
    requests: i64,
    errors: i64,
    latency_ms: f64,
    address: String,
    version: String,
}

const CORES: f64 = 16.0;
const MEMORY: i64 = 64 << 30;

impl Published {
    fn at_random(rng: &mut Rng, node: u64) -> Self {
        let mut int = |bound: u64| i64::try_from(rng.below(bound)).unwrap_or(0);
        let (memory_used, disk_free) = (int(60 << 30), int(400_000_000_000));
        let (requests, errors) = (int(5_000), int(20));
        Self {
            node: NodeId(node),
            up: rng.below(20) > 0,
            load: rng.unit(),
            cores_used: 16.0 * rng.unit(),
            memory_used,
            disk_free,
            requests,
            errors,
            latency_ms: 40.0 * rng.unit(),
            address: format!("10.0.{}.{}:7400", node / 250, node % 250),
            version: format!("1.{}.0", rng.below(3)),
        }
    }

    fn row(&self) -> Result<Row, Failure> {
        let values = [
            ("up", Value::Bool(self.up)),
            ("load", Value::Float(self.load)),
            ("cores", Value::Float(CORES)),
            ("cores_used", Value::Float(self.cores_used)),
            ("memory", Value::Int(MEMORY)),
            ("memory_used", Value::Int(self.memory_used)),
            ("disk_free", Value::Int(self.disk_free)),
            ("requests", Value::Int(self.requests)),
            ("errors", Value::Int(self.errors)),
            ("latency_ms", Value::Float(self.latency_ms)),
            ("address", Value::Text(self.address.clone())),
            ("version", Value::Text(self.version.clone())),
        ];
        let named = values
            .into_iter()
            .map(|(name, value)| Ok((name.parse()?, value)));
        Ok(Row(named.collect::<Result<_, Failure>>()?))
    }
}

struct Ours {
    programs: Vec<Program>,
    children: Children,
    context: Context,
    turns: Vec<(NodeId, Row)>,
}

impl Ours {
    fn new(all: &[Published]) -> Result<Self, Failure> {
        let programs = PROGRAMS.iter().map(|(name, text, _)| {
            let name: AttributeName = name.parse()?;
            Ok(Program::compile(&name, text, Limits::default())?)
        });
        let programs = programs.collect::<Result<Vec<_>, Failure>>()?;
        let turns = all.iter().map(|one| Ok((one.node, one.row()?)));
        let mut ours = Self {
            children: Children::of(&programs),
            programs,
            context: Context {
                zone: "/eu".parse()?,
                version: 1,
                issued_at: UnixMillis(0),
                now: UnixMillis(1_795_000_000_000),
            },
            turns: turns.collect::<Result<_, Failure>>()?,
        };
        (0..ours.turns.len()).for_each(|turn| ours.change(turn));
        Ok(ours)
    }

    fn change(&mut self, turn: usize) {
        let (node, row) = &self.turns[turn];
        self.children.put_node(*node, row);
    }

    fn run(&self) -> Result<(), Failure> {
        for program in &self.programs {
            black_box(program.evaluate(&self.children, &self.context)?);
        }
        Ok(())
    }

    fn answers(&self) -> Result<Vec<String>, Failure> {
        let mut answers = Vec::new();
        for program in &self.programs {
            let outcome = program.evaluate(&self.children, &self.context)?;
            answers.extend(outcome.values.iter().map(|value| said(value.as_ref())));
        }
        Ok(answers)
    }
}

struct Sqlite<'a> {
    update: Statement<'a>,
    programs: Vec<Statement<'a>>,
    turns: &'a [Published],
}

impl<'a> Sqlite<'a> {
    fn new(connection: &'a Connection, turns: &'a [Published]) -> Result<Self, Failure> {
        connection.execute_batch(SCHEMA)?;
        let programs = PROGRAMS
            .iter()
            .map(|(_, text, theirs)| connection.prepare(theirs.unwrap_or(text)));
        let mut sqlite = Self {
            update: connection.prepare(UPDATE)?,
            programs: programs.collect::<Result<_, _>>()?,
            turns,
        };
        (0..turns.len()).try_for_each(|turn| sqlite.change(turn))?;
        Ok(sqlite)
    }

    fn change(&mut self, turn: usize) -> Result<(), Failure> {
        let one = &self.turns[turn];
        self.update.execute(params![
            i64::try_from(one.node.0)?,
            one.up,
            one.load,
            CORES,
            one.cores_used,
            MEMORY,
            one.memory_used,
            one.disk_free,
            one.requests,
            one.errors,
            one.latency_ms,
            one.address,
            one.version
        ])?;
        Ok(())
    }

    fn each(&mut self, mut take: impl FnMut(ValueRef)) -> Result<(), Failure> {
        for program in &mut self.programs {
            let columns = program.column_count();
            let mut rows = program.query([])?;
            let row = rows.next()?.ok_or("no row")?;
            for column in 0..columns {
                take(row.get_ref(column)?);
            }
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), Failure> {
        self.each(|value| {
            black_box(value);
        })
    }

    fn answers(&mut self) -> Result<Vec<String>, Failure> {
        let mut answers = Vec::new();
        self.each(|value| {
            answers.push(match value {
                ValueRef::Integer(int) => int.to_string(),
                ValueRef::Real(float) => format!("{float:.9}"),
                ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                _ => String::new(),
            });
        })?;
        Ok(answers)
    }
}

fn said(value: Option<&Value>) -> String {
    match value {
        Some(Value::Int(int)) => int.to_string(),
        Some(Value::Float(float)) => format!("{float:.9}"),
        Some(Value::List(list)) => {
            let texts = list.iter().filter_map(|one| match one {
                Scalar::Text(text) => Some(text.as_str()),
                _ => None,
            });
            texts.collect::<Vec<_>>().join(",")
        }
        _ => String::new(),
    }
}

/// Sets per second.
fn rate(span: Duration, mut set: impl FnMut(usize) -> Result<(), Failure>) -> Result<f64, Failure> {
    const BATCH: usize = 64;
    let mut turn = 0;
    let mut done = 0_u32;
    let began = Instant::now();
    while began.elapsed() < span {
        for _ in 0..BATCH {
            set(turn % usize::try_from(TURNS)?)?;
            turn += 1;
        }
        done += u32::try_from(BATCH)?;
    }
    Ok(f64::from(done) / began.elapsed().as_secs_f64())
}

pub fn measure(bench: &Bench, report: Report) -> Result<(), Failure> {
    let mut rng = Rng::seeded(1);
    let turns: Vec<Published> = (0..TURNS)
        .map(|turn| Published::at_random(&mut rng, turn % ROWS))
        .collect();
    let connection = Connection::open_in_memory()?;
    let mut sqlite = Sqlite::new(&connection, &turns)?;
    let mut ours = Ours::new(&turns)?;
    let (found, wanted) = (ours.answers()?, sqlite.answers()?);
    if found != wanted {
        return Err(format!("the answers differ: ours {found:?}, SQLite's {wanted:?}").into());
    }
    let mut rates: [Vec<f64>; 4] = Default::default();
    for _ in 0..bench.lengths.rounds {
        let span = bench.lengths.span;
        rates[0].push(rate(span, |turn| {
            ours.change(turn);
            ours.run()
        })?);
        rates[1].push(rate(span, |turn| {
            sqlite.change(turn)?;
            sqlite.run()
        })?);
        rates[2].push(rate(span, |_| ours.run())?);
        rates[3].push(rate(span, |_| sqlite.run())?);
    }
    for (what, rates) in ["ours", "SQLite", "ours, no change", "SQLite, no change"]
        .iter()
        .zip(&rates)
    {
        note(what, rates);
    }
    conditions::tell([
        (
            "work",
            format!(
                "{} programs over {ROWS} rows, one row changed before each set",
                PROGRAMS.len()
            ),
        ),
        (
            "SQLite",
            format!("{}, in memory, statements prepared", rusqlite::version()),
        ),
    ])?;
    let [sets, theirs, runs, their_runs] = rates.map(|rates| median(&rates));
    let figure = |goal, ours, peer| Figure {
        goal,
        ours,
        peer: Some(peer),
    };
    report(Figure::alone(goals::SETS, sets));
    report(figure(goals::SETS_SQLITE, sets, theirs));
    report(figure(goals::RUNS_SQLITE, runs, their_runs));
    Ok(())
}
