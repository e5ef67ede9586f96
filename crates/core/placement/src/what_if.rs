//! Says what would be placed where if a node or a zone were gone.
//!
//! Holds: the answer is a plan of the same engine, on the same inputs without it.

use crate::model::World;
use crate::nodes::cluster;
use crate::plan::{Leaving, Plan};
use kernel::{NodeId, ScopedName, ZonePath};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Without {
    Node(NodeId),
    /// With all zones below it.
    Zone(ZonePath),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WhatIf {
    /// From where all that is planned now runs. Its choices are what would be
    /// placed anew, its refusals what would not.
    pub plan: Plan<NodeId>,
    /// Replicas that would run nowhere, beside those that have no place as it is.
    pub lost: BTreeMap<ScopedName, u32>,
}

impl WhatIf {
    /// Replicas that would run elsewhere than now.
    pub fn moved(&self) -> usize {
        let is_gone = |from: &Leaving| *from == Leaving::Gone;
        let moved = self
            .plan
            .choices
            .iter()
            .filter(|choice| choice.from.as_ref().is_some_and(|(_, why)| is_gone(why)));
        moved.count()
    }
}

/// What would come of the loss, once what is planned now is carried out.
pub fn what_if(world: &World, without: &Without) -> WhatIf {
    let now = cluster(world);
    let mut then = world.clone();
    then.nodes.retain(|id, node| match without {
        Without::Node(lost) => id != lost,
        Without::Zone(lost) => !lost.contains(&node.zone),
    });
    then.running = now.assigned;
    let plan = cluster(&then);
    let count = |on: Option<&BTreeMap<NodeId, u32>>| {
        on.into_iter().flatten().map(|(_, count)| *count).sum()
    };
    let lost = then.running.iter().filter_map(|(service, on)| {
        let before: u32 = count(Some(on));
        let after: u32 = count(plan.assigned.get(service));
        (after < before).then(|| (service.clone(), before - after))
    });
    let lost = lost.collect();
    WhatIf { plan, lost }
}
