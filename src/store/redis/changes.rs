//! How the gateway learns that a key was changed.
//!
//! By *keyspace events* on the exact channels of the keys, if the server sends them or can be
//! configured to. Otherwise by *client tracking* in broadcast mode: the server names the changed keys
//! that begin with one of some prefixes, and says when a database was flushed. Either arrives at a
//! subscription, on a connection of its own; the reader asks for tracking on its behalf. Otherwise the
//! keys are polled.
//!
//! An announcement names the key, so only the services that it is about need be read
//! ([`AnnouncedChanges`]). A server sends what one of its clients writes at once in several messages, of
//! which the first may be here before the others. [`Subscription::catch_up`] makes sure that everything is
//! here that was announced before it: what a server sends on a connection, and what it answers on it, has
//! one order.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};

use super::errors::{describe, io_error, is_refusal};
use super::keyring::{KeyOf, KeyPart, Keyring};
use super::link::{Ender, Hearing, Link, Waker};
use crate::config::{self, Notify};
use crate::lists::{ByList, ListName};
use crate::store::Mode;

/// The name of the server's setting.
const FLAGS: &str = "notify-keyspace-events";

/// The channel on which a server tells RESP2 clients what was changed.
const INVALIDATIONS: &str = "__redis__:invalidate";

/// How many channels are asked for at once.
const BATCH: usize = 500;

/// How many prefixes are tracked: at each write by anybody, the server compares the key with each of them.
const MOST_PREFIXES: usize = 128;

/// How the gateway learns of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By keyspace events.
    Events,
    /// By client tracking.
    Tracking,
    /// By polling; but there is a subscription, since it is unknown whether the server sends events.
    Unsure,
    /// By polling.
    Poll,
}

impl Way {
    /// The same in the words of the status.
    pub(crate) const fn mode(self) -> Mode {
        match self {
            Self::Events => Mode::Events,
            Self::Tracking => Mode::Tracking,
            Self::Unsure | Self::Poll => Mode::Poll,
        }
    }
}

/// What a subscription reports.
pub(crate) enum SubscriptionNews {
    /// A key was changed, perhaps not for the first time.
    Change,
    /// The connection has ended, or is silent.
    Lost(RedisError),
}

/// What was announced, and not read since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AnnouncedChanges {
    /// Something of which it is unknown what it is about, or that is about everything.
    pub(crate) all: bool,
    /// The services that changes were about.
    pub(crate) services: BTreeSet<usize>,
}

impl AnnouncedChanges {
    const ALL: Self = Self {
        all: true,
        services: BTreeSet::new(),
    };

    fn of(service: usize) -> Self {
        Self {
            all: false,
            services: BTreeSet::from([service]),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.all && self.services.is_empty()
    }

    /// Adds another.
    pub(crate) fn add(&mut self, mut other: Self) {
        self.all |= other.all;
        self.services.append(&mut other.services);
    }
}

/// The receiving end of a subscription. Its connection ends with it.
pub(crate) struct Subscription {
    /// Holds one item at most.
    pub(crate) news: Receiver<SubscriptionNews>,
    heard: Arc<HeardChanges>,
    /// The salts of whose changes the server must not tell.
    pub(crate) deaf: Vec<KeyOf>,
    /// The last of our questions that was answered.
    answered: Receiver<u64>,
    waker: Option<Arc<Waker>>,
    _ender: Option<Ender>,
}

/// What a subscription has heard.
#[derive(Default)]
struct HeardChanges {
    changes: AtomicU64,
    announced: Mutex<AnnouncedChanges>,
    /// What the last event of each list's key was, where events are heard.
    last: Vec<LastEvents>,
}

impl HeardChanges {
    fn announced(&self) -> MutexGuard<'_, AnnouncedChanges> {
        // Whole at any moment.
        let announced = self.announced.lock();
        announced.unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the last event of each list's key was.
#[derive(Debug, Default)]
struct LastEvents(ByList<AtomicU8>);

impl LastEvents {
    const EVICTED: u8 = 1;
    const OTHER: u8 = 2;

    fn note(&self, list: ListName, event: &Value) {
        let is_evicted = matches!(event, Value::BulkString(it) if it == b"evicted");
        let event = if is_evicted {
            Self::EVICTED
        } else {
            Self::OTHER
        };
        self.0[list].store(event, Ordering::Relaxed);
    }
}

impl Subscription {
    /// One that never receives anything.
    pub(crate) fn none() -> Self {
        Self {
            news: crossbeam_channel::never(),
            heard: Arc::default(),
            deaf: Vec::new(),
            answered: crossbeam_channel::never(),
            waker: None,
            _ender: None,
        }
    }

