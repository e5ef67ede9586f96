//! The search through blocks, against one through all slots.

use super::*;
use crate::engine::fits::lacks;
use crate::engine::focus::Around;
use crate::engine::pool::Place;
use crate::model::{Policy, Resources, Service, Spread};
use kernel::{Bytes, Hash, Name, Rng, ScopedName, ZonePath};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn resources(rng: &mut Rng, most: u64) -> Resources {
    Resources {
        cpu_thousandths: rng.below(most),
        memory: Bytes(rng.below(most)),
        disk: Bytes(rng.below(most)),
    }
}

fn place(rng: &mut Rng, id: u64) -> Place<u64> {
    let zone = format!("/z{}", rng.below(4));
    let capacity = [resources(rng, 1_000), resources(rng, 100)][usize::from(rng.below(3) == 0)];
    let domain = (rng.below(2) == 0).then(|| name(&format!("d{}", rng.below(9))));
    Place {
        id,
        name: Some(name(&format!("n{id}"))),
        key: rng.next_u64(),
        zone: zone.parse().expect("a zone"),
        domain,
        capacity,
        free: capacity,
        largest: capacity,
        machines: 1,
        reachable: rng.below(10) > 0,
        draining: rng.below(10) == 0,
        outbound_only: rng.below(3) == 0,
        architectures: [["x86_64", "aarch64"][usize::from(rng.below(4) == 0)].to_owned()].into(),
        devices: BTreeMap::from([(name("gpu"), u32::try_from(rng.below(3)).expect("small"))]),
        failure: rng.unit() * 0.2,
        price: (rng.below(2) == 0).then(|| rng.unit()),
        content: (0..rng.below(3))
            .map(|_| Hash([u8::from(rng.below(2) == 0); 32]))
            .collect(),
    }
}

fn service(rng: &mut Rng) -> Service {
    let every = |rng: &mut Rng, of: u64| rng.below(of) == 0;
    let zone =
        |rng: &mut Rng| -> ZonePath { format!("/z{}", rng.below(4)).parse().expect("a zone") };
    let other = |rng: &mut Rng| ScopedName::new(name("p"), name(&format!("s{}", rng.below(6))));
    let needs = if every(rng, 4) {
        Resources::default()
    } else {
        resources(rng, 80)
    };
    Service {
        replicas: 1,
        need: needs,
        devices: every(rng, 4)
            .then(|| (name("gpu"), 1))
            .into_iter()
            .collect(),
        architecture: every(rng, 4).then(|| "aarch64".to_owned()),
        affinity: every(rng, 3).then(|| other(rng)).into_iter().collect(),
        anti_affinity: every(rng, 4).then(|| other(rng)).into_iter().collect(),
        spread: [Spread::Zone, Spread::Domain][usize::from(every(rng, 2))],
        zone: every(rng, 6).then(|| zone(rng)),
        content: every(rng, 3)
            .then_some((Hash([1; 32]), Bytes(5)))
            .into_iter()
            .collect(),
        latency: every(rng, 3)
            .then(|| (zone(rng), Duration::from_millis(rng.below(400))))
            .into_iter()
            .collect(),
        ..Service::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_blocks_best_is_the_best_of_all(seed: u64, pack: bool) {
        let rng = &mut Rng::seeded(seed);
        let mut places: Vec<Place<u64>> = (0..rng.below(300)).map(|id| place(rng, id)).collect();
        let services: BTreeMap<ScopedName, Service> = (0..6)
            .map(|number| (ScopedName::new(name("p"), name(&format!("s{number}"))), service(rng)))
            .collect();
        let mut pool = Pool::new(&services, &mut places, &BTreeMap::new());
        let fit = if pack { Fit::Pack } else { Fit::Balance };
        let policy = Policy { fit, ..Policy::default() };
        let mut focus = Focus::new(&pool, policy, true);
        let mut index = Index::new(&pool, policy);
        let mut holders = vec![BTreeMap::<u32, u32>::new(); services.len()];
        let names: Vec<&ScopedName> = services.keys().collect();
        let by_name: BTreeMap<ScopedName, usize> = services.keys().cloned().zip(0..).collect();
        let conflicts = crate::engine::conflicts(&services.iter().collect::<Vec<_>>(), &by_name);
        for (number, (name, told)) in services.iter().enumerate() {
            let around = Around { names: &by_name, holders: &holders, conflicts: &conflicts };
            focus.turn(&pool, (number, name, told), &around);
            prop_assert!(focus.weigh(&pool, told, &around));
            index.turn(&focus);
            for turn in 0..12 {
                focus.rules.only_dialable = turn == 0;
                focus.rules.only_other = turn > 8;
                for slot in (0_u32..).take(pool.slots.len()) {
                    let lacking: BTreeSet<_> =
                        lacks(&pool, &focus, slot, (told, &names)).iter().map(crate::Lack::constraint).collect();
                    prop_assert_eq!(fits(&pool, &focus, slot), lacking.is_empty(), "{:?}", lacking);
                }
                let best = index.best(&pool, &focus);
                prop_assert_eq!(best, Index::scan(&pool, &focus));
                let Some(best) = best[0] else { continue };
                pool.take(best.slot, number, 1);
                index.renew(&pool, best.slot);
                *holders[number].entry(best.slot).or_default() += 1;
                focus.count(&pool, best.slot, 1);
            }
        }
    }
}
