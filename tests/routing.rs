//! Who is served by which pool, and what the peer is told of the client.

mod support;

use std::collections::BTreeMap;
use std::fmt::Display;

use support::{Client, FileSite, Gateway, Origin, RefusingPeer, Setup};

/// A gateway that has `127.0.0.98` and `.99` as trusted proxies.
fn site(gray: &[&str]) -> FileSite {
    site_with(gray, |setup| setup)
}

fn site_with(gray: &[&str], change: impl FnOnce(Setup) -> Setup) -> FileSite {
    FileSite::with(gray, |setup| {
        change(setup.set("gateway.trusted_proxies", "127.0.0.98/31"))
    })
}

#[test]
fn listed_addresses_and_networks_get_pre_and_their_neighbours_prod() {
    let gray = ["127.0.0.1", "127.0.0.5", "127.0.1.0/24", "127.4.0.0/30"];
    let FileSite { gateway, .. } = &site(&gray);
    let pre = [
        "127.0.0.1",
        "127.0.0.5",
        "127.0.1.0",
        "127.0.1.77",
        "127.0.1.255",
        "127.4.0.3",
    ];
    let prod = [
        // The listed ones are no prefixes of strings.
        "127.0.0.10",
        "127.0.0.11",
        "127.0.0.50",
        "127.0.0.4",
        "127.0.0.6",
        // The last address before a network, and the first behind it.
        "127.0.0.255",
        "127.0.2.0",
        "127.3.255.255",
        "127.4.0.4",
    ];
    let all = pre.map(|it| (it, "pre", "listed")).into_iter();
    for (client, pool, reason) in all.chain(prod.map(|it| (it, "prod", "unlisted"))) {
        assert_eq!(gateway.get(client, "/").text(), pool, "{client}");
        gateway.wait_for_access(&format!("client={client} pool={pool} reason={reason}"));
    }
}

#[test]
fn the_decision_is_made_anew_for_each_connection_and_holds_for_each_request_on_it() {
    let FileSite { gateway, .. } = &site(&["127.0.0.5"]);
    let mut gray = gateway.connect_from("127.0.0.5");
    let mut other = gateway.connect_from("127.0.0.9");
    for _ in 0..20 {
        assert_eq!(gray.get("/").text(), "pre");
        assert_eq!(other.get("/").text(), "prod");
    }
}

#[test]
fn ipv6_clients_are_told_from_ipv4_clients() {
    // The listed entry, and the pools of a client on [::1] and of one on 127.0.0.1.
    let table = [
        ("::1", "pre", "prod"),
        ("0:0:0:0:0:0:0:1", "pre", "prod"),
        ("::/64", "pre", "prod"),
        ("::2", "prod", "prod"),
        ("127.0.0.1", "prod", "pre"),
        ("::ffff:127.0.0.1", "prod", "pre"),
    ];
    for (gray, of_v6, of_v4) in table {
        let change = |setup: Setup| setup.set("gateway.listen", "127.0.0.1:0, [::1]:0");
        let FileSite { gateway, prod, .. } = &site_with(&[gray], change);
        let [v4, v6] = gateway.addrs() else {
            panic!("not two addresses: {:?}", gateway.addrs());
        };
        assert_eq!((v4.is_ipv4(), v6.is_ipv6()), (true, true));
        let of = |source, to| Client::from(source, to).get("/").text();
        assert_eq!(of("::1", *v6), of_v6, "{gray}");
        assert_eq!(of("127.0.0.1", *v4), of_v4, "{gray}");
        if of_v6 == "prod" && of_v4 == "pre" {
            let received = prod.last();
            assert_eq!(received.field("x-forwarded-for").as_deref(), Some("::1"));
            assert_eq!(received.field("x-real-ip").as_deref(), Some("::1"));
        }
    }
}

