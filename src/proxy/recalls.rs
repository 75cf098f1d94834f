//! Tunnels that are ended because the version that they lead to was taken back from their clients.
//!
//! A request is decided on once; a tunnel stays for hours. So a worker keeps the heads of those requests that
//! have become tunnels to a peer of `pre`, and decides on them again by the same rules when what decides has
//! changed: the lists and peers of the service, a trip, the settings, the end of an entry. What must be true:
//!
//! - A tunnel is ended if its client would be served by `prod` now, and its peer is not one of `prod`: who
//!   was removed from `gray`, is excluded, is above a lower share; everybody after a trip, or once `pre` is
//!   empty. After a promotion the peer is one of `prod`, and the tunnel is where its client belongs.
//! - The tunnels that testers have forced are not looked after, nor those of other pools: who becomes gray
//!   keeps the tunnel to `prod`, since nothing is wrong with that version, and an end costs the user
//!   something.
//! - What nobody can tell changes nothing: no lists, nobody in `prod` who could serve the client instead, a
//!   service that a reload has removed. Nor does the health of peers: a tunnel that stands needs none.
//!   Another `pre` without the tunnel's peer does not end it, either, while the client is gray.
//! - The moment of the end is drawn evenly within `tunnel_grace` from the change on, so that not all clients
//!   connect again at once. Who is gray again before that moment, with that peer in `pre`, keeps the tunnel.
//! - Without a change, nothing is done but a few comparisons at each tick of the clock, for each service that
//!   has such tunnels. With one, tunnels are looked at for [`SLICE`] in each tick, one after the other all
//!   around: neither is a worker held up, nor does anybody wait for ever if changes come all the time.
//!
//! How a tunnel ends is said in `body::tunnel`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use super::body::tunnel::Recall;
use crate::config::{Config, GraySettings};
use crate::http::h1::head::{Parsed, RequestHead, Scanner};
use crate::http::limits::{Limits, MAX_FIELDS};
use crate::http::subject::Subject;
use crate::http::visitor::{Visitor, VisitorId};
use crate::lists::{PoolName, Scratch};
use crate::route::{self, PoolStanding, Service};
use crate::upstream::serving::{ServiceInForce, ServiceRef, Serving};

/// For how long tunnels are looked at within one tick, which is much longer.
const SLICE: Duration = Duration::from_micros(500);

/// How many are looked at before the clock is.
const BETWEEN_LOOKS_AT_THE_CLOCK: usize = 16;

/// How many are ended in one tick.
const ENDS: usize = 256;

/// How long a tunnel has to end by itself once it was told to; then its sides are reset.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Whatever was a head once is one now.
const LIMITS: Limits = Limits {
    line: usize::MAX,
    head: usize::MAX,
    fields: MAX_FIELDS,
};

/// What a tunnel was asked for with.
pub(super) struct TunnelRequest {
    /// The head, as it was received.
    pub(super) head: Box<[u8]>,
    pub(super) client: IpAddr,
    /// It came from a trusted proxy.
    pub(super) by_proxy: bool,
    /// Who the client is since the answer.
    pub(super) visitor: Option<VisitorId>,
    pub(super) peer: SocketAddr,
    pub(super) service: ServiceRef,
}

/// A tunnel to `pre`.
struct HeldTunnel {
    number: u64,
    asked: TunnelRequest,
    recall: Rc<Recall>,
    /// When it is to end, or to be cut.
    ends: Cell<Option<Instant>>,
}

/// Those of one worker.
#[derive(Default)]
pub(super) struct Recalls {
    /// By the number of the service.
    services: RefCell<BTreeMap<u64, ServiceTunnels>>,
    /// Those that have to end, in the order in which they do.
    ending: RefCell<BTreeMap<(Instant, u64), Rc<HeldTunnel>>>,
    /// How many there have been.
    begun: Cell<u64>,
    /// Of which settings the tunnels were looked at: see [`Reader::seen`](crate::snapshot::Reader::seen).
    settings: Cell<u64>,
    /// The service that is looked at first in the next tick.
    turn: Cell<u64>,
    memory: RefCell<RecallMemory>,
}

/// The tunnels of one service.
struct ServiceTunnels {
    service: ServiceRef,
    /// What was in force when a change was last looked for. Weak: lists are not kept for it.
    seen: Weak<ServiceInForce>,
    was_tripped: bool,
    /// When the next entry of its list ends.
    next_end: Option<SystemTime>,
    /// When something has last changed.
    changed: Instant,
    tunnels: BTreeMap<u64, Rc<HeldTunnel>>,
    /// The number from which on tunnels are looked at next.
    from: u64,
    /// How many are to be looked at.
    left: usize,
}

/// What one decision needs, for all of them.
#[derive(Default)]
struct RecallMemory {
    head: RequestHead,
    scratch: Scratch,
}

/// Has the worker look after a tunnel for as long as this lives.
pub(super) struct Held<'a> {
    recalls: &'a Recalls,
    tunnel: Rc<HeldTunnel>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.recalls.forget(&self.tunnel);
    }
}

