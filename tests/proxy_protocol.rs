//! Listeners for proxies: who the client is stands before the first byte of HTTP, and only trusted
//! proxies are believed.

mod support;

use support::{
    Client, DEADLINE, FileSite, Gateway, Origin, RefusingPeer, Setup, wait_for, wait_until,
};

/// A gateway with a plain listener and one for proxies, of which 127.0.0.98 and .99 are trusted.
struct Site {
    gateway: Gateway,
    prod: Origin,
    _pre: Origin,
}

fn site() -> Site {
    let gray = ["192.0.2.5", "2001:db8::5"];
    let FileSite { gateway, pre, prod } = FileSite::with(&gray, |setup| {
        setup
            .set("gateway.listen", "127.0.0.1:0, 127.0.0.1:0 proxy")
            .set("gateway.trusted_proxies", "127.0.0.98/31")
            .set("gateway.head_timeout", "400ms")
    });
    Site {
        gateway,
        prod,
        _pre: pre,
    }
}

impl Site {
    /// A connection to the listener for proxies.
    fn connect_from(&self, source: &str) -> Client {
        Client::from(source, self.gateway.addrs()[1])
    }

    fn wait_closes(&self, reason: &str, count: f64) {
        let name = format!("graygate_connections_closed_total{{reason=\"{reason}\"}}");
        self.gateway.wait_for_metric(&name, count);
    }
}

fn version_2(kind: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    [&signature[..], &kind[..], &length[..], payload].concat()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn the_client_is_who_the_header_says() {
    let site = site();
    let mut v6 = [0; 36];
    v6[..16].copy_from_slice(
        &"2001:db8::5"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets(),
    );
    let table: [(Vec<u8>, &str, &str); 8] = [
        (
            b"PROXY TCP4 192.0.2.5 192.0.2.1 1024 80\r\n".to_vec(),
            "pre",
            "192.0.2.5",
        ),
        (
            b"PROXY TCP4 192.0.2.50 192.0.2.1 1024 80\r\n".to_vec(),
            "prod",
            "192.0.2.50",
        ),
        (
            b"PROXY TCP6 ::ffff:192.0.2.5 ::1 1024 80\r\n".to_vec(),
            "pre",
            "192.0.2.5",
        ),
        (
            b"PROXY TCP6 2001:db8::5 ::1 1024 80\r\n".to_vec(),
            "pre",
            "2001:db8::5",
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), "prod", "127.0.0.99"),
        (
            version_2(
                [0x21, 0x11],
                &[192, 0, 2, 5, 1, 1, 1, 1, 4, 0, 0, 80, 4, 0, 0],
            ),
            "pre",
            "192.0.2.5",
        ),
        (version_2([0x21, 0x21], &v6), "pre", "2001:db8::5"),
        (version_2([0x20, 0x00], b""), "prod", "127.0.0.99"),
    ];
    for (header, pool, address) in table {
        let text = header.escape_ascii();
        let mut client = site.connect_from("127.0.0.99");
        // In one segment, and the next request without a header.
        for request in [[&header[..], GET].concat(), GET.to_vec()] {
            client.send(request);
            assert_eq!(client.response().text(), pool, "{text}");
        }
        // In as many segments as there are bytes.
        let mut client = site.connect_from("127.0.0.99");
        for byte in [&header[..], GET].concat() {
            client.send([byte]);
        }
        assert_eq!(client.response().text(), pool, "{text}");
        let line = wait_for("the lines", || {
            let lines = site.gateway.access_lines();
            lines
                .into_iter()
                .rfind(|line| line.get("client") == address)
        });
        assert_eq!(line.get("pool"), pool, "{text}");
    }
    let request = site.prod.last();
    assert_eq!(request.field("x-real-ip").as_deref(), Some("127.0.0.99"));
}

#[test]
fn a_proxy_that_names_nobody_is_told_of_where_the_fields_do() {
    let site = site();
    let metric = "graygate_proxies_not_believed_total{reason=\"unnamed-client\"}";
    let mut client = site.connect_from("127.0.0.99");
    client.send([b"PROXY UNKNOWN\r\n", GET].concat());
    assert_eq!(client.response().text(), "prod");
    assert_eq!(site.gateway.metric(metric), 0.0);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.5\r\n\r\n");
    assert_eq!(client.response().text(), "prod");
    site.gateway.wait_for_metric(metric, 1.0);
    let line = site.gateway.wait_for_log("proxy-not-believed");
    let said = "proxy=127.0.0.99 reason=unnamed-client said=\"192.0.2.5\"";
    assert!(line.contains(said), "{line}");
}

