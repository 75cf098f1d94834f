//! Writing trips to the store, so that they hold for all; and the file for the next process.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use redis::{RedisError, RedisResult};

use super::known::{BegunAnew, HeldTrip};
use super::place::TripsPlace;
use super::{Trips, memory, record};
use crate::config::{RedisSettings, Store};
use crate::lists::ServiceName;
use crate::release::history::ChangeRecord;
use crate::release::ledger::{added, newest, note_beside};
use crate::release::state::{ReleaseState, Trip, with_epoch};
use crate::release::webhook::ReleaseNotice;
use crate::store::file::beside;
use crate::store::redis::errors::{describe, io_error};
use crate::store::redis::link::Link;
use crate::store::redis::place::Finder;
use crate::store::redis::{Division, Keyring, transaction};

/// Time between two looks at all services, and between two attempts to write.
const LOOK: Duration = Duration::from_secs(1);

/// A trip that was written is seen by then, or was removed or lost.
const SEEN: Duration = Duration::from_secs(5);

/// Time between two attempts to write an epoch.
const PAUSE: Duration = Duration::from_secs(2);

/// So long an epoch is left to gateways that take versions back, by one that only observes; and nobody says
/// that it cannot write what another one may write.
const OTHERS: Duration = Duration::from_secs(5);

/// People are told of a trip that cannot be written after that time.
const ALONE: Duration = Duration::from_secs(10);

/// What has come of an attempt to write.
enum Written {
    /// The store has it.
    Yes,
    /// It has another gateway's, of the same version.
    Before,
    /// It is over, as this state says, where it is that.
    Over(Option<Box<ReleaseState>>),
    /// The store has no lists: it is filled first.
    Empty,
    /// Somebody has changed something meanwhile.
    Again,
}

/// What was tried for a service.
struct Attempt {
    service: ServiceName,
    held: HeldTrip,
    since: Instant,
    at: Instant,
    was_written: bool,
    is_over: bool,
    /// The state of the store that says so, if one does.
    over_by: Option<Box<ReleaseState>>,
    /// What was said of it.
    told: Option<String>,
}

/// What has come of an epoch that is to be written.
struct EpochAttempt {
    begun: BegunAnew,
    since: Instant,
    /// Not before this.
    due: Instant,
    is_told: bool,
}

impl EpochAttempt {
    fn new(begun: BegunAnew, is_enforcing: bool) -> Self {
        let now = Instant::now();
        Self {
            begun,
            since: now,
            due: if is_enforcing { now } else { now + OTHERS },
            is_told: false,
        }
    }

    fn make(&mut self, settings: &RedisSettings, service: &ServiceName) {
        let outcome = write_epoch(settings, service, &self.begun);
        let pause = if outcome.is_ok() { SEEN } else { PAUSE };
        self.due = Instant::now() + pause;
        // Until then, another gateway may have written it.
        if let Err(error) = outcome
            && self.since.elapsed() >= OTHERS
            && !std::mem::replace(&mut self.is_told, true)
        {
            let (name, epoch) = (service.in_log(), &self.begun.epoch);
            log::warn!(
                "epoch-unwritten {name}epoch={epoch} error={error:?} effect=\"who has not seen that the trip is over \
                 goes on with its evidence\""
            );
        }
    }
}

impl Trips {
    /// Writes what is to be written, for as long as the process lives.
    pub(super) fn write_all(&self, news: &Receiver<()>) {
        let mut attempts: Vec<Attempt> = Vec::new();
        let mut epochs = BTreeMap::new();
        // What people were told last.
        let mut noticed: BTreeMap<ServiceName, Trip> = BTreeMap::new();
        loop {
            // A ring or not.
            let _ = news.recv_timeout(LOOK);
            self.tick();
            let (place, unwritten) = self.unwritten();
            if place.rests {
                continue;
            }
            self.save();
            self.write_epochs(&place, &mut epochs);
            attempts.retain(|it| unwritten.contains(&(it.service.clone(), it.held.clone())));
            for (service, held) in unwritten {
                let known = attempts.iter().position(|it| it.service == service);
                let mut attempt = match known {
                    Some(at) if !attempts[at].is_due() => continue,
                    Some(at) => attempts.swap_remove(at),
                    None => Attempt::new(service, held),
                };
                let known = attempt.make(&place, self);
                let trip = &attempt.held.trip;
                if let Some(is_stored) = known
                    && trip.by == place.node
                    && noticed.get(&attempt.service) != Some(trip)
                {
                    let notice = ReleaseNotice::tripped(&attempt.service, trip, is_stored);
                    self.webhook.tell(notice);
                    noticed.insert(attempt.service.clone(), trip.clone());
                }
                match attempt.is_over {
                    true => self.is_over(&attempt.service, &attempt.held.trip, attempt.over_by),
                    false => attempts.push(attempt),
                }
            }
        }
    }

