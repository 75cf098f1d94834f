//! Every key as it was written, and where: what a person is shown of the settings, next to what the program
//! makes of them. Secrets are left out here, so that nobody further up can show them.

use std::fmt;
use std::sync::Arc;

use super::file::IniFile;
use super::key::{Key, KeyTable, service_part};
use super::redis::REDIS_URL_VARIABLE;
use super::url::Url;
use super::verdict::WEBHOOK;
use super::webhook::WebhookUrl;

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueOrigin {
    /// Nobody has said anything.
    Default,
    /// The line of the ini file, counted from 1.
    File(usize),
    /// The variable of this name.
    Environment(&'static str),
}

/// A value as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrittenValue {
    /// Without what is secret.
    pub(crate) text: String,
    pub(crate) origin: ValueOrigin,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrittenKey {
    /// The section, which may be that of a pool or of a service.
    pub(crate) section: Arc<str>,
    pub(crate) key: Key,
    pub(crate) in_force: WrittenValue,
    /// What the file says since, and only a restart brings into force.
    pub(crate) waiting: Option<WrittenValue>,
}

/// All keys, in the order of the shipped file, and then what the sections of services give, in theirs. Any
/// two are equal: what is meant by a file does not depend on how it was written.
#[derive(Clone)]
pub(crate) struct WrittenKeys(Arc<[WrittenKey]>);

impl PartialEq for WrittenKeys {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for WrittenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WrittenKeys")
    }
}

impl WrittenKeys {
    /// As in this file, and by the URL in the environment.
    pub(super) fn of(file: &IniFile<'_>, keys: KeyTable, redis_url: Option<&str>) -> Self {
        let once = keys.sections().into_iter();
        let of_services = file.sections().filter(|it| service_part(it).is_some());
        let mut all = Vec::new();
        for section in once.chain(of_services) {
            let given = file.section(section);
            let name: Arc<str> = section.into();
            for key in keys.of(section) {
                let (text, line) = given.written(key);
                // What the section of a pool or of a service leaves out is the general one's.
                if section != key.section && line.is_none() {
                    continue;
                }
                let mut in_force = WrittenValue {
                    text: harmless(key, text),
                    origin: line.map_or(ValueOrigin::Default, ValueOrigin::File),
                };
                if let Some(url) = redis_url.filter(|_| key.full_name == URL) {
                    in_force = WrittenValue {
                        text: harmless(key, url),
                        origin: ValueOrigin::Environment(REDIS_URL_VARIABLE),
                    };
                }
                all.push(WrittenKey {
                    section: name.clone(),
                    key: *key,
                    in_force,
                    waiting: None,
                });
            }
        }
        Self(all.into())
    }

    /// Every one.
    pub(super) fn all(&self) -> &[WrittenKey] {
        &self.0
    }

    /// These, where the keys with these full names still have the values of `running`.
    pub(super) fn waiting(&self, running: &Self, kept: &[&str]) -> Self {
        let old = |new: &WrittenKey| {
            // There are few of them, and of all keys there may be thousands.
            let is_kept = kept.contains(&new.key.full_name);
            let mut all = running.0.iter().filter(|_| is_kept);
            all.find(|it| it.section == new.section && it.key == new.key)
        };
        let all = self.0.iter().map(|new| match old(new) {
            Some(old) => WrittenKey {
                in_force: old.in_force.clone(),
                waiting: Some(new.in_force.clone()),
                ..new.clone()
            },
            None => new.clone(),
        });
        Self(all.collect())
    }
}

/// The key whose value the environment may give.
pub(super) const URL: &str = "redis.url";

/// The value of a key without passwords, wherever somebody may have put one.
fn harmless(key: &Key, text: &str) -> String {
    const HIDDEN: &str = "(hidden)";
    if !key.secret {
        // A URL under the wrong key is still a secret.
        let is_url = text.contains("://") && (text.contains('@') || text.contains("pass"));
        return if is_url { HIDDEN } else { text }.to_owned();
    }
    if key.full_name == WEBHOOK.key.full_name {
        let read = WebhookUrl::read(text);
        let shown = |it: Option<WebhookUrl>| it.map_or_else(String::new, |it| it.to_string());
        return read.map_or_else(|_| HIDDEN.to_owned(), shown);
    }
    let read = match key.full_name {
        URL => Url::read_optional(text).map(|it| it.into_iter().collect()),
        _ => Url::read_sentinels(text),
    };
    let shown = |urls: Vec<Url>| {
        let urls: Vec<String> = urls.iter().map(ToString::to_string).collect();
        urls.join(",")
    };
    read.map_or_else(|_| HIDDEN.to_owned(), shown)
}
