//! The heartbeat: a key with a time to live by which other machines know this gateway.
//!
//! It is written every beat, and at once when the lists in force or something else in it has changed, by
//! a thread and on a connection of its own: whatever happens to it, the lists are followed and requests
//! are served. Nobody subscribes to these keys; a subscription that is told of them all the same
//! (tracking knows only prefixes) does not read the lists because of them.
//!
//! The key vanishes by itself when the gateway is gone, and is deleted at a clean shutdown.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use redis::{RedisError, RedisResult, Value};

use super::index::Index;
use crate::config;
use crate::fleet::node::{GRAMMAR, Node, NodeService, NodeVerdict};
use crate::fleet::release::{NodeRelease, PeersUp};
use crate::store::flaps::{Flaps, Success};
use crate::store::redis::errors::{describe, io_error};
use crate::store::redis::link::Link;
use crate::store::redis::place::Finder;
use crate::store::redis::{cluster, transaction};

/// The time to live, in beats.
const BEATS: u32 = 3;

/// The shortest time between two beats, however often the lists change.
const GAP: Duration = Duration::from_millis(50);

/// After a refusal the next attempt is this many beats later, within these limits.
const REFUSED_BEATS: u32 = 5;
const REFUSED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// After a failure the next attempt is a beat later, but no later than this.
const FAILED: Duration = Duration::from_secs(1);

/// How long the end of the gateway waits for the key to be deleted.
const END_LIMIT: Duration = Duration::from_secs(1);

/// The heartbeat of this gateway.
pub(crate) struct Heartbeat {
    shared: Arc<HeartbeatShared>,
    wake: Sender<()>,
    ended: Receiver<()>,
}

/// The outcomes of the heartbeats so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeartbeatCounts {
    /// How many were written.
    pub written: u64,
    /// How many the server has refused.
    pub refused: u64,
    /// How many could not be written for another reason.
    pub failed: u64,
    /// What is wrong at present.
    pub error: Option<String>,
}

struct HeartbeatShared {
    node: String,
    ends: AtomicBool,
    /// Another process of this gateway beats.
    rests: AtomicBool,
    counts: Mutex<HeartbeatCounts>,
}

impl HeartbeatShared {
    fn counts(&self) -> MutexGuard<'_, HeartbeatCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ends(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }
}

/// What a gateway has to report at a moment. The heartbeat does not look into it.
#[derive(Clone, Debug)]
pub(crate) struct NodeReport {
    /// Its generation; see `Node`.
    pub generation: u64,
    /// Its digest, if there is one yet.
    pub digest: Option<String>,
    /// How it learns of changes.
    pub mode: &'static str,
    /// The names of what is held.
    pub held: Vec<String>,
    /// The version that is taken back, if one is.
    pub tripped: Option<String>,
    /// What it holds of the release beside the lists, if it looks at that.
    pub release: Option<NodeRelease>,
    /// How the servers of `pre` do.
    pub pre: Option<PeersUp>,
    /// The same of the services besides the default one.
    pub services: BTreeMap<String, NodeService>,
    /// What grammar its entries need.
    pub entries_used: u64,
    /// What it has seen of releases.
    pub verdicts: BTreeMap<String, NodeVerdict>,
    /// When all of it was last known to hold.
    pub checked: Option<Instant>,
    /// The server where it comes from: the heartbeat is written there, too.
    pub server: Option<SocketAddr>,
}

/// Makes a report of this moment.
type Reporter = Box<dyn Fn() -> NodeReport + Send>;

/// A bell to be rung when a report may have changed, and its receiving end. One ring is remembered.
pub(crate) fn bell() -> (Sender<()>, Receiver<()>) {
    bounded(1)
}

