//! Words about rollouts by stages.

use clap::Subcommand;

#[derive(Clone, Debug, Subcommand)]
pub enum Rollouts {
    /// Show how a service's new version takes the place of the old one
    #[command(
        after_help = "Examples:\n  homeostat rollout status search\n  homeostat rollout status news/search -o json"
    )]
    Status {
        /// NAME, or PROJECT/NAME where several have the name
        service: String,
    },
    /// Let it not go on by itself; a canary that is worse is given up all the same
    #[command(after_help = "Example:\n  homeostat rollout pause news/search")]
    Pause {
        /// NAME, or PROJECT/NAME where several have the name
        service: String,
    },
    /// Let it go on by itself again
    #[command(after_help = "Example:\n  homeostat rollout resume news/search")]
    Resume {
        /// NAME, or PROJECT/NAME where several have the name
        service: String,
    },
    /// Go a stage further now: a canary becomes all, blue-green switches or finishes
    #[command(after_help = "Example:\n  homeostat rollout promote news/search")]
    Promote {
        /// NAME, or PROJECT/NAME where several have the name
        service: String,
    },
    /// Go back to the old version, which still runs
    #[command(after_help = "Example:\n  homeostat rollout abort news/search")]
    Abort {
        /// NAME, or PROJECT/NAME where several have the name
        service: String,
    },
}
