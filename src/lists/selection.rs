//! Which entry of a gray list selects a request: all entries that are more than an address, made ready for
//! many requests.
//!
//! What it costs depends on what the request has, not on how many entries there are:
//!
//! - A part of requests that entries are about is a numbered *source* (`sources`). The value of each is
//!   looked up once a request at most: one pass over the header fields, one over the cookies, one over the
//!   query, and only if an entry asks for such a thing (`scratch`). Names that no entry has are told apart by
//!   their length and first letter (`names`).
//! - An entry is *filed* under the one of its terms that the fewest requests have (`filing`): a net, the
//!   value of a source, or that the source is there at all. Only those are looked at that are filed under
//!   something that the request has, besides a few that have no such term.
//! - A bucket is computed once a request for each key.
//!
//! The time is linear in the size of the head and the number of entries looked at, whatever is sent.
//!
//! Pure: the clock is a parameter.

mod filing;
mod names;
pub(super) mod near;
mod probe;
mod scratch;
mod sources;

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;

pub use self::filing::RulePlace;
use self::filing::{FOR_EVER, Filed, Filing, Heading, Run};
pub(crate) use self::probe::Probe;
pub use self::scratch::Scratch;
use self::sources::{SourceKind, SourceNumber, Sources};
use super::rule::{Part, Rule, ShareKey, Term};
use super::share::Salt;
use crate::http::subject::Subject;

/// The entries of a list that are more than an address.
#[derive(Debug)]
pub(crate) struct Selection {
    sources: Sources,
    /// Those with `!`.
    excluding: Filing,
    /// The others.
    admitting: Filing,
    /// What is tested of each entry besides what it is filed under.
    checks: Box<[Check]>,
    /// What shares are told by.
    keys: Box<[BucketKey]>,
    /// An entry is about a share, if only about nobody's.
    has_shares: bool,
    /// When entries end, in seconds, sorted and without repetition.
    ends: Box<[u64]>,
}

/// A term, prepared.
#[derive(Debug)]
enum Check {
    Net(IpNet),
    Value(SourceNumber, Probe),
    /// The bucket by the key of that number is below.
    Share(usize, u16),
}

/// What a share is told by.
#[derive(Debug)]
enum BucketKey {
    Client,
    Value(SourceNumber),
    Visitor,
}

impl Selection {
    /// Of these entries, in the order in which they decide.
    pub(crate) fn new(rules: &[Rule]) -> Self {
        let terms = || rules.iter().flat_map(|rule| rule.terms.iter());
        let (sources, numbers) = Sources::of(terms().filter_map(Term::part));
        let number = |part: &Part| numbers[part];
        let mut share_keys: Vec<&ShareKey> = Vec::new();
        let (mut checks, mut excluding, mut admitting) = (Vec::new(), Vec::new(), Vec::new());
        let mut ends = Vec::new();
        for (place, rule) in (0..).zip(rules) {
            let is_nobody = |term: &Term| matches!(term, Term::Share { limit: 0, .. });
            if rule.terms.iter().any(is_nobody) {
                continue;
            }
            let heading = Heading::of(rule, number);
            let first = checks.len();
            for term in rule.terms.iter().filter(|it| !heading.implies(it, number)) {
                checks.extend(match term {
                    Term::Everybody => None,
                    Term::Net(net) => Some(Check::Net(*net)),
                    Term::Part(part, test) => Some(Check::Value(number(part), Probe::new(test))),
                    Term::Share { limit, by } => {
                        let key = share_keys.iter().position(|it| *it == by);
                        let key = key.unwrap_or_else(|| {
                            share_keys.push(by);
                            share_keys.len() - 1
                        });
                        Some(Check::Share(key, *limit))
                    }
                });
            }
            // What costs most is asked last: nobody becomes a visitor whom another term keeps out.
            checks[first..].sort_by_key(|check| match check {
                Check::Net(_) => 0,
                Check::Value(..) => 1,
                Check::Share(key, _) if *share_keys[*key] != ShareKey::Visitor => 2,
                Check::Share(..) => 3,
            });
            ends.extend(rule.until.map(seconds));
            let filed = Filed {
                place,
                first: first as u32,
                count: (checks.len() - first) as u32,
                until: rule.until.map_or(FOR_EVER, seconds),
            };
            match rule.excludes {
                true => excluding.push((heading, filed)),
                false => admitting.push((heading, filed)),
            }
        }
        let keys = share_keys.iter().map(|key| match key {
            ShareKey::Client => BucketKey::Client,
            ShareKey::Part(part) => BucketKey::Value(number(part)),
            ShareKey::Visitor => BucketKey::Visitor,
        });
        ends.sort_unstable();
        ends.dedup();
        Self {
            keys: keys.collect(),
            excluding: Filing::new(excluding, &sources),
            admitting: Filing::new(admitting, &sources),
            checks: checks.into(),
            sources,
            has_shares: terms().any(|it| matches!(it, Term::Share { .. })),
            ends: ends.into(),
        }
    }

    /// True when an entry is about a share.
    pub(crate) fn has_shares(&self) -> bool {
        self.has_shares
    }

    /// True when the clock matters: an entry has an end.
    pub(crate) fn expires(&self) -> bool {
        !self.ends.is_empty()
    }

    /// When the next entry ends, after `now`.
    pub(crate) fn next_end(&self, now: SystemTime) -> Option<SystemTime> {
        let now = seconds(now);
        let next = self.ends.partition_point(|it| *it <= now);
        let next = self.ends.get(next)?;
        UNIX_EPOCH.checked_add(Duration::from_secs(*next))
    }

