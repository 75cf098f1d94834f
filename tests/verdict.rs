//! Whether the new version is worse than the old one: found within seconds where it is, and not found where
//! it is not, nor where both fail; and told on the page, by the command, in the log, in metrics and
//! heartbeats.
//!
//! A second is a block, so tests wait for what the page says.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{
    Client, DEADLINE, Gateway, Origin, Redis, Relay, Setup, ok, poll, run_to_exit, wait_for,
    wait_until,
};

/// Clients in one round, of each version.
const CLIENTS: usize = 40;

/// An origin of which one of `every` answers is a failure, while that is not 0.
struct Version {
    origin: Origin,
    every: Arc<AtomicUsize>,
    /// Health checks fail.
    is_sick: Arc<AtomicBool>,
}

impl Version {
    fn new() -> Self {
        let every = Arc::new(AtomicUsize::new(0));
        let (of_origin, asked) = (Arc::clone(&every), AtomicUsize::new(0));
        let is_sick = Arc::new(AtomicBool::new(false));
        let fails_checks = Arc::clone(&is_sick);
        let origin = Origin::answering(move |request| {
            if request.head.target() == "/healthz" {
                return match fails_checks.load(Ordering::Relaxed) {
                    true => b"HTTP/1.1 503 Sick\r\nContent-Length: 0\r\n\r\n".to_vec(),
                    false => ok("well"),
                };
            }
            let every = of_origin.load(Ordering::Relaxed);
            let number = asked.fetch_add(1, Ordering::Relaxed);
            match every > 0 && number.is_multiple_of(every) {
                true => b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec(),
                false => ok("fine"),
            }
        });
        Self {
            origin,
            every,
            is_sick,
        }
    }

    fn fail_one_of(&self, every: usize) {
        self.every.store(every, Ordering::Relaxed);
    }
}

/// Requests for both versions, each of another client until they are used up.
struct Load {
    client: Client,
    round: usize,
}

/// Rounds in which every client is another one.
const ROUNDS: usize = 200;

impl Load {
    /// By way of a proxy that the gateway trusts.
    fn of(gateway: &Gateway, first: usize) -> Self {
        Self {
            client: gateway.connect(),
            round: first,
        }
    }

    /// One request of each of so many clients for each version, all at once.
    fn round(&mut self) {
        let mut requests = String::new();
        for at in 0..CLIENTS {
            let number = (self.round % ROUNDS) * CLIENTS + at;
            let (high, low) = (number / 250, number % 250 + 1);
            for net in [1, 2] {
                requests += &format!(
                    "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.{net}.{high}.{low}\r\n\r\n"
                );
            }
        }
        self.round += 1;
        self.client.send(requests);
        for _ in 0..2 * CLIENTS {
            self.client.response();
        }
    }
}

fn setup() -> Setup {
    Setup::new()
        .one_worker()
        .set("gateway.trusted_proxies", "127.0.0.0/8")
        .set("upstream.max_fails", 0)
        // Six good requests are enough.
        .set("verdict.tolerate", "50%")
}

/// Those in 10.1.0.0/16 get the new version.
const GRAY: &str = "10.1.0.0/16";

fn start(setup: Setup, pre: &Version, prod: &Version) -> Gateway {
    let setup = setup.lists(&[GRAY], &[&pre.origin], &[&prod.origin]);
    setup.start()
}

/// What the page says of the default service.
#[track_caller]
fn verdict(gateway: &Gateway) -> Value {
    let (status, text) = gateway.admin_get("/verdict");
    assert_eq!(status, 200, "{text}");
    let page: Value = serde_json::from_str(&text).unwrap();
    page["services"][0].clone()
}

fn state(gateway: &Gateway) -> String {
    verdict(gateway)["state"].as_str().unwrap().to_owned()
}

/// Sends rounds until the page says so.
#[track_caller]
fn load_until(what: &str, gateway: &Gateway, load: &mut Load, holds: impl Fn(&Value) -> bool) {
    wait_until(what, DEADLINE, || {
        load.round();
        holds(&verdict(gateway))
    });
}

fn is(wanted: &'static str) -> impl Fn(&Value) -> bool {
    move |it| it["state"] == wanted
}

/// What the command says.
#[track_caller]
fn command(gateway: &Gateway, more: &[&str]) -> (String, bool) {
    let ini = gateway.path("graygate.ini");
    let output = run_to_exit(&[&["verdict", "-c", ini.to_str().unwrap()], more].concat());
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8(said).unwrap(), output.status.success())
}

