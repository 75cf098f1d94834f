//! Servers by their names: a name server of the test's own, the gateway's real resolver, and what becomes
//! of requests.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use support::{
    Client, CopyFolder, DEADLINE, Gateway, Origin, Redis, RefusingPeer, Resolver, Setup,
    free_address, wait_until,
};

const NAME: &str = "app1.internal";

/// Origins on hosts of their own, all at one port, each with its number as its name.
fn origins(count: usize) -> Vec<Origin> {
    let port = free_address().port();
    let origin = |at: usize| {
        let address = SocketAddr::new(free_address().ip(), port);
        Origin::named_at(address, &at.to_string())
    };
    (0..count).map(origin).collect()
}

fn ips(origins: &[Origin]) -> Vec<IpAddr> {
    origins.iter().map(|it| it.address().ip()).collect()
}

fn named(origins: &[Origin], name: &str) -> String {
    format!("{name}:{}", origins[0].address().port())
}

/// A gateway on this Redis that asks this server often.
fn setup(resolver: &Resolver, redis: &Redis) -> Setup {
    let setup = resolver.under(Setup::new().redis(redis.url()));
    setup.set("upstream.resolve_interval", "100ms")
}

/// GETs without a pause, until this is ended.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn on(gateway: &Gateway, source: &'static str) -> Self {
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let addr = gateway.addr();
        let thread = |_| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                let mut client = Client::from(source, addr);
                while !stop.load(Ordering::Relaxed) {
                    let response = client.get("/");
                    done.fetch_add(1, Ordering::Relaxed);
                    if response.status() != 200 {
                        failures.push(format!("{} {}", response.status(), response.text()));
                    }
                }
                failures
            })
        };
        let threads = (0..4).map(thread).collect();
        Self {
            stop,
            done,
            threads,
        }
    }

    /// Waits for so many more.
    fn wait(&self, more: usize) {
        let until = self.done.load(Ordering::Relaxed) + more;
        wait_until("requests", 3 * DEADLINE, || {
            self.done.load(Ordering::Relaxed) >= until
        });
    }

    /// Ends it: no request has failed.
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            assert_eq!(thread.join().unwrap(), [""; 0]);
        }
    }
}

