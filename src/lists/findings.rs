//! Likely mistakes in lists that can be read.
//!
//! Most are noted while a list is parsed and sorted ([`Notes`]). What concerns several lists, or the
//! settings, is looked up in the sorted lists on request ([`findings`]). All findings of a kind are
//! counted, and the first ones are named.

use std::collections::BTreeSet;
use std::time::SystemTime;

use ipnet::IpNet;

use super::entry::canonical;
use super::notes::{FindingKind, NAMED, Notes};
use super::overlaps;
use super::{GrayList, ListName, Lists};

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What kind of mistake.
    pub kind: FindingKind,
    /// In which list.
    pub list: ListName,
    /// The entry, as it was written where that matters.
    pub entry: String,
    /// What is wrong with it.
    pub text: String,
    /// How often it was found: an entry that is there three times is two too many.
    pub count: usize,
}

impl Finding {
    /// True when both say the same, whatever their counts.
    pub(crate) fn says_as(&self, other: &Self) -> bool {
        let said = |it: &Self| (it.kind, it.list);
        said(self) == said(other) && self.entry == other.entry && self.text == other.text
    }
}

/// What was found in all lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    counts: [usize; FindingKind::ALL.len()],
    /// The first of each kind, at most 20 of each list.
    pub first: Vec<Finding>,
}

impl Findings {
    /// How many there are of a kind.
    pub(crate) fn count(&self, kind: FindingKind) -> usize {
        self.counts[kind as usize]
    }

    /// How many there are.
    pub(crate) fn total(&self) -> usize {
        self.counts.iter().sum()
    }

    fn take(&mut self, list: ListName, notes: Notes) {
        for (sum, count) in self.counts.iter_mut().zip(notes.counts) {
            *sum += count;
        }
        let named = notes.named.into_iter();
        self.first.extend(named.map(|it| Finding {
            kind: it.kind,
            list,
            entry: it.entry,
            text: it.text,
            count: it.count,
        }));
    }
}

/// What was found in these lists at the time `now`; `trusted` are the trusted proxies. Does not go through
/// all addresses.
pub(crate) fn findings(lists: &Lists, trusted: &[IpNet], now: SystemTime) -> Findings {
    let mut findings = Findings::default();
    for list in ListName::ALL {
        findings.take(list, lists.remarks(list).notes.clone());
    }
    findings.take(ListName::Gray, gray_proxies(&lists.gray, trusted));
    findings.take(ListName::Gray, overlaps::among(&lists.gray, now));
    let mut of_pre = Notes::default();
    for peer in lists.pre.peers() {
        if lists.prod.at(peer.place()).is_some() {
            let text = "is in prod, too".to_owned();
            of_pre.add(FindingKind::InBothPools, || {
                (peer.place().to_string(), text)
            });
        }
    }
    findings.take(ListName::Pre, of_pre);
    findings
}

