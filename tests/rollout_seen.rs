//! What people see of a rollout: how it stands, what it waits for, what it is held back by, and that it has
//! stopped or ended.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{
    DEADLINE, Gateway, Ground, Origin, RefusingPeer, Relay, Setup, ok, run_to_exit, wait_for,
    wait_until,
};

/// What the page says of the rollout of the default service.
#[track_caller]
fn on_page(gateway: &Gateway) -> Value {
    let (status, text) = gateway.admin_get("/verdict");
    assert_eq!(status, 200, "{text}");
    let page: Value = serde_json::from_str(&text).unwrap();
    page["services"][0]["rollout"].clone()
}

/// Waits until status, page and metrics agree on what it waits for.
#[track_caller]
fn wait_held(ground: &Ground, gateway: &Gateway, by: &str) {
    let what = format!("it is held back by {by}");
    wait_until(&what, 3 * DEADLINE, || {
        let status = ground.done(&["rollout", "status"]);
        let waits_for = on_page(gateway)["waits_for"].to_string();
        status.contains(&format!(" waits: {by}")) && waits_for.contains(by)
    });
}

#[test]
fn how_it_stands_is_told_by_status_page_and_metrics() {
    let ground = Ground::new();
    let gateway = ground.gateway("a");
    assert_eq!(on_page(&gateway), Value::Null);
    let none = ground.json(&["rollout", "status"]);
    assert_eq!(
        none,
        json!({ "service": "default", "rollout": null, "frozen": null })
    );
    ground.start("5,100", "1h", &["--by", "ann", "--reason", "1.7"]);
    wait_until("it has said something", DEADLINE, || {
        !ground.rollout()["waits_for"].is_null()
    });
    let status = ground.json(&["rollout", "status"]);
    let left = status["left_seconds"].as_f64().unwrap();
    assert!((3500.0..3600.0).contains(&left), "{status}");
    assert_eq!(status["leader"], "a");
    assert_eq!(
        status["rollout"]["waits_for"],
        "the time of the step is not over"
    );
    let text = ground.done(&["rollout", "status"]);
    for part in [
        "running since 2",
        ": step 1 of 2 (5%)\nthe next step in 59m ",
        ", when the verdict is good enough\nthe verdict: ",
        "\ncarried on by a\nstarted by ann at 2",
        ": 1.7\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let seen = wait_for("the page has seen it", || {
        let seen = on_page(&gateway);
        (!seen["waits_for"].is_null()).then_some(seen)
    });
    for (name, value) in [
        ("course", json!("running")),
        ("step", json!(1)),
        ("steps", json!(2)),
        ("percent", json!(5.0)),
        ("every_seconds", json!(3600.0)),
        ("leader", json!("a")),
        ("by", json!("ann")),
        ("reason", json!("1.7")),
        ("promote", json!(false)),
    ] {
        assert_eq!(seen[name], value, "{name}: {seen}");
    }
    let course =
        |name: &str| gateway.metric(&format!("graygate_rollout_course{{course=\"{name}\"}}"));
    assert_eq!((course("running"), course("paused")), (1.0, 0.0));
    assert_eq!(gateway.metric("graygate_rollout_step"), 1.0);
    assert_eq!(gateway.metric("graygate_rollout_steps"), 2.0);
    let left = gateway.metric("graygate_rollout_step_left_seconds");
    assert!((3500.0..3600.0).contains(&left), "{left}");

    ground.done(&["rollout", "pause", "--by", "bob"]);
    wait_until("it is paused", DEADLINE, || course("paused") == 1.0);
    let text = ground.done(&["rollout", "status"]);
    assert!(text.contains("paused by bob\nthe next step 59m "), "{text}");
    assert!(text.contains(" after it goes on, when"), "{text}");
    ground.done(&["rollout", "abort"]);
    wait_until("it is aborted", DEADLINE, || course("aborted") == 1.0);
    assert_eq!(on_page(&gateway)["left_seconds"], Value::Null);

    // Its time is over, and the verdict is not good enough.
    ground.start("5,50", "1s", &[]);
    wait_held(&ground, &gateway, "the verdict: ");
}

