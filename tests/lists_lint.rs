//! Likely mistakes in the lists: on the admin page, in the log, as a metric, and offline.

// Not only within #[test] functions, which clippy.toml exempts.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Output;

use serde_json::json;

use support::{Origin, Redis, Setup, run_to_exit};

/// Standard output and the exit code.
fn said(output: &Output) -> (String, Option<i32>) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (text, output.status.code())
}

#[test]
fn findings_are_told_once_for_each_change_and_shown_while_they_stand() {
    let redis = Redis::start();
    let (pre, prod) = Origin::pre_and_prod();
    redis.push_peers(&pre.address(), &prod.address());
    redis.push("gray", &[&"127.0.0.5"]);
    let gateway = Setup::new()
        .redis(redis.url())
        .set("gateway.trusted_proxies", "127.0.0.96/30")
        .start();
    let none = gateway.wait_for_lists("the lists", |it| it["gray"] == json!(["127.0.0.5"]));
    assert_eq!(none["findings"]["first"], json!([]));
    assert_eq!(gateway.stderr.count("lists-finding"), 0);

    redis.push(
        "gray",
        &[&"127.0.0.5", &"127.0.1.1/24", &"127.0.0,7", &"127.0.0.97"],
    );
    let weighted = [2, 3].map(|it| format!("{} weight={it}", pre.address()));
    redis.push("pre", &[&prod.address()]);
    redis.cli(&["LREM", "pre", "0", &pre.address().to_string()]);
    redis.push("pre", &[&weighted[0], &weighted[1]]);
    let count = json!({
        "address-or-port": 0,
        "almost": 1,
        "duplicate": 1,
        "expired": 0,
        "host-bits": 1,
        "in-both-pools": 1,
        "never-sent": 0,
        "other-term": 0,
        "shares-differ": 0,
        "trusted-proxy-is-gray": 1,
        "unreachable": 0,
        "weights-differ": 1,
    });
    let page = gateway.wait_for_lists("findings", |it| it["findings"]["count"] == count);
    let first = page["findings"]["first"].as_array().unwrap();
    let almost = json!({
        "finding": "almost",
        "list": "gray",
        "entry": "127.0.0,7",
        "text": "is 127.0.0.7 meant?",
    });
    assert!(first.contains(&almost), "{first:?}");
    let count = count.as_object().unwrap();
    for (finding, _) in count.iter().filter(|(_, count)| **count != 0) {
        gateway.wait_for_log(&format!("lists-finding finding={finding} count=1"));
        gateway.wait_for_metric(
            &format!("graygate_lists_findings{{finding={finding:?}}}"),
            1.0,
        );
    }
    assert_eq!(gateway.stderr.count("lists-finding"), 6);

    // The same lists, written otherwise: no news for requests, nor for the log.
    let generation = page["generation"].clone();
    redis.push("gray", &[&"127.0.0.5"]);
    let more = gateway.wait_for_lists("another duplicate", |it| {
        it["findings"]["count"]["duplicate"] == 2
    });
    assert_eq!(more["generation"], generation);
    redis.cli(&["LREM", "gray", "0", "127.0.0,7"]);
    gateway.wait_for_lists("a repair", |it| it["findings"]["count"]["almost"] == 0);
    assert_eq!(gateway.stderr.count("lists-finding"), 6);
}

