//! Versions that were taken back: by a key that somebody sets, or a gateway; on every gateway, at once, and
//! for as long as that is meant.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{
    DEADLINE, FileSite, Gateway, LastProcess, Origin, Redis, Setup, poll, run_to_exit,
    upgrade_well, wait_until,
};

const KEY: &str = "graygate:tripped";

/// A client that is in the gray list, and one that is not.
const GRAY: &str = "127.0.0.5";
const OTHER: &str = "127.0.0.6";

/// A Redis with lists, the origins in them, and gateways.
struct Site {
    redis: Redis,
    pre: Origin,
    prod: Origin,
    gateways: Vec<Gateway>,
}

impl Site {
    #[track_caller]
    fn start(count: usize) -> Self {
        Self::with(count, |it| it)
    }

    #[track_caller]
    fn with(count: usize, edit: impl Fn(Setup) -> Setup) -> Self {
        let (pre, prod) = Origin::pre_and_prod();
        let redis = Redis::start();
        let mut site = Self {
            redis,
            pre,
            prod,
            gateways: Vec::new(),
        };
        site.fill();
        for number in 0..count {
            site.add(number, &edit);
        }
        site
    }

    #[track_caller]
    fn add(&mut self, number: usize, edit: impl Fn(Setup) -> Setup) {
        let setup = Setup::new().redis(self.redis.url());
        let setup = setup.set("redis.node", format!("gw-{number}"));
        let setup = setup.set("redis.check_interval", "1h");
        let setup = setup.set("gray.force_header", "X-Force");
        let gateway = edit(setup).start();
        gateway.wait_for_lists("the lists", |it| it["generation"] != 0);
        self.gateways.push(gateway);
    }

    /// Writes the lists.
    #[track_caller]
    fn fill(&self) {
        self.redis.push_peers(&self.pre, &self.prod);
        self.redis.push("gray", &[&GRAY]);
    }

    fn first(&self) -> &Gateway {
        &self.gateways[0]
    }

    /// Waits until every gateway serves the gray client by this pool; how long that took.
    #[track_caller]
    fn wait(&self, pool: &str) -> Duration {
        let begun = Instant::now();
        for gateway in &self.gateways {
            let asked = || (served(gateway, GRAY) == pool).then_some(());
            poll(DEADLINE, asked).unwrap_or_else(|| panic!("not served by {pool}"));
        }
        begun.elapsed()
    }

    fn pre_digest(&self) -> String {
        let page = self.first().lists();
        page["digests"]["pre"].as_str().unwrap().to_owned()
    }

    /// What a gateway writes that takes back what is in `pre`.
    fn trip(&self, epoch: &str) -> Value {
        let pre = self.pre_digest();
        json!({
            "service": "default", "by": "gw-9", "at": "2026-11-25T19:16:26.123Z", "why": "worse", "pre": pre,
            "release": format!("{pre}/{epoch}"), "numbers": { "n": 41, "x": 3 }, "reason": null,
        })
    }
}

/// Who has answered this client.
fn served(gateway: &Gateway, client: &str) -> String {
    gateway.get(client, "/").text()
}

/// Writes the list of clients anew.
fn set_gray(redis: &Redis, clients: &[&str]) {
    let mut pipe = redis::pipe();
    pipe.atomic().cmd("DEL").arg("gray").ignore();
    pipe.cmd("RPUSH").arg("gray").arg(clients).ignore();
    pipe.exec(&mut redis.connect(0)).unwrap();
}

fn ini(gateway: &Gateway) -> String {
    gateway.path("graygate.ini").display().to_string()
}

fn stdout_of(arguments: &[&str]) -> String {
    let output = run_to_exit(arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code().is_some_and(|it| it < 3), "{output:?}");
    text
}