#[test]
fn a_healthy_release_is_good_enough_and_one_that_fails_is_worse_within_seconds() {
    let (pre, prod) = (Version::new(), Version::new());
    let gateway = start(setup(), &pre, &prod);
    wait_until("it has begun", DEADLINE, || state(&gateway) == "nothing");
    let mut load = Load::of(&gateway, 0);
    load_until("good enough", &gateway, &mut load, is("good-enough"));
    let good = gateway.wait_for_log("verdict-good");
    assert!(good.contains("about=failures"), "{good}");
    let seen = verdict(&gateway);
    assert_eq!(seen["failing"]["pre_bad"], 0, "{seen}");
    assert!(seen["failing"]["pre_units"].as_u64() >= Some(6), "{seen}");
    assert_eq!(
        (&seen["mode"], &seen["margin"], &seen["gateways"]),
        (&json!("observe"), &json!(2.0), &json!(1))
    );
    assert_eq!(seen["few_clients"], false, "{seen}");
    let (text, is_good) = command(&gateway, &[]);
    assert!(is_good && text.starts_with("0 of "), "{text}");
    assert!(
        text.contains("good enough to go on\n") && text.contains("\n\nSERVICE "),
        "{text}"
    );

    pre.fail_one_of(2);
    load_until("worse", &gateway, &mut load, is("worse"));
    let worse = gateway.wait_for_log("verdict-worse");
    let release = verdict(&gateway)["release"].as_str().unwrap().to_owned();
    for part in [
        " ERROR ",
        &format!("release={release} why=worse about=failures pre="),
        "gateways=1",
        "pre is worse",
    ] {
        assert!(worse.contains(part), "{part}: {worse}");
    }
    // It is observed: clients still get the new version.
    let source = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.1.255.1\r\n\r\n";
    let asked = pre.origin.requests().len();
    gateway.connect().ask(source);
    assert_eq!(pre.origin.requests().len(), asked + 1);
    // What was found once stays, however many good ones come.
    pre.fail_one_of(0);
    let units = |it: &Value| it["failing"]["pre_units"].as_u64().unwrap();
    let before = units(&verdict(&gateway));
    load_until("more are counted", &gateway, &mut load, |it| {
        units(it) > before + 100
    });
    assert_eq!(state(&gateway), "worse");

    let (text, _) = command(&gateway, &[]);
    assert!(text.contains("pre is worse\n"), "{text}");
    let (text, _) = command(&gateway, &["--json", "--service", "default"]);
    let page: Value = serde_json::from_str(&text).unwrap();
    let failing = &page["services"][0]["failing"];
    assert_eq!(
        (&failing["finding"], &failing["why"]),
        (&json!("worse"), &json!("worse"))
    );
    assert!(failing["evidence"].as_f64().unwrap() > 1000.0, "{failing}");
    let (text, is_good) = command(&gateway, &["--service", "shop"]);
    assert!(
        !is_good && text.contains("there is no service shop"),
        "{text}"
    );
    assert_eq!(
        gateway.metric("graygate_verdict_state{state=\"worse\"}"),
        1.0
    );
    assert_eq!(
        gateway.metric("graygate_verdict_state{state=\"nothing\"}"),
        0.0
    );
    let evidence = gateway.metric("graygate_verdict_ln_evidence{about=\"failures\"}");
    assert!(evidence > 6.9, "{evidence}");
    assert_eq!(gateway.metric("graygate_verdict_gateways"), 1.0);
    // By the numbers of the page.
    let page = &verdict(&gateway)["failing"];
    for (metric, number) in [
        ("counted{about=\"failures\",pool=\"pre\"}", "pre_units"),
        ("counted{about=\"failures\",pool=\"prod\"}", "prod_units"),
        ("counted_bad{about=\"failures\",pool=\"pre\"}", "pre_bad"),
        ("counted_bad{about=\"failures\",pool=\"prod\"}", "prod_bad"),
    ] {
        let seen = gateway.metric(&format!("graygate_verdict_{metric}"));
        assert_eq!(Some(seen), page[number].as_f64(), "{metric}: {page}");
    }
    // A reader of JSON may be off by the last digit.
    let are_close =
        |read: &Value, number: f64| (read.as_f64().unwrap() - number).abs() <= 1e-9 * number.abs();
    // What the evidence is made of is that of this gateway, once the last block is over.
    wait_until("the sums are those of the page", DEADLINE, || {
        let page = &verdict(&gateway)["failing"];
        let of_odds = |(at, odds): (usize, &str)| {
            let metric = |of: &str| {
                let labels = format!("about=\"failures\",odds=\"{odds}\",of=\"{of}\"");
                gateway.metric(&format!("graygate_verdict_ln_sum{{{labels}}}"))
            };
            let both = [("ln_sums", "all"), ("own_sums", "own")];
            page["odds_ratios"][at].to_string().trim_end_matches(".0") == odds
                && both
                    .iter()
                    .all(|(name, of)| are_close(&page[*name][at], metric(of)))
                && page["ln_sums"][at].as_f64() > Some(0.0)
        };
        [(1, "2"), (3, "5")].into_iter().all(of_odds)
    });
    let (text, _) = command(&gateway, &[]);
    let line = "S_k of failures, of all gateways (of this one): 1.5: ";
    assert!(text.contains(line), "{text}");

    // Another version begins anew.
    let other = Version::new();
    gateway.write_lists(&[GRAY], &[&other.origin], &[&prod.origin]);
    wait_until("it begins anew", DEADLINE, || {
        let seen = verdict(&gateway);
        seen["state"] == "nothing" && seen["failing"]["pre_units"] == 0
    });
    let page = verdict(&gateway);
    assert_ne!(page["release"], release);
    assert_eq!(page["failing"]["evidence_needed"], 1000.0);
    let needed = page["failing"]["units_needed"].as_f64();
    assert_eq!(Some(gateway.metric("graygate_verdict_needed")), needed);
    load_until("good enough", &gateway, &mut load, is("good-enough"));
    // And none ends it.
    gateway.write_lists(&[GRAY], &[], &[&prod.origin]);
    wait_until("no release", DEADLINE, || state(&gateway) == "idle");
    let (text, _) = command(&gateway, &[]);
    assert!(text.starts_with("no release is under way"), "{text}");
}