#[test]
fn a_file_is_checked_without_a_gateway_and_each_mistake_is_a_line() {
    let setup = Setup::new()
        .file(
            "good",
            "[gray]\n10.0.0.0/8\n[pre]\n10.1.0.1\n[prod]\n10.1.0.2\n",
        )
        .file(
            "bad",
            "[gray]\n10.0.0.1\n10.0.0.1\n10.0.0.1\n10.1.2.3/8\n::ffff:1.2.3.0/24\n0.0.0.0/0\n1.2.3.256\nhttp://10.0.0.2\n!\n[pre]\n10.1.0.1\n\
             [prod]\n10.1.0.1:80\nlocalhost:80\napp1:0\n10.1.0.3 wieght=2\n10.1.0.4 weight=0\n10.1.0.5 weight=2\n10.1.0.5 weight=3\n::1:80\n",
        )
        .file("none", "[gray]\n");
    let ini = setup.path("missing.ini");
    let check = |name: &str| {
        let file = setup.path(name);
        let arguments = [
            "lists",
            "check",
            file.to_str().unwrap(),
            "-c",
            ini.to_str().unwrap(),
        ];
        run_to_exit(&arguments)
    };
    let good = check("good");
    assert_eq!(
        said(&good),
        (
            "nothing to report: gray 1, pre 1, prod 1\n".to_owned(),
            Some(0)
        )
    );
    let (text, code) = said(&check("bad"));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "gray: skipped: !: ! stands before what it excludes; !* excludes everybody",
            "prod: skipped: 10.1.0.3 wieght=2: \"wieght\" is unknown; only weight=1 to weight=1000 is read",
            "prod: skipped: 10.1.0.4 weight=0: weight=0 is no weight: for a server that is to get no more requests, remove the entry",
            "gray: host-bits: 10.1.2.3/8: has host bits; taken as 10.0.0.0/8",
            "gray: host-bits: ::ffff:1.2.3.0/24: has host bits; taken as ::/24; \
             is /120 meant, which is 1.2.3.0/24?",
            "gray: almost: 1.2.3.256: a number in an IPv4 address is from 0 to 255",
            "gray: almost: http://10.0.0.2: is 10.0.0.2 meant?",
            "gray: duplicate: 10.0.0.1: is listed more than once (3 times)",
            "prod: almost: app1:0: a port is a number from 1 to 65535",
            "prod: address-or-port: ::1:80: taken as [::1:80]:80; is [::1]:80 meant?",
            "prod: weights-differ: 10.1.0.5:80: has the weights 2 and 3; the largest counts",
            "pre: in-both-pools: 10.1.0.1:80: is in prod, too",
            "gray: admits-everybody: 0.0.0.0/0: such a change is held until somebody confirms it",
        ]
    );
    assert_eq!(code, Some(1));
    // However it is written.
    setup.path("halves");
    std::fs::write(
        setup.path("halves"),
        "[gray]\n0.0.0.0/1\n128.0.0.0/1\n[pre]\n[prod]\n10.1.0.2\n",
    )
    .unwrap();
    let (text, code) = said(&check("halves"));
    assert_eq!(
        (text.as_str(), code),
        (
            "gray: admits-everybody: IPv4, by 2 entries together: such a change is held until \
             somebody confirms it\n",
            Some(1)
        )
    );
    for (name, told) in [
        ("none", "there is no section [pre]"),
        ("absent", "No such file"),
    ] {
        let output = check(name);
        assert_eq!(said(&output), (String::new(), Some(1)));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn entries_with_terms_are_checked_and_each_mistake_is_a_line() {
    let bad = r#"
        Header:X-User=alice
        percent:5%
        percent:5:cookie
        header:X=a*b
        cookie:uid=42 until=+2h
        header:X-User=bob
        header:X-User="bob"
        10.0.0.1/8 header:X-A
        cookie:theme="dark red"
        header:Host=a
        header:X-B until=2020-01-01T00:00Z note="over"
        percent:0
        percent:5:cookie:uid
        percent:10:cookie:uid
        header:X-C="\#1" # testers
        header:X-D="\*#1" # testers
        !header:X-User=bob
    "#;
    let setup = Setup::new()
        .file("terms", &format!("[gray]\n{bad}\n[pre]\n[prod]\n10.1.0.2\n"))
        .file("all", "[gray]\n10.0.0.1\n*\n[pre]\n[prod]\n10.1.0.2\n")
        .file("rollback", "[gray]\n*\n!*\n[pre]\n[prod]\n10.1.0.2\n")
        .file(
            "good",
            "[gray]\n10.0.0.1\n!header:X note=\"a # b\" # c\npercent:5:visitor\n[pre]\n[prod]\n10.1.0.2\n",
        );
    let ini = setup.path("missing.ini");
    let check = |name: &str| {
        let (file, ini) = (setup.path(name), ini.to_str().unwrap().to_owned());
        said(&run_to_exit(&[
            "lists",
            "check",
            file.to_str().unwrap(),
            "-c",
            &ini,
        ]))
    };
    let (text, code) = check("terms");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "gray: skipped: percent:5:cookie: a share by a cookie, header or query parameter needs its name, \
             like percent:5:cookie:uid",
            r"gray: skipped: header:X=a*b: a `*` is a wildcard at either end of a value only; one that is meant is `\*`",
            "gray: skipped: cookie:uid=42 until=+2h: a list cannot know when it was pushed: until is a moment \
             like 2026-12-01T18:00Z",
            r#"gray: skipped: header:X-C=\"\\#1\": `\` stands only before `"`, `\` or `*`"#,
            "gray: almost: Header:X-User=alice: is header:X-User=alice meant?",
            "gray: almost: percent:5%: is percent:5 meant?",
            "gray: host-bits: 10.0.0.1/8 header:X-A: has host bits; taken as 10.0.0.0/8",
            "gray: never-sent: cookie:theme=\"dark red\": has a sign that few clients send in a cookie (RFC 6265 \
             section 4.1.1): it is compared as it was sent, mostly with %20, %22, %2C and the like",
            "gray: other-term: header:host=a: is host:NAME meant? It is without the port, and its case does not matter",
            "gray: duplicate: header:x-user=bob: is listed more than once (2 times)",
            "gray: expired: header:x-b until=2020-01-01T00:00Z note=\"over\": has expired, and can be removed",
            "gray: unreachable: percent:0: is nobody: a share of 0",
            "gray: unreachable: header:x-user=bob: is excluded by !header:x-user=bob",
            "gray: shares-differ: percent:10:cookie:uid: is beside the shares 5 by the same key; only the largest counts",
        ]
    );
    assert_eq!(code, Some(1));
    let everybody = "gray: unreachable: *: admits everybody: the 1 other entries that admit somebody make no \
                     difference\ngray: admits-everybody: *: such a change is held until somebody confirms it\n";
    assert_eq!(check("all"), (everybody.to_owned(), Some(1)));
    let nobody =
        "gray: unreachable: !*: excludes everybody: the 1 other entries make no difference\n";
    assert_eq!(check("rollback"), (nobody.to_owned(), Some(1)));
    let good = "nothing to report: gray 3, pre 0, prod 1\n";
    assert_eq!(check("good"), (good.to_owned(), Some(0)));
}