#[test]
fn every_peer_of_a_pool_gets_its_share() {
    const REQUESTS: usize = 400;
    let pre = ["pre-a", "pre-b"].map(Origin::named);
    let prod = ["prod-a", "prod-b", "prod-c", "prod-d"].map(Origin::named);
    let gateway = Setup::new()
        .lists(
            &["127.0.0.5"],
            &pre.each_ref().map(|it| it as &dyn Display),
            &prod.each_ref().map(|it| it as &dyn Display),
        )
        .start();
    for (source, names) in [
        ("127.0.0.5", &["pre-a", "pre-b"][..]),
        ("127.0.0.9", &["prod-a", "prod-b", "prod-c", "prod-d"]),
    ] {
        let mut client = gateway.connect_from(source);
        let mut shares = BTreeMap::<String, usize>::new();
        for _ in 0..REQUESTS {
            *shares.entry(client.get("/").text()).or_default() += 1;
        }
        assert!(shares.keys().eq(names), "{shares:?}");
        // Less than half of the fair share does not happen by chance: 5.8 standard deviations.
        let least = REQUESTS / names.len() / 2;
        assert!(shares.values().all(|it| *it > least), "{shares:?}");
    }
}

/// X-Forwarded-For, X-Real-IP, -Proto and -Host as the origin received them, each exactly once.
#[track_caller]
fn forwarding(origin: &Origin) -> [String; 4] {
    let received = origin.last();
    [
        "x-forwarded-for",
        "x-real-ip",
        "x-forwarded-proto",
        "x-forwarded-host",
    ]
    .map(|name| received.field(name).unwrap_or_else(|| panic!("no {name}")))
}

const FORGED: &str = "X-Forwarded-For: 1.2.3.4, 5.6.7.8\r\nx-forwarded-for: 9.9.9.9\r\n\
    X-Real-IP: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: other\r\n";

#[test]
fn forwarding_fields_are_replaced_unless_a_trusted_proxy_sent_them() {
    let FileSite { gateway, prod, .. } = &site(&[]);
    let table = [
        ("127.0.0.9", "", ["127.0.0.9", "127.0.0.9", "http", "a:80"]),
        (
            "127.0.0.9",
            FORGED,
            ["127.0.0.9", "127.0.0.9", "http", "a:80"],
        ),
        (
            "127.0.0.99",
            "",
            ["127.0.0.99", "127.0.0.99", "http", "a:80"],
        ),
        (
            "127.0.0.99",
            FORGED,
            [
                "1.2.3.4, 5.6.7.8, 9.9.9.9, 127.0.0.99",
                "9.9.9.9",
                "https",
                "other",
            ],
        ),
        // The chain goes on through a second trusted proxy; what it says of X-Real-IP does not
        // count.
        (
            "127.0.0.98",
            "X-Forwarded-For: 1.2.3.4,127.0.0.99\r\nX-Real-IP: 5.6.7.8\r\n",
            ["1.2.3.4,127.0.0.99, 127.0.0.98", "1.2.3.4", "http", "a:80"],
        ),
        // What is empty says nothing.
        (
            "127.0.0.99",
            "X-Forwarded-For:\r\nX-Forwarded-Proto:\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host:\r\n",
            ["127.0.0.99", "127.0.0.99", "https", "a:80"],
        ),
        // Whom a malformed chain means is anybody's guess.
        (
            "127.0.0.98",
            "X-Forwarded-For: 1.2.3.4, unknown\r\n",
            ["1.2.3.4, unknown, 127.0.0.98", "127.0.0.98", "http", "a:80"],
        ),
    ];
    for (source, fields, expected) in table {
        let mut client = gateway.connect_from(source);
        let request = format!("GET / HTTP/1.1\r\nHost: a:80\r\n{fields}\r\n");
        assert_eq!(client.ask(request).status(), 200);
        assert_eq!(forwarding(prod), expected, "{source} {fields}");
    }
    // What is not continued is only believed or not.
    for (source, expected) in [("127.0.0.9", None), ("127.0.0.99", Some("x"))] {
        let mut client = gateway.connect_from(source);
        let request = "GET / HTTP/1.1\r\nHost: a:80\r\nForwarded: x\r\nX-Forwarded-Port: x\r\n\r\n";
        assert_eq!(client.ask(request).status(), 200);
        for name in ["forwarded", "x-forwarded-port"] {
            assert_eq!(prod.last().field(name).as_deref(), expected);
        }
    }
}

