//! A node's way to another program: edge, agent, then the supervisor itself; and
//! the way back.
//!
//! In: what the new program says, and how its edge and agent come up. Out: which
//! program each child is of, and the stage, on disk before anything is done.
//! Holds: one upgrade at a time; what the new program cannot do, the old one goes
//! on with.

use crate::directory::replace;
use crate::program::{InspectError, Program, inspect};
use crate::{Event, Supervisor, children};
use ipc::Identity;
use kernel::error_chain;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use tokio::sync::oneshot;
use wire::layout::Layout;
use wire::supervise::release::Release;
use wire::supervise::{Child, FromSupervisor, Inspected, UpgradeStage, UpgradeStatus};

const ELSEWHERE: &str = "give another file with --program, or put a homeostat where the node was \
                         started from";

/// What a supervisor tells the one that it becomes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Succession {
    /// Edges that drain still.
    pub leaving: Vec<Identity>,
}

/// The variable by which it is told.
pub const SUCCESSION: &str = "HOMEOSTAT_SUCCESSION";

pub struct Upgrade {
    program: Program,
    /// None while the new program is being asked what it is.
    status: Option<UpgradeStatus>,
    /// The agent whose answer is awaited.
    agent: Option<Identity>,
    /// The old edge is on its way back already.
    edge_comes_back: bool,
}

impl Upgrade {
    fn stage(&self) -> Option<UpgradeStage> {
        self.status.as_ref().map(|status| status.stage)
    }
}

/// Either, or why not and the next step.
pub type Checked = Result<Inspected, (String, Option<String>)>;

type Reply = oneshot::Sender<FromSupervisor>;

fn refused(why: impl Into<String>, help: &str) -> FromSupervisor {
    FromSupervisor::Refused {
        why: why.into(),
        help: Some(help.to_owned()),
    }
}

async fn check(program: PathBuf, same: bool, running: Release) -> Checked {
    let offered = inspect(&program).await.map_err(|error| {
        let help = match error {
            InspectError::Start { .. } | InspectError::Strange { .. } => ELSEWHERE,
            InspectError::Late { .. } => "see what it does by hand: FILE version",
        };
        (error_chain(&error), Some(help.to_owned()))
    })?;
    Ok(Inspected {
        program,
        running,
        offered,
        same,
    })
}

/// As it was left, if it can be read.
pub fn read(layout: &Layout) -> Option<UpgradeStatus> {
    let text = std::fs::read(layout.upgrade()).ok()?;
    serde_json::from_slice(&text).ok()
}

fn write(layout: &Layout, status: &UpgradeStatus) -> io::Result<()> {
    replace(&layout.upgrade(), &serde_json::to_vec(status)?)
}

/// The new program could not take this process: what its supervisor leaves is the
/// old one's to mend.
pub fn not_become(layout: &Layout, why: &io::Error) {
    let Some(mut status) = read(layout) else {
        return;
    };
    status.stage = UpgradeStage::Back;
    let why = format!("{} cannot be started: {why}", status.program.display());
    status.why = Some(why);
    if let Err(error) = write(layout, &status) {
        tracing::error!(%error, "the upgrade's end is not on disk");
    }
}

impl Supervisor {
    pub(crate) fn program(&self, child: Child) -> &Program {
        use UpgradeStage::{Agent, Supervisor};
        let Some(upgrade) = &self.upgrade else {
            return &self.program;
        };
        // The edge went first; one that is back in its place is the old one's.
        match (child, upgrade.stage()) {
            (Child::Edge | Child::Agent, Some(Agent | Supervisor)) => &upgrade.program,
            _ => &self.program,
        }
    }

    /// The path itself, or the one the node was started from.
    fn asked_for(&self, program: Option<PathBuf>) -> PathBuf {
        program.unwrap_or_else(|| self.program.path().to_owned())
    }

    pub(crate) fn inspect(&self, program: Option<PathBuf>, reply: Reply) {
        let program = self.asked_for(program);
        let same = self.program.is_at(&program);
        let checking = check(program, same, self.options.release.clone());
        tokio::spawn(async move {
            let answer = match checking.await {
                Ok(inspected) => FromSupervisor::Inspected(inspected),
                Err((why, help)) => FromSupervisor::Refused { why, help },
            };
            let _ = reply.send(answer);
        });
    }

