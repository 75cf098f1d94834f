//! The lists in Redis: three keys, read in one transaction, watched by keyspace events.
//!
//! Two connections. The *subscription* waits for keyspace events on the exact channels of the
//! three keys; the *reader* asks for everything else. The order is what makes it right: subscribe
//! first, then read, so that no change falls between the two. The keys are read after each
//! (re)connection, after each event, and at every full check, because FLUSHALL, FLUSHDB, SWAPDB
//! and a replica's full resync send no event, and events are lost while disconnected.
//!
//! A burst of events makes few readings (`MIN_GAP`), each of which sees all that came before it.
//! Where keyspace events cannot be had, the keys are polled instead.
//!
//! `DEL` and `RPUSH`, sent one after the other, are one change to whoever sent them. So a list that
//! is found empty keeps its value until it has been empty for a moment (`settle_time`); meanwhile
//! its key is WATCHed from reading to reading, so that the server itself says whether it was
//! touched. A list whose key is rewritten again and again is thus never seen empty.
//!
//! While Redis is away, slow, loading or refuses the password, the lists in force stay.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use redis::{Client, Connection, ErrorKind, RedisError, RedisResult, Value};

use super::accept_key::AcceptKey;
use super::{By, Cause, Fault, Mode, Publisher, Reading};
use crate::config::{self, Notify};
use crate::lists::ListName;

/// Shortest time between two readings.
const MIN_GAP: Duration = Duration::from_millis(20);

/// How long a list must have been empty to count as empty. An empty `gray` is a rollback, which
/// is urgent; an empty pool is not, since its last peers may still serve, or are skipped if not.
const fn settle_time(list: ListName) -> Duration {
    match list {
        ListName::Gray => MIN_GAP,
        ListName::Pre | ListName::Prod => Duration::from_secs(1),
    }
}

/// Time between two attempts to connect: from, to (doubling), and up to half of it more by chance.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// The configuration's name of the server's setting.
const FLAGS: &str = "notify-keyspace-events";

/// Watches the keys in a thread of its own. The first reading, or why there is none, is awaited
/// for as long as the time limit of one exchange with the server.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(settings: config::Redis, publisher: Arc<Publisher>) -> std::io::Result<()> {
    let (first, outcome) = bounded(1);
    let patience = settings.timeout;
    let mut watcher = Watcher {
        accept_key: Arc::new(AcceptKey::new(settings.accept_key.clone())),
        settings,
        publisher,
        first: Some(first),
        told: None,
        last_reading: None,
        unsettled: Vec::new(),
    };
    std::thread::Builder::new()
        .name("lists-redis".to_owned())
        .spawn(move || watcher.run())?;
    // Ready or not, the gateway starts: it answers 503 until there are lists.
    let _ = outcome.recv_timeout(patience);
    Ok(())
}

struct Watcher {
    settings: config::Redis,
    accept_key: Arc<AcceptKey>,
    publisher: Arc<Publisher>,
    /// Told once, when the first attempt has ended.
    first: Option<Sender<()>>,
    /// What was last said about the server's notifications.
    told: Option<Notifications>,
    /// When the keys were last read.
    last_reading: Option<Instant>,
    /// Lists that have become empty and are not yet believed to be; their keys are WATCHed.
    unsettled: Vec<Unsettled>,
}

/// A list that has become empty.
#[derive(Clone, Copy)]
struct Unsettled {
    list: ListName,
    /// When it was first found empty, and untouched since.
    since: Instant,
}

/// Whether the server tells of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notifications {
    /// It does.
    On,
    /// CONFIG is refused, so nobody knows.
    Unknown,
    /// Not asked for.
    Unwanted,
}

/// What the subscription has to say.
enum News {
    Event,
    Lost(RedisError),
}

/// The near end of a subscription, whose thread ends some time after this is dropped.
struct Subscription {
    news: Receiver<News>,
    /// Shared with the thread, if there is one.
    listening: Option<Arc<()>>,
}

impl Subscription {
    fn none() -> Self {
        Self {
            news: crossbeam_channel::never(),
            listening: None,
        }
    }
}

