//! docs/commands.md says of every command what its definition says, and its examples are command lines that
//! the program takes.
//!
//! `UPDATE_DOCS=1 cargo test --test commands` writes what is derived.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command};
use graygate::cli::{Exit, command};

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md")
}

/// Every command that can be given, as it is derived.
fn all() -> Vec<Command> {
    fn below(of: &Command, all: &mut Vec<Command>) {
        for of in of.get_subcommands() {
            all.push(of.clone());
            below(of, all);
        }
    }
    let mut root = command().disable_help_subcommand(true);
    root.build();
    let mut all = vec![root.clone()];
    below(&root, &mut all);
    all
}

/// As it is written at a prompt.
fn name(command: &Command) -> &str {
    command.get_bin_name().unwrap_or_else(|| command.get_name())
}

/// What the definition says of a command.
fn derived(command: &Command) -> String {
    let about = command.get_long_about().or(command.get_about()).unwrap();
    let mut text = format!("{about}.\n");
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|it| {
            matches!(
                it.get_action(),
                ArgAction::Set | ArgAction::SetTrue | ArgAction::Append
            )
        })
        .collect();
    if own.is_empty() {
        return text;
    }
    text.push_str("\n| argument | default | |\n|---|---|---|\n");
    for argument in own {
        let short = argument.get_short().map(|it| format!("-{it}"));
        let option = argument.get_long().map(|it| format!("--{it}")).or(short);
        let takes_value = !matches!(argument.get_action(), ArgAction::SetTrue);
        let value = takes_value.then(|| argument.get_value_names().unwrap()[0].to_string());
        let written: Vec<String> = option.into_iter().chain(value).collect();
        let default: Vec<_> = argument
            .get_default_values()
            .iter()
            .map(|it| it.to_string_lossy())
            .collect();
        let default = match takes_value {
            true if argument.is_required_set() => "(required)".to_owned(),
            true => default.join(","),
            false => String::new(),
        };
        let help = argument.get_help().unwrap();
        writeln!(text, "| `{}` | {default} | {help} |", written.join(" ")).unwrap();
    }
    text
}

fn exit_codes() -> String {
    let mut table = "| code | name | when |\n|---|---|---|\n".to_owned();
    for exit in Exit::ALL {
        writeln!(
            table,
            "| {} | {} | {} |",
            exit.code(),
            exit.name(),
            exit.text()
        )
        .unwrap();
    }
    table
}

#[test]
fn the_page_says_what_the_definition_says() {
    let mut parts = vec![("exit codes".to_owned(), exit_codes())];
    parts.extend(all().iter().map(|it| (name(it).to_owned(), derived(it))));
    let (mut text, mut stale) = (fs::read_to_string(page()).unwrap(), Vec::new());
    for (of, wanted) in parts {
        let [begin, end] = ["begin", "end"].map(|it| format!("<!-- {it}: {of} -->\n"));
        let Some(start) = text.find(&begin) else {
            panic!("{of} has no section: {begin}{end}");
        };
        let start = start + begin.len();
        let length = text[start..].find(&end).unwrap();
        if text[start..start + length] != wanted {
            text.replace_range(start..start + length, &wanted);
            stale.push(format!("{of}:\n{wanted}"));
        }
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(page(), text).unwrap();
        return;
    }
    assert!(
        stale.is_empty(),
        "out of date (UPDATE_DOCS=1 writes them): {}",
        stale.join("\n")
    );
}

/// The words of a line as a shell would split it: quotes, but nothing that is expanded.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), false);
    for it in line.chars() {
        match it {
            '\'' => quote = !quote,
            ' ' if !quote => {
                words.extend(Some(std::mem::take(&mut word)).filter(|it| !it.is_empty()))
            }
            it => word.push(it),
        }
    }
    words.extend(Some(word).filter(|it| !it.is_empty()));
    words
}

/// The command lines of the program within the blocks for shells.
fn examples(text: &str) -> Vec<String> {
    let blocks = text.split("```sh\n").skip(1);
    let blocks = blocks.filter_map(|it| it.split_once("```")).map(|it| it.0);
    let lines = blocks.flat_map(str::lines);
    let lines = lines.map(|it| it.split(" #").next().unwrap());
    let parts = lines.flat_map(|it| it.split(['|', '&', ';', '>']));
    let parts = parts.map(|it| {
        it.trim()
            .trim_start_matches("sudo ")
            .trim_start_matches("until ")
    });
    let parts = parts.filter(|it| it.split(' ').next() == Some("graygate"));
    parts.map(str::to_owned).collect()
}

#[test]
fn every_example_is_a_command_line_and_every_command_has_one() {
    let text = fs::read_to_string(page()).unwrap();
    let examples = examples(&text);
    for line in &examples {
        let understood = command().try_get_matches_from(words(line));
        if let Err(error) = understood {
            panic!("{line}: {error}");
        }
    }
    for command in all().iter().filter(|it| !it.is_subcommand_required_set()) {
        let name = name(command);
        let is_of = |it: &&String| **it == name || it.starts_with(&format!("{name} "));
        assert!(examples.iter().any(|it| is_of(&it)), "no example of {name}");
    }
}

#[test]
fn every_answer_in_json_is_described() {
    let text = fs::read_to_string(page()).unwrap();
    let (_, text) = text.split_once("## JSON\n").unwrap();
    let (text, _) = text.split_once("\n## ").unwrap();
    let all = all();
    let with_json = all
        .iter()
        .filter(|it| it.get_arguments().any(|it| it.get_long() == Some("json")));
    for command in with_json {
        let row = match name(command) {
            // Without a command, `-t` is what has an answer.
            "graygate" => "| `graygate -t` | ".to_owned(),
            name => format!("| `{name}` | "),
        };
        assert!(text.contains(&row), "{row}");
    }
}
