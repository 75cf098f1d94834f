//! The manual and the completions, as the program itself makes them for an installation.

// Not only within #[test] functions, which clippy.toml exempts.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::Command as Definition;
use graygate::cli::{Exit, command};
use graygate::config::KEYS;
use support::run_to_exit;
use tempfile::TempDir;

/// The names of all pages that there must be: `graygate`, `graygate-lists`, `graygate-lists-show`.
fn names(of: &Definition, before: &str, names: &mut BTreeSet<String>) {
    let name = format!("{before}{}", of.get_name());
    let below = format!("{name}-");
    names.insert(name);
    for of in of.get_subcommands() {
        self::names(of, &below, names);
    }
}

/// What `graygate …` says, all of it good.
#[track_caller]
fn said(arguments: &[&str]) -> String {
    let output = run_to_exit(arguments);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Whether this program is there; says so if it is not.
fn has(program: &str) -> bool {
    let started = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    let is_there = started.is_ok();
    if !is_there {
        // A test that is left out must not look like one that was made.
        eprintln!("left out: there is no {program}");
    }
    is_there
}

/// A page as it is read at a terminal, in one line.
fn read(page: &Path) -> String {
    let output = Command::new("groff")
        .args(["-man", "-ww", "-T", "utf8", "-P-cbou"])
        .arg(page)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let warned = String::from_utf8_lossy(&output.stderr);
    assert!(warned.is_empty(), "{}: {warned}", page.display());
    let text = String::from_utf8(output.stdout).unwrap();
    // Hyphens of broken lines are joined again, and the lines.
    let text = text.replace('−', "-");
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace("\u{2010} ", "")
}

#[test]
fn every_command_has_a_page_that_renders_without_a_warning() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("man8");
    let told = said(&["man", "--out", out.to_str().unwrap()]);
    let mut expected = BTreeSet::new();
    names(&command(), "", &mut expected);
    let expected: BTreeSet<String> = expected.iter().map(|it| format!("{it}.8")).collect();
    let files = fs::read_dir(&out).unwrap().map(|it| it.unwrap());
    let files: BTreeSet<String> = files
        .map(|it| it.file_name().into_string().unwrap())
        .collect();
    assert_eq!(files, expected);
    assert!(files.contains("graygate-lists-show.8"));
    for name in &files {
        assert!(told.lines().any(|it| it.ends_with(name)), "{name}: {told}");
    }
    if !has("groff") {
        return;
    }
    for name in &files {
        let (page, text) = (name.trim_end_matches(".8"), read(&out.join(name)));
        let parts = [
            format!("{}(8)", page.to_uppercase()),
            format!("NAME {page} - "),
            format!("SYNOPSIS {}", page.replace('-', " ")),
            format!("EXIT STATUS 0 {}", Exit::Done.text()),
        ];
        for part in parts {
            assert!(text.contains(&part), "{part}\nin {text}");
        }
    }
}

#[test]
fn the_main_page_has_exit_codes_signals_files_and_environment() {
    let folder = TempDir::new().unwrap();
    let page = folder.path().join("graygate.8");
    fs::write(&page, said(&["man"])).unwrap();
    if !has("groff") {
        return;
    }
    let text = read(&page);
    for exit in Exit::ALL {
        let row = format!("{} {}", exit.code(), exit.text());
        // Groff has typographic quotes.
        let row = row.replace("\"degraded\"", "");
        let text = text.replace("\"degraded\"", "");
        assert!(text.contains(&row), "{row}\nin {text}");
    }
    for variable in ["GRAYGATE_REDIS_URL", "NOTIFY_SOCKET", "WATCHDOG_USEC"] {
        assert!(text.contains(variable), "{variable}");
    }
    // The same signals as in the table for operators.
    let rows = include_str!("../docs/operating.md").lines();
    let signals: Vec<&str> = rows
        .filter_map(|it| it.strip_prefix("| SIG"))
        .filter_map(|it| it.split_once(" |"))
        .map(|it| it.0)
        .collect();
    assert!(signals.len() > 3, "{signals:?}");
    for signal in signals {
        assert!(text.contains(&format!("SIG{signal}")), "SIG{signal}");
    }
    for key in [
        "gateway.pid_file",
        "admin.socket",
        "log.access",
        "log.error",
    ] {
        let key = KEYS.iter().find(|it| it.full_name == key).unwrap();
        assert!(text.contains(key.default), "{}", key.full_name);
    }
    for below in command().get_subcommands() {
        let page = format!("graygate-{}(8)", below.get_name());
        assert!(text.contains(&page), "{page}");
    }
}

/// What bash offers for the last of these words.
fn offered(completions: &Path, words: &[&str]) -> BTreeSet<String> {
    let (last, before) = (words.len() - 1, words.join(" "));
    // As bash itself calls the function, with what readline would have.
    let script = format!(
        "source {}; COMP_WORDS=({before}); COMP_CWORD={last}; COMP_LINE='{before}'; COMP_POINT=${{#COMP_LINE}}; \
         name=$(complete -p graygate | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
         $name graygate '{}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        completions.display(),
        words[last],
        words[last - 1],
    );
    let output = Command::new("bash")
        .args(["--norc", "-c", &script])
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_and_their_options() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("graygate");
    fs::write(&file, said(&["completions", "bash"])).unwrap();
    let checked = Command::new("bash").arg("-n").arg(&file).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let only = |words: &[&str]| Vec::from_iter(offered(&file, words)).join(" ");
    assert_eq!(only(&["graygate", "li"]), "lists");
    assert_eq!(only(&["graygate", "lists", "sh"]), "show");
    assert_eq!(only(&["graygate", "status", "--st"]), "--strict");
    let shells = only(&["graygate", "completions", "\"\""]);
    for shell in ["bash", "fish", "zsh"] {
        assert!(shells.contains(shell), "{shells}");
    }
    let all = offered(&file, &["graygate", "\"\""]);
    for below in command().get_subcommands() {
        assert!(all.contains(below.get_name()), "{all:?}");
    }
}

#[test]
fn completions_for_other_shells_are_what_these_read() {
    let folder = TempDir::new().unwrap();
    for (shell, begin) in [("zsh", "#compdef graygate"), ("fish", "")] {
        let text = said(&["completions", shell]);
        assert!(text.starts_with(begin), "{text}");
        assert!(text.contains("graygate") && text.contains("lists"));
        if has(shell) {
            let file = folder.path().join(shell);
            fs::write(&file, text).unwrap();
            let checked = Command::new(shell).arg("-n").arg(&file).output().unwrap();
            assert!(checked.status.success(), "{checked:?}");
        }
    }
    let unknown = run_to_exit(&["completions", "csh"]);
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let output = run_to_exit(&["man", "--out", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(file.to_str().unwrap()), "{said}");
}