impl Watcher {
    fn run(&mut self) {
        let mut pause = BACKOFF.0;
        let mut connected_before = false;
        loop {
            let begun = Instant::now();
            // Without this thread there would be no more updates, so it outlives a panic.
            let watch = || self.watch(&mut connected_before);
            let error = match catch_unwind(AssertUnwindSafe(watch)) {
                Ok(Ok(never)) => match never {},
                Ok(Err(error)) => describe(&error),
                Err(_) => "a fault of the gateway's own; see the line above".to_owned(),
            };
            self.publisher.failed(error);
            if let Some(first) = self.first.take() {
                let _ = first.try_send(());
            }
            // A connection that held for a while begins the count anew.
            if begun.elapsed() > BACKOFF.1 {
                pause = BACKOFF.0;
            }
            std::thread::sleep(pause.mul_f64(1.0 + fastrand::f64() / 2.0));
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// Connects and follows the keys until something fails.
    fn watch(&mut self, connected_before: &mut bool) -> RedisResult<std::convert::Infallible> {
        // Opened anew each time, so that a name in the URL is resolved anew.
        let client = Client::open(self.settings.url.as_str())?;
        let mut reader = self.connect(&client)?;
        let mut notifications = self.ask_for_events(&mut reader)?;
        let news = match notifications {
            Notifications::Unwanted => Subscription::none(),
            _ => match self.subscribe(&client) {
                Ok(news) => news,
                // A user without the right to these channels can still poll.
                Err(error) if is_refusal(&error) => {
                    notifications = self.refused(&error);
                    Subscription::none()
                }
                Err(error) => return Err(error),
            },
        };
        let can_hear = news.listening.is_some();
        let news = &news.news;
        let mut cause = match connected_before {
            true => Cause::Reconnect,
            false => Cause::Start,
        };
        // WATCH belongs to a connection.
        self.unsettled.clear();
        self.refresh(&mut reader, cause)?;
        *connected_before = true;
        loop {
            self.publisher.set_mode(match notifications {
                Notifications::On => Mode::Events,
                Notifications::Unknown | Notifications::Unwanted => Mode::Poll,
            });
            if let Some(first) = self.first.take() {
                let _ = first.try_send(());
            }
            let settles = !self.unsettled.is_empty();
            let patience = match notifications {
                _ if settles => self.settling_left(),
                Notifications::On => self.settings.check_interval,
                _ => self.settings.poll_interval,
            };
            match news.recv_timeout(patience) {
                Ok(News::Event) => {
                    std::thread::sleep(self.gap_left());
                    // This reading will see what these were about.
                    if let ControlFlow::Break(error) = forget_events(news) {
                        return Err(error);
                    }
                    cause = Cause::Event;
                }
                Ok(News::Lost(error)) => return Err(error),
                // Another look, for whatever caused the first.
                Err(RecvTimeoutError::Timeout) if settles => {}
                Err(RecvTimeoutError::Timeout) => {
                    // Somebody may have switched them off.
                    if can_hear {
                        notifications = self.ask_for_events(&mut reader)?;
                    }
                    cause = Cause::Check;
                }
                Err(RecvTimeoutError::Disconnected) => return Err(io_error("subscription ended")),
            }
            self.refresh(&mut reader, cause)?;
        }
    }

    /// Time until an unsettled list may have settled.
    fn settling_left(&self) -> Duration {
        let left = |it: &Unsettled| settle_time(it.list).saturating_sub(it.since.elapsed());
        let least = self.unsettled.iter().map(left).min();
        least.unwrap_or_default().max(self.gap_left())
    }

    /// Time until the keys may be read again.
    fn gap_left(&self) -> Duration {
        let since = self.last_reading.map_or(MIN_GAP, |at| at.elapsed());
        MIN_GAP.saturating_sub(since)
    }

    fn connect(&self, client: &Client) -> RedisResult<Connection> {
        let limit = self.settings.timeout;
        let connection = client.get_connection_with_timeout(limit)?;
        connection.set_read_timeout(Some(limit))?;
        connection.set_write_timeout(Some(limit))?;
        Ok(connection)
    }

    /// Makes sure that the server tells of changes, without taking from others what they asked
    /// it to tell.
    fn ask_for_events(&mut self, reader: &mut Connection) -> RedisResult<Notifications> {
        if self.settings.notify == Notify::Poll {
            return Ok(Notifications::Unwanted);
        }
        match merge_flags(reader) {
            Ok(changed) => {
                if let Some(flags) = changed {
                    log::info!("redis-events-enabled flags={flags}");
                }
                self.told = Some(Notifications::On);
                Ok(Notifications::On)
            }
            Err(error) if is_refusal(&error) => Ok(self.refused(&error)),
            // Silence, or no right to ask anything at all.
            Err(error) => Err(error),
        }
    }

    /// Says once that the server does not tell of changes.
    fn refused(&mut self, error: &RedisError) -> Notifications {
        if self.told != Some(Notifications::Unknown) {
            let level = match self.settings.notify {
                Notify::Events => log::Level::Error,
                _ => log::Level::Warn,
            };
            let error = describe(error);
            log::log!(level, "redis-events-refused error={error:?} instead=poll");
        }
        self.told = Some(Notifications::Unknown);
        Notifications::Unknown
    }

    /// Subscribes to the keys' channels; events then arrive in its queue.
    fn subscribe(&self, client: &Client) -> RedisResult<Subscription> {
        let db = client.get_connection_info().redis_settings().db();
        let channels: Vec<String> = ListName::ALL
            .map(|list| format!("__keyspace@{db}__:{}", self.key(list)))
            .into();
        let mut connection = self.connect(client)?;
        let accept_key = Arc::clone(&self.accept_key);
        let (said, news) = bounded(1);
        let (ready, subscribed) = bounded(1);
        let listening = Arc::new(());
        let listened_to = Arc::downgrade(&listening);
        std::thread::Builder::new()
            .name("lists-events".to_owned())
            .spawn(move || {
                let also = |connection: &mut Connection| accept_key.subscribe(connection, db);
                let error = follow(
                    &mut connection,
                    &channels,
                    also,
                    &ready,
                    &said,
                    &listened_to,
                );
                // Nobody listens when the reader has failed first.
                let _ = said.send(News::Lost(error));
            })
            .map_err(RedisError::from)?;
        match subscribed.recv() {
            Ok(()) => Ok(Subscription {
                news,
                listening: Some(listening),
            }),
            Err(_) => Err(match news.recv() {
                Ok(News::Lost(error)) => error,
                _ => io_error("subscription ended"),
            }),
        }
    }

    fn refresh(&mut self, reader: &mut Connection, cause: Cause) -> RedisResult<()> {
        let watched = std::mem::take(&mut self.unsettled);
        let (mut reading, untouched) = match self.read(reader)? {
            Some(reading) => (reading, true),
            // A watched key was touched, and nothing is watched any more.
            None => match self.read(reader)? {
                Some(reading) => (reading, false),
                None => return Err(io_error("the transaction was aborted")),
            },
        };
        let lists = self.publisher.last_good();
        for list in ListName::ALL {
            let entries = reading.of(list);
            let becomes_empty = entries.as_ref().is_ok_and(Vec::is_empty)
                && lists.len(list) > 0
                // What is held is no news at every check.
                && !self.publisher.holds_empty(list);
            if !becomes_empty {
                continue;
            }
            let before = watched.iter().find(|it| untouched && it.list == list);
            let since = before.map_or_else(Instant::now, |it| it.since);
            if since.elapsed() < settle_time(list) {
                *entries = Err(Fault::Unsettled);
                self.unsettled.push(Unsettled { list, since });
            }
        }
        self.publisher.publish(reading, cause);
        if self.publisher.holds() {
            for digest in self.accept_key.read(reader)? {
                // What is not held any more, or not yet, needs no word.
                let _ = self
                    .publisher
                    .accept(&String::from_utf8_lossy(&digest), By::Key);
            }
        }
        self.watch_unsettled(reader)?;
        self.last_reading = Some(Instant::now());
        Ok(())
    }

    /// Makes the next transaction fail if an unsettled list's key is touched until then.
    fn watch_unsettled(&self, reader: &mut Connection) -> RedisResult<()> {
        if self.unsettled.is_empty() {
            return Ok(());
        }
        let lists = self.unsettled.iter();
        let keys: Vec<&str> = lists.map(|it| self.key(it.list)).collect();
        match redis::cmd("WATCH").arg(keys).exec(reader) {
            // A server that refuses WATCH: two readings a moment apart must do.
            Err(error) if error.code().is_some() => Ok(()),
            outcome => outcome,
        }
    }

    fn key(&self, list: ListName) -> &str {
        let keys = &self.settings.keys;
        match list {
            ListName::Gray => &keys.gray,
            ListName::Pre => &keys.pre,
            ListName::Prod => &keys.prod,
        }
    }

    /// Reads all keys in one transaction; `None` when a WATCHed key was touched. Each is asked
    /// for as a list and as a set: the wrong one of the two is an error of that command alone.
    fn read(&self, reader: &mut Connection) -> RedisResult<Option<Reading>> {
        let mut pipe = redis::pipe();
        for list in ListName::ALL {
            pipe.cmd("LRANGE").arg(self.key(list)).arg(0).arg(-1);
            pipe.cmd("SMEMBERS").arg(self.key(list));
        }
        let Some(replies) = transaction(reader, &pipe)? else {
            return Ok(None);
        };
        let mut replies = replies.into_iter();
        let mut next = || match (replies.next(), replies.next()) {
            (Some(as_list), Some(as_set)) => entries(as_list, as_set),
            _ => Err(io_error("the transaction has too few replies")),
        };
        Ok(Some(Reading {
            gray: next()?,
            pre: next()?,
            prod: next()?,
        }))
    }
}

/// Runs the commands of `pipe` in one transaction: a reply or an error for each; `None` when a
/// WATCHed key was touched. Written out because the library's own waits for every reply in turn
/// from a server that is silent, and cannot cope with one that refuses MULTI.
fn transaction(
    reader: &mut Connection,
    pipe: &redis::Pipeline,
) -> RedisResult<Option<Vec<RedisResult<Value>>>> {
    let mut request = redis::cmd("MULTI").get_packed_command();
    request.extend(pipe.get_packed_pipeline());
    request.extend(redis::cmd("EXEC").get_packed_command());
    reader.send_packed_command(&request)?;
    // MULTI is accepted, and each command queued. A refusal here says more than that of EXEC.
    for _ in 0..1 + pipe.len() {
        reader.recv_response()?.extract_error()?;
    }
    match reader.recv_response()? {
        Value::Nil => Ok(None),
        Value::Array(replies) => {
            let replies = replies.into_iter().map(Value::extract_error);
            Ok(Some(replies.collect()))
        }
        other => {
            other.extract_error()?;
            Err(io_error("EXEC has no list of replies"))
        }
    }
}

/// The entries of a key that was read both as a list and as a set.
fn entries(
    as_list: RedisResult<Value>,
    as_set: RedisResult<Value>,
) -> RedisResult<Result<Vec<Vec<u8>>, Fault>> {
    let is_wrong_type = |error: &RedisError| error.code() == Some("WRONGTYPE");
    let reply = match (as_list, as_set) {
        (Ok(list), _) => list,
        (Err(_), Ok(set)) => set,
        (Err(one), Err(other)) if is_wrong_type(&one) && is_wrong_type(&other) => {
            return Ok(Err(Fault::WrongType));
        }
        (Err(error), Err(_)) => return Err(error),
    };
    redis::from_redis_value(reply)
        .map(Ok)
        .map_err(RedisError::from)
}

/// Reads the server's notification flags and adds `KA` (keyspace channels, all kinds of
/// commands) where it is missing. Returns the new flags if they were changed.
fn merge_flags(reader: &mut Connection) -> RedisResult<Option<String>> {
    let current: Vec<String> = redis::cmd("CONFIG").arg("GET").arg(FLAGS).query(reader)?;
    // A name and a value.
    let Some(current) = current.get(1) else {
        return Err(io_error("CONFIG GET knows no notify-keyspace-events"));
    };
    let mut merged = current.clone();
    merged.extend(['K', 'A'].iter().filter(|it| !current.contains(**it)));
    if merged == *current {
        return Ok(None);
    }
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg(FLAGS).arg(&merged).exec(reader)?;
    Ok(Some(merged))
}

/// Subscribes, says so, and passes events on until the connection fails or nobody listens. A
/// silent connection is asked for a sign of life, so that a half-open one is noticed within two
/// time limits.
fn follow(
    connection: &mut Connection,
    channels: &[String],
    also: impl Fn(&mut Connection) -> RedisResult<()>,
    ready: &Sender<()>,
    said: &Sender<News>,
    listened_to: &Weak<()>,
) -> RedisError {
    if let Err(error) = subscribe(connection, channels).and_then(|()| also(connection)) {
        return error;
    }
    let mut subscription = connection.as_pubsub();
    let _ = ready.send(());
    while listened_to.strong_count() > 0 {
        match subscription.get_message() {
            // A full queue holds an event that was not looked at yet: that look will do.
            Ok(_) => drop(said.try_send(News::Event)),
            Err(error) if error.is_timeout() => {
                if let Err(error) = subscription.ping::<Value>() {
                    return error;
                }
            }
            Err(error) => return error,
        }
    }
    io_error("nobody listens")
}

/// As the library's `subscribe`, which takes a refusal for a yes.
fn subscribe(connection: &mut Connection, channels: &[String]) -> RedisResult<()> {
    let mut command = redis::cmd("SUBSCRIBE");
    command.arg(channels);
    connection.send_packed_command(&command.get_packed_command())?;
    for _ in channels {
        connection.recv_response()?.extract_error()?;
    }
    Ok(())
}

/// True when the server knows who asks, and does not allow this command.
fn is_refusal(error: &RedisError) -> bool {
    matches!(error.code(), Some("ERR" | "NOPERM"))
}

fn forget_events(news: &Receiver<News>) -> ControlFlow<RedisError> {
    for item in news.try_iter() {
        if let News::Lost(error) = item {
            return ControlFlow::Break(error);
        }
    }
    ControlFlow::Continue(())
}

fn io_error(what: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Io, what))
}

fn describe(error: &RedisError) -> String {
    // Two names for the same thing: which of them it is depends on the system call.
    if error.is_timeout() {
        return "timed out".to_owned();
    }
    error.to_string()
}
