//! Likely mistakes in rules beside each other: what makes no difference, and what is over.

use std::collections::BTreeMap;
use std::time::SystemTime;

use ipnet::IpNet;

use super::GrayList;
use super::admission::{excludes_all, is_enough};
use super::entry::canonical;
use super::family::Family;
use super::notes::{FindingKind, NAMED, Notes};
use super::rule::{Part, Rule, ShareKey, Term, Test};

/// Of so many rules each is compared with all others.
const COMPARED: usize = 300;

/// What can be told of the rules of a list only beside each other, or at the time `now`.
pub(super) fn among(list: &GrayList, now: SystemTime) -> Notes {
    let mut notes = Notes::default();
    let is_over = |rule: &&Rule| rule.until.is_some_and(|it| it <= now);
    let (over, rules): (Vec<&Rule>, Vec<&Rule>) = list.rules().iter().partition(is_over);
    for rule in over {
        let text = || "has expired, and can be removed".to_owned();
        notes.add(FindingKind::Expired, || (rule.to_string(), text()));
    }
    if swallowed(list, &rules, now, &mut notes) {
        // One finding says enough.
        return notes;
    }
    for rule in &rules {
        if let Some(what) = why_useless(list, rule) {
            notes.add(FindingKind::Unreachable, || (rule.to_string(), what));
        }
        if let (true, None, [Term::Net(net)]) = (rule.excludes, rule.until, &*rule.terms) {
            excluded_nets(list, net, &mut notes);
        }
    }
    if rules.len() <= COMPARED {
        compare(&rules, &mut notes);
    }
    shares(&rules, &mut notes);
    notes
}

/// Notes a rule that makes all others make no difference; true if there is one.
fn swallowed(list: &GrayList, rules: &[&Rule], now: SystemTime, notes: &mut Notes) -> bool {
    let of_all = |test: &dyn Fn(&Rule, Family) -> bool| {
        let mut rules = rules.iter();
        rules.find(|rule| Family::ALL.iter().all(|family| test(rule, *family)))
    };
    let excluded = list.rules().iter().filter(|it| it.excludes).count();
    let included = list.len() - excluded;
    if let Some(rule) = of_all(&excludes_all) {
        if list.len() > 1 {
            let others = list.len() - 1;
            let text = format!("excludes everybody: the {others} other entries make no difference");
            notes.add(FindingKind::Unreachable, || (rule.to_string(), text));
        }
        return true;
    }
    let is_all = |rule: &Rule, family| {
        let is_whole = |term: &Term| !matches!(term, Term::Share { limit, .. } if *limit < 10_000);
        is_enough(rule, family, now) && rule.until.is_none() && rule.terms.iter().all(is_whole)
    };
    if let Some(rule) = of_all(&is_all)
        && included > 1
    {
        let others = included - 1;
        let text = format!(
            "admits everybody: the {others} other entries that admit somebody make no difference"
        );
        notes.add(FindingKind::Unreachable, || (rule.to_string(), text));
        // What is excluded matters all the more, but what else is admitted is said.
        return true;
    }
    false
}

/// Why a rule makes no difference, whatever the other rules are.
fn why_useless(list: &GrayList, rule: &Rule) -> Option<String> {
    let mut last: Option<(&Part, &Test)> = None;
    for term in &rule.terms {
        match term {
            Term::Share { limit: 0, .. } => return Some("is nobody: a share of 0".to_owned()),
            Term::Part(part, test @ Test::Is(_)) => {
                if last.is_some_and(|(of, other)| of == part && other != test) {
                    return Some(format!("no request has two values at once in {part}"));
                }
                last = Some((part, test));
            }
            Term::Net(net) if !rule.excludes => {
                let wider = std::iter::successors(Some(*net), IpNet::supernet);
                if let Some(around) = wider.into_iter().find(|it| list.has(it)) {
                    let around = canonical(around);
                    return Some(format!("is gray anyway, by the entry {around}"));
                }
            }
            _ => {}
        }
    }
    None
}

