//! Bursts of random changes with the guard on, of which none is waited for: whatever comes into force
//! is what Redis had a moment before, what may not wait does not, and what is left in the end is what
//! Redis has, or it is held.
//!
//! `BURSTS_SECONDS=600 cargo test --release --test bursts -- --nocapture` is the long run;
//! `BURSTS_SEED` repeats its decisions, though not the machine's.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};
use support::{DEADLINE, Gateway, Redis, Setup, wait_until};

/// From the moment at which Redis has something until the gateway has read it and shows that. Far
/// above what it takes; what the machine adds is measured.
const SEEN: Duration = Duration::from_millis(400);

/// Lists wait for others for so long, at most; see docs/lists.md.
const MOST_WITHHELD: Duration = Duration::from_millis(1500);

const ALL: [&str; 3] = ["gray", "pre", "prod"];

type Entries = BTreeSet<String>;

/// What a list was from some time on.
struct Version {
    entries: Entries,
    /// Before the command was sent that brought it.
    from: Instant,
    /// After the answer to the command that took it away.
    until: Option<Instant>,
}

/// What Redis had when.
#[derive(Default)]
struct History(Mutex<[Vec<Version>; ALL.len()]>);

impl History {
    /// The lists are about to be these.
    fn begins(&self, lists: &[(usize, Entries)]) {
        let from = Instant::now();
        let mut history = self.0.lock().unwrap();
        for (list, entries) in lists.iter().cloned() {
            history[list].push(Version {
                entries,
                from,
                until: None,
            });
        }
    }

    /// They are.
    fn has_begun(&self, lists: &[(usize, Entries)]) {
        let now = Instant::now();
        let mut history = self.0.lock().unwrap();
        for (list, _) in lists {
            let versions = &mut history[*list];
            let last = versions.len() - 1;
            for version in &mut versions[..last] {
                version.until.get_or_insert(now);
            }
        }
    }

    fn last(&self, list: usize) -> (Entries, Instant) {
        let history = self.0.lock().unwrap();
        let last = history[list].last().unwrap();
        (last.entries.clone(), last.from)
    }

    /// For how long before `moment` a list has not had these entries; `None`: it never had.
    fn age(&self, list: usize, entries: &Entries, moment: Instant) -> Option<Duration> {
        let history = self.0.lock().unwrap();
        let had = history[list].iter().filter(|it| it.entries == *entries);
        let age = |it: &Version| match it.until {
            None => Duration::ZERO,
            Some(until) => moment.saturating_duration_since(until),
        };
        had.map(age).min()
    }
}

/// What the gateway has.
fn lists(page: &Value) -> [Entries; ALL.len()] {
    ALL.map(|list| {
        let entries = page[list].as_array().unwrap().iter();
        entries.map(|it| it.as_str().unwrap().to_owned()).collect()
    })
}

fn admits_everybody(entries: &Entries) -> bool {
    entries.contains(EVERYBODY)
}

const EVERYBODY: &str = "0.0.0.0/0";

/// Who looks at what is in force all the time.
#[derive(Default)]
struct Watch {
    history: History,
    violations: Mutex<Vec<String>>,
    /// What was last seen to be held.
    digest: Mutex<Option<String>>,
}

impl Watch {
    fn violation(&self, what: String) {
        eprintln!("violation: {what}");
        self.violations.lock().unwrap().push(what);
    }

    /// Looks until `done`; returns how many changes were seen.
    fn look(&self, gateway: &Gateway, done: &AtomicBool) -> usize {
        let (mut changes, mut before) = (0, None);
        let mut last = Instant::now();
        // The longest looks of late: what the machine has taken from everybody.
        let mut lag = Duration::ZERO;
        while !done.load(Ordering::Relaxed) {
            let page = gateway.lists();
            let now = Instant::now();
            lag = (now - last).max(lag.mul_f64(0.99));
            let allowed = SEEN + 4 * lag;
            let in_force = lists(&page);
            let before = before.get_or_insert_with(|| in_force.clone());
            for (at, list) in ALL.into_iter().enumerate() {
                let entries = &in_force[at];
                if *entries != before[at] {
                    changes += 1;
                    let age = self.history.age(at, entries, last);
                    if age.is_none_or(|it| it > allowed) {
                        self.violation(format!("{list}: {entries:?} of {age:?} ago, {page}"));
                    }
                }
                self.judge_old(list, at, entries, last, MOST_WITHHELD + allowed, &page);
            }
            *before = in_force;
            let digest = page["held"][0]["digest"].as_str();
            if let Some(digest) = digest {
                *self.digest.lock().unwrap() = Some(digest.to_owned());
            }
            last = now;
            std::thread::yield_now();
        }
        changes
    }

