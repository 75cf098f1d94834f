//! What a store says of the release of a service beside its lists: texts in, values out. No I/O.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::rollout::{ROLLOUT, Rollout};
use crate::fleet::plain::{plain, printable};
use crate::fleet::release::NodeRelease;
use crate::lists::Digest;

/// The state of a release, as far as gateways look at it. It may have other members, which are others'
/// affair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReleaseState {
    /// What evidence is gathered anew for when it changes; empty: there was none yet.
    pub(crate) epoch: String,
    /// Who has last said that a version may be tried again, and why.
    pub(crate) reset: Option<ResetNote>,
    /// Somebody has frozen the lists.
    pub(crate) is_frozen: bool,
    /// Its rollout, as of its last turn.
    pub(crate) rollout: Option<Rollout>,
}

/// The longest text of it that gateways read, in bytes.
pub(crate) const LONGEST_STATE: usize = 64 << 10;

/// Why a state is not written, if gateways would not read it: to them, nothing would be frozen or reset. One
/// that they do not read anyway may become shorter.
///
/// # Errors
/// One line.
pub(crate) fn readable(
    before: &Map<String, Value>,
    next: &Map<String, Value>,
) -> Result<(), String> {
    let size = |it: &Map<String, Value>| json!(it).to_string().len();
    let next = size(next);
    match next > LONGEST_STATE && next > size(before) {
        true => Err(format!(
            "nothing was changed: the state of the release would have {next} bytes, and gateways read none \
             above {LONGEST_STATE}"
        )),
        false => Ok(()),
    }
}

/// Who has said that a version may be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResetNote {
    /// In which epoch that was.
    pub(crate) epoch: String,
    pub(crate) by: String,
    pub(crate) reason: Option<String>,
}

/// The state of a release that is in a `text`, with the epoch `next` where it has the epoch `before`: of
/// whoever has deleted the key of a trip. `None` where it has another one.
pub(crate) fn with_epoch(text: &[u8], before: &str, next: &str) -> Option<String> {
    if ReleaseState::parse(text).epoch != before {
        return None;
    }
    let value: Value = serde_json::from_slice(text).unwrap_or_default();
    let mut members = match value {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    let note = json!({ "epoch": next, "at": now(), "by": "-", "reason": DELETED });
    members.insert("epoch".to_owned(), next.into());
    members.insert("reset".to_owned(), note);
    Some(Value::Object(members).to_string())
}

/// Why a version may be tried again, where nobody has said more.
pub(crate) const DELETED: &str = "the key was deleted";

impl ReleaseState {
    /// From the text of its key; one that is not understood says nothing.
    pub(crate) fn parse(text: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(text).unwrap_or_default();
        Self::of_json(&value)
    }

    /// As [`Self::parse`].
    pub(crate) fn of_json(value: &Value) -> Self {
        let reset = &value["reset"];
        let note = || {
            Some(ResetNote {
                epoch: word(reset, "epoch")?,
                by: word(reset, "by")?,
                reason: sentence(reset, "reason"),
            })
        };
        Self {
            epoch: word(value, "epoch").unwrap_or_default(),
            reset: note(),
            is_frozen: value["frozen"].is_object(),
            rollout: Rollout::of_json(&value[ROLLOUT]),
        }
    }

    /// What others are told of it.
    pub(crate) fn held(&self) -> NodeRelease {
        NodeRelease {
            epoch: self.epoch.clone(),
            is_frozen: self.is_frozen,
            rollout: self.rollout.as_ref().map(|it| it.course.name().to_owned()),
        }
    }
}

/// That a version was taken back.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trip {
    /// The service.
    pub(crate) service: String,
    /// The gateway, or the person.
    pub(crate) by: String,
    /// When, as in RFC 3339.
    pub(crate) at: String,
    /// `worse`, `blunt`, `slow` or `by hand`.
    pub(crate) why: String,
    /// The digest of the list `pre` that it is about.
    pub(crate) pre: String,
    /// The release that it was: that digest, a slash, and the epoch.
    pub(crate) release: String,
    /// What was counted.
    pub(crate) numbers: Value,
    /// Why, in a person's words.
    pub(crate) reason: Option<String>,
}

/// Why, where somebody has set the key.
pub(crate) const KEY_WAS_SET: &str = "by hand";

impl Trip {
    /// The text of its key.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "service": self.service,
            "by": self.by,
            "at": self.at,
            "why": self.why,
            "pre": self.pre,
            "release": self.release,
            "numbers": self.numbers,
            "reason": self.reason,
        })
    }

    /// From such a text, which anybody may have written; `None` if it does not say what it is about.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(text).ok()?;
        Self::of_json(&value)
    }

    /// As [`Self::parse`].
    pub(crate) fn of_json(value: &Value) -> Option<Self> {
        let pre = value["pre"].as_str()?;
        Digest::parse(pre)?;
        let or_dash = |name: &str| word(value, name).unwrap_or_else(|| "-".to_owned());
        Some(Self {
            service: or_dash("service"),
            by: or_dash("by"),
            at: or_dash("at"),
            why: sentence(value, "why").unwrap_or_else(|| KEY_WAS_SET.to_owned()),
            pre: pre.to_owned(),
            release: word(value, "release").unwrap_or_else(|| format!("{pre}/")),
            numbers: value["numbers"].clone(),
            reason: sentence(value, "reason"),
        })
    }

    /// What a `text` says that is no such text: it is about the servers that are in `pre` now.
    pub(crate) fn by_hand(text: &[u8], service: &str, pre: Digest, epoch: &str) -> Self {
        let value: Value = serde_json::from_slice(text).unwrap_or_default();
        let said = String::from_utf8_lossy(text);
        let reason = match value {
            Value::Object(_) => sentence(&value, "reason"),
            _ => Some(printable(said.trim(), SENTENCE)).filter(|it| !it.is_empty()),
        };
        Self {
            service: service.to_owned(),
            by: word(&value, "by").unwrap_or_else(|| "-".to_owned()),
            at: word(&value, "at").unwrap_or_else(now),
            why: KEY_WAS_SET.to_owned(),
            pre: pre.to_string(),
            release: format!("{pre}/{epoch}"),
            numbers: value["numbers"].clone(),
            reason,
        }
    }

    /// The version that it is about: see [`Lists::version`](crate::lists::Lists::version).
    pub(crate) fn version(&self) -> u64 {
        Digest::parse(&self.pre).map_or(0, Digest::number)
    }

    /// The epoch of its release.
    pub(crate) fn epoch(&self) -> &str {
        self.release.split_once('/').map_or("", |(_, epoch)| epoch)
    }
}

