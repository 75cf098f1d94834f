//! What a reading is not believed in, for what the server is (`standing`) or has done with its keys; and
//! what is said of that.

use std::collections::BTreeSet;
use std::time::Instant;

use redis::RedisResult;

use super::{Server, Watcher};
use crate::error::StoreFindingKind;
use crate::store::redis::cluster;
use crate::store::redis::info::Info;
use crate::store::redis::keyring::KeyOf;
use crate::store::redis::origin::Origin;
use crate::store::redis::reading::KeysReply;
use crate::store::redis::standing::{Adrift, SECTIONS, ServerStanding, StandingFacts};
use crate::store::{Cause, Reading, StoreFinding};

impl Watcher {
    /// Why the lists were read that are to be taken; `None` where they are not, for what the server
    /// is: then those in force stay, as if it were away.
    pub(crate) fn cause_if_taken(
        &mut self,
        answers: &[KeysReply],
        server: &mut Server,
        cause: Cause,
    ) -> RedisResult<Option<Cause>> {
        for part in answers.iter().flat_map(KeysReply::parts) {
            self.known[part.service].is_empty = part.is_empty();
        }
        let standings = answers.iter().map(|it| &it.standing);
        let mut unsettled = standings.filter(|it| **it != ServerStanding::Settled);
        let standing = unsettled.next_back().unwrap_or(&ServerStanding::Settled);
        self.is_adrift = *standing != ServerStanding::Settled;
        let bare = self.bare_services(answers);
        // As a rule nothing more is asked.
        let info = match self.is_adrift || !bare.is_empty() {
            true => Info::ask(&mut server.reader, &SECTIONS)?,
            false => Info::default(),
        };
        let now = Origin::of(&info);
        let is_lost = |it: &usize| self.known[*it].taken.is_lost(now.as_ref());
        let lost: BTreeSet<usize> = bare.iter().copied().filter(is_lost).collect();
        let facts = StandingFacts {
            is_adrift: self.is_adrift,
            // Of the services that were not read nothing was announced since.
            is_empty: self.known.iter().all(|it| it.is_empty),
            is_other: !lost.is_empty() && lost.len() == bare.len(),
            has_lists: self.feed.has_lists(),
        };
        let (adrift, fault) = self.standings.judge(standing, &info, facts);
        self.keeps = fault.is_some();
        // Whether its lists are taken or not: it may have got another master, or become one.
        let place = server.reader.place();
        let found = adrift.map(|it| without_master(&place, it, fault.is_none()));
        self.find(StoreFindingKind::ReplicaLinkDown, found);
        let Some(fault) = fault else {
            for part in answers.iter().flat_map(KeysReply::parts) {
                self.known[part.service].is_lost = lost.contains(&part.service);
            }
            return Ok(Some(self.owed.take().unwrap_or(cause)));
        };
        self.owed.get_or_insert(cause);
        self.feed.failed_for(fault, not_taken(&place, standing));
        Ok(None)
    }

    /// The services among these of which there is no list, although there is something to lose.
    fn bare_services(&self, answers: &[KeysReply]) -> Vec<usize> {
        let parts = answers.iter().flat_map(KeysReply::parts);
        let bare = parts.filter(|it| it.has_lists() && it.is_empty());
        let services = self.keyring.services();
        let bare = bare.filter(|it| self.feed.has_lists_of(&services[it.service].service));
        bare.map(|it| it.service).collect()
    }

    /// Notes whose data the lists are that were taken: of what the server had said before they were read.
    pub(crate) fn note_whose(&mut self, answers: &[KeysReply]) {
        for part in answers.iter().flat_map(KeysReply::parts) {
            let known = &mut self.known[part.service];
            if !known.is_lost {
                known.taken.take(&self.standings.seen);
            }
        }
    }

