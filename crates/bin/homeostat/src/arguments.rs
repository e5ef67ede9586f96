//! Every command and flag, defined once: help and completion come from here.

pub mod alerts;
pub mod cluster;
pub mod job;
pub mod lab;
pub mod rollout;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// One edge out of a few machines, that looks after itself.
#[derive(Debug, Parser)]
#[command(name = "homeostat", version, propagate_version = true)]
#[command(
    after_help = "Start here:\n  homeostat init ./site && homeostat up ./site\n  homeostat get services\n  homeostat why service/NAME"
)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Where the node keeps its state
    #[arg(long, global = true, value_name = "DIR", env = "HOMEOSTAT_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Ask with the rights of the token in this file, or in the variable
    /// `HOMEOSTAT_TOKEN`, instead of your own
    #[arg(long, global = true, value_name = "FILE", env = "HOMEOSTAT_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Ask this node over its admin port, `https://HOST:PORT`, with a token,
    /// instead of this machine's
    // Commands have arguments called `node`, which a global one must not shadow.
    #[arg(
        id = "asked-node",
        long = "node",
        global = true,
        value_name = "URL",
        env = "HOMEOSTAT_NODE"
    )]
    pub node: Option<String>,
    /// The authority that `--node` must be certified by, as `trust --to FILE`
    /// writes it on the node
    #[arg(long, global = true, value_name = "FILE", env = "HOMEOSTAT_AUTHORITY")]
    pub authority: Option<PathBuf>,
    /// How data is written to standard output
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value = "table",
        env = "HOMEOSTAT_OUTPUT"
    )]
    pub output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
    Jsonl,
    Name,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start this machine's node, and apply a manifest to it; or join others
    #[command(
        after_help = "Examples:\n  homeostat up\n  homeostat up examples/news\n  homeostat up ./site --http 127.0.0.1:80 --https 127.0.0.1:443\n  homeostat up --certificate chain.pem --key key.pem\n  homeostat up --admin-listen 127.0.0.1:9443\n  homeostat up --join hsjoin1_…\n  homeostat up examples/news --lab 6"
    )]
    Up(Up),
    /// Stop what runs, and the node; state stays
    #[command(after_help = "Examples:\n  homeostat down\n  homeostat down --lab")]
    Down(Down),
    /// Look at a directory and write a manifest for it
    #[command(after_help = "Example:\n  homeostat init ./site")]
    Init {
        /// Where an index.html is, or a site, public, dist, build, _site or www
        directory: PathBuf,
    },
    /// Show what `apply` would change (exit code 8: something)
    ///
    /// With --without: what would come of the loss of a node or of a zone (exit
    /// code 8: something would run nowhere, or nobody could change the cluster).
    #[command(
        after_help = "Examples:\n  homeostat plan ./site\n  homeostat plan ./site -o json\n  homeostat plan --without n2\n  homeostat plan --without /eu"
    )]
    Plan {
        #[command(flatten)]
        path: ManifestPath,
        /// A node's name, or a zone
        #[arg(long, value_name = "NODE|ZONE", conflicts_with = "manifest")]
        without: Option<String>,
    },
    /// Make a manifest the desired state, and wait until it runs
    ///
    /// A project goes when a manifest that has only its `[project]` is applied.
    #[command(after_help = "Example:\n  homeostat apply ./site")]
    Apply(ManifestPath),
    /// Go back to an earlier applied manifest
    #[command(
        after_help = "Examples:\n  homeostat rollback news\n  homeostat rollback news --to 3"
    )]
    Rollback {
        /// The manifest's `project.name`, as `get revisions` shows it
        project: String,
        /// The revision's number [default: the newest that differs from the current one]
        #[arg(long, value_name = "NUMBER")]
        to: Option<u64>,
    },
    /// Go over to another program, this node or all; no request is lost
    ///
    /// A program that does not fit is refused before anything is touched; one that
    /// does not come up is left again for the old one (exit code 1).
    #[command(
        after_help = "Examples:\n  homeostat upgrade\n  homeostat upgrade --program ./homeostat-next\n  homeostat upgrade --all --plan\n  homeostat upgrade --all"
    )]
    Upgrade(Upgrade),
    /// What this program is, and the formats it reads and writes
    #[command(after_help = "Example:\n  homeostat version -o json")]
    Version,
    /// List objects, or show one: sites, services, jobs, replicas, nodes, revisions
    #[command(
        after_help = "Examples:\n  homeostat get services\n  homeostat get service/search -o json\n  homeostat get service/news/search"
    )]
    Get {
        /// A kind, KIND/NAME, or KIND/PROJECT/NAME where several have the name
        object: String,
    },
    /// Explain a manifest's field
    #[command(after_help = "Example:\n  homeostat explain service.replicas")]
    Explain {
        /// Its path with dots; `.` is the whole manifest
        field: String,
    },
    /// Tell what was seen, decided and done about an object, and whether it worked
    #[command(after_help = "Example:\n  homeostat why service/search")]
    Why {
        /// KIND/NAME, or KIND/PROJECT/NAME where several have the name
        object: String,
        /// How many steps of the chain
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Tell why a service has no replica on a node: what the node lacks, or which
    /// place is better and by what
    #[command(
        after_help = "Examples:\n  homeostat why-not search n2\n  homeostat why-not news/search n2 -o json"
    )]
    WhyNot {
        /// NAME, or PROJECT/NAME where several have the name
        service: String,
        /// Its name or id
        node: String,
    },
    /// Show what a service's replicas, or a job's attempts, printed
    #[command(
        after_help = "Examples:\n  homeostat logs -f search\n  homeostat logs news/search\n  homeostat logs job/backup"
    )]
    Logs {
        /// NAME, or PROJECT/NAME where several have the name; of a job, job/NAME
        service: String,
        /// Go on with what comes
        #[arg(short, long)]
        follow: bool,
        /// Lines from before at most
        #[arg(long, default_value_t = 100)]
        tail: usize,
    },
    /// Replace a service's replicas one by one
    #[command(after_help = "Example:\n  homeostat restart search")]
    Restart {
        /// NAME, or PROJECT/NAME where several have the name
        service: String,
    },
    /// Values that only the replicas which name them get
    #[command(subcommand)]
    Secret(Secret),
    /// Give others a part of your rights on this node
    #[command(subcommand)]
    Token(Token),
    /// The cluster's nodes
    #[command(subcommand)]
    Node(cluster::Nodes),
    /// Say something of this node that all nodes see: a rack, a kind of disk
    ///
    /// It outlives restarts. Without words: what is published. `true`, a number
    /// or a list such as `["a","b"]` is taken as that, all else as a text.
    #[command(
        after_help = "Examples:\n  homeostat publish rack=7 disk=ssd\n  homeostat publish 'gpus=[\"a100\",\"l4\"]'\n  homeostat publish --remove rack -o json\n  homeostat node show vienna-1"
    )]
    Publish {
        /// Names are of lower-case letters, digits and `_`
        #[arg(value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Publish this no more
        #[arg(long, value_name = "KEY")]
        remove: Vec<String>,
    },
    /// The tree of zones, what each comes to, and how much of it is known
    ///
    /// As the node that is asked sees it: the root, its own zones, and those
    /// beside them.
    #[command(
        after_help = "Examples:\n  homeostat zones\n  homeostat zones --watch\n  homeostat zones --zone /eu --fresh 3s\n  homeostat zones -o json\n  homeostat zones mv /eu/1 /eu/vienna"
    )]
    #[command(args_conflicts_with_subcommands = true)]
    Zones {
        /// Show it again when it changes, until Ctrl-C
        #[arg(long)]
        watch: bool,
        /// Only this zone's row, which must be known where it is asked for
        #[arg(long, value_name = "ZONE")]
        zone: Option<String>,
        /// It must have been confirmed within this; exit code 6 when it was not
        #[arg(long, value_name = "SPAN", value_parser = kernel::parse_duration, requires = "zone")]
        fresh: Option<Duration>,
        /// It must not be older than the row with this stamp (`-o json`), which was
        /// seen elsewhere; exit code 6 when it is
        #[arg(long, value_name = "STAMP", requires = "zone")]
        at_least: Option<String>,
        #[command(subcommand)]
        what: Option<cluster::ZonesCommand>,
    },
    /// Who decides for which zone: seats, their holders and epochs
    ///
    /// The root's seat is the control group's leader; each leaf zone of several nodes
    /// has one besides, which repairs the zone. One that is free, or not heard of, the
    /// root does the work of.
    #[command(after_help = "Examples:\n  homeostat seats\n  homeostat seats -o json")]
    Seats,
    /// Ask all nodes of a zone at once, in SQL
    ///
    /// An answer says how many of how many nodes are in it. Aggregates and
    /// functions: docs/aggregates.md; attributes: homeostat node show NAME.
    /// Exit code 6 when nodes are missing and --fresh was asked for.
    #[command(
        after_help = "Examples:\n  homeostat ask \"SELECT COUNT(*), SUM(cores), AVG(cpu)\"\n  homeostat ask \"SELECT MAX(cpu)\" --zone /eu --fresh 5s\n  homeostat ask \"SELECT COUNT(*) WHERE disk = 'ssd'\" --rows 20\n  homeostat ask \"SELECT SUM(requests_per_s)\" --watch"
    )]
    Ask(cluster::Ask),
    /// Programs that compute what zones come to
    #[command(subcommand)]
    Aggregates(cluster::Aggregates),
    /// What runs to its end: how it stands, begin a run, end one
    #[command(subcommand)]
    Job(job::Jobs),
    /// A new version that takes the place of the old one by stages
    #[command(subcommand)]
    Rollout(rollout::Rollouts),
    /// Who is told when something holds of a zone's nodes
    #[command(subcommand)]
    Alerts(alerts::Alerts),
    /// Who changed what, and whether the log of it is whole
    #[command(subcommand)]
    Audit(Audit),
    /// Back the node's stores up, and restore them
    #[command(subcommand)]
    Store(StoreCommand),
    /// What projects may do on this node
    #[command(subcommand)]
    Project(Projects),
    /// A cluster on this machine, made with `homeostat up --lab`
    #[command(subcommand)]
    Lab(lab::LabCommand),
    /// Make a fault in a lab, undone by itself
    ///
    /// Outside labs only `kill` and `fill` work, and want the node's name typed.
    #[command(subcommand)]
    Chaos(lab::Chaos),
    /// Check this machine and its node, each finding with its mend
    ///
    /// Exit code 1 when one of them is bad.
    #[command(after_help = "Examples:\n  homeostat doctor\n  homeostat doctor -o json")]
    Doctor,
    /// Send a recorded or generated load; report latencies and failures
    ///
    /// Exit code 1 when a request failed: no answer, half an answer, a 5xx.
    #[command(
        after_help = "Examples:\n  homeostat replay access.log --speed 100\n  homeostat replay --popularity examples/news/popularity.tsv --limit 20000\n  homeostat replay access.log --popularity examples/news/popularity.tsv --search 0.02"
    )]
    Replay(Replay),
    /// Trust this node's authority on this machine, so that browsers accept its certificates
    #[command(after_help = "Examples:\n  homeostat trust\n  homeostat trust --to authority.pem")]
    Trust {
        /// Write the authority's certificate here instead
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// The JSON schema of the manifest, for editors
    #[command(after_help = "Example:\n  homeostat schema > homeostat.schema.json")]
    Schema,
    /// The admin API's `OpenAPI` document
    #[command(after_help = "Example:\n  homeostat openapi > openapi.json")]
    Openapi,
    /// A completion script for your shell
    #[command(
        after_help = "Example:\n  homeostat completions bash > /etc/bash_completion.d/homeostat"
    )]
    Completions { shell: clap_complete::Shell },
    #[command(hide = true)]
    Supervisor(Listen),
    #[command(hide = true)]
    Agent {
        #[arg(long)]
        admin_listen: Option<SocketAddr>,
    },
    #[command(hide = true)]
    Edge,
    #[command(hide = true)]
    Worker(Worker),
}