#[test]
fn rules_that_admit_everybody_are_held_and_one_push_takes_everything_back() {
    let redis = Redis::start();
    let (pre, prod) = Origin::pre_and_prod();
    redis.push_peers(&pre.address(), &prod.address());
    redis.push("gray", &[&"10.0.0.1", &"header:X-Tester"]);
    let gateway = Setup::new().redis(redis.url()).start();
    gateway.wait_for_lists("the lists", |it| {
        it["gray"] == json!(["10.0.0.1", "header:x-tester"])
    });
    redis.push("gray", &[&"percent:100", &"* note=\"all\""]);
    let page = gateway.wait_for_lists("it is held", |it| it["held"] != json!([]));
    let held = &page["held"][0];
    assert_eq!(held["reason"], "admits-everybody");
    assert_eq!(held["new"]["first"], json!(["* note=\"all\""]));
    // What somebody excludes is in force at once, and so it is no matter any more who is admitted.
    redis.push("gray", &[&"!*"]);
    let page = gateway.wait_for_lists("the rollback", |it| it["counts"]["gray"] == json!(5));
    assert_eq!(page["held"], json!([]));
    redis.cli(&["LREM", "gray", "0", "!*"]);
    let page = gateway.wait_for_lists("it is held again", |it| it["held"] != json!([]));
    assert_eq!(page["counts"]["gray"], json!(5));
    let digest = page["held"][0]["digest"].as_str().unwrap().to_owned();
    redis.cli(&["SET", "graygate:accept", &digest]);
    gateway.wait_for_lists("it is accepted", |it| it["counts"]["gray"] == json!(4));
}

