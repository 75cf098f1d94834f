//! Telling people: what each receiver gets, signed as it wants it; again where it was not taken, and not
//! where that would not help; once, however many gateways know.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::VecDeque;
use std::fmt::Display;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::{
    Authority, DEADLINE, Gateway, Origin, Redis, Request, Setup, Validity, free_address, ok,
    run_to_exit, wait_until,
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

/// The gateway of this name, which hears of the others soon.
fn one_of_several(node: &str, redis: &Redis, receiver: &Origin) -> Gateway {
    let setup = judged(Setup::new()).redis(redis.url());
    let setup = setup
        .set("redis.node", node)
        .set("redis.heartbeat", "500ms");
    setup.set("verdict.webhook", url(receiver)).start()
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

#[test]
fn of_three_gateways_that_find_the_same_the_first_tells_it_and_the_next_where_that_is_gone() {
    let (prod, receiver) = (Origin::named("fine"), Origin::saying(ok("")));
    let versions = ["1.6", "1.7", "1.8"].map(Origin::named);
    let redis = Redis::start();
    redis.push("gray", &[&"10.1.0.0/16"]);
    redis.push_peers(&versions[0], &prod);
    let mut gateways =
        VecDeque::from(["a", "b", "c"].map(|it| one_of_several(it, &redis, &receiver)));
    let told = || -> Vec<Value> {
        let all = events(&receiver).into_iter();
        let all = all.filter(|it| it["event"] == "good");
        all.map(|it| it["node"].clone()).collect()
    };
    let mut round = 0;
    for (at, version) in versions.iter().enumerate() {
        if at > 0 {
            // One ends, and one is killed.
            let gone = gateways.pop_front().unwrap();
            match at {
                1 => gone.end(),
                _ => gone.signal(Signal::SIGKILL),
            }
            redis.push("pre", &[version]);
        }
        // Each of them has counted something, finds it, and would say so.
        wait_until("it is told", DEADLINE, || {
            for gateway in &gateways {
                load(gateway, round);
            }
            round += 1;
            let all_find = gateways
                .iter()
                .all(|it| it.stderr.count("verdict-good") > at);
            all_find && told().len() > at
        });
    }
    // What another one has to say of a version is due before anything is of the next one.
    assert_eq!(told(), ["a", "b", "c"]);
}

#[test]
fn a_gateway_that_serves_nobody_knows_what_another_one_sees_and_tells_people_of_it() {
    let (prod, receiver) = (Origin::named("fine"), Origin::saying(ok("")));
    let pre = Origin::saying(*b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    let redis = Redis::start();
    redis.push("gray", &[&"10.1.0.0/16"]);
    redis.push_peers(&pre, &prod);
    // By its name, it is the one that tells people.
    let [idle, busy] = ["a", "b"].map(|it| one_of_several(it, &redis, &receiver));
    let told = || {
        events(&receiver)
            .into_iter()
            .find(|it| it["event"] == "worse")
    };
    let mut round = 0;
    wait_until("it is told", DEADLINE, || {
        load(&busy, round);
        round += 1;
        told().is_some()
    });
    assert_eq!(told().unwrap()["node"], "a");
    let (_, page) = idle.admin_get("/verdict");
    let page: Value = serde_json::from_str(&page).unwrap();
    let of = &page["services"][0];
    assert_eq!(
        (&of["state"], &of["gateways"]),
        (&json!("worse"), &json!(2))
    );
    assert_eq!(of["failing"]["own_pre_units"], 0, "{of}");
    assert!(of["failing"]["pre_units"].as_u64() > Some(10), "{of}");
}

/// A receiver with this certificate, which takes whatever is posted.
fn secure_receiver((cert, key): (impl AsRef<Path>, impl AsRef<Path>)) -> SocketAddr {
    let cert = CertificateDer::from_pem_file(cert).unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![cert], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
            let mut received = Vec::new();
            let mut piece = [0; 4096];
            // Whoever does not trust it goes away; a message ends with its text.
            while let Ok(count @ 1..) = stream.read(&mut piece) {
                received.extend_from_slice(&piece[..count]);
                if received.ends_with(b"}") {
                    let _ = stream.write_all(&ok("taken"));
                    let _ = stream.flush();
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                    break;
                }
            }
        }
    });
    address
}