#[test]
fn a_promotion_is_held_back_by_a_server_that_is_out_and_by_a_gateway_without_the_lists() {
    let ground = Ground::new();
    let gateway = ground.gateway_with("a", ground.redis.url(), |it| {
        it.set("upstream.tries", 1)
            .set("upstream.max_fails", 1)
            .set("upstream.fail_timeout", "1h")
    });
    let refusing = RefusingPeer::new();
    ground.redis.push("pre", &[&refusing]);
    ground.done(&["stage", "50%"]);
    let is_out = || {
        for client in 1..=20 {
            gateway.get(&format!("127.0.0.{client}"), "/");
        }
        gateway.peers().to_string().contains("\"up\":false")
    };
    wait_until("it is out", DEADLINE, is_out);
    let promote = ["--without-verdict", "--promote"];
    ground.start("50", "1s", &promote);
    wait_held(&ground, &gateway, "not all servers of pre are up");
    assert_eq!(ground.rollout()["course"], "running");
    ground.done(&["rollout", "abort"]);
    ground
        .redis
        .cli(&["LREM", "pre", "0", &refusing.to_string()]);

    let other = ground.gateway_with("b", ground.redis.url(), |it| {
        it.set("redis.heartbeat", "10s")
    });
    other.signal(Signal::SIGSTOP);
    ground.start("50", "1s", &promote);
    wait_held(&ground, &gateway, "b does not hold the lists");
    assert_eq!(ground.rollout()["course"], "running");
    // For as long as that is so, nobody reads the lists, which may be long.
    let beat = || {
        let renewal = ground.redis.cli(&["GET", "graygate:release:lease"]);
        let renewal: Option<String> = redis::from_redis_value(renewal).unwrap();
        serde_json::from_str::<Value>(&renewal?).unwrap()["beat"].as_u64()
    };
    let first = beat();
    ground.redis.cli(&["CONFIG", "RESETSTAT"]);
    wait_until("the lease is renewed twice", 2 * DEADLINE, || {
        beat()
            .zip(first)
            .is_some_and(|(now, first)| now > first + 1)
    });
    let asked = ground.redis.cli(&["INFO", "commandstats"]);
    let asked: String = redis::from_redis_value(asked).unwrap();
    let reads = asked
        .lines()
        .filter(|it| it.contains("lrange") || it.contains("smembers"));
    let calls = reads.filter_map(|it| {
        it.split_once("calls=")?
            .1
            .split(',')
            .next()?
            .parse::<u64>()
            .ok()
    });
    let calls: u64 = calls.sum();
    assert!(calls <= 3, "{calls} calls: {asked}");
    // Whoever has fallen silent may be cut off, and serve by what it has.
    let time: (i64, i64) = redis::from_redis_value(ground.redis.cli(&["TIME"])).unwrap();
    let expired = (time.0 * 1000 - 1).to_string();
    ground.redis.cli(&["ZADD", "graygate:nodes", &expired, "b"]);
    ground.redis.cli(&["DEL", "graygate:node:b"]);
    wait_held(&ground, &gateway, "b is not heard from");
    other.signal(Signal::SIGCONT);
    ground.wait_course("done");
    assert_eq!(ground.list("gray"), Vec::<String>::new());
}

#[test]
fn it_does_not_begin_where_no_gateway_would_look_at_it() {
    let ground = Ground::new();
    let setup = Setup::new().redis(ground.redis.url());
    let setup = setup.set("verdict.mode", "off");
    let ini = setup.write_ini();
    let words = "rollout start --steps 5 --every 1h --without-verdict -c";
    let words: Vec<&str> = words.split(' ').chain([ini.to_str().unwrap()]).collect();
    let output = run_to_exit(&words);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let why = String::from_utf8(output.stderr).unwrap();
    assert!(why.contains("[verdict] mode = off"), "{why}");
    assert!(ground.list("gray").is_empty() && ground.history().is_empty());
}

/// What a receiver was told: the event and the text, in order.
fn notices(receiver: &Origin) -> Vec<(String, String)> {
    let told = receiver.requests().into_iter().map(|it| {
        let body: Value = serde_json::from_slice(&it.content).unwrap();
        let word = |name: &str| body[name].as_str().unwrap().to_owned();
        (word("event"), word("text"))
    });
    told.collect()
}

