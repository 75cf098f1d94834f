//! A gray list of a million entries in a real Redis: how long a refresh takes, and what requests
//! feel of it. Prints figures, and asserts only that the right lists are in force:
//!
//! `cargo test --release --test lists_million -- --ignored --nocapture`

// Not only within #[test] functions, which clippy.toml exempts.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::{Gateway, Origin, Redis, Setup, wait_until};

const MILLION: u32 = 1_000_000;

/// Different entries: addresses and nets of both families.
fn entry(at: u32) -> String {
    // An odd factor: no number comes twice.
    let spread = at.wrapping_mul(2_654_435_761);
    match at % 10 {
        0 => format!("{}/28", Ipv4Addr::from_bits(spread & !15)),
        1 => Ipv6Addr::from_bits(0x2001 << 112 | u128::from(spread) << 32).to_string(),
        2 => format!(
            "{}/96",
            Ipv6Addr::from_bits(0x2002 << 112 | u128::from(spread) << 32)
        ),
        _ => Ipv4Addr::from_bits(spread | 1 << 31).to_string(),
    }
}

fn fill(redis: &Redis) {
    let mut connection = redis.connect(0);
    for start in (0..MILLION).step_by(10_000) {
        let mut push = redis::cmd("RPUSH");
        push.arg("gray");
        for at in start..start + 10_000 {
            push.arg(entry(at));
        }
        push.exec(&mut connection).unwrap();
    }
}

/// How long each of the requests took that one client sent, one after the other, until told to end.
fn latencies(gateway: &Gateway, end: &AtomicBool) -> Vec<Duration> {
    let mut client = gateway.connect_from("127.0.0.9");
    let mut all = Vec::new();
    while !end.load(Ordering::Relaxed) {
        let start = Instant::now();
        assert_eq!(client.get("/").text(), "prod");
        all.push(start.elapsed());
    }
    all
}

/// The 99th percentile of the latencies while `act` runs.
fn p99(gateway: &Gateway, what: &str, act: impl FnOnce()) -> Duration {
    let end = AtomicBool::new(false);
    let mut all: Vec<Duration> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| latencies(gateway, &end)))
            .collect();
        act();
        end.store(true, Ordering::Relaxed);
        clients
            .into_iter()
            .flat_map(|it| it.join().unwrap())
            .collect()
    });
    all.sort();
    let (count, p99) = (all.len(), all[all.len() * 99 / 100]);
    println!(
        "{what}: {count} requests, median {:?}, p99 {p99:?}",
        all[count / 2]
    );
    p99
}

/// The median, and the range.
fn spread(mut ratios: Vec<f64>) -> String {
    ratios.sort_by(f64::total_cmp);
    let (first, last) = (ratios[0], ratios[ratios.len() - 1]);
    format!("{:.2} ({first:.2} to {last:.2})", ratios[ratios.len() / 2])
}

/// Reads the gray list and throws it away.
struct Reader(TcpStream);

impl Reader {
    fn new(redis: &Redis) -> Self {
        let url = redis.url();
        let address = url.trim_start_matches("redis://");
        Self(TcpStream::connect(address.trim_end_matches("/0")).unwrap())
    }

    /// Of how many bytes the answer is.
    fn read(&mut self) -> usize {
        self.0.write_all(b"LRANGE gray 0 -1\r\nPING\r\n").unwrap();
        let (mut chunk, mut end, mut sum) = (vec![0; 64 * 1024], Vec::new(), 0);
        // No entry looks like that.
        while !end.ends_with(b"+PONG\r\n") {
            let length = self.0.read(&mut chunk).unwrap();
            assert!(length > 0);
            sum += length;
            end.extend_from_slice(&chunk[..length]);
            end.drain(..end.len().saturating_sub(16));
        }
        sum
    }
}

#[test]
#[ignore = "takes two minutes; prints figures"]
fn a_million_entries_are_refreshed_while_requests_flow() {
    let redis = Redis::start();
    let (pre, prod) = Origin::pre_and_prod();
    redis.push_peers(&pre.address(), &prod.address());
    fill(&redis);
    let gateway = Setup::new()
        .redis(redis.url())
        .set("gateway.workers", 2)
        .start();
    let generation = |at_least: f64| {
        wait_until("a generation", Duration::from_secs(60), || {
            gateway.metric("graygate_lists_generation") >= at_least
        });
    };
    generation(1.0);
    println!("RSS with a million entries: {} KiB", gateway.rss_kib());
    let mut now = gateway.metric("graygate_lists_generation");
    let mut times = Vec::new();
    let mut change = |at: usize| {
        let start = Instant::now();
        redis.push("gray", &[&format!("127.1.0.{at}")]);
        now += 1.0;
        generation(now);
        start.elapsed()
    };
    for at in 0..5 {
        times.push(change(at));
        gateway.wait_served(&format!("127.1.0.{at}"), "pre", Duration::from_secs(1));
    }
    times.sort();
    println!(
        "refresh (target 1.5 s): median {:?}, longest {:?}",
        times[2], times[4]
    );
    let mut rss = vec![gateway.rss_kib()];
    for round in 1..=4 {
        for at in 0..5 {
            change(5 * round + at);
        }
        rss.push(gateway.rss_kib());
    }
    println!(
        "RSS after that, and after every 5 of 20 more: {rss:?} KiB, at its peak {} KiB",
        gateway.peak_rss_kib()
    );

    // In turn, for the machine is not the same at any time.
    let (mut with, mut control) = (Vec::new(), Vec::new());
    for round in 1..=5 {
        let still = || std::thread::sleep(Duration::from_secs(4));
        let without = p99(&gateway, "without a refresh", still);
        let mut taken = Vec::new();
        let during = p99(&gateway, "while refreshing", || {
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(4) {
                taken.push(change(25 * round + taken.len()));
            }
        });
        let pace = taken.iter().sum::<Duration>() / taken.len() as u32;
        // What of that is not the refresh: the work of Redis and of the kernel, and that this test
        // asks the gateway for its metrics all the time.
        let generation = gateway.metric("graygate_lists_generation");
        let others = p99(&gateway, "while only others read as often", || {
            let mut reader = Reader::new(&redis);
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(4) {
                let begun = Instant::now();
                assert!(reader.read() > 10 * MILLION as usize);
                wait_until("the next reading", Duration::from_secs(60), || {
                    gateway.metric("graygate_lists_generation") >= generation
                        && begun.elapsed() >= pace
                });
            }
        });
        println!("a refresh every {pace:?}");
        with.push(during.as_secs_f64() / without.as_secs_f64());
        control.push(others.as_secs_f64() / without.as_secs_f64());
    }
    println!(
        "p99 with and without a refresh (target 1.5): {}",
        spread(with)
    );
    println!("p99 with others and without (control): {}", spread(control));
}
