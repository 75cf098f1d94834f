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
//!   about another service, that is added, and all of them are read again; after a few rounds of that,
//!   all services are.
//! - *What is known of a release is read alone* where nothing else was announced (`alone`): lists are long.
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

mod alone;
mod doubts;
mod grouping;
mod look;
mod releases;
mod settling;
mod taking;

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
use super::errors::{io_error, is_too_long};
use super::extras::Extras;
use super::keyring::{KeyOf, KeyPart, Keyring};
use super::last_change::LastChange;
use super::link::Link;
use super::open_slot::OpenSlot;
use super::origin::TakenFrom;
use super::pace::Pace;
use super::place::Finder;
use super::rights::{MOST_UNTRIED, Rights};
use super::standing::Standings;
use super::types::WrongTypes;
use super::unsettled::Unsettled;
use super::watchers::{Handovers, Post, Watchers};
use super::{cluster, proxies};
use crate::config::{self, ServiceKeys};
use crate::error::StoreFindingKind;
use crate::lists::ByList;
use crate::store::reading::FrozenLists;
use crate::store::{Cause, Fault, Feed, ReleaseReading, heavy};

/// Time between two attempts to connect: from, to (doubling), and up to half of it more by chance.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How many services an error names.
const MOST_NAMED: usize = 5;

/// How often lists are read again that are not taken because of the server that has them; and how soon, where
/// it has other data than before.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

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
            last_change: LastChange::default(),
            rights: Rights::default(),
            extras: Extras::default(),
            are_deaf: HashSet::new(),
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
            handed: Handovers::default(),
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
    last_change: LastChange,
    rights: Rights,
    extras: Extras,
    /// Of which keys it was logged that their changes are not announced.
    are_deaf: HashSet<KeyPart>,
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
    /// Keys that have vanished, perhaps since they were evicted.
    gone: Vec<KeyOf>,
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
    handed: Handovers,
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
    /// It had none of its lists when it was last read.
    is_empty: bool,
    /// The lists that had entries then.
    had: ByList<bool>,
    /// It was asked for its salt then, and had one.
    had_salt: bool,
    /// What was last told of its release.
    release: Option<ReleaseReading>,
    /// Somebody has frozen its lists.
    frozen: Option<FrozenLists>,
    /// Whose data its lists were taken from.
    taken: TakenFrom,
    /// It had none of its lists when it was last read, since the server has other data: they are kept.
    is_lost: bool,
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
                // All but one list can be read at once, on another connection.
                Ok(Err(error)) if is_too_long(&error) && self.rights.take_left_out() => continue,
                Ok(Err(error)) if is_too_long(&error) => {
                    // Asking again would cost the server as much each time.
                    check = self.settings.check_interval.min(MOST_UNTRIED);
                    let fault = Fault::TooLong;
                    let error = self.of_whom(self.finder.describe(&error));
                    self.feed.failed_for(fault, error);
                }
                Ok(Err(error)) => {
                    let error = self.explained(error);
                    let error = self.of_whom(self.finder.describe(&error));
                    self.feed.failed(error);
                }
                Err(_) => {
                    let error = "an internal error; see the line above";
                    self.feed.failed(error);
                }
            }
            if self.has_all() {
                self.feed.set_server(None);
            }
            self.tell_first();
            // A connection that brought lists resets the count, however soon it was lost.
            if std::mem::take(&mut self.has_read) {
                pause = BACKOFF.0;
            }
            let jittered = pause.mul_f64(1.0 + fastrand::f64() / 2.0);
            // Lists that take long to read should not be read continuously.
            let spared = self.pace.left(Instant::now()).max(check);
            self.feed.sleep(jittered);
            self.rest(spared.saturating_sub(jittered));
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// Waits, but neither beyond the end of the turn, nor with services that were handed over.
    fn rest(&self, pause: Duration) {
        select! {
            recv(self.feed.over()) -> _ => {}
            recv(self.post.bell) -> _ => {}
            default(pause) => {}
        }
    }

    /// There is no other watcher.
    fn has_all(&self) -> bool {
        self.keyring.len() >= self.settings.services.len()
    }

    /// An error with the services that it is about, unless it is about all.
    fn of_whom(&self, error: String) -> String {
        if self.has_all() {
            return error;
        }
        let names = self.keyring.services().iter().map(|it| it.service.as_str());
        let mut names: Vec<&str> = names.take(MOST_NAMED + 1).collect();
        if names.len() > MOST_NAMED {
            names[MOST_NAMED] = "others";
        }
        format!("{error} (the lists of {})", names.join(", "))
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
                        let pause = self.handed.pause(Instant::now());
                        self.feed.sleep(pause);
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
            _ if self.keeps || self.standings.seen.is_replaced => {
                LOOK_AGAIN.min(self.settings.check_interval)
            }
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
            let check = self.rights.again_at().map_or(check, |it| it.min(check));
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

    /// Changes are announced, and nothing is in doubt.
    fn is_sure(&self, server: &Server) -> bool {
        let is_told = matches!(server.way, Way::Events | Way::Tracking);
        let is_doubtful = self.in_doubt || self.is_adrift || self.keeps || self.is_slot_open();
        is_told && !is_doubtful && !self.standings.seen.is_replaced
    }

    /// What is to be read before the next check.
    fn scope(&self, server: &Server) -> ReadScope {
        match self.is_sure(server) && self.keyring.len() > 1 {
            true => ReadScope::Some,
            false => ReadScope::All,
        }
    }

    /// Reads the keys and publishes what they hold.
    fn refresh(&mut self, server: &mut Server, scope: ReadScope, cause: Cause) -> RedisResult<()> {
        if cause == Cause::Event && self.read_releases_alone(server)? {
            return Ok(());
        }
        match self.is_heavy {
            true => heavy::run(|| self.read_and_publish(server, scope, cause))?,
            false => self.read_and_publish(server, scope, cause),
        }
    }
}
