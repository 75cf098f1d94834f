//! What is known of releases, read without the lists of their services, which may have a million entries:
//! that a version was taken back, that evidence begins anew, or who carries a rollout on, is a matter of a
//! few bytes.
//!
//! It is published only if it is what the server had at one moment together with the lists that were read
//! before: nothing but releases was announced until then, as is known after the subscription has *caught
//! up*. A change of lists that was made in the same transaction, or before it, is known by then, and all of
//! it is read together, as after any other announcement.
//!
//! So it is where something is in doubt, or not all of it can be read in one transaction; and where what is
//! read says something of the lists, too: they are frozen, or no longer; or a key has vanished, of which only
//! all of the keys tell whether somebody has deleted it, or the server has lost its data.

use std::time::Instant;

use redis::{RedisResult, Value};

use super::{Server, Watcher};
use crate::store::redis::changes::AnnouncedChanges;
use crate::store::redis::extras::ExtraReply;
use crate::store::redis::keyring::KeyOf;
use crate::store::redis::link::Link;
use crate::store::redis::standing::ServerStanding;
use crate::store::redis::transaction;
use crate::store::{Cause, ReleaseReading, StoredText};

impl Watcher {
    /// Reads what was announced of releases, if nothing else was, and tells of it; false if lists have to be
    /// read with it. Then it counts as not read. The accept key is no reason to read anything while nothing
    /// is held.
    pub(super) fn read_releases_alone(&mut self, server: &mut Server) -> RedisResult<bool> {
        let (began, announced) = (Instant::now(), server.subscription.changes());
        self.announced.add(server.subscription.take_announced());
        let is_plain = self.is_sure(server) && !self.by_slot && self.extras.are_together();
        let is_quiet = self.unsettled.is_empty() && self.gone.is_empty();
        if self.announced.accept_alone() && self.is_sure(server) && is_quiet && !self.feed.holds() {
            // It names what somebody will make, or what is in force by now.
            self.announced = AnnouncedChanges::default();
            self.changes_read = announced;
            return Ok(true);
        }
        if !self.announced.are_of_releases() || !is_plain || !is_quiet {
            return Ok(false);
        }
        let services: Vec<usize> = self.announced.releases.iter().copied().collect();
        let Some(read) = self.ask_releases(&mut server.reader, &services)? else {
            return Ok(false);
        };
        server.subscription.catch_up(self.settings.timeout)?;
        let since = server.subscription.take_announced();
        let is_whole = !since.all && since.services.is_empty();
        let is_whole = is_whole && since.releases.iter().all(|it| services.contains(it));
        if !is_whole
            || read
                .iter()
                .any(|(service, it)| self.concerns_lists(*service, it))
        {
            self.announced.add(since);
            return Ok(false);
        }
        // What came since may be newer than what was read.
        self.announced = since;
        let news = read
            .into_iter()
            .filter_map(|(service, it)| self.told_if_new(service, it));
        let news: Vec<_> = news.collect();
        if !news.is_empty() {
            self.feed.see_releases(news);
        }
        self.feed.checked(Cause::Event);
        let changes = announced.saturating_sub(self.changes_read);
        self.pace.note(began, Instant::now(), changes);
        self.changes_read = announced;
        Ok(true)
    }

    /// What the server has of these releases at one moment; `None` if that cannot be asked for plainly.
    fn ask_releases(
        &mut self,
        reader: &mut Link,
        services: &[usize],
    ) -> RedisResult<Option<Vec<(usize, ReleaseReading)>>> {
        let keys = services.iter().flat_map(|it| self.keyring.of_release(*it));
        let keys: Vec<KeyOf> = keys.filter(|it| self.rights.allow(*it)).collect();
        let mut pipe = redis::pipe();
        for key in &keys {
            pipe.cmd("GET").arg(self.keyring.key(*key));
        }
        let question = self.standings.question.packed();
        let mut request = question.clone().unwrap_or_default();
        request.extend(transaction::packed(reader, &pipe));
        reader.send(&request)?;
        let standing = match question {
            Some(_) => {
                let reply = reader.receive()?.extract_error();
                self.standings.question.understand(reply)?
            }
            None => ServerStanding::Settled,
        };
        let are_refused = !transaction::queued(reader, &pipe)?.is_empty();
        if are_refused {
            return Ok(None);
        }
        let Value::Array(replies) = reader.receive()? else {
            return Ok(None);
        };
        if standing != ServerStanding::Settled {
            return Ok(None);
        }
        let mut texts = Vec::new();
        for (key, reply) in keys.into_iter().zip(replies) {
            let text = reply.extract_error().and_then(|it| match it {
                Value::Nil => Ok(None),
                text => Ok(Some(redis::from_redis_value(text)?)),
            });
            let Ok(reply) = ExtraReply::of(text) else {
                return Ok(None);
            };
            texts.push((key, self.extras.text(key, Some(reply), &self.keyring)));
        }
        let mut text = |of: KeyOf| {
            let at = texts.iter().position(|(it, _)| *it == of);
            at.map_or(StoredText::Unknown, |at| texts.swap_remove(at).1)
        };
        let read = services.iter().map(|service| {
            let read = ReleaseReading {
                tripped: text(KeyOf::tripped(*service)),
                state: text(KeyOf::release(*service)),
                lost: false,
            };
            (*service, read)
        });
        Ok(Some(read.collect()))
    }

    /// What was read has to be taken together with the lists.
    fn concerns_lists(&self, service: usize, read: &ReleaseReading) -> bool {
        let known = &self.known[service];
        let Some(before) = &known.release else {
            return true;
        };
        let has_gone = |before: &StoredText, now: &StoredText| {
            matches!(before, StoredText::Text(_)) && *now == StoredText::Absent
        };
        let is_known = read.state != StoredText::Unknown;
        has_gone(&before.tripped, &read.tripped)
            || has_gone(&before.state, &read.state)
            || is_known && read.frozen() != known.frozen
    }
}
