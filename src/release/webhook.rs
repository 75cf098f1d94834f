//! Telling people: messages wait in a queue, and a thread of its own posts one after the other.
//!
//! Whoever tells never waits. Order is kept, so a message that is not taken holds up those behind it: it is
//! tried [`TRIES`] times within a few minutes, and then given up. What does not fit into the queue is
//! counted, and said. At the end of the gateway, what waits is tried once more, within [`END_LIMIT`].
//!
//! A reload changes where messages go at once, even the one that is being tried.

mod message;
mod notice;
mod sending;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use self::message::NotTaken;
pub(crate) use self::notice::{NoticeKind, ReleaseNotice};
pub(crate) use self::sending::post;
use crate::config::{Config, Store, WebhookSettings};
use crate::process::supervised;

/// Messages that may wait.
const QUEUE: usize = 100;

/// Attempts to deliver one.
const TRIES: u32 = 6;

/// The pauses between them, more or less.
const PAUSES: [Duration; TRIES as usize - 1] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(15),
    Duration::from_secs(45),
    Duration::from_secs(120),
];

/// How long the end of the gateway waits for messages.
const END_LIMIT: Duration = Duration::from_secs(3);

/// Where people are told. One for the process.
pub(crate) struct Webhook {
    state: Mutex<WebhookState>,
    changed: Condvar,
    counts: [AtomicU64; WebhookResult::ALL.len()],
}

/// Tells of a message whether it has been delivered, or was given up.
#[derive(Clone, Debug, Default)]
pub(crate) struct NoticeReceipt(Arc<AtomicBool>);

impl NoticeReceipt {
    /// Nobody tries to deliver it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn end(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct WebhookState {
    settings: Option<Arc<WebhookSettings>>,
    /// The name of this gateway.
    node: String,
    queue: VecDeque<(ReleaseNotice, NoticeReceipt)>,
    /// Another process of this gateway tells.
    rests: bool,
    /// It was said that the queue is full.
    is_full_told: bool,
    /// When the process ends, if it is about to.
    ends: Option<Instant>,
}

/// What becomes of a message, or of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WebhookResult {
    /// It was taken.
    Delivered,
    /// An attempt has failed, and there will be another one.
    Retried,
    /// It was given up.
    Failed,
    /// There was no room for it.
    Dropped,
}

impl WebhookResult {
    /// Every one.
    pub(crate) const ALL: [Self; 4] = [Self::Delivered, Self::Retried, Self::Failed, Self::Dropped];

    /// Its label.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retried => "retried",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

/// The name of the gateway with these settings, as the fleet has it.
pub(crate) fn node_of(config: &Config) -> String {
    let host = || nix::unistd::gethostname().unwrap_or_default();
    match &config.store {
        Store::Redis(settings) => settings.fleet.node.clone(),
        Store::File(_) => host().to_string_lossy().into_owned(),
    }
}

impl Webhook {
    /// Tells what the settings say, and nobody while it `rests`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start(config: &Config, rests: bool) -> io::Result<Arc<Self>> {
        let webhook = Arc::new(Self {
            state: Mutex::new(WebhookState {
                settings: config.webhook.clone().map(Arc::new),
                node: node_of(config),
                queue: VecDeque::new(),
                rests,
                is_full_told: false,
                ends: None,
            }),
            changed: Condvar::new(),
            counts: Default::default(),
        });
        let own = Arc::clone(&webhook);
        supervised::spawn("webhook", move || own.deliver_all())?;
        Ok(webhook)
    }

    /// Has somebody told. Nothing is waited for.
    pub(crate) fn tell(&self, notice: ReleaseNotice) {
        let _ = self.tell_for_receipt(notice);
    }

    /// As [`Self::tell`]; `None` where that is up to another process.
    pub(crate) fn tell_for_receipt(&self, notice: ReleaseNotice) -> Option<NoticeReceipt> {
        let receipt = NoticeReceipt::default();
        let mut state = self.state();
        if state.rests {
            return None;
        }
        if state.settings.is_none() {
            receipt.end();
            return Some(receipt);
        }
        if state.queue.len() < QUEUE {
            state.queue.push_back((notice, receipt.clone()));
            drop(state);
            self.changed.notify_all();
            return Some(receipt);
        }
        receipt.end();
        let is_told = std::mem::replace(&mut state.is_full_told, true);
        drop(state);
        self.count(WebhookResult::Dropped);
        if !is_told {
            let kind = notice.kind().name();
            log::warn!(
                "webhook-failed notice={kind} error=\"{QUEUE} others wait\" tries=0 effect=\"it is not told\""
            );
        }
        Some(receipt)
    }

    /// From now on, tells as the settings say.
    pub(crate) fn follow(&self, config: &Config) {
        let mut state = self.state();
        state.settings = config.webhook.clone().map(Arc::new);
        state.node = node_of(config);
        drop(state);
        self.changed.notify_all();
    }

