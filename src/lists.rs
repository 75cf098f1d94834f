//! The three lists as one immutable value: who is gray, and where `pre` and `prod` are.
//!
//! A store hands over entries as text; here they are parsed, one parser for each kind of entry,
//! and put into the form that a request needs: ranges to search, addresses to choose from. An
//! entry that cannot be read is skipped and named; it never empties a list. Entries are sets:
//! their order and repetition mean nothing.
//!
//! Not here: where entries come from and when ([`crate::store`]); who is served by whom
//! ([`crate::route`]). No clock, no I/O.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use sha2::{Digest as _, Sha256};

/// The names of the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListName {
    /// The clients that get the new version.
    Gray,
    /// The peers of the new version.
    Pre,
    /// The peers of the old version.
    Prod,
}

impl ListName {
    /// Every list, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::Gray, Self::Pre, Self::Prod];

    /// The name in files, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gray => "gray",
            Self::Pre => "pre",
            Self::Prod => "prod",
        }
    }
}

/// One snapshot of all three lists.
#[derive(Clone, Debug)]
pub struct Lists {
    /// Counts the snapshots of this process; 0 is the one that stands for "nothing read yet".
    pub generation: u64,
    /// A hash of the content: equal on every gateway that holds the same lists.
    pub digest: Digest,
    /// The clients that get the new version.
    pub gray: Arc<GrayList>,
    /// The peers of the new version.
    pub pre: Arc<PeerList>,
    /// The peers of the old version.
    pub prod: Arc<PeerList>,
}

impl Lists {
    /// What is in force before anything was read.
    pub fn unread() -> Self {
        Self::new(0, Arc::default(), Arc::default(), Arc::default())
    }

    /// One snapshot of these lists.
    pub fn new(
        generation: u64,
        gray: Arc<GrayList>,
        pre: Arc<PeerList>,
        prod: Arc<PeerList>,
    ) -> Self {
        let digest = Digest::of(&gray, &pre, &prod);
        Self {
            generation,
            digest,
            gray,
            pre,
            prod,
        }
    }

    /// False before anything was read.
    pub fn are_read(&self) -> bool {
        self.generation > 0
    }

    /// How many entries a list has.
    pub fn len(&self, list: ListName) -> usize {
        match list {
            ListName::Gray => self.gray.entries.len(),
            ListName::Pre => self.pre.peers.len(),
            ListName::Prod => self.prod.peers.len(),
        }
    }

    /// What was skipped when a list was read.
    pub fn skipped(&self, list: ListName) -> &Skipped {
        match list {
            ListName::Gray => self.gray.skipped(),
            ListName::Pre => self.pre.skipped(),
            ListName::Prod => self.prod.skipped(),
        }
    }
}

/// A hash of the lists' content: the first 64 bits of the SHA-256 of all entries in their sorted,
/// canonical form. Displayed as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    fn of(gray: &GrayList, pre: &PeerList, prod: &PeerList) -> Self {
        let mut text = Vec::new();
        put_entries(&mut text, ListName::Gray, &gray.entries);
        put_entries(&mut text, ListName::Pre, &pre.peers);
        put_entries(&mut text, ListName::Prod, &prod.peers);
        Self::of_text(&text)
    }

    /// Of one list alone.
    fn of_list(list: ListName, entries: &[impl fmt::Display]) -> Self {
        let mut text = Vec::new();
        put_entries(&mut text, list, entries);
        Self::of_text(&text)
    }

    fn of_text(text: &[u8]) -> Self {
        let hash = Sha256::digest(text);
        let first = hash.first_chunk().copied().unwrap_or_default();
        Self(u64::from_be_bytes(first))
    }
}

