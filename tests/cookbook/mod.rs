//! What docs/gray.md tells people to type, read as they would read it.
//!
//! A recipe is a block "```sh recipe": lines of `redis-cli`, of `curl` with the outcome behind `  # `, and of
//! `graygate explain`. An `ini` block under the same heading holds what the gateway is configured with
//! meanwhile. Whatever cannot be read is an error, and so is a block of commands that is not a recipe, unless
//! the line before it says why.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

/// Before a block that is not run, with the reason.
const NOT_RUN: &str = "<!-- not run here: ";

/// What begins a line that writes a file, up to its name.
const INSTALL: &str = "sudo install -m 640 -g graygate /dev/stdin /etc/graygate/";

/// One block of the page.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    /// What it stands under.
    pub(crate) heading: String,
    /// The line of the page with its first step, from 1.
    pub(crate) line: usize,
    /// The ini file's lines that it needs.
    pub(crate) settings: String,
    pub(crate) steps: Vec<Step>,
}

/// One line of a recipe.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// The line of the page, from 1.
    pub(crate) line: usize,
    /// As it stands there.
    pub(crate) text: String,
    /// The command's words.
    pub(crate) words: Vec<String>,
    pub(crate) act: Act,
}

/// What a line does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Act {
    /// A file of /etc/graygate that is there before the gateway is, by its name, with one line: `sudo install
    /// -m 640 -g graygate /dev/stdin /etc/graygate/NAME <<<'LINE'`.
    Install(String, String),
    /// `redis-cli` with these words.
    Push(Vec<String>),
    /// `curl`, and what comes of it.
    Ask(Ask, Wanted),
    /// `graygate explain` with these words, and the pool that it names.
    Explain(Vec<String>, String),
}

/// A request by `curl`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ask {
    /// `--interface`.
    pub(crate) source: Option<String>,
    pub(crate) method: String,
    /// The authority of the URL, which is the `Host` unless a field says otherwise.
    pub(crate) authority: String,
    /// Path and query.
    pub(crate) target: String,
    /// `-H` and `-b`, in the order in which curl sends them.
    pub(crate) fields: Vec<(String, String)>,
    /// `-c FILE -b FILE`: cookies are kept, and sent again.
    pub(crate) has_jar: bool,
    /// `-d`.
    pub(crate) body: Option<String>,
}

/// What is said behind a `curl`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) outcome: Outcome,
    pub(crate) claims: Vec<Claim>,
}

/// Who answers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// `pre`, `prod`, `shop pre`.
    By(String),
    /// `pre or prod`.
    Either,
    /// `as before`.
    AsBefore,
    /// The gateway itself, with this status.
    Status(u16),
}

/// What else is true.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Claim {
    /// `the peer gets NAME: VALUE`; `…` in the value is whatever is there.
    PeerGets(String, String),
    /// `the peer gets no NAME`
    PeerGetsNo(String),
    /// `the answer has NAME: VALUE`
    AnswerHas(String, String),
    /// `the answer has no NAME`
    AnswerHasNo(String),
}

/// All recipes of a page.
pub(crate) fn recipes(page: &str) -> Result<Vec<Recipe>, String> {
    let mut recipes = Vec::new();
    let (mut heading, mut settings, mut are_used, mut before) = ("", String::new(), true, "");
    let mut lines = page.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        if line.starts_with('#') {
            if !are_used {
                return Err(format!("{heading}: no recipe uses its settings"));
            }
            (heading, settings, are_used) =
                (line.trim_start_matches('#').trim(), String::new(), true);
        } else if let Some(language) = line.strip_prefix("```") {
            let inside: Vec<(usize, &str)> = lines
                .by_ref()
                .take_while(|(_, it)| *it != "```")
                .map(|(at, it)| (at + 1, it))
                .collect();
            let is_run = !before.starts_with(NOT_RUN);
            match language {
                "sh recipe" => {
                    let steps: Result<Vec<_>, _> =
                        inside.iter().filter_map(|it| step(*it)).collect();
                    let recipe = Recipe {
                        heading: heading.to_owned(),
                        line: at + 2,
                        settings: settings.clone(),
                        steps: steps?,
                    };
                    check(&recipe)?;
                    recipes.push(recipe);
                    are_used = true;
                }
                "ini" if is_run => {
                    let inside: Vec<&str> = inside.iter().map(|it| it.1).collect();
                    (settings, are_used) = (inside.join("\n"), false);
                }
                "sh" | "bash" | "shell" | "" if is_run => {
                    return Err(format!("line {}: this block is not run", at + 1));
                }
                _ => {}
            }
        }
        if !line.is_empty() {
            before = line;
        }
    }
    match are_used {
        true => Ok(recipes),
        false => Err(format!("{heading}: no recipe uses its settings")),
    }
}