#[test]
fn an_outage_of_both_versions_is_no_fault_of_the_new_one() {
    let (pre, prod) = (Version::new(), Version::new());
    let gateway = start(setup(), &pre, &prod);
    let mut load = Load::of(&gateway, 0);
    load_until("what is usual is known", &gateway, &mut load, |it| {
        it["failing"]["prod_units"].as_u64() > Some(600)
    });
    [&pre, &prod].iter().for_each(|it| it.fail_one_of(2));
    load_until("an incident", &gateway, &mut load, is("incident"));
    let line = gateway.wait_for_log("verdict-incident");
    assert!(line.contains(" WARN "), "{line}");
    let bad = |it: &Value| it["failing"]["pre_bad"].as_u64().unwrap();
    let before = bad(&verdict(&gateway));
    load_until("more fail", &gateway, &mut load, |it| {
        bad(it) > before + 100
    });
    let seen = verdict(&gateway);
    assert_eq!(seen["state"], "incident", "{seen}");
    assert!(seen["failing"]["evidence"].as_f64() < Some(20.0), "{seen}");
    let (text, _) = command(&gateway, &[]);
    assert!(text.contains("both fail far more than usual"), "{text}");
}

#[test]
fn where_everybody_has_the_new_version_few_failures_hold_nothing_up_and_many_are_suspect() {
    let (pre, prod) = (Version::new(), Version::new());
    let setup = setup().set("verdict.mode", "enforce");
    let everybody: [&str; 2] = [GRAY, "10.2.0.0/16"];
    let setup = setup.lists(&everybody, &[&pre.origin], &[&prod.origin]);
    let gateway = setup.start();
    let mut load = Load::of(&gateway, 0);
    pre.fail_one_of(20);
    load_until(
        "good enough, with some that fail",
        &gateway,
        &mut load,
        |it| it["state"] == "good-enough" && it["failing"]["pre_bad"].as_u64() > Some(0),
    );
    pre.fail_one_of(2);
    load_until("suspect", &gateway, &mut load, is("suspect"));
    let said = gateway.wait_for_log("verdict-suspect");
    assert!(said.contains("too few are left on prod to tell"), "{said}");
    // However much fails, nobody knows whether the old one would do better.
    let bad = |it: &Value| it["failing"]["pre_bad"].as_u64().unwrap();
    let before = bad(&verdict(&gateway));
    load_until("more fail", &gateway, &mut load, |it| {
        bad(it) > before + 100
    });
    assert_eq!(state(&gateway), "suspect");
    assert_eq!(gateway.metric("graygate_tripped"), 0.0);
}

#[test]
fn a_few_testers_are_not_the_public() {
    let (pre, prod) = (Version::new(), Version::new());
    let gateway = start(setup(), &pre, &prod);
    pre.fail_one_of(1);
    let mut client = gateway.connect();
    let mut round = 0;
    let mut seen = Value::Null;
    wait_until("suspect", DEADLINE, || {
        let mut requests =
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.1.0.1\r\n\r\n".to_owned();
        for at in 0..CLIENTS {
            round += 1;
            let (high, low) = (round / 250, at + 1);
            requests +=
                &format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.2.{high}.{low}\r\n\r\n");
        }
        client.send(requests);
        (0..=CLIENTS).for_each(|_| drop(client.response()));
        seen = verdict(&gateway);
        seen["failing"]["pre_bad"].as_u64() >= Some(1) && seen["state"] != "nothing"
    });
    assert_eq!(seen["state"], "suspect", "{seen}");
    assert_eq!(
        (&seen["few_clients"], &seen["pre_clients"]),
        (&json!(true), &json!(1))
    );
    let (text, _) = command(&gateway, &[]);
    assert!(text.contains("pre has few clients, 1"), "{text}");
    gateway.wait_for_log("verdict-suspect");
}

