//! The command line as it is written: commands, options, and what `--help` says of them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Command, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::cli::asked::Asked;
use crate::cli::lists::Whom;
use crate::cli::report::Form;
use crate::config::DEFAULT_PATH;
use crate::release::change::ShareBy;

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

/// In which form the answer is wanted.
#[derive(Args)]
pub(crate) struct Output {
    /// Answer in JSON, for programs
    #[arg(long)]
    json: bool,
}

impl Output {
    pub(crate) fn form(&self) -> Form {
        match self.json {
            true => Form::Json,
            false => Form::Text,
        }
    }
}

/// Of which service.
#[derive(Args)]
pub(crate) struct ServiceAsked {
    /// Only of this service, or of `default`; without it, of all that there are
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
}

/// What every verb takes.
#[derive(Args)]
pub(crate) struct VerbFlags {
    /// Of this service; without it, of `default`
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Who, for the history; without it, the login name and the host
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
    /// Wait until the gateways have it in force; on a terminal they are waited for without it
    #[arg(long, conflicts_with = "no_wait")]
    pub(crate) wait: bool,
    /// Wait for no gateway
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// How long to wait, such as 500ms or 2m; a day at most
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    /// Say what would change, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Ask nothing: also what the gateways would hold is meant
    #[arg(long, short = 'y')]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: Output,
    /// The ini file
    #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_PATH)]
    pub(crate) config: PathBuf,
}

/// By what it is told who is in a share.
#[derive(Args)]
#[group(multiple = false)]
pub(crate) struct StageBy {
    /// By the value of this cookie; who has none is in no share
    #[arg(long, value_name = "NAME")]
    by_cookie: Option<String>,
    /// By the value of this header field; who has none is in no share
    #[arg(long, value_name = "NAME")]
    by_header: Option<String>,
    /// By a cookie that the gateway sets
    #[arg(long)]
    visitor: bool,
}

impl StageBy {
    /// What was said, if something was.
    pub(crate) fn key(self) -> Option<ShareBy> {
        let cookie = self.by_cookie.map(ShareBy::Cookie);
        let header = self.by_header.map(ShareBy::Header);
        cookie
            .or(header)
            .or(self.visitor.then_some(ShareBy::Visitor))
    }
}

/// Whose lists.
#[derive(Args)]
pub(crate) struct Of {
    /// Read the configured store instead of asking the running gateway
    #[arg(long)]
    pub(crate) offline: bool,
    /// The ini file
    #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_PATH)]
    pub(crate) config: PathBuf,
}

impl Of {
    pub(crate) fn whom(&self) -> Whom {
        match self.offline {
            true => Whom::Store,
            false => Whom::Gateway,
        }
    }
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
        #[arg(long, value_name = "N", default_value_t = 20)]
        last: usize,
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

const EXPLAIN_HELP: &str = "\
The request is told by its parts, or by a curl command that would send it. Everything behind --curl
belongs to that command, so it stands last; a whole command in quotes will do, too:

  graygate explain 10.1.2.3 --host shop.example.com --path /cart --cookie uid=4711
  graygate explain --curl curl 'https://shop.example.com/cart' -H 'Cookie: uid=4711'
";

const ENTRIES_HELP: &str = "\
An entry of several terms, or with a blank in it, is one argument:

  graygate admit 10.1.2.3 10.2.0.0/16 'cookie:uid=4711' 'header:X-Team=qa until=2027-01-31T00:00Z'
  graygate remove 10.1.2.3";

const STAGE_HELP: &str = "\
Whoever is in a share stays in it when it grows. The first share of another new version falls to others than
that of the version before: it gets a new salt.

  graygate stage 5% --by-cookie uid
  graygate stage 25%                   # the same cookie
  graygate stage 0%";

const ROLLOUT_HELP: &str = "\
A gateway carries it on: a step is taken when its time is over and the verdict finds the new version good
enough. A version that is taken back ends it.

  graygate rollout start --steps 1,5,25,50,100 --every 10m --by-cookie uid --promote
  graygate rollout status
  graygate rollout abort";

const PEERS_HELP: &str = "\
One line for each server (peer) of each pool:

  WEIGHT    how much it is asked, compared with the others
  STATE     up         it has its share of the requests
            starting   it is back, with a share that grows ([upstream] slow_start)
            out        it is left alone; why, and for how long. `trial due`: the next request that may
                       be risked is its trial. `asked all the same`: too many others are out
                       ([upstream] max_out), so it is asked with a tenth of its share
            trial      one request is to show how it does now
            unchecked  it gets nothing before its first health check has succeeded
  OUTS      how often in a row it went out; each time for twice as long
  ACTIVE    requests under way
  ANSWERED  attempts that have ended well since it was listed
  FAILED    attempts that have failed, and how
  MEDIAN, P99
            time to the head of a response, in the last minute; - when there was none

A server in both pools is one server: what was counted of it stands in both lines.";

const VERDICT_HELP: &str = "\
First a sentence, then a line for failures and one for slowness, with the numbers of all gateways:

  FINDING   nothing      nothing can be said yet
            good-enough  good enough for the next step of a release
            suspect      likely worse: the evidence is 20 or more, and no reason to act yet
            worse        worse; with [verdict] mode = enforce it is taken back
            incident     both versions fail far more than usual: nothing is concluded
  PRE, PROD failed requests of those that count: of each client the first in a second, until its
            first failure
  ODDS      how many times as high the odds of failing are in pre
  EVIDENCE  how many to one, and how much makes it worse: 1 divided by [verdict] alpha
  CLIENTS   clients behind the failures of pre, as far as they are known
  GATEWAYS  how many gateways add to it, by their heartbeats";

const COMPLETIONS_HELP: &str = "\
Where the shells look for it:

  bash  graygate completions bash >/usr/share/bash-completion/completions/graygate
  zsh   graygate completions zsh >/usr/share/zsh/vendor-completions/_graygate
  fish  graygate completions fish >/usr/share/fish/vendor_completions.d/graygate.fish";

const MAN_HELP: &str = "\
To read it:      graygate man | man -l -
To install it:   graygate man --out /usr/share/man/man8";
