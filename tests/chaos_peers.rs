//! Servers are killed, stopped, slowed and swapped, reset connections at every stage and come back, while
//! clients go on: no request that can be sent twice may fail while a good server is there, what the gateway
//! counts must add up, and nothing may be left of it all.
//!
//! `scripts/chaos --minutes 10` is the long run; `CHAOS_SEED` repeats its decisions, though not the
//! machine's.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;
mod unrest;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::{Gateway, Redis, Resolver, Setup, free_address, wait_for};
use unrest::accounts::Accounts;
use unrest::clients::{GRAY, Stage};
use unrest::peer::{self, Peer};
use unrest::troubles::{PEERS, Troubles};

const CLIENTS: u64 = 12;

/// Load without any trouble, after which the gateway has what it needs.
const WARM_UP: Duration = Duration::from_secs(3);

/// Idle connections to servers end so soon.
const KEPT: Duration = Duration::from_secs(2);

/// What the gateway may have more of at the end than after the warm-up.
const DESCRIPTORS: usize = 4;
const RESIDENT_KIB: u64 = 8 * 1024;

#[test]
fn a_server_in_a_process_of_its_own() {
    peer::serve_if_asked();
}

#[test]
fn nobody_notices_what_becomes_of_servers() {
    let seconds = number("CHAOS_SECONDS").unwrap_or(20);
    let seed = number("CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let balance = ["random", "least", "hash"][(seed % 3) as usize];
    let fail_timeout = ["1s", "10s"][(seed / 3 % 2) as usize];
    println!("seed {seed}: {seconds} s, balance = {balance}, fail_timeout = {fail_timeout}");

    // A name has one port for all that it means.
    let port = free_address().port();
    let peers: Vec<Peer> = (0..PEERS.iter().sum()).map(|_| Peer::start(port)).collect();
    let names = Resolver::start();
    if names.is_none() {
        println!("without names: they need root");
    }
    // After a restart it has what it had.
    let redis = Redis::start_with_options(&["--appendonly", "yes", "--appendfsync", "always"]);
    redis.push("gray", &[&GRAY]);
    let entries = Troubles::entries(&peers, names.is_some());
    for (key, entries) in ["pre", "prod"].iter().zip(&entries) {
        let entries: Vec<&dyn std::fmt::Display> = entries.iter().map(|it| it as _).collect();
        redis.push(key, &entries);
    }
    let setup = match &names {
        Some(names) => names.under(Setup::new()),
        None => Setup::new(),
    };
    let gateway = setup
        .redis(redis.url())
        .set("upstream.resolve_interval", "200ms")
        .set("redis.check_interval", "1s")
        .set("redis.timeout", "500ms")
        .set("upstream.connect_timeout", "1s")
        .set("upstream.send_timeout", "1s")
        .set("upstream.read_timeout", "1s")
        .set("upstream.balance", balance)
        .set("upstream.fail_timeout", fail_timeout)
        .set("upstream.keepalive_timeout", format!("{}s", KEPT.as_secs()))
        .set("log.access", "off")
        .start();
    gateway.wait_for_health(200, "");
    let accounts = Accounts::default();
    let mut troubles = Troubles::new(seed, redis, names.as_ref(), &gateway, &peers);
    let load = |seed: u64, meanwhile: &mut dyn FnMut()| {
        let done = AtomicBool::new(false);
        let stage = Stage {
            gateway: &gateway,
            peers: &peers,
            accounts: &accounts,
            done: &done,
        };
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let stage = &stage;
                scope.spawn(move || stage.ask(seed ^ client << 40));
            }
            // Also when it fails, or the clients would go on for ever.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
            done.store(true, Ordering::Relaxed);
            if let Err(panic) = outcome {
                std::panic::resume_unwind(panic);
            }
        });
    };
    load(!seed, &mut || std::thread::sleep(WARM_UP));
    let before = Held::by(&gateway);

    load(seed, &mut || {
        troubles.happen_until(Instant::now() + Duration::from_secs(seconds));
    });
    let happened: Vec<String> = troubles
        .counts
        .iter()
        .map(|(it, n)| format!("{n:5} {it}"))
        .collect();
    println!("{}\n{}", happened.join("\n"), accounts.page());

    let after = Held::by(&gateway);
    let mut wrong = accounts.take_wrong();
    wrong.extend(accounts.differences(&gateway));
    println!("before: {before:?}\nafter:  {after:?}");
    assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
    assert!(
        after.descriptors <= before.descriptors + DESCRIPTORS
            && after.resident_kib <= before.resident_kib + RESIDENT_KIB,
        "seed {seed}: {after:?} is more than {before:?}"
    );
    let felt = ["accept-failed", "out-of-descriptors"].map(|it| gateway.stderr.count(it));
    assert!(felt != [0, 0], "it was not short of descriptors");
    assert!(accounts.answered() > 30 * seconds, "too little was done");
}

/// What a gateway holds that has nothing to do.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    resident_kib: u64,
}

impl Held {
    fn by(gateway: &Gateway) -> Self {
        // Nothing is under way, and what is kept has ended.
        wait_for("nothing is kept", || {
            let idle = |name: &str| {
                let of_worker = |it| gateway.metric(&format!("{name}{{worker=\"{it}\"}}"));
                [0, 1].map(of_worker) == [0.0, 0.0]
            };
            let all = [
                "graygate_connections_active",
                "graygate_upstream_connections_idle",
            ];
            all.iter().all(|it| idle(it)).then_some(())
        });
        Self {
            descriptors: gateway.descriptors(),
            resident_kib: gateway.rss_kib(),
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|it| it.parse().unwrap())
}