#[test]
fn a_key_takes_a_version_back_on_every_gateway_at_once_and_its_removal_brings_it_again() {
    let site = Site::start(3);
    site.wait("pre");
    let mut slowest = Duration::ZERO;
    for text in ["stop", &site.trip("").to_string(), "{\"by\":\"ann\"}", "7"] {
        site.redis.cli(&["SET", KEY, text]);
        let there = site.wait("prod");
        site.redis.cli(&["DEL", KEY]);
        slowest = slowest.max(there).max(site.wait("pre"));
    }
    println!("three gateways within {slowest:?}");
    site.redis.cli(&["SET", KEY, "the basket loses items"]);
    site.wait("prod");
    for gateway in &site.gateways {
        gateway.wait_for_access(&format!("client={GRAY} pool=prod reason=tripped"));
        gateway.wait_for_log("reason=\"the basket loses items\"");
        // Nobody else is concerned; and a tester has what was asked for.
        assert_eq!(served(gateway, OTHER), "prod");
        gateway.wait_for_access(&format!("client={OTHER} pool=prod reason=unlisted"));
        let mut client = gateway.connect_from(GRAY);
        let forced = client.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Force: pre\r\n\r\n");
        assert_eq!(forced.text(), "pre");
        gateway.wait_for_metric("graygate_tripped", 1.0);
        let name = "graygate_decisions_total{pool=\"prod\",reason=\"tripped\"}";
        assert!(gateway.metric(name) >= 1.0);
        let trip = &gateway.lists()["tripped"];
        assert_eq!(trip["reason"], "the basket loses items");
        assert_eq!(trip["pre"], site.pre_digest());
        assert_eq!(trip["stored"], true);
    }
    let ini = ini(site.first());
    let status = stdout_of(&["status", "-c", &ini]);
    let line = status.lines().find(|it| it.starts_with("TRIPPED")).unwrap();
    assert!(line.contains("graygate verdict reset"), "{line}");
    // Whoever has set the key has no name here.
    assert!(
        line.contains("Z by hand (the basket loses items);"),
        "{line}"
    );
    let explained = stdout_of(&["explain", GRAY, "-c", &ini]);
    assert!(explained.contains("tripped"), "{explained}");
    let stored = stdout_of(&["explain", GRAY, "--offline", "-c", &ini]);
    assert!(stored.contains("tripped"), "{stored}");
    wait_until("the fleet to know it", DEADLINE, || {
        let output = run_to_exit(&["fleet", "-c", &ini]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.contains("pre is taken back on 3 of 3 gateways")
    });
    site.redis.cli(&["DEL", KEY]);
    site.wait("pre");
    site.first().wait_for_log("trip-reset");
    site.first().wait_for_metric("graygate_tripped", 0.0);
}

#[test]
fn another_pre_ends_it_at_once_and_nobody_gets_the_old_one_in_between() {
    let site = Site::start(1);
    let new = Origin::named("new");
    site.redis.cli(&["SET", KEY, "stop"]);
    site.wait("prod");
    let (gateway, redis) = (site.first(), &site.redis);
    let before = site.pre.seen(|it| it.requests.len());
    // Also where the key is deleted in the same moment.
    for (is_deleted, expected) in [(true, "new"), (false, "new")] {
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let by = served(gateway, GRAY);
                        assert!(by == "prod" || by == "new", "{by}");
                    }
                });
            }
            let mut pipe = redis::pipe();
            pipe.atomic().cmd("DEL").arg("pre").ignore();
            pipe.cmd("RPUSH")
                .arg("pre")
                .arg(new.address().to_string())
                .ignore();
            if is_deleted {
                pipe.cmd("DEL").arg(KEY).ignore();
            }
            pipe.exec(&mut redis.connect(0)).unwrap();
            site.wait(expected);
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(
            site.pre.seen(|it| it.requests.len()),
            before,
            "old servers were asked"
        );
        if is_deleted {
            // Back to where it was.
            let mut pipe = redis::pipe();
            pipe.atomic().cmd("DEL").arg("pre").ignore();
            pipe.cmd("RPUSH")
                .arg("pre")
                .arg(site.pre.address().to_string())
                .ignore();
            pipe.cmd("SET").arg(KEY).arg(trip_of(&site)).ignore();
            pipe.exec(&mut redis.connect(0)).unwrap();
            site.wait("prod");
        }
    }
    gateway.wait_for_log("trip-over");
}

/// The key of what was in `pre` at first.
fn trip_of(site: &Site) -> String {
    let lists = graygate::lists::PeerList::parse([site.pre.address().to_string()], 80);
    let pre = lists.digest(graygate::lists::ListName::Pre);
    json!({ "pre": pre.to_string(), "by": "gw-9", "why": "worse" }).to_string()
}

#[test]
fn it_outlives_a_redis_that_loses_its_data_and_is_written_again_once_there_are_lists() {
    // That all is gone is not announced.
    let mut site = Site::with(2, |it| it.set("redis.check_interval", "300ms"));
    site.redis.cli(&["SET", KEY, &site.trip("").to_string()]);
    site.wait("prod");
    site.redis.cli(&["FLUSHALL"]);
    site.first().wait_for_log("trip-unwritten");
    site.fill();
    wait_until("the key to be written", DEADLINE, || {
        site.redis.cli(&["GET", KEY]) != redis::Value::Nil
    });
    site.wait("prod");
    // Killed, and back without its data.
    site.redis.kill();
    site.wait("prod");
    site.redis.restart();
    site.redis.cli(&["FLUSHALL"]);
    site.fill();
    wait_until("the key to be written again", DEADLINE, || {
        site.redis.cli(&["GET", KEY]) != redis::Value::Nil
    });
    // Whoever deletes it before all gateways have seen it would have it written again.
    for gateway in &site.gateways {
        gateway.wait_for_lists("the trip", |it| {
            it["error"].is_null() && it["tripped"]["stored"] == true
        });
    }
    site.redis.cli(&["DEL", KEY]);
    site.wait("pre");
}

