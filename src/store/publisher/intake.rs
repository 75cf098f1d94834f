//! Where lists come in: for each service its door, and what was said of it.
//!
//! A service may have the gray list of another one, its *owner*: whatever is in force there is in force here
//! as well, from the same moment on. Only the owner's gate holds it, and only there anything is said of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use crate::config::ServiceSettings;
use crate::lists::{Lists, ServiceName, SharedLists};
use crate::store::copy::Copy;
use crate::store::findings::Reported;
use crate::store::gate::door::Door;
use crate::store::gate::guard::GuardRules;
use crate::store::status::ReportedFaults;

/// What the settings say of the lists of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListTerms {
    /// The port of peers that are listed without one.
    pub(super) peer_port: u16,
    /// The salt of its shares where the store has none.
    pub(super) salt: Arc<[u8]>,
    /// The service whose gray list it has.
    pub(super) gray_of: Option<ServiceName>,
    /// Somebody may be served by it.
    pub(super) is_used: bool,
}

impl ListTerms {
    /// Those of a service without a salt.
    pub(super) fn of_port(peer_port: u16) -> Self {
        Self {
            peer_port,
            salt: Arc::default(),
            gray_of: None,
            is_used: true,
        }
    }

    pub(super) fn of(settings: &ServiceSettings) -> Self {
        Self {
            peer_port: settings.upstream.peer_port,
            salt: settings.salt.as_bytes().into(),
            gray_of: settings.gray_of.clone(),
            is_used: settings.takes_rest || !settings.name.is_default(),
        }
    }
}

/// Those of all services.
pub(super) type TermsByService = BTreeMap<ServiceName, ListTerms>;

/// The last-good copy that was found at the start. Whatever its age, the first reading is compared
/// with it: a restart is no way around what is held.
pub(super) struct FoundCopy {
    pub(super) copy: Copy,
    /// Nothing is to be served by it while the store is away.
    pub(super) is_too_old: bool,
}

impl FoundCopy {
    /// One that may be used.
    pub(super) fn of(copy: Copy) -> Self {
        Self {
            copy,
            is_too_old: false,
        }
    }
}

/// Where lists come in.
pub(super) struct Intakes {
    services: BTreeMap<ServiceName, Intake>,
    /// Those for which time may decide something.
    waiting: BTreeSet<ServiceName>,
    rules: GuardRules,
    /// The last-good copy, until all services of it were read.
    pub(super) copy: Option<FoundCopy>,
}

/// Where those of one service come in.
pub(super) struct Intake {
    pub(super) door: Door,
    pub(super) terms: ListTerms,
    /// This process has read them, whatever of them was there and allowed to be.
    pub(super) was_read: bool,
    /// What the last-good copy has, until the store was read.
    pub(super) copy: Option<Lists>,
    /// That of the process that this one succeeds: counting goes on from here.
    pub(super) generation_before: u64,
    /// What is in force is another store's, so no copy is kept of it.
    pub(super) awaits_store: bool,
    /// The same entries may mean other servers.
    pub(super) are_anew: bool,
    pub(super) reported: Reported,
    pub(super) reported_faults: ReportedFaults,
}

impl Intake {
    fn new(service: &ServiceName, terms: ListTerms, rules: GuardRules) -> Self {
        let mut reported = Reported::of(service.clone());
        reported.shares_gray = terms.gray_of.is_some();
        reported.is_unused = !terms.is_used;
        Self {
            door: Door::new(service.clone(), rules),
            terms,
            was_read: false,
            copy: None,
            generation_before: 0,
            awaits_store: false,
            are_anew: false,
            reported,
            reported_faults: ReportedFaults::default(),
        }
    }

    fn set_terms(&mut self, terms: ListTerms) {
        self.are_anew |= terms.peer_port != self.terms.peer_port;
        self.reported.shares_gray = terms.gray_of.is_some();
        self.reported.is_unused = !terms.is_used;
        self.terms = terms;
    }

    /// From now on it has the gray list of this service, or its own.
    pub(super) fn set_owner(&mut self, owner: Option<ServiceName>) {
        self.reported.shares_gray = owner.is_some();
        self.terms.gray_of = owner;
    }

