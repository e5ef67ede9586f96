//! Scripts: what befalls a cluster and what must hold, as text that lab and
//! simulator both read.
//!
//! In: lines. Out: a [`Script`]. Holds: every node, zone and service that a
//! step names is there. Never: says how a step is carried out.
//!
//! ```text
//! # A node loses its power.
//! nodes 6 in /eu/1..2 /us/1          n1 in /eu/1, n2 in /eu/2, …; n1 has the store
//! service search replicas 3         of a project `script`
//! distance /eu/1 /us/1 40ms         one way; 20ms between others, 0.5ms within
//! at 0s start all
//! at 5s apply                       n1 deals all services out, as an agent does
//! at 10s poweroff n4
//! at 10s within 4s dead n4
//! always nobody-well-is-dead
//! end 60s
//! ```

mod parse;
#[cfg(test)]
mod tests;

use kernel::{Name, ZonePath};
use std::fmt;
use std::time::Duration;

pub use parse::ScriptError;

/// By name; the same run in lab and simulator.
pub const SCRIPTS: [(&str, &str); 15] = [
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
];

/// One of [`SCRIPTS`].
pub fn built_in(name: &str) -> Option<Result<Script, ScriptError>> {
    let (_, text) = SCRIPTS.iter().find(|(known, _)| *known == name)?;
    Some(Script::parse(name, text))
}

#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    pub name: String,
    /// In order: `n1` first, which has the store.
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
}

/// Its replicas run where [`crate::deal`] places them.
#[derive(Clone, Debug, PartialEq)]
pub struct ScriptService {
    pub name: Name,
    pub replicas: u32,
}

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
    /// The script's services become desired state, by the first node.
    Apply,
    /// One replica of each service on it crashes.
    Crash(Nodes),
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
}

impl Invariant {
    pub const ALL: [(&str, Self); 6] = [
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
    ];

    pub fn name(self) -> &'static str {
        let mut all = Self::ALL.iter();
        all.find(|(_, one)| *one == self)
            .map_or("", |(name, _)| name)
    }
}

/// The project that a script's services are in.
pub const PROJECT: &str = "script";

impl Script {
    pub fn parse(name: &str, text: &str) -> Result<Self, ScriptError> {
        parse::script(name, text)
    }

    /// What a person would write for the script's services.
    ///
    /// * `program`: what each replica runs; relative to the manifest's directory
    ///   where it has a `/` in it.
    pub fn manifest(&self, program: &str) -> String {
        let services = self.services.iter().map(|service| {
            let ScriptService { name, replicas } = service;
            format!(
                "[service.{name}]\n\
                 run = {{ process = [\"{program}\"] }}\n\
                 replicas = {replicas}\n\
                 routes = [{{ path = \"/{name}\" }}]\n\
                 limits = {{ memory = \"64 MiB\" }}\n\
                 deadline = \"5s\"\n\
                 stop_grace = \"5s\"\n"
            )
        });
        let services: String = services.collect();
        format!("[project]\nname = \"{PROJECT}\"\n{services}")
    }
}