#[test]
fn a_service_is_judged_by_its_own_settings_and_nothing_is_counted_where_that_is_off() {
    let (pre, prod) = (Version::new(), Version::new());
    let lists = format!(
        "[gray]\n{GRAY}\n[pre]\n{pre}\n[prod]\n{prod}\n[shop gray]\n[shop pre]\n{pre}\n[shop prod]\n{prod}\n",
        pre = pre.origin,
        prod = prod.origin,
    );
    let setup = setup()
        .set("service shop.paths", "/shop")
        .set("service shop verdict.mode", "off");
    let mut gateway = setup.file("lists", &lists).start();
    let (_, text) = gateway.admin_get("/verdict");
    let page: Value = serde_json::from_str(&text).unwrap();
    let shop = &page["services"][1];
    assert_eq!(
        (&shop["service"], &shop["state"]),
        (&json!("shop"), &json!("off"))
    );
    let (text, _) = command(&gateway, &["--service", "shop"]);
    assert_eq!(text, "nothing is counted, since [verdict] mode is off\n");
    // A reload switches it off, and begins anew when it is on again.
    let mut load = Load::of(&gateway, 0);
    load_until("counted", &gateway, &mut load, is("good-enough"));
    let reload = |gateway: &Gateway| gateway.signal(Signal::SIGHUP);
    gateway.edit_ini(|it| it.set("verdict.mode", "off"));
    reload(&gateway);
    wait_until("off", DEADLINE, || state(&gateway) == "off");
    gateway.edit_ini(|it| it.set("verdict.mode", "observe"));
    reload(&gateway);
    wait_until("anew", DEADLINE, || {
        verdict(&gateway)["failing"]["pre_units"] == 0
    });
}

#[test]
fn two_gateways_on_one_redis_add_up_what_they_have_seen() {
    let (pre, prod) = (Version::new(), Version::new());
    let redis = Redis::start();
    redis.push("gray", &[&GRAY]);
    redis.push_peers(&pre.origin, &prod.origin);
    let start = |node: &str| {
        let setup = setup().redis(redis.url()).set("redis.node", node);
        setup.set("redis.heartbeat", "60s").start()
    };
    let gateways = [start("a"), start("b")];
    let mut loads = [(0, 0), (1, 100)].map(|(at, first)| Load::of(&gateways[at], first));
    // Other clients at each of them, and a failure now and then: more than enough together.
    let both = |it: &Value| it["gateways"] == 2;
    wait_until("they hear of each other", DEADLINE, || {
        loads.iter_mut().for_each(Load::round);
        gateways.iter().all(|it| both(&verdict(it)))
    });
    pre.fail_one_of(4);
    wait_until("both know", DEADLINE, || {
        loads.iter_mut().for_each(Load::round);
        gateways.iter().all(|it| state(it) == "worse")
    });
    // The counts are those of both, though the heartbeat is far from its next beat.
    for gateway in &gateways {
        wait_until("the counts of both", DEADLINE, || {
            let failing = &verdict(gateway)["failing"];
            failing["pre_units"].as_u64() > failing["own_pre_units"].as_u64()
                && failing["ln_sums"][3].as_f64() > failing["own_sums"][3].as_f64()
        });
    }
    let text = redis.cli(&["GET", "graygate:node:a"]);
    let text: String = redis::from_redis_value(text).unwrap();
    let told: Value = serde_json::from_str(&text).unwrap();
    let told = &told["verdicts"]["default"];
    assert_eq!(told["release"], verdict(&gateways[0])["release"]);
    assert_eq!(told["sums"].as_array().unwrap().len(), 18, "{told}");
    assert!(told["N"].as_u64() > told["n"].as_u64(), "{told}");
    let clients = told["bad_clients"].as_array().unwrap();
    assert!(clients.len() >= 3 && clients.len() <= 64, "{told}");
    // Who is gone is not heard of any more.
    let [a, b] = gateways;
    b.end();
    wait_until("one is left", DEADLINE, || {
        loads[0].round();
        verdict(&a)["gateways"] == 1
    });
    let fleet = run_to_exit(&["fleet", "-c", a.path("graygate.ini").to_str().unwrap()]);
    let fleet = String::from_utf8(fleet.stdout).unwrap();
    assert!(fleet.contains("worse"), "{fleet}");
}

#[test]
fn a_gateway_of_an_older_version_in_the_fleet_disturbs_nobody() {
    let (pre, prod) = (Version::new(), Version::new());
    let redis = Redis::start();
    redis.push("gray", &[&GRAY]);
    redis.push_peers(&pre.origin, &prod.origin);
    let gateway = setup()
        .redis(redis.url())
        .set("redis.node", "new")
        .set("verdict.mode", "enforce");
    let gateway = gateway.start();
    let digest = gateway.wait_for_lists("the lists", |it| it["generation"] != 0)["digest"].clone();
    // What one has written that knows of no releases, and others that nobody has written.
    let heartbeat = |node: &str, more: Value| {
        let mut node = json!({
            "node": node, "version": "0.1.0", "digest": digest, "generation": 4, "age_seconds": 0.1, "mode": "events",
            "held": [], "instance": node, "pid": 1, "started_at": "", "ttl_ms": 600_000,
        });
        for (name, value) in more.as_object().unwrap() {
            node[name] = value.clone();
        }
        let (name, text) = (node["node"].as_str().unwrap().to_owned(), node.to_string());
        let key = format!("graygate:node:{name}");
        redis.cli(&["SET", &key, &text, "PX", "600000"]);
        redis.cli(&["ZADD", "graygate:nodes", "9999999999999", &name]);
    };
    heartbeat("a-old", json!({}));
    let release = wait_for("a release", || {
        verdict(&gateway)["release"].as_str().map(str::to_owned)
    });
    let sums: Vec<f64> = vec![50.0; 18];
    let nonsense = json!({ "release": release, "sums": sums, "n": 5, "x": 1, "N": 9, "m": 1 });
    heartbeat("b-odd", json!({ "verdicts": { "default": nonsense } }));
    let short = json!({ "release": release, "sums": [1.0], "n": 5, "x": 1, "N": 9, "m": 1 });
    heartbeat(
        "c-later",
        json!({ "verdicts": { "default": short, "shop": 7 } }),
    );
    let mut load = Load::of(&gateway, 0);
    load_until("good enough", &gateway, &mut load, is("good-enough"));
    assert_eq!(verdict(&gateway)["failing"]["pre_bad"], 0);
    pre.fail_one_of(1);
    load_until("taken back", &gateway, &mut load, is("tripped"));
    let ini = gateway.path("graygate.ini");
    wait_until("the fleet is shown", DEADLINE, || {
        let output = run_to_exit(&["fleet", "-c", ini.to_str().unwrap()]);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        said.contains("a-old") && said.contains("pre is taken back on 1 of 4 gateways: new")
    });
}

