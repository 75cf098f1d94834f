//! Entries of the gray list that are more than an address: whom they select, in which order, until when, and
//! what the access log says of it. Each request is a real one.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde_json::json;
use support::{DEADLINE, FileSite, Gateway, Origin, Redis, Setup, wait_until};

/// The answer to a request of that client with this target and these fields.
#[track_caller]
fn ask(gateway: &Gateway, client: &str, target: &str, fields: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n");
    let mut client = gateway.connect_from(client);
    client.send(request.as_bytes());
    client.response().text()
}

#[test]
fn who_is_gray_goes_by_the_first_entry_that_holds_and_by_exclusions_before_all() {
    let site = &FileSite::with(
        &[
            "127.0.0.5",
            "header:X-Tester",
            "header:x-app-version>=2.10",
            "cookie:uid=alice path:/v2/*",
            "query:the%20user=bob",
            "!cookie:uid=mallory",
            "!127.0.0.9 path:/v2/*",
        ],
        |setup| setup,
    );
    let alice = "Cookie: theme=dark; uid=alice; uid=mallory\r\n";
    // Who asks for what with which fields; the pool, and what the log says behind.
    let table = [
        ("127.0.0.1", "/", "", "prod unlisted", None),
        ("127.0.0.5", "/", "", "pre listed", None),
        (
            "127.0.0.1",
            "/",
            "x-TESTER:\r\n",
            "pre listed",
            Some("header:x-tester"),
        ),
        (
            "127.0.0.1",
            "/",
            "X-App-Version: v2.10.1\r\n",
            "pre listed",
            Some("header:x-app-version>=2.10"),
        ),
        (
            "127.0.0.1",
            "/",
            "X-App-Version: 2.9\r\n",
            "prod unlisted",
            None,
        ),
        (
            "127.0.0.1",
            "/v2/cart",
            alice,
            "pre listed",
            Some("cookie:uid=alice path:/v2/*"),
        ),
        ("127.0.0.1", "/v1/cart", alice, "prod unlisted", None),
        (
            "127.0.0.1",
            "/?the+user=bob",
            "",
            "pre listed",
            Some("query:the+user=bob"),
        ),
        // Excluded, though an address is listed.
        (
            "127.0.0.5",
            "/",
            "Cookie: uid=mallory\r\n",
            "prod excluded",
            Some("!cookie:uid=mallory"),
        ),
        (
            "127.0.0.9",
            "/v2/",
            alice,
            "prod excluded",
            Some("!127.0.0.9 path:/v2/*"),
        ),
        (
            "127.0.0.9",
            "/",
            "X-Tester: 1\r\n",
            "pre listed",
            Some("header:x-tester"),
        ),
    ];
    for (number, (client, target, fields, expected, entry)) in table.into_iter().enumerate() {
        let (pool, reason) = expected.split_once(' ').unwrap();
        assert_eq!(
            ask(&site.gateway, client, target, fields),
            pool,
            "{target} {fields}"
        );
        let lines = site.gateway.wait_for_access_lines(number + 1);
        let line = &lines[number];
        assert_eq!(line.field("reason"), Some(reason), "{target} {fields}");
        assert_eq!(line.field("entry"), entry, "{target} {fields}");
        assert_eq!(line.field("bucket"), None);
    }
    for (pool, reason, count) in [
        ("pre", "listed", 6.0),
        ("prod", "unlisted", 3.0),
        ("prod", "excluded", 2.0),
        ("prod", "forced", 0.0),
    ] {
        let name = format!("graygate_decisions_total{{pool=\"{pool}\",reason=\"{reason}\"}}");
        assert_eq!(site.gateway.metric(&name), count, "{name}");
    }
}

#[test]
fn an_entry_ends_by_itself() {
    let end = SystemTime::now() + Duration::from_secs(3);
    let until = humantime::format_rfc3339_seconds(end);
    let entry = format!("header:X-Tester until={until}");
    let site = &FileSite::with(&[&entry, "cookie:uid"], |setup| setup);
    let tester = || ask(&site.gateway, "127.0.0.1", "/", "X-Tester: 1\r\n");
    assert_eq!(tester(), "pre");
    wait_until("the entry has ended", DEADLINE, || tester() == "prod");
    assert!(SystemTime::now() >= end - Duration::from_secs(1));
    // The list is the one that it was.
    assert_eq!(site.gateway.lists()["generation"], 1);
    assert_eq!(
        ask(&site.gateway, "127.0.0.1", "/", "Cookie: uid=1\r\n"),
        "pre"
    );
}

