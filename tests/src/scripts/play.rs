//! Plays one script in a lab: its clock, its steps, what it expects.
//!
//! Holds: the script's clock stands still while nodes join for the first time,
//! and while something that was expected is late; so a slow machine stretches a
//! script and changes nothing in it.

use super::Report;
use super::history::{History, World};
use super::look::{View, look};
use super::stage::{self, Job, Stage, Told};
use node::script::{Action, Expected, Memory, Script};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use wire::lab::{Between, Fault, Place};

/// Enough for a machine with much else to do.
pub const PATIENCE: Duration = Duration::from_secs(45);
const LOOK: Duration = Duration::from_millis(100);

struct Play<'a> {
    script: &'a Script,
    patience: Duration,
    stage: Stage,
    world: World,
    history: History,
    /// First starts: the script's clock waits for them.
    joining: Vec<Job>,
    jobs: Vec<Job>,
    /// Cuts, slowness and losses that are in force.
    impaired: Vec<u64>,
    copies: usize,
    broken: Vec<String>,
}

pub fn play(script: &Script, patience: Duration, report: &mut Report) -> Told {
    let began = Instant::now();
    let clones = |step: &&node::script::Step| matches!(step.action, Action::Clone(_));
    let copies = script.steps.iter().filter(clones).count();
    let stage = Stage::set(script, copies)?;
    let mut play = Play {
        world: World::new(stage.names[..script.nodes.len()].to_vec(), copies),
        history: History::new(&script.always),
        stage,
        script,
        patience,
        joining: Vec::new(),
        jobs: Vec::new(),
        impaired: Vec::new(),
        copies: 0,
        broken: Vec::new(),
    };
    let played = play.run(report);
    report.broken_in_lab.extend(played.err());
    report.broken_in_lab.append(&mut play.broken);
    report.broken_in_lab.append(&mut play.history.broken);
    if !report.is_good() {
        let logs: String = (0..play.stage.names.len())
            .map(|node| play.stage.logs(node))
            .collect();
        report.broken_in_lab.push(logs);
    }
    report.took = began.elapsed();
    Ok(())
}

