//! What is wrong with the ini file: with one value, and as an error that says where.

use std::fmt;
use std::io;

/// What is wrong with the configuration, on one line and without a password:
/// `FILE:LINE: [section] key = value: what is wrong; allowed: …`, or `FILE:` and why it cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl ConfigError {
    pub(super) fn new(place: &str, WrongValue { what, allowed }: &WrongValue) -> Self {
        Self::on_one_line(&format!("{place}: {what}; allowed: {allowed}"))
    }

    /// There is no such file, or it must not be read.
    pub(super) fn unread(path: &str, error: &io::Error) -> Self {
        Self::on_one_line(&format!("{path}: cannot be read: {error}"))
    }

    /// A path may contain a line feed, too.
    fn on_one_line(text: &str) -> Self {
        Self(text.replace(char::is_control, " "))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WrongValue {
    /// What is wrong.
    pub(super) what: String,
    /// What would be right.
    pub(super) allowed: String,
}

/// The result of parsing a value.
pub(super) type ValueResult<T> = Result<T, WrongValue>;

/// A [`WrongValue`] as a result.
pub(super) fn wrong<T>(what: impl Into<String>, allowed: impl Into<String>) -> ValueResult<T> {
    Err(WrongValue {
        what: what.into(),
        allowed: allowed.into(),
    })
}

/// A value as shown in an error: on one line, of bounded length, and without a password.
pub(super) fn shown(value: &str) -> String {
    const LONGEST: usize = 60;
    // A URL under the wrong key is still a secret.
    if value.contains("://") || value.contains('@') {
        return "(hidden)".to_owned();
    }
    let mut text: String = value.chars().take(LONGEST).collect();
    if text.len() < value.len() {
        text.push('…');
    }
    text
}