/// What a gateway writes that takes back a version with these servers.
fn trip_about(pre: &Origin) -> String {
    let lists = graygate::lists::PeerList::parse([pre.address().to_string()], 80);
    let pre = lists.digest(graygate::lists::ListName::Pre);
    json!({ "pre": pre.to_string(), "by": "gw-9", "why": "worse" }).to_string()
}

#[test]
fn a_trip_never_replaces_that_of_what_the_store_has_in_pre_and_holds_while_its_version_does() {
    let site = Site::start(1);
    let (gateway, redis) = (site.first(), &site.redis);
    let new = Origin::named("new");
    let (of_old, of_new) = (site.trip("").to_string(), trip_about(&new));
    redis.cli(&["SET", KEY, &of_old]);
    site.wait("prod");
    // Of one that is in nobody's pre: whoever has written it was cut off.
    redis.cli(&["SET", KEY, &of_new]);
    let key = || -> Value {
        let text: Option<String> = redis::from_redis_value(redis.cli(&["GET", KEY])).unwrap();
        serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default()
    };
    wait_until("it is written again", DEADLINE, || {
        key()["pre"] == site.pre_digest()
    });
    assert_eq!(served(gateway, GRAY), "prod");
    // Here the old one is in force still, since somebody has frozen the lists.
    redis.cli(&["SET", "graygate:release", "{\"frozen\":{}}"]);
    gateway.wait_for_lists("they are frozen", |it| {
        it["kept"] != json!([]) && it["tripped"]["stored"] == true
    });
    redis.cli(&["CONFIG", "RESETSTAT"]);
    let mut pipe = redis::pipe();
    pipe.atomic().cmd("DEL").arg("pre").ignore();
    pipe.cmd("RPUSH")
        .arg("pre")
        .arg(new.address().to_string())
        .ignore();
    pipe.cmd("SET").arg(KEY).arg(&of_new).ignore();
    pipe.exec(&mut redis.connect(0)).unwrap();
    gateway.wait_for_lists("it is not in the store", |it| {
        it["tripped"]["stored"] == false
    });
    wait_until("it has looked what is in pre", DEADLINE, || {
        calls(redis, "type") >= 2
    });
    assert_eq!(served(gateway, GRAY), "prod");
    assert_eq!(
        key()["pre"].to_string(),
        serde_json::from_str::<Value>(&of_new).unwrap()["pre"].to_string()
    );
    redis.cli(&["SET", "graygate:release", "{}"]);
    gateway.wait_for_lists("that of the new one counts", |it| {
        it["tripped"]["pre"] == key()["pre"]
    });
    assert_eq!(served(gateway, GRAY), "prod");
    assert_eq!(new.seen(|it| it.requests.len()), 0);
}

#[test]
fn a_word_of_a_person_becomes_a_trip_that_says_what_it_is_about() {
    let enforcing = |it: Setup| it.set("verdict.mode", "enforce");
    let mut site = Site::with(2, enforcing);
    let digest = site.pre_digest();
    let redis = &site.redis;
    redis.cli(&["SET", KEY, "the basket loses items", "EX", "3600"]);
    let key = || -> Value {
        let text: Option<String> = redis::from_redis_value(redis.cli(&["GET", KEY])).unwrap();
        serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default()
    };
    wait_until("the key says so", DEADLINE, || {
        key()["pre"] == digest.as_str()
    });
    assert_eq!(key()["reason"], "the basket loses items");
    assert_eq!(key()["why"], "by hand");
    let left: i64 = redis::from_redis_value(redis.cli(&["TTL", KEY])).unwrap();
    assert!(
        (3000..=3600).contains(&left),
        "it expires as it was to: {left}"
    );
    for gateway in &site.gateways {
        gateway.wait_for_lists("the key is read", |it| it["tripped"]["at"] == key()["at"]);
        assert_eq!(served(gateway, GRAY), "prod");
    }
    // For whoever is started when another version is there, it is over, as for all.
    let new = Origin::named("new");
    let mut pipe = redis::pipe();
    pipe.atomic().cmd("DEL").arg("pre").ignore();
    pipe.cmd("RPUSH").arg("pre").arg(new.address().to_string());
    pipe.exec(&mut redis.connect(0)).unwrap();
    site.wait("new");
    site.add(2, enforcing);
    site.wait("new");
    for gateway in &site.gateways[..2] {
        assert_eq!(gateway.stderr.count(" tripped "), 1);
        assert_eq!(gateway.stderr.count("trip-reset"), 0);
    }
    assert_eq!(site.gateways[2].stderr.count(" tripped "), 0);
}

