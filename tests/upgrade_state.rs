//! What goes over in an upgrade, so that nothing is judged anew, and how two processes of one gateway get on
//! while the old one finishes what is under way.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use support::{
    Client, DEADLINE, Gateway, LastProcess, Origin, Redis, RefusingPeer, Setup, ok, peer_on,
    pid_in_file, run_to_exit, upgrade_in_vain, upgrade_well, wait_for, wait_until,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const CLOSE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// A gateway with all that only one can have.
fn on_redis(redis: &Redis) -> Setup {
    Setup::new()
        .redis(redis.url())
        .set("redis.heartbeat", "200ms")
        .set("redis.node", "one")
        // Whatever the machine allows.
        .set("gateway.max_connections", 100)
        .set("gateway.pid_file", "pid")
        .set("lists.last_good", "last-good")
}

fn on_file(origin: &Origin) -> Setup {
    Setup::serving(origin)
        .set("gateway.pid_file", "pid")
        .set("gateway.drain_timeout", "30s")
        // Upgrades take their time.
        .set("upstream.stall_timeout", "1m")
}

/// What the process says of itself that the pid file names.
fn page(gateway: &Gateway, path: &str) -> Value {
    let pid = pid_in_file(gateway);
    // Right after an upgrade, the old one may still answer one that it has accepted.
    wait_for("the new one answers", || {
        let upgrades: Value = serde_json::from_str(&gateway.admin_get("/upgrades").1).unwrap();
        (upgrades["pid"] == pid).then_some(())
    });
    serde_json::from_str(&gateway.admin_get(path).1).unwrap()
}

#[track_caller]
fn wait_drained(gateway: &Gateway) {
    wait_until("nobody drains", DEADLINE, || {
        page(gateway, "/upgrades")["draining"] == json!([])
    });
}

fn status(gateway: &Gateway) -> String {
    let ini = gateway.path("graygate.ini");
    let output = run_to_exit(&["status", "-c", ini.to_str().unwrap()]);
    String::from_utf8(output.stdout).unwrap()
}

/// Says half of an answer, and the rest when it is released.
fn slow() -> Origin {
    Origin::scripted(|conn| {
        while conn.request()?.is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")?;
            conn.wait_for_release()?;
            conn.send("world")?;
        }
        Ok(())
    })
}

/// Has asked, and got half of an answer.
fn half_served(gateway: &Gateway) -> Client {
    let mut client = gateway.connect();
    client.send(GET);
    assert_eq!(client.head().status(), 200);
    assert_eq!(client.exactly(5), b"hello");
    client
}

