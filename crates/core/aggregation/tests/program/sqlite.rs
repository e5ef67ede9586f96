//! The part of the language that `SQLite` has too gives what `SQLite` gives, in
//! trees as in one table.

use crate::samples::{NoTree, between, name, pick, plain_row, tree};
use aggregation::program::{Limits, Program};
use kernel::{NodeId, Rng};
use rusqlite::Connection;
use rusqlite::types::Value as Theirs;
use std::fmt::Write as _;
use wire::attributes::{Row, Scalar, Value};

/// Outside CI there are more: `cargo xtask cases evaluator`.
const CASES: &str = "HOMEOSTAT_SQLITE_CASES";
const CASES_IN_CI: u64 = 10_000;

/// The same in our words and in `SQLite`'s.
#[derive(Clone)]
struct Both {
    ours: String,
    theirs: String,
}

fn same(text: impl Into<String>) -> Both {
    let text = text.into();
    Both {
        ours: text.clone(),
        theirs: text,
    }
}

/// Puts parts in the places marked `@`, one after another.
fn join(form: &str, parts: &[&Both]) -> Both {
    join_two(form, form, parts)
}

fn join_two(ours: &str, theirs: &str, parts: &[&Both]) -> Both {
    let fill = |form: &str, which: fn(&Both) -> &str| {
        let mut parts = parts.iter();
        let mut text = String::new();
        for piece in form.split_inclusive('@') {
            match piece.strip_suffix('@') {
                Some(before) => {
                    let part = parts.next().expect("a part for each place");
                    text.push_str(before);
                    text.push_str(which(part));
                }
                None => text.push_str(piece),
            }
        }
        text
    };
    Both {
        ours: fill(ours, |both| &both.ours),
        theirs: fill(theirs, |both| &both.theirs),
    }
}

/// A number; integers alone where `whole` is wanted.
fn number(rng: &mut Rng, depth: u32, whole: bool) -> Both {
    if depth == 0 || rng.below(4) == 0 {
        return match (rng.below(4), whole) {
            (0, true) => same(between(rng, -5, 6).to_string()),
            (0, false) => same(pick(rng, &["0.5", "-2.25", "3.0", "1"])),
            (_, true) => same(pick(rng, &["a", "b"])),
            (_, false) => same(pick(rng, &["x", "y", "a"])),
        };
    }
    let mut one = |whole| number(rng, depth - 1, whole);
    let (a, b) = (one(whole), one(whole));
    match rng.below(11) {
        0 | 1 => join(&format!("(@ {} @)", pick(rng, &["+", "-", "*"])), &[&a, &b]),
        2 => join("(@ / @)", &[&a, &b]),
        3 if whole => join("(@ % @)", &[&a, &b]),
        4 => join("ABS(@)", &[&a]),
        5 => join("COALESCE(@, @)", &[&a, &b]),
        6 => join("NULLIF(@, @)", &[&a, &b]),
        7 => {
            let condition = truth(rng, depth - 1);
            join("CASE WHEN @ THEN @ ELSE @ END", &[&condition, &a, &b])
        }
        8 => join_two("LEAST(@, @)", "MIN(@, @)", &[&a, &b]),
        9 => join_two("GREATEST(@, @)", "MAX(@, @)", &[&a, &b]),
        10 if whole => {
            let text = text(rng, depth - 1);
            join("LENGTH(@)", &[&text])
        }
        _ => join("(- @)", &[&a]),
    }
}

fn text(rng: &mut Rng, depth: u32) -> Both {
    if depth == 0 || rng.below(3) == 0 {
        return same(pick(rng, &["s", "t", "'a'", "'Bb '", "''"]));
    }
    let (a, b) = (text(rng, depth - 1), text(rng, depth - 1));
    match rng.below(7) {
        0 => join("(@ || @)", &[&a, &b]),
        1 => join(
            &format!(
                "{}(@)",
                pick(rng, &["LOWER", "UPPER", "TRIM", "LTRIM", "RTRIM"])
            ),
            &[&a],
        ),
        2 => {
            let (from, count) = (between(rng, 1, 4), between(rng, 0, 4));
            join(&format!("SUBSTR(@, {from}, {count})"), &[&a])
        }
        3 => join("REPLACE(@, @, 'c')", &[&a, &b]),
        4 => join("COALESCE(@, @)", &[&a, &b]),
        5 => {
            let whole = number(rng, depth - 1, true);
            join("(@ || @)", &[&a, &whole])
        }
        _ => {
            let condition = truth(rng, depth - 1);
            join("CASE WHEN @ THEN @ END", &[&condition, &a])
        }
    }
}

