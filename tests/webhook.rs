//! Telling people: what each receiver gets, signed as it wants it; again where it was not taken, and not
//! where that would not help; once, however many gateways know.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Display;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::{
    DEADLINE, Gateway, Origin, Redis, Request, Setup, free_address, ok, run_to_exit, wait_until,
};

const SECRET: &str = "SEC-hunter2-hunter2";

/// What no log and no answer may have.
const SECRETS: [&str; 3] = ["hunter2", "token-in-path", "token-in-query"];

/// Where a receiver is asked, with secrets.
fn url(receiver: &dyn Display) -> String {
    format!("http://{receiver}/hook/token-in-path?key=token-in-query")
}

/// RFC 2104, by hand.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    assert!(key.len() <= 64);
    let pad = |byte: u8| -> Vec<u8> {
        let key = key.iter().copied().chain(std::iter::repeat(0));
        key.take(64).map(|it| it ^ byte).collect()
    };
    let inner = Sha256::digest([&pad(0x36), text].concat());
    Sha256::digest([&pad(0x5c)[..], &inner[..]].concat()).to_vec()
}

/// A test message by the command line: its exit code, and what it says on both outputs.
fn test_message(setup: &Setup, more: &[&str]) -> (i32, String, String) {
    let ini = setup.write_ini();
    let mut arguments = vec!["verdict", "notify", "--test", "-c", ini.to_str().unwrap()];
    arguments.extend(more);
    let output = run_to_exit(&arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    for secret in SECRETS {
        assert!(!out.contains(secret) && !err.contains(secret), "{out}{err}");
    }
    (output.status.code().unwrap(), out, err)
}

fn with_format(receiver: &Origin, format: &str) -> Setup {
    let setup = Setup::new().set("verdict.webhook", url(receiver));
    let setup = setup.set("verdict.webhook_format", format);
    let setup = setup.file("secret", &format!("{SECRET}\n"));
    match format {
        "slack" | "wecom" => setup,
        _ => setup.set("verdict.webhook_secret_file", "secret"),
    }
}

/// The pairs of the query of a request.
fn query(request: &Request) -> Vec<(String, String)> {
    let target = request.head.target().to_owned();
    let (path, query) = target.split_once('?').unwrap();
    assert_eq!(path, "/hook/token-in-path");
    form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect()
}

#[test]
fn each_receiver_gets_its_own_form_with_the_signature_that_it_checks() {
    for (format, answer) in [
        ("json", ""),
        ("slack", "ok"),
        ("dingtalk", "{\"errcode\":0,\"errmsg\":\"ok\"}"),
        ("feishu", "{\"code\":0,\"msg\":\"success\"}"),
        ("wecom", "{\"errcode\":0,\"errmsg\":\"ok\"}"),
    ] {
        let receiver = Origin::saying(ok(answer));
        let (code, out, err) = test_message(&with_format(&receiver, format), &[]);
        assert_eq!((code, &*err), (0, ""), "{format}");
        assert!(out.contains("has taken it, and answered 200"), "{out}");
        assert!(out.contains(&answer.escape_debug().to_string()), "{out}");
        let request = receiver.last();
        assert_eq!(request.head.method(), "POST");
        let kind = request.field("content-type").unwrap();
        assert!(kind.starts_with("application/json"), "{kind}");
        let body: Value = serde_json::from_slice(&request.content).unwrap();
        // Long ago, so that seconds are not taken for milliseconds.
        let past = Duration::from_secs(1_700_000_000);
        let mut pairs = query(&request).into_iter();
        assert_eq!(
            pairs.next(),
            Some(("key".to_owned(), "token-in-query".to_owned()))
        );
        let text = match format {
            "json" => {
                let tag = hmac(SECRET.as_bytes(), &request.content);
                let tag: String = tag.iter().map(|it| format!("{it:02x}")).collect();
                let signature = request.field("x-hub-signature-256").unwrap();
                assert_eq!(signature, format!("sha256={tag}"));
                assert_eq!(request.field("x-graygate-event").unwrap(), "test");
                assert_eq!(body["id"], request.field("x-graygate-delivery").unwrap());
                assert_eq!(
                    (&body["event"], &body["service"]),
                    (&json!("test"), &json!("default"))
                );
                &body["text"]
            }
            "slack" => &body["text"],
            "dingtalk" => {
                let (name, timestamp) = pairs.next().unwrap();
                assert_eq!(name, "timestamp");
                assert!(timestamp.parse::<u128>().unwrap() > past.as_millis());
                let tag = hmac(
                    SECRET.as_bytes(),
                    format!("{timestamp}\n{SECRET}").as_bytes(),
                );
                assert_eq!(
                    pairs.next(),
                    Some(("sign".to_owned(), STANDARD.encode(tag)))
                );
                assert_eq!(body["msgtype"], "text");
                &body["text"]["content"]
            }
            "feishu" => {
                let timestamp = body["timestamp"].as_str().unwrap();
                assert!(timestamp.parse::<u64>().unwrap() > past.as_secs());
                let tag = hmac(format!("{timestamp}\n{SECRET}").as_bytes(), b"");
                assert_eq!(body["sign"], STANDARD.encode(tag));
                assert_eq!(body["msg_type"], "text");
                &body["content"]["text"]
            }
            _ => {
                assert_eq!(body["msgtype"], "text");
                &body["text"]["content"]
            }
        };
        assert_eq!(pairs.next(), None);
        let text = text.as_str().unwrap();
        assert!(
            text.starts_with("Graygate ") && text.contains(": this is a test"),
            "{text}"
        );
    }
}

#[test]
fn a_test_message_that_is_not_taken_says_why_and_nothing_secret() {
    let not_found = b"HTTP/1.1 404 No\r\nContent-Length: 50\r\n\r\nCannot POST /hook/token-in-path?key=token-in-query\n";
    let receiver = Origin::saying(not_found);
    let (code, out, err) = test_message(&with_format(&receiver, "json"), &["--json"]);
    let page: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 1);
    assert_eq!(page["url"], format!("http://{receiver}/(hidden)"));
    let why = "it has answered 404: Cannot POST /hook/(hidden)?key=(hidden)";
    assert_eq!(page["error"], why);
    assert_eq!(
        err,
        format!("graygate: http://{receiver}/(hidden): {why}\n")
    );

    let receiver = Origin::saying(ok("{\"errcode\":310000,\"errmsg\":\"sign not match\"}"));
    let (code, _, err) = test_message(&with_format(&receiver, "dingtalk"), &[]);
    assert_eq!(code, 1);
    assert!(
        err.contains("with errcode 310000") && err.contains("sign not match"),
        "{err}"
    );

    // A redirect would carry the secret elsewhere.
    let elsewhere = Origin::saying(ok(""));
    let moved =
        format!("HTTP/1.1 307 Go\r\nLocation: http://{elsewhere}/\r\nContent-Length: 0\r\n\r\n");
    let receiver = Origin::saying(moved);
    let (code, _, err) = test_message(&with_format(&receiver, "json"), &[]);
    assert!(code == 1 && err.contains("it has answered 307"), "{err}");
    assert_eq!(elsewhere.accepted(), 0);

    let setup = Setup::new();
    let (code, _, err) = test_message(&setup, &[]);
    assert!(
        code == 1 && err.contains("[verdict] webhook is empty"),
        "{err}"
    );
    let setup = with_format(&receiver, "json").file("secret", "short\n");
    let (code, _, err) = test_message(&setup, &[]);
    assert!(code == 1 && err.contains("webhook_secret_file: "), "{err}");
    let setup = with_format(&receiver, "slack").set("verdict.webhook_secret_file", "secret");
    let (code, _, err) = test_message(&setup, &[]);
    assert!(
        code == 1 && err.contains("has its secret in the URL"),
        "{err}"
    );
}

