//! How the lists stand: what the page `/lists` says besides their entries.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use serde_json::{Map, Value};

use crate::admin::pages::member::{Member as _, object};
use crate::admin::view::{NO_ENTRY, View};
use crate::error::StoreFindingKind;
use crate::fleet::heartbeat::Heartbeat;
use crate::fleet::plain::sentence;
use crate::lists::findings::Findings;
use crate::lists::notes::FindingKind;
use crate::lists::{ListName, Lists, ServiceName};
use crate::proxy::doubts::Doubted;
use crate::release::trips::TripView;
use crate::store::gate::guard::{HeldChange, Named};
use crate::store::{Cause, Fault, ServiceStatus, Status, StoreFinding, copy};
use crate::upstream::names::Unresolved;

object! {
    /// The members of `/lists` that are not entries.
    pub(crate) struct ListsStanding {
        generation: u64,
        digest: String,
        /// Whether entries of the lists of clients are on the page: `shown` or `hidden`.
        clients: String,
        /// By list.
        digests: BTreeMap<String, String>,
        /// Entries by list.
        counts: BTreeMap<String, u64>,
        /// The store.
        source: String,
        server: Option<String>,
        mode: String,
        /// Readings by cause.
        refreshes: BTreeMap<String, u64>,
        refreshed_by: Option<String>,
        missed_events: u64,
        /// Why the store cannot be read at present.
        error: Option<String>,
        /// Since it was last read in full.
        age_seconds: Option<f64>,
        changed_at: Option<String>,
        /// Entries that cannot be read, by list.
        skipped: BTreeMap<String, SkippedShown>,
        kept: Vec<KeptList>,
        findings: FindingsFound,
        held: Vec<HeldShown>,
        /// Why clients that `pre` would serve get `prod`, if they do.
        tripped: Option<TripShown>,
        heartbeat: Option<Heartbeats>,
        copy: Option<LastGood>,
        /// All services, the default one first; none where there is only that one, nor on the page of
        /// another one.
        services: Vec<ServiceStanding>,
    }
}

object! {
    /// How the lists of a service stand.
    pub(crate) struct ServiceStanding {
        service: String,
        /// The service whose gray list it has, if that is another one.
        gray_of: Option<String>,
        generation: u64,
        digest: String,
        /// By list; by these, changes of the same content are accepted.
        digests: BTreeMap<String, String>,
        /// Entries by list.
        counts: BTreeMap<String, u64>,
        changed_at: Option<String>,
        kept: Vec<KeptList>,
        held: Vec<HeldShown>,
        tripped: Option<TripShown>,
    }
}

object! {
    /// That the new version was taken back.
    pub(crate) struct TripShown {
        by: String,
        at: String,
        why: String,
        /// The digest of the list `pre`.
        pre: String,
        release: String,
        /// What was counted.
        numbers: Option<Value>,
        reason: Option<String>,
        /// The store has it, so that it holds for all gateways.
        stored: bool,
    }
}

object! {
    /// Entries of a list that cannot be read.
    pub(crate) struct SkippedShown {
        count: u64,
        first: Vec<SkippedEntryShown>,
    }
}

object! {
    /// One of them.
    pub(crate) struct SkippedEntryShown {
        entry: String,
        reason: String,
    }
}

object! {
    /// A list that keeps its last good value.
    pub(crate) struct KeptList {
        list: String,
        fault: String,
    }
}

object! {
    /// How many findings there are of each kind, and the first of them.
    pub(crate) struct FindingsFound {
        count: BTreeMap<String, u64>,
        first: Vec<FindingFound>,
    }
}

object! {
    /// One of them.
    pub(crate) struct FindingFound {
        finding: String,
        /// None where it concerns all lists.
        list: Option<String>,
        entry: String,
        text: String,
    }
}

