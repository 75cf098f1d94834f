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
//! `DEL` and `RPUSH`, sent one after the other, are one change to whoever sent them. So a list that is
//! found empty keeps its value until it has been empty for a moment (`settle_time`; the door decides
//! that, and what has to wait for it). Meanwhile its key is WATCHed from one reading to the next, so
//! that the server itself says whether it was touched. So a list whose key is rewritten again and again
//! is never seen empty.
//!
//! While Redis is away, slow, loading or refuses the password, the lists in force stay. A key that must
//! not be read affects only its own list (`rights`).

mod doubts;

use std::convert::Infallible;
use std::hash::RandomState;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded, select};
use redis::{RedisError, RedisResult};

use super::accept_key::AcceptKey;
use super::changes::{Subscription, SubscriptionNews, Way, WayChooser};
use super::cluster::Redirection;
use super::errors::{io_error, is_too_long};
use super::link::Link;
use super::open_slot::OpenSlot;
use super::pace::Pace;
use super::place::Finder;
use super::reading::KeysReply;
use super::rights::Rights;
use super::standing::Standings;
use super::types::WrongTypes;
use super::{cluster, proxies, reading};
use crate::config;
use crate::lists::{ByList, ListName};
use crate::store::gate::door::settle_time;
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
    let (first, outcome) = bounded(1);
    let patience = settings.timeout;
    let mut watcher = Watcher {
        settings,
        feed,
        first: Some(first),
        connected_before: why != Cause::Start,
        has_read: false,
        finder: Finder::default(),
        chooser: WayChooser::default(),
        accept_key: AcceptKey::default(),
        rights: Rights::default(),
        open_slot: OpenSlot::default(),
        standings: Standings::default(),
        keeps: false,
        is_adrift: false,
        owed: None,
        had: ByList::default(),
        gone: Vec::new(),
        types: WrongTypes::default(),
        pace: Pace::default(),
        changes_read: 0,
        waited: Duration::ZERO,
        unsettled: Vec::new(),
        unsettled_until: None,
        in_doubt: false,
        hasher: RandomState::new(),
        is_heavy: false,
        fingerprint: None,
        content: ByList::default(),
    };
    std::thread::Builder::new()
        .name("lists-redis".to_owned())
        .spawn(move || watcher.run())?;
    // Ready or not, the gateway starts: it answers 503 until there are lists.
    let _ = outcome.recv_timeout(patience);
    Ok(())
}

struct Watcher {
    settings: config::RedisSettings,
    feed: Feed,
    /// Signalled once, when the first attempt has ended.
    first: Option<Sender<()>>,
    connected_before: bool,
    /// The keys were read since the last attempt to connect.
    has_read: bool,
    finder: Finder,
    chooser: WayChooser,
    accept_key: AcceptKey,
    rights: Rights,
    open_slot: OpenSlot,
    standings: Standings,
    /// What was last read was not taken, because of what the server is.
    keeps: bool,
    /// The server is a replica whose link to its master is down.
    is_adrift: bool,
    /// Why the keys were read when that began.
    owed: Option<Cause>,
    /// The lists that had entries when they were last read.
    had: ByList<bool>,
    /// Those that have vanished, perhaps since keys were evicted.
    gone: Vec<ListName>,
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
    /// A change was not announced, and none has been since.
    in_doubt: bool,
    hasher: RandomState,
    /// The last answer was long, so the next one probably is, too.
    is_heavy: bool,
    /// The hash of the answer that was last published.
    fingerprint: Option<u64>,
    /// The hashes of its lists, before anything was kept back.
    content: ByList<Option<u64>>,
}

/// A list that has become empty.
#[derive(Clone, Copy)]
struct Unsettled {
    list: ListName,
    /// When it was first found empty, and untouched since.
    since: Instant,
}

/// What is known of one reading of the keys.
struct KeysLook {
    /// When the keys were asked for.
    began: Instant,
    cause: Cause,
    /// How many changes had been announced before.
    announced: u64,
    /// Lists whose keys were WATCHed until then.
    watched: Vec<Unsettled>,
    /// None of these keys was touched.
    untouched: bool,
}

