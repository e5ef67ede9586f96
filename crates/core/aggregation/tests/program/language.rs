//! What each function, operator and aggregate gives.

use crate::samples::{context, flat, name};
use aggregation::program::{Children, Limits, Program};
use kernel::{NodeId, UnixMillis};
use std::collections::BTreeSet;
use wanted::{float, int, text, truth};
use wire::attributes::{Average, Histogram, Row, Scalar, Value};

fn row(values: &[(&str, Value)]) -> Row {
    Row(values
        .iter()
        .map(|(column, value)| (name(column), value.clone()))
        .collect())
}

fn compile(text: &str) -> Program {
    Program::compile(&name("p"), text, Limits::default())
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// An expression over one row, and how many values it could not use.
fn computed(expression: &str) -> (Option<Scalar>, u64) {
    let program = compile(&format!("SELECT FIRST(1, {expression}) AS o FROM children"));
    let row = row(&[
        ("i", Value::Int(7)),
        ("f", Value::Float(2.5)),
        ("s", Value::Text("Fünf%".to_owned())),
        ("up", Value::Bool(true)),
        ("at", Value::Time(UnixMillis(1_795_651_200_000))),
        ("took", Value::Duration(1_500_000_000)),
        (
            "tags",
            Value::Set(BTreeSet::from(["ssd".to_owned(), "gpu".to_owned()])),
        ),
        ("nan", Value::Float(f64::NAN)),
        ("big", Value::Int(i64::MAX)),
        ("small", Value::Int(i64::MIN)),
        ("bytes", Value::Bytes(vec![1, 2])),
        ("long", Value::Text("x".repeat(400))),
    ]);
    let outcome = flat(&program, &[(NodeId(1), row)]).expect("evaluates");
    let Some(Value::List(list)) = &outcome.values[0] else {
        panic!("{expression}: no list");
    };
    (list.first().cloned(), outcome.partial.ignored)
}

fn check(cases: &[(&str, Option<Scalar>)]) {
    for (expression, wanted) in cases {
        let (found, _) = computed(expression);
        assert_eq!(found, *wanted, "{expression}");
    }
}

/// As cells of a table beside NULL.
#[expect(clippy::unnecessary_wraps, reason = "they stand beside `None`")]
mod wanted {
    use wire::attributes::Scalar;

    pub fn int(int: i64) -> Option<Scalar> {
        Some(Scalar::Int(int))
    }

    pub fn float(float: f64) -> Option<Scalar> {
        Some(Scalar::Float(float))
    }

    pub fn text(text: &str) -> Option<Scalar> {
        Some(Scalar::Text(text.to_owned()))
    }

    pub fn truth(truth: bool) -> Option<Scalar> {
        Some(Scalar::Bool(truth))
    }
}

#[test]
fn arithmetic_is_exact_or_null() {
    check(&[
        ("i + 1", int(8)),
        ("i - f", float(4.5)),
        ("i / 2", int(3)),
        ("-i / 2", int(-3)),
        ("i % 4", int(3)),
        ("small % -1", int(0)),
        ("i * 1.0 / 2", float(3.5)),
        ("i / 0", None),
        ("f / 0", None),
        ("i % 0", None),
        ("big + 1", None),
        ("big * 2", None),
        ("small / -1", None),
        ("- small", None),
        ("-9223372036854775808", int(i64::MIN)),
        ("9223372036854775808", float(9_223_372_036_854_775_808.0)),
        ("1e308 * 10", None),
        ("nan", None),
        ("-0.0", float(0.0)),
        ("1 + up", int(2)),
        ("ABS(-3)", int(3)),
        ("ABS(small)", None),
        ("SIGN(-2.5)", int(-1)),
        ("ROUND(2.5)", float(3.0)),
        ("ROUND(-2.5)", float(-3.0)),
        ("ROUND(2.345, 2)", float(2.35)),
        ("ROUND(1e300, 5)", float(1e300)),
        ("ROUND(7)", int(7)),
        ("FLOOR(-2.5)", float(-3.0)),
        ("CEIL(2.1)", float(3.0)),
        ("SQRT(2)", float(std::f64::consts::SQRT_2)),
        ("SQRT(-1)", None),
        ("LEAST(3, f, 2.75)", float(2.5)),
        ("GREATEST(3, f, NULL)", None),
        ("INT(2.9)", int(2)),
        ("INT(-2.9)", int(-2)),
        ("INT('12')", int(12)),
        ("INT('12 apples')", None),
        ("INT(1e30)", None),
        ("FLOAT(7)", float(7.0)),
        ("FLOAT('1e3')", float(1_000.0)),
        ("FLOAT('inf')", None),
    ]);
}

#[test]
fn null_is_what_is_not_known() {
    check(&[
        ("missing", None),
        ("missing + 1", None),
        ("missing = missing", None),
        ("missing IS NULL", truth(true)),
        ("i IS NOT NULL", truth(true)),
        ("missing IS NOT DISTINCT FROM NULL", truth(true)),
        ("i IS DISTINCT FROM 7.0", truth(false)),
        ("FALSE AND missing", truth(false)),
        ("missing AND FALSE", truth(false)),
        ("missing AND TRUE", None),
        ("TRUE OR missing", truth(true)),
        ("missing OR FALSE", None),
        ("NOT missing", None),
        ("missing IS TRUE", truth(false)),
        ("missing IS NOT FALSE", truth(true)),
        ("i IN (1, 7)", truth(true)),
        ("i IN (1, NULL)", None),
        ("i NOT IN (1, 2)", truth(true)),
        ("i BETWEEN 1 AND 7", truth(true)),
        ("i BETWEEN 8 AND NULL", truth(false)),
        ("i NOT BETWEEN NULL AND 9", None),
        ("COALESCE(missing, NULL, i)", int(7)),
        ("IFNULL(missing, 'x')", text("x")),
        ("NULLIF(i, 7)", None),
        ("NULLIF(i, 8)", int(7)),
        ("CASE WHEN missing THEN 1 WHEN up THEN 2 END", int(2)),
        ("CASE WHEN i > 9 THEN 1 END", None),
        (
            "CASE i WHEN 6 THEN 'six' WHEN 7 THEN 'seven' END",
            text("seven"),
        ),
        ("CASE missing WHEN NULL THEN 1 ELSE 2 END", int(2)),
    ]);
}

#[test]
fn texts_are_characters_and_bounded() {
    check(&[
        ("LENGTH(s)", int(5)),
        ("LENGTH(tags)", int(2)),
        ("LENGTH(bytes)", int(2)),
        ("UPPER(s)", text("FüNF%")),
        ("LOWER('ÄB')", text("Äb")),
        ("SUBSTR(s, 2, 2)", text("ün")),
        ("SUBSTR(s, 0, 2)", text("F")),
        ("SUBSTR(s, 9)", text("")),
        ("SUBSTR(s, -9, 3)", text("")),
        ("SUBSTR(s, 2, -1)", None),
        ("TRIM('  a ')", text("a")),
        ("TRIM('   ')", text("")),
        ("LTRIM('  a ')", text("a ")),
        ("RTRIM('  a ')", text("  a")),
        ("REPLACE(s, 'ü', 'ue')", text("Fuenf%")),
        ("REPLACE(s, '', 'x')", text("Fünf%")),
        ("INSTR(s, 'n')", int(3)),
        ("INSTR(s, 'x')", int(0)),
        ("STARTS_WITH(s, 'Fü')", truth(true)),
        ("ENDS_WITH(s, 'nf')", truth(false)),
        ("SPLIT_PART('/eu/vienna', '/', 3)", text("vienna")),
        ("SPLIT_PART('a,b', ',', 5)", text("")),
        ("SPLIT_PART('a,b', '', 1)", None),
        ("SPLIT_PART('a,b', ',', 0)", None),
        ("s || '-' || i", text("Fünf%-7")),
        ("TEXT(2.0)", text("2.0")),
        ("TEXT(up)", text("true")),
        ("'it''s'", text("it's")),
        ("s LIKE 'F_nf%'", truth(true)),
        ("s LIKE 'f%'", truth(false)),
        ("s NOT LIKE '%n%'", truth(false)),
        ("'' LIKE '%%'", truth(true)),
        ("'aab' LIKE '%ab'", truth(true)),
        ("'a' < 'b'", truth(true)),
        ("'Z' < 'a'", truth(true)),
        ("LENGTH(long || 'x')", int(401)),
        ("long || long", None),
        ("REPLACE(long, 'x', 'xx')", None),
        ("long", None),
        ("CONTAINS(tags, 'gpu')", truth(true)),
        ("CONTAINS(tags, 'tpu')", truth(false)),
        ("CONTAINS(s, 'nf')", truth(true)),
    ]);
}

#[test]
fn times_are_utc() {
    let hour = Some(Scalar::Duration(3_600_000_000_000));
    check(&[
        ("DATE_PART('year', at)", int(2026)),
        ("DATE_PART('month', at)", int(11)),
        ("DATE_PART('day', at)", int(26)),
        ("DATE_PART('hour', at)", int(0)),
        ("DATE_PART('weekday', at)", int(4)),
        ("DATE_PART('century', at)", None),
        (
            "DATE_TRUNC('hour', at + INTERVAL '90m')",
            Some(Scalar::Time(UnixMillis(1_795_654_800_000))),
        ),
        ("at + INTERVAL '1h' - at", hour.clone()),
        ("INTERVAL '30m' * 2", hour.clone()),
        ("INTERVAL '2h' / 2", hour.clone()),
        ("INTERVAL '1h' / INTERVAL '30m'", float(2.0)),
        ("DURATION(3600)", hour),
        ("SECONDS(took)", float(1.5)),
        ("took > INTERVAL '1s'", truth(true)),
        ("NOW() - at > INTERVAL '0s'", truth(false)),
        ("UNIX_SECONDS(at)", int(1_795_651_200)),
        ("TIME(UNIX_SECONDS(at)) = at", truth(true)),
        ("TIME(-1)", None),
    ]);
}

#[test]
fn values_of_wrong_types_are_null_and_counted() {
    for expression in [
        "s + 1",
        "UPPER(i)",
        "s > 5",
        "NOT s",
        "tags = 'gpu'",
        "SECONDS(f)",
        "at + at",
        "SUBSTR(s, 'x')",
    ] {
        assert_eq!(computed(expression), (None, 1), "{expression}");
    }
    assert_eq!(computed("missing + 1"), (None, 0));
    assert_eq!(computed("i / 0"), (None, 0));
}

fn over(text: &str, rows: &[Row]) -> Vec<Option<Value>> {
    let rows: Vec<(NodeId, Row)> = rows
        .iter()
        .enumerate()
        .map(|(index, row)| (NodeId(index as u64), row.clone()))
        .collect();
    flat(&compile(text), &rows).expect("evaluates").values
}

fn loads(loads: &[f64]) -> Vec<Row> {
    let names = ["a", "b", "c", "d", "e", "f"];
    loads
        .iter()
        .zip(names)
        .map(|(load, name)| {
            row(&[
                ("load", Value::Float(*load)),
                ("name", Value::Text(name.to_owned())),
            ])
        })
        .collect()
}

#[test]
fn aggregates_of_nothing_are_null_or_zero() {
    let text = "SELECT COUNT(*) AS c, COUNT(x) AS d, SUM(x) AS s, AVG(x) AS a, MIN(x) AS m, \
        QUANTILE(x, 0.5) AS q, COUNT(DISTINCT x) AS e, FIRST(2, x) AS f, SUM(x) / COUNT(x) AS r FROM children";
    let none = [None, None, None, None];
    let mut wanted = vec![Some(Value::Int(0)), Some(Value::Int(0))];
    wanted.extend(none);
    wanted.extend([Some(Value::Int(0)), Some(Value::List(vec![])), None]);
    assert_eq!(over(text, &[]), wanted);
    assert_eq!(
        over("SELECT 1 + 1 AS two, NULL AS n FROM children", &[]),
        [Some(Value::Int(2)), None]
    );
}

#[test]
fn averages_weight_themselves() {
    let rows = [
        row(&[
            ("ms", Value::Float(10.0)),
            ("n", Value::Int(1)),
            (
                "own",
                Value::Average(Average {
                    sum: 30.0,
                    weight: 3.0,
                }),
            ),
        ]),
        row(&[
            ("ms", Value::Float(20.0)),
            ("n", Value::Int(3)),
            (
                "own",
                Value::Average(Average {
                    sum: 10.0,
                    weight: 1.0,
                }),
            ),
        ]),
        row(&[
            ("ms", Value::Float(99.0)),
            ("n", Value::Int(-3)),
            ("own", Value::Float(4.0)),
        ]),
        row(&[("ms", Value::Float(99.0))]),
    ];
    let text =
        "SELECT AVG(ms, n) AS w, AVG(own) AS o, AVG(ms) FILTER (WHERE n > 0) AS f FROM children";
    let float = |float| Some(Value::Float(float));
    assert_eq!(over(text, &rows), [float(17.5), float(8.8), float(15.0)]);
}

#[test]
fn first_and_top_carry_their_keys() {
    let rows = loads(&[0.5, 0.1, 0.9, 0.1]);
    let texts = |all: &[&str]| {
        let all = all.iter().map(|text| Scalar::Text((*text).to_owned()));
        Some(Value::List(all.collect()))
    };
    let text = "SELECT FIRST(3, name ORDER BY load) AS idle, TOP(2, name ORDER BY load) AS busy, \
        TOP(1, name) AS last, FIRST(2, name ORDER BY load DESC, name) AS both FROM children WHERE load < 0.8";
    assert_eq!(
        over(text, &rows),
        [
            texts(&["b", "d", "a"]),
            texts(&["a", "b"]),
            texts(&["d"]),
            texts(&["a", "b"])
        ]
    );
}

#[test]
fn sums_lose_nothing_and_integers_stay_so() {
    let int = |int| row(&[("x", Value::Int(int))]);
    let sum = |rows: &[Row]| over("SELECT SUM(x) AS s FROM children", rows)[0].clone();
    assert_eq!(
        sum(&[int(i64::MAX), int(1), int(-1)]),
        Some(Value::Int(i64::MAX))
    );
    assert_eq!(sum(&[int(i64::MAX), int(1)]), None);
    let float = |float| row(&[("x", Value::Float(float))]);
    assert_eq!(
        sum(&[float(1e300), float(1.0), float(-1e300), int(2)]),
        Some(Value::Float(3.0))
    );
}

#[test]
fn numbers_come_before_strangers_texts() {
    let rows = [
        row(&[("x", Value::Int(1))]),
        row(&[("x", Value::Text("zzz".to_owned()))]),
        row(&[("x", Value::Bool(true))]),
    ];
    let both = over("SELECT MAX(x) AS a, MIN(x) AS b FROM children", &rows);
    assert_eq!(both, [Some(Value::Int(1)), Some(Value::Int(1))]);
}

#[test]
fn histograms_count_between_bounds() {
    let rows = loads(&[0.5, 1.0, 5.0, 10.0, 99.0]);
    let found = over("SELECT HISTOGRAM(load, 1, 10) AS h FROM children", &rows);
    let wanted = Histogram {
        bounds: vec![1.0, 10.0],
        counts: vec![1, 2, 2],
    };
    assert_eq!(found, [Some(Value::Histogram(Box::new(wanted)))]);
}

#[test]
fn quantiles_are_within_their_bound() {
    let rows: Vec<Row> = (1..=1_000)
        .map(|ms| row(&[("ms", Value::Float(f64::from(ms) * 1.7 - 200.0))]))
        .collect();
    let limits = Limits {
        fuel: 1_000_000,
        ..Limits::default()
    };
    let shares = [0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 1.0];
    for share in shares {
        let program = Program::compile(
            &name("p"),
            &format!("SELECT QUANTILE(ms, {share}) AS q FROM children"),
            limits.clone(),
        )
        .expect("reads");
        let rows: Vec<_> = rows
            .iter()
            .enumerate()
            .map(|(i, row)| (NodeId(i as u64), row.clone()))
            .collect();
        let Some(Value::Float(found)) = flat(&program, &rows).expect("evaluates").values[0] else {
            panic!("a number")
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank"
        )]
        let rank = (share * 999.0) as u32;
        let exact = f64::from(rank + 1) * 1.7 - 200.0;
        // Two levels were needed for values over so many powers of two.
        assert!(
            (found - exact).abs() <= exact.abs() * 0.04,
            "{share}: {found} is not {exact}"
        );
    }
}

