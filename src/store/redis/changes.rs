//! How the gateway learns that a key was changed.
//!
//! By *keyspace events* on the exact channels of the three keys, if the server sends them or can be
//! configured to. Otherwise by *client tracking* in broadcast mode: the server names the changed keys
//! that begin with one of some prefixes, and says when a database was flushed. Either arrives at a
//! subscription, on a connection of its own; the reader asks for tracking on its behalf. Otherwise the
//! keys are polled.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};

use super::errors::{describe, io_error, is_refusal};
use super::link::{Ender, Link};
use crate::config::{self, Notify};
use crate::lists::{ByList, ListName};
use crate::store::Mode;

/// The name of the server's setting.
const FLAGS: &str = "notify-keyspace-events";

/// The channel on which a server tells RESP2 clients what was changed.
const INVALIDATIONS: &str = "__redis__:invalidate";

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

/// The receiving end of a subscription. Its connection ends with it.
pub(crate) struct Subscription {
    /// Holds one item at most.
    pub(crate) news: Receiver<SubscriptionNews>,
    changes: Arc<AtomicU64>,
    last: Arc<LastEvents>,
    _ender: Option<Ender>,
}

/// What the last event of each list's key was, where events are heard.
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
            changes: Arc::default(),
            last: Arc::default(),
            _ender: None,
        }
    }

    /// How many changes were announced so far.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Whether the key of a list was evicted, by the last event; `None` where there was none.
    pub(crate) fn was_evicted(&self, list: ListName) -> Option<bool> {
        match self.last.0[list].load(Ordering::Relaxed) {
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
    ) -> RedisResult<(Way, Subscription)> {
        let notify = settings.notify;
        self.chosen = Instant::now();
        let mut may_be_on = false;
        if matches!(notify, Notify::Auto | Notify::Events) {
            let refusal = match ask_for_events(reader) {
                Ok(()) => match self.hear_events(reader, settings) {
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
            match self.track(reader, settings) {
                Ok(subscription) => {
                    self.tracking_refused = false;
                    return Ok((Way::Tracking, subscription));
                }
                Err(error) => self.step_down_from_tracking(error, notify)?,
            }
        }
        if may_be_on {
            match self.hear_events(reader, settings) {
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
    ) -> RedisResult<Subscription> {
        let db = settings.url.login().db;
        let channel = |key: &str| format!("__keyspace@{db}__:{key}");
        let channels = ListName::ALL.map(|list| channel(&settings.keys[list]));
        let mut link = reader.another(settings)?;
        subscribe(&mut link, &channels)?;
        // Without this channel the key is still read at each check.
        match subscribe(&mut link, &[channel(&settings.accept_key)]) {
            Err(error) if is_refusal(&error) => {
                if !std::mem::replace(&mut self.acceptance_refused, true) {
                    let (key, error) = (&settings.accept_key, describe(&error));
                    log::warn!("accept-key-events-refused key={key:?} error={error:?}");
                }
            }
            outcome => outcome?,
        }
        let last = Arc::new(LastEvents::default());
        let noted = Arc::clone(&last);
        let hears = move |channel: &Value, event: &Value| {
            let is_its =
                |it: &String| matches!(channel, Value::BulkString(c) if c == it.as_bytes());
            for (list, _) in ListName::ALL
                .iter()
                .zip(&channels)
                .filter(|it| is_its(it.1))
            {
                noted.note(*list, event);
            }
            true
        };
        let subscription = follow(link, hears).map_err(RedisError::from)?;
        Ok(Subscription {
            last,
            ..subscription
        })
    }

    /// Has the server tell a subscription of the keys that the reader wants to know about.
    fn track(
        &mut self,
        reader: &mut Link,
        settings: &config::RedisSettings,
    ) -> RedisResult<Subscription> {
        let lists = ListName::ALL
            .iter()
            .map(|list| settings.keys[*list].as_str());
        let keys = lists.chain([settings.accept_key.as_str()]);
        let keys: Vec<String> = keys.map(str::to_owned).collect();
        let mut link = reader.another(settings)?;
        let id = link.ask(redis::cmd("CLIENT").arg("ID"))?;
        let id: i64 = redis::from_redis_value(id)?;
        subscribe(&mut link, &[INVALIDATIONS.to_owned()])?;
        let mut tracking = redis::cmd("CLIENT");
        tracking.arg("TRACKING").arg("ON");
        tracking.arg("REDIRECT").arg(id).arg("BCAST");
        for prefix in prefixes(&keys) {
            tracking.arg("PREFIX").arg(prefix);
        }
        reader.ask(&tracking)?;
        self.redirected_to = Some(id);
        if !self.is_tracking(reader)? {
            // Something in between the two behaves differently.
            let what = "it tracks nothing although it has accepted to (CLIENT GETREDIR)";
            return Err(refusal(what));
        }
        let hears = move |_: &Value, payload: &Value| names_one_of(payload, &keys);
        follow(link, hears).map_err(RedisError::from)
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

fn subscribe(link: &mut Link, channels: &[String]) -> RedisResult<()> {
    link.send(&redis::cmd("SUBSCRIBE").arg(channels).get_packed_command())?;
    for _ in channels {
        link.receive()?.extract_error()?;
    }
    Ok(())
}

/// Forwards changes, in a thread of its own, until the connection ends: messages whose channel and
/// payload are `wanted`.
fn follow(
    mut link: Link,
    wanted: impl Fn(&Value, &Value) -> bool + Send + 'static,
) -> io::Result<Subscription> {
    let (said, news) = bounded(1);
    let ender = link.ender()?;
    let changes = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&changes);
    std::thread::Builder::new()
        .name("lists-events".to_owned())
        .spawn(move || {
            let error = pass_on(&mut link, &wanted, &counted, &said);
            // Nobody receives it if the reader has failed first.
            let _ = said.send(SubscriptionNews::Lost(error));
        })?;
    Ok(Subscription {
        news,
        changes,
        last: Arc::default(),
        _ender: Some(ender),
    })
}

fn pass_on(
    link: &mut Link,
    wanted: &impl Fn(&Value, &Value) -> bool,
    counted: &AtomicU64,
    said: &Sender<SubscriptionNews>,
) -> RedisError {
    loop {
        match link.hear() {
            Ok(Value::Array(message)) => {
                // Otherwise it is the answer to a PING.
                if let [Value::BulkString(kind), channel, payload] = &message[..]
                    && kind == b"message"
                    && wanted(channel, payload)
                {
                    counted.fetch_add(1, Ordering::Relaxed);
                    // A full queue contains a change that has not been handled yet: that is enough.
                    let _ = said.try_send(SubscriptionNews::Change);
                }
            }
            Ok(other) => match other.extract_error() {
                Ok(_) => {}
                // An answer to a PING, for instance of a server that cannot save: a sign of life.
                Err(error) if is_refusal(&error) => {}
                // The server ends the subscription.
                Err(error) => return error,
            },
            Err(error) => return error,
        }
    }
}

/// Prefixes that cover the keys. None begins with another one, which the server would refuse.
fn prefixes(keys: &[String]) -> Vec<&str> {
    let begins_with_another = |key: &String| {
        keys.iter()
            .any(|it| it != key && key.starts_with(it.as_str()))
    };
    let shortest = keys.iter().filter(|it| !begins_with_another(it));
    shortest.map(String::as_str).collect()
}

/// Whether an invalidation is about one of `keys`: it names keys, or nothing after a flush.
fn names_one_of(payload: &Value, keys: &[String]) -> bool {
    let is_one = |name: &Value| match name {
        Value::BulkString(name) => keys.iter().any(|key| key.as_bytes() == name),
        _ => false,
    };
    match payload {
        Value::Array(names) => names.iter().any(is_one),
        Value::Nil => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|&it| it.to_owned()).collect()
    }

    #[test]
    fn no_prefix_begins_with_another() {
        for (keys, expected) in [
            (["gray", "pre", "prod"], &["gray", "pre", "prod"][..]),
            (["p", "pre", "prod"], &["p"]),
            (["list", "list:pre", "prod"], &["list", "prod"]),
            (["a:b:c", "a:b", "a"], &["a"]),
        ] {
            assert_eq!(prefixes(&owned(&keys)), expected);
        }
    }

    #[test]
    fn an_invalidation_is_about_a_key_only_if_it_names_it_or_all() {
        let keys = owned(&["p", "pre", "prod"]);
        let names = |names: &[&str]| {
            let names = names
                .iter()
                .map(|it| Value::BulkString(it.as_bytes().to_vec()));
            Value::Array(names.collect())
        };
        assert!(names_one_of(&names(&["pre"]), &keys));
        assert!(names_one_of(&names(&["prefix", "p"]), &keys));
        assert!(names_one_of(&Value::Nil, &keys));
        for other in [names(&["prefix", "pr", "P"]), names(&[]), Value::Okay] {
            assert!(!names_one_of(&other, &keys), "{other:?}");
        }
    }
}