    /// How many changes were announced so far.
    pub(crate) fn changes(&self) -> u64 {
        self.heard.changes.load(Ordering::Relaxed)
    }

    /// What was announced since this was last asked.
    pub(crate) fn take_announced(&self) -> AnnouncedChanges {
        std::mem::take(&mut self.heard.announced())
    }

    /// Waits until everything is here that the server announced before now.
    ///
    /// # Errors
    /// When the subscription has ended, or is silent.
    pub(crate) fn catch_up(&self, limit: Duration) -> RedisResult<()> {
        let Some(waker) = &self.waker else {
            return Ok(());
        };
        let question = waker.wake()?;
        let until = Instant::now() + limit * 2;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.answered.recv_timeout(left) {
                Ok(answered) if answered >= question => return Ok(()),
                Ok(_) => {}
                Err(_) => {
                    return Err(match self.news.try_iter().last() {
                        Some(SubscriptionNews::Lost(error)) => error,
                        _ => io_error("the subscription does not answer"),
                    });
                }
            }
        }
    }

    /// Whether the key of a list was evicted, by the last event; `None` where there was none.
    pub(crate) fn was_evicted(&self, service: usize, list: ListName) -> Option<bool> {
        match self.heard.last.get(service)?.0[list].load(Ordering::Relaxed) {
            LastEvents::EVICTED => Some(true),
            LastEvents::OTHER => Some(false),
            _ => None,
        }
    }
}

/// Chooses a way to learn of changes, and keeps to it.
#[derive(Debug)]
pub(crate) struct WayChooser {
    /// When the way was last chosen.
    chosen: Instant,
    /// What was logged already, so that it is logged once.
    events_refused: bool,
    tracking_refused: bool,
    acceptance_refused: bool,
    /// The id by which the server knows the connection that receives for the reader.
    redirected_to: Option<i64>,
}

impl Default for WayChooser {
    fn default() -> Self {
        Self {
            chosen: Instant::now(),
            events_refused: false,
            tracking_refused: false,
            acceptance_refused: false,
            redirected_to: None,
        }
    }
}

impl WayChooser {
    /// Chooses the best way that the server and the settings allow.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub(crate) fn choose(
        &mut self,
        reader: &mut Link,
        settings: &config::RedisSettings,
        keyring: &Keyring,
    ) -> RedisResult<(Way, Subscription)> {
        let notify = settings.notify;
        self.chosen = Instant::now();
        let mut may_be_on = false;
        if matches!(notify, Notify::Auto | Notify::Events) {
            let refusal = match ask_for_events(reader) {
                Ok(()) => match self.hear_events(reader, settings, keyring) {
                    Ok(subscription) => {
                        self.events_refused = false;
                        return Ok((Way::Events, subscription));
                    }
                    // A user without the right to these channels.
                    Err(error) => error,
                },
                Err(error) => {
                    may_be_on = true;
                    error
                }
            };
            self.step_down_from_events(refusal, notify)?;
        }
        if matches!(notify, Notify::Auto | Notify::Tracking) {
            match self.track(reader, settings, keyring) {
                Ok(subscription) => {
                    self.tracking_refused = false;
                    return Ok((Way::Tracking, subscription));
                }
                Err(error) => self.step_down_from_tracking(error, notify)?,
            }
        }
        if may_be_on {
            match self.hear_events(reader, settings, keyring) {
                Ok(subscription) => return Ok((Way::Unsure, subscription)),
                Err(error) if is_refusal(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((Way::Poll, Subscription::none()))
    }

    /// Makes sure that `way` still works. Returns the way from now on; `None` when another one has to be
    /// chosen.
    ///
    /// # Errors
    /// When the server cannot be asked, or has forgotten the subscription.
    pub(crate) fn check(
        &mut self,
        way: Way,
        reader: &mut Link,
        settings: &config::RedisSettings,
    ) -> RedisResult<Option<Way>> {
        let notify = settings.notify;
        match way {
            // What was refused may have been allowed since.
            Way::Poll => {
                let is_time = self.chosen.elapsed() >= settings.check_interval;
                Ok((notify == Notify::Poll || !is_time).then_some(way))
            }
            Way::Tracking if self.is_tracking(reader)? => Ok(Some(way)),
            Way::Tracking => Err(io_error("the server no longer tracks the keys")),
            // Somebody may have switched them off, or given the right to switch them on.
            Way::Events | Way::Unsure => match ask_for_events(reader) {
                Ok(()) => {
                    self.events_refused = false;
                    Ok(Some(Way::Events))
                }
                Err(error) if is_refusal(&error) => {
                    self.step_down_from_events(error, notify)?;
                    Ok((way == Way::Unsure).then_some(way))
                }
                Err(error) => Err(error),
            },
        }
    }

    /// Logs once that there are no events, if that is what `error` says.
    fn step_down_from_events(&mut self, error: RedisError, notify: Notify) -> RedisResult<()> {
        let (level, instead) = match notify {
            Notify::Events => (log::Level::Error, Way::Poll),
            _ => (log::Level::Warn, Way::Tracking),
        };
        step_down(error, "events", level, instead, &mut self.events_refused)
    }

    fn step_down_from_tracking(&mut self, error: RedisError, notify: Notify) -> RedisResult<()> {
        let level = match notify {
            Notify::Tracking => log::Level::Error,
            _ => log::Level::Warn,
        };
        let told = &mut self.tracking_refused;
        step_down(error, "tracking", level, Way::Poll, told)
    }

    /// Subscribes to the keys' channels.
    fn hear_events(
        &mut self,
        reader: &Link,
        settings: &config::RedisSettings,
        keyring: &Keyring,
    ) -> RedisResult<Subscription> {
        let db = settings.url.login().db;
        let channel = |key: &str| format!("__keyspace@{db}__:{key}");
        let mut channels = HashMap::new();
        let lists = keyring.all_lists();
        let lists = lists.map(|it| (channel(keyring.key(it)), it));
        let lists: Vec<(String, KeyOf)> = lists.collect();
        let mut link = reader.another(settings)?;
        for batch in lists.chunks(BATCH) {
            let names: Vec<&str> = batch.iter().map(|(name, _)| &**name).collect();
            subscribe(&mut link, &names)?;
        }
        // Without the channels of the others, their keys are still read at each check.
        match subscribe(&mut link, &[&channel(&settings.accept_key)]) {
            Err(error) if is_refusal(&error) => {
                if !std::mem::replace(&mut self.acceptance_refused, true) {
                    let (key, error) = (&settings.accept_key, describe(&error));
                    log::warn!("accept-key-events-refused key={key:?} error={error:?}");
                }
            }
            outcome => outcome?,
        }
        let salts = keyring.everything().filter(|it| it.part == KeyPart::Salt);
        let salts: Vec<(String, KeyOf)> = salts.map(|it| (channel(keyring.key(it)), it)).collect();
        let mut deaf = Vec::new();
        for batch in salts.chunks(BATCH) {
            deaf.extend(subscribe_each(&mut link, batch)?);
        }
        let known = lists.into_iter().chain(salts);
        channels.extend(known.map(|(name, of)| (name.into_bytes(), of)));
        let last = (0..keyring.len()).map(|_| LastEvents::default());
        let heard = Arc::new(HeardChanges {
            last: last.collect(),
            ..HeardChanges::default()
        });
        let noted = Arc::clone(&heard);
        let hears = move |channel: &Value, event: &Value| {
            let Value::BulkString(name) = channel else {
                return Some(AnnouncedChanges::ALL);
            };
            // Otherwise it is the accept key.
            let Some(of) = channels.get(name) else {
                return Some(AnnouncedChanges::ALL);
            };
            if let KeyPart::List(list) = of.part {
                noted.last[of.service].note(list, event);
            }
            Some(AnnouncedChanges::of(of.service))
        };
        let subscription = follow(link, heard, hears).map_err(RedisError::from)?;
        Ok(Subscription {
            deaf,
            ..subscription
        })
    }

    /// Has the server tell a subscription of the keys that the reader wants to know about.
    fn track(
        &mut self,
        reader: &mut Link,
        settings: &config::RedisSettings,
        keyring: &Keyring,
    ) -> RedisResult<Subscription> {
        let owned = |it: KeyOf| (keyring.key(it).as_bytes().to_vec(), Some(it.service));
        let keys = keyring.everything().map(owned);
        let accept_key = (settings.accept_key.as_bytes().to_vec(), None);
        let keys: HashMap<Vec<u8>, Option<usize>> = keys.chain([accept_key]).collect();
        let mut link = reader.another(settings)?;
        let id = link.ask(redis::cmd("CLIENT").arg("ID"))?;
        let id: i64 = redis::from_redis_value(id)?;
        subscribe(&mut link, &[INVALIDATIONS])?;
        let mut tracking = redis::cmd("CLIENT");
        tracking.arg("TRACKING").arg("ON");
        tracking.arg("REDIRECT").arg(id).arg("BCAST");
        for prefix in prefixes(keys.keys().map(|it| &**it)) {
            tracking.arg("PREFIX").arg(prefix);
        }
        reader.ask(&tracking)?;
        self.redirected_to = Some(id);
        if !self.is_tracking(reader)? {
            // Something in between the two behaves differently.
            let what = "it tracks nothing although it has accepted to (CLIENT GETREDIR)";
            return Err(refusal(what));
        }
        let hears = move |_: &Value, payload: &Value| named(payload, &keys);
        follow(link, Arc::default(), hears).map_err(RedisError::from)
    }

    /// Asks the server whether the reader's invalidations go where they should. Without the right to
    /// ask, the full check must do.
    fn is_tracking(&self, reader: &mut Link) -> RedisResult<bool> {
        match reader.ask(redis::cmd("CLIENT").arg("GETREDIR")) {
            Ok(Value::Int(id)) => Ok(Some(id) == self.redirected_to),
            Ok(_) => Ok(false),
            Err(error) if is_refusal(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// Logs once that the server refuses something; any other error is returned.
fn step_down(
    error: RedisError,
    from: &str,
    level: log::Level,
    to: Way,
    told: &mut bool,
) -> RedisResult<()> {
    if !is_refusal(&error) {
        return Err(error);
    }
    if !std::mem::replace(told, true) {
        let instead = to.mode().name();
        let error = describe(&error);
        log::log!(
            level,
            "redis-{from}-refused error={error:?} instead={instead}"
        );
    }
    Ok(())
}

/// The reason for what the server neither refuses with an error nor grants.
fn refusal(what: &str) -> RedisError {
    let kind = ErrorKind::Server(ServerErrorKind::ResponseError);
    RedisError::from((kind, "refused", what.to_owned()))
}

/// Makes sure that the server announces changes, without switching off what others have switched on.
fn ask_for_events(reader: &mut Link) -> RedisResult<()> {
    let current = reader.ask(redis::cmd("CONFIG").arg("GET").arg(FLAGS))?;
    let current: Vec<String> = redis::from_redis_value(current).unwrap_or_default();
    // A name and a value; nothing where the server has no such setting.
    let Some(current) = current.get(1) else {
        return Err(refusal(
            "it does not know notify-keyspace-events (CONFIG GET)",
        ));
    };
    // Keyspace channels, and all kinds of commands.
    let mut merged = current.clone();
    merged.extend(['K', 'A'].iter().filter(|it| !current.contains(**it)));
    if merged != *current {
        let mut set = redis::cmd("CONFIG");
        reader.ask(set.arg("SET").arg(FLAGS).arg(&merged))?;
        log::info!("redis-events-enabled flags={merged}");
    }
    Ok(())
}

/// Subscribes to all of these channels, or to none.
fn subscribe(link: &mut Link, channels: &[&str]) -> RedisResult<()> {
    link.send(&redis::cmd("SUBSCRIBE").arg(channels).get_packed_command())?;
    for _ in channels {
        link.receive()?.extract_error()?;
    }
    Ok(())
}

/// Subscribes to each of these channels that the server allows to hear; returns what the others are of.
fn subscribe_each(link: &mut Link, channels: &[(String, KeyOf)]) -> RedisResult<Vec<KeyOf>> {
    let one = |(name, _): &(String, KeyOf)| redis::cmd("SUBSCRIBE").arg(name).get_packed_command();
    let request: Vec<u8> = channels.iter().flat_map(one).collect();
    link.send(&request)?;
    let mut refused = Vec::new();
    for (_, of) in channels {
        match link.receive()?.extract_error() {
            Err(error) if is_refusal(&error) => refused.push(*of),
            outcome => drop(outcome?),
        }
    }
    Ok(refused)
}

/// Forwards changes, in a thread of its own, until the connection ends: what `hears` makes of a message's
/// channel and payload.
fn follow(
    mut link: Link,
    heard: Arc<HeardChanges>,
    hears: impl Fn(&Value, &Value) -> Option<AnnouncedChanges> + Send + 'static,
) -> io::Result<Subscription> {
    let (said, news) = bounded(1);
    let (answers, answered) = bounded(1);
    let ender = link.ender()?;
    let waker = link.wakeable()?;
    let noted = Arc::clone(&heard);
    std::thread::Builder::new()
        .name("lists-events".to_owned())
        .spawn(move || {
            let error = pass_on(&mut link, &hears, &noted, &said, answers);
            // Nobody receives it if the reader has failed first.
            let _ = said.send(SubscriptionNews::Lost(error));
        })?;
    Ok(Subscription {
        news,
        heard,
        deaf: Vec::new(),
        answered,
        waker: Some(waker),
        _ender: Some(ender),
    })
}

fn pass_on(
    link: &mut Link,
    hears: &impl Fn(&Value, &Value) -> Option<AnnouncedChanges>,
    heard: &HeardChanges,
    said: &Sender<SubscriptionNews>,
    answers: Sender<u64>,
) -> RedisError {
    let mut hearing = Hearing::default();
    loop {
        let answer = match link.hear(&mut hearing) {
            Ok(Value::Array(message)) => match &message[..] {
                [Value::BulkString(kind), channel, payload] if kind == b"message" => {
                    if let Some(announced) = hears(channel, payload) {
                        // Before anybody is woken by it.
                        heard.announced().add(announced);
                        heard.changes.fetch_add(1, Ordering::Relaxed);
                        // A full queue contains a change that has not been handled yet: that is enough.
                        let _ = said.try_send(SubscriptionNews::Change);
                    }
                    continue;
                }
                _ => hearing.answered(),
            },
            Ok(other) => match other.extract_error() {
                Ok(_) => hearing.answered(),
                // An answer to a PING, for instance of a server that cannot save: a sign of life.
                Err(error) if is_refusal(&error) => hearing.answered(),
                // The server ends the subscription.
                Err(error) => return error,
            },
            Err(error) => return error,
        };
        if let Some(question) = answer {
            // Who asks waits for each answer, or gives this connection up.
            let _ = answers.try_send(question);
        }
    }
}

/// Prefixes that cover the keys, as long as can be if there are to be [`MOST_PREFIXES`]. None begins with
/// another one, which the server would refuse.
fn prefixes<'a>(keys: impl Iterator<Item = &'a [u8]>) -> Vec<&'a [u8]> {
    let mut keys: Vec<&[u8]> = keys.collect();
    // What begins with a key follows it.
    keys.sort_unstable();
    let mut shortest: Vec<&[u8]> = Vec::new();
    for key in keys {
        if shortest.last().is_none_or(|it| !key.starts_with(it)) {
            shortest.push(key);
        }
    }
    match shortest.len() > MOST_PREFIXES {
        true => common_beginnings(&shortest, MOST_PREFIXES),
        false => shortest,
    }
}

/// At most so many prefixes that cover `keys`, which are sorted: those stand together that have the longest
/// beginnings in common.
fn common_beginnings<'a>(keys: &[&'a [u8]], most: usize) -> Vec<&'a [u8]> {
    let common = |pair: &[&[u8]]| {
        let both = pair[0].iter().zip(pair[1]);
        both.take_while(|(one, other)| one == other).count()
    };
    let mut lengths: Vec<usize> = keys.windows(2).map(common).collect();
    lengths.sort_unstable();
    // Where two that follow each other have less in common, a new prefix begins: at most one less than there
    // may be.
    let least = lengths
        .get(most.saturating_sub(1))
        .copied()
        .unwrap_or(usize::MAX);
    let groups = keys.chunk_by(|one, other| common(&[one, other]) >= least);
    let beginning = |group: &[&'a [u8]]| {
        let (first, last) = (group[0], group[group.len() - 1]);
        match group.len() {
            1 => first,
            // All between them have that in common, too.
            _ => &first[..common(&[first, last])],
        }
    };
    groups.map(beginning).collect()
}

/// What of `keys` an invalidation is about: it names keys, or nothing after a flush. A key without a service
/// may be about all.
fn named(payload: &Value, keys: &HashMap<Vec<u8>, Option<usize>>) -> Option<AnnouncedChanges> {
    let names = match payload {
        Value::Array(names) => names,
        Value::Nil => return Some(AnnouncedChanges::ALL),
        _ => return None,
    };
    let mut announced = AnnouncedChanges::default();
    for name in names {
        let Value::BulkString(name) = name else {
            continue;
        };
        match keys.get(name) {
            Some(Some(service)) => drop(announced.services.insert(*service)),
            Some(None) => announced.all = true,
            None => {}
        }
    }
    (!announced.is_empty()).then_some(announced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_prefix_begins_with_another() {
        for (keys, expected) in [
            (["gray", "pre", "prod"], &["gray", "pre", "prod"][..]),
            (["p", "pre", "prod"], &["p"]),
            (["list", "list:pre", "prod"], &["list", "prod"]),
            (["a:b:c", "a:b", "a"], &["a"]),
            (["a", "a-b", "a:b"], &["a"]),
            (["a:b", "a-b", "a:b"], &["a-b", "a:b"]),
        ] {
            let found = prefixes(keys.iter().map(|it| it.as_bytes()));
            let expected: Vec<&[u8]> = expected.iter().map(|it| it.as_bytes()).collect();
            assert_eq!(found, expected, "{keys:?}");
        }
    }

    #[test]
    fn the_prefixes_of_many_keys_are_few_and_cover_all_of_them() {
        for (keys, most, expected) in [
            (&["a", "b", "c"][..], 3, &["a", "b", "c"][..]),
            (&["a:x", "a:y", "b:x", "b:y"], 2, &["a:", "b:"]),
            (&["a:x", "a:y", "b:x", "b:y"], 3, &["a:", "b:"]),
            (&["a:x", "a:y", "b:x", "b:y"], 1, &[""]),
            (&["s1:pre", "s1:prod", "s2:x"], 2, &["s1:pr", "s2:x"]),
            (&["ab", "bb1", "bb2", "bc"], 3, &["ab", "bb", "bc"]),
        ] {
            let keys: Vec<&[u8]> = keys.iter().map(|it| it.as_bytes()).collect();
            let expected: Vec<&[u8]> = expected.iter().map(|it| it.as_bytes()).collect();
            assert_eq!(common_beginnings(&keys, most), expected, "{keys:?} {most}");
        }
        let parts = ["gray", "pre", "prod", "salt"].into_iter();
        let keys = |service: usize| parts.clone().map(move |it| format!("shop-{service}:{it}"));
        let keys: Vec<String> = (0..1000).flat_map(keys).collect();
        let few = prefixes(keys.iter().map(|it| it.as_bytes()));
        assert!((50..=MOST_PREFIXES).contains(&few.len()), "{}", few.len());
        for key in &keys {
            let begins = few.iter().filter(|it| key.as_bytes().starts_with(it));
            assert_eq!(begins.count(), 1, "{key}");
        }
        for (at, one) in few.iter().enumerate() {
            let others = few.iter().enumerate().filter(|(it, _)| *it != at);
            assert_eq!(others.filter(|(_, it)| it.starts_with(one)).count(), 0);
        }
    }

    #[test]
    fn an_invalidation_is_about_the_services_whose_keys_it_names_or_about_all() {
        let keys = [
            ("p", Some(0)),
            ("pre", Some(0)),
            ("shop:pre", Some(7)),
            ("accept", None),
        ];
        let keys = keys.map(|(key, service)| (key.as_bytes().to_vec(), service));
        let keys = HashMap::from(keys);
        let names = |names: &[&str]| {
            let names = names
                .iter()
                .map(|it| Value::BulkString(it.as_bytes().to_vec()));
            Value::Array(names.collect())
        };
        let of = |services: &[usize]| AnnouncedChanges {
            all: false,
            services: services.iter().copied().collect(),
        };
        assert_eq!(named(&names(&["pre"]), &keys), Some(of(&[0])));
        assert_eq!(named(&names(&["prefix", "p"]), &keys), Some(of(&[0])));
        assert_eq!(named(&names(&["shop:pre", "p"]), &keys), Some(of(&[0, 7])));
        assert_eq!(named(&Value::Nil, &keys), Some(AnnouncedChanges::ALL));
        assert_eq!(
            named(&names(&["accept"]), &keys),
            Some(AnnouncedChanges::ALL)
        );
        for other in [names(&["prefix", "pr", "P"]), names(&[]), Value::Okay] {
            assert_eq!(named(&other, &keys), None, "{other:?}");
        }
    }
}