#[test]
fn distinct_is_exact_for_few_and_near_for_many() {
    for (count, slack) in [(1, 0), (32, 0), (33, 5), (500, 70), (5_000, 700)] {
        let rows: Vec<(NodeId, Row)> = (0..2 * count)
            .map(|index| {
                (
                    NodeId(index),
                    row(&[("x", Value::Text(format!("v{}", index % count)))]),
                )
            })
            .collect();
        let limits = Limits {
            fuel: 10_000_000,
            ..Limits::default()
        };
        let program = Program::compile(
            &name("p"),
            "SELECT COUNT(DISTINCT x) AS d, DISTINCT(x) AS e FROM children",
            limits,
        )
        .expect("reads");
        let values = flat(&program, &rows).expect("evaluates").values;
        let Some(Value::Int(found)) = values[0] else {
            panic!("a number")
        };
        assert_eq!(values[0], values[1]);
        assert!(
            found.abs_diff(i64::try_from(count).expect("small")) <= slack,
            "{found} of {count}"
        );
    }
    let rows = [
        row(&[("x", Value::Int(2))]),
        row(&[("x", Value::Float(2.0))]),
    ];
    assert_eq!(
        over("SELECT COUNT(DISTINCT x) AS d FROM children", &rows),
        [Some(Value::Int(1))]
    );
}

