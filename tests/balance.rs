//! `[upstream] balance`: which of the servers that are well a request goes to.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;
use support::{DEADLINE, Gateway, Origin, Setup, ok, wait_until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// An origin that takes so long for an answer, and closes without one while it is ill.
fn taking(pause: Duration, is_ill: &Arc<AtomicBool>) -> Origin {
    let is_ill = Arc::clone(is_ill);
    Origin::scripted(move |conn| {
        while conn.request()?.is_some() {
            if is_ill.load(Ordering::SeqCst) {
                return Ok(());
            }
            thread::sleep(pause);
            conn.send(ok("fine"))?;
        }
        Ok(())
    })
}

/// Three origins that are well, and take so long.
fn others(pause: Duration) -> [Origin; 3] {
    [(); 3].map(|()| taking(pause, &Arc::default()))
}

/// The share of `origin` of so many requests on each of so many connections at once.
fn share(gateway: &Gateway, origin: &Origin, connections: usize, times: usize) -> f64 {
    let before = origin.seen(|it| it.requests.len());
    thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut client = gateway.connect();
                for _ in 0..times {
                    assert_eq!(client.ask(GET).status(), 200);
                }
            });
        }
    });
    let count = origin.seen(|it| it.requests.len()) - before;
    count as f64 / (connections * times) as f64
}

#[test]
fn least_gives_a_slow_server_less() {
    for (balance, expected) in [("random", 0.18..0.32), ("least", 0.0..0.14)] {
        let slow = taking(Duration::from_millis(50), &Arc::default());
        let fast = others(Duration::ZERO);
        let gateway = Setup::new()
            .set("upstream.balance", balance)
            .lists(&[], &[], &[&slow, &fast[0], &fast[1], &fast[2]])
            .start();
        let share = share(&gateway, &slow, 8, 125);
        assert!(expected.contains(&share), "{balance}: {share}");
    }
}

/// It is the one with the fewest requests under way, and so would get the more the fewer it gets.
#[test]
fn no_balance_gives_a_server_that_is_back_more_than_its_small_share() {
    for balance in ["random", "least"] {
        let is_ill = Arc::new(AtomicBool::new(true));
        let pause = Duration::from_millis(5);
        let (back, others) = (taking(pause, &is_ill), others(pause));
        let gateway = Setup::new()
            .set("upstream.balance", balance)
            .set("upstream.fail_timeout", "100ms")
            .set("upstream.slow_start", "1h")
            .lists(&[], &[], &[&back, &others[0], &others[1], &others[2]])
            .start();
        let ask_until = |what| {
            let mut client = gateway.connect();
            wait_until(what, DEADLINE, || {
                client.ask(GET);
                gateway.stderr.count(what) == 1
            });
        };
        ask_until(" peer-out ");
        is_ill.store(false, Ordering::SeqCst);
        ask_until(" peer-back ");
        // A tenth of that of the others is 0.032.
        let share = share(&gateway, &back, 32, 125);
        assert!((0.015..0.046).contains(&share), "{balance}: {share}");
    }
}

#[test]
fn hash_keeps_each_client_at_its_server_and_one_that_goes_moves_only_its_own() {
    const NAMES: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let origins = NAMES.map(Origin::named);
    let all: Vec<&dyn Display> = origins.iter().map(|it| it as &dyn Display).collect();
    let gateway = Setup::new()
        .set("gateway.workers", 2)
        .set("upstream.balance", "hash")
        .set("lists.guard_share", 100)
        .lists(&[], &[], &all)
        .start();
    let of_each = || {
        let clients = (0..200_u8).map(|it| format!("127.3.{}.{}", it % 7, it + 1));
        let asked = clients.map(|it| (gateway.get(&it, "/").text(), it));
        asked
            .map(|(name, client)| (client, name))
            .collect::<BTreeMap<_, _>>()
    };
    let before = of_each();
    assert_eq!(of_each(), before, "whichever worker it is");
    gateway.write_lists(&[], &[], &all[1..]);
    gateway.wait_for_lists("nine", |it| it["generation"] == json!(2));
    let after = of_each();
    let moved = before.iter().filter(|(it, name)| after[*it] != **name);
    let (moved, of_gone): (Vec<_>, Vec<_>) = (
        moved.collect(),
        before.iter().filter(|(_, name)| *name == "0").collect(),
    );
    assert_eq!(moved, of_gone);
    assert!((5..45).contains(&moved.len()), "{}", moved.len());
}