#[derive(Clone, Debug, Subcommand)]
pub enum Secret {
    /// Keep a value, read from standard input or asked for; never an argument
    ///
    /// A newline at its end is left out. Services that name it in their
    /// `secrets` are replaced one by one.
    #[command(
        after_help = "Examples:\n  homeostat secret set db-password --project news < FILE\n  homeostat secret set db-password"
    )]
    Set {
        name: String,
        #[command(flatten)]
        project: Project,
    },
    /// List secrets, without their values
    #[command(after_help = "Example:\n  homeostat secret ls")]
    Ls,
    /// Forget a secret that no service names
    #[command(after_help = "Example:\n  homeostat secret rm db-password --project news")]
    Rm {
        name: String,
        #[command(flatten)]
        project: Project,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub enum Token {
    /// Make a token, shown this once
    #[command(
        after_help = "Examples:\n  homeostat token create --ttl 15m --zone /eu/1\n  homeostat token create --role viewer\n  homeostat token create --role operator --project news --ttl 12h"
    )]
    Create(cluster::CreateToken),
    /// List tokens, without what proves them
    #[command(after_help = "Example:\n  homeostat token ls")]
    Ls,
    /// End a token at once
    #[command(after_help = "Example:\n  homeostat token revoke 1f0c55aa")]
    Revoke { id: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    Viewer,
    Operator,
    Admin,
}

