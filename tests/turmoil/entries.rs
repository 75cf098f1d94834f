//! Entries of gray lists, and whom they hold for: a naive reading of docs/gray.md.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh64::xxh64;

use super::requests::Asked;

/// A part of requests. The order of variants is that of the docs' canonical order, here and below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Header(&'static str),
    Cookie(&'static str),
    Query(&'static str),
    Path,
    Method,
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Test {
    Present,
    Is(&'static str),
    InAnyCase(&'static str),
    Like {
        open_start: bool,
        text: &'static str,
        open_end: bool,
    },
    Version(Comparison, &'static [u64]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Comparison {
    Less,
    AtMost,
    Equal,
    AtLeast,
    Greater,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ShareOf {
    Clients,
    Values(Part),
    Visitors,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Term {
    Everybody,
    Net(Ipv4Addr, u8),
    Part(Part, Test),
    /// So many of 10,000.
    Share(u16, ShareOf),
}

/// One entry in its canonical form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) excludes: bool,
    /// Sorted.
    pub(crate) terms: Vec<Term>,
    /// In seconds since 1970.
    pub(crate) until: Option<u64>,
    pub(crate) note: Option<&'static str>,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Path => f.write_str("path:"),
            Self::Method => f.write_str("method:"),
            Self::Host => f.write_str("host:"),
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("*"),
            Self::Net(address, 32) => write!(f, "{address}"),
            Self::Net(address, length) => write!(f, "{address}/{length}"),
            Self::Part(part, test) => {
                let is_named = !matches!(part, Part::Path | Part::Method | Part::Host);
                let sign = |sign| if is_named { sign } else { "" };
                let quoted = |text: &str| match text.contains(' ') {
                    true => format!("\"{text}\""),
                    false => text.to_owned(),
                };
                write!(f, "{part}")?;
                match test {
                    Test::Present => Ok(()),
                    Test::Is(text) => write!(f, "{}{}", sign("="), quoted(text)),
                    Test::InAnyCase(text) => write!(f, "{}{}", sign("~"), quoted(text)),
                    Test::Like {
                        open_start,
                        text,
                        open_end,
                    } => {
                        let star = |open: &bool| if *open { "*" } else { "" };
                        let (start, end) = (star(open_start), star(open_end));
                        write!(f, "{}{start}{text}{end}", sign("="))
                    }
                    Test::Version(comparison, numbers) => {
                        let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
                        write!(f, "{}{}", comparison.sign(), numbers.join("."))
                    }
                }
            }
            Self::Share(limit, of) => {
                let percent = format!("{}.{:02}", limit / 100, limit % 100);
                let percent = percent.trim_end_matches('0').trim_end_matches('.');
                match of {
                    ShareOf::Clients => write!(f, "percent:{percent}"),
                    ShareOf::Values(part) => write!(f, "percent:{percent}:{part}"),
                    ShareOf::Visitors => write!(f, "percent:{percent}:visitor"),
                }
            }
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms: Vec<String> = self.terms.iter().map(Term::to_string).collect();
        let sign = if self.excludes { "!" } else { "" };
        write!(f, "{sign}{}", terms.join(" "))?;
        if let Some(until) = self.until {
            let until = std::time::UNIX_EPOCH + std::time::Duration::from_secs(until);
            let text = humantime::format_rfc3339_seconds(until).to_string();
            match text.strip_suffix(":00Z") {
                Some(minute) => write!(f, " until={minute}Z")?,
                None => write!(f, " until={text}")?,
            }
        }
        match self.note {
            Some(note) => write!(f, " note=\"{note}\""),
            None => Ok(()),
        }
    }
}

impl Comparison {
    fn sign(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Equal => "=",
            Self::AtLeast => ">=",
            Self::Greater => ">",
        }
    }
}

/// Numbers with dots between them, perhaps behind a `v`; zeros at the end do not count.
fn version(text: &str) -> Option<Vec<u64>> {
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
    let numbers: Option<Vec<u64>> = text.split('.').map(|it| it.parse().ok()).collect();
    let mut numbers = numbers?;
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    Some(numbers)
}

impl Test {
    fn holds(self, value: &str) -> bool {
        match self {
            Self::Present => true,
            Self::Is(text) => value == text,
            Self::InAnyCase(text) => value.eq_ignore_ascii_case(text),
            Self::Like {
                open_start,
                text,
                open_end,
            } => match (open_start, open_end) {
                (true, true) => value.contains(text),
                (true, false) => value.ends_with(text),
                _ => value.starts_with(text),
            },
            Self::Version(comparison, numbers) => version(value).is_some_and(|it| {
                let order = it.as_slice().cmp(numbers);
                match comparison {
                    Comparison::Less => order.is_lt(),
                    Comparison::AtMost => order.is_le(),
                    Comparison::Equal => order.is_eq(),
                    Comparison::AtLeast => order.is_ge(),
                    Comparison::Greater => order.is_gt(),
                }
            }),
        }
    }
}

/// The formula of docs/gray.md.
fn bucket(salt: &str, key: &[u8]) -> u16 {
    let bucket = xxh64(key, xxh64(salt.as_bytes(), 0)) % 10_000;
    u16::try_from(bucket).unwrap()
}

/// A request as an entry sees it.
#[derive(Clone, Copy)]
pub(crate) struct Sight<'a> {
    pub(crate) asked: &'a Asked,
    pub(crate) salt: &'a str,
    /// The visitor's cookie: that of the request, or the one that came with the answer.
    pub(crate) visitor: Option<&'a str>,
    /// In milliseconds since 1970.
    pub(crate) now: u64,
}

impl Sight<'_> {
    fn bucket(self, of: ShareOf) -> Option<u16> {
        let key = match of {
            ShareOf::Clients => self.asked.client.octets().to_vec(),
            ShareOf::Values(part) => self.asked.value(part)?.into_bytes(),
            ShareOf::Visitors => self.visitor?.as_bytes().to_vec(),
        };
        (!key.is_empty()).then(|| bucket(self.salt, &key))
    }
}

fn covers((net, length): (Ipv4Addr, u8), client: Ipv4Addr) -> bool {
    let host_bits = 32 - u32::from(length);
    let bits = |address: Ipv4Addr| u64::from(address.to_bits()) >> host_bits;
    bits(net) == bits(client)
}

impl Entry {
    pub(crate) fn of(mut terms: Vec<Term>) -> Self {
        terms.sort();
        Self {
            excludes: false,
            terms,
            until: None,
            note: None,
        }
    }

    /// The address or net, if it is nothing else.
    fn plain(&self) -> Option<(Ipv4Addr, u8)> {
        match (self, &self.terms[..]) {
            (
                Self {
                    excludes: false,
                    until: None,
                    note: None,
                    ..
                },
                [Term::Net(address, length)],
            ) => Some((*address, *length)),
            _ => None,
        }
    }

    fn has_share(&self) -> bool {
        self.terms.iter().any(|it| matches!(it, Term::Share(..)))
    }

    fn holds(&self, sight: Sight<'_>) -> bool {
        let is_over = self.until.is_some_and(|it| sight.now >= it * 1000);
        let holds = |term: &Term| match *term {
            Term::Everybody => true,
            Term::Net(address, length) => covers((address, length), sight.asked.client),
            Term::Part(part, test) => sight.asked.value(part).is_some_and(|it| test.holds(&it)),
            Term::Share(limit, of) => sight.bucket(of).is_some_and(|it| it < limit),
        };
        !is_over && self.terms.iter().all(holds)
    }

    /// The bucket that is shown when this entry decides: that of its first share, visitors' last.
    fn shown_bucket(&self, sight: Sight<'_>) -> Option<u16> {
        let mut shares: Vec<ShareOf> = Vec::new();
        for term in &self.terms {
            if let Term::Share(_, of) = term {
                shares.push(*of);
            }
        }
        shares.sort_by_key(|it| *it == ShareOf::Visitors);
        shares.first().and_then(|it| sight.bucket(*it))
    }
}

/// A gray list.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct GrayList {
    /// Sorted, as are the others.
    plain: Vec<(Ipv4Addr, u8)>,
    rules: Vec<Entry>,
}

/// What a gray list makes of a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) reason: &'static str,
    /// The entry that decides, and the bucket that is shown with it.
    pub(crate) entry: Option<String>,
    pub(crate) bucket: Option<u16>,
}

