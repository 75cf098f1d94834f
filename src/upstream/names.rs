//! The addresses of the names in lists: looked up again and again, never by whoever needs them.
//!
//! The system's resolver has a deadline of its own at best, so it is asked by threads of which there are a
//! few at most, and of which each may hang. What they find stands in a table, from which peers are made.
//! The last addresses of a name stay while it cannot be resolved. A name is in the table while a list in
//! force has it, or one that was read and may come into force: what is held is known by the time it is
//! accepted.
//!
//! The resolver tells no time to live, so all names are asked for in the same interval.

mod answer;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use self::answer::NameAddresses;
use super::roster::ResolvedPeer;
use crate::lists::{Lists, PeerList, Place, PoolName, ServiceName};
use crate::logs::throttle::Throttle;
use crate::memory::advice;

/// Names that are asked for at once, and threads that may hang.
const AT_ONCE: usize = 32;

/// Such a thread ends when it had nothing to do for so long.
const IDLE: Duration = Duration::from_secs(30);

/// Lists with new names wait no longer for the addresses of these.
const PATIENCE: Duration = Duration::from_secs(2);

/// The same, while the resolver has not answered in time and nothing since.
const LESS_PATIENCE: Duration = Duration::from_millis(100);

/// A name counts as not resolved when there is no answer after this time.
const LATE: Duration = Duration::from_secs(5);

/// A name that has never had an address is asked for again after this time, or after the interval if that
/// is shorter.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The shortest time between two looks at what is due.
const PERIOD: Duration = Duration::from_millis(100);

/// The longest.
const LONGEST_PERIOD: Duration = Duration::from_secs(1);

/// So many names that are not resolved are shown.
const SHOWN: usize = 20;

/// The names of the lists.
#[derive(Debug, Default)]
pub(crate) struct Names(Arc<NamesShared>);

#[derive(Debug, Default)]
struct NamesShared {
    state: Mutex<NamesState>,
    /// For the threads that ask: there is a name.
    work: Condvar,
    /// For the others: there is an answer.
    news: Condvar,
}

#[derive(Debug, Default)]
struct NamesState {
    known: FxHashMap<Arc<str>, Known>,
    /// The names of each list that is in force or was read last, by its service and [`UserKind`].
    lists: FxHashMap<(ServiceName, UserKind), Box<[Arc<str>]>>,
    /// Addresses from before the start, for names that are not known yet.
    remembered: FxHashMap<Arc<str>, Vec<IpAddr>>,
    /// What is to be asked next, those first that lists wait for.
    queue: VecDeque<Arc<str>>,
    /// The threads that ask, and how many of them have nothing to do.
    threads: usize,
    idle: usize,
    /// A name in force has other addresses.
    has_changed: bool,
    /// A name is to be asked for before its time.
    is_urgent: bool,
    /// Lists have waited in vain, and nothing was resolved since.
    is_slow: bool,
    interval: Duration,
    answers: u64,
    failures: u64,
    resolved: Throttle,
    unresolved: Throttle,
    skipped: Throttle,
}

/// What is known of a name.
#[derive(Debug)]
struct Known {
    /// Sorted. The last ones that there were.
    addresses: Vec<IpAddr>,
    /// The addresses of the last answer that are no use.
    skipped: Vec<(IpAddr, &'static str)>,
    /// Why it was not resolved the last time, and since when that is so.
    failure: Option<(String, Instant)>,
    /// There was an answer, whatever it was.
    is_answered: bool,
    stage: Stage,
    /// Until it is asked for again, while it has no address; then twice that.
    retry: Duration,
    /// How often lists in force have it, and lists that were read last.
    in_force: u32,
    read: u32,
}

/// What has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum UserKind {
    /// The lists in force of a service.
    InForce,
    /// One of those that were read last.
    Read(PoolName),
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// To be asked for at that time.
    Waits(Instant),
    /// In the queue.
    Queued,
    /// In a thread that asks, since then.
    Asked(Instant),
}

/// How the names are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NameCounts {
    /// Those that were resolved the last time.
    pub resolved: usize,
    /// Those that were not, and whose last addresses stay.
    pub kept: usize,
    /// Those that never were.
    pub unresolved: usize,
    /// Answers with addresses since the start.
    pub answers: u64,
    /// Answers without.
    pub failures: u64,
}

