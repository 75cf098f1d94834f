//! `graygate lists show`, `lists diff` and `explain`: asked of the running gateway, and offline of
//! the configured store.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::json;
use support::{Gateway, Redis, Setup, run_to_exit};

/// Runs a command on the ini file of `gateway`; returns what it says, and whether it is content.
fn run(gateway: &Gateway, arguments: &[&str]) -> (String, bool) {
    // By its socket: the ports that it has found are in no file.
    let path = gateway.path("graygate.ini");
    let config = path.to_str().unwrap();
    let output = run_to_exit(&[arguments, &["-c", config]].concat());
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8(said).unwrap(), output.status.success())
}

fn redis() -> Redis {
    let redis = Redis::start();
    redis.push(
        "gray",
        &[&"127.0.0.5", &"10.0.0.0/8", &"10.1.2.3", &"nonsense"],
    );
    redis.push("pre", &[&"127.0.1.1:81"]);
    redis.push("prod", &[&"127.0.2.1", &"127.0.2.2"]);
    redis
}

fn start(redis: &Redis) -> Gateway {
    Setup::new()
        .redis(redis.url())
        .set("redis.check_interval", "1h")
        .set("gateway.trusted_proxies", "127.0.0.99")
        .start()
}

#[test]
fn what_is_shown_is_a_lists_file_with_the_same_digest_wherever_it_comes_from() {
    let redis = redis();
    let gateway = start(&redis);
    gateway.wait_for_lists("the lists", |page| page["generation"] == 1);
    let (live, offline) = (
        run(&gateway, &["lists", "show"]),
        run(&gateway, &["lists", "show", "--offline"]),
    );
    let digest = gateway.lists()["digest"].as_str().unwrap().to_owned();
    for (text, good) in [&live, &offline] {
        assert!(good, "{text}");
        let lists: Vec<&str> = text.lines().filter(|it| !it.starts_with('#')).collect();
        let expected =
            "[gray] 10.0.0.0/8 10.1.2.3 127.0.0.5 [pre] 127.0.1.1:81 [prod] 127.0.2.1 127.0.2.2";
        assert_eq!(lists.join(" "), expected);
        assert!(text.contains(&digest), "{text}");
    }
    assert!(live.0.contains("mode events"), "{}", live.0);
    // It can be used as it is.
    std::fs::write(gateway.path("lists"), live.0).unwrap();
    let again = Setup::new()
        .set("lists.file", gateway.path("lists").display())
        .start();
    assert_eq!(again.lists()["digest"], digest.as_str());
}

#[test]
fn a_difference_is_told_entry_by_entry() {
    // Nothing is announced, so the gateway keeps what it has.
    let redis = Redis::start_with_options(&["--rename-command", "CONFIG", ""]);
    redis.push("prod", &[&"127.0.2.1", &"127.0.2.2"]);
    redis.push("gray", &[&"127.0.0.5"]);
    let gateway = Setup::new()
        .redis(redis.url())
        .set("redis.notify", "poll")
        .set("redis.poll_interval", "1h")
        .start();
    gateway.wait_for_lists("the lists", |page| page["generation"] == 1);
    let (text, same) = run(&gateway, &["lists", "diff"]);
    assert!(same && text.starts_with("the same: "), "{text}");
    redis.cli(&["RPUSH", "gray", "127.0.0.6"]);
    redis.cli(&["LREM", "prod", "0", "127.0.2.1"]);
    let (text, same) = run(&gateway, &["lists", "diff"]);
    assert!(!same);
    let lines: Vec<&str> = text.lines().take(2).collect();
    assert_eq!(lines, ["+ gray 127.0.0.6", "- prod 127.0.2.1"]);
    assert!(text.contains("different: the gateway holds "), "{text}");
}

#[test]
fn a_difference_that_waits_is_told_with_its_reason() {
    let redis = redis();
    let gateway = start(&redis);
    gateway.wait_for_lists("the lists", |page| page["generation"] == 1);
    let mut change = redis::pipe();
    change.atomic();
    for (key, entry) in [("gray", "garbage"), ("prod", "127.0.2.3")] {
        change.cmd("DEL").arg(key).ignore();
        change.cmd("RPUSH").arg(key).arg(entry).ignore();
    }
    change.exec(&mut redis.connect(0)).unwrap();
    let page = gateway.wait_for_lists("both wait", |page| {
        let kept = json!([{ "list": "gray", "fault": "all-skipped" }]);
        page["kept"] == kept && page["held"] != json!([])
    });
    let digest = page["held"][0]["digest"].as_str().unwrap();
    let (text, same) = run(&gateway, &["lists", "diff"]);
    assert!(!same && text.contains("+ prod 127.0.2.3\n"), "{text}");
    for line in [
        &format!("prod is held: removes-peers; to accept it: graygate lists accept {digest}"),
        "gray is kept, since the store has: all-skipped",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}: {text}");
    }
}

