//! What a lab is to be like, and the plan that follows from it.
//!
//! In: options given in code, or a file that a person wrote. Out: a
//! [`LabPlan`] with every name and address.
//! Holds: names and addresses follow from the lab's number alone, so that what
//! it left behind is found without it.

use crate::LabError;
use crate::directory::node_directory;
use kernel::{Bytes, Name, ZonePath, duration_text};
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use wire::lab::{LAB_VERSION, LabClient, LabKind, LabNode, LabPlan};

/// Last octets 1 to 200 are nodes', the ones from 241 clients'.
pub const NODES_MAX: usize = 200;
pub const ZONES_MAX: usize = 14;
const FIRST_CLIENT: u8 = 241;
/// The range that RFC 2544 sets aside for laboratories: nobody's own network.
const INSIDE: (u8, u8) = (198, 18);
/// Of the loopback range.
const LOOPBACK: (u8, u8) = (127, 18);

const WITHIN_MS: f64 = 0.5;
/// As between cloud regions of three continents.
const DEFAULT_ZONES: [&str; 3] = ["/eu/1", "/us/1", "/ap/1"];
const DEFAULT_MS: [[f64; 3]; 3] = [
    [WITHIN_MS, 90.0, 200.0],
    [90.0, WITHIN_MS, 160.0],
    [200.0, 160.0, WITHIN_MS],
];

#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// They are spread over the zones in turn.
    pub nodes: usize,
    pub zones: Vec<ZonePath>,
    /// Shape `[zone][zone]`; the diagonal is within a zone.
    pub round_trip_ms: Vec<Vec<f64>>,
    pub jitter_ms: f64,
    pub loss: f64,
    /// Of each node, each way.
    pub rate_bits_per_s: Option<u64>,
    /// Of each node's file system.
    pub disk: Bytes,
    /// Of all of a node's processes.
    pub memory: Option<Bytes>,
    pub cpu: Option<f64>,
    /// `homeostat`, or another program that knows `lab-keeper` and `lab-enter`.
    pub program: PathBuf,
    /// The lab goes with this process, however that ends.
    pub bound: bool,
    /// None: namespaces where this user may make them.
    pub kind: Option<LabKind>,
}

