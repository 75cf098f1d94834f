//! `graygate man`: the manual, a page for each command, made of the one definition of the command line.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use crate::cli::arguments;
use crate::cli::exit::Exit;
use crate::config::{DEFAULT_PATH, KEYS, REDIS_URL_VARIABLE};
use crate::process::notices;

/// What else there is to know first.
const DESCRIPTION: [&str; 3] = [
    "The lists of clients and servers are in Redis, or in a file; a change of them takes effect at once. \
     `graygate run` serves. Most other commands ask the running gateway, by the socket that only root and the \
     gateway's group may use; whoever else asks learns less.",
    "Every command finds the gateway by its ini file, which -c names if it is not the usual one.",
    "With --json, a command answers in JSON, for programs.",
];

/// What the gateway does when it gets a signal.
const SIGNALS: [(&str, &str); 4] = [
    (
        "SIGTERM, SIGINT",
        "Accept nothing more, finish what is under way within drain_timeout, and end.",
    ),
    (
        "SIGHUP",
        "Read the ini file anew. A bad one changes nothing. `graygate reload` also says what has come of it.",
    ),
    (
        "SIGUSR1",
        "Open the log files anew, after they were moved away.",
    ),
    (
        "SIGUSR2",
        "An upgrade with the program that lies at the path of the running one. `graygate upgrade` also says what \
         has come of it.",
    ),
];

/// Keys of the ini file whose defaults are files, and what these are.
const FILES: [(&str, &str); 5] = [
    (
        "gateway.pid_file",
        "The process id of the running gateway, which holds a lock on the file.",
    ),
    (
        "admin.socket",
        "Where the commands ask the running gateway; for root and the gateway's group.",
    ),
    ("log.access", "The access log."),
    ("log.error", "The error log."),
    (
        "lists.last_good",
        "The last good lists, for a start while Redis is away.",
    ),
];

/// What of the environment is heeded.
const ENVIRONMENT: [(&str, &str); 3] = [
    (
        REDIS_URL_VARIABLE,
        "The URL of Redis, which takes precedence over [redis] url unless it is empty.",
    ),
    (
        notices::MANAGER,
        "Where a service manager is told of the state: see sd_notify(3).",
    ),
    (
        notices::WATCHDOG,
        "How often it wants to hear of the process, in microseconds.",
    ),
];

/// The main page, as roff.
pub(super) fn main_page() -> io::Result<String> {
    page(&built())
}

/// Writes every page into `folder`, which is made if it is missing; returns the files.
///
/// # Errors
/// The kernel's, with the path.
pub(super) fn write(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let named = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    fs::create_dir_all(folder).map_err(|error| named(folder, error))?;
    let mut written = Vec::new();
    for command in all(built()) {
        let path = folder.join(format!("{}.{SECTION}", name(&command)));
        let text = page(&command).map_err(|error| named(&path, error))?;
        fs::write(&path, text).map_err(|error| named(&path, error))?;
        written.push(path);
    }
    Ok(written)
}

/// System administration.
const SECTION: &str = "8";

/// The definition with all that is derived.
fn built() -> Command {
    // `help` needs no page, and would have one for each other command.
    let mut command = arguments::command().disable_help_subcommand(true);
    command.build();
    command
}

/// This command, and all below it.
fn all(command: Command) -> Vec<Command> {
    let below: Vec<Command> = command.get_subcommands().cloned().collect();
    let below = below.into_iter().flat_map(all);
    [command].into_iter().chain(below).collect()
}

/// As the page is called: `graygate-lists-show`.
fn name(command: &Command) -> &str {
    let name = command.get_display_name();
    name.unwrap_or_else(|| command.get_name())
}

