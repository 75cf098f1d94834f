//! Random changes and random faults of Redis while clients send requests: every answer must be one
//! that the lists allowed, at some moment between the request and its answer.
//!
//! A model keeps what may be in force: the lists as they were before a change stay possible until
//! the gateway was seen to have the new ones, which must not take longer than the change allows.
//!
//! `CHAOS_SECONDS=600 cargo test --release --test chaos -- --nocapture` is the long run; `CHAOS_SEED`
//! repeats its decisions, though not the machine's.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::sys::signal::Signal;
use support::{Client, Gateway, Redis, Setup, StrictReader};

/// Clients ask from so many addresses, from [`FIRST_CLIENT`] on.
const CLIENTS: u8 = 32;
const FIRST_CLIENT: u8 = 16;

/// A change that is announced must be in force so soon. Far above what it takes, since the machine
/// is busy; how long it took is reported.
const ANNOUNCED: Duration = Duration::from_secs(2);

/// Where the keys are polled, that long before all of this begins.
const POLL: Duration = Duration::from_millis(200);

/// A change that only a check can find.
const CHECKED: Duration = Duration::from_secs(4);

/// A change behind a fault, from its end: two time limits and the longest pause between attempts.
const RECOVERED: Duration = Duration::from_secs(10);

/// How long a list must be empty to count as empty; see docs/runbook.md.
const GRAY_SETTLES: Duration = Duration::from_millis(20);
const POOL_SETTLES: Duration = Duration::from_secs(1);

/// What is in one of the three keys.
#[derive(Clone, Debug, PartialEq)]
enum Key {
    Entries(BTreeSet<String>),
    /// It is of a type that holds no entries.
    WrongType,
}

impl Key {
    fn of<T: ToString>(entries: impl IntoIterator<Item = T>) -> Self {
        Self::Entries(entries.into_iter().map(|it| it.to_string()).collect())
    }

    fn entries(&self) -> BTreeSet<String> {
        match self {
            Self::Entries(entries) => entries.clone(),
            Self::WrongType => BTreeSet::new(),
        }
    }
}

/// What is in Redis.
type Keys = BTreeMap<&'static str, Key>;

const ALL: [&str; 3] = ["gray", "pre", "prod"];

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq)]
struct InForce {
    gray: BTreeSet<String>,
    pre: BTreeSet<String>,
    prod: BTreeSet<String>,
}

impl InForce {
    /// What `keys` lead to when this was in force before.
    fn after(&self, keys: &Keys) -> Self {
        let next = |name: &str, before: &BTreeSet<String>, may_empty: bool| match &keys[name] {
            Key::WrongType => before.clone(),
            Key::Entries(entries) => {
                let good: BTreeSet<String> =
                    entries.iter().filter(|it| is_good(it)).cloned().collect();
                let is_emptied = good.is_empty() && (!may_empty || !entries.is_empty());
                if is_emptied { before.clone() } else { good }
            }
        };
        Self {
            gray: next("gray", &self.gray, true),
            pre: next("pre", &self.pre, true),
            prod: next("prod", &self.prod, false),
        }
    }

    /// Whether this allows that `client` is served by the peer at `peer`.
    fn allows(&self, client: Ipv4Addr, peer: &str) -> bool {
        let is_gray = self.gray.iter().any(|entry| covers(entry, client));
        match is_gray && !self.pre.is_empty() {
            true => self.pre.contains(peer),
            false => self.prod.contains(peer),
        }
    }
}

/// Spoilt entries of this test begin with a letter.
fn is_good(entry: &str) -> bool {
    entry.starts_with(|first: char| first.is_ascii_digit())
}

fn covers(entry: &str, client: Ipv4Addr) -> bool {
    let (address, length) = entry.split_once('/').unwrap_or((entry, "32"));
    let host_bits = 32 - length.parse::<u32>().unwrap();
    let net = |address: Ipv4Addr| u64::from(address.to_bits()) >> host_bits;
    net(address.parse().unwrap()) == net(client)
}

/// What may be in force for a time.
struct Epoch {
    lists: InForce,
    /// From the moment before the change was sent.
    begin: Instant,
    /// Until the gateway was seen to have what follows.
    end: Option<Instant>,
    /// Nobody may see it, unless it turns out to have stood for too long.
    passing: bool,
    /// Answers that only this explains.
    strays: Vec<String>,
}

/// What may be in force, and how the answers so far agree with it.
struct Model {
    epochs: Mutex<VecDeque<Epoch>>,
    requests: AtomicU64,
    violations: Mutex<Vec<String>>,
}