#[derive(Clone, Debug, Subcommand)]
pub enum StoreCommand {
    /// Show who keeps the cluster's state, who leads, and who is behind
    ///
    /// As the node that is asked sees it; it works without a majority too.
    #[command(after_help = "Examples:\n  homeostat store status\n  homeostat store status -o json")]
    Status,
    /// Write control state and buckets, at one cut, into a new file
    ///
    /// Content, logs and keys are not in it.
    #[command(after_help = "Example:\n  homeostat store backup node.backup")]
    Backup { file: PathBuf },
    /// Make the stores of a node that does not run from a backup
    #[command(
        after_help = "Examples:\n  homeostat down && homeostat store restore node.backup --replace && homeostat up\n  homeostat --data-dir ./elsewhere store restore node.backup"
    )]
    Restore {
        file: PathBuf,
        /// Move the stores that are there aside
        #[arg(long)]
        replace: bool,
        /// Also where other nodes keep the cluster's state: they are lost for good
        #[arg(long)]
        alone: bool,
    },
    /// Have this node lead without the others, where most of those who keep the
    /// cluster's state are lost for good
    ///
    /// What they acknowledged and this node never heard of is lost. Whoever of
    /// them comes back follows. Run it on the node that is to lead; refused while
    /// the others can still choose a leader by themselves.
    #[command(
        after_help = "Examples:\n  homeostat store force-leader\n  homeostat store force-leader --yes"
    )]
    ForceLeader {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub enum Audit {
    /// List the newest changes
    #[command(after_help = "Examples:\n  homeostat audit ls\n  homeostat audit ls -o json")]
    Ls {
        /// Lines at most; a change has two
        #[arg(long, default_value_t = 200)]
        limit: usize,
    },
    /// Look through the whole log; exit code 1 and the first bad line if it was changed
    #[command(
        after_help = "Examples:\n  homeostat audit verify\n  homeostat audit verify --file copy.jsonl"
    )]
    Verify {
        /// This file or directory, without a node
        #[arg(long)]
        file: Option<PathBuf>,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub enum Projects {
    /// Set a project's policy; what is not given stays
    #[command(
        after_help = "Examples:\n  homeostat project set news --replicas 20 --memory '2 GiB'\n  homeostat project set guests --trusted false\n  homeostat project set news --replicas none"
    )]
    Set {
        /// The manifest's `project.name`; it need not be applied yet
        name: String,
        /// Whether it may run processes, and its wasm in the edge
        #[arg(long)]
        trusted: Option<bool>,
        /// Services at most, or `none` for no limit
        #[arg(long, value_name = "NUMBER")]
        services: Option<String>,
        /// Replicas of all its services at most
        #[arg(long, value_name = "NUMBER")]
        replicas: Option<String>,
        /// Memory of all its replicas at most: `2 GiB`
        #[arg(long, value_name = "SIZE")]
        memory: Option<String>,
        /// Quotas of all its buckets at most: `1 GiB`
        #[arg(long, value_name = "SIZE")]
        bucket_bytes: Option<String>,
    },
    /// List projects, what they have and what they may
    #[command(after_help = "Example:\n  homeostat project ls")]
    Ls,
}