#[test]
fn what_is_found_worse_is_taken_back_on_all_gateways_where_that_is_enforced_and_begins_anew_by_a_reset()
 {
    let (pre, prod) = (Version::new(), Version::new());
    let redis = Redis::start();
    redis.push("gray", &[&GRAY]);
    redis.push_peers(&pre.origin, &prod.origin);
    let start = |node: &str| {
        let setup = setup().redis(redis.url()).set("redis.node", node);
        setup.set("verdict.mode", "enforce").start()
    };
    let gateways = [start("a"), start("b")];
    let mut load = Load::of(&gateways[0], 0);
    load_until("good enough", &gateways[0], &mut load, is("good-enough"));
    let failing_from = load.round;
    pre.fail_one_of(1);
    load_until("taken back", &gateways[0], &mut load, is("tripped"));
    gateways[0].wait_for_log("verdict-worse");
    wait_until("everywhere", DEADLINE, || state(&gateways[1]) == "tripped");
    let text = redis.cli(&["GET", "graygate:tripped"]);
    let text: String = redis::from_redis_value(text).unwrap();
    let trip: Value = serde_json::from_str(&text).unwrap();
    let release = verdict(&gateways[0])["release"].clone();
    assert_eq!(
        (&trip["by"], &trip["why"], &trip["release"]),
        (&json!("a"), &json!("worse"), &release)
    );
    assert!(trip["numbers"]["pre_bad"].as_u64() >= Some(3), "{trip}");
    assert!(
        trip["numbers"]["ln_evidence"].as_f64() > Some(6.9),
        "{trip}"
    );
    assert_eq!(verdict(&gateways[0])["tripped"]["numbers"], trip["numbers"]);
    // Nobody gets it any more.
    let asked = || pre.origin.requests().len();
    let before = asked();
    load.round();
    assert_eq!(asked(), before);
    let (text, _) = command(&gateways[0], &[]);
    assert!(
        text.starts_with("taken back: everybody gets the old version; "),
        "{text}"
    );
    // It may be tried again.
    pre.fail_one_of(0);
    let ini = gateways[0].path("graygate.ini");
    let reset = run_to_exit(&["verdict", "reset", "-c", ini.to_str().unwrap()]);
    assert!(reset.status.success(), "{reset:?}");
    let text = redis.cli(&["GET", "graygate:release"]);
    let text: String = redis::from_redis_value(text).unwrap();
    let written: Value = serde_json::from_str(&text).unwrap();
    let epoch = written["epoch"].as_str().unwrap();
    load_until(
        "good enough again",
        &gateways[0],
        &mut load,
        is("good-enough"),
    );
    let seen = verdict(&gateways[0]);
    assert!(
        seen["release"]
            .as_str()
            .unwrap()
            .ends_with(&format!("/{epoch}")),
        "{seen}"
    );
    assert_eq!(seen["failing"]["pre_bad"], 0, "{seen}");
    // Those that had failed count again: they alone have it taken back once more.
    pre.fail_one_of(1);
    wait_until("taken back again", DEADLINE, || {
        load.round = failing_from;
        load.round();
        state(&gateways[0]) == "tripped"
    });
}