/// A recipe that would hold whatever the gateway does is none.
fn check(recipe: &Recipe) -> Result<(), String> {
    let asks = recipe.steps.iter().filter_map(|it| match &it.act {
        Act::Ask(_, wanted) => Some(format!("{wanted:?}")),
        _ => None,
    });
    let different: BTreeSet<String> = asks.collect();
    match different.len() {
        0 | 1 => Err(format!(
            "{}, line {}: all its requests have one outcome",
            recipe.heading, recipe.line
        )),
        _ => Ok(()),
    }
}

/// What a line says; nothing for a comment.
fn step((line, text): (usize, &str)) -> Option<Result<Step, String>> {
    if text.trim().is_empty() || text.starts_with('#') {
        return None;
    }
    if let Some(file) = text.strip_prefix(INSTALL) {
        let file = file
            .strip_suffix('\'')
            .and_then(|it| it.split_once(" <<<'"));
        let file = file.ok_or(format!("line {line}: what is in that file? {text}"));
        return Some(file.map(|(name, content)| Step {
            line,
            text: text.to_owned(),
            words: Vec::new(),
            act: Act::Install(name.to_owned(), content.to_owned()),
        }));
    }
    let (command, comment) = text.split_once("  # ").unwrap_or((text, ""));
    let step = words(command.trim()).and_then(|words| {
        let act = act(&words, comment.trim())?;
        let text = text.to_owned();
        Ok(Step {
            line,
            text,
            words,
            act,
        })
    });
    Some(step.map_err(|why| format!("line {line}: {why}: {text}")))
}

fn act(words: &[String], comment: &str) -> Result<Act, String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let owned = |words: &[&str]| {
        words
            .iter()
            .map(|it| (*it).to_owned())
            .collect::<Vec<String>>()
    };
    match words[..] {
        ["redis-cli", ref rest @ ..] if rest.len() > 1 => Ok(Act::Push(owned(rest))),
        ["curl", ref rest @ ..] => Ok(Act::Ask(ask(rest)?, wanted(comment)?)),
        ["sudo", "graygate", "explain", ref rest @ ..] => match comment {
            "pre" | "prod" => Ok(Act::Explain(owned(rest), comment.to_owned())),
            _ => Err("neither pre nor prod is said of it".into()),
        },
        _ => Err("neither redis-cli, curl nor sudo graygate explain".into()),
    }
}

