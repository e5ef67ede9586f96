//! A lab's formats: the plan of a cluster on one machine, the faults made in it,
//! what its keeper is told and tells, and the impairments that a transport reads
//! where no network can be made.
//!
//! Holds: every file names its version; a reader refuses another one.

use kernel::{Bytes, Name, ZonePath};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Of every file here.
pub const LAB_VERSION: u32 = 1;

/// The variable that tells a transport where its [`Impairments`] are.
pub const IMPAIRMENTS: &str = "HOMEOSTAT_IMPAIRMENTS";

/// What a transport does to what it sends. The file is replaced whole when
/// something changes: look at its time of change, at most 100 ms apart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Impairments {
    pub version: u32,
    pub links: Vec<Impairment>,
}

/// From one node's address to another's. A pair that is not listed is not impaired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Impairment {
    pub from: IpAddr,
    pub to: IpAddr,
    /// A datagram arrives so much later.
    pub one_way_ms: f64,
    /// And up to so much later still, in the order of sending.
    #[serde(default)]
    pub jitter_ms: f64,
    /// Share of datagrams that never arrive, 0 to 1.
    #[serde(default)]
    pub loss: f64,
    /// None arrives.
    #[serde(default)]
    pub cut: bool,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabFormatError {
    #[error("a lab's file cannot be read")]
    Json(#[from] serde_json::Error),
    #[error("a lab's file has version {found}, this program knows {LAB_VERSION}")]
    Version { found: u32 },
}

impl Impairments {
    pub fn read(text: &str) -> Result<Self, LabFormatError> {
        let read: Self = serde_json::from_str(text)?;
        known(read.version)?;
        Ok(read)
    }

    pub fn text(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// What concerns the transport at `own`: what it does to what it sends to
    /// each other address.
    pub fn of(&self, own: IpAddr) -> impl Iterator<Item = (IpAddr, &Impairment)> {
        let links = self.links.iter().filter(move |link| link.from == own);
        links.map(|link| (link.to, link))
    }
}

fn known(found: u32) -> Result<(), LabFormatError> {
    (found == LAB_VERSION)
        .then_some(())
        .ok_or(LabFormatError::Version { found })
}

/// How nodes are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabKind {
    /// A network namespace, control group and file system each.
    Namespaces,
    /// An address of the loopback range each; nothing more.
    Loopback,
}

/// All that a lab consists of: what is made can be found, and undone, from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabPlan {
    pub version: u32,
    pub id: u8,
    pub kind: LabKind,
    pub zones: Vec<ZonePath>,
    /// Shape `[zone][zone]`, symmetric; the diagonal is within a zone.
    pub round_trip_ms: Vec<Vec<f64>>,
    pub jitter_ms: f64,
    pub loss: f64,
    /// Of each node, each way.
    pub rate_bits_per_s: Option<u64>,
    pub nodes: Vec<LabNode>,
    /// Where this machine's own programs are, one address in each zone.
    pub clients: Vec<LabClient>,
    pub disk: Bytes,
    pub memory: Option<Bytes>,
    pub cpu: Option<f64>,
    /// Knows `lab-keeper` and `lab-enter`.
    pub program: PathBuf,
    /// The lab goes when this process has gone.
    pub owner: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabNode {
    pub name: Name,
    pub zone: ZonePath,
    pub address: IpAddr,
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub data: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabClient {
    pub zone: ZonePath,
    pub address: IpAddr,
}

impl LabPlan {
    pub fn read(text: &str) -> Result<Self, LabFormatError> {
        let plan: Self = serde_json::from_str(text)?;
        known(plan.version)?;
        Ok(plan)
    }

    pub fn node(&self, name: &Name) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == *name)
    }
}

/// A node, or a zone with all below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Zone(ZonePath),
    Node(Name),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a zone, such as `/eu/1`, nor a node, such as `n2`")]
pub struct PlaceError(pub String);

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let wrong = || PlaceError(text.to_owned());
        if text.starts_with('/') {
            text.parse().map(Self::Zone).map_err(|_| wrong())
        } else {
            Name::new(text).map(Self::Node).map_err(|_| wrong())
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zone(zone) => zone.fmt(f),
            Self::Node(node) => node.fmt(f),
        }
    }
}

impl Serialize for Place {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Between two places; without `to`, between one and all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Between {
    pub from: Place,
    pub to: Option<Place>,
    /// Only what goes from the one to the other.
    pub one_way: bool,
}

impl fmt::Display for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = if self.one_way { "→" } else { "↔" };
        match &self.to {
            Some(to) => write!(f, "{} {arrow} {to}", self.from),
            None => write!(f, "{} {arrow} all others", self.from),
        }
    }
}

/// A process of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    Agent,
    Edge,
    Supervisor,
    Worker,
    /// All replicas that are processes.
    Replica,
}

