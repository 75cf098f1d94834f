//! What may be in force, and whether answers agree with it.
//!
//! The lists as they were before a change stay possible until a gateway was seen to have the new ones, which
//! must not take longer than the change allows. Of what was seen of a gateway there is no way back: whoever
//! has got an answer by the new list of one service gets none by the old list of another one, where both
//! have changed at one moment. Only where a list has to settle first (it was emptied, or follows a fault),
//! its service comes later than the others, which do not wait for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::entries::{Entry, GrayList, Sight, Verdict};
use super::requests::Asked;
use super::services::{GUEST, SERVICES, SHARER, key, owner, salt_set, service_of};

/// So far a reading of the clock may be off when an entry ends, in milliseconds.
const CLOCK: u64 = 20;

/// An answer so soon before or after the end of an entry that makes a difference to it is counted.
const NEAR_END: u64 = 200;

/// The gateways on one store.
pub(crate) const GATEWAYS: usize = 2;

/// What is in a key of Redis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Key {
    /// None: there is no such key.
    Entries(BTreeSet<String>),
    /// A salt.
    Salt(String),
    /// It is of a type that holds no entries.
    WrongType,
}

impl Key {
    pub(crate) fn of<T: ToString>(entries: impl IntoIterator<Item = T>) -> Self {
        Self::Entries(entries.into_iter().map(|it| it.to_string()).collect())
    }

    pub(crate) fn none() -> Self {
        Self::Entries(BTreeSet::new())
    }

    pub(crate) fn entries(&self) -> BTreeSet<String> {
        match self {
            Self::Entries(entries) => entries.clone(),
            Self::Salt(_) | Self::WrongType => BTreeSet::new(),
        }
    }
}

/// What is in Redis.
pub(crate) type Keys = BTreeMap<String, Key>;

/// The entries of gray lists by their texts: any other text is a mistake.
pub(crate) type Book = BTreeMap<String, Entry>;

/// What is in force of a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ServiceLists {
    pub(crate) gray: Arc<GrayList>,
    pub(crate) salt: String,
    pub(crate) pre: BTreeSet<String>,
    pub(crate) prod: BTreeSet<String>,
}

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct InForce {
    pub(crate) services: BTreeMap<&'static str, Arc<ServiceLists>>,
    pub(crate) has_guest: bool,
}

impl InForce {
    /// What `keys` lead to when this was in force before.
    pub(crate) fn after(&self, keys: &Keys, book: &Book) -> Self {
        let mut services: BTreeMap<&'static str, Arc<ServiceLists>> = BTreeMap::new();
        for service in SERVICES {
            let before = self.services.get(service).cloned().unwrap_or_default();
            let peers = |list: &str, before: &BTreeSet<String>, may_empty: bool| {
                let Key::Entries(entries) = &keys[&key(service, list)] else {
                    return before.clone();
                };
                let good = entries.iter().filter(|it| is_peer(it));
                let good: BTreeSet<String> = good.cloned().collect();
                let is_emptied = good.is_empty() && (!may_empty || !entries.is_empty());
                if is_emptied { before.clone() } else { good }
            };
            let (gray, salt) = match services.get(owner(service)) {
                Some(owner) if self::owner(service) != service => {
                    (Arc::clone(&owner.gray), owner.salt.clone())
                }
                _ => (gray(keys, service, book, &before.gray), salt(keys, service)),
            };
            let new = ServiceLists {
                gray,
                salt,
                pre: peers("pre", &before.pre, true),
                prod: peers("prod", &before.prod, false),
            };
            let new = if new == *before {
                before
            } else {
                Arc::new(new)
            };
            services.insert(service, new);
        }
        Self {
            services,
            has_guest: self.has_guest,
        }
    }

    /// Whether a list of clients or of `pre` has entries here, and none in `new`.
    fn is_emptied_by(&self, new: &Self) -> bool {
        let is_emptied = |(service, before): (&&'static str, &Arc<ServiceLists>)| {
            let after = &new.services[*service];
            let gray = !before.gray.is_empty() && after.gray.is_empty();
            gray || (!before.pre.is_empty() && after.pre.is_empty())
        };
        self.services.iter().any(is_emptied)
    }

