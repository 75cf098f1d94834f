//! What is told: a sentence in plain words, and what it is about. Pure.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::lists::ServiceName;
use crate::release::state::{DELETED, KEY_WAS_SET, ResetNote, Trip, now};

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoticeKind {
    /// A version was taken back.
    Tripped,
    /// It may be tried again.
    TripReset,
    /// A version is likely worse.
    Suspect,
    /// It is worse, and was not taken back.
    Worse,
    /// It is good enough.
    Good,
    /// `prod` is what `pre` was.
    Promoted,
    /// A release was taken back by somebody.
    RolledBack,
    /// A rollout has stopped, and goes on by a person's word alone.
    RolloutPaused,
    /// It has ended before its end, and the lists are as they were.
    RolloutAborted,
    /// It has come to its end.
    RolloutDone,
    /// Somebody wants to know whether messages arrive.
    Test,
}

impl NoticeKind {
    /// As messages, the log and receivers have it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tripped => "tripped",
            Self::TripReset => "trip-reset",
            Self::Suspect => "suspect",
            Self::Worse => "worse",
            Self::Good => "good",
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled-back",
            Self::RolloutPaused => "rollout-paused",
            Self::RolloutAborted => "rollout-aborted",
            Self::RolloutDone => "rollout-done",
            Self::Test => "test",
        }
    }
}

/// Something that people are told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReleaseNotice {
    pub(super) kind: NoticeKind,
    pub(super) service: ServiceName,
    /// When, as in RFC 3339.
    pub(super) at: String,
    /// The same in every attempt to deliver it.
    pub(super) id: String,
    /// What has happened, in plain words.
    pub(super) sentence: String,
    /// Whose doing it was: a gateway's, or a person's.
    pub(super) by: Option<String>,
    /// In a person's words.
    pub(super) reason: Option<String>,
    /// Which release that was.
    pub(super) release: Option<String>,
    /// What was counted.
    pub(super) numbers: Value,
}

impl ReleaseNotice {
    /// That something has happened now. The `sentence` begins with a small letter or a name, and has no
    /// full stop.
    pub(crate) fn new(
        kind: NoticeKind,
        service: &ServiceName,
        sentence: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            service: service.clone(),
            at: now(),
            id: format!("{:016x}", fastrand::u64(..)),
            sentence: sentence.into(),
            by: None,
            reason: None,
            release: None,
            numbers: Value::Null,
        }
    }

    /// Whose doing it was, and why.
    pub(crate) fn by(mut self, by: &str, reason: Option<&str>) -> Self {
        self.by = Some(by.to_owned());
        self.reason = reason.map(str::to_owned);
        self
    }

    /// Which release it is about, and by which numbers.
    pub(crate) fn of(mut self, release: &str, numbers: Value) -> Self {
        self.release = Some(release.to_owned());
        self.numbers = numbers;
        self
    }

    /// `pre` was promoted, and is what `prod` was if that is a swap.
    pub(crate) fn promoted(service: &ServiceName, is_swap: bool) -> Self {
        let sentence = match is_swap {
            false => "pre was promoted: its servers are prod now",
            true => "pre was promoted: its servers are prod now, and those of prod are pre",
        };
        Self::new(NoticeKind::Promoted, service, sentence)
    }

    /// The release was rolled back.
    pub(crate) fn rolled_back(service: &ServiceName) -> Self {
        let sentence = "the release was rolled back";
        Self::new(NoticeKind::RolledBack, service, sentence)
    }

    /// A version was taken back. Where the store does not have that yet, it holds in one gateway alone.
    pub(crate) fn tripped(service: &ServiceName, trip: &Trip, is_stored: bool) -> Self {
        let why = match &*trip.why {
            "worse" => "it fails more often than prod",
            "blunt" => "it plainly fails more often than prod",
            "slow" => "it is slower than prod",
            KEY_WAS_SET => "somebody has said so",
            why => why,
        };
        let whom = match is_stored {
            true => "everybody gets prod",
            false => {
                "everybody gets prod from this gateway, and the others do not know yet, since it cannot be written"
            }
        };
        let mut sentence = format!("pre was taken back, since {why}; {whom}");
        if let Some(numbers) = trip.numbers["text"].as_str() {
            // Writing to a String cannot fail.
            let _ = write!(sentence, ". {numbers}");
        }
        let notice = Self::new(NoticeKind::Tripped, service, sentence);
        let notice = notice.by(&trip.by, trip.reason.as_deref());
        let at = trip.at.clone();
        let notice = notice.of(&trip.release, trip.numbers.clone());
        Self { at, ..notice }
    }

    /// A version that was taken back may be tried again.
    pub(crate) fn trip_reset(service: &ServiceName, note: Option<&ResetNote>) -> Self {
        let sentence = "pre may be tried again: who is gray gets it, as before it was taken back";
        let notice = Self::new(NoticeKind::TripReset, service, sentence);
        match note {
            Some(note) => notice.by(&note.by, note.reason.as_deref()),
            None => notice.by("-", Some(DELETED)),
        }
    }

    /// Somebody wants to know whether messages arrive.
    pub(crate) fn test(by: &str) -> Self {
        let sentence = "this is a test of the webhook; nothing has happened";
        Self::new(NoticeKind::Test, &ServiceName::default(), sentence).by(by, None)
    }

    /// What has happened.
    pub(crate) fn kind(&self) -> NoticeKind {
        self.kind
    }

    /// The message for people, from the gateway of this name. It begins with a word that robots may be told
    /// to look for.
    pub(super) fn text(&self, node: &str) -> String {
        let service = match self.service.is_default() {
            true => String::new(),
            false => format!(", service {}", self.service),
        };
        let mut text = format!("Graygate {node}{service}: {}.", self.sentence);
        // The gateway has said who it is.
        let by = self.by.as_deref().filter(|it| *it != node && *it != "-");
        let said = [("By", by), ("Reason", self.reason.as_deref())];
        for (what, value) in said {
            if let Some(value) = value {
                let _ = write!(text, " {what}: {value}.");
            }
        }
        cut(text)
    }

    /// The message for programs.
    pub(super) fn to_json(&self, node: &str) -> Value {
        json!({
            "event": self.kind.name(),
            "id": self.id,
            "at": self.at,
            "node": node,
            "service": self.service.as_str(),
            "text": self.text(node),
            "by": self.by,
            "reason": self.reason,
            "release": self.release,
            "numbers": self.numbers,
        })
    }
}

/// The longest message, in bytes: `WeCom` takes 2048.
const LONGEST: usize = 2000;

fn cut(mut text: String) -> String {
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push('…');
    }
    text
}
