//! The parts of requests that the entries of a list are about, each of them a numbered *source* of a value.

use rustc_hash::FxHashMap;

use super::names::SourceNames;
use crate::lists::rule::Part;

/// A kind of source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SourceKind {
    Path,
    Method,
    Host,
    Header,
    Cookie,
    Query,
}

impl SourceKind {
    /// Those of which there is one.
    pub(super) const SINGLE: [Self; 3] = [Self::Path, Self::Method, Self::Host];

    /// Those that have names, in the order in which they are looked for.
    pub(super) const NAMED: [Self; 3] = [Self::Header, Self::Cookie, Self::Query];

    fn of(part: &Part) -> Self {
        match part {
            Part::Path => Self::Path,
            Part::Method => Self::Method,
            Part::Host => Self::Host,
            Part::Header(_) => Self::Header,
            Part::Cookie(_) => Self::Cookie,
            Part::Query(_) => Self::Query,
        }
    }

    pub(super) const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A number, and what of a request it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SourceNumber(pub(super) u32);

/// All sources of a list.
#[derive(Debug)]
pub(super) struct Sources {
    kinds: Box<[SourceKind]>,
    headers: SourceNames,
    cookies: SourceNames,
    queries: SourceNames,
}

impl Sources {
    /// Those of these parts; with them, the number of each.
    pub(super) fn of<'a>(
        parts: impl Iterator<Item = &'a Part>,
    ) -> (Self, FxHashMap<&'a Part, SourceNumber>) {
        let (mut kinds, mut numbers) = (SourceKind::SINGLE.to_vec(), FxHashMap::default());
        let [mut headers, mut cookies, mut queries] = [const { Vec::new() }; 3];
        for part in parts {
            if numbers.contains_key(part) {
                continue;
            }
            let kind = SourceKind::of(part);
            let mut number = kind as u32;
            let named: Option<(&mut Vec<_>, &[u8])> = match part {
                Part::Path | Part::Method | Part::Host => None,
                Part::Header(name) => Some((&mut headers, name.as_bytes())),
                Part::Cookie(name) => Some((&mut cookies, name)),
                Part::Query(name) => Some((&mut queries, name)),
            };
            if let Some((names, name)) = named {
                number = kinds.len() as u32;
                names.push((name.into(), number));
                kinds.push(kind);
            }
            numbers.insert(part, SourceNumber(number));
        }
        let sources = Self {
            kinds: kinds.into(),
            headers: SourceNames::new(headers, true),
            cookies: SourceNames::new(cookies, false),
            queries: SourceNames::new(queries, false),
        };
        (sources, numbers)
    }

    pub(super) fn count(&self) -> usize {
        self.kinds.len()
    }

    pub(super) fn kind(&self, source: SourceNumber) -> SourceKind {
        self.kinds[source.0 as usize]
    }

    /// The names of a kind that has some.
    pub(super) fn names(&self, kind: SourceKind) -> &SourceNames {
        match kind {
            SourceKind::Cookie => &self.cookies,
            SourceKind::Query => &self.queries,
            _ => &self.headers,
        }
    }
}