#[test]
fn the_connection_field_cannot_strip_what_the_gateway_says() {
    let FileSite { gateway, prod, .. } = &site(&[]);
    for source in ["127.0.0.9", "127.0.0.99"] {
        let mut client = gateway.connect_from(source);
        let response = client.ask(
            "POST /path HTTP/1.1\r\nHost: a:80\r\nX-Private: 1\r\nX-Public: 2\r\n\
             Connection: X-Forwarded-For, Host, X-Real-IP, x-private\r\n\
             Connection: X-Forwarded-Proto, X-Forwarded-Host, Content-Length\r\n\
             Content-Length: 4\r\n\r\nbody",
        );
        assert_eq!(response.status(), 200);
        assert_eq!(forwarding(prod), [source, source, "http", "a:80"]);
        let received = prod.last();
        assert_eq!(received.field("host").as_deref(), Some("a:80"));
        assert_eq!(received.content, b"body");
        // Proof that the field was read at all.
        assert_eq!(received.field("x-private"), None);
        assert_eq!(received.field("x-public").as_deref(), Some("2"));
    }
}

#[test]
fn no_field_makes_a_client_gray_or_not_gray() {
    let FileSite { gateway, .. } = &site(&["127.0.0.5"]);
    let names = [
        "X-Forwarded-For",
        "x-forwarded-for",
        "X_Forwarded_For",
        "X.Forwarded.For",
        "X-Real-IP",
        "X-Client-IP",
        "True-Client-IP",
        "Forwarded",
        "X-Graygate-Client",
        "X-Graygate-Pool",
    ];
    for name in names {
        for (source, forged, pool) in [
            ("127.0.0.9", "127.0.0.5", "prod"),
            ("127.0.0.5", "127.0.0.9", "pre"),
            ("127.0.0.9", "for=127.0.0.5", "prod"),
            ("127.0.0.9", "pre", "prod"),
        ] {
            let mut client = gateway.connect_from(source);
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: {forged}\r\n\r\n");
            assert_eq!(client.ask(request).text(), pool, "{source} {name}");
        }
    }
}

#[test]
fn a_trusted_proxy_is_believed_for_the_right_most_untrusted_address_only() {
    let FileSite { gateway, .. } = &site(&["127.0.0.5"]);
    let chain_of = |count| ["127.0.0.99, "].repeat(count).concat();
    let (long, short) = (chain_of(65), chain_of(63));
    let table = [
        ("127.0.0.5", "pre"),
        ("[::ffff:127.0.0.5]", "pre"),
        ("127.0.0.9, 127.0.0.5", "pre"),
        ("127.0.0.5, 127.0.0.98", "pre"),
        // With ports, as Azure's gateway writes it.
        ("127.0.0.5:51234", "pre"),
        ("[::ffff:127.0.0.5]:443", "pre"),
        ("127.0.0.9, 127.0.0.5:1, 127.0.0.98:65535", "pre"),
        (&*format!("127.0.0.5, {short}"), "pre"),
        // What the client itself has written stands to the left of what the proxy knows.
        ("127.0.0.5, 127.0.0.9", "prod"),
        ("127.0.0.5, 127.0.0.9, 127.0.0.98", "prod"),
        ("127.0.0.5\r\nX-Forwarded-For: 127.0.0.9", "prod"),
        ("127.0.0.50", "prod"),
        // What is malformed or huge is not believed.
        ("127.0.0.5, unknown", "prod"),
        ("127.0.0.5 x", "prod"),
        ("127.0.0.5:", "prod"),
        ("127.0.0.5:0", "prod"),
        ("127.0.0.5:65536", "prod"),
        ("127.0.0.5:80:80", "prod"),
        ("[127.0.0.5]:80", "prod"),
        ("\"127.0.0.5\"", "prod"),
        ("127.0.0.5\u{ff}", "prod"),
        ("127.0.0.05", "prod"),
        ("127.0.0.5/32", "prod"),
        (&*format!("127.0.0.5, {long}"), "prod"),
        (&*format!("127.0.0.5{}", ",x".repeat(10_000)), "prod"),
    ];
    for (chain, pool) in table {
        let mut proxy = gateway.connect_from("127.0.0.99");
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {chain}\r\n\r\n");
        let response = proxy.ask(request);
        assert_eq!(
            (response.status(), &*response.text()),
            (200, pool),
            "{chain:.99}"
        );
    }
    assert_eq!(gateway.metric("graygate_panics_total"), 0.0);
}

