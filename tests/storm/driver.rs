//! Rounds: a release begins, everything fails at random while its share grows, and when all is well again,
//! what was decided must hold, and the release must go on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::desk::Desk;
use super::forwarder::Way;
use super::model::Model;
use super::node::Node;
use super::server::{Keeps, Server};
use super::version::Version;

/// When all is well again, what was decided is in force everywhere so soon: a lease may have to end, and
/// whoever could not do anything has resigned for as long.
const IN_FORCE: Duration = Duration::from_secs(40);

/// A step is taken so soon, if nothing stands against it.
const STEPPED: Duration = Duration::from_secs(50);

/// All steps are taken so soon, from then on.
const ENDED: Duration = Duration::from_secs(60);

/// A version that fails is taken back so soon.
const TAKEN_BACK: Duration = Duration::from_secs(60);

/// What is to be mended, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mend {
    Way(usize),
    Go(usize),
    Start(usize),
    Server,
    ServerGoes,
}

pub(crate) struct Driver<'a> {
    pub(crate) rng: Rng,
    pub(crate) model: &'a Arc<Model>,
    pub(crate) server: Server,
    pub(crate) nodes: &'a [Node],
    pub(crate) desk: Desk,
    pub(crate) versions: &'a [Version],
    due: Vec<(Instant, Mend)>,
    /// Which versions are where, and the digest of `pre`.
    pre: usize,
    prod: usize,
    pre_digest: String,
}

impl<'a> Driver<'a> {
    pub(crate) fn new(
        rng: Rng,
        model: &'a Arc<Model>,
        server: Server,
        nodes: &'a [Node],
        versions: &'a [Version],
    ) -> Self {
        let desk = Desk::at(format!("redis://{}/0", server.address()));
        Self {
            rng,
            model,
            server,
            nodes,
            desk,
            versions,
            due: Vec::new(),
            pre: 0,
            prod: 0,
            pre_digest: String::new(),
        }
    }

    fn run(&self, words: &str) -> bool {
        let words: Vec<&str> = words.split(' ').collect();
        self.desk.run(self.model, &words).is_done
    }

