//! A server that has not the data that it should have is no source of a rollback, and says so.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{
    DEADLINE, Gateway, Origin, Redis, ScriptedRedis, Setup, Site, run_to_exit, texts, wait_until,
};

/// The shortest options for a replica that looks for its master all the time.
const QUICK: [&str; 4] = ["--repl-diskless-sync-delay", "0", "--repl-timeout", "60"];

/// A master with lists, of which 127.0.0.5 is gray, and a replica of it that a gateway follows.
struct Pair {
    master: Redis,
    replica: Redis,
    gateway: Gateway,
    _origins: [Origin; 2],
}

impl Pair {
    #[track_caller]
    fn start(edit: impl FnOnce(Setup) -> Setup) -> Self {
        let master = Redis::start_with_options(&QUICK);
        let origins = ["pre", "prod"].map(Origin::named);
        master.push("pre", &[&origins[0]]);
        master.push("prod", &[&origins[1]]);
        master.push("gray", &[&"127.0.0.5"]);
        let mut replica = Redis::stopped();
        replica.set_options(
            &[&replica_of(master.address())[..], &QUICK.map(str::to_owned)]
                .concat()
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        );
        replica.restart();
        wait_for_link(&replica, "up");
        let setup = Setup::new().redis(replica.url());
        let setup = setup.set("redis.check_interval", "300ms");
        let setup = setup.set("redis.heartbeat", "off");
        let gateway = edit(setup.set("redis.timeout", "1s")).start();
        gateway.wait_served("127.0.0.5", "pre", DEADLINE);
        Self {
            master,
            replica,
            gateway,
            _origins: origins,
        }
    }
}

fn replica_of(master: SocketAddr) -> [String; 3] {
    let (host, port) = (master.ip().to_string(), master.port().to_string());
    ["--replicaof".to_owned(), host, port]
}

#[track_caller]
fn wait_for_link(replica: &Redis, state: &str) {
    let line = format!("master_link_status:{state}");
    wait_until(&line, DEADLINE, || {
        let info = replica.try_cli(&["INFO", "replication"]);
        info.is_ok_and(|it| {
            let info: String = redis::from_redis_value(it).unwrap();
            info.contains(&line)
        })
    });
}

/// Asks as 127.0.0.5 for this time: it is served by the new version each time.
#[track_caller]
fn stays_gray(gateway: &Gateway, time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        assert_eq!(
            gateway.get("127.0.0.5", "/").text(),
            "pre",
            "{}",
            gateway.lists()
        );
    }
}

/// What is found of this kind, on the page and by `graygate status`.
#[track_caller]
fn found(gateway: &Gateway, finding: &str) -> Value {
    let of_kind = |page: &Value| {
        let first = page["findings"]["first"].as_array().unwrap();
        first.iter().find(|it| it["finding"] == finding).cloned()
    };
    let page = gateway.wait_for_lists(finding, |it| of_kind(it).is_some());
    assert_eq!(page["findings"]["count"][finding], 1);
    let metric = format!("graygate_lists_findings{{finding=\"{finding}\"}}");
    assert_eq!(gateway.metric(&metric), 1.0);
    let setup = Setup::new().set("admin.listen", gateway.admin());
    let ini = setup.write_ini();
    let status = run_to_exit(&["status", "-c", ini.to_str().unwrap()]);
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(
        status.contains(&format!("finding     {finding}: ")),
        "{status}"
    );
    of_kind(&page).unwrap()
}

#[track_caller]
fn wait_until_nothing_is_found(gateway: &Gateway) {
    gateway.wait_for_lists("no findings", |it| it["findings"]["first"] == json!([]));
}

const KEPT: [&str; 3] = ["gray", "pre", "prod"];

#[track_caller]
fn wait_kept(gateway: &Gateway, fault: &str) -> Value {
    let kept = KEPT.map(|list| json!({ "list": list, "fault": fault }));
    gateway.wait_for_lists(fault, |it| it["kept"] == json!(kept))
}