#[test]
fn a_receiver_with_tls_is_trusted_by_the_authorities_that_are_named_and_by_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let [own, other] = ["own", "other"].map(|it| Authority::new(folder.path(), it));
    let hosts = |it: &str| vec![it.to_owned()];
    let good = secure_receiver(own.vouch("good", &hosts("127.0.0.1"), Validity::Now));
    let of_another_host = secure_receiver(own.vouch("moved", &hosts("h.example"), Validity::Now));
    let past = secure_receiver(own.vouch("past", &hosts("127.0.0.1"), Validity::Past));
    let to = |receiver: SocketAddr| {
        let url = format!("https://{receiver}/hook/token-in-path?key=token-in-query");
        Setup::new().set("verdict.webhook", url)
    };
    let with =
        |receiver, ca: &Authority| to(receiver).set("verdict.webhook_ca", ca.file().display());
    let (code, out, err) = test_message(&with(good, &own), &[]);
    assert_eq!((code, &*err), (0, ""));
    assert!(
        out.contains("answered 200") && out.contains("taken"),
        "{out}"
    );
    for (setup, why) in [
        (to(good), "certificate"),
        (with(good, &other), "certificate"),
        (with(of_another_host, &own), "not valid for name"),
        (with(past, &own), "expired"),
        (to(good).set("verdict.webhook_ca", "missing"), "/missing: "),
        (
            to(good).file("none", "").set("verdict.webhook_ca", "none"),
            "/none: ",
        ),
    ] {
        let (code, _, err) = test_message(&setup, &[]);
        assert!(code == 1 && err.contains(why), "{why}: {err}");
        assert!(
            err.contains(&format!("https://{}/(hidden): ", url_host(&setup))),
            "{err}"
        );
    }
    // Without a name they are the system's, or those of the environment.
    let ini = to(good);
    let ini = ini.write_ini();
    let output = Command::new(env!("CARGO_BIN_EXE_graygate"))
        .args(["verdict", "notify", "--test", "-c"])
        .arg(ini)
        .env("SSL_CERT_FILE", own.file())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// The host of the webhook, with its port.
fn url_host(setup: &Setup) -> String {
    let url = setup.setting("verdict.webhook").unwrap();
    url.split('/').nth(2).unwrap().to_owned()
}

