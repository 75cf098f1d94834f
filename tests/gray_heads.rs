//! What decides besides the lists, and what heads say of the decision: a tester's header or cookie, the mark
//! of a trusted proxy, `X-Graygate` in answers, and the cookie of visitors.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Display;

use nix::sys::signal::Signal;
use support::{FileSite, Gateway, Origin, RefusingPeer, Response, Setup, ok};

/// The secret of those who need one.
const SECRET: &str = "correct-horse-battery-staple";

/// A site where `127.0.0.5` is gray.
fn site(settings: &[(&str, &str)]) -> FileSite {
    FileSite::with(&["127.0.0.5"], |setup| with(setup, settings))
}

fn with(setup: Setup, settings: &[(&str, &str)]) -> Setup {
    settings
        .iter()
        .fold(setup, |setup, (name, value)| setup.set(name, value))
}

/// The answer to a request of `source` with these fields.
#[track_caller]
fn ask(gateway: &Gateway, source: &str, fields: &str) -> Response {
    let mut client = gateway.connect_from(source);
    client.ask(format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n"
    ))
}

/// The lines of the head that an origin got between Host and those that the gateway writes.
#[track_caller]
fn passed(origin: &Origin) -> String {
    let text = origin.last().text();
    let (_, rest) = text.split_once("Host: a\r\n").unwrap();
    rest.split_once("X-Forwarded-For: ").unwrap().0.to_owned()
}

#[test]
fn a_tester_gets_the_version_asked_for_and_no_server_sees_how() {
    let settings = [
        ("gray.force_header", "X-Force"),
        ("gray.force_cookie", "force"),
    ];
    let FileSite { gateway, pre, prod } = &site(&settings);
    // What a client sends, who serves it and why, and what is passed on; of a gray one and of another.
    let plain = ["pre listed", "prod unlisted"];
    let table: &[(&str, [&str; 2], &str)] = &[
        ("", plain, ""),
        ("X-Force: pre\r\n", ["pre forced"; 2], ""),
        ("x-force: prod\r\nA: 1\r\n", ["prod forced"; 2], "A: 1\r\n"),
        (
            "Cookie: force=pre\r\nA: 1\r\n",
            ["pre forced"; 2],
            "A: 1\r\n",
        ),
        (
            "Cookie: a=\"1; 2\" ;force=prod;b=2; \r\n",
            ["prod forced"; 2],
            "Cookie: a=\"1; 2\" ;b=2;\r\n",
        ),
        (
            "Cookie: a=1\r\nCookie: force=pre; force=prod\r\nCookie: b=2; force=x\r\n",
            ["pre forced"; 2],
            "Cookie: a=1\r\nCookie: b=2\r\n",
        ),
        // What is wrong is as if it were not there, and goes no further all the same.
        ("X-Force: gray\r\nA: 1\r\n", plain, "A: 1\r\n"),
        ("X-Force: pre:x\r\n", plain, ""),
        ("Cookie: force=PRE; a=1\r\n", plain, "Cookie: a=1\r\n"),
        // Others have nothing to do with it.
        (
            "X_Force: pre\r\nX-Forced: pre\r\nCookie:  Force=pre\r\n",
            plain,
            "X-Forced: pre\r\nCookie: Force=pre\r\n",
        ),
    ];
    for (fields, outcomes, expected) in table {
        for (client, outcome) in ["127.0.0.5", "127.0.0.9"].iter().zip(outcomes) {
            let (pool, reason) = outcome.split_once(' ').unwrap();
            assert_eq!(ask(gateway, client, fields).text(), pool, "{fields:?}");
            let origin = if pool == "pre" { pre } else { prod };
            assert_eq!(passed(origin), *expected, "{fields:?}");
            gateway.wait_for_access(&format!("client={client} pool={pool} reason={reason}"));
        }
    }
    gateway.wait_for_metric("graygate_forces_refused_total{reason=\"no-pool\"}", 6.0);
    // Nor does a server get it behind the body.
    let mut client = gateway.connect();
    client.ask(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         0\r\nX-Force: pre\r\nX_Force: pre\r\nA: 1\r\n\r\n",
    );
    assert_eq!(prod.last().trailers, [("A".to_owned(), "1".to_owned())]);
}

