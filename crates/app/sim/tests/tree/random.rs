//! Random faults, one seed a history: whatever befell it, a tree that is left
//! in peace is whole again. A failing run says its seed; `SIM_SEED` replays it,
//! or a range such as `100..200`.

use crate::spreading::{SECOND, world};
use kernel::Rng;
use sim::seeds;
use sim::tree::TreeWorld;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SEEDS: Range<u64> = 1..1_001;
const FAULTS: u64 = 12;
const NODES: u64 = 12;

fn befall(world: &mut TreeWorld, rng: &mut Rng) {
    let node = usize::try_from(rng.below(NODES)).expect("small");
    match rng.below(8) {
        0 | 1 if world.alive() > 1 => world.kill(node),
        2 | 3 => world.start_with(node, 3_600_000 - 7_200_000 * i64::from(rng.below(2) == 0)),
        4 => {
            let side = |_| u8::from(rng.below(2) == 0);
            world.sides = Some((0..NODES).map(side).collect());
        }
        5 => world.sides = None,
        6 => world.loss = rng.unit() * 0.3,
        _ if world.nodes[node].alive => {
            let depth = 1 + usize::try_from(rng.below(2)).expect("small");
            world.change(node, depth);
        }
        _ => {}
    }
    world.pass(Duration::from_millis(rng.below(1_500)));
}

/// What went wrong, if anything.
fn history(seed: u64) -> Option<String> {
    let mut rng = Rng::seeded(seed);
    let mut world = world(&[2, 2], 3, seed);
    world.start_all(SECOND);
    world.pass(SECOND * 2);
    for _ in 0..FAULTS {
        befall(&mut world, &mut rng);
    }
    world.sides = None;
    world.loss = 0.0;
    for node in 0..world.nodes.len() {
        if !world.nodes[node].alive {
            world.start(node);
        }
    }
    let all = world.nodes.len();
    let whole = world.until(SECOND * 40, |world| {
        world.all_count(all) && world.all_agree()
    });
    if whole.is_none() {
        return Some(format!(
            "SIM_SEED={seed} is not whole again: {:?}",
            world.counts()
        ));
    }
    world.watch(usize::try_from(rng.below(NODES)).expect("small"));
    let known = world.until(SECOND * 5, |world| world.watches[0].left == 0);
    if known.is_none() {
        return Some(format!("SIM_SEED={seed}: a change is not seen by all"));
    }
    (!world.lies.is_empty()).then(|| format!("SIM_SEED={seed}: {:?} are named", world.lies))
}

#[test]
fn whatever_befell_it_a_tree_in_peace_is_whole_again() {
    let wanted = std::env::var("SIM_SEED").ok();
    let seeds = wanted.map_or(SEEDS, |text| seeds(&text));
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut wrong = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return wrong;
            }
            wrong.extend(history(seed));
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let ended = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        ended.flat_map(|done| done.expect("no panic")).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