    pub(crate) fn begin_upgrade(&mut self, program: Option<PathBuf>, reply: Reply) {
        let wait = "see how it goes: homeostat upgrade --plan; then ask again";
        if self.upgrade.is_some() {
            let _ = reply.send(refused("an upgrade is under way already", wait));
            return;
        }
        if self.edge.has_successor() {
            let _ = reply.send(refused("a new edge is being started already", wait));
            return;
        }
        let program = self.asked_for(program);
        let same = self.program.is_at(&program);
        self.upgrade = Some(Upgrade {
            program: Program::hold(&program),
            status: None,
            agent: None,
            edge_comes_back: false,
        });
        let checking = check(program, same, self.options.release.clone());
        let events = self.events.clone();
        tokio::spawn(async move {
            let _ = events.send(Event::Checked(checking.await, reply)).await;
        });
    }

    pub(crate) fn checked(&mut self, checked: Checked, reply: Reply) {
        let outcome = checked.and_then(|inspected| self.go(&inspected));
        let answer = match outcome {
            Ok(()) => FromSupervisor::Done,
            Err((why, help)) => {
                self.upgrade = None;
                FromSupervisor::Refused { why, help }
            }
        };
        let _ = reply.send(answer);
    }

    fn go(&mut self, inspected: &Inspected) -> Result<(), (String, Option<String>)> {
        let with = |why: String, help: &str| (why, Some(help.to_owned()));
        if inspected.same {
            return Err(with(
                "the node runs that file already".to_owned(),
                ELSEWHERE,
            ));
        }
        let fits = inspected.offered.can_follow(&inspected.running);
        fits.map_err(|unfit| with(unfit.to_string(), "upgrade by a version between the two"))?;
        let status = UpgradeStatus {
            program: inspected.program.clone(),
            from: inspected.running.version.clone(),
            to: inspected.offered.version.clone(),
            stage: UpgradeStage::Edge,
            why: None,
        };
        write(&self.layout, &status).map_err(|error| {
            let path = self.layout.upgrade();
            let why = format!("cannot write {}: {error}", path.display());
            with(why, "homeostat doctor")
        })?;
        if let Some(upgrade) = &mut self.upgrade {
            tracing::info!(program = %status.program.display(), to = status.to, "upgrading");
            upgrade.status = Some(status.clone());
        }
        self.status.send_modify(|all| all.upgrade = Some(status));
        self.exchange_edge();
        Ok(())
    }

    /// A successor of the program of this stage; its coming up is an event.
    fn exchange_edge(&mut self) {
        let Some(upgrade) = &self.upgrade else { return };
        let command = match upgrade.stage() {
            Some(UpgradeStage::Edge) => upgrade.program.command(),
            _ => self.program.command(),
        };
        let (reply, replied) = oneshot::channel();
        self.restart_edge(command, reply);
        let events = self.events.clone();
        tokio::spawn(async move {
            let failed = match replied.await {
                Ok(FromSupervisor::Failed { why }) => Some(why),
                _ => None,
            };
            let _ = events.send(Event::EdgeExchanged(failed)).await;
        });
    }

    pub(crate) fn edge_exchanged(&mut self, failed: Option<String>) {
        let Some(stage) = self.upgrade.as_ref().and_then(Upgrade::stage) else {
            return;
        };
        match (stage, failed) {
            (UpgradeStage::Edge, None) => {
                self.enter(UpgradeStage::Agent, None);
                self.exchange_agent();
            }
            // The old one serves on.
            (UpgradeStage::Edge, Some(why)) => self.end_upgrade(UpgradeStage::Failed, Some(why)),
            (UpgradeStage::Back, failed) => {
                let so = self.why();
                let why = match failed {
                    None => so,
                    Some(why) => format!("{so}; the edge stays the new one: {why}"),
                };
                self.end_upgrade(UpgradeStage::Failed, Some(why));
            }
            _ => {}
        }
    }

