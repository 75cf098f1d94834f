//! Lists of several services: each is guarded, kept, shown and handed over by itself, and lists that are
//! shared come into force everywhere at once.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{
    Client, CopyFolder, DEADLINE, Gateway, LastProcess, Origin, Redis, Setup, run_to_exit,
    upgrade_well, wait_until,
};

/// Services `shop`, and `api` that shares its gray list, by the first part of the path.
fn with_services(setup: Setup) -> Setup {
    setup
        .set("service shop.paths", "/shop/")
        .set("service api.paths", "/api/")
        .set("service api.gray", "shop")
}

/// The origins of all pools: default, shop and api, of each `pre` and `prod`.
struct Origins([Origin; 6]);

impl Origins {
    fn new() -> Self {
        Self(
            [
                "pre",
                "prod",
                "shop pre",
                "shop prod",
                "api pre",
                "api prod",
            ]
            .map(Origin::named),
        )
    }

    /// A lists file, with these gray clients of shop, and these servers in its `prod`.
    fn text(&self, gray: &str, prod: &str) -> String {
        let [pre, own, shop_pre, _, api_pre, api_prod] = &self.0;
        format!(
            "[gray]\n[pre]\n{pre}\n[prod]\n{own}\n\
             [shop gray]\n{gray}\n[shop pre]\n{shop_pre}\n[shop prod]\n{prod}\n\
             [api pre]\n{api_pre}\n[api prod]\n{api_prod}\n"
        )
    }

    fn push(&self, redis: &Redis) {
        let [pre, prod, shop_pre, shop_prod, api_pre, api_prod] = &self.0;
        redis.push_peers(pre, prod);
        redis.push("shop:gray", &[&"127.0.0.5"]);
        redis.push("shop:pre", &[shop_pre]);
        redis.push("shop:prod", &[shop_prod]);
        redis.push("api:pre", &[api_pre]);
        redis.push("api:prod", &[api_prod]);
    }
}

