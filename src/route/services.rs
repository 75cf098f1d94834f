//! Which service a request belongs to, by its host and its path.
//!
//! In this order: the services with this very host; those with a suffix of it (`*.example.com`), the longest
//! first; those without hosts. Of the services that a step finds, the one with the longest path counts that
//! the request's path begins with; where none does, the next step is next. A path ends at the end of a
//! segment: `/v2` holds for `/v2` and `/v2/x`, not for `/v20`. What is no service's is the default one's,
//! unless that does not take it.
//!
//! Hosts are compared without regard to case and to a dot at the end, IPv6 addresses by value. Paths are
//! compared as they were sent: neither escapes nor dots in them are resolved, since the server gets them so.
//!
//! A look-up allocates nothing. It costs one hash of the host for each of its labels at most, and in each
//! step a binary search among the paths. With the default service only, it is one branch.

use std::cmp::Ordering;
use std::net::Ipv6Addr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::config::{HostPattern, ServiceSettings};
use crate::error::Refusal;

/// The longest host that a service can have, in bytes (RFC 1035 section 2.3.4).
const LONGEST: usize = 253;

/// Hosts and paths, with the services that they belong to. Services are meant by their index in the slice
/// that it was built from.
#[derive(Debug)]
pub struct ServiceTable(Option<Hosts>);

/// Why a request belongs to no service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownService {
    /// No service has its host.
    Host,
    /// Services have its host, but none its path.
    Path,
}

impl UnknownService {
    /// What the request is refused for.
    pub const fn refusal(self) -> Refusal {
        match self {
            Self::Host => Refusal::UnknownHost,
            Self::Path => Refusal::UnknownPath,
        }
    }
}

#[derive(Debug, Default)]
struct Hosts {
    /// In lower case, without a dot at the end.
    exact: FxHashMap<Box<[u8]>, Paths>,
    v6: FxHashMap<Ipv6Addr, Paths>,
    /// In lower case; each begins with a dot.
    suffixes: FxHashMap<Box<[u8]>, Paths>,
    longest_suffix: usize,
    /// Of the services without hosts.
    any: Option<Paths>,
    /// The service of what is no other's.
    rest: Option<usize>,
}

impl ServiceTable {
    /// Of these services, the first of which is the default one.
    pub fn new(services: &[Arc<ServiceSettings>]) -> Self {
        let Some((default, others)) = services.split_first() else {
            return Self(None);
        };
        if others.is_empty() && default.takes_rest {
            return Self(None);
        }
        let mut collected = Hosts {
            rest: default.takes_rest.then_some(0),
            ..Hosts::default()
        };
        for (index, service) in (1..).zip(others) {
            for host in &service.hosts {
                collected.paths_of(host).add(service, index);
            }
            if service.hosts.is_empty() {
                collected.any.get_or_insert_default().add(service, index);
            }
        }
        collected.each(Paths::sort);
        Self(Some(collected))
    }

    /// The index of the service that a request with this host (without a port) and this path (without the
    /// query) belongs to.
    ///
    /// # Errors
    /// It belongs to none.
    #[inline]
    pub fn find(&self, host: &[u8], path: &[u8]) -> Result<usize, UnknownService> {
        match &self.0 {
            None => Ok(0),
            Some(hosts) => hosts.find(host, path),
        }
    }
}

impl Hosts {
    fn paths_of(&mut self, host: &HostPattern) -> &mut Paths {
        match host {
            HostPattern::Exact(name) => match v6(name.as_bytes()) {
                Some(address) => self.v6.entry(address).or_default(),
                None => self.exact.entry(name.as_bytes().into()).or_default(),
            },
            HostPattern::Suffix(suffix) => {
                self.longest_suffix = self.longest_suffix.max(suffix.len());
                self.suffixes.entry(suffix.as_bytes().into()).or_default()
            }
        }
    }

    fn each(&mut self, act: impl Fn(&mut Paths)) {
        let named = self.exact.values_mut().chain(self.suffixes.values_mut());
        named
            .chain(self.v6.values_mut())
            .chain(&mut self.any)
            .for_each(act);
    }

