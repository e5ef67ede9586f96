//! One child's place: who fills it, who is about to, and what comes next.
//!
//! In: starts, exits, answers. Out: when to start again.
//! Holds: a child that is replaced ends only once its successor answers.

use crate::Event;
use crate::children::{Process, backoff, name};
use ipc::{Identity, Watched};
use rustix::process::Signal;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use wire::supervise::{Child, ChildStatus, FromSupervisor};

/// Longer than an edge may take to drain.
const LEAVE_MAX: Duration = Duration::from_secs(40);
const AGENT_END_MAX: Duration = Duration::from_secs(10);

type Reply = oneshot::Sender<FromSupervisor>;

pub struct Slot {
    child: Child,
    current: Option<Process>,
    successor: Option<(Process, Reply)>,
    /// Replaced, still finishing what they have in flight.
    leaving: Vec<Process>,
    /// Await the start that follows the end of `current`.
    awaiting: Vec<Reply>,
    restarts: u64,
    quick_deaths: u32,
}

impl Slot {
    pub fn new(child: Child) -> Self {
        Self {
            child,
            current: None,
            successor: None,
            leaving: Vec::new(),
            awaiting: Vec::new(),
            restarts: 0,
            quick_deaths: 0,
        }
    }

    pub fn is_filled(&self) -> bool {
        self.current.is_some() || self.successor.is_some()
    }

    pub fn has_successor(&self) -> bool {
        self.successor.is_some()
    }

    pub fn status(&self) -> Option<ChildStatus> {
        self.current.as_ref().map(|process| ChildStatus {
            pid: process.identity().pid,
            adopted: process.adopted,
            restarts: self.restarts,
        })
    }

    /// Everything of this child that may live.
    pub fn processes(&self) -> Vec<Process> {
        let mut all: Vec<Process> = self.current.iter().cloned().collect();
        all.extend(self.successor.iter().map(|(process, _)| process.clone()));
        all.extend(self.leaving.iter().cloned());
        all
    }

    /// Replaced, but not ended.
    pub fn leaving(&self) -> Vec<Identity> {
        self.leaving.iter().map(Process::identity).collect()
    }

    /// Of an earlier supervisor: it is leaving, and bounds that itself.
    pub fn see_off(&mut self, identity: Identity, events: &mpsc::Sender<Event>) {
        // One that has ended already is what was wished.
        if let Ok(process) = Process::adopt(identity) {
            self.tell_exit(&process.watched, events);
            end(Arc::clone(&process.watched), Signal::TERM, LEAVE_MAX);
            self.leaving.push(process);
        }
    }

    pub fn adopt(&mut self, identity: Identity, events: &mpsc::Sender<Event>) {
        match Process::adopt(identity) {
            Ok(process) => self.put(process, events),
            Err(error) => {
                tracing::warn!(child = name(self.child), %error, "cannot be adopted");
            }
        }
    }

    pub fn put(&mut self, process: Process, events: &mpsc::Sender<Event>) {
        let (pid, adopted) = (process.identity().pid, process.adopted);
        tracing::info!(child = name(self.child), pid, adopted, "in place");
        self.tell_exit(&process.watched, events);
        self.current = Some(process);
        for reply in self.awaiting.drain(..) {
            let _ = reply.send(FromSupervisor::Done);
        }
    }

    pub fn put_successor(&mut self, process: Process, reply: Reply, events: &mpsc::Sender<Event>) {
        let pid = process.identity().pid;
        tracing::info!(child = name(self.child), pid, "successor started");
        self.tell_exit(&process.watched, events);
        self.successor = Some((process, reply));
    }

    /// When to start again, if that is needed.
    pub fn exited(&mut self, identity: Identity) -> Option<Duration> {
        let child = name(self.child);
        self.leaving
            .retain(|process| process.identity() != identity);
        if let Some((_, reply)) = self
            .successor
            .take_if(|(process, _)| process.identity() == identity)
        {
            tracing::error!(child, pid = identity.pid, "successor ended");
            let why = format!("the new {child} ended at once: see its log");
            let _ = reply.send(FromSupervisor::Failed { why });
            return self.current.is_none().then(|| self.not_started());
        }
        let process = self
            .current
            .take_if(|process| process.identity() == identity)?;
        tracing::warn!(child, pid = identity.pid, "ended");
        self.restarts += 1;
        if process.died_at_once() && self.awaiting.is_empty() {
            self.quick_deaths = self.quick_deaths.saturating_add(1);
        } else {
            self.quick_deaths = 0;
        }
        // A successor takes the place as soon as it answers.
        self.successor.is_none().then(|| backoff(self.quick_deaths))
    }

    /// It could not be started: how long to wait.
    pub fn not_started(&mut self) -> Duration {
        // Never at once, or the loop would spin.
        self.quick_deaths = self.quick_deaths.saturating_add(1).max(2);
        backoff(self.quick_deaths)
    }

    /// The successor answers, so the old one leaves; or the successor goes.
    pub fn answered(&mut self, identity: Identity, answers: bool) {
        let Some((process, reply)) = self
            .successor
            .take_if(|(process, _)| process.identity() == identity)
        else {
            return;
        };
        if !answers {
            tracing::error!(
                child = name(self.child),
                pid = identity.pid,
                "does not answer"
            );
            let _ = process.watched.signal(Signal::KILL);
            // Its exit finds it here where nobody else fills the place.
            if self.current.is_none() {
                self.current = Some(process);
            }
            let why = "the new one did not answer in time: see its log".to_owned();
            let _ = reply.send(FromSupervisor::Failed { why });
            return;
        }
        if let Some(old) = self.current.replace(process) {
            self.restarts += 1;
            end(Arc::clone(&old.watched), Signal::TERM, LEAVE_MAX);
            self.leaving.push(old);
        }
        let _ = reply.send(FromSupervisor::Done);
    }

    /// Ends the current one; its exit starts the next, which answers `reply`.
    pub fn end_for_restart(&mut self, reply: Reply) {
        if let Some(process) = &self.current {
            // It tells nobody that it leaves: the next one is there in a moment.
            end(Arc::clone(&process.watched), Signal::USR1, AGENT_END_MAX);
        }
        self.awaiting.push(reply);
    }

    fn tell_exit(&self, watched: &Arc<Watched>, events: &mpsc::Sender<Event>) {
        let (child, watched, events) = (self.child, Arc::clone(watched), events.clone());
        tokio::spawn(async move {
            if let Err(error) = watched.exited().await {
                tracing::error!(child = name(child), %error, "cannot be watched");
            }
            let _ = events.send(Event::Exited(child, watched.identity())).await;
        });
    }
}

/// Asks by signal, which an edge takes as [`wire::edge::ToEdge::Drain`]: the
/// descriptor names the process for sure. Kills it after `limit`.
fn end(watched: Arc<Watched>, signal: Signal, limit: Duration) {
    // One that has ended already cannot be told.
    let _ = watched.signal(signal);
    tokio::spawn(async move {
        if tokio::time::timeout(limit, watched.exited()).await.is_err() {
            let _ = watched.signal(Signal::KILL);
        }
    });
}