    /// Leaves it to another process of this gateway to tell, or tells again. What waits is delivered.
    pub(crate) fn rest(&self, rests: bool) {
        self.state().rests = rests;
    }

    /// Whether this gateway has that name.
    pub(crate) fn is_node(&self, name: &str) -> bool {
        self.state().node == name
    }

    /// How often that has happened.
    pub(crate) fn counted(&self, result: WebhookResult) -> u64 {
        self.counts[result as usize].load(Ordering::Relaxed)
    }

    /// Delivers what waits, within a few seconds.
    pub(crate) fn end(&self) {
        let until = Instant::now() + END_LIMIT;
        let mut state = self.state();
        state.ends = Some(until);
        self.changed.notify_all();
        while !state.queue.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let lost = state.queue.len();
        drop(state);
        if lost > 0 {
            log::warn!(
                "webhook-failed error=\"the gateway ends\" waiting={lost} effect=\"they are not told\""
            );
        }
    }

    fn state(&self) -> MutexGuard<'_, WebhookState> {
        // Whole at any moment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, result: WebhookResult) {
        self.counts[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Delivers one message after the other, until the process ends.
    fn deliver_all(&self) {
        let mut is_told = false;
        while let Some(notice) = self.next() {
            if !self.deliver(&notice, &mut is_told) {
                return;
            }
            let mut state = self.state();
            if let Some((_, receipt)) = state.queue.pop_front() {
                receipt.end();
            }
            state.is_full_told = false;
            drop(state);
            self.changed.notify_all();
        }
    }

    /// The first that waits; it stays there. None at the end.
    fn next(&self) -> Option<ReleaseNotice> {
        let mut state = self.state();
        loop {
            if let Some((notice, _)) = state.queue.front() {
                return Some(notice.clone());
            }
            if state.ends.is_some() {
                return None;
            }
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Tries until it is taken or given up; `is_told`: the log has it that messages are not taken. False if
    /// the process ends before that.
    fn deliver(&self, notice: &ReleaseNotice, is_told: &mut bool) -> bool {
        let kind = notice.kind().name();
        let service = notice.service.in_log();
        for tries in 1..=TRIES {
            let Some((settings, node, limit)) = self.terms() else {
                return self.state().settings.is_none();
            };
            let refusal = match post(&settings, notice, &node, limit) {
                Ok(delivery) => {
                    let status = delivery.status;
                    log::info!(
                        "webhook-delivered {service}notice={kind} status={status} tries={tries}"
                    );
                    self.count(WebhookResult::Delivered);
                    *is_told = false;
                    return true;
                }
                Err(refusal) => refusal,
            };
            let pause = self.pause(tries, &refusal);
            let (url, error) = (settings.url.to_string(), refusal.why);
            let Some(pause) = pause else {
                log::warn!(
                    "webhook-failed {service}notice={kind} url={url} error={error:?} tries={tries} \
                     effect=\"it is not told\""
                );
                self.count(WebhookResult::Failed);
                *is_told = true;
                return true;
            };
            if !std::mem::replace(is_told, true) {
                log::warn!(
                    "webhook-failed {service}notice={kind} url={url} error={error:?} tries={tries} again_in={pause:.1?}"
                );
            }
            self.count(WebhookResult::Retried);
            self.wait(pause, &settings);
        }
        true
    }

    /// How the next attempt is made; `None` if nobody is to be told any more, or there is no time left.
    fn terms(&self) -> Option<(Arc<WebhookSettings>, String, Duration)> {
        let state = self.state();
        let settings = state.settings.clone()?;
        let left = state
            .ends
            .map(|it| it.saturating_duration_since(Instant::now()));
        if left.is_some_and(|it| it.is_zero()) {
            return None;
        }
        let limit = left.map_or(settings.timeout, |it| it.min(settings.timeout));
        Some((settings, state.node.clone(), limit))
    }

    /// The time until the next attempt, after so many; none if there is to be none.
    fn pause(&self, tries: u32, refusal: &NotTaken) -> Option<Duration> {
        let ends = self.state().ends.is_some();
        (refusal.passes && !ends).then(|| pause_after(tries, fastrand::f64()))?
    }

    /// Waits, unless there are other settings than these, or the process ends.
    fn wait(&self, pause: Duration, settings: &WebhookSettings) {
        let is_as_before = |state: &mut WebhookState| {
            state.ends.is_none() && state.settings.as_deref() == Some(settings)
        };
        let waited = self
            .changed
            .wait_timeout_while(self.state(), pause, is_as_before);
        drop(waited);
    }
}

/// The pause after so many attempts: longer each time, and by `chance` (0 to 1) not the same for all gateways
/// at once; `None` after the last.
fn pause_after(tries: u32, chance: f64) -> Option<Duration> {
    let pause = PAUSES.get(tries.checked_sub(1)? as usize)?;
    Some(pause.mul_f64(0.75 + chance / 2.0))
}
