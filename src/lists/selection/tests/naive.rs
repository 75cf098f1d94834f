//! Entries held against a request one after the other, term by term, as one would who reads the docs: with
//! nothing of the real implementation but the types of the entries.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::SystemTime;

use ipnet::IpNet;

use crate::lists::rule::{Comparison, Part, Rule, ShareKey, Term, Test};

/// A request, split by somebody else.
pub(super) struct Naive {
    client: IpAddr,
    method: String,
    path: String,
    host: String,
    fields: HashMap<String, Vec<u8>>,
    cookies: HashMap<Vec<u8>, Vec<u8>>,
    queries: HashMap<Vec<u8>, Vec<u8>>,
    /// Who has come before.
    visitor: Option<Vec<u8>>,
    salt: Vec<u8>,
    now: SystemTime,
}

impl Naive {
    pub(super) fn of(client: IpAddr, head: &str, salt: &[u8], now: SystemTime) -> Self {
        let mut lines = head.split("\r\n").take_while(|it| !it.is_empty());
        let words: Vec<&str> = lines.next().unwrap().split(' ').collect();
        let target = words[1];
        let (authority, origin) = match target.strip_prefix("http://") {
            Some(rest) => {
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                (Some(&rest[..end]), &rest[end..])
            }
            None => (None, target),
        };
        let (path, query) = match origin.split_once('?') {
            Some((path, query)) => (path, query),
            None => (origin, ""),
        };
        let mut queries = HashMap::new();
        for part in query.split('&').filter(|it| !it.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            queries
                .entry(decoded(name))
                .or_insert_with(|| decoded(value));
        }
        let (mut fields, mut cookies) = (HashMap::new(), HashMap::new());
        let mut visitor = None;
        for line in lines {
            let (name, value) = line.split_once(':').unwrap();
            let value = value.trim_matches([' ', '\t']);
            if name.eq_ignore_ascii_case("cookie") {
                for pair in value.split(';') {
                    let Some((name, value)) = pair.split_once('=') else {
                        continue;
                    };
                    let (name, value) = (name.trim(), value.trim());
                    let is_id = value.len() == 16
                        && value.chars().all(|it| "0123456789abcdef".contains(it));
                    if name == "v" && visitor.is_none() && is_id {
                        visitor = Some(value.as_bytes().to_vec());
                    }
                    let name = name.as_bytes().to_vec();
                    cookies.entry(name).or_insert(value.as_bytes().to_vec());
                }
            }
            let name = name.to_lowercase();
            fields.entry(name).or_insert(value.as_bytes().to_vec());
        }
        let field_host = fields.get("host").cloned().unwrap_or_default();
        let host = authority.map_or(field_host, |it| it.as_bytes().to_vec());
        let mut host = String::from_utf8(host).unwrap().to_lowercase();
        match host.find(']') {
            Some(end) => host.truncate(end + 1),
            None => host.truncate(host.find(':').unwrap_or(host.len())),
        }
        let host = host.strip_suffix('.').unwrap_or(&host).to_owned();
        Self {
            client,
            method: words[0].to_owned(),
            path: if path.is_empty() { "/" } else { path }.to_owned(),
            host,
            fields,
            cookies,
            queries,
            visitor,
            salt: salt.to_vec(),
            now,
        }
    }

    /// The first that holds of those that exclude, or of the others: its place, and the bucket by the share
    /// that is tested first.
    pub(super) fn first(&self, rules: &[Rule], excludes: bool) -> Option<(usize, Option<u16>)> {
        let place = rules
            .iter()
            .position(|rule| rule.excludes == excludes && self.hold(rule))?;
        let share = |visitors: bool| {
            rules[place].terms.iter().find_map(|term| match term {
                Term::Share { by, .. } if (*by == ShareKey::Visitor) == visitors => self.bucket(by),
                _ => None,
            })
        };
        Some((place, share(false).or_else(|| share(true))))
    }

    /// True when all terms of a rule hold, and its end has not come.
    pub(super) fn hold(&self, rule: &Rule) -> bool {
        let lasts = rule.until.is_none_or(|until| self.now < until);
        lasts && rule.terms.iter().all(|it| self.holds(it))
    }

    /// True for who has come before.
    pub(super) fn is_visitor(&self) -> bool {
        self.visitor.is_some()
    }