fn truth(rng: &mut Rng, depth: u32) -> Both {
    const COMPARISONS: [&str; 8] = [
        "=",
        "<>",
        "<",
        "<=",
        ">",
        ">=",
        "IS DISTINCT FROM",
        "IS NOT DISTINCT FROM",
    ];
    if depth == 0 {
        return same("up");
    }
    let whole = rng.below(2) == 0;
    match rng.below(9) {
        0..=2 => {
            let (a, b) = (number(rng, depth - 1, whole), number(rng, depth - 1, whole));
            join(&format!("(@ {} @)", pick(rng, &COMPARISONS)), &[&a, &b])
        }
        3 => {
            let (a, b) = (text(rng, depth - 1), text(rng, depth - 1));
            join(&format!("(@ {} @)", pick(rng, &COMPARISONS)), &[&a, &b])
        }
        4 => {
            let (a, b) = (truth(rng, depth - 1), truth(rng, depth - 1));
            join(&format!("(@ {} @)", pick(rng, &["AND", "OR"])), &[&a, &b])
        }
        5 => {
            let a = truth(rng, depth - 1);
            join(
                pick(
                    rng,
                    &["(NOT @)", "(@ IS NULL)", "(@ IS TRUE)", "(@ IS NOT FALSE)"],
                ),
                &[&a],
            )
        }
        6 => {
            let mut one = || number(rng, depth - 1, whole);
            let (a, b, c) = (one(), one(), one());
            let form = pick(
                rng,
                &[
                    "(@ BETWEEN @ AND @)",
                    "(@ NOT IN (@, @))",
                    "(@ IN (@, @, 1))",
                ],
            );
            join(form, &[&a, &b, &c])
        }
        7 => {
            let a = text(rng, depth - 1);
            let pattern = pick(rng, &["'%a%'", "'_'", "'B%'", "'%'", "'a_%b'"]);
            join(&format!("(@ LIKE {pattern})"), &[&a])
        }
        _ => {
            let (a, b) = (text(rng, depth - 1), text(rng, depth - 1));
            join_two("STARTS_WITH(@, @)", "(INSTR(@, @) = 1)", &[&a, &b])
        }
    }
}

fn aggregate(rng: &mut Rng, filter: &str) -> Both {
    let whole = rng.below(2) == 0;
    let a = number(rng, 2, whole);
    let condition = truth(rng, 2);
    match rng.below(12) {
        0 => same("COUNT(*)"),
        1 => join("COUNT(*) FILTER (WHERE @)", &[&condition]),
        2 => join("COUNT(@)", &[&a]),
        3 => join("SUM(@)", &[&a]),
        4 => join("SUM(@) FILTER (WHERE @)", &[&a, &condition]),
        5 => join("AVG(@)", &[&a]),
        6 => join("MIN(@)", &[&a]),
        7 => join("MAX(@)", &[&a]),
        8 => {
            let text = text(rng, 2);
            join(
                pick(rng, &["MIN(@)", "MAX(@)", "COUNT(DISTINCT @)"]),
                &[&text],
            )
        }
        9 => join("COUNT(DISTINCT @)", &[&a]),
        10 => join_two(
            "AVG(@, b)",
            "(SUM(CASE WHEN b >= 0 THEN 1.0 * @ * b END) / SUM(CASE WHEN b >= 0 AND @ IS NOT NULL THEN b END))",
            &[&a, &a],
        ),
        _ => {
            let (text, most) = (text(rng, 1), between(rng, 1, 4));
            let order = pick(rng, &[("FIRST", "ASC"), ("TOP", "DESC")]);
            let ours = format!("{}({most}, @ ORDER BY @)", order.0);
            let theirs = format!(
                "(SELECT COALESCE(group_concat(v, '|'), '') FROM (SELECT @ AS v FROM children WHERE {filter} AND v IS NOT NULL ORDER BY (@) + 0 {} NULLS LAST, v LIMIT {most}))",
                order.1
            );
            join_two(&ours, &theirs, &[&text, &a])
        }
    }
}

fn program(rng: &mut Rng) -> Both {
    let filter = match rng.below(2) {
        0 => truth(rng, 3),
        _ => same("TRUE"),
    };
    let mut outputs = Vec::new();
    for index in 0..=rng.below(3) {
        let one = aggregate(rng, &filter.theirs);
        let output = match rng.below(6) {
            0 => join("COALESCE(SUM(a), 0) * 2 - COUNT(b)", &[]),
            1 => join("CASE WHEN COUNT(a) > 3 THEN MAX(a) ELSE MIN(b) END", &[]),
            _ => one,
        };
        outputs.push(join(&format!("@ AS o{index}"), &[&output]));
    }
    // Without an aggregate of its own a statement has a row for each row there.
    outputs.push(same("COUNT(*) AS matched"));
    let places = vec!["@"; outputs.len()].join(", ");
    let mut parts: Vec<&Both> = outputs.iter().collect();
    parts.push(&filter);
    join(&format!("SELECT {places} FROM children WHERE @"), &parts)
}

struct Sqlite(Connection);