#[test]
fn people_are_told_by_the_next_process_what_the_last_one_could_not_say() {
    let receiver = Origin::saying(*b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let told = || {
        let requests = receiver.requests();
        let texts = requests
            .iter()
            .map(|it| String::from_utf8_lossy(&it.content));
        texts
            .filter(|it| it.contains("\"event\":\"tripped\""))
            .count()
    };
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("last-good");
    let with_copy = |it: Setup| {
        let it = it.set("lists.last_good", copy.display());
        it.set("verdict.webhook", format!("http://{}/", receiver.address()))
    };
    let mut site = Site::with(1, with_copy);
    site.redis.cli(&["SET", KEY, &site.trip("").to_string()]);
    site.wait("prod");
    let file = folder.path().join("last-good.trips");
    let text = || fs::read_to_string(&file).unwrap_or_default();
    wait_until("the file", DEADLINE, || text().contains("\"stored\":true"));
    site.gateways.remove(0).end();
    // What was found by others, they have told.
    assert_eq!(told(), 0);
    // As it is where the process was killed before it could say it.
    let untold = text().replace("\"told\":true", "\"told\":false");
    assert_ne!(untold, text());
    fs::write(&file, untold).unwrap();
    site.add(0, with_copy);
    site.wait("prod");
    wait_until("it is told", DEADLINE, || told() == 1);
    wait_until("that is known", DEADLINE, || {
        text().contains("\"told\":true")
    });
    site.gateways.remove(0).end();
    site.add(0, with_copy);
    site.wait("prod");
    site.gateways.remove(0).end();
    assert_eq!(told(), 1);
}

#[test]
fn a_file_of_trips_that_cannot_be_read_is_kept_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("last-good");
    let file = folder.path().join("last-good.trips");
    fs::write(&file, "{}").unwrap();
    let site = Site::with(1, |it| it.set("lists.last_good", copy.display()));
    let line = site.first().wait_for_log("trips-unreadable");
    assert!(line.contains("last-good.trips.damaged"), "{line}");
    site.redis.cli(&["SET", KEY, &site.trip("").to_string()]);
    site.wait("prod");
    let aside = folder.path().join("last-good.trips.damaged");
    wait_until("a new one", DEADLINE, || aside.exists() && file.exists());
    assert_eq!(fs::read_to_string(aside).unwrap(), "{}");
}

#[test]
fn a_reset_at_the_moment_that_a_trip_is_written_ends_it() {
    let site = Site::with(1, |it| it.set("redis.check_interval", "300ms"));
    let redis = &site.redis;
    redis.cli(&["SET", KEY, &site.trip("").to_string()]);
    site.wait("prod");
    redis.cli(&["FLUSHALL"]);
    site.first().wait_for_log("trip-unwritten");
    redis.cli(&["CONFIG", "RESETSTAT"]);
    // From the lists on, whatever writes waits; in turn, and the reset first.
    let mut fill = redis::pipe();
    for (key, entry) in [
        ("pre", site.pre.address().to_string()),
        ("prod", site.prod.address().to_string()),
        ("gray", GRAY.to_owned()),
    ] {
        fill.cmd("RPUSH").arg(key).arg(entry).ignore();
    }
    fill.cmd("CLIENT")
        .arg("PAUSE")
        .arg(60_000)
        .arg("WRITE")
        .ignore();
    fill.exec(&mut redis.connect(0)).unwrap();
    let state = json!({ "epoch": "e2", "reset": { "epoch": "e2", "by": "ann" } }).to_string();
    std::thread::scope(|scope| {
        scope.spawn(|| redis.cli(&["SET", "graygate:release", &state]));
        wait_until("the gateway is about to write", DEADLINE, || {
            calls(redis, "multi") > 0 && calls(redis, "type") > 0
        });
        redis.cli(&["CLIENT", "UNPAUSE"]);
    });
    site.wait("pre");
    assert_eq!(redis.cli(&["GET", KEY]), redis::Value::Nil);
}

#[test]
fn a_restart_without_redis_knows_it() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("last-good");
    let with_copy = |it: Setup| it.set("lists.last_good", copy.display());
    let mut site = Site::with(1, with_copy);
    site.redis.cli(&["SET", KEY, &site.trip("").to_string()]);
    site.wait("prod");
    let file = folder.path().join("last-good.trips");
    wait_until("the file", DEADLINE, || file.exists() && copy.exists());
    site.gateways.remove(0).end();
    site.redis.kill();
    let setup = Setup::new().redis(site.redis.url());
    let gateway = with_copy(setup.set("redis.timeout", "1s")).start();
    gateway.wait_for_lists("those of the copy", |it| it["generation"] != 0);
    assert_eq!(served(&gateway, GRAY), "prod");
    gateway.wait_for_access(&format!("client={GRAY} pool=prod reason=tripped"));
    site.redis.restart();
    site.fill();
    // It was written, and is gone: nobody can tell who has deleted it while this gateway was not there.
    gateway.wait_served(GRAY, "pre", DEADLINE);
    wait_until("the file to go", DEADLINE, || !file.exists());
}

