//! The ini file as text: which key is on which line, and nothing that could be read in two ways.
//!
//! The `ini` crate extracts the values. It is lenient: it cuts values at `#` and `;`, also separates by
//! `:`, accepts keys without a section or a value, and lets the last of two equal keys win. All of that
//! is refused here first, so that its values are exactly what is written there.
//!
//! The value of any key may be in double quotes: then everything between them is part of it, with `\"`
//! for a quote and `\\` for a backslash. The crate does not support that, so it is not given these
//! values.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, ValueResult, WrongValue, shown, wrong};
use super::key::{Key, KeyTable, Setting, service_part};
use crate::lists::ServiceName;

/// The longest file, in bytes.
const LONGEST: u64 = 16 * 1024 * 1024;

/// Reads the file at `path`, which must be text.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let mut bytes = Vec::new();
    let opened = File::open(path);
    let read = opened.and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes));
    read.map_err(|error| ConfigError::unread(&place(path, None), &error))?;
    if bytes.len() as u64 > LONGEST {
        return Err(at(path, None, "is too long", "an ini file of 16m at most"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        at(path, Some(line), "not UTF-8", "an ini file in UTF-8")
    })
}

/// An error about a line rather than a value.
fn at(path: &Path, line: Option<usize>, what: &str, allowed: &str) -> ConfigError {
    let wrong = WrongValue {
        what: what.to_owned(),
        allowed: allowed.to_owned(),
    };
    ConfigError::new(&place(path, line), &wrong)
}

fn place(path: &Path, line: Option<usize>) -> String {
    let path = path.display();
    line.map_or_else(|| path.to_string(), |line| format!("{path}:{line}"))
}

/// A file whose syntax is right; its values are still text.
pub(super) struct IniFile<'a> {
    path: &'a Path,
    /// Its folder, absolute.
    base: PathBuf,
    index: FileIndex<'a>,
    values: ini::IniMap,
}

/// What is where; lines are counted from 1.
#[derive(Default)]
struct FileIndex<'a> {
    /// The sections in their order, each with the line that it first begins on.
    sections: Vec<(&'a str, usize)>,
    /// The line that each section first begins on.
    begins: HashMap<&'a str, usize>,
    /// The line of each section's keys.
    lines: HashMap<(&'a str, &'a str), usize>,
    /// Quoted values, without their quotes, by line.
    quoted: HashMap<usize, String>,
}

impl<'a> IniFile<'a> {
    /// Parses `text`.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub(super) fn parse(
        path: &'a Path,
        text: &'a str,
        keys: KeyTable,
    ) -> Result<Self, ConfigError> {
        let index = index(path, text, keys)?;
        let unquoted = |(number, line)| match index.quoted.contains_key(&number) {
            true => "",
            false => line,
        };
        let rest: Vec<&str> = (1..).zip(text.lines()).map(unquoted).collect();
        let rest = rest.join("\n");
        let values = ini::inistr!(safe cs &rest)
            .map_err(|error| at(path, None, &error, "[section] lines and key = value lines"))?;
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Self {
            path,
            base: absolute.parent().unwrap_or(Path::new("/")).to_owned(),
            index,
            values,
        })
    }

    /// The keys of one section.
    pub(super) fn section<'s>(&'s self, name: &'s str) -> Section<'s> {
        Section {
            file: self,
            names: [name; MOST_SECTIONS],
        }
    }

    /// The keys of the first of these sections, at most [`MOST_SECTIONS`]; those that it leaves out, of the
    /// next one, and so on.
    pub(super) fn section_before<'s, const N: usize>(&'s self, names: [&'s str; N]) -> Section<'s> {
        const { assert!(0 < N && N <= MOST_SECTIONS) };
        Section {
            file: self,
            names: std::array::from_fn(|at| names[at.min(N - 1)]),
        }
    }

    /// Every section that the file has, in its order.
    pub(super) fn sections(&self) -> impl Iterator<Item = &str> {
        self.index.sections.iter().map(|(name, _)| *name)
    }

    /// The line on which a section begins, if the file has it.
    pub(super) fn line_of(&self, section: &str) -> Option<usize> {
        self.index.begins.get(section).copied()
    }

    /// An error about the file as a whole.
    pub(super) fn wrong(&self, what: &str, allowed: &str) -> ConfigError {
        at(self.path, None, what, allowed)
    }

    /// An error about a section as a whole.
    pub(super) fn wrong_section(&self, section: &str, what: &str, allowed: &str) -> ConfigError {
        let what = format!("[{section}]: {what}");
        at(self.path, self.line_of(section), &what, allowed)
    }
}

/// The most sections of which each goes before the next: one of a service and a pool, of the service, of the
/// pool, and of all.
pub(super) const MOST_SECTIONS: usize = 4;

