//! Scripts: what befalls a cluster and what must hold, as text that lab and
//! simulator both read.
//!
//! In: lines. Out: a [`Script`]. Holds: every node, zone and service that a
//! step names is there. Never: says how a step is carried out.
//!
//! ```text
//! # A node loses its power.
//! nodes 6 in /eu/1..2 /us/1          n1 in /eu/1, n2 in /eu/2, …; n1 begins the cluster
//! memory 4GiB n1..n3                the others have enough for anything
//! service search replicas 3         of a project `script`; may go on with
//!                                   `in shop`, `on n2`, `needs 512MiB`, `calls other`,
//!                                   `actor`, `singleton`
//! distance /eu/1 /us/1 40ms         one way; 20ms between others, 0.5ms within
//! at 0s start all
//! at 5s apply                       the leader places all services, as an agent does
//! at 10s poweroff n4
//! at 10s within 4s dead n4
//! at 20s kill n2                    its agent; replicas go on, it is back in a moment
//! at 20s drain n3                   and `undrain n3`
//! at 25s pause n2 for 8s            its processors do nothing, and then go on
//! at 30s change search replicas 5   applies it so; `change search anew` starts it anew
//! at 40s within 60s as-wished
//! always nobody-well-is-dead
//! end 60s
//! ```

mod parse;
#[cfg(test)]
mod tests;
mod write;

use kernel::{Bytes, Name, ZonePath};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

pub use parse::ScriptError;

/// By name; the same run in lab and simulator, as far as a lab can.
pub const SCRIPTS: [(&str, &str); 19] = [
    ("join", include_str!("../../scripts/join.script")),
    ("power-cut", include_str!("../../scripts/power-cut.script")),
    (
        "restart-with-memory",
        include_str!("../../scripts/restart-with-memory.script"),
    ),
    (
        "restart-without-memory",
        include_str!("../../scripts/restart-without-memory.script"),
    ),
    (
        "one-way-cut",
        include_str!("../../scripts/one-way-cut.script"),
    ),
    ("zone-cut", include_str!("../../scripts/zone-cut.script")),
    (
        "thousand-joins",
        include_str!("../../scripts/thousand-joins.script"),
    ),
    (
        "ten-thousand",
        include_str!("../../scripts/ten-thousand.script"),
    ),
    ("clock-off", include_str!("../../scripts/clock-off.script")),
    (
        "two-with-one-key",
        include_str!("../../scripts/two-with-one-key.script"),
    ),
    (
        "slow-and-lossy",
        include_str!("../../scripts/slow-and-lossy.script"),
    ),
    (
        "clean-leave",
        include_str!("../../scripts/clean-leave.script"),
    ),
    ("crash", include_str!("../../scripts/crash.script")),
    ("revoked", include_str!("../../scripts/revoked.script")),
    (
        "holder-off",
        include_str!("../../scripts/holder-off.script"),
    ),
    (
        "died-unseen",
        include_str!("../../scripts/died-unseen.script"),
    ),
    (
        "drain-undone",
        include_str!("../../scripts/drain-undone.script"),
    ),
    (
        "coming-up-with-more",
        include_str!("../../scripts/coming-up-with-more.script"),
    ),
    (
        "leader-killed",
        include_str!("../../scripts/leader-killed.script"),
    ),
];

/// One of [`SCRIPTS`].
pub fn built_in(name: &str) -> Option<Result<Script, ScriptError>> {
    let (_, text) = SCRIPTS.iter().find(|(known, _)| *known == name)?;
    Some(Script::parse(name, text))
}

#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    pub name: String,
    /// In order: `n1` first, which begins the cluster.
    pub nodes: Vec<ScriptNode>,
    pub services: Vec<ScriptService>,
    /// One way, between zones.
    pub distances: Vec<(ZonePath, ZonePath, Duration)>,
    /// In order of time.
    pub steps: Vec<Step>,
    pub expectations: Vec<Expectation>,
    pub always: Vec<Invariant>,
    pub end: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ScriptNode {
    pub name: Name,
    pub zone: ZonePath,
    /// None: enough for anything.
    pub memory: Option<Bytes>,
}

/// Its replicas run where `crate::placing` places them.
#[derive(Clone, Debug, PartialEq)]
pub struct ScriptService {
    pub project: Name,
    /// No two of a script's have the same, whatever their projects.
    pub name: Name,
    pub replicas: u32,
    pub is_actor: bool,
    pub is_singleton: bool,
    /// The only node that it may run on.
    pub node: Option<usize>,
    /// Of each replica.
    pub memory: Bytes,
    /// Of the same project.
    pub calls: BTreeSet<Name>,
    /// Another one starts it anew.
    pub version: u32,
}

