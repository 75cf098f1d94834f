//! How soon a change in a real Redis is in force, while requests flow: lone changes, and storms.
//! Prints figures, and asserts only that each change does come into force:
//!
//! `cargo test --release --test propagation -- --ignored --nocapture --test-threads 1`
//!
//! The load is four kept connections that send 500 requests a second each, by the clock, so that
//! the machine has some air. A change is in force when the client that it is about gets its first
//! response from the other pool; that client asks again and again. So each figure includes a whole
//! request and response.

// Not only within #[test] functions, which clippy.toml exempts.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::{Client, DEADLINE, Site};

const CLIENTS: u8 = 4;

/// Between two requests of one client of the load.
const GAP: Duration = Duration::from_millis(2);

/// Entries that stand in the list all the time.
const OTHERS: u32 = 1000;

/// Pushes, each of which is undone, too.
const PUSHES: u32 = 2000;

const STORMS: u32 = 10;

/// In one second.
const IN_A_STORM: u32 = 10_000;

/// Sends requests by the clock until told to end; returns how long each took.
fn load(site: &Site, at: u8, end: &AtomicBool) -> Vec<Duration> {
    let mut client = site.gateway.connect_from(&format!("127.0.0.{}", 200 + at));
    let mut due = Instant::now() + GAP * u32::from(at) / u32::from(CLIENTS);
    let mut all = Vec::new();
    while !end.load(Ordering::Relaxed) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let start = Instant::now();
        assert_eq!(client.get("/").text(), "prod");
        all.push(start.elapsed());
        // What could not be sent in time is not made up for.
        due = (due + GAP).max(Instant::now());
    }
    all
}

/// Does something under load, and prints what the load's requests took.
fn under_load<T>(site: &Site, act: impl FnOnce() -> T) -> T {
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let end = &end;
        let start = Instant::now();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|at| scope.spawn(move || load(site, at, end)))
            .collect();
        let outcome = act();
        end.store(true, Ordering::Relaxed);
        let all = clients.into_iter().flat_map(|it| it.join().unwrap());
        let all: Vec<Duration> = all.collect();
        let rate = all.len() as f64 / start.elapsed().as_secs_f64();
        report(&format!("  load, {rate:.0} requests a second:"), all);
        outcome
    })
}

fn report(what: &str, mut all: Vec<Duration>) {
    all.sort();
    let ms = |at: usize| all[at.min(all.len() - 1)].as_secs_f64() * 1000.0;
    println!(
        "{what:36} n {:6}  median {:6.2} ms  p99 {:6.2} ms  longest {:6.2} ms",
        all.len(),
        ms(all.len() / 2),
        ms(all.len() * 99 / 100),
        ms(all.len())
    );
}

/// Time from `since` until `client` gets its first response from `pool`.
fn lag(client: &mut Client, pool: &str, since: Instant) -> Duration {
    while client.get("/").text() != pool {
        assert!(since.elapsed() < DEADLINE, "no {pool}");
    }
    since.elapsed()
}

fn site() -> Site {
    let site = Site::by_events();
    site.gateway
        .wait_for_lists("events", |it| it["mode"] == "events");
    let mut push = redis::cmd("RPUSH");
    push.arg("gray");
    push.arg((0..OTHERS).map(other).collect::<Vec<_>>());
    push.exec(&mut site.redis.connect(0)).unwrap();
    site.gateway.wait_for_lists("the other entries", |it| {
        it["gray"]
            .as_array()
            .is_some_and(|it| it.len() == OTHERS as usize)
    });
    site
}

/// An entry that is about nobody.
fn other(at: u32) -> String {
    Ipv4Addr::from_bits(10 << 24 | at).to_string()
}

#[test]
#[ignore = "takes half a minute; prints figures"]
fn lone_changes_are_in_force_in_a_moment() {
    let site = site();
    let mut connection = site.redis.connect(0);
    let before = site.refreshes("event");
    let (mut pushed, mut removed) = (Vec::new(), Vec::new());
    under_load(&site, || {
        for at in 0..PUSHES {
            let address = Ipv4Addr::new(127, 1, (at / 250) as u8, (at % 250) as u8 + 1);
            let mut client = site.gateway.connect_from(&address.to_string());
            assert_eq!(client.get("/").text(), "prod");
            for (command, pool, lags) in [
                (&["LPUSH", "gray"][..], "pre", &mut pushed),
                (&["LREM", "gray", "0"], "prod", &mut removed),
            ] {
                // Changes come when they come, not in step with the readings.
                std::thread::sleep(Duration::from_micros(fastrand::u64(..8000)));
                let mut change = redis::cmd(command[0]);
                change.arg(&command[1..]).arg(address.to_string());
                change.exec(&mut connection).unwrap();
                lags.push(lag(&mut client, pool, Instant::now()));
            }
        }
    });
    report("LPUSH until the first request by it:", pushed);
    report("LREM, likewise:", removed);
    println!("target:                              median 2 ms, p99 10 ms");
    let readings = site.refreshes("event") - before;
    println!("readings: {readings} for {} changes", 2 * PUSHES);
}

#[test]
#[ignore = "takes half a minute; prints figures"]
fn the_newest_state_is_in_force_soon_after_a_storm() {
    let site = site();
    let mut connection = site.redis.connect(0);
    let (mut lags, mut readings) = (Vec::new(), Vec::new());
    let mut client = site.gateway.connect_from("127.0.0.9");
    under_load(&site, || {
        for _ in 0..STORMS {
            let before = site.refreshes("event");
            let start = Instant::now();
            for at in (0..IN_A_STORM).step_by(100) {
                let due = start + Duration::from_micros(100 * u64::from(at));
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let mut pipe = redis::pipe();
                for at in at..at + 100 {
                    pipe.cmd("LPUSH").arg("gray").arg(other(OTHERS + at));
                }
                pipe.exec(&mut connection).unwrap();
            }
            redis::cmd("LPUSH")
                .arg("gray")
                .arg("127.0.0.9")
                .exec(&mut connection)
                .unwrap();
            lags.push(lag(&mut client, "pre", Instant::now()));
            readings.push(site.refreshes("event") - before);
            // As before the storm.
            let mut trim = redis::cmd("LTRIM");
            trim.arg("gray").arg(-i64::from(OTHERS)).arg(-1);
            trim.exec(&mut connection).unwrap();
            lag(&mut client, "prod", Instant::now());
        }
    });
    report("end of a storm until in force:", lags);
    println!("target:                              longest 100 ms");
    println!("readings in a storm of {IN_A_STORM} pushes in a second: {readings:?}");
}
