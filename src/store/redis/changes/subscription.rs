//! What a server announces on a connection of its own, whichever way it does.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use redis::{RedisError, RedisResult, Value};

use crate::lists::ByList;
use crate::store::redis::errors::{io_error, is_refusal};
use crate::store::redis::keyring::{KeyOf, KeyPart};
use crate::store::redis::link::{Ender, Hearing, Link, Waker};

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
    /// The key that names changes to accept, which matters while one is held.
    pub(crate) accepts: bool,
    /// The services that changes were about, unless of their releases alone.
    pub(crate) services: BTreeSet<usize>,
    /// Those of whose releases something was changed.
    pub(crate) releases: BTreeSet<usize>,
}

impl AnnouncedChanges {
    pub(super) const ALL: Self = Self {
        all: true,
        accepts: false,
        services: BTreeSet::new(),
        releases: BTreeSet::new(),
    };

    /// A change of the accept key.
    pub(super) const ACCEPTS: Self = Self {
        all: false,
        accepts: true,
        services: BTreeSet::new(),
        releases: BTreeSet::new(),
    };

    pub(super) fn of(key: KeyOf) -> Self {
        let mut changes = Self::default();
        changes.note(key);
        changes
    }

    /// Adds a change of this key.
    pub(super) fn note(&mut self, key: KeyOf) {
        match key.part.is_of_release() {
            true => self.releases.insert(key.service),
            false => self.services.insert(key.service),
        };
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.all && !self.accepts && self.services.is_empty() && self.releases.is_empty()
    }

    /// True if there is something, and all of it is about releases.
    pub(crate) fn are_of_releases(&self) -> bool {
        !self.all && self.services.is_empty() && !self.releases.is_empty()
    }

    /// True if there is nothing but a change of the accept key.
    pub(crate) fn accept_alone(&self) -> bool {
        self.accepts && !self.all && self.services.is_empty() && self.releases.is_empty()
    }

    /// All services that the changes were about.
    pub(crate) fn about(&self) -> impl Iterator<Item = usize> {
        self.services.union(&self.releases).copied()
    }

    /// Adds another.
    pub(crate) fn add(&mut self, mut other: Self) {
        self.all |= other.all;
        self.accepts |= other.accepts;
        self.services.append(&mut other.services);
        self.releases.append(&mut other.releases);
    }
}

/// The receiving end of a subscription. Its connection ends with it.
pub(crate) struct Subscription {
    /// Holds one item at most.
    pub(crate) news: Receiver<SubscriptionNews>,
    heard: Arc<HeardChanges>,
    /// The keys besides lists of whose changes the server must not tell.
    pub(crate) deaf: Vec<KeyOf>,
    /// The last of our questions that was answered.
    answered: Receiver<u64>,
    waker: Option<Arc<Waker>>,
    _ender: Option<Ender>,
}

/// What a subscription has heard.
#[derive(Default)]
pub(super) struct HeardChanges {
    changes: AtomicU64,
    announced: Mutex<AnnouncedChanges>,
    /// What the last event of each key of a service was, where events are heard.
    last: Vec<LastEvents>,
}

impl HeardChanges {
    /// Of so many services, of each of whose keys the last event is kept.
    pub(super) fn of_services(count: usize) -> Self {
        let last = (0..count).map(|_| LastEvents::default());
        Self {
            last: last.collect(),
            ..Self::default()
        }
    }

    /// Keeps the event of a key.
    pub(super) fn note(&self, key: &KeyOf, event: &Value) {
        self.last[key.service].note(key.part, event);
    }

    fn announced(&self) -> MutexGuard<'_, AnnouncedChanges> {
        // Whole at any moment.
        let announced = self.announced.lock();
        announced.unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the last event of each key of a service was.
#[derive(Debug, Default)]
struct LastEvents {
    lists: ByList<AtomicU8>,
    salt: AtomicU8,
    tripped: AtomicU8,
    release: AtomicU8,
}

impl LastEvents {
    const EVICTED: u8 = 1;
    const OTHER: u8 = 2;

    fn of(&self, part: KeyPart) -> &AtomicU8 {
        match part {
            KeyPart::List(list) => &self.lists[list],
            KeyPart::Salt => &self.salt,
            KeyPart::Tripped => &self.tripped,
            KeyPart::Release => &self.release,
        }
    }

    fn note(&self, part: KeyPart, event: &Value) {
        let is_evicted = matches!(event, Value::BulkString(it) if it == b"evicted");
        let event = if is_evicted {
            Self::EVICTED
        } else {
            Self::OTHER
        };
        self.of(part).store(event, Ordering::Relaxed);
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

    /// The same, which does not hear of these keys.
    pub(super) fn without(self, deaf: Vec<KeyOf>) -> Self {
        Self { deaf, ..self }
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

    /// Whether a key was evicted, by the last event; `None` where there was none.
    pub(crate) fn was_evicted(&self, key: KeyOf) -> Option<bool> {
        let last = self.heard.last.get(key.service)?.of(key.part);
        match last.load(Ordering::Relaxed) {
            LastEvents::EVICTED => Some(true),
            LastEvents::OTHER => Some(false),
            _ => None,
        }
    }
}

/// Subscribes to all of these channels, or to none.
pub(super) fn subscribe(link: &mut Link, channels: &[&str]) -> RedisResult<()> {
    link.send(&redis::cmd("SUBSCRIBE").arg(channels).get_packed_command())?;
    for _ in channels {
        link.receive()?.extract_error()?;
    }
    Ok(())
}

/// Forwards changes, in a thread of its own, until the connection ends: what `hears` makes of a message's
/// channel and payload.
pub(super) fn follow(
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
