//! Who had to be served by whom: what each client was answered, beside what was in force on the gateway that
//! it has asked, at some moment between its request and the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use xxhash_rust::xxh64::xxh64;

use super::crowd::{Answer, Said};
use super::watch::{Timeline, possible};

/// What was seen at a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InForceSeen {
    pub(crate) lists: ListsSeen,
    /// The version in `pre` is taken back.
    pub(crate) is_tripped: bool,
}

/// The lists of a release, wherever they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListsSeen {
    pub(crate) gray: Vec<String>,
    pub(crate) pre: BTreeSet<String>,
    pub(crate) prod: BTreeSet<String>,
}

impl ListsSeen {
    /// The share that gets `pre`, in hundredths of a percent.
    #[track_caller]
    pub(crate) fn share(&self) -> u64 {
        let [entry] = &self.gray[..] else {
            assert!(self.gray.is_empty(), "{:?}", self.gray);
            return 0;
        };
        let share = entry.strip_prefix("percent:").unwrap();
        let share = share.strip_suffix(":cookie:uid").unwrap();
        (share.parse::<f64>().unwrap() * 100.0).round() as u64
    }
}

/// The part of 10,000 to which a value belongs, as docs/gray.md has it for other programs.
pub(crate) fn bucket(salt: &str, uid: &str) -> u64 {
    xxh64(uid.as_bytes(), xxh64(salt.as_bytes(), 0)) % 10_000
}

/// All that is known of a release.
pub(crate) struct Model<'a> {
    /// By which clients are dealt, as long as it goes.
    pub(crate) salt: &'a str,
    /// The address of each server, by its name.
    pub(crate) servers: &'a BTreeMap<String, String>,
    /// What was in force on each gateway, and when.
    pub(crate) gateways: &'a [Timeline<InForceSeen>],
    /// From then on, the new version may fail.
    pub(crate) defect: Option<Instant>,
}

/// What has come of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) answers: usize,
    /// Of each gateway and each place in its timeline the clients for whom nothing else was possible.
    pub(crate) judged: BTreeMap<(usize, usize), BTreeSet<String>>,
    pub(crate) failures: usize,
    pub(crate) violations: Vec<String>,
}

impl Outcome {
    /// The clients for whom, on some gateway, nothing but this share was possible.
    pub(crate) fn judged_at(
        &self,
        gateways: &[Timeline<InForceSeen>],
        share: u64,
    ) -> BTreeSet<String> {
        let all = self.judged.iter();
        let own = all.filter(|((gateway, at), _)| {
            let seen = &gateways[*gateway][*at].seen;
            seen.lists.share() == share
        });
        own.flat_map(|(_, clients)| clients.iter().cloned())
            .collect()
    }
}

impl Model<'_> {
    /// The servers that may answer a client.
    fn servers_of<'a>(&self, uid: &str, seen: &'a InForceSeen) -> &'a BTreeSet<String> {
        let lists = &seen.lists;
        let is_gray = bucket(self.salt, uid) < lists.share();
        match is_gray && !seen.is_tripped && !lists.pre.is_empty() {
            true => &lists.pre,
            false => &lists.prod,
        }
    }

    /// Whether what was said is right where this was in force.
    fn fits(&self, uid: &str, said: &Said, seen: &InForceSeen) -> bool {
        let address = self.servers.get(&said.server);
        let is_told = match said.exposed.contains("reason=tripped") {
            true => seen.is_tripped && bucket(self.salt, uid) < seen.lists.share(),
            false => true,
        };
        is_told && address.is_some_and(|it| self.servers_of(uid, seen).contains(it))
    }

    /// Judges all answers: each must be right, and none may go back behind what was seen before.
    pub(crate) fn judge(&self, answers: &[Answer]) -> Outcome {
        let mut outcome = Outcome {
            answers: answers.len(),
            ..Outcome::default()
        };
        let mut answers: Vec<&Answer> = answers.iter().collect();
        answers.sort_by_key(|it| it.sent);
        for gateway in 0..self.gateways.len() {
            let own: Vec<&Answer> = answers
                .iter()
                .copied()
                .filter(|it| it.gateway == gateway)
                .collect();
            self.judge_at(gateway, &own, &mut outcome);
        }
        outcome
    }

    fn judge_at(&self, gateway: usize, own: &[&Answer], outcome: &mut Outcome) {
        let timeline = &self.gateways[gateway];
        let fitting = |it: &Answer, said: &Said| -> Vec<usize> {
            let all = possible(timeline, it.sent, it.got);
            all.filter(|at| self.fits(&it.uid, said, &timeline[*at].seen))
                .collect()
        };
        // What an answer has shown to be over was over for every request that was sent after it.
        let mut shown: Vec<(Instant, usize)> = Vec::new();
        for it in own {
            let said = it.said.as_ref().ok();
            let first = said.and_then(|said| fitting(it, said).first().copied());
            shown.extend(first.map(|first| (it.got, first)));
        }
        shown.sort_unstable();
        let mut shown = shown.into_iter().peekable();
        let mut floor = 0;
        for it in own {
            while let Some((_, first)) = shown.next_if(|(got, _)| *got <= it.sent) {
                floor = floor.max(first);
            }
            let all: Vec<usize> = possible(timeline, it.sent, it.got).collect();
            let Ok(said) = &it.said else {
                outcome.violations.push(format!("{it:?}"));
                continue;
            };
            if !fitting(it, said).iter().any(|at| *at >= floor) {
                let bucket = bucket(self.salt, &it.uid);
                let possible: Vec<_> = all.iter().map(|at| (at, &timeline[*at])).collect();
                outcome.violations.push(format!(
                    "bucket {bucket}, from {floor} on, {possible:#?}: {it:?}"
                ));
            }
            outcome.failures += usize::from(said.status != 200);
            let may_fail = self.defect.is_some_and(|it_begins| it.got >= it_begins);
            let is_right = said.status == 200
                || (said.status == 500 && may_fail && said.server.starts_with("new"));
            if !is_right {
                outcome.violations.push(format!("a failure: {it:?}"));
            }
            if let [only] = all[..] {
                let judged = outcome.judged.entry((gateway, only)).or_default();
                judged.insert(it.uid.clone());
            }
        }
    }
}
