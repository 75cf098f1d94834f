//! What one gateway knows of one release: the blocks that it has counted, what others have told of theirs,
//! and what was found. No clock, no threads, no I/O.
//!
//! - Evidence belongs to a release, which is told by the digest of `pre` and the epoch: another one begins
//!   anew, and what another gateway says of another one is not heard.
//! - The margin of a block is fixed before it begins, since it must not depend on what is in it. Where the
//!   lists change within a block, the larger one holds.
//! - Once a release was found to be worse, it stays so until all begins anew: the promise is about evidence
//!   that *ever* suffices, and what comes later is no excuse.
//! - Slow units have no clients that are known, so the evidence of several gateways may be about one slow
//!   client. It is taken as if it were: their mean counts, and is not multiplied.

use std::time::{Duration, SystemTime};

use super::evidence::{Block, Concern, Counted, Evidence, Testimony, bad_clients};
use super::rollout::Opinion;
use super::verdict::{Facts, Ground, Judged, PerSecond, Rules, Unseen, Usual, Verdict, judge};
use crate::config::{VerdictMode, VerdictSettings};
use crate::fleet::node::{NodeEvidence, NodeVerdict};

/// Blocks after which something counts half as much in the pace.
const HALF_LIFE: f64 = 15.0;

/// The same is not told again before this, however often it comes and goes.
const QUIET: Duration = Duration::from_secs(60);

/// What was counted in about a second.
#[derive(Clone, Debug, Default)]
pub(crate) struct Second {
    /// Units, and bad ones.
    pub(crate) failing: Block,
    /// Units whose time is known, and slow ones.
    pub(crate) slow: Block,
    /// Units of clients that count no more, and bad ones.
    pub(crate) left_out: Block,
    /// Clients of `pre` in the last hour, as far as they are counted.
    pub(crate) pre_clients: u64,
    /// Hashes of clients behind bad units of `pre` since the release began.
    pub(crate) bad_clients: Vec<u64>,
}

/// What is usual for a service, whatever its release.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Habits {
    failing: Usual,
    slow: Usual,
}

/// An average of the last blocks.
#[derive(Clone, Copy, Debug, Default)]
struct UnitPace {
    units: f64,
    blocks: f64,
}

impl UnitPace {
    fn add(&mut self, units: u64) {
        let kept = (-1.0 / HALF_LIFE).exp2();
        self.units = self.units * kept + units as f64;
        self.blocks = self.blocks * kept + 1.0;
    }

    /// Units a second.
    fn rate(&self) -> f64 {
        match self.blocks > 0.0 {
            true => self.units / self.blocks,
            false => 0.0,
        }
    }
}

/// Something that is told when it becomes so.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Turned {
    /// What was found.
    pub(crate) judged: Judged,
}

/// One of the two questions.
#[derive(Clone, Debug)]
struct Matter {
    evidence: Evidence,
    /// Why it is worse, once that was found.
    worse: Option<Ground>,
    /// Both pools fail at present, so nothing follows from what was found.
    is_incident: bool,
    /// What was found last.
    judged: Option<Judged>,
    /// What would not be found at the present traffic, in words.
    unseen: Option<String>,
    /// What was told last of each kind, and when.
    told: Vec<(&'static str, Duration)>,
    /// The kind that held when it was looked at last.
    last: &'static str,
}

impl Matter {
    fn new(concern: Concern) -> Self {
        Self {
            evidence: Evidence::new(concern),
            worse: None,
            is_incident: false,
            judged: None,
            unseen: None,
            told: Vec::new(),
            last: Verdict::Nothing.name(),
        }
    }

    /// Takes what was found at `now`; says it if it has not been said of late.
    fn find(&mut self, mut judged: Judged, now: Duration) -> Option<Turned> {
        self.is_incident = judged.verdict == Verdict::Incident;
        if let Verdict::Worse(ground) = judged.verdict {
            self.worse.get_or_insert(ground);
        }
        if let Some(ground) = self.worse {
            judged.verdict = Verdict::Worse(ground);
        }
        let kind = judged.verdict.name();
        self.judged = Some(judged);
        let was = std::mem::replace(&mut self.last, kind);
        if was == kind || judged.verdict == Verdict::Nothing {
            return None;
        }
        let told = self.told.iter_mut().find(|(it, _)| *it == kind);
        match told {
            Some((_, at)) if now.saturating_sub(*at) < QUIET => return None,
            Some((_, at)) => *at = now,
            None => self.told.push((kind, now)),
        }
        Some(Turned { judged })
    }

