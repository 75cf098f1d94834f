//! Lists that were found empty, and are not yet believed to be: since when they are. Pure.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::extras::ExtraReply;
use super::keyring::KeyOf;
use crate::lists::ListName;
use crate::store::Cause;

/// A list that has become empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unsettled {
    pub(crate) service: usize,
    pub(crate) list: ListName,
    /// When it was first found empty, and untouched since.
    pub(crate) since: Instant,
    /// When it was first found empty, and has been by every reading since.
    pub(crate) found: Instant,
    /// Its key is WATCHed.
    pub(crate) is_watched: bool,
}

/// What is known of one reading of the keys.
pub(crate) struct KeysLook {
    /// When the keys were asked for.
    pub(crate) began: Instant,
    pub(crate) cause: Cause,
    /// How many changes had been announced before.
    pub(crate) announced: u64,
    /// Lists that were unsettled until then.
    pub(crate) watched: Vec<Unsettled>,
    /// None of the keys was touched that were WATCHed.
    pub(crate) untouched: bool,
    /// Services that were announced to be touched between the first question and the last answer.
    pub(crate) touched: HashSet<usize>,
    /// What was read by itself beside the lists.
    pub(crate) extras: HashMap<KeyOf, ExtraReply>,
}

impl KeysLook {
    /// One that begins now.
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            cause: Cause::Event,
            announced: 0,
            watched: Vec::new(),
            untouched: true,
            touched: HashSet::new(),
            extras: HashMap::new(),
        }
    }

    /// A list that is found empty, and was watched if it had been before.
    pub(crate) fn unsettled(&self, service: usize, list: ListName) -> Unsettled {
        let now = Instant::now();
        let mut watched = self.watched.iter();
        let before = watched.find(|it| (it.service, it.list) == (service, list));
        let is_untouched = self.untouched && !self.touched.contains(&service);
        match before {
            Some(before) if before.is_watched && is_untouched => *before,
            _ => Unsettled {
                service,
                list,
                since: now,
                found: before.map_or(now, |it| it.found),
                is_watched: false,
            },
        }
    }

    /// For how long this list has been empty, if it is. Counts only the time during which its key was
    /// watched, whatever has delayed this thread since.
    pub(crate) fn empty_for(&self, service: usize, list: ListName) -> Duration {
        let since = self.unsettled(service, list).since;
        self.began.saturating_duration_since(since)
    }
}
