//! Two generations in desired state: what each node runs of them, and what becomes of
//! them.

mod support;

use control::stage::Stage;
use kernel::{Name, NodeId, Revision, UnixMillis};
use manifest::{Batches, BlueGreen, Canary, Rollout};
use node::desired::{Applied, Desired};
use node::nodes::NodeReport;
use node::rollouts::Watched;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;
use wire::edge::GenerationReadings;

fn service() -> Name {
    support::name().name
}

fn canary(share: f64) -> Rollout {
    Rollout::Canary(Canary {
        share,
        good_for: None,
        max_error_rate: 0.05,
        max_latency: None,
        min_requests: 50,
    })
}

/// Version `version` of it, placed on nodes 1, 2, … as `placed` says.
fn applied(number: u64, version: &str, rollout: Rollout, placed: &[u32]) -> Applied {
    let replicas = placed.iter().sum();
    let desired = support::desired(number, replicas);
    let mut applied = desired.projects.into_values().next().expect("one project");
    let one = applied.manifest.services.get_mut(&service());
    let one = one.expect("the service");
    one.rollout = rollout;
    one.environment
        .insert("VERSION".to_owned(), version.to_owned());
    let nodes = (1..).map(NodeId).zip(placed.iter().copied());
    let placed = nodes.filter(|(_, count)| *count > 0).collect();
    applied.placements = BTreeMap::from([(service(), placed)]);
    applied
}

fn over(old: &Applied, mut new: Applied) -> Applied {
    new.generations = new.generations_after(Some(old));
    new.begin_rollouts(old, true, UnixMillis(7));
    new
}

fn generation(applied: &Applied) -> u64 {
    applied.generations[&service()].0
}

#[test]
fn what_is_applied_meanwhile_goes_on_from_the_old_one() {
    let first = applied(1, "1", canary(0.1), &[4]);
    let second = over(&first, applied(2, "2", canary(0.1), &[4]));
    let third = over(&second, applied(3, "3", canary(0.1), &[4]));
    let under_way = &third.rollouts[&service()];
    assert_eq!(under_way.from_generation, Revision(1));
    assert_eq!(generation(&third), 3);
    // The same again changes nothing; what the old one says is the old one.
    let again = over(&third, applied(4, "3", canary(0.1), &[4]));
    assert_eq!(again.rollouts, third.rollouts);
    let back = over(&third, applied(4, "1", canary(0.1), &[4]));
    assert_eq!((generation(&back), back.rollouts.len()), (1, 0));
    // A person who goes back does so at once.
    let mut at_once = applied(4, "4", canary(0.1), &[4]);
    at_once.generations = at_once.generations_after(Some(&third));
    at_once.begin_rollouts(&third, false, UnixMillis(7));
    assert_eq!((generation(&at_once), at_once.rollouts.len()), (4, 0));
}

#[test]
fn an_abort_is_a_state_of_its_own_and_an_end_is_not() {
    let first = applied(1, "1", canary(0.1), &[4]);
    let second = over(&first, applied(2, "2", canary(0.1), &[4]));
    let aborted = second.aborted(&service(), UnixMillis(9)).expect("it was");
    assert_eq!(aborted.manifest, first.manifest);
    assert_eq!((aborted.number, generation(&aborted)), (3, 1));
    assert!(aborted.rollouts.is_empty());
    let finished = second.clone().finished(&service());
    assert_eq!((finished.number, generation(&finished)), (2, 2));
    assert_eq!(finished.manifest, second.manifest);
}

#[test]
fn blue_green_runs_both_whole_and_routes_one() {
    let keep = Duration::from_secs(1);
    let blue_green = || Rollout::BlueGreen(BlueGreen { keep });
    let first = applied(1, "1", blue_green(), &[2]);
    let coming = over(&first, applied(2, "2", blue_green(), &[2]));
    let switched = coming.clone().switched(&service(), UnixMillis(8));
    for (now, stands_on) in [(&coming, 1), (&switched, 2)] {
        let one = &now.manifest.services[&service()];
        let both = now.both_shares(&service(), one, NodeId(1));
        let both = both.expect("it is under way");
        assert_eq!((both.old, both.new), (2, 2));
        assert_ne!(both.old_routed, both.new_routed);
        assert_eq!(both.new_routed, stands_on == 2);
        assert_eq!(now.stands_on(&service()), Revision(stands_on));
    }
}