#[test]
fn a_share_is_the_same_people_each_time_and_the_log_says_where_they_are() {
    // XXH64 of these values and an empty salt: at 67.26 % and at 35.60 %.
    let site = &FileSite::with(&["percent:67.26:cookie:uid"], |setup| setup);
    let of = |uid: &str| {
        ask(
            &site.gateway,
            "127.0.0.1",
            "/",
            &format!("Cookie: uid={uid}\r\n"),
        )
    };
    for _ in 0..3 {
        assert_eq!(
            (of("alice"), of("1")),
            ("prod".to_owned(), "pre".to_owned())
        );
    }
    site.gateway
        .wait_for_access("pool=pre reason=listed bucket=35.60");
    let text = site.text("percent:67.27:cookie:uid");
    site.gateway.write_lists_text(&text);
    wait_until("the share has grown", DEADLINE, || of("alice") == "pre");
    assert_eq!(of("1"), "pre");
    // Without a value, nobody is in any share.
    assert_eq!(of(""), "prod");
    assert_eq!(ask(&site.gateway, "127.0.0.1", "/", ""), "prod");
    site.gateway
        .wait_for_access("pool=pre reason=listed bucket=67.26");
}

/// The keys of shares, and who is in each of them: of the people from 0 to 19, by the answers that they get.
fn people_in_pre(gateway: &Gateway) -> BTreeMap<&'static str, BTreeSet<u8>> {
    let mut client = gateway.connect();
    let mut of = |path: &str, fields: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n");
        client.ask(request).text() == "pre"
    };
    let mut all: BTreeMap<_, BTreeSet<u8>> = BTreeMap::new();
    for person in 0..20 {
        let visitor = format!("Cookie: graygate_visitor=0123456789abcd{person:02x}\r\n");
        let from = format!("127.0.3.{person}");
        let seen = [
            ("cookie", of("/", &format!("Cookie: uid=u{person}\r\n"))),
            ("header", of("/", &format!("X-User: u{person}\r\n"))),
            ("query", of(&format!("/?uid=u{person}"), "")),
            ("visitor", of("/visitor", &visitor)),
            ("address", ask(gateway, &from, "/address", "") == "pre"),
        ];
        for (key, is_in) in seen {
            let them = all.entry(key).or_default();
            them.extend(is_in.then_some(person));
        }
    }
    all
}

#[test]
fn shares_are_the_same_people_on_all_gateways_and_after_restarts_and_only_grow() {
    let redis = Redis::start();
    let (pre, prod) = Origin::pre_and_prod();
    redis.push_peers(&pre, &prod);
    redis.cli(&["SET", "graygate:salt", "2026-12"]);
    let start = || Setup::new().redis(redis.url()).start();
    let mut gateways = [start(), start()];
    let mut before: Option<BTreeMap<_, BTreeSet<u8>>> = None;
    for share in ["0", "10", "35.5", "80", "99.99"] {
        let entries = [
            format!("percent:{share} path:/address"),
            format!("percent:{share}:cookie:uid"),
            format!("percent:{share}:header:x-user"),
            format!("percent:{share}:query:uid"),
            format!("path:/visitor percent:{share}:visitor"),
        ];
        let write = "redis.call('DEL', KEYS[1]) return redis.call('RPUSH', KEYS[1], unpack(ARGV))";
        let words = ["EVAL", write, "1", "gray"].into_iter();
        let words: Vec<&str> = words.chain(entries.iter().map(String::as_str)).collect();
        redis.cli(&words);
        let shown = format!("percent:{share}:cookie:uid");
        for gateway in &gateways {
            let is_there = |it: &serde_json::Value| it.to_string().contains(&shown);
            gateway.wait_for_lists("the share", |page| is_there(&page["gray"]));
        }
        let seen = people_in_pre(&gateways[0]);
        assert_eq!(people_in_pre(&gateways[1]), seen, "{share}");
        if share == "35.5" {
            gateways[1] = start();
            assert_eq!(people_in_pre(&gateways[1]), seen, "after a restart");
        }
        for (key, people) in &seen {
            let many = match share {
                "0" => 0..1,
                "99.99" => 19..21,
                _ => 1..20,
            };
            assert!(many.contains(&people.len()), "{share} {key}: {people:?}");
            let fewer = before.as_ref().map(|it| &it[key]);
            let has_grown = fewer.is_none_or(|it| it.is_subset(people));
            assert!(has_grown, "{share} {key}: {fewer:?}, {people:?}");
        }
        before = Some(seen);
    }
}