    /// What the store does not have.
    fn unwritten(&self) -> (TripsPlace, Vec<(ServiceName, HeldTrip)>) {
        let known = self.known();
        let unwritten = known.services.iter().filter_map(|(service, it)| {
            let held = it.held.as_ref().filter(|it| !it.is_stored)?;
            Some((service.clone(), held.clone()))
        });
        (known.place.clone(), unwritten.collect())
    }

    /// Writes epochs that have begun since somebody has deleted a key, for gateways that have not seen that;
    /// those whose `attempts` are due.
    fn write_epochs(&self, place: &TripsPlace, attempts: &mut BTreeMap<ServiceName, EpochAttempt>) {
        let Store::Redis(settings) = &place.store else {
            // Whoever reads the file sees what becomes of it.
            return;
        };
        let begun: BTreeMap<ServiceName, BegunAnew> = {
            let known = self.known();
            let services = known.services.iter().filter_map(|(service, it)| {
                let begun = it.begun_anew.as_ref();
                let begun = begun.filter(|begun| begun.after == it.state.epoch)?;
                Some((service.clone(), begun.clone()))
            });
            services.collect()
        };
        attempts.retain(|service, it| begun.get(service) == Some(&it.begun));
        for (service, begun) in begun {
            let is_enforcing = place.enforcing.contains(&service);
            let attempt = attempts.entry(service.clone());
            let attempt = attempt.or_insert_with(|| EpochAttempt::new(begun, is_enforcing));
            if Instant::now() >= attempt.due {
                attempt.make(settings, &service);
            }
        }
    }

    /// True while the store does not have this trip, as far as is known.
    fn is_unwritten(&self, service: &ServiceName, trip: &Trip) -> bool {
        let known = self.known();
        let held = known.services.get(service).and_then(|it| it.held.as_ref());
        held.is_some_and(|it| !it.is_stored && it.trip == *trip)
    }

    /// A trip that could not be written is over: somebody has reset the release since.
    fn is_over(&self, service: &ServiceName, trip: &Trip, by: Option<Box<ReleaseState>>) {
        let mut known = self.known();
        let Some(release) = known.services.get_mut(service) else {
            return;
        };
        let is_it = |it: &HeldTrip| !it.is_stored && it.trip == *trip;
        if release.held.take_if(|it| is_it(it)).is_some() {
            // At once, or the evidence of before would take it back again until the next reading.
            release.ended_by = by.as_ref().and_then(|it| it.reset.clone());
            if let Some(state) = by {
                release.see_state(*state);
            }
            self.settle(service, release);
            known.is_unsaved = true;
            drop(known);
            self.ring();
        }
    }

    /// Writes the file, if it says something else.
    pub(super) fn save(&self) {
        let told = self.saving.lock();
        let mut told = told.unwrap_or_else(PoisonError::into_inner);
        let mut known = self.known();
        if !known.is_unsaved || known.place.rests {
            return;
        }
        let (place, services) = (known.place.clone(), known.services.clone());
        known.is_unsaved = false;
        drop(known);
        match memory::write(&place, &services) {
            Ok(()) => *told = None,
            Err(error) => {
                self.known().is_unsaved = true;
                let error = error.to_string();
                if told.as_ref() != Some(&error) {
                    log::warn!("trips-not-saved error={error:?}");
                }
                *told = Some(error);
            }
        }
    }
}

impl Attempt {
    fn new(service: ServiceName, held: HeldTrip) -> Self {
        Self {
            service,
            held,
            since: Instant::now(),
            at: Instant::now(),
            was_written: false,
            is_over: false,
            over_by: None,
            told: None,
        }
    }

    fn is_due(&self) -> bool {
        let pause = if self.was_written { SEEN } else { LOOK };
        self.at.elapsed() >= pause
    }

