//! The services in force: what the control plane publishes and workers read.
//!
//! Lists and peers are replaced together, by one pointer swap for all services that have changed. Peers
//! change without their lists, too, when a name means other addresses: then the lists stay, with their
//! generation. Only what has changed is made anew: the lists of one service are no work for the peers of
//! another one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Instant;

use crossbeam_channel::Sender;

use super::changes::Changes;
use super::health::HealthRecord;
use super::names::Names;
use super::roster::Registry;
use super::serving::{Accounts, CountedRequests, Pools, ServiceInForce, Serving, Table};
use crate::config::ServiceSettings;
use crate::lists::{Lists, PoolName, ServiceName};
use crate::snapshot::{Published, Reader};

/// The services in force.
pub struct InForce {
    published: Published<Serving>,
    names: Names,
    registry: Registry,
    /// Rung whenever the peers are others.
    bell: OnceLock<Sender<()>>,
    /// Held while the value is replaced.
    replacing: Mutex<Replacing>,
}

/// What only who replaces the value needs.
#[derive(Debug, Default)]
struct Replacing {
    /// All lists that somebody may still have.
    lists: Vec<Weak<Lists>>,
    /// How many services there were so far.
    services: u64,
    /// How many values.
    values: u64,
    /// What was counted of services that are gone, while somebody may still count.
    gone: Vec<Arc<Accounts>>,
    /// What was counted of those before them.
    counted: CountedRequests,
}

impl Replacing {
    fn keep(&mut self, lists: Lists) -> Arc<Lists> {
        let lists = Arc::new(lists);
        self.lists.push(Arc::downgrade(&lists));
        lists
    }

    /// Nobody counts any more where nobody else has the accounts.
    fn close_accounts(&mut self) {
        let counted = &mut self.counted;
        self.gone.retain(|accounts| {
            let is_open = Arc::strong_count(accounts) > 1;
            if !is_open {
                counted.add(accounts);
            }
            is_open
        });
    }

    fn number(&mut self) -> u64 {
        self.values += 1;
        self.values
    }
}

impl InForce {
    /// There is only the default service, with the settings of an empty file, and nothing has been read yet;
    /// so many workers will serve.
    pub fn new(workers: usize) -> Self {
        let (names, registry) = (Names::default(), Registry::new(workers));
        let mut replacing = Replacing::default();
        let settings = Arc::new(ServiceSettings::default());
        let service = unread(&mut replacing, &registry, &settings);
        let table = Arc::new(Table::of(&[settings]));
        let serving = Serving::new(vec![service], table, replacing.number());
        Self {
            published: Published::new(serving),
            names,
            registry,
            bell: OnceLock::new(),
            replacing: Mutex::new(replacing),
        }
    }

    /// See [`Published::tell`].
    pub(crate) fn tell(&self, tell: fn()) {
        self.published.tell(tell);
    }

    /// What is now in force. For the control plane.
    pub(crate) fn serving(&self) -> Arc<Serving> {
        self.published.load()
    }

    /// The lists of the default service that are now in force. For the control plane.
    pub(crate) fn load(&self) -> Arc<Lists> {
        Arc::clone(self.published.load().default_service().lists())
    }

    /// The lists of a service that are now in force, if there is one of that name. For the control plane.
    pub(crate) fn load_of(&self, service: &ServiceName) -> Option<Arc<Lists>> {
        let serving = self.published.load();
        serving.of(service).map(|it| Arc::clone(it.lists()))
    }

    /// The peers of the default service that are now in force.
    #[cfg(test)]
    pub(crate) fn pools(&self) -> Arc<Pools> {
        Arc::clone(self.published.load().default_service().pools())
    }

    /// The names of the lists.
    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// How every peer does, for another process of this gateway. A peer of several services is judged by the
    /// settings of the first.
    pub(crate) fn record_health(&self, now: Instant) -> BTreeMap<SocketAddr, HealthRecord> {
        let mut records = BTreeMap::new();
        for service in self.serving().services() {
            let pools = service.pools();
            for peer in PoolName::ALL.into_iter().flat_map(|it| pools[it].peers()) {
                let record = || peer.health.record(now, pools.rules());
                records.entry(peer.address).or_insert_with(record);
            }
        }
        records
    }

    /// Begins with what another process of this gateway knew of peers. Nothing of it counts any more for
    /// peers that come later, once `records` is empty.
    pub(crate) fn go_on_with(&self, records: BTreeMap<SocketAddr, HealthRecord>) {
        self.registry.go_on_with(records.into_iter().collect());
    }

    /// How often the health of a peer has changed.
    pub(crate) fn changes(&self) -> &Changes {
        self.registry.changes()
    }