/// The names that cannot be resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unresolved {
    /// How many there are.
    pub count: usize,
    /// The first of them, at most 20: why, since when, and what follows from it.
    pub first: Vec<(Arc<str>, String)>,
}

impl Names {
    /// The addresses that these names had before the start: they count until there are others.
    pub(crate) fn remember(&self, names: impl IntoIterator<Item = (Arc<str>, Vec<IpAddr>)>) {
        self.0.locked().remembered.extend(names);
    }

    /// The addresses of all names that have some, sorted by name.
    pub(crate) fn addresses(&self) -> Vec<(Arc<str>, Vec<IpAddr>)> {
        let state = self.0.locked();
        let with_any = state
            .known
            .iter()
            .filter(|(_, it)| !it.addresses.is_empty());
        let named = with_any.map(|(name, it)| (Arc::clone(name), it.addresses.clone()));
        let mut all: Vec<_> = named.collect();
        all.sort_unstable();
        all
    }

    /// As [`Self::prepare_all`], with lists of the default service.
    #[cfg(test)]
    fn prepare(&self, pools: [Option<&PeerList>; 2]) -> Duration {
        self.prepare_all([(&ServiceName::default(), pools)])
    }

    /// Lists of these services were read, with these pools, and may come into force; `None` where it is not
    /// known what the list is. Looks up the names that are new, and waits for their addresses, but not for
    /// long: returns for how long.
    pub(crate) fn prepare_all<'a>(
        &self,
        read: impl IntoIterator<Item = (&'a ServiceName, [Option<&'a PeerList>; 2])>,
    ) -> Duration {
        let begun = Instant::now();
        let mut state = self.0.locked();
        let mut new = Vec::new();
        for (service, pools) in read {
            for (pool, list) in PoolName::ALL.into_iter().zip(pools) {
                if let Some(list) = list {
                    new.extend(state.take_up(service, UserKind::Read(pool), list.names()));
                }
            }
        }
        if new.is_empty() {
            return Duration::ZERO;
        }
        self.0.hire(&mut state, AT_ONCE);
        let patience = if state.is_slow {
            LESS_PATIENCE
        } else {
            PATIENCE
        };
        let until = begun + patience;
        loop {
            new.retain(|name| state.is_awaited(name));
            let left = until.saturating_duration_since(Instant::now());
            if new.is_empty() || left.is_zero() {
                break;
            }
            let waited = self.0.news.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.is_slow |= !new.is_empty();
        for name in new {
            state.fail(&name, format!("no answer within {patience:?}"));
        }
        begun.elapsed()
    }

    /// From now on these lists of a service are in force.
    pub(super) fn use_for(&self, service: &ServiceName, lists: &Lists) {
        let mut state = self.0.locked();
        let names = lists.pre.names().chain(lists.prod.names());
        if !state.take_up(service, UserKind::InForce, names).is_empty() {
            self.0.hire(&mut state, AT_ONCE);
        }
    }

    /// There is no such service any more.
    pub(super) fn forget(&self, service: &ServiceName) {
        let mut state = self.0.locked();
        let read = PoolName::ALL.map(UserKind::Read);
        for kind in read.into_iter().chain([UserKind::InForce]) {
            state.take_up(service, kind, std::iter::empty());
        }
    }

    /// The peers that the entries of a list mean at present. Of several at one address the heaviest is the
    /// first.
    pub(super) fn found(&self, list: &PeerList) -> Vec<ResolvedPeer> {
        let state = self.0.locked();
        let mut all = Vec::with_capacity(list.peers().len());
        for peer in list.peers() {
            let weight = peer.weight();
            match peer.place() {
                Place::Address(address) => all.push(ResolvedPeer {
                    address: *address,
                    weight,
                    name: None,
                }),
                Place::Name(name, port) => {
                    let known = state.known.get(name);
                    let addresses = known.map_or(&[][..], |it| &it.addresses);
                    all.extend(addresses.iter().map(|address| ResolvedPeer {
                        address: SocketAddr::new(*address, *port),
                        weight,
                        name: Some(Arc::clone(name)),
                    }));
                }
            }
        }
        all.sort_by(|one, other| {
            let weights = || other.weight.cmp(&one.weight);
            one.address.cmp(&other.address).then_with(weights)
        });
        all
    }

    /// Waits until something is to be done, for a second at most, and does it; true when a name in force has
    /// other addresses.
    pub(super) fn turn(&self, interval: Duration) -> bool {
        let mut state = self.0.locked();
        if std::mem::replace(&mut state.interval, interval) > interval {
            state.hasten(Instant::now() + interval);
        }
        let pause = state.next_look(Instant::now());
        if !state.has_changed {
            let nothing = |it: &mut NamesState| !it.has_changed && !it.is_urgent;
            let waited = self.0.news.wait_timeout_while(state, pause, nothing);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.is_urgent = false;
        // Whatever is left from the last time is too much for the threads that there are.
        let more = usize::from(!state.queue.is_empty() || state.threads == 0);
        state.ask_for_due(Instant::now());
        self.0.hire(&mut state, more);
        std::mem::take(&mut state.has_changed)
    }

    /// Of what these names mean nobody answers, so they may mean something else by now: they are asked for at
    /// once.
    pub(super) fn ask_now<'a>(&self, names: impl Iterator<Item = &'a Arc<str>>) {
        let mut state = self.0.locked();
        let now = Instant::now();
        for name in names {
            let known = state.known.get_mut(name).map(|it| &mut it.stage);
            if let Some(Stage::Waits(at)) = known {
                *at = now.min(*at);
                state.is_urgent = true;
            }
        }
        if state.is_urgent {
            self.0.news.notify_all();
        }
    }

    /// How the names are.
    pub(crate) fn counts(&self) -> NameCounts {
        let state = self.0.locked();
        let mut counts = NameCounts {
            answers: state.answers,
            failures: state.failures,
            ..NameCounts::default()
        };
        for known in state.known.values() {
            let count = match (&known.failure, &known.addresses[..]) {
                (_, []) => &mut counts.unresolved,
                (Some(_), _) => &mut counts.kept,
                (None, _) => &mut counts.resolved,
            };
            *count += 1;
        }
        counts
    }

    /// The names that cannot be resolved.
    pub(crate) fn unresolved(&self, now: Instant) -> Unresolved {
        let state = self.0.locked();
        let failed = |(name, it): (&Arc<str>, &Known)| {
            let (error, since) = it.failure.as_ref()?;
            let seconds = now.saturating_duration_since(*since).as_secs();
            let then = match &it.addresses[..] {
                [] => "it has no servers".to_owned(),
                last => format!("its last addresses stay: {}", answer::shown(last)),
            };
            let text = format!("cannot be resolved, for {seconds} s: {error}; {then}");
            Some((Arc::clone(name), text))
        };
        let mut first: Vec<_> = state.known.iter().filter_map(failed).collect();
        first.sort_unstable();
        let count = first.len();
        first.truncate(SHOWN);
        Unresolved { count, first }
    }
}

