//! Destructive changes are held: the last good list stays in force until somebody confirms the new
//! one, and no request is served by what was a mistake.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{Client, DEADLINE, Gateway, Origin, Redis, Setup, Site, run_to_exit, wait_until};

/// What happens within this time happens at once.
const SETTLE: Duration = graygate::store::gate::guard::SETTLE;

/// Waits until exactly one change is held, of this list and for this reason, and returns it.
#[track_caller]
fn wait_held(gateway: &Gateway, list: &str, reason: &str) -> Value {
    let page = gateway.wait_for_lists(&format!("{list} is held: {reason}"), |it| {
        let held = &it["held"];
        held.as_array().unwrap().len() == 1
            && (&held[0]["list"], &held[0]["reason"]) == (&json!(list), &json!(reason))
    });
    page["held"][0].clone()
}

#[track_caller]
fn wait_nothing_held(gateway: &Gateway) {
    gateway.wait_for_lists("nothing is held", |it| it["held"] == json!([]));
}

/// Runs `graygate lists accept DIGEST` for this gateway.
#[track_caller]
fn accept(gateway: &Gateway, digest: &str) -> Output {
    let setup = Setup::new().set("admin.socket", gateway.path("admin.sock").display());
    let ini = setup.write_ini();
    run_to_exit(&["lists", "accept", digest, "-c", ini.to_str().unwrap()])
}

#[track_caller]
fn text(digest: &Value) -> String {
    digest.as_str().unwrap().to_owned()
}

