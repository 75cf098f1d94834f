//! What one look at the store gave.

use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use super::Entries;
use crate::lists::{ByList, Digest, ServiceName};

/// What one look at the store gave: for each list its entries, or why it cannot be read.
pub(crate) type Reading = ByList<Result<Entries, Fault>>;

/// For how long each list, if it is empty, has been known to be, untouched.
pub(crate) type EmptyFor = ByList<Duration>;

/// What one look at the store gave of one service.
#[derive(Clone, Debug)]
pub(crate) struct ServiceReading {
    /// The service.
    pub service: ServiceName,
    /// Its lists.
    pub lists: Reading,
    /// The service whose gray list and salt it has: whatever is in force of that one is in force here, too,
    /// at the same moment, and what `lists` and `salt` say of it here does not matter.
    pub gray_of: Option<ServiceName>,
    /// The salt of its shares: what the store has, if it has one and was asked for it.
    pub salt: Option<Vec<u8>>,
    /// For how long each of its lists, if it is empty, has been known to be, untouched.
    pub empty_for: EmptyFor,
    /// When a store was asked for it that may be seen while it is written.
    pub asked: Option<Instant>,
    /// What is known of its release, if the store was asked for that.
    pub release: Option<ReleaseReading>,
    /// The digests of changes that were accepted in advance.
    pub accepted: Vec<String>,
    /// The digests of lists, as a whole, that somebody has just written by a command: all of them come in.
    pub meant: Vec<String>,
    /// Somebody has frozen its lists: what is in force stays.
    pub frozen: Option<FrozenLists>,
}

/// That the lists of a service are frozen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct FrozenLists {
    /// The digest of those that are to stay, as that service has it: whoever has others yet takes these, and
    /// no more. Nothing where that was not said.
    pub digest: Option<String>,
}

/// A text in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum StoredText {
    /// It was not asked for, or cannot be read.
    #[default]
    Unknown,
    /// There is none.
    Absent,
    /// This.
    Text(Vec<u8>),
}

/// The longest text about a release, in bytes.
pub(super) const LONGEST_TEXT: usize = 64 << 10;

/// What a store says of the release of a service, at the same moment as its lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReleaseReading {
    /// That its new version was taken back.
    pub tripped: StoredText,
    /// The state of its release.
    pub state: StoredText,
    /// What is absent was not removed: the store has lost its data.
    pub lost: bool,
}

impl ReleaseReading {
    /// Whether somebody has frozen the lists: no others come into force.
    pub(crate) fn frozen(&self) -> Option<FrozenLists> {
        let StoredText::Text(text) = &self.state else {
            return None;
        };
        let state: serde_json::Value = serde_json::from_slice(text).ok()?;
        let frozen = state["frozen"].as_object()?;
        let digest = frozen.get("lists").and_then(|it| it.as_str());
        Some(FrozenLists {
            digest: digest.map(str::to_owned),
        })
    }
}

/// Whether a text is a state of a release, of which anything can be told. What is not, is nobody's decision:
/// lists that are frozen stay so.
pub(super) fn is_state(text: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(text).is_ok()
}

/// What is wrong with another one.
pub(super) const NO_STATE: &str = "it is no JSON object";

/// Whoever wants to know what stores say of releases.
pub(crate) trait ReleaseWatch: Send + Sync {
    /// Lists of the service come into force in a moment, in which `pre` has this digest, and with them what
    /// was read.
    fn expect(&self, service: &ServiceName, read: &ReleaseReading, pre: Digest);

    /// This was read, and the lists that were read with it are in force.
    fn see(&self, service: &ServiceName, read: &ReleaseReading);

    /// What the next process is to know.
    fn hand_over(&self) -> Option<String>;
}

impl ServiceReading {
    /// Lists of the default service that are taken to be meant as they are.
    pub(crate) fn settled(lists: Reading) -> Self {
        Self {
            service: ServiceName::default(),
            lists,
            gray_of: None,
            salt: None,
            empty_for: ByList::all(Duration::MAX),
            asked: None,
            release: None,
            accepted: Vec::new(),
            meant: Vec::new(),
            frozen: None,
        }
    }
}

/// A hash of each list of a reading; `None` where it is unknown. Equal for equal entries in whatever
/// order, and practically never for different ones. The order within a set has no meaning: it changes
/// while the server's table grows.
pub(super) fn content(reading: &Reading, hasher: &impl BuildHasher) -> ByList<Option<u64>> {
    ByList::from_fn(|list| match &reading[list] {
        Ok(entries) => {
            let hashes = entries.into_iter().map(|it| hasher.hash_one(it));
            Some(hashes.fold(entries.len() as u64, u64::wrapping_add))
        }
        Err(Fault::Forbidden | Fault::TooLong | Fault::WithoutData) => None,
        Err(fault) => Some(hasher.hash_one(fault.name())),
    })
}

/// Why a list keeps its last good value instead of what the store says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The key is neither a list nor a set.
    WrongType,
    /// The store does not allow to read it.
    Forbidden,
    /// There are entries, but none of them can be read.
    AllSkipped,
    /// The list was found empty, or without some of its peers behind a fault, but only this once:
    /// it may be about to be filled again.
    Unsettled,
    /// The lists are longer than the store may say at once, so that none of them was read.
    TooLong,
    /// Another list is unsettled, and what was written together is to come into force together.
    Withheld,
    /// The server is a replica that has not had its master's data yet.
    Unsynced,
    /// The server, or its master, was restarted without its data: there are no lists at all.
    WithoutData,
    /// Somebody has frozen the lists.
    Frozen,
}

impl Fault {
    /// Every fault.
    pub(super) const ALL: [Self; 9] = [
        Self::WrongType,
        Self::Forbidden,
        Self::AllSkipped,
        Self::Unsettled,
        Self::TooLong,
        Self::Withheld,
        Self::Unsynced,
        Self::WithoutData,
        Self::Frozen,
    ];

    /// The name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WrongType => "wrong-type",
            Self::Forbidden => "forbidden",
            Self::AllSkipped => "all-skipped",
            Self::Unsettled => "unsettled",
            Self::TooLong => "too-long",
            Self::Withheld => "withheld",
            Self::Unsynced => "unsynced",
            Self::WithoutData => "without-data",
            Self::Frozen => "frozen",
        }
    }

    /// The level at which it is logged.
    pub(super) const fn level(self) -> log::Level {
        match self {
            Self::WrongType
            | Self::Forbidden
            | Self::AllSkipped
            | Self::TooLong
            | Self::WithoutData => log::Level::Error,
            Self::Unsynced | Self::Frozen => log::Level::Warn,
            // It passes by itself, or the next reading shows what it is.
            Self::Unsettled | Self::Withheld => log::Level::Debug,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;

    use super::*;

    #[test]
    fn the_content_of_a_reading_is_that_of_its_lists_in_whatever_order() {
        let hasher = RandomState::new();
        let content = |gray: &[&str], pre: &[&str], prod| {
            let [gray, pre] = [gray, pre].map(|list| Ok(list.iter().collect()));
            super::content(&Reading { gray, pre, prod }, &hasher)
        };
        let empty = || Ok(Entries::default());
        let one = content(&["a", "b", "c"], &["d"], empty());
        assert_eq!(one, content(&["c", "a", "b"], &["d"], empty()));
        for other in [
            content(&["a", "b"], &["d"], empty()),
            content(&["ab", "c"], &["d"], empty()),
            content(&["d"], &["a", "b", "c"], empty()),
            content(&["a", "b", "c"], &["d"], Err(Fault::WrongType)),
        ] {
            assert_ne!(one, other);
        }
    }
}
