//! What was read, on its way to the publisher.

use std::collections::BTreeSet;
use std::hash::BuildHasher as _;
use std::time::{Duration, Instant};

use redis::RedisResult;

use super::{KnownService, Server, Watcher};
use crate::lists::{ByList, ListName, ServiceName};
use crate::store::reading::content;
use crate::store::redis::changes::Way;
use crate::store::redis::extras::ExtraReply;
use crate::store::redis::keyring::KeyOf;
use crate::store::redis::link::Link;
use crate::store::redis::once::wrong_of;
use crate::store::redis::reading::{KeysReply, ServicePart};
use crate::store::redis::unsettled::KeysLook;
use crate::store::{Cause, Fault, Reading, ReleaseReading, ServiceReading, StoredText};

/// A change found by a check may be announced at this moment: how long to wait for that. A busy machine
/// takes a while, and an unannounced change is late in any case.
const GRACE: Duration = Duration::from_millis(200);

/// What was read of some services.
#[derive(Default)]
struct TakenParts {
    /// Their places.
    read: Vec<usize>,
    readings: Vec<ServiceReading>,
    /// The keys of a wrong type.
    wrong: Vec<KeyOf>,
    /// A list is another one than before.
    has_changes: bool,
    /// Among the changes is one that would be held, or has to settle, unless somebody has said that it is
    /// meant.
    may_wait: bool,
}

impl Watcher {
    /// Publishes what was read. Most checks find nothing new: then a million entries need not be parsed
    /// again, nor those of the other services where one holds a change.
    pub(super) fn take_in(
        &mut self,
        answers: &[KeysReply],
        look: KeysLook,
        server: &mut Server,
    ) -> RedisResult<()> {
        let mut releases = self.releases(answers, &look, server)?;
        for (service, release) in &releases {
            // What cannot be read at the moment is as it was.
            if release.state != StoredText::Unknown {
                self.known[*service].frozen = release.frozen();
            }
        }
        let parts = answers.iter().flat_map(KeysReply::parts);
        let parts = parts.map(|part| {
            let salt = look.extras.get(&KeyOf::salt(part.service));
            let print = part.fingerprint(salt, &self.hasher);
            // The same lists come in, or do not.
            let known = &self.known[part.service];
            let kept = self.hasher.hash_one((&known.frozen, known.is_lost));
            (part, print.wrapping_add(kept))
        });
        let parts: Vec<_> = parts.collect();
        // Nobody waits for lists who has to know of a release that was taken back.
        let known = |part: &ServicePart<'_>| self.known[part.service].fingerprint;
        let same = parts
            .iter()
            .filter(|(part, print)| known(part) == Some(*print));
        let same: Vec<usize> = same.map(|(part, _)| part.service).collect();

        let alone = same
            .into_iter()
            .filter_map(|it| self.told_release(it, &mut releases));
        let alone: Vec<_> = alone.collect();
        if !alone.is_empty() {
            self.feed.see_releases(alone);
        }
        let prints = parts.iter().map(|(part, print)| (part.service, *print));
        let services = self.keyring.services();
        let to_parse = to_parse(&prints.collect::<Vec<_>>(), &self.known, |same| {
            let names: Vec<_> = same.iter().map(|it| &services[*it].service).collect();
            self.feed.confirm(&names)
        });
        if to_parse.is_empty() {
            self.feed.checked(look.cause);
            return Ok(());
        }
        let mut taken = TakenParts::default();
        for (part, print) in parts
            .iter()
            .filter(|(it, _)| to_parse.contains(&it.service))
        {
            let release = releases.remove(&part.service);
            self.take(part, *print, (&look, release), &mut taken)?;
        }
        if taken.may_wait {
            let (reader, settings) = (&mut server.reader, &self.settings);
            let meant = self.accept_key.read_in_advance(reader, settings);
            for reading in &mut taken.readings {
                reading.meant.clone_from(&meant);
            }
        }
        self.types
            .tell(&mut server.reader, &self.keyring, &taken.read, &taken.wrong)?;
        self.tell_deaf(server);
        self.publish(taken, &look, server);
        Ok(())
    }

