//! What a release may go through, whatever fails meanwhile; and what gateways owe.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::Value;

use super::NODES;
use super::forwarder::Writer;

/// So much of what has happened is told of a violation.
const TOLD: usize = 400;

/// A step may come that much too early, by what `MONITOR` says of the time: in microseconds.
const ROUNDED: i64 = 5_000;

/// Who has written something to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Node(Writer),
    /// A person.
    Desk,
}

/// What Redis has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Held {
    pub(crate) state: Value,
    pub(crate) tripped: Value,
}

/// A version that a gateway has taken back, by itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decided {
    pub(crate) node: usize,
    pub(crate) at: String,
    pub(crate) pre: String,
    epoch: String,
}

/// A rollout so far. Times are those of the server, in microseconds.
#[derive(Debug, Default)]
struct SeenRollout {
    /// The places of the steps that were in force.
    places: BTreeSet<u64>,
    /// It was running for so long since the last step, as of then.
    ran: i64,
    as_of: i64,
    /// What was written meanwhile is not known: its time is not either.
    is_vague: bool,
    /// Who has had which fencing number, by which name: a server that has lost its last second gives the
    /// number again, to another name.
    fences: HashMap<(u64, String), Writer>,
    turns: u64,
}

#[derive(Default)]
struct Inner {
    journal: VecDeque<String>,
    violations: Vec<String>,
    held: Held,
    rollouts: HashMap<String, SeenRollout>,
    /// In which order epochs have come.
    epochs: HashMap<String, usize>,
    /// The place of that by which a release was last reset.
    reset: usize,
    /// The epoch of which each gateway judges.
    judged: [String; NODES],
    decided: Vec<Decided>,
    /// Which version is behind a digest, and which of them were bad.
    versions: HashMap<String, String>,
    bad: HashSet<String>,
    /// They are in `prod` as well, or were.
    promoted: HashSet<String>,
    counts: BTreeMap<&'static str, u64>,
}

pub(crate) struct Model {
    begun: Instant,
    inner: Mutex<Inner>,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            inner: Mutex::default(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what has happened, for whoever reads of a violation.
    pub(crate) fn note(&self, what: &str) {
        let at = self.begun.elapsed().as_secs_f64();
        let mut inner = self.inner();
        inner.journal.push_back(format!("{at:9.3} {what}"));
        if inner.journal.len() > TOLD {
            inner.journal.pop_front();
        }
    }

    pub(crate) fn count(&self, what: &'static str) {
        *self.inner().counts.entry(what).or_default() += 1;
    }

    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.inner().counts.clone()
    }

    pub(crate) fn violation(&self, what: &str) {
        self.note(&format!("VIOLATION {what}"));
        let mut inner = self.inner();
        let journal: Vec<&str> = inner.journal.iter().map(String::as_str).collect();
        eprintln!("--- {what}\n{}\n---", journal.join("\n"));
        inner.journal.clear();
        inner.violations.push(what.to_owned());
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.inner().violations.clone()
    }

    /// What Redis has now, as far as was seen.
    pub(crate) fn held(&self) -> Held {
        self.inner().held.clone()
    }

    /// This version is behind that digest of `pre`, and is well.
    pub(crate) fn is_version(&self, digest: &str, name: &str) {
        let mut inner = self.inner();
        inner.versions.insert(digest.to_owned(), name.to_owned());
        inner.bad.remove(digest);
        inner.promoted.remove(digest);
    }

    /// The name of it, unless everybody may get it.
    pub(crate) fn version(&self, digest: &str) -> Option<String> {
        let inner = self.inner();
        let version = inner.versions.get(digest);
        version
            .filter(|_| !inner.promoted.contains(digest))
            .cloned()
    }

    /// From now on it may be taken back.
    pub(crate) fn is_bad(&self, digest: &str) {
        self.inner().bad.insert(digest.to_owned());
    }

    /// What is to hold of this `pre`: gateways have taken it back, and nobody has reset it since.
    pub(crate) fn standing(&self, pre: &str) -> Vec<Decided> {
        let inner = self.inner();
        let place = |it: &Decided| inner.epochs.get(&it.epoch).copied().unwrap_or_default();
        let stands = |it: &&Decided| it.pre == pre && place(it) >= inner.reset;
        inner.decided.iter().filter(stands).cloned().collect()
    }