    /// Notes which lists have vanished, and whether the salt has, if it was asked for (`has_salt`). Whoever
    /// did that, it is followed as a removal: what was evicted is no key any more, so nobody could remove it
    /// to roll back, and after a restart nobody would know. An emptied `prod` is held in any case.
    pub(crate) fn see_what_is_gone(
        &mut self,
        service: usize,
        reading: &Reading,
        has_salt: Option<bool>,
    ) {
        for (list, entries) in reading.iter() {
            let Ok(read) = entries else {
                continue;
            };
            let is_there = !read.is_empty();
            let had = std::mem::replace(&mut self.known[service].had[list], is_there);
            self.note_gone(KeyOf::list(service, list), had, is_there);
        }
        let had = &mut self.known[service].had_salt;
        let had = std::mem::replace(had, has_salt == Some(true));
        // Without a share, nobody misses it.
        self.note_gone(KeyOf::salt(service), had, has_salt != Some(false));
    }

    fn note_gone(&mut self, key: KeyOf, had: bool, is_there: bool) {
        if is_there {
            self.gone.retain(|it| *it != key);
        } else if had {
            self.gone.push(key);
        }
    }

    /// Says so when keys were evicted and a list is gone since; and asks whose data the server has, for what
    /// is read next.
    pub(crate) fn note_evictions(&mut self, server: &mut Server) -> RedisResult<()> {
        let count = self.standings.note(&mut server.reader)?;
        for known in &mut self.known {
            known.taken.follow(&self.standings.seen);
        }
        if self.standings.is_cluster {
            let servers = cluster::servers(&mut server.reader)?;
            self.finder.learn(servers);
        }
        if self.gone.is_empty() {
            self.find(StoreFindingKind::KeysEvicted, None);
            return Ok(());
        }
        let status = self.feed.status();
        let mut findings = status.findings.iter();
        if findings.any(|it| it.finding == StoreFindingKind::KeysEvicted) {
            return Ok(());
        }
        let heard = |it: &KeyOf| server.subscription.was_evicted(*it) == Some(true);
        let evicted: Vec<_> = self.gone.iter().copied().filter(heard).collect();
        let text = match (&evicted[..], count) {
            // Somebody has removed them.
            ([], 0) => {
                self.gone.clear();
                return Ok(());
            }
            ([], _) => format!(
                "Redis has evicted {count} keys since its memory was full (maxmemory), and is without {}, \
                 {REMOVAL}",
                self.names(&self.gone)
            ),
            _ => format!(
                "Redis has evicted {}, since its memory was full (maxmemory), {REMOVAL}",
                self.names(&evicted)
            ),
        };
        let found = StoreFinding {
            finding: StoreFindingKind::KeysEvicted,
            server: server.reader.place(),
            since: Instant::now(),
            text,
        };
        self.find(StoreFindingKind::KeysEvicted, Some(found));
        Ok(())
    }

    /// Notes what was found of a kind, or that what was found here is over; another watcher may have found
    /// something, too.
    fn find(&mut self, kind: StoreFindingKind, found: Option<StoreFinding>) {
        let had = self.found.contains(&kind);
        self.found.retain(|it| *it != kind);
        self.found.extend(found.iter().map(|it| it.finding));
        if had || found.is_some() {
            self.feed.find(kind, found);
        }
    }

    fn names(&self, keys: &[KeyOf]) -> String {
        let names: Vec<String> = keys.iter().map(|it| self.keyring.words(*it)).collect();
        names.join(", ")
    }
}

/// What comes of a list, or a salt, that was evicted.
const REMOVAL: &str = "which is taken for a removal: if it was none, write it again";

/// What is to be said of a replica without its master.
fn without_master(address: &str, adrift: Adrift, is_taken: bool) -> StoreFinding {
    let Adrift { master, since } = adrift;
    let source = match is_taken {
        true => "the lists come from",
        false => "no lists are taken from",
    };
    StoreFinding {
        finding: StoreFindingKind::ReplicaLinkDown,
        server: address.to_owned(),
        since,
        text: format!("{source} the replica {address}, whose link to its master {master} is down"),
    }
}

/// Why lists are not taken, in the same words for as long as that is so.
fn not_taken(address: &str, standing: &ServerStanding) -> String {
    match standing {
        ServerStanding::Adrift(master) => format!(
            "the replica {address} has not synced with its master {master}: what it lacks was \
             removed by nobody"
        ),
        ServerStanding::Settled => format!(
            "{address} has none of the lists since it was restarted, or its master was: fill them in \
             again"
        ),
    }
}
