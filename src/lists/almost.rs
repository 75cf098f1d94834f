//! What an entry that cannot be read may be meant to be: a list of repairs, each for one mistake, which
//! are applied until the entry can be read.

mod terms;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use self::terms::Repair;
use crate::lists::entry::{LINK_LOCAL, UNREACHABLE, canonical, digits};
use crate::lists::{Place, gray_entry, net_entry, peer_entry};

/// What an unreadable entry of the gray list may be meant to be.
pub(crate) fn almost_gray(text: &str) -> Option<String> {
    if terms::has_terms(text) {
        let reads = |text: &str| gray_entry(text).is_ok();
        let trial = RepairTrial {
            repairs: &[terms::TERM_REPAIRS],
            reads: &reads,
            shows: &str::to_owned,
        };
        return almost(text, text, &reads, &[trial]);
    }
    let reads = |text: &str| net_entry(text).is_ok();
    let trial = RepairTrial {
        repairs: &[REPAIRS, GRAY_REPAIRS],
        reads: &reads,
        shows: &str::to_owned,
    };
    let meant = range(text).or_else(|| almost(text, text, &reads, &[trial]));
    let is_name = || text.len() <= LONGEST && is_host(&without_scheme(text));
    meant.or_else(|| is_name().then(|| "a name; only addresses are read".to_owned()))
}

/// What an unreadable entry of a pool may be meant to be.
pub(in crate::lists) fn almost_peer(text: &str, default_port: u16) -> Option<String> {
    let reads = |text: &str| peer_entry(text, default_port).is_ok();
    let (server, attributes) = parts(text);
    if let Some((address, port)) = server.rsplit_once(':')
        && reads(address)
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && !port.is_empty()
        && !matches!(port.parse(), Ok(1..=u16::MAX))
    {
        return Some("a port is a number from 1 to 65535".to_owned());
    }
    // An address that no repair can turn into a server's.
    if let Err(reason) = peer_entry(&without_zone(&server), default_port)
        && [UNREACHABLE, LINK_LOCAL].contains(&&*reason)
    {
        return Some(reason.into_owned());
    }
    if range(&server).is_some() {
        return Some("a range; each server has an entry of its own".to_owned());
    }
    let with_attributes = |server: &str| format!("{server}{attributes}");
    // Of an address first: most repairs of what is almost one would make a strange name of a name.
    let is_of_address = |text: &str| matches!(peer_entry(text, default_port), Ok(it) if matches!(it.place(), Place::Address(_)));
    let address = RepairTrial {
        repairs: &[REPAIRS, PEER_REPAIRS],
        reads: &|server| is_of_address(&with_attributes(server)),
        shows: &with_attributes,
    };
    let name = RepairTrial {
        repairs: &[NAME_REPAIRS],
        reads: &|server| reads(&with_attributes(server)),
        shows: &with_attributes,
    };
    almost(text, &server, &reads, &[address, name])
}

/// A server and its attributes, which begin with a blank if there are any. Between them, and within an
/// attribute, may stand what other programs have there.
fn parts(text: &str) -> (String, String) {
    let Some(at) = text.to_ascii_lowercase().find("weight") else {
        return (text.to_owned(), String::new());
    };
    let between = |it: char| it.is_whitespace() || matches!(it, ',' | ';');
    let (server, attributes) = text.split_at(at);
    let words = attributes.split(|it: char| between(it) || matches!(it, '=' | ':'));
    let words: Vec<String> = words
        .filter(|it| !it.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    match &words[..] {
        [name, value] if server.ends_with(between) => {
            let server = server.trim_end_matches(between);
            (server.to_owned(), format!(" {name}={value}"))
        }
        _ => (text.to_owned(), String::new()),
    }
}

/// No entry that can be read is longer than this, and by far no repair of it.
const LONGEST: usize = 100;

/// Repairs to be tried one after the other, since an entry may have several faults.
struct RepairTrial<'a> {
    repairs: &'a [&'a [Repair]],
    /// Whether an entry is good by now.
    reads: &'a dyn Fn(&str) -> bool,
    /// As it is shown then.
    shows: &'a dyn Fn(&str) -> String,
}

/// What may be meant by an entry, of which `repaired` is what repairs are for.
fn almost(
    text: &str,
    repaired: &str,
    reads: &dyn Fn(&str) -> bool,
    trials: &[RepairTrial<'_>],
) -> Option<String> {
    if text.is_empty() || text.len() > LONGEST {
        return None;
    }
    let between = |it: char| it.is_whitespace() || matches!(it, ',' | ';');
    // `server` is the keyword of others.
    let is_server = |it: &&str| !it.is_empty() && !it.starts_with("weight=") && *it != "server";
    let mut parts = text.split(between).filter(is_server).peekable();
    if parts.clone().nth(1).is_some() && parts.all(reads) {
        return Some("several entries in one".to_owned());
    }
    for trial in trials {
        let mut server = repaired.to_owned();
        for repair in trial.repairs.iter().copied().flatten() {
            server = repair(&server);
            let shown = (trial.shows)(&server);
            if shown != text && (trial.reads)(&server) {
                return Some(format!("is {shown} meant?"));
            }
        }
        if has_large_octet(&server) {
            return Some("a number in an IPv4 address is from 0 to 255".to_owned());
        }
    }
    None
}

/// `10.0.0.256`, perhaps with a port or a length: there is no telling what is meant.
fn has_large_octet(text: &str) -> bool {
    let (address, _) = text.split_once(['/', ':']).unwrap_or((text, ""));
    let is_number = |it: &str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit());
    let is_large = |it: &str| it.parse::<u8>().is_err();
    let parts = || address.split('.');
    parts().count() == 4 && parts().all(is_number) && parts().any(is_large)
}