/// Notes addresses and nets within an excluded one.
fn excluded_nets(list: &GrayList, net: &IpNet, notes: &mut Notes) {
    let within = list.within(net);
    let more = within.len().saturating_sub(NAMED);
    for it in within.take(NAMED) {
        let text = || format!("is excluded by !{}", canonical(*net));
        notes.add(FindingKind::Unreachable, || (canonical(it), text()));
    }
    notes.counts[FindingKind::Unreachable as usize] += more;
}

/// Notes rules that hold only where another one decides anyway.
fn compare(rules: &[&Rule], notes: &mut Notes) {
    for rule in rules {
        let covers = |other: &&&Rule| {
            let lasts = match (other.until, rule.until) {
                (None, _) => true,
                (Some(other), Some(end)) => other >= end,
                (Some(_), None) => false,
            };
            // What an exclusion covers of another exclusion makes no difference either.
            let decides = other.excludes || !rule.excludes;
            let is_wider = other.terms.iter().all(|it| holds_with(it, &rule.terms));
            let is_same = other.terms == rule.terms && other.excludes == rule.excludes;
            // Of two that differ in their notes alone, the first stays.
            let is_before = !is_same || other.until != rule.until || **other < *rule;
            !std::ptr::eq(**other, *rule) && lasts && decides && is_wider && is_before
        };
        if let Some(other) = rules.iter().find(covers) {
            let text = match other.excludes && !rule.excludes {
                true => format!("is excluded by {other}"),
                false => format!("makes no difference beside {other}"),
            };
            notes.add(FindingKind::Unreachable, || (rule.to_string(), text));
        }
    }
}

/// True when `term` holds wherever all of `terms` do, as far as that is seen easily.
fn holds_with(term: &Term, terms: &[Term]) -> bool {
    let holds_by = |other: &Term| match (term, other) {
        (Term::Everybody, _) => true,
        (Term::Net(outer), Term::Net(inner)) => outer.contains(inner),
        (Term::Part(part, Test::Present), Term::Part(other, _)) => part == other,
        (
            Term::Share { limit, by },
            Term::Share {
                limit: less,
                by: of,
            },
        ) => by == of && less == limit,
        _ => term == other,
    };
    terms.iter().any(holds_by)
}

/// Notes shares by one key beside a larger one.
fn shares(rules: &[&Rule], notes: &mut Notes) {
    type Kind<'a> = (bool, &'a ShareKey, Vec<&'a Term>);
    let mut by_key: BTreeMap<Kind<'_>, Vec<(u16, &Rule)>> = BTreeMap::new();
    for rule in rules.iter().filter(|it| it.until.is_none()) {
        let is_share = |it: &&Term| matches!(it, Term::Share { .. });
        let (shares, others): (Vec<&Term>, Vec<&Term>) = rule.terms.iter().partition(is_share);
        if let [Term::Share { limit, by }] = shares[..] {
            let same = by_key.entry((rule.excludes, by, others)).or_default();
            same.push((*limit, rule));
        }
    }
    for mut same in by_key.into_values() {
        same.sort_unstable();
        let Some(((largest, rule), others)) = same.split_last() else {
            continue;
        };
        let smaller: Vec<u16> = others
            .iter()
            .map(|it| it.0)
            .filter(|it| it < largest)
            .collect();
        if !smaller.is_empty() {
            notes.add_many(FindingKind::SharesDiffer, smaller.len(), || {
                let smaller = smaller.iter().take(NAMED);
                let smaller: Vec<String> = smaller
                    .map(|it| (f64::from(*it) / 100.0).to_string())
                    .collect();
                let text = format!(
                    "is beside the shares {} by the same key; only the largest counts",
                    smaller.join(", ")
                );
                (rule.to_string(), text)
            });
        }
    }
}

#[cfg(test)]
mod tests;