impl Heartbeat {
    /// Writes a heartbeat every `beat`, and whenever the bell rings and something has changed; not before the
    /// end of its rest, if it `rests`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start(
        settings: config::RedisSettings,
        beat: Duration,
        report: impl Fn() -> NodeReport + Send + 'static,
        (wake, news): (Sender<()>, Receiver<()>),
        rests: bool,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(HeartbeatShared {
            node: settings.fleet.node.clone(),
            ends: AtomicBool::new(false),
            rests: AtomicBool::new(rests),
            counts: Mutex::default(),
        });
        let (end, ended) = bounded(0);
        let mut beater = Beater {
            key: settings.fleet.key_of(&settings.fleet.node),
            settings,
            beat,
            report: Box::new(report),
            shared: Arc::clone(&shared),
            news,
            instance: format!("{:016x}", fastrand::u64(..)),
            started_at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            finder: Finder::quiet(),
            open: None,
            announced: None,
            trouble: None,
            flaps: Flaps::default(),
            index: Index::default(),
            taken_told: false,
        };
        let thread = std::thread::Builder::new().name("heartbeat".to_owned());
        thread.spawn(move || {
            beater.run();
            // Nobody may be waiting any more.
            drop(end);
        })?;
        Ok(Self {
            shared,
            wake,
            ended,
        })
    }

    /// The name of this gateway.
    pub(crate) fn node(&self) -> &str {
        &self.shared.node
    }

    /// Its outcomes so far.
    pub(crate) fn counts(&self) -> HeartbeatCounts {
        self.shared.counts().clone()
    }

    /// Leaves the key to another process of this gateway, or writes it again.
    pub(crate) fn rest(&self, rests: bool) {
        self.shared.rests.store(rests, Ordering::Relaxed);
    }

    /// Deletes the key, if that does not take long, and ends the thread.
    pub(crate) fn end(&self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        // A pending ring does as well.
        let _ = self.wake.try_send(());
        // Nothing is sent here: the wait ends when the sender is gone.
        let _ = self.ended.recv_timeout(END_LIMIT);
    }
}

/// The part of a heartbeat for which others wait.
#[derive(Clone, Debug)]
struct Announced {
    generation: u64,
    digest: Option<String>,
    mode: String,
    held: Vec<String>,
    tripped: Option<String>,
    release: Option<NodeRelease>,
    pre: Option<PeersUp>,
    services: BTreeMap<String, NodeService>,
    verdicts: BTreeMap<String, NodeVerdict>,
}

impl Announced {
    fn of(node: &Node) -> Self {
        Self {
            generation: node.generation,
            digest: node.digest.clone(),
            mode: node.mode.clone(),
            held: node.held.clone(),
            tripped: node.tripped.clone(),
            release: node.release.clone(),
            pre: node.pre,
            services: node.services.clone(),
            verdicts: node.verdicts.clone(),
        }
    }

    /// Whether there is anything in it that others wait for, after the `other` one.
    fn is_news_after(&self, other: &Self) -> bool {
        let lists = |it: &Self| (it.generation, it.digest.clone(), it.held.clone());
        let is_told = |(service, it): (&String, &NodeVerdict)| {
            let told = other.verdicts.get(service);
            told.is_some_and(|told| !it.differs_much(told))
        };
        lists(self) != lists(other)
            || self.mode != other.mode
            || self.services != other.services
            || self.tripped != other.tripped
            || (&self.release, self.pre) != (&other.release, other.pre)
            || self.verdicts.len() != other.verdicts.len()
            || !self.verdicts.iter().all(is_told)
    }
}

/// A connection, and when it was made.
struct OpenLink {
    link: Link,
    /// Where the lists came from then.
    server: Option<SocketAddr>,
    since: Instant,
}

struct Beater {
    settings: config::RedisSettings,
    beat: Duration,
    report: Reporter,
    shared: Arc<HeartbeatShared>,
    news: Receiver<()>,
    key: String,
    instance: String,
    started_at: String,
    finder: Finder,
    open: Option<OpenLink>,
    /// What the last heartbeat that was written has told.
    announced: Option<Announced>,
    /// What was last wrong, in the server's words, if something was.
    trouble: Option<Option<String>>,
    flaps: Flaps,
    index: Index,
    taken_told: bool,
}

