//! What must never run twice at once, in true time.

use crate::world::World;
use kernel::{Name, ScopedName};
use node::script::Invariant;
use std::collections::BTreeMap;

impl World {
    /// Where each singleton runs now, by all replicas' processes: agents may be gone.
    pub fn singletons_run(&self) -> BTreeMap<ScopedName, Vec<usize>> {
        let mut run: BTreeMap<ScopedName, Vec<usize>> = BTreeMap::new();
        for (at, machine) in self.machines.iter().enumerate() {
            // What stands still does nothing.
            if !machine.has_power || machine.paused_until > self.now {
                continue;
            }
            for (replica, process) in machine.processes() {
                if process.running && process.leased {
                    run.entry(replica.service.clone()).or_default().push(at);
                }
            }
        }
        run
    }

    /// When one has started, or goes on: at no other time two can come to be.
    pub fn check_once(&mut self) {
        for (service, on) in self.singletons_run() {
            if on.len() > 1 {
                let on = on.iter().map(|at| &self.machines[*at].name);
                let on: Vec<&str> = on.map(Name::as_str).collect();
                let what = format!("{service} runs on {}", on.join(" and on "));
                self.broke(Invariant::SingletonsRunOnce, &what);
            }
        }
    }
}
