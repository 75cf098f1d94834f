//! An entry's text as a [`Rule`].

use ipnet::IpNet;

use super::moment::moment;
use super::part::{PartKind, host_term, method, named, path};
use super::share::share;
use super::words::{Wrong, value, words};
use super::{MOST_TERMS, Rule, Term, Test};
use crate::lists::entry::{LONGEST_ENTRY, TOO_LONG, read_net};

/// Why a word is no term.
const NEITHER: Wrong =
    "neither an IP address, a net like 10.0.0.0/8, nor a term like header:X-User=alice";

impl Rule {
    /// Reads an entry; one that is nothing but an address or a net is a rule, too.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(in crate::lists) fn parse(text: &str) -> Result<Self, Wrong> {
        if text.len() > LONGEST_ENTRY {
            return Err(TOO_LONG);
        }
        let included = text.strip_prefix('!');
        let excludes = included.is_some();
        let words = words(included.unwrap_or(text))?;
        if excludes {
            check_exclusion(included.unwrap_or_default())?;
        }
        let (mut until, mut note, mut terms) = (None, None, Vec::new());
        for word in words {
            if let Some(text) = word.strip_prefix("until=") {
                if until.replace(moment(&value(text)?.text)?).is_some() {
                    return Err("until stands twice");
                }
            } else if let Some(text) = word.strip_prefix("note=") {
                if note.replace(value(text)?.text).is_some() {
                    return Err("note stands twice");
                }
            } else if terms.len() == MOST_TERMS {
                return Err("more than 16 terms in one entry");
            } else {
                terms.push(term(word)?);
            }
        }
        if terms.iter().filter(|it| matches!(it, Term::Net(_))).count() > 1 {
            return Err("several addresses in one entry: each has an entry of its own");
        }
        if terms.is_empty() {
            return Err(match until.is_some() || note.is_some() {
                true => "until and note alone say nothing of who is meant; * is everybody",
                false => NEITHER,
            });
        }
        let rule = Self {
            excludes,
            terms: simplified(terms).into(),
            until,
            note: note.filter(|it| !it.is_empty()).map(Into::into),
        };
        // The canonical form is at most three times as long (`%XX` for a byte), but for a few signs a term.
        let may_be_too_long = text.len() > LONGEST_ENTRY / 4;
        match may_be_too_long && rule.to_string().len() > LONGEST_ENTRY {
            true => Err(TOO_LONG),
            false => Ok(rule),
        }
    }

    /// The net, if it says no more than that its clients are gray: `* 10.0.0.0/8`.
    pub(in crate::lists) fn as_net(&self) -> Option<IpNet> {
        match (self, &*self.terms) {
            (
                Self {
                    excludes: false,
                    until: None,
                    note: None,
                    ..
                },
                [Term::Net(net)],
            ) => Some(*net),
            _ => None,
        }
    }
}

/// What stands behind the `!`.
fn check_exclusion(rest: &str) -> Result<(), Wrong> {
    if rest.is_empty() {
        Err("! stands before what it excludes; !* excludes everybody")
    } else if rest.starts_with([' ', '\t']) {
        Err("! stands directly before the first term, without a blank")
    } else if rest.starts_with("until=") || rest.starts_with("note=") {
        Err("! stands directly before the first term; until and note follow the terms")
    } else {
        Ok(())
    }
}

fn term(word: &str) -> Result<Term, Wrong> {
    if word == "*" {
        return Ok(Term::Everybody);
    }
    if word.starts_with('!') {
        return Err("! excludes an entry as a whole, and stands once, at its beginning");
    }
    if let Ok(net) = read_net(word) {
        return Ok(Term::Net(IpNet::trunc(&net)));
    }
    let parts = word.split_once(':').filter(|(kind, _)| !kind.contains('='));
    let (kind, rest) = parts.ok_or_else(|| without_colon(word))?;
    if let Some(kind) = PartKind::of(kind) {
        return named(kind, rest);
    }
    match kind {
        "path" => path(rest),
        "method" => method(rest),
        "host" => host_term(rest),
        "percent" => share(rest),
        _ => Err(unknown(kind, rest)),
    }
}

/// The kinds of terms.
const KINDS: [&str; 7] = [
    "header", "cookie", "query", "path", "method", "host", "percent",
];

fn without_colon(word: &str) -> Wrong {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    match name {
        _ if KINDS.contains(&&*name.to_ascii_lowercase()) => {
            "a `:` is behind the kind of a term, as in header:X-User=alice or percent:5"
        }
        "weight" if !value.is_empty() => {
            "a weight is for servers; here are who gets the new version"
        }
        _ if name.eq_ignore_ascii_case("until") || name.eq_ignore_ascii_case("note") => {
            "until=2026-12-01T18:00Z and note=\"…\" are in lower case, with `=` and without a blank"
        }
        _ => NEITHER,
    }
}

fn unknown(kind: &str, rest: &str) -> Wrong {
    let kind = kind.to_ascii_lowercase();
    match &*kind {
        _ if KINDS.contains(&&*kind) => "the kind of a term is in lower case, as in header:X-User",
        "ip" | "addr" | "address" | "net" | "cidr" => {
            "an address or net stands alone, without anything before it"
        }
        "until" | "note" if !rest.is_empty() => "until=2026-12-01T18:00Z and note=\"…\" have a `=`",
        _ => NEITHER,
    }
}

/// Terms in their canonical order, without those that others make of no use.
fn simplified(mut terms: Vec<Term>) -> Vec<Term> {
    if terms.len() == 1 {
        return terms;
    }
    terms.sort_unstable();
    terms.dedup();
    // Of shares by one key, the smallest is within all others, and comes first.
    let is_within = |kept: &[Term], term: &Term| match term {
        Term::Share { by, .. } => {
            let mut shares = kept.iter();
            shares.any(|it| matches!(it, Term::Share { by: other, .. } if other == by))
        }
        _ => false,
    };
    let mut kept: Vec<Term> = Vec::with_capacity(terms.len());
    for term in terms {
        if !is_within(&kept, &term) {
            kept.push(term);
        }
    }
    if kept.len() > 1 && kept.first() == Some(&Term::Everybody) {
        kept.remove(0);
    }
    let tested = |kept: &[Term], at: usize| {
        let Term::Part(part, Test::Present) = &kept[at] else {
            return false;
        };
        let is_other =
            |it: &Term| matches!(it, Term::Part(of, test) if of == part && *test != Test::Present);
        kept.iter().any(is_other)
    };
    let stays: Vec<bool> = (0..kept.len()).map(|at| !tested(&kept, at)).collect();
    let mut stays = stays.into_iter();
    kept.retain(|_| stays.next().unwrap_or(true));
    kept
}

#[cfg(test)]
mod tests;
