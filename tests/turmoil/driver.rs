//! Who changes lists and breaks things.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::machine::MachineClock;
use super::model::{Book, GATEWAYS, InForce, Key, Keys, Model, ServiceLists, is_peer, now};
use super::services::{GUEST, GUEST_SETTINGS, SERVICES, key, lists, owner};
use super::{chance, explained};
use crate::support::{Gateway, Redis};

/// A change that is announced must be in force so soon. Far above what it takes, since the machine
/// is busy; how long it took is reported.
pub(crate) const ANNOUNCED: Duration = Duration::from_secs(2);

/// A change that only a check can find.
const CHECKED: Duration = Duration::from_secs(4);

/// A change behind a fault, from its end: two time limits and the longest pause between attempts.
pub(crate) const RECOVERED: Duration = Duration::from_secs(10);

/// How long a list must be empty to count as empty; see docs/runbook.md.
const GRAY_SETTLES: Duration = Duration::from_millis(20);
const POOL_SETTLES: Duration = Duration::from_secs(1);

/// So many entries a gray list has, before more are taken away than pushed.
const MOST_ENTRIES: usize = 14;

/// The servers of a service that there are, by pool.
pub(crate) type Peers = BTreeMap<(&'static str, &'static str), Vec<String>>;

/// How long changes took to be in force.
#[derive(Default)]
pub(crate) struct Delays(pub(crate) BTreeMap<&'static str, Vec<Duration>>);

pub(crate) struct Driver<'a> {
    pub(crate) rng: Rng,
    pub(crate) redis: Redis,
    pub(crate) gateways: &'a [Gateway],
    pub(crate) model: &'a Model,
    pub(crate) keys: Keys,
    pub(crate) book: Book,
    pub(crate) peers: &'a Peers,
    pub(crate) changes: u64,
    pub(crate) faults: u64,
    /// Requests about which `explain` was asked.
    pub(crate) explained: u64,
    pub(crate) delays: Delays,
    /// How soon a change must be in force of which the server tells, if it tells of any.
    pub(crate) announced: Duration,
    pub(crate) clock: MachineClock,
}

/// The salt and all lists of all services, nothing in them.
pub(crate) fn no_keys() -> Keys {
    let all = SERVICES.into_iter().flat_map(|service| {
        let lists = ["gray", "pre", "prod", "salt"].into_iter();
        lists.map(move |list| key(service, list))
    });
    all.map(|key| (key, Key::none())).collect()
}