/// One section of a file.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    file: &'a IniFile<'a>,
    /// The first is its own name; what it leaves out holds as the next ones say. The last may be repeated.
    names: [&'a str; MOST_SECTIONS],
}

impl<'a> Section<'a> {
    /// The value of a key, or its default, still as text.
    pub(super) fn get<T>(self, setting: &Setting<T>) -> Result<T, ConfigError> {
        let read = (setting.read)(self.text(&setting.key), &self.file.base);
        read.map_err(|wrong| self.wrong(&setting.key, &wrong))
    }

    /// An error about the value of a key.
    pub(super) fn wrong(self, key: &Key, wrong: &WrongValue) -> ConfigError {
        let (section, line) = self.place(key).unzip();
        let value = shown_of(key, self.text(key));
        let place = place(self.file.path, line);
        let (section, name) = (section.unwrap_or(self.names[0]), key.name);
        ConfigError::new(&format!("{place}: [{section}] {name} = {value}"), wrong)
    }

    /// The text of a key, and the line of the file that says it.
    pub(super) fn written(&self, key: &Key) -> (&str, Option<usize>) {
        (self.text(key), self.place(key).map(|(_, line)| line))
    }

    /// The name of the section.
    pub(super) fn name(self) -> &'a str {
        self.names[0]
    }

    /// The line that gives a value to a key, if the file itself does.
    pub(super) fn line<T>(self, setting: &Setting<T>) -> Option<usize> {
        self.place(&setting.key).map(|(_, line)| line)
    }

    /// Whether the file itself gives a value to a key.
    pub(super) fn has<T>(self, setting: &Setting<T>) -> bool {
        self.line(setting).is_some()
    }

    /// Whether the file itself gives a value to a key that is not empty, and of this kind.
    pub(super) fn gives<T>(self, setting: &Setting<T>, is_such: impl FnOnce(&str) -> bool) -> bool {
        let text = self.text(&setting.key);
        self.has(setting) && !text.is_empty() && is_such(text)
    }

    /// The section and the line that give a value to a key.
    fn place(self, key: &Key) -> Option<(&'a str, usize)> {
        let lines = &self.file.index.lines;
        let line = |section: &'a str| Some((section, *lines.get(&(section, key.name))?));
        self.names.into_iter().find_map(line)
    }

    fn text(&self, key: &Key) -> &str {
        let Some((section, line)) = self.place(key) else {
            return key.default;
        };
        if let Some(quoted) = self.file.index.quoted.get(&line) {
            return quoted;
        }
        let section = self.file.values.get(section);
        let given = section.and_then(|keys| keys.get(key.name)?.as_deref());
        given.unwrap_or_default()
    }
}

/// The value of a key as shown in an error. For some keys it is never shown: it could be a misspelt URL
/// with its password.
fn shown_of(key: &Key, value: &str) -> String {
    match key.secret && !value.is_empty() {
        true => "(hidden)".to_owned(),
        false => shown(value),
    }
}

/// The `text` of a file with only the lines of one section, each in its old place. `None` when no line
/// begins a section: then it is not an ini file at all.
pub(super) fn only(section: &str, text: &str, keys: KeyTable) -> Option<String> {
    let (mut any, mut here) = (false, false);
    let mut rest = String::with_capacity(text.len());
    for line in text.lines() {
        if line.starts_with('[') {
            let name = section_name(line.trim_end(), keys);
            any |= name.is_ok();
            here = name.is_ok_and(|it| it == section);
        }
        rest.push_str(if here { line } else { "" });
        rest.push('\n');
    }
    any.then_some(rest)
}

/// Finds the line of every key, and the quoted values; refuses what is ambiguous.
///
/// Lines that make no sense are reported by number only: one may be the rest of a broken URL, with its
/// password.
fn index<'a>(path: &Path, text: &'a str, keys: KeyTable) -> Result<FileIndex<'a>, ConfigError> {
    // Invisible in most editors, and not part of a name.
    if text.starts_with('\u{feff}') {
        return Err(at(path, Some(1), "a byte order mark", "UTF-8 without one"));
    }
    let mut index = FileIndex::default();
    let mut section = None;
    for (number, line) in (1..).zip(text.lines()) {
        let at_line = |error: WrongValue| at(path, Some(number), &error.what, &error.allowed);
        let line = line.trim_end();
        if line.trim_start().is_empty() || line.trim_start().starts_with(['#', ';']) {
            continue;
        }
        is_plain(line).map_err(at_line)?;
        if line.starts_with('[') {
            let name = section_name(line, keys).map_err(at_line)?;
            index.begin(name, number).map_err(at_line)?;
            section = Some(name);
        } else {
            index.add(section, line, number, keys).map_err(at_line)?;
        }
    }
    Ok(index)
}