impl NamesShared {
    fn locked(&self) -> MutexGuard<'_, NamesState> {
        // What is known of each name is whole at any moment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes threads for what is in the queue, and starts some if there are too few, `most` at once.
    fn hire(self: &Arc<Self>, state: &mut NamesState, most: usize) {
        let startable = state.startable();
        let wanted = startable.saturating_sub(state.idle);
        let wanted = wanted.min(most).min(AT_ONCE.saturating_sub(state.threads));
        for _ in 0..wanted {
            let own = Arc::clone(self);
            let thread = thread::Builder::new().name("names-resolver".to_owned());
            // Those that there are do it later, or the next turn starts one.
            let started = advice::room_for_thread().and_then(|()| thread.spawn(move || own.work()));
            if started.is_ok() {
                state.threads += 1;
            }
        }
        for _ in 0..startable.min(state.idle) {
            self.work.notify_one();
        }
    }

    /// Asks for names until there have been none for a while.
    fn work(&self) {
        let mut state = self.locked();
        loop {
            let Some(name) = state.next(Instant::now()) else {
                state.idle += 1;
                let nothing = |it: &mut NamesState| it.place_of_next().is_none();
                let waited = self.work.wait_timeout_while(state, IDLE, nothing);
                let (after, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
                state = after;
                state.idle -= 1;
                if outcome.timed_out() {
                    state.threads -= 1;
                    return;
                }
                continue;
            };
            drop(state);
            let answer = answer::ask(&name);
            state = self.locked();
            state.take(&name, answer, Instant::now());
            self.news.notify_all();
        }
    }
}

impl NamesState {
    /// A list has these names from now on. Returns the ones that there has been no answer for, which are
    /// asked for at once.
    fn take_up<'a>(
        &mut self,
        service: &ServiceName,
        kind: UserKind,
        names: impl Iterator<Item = &'a Arc<str>>,
    ) -> Vec<Arc<str>> {
        let names: Box<[Arc<str>]> = names.cloned().collect();
        let mut unanswered = Vec::new();
        for name in &names {
            if !self.known.contains_key(name) {
                let addresses = self.remembered.remove(name).unwrap_or_default();
                self.known.insert(Arc::clone(name), Known::new(addresses));
                self.queue.push_front(Arc::clone(name));
            }
            if let Some(known) = self.known.get_mut(name) {
                *known.users(kind) += 1;
                if !known.is_answered {
                    unanswered.push(Arc::clone(name));
                }
            }
        }
        let key = (service.clone(), kind);
        let before = match names.is_empty() {
            true => self.lists.remove(&key),
            false => self.lists.insert(key, names),
        };
        for name in before.iter().flatten() {
            if let Some(known) = self.known.get_mut(name) {
                *known.users(kind) -= 1;
                if known.in_force == 0 && known.read == 0 {
                    self.known.remove(name);
                }
            }
        }
        unanswered
    }