impl Driver<'_> {
    /// Sends one command.
    fn send(&self, command: &[&str]) {
        self.redis.cli(command);
    }

    fn last(&self) -> InForce {
        self.model.last().unwrap()
    }

    /// The lists that follow from what is in Redis now; they may be in force from now on.
    fn expect(&mut self) {
        self.changes += 1;
        let lists = self.last().after(&self.keys, &self.book);
        self.model.may_be(lists, false);
    }

    /// The same behind a fault.
    fn expect_apart(&mut self) {
        self.changes += 1;
        let lists = self.last().after(&self.keys, &self.book);
        self.model.may_be_apart(lists);
    }

    fn expect_in(&mut self, key: &str, value: Key) {
        self.keys.insert(key.to_owned(), value);
        self.expect();
    }

    /// Replaces what is in `key`, in one transaction.
    fn replace(&mut self, key: &str, value: Key) {
        self.expect_in(key, value);
        self.write_to(&self.redis, &[key]);
    }

    /// Writes the model's content of all keys in one transaction.
    pub(crate) fn write_all(&self) {
        self.write_all_to(&self.redis);
    }

    fn write_all_to(&self, redis: &Redis) {
        let all: Vec<&str> = self.keys.keys().map(String::as_str).collect();
        self.write_to(redis, &all);
    }

    fn write_to(&self, redis: &Redis, keys: &[&str]) {
        let mut pipe = redis::pipe();
        pipe.atomic();
        for key in keys {
            self.add_writing(&mut pipe, key);
        }
        pipe.exec(&mut redis.connect(0)).unwrap();
    }

    fn add_writing(&self, pipe: &mut redis::Pipeline, key: &str) {
        pipe.cmd("DEL").arg(key).ignore();
        match &self.keys[key] {
            Key::WrongType => drop(pipe.cmd("SET").arg(key).arg("text").ignore()),
            Key::Salt(salt) => drop(pipe.cmd("SET").arg(key).arg(salt).ignore()),
            Key::Entries(entries) if entries.is_empty() => {}
            Key::Entries(entries) => drop(pipe.cmd("RPUSH").arg(key).arg(entries).ignore()),
        }
    }

    /// Waits until every gateway has what came last.
    pub(crate) fn settle(&mut self, kind: &'static str, limit: Duration) {
        let (begun, until) = (Instant::now(), self.clock.ran() + limit);
        let expected = self.last();
        // Otherwise what is as it was before a fault may not have been read since.
        let keeps = matches!(kind, "spoilt" | "flushed");
        let mut digests: Vec<Vec<String>> = Vec::new();
        let mut is_in_time = true;
        let gateways = self.gateways;
        for (at, gateway) in gateways.iter().enumerate() {
            match self.wait_for(gateway, &expected, keeps, until) {
                Ok(found) => digests.push(found),
                Err(what) => {
                    is_in_time = false;
                    let what = format!("{kind}, gateway {at}: {what} after {limit:?}");
                    self.model.violation(what);
                    // So that one fault is not told as many.
                    self.model.may_be(expected.clone(), false);
                    continue;
                }
            }
            self.model.has_settled(at, 3 * RECOVERED);
        }
        if is_in_time {
            if digests.iter().any(|it| *it != digests[0]) {
                self.model
                    .violation(format!("{kind}: other digests: {digests:?}"));
            }
            self.delays.0.entry(kind).or_default().push(begun.elapsed());
        }
    }

    /// The digests of all services once they have the `expected` lists, which must not take longer than
    /// `until` the machine has run for so long.
    fn wait_for(
        &self,
        gateway: &Gateway,
        expected: &InForce,
        keeps: bool,
        until: Duration,
    ) -> Result<Vec<String>, String> {
        let mut digests = Vec::new();
        for service in SERVICES {
            let is_there = service != GUEST || expected.has_guest;
            loop {
                let page = page(gateway, service);
                let difference = match (&page, is_there) {
                    (None, false) => break,
                    (Some(page), true) if !keeps && page["kept"] != serde_json::json!([]) => {
                        Some(format!("kept is {}", page["kept"]))
                    }
                    (Some(page), true) => difference(page, service, &expected.services[service]),
                    (page, _) => Some(format!("there is {page:?}")),
                };
                let Some(difference) = difference else {
                    let digest = page.unwrap()["digest"].as_str().unwrap().to_owned();
                    digests.push(digest);
                    break;
                };
                if self.clock.ran() > until {
                    let store = page.map(|it| {
                        ["mode", "age_seconds", "error", "refreshes"]
                            .map(|name| it[name].to_string())
                    });
                    return Err(format!("{service}: {difference}, {store:?}"));
                }
                std::thread::yield_now();
            }
        }
        Ok(digests)
    }

    /// One that is there.
    fn some_service(&mut self) -> &'static str {
        let lists = self.last();
        let present: Vec<&'static str> = lists.present().map(|it| it.0).collect();
        present[self.rng.usize(..present.len())]
    }

    /// Of the lists of a service.
    fn some_key(&mut self) -> (String, &'static str) {
        let service = self.some_service();
        let own = lists(service);
        let list = own[self.rng.usize(..own.len())];
        (key(service, list), list)
    }

    fn some_entry(&mut self) -> String {
        let entry = chance::entry(&mut self.rng, now().1 / 1000);
        let text = entry.to_string();
        self.book.insert(text.clone(), entry);
        text
    }

    fn some_gray(&mut self) -> Key {
        let count = self.rng.usize(..12);
        Key::of((0..count).map(|_| self.some_entry()).collect::<Vec<_>>())
    }

    fn some_salt(&mut self) -> Key {
        match self.rng.u8(..4) {
            0 => Key::none(),
            _ => Key::Salt(format!("release {}", self.rng.u8(..))),
        }
    }

    /// Some of the peers, at least one.
    fn some_peers(&mut self, service: &'static str, pool: &'static str) -> Key {
        let peers = &self.peers[&(service, pool)];
        let mut some: Vec<&String> = peers.iter().filter(|_| self.rng.bool()).collect();
        if some.is_empty() {
            some.push(&peers[self.rng.usize(..peers.len())]);
        }
        Key::of(some)
    }

    /// One change of one gray list, by the command for it.
    fn push_or_remove(&mut self) {
        let service = self.some_service();
        self.push_or_remove_of(service);
    }

    fn push_or_remove_of(&mut self, service: &'static str) {
        let key = key(owner(service), "gray");
        let mut entries = self.keys[&key].entries();
        let is_full = entries.len() > MOST_ENTRIES;
        if !entries.is_empty() && (is_full || self.rng.bool()) {
            let at = self.rng.usize(..entries.len());
            let entry = entries.iter().nth(at).unwrap().clone();
            entries.remove(&entry);
            self.expect_in(&key, Key::Entries(entries));
            self.send(&["LREM", &key, "0", &entry]);
            return;
        }
        let entry = self.some_entry();
        if entries.insert(entry.clone()) {
            self.expect_in(&key, Key::Entries(entries));
            self.send(&["LPUSH", &key, &entry]);
        }
    }

    /// Behind a fault, so that whoever has the change has read the lists again.
    fn surely_change(&mut self) {
        let before = self.changes;
        while self.changes == before {
            self.push_or_remove();
        }
    }

    fn change_pool(&mut self) {
        let service = self.some_service();
        let pool = if self.rng.bool() { "pre" } else { "prod" };
        let peers = match (pool, self.rng.u8(..3)) {
            ("pre", 0) => Key::none(),
            _ => self.some_peers(service, pool),
        };
        self.replace(&key(service, pool), peers);
    }

    fn change_salt(&mut self) {
        let service = self.some_service();
        let salt = self.some_salt();
        self.replace(&key(owner(service), "salt"), salt);
    }

    /// Several services change at one moment.
    fn transaction(&mut self) {
        let changed: Vec<&'static str> = SERVICES.into_iter().filter(|_| self.rng.bool()).collect();
        let mut keys: Vec<String> = Vec::new();
        for service in changed {
            keys.extend(self.think_of_others(service));
        }
        self.expect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.write_to(&self.redis, &keys);
    }

    /// Other content for all keys of a service.
    fn think_of_others(&mut self, service: &'static str) -> Vec<String> {
        let mut new: Vec<(&str, Key)> = Vec::new();
        if owner(service) == service {
            new.push(("gray", self.some_gray()));
            new.push(("salt", self.some_salt()));
        }
        let pre = match self.rng.u8(..8) {
            0 => Key::none(),
            _ => self.some_peers(service, "pre"),
        };
        new.extend([("pre", pre), ("prod", self.some_peers(service, "prod"))]);
        let new: Vec<_> = new
            .into_iter()
            .map(|(list, it)| (key(service, list), it))
            .collect();
        let keys = new.iter().map(|it| it.0.clone()).collect();
        self.keys.extend(new);
        keys
    }

    /// From now on all lists may be others, each at its time.
    fn expect_others(&mut self) {
        for service in SERVICES {
            self.think_of_others(service);
        }
        self.expect_apart();
    }

    /// Whatever is in the keys, they may be found without it.
    fn expect_nothing(&mut self) {
        self.keys = no_keys();
        self.expect_apart();
    }

    fn rename_or_copy(&mut self) {
        let key = key(owner(self.some_service()), "gray");
        let gray = self.some_gray();
        let entries = gray.entries();
        if entries.is_empty() {
            return;
        }
        let mut prepare = vec!["RPUSH", "prepared"];
        prepare.extend(entries.iter().map(String::as_str));
        self.send(&["DEL", "prepared"]);
        self.send(&prepare);
        self.expect_in(&key, gray);
        match self.rng.bool() {
            true => self.send(&["RENAME", "prepared", &key]),
            false => self.send(&["COPY", "prepared", &key, "REPLACE"]),
        }
    }

    fn expire(&mut self) {
        let key = key(owner(self.some_service()), "gray");
        self.expect_in(&key, Key::none());
        self.send(&["PEXPIRE", &key, "30"]);
    }

    fn burst(&mut self) {
        // Of one service: there is no order between changes of several.
        let service = self.some_service();
        for _ in 0..self.rng.u8(2..30) {
            self.push_or_remove_of(service);
        }
    }

    /// `DEL` and `RPUSH` of the same entries, again and again: nothing changes for a request.
    fn rewrite(&mut self) {
        let (key, list) = self.some_key();
        let settles = match list {
            "gray" => GRAY_SETTLES,
            _ => POOL_SETTLES,
        };
        let entries = self.keys[&key].entries();
        if entries.is_empty() {
            return;
        }
        let mut push = vec!["RPUSH", &key];
        push.extend(entries.iter().map(String::as_str));
        let now = self.last();
        let mut emptied = self.keys.clone();
        emptied.insert(key.clone(), Key::none());
        let emptied = now.after(&emptied, &self.book);
        for _ in 0..self.rng.u8(1..200) {
            self.model.may_be(emptied.clone(), true);
            let begun = Instant::now();
            self.send(&["DEL", &key]);
            self.model.may_be(now.clone(), false);
            self.send(&push);
            self.model.has_passed(begun.elapsed(), settles);
            self.changes += 1;
        }
    }

    fn spoil(&mut self) {
        let service = self.some_service();
        let own = lists(service);
        let list = own[self.rng.usize(..own.len())];
        let key = key(service, list);
        let before = self.keys[&key].clone();
        let spoilt = match self.rng.u8(..3) {
            0 => Key::WrongType,
            1 => Key::of(["garbage!", "host:0", "x y"]),
            _ => {
                let mut entries = before.entries();
                entries.insert("garbage!".to_owned());
                Key::Entries(entries)
            }
        };
        self.faults += 1;
        let is_wrong_type = spoilt == Key::WrongType;
        let is_good = |entry: &String| match list {
            "gray" => self.book.contains_key(entry),
            _ => is_peer(entry),
        };
        let all_bad = !spoilt.entries().iter().any(is_good);
        self.replace(&key, spoilt);
        // What changes nothing must have been read, too.
        for gateway in self.gateways {
            crate::support::wait_until("the spoilt list is read", RECOVERED, || {
                let page = page(gateway, service).unwrap();
                let kept = page["kept"].as_array().unwrap();
                let is_kept = kept.iter().any(|it| it["list"] == list);
                let skipped = page["skipped"][list]["count"].as_u64().unwrap();
                is_kept == all_bad && (skipped > 0) != is_wrong_type
            });
        }
        self.settle("spoilt", self.announced);
        self.replace(&key, before);
        self.settle("mended", self.announced);
    }

    /// What no event tells of.
    fn unannounced(&mut self) {
        self.faults += 1;
        match self.rng.u8(..3) {
            0 => {
                let before = self.keys.clone();
                self.expect_nothing();
                let command = ["FLUSHALL", "FLUSHDB"][self.rng.usize(..2)];
                self.send(&[command]);
                self.settle("flushed", CHECKED);
                self.keys = before;
                self.expect_apart();
                self.write_all();
                self.settle("filled", self.announced);
            }
            1 => {
                for service in SERVICES {
                    if self.rng.bool() {
                        self.think_of_others(service);
                    }
                }
                let mut other = self.redis.connect(1);
                let mut pipe = redis::pipe();
                pipe.cmd("FLUSHDB").ignore();
                for key in self.keys.keys() {
                    self.add_writing(&mut pipe, key);
                }
                pipe.exec(&mut other).unwrap();
                // Of no service that this changes is anything announced: what is read for another reason
                // before the next check is read alone.
                self.expect_apart();
                self.send(&["SWAPDB", "0", "1"]);
                self.settle("swapped", CHECKED);
            }
            _ => {
                self.send(&["CONFIG", "SET", "notify-keyspace-events", ""]);
                self.push_or_remove();
                self.settle("unannounced", CHECKED);
            }
        }
    }

    /// Redis is away for a while.
    fn outage(&mut self) {
        self.faults += 1;
        match self.rng.u8(..7) {
            0 => {
                self.send(&["SAVE"]);
                self.redis.kill();
                std::thread::sleep(Duration::from_millis(self.rng.u64(..1500)));
                self.redis.restart();
                self.surely_change();
            }
            1 => {
                self.redis.signal(Signal::SIGSTOP);
                std::thread::sleep(Duration::from_millis(self.rng.u64(..2500)));
                self.redis.signal(Signal::SIGCONT);
                self.surely_change();
            }
            2 => {
                self.send(&["CLIENT", "KILL", "TYPE", "pubsub"]);
                self.surely_change();
            }
            3 => {
                // Its own connection survives the command.
                self.send(&["CLIENT", "KILL", "TYPE", "normal"]);
                self.surely_change();
            }
            4 => {
                self.send(&["DEBUG", "RELOAD"]);
                self.surely_change();
            }
            5 => self.restart_with_others(),
            _ => {
                self.follow_another();
                self.settle("recovered", RECOVERED);
                // Only a check asks whose data these are; none of them before that would mean that they are
                // lost.
                return self.wait_for_checks();
            }
        }
        self.settle("recovered", RECOVERED);
    }

    /// Waits until every gateway has made a full check.
    fn wait_for_checks(&self) {
        let begun = Instant::now();
        for gateway in self.gateways {
            crate::support::wait_until("the lists are checked", RECOVERED, || {
                let age = page(gateway, "default").unwrap()["age_seconds"].as_f64();
                age.is_some_and(|it| Duration::from_secs_f64(it) < begun.elapsed())
            });
        }
    }

    /// Redis comes back without what it had, and is filled with something else.
    fn restart_with_others(&mut self) {
        self.redis.kill();
        // Of an earlier outage.
        let _ = std::fs::remove_file(self.redis.path("dump.rdb"));
        self.expect_nothing();
        self.redis.restart();
        self.expect_others();
        self.write_all();
    }

    /// Redis becomes the replica of a server with other lists, which comes as a whole, and then its
    /// own master again.
    fn follow_another(&mut self) {
        let master = Redis::start_with_options(&["--repl-diskless-sync-delay", "0"]);
        self.expect_others();
        self.write_all_to(&master);
        let (ip, port) = (master.address().ip(), master.address().port());
        self.send(&["REPLICAOF", &ip.to_string(), &port.to_string()]);
        self.settle("followed", RECOVERED);
        self.send(&["REPLICAOF", "NO", "ONE"]);
        self.surely_change();
    }

    /// A service comes or goes.
    fn reload(&mut self) {
        let mut lists = self.last();
        lists.has_guest = !lists.has_guest;
        let has_guest = lists.has_guest;
        self.model.may_be(lists, false);
        self.changes += 1;
        for gateway in self.gateways {
            let path = gateway.path("graygate.ini");
            let text = std::fs::read_to_string(&path).unwrap();
            let rest = text.replace(GUEST_SETTINGS, "");
            let text = match has_guest {
                true => rest + GUEST_SETTINGS,
                false => rest,
            };
            std::fs::write(&path, text).unwrap();
            gateway.signal(Signal::SIGHUP);
        }
        self.settle("reloaded", RECOVERED);
    }

    /// Asks about some requests, while nothing changes.
    fn explain(&mut self) {
        let lists = self.last();
        for _ in 0..3 {
            let gateway = &self.gateways[self.rng.usize(..GATEWAYS)];
            self.explained += 1;
            let mark = self.explained;
            if let Err(what) = explained::check(gateway, &lists, mark, &mut self.rng) {
                self.model.violation(what);
            }
        }
    }

    fn change(&mut self) {
        match self.rng.u8(..46) {
            0..12 => self.push_or_remove(),
            12..18 => self.change_pool(),
            18..22 => self.transaction(),
            22..26 => self.rename_or_copy(),
            26..28 => self.expire(),
            28..31 => self.burst(),
            31..34 => self.rewrite(),
            34..36 => return self.spoil(),
            36..38 => return self.unannounced(),
            38..40 => return self.outage(),
            40..42 => return self.reload(),
            _ => self.change_salt(),
        }
        self.settle("announced", self.announced);
    }

    pub(crate) fn step(&mut self) {
        self.change();
        if self.rng.u8(..3) == 0 {
            self.explain();
        }
    }
}