/// The entries of `gray` that lie within the `trusted` proxies, or cover some of them.
fn gray_proxies(gray: &GrayList, trusted: &[IpNet]) -> Notes {
    let mut notes = Notes::default();
    let mut around = BTreeSet::new();
    for proxies in IpNet::aggregate(&trusted.to_vec()) {
        let within = gray.within(&proxies);
        let more = within.len().saturating_sub(NAMED);
        for net in within.take(NAMED) {
            let text = || format!("is a trusted proxy ({})", canonical(proxies));
            notes.add(FindingKind::TrustedProxyIsGray, || (canonical(net), text()));
        }
        notes.counts[FindingKind::TrustedProxyIsGray as usize] += more;
        let wider = std::iter::successors(proxies.supernet(), IpNet::supernet);
        for net in wider.filter(|it| gray.has(it)) {
            // Reported once, however many proxies it covers.
            if around.insert(net) {
                let text = || format!("covers a trusted proxy ({})", canonical(proxies));
                notes.add(FindingKind::TrustedProxyIsGray, || (canonical(net), text()));
            }
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lists::{ByList, lists_of};

    #[test]
    fn findings_name_their_list_and_entry() {
        let lists = lists_of(
            &[
                "10.0.0.1",
                "::ffff:10.0.0.1",
                "10.9.8.7/16",
                "10.0.0.0/24",
                "::ffff:1.2.3.0/24",
                "10.0.0.1",
                "10.0.0",
                "172.16.0.1",
                "172.16.0.0/12",
                "192.168.0.0/16",
            ],
            &[
                "10.1.0.1",
                "10.1.0.1:80",
                "10.1.0.2:81",
                "::1:443",
                "::1:8",
                "[::1:90]",
                "web1:80",
                "WEB2 weight=2",
                "web2:80 weight=30",
                "web2:80 weight=4",
                "web2:80 weight=4",
            ],
            &[
                "10.1.0.1 weight=2",
                "10.1.0.2",
                "web1",
                "::1:a0",
                "2001:db8::10",
                "web1:0",
            ],
        );
        let trusted =
            ["10.0.0.0/31", "172.16.0.1/32", "172.17.0.1/32"].map(|it| it.parse().unwrap());
        let findings = findings(&lists, &trusted, SystemTime::UNIX_EPOCH);
        let told = |it: &Finding| {
            format!(
                "{} {} {}: {} ({})",
                it.kind.name(),
                it.list.name(),
                it.entry,
                it.text,
                it.count
            )
        };
        let mut told: Vec<String> = findings.first.iter().map(told).collect();
        told.sort();
        assert_eq!(
            told,
            [
                "address-or-port pre ::1:443: taken as [::1:443]:80; is [::1]:443 meant? (1)",
                "almost gray 10.0.0: is 10.0.0.0/24 meant? (1)",
                "almost prod web1:0: a port is a number from 1 to 65535 (1)",
                "duplicate gray 10.0.0.1: is listed more than once (2)",
                "duplicate pre 10.1.0.1:80: is listed more than once (1)",
                "duplicate pre web2:80 weight=4: is listed more than once (1)",
                "host-bits gray 10.9.8.7/16: has host bits; taken as 10.9.0.0/16 (1)",
                "host-bits gray ::ffff:1.2.3.0/24: has host bits; taken as ::/24; \
                 is /120 meant, which is 1.2.3.0/24? (1)",
                "in-both-pools pre 10.1.0.1:80: is in prod, too (1)",
                "in-both-pools pre web1:80: is in prod, too (1)",
                "trusted-proxy-is-gray gray 10.0.0.0/24: covers a trusted proxy (10.0.0.0/31) (1)",
                "trusted-proxy-is-gray gray 10.0.0.1: is a trusted proxy (10.0.0.0/31) (1)",
                "trusted-proxy-is-gray gray 172.16.0.0/12: covers a trusted proxy (172.16.0.1) (1)",
                "trusted-proxy-is-gray gray 172.16.0.1: is a trusted proxy (172.16.0.1) (1)",
                "weights-differ pre web2:80: has the weights 2, 4 and 30; the largest counts (2)",
            ]
        );
        // Of two, each counts what is too many of one entry.
        assert_eq!(findings.total(), told.len() + 2);
    }

    #[test]
    fn each_kind_is_counted_in_full_and_named_only_so_often() {
        let gray = (0..1000).map(|at| format!("10.0.{}.{}/31", at / 256, at % 256));
        let gray: Vec<_> = gray
            .chain((0..500).map(|_| "1O.0.0.1".to_owned()))
            .collect();
        let (pre, prod) = (Vec::new(), Vec::new());
        let lists = Lists::parse(1, ByList { gray, pre, prod }, 80);
        let findings = findings(
            &lists,
            &["10.0.0.0/8".parse().unwrap()],
            SystemTime::UNIX_EPOCH,
        );
        let counts = FindingKind::ALL.map(|kind| findings.count(kind));
        assert_eq!(counts, [500, 0, 500, 500, 500, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(findings.first.len(), 4 * NAMED);
    }
}