#[test]
fn a_replica_that_restarts_empty_rolls_nobody_back_until_it_has_synced() {
    for notify in ["events", "tracking", "poll"] {
        let mut pair = Pair::start(|it| it.set("redis.notify", notify));
        // It comes back without a master to sync with.
        pair.master.signal(nix::sys::signal::Signal::SIGSTOP);
        pair.replica.kill();
        pair.replica.restart();
        let page = wait_kept(&pair.gateway, "unsynced");
        let error = page["error"].as_str().unwrap();
        assert!(error.contains("has not synced with its master"), "{error}");
        let line = pair.gateway.wait_for_log("has not synced with its master");
        assert!(line.contains("lists-unreadable"), "{line}");
        stays_gray(&pair.gateway, Duration::from_millis(1500));
        // What the master has then comes into force, whatever it is.
        pair.master.signal(nix::sys::signal::Signal::SIGCONT);
        pair.master.cli(&["RPUSH", "gray", "127.0.0.6"]);
        pair.gateway.wait_served("127.0.0.6", "pre", DEADLINE);
        stays_gray(&pair.gateway, Duration::from_millis(100));
        let page = pair
            .gateway
            .wait_for_lists("all is well", |it| it["error"] == json!(null));
        assert_eq!(page["kept"], json!([]));
        assert_eq!(pair.gateway.stderr.count("lists-event-missed"), 0);
        // And the rollback is as quick as ever.
        pair.master.cli(&["DEL", "gray"]);
        pair.gateway.wait_served("127.0.0.5", "prod", DEADLINE);
        assert_eq!(pair.gateway.lists()["error"], json!(null));
    }
}

#[test]
fn a_replica_that_has_old_data_and_no_master_yet_is_not_believed() {
    let mut pair = Pair::start(|it| it);
    pair.replica
        .cli(&["CONFIG", "SET", "replica-read-only", "no"]);
    pair.replica.cli(&["DEL", "gray"]);
    pair.replica.cli(&["SAVE"]);
    pair.replica.cli(&["RPUSH", "gray", "127.0.0.5"]);
    pair.master.kill();
    pair.gateway.wait_served("127.0.0.5", "pre", DEADLINE);
    pair.replica.kill();
    pair.replica.restart();
    wait_kept(&pair.gateway, "unsynced");
    stays_gray(&pair.gateway, Duration::from_millis(500));
    // Whoever makes it a master says that its data are those that count.
    pair.replica.cli(&["REPLICAOF", "NO", "ONE"]);
    pair.gateway.wait_served("127.0.0.5", "prod", DEADLINE);
}

#[test]
fn a_gateway_that_starts_on_a_replica_without_data_waits_or_takes_the_copy() {
    let refusing = support::RefusingPeer::new();
    let away = refusing.address();
    let mut replica = Redis::stopped();
    let options = replica_of(away);
    replica.set_options(&options.each_ref().map(String::as_str));
    replica.restart();
    let setup = Setup::new().redis(replica.url());
    let gateway = setup.set("redis.check_interval", "300ms").start();
    assert_eq!(gateway.get("127.0.0.5", "/").status(), 503);
    gateway.wait_for_health(503, "has not synced");
    // Data that nobody has synced are better than none.
    let (pre, prod) = Origin::pre_and_prod();
    replica.cli(&["REPLICAOF", "NO", "ONE"]);
    replica.push("gray", &[&"127.0.0.5"]);
    replica.push_peers(&pre, &prod);
    replica.cli(&[
        "REPLICAOF",
        &away.ip().to_string(),
        &away.port().to_string(),
    ]);
    let setup = Setup::new().redis(replica.url());
    let other = setup.set("redis.check_interval", "300ms").start();
    assert_eq!(other.get("127.0.0.5", "/").text(), "pre");
    let line = other.wait_for_log("replica-link-down");
    assert!(line.contains(&away.to_string()), "{line}");
}