    /// True when only the share of visitors is left to be looked at, of a rule that has one and lasts.
    fn asks_who(&self, rule: &Rule) -> bool {
        let lasts = rule.until.is_none_or(|until| self.now < until);
        let is_nobody = |it: &Term| matches!(it, Term::Share { limit: 0, .. });
        let (visitors, mut others): (Vec<&Term>, Vec<&Term>) =
            rule.terms.iter().partition(|it| is_of_visitors(it));
        others.retain(|it| !self.holds(it));
        lasts && !visitors.is_empty() && others.is_empty() && !rule.terms.iter().any(is_nobody)
    }

    /// Whether a stranger becomes a visitor by the rules that exclude, or by the others: certainly, and
    /// perhaps. Not by one of shares alone for whom a rule holds that goes before.
    pub(super) fn becomes_visitor(&self, rules: &[Rule], excludes: bool) -> [bool; 2] {
        let is_unsaid = |it: &Term| match it {
            Term::Share { by, .. } => !matches!(by, ShareKey::Part(_)),
            _ => false,
        };
        let rules = rules.iter().filter(|it| it.excludes == excludes);
        let (mut is_decided, mut certainly, mut perhaps) = (false, false, false);
        for rule in rules {
            let asks = self.asks_who(rule);
            certainly |= asks && !is_decided;
            perhaps |= asks && !(is_decided && rule.terms.iter().all(is_unsaid));
            is_decided |= self.hold(rule);
        }
        [certainly, perhaps]
    }

    pub(super) fn part(&self, part: &Part) -> Option<&[u8]> {
        match part {
            Part::Header(name) => self.fields.get(&**name).map(Vec::as_slice),
            Part::Cookie(name) => self.cookies.get(&**name).map(Vec::as_slice),
            Part::Query(name) => self.queries.get(&**name).map(Vec::as_slice),
            Part::Path => Some(self.path.as_bytes()),
            Part::Method => Some(self.method.as_bytes()),
            Part::Host => Some(self.host.as_bytes()),
        }
    }

    pub(super) fn holds(&self, term: &Term) -> bool {
        match term {
            Term::Everybody => true,
            Term::Net(net) => covers(*net, self.client),
            Term::Part(part, test) => self.part(part).is_some_and(|it| is_so(test, it)),
            Term::Share { limit, by } => self.bucket(by).is_some_and(|it| it < *limit),
        }
    }

    fn bucket(&self, by: &ShareKey) -> Option<u16> {
        let key = match by {
            ShareKey::Client => match self.client {
                IpAddr::V4(client) => client.octets().to_vec(),
                IpAddr::V6(client) => client.octets()[..8].to_vec(),
            },
            ShareKey::Visitor => {
                let visitor = self.visitor.clone();
                visitor.unwrap_or(b"0000000000000007".to_vec())
            }
            ShareKey::Part(part) => self.part(part)?.to_vec(),
        };
        (!key.is_empty()).then(|| (xxh64(&key, xxh64(&self.salt, 0)) % 10_000) as u16)
    }
}

/// True for a share of visitors.
pub(super) fn is_of_visitors(term: &Term) -> bool {
    matches!(
        term,
        Term::Share {
            by: ShareKey::Visitor,
            ..
        }
    )
}

pub(super) fn covers(net: IpNet, client: IpAddr) -> bool {
    let bits = |address| match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, 4),
        IpAddr::V6(address) => (u128::from(address), 6),
    };
    let ((net_bits, net_family), (client, family)) = (bits(net.addr()), bits(client));
    let differing = (net_bits ^ client).leading_zeros();
    net_family == family && differing >= u32::from(net.prefix_len())
}