    pub(crate) fn lists_for(&self, asked: &Asked) -> &Arc<ServiceLists> {
        &self.services[service_of(asked, self.has_guest)]
    }

    /// The services that there are.
    pub(crate) fn present(&self) -> impl Iterator<Item = (&'static str, &ServiceLists)> {
        let services = self.services.iter().map(|(name, it)| (*name, &**it));
        services.filter(|(name, _)| *name != GUEST || self.has_guest)
    }
}

/// Spoilt entries of this test begin with a letter.
pub(crate) fn is_peer(entry: &str) -> bool {
    entry.starts_with(|first: char| first.is_ascii_digit())
}

fn gray(keys: &Keys, service: &str, book: &Book, before: &Arc<GrayList>) -> Arc<GrayList> {
    let Key::Entries(entries) = &keys[&key(service, "gray")] else {
        return Arc::clone(before);
    };
    let good: Vec<Entry> = entries
        .iter()
        .filter_map(|it| book.get(it))
        .cloned()
        .collect();
    if good.is_empty() && !entries.is_empty() {
        return Arc::clone(before);
    }
    let new = GrayList::of(good);
    if new == **before {
        Arc::clone(before)
    } else {
        Arc::new(new)
    }
}

fn salt(keys: &Keys, service: &str) -> String {
    match &keys[&key(service, "salt")] {
        Key::Salt(salt) => salt.clone(),
        _ => salt_set(service).to_owned(),
    }
}

impl ServiceLists {
    /// What is decided, and why, when nothing ends meanwhile.
    pub(crate) fn verdict(&self, asked: &Asked, visitor: Option<&str>, now: u64) -> Verdict {
        let mut verdict = self.gray.verdict(Sight {
            asked,
            salt: &self.salt,
            visitor,
            now,
        });
        if verdict.reason == "listed" && self.pre.is_empty() {
            verdict.reason = "pre-empty";
        }
        verdict
    }

    /// Whether this allows an answer.
    fn allows(&self, answer: &Answer<'_>) -> bool {
        let (sent, got) = (answer.sent.1 - CLOCK, answer.got.1 + CLOCK);
        let ends = self.gray.ends().filter(|it| (sent..=got).contains(it));
        let mut moments = std::iter::once(sent).chain(ends);
        moments.any(|now| {
            let is_gray = self.admits(answer, now);
            let reason = match is_gray {
                Some(true) if self.pre.is_empty() => "pre-empty",
                Some(true) => "listed",
                Some(false) => "excluded",
                None => "unlisted",
            };
            let pool = if reason == "listed" {
                &self.pre
            } else {
                &self.prod
            };
            pool.contains(answer.peer) && answer.reason == reason
        })
    }

    fn admits(&self, answer: &Answer<'_>, now: u64) -> Option<bool> {
        self.gray.admits(Sight {
            asked: answer.asked,
            salt: &self.salt,
            visitor: answer.visitor,
            now,
        })
    }

    /// Whether an entry that makes a difference to this answer has just ended, or is about to.
    fn has_end_near(&self, answer: &Answer<'_>) -> bool {
        let near = answer.sent.1 - NEAR_END..answer.got.1 + NEAR_END;
        let mut ends = self.gray.ends().filter(|it| near.contains(it));
        ends.any(|end| self.admits(answer, end - 1) != self.admits(answer, end))
    }
}

/// What somebody has seen of a gateway: the number of the last epoch, and of each service.
#[derive(Default)]
pub(crate) struct Floor {
    all: u64,
    services: BTreeMap<&'static str, u64>,
}

/// A moment, by the monotonic clock, and in milliseconds since 1970.
pub(crate) type Moment = (Instant, u64);

pub(crate) fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    (Instant::now(), u64::try_from(since.as_millis()).unwrap())
}