#[test]
fn a_difference_says_so_where_the_gateway_reads_another_store() {
    let (redis, other) = (redis(), redis());
    let mut gateway = start(&redis);
    gateway.wait_for_lists("the lists", |page| page["generation"] == 1);
    let (text, same) = run(&gateway, &["lists", "diff"]);
    assert!(same && text.lines().count() == 1, "{text}");
    gateway.edit_ini(|it| it.set("redis.url", other.url()));
    let (text, same) = run(&gateway, &["lists", "diff"]);
    // The same lists are there.
    assert!(same, "{text}");
    let (ours, theirs) = (redis.url(), other.url());
    let said = format!("the gateway reads {ours}, not {theirs} ");
    assert!(text.contains(&said), "{text}");
}

#[test]
fn a_change_that_is_in_force_already_is_accepted_by_a_word() {
    let redis = redis();
    let gateway = start(&redis);
    gateway.wait_for_lists("the lists", |page| page["generation"] == 1);
    redis.cli(&["DEL", "prod"]);
    let page = gateway.wait_for_lists("held", |page| page["held"] != json!([]));
    let digest = page["held"][0]["digest"].as_str().unwrap();
    // By hand, case and space come as they like.
    let written = format!(" {}\n", digest.to_uppercase());
    redis.cli(&["SET", "graygate:accept", &written]);
    let accepted = format!("change-accepted list=prod digest={digest} by=key");
    gateway.wait_for_log(&accepted);
    gateway.wait_for_lists("in force", |page| page["prod"] == json!([]));
    for named in [digest, &written] {
        let (text, good) = run(&gateway, &["lists", "accept", named]);
        let said = format!("in force already list=prod digest={digest} generation=2\n");
        assert!(good && text == said, "{text}");
    }
    let (text, good) = run(&gateway, &["lists", "accept", "0123456789abcdef"]);
    assert!(!good && text.contains("is not held; nothing is"), "{text}");
}

#[test]
fn an_explanation_names_the_client_the_entry_and_the_peers() {
    let redis = redis();
    let gateway = start(&redis);
    gateway.wait_for_lists("the lists", |page| page["generation"] == 1);
    let table: [(&[&str], &[&str]); 10] = [
        (
            &["127.0.0.5"],
            &[
                "entry       127.0.0.5",
                "pre (listed)",
                "peers       127.0.1.1:81",
                "fallback    127.0.2.1:80 127.0.2.2:80 (prod)",
            ],
        ),
        (
            &["::ffff:127.0.0.5"],
            &["client      127.0.0.5", "pre (listed)"],
        ),
        (
            &["127.0.0.99", "--header", "X-Forwarded-For: 127.0.0.5:51234"],
            &[
                "X-Forwarded-For is believed",
                "client      127.0.0.5",
                "pre (listed)",
            ],
        ),
        (
            &[
                "127.0.0.99",
                "--header",
                "X-Forwarded-For: 127.0.0.5, unknown",
            ],
            &[
                "X-Forwarded-For is not believed: malformed-chain: ",
                ": \"unknown\"",
                "client      127.0.0.99",
            ],
        ),
        (
            &["127.0.0.99", "--header", "X-Real-IP: 127.0.0.5"],
            &[
                "X-Forwarded-For is not believed: no-chain: ",
                "client      127.0.0.99",
            ],
        ),
        (&["127.0.0.99"], &["X-Forwarded-For names nobody"]),
        // The most specific entry.
        (&["10.1.2.3"], &["entry       10.1.2.3"]),
        (&["10.1.2.4"], &["entry       10.0.0.0/8"]),
        (
            &["192.0.2.1", "--header", "X-Forwarded-For: 127.0.0.5"],
            &[
                "not a trusted proxy",
                "entry       -",
                "prod (unlisted)",
                "127.0.2.1:80 127.0.2.2:80",
            ],
        ),
        (
            &[
                "127.0.0.99",
                "--header",
                "X-Forwarded-For: 192.0.2.1",
                "--header",
                "x-forwarded-for: 127.0.0.5",
            ],
            &["a trusted proxy", "client      127.0.0.5", "pre (listed)"],
        ),
    ];
    for (question, expected) in table {
        for whom in [&[][..], &["--offline"]] {
            let (text, good) = run(&gateway, &[&["explain"], question, whom].concat());
            assert!(good, "{question:?}: {text}");
            for part in expected {
                assert!(text.contains(part), "{question:?} {whom:?}: {text}");
            }
        }
    }
    // Only a gateway counts generations.
    for (whom, generation) in [
        (&[][..], "generation  1, "),
        (&["--offline"], "generation  -, "),
    ] {
        let (text, _) = run(&gateway, &[&["explain", "127.0.0.5"], whom].concat());
        assert!(text.contains(generation), "{text}");
    }
    let (text, _) = run(&gateway, &["explain", "192.0.2.1"]);
    assert!(!text.contains("fallback"), "{text}");
    for (question, said) in [
        (&["192.0.2.1", "--header", "no field"][..], "bad-field"),
        (
            &["192.0.2.1", "--header", "A: b\r\n\r\n"],
            "a header with a control character in it: \"A: b\\r\\n\\r\\n\"",
        ),
        (
            &[
                "127.0.0.99",
                "--header",
                "A: b\r\nX-Forwarded-For: 127.0.0.5",
            ],
            "a header with a control character in it: \"A: b\\r\\n",
        ),
        (
            &["192.0.2.1", "--header", "A: b\nB: c"],
            "a header with a control character in it: \"A: b\\nB: c\"",
        ),
        (&["192.0.2.1", "--header", "A: b\u{1b}"], "u{1b}"),
        (&["192.0.2.1", "--header", ""], "an empty header"),
        (&["192.0.2.1", "--header", "Host: b"], "many-hosts"),
    ] {
        for whom in [&[][..], &["--offline"]] {
            let (text, good) = run(&gateway, &[&["explain"], question, whom].concat());
            assert!(
                !good && text.contains(said),
                "{question:?} {whom:?}: {text}"
            );
        }
    }
}

