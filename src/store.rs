//! Where the lists come from, and how they come into force.
//!
//! A store (Redis, or a lists file) is watched by a thread of its own, which reads all three lists
//! at once and hands them to the [`Publisher`]. The publisher parses them, holds back what must
//! not come into force, and replaces the snapshot that the workers read with one pointer swap.
//! Each list stands for itself: one that cannot be accepted keeps its last good value, and does
//! not keep the others from changing.
//!
//! Not here: what the lists mean ([`crate::lists`], [`crate::route`]).

pub mod copy;
pub mod file;
pub mod guard;
pub mod redis;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use crate::lists::{GrayList, ListName, Lists, PeerList};
use crate::snapshot::Published;

/// Why the lists were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The gateway started.
    Start,
    /// The store told of a change: a keyspace event, or a new version of the file.
    Event,
    /// The time for a full check had come.
    Check,
    /// The connection to the store was made again.
    Reconnect,
}

impl Cause {
    /// Every cause, in the order of [`Status::refreshes`].
    pub const ALL: [Self; 4] = [Self::Start, Self::Event, Self::Check, Self::Reconnect];

    /// The name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Event => "event",
            Self::Check => "check",
            Self::Reconnect => "reconnect",
        }
    }
}

/// What one look at the store gave: for each list its entries, or why it cannot be read.
#[derive(Debug)]
pub struct Reading {
    /// The gray list.
    pub gray: Result<Vec<Vec<u8>>, Fault>,
    /// The peers of the new version.
    pub pre: Result<Vec<Vec<u8>>, Fault>,
    /// The peers of the old version.
    pub prod: Result<Vec<Vec<u8>>, Fault>,
}

impl Reading {
    /// What was read of one list.
    fn of(&mut self, list: ListName) -> &mut Result<Vec<Vec<u8>>, Fault> {
        match list {
            ListName::Gray => &mut self.gray,
            ListName::Pre => &mut self.pre,
            ListName::Prod => &mut self.prod,
        }
    }
}

/// Why a list keeps its last good value instead of what the store says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The key is neither a list nor a set.
    WrongType,
    /// There are entries, but none of them can be read.
    AllSkipped,
    /// The change would leave `prod` without a peer.
    HeldEmptyProd,
    /// The list was found empty, but only this once: it may be about to be filled again.
    Unsettled,
}

impl Fault {
    /// The name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WrongType => "wrong-type",
            Self::AllSkipped => "all-skipped",
            Self::HeldEmptyProd => "held-empty-prod",
            Self::Unsettled => "unsettled",
        }
    }

    /// How grave it is.
    const fn level(self) -> log::Level {
        match self {
            Self::WrongType | Self::AllSkipped | Self::HeldEmptyProd => log::Level::Error,
            // Passes by itself, or the next reading says what it is.
            Self::Unsettled => log::Level::Debug,
        }
    }
}

/// How changes are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing was read yet.
    Starting,
    /// By keyspace events, with a full check now and then.
    Events,
    /// By reading again and again.
    Poll,
    /// By looking at the file again and again.
    File,
}

impl Mode {
    /// The name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Events => "events",
            Self::Poll => "poll",
            Self::File => "file",
        }
    }
}

/// What an operator wants to know of the store.
#[derive(Clone, Debug)]
pub struct Status {
    /// Which store: `redis 127.0.0.1:6379/0`, or `file PATH`.
    pub source: String,
    /// How changes are noticed.
    pub mode: Mode,
    /// Why the store cannot be read at present.
    pub error: Option<String>,
    /// When the store was last read in full.
    pub checked: Option<Instant>,
    /// When the lists last changed.
    pub changed: Option<SystemTime>,
    /// How often the store was read, by [`Cause`].
    pub refreshes: [u64; Cause::ALL.len()],
    /// How often it could not be read.
    pub failures: u64,
    /// Lists that keep their last good value.
    pub faults: Vec<(ListName, Fault)>,
}

/// Brings lists into force. One for the process.
pub struct Publisher {
    lists: Arc<Published<Lists>>,
    peer_port: u16,
    status: Mutex<Status>,
}

impl Publisher {
    /// A publisher into `lists`, for entries of `source`; peers without a port get `peer_port`.
    pub fn new(lists: Arc<Published<Lists>>, peer_port: u16, source: impl fmt::Display) -> Self {
        Self {
            lists,
            peer_port,
            status: Mutex::new(Status {
                source: source.to_string(),
                mode: Mode::Starting,
                error: None,
                checked: None,
                changed: None,
                refreshes: [0; Cause::ALL.len()],
                failures: 0,
                faults: Vec::new(),
            }),
        }
    }

