//! Programs, rows and trees at random, the same for the same seed. The
//! benchmark `evaluator` uses this file too.

use aggregation::program::{Children, Context, EvaluateError, Outcome, Program};
use kernel::{Name, NodeId, Rng, UnixMillis};
use std::collections::BTreeSet;
use wire::attributes::{
    AttributeName, Average, Bloom, Distinct, Histogram, Quantiles, Row, Scalar, Value,
};

pub const COLUMNS: [&str; 8] = ["a", "b", "x", "y", "s", "t", "up", "since"];

pub fn name(text: &str) -> AttributeName {
    text.parse().expect("a name")
}

pub fn context() -> Context {
    Context {
        zone: "/eu".parse().expect("a zone"),
        version: 3,
        issued_at: UnixMillis(1_790_000_000_000),
        now: UnixMillis(1_795_000_000_123),
    }
}

pub fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    let at = usize::try_from(rng.below(from.len() as u64)).expect("small");
    from[at]
}

/// From `low` to below `high`.
pub fn between(rng: &mut Rng, low: i64, high: i64) -> i64 {
    let span = u64::try_from(high - low).expect("high is higher");
    low + i64::try_from(rng.below(span)).expect("small")
}

// --- Rows

/// What nodes of one make publish, now and then without a value.
pub fn plain_row(rng: &mut Rng) -> Row {
    let values = [
        Value::Int(between(rng, -20, 21)),
        Value::Int(between(rng, 0, 4)),
        eighths(rng, 400),
        eighths(rng, 40),
        Value::Text(word(rng)),
        Value::Text(word(rng)),
        Value::Bool(rng.below(2) == 1),
        Value::Time(UnixMillis(1_794_000_000_000 + rng.below(1_000_000_000))),
    ];
    let known = COLUMNS.iter().zip(values).filter(|_| rng.below(6) > 0);
    Row(known.map(|(column, value)| (name(column), value)).collect())
}

/// Sums of these are exact in a float, in any order.
fn eighths(rng: &mut Rng, range: i64) -> Value {
    let eighths = i32::try_from(between(rng, -range, range)).expect("small");
    Value::Float(f64::from(eighths) / 8.0)
}

fn word(rng: &mut Rng) -> String {
    let length = rng.below(5);
    (0..length)
        .map(|_| pick(rng, &['a', 'b', 'B', 'é', ' ', '%']))
        .collect()
}

/// Any attribute of any type and size.
pub fn hostile_row(rng: &mut Rng) -> Row {
    let mut row = Row::default();
    for column in COLUMNS {
        if rng.below(8) > 0 {
            row.0.insert(name(column), hostile_value(rng));
        }
    }
    row
}

pub fn hostile_value(rng: &mut Rng) -> Value {
    const FLOATS: [f64; 12] = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        -0.0,
        0.1,
        1e308,
        -1e308,
        5e-324,
        1e-300,
        9_007_199_254_740_993.0,
        3.5,
        -7.25,
    ];
    const INTS: [i64; 8] = [i64::MIN, i64::MAX, -1, 0, 1, 7, 1 << 53, -(1 << 40)];
    match rng.below(16) {
        0 => Value::Bool(rng.below(2) == 1),
        1..=3 => Value::Int(pick(rng, &INTS)),
        4..=6 => Value::Float(pick(rng, &FLOATS)),
        7 => Value::Float(f64::from_bits(rng.next_u64())),
        8 => {
            let length = pick(rng, &[0_usize, 1, 255, 256, 257, 1_000, 3_000]);
            Value::Text(pick(rng, &["a", "%", "é", "_b"]).repeat(length / 2))
        }
        9 => Value::Text(word(rng)),
        10 => Value::Bytes(vec![0xff; usize::try_from(rng.below(300)).expect("small")]),
        11 => Value::Time(UnixMillis(pick(rng, &[0, 1, 1_790_000_000_000, u64::MAX]))),
        12 => Value::Duration(pick(rng, &INTS)),
        13 => Value::Set(
            (0..rng.below(5))
                .map(|_| word(rng))
                .collect::<BTreeSet<_>>(),
        ),
        14 => Value::List(vec![Scalar::Int(1), Scalar::Text(word(rng))]),
        _ => sketch(rng),
    }
}

fn sketch(rng: &mut Rng) -> Value {
    match rng.below(6) {
        0 => Value::Average(Average {
            sum: f64::from_bits(rng.next_u64()),
            weight: pick(rng, &[0.0, 1.0, -1.0, 1e300]),
        }),
        1 => Value::Quantiles(Box::new(Quantiles {
            level: pick(rng, &[0, 2, 16, 200]),
            smallest: 1.0,
            largest: pick(rng, &[0.5, 1.0, 900.0]),
            buckets: (0..rng.below(200))
                .map(|at| {
                    (
                        i32::try_from(at).expect("small") * 3 - 40,
                        pick(rng, &[0, 1, 1 << 48]),
                    )
                })
                .collect(),
        })),
        2 => Value::Distinct(Distinct::Few((0..rng.below(40)).collect())),
        3 => Value::Distinct(Distinct::Many(vec![
            0xff;
            pick(rng, &[Distinct::PACKED, 10])
        ])),
        4 => Value::Bloom(Bloom {
            hashes: pick(rng, &[7, 0, 255]),
            bits: vec![0xa5; pick(rng, &[128_usize, 16, 3, 0])],
        }),
        _ => Value::Histogram(Box::new(Histogram {
            bounds: vec![1.0, 10.0],
            counts: vec![1; pick(rng, &[3, 2])],
        })),
    }
}