    /// Tries to write it. True if the store has it now; false if people should know that it does not; `None`
    /// if there is nothing to tell.
    fn make(&mut self, place: &TripsPlace, trips: &Trips) -> Option<bool> {
        let trip = &self.held.trip;
        let is_wanted = || trips.is_unwritten(&self.service, trip);
        let lists = trips.in_force.load_of(&self.service);
        let lists = lists.map_or_else(String::new, |it| it.digest.to_string());
        let noted = |newest: &[ChangeRecord]| record::record(&self.service, trip, newest, &lists);
        let outcome = match &place.store {
            Store::Redis(settings) => {
                write_to_redis(settings, &self.service, (&self.held, &noted), &is_wanted)
            }
            Store::File(path) => {
                let written = write_beside(path, &self.service, trip);
                if let Ok(Written::Yes) = written
                    && let Err(error) = note_beside(path, &self.service, &noted)
                {
                    tell_unrecorded(&self.service, &error);
                }
                written.map_err(|it| it.to_string())
            }
        };
        self.at = Instant::now();
        self.was_written = matches!(outcome, Ok(Written::Yes | Written::Before));
        let (name, pre) = (self.service.in_log(), &trip.pre);
        let error = match outcome {
            Ok(written @ (Written::Yes | Written::Before)) => {
                log::info!("trip-written {name}pre={pre}");
                self.told = None;
                return matches!(written, Written::Yes).then_some(true);
            }
            Ok(Written::Over(by)) => {
                (self.is_over, self.over_by) = (true, by);
                return None;
            }
            Ok(Written::Again) => return None,
            Ok(Written::Empty) => "the store has no lists".to_owned(),
            Err(error) => error,
        };
        if self.told.as_ref() != Some(&error) {
            log::warn!(
                "trip-unwritten {name}pre={pre} error={error:?} effect=\"it holds in this gateway, and is written as \
                 soon as that is possible\""
            );
        }
        self.told = Some(error);
        (self.since.elapsed() >= ALONE).then_some(false)
    }
}

/// Makes the record of a trip, of the newest ones that there are.
type RecordOf<'a> = &'a dyn Fn(&[ChangeRecord]) -> Option<ChangeRecord>;

/// Says that the history cannot say it.
fn tell_unrecorded(service: &ServiceName, error: &str) {
    let name = service.in_log();
    log::info!(
        "history-refused {name}error={error:?} effect=\"that the version was taken back is not in the history\""
    );
}

