//! Random changes and random faults of Redis while clients send requests to two gateways: every answer must
//! be one that the lists allowed, at some moment between the request and its answer.
//!
//! There are several services, each with lists of its own or with the gray list of another, and one that
//! comes and goes by a reload; entries of every kind, some of which end in a few seconds; and salts.
//! `turmoil/model.rs` says what may be in force. Now and then `explain` is asked about a request that was
//! just sent.
//!
//! `CHAOS_SECONDS=600 cargo test --release --test chaos -- --nocapture` is the long run; `CHAOS_SEED`
//! repeats its decisions, though not the machine's.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]
// The run says what it has done.
#![allow(clippy::print_stdout)]

mod support;
mod turmoil;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use support::{Gateway, Redis, Setup};
use turmoil::driver::{ANNOUNCED, Delays, Driver, Peers, RECOVERED, no_keys};
use turmoil::explained::LOG_FORMAT;
use turmoil::machine::MachineClock;
use turmoil::model::{Book, GATEWAYS, InForce, Key, Model};
use turmoil::services::{SERVICES, SETTINGS, key};
use turmoil::traffic::{ask, start_peer};

/// Where the keys are polled, that long before all of this begins.
const POLL: Duration = Duration::from_millis(200);

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|it| it.parse().unwrap())
}

fn start_gateway(redis: &Redis, notify: &str) -> Gateway {
    let mut setup = Setup::new()
        .redis(redis.url())
        .set("redis.notify", notify)
        .set("redis.check_interval", "1s")
        .set("redis.poll_interval", format!("{}ms", POLL.as_millis()))
        .set("redis.timeout", "500ms")
        .set("lists.guard_share", 100)
        .set("gray.expose", "all")
        .set("log.format", LOG_FORMAT);
    for (name, value) in SETTINGS {
        setup = setup.set(name, value);
    }
    setup.start()
}

#[test]
fn every_answer_is_one_that_the_lists_allow_whatever_happens_to_redis() {
    let seconds = number("CHAOS_SECONDS").unwrap_or(10);
    let seed = number("CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..));
    let notify = ["events", "tracking", "poll"][(seed % 3) as usize];
    println!("seed {seed}, notify = {notify}");
    let mut peers = Peers::new();
    let mut keys = no_keys();
    for service in SERVICES {
        for (pool, count) in [("pre", 2), ("prod", 3)] {
            let some: Vec<String> = (0..count).map(|_| start_peer()).collect();
            keys.insert(key(service, pool), Key::of(&some));
            peers.insert((service, pool), some);
        }
    }
    let redis = Redis::start_with_options(&["--enable-debug-command", "local"]);
    let model = Model::new(InForce::default().after(&keys, &Book::new()));
    for (key, entries) in &keys {
        let entries = entries.entries();
        let entries: Vec<&dyn std::fmt::Display> = entries.iter().map(|it| it as _).collect();
        if !entries.is_empty() {
            redis.push(key, &entries);
        }
    }
    let gateways: Vec<Gateway> = (0..GATEWAYS)
        .map(|_| start_gateway(&redis, notify))
        .collect();
    let gateways = &gateways[..];
    let mut driver = Driver {
        rng: Rng::with_seed(seed),
        redis,
        gateways,
        model: &model,
        keys,
        book: Book::new(),
        peers: &peers,
        changes: 0,
        faults: 0,
        explained: 0,
        delays: Delays::default(),
        announced: match notify {
            "poll" => ANNOUNCED + POLL,
            _ => ANNOUNCED,
        },
        clock: MachineClock::start(),
    };
    driver.settle("start", RECOVERED);
    let done = AtomicBool::new(false);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for at in 0..4 {
            let (model, done) = (&model, &done);
            scope.spawn(move || ask(gateways, model, done, seed ^ at));
        }
        // Also when it fails, or the clients would go on for ever.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while begun.elapsed() < Duration::from_secs(seconds) {
                driver.step();
            }
        }));
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    report(&mut driver, seconds, seed);
}

fn report(driver: &mut Driver<'_>, seconds: u64, seed: u64) {
    let model = driver.model;
    let [requests, near_ends] =
        [&model.requests, &model.near_ends].map(|it| it.load(Ordering::Relaxed));
    let violations = model.violations.lock().unwrap();
    println!(
        "{seconds} s: {requests} requests, {near_ends} of them near the end of an entry, {} explained, \
         {} changes, {} faults, {} violations, the machine stood still for {:?} at most, seed {seed}",
        driver.explained,
        driver.changes,
        driver.faults,
        violations.len(),
        driver.clock.stood()
    );
    for (kind, delays) in &mut driver.delays.0 {
        delays.sort();
        let (median, most) = (delays[delays.len() / 2], delays[delays.len() - 1]);
        println!(
            "{kind:12} {:5} times: in force after {median:?} (median), {most:?} (most)",
            delays.len()
        );
    }
    assert!(violations.is_empty(), "{violations:#?}");
    assert!(requests > 100 && driver.changes > 10, "too little was done");
}