#[test]
fn whoever_has_heard_of_a_reset_tells_nothing_that_was_found_before_it() {
    let (pre, prod) = (Version::new(), Version::new());
    let redis = Redis::start();
    redis.push("gray", &[&GRAY]);
    redis.push_peers(&pre.origin, &prod.origin);
    let start = |node: &str| {
        let setup = setup().redis(redis.url()).set("redis.node", node);
        setup.set("redis.heartbeat", "60s").start()
    };
    let gateways = [start("a"), start("b")];
    let mut loads = [(0, 0), (1, 100)].map(|(at, first)| Load::of(&gateways[at], first));
    let ini = gateways[0].path("graygate.ini");
    let told = |node: &str| -> Value {
        let text = redis.cli(&["GET", &format!("graygate:node:{node}")]);
        let text: String = redis::from_redis_value(text).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["verdicts"]["default"].clone()
    };
    // When the next second of each of them is over is chance.
    for _ in 0..3 {
        pre.fail_one_of(2);
        wait_until("both say so", DEADLINE, || {
            loads.iter_mut().for_each(Load::round);
            ["a", "b"].iter().all(|it| told(it)["finding"] == "worse")
        });
        let words = ["verdict", "reset", "--wait", "-c", ini.to_str().unwrap()];
        let reset = run_to_exit(&words);
        let (said, told) = (
            String::from_utf8(reset.stdout).unwrap(),
            ["a", "b"].map(told),
        );
        let pages = gateways.each_ref().map(verdict);
        assert!(
            said.contains("all 2 gateways have heard: the epoch "),
            "{said}"
        );
        for it in told {
            assert_eq!(it["finding"], "nothing", "{it}");
        }
        for page in pages {
            assert_eq!(page["state"], "nothing", "{page}");
            assert_eq!(page["failing"]["pre_units"], 0, "{page}");
            assert_eq!(page["failing"]["finding"], "nothing", "{page}");
        }
    }
}

#[test]
fn a_deleted_key_has_the_evidence_begin_anew_on_every_gateway_also_on_one_that_was_without_redis() {
    let (pre, prod) = (Version::new(), Version::new());
    let redis = Redis::start();
    redis.push("gray", &[&GRAY]);
    redis.push_peers(&pre.origin, &prod.origin);
    let way = Relay::to(redis.address());
    let urls = [
        redis.url(),
        redis.url(),
        format!("redis://{}/0", way.address()),
    ];
    let [a, b, c] = [0, 1, 2].map(|at| {
        let setup = setup()
            .redis(&urls[at])
            .set("redis.node", ["a", "b", "c"][at]);
        let setup = setup
            .set("redis.check_interval", "1s")
            .set("redis.timeout", "1s");
        setup.set("verdict.mode", "enforce").start()
    });
    let gateways = [&a, &b, &c];
    for gateway in gateways {
        wait_until("it has begun", DEADLINE, || state(gateway) == "nothing");
    }
    let release = |gateway: &Gateway| verdict(gateway)["release"].as_str().unwrap().to_owned();
    let before = release(&a);
    way.cut(true);
    c.wait_for_log("lists-unreadable");
    // What fails is taken back by each side for itself.
    pre.fail_one_of(1);
    let mut loads = [(&a, 0), (&b, 40), (&c, 80)].map(|(it, first)| Load::of(it, first));
    wait_until("taken back", DEADLINE, || {
        loads.iter_mut().for_each(Load::round);
        gateways.iter().all(|it| state(it) == "tripped")
    });
    c.wait_for_log("trip-unwritten");
    let trips = gateways.map(|it| it.stderr.count(" tripped "));
    // It is mended, and somebody deletes the key and nothing else.
    pre.fail_one_of(0);
    redis.cli(&["DEL", "graygate:tripped"]);
    for gateway in [&a, &b] {
        gateway.wait_for_log("trip-reset");
    }
    wait_until("another epoch is written", DEADLINE, || {
        redis.cli(&["EXISTS", "graygate:release"]) == redis::Value::Int(1)
    });
    way.cut(false);
    let line = c.wait_for_log("trip-reset");
    assert!(line.contains("the key was deleted"), "{line}");
    wait_until("all judge the same release", DEADLINE, || {
        loads.iter_mut().for_each(Load::round);
        let all = gateways.map(release);
        all[0] != before && all.iter().all(|it| *it == all[0])
    });
    // By none of the old evidence.
    wait_until("good enough", DEADLINE, || {
        loads.iter_mut().for_each(Load::round);
        gateways
            .iter()
            .all(|it| state(it) == "good-enough" && verdict(it)["gateways"] == 3)
    });
    let bad = gateways.map(|it| verdict(it)["failing"]["pre_bad"].clone());
    assert_eq!(bad, [0, 0, 0]);
    assert_eq!(gateways.map(|it| it.stderr.count(" tripped ")), trips);
    assert_eq!(
        redis.cli(&["EXISTS", "graygate:tripped"]),
        redis::Value::Int(0)
    );
    // One that comes later judges it with them.
    let later = setup().redis(redis.url()).set("redis.node", "d").start();
    wait_until("it judges the same", DEADLINE, || {
        verdict(&later)["release"] == verdict(&a)["release"]
    });
    // And it can be taken back again.
    pre.fail_one_of(1);
    wait_until("taken back again", DEADLINE, || {
        loads.iter_mut().for_each(Load::round);
        gateways.iter().all(|it| state(it) == "tripped")
    });
}