impl ScriptService {
    /// Of the script's own project, and anywhere.
    pub fn new(name: Name, replicas: u32) -> Self {
        Self {
            project: own_project(),
            name,
            replicas,
            is_actor: false,
            is_singleton: false,
            node: None,
            memory: MEMORY,
            calls: BTreeSet::new(),
            version: 1,
        }
    }
}

const MEMORY: Bytes = Bytes::mebibytes(64);

/// Indices into [`Script::nodes`].
pub type Nodes = Vec<usize>;

#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub at: Duration,
    pub action: Action,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A node's first start also enters it into the node table.
    Start {
        nodes: Nodes,
        /// One after the other, evenly over this span.
        over: Duration,
        memory: Memory,
        /// Of its wall clock; negative when behind.
        clock_off_s: i64,
    },
    /// Everything on the machine ends at once.
    PowerOff(Nodes),
    Leave(Nodes),
    /// No packet from the first to the second, and back if `both`.
    Cut {
        from: Nodes,
        to: Nodes,
        both: bool,
    },
    /// Cuts, losses and slowness end.
    Heal,
    Slow {
        nodes: Nodes,
        by: Duration,
    },
    /// Of all packets, 0 to 1.
    Loss(f64),
    /// A second machine starts with a copy of this one's disk.
    Clone(usize),
    /// Its row in the node table says so.
    Revoke(usize),
    /// The script's services become desired state.
    Apply,
    /// Of [`Script::services`], by its name.
    Change {
        service: Name,
        change: Change,
    },
    /// One replica of each service on it crashes.
    Crash(Nodes),
    /// Its agent ends; it is started again, and finds what runs.
    Kill(Nodes),
    /// Nothing on these machines goes on for so long, and then all does.
    Pause {
        nodes: Nodes,
        span: Duration,
    },
    /// Its row in the node table says so.
    Drain {
        node: usize,
        draining: bool,
    },
}

/// Of a service, which becomes desired state with its project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Replicas(u32),
    Anew,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    Kept,
    /// Of all that it had on disk it has only who it is: its key and
    /// certificate. A machine without these joins as another node.
    Lost,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    pub at: Duration,
    pub within: Duration,
    pub what: Expected,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// All that run and belong see these so.
    Alive(Nodes),
    Dead(Nodes),
    Left(Nodes),
    /// All others that run know, and speak to it no more.
    Revoked(usize),
    /// The two sides do not see each other.
    Apart(Nodes, Nodes),
    /// All that run see the same of all.
    Agree,
    /// A clone was named, and one of the two is silent.
    Cloned(usize),
    /// As many replicas as wanted are ready, each on its node.
    Ready(Name),
    /// What runs is what is wished, up to which node runs what: as many replicas
    /// of each service as were asked for, of the generation that is wished, each
    /// where it is placed and none beside; and none on a node that is off, was
    /// revoked or is being emptied, unless it cannot move.
    AsWished,
}

