//! Lists from one process of a gateway to the next: those in force, and what waits at the door.
//!
//! The new process serves by them at once, and its first reading of the store is judged as the old one would
//! have judged it. So an upgrade is no way around what is held, and needs no store that answers.

use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime};

use super::intake::{FoundCopy, Intake, Intakes};
use super::{Publisher, Witness};
use crate::lists::{ListName, Lists, PoolName, ServiceName};
use crate::store::StoreName;
use crate::store::copy::{self, Copy, KeptLists, PeerPorts};
use crate::store::gate::guard::GateRecord;

/// The lists of a gateway, for its next process.
#[derive(Clone, Debug, Default)]
pub(crate) struct HandedLists {
    /// Those in force, as the text of a copy; `None` before there are any.
    pub(crate) copy: Option<Vec<u8>>,
    /// How often they were replaced.
    pub(crate) generation: u64,
    /// When they last changed.
    pub(crate) changed: Option<SystemTime>,
    /// How long ago the store was last read.
    pub(crate) age: Option<Duration>,
    /// Why it cannot be read at present.
    pub(crate) error: Option<String>,
    /// What has to be passed.
    pub(crate) gates: Vec<(ListName, GateRecord)>,
    /// Those in force of the other services, as the text of a copy.
    pub(crate) services_copy: Option<Vec<u8>>,
    /// What else is known of these.
    pub(crate) services: Vec<HandedService>,
    /// What is known of versions that were taken back.
    pub(crate) trips: Option<String>,
}

/// The lists of a service besides the default one.
#[derive(Clone, Debug, Default)]
pub(crate) struct HandedService {
    /// The service.
    pub(crate) service: ServiceName,
    /// How often they were replaced.
    pub(crate) generation: u64,
    /// When they last changed.
    pub(crate) changed: Option<SystemTime>,
    /// What has to be passed.
    pub(crate) gates: Vec<(ListName, GateRecord)>,
}

/// What of the lists that were handed over is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TakenLists {
    /// They are, since they are of the configured store.
    pub(crate) in_force: bool,
    /// How many servers of `prod` the old process has, whatever its store.
    pub(crate) servers: usize,
}

impl Publisher {
    /// What the next process is to go on with, of this `store`.
    pub(crate) fn hand_over(&self, store: &StoreName) -> HandedLists {
        let entrance = self.locked_entrance();
        let now = Instant::now();
        // Not those of another store, in whose place this one is to be read yet.
        let (default, others) = self.kept_lists(&entrance).split();
        let handed = |service: &ServiceName, intake: &Intake| HandedService {
            service: service.clone(),
            generation: self.lists_of(service).generation,
            changed: None,
            gates: intake.door.records(now).to_vec(),
        };
        let services = entrance.each();
        let mut services: Vec<_> = services.map(|(it, intake)| handed(it, intake)).collect();
        drop(entrance);
        let status = self.status();
        for it in &mut services {
            it.changed = status.of(&it.service).changed;
        }
        let is_default = |it: &HandedService| it.service.is_default();
        let own = services.iter().position(is_default);
        let own = own.map(|at| services.remove(at)).unwrap_or_default();
        let age = status.checked.map(|at| now.saturating_duration_since(at));
        let time = SystemTime::now() - age.unwrap_or_default();
        let names = self.lists.names().addresses();
        let text = |kept: KeptLists| copy::render(&kept, &names, store, time);
        HandedLists {
            copy: default.map(text),
            generation: own.generation,
            changed: own.changed,
            age,
            error: status.error,
            gates: own.gates,
            services_copy: others.map(text),
            services,
            trips: self.watch.as_ref().and_then(|it| it.hand_over()),
        }
    }