/// Clients in 10.1.0.0/16 get the new version.
fn judged(setup: Setup) -> Setup {
    let setup = setup.one_worker().set("verdict.tolerate", "50%");
    let setup = setup.set("gateway.trusted_proxies", "127.0.0.0/8");
    setup.set("upstream.max_fails", 0)
}

/// One of which `pre` is found good enough as soon as it was asked.
fn gateway(setup: Setup, origin: &Origin) -> Gateway {
    judged(setup)
        .lists(&["10.1.0.0/16"], &[origin], &[origin])
        .start()
}

/// Requests of forty clients of each version.
fn load(gateway: &Gateway, round: usize) {
    const CLIENTS: usize = 40;
    let mut requests = String::new();
    for number in 0..CLIENTS {
        for net in [1, 2] {
            let (round, number) = (round % 250, number + 1);
            requests += &format!(
                "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.{net}.{round}.{number}\r\n\r\n"
            );
        }
    }
    let mut client = gateway.connect();
    client.send(requests);
    for _ in 0..2 * CLIENTS {
        client.response();
    }
}

/// Asks until `pre` is found good enough.
#[track_caller]
fn find_good(gateway: &Gateway) {
    let mut round = 0;
    wait_until("good enough", DEADLINE, || {
        load(gateway, round);
        round += 1;
        gateway.stderr.count("verdict-good") > 0
    });
}