/// As the script has it; many nodes by their count.
impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = |nodes: &[usize]| match nodes {
            [node] => format!("n{}", node + 1),
            some => format!("{} nodes", some.len()),
        };
        match self {
            Self::Alive(some) => write!(f, "{} alive", nodes(some)),
            Self::Dead(some) => write!(f, "{} dead", nodes(some)),
            Self::Left(some) => write!(f, "{} left", nodes(some)),
            Self::Revoked(node) => write!(f, "n{} revoked", node + 1),
            Self::Apart(some, others) => write!(f, "{} and {} apart", nodes(some), nodes(others)),
            Self::Agree => write!(f, "views agree"),
            Self::Cloned(node) => write!(f, "n{} cloned", node + 1),
            Self::Ready(service) => write!(f, "{service} ready"),
            Self::AsWished => write!(f, "as wished"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// Who belongs is in every view, whatever its silence.
    SilenceRemovesNobody,
    /// Once dead, a life is never alive again; only a later one is.
    DeadLivesStayDead,
    /// Nobody that runs and is reached by all is called dead.
    NobodyWellIsDead,
    /// Nobody that runs and can be reached is dead to another for over 10 s.
    NobodyAliveIsDeadForLong,
    EachReplicaRunsOnOneNode,
    StrangersAreNotSpokenTo,
    /// What is placed on a node fits into it.
    PlacesHaveRoom,
    /// What can move is not for long on a node that was revoked or is being
    /// emptied, while most nodes are there.
    EmptiedNodesAreLeft,
    /// One leader has no more replicas moved within a window than it may.
    MovesAreFew,
    /// No two of one singleton run at once, in true time, wherever agents are.
    SingletonsRunOnce,
}

impl Invariant {
    pub const ALL: [(&str, Self); 10] = [
        ("silence-removes-nobody", Self::SilenceRemovesNobody),
        ("dead-lives-stay-dead", Self::DeadLivesStayDead),
        ("nobody-well-is-dead", Self::NobodyWellIsDead),
        (
            "nobody-alive-is-dead-for-long",
            Self::NobodyAliveIsDeadForLong,
        ),
        (
            "each-replica-runs-on-one-node",
            Self::EachReplicaRunsOnOneNode,
        ),
        ("strangers-are-not-spoken-to", Self::StrangersAreNotSpokenTo),
        ("places-have-room", Self::PlacesHaveRoom),
        ("emptied-nodes-are-left", Self::EmptiedNodesAreLeft),
        ("moves-are-few", Self::MovesAreFew),
        ("singletons-run-once", Self::SingletonsRunOnce),
    ];

    pub fn name(self) -> &'static str {
        let mut all = Self::ALL.iter();
        all.find(|(_, one)| *one == self)
            .map_or("", |(name, _)| name)
    }
}

/// The project that a script's services are in, where they name none.
pub const PROJECT: &str = "script";

fn own_project() -> Name {
    Name::new(PROJECT).unwrap_or_else(|_| unreachable!("it is a name"))
}

impl Script {
    pub fn parse(name: &str, text: &str) -> Result<Self, ScriptError> {
        parse::script(name, text)
    }

    /// What a person would write for the services of [`PROJECT`].
    ///
    /// * `program`: what each replica runs; relative to the manifest's directory
    ///   where it has a `/` in it.
    pub fn manifest(&self, program: &str) -> String {
        self.manifest_of(&own_project(), &self.services, program)
    }

    /// The same for all projects, of what became of the script's services.
    pub fn manifests(&self, services: &[ScriptService], program: &str) -> BTreeMap<Name, String> {
        let projects: BTreeSet<&Name> = services.iter().map(|one| &one.project).collect();
        let manifest = |name: &Name| (name.clone(), self.manifest_of(name, services, program));
        projects.into_iter().map(manifest).collect()
    }

    fn manifest_of(&self, project: &Name, services: &[ScriptService], program: &str) -> String {
        let mut text = format!("[project]\nname = \"{project}\"\n");
        for service in services.iter().filter(|one| one.project == *project) {
            let _ = self.write_service(service, program, &mut text);
        }
        text
    }

    fn write_service(
        &self,
        service: &ScriptService,
        program: &str,
        to: &mut String,
    ) -> fmt::Result {
        let name = &service.name;
        writeln!(to, "[service.{name}]")?;
        if service.is_actor {
            writeln!(to, "run = {{ actor = \"{program}.wasm\" }}")?;
        } else {
            writeln!(to, "run = {{ process = [\"{program}\"] }}")?;
            writeln!(to, "replicas = {}", service.replicas)?;
        }
        if service.is_singleton {
            writeln!(to, "singleton = true")?;
        }
        if let Some(node) = service.node.and_then(|at| self.nodes.get(at)) {
            writeln!(to, "node = \"{}\"", node.name)?;
        }
        if service.version > 1 {
            writeln!(to, "environment = {{ VERSION = \"{}\" }}", service.version)?;
        }
        let bindings = service.calls.iter();
        let bindings = bindings.map(|called| {
            let variable = called.as_str().to_uppercase().replace('-', "_");
            format!("{called} = {{ to = \"service/{called}\", environment = \"{variable}_URL\" }}")
        });
        let bindings: Vec<String> = bindings.collect();
        if !bindings.is_empty() {
            writeln!(to, "bindings = {{ {} }}", bindings.join(", "))?;
        }
        writeln!(to, "routes = [{{ path = \"/{name}\" }}]")?;
        let mebibytes = service.memory.0 >> 20;
        writeln!(to, "limits = {{ memory = \"{mebibytes} MiB\" }}")?;
        writeln!(to, "deadline = \"5s\"\nstop_grace = \"5s\"")
    }
}