    /// Takes in what was read of one service, whose fingerprint is `print`.
    fn take(
        &mut self,
        part: &ServicePart<'_>,
        print: u64,
        (look, release): (&KeysLook, Option<ReleaseReading>),
        taken: &mut TakenParts,
    ) -> RedisResult<()> {
        let service = part.service;
        let (mut lists, salt) = part.reading(&self.keyring, &self.rights)?;
        let is_lost = self.known[service].is_lost;
        if is_lost {
            self.keep_lost(service, &mut lists);
        }
        let content = content(&lists, &self.hasher);
        // A list that can be read only now, or no longer, has not changed.
        let known = &self.known[service];
        for (list, now) in content.iter() {
            let both = now.zip(known.content[list]);
            if both.is_some_and(|(now, before)| now != before) {
                taken.has_changes = true;
                // An empty list is of no entries, and a hash of none.
                taken.may_wait |= list == ListName::Prod || *now == Some(0);
            }
        }
        taken.read.push(service);
        taken.wrong.extend(wrong_of(service, &lists));
        let elsewhere = look.extras.get(&KeyOf::salt(service));
        let salt = self.salt_of(service, salt, elsewhere, &mut taken.wrong)?;
        let has_salt = salt.as_ref().map(ExtraReply::is_there).filter(|_| !is_lost);
        let salt = self.extras.take(service, salt, &self.keyring);
        self.see_what_is_gone(service, &lists, has_salt);
        let known = &mut self.known[service];
        (known.fingerprint, known.content) = (Some(print), content);
        if release.is_some() {
            known.release.clone_from(&release);
        }
        let keys = &self.keyring.services()[service];
        taken.readings.push(ServiceReading {
            service: keys.service.clone(),
            lists,
            gray_of: keys.gray_of.clone(),
            salt,
            empty_for: ByList::from_fn(|list| look.empty_for(service, list)),
            asked: Some(look.began),
            accepted: Vec::new(),
            meant: Vec::new(),
            frozen: self.known[service].frozen.clone(),
            release,
        });
        Ok(())
    }

    /// Nobody has removed these lists of a service: they stay as they are.
    fn keep_lost(&self, service: usize, lists: &mut Reading) {
        for list in ListName::ALL {
            let is_own = list != ListName::Gray || self.keyring.has_gray(service);
            if is_own && lists[list].is_ok() {
                lists[list] = Err(Fault::WithoutData);
            }
        }
    }

    /// Brings it into force, and notes what has to settle first.
    fn publish(&mut self, taken: TakenParts, look: &KeysLook, server: &Server) {
        // Only some of the changes of an open slot are announced.
        let is_announced =
            matches!(server.way, Way::Events | Way::Tracking) && !self.is_slot_open();
        let is_found = look.cause == Cause::Check && is_announced && taken.has_changes;
        let cause = match is_found {
            true => self.cause_of_check(server, look.announced),
            false => look.cause,
        };
        let awaited = self.feed.publish_watched(taken.readings, cause);
        self.waited += awaited.names;
        let emptied = awaited.emptied.into_iter();
        let emptied = emptied.filter_map(|(service, list)| {
            let service = self.keyring.place(&service)?;
            Some(look.unsettled(service, list))
        });
        self.unsettled = emptied.collect();
        self.unsettled_until = awaited.until;
        if is_found && cause == Cause::Check {
            self.feed.missed_event();
            self.in_doubt = true;
        }
    }

    /// What the server says of the salt of a service, if it was asked: `here`, with its lists, or
    /// `elsewhere`.
    fn salt_of(
        &mut self,
        service: usize,
        here: Option<RedisResult<ExtraReply>>,
        elsewhere: Option<&ExtraReply>,
        wrong: &mut Vec<KeyOf>,
    ) -> RedisResult<Option<ExtraReply>> {
        let of = KeyOf::salt(service);
        let reply = match here {
            Some(Err(error)) if error.code().is_some() => {
                self.rights.refused(of, &self.keyring, &error);
                None
            }
            Some(reply) => Some(reply?),
            None => elsewhere.cloned(),
        };
        if matches!(reply, Some(ExtraReply::WrongType)) {
            wrong.push(of);
        }
        Ok(reply)
    }

    /// Says once that a salt is in use whose changes are not announced, and that those of what is known of a
    /// release are not: then they are found by a check.
    fn tell_deaf(&mut self, server: &Server) {
        let deaf = |of: &KeyOf| server.subscription.deaf.contains(of);
        let salt = self.extras.wanted().map(KeyOf::salt).find(deaf);
        let mut releases = self.keyring.all().into_iter();
        let release = releases.find_map(|it| self.keyring.of_release(it).find(deaf));
        if let Some(of) = salt.filter(|it| self.are_deaf.insert(it.part)) {
            let (key, service) = (self.keyring.key(of), self.keyring.service_field(of.service));
            log::warn!("salt-events-refused key={key:?}{service}");
        }
        if let Some(of) = release.filter(|it| self.are_deaf.insert(it.part)) {
            let (key, fields) = (self.keyring.key(of), self.keyring.fields(of));
            log::warn!("release-events-refused {fields} key={key:?}");
        }
    }

    /// Lets in held changes that the accept key names. Of the others it is said that they are held: a verb
    /// confirms with the change what it makes, which is nobody's trouble then; and it says so in the history,
    /// for gateways that were away.
    pub(super) fn accept_by_key(&mut self, reader: &mut Link) -> RedisResult<()> {
        let read = match self.feed.holds() {
            true => self.accept_key.read(reader, &self.settings),
            false => Ok(Vec::new()),
        };
        for digest in read.iter().flatten() {
            self.feed.accept(digest);
        }
        let confirmed = read.and_then(|_| self.confirmed_before(reader));
        for digest in confirmed.iter().flatten() {
            self.feed.accept(digest);
        }
        self.feed.tell_held();
        confirmed.map(drop)
    }

