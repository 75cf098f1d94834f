//! The ledger in Redis: one transaction, retried when somebody else was faster.
//!
//! All keys of the service are WATCHed, so they must be in one slot of a cluster. What is written is what has
//! changed: of a million entries, those that go and those that come.
//!
//! A connection may end when a transaction was sent and its reply has not come. Then the history is asked
//! whether the change is there, by an id that no other has.

mod by_hand;
mod reading;
pub(super) mod stream;
mod writing;

use std::time::{Duration, Instant};

use redis::{RedisError, RedisResult};
use serde_json::json;

use super::order::{Consent, Done, Hear, Order, Tend, TendedState, heard};
use crate::config::{RedisSettings, ServiceKeys};
use crate::release::change::{ListsChange, ServiceTerms};
use crate::release::history::ChangeRecord;
use crate::store::redis::cluster::Division;
use crate::store::redis::link::Link;
use crate::store::redis::place::Finder;
use crate::store::redis::{Keyring, transaction};

/// How long somebody else may be faster, or the server away after something was sent to it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest pause between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// The pause before another connection is tried.
const AWAY: Duration = Duration::from_millis(200);

/// What is said of a change whose reply has not come.
const LOST: &str = "the connection was lost; the change was made all the same";

/// So many records are read at once.
const PAGE: usize = 50;

/// The keys of a service besides its lists.
struct ReleaseKeys {
    tripped: String,
    release: String,
    /// With the lease of a rollout, as it was renewed. No gateway follows it.
    lease: String,
    history: String,
    /// With what undoes the last change that is too large for its record.
    aside: String,
}

/// See the module.
pub(crate) struct RedisLedger<'a> {
    settings: &'a RedisSettings,
    keys: ServiceKeys,
    release: ReleaseKeys,
    keyring: Keyring,
    terms: ServiceTerms,
    finder: Finder,
    link: Option<Link>,
    /// A transaction was sent and not answered: with this change.
    unanswered: Option<Box<ListsChange>>,
    /// A cluster has the accept key elsewhere.
    accepts_elsewhere: bool,
}

/// How an attempt has ended.
enum LedgerAttempt {
    Done(Box<Done>),
    /// Somebody else was faster.
    Again,
}

impl<'a> RedisLedger<'a> {
    pub(super) fn of(settings: &'a RedisSettings, terms: ServiceTerms) -> Result<Self, String> {
        let mut all = settings.services.iter();
        let keys = all.find(|it| it.service == terms.service).cloned();
        let keys = keys.ok_or("there is no such service")?;
        let named = |key: &Option<String>, setting: &str| {
            key.clone().ok_or_else(|| {
                format!(
                    "{setting} has no key of its own: its default is used for something else; set it for {}",
                    terms.service
                )
            })
        };
        let history = named(&keys.history, "history_key")?;
        let release = named(&keys.release, "release_key")?;
        let release = ReleaseKeys {
            tripped: named(&keys.tripped, "tripped_key")?,
            lease: format!("{release}:lease"),
            release,
            aside: format!("{history}:before"),
            history,
        };
        Ok(Self {
            settings,
            keyring: Keyring::new(vec![keys.clone()]),
            keys,
            release,
            terms,
            finder: Finder::quiet(),
            link: None,
            unanswered: None,
            accepts_elsewhere: false,
        })
    }

    /// See `Ledger::perform`.
    pub(super) fn perform(&mut self, order: &Order, hear: Hear<'_>) -> Result<Done, String> {
        let mut until = Instant::now() + PATIENCE;
        loop {
            let (mut refusal, mut asked_for) = (None, Duration::ZERO);
            let mut hear = |change: &ListsChange| {
                let began = Instant::now();
                let answer = hear(change);
                asked_for = began.elapsed().saturating_sub(Duration::from_secs(1));
                answer
            };
            let outcome = self.attempt(order, &mut hear, &mut refusal);
            if let Some(refusal) = refusal {
                return Err(refusal);
            }
            // Whoever is asked takes his time, and a server may end a connection meanwhile.
            until += asked_for;
            match outcome {
                Ok(LedgerAttempt::Done(done)) => return Ok(*done),
                Ok(LedgerAttempt::Again) if Instant::now() < until => {
                    std::thread::sleep(PAUSE.mul_f64(fastrand::f64()));
                }
                Ok(LedgerAttempt::Again) => {
                    let why = "others change the lists all the time";
                    return Err(format!("{}: nothing was changed: {why}", self.settings.url));
                }
                Err(error) => {
                    self.link = None;
                    let is_lost = error.code().is_none();
                    let is_worth_it = self.unanswered.is_some() || !asked_for.is_zero();
                    if is_lost && is_worth_it && Instant::now() < until {
                        std::thread::sleep(AWAY);
                        continue;
                    }
                    return Err(self.failed(&error));
                }
            }
        }
    }

