//! docs/release.md tells a whole release: its commands are run, in their order, with three gateways and
//! clients who ask all the time, and each says what it says there.
//!
//! What differs from release to release is not compared: times, numbers, digests, addresses, names of
//! people, which of the gateways it was, and the width of columns. A line `…` stands for any lines. Commands
//! that only look are asked again until they say it.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)] // The other test uses the rest.
mod story;
mod support;

use std::time::{Duration, Instant};

use story::crowd::Crowd;
use story::world::{World, uids};

const HEADING: &str = "## A release from beginning to end\n";

/// What happens besides commands.
const BREAKS: &str = "<!-- here: two of five answers of the new version become failures -->";
const MENDED: &str = "<!-- here: the new version is mended, on the same servers -->";

/// How long it may take until a command says what it says in the page.
const PATIENCE: Duration = Duration::from_secs(60);

/// A command and what it says; or what happens.
#[derive(Debug)]
enum Scene {
    Command {
        words: Vec<String>,
        says: Vec<String>,
    },
    Breaks,
    Mended,
}

fn scenes() -> Vec<Scene> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/release.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once(HEADING).unwrap();
    let (chapter, _) = rest.split_once("\n## ").unwrap();
    let (mut scenes, mut is_console) = (Vec::new(), false);
    for line in chapter.lines() {
        match line {
            "```console" => is_console = true,
            "```" => is_console = false,
            BREAKS => scenes.push(Scene::Breaks),
            MENDED => scenes.push(Scene::Mended),
            _ if line.starts_with("<!--") => panic!("what is to happen? {line}"),
            _ if !is_console => (),
            _ => match (line.strip_prefix("$ "), scenes.last_mut()) {
                (Some(command), _) => scenes.push(Scene::Command {
                    words: words(command),
                    says: Vec::new(),
                }),
                (None, Some(Scene::Command { says, .. })) => says.push(line.to_owned()),
                _ => panic!("nobody says {line}"),
            },
        }
    }
    scenes
}

/// As a shell takes them; what is in single quotes is one.
fn words(command: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for (number, part) in command.split('\'').enumerate() {
        match number % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

/// Without what differs from release to release. Evidence is a number only up to a million.
fn plain(line: &str) -> String {
    line.replace("more than 1,000,000", "1,000,000")
        .split_whitespace()
        .map(plain_word)
        .collect::<Vec<_>>()
        .join(" ")
}

fn plain_word(word: &str) -> String {
    let core = word.trim_start_matches('(');
    let core = core.trim_end_matches([',', '.', ';', ':', ')']);
    let (begin, end) = word.split_once(core).unwrap_or_default();
    let is_digest = core.len() == 16 && core.bytes().all(|it| it.is_ascii_hexdigit());
    let core = match core {
        _ if is_digest => "DIGEST".to_owned(),
        it if it.contains('@') => "WHO".to_owned(),
        it if it.starts_with("gw-") => "GATEWAY".to_owned(),
        it if it.starts_with(|first: char| first.is_ascii_digit()) => "NUMBER".to_owned(),
        // Of times.
        "s" | "min" | "h" => "LONG".to_owned(),
        // How often lists came depends on what was read at once.
        it if it.starts_with("generation=") => "generation=NUMBER".to_owned(),
        it => match it
            .strip_prefix("percent:")
            .and_then(|it| it.split_once(':'))
        {
            Some((_, by)) => format!("percent:SHARE:{by}"),
            None => it.to_owned(),
        },
    };
    format!("{begin}{core}{end}")
}

fn is_told(told: &[String], said: &[String]) -> bool {
    match told.split_first() {
        None => said.is_empty(),
        Some((first, rest)) if first == "…" => {
            (0..=said.len()).any(|it| is_told(rest, &said[it..]))
        }
        Some((first, rest)) => {
            said.first().is_some_and(|it| plain(it) == plain(first)) && is_told(rest, &said[1..])
        }
    }
}

/// It changes nothing, so it may be asked again.
fn only_looks(words: &[String]) -> bool {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    matches!(
        words[..],
        ["graygate", "verdict" | "history" | "fleet" | "status", ..]
            | ["graygate", "rollout", "status", ..]
    ) && !words.contains(&"reset")
}

/// Runs it on the machine of the first gateway; what it says.
fn run(world: &World, words: &[String]) -> Vec<String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (program, words) = words.split_first().unwrap();
    assert_eq!(*program, "graygate");
    // What takes ten minutes for a reader.
    let words = words.iter().map(|it| if *it == "10m" { "4s" } else { it });
    let output = world.run(&words.collect::<Vec<_>>());
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    said.lines().map(str::to_owned).collect()
}

#[test]
fn every_command_of_a_whole_release_says_what_it_says_in_the_page() {
    let scenes = scenes();
    assert!(scenes.len() > 12, "{scenes:?}");
    let world = World::new();
    let crowd = Crowd::gather(&uids("reader", "", &[(200, 0..10_000)]), &world.addresses());
    crowd.wait_for_all();
    for scene in &scenes {
        let (words, says) = match scene {
            Scene::Breaks => {
                world.wait_stored("a quarter has it", PATIENCE, |it| it.lists.share() >= 2_500);
                world.break_new_version();
                continue;
            }
            Scene::Mended => {
                world.mend_new_version();
                continue;
            }
            Scene::Command { words, says } => (words, says),
        };
        let begun = Instant::now();
        loop {
            let said = run(&world, words);
            if is_told(says, &said) {
                break;
            }
            let may_come = only_looks(words) && begun.elapsed() < PATIENCE;
            assert!(
                may_come,
                "{}\n\nin the page:\n{}\n\nnow:\n{}\n",
                words.join(" "),
                says.join("\n"),
                said.join("\n")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let failed = crowd.dismiss();
    let failed = failed.iter().filter(|it| it.said.is_err());
    assert_eq!(failed.count(), 0);
}