#[test]
fn people_are_told_that_it_has_stopped_or_ended() {
    let (ground, receiver) = (Ground::new(), Origin::saying(ok("")));
    let url = format!("http://{}/hook", receiver.address());
    let _gateways = ["a", "b"].map(|node| {
        let edit = |it: Setup| it.set("verdict.webhook", &url);
        ground.gateway_with(node, ground.redis.url(), edit)
    });
    let told = |count: usize| {
        wait_until("it is told", DEADLINE, || notices(&receiver).len() >= count);
        notices(&receiver).pop().unwrap()
    };
    ground.start("5,50", "1h", &["--by", "ann"]);
    wait_until("it is led", DEADLINE, || ground.leader().is_some());
    ground.done(&["stage", "7%"]);
    let (event, text) = told(1);
    assert_eq!(event, "rollout-paused");
    for part in ["`graygate rollout resume`", "changed: percent:5"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let other = Origin::named("other");
    ground.redis.push("pre", &[&other.address()]);
    let (event, text) = told(2);
    assert_eq!(event, "rollout-aborted");
    assert!(text.contains("pre is another one"), "{text}");
    ground.done(&["rollback"]);
    ground.start("50", "1s", &["--without-verdict"]);
    let (event, text) = told(3);
    assert_eq!(event, "rollout-done");
    assert!(text.contains("its last step has held"), "{text}");
    // One gateway tells each.
    assert_eq!(notices(&receiver).len(), 3);
}

#[test]
fn people_are_told_of_a_promotion_whose_reply_was_lost() {
    let (ground, receiver) = (Ground::new(), Origin::saying(ok("")));
    let webhook = format!("http://{}/hook", receiver.address());
    let relay = Relay::to(ground.redis.address());
    let url = format!("redis://{}/0", relay.address());
    let _gateway = ground.gateway_with("a", url, |it| it.set("verdict.webhook", webhook));
    // The record of it, as it stands in the transaction.
    relay.lose_reply_to("$7\r\npromote\r\n");
    let words = ["--without-verdict", "--promote", "--by", "ann"];
    ground.start("50", "1s", &words);
    wait_until("it is told", DEADLINE, || !notices(&receiver).is_empty());
    assert!(relay.has_lost_reply());
    let [(event, text)] = &notices(&receiver)[..] else {
        panic!("{:?}", notices(&receiver));
    };
    assert_eq!(event, "promoted");
    assert!(text.contains("its servers are prod now"), "{text}");
    assert!(text.contains("ann"), "{text}");
    let verbs: Vec<String> = ground.history().into_iter().map(|it| it.0).collect();
    assert_eq!(verbs, ["rollout", "promote"]);
}

#[test]
fn a_version_that_is_found_worse_by_real_traffic_takes_its_rollout_back() {
    let oops = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec();
    let (pre, prod) = (Origin::saying(oops), Origin::named("prod"));
    let (ground, receiver) = (Ground::of(pre, prod), Origin::saying(ok("")));
    let gateway = ground.gateway_with("a", ground.redis.url(), |it| {
        let it = it
            .set("verdict.mode", "enforce")
            .set("upstream.max_fails", 0);
        let it = it.set("gateway.trusted_proxies", "127.0.0.0/8");
        it.set(
            "verdict.webhook",
            format!("http://{}/hook", receiver.address()),
        )
    });
    ground.start("50,100", "1h", &[]);
    let mut round = 0;
    wait_until("it is aborted", DEADLINE, || {
        round += 1;
        let mut client = gateway.connect();
        for at in 1..=40 {
            let client_address = format!("10.1.{}.{at}", round % 250);
            client.ask(format!(
                "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client_address}\r\n\r\n"
            ));
        }
        ground.rollout()["course"] == "aborted"
    });
    let why = ground.wait_course("aborted");
    assert!(why.contains("by a: worse"), "{why}");
    assert!(ground.list("gray").is_empty());
    let trip = || ground.redis.cli(&["EXISTS", "graygate:tripped"]);
    wait_until("all know", DEADLINE, || trip() == redis::Value::Int(1));
    let verbs: Vec<String> = ground.history().into_iter().map(|it| it.0).collect();
    assert_eq!(verbs, ["rollout", "trip", "rollback"]);
    wait_until("both are told", DEADLINE, || {
        let told = notices(&receiver);
        let has = |event: &str| told.iter().any(|it| it.0 == event);
        has("tripped") && has("rolled-back")
    });
}