    fn members(&self) -> NodeEvidence {
        let of = |it: Counted| [it.units, it.bad];
        NodeEvidence {
            sums: self.evidence.sums(),
            tolerable: self.evidence.ln_tolerable(),
            pre: of(self.evidence.pre()),
            prod: of(self.evidence.prod()),
        }
    }
}

/// A release that is under way.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    release: String,
    begun: SystemTime,
    failing: Matter,
    slow: Matter,
    pace: [UnitPace; 2],
    /// Of the block that comes now.
    margin: f64,
    pre_clients: u64,
    bad_clients: Vec<u64>,
    /// How many gateways have told of it, this one included.
    gateways: usize,
    doubt: ForeignDoubt,
}

/// What a gateway makes of an incident that others see, and of which it cannot know by itself: as yet it has
/// not seen what is usual. Nobody is told of that, or two gateways would have one from each other for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ForeignDoubt {
    #[default]
    Nothing,
    /// There is one.
    Incident,
    /// It is over, and what was counted meanwhile is not put aside yet.
    Over,
}

impl ForeignDoubt {
    fn next(self, is_incident: bool) -> Self {
        match (is_incident, self) {
            (true, _) => Self::Incident,
            (false, Self::Nothing) => Self::Nothing,
            (false, Self::Incident | Self::Over) => Self::Over,
        }
    }
}

/// What the rules are where `settings` say so.
fn rules(settings: &VerdictSettings) -> Rules {
    Rules {
        alpha: settings.alpha,
        tolerate: settings.tolerate,
        margin_list: settings.margin_list,
        margin_percent: settings.margin_percent,
    }
}

impl Case {
    /// The `release` begins at `begun`; clients are listed, or dealt by chance.
    pub(crate) fn new(
        release: String,
        begun: SystemTime,
        settings: &VerdictSettings,
        is_list: bool,
        habits: &mut Habits,
    ) -> Self {
        habits.failing.begin();
        habits.slow.begin();
        Self {
            release,
            begun,
            failing: Matter::new(Concern::Failing),
            slow: Matter::new(Concern::Slow),
            pace: [UnitPace::default(); 2],
            margin: rules(settings).margin(is_list, 0),
            pre_clients: 0,
            bad_clients: Vec::new(),
            gateways: 1,
            doubt: ForeignDoubt::Nothing,
        }
    }

    /// The release that it is about.
    pub(crate) fn release(&self) -> &str {
        &self.release
    }

    /// When it has begun here.
    pub(crate) fn begun(&self) -> SystemTime {
        self.begun
    }

    /// The odds that are not held against `pre` now.
    pub(crate) fn margin(&self) -> f64 {
        self.margin
    }

    /// How many gateways have told of it, this one included.
    pub(crate) fn gateways(&self) -> usize {
        self.gateways
    }

    /// Whether this gateway has counted anything.
    pub(crate) fn has_evidence(&self) -> bool {
        self.failing.evidence.pre().units > 0
    }

    /// What was found last of a question.
    pub(crate) fn judged(&self, concern: Concern) -> Option<&Judged> {
        self.matter(concern).judged.as_ref()
    }