#[test]
fn bloom_never_says_no_to_what_is_there() {
    let rows: Vec<(NodeId, Row)> = (0..100_u64)
        .map(|index| {
            (
                NodeId(index),
                row(&[("x", Value::Text(format!("doc{index}")))]),
            )
        })
        .collect();
    let program = compile("SELECT BLOOM(x) AS docs FROM children");
    let bloom = flat(&program, &rows).expect("evaluates").values[0]
        .clone()
        .expect("a filter");
    let has = |document: &str| {
        let holder = row(&[("docs", bloom.clone())]);
        let text = format!("SELECT COUNT(*) AS n FROM children WHERE CONTAINS(docs, '{document}')");
        over(&text, &[holder])[0] == Some(Value::Int(1))
    };
    assert!((0..100).all(|index| has(&format!("doc{index}"))));
    let wrong = (0..1_000)
        .filter(|index| has(&format!("other{index}")))
        .count();
    assert!(wrong <= 30, "{wrong} of 1000");
}

#[test]
fn lots_are_drawn_alike_by_all_and_anew_by_each_issue() {
    let program = compile("SELECT RANDOM(3, x) AS r FROM children");
    let mut children = Children::of([&program]);
    for index in 0..20_u64 {
        let row = row(&[("x", Value::Int(index.cast_signed()))]);
        children.put_node(NodeId(index), &row);
    }
    let drawn = |seconds: u64| {
        let mut context = context();
        context.issued_at = UnixMillis(seconds * 1_000);
        program
            .evaluate(&children, &context)
            .expect("evaluates")
            .values
    };
    assert_eq!(drawn(1), drawn(1));
    let mut hits = [0; 20];
    for second in 0..2_000 {
        let Some(Value::List(list)) = &drawn(second)[0] else {
            panic!("a list")
        };
        assert_eq!(list.len(), 3);
        for one in list {
            let Scalar::Int(index) = one else {
                panic!("a number")
            };
            hits[usize::try_from(*index).expect("small")] += 1;
        }
    }
    // 300 each in the mean.
    assert!(
        hits.iter().all(|hits| (220..380).contains(hits)),
        "{hits:?}"
    );
}

