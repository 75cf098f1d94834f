//! What a worker reports in the error log about peers, proxies and clients.
//!
//! Each kind is limited by a [`Throttle`] of its own: many reports of one kind, which strangers can
//! cause by connections that are turned away, must not hide those of another; and `unsaid` counts its
//! own kind only.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

use super::chooser::Chosen;
use super::doubts::Doubted;
use super::gateway::Counters;
use crate::error::{Close, Doubt, Failure, StoreFindingKind, WrongForce};
use crate::logs::throttle::Throttle;
use crate::upstream::events::NamedPool;

/// One throttle for each kind.
pub(super) struct Reports {
    counters: Rc<Counters>,
    attempts: Limited,
    interim: Limited,
    turned_away: Limited,
    attach: Limited,
    doubts: Limited,
    forces: Limited,
}

/// Of one kind.
#[derive(Default)]
struct Limited(RefCell<Throttle>);

impl Limited {
    /// As [`Throttle::turn`], for an event at this moment.
    fn turn(&self) -> Option<u64> {
        self.0.borrow_mut().turn(Instant::now())
    }
}

impl Reports {
    pub(super) fn new(counters: Rc<Counters>) -> Self {
        Self {
            counters,
            attempts: Limited::default(),
            interim: Limited::default(),
            turned_away: Limited::default(),
            attach: Limited::default(),
            doubts: Limited::default(),
            forces: Limited::default(),
        }
    }

    /// Counts and reports a failed attempt.
    pub(super) fn attempt_failed(
        &self,
        chosen: &Chosen,
        failure: Failure,
        error: Option<&io::Error>,
    ) {
        let (pools, pool, peer) = (chosen.pools(), chosen.pool, chosen.peer().address);
        let counters = self.counters.of_service(pools);
        counters.attempts_failed[pool as usize][failure.index()].increment();
        // Neither says anything about the peer.
        if matches!(failure, Failure::Stale | Failure::ClientGone) {
            return;
        }
        if let Some(unsaid) = self.attempts.turn() {
            let (pool, failure) = (NamedPool(pools.service(), pool), failure.name());
            let error = error.map(ToString::to_string).unwrap_or_default();
            log::warn!(
                "attempt-failed {pool} peer={peer} failure={failure} error={error:?} unsaid={unsaid}"
            );
        }
    }

    /// Reports a peer whose interim responses are too many to be passed on.
    pub(super) fn interim_dropped(&self, peer: Option<SocketAddr>) {
        if let Some(peer) = peer
            && let Some(unsaid) = self.interim.turn()
        {
            log::warn!("interim-dropped peer={peer} unsaid={unsaid}");
        }
    }

    /// Counts and reports that `proxy` is not believed, which has `said` this about its client.
    #[cold]
    pub(super) fn doubted(&self, proxy: IpAddr, doubt: Doubt, said: &[u8]) {
        /// So much of what it has said is shown.
        const SHOWN: usize = 64;
        self.counters.doubts[doubt.index()].increment();
        if self.doubts.turn().is_none() {
            return;
        }
        let at = Instant::now();
        let element = said[..said.len().min(SHOWN)].escape_ascii().to_string();
        let metrics = &self.counters.gateway.metrics;
        let counts = Doubt::ALL.iter().map(|it| it.index());
        let count = counts
            .map(|it| metrics.sum(|worker| &worker.doubts[it]))
            .sum();
        let reason = doubt.name();
        let line = format!("proxy={proxy} reason={reason} said=\"{element}\"");
        let doubted = Doubted {
            proxy,
            doubt,
            element,
            at,
        };
        if let Some(unsaid) = self.counters.gateway.doubts.note(doubted, count) {
            let name = StoreFindingKind::ProxyNotBelieved.name();
            log::warn!("{name} {line} unsaid={unsaid}");
        }
    }

    /// Counts and reports that `client` has asked for a version in a way that does not count.
    #[cold]
    pub(super) fn force_refused(&self, client: IpAddr, wrong: WrongForce) {
        self.counters.forces_refused[wrong.index()].increment();
        if let Some(unsaid) = self.forces.turn() {
            let reason = wrong.name();
            log::warn!("force-refused client={client} reason={reason} unsaid={unsaid}");
        }
    }

    /// Reports why a connection to a listener for proxies ends before its first request: nothing else
    /// would show it.
    pub(super) fn turned_away(&self, from: IpAddr, close: Close) {
        // A proxy that only checks whether the port is open.
        if matches!(close, Close::ClientClosed | Close::Draining) {
            return;
        }
        if let Some(unsaid) = self.turned_away.turn() {
            let close = close.name();
            log::warn!("connection-turned-away from={from} close={close} unsaid={unsaid}");
        }
    }

    /// Reports a connection of `client` that this worker cannot take up.
    pub(super) fn attach_failed(&self, client: IpAddr, error: &io::Error) {
        if let Some(unsaid) = self.attach.turn() {
            let error = error.to_string();
            log::error!("attach-failed client={client} error={error:?} unsaid={unsaid}");
        }
    }
}