/// What a gateway of version 0.1.0 has made of these, which knew addresses and nets only.
#[test]
fn entries_of_earlier_versions_mean_what_they_meant() {
    let redis = Redis::start();
    redis.push_peers(&"10.1.0.1:80", &"10.1.0.2");
    let good = [
        ("192.168.1.1", "192.168.1.1"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.0.0/16", "10.1.0.0/16"),
        ("172.16.5.9/12", "172.16.0.0/12"),
        ("203.0.113.77/24", "203.0.113.0/24"),
        ("192.0.2.0/32", "192.0.2.0"),
        ("1.2.3.4/32", "1.2.3.4"),
        (" 10.2.0.1", "10.2.0.1"),
        ("10.2.0.2 ", "10.2.0.2"),
        ("\t10.2.0.3\n", "10.2.0.3"),
        ("10.2.0.4\r\n", "10.2.0.4"),
        ("127.0.0.1", "127.0.0.1"),
        ("255.255.255.255", "255.255.255.255"),
        ("0.0.0.0", "0.0.0.0"),
        ("0.0.0.0/32", "0.0.0.0"),
        ("192.168.1.1", "192.168.1.1"),
        ("10.0.0.1/8 ", "10.0.0.0/8"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("::ffff:198.51.100.0/120", "198.51.100.0/24"),
        ("::1", "::1"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("2001:0db8:0000:0000::0001", "2001:db8::1"),
        ("2001:db8:1::99/48", "2001:db8:1::/48"),
        ("2001:db8::5/128", "2001:db8::5"),
        ("::ffff:10.9.8.7/95", "::fffe:0:0/95"),
        ("64:ff9b::1", "64:ff9b::1"),
        ("fe80::1", "fe80::1"),
    ];
    let skipped = [
        "",
        "  ",
        "::ffff:0:0/96x",
        "fe80::1%eth0",
        "10.2.0.5 # office",
        "# 10.2.0.6",
        "10.2.0.7,10.2.0.8",
        "10.2.0.9 10.2.0.10",
        "10.2.0.11;",
        "010.1.1.1",
        "10.1.1",
        "1.2.3.4/33",
        "1.2.3.4/",
        "1.2.3.4/08",
        "1.2.3.4/255.255.255.0",
        "10.3.0.1-10.3.0.9",
        "10.3.*",
        "*.example.com",
        "localhost",
        "[::1]",
        "[2001:db8::7]:80",
        "10.4.0.1:80",
        "0x0a000001",
        "167772161",
        "alice",
        "1.2.3.4.5",
        "::/129",
        ":::",
        "\u{ff11}0.0.0.1",
        "10.6.0.1\0",
        "+10.7.0.1",
        "10.7.0.2/+8",
        "10.7.0.3/ 8",
    ];
    for (entry, _) in good {
        redis.push("gray", &[&entry]);
    }
    for entry in skipped {
        redis.push("gray", &[&entry]);
    }
    let gateway = Setup::new().redis(redis.url()).start();
    let page = gateway.lists();
    let shown = page["gray"].as_array().unwrap().iter();
    let mut shown: Vec<&str> = shown.map(|it| it.as_str().unwrap()).collect();
    shown.sort_unstable();
    let mut expected = good.map(|(_, canonical)| canonical).to_vec();
    expected.sort_unstable();
    expected.dedup();
    assert_eq!(shown, expected);
    assert_eq!(page["skipped"]["gray"]["count"], skipped.len());
    // By which gateways of both versions know that they have the same.
    assert_eq!(page["digest"], "3183ce50be821505");
    let digests = json!({
        "gray": "bc796c5b0ba27fb1", "pre": "0e7c7a32daa9c50d", "prod": "bf239b7849fac766"
    });
    assert_eq!(page["digests"], digests);
}