    /// What the histories say of the services of which something is held still.
    fn confirmed_before(&mut self, reader: &mut Link) -> RedisResult<Vec<String>> {
        let mut confirmed = Vec::new();
        if !self.feed.holds() {
            return Ok(confirmed);
        }
        let status = self.feed.status();
        let holding: BTreeSet<&ServiceName> = status.held().map(|(service, _)| service).collect();
        let services = self.keyring.services().iter();
        for keys in services.filter(|it| holding.contains(&it.service)) {
            if let Some(history) = &keys.history {
                let settings = &self.settings;
                confirmed.extend(self.last_change.confirmed(reader, settings, history)?);
            }
        }
        Ok(confirmed)
    }

    /// A change that comes just before a check, or with it, is announced a moment later.
    fn cause_of_check(&mut self, server: &Server, announced: u64) -> Cause {
        let begun = Instant::now();
        let until = begun + GRACE;
        let mut heard = announced > self.changes_read;
        while !heard && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
            heard = server.subscription.changes() > announced;
        }
        self.waited += begun.elapsed();
        if heard { Cause::Event } else { Cause::Check }
    }
}

/// The services whose lists are to be parsed, of those of which there are these hashes: what is new, and what
/// is not confirmed of the rest. A service answers only for itself.
fn to_parse(
    prints: &[(usize, u64)],
    known: &[KnownService],
    confirm: impl FnOnce(&[usize]) -> Vec<bool>,
) -> BTreeSet<usize> {
    let is_same = |(service, print): &&(usize, u64)| known[*service].fingerprint == Some(*print);
    let same = prints.iter().filter(is_same).map(|it| it.0);
    let same: Vec<usize> = same.collect();
    let mut to_parse: BTreeSet<usize> = prints.iter().map(|it| it.0).collect();
    for (service, is_confirmed) in same.iter().zip(confirm(&same)) {
        if is_confirmed {
            to_parse.remove(service);
        }
    }
    to_parse
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::ServiceSettings;
    use crate::lists::ServiceName;
    use crate::store::gate::guard::GuardRules;
    use crate::store::{Entries, Feed, Publisher, Reading};
    use crate::upstream::in_force::InForce;

    const MANY: usize = 1000;

    /// A store with the services, of which each has this many servers, and what is known of them.
    struct Store {
        names: Vec<ServiceName>,
        servers: Vec<usize>,
        known: Vec<KnownService>,
        publisher: Arc<Publisher>,
        feed: Feed,
    }

    impl Store {
        fn new() -> Self {
            let names = (1..MANY).map(|at| ServiceName::parse(&format!("s{at}")).unwrap());
            let names: Vec<_> = [ServiceName::default()].into_iter().chain(names).collect();
            let settings = names.iter().map(|name| {
                let name = name.clone();
                Arc::new(ServiceSettings {
                    name,
                    ..ServiceSettings::default()
                })
            });
            let settings: Vec<_> = settings.collect();
            let rules = GuardRules {
                share: 50,
                timeout: None,
            };
            let publisher = Publisher::new(Arc::new(InForce::new(1)), 80, rules, "test");
            let publisher = Arc::new(publisher.with_services(&settings));
            Self {
                names,
                servers: vec![4; MANY],
                known: vec![KnownService::default(); MANY],
                feed: publisher.feed(),
                publisher,
            }
        }

        /// Reads all services as a check does; returns how many were parsed for that.
        fn check(&mut self) -> usize {
            let prints = self.servers.iter().map(|it| *it as u64).enumerate();
            let prints: Vec<_> = prints.collect();
            let to_parse = to_parse(&prints, &self.known, |same| {
                let names: Vec<_> = same.iter().map(|it| &self.names[*it]).collect();
                self.feed.confirm(&names)
            });
            let readings = to_parse.iter().map(|service| {
                self.known[*service].fingerprint = Some(prints[*service].1);
                let servers = (0..self.servers[*service]).map(|it| format!("10.0.0.{it}"));
                let servers: Vec<String> = servers.collect();
                let lists = Reading {
                    gray: Ok(Entries::default()),
                    pre: Ok(Entries::default()),
                    prod: Ok(servers.iter().collect()),
                };
                ServiceReading {
                    service: self.names[*service].clone(),
                    ..ServiceReading::settled(lists)
                }
            });
            let readings: Vec<_> = readings.collect();
            match readings.is_empty() {
                true => self.feed.checked(Cause::Check),
                false => drop(self.feed.publish_watched(readings, Cause::Check)),
            }
            to_parse.len()
        }
    }

    #[test]
    fn while_one_service_holds_a_change_a_check_parses_no_other_one() {
        let mut store = Store::new();
        assert_eq!([store.check(), store.check()], [MANY, 0]);
        store.servers[500] = 1;
        assert_eq!([store.check(), store.check(), store.check()], [1, 1, 1]);
        assert!(store.publisher.holds());
        // One that changes meanwhile is parsed once.
        store.servers[7] = 5;
        assert_eq!([store.check(), store.check()], [2, 1]);
        store.servers[500] = 4;
        assert_eq!([store.check(), store.check()], [1, 0]);
        assert!(!store.publisher.holds());
    }
}