impl Part {
    pub fn word(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Edge => "edge",
            Self::Supervisor => "supervisor",
            Self::Worker => "worker",
            Self::Replica => "replica",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    Cut(Between),
    Slow {
        #[serde(flatten)]
        between: Between,
        /// Added to each way.
        by_ms: f64,
    },
    Loss {
        #[serde(flatten)]
        between: Between,
        /// 0 to 1.
        share: f64,
    },
    Rate {
        node: Name,
        bits_per_s: u64,
    },
    Cpu {
        node: Name,
        cores: f64,
    },
    /// Its disk takes so many writes a second.
    Disk {
        node: Name,
        writes_per_s: u32,
    },
    Kill {
        node: Name,
        part: Part,
    },
    Fill {
        node: Name,
        leave: Bytes,
    },
    PowerOff {
        node: Name,
    },
    /// All of its processes stand still.
    Pause {
        node: Name,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut(between) => write!(f, "cut {between}"),
            Self::Slow { between, by_ms } => write!(f, "slow {between} by {by_ms} ms"),
            Self::Loss { between, share } => write!(f, "loss {between} of {} %", share * 100.0),
            Self::Rate { node, bits_per_s } => write!(f, "rate {node} {bits_per_s} bit/s"),
            Self::Cpu { node, cores } => write!(f, "cpu {node} {cores} cores"),
            Self::Disk { node, writes_per_s } => write!(f, "disk {node} {writes_per_s} writes/s"),
            Self::Kill { node, part } => write!(f, "kill {node} {}", part.word()),
            Self::Fill { node, leave } => write!(f, "fill {node}, {leave} left"),
            Self::PowerOff { node } => write!(f, "poweroff {node}"),
            Self::Pause { node } => write!(f, "pause {node}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActiveFault {
    pub id: u64,
    pub fault: Fault,
    /// Until it is undone; none: only by command.
    pub left_ms: Option<u64>,
}

/// One line on the keeper's socket; one line answers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToKeeper {
    Status,
    Begin {
        fault: Fault,
        for_ms: Option<u64>,
    },
    /// All without a number.
    Undo {
        id: Option<u64>,
    },
    /// How a node is started again after a power-off.
    Restart {
        node: Name,
        command: Vec<String>,
    },
    /// The lab stays when its owner has gone.
    Keep,
    /// Everything ends and goes.
    Down,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromKeeper {
    Status(LabStatus),
    /// None: it is over already.
    Begun {
        id: Option<u64>,
    },
    Undone {
        count: u64,
    },
    Done,
    Failed {
        why: String,
        help: Option<String>,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LabStatus {
    pub pid: u32,
    pub faults: Vec<ActiveFault>,
    pub packets: PacketCounts,
}

/// Since the lab began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketCounts {
    pub delivered: u64,
    pub delivered_bytes: u64,
    pub cut: u64,
    pub lost: u64,
    /// A queue before a rate was full.
    pub overflown: u64,
    /// Not of this lab's addresses.
    pub foreign: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impairments_are_as_written_here() {
        let text = r#"{
  "version": 1,
  "links": [
    {
      "from": "127.18.1.1",
      "to": "127.18.1.2",
      "one_way_ms": 45.0,
      "jitter_ms": 1.0,
      "loss": 0.01,
      "cut": false
    }
  ]
}"#;
        let read = Impairments::read(text).expect("impairments");
        assert_eq!(read.text(), text);
        let own = "127.18.1.1".parse().expect("an address");
        assert_eq!(read.of(own).count(), 1);
        assert_eq!(read.of(read.links[0].to).count(), 0);
        let short = r#"{"version":1,"links":[{"from":"127.0.0.1","to":"::1","one_way_ms":0}]}"#;
        assert!(!Impairments::read(short).expect("impairments").links[0].cut);
        let next = r#"{"version":2,"links":[]}"#;
        let refused = Impairments::read(next).expect_err("another version");
        assert!(matches!(refused, LabFormatError::Version { found: 2 }));
    }

    #[test]
    fn faults_read_back_as_they_were_told() {
        let between = Between {
            from: "/eu/1".parse().expect("a zone"),
            to: Some("n2".parse().expect("a node")),
            one_way: true,
        };
        let node = Name::new("n2").expect("a name");
        for fault in [
            Fault::Cut(between.clone()),
            Fault::Slow {
                between: between.clone(),
                by_ms: 40.0,
            },
            Fault::Loss {
                between,
                share: 0.5,
            },
            Fault::Kill {
                node: node.clone(),
                part: Part::Edge,
            },
            Fault::Fill {
                node,
                leave: Bytes(0),
            },
        ] {
            let told = ToKeeper::Begin {
                fault,
                for_ms: Some(30_000),
            };
            let line = serde_json::to_string(&told).expect("a line");
            let read: ToKeeper = serde_json::from_str(&line).expect("reads");
            assert_eq!(read, told, "{line}");
        }
    }

    #[test]
    fn a_place_is_a_zone_or_a_node() {
        assert!(matches!("/eu/1".parse(), Ok(Place::Zone(_))));
        assert!(matches!("n1".parse(), Ok(Place::Node(_))));
        for wrong in ["", "N1", "/EU", "a b"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