fn is_so(test: &Test, value: &[u8]) -> bool {
    let lower = |text: &[u8]| {
        String::from_utf8_lossy(text)
            .to_ascii_lowercase()
            .into_bytes()
    };
    match test {
        Test::Present => true,
        Test::Is(text) => value == &**text,
        Test::IsInAnyCase(text) => lower(value) == lower(text),
        Test::Like {
            open_start,
            text,
            open_end,
            any_case,
        } => {
            let (value, text) = match any_case {
                true => (lower(value), lower(text)),
                false => (value.to_vec(), text.to_vec()),
            };
            (0..=value.len()).any(|start| {
                let Some(rest) = value[start..].strip_prefix(text.as_slice()) else {
                    return false;
                };
                (*open_start || start == 0) && (*open_end || rest.is_empty())
            })
        }
        Test::Version(comparison, version) => {
            if *comparison == Comparison::Equal && value == version.text.as_bytes() {
                return true;
            }
            let Some(order) = version_of(value).map(|it| order(it, version.numbers.to_vec()))
            else {
                return false;
            };
            match comparison {
                Comparison::Less => order == Ordering::Less,
                Comparison::AtMost => order != Ordering::Greater,
                Comparison::Equal => order == Ordering::Equal,
                Comparison::AtLeast => order != Ordering::Less,
                Comparison::Greater => order == Ordering::Greater,
            }
        }
    }
}

fn version_of(value: &[u8]) -> Option<Vec<u64>> {
    let text = std::str::from_utf8(value).ok()?;
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
    let numbers = text.split('.').map(|number| {
        let is_number = number.chars().all(|it| it.is_ascii_digit()) && number.len() <= 18;
        is_number.then(|| number.parse().ok()).flatten()
    });
    numbers.collect()
}

fn order(mut one: Vec<u64>, mut other: Vec<u64>) -> Ordering {
    let length = one.len().max(other.len());
    one.resize(length, 0);
    other.resize(length, 0);
    one.cmp(&other)
}

fn decoded(text: &str) -> Vec<u8> {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 3);
        let code = code.filter(|it| it.iter().all(u8::is_ascii_hexdigit));
        match (bytes[at], code) {
            (b'+', _) => out.push(b' '),
            (b'%', Some(code)) => {
                let code = std::str::from_utf8(code).unwrap();
                out.push(u8::from_str_radix(code, 16).unwrap());
                at += 2;
            }
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    out
}

/// XXH64, as its specification has it.
fn xxh64(bytes: &[u8], seed: u64) -> u64 {
    const P: [u64; 5] = [
        0x9e37_79b1_85eb_ca87,
        0xc2b2_ae3d_27d4_eb4f,
        0x1656_67b1_9e37_79f9,
        0x85eb_ca77_c2b2_ae63,
        0x27d4_eb2f_1656_67c5,
    ];
    let mul = u64::wrapping_mul;
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let round =
        |lane: u64, input: u64| mul(lane.wrapping_add(mul(input, P[1])).rotate_left(31), P[0]);
    let stripes = bytes.chunks_exact(32);
    let mut rest = stripes.remainder();
    let mut hash = seed.wrapping_add(P[4]);
    if bytes.len() >= 32 {
        let mut lanes = [
            seed.wrapping_add(P[0]).wrapping_add(P[1]),
            seed.wrapping_add(P[1]),
            seed,
            seed.wrapping_sub(P[0]),
        ];
        for stripe in stripes {
            for (lane, input) in lanes.iter_mut().zip(stripe.chunks_exact(8)) {
                *lane = round(*lane, word(input));
            }
        }
        let turned = lanes.iter().zip([1, 7, 12, 18]);
        hash = turned.fold(0, |sum, (lane, by)| sum.wrapping_add(lane.rotate_left(by)));
        for lane in lanes {
            hash = mul(hash ^ round(0, lane), P[0]).wrapping_add(P[3]);
        }
    }
    hash = hash.wrapping_add(bytes.len() as u64);
    while let Some((eight, behind)) = rest.split_first_chunk::<8>() {
        hash ^= round(0, u64::from_le_bytes(*eight));
        hash = mul(hash.rotate_left(27), P[0]).wrapping_add(P[3]);
        rest = behind;
    }
    if let Some((four, behind)) = rest.split_first_chunk::<4>() {
        hash ^= mul(u64::from(u32::from_le_bytes(*four)), P[0]);
        hash = mul(hash.rotate_left(23), P[1]).wrapping_add(P[2]);
        rest = behind;
    }
    for byte in rest {
        hash ^= mul(u64::from(*byte), P[4]);
        hash = mul(hash.rotate_left(11), P[0]);
    }
    hash = mul(hash ^ hash >> 33, P[1]);
    hash = mul(hash ^ hash >> 29, P[2]);
    hash ^ hash >> 32
}