impl Play<'_> {
    fn run(&mut self, report: &mut Report) -> Told {
        let mut passed = Duration::ZERO;
        let mut last = Instant::now();
        let mut steps = 0;
        let mut reached: Vec<Option<Instant>> = vec![None; report.outcomes.len()];
        loop {
            let now = Instant::now();
            let is_late = report.outcomes.iter().zip(&reached).any(|(one, reached)| {
                let waited = reached.map(|reached| now - reached);
                let within = one.expectation.within;
                let waits = |waited| waited > within && waited <= within + self.patience;
                one.in_lab.is_none() && waited.is_some_and(waits)
            });
            if self.joining.is_empty() && !is_late {
                passed += now - last;
            }
            last = now;
            for (one, reached) in report.outcomes.iter().zip(&mut reached) {
                if passed >= one.expectation.at {
                    reached.get_or_insert(now);
                }
            }
            while self.joining.is_empty()
                && let Some(step) = self.script.steps.get(steps)
                && passed >= step.at
            {
                steps += 1;
                self.act(&step.action)
                    .map_err(|why| format!("at {:?}: {why}", step.at))?;
            }
            self.collect();
            self.look();
            for (one, reached) in report.outcomes.iter_mut().zip(&reached) {
                let open = one.in_lab.is_none() && one.expectation.at <= passed;
                if let (true, Some(reached)) = (open, reached)
                    && self.is_so(&one.expectation.what)
                {
                    one.in_lab = Some(reached.elapsed());
                }
            }
            if passed >= self.script.end && self.joining.is_empty() {
                break;
            }
            std::thread::sleep(LOOK.saturating_sub(now.elapsed()));
        }
        for job in self.jobs.drain(..) {
            stage::ended(job)?;
        }
        Ok(())
    }

    /// Jobs that are over; one that failed has broken the script.
    fn collect(&mut self) {
        for jobs in [&mut self.joining, &mut self.jobs] {
            let all = std::mem::take(jobs);
            for job in all {
                if !job.is_finished() {
                    jobs.push(job);
                } else if let Err(why) = stage::ended(job) {
                    self.broken.push(why);
                }
            }
        }
    }

    fn act(&mut self, action: &Action) -> Told {
        match action {
            Action::Start {
                nodes,
                memory,
                clock_off_s,
                ..
            } => self.start(nodes, *memory, *clock_off_s)?,
            Action::PowerOff(nodes) => {
                for node in nodes {
                    self.stage.power_off(*node)?;
                    self.world.ends(*node);
                }
            }
            Action::Leave(nodes) => {
                for node in nodes {
                    self.jobs.push(self.stage.leave(*node));
                    self.world.ends(*node);
                }
            }
            Action::Cut { from, to, both } => self.cut(from, to, *both)?,
            Action::Heal => {
                for fault in std::mem::take(&mut self.impaired) {
                    let undone = self.stage.lab.undo(Some(fault));
                    undone.map_err(|why| why.to_string())?;
                }
                self.world.cuts.clear();
            }
            Action::Slow { nodes, by } => {
                let by_ms = by.as_secs_f64() * 1e3;
                for node in nodes {
                    let between = self.stage.around(*node);
                    let slow = Fault::Slow { between, by_ms };
                    self.impaired.push(self.stage.impair(slow)?);
                }
            }
            Action::Loss(share) => {
                let everywhere = || Place::Zone(kernel::ZonePath::root());
                let between = Between {
                    from: everywhere(),
                    to: Some(everywhere()),
                    one_way: true,
                };
                let loss = Fault::Loss {
                    between,
                    share: *share,
                };
                self.impaired.push(self.stage.impair(loss)?);
            }
            Action::Clone(node) => {
                let copy = self.stage.nodes + self.copies;
                self.copies += 1;
                self.jobs.push(self.stage.start_copy(*node, copy)?);
                self.world.starts_copy(*node, copy);
            }
            Action::Revoke(node) => {
                self.stage.revoke(*node)?;
                self.world.revoked.insert(*node);
            }
            Action::Crash(nodes) => nodes.iter().try_for_each(|node| self.stage.crash(*node))?,
            Action::Apply => self.jobs.push(self.stage.apply()),
            Action::Kill(_)
            | Action::Pause { .. }
            | Action::Drain { .. }
            | Action::Change { .. } => {
                return Err(super::limits::CANNOT.to_owned());
            }
        }
        Ok(())
    }

    fn cut(&mut self, from: &[usize], to: &[usize], both: bool) -> Told {
        let pairs = from
            .iter()
            .flat_map(|one| to.iter().map(move |to| (*one, *to)));
        for (from, to) in pairs {
            let between = Between {
                from: self.stage.place(from),
                to: Some(self.stage.place(to)),
                one_way: !both,
            };
            self.impaired.push(self.stage.impair(Fault::Cut(between))?);
            self.world.cuts.insert((from, to));
            if both {
                self.world.cuts.insert((to, from));
            }
        }
        Ok(())
    }

    fn start(&mut self, nodes: &[usize], memory: Memory, clock_off_s: i64) -> Told {
        let known = |node: &&usize| self.world.has_started(**node);
        let (again, first): (Vec<usize>, Vec<usize>) = nodes.iter().partition(known);
        // Whoever is on goes on.
        for node in again
            .iter()
            .filter(|node| !self.world.is_on(**node))
            .copied()
            .collect::<Vec<_>>()
        {
            let job = self.stage.start(node, memory, clock_off_s)?;
            self.jobs.push(job);
            self.world.starts(node);
        }
        if !first.is_empty() {
            self.joining
                .push(self.stage.first_starts(&first, clock_off_s));
            for node in &first {
                self.world.starts(*node);
            }
        }
        Ok(())
    }

    /// What all say now.
    fn look(&mut self) {
        let layouts = &self.stage.layouts;
        let (on, replicas) = (&self.world, !self.script.services.is_empty());
        let views: Vec<Option<View>> = std::thread::scope(|scope| {
            let looks = layouts.iter().enumerate().map(|(node, layout)| {
                let is_on = on.is_on(node);
                scope.spawn(move || if is_on { look(layout, replicas) } else { None })
            });
            let looks: Vec<_> = looks.collect();
            let views = looks.into_iter().map(|look| look.join().ok().flatten());
            views.collect()
        });
        self.world.views = views;
        self.history.take(&self.world);
    }

    fn is_so(&self, expected: &Expected) -> bool {
        let world = &self.world;
        match expected {
            Expected::Alive(nodes) => nodes.iter().all(|node| {
                world.of(*node).any(|(_, view)| view.is_some()) && world.all_see(*node, "alive")
            }),
            Expected::Dead(nodes) => self.gone(nodes, "dead"),
            Expected::Left(nodes) => self.gone(nodes, "left"),
            Expected::Revoked(node) => world.others(*node).all(|view| {
                let seen = view.and_then(|view| view.nodes.get(&world.names[*node]));
                seen.is_some_and(|seen| seen.state == "revoked" && !seen.connected)
            }),
            Expected::Apart(some, others) => {
                self.sees_dead(some, others) && self.sees_dead(others, some)
            }
            Expected::Agree => self.agree(),
            Expected::Cloned(node) => self.cloned(*node),
            Expected::Ready(service) => {
                let wanted = self.script.services.iter().find(|one| one.name == *service);
                let ready = world.speaking().flatten();
                let ready: usize = ready.map(|view| view.ready(service.as_str())).sum();
                wanted.is_some_and(|wanted| ready == wanted.replicas as usize)
            }
            // Such scripts are not played.
            Expected::AsWished => false,
        }
    }

    fn gone(&self, nodes: &[usize], state: &str) -> bool {
        let mut nodes = nodes.iter();
        nodes.all(|node| !self.world.is_on(*node) && self.world.all_see(*node, state))
    }

    fn sees_dead(&self, observers: &[usize], nodes: &[usize]) -> bool {
        observers
            .iter()
            .flat_map(|node| self.world.of(*node))
            .all(|(_, view)| {
                let dead = |node: &usize| {
                    let seen = view.and_then(|view| view.nodes.get(&self.world.names[*node]));
                    seen.is_some_and(|seen| seen.state == "dead")
                };
                nodes.iter().all(dead)
            })
    }

    fn agree(&self) -> bool {
        let mut states = BTreeSet::new();
        for view in self.world.speaking() {
            let Some(view) = view else { return false };
            let seen = view.nodes.iter();
            states.insert(
                seen.map(|(name, seen)| (name, &seen.state))
                    .collect::<Vec<_>>(),
            );
        }
        states.len() == 1
    }

    /// Somebody has named it, and one of the two knows that it lost.
    fn cloned(&self, node: usize) -> bool {
        let name = &self.world.names[node];
        let named = self.world.views.iter().flatten().any(|view| {
            let seen = view.nodes.get(name);
            seen.is_some_and(|seen| seen.cloned)
        });
        let mut both = self.world.of(node);
        named && both.any(|(_, view)| view.is_some_and(|view| !view.speaks()))
    }
}
