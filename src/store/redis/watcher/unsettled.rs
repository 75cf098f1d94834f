//! Lists that were found empty, and are not yet believed to be: since when they are, and the WATCH of their keys.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use redis::RedisResult;

use super::Watcher;
use crate::lists::ListName;
use crate::store::Cause;
use crate::store::gate::door::settle_time;
use crate::store::redis::keyring::KeyOf;
use crate::store::redis::link::Link;
use crate::store::redis::salts::SaltReply;

/// A list that has become empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsettled {
    pub(super) service: usize,
    pub(super) list: ListName,
    /// When it was first found empty, and untouched since.
    pub(super) since: Instant,
    /// When it was first found empty, and has been by every reading since.
    found: Instant,
    /// Its key is WATCHed.
    is_watched: bool,
}

/// What is known of one reading of the keys.
pub(super) struct KeysLook {
    /// When the keys were asked for.
    pub(super) began: Instant,
    pub(super) cause: Cause,
    /// How many changes had been announced before.
    pub(super) announced: u64,
    /// Lists that were unsettled until then.
    pub(super) watched: Vec<Unsettled>,
    /// None of the keys was touched that were WATCHed.
    pub(super) untouched: bool,
    /// Services that were announced to be touched between the first question and the last answer.
    pub(super) touched: HashSet<usize>,
    /// Salts that were read by themselves.
    pub(super) salts: HashMap<usize, SaltReply>,
}

impl KeysLook {
    /// One that begins now.
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            cause: Cause::Event,
            announced: 0,
            watched: Vec::new(),
            untouched: true,
            touched: HashSet::new(),
            salts: HashMap::new(),
        }
    }

    /// A list that is found empty, and was watched if it had been before.
    pub(super) fn unsettled(&self, service: usize, list: ListName) -> Unsettled {
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
    pub(super) fn empty_for(&self, service: usize, list: ListName) -> Duration {
        let since = self.unsettled(service, list).since;
        self.began.saturating_duration_since(since)
    }
}

impl Watcher {
    /// When an unsettled list may have settled, if there is one, or nothing waits for it any longer.
    pub(super) fn settled_at(&self) -> Option<Instant> {
        let ends = self.unsettled.iter();
        let ends = ends.map(|it| it.since + settle_time(it.list));
        let least = ends.min()?;
        let least = self.unsettled_until.map_or(least, |it| it.min(least));
        let now = Instant::now();
        Some(least.max(now + self.pace.left(now)))
    }

    /// Watches fewer services at once where one of those that were `watched` was touched, and more again where
    /// none was.
    pub(super) fn narrow_or_widen(&mut self, watched: &[Unsettled], untouched: bool) {
        let services = watched.iter().filter(|it| it.is_watched);
        let services: HashSet<usize> = services.map(|it| it.service).collect();
        if !services.is_empty() {
            self.watch_width = width_after(services.len(), self.watch_width, untouched);
        }
    }

    /// Makes the next transaction fail if an unsettled list's key is touched until then. An emptied
    /// `gray` is a rollback, which nobody who touches other keys may hold up: such lists are watched alone, and
    /// the others, as if they had been touched, begin anew.
    pub(super) fn watch_unsettled(&mut self, reader: &mut Link, began: Instant) -> RedisResult<()> {
        if self.unsettled.is_empty() {
            self.watch_width = usize::MAX;
            return Ok(());
        }
        let has_gray = self.unsettled.iter().any(|it| it.list == ListName::Gray);
        let mut first: Vec<&mut Unsettled> = self.unsettled.iter_mut().collect();
        first.sort_by_key(|it| it.found);
        let mut services = HashSet::new();
        for it in &mut first {
            let is_urgent = it.list == ListName::Gray || !has_gray;
            let fits = services.len() < self.watch_width || services.contains(&it.service);
            it.is_watched = is_urgent && fits;
            if it.is_watched {
                services.insert(it.service);
            }
        }
        let watched = self.unsettled.iter().filter(|it| it.is_watched);
        let keys = watched.map(|it| self.keyring.key(KeyOf::list(it.service, it.list)));
        let keys: Vec<&str> = keys.collect();
        match reader.ask(redis::cmd("WATCH").arg(keys)) {
            // The server refuses WATCH: two readings a moment apart must do.
            Err(error) if error.code().is_none() => return Err(error),
            _ => {}
        }
        let now = Instant::now();
        for it in &mut self.unsettled {
            if !it.is_watched || it.since >= began {
                it.since = now;
            }
        }
        Ok(())
    }
}

/// How many services to watch at once, after so many were.
fn width_after(watched: usize, width: usize, untouched: bool) -> usize {
    match untouched {
        true => width.saturating_mul(2),
        false => (watched / 2).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_as_many_services_are_watched_after_one_was_touched() {
        for (watched, width, untouched, expected) in [
            (8, usize::MAX, false, 4),
            (4, 4, false, 2),
            (1, 1, false, 1),
            (1, 1, true, 2),
            (2, 2, true, 4),
            (2, usize::MAX, true, usize::MAX),
        ] {
            let found = width_after(watched, width, untouched);
            assert_eq!(found, expected, "{watched} {width} {untouched}");
        }
    }
}