fn put_entries(text: &mut Vec<u8>, list: ListName, entries: &[impl fmt::Display]) {
    use std::io::Write;
    // A Vec takes whatever is written.
    let _ = writeln!(text, "[{}]", list.name());
    for entry in entries {
        let _ = writeln!(text, "{entry}");
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Entries of one list that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many there are.
    pub count: usize,
    /// The first of them, at most 100.
    pub first: Vec<SkippedEntry>,
}

/// So many skipped entries are named.
const SKIPPED_NAMED: usize = 100;

/// So much of a skipped entry is shown.
const SKIPPED_LENGTH: usize = 100;

/// An entry that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedEntry {
    /// The entry, with everything escaped that is no printable ASCII, cut to 100 bytes.
    pub entry: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Skipped {
    fn add(&mut self, entry: &[u8], reason: &'static str) {
        self.count += 1;
        if self.first.len() < SKIPPED_NAMED {
            let shown = &entry[..entry.len().min(SKIPPED_LENGTH)];
            let entry = shown.escape_ascii().to_string();
            self.first.push(SkippedEntry { entry, reason });
        }
    }
}

/// The clients that get the new version.
#[derive(Clone, Debug, Default)]
pub struct GrayList {
    /// The entries, sorted and without repetition; an address is a net of one.
    entries: Box<[IpNet]>,
    v4: Ranges<Ipv4Addr>,
    v6: Ranges<Ipv6Addr>,
    skipped: Skipped,
}

impl GrayList {
    /// Reads entries: an address, or a net in CIDR notation (RFC 4632, RFC 4291).
    pub fn parse<E: AsRef<[u8]>>(texts: impl IntoIterator<Item = E>) -> Self {
        let (entries, skipped) = parse_all(texts, gray_entry);
        let v4 = entries.iter().filter_map(|net| match net {
            IpNet::V4(net) => Some((net.network(), net.broadcast())),
            IpNet::V6(_) => None,
        });
        let v6 = entries.iter().filter_map(|net| match net {
            IpNet::V6(net) => Some((net.network(), net.broadcast())),
            IpNet::V4(_) => None,
        });
        Self {
            v4: Ranges::new(v4),
            v6: Ranges::new(v6),
            entries,
            skipped,
        }
    }

    /// True when an entry covers `client`, which is compared as an address and never as text. An
    /// IPv4-mapped IPv6 client must have been made IPv4 before.
    pub fn contains(&self, client: IpAddr) -> bool {
        match client {
            IpAddr::V4(address) => self.v4.contain(address),
            IpAddr::V6(address) => self.v6.contain(address),
        }
    }

    /// True when there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What could not be read.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// These entries, with what could not be read of another list.
    pub fn with_skipped_of(&self, other: &Self) -> Self {
        Self {
            skipped: other.skipped.clone(),
            ..self.clone()
        }
    }

    /// True when `net` itself is an entry.
    pub fn has(&self, net: &IpNet) -> bool {
        self.entries.binary_search(net).is_ok()
    }

    /// A hash of this list alone.
    pub fn digest(&self) -> Digest {
        Digest::of_list(ListName::Gray, &self.entries)
    }

    /// The entries in their canonical form: an address, or `network/length`.
    pub fn entries(&self) -> impl Iterator<Item = String> {
        self.entries.iter().map(|net| {
            if net.prefix_len() == net.max_prefix_len() {
                net.addr().to_string()
            } else {
                net.to_string()
            }
        })
    }
}

/// The peers of a pool.
#[derive(Clone, Debug, Default)]
pub struct PeerList {
    peers: Box<[SocketAddr]>,
    skipped: Skipped,
}

impl PeerList {
    /// Reads entries: `ip`, `ip:port` or `[v6]:port`; without a port it is `default_port`.
    pub fn parse<E: AsRef<[u8]>>(texts: impl IntoIterator<Item = E>, default_port: u16) -> Self {
        let (peers, skipped) = parse_all(texts, |text| peer_entry(text, default_port));
        Self { peers, skipped }
    }

    /// A hash of these peers alone, as those of `list`.
    pub fn digest(&self, list: ListName) -> Digest {
        Digest::of_list(list, &self.peers)
    }

    /// The peers, sorted and without repetition.
    pub fn peers(&self) -> &[SocketAddr] {
        &self.peers
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// What could not be read.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// These entries, with what could not be read of another list.
    pub fn with_skipped_of(&self, other: &Self) -> Self {
        Self {
            skipped: other.skipped.clone(),
            ..self.clone()
        }
    }
}

fn parse_all<E: AsRef<[u8]>, T: Ord>(
    texts: impl IntoIterator<Item = E>,
    parse: impl Fn(&str) -> Result<T, &'static str>,
) -> (Box<[T]>, Skipped) {
    let (mut entries, mut skipped) = (Vec::new(), Skipped::default());
    for text in texts {
        let bytes = text.as_ref();
        let parsed = match std::str::from_utf8(bytes) {
            Ok(text) => parse(text.trim_ascii()),
            Err(_) => Err("not text"),
        };
        match parsed {
            Ok(entry) => entries.push(entry),
            Err(reason) => skipped.add(bytes, reason),
        }
    }
    entries.sort_unstable();
    entries.dedup();
    (entries.into_boxed_slice(), skipped)
}

/// Reads one entry of the gray list. Host bits in a net are cleared.
///
/// # Errors
/// What is wrong with it.
pub fn gray_entry(text: &str) -> Result<IpNet, &'static str> {
    let net = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text
            .parse::<IpNet>()
            .map_err(|_| "neither an IP address nor a net like 10.0.0.0/8")?,
    };
    Ok(unmapped(net).trunc())
}