    /// What is neither held nor found empty is in force after a time.
    fn judge_old(
        &self,
        list: &str,
        at: usize,
        entries: &Entries,
        now: Instant,
        most: Duration,
        page: &Value,
    ) {
        let (has, since) = self.history.last(at);
        let may_wait = match list {
            "gray" => admits_everybody(&has),
            "pre" => has.is_empty(),
            _ => true,
        };
        if !may_wait && *entries != has && now.saturating_duration_since(since) > most {
            self.violation(format!("{list} is not {has:?} after {most:?}: {page}"));
        }
    }
}

/// Who makes the changes.
struct Driver<'a> {
    rng: Rng,
    connection: redis::Connection,
    watch: &'a Watch,
    steps: usize,
}

impl Driver<'_> {
    fn some(&mut self, list: usize, least: usize) -> Entries {
        let mut all: Vec<String> = match ALL[list] {
            "gray" => (1..=5).map(|at| format!("1.1.1.{at}")).collect(),
            "pre" => (1..=4).map(|at| format!("127.10.0.{at}:80")).collect(),
            _ => (1..=8).map(|at| format!("127.9.0.{at}:80")).collect(),
        };
        self.rng.shuffle(&mut all);
        let count = self.rng.usize(least..=all.len());
        let mut some: Entries = all.into_iter().take(count).collect();
        if list == 0 && self.rng.u8(..8) == 0 {
            some.insert(EVERYBODY.to_owned());
        }
        some
    }

    /// Replaces lists by one transaction.
    fn replace(&mut self, lists: &[(usize, Entries)]) {
        let mut pipe = redis::pipe();
        pipe.atomic();
        for (list, entries) in lists {
            pipe.cmd("DEL").arg(ALL[*list]).ignore();
            if !entries.is_empty() {
                pipe.cmd("RPUSH").arg(ALL[*list]).arg(entries).ignore();
            }
        }
        self.watch.history.begins(lists);
        pipe.exec(&mut self.connection).unwrap();
        self.watch.history.has_begun(lists);
    }

    /// Writes a list entry by entry.
    fn rewrite(&mut self, list: usize) {
        let pause = [0, 2, 20, 100][self.rng.usize(..4)];
        let mut written = Entries::new();
        self.replace(&[(list, Entries::new())]);
        for entry in self.some(list, 1) {
            self.pause(pause);
            written.insert(entry.clone());
            let lists = [(list, written.clone())];
            self.watch.history.begins(&lists);
            let mut push = redis::cmd("RPUSH");
            push.arg(ALL[list]).arg(entry);
            push.exec(&mut self.connection).unwrap();
            self.watch.history.has_begun(&lists);
        }
    }

    fn pause(&self, ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }

    fn transaction(&mut self) {
        let mut which: Vec<usize> = (0..ALL.len()).collect();
        self.rng.shuffle(&mut which);
        let count = self.rng.usize(1..=which.len());
        let lists: Vec<_> = which[..count]
            .iter()
            .map(|list| {
                let least = [[0, 1, 1], [0, 0, 1], [0, 2, 5]][*list][self.rng.usize(..3)];
                // Often nothing at all, and that of `pre` most of all.
                let is_nothing = least == 0 && self.rng.u8(..3) < 1 + (*list == 1) as u8;
                let entries = match is_nothing {
                    true => Entries::new(),
                    false => self.some(*list, least),
                };
                (*list, entries)
            })
            .collect();
        self.replace(&lists);
    }

    /// What was held is confirmed, whether it is still held or not.
    fn accept(&mut self) {
        let Some(digest) = self.watch.digest.lock().unwrap().clone() else {
            return;
        };
        let mut set = redis::cmd("SET");
        set.arg("graygate:accept").arg(digest).arg("PX").arg(300);
        set.exec(&mut self.connection).unwrap();
    }

    /// What was taken away is brought back, and `pre` goes with it.
    fn mistake(&mut self) {
        let lists = [
            (0, self.some(0, 1)),
            (1, self.some(1, 1)),
            (2, self.some(2, 0)),
        ];
        self.replace(&lists);
        let pause = [50, 300, 700, 1000, 1300][self.rng.usize(..5)];
        self.pause(pause);
        let prod = (1..=8).map(|at| format!("127.9.0.{at}:80")).collect();
        let gray = ["1.1.1.1".to_owned()].into();
        self.replace(&[(0, gray), (1, Entries::new()), (2, prod)]);
        if self.rng.bool() {
            // Later than it takes to see what Redis has, and sooner than `pre` counts as empty.
            self.pause(700);
            self.accept();
        }
    }

    fn step(&mut self) {
        self.steps += 1;
        match self.rng.u8(..20) {
            0..11 => self.transaction(),
            11..14 => {
                let list = self.rng.usize(..ALL.len());
                self.rewrite(list);
            }
            14..18 => self.mistake(),
            _ => self.accept(),
        }
        let pause = [0, 10, 100, 300, 800, 1200][self.rng.usize(..6)];
        self.pause(pause);
    }
}