impl GrayList {
    pub(crate) fn of(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut list = Self::default();
        let entries: BTreeSet<Entry> = entries.into_iter().collect();
        for entry in entries {
            match entry.plain() {
                Some(net) => list.plain.push(net),
                None => list.rules.push(entry),
            }
        }
        list.plain.sort();
        list
    }

    /// The entries in the order in which a gateway shows them.
    pub(crate) fn texts(&self) -> Vec<String> {
        let plain = self
            .plain
            .iter()
            .map(|it| Term::Net(it.0, it.1).to_string());
        plain
            .chain(self.rules.iter().map(Entry::to_string))
            .collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.rules.is_empty()
    }

    fn has_shares(&self) -> bool {
        self.rules.iter().any(Entry::has_share)
    }

    /// When entries end, in milliseconds since 1970.
    pub(crate) fn ends(&self) -> impl Iterator<Item = u64> {
        self.rules.iter().filter_map(|it| Some(it.until? * 1000))
    }

    /// True when an entry decides: then `true` for `pre`.
    pub(crate) fn admits(&self, sight: Sight<'_>) -> Option<bool> {
        let holds = |excludes: bool| {
            let mut rules = self.rules.iter().filter(|it| it.excludes == excludes);
            rules.any(|it| it.holds(sight))
        };
        if holds(true) {
            return Some(false);
        }
        let is_plain = self.plain.iter().any(|it| covers(*it, sight.asked.client));
        (is_plain || holds(false)).then_some(true)
    }

