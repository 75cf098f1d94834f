//! Releases on three gateways and one Redis, while at random moments Redis is killed (and has kept all, all
//! but its last second, or nothing), gateways are killed or stand still, the network of one is cut or hangs,
//! clocks are set, and people pause, freeze, abort and reset: never a step twice, none back up, none too
//! early, none after an end; and no trip is lost, even if the gateway that has decided it is killed right
//! then.
//!
//! `CHAOS_SECONDS=600 cargo test --test chaos_release -- --nocapture` is the long run; `CHAOS_SEED` repeats
//! its decisions, though not the machine's.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]
// The run says what it has done.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod storm;
mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use storm::driver::Driver;
use storm::model::Model;
use storm::node::Node;
use storm::server::{Keeps, Server};
use storm::version::Version;
use storm::{NODES, clients, monitor};

/// So many versions take turns.
const VERSIONS: usize = 4;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|it| it.parse().unwrap())
}

#[test]
fn no_step_is_taken_twice_and_no_trip_is_lost_whatever_fails() {
    let seconds = number("CHAOS_SECONDS").unwrap_or(10);
    let is_long = seconds > 60;
    let seed = number("CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let keeps = Keeps::ALL[(seed % 3) as usize];
    println!("seed {seed}: {seconds} s, redis keeps {keeps:?}");
    let mut rng = Rng::with_seed(seed);
    let server = Server::start(keeps);
    let (address, writers) = (server.address(), Arc::new(Mutex::new(HashMap::new())));
    let nodes: Vec<Node> = (0..NODES)
        .map(|it| Node::new(it, address, &writers))
        .collect();
    if nodes.iter().any(|it| it.clock.is_none()) {
        println!("no clock is set: that takes cc");
    }
    let versions: Vec<Version> = (0..VERSIONS).map(Version::start).collect();
    let (model, done, asked) = (
        Arc::new(Model::new()),
        AtomicBool::new(false),
        AtomicU64::new(0),
    );
    let (model, done, asked) = (&model, &done, &asked);
    let mut rounds = 0;
    std::thread::scope(|scope| {
        let writers = &writers;
        scope.spawn(move || monitor::follow(address, writers, model, done));
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut driver = Driver::new(rng.fork(), model, server, &nodes, &versions);
            driver.fill();
            for node in &nodes {
                node.start(model);
                let seed = rng.u64(..);
                scope.spawn(move || clients::ask(node, model, done, asked, seed));
            }
            driver.ambush();
            let end = Instant::now() + Duration::from_secs(seconds);
            while Instant::now() < end && model.violations().is_empty() {
                driver.begin();
                let left = end.saturating_duration_since(Instant::now());
                let length = Duration::from_millis(rng.u64(5000..25_000));
                driver.storm(length.min(left.max(Duration::from_secs(5))));
                driver.conclude(is_long);
                rounds += 1;
            }
        }));
        // Also when it fails, or the others would go on for ever.
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    let (counts, violations) = (model.counts(), model.violations());
    let asked = asked.load(Ordering::Relaxed);
    println!("{seconds} s, seed {seed}, redis keeps {keeps:?}: {rounds} rounds, {asked} requests");
    for (what, count) in &counts {
        println!("{count:6} {what}");
    }
    println!("{:6} violations", violations.len());
    assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
    let count = |it: &str| counts.get(it).copied().unwrap_or_default();
    assert!(rounds > 0 && asked > 100 && count("rollouts") > 0);
    let of_all = ["steps", "went on", "trips that had to hold"];
    assert!(!is_long || of_all.iter().all(|it| count(it) > 0));
}
