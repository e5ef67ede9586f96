//! Decides whether a slot can take a replica of the service in focus, and what
//! it lacks if not.
//!
//! Holds: [`fits`] is true exactly where [`lacks`] finds nothing.

use super::focus::{Focus, NOBODY};
use super::pool::{Pool, Slot};
use crate::model::Service;
use crate::plan::Lack;
use kernel::{Bytes, ScopedName};

/// A copy there breaks its own rule against company.
fn is_crowded(focus: &Focus, at: &Slot, slot: u32) -> bool {
    focus.rules.own_limit && focus.marks[slot as usize].copies >= at.machines.max(1)
}

fn repeats(focus: &Focus, at: &Slot, slot: u32) -> bool {
    focus.rules.only_other && focus.marks[slot as usize].copies >= at.machines.max(1)
}

fn has_architecture(focus: &Focus, at: &Slot) -> bool {
    let needed = focus.need.architecture;
    needed.is_none_or(|needed| at.has_architecture(needed))
}

pub(super) fn fits(pool: &Pool, focus: &Focus, slot: u32) -> bool {
    let at = &pool.slots[slot as usize];
    let need = &focus.need;
    let has_room = |kind: usize| need.amounts[kind] <= at.free[kind].min(at.largest[kind]).max(0);
    at.is_open()
        && has_room(0)
        && has_room(1)
        && has_room(2)
        && focus.pin.is_none_or(|pin| pin == slot)
        && focus
            .zone_open
            .get(at.zone as usize)
            .is_none_or(|open| *open)
        && focus.marks[slot as usize].barred == NOBODY
        && !(focus.rules.only_dialable && at.outbound_only)
        && has_architecture(focus, at)
        && need
            .devices
            .iter()
            .all(|(device, count)| at.devices_free(*device) >= *count)
        && !is_crowded(focus, at, slot)
        && !repeats(focus, at, slot)
}

/// What makes it impossible for a replica even to stay.
pub(super) fn misfits(
    pool: &Pool,
    focus: &Focus,
    slot: u32,
    told: (&Service, &[&ScopedName]),
) -> Option<Lack> {
    let (service, names) = told;
    let at = &pool.slots[slot as usize];
    if let (Some(node), Some(pin)) = (&service.node, focus.pin)
        && pin != slot
    {
        return Some(Lack::Pin { node: node.clone() });
    }
    if let Some(zone) = &service.zone
        && !focus.zone_open[at.zone as usize]
    {
        return Some(Lack::Zone { zone: zone.clone() });
    }
    if at.draining {
        return Some(Lack::Draining);
    }
    if let Some(need) = &service.architecture
        && !has_architecture(focus, at)
    {
        return Some(Lack::Architecture { need: need.clone() });
    }
    let barred = focus.marks[slot as usize].barred;
    (barred != NOBODY).then(|| Lack::AntiAffinity {
        with: names[barred as usize].clone(),
    })
}

/// Everything that a slot lacks.
pub(super) fn lacks(
    pool: &Pool,
    focus: &Focus,
    slot: u32,
    told: (&Service, &[&ScopedName]),
) -> Vec<Lack> {
    let (service, names) = told;
    let at = &pool.slots[slot as usize];
    let mut lacks: Vec<Lack> = Vec::new();
    let mut note = |is_lacking: bool, lack: &dyn Fn() -> Lack| {
        if is_lacking {
            lacks.push(lack());
        }
    };
    if let (Some(node), Some(pin)) = (&service.node, focus.pin) {
        note(pin != slot, &|| Lack::Pin { node: node.clone() });
    }
    if let Some(zone) = &service.zone {
        note(!focus.zone_open[at.zone as usize], &|| Lack::Zone {
            zone: zone.clone(),
        });
    }
    note(!at.reachable, &|| Lack::Reachable);
    note(at.draining, &|| Lack::Draining);
    if let Some(need) = &service.architecture {
        note(!has_architecture(focus, at), &|| Lack::Architecture {
            need: need.clone(),
        });
    }
    let wanted = service.devices.iter().filter(|(_, count)| **count > 0);
    for ((name, count), (device, _)) in wanted.zip(&focus.need.devices) {
        let free = u32::try_from(at.devices_free(*device).max(0)).unwrap_or(u32::MAX);
        note(free < *count, &|| Lack::Device {
            name: name.clone(),
            need: *count,
            free,
        });
    }
    let barred = focus.marks[slot as usize].barred;
    let with = if barred == NOBODY {
        focus.service
    } else {
        barred as usize
    };
    note(barred != NOBODY || is_crowded(focus, at, slot), &|| {
        Lack::AntiAffinity {
            with: names[with].clone(),
        }
    });
    note(focus.rules.only_dialable && at.outbound_only, &|| {
        Lack::SoleHolder
    });
    note(repeats(focus, at, slot), &|| Lack::OtherNode);
    let free = |kind: usize| u64::try_from(at.free[kind].min(at.largest[kind])).unwrap_or(0);
    let need = focus.need.amounts.map(i64::unsigned_abs);
    note(need[0] > free(0), &|| Lack::Cpu {
        need: need[0],
        free: free(0),
    });
    note(need[1] > free(1), &|| Lack::Memory {
        need: Bytes(need[1]),
        free: Bytes(free(1)),
    });
    note(need[2] > free(2), &|| Lack::Disk {
        need: Bytes(need[2]),
        free: Bytes(free(2)),
    });
    lacks
}