#[derive(Clone, Debug, Args)]
pub struct Project {
    /// Whose it is [default: of the manifest here, or the node's only one]
    #[arg(long, value_name = "NAME", env = "HOMEOSTAT_PROJECT")]
    pub project: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct Up {
    /// A directory with a `homeostat.toml`, or the file itself
    pub manifest: Option<PathBuf>,
    #[command(flatten)]
    pub listen: Listen,
    #[command(flatten)]
    pub join: cluster::Others,
    /// A certificate chain (PEM) to show for the hosts it names, kept by the
    /// node; give a renewed one the same way, without a restart
    #[arg(long, value_name = "CHAIN.pem", requires = "key")]
    pub certificate: Option<PathBuf>,
    /// The chain's private key (PEM)
    #[arg(long, value_name = "KEY.pem", requires = "certificate")]
    pub key: Option<PathBuf>,
    /// Stay in the foreground, for service managers; apply manifests apart
    #[arg(long, conflicts_with_all = ["manifest", "certificate"])]
    pub foreground: bool,
    /// Start a whole cluster on this machine instead: so many nodes in three
    /// zones, or what a file says
    #[arg(
        long,
        value_name = "NODES|FILE",
        conflicts_with_all = ["foreground", "certificate"]
    )]
    pub lab: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct Upgrade {
    /// The new program [default: the file that the node was started from]
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// All nodes one by one, each with the file of that path on it, the one that
    /// leads last; stops at the first that fails
    #[arg(long)]
    pub all: bool,
    /// Show what each node runs and would go over to, and in which order
    #[arg(long)]
    pub plan: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Down {
    /// End a lab and take it away, by its number or the only one
    #[arg(long, value_name = "NUMBER", num_args = 0..=1)]
    #[expect(
        clippy::option_option,
        reason = "the parser's word for a flag that may go without its value"
    )]
    pub lab: Option<Option<u8>>,
}