#[test]
fn where_there_is_a_secret_only_who_shows_it_is_a_tester() {
    let settings = [
        ("gray.force_header", "X-Force"),
        ("gray.force_cookie", "force"),
        ("gray.force_secret_file", "secret"),
    ];
    let site = FileSite::with(&[], |setup| {
        with(setup, &settings).file("secret", &format!("{SECRET}\n"))
    });
    let FileSite { gateway, prod, .. } = &site;
    let served = |fields: &str| ask(gateway, "127.0.0.9", fields).text();
    assert_eq!(served(&format!("X-Force: pre:{SECRET}\r\n")), "pre");
    assert_eq!(served(&format!("Cookie: force=pre:{SECRET}\r\n")), "pre");
    for (fields, reason) in [
        ("X-Force: pre\r\n".to_owned(), "no-secret"),
        ("Cookie: force=pre\r\n".to_owned(), "no-secret"),
        (format!("X-Force: pre:{SECRET}x\r\n"), "wrong-secret"),
        (
            format!("Cookie: a=1; force=pre:{}\r\n", &SECRET[1..]),
            "wrong-secret",
        ),
        (format!("X-Force: {SECRET}\r\n"), "no-pool"),
    ] {
        let metric = format!("graygate_forces_refused_total{{reason=\"{reason}\"}}");
        let before = gateway.metric(&metric);
        assert_eq!(served(&fields), "prod", "{fields:?}");
        gateway.wait_for_metric(&metric, before + 1.0);
        let text = prod.last().text();
        assert!(!text.contains("pre") && !text.contains("correct"), "{text}");
    }
    let line = gateway.wait_for_log("force-refused");
    assert!(
        line.contains("client=127.0.0.9 reason=no-secret unsaid=0"),
        "{line}"
    );
    assert!(!line.contains("correct"), "{line}");

    // A reload reads it anew, and nothing changes where it cannot be used.
    std::fs::write(gateway.path("secret"), "too short").unwrap();
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_log("reload-failed");
    assert_eq!(served(&format!("X-Force: pre:{SECRET}\r\n")), "pre");
    std::fs::write(gateway.path("secret"), "another-secret-of-ours").unwrap();
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_log(" reloaded ");
    assert_eq!(served(&format!("X-Force: pre:{SECRET}\r\n")), "prod");
    assert_eq!(served("X-Force: pre:another-secret-of-ours\r\n"), "pre");
}

#[test]
fn a_gateway_without_its_secret_does_not_start_and_an_open_one_is_warned_of() {
    let (pre, prod) = Origin::pre_and_prod();
    let setup = Setup::new().lists(&[], &[&pre], &[&prod]);
    let setup = setup
        .set("gray.force_header", "X-Force")
        .set("gray.force_secret_file", "secret");
    for content in [None, Some("too short")] {
        if let Some(content) = content {
            std::fs::write(setup.path("secret"), content).unwrap();
        }
        let output = setup.start_in_vain();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("[gray] force_secret_file: "), "{said}");
    }
    std::fs::write(setup.path("secret"), SECRET).unwrap();
    let warnings = setup.warnings();
    assert!(
        warnings.contains("[gray] force_secret_file: everybody can read"),
        "{warnings}"
    );
}