/// Which origins answer at present.
fn answering(gateway: &Gateway, source: &str) -> Vec<String> {
    let mut names: Vec<String> = (0..40).map(|_| gateway.get(source, "/").text()).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn all_addresses_of_a_name_serve_and_it_is_pointed_elsewhere_under_load_without_a_failed_request() {
    let Some(resolver) = Resolver::start() else {
        return;
    };
    let (redis, origins) = (Redis::start(), origins(4));
    let all = ips(&origins);
    resolver.set(NAME, &all[..2]);
    redis.push(
        "prod",
        &[&format!("{} weight=7", named(&origins, "App1.Internal"))],
    );
    let gateway = setup(&resolver, &redis).start();
    gateway.wait_for_log(&format!("name-resolved name={NAME} addresses="));
    assert_eq!(answering(&gateway, "127.0.0.1"), ["0", "1"]);
    let lists = gateway.lists();
    let entry = format!("{} weight=7", named(&origins, NAME));
    assert_eq!(lists["prod"], json!([entry]));
    assert_eq!(lists["written"]["prod"], json!([entry]));
    let peers: serde_json::Value = serde_json::from_str(&gateway.admin_get("/peers").1).unwrap();
    let text = peers.to_string();
    for ip in &all[..2] {
        assert!(text.contains(&ip.to_string()), "{text}");
    }
    assert!(text.contains(NAME), "{text}");

    let load = Load::on(&gateway, "127.0.0.1");
    let generation = lists["generation"].clone();
    for (now, then) in [
        (&all[1..3], ["1", "2"]),
        (&all[2..4], ["2", "3"]),
        (&all[..2], ["0", "1"]),
    ] {
        load.wait(100);
        resolver.set(NAME, now);
        wait_until("the new addresses serve, and they alone", DEADLINE, || {
            answering(&gateway, "127.0.0.1") == then
        });
    }
    load.wait(100);
    load.end();
    // Other peers are no other lists.
    assert_eq!(gateway.lists()["generation"], generation);
    // Once a change.
    assert_eq!(gateway.stderr.count("name-resolved"), 4);
    gateway.wait_for_metric("graygate_names{state=\"resolved\"}", 1.0);
    assert!(gateway.metric("graygate_name_lookups_total{outcome=\"resolved\"}") >= 4.0);
}

#[test]
fn the_last_addresses_stay_while_a_name_cannot_be_resolved_and_that_is_seen() {
    let Some(resolver) = Resolver::start() else {
        return;
    };
    let (redis, origins) = (Redis::start(), origins(2));
    let all = ips(&origins);
    resolver.set(NAME, &all[..1]);
    redis.push("prod", &[&named(&origins, NAME)]);
    let gateway = setup(&resolver, &redis).start();
    let load = Load::on(&gateway, "127.0.0.1");
    // An error, an answer without an address, one whose address is nobody's, and no such name.
    resolver.fail(NAME);
    let line = gateway.wait_for_log(&format!("name-unresolved name={NAME} error="));
    assert!(line.contains(&format!("kept=\"{}\"", all[0])), "{line}");
    let page = gateway.wait_for_lists("a finding", |it| {
        it["findings"]["count"]["name-unresolved"] == 1
    });
    let first = &page["findings"]["first"][0];
    assert_eq!(
        (&first["entry"], &first["list"]),
        (&json!(NAME), &json!(null))
    );
    let text = first["text"].as_str().unwrap();
    assert!(
        text.contains(&format!("its last addresses stay: {}", all[0])),
        "{text}"
    );
    gateway.wait_for_metric("graygate_names{state=\"kept\"}", 1.0);
    gateway.wait_for_metric("graygate_lists_findings{finding=\"name-unresolved\"}", 1.0);
    resolver.set(NAME, &[]);
    gateway.wait_for_log(
        "error=\"failed to lookup address information: No address associated with hostname\"",
    );
    resolver.set(
        NAME,
        &["0.0.0.0".parse().unwrap(), "224.0.0.1".parse().unwrap()],
    );
    gateway.wait_for_log("error=\"0.0.0.0 is an address that nobody can connect to\"");
    load.wait(100);
    load.end();
    // Where others can be used, those are left out.
    resolver.set(NAME, &[all[1], "0.0.0.0".parse().unwrap()]);
    gateway.wait_for_log(&format!("name-resolved name={NAME} addresses={} ", all[1]));
    gateway.wait_for_log(&format!(
        "name-address-skipped name={NAME} address=0.0.0.0 reason=\"an address that nobody can connect to\""
    ));
    wait_until("the other one serves", DEADLINE, || {
        answering(&gateway, "127.0.0.1") == ["1"]
    });
    gateway.wait_for_metric("graygate_names{state=\"kept\"}", 0.0);
    gateway.wait_for_lists("no finding", |it| {
        it["findings"]["count"].get("name-unresolved").is_none()
    });
}

#[test]
fn all_of_pre_is_replaced_by_names_under_load_without_a_failed_request_or_one_to_prod() {
    let Some(resolver) = Resolver::start() else {
        return;
    };
    let (redis, origins) = (Redis::start(), origins(3));
    let all = ips(&origins);
    let prod = Origin::named("prod");
    redis.push("gray", &[&"127.0.0.5"]);
    redis.push_peers(&origins[0], &prod);
    let gateway = setup(&resolver, &redis)
        .set("redis.check_interval", "1h")
        .start();
    gateway.wait_served("127.0.0.5", "0", DEADLINE);
    let load = Load::on(&gateway, "127.0.0.5");
    load.wait(100);
    // The server takes its time.
    resolver.take(Duration::from_millis(500));
    resolver.set(NAME, &all[1..2]);
    resolver.set("app2.internal", &all[2..]);
    let mut change = redis::pipe();
    change.atomic().cmd("DEL").arg("pre").ignore();
    for name in [NAME, "app2.internal"] {
        change
            .cmd("RPUSH")
            .arg("pre")
            .arg(named(&origins, name))
            .ignore();
    }
    change.exec(&mut redis.connect(0)).unwrap();
    let new = json!([named(&origins, NAME), named(&origins, "app2.internal")]);
    gateway.wait_for_lists("the new lists", |it| it["pre"] == new);
    assert_eq!(answering(&gateway, "127.0.0.5"), ["1", "2"]);
    load.wait(100);
    load.end();
    assert_eq!(prod.requests().len(), 0);
}

#[test]
fn a_name_that_hangs_or_does_not_exist_holds_up_lists_for_a_moment_and_has_no_servers() {
    let Some(resolver) = Resolver::start() else {
        return;
    };
    let (redis, prod) = (Redis::start(), Origin::named("prod"));
    redis.push("gray", &[&"127.0.0.5"]);
    redis.push("prod", &[&prod]);
    resolver.hang("slow.internal");
    redis.push("pre", &[&"slow.internal", &"none.internal"]);
    let begun = Instant::now();
    let gateway = setup(&resolver, &redis).start();
    // Two seconds at most, as has the look at the store.
    assert!(
        begun.elapsed() < Duration::from_secs(6),
        "{:?}",
        begun.elapsed()
    );
    gateway.wait_for_log("name-unresolved name=none.internal error=\"failed to lookup");
    gateway
        .wait_for_log("name-unresolved name=slow.internal error=\"no answer within 2s\" kept=\"\"");
    gateway.wait_served("127.0.0.5", "prod", DEADLINE);
    gateway.wait_for_metric("graygate_names{state=\"unresolved\"}", 2.0);
    gateway.wait_for_lists("both are findings", |it| {
        it["findings"]["count"]["name-unresolved"] == 2
    });
    // A rollback does not wait for what is known to hang.
    let begun = Instant::now();
    redis.cli(&["DEL", "gray"]);
    gateway.wait_for_lists("nobody is gray", |it| it["gray"] == json!([]));
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    // Another one hangs: that is told now, and waited for less.
    resolver.hang("slow2.internal");
    let begun = Instant::now();
    redis.push("pre", &[&"slow2.internal"]);
    gateway.wait_for_lists("three", |it| it["pre"].as_array().unwrap().len() == 3);
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    // And when they are resolved at last, they serve.
    let origins = origins(1);
    redis.cli(&["DEL", "pre"]);
    redis.push("pre", &[&named(&origins, "none.internal")]);
    redis.push("gray", &[&"127.0.0.5"]);
    resolver.set("none.internal", &ips(&origins));
    gateway.wait_served("127.0.0.5", "0", DEADLINE);
}

#[test]
fn where_no_name_of_prod_was_ever_resolved_nobody_is_served_and_health_says_so() {
    let Some(resolver) = Resolver::start() else {
        return;
    };
    let (redis, origins) = (Redis::start(), origins(1));
    redis.push("prod", &[&named(&origins, NAME)]);
    let gateway = setup(&resolver, &redis).start();
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 503);
    let reason = "no-peers: no name in prod has an address\n";
    assert_eq!(gateway.admin_get("/healthz"), (503, reason.to_owned()));
    resolver.set(NAME, &ips(&origins));
    gateway.wait_served("127.0.0.1", "0", DEADLINE);
    assert_eq!(gateway.admin_get("/healthz").0, 200);
}