    /// Goes on with what another process has `handed` over, as far as it is of this `store`.
    pub(crate) fn with_handed(
        mut self,
        handed: &HandedLists,
        store: &StoreName,
    ) -> (Self, TakenLists) {
        let entrance = entrance_of(&mut self);
        let default = ServiceName::default();
        let generations = handed
            .services
            .iter()
            .map(|it| (&it.service, it.generation));
        for (service, generation) in generations.chain([(&default, handed.generation)]) {
            if let Some(intake) = entrance.get_mut(service) {
                intake.generation_before = generation;
            }
        }
        let terms = self.terms.load_full();
        let ports = terms
            .iter()
            .map(|(service, it)| (service.clone(), it.peer_port));
        let ports: PeerPorts = ports.collect();
        let texts = [&handed.copy, &handed.services_copy].into_iter().flatten();
        let mut all: Option<Copy> = None;
        for text in texts {
            match (copy::parse(text, &ports), &mut all) {
                (Ok(copy), None) => all = Some(copy),
                (Ok(copy), Some(all)) => all.services.extend(copy.services),
                (Err(error), _) => {
                    log::error!("lists-not-handed-over error={:?}", error.to_string());
                }
            }
        }
        let Some(copy) = all else {
            return (self, TakenLists::default());
        };
        let servers = copy.lists.len(ListName::Prod);
        let in_force = copy.other_store(store).is_none();
        if in_force {
            self.go_on_with(handed, copy);
        }
        (self, TakenLists { in_force, servers })
    }

    fn go_on_with(&mut self, handed: &HandedLists, copy: Copy) {
        let now = Instant::now();
        self.lists.names().remember(copy.names.iter().cloned());
        let own = HandedService {
            service: ServiceName::default(),
            generation: handed.generation,
            changed: handed.changed,
            gates: handed.gates.clone(),
        };
        let terms = self.terms.load_full();
        // These are newer than those that this process has found.
        let entrance = entrance_of(self);
        entrance.take_copy(Some(FoundCopy::of(copy)));
        let mut all: Vec<(ServiceName, Lists)> = Vec::new();
        let (mut held, mut lines) = (Vec::new(), Vec::new());
        for it in handed.services.iter().chain([&own]) {
            let port = terms.get(&it.service).map_or(80, |it| it.peer_port);
            let Some(intake) = entrance.get_mut(&it.service) else {
                continue;
            };
            let Some(lists) = intake.copy.take() else {
                continue;
            };
            let lists = Lists {
                generation: it.generation.max(1),
                ..lists
            };
            intake.door.go_on_with(&it.gates, &lists, port, now);
            held.push((it, intake.door.held()));
            let (generation, digest) = (lists.generation, lists.digest);
            let [gray, pre, prod] = ListName::ALL.map(|list| lists.len(list));
            let service = it.service.in_log();
            lines.push(format!(
                "{service}generation={generation} digest={digest} gray={gray} \
                 pre={pre} prod={prod}"
            ));
            all.push((it.service.clone(), lists));
        }
        entrance.each_mut(|_, intake| intake.copy = None);
        entrance.copy = None;
        let services: Vec<ServiceName> = all.iter().map(|(it, _)| it.clone()).collect();
        entrance.note_time(&services);
        let status = self.status.get_mut();
        let status = status.unwrap_or_else(PoisonError::into_inner);
        for (it, held) in held {
            let status = status.of_mut(&it.service);
            (status.held, status.changed) = (held, it.changed);
        }
        status.checked = handed.age.and_then(|it| now.checked_sub(it));
        let pools = all.iter().map(|(service, lists)| {
            let pools = PoolName::ALL.map(|it| Some(lists.pool(it)));
            (service, pools)
        });
        self.lists.names().prepare_all(pools);
        self.lists.store_all(all);
        for line in lines {
            log::info!("lists-handed-over {line}");
        }
    }

    /// True once this process has read the lists of every service: in a Redis Cluster, each server that has
    /// some is read by itself. What is not there, or refused, counts as read.
    pub(crate) fn was_read(&self) -> bool {
        self.locked_entrance().each().all(|(_, it)| it.was_read)
    }

    /// From now on, `witness` is told of every held change that somebody accepts, by its digest.
    pub(crate) fn tell_of_accepted(&self, witness: Option<Witness>) {
        let place = self.witness.lock();
        *place.unwrap_or_else(PoisonError::into_inner) = witness;
    }

    /// From now on this process writes the copy: the one before it has let go, or is about to.
    pub(crate) fn take_over_copy(&self) {
        if let Some(keeper) = self.keeper() {
            keeper.take_over();
        }
    }
}

fn entrance_of(publisher: &mut Publisher) -> &mut Intakes {
    let entrance = publisher.entrance.get_mut();
    entrance.unwrap_or_else(PoisonError::into_inner)
}
