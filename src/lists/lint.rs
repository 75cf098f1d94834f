//! What is likely to be a mistake in lists that can be read.
//!
//! Most is noted on the way, while a list is parsed and sorted ([`Notes`]); what concerns several
//! lists, or the settings, is looked up in the sorted lists when it is asked for ([`findings`]).
//! Each kind is counted in full, and the first of each are named.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::gray::canonical;
use super::peers::{LINK_LOCAL, UNREACHABLE};
use super::{GrayList, ListName, Lists, gray_entry, peer_entry};

/// So many of each kind are named.
const NAMED: usize = 20;

/// Kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The same entry stands more than once, perhaps in several forms.
    Duplicate,
    /// A peer is of the new version and of the old one.
    InBothPools,
    /// An entry of the gray list is among the trusted proxies, or covers one: all who come through it
    /// without a name of their own are gray.
    TrustedProxyIsGray,
    /// An entry that was skipped, but for which there is a likely meaning.
    Almost,
    /// A net is written with an address inside of it.
    HostBits,
}

impl Kind {
    /// Every kind, in the order in which they are shown.
    pub const ALL: [Self; 5] = [
        Self::Duplicate,
        Self::InBothPools,
        Self::TrustedProxyIsGray,
        Self::Almost,
        Self::HostBits,
    ];

    /// The name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::InBothPools => "in-both-pools",
            Self::TrustedProxyIsGray => "trusted-proxy-is-gray",
            Self::Almost => "almost",
            Self::HostBits => "host-bits",
        }
    }
}

/// What was noted of the entries of one list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    counts: [usize; Kind::ALL.len()],
    named: Vec<(Kind, String, String)>,
}

impl Notes {
    /// Counts a finding; its entry and text are made only if they are kept.
    pub(super) fn add(&mut self, kind: Kind, told: impl FnOnce() -> (String, String)) {
        let count = &mut self.counts[kind as usize];
        *count += 1;
        if *count <= NAMED {
            let (entry, text) = told();
            self.named.push((kind, entry, text));
        }
    }

    /// Counts a repetition of an entry.
    pub(super) fn repeated(&mut self, entry: impl FnOnce() -> String) -> bool {
        let text = || (entry(), "stands more than once".to_owned());
        self.add(Kind::Duplicate, text);
        true
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind of mistake.
    pub kind: Kind,
    /// In which list.
    pub list: ListName,
    /// The entry, as it was written where that matters.
    pub entry: String,
    /// What about it.
    pub text: String,
}

/// What was found in all lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    counts: [usize; Kind::ALL.len()],
    /// The first of each kind, at most 20 of each list.
    pub first: Vec<Finding>,
}

impl Findings {
    /// How many there are of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.counts[kind as usize]
    }

    /// How many there are.
    pub fn total(&self) -> usize {
        self.counts.iter().sum()
    }

    fn take(&mut self, list: ListName, notes: Notes) {
        for (sum, count) in self.counts.iter_mut().zip(notes.counts) {
            *sum += count;
        }
        let named = notes.named.into_iter();
        self.first.extend(named.map(|(kind, entry, text)| Finding {
            kind,
            list,
            entry,
            text,
        }));
    }
}

/// What was found in these lists, where `trusted` are the trusted proxies. Does not look through
/// all entries.
pub fn findings(lists: &Lists, trusted: &[IpNet]) -> Findings {
    let mut findings = Findings::default();
    for list in ListName::ALL {
        findings.take(list, lists.remarks(list).notes.clone());
    }
    findings.take(ListName::Gray, gray_proxies(&lists.gray, trusted));
    let mut of_pre = Notes::default();
    for peer in lists.pre.peers() {
        if lists.prod.peers().binary_search(peer).is_ok() {
            let text = "is in prod, too".to_owned();
            of_pre.add(Kind::InBothPools, || (peer.to_string(), text));
        }
    }
    findings.take(ListName::Pre, of_pre);
    findings
}

