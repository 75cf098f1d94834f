//! What each entry makes of a request, term by term: for people who want to know why, and not for every
//! request.
//!
//! Values are found, and terms tested, by the same code as when an entry decides.

use std::time::SystemTime;

use super::probe::Probe;
use super::scratch::Scratch;
use super::sources::{SourceNumber, Sources};
use crate::http::subject::Subject;
use crate::lists::rule::{Part, Rule, ShareKey, Term};
use crate::lists::share::Salt;

/// What an entry makes of a request.
pub(crate) struct Inspection {
    /// Its place among the entries.
    pub(crate) place: usize,
    /// It holds: all its terms do, and its end has not come.
    pub(crate) holds: bool,
    /// Its end has come.
    pub(crate) has_expired: bool,
    /// Each term, in the order of the entry.
    pub(crate) terms: Vec<InspectedTerm>,
    /// How near it came: terms that say something of the request, and hold.
    nearness: usize,
}

/// What a term makes of a request.
pub(crate) struct InspectedTerm {
    /// The term as it is written.
    pub(crate) text: String,
    pub(crate) holds: bool,
    /// What was found where it looks.
    pub(crate) found: TermFinding,
}

/// What was found where a term looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TermFinding {
    /// Nothing: the request has no such part.
    Absent,
    /// This value.
    Value(Vec<u8>),
    /// This bucket, 0 to 9,999.
    Bucket(u16),
    /// It looks at nothing, or at the client's address.
    Client,
}

/// The entries that hold, and those that came near: one of their terms has found what it looks for, if not
/// the value, or a share has a bucket for the request. Those that hold come first, then the nearest; in the
/// end as in the list. At most `most`; with them, how many there are.
pub(crate) fn near(
    rules: &[Rule],
    subject: &Subject<'_>,
    salt: &Salt,
    now: SystemTime,
    most: usize,
) -> (Vec<Inspection>, usize) {
    let parts = rules
        .iter()
        .flat_map(|it| it.terms.iter())
        .filter_map(Term::part);
    let (sources, numbers) = Sources::of(parts);
    let mut scratch = Scratch::default();
    scratch.begin(sources.count(), 0);
    let mut inspector = Inspector {
        number: |part: &Part| numbers[part],
        sources: &sources,
        scratch,
        subject,
        salt,
    };
    let (mut near, mut count) = (Vec::<Inspection>::new(), 0);
    for (place, rule) in rules.iter().enumerate() {
        // A million entries may be about addresses alone.
        let is_elsewhere =
            |term: &Term| matches!(term, Term::Net(net) if !net.contains(&subject.client));
        if rule.terms.iter().all(is_elsewhere) {
            continue;
        }
        let inspection = inspector.inspect(place, rule, now);
        if inspection.holds || inspection.nearness > 0 {
            count += 1;
            near.push(inspection);
            // Sorted now and then, so that there are never many.
            if near.len() >= 2 * most.max(1) {
                keep_nearest(&mut near, most);
            }
        }
    }
    keep_nearest(&mut near, most);
    (near, count)
}

fn keep_nearest(near: &mut Vec<Inspection>, most: usize) {
    near.sort_by_key(|it| (!it.holds, usize::MAX - it.nearness, it.place));
    near.truncate(most);
}

struct Inspector<'a, N> {
    /// The number of a part.
    number: N,
    sources: &'a Sources,
    scratch: Scratch,
    subject: &'a Subject<'a>,
    salt: &'a Salt,
}

impl<N: Fn(&Part) -> SourceNumber> Inspector<'_, N> {
    fn inspect(&mut self, place: usize, rule: &Rule, now: SystemTime) -> Inspection {
        let terms = rule.terms.iter().map(|term| self.term(term));
        let (terms, near): (Vec<_>, Vec<bool>) = terms.unzip();
        let has_expired = rule.until.is_some_and(|it| it <= now);
        Inspection {
            place,
            holds: !has_expired && terms.iter().all(|it| it.holds),
            has_expired,
            nearness: near.into_iter().filter(|it| *it).count(),
            terms,
        }
    }

    /// What a term makes of the request, and whether it brings its entry nearer.
    fn term(&mut self, term: &Term) -> (InspectedTerm, bool) {
        let (holds, found, is_near) = match term {
            Term::Everybody => (true, TermFinding::Client, false),
            Term::Net(net) => {
                let holds = net.contains(&self.subject.client);
                (holds, TermFinding::Client, holds)
            }
            Term::Part(part, test) => {
                let number = (self.number)(part);
                let value = self.scratch.value(number, self.sources, self.subject);
                // Every request has these, which says nothing by itself.
                let is_always = matches!(part, Part::Path | Part::Method | Part::Host);
                match value {
                    None => (false, TermFinding::Absent, false),
                    Some((value, memory)) => {
                        let found = TermFinding::Value(value.to_vec());
                        let holds = Probe::new(test).holds(value, memory);
                        (holds, found, holds || !is_always)
                    }
                }
            }
            Term::Share { limit, by } => match self.bucket(by) {
                None => (false, TermFinding::Absent, false),
                Some(bucket) => (bucket < *limit, TermFinding::Bucket(bucket), true),
            },
        };
        let text = term.to_string();
        (InspectedTerm { text, holds, found }, is_near)
    }

    fn bucket(&mut self, by: &ShareKey) -> Option<u16> {
        match by {
            ShareKey::Client => Some(self.salt.bucket_of_client(self.subject.client)),
            ShareKey::Visitor => self.subject.visitor().map(|it| self.salt.bucket(it.text())),
            ShareKey::Part(part) => {
                let number = (self.number)(part);
                let (value, _) = self.scratch.value(number, self.sources, self.subject)?;
                (!value.is_empty()).then(|| self.salt.bucket(value))
            }
        }
    }
}