impl Sqlite {
    fn new() -> Self {
        let connection = Connection::open_in_memory().expect("opens");
        let schema = "PRAGMA case_sensitive_like = ON;
            CREATE TABLE children (a INTEGER, b INTEGER, x REAL, y REAL, s TEXT, t TEXT, up INTEGER)";
        connection.execute_batch(schema).expect("a table");
        Self(connection)
    }

    fn fill(&self, rows: &[(NodeId, Row)]) {
        self.0.execute("DELETE FROM children", []).expect("empties");
        let mut insert = self
            .0
            .prepare("INSERT INTO children VALUES (?, ?, ?, ?, ?, ?, ?)")
            .expect("prepares");
        for (_, row) in rows {
            let values = ["a", "b", "x", "y", "s", "t", "up"].map(|column| theirs(row.get(column)));
            insert.execute(values).expect("inserts");
        }
    }

    fn answer(&self, text: &str) -> Vec<Theirs> {
        let mut statement = self
            .0
            .prepare(text)
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        let columns = statement.column_count();
        let answer = statement.query_row([], |row| {
            (0..columns).map(|column| row.get(column)).collect()
        });
        answer.unwrap_or_else(|error| panic!("{text}: {error}"))
    }
}

fn theirs(value: Option<&Value>) -> Theirs {
    match value {
        Some(Value::Int(int)) => Theirs::Integer(*int),
        Some(Value::Float(float)) => Theirs::Real(*float),
        Some(Value::Text(text)) => Theirs::Text(text.clone()),
        Some(Value::Bool(truth)) => Theirs::Integer(i64::from(*truth)),
        _ => Theirs::Null,
    }
}

fn agree(ours: Option<&Value>, theirs: &Theirs) -> bool {
    match (ours, theirs) {
        (None, Theirs::Null) => true,
        (Some(Value::Int(ours)), Theirs::Integer(theirs)) => ours == theirs,
        (Some(Value::Text(ours)), Theirs::Text(theirs)) => ours == theirs,
        (Some(Value::List(list)), Theirs::Text(theirs)) => {
            let mut text = String::new();
            for (index, one) in list.iter().enumerate() {
                let Scalar::Text(one) = one else { return false };
                let separator = if index == 0 { "" } else { "|" };
                let _ = write!(text, "{separator}{one}");
            }
            text == *theirs
        }
        // SQLite's sums are compensated and not exact; a float there may be an
        // integer here where integers and floats mix.
        (Some(ours), theirs) => match (float(ours), number_of(theirs)) {
            (Some(ours), Some(theirs)) => {
                (ours - theirs).abs() <= 1e-9 * ours.abs().max(theirs.abs()).max(1e3)
            }
            _ => false,
        },
        _ => false,
    }
}

#[expect(clippy::cast_precision_loss, reason = "integers are small here")]
fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Int(int) => Some(*int as f64),
        Value::Float(float) => Some(*float),
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "integers are small here")]
fn number_of(value: &Theirs) -> Option<f64> {
    match value {
        Theirs::Integer(int) => Some(*int as f64),
        Theirs::Real(float) => Some(*float),
        _ => None,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how many cases is said from outside"
)]
fn cases() -> u64 {
    std::env::var(CASES)
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(CASES_IN_CI)
}

#[test]
fn sqlite_agrees() {
    let sqlite = Sqlite::new();
    let (mut compared, mut known) = (0, 0);
    for seed in 0..cases() {
        let mut rng = Rng::seeded(seed ^ 0x5eed);
        let both = program(&mut rng);
        let rows: Vec<(NodeId, Row)> = (0..rng.below(25))
            .map(|index| (NodeId(index), plain_row(&mut rng)))
            .collect();
        let program = Program::compile(&name("p"), &both.ours, Limits::default())
            .unwrap_or_else(|error| panic!("seed {seed}: {}: {error}", both.ours));
        let depth = u32::try_from(rng.below(3)).expect("small");
        let outcome = match tree(&mut rng, &program, &rows, depth) {
            Ok(outcome) => outcome,
            Err(NoTree::Row) => continue,
            Err(NoTree::Evaluate(error)) => panic!("seed {seed}: {}: {error}", both.ours),
        };
        sqlite.fill(&rows);
        let theirs = sqlite.answer(&both.theirs);
        for (ours, theirs) in outcome.values.iter().zip(&theirs) {
            known += u64::from(ours.is_some());
            compared += 1;
            assert!(
                agree(ours.as_ref(), theirs),
                "seed {seed}\n  {}\n  {}\n  ours {ours:?}, theirs {theirs:?}\n  {rows:?}",
                both.ours,
                both.theirs
            );
        }
        assert_eq!(outcome.partial.ignored, 0, "seed {seed}: {}", both.ours);
    }
    assert!(
        known * 2 > compared,
        "{known} of {compared} values were not NULL"
    );
}