/// The entries of `gray` that lie within the `trusted` proxies, or around some of them.
fn gray_proxies(gray: &GrayList, trusted: &[IpNet]) -> Notes {
    let mut notes = Notes::default();
    let mut around = BTreeSet::new();
    for proxies in IpNet::aggregate(&trusted.to_vec()) {
        let within = gray.within(&proxies);
        let more = within.len().saturating_sub(NAMED);
        for net in within.take(NAMED) {
            let text = || format!("is a trusted proxy ({})", canonical(proxies));
            notes.add(Kind::TrustedProxyIsGray, || (canonical(net), text()));
        }
        notes.counts[Kind::TrustedProxyIsGray as usize] += more;
        let wider = std::iter::successors(proxies.supernet(), IpNet::supernet);
        for net in wider.filter(|it| gray.has(it)) {
            // Told once, however many proxies there are in it.
            if around.insert(net) {
                let text = || format!("covers a trusted proxy ({})", canonical(proxies));
                notes.add(Kind::TrustedProxyIsGray, || (canonical(net), text()));
            }
        }
    }
    notes
}

/// The note of a net that was written with host bits, and is `net`.
pub(super) fn host_bits(written: &str, net: IpNet) -> (String, String) {
    let meant = canonical(net);
    (
        written.to_owned(),
        format!("has host bits; taken as {meant}"),
    )
}

/// What may be meant by an entry of the gray list that cannot be read.
pub(super) fn almost_gray(text: &str) -> Option<String> {
    almost(text, GRAY_REPAIRS, |text| gray_entry(text).is_ok())
}

/// What may be meant by an entry of a pool that cannot be read.
pub(super) fn almost_peer(text: &str, default_port: u16) -> Option<String> {
    let reads = |text: &str| peer_entry(text, default_port).is_ok();
    if let Some((address, port)) = text.rsplit_once(':')
        && reads(address)
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && !port.is_empty()
        && !matches!(port.parse(), Ok(1..=u16::MAX))
    {
        return Some("a port is a number from 1 to 65535".to_owned());
    }
    // An address, which no repair makes one of a server.
    if let Err(reason @ (UNREACHABLE | LINK_LOCAL)) = peer_entry(&without_zone(text), default_port)
    {
        return Some(reason.to_owned());
    }
    almost(text, PEER_REPAIRS, reads)
}

/// No entry that can be read is longer than this, and by far no repair of it.
const LONGEST: usize = 100;

fn almost(text: &str, repairs: &[Repair], reads: impl Fn(&str) -> bool) -> Option<String> {
    if text.is_empty() || text.len() > LONGEST {
        return None;
    }
    let between = |it: char| it.is_whitespace() || matches!(it, ',' | ';');
    let mut parts = text.split(between).filter(|it| !it.is_empty()).peekable();
    if parts.clone().nth(1).is_some() && parts.all(&reads) {
        return Some("several entries in one".to_owned());
    }
    // One after the other, since an entry may have several faults.
    let mut repaired = text.to_owned();
    for repair in repairs {
        repaired = repair(&repaired);
        if repaired != text && reads(&repaired) {
            return Some(format!("is {repaired} meant?"));
        }
    }
    is_host(&without_scheme(text)).then(|| "a name; only addresses are read".to_owned())
}

/// Makes an entry a little better, if it has a certain fault.
type Repair = fn(&str) -> String;

const GRAY_REPAIRS: &[Repair] = &[
    without_frame,
    without_scheme,
    without_gaps,
    dotted,
    digits,
    without_leading_zeros,
    without_zone,
    without_port,
    wildcard,
    length_in_bounds,
];

const PEER_REPAIRS: &[Repair] = &[
    without_frame,
    without_scheme,
    without_gaps,
    dotted,
    digits,
    without_leading_zeros,
    without_zone,
    without_path,
    without_brackets,
];

/// Quotes around it, or a dot or a comma behind.
fn without_frame(text: &str) -> String {
    let frame = |it: char| {
        matches!(
            it,
            '"' | '\'' | '`' | '<' | '>' | '(' | ')' | '.' | ',' | ';' | '/'
        )
    };
    text.trim_matches(frame).trim_end_matches(':').to_owned()
}

