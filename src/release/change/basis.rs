//! What a verb works on, and what it asks for.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::fleet::plain::{plain, sentence};
use crate::lists::{ByList, GrayList, ListName, Lists, PeerList, Salt, ServiceName, SharedLists};
use crate::release::history::ChangeRecord;
use crate::store::Entries;

/// What the settings say of a service.
#[derive(Clone, Debug)]
pub(crate) struct ServiceTerms {
    pub(crate) service: ServiceName,
    /// The service whose gray list and salt it has.
    pub(crate) gray_of: Option<ServiceName>,
    /// Those that have its own.
    pub(crate) shared_by: Vec<ServiceName>,
    /// The salt where the store has none.
    pub(crate) salt: String,
    /// Of peers without one.
    pub(crate) peer_port: u16,
    /// The share of `prod`'s peers that the guard lets go at once.
    pub(crate) guard_share: usize,
}

/// A list as the store has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FoundList {
    /// It is a set, or was the last time that it had entries.
    pub(crate) is_set: bool,
    pub(crate) entries: Entries,
}

/// What the store has of a service.
#[derive(Clone, Debug, Default)]
pub(crate) struct FoundLists {
    pub(crate) lists: ByList<FoundList>,
    /// The salt, if it has one.
    pub(crate) salt: Option<Vec<u8>>,
    /// That the release was taken back, if it was.
    pub(crate) tripped: Option<Vec<u8>>,
    /// The state of the release, with what is beside it.
    pub(crate) state: Map<String, Value>,
    /// Something is.
    pub(crate) is_renewed: bool,
    /// What has happened, the newest first, as far as it was asked for.
    pub(crate) history: Vec<ChangeRecord>,
}

/// The time, and texts that nobody has had before.
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    pub(crate) now: SystemTime,
    /// A new epoch, of 16 hexadecimal digits.
    pub(crate) epoch: String,
    /// A new salt.
    pub(crate) salt: String,
    /// Who, and when as in RFC 3339: for a state that says so.
    pub(crate) by: String,
    pub(crate) at: String,
    /// Why, if that was said.
    pub(crate) reason: Option<String>,
}

/// What is to be done to one list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Edit {
    /// Nothing.
    #[default]
    None,
    /// These texts go, wherever and as often as they are there; then these are added at the end.
    Some {
        /// Those that go.
        gone: Vec<Vec<u8>>,
        /// Those that come.
        new: Vec<Vec<u8>>,
    },
    /// It has these entries and no others.
    All(Vec<Vec<u8>>),
}

impl Edit {
    /// The list is empty afterwards.
    pub(crate) const fn emptied() -> Self {
        Self::All(Vec::new())
    }

    /// The same, with all entries that there are afterwards.
    pub(crate) fn as_whole(&self, entries: &Entries) -> Self {
        let after = self.apply(entries);
        Self::All(after.into_iter().map(<[u8]>::to_vec).collect())
    }

    /// What becomes of these entries.
    pub(super) fn apply(&self, entries: &Entries) -> Entries {
        match self {
            Self::None => entries.clone(),
            Self::Some { gone, new } => {
                let gone: HashSet<&[u8]> = gone.iter().map(Vec::as_slice).collect();
                let left = entries.into_iter().filter(|it| !gone.contains(it));
                left.chain(new.iter().map(Vec::as_slice)).collect()
            }
            Self::All(entries) => entries.iter().collect(),
        }
    }
}

/// What a verb asks for, before it was judged.
#[derive(Clone, Debug, Default)]
pub(super) struct WantedChange {
    pub(super) edits: ByList<Edit>,
    /// Another salt, or none.
    pub(super) salt: Option<Option<Vec<u8>>>,
    /// The state of the release, if it is another one.
    pub(super) state: Option<Map<String, Value>>,
    /// Nothing is taken back any more.
    pub(super) untrips: bool,
    /// Lines about what no list says.
    pub(super) more: Vec<String>,
    /// What there is to say besides.
    pub(super) notes: Vec<String>,
    /// What has to be confirmed, though no guard holds it.
    pub(super) asks: Vec<String>,
    /// As which verb it is in the history, and why, where the order does not say so.
    pub(super) verb: Option<&'static str>,
    pub(super) reason: Option<String>,
    /// Who it is in the history, where that is not whoever has ordered it.
    pub(super) by: Option<String>,
    /// The change that is taken back, where the order does not say which.
    pub(super) takes_back: Option<u64>,
}