fn events(receiver: &Origin) -> Vec<Value> {
    let requests = receiver.requests();
    let bodies = requests
        .iter()
        .map(|it| serde_json::from_slice(&it.content).unwrap());
    bodies.collect()
}

fn total(result: &str) -> String {
    format!("graygate_webhook_total{{result=\"{result}\"}}")
}

/// Nothing that the gateway has said is secret.
#[track_caller]
fn expect_no_secret(gateway: &Gateway) {
    let (_, config) = gateway.admin_get("/config");
    assert!(config.contains("/(hidden)"), "{config}");
    let lines = gateway.stderr.all().join("\n");
    for secret in SECRETS {
        assert!(
            !config.contains(secret) && !lines.contains(secret),
            "{lines}"
        );
    }
}

#[test]
fn what_is_not_taken_is_tried_again_and_is_the_same_message() {
    let origin = Origin::named("fine");
    let asked = AtomicUsize::new(0);
    let receiver = Origin::answering(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => {
            let said = format!("{SECRET} token-in-query oops");
            let length = said.len();
            format!("HTTP/1.1 500 No\r\nContent-Length: {length}\r\n\r\n{said}").into_bytes()
        }
        _ => ok("taken"),
    });
    let setup = with_format(&receiver, "json").set("log.level", "debug");
    let gateway = gateway(setup, &origin);
    find_good(&gateway);
    let line = gateway.wait_for_log("webhook-failed notice=good");
    assert!(
        line.contains(&format!("url=http://{receiver}/(hidden) ")),
        "{line}"
    );
    assert!(
        line.contains("it has answered 500") && line.contains("tries=1 again_in="),
        "{line}"
    );
    gateway.wait_for_log("webhook-delivered notice=good status=200 tries=2");
    let [first, second] = &events(&receiver)[..] else {
        panic!("two attempts");
    };
    assert_eq!(first, second);
    assert_eq!(first["event"], "good");
    let text = first["text"].as_str().unwrap();
    assert!(text.contains(": pre is good enough. 0 of "), "{text}");
    assert!(first["numbers"]["pre_units"].as_u64() >= Some(6), "{first}");
    for (result, count) in [
        ("delivered", 1.0),
        ("retried", 1.0),
        ("failed", 0.0),
        ("dropped", 0.0),
    ] {
        gateway.wait_for_metric(&total(result), count);
    }
    expect_no_secret(&gateway);
}

#[test]
fn a_receiver_that_is_away_gets_it_later_and_a_reload_names_another_one_at_once() {
    let origin = Origin::named("fine");
    let (dead, receiver) = (free_address(), Origin::saying(ok("")));
    let setup = Setup::new().set("verdict.webhook", url(&dead));
    let mut gateway = gateway(setup, &origin);
    find_good(&gateway);
    let line = gateway.wait_for_log("webhook-failed notice=good");
    assert!(line.contains("again_in="), "{line}");
    wait_until("two attempts", DEADLINE, || {
        gateway.metric(&total("retried")) >= 2.0
    });
    // The next one would be seconds later.
    gateway.edit_ini(|it| it.set("verdict.webhook", url(&receiver)));
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_log("reloaded ");
    let begun = Instant::now();
    gateway.wait_for_log("webhook-delivered notice=good");
    assert!(begun.elapsed() < Duration::from_secs(2));
    // However often it has failed, that was one trouble.
    assert_eq!(gateway.stderr.count("webhook-failed"), 1);
    assert_eq!(events(&receiver).len(), 1);
    expect_no_secret(&gateway);
}