    fn find(&self, host: &[u8], path: &[u8]) -> Result<usize, UnknownService> {
        let mut is_known = false;
        let mut step = |paths: Option<&Paths>| {
            is_known |= paths.is_some();
            paths?.find(path)
        };
        let host = host.strip_suffix(b".").unwrap_or(host);
        // Not more than the end of it matters, and that in lower case.
        let mut buffer = [0; LONGEST];
        let lower = &mut buffer[..host.len().min(LONGEST)];
        lower.copy_from_slice(&host[host.len() - lower.len()..]);
        lower.make_ascii_lowercase();
        let lower = &*lower;
        let mut found = match host.first() {
            Some(b'[') if self.v6.is_empty() => None,
            Some(b'[') => v6(host).and_then(|it| step(self.v6.get(&it))),
            _ if host.len() <= LONGEST => step(self.exact.get(lower)),
            _ => None,
        };
        // What is before the dot must not be empty, unless it is more than fits into the buffer.
        let first = usize::from(host.len() == lower.len());
        let mut at = first.max(lower.len().saturating_sub(self.longest_suffix));
        while found.is_none()
            && !self.suffixes.is_empty()
            && let Some(dot) = lower.get(at..).and_then(|it| memchr::memchr(b'.', it))
        {
            found = step(self.suffixes.get(&lower[at + dot..]));
            at += dot + 1;
        }
        let found = found.or_else(|| step(self.any.as_ref()));
        found.or(self.rest).ok_or(match is_known {
            true => UnknownService::Path,
            false => UnknownService::Host,
        })
    }
}

/// The address that a host in brackets is.
fn v6(host: &[u8]) -> Option<Ipv6Addr> {
    let inner = host.strip_prefix(b"[")?.strip_suffix(b"]")?;
    std::str::from_utf8(inner).ok()?.parse().ok()
}

/// The paths of the services of one host.
///
/// They are in an order in which a slash is less than anything else: then all that begin with a path and a
/// slash follow that path at once. So the last one that is not greater than a request's path begins with
/// whichever holds for that, if any does, and it remains to go up from it.
#[derive(Debug, Default)]
struct Paths(Vec<PathEntry>);

#[derive(Debug)]
struct PathEntry {
    /// Without a slash at its end; empty: all paths.
    path: Box<[u8]>,
    service: usize,
    /// The longest of the other paths that this one begins with.
    above: Option<usize>,
}

impl Paths {
    fn add(&mut self, service: &ServiceSettings, index: usize) {
        let all = [String::new()];
        let paths = match service.paths.is_empty() {
            true => &all[..],
            false => &service.paths,
        };
        self.0.extend(paths.iter().map(|path| PathEntry {
            path: path.strip_suffix('/').unwrap_or(path).as_bytes().into(),
            service: index,
            above: None,
        }));
    }

    fn sort(&mut self) {
        // Stable: of two equal ones, which there are none of in a configuration, the first is kept.
        self.0.sort_by(|one, other| order(&one.path, &other.path).0);
        self.0.dedup_by(|one, before| one.path == before.path);
        for at in 1..self.0.len() {
            let mut above = Some(at - 1);
            while let Some(candidate) = above
                && !begins(&self.0[at].path, &self.0[candidate].path)
            {
                above = self.0[candidate].above;
            }
            self.0[at].above = above;
        }
    }

    fn find(&self, path: &[u8]) -> Option<usize> {
        let (mut from, mut to) = (0, self.0.len());
        // Of the last one that is not greater, how much it has in common with the path.
        let mut common = 0;
        while from < to {
            let middle = usize::midpoint(from, to);
            match order(&self.0[middle].path, path) {
                (Ordering::Greater, _) => to = middle,
                (_, same) => (from, common) = (middle + 1, same),
            }
        }
        let mut at = from.checked_sub(1);
        while let Some(entry) = at.map(|it| &self.0[it]) {
            let end = entry.path.len();
            if end <= common && matches!(path.get(end), None | Some(b'/')) || end == 0 {
                return Some(entry.service);
            }
            at = entry.above;
        }
        None
    }
}

/// Whether `path` is `first`, or goes on behind it with a slash.
fn begins(path: &[u8], first: &[u8]) -> bool {
    let rest = path.strip_prefix(first);
    rest.is_some_and(|it| first.is_empty() || matches!(it.first(), None | Some(b'/')))
}

/// How two paths are ordered, a slash before any other byte; and how many bytes they begin with in common.
fn order(one: &[u8], other: &[u8]) -> (Ordering, usize) {
    let same = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let next = |path: &[u8]| path.get(same).map(|byte| (*byte != b'/', *byte));
    (next(one).cmp(&next(other)), same)
}

#[cfg(test)]
mod tests;