#[test]
fn a_trusted_proxy_that_is_not_believed_is_told_of() {
    let site = site_with(&["127.0.0.5"], |it| it.one_worker());
    let FileSite { gateway, prod, .. } = &site;
    let ask = |source: &str, fields: &str| {
        let mut client = gateway.connect_from(source);
        client
            .ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
            .text()
    };
    let findings = || gateway.lists()["findings"].clone();
    let is_quiet = |it: &serde_json::Value| it["count"].get("proxy-not-believed").is_none();
    // A stranger is not asked, and who says nothing, or what can be read, is believed.
    ask(
        "127.0.0.9",
        "X-Forwarded-For: unknown\r\nX-Real-IP: 127.0.0.5\r\n",
    );
    ask("127.0.0.99", "");
    ask(
        "127.0.0.99",
        "X-Forwarded-For: 127.0.0.5:51234\r\nX-Real-IP: 127.0.0.5\r\n",
    );
    assert!(is_quiet(&findings()), "{}", findings());
    let long = "X-Forwarded-For: ".to_owned() + &["127.0.0.99, "].repeat(65).concat() + "\r\n";
    let table = [
        (
            "malformed-chain",
            "X-Forwarded-For: 127.0.0.5, un\"known\r\n",
            "un\\\"known",
        ),
        ("long-chain", &*long, "127.0.0.99"),
        ("no-chain", "X-Real-IP: 127.0.0.5\r\n", "127.0.0.5"),
        (
            "no-chain",
            "X-Forwarded-For: ,\r\nForwarded: for=127.0.0.5\r\n",
            "for=127.0.0.5",
        ),
    ];
    let mut counts = BTreeMap::new();
    for (reason, fields, said) in table {
        assert_eq!(ask("127.0.0.99", fields), "prod", "{fields}");
        *counts.entry(reason).or_insert(0.0) += 1.0;
        let metric = format!("graygate_proxies_not_believed_total{{reason=\"{reason}\"}}");
        gateway.wait_for_metric(&metric, counts[reason]);
        let found = findings();
        assert_eq!(found["count"]["proxy-not-believed"], 1, "{found}");
        let metric = "graygate_lists_findings{finding=\"proxy-not-believed\"}";
        assert_eq!(gateway.metric(metric), 1.0);
        let first = &found["first"][0];
        assert_eq!(first["finding"], "proxy-not-believed");
        assert_eq!(first["entry"], "127.0.0.99");
        let text = first["text"].as_str().unwrap_or_default();
        let begin = "127.0.0.99 was not believed ";
        let end = format!(": \"{said}\"");
        assert!(text.starts_with(begin) && text.ends_with(&end), "{text}");
        assert!(text.contains(&format!(" s ago: {reason}: ")), "{text}");
    }
    // One line for the first; the others come too soon after it.
    let line = gateway.wait_for_log("proxy-not-believed");
    let said = "proxy=127.0.0.99 reason=malformed-chain said=\"un\\\"known\" unsaid=0";
    assert!(line.contains(said), "{line}");
    // A port is read, and the chain passes as it came.
    ask("127.0.0.99", "X-Forwarded-For: 127.0.0.6:51234\r\n");
    let request = prod.last().text();
    for passed in [
        "X-Forwarded-For: 127.0.0.6:51234, 127.0.0.99\r\n",
        "X-Real-IP: 127.0.0.6\r\n",
    ] {
        assert!(request.contains(passed), "{request}");
    }
}