object! {
    /// A change that waits to be accepted.
    pub(crate) struct HeldShown {
        list: String,
        reason: String,
        digest: String,
        since: String,
        entries: u64,
        gone: NamedEntries,
        new: NamedEntries,
    }
}

object! {
    /// How many entries, and the first of them.
    pub(crate) struct NamedEntries {
        count: u64,
        first: Vec<String>,
    }
}

object! {
    /// What has come of the heartbeats.
    pub(crate) struct Heartbeats {
        node: String,
        written: u64,
        refused: u64,
        failed: u64,
        error: Option<String>,
    }
}

object! {
    /// The last-good copy.
    pub(crate) struct LastGood {
        path: String,
        written: Option<String>,
        age_seconds: Option<f64>,
        in_force: bool,
        error: Option<String>,
        failures: u64,
        store: String,
        other: Option<OtherCopy>,
    }
}

object! {
    /// A copy of another store.
    pub(crate) struct OtherCopy {
        store: String,
        path: String,
    }
}

impl ListsStanding {
    /// Its members as they are shown: services are named where there are any.
    pub(crate) fn shown(&self) -> Map<String, Value> {
        let mut members = match self.render() {
            Value::Object(members) => members,
            _ => Map::new(),
        };
        if self.services.is_empty() {
            members.remove("services");
        }
        members
    }

    /// That of `lists`, which were in force when the store had this `status`.
    pub(super) fn of(view: &View, service: &ServiceName, lists: &Lists, status: Status) -> Self {
        let ServiceStatus {
            changed,
            faults,
            held,
        } = status.of(service);
        let in_force = copy_is_in_force(lists, &status);
        let doubted = view.gateway.doubts.recent(Instant::now());
        let of_lists = view.publisher.findings(lists);
        let unresolved = view.gateway.lists.names().unresolved(Instant::now());
        let refreshes = Cause::ALL.map(|it| (it.name().to_owned(), status.refreshes[it as usize]));
        Self {
            generation: lists.generation,
            digest: lists.digest.to_string(),
            clients: SHOWN.to_owned(),
            digests: digests(service, lists),
            counts: by_list(|it| lists.len(it) as u64),
            server: status.server.map(|it| it.to_string()),
            mode: status.mode.name().to_owned(),
            refreshes: refreshes.into(),
            refreshed_by: status.refreshed_by.map(|it| it.name().to_owned()),
            missed_events: status.missed_events,
            age_seconds: status.checked.map(|at| at.elapsed().as_secs_f64()),
            changed_at: changed.map(rfc3339),
            skipped: by_list(|it| SkippedShown::of(lists, it)),
            kept: kept(&faults),
            findings: FindingsFound::of(&of_lists, &status.findings, doubted.as_ref(), &unresolved),
            held: held.iter().map(HeldShown::of).collect(),
            tripped: view.trips.of(service).map(TripShown::of),
            heartbeat: view.heartbeat.load().as_ref().map(|it| Heartbeats::of(it)),
            copy: view.publisher.copy().map(|it| LastGood::of(&it, in_force)),
            services: match view.publisher.services() {
                services if services.len() > 1 && service.is_default() => services
                    .iter()
                    .map(|it| ServiceStanding::of(view, it))
                    .collect(),
                _ => Vec::new(),
            },
            source: status.source,
            error: status.error,
        }
    }
}

impl ServiceStanding {
    fn of(view: &View, service: &ServiceName) -> Self {
        let (lists, of_service) = view.publisher.lists_with(service, |it| it.of(service));
        Self {
            service: service.to_string(),
            gray_of: view.publisher.owner_of(service).map(|it| it.to_string()),
            generation: lists.generation,
            digest: lists.digest.to_string(),
            digests: digests(service, &lists),
            counts: by_list(|it| lists.len(it) as u64),
            changed_at: of_service.changed.map(rfc3339),
            kept: kept(&of_service.faults),
            held: of_service.held.iter().map(HeldShown::of).collect(),
            tripped: view.trips.of(service).map(TripShown::of),
        }
    }
}