/// What `/lists` says of a service, if there is such a one.
fn page(gateway: &Gateway, service: &str) -> Option<Value> {
    let (status, text) = gateway.admin_get(&format!("/lists?service={service}"));
    match status {
        404 => None,
        _ => Some(serde_json::from_str(&text).unwrap_or_else(|it| panic!("{it}: {text}"))),
    }
}

/// What of a page is not as `expected`.
fn difference(page: &Value, service: &str, expected: &ServiceLists) -> Option<String> {
    let list = |name: &str| -> Vec<String> {
        let entries = page[name].as_array().unwrap().iter();
        entries.map(|it| it.as_str().unwrap().to_owned()).collect()
    };
    let pool = |name| list(name).into_iter().collect::<BTreeSet<String>>();
    let (pre, prod, gray) = (pool("pre"), pool("prod"), list("gray"));
    let digest = expected.gray.digest(&expected.salt, service);
    if gray != expected.gray.texts() {
        Some(format!("{gray:?} and not {:?}", expected.gray.texts()))
    } else if (&pre, &prod) != (&expected.pre, &expected.prod) {
        Some(format!("{pre:?} {prod:?} and not {expected:?}"))
    } else if page["digests"]["gray"] != digest.as_str() {
        Some(format!(
            "the digest {} and not {digest}: {expected:?}",
            page["digests"]["gray"]
        ))
    } else {
        None
    }
}