    /// A line of the log of a gateway; true if it has just taken something back.
    pub(crate) fn heard(&self, node: usize, name: &str, line: &str) -> bool {
        let quiet = ["listening", "lists-unreadable", "accept-"];
        if !quiet.iter().any(|it| line.contains(it)) {
            self.note(&format!("{name}: {line}"));
        }
        if line.contains("panicked") || line.contains("internal-error") {
            self.violation(&format!("{name}: {line}"));
        }
        let word = |before: &str| {
            let (_, rest) = line.split_once(before)?;
            Some(rest.split([' ', '"']).next().unwrap_or_default().to_owned())
        };
        if line.contains(" verdict-begun ")
            && let Some(release) = word(" release=")
        {
            let epoch = release.split('/').nth(1).unwrap_or_default();
            epoch.clone_into(&mut self.inner().judged[node]);
        }
        let own = format!(" tripped by=\"{name}\" why=\"");
        if !line.contains(&own) {
            return false;
        }
        let (at, pre) = (word(" at=").unwrap(), word(" pre=").unwrap());
        let mut inner = self.inner();
        let is_known = |it: &Decided| (it.node, &it.at, &it.pre) == (node, &at, &pre);
        if inner.decided.iter().any(is_known) {
            return false;
        }
        let epoch = inner.judged[node].clone();
        let is_healthy = !inner.bad.contains(&pre);
        *inner.counts.entry("trips decided").or_default() += 1;
        inner.decided.push(Decided {
            node,
            at,
            pre: pre.clone(),
            epoch,
        });
        drop(inner);
        if is_healthy {
            self.violation(&format!("{name} has taken {pre} back, which is well"));
        }
        true
    }

    /// The key of the release was written, at that time of the server.
    pub(crate) fn wrote_state(&self, at: i64, who: Who, new: Value) {
        let mut found = Vec::new();
        let mut inner = self.inner();
        inner.see_epoch(&new);
        let old = std::mem::replace(&mut inner.held.state, new.clone());
        let tripped = inner.held.tripped.clone();
        let is_same = old["rollout"] == new["rollout"];
        if !is_same {
            inner.turned(at, who, (&old, &new), &tripped, &mut found);
        }
        drop(inner);
        let rollout = &new["rollout"];
        if old["rollout"]["turns"] != rollout["turns"]
            || old["rollout"]["fence"] != rollout["fence"]
        {
            let word = |name: &str| rollout[name].to_string();
            let words = ["id", "at", "course", "turns", "fence", "holder", "why"];
            let words = words.map(|it| format!("{it}={}", word(it))).join(" ");
            self.note(&format!("{at} {who:?} writes {words}"));
        }
        found.iter().for_each(|it| self.violation(it));
    }

    /// The key of a trip was written or removed.
    pub(crate) fn wrote_trip(&self, at: i64, who: Who, new: Value) {
        self.note(&format!("{at} {who:?} writes the trip {new}"));
        let mut inner = self.inner();
        if let Who::Node(_) = who
            && !new.is_null()
        {
            *inner.counts.entry("trips written").or_default() += 1;
        }
        inner.held.tripped = new;
    }

    /// This is there after something that was not seen: a start of the server.
    pub(crate) fn found(&self, at: i64, held: Held) {
        let mut inner = self.inner();
        inner.see_epoch(&held.state);
        let old = std::mem::replace(&mut inner.held, held.clone());
        let rollout = &held.state["rollout"];
        let mut note = format!("{at} found turns={} at={}", rollout["turns"], rollout["at"]);
        if let (Some(id), Some(place)) = (rollout["id"].as_str(), rollout["at"].as_u64()) {
            let seen = inner.rollouts.entry(id.to_owned()).or_default();
            let turns = rollout["turns"].as_u64().unwrap_or_default();
            note += &format!(" seen={}", seen.turns);
            let is_lost = turns < seen.turns;
            seen.turns = seen.turns.max(turns);
            seen.places.insert(place);
            (seen.is_vague, seen.ran, seen.as_of) = (true, 0, at);
            if is_lost {
                *inner.counts.entry("turns lost").or_default() += 1;
            }
        }
        if old.tripped != held.tripped {
            note += &format!(" tripped={} before={}", held.tripped, old.tripped);
        }
        drop(inner);
        self.note(&note);
    }
}

