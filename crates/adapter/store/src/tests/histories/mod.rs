//! Histories of concurrent clients under faults: is there an order of all calls,
//! one after the other, that explains every answer and in which no call comes
//! before one that had ended when it began (Herlihy, Wing, "Linearizability",
//! TOPLAS 12(3), 1990)?
//!
//! In: members in one process, calls, faults by a seed. Out: what each client
//! asked and was told, for the checker.
//! Holds: a call that is refused for want of a quorum is not in the history: if
//! it was done all the same, nothing explains what others then see.

mod record;
mod spec;

use super::net::{Net, three, until};
use crate::EmbeddedStore;
use fastrand::Rng;
use kernel::NodeId;
use record::{Record, client};
use spec::{Answer, Call, Done, is_linearizable};
use std::io::Write as _;
use std::sync::{Arc, Mutex};

const CLIENTS: u64 = 5;
const CALLS_PER_CLIENT: u32 = 30;
/// That the others get done while a fault lasts.
const CALLS_PER_FAULT: usize = 12;

/// The members that have power, as clients find them.
pub struct Members {
    net: Arc<Net>,
    running: Mutex<Vec<Option<Arc<EmbeddedStore>>>>,
}

impl Members {
    async fn start() -> Self {
        let (net, members) = three().await;
        let running = Mutex::new(members.into_iter().map(Some).collect());
        Self { net, running }
    }

    /// That of this number, or the next one with power.
    fn at(&self, number: usize) -> Option<Arc<EmbeddedStore>> {
        let running = self.running.lock().expect("no panic");
        let turned = running.iter().cycle().skip(number % running.len());
        turned.take(running.len()).flatten().next().cloned()
    }

    fn all(&self) -> Vec<Arc<EmbeddedStore>> {
        let running = self.running.lock().expect("no panic");
        running.iter().flatten().cloned().collect()
    }

    async fn leader(&self) -> usize {
        let leader = until("a leader", || {
            let leader = self.all().iter().find_map(|one| one.members().leader);
            leader.map(|NodeId(node)| usize::try_from(node).expect("small") - 1)
        });
        leader.await
    }

    async fn cut_power(&self, at: usize, rng: &mut Rng) {
        let member = self.running.lock().expect("no panic")[at].take();
        if let Some(member) = member {
            self.net.kill(member, at as u64 + 1, rng).await;
        }
    }

    async fn give_power(&self) {
        for at in 0..3 {
            if self.running.lock().expect("no panic")[at].is_none() {
                let member = self.net.open(at as u64 + 1, at == 0).await;
                self.running.lock().expect("no panic")[at] = Some(member);
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    LeaderCutOff,
    LeaderWithoutPower,
    FollowerWithoutPower,
    AllWithoutPower,
    AnswersLost,
}

async fn befall(members: &Members, record: &Record, fault: Fault, rng: &mut Rng) {
    record.more(CALLS_PER_FAULT).await;
    let leader = members.leader().await;
    match fault {
        Fault::LeaderCutOff => members.net.cut_off(&[leader as u64 + 1]),
        Fault::LeaderWithoutPower => members.cut_power(leader, rng).await,
        Fault::FollowerWithoutPower => members.cut_power((leader + 1) % 3, rng).await,
        Fault::AllWithoutPower => {
            for at in 0..3 {
                members.cut_power(at, rng).await;
            }
            members.give_power().await;
        }
        Fault::AnswersLost => *members.net.lossy.lock().expect("no panic") = Some(4),
    }
    record.more(CALLS_PER_FAULT).await;
    members.net.cut_off(&[]);
    *members.net.lossy.lock().expect("no panic") = None;
    members.give_power().await;
}

/// Says how to come back here, when the test fails.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "replay with STORE_SEED={}", self.0);
        }
    }
}

async fn recorded(faults: &[Fault]) -> Vec<Done> {
    let given = std::env::var("STORE_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |s| s.parse().expect("a number"));
    let _replay = Replay(seed);
    let mut rng = Rng::with_seed(seed);
    let members = Arc::new(Members::start().await);
    let record = Arc::new(Record::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (members, record) = (Arc::clone(&members), Arc::clone(&record));
            tokio::spawn(client(members, record, number, rng.fork()))
        })
        .collect();
    for fault in faults {
        befall(&members, &record, *fault, &mut rng).await;
    }
    for client in clients {
        client.await.expect("ends");
    }
    // In peace, each member has all that there is.
    for member in members.all() {
        until("a leader for each", || member.members().leader).await;
        record.call(&member, Call::Read).await;
    }
    let done = record.done();
    let known = done.iter().filter(|done| done.answer != Answer::Unknown);
    assert!(known.count() > done.len() / 2, "too little is known");
    assert!(is_linearizable(&done), "seed {seed}: {done:#?}");
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_faults_all_calls_have_an_order() {
    recorded(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_have_an_order_when_the_leader_is_cut_off() {
    recorded(&[Fault::LeaderCutOff, Fault::LeaderCutOff]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_have_an_order_when_members_lose_power() {
    let faults = [Fault::LeaderWithoutPower, Fault::FollowerWithoutPower];
    recorded(&faults).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_have_an_order_when_all_members_lose_power_at_once() {
    recorded(&[Fault::AllWithoutPower, Fault::AllWithoutPower]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_have_an_order_when_answers_are_lost() {
    recorded(&[Fault::AnswersLost, Fault::LeaderWithoutPower]).await;
}

/// The history of a real run, and the same with one lie in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_with_one_wrong_answer_is_refused() {
    let told = recorded(&[]).await;
    let wrote = |done: &Done| {
        matches!(
            done.answer,
            Answer::Wrote {
                succeeded: true,
                ..
            }
        )
    };
    let at = |is: &dyn Fn(&Done) -> bool| told.iter().rposition(is).expect("there is one");
    let last_read = at(&|done| matches!(done.answer, Answer::Found { .. }));
    let first_read = told
        .iter()
        .position(|done| matches!(done.answer, Answer::Found { .. }));
    let last_write = at(&wrote);
    let refused = |what: &str, lie: &dyn Fn(&mut Vec<Done>)| {
        let mut lied = told.clone();
        lie(&mut lied);
        assert!(!is_linearizable(&lied), "{what} passes");
    };
    refused("a stale read", &|told| {
        let old = told[first_read.expect("a read")].answer.clone();
        told[last_read].answer = old;
    });
    refused("a lost write", &|told| drop(told.remove(last_write)));
    refused("a value that nobody wrote", &|told| {
        if let Answer::Found { rows, .. } = &mut told[last_read].answer
            && let Some((value, _)) = rows.values_mut().next()
        {
            value.push(b'!');
        }
    });
    refused("a revision given twice", &|told| {
        if let Answer::Wrote { revision, .. } = &mut told[last_write].answer {
            revision.0 -= 1;
        }
    });
    let lost_swap = told.iter().position(|done| {
        matches!(done.call, Call::Swap { .. })
            && matches!(
                done.answer,
                Answer::Wrote {
                    succeeded: false,
                    ..
                }
            )
    });
    let lost_swap = lost_swap.expect("of many, one lost");
    refused("a comparison that did not hold", &|told| {
        if let Answer::Wrote { succeeded, .. } = &mut told[lost_swap].answer {
            *succeeded = true;
        }
    });
}