#[test]
fn nothing_is_taken_back_while_the_old_version_has_no_server_that_is_up() {
    let (pre, prod) = (Version::new(), Version::new());
    let setup = setup()
        .set("health prod.path", "/healthz")
        .set("health prod.interval", "100ms")
        .set("health prod.fall", 1)
        .set("health prod.rise", 1);
    let mut gateway = start(setup, &pre, &prod);
    let mut load = Load::of(&gateway, 0);
    pre.fail_one_of(2);
    load_until("worse", &gateway, &mut load, is("worse"));
    let up = || {
        let pools = gateway.peers()["pools"].clone();
        let mut pools = pools.as_array().unwrap().iter();
        pools.find(|it| it["pool"] == "prod").unwrap()["up"].clone()
    };
    prod.is_sick.store(true, Ordering::Relaxed);
    wait_until("prod is out", DEADLINE, || up() == 0);
    gateway.edit_ini(|it| it.set("verdict.mode", "enforce"));
    gateway.signal(Signal::SIGHUP);
    wait_until("enforced", DEADLINE, || {
        verdict(&gateway)["mode"] == "enforce"
    });
    // Some blocks later, it still is so.
    let units = |it: &Value| it["failing"]["pre_units"].as_u64().unwrap();
    for _ in 0..2 {
        let before = units(&verdict(&gateway));
        load_until("another block", &gateway, &mut load, |it| {
            units(it) > before
        });
    }
    assert_eq!(state(&gateway), "worse");
    prod.is_sick.store(false, Ordering::Relaxed);
    load_until("taken back", &gateway, &mut load, is("tripped"));
}

/// One that answers after so many milliseconds; the request says whether it is one of ten.
fn slow(usually: u64, one_of_ten: u64) -> Origin {
    let asked = AtomicUsize::new(0);
    Origin::answering(move |_| {
        let number = asked.fetch_add(1, Ordering::Relaxed);
        let millis = match number.is_multiple_of(10) {
            true => one_of_ten,
            false => usually,
        };
        std::thread::sleep(Duration::from_millis(millis));
        ok("fine")
    })
}

/// A request of so many clients of each version at once, for each path.
fn ask_all(gateway: &Gateway, round: usize, paths: &[&str]) {
    const AT_ONCE: usize = 6;
    std::thread::scope(|scope| {
        for at in 0..AT_ONCE {
            scope.spawn(move || {
                let mut client = gateway.connect();
                let number = round * AT_ONCE + at;
                let (high, low) = (number / 250, number % 250 + 1);
                for path in paths {
                    for net in [1, 2] {
                        client.ask(format!(
                            "GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.{net}.{high}.{low}\r\n\r\n"
                        ));
                    }
                }
            });
        }
    });
}

#[test]
fn a_version_that_is_slow_is_told_and_taken_back_where_that_is_wanted_but_not_in_its_first_30_seconds()
 {
    let (quick, late) = (slow(0, 0), slow(150, 150));
    // Slower than prod, and faster than anybody minds; as slow as one in ten of prod.
    let (decent, uneven, as_uneven) = (slow(25, 25), slow(0, 160), slow(70, 70));
    let lists = format!(
        "[gray]\n{GRAY}\n[pre]\n{late}\n[prod]\n{quick}\n\
         [shop gray]\n{GRAY}\n[shop pre]\n{decent}\n[shop prod]\n{quick}\n\
         [old gray]\n{GRAY}\n[old pre]\n{as_uneven}\n[old prod]\n{uneven}\n"
    );
    let setup = setup()
        .set("gateway.workers", 2)
        .set("service shop.paths", "/shop")
        .set("service old.paths", "/old");
    let begun = Instant::now();
    let mut gateway = setup.file("lists", &lists).start();
    let seen = |gateway: &Gateway| -> Vec<Value> {
        let page: Value = serde_json::from_str(&gateway.admin_get("/verdict").1).unwrap();
        page["services"].as_array().unwrap().clone()
    };
    let paths = ["/", "/shop", "/old"];
    let mut round = 0;
    loop {
        round += 1;
        ask_all(&gateway, round, &paths);
        let seen = seen(&gateway);
        if begun.elapsed() > Duration::from_secs(29) {
            break;
        }
        for it in seen.iter().filter(|it| !it["slow"].is_null()) {
            assert_eq!(it["slow"]["pre_units"], 0, "{it}");
            assert_eq!(it["slow"]["prod_units"], 0, "{it}");
        }
    }
    let mut all = Vec::new();
    wait_until("slow", DEADLINE, || {
        round += 1;
        ask_all(&gateway, round, &paths);
        all = seen(&gateway);
        all[0]["slow"]["finding"] == "worse"
    });
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(30), "{took:?}");
    let line = gateway.wait_for_log("verdict-worse");
    assert!(line.contains("why=slow about=slowness pre="), "{line}");
    assert_eq!(all[0]["state"], "worse", "{}", all[0]);
    let (text, _) = command(&gateway, &["--service", "default"]);
    assert!(text.contains("pre is slower\n"), "{text}");
    // Of the others enough was seen.
    wait_until("enough of the others", DEADLINE, || {
        round += 1;
        ask_all(&gateway, round, &paths[1..]);
        all = seen(&gateway);
        all[1..]
            .iter()
            .all(|it| it["slow"]["pre_units"].as_u64() > Some(40))
    });
    for it in &all[1..] {
        assert_eq!(it["slow"]["pre_bad"], 0, "{it}");
        assert_ne!(it["state"], "worse", "{it}");
    }
    // It was told, and nothing else.
    assert_eq!(gateway.stderr.count(" tripped "), 0);
    gateway.edit_ini(|it| it.set("verdict.slow", "enforce"));
    gateway.signal(Signal::SIGHUP);
    wait_until("taken back", DEADLINE, || state(&gateway) == "tripped");
    let line = gateway.wait_for_log(" tripped ");
    assert!(line.contains("why=\"slow\""), "{line}");
    assert_eq!(gateway.stderr.count(" tripped "), 1);
}