#[test]
fn a_start_without_redis_and_resolver_serves_by_the_addresses_in_the_copy() {
    let Some(resolver) = Resolver::start() else {
        return;
    };
    let (redis, origins, folder) = (Redis::start(), origins(1), CopyFolder::new());
    resolver.set(NAME, &ips(&origins));
    redis.push("prod", &[&named(&origins, NAME)]);
    let gateway = folder.set(setup(&resolver, &redis)).start();
    gateway.wait_served("127.0.0.1", "0", DEADLINE);
    gateway.end();
    let url = redis.url();
    drop(redis);
    resolver.be_silent(true);
    let begun = Instant::now();
    let again = resolver
        .under(Setup::new().redis(url))
        .set("redis.timeout", "500ms");
    let gateway = folder.set(again).start();
    assert!(
        begun.elapsed() < Duration::from_secs(6),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(gateway.get("127.0.0.1", "/").text(), "0");
    gateway.wait_for_log("lists-from-copy");
    gateway.wait_for_metric("graygate_names{state=\"kept\"}", 1.0);
    resolver.be_silent(false);
    gateway.wait_for_log(&format!("name-resolved name={NAME}"));
}

#[test]
fn names_are_asked_for_in_their_interval_which_a_reload_changes() {
    let Some(resolver) = Resolver::start() else {
        return;
    };
    let (redis, origins) = (Redis::start(), origins(1));
    resolver.set(NAME, &ips(&origins));
    redis.push("prod", &[&named(&origins, NAME)]);
    let mut gateway = setup(&resolver, &redis)
        .set("upstream.resolve_interval", "1h")
        .start();
    gateway.wait_served("127.0.0.1", "0", DEADLINE);
    let before = resolver.asked(NAME);
    assert_eq!(before, 1);
    gateway.edit_ini(|it| it.set("upstream.resolve_interval", "100ms"));
    gateway.signal(nix::sys::signal::Signal::SIGHUP);
    wait_until("it is asked for again and again", DEADLINE, || {
        resolver.asked(NAME) >= before + 3
    });
}

/// Its servers were replaced, and the old ones are gone.
#[test]
fn a_name_none_of_whose_servers_answers_is_asked_for_at_once() {
    let Some(resolver) = Resolver::start() else {
        return;
    };
    let (redis, mut old) = (Redis::start(), origins(3));
    let new = old.split_off(2);
    resolver.set(NAME, &ips(&old));
    redis.push("prod", &[&named(&old, NAME)]);
    let setup = setup(&resolver, &redis).set("upstream.resolve_interval", "1h");
    let gateway = setup.start();
    assert!(["0", "1"].contains(&&*gateway.get("127.0.0.1", "/").text()));
    resolver.set(NAME, &ips(&new));
    drop(old);
    gateway.wait_served("127.0.0.1", "2", DEADLINE);
}

#[test]
fn a_change_of_names_that_is_held_is_known_when_it_is_accepted() {
    let Some(resolver) = Resolver::start() else {
        return;
    };
    let (redis, origins) = (Redis::start(), origins(2));
    let all = ips(&origins);
    redis.push("prod", &[&origins[0]]);
    let gateway = setup(&resolver, &redis).start();
    gateway.wait_served("127.0.0.1", "0", DEADLINE);
    resolver.set(NAME, &all[1..]);
    let mut change = redis::pipe();
    change.atomic().cmd("DEL").arg("prod").ignore();
    change
        .cmd("RPUSH")
        .arg("prod")
        .arg(named(&origins, NAME))
        .ignore();
    change.exec(&mut redis.connect(0)).unwrap();
    let page = gateway.wait_for_lists("it is held", |it| it["held"] != json!([]));
    let held = &page["held"][0];
    assert_eq!(held["new"]["first"], json!([named(&origins, NAME)]));
    let load = Load::on(&gateway, "127.0.0.1");
    redis.cli(&["SET", "graygate:accept", held["digest"].as_str().unwrap()]);
    gateway.wait_served("127.0.0.1", "1", DEADLINE);
    load.wait(50);
    load.end();
}

#[test]
fn a_name_shares_a_pool_with_addresses_and_a_peer_of_both_is_one() {
    let Some(resolver) = Resolver::start() else {
        return;
    };
    let (redis, origins, dead) = (Redis::start(), origins(2), RefusingPeer::new());
    let all = ips(&origins);
    resolver.set(NAME, &all);
    let port = origins[0].address().port();
    redis.push("prod", &[&origins[0], &NAME, &dead]);
    let gateway = setup(&resolver, &redis)
        .set("upstream.peer_port", port)
        .start();
    assert_eq!(answering(&gateway, "127.0.0.1"), ["0", "1"]);
    let count = |text: &str| gateway.admin_get("/peers").1.matches(text).count();
    assert_eq!(count(&format!("\"{}\"", origins[0])), 1);
    // Without the name, the other one has gone.
    redis.cli(&["LREM", "prod", "0", NAME]);
    wait_until("one is left", DEADLINE, || {
        answering(&gateway, "127.0.0.1") == ["0"]
    });
    let asked = resolver.asked_in_all();
    gateway.wait_for_metric("graygate_names{state=\"resolved\"}", 0.0);
    // Nobody asks for it any more, but for what was under way.
    wait_until("requests", DEADLINE, || {
        gateway.get("127.0.0.1", "/").text() == "0"
    });
    assert!(resolver.asked_in_all() <= asked + 1);
}

#[test]
fn names_that_hang_do_not_hold_up_others() {
    let Some(resolver) = Resolver::start() else {
        return;
    };
    let (redis, origins) = (Redis::start(), origins(3));
    let all = ips(&origins);
    resolver.set(NAME, &all[..1]);
    redis.push("prod", &[&named(&origins, NAME)]);
    let bad = (0..40).map(|at| format!("bad{at}.internal"));
    for name in bad {
        resolver.hang(&name);
        redis.push("pre", &[&name]);
    }
    let gateway = setup(&resolver, &redis).start();
    let count = "graygate_names{state=\"unresolved\"}";
    gateway.wait_for_metric(count, 40.0);
    gateway.wait_served("127.0.0.1", "0", 2 * DEADLINE);
    let load = Load::on(&gateway, "127.0.0.1");
    for at in [1, 0, 1] {
        resolver.set(NAME, &all[at..=at]);
        // No answer comes for a name that hangs within 8 s.
        gateway.wait_served("127.0.0.1", &at.to_string(), 2 * DEADLINE);
    }
    let begun = Instant::now();
    resolver.set(NAME, &all[..1]);
    gateway.wait_served("127.0.0.1", "0", DEADLINE);
    resolver.set("new.internal", &all[2..]);
    let mut change = redis::pipe();
    change.atomic().cmd("DEL").arg("pre").ignore();
    let new = named(&origins, "new.internal");
    change.cmd("RPUSH").arg("pre").arg(new).ignore();
    change.cmd("RPUSH").arg("gray").arg("127.0.0.5").ignore();
    change.exec(&mut redis.connect(0)).unwrap();
    gateway.wait_served("127.0.0.5", "2", DEADLINE);
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    load.end();
}
