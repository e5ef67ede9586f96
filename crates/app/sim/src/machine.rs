//! One machine: its disk, its clocks, and what runs on it while it has power.

use crate::client::Client;
use crate::group::lease::Leases;
use crate::plane::{Plane, Process};
use aggregation::membership::{Membership, Table};
use kernel::{Bytes, Name, NodeId, ReplicaId, Time, UnixMillis, ZonePath};
use node::desired::Desired;
use node::nodes::NodeReport;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// 2026 in milliseconds: a start without memory takes its epoch from there.
const WALL_START: u64 = 1_767_225_600_000;

const MILLION: u128 = 1_000_000;

/// What a power cut leaves.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub epoch: Option<u64>,
    pub desired: Option<Desired>,
    /// And what of them runs while no agent does.
    pub replicas: BTreeMap<ReplicaId, Process>,
    /// The node table as last seen.
    pub rows: Arc<Table>,
}

/// What a power cut ends.
pub struct Running {
    pub core: Membership,
    pub wake: Option<Time>,
    /// The last that the core was told.
    pub table: Arc<Table>,
    pub table_at: Time,
    pub client: Client,
    pub client_wake: Option<Time>,
    pub plane: Plane,
    /// It believes that it leads the store's members.
    pub leads: bool,
    pub lookout: Option<Time>,
    /// What the others said that they run, to it as the leader.
    pub reports: BTreeMap<NodeId, Arc<NodeReport>>,
    pub report_at: Option<Time>,
    pub leases: Leases,
}

pub struct Machine {
    pub node: NodeId,
    pub name: Name,
    pub zone: ZonePath,
    /// The zone's number in the network.
    pub zone_at: usize,
    /// Counts starts: what was under way in an earlier one is lost.
    pub boot: u32,
    pub running: Option<Running>,
    pub disk: Disk,
    pub slow: Duration,
    /// Its processors do nothing until then.
    pub paused_until: Time,
    pub clock_off_s: i64,
    /// Its boot-time clock reads as much more than simulated time.
    pub boot_clock: u64,
    /// It gains as many millionths; negative when it loses them.
    pub drift_ppm: i32,
    pub up_since: Time,
    /// A clone of this node has prevailed, or it has left.
    pub silent: bool,
    /// It was told so by a person; its node may not know.
    pub revoked: bool,
    /// None: enough for anything.
    pub memory: Option<Bytes>,
    /// Without its agent, it may have it all the same.
    pub has_power: bool,
}

impl Machine {
    /// By its own boot-time clock.
    pub fn local(&self, now: Time) -> Time {
        let passed = u128::from(now.0) * self.rate() / MILLION;
        Time(u64::try_from(passed).unwrap_or(u64::MAX) + self.boot_clock)
    }

    /// The first moment at which its own clock shows `local`.
    pub fn global(&self, local: Time) -> Time {
        let passed = u128::from(local.0.saturating_sub(self.boot_clock)) * MILLION;
        Time(u64::try_from(passed.div_ceil(self.rate())).unwrap_or(u64::MAX))
    }

    fn rate(&self) -> u128 {
        MILLION.saturating_add_signed(self.drift_ppm.into())
    }

    pub fn wall(&self, now: Time) -> UnixMillis {
        let true_ms = WALL_START + now.0 / 1_000_000;
        UnixMillis(true_ms.saturating_add_signed(self.clock_off_s * 1_000))
    }

    /// What runs on it or did, whether its agent does or not.
    pub fn processes(&self) -> &BTreeMap<ReplicaId, Process> {
        let running = self.running.as_ref();
        running.map_or(&self.disk.replicas, |running| &running.plane.processes)
    }

    /// Whether it has power and its node speaks.
    pub fn speaks(&self) -> bool {
        self.running.is_some() && !self.silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Else a machine would be woken before its time for ever.
        #[test]
        fn whoever_is_woken_has_its_time_come(
            local in 0..1_u64 << 60,
            drift_ppm in -1_000..1_000_i32,
            boot_clock in 0..1_u64 << 50,
        ) {
            let machine = Machine {
                node: NodeId(1),
                name: Name::new("n1").expect("a name"),
                zone: ZonePath::root(),
                zone_at: 0,
                boot: 0,
                running: None,
                disk: Disk::default(),
                slow: Duration::ZERO,
                paused_until: Time(0),
                clock_off_s: 0,
                boot_clock,
                drift_ppm,
                up_since: Time(0),
                silent: false,
                revoked: false,
                memory: None,
                has_power: false,
            };
            let local = Time(local + boot_clock);
            prop_assert!(machine.local(machine.global(local)) >= local);
        }
    }
}