    /// From now on `bell` is rung whenever the peers may be others.
    pub(super) fn ring(&self, bell: Sender<()>) {
        // One who listens is enough.
        let _ = self.bell.set(bell);
    }

    /// From now on these are the services, the first of them the default one. Those that were there keep
    /// their lists, and what is known and counted of them; the others have no lists until these are stored.
    pub fn set_services(&self, services: &[Arc<ServiceSettings>]) {
        self.set_services_with(services, Vec::new());
    }

    /// As [`Self::set_services`], and from the same moment on some of them have these lists: of a new one, no
    /// request finds it without any.
    pub(crate) fn set_services_with(
        &self,
        services: &[Arc<ServiceSettings>],
        lists: Vec<(ServiceName, Lists)>,
    ) {
        let mut replacing = self.replacing();
        let before = self.published.load();
        let service = |settings: &Arc<ServiceSettings>| match before.of(&settings.name) {
            Some(known) if *known.pools().settings() == *settings => Arc::clone(known),
            Some(known) => {
                let pools = Arc::new(known.pools().with(settings));
                Arc::new(ServiceInForce::new(Arc::clone(known.lists()), pools))
            }
            None => unread(&mut replacing, &self.registry, settings),
        };
        let all: Vec<_> = services.iter().map(service).collect();
        let table = Arc::new(Table::of(services));
        for gone in before.services().iter().filter(|it| !table.has(it.name())) {
            self.names.forget(gone.name());
            let accounts = Arc::clone(gone.pools().accounts());
            replacing.gone.push(accounts);
        }
        drop(before);
        let with_settings = Serving::new(all, Arc::clone(&table), replacing.number());
        let services = self.with_lists(&mut replacing, &with_settings, lists);
        drop(with_settings);
        self.publish(&mut replacing, services, table);
    }

    /// Replaces the lists of the default service, and its peers by theirs.
    pub fn store(&self, lists: Lists) {
        self.store_all(vec![(ServiceName::default(), lists)]);
    }

    /// Replaces the lists of these services, all at once, and their peers by theirs; the others stay, and
    /// what is of no service in force is of no use.
    pub(crate) fn store_all(&self, lists: Vec<(ServiceName, Lists)>) {
        let mut replacing = self.replacing();
        let before = self.published.load();
        let services = self.with_lists(&mut replacing, &before, lists);
        let table = Arc::clone(before.table());
        drop(before);
        self.publish(&mut replacing, services, table);
    }

    /// The services of `before`, some of which have these lists, and their peers.
    fn with_lists(
        &self,
        replacing: &mut Replacing,
        before: &Serving,
        lists: Vec<(ServiceName, Lists)>,
    ) -> Vec<Arc<ServiceInForce>> {
        let mut changed = Vec::with_capacity(lists.len());
        for (name, lists) in lists {
            // A reload may have taken it away meanwhile.
            let Some(place) = before.place_of(&name) else {
                continue;
            };
            self.names.use_for(&name, &lists);
            changed.push((place, replacing.keep(lists)));
        }
        self.with_peers_of(before, &changed)
    }

    /// The same lists, with the peers that their names mean by now.
    pub(crate) fn find_peers(&self) {
        let mut replacing = self.replacing();
        let before = self.published.load();
        let lists = before.services().iter().map(|it| it.lists());
        let has_names = |it: &Lists| it.pre.names().chain(it.prod.names()).next().is_some();
        let named = lists.enumerate().filter(|(_, it)| has_names(it));
        let named: Vec<_> = named.map(|(place, it)| (place, Arc::clone(it))).collect();
        let services = self.with_peers_of(&before, &named);
        let table = Arc::clone(before.table());
        drop((before, named));
        self.publish(&mut replacing, services, table);
    }

    /// The services of `before`, of which those at these places have these lists, with the peers that they
    /// mean now.
    fn with_peers_of(
        &self,
        before: &Serving,
        changed: &[(usize, Arc<Lists>)],
    ) -> Vec<Arc<ServiceInForce>> {
        let now = Instant::now();
        let mut services = before.services().to_vec();
        let roster = |old: &Pools, lists: &Lists, pool: PoolName, check_first: bool| {
            let found = self.names.found(lists.pool(pool));
            let budget = old.accounts().budget(pool);
            self.registry.roster(found, budget, check_first, now)
        };
        // A new peer of several pools is checked first if one of them says so: whoever is the first to have
        // it has the say.
        let mut checked_first = Vec::new();
        for (place, lists) in changed {
            let old = services[*place].pools();
            let health = &old.settings().health;
            let pools = PoolName::ALL.into_iter();
            let pools = pools.filter(|it| health.is_before_use(*it));
            checked_first.extend(pools.map(|it| roster(old, lists, it, true)));
        }
        for (place, lists) in changed {
            let old = services[*place].pools();
            let new = |pool| roster(old, lists, pool, false);
            let new = Pools::new(Arc::clone(old.settings()), Arc::clone(old.accounts()), new);
            // Where only clients have changed, nothing that was worked out of the peers is to be forgotten.
            let is_same = PoolName::ALL.into_iter().all(|it| new[it].is(&old[it]));
            let pools = match is_same {
                true => Arc::clone(old),
                false => Arc::new(new),
            };
            services[*place] = Arc::new(ServiceInForce::new(Arc::clone(lists), pools));
        }
        services
    }