    fn chance(&mut self, of: u32) -> bool {
        self.rng.u32(..of) == 0
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.u64(from..to))
    }

    fn list(&self, key: &str) -> Vec<String> {
        let mut pipe = redis::pipe();
        pipe.cmd("LRANGE").arg(key).arg(0).arg(-1);
        let found = self.server.ask(&pipe).unwrap();
        let found: Vec<Vec<String>> = redis::from_redis_value(found).unwrap();
        found.into_iter().next().unwrap()
    }

    fn rollout(&self) -> Value {
        let said = self
            .desk
            .run(self.model, &["rollout", "status", "--json"])
            .text;
        let status: Value = serde_json::from_str(&said).unwrap_or_default();
        status["rollout"].clone()
    }

    /// Writes what is in `pre`, and in `prod` if that is empty; nobody is gray.
    fn write_lists(&mut self, pre: usize, prod: usize) {
        let address = |it: usize| self.versions[it].origin.address().to_string();
        let mut pipe = redis::pipe();
        pipe.atomic();
        for key in ["gray", "pre", "prod"] {
            pipe.cmd("DEL").arg(key).ignore();
        }
        pipe.cmd("RPUSH").arg("pre").arg(address(pre)).ignore();
        pipe.cmd("RPUSH").arg("prod").arg(address(prod)).ignore();
        self.server.ask(&pipe).unwrap();
        (self.pre, self.prod) = (pre, prod);
        self.model
            .note(&format!("pre is v{pre} and prod is v{prod}"));
    }

    /// The lists with which all begins.
    pub(crate) fn fill(&mut self) {
        self.write_lists(1, 0);
    }

    /// Which version everybody gets.
    fn prod_there(&self) -> Option<usize> {
        let there = self.list("prod");
        let is_it = |it: &Version| there.contains(&it.origin.address().to_string());
        self.versions.iter().position(is_it)
    }

    /// All gateways say the same digest of `pre`, which is not this one, and that nothing was taken back.
    fn settled(&self, other_than: &str) -> Option<String> {
        let mut all = self.nodes.iter().map(|it| {
            let page = it.lists()?;
            let digest = page["digests"]["pre"].as_str()?.to_owned();
            (page["tripped"].is_null() && digest != other_than).then_some(digest)
        });
        let first = all.next()??;
        all.all(|it| it.as_ref() == Some(&first)).then_some(first)
    }

    /// Waits for it, or says that it was not so.
    fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> Option<T> {
        let until = Instant::now() + limit;
        loop {
            if let Some(found) = look(self) {
                return Some(found);
            }
            if Instant::now() > until {
                let pages: Vec<String> = self.nodes.iter().map(|it| shown(it.lists())).collect();
                let held = self.model.held();
                self.model.violation(&format!(
                    "not within {limit:?}: {what}; {pages:?} {}",
                    held.state
                ));
                return None;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Another release, under which nothing has happened yet.
    fn release(&mut self) {
        self.run("thaw");
        let prod = self.prod_there().unwrap_or(0);
        let (before, there) = (self.pre, self.list("pre"));
        let is_there = |it: usize| there.contains(&self.versions[it].origin.address().to_string());
        let others: Vec<usize> = (0..self.versions.len())
            .filter(|it| *it != prod && *it != before && !is_there(*it))
            .collect();
        let pre = others[self.rng.usize(..others.len())];
        for version in self.versions {
            version.set_bad(0);
        }
        self.write_lists(pre, prod);
        self.wait("what was under way is over", IN_FORCE, |it| {
            let rollout = it.rollout();
            (rollout.is_null() || is_over(&rollout)).then_some(())
        });
        self.run("verdict reset --by ann");
        let last = self.pre_digest.clone();
        let settled = self.wait("all have the new version", IN_FORCE, |it| it.settled(&last));
        self.pre_digest = settled.unwrap_or_default();
        let name = self.versions[pre].name.clone();
        self.model.is_version(&self.pre_digest, &name);
    }

    /// One gateway is cut off, takes a version back that others find well, and is killed right then. The
    /// others go on. When it is back, that holds for all.
    pub(crate) fn ambush(&mut self) {
        self.release();
        let plan = "--steps 20,30,40,50,60,70,80,90 --every 2s --without-verdict";
        self.run(&format!("rollout start --yes --by ann {plan}"));
        self.wait("it is led", IN_FORCE, |it| {
            it.model.held().state["rollout"]["holder"]
                .is_string()
                .then_some(())
        });
        let held = self.model.held();
        let alone = self.nodes.iter().position(|it| !it.leads(&held.state));
        let alone = alone.unwrap();
        let node = &self.nodes[alone];
        node.way.set(Way::Cut);
        node.is_doomed
            .store(true, std::sync::atomic::Ordering::Relaxed);
        self.model.is_bad(&self.pre_digest);
        self.versions[self.pre].set_bad(1 << alone);
        let pre = self.pre_digest.clone();
        self.wait("it has taken that back, and is killed", TAKEN_BACK, |it| {
            let has_found = !it.model.standing(&pre).is_empty();
            (has_found && !it.nodes[alone].is_there()).then_some(())
        });
        self.versions[self.pre].set_bad(0);
        let before = self.rollout()["at"].as_u64();
        self.wait("the others go on", STEPPED, |it| {
            (it.rollout()["at"].as_u64() > before).then_some(())
        });
        self.nodes[alone].way.set(Way::Open);
        self.nodes[alone].start(self.model);
        self.must_be_taken_back(&pre);
    }

    /// A release and its rollout, as it happens.
    pub(crate) fn begin(&mut self) {
        self.release();
        let first = self.rng.u32(15..30);
        let steps: Vec<String> = (0..self.rng.u32(3..7))
            .map(|it| (first + it * 12).to_string())
            .collect();
        let every = self.rng.u32(1..3);
        let mut words = format!(
            "rollout start --yes --by ann --steps {} --every {every}s",
            steps.join(",")
        );
        if self.rng.bool() {
            words += " --without-verdict";
        }
        if self.chance(3) {
            words += " --promote";
        }
        if !self.run(&words) {
            self.model.violation("a rollout did not begin");
        }
    }

    /// Everything fails, for so long.
    pub(crate) fn storm(&mut self, length: Duration) {
        let end = Instant::now() + length;
        let defect = match self.rng.u8(..5) {
            0..3 => Some(Instant::now() + self.millis(0, length.as_millis() as u64)),
            _ => None,
        };
        let (mut defect, mut next) = (defect, Instant::now());
        while Instant::now() < end {
            if defect.is_some_and(|it| it <= Instant::now()) {
                defect = None;
                self.make_bad();
            }
            self.make_well();
            self.mend_due(false);
            self.server.look();
            self.compare();
            if next <= Instant::now() {
                match self.chance(4) {
                    true => self.act(),
                    false => self.fault(),
                }
                next = Instant::now() + self.millis(200, 4500);
            }
            std::thread::sleep(Duration::from_millis(40));
        }
    }

    fn make_bad(&mut self) {
        self.model.is_bad(&self.pre_digest);
        let node = self.rng.usize(..self.nodes.len());
        let (bad, what) = match self.rng.bool() {
            true => (u8::MAX, "defects"),
            false => (1 << node, "defects by one gateway"),
        };
        self.versions[self.pre].set_bad(bad);
        self.model
            .note(&format!("v{} fails from now on: {bad:b}", self.pre));
        self.model.count(what);
        // The others know nothing of that, and go on.
        if bad != u8::MAX && !self.chance(3) && !self.is_due(Mend::Way(node)) {
            self.nodes[node].way.set(Way::Cut);
            let after = self.millis(4000, 15_000);
            self.model
                .note(&format!("gw-{node}: its way is cut for {after:?}"));
            self.later(after, Mend::Way(node));
        }
        if self.rng.bool() {
            let doomed = match bad {
                u8::MAX => self.rng.usize(..self.nodes.len()),
                _ => node,
            };
            self.nodes[doomed]
                .is_doomed
                .store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// What one gateway alone has seen is over once that has taken it back: so nobody finds it again, should
    /// that be forgotten.
    fn make_well(&self) {
        let version = &self.versions[self.pre];
        if version.is_bad_for_one() && !self.model.standing(&self.pre_digest).is_empty() {
            version.set_bad(0);
            self.model.note(&format!("{} is well again", version.name));
        }
    }

    /// What is in Redis at one moment: the share of a rollout that is running is on gray.
    fn compare(&self) {
        if !self.server.is_up || self.is_due(Mend::ServerGoes) {
            return;
        }
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("GET").arg("graygate:release");
        pipe.cmd("LRANGE").arg("gray").arg(0).arg(-1);
        let Ok(found) = self.server.ask(&pipe) else {
            return;
        };
        let Ok((state, gray)): Result<(Option<String>, Vec<String>), _> =
            redis::from_redis_value(found)
        else {
            return;
        };
        let state: Value = serde_json::from_str(&state.unwrap_or_default()).unwrap_or_default();
        let rollout = &state["rollout"];
        if rollout["course"] != "running" {
            return;
        }
        let place = rollout["at"].as_u64().unwrap() as usize;
        let percent = rollout["steps"][place].as_u64().unwrap() / 100;
        let share = format!("percent:{percent}");
        if rollout["share"] != *share || !gray.contains(&share) {
            self.model
                .violation(&format!("gray is {gray:?} where the rollout is {rollout}"));
        }
    }

    fn is_due(&self, mend: Mend) -> bool {
        self.due.iter().any(|it| it.1 == mend)
    }

    fn later(&mut self, after: Duration, mend: Mend) {
        self.due.push((Instant::now() + after, mend));
    }

    /// The gateway that has the lease, as far as is known; any other one now and then.
    fn leader(&mut self) -> usize {
        let held = self.model.held();
        let leader = self.nodes.iter().position(|it| it.leads(&held.state));
        match leader {
            Some(leader) if !self.chance(4) => leader,
            _ => self.rng.usize(..self.nodes.len()),
        }
    }

    fn fault(&mut self) {
        let node = self.leader();
        let name = self.nodes[node].name.clone();
        match self.rng.u8(..10) {
            0 | 1 if self.server.is_up && !self.is_due(Mend::ServerGoes) => {
                let loses = self.rng.bool();
                let has_lost = self.server.kill(loses);
                self.model
                    .note(&format!("redis is killed, lost={has_lost}"));
                self.model.count(match has_lost {
                    true => "kills of redis that lost a second",
                    false => "kills of redis",
                });
                let after = self.millis(0, 4000);
                self.later(after, Mend::Server);
            }
            2 if self.server.is_up && !self.is_due(Mend::ServerGoes) => {
                self.server.signal(Signal::SIGSTOP);
                self.model.note("redis stands still");
                self.model.count("stops of redis");
                let after = self.millis(50, 4000);
                self.later(after, Mend::ServerGoes);
            }
            3 | 4 if !self.is_due(Mend::Start(node)) => {
                self.nodes[node].kill();
                self.model.note(&format!("{name} is killed"));
                self.model.count("kills of gateways");
                let after = self.millis(0, 5000);
                self.later(after, Mend::Start(node));
            }
            5 | 6 if !self.is_due(Mend::Go(node)) => {
                self.nodes[node].signal(Signal::SIGSTOP);
                self.model.count("stops of gateways");
                let longest = if self.chance(3) { 25_000 } else { 4000 };
                let after = self.millis(100, longest);
                self.model
                    .note(&format!("{name} stands still for {after:?}"));
                self.later(after, Mend::Go(node));
            }
            7..10 if !self.is_due(Mend::Way(node)) => {
                let way = if self.rng.bool() { Way::Hung } else { Way::Cut };
                self.nodes[node].way.set(way);
                self.model.count(match way {
                    Way::Cut => "cuts of a network",
                    _ => "hangs of a network",
                });
                let longest = if self.chance(3) { 15_000 } else { 3000 };
                let after = self.millis(100, longest);
                self.model
                    .note(&format!("{name}: its way is {way:?} for {after:?}"));
                self.later(after, Mend::Way(node));
            }
            _ => {}
        }
        if self.chance(3) {
            self.set_clock(node);
        }
    }

    fn set_clock(&mut self, node: usize) {
        let ahead = self.rng.i64(-4000..4000);
        if let Some(clock) = &self.nodes[node].clock {
            clock.set(ahead);
            self.model.note(&format!(
                "the clock of {} is {ahead} s ahead",
                self.nodes[node].name
            ));
            self.model.count("clocks set");
        }
    }

    /// What people do.
    fn act(&mut self) {
        if !self.server.is_up || self.is_due(Mend::ServerGoes) {
            return;
        }
        let words = match self.rng.u8(..14) {
            0 | 1 => "rollout pause --by bob",
            2..6 => "rollout resume --by bob",
            6 => "freeze --by bob",
            7 | 8 => "thaw --by bob",
            9 => "verdict reset --by bob",
            10 => "admit 127.9.9.9 --by bob",
            11 if self.chance(3) => "rollout abort --yes --by bob",
            12 if self.chance(3) => "rollback --yes --by bob",
            _ => "rollout status",
        };
        self.model.count("commands");
        self.run(words);
    }

    /// Mends what is due, or `all`.
    fn mend_due(&mut self, all: bool) {
        let now = Instant::now();
        let due = std::mem::take(&mut self.due).into_iter();
        let (due, left): (Vec<_>, Vec<_>) = due.partition(|it| all || it.0 <= now);
        self.due = left;
        for (_, mend) in due {
            match mend {
                Mend::Way(node) => self.nodes[node].way.set(Way::Open),
                Mend::Go(node) => self.nodes[node].signal(Signal::SIGCONT),
                Mend::Start(node) => {
                    if !self.nodes[node].is_there() {
                        self.nodes[node].start(self.model);
                    }
                }
                Mend::ServerGoes => self.server.signal(Signal::SIGCONT),
                Mend::Server => self.restart_server(),
            }
            self.model.note(&format!("mended: {mend:?}"));
        }
        // Whoever was killed by what it has done is started again, some time.
        for node in 0..self.nodes.len() {
            if !self.nodes[node].is_there() && !self.is_due(Mend::Start(node)) {
                let after = if all {
                    Duration::ZERO
                } else {
                    self.millis(0, 5000)
                };
                self.later(after, Mend::Start(node));
            }
        }
    }

    fn restart_server(&mut self) {
        let filled = self.pre_and_prod();
        self.server.restart();
        if self.server.keeps == Keeps::Nothing {
            // What there is to be filled in again.
            let mut pipe = redis::pipe();
            pipe.atomic();
            for (key, entry) in ["pre", "prod"].iter().zip(filled) {
                pipe.cmd("RPUSH").arg(key).arg(entry).ignore();
            }
            self.server.ask(&pipe).unwrap();
        }
    }

    /// What an operator would fill in, who does not know of a promotion that was just made.
    fn pre_and_prod(&self) -> [String; 2] {
        let address = |it: usize| self.versions[it].origin.address().to_string();
        [self.pre, self.prod].map(address)
    }

    /// All is well again.
    fn mend_all(&mut self) {
        self.mend_due(true);
        self.mend_due(true);
        for node in self.nodes {
            node.is_doomed
                .store(false, std::sync::atomic::Ordering::Relaxed);
        }
        self.wait("all gateways answer", IN_FORCE, |it| {
            it.nodes.iter().all(|it| it.lists().is_some()).then_some(())
        });
        self.run("thaw --by ann");
        if self.server.keeps == Keeps::Nothing {
            // What was filled in by hand may take servers out of `prod`.
            self.wait("nothing is held", IN_FORCE, |it| {
                let held = it.held();
                held.iter().for_each(|digest| it.confirm(digest));
                held.is_empty().then_some(())
            });
        }
    }

    /// The digests of what gateways do not take without a word.
    fn held(&self) -> Vec<String> {
        let pages = self.nodes.iter().filter_map(|it| it.lists());
        let digests = |page: Value| {
            let held = page["held"].as_array().into_iter().flatten();
            let held = held.filter_map(|it| it["digest"].as_str().map(str::to_owned));
            held.collect::<Vec<_>>()
        };
        pages.flat_map(digests).collect()
    }

    fn confirm(&self, digest: &str) {
        let mut accept = redis::cmd("SET");
        accept.arg("graygate:accept").arg(digest);
        let mut pipe = redis::pipe();
        pipe.add_command(accept).ignore();
        // It is asked for again.
        let _ = self.server.ask(&pipe);
    }

    /// What was decided holds, and what may go on goes on; to its end now and then, if there is time.
    pub(crate) fn conclude(&mut self, has_time: bool) {
        self.mend_all();
        self.model.note("all is well again");
        let pre = self.pre_digest.clone();
        let there = self.list("pre");
        if there.is_empty() {
            self.model.count("promoted");
            return;
        }
        if there != [self.versions[self.pre].origin.address().to_string()] {
            // That this version is in pre was among what was lost: there is another release now.
            self.model.count("versions lost");
            return;
        }
        let is_bad = self.versions[self.pre].is_bad();
        if is_bad && self.model.standing(&pre).is_empty() {
            let rollout = self.rollout();
            let has_share = !self.list("gray").is_empty() && !rollout.is_null();
            if has_share && !is_over(&rollout) {
                self.wait("it is taken back", TAKEN_BACK, |it| {
                    let is_promoted = it.list("pre").is_empty();
                    (is_promoted || !it.model.standing(&pre).is_empty()).then_some(())
                });
            }
        }
        if self.list("pre").is_empty() {
            self.model.count("promoted");
            return;
        }
        match self.model.standing(&pre).is_empty() {
            false => self.must_be_taken_back(&pre),
            true if !is_bad => self.must_go_on(has_time),
            true => {}
        }
    }

    fn must_be_taken_back(&mut self, pre: &str) {
        self.model.count("trips that had to hold");
        self.wait("the store has the trip", IN_FORCE, |it| {
            (it.model.held().tripped["pre"] == pre).then_some(())
        });
        self.wait("all hold it", IN_FORCE, |it| {
            let holds = |it: &Node| it.lists().is_some_and(|it| it["tripped"]["pre"] == pre);
            it.nodes.iter().all(holds).then_some(())
        });
        self.wait("the rollout is over", IN_FORCE, |it| {
            let rollout = it.rollout();
            (rollout.is_null() || rollout["pre"] != pre || is_over(&rollout)).then_some(())
        });
        let rollout = self.rollout();
        let gray = self.list("gray");
        if rollout["course"] == "aborted" && gray.iter().any(|it| it.starts_with("percent:")) {
            self.model
                .violation(&format!("{rollout} was not rolled back: {gray:?}"));
        }
    }

    fn must_go_on(&mut self, has_time: bool) {
        let rollout = self.rollout();
        if rollout.is_null() || is_over(&rollout) {
            return;
        }
        if rollout["course"] == "paused" && !self.run("rollout resume --by ann") {
            self.model.count("could not be resumed");
            return;
        }
        let turns = self.rollout()["turns"].as_u64();
        let moved = self.wait("it goes on", STEPPED, |it| {
            let rollout = it.rollout();
            (rollout["turns"].as_u64() > turns || is_over(&rollout)).then_some(())
        });
        if moved.is_none() {
            return;
        }
        self.model.count("went on");
        if has_time && self.rng.bool() {
            let ended = self.wait("it comes to its end", ENDED, |it| {
                let is_over = is_over(&it.rollout());
                is_over.then_some(())
            });
            if ended.is_some() {
                self.model.count("went on to the end");
            }
        }
    }
}

fn is_over(rollout: &Value) -> bool {
    matches!(rollout["course"].as_str(), Some("done" | "aborted"))
}

fn shown(page: Option<Value>) -> String {
    let page = page.unwrap_or_default();
    let word = |name: &str| format!("{name}={}", page[name]);
    let words = ["digests", "tripped", "kept", "held", "error", "age_seconds"];
    words.map(word).join(" ")
}