#[test]
fn what_would_not_be_taken_later_either_is_given_up_at_once() {
    let origin = Origin::named("fine");
    for (format, answer) in [
        (
            "json",
            b"HTTP/1.1 400 No\r\nContent-Length: 3\r\n\r\nbad".to_vec(),
        ),
        (
            "wecom",
            ok("{\"errcode\":93000,\"errmsg\":\"invalid webhook url\"}"),
        ),
    ] {
        let receiver = Origin::saying(answer);
        let gateway = gateway(with_format(&receiver, format), &origin);
        find_good(&gateway);
        let line = gateway.wait_for_log("webhook-failed notice=good");
        assert!(line.contains("tries=1 effect=\"it is not told\""), "{line}");
        gateway.wait_for_metric(&total("failed"), 1.0);
        gateway.end();
        assert_eq!(receiver.requests().len(), 1);
    }
}

#[test]
fn the_end_of_the_gateway_does_not_wait_for_a_receiver_that_is_silent() {
    let (origin, receiver) = (Origin::named("fine"), Origin::mute());
    let setup = Setup::new().set("verdict.webhook", url(&receiver));
    let mut gateway = gateway(setup.set("verdict.webhook_timeout", "60s"), &origin);
    find_good(&gateway);
    receiver.wait("it is asked", |it| it.accepted == 1);
    let begun = Instant::now();
    gateway.signal(Signal::SIGTERM);
    assert!(gateway.wait_exit().success());
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    gateway.wait_for_log("webhook-failed error=\"the gateway ends\" waiting=1");
}

#[test]
fn of_three_gateways_that_hold_a_trip_the_one_that_has_written_it_tells_it_and_its_end() {
    let (prod, receiver) = (Origin::named("fine"), Origin::saying(ok("")));
    let pre = Origin::saying(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec());
    let redis = Redis::start();
    redis.push("gray", &[&"10.1.0.0/16"]);
    redis.push_peers(&pre, &prod);
    let start = |node: &str| {
        let setup = judged(Setup::new())
            .redis(redis.url())
            .set("redis.node", node);
        let setup = setup.set("verdict.webhook", url(&receiver));
        setup.set("verdict.mode", "enforce").start()
    };
    let gateways = ["a", "b", "c"].map(start);
    let tripped = |gateway: &Gateway| gateway.metric("graygate_tripped") == 1.0;
    let mut round = 0;
    wait_until("taken back", DEADLINE, || {
        // Two of them see enough for themselves.
        gateways[..2].iter().for_each(|it| load(it, round));
        round += 1;
        gateways.iter().all(tripped)
    });
    let of_trips = || -> Vec<Value> {
        let all = events(&receiver).into_iter();
        all.filter(|it| ["tripped", "trip-reset"].contains(&it["event"].as_str().unwrap()))
            .collect()
    };
    wait_until("it is told", DEADLINE, || !of_trips().is_empty());
    let text = redis.cli(&["GET", "graygate:tripped"]);
    let text: String = redis::from_redis_value(text).unwrap();
    let trip: Value = serde_json::from_str(&text).unwrap();
    let told = &of_trips()[0];
    assert_eq!(
        (&told["event"], &told["by"]),
        (&json!("tripped"), &trip["by"])
    );
    assert_eq!((&told["node"], &told["at"]), (&trip["by"], &trip["at"]));
    assert_eq!(
        (&told["release"], &told["numbers"]),
        (&trip["release"], &trip["numbers"])
    );
    // Evidence begins anew, so that it is not taken back at once again.
    let epoch = "{\"epoch\":\"0123456789abcdef\"}";
    redis.cli(&["SET", "graygate:release", epoch]);
    redis.cli(&["DEL", "graygate:tripped"]);
    for gateway in &gateways {
        gateway.wait_for_log("trip-reset");
    }
    wait_until("its end is told", DEADLINE, || of_trips().len() == 2);
    // What the others had to say would be said by now: at their ends, they say what waits.
    gateways.into_iter().for_each(Gateway::end);
    let told = of_trips();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(
        (&told[1]["event"], &told[1]["node"]),
        (&json!("trip-reset"), &trip["by"])
    );
}