#[test]
fn an_entry_that_is_almost_one_is_skipped_and_told_what_it_almost_is() {
    let redis = Redis::start();
    let (pre, prod) = Origin::pre_and_prod();
    redis.push(
        "gray",
        &[&"127.0.0.5", &"0.0.0.0/00", &"010.0.0.0/8", &"10.0.0.0/08"],
    );
    redis.push("pre", &[&pre, &"[fe80::1%2]:80", &"127.0.0.1:080"]);
    redis.push("prod", &[&prod, &"0.0.0.1:80", &"255.255.255.255:80"]);
    let gateway = Setup::new().redis(redis.url()).start();
    let page = gateway.wait_for_lists("the lists", |it| it["generation"] == 1);
    for (list, entry) in [
        ("gray", "127.0.0.5".to_owned()),
        ("pre", pre.to_string()),
        ("prod", prod.to_string()),
    ] {
        assert_eq!(page[list], json!([entry]));
    }
    let first = page["findings"]["first"].as_array().unwrap();
    let told = first.iter().map(|it| {
        assert_eq!(it["finding"], "almost", "{it}");
        format!("{}: {}", it["entry"], it["text"]).replace('"', "")
    });
    let mut told: Vec<String> = told.collect();
    told.sort();
    let link_local = "a link-local address, which means nothing without a zone, and zones are \
                      not supported";
    assert_eq!(
        told,
        [
            "0.0.0.0/00: is 0.0.0.0/0 meant?",
            "0.0.0.1:80: an address that nobody can connect to",
            "010.0.0.0/8: is 10.0.0.0/8 meant?",
            "10.0.0.0/08: is 10.0.0.0/8 meant?",
            "127.0.0.1:080: is 127.0.0.1:80 meant?",
            "255.255.255.255:80: an address that nobody can connect to",
            &format!("[fe80::1%2]:80: {link_local}"),
        ]
    );
}

#[test]
fn the_configured_store_is_checked_with_its_trusted_proxies_and_port() {
    let redis = Redis::start();
    redis.push("gray", &[&"10.0.0.1"]);
    redis.push("pre", &[&"10.1.0.1"]);
    redis.push("prod", &[&"10.1.0.2"]);
    let setup = Setup::new()
        .redis(redis.url())
        .set("gateway.trusted_proxies", "10.0.0.0/24")
        .set("upstream.peer_port", 81);
    let ini = setup.write_ini();
    let check = || run_to_exit(&["lists", "check", "-c", ini.to_str().unwrap()]);
    let proxy = "gray: trusted-proxy-is-gray: 10.0.0.1: is a trusted proxy (10.0.0.0/24)\n";
    assert_eq!(said(&check()), (proxy.to_owned(), Some(1)));
    redis.cli(&["LSET", "gray", "0", "10.0.0.0/8"]);
    let around = "gray: trusted-proxy-is-gray: 10.0.0.0/8: covers a trusted proxy (10.0.0.0/24)\n";
    assert_eq!(said(&check()), (around.to_owned(), Some(1)));
    redis.cli(&["DEL", "gray"]);
    let nothing = "nothing to report: gray 0, pre 1, prod 1\n";
    assert_eq!(said(&check()), (nothing.to_owned(), Some(0)));
    redis.push("pre", &[&"10.1.0.2:81"]);
    let both = "pre: in-both-pools: 10.1.0.2:81: is in prod, too\n";
    assert_eq!(said(&check()), (both.to_owned(), Some(1)));
    redis.cli(&["SET", "gray", "10.0.0.1"]);
    let (text, code) = said(&check());
    let wrong = "gray: wrong-type: the key \"gray\" is a string; it must be a list or a set\n";
    assert_eq!((text, code), (format!("{wrong}{both}"), Some(1)));
    drop(redis);
    let (text, code) = said(&check());
    assert_eq!((text.as_str(), code), ("", Some(1)));
}
