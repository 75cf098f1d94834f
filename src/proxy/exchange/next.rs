//! Whom a request goes to next: a peer of its pool, another one after a failure, `prod` for `pre`, or nobody.

use std::time::{Duration, Instant};

use super::{ClientSide, Exchange, SHORTAGE};
use crate::error::{Failure, Retry};
use crate::http::h1::framing::Framing;
use crate::lists::PoolName;
use crate::net::{self, Watch};
use crate::proxy::body::request_body::SMALL_BODY;
use crate::proxy::chooser::Chosen;
use crate::proxy::downstream::{Downstream, Transport};
use crate::route::Reason;
use crate::upstream::choose;

/// So long, and so often, a request that can be sent but once waits where no peer has ever answered.
const DOUBT_TIME: Duration = Duration::from_millis(25);
const DOUBTS: u32 = 4;

impl<D: Downstream> Exchange<'_, D> {
    /// The peer of `pool` to ask next, after so many were tried there; `None` when the request is not to be
    /// tried there (again).
    pub(super) fn next_peer(&mut self, pool: PoolName, tries: usize) -> Option<Chosen> {
        let worker = self.worker;
        if tries >= self.rules.tries {
            return None;
        }
        let mut now = self.tally.begun;
        if !self.workspace.tried.is_empty() {
            now = Instant::now();
            // A peer that is in no list any more gets no new request.
            self.candidates = worker.renewed(&self.candidates, now);
        }
        if tries == 0 {
            self.candidates.note_request(pool, worker.index());
            return self.choose(pool, now);
        }
        let chosen = self.choose(pool, now)?;
        // What was under way at a peer when it went out goes to a sound one, however much that is: it
        // comes but once.
        let moves = self.last_is_bad && !self.is_bad(&chosen);
        if !moves && !self.candidates.may_retry(pool) {
            chosen.is_given_up();
            let counters = worker.counters_of(self.candidates.pools());
            counters.retries_denied[pool as usize].increment();
            self.tally.retry_denied = true;
            return None;
        }
        Some(chosen)
    }

    /// Chooses a peer of `pool`. What can be sent but once waits a moment where nobody knows of any peer
    /// whether it answers, [so often](DOUBTS) at most: others have been sent there to find out.
    fn choose(&mut self, pool: PoolName, now: Instant) -> Option<Chosen> {
        match self.choose_now(pool, now) {
            Some(chosen) if !chosen.is_doubtful => Some(chosen),
            Some(doubtful) => self.wait_for_others(pool, doubtful),
            None if self.candidates.awaits_first_check(pool) => {
                let now = self.wait_for_check(pool)?;
                let chosen = self.choose_now(pool, now)?;
                self.wait_for_others(pool, chosen)
            }
            None => None,
        }
    }

    #[inline]
    fn choose_now(&self, pool: PoolName, now: Instant) -> Option<Chosen> {
        let worker = self.worker;
        let request = choose::Request {
            tried: &self.workspace.tried,
            // Should the peer never answer, only what asks for no change is sent to another one.
            may_be_risked: self.will_repeat(self.plan.is_safe),
            client: self.tally.client,
            worker: worker.index(),
        };
        worker.chooser.choose(&self.candidates, pool, &request, now)
    }

    /// Waits until others know whether a peer answers, where it is in doubt.
    #[cold]
    #[inline(never)]
    fn wait_for_others(&mut self, pool: PoolName, mut chosen: Chosen) -> Option<Chosen> {
        for _ in 0..DOUBTS {
            let Some(client) = self.transport.socket().filter(|_| chosen.is_doubtful) else {
                break;
            };
            chosen.is_given_up();
            client.pause(Instant::now() + DOUBT_TIME, Watch::Nothing);
            let now = Instant::now();
            self.candidates = self.worker.renewed(&self.candidates, now);
            chosen = self.choose_now(pool, now)?;
        }
        Some(chosen)
    }

    /// Waits for the end of a first check, where all of `pool` is new, as long as connecting may take;
    /// returns when that was.
    #[cold]
    #[inline(never)]
    fn wait_for_check(&mut self, pool: PoolName) -> Option<Instant> {
        let client = self.transport.socket()?;
        let mut now = Instant::now();
        let until = self.until(now + self.rules.connect_timeout);
        while self.candidates.awaits_first_check(pool) {
            if now >= until || net::are_waits_cut() || self.transport.is_gone() {
                return None;
            }
            client.pause(until.min(now + SHORTAGE), Watch::Nothing);
            now = Instant::now();
            self.candidates = self.worker.renewed(&self.candidates, now);
        }
        Some(now)
    }

    /// Nobody of `pre` is left to be asked: goes on with `prod` if that is allowed and possible.
    pub(super) fn falls_back(&mut self) -> bool {
        if !self.candidates.pools().fall_back(PoolName::Pre) {
            return false;
        }
        let counters = self.worker.counters_of(self.candidates.pools());
        let reason = match self.workspace.tried.is_empty() {
            true => {
                counters.fallbacks_out.increment();
                Reason::PreOut
            }
            false => {
                counters.fallbacks_exhausted.increment();
                Reason::PreExhausted
            }
        };
        self.tally.pool = Some(PoolName::Prod);
        self.tally.reason = Some(reason);
        true
    }

    /// Whether another attempt may follow. Always after a connection that could not be made. Once bytes
    /// of the request were sent, only if sending them twice has the same effect as once (RFC 9110
    /// section 9.2.2), they are still here, and so, as far as one can tell, is the client.
    pub(super) fn may_retry(&self, failure: Failure) -> bool {
        match failure.retry() {
            Retry::Always => true,
            Retry::IfSafe => self.may_repeat(self.plan.is_safe),
            Retry::IfIdempotent => self.may_repeat(self.plan.is_idempotent),
            // While the body waits for the peer's consent (RFC 9110 section 10.1.1), the peer does not
            // have the request. Other requests may have been acted on as soon as their head was sent.
            Retry::UnlessAwaited => {
                let waits = self.plan.expects_continue && !self.body.is_complete();
                let waits = waits && self.body.is_untouched();
                self.may_repeat(self.plan.is_idempotent || waits)
            }
            Retry::Never => false,
        }
    }

    fn may_repeat(&self, is_harmless: bool) -> bool {
        is_harmless && self.body.is_repeatable() && self.client_side != ClientSide::GaveUp
    }

    /// As [`Self::may_repeat`], also once the body has been sent.
    pub(super) fn will_repeat(&self, is_harmless: bool) -> bool {
        let is_kept = || match self.plan.framing {
            Framing::Length(length) => length <= SMALL_BODY as u64,
            _ => false,
        };
        self.may_repeat(is_harmless) && (self.body.is_complete() || is_kept())
    }
}
