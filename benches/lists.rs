//! The lists at scale: `cargo bench --bench lists`.
//!
//! First the figures that have a target, and then, by divan, lookups in lists of several lengths, a
//! million entries made into a list, and the decision. An address to look up depends on the outcome
//! of the lookup before, so that what is shown is the time until an answer is there, and addresses
//! are random, so that it was seldom asked for lately. What is listed has 16 bytes a million times:
//! no cache has all of them, so what has to be compared to its last bit waits for memory once.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "steps/others.rs"]
mod others;

use std::cell::Cell;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use divan::Bencher;
use graygate::http::h1::head::{RequestHead, Scanner};
use graygate::http::limits::Limits;
use graygate::http::subject::Subject;
use graygate::lists::{ByList, GrayList, Lists, PeerList, Scratch, SharedLists, canonical};
use graygate::memory::advice;
use graygate::route::{self, PoolStanding, Service};
use ipnet::IpNet;
use nix::time::ClockId;
use peak_alloc::PeakAlloc;

use others::{browser_head, other_entries};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const MILLION: usize = 1_000_000;
const LENGTHS: [usize; 3] = [10, 1000, MILLION];

fn main() {
    advice::return_large_blocks();
    making();
    selections();
    targets();
    divan::main();
}

/// What entries a list has. Real ones are clumped, so that random ones alone tell little.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// All over the addresses of their family, seven of ten of them addresses and the others nets.
    V4,
    V6,
    Mixed,
    /// Addresses in 128 nets of 16 bits.
    V4Clumps,
    /// Nets of 64 bits, as single customers have, within the 32 bits of one provider.
    V6Customers,
    /// Within the same 32 bits, addresses that a host chose by chance (RFC 8981).
    V6OneNet,
    /// A thousand nets of 48 bits, in each of them addresses that differ in the last 16 bits only.
    V6Servers,
    /// The same, with 256 nets of 64 bits in each, and in these the first 64 addresses.
    V6Sites,
    /// The addresses of network cards of eight makers (RFC 4291 appendix A), at as many customers.
    V6Cards,
    /// Made for the index to be deep: few bits are set, so that there are crowds in crowds.
    V6Worst,
}

impl Kind {
    /// With the names that are shown.
    const ALL: [(Self, &'static str); 10] = [
        (Self::V4, "IPv4"),
        (Self::V4Clumps, "IPv4 in 128 /16"),
        (Self::V6, "IPv6"),
        (Self::V6Customers, "IPv6 /64s of one /32"),
        (Self::V6OneNet, "IPv6 of one /32"),
        (Self::V6Servers, "IPv6 in 1000 /48, low 16 bits"),
        (Self::V6Sites, "IPv6 in 1000 /48, clumps"),
        (Self::V6Cards, "IPv6 EUI-64"),
        (Self::V6Worst, "IPv6 of few bits"),
        (Self::Mixed, "both"),
    ];

    /// One of the nets, of which an address is one.
    fn net(self, at: usize, random: &mut fastrand::Rng) -> IpNet {
        /// Of one provider.
        const PROVIDER: u128 = 0x2001_0db8 << 96;
        // The thousand, and in each of them the same.
        let site =
            |random: &mut fastrand::Rng| 0x2001 << 112 | (random.u128(1..=1000) * 0x9e37) << 80;
        let is_net = random.u8(..10) >= 7;
        let (bits, length) = match self {
            Self::Mixed if at.is_multiple_of(2) => return Self::V4.net(at, random),
            Self::V4 => {
                let length = if is_net { random.u8(20..32) } else { 32 };
                return net(Ipv4Addr::from_bits(random.u32(..)).into(), length);
            }
            Self::V4Clumps => {
                let bits = (random.u32(..128) * 517) << 16 | random.u32(..=0xffff);
                return net(Ipv4Addr::from_bits(bits).into(), 32);
            }
            // Of 2000::/16, where those in use are.
            Self::V6 | Self::Mixed => (
                0x2001 << 112 | random.u128(..) >> 16,
                if is_net { random.u8(48..128) } else { 128 },
            ),
            Self::V6Customers => (PROVIDER | random.u128(..) >> 32, 64),
            Self::V6OneNet => (PROVIDER | random.u128(..) >> 32, 128),
            Self::V6Servers => (site(random) | random.u128(..=0xffff), 128),
            Self::V6Sites => (
                site(random) | random.u128(..256) << 64 | random.u128(..64),
                128,
            ),
            Self::V6Cards => {
                let maker = 0x0211_2200 + random.u128(..8);
                let card = maker << 32 | 0xff_fe00_0000 | random.u128(..1 << 24);
                (PROVIDER | random.u128(..1 << 32) << 64 | card, 128)
            }
            Self::V6Worst => {
                let few = (0..10).map(|_| 1 << random.u32(..128));
                (few.fold(0, |sum, bit: u128| sum | bit), 128)
            }
        };
        net(Ipv6Addr::from_bits(bits).into(), length)
    }
}

fn net(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length).unwrap().trunc()
}

