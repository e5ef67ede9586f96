//! Words about jobs.

use clap::{Args, Subcommand};

#[derive(Clone, Debug, Subcommand)]
pub enum Jobs {
    /// List them: how the last run of each stands, and when it is due
    #[command(after_help = "Examples:\n  homeostat job ls\n  homeostat job ls -o json")]
    Ls,
    /// Begin a run now
    #[command(
        after_help = "Examples:\n  homeostat job run backup\n  homeostat job run news/backup --arg=--full --arg 2026-03-01\n  homeostat job run backup --wait"
    )]
    Run(Run),
    /// List a job's runs, the newest first, and their attempts
    #[command(
        after_help = "Examples:\n  homeostat job runs backup\n  homeostat job runs backup -o json"
    )]
    Runs {
        /// NAME, or PROJECT/NAME where several have the name
        job: String,
    },
    /// Show what a job's attempts printed
    #[command(after_help = "Example:\n  homeostat job logs -f backup")]
    Logs {
        /// NAME, or PROJECT/NAME where several have the name
        job: String,
        /// Go on with what comes
        #[arg(short, long)]
        follow: bool,
        /// Lines from before at most
        #[arg(long, default_value_t = 100)]
        tail: usize,
    },
    /// End a run; all that go on, unless one is named
    #[command(
        after_help = "Examples:\n  homeostat job cancel backup\n  homeostat job cancel backup --run 7"
    )]
    Cancel {
        /// NAME, or PROJECT/NAME where several have the name
        job: String,
        #[arg(long, value_name = "NUMBER")]
        run: Option<u64>,
    },
}

#[derive(Clone, Debug, Args)]
pub struct Run {
    /// NAME, or PROJECT/NAME where several have the name
    pub job: String,
    /// One more argument, after those of the manifest; may be given again
    #[arg(long = "arg", value_name = "TEXT", allow_hyphen_values = true)]
    pub arguments: Vec<String>,
    /// Wait until it is over; exit code 1 unless it has succeeded
    #[arg(long)]
    pub wait: bool,
}
