//! Watches the keys of the lists, and hands what they hold to the publisher.
//!
//! Of the two connections, the *subscription* is told of changes (`changes` says how); the *reader* does
//! everything else. Correctness depends on the order: subscribe first, then read, so that no change
//! falls between the two. The keys are read after each (re)connection, after each announced change, and
//! at every full check, because not everything is announced (not SWAPDB, nor a replica's full resync,
//! nor, with events, FLUSHALL and FLUSHDB), and announcements are lost while disconnected. If a check
//! finds an unannounced change, that is counted as a *missed event*; from then on the keys are checked
//! as often as they would be polled, until an announcement arrives.
//!
//! A burst of changes causes few readings (`pace`), each of which sees everything that came before it. A
//! connection that has been silent for a time limit is sent a PING.
//!
//! There may be many services (`keyring`). What must be true of them:
//!
//! - *What was written at one moment comes into force at one moment*, whichever services it is about: what
//!   is published together is what the server had at one moment of its own, in one transaction. A full
//!   check reads all services in one. After an announcement only the services that it is about are read, so
//!   that a list of a million entries is not read again for each change of another one. But what was
//!   announced of the services that were left out must have been read before, or the new state of some
//!   would stand beside an old state of others. So after the reading, and before anything is published, the
//!   subscription *catches up*: everything that was announced before the reading is known then. If it is
//!   about another service, that is added, and all of them are read again; after [`MOST_ROUNDS`] of that,
//!   all services are.
//! - *No change is forgotten*: what was announced is taken note of before the keys are asked for; what is
//!   announced later stays for the next reading.
//! - *Services do not disturb each other*: a key that must not be read, or has a wrong type, affects its own
//!   list; services that have not changed are neither parsed nor published again.
//! - While anything is in doubt (the way of announcements, the server's standing, an open slot), all are
//!   read.
//!
//! `DEL` and `RPUSH`, sent one after the other, are one change to whoever sent them. So a list that is
//! found empty keeps its value until it has been empty for a moment (`settle_time`; the door decides
//! that, and what has to wait for it). Meanwhile its key is WATCHed from one reading to the next, so
//! that the server itself says whether it was touched. So a list whose key is rewritten again and again
//! is never seen empty. A transaction ends every WATCH, so each reading includes the services with such a
//! list. The server says only that some WATCHed key was touched: then half as many services are watched the
//! next time, those first whose lists were found empty first (`unsettled`), so that one that is rewritten
//! all the time holds up the others for a few readings only.
//!
//! While Redis is away, slow, loading or refuses the password, the lists in force stay. A key that must
//! not be read affects only its own list (`rights`).

mod doubts;
mod settling;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::convert::Infallible;
use std::hash::RandomState;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded, select};
use redis::{RedisError, RedisResult};

use super::accept_key::AcceptKey;
use super::changes::{AnnouncedChanges, Subscription, SubscriptionNews, Way, WayChooser};
use super::cluster::{Division, Redirection};
use super::errors::{io_error, is_too_long};
use super::keyring::{KeyOf, Keyring, KeysQuery};
use super::link::Link;
use super::once::wrong_of;
use super::open_slot::OpenSlot;
use super::pace::Pace;
use super::place::Finder;
use super::reading::{KeysReply, ServicePart};
use super::rights::Rights;
use super::salts::{SaltReply, Salts};
use super::standing::Standings;
use super::types::WrongTypes;
use super::unsettled::{KeysLook, Unsettled};
use super::watchers::{Post, Watchers};
use super::{cluster, proxies, reading};
use crate::config::{self, Address, ServiceKeys};
use crate::error::StoreFindingKind;
use crate::lists::{ByList, ListName};
use crate::store::reading::content;
use crate::store::{Cause, Fault, Feed, ServiceReading, heavy};

/// Time between two attempts to connect: from, to (doubling), and up to half of it more by chance.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Lists that are too long are read again with the next check, and after this time at the latest: that
/// they were shortened is not announced meanwhile.
const MOST_UNTRIED: Duration = Duration::from_secs(60);