#[test]
fn a_replica_that_loses_its_master_is_followed_and_that_is_said() {
    for notify in ["events", "poll"] {
        let mut pair = Pair::start(|it| it.set("redis.notify", notify));
        pair.master.cli(&["PEXPIRE", "gray", "4000"]);
        let start = Instant::now();
        wait_until("the replica knows", DEADLINE, || {
            pair.replica.cli(&["PTTL", "gray"]) != redis::Value::Int(-1)
        });
        pair.master.kill();
        let it = found(&pair.gateway, "replica-link-down");
        let text = it["text"].as_str().unwrap();
        let (replica, master) = (pair.replica.address(), pair.master.address());
        let words =
            format!("the replica {replica}, whose link to its master {master} is down, for ");
        assert!(text.contains(&words), "{text}");
        let line = pair.gateway.wait_for_log("replica-link-down");
        assert!(
            line.contains("WARN") && line.contains(&words[..words.len() - 6]),
            "{line}"
        );
        assert_eq!(pair.gateway.lists()["error"], json!(null));
        // Also by a new connection, since it had the data.
        pair.replica.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        // Time goes on without a master, too.
        pair.gateway.wait_served("127.0.0.5", "prod", DEADLINE);
        assert!(start.elapsed() >= Duration::from_millis(3900));
        // The page says so a moment after the first request.
        pair.gateway
            .wait_for_lists("nothing is kept", |it| it["kept"] == json!([]));
        pair.master.restart();
        wait_until_nothing_is_found_but_empty(&pair);
        pair.gateway.wait_for_log("replica-link-down-over");
    }
}

/// The master is back without its data, and the replica has them no more, either.
#[track_caller]
fn wait_until_nothing_is_found_but_empty(pair: &Pair) {
    let page = wait_kept(&pair.gateway, "without-data");
    let error = page["error"].as_str().unwrap();
    assert!(
        error.contains("none of the lists since it was restarted"),
        "{error}"
    );
    assert_eq!(pair.gateway.get("127.0.0.6", "/").text(), "prod");
    pair.master.push("prod", &[&pair._origins[1]]);
    wait_until_nothing_is_found(&pair.gateway);
}

#[test]
fn a_server_that_restarts_without_its_data_rolls_nobody_back() {
    for notify in ["events", "tracking", "poll"] {
        let mut site = Site::with(|it| {
            it.set("redis.notify", notify)
                .set("redis.check_interval", "300ms")
        });
        site.redis("RPUSH gray 127.0.0.5");
        site.wait_served("127.0.0.5", "pre");
        site.redis.kill();
        site.redis.restart();
        wait_kept(&site.gateway, "without-data");
        stays_gray(&site.gateway, Duration::from_millis(1200));
        // The first list that is there again ends that.
        site.redis.push("prod", &[&site.prod]);
        site.wait_served("127.0.0.5", "prod");
        site.redis.push("pre", &[&site.pre]);
        site.redis.push("gray", &[&"127.0.0.5"]);
        site.wait_served("127.0.0.5", "pre");
        // Who removes all lists of a server that runs means it.
        site.redis("FLUSHALL");
        site.wait_served("127.0.0.5", "prod");
    }
}

#[test]
fn a_list_that_was_evicted_is_a_removal_also_after_a_restart_and_that_is_said() {
    let redis = Redis::start();
    let origins = ["pre", "prod"].map(Origin::named);
    redis.push("pre", &[&origins[0]]);
    redis.push("prod", &[&origins[1]]);
    redis.push("gray", &[&"127.0.0.5"]);
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let setup = Setup::new().redis(redis.url());
        let setup = setup.set("redis.check_interval", "300ms");
        let copy = folder.path().join("copy");
        setup.set("lists.last_good", copy.display()).start()
    };
    let mut gateway = start();
    gateway.wait_served("127.0.0.5", "pre", DEADLINE);
    evict(&redis, "gray");
    let it = found(&gateway, "keys-evicted");
    let text = it["text"].as_str().unwrap();
    assert!(text.contains("has evicted gray,"), "{text}");
    assert!(text.contains("is taken for a removal"), "{text}");
    let line = gateway.wait_for_log("keys-evicted ");
    assert!(line.contains("ERROR"), "{line}");
    gateway.wait_served("127.0.0.5", "prod", DEADLINE);
    assert_eq!(gateway.lists()["kept"], json!([]));
    // One that starts with the copy comes to the same.
    gateway.signal(nix::sys::signal::Signal::SIGTERM);
    gateway.wait_exit();
    let gateway = start();
    gateway.wait_served("127.0.0.5", "prod", DEADLINE);
    redis.cli(&["RPUSH", "gray", "127.0.0.5", "127.0.0.6"]);
    gateway.wait_served("127.0.0.6", "pre", DEADLINE);
    // Nobody evicts it this time.
    redis.cli(&["DEL", "gray"]);
    gateway.wait_served("127.0.0.5", "prod", DEADLINE);
    assert_eq!(gateway.stderr.count("keys-evicted "), 0);
}