/// How long it takes until a version is taken back of which all servers have died, at ten requests a second
/// to it and ninety to the other one; and what the command has said before that.
fn time_to_take_back_dead_servers(setup: Setup) -> (Duration, Vec<String>) {
    let (pre, prod) = (
        [(); 2].map(|()| Origin::named("pre")),
        Origin::named("prod"),
    );
    let setup = setup
        .one_worker()
        .set("gateway.trusted_proxies", "127.0.0.0/8")
        .set("verdict.mode", "enforce")
        .lists(&[GRAY], &[&pre[0], &pre[1]], &[&prod]);
    let gateway = setup.start();
    let mut client = gateway.connect();
    let (mut number, mut next) = (0, Instant::now());
    let mut ask = |client: &mut Client| {
        number += 1;
        let mut requests = String::new();
        for at in 0..10 {
            let net = if at == 0 { 1 } else { 2 };
            let (high, low) = (number / 20, 10 * (number % 20) + at + 1);
            requests += &format!(
                "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.{net}.{high}.{low}\r\n\r\n"
            );
        }
        client.send(requests);
        let first = client.response();
        (1..10).for_each(|_| assert_eq!(client.response().text(), "prod"));
        next += Duration::from_millis(100);
        poll(
            next.saturating_duration_since(Instant::now()),
            || None::<()>,
        );
        first
    };
    wait_until("counted", DEADLINE, || {
        assert_eq!(ask(&mut client).text(), "pre");
        verdict(&gateway)["failing"]["pre_units"].as_u64() > Some(20)
    });
    drop(pre);
    let died = Instant::now();
    let mut said = Vec::new();
    wait_until("taken back", Duration::from_secs(120), || {
        ask(&mut client);
        let seen = verdict(&gateway);
        let text = command(&gateway, &[]).0;
        let text = text.lines().next().unwrap().to_owned();
        if seen["pre_out"] == true {
            said.push(text);
        }
        seen["state"] == "tripped"
    });
    (died.elapsed(), said)
}

#[test]
fn a_version_whose_servers_die_is_taken_back_by_the_few_requests_that_notice() {
    for (fallback, limit) in [("on", 60), ("off", 10)] {
        let setup = Setup::new().set("upstream.fallback", fallback);
        let (took, said) = time_to_take_back_dead_servers(setup);
        println!("fallback {fallback}: taken back after {took:?}");
        assert!(took < Duration::from_secs(limit), "{took:?}");
        let is_plain = |it: &String| {
            it.starts_with("no server of pre is up; ") || it.starts_with("taken back: ")
        };
        assert!(!said.is_empty() && said.iter().all(is_plain), "{said:?}");
    }
}

#[test]
fn a_version_of_which_no_server_was_ever_up_is_said_to_be_out() {
    let (pre, prod) = (Version::new(), Version::new());
    pre.is_sick.store(true, Ordering::Relaxed);
    let setup = setup()
        .set("health pre.path", "/healthz")
        .set("health pre.interval", "100ms")
        .set("health pre.fall", 1);
    let gateway = start(setup, &pre, &prod);
    wait_until("it is out", DEADLINE, || {
        verdict(&gateway)["pre_out"] == true
    });
    let mut load = Load::of(&gateway, 0);
    load_until("it is judged", &gateway, &mut load, |it| {
        !it["failing"].is_null()
    });
    let (text, _) = command(&gateway, &[]);
    assert!(
        text.starts_with("no server of pre is up; no request to pre"),
        "{text}"
    );
}

#[test]
fn a_gateway_without_heartbeat_says_that_it_judges_by_itself() {
    let (pre, prod) = (Version::new(), Version::new());
    let redis = Redis::start();
    redis.push("gray", &[&GRAY]);
    redis.push_peers(&pre.origin, &prod.origin);
    let setup = setup().redis(redis.url()).set("redis.heartbeat", "off");
    let gateway = setup.start();
    let mut load = Load::of(&gateway, 0);
    load_until("good enough", &gateway, &mut load, is("good-enough"));
    gateway.wait_for_log("verdict-by-itself");
    let (text, _) = command(&gateway, &[]);
    assert!(
        text.contains(
            "judges by what it sees itself, without the others: [redis] heartbeat is off\n"
        ),
        "{text}"
    );
}
