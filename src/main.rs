//! The command line: what to do, and the exit code.
//!
//! 0: done, or drained after a signal. 1: it could not be done; one line on standard error says
//! why. 2: the command line is wrong; or, by `status --strict`, the gateway serves and lacks something.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use graygate::cli::lists::{self, Whom};
use graygate::cli::peers::Form;
use graygate::cli::{
    accept, check, demo, explain, fleet, lists_check, peers, reload, status, upgrade,
};
use graygate::memory::advice;
use graygate::route::explain::Question;
use graygate::{process, run};

/// A gray-release gateway: listed clients reach the new version, everybody else the old one.
#[derive(Parser)]
#[command(
    version,
    arg_required_else_help = true,
    args_conflicts_with_subcommands = true
)]
struct Arguments {
    /// Check the configuration, and exit with 0 or 1
    #[arg(short = 't')]
    test: bool,
    /// The ini file
    #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Serve, in the foreground, until SIGTERM or SIGINT
    Run {
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
    /// Make the running gateway read its ini file again; exits with 0 if it is in force
    Reload {
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
    /// Put a new process in the place of the running gateway, without refusing a connection; exits with 0 if
    /// it serves, with 1 if the old one serves on
    Upgrade {
        /// The program, if not the one that lies where this one was started from
        #[arg(long, value_name = "PATH")]
        program: Option<PathBuf>,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
    /// Show the state of the running gateway; exits with 0 if it is serving, else with 1
    Status {
        /// Exit with 2 if it is serving, but lacks something: the lines `degraded`
        #[arg(long)]
        strict: bool,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
    /// Show, compare and check lists, and accept a held change
    Lists {
        #[command(subcommand)]
        action: ListsAction,
    },
    /// Show who would serve a client, and why
    Explain {
        /// The address that the connection comes from
        ip: IpAddr,
        /// A header field of the request; may be given more than once
        #[arg(long = "header", value_name = "NAME: VALUE")]
        headers: Vec<String>,
        #[command(flatten)]
        of: Of,
    },
    /// Show every server of the running gateway, and how it does
    #[command(after_long_help = PEERS_HELP)]
    Peers {
        /// Show what the page /peers says, for programs
        #[arg(long)]
        json: bool,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
    /// Show the gateways on the configured Redis, and the lists that each of them holds
    #[command(args_conflicts_with_subcommands = true)]
    Fleet {
        #[command(subcommand)]
        action: Option<FleetAction>,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
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
}

/// Whose lists.
#[derive(Args)]
struct Of {
    /// Read the configured store instead of asking the running gateway
    #[arg(long)]
    offline: bool,
    /// The ini file
    #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

impl Of {
    fn whom(&self) -> Whom {
        match self.offline {
            true => Whom::Store,
            false => Whom::Gateway,
        }
    }
}

#[derive(Subcommand)]
enum ListsAction {
    /// Show the lists in force, in the form of a lists file
    Show {
        #[command(flatten)]
        of: Of,
    },
    /// Show what only the store has (+) or only the running gateway (-); exits with 0 if
    /// they are the same
    Diff {
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
    /// Accept a held change on the running gateway; exits with 0 if it is in force
    Accept {
        /// The digest of the held change, as /lists and the error log show it
        digest: String,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
    /// Check a lists file, or else the store, for likely mistakes; exits with 0 if there are none
    Check {
        /// A lists file
        file: Option<PathBuf>,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
}

#[derive(Subcommand)]
enum FleetAction {
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
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
}

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

const DEFAULT_CONFIG: &str = "/etc/graygate/graygate.ini";

fn main() -> ExitCode {
    advice::return_large_blocks();
    let arguments = Arguments::parse();
    let outcome = match arguments.action {
        Some(Action::Run { config }) => serve(&config),
        Some(Action::Reload { config }) => tell_to_reload(&config),
        Some(Action::Upgrade { program, config }) => {
            upgrade::upgrade(&config, program.as_deref()).map(|line| tell(&format!("{line}\n")))
        }
        Some(Action::Status { strict, config }) => match ask(&config, strict) {
            Ok(Standing::Degraded) => return ExitCode::from(DEGRADED),
            Ok(Standing::Good) => Ok(()),
            Err(error) => Err(error),
        },
        Some(Action::Lists { action }) => on_lists(action),
        Some(Action::Explain { ip, headers, of }) => {
            let question = Question {
                socket: ip,
                headers: &headers,
            };
            explain::explain(&of.config, &question, of.whom()).map(|text| tell(&text))
        }
        Some(Action::Peers { json, config }) => {
            let form = if json { Form::Json } else { Form::Table };
            peers::show(&config, form).map(|text| tell(&text))
        }
        Some(Action::Fleet { action, config }) => on_fleet(action, &config),
        Some(Action::Demo { listen }) => act(|commands| demo::demo(listen, commands)),
        Some(Action::Origin { listen, name }) => {
            act(|commands| demo::origin(listen, &name, commands))
        }
        None if arguments.test => test(&arguments.config),
        None => {
            Err("nothing to do: `graygate run -c FILE`, `graygate -t -c FILE`, or --help".into())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn serve(path: &Path) -> Result<(), String> {
    let commands = process::commands().map_err(|error| format!("signals: {error}"))?;
    run::run_file(path, &commands)
}

fn act(
    action: impl FnOnce(&crossbeam_channel::Receiver<process::Command>) -> io::Result<()>,
) -> Result<(), String> {
    let commands = process::commands().map_err(|error| format!("signals: {error}"))?;
    action(&commands).map_err(|error| error.to_string())
}

fn test(path: &Path) -> Result<(), String> {
    let startup = process::Startup::begin().map_err(|error| error.to_string())?;
    startup.at(format!("checking {}, and what it names", path.display()));
    for warning in check::check(path)? {
        complain(&format!("warning: {warning}"));
    }
    tell(&format!("{}: the configuration is good\n", path.display()));
    Ok(())
}

/// The exit code of `status --strict` for a gateway that serves and lacks something.
const DEGRADED: u8 = 2;

/// How a gateway stands that serves.
enum Standing {
    Good,
    Degraded,
}

fn ask(path: &Path, strict: bool) -> Result<Standing, String> {
    let report = status::ask(path)?;
    tell(&report.text);
    match report.serves {
        true if strict && report.degraded => Ok(Standing::Degraded),
        true => Ok(Standing::Good),
        false => Err("not serving".to_owned()),
    }
}

fn tell_to_reload(path: &Path) -> Result<(), String> {
    let outcome = reload::reload(path)?;
    tell(&format!("{outcome}\n"));
    Ok(())
}

fn on_lists(action: ListsAction) -> Result<(), String> {
    match action {
        ListsAction::Show { of } => lists::show(&of.config, of.whom()).map(|text| tell(&text)),
        ListsAction::Diff { config } => {
            let difference = lists::diff(&config)?;
            tell(&difference.text);
            match difference.same {
                true => Ok(()),
                false => Err("the gateway does not hold what the store has".to_owned()),
            }
        }
        ListsAction::Accept { digest, config } => {
            let outcome = accept::accept(&config, &digest)?;
            tell(&format!("{outcome}\n"));
            Ok(())
        }
        ListsAction::Check { file, config } => check_lists(file.as_deref(), &config),
    }
}

fn on_fleet(action: Option<FleetAction>, config: &Path) -> Result<(), String> {
    let said = match action {
        None => fleet::list(config),
        Some(FleetAction::Wait {
            digest,
            timeout,
            nodes,
            config,
        }) => fleet::wait(&config, &digest, timeout, nodes),
    };
    let said = said?;
    if let Some(note) = &said.note {
        complain(&format!("note: {note}"));
    }
    tell(&said.text);
    Ok(())
}

fn check_lists(file: Option<&Path>, config: &Path) -> Result<(), String> {
    let report = lists_check::check(file, config)?;
    tell(&report.text);
    match report.remarks {
        0 => Ok(()),
        1 => Err("1 entry to look at".to_owned()),
        count => Err(format!("{count} entries to look at")),
    }
}

/// What is wrong, on standard error.
fn complain(text: &str) {
    // Nobody is left to tell if this fails.
    let _ = writeln!(io::stderr(), "graygate: {text}");
}

/// What the user has asked for, on standard output.
fn tell(text: &str) {
    // A reader that has gone needs no word.
    let _ = io::stdout().write_all(text.as_bytes());
}