#[test]
fn a_salt_that_was_evicted_is_a_removal_and_that_is_said() {
    let site = Site::with(|it| it.set("redis.check_interval", "300ms"));
    site.redis("RPUSH gray 127.0.0.5");
    site.redis("SET graygate:salt one");
    site.wait_served("127.0.0.5", "pre");
    // Nobody misses it.
    evict(&site.redis, "graygate:salt");
    site.redis("SET graygate:salt two");
    site.redis("RPUSH gray 127.0.0.6 percent:50:cookie:uid");
    site.wait_served("127.0.0.6", "pre");
    evict(&site.redis, "graygate:salt");
    let it = found(&site.gateway, "keys-evicted");
    let text = it["text"].as_str().unwrap();
    assert!(text.contains("has evicted salt,"), "{text}");
    site.redis("SET graygate:salt three");
    site.gateway.wait_for_log("keys-evicted-over");
    assert_eq!(site.gateway.stderr.count("keys-evicted "), 1);
}

#[test]
fn an_evicted_prod_is_held_as_every_emptied_one_and_that_is_over_when_it_is_back() {
    let site = Site::with(|it| it.set("redis.check_interval", "300ms"));
    evict(&site.redis, "prod");
    found(&site.gateway, "keys-evicted");
    let page = site
        .gateway
        .wait_for_lists("prod is held", |it| it["held"] != json!([]));
    assert_eq!(page["held"][0]["reason"], "empties-prod");
    site.wait_served("127.0.0.6", "prod");
    site.redis.push("prod", &[&site.prod]);
    wait_until_nothing_is_found(&site.gateway);
    assert_eq!(site.gateway.stderr.count("keys-evicted "), 1);
}

