//! One look at the keys of services: what they hold at one moment of the server, and what comes of it.

use std::collections::BTreeSet;
use std::time::Instant;

use redis::RedisResult;

use super::{ReadScope, Server, Watcher};
use crate::store::redis::errors::io_error;
use crate::store::redis::keyring::KeysQuery;
use crate::store::redis::open_slot::OpenSlot;
use crate::store::redis::reading::{self, KeysReply};
use crate::store::redis::unsettled::KeysLook;
use crate::store::{Cause, heavy};

/// How often some services are read to find them all at one moment; then all services are read.
const MOST_ROUNDS: usize = 3;

/// How often keys are read for one look at them: salts may be missing, too.
const MOST_TRIES: usize = 10;

impl Watcher {
    pub(super) fn read_and_publish(
        &mut self,
        server: &mut Server,
        scope: ReadScope,
        cause: Cause,
    ) -> RedisResult<()> {
        let began = Instant::now();
        let announced = server.subscription.changes();
        let services = self.services_to_read(server, scope);
        if services.is_empty() {
            // An earlier reading has seen it already.
            self.changes_read = announced;
            return Ok(());
        }
        let watched = std::mem::take(&mut self.unsettled);
        let announced_before = std::mem::take(&mut self.touched);
        let (answers, look) = self.read_at_one_moment(server, services)?;
        let kept = self.keeps;
        let Some(cause) = self.cause_if_taken(&answers, server, cause)? else {
            self.pace.note(began, Instant::now(), 1);
            return Ok(());
        };
        self.narrow_or_widen(&watched, look.untouched);
        let mut look = look;
        // Nothing is WATCHed then.
        if self.by_slot {
            look.touched.extend(announced_before);
        }
        let look = KeysLook {
            began,
            cause,
            announced,
            watched,
            ..look
        };
        self.is_heavy = answers.iter().any(|it| it.may_have(heavy::HEAVY));
        self.take_in(&answers, look, server)?;
        self.note_whose(&answers);
        self.accept_by_key(&mut server.reader)?;
        self.watch_unsettled(&mut server.reader, began)?;
        // Announced changes do not wait for any of this: the removal of a list is in force by now.
        let is_gone = !self.gone.is_empty() && self.unsettled.is_empty();
        if cause != Cause::Event || kept || is_gone {
            self.note_evictions(server)?;
        }
        let changes = announced.saturating_sub(self.changes_read);
        // The time spent waiting for an announcement, or for a name, cost nobody anything.
        let began = began + std::mem::take(&mut self.waited);
        self.pace.note(began, Instant::now(), changes);
        self.changes_read = announced;
        Ok(())
    }

    /// The services to read, in order: at least those of which something was announced, or is unsettled.
    fn services_to_read(&mut self, server: &Server, scope: ReadScope) -> Vec<usize> {
        let mut announced = std::mem::take(&mut self.announced);
        announced.add(server.subscription.take_announced());
        self.touched.clone_from(&announced.services);
        // What is held may be any service's.
        let accepts = announced.accepts && self.feed.holds();
        if scope == ReadScope::All || announced.all || accepts {
            return self.keyring.all();
        }
        let unsettled = self.unsettled.iter().map(|it| it.service);
        announced.services.extend(unsettled);
        announced.about().collect()
    }

    /// Reads these services, and others as far as they may have changed with them, at one moment; and the
    /// salts that are needed.
    fn read_at_one_moment(
        &mut self,
        server: &mut Server,
        mut services: Vec<usize>,
    ) -> RedisResult<(Vec<KeysReply>, KeysLook)> {
        let mut look = KeysLook::new();
        for round in 1..=MOST_TRIES {
            if self.by_slot {
                services = self.keyring.with_their_slots(&services);
            }
            let (answers, untouched) = self.ask(server, &services)?;
            look.untouched &= untouched;
            if self
                .extras
                .are_missing(answers.iter().flat_map(KeysReply::bytes), &self.keyring)
            {
                continue;
            }
            look.extras = self.extras.read_elsewhere(
                &mut server.reader,
                &self.settings,
                (&self.keyring, &services),
                &mut self.rights,
            )?;
            // What is in several slots cannot have been written at one moment.
            if services.len() == self.keyring.len() || self.by_slot {
                return Ok((answers, look));
            }
            server.subscription.catch_up(self.settings.timeout)?;
            let since = server.subscription.take_announced();
            let is_whole = !since.all && since.about().all(|it| services.contains(&it));
            // The services that were read may have been touched before the reading, or after it.
            look.touched.extend(&since.services);
            if is_whole {
                self.announced.add(since);
                return Ok((answers, look));
            }
            let mut others: BTreeSet<usize> = services.into_iter().collect();
            others.extend(since.about());
            services = match since.all || round >= MOST_ROUNDS {
                true => self.keyring.all(),
                false => others.into_iter().collect(),
            };
        }
        Err(io_error("the lists do not stop changing"))
    }

    /// Asks for these services: in one transaction, or in one for each slot of a cluster. Also returns
    /// whether WATCHed keys were untouched before.
    fn ask(
        &mut self,
        server: &mut Server,
        services: &[usize],
    ) -> RedisResult<(Vec<KeysReply>, bool)> {
        if !self.by_slot {
            match self.ask_slot(server, services, 0) {
                Err(error) if error.code() == Some("CROSSSLOT") && self.keyring.len() > 1 => {
                    self.by_slot = true;
                    // Until then, one stood for all.
                    for mut slot in std::mem::take(&mut self.open_slots).into_values() {
                        slot.close(&server.reader);
                    }
                }
                outcome => return outcome.map(|(answer, untouched)| (vec![answer], untouched)),
            }
        }
        let mut answers = Vec::new();
        for (slot, services) in self.keyring.by_slot(services) {
            answers.push(self.ask_slot(server, &services, slot)?.0);
        }
        Ok((answers, true))
    }

    fn ask_slot(
        &mut self,
        server: &mut Server,
        services: &[usize],
        slot: u16,
    ) -> RedisResult<(KeysReply, bool)> {
        let query = KeysQuery {
            settings: &self.settings,
            keyring: &self.keyring,
            services,
        };
        let (rights, extras) = (&mut self.rights, &mut self.extras);
        let question = &mut self.standings.question;
        let slot = self.open_slots.entry(slot).or_default();
        reading::ask(&mut server.reader, slot, &query, (rights, extras), question)
    }

    /// The slot of some services is being migrated.
    pub(super) fn is_slot_open(&self) -> bool {
        self.open_slots.values().any(OpenSlot::is_open)
    }
}