#[test]
fn what_the_proxy_says_of_the_client_counts_as_its_address_for_all_that_follows() {
    let site = site();
    for (source, forwarded, chain, client) in [
        // Who is behind the proxy is not trusted, so its own word counts for nothing.
        ("192.0.2.7", "192.0.2.5", "192.0.2.7", "192.0.2.7"),
        // Behind the proxy is a trusted one.
        (
            "127.0.0.98",
            "192.0.2.7",
            "192.0.2.7, 127.0.0.98",
            "192.0.2.7",
        ),
    ] {
        let mut client_side = site.connect_from("127.0.0.99");
        let request = format!(
            "PROXY TCP4 {source} 192.0.2.1 1024 80\r\n\
             GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {forwarded}\r\n\r\n"
        );
        client_side.send(request);
        assert_eq!(client_side.response().text(), "prod");
        let request = site.prod.last();
        assert_eq!(request.field("x-forwarded-for").as_deref(), Some(chain));
        assert_eq!(request.field("x-real-ip").as_deref(), Some(client));
    }
}

#[test]
fn fields_behind_a_header_that_names_nobody_are_not_believed() {
    let site = site();
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        version_2([0x20, 0x00], b""),
        version_2([0x21, 0x00], b""),
    ] {
        let mut client = site.connect_from("127.0.0.99");
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.5\r\n\
            X-Forwarded-Proto: https\r\n\r\n";
        client.send([&header[..], request].concat());
        assert_eq!(client.response().text(), "prod", "{header:?}");
        let request = site.prod.last();
        let field = |name| request.field(name).unwrap();
        assert_eq!(field("x-forwarded-for"), "127.0.0.99");
        assert_eq!(field("x-real-ip"), "127.0.0.99");
        assert_eq!(field("x-forwarded-proto"), "http");
    }
}

#[test]
fn nobody_else_is_believed_or_answered() {
    let site = site();
    let header = b"PROXY TCP4 192.0.2.5 192.0.2.1 1024 80\r\n";
    let mut stranger = site.connect_from("127.0.0.5");
    stranger.send_if_open([header, GET].concat());
    stranger.expect_close();
    site.wait_closes("untrusted-proxy", 1.0);
    let said = site.gateway.wait_for_log("connection-turned-away");
    assert!(
        said.contains("from=127.0.0.5 close=untrusted-proxy"),
        "{said}"
    );
    assert_eq!(site.prod.accepted(), 0);
    // Where no header is expected it is no request either.
    let mut client = site.gateway.connect_from("127.0.0.99");
    client.send([header, GET].concat());
    assert_eq!(client.response().status(), 400);
}

#[test]
fn a_header_that_is_not_exactly_right_closes_the_connection_without_an_answer() {
    let site = site();
    let table: [&[u8]; 8] = [
        GET,
        b"PROXY TCP4 192.0.2.5 192.0.2.1 1024 80\n",
        b"PROXY TCP4 192.0.2.5  192.0.2.1 1024 80\r\n",
        b"PROXY TCP4 192.0.2.005 192.0.2.1 1024 80\r\n",
        b"PROXY TCP4 192.0.2.5 192.0.2.1 1024 65536\r\n",
        &version_2([0x21, 0x12], &[0; 12]),
        &version_2([0x21, 0x11], &[0; 11]),
        &version_2([0x11, 0x11], &[0; 12]),
    ];
    for (at, header) in table.iter().enumerate() {
        let mut client = site.connect_from("127.0.0.99");
        client.send_if_open([header, GET].concat());
        client.expect_close();
        site.wait_closes("bad-proxy-header", (at + 1) as f64);
    }
    assert_eq!(site.prod.accepted(), 0);
    assert!(site.gateway.access_lines().is_empty());
}

#[test]
fn a_header_has_the_time_of_a_head_and_a_look_at_the_port_is_no_event() {
    let site = site();
    let mut client = site.connect_from("127.0.0.99");
    client.send("PROXY TCP4 ");
    client.expect_close();
    site.wait_closes("head-timeout", 1.0);
    drop(site.connect_from("127.0.0.99"));
    site.wait_closes("client-closed", 1.0);
    assert_eq!(site.gateway.stderr.count("connection-turned-away"), 1);
}

/// What strangers make the gateway say must not keep it from saying what its peers do.
#[test]
fn connections_turned_away_hide_no_failed_attempt_from_the_error_log() {
    const ROUNDS: usize = 5;
    const STRANGERS: usize = 30;
    let peer = RefusingPeer::new();
    let gateway = Setup::serving(&peer)
        .set("gateway.listen", "127.0.0.1:0, 127.0.0.1:0 proxy")
        .set("gateway.trusted_proxies", "127.0.0.98/31")
        .one_worker()
        .start();
    for _ in 0..ROUNDS {
        for _ in 0..STRANGERS {
            Client::from("127.0.0.5", gateway.addrs()[1]).expect_close();
        }
        assert_eq!(gateway.connect().get("/").status(), 502);
    }
    // Each is told, none behind others that were not.
    let told = || {
        gateway
            .stderr
            .all()
            .into_iter()
            .filter(|it| it.contains("attempt-failed pool=prod") && it.ends_with("unsaid=0"))
            .count()
    };
    wait_until("all are told", DEADLINE, || told() == ROUNDS);
    // While of the strangers not all are told.
    assert!(gateway.stderr.count("connection-turned-away") < ROUNDS * STRANGERS);
}
