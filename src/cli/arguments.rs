//! The command line as it is written: its commands and their options. Those of a release are in `release`,
//! what several commands take in `flags`, and the longer texts of `--help` in `help`.

mod flags;
mod help;
mod release;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Command, CommandFactory, Parser, Subcommand, ValueEnum};

use self::flags::Of;
use self::help::{COMPLETIONS_HELP, EXPLAIN_HELP, MAN_HELP, PEERS_HELP, VERDICT_HELP};
use crate::cli::asked::Asked;
use crate::config::DEFAULT_PATH;

pub(crate) use self::flags::{Output, ServiceAsked, VerbFlags};
pub(crate) use self::release::{HistoryAction, ReleaseAction, RolloutAction, VerdictAction};

/// The definition, for whatever is derived from it: documents, completions.
pub fn command() -> Command {
    Arguments::command()
}

/// A gray-release gateway: listed clients reach the new version, everybody else the old one.
#[derive(Parser)]
#[command(
    version,
    arg_required_else_help = true,
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Arguments {
    /// Check the configuration, say which changed keys wait for a restart, and exit with 0 or 1
    #[arg(short = 't')]
    pub(crate) test: bool,
    /// The ini file
    #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_PATH)]
    pub(crate) config: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) action: Option<Action>,
}

#[derive(Subcommand)]
pub(crate) enum Action {
    /// Serve, in the foreground, until SIGTERM or SIGINT
    Run {
        /// Serve by a child process, and start another one should it die; connections wait meanwhile
        #[arg(long)]
        supervise: bool,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Make the running gateway read its ini file again; exits with 0 if it is in force
    Reload {
        #[command(flatten)]
        output: Output,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Put a new process in the place of the running gateway, without refusing a connection; exits with 0 if
    /// it serves, with 1 if the old one serves on
    Upgrade {
        /// The program, if not the one that lies where this one was started from
        #[arg(long, value_name = "PATH")]
        program: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
    /// End the supervisor of the running gateway at once, and leave the gateway serving: the next `run
    /// --supervise` takes over from it; exits with 0 if it serves
    Leave {
        #[command(flatten)]
        output: Output,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Show the state of the running gateway; exits with 0 if it is serving, else with 1
    Status {
        /// Exit with 2 if it is serving, but lacks something: the lines `degraded`
        #[arg(long)]
        strict: bool,
        #[command(flatten)]
        output: Output,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Show, compare and check lists, and accept a held change
    Lists {
        #[command(subcommand)]
        action: ListsAction,
    },
    /// Show who would serve a client, and why
    #[command(after_long_help = EXPLAIN_HELP)]
    Explain {
        #[command(flatten)]
        asked: Asked,
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        of: Of,
    },
    /// Show every server of the running gateway, and how it does
    #[command(after_long_help = PEERS_HELP)]
    Peers {
        #[command(flatten)]
        of_service: ServiceAsked,
        #[command(flatten)]
        output: Output,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Show whether the new version is worse than the old one, as far as is known, and by which numbers
    #[command(after_long_help = VERDICT_HELP, args_conflicts_with_subcommands = true)]
    Verdict {
        #[command(subcommand)]
        action: Option<VerdictAction>,
        #[command(flatten)]
        of_service: ServiceAsked,
        #[command(flatten)]
        output: Output,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Show every setting that is in force, and where its value comes from
    Config {
        /// Show what the ini file says instead of asking the running gateway
        #[arg(long)]
        file: bool,
        #[command(flatten)]
        output: Output,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Show the gateways on the configured Redis, and the lists that each of them holds
    #[command(args_conflicts_with_subcommands = true)]
    Fleet {
        #[command(subcommand)]
        action: Option<FleetAction>,
        #[command(flatten)]
        output: Output,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
    #[command(flatten)]
    Release(ReleaseAction),
    /// Try it out: two servers of each version, a lists file and the gateway
    Demo {
        /// The gateway's address
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
    },
    /// Run one HTTP server that answers every request with its name
    Origin {
        /// The address to listen on
        #[arg(long, value_name = "ADDR")]
        listen: SocketAddr,
        /// The name
        #[arg(long, value_name = "TEXT")]
        name: String,
    },
    /// Print what a shell needs to complete the command line
    #[command(after_long_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell
        shell: ShellName,
    },
    /// Print the manual's main page, or write all pages as files
    #[command(after_long_help = MAN_HELP)]
    Man {
        /// Write every page into this folder, which is made if it is missing
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// A shell that can be given completions.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ShellName {
    Bash,
    Zsh,
    Fish,
}

#[derive(Subcommand)]
pub(crate) enum ListsAction {
    /// Show the lists in force, in the form of a lists file
    Show {
        #[command(flatten)]
        of_service: ServiceAsked,
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        of: Of,
    },
    /// Show what only the store has (+) or only the running gateway (-); exits with 0 if
    /// they are the same
    Diff {
        #[command(flatten)]
        of_service: ServiceAsked,
        #[command(flatten)]
        output: Output,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Accept a held change on the running gateway; exits with 0 if it is in force
    Accept {
        /// The digest of the held change, as /lists and the error log show it
        digest: String,
        #[command(flatten)]
        output: Output,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Check a lists file, or else the store, for likely mistakes; exits with 0 if there are none
    Check {
        /// A lists file
        file: Option<PathBuf>,
        #[command(flatten)]
        of_service: ServiceAsked,
        #[command(flatten)]
        output: Output,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
}

#[derive(Subcommand)]
pub(crate) enum FleetAction {
    /// Wait until each gateway holds the lists with this digest; exits with 0 once they do, otherwise
    /// with 1 and the names of those that do not
    Wait {
        /// The digest of the lists, as /lists and `graygate lists show` show it
        digest: String,
        /// How long to wait, such as 500ms or 2m; a day at most
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
        timeout: Duration,
        /// The least number of gateways that there must be
        #[arg(long, value_name = "N", default_value_t = 1)]
        nodes: usize,
        #[command(flatten)]
        output: Output,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
}
