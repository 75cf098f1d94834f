//! When lists that were found empty settle, and the WATCH of their keys until then (`unsettled`).

use std::collections::HashSet;
use std::time::Instant;

use redis::RedisResult;

use super::Watcher;
use crate::lists::ListName;
use crate::store::gate::door::settle_time;
use crate::store::redis::keyring::KeyOf;
use crate::store::redis::link::Link;
use crate::store::redis::unsettled::Unsettled;

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

    /// Watches fewer services at once where one of those that were `watched` was touched, and more again
    /// where none was.
    pub(super) fn narrow_or_widen(&mut self, watched: &[Unsettled], untouched: bool) {
        let services = watched.iter().filter(|it| it.is_watched);
        let services: HashSet<usize> = services.map(|it| it.service).collect();
        if !services.is_empty() {
            self.watch_width = width_after(services.len(), self.watch_width, untouched);
        }
    }

    /// Makes the next transaction fail if an unsettled list's key is touched until then. An emptied `gray`
    /// is a rollback, which nobody who touches other keys may hold up: such lists are watched alone, and
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
        // A WATCH would be of one slot, and the transaction of another one would end it: announcements must
        // do, or two readings a moment apart.
        if self.by_slot {
            self.unsettled
                .iter_mut()
                .for_each(|it| it.is_watched = true);
            return Ok(());
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
