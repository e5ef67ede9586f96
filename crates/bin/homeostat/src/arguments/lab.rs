//! Commands of labs, and of faults made on purpose.

use clap::{Args, Subcommand, ValueEnum};
use kernel::{Bytes, Name};
use std::ffi::OsString;
use std::time::Duration;
use wire::lab::{Part, Place};

#[derive(Clone, Debug, Subcommand)]
pub enum LabCommand {
    /// List labs and their nodes
    #[command(after_help = "Examples:\n  homeostat lab ls\n  homeostat lab ls -o json")]
    Ls,
    /// Run a program inside a node: its network, its limits, its name
    ///
    /// `homeostat` in there speaks to that node.
    #[command(
        after_help = "Examples:\n  homeostat lab exec n2 -- homeostat get services\n  homeostat lab exec n2 -- curl http://198.18.1.1/\n  homeostat lab exec n3 -- bash"
    )]
    Exec {
        node: Name,
        #[command(flatten)]
        which: Which,
        /// The program and its words
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// End a lab and take it away, also one whose keeper was killed
    #[command(after_help = "Examples:\n  homeostat lab down\n  homeostat lab down 2")]
    Down {
        /// Its number [default: the only one]
        id: Option<u8>,
    },
}

#[derive(Clone, Copy, Debug, Args)]
pub struct Which {
    /// The lab's number [default: the only one]
    #[arg(long, value_name = "NUMBER", env = lab::LAB)]
    pub lab: Option<u8>,
}

/// How long, and where.
#[derive(Clone, Copy, Debug, Args)]
pub struct Span {
    /// When it is undone by itself, whatever becomes of this command
    #[arg(long = "for", value_name = "SPAN", value_parser = kernel::parse_duration, default_value = "30s")]
    pub span: Duration,
    #[command(flatten)]
    pub which: Which,
}

#[derive(Clone, Debug, Args)]
pub struct Ends {
    /// A zone, with all below it, or a node
    pub from: Place,
    /// Another one [default: all others]
    pub to: Option<Place>,
    /// Only what goes from the first to the second
    #[arg(long)]
    pub one_way: bool,
}

/// Where a fault is made outside labs.
#[derive(Clone, Debug, Args)]
pub struct Here {
    /// On this machine's own node, whatever labs there are
    #[arg(long, conflicts_with = "lab")]
    pub here: bool,
    /// The node's name, typed: outside labs a fault harms something real
    #[arg(long, value_name = "NAME")]
    pub confirm: Option<String>,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Chaos {
    /// Let nothing through between two places
    #[command(
        after_help = "Examples:\n  homeostat chaos cut /eu/1 /us/1 --for 30s\n  homeostat chaos cut n3 --for 10s\n  homeostat chaos cut /eu/1 n2 --one-way"
    )]
    Cut {
        #[command(flatten)]
        ends: Ends,
        #[command(flatten)]
        span: Span,
    },
    /// Add distance between places, or slow a node down
    #[command(
        after_help = "Examples:\n  homeostat chaos slow /eu/1 /us/1 --by 200ms\n  homeostat chaos slow n2 --cpu 0.1 --for 1m\n  homeostat chaos slow n2 --rate-mbit 10"
    )]
    Slow {
        #[command(flatten)]
        ends: Ends,
        #[command(flatten)]
        how: How,
        #[command(flatten)]
        span: Span,
    },
    /// Lose a share of the packets between two places
    #[command(after_help = "Example:\n  homeostat chaos loss /eu/1 /us/1 --percent 5 --for 1m")]
    Loss {
        #[command(flatten)]
        ends: Ends,
        /// Of a hundred packets
        #[arg(long, value_name = "NUMBER")]
        percent: f64,
        #[command(flatten)]
        span: Span,
    },
    /// Kill a process of a node, without warning
    ///
    /// Nothing is undone: that is for the node to do. Only a supervisor has
    /// nobody who starts it again; it is started after `--for`.
    #[command(
        after_help = "Examples:\n  homeostat chaos kill n2 agent\n  homeostat chaos kill n2 replica\n  homeostat chaos kill myhost edge --here --confirm myhost"
    )]
    Kill {
        node: Name,
        #[arg(value_enum)]
        process: Process,
        #[command(flatten)]
        span: Span,
        #[command(flatten)]
        here: Here,
    },
    /// Fill a node's disk
    #[command(
        after_help = "Examples:\n  homeostat chaos fill n2 --for 1m\n  homeostat chaos fill n2 --leave '1 MiB'"
    )]
    Fill {
        node: Name,
        /// What stays free
        #[arg(long, value_name = "SIZE", default_value = "0 B")]
        leave: Bytes,
        #[command(flatten)]
        span: Span,
        #[command(flatten)]
        here: Here,
    },
    /// Cut a node off, kill everything in it, and start it again at the end
    #[command(after_help = "Example:\n  homeostat chaos poweroff n2 --for 1m")]
    Poweroff {
        node: Name,
        #[command(flatten)]
        span: Span,
    },
    /// Let all processes of a node stand still, as a paused virtual machine does
    #[command(after_help = "Example:\n  homeostat chaos pause n2 --for 20s")]
    Pause {
        node: Name,
        #[command(flatten)]
        span: Span,
    },
    /// List the faults in force, and when each is over
    #[command(after_help = "Example:\n  homeostat chaos ls")]
    Ls(Which),
    /// Undo faults before their time
    #[command(after_help = "Examples:\n  homeostat chaos undo\n  homeostat chaos undo 3")]
    Undo {
        /// As `chaos ls` shows it [default: all]
        id: Option<u64>,
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Clone, Copy, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct How {
    /// Added to each way
    #[arg(long, value_name = "SPAN", value_parser = kernel::parse_duration)]
    pub by: Option<Duration>,
    /// Cores that the node has at most
    #[arg(long, value_name = "CORES")]
    pub cpu: Option<f64>,
    /// What the node sends and receives at most
    #[arg(long, value_name = "NUMBER")]
    pub rate_mbit: Option<u64>,
    /// Writes a second that the node's disk takes at most
    #[arg(long, value_name = "NUMBER")]
    pub disk_writes: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Process {
    Agent,
    Edge,
    Supervisor,
    Worker,
    Replica,
}

impl From<Process> for Part {
    fn from(process: Process) -> Self {
        match process {
            Process::Agent => Self::Agent,
            Process::Edge => Self::Edge,
            Process::Supervisor => Self::Supervisor,
            Process::Worker => Self::Worker,
            Process::Replica => Self::Replica,
        }
    }
}
