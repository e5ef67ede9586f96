//! Words about other nodes.

use super::Role;
use clap::{Args, Subcommand};
use std::net::{IpAddr, SocketAddr};

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
    /// How long it is good: `90m`, `12h`, `30d` [default: 30d; to join, 15m]
    #[arg(long, value_name = "SPAN")]
    pub ttl: Option<String>,
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
}
