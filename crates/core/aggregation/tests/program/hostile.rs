//! Texts and rows that mean no good: refused or evaluated, never a panic.

use crate::samples::{context, flat, hostile_row, hostile_value, mutated, name, program};
use aggregation::program::{Children, Limits, Program};
use kernel::{Name, NodeId, Rng};
use proptest::prelude::*;
use wire::attributes::{Row, Value};

fn rows(rng: &mut Rng, count: u64) -> Vec<(NodeId, Row)> {
    (0..count)
        .map(|index| (NodeId(index), hostile_row(rng)))
        .collect()
}

#[test]
fn mutated_programs_are_refused_or_evaluated() {
    let (mut refused, mut evaluated) = (0, 0);
    for seed in 0..6_000 {
        let mut rng = Rng::seeded(seed);
        let sound = program(&mut rng);
        let text = mutated(&mut rng, &sound);
        match Program::compile(&name("p"), &text, Limits::default()) {
            Err(error) => {
                refused += 1;
                let shown = error.to_string();
                assert!(shown.starts_with("program `p`, line "), "{shown}");
                assert!(
                    !shown.chars().any(|c| c.is_control() && c != '\n'),
                    "{shown:?}"
                );
            }
            Ok(program) => {
                evaluated += 1;
                let rows = rows(&mut rng, 8);
                let _ = flat(&program, &rows);
            }
        }
    }
    assert!(
        refused > 1_000 && evaluated > 500,
        "{refused} refused, {evaluated} evaluated"
    );
}

proptest! {
    #[test]
    fn any_text_is_refused_or_read(text in ".{0,300}") {
        let _ = Program::compile(&name("p"), &text, Limits::default());
    }
}

#[test]
fn what_repeats_without_end_is_refused() {
    let deep = [
        format!(
            "SELECT SUM({}x{}) AS o FROM children",
            "(".repeat(900),
            ")".repeat(900)
        ),
        format!("SELECT SUM({}x) AS o FROM children", "- ".repeat(900)),
        format!(
            "SELECT COUNT(*) AS o FROM children WHERE {}up",
            "NOT ".repeat(500)
        ),
        format!("SELECT SUM(x{}) AS o FROM children", " + x".repeat(400)),
        format!(
            "SELECT SUM({}) AS o FROM children",
            "CASE WHEN up THEN ".repeat(300)
        ),
        format!(
            "SELECT SUM({}x{}) AS o FROM children",
            "ABS(".repeat(500),
            ")".repeat(500)
        ),
        format!("SELECT {} FROM children", "COUNT(*),".repeat(400)),
        "x".repeat(1 << 20),
        "'".repeat(4_000),
        "/*".repeat(2_000),
    ];
    for text in deep {
        let error = Program::compile(&name("p"), &text, Limits::default()).expect_err("refused");
        assert!(error.to_string().len() < 500, "{error}");
    }
}

/// As threads have that do other work besides.
#[test]
fn reading_takes_a_small_stack() {
    const STACK_BYTES: usize = 1_500_000;
    let levels = |open: &str, close: &str| {
        (1..40)
            .map(|levels| {
                format!(
                    "SELECT SUM({}x{}) AS o FROM children WHERE up",
                    open.repeat(levels),
                    close.repeat(levels)
                )
            })
            .collect::<Vec<_>>()
    };
    let texts = [
        levels("(", ")"),
        levels("- ", ""),
        levels("NOT ", ""),
        levels("ABS(", ")"),
        levels("CASE WHEN ", " THEN 1 END"),
        levels("CASE WHEN x THEN ", " END"),
        levels("x BETWEEN (", ") AND 1"),
        levels("x IN (", ")"),
        levels("x LIKE (", ")"),
        levels("COALESCE(1, (", "))"),
    ];
    let reading = move || {
        let mut read = 0;
        for text in texts.iter().flatten() {
            read += usize::from(Program::compile(&name("p"), text, Limits::default()).is_ok());
        }
        read
    };
    let thread = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(reading);
    let read = thread.expect("a thread").join().expect("no panic");
    assert!(read > 60, "{read} were read");
}