/// A request and its answer.
pub(crate) struct Answer<'a> {
    pub(crate) gateway: usize,
    pub(crate) asked: &'a Asked,
    /// The visitor's cookie that it had, or has got.
    pub(crate) visitor: Option<&'a str>,
    pub(crate) sent: Moment,
    pub(crate) got: Moment,
    pub(crate) status: u16,
    pub(crate) peer: &'a str,
    /// As the gateway says.
    pub(crate) reason: &'a str,
}

/// What may be in force for a time.
struct Epoch {
    number: u64,
    lists: InForce,
    /// From the moment before the change was sent.
    begin: Instant,
    /// Until the gateway was seen to have what follows.
    ends: [Option<Instant>; GATEWAYS],
    /// Services may come to it one after the other.
    apart: bool,
    /// Nobody may see it, unless it turns out to have stood for too long.
    passing: bool,
    /// Answers that only this explains.
    strays: Vec<String>,
}

/// What may be in force, and how the answers so far agree with it.
#[derive(Default)]
pub(crate) struct Model {
    epochs: Mutex<VecDeque<Epoch>>,
    pub(crate) requests: AtomicU64,
    /// Those near the end of an entry.
    pub(crate) near_ends: AtomicU64,
    pub(crate) violations: Mutex<Vec<String>>,
}

impl Model {
    pub(crate) fn new(lists: InForce) -> Self {
        let model = Self::default();
        model.may_be(lists, false);
        model
    }