/// Entries as text.
fn entries(kind: Kind, count: usize) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(1);
    let entry = |at| canonical(kind.net(at, &mut random));
    (0..count).map(entry).collect()
}

/// A list, and addresses to look up in it.
struct Table {
    list: GrayList,
    clients: Vec<IpAddr>,
    at: Cell<usize>,
}

/// A power of two.
const CLIENTS: usize = 1 << 18;

impl Table {
    /// Looks up what is listed, or else mostly what is not but looks the same.
    fn new(kind: Kind, count: usize, listed: bool) -> Self {
        let list = GrayList::parse(entries(kind, count));
        let mut random = fastrand::Rng::with_seed(2);
        let nets: Vec<_> = list.nets().collect();
        let client = |at: usize| match listed {
            true => nets[random.usize(..nets.len())].addr(),
            false => kind.net(at, &mut random).addr(),
        };
        let clients = (0..CLIENTS).map(client).collect();
        let at = Cell::new(0);
        Self { list, clients, at }
    }

    fn next_client(&self) -> IpAddr {
        self.clients[self.at.get() % CLIENTS]
    }

    fn go_on(&self, outcome: bool) {
        self.at.set(self.at.get() + 1 + 2 * usize::from(outcome));
    }

    fn look_up(&self) -> bool {
        let listed = self.list.contains(self.next_client());
        self.go_on(listed);
        listed
    }
}

/// Of this thread: others may run on this machine, too.
fn cpu_time() -> Duration {
    ClockId::CLOCK_THREAD_CPUTIME_ID.now().unwrap().into()
}

/// Heads of requests that none of the other entries selects: usual ones, and what somebody may send to cause
/// work, each also twice as long.
fn heads() -> [(&'static str, String); 9] {
    let fields: String = (0..15)
        .map(|it| format!("Accept-Thing-{it}: of usual length {it}\r\n"))
        .collect();
    let head = |target: &str, fields: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: shop.example.com\r\n{fields}\r\n")
    };
    let long = |kib: usize| {
        let value = "x".repeat(kib * 1024);
        head("/", &format!("Cookie: uid={value}\r\n"))
    };
    let many = |count: usize| {
        let cookies: String = (0..count).map(|it| format!("c{it}=v{it}; ")).collect();
        head("/", &format!("Cookie: {cookies}\r\n"))
    };
    // Of parameters with one name, whose first value is decoded, and others.
    let query = |kib: usize| {
        let parameters = "%72elease1=%41%42%43%44&x%79=%7a%7A&".repeat(kib * 1024 / 36);
        head(&format!("/?{parameters}"), "")
    };
    [
        ("a browser's", browser_head("/cart")),
        ("15 fields, none of them named", head("/", &fields)),
        ("nothing", head("/", "")),
        ("a cookie of 16 KiB", long(16)),
        ("a cookie of 32 KiB", long(32)),
        ("500 cookies", many(500)),
        ("1000 cookies", many(1000)),
        ("a query of 4 KiB with escapes", query(4)),
        ("a query of 8 KiB with escapes", query(8)),
    ]
}

/// What the decision costs by a million addresses, and what with a hundred other entries beside them.
fn selections() {
    let addresses = entries(Kind::V4, MILLION);
    let all: Vec<String> = addresses.iter().cloned().chain(other_entries()).collect();
    let lists = [addresses, all].map(|gray| {
        let peers = vec!["10.0.0.1".to_owned()];
        let lists = Lists::parse(
            1,
            ByList {
                gray,
                pre: peers.clone(),
                prod: peers,
            },
            80,
        );
        assert_eq!(lists.gray.skipped().count, 0);
        lists
    });
    println!("decision, by fields of the request             addresses  and 100 others");
    let limits = Limits {
        line: 64 * 1024,
        head: 128 * 1024,
        fields: 100,
    };
    let (mut head, mut scratch) = (RequestHead::default(), Scratch::default());
    for (name, text) in heads() {
        let parsed = head.parse(text.as_bytes(), &mut Scanner::default(), &limits);
        assert!(parsed.is_ok());
        let subject = Subject::new([203, 0, 113, 7].into(), &head, text.as_bytes());
        let figures = lists.each_ref().map(|lists| {
            let service = Service {
                lists,
                pre: PoolStanding::Usable,
                prod: PoolStanding::Usable,
                fallback: true,
                tripped: false,
            };
            let round = |_| {
                let start = cpu_time();
                for _ in 0..1000 {
                    let now = lists.gray.expires().then(SystemTime::now);
                    let subject = black_box(&subject);
                    black_box(route::decide(subject, &service, now, &mut scratch)).ok();
                }
                (cpu_time() - start).as_nanos() as f64 / 1000.0
            };
            let rounds = (0..100).map(round);
            rounds.fold(f64::INFINITY, f64::min)
        });
        println!("{name:44} {:6.0} ns      {:6.0} ns", figures[0], figures[1]);
    }
}