#[test]
fn a_restart_beside_a_redis_that_has_lost_all_of_it_goes_on_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("last-good");
    let with_copy = |it: Setup| it.set("lists.last_good", copy.display());
    let mut site = Site::with(1, with_copy);
    site.redis
        .cli(&["SET", "graygate:release", "{\"epoch\":\"e1\"}"]);
    site.redis.cli(&["SET", KEY, &site.trip("e1").to_string()]);
    site.wait("prod");
    let file = folder.path().join("last-good.trips");
    let is_known_as_stored = || fs::read_to_string(&file).is_ok_and(|it| it.contains("\"e1\""));
    wait_until("the file", DEADLINE, is_known_as_stored);
    site.gateways.remove(0).end();
    site.redis.cli(&["FLUSHALL"]);
    site.fill();
    site.add(0, with_copy);
    wait_until("the key to be written again", DEADLINE, || {
        site.redis.cli(&["GET", KEY]) != redis::Value::Nil
    });
    site.wait("prod");
    site.first().wait_for_log("tripped");
}

#[test]
fn an_upgrade_without_redis_knows_it() {
    let mut site = Site::with(1, |it| {
        let it = it.set("gateway.pid_file", "pid");
        it.set("redis.timeout", "1s")
    });
    site.redis.cli(&["SET", KEY, &site.trip("").to_string()]);
    site.wait("prod");
    let gateway = site.gateways.remove(0);
    let _last = LastProcess(&gateway);
    site.redis.kill();
    gateway.wait_for_log("lists-unreadable");
    upgrade_well(&gateway);
    assert_eq!(served(&gateway, GRAY), "prod");
    assert_eq!(gateway.lists()["tripped"]["why"], "worse");
}

#[test]
fn a_key_that_cannot_be_read_disturbs_nobody() {
    let site = Site::start(1);
    let redis = &site.redis;
    // Of a wrong type.
    redis.cli(&["RPUSH", KEY, "x"]);
    let line = site.first().wait_for_log("release-refused");
    assert!(
        line.contains("list=tripped") && line.contains("it is no string"),
        "{line}"
    );
    set_gray(redis, &[GRAY, OTHER]);
    site.first().wait_served(OTHER, "pre", DEADLINE);
    redis.cli(&["DEL", KEY]);
    redis.cli(&["SET", KEY, "stop"]);
    site.wait("prod");
    // What held before it became unreadable holds.
    redis.cli(&["DEL", "graygate:release"]);
    redis.cli(&["HSET", "graygate:release", "a", "b"]);
    set_gray(redis, &[GRAY]);
    site.first().wait_served(OTHER, "prod", DEADLINE);
    site.wait("prod");
    // One that may not be read.
    let acl = [
        "ACL", "SETUSER", "reader", "on", ">secret", "~gray", "~pre", "~prod", "&*", "+@all",
    ];
    redis.cli(&acl);
    let url = redis.url().replace("redis://", "redis://reader:secret@");
    let setup = Setup::new().redis(url).set("redis.heartbeat", "off");
    let gateway = setup.set("redis.check_interval", "200ms").start();
    gateway.wait_served(GRAY, "pre", DEADLINE);
    let line = gateway.wait_for_log("release-refused");
    assert!(
        line.contains("NOPERM") || line.to_lowercase().contains("permission"),
        "{line}"
    );
    set_gray(redis, &[OTHER]);
    gateway.wait_served(OTHER, "pre", DEADLINE);
    gateway.wait_served(GRAY, "prod", DEADLINE);
    assert_eq!(gateway.stderr.count("lists-unreadable"), 0);
    assert_eq!(
        gateway.stderr.count("release-refused"),
        2,
        "once for each key"
    );
    // With the right, it counts.
    set_gray(redis, &[GRAY]);
    gateway.wait_served(GRAY, "pre", DEADLINE);
    redis.cli(&["ACL", "SETUSER", "reader", "~graygate:*"]);
    gateway.wait_served(GRAY, "prod", DEADLINE);
}

