//! One downstream connection: request after request, until one of them ends it.
//!
//! Between two requests a session is nothing but its socket: no buffer, no workspace. So after a moment
//! of silence it is parked, without a coroutine, and a new one resumes it when bytes arrive.

mod dormant;
mod leave;
mod sessions;
mod waiting;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Instant;

use ipnet::IpNet;

pub(super) use dormant::Arrival;
use dormant::{Dormant, Parked};
pub(super) use sessions::Sessions;

use super::body::unwanted::Unread;
use super::exchange::{Exchange, Outcome};
use super::plan::Plan;
use super::tally::Tally;
use super::worker::Worker;
use super::workspace::Workspace;
use crate::config::Config;
use crate::error::{Close, Failure, Refusal};
use crate::http::client;
use crate::http::h1::encode::{self, Answer, Connection, RequestToPeer};
use crate::http::h1::framing::Framing;
use crate::http::h1::head::{Parsed, Scanner};
use crate::http::version::Version;
use crate::memory::buffer::Buffer;
use crate::net::{self, Accepted, Detached, Patience, Stream, Turns};
use crate::route::{self, Reason};
use crate::snapshot::Snapshot;

/// A body up to this size, in bytes, that has come in whole with its head goes to the peer with its
/// head: in one write, and again if need be.
const SMALL_BODY: usize = 8 * 1024;

/// After so many answers of the gateway's own, to a client that sends on and on, the worker's other
/// connections get their turn.
const FAIR_ANSWERS: usize = 16;

/// Serves a connection until it ends or is parked; gives it back when the worker has no descriptor for it.
pub(super) fn serve(
    sessions: &Rc<Sessions>,
    connection: Accepted,
    arrival: Arrival,
) -> Result<(), Accepted> {
    let connection = connection.settle().map_err(|(connection, _)| connection)?;
    let number = sessions.next_number();
    let dormant = Dormant::new(&sessions.worker.counters, number, &arrival);
    go_on(sessions, connection, dormant, arrival.proxy);
    Ok(())
}

/// Begins to watch for what parked connections have to say.
pub(super) fn watch_parked(sessions: &Rc<Sessions>) {
    sessions.watch(resume);
}

/// Ends parked connections whose time is over; all of them when the gateway is to end.
pub(super) fn look_through_parked(sessions: &Rc<Sessions>, now: Instant) {
    let draining = sessions.worker.gateway().is_draining();
    sessions.sift(now, draining, |connection, parked| {
        leave(sessions, connection, parked, draining);
    });
}

/// Goes on with a connection that has something to say, on the calling worker.
fn resume(sessions: &Rc<Sessions>, connection: Detached, parked: Parked) {
    let metrics = sessions.worker.metrics();
    metrics.parked.decrement();
    let here = Rc::clone(sessions);
    let spawned = net::spawn_beside(move || go_on(&here, connection, parked.dormant, false));
    if spawned.is_err() {
        metrics.closes[Close::OverCapacity.index()].increment();
    }
}

/// Ends a connection whose time is over, unless it has something to say at the last moment: then it
/// goes on. When the gateway is to end, so does one that has had no request yet.
fn leave(sessions: &Rc<Sessions>, connection: Detached, parked: Parked, draining: bool) {
    let first = draining && parked.dormant.served == 0;
    if first || connection.is_readable_now() {
        return resume(sessions, connection, parked);
    }
    let close = match draining {
        true => Close::Draining,
        false => parked.close,
    };
    let metrics = sessions.worker.metrics();
    metrics.parked.decrement();
    metrics.closes[close.index()].increment();
}

fn go_on(sessions: &Rc<Sessions>, connection: Detached, dormant: Dormant, proxy: bool) {
    let worker = &sessions.worker;
    let close = match connection.attach() {
        Ok(stream) => {
            let mut session = Session {
                sessions,
                worker,
                stream,
                dormant,
                begun: Instant::now(),
                buffer: Buffer::new(),
                unpaused: 0,
                request_complete: false,
                unread: None,
            };
            let served = catch_unwind(AssertUnwindSafe(|| session.run(proxy)));
            match served {
                Ok(Pause::End(close)) => close,
                Ok(Pause::Silence) => match session.park() {
                    Ok(()) => return,
                    Err(close) => close,
                },
                Err(_) => {
                    worker.metrics().panics.increment();
                    Close::Panic
                }
            }
        }
        Err(error) => {
            worker.reports.attach_failed(dormant.socket, &error);
            Close::OverCapacity
        }
    };
    worker.metrics().closes[close.index()].increment();
}