fn page(command: &Command) -> io::Result<String> {
    let is_main = command.get_name() == name(command);
    let man = Man::new(command.clone())
        .title(name(command).to_uppercase())
        .section(SECTION)
        .source(concat!("graygate ", env!("CARGO_PKG_VERSION")))
        .manual("System Administration");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    synopsis(command).to_writer(&mut text)?;
    man.render_description_section(&mut text)?;
    if is_main {
        let mut more = Roff::new();
        for paragraph in DESCRIPTION {
            more.control("PP", []).text([roman(paragraph)]);
        }
        more.to_writer(&mut text)?;
    }
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut rest = Roff::new();
    if let Some(more) = command.get_after_long_help() {
        // Its lines are laid out already.
        rest.control("SH", ["NOTES"]).control("nf", []);
        for line in more.to_string().lines() {
            rest.text([roman(line)]);
        }
        rest.control("fi", []);
    }
    exit_status(&mut rest, is_main || command.get_name() == "status");
    if is_main {
        signals_files_and_environment(&mut rest);
    }
    see_also(&mut rest, is_main);
    rest.to_writer(&mut text)?;
    String::from_utf8(text).map_err(io::Error::other)
}

/// How the command is written.
fn synopsis(command: &Command) -> Roff {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let mut line = vec![bold(name)];
    let options = command
        .get_opts()
        .chain(command.get_arguments().filter(|it| is_flag(it)));
    for argument in options.chain(command.get_positionals()) {
        let (before, after) = match argument.is_required_set() {
            true => ("", ""),
            false => ("[", "]"),
        };
        line.push(roman(format!(" {before}")));
        line.extend(written(argument));
        line.push(roman(after));
    }
    if command.has_subcommands() {
        let is_required = command.is_subcommand_required_set();
        let shown = if is_required { "COMMAND" } else { "[COMMAND]" };
        line.extend([roman(" "), italic(shown), roman(" ...")]);
    }
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text(line);
    roff
}

/// Whether it takes no value, and is not one of those that every command has.
fn is_flag(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::SetTrue)
}

fn written(argument: &Arg) -> Vec<Inline> {
    let short = argument.get_short().map(|it| format!("-{it}"));
    let name = argument.get_long().map(|it| format!("--{it}")).or(short);
    let values = argument.get_value_names().unwrap_or_default();
    let values: Vec<&str> = values.iter().map(|it| it.as_str()).collect();
    let mut parts: Vec<Inline> = name.map(bold).into_iter().collect();
    if !is_flag(argument) {
        let space = if parts.is_empty() { "" } else { " " };
        parts.extend([roman(space), italic(values.join(" "))]);
    }
    parts
}

/// One of them only `status` has.
fn exit_status(roff: &mut Roff, with_degraded: bool) {
    roff.control("SH", ["EXIT STATUS"]);
    let all = Exit::ALL.into_iter();
    for exit in all.filter(|it| *it != Exit::Degraded || with_degraded) {
        entry(roff, &exit.code().to_string(), exit.text());
    }
}

fn signals_files_and_environment(roff: &mut Roff) {
    roff.control("SH", ["SIGNALS"]);
    for (signal, what) in SIGNALS {
        entry(roff, signal, what);
    }
    roff.control("SH", ["FILES"]);
    entry(
        roff,
        DEFAULT_PATH,
        "The ini file: every key with its default, its unit and a line of explanation.",
    );
    for (key, what) in FILES {
        let key = KEYS.iter().find(|it| it.full_name == key);
        if let Some(key) = key {
            let set_by = format!("{what} [{}] {} names another.", key.section, key.name);
            entry(roff, key.default, &set_by);
        }
    }
    roff.control("SH", ["ENVIRONMENT"]);
    for (name, what) in ENVIRONMENT {
        entry(roff, name, what);
    }
}

fn see_also(roff: &mut Roff, is_main: bool) {
    roff.control("SH", ["SEE ALSO"]);
    if is_main {
        roff.text([
            roman("The pages of the commands, such as "),
            bold("graygate-status"),
            roman("(8)."),
        ]);
    } else {
        roff.text([bold("graygate"), roman("(8)")]);
    }
}

/// A term, and what it is.
fn entry(roff: &mut Roff, term: &str, what: &str) {
    roff.control("TP", []);
    roff.text([bold(term)]);
    roff.text([roman(what)]);
}