#[test]
fn status_tells_of_a_trusted_proxy_that_was_not_believed() {
    let redis = redis();
    let gateway = start(&redis);
    gateway.wait_for_lists("the lists", |page| page["generation"] == 1);
    let (text, good) = run(&gateway, &["status"]);
    assert!(good && !text.contains("finding"), "{text}");
    let mut proxy = gateway.connect_from("127.0.0.99");
    proxy.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: unknown\r\n\r\n");
    let (text, good) = run(&gateway, &["status"]);
    let said = "finding     proxy-not-believed: 127.0.0.99 was not believed ";
    let is_told = text.lines().any(|it| it.starts_with(said));
    assert!(good && is_told, "{text}");
}

#[test]
fn a_gray_client_has_no_other_peers_where_there_is_no_fallback() {
    let redis = redis();
    let gateway = Setup::new()
        .redis(redis.url())
        .set("upstream.fallback", "off")
        .start();
    gateway.wait_for_lists("the lists", |page| page["generation"] == 1);
    for whom in [&[][..], &["--offline"]] {
        let (text, good) = run(&gateway, &[&["explain", "127.0.0.5"], whom].concat());
        assert!(good && text.contains("pre (listed)"), "{text}");
        assert!(!text.contains("127.0.2.1"), "{text}");
    }
}

#[test]
fn a_gateway_without_lists_explains_that() {
    let redis = Redis::stopped();
    let gateway = Setup::new()
        .redis(redis.url())
        .set("redis.timeout", "300ms")
        .start();
    let (text, good) = run(&gateway, &["explain", "127.0.0.5"]);
    assert!(good && text.contains("served by   503 no-lists"), "{text}");
    let (text, good) = run(&gateway, &["explain", "127.0.0.5", "--offline"]);
    assert!(!good && text.contains("redis://"), "{text}");
    // An empty lists file would look like lists that are empty.
    for command in ["show", "diff"] {
        let (text, good) = run(&gateway, &["lists", command]);
        let said = format!("the gateway has read no lists from {}: ", redis.url());
        assert!(!good && text.contains(&said), "{text}");
        assert!(!text.contains("[gray]"), "{text}");
    }
    assert_eq!(gateway.admin_get("/explain").0, 400);
    assert_eq!(gateway.admin_get("/explain?ip=x").0, 400);
}

#[test]
fn status_is_one_page_with_all_that_is_out_of_the_ordinary() {
    let redis = redis();
    let gateway = start(&redis);
    gateway.wait_for_lists("the lists", |page| page["generation"] == 1);
    let line = |text: &str, label: &str| {
        let mut lines = text.lines().filter_map(|it| it.split_once(' '));
        let found = lines.find(|(it, _)| *it == label);
        found.map(|(_, what)| what.trim().to_owned())
    };
    let (text, good) = run(&gateway, &["status"]);
    assert!(good, "{text}");
    let source = line(&text, "source").unwrap();
    assert!(source.contains(" (events), read "), "{text}");
    assert_eq!(line(&text, "entries").unwrap(), "gray 3, pre 1, prod 2");
    let skipped = "gray: 1, first \"nonsense\": ";
    assert!(
        line(&text, "skipped").unwrap().starts_with(skipped),
        "{text}"
    );
    for quiet in ["kept", "held", "copy", "heartbeat"] {
        assert_eq!(line(&text, quiet), None, "{text}");
    }

    redis.cli(&["DEL", "pre", "prod"]);
    redis.cli(&["SET", "pre", "text"]);
    gateway.wait_for_lists("trouble", |page| {
        page["kept"] != serde_json::json!([]) && page["held"] != serde_json::json!([])
    });
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    gateway.wait_for_log("heartbeat-refused");
    let (text, good) = run(&gateway, &["status"]);
    assert!(good, "{text}");
    let kept = "pre, since the store has: wrong-type";
    assert_eq!(line(&text, "kept").unwrap(), kept, "{text}");
    let held = line(&text, "held").unwrap();
    assert!(
        held.starts_with("prod: empties-prod; to accept it: graygate lists accept "),
        "{text}"
    );
    let heartbeat = line(&text, "heartbeat").unwrap();
    assert!(heartbeat.contains(" fails: OOM "), "{text}");
}
