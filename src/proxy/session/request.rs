//! One request, from its head to what happens after it.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use ipnet::IpNet;

use super::{Next, Session};
use crate::config::{Config, UnitKey};
use crate::error::{Close, Failure, Refusal};
use crate::http::client;
use crate::http::h1::encode::{self, Amendment, RequestToPeer};
use crate::http::h1::framing::Framing;
use crate::http::h1::head::{Parsed, Scanner};
use crate::http::request_id;
use crate::http::subject::Subject;
use crate::http::visitor::Visitor;
use crate::lists::{self, PoolName};
use crate::net::{self, Turns};
use crate::proxy::body::request_body::{RequestBody, SMALL_BODY};
use crate::proxy::chooser::Candidates;
use crate::proxy::disclosure;
use crate::proxy::exchange::{Exchange, Outcome, Requester};
use crate::proxy::http1::Http1;
use crate::proxy::plan::Plan;
use crate::proxy::tally::Tally;
use crate::proxy::units;
use crate::proxy::workspace::{Mark, Workspace};
use crate::route::{self, DecidingEntry, Decision, Reason, Service, UnknownService};
use crate::snapshot::Snapshot;
use crate::upstream::serving::{Pools, Serving};
use crate::upstream::units::{Unit, Units};

/// Why there is no head.
enum NoHead {
    Refused(Refusal),
    /// The connection ends without an answer.
    Closed(Close),
}

