//! How often somebody is called dead who is not: membership alone, for long,
//! on a bad network with slow nodes.
//!
//! In: a seed, how many nodes for how long. Out: false deaths and node-hours.

use crate::network::part;
use crate::store::StoreFaults;
use crate::world::{Turn, World};
use aggregation::membership::{Belongs, Table};
use kernel::{Name, NodeId, ZonePath};
use std::sync::Arc;
use std::time::Duration;

/// One run.
#[derive(Clone, Debug)]
pub struct DeathRun {
    pub nodes: usize,
    pub zones: usize,
    pub hours: f64,
    /// Of all packets.
    pub loss: f64,
    /// Of all nodes.
    pub slow_share: f64,
    /// Added to each packet to and from a slow node, at most.
    pub slow_by: Duration,
    /// A slow node also stands still, in the mean so often, …
    pub pause_every: Duration,
    /// … and at most so long.
    pub pause: Duration,
}

impl Default for DeathRun {
    fn default() -> Self {
        Self {
            nodes: 100,
            zones: 4,
            hours: 1.0,
            loss: 0.05,
            slow_share: 0.01,
            slow_by: Duration::from_millis(300),
            pause_every: Duration::from_secs(20),
            pause: Duration::from_secs(1),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Deaths {
    pub node_hours: f64,
    /// Each observer's: one death may be seen by all.
    pub false_deaths: u64,
    /// Suspicions of themselves that nodes refuted.
    pub refuted: u64,
    pub packets: u64,
    pub packet_bytes: u64,
    pub hash: u64,
    pub events: u64,
}

impl DeathRun {
    pub fn run(&self, seed: u64) -> Deaths {
        let mut world = self.world(seed);
        let slow: Vec<usize> = (0..self.slow_count())
            .map(|at| at * 7 % self.nodes)
            .collect();
        for at in &slow {
            world.machines[*at].slow = self.slow_by;
        }
        world.network.loss = self.loss;
        for (act, _) in slow.iter().enumerate() {
            let wait = part(self.pause_every * 2, &mut world.rng);
            world.put_act(world.now + wait, act);
        }
        let (packets, bytes) = (world.packets, world.packet_bytes);
        let end = world.now + Duration::from_secs_f64(self.hours * 3_600.0);
        while let Turn::Act(act) = world.advance(end) {
            let pause = part(self.pause, &mut world.rng);
            world.machines[slow[act]].paused_until = world.now + pause;
            let wait = part(self.pause_every * 2, &mut world.rng);
            world.put_act(world.now + pause + wait, act);
        }
        let cores = world.machines.iter().filter_map(|one| one.running.as_ref());
        let refuted = cores.map(|running| running.core.counts().refuted).sum();
        #[expect(clippy::cast_precision_loss, reason = "there are a few thousand")]
        let nodes = self.nodes as f64;
        Deaths {
            node_hours: nodes * self.hours,
            false_deaths: world.check.false_deaths,
            refuted,
            packets: world.packets - packets,
            packet_bytes: world.packet_bytes - bytes,
            hash: world.trace.hash,
            events: world.trace.events,
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a few thousand"
    )]
    fn slow_count(&self) -> usize {
        (self.nodes as f64 * self.slow_share).ceil() as usize
    }

    /// All have started and settled.
    fn world(&self, seed: u64) -> World {
        let mut world = World::new(seed, StoreFaults::default());
        world.bare = true;
        let mut table = Table::new();
        for at in 0..self.nodes {
            let zone: ZonePath = format!("/z/{}", at % self.zones)
                .parse()
                .unwrap_or_default();
            if let Ok(name) = Name::new(format!("n{}", at + 1)) {
                world.add_machine(name, &zone);
            }
            let revoked = false;
            table.insert(
                NodeId(at as u64 + 1),
                Belongs {
                    zone,
                    revoked,
                    outbound_only: false,
                },
            );
        }
        let table = Arc::new(table);
        for at in 0..world.nodes {
            world.start(at);
            world.tell_table(at, table.clone());
        }
        let settled = world.now + Duration::from_secs(30);
        while world.advance(settled) != Turn::Over {}
        world.check.false_deaths = 0;
        world
    }
}