impl TripShown {
    pub(super) fn of(TripView { trip, is_stored }: TripView) -> Self {
        Self {
            by: trip.by,
            at: trip.at,
            why: trip.why,
            pre: trip.pre,
            release: trip.release,
            numbers: Some(trip.numbers).filter(|it| !it.is_null()),
            reason: trip.reason,
            stored: is_stored,
        }
    }

    /// What was counted, in words, if that is known.
    pub(crate) fn sentence(&self) -> Option<String> {
        // Anybody may have written it.
        self.numbers.as_ref()?["text"].as_str().map(sentence)
    }

    /// It in words, without an end.
    pub(crate) fn words(&self) -> String {
        let Self { by, at, why, .. } = self;
        let reason = self.reason.as_ref();
        let reason = reason.map_or_else(String::new, |it| format!(" ({it})"));
        let stored = if self.stored {
            ""
        } else {
            ", only here: the store does not have it yet"
        };
        match by.as_str() {
            // Whoever has set the key has not said who it was.
            "-" => format!("at {at} {why}{reason}{stored}"),
            by => format!("at {at} by {by}: {why}{reason}{stored}"),
        }
    }
}

fn kept(faults: &[(ListName, Fault)]) -> Vec<KeptList> {
    let kept = faults.iter().map(|(list, fault)| KeptList {
        list: list.name().to_owned(),
        fault: fault.name().to_owned(),
    });
    kept.collect()
}

/// The digests of the lists, as a change to one of the same content has them.
fn digests(service: &ServiceName, lists: &Lists) -> BTreeMap<String, String> {
    by_list(|it| {
        let digest = match it {
            ListName::Gray => lists.gray.digest(),
            ListName::Pre => lists.pre.digest(it),
            ListName::Prod => lists.prod.digest(it),
        };
        digest.of_service(service).to_string()
    })
}

/// The values of `clients`.
const SHOWN: &str = "shown";
const HIDDEN: &str = "hidden";

impl ListsStanding {
    /// Without what tells who is on a list of clients, or what their addresses are.
    pub(super) fn without_clients(mut self, view: &View) -> Self {
        HIDDEN.clone_into(&mut self.clients);
        self.error = view.store_error(false);
        let gray = ListName::Gray.name();
        if let Some(skipped) = self.skipped.get_mut(gray) {
            skipped.first.clear();
        }
        let services = self.services.iter_mut().flat_map(|it| &mut it.held);
        let held = self.held.iter_mut().chain(services);
        for held in held.filter(|it| it.list == gray) {
            held.gone.first.clear();
            held.new.first.clear();
        }
        // What a proxy is not believed about is the address of a client.
        let of_proxies = StoreFindingKind::ProxyNotBelieved.name();
        let is_of_clients =
            |it: &&mut FindingFound| it.list.as_deref() == Some(gray) || it.finding == of_proxies;
        for found in self.findings.first.iter_mut().filter(is_of_clients) {
            NO_ENTRY.clone_into(&mut found.entry);
            NO_ENTRY.clone_into(&mut found.text);
        }
        self
    }

    /// Whether entries of the lists of clients are missing. An older gateway shows all.
    pub(crate) fn hides_clients(&self) -> bool {
        self.clients == HIDDEN
    }
}

fn by_list<T>(of: impl Fn(ListName) -> T) -> BTreeMap<String, T> {
    let all = ListName::ALL.into_iter();
    all.map(|it| (it.name().to_owned(), of(it))).collect()
}

impl SkippedShown {
    /// Those of one list.
    pub(crate) fn of(lists: &Lists, list: ListName) -> Self {
        let skipped = lists.skipped(list);
        let first = skipped.first.iter().map(|it| SkippedEntryShown {
            entry: it.entry.to_string(),
            reason: it.reason.to_string(),
        });
        Self {
            count: skipped.count as u64,
            first: first.collect(),
        }
    }
}

