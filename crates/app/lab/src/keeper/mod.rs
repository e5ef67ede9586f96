//! The process that a lab lives by.
//!
//! In: a plan, requests on its socket, signals, the end of its owner. Out: the
//! lab's parts, packets carried, faults made and undone.
//! Holds: a fault is undone by the keeper, whoever asked for it; when the keeper
//! is told to end, or its owner has gone, nothing of the lab stays.

mod desk;
mod relay;

use crate::directory::{Directory, replace};
use crate::ledger::Ledger;
use crate::machine::{self, processes};
use crate::shape::{Shape, unknown};
use crate::{LabError, clock};
use ipc::{Identity, Watched};
use kernel::{Name, error_chain};
use relay::Relay;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use wire::lab::{Fault, FromKeeper, LabKind, LabPlan, LabStatus, Part};

/// What the creator reads first; anything else is why it failed.
pub const READY: &str = "ready";

/// Keeps the lab in that directory until it is over. Standard input is the
/// lab's lock, standard output the creator's ear for one line.
pub fn run(directory: &Path) -> ExitCode {
    let directory = Directory {
        path: directory.to_owned(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = runtime
        .map_err(|source| LabError::io("start the keeper", source))
        .and_then(|runtime| runtime.block_on(keep(directory)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = error_chain(&error), "ended");
            ExitCode::FAILURE
        }
    }
}

/// One line, and then no more: the creator's end of it may be gone.
fn tell_creator(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{}", line.replace('\n', "; "));
    let _ = out.flush();
}

async fn keep(directory: Directory) -> Result<(), LabError> {
    let plan = directory.plan()?;
    match Keeper::make(plan.clone(), directory.clone()) {
        Ok((keeper, listener)) => {
            tell_creator(READY);
            keeper.run(listener).await
        }
        Err(error) => {
            let told = match error.hint() {
                Some(hint) => format!("{} ({hint})", error_chain(&error)),
                None => error_chain(&error),
            };
            let cleared = machine::tear_down(&plan, &directory);
            tell_creator(&told);
            cleared.and(Err(error))
        }
    }
}

struct Keeper {
    plan: LabPlan,
    directory: Directory,
    ledger: Ledger,
    /// None where there are no devices.
    relay: Option<Relay>,
    restarts: BTreeMap<Name, Vec<String>>,
    /// Whether its owner no longer matters.
    kept: bool,
}

impl Keeper {
    fn make(plan: LabPlan, directory: Directory) -> Result<(Self, UnixListener), LabError> {
        let ports = machine::set_up(&plan, &directory)?;
        let shape = Arc::new(Shape::of(&plan, std::iter::empty()));
        let seed = u64::from(plan.id);
        let relay = (plan.kind == LabKind::Namespaces)
            .then(|| Relay::start(ports, shape, seed))
            .transpose()?;
        let keeper = Self {
            plan,
            directory,
            ledger: Ledger::default(),
            relay,
            restarts: BTreeMap::new(),
            kept: false,
        };
        keeper.apply()?;
        let listener = UnixListener::bind(keeper.directory.socket())
            .map_err(|source| LabError::io("listen for commands", source))?;
        Ok((keeper, listener))
    }

    async fn run(mut self, listener: UnixListener) -> Result<(), LabError> {
        let failed = |source| LabError::io("hear signals", source);
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let owner = self
            .plan
            .owner
            .map(|pid| Identity::of(pid).and_then(Watched::open));
        let owner_gone = async {
            match owner {
                // Gone before we looked.
                Some(Err(_)) => {}
                Some(Ok(owner)) => drop(owner.exited().await),
                None => std::future::pending().await,
            }
        };
        tokio::pin!(owner_gone);
        let mut farewell = None;
        loop {
            let next = self.ledger.next().map(|end| end.since(clock::now()));
            let due = async {
                match next {
                    Some(left) => tokio::time::sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted
                        && let Some(stream) = desk::answer(stream, &mut self).await
                    {
                        farewell = Some(stream);
                        break;
                    }
                }
                () = due => {
                    let over = self.ledger.over(clock::now());
                    self.undo(&over);
                }
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = &mut owner_gone, if !self.kept => break,
            }
        }
        let cleared = self.end();
        if let Some(stream) = farewell {
            let answer = cleared.as_ref().map_or_else(refusal, |()| FromKeeper::Done);
            desk::send(stream, &answer).await;
        }
        cleared
    }

    fn end(&mut self) -> Result<(), LabError> {
        tracing::info!("going down");
        // Cut off first: what is killed says no farewell.
        if let Some(relay) = &mut self.relay {
            relay.stop();
        }
        machine::tear_down(&self.plan, &self.directory)
    }

    fn status(&self) -> LabStatus {
        LabStatus {
            pid: std::process::id(),
            faults: self.ledger.active(clock::now()),
            packets: self.relay.as_ref().map(Relay::counts).unwrap_or_default(),
        }
    }

    /// Makes the network what plan and faults say, and writes it down.
    fn apply(&self) -> Result<(), LabError> {
        let shape = Shape::of(&self.plan, self.ledger.faults());
        match &self.relay {
            Some(relay) => relay.reshape(Arc::new(shape)),
            None => replace(
                &self.directory.impairments(),
                &shape.impairments(&self.plan).text(),
            )?,
        }
        self.directory
            .write_faults(&self.ledger.active(clock::now()))
    }

    fn begin(&mut self, fault: &Fault, span: Option<Duration>) -> Result<Option<u64>, LabError> {
        if let Some(place) = unknown(&self.plan, fault) {
            return Err(LabError::Refused {
                why: format!("there is no `{place}` in lab {}", self.plan.id),
                help: Some("homeostat lab ls".to_owned()),
            });
        }
        let over_at_once = match fault {
            // A killed supervisor comes back with the node's own command.
            Fault::Kill { part, .. } => *part != Part::Supervisor || span.is_none(),
            _ => false,
        };
        if over_at_once {
            self.make_so(fault)?;
            return Ok(None);
        }
        let Some(id) = self.ledger.begin(fault.clone(), span, clock::now()) else {
            return Err(LabError::Refused {
                why: "64 faults are in force".to_owned(),
                help: Some("homeostat chaos undo".to_owned()),
            });
        };
        tracing::info!(id, %fault, ?span, "begins");
        // Written down and cut off first, then done to processes and disks.
        let done = self.apply().and_then(|()| self.make_so(fault));
        if let Err(error) = done {
            let taken = self.ledger.end(Some(id));
            self.undo(&taken);
            return Err(error);
        }
        Ok(Some(id))
    }

    /// What is not the network's.
    fn make_so(&self, fault: &Fault) -> Result<(), LabError> {
        match fault {
            Fault::Cpu { node, .. } => self.limit_cpu(node),
            Fault::Disk { node, .. } => self.limit_writes(node),
            Fault::Kill { node, part } => self.kill(node, *part),
            Fault::Fill { node, leave } => {
                self.has_its_own("disk", node)?;
                machine::fill(&self.directory.mount(node), *leave)
            }
            Fault::PowerOff { node } => match self.plan.node(node) {
                Some(end) => machine::kill_node(&self.plan, end),
                None => Ok(()),
            },
            Fault::Pause { node } => match self.plan.node(node) {
                Some(end) => machine::pause_node(&self.plan, end),
                None => Ok(()),
            },
            Fault::Cut(_) | Fault::Slow { .. } | Fault::Loss { .. } | Fault::Rate { .. } => Ok(()),
        }
    }

    fn has_its_own(&self, what: &str, node: &Name) -> Result<(), LabError> {
        if self.plan.kind == LabKind::Namespaces {
            return Ok(());
        }
        Err(LabError::Refused {
            why: format!("{node} has no {what} of its own: labs have them with root"),
            help: None,
        })
    }

    fn limit_writes(&self, node: &Name) -> Result<(), LabError> {
        self.has_its_own("disk", node)?;
        let limits = self.ledger.faults().filter_map(|fault| match fault {
            Fault::Disk {
                node: limited,
                writes_per_s,
            } if limited == node => Some(*writes_per_s),
            _ => None,
        });
        machine::limit_writes(&self.directory, node, limits.min())
    }

    fn limit_cpu(&self, node: &Name) -> Result<(), LabError> {
        self.has_its_own("control group", node)?;
        let cores = self.ledger.faults().filter_map(|fault| match fault {
            Fault::Cpu {
                node: limited,
                cores,
            } if limited == node => Some(*cores),
            _ => None,
        });
        machine::limit_cpu(&self.plan, node, cores.reduce(f64::min))
    }

    fn kill(&self, node: &Name, part: Part) -> Result<(), LabError> {
        let members = self
            .plan
            .node(node)
            .map(|end| processes::of(&self.plan, end));
        let chosen = processes::parts(members.unwrap_or_default(), part);
        if chosen.is_empty() {
            return Err(LabError::Refused {
                why: format!("{node} has no {} that runs", part.word()),
                help: None,
            });
        }
        for process in chosen {
            tracing::info!(%node, part = part.word(), pid = process.pid, "killed");
            process.kill();
        }
        Ok(())
    }

    fn undo(&self, faults: &[Fault]) {
        if faults.is_empty() {
            return;
        }
        let applied = self.apply();
        for fault in faults {
            tracing::info!(%fault, "undone");
            let undone = match fault {
                Fault::Cpu { node, .. } => self.limit_cpu(node),
                Fault::Disk { node, .. } => self.limit_writes(node),
                Fault::Fill { node, .. } => self.make_room(node),
                Fault::PowerOff { node } | Fault::Kill { node, .. } => self.start_again(node),
                Fault::Pause { .. } => {
                    self.go_on(fault);
                    Ok(())
                }
                Fault::Cut(_) | Fault::Slow { .. } | Fault::Loss { .. } | Fault::Rate { .. } => {
                    Ok(())
                }
            };
            if let Err(error) = undone {
                tracing::error!(%fault, error = error_chain(&error), "was not undone");
            }
        }
        if let Err(error) = applied {
            tracing::error!(error = error_chain(&error), "was not written down");
        }
    }

    fn make_room(&self, node: &Name) -> Result<(), LabError> {
        let still = self.ledger.faults();
        let mut still =
            still.filter(|fault| matches!(fault, Fault::Fill { node: n, .. } if n == node));
        if still.next().is_some() {
            return Ok(());
        }
        machine::unfill(&self.directory.mount(node))
    }

    /// Unless another one stops the same node.
    fn go_on(&self, pause: &Fault) {
        let Fault::Pause { node } = pause else { return };
        if let Some(end) = self.plan.node(node)
            && self.ledger.faults().all(|fault| fault != pause)
        {
            machine::go_on(&self.plan, end);
        }
    }

    /// As whoever started it first said.
    fn start_again(&self, node: &Name) -> Result<(), LabError> {
        let Some(command) = self.restarts.get(node) else {
            return Ok(());
        };
        // It is reaped when it ends, whenever that is.
        let child = tokio::process::Command::new(&self.plan.program)
            .arg("lab-enter")
            .arg(&self.directory.path)
            .arg(node.as_str())
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        child
            .map(drop)
            .map_err(|source| LabError::io(format!("start {node} again"), source))
    }
}

/// An error as an answer.
fn refusal(error: &LabError) -> FromKeeper {
    FromKeeper::Failed {
        why: error_chain(error),
        help: error.hint(),
    }
}
