//! The connection of an attempt: an idle one of the pool, or a new one, and the descriptors that it takes.

use std::io;
use std::time::Instant;

use super::{Exchange, InFlight, Outcome, SHORTAGE, Stop, Upstream};
use crate::error::Failure;
use crate::net::{self, Moment, Watch};
use crate::proxy::body::tunnel::Twins;
use crate::proxy::chooser::Chosen;
use crate::proxy::downstream::{Downstream, Transport};
use crate::upstream::peer;
use crate::upstream::pool::{Leftover, Need};

impl<D: Downstream> Exchange<'_, D> {
    /// Tries one peer: on an idle connection if there is one that suits, and on a new one if there is none
    /// or it turns out to be closed.
    pub(super) fn try_peer(&mut self, chosen: &Chosen) -> Result<Outcome, Stop> {
        let (address, need) = (chosen.peer().address, self.need());
        if let Some(found) = self.worker.pool.checkout(address, self.asker, need) {
            self.worker.metrics().upstream_reuses.increment();
            self.leftover = found.leftover;
            let outcome = self.attempt(chosen, found.stream, found.in_use, true);
            self.account(chosen, &outcome, None);
            if matches!(outcome, Err(Stop::Failed(Failure::Stale))) {
                self.worker.pool.was_closed(address, found.seen_open);
            }
            match outcome {
                // The peer itself has not failed.
                Err(Stop::Failed(Failure::Stale))
                    if self.may_retry(Failure::Stale) && !self.is_overdue() => {}
                outcome => return outcome,
            }
        }
        self.try_new_connection(chosen)
    }

    // Out of line: most requests need none.
    #[inline(never)]
    fn try_new_connection(&mut self, chosen: &Chosen) -> Result<Outcome, Stop> {
        let address = chosen.peer().address;
        self.leftover = Leftover::None;
        let deadline = self.until(Instant::now() + self.rules.connect_timeout);
        let connect = || peer::connect(address, deadline, self.transport.watch_gone());
        let in_flight = InFlight::begin(chosen.counts(self.worker.index()));
        let in_use = self.worker.begin_upstream(address, self.config, self.rules);
        let connected = self.with_descriptors(deadline, connect);
        drop(in_flight);
        let (outcome, error) = match connected {
            Ok(stream) => {
                self.worker.metrics().upstream_connects.increment();
                (self.attempt(chosen, stream, in_use, false), None)
            }
            Err(error) => {
                let failure = match peer::failure_of(&error) {
                    Failure::ConnectTimeout => self.overdue(Failure::ConnectTimeout),
                    failure => failure,
                };
                (Err(Stop::Failed(failure)), Some(error))
            }
        };
        self.account(chosen, &outcome, error.as_ref());
        outcome
    }

    /// What an idle connection must be good for. If the request cannot be sent twice, because of its method
    /// or a body that is still on its way, the peer must not be about to close the connection.
    fn need(&self) -> Need {
        let is_complete = self.body.is_complete();
        let waits = self.plan.expects_continue && !is_complete && self.buffer.is_empty();
        match waits || self.will_repeat(self.plan.is_idempotent) {
            true => Need::Repeatable,
            false => Need::Once(Moment::now()),
        }
    }

    /// Runs `make`, which opens descriptors, and where there are none left waits for them until `deadline`:
    /// mostly others are about to end, as those that wait to be accepted hope, too.
    ///
    /// # Errors
    /// Those of `make`; `ConnectionAborted` when the client goes meanwhile.
    pub(super) fn with_descriptors<T>(
        &self,
        deadline: Instant,
        make: impl Fn() -> io::Result<T>,
    ) -> io::Result<T> {
        match self.worker.with_descriptors(&make) {
            Err(error) if net::is_out_of_descriptors(&error) => {
                self.wait_for_descriptors(deadline, &make, error)
            }
            outcome => outcome,
        }
    }

    /// Tries again and again; `error` says that there are none.
    #[cold]
    #[inline(never)]
    pub(super) fn wait_for_descriptors<T>(
        &self,
        deadline: Instant,
        make: &dyn Fn() -> io::Result<T>,
        mut error: io::Error,
    ) -> io::Result<T> {
        while let Some(client) = self.transport.socket() {
            let now = Instant::now();
            if now >= deadline || net::are_waits_cut() {
                break;
            }
            client.pause(deadline.min(now + SHORTAGE), Watch::Nothing);
            if self.transport.is_gone() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            match self.worker.with_descriptors(make) {
                Err(again) if net::is_out_of_descriptors(&again) => error = again,
                outcome => return outcome,
            }
        }
        Err(error)
    }

    /// Handles for a second coroutine. They wait for descriptors as a connection does, and as long.
    pub(super) fn twins(&self, upstream: &Upstream) -> Result<Twins<D::Transport>, Failure> {
        let deadline = self.until(Instant::now() + self.rules.connect_timeout);
        let twins = || Twins::of(self.transport, &upstream.stream);
        self.with_descriptors(deadline, twins)
            .map_err(|error| match error.kind() {
                io::ErrorKind::ConnectionAborted => Failure::ClientGone,
                _ => self.out_of_descriptors(&error),
            })
    }

    pub(super) fn out_of_descriptors(&self, error: &io::Error) -> Failure {
        let peer = self.tally.peer.map(|it| it.to_string()).unwrap_or_default();
        log::error!(
            "out-of-descriptors peer={peer} error={:?}",
            error.to_string()
        );
        Failure::OutOfDescriptors
    }
}