    /// Looks at a request. Shares are dealt with `salt`. The wall clock is `now`; without it, no entry holds
    /// that has an end.
    pub(crate) fn look_at<'a>(
        &'a self,
        subject: &'a Subject<'a>,
        salt: &'a Salt,
        now: Option<SystemTime>,
        scratch: &'a mut Scratch,
    ) -> Look<'a> {
        scratch.begin(self.sources.count(), self.keys.len());
        Look {
            selection: self,
            subject,
            salt,
            now: now.map_or(FOR_EVER - 1, seconds),
            scratch,
        }
    }
}

/// Whole seconds; before 1970 it is 1970 for ever.
fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs().min(FOR_EVER - 2)
}

impl Term {
    /// The part of requests that it is about.
    fn part(&self) -> Option<&Part> {
        match self {
            Self::Part(part, _) => Some(part),
            Self::Share {
                by: ShareKey::Part(part),
                ..
            } => Some(part),
            _ => None,
        }
    }
}

/// A look at one request, in which everything is looked up once at most.
pub(crate) struct Look<'a> {
    selection: &'a Selection,
    subject: &'a Subject<'a>,
    salt: &'a Salt,
    now: u64,
    scratch: &'a mut Scratch,
}

/// The entry that decides, by its place; and the bucket if it is about a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Its place among the [rules of its list](super::GrayList::rules).
    pub place: RulePlace,
    /// The bucket of its first share, 0 to 9,999.
    pub bucket: Option<u16>,
}

impl<'a> Look<'a> {
    /// The first entry with `!` that holds.
    pub(crate) fn exclusion(&mut self) -> Option<Selected> {
        self.first_of(&self.selection.excluding)
    }

    /// The first of the others that holds.
    pub(crate) fn admission(&mut self) -> Option<Selected> {
        self.first_of(&self.selection.admitting)
    }

    fn first_of(&mut self, filing: &'a Filing) -> Option<Selected> {
        if filing.is_empty() {
            return None;
        }
        let mut best = None;
        match self.subject.client {
            IpAddr::V4(client) => filing.v4.runs_of(client.to_bits(), |run| {
                self.try_run(filing, run, &mut best);
            }),
            IpAddr::V6(client) => filing.v6.runs_of(client.to_bits(), |run| {
                self.try_run(filing, run, &mut best);
            }),
        }
        for kind in SourceKind::NAMED {
            if !filing.has(kind) {
                continue;
            }
            let sources = &self.selection.sources;
            let count = self.scratch.found(kind, sources, self.subject).len();
            for at in 0..count {
                let source = self.scratch.found(kind, sources, self.subject)[at];
                self.try_source(filing, source, &mut best);
            }
        }
        for kind in SourceKind::SINGLE {
            if filing.has(kind) {
                self.try_source(filing, SourceNumber(kind as u32), &mut best);
            }
        }
        // Shares are among these: nobody becomes a visitor for whom an entry holds that goes before.
        self.try_run(filing, filing.always, &mut best);
        let entry = best?;
        Some(Selected {
            place: entry.place,
            bucket: self.bucket_of(entry),
        })
    }

    /// Tries the entries that are filed under a source or its value.
    fn try_source(&mut self, filing: &'a Filing, source: SourceNumber, best: &mut Option<Filed>) {
        let file = filing.of_source(source);
        self.try_run(filing, file.present, best);
        if file.has_values() {
            let (sources, subject) = (&self.selection.sources, self.subject);
            let value = self.scratch.value(source, sources, subject);
            let run = value.and_then(|(value, _)| file.run_of(value));
            self.try_run(filing, run.unwrap_or_default(), best);
        }
    }

    /// Tries some entries, which are in order, as long as they go before the `best` so far.
    fn try_run(&mut self, filing: &'a Filing, run: Run, best: &mut Option<Filed>) {
        for entry in filing.entries(run) {
            if best.is_some_and(|best| best.place < entry.place) {
                return;
            }
            if self.holds(entry) {
                *best = Some(*entry);
                return;
            }
        }
    }

    fn holds(&mut self, entry: &Filed) -> bool {
        let checks = &self.selection.checks[entry.checks()];
        self.now < entry.until && checks.iter().all(|check| self.passes(check))
    }

    fn passes(&mut self, check: &'a Check) -> bool {
        match check {
            Check::Net(net) => net.contains(&self.subject.client),
            Check::Value(source, probe) => {
                let value = self
                    .scratch
                    .value(*source, &self.selection.sources, self.subject);
                value.is_some_and(|(value, memory)| probe.holds(value, memory))
            }
            Check::Share(key, limit) => self.bucket(*key).is_some_and(|it| it < *limit),
        }
    }

    /// The bucket by a key, unless the request has no such key.
    fn bucket(&mut self, key: usize) -> Option<u16> {
        let Self {
            selection,
            subject,
            salt,
            ..
        } = *self;
        self.scratch
            .bucket(key, |scratch| match selection.keys[key] {
                BucketKey::Client => Some(salt.bucket_of_client(subject.client)),
                BucketKey::Value(source) => {
                    let (value, _) = scratch.value(source, &selection.sources, subject)?;
                    (!value.is_empty()).then(|| salt.bucket(value))
                }
                BucketKey::Visitor => subject.visitor().map(|it| salt.bucket(it.text())),
            })
    }

    /// The bucket of the first share that an entry is about.
    fn bucket_of(&mut self, entry: Filed) -> Option<u16> {
        let checks = &self.selection.checks[entry.checks()];
        let mut keys = checks.iter().filter_map(|check| match check {
            Check::Share(key, _) => Some(*key),
            _ => None,
        });
        keys.next().and_then(|key| self.bucket(key))
    }
}

#[cfg(test)]
pub(in crate::lists) mod tests;