    fn epochs(&self) -> MutexGuard<'_, VecDeque<Epoch>> {
        self.epochs.lock().unwrap()
    }

    pub(crate) fn violation(&self, what: String) {
        eprintln!("violation: {what}");
        self.violations.lock().unwrap().push(what);
    }

    /// From now on, `lists` may be in force; to be called before what brings them is sent.
    pub(crate) fn may_be(&self, lists: InForce, passing: bool) {
        let is_emptied = self.last().is_some_and(|it| it.is_emptied_by(&lists));
        self.may_become(lists, passing, is_emptied);
    }

    /// As [`Self::may_be`], but services may come to it one after the other: it follows a fault.
    pub(crate) fn may_be_apart(&self, lists: InForce) {
        self.may_become(lists, false, true);
    }

    fn may_become(&self, lists: InForce, passing: bool, apart: bool) {
        if apart && !passing {
            for between in self.between(&lists) {
                self.push(between, passing, apart);
            }
        }
        self.push(lists, passing, apart);
    }

    /// What is between that which may be in force and the `new` lists, where services do not change together:
    /// who has the gray list of another one may get that before or after its own lists.
    fn between(&self, new: &InForce) -> Vec<InForce> {
        let epochs = self.epochs();
        let is_unsettled = |it: &&Epoch| it.ends.contains(&None) && !it.passing;
        let unsettled = epochs.iter().filter(is_unsettled).map(|it| &it.lists);
        let unsettled: Vec<&InForce> = unsettled.collect();
        let mut known: Vec<Arc<ServiceLists>> = vec![Arc::clone(&new.services[SHARER])];
        known.extend(unsettled.iter().map(|it| Arc::clone(&it.services[SHARER])));
        let mut all = Vec::new();
        for before in unsettled {
            let (old, new) = (&before.services[SHARER], &new.services[SHARER]);
            for (gray_of, pools_of) in [(new, old), (old, new)] {
                let mixed = ServiceLists {
                    gray: Arc::clone(&gray_of.gray),
                    salt: gray_of.salt.clone(),
                    ..ServiceLists::clone(pools_of)
                };
                if !known.iter().any(|it| **it == mixed) {
                    let mixed = Arc::new(mixed);
                    known.push(Arc::clone(&mixed));
                    let mut between = before.clone();
                    between.services.insert(SHARER, mixed);
                    all.push(between);
                }
            }
        }
        all
    }

    fn push(&self, lists: InForce, passing: bool, apart: bool) {
        let mut epochs = self.epochs();
        let number = epochs.back().map_or(1, |it| it.number + 1);
        epochs.push_back(Epoch {
            number,
            lists,
            begin: Instant::now(),
            ends: [None; GATEWAYS],
            apart,
            passing,
            strays: Vec::new(),
        });
    }

    /// What was to pass unseen has stood for `stood`, and is believed after `settles`.
    pub(crate) fn has_passed(&self, stood: Duration, settles: Duration) {
        let mut epochs = self.epochs();
        let epoch = epochs.iter_mut().rev().find(|it| it.passing).unwrap();
        epoch.passing = false;
        if stood < settles {
            epoch.ends = [Some(epoch.begin); GATEWAYS];
            for stray in std::mem::take(&mut epoch.strays) {
                self.violation(format!("in a passing moment: {stray}"));
            }
        }
    }

    /// A gateway has what came last.
    pub(crate) fn has_settled(&self, gateway: usize, longest: Duration) {
        let now = Instant::now();
        let mut epochs = self.epochs();
        let last = epochs.len() - 1;
        for epoch in epochs.iter_mut().take(last) {
            epoch.ends[gateway].get_or_insert(now);
        }
        // No request takes so long.
        let is_over = |it: &Option<Instant>| it.is_some_and(|end| end.elapsed() > longest);
        while epochs.len() > 1 && epochs[0].ends.iter().all(is_over) {
            epochs.pop_front();
        }
    }

    /// What came last.
    pub(crate) fn last(&self) -> Option<InForce> {
        self.epochs().back().map(|it| it.lists.clone())
    }

    /// Judges an answer. Whoever asks has seen the `floor` of this gateway before, and sees the next one.
    pub(crate) fn judge(&self, answer: &Answer<'_>, floor: &mut Floor) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if answer.status != 200 {
            return self.violation(format!("{} {}", answer.status, shown(answer)));
        }
        let mut epochs = self.epochs();
        let (sent, got) = (answer.sent.0, answer.got.0);
        let possible =
            |it: &Epoch| it.begin <= got && it.ends[answer.gateway].is_none_or(|end| sent <= end);
        // Most epochs have most lists in common.
        let mut known: Vec<(*const ServiceLists, bool)> = Vec::new();
        let mut allows = |it: &Epoch| {
            let lists = it.lists.lists_for(answer.asked);
            let found = known.iter().find(|it| it.0 == Arc::as_ptr(lists));
            found.map(|it| it.1).unwrap_or_else(|| {
                let allows = lists.allows(answer);
                known.push((Arc::as_ptr(lists), allows));
                allows
            })
        };
        let of_service = |it: &Epoch| service_of(answer.asked, it.lists.has_guest);
        let least = |it: &Epoch| {
            let seen = floor.services.get(of_service(it));
            floor.all.max(seen.copied().unwrap_or_default())
        };
        let mut explains = epochs.iter_mut().filter(|it| possible(it) && allows(it));
        let mut first = explains.next();
        while first.as_ref().is_some_and(|it| it.number < least(it)) {
            first = explains.next();
            if first.is_none() {
                self.violation(format!("after later lists: {}", shown(answer)));
            }
        }
        let Some(first) = first else {
            drop(explains);
            let all = epochs.iter().filter(|it| possible(it));
            let lists: Vec<_> = all
                .map(|it| (it.number, it.lists.lists_for(answer.asked)))
                .collect();
            return self.violation(format!("{} under {lists:?}", shown(answer)));
        };
        floor.services.insert(of_service(first), first.number);
        if !first.apart {
            floor.all = first.number;
        }
        if first.passing && explains.all(|it| it.passing) {
            first.strays.push(shown(answer));
        } else if first.lists.lists_for(answer.asked).has_end_near(answer) {
            self.near_ends.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn shown(answer: &Answer<'_>) -> String {
    let Answer {
        gateway,
        peer,
        reason,
        sent,
        got,
        visitor,
        ..
    } = answer;
    let head = answer.asked.head().replace("\r\n", " | ");
    let client = answer.asked.client;
    format!(
        "{client} was served by {peer} ({reason}, gateway {gateway}, visitor {visitor:?}, from {} to {}): {head}",
        sent.1, got.1
    )
}