#[test]
fn where_no_events_are_heard_an_eviction_is_said() {
    let site = Site::with(|it| {
        let it = it.set("redis.check_interval", "300ms");
        it.set("redis.notify", "poll")
            .set("redis.poll_interval", "100ms")
    });
    site.redis("RPUSH gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
    evict(&site.redis, "gray");
    // Somebody may have removed it as well.
    site.wait_served("127.0.0.5", "prod");
    found(&site.gateway, "keys-evicted");
}

#[test]
fn an_eviction_is_said_that_was_while_nobody_was_connected() {
    let site = Site::with(|it| it.set("redis.notify", "poll"));
    site.redis("RPUSH gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
    site.gateway.freeze();
    evict(&site.redis, "gray");
    site.redis("CLIENT KILL TYPE normal");
    site.gateway.signal(nix::sys::signal::Signal::SIGCONT);
    found(&site.gateway, "keys-evicted");
    assert_ne!(site.gateway.lists()["refreshes"]["reconnect"], 0);
}

/// Has the server evict a key: the only one that may be, since it alone expires.
#[track_caller]
fn evict(redis: &Redis, key: &str) {
    redis.cli(&["EXPIRE", key, "1000000"]);
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    wait_until("it is evicted", DEADLINE, || {
        let _ = redis.try_cli(&["SET", "other", "1"]);
        redis.cli(&["EXISTS", key]) == redis::Value::Int(0)
    });
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
}

#[test]
fn where_role_is_forbidden_info_says_the_same_and_without_both_nobody_knows() {
    for (forbidden, is_known) in [(&["-role"][..], true), (&["-role", "-info"], false)] {
        let master = Redis::start_with_options(&QUICK);
        let prod = Origin::named("prod");
        master.push("prod", &[&prod]);
        let mut replica = Redis::stopped();
        let options = replica_of(master.address());
        replica.set_options(&options.each_ref().map(String::as_str));
        replica.restart();
        wait_for_link(&replica, "up");
        let user = [
            "ACL",
            "SETUSER",
            "app",
            "on",
            ">word",
            "allkeys",
            "allchannels",
            "+@all",
        ];
        replica.cli(&[&user[..], forbidden].concat());
        let url = format!("redis://app:word@{}/0", replica.address());
        let setup = Setup::new().redis(url).set("redis.check_interval", "300ms");
        let gateway = setup.set("redis.heartbeat", "off").start();
        gateway.wait_served("127.0.0.5", "prod", DEADLINE);
        drop(master);
        wait_for_link(&replica, "down");
        if is_known {
            found(&gateway, "replica-link-down");
            continue;
        }
        let checks = "graygate_lists_refreshes_total{cause=\"check\"}";
        let before = gateway.metric(checks);
        wait_until("some checks", DEADLINE, || {
            gateway.metric(checks) > before + 2.0
        });
        let page = gateway.lists();
        assert_eq!(page["findings"]["first"], json!([]), "{page}");
        assert_eq!(page["error"], json!(null), "{page}");
    }
}

/// A replica that calls its state by this word in ROLE, and says this of its link in INFO; it has
/// lists as long as it is said to have.
#[derive(Clone)]
struct Said {
    state: &'static str,
    link: &'static str,
    has_lists: bool,
}

fn scripted_replica(said: Arc<Mutex<Said>>) -> ScriptedRedis {
    let (mut queued, mut now) = (Vec::new(), said.lock().unwrap().clone());
    ScriptedRedis::start(move |command| {
        // It becomes another only when it is asked for that, so that what it has goes with it.
        if let "ROLE" | "INFO" = command[0] {
            now = said.lock().unwrap().clone();
        }
        let Said {
            state,
            link,
            has_lists,
        } = now;
        match command[0] {
            "PING" => "+PONG".to_owned(),
            "ROLE" => texts(&["replica", "10.0.0.1", "6379", state]),
            "INFO" => {
                let text = format!(
                    "role:replica\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\n\
                     master_link_status:{link}\r\n"
                );
                format!("${}\r\n{text}", text.len())
            }
            "MULTI" => {
                queued.clear();
                "+OK".to_owned()
            }
            "LRANGE" | "SMEMBERS" => {
                queued.push(match command[1] {
                    _ if !has_lists => texts(&[]),
                    "gray" => texts(&["127.0.0.5"]),
                    "pre" => texts(&["127.0.3.1:9"]),
                    _ => texts(&["127.0.4.1:9"]),
                });
                "+QUEUED".to_owned()
            }
            "EXEC" => {
                let replies = std::mem::take(&mut queued);
                format!("*{}\r\n{}", replies.len(), replies.join("\r\n"))
            }
            _ => "-ERR unknown command".to_owned(),
        }
    })
}

#[test]
fn a_replica_with_other_words_for_its_state_is_followed_and_what_it_lacks_is_not() {
    // Dragonfly's words say all; of a word that nobody knows, INFO has to say more.
    for ([settled, adrift], [link_up, link_down]) in [
        (["stable_sync", "full_sync"], ["up", "up"]),
        (["online", "preparation"], ["up", "up"]),
        (["stable_sync", "startled"], ["up", "down"]),
        (["following", "startled"], ["up", "down"]),
    ] {
        let say = |state, link, has_lists| Said {
            state,
            link,
            has_lists,
        };
        let said = Arc::new(Mutex::new(say(settled, link_up, true)));
        let redis = scripted_replica(Arc::clone(&said));
        let setup = Setup::new().redis(redis.url()).set("redis.notify", "poll");
        let setup = setup.set("redis.poll_interval", "100ms");
        let gateway = setup.set("redis.heartbeat", "off").start();
        let page = gateway.wait_for_lists("the lists", |it| it["generation"] == 1);
        assert_eq!(page["findings"]["first"], json!([]), "{settled}: {page}");
        *said.lock().unwrap() = say(adrift, link_down, false);
        wait_kept(&gateway, "unsynced");
        *said.lock().unwrap() = say(settled, link_up, true);
        let page = gateway.wait_for_lists("all is well", |it| it["kept"] == json!([]));
        assert_eq!(page["error"], json!(null), "{adrift}: {page}");
        assert_eq!(page["generation"], 1, "{adrift}: {page}");
    }
}

/// Whose data these are, as the server says.
#[track_caller]
fn history(redis: &Redis) -> String {
    let info: String = redis::from_redis_value(redis.cli(&["INFO", "replication"])).unwrap();
    let line = info.lines().find(|it| it.starts_with("master_replid:"));
    line.unwrap().to_owned()
}

#[test]
fn whoever_empties_a_master_means_it_also_when_its_history_has_a_new_name() {
    // No check comes between: the changes are heard.
    let quiet = |it: Setup| {
        it.set("redis.notify", "tracking")
            .set("redis.check_interval", "1h")
    };
    // A first replica is attached.
    let site = Site::with(quiet);
    site.redis("RPUSH gray 127.0.0.5");
    site.wait_served("127.0.0.5", "pre");
    let before = history(&site.redis);
    let replica = Redis::start_with_options(&QUICK);
    let address = site.redis.address();
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    replica.cli(&["REPLICAOF", &host, &port]);
    wait_for_link(&replica, "up");
    assert_ne!(history(&site.redis), before);
    site.redis("FLUSHALL");
    site.wait_served("127.0.0.5", "prod");
    assert_eq!(site.gateway.stderr.count("without-data"), 0);

    // A replica is promoted.
    let pair = Pair::start(quiet);
    let before = history(&pair.replica);
    pair.replica.cli(&["REPLICAOF", "NO", "ONE"]);
    assert_ne!(history(&pair.replica), before);
    pair.replica.cli(&["FLUSHALL"]);
    pair.gateway.wait_served("127.0.0.5", "prod", DEADLINE);
    assert_eq!(pair.gateway.stderr.count("without-data"), 0);
}

#[test]
fn what_is_said_of_a_replicas_link_goes_with_its_standing_also_while_its_lists_are_not_taken() {
    let mut pair = Pair::start(|it| it);
    pair.master.kill();
    found(&pair.gateway, "replica-link-down");
    // It comes back with what its file has, and another master that is away.
    let refusing = support::RefusingPeer::new();
    let options = replica_of(refusing.address());
    let options = options.each_ref().map(String::as_str);
    pair.replica.kill();
    pair.replica.set_options(&options);
    pair.replica.restart();
    wait_kept(&pair.gateway, "unsynced");
    let it = found(&pair.gateway, "replica-link-down");
    let text = it["text"].as_str().unwrap();
    let master = format!("master {} is down", refusing.address());
    assert!(text.contains(&master), "{text}");
    // It becomes a master that has nothing.
    pair.replica
        .cli(&["CONFIG", "SET", "replica-read-only", "no"]);
    pair.replica.cli(&["FLUSHALL"]);
    pair.replica.cli(&["REPLICAOF", "NO", "ONE"]);
    wait_kept(&pair.gateway, "without-data");
    wait_until_nothing_is_found(&pair.gateway);
    pair.gateway.wait_for_log("replica-link-down-over");
}

#[test]
fn a_server_that_had_no_lists_yet_may_restart_without_any() {
    let mut redis = Redis::start();
    let setup = Setup::new().redis(redis.url());
    let gateway = setup.set("redis.check_interval", "300ms").start();
    gateway.wait_for_lists("no lists", |it| it["generation"] == 1);
    redis.kill();
    gateway.wait_for_log("lists-unreadable");
    redis.restart();
    let page = gateway.wait_for_lists("a reading", |it| it["refreshes"]["reconnect"] != 0);
    assert_eq!(page["kept"], json!([]), "{page}");
    assert_eq!(gateway.stderr.count("without-data"), 0);
    let (pre, prod) = Origin::pre_and_prod();
    redis.push_peers(&pre, &prod);
    gateway.wait_served("127.0.0.5", "prod", DEADLINE);
}

#[test]
fn a_list_that_may_not_be_read_does_not_hide_that_the_others_were_lost() {
    let mut redis = Redis::stopped();
    let user = "--user app on >word ~gray ~prod ~graygate:accept allchannels +@all";
    redis.set_options(&user.split(' ').collect::<Vec<_>>());
    redis.restart();
    let prod = Origin::named("prod");
    redis.push("prod", &[&prod]);
    redis.push("gray", &[&"127.0.0.5"]);
    let url = format!("redis://app:word@{}/0", redis.address());
    let setup = Setup::new().redis(url).set("redis.heartbeat", "off");
    let gateway = setup.set("redis.check_interval", "300ms").start();
    let gray = |it: &Value| it["gray"] == json!(["127.0.0.5"]);
    let page = gateway.wait_for_lists("the lists", gray);
    let forbidden = json!([{ "list": "pre", "fault": "forbidden" }]);
    assert_eq!(page["kept"], forbidden);
    redis.kill();
    redis.restart();
    let page = wait_kept(&gateway, "without-data");
    assert!(gray(&page), "{page}");
    redis.push("prod", &[&prod]);
    gateway.wait_for_lists("what there is", |it| {
        it["gray"] == json!([]) && it["kept"] == forbidden
    });
}

#[test]
fn a_gateway_that_starts_on_a_server_that_lost_its_data_goes_on_with_the_copy() {
    let mut redis = Redis::start();
    let (pre, prod) = Origin::pre_and_prod();
    redis.push_peers(&pre, &prod);
    redis.push("gray", &[&"127.0.0.5"]);
    let folder = tempfile::tempdir().unwrap();
    let url = redis.url();
    let start = || {
        let setup = Setup::new().redis(&url);
        let setup = setup.set("redis.check_interval", "300ms");
        let copy = folder.path().join("copy");
        setup.set("lists.last_good", copy.display()).start()
    };
    let mut gateway = start();
    gateway.wait_served("127.0.0.5", "pre", DEADLINE);
    gateway.signal(nix::sys::signal::Signal::SIGTERM);
    gateway.wait_exit();
    redis.kill();
    redis.restart();
    let gateway = start();
    wait_kept(&gateway, "without-data");
    stays_gray(&gateway, Duration::from_millis(500));
    redis.push("prod", &[&prod]);
    gateway.wait_served("127.0.0.5", "prod", DEADLINE);
}

/// The commands that a server gets from now on, but for those that the test itself sends.
struct Monitor(redis::Connection);

impl Monitor {
    #[track_caller]
    fn of(redis: &Redis) -> Self {
        let mut connection = redis.connect(0);
        redis::cmd("MONITOR").exec(&mut connection).unwrap();
        Self(connection)
    }

    /// The next one, in capitals: `1764400000.1 [0 127.0.0.1:1] "EXEC"`.
    #[track_caller]
    fn next(&mut self) -> String {
        let line: String = redis::from_redis_value(self.0.recv_response().unwrap()).unwrap();
        let command = line.split('"').nth(1).unwrap_or_default();
        command.to_uppercase()
    }

    /// Those that follow one of this name, as many as are expected.
    #[track_caller]
    fn expect_after(&mut self, name: &str, expected: &[&str]) {
        while self.next() != name {}
        let next: Vec<String> = expected.iter().map(|_| self.next()).collect();
        assert_eq!(next, expected);
    }
}

#[test]
fn to_know_the_standing_of_a_server_takes_a_change_no_time() {
    let site = Site::with(|it| {
        it.set("redis.check_interval", "1h")
            .set("redis.heartbeat", "off")
    });
    site.redis("RPUSH gray 127.0.0.5 127.0.0.6");
    site.wait_served("127.0.0.6", "pre");
    let reading = [
        "ROLE", "MULTI", "GET", "GET", "LRANGE", "SMEMBERS", "LRANGE", "SMEMBERS", "LRANGE",
        "SMEMBERS", "EXEC",
    ];
    let mut monitor = Monitor::of(&site.redis);
    site.redis("LPOP gray");
    monitor.expect_after("LPOP", &reading);
    site.wait_served("127.0.0.5", "prod");
    // An emptied list is read twice. What was evicted meanwhile is asked for when it is in force.
    site.redis("DEL gray");
    let twice = [
        &reading[..],
        // Whether somebody has said that it is meant.
        &["GET", "WATCH"],
        &reading,
        &["INFO", "INFO", "INFO"],
    ]
    .concat();
    monitor.expect_after("DEL", &twice);
    site.wait_served("127.0.0.6", "prod");
}