/// The lists that gateways read in these texts.
pub(crate) fn parsed(
    lists: ByList<&Entries>,
    salt: Option<&[u8]>,
    terms: &ServiceTerms,
) -> SharedLists {
    let salt = Salt::new(salt.unwrap_or(terms.salt.as_bytes()));
    let gray = |texts| Arc::new(GrayList::parse(texts).with_salt(salt));
    let peers = |texts| Arc::new(PeerList::parse(texts, terms.peer_port));
    lists.map_each(gray, peers)
}

/// What a verb works on.
pub(super) struct Work<'a> {
    pub(super) terms: &'a ServiceTerms,
    pub(super) found: &'a FoundLists,
    pub(super) lists: Lists,
    pub(super) drawn: &'a Drawn,
}

impl Work<'_> {
    /// The gray list is another service's, or what to say otherwise.
    pub(super) fn must_own_gray(&self) -> Result<(), String> {
        match &self.terms.gray_of {
            None => Ok(()),
            Some(owner) => {
                let service = &self.terms.service;
                Err(format!(
                    "{service} has the gray list of {owner}: say --service {owner}, which changes it for both"
                ))
            }
        }
    }

    /// The digest of what is in `pre`: whose release this is.
    pub(super) fn release(&self) -> String {
        self.lists.pre.digest(ListName::Pre).to_string()
    }

    /// The state with another epoch.
    pub(super) fn next_state(&self) -> Map<String, Value> {
        let mut state = self.found.state.clone();
        state.insert(EPOCH.to_owned(), json!(self.drawn.epoch));
        state
    }

    /// Why the release that is in `pre` was taken back, if it was.
    pub(super) fn trip(&self) -> Option<String> {
        let text = self.found.tripped.as_deref()?;
        let trip: Value = serde_json::from_slice(text).unwrap_or_default();
        let is_other = |pre: &str| pre != self.release();
        if trip["pre"].as_str().is_some_and(is_other) {
            return None;
        }
        let word = |name: &str| trip[name].as_str().map(plain);
        let mut said = "the release in pre was taken back".to_owned();
        for (before, name) in [(" at ", "at"), (" by ", "by"), (": ", "why")] {
            if let Some(word) = word(name) {
                said.extend([before, &word]);
            }
        }
        Some(said)
    }
}

/// Who has frozen the lists, when and why, if somebody has.
pub(crate) fn frozen(state: &Map<String, Value>) -> Option<String> {
    let frozen = state.get(FROZEN).filter(|it| it.is_object())?;
    let word = |name: &str| frozen[name].as_str().map(sentence);
    let mut said = "the lists are frozen".to_owned();
    for (before, name) in [(" by ", "by"), (" since ", "at"), (": ", "reason")] {
        if let Some(word) = word(name) {
            said.extend([before, &word]);
        }
    }
    Some(said)
}

/// What goes of a list, and what comes.
pub(super) fn parts<'a>(
    edit: &'a Edit,
    before: &'a Entries,
    after: &'a Entries,
) -> [Vec<&'a [u8]>; 2] {
    match edit {
        Edit::None => [Vec::new(), Vec::new()],
        Edit::Some { gone, new } => [gone, new].map(|it| it.iter().map(Vec::as_slice).collect()),
        Edit::All(_) => {
            let (old, new): (HashSet<&[u8]>, HashSet<&[u8]>) =
                (before.into_iter().collect(), after.into_iter().collect());
            let gone = before.into_iter().filter(|it| !new.contains(it));
            let come = after.into_iter().filter(|it| !old.contains(it));
            [gone.collect(), come.collect()]
        }
    }
}

/// The members of the state of a release that verbs write.
pub(super) const EPOCH: &str = "epoch";
pub(super) const FROZEN: &str = "frozen";
/// Who has reset it last, and in which epoch.
pub(super) const RESET: &str = "reset";
/// For which `pre` there was a stage, and its share.
pub(super) const STAGE: &str = "stage";
/// The lists that were sets when they were last emptied by a verb.
pub(super) const SETS: &str = "sets";
