//! Words about other nodes.

use super::Role;
use clap::{Args, Subcommand};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone, Debug, Args)]
pub struct Others {
    /// Make this machine a node of the cluster whose `token create` printed this
    /// line; it is good once
    #[arg(
        long,
        value_name = "TOKEN",
        env = "HOMEOSTAT_JOIN",
        hide_env_values = true
    )]
    pub join: Option<String>,
    /// What a new node is called [default: the machine's name]
    #[arg(long, value_name = "NAME", env = "HOMEOSTAT_NAME")]
    pub name: Option<String>,
    /// Where a new cluster's first node is; one that joins is where its token says
    #[arg(
        long,
        value_name = "ZONE",
        env = "HOMEOSTAT_ZONE",
        conflicts_with = "join"
    )]
    pub zone: Option<String>,
    /// Where other nodes' agents reach this one, UDP [default: 0.0.0.0:7600, or
    /// any free port; kept]
    #[arg(long, value_name = "ADDR", env = "HOMEOSTAT_AGENT_LISTEN")]
    pub agent_listen: Option<SocketAddr>,
    /// Where other nodes' edges reach this one, UDP [default: 0.0.0.0:7601, or
    /// any free port; kept]
    #[arg(long, value_name = "ADDR", env = "HOMEOSTAT_EDGE_LISTEN")]
    pub edge_listen: Option<SocketAddr>,
    /// Under which addresses other nodes reach this machine [default: its own]
    #[arg(
        long,
        value_name = "IP",
        env = "HOMEOSTAT_ADVERTISE",
        value_delimiter = ','
    )]
    pub advertise: Vec<IpAddr>,
    /// This machine can call others, and nobody can call it (NAT, a firewall):
    /// it is reached through other nodes; kept, until `--outbound-only=false`
    #[arg(
        long,
        env = "HOMEOSTAT_OUTBOUND_ONLY",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub outbound_only: Option<bool>,
    /// Where a new cluster keeps what is wished: `etcd://HOST:PORT,HOST:PORT/ROOT`,
    /// of programs built with etcd [default: with its nodes]; kept, and told to
    /// those that join and may lead
    #[arg(
        long,
        value_name = "URL",
        env = "HOMEOSTAT_STORE",
        conflicts_with = "join"
    )]
    pub store: Option<String>,
    /// Speak TLS to it, by `ca.pem`, `cert.pem` and `key.pem` in this directory
    #[arg(
        long,
        value_name = "DIR",
        env = "HOMEOSTAT_STORE_TLS",
        requires = "store"
    )]
    pub store_tls: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct CreateToken {
    /// A token for the admin API, and what it may: look; also change what runs;
    /// everything. Without it, a token with which one machine joins
    #[arg(long, value_enum)]
    pub role: Option<Role>,
    /// Only this project's things, and nothing of others is seen [default: all]
    #[arg(long, value_name = "NAME", requires = "role")]
    pub project: Option<String>,
    /// Where the machine that joins is: a failure domain and a latency domain
    #[arg(
        long,
        value_name = "ZONE",
        conflicts_with = "role",
        default_value = "/"
    )]
    pub zone: String,
    /// What the owner of the machine that joins may do in the cluster without a
    /// token
    #[arg(long, value_enum, conflicts_with = "role", default_value = "viewer")]
    pub owner: Role,
    /// The machine that joins never keeps the cluster's state, which comes with
    /// its authority and its secrets' key: for a machine of somebody else's
    #[arg(long, conflicts_with = "role")]
    pub no_vote: bool,
    /// The machine that joins votes on who leads, and runs no replicas: with two
    /// others, either of them may die
    #[arg(long, conflicts_with_all = ["role", "no_vote"])]
    pub witness: bool,
    /// How long it is good: `90m`, `12h`, `30d` [default: 30d; to join, 15m]
    #[arg(long, value_name = "SPAN")]
    pub ttl: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct Ask {
    /// `SELECT …`; values may have names, and `WHERE` chooses nodes
    pub question: String,
    /// Whose nodes
    #[arg(long, value_name = "ZONE", default_value = "/")]
    pub zone: String,
    /// Only nodes that were heard within this; say so when one is missing
    #[arg(long, value_name = "SPAN", value_parser = kernel::parse_duration)]
    pub fresh: Option<Duration>,
    /// Show so many of the rows behind the numbers
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub rows: u32,
    /// Ask again and again, and show what changes, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// An answer comes within this, with what is missing said
    #[arg(long, value_name = "SPAN", value_parser = kernel::parse_duration, default_value = "5s")]
    pub within: Duration,
}