/// What any line must be like.
fn is_plain(line: &str) -> ValueResult<()> {
    if line.contains(|it: char| it.is_control() && it != '\t') {
        return wrong("a control character", "text");
    }
    if line.starts_with(char::is_whitespace) {
        return wrong(
            "an indented line",
            "lines that begin in the first column; each value on one line",
        );
    }
    Ok(())
}

impl<'a> FileIndex<'a> {
    /// Notes that a section begins, perhaps again: but for those of services, that does not matter.
    fn begin(&mut self, name: &'a str, number: usize) -> ValueResult<()> {
        let first = *self.begins.entry(name).or_insert(number);
        if first == number {
            self.sections.push((name, number));
        } else if service_part(name).is_some() {
            let what = format!("[{name}]: given twice, first on line {first}");
            return wrong(what, "each service once");
        }
        Ok(())
    }

    /// Notes the key of a line.
    fn add(
        &mut self,
        section: Option<&'a str>,
        line: &'a str,
        number: usize,
        keys: KeyTable,
    ) -> ValueResult<()> {
        let Some((name, value)) = line.split_once('=') else {
            return wrong("a line without =", "key = value, [section], # comment");
        };
        let (name, value) = (name.trim_end(), value.trim_start());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if name.is_empty() || !name.bytes().all(plain) {
            return wrong("the text before = is not the name of a key", "key = value");
        }
        let Some(section) = section else {
            let sections = keys.allowed_sections().join("], [");
            return wrong(
                format!("{name}: a key without a section"),
                format!("keys below one of [{sections}]"),
            );
        };
        let Some(key) = keys.find(section, name) else {
            let names: Vec<_> = keys.of(section).map(|key| key.name).collect();
            return wrong(unknown(section, name, keys), names.join(", "));
        };
        if let Some(first) = self.lines.insert((section, name), number) {
            return wrong(
                format!("[{section}] {name}: given twice, first on line {first}"),
                "each key once",
            );
        }
        if let Some(rest) = value.strip_prefix('"') {
            let Some(inner) = unquoted(rest) else {
                return wrong(
                    format!("[{section}] {name}: a quote that does not enclose the value"),
                    r#"all of a value within ", with \" for " and \\ for \"#,
                );
            };
            self.quoted.insert(number, inner);
        } else if value.contains(['#', ';']) {
            let value = shown_of(key, value);
            return wrong(
                format!("[{section}] {name} = {value}: a # or ; within the value"),
                "comments on lines of their own; a value with # or ; within \", in a URL as %23 and %3B",
            );
        }
        Ok(())
    }
}

/// What is before the last quote, if that ends the text.
fn unquoted(text: &str) -> Option<String> {
    let mut inner = String::with_capacity(text.len());
    let mut rest = text.chars();
    loop {
        match rest.next()? {
            '"' => return rest.as_str().is_empty().then_some(inner),
            '\\' => inner.push(rest.next().filter(|it| matches!(it, '"' | '\\'))?),
            other => inner.push(other),
        }
    }
}

/// The name in a section's line.
fn section_name(line: &str, keys: KeyTable) -> ValueResult<&str> {
    let inner = line.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let allowed = || format!("[{}]", keys.allowed_sections().join("], ["));
    let Some(name) = inner.map(str::trim) else {
        let what = "a line that begins like a section and does not end with ]";
        return wrong(what, allowed());
    };
    if let Some((service, _)) = service_part(name) {
        is_service_name(service).map_err(|error| WrongValue {
            what: format!("[{}]: {}", shown(name), error.what),
            ..error
        })?;
    }
    match keys.of(name).next() {
        Some(_) => Ok(name),
        None => wrong(format!("[{}]: an unknown section", shown(name)), allowed()),
    }
}

/// Whether a service may be called this.
fn is_service_name(name: &str) -> ValueResult<()> {
    if name == ServiceName::DEFAULT {
        return wrong(
            "the default service has no section of its own",
            "its keys in [redis], its servers' side in [upstream] and [health]",
        );
    }
    match ServiceName::parse(name) {
        Some(_) => Ok(()),
        None => wrong(
            "it is not the name of a service",
            "[service NAME], after one blank 1 to 63 letters, digits, -, _ and .",
        ),
    }
}

/// Says that a key is unknown, and where it would be known.
fn unknown(section: &str, name: &str, keys: KeyTable) -> String {
    let elsewhere = keys
        .allowed_sections()
        .into_iter()
        .find(|it| keys.find(it, name).is_some());
    let hint = elsewhere.map_or_else(String::new, |it| format!(", but one of [{it}]"));
    format!("[{section}] {name}: not a key of this section{hint}")
}
