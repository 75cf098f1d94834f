//! The one way for lists into force.
//!
//! A [`Publisher`] takes what a store has read, lets each list through its gate, and replaces the
//! snapshot. It also brings the last-good copy into force while there is nothing else, lets held
//! changes in, and knows what an operator wants to know.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Sender;

use super::copy::{self, Copy, CopyError, Keeper};
use super::guard::{Gate, Held, Moment, Rules};
use super::{Cause, Entries, Fault, Mode, Reading, Status, findings};
use crate::config::Config;
use crate::lists::lint::{self, Findings};
use crate::lists::{Digest, GrayList, ListName, Lists, PeerList};
use crate::logging::Throttle;
use crate::snapshot::Published;

/// Brings lists into force. One for the process.
pub struct Publisher {
    lists: Arc<Published<Lists>>,
    peer_port: u16,
    /// Names the trusted proxies, which findings are about.
    config: Option<Arc<Published<Config>>>,
    /// Held while lists are judged and replaced. Taken before the status, never after.
    door: Mutex<Door>,
    /// Something may have come to wait at the door.
    knock: Condvar,
    status: Mutex<Status>,
    keeper: Option<Keeper>,
    /// Rung when something that others want to know may have changed.
    bell: Option<Sender<()>>,
}

/// What lists have to pass.
struct Door {
    rules: Rules,
    gray: Gate<GrayList>,
    prod: Gate<PeerList>,
    /// What was read with a `prod` that is yet to settle.
    withheld: Option<New>,
    /// The last-good copy, until the store was read.
    copy: Option<Copy>,
    /// All of what was read last is in force, and nothing waits.
    is_settled: bool,
    /// The held changes that were told of.
    told: Vec<(ListName, Digest)>,
    /// A list that is rewritten again and again is held as often.
    throttle: Throttle,
}

/// Who has let a held change in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Somebody, at the admin listener.
    Command,
    /// The key in Redis.
    Key,
    /// Time, or other settings.
    Rules,
}

impl By {
    const fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Key => "key",
            Self::Rules => "rules",
        }
    }
}

/// A held change that is in force now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Which list.
    pub list: ListName,
    /// The generation with it.
    pub generation: u64,
}

/// The lists that may be new.
#[derive(Clone)]
struct New {
    gray: Arc<GrayList>,
    pre: Arc<PeerList>,
    prod: Arc<PeerList>,
}

impl Publisher {
    /// A publisher into `lists`, for entries of `source`; peers without a port get `peer_port`.
    pub fn new(
        lists: Arc<Published<Lists>>,
        peer_port: u16,
        rules: Rules,
        source: impl fmt::Display,
    ) -> Self {
        Self {
            lists,
            peer_port,
            config: None,
            door: Mutex::new(Door {
                rules,
                gray: Gate::default(),
                prod: Gate::default(),
                withheld: None,
                copy: None,
                is_settled: false,
                told: Vec::new(),
                throttle: Throttle::default(),
            }),
            knock: Condvar::new(),
            status: Mutex::new(Status {
                source: source.to_string(),
                mode: Mode::Starting,
                error: None,
                checked: None,
                changed: None,
                refreshes: [0; Cause::ALL.len()],
                missed_events: 0,
                failures: 0,
                faults: Vec::new(),
                held: Vec::new(),
            }),
            keeper: None,
            bell: None,
        }
    }

    /// Will ring this bell, and never wait for who hears it, when lists, mode or what is held may
    /// have changed.
    pub fn with_bell(mut self, bell: Sender<()>) -> Self {
        self.bell = Some(bell);
        self
    }

    fn ring(&self) {
        if let Some(bell) = &self.bell {
            // A full queue holds a ring that was not heard yet: that one will do.
            let _ = bell.try_send(());
        }
    }

    /// Will compare the lists with the trusted proxies of `config`, as it is at that time.
    pub fn with_config(mut self, config: Arc<Published<Config>>) -> Self {
        self.config = Some(config);
        self
    }

    /// What is likely to be a mistake in `lists`.
    pub fn findings(&self, lists: &Lists) -> Findings {
        let config = self.config.as_ref().map(|it| it.load());
        let trusted = config.as_ref().map(|it| &*it.gateway.trusted_proxies);
        lint::findings(lists, trusted.unwrap_or_default())
    }

