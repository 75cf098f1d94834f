//! A store's way to the publisher. A reload may put another store in its place; whatever the old one has read
//! and not yet handed over is dropped then.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use super::reading::ParsedService;
use super::{Publisher, StoreTurn};
use crate::error::StoreFindingKind;
use crate::lists::ServiceName;
use crate::store::gate::door::Awaited;
use crate::store::gate::guard::Timestamp;
use crate::store::status::StoreShare;
use crate::store::{By, Cause, Fault, Mode, ReleaseReading, ServiceReading, Status, StoreFinding};

/// What one store has of the publisher, for as long as it is its turn.
pub(crate) struct Feed {
    publisher: Arc<Publisher>,
    turn: u64,
    over: Receiver<()>,
    /// What is read of the store by way of this.
    share: StoreShare,
}

impl Publisher {
    /// The feed of the only store from now on.
    pub(crate) fn feed(self: &Arc<Self>) -> Feed {
        let (lives, over) = bounded(0);
        let mut turn = self.turn();
        turn.number += 1;
        turn.lives = Some(lives);
        self.locked().forget_shares();
        Feed {
            publisher: Arc::clone(self),
            turn: turn.number,
            over,
            share: StoreShare::default(),
        }
    }

    /// The lists are another store's from now on, or mean something else, of which nothing has been read yet;
    /// returns its feed. What is in force stays. What waits at the door goes, unless the `lists` are the
    /// same ones by another way.
    pub(crate) fn switch(self: &Arc<Self>, source: impl fmt::Display, are_others: bool) -> Feed {
        // First, so that the old one is through.
        let feed = self.feed();
        let mut entrance = self.locked_entrance();
        entrance.each_mut(|service, intake| {
            intake.door.lose_sight();
            if are_others {
                intake.door.forget();
                (intake.awaits_store, intake.copy) = (true, None);
            }
            self.note_held(service, intake);
        });
        if are_others {
            if let Some(watch) = &self.lists_watch {
                watch.forget();
            }
            entrance.copy = None;
        }
        let mut status = self.locked();
        status.source = source.to_string();
        status.server = None;
        let kinds: Vec<_> = status.findings.iter().map(|it| it.finding).collect();
        for kind in kinds {
            status.find(kind, None);
        }
        drop(status);
        feed
    }

    fn turn(&self) -> MutexGuard<'_, StoreTurn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feed {
    /// Does this unless the turn is over; no other store takes its turn meanwhile.
    fn act<T>(&self, act: impl FnOnce(&Publisher) -> T) -> Option<T> {
        let turn = self.publisher.turn();
        (turn.number == self.turn).then(|| act(&self.publisher))
    }

    /// A feed of the same store, for the services that are read of it by way of that.
    pub(crate) fn share(&self, number: usize, services: Vec<ServiceName>) -> Self {
        Self {
            publisher: Arc::clone(&self.publisher),
            turn: self.turn,
            over: self.over.clone(),
            share: StoreShare {
                number,
                services: Some(services),
            },
        }
    }

    /// Another store has its turn.
    pub(crate) fn is_over(&self) -> bool {
        self.publisher.turn().number != self.turn
    }

    /// What says so when it happens, by being disconnected.
    pub(crate) fn over(&self) -> &Receiver<()> {
        &self.over
    }

    /// Waits for so long, but not beyond the end of the turn.
    pub(crate) fn sleep(&self, pause: Duration) {
        let _ = self.over.recv_timeout(pause);
    }

    /// Brings what was read into force, as far as it can be accepted, all of it at once. Services that were
    /// not read stay as they are. A list that is empty in a store that may be seen while it is written has
    /// been so for some time. Returns what another reading has to tell.
    pub(in crate::store) fn publish_watched(
        &self,
        readings: Vec<ServiceReading>,
        cause: Cause,
    ) -> Awaited {
        // Nobody who wants the turn has to wait for this.
        let mut seen = self.publisher.seen(&readings);
        let read = self.publisher.parse(readings);
        for ((_, seen), read) in seen.iter_mut().zip(&read) {
            seen.add(&read.lists, read.gray_of.is_some());
        }
        // What a server has lost, nobody has changed.
        let mut are_lost = read.iter().map(ParsedService::is_lost);
        seen.retain(|_| !are_lost.next().unwrap_or_default());
        let names = self.publisher.prepare(&read);
        let publish = |it: &Publisher| {
            it.recovers(&self.share);
            it.publish_parsed(read, cause, Timestamp::now)
        };
        let awaited = self.act(publish).unwrap_or_default();
        self.act(|it| it.tell_seen(seen));
        Awaited { names, ..awaited }
    }

    /// Tells of what was read of releases where no lists come into force.
    pub(in crate::store) fn see_releases(&self, read: Vec<(ServiceName, ReleaseReading)>) {
        self.act(|it| it.see(&read));
    }

    /// As [`Publisher::confirm`]; what has come too late is confirmed, too.
    pub(crate) fn confirm(&self, services: &[&ServiceName]) -> Vec<bool> {
        let confirmed = self.act(|it| it.confirm(services));
        confirmed.unwrap_or_else(|| vec![true; services.len()])
    }

    /// As [`Publisher::checked`].
    pub(crate) fn checked(&self, cause: Cause) {
        self.act(|it| {
            it.recovers(&self.share);
            it.checked(cause);
        });
    }

    /// As [`Publisher::failed`].
    pub(crate) fn failed(&self, error: impl fmt::Display) {
        self.act(|it| it.share_failed(&self.share, error));
    }

    /// As [`Publisher::failed_for`].
    pub(crate) fn failed_for(&self, fault: Fault, error: impl fmt::Display) {
        self.act(|it| it.failed_for(&self.share, fault, error));
    }

    /// As [`Publisher::set_mode`].
    pub(crate) fn set_mode(&self, mode: Mode) {
        self.act(|it| it.set_mode(mode));
    }

    /// As [`Publisher::set_server`].
    pub(crate) fn set_server(&self, server: Option<SocketAddr>) {
        self.act(|it| it.set_server(server));
    }

    /// As [`Publisher::find`].
    pub(crate) fn find(&self, finding: StoreFindingKind, found: Option<StoreFinding>) {
        self.act(|it| it.find(finding, found));
    }

    /// As [`Publisher::missed_event`].
    pub(crate) fn missed_event(&self) {
        self.act(Publisher::missed_event);
    }

    /// As [`Publisher::holds`].
    pub(crate) fn holds(&self) -> bool {
        self.act(Publisher::holds).unwrap_or_default()
    }

    /// As [`Publisher::has_lists`].
    pub(crate) fn has_lists(&self) -> bool {
        self.publisher.has_lists(&self.share)
    }

    /// As [`Publisher::has_lists_of`].
    pub(crate) fn has_lists_of(&self, service: &ServiceName) -> bool {
        self.publisher.has_lists_of(service)
    }

    /// As [`Publisher::status`].
    pub(crate) fn status(&self) -> Status {
        self.publisher.status()
    }

    /// Accepts a held change by this digest, if there is one.
    pub(crate) fn accept(&self, digest: &str) {
        // What is not held any more, or not yet, is not worth a message.
        self.act(|it| it.accept(digest, By::Key).is_ok());
    }

    /// As [`Publisher::tell_held`].
    pub(crate) fn tell_held(&self) {
        self.act(Publisher::tell_held);
    }

    /// As [`Publisher::tell_owed`].
    pub(crate) fn tell_owed(&self) {
        self.act(Publisher::tell_owed);
    }

    /// Frees lists that have been replaced.
    pub(crate) fn tidy(&self) {
        drop(self.publisher.lists());
    }
}