/// Waits until the gateway has what Redis has, or holds it; without a time, it may hold it for ever.
#[track_caller]
fn settle(gateway: &Gateway, watch: &Watch, may_hold: bool) {
    wait_until("the gateway has what Redis has", 2 * DEADLINE, || {
        let page = gateway.lists();
        let in_force = lists(&page);
        let held = page["held"].as_array().unwrap();
        let holds = |list: &str| held.iter().any(|it| it["list"] == list);
        let is_good = |at: usize| {
            let is_other = in_force[at] != watch.history.last(at).0;
            is_other == holds(ALL[at])
        };
        (0..ALL.len()).all(is_good) && page["kept"] == json!([]) && (may_hold || held.is_empty())
    });
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|it| it.parse().unwrap())
}

#[test]
fn what_comes_into_force_is_what_redis_has_whatever_waits_or_is_held() {
    let seconds = number("BURSTS_SECONDS").unwrap_or(10);
    let seed = number("BURSTS_SEED").unwrap_or_else(|| fastrand::u64(..));
    let notify = ["events", "tracking", "poll"][(seed % 3) as usize];
    let timeout = ["off", "1500ms"][(seed / 3 % 2) as usize];
    println!("seed {seed}, notify = {notify}, guard_timeout = {timeout}");
    let redis = Redis::start();
    let watch = Watch::default();
    let mut driver = Driver {
        rng: Rng::with_seed(seed),
        connection: redis.connect(0),
        watch: &watch,
        steps: 0,
    };
    let mut some = |list, least| (list, driver.some(list, least));
    let first = [some(0, 1), some(1, 1), some(2, 6)];
    driver.replace(&first);
    let gateway = Setup::new()
        .redis(redis.url())
        .set("redis.notify", notify)
        .set("redis.check_interval", "1s")
        .set("redis.poll_interval", "50ms")
        .set("lists.guard_share", 50)
        .set("lists.guard_timeout", timeout)
        .set("log.access", "off");
    let gateway = &gateway.start();
    gateway.wait_for_lists("the first lists", |page| lists(page)[2] == first[2].1);
    let (done, begun) = (AtomicBool::new(false), Instant::now());
    let changes = std::thread::scope(|scope| {
        let looks = scope.spawn(|| watch.look(gateway, &done));
        // Also when it fails, or the other would look for ever.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while begun.elapsed() < Duration::from_secs(seconds) {
                for _ in 0..driver.rng.usize(5..25) {
                    driver.step();
                }
                settle(gateway, &watch, timeout == "off");
            }
        }));
        done.store(true, Ordering::Relaxed);
        let changes = looks.join().unwrap();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        changes
    });
    let violations = watch.violations.lock().unwrap();
    let steps = driver.steps;
    println!(
        "{seconds} s: {steps} steps, {changes} changes of a list in force, {} violations",
        violations.len()
    );
    assert!(violations.is_empty(), "{violations:#?}");
    assert!(steps >= 5 && changes > 5, "too little was done");
}