    /// Keeps a copy of the lists in force at `path`. What is found there is what the first reading
    /// is compared with, and what [`Self::use_copy`] uses, unless it is older than `max_age`.
    ///
    /// # Errors
    /// When the thread that writes cannot be started.
    pub fn with_copy(mut self, path: &Path, max_age: Option<Duration>) -> io::Result<Self> {
        let found = copy::read(path);
        self.keeper = Some(Keeper::start(path, &found)?);
        let door = self.door.get_mut().unwrap_or_else(PoisonError::into_inner);
        door.copy = usable(path, found, max_age);
        Ok(self)
    }

    /// Lets what waits in when its time has come, with a thread of its own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn keep_time(self: &Arc<Self>) -> io::Result<()> {
        let publisher = Arc::clone(self);
        let thread = std::thread::Builder::new().name("lists-guard".to_owned());
        thread.spawn(move || publisher.follow_time())?;
        Ok(())
    }

    fn follow_time(&self) -> ! {
        let mut door = self.locked_door();
        loop {
            let now = Moment::now();
            self.let_in_ripe(&mut door, now.instant);
            let rules = door.rules;
            let times = [door.gray.ripe_at(rules), door.prod.ripe_at(rules)];
            let next = times.into_iter().flatten().min();
            door = match next.map(|it| it.saturating_duration_since(Instant::now())) {
                Some(left) => {
                    let waited = self.knock.wait_timeout(door, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.knock.wait(door);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    /// The lists in force.
    pub fn lists(&self) -> Arc<Lists> {
        self.lists.load()
    }

    /// The lists in force; before there are any, those of the copy that the first reading will be
    /// compared with.
    pub fn last_good(&self) -> Arc<Lists> {
        self.compared(&self.locked_door())
    }

    fn compared(&self, door: &Door) -> Arc<Lists> {
        let lists = self.lists.load();
        match &door.copy {
            Some(copy) if !lists.are_read() => Arc::new(copy.lists.clone()),
            _ => lists,
        }
    }

    /// What is known of the store.
    pub fn status(&self) -> Status {
        self.locked().clone()
    }

    /// What is known of the last-good copy, if one is kept.
    pub fn copy(&self) -> Option<copy::View> {
        self.keeper.as_ref().map(Keeper::view)
    }

    /// True when something is held.
    pub fn holds(&self) -> bool {
        !self.locked().held.is_empty()
    }

    /// True when it is held that `list` becomes empty.
    pub fn holds_empty(&self, list: ListName) -> bool {
        let status = self.locked();
        let mut held = status.held.iter();
        held.any(|it| it.list == list && it.entries == 0)
    }

    fn locked(&self) -> MutexGuard<'_, Status> {
        // A status is whole at any moment, so a panic elsewhere does not spoil it.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn locked_door(&self) -> MutexGuard<'_, Door> {
        // As above: each gate is.
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how changes are noticed from now on.
    pub fn set_mode(&self, mode: Mode) {
        let before = std::mem::replace(&mut self.locked().mode, mode);
        if before != mode {
            log::info!("lists-mode mode={}", mode.name());
            self.ring();
        }
    }

    /// From now on the guard goes by these rules; what they allow is let in.
    pub fn set_rules(&self, rules: Rules) {
        let mut door = self.locked_door();
        door.rules = rules;
        self.let_in_ripe(&mut door, Instant::now());
        self.knock.notify_all();
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

    /// The store has what it had when it was last read: true when that needs no second look, since
    /// all of it is in force. The rules make no difference then, nor does time.
    pub fn confirm(&self, cause: Cause) -> bool {
        let door = self.locked_door();
        if door.is_settled {
            self.note_success(Vec::new(), cause);
            self.keep_copy();
        }
        door.is_settled
    }

    /// Brings what was read into force, as far as it can be accepted.
    pub fn publish(&self, reading: Reading, cause: Cause) {
        // Long lists take their time; nobody is to wait for that at the door.
        let gray = reading.gray.map(|it| GrayList::parse(&it));
        let peers = |entries: Result<Entries, Fault>| {
            entries.map(|it| PeerList::parse(&it, self.peer_port))
        };
        let (pre, prod) = (peers(reading.pre), peers(reading.prod));

        let mut door = self.locked_door();
        door.is_settled = false;
        let (now, current) = (Moment::now(), self.compared(&door));
        // Without anything to compare with, everything is new, and nothing destroys.
        let rules = current.are_read().then_some(door.rules);
        let mut faults = Vec::new();
        let mut keep = |list, fault| faults.push((list, fault));
        let gray = match gray {
            // Kept, but what is wrong with the new entries is told.
            Ok(list) if list.is_empty() && list.skipped().count > 0 => {
                door.gray.doubt();
                keep(ListName::Gray, Fault::AllSkipped);
                Arc::new(current.gray.with_skipped_of(&list))
            }
            Ok(list) => match rules {
                None => Arc::new(list),
                Some(rules) => {
                    let passed = door.gray.judge(rules, &current.gray, list, now);
                    passed.unwrap_or_else(|| Arc::clone(&current.gray))
                }
            },
            Err(fault) => {
                if fault != Fault::Withheld {
                    door.gray.doubt();
                }
                keep(ListName::Gray, fault);
                Arc::clone(&current.gray)
            }
        };
        let pre = match pre {
            Ok(list) if list.is_empty() && list.skipped().count > 0 => {
                keep(ListName::Pre, Fault::AllSkipped);
                Arc::new(current.pre.with_skipped_of(&list))
            }
            Ok(list) => Arc::new(list),
            Err(fault) => {
                keep(ListName::Pre, fault);
                Arc::clone(&current.pre)
            }
        };
        let prod = match prod {
            Ok(list) if list.is_empty() && list.skipped().count > 0 => {
                door.prod.doubt();
                keep(ListName::Prod, Fault::AllSkipped);
                Arc::new(current.prod.with_skipped_of(&list))
            }
            Ok(list) => match rules {
                None => Arc::new(list),
                Some(rules) => {
                    let passed = door.prod.judge(rules, &current.prod, list, now);
                    if door.prod.settles() {
                        keep(ListName::Prod, Fault::Unsettled);
                    }
                    passed.unwrap_or_else(|| Arc::clone(&current.prod))
                }
            },
            Err(fault) => {
                if fault != Fault::Withheld {
                    door.prod.doubt();
                }
                keep(ListName::Prod, fault);
                Arc::clone(&current.prod)
            }
        };
        // What was written at once comes into force at once, so the others wait for `prod` to settle.
        let read = New { gray, pre, prod };
        let new = match door.prod.settles() {
            true => New::of(&current),
            false => read.clone(),
        };
        door.withheld = door.prod.settles().then_some(read);
        self.put_in_force(new, cause);
        door.copy = None;
        self.note_held(&mut door, None);
        door.is_settled = faults.is_empty() && door.gray.is_empty() && door.prod.is_empty();
        self.note_success(faults, cause);
        self.ring();
        self.keep_copy();
        self.knock.notify_all();
    }

    /// Brings the last-good copy into force, if there is one and nothing else is.
    pub fn use_copy(&self) {
        let door = self.locked_door();
        let Some(copy) = door.copy.as_ref().filter(|_| !self.lists.load().are_read()) else {
            return;
        };
        let mut lists = copy.lists.clone();
        lists.generation = 1;
        let digest = lists.digest;
        let [gray, pre, prod] = ListName::ALL.map(|list| lists.len(list));
        self.lists.store(lists);
        let mut status = self.locked();
        status.changed = Some(copy.written);
        status.refreshes[Cause::Copy as usize] += 1;
        self.ring();
        let age = copy.age(SystemTime::now()).unwrap_or_default();
        let age = Duration::from_secs(age.as_secs());
        log::warn!(
            "lists-from-copy generation=1 digest={digest} age={age:?} gray={gray} pre={pre} prod={prod}"
        );
    }

    /// Brings the held change into force whose digest is `digest`, as it is displayed, if it still
    /// stands.
    ///
    /// # Errors
    /// Nothing of that digest is held; with what is.
    pub fn accept(&self, digest: &str, by: By) -> Result<Accepted, Vec<Held>> {
        let mut door = self.locked_door();
        let current = self.lists.load();
        let mut new = New::of(&current);
        let list = if let Some(gray) = door.gray.accept(digest) {
            new.gray = gray;
            ListName::Gray
        } else if let Some(prod) = door.prod.accept(digest) {
            new.prod = prod;
            ListName::Prod
        } else {
            return Err(self.locked().held.clone());
        };
        let generation = self.let_in(&mut door, new, list, by);
        Ok(Accepted { list, generation })
    }

    fn let_in_ripe(&self, door: &mut Door, now: Instant) {
        let (rules, current) = (door.rules, self.lists.load());
        if let Some(gray) = door.gray.ripe(rules, &current.gray, now) {
            let new = New {
                gray,
                ..New::of(&current)
            };
            self.let_in(door, new, ListName::Gray, By::Rules);
        }
        let (settles, current) = (door.prod.settles(), self.lists.load());
        if let Some(prod) = door.prod.ripe(rules, &current.prod, now) {
            let others = door.withheld.take().filter(|_| settles);
            let new = New {
                prod,
                ..others.unwrap_or_else(|| New::of(&current))
            };
            if settles {
                self.settle(new);
            } else {
                self.let_in(door, new, ListName::Prod, By::Rules);
            }
        }
    }

    /// Brings a change into force that was held; returns the generation.
    fn let_in(&self, door: &mut Door, new: New, list: ListName, by: By) -> u64 {
        // What is withheld was read before this, and the next reading brings it again.
        door.withheld = None;
        self.note_held(door, Some((list, by)));
        self.put_in_force(new, Cause::Accepted);
        self.locked().refreshes[Cause::Accepted as usize] += 1;
        self.ring();
        self.keep_copy();
        self.lists.load().generation
    }

    /// Brings a `prod` into force that had to stand for a moment, and has.
    fn settle(&self, new: New) {
        self.put_in_force(new, Cause::Event);
        let settled = |it: &(ListName, Fault)| *it != (ListName::Prod, Fault::Unsettled);
        self.locked().faults.retain(settled);
        self.ring();
        self.keep_copy();
    }

    fn keep_copy(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.keep(self.lists.load());
        }
    }

    /// Writes the newest copy, and ends that.
    pub fn end(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.end();
        }
    }

    fn put_in_force(&self, new: New, cause: Cause) {
        let current = self.lists.load();
        let mut new = Lists::new(current.generation + 1, new.gray, new.pre, new.prod);
        let same = current.are_read() && current.digest == new.digest;
        let same_remarks = ListName::ALL
            .iter()
            .all(|list| current.remarks(*list) == new.remarks(*list));
        if same && same_remarks {
            return;
        }
        findings::tell(&self.findings(&current), &self.findings(&new));
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
            // The same lists for every request; only what is said of them differs.
            new.generation = current.generation;
            self.lists.store(new);
            return;
        }
        let (generation, digest) = (new.generation, new.digest);
        let [gray, pre, prod] = ListName::ALL.map(|list| new.len(list));
        self.lists.store(new);
        let mut status = self.locked();
        status.changed = Some(SystemTime::now());
        let mode = status.mode;
        let is_missed = cause == Cause::Check && matches!(mode, Mode::Events | Mode::Tracking);
        status.missed_events += u64::from(is_missed);
        drop(status);
        if is_missed {
            let mode = mode.name();
            log::warn!("lists-event-missed generation={generation} mode={mode}");
        }
        log::info!(
            "lists-published generation={generation} digest={digest} cause={} gray={gray} pre={pre} prod={prod}",
            cause.name()
        );
        if prod == 0 {
            log::error!("prod-empty generation={generation}");
        }
    }

    /// Notes what is held now, and tells what of that is news; `accepted` was let in. What is not
    /// told now, since so much is, is told at the next reading if it is held still.
    fn note_held(&self, door: &mut Door, accepted: Option<(ListName, By)>) {
        let held = [door.gray.held(), door.prod.held()];
        let held: Vec<Held> = held.into_iter().flatten().collect();
        let is = |it: &Held| (it.list, it.digest);
        if let Some((list, by)) = accepted {
            let before = self.locked();
            for it in before.held.iter().filter(|it| it.list == list) {
                let (list, digest, by) = (list.name(), it.digest, by.name());
                log::warn!("change-accepted list={list} digest={digest} by={by}");
            }
            door.told.retain(|(told, _)| *told != list);
        }
        door.told.retain(|told| {
            let stays = held.iter().any(|it| is(it) == *told);
            if !stays {
                let (list, digest) = (told.0.name(), told.1);
                log::info!("change-forgotten list={list} digest={digest}");
            }
            stays
        });
        for it in &held {
            if door.told.contains(&is(it)) {
                continue;
            }
            let Some(untold) = door.throttle.turn(Instant::now()) else {
                continue;
            };
            log::error!(
                "change-held list={} reason={} digest={} entries={} gone={} new={} untold={untold}",
                it.list.name(),
                it.reason.name(),
                it.digest,
                it.entries,
                it.gone.count,
                it.new.count
            );
            door.told.push(is(it));
        }
        self.locked().held = held;
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

impl New {
    fn of(lists: &Lists) -> Self {
        Self {
            gray: Arc::clone(&lists.gray),
            pre: Arc::clone(&lists.pre),
            prod: Arc::clone(&lists.prod),
        }
    }
}

/// The copy that was found, if it may be used; says why not.
fn usable(
    path: &Path,
    found: Result<Option<Copy>, CopyError>,
    max_age: Option<Duration>,
) -> Option<Copy> {
    let copy = match found {
        Ok(copy) => copy?,
        Err(error) => {
            let reason = error.to_string();
            log::error!("copy-refused path={path:?} reason={reason:?}");
            return None;
        }
    };
    let written = humantime::format_rfc3339_millis(copy.written);
    match copy.age(SystemTime::now()) {
        None => log::warn!("copy-from-the-future path={path:?} written={written}"),
        Some(age) if max_age.is_some_and(|most| age > most) => {
            let most = max_age.unwrap_or_default();
            log::error!(
                "copy-refused path={path:?} reason=\"it is older than last_good_max_age\" \
                 written={written} max_age={most:?}"
            );
            return None;
        }
        Some(_) => {}
    }
    Some(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::guard::Reason;

    const RULES: Rules = Rules {
        share: 50,
        timeout: None,
    };

    fn texts(entries: &[&str]) -> Result<Entries, Fault> {
        Ok(entries.iter().collect())
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
        let publisher = Publisher::new(lists, 80, RULES, "test");
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

    fn held(publisher: &Publisher) -> Vec<(ListName, Reason)> {
        let held = publisher.status().held.into_iter();
        held.map(|it| (it.list, it.reason)).collect()
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
        assert_eq!(publisher.status().refreshes, [1, 1, 1, 0, 0, 0]);
    }

    #[test]
    fn a_list_that_cannot_be_accepted_keeps_its_value_and_the_others_change() {
        let publisher = publisher();
        publisher.publish(reading(&[], &["garbage"], &[]), Cause::Event);
        assert_eq!(in_force(&publisher), (2, [0, 1, 1]));
        let faults = publisher.status().faults;
        assert_eq!(faults, [(ListName::Pre, Fault::AllSkipped)]);
        assert_eq!(held(&publisher), [(ListName::Prod, Reason::EmptiesProd)]);
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
        assert_eq!(held(&publisher), []);
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

    #[test]
    fn what_is_read_again_is_confirmed_only_if_all_of_it_is_in_force() {
        let lists = Arc::new(Published::new(Lists::unread()));
        assert!(!Publisher::new(lists, 80, RULES, "test").confirm(Cause::Start));
        let publisher = publisher();
        assert!(publisher.confirm(Cause::Check));
        assert_eq!(publisher.status().refreshes, [1, 0, 1, 0, 0, 0]);
        let good = || reading(&["1.1.1.1"], &["2.2.2.2"], &["3.3.3.3"]);
        let everybody = reading(&["0.0.0.0/0"], &["2.2.2.2"], &["3.3.3.3"]);
        let garbage = reading(&["1.1.1.1"], &["x"], &["3.3.3.3"]);
        let unsettled = Reading {
            prod: Err(Fault::Unsettled),
            ..good()
        };
        for doubtful in [everybody, garbage, unsettled] {
            publisher.publish(doubtful, Cause::Event);
            let before = publisher.status().refreshes;
            assert!(!publisher.confirm(Cause::Check));
            assert_eq!(publisher.status().refreshes, before);
            publisher.publish(good(), Cause::Event);
            assert!(publisher.confirm(Cause::Check));
        }
        publisher.failed("gone");
        assert!(publisher.confirm(Cause::Reconnect));
        assert_eq!(publisher.status().error, None);
        assert_eq!(in_force(&publisher), (1, [1, 1, 1]));
    }

    #[test]
    fn lists_that_come_with_a_prod_that_is_yet_to_settle_wait_for_it() {
        let publisher = publisher();
        let both = |gray: &str| reading(&[gray], &["2.2.2.2"], &["3.3.3.3", "4.4.4.4"]);
        publisher.publish(both("1.1.1.1"), Cause::Event);
        let trouble = Reading {
            prod: Err(Fault::WrongType),
            ..both("1.1.1.1")
        };
        publisher.publish(trouble, Cause::Event);
        let before = publisher.lists();
        // Behind trouble, one that lacks a peer has to stand for a moment.
        publisher.publish(
            reading(&["5.5.5.5"], &["6.6.6.6"], &["3.3.3.3"]),
            Cause::Event,
        );
        assert_eq!(publisher.lists().digest, before.digest);
        let mut door = publisher.locked_door();
        publisher.let_in_ripe(&mut door, Instant::now() + Duration::from_secs(60));
        drop(door);
        let lists = publisher.lists();
        let peers = |list: &PeerList| list.peers()[0].ip().to_string();
        assert_eq!(lists.gray.entries().collect::<Vec<_>>(), ["5.5.5.5"]);
        assert_eq!(
            (peers(&lists.pre), peers(&lists.prod)),
            ("6.6.6.6".into(), "3.3.3.3".into())
        );
        assert_eq!(lists.generation, before.generation + 1);
    }

    #[test]
    fn without_anything_to_compare_with_nothing_is_held() {
        let lists = Arc::new(Published::new(Lists::unread()));
        let publisher = Publisher::new(lists, 80, RULES, "test");
        publisher.publish(reading(&["0.0.0.0/0"], &[], &[]), Cause::Start);
        assert_eq!(in_force(&publisher), (1, [1, 0, 0]));
        assert_eq!(held(&publisher), []);
        publisher.publish(reading(&[], &[], &["1.1.1.1"]), Cause::Event);
        assert_eq!(in_force(&publisher), (2, [0, 0, 1]));
    }

    #[test]
    fn what_is_held_of_one_list_changes_nothing_for_the_others_and_is_accepted_alone() {
        let publisher = publisher();
        let change = || reading(&["0.0.0.0/0", "1.1.1.1"], &[], &["9.9.9.9"]);
        publisher.publish(change(), Cause::Event);
        assert_eq!(in_force(&publisher), (2, [1, 0, 1]));
        let both = [
            (ListName::Gray, Reason::AdmitsEverybody),
            (ListName::Prod, Reason::RemovesPeers),
        ];
        assert_eq!(held(&publisher), both);
        let wrong = publisher.accept("0000000000000000", By::Command);
        assert_eq!(wrong.unwrap_err().len(), 2);
        let digest = publisher.status().held[1].digest.to_string();
        let accepted = publisher.accept(&digest, By::Key).unwrap();
        assert_eq!((accepted.list, accepted.generation), (ListName::Prod, 3));
        assert_eq!(held(&publisher), both[..1]);
        publisher.publish(change(), Cause::Check);
        assert_eq!(in_force(&publisher), (3, [1, 0, 1]));
        assert_eq!(publisher.lists().prod.peers()[0].to_string(), "9.9.9.9:80");
        let refreshes = publisher.status().refreshes;
        assert_eq!(refreshes, [1, 1, 1, 0, 0, 1]);
    }
}