fn ask(words: &[&str]) -> Result<Ask, String> {
    let mut ask = Ask::default();
    let (mut cookies, mut method, mut saved) = (Vec::new(), None, None);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().copied().ok_or(format!("{word} has no value"));
        match *word {
            "-s" | "-i" => {}
            "-H" => {
                let field = value()?;
                let (name, value) = field
                    .split_once(": ")
                    .ok_or(format!("{field} is no field"))?;
                ask.fields.push((name.to_owned(), value.to_owned()));
            }
            "-b" => cookies.push(value()?),
            "-c" => saved = Some(value()?),
            "-X" => method = Some(value()?),
            "-d" => ask.body = Some(value()?.to_owned()),
            "--interface" => ask.source = Some(value()?.to_owned()),
            url if ask.target.is_empty() => {
                let rest = url
                    .strip_prefix("http://")
                    .ok_or(format!("what is {url}?"))?;
                let at = rest.find('/').ok_or(format!("{url} has no path"))?;
                ask.authority = rest[..at].to_owned();
                ask.target = rest[at..].to_owned();
            }
            _ => return Err(format!("what is {word}?")),
        }
    }
    if ask.target.is_empty() {
        return Err("no URL".into());
    }
    // As curl reads it: a name of a file has no `=`.
    let (kept, cookies): (Vec<&str>, Vec<&str>) =
        cookies.into_iter().partition(|it| !it.contains('='));
    ask.has_jar = match (kept[..].first(), saved) {
        (None, None) => false,
        (Some(from), Some(to)) if *from == to => true,
        _ => return Err("a file of cookies takes both -b and -c".into()),
    };
    if !cookies.is_empty() {
        ask.fields.push(("Cookie".into(), cookies.join("; ")));
    }
    let usual = if ask.body.is_some() { "POST" } else { "GET" };
    ask.method = method.unwrap_or(usual).to_owned();
    Ok(ask)
}

/// `pre`, `prod (why)`, `shop pre, the peer gets NAME: VALUE`.
fn wanted(comment: &str) -> Result<Wanted, String> {
    let mut parts = comment.split(", the ");
    let outcome = parts.next().unwrap_or_default();
    // What stands in brackets is for people.
    let outcome = outcome.split_once(" (").map_or(outcome, |it| it.0);
    let outcome = match outcome {
        "pre or prod" => Outcome::Either,
        "as before" => Outcome::AsBefore,
        name if name
            .rsplit(' ')
            .next()
            .is_some_and(|it| ["pre", "prod"].contains(&it)) =>
        {
            Outcome::By(name.to_owned())
        }
        status => match status.parse() {
            Ok(status) => Outcome::Status(status),
            Err(_) => return Err(format!("what is {status:?}?")),
        },
    };
    let claims: Result<Vec<Claim>, String> = parts.map(claim).collect();
    Ok(Wanted {
        outcome,
        claims: claims?,
    })
}

fn claim(text: &str) -> Result<Claim, String> {
    let field = |text: &str| match text.split_once(": ") {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(format!("{text} is no field")),
    };
    if let Some(name) = text.strip_prefix("peer gets no ") {
        Ok(Claim::PeerGetsNo(name.to_owned()))
    } else if let Some(text) = text.strip_prefix("peer gets ") {
        field(text).map(|(name, value)| Claim::PeerGets(name, value))
    } else if let Some(name) = text.strip_prefix("answer has no ") {
        Ok(Claim::AnswerHasNo(name.to_owned()))
    } else if let Some(text) = text.strip_prefix("answer has ") {
        field(text).map(|(name, value)| Claim::AnswerHas(name, value))
    } else {
        Err(format!("what is \"the {text}\"?"))
    }
}

/// The words of a command, as a shell takes them: quotes and backslashes, and nothing else of what it knows.
fn words(command: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = command.chars();
    while let Some(char) = chars.next() {
        match char {
            ' ' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(char) => word.push(char),
                        None => return Err("a quote that does not end".into()),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(char @ ('"' | '\\' | '$' | '`')) => word.push(char),
                            Some(char) => word.extend(['\\', char]),
                            None => return Err("a quote that does not end".into()),
                        },
                        Some('$' | '`' | '!') => {
                            return Err("the shell would put something there".into());
                        }
                        Some(char) => word.push(char),
                        None => return Err("a quote that does not end".into()),
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            '*' | '?' | '[' | '$' | '`' | '&' | ';' | '|' | '<' | '>' | '(' | ')' | '!' | '#' => {
                return Err(format!(
                    "the shell takes {char} for something: it needs quotes"
                ));
            }
            char => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    Ok(words)
}
