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

use super::error::{ConfigError, ValueResult, WrongValue, shown};
use super::key::{Key, KeyTable, Setting};

/// The longest file, in bytes.
const LONGEST: u64 = 1024 * 1024;

/// Reads the file at `path`, which must be text.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let mut bytes = Vec::new();
    let opened = File::open(path);
    let read = opened.and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes));
    read.map_err(|error| ConfigError::unread(&place(path, None), &error))?;
    if bytes.len() as u64 > LONGEST {
        return Err(at(path, None, "is too long", "an ini file of 1m at most"));
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
    lines: KeyLines<'a>,
    values: ini::IniMap,
    quoted: Quoted,
}

/// The line of each section's keys, counted from 1.
type KeyLines<'a> = HashMap<(&'a str, &'a str), usize>;

/// Quoted values, without their quotes, by line.
type Quoted = HashMap<usize, String>;

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
        let (lines, quoted) = index(path, text, keys)?;
        let unquoted = |(number, line)| match quoted.contains_key(&number) {
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
            lines,
            values,
            quoted,
        })
    }

    /// The keys of one section.
    pub(super) fn section(&self, name: &'static str) -> Section<'_> {
        Section {
            file: self,
            name,
            general: name,
        }
    }

    /// The keys of the section `name`; those that it leaves out, of the section `general`.
    pub(super) fn section_before(&self, name: &'static str, general: &'static str) -> Section<'_> {
        Section {
            file: self,
            name,
            general,
        }
    }

    /// An error about the file as a whole.
    pub(super) fn wrong(&self, what: &str, allowed: &str) -> ConfigError {
        at(self.path, None, what, allowed)
    }
}

/// One section of a file.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    file: &'a IniFile<'a>,
    name: &'static str,
    /// What holds where it says nothing.
    general: &'static str,
}

impl Section<'_> {
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
        let (section, name) = (section.unwrap_or(self.name), key.name);
        ConfigError::new(&format!("{place}: [{section}] {name} = {value}"), wrong)
    }

    /// The text of a key, and the line of the file that says it.
    pub(super) fn written(&self, key: &Key) -> (&str, Option<usize>) {
        (self.text(key), self.place(key).map(|(_, line)| line))
    }

    /// Whether the file itself gives a value to a key.
    pub(super) fn has<T>(self, setting: &Setting<T>) -> bool {
        self.place(&setting.key).is_some()
    }

    /// Whether the file itself gives a value to a key that is not empty, and of this kind.
    pub(super) fn gives<T>(self, setting: &Setting<T>, is_such: impl FnOnce(&str) -> bool) -> bool {
        let text = self.text(&setting.key);
        self.has(setting) && !text.is_empty() && is_such(text)
    }

    /// The section and the line that give a value to a key.
    fn place(self, key: &Key) -> Option<(&'static str, usize)> {
        let line = |section| Some((section, *self.file.lines.get(&(section, key.name))?));
        line(self.name).or_else(|| line(self.general))
    }

    fn text(&self, key: &Key) -> &str {
        let Some((section, line)) = self.place(key) else {
            return key.default;
        };
        if let Some(quoted) = self.file.quoted.get(&line) {
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
fn index<'a>(
    path: &Path,
    text: &'a str,
    keys: KeyTable,
) -> Result<(KeyLines<'a>, Quoted), ConfigError> {
    // Invisible in most editors, and not part of a name.
    if text.starts_with('\u{feff}') {
        return Err(at(path, Some(1), "a byte order mark", "UTF-8 without one"));
    }
    let mut lines = KeyLines::new();
    let mut quoted = Quoted::new();
    let mut section = None;
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = |what: &str, allowed: &str| at(path, Some(number), what, allowed);
        let line = line.trim_end();
        if line.trim_start().is_empty() || line.trim_start().starts_with(['#', ';']) {
            continue;
        }
        if line.contains(|it: char| it.is_control() && it != '\t') {
            return Err(wrong("a control character", "text"));
        }
        if line.starts_with(char::is_whitespace) {
            return Err(wrong(
                "an indented line",
                "lines that begin in the first column; each value on one line",
            ));
        }
        if line.starts_with('[') {
            section =
                Some(section_name(line, keys).map_err(|error| wrong(&error.what, &error.allowed))?);
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(wrong(
                "a line without =",
                "key = value, [section], # comment",
            ));
        };
        let (name, value) = (name.trim_end(), value.trim_start());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(wrong(
                "the text before = is not the name of a key",
                "key = value",
            ));
        }
        let Some(section) = section else {
            let sections = keys.sections().join("], [");
            return Err(wrong(
                &format!("{name}: a key without a section"),
                &format!("keys below one of [{sections}]"),
            ));
        };
        let Some(key) = keys.find(section, name) else {
            let names: Vec<_> = keys.of(section).map(|key| key.name).collect();
            return Err(wrong(&unknown(section, name, keys), &names.join(", ")));
        };
        if let Some(first) = lines.insert((section, name), number) {
            return Err(wrong(
                &format!("[{section}] {name}: given twice, first on line {first}"),
                "each key once",
            ));
        }
        if let Some(rest) = value.strip_prefix('"') {
            let inner = unquoted(rest).ok_or_else(|| {
                wrong(
                    &format!("[{section}] {name}: a quote that does not enclose the value"),
                    r#"all of a value within ", with \" for " and \\ for \"#,
                )
            })?;
            quoted.insert(number, inner);
        } else if value.contains(['#', ';']) {
            let value = shown_of(key, value);
            return Err(wrong(
                &format!("[{section}] {name} = {value}: a # or ; within the value"),
                "comments on lines of their own; a value with # or ; within \", in a URL as %23 and %3B",
            ));
        }
    }
    Ok((lines, quoted))
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
    let name = inner.map(str::trim);
    match name {
        Some(name) if keys.of(name).next().is_some() => Ok(name),
        _ => Err(WrongValue {
            what: match name {
                Some(name) => format!("[{}]: an unknown section", shown(name)),
                None => "a line that begins like a section and does not end with ]".to_owned(),
            },
            allowed: format!("[{}]", keys.sections().join("], [")),
        }),
    }
}

/// Says that a key is unknown, and where it would be known.
fn unknown(section: &str, name: &str, keys: KeyTable) -> String {
    let elsewhere = keys
        .sections()
        .into_iter()
        .find(|it| keys.find(it, name).is_some());
    let hint = elsewhere.map_or_else(String::new, |it| format!(", but one of [{it}]"));
    format!("[{section}] {name}: not a key of this section{hint}")
}