#[test]
fn an_upgrade_in_which_all_is_well_leaves_no_warning_in_the_log() {
    let (redis, (pre, prod)) = (Redis::start(), Origin::pre_and_prod());
    redis.push_peers(&pre, &prod);
    let gateway = on_redis(&redis).start();
    let _last = LastProcess(&gateway);
    wait_until("the copy is there", DEADLINE, || {
        gateway.path("last-good").exists()
    });
    let beats = |pid: i32| {
        wait_until("the heartbeat is this process's", DEADLINE, || {
            let keys: Vec<String> = redis::cmd("KEYS")
                .arg("*one")
                .query(&mut redis.connect(0))
                .unwrap();
            keys.iter().any(|key| {
                let mut connection = redis.connect(0);
                let node: Option<String> = redis::cmd("GET")
                    .arg(key)
                    .query(&mut connection)
                    .unwrap_or_default();
                node.is_some_and(|it| it.contains(&format!("\"pid\":{pid}")))
            })
        });
    };
    beats(gateway.pid().cast_signed());
    for round in 1..3 {
        upgrade_well(&gateway);
        let pid = pid_in_file(&gateway);
        beats(pid);
        wait_until("the copy is this process's", DEADLINE, || {
            let lock = fs::read_to_string(gateway.path("last-good.lock")).unwrap_or_default();
            lock.contains(&format!("pid {pid}\n"))
        });
        wait_drained(&gateway);
        let upgrades = page(&gateway, "/upgrades");
        assert_eq!(upgrades["upgrades"], round, "{upgrades}");
    }
    // The next lists are in the copy.
    redis.cli(&["RPUSH", "gray", "10.1.2.3"]);
    wait_until("the copy is written", DEADLINE, || {
        fs::read_to_string(gateway.path("last-good")).is_ok_and(|it| it.contains("10.1.2.3"))
    });
    let log = gateway.stderr.all();
    let is_bad = |line: &&String| line.contains(" WARN ") || line.contains(" ERROR ");
    let bad: Vec<_> = log.iter().filter(is_bad).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn what_is_held_stays_held_since_when_it_was_and_can_be_accepted() {
    let (redis, origin) = (Redis::start(), Origin::saying(ok("fine")));
    let others = [Origin::saying(ok("fine")), Origin::saying(ok("fine"))];
    redis.push("prod", &[&origin, &others[0], &others[1]]);
    let gateway = on_redis(&redis).start();
    let _last = LastProcess(&gateway);
    gateway.wait_for_lists("three servers", |it| {
        it["prod"].as_array().unwrap().len() == 3
    });
    // One at first, and then another one at once: two of three.
    redis.cli(&["LTRIM", "prod", "1", "2"]);
    redis.cli(&["LTRIM", "prod", "1", "1"]);
    let holds = |it: &Value| it["held"].as_array().unwrap().len() == 1;
    let before = gateway.wait_for_lists("something is held", holds);
    upgrade_well(&gateway);
    let after = page(&gateway, "/lists");
    for member in ["held", "generation", "digest", "changed_at", "prod"] {
        assert_eq!(after[member], before[member], "{member}");
    }
    assert_eq!(gateway.stderr.count("change-held"), 1);
    let digest = before["held"][0]["digest"].as_str().unwrap();
    let ini = gateway.path("graygate.ini");
    let accepted = run_to_exit(&["lists", "accept", digest, "-c", ini.to_str().unwrap()]);
    assert!(accepted.status.success(), "{accepted:?}");
    let accepted = page(&gateway, "/lists");
    assert_eq!(accepted["held"], json!([]));
    assert_eq!(accepted["prod"].as_array().unwrap().len(), 1);
    let next = before["generation"].as_u64().unwrap() + 1;
    assert_eq!(accepted["generation"], next);
}

#[test]
fn a_change_that_is_made_while_nobody_looks_is_compared_with_the_lists_of_the_old_process() {
    let (redis, origin) = (Redis::start(), Origin::saying(ok("fine")));
    redis.push_peers(&origin, &origin);
    // Without a copy on disk, and without events.
    let setup = Setup::new()
        .redis(redis.url())
        .set("gateway.pid_file", "pid");
    let gateway = setup.set("redis.check_interval", "1h").start();
    let _last = LastProcess(&gateway);
    wait_until("it serves", DEADLINE, || {
        gateway.connect().ask(CLOSE).status() == 200
    });
    redis.cli(&["CONFIG", "SET", "notify-keyspace-events", ""]);
    redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    redis.cli(&["DEL", "prod"]);
    upgrade_well(&gateway);
    let lists = page(&gateway, "/lists");
    assert_eq!(lists["held"][0]["reason"], "empties-prod", "{lists}");
    assert_eq!(gateway.connect().ask(CLOSE).status(), 200);
}

#[test]
fn what_is_accepted_during_an_upgrade_is_accepted_by_both_processes() {
    let (redis, origin) = (Redis::start(), Origin::saying(ok("fine")));
    let others = [Origin::saying(ok("fine")), Origin::saying(ok("fine"))];
    redis.push("prod", &[&origin, &others[0], &others[1]]);
    let gateway = on_redis(&redis).start();
    let _last = LastProcess(&gateway);
    gateway.wait_for_lists("three servers", |it| {
        it["prod"].as_array().unwrap().len() == 3
    });
    redis.cli(&["LTRIM", "prod", "2", "2"]);
    let holds = |it: &Value| it["held"].as_array().unwrap().len() == 1;
    let before = gateway.wait_for_lists("something is held", holds);
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| upgrade_well(&gateway));
        wait_until("the new one is ready", DEADLINE, || {
            gateway.stderr.count(" ready ") == 2
        });
        let digest = before["held"][0]["digest"].as_str().unwrap();
        let ini = gateway.path("graygate.ini");
        let accepted = run_to_exit(&["lists", "accept", digest, "-c", ini.to_str().unwrap()]);
        assert!(accepted.status.success(), "{accepted:?}");
        // Whichever was asked tells the other one.
        wait_until("both have accepted it", DEADLINE, || {
            gateway.stderr.count("change-accepted list=prod") == 2
        });
        upgrade.join().unwrap();
    });
    let after = page(&gateway, "/lists");
    assert_eq!(after["held"], json!([]));
    assert_eq!(after["prod"].as_array().unwrap().len(), 1);
}

#[test]
fn the_generation_goes_on() {
    let origin = Origin::saying(ok("fine"));
    let gateway = on_file(&origin).start();
    let _last = LastProcess(&gateway);
    for round in 2..4 {
        gateway.write_lists(&[&format!("10.0.0.{round}")], &[], &[&origin]);
        gateway.wait_for_lists("the next one", |it| it["generation"] == round);
    }
    upgrade_well(&gateway);
    assert_eq!(page(&gateway, "/lists")["generation"], 3);
    gateway.write_lists(&["10.0.0.9"], &[], &[&origin]);
    gateway.wait_for_lists("the next one", |it| it["generation"] == 4);
}