#[track_caller]
fn of_service(gateway: &Gateway, service: &str) -> Value {
    let (status, text) = gateway.admin_get(&format!("/lists?service={service}"));
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[track_caller]
fn wait_of_service(gateway: &Gateway, service: &str, is: impl Fn(&Value) -> bool) -> Value {
    wait_until(&format!("the lists of {service}"), DEADLINE, || {
        is(&of_service(gateway, service))
    });
    of_service(gateway, service)
}

fn generations(gateway: &Gateway) -> Vec<u64> {
    let page = gateway.lists();
    let services = page["services"].as_array().unwrap().iter();
    services
        .map(|it| it["generation"].as_u64().unwrap())
        .collect()
}

/// Runs a command for this gateway, and returns what it says.
#[track_caller]
fn run(gateway: &Gateway, words: &[&str]) -> String {
    let ini = gateway.path("graygate.ini");
    let output = run_to_exit(&[words, &["-c", ini.to_str().unwrap()]].concat());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_lists_file_has_all_services_and_each_is_guarded_by_itself() {
    let origins = Origins::new();
    let shop_prod = origins.0[3].to_string();
    let text = origins.text("127.0.0.5", &shop_prod);
    let gateway = with_services(Setup::new()).file("lists", &text).start();
    let served = |path: &str, client: &str| gateway.get(client, path).text();
    for (path, gray, other) in [
        ("/", "prod", "prod"),
        ("/shop/", "shop pre", "shop prod"),
        ("/api/", "api pre", "api prod"),
    ] {
        assert_eq!(
            (served(path, "127.0.0.5"), served(path, "127.0.0.6")),
            (gray.into(), other.into())
        );
    }
    gateway.wait_for_log("lists-published service=api generation=1");
    let said = run(&gateway, &["lists", "diff"]);
    assert!(said.starts_with("the same:"), "{said}");
    let said = run(&gateway, &["-t"]);
    assert!(!said.contains("no [service"), "{said}");
    assert_eq!(generations(&gateway), [1, 1, 1]);
    // One list releases two services.
    gateway.write_lists_text(&origins.text("127.0.0.6", &shop_prod));
    gateway.wait_served("127.0.0.6", "prod", DEADLINE);
    wait_of_service(&gateway, "api", |it| it["gray"] == json!(["127.0.0.6"]));
    assert_eq!(served("/shop/", "127.0.0.6"), "shop pre");
    assert_eq!(generations(&gateway), [1, 2, 2]);
    // What one holds holds no other one up.
    gateway.write_lists_text(&origins.text("127.0.0.7", ""));
    let page = wait_of_service(&gateway, "shop", |it| it["held"] != json!([]));
    assert_eq!(page["held"][0]["reason"], "empties-prod");
    assert_eq!(served("/api/", "127.0.0.7"), "api pre");
    gateway.wait_for_log("change-held service=shop list=prod");
    assert_eq!(gateway.lists()["held"], json!([]), "of the default service");
    let digest = page["held"][0]["digest"].as_str().unwrap();
    let status = run(&gateway, &["status"]);
    assert!(status.contains(&format!("accept {digest}")), "{status}");
    let said = run(&gateway, &["lists", "accept", digest]);
    assert!(said.contains("accepted service=shop list=prod"), "{said}");
    assert_eq!(gateway.get("127.0.0.9", "/shop/").status(), 503);
    let again = run(&gateway, &["lists", "accept", digest]);
    assert!(
        again.contains("in force already service=shop list=prod"),
        "{again}"
    );
    // A version that lacks a section, or has one of nobody, is none.
    gateway.write_lists_text(&origins.text("", "").replace("[api pre]", "[web pre]"));
    gateway.wait_for_log("there is no [service web]");
    assert_eq!(gateway.admin_get("/lists?service=web").0, 404);
}

#[test]
fn a_start_without_redis_has_all_services_of_the_copy_and_an_upgrade_keeps_generations_and_holds() {
    let (mut redis, origins, place) = (Redis::start(), Origins::new(), CopyFolder::new());
    origins.push(&redis);
    let setup = |redis: &Redis| {
        let setup = Setup::new()
            .redis(redis.url())
            .set("gateway.pid_file", "pid");
        place.set(with_services(setup))
    };
    let gateway = setup(&redis).start();
    let last = LastProcess(&gateway);
    let next = Origin::named("next");
    for gray in ["127.0.0.6", "127.0.0.5"] {
        redis.cli(&["LSET", "shop:gray", "0", gray]);
        wait_of_service(&gateway, "api", |it| it["gray"] == json!([gray]));
    }
    assert_eq!(generations(&gateway), [1, 3, 3]);
    redis.cli(&["LSET", "api:prod", "0", &next.to_string()]);
    let held = wait_of_service(&gateway, "api", |it| it["held"] != json!([]));
    upgrade_well(&gateway);
    assert_eq!(generations(&gateway), [1, 3, 3]);
    assert_eq!(of_service(&gateway, "api")["held"], held["held"]);
    gateway.wait_for_log("lists-handed-over service=shop generation=3");
    drop(last);
    let copy = std::fs::read_to_string(place.copy()).unwrap();
    assert!(
        copy.starts_with("# graygate last-good lists, version 3,"),
        "{copy}"
    );
    redis.kill();
    let gateway = setup(&redis).start();
    gateway.wait_for_log("lists-from-copy service=api generation=1");
    assert_eq!(gateway.get("127.0.0.5", "/api/").text(), "api pre");
    assert_eq!(gateway.get("127.0.0.6", "/shop/").text(), "shop prod");
    // What was held is not let in by a restart.
    redis.restart();
    origins.push(&redis);
    redis.cli(&["LSET", "api:prod", "0", &next.to_string()]);
    wait_of_service(&gateway, "api", |it| it["held"] != json!([]));
    gateway.end();
}

#[test]
fn a_reload_adds_a_service_and_takes_one_away() {
    let (redis, origins) = (Redis::start(), Origins::new());
    origins.push(&redis);
    let mut gateway = with_services(Setup::new().redis(redis.url())).start();
    redis.cli(&["LSET", "shop:gray", "0", "127.0.0.6"]);
    wait_of_service(&gateway, "shop", |it| it["generation"] == 2);
    let new = Origin::named("new prod");
    redis.push("new:prod", &[&new]);
    gateway.edit_ini(|setup| {
        setup
            .unset("service api.paths")
            .unset("service api.gray")
            .set("service new.paths", "/new/")
    });
    gateway.signal(Signal::SIGHUP);
    wait_until("the new service is served", DEADLINE, || {
        gateway.get("127.0.0.5", "/new/").text() == "new prod"
    });
    assert_eq!(gateway.admin_get("/lists?service=api").0, 404);
    assert_eq!(of_service(&gateway, "shop")["generation"], 2);
    assert_eq!(gateway.get("127.0.0.5", "/api/").text(), "prod");
}

#[test]
fn a_service_that_comes_by_a_reload_takes_its_requests_over_with_its_lists() {
    let (redis, origins) = (Redis::start(), Origins::new());
    origins.push(&redis);
    let new = Origin::named("new prod");
    redis.push("new:prod", &[&new]);
    let mut gateway = with_services(Setup::new().redis(redis.url())).start();
    let (addr, done) = (gateway.addr(), AtomicBool::new(false));
    let served = thread::scope(|scope| {
        let _done = Done(&done);
        let ask = || {
            let (mut client, mut served) = (Client::connect(addr), Vec::new());
            while !done.load(Ordering::Relaxed) {
                served.push(client.get("/new/").text());
                served.dedup();
            }
            served
        };
        let asking = scope.spawn(ask);
        for _ in 0..5 {
            for (comes, name) in [(true, "new prod"), (false, "prod")] {
                gateway.edit_ini(|it| match comes {
                    true => it.set("service new.paths", "/new/"),
                    false => it.unset("service new.paths"),
                });
                gateway.signal(Signal::SIGHUP);
                wait_until(name, DEADLINE, || {
                    gateway.get("127.0.0.5", "/new/").text() == name
                });
            }
        }
        done.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    });
    let others: Vec<_> = served
        .iter()
        .filter(|it| *it != "prod" && *it != "new prod")
        .collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(served.len() > 2, "{served:?}");
}

/// Ends those who ask also when the test has failed.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// As [`run`], of a command that answers in JSON.
#[track_caller]
fn members(gateway: &Gateway, words: &[&str]) -> Value {
    let said = run(gateway, &[words, &["--json"]].concat());
    // What is wrong stands on standard error as well.
    let end = said.rfind('}').unwrap();
    serde_json::from_str(&said[..=end]).unwrap()
}

#[test]
fn the_commands_about_lists_tell_of_each_service_and_none_is_forgotten() {
    // Nothing is announced, so the gateway keeps what it has.
    let (redis, origins) = (
        Redis::start_with_options(&["--rename-command", "CONFIG", ""]),
        Origins::new(),
    );
    origins.push(&redis);
    redis.push("shop:gray", &[&"percent:5"]);
    redis.cli(&["SET", "shop:salt", "2026-12"]);
    let setup = Setup::new().redis(redis.url());
    let setup = with_services(setup)
        .set("redis.notify", "poll")
        .set("redis.poll_interval", "1h");
    let gateway = setup.start();
    wait_of_service(&gateway, "api", |it| it["counts"]["gray"] == 2);
    let [pre, prod, shop_pre, shop_prod, api_pre, api_prod] =
        origins.0.each_ref().map(ToString::to_string);
    // What is shown of all is a lists file.
    let expected = format!(
        "[gray]\n[pre]\n{pre}\n[prod]\n{prod}\n\
         [api pre]\n{api_pre}\n[api prod]\n{api_prod}\n\
         [shop gray]\n127.0.0.5\npercent:5\n[shop pre]\n{shop_pre}\n[shop prod]\n{shop_prod}\n"
    );
    for words in [&["lists", "show"][..], &["lists", "show", "--offline"]] {
        let shown = run(&gateway, words);
        let lines = shown.lines().filter(|it| !it.starts_with('#'));
        let text: String = lines.map(|it| format!("{it}\n")).collect();
        assert_eq!(text, expected, "{words:?}");
        assert!(shown.contains("# api: the gray list of shop\n"), "{shown}");
        let one = run(&gateway, &[words, &["--service", "api"]].concat());
        let part = format!("[shop gray]\n127.0.0.5\npercent:5\n[api pre]\n{api_pre}\n");
        assert!(one.contains(&part) && !one.contains("[pre]"), "{one}");
        let digest = of_service(&gateway, "api")["digest"].clone();
        let all = members(&gateway, words);
        assert_eq!(all["services"][0]["service"], "api");
        assert_eq!(
            all["services"][0]["digest"], digest,
            "{words:?}: with the salt"
        );
        assert_eq!(
            all["services"][0]["gray"],
            json!(["127.0.0.5", "percent:5"])
        );
        let one = members(&gateway, &[words, &["--service", "api"]].concat());
        assert_eq!(one["digest"], digest);
    }
    let said = run(&gateway, &["lists", "show", "--service", "web"]);
    let none = "the gateway has no service web; there is default, api, shop";
    assert!(said.contains(none), "{said}");
    // Who is asked offline decides by the lists of the service, too.
    let live = run(&gateway, &["explain", "127.0.0.5", "--path", "/shop/"]);
    let asked = ["explain", "127.0.0.5", "--path", "/shop/", "--offline"];
    let offline = run(&gateway, &asked);
    let of_pool = |text: &str| {
        text.lines()
            .find(|it| it.starts_with("pool"))
            .map(str::to_owned)
    };
    assert_eq!(of_pool(&live), of_pool(&offline), "{live}\n{offline}");
    assert!(
        offline.contains("127.0.0.5") && offline.contains(&shop_pre),
        "{offline}"
    );

    let same = run(&gateway, &["lists", "diff"]);
    assert!(
        same.starts_with("the same: ") && same.ends_with("all 3 services are the same\n"),
        "{same}"
    );
    redis.cli(&["RPUSH", "shop:gray", "127.0.0.7"]);
    redis.cli(&["LREM", "api:pre", "0", &api_pre]);
    let different = run(&gateway, &["lists", "diff"]);
    for line in [
        "+ shop gray 127.0.0.7".to_owned(),
        "+ api gray 127.0.0.7".to_owned(),
        format!("- api pre {api_pre}"),
        "2 of 3 services differ: api, shop".to_owned(),
        "graygate: the gateway does not hold what the store has of api, shop".to_owned(),
    ] {
        assert!(
            different.lines().any(|it| it == line),
            "{line}: {different}"
        );
    }
    assert!(
        different.contains("\nshop: different: the gateway holds "),
        "{different}"
    );
    let of_default = run(&gateway, &["lists", "diff", "--service", "default"]);
    assert!(
        of_default.starts_with("the same: ") && of_default.lines().count() == 1,
        "{of_default}"
    );
    let page = members(&gateway, &["lists", "diff"]);
    assert_eq!(
        (&page["same"], &page["services"][1]["service"]),
        (&json!(false), &json!("shop"))
    );
    assert_eq!(
        page["services"][1]["only_store"]["gray"],
        json!(["127.0.0.7"])
    );
    let page = members(&gateway, &["lists", "diff", "--service", "shop"]);
    assert_eq!(
        (&page["same"], &page["service"]),
        (&json!(false), &json!("shop"))
    );
    // One that cannot be compared is not the same, and hides no other one.
    redis.cli(&["DEL", "shop:prod"]);
    redis.cli(&["SET", "shop:prod", "x"]);
    let different = run(&gateway, &["lists", "diff"]);
    let wrong = "shop: not compared: shop prod: wrong-type: the key \"shop:prod\" is a string";
    assert!(different.contains(wrong), "{different}");
    assert!(
        different.contains("2 of 3 services differ: api, shop"),
        "{different}"
    );
}

#[test]
fn the_entries_of_all_services_are_checked() {
    let (redis, origins) = (Redis::start(), Origins::new());
    origins.push(&redis);
    let setup = Setup::new().redis(redis.url());
    let setup = with_services(setup).set("service api.peer_port", 81);
    let ini = setup.write_ini();
    let check = |words: &[&str]| {
        let words = [&["lists", "check", "-c", ini.to_str().unwrap()], words].concat();
        let output = run_to_exit(&words);
        let text = String::from_utf8(output.stdout).unwrap();
        (text, output.status.code())
    };
    let good = "nothing to report: gray 1, pre 3, prod 3 in 3 services\n";
    assert_eq!(check(&[]), (good.to_owned(), Some(0)));
    redis.push("shop:gray", &[&"percent:5:cookie", &"*", &"header:X"]);
    redis.push("api:pre", &[&"10.1.0.1"]);
    redis.push("api:prod", &[&"10.1.0.1:81"]);
    redis.cli(&["RPUSH", "shop:salt", "x"]);
    let shop = "shop salt: wrong-type: the key \"shop:salt\" is a list; it must be a string\n\
                shop gray: skipped: percent:5:cookie: a share by a cookie, header or query parameter needs its \
                name, like percent:5:cookie:uid\n\
                shop gray: unreachable: *: admits everybody: the 2 other entries that admit somebody make no \
                difference\n\
                shop gray: admits-everybody: *: such a change is held until somebody confirms it\n";
    let api = "api pre: in-both-pools: 10.1.0.1:81: is in prod, too\n";
    assert_eq!(check(&["--service", "api"]), (api.to_owned(), Some(1)));
    let (text, code) = check(&[]);
    assert_eq!((text, code), (format!("{api}{shop}"), Some(1)));
    let (text, _) = check(&["--json"]);
    let page: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(page["remarks"], 5);
    assert_eq!(page["services"][1]["service"], "shop");
    assert_eq!(page["services"][1]["held"][0]["reason"], "admits-everybody");
    // A lists file is checked for all services that it has, or that are configured.
    let text =
        "[gray]\n[pre]\n[prod]\n10.0.0.1\n[shop gray]\n10.0.0\n[shop pre]\n[shop prod]\n10.0.0.2\n";
    std::fs::write(setup.path("lists"), text).unwrap();
    let file = setup.path("lists");
    let output = run_to_exit(&[
        "lists",
        "check",
        file.to_str().unwrap(),
        "-c",
        "/nonexistent/x.ini",
    ]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, "shop gray: almost: 10.0.0: is 10.0.0.0/24 meant?\n");
    let output = run_to_exit(&[
        "lists",
        "check",
        file.to_str().unwrap(),
        "-c",
        ini.to_str().unwrap(),
    ]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("there is no section [api pre]"), "{said}");
}

#[test]
fn what_a_service_lacks_or_holds_is_told_by_its_name_and_an_upgrade_lets_nothing_in() {
    let (redis, origins, place) = (Redis::start(), Origins::new(), CopyFolder::new());
    origins.push(&redis);
    let web = Origin::named("web");
    let setup = Setup::new()
        .redis(redis.url())
        .set("gateway.pid_file", "pid");
    let setup = with_services(setup).set("service web.paths", "/web/");
    let gateway = place.set(setup).start();
    let last = LastProcess(&gateway);
    let strict = || {
        let ini = gateway.path("graygate.ini");
        run_to_exit(&["status", "--strict", "-c", ini.to_str().unwrap()])
    };
    let code = || strict().status.code();
    // Nobody has ever pushed a server of it: its clients get 503, and the others' do not.
    assert_eq!(gateway.get("127.0.0.9", "/web/").status(), 503);
    assert_eq!(gateway.get("127.0.0.9", "/shop/").text(), "shop prod");
    let lacks = "degraded service-unserved: web: no-peers: prod is empty\n";
    let (status, health) = gateway.admin_get("/healthz?full");
    assert!(status == 200 && health.contains(lacks), "{status} {health}");
    assert_eq!(code(), Some(2));
    let degraded = "graygate_degraded{reason=\"service-unserved\"}";
    assert_eq!(gateway.metric(degraded), 1.0);
    redis.push("web:prod", &[&web]);
    gateway.wait_for_metric(degraded, 0.0);
    assert!(
        !gateway
            .admin_get("/healthz?full")
            .1
            .contains("service-unserved")
    );

    // Everybody of a service, however that is written, is held there, and for whoever shares the list.
    let shown = |name: &str, labels: &str| {
        gateway.shown_metric(&format!("graygate_lists_{name}{{{labels}}}"))
    };
    let of_shop = "service=\"shop\",list=\"gray\"";
    assert_eq!(shown("held", of_shop), None);
    assert_eq!(
        shown("held", "service=\"default\",list=\"gray\""),
        Some(0.0)
    );
    redis.push(
        "shop:gray",
        &[&"percent:100", &"percent:5:cookie", &"* note=\"all\""],
    );
    let page = wait_of_service(&gateway, "shop", |it| it["held"] != json!([]));
    assert_eq!(page["held"][0]["reason"], "admits-everybody");
    assert_eq!(shown("held", of_shop), Some(1.0));
    assert_eq!(of_service(&gateway, "api")["held"], json!([]));
    let nobody = |when: &str| {
        for (path, text) in [
            ("/shop/", "shop prod"),
            ("/api/", "api prod"),
            ("/", "prod"),
        ] {
            assert_eq!(gateway.get("127.0.0.9", path).text(), text, "{when} {path}");
        }
    };
    nobody("before");
    upgrade_well(&gateway);
    assert_eq!(of_service(&gateway, "shop")["held"], page["held"]);
    assert_eq!(shown("held", of_shop), Some(1.0));
    nobody("after the upgrade");
    let digest = page["held"][0]["digest"].as_str().unwrap();
    let said = run(&gateway, &["lists", "accept", digest]);
    assert!(said.contains("accepted service=shop list=gray"), "{said}");
    assert_eq!(gateway.get("127.0.0.9", "/shop/").text(), "shop pre");
    assert_eq!(gateway.get("127.0.0.9", "/api/").text(), "api pre");
    assert_eq!(gateway.get("127.0.0.9", "/").text(), "prod");
    assert_eq!(shown("held", of_shop), None);
    // What is skipped and found is that service's, too.
    redis.push("shop:gray", &[&"10.0.0.300"]);
    gateway.wait_for_metric(&format!("graygate_lists_skipped{{{of_shop}}}"), 2.0);
    assert_eq!(
        shown("findings", "service=\"shop\",finding=\"almost\""),
        Some(1.0)
    );
    assert_eq!(
        shown("findings", "service=\"shop\",finding=\"unreachable\""),
        Some(1.0)
    );
    assert_eq!(
        shown("findings", "service=\"default\",finding=\"unreachable\""),
        Some(0.0)
    );
    redis.cli(&["DEL", "api:pre"]);
    redis.cli(&["SET", "api:pre", "x"]);
    gateway.wait_for_metric(
        "graygate_lists_kept{service=\"api\",list=\"pre\",fault=\"wrong-type\"}",
        1.0,
    );
    let status = run(&gateway, &["status"]);
    assert!(
        status.contains("kept        api pre, since the store has: wrong-type"),
        "{status}"
    );
    drop(last);
}

#[test]
fn a_copy_of_other_keys_of_a_service_serves_nobody() {
    let (mut redis, origins, place) = (Redis::start(), Origins::new(), CopyFolder::new());
    origins.push(&redis);
    let setup = |redis: &Redis| place.set(with_services(Setup::new().redis(redis.url())));
    let gateway = setup(&redis).start();
    wait_until("the copy", DEADLINE, || {
        std::fs::read_to_string(place.copy()).is_ok_and(|it| it.contains("[api prod]"))
    });
    gateway.end();
    redis.kill();
    // The keys of a service are others: what was in the old ones is not what is meant.
    let gateway = setup(&redis).set("service api.prod_key", "other").start();
    gateway.wait_for_log("copy-of-another-store");
    assert_eq!(gateway.get("127.0.0.9", "/api/").status(), 503);
    gateway.end();
    // A service that is new takes nothing from the others.
    let gateway = setup(&redis).set("service new.paths", "/new/").start();
    gateway.wait_for_log("lists-from-copy service=api generation=1");
    assert_eq!(gateway.get("127.0.0.9", "/api/").text(), "api prod");
    assert_eq!(gateway.get("127.0.0.9", "/new/").status(), 503);
    let (_, health) = gateway.admin_get("/healthz?full");
    assert!(
        health.contains("degraded service-unserved: new: no-lists: no lists have been read: "),
        "{health}"
    );
}

#[test]
fn a_reload_that_adds_a_service_whose_lists_cannot_be_read_changes_nothing() {
    let redis = Redis::start();
    let origins = Origins::new();
    origins.push(&redis);
    let mut gateway = Setup::new().redis(redis.url()).start();
    let served = |gateway: &Gateway| gateway.get("127.0.0.1", "/shop/x").text();
    assert_eq!(served(&gateway), "prod");
    redis.cli(&["DEL", "shop:prod"]);
    redis.cli(&["SET", "shop:prod", "127.0.0.1:80"]);
    gateway.edit_ini(|it| it.set("service shop.paths", "/shop"));
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_log("reload-failed error=");
    gateway.wait_for_log("shop prod: wrong-type");
    assert_eq!(served(&gateway), "prod", "as before");
    redis.cli(&["DEL", "shop:prod"]);
    redis.push("shop:prod", &[&"127.0.0.1:port"]);
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_log("shop prod: all-skipped");
    assert_eq!(served(&gateway), "prod", "as before");
    redis.cli(&["DEL", "shop:prod"]);
    redis.push("shop:prod", &[&origins.0[3]]);
    gateway.signal(Signal::SIGHUP);
    wait_until("the service", DEADLINE, || served(&gateway) == "shop prod");
}
