//! What a lab cannot do of what scripts ask for, said in words.
//!
//! Holds: whatever the simulated world does and a lab does not is either a
//! reason not to play the script, or a note in its report.

use super::stage::{CLOCK, clock};
use node::script::{Action, Expected, Invariant, Memory, Script, ScriptService};

/// Each is three processes on this machine.
pub const NODES_MAX: usize = 32;
/// The lab's keeper keeps 64 faults.
const LINKS_MAX: usize = 60;

/// Of what only the simulated world does.
pub const CANNOT: &str =
    "a lab neither ends agents alone nor pauses or empties nodes nor changes services";

/// Why it cannot be played at all.
pub fn unfit(script: &Script) -> Vec<String> {
    let mut reasons = Vec::new();
    let nodes = script.nodes.len();
    if nodes > NODES_MAX {
        reasons.push(format!(
            "it has {nodes} nodes; {NODES_MAX} real ones at most are played on one machine"
        ));
    }
    let zones = super::stage::zones(script);
    let mut in_turn = script.nodes.iter().zip(zones.iter().cycle());
    if in_turn.any(|(node, zone)| node.zone != *zone) {
        reasons.push("its nodes are not spread over its zones in turn, as a lab's are".to_owned());
    }
    if script.nodes.iter().any(|node| node.memory.is_some()) {
        reasons.push("its nodes differ in memory, and a lab's are one machine".to_owned());
    }
    let plain = |one: &ScriptService| *one == ScriptService::new(one.name.clone(), one.replicas);
    if !script.services.iter().all(plain) {
        reasons.push("its services are more than names and replicas".to_owned());
    }
    if script
        .expectations
        .iter()
        .any(|it| it.what == Expected::AsWished)
    {
        reasons.push("nobody outside of a cluster sees all that it runs".to_owned());
    }
    for step in &script.steps {
        match &step.action {
            Action::Kill(_)
            | Action::Pause { .. }
            | Action::Drain { .. }
            | Action::Change { .. } => {
                reasons.push(CANNOT.to_owned());
            }
            Action::Start { clock_off_s, .. } if *clock_off_s != 0 => {
                if let Err(why) = clock() {
                    reasons.push(format!(
                        "a node's clock is off, and {CLOCK} cannot be built: {why}"
                    ));
                }
            }
            Action::Start {
                nodes,
                memory: Memory::Lost,
                ..
            } if nodes.contains(&0) => {
                reasons.push("n1 holds the store, and would lose it".to_owned());
            }
            Action::Cut { from, to, .. } if from.len() * to.len() > LINKS_MAX => {
                reasons.push(format!(
                    "it cuts {} links at once; {LINKS_MAX} at most can be",
                    from.len() * to.len()
                ));
            }
            Action::Clone(_) if !script.services.is_empty() => {
                reasons.push(
                    "a copied disk knows replicas by their process ids, and in a lab the \
                     original's are on the same machine"
                        .to_owned(),
                );
            }
            _ => {}
        }
    }
    reasons.dedup();
    reasons
}

/// What is done or seen otherwise.
pub fn notes(script: &Script) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |line: &str| {
        if !notes.iter().any(|known| known == line) {
            notes.push(line.to_owned());
        }
    };
    note(
        "no packet is doubled or overtaken, boot-time clocks do not drift, and the store \
         forgets no answer: the simulated world does all that in every script",
    );
    for step in &script.steps {
        match &step.action {
            Action::Slow { .. } => {
                note(
                    "each packet is late by the whole time, where the simulated world draws up to it",
                );
            }
            Action::Start { over, .. } if !over.is_zero() => {
                note("first starts take as long as joins take: the script's clock waits for them");
            }
            Action::Clone(_) => note("the copy is made while the original's processes stand still"),
            _ => {}
        }
    }
    for expectation in &script.expectations {
        if expectation.what == Expected::Agree {
            note("views agree when states do: the admin API tells neither lives nor attributes");
        }
    }
    for invariant in &script.always {
        match invariant {
            Invariant::DeadLivesStayDead => note(
                "dead-lives-stay-dead: that nobody who is off comes back in a view before it is \
                 started",
            ),
            Invariant::StrangersAreNotSpokenTo => note(
                "strangers-are-not-spoken-to: that nobody keeps a connection to a revoked node",
            ),
            Invariant::NobodyWellIsDead => note(
                "nobody-well-is-dead: looked at several times a second; a shorter error is not seen",
            ),
            _ => {}
        }
    }
    notes
}
