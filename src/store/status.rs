//! What is known of the store: kept for the admin listener, and logged when it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use super::flaps::{Flaps, Success};
use super::{Cause, Fault, Mode};
use crate::error::StoreFindingKind;
use crate::lists::{ListName, ServiceName};
use crate::logs::throttle::Throttle;
use crate::store::gate::guard;

/// What an operator wants to know of the store.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    /// Which store: `redis 127.0.0.1:6379/0`, or `file PATH`.
    pub source: String,
    /// The server from which the lists come at present.
    pub server: Option<SocketAddr>,
    /// How changes are noticed.
    pub mode: Mode,
    /// Why the store cannot be read at present.
    pub error: Option<String>,
    /// When the store was last read in full.
    pub checked: Option<Instant>,
    /// How often the store was read, or other lists came into force, by [`Cause`].
    pub refreshes: [u64; Cause::ALL.len()],
    /// Why that was done last.
    pub refreshed_by: Option<Cause>,
    /// How often a check has found what the store had not told of, although it should.
    pub missed_events: u64,
    /// How often it could not be read.
    pub failures: u64,
    /// What is known of each service.
    services: BTreeMap<ServiceName, ServiceStatus>,
    /// What is out of the ordinary with the store; one of a kind.
    pub findings: Vec<StoreFinding>,
    /// The failure that was last told, while it stands.
    told: Option<String>,
    flaps: Flaps,
    /// Why shares of the store cannot be read, by their numbers.
    failing: BTreeMap<usize, String>,
}

/// What one reader reads of a store: all of it, or the services that one server of a cluster has.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoreShare {
    pub(super) number: usize,
    /// All of them, if it is not said which.
    pub(super) services: Option<Vec<ServiceName>>,
}

impl StoreShare {
    /// Whether a service is in it.
    pub(super) fn has(&self, service: &ServiceName) -> bool {
        let services = self.services.as_ref();
        services.is_none_or(|it| it.contains(service))
    }
}

/// What an operator wants to know of the lists of a service.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceStatus {
    /// When they last changed.
    pub changed: Option<SystemTime>,
    /// Lists that keep their last good value, since what the store has cannot be used.
    pub faults: Vec<(ListName, Fault)>,
    /// Changes that wait to be accepted; their lists keep their last good value, too.
    pub held: Vec<guard::HeldChange>,
}

/// Something out of the ordinary with the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreFinding {
    /// Of which kind.
    pub finding: StoreFindingKind,
    /// The server that it is about.
    pub server: String,
    /// Since when it is so.
    pub since: Instant,
    /// What it is, in words.
    pub text: String,
}

impl StoreFinding {
    /// In words, with the time.
    pub(crate) fn in_words(&self) -> String {
        format!("{}, for {} s", self.text, self.since.elapsed().as_secs())
    }
}

impl Status {
    /// Of a store that was not read yet.
    pub(super) fn new(source: String) -> Self {
        Self {
            source,
            server: None,
            mode: Mode::Starting,
            error: None,
            checked: None,
            refreshes: [0; Cause::ALL.len()],
            refreshed_by: None,
            missed_events: 0,
            failures: 0,
            services: BTreeMap::new(),
            findings: Vec::new(),
            told: None,
            flaps: Flaps::default(),
            failing: BTreeMap::new(),
        }
    }

    /// What is known of a service.
    pub(crate) fn of(&self, service: &ServiceName) -> ServiceStatus {
        self.services.get(service).cloned().unwrap_or_default()
    }

    /// The same, to be changed.
    pub(super) fn of_mut(&mut self, service: &ServiceName) -> &mut ServiceStatus {
        self.services.entry(service.clone()).or_default()
    }

    /// Only these services are left.
    pub(super) fn retain(&mut self, is_left: impl Fn(&ServiceName) -> bool) {
        self.services.retain(|service, _| is_left(service));
    }

    /// All changes that wait to be accepted.
    pub(crate) fn held(&self) -> impl Iterator<Item = (&ServiceName, &guard::HeldChange)> {
        let services = self.services.iter();
        services.flat_map(|(service, it)| it.held.iter().map(move |held| (service, held)))
    }

    /// All lists that keep their last good value.
    pub(crate) fn faults(&self) -> impl Iterator<Item = (&ServiceName, ListName, Fault)> {
        let services = self.services.iter();
        services.flat_map(|(service, it)| {
            let faults = it.faults.iter();
            faults.map(move |(list, fault)| (service, *list, *fault))
        })
    }

