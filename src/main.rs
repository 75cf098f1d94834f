//! The command line: what to do, and the exit code.
//!
//! 0: done, or drained after a signal. 1: it could not be done; one line on standard error says
//! why. 2: the command line is wrong.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use graygate::config::Config;
use graygate::{accept, check, demo, process, reload, run, status};

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
    /// Make the running gateway read its ini file again; exits with 0 if it took it on
    Reload {
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
    /// Ask the running gateway how it is; exits with 0 if it serves
    Status {
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
    /// What is in force, and what is held
    Lists {
        #[command(subcommand)]
        action: ListsAction,
    },
    /// Try it: two servers of each version, a lists file and the gateway
    Demo {
        /// The gateway's address
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
    },
    /// One HTTP server whose every answer contains its name
    Origin {
        /// The address to listen on
        #[arg(long, value_name = "ADDR")]
        listen: SocketAddr,
        /// The name
        #[arg(long, value_name = "TEXT")]
        name: String,
    },
}

#[derive(Subcommand)]
enum ListsAction {
    /// Let a held change in, at the running gateway; exits with 0 if it is in force
    Accept {
        /// The digest of the held change, as /lists and the error log show it
        digest: String,
        /// The ini file
        #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
}

const DEFAULT_CONFIG: &str = "/etc/graygate/graygate.ini";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.action {
        Some(Action::Run { config }) => serve(&config),
        Some(Action::Reload { config }) => tell_to_reload(&config),
        Some(Action::Status { config }) => ask(&config),
        Some(Action::Lists {
            action: ListsAction::Accept { digest, config },
        }) => accept(&config, &digest),
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
    let config = run::load(path)?;
    act(|commands| run::run(config, commands))
}

fn act(
    action: impl FnOnce(&crossbeam_channel::Receiver<process::Command>) -> io::Result<()>,
) -> Result<(), String> {
    let commands = process::commands().map_err(|error| format!("signals: {error}"))?;
    action(&commands).map_err(|error| error.to_string())
}

fn test(path: &Path) -> Result<(), String> {
    for warning in check::check(path)? {
        complain(&format!("warning: {warning}"));
    }
    tell(&format!("{}: the configuration is good\n", path.display()));
    Ok(())
}

fn ask(path: &Path) -> Result<(), String> {
    let admin = Config::admin_of(path).map_err(|error| error.to_string())?;
    let report = status::ask(admin)?;
    tell(&report.text);
    match report.serves {
        true => Ok(()),
        false => Err("it does not serve".to_owned()),
    }
}

fn tell_to_reload(path: &Path) -> Result<(), String> {
    let outcome = reload::reload(path)?;
    tell(&format!("{outcome}\n"));
    Ok(())
}

fn accept(path: &Path, digest: &str) -> Result<(), String> {
    let outcome = accept::accept(path, digest)?;
    tell(&format!("{outcome}\n"));
    Ok(())
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