/// Puts a list in the place of another in one step.
#[track_caller]
fn replace(redis: &Redis, key: &str, entries: &[&dyn std::fmt::Display]) {
    redis.push("replacement", entries);
    redis.cli(&["RENAME", "replacement", key]);
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

#[test]
fn another_prod_is_held_and_shown_and_the_other_lists_change() {
    let site = Site::by_events();
    let new = Origin::named("new prod");
    site.redis(&format!("LSET prod 0 {new}"));
    let held = wait_held(&site.gateway, "prod", "removes-peers");
    assert_eq!(held["entries"], 1);
    let named = |peer: &Origin| json!({ "count": 1, "first": [peer.to_string()] });
    assert_eq!(
        (&held["gone"], &held["new"]),
        (&named(&site.prod), &named(&new))
    );
    assert_eq!(text(&held["digest"]).len(), 16);
    let since = humantime::parse_rfc3339(held["since"].as_str().unwrap()).unwrap();
    assert!(since.elapsed().unwrap() < DEADLINE);
    site.gateway
        .wait_for_metric("graygate_lists_held{list=\"prod\"}", 1.0);
    assert_eq!(
        site.gateway.metric("graygate_lists_held{list=\"gray\"}"),
        0.0
    );
    let line = site.gateway.wait_for_log("change-held");
    let said = format!(
        "list=prod reason=removes-peers digest={}",
        text(&held["digest"])
    );
    assert!(line.contains(&said) && line.contains(" ERROR "), "{line}");
    // Whoever reads it at night need not look anything up.
    let remedy = format!("graygate lists accept {};", text(&held["digest"]));
    assert!(line.contains(&remedy), "{line}");
    site.gateway.wait_for_health(200, "ok");

    // The other lists go on, and what is held is told once.
    site.redis("RPUSH gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
    for _ in 0..20 {
        assert_eq!(site.gateway.get("127.0.0.6", "/").text(), "prod");
    }
    assert_eq!(site.gateway.stderr.count("change-held"), 1);

    // The store goes back.
    site.redis(&format!("LSET prod 0 {}", site.prod));
    wait_nothing_held(&site.gateway);
    site.gateway.wait_for_log("change-forgotten list=prod");
    site.gateway
        .wait_for_metric("graygate_lists_held{list=\"prod\"}", 0.0);
    assert_eq!(new.accepted(), 0);
}

#[test]
fn the_share_that_one_change_may_remove_is_configured() {
    for (share, held) in [(None, true), (Some("33"), true), (Some("67"), false)] {
        let others = [Origin::named("prod"), Origin::named("prod")];
        let redis = Redis::start();
        redis.push("prod", &[&others[0], &others[1]]);
        let site = Site::on(redis, |setup| match share {
            Some(share) => setup.set("lists.guard_share", share),
            None => setup,
        });
        // Two of three.
        site.redis("LTRIM prod 2 2");
        match held {
            true => {
                let held = wait_held(&site.gateway, "prod", "removes-peers");
                assert_eq!(held["gone"]["count"], 2, "{share:?}");
            }
            false => {
                site.gateway.wait_for_lists("one peer", |it| {
                    it["prod"] == json!([site.prod.to_string()])
                });
                assert_eq!(site.gateway.stderr.count("change-held"), 0);
            }
        }
    }
}

#[test]
fn servers_that_are_removed_one_by_one_in_a_moment_are_removed_at_once() {
    let removed: Vec<String> = (0..9).map(|at| format!("127.0.0.250:{}", 1 + at)).collect();
    wait_until("all were removed within a second", 3 * DEADLINE, || {
        let redis = Redis::start();
        redis.cli(
            &[
                &["RPUSH", "prod"],
                &*removed.iter().map(|it| &**it).collect::<Vec<_>>(),
            ]
            .concat(),
        );
        let setup = |setup: Setup| setup.set("redis.check_interval", "1h");
        redis.push("pre", &[&"127.0.0.250:1"]);
        let gateway = setup(Setup::new().redis(redis.url())).start();
        redis.push("prod", &[&"127.0.0.250:10"]);
        gateway.wait_for_lists("ten peers", |it| it["prod"].as_array().unwrap().len() == 10);
        let stood = Instant::now();
        wait_until("they have stood", DEADLINE, || stood.elapsed() > SETTLE);
        let start = Instant::now();
        for peer in &removed {
            redis.cli(&["LREM", "prod", "0", peer]);
            // Each is read for itself.
            gateway.metric("graygate_lists_generation");
        }
        if start.elapsed() > SETTLE {
            return false;
        }
        let held = gateway.wait_for_lists("one would be left", |it| it["held"][0]["entries"] == 1);
        let held = &held["held"][0];
        assert_eq!(
            (&held["reason"], &held["gone"]["count"]),
            (&json!("removes-peers"), &json!(9))
        );
        let left = gateway.lists()["prod"].as_array().unwrap().len();
        assert!((5..=10).contains(&left), "{left}");
        true
    });
}

#[test]
fn a_prod_that_is_rewritten_entry_by_entry_is_never_seen_by_halves() {
    let others = [Origin::named("prod"), Origin::named("prod")];
    let redis = Redis::start();
    redis.push("prod", &[&others[0], &others[1]]);
    let site = Site::on(redis, |setup| setup.set("redis.check_interval", "1h"));
    let before = site.gateway.lists();
    assert_eq!(before["prod"].as_array().unwrap().len(), 3);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Whatever fails here, the client must end.
        let _end = OnDrop(|| done.store(true, Ordering::Relaxed));
        let client = scope.spawn(|| {
            let mut client = site.gateway.connect_from("127.0.0.6");
            let mut answers = 0;
            while !done.load(Ordering::Relaxed) {
                assert_eq!(client.get("/").text(), "prod");
                answers += 1;
            }
            answers
        });
        for round in 0..3 {
            // One at a time: each was read before the next comes.
            let steps: [(&str, &str); 4] = [
                ("DEL prod", "unsettled"),
                (&format!("RPUSH prod {}", others[0]), "removes-peers"),
                (&format!("RPUSH prod {}", others[1]), "unsettled"),
                (&format!("RPUSH prod {}", site.prod), ""),
            ];
            for (command, state) in steps {
                site.redis(command);
                site.gateway
                    .wait_for_lists(&format!("{state:?} after {command}, {round}"), |it| {
                        let word = |it: &Value| it.as_str().unwrap_or("").to_owned();
                        word(&it["held"][0]["reason"]) + &word(&it["kept"][0]["fault"]) == state
                    });
                let page = site.gateway.lists();
                for same in ["generation", "digest", "prod"] {
                    assert_eq!(page[same], before[same], "{command}: {same}");
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(client.join().unwrap() > 0);
    });
    assert_eq!(site.gateway.stderr.count("change-held"), 3);
    assert_eq!(site.gateway.stderr.count("change-forgotten"), 3);
}

#[test]
fn a_prod_that_never_settles_keeps_neither_a_rollback_nor_other_changes_waiting() {
    let other = Origin::named("prod");
    let redis = Redis::start();
    redis.push("prod", &[&other]);
    let site = Site::on(redis, |setup| setup.set("redis.check_interval", "1h"));
    site.redis("RPUSH gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
    // Nothing, and half of what is in force, in turn; each is read.
    let half = format!("RPUSH prod {}", site.prod);
    let rewrite = || {
        for command in ["DEL prod", &half] {
            let before = site.refreshes("event");
            site.redis(command);
            wait_until("it was read", DEADLINE, || site.refreshes("event") > before);
        }
    };
    rewrite();
    for (command, pool) in [("RPUSH gray 127.0.0.7", "pre"), ("DEL gray", "prod")] {
        site.redis(command);
        wait_until(&format!("{pool} after {command}"), DEADLINE, || {
            rewrite();
            site.gateway.get("127.0.0.7", "/").text() == pool
        });
    }
}

#[test]
fn what_is_left_unfinished_comes_into_force_after_a_moment_if_it_is_acceptable() {
    let others = [Origin::named("prod"), Origin::named("prod")];
    let redis = Redis::start();
    redis.push("prod", &[&others[0], &others[1]]);
    let site = Site::on(redis, |setup| setup.set("redis.check_interval", "1h"));
    site.redis("LTRIM prod 2 2");
    wait_held(&site.gateway, "prod", "removes-peers");
    site.redis(&format!("RPUSH prod {}", others[0]));
    site.gateway
        .wait_for_lists("two peers", |it| it["prod"].as_array().unwrap().len() == 2);
    let page = site.gateway.lists();
    assert_eq!((&page["held"], &page["kept"]), (&json!([]), &json!([])));
}

#[test]
fn an_emptied_prod_is_held_whatever_the_share() {
    let site = Site::with(|setup| {
        let setup = setup.set("redis.check_interval", "1h");
        setup.set("lists.guard_share", "100")
    });
    site.redis("DEL prod");
    let held = wait_held(&site.gateway, "prod", "empties-prod");
    assert_eq!(held["entries"], 0);
    // Even that can be meant.
    let output = accept(&site.gateway, &text(&held["digest"]));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(site.gateway.get("127.0.0.6", "/").status(), 503);
    site.gateway.wait_for_health(503, "prod is empty");
}

#[test]
fn everybody_is_gray_only_once_that_is_confirmed_and_no_rollback_waits() {
    let site = Site::by_events();
    site.redis("RPUSH gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
    for (entry, entries, new) in [
        ("0.0.0.0/0", 3, 1),
        ("::/0", 3, 1),
        ("::ffff:0.0.0.0/96", 3, 1),
        ("10.1.2.3/0", 3, 1),
        // However it is written: what counts is who is admitted.
        ("0.0.0.0/1 128.0.0.0/1", 4, 3),
        ("2000::/3", 3, 1),
        ("0.0.0.0/1 128.0.0.0/2 192.0.0.0/4 208.0.0.0/5", 6, 5),
        ("*", 3, 1),
        ("header:Host=*", 3, 1),
        ("percent:100:header:Host", 3, 1),
    ] {
        site.redis(&format!("RPUSH gray {entry} 127.0.0.7"));
        let held = wait_held(&site.gateway, "gray", "admits-everybody");
        assert_eq!(
            (&held["entries"], &held["new"]["count"]),
            (&json!(entries), &json!(new)),
            "{entry}"
        );
        for (client, pool) in [
            ("127.0.0.5", "pre"),
            ("127.0.0.7", "prod"),
            ("127.0.0.8", "prod"),
        ] {
            assert_eq!(
                site.gateway.get(client, "/").text(),
                pool,
                "{entry}: {client}"
            );
        }
        // Emptying is a rollback, also behind something that is held.
        site.redis("DEL gray");
        site.wait_served("127.0.0.5", "prod");
        wait_nothing_held(&site.gateway);
        site.redis("RPUSH gray 127.0.0.5");
        site.wait_served("127.0.0.5", "pre");
    }
    // What is over makes nobody gray, so it waits for nobody's word either.
    let over = "*\tuntil=2020-01-01T00:00Z";
    site.redis(&format!("RPUSH gray {over} 127.0.0.7"));
    site.wait_served("127.0.0.7", "pre");
    wait_nothing_held(&site.gateway);
    assert_eq!(site.gateway.get("127.0.0.8", "/").text(), "prod");
    site.redis(&format!("LREM gray 0 {over}"));
    site.redis("LREM gray 0 127.0.0.7");
    site.wait_served("127.0.0.7", "prod");
    site.redis("RPUSH gray 0.0.0.0/0");
    let held = wait_held(&site.gateway, "gray", "admits-everybody");
    let output = accept(&site.gateway, &text(&held["digest"]));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(site.gateway.get("127.0.0.8", "/").text(), "pre");
    // It is in force, so what is added needs nobody's word.
    site.redis("RPUSH gray 10.0.0.1");
    site.gateway
        .wait_for_lists("one more", |it| it["gray"].as_array().unwrap().len() == 3);
}

#[test]
fn accept_brings_exactly_the_named_content_into_force() {
    let site = Site::by_events();
    let new = [Origin::named("one"), Origin::named("two")];
    let nothing = accept(&site.gateway, "0123456789abcdef");
    let said = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert_eq!(nothing.status.code(), Some(1), "{said}");
    assert!(
        said.contains("0123456789abcdef is not held; nothing is"),
        "{said}"
    );

    replace(&site.redis, "prod", &[&new[0]]);
    let first = text(&wait_held(&site.gateway, "prod", "removes-peers")["digest"]);
    replace(&site.redis, "prod", &[&new[1]]);
    site.gateway.wait_for_lists("another is held", |it| {
        it["held"][0]["digest"] != json!(first)
    });
    let second = text(&wait_held(&site.gateway, "prod", "removes-peers")["digest"]);
    // What does not stand any more is refused, with what is held.
    let output = accept(&site.gateway, &first);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains(&format!("held: {second} (list=prod reason=removes-peers)")),
        "{said}"
    );
    assert_eq!(site.gateway.get("127.0.0.6", "/").text(), "prod");
    for wrong in ["", "xyz", &second[..15], &format!("{second}&x=1")] {
        let output = accept(&site.gateway, wrong);
        assert_eq!(output.status.code(), Some(1), "{wrong}: {output:?}");
    }

    let generation = site.gateway.lists()["generation"].as_u64().unwrap();
    let output = accept(&site.gateway, &second.to_uppercase());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let expected = format!(
        "accepted list=prod digest={second} generation={}\n",
        generation + 1
    );
    assert_eq!(said, expected);
    // It was in force before that was said.
    assert_eq!(site.gateway.get("127.0.0.6", "/").text(), "two");
    let page = site.gateway.lists();
    assert_eq!(
        (&page["held"], &page["generation"]),
        (&json!([]), &json!(generation + 1))
    );
    site.gateway.wait_for_log(&format!(
        "change-accepted list=prod digest={second} by=command"
    ));
    site.gateway.wait_for_log("cause=accepted");
    assert_eq!(site.refreshes("accepted"), 1);
    assert_eq!(page["refreshed_by"], "accepted");
    for cause in ["start", "event", "check", "reconnect", "copy", "accepted"] {
        assert_eq!(page["refreshes"][cause], site.refreshes(cause), "{cause}");
    }
    // A second time there is nothing to accept: it is in force.
    assert_eq!(accept(&site.gateway, &second).status.code(), Some(0));
    assert_eq!(site.refreshes("accepted"), 1);
}

#[test]
fn what_is_held_while_redis_is_away_still_stands_and_what_cannot_be_told_does_not() {
    let mut site = Site::by_events();
    let new = Origin::named("new");
    site.redis(&format!("LSET prod 0 {new}"));
    let digest = text(&wait_held(&site.gateway, "prod", "removes-peers")["digest"]);
    site.redis("SET other x");
    site.redis("RENAME other prod");
    site.gateway
        .wait_for_lists("the type", |it| it["kept"][0]["fault"] == "wrong-type");
    let output = accept(&site.gateway, &digest);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("cannot be confirmed at present"), "{said}");
    replace(&site.redis, "prod", &[&new]);
    site.gateway
        .wait_for_lists("the type is right", |it| it["kept"] == json!([]));
    site.redis.kill();
    site.gateway.wait_for_metric("graygate_lists_readable", 0.0);
    assert_eq!(accept(&site.gateway, &digest).status.code(), Some(0));
    assert_eq!(site.gateway.get("127.0.0.6", "/").text(), "new");
}

#[test]
fn a_key_of_redis_accepts_what_it_names() {
    let ways: [(&str, &[&str]); 2] = [("string", &["SET"]), ("set", &["SADD"])];
    for (what, command) in ways {
        // By the key's event alone.
        let site = Site::by_events();
        let new = Origin::named("new");
        site.redis
            .cli(&[command, &["graygate:accept", "0123456789abcdef"]].concat());
        site.redis(&format!("LSET prod 0 {new}"));
        let digest = text(&wait_held(&site.gateway, "prod", "removes-peers")["digest"]);
        site.redis
            .cli(&[command, &["graygate:accept", &digest]].concat());
        site.wait_served("127.0.0.6", "new");
        site.gateway
            .wait_for_log(&format!("change-accepted list=prod digest={digest} by=key"));
        assert_eq!(site.refreshes("check"), 0, "{what}");
        wait_nothing_held(&site.gateway);
    }
}

#[test]
fn a_key_of_another_name_that_named_the_change_before_lets_it_in_at_once() {
    let site = Site::with(|setup| {
        let setup = setup
            .set("redis.notify", "poll")
            .set("redis.poll_interval", "50ms");
        setup.set("redis.accept_key", "shop[1] accept")
    });
    let new = Origin::named("new");
    site.redis(&format!("LSET prod 0 {new}"));
    let digest = text(&wait_held(&site.gateway, "prod", "removes-peers")["digest"]);
    site.redis(&format!("LSET prod 0 {}", site.prod));
    wait_nothing_held(&site.gateway);
    site.redis.cli(&["SET", "shop[1] accept", &digest]);
    site.redis(&format!("LSET prod 0 {new}"));
    site.wait_served("127.0.0.6", "new");
}

#[test]
fn where_the_key_or_its_channel_is_refused_that_is_told_once_and_the_rest_works_on() {
    const RIGHTS: &str = "~gray ~pre ~prod +@read +@connection +@transaction +subscribe +config \
                          &__keyspace@0__:gray &__keyspace@0__:pre &__keyspace@0__:prod";
    let redis = Redis::start();
    let mut command = vec!["ACL", "SETUSER", "app", "on", ">secret", "resetchannels"];
    command.extend(RIGHTS.split_whitespace());
    redis.cli(&command);
    let url = format!("redis://app:secret@{}/0", redis.address());
    let site = Site::on(redis, |setup| {
        let setup = setup.set("redis.url", url);
        setup.set("redis.check_interval", "300ms")
    });
    let new = Origin::named("new");
    site.gateway
        .wait_for_lists("events", |it| it["mode"] == "events");
    site.redis(&format!("LSET prod 0 {new}"));
    let held = wait_held(&site.gateway, "prod", "removes-peers");
    site.wait_refreshes("check", 3);
    let events = site.refreshes("event");
    site.redis("RPUSH gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
    assert!(site.refreshes("event") > events);
    for told in ["accept-key-refused", "accept-key-events-refused"] {
        site.gateway.wait_for_log(told);
        assert_eq!(site.gateway.stderr.count(told), 1);
    }
    assert_eq!(site.gateway.metric("graygate_lists_failures_total"), 0.0);
    // The key may be had later on; a check finds it.
    site.redis
        .cli(&["ACL", "SETUSER", "app", "~graygate:accept"]);
    site.redis
        .cli(&["SET", "graygate:accept", &text(&held["digest"])]);
    site.gateway.wait_served("127.0.0.6", "new", DEADLINE);
}

#[test]
fn a_change_that_nobody_announced_is_a_missed_event_though_it_is_held() {
    for notify in ["events", "tracking"] {
        let site = Site::with(|setup| {
            let setup = setup.set("redis.check_interval", "300ms");
            setup.set("redis.notify", notify)
        });
        let mut other = site.redis.connect(1);
        let new = Origin::named("new");
        for (key, peer) in [("pre", &site.pre), ("prod", &new)] {
            let mut push = redis::cmd("RPUSH");
            push.arg(key)
                .arg(peer.to_string())
                .exec(&mut other)
                .unwrap();
        }
        // Tracking knows keys by their names alone, in whatever database.
        site.wait_refreshes("check", 2);
        let page = site.gateway.lists();
        // Of this there is neither an event nor an invalidation.
        site.redis("SWAPDB 0 1");
        wait_held(&site.gateway, "prod", "removes-peers");
        let name = "graygate_lists_missed_events_total";
        site.gateway.wait_for_metric(name, 1.0);
        site.wait_refreshes("check", 3);
        assert_eq!(site.gateway.metric(name), 1.0, "{notify}");
        assert_eq!(
            site.gateway.lists()["generation"],
            page["generation"],
            "{notify}"
        );
        assert_eq!(site.gateway.stderr.count("lists-event-missed"), 1);
    }
}

#[test]
fn a_set_whose_order_changes_is_no_missed_event() {
    let site = Site::with(|setup| setup.set("redis.check_interval", "300ms"));
    site.redis("RPUSH gray 127.0.0.5 10.0.0.1");
    site.wait_served("127.0.0.5", "pre");
    let mut other = site.redis.connect(1);
    for (key, entries) in [
        ("gray", vec!["10.0.0.1".to_owned(), "127.0.0.5".to_owned()]),
        ("pre", vec![site.pre.to_string()]),
        ("prod", vec![site.prod.to_string()]),
    ] {
        let mut push = redis::cmd("RPUSH");
        push.arg(key).arg(entries).exec(&mut other).unwrap();
    }
    site.redis("SWAPDB 0 1");
    site.wait_refreshes("check", 3);
    assert_eq!(
        site.gateway.metric("graygate_lists_missed_events_total"),
        0.0
    );
}

#[test]
fn a_change_that_still_stands_after_the_time_comes_into_force_by_itself() {
    let time = Duration::from_millis(1500);
    let new = Origin::named("new");
    let site = Site::with(|setup| {
        let setup = setup.set("redis.check_interval", "1h");
        setup.set("lists.guard_timeout", "1500ms")
    });
    let start = Instant::now();
    site.redis(&format!("LSET prod 0 {new}"));
    wait_held(&site.gateway, "prod", "removes-peers");
    site.gateway.wait_served("127.0.0.6", "new", DEADLINE);
    assert!(start.elapsed() >= time, "{:?}", start.elapsed());
    site.gateway.wait_for_log("by=rules");
    wait_nothing_held(&site.gateway);

    // A file is not read again by itself.
    let (old, new) = (Origin::named("old"), Origin::named("new"));
    let gateway = Setup::serving(&old)
        .set("lists.guard_timeout", "1500ms")
        .start();
    let start = Instant::now();
    gateway.write_lists(&[], &[], &[&new]);
    gateway.wait_served("127.0.0.6", "new", DEADLINE);
    assert!(start.elapsed() >= time, "{:?}", start.elapsed());
}

#[test]
fn a_redis_that_dies_does_not_let_in_what_is_held_and_the_time_begins_anew_with_it() {
    let time = Duration::from_secs(1);
    let mut site = Site::with(|setup| {
        let setup = setup.set("redis.check_interval", "1h");
        setup.set("lists.guard_timeout", "2s")
    });
    let new = Origin::named("new");
    site.redis(&format!("LSET prod 0 {new}"));
    let digest = text(&wait_held(&site.gateway, "prod", "removes-peers")["digest"]);
    site.redis.kill();
    site.gateway.wait_for_log("lists-unreadable");
    let down = Instant::now();
    wait_until("it would have come into force", DEADLINE, || {
        assert_eq!(site.gateway.get("127.0.0.6", "/").text(), "prod");
        down.elapsed() > 3 * time
    });
    let held = wait_held(&site.gateway, "prod", "removes-peers");
    assert_eq!(text(&held["digest"]), digest);
    assert_eq!(site.gateway.stderr.count("change-accepted"), 0);

    // The same lists again.
    site.redis.restart();
    let start = Instant::now();
    let mut restore = redis::pipe();
    restore.atomic();
    for (key, peer) in [("pre", &site.pre), ("prod", &new)] {
        restore.cmd("DEL").arg(key).ignore();
        restore.cmd("RPUSH").arg(key).arg(peer.to_string()).ignore();
    }
    restore.exec(&mut site.redis.connect(0)).unwrap();
    site.gateway.wait_served("127.0.0.6", "new", DEADLINE);
    assert!(start.elapsed() >= 2 * time, "{:?}", start.elapsed());
    site.gateway.wait_for_log(&format!(
        "change-accepted list=prod digest={digest} by=rules"
    ));
}

#[test]
fn by_default_a_held_change_waits_for_ever_and_other_rules_let_it_in() {
    let (old, new) = (Origin::named("old"), Origin::named("new"));
    let mut gateway = Gateway::serving(&old);
    gateway.write_lists(&["127.0.0.5"], &[], &[&new]);
    let held = wait_held(&gateway, "prod", "removes-peers");
    // A rewrite of the same content is the same change.
    gateway.write_lists(&[], &[], &[&new, &new]);
    gateway.wait_for_lists("it was read", |it| it["gray"] == json!([]));
    assert_eq!(wait_held(&gateway, "prod", "removes-peers"), held);
    assert_eq!(gateway.get("127.0.0.6", "/").text(), "old");
    gateway.edit_ini(|setup| setup.set("lists.guard_share", "100"));
    gateway.signal(Signal::SIGHUP);
    gateway.wait_served("127.0.0.6", "new", DEADLINE);
    assert_eq!(gateway.stderr.count("reload-ignored"), 0);
    gateway.wait_for_log("change-accepted list=prod");
}

#[test]
fn what_is_held_of_a_file_is_accepted_too() {
    let (old, new) = (Origin::named("old"), Origin::named("new"));
    let gateway = Gateway::serving(&old);
    gateway.write_lists(&["::/0"], &[], &[&new]);
    let page = gateway.wait_for_lists("both are held", |it| {
        it["held"].as_array().unwrap().len() == 2
    });
    let digest = |at: usize| text(&page["held"][at]["digest"]);
    assert_eq!(accept(&gateway, &digest(1)).status.code(), Some(0));
    assert_eq!(gateway.get("127.0.0.6", "/").text(), "new");
    wait_held(&gateway, "gray", "admits-everybody");
    assert_eq!(accept(&gateway, &digest(0)).status.code(), Some(0));
    assert_eq!(gateway.lists()["gray"], json!(["::/0"]));
}

#[test]
fn nothing_that_a_web_page_can_send_accepts_a_change() {
    let (old, new) = (Origin::named("old"), Origin::named("new"));
    let token = "0123456789abcdef";
    let setup = Setup::serving(&old).file("token", token);
    let gateway = setup.set("admin.token_file", "token").start();
    gateway.write_lists(&[], &[], &[&new]);
    let digest = text(&wait_held(&gateway, "prod", "removes-peers")["digest"]);
    let ask = |method: &str, query: &str, fields: &str| {
        let fields = format!("Host: localhost\r\nAuthorization: Bearer {token}\r\n{fields}");
        let head = format!("{method} /lists/accept{query} HTTP/1.1\r\n{fields}\r\n");
        Client::connect(gateway.admin()).ask(head)
    };
    let query = format!("?digest={digest}");
    let ours = "X-Graygate-Command: accept\r\n";
    let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 0\r\n";
    let table: [(&str, &str, &str, u16); 11] = [
        ("GET", &query, ours, 405),
        ("HEAD", &query, ours, 405),
        (
            "OPTIONS",
            &query,
            "Access-Control-Request-Headers: x-graygate-command\r\n",
            405,
        ),
        ("PUT", &query, ours, 405),
        ("POST", &query, "", 403),
        ("POST", &query, form, 403),
        ("POST", &query, "X-Graygate-Command: yes\r\n", 403),
        (
            "POST",
            &query,
            &format!("{ours}Origin: http://127.0.0.1\r\n"),
            403,
        ),
        ("POST", &query, &format!("origin: null\r\n{ours}"), 403),
        ("POST", "", ours, 400),
        ("POST", "?digest=0123456789abcdeg", ours, 400),
    ];
    for (method, query, fields, status) in table {
        let response = ask(method, query, fields);
        assert_eq!(response.status(), status, "{method} {fields}");
        let allow = (status == 405).then(|| "POST".to_owned());
        assert_eq!(response.field("allow"), allow, "{method}");
        assert_eq!(response.field("access-control-allow-origin"), None);
    }
    assert_eq!(
        wait_held(&gateway, "prod", "removes-peers")["digest"],
        json!(digest)
    );
    assert_eq!(gateway.get("127.0.0.6", "/").text(), "old");

    let response = ask("POST", "?digest=0123456789abcdef", ours);
    assert_eq!(response.status(), 409);
    assert!(response.text().contains(&digest), "{response:?}");
    let response = ask("POST", &query, ours);
    assert_eq!(response.status(), 200, "{response:?}");
    assert_eq!(gateway.get("127.0.0.6", "/").text(), "new");
}

#[test]
fn status_says_what_is_held_and_how_to_let_it_in() {
    let (old, new) = (Origin::named("old"), Origin::named("new"));
    let gateway = Gateway::serving(&old);
    gateway.write_lists(&[], &[], &[&new]);
    let digest = text(&wait_held(&gateway, "prod", "removes-peers")["digest"]);
    let setup = Setup::new().set("admin.listen", gateway.admin());
    let output = run_to_exit(&["status", "-c", setup.write_ini().to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let line = format!("prod: removes-peers; to accept it: graygate lists accept {digest}\n");
    assert!(said.contains(&line), "{said}");
}

#[test]
fn keys_that_flip_all_the_time_do_not_fill_the_log_and_their_last_state_is_told() {
    let site = Site::with(|setup| setup.set("redis.check_interval", "300ms"));
    site.redis("SET text x");
    site.redis("RPUSH list 127.0.0.5");
    let mut connection = site.redis.connect(0);
    let untold = |event: &str| {
        let lines = site.gateway.stderr.all();
        let number = |it: &String| it.rsplit_once("untold=")?.1.parse::<u64>().ok();
        let lines = lines.iter().filter(|it| it.contains(event));
        lines.filter_map(number).sum::<u64>()
    };
    let start = Instant::now();
    for at in 0.. {
        let mut flip = redis::pipe();
        // Another type, another entry that is garbage, and another that stands twice.
        flip.cmd("COPY").arg(&["text", "gray", "REPLACE"]).ignore();
        flip.exec(&mut connection).unwrap();
        let peer = format!("10.0.0.{}", at % 250);
        let mut flip = redis::pipe();
        flip.cmd("COPY").arg(&["list", "gray", "REPLACE"]).ignore();
        flip.cmd("DEL").arg("new").ignore();
        flip.cmd("RPUSH").arg("new").arg(&peer).arg(&peer).ignore();
        flip.cmd("RPUSH")
            .arg("new")
            .arg(format!("garbage {at}"))
            .ignore();
        flip.cmd("RENAME").arg(&["new", "pre"]).ignore();
        flip.exec(&mut connection).unwrap();
        // On a busy machine it takes longer until there is more than the log takes.
        let is_untold = || untold("fault=wrong-type") > 0 && untold("entries-skipped") > 0;
        if start.elapsed() > Duration::from_secs(2) && (is_untold() || start.elapsed() > DEADLINE) {
            break;
        }
    }
    site.redis("COPY text gray REPLACE");
    site.redis("RPUSH pre last!");
    let seconds = start.elapsed().as_secs() as usize;
    site.gateway.wait_for_lists("the last state", |it| {
        let kept = json!([{ "list": "gray", "fault": "wrong-type" }]);
        it["kept"] == kept && it["skipped"]["pre"]["count"] == 2
    });
    site.gateway
        .wait_for_log("entries-skipped list=pre count=2");
    let last = |event: &str| {
        let lines = site.gateway.stderr.all();
        let mut lines = lines.iter().filter(|it| it.contains(event));
        lines.next_back().cloned().unwrap_or_default()
    };
    wait_until("the last type is told", DEADLINE, || {
        last("list=gray fault=wrong-type").contains("list-kept")
    });
    // Ten a second of each, and what is told of the last state.
    let most = 10 * (seconds + 2);
    for events in [
        &["list-kept", "list-recovered"][..],
        &["entries-skipped"],
        &["lists-finding"],
    ] {
        let counts = events.iter().map(|it| site.gateway.stderr.count(it));
        let lines: usize = counts.sum();
        assert!(
            (5..=most).contains(&lines),
            "{events:?}: {lines} lines, {most} at most"
        );
    }
    assert!(untold("fault=wrong-type") > 0 && untold("entries-skipped") > 0);
}

#[test]
fn a_list_that_is_rewritten_all_the_time_does_not_fill_the_log_and_its_last_state_is_told() {
    let site = Site::with(|setup| setup.set("redis.check_interval", "300ms"));
    let mut connection = site.redis.connect(0);
    let start = Instant::now();
    for at in 1.. {
        let mut command = redis::cmd("LSET");
        let entry = format!("10.0.{}.{}", at / 250, at % 250 + 1);
        command.arg("prod").arg(0).arg(entry);
        command.exec(&mut connection).unwrap();
        if start.elapsed() > Duration::from_secs(2) {
            break;
        }
    }
    site.redis("LSET prod 0 10.1.1.1");
    let last = site.gateway.wait_for_lists("the last one is held", |it| {
        it["held"][0]["new"]["first"] == json!(["10.1.1.1:80"])
    });
    let digest = text(&last["held"][0]["digest"]);
    let told = format!("change-held list=prod reason=removes-peers digest={digest}");
    site.gateway.wait_for_log(&told);
    // Ten a second.
    let most = 10 * (start.elapsed().as_secs() as usize + 1);
    let lines = site.gateway.stderr.count("change-held");
    assert!(lines <= most, "{lines} lines, {most} at most");
}

/// The numbers behind `untold=` in the lines of the error log with `event`, and how many lines there are.
fn told_and_untold(gateway: &Gateway, event: &str) -> (u64, u64) {
    let lines = gateway.stderr.all().into_iter();
    let lines = lines.filter(|it| it.contains(event));
    let untold = lines.map(|it| it.rsplit_once("untold=").unwrap().1.parse::<u64>().unwrap());
    untold.fold((0, 0), |(told, all), untold| (told + 1, all + untold))
}

#[test]
fn lists_that_change_all_the_time_do_not_fill_the_log_and_the_last_are_told() {
    let site = Site::by_events();
    let mut connection = site.redis.connect(0);
    let start = Instant::now();
    for at in 0.. {
        let mut command = redis::cmd("LPUSH");
        let entry = format!("10.{}.{}.1", at / 250, at % 250);
        command.arg("gray").arg(entry);
        command.exec(&mut connection).unwrap();
        // A faster storm would make fewer readings.
        std::thread::sleep(Duration::from_millis(3));
        let is_long = at % 100 == 0 && start.elapsed() > Duration::from_secs(2);
        if is_long && site.gateway.metric("graygate_lists_generation") > 50.0 {
            break;
        }
        assert!(start.elapsed() < 3 * DEADLINE, "no storm");
    }
    site.redis("LPUSH gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
    let seconds = start.elapsed().as_secs() + 1;
    // No check, which is far away, and no other change is needed for that.
    let page = site.gateway.lists();
    let (generation, digest) = (page["generation"].as_u64().unwrap(), text(&page["digest"]));
    let last = format!("lists-published generation={generation} digest={digest} cause=event");
    site.gateway.wait_for_log(&last);
    let (told, untold) = told_and_untold(&site.gateway, "lists-published");
    assert!(told <= 10 * seconds + 1, "{told} in {seconds} s");
    assert_eq!(told + untold, generation);
}

#[test]
fn a_key_that_accepts_all_the_time_does_not_fill_the_log() {
    let site = Site::by_events();
    let gateway = &site.gateway;
    let entries = ["10.0.0.1:80", "10.0.0.2:80"];
    for entry in entries {
        replace(&site.redis, "prod", &[&entry]);
        let page =
            gateway.wait_for_lists("held", |it| it["held"][0]["new"]["first"] == json!([entry]));
        let digest = text(&page["held"][0]["digest"]);
        site.redis(&format!("SADD graygate:accept {digest}"));
    }
    gateway.wait_for_lists("the last one", |it| it["prod"] == json!([entries[1]]));
    let start = Instant::now();
    for at in 0.. {
        let entry = entries[at % 2];
        replace(&site.redis, "prod", &[&entry]);
        gateway.wait_for_lists("this one", |it| it["prod"] == json!([entry]));
        if start.elapsed() > Duration::from_secs(2) {
            break;
        }
    }
    let generation = gateway.lists()["generation"].as_u64().unwrap();
    gateway.wait_for_log(&format!("lists-published generation={generation} "));
    let seconds = start.elapsed().as_secs() + 1;
    for event in ["lists-published", "change-accepted"] {
        let (told, untold) = told_and_untold(gateway, event);
        // With those of before.
        assert!(told <= 10 * seconds + 5, "{event}: {told} in {seconds} s");
        assert!(untold > 0, "{event}: {told}");
    }
}