#[test]
fn fuel_ends_what_computes_too_much() {
    // Searches over long texts, for many rows.
    let search = ["s LIKE '%a%b%a%b%c'"; 8].join(" OR ");
    let wide = (0..12).map(|index| format!("COUNT({search} OR a = {index}) AS o{index}"));
    let text = format!(
        "SELECT {} FROM children",
        wide.collect::<Vec<_>>().join(", ")
    );
    let limits = Limits {
        nodes: 100_000,
        tokens: 100_000,
        text_bytes: 1 << 20,
        ..Limits::default()
    };
    let program = Program::compile(&name("p"), &text, limits).expect("reads");
    let row = Row([(name("s"), Value::Text("ab".repeat(1_900)))].into());
    let rows: Vec<(NodeId, Row)> = (0..64).map(|index| (NodeId(index), row.clone())).collect();
    let error = flat(&program, &rows).expect_err("out of fuel");
    assert_eq!(
        error.to_string(),
        "program `p` spent its 60000 units of fuel"
    );
    assert!(error.hint().is_some());
}

#[test]
fn parts_of_strangers_are_refused_and_counted() {
    let ours = Program::compile(
        &name("p"),
        "SELECT SUM(a) AS s FROM children",
        Limits::default(),
    );
    let ours = ours.expect("reads");
    let other = Program::compile(
        &name("p"),
        "SELECT SUM(b) AS s FROM children",
        Limits::default(),
    );
    let mut children = Children::of([&ours]);
    let mut row = Row::default();
    let outcome = flat(&other.expect("reads"), &[]).expect("evaluates");
    ours.write(outcome, &mut row);
    children.put_zone(Name::new("one").expect("a name"), &row);
    children.put_zone(Name::new("two").expect("a name"), &Row::default());
    let good = flat(
        &ours,
        &[(NodeId(1), Row([(name("a"), Value::Int(5))].into()))],
    );
    let mut row = Row::default();
    ours.write(good.expect("evaluates"), &mut row);
    children.put_zone(Name::new("three").expect("a name"), &row);
    let outcome = ours.evaluate(&children, &context()).expect("evaluates");
    assert_eq!((outcome.refused, outcome.silent), (1, 1));
    assert_eq!(outcome.values, [Some(Value::Int(5))]);
}

/// Parts are a stranger's too: any change of them is refused, or merges to
/// something that is sound again.
#[test]
fn altered_parts_never_spread_unsound_ones() {
    let text = "SELECT SUM(x) AS s, AVG(x, y) AS m, FIRST(3, s ORDER BY x) AS f, QUANTILE(x, 0.5) AS q, COUNT(DISTINCT x) AS d, BLOOM(s) AS b, HISTOGRAM(x, 1, 2) AS h, MAX(s) AS t FROM children";
    let program = Program::compile(&name("p"), text, Limits::default()).expect("reads");
    let mut merged = 0;
    for seed in 0..4_000 {
        let mut rng = Rng::seeded(seed);
        let rows = rows(&mut rng, 6);
        let Ok(outcome) = flat(&program, &rows) else {
            continue;
        };
        let mut row = Row::default();
        program.write(outcome, &mut row);
        let Ok(mut bytes) = row.encode() else {
            continue;
        };
        for _ in 0..=rng.below(3) {
            let at = usize::try_from(rng.below(bytes.len() as u64)).expect("small");
            bytes[at] = rng.next_u64().to_le_bytes()[0];
        }
        let Ok(altered) = Row::decode(&bytes) else {
            continue;
        };
        let mut children = Children::of([&program]);
        children.put_zone(Name::new("one").expect("a name"), &altered);
        children.put_zone(Name::new("two").expect("a name"), &row);
        children.put_node(
            NodeId(7),
            &Row([(name("x"), hostile_value(&mut rng))].into()),
        );
        let outcome = program
            .evaluate(&children, &context())
            .expect("within the limits");
        merged += usize::from(outcome.refused + outcome.silent == 0);
        assert!(outcome.partial.is_sound(), "seed {seed}");
    }
    assert!(merged > 100, "{merged}");
}