#[test]
fn fields_of_the_gateways_own_are_stripped_in_both_directions() {
    let origin = Origin::answering(|_| {
        b"HTTP/1.1 200 OK\r\nX-Graygate-Pool: pre\r\nX-Gray: 1\r\nContent-Length: 0\r\n\r\n"
            .to_vec()
    });
    let gateway = Gateway::serving(&origin);
    let response = gateway.connect().ask(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Graygate-Pool: pre\r\nx-graygate: 1\r\n\
         X-GRAYGATE-Anything: 2\r\nX_Graygate_Pool: pre\r\nX-Graygatex: 3\r\n\
         X_Forwarded_For: 1.2.3.4\r\nX-Gray: 1\r\nGraygate: 1\r\n\r\n",
    );
    let received = origin.last().text();
    for text in [&received, &response.head.text()] {
        let text = text.to_lowercase().replace('_', "-");
        assert!(!text.contains("x-graygate"), "{text}");
        assert!(text.contains("x-gray: 1\r\n"), "{text}");
    }
    assert!(received.contains("\r\nGraygate: 1\r\n"), "{received}");
    assert!(!received.contains("1.2.3.4"), "{received}");
}

#[test]
fn the_host_is_forwarded_byte_for_byte() {
    let FileSite { gateway, prod, .. } = &site(&[]);
    let mut client = gateway.connect();
    let long = "a".repeat(200);
    for host in [
        "Example.COM",
        "example.com.",
        "a:80",
        "A:443",
        "a:",
        "a:0000000000000080",
        "127.0.0.1:8080",
        "[::1]:80",
        "[2001:DB8::1]",
        &long,
    ] {
        let request = format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(client.ask(request).status(), 200, "{host}");
        let received = prod.last();
        assert_eq!(received.field("host").as_deref(), Some(host));
        assert_eq!(received.field("x-forwarded-host").as_deref(), Some(host));
        assert_eq!(received.head.target(), "/x");
    }
    // RFC 9112 section 3.2.2: the authority of an absolute target goes before the field.
    let request = "GET http://Named.example:81/x?y HTTP/1.1\r\nHost: other\r\n\r\n";
    assert_eq!(client.ask(request).status(), 200);
    let received = prod.last();
    let expected = Some("Named.example:81");
    assert_eq!(received.field("host").as_deref(), expected);
    assert_eq!(received.field("x-forwarded-host").as_deref(), expected);
    assert_eq!(received.head.target(), "/x?y");
}

#[test]
fn nobody_is_served_before_lists_were_read() {
    let redis = RefusingPeer::new();
    let gateway = Setup::new().redis(format!("redis://{redis}/0")).start();
    let mut client = gateway.connect();
    // The connection stays, since nothing is wrong with the request.
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!(response.status(), 503);
        assert!(response.text().ends_with(": no-lists\n"), "{response:?}");
    }
    gateway.wait_for_access("pool=- reason=- peer=- attempts=0 status=503 error=no-lists");
    gateway.wait_for_metric(r#"graygate_refusals_total{reason="no-lists"}"#, 2.0);
}

#[test]
fn an_empty_prod_refuses_all_but_gray_clients() {
    let pre = Origin::named("pre");
    let gateway = Setup::new().lists(&["127.0.0.5"], &[&pre], &[]).start();
    assert_eq!(gateway.get("127.0.0.5", "/").text(), "pre");
    let mut client = gateway.connect_from("127.0.0.9");
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!(response.status(), 503);
        assert!(response.text().ends_with(": no-peers\n"), "{response:?}");
    }
    gateway.wait_for_access("client=127.0.0.9 pool=- attempts=0 status=503 error=no-peers");
    gateway.wait_for_metric(r#"graygate_refusals_total{reason="no-peers"}"#, 2.0);
    assert_eq!(pre.requests().len(), 1);
}

#[test]
fn an_old_client_that_names_no_host_asks_for_the_address_it_came_to() {
    let FileSite { gateway, prod, .. } = &site(&[]);
    gateway.connect().ask("GET / HTTP/1.0\r\n\r\n");
    let address = Some(gateway.addr().to_string());
    let request = prod.last();
    assert_eq!(request.field("host"), address);
    assert_eq!(request.field("x-forwarded-host"), address);
}
