//! Entries of the gray list that are more than an address: whom they select, in which order, until when, and
//! what the access log says of it. Each request is a real one.

mod support;

use std::time::{Duration, SystemTime};

use support::{DEADLINE, FileSite, Gateway, wait_until};

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