#[test]
fn where_there_is_no_verdict_the_key_is_not_asked_for() {
    let site = Site::with(1, |it| it.set("verdict.mode", "off"));
    site.redis.cli(&["SET", KEY, "stop"]);
    let reads = || {
        let stats = site.redis.cli(&["INFO", "commandstats"]);
        let text: String = redis::from_redis_value(stats).unwrap();
        text.contains("cmdstat_get:")
    };
    set_gray(&site.redis, &[GRAY, OTHER]);
    site.first().wait_served(OTHER, "pre", DEADLINE);
    site.wait("pre");
    assert!(!reads() || site.first().lists()["tripped"].is_null());
}

/// Reloads the gateway with another mode of the verdict.
#[track_caller]
fn set_mode(gateway: &mut Gateway, mode: &str) {
    let before = gateway.stderr.count(" reloaded file=");
    gateway.edit_ini(|it| it.set("verdict.mode", mode));
    gateway.signal(Signal::SIGHUP);
    wait_until(&format!("verdict.mode = {mode}"), DEADLINE, || {
        gateway.stderr.count(" reloaded file=") > before
    });
}

#[test]
fn a_gateway_without_a_verdict_forgets_what_was_taken_back_and_looks_again_when_it_has_one() {
    let mut site = Site::with(1, |it| it);
    site.redis.cli(&["SET", KEY, "stop"]);
    site.wait("prod");
    set_mode(&mut site.gateways[0], "off");
    site.wait("pre");
    site.first().wait_for_log("trip-over");
    assert!(site.first().lists()["tripped"].is_null());
    set_mode(&mut site.gateways[0], "observe");
    site.wait("prod");
    site.redis.cli(&["DEL", KEY]);
    site.wait("pre");

    let mut site = FileSite::with(&[GRAY], |it| it.set("verdict.mode", "off"));
    fs::write(beside(&site.gateway, "tripped"), "stop").unwrap();
    assert_eq!(served(&site.gateway, GRAY), "pre");
    set_mode(&mut site.gateway, "observe");
    site.gateway.wait_served(GRAY, "prod", DEADLINE);
    set_mode(&mut site.gateway, "off");
    site.gateway.wait_served(GRAY, "pre", DEADLINE);
}

/// How often a command was called since the server was last asked to begin anew.
#[track_caller]
fn calls(redis: &Redis, command: &str) -> u64 {
    let stats: String = redis::from_redis_value(redis.cli(&["INFO", "commandstats"])).unwrap();
    let calls = stats.split_once(&format!("cmdstat_{command}:calls="));
    let calls = calls.and_then(|(_, it)| it.split_once(','));
    calls.map_or(0, |(it, _)| it.parse().unwrap())
}

#[test]
fn lists_are_not_read_again_for_what_is_known_of_a_release() {
    for notify in ["events", "tracking"] {
        let site = Site::with(2, |it| it.set("redis.notify", notify));
        site.wait("pre");
        site.redis.cli(&["CONFIG", "RESETSTAT"]);
        site.redis.cli(&["SET", KEY, "it is slow"]);
        site.wait("prod");
        site.redis.cli(&["SET", "graygate:release", "{}"]);
        wait_until("both have looked twice", DEADLINE, || {
            calls(&site.redis, "get") >= 8
        });
        assert_eq!(calls(&site.redis, "smembers"), 0, "{notify}");
        // Whether somebody has deleted a key, the others say.
        site.redis.cli(&["DEL", KEY]);
        site.wait("pre");
        assert!(calls(&site.redis, "smembers") > 0);
        // As do lists that are frozen, and no longer.
        site.redis
            .cli(&["SET", "graygate:release", "{\"frozen\":{}}"]);
        site.first()
            .wait_for_lists("they are frozen", |it| it["kept"] != json!([]));
        // What is no state ends no freeze.
        site.redis
            .cli(&["SET", "graygate:release", "frozen no more"]);
        site.first().wait_for_log("release-refused list=release");
        let read = || {
            let name = "graygate_lists_refreshes_total{cause=\"event\"}";
            site.first().metric(name)
        };
        let before = read();
        set_gray(&site.redis, &[GRAY, OTHER]);
        wait_until("it is read", DEADLINE, || read() > before);
        assert_eq!(site.first().get(OTHER, "/").text(), "prod");
        site.redis.cli(&["SET", "graygate:release", "{}"]);
        site.first().wait_served(OTHER, "pre", DEADLINE);
    }
}