#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_field_names, reason = "as the flag is called")]
pub struct Listen {
    /// Where clients are served in the clear [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", env = "HOMEOSTAT_HTTP")]
    pub http: Option<SocketAddr>,
    /// Where clients are served over TLS [default: 127.0.0.1:8443]
    #[arg(long, value_name = "ADDR", env = "HOMEOSTAT_HTTPS")]
    pub https: Option<SocketAddr>,
    /// Where the admin API is served over TLS, to tokens only [default: nowhere]
    #[arg(long, value_name = "ADDR", env = "HOMEOSTAT_ADMIN_LISTEN")]
    pub admin_listen: Option<SocketAddr>,
}

impl Listen {
    pub fn http(&self) -> SocketAddr {
        self.http.unwrap_or((Ipv4Addr::LOCALHOST, 8080).into())
    }

    /// As words for the supervisor.
    pub fn words(&self) -> Vec<String> {
        let given = [
            ("--http", Some(self.http())),
            ("--https", Some(self.https())),
            ("--admin-listen", self.admin_listen),
        ];
        let words = given.into_iter().filter_map(|(flag, address)| {
            let address = address?.to_string();
            Some([flag.to_owned(), address])
        });
        words.flatten().collect()
    }

    pub fn https(&self) -> SocketAddr {
        self.https.unwrap_or((Ipv4Addr::LOCALHOST, 8443).into())
    }
}

