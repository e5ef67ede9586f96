//! Measured runs: a stated load on a world that has settled.
//!
//! In: a world's start, loss, how long. Out: how soon changes were known, and
//! what was sent for it.

use super::measure::{Traffic, Watch};
use super::shape::draw;
use super::world::{TreeWorld, WorldStart};
use aggregation::tree::Counts;
use kernel::Rng;
use std::time::Duration;

/// Each node's and each zone's row changes beyond what is worth telling, in
/// the mean so often.
pub const CHURN_EVERY: Duration = Duration::from_secs(50);
/// A change that not all know by then is counted as not known.
const GIVE_UP: Duration = Duration::from_secs(30);
const SETTLE: Duration = Duration::from_mins(3);

#[derive(Clone, Debug)]
pub struct TreeRun {
    pub start: WorldStart,
    pub loss: f64,
    /// Of load, once all is settled.
    pub span: Duration,
    /// Between two changes that are watched.
    pub watch_every: Duration,
}

#[derive(Clone, Debug, Default)]
pub struct TreeFound {
    pub nodes: usize,
    /// From the first start until all knew all.
    pub settled: Duration,
    /// Of each watched change, until the last node's root aggregate had it.
    pub last_s: Vec<f64>,
    /// Changes that some node did not know in time.
    pub missed: usize,
    pub traffic: Traffic,
    pub span: Duration,
    /// Sent and received payloads of the busiest node, bytes a second.
    pub busiest: f64,
    pub counts: Counts,
    /// Zones found unknown, over all nodes: none was.
    pub unknown: u64,
    pub lies: usize,
    pub hash: u64,
    pub events: u64,
}

impl TreeRun {
    /// # Errors
    /// The world did not settle.
    pub fn run(&self) -> Result<TreeFound, String> {
        let mut world = TreeWorld::new(self.start.clone());
        let settled = settle(&mut world)?;
        world.loss = self.loss;
        world.pass(Duration::from_secs(10));
        Ok(self.measure(&mut world, settled))
    }

    fn measure(&self, world: &mut TreeWorld, settled: Duration) -> TreeFound {
        world.traffic = Traffic::default();
        world.nodes.iter_mut().for_each(|one| one.bytes = 0);
        let (unknown, began) = (world.unknown, world.now);
        let mut found = TreeFound {
            nodes: world.nodes.len(),
            settled,
            span: self.span,
            ..TreeFound::default()
        };
        let mut rng = Rng::seeded(self.start.seed ^ 0xc4a1);
        let end = world.now + self.span;
        let mut change_at = world.now + wait(world, &mut rng);
        let mut watch_at = world.now + self.watch_every;
        while change_at.min(watch_at) < end {
            world.advance(change_at.min(watch_at));
            let node = draw(world.nodes.len(), &mut rng);
            if watch_at <= change_at {
                watch_at = watch_at + self.watch_every;
                world.watch(node);
                collect(world, &mut found, false);
            } else {
                change_at = change_at + wait(world, &mut rng);
                let depth = depth(world, &mut rng);
                world.change(node, depth);
            }
        }
        world.advance(end);
        found.traffic = world.traffic;
        let busiest = world.nodes.iter().map(|one| one.bytes).max();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let busiest = busiest.unwrap_or_default() as f64;
        found.busiest = busiest / world.now.since(began).as_secs_f64();
        world.until(GIVE_UP, |world| {
            world.watches.iter().all(|one| one.left == 0)
        });
        collect(world, &mut found, true);
        found.counts = world.counts();
        found.unknown = world.unknown - unknown;
        found.lies = world.lies.len();
        (found.hash, found.events) = (world.trace.hash, world.trace.events);
        found
    }
}

/// Starts all and waits until all know all.
///
/// # Errors
/// They do not in three minutes.
pub fn settle(world: &mut TreeWorld) -> Result<Duration, String> {
    world.start_all(Duration::from_secs(2));
    let all = world.alive();
    let step = Duration::from_millis(500);
    let settled = world.until_by(SETTLE, step, |world| {
        world.all_count(all) && world.all_agree()
    });
    settled.ok_or_else(|| format!("{all} nodes did not settle: {:?}", world.counts()))
}

fn collect(world: &mut TreeWorld, found: &mut TreeFound, all: bool) {
    let now = world.now;
    let is_done = |one: &Watch| all || one.left == 0 || now.since(one.began) > GIVE_UP;
    let (done, open) = std::mem::take(&mut world.watches)
        .into_iter()
        .partition(is_done);
    world.watches = open;
    let done: Vec<Watch> = done;
    for watch in done {
        match watch.last() {
            Some(last) => found.last_s.push(last.as_secs_f64()),
            None => found.missed += 1,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn wait(world: &TreeWorld, rng: &mut Rng) -> Duration {
    let mean = CHURN_EVERY.as_secs_f64() / world.nodes.len() as f64;
    Duration::from_secs_f64(-(1.0 - rng.unit()).ln() * mean)
}

/// Up to zones of which depth a node's change is told, so that each zone's row
/// changes as often as each node's.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn depth(world: &TreeWorld, rng: &mut Rng) -> usize {
    let chosen = rng.unit();
    let shape = &world.shape;
    let reaches = |depth: &usize| chosen < 1.0 / shape.below(*depth) as f64;
    (1..=shape.depth())
        .find(reaches)
        .unwrap_or(shape.depth() + 1)
}
