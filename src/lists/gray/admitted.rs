//! How much of everybody a gray list admits: what the guard asks of it.

use std::time::SystemTime;

use ipnet::IpNet;

use super::GrayList;
use crate::lists::admission::{AdmittedUntil, adds, admission, is_enough};
use crate::lists::family::{CLIENTS_V4, CLIENTS_V6, Family};
use crate::lists::ranges::Ranges;
use crate::lists::rule::Rule;

/// Entries that leave out at most this fraction of the addresses admit practically everybody.
const LEFT_OUT: u128 = 10;

impl GrayList {
    /// Until when from `now` on the entries together admit at least nine tenths of the clients of a family,
    /// however they are written.
    pub(crate) fn admission(&self, family: Family, now: SystemTime) -> AdmittedUntil {
        let all = family.clients();
        let part = |admitted: u128| {
            // To nine tenths exactly, without the error of a division.
            match all - admitted <= all / LEFT_OUT {
                true => 1.0,
                false => admitted as f64 / all as f64,
            }
        };
        let covered = |more: &[IpNet]| match (more, family) {
            ([], Family::V4) => part(self.nets.covered_v4.clients()),
            ([], Family::V6) => part(self.nets.covered_v6.clients()),
            (more, _) => {
                let mut nets: Vec<IpNet> =
                    self.nets_of(family).chain(more.iter().copied()).collect();
                nets.sort_unstable();
                part(clients_of(&nets, family))
            }
        };
        admission(self.rules(), family, now, 1.0 / LEFT_OUT as f64, covered)
    }

    /// The rules that admit people at the time `now` whatever they send, and whether each is enough to admit
    /// everybody.
    pub(crate) fn admitting_rules(
        &self,
        family: Family,
        now: SystemTime,
    ) -> impl Iterator<Item = (&Rule, bool)> {
        let rules = self.rules().iter();
        let rules = rules.filter(move |it| adds(it, family, now));
        rules.map(move |it| (it, is_enough(it, family, now)))
    }

    /// The addresses and nets of a family.
    pub(crate) fn nets_of(&self, family: Family) -> impl Iterator<Item = IpNet> {
        self.nets().filter(move |it| family.is_of(it))
    }
}

/// How many clients these nets cover, which are sorted.
fn clients_of(nets: &[IpNet], family: Family) -> u128 {
    let v4 = nets.iter().filter_map(|net| match net {
        IpNet::V4(net) => Some((net.network().to_bits(), net.broadcast().to_bits())),
        IpNet::V6(_) => None,
    });
    let v6 = nets.iter().filter_map(|net| match net {
        IpNet::V6(net) => Some((net.network().to_bits(), net.broadcast().to_bits())),
        IpNet::V4(_) => None,
    });
    match family {
        Family::V4 => Ranges::new(v4, CLIENTS_V4).clients(),
        Family::V6 => Ranges::new(v6, CLIENTS_V6).clients(),
    }
}