#[test]
fn lists_that_are_written_together_with_a_trip_are_read_together_with_it() {
    let other = Origin::named("other");
    for notify in ["events", "tracking"] {
        let site = Site::with(1, |it| it.set("redis.notify", notify));
        let gateway = site.first();
        for _ in 0..3 {
            site.wait("pre");
            let before = site.pre_digest();
            // What is announced first is here long before the rest is.
            let mut all = redis::pipe();
            all.atomic();
            for _ in 0..3000 {
                all.cmd("SET").arg(KEY).arg("this is the one").ignore();
            }
            all.cmd("DEL").arg("pre").ignore();
            all.cmd("RPUSH")
                .arg("pre")
                .arg(other.address().to_string())
                .ignore();
            all.exec(&mut site.redis.connect(0)).unwrap();
            wait_until("the other one is in pre", DEADLINE, || {
                site.pre_digest() != before
            });
            assert_eq!(served(gateway, GRAY), "prod", "{notify}");
            let mut back = redis::pipe();
            back.atomic().cmd("DEL").arg(KEY).arg("pre").ignore();
            back.cmd("RPUSH")
                .arg("pre")
                .arg(site.pre.address().to_string());
            back.exec(&mut site.redis.connect(0)).unwrap();
        }
    }
}

#[test]
fn nobody_is_sent_to_an_empty_prod() {
    let site = FileSite::with(&[GRAY], |it| it);
    let FileSite { gateway, pre, .. } = &site;
    let key = beside(gateway, "tripped");
    fs::write(&key, "stop").unwrap();
    gateway.wait_served(GRAY, "prod", DEADLINE);
    let line = gateway.wait_for_log("tripped by=");
    assert!(line.contains("reason=\"stop\""), "{line}");
    let text = |gray: &dyn Display| format!("[gray]\n{gray}\n[pre]\n{}\n[prod]\n", pre.address());
    gateway.write_lists_text(&text(&GRAY));
    let held = gateway.wait_for_lists("what is held", |it| it["held"] != json!([]));
    let digest = held["held"][0]["digest"].as_str().unwrap();
    run_to_exit(&["lists", "accept", digest, "-c", &ini(gateway)]);
    gateway.wait_served(GRAY, "pre", DEADLINE);
}

/// The file beside the lists file of a gateway.
fn beside(gateway: &Gateway, what: &str) -> std::path::PathBuf {
    let mut path = gateway.path("lists").into_os_string();
    path.push(format!(".{what}"));
    Path::new(&path).to_owned()
}

#[test]
fn with_a_lists_file_the_key_is_a_file_beside_it_and_holds_through_a_restart() {
    let site = FileSite::with(&[GRAY], |it| {
        let it = it.set("verdict.mode", "enforce");
        it.set("gateway.pid_file", "pid")
    });
    let FileSite { gateway, .. } = &site;
    let _last = LastProcess(gateway);
    assert_eq!(served(gateway, GRAY), "pre");
    let key = beside(gateway, "tripped");
    fs::write(&key, "stop").unwrap();
    gateway.wait_served(GRAY, "prod", DEADLINE);
    gateway.wait_for_access(&format!("client={GRAY} pool=prod reason=tripped"));
    let explained = stdout_of(&["explain", GRAY, "--offline", "-c", &ini(gateway)]);
    assert!(explained.contains("tripped"), "{explained}");
    wait_until("it says what it is about", DEADLINE, || {
        let text = fs::read_to_string(&key).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        value["pre"].is_string() && value["reason"] == "stop"
    });
    upgrade_well(gateway);
    assert_eq!(served(gateway, GRAY), "prod");
    fs::remove_file(&key).unwrap();
    gateway.wait_served(GRAY, "pre", DEADLINE);
    gateway.wait_for_log("trip-reset");
}

#[test]
fn whoever_has_reset_it_is_named_also_where_a_later_step_is_read_with_that() {
    let site = Site::start(1);
    let redis = &site.redis;
    redis.cli(&["SET", "graygate:release", "{\"epoch\":\"e1\"}"]);
    redis.cli(&["SET", KEY, &site.trip("e1").to_string()]);
    site.wait("prod");
    // As the gateway finds it that has heard of both at once.
    let state =
        json!({ "epoch": "e3", "reset": { "epoch": "e2", "by": "ann", "reason": "mended" } });
    let both = "redis.call('DEL', KEYS[1]) redis.call('SET', KEYS[2], ARGV[1])";
    redis.cli(&[
        "EVAL",
        both,
        "2",
        KEY,
        "graygate:release",
        &state.to_string(),
    ]);
    let line = site.first().wait_for_log("trip-reset");
    assert!(line.contains("by=\"ann\" reason=\"mended\""), "{line}");
}