#[test]
fn both_generations_are_counted_over_the_same_stage() {
    let keep = Duration::from_secs(1);
    let blue_green = || Rollout::BlueGreen(BlueGreen { keep });
    let first = applied(1, "1", blue_green(), &[1]);
    let coming = over(&first, applied(2, "2", blue_green(), &[1]));
    let switched = coming.clone().switched(&service(), UnixMillis(8));
    let mut watched = Watched::default();
    let mut seen = |applied: &Applied, old: u64, new: u64| {
        let mut desired = Desired::default();
        let project = applied.manifest.project.clone();
        desired.projects.insert(project, applied.clone());
        let count = |requests| GenerationReadings {
            requests,
            ..GenerationReadings::default()
        };
        let counts = BTreeMap::from([(Revision(1), count(old)), (Revision(2), count(new))]);
        let report = NodeReport {
            generations: BTreeMap::from([(support::name(), counts)]),
            ..NodeReport::default()
        };
        let all = watched.look(&desired, &BTreeMap::from([(NodeId(1), report)]));
        let (_, reading) = &all[&support::name()];
        (reading.old.requests, reading.new.requests)
    };
    assert_eq!(seen(&coming, 100, 0), (0, 0), "what was before it looked");
    assert_eq!(seen(&coming, 150, 10), (50, 10));
    assert_eq!(seen(&switched, 160, 20), (10, 10), "of this stage alone");
    assert_eq!(seen(&switched, 160, 50), (10, 40));
    // One of them began anew.
    assert_eq!(seen(&switched, 160, 5), (10, 45));
}

#[test]
fn an_earlier_program_reads_the_new_generation_alone() {
    let first = applied(1, "1", canary(0.1), &[4]);
    let second = over(&first, applied(2, "2", canary(0.1), &[4]));
    let text = serde_json::to_string(&second).expect("encodes");
    let back: Applied = serde_json::from_str(&text).expect("decodes");
    assert_eq!(back, second);
    let text = serde_json::to_string(&first).expect("encodes");
    assert!(!text.contains("rollouts"), "{text}");
    assert_eq!(second.rollouts[&service()].stage, Stage::Canary);
}

proptest! {
    #[test]
    fn batches_never_leave_fewer_than_are_placed_and_end_with_new_ones_alone(
        placed in prop::collection::vec(0..5_u32, 1..6),
        percent in 1..100_u32,
    ) {
        let replicas: u32 = placed.iter().sum();
        prop_assume!(replicas > 0);
        let share = f64::from(percent) / 100.0;
        let batches = || Rollout::Batches(Batches { share });
        let first = applied(1, "1", batches(), &placed);
        let mut now = over(&first, applied(2, "2", batches(), &placed));
        let mut replaced = 0;
        loop {
            let one = &now.manifest.services[&service()];
            let (mut old, mut new) = (0, 0);
            for (node, count) in (1..).map(NodeId).zip(&placed) {
                let both = now.both_shares(&service(), one, node).expect("it is under way");
                prop_assert!(both.old <= *count && both.new <= *count);
                prop_assert!(both.old + both.new >= *count);
                let stands_on = now.stands_on_at(&service(), &both);
                prop_assert_eq!(stands_on, Revision(if both.old > 0 { 1 } else { 2 }));
                old += both.old;
                new += both.new;
            }
            prop_assert_eq!(old, replicas - replaced);
            prop_assert!(new > replaced);
            replaced = new;
            if new == replicas {
                break;
            }
            now = now.stepped(&service(), UnixMillis(9));
        }
        let over = now.finished(&service());
        prop_assert_eq!(over.stands_on(&service()), Revision(2));
    }

    #[test]
    fn canary_is_its_share_of_the_places_and_the_old_one_all_of_them(
        placed in prop::collection::vec(0..5_u32, 1..6),
        percent in 1..100_u32,
    ) {
        let replicas: u32 = placed.iter().sum();
        prop_assume!(replicas > 0);
        let share = f64::from(percent) / 100.0;
        let first = applied(1, "1", canary(share), &placed);
        let second = over(&first, applied(2, "2", canary(share), &placed));
        let one = &second.manifest.services[&service()];
        let (mut old, mut new) = (0, 0);
        for (node, count) in (1..).map(NodeId).zip(&placed) {
            let both = second.both_shares(&service(), one, node).expect("it is under way");
            prop_assert_eq!(both.old, *count);
            prop_assert!(both.new <= *count);
            old += both.old;
            new += both.new;
        }
        prop_assert_eq!(old, replicas);
        prop_assert!(new >= 1 && new <= replicas);
        let exact = f64::from(replicas) * share;
        prop_assert!((f64::from(new) - exact).abs() <= 0.5 || new == 1);
    }
}