#[test]
fn where_looks_at_nodes_only_and_says_which_they_are() {
    let program = compile("SELECT COUNT(*) AS load FROM children WHERE load > 0.4");
    let mut children = Children::of([&program]);
    for (index, row) in loads(&[0.5, 0.1, 0.9, 0.4]).iter().enumerate() {
        children.put_node(NodeId(10 - index as u64), row);
    }
    let behind = program
        .rows_behind(&children, &context())
        .expect("evaluates");
    assert_eq!(behind, [NodeId(8), NodeId(10)]);
    children.remove_node(NodeId(10));
    let behind = program
        .rows_behind(&children, &context())
        .expect("evaluates");
    assert_eq!(behind, [NodeId(8)]);
    let outcome = program.evaluate(&children, &context()).expect("evaluates");
    assert_eq!((outcome.partial.rows, outcome.partial.matched), (3, 1));
}

#[test]
fn words_that_mean_nothing_here_are_names() {
    let row = row(&[
        ("value", Value::Int(1)),
        ("version", Value::Int(2)),
        ("date", Value::Int(3)),
        ("user", Value::Int(4)),
        ("floor", Value::Int(5)),
    ]);
    let text = "select SUM(Value) + sum(VERSION) + Sum(date) + SUM(user) + SUM(floor) AS Load FROM children; -- all of them";
    assert_eq!(over(text, &[row]), [Some(Value::Int(15))]);
    assert_eq!(
        compile(text)
            .names()
            .next()
            .map(ToString::to_string)
            .as_deref(),
        Some("load")
    );
}