#[derive(Clone, Debug, Args)]
pub struct ManifestPath {
    /// A directory with a `homeostat.toml`, or the file itself
    #[arg(default_value = ".")]
    pub manifest: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub struct Replay {
    /// An access log in common or combined format; a generated load without it
    pub log: Option<PathBuf>,
    /// Where it goes; the paths come from the load [default: this node, as localhost]
    #[arg(long, value_name = "URL")]
    pub to: Option<String>,
    /// 10 is ten times as fast as recorded; 0 is as fast as it is answered
    #[arg(long, default_value_t = 0.0)]
    pub speed: f64,
    /// Silences in the log are cut to this, before `--speed`
    #[arg(long, value_name = "SECONDS")]
    pub gap_max: Option<f64>,
    /// Requests at most
    #[arg(long, default_value_t = 10_000)]
    pub limit: u64,
    /// Requests in flight at most
    #[arg(long, default_value_t = 32)]
    pub concurrency: usize,
    /// The target's documents by rank, `PATH` or `PATH<tab>WEIGHT` a line: what
    /// a generated load asks for, and what recorded paths are mapped onto
    #[arg(long, value_name = "FILE")]
    pub popularity: Option<PathBuf>,
    /// With both a log and `--popularity`: this share of the requests, 0 to 1,
    /// searches at /search, as do recorded searches
    #[arg(long, value_name = "SHARE")]
    pub search: Option<f64>,
    /// A generated load's requests per second at speed 1
    #[arg(long, value_name = "PER_SECOND", default_value_t = 100.0)]
    pub rate: f64,
    /// The host asked for; the URL's by default
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Send recorded methods besides GET and HEAD too, without bodies
    #[arg(long)]
    pub all_methods: bool,
    /// A generated load is the same for the same seed
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

#[derive(Clone, Debug, Args)]
pub struct Worker {
    #[arg(long, value_enum)]
    pub kind: WorkerKind,
    #[arg(long)]
    pub module: PathBuf,
    /// Where compiled code is kept
    #[arg(long)]
    pub cache: PathBuf,
    /// Where an actor is while it is put away
    #[arg(long)]
    pub state: PathBuf,
    /// Where the node's key is, if what is put away must be sealed
    #[arg(long)]
    pub keys: Option<PathBuf>,
    #[arg(long)]
    pub service: String,
    /// Of a guest's memory, bytes
    #[arg(long)]
    pub memory: Option<usize>,
    /// Of one request
    #[arg(long, value_parser = kernel::parse_duration)]
    pub time: Option<Duration>,
    #[arg(long)]
    pub concurrency: Option<usize>,
    /// Requests that one instance of a component answers
    #[arg(long)]
    pub reuse: Option<u32>,
    /// Whom a component may call, as JSON
    #[arg(long = "call")]
    pub calls: Vec<String>,
    /// After which an actor with nothing to do is put away
    #[arg(long, value_parser = kernel::parse_duration, default_value = "5m")]
    pub idle: Duration,
    /// From the signal to stop until the node kills
    #[arg(long, value_parser = kernel::parse_duration, default_value = "10s")]
    pub grace: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WorkerKind {
    Actor,
    Component,
}