struct Session<'a> {
    sessions: &'a Sessions,
    worker: &'a Rc<Worker>,
    stream: Stream,
    dormant: Dormant,
    /// Since when there is a coroutine for it.
    begun: Instant,
    /// Bytes received and not yet used.
    buffer: Buffer,
    /// Requests in a row for which nobody had to be waited for.
    unpaused: usize,
    /// The last request has been taken to its end.
    request_complete: bool,
    /// What is still to come of its body, where that can be told.
    unread: Option<Unread>,
}

/// What follows a request.
enum Next {
    /// The next one.
    Request,
    /// The end, with what was sent arriving in full.
    Close(Close),
    /// The end, and the client must see that something is missing.
    Abort(Close),
}

/// Why a session does not go on, for now or for ever.
enum Pause {
    End(Close),
    /// The client has been silent for a moment.
    Silence,
}

impl From<Close> for Pause {
    fn from(close: Close) -> Self {
        Self::End(close)
    }
}

/// How reading a head ended without one.
enum NoHead {
    Refused(Refusal),
    /// Nothing can be answered.
    Closed(Close),
}

/// What becomes of an exchange when the gateway's time is over: that is why it has ended, whatever
/// its waits made of it.
fn cut(outcome: Outcome, tally: &mut Tally) -> Outcome {
    let outcome = match outcome {
        Outcome::Refused(_) | Outcome::Failed(_) => Outcome::Failed(Failure::Draining),
        // That was its answer, and it was not cut short.
        Outcome::Abort(Close::TunnelEnded) => return Outcome::Abort(Close::Draining),
        Outcome::Abort(_) => Outcome::Abort(Close::Draining),
        Outcome::Close(
            Close::ResponseCut | Close::ClientGone | Close::BodyCut | Close::Refused,
        ) => Outcome::Close(Close::Draining),
        outcome => return outcome,
    };
    tally.refusal = None;
    tally.error = Some(Failure::Draining.name());
    outcome
}