    /// Ends the current agent; the next one is of the program of this stage.
    fn exchange_agent(&mut self) {
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.agent = None;
        }
        self.agent.end_for_restart(oneshot::channel().0);
        if !self.agent.is_filled() {
            self.start(Child::Agent);
        }
    }

    /// While an upgrade awaits an agent.
    pub(crate) fn agent_started(&mut self, identity: Identity) {
        let Some(upgrade) = &mut self.upgrade else {
            return;
        };
        match upgrade.stage() {
            Some(UpgradeStage::Agent) => {}
            Some(UpgradeStage::Back) if !upgrade.edge_comes_back => {}
            _ => return,
        }
        upgrade.agent = Some(identity);
        let (layout, events) = (self.layout.clone(), self.events.clone());
        tokio::spawn(async move {
            let answers = children::agent_answers(&layout, identity).await;
            let _ = events.send(Event::AgentAnswers(identity, answers)).await;
        });
    }

    pub(crate) fn agent_answers(&mut self, identity: Identity, answers: bool) {
        let Some(upgrade) = &mut self.upgrade else {
            return;
        };
        if upgrade.agent != Some(identity) {
            return;
        }
        upgrade.agent = None;
        match (upgrade.stage(), answers) {
            (Some(UpgradeStage::Agent), true) => self.enter(UpgradeStage::Supervisor, None),
            (Some(UpgradeStage::Agent), false) => {
                self.go_back("the new agent did not answer in time: see its log");
                self.exchange_agent();
            }
            // Whatever the old agent does, it does as before the upgrade.
            (Some(UpgradeStage::Back), _) => self.edge_comes_back(),
            _ => {}
        }
    }

    /// The new agent ended by itself, or could not be started.
    pub(crate) fn agent_ended(&mut self, identity: Option<Identity>) {
        let Some(upgrade) = &self.upgrade else { return };
        let awaited = identity.is_none_or(|identity| upgrade.agent == Some(identity));
        match upgrade.stage() {
            Some(UpgradeStage::Agent) if awaited => {
                self.go_back("the new agent ended at once: see its log");
            }
            Some(UpgradeStage::Back) if awaited && identity.is_some() => self.edge_comes_back(),
            _ => {}
        }
    }

    fn edge_comes_back(&mut self) {
        let Some(upgrade) = &mut self.upgrade else {
            return;
        };
        upgrade.agent = None;
        if !std::mem::replace(&mut upgrade.edge_comes_back, true) {
            self.exchange_edge();
        }
    }

    fn go_back(&mut self, why: &str) {
        tracing::error!(why, "back to the old program");
        self.enter(UpgradeStage::Back, Some(why.to_owned()));
    }

    fn why(&self) -> String {
        let status = self.upgrade.as_ref().and_then(|it| it.status.as_ref());
        status.and_then(|it| it.why.clone()).unwrap_or_default()
    }

    fn enter(&mut self, stage: UpgradeStage, why: Option<String>) {
        let Some(status) = self.upgrade.as_mut().and_then(|it| it.status.as_mut()) else {
            return;
        };
        tracing::info!(?stage, "upgrade");
        status.stage = stage;
        status.why = why;
        let status = status.clone();
        self.tell_upgrade(status);
    }

    fn end_upgrade(&mut self, stage: UpgradeStage, why: Option<String>) {
        if let Some(why) = &why {
            tracing::error!(why, "the upgrade failed");
        }
        self.enter(stage, why);
        self.upgrade = None;
    }

    fn tell_upgrade(&self, status: UpgradeStatus) {
        // What is not on disk, a successor does anew.
        if let Err(error) = write(&self.layout, &status) {
            tracing::error!(%error, "the upgrade's stage is not on disk");
        }
        self.status.send_modify(|all| all.upgrade = Some(status));
    }

    /// The new program, once edge and agent are of it.
    pub(crate) fn becomes(&self) -> Option<&Path> {
        let upgrade = self.upgrade.as_ref()?;
        (upgrade.stage() == Some(UpgradeStage::Supervisor)).then(|| upgrade.program.path())
    }

    /// What the one before left: told, or where it was killed in the middle, mended
    /// by bringing both children to this program.
    pub(crate) fn take_upgrade_over(&mut self) {
        let Some(mut status) = read(&self.layout) else {
            return;
        };
        let succession = self.options.succession.take();
        if let Some(succession) = &succession {
            for identity in &succession.leaving {
                self.edge.see_off(*identity, &self.events);
            }
        }
        if !status.stage.is_over() {
            if succession.is_some() {
                status.stage = UpgradeStage::Done;
            } else {
                let version = &self.options.release.version;
                let so = status.why.take().map(|why| format!(": {why}"));
                let so = so.unwrap_or_default();
                status.stage = UpgradeStage::Failed;
                status.why = Some(format!(
                    "the supervisor ended in the middle{so}; the node goes on with {version}"
                ));
                tracing::warn!("an upgrade was broken off: edge and agent are started anew");
                self.restart_edge(self.program.command(), oneshot::channel().0);
                self.agent.end_for_restart(oneshot::channel().0);
            }
        }
        self.tell_upgrade(status);
    }
}