#[derive(Clone, Debug, Subcommand)]
pub enum ZonesCommand {
    /// Give a zone and all below it another name, or another zone's: then both
    /// are one
    ///
    /// Nothing stops. To divide a zone, move some of its nodes:
    /// `homeostat node move`.
    #[command(
        after_help = "Examples:\n  homeostat zones mv /eu/1 /eu/vienna\n  homeostat zones mv /eu/2 /eu/vienna"
    )]
    Mv { from: String, to: String },
}

#[derive(Clone, Debug, Subcommand)]
pub enum Aggregates {
    /// List the programs that this node runs
    #[command(
        after_help = "Examples:\n  homeostat aggregates ls\n  homeostat aggregates ls -o json"
    )]
    Ls,
    /// Have zones computed by one more program, or by another version of it
    ///
    /// It is tried in one zone first; one that fails there is stopped everywhere.
    #[command(
        after_help = "Examples:\n  homeostat aggregates add busy \"SELECT MAX(cpu) AS busiest, COUNT(*) FILTER (WHERE cpu > 0.9) AS hot\"\n  homeostat aggregates add disks \"SELECT SUM(disk_free_bytes) AS disk_free\" --zone /eu --life 90d"
    )]
    Add {
        /// Lower-case letters, digits and `_`
        name: String,
        /// `SELECT …`; see docs/aggregates.md
        text: String,
        /// Where it runs, and all below
        #[arg(long, value_name = "ZONE", default_value = "/")]
        zone: String,
        /// How long it runs [default: a year]
        #[arg(long, value_name = "SPAN", value_parser = kernel::parse_duration)]
        life: Option<Duration>,
        /// How long it is tried in one zone before it runs in all [default: 2s]
        #[arg(long, value_name = "SPAN", value_parser = kernel::parse_duration)]
        trial: Option<Duration>,
    },
    /// End a program, wherever it runs
    #[command(after_help = "Example:\n  homeostat aggregates rm busy")]
    Rm { name: String },
}

#[derive(Clone, Debug, Subcommand)]
pub enum Nodes {
    /// List the nodes that belong, as this one sees them
    #[command(after_help = "Examples:\n  homeostat node ls\n  homeostat node ls -o json")]
    Ls,
    /// Show one node, and what it publishes of itself, as this one sees it
    #[command(
        after_help = "Examples:\n  homeostat node show vienna-1\n  homeostat node show vienna-1 -o json"
    )]
    Show {
        /// Its name or id
        node: String,
    },
    /// Refuse a node from now on, wherever it is; it cannot come back
    #[command(after_help = "Example:\n  homeostat node revoke n3")]
    Revoke {
        /// Its name or id
        node: String,
    },
    /// Call a node otherwise
    #[command(after_help = "Example:\n  homeostat node rename n3 vienna-3")]
    Rename {
        /// Its name or id
        node: String,
        name: String,
    },
    /// Empty a node: what can run elsewhere does so first, and nothing comes
    ///
    /// What a person put there, and actors, stay.
    #[command(after_help = "Examples:\n  homeostat node drain n3\n  homeostat node drain n3 --end")]
    Drain {
        /// Its name or id
        node: String,
        /// It takes replicas again
        #[arg(long)]
        end: bool,
    },
    /// Put nodes into a zone; what runs on them goes on
    #[command(
        after_help = "Examples:\n  homeostat node move n3 --zone /eu/2\n  homeostat node move n3 n4 n5 --zone /eu/2"
    )]
    Move {
        /// Their names or ids
        #[arg(required = true)]
        nodes: Vec<String>,
        #[arg(long, value_name = "ZONE")]
        zone: String,
    },
}