impl KeysLook {
    /// A list that is found empty, and was watched if it had been before.
    fn unsettled(&self, list: ListName) -> Unsettled {
        let mut watched = self.watched.iter().filter(|_| self.untouched);
        let before = watched.find(|it| it.list == list);
        let now = || Unsettled {
            list,
            since: Instant::now(),
        };
        before.copied().unwrap_or_else(now)
    }

    /// For how long this list has been empty, if it is. Counts only the time during which its key was
    /// watched, whatever has delayed this thread since.
    fn empty_for(&self, list: ListName) -> Duration {
        let since = self.unsettled(list).since;
        self.began.saturating_duration_since(since)
    }
}

/// Why the keys are to be read.
enum ReadReason {
    /// A change was announced.
    Change,
    /// An unsettled list may have settled.
    Settled,
    /// The time for a full check has come.
    Check,
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
        let error = cluster::explained(error, &self.settings.keys);
        match self.has_read {
            true => error,
            false => proxies::explained(error, &self.finder, &self.settings),
        }
    }

    fn tell_first(&mut self) {
        if let Some(first) = self.first.take() {
            let _ = first.try_send(());
        }
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
            self.refresh_wherever(&mut server, cause)?;
            (self.connected_before, self.has_read) = (true, true);
            self.tell_first();
            // Until the next full check, which events do not put off, however many there are.
            loop {
                match self.wait(&mut server, checked)? {
                    ReadReason::Change => cause = Cause::Event,
                    // Another reading, for the same reason as the first.
                    ReadReason::Settled => {}
                    ReadReason::Check => break,
                }
                self.refresh_wherever(&mut server, cause)?;
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
        let reader = self.finder.open_at_lists(&self.settings)?;
        self.arrive(reader)
    }

    /// Learns about a newly connected server, and makes it announce changes.
    fn arrive(&mut self, mut reader: Link) -> RedisResult<Server> {
        self.standings.meet(&mut reader)?;
        let (way, subscription) = self.chooser.choose(&mut reader, &self.settings)?;
        self.feed.set_server(reader.peer());
        // WATCH and announcements belong to a connection.
        self.unsettled.clear();
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
    fn refresh_wherever(&mut self, server: &mut Server, cause: Cause) -> RedisResult<()> {
        match self.refresh(server, cause) {
            Err(error) if Redirection::of(&error).is_some_and(|it| !it.is_asking()) => {}
            outcome => return outcome,
        }
        let mut reader = server.reader.another(&self.settings)?;
        cluster::locate(&mut reader, &self.settings)?;
        let (from, to) = (server.reader.place(), reader.place());
        log::info!("redis-moved from={from:?} to={to:?}");
        *server = self.arrive(reader)?;
        self.feed.set_mode(server.way.mode());
        self.refresh(server, Cause::Reconnect)
    }

    /// Makes sure that changes are still announced.
    fn check_way(&mut self, server: &mut Server) -> RedisResult<()> {
        let (settings, reader) = (&self.settings, &mut server.reader);
        match self.chooser.check(server.way, reader, settings)? {
            Some(way) => server.way = way,
            None => {
                let chosen = self.chooser.choose(reader, settings)?;
                (server.way, server.subscription) = chosen;
                self.changes_read = 0;
            }
        }
        Ok(())
    }

    /// Waits for a reason to read the keys. The last full check was at `checked`.
    fn wait(&mut self, server: &mut Server, checked: Instant) -> RedisResult<ReadReason> {
        let is_sure = !self.in_doubt && !self.is_adrift && !self.open_slot.is_open();
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

    /// When an unsettled list may have settled, if there is one, or nothing waits for it any longer.
    fn settled_at(&self) -> Option<Instant> {
        let ends = self.unsettled.iter();
        let ends = ends.map(|it| it.since + settle_time(it.list));
        let least = ends.min()?;
        let least = self.unsettled_until.map_or(least, |it| it.min(least));
        let now = Instant::now();
        Some(least.max(now + self.pace.left(now)))
    }

    /// Reads the keys and publishes what they hold.
    fn refresh(&mut self, server: &mut Server, cause: Cause) -> RedisResult<()> {
        match self.is_heavy {
            true => heavy::run(|| self.read_and_publish(server, cause))?,
            false => self.read_and_publish(server, cause),
        }
    }

    fn read_and_publish(&mut self, server: &mut Server, cause: Cause) -> RedisResult<()> {
        let began = Instant::now();
        let announced = server.subscription.changes();
        let watched = std::mem::take(&mut self.unsettled);
        let (rights, question) = (&mut self.rights, &mut self.standings.question);
        let (slot, settings) = (&mut self.open_slot, &self.settings);
        let (answer, untouched) =
            reading::ask(&mut server.reader, slot, settings, rights, question)?;
        let kept = self.keeps;
        let Some(cause) = self.cause_if_taken(&answer, server, cause)? else {
            self.pace.note(began, Instant::now(), 1);
            return Ok(());
        };
        let look = KeysLook {
            began,
            cause,
            announced,
            watched,
            untouched,
        };
        self.is_heavy = answer.may_have(heavy::HEAVY);
        self.take_in(answer, look, server)?;
        self.accept_by_key(&mut server.reader)?;
        self.watch_unsettled(&mut server.reader, began)?;
        // Announced changes do not wait for any of this: the removal of a list is in force by now.
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

    /// Publishes what was read. Most checks find nothing new: then a million entries need not be parsed
    /// again.
    fn take_in(
        &mut self,
        answer: KeysReply,
        look: KeysLook,
        server: &mut Server,
    ) -> RedisResult<()> {
        let fingerprint = Some(answer.fingerprint(&self.hasher));
        if fingerprint == self.fingerprint && self.feed.confirm(look.cause) {
            return Ok(());
        }
        let reading = answer.reading()?;
        let keys = &self.settings.keys;
        self.types.tell(&mut server.reader, keys, &reading)?;
        self.see_what_is_gone(&reading);
        let content = content(&reading, &self.hasher);
        // A list that can be read only now, or no longer, has not changed.
        let mut both = content
            .iter()
            .filter_map(|(list, now)| now.zip(self.content[list]));
        let is_other = both.any(|(now, before)| now != before);
        // Only some of the changes of an open slot are announced.
        let is_announced =
            matches!(server.way, Way::Events | Way::Tracking) && !self.open_slot.is_open();
        let is_found = look.cause == Cause::Check && is_announced && is_other;
        let cause = match is_found {
            true => self.cause_of_check(server, look.announced),
            false => look.cause,
        };
        let empty_for = ByList::from_fn(|list| look.empty_for(list));
        let reading = ServiceReading {
            empty_for,
            ..ServiceReading::settled(reading)
        };
        let awaited = self.feed.publish_watched(vec![reading], cause);
        self.waited += awaited.names;
        let emptied = awaited.emptied.into_iter();
        self.unsettled = emptied.map(|(_, it)| look.unsettled(it)).collect();
        self.unsettled_until = awaited.until;
        if is_found && cause == Cause::Check {
            self.feed.missed_event();
            self.in_doubt = true;
        }
        (self.fingerprint, self.content) = (fingerprint, content);
        Ok(())
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

    /// Makes the next transaction fail if an unsettled list's key is touched until then. An emptied
    /// `gray` is a rollback, which nobody who touches other keys may hold up: it is watched alone, and
    /// the others, as if they had been touched, begin anew.
    fn watch_unsettled(&mut self, reader: &mut Link, began: Instant) -> RedisResult<()> {
        if self.unsettled.iter().any(|it| it.list == ListName::Gray) {
            self.unsettled.retain(|it| it.list == ListName::Gray);
        }
        if self.unsettled.is_empty() {
            return Ok(());
        }
        let lists = self.unsettled.iter();
        let keys = lists.map(|it| self.settings.keys[it.list].as_str());
        let keys: Vec<&str> = keys.collect();
        match reader.ask(redis::cmd("WATCH").arg(keys)) {
            // The server refuses WATCH: two readings a moment apart must do.
            Err(error) if error.code().is_none() => return Err(error),
            _ => {}
        }
        let now = Instant::now();
        for new in self.unsettled.iter_mut().filter(|it| it.since >= began) {
            new.since = now;
        }
        Ok(())
    }
}