/// The IPv4 form of a net of IPv4-mapped IPv6 addresses (RFC 4291 section 2.5.5.2).
fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let length = v6.prefix_len().checked_sub(96);
    match (v6.addr().to_ipv4_mapped(), length) {
        (Some(address), Some(length)) => Ipv4Net::new(address, length).map_or(net, IpNet::V4),
        _ => net,
    }
}

/// Reads one entry of a pool.
///
/// # Errors
/// What is wrong with it.
pub fn peer_entry(text: &str, default_port: u16) -> Result<SocketAddr, &'static str> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .map(|v6| v6.parse::<Ipv6Addr>().map(IpAddr::V6));
    let address = match bare {
        Some(Ok(address)) => Some(address),
        _ => text.parse::<IpAddr>().ok(),
    };
    let peer = match address {
        Some(address) => SocketAddr::new(address, default_port),
        None => text
            .parse::<SocketAddr>()
            .map_err(|_| "neither `ip`, `ip:port` nor `[v6]:port`")?,
    };
    let address = peer.ip().to_canonical();
    if address.is_unspecified() || address.is_multicast() {
        return Err("no address that can be connected to");
    }
    if peer.port() == 0 {
        return Err("port 0");
    }
    Ok(SocketAddr::new(address, peer.port()))
}

/// Disjoint ranges of addresses, sorted: two arrays, so that a search touches little memory.
#[derive(Clone, Debug)]
struct Ranges<A> {
    first: Box<[A]>,
    last: Box<[A]>,
}

impl<A> Default for Ranges<A> {
    fn default() -> Self {
        Self {
            first: Box::default(),
            last: Box::default(),
        }
    }
}

impl<A: Ord + Copy> Ranges<A> {
    /// The ranges, given sorted by their first address. Nets are nested or disjoint, so a range
    /// is dropped when the one before covers it.
    fn new(ranges: impl Iterator<Item = (A, A)>) -> Self {
        let (mut firsts, mut lasts): (Vec<A>, Vec<A>) = (Vec::new(), Vec::new());
        for (first, last) in ranges {
            if lasts.last().is_none_or(|before| *before < first) {
                firsts.push(first);
                lasts.push(last);
            }
        }
        Self {
            first: firsts.into_boxed_slice(),
            last: lasts.into_boxed_slice(),
        }
    }