impl Recalls {
    /// Looks after a tunnel from now on. What has changed since its request was decided on counts, too.
    pub(super) fn hold(
        &self,
        asked: TunnelRequest,
        recall: Rc<Recall>,
        serving: &Serving,
        config: &Config,
    ) -> Held<'_> {
        let number = self.begun.get();
        self.begun.set(number + 1);
        let service = asked.service;
        let tunnel = Rc::new(HeldTunnel {
            number,
            asked,
            recall,
            ends: Cell::new(None),
        });
        let now = Instant::now();
        let mut services = self.services.borrow_mut();
        let of = services.entry(service.id()).or_insert_with(|| {
            let mut new = ServiceTunnels::new(service, now);
            new.note(serving, false, now);
            new
        });
        of.tunnels.insert(number, Rc::clone(&tunnel));
        if let Some(place) = serving.place_again(service) {
            self.look(&tunnel, &serving.services()[place], config, now, now);
        }
        Held {
            recalls: self,
            tunnel,
        }
    }

    fn forget(&self, tunnel: &Rc<HeldTunnel>) {
        let mut services = self.services.borrow_mut();
        let service = tunnel.asked.service.id();
        if let Some(of) = services.get_mut(&service) {
            of.tunnels.remove(&tunnel.number);
            if of.tunnels.is_empty() {
                services.remove(&service);
            }
        }
        self.set_end(tunnel, None);
    }

    /// True when there is nothing to look after.
    pub(super) fn is_idle(&self) -> bool {
        self.services.borrow().is_empty()
    }

    /// Runs at every tick of the worker's clock; the settings are those of that number.
    pub(super) fn tick(&self, serving: &Serving, config: &Config, settings: u64, now: Instant) {
        let is_reloaded = self.settings.replace(settings) != settings;
        let mut services = self.services.borrow_mut();
        let mut any = false;
        for of in services.values_mut() {
            of.note(serving, is_reloaded, now);
            any |= of.left > 0;
        }
        if any {
            self.look_at_some(&mut services, serving, config);
        }
        drop(services);
        self.end_some(now);
    }

    /// Looks at tunnels for a slice of time, first at those of the service whose turn it is.
    fn look_at_some(
        &self,
        services: &mut BTreeMap<u64, ServiceTunnels>,
        serving: &Serving,
        config: &Config,
    ) {
        let begun = Instant::now();
        let turn = self.turn.get();
        let mut count = 0;
        let mut look = |of: &mut ServiceTunnels| {
            let Some(place) = serving.place_again(of.service) else {
                of.left = 0;
                return true;
            };
            let service = &serving.services()[place];
            while let Some(tunnel) = of.next() {
                self.look(&tunnel, service, config, of.changed, begun);
                count += 1;
                if count % BETWEEN_LOOKS_AT_THE_CLOCK == 0 && begun.elapsed() > SLICE {
                    self.turn.set(of.service.id() + 1);
                    return false;
                }
            }
            true
        };
        let all = services.range_mut(turn..).all(|(_, of)| look(of));
        if all {
            let _ = services.range_mut(..turn).all(|(_, of)| look(of));
        }
    }

    /// Decides on a tunnel again, after a change at `changed`.
    fn look(
        &self,
        tunnel: &Rc<HeldTunnel>,
        service: &ServiceInForce,
        config: &Config,
        changed: Instant,
        now: Instant,
    ) {
        if tunnel.recall.is_over() {
            return;
        }
        let Some(grace) = config.gateway.tunnel_grace else {
            return self.set_end(tunnel, None);
        };
        let latest = changed + grace;
        let ends = tunnel.ends.get();
        let memory = &mut self.memory.borrow_mut();
        match tunnel.belongs(service, &config.gray, memory) {
            Some(Belongs::Here) => self.set_end(tunnel, None),
            // It was not taken back, as far as this tunnel is concerned; what was stays so.
            Some(Belongs::InPre) | None => {}
            // The grace has become shorter, maybe.
            Some(Belongs::InProd) if ends.is_some_and(|it| it <= latest) => {}
            Some(Belongs::InProd) => {
                let within = latest.saturating_duration_since(now);
                let end = now + within.mul_f64(fastrand::f64());
                self.set_end(tunnel, Some(end));
            }
        }
    }

    /// Ends those whose time has come, and cuts those that have not ended.
    fn end_some(&self, now: Instant) {
        for _ in 0..ENDS {
            let tunnel = match self.ending.borrow().first_key_value() {
                Some(((at, _), tunnel)) if *at <= now => Rc::clone(tunnel),
                _ => return,
            };
            match tunnel.recall.is_over() {
                false => {
                    tunnel.recall.end();
                    self.set_end(&tunnel, Some(now + LAST_WORDS));
                }
                true => {
                    tunnel.recall.cut();
                    self.set_end(&tunnel, None);
                }
            }
        }
    }

    /// From now on, the tunnel ends, or is cut, at this time; or not.
    fn set_end(&self, tunnel: &Rc<HeldTunnel>, end: Option<Instant>) {
        let before = tunnel.ends.replace(end);
        if before == end {
            return;
        }
        let mut ending = self.ending.borrow_mut();
        if let Some(before) = before {
            ending.remove(&(before, tunnel.number));
        }
        if let Some(end) = end {
            ending.insert((end, tunnel.number), Rc::clone(tunnel));
        }
    }
}