/// Most nets that are named for a range.
const RANGE_NAMED: usize = 8;

/// `10.0.0.1-10.0.0.5`, `10.0.0.1 - 5`: suggests the equivalent nets.
fn range(text: &str) -> Option<String> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (first.trim_ascii(), last.trim_ascii());
    match first.parse::<IpAddr>().ok()? {
        IpAddr::V4(first) => {
            let of_last_octet = |octet| {
                let [a, b, c, _] = first.octets();
                Ipv4Addr::from([a, b, c, octet])
            };
            let octet = last.parse().ok().map(of_last_octet);
            let last = octet.or_else(|| last.parse().ok())?;
            Some(as_nets(first <= last, Ipv4Subnets::new(first, last, 0)))
        }
        IpAddr::V6(first) => {
            let last: Ipv6Addr = last.parse().ok()?;
            Some(as_nets(first <= last, Ipv6Subnets::new(first, last, 0)))
        }
    }
}

fn as_nets(is_forward: bool, nets: impl Iterator<Item: Into<IpNet>>) -> String {
    let named = nets.take(RANGE_NAMED + 1).map(|net| canonical(net.into()));
    let named: Vec<String> = named.collect();
    match named.len() {
        1..=RANGE_NAMED if is_forward => format!("a range; as entries: {}", named.join(", ")),
        _ => "a range; only addresses and nets like 10.0.0.0/8 are read".to_owned(),
    }
}

/// Those of any entry.
const REPAIRS: &[Repair] = &[
    without_comment,
    without_keyword,
    without_frame,
    without_scheme,
    without_gaps,
    dotted,
    single_gap,
    digits,
    without_leading_zeros,
    without_zone,
];

/// Those of the gray list, behind [`REPAIRS`].
const GRAY_REPAIRS: &[Repair] = &[without_port, wildcard, length_in_bounds];

/// Those of a pool, behind [`REPAIRS`].
const PEER_REPAIRS: &[Repair] = &[without_path, in_brackets, without_brackets];

/// Those of a pool's entry with a name.
const NAME_REPAIRS: &[Repair] = &[
    without_comment,
    without_keyword,
    without_frame,
    without_scheme,
    without_path,
    without_brackets,
];

/// `10.0.0.1#office`, `10.0.0.1 # office`.
fn without_comment(text: &str) -> String {
    let (entry, _) = text.split_once('#').unwrap_or((text, ""));
    entry.trim_ascii_end().to_owned()
}

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

/// `2001:db8:::1`.
fn single_gap(text: &str) -> String {
    text.replace(":::", "::")
}

/// `server app1.internal`, as nginx has it.
fn without_keyword(text: &str) -> String {
    let (first, rest) = text.split_once(' ').unwrap_or(("", text));
    match first {
        "server" => rest.trim_start().to_owned(),
        _ => text.to_owned(),
    }
}