impl Model {
    fn new(lists: InForce) -> Self {
        let model = Self {
            epochs: Mutex::default(),
            requests: AtomicU64::new(0),
            violations: Mutex::default(),
        };
        model.may_be(lists, false);
        model
    }

    fn epochs(&self) -> MutexGuard<'_, VecDeque<Epoch>> {
        self.epochs.lock().unwrap()
    }

    fn violation(&self, what: String) {
        eprintln!("violation: {what}");
        self.violations.lock().unwrap().push(what);
    }

    /// From now on, `lists` may be in force; to be called before what brings them is sent.
    fn may_be(&self, lists: InForce, passing: bool) {
        self.epochs().push_back(Epoch {
            lists,
            begin: Instant::now(),
            end: None,
            passing,
            strays: Vec::new(),
        });
    }

    /// What was to pass unseen has stood for `stood`, and is believed after `settles`.
    fn has_passed(&self, stood: Duration, settles: Duration) {
        let mut epochs = self.epochs();
        let epoch = epochs.iter_mut().rev().find(|it| it.passing).unwrap();
        epoch.passing = false;
        if stood < settles {
            epoch.end = Some(epoch.begin);
            for stray in std::mem::take(&mut epoch.strays) {
                self.violation(format!("in a passing moment: {stray}"));
            }
        }
    }

    /// The gateway has what came last.
    fn has_settled(&self) {
        let now = Instant::now();
        let mut epochs = self.epochs();
        let last = epochs.len() - 1;
        for epoch in epochs.iter_mut().take(last) {
            epoch.end.get_or_insert(now);
        }
        // No request takes so long.
        let old = |epoch: &Epoch| epoch.end.is_some_and(|end| end.elapsed() > 3 * RECOVERED);
        while epochs.len() > 1 && old(&epochs[0]) {
            epochs.pop_front();
        }
    }

    /// What came last.
    fn last(&self) -> InForce {
        self.epochs().back().unwrap().lists.clone()
    }

    /// An answer to a request that was sent at `sent`.
    fn judge(&self, client: Ipv4Addr, sent: Instant, status: u16, peer: &str) {
        let got = Instant::now();
        self.requests.fetch_add(1, Ordering::Relaxed);
        if status != 200 {
            self.violation(format!("{client} was answered with {status} {peer}"));
            return;
        }
        let mut epochs = self.epochs();
        let possible = |it: &Epoch| it.begin <= got && it.end.is_none_or(|end| sent <= end);
        let mut explains = epochs
            .iter_mut()
            .filter(|it| possible(it) && it.lists.allows(client, peer));
        let Some(first) = explains.next() else {
            let shown: Vec<&InForce> = epochs
                .iter()
                .filter(|it| possible(it))
                .map(|it| &it.lists)
                .collect();
            self.violation(format!("{client} was served by {peer} under {shown:?}"));
            return;
        };
        if first.passing && explains.all(|it| it.passing) {
            first.strays.push(format!("{client} was served by {peer}"));
        }
    }
}

/// How long changes took to be in force.
#[derive(Default)]
struct Delays(BTreeMap<&'static str, Vec<Duration>>);

/// Who changes and breaks things.
struct Driver<'a> {
    rng: Rng,
    redis: Redis,
    gateway: &'a Gateway,
    model: &'a Model,
    keys: Keys,
    pre: &'a [String],
    prod: &'a [String],
    changes: u64,
    faults: u64,
    delays: Delays,
    /// How soon a change must be in force of which the server tells, if it tells of any.
    announced: Duration,
}