#[test]
fn a_reset_lets_every_gateway_try_again_and_what_could_not_be_written_before_is_over() {
    let mut site = Site::start(2);
    let redis = &site.redis;
    redis.cli(&[
        "SET",
        "graygate:release",
        "{\"epoch\":\"e1\",\"rollout\":{\"step\":2}}",
    ]);
    redis.cli(&["SET", KEY, &site.trip("e1").to_string()]);
    site.wait("prod");
    let ini_of = ini(site.first());
    let reset = [
        "verdict", "reset", "--reason", "mended", "--by", "ann", "-c", &ini_of,
    ];
    let text = stdout_of(&reset);
    assert!(text.contains("- tripped\n+ epoch "), "{text}");
    site.wait("pre");
    for gateway in &site.gateways {
        let line = gateway.wait_for_log("trip-reset");
        assert!(line.contains("by=\"ann\" reason=\"mended\""), "{line}");
    }
    let state: String =
        redis::from_redis_value(site.redis.cli(&["GET", "graygate:release"])).unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    assert_eq!(
        state["rollout"]["step"], 2,
        "what others have written stays"
    );
    assert_ne!(state["epoch"], "e1");
    let again: Value =
        serde_json::from_str(&stdout_of(&[&reset[..], &["--json"]].concat())).unwrap();
    assert_eq!(again["verb"], "reset");
    let epoch = || -> String {
        let state = site.redis.cli(&["GET", "graygate:release"]);
        let state: String = redis::from_redis_value(state).unwrap();
        let state: Value = serde_json::from_str(&state).unwrap();
        state["epoch"].as_str().unwrap().to_owned()
    };
    assert_ne!(epoch(), state["epoch"]);
    let history = stdout_of(&["history", "-c", &ini_of]);
    assert!(
        history.contains("reset") && history.contains("ann"),
        "{history}"
    );
    // The server loses all; meanwhile somebody resets the release, and fills it again.
    let trip = site.trip(&epoch()).to_string();
    site.redis.cli(&["SET", KEY, &trip]);
    site.wait("prod");
    site.redis.kill();
    site.redis.restart();
    site.redis.cli(&["FLUSHALL"]);
    run_to_exit(&reset);
    site.fill();
    site.wait("pre");
    assert_eq!(site.redis.cli(&["GET", KEY]), redis::Value::Nil);
}

#[test]
fn a_reset_beside_a_lists_file_removes_the_file_and_begins_a_new_epoch() {
    let site = FileSite::with(&[GRAY], |it| it);
    let FileSite { gateway, .. } = &site;
    let key = beside(gateway, "tripped");
    fs::write(&key, "stop").unwrap();
    gateway.wait_served(GRAY, "prod", DEADLINE);
    let text = stdout_of(&["verdict", "reset", "-c", &ini(gateway)]);
    assert!(text.contains("- tripped\n+ epoch "), "{text}");
    assert!(!key.exists());
    let state: Value =
        serde_json::from_slice(&fs::read(beside(gateway, "release")).unwrap()).unwrap();
    assert_eq!(state["epoch"].as_str().map(str::len), Some(16));
    gateway.wait_served(GRAY, "pre", DEADLINE);
    let output = run_to_exit(&["verdict", "reset", "--service", "shop", "-c", &ini(gateway)]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn what_a_gateway_finds_while_redis_is_away_holds_here_and_is_written_when_it_is_back() {
    let mut redis = Redis::start();
    let failing = Origin::saying(*b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    let prod = Origin::named("prod");
    let fill = |redis: &Redis| {
        redis.push_peers(&failing, &prod);
        redis.push("gray", &[&"10.1.0.0/16"]);
    };
    fill(&redis);
    let setup = Setup::new().redis(redis.url());
    let setup = setup.set("gateway.trusted_proxies", "127.0.0.0/8");
    let setup = setup.set("upstream.max_fails", 0);
    let gateway = setup.set("verdict.mode", "enforce").start();
    gateway.wait_for_lists("the lists", |it| it["generation"] != 0);
    redis.kill();
    gateway.wait_for_log("lists-unreadable");
    let mut client = gateway.connect();
    let mut ask = |net: usize, number: usize| {
        let of = format!("10.{net}.{}.{}", number / 250, number % 250 + 1);
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {of}\r\n\r\n");
        client.ask(head).text()
    };
    let mut number = 0;
    wait_until("it is taken back", DEADLINE, || {
        for _ in 0..20 {
            number += 1;
            ask(1, number);
            ask(2, number);
        }
        gateway.lists()["tripped"] != Value::Null
    });
    assert_eq!(ask(1, 1), "prod");
    let trip = gateway.lists()["tripped"].clone();
    assert_eq!(trip["stored"], false, "{trip}");
    gateway.wait_for_log("trip-unwritten");
    redis.restart();
    fill(&redis);
    gateway.wait_for_log("trip-written");
    let text: String = redis::from_redis_value(redis.cli(&["GET", KEY])).unwrap();
    let key: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&key["at"], &key["pre"]), (&trip["at"], &trip["pre"]));
    gateway.wait_for_lists("that the store has it", |it| {
        it["tripped"]["stored"] == true
    });
    assert_eq!(ask(1, 1), "prod");
}