/// How often lists are read again that are not taken because of the server that has them.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// A change found by a check may be announced at this moment: how long to wait for that. A busy machine
/// takes a while, and an unannounced change is late in any case.
const GRACE: Duration = Duration::from_millis(200);

/// How often some services are read to find them all at one moment; then all services are read.
const MOST_ROUNDS: usize = 3;

/// How often keys are read for one look at them: salts may be missing, too.
const MOST_TRIES: usize = 10;

/// Watches the keys in a thread of its own, until another store has its turn; the first reading has the cause
/// `why`. The first reading, or why there is none, is awaited
/// for as long as the time limit of one exchange with the server.
///
/// # Errors
/// When the thread cannot be started.
pub(crate) fn start(
    settings: config::RedisSettings,
    feed: Feed,
    why: Cause,
) -> std::io::Result<()> {
    let (first, outcome) = bounded(0);
    let patience = settings.timeout;
    let watchers = Arc::new(Watchers::default());
    let services = settings.services.clone();
    let start = WatcherStart {
        settings,
        post: watchers.post(None),
        feed,
        first: Some(first),
        connected_before: why != Cause::Start,
        finder: Finder::default(),
    };
    start.spawn(services)?;
    // Ready or not, the gateway starts: it answers 503 until there are lists.
    let _ = outcome.recv_timeout(patience);
    Ok(())
}

/// What a watcher begins with.
struct WatcherStart {
    settings: config::RedisSettings,
    post: Post,
    feed: Feed,
    first: Option<Sender<Infallible>>,
    connected_before: bool,
    finder: Finder,
}

impl WatcherStart {
    /// Watches the keys of these services in a thread of its own.
    fn spawn(self, services: Vec<ServiceKeys>) -> std::io::Result<()> {
        let keyring = Keyring::new(services);
        let mut watcher = Watcher {
            known: vec![KnownService::default(); keyring.len()],
            feed: self.feed.share(self.post.number, keyring.names()),
            keyring,
            settings: self.settings,
            post: self.post,
            first: self.first,
            connected_before: self.connected_before,
            has_read: false,
            finder: self.finder,
            chooser: WayChooser::default(),
            accept_key: AcceptKey::default(),
            rights: Rights::default(),
            salts: Salts::default(),
            salts_deaf: false,
            by_slot: false,
            open_slots: HashMap::new(),
            standings: Standings::default(),
            found: Vec::new(),
            keeps: false,
            is_adrift: false,
            owed: None,
            announced: AnnouncedChanges::default(),
            touched: BTreeSet::new(),
            gone: Vec::new(),
            types: WrongTypes::default(),
            pace: Pace::default(),
            changes_read: 0,
            waited: Duration::ZERO,
            unsettled: Vec::new(),
            unsettled_until: None,
            watch_width: usize::MAX,
            in_doubt: false,
            hasher: RandomState::new(),
            is_heavy: false,
        };
        std::thread::Builder::new()
            .name("lists-redis".to_owned())
            .spawn(move || watcher.run())?;
        Ok(())
    }
}

struct Watcher {
    settings: config::RedisSettings,
    keyring: Keyring,
    /// What is known of each service of the keyring.
    known: Vec<KnownService>,
    post: Post,
    feed: Feed,
    /// Dropped when the first attempt has ended.
    first: Option<Sender<Infallible>>,
    connected_before: bool,
    /// The keys were read since the last attempt to connect.
    has_read: bool,
    finder: Finder,
    chooser: WayChooser,
    accept_key: AcceptKey,
    rights: Rights,
    salts: Salts,
    /// It was logged that changes of a salt are not announced.
    salts_deaf: bool,
    /// The server is one of a cluster and has several slots: each is read by itself.
    by_slot: bool,
    /// By slot; one alone where that makes no difference.
    open_slots: HashMap<u16, OpenSlot>,
    standings: Standings,
    /// What was found out of the ordinary with the server.
    found: Vec<StoreFindingKind>,
    /// What was last read was not taken, because of what the server is.
    keeps: bool,
    /// The server is a replica whose link to its master is down.
    is_adrift: bool,
    /// Why the keys were read when that began.
    owed: Option<Cause>,
    /// What was announced since it was last read, as far as that was taken from the subscription.
    announced: AnnouncedChanges,
    /// The services of which something was announced before the last reading.
    touched: BTreeSet<usize>,
    /// Lists that have vanished, perhaps since keys were evicted.
    gone: Vec<(usize, ListName)>,
    types: WrongTypes,
    pace: Pace,
    /// How many changes this subscription had announced when the keys were last read.
    changes_read: u64,
    /// How long the last reading waited for an announcement, and for the addresses of names.
    waited: Duration,
    /// Lists that have become empty and are not yet believed to be; their keys are WATCHed.
    unsettled: Vec<Unsettled>,
    /// Until when others wait for them.
    unsettled_until: Option<Instant>,
    /// The keys of this many services are WATCHed at once.
    watch_width: usize,
    /// A change was not announced, and none has been since.
    in_doubt: bool,
    hasher: RandomState,
    /// The last answer was long, so the next one probably is, too.
    is_heavy: bool,
}