#[test]
fn a_tester_is_served_by_prod_where_a_listed_client_would_be() {
    let prod = Origin::named("prod");
    let start = |pre: &[&dyn Display], fallback: &str| {
        let setup = Setup::new().lists(&["127.0.0.5"], pre, &[&prod]);
        let setup = setup.set("upstream.fallback", fallback);
        setup.set("gray.force_header", "X-Force").start()
    };
    let refusing = RefusingPeer::new();
    for (pre, reason, tried) in [
        (&[][..], "pre-empty", "attempts=1"),
        (
            &[&refusing as &dyn Display][..],
            "pre-exhausted",
            "attempts=2",
        ),
    ] {
        let gateway = start(pre, "on");
        assert_eq!(
            ask(&gateway, "127.0.0.9", "X-Force: pre\r\n").text(),
            "prod"
        );
        gateway.wait_for_access(&format!(
            "client=127.0.0.9 pool=prod reason={reason} {tried}"
        ));
        let gateway = start(pre, "off");
        let refused = ask(&gateway, "127.0.0.9", "X-Force: pre\r\n").status();
        assert_eq!(refused, ask(&gateway, "127.0.0.5", "").status());
    }
}

#[test]
fn servers_are_told_the_pool_and_clients_cannot_tell_them() {
    for name in ["X-Graygate-Pool", "X-Canary"] {
        let settings = [("gray.mark", "on"), ("gray.mark_header", name)];
        let FileSite { gateway, pre, prod } = &site(&settings);
        let disguised = name.replace('-', "_");
        let forged = format!("{name}: pre\r\n{disguised}: pre\r\nA: 1\r\n{name}: x\r\n");
        for fields in ["A: 1\r\n", &forged] {
            for (client, origin, pool) in [("127.0.0.5", pre, "pre"), ("127.0.0.9", prod, "prod")] {
                assert_eq!(ask(gateway, client, fields).text(), pool);
                assert_eq!(passed(origin), "A: 1\r\n");
                let head = origin.last().head;
                assert_eq!(head.field(name).as_deref(), Some(pool));
                let end = format!("\r\n{name}: {pool}\r\n\r\n");
                assert!(head.text().ends_with(&end), "{}", head.text());
            }
        }
    }
    // A name of one's own is nobody's business while it is not in use.
    let FileSite { gateway, prod, .. } = &site(&[("gray.mark_header", "X-Canary")]);
    ask(gateway, "127.0.0.9", "X-Canary: 1\r\n");
    assert_eq!(passed(prod), "X-Canary: 1\r\n");
}

#[test]
fn the_mark_is_that_of_the_pool_that_serves_whatever_was_tried_before() {
    let prod = Origin::named("prod");
    let (one, two) = (RefusingPeer::new(), RefusingPeer::new());
    let setup = Setup::new().lists(&["127.0.0.5"], &[&one, &two], &[&prod]);
    let gateway = setup.set("gray.mark", "on").start();
    for (line, body) in [
        ("Content-Length: 4\r\n", "body"),
        ("Transfer-Encoding: chunked\r\n", "4\r\nbody\r\n0\r\n\r\n"),
    ] {
        let mut client = gateway.connect_from("127.0.0.5");
        let request = format!("PUT / HTTP/1.1\r\nHost: a\r\n{line}\r\n{body}");
        assert_eq!(client.ask(request).text(), "prod");
        let received = prod.last();
        assert_eq!(received.field("x-graygate-pool").as_deref(), Some("prod"));
        assert_eq!(received.content, b"body");
    }
}