/// Writes a trip to Redis, unless it has one of the same version, or its release is in none of these
/// `epochs`.
///
/// # Errors
/// In words, why it cannot be written.
fn write_to_redis(
    settings: &RedisSettings,
    service: &ServiceName,
    (held, noted): (&HeldTrip, RecordOf<'_>),
    is_wanted: &dyn Fn() -> bool,
) -> Result<Written, String> {
    let mut finder = Finder::quiet();
    let keys = settings.services.iter().find(|it| it.service == *service);
    let Some(keys) = keys else {
        return Ok(Written::Over(None));
    };
    let Some(tripped) = &keys.tripped else {
        return Err("its tripped_key is the key of something else".to_owned());
    };
    let keyring = Keyring::new(vec![keys.clone()]);
    let outcome = finder
        .open_at_lists(settings, &keyring, &mut Division::default())
        .and_then(|mut link| {
            let history = keys.history.as_deref();
            let keys = (tripped.as_str(), keys.release.as_deref(), &*keys.lists.pre);
            let written = write_there(&mut link, keys, (held, noted), history, is_wanted);
            match written {
                // It may be the history alone that is refused.
                Err(error) if history.is_some() && error.code().is_some() => {
                    let written = write_there(&mut link, keys, (held, noted), None, is_wanted);
                    if written.is_ok() {
                        tell_unrecorded(service, &describe(&error));
                    }
                    written
                }
                written => written,
            }
        });
    outcome.map_err(|error| match error.code() {
        Some("MOVED" | "CROSSSLOT") => format!(
            "{}; give tripped_key, release_key and the lists one hash tag",
            describe(&error)
        ),
        _ => finder.describe(&error),
    })
}

/// Writes to Redis that the release has another epoch, unless it has had one since.
///
/// # Errors
/// In words, why it cannot be written.
fn write_epoch(
    settings: &RedisSettings,
    service: &ServiceName,
    begun: &BegunAnew,
) -> Result<(), String> {
    let mut finder = Finder::quiet();
    let keys = settings.services.iter().find(|it| it.service == *service);
    let Some((keys, release)) = keys.and_then(|it| Some((it, it.release.as_deref()?))) else {
        return Ok(());
    };
    let keyring = Keyring::new(vec![keys.clone()]);
    let outcome = finder
        .open_at_lists(settings, &keyring, &mut Division::default())
        .and_then(|mut link| {
            link.ask(redis::cmd("WATCH").arg(release))?;
            let text = link.ask(redis::cmd("GET").arg(release))?;
            let text: Option<Vec<u8>> = redis::from_redis_value(text).map_err(RedisError::from)?;
            let Some(next) = with_epoch(
                text.as_deref().unwrap_or_default(),
                &begun.after,
                &begun.epoch,
            ) else {
                return Ok(());
            };
            let mut pipe = redis::pipe();
            pipe.cmd("SET").arg(release).arg(next);
            // Where somebody else was faster, that is seen before the next attempt.
            let replies = transaction::run(&mut link, &pipe)?;
            replies
                .into_iter()
                .flatten()
                .try_for_each(|it| it.map(drop))
        });
    outcome.map_err(|error| finder.describe(&error))
}

fn write_there(
    link: &mut Link,
    (tripped, release, pre): (&str, Option<&str>, &str),
    (held, noted): (&HeldTrip, RecordOf<'_>),
    history: Option<&str>,
    is_wanted: &dyn Fn() -> bool,
) -> RedisResult<Written> {
    let trip = &held.trip;
    // Of no history there is no argument.
    link.ask(redis::cmd("WATCH").arg(tripped).arg(history))?;
    let get = |link: &mut Link, key: &str| -> RedisResult<Option<Vec<u8>>> {
        redis::from_redis_value(link.ask(redis::cmd("GET").arg(key))?).map_err(RedisError::from)
    };
    let before = get(link, tripped)?;
    let before = before.as_deref().and_then(Trip::parse);
    if let Some(before) = before.filter(|it| it.pre == trip.pre) {
        return Ok(written_before(&before, trip));
    }
    // Whoever may not read it does not know of a reset by others, as it does not otherwise.
    let state = release.and_then(|key| get(link, key).ok().flatten());
    let state = state.map(|it| ReleaseState::parse(&it));
    if let Some(state) = state.filter(|it| held.is_over(it)) {
        return Ok(Written::Over(Some(Box::new(state))));
    }
    let kind = link.ask(redis::cmd("TYPE").arg(pre))?;
    if redis::from_redis_value::<String>(kind)? == "none" {
        return Ok(Written::Empty);
    }
    // It may have been seen there since, and deleted.
    if !is_wanted() {
        return Ok(Written::Again);
    }
    let mut pipe = redis::pipe();
    pipe.cmd("SET").arg(tripped).arg(trip.to_json().to_string());
    if let Some(history) = history
        && let Some(record) = noted(&newest(link, history, record::LOOKED_AT)?)
    {
        pipe.add_command(added(history, &record));
    }
    let Some(replies) = transaction::run(link, &pipe)? else {
        return Ok(Written::Again);
    };
    let reply = replies.into_iter().next();
    reply.ok_or_else(|| io_error("the transaction has too few replies"))??;
    Ok(Written::Yes)
}

/// Writes a trip beside the lists file, unless there is one of the same version.
fn write_beside(lists: &Path, service: &ServiceName, trip: &Trip) -> io::Result<Written> {
    let path = beside(lists, service, "tripped");
    let before = match fs::read(&path) {
        Ok(text) => Trip::parse(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some(before) = before.filter(|it| it.pre == trip.pre) {
        return Ok(written_before(&before, trip));
    }
    memory::replace(&path, format!("{}\n", trip.to_json()).as_bytes())?;
    Ok(Written::Yes)
}

/// What the store has is this very trip, of which it could not be known that it was written; or another's.
fn written_before(before: &Trip, trip: &Trip) -> Written {
    match (&before.by, &before.at) == (&trip.by, &trip.at) {
        true => Written::Yes,
        false => Written::Before,
    }
}
