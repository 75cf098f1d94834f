//! Every setting with its value and where that comes from: what the page `/config` says of them to
//! whoever may see lists of clients, and `graygate config`.

use crate::admin::pages::member::object;
use crate::config::{Config, ValueOrigin, WrittenValue};

object! {
    /// A key of the ini file.
    pub(crate) struct SettingShown {
        /// Section and name, as `gateway.workers`.
        key: String,
        section: String,
        name: String,
        /// The value in force, without secrets.
        value: String,
        /// `default`, `file`, `environment`, or `machine`: what is written leaves it to the machine, or
        /// it allows no more.
        origin: String,
        /// Of the ini file, where that says something.
        line: Option<u64>,
        /// Of the environment.
        variable: Option<String>,
        /// What is written, where the machine has made something else of it.
        written: Option<String>,
        /// Why that is so, or why it has no effect.
        note: Option<String>,
        /// What the file says, where only a restart brings that into force.
        after_restart: Option<WaitingValue>,
    }
}

object! {
    /// A value that waits for a restart.
    pub(crate) struct WaitingValue {
        value: String,
        origin: String,
        line: Option<u64>,
        variable: Option<String>,
    }
}

/// The values of `origin`.
pub(crate) const DEFAULT: &str = "default";
pub(crate) const FILE: &str = "file";
pub(crate) const ENVIRONMENT: &str = "environment";
pub(crate) const MACHINE: &str = "machine";

impl SettingShown {
    /// All of a configuration, in the order of the shipped file.
    pub(crate) fn all(config: &Config) -> Vec<Self> {
        let all = config.written().iter().map(|it| {
            let (origin, line, variable) = parts(it.in_force.origin);
            let shown = Self {
                key: format!("{}.{}", it.section, it.key.name),
                section: it.section.to_string(),
                name: it.key.name.to_owned(),
                value: it.in_force.text.clone(),
                origin,
                line,
                variable,
                written: None,
                note: config.idle(it),
                after_restart: it.waiting.as_ref().map(WaitingValue::of),
            };
            match config.decided(it) {
                None => shown,
                Some((value, why)) => Self {
                    written: Some(shown.value),
                    value,
                    origin: MACHINE.to_owned(),
                    note: Some(why.to_owned()),
                    ..shown
                },
            }
        });
        all.collect()
    }
}

impl WaitingValue {
    fn of(value: &WrittenValue) -> Self {
        let (origin, line, variable) = parts(value.origin);
        Self {
            value: value.text.clone(),
            origin,
            line,
            variable,
        }
    }
}

/// An origin as members.
fn parts(origin: ValueOrigin) -> (String, Option<u64>, Option<String>) {
    let (name, line, variable) = match origin {
        ValueOrigin::Default => (DEFAULT, None, None),
        ValueOrigin::File(line) => (FILE, Some(line as u64), None),
        ValueOrigin::Environment(name) => (ENVIRONMENT, None, Some(name.to_owned())),
    };
    (name.to_owned(), line, variable)
}