#[test]
fn a_mark_decides_if_a_trusted_proxy_has_sent_it() {
    let settings = [
        ("gray.follow_mark", "on"),
        ("gray.force_header", "X-Force"),
        ("gateway.trusted_proxies", "127.0.0.99"),
    ];
    let FileSite { gateway, pre, prod } = &site(&settings);
    let of = |client: &str| format!("X-Forwarded-For: {client}\r\n");
    let (gray, other) = (of("127.0.0.5"), of("127.0.0.9"));
    // From where, with which fields; who serves it and why.
    for (source, fields, pool, reason) in [
        (
            "127.0.0.99",
            format!("{other}X-Graygate-Pool: pre\r\n"),
            "pre",
            "marked",
        ),
        (
            "127.0.0.99",
            format!("{gray}x-graygate-pool: prod\r\n"),
            "prod",
            "marked",
        ),
        (
            "127.0.0.99",
            format!("{gray}X-Graygate-Pool: Prod\r\n"),
            "pre",
            "listed",
        ),
        (
            "127.0.0.99",
            format!("{gray}X-Graygate-Pool: prod\r\nX-Graygate-Pool: pre\r\n"),
            "prod",
            "marked",
        ),
        (
            "127.0.0.99",
            format!("{gray}X-Graygate-Pool: pre\r\nX-Force: prod\r\n"),
            "prod",
            "forced",
        ),
        (
            "127.0.0.9",
            "X-Graygate-Pool: pre\r\n".to_owned(),
            "prod",
            "unlisted",
        ),
        (
            "127.0.0.5",
            "X-Graygate-Pool: prod\r\n".to_owned(),
            "pre",
            "listed",
        ),
    ] {
        assert_eq!(ask(gateway, source, &fields).text(), pool, "{fields:?}");
        gateway.wait_for_access(&format!("pool={pool} reason={reason}"));
        let origin = if pool == "pre" { pre } else { prod };
        // Servers are told where `mark` is on.
        let text = origin.last().text().to_lowercase();
        assert!(!text.contains("x-graygate"), "{text}");
    }
}

#[test]
fn a_release_runs_through_two_tiers_by_the_mark_of_the_first() {
    let (back_pre, back_prod) = Origin::pre_and_prod();
    // Nobody is on the list of the second tier.
    let setup = Setup::new().lists(&[], &[&back_pre], &[&back_prod]);
    let second = setup
        .set("gateway.trusted_proxies", "127.0.0.1")
        .set("gray.follow_mark", "on")
        .set("gray.mark", "on")
        .set("gray.expose", "all")
        .start();
    let addr = second.addr();
    let setup = Setup::new().lists(&["127.0.0.5"], &[&addr], &[&addr]);
    let first = setup
        .set("gray.mark", "on")
        .set("gray.expose", "all")
        .start();
    for (client, pool, reason, origin) in [
        ("127.0.0.5", "pre", "listed", &back_pre),
        ("127.0.0.9", "prod", "unlisted", &back_prod),
    ] {
        // What the client says of itself makes no difference.
        let answer = ask(&first, client, "X-Graygate-Pool: pre\r\n");
        assert_eq!(answer.text(), pool);
        second.wait_for_access(&format!("client={client} pool={pool} reason=marked"));
        let mark = origin.last().field("x-graygate-pool");
        assert_eq!(mark.as_deref(), Some(pool));
        // The first tier's word on it is the one that the client gets.
        let told = answer.field("x-graygate").unwrap();
        assert!(
            told.starts_with(&format!("pool={pool}; reason={reason}; ")),
            "{told}"
        );
    }
}

#[test]
fn clients_are_told_the_pool_and_why_if_they_are_to_be() {
    for (expose, of_gray, of_forced, of_other) in [
        ("off", None, None, None),
        (
            "gray",
            Some("pre; reason=listed"),
            Some("prod; reason=forced"),
            None,
        ),
        (
            "all",
            Some("pre; reason=listed"),
            Some("prod; reason=forced"),
            Some("prod; reason=unlisted"),
        ),
    ] {
        let settings = [("gray.expose", expose), ("gray.force_header", "X-Force")];
        let FileSite { gateway, .. } = &site(&settings);
        let generation = gateway.lists()["generation"].as_u64().unwrap();
        for (client, fields, expected) in [
            ("127.0.0.5", "", of_gray),
            ("127.0.0.5", "X-Force: prod\r\n", of_forced),
            ("127.0.0.9", "", of_other),
        ] {
            let told = ask(gateway, client, fields).field("x-graygate");
            let expected = expected.map(|it| format!("pool={it}; generation={generation}"));
            assert_eq!(told, expected, "{expose} {client} {fields:?}");
        }
        // Nothing was decided.
        let refused = ask(gateway, "127.0.0.5", "Host: b\r\n");
        assert_eq!((refused.status(), refused.field("x-graygate")), (400, None));
    }
}

