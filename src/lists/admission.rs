//! Until when a gray list makes practically everybody of a family gray, rules among its entries counted in.
//!
//! What holds for a time is asked for that time, so that a list that did so once is not taken for one that
//! always does; and what is over counts for nothing. Pure: the clock is a parameter.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use ipnet::IpNet;

use super::family::Family;
use super::rule::{Part, Rule, ShareKey, Term, Test};

/// Until when everybody is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AdmittedUntil {
    /// Not at all, or no longer.
    Never,
    /// By entries that hold until then.
    Time(SystemTime),
    /// By entries that hold for ever.
    Always,
}

/// What a rule adds to those who are admitted, whatever they send.
struct Contribution<'a> {
    ends: AdmittedUntil,
    /// The clients that it is for, if not all.
    net: Option<IpNet>,
    /// The shares of them, of which all must hold.
    shares: Vec<(&'a ShareKey, u16)>,
}

/// All of the clients, in hundredths of a percent.
const ALL: u16 = 10_000;

/// A share of this size is practically everybody.
const NINE_TENTHS: f64 = 0.9;

impl Contribution<'_> {
    /// The part of its clients that it admits, from 0 to 1.
    fn share(&self) -> f64 {
        let parts = self.shares.iter().map(|(_, limit)| f64::from(*limit));
        parts.map(|it| it / f64::from(ALL)).product()
    }

    fn admits_everybody(&self) -> bool {
        self.net.is_none() && self.share() >= NINE_TENTHS
    }
}

/// True for what holds of every request of the family. Every request has a path, which begins with a `/` (or
/// is the `*` of OPTIONS), and a host, but for what is as good as nobody.
fn holds_always(term: &Term, family: Family) -> bool {
    match term {
        Term::Everybody => true,
        Term::Net(net) => net.prefix_len() == 0 && family.is_of(net),
        Term::Part(part, Test::Present) => is_there_always(part),
        Term::Part(
            Part::Path,
            Test::Like {
                text,
                open_end: true,
                ..
            },
        ) => **text == *b"/",
        Term::Part(..) => false,
        Term::Share { limit, by } => *limit == ALL && is_of_everybody(by),
    }
}

/// True for keys that everybody has: who has no cookie of the gateway's is given one.
fn is_of_everybody(key: &ShareKey) -> bool {
    match key {
        ShareKey::Client | ShareKey::Visitor => true,
        ShareKey::Part(part) => is_there_always(part),
    }
}

/// True for a part that no request lacks. All else that has a name is the client's to leave away, even what
/// every browser sends.
fn is_there_always(part: &Part) -> bool {
    match part {
        Part::Path | Part::Method | Part::Host => true,
        // Without it, a request is refused (RFC 9112 section 3.2).
        Part::Header(name) => **name == *"host",
        Part::Cookie(_) | Part::Query(_) => false,
    }
}

fn contribution(rule: &Rule, family: Family, now: SystemTime) -> Option<Contribution<'_>> {
    let (mut net, mut shares) = (None, Vec::new());
    for term in &rule.terms {
        match term {
            _ if holds_always(term, family) => {}
            Term::Net(of) if family.is_of(of) => net = Some(*of),
            Term::Share { limit, by } if is_of_everybody(by) && *limit > 0 => {
                shares.push((by, *limit));
            }
            _ => return None,
        }
    }
    let ends = rule
        .until
        .map_or(AdmittedUntil::Always, AdmittedUntil::Time);
    let is_over = ends <= AdmittedUntil::Time(now);
    let contribution = Contribution { ends, net, shares };
    // A part of a part is next to nothing.
    let counts = net.is_none() || contribution.share() >= NINE_TENTHS;
    (!rule.excludes && !is_over && counts).then_some(contribution)
}

/// True when a rule adds to those who are admitted whatever they send, at the time `now`.
pub(super) fn adds(rule: &Rule, family: Family, now: SystemTime) -> bool {
    contribution(rule, family, now).is_some()
}

/// True when a rule alone admits practically everybody of a family, at the time `now`.
pub(super) fn is_enough(rule: &Rule, family: Family, now: SystemTime) -> bool {
    contribution(rule, family, now).is_some_and(|it| it.admits_everybody())
}

/// True when a rule keeps everybody of a family from `pre`, and for ever.
pub(super) fn excludes_all(rule: &Rule, family: Family) -> bool {
    let mut terms = rule.terms.iter();
    rule.excludes && rule.until.is_none() && terms.all(|it| holds_always(it, family))
}

/// Until when from `now` on `rules` and other entries admit all but a `tolerated` part of a family's clients,
/// from 0 to 1; `covered` is the part that those entries and these nets cover.
pub(super) fn admission(
    rules: &[Rule],
    family: Family,
    now: SystemTime,
    tolerated: f64,
    covered: impl Fn(&[IpNet]) -> f64,
) -> AdmittedUntil {
    if rules.iter().any(|it| excludes_all(it, family)) {
        return AdmittedUntil::Never;
    }
    let all: Vec<_> = rules
        .iter()
        .filter_map(|it| contribution(it, family, now))
        .collect();
    let admits = |end: AdmittedUntil| {
        let lasting = all.iter().filter(|it| it.ends >= end);
        let (mut nets, mut shares) = (Vec::new(), BTreeMap::new());
        for it in lasting {
            match it.net {
                Some(net) => nets.push(net),
                None => {
                    let keys: Vec<_> = it.shares.iter().map(|(key, _)| *key).collect();
                    // By one key, who is in a smaller share is in a larger one, too.
                    let largest = shares.entry(keys).or_insert(0.0_f64);
                    *largest = largest.max(it.share());
                }
            }
        }
        let out: f64 = shares.values().map(|share| 1.0 - share).product();
        out <= tolerated || (1.0 - covered(&nets)) * out <= tolerated
    };
    let ends: BTreeSet<AdmittedUntil> = all.iter().map(|it| it.ends).collect();
    let mut ends: Vec<AdmittedUntil> = ends
        .into_iter()
        .filter(|it| *it != AdmittedUntil::Always)
        .collect();
    ends.push(AdmittedUntil::Always);
    // The later, the fewer entries still hold.
    match ends.partition_point(|it| admits(*it)) {
        0 => AdmittedUntil::Never,
        count => ends[count - 1],
    }
}