    fn failed(&self, error: &RedisError) -> String {
        let url = &self.settings.url;
        let words = self.finder.describe(error);
        match (self.unanswered.is_some(), error.code()) {
            (true, _) => format!(
                "{url}: {words}; it is not known whether the change was made: see `graygate history`"
            ),
            (false, Some("NOPERM")) => format!(
                "{url}: nothing was changed: {words}; what rights this takes is in docs/redis.md, \"Rights of an operator\""
            ),
            (false, _) => format!("{url}: nothing was changed: {words}"),
        }
    }

    fn connect(&mut self) -> RedisResult<Link> {
        if let Some(link) = self.link.take() {
            return Ok(link);
        }
        let mut division = Division::default();
        self.finder
            .open_at_lists(self.settings, &self.keyring, &mut division)
    }

    fn attempt(
        &mut self,
        order: &Order,
        hear: Hear<'_>,
        refusal: &mut Option<String>,
    ) -> RedisResult<LedgerAttempt> {
        let mut link = self.connect()?;
        self.watch(&mut link)?;
        let found = self.read(&mut link, order.verb.needs_back_to())?;
        if self.unanswered.is_some() {
            let there = self.records(&mut link, PAGE, |all| all.len() >= PAGE)?;
            if let Some(record) = there.into_iter().find(|it| it.id == order.id)
                && let Some(change) = self.unanswered.take()
            {
                let notes = vec![LOST.to_owned()];
                return Ok(self.done(&mut link, *change, record.number, notes));
            }
        }
        let (change, answer) = match heard(order, &self.terms, &found, hear) {
            Ok(heard) => heard,
            Err(why) => {
                *refusal = Some(why);
                return Ok(LedgerAttempt::Again);
            }
        };
        if answer == Consent::No {
            self.link = Some(link);
            return Ok(LedgerAttempt::Done(Box::new(Done {
                change,
                number: None,
                notes: Vec::new(),
            })));
        }
        self.write(link, order, change, &found)
    }

    /// See `Ledger::tend`.
    pub(super) fn tend(&mut self, tend: Tend<'_>) -> Result<bool, String> {
        let outcome = self.tend_once(tend);
        outcome.map_err(|error| format!("{}: {}", self.settings.url, self.finder.describe(&error)))
    }

    fn tend_once(&mut self, tend: Tend<'_>) -> RedisResult<bool> {
        let mut link = self.connect()?;
        let (key, lease) = (&self.release.release, &self.release.lease);
        link.ask(redis::cmd("WATCH").arg(key))
            .map_err(|error| self.explained(error))?;
        let text = link.ask(redis::cmd("GET").arg(key))?;
        let mut state = self.state(redis::from_redis_value(text)?)?;
        self.add_renewal(&mut link, &mut state)?;
        let mut pipe = redis::pipe();
        match tend(&state) {
            // That ends the WATCH, by what is allowed anyway.
            TendedState::Kept => {}
            TendedState::Changed(state) => {
                pipe.cmd("SET").arg(key).arg(json!(state).to_string());
            }
            TendedState::Renewed(renewal) => {
                let text = renewal.to_json().to_string();
                pipe.cmd("SET").arg(lease).arg(text);
            }
        }
        let replies = transaction::run(&mut link, &pipe)?;
        let is_written = replies.is_some() || pipe.is_empty();
        let mut replies = replies.into_iter().flatten();
        replies.try_for_each(|it| it.map(drop))?;
        self.link = Some(link);
        Ok(is_written)
    }

    /// See `Ledger::history`.
    pub(super) fn history(&mut self, most: usize) -> Result<Vec<ChangeRecord>, String> {
        let read = |it: &mut Self| {
            let mut link = it.connect()?;
            let mut all = it.records(&mut link, PAGE, |all| all.len() >= most)?;
            all.truncate(most);
            Ok(all)
        };
        read(self).map_err(|error: RedisError| {
            format!("{}: {}", self.settings.url, self.finder.describe(&error))
        })
    }
}