/// `http://` before it, and a path behind.
fn without_scheme(text: &str) -> String {
    match text.split_once("://") {
        Some((_, rest)) => without_path(rest),
        None => text.to_owned(),
    }
}

fn without_path(text: &str) -> String {
    text.split('/').next().unwrap_or_default().to_owned()
}

/// Blanks, except where they keep two numbers apart.
fn without_gaps(text: &str) -> String {
    let mut whole = String::new();
    for part in text.split_whitespace() {
        let is_number = |it: Option<char>| it.is_some_and(|it| it.is_ascii_hexdigit());
        if is_number(whole.chars().last()) && is_number(part.chars().next()) {
            whole.push(' ');
        }
        whole.push_str(part);
    }
    whole
}

/// `10,0,0,1`, `10..0.0.1`.
fn dotted(text: &str) -> String {
    text.replace(',', ".").replace("..", ".")
}

/// Letters that look like digits; none of them is a hexadecimal one.
fn digits(text: &str) -> String {
    text.replace(['O', 'o'], "0").replace(['l', 'I', 'i'], "1")
}

/// `010.0.0.1`, `10.0.0.0/08`, `[::1]:080`.
fn without_leading_zeros(text: &str) -> String {
    let (address, mark, number) = match text.rfind(['/', ':']) {
        // Else it is the end of an IPv6 address, in which zeros mean nothing.
        Some(at) if text[at..].starts_with('/') || text[..at].contains(['.', ']']) => {
            (&text[..at], &text[at..=at], &text[at + 1..])
        }
        _ => (text, "", ""),
    };
    let parts: Vec<String> = address.split('.').map(significant).collect();
    let address = match parts.len() {
        4 => parts.join("."),
        _ => address.to_owned(),
    };
    address + mark + &significant(number)
}

/// A number without zeros before it; anything else as it is.
fn significant(text: &str) -> String {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.trim_start_matches('0') {
        "" if is_number => "0".to_owned(),
        digits if is_number => digits.to_owned(),
        _ => text.to_owned(),
    }
}

/// `fe80::1%2`, `[fe80::1%eth0]:80`.
fn without_zone(text: &str) -> String {
    let Some((address, rest)) = text.split_once('%') else {
        return text.to_owned();
    };
    let end = rest.find([']', '/']).unwrap_or(rest.len());
    address.to_owned() + &rest[end..]
}

/// `10.0.0.1:80`, `[::1]:80`, `[::1]`.
fn without_port(text: &str) -> String {
    match text.parse::<SocketAddr>() {
        Ok(address) => address.ip().to_string(),
        Err(_) => without_brackets(text),
    }
}

/// `[10.0.0.1]:80`.
fn without_brackets(text: &str) -> String {
    text.replace(['[', ']'], "")
}

/// `10.0.*.*`, `10.0.0`, `10.0.0/24`.
fn wildcard(text: &str) -> String {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let fixed: Vec<&str> = address.split('.').take_while(|it| *it != "*").collect();
    let free = 4_usize.saturating_sub(fixed.len());
    let rest_is_free = address.split('.').skip(fixed.len()).all(|it| it == "*");
    if free == 0 || fixed.len() < 2 || !rest_is_free {
        return text.to_owned();
    }
    let zeros = ".0".repeat(free);
    let length = length.map_or_else(|| (8 * fixed.len()).to_string(), str::to_owned);
    format!("{}{zeros}/{length}", fixed.join("."))
}

/// `10.0.0.1/33`, `10.0.0.0/255.255.255.0`.
fn length_in_bounds(text: &str) -> String {
    let unchanged = || text.to_owned();
    let Some((address, length)) = text.split_once('/') else {
        return unchanged();
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return unchanged();
    };
    let longest = IpNet::from(address).max_prefix_len();
    let mask = length
        .parse()
        .ok()
        .and_then(|it| ipnet::ip_mask_to_prefix(it).ok());
    match (mask, length.parse::<u128>()) {
        (Some(length), _) => format!("{address}/{length}"),
        (None, Ok(length)) if length > longest.into() => format!("{address}/{longest}"),
        _ => unchanged(),
    }
}