fn targets() {
    println!("figure                                       fastest  median      target");
    let mut random = fastrand::Rng::with_seed(3);
    for (kind, name) in Kind::ALL {
        for (listed, what) in [(true, "listed"), (false, "not listed")] {
            let table = Table::new(kind, MILLION, listed);
            // Of many short rounds: others use the same caches.
            let round = |_| {
                table.at.set(random.usize(..CLIENTS));
                let start = cpu_time();
                for _ in 0..2000 {
                    black_box(table.look_up());
                }
                (cpu_time() - start).as_nanos() as f64 / 2000.0
            };
            let mut rounds: Vec<f64> = (0..1000).map(round).collect();
            rounds.sort_by(f64::total_cmp);
            let name = format!("{name}, {what}");
            println!(
                "{name:44} {:4.0} ns {:4.0} ns      100 ns",
                rounds[0], rounds[500]
            );
        }
    }
}

/// What a million entries take to be made a list, and what memory.
fn making() {
    for (kind, attributes, name, target) in [
        (Kind::V4, "", "IPv4", "64 bytes"),
        (Kind::V6, "", "IPv6", "-"),
        (Kind::V4, " until=2100-01-01T00:00Z", "IPv4 until", "-"),
        (
            Kind::V4,
            " note=\"Jo of sales, asked for it\"",
            "IPv4 note",
            "-",
        ),
    ] {
        let texts: Vec<Vec<u8>> = entries(kind, MILLION)
            .into_iter()
            .map(|it| (it + attributes).into())
            .collect();
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let start = cpu_time();
        let list = GrayList::parse(&texts);
        let took = (cpu_time() - start).as_secs_f64() * 1000.0;
        let count = list.len() as f64;
        let kept = (MEMORY.current_usage() - before) as f64 / count;
        let peak = (MEMORY.peak_usage() - before) as f64 / count;
        println!(
            "{:44} {took:5.0} ms",
            format!("a million entries made a list, {name}")
        );
        println!(
            "{:44} {kept:5.1} bytes            {target}",
            format!("memory an entry, {name}")
        );
        println!("{:44} {peak:5.1} bytes", "  at its peak");
    }
}

#[divan::bench(args = LENGTHS, sample_size = 1000)]
fn v4_listed(bencher: Bencher<'_, '_>, count: usize) {
    look_up(bencher, &Table::new(Kind::V4, count, true));
}

#[divan::bench(args = LENGTHS, sample_size = 1000)]
fn v4_not_listed(bencher: Bencher<'_, '_>, count: usize) {
    look_up(bencher, &Table::new(Kind::V4, count, false));
}

#[divan::bench(args = LENGTHS, sample_size = 1000)]
fn v6_listed(bencher: Bencher<'_, '_>, count: usize) {
    look_up(bencher, &Table::new(Kind::V6, count, true));
}

#[divan::bench(args = LENGTHS, sample_size = 1000)]
fn v6_not_listed(bencher: Bencher<'_, '_>, count: usize) {
    look_up(bencher, &Table::new(Kind::V6, count, false));
}

#[divan::bench(args = LENGTHS, sample_size = 1000)]
fn mixed_listed(bencher: Bencher<'_, '_>, count: usize) {
    look_up(bencher, &Table::new(Kind::Mixed, count, true));
}

#[divan::bench(args = LENGTHS, sample_size = 1000)]
fn mixed_not_listed(bencher: Bencher<'_, '_>, count: usize) {
    look_up(bencher, &Table::new(Kind::Mixed, count, false));
}

fn look_up(bencher: Bencher<'_, '_>, table: &Table) {
    bencher.bench_local(|| table.look_up());
}

#[divan::bench(args = LENGTHS, sample_size = 1000)]
fn decide(bencher: Bencher<'_, '_>, count: usize) {
    let table = Table::new(Kind::Mixed, count, true);
    let peers = || Arc::new(PeerList::parse(["10.0.0.1", "10.0.0.2"], 80));
    let lists = SharedLists {
        gray: Arc::new(table.list.clone()),
        pre: peers(),
        prod: peers(),
    };
    let lists = Lists::new(1, lists);
    let (head, mut scratch) = (RequestHead::default(), Scratch::default());
    bencher.bench_local(|| {
        let subject = Subject::new(table.next_client(), &head, &[]);
        let service = Service {
            lists: &lists,
            pre: PoolStanding::Usable,
            prod: PoolStanding::Usable,
            fallback: true,
            tripped: false,
        };
        let decision = route::decide(&subject, &service, None, &mut scratch);
        table.go_on(decision.is_ok_and(|it| it.reason == route::Reason::Listed));
        decision
    });
}

/// Parse, sort, hash, and the structure to search.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn make_a_million_mixed(bencher: Bencher<'_, '_>) {
    let texts = entries(Kind::Mixed, MILLION);
    bencher.bench_local(|| GrayList::parse(&texts));
}
