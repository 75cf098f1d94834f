//! The commands of a release: its verbs, a rollout, the history, and what follows from a verdict.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use super::flags::{Output, StageBy, VerbFlags};
use super::help::{ENTRIES_HELP, ROLLOUT_HELP, STAGE_HELP};
use crate::config::DEFAULT_PATH;

/// So many changes are shown, if nobody says how many.
const SHOWN_CHANGES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(19);

/// The verbs of a release, and what they have done.
#[derive(Subcommand)]
pub(crate) enum ReleaseAction {
    /// Put entries on the gray list: clients that get the new version
    #[command(after_long_help = ENTRIES_HELP)]
    Admit {
        /// Entries, each an argument of its own
        #[arg(required = true, value_name = "ENTRY")]
        entries: Vec<String>,
        #[command(flatten)]
        flags: VerbFlags,
    },
    /// Take entries off the gray list, however they are spelled there
    #[command(after_long_help = ENTRIES_HELP)]
    Remove {
        /// Entries, each an argument of its own
        #[arg(required = true, value_name = "ENTRY")]
        entries: Vec<String>,
        #[command(flatten)]
        flags: VerbFlags,
    },
    /// Set the share of the clients that gets the new version
    #[command(after_long_help = STAGE_HELP)]
    Stage {
        /// The share, such as 5% or 0.5%; 0% takes it away
        share: String,
        #[command(flatten)]
        by: StageBy,
        #[command(flatten)]
        flags: VerbFlags,
    },
    /// Make the new version what everybody gets: prod becomes what pre is, and gray and pre are emptied
    Promote {
        /// Put into pre what prod was
        #[arg(long)]
        swap: bool,
        /// Whatever the verdict says, servers of pre are out, or gateways do not hold
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        flags: VerbFlags,
    },
    /// Take the new version back: gray is emptied; or, right after a promotion, the lists are as before it
    Rollback {
        /// The lists as they were before this change of the history
        #[arg(long, value_name = "N")]
        to: Option<u64>,
        #[command(flatten)]
        flags: VerbFlags,
    },
    /// Take back the last change of the lists, whoever has made it
    Undo {
        #[command(flatten)]
        flags: VerbFlags,
    },
    /// Keep the lists as they are: gateways take no others, and verbs are refused
    Freeze {
        #[command(flatten)]
        flags: VerbFlags,
    },
    /// End a freeze
    Thaw {
        #[command(flatten)]
        flags: VerbFlags,
    },
    /// Let the share of the new version grow step by step, by itself
    #[command(after_long_help = ROLLOUT_HELP)]
    Rollout {
        #[command(subcommand)]
        action: RolloutAction,
    },
    /// Show what was done to the lists, by whom and why
    #[command(args_conflicts_with_subcommands = true)]
    History {
        #[command(subcommand)]
        action: Option<HistoryAction>,
        /// So many changes
        #[arg(long, value_name = "N", default_value_t = SHOWN_CHANGES, value_parser = at_least_one)]
        last: NonZeroUsize,
        /// Of this service; without it, of `default`
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
        #[command(flatten)]
        output: Output,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
}

#[derive(Subcommand)]
pub(crate) enum RolloutAction {
    /// Begin: the first step is in force at once
    Start {
        /// The shares, each larger than the one before
        #[arg(long, value_name = "LIST")]
        steps: String,
        /// How long each step is in force at least, such as 10m
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        every: Duration,
        /// After the last step, the new version is what everybody gets
        #[arg(long)]
        promote: bool,
        /// Wait for the time alone; a verdict against the new version holds the rollout all the same
        #[arg(long)]
        without_verdict: bool,
        #[command(flatten)]
        by: StageBy,
        #[command(flatten)]
        flags: VerbFlags,
    },
    /// Show how it stands
    Status {
        /// Of this service; without it, of `default`
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
        #[command(flatten)]
        output: Output,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Stay at the step that is in force
    Pause {
        #[command(flatten)]
        flags: VerbFlags,
    },
    /// Go on after a pause
    Resume {
        #[command(flatten)]
        flags: VerbFlags,
    },
    /// End it: gray is emptied, and nobody gets the new version
    Abort {
        #[command(flatten)]
        flags: VerbFlags,
    },
}

#[derive(Subcommand)]
pub(crate) enum HistoryAction {
    /// Show one change in full
    Show {
        /// Its number
        number: u64,
        /// Of this service; without it, of `default`
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
        #[command(flatten)]
        output: Output,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
}

#[derive(Subcommand)]
pub(crate) enum VerdictAction {
    /// Let a version that was taken back be tried again: its evidence begins anew on every gateway
    Reset {
        #[command(flatten)]
        flags: VerbFlags,
    },
    /// Post a message to the webhook of the ini file, and show what is answered
    Notify {
        /// A test: nothing has happened
        #[arg(long, required = true)]
        test: bool,
        #[command(flatten)]
        output: Output,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
}

/// How many are wanted.
///
/// # Errors
/// It is no number, or none are.
fn at_least_one(text: &str) -> Result<NonZeroUsize, String> {
    let count: usize = text.parse().map_err(|_| "not a number".to_owned())?;
    NonZeroUsize::new(count).ok_or_else(|| "at least 1".to_owned())
}