    /// Notes what was found of a kind, or that nothing was; logs it when that is new.
    pub(super) fn find(&mut self, finding: StoreFindingKind, found: Option<StoreFinding>) {
        let name = finding.name();
        let at = self.findings.iter().position(|it| it.finding == finding);
        let before = at.map(|at| self.findings.remove(at));
        let told = |it: &StoreFinding| (it.server.clone(), it.text.clone());
        match &found {
            Some(new) if before.as_ref().map(told) != Some(told(new)) => {
                let (server, text) = (&new.server, &new.text);
                let seconds = new.since.elapsed().as_secs();
                let level = match finding {
                    // Clients are served by other servers than those in the lists as they were written.
                    StoreFindingKind::KeysEvicted => log::Level::Error,
                    _ => log::Level::Warn,
                };
                log::log!(
                    level,
                    "{name} server={server} seconds={seconds} text={text:?}"
                );
            }
            None if before.is_some() => log::info!("{name}-over"),
            _ => {}
        }
        self.findings.extend(found);
    }

    /// The store could not be read. Logged once for as long as the reason is the same; and, unless
    /// `at_once`, not every time if it comes and goes.
    pub(super) fn failed(&mut self, error: String, generation: u64, at_once: bool) {
        self.failures += 1;
        // A file is not tried again until somebody writes it.
        let at_once = at_once || self.mode == Mode::File;
        let is_told = self.flaps.failed(at_once, Instant::now());
        if is_told && self.told.as_ref() != Some(&error) {
            log::error!(
                "lists-unreadable source={:?} error={error:?} generation_kept={generation}",
                self.source
            );
            self.told = Some(error.clone());
        }
        self.error = Some(error);
    }

    /// A share cannot be read: returns what is to be said of all those that cannot.
    pub(super) fn fails(&mut self, share: &StoreShare, error: String) -> String {
        self.failing.insert(share.number, error);
        self.failures_in_words()
    }

    fn failures_in_words(&self) -> String {
        let words: BTreeSet<&str> = self.failing.values().map(|it| &**it).collect();
        let words: Vec<&str> = words.into_iter().collect();
        words.join("; ")
    }

    /// A share can be read.
    pub(super) fn recovers(&mut self, share: &StoreShare) {
        self.failing.remove(&share.number);
    }

    /// Nothing is known of any share.
    pub(super) fn forget_shares(&mut self) {
        self.failing.clear();
    }

    /// The store was read.
    pub(super) fn succeeded(&mut self, cause: Cause) {
        self.refreshed(cause);
        self.checked = Some(Instant::now());
        // Another server of a cluster is away.
        if !self.failing.is_empty() {
            self.error = Some(self.failures_in_words());
            return;
        }
        let (error, source) = (self.error.take().unwrap_or_default(), &self.source);
        self.told = None;
        match self.flaps.succeeded(Instant::now()) {
            Success::Nothing => {}
            Success::Again => log::info!("lists-readable source={source:?}"),
            Success::Unsteady => log::warn!(
                "lists-unsteady source={source:?} error={error:?} reason=\"it comes and goes; \
                 told again when it lasts, or is over\""
            ),
            Success::Steady(untold) => log::info!("lists-steady source={source:?} untold={untold}"),
        }
    }

    /// The store was read, or other lists have come into force without that.
    pub(super) fn refreshed(&mut self, cause: Cause) {
        self.refreshes[cause as usize] += 1;
        self.refreshed_by = Some(cause);
    }

    /// A check has found what was not announced; lists of this generation are in force now.
    pub(super) fn missed_event(&mut self, generation: u64) {
        self.missed_events += 1;
        let mode = self.mode.name();
        log::warn!("lists-event-missed generation={generation} mode={mode}");
    }
}

/// What was logged about the lists that keep their values. What was left out, because a key flips a
/// thousand times a second, is logged after a later reading, if it still holds.
#[derive(Default)]
pub(super) struct ReportedFaults {
    told: Vec<(ListName, Fault)>,
    /// For each fault.
    throttles: [Throttle; Fault::ALL.len()],
}

impl ReportedFaults {
    /// Logs what is new of a service, given the current `faults`.
    pub(super) fn tell(
        &mut self,
        service: &ServiceName,
        faults: &[(ListName, Fault)],
        now: Instant,
    ) {
        let service = service.in_log();
        for new in faults {
            let (list, fault) = (new.0.name(), new.1.name());
            if self.told.contains(new) {
                continue;
            }
            if let Some(untold) = self.throttles[new.1 as usize].turn(now) {
                let level = new.1.level();
                log::log!(
                    level,
                    "list-kept {service}list={list} fault={fault} untold={untold}"
                );
                self.told.push(*new);
            }
        }
        self.told.retain(|old| {
            if faults.contains(old) {
                return true;
            }
            let (list, fault) = (old.0.name(), old.1.name());
            let untold = self.throttles[old.1 as usize].turn(now);
            if let Some(untold) = untold {
                let level = old.1.level().max(log::Level::Info);
                log::log!(
                    level,
                    "list-recovered {service}list={list} fault={fault} untold={untold}"
                );
            }
            untold.is_none()
        });
    }

    /// True when this one has been logged, and its end has not.
    #[cfg(test)]
    pub(super) fn knows(&self, fault: (ListName, Fault)) -> bool {
        self.told.contains(&fault)
    }
}