impl ServiceTunnels {
    /// Of a service of which there is none yet, as it was at `now`.
    fn new(service: ServiceRef, now: Instant) -> Self {
        Self {
            service,
            seen: Weak::new(),
            was_tripped: false,
            next_end: None,
            changed: now,
            tunnels: BTreeMap::new(),
            from: 0,
            left: 0,
        }
    }

    /// Has all tunnels looked at if what decides on them has changed.
    fn note(&mut self, serving: &Serving, is_reloaded: bool, now: Instant) {
        let Some(place) = serving.place_again(self.service) else {
            return;
        };
        let service = &serving.services()[place];
        let is_new = !std::ptr::eq(self.seen.as_ptr(), Arc::as_ptr(service));
        let is_tripped = service.is_tripped();
        let has_ended = self.next_end.is_some_and(|it| it <= SystemTime::now());
        if is_new || is_reloaded || has_ended || is_tripped != self.was_tripped {
            self.seen = Arc::downgrade(service);
            self.was_tripped = is_tripped;
            self.next_end = service.lists().gray.next_end(SystemTime::now());
            self.changed = now;
            self.left = self.tunnels.len();
        }
    }

    /// The next one that is to be looked at.
    fn next(&mut self) -> Option<Rc<HeldTunnel>> {
        self.left = self.left.checked_sub(1)?;
        let mut behind = self.tunnels.range(self.from..);
        let next = behind.next().or_else(|| self.tunnels.first_key_value());
        // Some have ended meanwhile, maybe all.
        let (number, tunnel) = next?;
        self.from = number + 1;
        Some(Rc::clone(tunnel))
    }
}

/// Where a tunnel should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belongs {
    /// At the peer where it is.
    Here,
    /// At another peer of `pre`.
    InPre,
    /// At a peer of `prod`.
    InProd,
}

impl HeldTunnel {
    /// Where the tunnel would be if it were asked for now; `None` if nobody can tell.
    fn belongs(
        &self,
        service: &ServiceInForce,
        gray: &GraySettings,
        memory: &mut RecallMemory,
    ) -> Option<Belongs> {
        let pool = self.decide(service, gray, memory)?;
        Some(match pool {
            _ if service.pools()[pool].place_of(self.asked.peer).is_some() => Belongs::Here,
            PoolName::Pre => Belongs::InPre,
            PoolName::Prod => Belongs::InProd,
        })
    }

    /// Which pool would serve the client now; `None` if none could, or nobody can tell.
    fn decide(
        &self,
        service: &ServiceInForce,
        gray: &GraySettings,
        memory: &mut RecallMemory,
    ) -> Option<PoolName> {
        let (lists, pools) = (service.lists(), service.pools());
        let standing = |pool: PoolName| match pools[pool].peers().is_empty() {
            true => PoolStanding::Empty,
            false => PoolStanding::Usable,
        };
        let rules = Service {
            lists,
            pre: standing(PoolName::Pre),
            prod: standing(PoolName::Prod),
            fallback: pools.rules().fallback,
            tripped: pools.is_tripped(lists),
        };
        let RecallMemory { head, scratch } = memory;
        let has_wishes = gray.has_force() || gray.follow_mark;
        // Otherwise nobody looks at it.
        let bytes = match has_wishes || lists.gray.selection().is_some() {
            true => &*self.asked.head,
            false => &[],
        };
        if !bytes.is_empty() {
            let parsed = head.parse(bytes, &mut Scanner::default(), &LIMITS);
            if parsed != Ok(Parsed::Complete) {
                return None;
            }
        }
        let subject = Subject::new(self.asked.client, head, bytes);
        if has_wishes
            && let Some(wanted) = route::wish(&subject, gray, self.asked.by_proxy).decision
        {
            return route::grant(wanted, &rules).ok().map(|it| it.pool);
        }
        let cookie = gray.visitor_cookie.as_bytes();
        let known = || VisitorId::of_cookies(cookie, subject.cookies());
        // Who has no id is in no share by it, rather than in another one at each look.
        let visitor = match bytes.is_empty() {
            true => None,
            false => self.asked.visitor.or_else(known),
        };
        let now = lists.gray.expires().then(SystemTime::now);
        let decided = match visitor {
            Some(id) => {
                let next_id = || id;
                let visitor = Visitor::new(cookie, &next_id);
                route::decide(&subject.with_visitor(&visitor), &rules, now, scratch)
            }
            None => route::decide(&subject, &rules, now, scratch),
        };
        decided.ok().map(|it| it.pool)
    }
}

#[cfg(test)]
mod tests;