impl FindingsFound {
    /// All of them: of the lists, of the store, of a proxy, of names.
    pub(crate) fn of(
        findings: &Findings,
        of_store: &[StoreFinding],
        doubted: Option<&Doubted>,
        unresolved: &Unresolved,
    ) -> Self {
        let of_lists = FindingKind::ALL.map(|kind| (kind.name(), findings.count(kind)));
        let counts = StoreFindingKind::ALL.iter().map(|kind| {
            let of_kind = of_store.iter().filter(|it| it.finding == *kind);
            let others = match kind {
                StoreFindingKind::ProxyNotBelieved => usize::from(doubted.is_some()),
                StoreFindingKind::NameUnresolved => unresolved.count,
                _ => 0,
            };
            (kind.name(), of_kind.count() + others)
        });
        let counts = counts.filter(|(_, count)| *count > 0).chain(of_lists);
        // What concerns all lists comes first.
        let store = of_store.iter().map(|it| FindingFound {
            finding: it.finding.name().to_owned(),
            list: None,
            entry: it.server.clone(),
            text: it.in_words(),
        });
        let proxies = doubted.map(|it| FindingFound {
            finding: StoreFindingKind::ProxyNotBelieved.name().to_owned(),
            list: None,
            entry: it.proxy.to_string(),
            text: it.in_words(Instant::now()),
        });
        let names = unresolved.first.iter().map(|(name, text)| FindingFound {
            finding: StoreFindingKind::NameUnresolved.name().to_owned(),
            list: None,
            entry: name.to_string(),
            text: text.clone(),
        });
        let lists = findings.first.iter().map(|it| FindingFound {
            finding: it.kind.name().to_owned(),
            list: Some(it.list.name().to_owned()),
            entry: it.entry.to_string(),
            text: it.text.to_string(),
        });
        Self {
            count: counts
                .map(|(name, count)| (name.to_owned(), count as u64))
                .collect(),
            first: store.chain(proxies).chain(names).chain(lists).collect(),
        }
    }
}

impl HeldShown {
    fn of(held: &HeldChange) -> Self {
        let named = |it: &Named| NamedEntries {
            count: it.count as u64,
            first: it.first.clone(),
        };
        Self {
            list: held.list.name().to_owned(),
            reason: held.reason.name().to_owned(),
            digest: held.digest.to_string(),
            since: rfc3339(held.since),
            entries: held.entries as u64,
            gone: named(&held.gone),
            new: named(&held.new),
        }
    }
}

impl Heartbeats {
    fn of(heartbeat: &Heartbeat) -> Self {
        let counts = heartbeat.counts();
        Self {
            node: heartbeat.node().to_owned(),
            written: counts.written,
            refused: counts.refused,
            failed: counts.failed,
            error: counts.error,
        }
    }
}

impl LastGood {
    fn of(copy: &copy::CopyView, in_force: bool) -> Self {
        let other = copy.other.as_ref().map(|(store, path)| OtherCopy {
            store: store.clone(),
            path: path.to_string_lossy().into_owned(),
        });
        Self {
            path: copy.path.to_string_lossy().into_owned(),
            written: copy.written.map(rfc3339),
            age_seconds: age_of(copy),
            in_force,
            error: copy.error.clone(),
            failures: copy.failures,
            store: copy.store.clone(),
            other,
        }
    }
}

/// How old the copy is; 0 when it is from the future, since a clock was set.
pub(crate) fn age_of(copy: &copy::CopyView) -> Option<f64> {
    let age = |written| SystemTime::now().duration_since(written);
    let age = copy.written.map(|it| age(it).unwrap_or_default());
    age.map(|it| it.as_secs_f64())
}

/// True while nothing has been read since the start.
pub(crate) fn copy_is_in_force(lists: &Lists, status: &Status) -> bool {
    lists.are_read() && status.checked.is_none()
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