/// The outcome of an exchange that was cut because `drain_timeout` is over: that is its reason, whatever
/// its waits have reported.
fn cut(outcome: Outcome, tally: &mut Tally) -> Outcome {
    let outcome = match outcome {
        Outcome::Refused(_) | Outcome::Failed(_) => Outcome::Failed(Failure::Draining),
        // A tunnel was its answer, and that was not cut short.
        Outcome::Abort(Close::TunnelEnded) => return Outcome::Abort(Close::Draining),
        Outcome::Abort(Close::TakenBack) => return outcome,
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
    /// Serves one request, counts and logs it.
    pub(super) fn serve_request(&mut self) -> Next {
        let config = self.worker.config.snapshot();
        let mut workspace = self.worker.lend_workspace();
        let mut tally = Tally::new(Instant::now(), self.dormant.socket);
        workspace.logged.clear();
        let served = catch_unwind(AssertUnwindSafe(|| {
            self.request(&config, &mut workspace, &mut tally)
        }));
        let next = served.unwrap_or_else(|panic| {
            tally.close(
                self.worker,
                &self.dormant.listening,
                &config.log,
                &workspace.logged,
                Some(Close::Panic),
            );
            resume_unwind(panic)
        });
        let close = match next {
            Next::Request => None,
            Next::Close(close) | Next::Abort(close) => Some(close),
        };
        let listening = &self.dormant.listening;
        let (settings, head) = (&config.log, &workspace.logged);
        self.dormant.since = tally.close(self.worker, listening, settings, head, close);
        self.worker.take_back(workspace);
        next
    }

    /// How a request flows: its head is read, judged, decided on and written for the peer, and then the
    /// exchange goes on.
    fn request(
        &mut self,
        config: &Snapshot<Config>,
        workspace: &mut Workspace,
        tally: &mut Tally,
    ) -> Next {
        self.body.mark_unknown();
        if let Err(no_head) = self.read_head(config, workspace, tally) {
            return self.without_head(no_head, config, workspace, tally);
        }
        net::note_arrival();
        let serving = self.worker.serving.snapshot();
        tally.has_services = serving.has_several();
        tally.generation = serving.default_service().lists().generation;
        let plan = match self.judge(config, workspace, tally) {
            Ok(plan) => plan,
            Err(refusal) => {
                self.find_body(config, workspace);
                let to_head = workspace.logged.method() == b"HEAD";
                return self.refuse(config, tally, refusal, to_head);
            }
        };
        self.body = RequestBody::new(plan.framing, config);
        let decision = self.decide(&plan, &serving, config, workspace, tally);
        if let Ok((decision, candidates)) = &decision
            && let Some(units) = candidates.pools().units()
        {
            let subject = Subject::new(tally.client, &workspace.request, self.buffer.filled());
            tally.unit = self.unit(decision, candidates.pools(), units, &subject, tally.begun);
        }
        workspace.to_peer.clear();
        workspace.asked.clear();
        workspace.mark = None;
        if let Ok((decision, _)) = &decision {
            self.encode(&plan, config, workspace, tally.client, decision.pool);
        }
        if plan.upgrade
            && let Ok((decision, _)) = &decision
            && decision.pool == PoolName::Pre
        {
            workspace.asking.clear();
            let head = &self.buffer.filled()[..workspace.request.len];
            workspace.asking.extend_from_slice(head);
        }
        self.buffer.consume(workspace.request.len);
        self.take_small_body(plan.framing, &mut workspace.to_peer, tally);
        let (decision, candidates) = match decision {
            Ok(decided) => decided,
            Err(refusal) => {
                tally.refuse(refusal);
                let (status, name) = (refusal.status(), refusal.name());
                return self.answer(config, tally, &plan, status, name);
            }
        };
        // What follows may take long, and must not keep the gray list alive for as long.
        drop(serving);
        tally.pool = Some(decision.pool);
        tally.reason = Some(decision.reason);
        // Its own, since the candidates may be others while the request is under way.
        let pools = Rc::clone(candidates.pools());
        let counters = self.worker.counters_of(&pools);
        counters.decisions[decision.pool as usize][decision.reason.index()].increment();
        match decision.reason {
            Reason::PreEmpty => counters.fallbacks_empty.increment(),
            Reason::PreOut => counters.fallbacks_out.increment(),
            _ => {}
        }
        // Lent, since the exchange has the rest of the workspace.
        let mut to_client = std::mem::take(&mut workspace.to_client);
        let client = Requester {
            downstream: &mut Http1::new(&self.stream, plan.version, &mut to_client),
            transport: &self.stream,
            buffer: &mut self.buffer,
            body: &mut self.body,
            connection: self.dormant.number,
            listening: &self.dormant.listening,
            pinned: &mut self.dormant.pinned,
        };
        let (worker, pool) = (self.worker, decision.pool);
        let asking = (pools.rules(), candidates);
        let mut exchange = Exchange::new(worker, config, asking, &plan, client, workspace, tally);
        let outcome = exchange.run(pool);
        workspace.to_client = to_client;
        self.body.let_go();
        let outcome = match net::are_waits_cut() {
            true => cut(outcome, tally),
            false => outcome,
        };
        self.follow(outcome, config, &plan, tally)
    }

    /// What follows an exchange.
    fn follow(
        &mut self,
        outcome: Outcome,
        config: &Config,
        plan: &Plan,
        tally: &mut Tally,
    ) -> Next {
        match outcome {
            Outcome::KeepAlive => Next::Request,
            Outcome::Close(close) => Next::Close(close),
            Outcome::Abort(close) => Next::Abort(close),
            Outcome::Refused(refusal) => {
                // Otherwise its end is unknown, or its time is over.
                if refusal != Refusal::BodyTooLarge {
                    self.body.mark_unknown();
                }
                self.refuse(config, tally, refusal, plan.is_head)
            }
            Outcome::Failed(failure) => {
                tally.error = Some(failure.name());
                let (status, name) = (failure.status(), failure.name());
                self.answer(config, tally, plan, status, name)
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
                if config.gateway.request_id {
                    let id = self.worker.request_ids.next();
                    workspace.logged.note_id(&id);
                }
                let line = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
                let to_head = line.starts_with(b"HEAD ");
                self.find_body(config, workspace);
                self.refuse(config, tally, refusal, to_head)
            }
            NoHead::Closed(close) => {
                // There is no answer that would have to arrive.
                self.body.mark_with_head();
                Next::Close(close)
            }
        }
    }

    /// Reads and parses the head, whose first bytes are there, under its deadline.
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

    /// Judges the head: who is asking, and for what.
    fn judge(
        &mut self,
        config: &Config,
        workspace: &mut Workspace,
        tally: &mut Tally,
    ) -> Result<Plan, Refusal> {
        let Workspace {
            request: head,
            request_options: options,
            logged,
            ..
        } = workspace;
        let (bytes, gateway) = (self.buffer.filled(), &config.gateway);
        let trusted_proxies: &[IpNet] = match self.dormant.vouched {
            true => &gateway.trusted_proxies,
            false => &[],
        };
        tally.received = head.len as u64;
        logged.note(head, bytes, &config.log.format);
        let client = client::identify(self.dormant.socket, trusted_proxies, &head.fields, bytes);
        tally.client = client.address;
        let doubt = match self.dormant.vouched {
            true => client.doubt,
            false => client::unnamed(&head.fields),
        };
        if let Some((doubt, said)) = doubt {
            let reports = &self.worker.reports;
            reports.doubted(self.dormant.socket, doubt, said.of(bytes));
        }
        let by_proxy = client::is_trusted(self.dormant.socket, trusted_proxies);
        if gateway.request_id {
            let named = by_proxy.then(|| request_id::received(&head.fields, bytes));
            match named.flatten() {
                Some(id) => logged.note_id(id.of(bytes)),
                None => logged.note_id(&self.worker.request_ids.next()),
            }
        }
        Plan::of(head, bytes, options, gateway, by_proxy)
    }

    /// Decides who is to serve the request: of which service, and which pool. Notes who the client is
    /// from now on.
    fn decide(
        &self,
        plan: &Plan,
        serving: &Serving,
        config: &Config,
        workspace: &mut Workspace,
        tally: &mut Tally,
    ) -> Result<(Decision, Rc<Candidates>), Refusal> {
        let Workspace {
            request: head,
            scratch,
            logged,
            ..
        } = workspace;
        let (bytes, gray) = (self.buffer.filled(), &config.gray);
        let subject = Subject::new(tally.client, head, bytes);
        let place = serving.find(&subject).map_err(UnknownService::refusal)?;
        let candidates = self.worker.chooser.candidates(serving, place, tally.begun);
        let (lists, pools) = (serving.services()[place].lists(), candidates.pools());
        tally.generation = lists.generation;
        tally.service = Some(Rc::clone(pools));
        if plan.last_hop {
            return Err(Refusal::MaxForwards);
        }
        let standing = |pool| candidates.standing(pool, plan.is_safe, tally.begun);
        let service = Service {
            lists,
            pre: standing(PoolName::Pre),
            prod: standing(PoolName::Prod),
            fallback: pools.rules().fallback,
            tripped: pools.is_tripped(lists),
        };
        if (gray.has_force() || gray.follow_mark)
            && let Some(wanted) = self.wish(&subject, plan, config, tally)
        {
            return Ok((route::grant(wanted, &service)?, candidates));
        }
        let next_id = || self.worker.visitor_ids.next();
        let visitor = Visitor::new(gray.visitor_cookie.as_bytes(), &next_id);
        let subject = subject.with_visitor(&visitor);
        let entries = &lists.gray;
        let now = entries.expires().then(SystemTime::now);
        let decision = route::decide(&subject, &service, now, scratch);
        if let Some(id) = visitor.to_be_told() {
            tally.visitor = Some(id);
            tally.by_https = plan.by_proxy && disclosure::is_by_https(&head.fields, bytes);
        }
        let decision = decision?;
        if let Some(DecidingEntry::Rule(entry)) = decision.entry {
            logged.note_entry(&entries.rules()[entry.place as usize], entry.bucket);
        }
        Ok((decision, candidates))
    }

    /// What the verdict on a release counts the request as, which has come at `at`: only where the client is
    /// served by the pool that is its own.
    // Out of line: where there is no release, nothing of it is in the way.
    #[inline(never)]
    fn unit(
        &self,
        decision: &Decision,
        pools: &Pools,
        units: &Units,
        subject: &Subject<'_>,
        at: Instant,
    ) -> Option<Unit> {
        match decision.reason {
            Reason::Listed | Reason::Unlisted | Reason::Excluded | Reason::Marked => {}
            _ => return None,
        }
        let named = match &pools.settings().verdict.client {
            UnitKey::Address => None,
            UnitKey::Cookie(name) => subject.cookie(name.as_bytes()),
            UnitKey::Header(name) => subject.header(name),
        };
        let named = named.filter(|it| !it.is_empty());
        let (table, service) = (&self.worker.units, pools.service_id());
        // Most requests are not the first: they go without the hash that all gateways have of a client.
        if !table.is_first(units::place_key(named, subject.client), service, at) {
            return None;
        }
        let unit = |key: &[u8]| units.unit(key, decision.pool);
        match named {
            Some(name) => unit(name),
            None => lists::of_address(subject.client, unit),
        }
    }

    /// What a tester or a trusted proxy says of who is to serve the request.
    #[cold]
    fn wish(
        &self,
        subject: &Subject<'_>,
        plan: &Plan,
        config: &Config,
        tally: &mut Tally,
    ) -> Option<Decision> {
        let wish = route::wish(subject, &config.gray, plan.by_proxy);
        if let Some(wrong) = wish.refused {
            self.worker.reports.force_refused(subject.client, wrong);
        }
        let wanted = wish.decision?;
        tally.forced = wanted.reason == Reason::Forced;
        Some(wanted)
    }

    /// Writes the head for the peer, which is to be of this `pool`.
    fn encode(
        &self,
        plan: &Plan,
        config: &Config,
        workspace: &mut Workspace,
        client: IpAddr,
        pool: PoolName,
    ) {
        let gray = &config.gray;
        if !gray.withheld.is_empty() {
            workspace.request_options.withhold(&gray.withheld);
        }
        let Workspace {
            request: head,
            request_options: options,
            to_peer,
            mark,
            asked,
            logged,
            ..
        } = workspace;
        let bytes = self.buffer.filled();
        let default_host = match head.authority() {
            Some(_) => None,
            None => self.stream.local_addr().map(|it| it.to_string()),
        };
        let request = RequestToPeer {
            head,
            bytes,
            options,
            framing: plan.framing,
            expects_continue: plan.expects_continue && !self.body.is_complete(),
            upgrade: plan.upgrade,
            socket: self.dormant.socket,
            client,
            default_host: default_host.as_deref().unwrap_or_default().as_bytes(),
            request_id: logged.request_id().unwrap_or_default(),
            trusted: plan.by_proxy,
            amended: (gray.mark || gray.force_cookie.is_some()).then(|| Amendment {
                without_cookie: gray.force_cookie.as_deref().unwrap_or_default().as_bytes(),
                mark: gray.mark.then(|| (&*gray.mark_header, pool.name())),
            }),
        };
        let at = encode::request(to_peer, &request);
        *mark = at.map(|at| Mark { at, pool });
        if plan.upgrade {
            encode::protocols_asked(asked, &head.fields, bytes);
        }
    }

    /// Puts a small body that has come in whole behind the head for the peer: both go in one write.
    fn take_small_body(&mut self, framing: Framing, to_peer: &mut Vec<u8>, tally: &mut Tally) {
        let Framing::Length(length) = framing else {
            return;
        };
        let small = usize::try_from(length).ok().filter(|it| *it <= SMALL_BODY);
        if let Some(length) = small
            && let Some(body) = self.buffer.filled().get(..length)
        {
            to_peer.extend_from_slice(body);
            self.buffer.consume(length);
            tally.received += length as u64;
            self.body.mark_with_head();
        }
    }
}
