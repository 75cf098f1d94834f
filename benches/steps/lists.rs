//! The gray list, and the decision. How long lookups take is measured by `benches/lists.rs`, with
//! addresses that nobody has asked for lately; here is what they do.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use graygate::http::h1::head::{Parsed, RequestHead, Scanner};
use graygate::http::subject::Subject;
use graygate::lists::{GrayList, Lists, PeerList, Scratch, SharedLists};
use graygate::route::{self, PoolStanding, Reason, Service};

use super::heads::LIMITS;
use super::others::other_entries;

/// What a client has.
#[derive(Clone, Copy)]
pub(crate) enum Family {
    V4,
    V6,
}

/// Random entries, the same on every run: of ten, seven are addresses and three are nets.
fn entries(family: Family, count: usize) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut entry = |_| {
        let is_net = random.u8(..10) >= 7;
        match (family, is_net) {
            (Family::V4, false) => Ipv4Addr::from_bits(random.u32(..)).to_string(),
            (Family::V4, true) => format!("{}/24", Ipv4Addr::from_bits(random.u32(..) & !0xff)),
            (Family::V6, false) => v6(&mut random).to_string(),
            (Family::V6, true) => {
                let net = v6(&mut random).to_bits() & !0xffff_ffff_ffff_ffff;
                format!("{}/64", Ipv6Addr::from_bits(net))
            }
        }
    };
    (0..count).map(&mut entry).collect()
}

/// An address of 2001::/16.
fn v6(random: &mut fastrand::Rng) -> Ipv6Addr {
    Ipv6Addr::from_bits(0x2001 << 112 | random.u128(..) >> 16)
}

/// Lookups in a list of so many entries.
pub(crate) struct LookUpStep {
    list: GrayList,
    clients: Vec<IpAddr>,
}

impl LookUpStep {
    /// Addresses that one step looks up: some take longer than others.
    const CLIENTS: usize = 64;

    /// Every second client is listed.
    pub(crate) fn new(family: Family, count: usize) -> Self {
        let list = GrayList::parse(entries(family, count));
        let mut random = fastrand::Rng::with_seed(2);
        let nets: Vec<_> = list.nets().collect();
        let mut client = |at: usize| match (family, at.is_multiple_of(2)) {
            (_, true) => nets[random.usize(..nets.len())].addr(),
            (Family::V4, false) => Ipv4Addr::from_bits(random.u32(..)).into(),
            (Family::V6, false) => v6(&mut random).into(),
        };
        let clients = (0..Self::CLIENTS).map(&mut client).collect();
        Self { list, clients }
    }

    /// Looks all of them up; returns how many are listed.
    pub(crate) fn look_up(&self) -> usize {
        let clients = self.clients.iter();
        clients
            .filter(|it| self.list.contains(**black_box(it)))
            .count()
    }
}

/// The decision for clients, every second of which is listed.
pub(crate) struct DecideStep {
    lists: Lists,
    clients: Vec<IpAddr>,
    text: String,
    head: RequestHead,
    scratch: Scratch,
}

impl DecideStep {
    /// By a list of addresses alone.
    pub(crate) fn new() -> Self {
        Self::with(LookUpStep::new(Family::V4, 1000), String::new())
    }

    /// By a list with a hundred other entries beside them, for requests with this head, which none of those
    /// selects.
    pub(crate) fn by_others(head: String) -> Self {
        let LookUpStep { list, clients } = LookUpStep::new(Family::V4, 1000);
        let all = list.entries().chain(other_entries());
        let list = GrayList::parse(all);
        assert_eq!(list.rules().len(), 100, "an entry that is none");
        Self::with(LookUpStep { list, clients }, head)
    }

    fn with(LookUpStep { list, clients }: LookUpStep, text: String) -> Self {
        let peers = || Arc::new(PeerList::parse(["10.0.0.1", "10.0.0.2"], 80));
        let lists = SharedLists {
            gray: Arc::new(list),
            pre: peers(),
            prod: peers(),
        };
        let mut head = RequestHead::default();
        if !text.is_empty() {
            let parsed = head.parse(text.as_bytes(), &mut Scanner::default(), &LIMITS);
            assert_eq!(parsed, Ok(Parsed::Complete));
        }
        Self {
            lists: Lists::new(1, lists),
            clients,
            text,
            head,
            scratch: Scratch::default(),
        }
    }

    /// Decides for all of them; returns how many are gray.
    pub(crate) fn decide(&mut self) -> usize {
        let Self {
            lists,
            clients,
            text,
            head,
            scratch,
        } = self;
        let service = Service {
            lists,
            pre: PoolStanding::Usable,
            prod: PoolStanding::Usable,
            fallback: true,
            tripped: false,
        };
        let is_gray = |client: &&IpAddr| {
            let subject = Subject::new(**black_box(client), head, text.as_bytes());
            // The clock itself would take what the kernel makes of it.
            let decision = route::decide(&subject, &service, Some(UNIX_EPOCH), scratch);
            decision.is_ok_and(|it| it.reason == Reason::Listed)
        };
        clients.iter().filter(is_gray).count()
    }
}