    /// When it is to be looked at, if nothing happens until then.
    fn look_at(&self) -> Option<Instant> {
        let times = [self.door.ripe_at(), self.reported.unpublished_at()];
        times.into_iter().flatten().min()
    }
}

impl Intakes {
    /// With these services.
    pub(super) fn new(terms: &TermsByService, rules: GuardRules) -> Self {
        let mut entrance = Self {
            services: BTreeMap::new(),
            waiting: BTreeSet::new(),
            rules,
            copy: None,
        };
        entrance.set_services(terms);
        entrance
    }

    /// From now on there are these services. What waits of one that stays keeps waiting.
    pub(super) fn set_services(&mut self, terms: &TermsByService) {
        let is_left = |service: &ServiceName| terms.contains_key(service);
        self.services.retain(|service, _| is_left(service));
        self.waiting.retain(is_left);
        for (service, terms) in terms {
            match self.services.get_mut(service) {
                Some(intake) => intake.set_terms(terms.clone()),
                None => {
                    let intake = Intake::new(service, terms.clone(), self.rules);
                    self.services.insert(service.clone(), intake);
                }
            }
        }
    }

    pub(super) fn set_rules(&mut self, rules: GuardRules) {
        self.rules = rules;
        self.each_mut(|_, intake| intake.door.set_rules(rules));
    }

    /// The service's; `None` when there is no such service any more.
    pub(super) fn get(&self, service: &ServiceName) -> Option<&Intake> {
        self.services.get(service)
    }

    pub(super) fn get_mut(&mut self, service: &ServiceName) -> Option<&mut Intake> {
        self.services.get_mut(service)
    }

    pub(super) fn each(&self) -> impl Iterator<Item = (&ServiceName, &Intake)> {
        self.services.iter()
    }

    pub(super) fn each_mut(&mut self, mut act: impl FnMut(&ServiceName, &mut Intake)) {
        for (service, intake) in &mut self.services {
            act(service, intake);
        }
    }

    /// The names of all services, the default one's among them.
    pub(super) fn names(&self) -> Vec<ServiceName> {
        self.services.keys().cloned().collect()
    }

    /// The service whose gray list this one has, if it is another one.
    pub(super) fn owner_of(&self, service: &ServiceName) -> Option<&ServiceName> {
        self.services.get(service)?.terms.gray_of.as_ref()
    }

    /// Those services among `new` that have gray lists of their own are followed by all that share them.
    pub(super) fn followers<'a>(
        &'a self,
        new: &'a [(ServiceName, SharedLists)],
    ) -> impl Iterator<Item = (&'a ServiceName, &'a SharedLists)> {
        let is_there = |service: &ServiceName| new.iter().any(|(it, _)| it == service);
        let shared = self.services.iter().filter_map(move |(service, intake)| {
            let owner = intake.terms.gray_of.as_ref()?;
            let (_, lists) = new.iter().find(|(it, _)| it == owner)?;
            Some((service, lists))
        });
        shared.filter(move |(service, _)| !is_there(service))
    }

    /// Notes whether time has something to decide in these services.
    pub(super) fn note_time<'a>(&mut self, services: impl IntoIterator<Item = &'a ServiceName>) {
        for service in services {
            let waits = self.services.get(service).and_then(Intake::look_at);
            match waits {
                Some(_) => self.waiting.insert(service.clone()),
                None => self.waiting.remove(service),
            };
        }
    }

    /// Those in which it has.
    pub(super) fn waiting(&self) -> Vec<ServiceName> {
        self.waiting.iter().cloned().collect()
    }

    /// When time has something to decide, if nothing happens until then.
    pub(super) fn look_at(&self) -> Option<Instant> {
        let waiting = self.waiting.iter();
        let times = waiting.filter_map(|it| self.services.get(it)?.look_at());
        times.min()
    }

    /// The copy is not needed any more once all services of it were read.
    pub(super) fn forget_used_copy(&mut self) {
        if self.services.values().all(|it| it.copy.is_none()) {
            self.copy = None;
        }
    }
}