impl Driver<'_> {
    /// Sends one command.
    fn send(&self, command: &[&str]) {
        self.redis.cli(command);
    }

    /// The lists that follow once `key` holds `value`; they may be in force from now on.
    fn expect(&mut self, key: &'static str, value: Key) {
        self.keys.insert(key, value);
        self.changes += 1;
        self.model
            .may_be(self.model.last().after(&self.keys), false);
    }

    /// Replaces what is in `key`, in one transaction.
    fn replace(&mut self, key: &'static str, value: Key) {
        self.expect(key, value);
        self.write_all(&[key]);
    }

    /// Writes the model's content of `keys` in one transaction.
    fn write_all(&self, keys: &[&'static str]) {
        self.write_all_to(&self.redis, keys);
    }

    fn write_all_to(&self, redis: &Redis, keys: &[&'static str]) {
        let mut pipe = redis::pipe();
        pipe.atomic();
        for key in keys {
            pipe.cmd("DEL").arg(key).ignore();
            match &self.keys[key] {
                Key::WrongType => drop(pipe.cmd("SET").arg(key).arg("text").ignore()),
                Key::Entries(entries) if entries.is_empty() => {}
                Key::Entries(entries) => drop(pipe.cmd("RPUSH").arg(key).arg(entries).ignore()),
            }
        }
        pipe.exec(&mut redis.connect(0)).unwrap();
    }

    /// Waits until the gateway has what came last.
    fn settle(&mut self, kind: &'static str, limit: Duration) {
        let begun = Instant::now();
        let expected = self.model.last();
        loop {
            let page = self.gateway.lists();
            let list = |name: &str| -> BTreeSet<String> {
                let entries = page[name].as_array().unwrap().iter();
                entries.map(|it| it.as_str().unwrap().to_owned()).collect()
            };
            let now = InForce {
                gray: list("gray"),
                pre: list("pre"),
                prod: list("prod"),
            };
            if now == expected {
                break;
            }
            if begun.elapsed() > limit {
                let what = format!("{kind}: {now:?} and not {expected:?} after {limit:?}: {page}");
                self.model.violation(what);
                // So that one fault is not told as many.
                self.model.may_be(now, false);
                self.model.may_be(expected, false);
                return;
            }
            std::thread::yield_now();
        }
        self.model.has_settled();
        self.delays.0.entry(kind).or_default().push(begun.elapsed());
    }

    fn some_client(&mut self) -> String {
        let host = FIRST_CLIENT + self.rng.u8(..CLIENTS);
        match self.rng.u8(..4) {
            0 => format!("127.0.0.{}/30", host & !3),
            1 => format!("10.0.0.{host}"),
            _ => format!("127.0.0.{host}"),
        }
    }

    fn some_gray(&mut self) -> Key {
        let count = self.rng.usize(..12);
        Key::of((0..count).map(|_| self.some_client()).collect::<Vec<_>>())
    }

    /// Some of the peers, at least one.
    fn some_of(&mut self, peers: &[String]) -> Key {
        let mut some: Vec<&String> = peers.iter().filter(|_| self.rng.bool()).collect();
        if some.is_empty() {
            some.push(&peers[self.rng.usize(..peers.len())]);
        }
        Key::of(some)
    }

    /// One change of one list, by the command for it.
    fn push_or_remove(&mut self) {
        let entry = self.some_client();
        let mut entries = self.keys["gray"].entries();
        match entries.contains(&entry) {
            true => {
                entries.remove(&entry);
                self.expect("gray", Key::Entries(entries));
                self.send(&["LREM", "gray", "0", &entry]);
            }
            false => {
                entries.insert(entry.clone());
                self.expect("gray", Key::Entries(entries));
                self.send(&["LPUSH", "gray", &entry]);
            }
        }
    }

    fn change_pool(&mut self) {
        let (pre, prod) = (self.pre, self.prod);
        match self.rng.u8(..5) {
            0 => self.replace("pre", Key::of::<String>([])),
            1 | 2 => {
                let peers = self.some_of(pre);
                self.replace("pre", peers);
            }
            _ => {
                let peers = self.some_of(prod);
                self.replace("prod", peers);
            }
        }
    }

    fn transaction(&mut self) {
        self.expect_others();
        self.write_all(&ALL);
    }

    /// From now on all lists may be others, at once.
    fn expect_others(&mut self) {
        let (gray, pre) = (self.some_gray(), self.some_of(self.pre));
        let prod = self.some_of(self.prod);
        self.keys.extend([("gray", gray), ("pre", pre)]);
        self.expect("prod", prod);
    }

    /// Whatever is in the keys, they may be found without it.
    fn expect_nothing(&mut self) {
        for key in ALL {
            self.keys.insert(key, Key::of::<String>([]));
        }
        self.expect("gray", Key::of::<String>([]));
    }

    fn rename_or_copy(&mut self) {
        let gray = self.some_gray();
        let entries = gray.entries();
        if entries.is_empty() {
            return;
        }
        let mut prepare = vec!["RPUSH", "prepared"];
        prepare.extend(entries.iter().map(String::as_str));
        self.send(&["DEL", "prepared"]);
        self.send(&prepare);
        self.expect("gray", gray);
        match self.rng.bool() {
            true => self.send(&["RENAME", "prepared", "gray"]),
            false => self.send(&["COPY", "prepared", "gray", "REPLACE"]),
        }
    }

    fn expire(&mut self) {
        self.expect("gray", Key::of::<String>([]));
        self.send(&["PEXPIRE", "gray", "30"]);
    }

    fn burst(&mut self) {
        for _ in 0..self.rng.u8(2..30) {
            self.push_or_remove();
        }
    }

    /// `DEL` and `RPUSH` of the same entries, again and again: nothing changes for a request.
    fn rewrite(&mut self) {
        let key = ALL[self.rng.usize(..3)];
        let settles = match key {
            "gray" => GRAY_SETTLES,
            _ => POOL_SETTLES,
        };
        let entries = self.keys[key].entries();
        if entries.is_empty() {
            return;
        }
        let mut push = vec!["RPUSH", key];
        push.extend(entries.iter().map(String::as_str));
        for _ in 0..self.rng.u8(1..200) {
            let now = self.model.last();
            let mut emptied = self.keys.clone();
            emptied.insert(key, Key::of::<String>([]));
            self.model.may_be(now.after(&emptied), true);
            let begun = Instant::now();
            self.send(&["DEL", key]);
            self.model.may_be(now, false);
            self.send(&push);
            self.model.has_passed(begun.elapsed(), settles);
            self.changes += 1;
        }
    }

    fn spoil(&mut self) {
        let key = ALL[self.rng.usize(..3)];
        let before = self.keys[key].clone();
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
        let (all_bad, wrong_type) = (
            !spoilt.entries().iter().any(|it| is_good(it)),
            spoilt == Key::WrongType,
        );
        self.replace(key, spoilt);
        // What changes nothing must have been read, too.
        self.gateway
            .wait_for_lists("the spoilt list is read", |page| {
                let is_kept = page["kept"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|it| it["list"] == key);
                let skipped = page["skipped"][key]["count"].as_u64().unwrap();
                is_kept == all_bad && (skipped > 0) != wrong_type
            });
        self.settle("spoilt", self.announced);
        self.replace(key, before);
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
                self.expect("gray", self.keys["gray"].clone());
                self.write_all(&ALL);
                self.settle("filled", self.announced);
            }
            1 => {
                let gray = self.some_gray();
                let mut other = self.redis.connect(1);
                let mut pipe = redis::pipe();
                pipe.cmd("FLUSHDB").ignore();
                for key in ALL {
                    let entries = match key {
                        "gray" => gray.entries(),
                        key => self.keys[key].entries(),
                    };
                    if !entries.is_empty() {
                        pipe.cmd("RPUSH").arg(key).arg(entries).ignore();
                    }
                }
                pipe.exec(&mut other).unwrap();
                self.expect("gray", gray);
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
                self.push_or_remove();
            }
            1 => {
                self.redis.signal(Signal::SIGSTOP);
                std::thread::sleep(Duration::from_millis(self.rng.u64(..2500)));
                self.redis.signal(Signal::SIGCONT);
                self.push_or_remove();
            }
            2 => {
                self.send(&["CLIENT", "KILL", "TYPE", "pubsub"]);
                self.push_or_remove();
            }
            3 => {
                // Its own connection survives the command.
                self.send(&["CLIENT", "KILL", "TYPE", "normal"]);
                self.push_or_remove();
            }
            4 => {
                self.send(&["DEBUG", "RELOAD"]);
                self.push_or_remove();
            }
            5 => self.restart_with_others(),
            _ => self.follow_another(),
        }
        self.settle("recovered", RECOVERED);
    }

    /// Redis comes back without what it had, and is filled with something else.
    fn restart_with_others(&mut self) {
        self.redis.kill();
        // Of an earlier outage.
        let _ = std::fs::remove_file(self.redis.path("dump.rdb"));
        self.expect_nothing();
        self.redis.restart();
        self.expect_others();
        self.write_all(&ALL);
    }

    /// Redis becomes the replica of a server with other lists, which comes as a whole, and then its
    /// own master again.
    fn follow_another(&mut self) {
        let master = Redis::start_with_options(&["--repl-diskless-sync-delay", "0"]);
        self.expect_others();
        self.write_all_to(&master, &ALL);
        let (ip, port) = (master.address().ip(), master.address().port());
        self.send(&["REPLICAOF", &ip.to_string(), &port.to_string()]);
        self.settle("followed", RECOVERED);
        self.send(&["REPLICAOF", "NO", "ONE"]);
        self.push_or_remove();
    }

    fn step(&mut self) {
        match self.rng.u8(..40) {
            0..12 => self.push_or_remove(),
            12..18 => self.change_pool(),
            18..22 => self.transaction(),
            22..26 => self.rename_or_copy(),
            26..28 => self.expire(),
            28..31 => self.burst(),
            31..34 => self.rewrite(),
            34..36 => return self.spoil(),
            36..38 => return self.unannounced(),
            _ => return self.outage(),
        }
        self.settle("announced", self.announced);
    }
}

