//! Which services this watcher has: those whose lists the server has that it watches. In a Redis Cluster some
//! are handed over to it by others, and it hands others on (`watchers`).

use std::collections::HashSet;
use std::time::Duration;

use redis::RedisResult;

use super::{KnownService, ReadScope, Server, Watcher, WatcherStart};
use crate::config::{Address, ServiceKeys};
use crate::store::Cause;
use crate::store::redis::changes::AnnouncedChanges;
use crate::store::redis::cluster::{self, Division, Redirection};
use crate::store::redis::extras::Extras;
use crate::store::redis::keyring::Keyring;
use crate::store::redis::link::Link;
use crate::store::redis::rights::Rights;
use crate::store::redis::types::WrongTypes;
use crate::store::redis::watchers::Post;

impl Watcher {
    pub(super) fn connect(&mut self) -> RedisResult<Server> {
        self.take_handed();
        let mut division = Division::default();
        let (settings, keyring) = (&self.settings, &self.keyring);
        let outcome = self.finder.open_at_lists(settings, keyring, &mut division);
        self.part_with(division.elsewhere);
        self.arrive(outcome?)
    }

    /// Has `reader` find the server that has the services of this watcher, also those handed over; what
    /// others have is handed on.
    pub(super) fn arrive_with_all(&mut self, mut reader: Link) -> RedisResult<Server> {
        self.take_handed();
        let mut division = Division::default();
        let outcome = cluster::settle(&mut reader, &self.settings, &self.keyring, &mut division);
        self.part_with(division.elsewhere);
        outcome?;
        self.arrive(reader)
    }

    /// Takes the services that were handed over.
    fn take_handed(&mut self) {
        let handed = self.post.take();
        if !handed.is_empty() {
            let mut services = self.keyring.services().to_vec();
            services.extend(handed);
            self.regroup(services);
        }
    }

    /// Hands on what is at other servers.
    fn part_with(&mut self, elsewhere: Vec<(Option<Address>, Vec<usize>)>) {
        if elsewhere.is_empty() {
            return;
        }
        let gone: HashSet<usize> = elsewhere.iter().flat_map(|it| &it.1).copied().collect();
        let services = self.keyring.services();
        let keys = |places: &[usize]| -> Vec<ServiceKeys> {
            places.iter().map(|it| services[*it].clone()).collect()
        };
        for (server, places) in elsewhere {
            let begin = |post: Post, services: Vec<ServiceKeys>| {
                let start = WatcherStart {
                    settings: self.settings.clone(),
                    post,
                    feed: self.feed.share(self.post.number, self.keyring.names()),
                    first: self.first.clone(),
                    connected_before: self.connected_before,
                    finder: self.finder.another(),
                };
                start.spawn(services)
            };
            if let Err(error) = self.post.hand_on(server, keys(&places), begin) {
                self.feed.failed(error);
            }
        }
        let kept = services.iter().enumerate();
        let kept = kept.filter(|(at, _)| !gone.contains(at));
        self.regroup(kept.map(|(_, it)| it.clone()).collect());
    }

    /// From now on these services are read here.
    fn regroup(&mut self, services: Vec<ServiceKeys>) {
        let keyring = Keyring::new(services);
        let known = keyring.names().into_iter().map(|name| {
            let before = self.keyring.place(&name);
            before.map_or_else(KnownService::default, |at| self.known[at].clone())
        });
        self.known = known.collect();
        self.feed = self.feed.share(self.post.number, keyring.names());
        self.keyring = keyring;
        // What else was known of them is found out again.
        (self.rights, self.extras) = (Rights::default(), Extras::default());
        (self.types, self.announced) = (WrongTypes::default(), AnnouncedChanges::default());
        self.gone.clear();
        self.unsettled.clear();
        self.open_slots.clear();
    }

    /// Learns about a newly connected server, and makes it announce changes.
    fn arrive(&mut self, mut reader: Link) -> RedisResult<Server> {
        self.standings.meet(&mut reader)?;
        let (way, subscription) =
            self.chooser
                .choose(&mut reader, &self.settings, &self.keyring)?;
        self.feed.set_server(reader.peer());
        // WATCH and announcements belong to a connection.
        self.unsettled.clear();
        self.announced = AnnouncedChanges::default();
        self.extras.meet();
        self.by_slot = false;
        self.post.set_server(reader.address());
        self.waited = Duration::ZERO;
        self.changes_read = 0;
        self.in_doubt = false;
        self.rights.try_again();
        Ok(Server {
            reader,
            way,
            subscription,
        })
    }

    /// As [`Self::refresh`], where a cluster may have given the keys to another server.
    pub(super) fn refresh_wherever(
        &mut self,
        server: &mut Server,
        scope: ReadScope,
        cause: Cause,
    ) -> RedisResult<()> {
        match self.refresh(server, scope, cause) {
            Err(error) if Redirection::of(&error).is_some_and(|it| !it.is_asking()) => {}
            outcome => return outcome,
        }
        let reader = server.reader.another(&self.settings)?;
        let from = server.reader.place();
        *server = self.arrive_with_all(reader)?;
        let to = server.reader.place();
        if from != to {
            log::info!("redis-moved from={from:?} to={to:?}");
        }
        self.feed.set_mode(server.way.mode());
        self.refresh(server, ReadScope::All, Cause::Reconnect)
    }
}