#[test]
fn it_stands_in_every_answer_but_those_that_come_before_one() {
    let peer = Origin::answering(|request| {
        let own = "X-Graygate: pool=x\r\nX-Graygate-Pool: x\r\n";
        match &*request.head.target() {
            "/early" => format!(
                "HTTP/1.1 103 Early Hints\r\n{own}Link: <a>\r\n\r\n\
                 HTTP/1.1 200 OK\r\n{own}Content-Length: 2\r\n\r\nok"
            ),
            "/not-modified" => format!("HTTP/1.1 304 Not Modified\r\n{own}\r\n"),
            "/old" => format!("HTTP/1.0 200 OK\r\n{own}\r\n"),
            "/tunnel" => format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n{own}\r\n"
            ),
            _ => return ok("ok"),
        }
        .into_bytes()
    });
    let setup = Setup::new().lists(&["127.0.0.5"], &[&peer], &[&RefusingPeer::new()]);
    let gateway = setup.set("gray.expose", "all").start();
    let told = |text: &str| {
        text.matches("X-Graygate: pool=pre; reason=listed; ")
            .count()
    };
    let ask = |head: &str| {
        let mut client = gateway.connect_from("127.0.0.5");
        client.send(format!("{head}Host: a\r\n\r\n"));
        client.head().text()
    };
    let mut early = gateway.connect_from("127.0.0.5");
    early.send("GET /early HTTP/1.1\r\nHost: a\r\n\r\n");
    let hints = early.head().text();
    assert!(hints.starts_with("HTTP/1.1 103 "), "{hints}");
    assert!(!hints.contains("X-Graygate"), "{hints}");
    assert_eq!(told(&early.head().text()), 1);
    for head in [
        "HEAD / HTTP/1.1\r\n",
        "GET / HTTP/1.0\r\n",
        "GET /not-modified HTTP/1.1\r\n",
        "GET /tunnel HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n",
    ] {
        let text = ask(head);
        assert_eq!(
            (told(&text), text.matches("raygate").count()),
            (1, 1),
            "{text}"
        );
    }
    // The gateway's own, too.
    let failed = support::Client::from("127.0.0.9", gateway.addr()).get("/");
    assert_eq!(failed.status(), 502);
    let told = failed.field("x-graygate").unwrap();
    assert!(told.starts_with("pool=prod; reason=unlisted; "), "{told}");
}

/// The id in an answer's cookie for visitors, and what stands behind it.
#[track_caller]
fn visitor(answer: &Response) -> Option<(String, String)> {
    let cookies = answer.head.all("set-cookie");
    let mut own = cookies
        .iter()
        .filter_map(|it| it.strip_prefix("graygate_visitor="));
    let found = own.next();
    assert_eq!(own.next(), None, "{cookies:?}");
    let (id, rest) = found?.split_once("; ").unwrap();
    let is_digit = |it: char| matches!(it, '0'..='9' | 'a'..='f');
    assert!(id.len() == 16 && id.chars().all(is_digit), "{id}");
    Some((id.to_owned(), rest.to_owned()))
}

/// Who is in this share is in `pre`.
const HALF: &str = "percent:50:visitor";