/// Asks from one address after the other until `done`.
fn ask(gateway: &Gateway, model: &Model, done: &AtomicBool, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut clients: BTreeMap<Ipv4Addr, Client> = BTreeMap::new();
    while !done.load(Ordering::Relaxed) {
        let address = Ipv4Addr::new(127, 0, 0, FIRST_CLIENT + rng.u8(..CLIENTS));
        let connect = || gateway.connect_from(&address.to_string());
        let client = clients.entry(address).or_insert_with(connect);
        let sent = Instant::now();
        let response = client.get("/");
        model.judge(address, sent, response.status(), &response.text());
        if rng.u8(..50) == 0 {
            clients.remove(&address);
        }
    }
}

/// Starts a peer that answers every request with its address, as it is listed.
fn start_peer() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let name = address.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, name) = (stream.unwrap(), name.clone());
            std::thread::spawn(move || answer_all(stream, &name));
        }
    });
    address
}

fn answer_all(stream: TcpStream, name: &str) {
    let mut answers = stream.try_clone().unwrap();
    let mut reader = StrictReader::new(stream);
    while reader.request().is_ok() {
        let answer = support::ok(name);
        if answers.write_all(&answer).is_err() {
            return;
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|it| it.parse().unwrap())
}

#[test]
fn every_answer_is_one_that_the_lists_allow_whatever_happens_to_redis() {
    let seconds = number("CHAOS_SECONDS").unwrap_or(10);
    let seed = number("CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..));
    let notify = ["events", "tracking", "poll"][(seed % 3) as usize];
    println!("seed {seed}, notify = {notify}");
    let peers = |count: usize| (0..count).map(|_| start_peer()).collect::<Vec<_>>();
    let (pre_peers, prod_peers) = (peers(3), peers(4));

    let redis = Redis::start_with_options(&["--enable-debug-command", "local"]);
    let keys: Keys = [
        ("gray", Key::of::<String>([])),
        ("pre", Key::of(&pre_peers)),
        ("prod", Key::of(&prod_peers)),
    ]
    .into();
    let model = Model::new(InForce::default().after(&keys));
    let gateway = Setup::new()
        .redis(redis.url())
        .set("redis.notify", notify)
        .set("redis.check_interval", "1s")
        .set("redis.poll_interval", format!("{}ms", POLL.as_millis()))
        .set("redis.timeout", "500ms")
        .set("lists.guard_share", 100)
        .set("log.access", "off");
    for (key, peers) in [("pre", &pre_peers), ("prod", &prod_peers)] {
        let peers: Vec<&dyn std::fmt::Display> = peers.iter().map(|it| it as _).collect();
        redis.push(key, &peers);
    }
    let gateway = &gateway.start();
    let mut driver = Driver {
        rng: Rng::with_seed(seed),
        redis,
        gateway,
        model: &model,
        keys,
        pre: &pre_peers,
        prod: &prod_peers,
        changes: 0,
        faults: 0,
        delays: Delays::default(),
        announced: match notify {
            "poll" => ANNOUNCED + POLL,
            _ => ANNOUNCED,
        },
    };
    driver.settle("start", RECOVERED);
    let done = AtomicBool::new(false);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for at in 0..4 {
            let (model, done) = (&model, &done);
            scope.spawn(move || ask(gateway, model, done, seed ^ at));
        }
        // Also when it fails, or the clients would go on for ever.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while begun.elapsed() < Duration::from_secs(seconds) {
                driver.step();
            }
        }));
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    let requests = model.requests.load(Ordering::Relaxed);
    let violations = model.violations.lock().unwrap();
    println!(
        "{seconds} s: {requests} requests, {} changes, {} faults, {} violations",
        driver.changes,
        driver.faults,
        violations.len()
    );
    for (kind, delays) in &mut driver.delays.0 {
        delays.sort();
        let (median, most) = (delays[delays.len() / 2], delays[delays.len() - 1]);
        println!(
            "{kind:12} {:5} times: in force after {median:?} (median), {most:?} (most)",
            delays.len()
        );
    }
    assert!(violations.is_empty(), "{violations:#?}");
    assert!(requests > 100 && driver.changes > 10, "too little was done");
}