    fn publish(
        &self,
        replacing: &mut Replacing,
        services: Vec<Arc<ServiceInForce>>,
        table: Arc<Table>,
    ) {
        let serving = Serving::new(services, table, replacing.number());
        self.published.store(serving);
        replacing.lists.retain(|it| it.strong_count() > 0);
        self.registry.tidy();
        if let Some(bell) = self.bell.get() {
            // A ring that nobody has heard yet is enough.
            let _ = bell.try_send(());
        }
    }

    fn ask_for_names_of_dead(&self, serving: &Serving) {
        let named = |is_up: bool| {
            let peers = serving.peers();
            let peers = peers.filter(move |it| it.health.is_up() == is_up);
            peers.filter_map(|it| it.name.as_ref())
        };
        let dead: BTreeSet<_> = named(false).collect();
        if !dead.is_empty() {
            let alive: BTreeSet<_> = named(true).collect();
            self.names.ask_now(dead.difference(&alive).copied());
        }
    }

    /// A worker's view.
    pub(crate) fn reader(&self) -> Reader<Serving> {
        Reader::new(&self.published)
    }

    /// The requests of all services but the default one so far.
    pub(crate) fn counted_requests(&self) -> CountedRequests {
        let mut replacing = self.replacing();
        replacing.close_accounts();
        let mut counted = replacing.counted.clone();
        replacing.gone.iter().for_each(|it| counted.add(it));
        for service in self.published.load().services() {
            counted.add(service.pools().accounts());
        }
        counted
    }

    /// How many lists are in memory: those in force, and those that somebody has not let go.
    pub(crate) fn kept(&self) -> usize {
        self.published.tidy();
        let replacing = self.replacing();
        let lists = replacing.lists.iter();
        lists.filter(|it| it.strong_count() > 0).count()
    }

    fn replacing(&self) -> MutexGuard<'_, Replacing> {
        self.replacing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called once a second, by one thread: what is older than the window of health and budgets
    /// counts no more, and names that have nobody up are asked for.
    pub fn look(&self, now: Instant) {
        let serving = self.serving();
        self.ask_for_names_of_dead(&serving);
        for service in serving.services() {
            let pools = service.pools();
            PoolName::ALL
                .into_iter()
                .for_each(|it| pools[it].budget().look(now));
            pools.accounts().tidy();
            if let Some(units) = pools.units() {
                units.look(now);
            }
        }
        drop(serving);
        self.registry.look(now);
        self.published.tidy();
        self.replacing().close_accounts();
        self.registry.tidy();
    }
}