#[test]
fn a_new_visitor_gets_a_cookie_and_is_served_by_it_from_then_on() {
    let settings = [("gateway.trusted_proxies", "127.0.0.99")];
    let FileSite { gateway, pre, prod } = &FileSite::with(&[HALF], |it| with(it, &settings));
    let mut pools = [0, 0];
    let mut ids = std::collections::HashSet::new();
    for _ in 0..40 {
        let first = ask(gateway, "127.0.0.9", "Cookie: a=1\r\n");
        let (id, rest) = visitor(&first).unwrap();
        assert_eq!(rest, "Path=/; Max-Age=31536000; SameSite=Lax; HttpOnly");
        assert_eq!(first.field("cache-control"), None);
        let pool = first.text();
        pools[usize::from(pool == "pre")] += 1;
        let fields = format!("Cookie: a=1; graygate_visitor={id}; b=2\r\n");
        let second = ask(gateway, "127.0.0.9", &fields);
        assert_eq!((second.text(), visitor(&second)), (pool.clone(), None));
        let origin = if pool == "pre" { pre } else { prod };
        assert_eq!(passed(origin), fields);
        assert!(ids.insert(id), "twice");
    }
    // All on one side happens once in 2^39 times.
    assert!(pools[0] > 0 && pools[1] > 0, "{pools:?}");
    for value in [
        "",
        "x",
        "0123456789ABCDEF",
        "0123456789abcde",
        "0123456789abcdef0",
        "\u{ff}",
    ] {
        let answer = ask(
            gateway,
            "127.0.0.9",
            &format!("Cookie: graygate_visitor={value}\r\n"),
        );
        assert!(visitor(&answer).is_some(), "{value}");
    }
    // Only a trusted proxy can know how the client came.
    for (source, proto, is_secure) in [
        ("127.0.0.99", "https", true),
        ("127.0.0.99", "HTTPS, http", true),
        ("127.0.0.99", "http, https", false),
        ("127.0.0.9", "https", false),
    ] {
        let answer = ask(gateway, source, &format!("X-Forwarded-Proto: {proto}\r\n"));
        let (_, rest) = visitor(&answer).unwrap();
        assert_eq!(
            rest.ends_with("; HttpOnly; Secure"),
            is_secure,
            "{source} {proto}: {rest}"
        );
    }
}

#[test]
fn nobody_is_a_visitor_where_nothing_asks_for_it() {
    let of = |gray: &[&str], settings: &[(&str, &str)], fields: &str| {
        let site = FileSite::with(gray, |it| with(it, settings));
        visitor(&ask(&site.gateway, "127.0.0.5", fields)).is_some()
    };
    assert!(of(&[HALF], &[], ""));
    assert!(of(&["percent:100:visitor"], &[], ""));
    for gray in [
        &["10.0.0.1", "percent:50", "cookie:graygate_visitor"][..],
        &[HALF, "127.0.0.5"],
        &[HALF, "!*"],
        &["percent:50:visitor header:X-A"],
        &["percent:0:visitor"],
        &[HALF, "path:/"],
        &[HALF, "header:Host=a"],
    ] {
        assert!(!of(gray, &[], ""), "{gray:?}");
    }
    let force = [("gray.force_header", "X-Force")];
    assert!(!of(&[HALF], &force, "X-Force: prod\r\n"));
    assert!(of(&[HALF], &force, "X-Force: x\r\n"));
    let marks = [
        ("gray.follow_mark", "on"),
        ("gateway.trusted_proxies", "127.0.0.5"),
    ];
    assert!(!of(&[HALF], &marks, "X-Graygate-Pool: pre\r\n"));
    assert!(of(&[HALF], &marks, ""));
}

