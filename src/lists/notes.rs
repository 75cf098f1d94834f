//! What is noted about entries while a list is parsed: likely mistakes, counted by kind, and the first
//! of each kind named.

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv4Net};

use super::entry::{canonical, decimal};
use super::peer::ListedPeer;

/// How many of each kind are named.
pub(super) const NAMED: usize = 20;

/// Kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// The same entry is there more than once, perhaps in several forms.
    Duplicate,
    /// A peer is in both pools.
    InBothPools,
    /// An entry of the gray list is among the trusted proxies, or covers one: all clients that come
    /// through it without being named are gray.
    TrustedProxyIsGray,
    /// An entry that was skipped, but whose intended meaning can be guessed.
    Almost,
    /// A net is written with host bits, as an address within it.
    HostBits,
    /// A server is written as an IPv6 address without brackets, the end of which may be meant as a port.
    AddressOrPort,
    /// A peer has several entries, with several weights.
    WeightsDiffer,
    /// An entry of the gray list that makes no difference, or makes others make none.
    Unreachable,
    /// An entry of the gray list that asks for what no client, or hardly one, sends so.
    NeverSent,
    /// An entry of the gray list that has held until a moment in the past.
    Expired,
    /// Several shares by one key, of which only the largest counts.
    SharesDiffer,
    /// A header field for which there is a term of its own.
    OtherTerm,
}

impl FindingKind {
    /// Every kind, in the order in which they are shown.
    pub const ALL: [Self; 12] = [
        Self::Duplicate,
        Self::InBothPools,
        Self::TrustedProxyIsGray,
        Self::Almost,
        Self::HostBits,
        Self::AddressOrPort,
        Self::WeightsDiffer,
        Self::Unreachable,
        Self::NeverSent,
        Self::Expired,
        Self::SharesDiffer,
        Self::OtherTerm,
    ];

    /// The name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::InBothPools => "in-both-pools",
            Self::TrustedProxyIsGray => "trusted-proxy-is-gray",
            Self::Almost => "almost",
            Self::HostBits => "host-bits",
            Self::AddressOrPort => "address-or-port",
            Self::WeightsDiffer => "weights-differ",
            Self::Unreachable => "unreachable",
            Self::NeverSent => "never-sent",
            Self::Expired => "expired",
            Self::SharesDiffer => "shares-differ",
            Self::OtherTerm => "other-term",
        }
    }

    /// What it says, for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Duplicate => {
                "the same entry stands there more than once, perhaps in several forms"
            }
            Self::InBothPools => "a server is in `pre` and in `prod`",
            Self::TrustedProxyIsGray => {
                "a trusted proxy is gray, and with it all clients that it does not name"
            }
            Self::Almost => "an entry was skipped, and this is what it was probably meant to be",
            Self::HostBits => "a network is written as an address within it",
            Self::AddressOrPort => "the end of an IPv6 address may be meant as a port",
            Self::WeightsDiffer => "a server has several weights; the largest counts",
            Self::Unreachable => {
                "an entry of `gray` makes no difference: all are excluded or admitted anyway, it is doubled by a \
                 wider entry, or it never holds"
            }
            Self::NeverSent => "an entry of `gray` asks for what hardly a client sends so",
            Self::Expired => "the `until` of an entry of `gray` is past",
            Self::SharesDiffer => "of several shares by one key only the largest counts",
            Self::OtherTerm => {
                "an entry of `gray` asks for a header field for which there is another term"
            }
        }
    }
}

/// What was noted of the entries of one list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    pub(super) counts: [usize; FindingKind::ALL.len()],
    pub(super) named: Vec<Note>,
    /// How many there are of each kind.
    pub(super) named_of: [usize; FindingKind::ALL.len()],
}

/// A finding, in a list known from the context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) kind: FindingKind,
    pub(super) entry: String,
    pub(super) text: String,
    pub(super) count: usize,
}

impl Notes {
    /// Counts a finding; its entry and text are computed only if they are kept.
    pub(super) fn add(&mut self, kind: FindingKind, told: impl FnOnce() -> (String, String)) {
        self.add_many(kind, 1, told);
    }

    /// Counts several findings that are reported as one.
    pub(super) fn add_many(
        &mut self,
        kind: FindingKind,
        count: usize,
        told: impl FnOnce() -> (String, String),
    ) {
        self.counts[kind as usize] += count;
        let named = &mut self.named_of[kind as usize];
        if *named < NAMED {
            *named += 1;
            let (entry, text) = told();
            self.named.push(Note {
                kind,
                entry,
                text,
                count,
            });
        }
    }

    /// Removes repetitions from sorted entries, and counts them.
    pub(super) fn dedup<T: PartialEq>(
        &mut self,
        entries: &mut Vec<T>,
        shown: impl Fn(&T) -> String,
    ) {
        for same in entries.chunk_by(|one, next| one == next) {
            if let [first, _, ..] = same {
                let text = || (shown(first), "is listed more than once".to_owned());
                self.add_many(FindingKind::Duplicate, same.len() - 1, text);
            }
        }
        entries.dedup();
    }

    /// Keeps of sorted peers that differ by their weight alone the last one, and counts the others.
    pub(super) fn keep_largest_weights(&mut self, peers: &mut Vec<ListedPeer>) {
        for same in peers.chunk_by(|one, next| one.place() == next.place()) {
            let [others @ .., last] = same else { continue };
            if !others.is_empty() {
                self.add_many(FindingKind::WeightsDiffer, others.len(), || {
                    let others: Vec<String> =
                        others.iter().map(|it| it.weight().to_string()).collect();
                    let text = format!(
                        "has the weights {} and {}; the largest counts",
                        others.join(", "),
                        last.weight()
                    );
                    (last.place().to_string(), text)
                });
            }
        }
        peers.reverse();
        peers.dedup_by(|one, kept| one.place() == kept.place());
        peers.reverse();
    }
}

/// The note about a net that was written as `written`, with host bits, and means `net`.
pub(super) fn host_bits(text: &str, written: IpNet, net: IpNet) -> (String, String) {
    let taken = format!("has host bits; taken as {}", canonical(net));
    let remark = match ipv4_meant(written) {
        Some((length, meant)) => format!("{taken}; is /{length} meant, which is {meant}?"),
        None => taken,
    };
    (text.to_owned(), remark)
}

/// `::ffff:10.0.0.0/24`: an IPv4 net in IPv6 form, but with the length of the IPv4 form. Returns the
/// right length, and the net.
fn ipv4_meant(written: IpNet) -> Option<(u8, Ipv4Net)> {
    let IpNet::V6(written) = written else {
        return None;
    };
    let address = written.addr().to_ipv4_mapped()?;
    let net = Ipv4Net::new(address, written.prefix_len()).ok()?;
    Some((96 + net.prefix_len(), net.trunc()))
}

/// The note about a server that was taken for `peer`, an IPv6 address with the default port, if the end
/// of the address may be meant as a port. With brackets it is clear.
pub(super) fn address_or_port(text: &str, peer: &ListedPeer) -> Option<(String, String)> {
    let server = text.split_ascii_whitespace().next()?;
    let (address, port) = server.rsplit_once(':')?;
    // No port with a single digit is in use, and many addresses end in one.
    let is_port = port.len() > 1 && decimal::<u16>(port).is_some();
    let meant = address.parse::<Ipv6Addr>().ok().filter(|_| is_port)?;
    let place = peer.place();
    let remark = format!("taken as {place}; is [{meant}]:{port} meant?");
    Some((text.to_owned(), remark))
}