// --- Programs of the whole language, of any types

/// Of aggregates that any tree merges to the same.
pub fn program(rng: &mut Rng) -> String {
    let outputs: Vec<String> = (0..=rng.below(4))
        .map(|index| format!("{} AS o{index}", end(rng, 2)))
        .collect();
    let filter = match rng.below(3) {
        0 => format!(" WHERE {}", any(rng, 3)),
        _ => String::new(),
    };
    format!("SELECT {} FROM children{filter}", outputs.join(", "))
}

fn end(rng: &mut Rng, depth: u32) -> String {
    if depth == 0 || rng.below(3) > 0 {
        return aggregate(rng);
    }
    operator(rng, depth, end)
}

fn aggregate(rng: &mut Rng) -> String {
    let filter = match rng.below(4) {
        0 => format!(" FILTER (WHERE {})", any(rng, 1)),
        _ => String::new(),
    };
    let x = any(rng, 2);
    let call = match rng.below(15) {
        0 => "COUNT(*)".to_owned(),
        1 => format!("COUNT({x})"),
        2 | 3 => format!("SUM({x})"),
        4 => format!("AVG({x})"),
        5 => format!("AVG({x}, {})", any(rng, 1)),
        6 => format!("MIN({x})"),
        7 => format!("MAX({x})"),
        8 => format!(
            "FIRST({}, {x} ORDER BY {}, {} DESC)",
            1 + rng.below(4),
            any(rng, 1),
            column(rng)
        ),
        9 => format!("TOP({}, {x})", 1 + rng.below(4)),
        10 => format!("RANDOM({}, {x})", 1 + rng.below(4)),
        11 => format!("QUANTILE({x}, {})", pick(rng, &["0", "0.5", "0.99", "1"])),
        12 => format!("COUNT(DISTINCT {x})"),
        13 => format!("BLOOM({x}, {})", pick(rng, &["1", "100"])),
        _ => format!("HISTOGRAM({x}, -1, 0, 2.5)"),
    };
    format!("{call}{filter}")
}

fn any(rng: &mut Rng, depth: u32) -> String {
    if depth == 0 || rng.below(3) == 0 {
        return match rng.below(4) {
            0 => constant(rng),
            _ => column(rng),
        };
    }
    operator(rng, depth, any)
}

fn column(rng: &mut Rng) -> String {
    pick(rng, &COLUMNS).to_owned()
}

fn constant(rng: &mut Rng) -> String {
    const CONSTANTS: [&str; 14] = [
        "0",
        "1",
        "-1",
        "2.5",
        "1e308",
        "-9223372036854775808",
        "NULL",
        "TRUE",
        "'a'",
        "'%a_'",
        "INTERVAL '5m'",
        "''",
        "9223372036854775807",
        "'hour'",
    ];
    pick(rng, &CONSTANTS).to_owned()
}

const BINARY: [&str; 15] = [
    "+",
    "-",
    "*",
    "/",
    "%",
    "||",
    "=",
    "<>",
    "<",
    "<=",
    ">",
    ">=",
    "AND",
    "OR",
    "IS DISTINCT FROM",
];
const ONE: [&str; 19] = [
    "ABS",
    "SIGN",
    "ROUND",
    "FLOOR",
    "CEIL",
    "SQRT",
    "INT",
    "FLOAT",
    "TEXT",
    "LENGTH",
    "LOWER",
    "UPPER",
    "TRIM",
    "LTRIM",
    "RTRIM",
    "TIME",
    "UNIX_SECONDS",
    "SECONDS",
    "DURATION",
];
const TWO: [&str; 13] = [
    "LEAST",
    "GREATEST",
    "COALESCE",
    "NULLIF",
    "SUBSTR",
    "INSTR",
    "STARTS_WITH",
    "ENDS_WITH",
    "CONTAINS",
    "DATE_PART",
    "DATE_TRUNC",
    "ROUND",
    "IFNULL",
];
const THREE: [&str; 3] = ["SUBSTR", "REPLACE", "SPLIT_PART"];