    /// Why the version is to be taken back, if `settings` want that, and by which numbers. Not while both
    /// pools fail: going back would help nobody.
    pub(crate) fn takes_back(&self, settings: &VerdictSettings) -> Option<(Ground, &Judged)> {
        let enforced = |mode: VerdictMode, matter: &'_ Matter| {
            let is_enforced = settings.is_on() && mode == VerdictMode::Enforce;
            matter.worse.filter(|_| is_enforced)
        };
        let both = [(settings.mode, &self.failing), (settings.slow, &self.slow)];
        if both.iter().any(|(_, matter)| matter.is_incident) {
            return None;
        }
        let mut both = both.into_iter();
        both.find_map(|(mode, matter)| Some((enforced(mode, matter)?, matter.judged.as_ref()?)))
    }

    /// What follows for the next step of a rollout, where `settings` say what counts.
    pub(crate) fn opinion(&self, settings: &VerdictSettings) -> Opinion {
        let against = |judged: &&Judged| {
            let verdict = judged.verdict;
            matches!(
                verdict,
                Verdict::Suspect | Verdict::Worse(_) | Verdict::Incident
            )
        };
        // Where slowness is only told, it holds nobody up.
        let slow = self.slow.judged.as_ref();
        let slow = slow.filter(|_| settings.slow == VerdictMode::Enforce);
        let judged = [self.failing.judged.as_ref(), slow];
        if let Some(against) = judged.into_iter().flatten().find(against) {
            return Opinion::Against(format!("the verdict: {against}"));
        }
        match &self.failing.judged {
            Some(judged) if judged.verdict == Verdict::GoodEnough => Opinion::Good,
            Some(judged) => Opinion::Open(format!("the verdict: {judged}")),
            None => Opinion::Open("nothing of this step has been counted yet".to_owned()),
        }
    }

    /// What would not be found at the present traffic, in words.
    pub(crate) fn unseen(&self, concern: Concern) -> Option<&str> {
        self.matter(concern).unseen.as_deref()
    }

    /// The sums of this gateway alone.
    pub(crate) fn evidence(&self, concern: Concern) -> &Evidence {
        &self.matter(concern).evidence
    }

    fn matter(&self, concern: Concern) -> &Matter {
        match concern {
            Concern::Failing => &self.failing,
            Concern::Slow => &self.slow,
        }
    }

    /// Takes what was counted in the second that is over; clients are listed now, or dealt by chance.
    pub(crate) fn take(
        &mut self,
        second: Second,
        settings: &VerdictSettings,
        is_list: bool,
        habits: &mut Habits,
    ) {
        let now = rules(settings).margin(is_list, self.pre_clients);
        let margin = self.margin.max(now);
        let (failing, slow) = (&second.failing, &second.slow);
        self.failing.evidence.add_second(failing, margin);
        habits.failing.add(failing, &second.left_out);
        let units = [failing.pre.units, failing.prod.units];
        self.pace
            .iter_mut()
            .zip(units)
            .for_each(|(it, n)| it.add(n));
        if settings.slow != VerdictMode::Off {
            self.slow.evidence.add_second(slow, margin);
            habits.slow.add(slow, &Block::default());
        }
        self.pre_clients = second.pre_clients;
        self.bad_clients = second.bad_clients;
        self.margin = rules(settings).margin(is_list, self.pre_clients);
    }

    /// True when every client is to be counted again, see [`Evidence::renew`]: an hour is over, or an
    /// incident, in which most of them had a bad unit.
    pub(crate) fn is_used_up(&self, habits: &Habits) -> bool {
        let is_over = habits.failing.has_ended() || self.doubt == ForeignDoubt::Over;
        self.failing.evidence.is_used_up() || is_over
    }

    /// Every client counts again.
    pub(crate) fn renew(&mut self) {
        self.failing.evidence.renew();
        self.slow.evidence.renew();
        self.bad_clients.clear();
        if self.doubt == ForeignDoubt::Over {
            self.doubt = ForeignDoubt::Nothing;
        }
    }

    /// What follows at `now`, a time since some beginning, with what the `others` have told. Returns what has
    /// turned.
    pub(crate) fn judge(
        &mut self,
        others: &[NodeVerdict],
        settings: &VerdictSettings,
        habits: &Habits,
        now: Duration,
    ) -> Vec<Turned> {
        let others = others.iter().filter(|it| it.release == self.release);
        let others: Vec<&NodeVerdict> = others.collect();
        self.gateways = 1 + others.len();
        let sees_one = |it: &&NodeVerdict| it.finding == Verdict::Incident.name();
        let is_stranger = habits.failing.of_prod().is_none();
        self.doubt = self.doubt.next(is_stranger && others.iter().any(sees_one));
        let is_watched = |concern: Concern| match concern {
            Concern::Failing => true,
            Concern::Slow => settings.slow != VerdictMode::Off,
        };
        let mut turns = Vec::new();
        for concern in [Concern::Failing, Concern::Slow] {
            if !is_watched(concern) {
                self.slow = Matter::new(concern);
                continue;
            }
            let facts = self.facts(concern, &others, habits);
            let judged = judge(&rules(settings), &facts);
            let matter = match concern {
                Concern::Failing => &mut self.failing,
                Concern::Slow => &mut self.slow,
            };
            turns.extend(matter.find(judged, now));
            matter.unseen = Unseen::at_present(&rules(settings), &facts).map(|it| it.to_string());
        }
        turns
    }

    fn facts(&self, concern: Concern, others: &[&NodeVerdict], habits: &Habits) -> Facts {
        let usual = match concern {
            Concern::Failing => &habits.failing,
            Concern::Slow => &habits.slow,
        };
        let testimonies = self.testimonies(concern, others);
        let most = others.iter().map(|it| it.pre_clients).max();
        let pace = |at: usize| {
            let others = others.iter().map(|it| it.per_second[at]);
            self.pace[at].rate() + others.sum::<f64>()
        };
        let bad_clients = match concern {
            Concern::Failing => Some(bad_clients(&testimonies)),
            Concern::Slow => None,
        };
        Facts {
            evidence: Evidence::together(concern, &testimonies),
            bad_clients,
            pre_clients: self.pre_clients.max(most.unwrap_or_default()),
            margin: self.margin,
            per_second: PerSecond {
                pre: pace(0),
                prod: pace(1),
            },
            lately: usual.lately(),
            usual: usual.of_prod(),
            is_incident: usual.is_incident() || self.doubt != ForeignDoubt::Nothing,
        }
    }

    /// What all gateways say, this one first.
    fn testimonies(&self, concern: Concern, others: &[&NodeVerdict]) -> Vec<Testimony> {
        // See above: nobody knows whether they are about one client.
        let clients = |hashes: &[u64]| match concern {
            Concern::Failing => hashes.to_vec(),
            Concern::Slow => vec![0],
        };
        let own = Testimony::new(self.matter(concern).evidence, clients(&self.bad_clients));
        // Whoever sees an incident puts aside afterwards what it counts meanwhile.
        let sees_none = |it: &&&NodeVerdict| it.finding != Verdict::Incident.name();
        let others = others.iter().filter(sees_none).filter_map(|it| {
            let numbers = match concern {
                Concern::Failing => &it.failing,
                Concern::Slow => &it.slow,
            };
            let counted = |[units, bad]: [u64; 2]| Counted { units, bad };
            let evidence = Evidence::from_numbers(
                concern,
                counted(numbers.pre),
                counted(numbers.prod),
                &numbers.sums,
                numbers.tolerable,
            );
            Some(Testimony::new(evidence?, clients(&it.bad_clients)))
        });
        std::iter::once(own).chain(others).collect()
    }

    /// What others are told of it.
    pub(crate) fn told(&self) -> NodeVerdict {
        let finding = self.failing.judged.as_ref();
        let finding = finding.map_or(Verdict::Nothing, |it| it.verdict);
        let is_doubt = finding == Verdict::Incident && self.doubt != ForeignDoubt::Nothing;
        let finding = if is_doubt { Verdict::Nothing } else { finding };
        NodeVerdict {
            release: self.release.clone(),
            finding: finding.name().to_owned(),
            failing: self.failing.members(),
            slow: self.slow.members(),
            bad_clients: self.bad_clients.clone(),
            pre_clients: self.pre_clients,
            per_second: self.pace.map(|it| it.rate()),
        }
    }
}

/// The digest of `pre`, of a release.
pub(super) fn version_of(release: &str) -> &str {
    release
        .split_once('/')
        .map_or(release, |(version, _)| version)
}

#[cfg(test)]
mod tests;