#[test]
fn children_made_for_others_are_refused() {
    let (one, other) = (
        compile("SELECT SUM(a) AS s FROM children"),
        compile("SELECT SUM(b) AS s FROM children"),
    );
    let error = one
        .evaluate(&Children::of([&other]), &context())
        .expect_err("unprepared");
    assert_eq!(
        error.to_string(),
        "the children were gathered without program `p`: `a` is missing"
    );
}

/// What is written, and what is said of it.
const REFUSALS: [(&str, &str); 21] = [
    (
        "SELECT MEDIAN(x) AS m FROM children",
        "column 8: there is no function `MEDIAN`; write QUANTILE(x, 0.5)",
    ),
    (
        "SELECT CUONT(x) AS m FROM children",
        "column 8: there is no function `CUONT`; write COUNT",
    ),
    (
        "SELECT x AS m FROM children",
        "column 8: `x` stands outside an aggregate; write MAX(x), SUM(x), FIRST(1, x), …",
    ),
    (
        "SELECT SUM(SUM(x)) AS s FROM children",
        "`SUM` within WHERE or within an aggregate",
    ),
    (
        "SELECT SUM(x) AS s FROM nodes",
        "there is no table `nodes`; write FROM children",
    ),
    (
        "SELECT SUM(x) AS s FROM children c",
        "`C` is not part of the language here",
    ),
    (
        "SELECT SUM(x) AS s FROM children GROUP BY zone",
        "`GROUP` is not part of the language here; write COUNT(*) FILTER (WHERE x = 'a') for each group",
    ),
    (
        "SELECT SUM(x) AS s FROM children LIMIT 3",
        "write FIRST(n, x ORDER BY key)",
    ),
    (
        "SELECT SUM(x) AS s, MAX(y) AS s FROM children",
        "column 31: `s` is selected twice",
    ),
    (
        "SELECT SUM(a.x) AS s FROM children",
        "column 13: `.` is not part of the language; write names of attributes alone",
    ),
    (
        "SELECT SUM(\"x\") AS s FROM children",
        "`x` is a quoted name",
    ),
    (
        "SELECT SUM(x) AS s FROM children WHERE x IN (SELECT 1)",
        "a second SELECT",
    ),
    (
        "SELECT FIRST(x ORDER BY y) AS s FROM children",
        "arguments that do not fit; write FIRST(n, x ORDER BY key)",
    ),
    (
        "SELECT FIRST(99, x) AS s FROM children",
        "write FIRST(n, x ORDER BY key) with a number from 1 to 32",
    ),
    (
        "SELECT QUANTILE(x, 2) AS s FROM children",
        "write QUANTILE(x, 0.99)",
    ),
    ("SELECT AVG(CAST(x AS INT)) AS s FROM children", "CAST"),
    (
        "SELECT SUM(x) AS p_parts FROM children",
        "`p_parts` is where this program's parts are",
    ),
    (
        "SELECT LN(SUM(x)) AS l FROM children",
        "they differ between machines",
    ),
    (
        "SELECT COUNT(*) AS c\nFROM children\nWHERE x ==",
        "line 3, column 9: `==` is not part of the language; write `=`",
    ),
    (
        "DROP TABLE children",
        "line 1, column 1: `DROP` does not belong here",
    ),
    ("", "column 1: the text ends too early"),
];