#[test]
fn the_cookie_comes_with_every_kind_of_answer_beside_the_servers_own() {
    let peer = Origin::answering(|request| {
        let own = "Set-Cookie: a=1\r\nset-cookie: b=2\r\nCache-Control: public, max-age=9\r\n";
        match &*request.head.target() {
            "/early" => format!(
                "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n{own}Content-Length: 0\r\n\r\n"
            ),
            "/not-modified" => format!("HTTP/1.1 304 Not Modified\r\n{own}\r\n"),
            "/tunnel" => format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n{own}\r\n"
            ),
            "/broken" => "HTTP/1.1 2\r\n\r\n".to_owned(),
            _ => format!("HTTP/1.1 200 OK\r\n{own}Content-Length: 0\r\n\r\n"),
        }
        .into_bytes()
    });
    let setup = Setup::new().lists(&[HALF], &[&peer], &[&peer]);
    let setup = setup
        .set("gray.visitor_private", "on")
        .set("gray.visitor_max_age", "2h")
        .set("upstream.tries", 1);
    let gateway = setup.start();
    for (head, status) in [
        ("GET / HTTP/1.1\r\n", 200),
        ("HEAD / HTTP/1.1\r\n", 200),
        ("GET / HTTP/1.0\r\n", 200),
        ("GET /not-modified HTTP/1.1\r\n", 304),
        ("GET /early HTTP/1.1\r\n", 200),
        (
            "GET /tunnel HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n",
            101,
        ),
        ("GET /broken HTTP/1.1\r\n", 502),
    ] {
        let mut client = gateway.connect();
        client.send(format!("{head}Host: a\r\n\r\n"));
        let mut head = client.head();
        if head.status() == 103 {
            assert!(!head.text().contains("graygate"), "{}", head.text());
            head = client.head();
        }
        assert_eq!(head.status(), status, "{}", head.text());
        let cookies = head.all("set-cookie");
        let (own, ours) = cookies.split_at(cookies.len() - 1);
        let end = "; Path=/; Max-Age=7200; SameSite=Lax; HttpOnly";
        let is_ours = ours[0].starts_with("graygate_visitor=") && ours[0].ends_with(end);
        assert!(is_ours, "{}", head.text());
        let control = head.all("cache-control");
        match status {
            502 => assert_eq!((own.len(), &control[..]), (0, &["private".to_owned()][..])),
            _ => {
                assert_eq!(own, ["a=1", "b=2"]);
                assert_eq!(control, ["public, max-age=9", "private"]);
            }
        }
    }
}

#[test]
fn a_cookie_is_found_in_a_field_as_long_as_a_head_may_be_and_behind_a_thousand_others() {
    let FileSite { gateway, .. } = &FileSite::with(&["cookie:last=1"], |it| it);
    let long = format!("a={}; last=1", "x".repeat(32_000));
    let many: String = (0..1000).map(|it| format!("c{it}=; ")).collect();
    for cookies in [
        long,
        format!("{many}last=1"),
        format!("{many}last=1; last=2"),
    ] {
        let served = ask(gateway, "127.0.0.9", &format!("Cookie: {cookies}\r\n"));
        assert_eq!(served.text(), "pre");
    }
    let longer = format!("Cookie: a={}; last=1\r\n", "x".repeat(33_000));
    assert_eq!(ask(gateway, "127.0.0.9", &longer).status(), 431);
}

#[test]
fn a_secret_that_only_root_may_read_stays_and_a_new_one_is_pending() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let site = FileSite::with(&[], |setup| {
        let setup = setup
            .set("gray.force_header", "X-Force")
            .set("gray.force_secret_file", "secret")
            .set("gateway.user", "nobody")
            .file("secret", SECRET)
            .open_to_all();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(setup.path("secret"), mode).unwrap();
        setup
    });
    let FileSite { gateway, .. } = &site;
    let served = |secret: &str| ask(gateway, "127.0.0.9", &format!("X-Force: pre:{secret}\r\n"));
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_metric("graygate_reloads_total{outcome=\"ok\"}", 1.0);
    assert_eq!(gateway.stderr.count("reload-ignored"), 0);
    assert_eq!(served(SECRET).text(), "pre");
    std::fs::write(gateway.path("secret"), "another-secret-of-ours").unwrap();
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for_log("reload-ignored key=gray.force_secret_file ");
    gateway.wait_for_metric("graygate_reloads_total{outcome=\"ok\"}", 2.0);
    assert_eq!(served(SECRET).text(), "pre");
    assert_eq!(served("another-secret-of-ours").text(), "prod");
}