#[test]
fn a_server_that_is_out_stays_out() {
    let (origin, refusing) = (Origin::saying(ok("fine")), RefusingPeer::new());
    let gateway = Setup::new()
        .lists(&[], &[], &[&origin, &refusing.address()])
        .set("gateway.pid_file", "pid")
        .set("upstream.fail_timeout", "2m")
        .start();
    let _last = LastProcess(&gateway);
    let of_refusing = |page: &Value| peer_on(page, "prod", refusing.address());
    wait_until("it is out", DEADLINE, || {
        assert_eq!(gateway.connect().ask(CLOSE).status(), 200);
        of_refusing(&gateway.peers())["state"] == "out"
    });
    let before = of_refusing(&gateway.peers());
    upgrade_well(&gateway);
    let after = of_refusing(&page(&gateway, "/peers"));
    assert_eq!(after["state"], "out", "{after}");
    assert_eq!(after["reason"], before["reason"], "{after}");
    assert_eq!(after["outs_in_a_row"], before["outs_in_a_row"], "{after}");
    for _ in 0..20 {
        assert_eq!(gateway.connect().ask(CLOSE).status(), 200);
    }
    let after = of_refusing(&page(&gateway, "/peers"));
    assert_eq!(after["failed"], 0, "{after}");
}

#[test]
fn a_redis_that_is_away_for_everybody_keeps_nobody_from_an_upgrade() {
    let (mut redis, origin) = (Redis::start(), Origin::saying(ok("fine")));
    redis.push_peers(&origin, &origin);
    let setup = Setup::new()
        .redis(redis.url())
        .set("gateway.pid_file", "pid");
    let gateway = setup.start();
    let _last = LastProcess(&gateway);
    wait_until("it serves", DEADLINE, || {
        gateway.connect().ask(CLOSE).status() == 200
    });
    redis.kill();
    gateway.wait_for_log("lists-unreadable");
    upgrade_well(&gateway);
    gateway.wait_for_log("lists-unread ");
    let lists = page(&gateway, "/lists");
    assert_eq!(lists["generation"], 1, "{lists}");
    assert!(lists["age_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(gateway.connect().ask(CLOSE).status(), 200);
    // And then it reads.
    redis.restart();
    redis.push_peers(&origin, &origin);
    redis.cli(&["RPUSH", "gray", "10.1.2.3"]);
    gateway.wait_for_lists("it reads again", |it| it["generation"] == 2);
}

#[test]
fn settings_by_which_the_lists_cannot_be_read_are_not_taken_over() {
    let (redis, origin) = (Redis::start(), Origin::saying(ok("fine")));
    redis.push_peers(&origin, &origin);
    let setup = Setup::new()
        .redis(redis.url())
        .set("gateway.pid_file", "pid");
    let mut gateway = setup.set("gateway.upgrade_timeout", "2s").start();
    wait_until("it serves", DEADLINE, || {
        gateway.connect().ask(CLOSE).status() == 200
    });
    let away = Redis::stopped();
    gateway.edit_ini(|it| it.redis(away.url()));
    upgrade_in_vain(&mut gateway, &[], "no lists were read within");
    // That one has never heard of any servers.
    let url = redis.url_of(1);
    gateway.edit_ini(|it| it.redis(url));
    upgrade_in_vain(&mut gateway, &[], "prod is empty in redis");
    // With another store that has them, counting goes on, too.
    let other = Redis::start();
    other.push_peers(&origin, &origin);
    gateway.edit_ini(|it| it.redis(other.url()));
    let _last = LastProcess(&gateway);
    upgrade_well(&gateway);
    assert_eq!(page(&gateway, "/lists")["generation"], 2);
}

#[test]
fn status_names_upgrades_and_whoever_drains() {
    let origin = slow();
    let gateway = on_file(&origin).start();
    let _last = LastProcess(&gateway);
    let text = status(&gateway);
    assert!(
        !text.contains("upgrades") && !text.contains("draining"),
        "{text}"
    );
    let mut client = half_served(&gateway);
    upgrade_well(&gateway);
    let version = env!("CARGO_PKG_VERSION");
    let pid = gateway.pid();
    let drains = format!("the old process {pid} since ");
    wait_until("it says so", DEADLINE, || {
        let text = status(&gateway);
        text.contains(&drains) && text.contains(", with 1 connections, until ")
    });
    let text = status(&gateway);
    assert!(text.contains("upgrades    1 since "), "{text}");
    assert!(text.contains(&format!("from version {version}")), "{text}");
    let draining = page(&gateway, "/upgrades")["draining"][0].clone();
    assert_eq!(
        (&draining["pid"], &draining["connections"]),
        (&json!(pid), &json!(1))
    );
    let time = |member: &str| humantime::parse_rfc3339(draining[member].as_str().unwrap()).unwrap();
    // As drain_timeout says.
    let limit = time("until").duration_since(time("since")).unwrap();
    assert_eq!(limit.as_secs(), 30);
    origin.release();
    assert_eq!(client.exactly(5), b"world");
    wait_drained(&gateway);
    assert!(!status(&gateway).contains("draining"));
}

#[test]
fn who_is_served_by_an_older_process_follows_its_successors_to_the_last() {
    let origin = slow();
    let gateway = on_file(&origin).start();
    let _last = LastProcess(&gateway);
    let mut clients = vec![half_served(&gateway)];
    for _ in 0..2 {
        upgrade_well(&gateway);
        clients.push(half_served(&gateway));
    }
    wait_until("both drain", DEADLINE, || {
        page(&gateway, "/upgrades")["draining"]
            .as_array()
            .unwrap()
            .len()
            == 2
    });
    origin.release();
    for client in &mut clients {
        assert_eq!(client.exactly(5), b"world");
    }
    wait_drained(&gateway);
    // Their connections are kept, and nobody but the last process is there.
    for client in &mut clients {
        assert_eq!(client.ask(GET).text(), "helloworld");
    }
}

#[test]
fn the_old_process_goes_by_the_lists_as_they_are() {
    let (before, after) = (Origin::named("before"), Origin::named("after"));
    let gateway = on_file(&before).set("lists.guard_share", 100).start();
    let _last = LastProcess(&gateway);
    // The old process has half of its request.
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\n");
    wait_until("the half has arrived", DEADLINE, || {
        gateway.metric("graygate_connections_parked{worker=\"0\"}")
            + gateway.metric("graygate_connections_parked{worker=\"1\"}")
            == 0.0
            && support::unread_at(gateway.addr().port()) == 0
    });
    upgrade_well(&gateway);
    wait_until("it drains", DEADLINE, || {
        page(&gateway, "/upgrades")["draining"][0]["connections"] == 1
    });
    gateway.write_lists(&[], &[], &[&after]);
    wait_until("both follow", DEADLINE, || {
        gateway.stderr.count("lists-published generation=2") == 2
    });
    client.send("Host: a\r\n\r\n");
    assert_eq!(client.response().text(), "after");
}

#[test]
fn logs_are_whole_whoever_writes_them_and_reopened_by_both() {
    const EACH: usize = 50;
    let origin = slow();
    let gateway = on_file(&origin).start();
    let _last = LastProcess(&gateway);
    let mut clients: Vec<Client> = (0..EACH).map(|_| half_served(&gateway)).collect();
    upgrade_well(&gateway);
    clients.extend((0..EACH).map(|_| half_served(&gateway)));
    // As logrotate does it: whoever writes on has the old file.
    fs::rename(gateway.path("access.log"), gateway.path("access.log.1")).unwrap();
    let pid = pid_in_file(&gateway);
    kill(Pid::from_raw(pid), Signal::SIGUSR1).unwrap();
    wait_until("both have opened them anew", DEADLINE, || {
        gateway.stderr.count("logs-reopened") == 2
    });
    origin.release();
    for client in &mut clients {
        assert_eq!(client.exactly(5), b"world");
    }
    wait_drained(&gateway);
    // Each of them is whole, or it could not be read.
    let lines = gateway.wait_for_access_lines(2 * EACH);
    assert_eq!(lines.len(), 2 * EACH);
    assert_eq!(
        fs::read_to_string(gateway.path("access.log.1")).unwrap(),
        ""
    );
}

#[test]
fn a_million_entries_go_over_in_time() {
    let origin = Origin::saying(ok("fine"));
    let mut lists = String::from("[gray]\n");
    for number in 0..1_000_000_u32 {
        let [_, b, c, d] = number.to_be_bytes();
        lists.push_str(&format!("10.{b}.{c}.{d}\n"));
    }
    lists.push_str(&format!("[pre]\n[prod]\n{origin}\n"));
    let setup = on_file(&origin).file("lists", &lists);
    let gateway = setup.ready_within(6 * DEADLINE).start();
    let _last = LastProcess(&gateway);
    upgrade_well(&gateway);
    let line = gateway.wait_for_log("lists-handed-over generation=1");
    assert!(line.contains("gray=1000000"), "{line}");
}