#[test]
fn values_without_names_get_some_and_the_table_need_not_be_said() {
    let names = |text: &str| -> Vec<String> {
        let name = "p".parse().expect("a name");
        let program = Program::compile(&name, text, Limits::default()).expect("a program");
        program.names().map(ToString::to_string).collect()
    };
    assert_eq!(names("SELECT SUM(x), COUNT(*)"), ["sum_x", "count"]);
    assert_eq!(names("SELECT SUM(x) WHERE x > 1;"), ["sum_x"]);
    assert_eq!(names("SELECT MAX(x) FROM children"), ["max_x"]);
    assert_eq!(
        names("SELECT SUM(x), SUM(x) AS y, SUM(x)"),
        ["sum_x", "y", "sum_x_3"]
    );
    assert_eq!(names("SELECT 2 * MIN(x)"), ["value_2_min_x"]);
    let long = names("SELECT COALESCE(SUM(some_long_name) + SUM(another_long_name), 0)");
    assert!(long[0].len() <= 40, "{long:?}");
}

#[test]
fn refusals_say_where_and_what_is_right() {
    for (text, wanted) in REFUSALS {
        let error = Program::compile(&name("p"), text, Limits::default()).expect_err("refused");
        let found = error.to_string();
        assert!(
            found.contains(wanted),
            "{text}\n  said {found}\n  not  {wanted}"
        );
    }
}
