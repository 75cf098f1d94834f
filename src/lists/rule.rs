//! An entry of the gray list that is more than an address: what must hold of a request, as a value.
//!
//! [`Rule`] is the parsed form of one entry; its `Display` is the canonical form, of which digests, copies
//! and pages are made. What is read from that is the same rule again, and entries that mean the same are one
//! rule wherever that can be told from the entry alone: whatever the order of their terms, the case of the
//! names of fields, quotes that are not needed, or other forms of one net, version, time or share.

mod host;
mod moment;
pub(in crate::lists) mod order;
mod parse;
mod part;
mod share;
mod show;
mod version;
pub(in crate::lists) mod words;

use std::time::SystemTime;

use ipnet::IpNet;

/// One entry of the gray list: all its terms must hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// `!`: it keeps requests from `pre`, and wins over all that do not.
    pub(crate) excludes: bool,
    /// What must hold: at least one, sorted and without repetition. `*` stands alone, as there is nothing
    /// to add to another term.
    pub(crate) terms: Box<[Term]>,
    /// Holds until then, exclusively; in whole seconds.
    pub(crate) until: Option<SystemTime>,
    /// What people have written beside it.
    pub(crate) note: Option<Box<str>>,
}

/// One term of an entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Term {
    /// `*`: always.
    Everybody,
    /// The client is in there.
    Net(IpNet),
    /// A part of the request, and what it must be.
    Part(Part, Test),
    /// `percent:N…`: the request is among the first so many of 10,000.
    Share {
        /// Hundredths of a percent, 0 to 10,000.
        limit: u16,
        /// By what it is told to which of them it belongs.
        by: ShareKey,
    },
}

/// What a share is a share of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ShareKey {
    /// The clients' addresses; of an IPv6 address the first 64 bits, since the others change by the hour
    /// (RFC 8981).
    Client,
    /// The values of a header field, a cookie or a query parameter; who has none is in no share.
    Part(Part),
    /// The cookie that the gateway itself sets.
    Visitor,
}

/// A part of a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Part {
    /// The first header field of that name, which is in lower case here.
    Header(Box<str>),
    /// The first cookie of that name.
    Cookie(Box<[u8]>),
    /// The first query parameter of that name, which is percent-decoded here. It need not be UTF-8.
    Query(Box<[u8]>),
    /// The target's path, as it was sent, without its query.
    Path,
    /// The method.
    Method,
    /// The host without its port, in lower case.
    Host,
}

/// What a part must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Test {
    /// It is there.
    Present,
    /// It is this text.
    Is(Box<[u8]>),
    /// It is this text, which is in lower case here, whatever the case of its letters (ASCII). Without a
    /// letter it is [`Self::Is`].
    IsInAnyCase(Box<[u8]>),
    /// It begins, ends, or has within it this text, which is not empty: `x*`, `*x`, `*x*`. Case matters
    /// unless `any_case`; then the text is in lower case here.
    Like {
        /// `*` before it.
        open_start: bool,
        /// The text.
        text: Box<[u8]>,
        /// `*` behind it.
        open_end: bool,
        /// The case of letters (ASCII) does not matter.
        any_case: bool,
    },
    /// It is a version that compares like this with another one.
    Version(Comparison, AppVersion),
}

/// How two versions compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Comparison {
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `=`: also if it is written in another way.
    Equal,
    /// `>=`
    AtLeast,
    /// `>`
    Greater,
}

/// Numbers with dots between them, perhaps behind a `v`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AppVersion {
    /// Compared one by one; what is missing at the end is 0, and a 0 at the end is left out.
    pub(crate) numbers: Box<[u64]>,
    /// They as text.
    pub(crate) text: Box<str>,
}

impl Rule {
    /// True when it says no more than that a share of the clients is gray, whatever is noted beside it.
    pub(crate) fn is_share_alone(&self) -> bool {
        !self.excludes && self.until.is_none() && matches!(&*self.terms, [Term::Share { .. }])
    }

    /// True when it is about the same requests as `other`, for however long.
    pub(crate) fn is_about_the_same_as(&self, other: &Self) -> bool {
        (self.excludes, &self.terms) == (other.excludes, &other.terms)
    }

    /// True when it is about the clients in this net, whatever is noted beside it.
    pub(crate) fn is_about_net(&self, net: &IpNet) -> bool {
        !self.excludes && matches!(&*self.terms, [Term::Net(it)] if it == net)
    }
}

/// Most terms of an entry.
pub(super) const MOST_TERMS: usize = 16;