/// This moment, as in RFC 3339.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// The longest sentence of others that is shown, in characters.
const SENTENCE: usize = 300;

fn word(value: &Value, name: &str) -> Option<String> {
    value[name].as_str().map(plain)
}

fn sentence(value: &Value, name: &str) -> Option<String> {
    let text = value[name].as_str()?;
    Some(printable(text, SENTENCE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_gateways_do_not_read_may_get_shorter_and_no_longer() {
        let with = |size: usize| {
            let others = "x".repeat(size - json!({ "others": "" }).to_string().len());
            Map::from_iter([("others".to_owned(), others.into())])
        };
        let most = LONGEST_STATE;
        for (before, next, is_written) in [
            (100, most, true),
            (100, most + 1, false),
            (most, most + 1, false),
            (most + 9, most + 10, false),
            (most + 9, most + 9, true),
            (most + 9, most + 8, true),
        ] {
            let outcome = readable(&with(before), &with(next));
            assert_eq!(outcome.is_ok(), is_written, "{before} {next}");
        }
    }

    #[test]
    fn a_trip_is_read_as_it_was_written_and_what_says_not_of_what_is_by_hand() {
        let trip = Trip {
            service: "shop".to_owned(),
            by: "gw-1".to_owned(),
            at: "2026-11-25T19:16:26.123Z".to_owned(),
            why: "worse".to_owned(),
            pre: "0123456789abcdef".to_owned(),
            release: "0123456789abcdef/fedcba9876543210".to_owned(),
            numbers: json!({ "n": 41, "x": 3 }),
            reason: None,
        };
        let text = trip.to_json().to_string();
        assert_eq!(Trip::parse(text.as_bytes()), Some(trip.clone()));
        assert_eq!(trip.epoch(), "fedcba9876543210");
        assert_eq!(trip.version(), 0x0123_4567_89ab_cdef);
        for text in [
            "",
            "1",
            "yes",
            "{}",
            "{\"pre\":7}",
            "{\"pre\":\"0123\"}",
            "{\"pre\":\"0123456789abcdeX\"}",
        ] {
            assert_eq!(Trip::parse(text.as_bytes()), None, "{text}");
        }
        let pre = Digest::parse("0123456789abcdef").unwrap();
        let by_hand = |text: &str| Trip::by_hand(text.as_bytes(), "default", pre, "e");
        assert_eq!(
            by_hand("it is\x1b slow\n").reason.as_deref(),
            Some("it is? slow")
        );
        assert_eq!(by_hand("").reason, None);
        let named = by_hand("{\"by\":\"ann\",\"reason\":\"slow\"}");
        assert_eq!((&*named.by, named.reason.as_deref()), ("ann", Some("slow")));
        assert_eq!(named.release, "0123456789abcdef/e");
    }

    #[test]
    fn a_state_says_its_epoch_and_who_has_reset_it() {
        let text =
            r#"{"epoch":"b","reset":{"epoch":"b","by":"ann@host","reason":"fixed"},"frozen":{}}"#;
        let read = ReleaseState::parse(text.as_bytes());
        assert_eq!(read.epoch, "b");
        assert!(read.is_frozen);
        let note = read.reset.unwrap();
        assert_eq!(
            (&*note.by, note.reason.as_deref()),
            ("ann@host", Some("fixed"))
        );
        for text in ["", "x", "[]", "{\"epoch\":7}"] {
            let read = ReleaseState::parse(text.as_bytes());
            assert_eq!(read, ReleaseState::default());
        }
    }

    #[test]
    fn an_epoch_is_written_into_a_state_that_has_the_one_before_and_the_rest_stays() {
        let text = br#"{"epoch":"a","rollout":{"step":2}}"#;
        let written = with_epoch(text, "a", "b").unwrap();
        let value: Value = serde_json::from_str(&written).unwrap();
        assert_eq!(value["rollout"]["step"], 2);
        let read = ReleaseState::parse(written.as_bytes());
        assert_eq!(read.epoch, "b");
        let note = read.reset.unwrap();
        assert_eq!((&*note.epoch, note.reason.as_deref()), ("b", Some(DELETED)));
        assert_eq!(with_epoch(text, "", "b"), None);
        assert!(with_epoch(b"", "", "b").is_some());
        assert_eq!(with_epoch(b"", "a", "b"), None);
    }
}