impl Beater {
    fn run(&mut self) {
        while !self.shared.ends() {
            if self.shared.rests.load(Ordering::Relaxed) {
                // What is there afterwards is the other process's.
                self.announced = None;
                std::thread::sleep(GAP);
                continue;
            }
            let began = Instant::now();
            // A bug here must not end what others rely on.
            let outcome = catch_unwind(AssertUnwindSafe(|| self.beat()));
            let fault = || Err(io_error("an internal error; see the line above"));
            let outcome = outcome.unwrap_or_else(|_| fault());
            let refused = outcome.as_ref().is_err_and(is_refused);
            let pause = match &outcome {
                Ok(()) => self.beat,
                Err(_) if refused => (self.beat * REFUSED_BEATS).clamp(REFUSED.0, REFUSED.1),
                Err(_) => self.beat.min(FAILED).mul_f64(1.0 + fastrand::f64() / 2.0),
            };
            self.note(outcome, refused, pause);
            // After a refusal, changes do not lead to further attempts.
            self.wait(began, pause, !refused);
        }
        self.leave();
    }

    /// Waits for the next beat, or for a change.
    fn wait(&self, began: Instant, pause: Duration, hears_news: bool) {
        let until = began + pause;
        while !self.shared.ends() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            match self.news.recv_timeout(left) {
                Ok(()) if hears_news && self.is_news() => {
                    std::thread::sleep(GAP.saturating_sub(began.elapsed()));
                    return;
                }
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                // Whoever rings has gone; the beats go on.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(left),
            }
        }
    }

    fn is_news(&self) -> bool {
        let now = Announced::of(&self.node());
        self.announced
            .as_ref()
            .is_none_or(|it| now.is_news_after(it))
    }

    fn ttl(&self) -> Duration {
        self.beat * BEATS
    }

    /// This gateway at this moment.
    fn node(&self) -> Node {
        let report = (self.report)();
        Node {
            name: self.settings.fleet.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            digest: report.digest,
            generation: report.generation,
            age_seconds: report.checked.map(|at| at.elapsed().as_secs_f64()),
            mode: report.mode.to_owned(),
            held: report.held,
            tripped: report.tripped,
            release: report.release,
            pre: report.pre,
            services: report.services,
            entries: GRAMMAR,
            entries_used: report.entries_used,
            verdicts: report.verdicts,
            instance: self.instance.clone(),
            pid: std::process::id().into(),
            started_at: self.started_at.clone(),
            ttl_ms: u64::try_from(self.ttl().as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn beat(&mut self) -> RedisResult<()> {
        // The Sentinels are asked again as often as for the lists.
        let old = |it: &mut OpenLink| it.since.elapsed() >= self.settings.check_interval;
        let server = (self.report)().server;
        match self.settings.sentinels.is_empty() {
            false => drop(self.open.take_if(old)),
            // The heartbeat goes to the server of the lists, whatever its name resolves to meanwhile.
            true if server.is_some() => drop(self.open.take_if(|it| it.server != server)),
            true => {}
        }
        let kept = self.open.is_some();
        let mut outcome = self.write();
        if outcome.is_err() && kept {
            // The server may have been restarted, or be another one now.
            outcome = self.write();
        }
        outcome
    }

    /// Writes one heartbeat. A connection on which something went wrong is not used again.
    fn write(&mut self) -> RedisResult<()> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                self.index.reconnected();
                let server = (self.report)().server;
                OpenLink {
                    link: self.finder.open(server, &self.settings)?,
                    server,
                    since: Instant::now(),
                }
            }
        };
        let node = self.node();
        let mut pipe = redis::pipe();
        pipe.cmd("GET").arg(&self.key);
        let set = pipe.cmd("SET").arg(&self.key).arg(node.to_json());
        set.arg("PX").arg(node.ttl_ms);
        // In a cluster, its key may be on another server.
        let write = |link: &mut Link| transaction::run(link, &pipe);
        let replies = cluster::follow(&mut open.link, &self.settings, write)?;
        let mut replies = replies.unwrap_or_default().into_iter();
        let (Some(before), Some(written)) = (replies.next(), replies.next()) else {
            return Err(io_error("the transaction has too few replies"));
        };
        written?;
        self.index
            .write(&mut open.link, &self.settings, self.ttl())?;
        self.open = Some(open);
        // What is there at the first beat may be left over from this gateway's predecessor.
        if self.announced.replace(Announced::of(&node)).is_some() {
            self.compare(before);
        }
        Ok(())
    }

    /// Logs when another gateway writes the same key.
    fn compare(&mut self, before: RedisResult<Value>) {
        let Ok(Value::BulkString(before)) = before else {
            return;
        };
        let other = Node::parse(&before).filter(|it| it.instance != self.instance);
        let Some(other) = other else {
            return;
        };
        if !std::mem::replace(&mut self.taken_told, true) {
            let (key, pid, started) = (&self.key, other.pid, other.started_at);
            log::warn!(
                "heartbeat-name-taken key={key:?} other_pid={pid} other_started={started:?} \
                 reason=\"two gateways have the same name: node in [redis]\""
            );
        }
    }

    fn note(&mut self, outcome: RedisResult<()>, refused: bool, pause: Duration) {
        let mut counts = self.shared.counts();
        let Err(error) = outcome else {
            counts.written += 1;
            counts.error = None;
            let (key, trouble) = (&self.key, self.trouble.take());
            match self.flaps.succeeded(Instant::now()) {
                Success::Again if trouble.is_some() => log::info!("heartbeat-written key={key:?}"),
                Success::Nothing | Success::Again => {}
                Success::Unsteady => log::warn!(
                    "heartbeat-unsteady key={key:?} reason=\"it fails and is written again and \
                     again; told again when it lasts, or is over\""
                ),
                Success::Steady(untold) => {
                    log::info!("heartbeat-steady key={key:?} untold={untold}");
                }
            }
            return;
        };
        let words = self.finder.describe(&error);
        let kind = error.code().map(str::to_owned);
        let (count, name) = match refused {
            true => (&mut counts.refused, "refused"),
            false => (&mut counts.failed, "failed"),
        };
        *count += 1;
        let is_told = self.flaps.failed(refused, Instant::now());
        if is_told && self.trouble.as_ref() != Some(&kind) {
            let key = &self.key;
            log::warn!("heartbeat-{name} key={key:?} error={words:?} retry={pause:?}");
            self.trouble = Some(kind);
        }
        counts.error = Some(words);
    }

    /// Deletes the key, unless another gateway has written it since.
    fn leave(&mut self) {
        // Otherwise it is about to expire, or was never there.
        let Some(mut open) = self.open.take() else {
            return;
        };
        let outcome = match delete(&mut open.link, &self.key, &self.instance) {
            Ok(true) => self.index.remove(&mut open.link, &self.settings).map(drop),
            outcome => outcome.map(drop),
        };
        if let Err(error) = outcome {
            let error = describe(&error);
            log::debug!("heartbeat-not-deleted key={:?} error={error:?}", self.key);
        }
    }
}

/// True when the key was this gateway's own.
fn delete(link: &mut Link, key: &str, instance: &str) -> RedisResult<bool> {
    link.ask(redis::cmd("WATCH").arg(key))?;
    let value = link.ask(redis::cmd("GET").arg(key))?;
    let value: Option<Vec<u8>> = redis::from_redis_value(value)?;
    let node = value.and_then(|it| Node::parse(&it));
    if node.is_none_or(|it| it.instance != instance) {
        return Ok(false);
    }
    let mut pipe = redis::pipe();
    pipe.cmd("DEL").arg(key);
    // It was touched meanwhile if there are no replies.
    let replies = transaction::run(link, &pipe)?.unwrap_or_default();
    let replies = replies.into_iter().collect::<RedisResult<Vec<_>>>()?;
    Ok(!replies.is_empty())
}

/// True for errors that will recur with the next attempt.
fn is_refused(error: &RedisError) -> bool {
    let codes = ["NOPERM", "READONLY", "OOM", "MISCONF", "NOREPLICAS", "ERR"];
    error.code().is_some_and(|it| codes.contains(&it))
}