impl Options {
    /// Three nodes in three zones, for a lab that is there until it is ended.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let zones = DEFAULT_ZONES.iter().filter_map(|zone| zone.parse().ok());
        Self {
            nodes: DEFAULT_ZONES.len(),
            zones: zones.collect(),
            round_trip_ms: DEFAULT_MS.iter().map(|row| row.to_vec()).collect(),
            jitter_ms: 0.0,
            loss: 0.0,
            rate_bits_per_s: None,
            disk: Bytes::mebibytes(1_024),
            memory: None,
            cpu: None,
            program: program.into(),
            bound: false,
            kind: None,
        }
    }

    /// What a person wrote; see `docs/lab.md`.
    pub fn read(mut self, text: &str) -> Result<Self, LabError> {
        let raw: Raw = toml::from_str(text).map_err(|error| LabError::Options {
            why: error.to_string(),
        })?;
        self.nodes = raw.nodes.unwrap_or(self.nodes);
        self.jitter_ms = raw.jitter.map_or(self.jitter_ms, Span::millis);
        self.loss = raw.loss.unwrap_or(self.loss);
        self.rate_bits_per_s = raw.rate_mbit.map(|mbit| mbit.saturating_mul(1_000_000));
        self.memory = raw.memory.as_deref().map(size).transpose()?;
        self.disk = raw.disk.as_deref().map_or(Ok(self.disk), size)?;
        self.cpu = raw.cpu;
        if let Some(zones) = raw.zones {
            self.round_trip_ms = default_distances(zones.len());
            self.zones = zones;
        }
        if let Some(file) = raw.recorded {
            let text = std::fs::read_to_string(&file)
                .map_err(|source| LabError::io(format!("read {}", file.display()), source))?;
            self.round_trip_ms = recorded(&text, self.zones.len())?;
        }
        if let Some(within) = raw.within {
            for (at, row) in self.round_trip_ms.iter_mut().enumerate() {
                row[at] = within.millis();
            }
        }
        for (one, other, span) in raw.round_trips {
            let find = |zone: &ZonePath| {
                let at = self.zones.iter().position(|known| known == zone);
                at.ok_or_else(|| LabError::Options {
                    why: format!("`round_trips` names {zone}, which is not in `zones`"),
                })
            };
            let (i, j) = (find(&one)?, find(&other)?);
            self.round_trip_ms[i][j] = span.millis();
            self.round_trip_ms[j][i] = span.millis();
        }
        Ok(self)
    }

    pub(crate) fn check(&self) -> Result<(), LabError> {
        let wrong = |why: &str| {
            Err(LabError::Options {
                why: why.to_owned(),
            })
        };
        let spans = self.round_trip_ms.iter().flatten().chain([&self.jitter_ms]);
        if self.nodes == 0 || self.nodes > NODES_MAX {
            wrong("a lab has 1 to 200 nodes")
        } else if self.zones.is_empty() || self.zones.len() > ZONES_MAX {
            wrong("a lab has 1 to 14 zones")
        } else if !spans.clone().all(|ms| (0.0..60_000.0).contains(ms)) {
            wrong("a distance is 0 s to 60 s")
        } else if !(0.0..=1.0).contains(&self.loss) {
            wrong("`loss` is a share from 0 to 1")
        } else if self.cpu.is_some_and(|cpu| cpu.is_nan() || cpu <= 0.0) {
            wrong("`cpu` is more than 0 cores")
        } else if self.disk < Bytes::mebibytes(16) {
            wrong("`disk` is at least 16 MiB")
        } else {
            Ok(())
        }
    }

    /// Every name and address of the lab with that number.
    pub fn plan(&self, id: u8, labs: &Path) -> LabPlan {
        let kind = self.kind.unwrap_or(LabKind::Namespaces);
        let (a, b) = match kind {
            LabKind::Namespaces => INSIDE,
            LabKind::Loopback => LOOPBACK,
        };
        let (http, https) = match kind {
            LabKind::Namespaces => (80, 443),
            LabKind::Loopback => (8080, 8443),
        };
        let node = |number: usize| {
            let last = u8::try_from(number + 1).unwrap_or(u8::MAX);
            let address = IpAddr::V4(Ipv4Addr::new(a, b, id, last));
            let name = Name::new(format!("n{}", number + 1)).ok()?;
            Some(LabNode {
                zone: self.zones.get(number % self.zones.len().max(1))?.clone(),
                address,
                http: (address, http).into(),
                https: (address, https).into(),
                data: node_directory(labs, id, &name).join("d"),
                name,
            })
        };
        let clients = self.zones.iter().zip(FIRST_CLIENT..);
        LabPlan {
            version: LAB_VERSION,
            id,
            kind,
            zones: self.zones.clone(),
            round_trip_ms: self.round_trip_ms.clone(),
            jitter_ms: self.jitter_ms,
            loss: self.loss,
            rate_bits_per_s: self.rate_bits_per_s,
            nodes: (0..self.nodes).filter_map(node).collect(),
            clients: clients
                .filter(|_| kind == LabKind::Namespaces)
                .map(|(zone, last)| LabClient {
                    zone: zone.clone(),
                    address: IpAddr::V4(Ipv4Addr::new(a, b, id, last)),
                })
                .collect(),
            disk: self.disk,
            memory: self.memory,
            cpu: self.cpu,
            program: self.program.clone(),
            owner: self.bound.then(std::process::id),
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(transparent)]
struct Span(#[serde(with = "duration_text")] Duration);

impl Span {
    fn millis(self) -> f64 {
        self.0.as_secs_f64() * 1e3
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    nodes: Option<usize>,
    zones: Option<Vec<ZonePath>>,
    within: Option<Span>,
    #[serde(default)]
    round_trips: Vec<(ZonePath, ZonePath, Span)>,
    recorded: Option<PathBuf>,
    jitter: Option<Span>,
    loss: Option<f64>,
    rate_mbit: Option<u64>,
    disk: Option<String>,
    memory: Option<String>,
    cpu: Option<f64>,
}

fn size(text: &str) -> Result<Bytes, LabError> {
    text.parse()
        .map_err(|error: kernel::BytesError| LabError::Options {
            why: error.to_string(),
        })
}

/// The default ones where they suffice, else as far as the first two zones.
fn default_distances(zones: usize) -> Vec<Vec<f64>> {
    let one = |i: usize, j: usize| {
        let known = DEFAULT_MS.get(i).and_then(|row| row.get(j)).copied();
        known.unwrap_or(if i == j { WITHIN_MS } else { DEFAULT_MS[0][1] })
    };
    (0..zones)
        .map(|i| (0..zones).map(|j| one(i, j)).collect())
        .collect()
}

/// Distances of hosts that lie evenly in a recorded matrix: rows of round trips
/// in milliseconds, separated by white space.
fn recorded(text: &str, zones: usize) -> Result<Vec<Vec<f64>>, LabError> {
    let wrong = || LabError::Options {
        why: "`recorded` is not a square matrix of milliseconds, one row a line".to_owned(),
    };
    let rows: Option<Vec<Vec<f64>>> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.split_whitespace().map(|n| n.parse().ok()).collect())
        .collect();
    let rows = rows.filter(|rows| rows.len() >= zones).ok_or_else(wrong)?;
    let chosen: Vec<usize> = (0..zones).map(|zone| zone * rows.len() / zones).collect();
    let one = |i: usize, j: usize| {
        if i == j {
            return Ok(WITHIN_MS);
        }
        let (there, back) = (chosen[i].min(chosen[j]), chosen[i].max(chosen[j]));
        let found = rows.get(there).and_then(|row| row.get(back)).copied();
        found.ok_or_else(wrong)
    };
    (0..zones)
        .map(|i| (0..zones).map(|j| one(i, j)).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_follows_from_the_number() {
        let mut options = Options::new("/bin/homeostat");
        options.nodes = 6;
        let plan = options.plan(7, "/var/lib/labs".as_ref());
        let n5 = &plan.nodes[4];
        assert_eq!(n5.name.as_str(), "n5");
        assert_eq!(n5.zone.to_string(), "/us/1");
        assert_eq!(n5.http.to_string(), "198.18.7.5:80");
        assert_eq!(n5.data, Path::new("/var/lib/labs/7/n5/d"));
        assert_eq!(plan.clients[2].address.to_string(), "198.18.7.243");
        let text = serde_json::to_string(&plan).expect("writes");
        assert_eq!(LabPlan::read(&text).expect("reads"), plan);

        options.kind = Some(LabKind::Loopback);
        let plan = options.plan(7, "/x".as_ref());
        assert_eq!(plan.nodes[0].http.to_string(), "127.18.7.1:8080");
        assert_eq!(plan.clients, []);
    }

    #[test]
    fn options_as_people_write_them() {
        let text = r#"
nodes = 4
zones = ["/a", "/b"]
within = "1ms"
round_trips = [["/a", "/b", "40ms"]]
jitter = "2ms"
loss = 0.01
rate_mbit = 100
disk = "64 MiB"
memory = "256 MiB"
cpu = 0.5
"#;
        let read = Options::new("/x").read(text).expect("options");
        assert_eq!(read.round_trip_ms, [[1.0, 40.0], [40.0, 1.0]]);
        assert_eq!(read.rate_bits_per_s, Some(100_000_000));
        assert!(read.check().is_ok());
        for wrong in [
            "nodes = 'six'",
            "speed = 3",
            "round_trips = [['/eu/1', '/mars', '3m']]",
            "disk = 'big'",
        ] {
            assert!(Options::new("/x").read(wrong).is_err(), "{wrong}");
        }
        let no_nodes = Options::new("/x").read("nodes = 0").expect("options");
        assert!(no_nodes.check().is_err());
    }

    #[test]
    fn recorded_distances_are_taken_from_hosts_far_apart() {
        let text = "0 1 2 3\n1 0 4 5\n2 4 0 6\n3 5 6 0\n";
        let found = recorded(text, 2).expect("distances");
        assert_eq!(found, [[WITHIN_MS, 2.0], [2.0, WITHIN_MS]]);
        assert!(recorded("0 1\n1 0\n", 3).is_err());
        assert!(recorded("0 far\n", 1).is_err());
    }

    #[test]
    fn distances_once_measured_can_be_read() {
        let Some(data) = std::env::var_os("HOMEOSTAT_DATA") else {
            let line = "skipped: HOMEOSTAT_DATA does not say where recorded round trips are";
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{line}\n"));
            return;
        };
        let file = Path::new(&data).join("PlanetLabData_1");
        let text = format!(
            "zones = ['/a', '/b', '/c', '/d']\nrecorded = '{}'",
            file.display()
        );
        let read = Options::new("/x").read(&text).expect("options");
        assert!(read.check().is_ok(), "{:?}", read.round_trip_ms);
    }
}