/// `localhost`, `web1.example:80`.
fn is_host(text: &str) -> bool {
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let looks = name == "localhost" || name.contains('.') || port.is_some();
    looks
        && port.is_none_or(|it| it.parse::<u16>().is_ok())
        && name.bytes().all(is_name)
        && name.bytes().any(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::lists::{GrayList, PeerList};

    fn lists(gray: &[&str], pre: &[&str], prod: &[&str]) -> Lists {
        let peers = |entries: &[&str]| Arc::new(PeerList::parse(entries, 80));
        Lists::new(1, Arc::new(GrayList::parse(gray)), peers(pre), peers(prod))
    }

    #[test]
    fn what_is_skipped_but_has_a_likely_meaning_is_told_with_it() {
        for (entry, meant) in [
            ("10,0,0,1", "is 10.0.0.1 meant?"),
            ("192.168.1.1O", "is 192.168.1.10 meant?"),
            ("l92.168.1.1", "is 192.168.1.1 meant?"),
            ("10.0.0.1.", "is 10.0.0.1 meant?"),
            ("10..0.0.1", "is 10.0.0.1 meant?"),
            ("\"10.0.0.1\"", "is 10.0.0.1 meant?"),
            ("010.0.0.1", "is 10.0.0.1 meant?"),
            ("10.00.000.01/8", "is 10.0.0.1/8 meant?"),
            ("10.0.0. 1", "is 10.0.0.1 meant?"),
            ("10.0.0.0 /8", "is 10.0.0.0/8 meant?"),
            ("10.0.0.1:80", "is 10.0.0.1 meant?"),
            ("[::1]:80", "is ::1 meant?"),
            ("[2001:db8::]/32", "is 2001:db8::/32 meant?"),
            ("http://10.0.0.1", "is 10.0.0.1 meant?"),
            ("https://010.0.0.1:8O/path", "is 10.0.0.1 meant?"),
            ("10.0.0.1/33", "is 10.0.0.1/32 meant?"),
            ("2001:db8::/129", "is 2001:db8::/128 meant?"),
            ("10.0.0.0/255.255.255.0", "is 10.0.0.0/24 meant?"),
            ("10.0.0.0/08", "is 10.0.0.0/8 meant?"),
            ("0.0.0.0/00", "is 0.0.0.0/0 meant?"),
            ("2001:db8::/032", "is 2001:db8::/32 meant?"),
            ("010.0.0.1:080", "is 10.0.0.1 meant?"),
            ("fe80::1%2", "is fe80::1 meant?"),
            ("fe80::%2/64", "is fe80::/64 meant?"),
            ("10.0.*.*", "is 10.0.0.0/16 meant?"),
            ("10.0.0/24", "is 10.0.0.0/24 meant?"),
            ("10.0.0.1, 10.0.0.2", "several entries in one"),
            ("10.0.0.1 10.0.0.2", "several entries in one"),
            ("client.example", "a name; only addresses are read"),
        ] {
            assert_eq!(almost_gray(entry).as_deref(), Some(meant), "{entry}");
        }
        for (entry, meant) in [
            ("[10.0.0.1]:81", "is 10.0.0.1:81 meant?"),
            ("http://10.0.0.1:81/", "is 10.0.0.1:81 meant?"),
            ("http://[::1]:81", "is [::1]:81 meant?"),
            ("10.0.0.1:", "is 10.0.0.1 meant?"),
            ("10.0.0.1/24", "is 10.0.0.1 meant?"),
            ("10.0.0.1:8O", "is 10.0.0.1:80 meant?"),
            ("10,0,0,1:80", "is 10.0.0.1:80 meant?"),
            ("10.0.0.1:65536", "a port is a number from 1 to 65535"),
            ("10.0.0.1:0", "a port is a number from 1 to 65535"),
            ("10.0.0.1:080", "is 10.0.0.1:80 meant?"),
            ("[::1]:080", "is [::1]:80 meant?"),
            ("010.0.0.1:080", "is 10.0.0.1:80 meant?"),
            ("[2001:db8::1%2]:80", "is [2001:db8::1]:80 meant?"),
            ("[fe80::1%2]:80", LINK_LOCAL),
            ("fe80::1%eth0", LINK_LOCAL),
            ("fe80::1", LINK_LOCAL),
            ("0.0.0.1:80", UNREACHABLE),
            ("255.255.255.255:80", UNREACHABLE),
            ("224.0.0.1", UNREACHABLE),
            ("[::]:80", UNREACHABLE),
            ("localhost", "a name; only addresses are read"),
            ("web-1:80", "a name; only addresses are read"),
            ("10.0.0.1:80;10.0.0.2:80", "several entries in one"),
        ] {
            assert_eq!(almost_peer(entry, 80).as_deref(), Some(meant), "{entry}");
        }
        let long = "1".repeat(LONGEST + 1);
        let hopeless = [
            "",
            "x",
            "garbage",
            "1.2.3.4.5",
            "10.0.0.1 80",
            "\u{e9}",
            &long,
        ];
        for entry in hopeless {
            assert_eq!(almost_gray(entry), None, "{entry}");
            assert_eq!(almost_peer(entry, 80), None, "{entry}");
        }
    }

    #[test]
    fn findings_name_their_list_and_entry() {
        let lists = lists(
            &[
                "10.0.0.1",
                "::ffff:10.0.0.1",
                "10.9.8.7/16",
                "10.0.0.0/24",
                "10.0.0",
                "172.16.0.1",
                "172.16.0.0/12",
                "192.168.0.0/16",
            ],
            &["10.1.0.1", "10.1.0.1:80", "10.1.0.2:81"],
            &["10.1.0.1", "10.1.0.2", "web1:80"],
        );
        let trusted =
            ["10.0.0.0/31", "172.16.0.1/32", "172.17.0.1/32"].map(|it| it.parse().unwrap());
        let findings = findings(&lists, &trusted);
        let told = |it: &Finding| {
            format!(
                "{} {} {}: {}",
                it.kind.name(),
                it.list.name(),
                it.entry,
                it.text
            )
        };
        let mut told: Vec<String> = findings.first.iter().map(told).collect();
        told.sort();
        assert_eq!(
            told,
            [
                "almost gray 10.0.0: is 10.0.0.0/24 meant?",
                "almost prod web1:80: a name; only addresses are read",
                "duplicate gray 10.0.0.1: stands more than once",
                "duplicate pre 10.1.0.1:80: stands more than once",
                "host-bits gray 10.9.8.7/16: has host bits; taken as 10.9.0.0/16",
                "in-both-pools pre 10.1.0.1:80: is in prod, too",
                "trusted-proxy-is-gray gray 10.0.0.0/24: covers a trusted proxy (10.0.0.0/31)",
                "trusted-proxy-is-gray gray 10.0.0.1: is a trusted proxy (10.0.0.0/31)",
                "trusted-proxy-is-gray gray 172.16.0.0/12: covers a trusted proxy (172.16.0.1)",
                "trusted-proxy-is-gray gray 172.16.0.1: is a trusted proxy (172.16.0.1)",
            ]
        );
        assert_eq!(findings.total(), told.len());
    }

    #[test]
    fn each_kind_is_counted_in_full_and_named_only_so_often() {
        let gray = (0..1000).map(|at| format!("10.0.{}.{}/31", at / 256, at % 256));
        let list = |entries: &mut dyn Iterator<Item = String>| Arc::new(GrayList::parse(entries));
        let none = || Arc::new(PeerList::default());
        let of = |gray| Lists::new(1, gray, none(), none());
        let lists = of(list(
            &mut gray.chain((0..500).map(|_| "1O.0.0.1".to_owned())),
        ));
        let findings = findings(&lists, &["10.0.0.0/8".parse().unwrap()]);
        let counts = Kind::ALL.map(|kind| findings.count(kind));
        assert_eq!(counts, [500, 0, 500, 500, 500]);
        assert_eq!(findings.first.len(), 4 * NAMED);
    }
}