    fn contain(&self, address: A) -> bool {
        let after = self.first.partition_point(|first| *first <= address);
        after
            .checked_sub(1)
            .is_some_and(|at| address <= self.last[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gray(entries: &[&str]) -> GrayList {
        GrayList::parse(entries)
    }

    fn lists(gray: &[&str], pre: &[&str], prod: &[&str]) -> Lists {
        let peers = |entries: &[&str]| Arc::new(PeerList::parse(entries, 80));
        Lists::new(1, Arc::new(GrayList::parse(gray)), peers(pre), peers(prod))
    }

    #[test]
    fn clients_are_matched_as_addresses_and_never_as_text() {
        let list = gray(&[
            "192.168.1.1",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "172.16.5.9/12",
            "2001:db8::/32",
            "::1",
            "::ffff:203.0.113.7",
            "::ffff:198.51.100.0/120",
        ]);
        let table = [
            ("192.168.1.1", true),
            ("192.168.1.10", false),
            ("192.168.1.0", false),
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("10.200.0.1", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("172.16.0.0", true),
            ("172.31.255.255", true),
            ("172.32.0.0", false),
            ("203.0.113.7", true),
            ("198.51.100.255", true),
            ("198.51.101.0", false),
            ("::1", true),
            ("::2", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
        ];
        for (client, expected) in table {
            assert_eq!(list.contains(client.parse().unwrap()), expected, "{client}");
        }
        assert_eq!(list.skipped, Skipped::default());
    }

    #[test]
    fn everything_and_nothing_are_lists_too() {
        let all = gray(&["0.0.0.0/0", "1.2.3.4", "::/0"]);
        for client in ["0.0.0.0", "255.255.255.255", "::", "ffff::ffff"] {
            assert!(all.contains(client.parse().unwrap()));
            assert!(!gray(&[]).contains(client.parse().unwrap()));
        }
    }

    #[test]
    fn what_cannot_be_read_is_skipped_and_named() {
        let bad: &[&[u8]] = &[
            b"",
            b"1.2.3",
            b"1.2.3.4.5",
            b"01.2.3.4",
            b"1.2.3.4/33",
            b"10.0.0.0/-1",
            b"host",
            b"1.2.3.4 5.6.7.8",
            b"\xff\x1b",
        ];
        let list = GrayList::parse(bad.iter().copied().chain([&b" 1.2.3.4 "[..]]));
        assert!(list.contains([1, 2, 3, 4].into()));
        assert_eq!(list.skipped.count, bad.len());
        let named: Vec<&str> = list.skipped.first.iter().map(|it| &*it.entry).collect();
        assert_eq!(named.last(), Some(&r"\xff\x1b"));
        let many = GrayList::parse(vec!["x".repeat(1000); 1000]);
        assert_eq!((many.skipped.count, many.skipped.first.len()), (1000, 100));
        assert_eq!(many.skipped.first[0].entry.len(), 100);
    }

    #[test]
    fn peers_have_a_port_of_their_own_or_the_default_one() {
        let table = [
            ("10.0.0.1", Some("10.0.0.1:8000")),
            ("10.0.0.1:81", Some("10.0.0.1:81")),
            ("::1", Some("[::1]:8000")),
            ("[::1]", Some("[::1]:8000")),
            ("[::1]:81", Some("[::1]:81")),
            ("::ffff:10.0.0.1", Some("10.0.0.1:8000")),
            ("10.0.0.1:0", None),
            ("10.0.0.1:65536", None),
            ("10.0.0.1:", None),
            ("0.0.0.0", None),
            ("[::]:80", None),
            ("224.0.0.1", None),
            ("localhost", None),
            ("http://10.0.0.1", None),
        ];
        for (text, expected) in table {
            let peer = peer_entry(text, 8000).ok().map(|it| it.to_string());
            assert_eq!(peer.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_digest_is_of_the_content_and_of_nothing_else() {
        let one = lists(&["1.1.1.1", "2.2.2.0/24"], &["3.3.3.3"], &["4.4.4.4"]);
        let same = lists(
            &["2.2.2.9/24", "::ffff:1.1.1.1", "1.1.1.1", "garbage"],
            &["3.3.3.3:80", "3.3.3.3"],
            &["4.4.4.4"],
        );
        assert_eq!(one.digest, same.digest);
        assert_eq!(one.digest.to_string().len(), 16);
        for other in [
            lists(&["1.1.1.1"], &["3.3.3.3"], &["4.4.4.4"]),
            lists(&["1.1.1.1", "2.2.2.0/24"], &["4.4.4.4"], &["3.3.3.3"]),
            lists(&["1.1.1.1", "2.2.2.0/24"], &["3.3.3.3:81"], &["4.4.4.4"]),
        ] {
            assert_ne!(one.digest, other.digest);
        }
    }
}
