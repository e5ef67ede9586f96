//! Words about alerts.

use clap::{ArgGroup, Args, Subcommand};
use std::time::Duration;

#[derive(Clone, Debug, Subcommand)]
pub enum Alerts {
    /// List them: how each stands, and whom it tells
    #[command(after_help = "Examples:\n  homeostat alerts ls\n  homeostat alerts ls -o json")]
    Ls,
    /// Ask all nodes of a zone again and again, and tell somebody when it holds
    ///
    /// What follows --when is a condition over aggregates, or a whole SELECT
    /// whose first value is one; its other values are told with it. One of the
    /// same name is replaced. What is told: docs/alerts.md.
    #[command(
        after_help = "Examples:\n  homeostat alerts add hot --when \"AVG(cpu) > 0.9\" --for 10s --webhook https://hooks.example.com/ops\n  homeostat alerts add few --when \"SELECT COUNT(*) < 3, COUNT(*) AS nodes\" --zone /eu --for 30s --command /usr/local/bin/page ops\n  homeostat alerts add fleet --when \"COUNT(*)\" --on-change --webhook http://127.0.0.1:9000/"
    )]
    Add(Add),
    /// Tell it now, whatever holds, and say how that went
    #[command(after_help = "Example:\n  homeostat alerts test hot")]
    Test { name: String },
    /// End one; nobody is told
    #[command(after_help = "Example:\n  homeostat alerts rm hot")]
    Rm { name: String },
}

#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("target").required(true).args(["webhook", "command"])))]
pub struct Add {
    /// Lower-case letters, digits and `-`
    pub name: String,
    #[arg(long, value_name = "CONDITION")]
    pub when: String,
    /// Whose nodes
    #[arg(long, value_name = "ZONE", default_value = "/")]
    pub zone: String,
    /// Tell once it has held for so long, and once it has not for as long
    /// [default: at once]
    #[arg(long = "for", value_name = "SPAN", value_parser = kernel::parse_duration)]
    pub span: Option<Duration>,
    /// Tell whenever the first value is another one
    #[arg(long, conflicts_with = "span")]
    pub on_change: bool,
    /// Between two questions
    #[arg(long, value_name = "SPAN", value_parser = kernel::parse_duration, default_value = "2s")]
    pub every: Duration,
    /// Post the notice here, as JSON
    #[arg(long, value_name = "URL")]
    pub webhook: Option<String>,
    /// Run this where the store is held, with the notice on its standard input;
    /// its arguments follow, so it comes last
    #[arg(long, value_name = "PROGRAM", num_args = 1.., allow_hyphen_values = true)]
    pub command: Vec<String>,
}