fn operator(rng: &mut Rng, depth: u32, inner: fn(&mut Rng, u32) -> String) -> String {
    let mut one = || inner(rng, depth - 1);
    let (a, b, c) = (one(), one(), one());
    match rng.below(13) {
        0..=3 => format!("({a} {} {b})", pick(rng, &BINARY)),
        4 | 5 => format!("{}({a})", pick(rng, &ONE)),
        6 | 7 => format!("{}({a}, {b})", pick(rng, &TWO)),
        8 => format!("{}({a}, {b}, {c})", pick(rng, &THREE)),
        9 => format!("CASE WHEN {a} THEN {b} ELSE {c} END"),
        10 => format!("CASE {a} WHEN {b} THEN {c} END"),
        11 => format!(
            "({a} {} {b} AND {c})",
            pick(rng, &["BETWEEN", "NOT BETWEEN"])
        ),
        _ => match rng.below(5) {
            0 => format!("({a} IN ({b}, {c}))"),
            1 => format!("({a} NOT LIKE {b})"),
            2 => format!("({a} IS NOT NULL)"),
            3 => format!("(NOT {a})"),
            _ => format!("(- {a})"),
        },
    }
}

/// Bytes changed, words moved, doubled and taken away.
pub fn mutated(rng: &mut Rng, text: &str) -> String {
    const INSERTS: [&str; 24] = [
        "(", ")", "((((((((", "'", "\"", ",", " AS ", "SELECT ", " FROM ", "COUNT(*)", "NOT ",
        "--", "/*", "\u{202e}", "\0", "<script>", ";", "9e99999", "CASE ", " WHEN ", "::", ".",
        "[", "$1",
    ];
    if rng.below(2) == 0 {
        return reworded(rng, text);
    }
    let mut characters: Vec<char> = text.chars().collect();
    for _ in 0..=rng.below(2) {
        let length = characters.len().max(1) as u64;
        let at = usize::try_from(rng.below(length))
            .expect("small")
            .min(characters.len());
        match rng.below(5) {
            0 if at < characters.len() => {
                characters.remove(at);
            }
            1 => {
                let end =
                    (at + usize::try_from(rng.below(30)).expect("small")).min(characters.len());
                let part: Vec<char> = characters[at..end].to_vec();
                let times = 1 + rng.below(4);
                (0..times).for_each(|_| drop(characters.splice(at..at, part.clone())));
            }
            2 => {
                let end =
                    (at + usize::try_from(rng.below(20)).expect("small")).min(characters.len());
                characters.drain(at..end);
            }
            3 if at < characters.len() => {
                characters[at] =
                    char::from_u32(u32::try_from(rng.below(0x300)).expect("small")).unwrap_or('x');
            }
            _ => {
                let insert = pick(rng, &INSERTS);
                characters.splice(at..at, insert.chars());
            }
        }
    }
    characters.into_iter().collect()
}

/// One word in another's place: often still a program.
fn reworded(rng: &mut Rng, text: &str) -> String {
    const WORDS: [&str; 22] = [
        "a", "x", "s", "up", "since", "SUM", "AVG", "MAX", "COUNT", "ABS", "LENGTH", "NULL", "0",
        "'a'", "AND", "OR", "+", "/", "=", "<", "DISTINCT", "CASE",
    ];
    let mut words: Vec<&str> = text.split(' ').collect();
    let at = usize::try_from(rng.below(words.len() as u64)).expect("small");
    let (open, close) = (words[at].starts_with('('), words[at].ends_with(')'));
    let word = pick(rng, &WORDS);
    let word = format!(
        "{}{word}{}",
        if open { "(" } else { "" },
        if close { ")" } else { "" }
    );
    words[at] = &word;
    words.join(" ")
}

// --- Trees

/// All rows in one zone.
pub fn flat(program: &Program, rows: &[(NodeId, Row)]) -> Result<Outcome, EvaluateError> {
    let mut children = Children::of([program]);
    for (node, row) in rows {
        children.put_node(*node, row);
    }
    program.evaluate(&children, &context())
}

/// Why a tree gave nothing.
#[derive(Debug)]
pub enum NoTree {
    Evaluate(EvaluateError),
    /// A zone's row has no room for what was computed.
    Row,
}

/// The rows in zones within zones, their rows written and read on the way.
pub fn tree(
    rng: &mut Rng,
    program: &Program,
    rows: &[(NodeId, Row)],
    depth: u32,
) -> Result<Outcome, NoTree> {
    let mut children = Children::of([program]);
    let zones = if depth == 0 { 0 } else { rng.below(5) };
    let mut of_zones: Vec<Vec<(NodeId, Row)>> = (0..zones).map(|_| Vec::new()).collect();
    for (node, row) in rows {
        let zone = usize::try_from(rng.below(zones + 1)).expect("small");
        match of_zones.get_mut(zone) {
            Some(zone) => zone.push((*node, row.clone())),
            None => children.put_node(*node, row),
        }
    }
    for (index, rows) in of_zones.iter().enumerate() {
        let outcome = tree(rng, program, rows, depth - 1)?;
        let mut row = Row::default();
        program.write(outcome, &mut row);
        let bytes = row.encode().map_err(|_| NoTree::Row)?;
        let row = Row::decode(&bytes).expect("what was written is read");
        children.put_zone(Name::new(format!("z{index}")).expect("a name"), &row);
    }
    let outcome = program
        .evaluate(&children, &context())
        .map_err(NoTree::Evaluate)?;
    assert_eq!((outcome.silent, outcome.refused), (0, 0));
    Ok(outcome)
}