#[test]
fn a_receiver_that_hangs_blocks_nothing_and_what_does_not_fit_into_the_queue_is_counted() {
    const SERVICES: usize = 120;
    let (origin, receiver) = (Origin::named("fine"), Origin::mute());
    let mut lists = format!("[gray]\n[pre]\n[prod]\n{origin}\n");
    let mut setup = judged(Setup::new().set("verdict.webhook", url(&receiver)));
    for at in 0..SERVICES {
        setup = setup.set(&format!("service s{at}.paths"), format!("/s{at}/"));
        lists +=
            &format!("[s{at} gray]\n10.1.0.0/16\n[s{at} pre]\n{origin}\n[s{at} prod]\n{origin}\n");
    }
    let setup = setup.set("verdict.webhook_timeout", "60s");
    let mut gateway = setup.file("lists", &lists).start();
    let mut client = gateway.connect();
    let mut round = 0;
    wait_until("all are good", 2 * DEADLINE, || {
        round += 1;
        for at in 0..SERVICES {
            let mut requests = String::new();
            for client in 1..=8 {
                for net in [1, 2] {
                    requests += &format!(
                        "GET /s{at}/ HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.{net}.{round}.{client}\r\n\r\n"
                    );
                }
            }
            client.send(requests);
            (0..16).for_each(|_| drop(client.response()));
        }
        gateway.stderr.count("verdict-good") == SERVICES
    });
    gateway.wait_for_metric(&total("dropped"), 20.0);
    let line = gateway.wait_for_log("webhook-failed notice=good");
    assert!(
        line.contains("100 others wait") && line.contains("it is not told"),
        "{line}"
    );
    // Once.
    assert_eq!(gateway.stderr.count("webhook-failed"), 1);
    assert_eq!(receiver.accepted(), 1);
    // All else goes on: requests, pages, settings, also that of another receiver.
    let next = Origin::saying(ok(""));
    gateway.edit_ini(|it| it.set("verdict.webhook_timeout", "300ms"));
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_log("reloaded ");
    assert_eq!(gateway.get("127.0.0.1", "/").text(), "fine");
    drop(receiver);
    gateway.edit_ini(|it| it.set("verdict.webhook", url(&next)));
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_metric(&total("delivered"), 100.0);
    assert_eq!(events(&next).len(), 100);
    let services: std::collections::BTreeSet<String> = events(&next)
        .iter()
        .map(|it| it["service"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(services.len(), 100, "each once");
    expect_no_secret(&gateway);
}

#[test]
fn a_receiver_that_does_not_answer_in_time_is_asked_again() {
    let origin = Origin::named("fine");
    let receiver = Origin::mute();
    let setup = Setup::new().set("verdict.webhook", url(&receiver));
    let setup = setup.set("verdict.webhook_timeout", "200ms");
    let gateway = gateway(setup.set("log.level", "debug"), &origin);
    find_good(&gateway);
    let line = gateway.wait_for_log("webhook-failed notice=good");
    assert!(
        line.contains("timeout") && line.contains("again_in="),
        "{line}"
    );
    receiver.wait("it is asked again", |it| it.accepted >= 2);
    expect_no_secret(&gateway);
}

#[test]
fn a_gateway_that_cannot_write_its_trip_tells_it_and_says_that_it_is_alone() {
    let (prod, receiver) = (Origin::named("fine"), Origin::saying(ok("")));
    let pre = Origin::saying(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec());
    let mut redis = Redis::start();
    redis.push("gray", &[&"10.1.0.0/16"]);
    redis.push_peers(&pre, &prod);
    let setup = judged(Setup::new()).redis(redis.url());
    let setup = setup
        .set("redis.node", "lonely")
        .set("verdict.webhook", url(&receiver));
    let gateway = setup.set("verdict.mode", "enforce").start();
    gateway.wait_for_lists("the lists", |it| it["generation"] != 0);
    redis.kill();
    gateway.wait_for_log("lists-unreadable");
    let mut round = 0;
    wait_until("taken back", DEADLINE, || {
        load(&gateway, round);
        round += 1;
        gateway.metric("graygate_tripped") == 1.0
    });
    let begun = Instant::now();
    let tripped = || -> Vec<Value> {
        let all = events(&receiver).into_iter();
        all.filter(|it| it["event"] == "tripped").collect()
    };
    wait_until("it is told", 2 * DEADLINE, || !tripped().is_empty());
    // It was given the time to write it.
    assert!(
        begun.elapsed() > Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    let told = tripped();
    let text = told[0]["text"].as_str().unwrap();
    assert!(
        text.contains("from this gateway, and the others do not know yet"),
        "{text}"
    );
    assert_eq!(told[0]["by"], "lonely");
    // Nothing is told twice.
    redis.restart();
    redis.push("gray", &[&"10.1.0.0/16"]);
    redis.push_peers(&pre, &prod);
    gateway.wait_for_log("trip-written");
    gateway.end();
    assert_eq!(tripped().len(), 1);
}

#[test]
fn a_trip_that_the_store_has_lost_is_written_again_by_anybody_and_not_told_again() {
    let (prod, receiver) = (Origin::named("fine"), Origin::saying(ok("")));
    let pre = Origin::saying(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec());
    let redis = Redis::start();
    let fill = || {
        redis.push("gray", &[&"10.1.0.0/16"]);
        redis.push_peers(&pre, &prod);
    };
    fill();
    let start = |node: &str| {
        let setup = judged(Setup::new()).redis(redis.url());
        let setup = setup
            .set("redis.node", node)
            .set("redis.check_interval", "300ms");
        let setup = setup.set("verdict.webhook", url(&receiver));
        setup.set("verdict.mode", "enforce").start()
    };
    let (finder, other) = (start("finder"), start("other"));
    let mut round = 0;
    wait_until("taken back", DEADLINE, || {
        load(&finder, round);
        round += 1;
        [&finder, &other]
            .iter()
            .all(|it| it.metric("graygate_tripped") == 1.0)
    });
    let tripped = || -> Vec<Value> {
        let all = events(&receiver).into_iter();
        all.filter(|it| it["event"] == "tripped").collect()
    };
    wait_until("it is told", DEADLINE, || !tripped().is_empty());
    other.wait_for_lists("the store has it", |it| it["tripped"]["stored"] == true);
    // Who has found it is gone, and the server loses all.
    finder.end();
    redis.cli(&["FLUSHALL"]);
    other.wait_for_log("trip-unwritten");
    fill();
    other.wait_for_log("trip-written");
    assert_eq!(other.metric("graygate_tripped"), 1.0);
    other.end();
    let told = tripped();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["by"], "finder");
}