impl Inner {
    fn see_epoch(&mut self, state: &Value) {
        for epoch in [&state["reset"]["epoch"], &state["epoch"]] {
            if let Some(epoch) = epoch.as_str() {
                let next = self.epochs.len() + 1;
                self.epochs.entry(epoch.to_owned()).or_insert(next);
            }
        }
        if let Some(epoch) = state["reset"]["epoch"].as_str() {
            self.reset = self.reset.max(self.epochs[epoch]);
        }
    }

    /// Something has become of the rollout.
    fn turned(
        &mut self,
        at: i64,
        who: Who,
        (old_state, new_state): (&Value, &Value),
        tripped: &Value,
        found: &mut Vec<String>,
    ) {
        let (old, new) = (&old_state["rollout"], &new_state["rollout"]);
        let Some(id) = new["id"].as_str() else {
            if !old.is_null() {
                found.push(format!("the rollout has vanished: {old}"));
            }
            return;
        };
        let over = |it: &Value| matches!(it["course"].as_str(), Some("done" | "aborted"));
        let number = |it: &Value, name: &str| it[name].as_u64().unwrap_or_default();
        let known = self.rollouts.contains_key(id);
        let seen = self.rollouts.entry(id.to_owned()).or_default();
        if old["id"] != new["id"] {
            if known || who != Who::Desk || !old.is_null() && !over(old) {
                found.push(format!(
                    "{who:?} begins another rollout: {new} in place of {old}"
                ));
            }
            seen.places.insert(number(new, "at"));
            (seen.as_of, seen.turns) = (at, number(new, "turns"));
            *self.counts.entry("rollouts").or_default() += 1;
            return;
        }
        let was_running = old["course"] == "running";
        if was_running {
            seen.ran += at - seen.as_of;
        }
        seen.as_of = at;
        let mut wrong = |what: &str| found.push(format!("{what}: {who:?} at {at}: {old} -> {new}"));
        let (from, to) = (number(old, "at"), number(new, "at"));
        let turns = (number(old, "turns"), number(new, "turns"));
        if turns.1 < turns.0 || number(new, "fence") < number(old, "fence") {
            wrong("a number has gone back");
        }
        let is_turn = ["at", "course", "why", "share"]
            .iter()
            .any(|it| old[it] != new[it]);
        seen.turns = seen.turns.max(turns.1);
        if let Who::Node(writer) = who {
            let holder = new["holder"].as_str().unwrap_or_default();
            let fence = (number(new, "fence"), holder.to_owned());
            if *seen.fences.entry(fence).or_insert(writer) != writer {
                wrong("two have written by one fencing number");
            }
        }
        if over(old) && (is_turn || old["course"] != new["course"]) {
            wrong("what was over goes on");
        }
        if old["course"] == "paused" && new["course"] == "running" && who != Who::Desk {
            wrong("a gateway has ended a pause");
        }
        if who == Who::Desk && old["course"] == "paused" && new["course"] == "running" {
            // A person sees where it is, and lets it go on from there: also where that was lost.
            seen.places.retain(|it| *it <= to);
        }
        if old["course"] != new["course"] {
            let what = match new["course"].as_str() {
                Some("done") => "rollouts done",
                Some("aborted") => "rollouts aborted",
                Some("paused") => "pauses",
                _ => "resumed",
            };
            *self.counts.entry(what).or_default() += 1;
            if new["course"] == "done" && new["promote"] == true {
                let pre = new["pre"].as_str().unwrap_or_default();
                self.promoted.insert(pre.to_owned());
            }
        }
        let is_of_it = tripped["pre"] == new["pre"];
        let is_end = new["course"] == "done" && who != Who::Desk;
        if from != to || is_end {
            let every = i64::try_from(number(new, "every_ms")).unwrap() * 1000;
            if who == Who::Desk {
                wrong("a person has taken a step");
            }
            if !was_running {
                wrong("a step of what does not run");
            }
            if old_state["frozen"].is_object() {
                wrong("a step while the lists are frozen");
            }
            if is_of_it {
                wrong("a step of what was taken back");
            }
            if !seen.is_vague && seen.ran < every - ROUNDED {
                wrong(&format!("a step after {} µs of {every}", seen.ran));
            }
        }
        if from != to {
            if to != from + 1 {
                wrong("a step that is not the next one");
            }
            if !seen.places.insert(to) {
                wrong("a step was taken twice");
            }
            (seen.ran, seen.is_vague) = (0, false);
            *self.counts.entry("steps").or_default() += 1;
        }
    }
}