    /// The same with what decides.
    pub(crate) fn verdict(&self, sight: Sight<'_>) -> Verdict {
        let first = |excludes: bool| {
            let mut rules = self.rules.iter().filter(|it| it.excludes == excludes);
            rules.find(|it| it.holds(sight))
        };
        let plain = self
            .plain
            .iter()
            .filter(|it| covers(**it, sight.asked.client));
        let of = |reason, entry: &Entry| Verdict {
            reason,
            entry: Some(entry.to_string()),
            bucket: entry.shown_bucket(sight),
        };
        if let Some(entry) = first(true) {
            of("excluded", entry)
        } else if let Some((address, length)) = plain.max_by_key(|it| it.1) {
            of("listed", &Entry::of(vec![Term::Net(*address, *length)]))
        } else if let Some(entry) = first(false) {
            of("listed", entry)
        } else {
            Verdict {
                reason: "unlisted",
                entry: None,
                bucket: None,
            }
        }
    }

    /// The digest of the list, as it is shown for a service.
    pub(crate) fn digest(&self, salt: &str, service: &str) -> String {
        let mut content = Sha256::new();
        for (address, length) in &self.plain {
            content.update([4, *length]);
            content.update(address.octets());
        }
        for rule in &self.rules {
            content.update(format!("\0{rule}\n"));
        }
        let mut content = content.finalize();
        if self.has_shares() && !salt.is_empty() {
            content = Sha256::new()
                .chain_update(content)
                .chain_update(salt)
                .finalize();
        }
        let first = |hash: Sha256| u64::from_be_bytes(*hash.finalize().first_chunk().unwrap());
        // The first of the lists.
        let mut digest = first(Sha256::new().chain_update([0]).chain_update(content));
        if service != "default" {
            let hash = Sha256::new().chain_update(digest.to_be_bytes());
            digest = first(hash.chain_update(service));
        }
        format!("{digest:016x}")
    }
}
