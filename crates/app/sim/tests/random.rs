//! Random faults, one seed a history: whatever befell it, a cluster that is
//! left in peace is whole again. A failing run says its seed; `SIM_SEED`
//! replays it, or a range such as `100..200`.

use kernel::{Name, Rng, ZonePath};
use node::script::{
    Action, Expectation, Expected, Invariant, Memory, Script, ScriptNode, ScriptService, Step,
};
use sim::{play, seeds};
use std::time::Duration;

const SEEDS: u64 = 60;
const FAULTS: u64 = 40;
const PEACE: u64 = 150;

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn name(text: String) -> Name {
    Name::new(text).expect("a name")
}

fn nodes() -> Vec<ScriptNode> {
    let zones = ["/eu/1", "/eu/2", "/us"].map(|zone| zone.parse::<ZonePath>().expect("a zone"));
    let node = |at: usize| ScriptNode {
        name: name(format!("n{}", at + 1)),
        zone: zones[at % 3].clone(),
        memory: None,
    };
    (0..9).map(node).collect()
}

fn some(rng: &mut Rng, most: u64) -> Vec<usize> {
    let count = 1 + rng.below(most);
    let mut some: Vec<usize> = (0..count)
        .map(|_| usize::try_from(rng.below(9)).expect("small"))
        .collect();
    some.sort_unstable();
    some.dedup();
    some
}

fn start(nodes: Vec<usize>, memory: Memory, clock_off_s: i64) -> Action {
    Action::Start {
        nodes,
        over: Duration::ZERO,
        memory,
        clock_off_s,
    }
}

fn fault(rng: &mut Rng) -> Action {
    match rng.below(10) {
        0 | 1 => Action::PowerOff(some(rng, 3)),
        2 | 3 => start(some(rng, 5), Memory::Kept, 0),
        // The store's own machine keeps its disk.
        4 => {
            let behind = i64::try_from(rng.below(7_200)).expect("small") - 3_600;
            let mut nodes = some(rng, 3);
            nodes.retain(|node| *node != 0);
            start(nodes, Memory::Lost, behind)
        }
        5 => {
            let (from, mut to) = (some(rng, 4), some(rng, 4));
            to.retain(|node| !from.contains(node));
            let both = rng.below(2) == 0;
            Action::Cut { from, to, both }
        }
        6 => Action::Heal,
        7 => Action::Slow {
            nodes: some(rng, 2),
            by: Duration::from_millis(rng.below(800)),
        },
        8 => Action::Loss(rng.unit() * 0.3),
        _ => match rng.below(2) {
            0 => Action::Leave(some(rng, 2)),
            _ => Action::Crash(some(rng, 5)),
        },
    }
}

fn script(seed: u64) -> Script {
    let mut rng = Rng::seeded(seed);
    let all: Vec<usize> = (0..9).collect();
    let mut steps = vec![Step {
        at: Duration::ZERO,
        action: start(all.clone(), Memory::Kept, 0),
    }];
    steps.push(Step {
        at: Duration::from_millis(3_000 + rng.below(2_000)),
        action: Action::Apply,
    });
    for _ in 0..FAULTS {
        let at = secs(5) + Duration::from_millis(rng.below((PEACE - 10) * 1_000));
        let action = fault(&mut rng);
        steps.push(Step { at, action });
    }
    steps.sort_by_key(|step| step.at);
    for action in [Action::Heal, start(all.clone(), Memory::Kept, 0)] {
        steps.push(Step {
            at: secs(PEACE),
            action,
        });
    }
    // On a cluster that is just finding itself again.
    steps.push(Step {
        at: secs(PEACE + 1),
        action: Action::Apply,
    });
    let service = name("search".to_owned());
    let expected = [
        (10, Expected::Alive(all)),
        (20, Expected::Agree),
        (40, Expected::Ready(service.clone())),
        (60, Expected::AsWished),
    ];
    Script {
        name: "random".to_owned(),
        nodes: nodes(),
        services: vec![ScriptService::new(service, 9)],
        distances: Vec::new(),
        steps,
        expectations: expected
            .map(|(within, what)| Expectation {
                at: secs(PEACE),
                within: secs(within),
                what,
            })
            .to_vec(),
        always: vec![
            Invariant::SilenceRemovesNobody,
            Invariant::DeadLivesStayDead,
            Invariant::EachReplicaRunsOnOneNode,
            Invariant::StrangersAreNotSpokenTo,
        ],
        end: secs(PEACE + 65),
    }
}

#[test]
fn a_cluster_left_in_peace_is_whole_again() {
    let wanted = std::env::var("SIM_SEED").ok();
    for seed in wanted.map_or(0..SEEDS, |text| seeds(&text)) {
        let script = script(seed);
        let report = play(&script, seed);
        assert!(
            report.is_good(),
            "SIM_SEED={seed} replays this\n{report}\n{script}"
        );
    }
}