impl Session<'_> {
    fn run(&mut self, proxy: bool) -> Pause {
        if proxy && let Err(pause) = self.read_proxy_header() {
            if let Pause::End(close) = pause {
                self.worker.reports.turned_away(self.dormant.socket, close);
            }
            return pause;
        }
        loop {
            if let Err(pause) = self.wait_for_request() {
                return pause;
            }
            match self.serve_request() {
                Next::Request => self.dormant.served += 1,
                Next::Close(close) => {
                    self.linger(close);
                    return Pause::End(close);
                }
                Next::Abort(close) => {
                    self.stream.abort();
                    return Pause::End(close);
                }
            }
        }
    }

    /// Serves one request, and accounts for it.
    fn serve_request(&mut self) -> Next {
        let config = self.worker.config.snapshot();
        let mut workspace = self.worker.lend_workspace();
        let mut tally = Tally::new(Instant::now(), self.dormant.socket, self.dormant.listener);
        workspace.logged.clear();
        let served = catch_unwind(AssertUnwindSafe(|| {
            self.request(&config, &mut workspace, &mut tally)
        }));
        let next = served.unwrap_or_else(|panic| {
            tally.close(self.worker, &workspace.logged, Some(Close::Panic));
            resume_unwind(panic)
        });
        let close = match next {
            Next::Request => None,
            Next::Close(close) | Next::Abort(close) => Some(close),
        };
        self.dormant.since = tally.close(self.worker, &workspace.logged, close);
        self.worker.take_back(workspace);
        next
    }

    /// The way of a request, in wire order.
    fn request(
        &mut self,
        config: &Snapshot<Config>,
        workspace: &mut Workspace,
        tally: &mut Tally,
    ) -> Next {
        self.request_complete = false;
        self.unread = None;
        if let Err(no_head) = self.read_head(config, workspace, tally) {
            return self.without_head(no_head, config, workspace, tally);
        }
        net::note_arrival();
        let lists = self.worker.lists.snapshot();
        tally.generation = lists.generation;
        let plan = match self.plan(config, workspace, tally) {
            Ok(plan) => plan,
            Err(refusal) => {
                self.find_body(config, workspace);
                let to_head = workspace.logged.method() == b"HEAD";
                return self.refuse(config, tally, refusal, to_head);
            }
        };
        self.request_complete = plan.complete;
        if !plan.complete {
            self.unread = Some(Unread::of(plan.framing, config));
        }
        if plan.last_hop {
            let refusal = Refusal::MaxForwards;
            tally.refuse(refusal);
            let (status, name) = (refusal.status(), refusal.name());
            return self.answer(config, tally, &plan, plan.complete, status, name);
        }
        let decision = match route::decide(tally.client, &lists, config.upstream.fallback) {
            Ok(decision) => decision,
            Err(refusal) => {
                tally.refuse(refusal);
                let (status, name) = (refusal.status(), refusal.name());
                return self.answer(config, tally, &plan, plan.complete, status, name);
            }
        };
        // Whatever comes now may last, and the gray list must not last with it.
        let pools = self.worker.pools(&lists);
        drop(lists);
        tally.pool = Some(decision.pool);
        tally.reason = Some(decision.reason);
        if decision.reason == Reason::PreEmpty {
            self.worker.metrics().fallbacks_empty.increment();
        }
        let mut exchange = Exchange::new(
            self.worker,
            config,
            &pools,
            &plan,
            &self.stream,
            &mut self.buffer,
            self.dormant.number,
            &mut self.dormant.pinned,
            workspace,
            tally,
        );
        let outcome = exchange.run(decision.pool);
        let complete = exchange.request_is_complete();
        self.request_complete = complete;
        if !complete {
            let (reader, patience, dropped) = exchange.rest_of_body();
            self.unread = Some(Unread {
                reader,
                patience,
                dropped,
            });
        }
        let outcome = match net::are_waits_cut() {
            true => cut(outcome, tally),
            false => outcome,
        };
        match outcome {
            Outcome::KeepAlive => Next::Request,
            Outcome::Close(close) => Next::Close(close),
            Outcome::Abort(close) => Next::Abort(close),
            Outcome::Refused(refusal) => {
                // Else its end is not known, or its time is over.
                if refusal != Refusal::BodyTooLarge {
                    self.unread = None;
                }
                self.refuse(config, tally, refusal, plan.is_head)
            }
            Outcome::Failed(failure) => {
                tally.error = Some(failure.name());
                let (status, name) = (failure.status(), failure.name());
                self.answer(config, tally, &plan, complete, status, name)
            }
        }
    }

    /// What follows when there is no head to serve.
    fn without_head(
        &mut self,
        no_head: NoHead,
        config: &Config,
        workspace: &mut Workspace,
        tally: &mut Tally,
    ) -> Next {
        let bytes = self.buffer.filled();
        tally.received = bytes.len() as u64;
        match no_head {
            NoHead::Refused(refusal) => {
                workspace.logged.note_line(bytes);
                let line = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
                let to_head = line.starts_with(b"HEAD ");
                self.find_body(config, workspace);
                self.refuse(config, tally, refusal, to_head)
            }
            NoHead::Closed(close) => {
                // Nothing was answered that would have to arrive.
                self.request_complete = true;
                Next::Close(close)
            }
        }
    }

    /// Reads and parses the head, of which something is there, under its deadline.
    fn read_head(
        &mut self,
        config: &Config,
        workspace: &mut Workspace,
        tally: &mut Tally,
    ) -> Result<(), NoHead> {
        let deadline = tally.begun + config.gateway.head_timeout;
        let limits = &config.gateway.limits;
        let mut scanner = Scanner::default();
        let mut turns = Turns::new();
        loop {
            let bytes = self.buffer.filled();
            match workspace.request.parse(bytes, &mut scanner, limits) {
                Ok(Parsed::Complete) => return Ok(()),
                Ok(Parsed::Incomplete) => {}
                Err(refusal) => return Err(NoHead::Refused(refusal)),
            }
            let room = self.buffer.room();
            match self.stream.read_in_turn(room, deadline, &mut turns) {
                Ok(0) => return Err(NoHead::Closed(Close::ClientGone)),
                Ok(count) => {
                    self.buffer.added(count);
                    turns.moved(count);
                }
                Err(_) if net::are_waits_cut() => return Err(NoHead::Closed(Close::Draining)),
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                    return Err(NoHead::Refused(Refusal::HeadTimeout));
                }
                Err(_) => return Err(NoHead::Closed(Close::ClientGone)),
            }
        }
    }

    /// Judges the head, writes the peer's head from it, and lets its bytes go.
    fn plan(
        &mut self,
        config: &Config,
        workspace: &mut Workspace,
        tally: &mut Tally,
    ) -> Result<Plan, Refusal> {
        let Workspace {
            request: head,
            request_options: options,
            to_peer,
            asked,
            logged,
            ..
        } = workspace;
        let (bytes, gateway) = (self.buffer.filled(), &config.gateway);
        let trusted_proxies: &[IpNet] = match self.dormant.vouched {
            true => &gateway.trusted_proxies,
            false => &[],
        };
        tally.received = head.len as u64;
        logged.note(head, bytes);
        let client = client::identify(self.dormant.socket, trusted_proxies, &head.fields, bytes);
        tally.client = client.address;
        let doubt = match self.dormant.vouched {
            true => client.doubt,
            false => client::unnamed(&head.fields),
        };
        if let Some((doubt, said)) = doubt {
            let worker = self.worker;
            worker
                .reports
                .doubted(self.dormant.socket, doubt, said.of(bytes));
        }
        let mut plan = Plan::of(head, bytes, options, gateway)?;
        let default_host = match head.authority() {
            Some(_) => None,
            None => self.stream.local_addr().map(|it| it.to_string()),
        };
        let request = RequestToPeer {
            head,
            bytes,
            options,
            framing: plan.framing,
            expects_continue: plan.expects_continue && !plan.complete,
            upgrade: plan.upgrade,
            socket: self.dormant.socket,
            client: tally.client,
            default_host: default_host.as_deref().unwrap_or_default().as_bytes(),
            trusted: client::is_trusted(self.dormant.socket, trusted_proxies),
        };
        plan.by_proxy = request.trusted;
        to_peer.clear();
        encode::request(to_peer, &request);
        asked.clear();
        if plan.upgrade {
            encode::protocols_asked(asked, &head.fields, bytes);
        }
        self.buffer.consume(head.len);
        self.take_small_body(&mut plan, to_peer, tally);
        Ok(plan)
    }

    /// Puts a small body that has come in whole behind the head for the peer.
    fn take_small_body(&mut self, plan: &mut Plan, to_peer: &mut Vec<u8>, tally: &mut Tally) {
        let Framing::Length(length) = plan.framing else {
            return;
        };
        let small = usize::try_from(length).ok().filter(|it| *it <= SMALL_BODY);
        if let Some(length) = small
            && let Some(body) = self.buffer.filled().get(..length)
        {
            to_peer.extend_from_slice(body);
            self.buffer.consume(length);
            tally.received += length as u64;
            plan.complete = true;
        }
    }

    /// Answers a request that is not served because of what it is; the connection ends.
    fn refuse(
        &mut self,
        config: &Config,
        tally: &mut Tally,
        refusal: Refusal,
        to_head: bool,
    ) -> Next {
        tally.refuse(refusal);
        let answer = Answer {
            status: refusal.status(),
            name: refusal.name(),
            connection: Connection::Close,
            to_head,
            version: Version::Http11,
        };
        match self.send_answer(config, tally, &answer) {
            Ok(()) => Next::Close(Close::Refused),
            Err(next) => next,
        }
    }

    /// Answers a request that nobody could serve. The connection stays if the whole request,
    /// with its body, has been taken.
    fn answer(
        &mut self,
        config: &Config,
        tally: &mut Tally,
        plan: &Plan,
        complete: bool,
        status: u16,
        name: &'static str,
    ) -> Next {
        let close = plan.close_reason(complete, self.worker.gateway().is_draining());
        let connection = match close {
            None => Connection::KeepAlive,
            Some(_) => Connection::Close,
        };
        let answer = Answer {
            status,
            name,
            connection,
            to_head: plan.is_head,
            version: plan.version,
        };
        match (self.send_answer(config, tally, &answer), close) {
            (Err(next), _) => next,
            (Ok(()), Some(close)) => Next::Close(close),
            (Ok(()), None) => {
                self.unpaused += 1;
                if self.unpaused >= FAIR_ANSWERS {
                    self.unpaused = 0;
                    net::yield_turn();
                }
                Next::Request
            }
        }
    }

    fn send_answer(
        &mut self,
        config: &Config,
        tally: &mut Tally,
        answer: &Answer<'_>,
    ) -> Result<(), Next> {
        let mut bytes = Vec::new();
        encode::answer(&mut bytes, answer);
        tally.status = answer.status;
        let patience = Patience::new(config.gateway.send_timeout);
        let sent = self.stream.write_all(&bytes, &patience);
        match sent {
            Ok(()) => tally.sent += bytes.len() as u64,
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                return Err(Next::Abort(Close::SendTimeout));
            }
            Err(_) => return Err(Next::Close(Close::ClientGone)),
        }
        Ok(())
    }
}