/// What is known of a service.
#[derive(Clone, Default)]
struct KnownService {
    /// The hash of what was last published.
    fingerprint: Option<u64>,
    /// The hashes of its lists, before anything was kept back.
    content: ByList<Option<u64>>,
    /// All that was published is in force, as far as is known: there is nothing to judge again.
    is_settled: bool,
    /// It had none of its lists when it was last read.
    is_empty: bool,
    /// The lists that had entries then.
    had: ByList<bool>,
}

/// What is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadScope {
    /// All services.
    All,
    /// Those of which a change was announced, or a list is unsettled.
    Some,
}

/// Why the keys are to be read.
enum ReadReason {
    /// A change was announced.
    Change,
    /// An unsettled list may have settled.
    Settled,
    /// The time for a full check has come.
    Check,
    /// Other services were handed over.
    Handed,
}

/// A server that is connected.
struct Server {
    reader: Link,
    way: Way,
    subscription: Subscription,
}

impl Watcher {
    fn run(&mut self) {
        let mut pause = BACKOFF.0;
        while !self.feed.is_over() {
            let mut check = Duration::ZERO;
            // Without this thread there would be no more updates, so it outlives a panic.
            match catch_unwind(AssertUnwindSafe(|| self.watch())) {
                Ok(Ok(never)) => match never {},
                Ok(Err(error)) if is_too_long(&error) => {
                    // Asking again would cost the server as much each time.
                    check = self.settings.check_interval.min(MOST_UNTRIED);
                    let fault = Fault::TooLong;
                    self.feed.failed_for(fault, self.finder.describe(&error));
                }
                Ok(Err(error)) => {
                    let error = self.explained(error);
                    self.feed.failed(self.finder.describe(&error));
                }
                Err(_) => {
                    let error = "an internal error; see the line above";
                    self.feed.failed(error);
                }
            }
            // What waits may have got lost with what was known of it.
            self.known.iter_mut().for_each(|it| it.is_settled = false);
            self.feed.set_server(None);
            self.tell_first();
            // A connection that brought lists resets the count, however soon it was lost.
            if std::mem::take(&mut self.has_read) {
                pause = BACKOFF.0;
            }
            let jittered = pause.mul_f64(1.0 + fastrand::f64() / 2.0);
            // Lists that take long to read should not be read continuously.
            let spared = self.pace.left(Instant::now()).max(check);
            self.feed.sleep(jittered.max(spared));
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// The error that ended the last attempt, with what can be found out about it.
    fn explained(&self, error: RedisError) -> RedisError {
        let error = cluster::explained(error, &self.keyring);
        match self.has_read {
            true => error,
            false => proxies::explained(error, &self.finder, &self.settings),
        }
    }

    fn tell_first(&mut self) {
        self.first = None;
    }

    /// Connects and follows the keys until something fails.
    fn watch(&mut self) -> RedisResult<Infallible> {
        let mut server = self.connect()?;
        let mut cause = match self.connected_before {
            true => Cause::Reconnect,
            false => Cause::Start,
        };
        loop {
            self.feed.set_mode(server.way.mode());
            let checked = Instant::now();
            self.refresh_wherever(&mut server, ReadScope::All, cause)?;
            (self.connected_before, self.has_read) = (true, true);
            self.tell_first();
            // Until the next full check, which events do not put off, however many there are.
            loop {
                match self.wait(&mut server, checked)? {
                    ReadReason::Change => cause = Cause::Event,
                    // Another reading, for the same reason as the first.
                    ReadReason::Settled => {}
                    ReadReason::Check => break,
                    ReadReason::Handed => {
                        let reader = server.reader.another(&self.settings)?;
                        server = self.arrive_with_all(reader)?;
                        self.feed.set_mode(server.way.mode());
                        self.refresh_wherever(&mut server, ReadScope::All, Cause::Reconnect)?;
                        continue;
                    }
                }
                let scope = self.scope(&server);
                self.refresh_wherever(&mut server, scope, cause)?;
            }
            self.finder.check(&mut server.reader, &self.settings)?;
            if let Some(to) = server.reader.moved_to() {
                let from = server.reader.place();
                log::info!("redis-moved from={from:?} to={:?}", to.to_string());
                server = self.connect()?;
                cause = Cause::Reconnect;
                continue;
            }
            self.check_way(&mut server)?;
            // A refusal ends the WATCH of an unsettled list, which then would never settle.
            if self.unsettled.is_empty() {
                self.rights.try_again();
            }
            cause = Cause::Check;
        }
    }

    fn connect(&mut self) -> RedisResult<Server> {
        self.take_handed();
        let mut division = Division::default();
        let (settings, keyring) = (&self.settings, &self.keyring);
        let outcome = self.finder.open_at_lists(settings, keyring, &mut division);
        self.part_with(division.elsewhere);
        self.arrive(outcome?)
    }

    /// Has `reader` find the server that has the services of this watcher, also those handed over; what
    /// others have is handed on.
    fn arrive_with_all(&mut self, mut reader: Link) -> RedisResult<Server> {
        self.take_handed();
        let mut division = Division::default();
        let outcome = cluster::settle(&mut reader, &self.settings, &self.keyring, &mut division);
        self.part_with(division.elsewhere);
        outcome?;
        self.arrive(reader)
    }

    /// Takes the services that were handed over.
    fn take_handed(&mut self) {
        let handed = self.post.take();
        if !handed.is_empty() {
            let mut services = self.keyring.services().to_vec();
            services.extend(handed);
            self.regroup(services);
        }
    }

    /// Hands on what is at other servers.
    fn part_with(&mut self, elsewhere: Vec<(Option<Address>, Vec<usize>)>) {
        if elsewhere.is_empty() {
            return;
        }
        let gone: HashSet<usize> = elsewhere.iter().flat_map(|it| &it.1).copied().collect();
        let services = self.keyring.services();
        let keys = |places: &[usize]| -> Vec<ServiceKeys> {
            places.iter().map(|it| services[*it].clone()).collect()
        };
        for (server, places) in elsewhere {
            let begin = |post: Post, services: Vec<ServiceKeys>| {
                let start = WatcherStart {
                    settings: self.settings.clone(),
                    post,
                    feed: self.feed.share(self.post.number, self.keyring.names()),
                    first: self.first.clone(),
                    connected_before: self.connected_before,
                    finder: self.finder.another(),
                };
                start.spawn(services)
            };
            if let Err(error) = self.post.hand_on(server, keys(&places), begin) {
                self.feed.failed(error);
            }
        }
        let kept = services.iter().enumerate();
        let kept = kept.filter(|(at, _)| !gone.contains(at));
        self.regroup(kept.map(|(_, it)| it.clone()).collect());
    }

    /// From now on these services are read here.
    fn regroup(&mut self, services: Vec<ServiceKeys>) {
        let keyring = Keyring::new(services);
        let known = keyring.names().into_iter().map(|name| {
            let before = self.keyring.place(&name);
            before.map_or_else(KnownService::default, |at| self.known[at].clone())
        });
        self.known = known.collect();
        self.feed = self.feed.share(self.post.number, keyring.names());
        self.keyring = keyring;
        // What else was known of them is found out again.
        (self.rights, self.salts) = (Rights::default(), Salts::default());
        (self.types, self.announced) = (WrongTypes::default(), AnnouncedChanges::default());
        self.gone.clear();
        self.unsettled.clear();
        self.open_slots.clear();
    }

    /// Learns about a newly connected server, and makes it announce changes.
    fn arrive(&mut self, mut reader: Link) -> RedisResult<Server> {
        self.standings.meet(&mut reader)?;
        let (way, subscription) =
            self.chooser
                .choose(&mut reader, &self.settings, &self.keyring)?;
        self.feed.set_server(reader.peer());
        // WATCH and announcements belong to a connection.
        self.unsettled.clear();
        self.announced = AnnouncedChanges::default();
        self.salts.meet();
        self.by_slot = false;
        self.post.set_server(reader.address());
        self.waited = Duration::ZERO;
        self.changes_read = 0;
        self.in_doubt = false;
        self.rights.try_again();
        Ok(Server {
            reader,
            way,
            subscription,
        })
    }

    /// As [`Self::refresh`], where a cluster may have given the keys to another server.
    fn refresh_wherever(
        &mut self,
        server: &mut Server,
        scope: ReadScope,
        cause: Cause,
    ) -> RedisResult<()> {
        match self.refresh(server, scope, cause) {
            Err(error) if Redirection::of(&error).is_some_and(|it| !it.is_asking()) => {}
            outcome => return outcome,
        }
        let reader = server.reader.another(&self.settings)?;
        let from = server.reader.place();
        *server = self.arrive_with_all(reader)?;
        let to = server.reader.place();
        if from != to {
            log::info!("redis-moved from={from:?} to={to:?}");
        }
        self.feed.set_mode(server.way.mode());
        self.refresh(server, ReadScope::All, Cause::Reconnect)
    }

    /// Makes sure that changes are still announced.
    fn check_way(&mut self, server: &mut Server) -> RedisResult<()> {
        let (settings, reader) = (&self.settings, &mut server.reader);
        match self.chooser.check(server.way, reader, settings)? {
            Some(way) => server.way = way,
            None => {
                let chosen = self.chooser.choose(reader, settings, &self.keyring)?;
                (server.way, server.subscription) = chosen;
                self.changes_read = 0;
            }
        }
        Ok(())
    }

    /// Waits for a reason to read the keys. The last full check was at `checked`.
    fn wait(&mut self, server: &mut Server, checked: Instant) -> RedisResult<ReadReason> {
        let is_sure = !self.in_doubt && !self.is_adrift && !self.is_slot_open();
        let interval = match server.way {
            _ if self.keeps => LOOK_AGAIN.min(self.settings.check_interval),
            Way::Events | Way::Tracking if is_sure => self.settings.check_interval,
            Way::Events | Way::Tracking => {
                let settings = &self.settings;
                settings.check_interval.min(settings.poll_interval)
            }
            Way::Unsure | Way::Poll => self.settings.poll_interval,
        };
        loop {
            let news = &server.subscription.news;
            let check = checked + interval;
            let settled = self.settled_at();
            let until = settled.map_or(check, |it| it.min(check));
            let silent = server.reader.last_reply() + self.settings.timeout;
            let now = Instant::now();
            let told = select! {
                recv(news) -> told => told.map_err(|_| RecvTimeoutError::Disconnected),
                recv(self.post.bell) -> _ => return Ok(ReadReason::Handed),
                recv(self.feed.over()) -> _ => return Err(io_error("another store has its turn")),
                default(until.min(silent).saturating_duration_since(now)) =>
                    Err(RecvTimeoutError::Timeout),
            };
            match told {
                Ok(SubscriptionNews::Change) => {
                    std::thread::sleep(self.pace.left(Instant::now()));
                    // The reading will see what these announced.
                    if let Some(SubscriptionNews::Lost(error)) = news.try_iter().last() {
                        return Err(error);
                    }
                    self.in_doubt = false;
                    // If something is announced all the time, the rest must be looked at nevertheless.
                    return Ok(match Instant::now() >= check {
                        true => ReadReason::Check,
                        false => ReadReason::Change,
                    });
                }
                Ok(SubscriptionNews::Lost(error)) => return Err(error),
                Err(RecvTimeoutError::Disconnected) => return Err(io_error("subscription ended")),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = Instant::now();
            if now >= check {
                return Ok(ReadReason::Check);
            }
            if settled.is_some_and(|it| now >= it) {
                return Ok(ReadReason::Settled);
            }
            if now >= silent {
                match server.reader.ask(&redis::cmd("PING")) {
                    // A refusal is a sign of life, too.
                    Err(error) if error.code().is_none() => return Err(error),
                    _ => {}
                }
            }
        }
    }

    /// What is to be read before the next check.
    fn scope(&self, server: &Server) -> ReadScope {
        let is_told = matches!(server.way, Way::Events | Way::Tracking);
        let is_doubtful = self.in_doubt || self.is_adrift || self.keeps || self.is_slot_open();
        match is_told && !is_doubtful && self.keyring.len() > 1 {
            true => ReadScope::Some,
            false => ReadScope::All,
        }
    }

    /// Reads the keys and publishes what they hold.
    fn refresh(&mut self, server: &mut Server, scope: ReadScope, cause: Cause) -> RedisResult<()> {
        match self.is_heavy {
            true => heavy::run(|| self.read_and_publish(server, scope, cause))?,
            false => self.read_and_publish(server, scope, cause),
        }
    }

    fn read_and_publish(
        &mut self,
        server: &mut Server,
        scope: ReadScope,
        cause: Cause,
    ) -> RedisResult<()> {
        let began = Instant::now();
        let announced = server.subscription.changes();
        let services = self.services_to_read(server, scope);
        if services.is_empty() {
            // An earlier reading has seen it already.
            self.changes_read = announced;
            return Ok(());
        }
        let watched = std::mem::take(&mut self.unsettled);
        let announced_before = std::mem::take(&mut self.touched);
        let (answers, look) = self.read_at_one_moment(server, services)?;
        let kept = self.keeps;
        let Some(cause) = self.cause_if_taken(&answers, server, cause)? else {
            self.pace.note(began, Instant::now(), 1);
            return Ok(());
        };
        self.narrow_or_widen(&watched, look.untouched);
        let mut look = look;
        // Nothing is WATCHed then.
        if self.by_slot {
            look.touched.extend(announced_before);
        }
        let look = KeysLook {
            began,
            cause,
            announced,
            watched,
            ..look
        };
        self.is_heavy = answers.iter().any(|it| it.may_have(heavy::HEAVY));
        self.take_in(&answers, look, server)?;
        self.accept_by_key(&mut server.reader)?;
        self.watch_unsettled(&mut server.reader, began)?;
        // AnnouncedChanges changes do not wait for any of this: the removal of a list is in force by now.
        let is_gone = !self.gone.is_empty() && self.unsettled.is_empty();
        if cause != Cause::Event || kept || is_gone {
            self.note_evictions(server)?;
        }
        let changes = announced.saturating_sub(self.changes_read);
        // The time spent waiting for an announcement, or for a name, cost nobody anything.
        let began = began + std::mem::take(&mut self.waited);
        self.pace.note(began, Instant::now(), changes);
        self.changes_read = announced;
        Ok(())
    }

    /// The services to read, in order: at least those of which something was announced, or is unsettled.
    fn services_to_read(&mut self, server: &Server, scope: ReadScope) -> Vec<usize> {
        let mut announced = std::mem::take(&mut self.announced);
        announced.add(server.subscription.take_announced());
        self.touched.clone_from(&announced.services);
        if scope == ReadScope::All || announced.all {
            return self.keyring.all();
        }
        let unsettled = self.unsettled.iter().map(|it| it.service);
        announced.services.extend(unsettled);
        announced.services.into_iter().collect()
    }

    /// Reads these services, and others as far as they may have changed with them, at one moment; and the
    /// salts that are needed.
    fn read_at_one_moment(
        &mut self,
        server: &mut Server,
        mut services: Vec<usize>,
    ) -> RedisResult<(Vec<KeysReply>, KeysLook)> {
        let mut look = KeysLook::new();
        for round in 1..=MOST_TRIES {
            if self.by_slot {
                services = self.keyring.with_their_slots(&services);
            }
            let (answers, untouched) = self.ask(server, &services)?;
            look.untouched &= untouched;
            if self
                .salts
                .are_missing(answers.iter().flat_map(KeysReply::bytes), &self.keyring)
            {
                continue;
            }
            look.salts = self.salts.read_elsewhere(
                &mut server.reader,
                &self.settings,
                (&self.keyring, &services),
                &mut self.rights,
            )?;
            // What is in several slots cannot have been written at one moment.
            if services.len() == self.keyring.len() || self.by_slot {
                return Ok((answers, look));
            }
            server.subscription.catch_up(self.settings.timeout)?;
            let since = server.subscription.take_announced();
            let is_whole = !since.all && since.services.iter().all(|it| services.contains(it));
            // The services that were read may have been touched before the reading, or after it.
            look.touched.extend(&since.services);
            if is_whole {
                self.announced.add(since);
                return Ok((answers, look));
            }
            let mut others: BTreeSet<usize> = services.into_iter().collect();
            others.extend(since.services);
            services = match since.all || round >= MOST_ROUNDS {
                true => self.keyring.all(),
                false => others.into_iter().collect(),
            };
        }
        Err(io_error("the lists do not stop changing"))
    }

    /// Asks for these services: in one transaction, or in one for each slot of a cluster. Also returns
    /// whether WATCHed keys were untouched before.
    fn ask(
        &mut self,
        server: &mut Server,
        services: &[usize],
    ) -> RedisResult<(Vec<KeysReply>, bool)> {
        if !self.by_slot {
            match self.ask_slot(server, services, 0) {
                Err(error) if error.code() == Some("CROSSSLOT") && self.keyring.len() > 1 => {
                    self.by_slot = true;
                }
                outcome => return outcome.map(|(answer, untouched)| (vec![answer], untouched)),
            }
        }
        let mut answers = Vec::new();
        for (slot, services) in self.keyring.by_slot(services) {
            answers.push(self.ask_slot(server, &services, slot)?.0);
        }
        Ok((answers, true))
    }

    fn ask_slot(
        &mut self,
        server: &mut Server,
        services: &[usize],
        slot: u16,
    ) -> RedisResult<(KeysReply, bool)> {
        let query = KeysQuery {
            settings: &self.settings,
            keyring: &self.keyring,
            services,
        };
        let (rights, salts) = (&mut self.rights, &mut self.salts);
        let question = &mut self.standings.question;
        let slot = self.open_slots.entry(slot).or_default();
        reading::ask(&mut server.reader, slot, &query, (rights, salts), question)
    }

    /// The slot of some services is being migrated.
    fn is_slot_open(&self) -> bool {
        self.open_slots.values().any(OpenSlot::is_open)
    }

    /// Publishes what was read. Most checks find nothing new: then a million entries need not be parsed
    /// again.
    fn take_in(
        &mut self,
        answers: &[KeysReply],
        look: KeysLook,
        server: &mut Server,
    ) -> RedisResult<()> {
        let parts = answers.iter().flat_map(KeysReply::parts);
        let parts = parts.map(|part| {
            let print = part.fingerprint(look.salts.get(&part.service), &self.hasher);
            (part, Some(print))
        });
        let parts: Vec<_> = parts.collect();
        let is_new = |(part, print): &(ServicePart<'_>, Option<u64>)| {
            self.known[part.service].fingerprint != *print
        };
        if !parts.iter().any(is_new) && self.feed.confirm(look.cause) {
            for (part, _) in &parts {
                self.known[part.service].is_settled = true;
            }
            return Ok(());
        }
        let needs_a_look = |it: &(ServicePart<'_>, Option<u64>)| {
            is_new(it) || !self.known[it.0.service].is_settled
        };
        let are_looked_at: Vec<bool> = parts.iter().map(needs_a_look).collect();
        // What is not known to be settled may be so of any of them.
        let all = !are_looked_at.contains(&true);
        let (mut read, mut wrong, mut changed) = (Vec::new(), Vec::new(), Vec::new());
        let mut readings = Vec::new();
        for ((part, print), is_looked_at) in parts.into_iter().zip(are_looked_at) {
            let service = part.service;
            if !is_looked_at && !all {
                continue;
            }
            let known = &self.known[service];
            let (lists, salt) = part.reading(&self.keyring)?;
            let content = content(&lists, &self.hasher);
            // A list that can be read only now, or no longer, has not changed.
            let mut both = content
                .iter()
                .filter_map(|(list, now)| now.zip(known.content[list]));
            if both.any(|(now, before)| now != before) {
                changed.push(service);
            }
            read.push(service);
            wrong.extend(wrong_of(service, &lists));
            let salt = self.salt_of(service, salt, look.salts.get(&service), &mut wrong)?;
            self.see_what_is_gone(service, &lists);
            let known = &mut self.known[service];
            known.is_settled = false;
            (known.fingerprint, known.content) = (print, content);
            let keys = &self.keyring.services()[service];
            readings.push(ServiceReading {
                service: keys.service.clone(),
                lists,
                gray_of: keys.gray_of.clone(),
                salt,
                empty_for: ByList::from_fn(|list| look.empty_for(service, list)),
            });
        }
        self.types
            .tell(&mut server.reader, &self.keyring, &read, &wrong)?;
        self.tell_deaf_salts(server);
        // Only some of the changes of an open slot are announced.
        let is_announced =
            matches!(server.way, Way::Events | Way::Tracking) && !self.is_slot_open();
        let is_found = look.cause == Cause::Check && is_announced && !changed.is_empty();
        let cause = match is_found {
            true => self.cause_of_check(server, look.announced),
            false => look.cause,
        };
        let awaited = self.feed.publish_watched(readings, cause);
        self.waited += awaited.names;
        let emptied = awaited.emptied.into_iter();
        let emptied = emptied.filter_map(|(service, list)| {
            let service = self.keyring.place(&service)?;
            Some(look.unsettled(service, list))
        });
        self.unsettled = emptied.collect();
        self.unsettled_until = awaited.until;
        if is_found && cause == Cause::Check {
            self.feed.missed_event();
            self.in_doubt = true;
        }
        Ok(())
    }

    /// The salt of a service, of which the server has said this `here`, with its lists, or `elsewhere`.
    fn salt_of(
        &mut self,
        service: usize,
        here: Option<RedisResult<SaltReply>>,
        elsewhere: Option<&SaltReply>,
        wrong: &mut Vec<KeyOf>,
    ) -> RedisResult<Option<Vec<u8>>> {
        let of = KeyOf::salt(service);
        let reply = match here {
            Some(Err(error)) if error.code().is_some() => {
                self.rights.refused(of, &self.keyring, &error);
                None
            }
            Some(reply) => Some(reply?),
            None => elsewhere.cloned(),
        };
        if matches!(reply, Some(SaltReply::WrongType)) {
            wrong.push(of);
        }
        Ok(self.salts.take(service, reply, &self.keyring))
    }

    /// Says once that a salt is in use whose changes are not announced: then they are found by a check.
    fn tell_deaf_salts(&mut self, server: &Server) {
        let mut wanted = self.salts.wanted().map(KeyOf::salt);
        let deaf = wanted.find(|it| server.subscription.deaf.contains(it));
        if let Some(of) = deaf
            && !std::mem::replace(&mut self.salts_deaf, true)
        {
            let (key, service) = (self.keyring.key(of), self.keyring.service_field(of.service));
            log::warn!("salt-events-refused key={key:?}{service}");
        }
    }

    /// Lets in held changes that the accept key names.
    fn accept_by_key(&mut self, reader: &mut Link) -> RedisResult<()> {
        if !self.feed.holds() {
            return Ok(());
        }
        for digest in self.accept_key.read(reader, &self.settings)? {
            self.feed.accept(&digest);
        }
        Ok(())
    }

    /// A change that comes just before a check, or with it, is announced a moment later.
    fn cause_of_check(&mut self, server: &Server, announced: u64) -> Cause {
        let begun = Instant::now();
        let until = begun + GRACE;
        let mut heard = announced > self.changes_read;
        while !heard && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
            heard = server.subscription.changes() > announced;
        }
        self.waited += begun.elapsed();
        if heard { Cause::Event } else { Cause::Check }
    }
}
