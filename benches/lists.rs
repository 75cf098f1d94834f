//! The lists at scale: `cargo bench --bench lists`.
//!
//! First the figures that have a target, and then, by divan, lookups in lists of several lengths, a
//! million entries made into a list, and the decision. An address to look up depends on the outcome
//! of the lookup before, so that what is shown is the time until an answer is there, and addresses
//! are random, so that it was seldom asked for lately.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::cell::Cell;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use graygate::lists::{GrayList, Lists, PeerList};
use graygate::route;
use nix::time::ClockId;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const MILLION: usize = 1_000_000;
const LENGTHS: [usize; 3] = [10, 1000, MILLION];

fn main() {
    targets();
    divan::main();
}

/// What entries a list has.
#[derive(Clone, Copy, PartialEq)]
enum Family {
    V4,
    V6,
    Mixed,
}

/// Random entries, seven of ten of them addresses and the others nets, as text.
fn entries(family: Family, count: usize) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut entry = |at: usize| {
        let is_v4 = family == Family::V4 || family == Family::Mixed && at.is_multiple_of(2);
        let is_net = random.u8(..10) >= 7;
        match (is_v4, is_net) {
            (true, false) => Ipv4Addr::from_bits(random.u32(..)).to_string(),
            (true, true) => {
                let length = random.u8(20..32);
                let address = random.u32(..) >> (32 - length) << (32 - length);
                format!("{}/{length}", Ipv4Addr::from_bits(address))
            }
            (false, false) => v6(&mut random).to_string(),
            (false, true) => {
                let length = random.u8(48..128);
                let address = v6(&mut random).to_bits() >> (128 - length) << (128 - length);
                format!("{}/{length}", Ipv6Addr::from_bits(address))
            }
        }
    };
    (0..count).map(&mut entry).collect()
}

/// An address of 2000::/16, where those in use are.
fn v6(random: &mut fastrand::Rng) -> Ipv6Addr {
    Ipv6Addr::from_bits(0x2001 << 112 | random.u128(..) >> 16)
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
    /// Looks up what is listed, or else mostly what is not.
    fn new(family: Family, count: usize, listed: bool) -> Self {
        let list = GrayList::parse(entries(family, count));
        let mut random = fastrand::Rng::with_seed(2);
        let nets: Vec<_> = list.nets().collect();
        let mut client = |at: usize| {
            let is_v4 = family == Family::V4 || family == Family::Mixed && at.is_multiple_of(2);
            match (listed, is_v4) {
                (true, _) => nets[random.usize(..nets.len())].addr(),
                (false, true) => Ipv4Addr::from_bits(random.u32(..)).into(),
                (false, false) => v6(&mut random).into(),
            }
        };
        let clients = (0..CLIENTS).map(&mut client).collect();
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

fn targets() {
    println!("figure                                     measured      target");
    let mut random = fastrand::Rng::with_seed(3);
    for (family, name) in [
        (Family::V4, "IPv4"),
        (Family::V6, "IPv6"),
        (Family::Mixed, "both"),
    ] {
        for (listed, what) in [(true, "listed"), (false, "not listed")] {
            let table = Table::new(family, MILLION, listed);
            // The fastest of many short rounds: others use the same caches.
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
            let name = format!("lookup, {name}, {what}");
            println!(
                "{name:40} {:5.0} ns (median {:.0})   100 ns",
                rounds[0], rounds[500]
            );
        }
    }
    for (family, name, target) in [(Family::V4, "IPv4", "64 bytes"), (Family::V6, "IPv6", "-")] {
        let texts: Vec<Vec<u8>> = entries(family, MILLION)
            .into_iter()
            .map(String::into)
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
            "{:40} {took:5.0} ms",
            format!("a million entries made a list, {name}")
        );
        println!(
            "{:40} {kept:5.1} bytes         {target}",
            format!("memory an entry, {name}")
        );
        println!("{:40} {peak:5.1} bytes", "  at its peak");
    }
}

#[divan::bench(args = LENGTHS, sample_size = 1000)]
fn v4_listed(bencher: Bencher<'_, '_>, count: usize) {
    look_up(bencher, &Table::new(Family::V4, count, true));
}

#[divan::bench(args = LENGTHS, sample_size = 1000)]
fn v4_not_listed(bencher: Bencher<'_, '_>, count: usize) {
    look_up(bencher, &Table::new(Family::V4, count, false));
}

#[divan::bench(args = LENGTHS, sample_size = 1000)]
fn v6_listed(bencher: Bencher<'_, '_>, count: usize) {
    look_up(bencher, &Table::new(Family::V6, count, true));
}

#[divan::bench(args = LENGTHS, sample_size = 1000)]
fn v6_not_listed(bencher: Bencher<'_, '_>, count: usize) {
    look_up(bencher, &Table::new(Family::V6, count, false));
}

#[divan::bench(args = LENGTHS, sample_size = 1000)]
fn mixed_listed(bencher: Bencher<'_, '_>, count: usize) {
    look_up(bencher, &Table::new(Family::Mixed, count, true));
}

#[divan::bench(args = LENGTHS, sample_size = 1000)]
fn mixed_not_listed(bencher: Bencher<'_, '_>, count: usize) {
    look_up(bencher, &Table::new(Family::Mixed, count, false));
}

fn look_up(bencher: Bencher<'_, '_>, table: &Table) {
    bencher.bench_local(|| table.look_up());
}

#[divan::bench(args = LENGTHS, sample_size = 1000)]
fn decide(bencher: Bencher<'_, '_>, count: usize) {
    let table = Table::new(Family::Mixed, count, true);
    let peers = || Arc::new(PeerList::parse(["10.0.0.1", "10.0.0.2"], 80));
    let lists = Lists::new(1, Arc::new(table.list.clone()), peers(), peers());
    bencher.bench_local(|| {
        let decision = route::decide(table.next_client(), &lists, true);
        table.go_on(decision.is_ok_and(|it| it.reason == route::Reason::Listed));
        decision
    });
}

/// Parse, sort, hash, and the structure to search.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn make_a_million_mixed(bencher: Bencher<'_, '_>) {
    let texts = entries(Family::Mixed, MILLION);
    bencher.bench_local(|| GrayList::parse(&texts));
}