    /// Takes the name that is to be asked for next out of the queue.
    fn next(&mut self, now: Instant) -> Option<Arc<str>> {
        // Nobody needs the others any more, or an answer for a list that was gone meanwhile has come.
        let known = &self.known;
        let is_wanted = |it: &Known| matches!(it.stage, Stage::Queued);
        self.queue
            .retain(|name| known.get(name).is_some_and(is_wanted));
        let name = self.queue.remove(self.place_of_next()?)?;
        if let Some(known) = self.known.get_mut(&name) {
            known.stage = Stage::Asked(now);
        }
        Some(name)
    }

    /// Where in the queue it is.
    fn place_of_next(&self) -> Option<usize> {
        if self.queue.is_empty() {
            return None;
        }
        let room = self.room();
        let has_room = |name| self.known.get(name).is_none_or(|it| room.is_for(it));
        self.queue.iter().position(has_room)
    }

    /// How many names of the queue may be asked for now.
    fn startable(&self) -> usize {
        if self.queue.is_empty() {
            return 0;
        }
        let mut room = self.room();
        let mut takes = |name| self.known.get(name).is_some_and(|it| room.take(it));
        self.queue.iter().filter(|name| takes(*name)).count()
    }

    /// What there is room for beside the names that are asked for.
    fn room(&self) -> Room {
        let mut room = Room::default();
        let asked = |it: &&Known| matches!(it.stage, Stage::Asked(_));
        for known in self.known.values().filter(asked) {
            room.note(known);
        }
        room
    }

    /// True for a name that there has been no answer for, and that lists have not waited for in vain yet.
    fn is_awaited(&self, name: &Arc<str>) -> bool {
        let known = self.known.get(name);
        known.is_some_and(|it| !it.is_answered && it.failure.is_none())
    }

    /// No name waits longer than until `latest`.
    fn hasten(&mut self, latest: Instant) {
        for known in self.known.values_mut() {
            if let Stage::Waits(at) = &mut known.stage {
                *at = latest.min(*at);
            }
        }
    }

    /// How long nothing is due.
    fn next_look(&self, now: Instant) -> Duration {
        if !self.queue.is_empty() {
            return PERIOD;
        }
        let times = self.known.values().filter_map(|it| match it.stage {
            Stage::Waits(at) => Some(at),
            Stage::Asked(since) => it.failure.is_none().then_some(since + LATE),
            Stage::Queued => None,
        });
        let next = times.min().map(|it| it.saturating_duration_since(now));
        next.map_or(LONGEST_PERIOD, |it| it.clamp(PERIOD, LONGEST_PERIOD))
    }

    /// Puts what is due into the queue, and tells what has been there for too long.
    fn ask_for_due(&mut self, now: Instant) {
        let mut late = Vec::new();
        for (name, known) in &mut self.known {
            match known.stage {
                Stage::Waits(at) if at <= now => {
                    known.stage = Stage::Queued;
                    self.queue.push_back(Arc::clone(name));
                }
                Stage::Asked(since) if known.failure.is_none() && now - since >= LATE => {
                    late.push(Arc::clone(name));
                }
                _ => {}
            }
        }
        for name in late {
            self.fail(&name, format!("no answer within {LATE:?}"));
        }
    }