    /// The lists in force.
    pub fn lists(&self) -> Arc<Lists> {
        self.lists.load()
    }

    /// What is known of the store.
    pub fn status(&self) -> Status {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, Status> {
        // A status is whole at any moment, so a panic elsewhere does not spoil it.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how changes are noticed from now on.
    pub fn set_mode(&self, mode: Mode) {
        let before = std::mem::replace(&mut self.locked().mode, mode);
        if before != mode {
            log::info!("lists-mode mode={}", mode.name());
        }
    }

    /// Notes that the store could not be read; the lists in force stay. Said once for as long as
    /// the reason is the same.
    pub fn failed(&self, error: impl fmt::Display) {
        let error = error.to_string();
        let mut status = self.locked();
        status.failures += 1;
        if status.error.as_ref() != Some(&error) {
            let generation = self.lists.load().generation;
            log::error!(
                "lists-unreadable source={:?} error={error:?} generation_kept={generation}",
                status.source
            );
            status.error = Some(error);
        }
    }

    /// Brings what was read into force, as far as it can be accepted.
    pub fn publish(&self, reading: Reading, cause: Cause) {
        let current = self.lists.load();
        let mut faults = Vec::new();
        let gray = match reading.gray.map(GrayList::parse) {
            // Kept, but what is wrong with the new entries is told.
            Ok(list) if list.is_empty() && list.skipped().count > 0 => {
                faults.push((ListName::Gray, Fault::AllSkipped));
                Arc::new(current.gray.with_skipped_of(&list))
            }
            Ok(list) => Arc::new(list),
            Err(fault) => {
                faults.push((ListName::Gray, fault));
                Arc::clone(&current.gray)
            }
        };
        let mut peers =
            |name: ListName, texts: Result<Vec<Vec<u8>>, Fault>, now: &Arc<PeerList>| {
                let fault = match texts.map(|texts| PeerList::parse(texts, self.peer_port)) {
                    Ok(list) if list.is_empty() && list.skipped().count > 0 => {
                        faults.push((name, Fault::AllSkipped));
                        return Arc::new(now.with_skipped_of(&list));
                    }
                    Ok(list) if list.is_empty() && !now.is_empty() && name == ListName::Prod => {
                        Fault::HeldEmptyProd
                    }
                    Ok(list) => return Arc::new(list),
                    Err(fault) => fault,
                };
                faults.push((name, fault));
                Arc::clone(now)
            };
        let pre = peers(ListName::Pre, reading.pre, &current.pre);
        let prod = peers(ListName::Prod, reading.prod, &current.prod);
        self.put_in_force(
            &current,
            Lists::new(current.generation + 1, gray, pre, prod),
            cause,
        );
        self.note_success(faults, cause);
    }

    fn put_in_force(&self, current: &Lists, mut new: Lists, cause: Cause) {
        let same = current.are_read() && current.digest == new.digest;
        let same_skipped = ListName::ALL
            .iter()
            .all(|list| current.skipped(*list) == new.skipped(*list));
        if same && same_skipped {
            return;
        }
        for list in ListName::ALL {
            let skipped = new.skipped(list);
            if let Some(first) = skipped.first.first()
                && skipped != current.skipped(list)
            {
                log::warn!(
                    "entries-skipped list={} count={} first={:?} reason={:?}",
                    list.name(),
                    skipped.count,
                    first.entry,
                    first.reason
                );
            }
        }
        if same {
            // The same lists for every request; only what was skipped differs.
            new.generation = current.generation;
            self.lists.store(new);
            return;
        }
        let (generation, digest) = (new.generation, new.digest);
        let [gray, pre, prod] = ListName::ALL.map(|list| new.len(list));
        self.lists.store(new);
        self.locked().changed = Some(SystemTime::now());
        log::info!(
            "lists-published generation={generation} digest={digest} cause={} gray={gray} pre={pre} prod={prod}",
            cause.name()
        );
        if prod == 0 {
            log::error!("prod-empty generation={generation}");
        }
    }

    fn note_success(&self, faults: Vec<(ListName, Fault)>, cause: Cause) {
        let mut status = self.locked();
        status.refreshes[cause as usize] += 1;
        status.checked = Some(Instant::now());
        if status.error.take().is_some() {
            log::info!("lists-readable source={:?}", status.source);
        }
        let only_in = |these: &[(ListName, Fault)], those: &[(ListName, Fault)]| {
            let only = these.iter().filter(|it| !those.contains(it));
            only.copied().collect::<Vec<_>>()
        };
        for (list, fault) in only_in(&faults, &status.faults) {
            let (list, name) = (list.name(), fault.name());
            log::log!(fault.level(), "list-kept list={list} fault={name}");
        }
        for (list, fault) in only_in(&status.faults, &faults) {
            let (list, name) = (list.name(), fault.name());
            let level = fault.level().max(log::Level::Info);
            log::log!(level, "list-recovered list={list} fault={name}");
        }
        status.faults = faults;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(entries: &[&str]) -> Result<Vec<Vec<u8>>, Fault> {
        Ok(entries.iter().map(|it| it.as_bytes().to_vec()).collect())
    }

    fn reading(gray: &[&str], pre: &[&str], prod: &[&str]) -> Reading {
        Reading {
            gray: texts(gray),
            pre: texts(pre),
            prod: texts(prod),
        }
    }

    fn publisher() -> Publisher {
        let lists = Arc::new(Published::new(Lists::unread()));
        let publisher = Publisher::new(lists, 80, "test");
        publisher.publish(
            reading(&["1.1.1.1"], &["2.2.2.2"], &["3.3.3.3"]),
            Cause::Start,
        );
        publisher
    }

    fn in_force(publisher: &Publisher) -> (u64, [usize; 3]) {
        let lists = publisher.lists();
        (lists.generation, ListName::ALL.map(|list| lists.len(list)))
    }

    #[test]
    fn a_change_is_a_new_generation_and_the_same_lists_are_not() {
        let publisher = publisher();
        assert_eq!(in_force(&publisher), (1, [1, 1, 1]));
        publisher.publish(
            reading(&["1.1.1.1"], &["2.2.2.2:80"], &["3.3.3.3"]),
            Cause::Check,
        );
        assert_eq!(in_force(&publisher), (1, [1, 1, 1]));
        publisher.publish(reading(&[], &["2.2.2.2"], &["3.3.3.3"]), Cause::Event);
        assert_eq!(in_force(&publisher), (2, [0, 1, 1]));
        assert_eq!(publisher.status().refreshes, [1, 1, 1, 0]);
    }

    #[test]
    fn a_list_that_cannot_be_accepted_keeps_its_value_and_the_others_change() {
        let publisher = publisher();
        publisher.publish(reading(&[], &["garbage"], &[]), Cause::Event);
        assert_eq!(in_force(&publisher), (2, [0, 1, 1]));
        let faults = publisher.status().faults;
        assert_eq!(
            faults,
            [
                (ListName::Pre, Fault::AllSkipped),
                (ListName::Prod, Fault::HeldEmptyProd)
            ]
        );
        assert_eq!(publisher.lists().skipped(ListName::Pre).count, 1);
        let wrong = Reading {
            gray: Err(Fault::WrongType),
            ..reading(&[], &[], &["3.3.3.3", "4.4.4.4"])
        };
        publisher.publish(wrong, Cause::Event);
        assert_eq!(in_force(&publisher), (3, [0, 0, 2]));
        assert_eq!(
            publisher.status().faults,
            [(ListName::Gray, Fault::WrongType)]
        );
    }

    #[test]
    fn skipped_entries_are_told_without_a_new_generation() {
        let publisher = publisher();
        let garbage = reading(&["1.1.1.1", "x"], &["2.2.2.2"], &["3.3.3.3"]);
        publisher.publish(garbage, Cause::Event);
        assert_eq!(in_force(&publisher), (1, [1, 1, 1]));
        assert_eq!(publisher.lists().skipped(ListName::Gray).count, 1);
    }

    #[test]
    fn a_failure_keeps_the_lists_and_is_forgotten_after_a_success() {
        let publisher = publisher();
        publisher.failed("gone");
        publisher.failed("gone");
        assert_eq!(in_force(&publisher), (1, [1, 1, 1]));
        let status = publisher.status();
        assert_eq!(
            (status.error.as_deref(), status.failures),
            (Some("gone"), 2)
        );
        publisher.publish(reading(&[], &["2.2.2.2"], &["3.3.3.3"]), Cause::Reconnect);
        assert_eq!(publisher.status().error, None);
    }
}
