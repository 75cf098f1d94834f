//! From the command line to what carries it out, and from the outcome to the exit code.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap_complete::Shell;
use crossbeam_channel::Receiver;

use crate::cli::arguments::{self, Action, Arguments, FleetAction, ListsAction, ShellName};
use crate::cli::exit::Exit;
use crate::cli::lists;
use crate::cli::manual;
use crate::cli::peers::{self, Form};
use crate::cli::{accept, check, demo, explain, fleet, lists_check, reload, status, upgrade};
use crate::route::explain::Question;
use crate::{process, run};

/// Reads the command line of this process, and does what it says.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // It says where: help that was asked for is no complaint.
            let _ = error.print();
            return match error.use_stderr() {
                true => Exit::Usage,
                false => Exit::Done,
            }
            .into();
        }
    };
    let outcome = match arguments.action {
        Some(Action::Run { supervise, config }) if supervise => match run::supervise(&config) {
            Ok(code) => return ExitCode::from(code),
            Err(error) => Err(error),
        },
        Some(Action::Run { config, .. }) => serve(&config),
        Some(Action::Reload { config }) => tell_to_reload(&config),
        Some(Action::Upgrade { program, config }) => {
            upgrade::upgrade(&config, program.as_deref()).map(|line| tell(&format!("{line}\n")))
        }
        Some(Action::Status { strict, config }) => match ask(&config, strict) {
            Ok(Standing::Degraded) => return Exit::Degraded.into(),
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
        Some(Action::Completions { shell }) => {
            complete(shell);
            Ok(())
        }
        Some(Action::Man { out }) => man(out.as_deref()),
        None if arguments.test => test(&arguments.config),
        None => {
            Err("nothing to do: `graygate run -c FILE`, `graygate -t -c FILE`, or --help".into())
        }
    };
    match outcome {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            complain(&error);
            Exit::Failed.into()
        }
    }
}

fn serve(path: &Path) -> Result<(), String> {
    let commands = process::commands().map_err(|error| format!("signals: {error}"))?;
    run::run_file(path, &commands)
}

fn act(action: impl FnOnce(&Receiver<process::Command>) -> io::Result<()>) -> Result<(), String> {
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

fn complete(shell: ShellName) {
    let shell = match shell {
        ShellName::Bash => Shell::Bash,
        ShellName::Zsh => Shell::Zsh,
        ShellName::Fish => Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut arguments::command(), "graygate", &mut text);
    tell(&String::from_utf8_lossy(&text));
}

fn man(out: Option<&Path>) -> Result<(), String> {
    let text = match out {
        None => manual::main_page().map_err(|error| error.to_string())?,
        Some(folder) => {
            let written = manual::write(folder)?;
            let shown = written.iter().map(|it| format!("{}\n", it.display()));
            shown.collect()
        }
    };
    tell(&text);
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