/// `010.0.0.1`, `10.0.0.0/08`, `[::1]:080`.
fn without_leading_zeros(text: &str) -> String {
    let (address, mark, number) = match text.rfind(['/', ':']) {
        // Otherwise it is the end of an IPv6 address, where leading zeros have no effect.
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

/// `2001:db8::1:50051`, if what follows the last colon cannot be the end of an address.
fn in_brackets(text: &str) -> String {
    match text.rsplit_once(':') {
        Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() => {
            format!("[{address}]:{port}")
        }
        _ => text.to_owned(),
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
    use super::*;

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
            ("1.2.3.4#office", "is 1.2.3.4 meant?"),
            ("10.0.0.0/8 # all of it", "is 10.0.0.0/8 meant?"),
            ("2001:db8:::1", "is 2001:db8::1 meant?"),
            ("1.2.3.256", "a number in an IPv4 address is from 0 to 255"),
            (
                "1.2.300.0/24",
                "a number in an IPv4 address is from 0 to 255",
            ),
            (
                "10.0.0.1-10.0.0.5",
                "a range; as entries: 10.0.0.1, 10.0.0.2/31, 10.0.0.4/31",
            ),
            ("10.0.0.0 - 255", "a range; as entries: 10.0.0.0/24"),
            (
                "2001:db8::-2001:db8::1",
                "a range; as entries: 2001:db8::/127",
            ),
            (
                "10.0.0.5-10.0.0.1",
                "a range; only addresses and nets like 10.0.0.0/8 are read",
            ),
            (
                "10.0.0.1-10.255.255.254",
                "a range; only addresses and nets like 10.0.0.0/8 are read",
            ),
            ("client.example", "a name; only addresses are read"),
            ("Header:X-User=alice", "is header:X-User=alice meant?"),
            ("header:X-User: alice", "is header:X-User=alice meant?"),
            ("header:X-User:alice", "is header:X-User=alice meant?"),
            ("header: X-User=alice", "is header:X-User=alice meant?"),
            ("header:X-User = alice", "is header:X-User=alice meant?"),
            ("header=X-User=alice", "is header:X-User=alice meant?"),
            ("headers:X-User=alice", "is header:X-User=alice meant?"),
            ("\"header:X-User=alice\"", "is header:X-User=alice meant?"),
            (
                "header:X-User='al ice'",
                "is header:X-User=\"al ice\" meant?",
            ),
            ("cookie:a==b", "is cookie:a=b meant?"),
            ("cookie:uid: 42", "is cookie:uid=42 meant?"),
            ("header:X-V=>2.1", "is header:X-V>=2.1 meant?"),
            ("header:X-V=~beta", "is header:X-V~beta meant?"),
            ("arg:version=2", "is query:version=2 meant?"),
            ("percent:5%", "is percent:5 meant?"),
            ("percent=5%:cookie:uid", "is percent:5:cookie:uid meant?"),
            ("5%", "is percent:5 meant?"),
            ("ip:10.0.0.1", "is 10.0.0.1 meant?"),
            ("! 10.0.0.1", "is !10.0.0.1 meant?"),
            ("!ip:10.0.0.0/8", "is !10.0.0.0/8 meant?"),
            ("path:v2/*", "is path:/v2/* meant?"),
            (
                "host:shop.example.com:443",
                "is host:shop.example.com meant?",
            ),
            ("header:A && cookie:b", "is header:A cookie:b meant?"),
            ("header:A # testers", "is header:A meant?"),
            ("* until=2026-12-01", "is * until=2026-12-01T00:00Z meant?"),
            (
                "* until=2026-12-01 18:00",
                "is * until=2026-12-01T18:00Z meant?",
            ),
            (
                "* until=2026-12-01T18:00",
                "is * until=2026-12-01T18:00Z meant?",
            ),
            (
                "* Until=2026-12-01T18:00Z",
                "is * until=2026-12-01T18:00Z meant?",
            ),
            ("* note: office", "is * note=office meant?"),
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
            ("10.0.0.1:80#first", "is 10.0.0.1:80 meant?"),
            ("[2001:db8:::1]:80", "is [2001:db8::1]:80 meant?"),
            ("2001:db8::1:50051", "is [2001:db8::1]:50051 meant?"),
            (
                "10.0.0.256:80",
                "a number in an IPv4 address is from 0 to 255",
            ),
            (
                "10.0.0.1-10.0.0.5",
                "a range; each server has an entry of its own",
            ),
            ("192.168.1.1O", "is 192.168.1.10 meant?"),
            ("10.0.0.1-5", "a range; each server has an entry of its own"),
            ("010.0.0.1:80 weight=3", "is 10.0.0.1:80 weight=3 meant?"),
            ("10.0.0.1:80 weight 3", "is 10.0.0.1:80 weight=3 meant?"),
            ("10.0.0.1:80 weight = 3", "is 10.0.0.1:80 weight=3 meant?"),
            ("10.0.0.1:80;weight=3", "is 10.0.0.1:80 weight=3 meant?"),
            ("10.0.0.1:80 Weight=3", "is 10.0.0.1:80 weight=3 meant?"),
            (
                "server 10.0.0.1:80 weight=3;",
                "is 10.0.0.1:80 weight=3 meant?",
            ),
            ("server app1:80;", "is app1:80 meant?"),
            ("http://app1.internal:80/", "is app1.internal:80 meant?"),
            ("[app1]:80", "is app1:80 meant?"),
            ("app1:80 # first", "is app1:80 meant?"),
            ("app1.internal:99999", "a port is a number from 1 to 65535"),
            ("app1.internal, app2.internal", "several entries in one"),
            ("app1 weight=2, app2 weight=3", "several entries in one"),
            ("10.0.0.1:80;10.0.0.2:80", "several entries in one"),
        ] {
            assert_eq!(almost_peer(entry, 80).as_deref(), Some(meant), "{entry}");
        }
        let long = "1".repeat(LONGEST + 1);
        let hopeless = [
            "",
            "garbage!",
            "10.0.0.1 weight=0",
            "1.2.3.4.5",
            "10.0.0.1 80",
            "\u{e9}",
            &long,
        ];
        for entry in hopeless {
            assert_eq!(almost_gray(entry), None, "{entry}");
            assert_eq!(almost_peer(entry, 80), None, "{entry}");
        }
        for entry in [
            "!",
            "* until=+2h",
            "percent:101",
            "percent:5:cookie",
            "header:X=a*b",
            "header:",
            "path:/a?b",
        ] {
            assert_eq!(almost_gray(entry), None, "{entry}");
        }
    }
}