/// A service of which nothing has been read yet.
fn unread(
    replacing: &mut Replacing,
    registry: &Registry,
    settings: &Arc<ServiceSettings>,
) -> Arc<ServiceInForce> {
    replacing.services += 1;
    let accounts = Accounts::new(replacing.services, &settings.name, registry.workers());
    let accounts = Arc::new(accounts);
    let none = |pool| registry.roster(Vec::new(), accounts.budget(pool), false, Instant::now());
    let pools = Pools::new(Arc::clone(settings), Arc::clone(&accounts), none);
    let lists = replacing.keep(Lists::unread());
    Arc::new(ServiceInForce::new(lists, Arc::new(pools)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lists::lists_of;

    fn name(text: &str) -> ServiceName {
        match text {
            ServiceName::DEFAULT => ServiceName::default(),
            other => ServiceName::parse(other).unwrap(),
        }
    }

    fn settings(names: &[&str]) -> Vec<Arc<ServiceSettings>> {
        let of = |text: &&str| ServiceSettings {
            name: name(text),
            ..ServiceSettings::default()
        };
        names.iter().map(|it| Arc::new(of(it))).collect()
    }

    fn generation(in_force: &InForce, service: &str) -> Option<u64> {
        in_force.load_of(&name(service)).map(|it| it.generation)
    }

    fn pools(in_force: &InForce, service: &str) -> Arc<Pools> {
        let serving = in_force.serving();
        Arc::clone(serving.of(&name(service)).unwrap().pools())
    }

    #[test]
    fn a_service_that_stays_keeps_its_lists_a_new_one_has_none_and_one_that_goes_is_freed() {
        let in_force = InForce::new(1);
        in_force.store(lists_of(&[], &[], &["10.0.0.1:80"]));
        in_force.set_services(&settings(&["default", "shop", "api"]));
        assert_eq!(generation(&in_force, "default"), Some(1));
        assert_eq!(generation(&in_force, "shop"), Some(0));
        assert_eq!(generation(&in_force, "none"), None);
        in_force.store_all(vec![
            (
                name("api"),
                lists_of(&[], &[], &["10.0.0.1:80", "10.0.0.3:80"]),
            ),
            (name("none"), lists_of(&[], &[], &["10.0.0.9:80"])),
        ]);
        assert_eq!(generation(&in_force, "shop"), Some(0));
        assert_eq!(in_force.kept(), 3);
        let (before, of_default) = (pools(&in_force, "api"), pools(&in_force, "default"));
        // In another order, without one.
        in_force.set_services(&settings(&["default", "api"]));
        assert_eq!(
            (generation(&in_force, "api"), generation(&in_force, "shop")),
            (Some(1), None)
        );
        assert!(Arc::ptr_eq(&before, &pools(&in_force, "api")));
        assert!(Arc::ptr_eq(&of_default, &pools(&in_force, "default")));
        assert_eq!(in_force.kept(), 2);
        // What comes again under the name is another one.
        let lists = Arc::downgrade(&in_force.load_of(&name("api")).unwrap());
        in_force.set_services(&settings(&["default"]));
        in_force.set_services(&settings(&["default", "api"]));
        assert_eq!(generation(&in_force, "api"), Some(0));
        assert_ne!(before.service_id(), pools(&in_force, "api").service_id());
        drop(before);
        in_force.look(Instant::now());
        assert!(lists.upgrade().is_none());
    }

    #[test]
    fn a_change_of_one_service_leaves_the_peers_of_the_others_alone_and_of_its_own_if_they_are_the_same()
     {
        let in_force = InForce::new(1);
        in_force.set_services(&settings(&["default", "shop"]));
        in_force.store_all(vec![
            (name("default"), lists_of(&[], &[], &["10.0.0.1:80"])),
            (
                name("shop"),
                lists_of(&[], &["10.0.0.1:80"], &["10.0.0.2:80"]),
            ),
        ]);
        let of_all = || ["default", "shop"].map(|it| pools(&in_force, it));
        let [of_default, of_shop] = of_all();
        let health = |pools: &Pools, pool| Arc::clone(&pools[pool].peers()[0].health);
        let shared = health(&of_default, PoolName::Prod);
        assert!(Arc::ptr_eq(&shared, &health(&of_shop, PoolName::Pre)));
        in_force.store_all(vec![(
            name("shop"),
            lists_of(&["1.1.1.1"], &["10.0.0.1:80"], &["10.0.0.2:80"]),
        )]);
        let [default_now, shop_now] = of_all();
        assert!(Arc::ptr_eq(&of_default, &default_now) && Arc::ptr_eq(&of_shop, &shop_now));
        assert!(
            in_force
                .load_of(&name("shop"))
                .unwrap()
                .gray
                .contains([1, 1, 1, 1].into())
        );
        in_force.store_all(vec![(
            name("shop"),
            lists_of(&[], &[], &["10.0.0.2:80 weight=2"]),
        )]);
        let [default_now, shop_now] = of_all();
        assert!(Arc::ptr_eq(&of_default, &default_now) && !Arc::ptr_eq(&of_shop, &shop_now));
        assert_eq!(of_shop.service_id(), shop_now.service_id());
    }

    #[test]
    fn a_service_is_asked_as_its_own_settings_say_and_as_new_ones_say_at_once() {
        let in_force = InForce::new(1);
        let mut all = settings(&["default", "shop"]);
        in_force.set_services(&all);
        in_force.store_all(vec![(name("shop"), lists_of(&[], &[], &["10.0.0.2:80"]))]);
        let mut other = ServiceSettings::clone(&all[1]);
        other.upstream.read_timeout = Duration::from_millis(77);
        all[1] = Arc::new(other);
        in_force.set_services(&all);
        let shop = pools(&in_force, "shop");
        assert_eq!(shop.rules().read_timeout, Duration::from_millis(77));
        assert_eq!(shop[PoolName::Prod].peers().len(), 1);
        assert_ne!(
            pools(&in_force, "default").rules().read_timeout,
            Duration::from_millis(77)
        );
    }
}