    /// Takes what there is to know of a name.
    fn take(&mut self, name: &Arc<str>, answer: Result<NameAddresses, String>, now: Instant) {
        let pause = jittered(self.interval);
        let Some(known) = self.known.get_mut(name) else {
            return;
        };
        known.stage = Stage::Waits(now + pause);
        known.is_answered = true;
        let NameAddresses { addresses, skipped } = match answer {
            Ok(answer) => answer,
            Err(error) => {
                if known.addresses.is_empty() && known.retry < pause {
                    known.stage = Stage::Waits(now + known.retry);
                    known.retry *= 2;
                }
                self.failures += 1;
                return self.fail(name, error);
            }
        };
        self.answers += 1;
        self.is_slow = false;
        let is_back = known.failure.take().is_some();
        let has_changed = known.addresses != addresses;
        if has_changed {
            known.addresses = addresses;
            self.has_changed |= known.in_force > 0;
        }
        if (is_back || has_changed)
            && let Some(untold) = self.resolved.turn(now)
        {
            let addresses = answer::shown(&known.addresses);
            log::info!("name-resolved name={name} addresses={addresses} untold={untold}");
        }
        if known.skipped != skipped {
            for (address, reason) in skipped.iter().filter(|it| !known.skipped.contains(it)) {
                if let Some(untold) = self.skipped.turn(now) {
                    log::warn!(
                        "name-address-skipped name={name} address={address} reason={reason:?} untold={untold}"
                    );
                }
            }
            known.skipped = skipped;
        }
    }

    /// A name could not be resolved. Logged when that is new.
    fn fail(&mut self, name: &Arc<str>, error: String) {
        let now = Instant::now();
        let Some(known) = self.known.get_mut(name) else {
            return;
        };
        let (said, since) = match known.failure.take() {
            Some((said, since)) => (Some(said), since),
            None => (None, now),
        };
        if said.as_ref() != Some(&error)
            && let Some(untold) = self.unresolved.turn(now)
        {
            let kept = answer::shown(&known.addresses);
            log::warn!("name-unresolved name={name} error={error:?} kept={kept:?} untold={untold}");
        }
        known.failure = Some((error, since));
    }
}

impl Known {
    /// One that is asked for now, and has had these addresses.
    fn new(addresses: Vec<IpAddr>) -> Self {
        Self {
            addresses,
            skipped: Vec::new(),
            failure: None,
            is_answered: false,
            stage: Stage::Queued,
            retry: FIRST_RETRY,
            in_force: 0,
            read: 0,
        }
    }

    /// How many lists of that kind have it.
    fn users(&mut self, kind: UserKind) -> &mut u32 {
        match kind {
            UserKind::InForce => &mut self.in_force,
            UserKind::Read(_) => &mut self.read,
        }
    }
}

/// The names that are asked for at a time, by what is known of them. Those of a name server that is dead
/// hang, for as long as the resolver likes, and others must not wait for that.
#[derive(Debug, Default)]
struct Room {
    /// Such as could not be resolved the last time: at most 8.
    failing: usize,
    /// Such as there has been no answer for: at most 12.
    new: usize,
}

impl Room {
    const FAILING: usize = 8;
    const NEW: usize = 12;
    /// What is new may turn out to hang. The rest of [`AT_ONCE`] is for what was resolved the last time.
    const BOTH: usize = 24;

    fn is_for(&self, known: &Known) -> bool {
        let both = self.failing + self.new < Self::BOTH;
        match (&known.failure, known.is_answered) {
            (Some(_), _) => both && self.failing < Self::FAILING,
            (None, false) => both && self.new < Self::NEW,
            (None, true) => true,
        }
    }

    fn note(&mut self, known: &Known) {
        match (&known.failure, known.is_answered) {
            (Some(_), _) => self.failing += 1,
            (None, false) => self.new += 1,
            (None, true) => {}
        }
    }

    /// Notes a name if there is room for it.
    fn take(&mut self, known: &Known) -> bool {
        let is_for = self.is_for(known);
        if is_for {
            self.note(known);
        }
        is_for
    }
}

/// About as long: a thousand names of one list are not to be asked for in one moment for ever.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(fastrand::f64().mul_add(0.2, 0.9))
}

#[cfg(test)]
mod tests;
