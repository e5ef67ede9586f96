//! However nodes are divided into zones, the result is the same.

use crate::samples::{NoTree, flat, hostile_row, name, plain_row, program, tree};
use aggregation::program::{Limits, Program};
use kernel::{NodeId, Rng};
use wire::attributes::Row;

const CASES: u64 = 4_000;

fn same_in_trees(make_row: fn(&mut Rng) -> Row, rows_max: u64) {
    let mut compared = 0;
    let mut without_room = 0;
    for seed in 0..CASES {
        let mut rng = Rng::seeded(seed);
        let text = program(&mut rng);
        let Ok(program) = Program::compile(&name("p"), &text, Limits::default()) else {
            continue;
        };
        let count = rng.below(rows_max);
        let rows: Vec<(NodeId, Row)> = (0..count)
            .map(|index| (NodeId(index * 7 + seed), make_row(&mut rng)))
            .collect();
        let Ok(flat) = flat(&program, &rows) else {
            continue;
        };
        for depth in 1..4 {
            let mut shuffled = rows.clone();
            for at in (1..shuffled.len()).rev() {
                let other = usize::try_from(rng.below(at as u64 + 1)).expect("small");
                shuffled.swap(at, other);
            }
            match tree(&mut rng, &program, &shuffled, depth) {
                Ok(tree) => {
                    compared += 1;
                    assert_eq!(tree.values, flat.values, "seed {seed}: {text}");
                    assert_eq!(tree.partial, flat.partial, "seed {seed}: {text}");
                }
                Err(NoTree::Row) => without_room += 1,
                Err(NoTree::Evaluate(error)) => panic!("seed {seed}: {text}: {error}"),
            }
        }
    }
    assert!(
        compared > 2 * CASES,
        "only {compared} of {CASES} cases were compared, {without_room} had no room"
    );
}

#[test]
fn trees_of_plain_rows_are_flat() {
    same_in_trees(plain_row, 40);
}

#[test]
fn trees_of_hostile_rows_are_flat() {
    same_in_trees(hostile_row, 20);
}

#[test]
fn large_trees_are_flat() {
    let text = "SELECT COUNT(DISTINCT x) AS d, QUANTILE(x / 3, 0.9) AS q, SUM(x / 3) AS s, AVG(y, x * x) AS m FROM children WHERE a > -15";
    let program = Program::compile(&name("p"), text, Limits::default()).expect("reads");
    for seed in 0..20 {
        let mut rng = Rng::seeded(seed);
        let rows: Vec<(NodeId, Row)> = (0..500)
            .map(|index| (NodeId(index), plain_row(&mut rng)))
            .collect();
        let flat = flat(&program, &rows).expect("within the limits");
        let tree = tree(&mut rng, &program, &rows, 4).expect("within the limits");
        assert_eq!(tree.values, flat.values, "seed {seed}");
        assert_eq!(tree.partial, flat.partial, "seed {seed}");
    }
}
