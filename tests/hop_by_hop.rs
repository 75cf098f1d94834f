//! What of a message goes on to the other side, byte for byte, and what is of one connection only.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use support::{Gateway, Origin, Setup, ok};

/// What the gateway says of a client at 127.0.0.1 that asks for `host`.
fn ours(host: &str) -> String {
    format!(
        "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n\
         X-Forwarded-Host: {host}\r\n"
    )
}

/// Sends a request on a connection of its own, and returns the bytes that the peer got.
#[track_caller]
fn passed_on(gateway: &Gateway, origin: &Origin, request: impl AsRef<[u8]>) -> String {
    let request = request.as_ref();
    let before = origin.requests().len();
    let response = gateway.connect().ask(request);
    assert_eq!(response.status(), 200, "{}", request.escape_ascii());
    let requests = origin.requests();
    assert_eq!(requests.len(), before + 1, "{}", request.escape_ascii());
    String::from_utf8_lossy(&requests[before].bytes()).into_owned()
}

/// Answers HEAD as it must, too.
fn obliging() -> Origin {
    Origin::answering(|_| ok(""))
}

#[test]
fn request_lines_pass_to_the_byte() {
    let origin = obliging();
    let gateway = Gateway::serving(&origin);
    let long = "M".repeat(32);
    let lines = [
        "GET /",
        "GET //",
        "GET //x//y/",
        "GET /./a/../b/..",
        "GET /%2e%2e/%2E%2E/%2f",
        "GET /%00%0d%0a%7f%ff",
        "GET /%zz%",
        "GET /a;b=c,d:e@f!$&'()*+~_-.",
        "GET /?",
        "GET /??a=b&&c=%26?/../",
        "GET /\"<>\\^`{|}[]",
        "GET /http://a/",
        "OPTIONS *",
        "OPTIONS /*",
        "HEAD /",
        "PURGE /",
        "get /",
        "connect /",
        "PRI /",
        "M-SEARCH /",
        "!#$%&'*+-.^_`|~ /",
    ];
    let lines = lines.map(str::to_owned).into_iter();
    for line in lines.chain([format!("{long} /")]) {
        let request = format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n");
        let expected = format!("{line} HTTP/1.1\r\nHost: a\r\n{}\r\n", ours("a"));
        assert_eq!(passed_on(&gateway, &origin, request), expected);
    }
}

#[test]
fn a_raw_target_passes_to_the_byte_unless_it_is_to_be_refused() {
    let origin = obliging();
    let gateway = Gateway::serving(&origin);
    // What is written, what is asked for, and of whom: UTF-8, GBK (whose second bytes may be ASCII),
    // Latin-1, and every byte from 0x80 on.
    let all: Vec<u8> = (0x80..=0xff).collect();
    let table: &[(&[u8], &[u8], &str)] = &[
        ("/路/ü?q=ü".as_bytes(), "/路/ü?q=ü".as_bytes(), "a"),
        (b"/\xc2\xb7\x83|\x81\\", b"/\xc2\xb7\x83|\x81\\", "a"),
        (b"/\xe4?\x85\xa0", b"/\xe4?\x85\xa0", "a"),
        (&[b"/", &all[..]].concat(), &[b"/", &all[..]].concat(), "a"),
        ("http://b/ü".as_bytes(), "/ü".as_bytes(), "b"),
        ("HTTP://b:80?ü".as_bytes(), "/?ü".as_bytes(), "b:80"),
    ];
    let request = |target: &[u8]| [b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    for (target, passed, host) in table {
        let shown = target.escape_ascii();
        let before = origin.requests().len();
        let response = gateway.connect().ask(request(target));
        assert_eq!(response.status(), 200, "{shown}");
        let requests = origin.requests();
        assert_eq!(requests.len(), before + 1, "{shown}");
        let ours = format!(" HTTP/1.1\r\nHost: {host}\r\n{}\r\n", ours(host));
        let expected = [b"GET ", *passed, ours.as_bytes()].concat();
        assert_eq!(requests[before].bytes(), expected, "{shown}");
    }
    let gateway = Setup::serving(&origin)
        .set("gateway.raw_target", "refuse")
        .start();
    let before = origin.requests().len();
    for (target, ..) in table {
        let response = gateway.connect().ask(request(target));
        let text = response.text();
        assert_eq!(
            (response.status(), &*text),
            (400, "400 Bad Request: bad-target\n")
        );
    }
    // Percent-encoded, it is a URI.
    assert_eq!(gateway.connect().get("/%c3%bc").status(), 200);
    assert_eq!(origin.requests().len(), before + 1);
}

#[test]
fn one_empty_line_before_a_request_is_ignored_also_behind_a_body() {
    let origin = obliging();
    let gateway = Gateway::serving(&origin);
    let mut client = gateway.connect();
    // Old clients send one behind a body (RFC 9112 section 2.2).
    client.send("\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    assert_eq!(client.response().status(), 200);
    let requests: Vec<Vec<u8>> = origin.requests().iter().map(|it| it.bytes()).collect();
    let ours = ours("a");
    let post = format!("POST / HTTP/1.1\r\nHost: a\r\n{ours}Content-Length: 2\r\n\r\nab");
    let get = format!("GET / HTTP/1.1\r\nHost: a\r\n{ours}\r\n");
    assert_eq!(requests, [post.into_bytes(), get.into_bytes()]);
}

#[test]
fn the_authority_of_an_absolute_target_is_the_host_and_its_path_the_target() {
    let origin = obliging();
    let gateway = Gateway::serving(&origin);
    let table = [
        ("GET http://b", "GET /", "b"),
        ("GET http://b/", "GET /", "b"),
        ("GET HTTP://B:80//x/%2e%2e?y", "GET //x/%2e%2e?y", "B:80"),
        ("GET https://[::1]:443/x", "GET /x", "[::1]:443"),
        ("GET http://b?x=http://c/", "GET /?x=http://c/", "b"),
        ("OPTIONS http://b", "OPTIONS *", "b"),
        ("OPTIONS http://b/", "OPTIONS /", "b"),
        ("OPTIONS http://b?x", "OPTIONS /?x", "b"),
    ];
    for (line, passed, host) in table {
        let request = format!("{line} HTTP/1.1\r\nHost: other\r\n\r\n");
        let expected = format!("{passed} HTTP/1.1\r\nHost: {host}\r\n{}\r\n", ours(host));
        assert_eq!(passed_on(&gateway, &origin, request), expected);
    }
}

#[test]
fn request_fields_that_mean_nothing_to_a_gateway_pass_and_those_of_a_hop_do_not() {
    let origin = obliging();
    let gateway = Gateway::serving(&origin);
    // What is sent besides Host, and what of it is passed on.
    let table = [
        // Order, case, repetition and emptiness stay.
        (
            "b: 2\r\nA: 1\r\nB:\r\na:1\r\nCookie: c\r\nCookie: d\r\n",
            "b: 2\r\nA: 1\r\nB: \r\na: 1\r\nCookie: c\r\nCookie: d\r\n",
        ),
        (
            "X: \t a \t b \t \r\nmy_field: 1\r\n",
            "X: a \t b\r\nmy_field: 1\r\n",
        ),
        (
            "Authorization: x\r\nVia: 1.1 v\r\nRange: bytes=0-1\r\nAccept-Encoding: gzip\r\n",
            "Authorization: x\r\nVia: 1.1 v\r\nRange: bytes=0-1\r\nAccept-Encoding: gzip\r\n",
        ),
        // What the client names in Connection, whatever else it names.
        ("Connection: x\r\nX: 1\r\nY: 2\r\n", "Y: 2\r\n"),
        ("X: 1\r\nConnection: y, X\r\nx: 3\r\nY: 2\r\n", ""),
        ("Connection: X\r\nX: 1\r\nConnection: Y\r\nY: 2\r\n", ""),
        ("Connection: ,,x ,\t,\r\nX: 1\r\nXX: 2\r\n", "XX: 2\r\n"),
        ("Connection: User-Agent\r\nUser-Agent: u\r\n", ""),
        (
            "Connection: X-Forwarded-For, x-real-ip, X-Forwarded-Proto, X-Forwarded-Host, Host\r\n",
            "",
        ),
        // What is of this hop though nobody names it.
        ("Keep-Alive: timeout=5\r\n", ""),
        ("Proxy-Connection: keep-alive\r\n", ""),
        ("TE: gzip\r\nConnection: TE\r\n", ""),
        // There is no body, and so no trailer.
        ("Trailer: X\r\n", ""),
        ("Upgrade: websocket\r\n", ""),
        ("Connection: Upgrade\r\n", ""),
        ("Connection: keep-alive\r\n", ""),
        // HTTP/2 is not spoken here.
        (
            "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings\r\n",
            "",
        ),
        ("HTTP2-Settings: AAMAAABkAAQAAP__\r\n", ""),
        // What some servers read as another field.
        ("Transfer_Encoding: chunked\r\nX: 1\r\n", "X: 1\r\n"),
        ("Content_Length: 5\r\ncontent_length: 5\r\n", ""),
        (
            "X_Forwarded_For: 1.2.3.4\r\nX-Forwarded_For: 1.2.3.4\r\n",
            "",
        ),
        ("X_Real_IP: 1.2.3.4\r\nX_FORWARDED_PROTO: https\r\n", ""),
        ("X_Forwarded-Host: b\r\nProxy_Connection: x\r\n", ""),
        ("HTTP2_Settings: x\r\nKeep_Alive: 5\r\n", ""),
        ("X.Forwarded.For: 1.2.3.4\r\nX.Real.IP: 1.2.3.4\r\n", ""),
        ("X!Forwarded-Proto: https\r\nx~forwarded-HOST: b\r\n", ""),
        ("X-Forwarded+Port: 443\r\nX-Forwarded-My.Port: 443\r\n", ""),
        ("X.Graygate: 1\r\nX|Graygate-Pool: pre\r\n", ""),
        ("Transfer^Encoding: chunked\r\nContent`Length: 5\r\n", ""),
        // What a CGI program takes for its own setting.
        ("Proxy: http://evil.example/\r\nPROXY: x\r\n", ""),
        (
            "Proxy-Status: a\r\nProxys: 1\r\n",
            "Proxy-Status: a\r\nProxys: 1\r\n",
        ),
        // What they read as a field that decides nothing.
        (
            "User_Agent: u\r\nMax_Forwards: 0\r\nUser.Agent: u\r\n",
            "User_Agent: u\r\nMax_Forwards: 0\r\nUser.Agent: u\r\n",
        ),
        (
            "X.Frame_Options: 1\r\nX.Gray: 1\r\n",
            "X.Frame_Options: 1\r\nX.Gray: 1\r\n",
        ),
        // What only the gateway may say.
        ("X-Forwarded-For: 1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\n", ""),
        ("X-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\n", ""),
        (
            "Forwarded: for=1.2.3.4;proto=https\r\nforwarded: by=x\r\n",
            "",
        ),
        ("X-Forwarded-Port: 443\r\nX-Forwarded_Server: b\r\n", ""),
        // It means something with OPTIONS only.
        ("Max-Forwards: 0\r\n", "Max-Forwards: 0\r\n"),
        ("X-Graygate: 1\r\nx-graygate-pool: pre\r\n", ""),
        (
            "X_Graygate: 1\r\nX-GraygateX: 1\r\nX-Gray: 1\r\n",
            "X-Gray: 1\r\n",
        ),
    ];
    for (sent, passed) in table {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{sent}\r\n");
        let expected = format!("GET / HTTP/1.1\r\nHost: a\r\n{passed}{}\r\n", ours("a"));
        assert_eq!(passed_on(&gateway, &origin, request), expected, "{sent}");
    }
}

#[test]
fn framing_is_written_anew_whatever_the_client_has_made_of_it() {
    let origin = obliging();
    let gateway = Gateway::serving(&origin);
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    let (chunked, length) = ("Transfer-Encoding: chunked\r\n", "Content-Length: 5\r\n");
    let table = [
        ("Transfer-Encoding: chunked\r\n", chunks, chunked),
        ("Transfer-Encoding:chunked\r\n", chunks, chunked),
        ("transfer-encoding: \t CHUNKED \t \r\n", chunks, chunked),
        ("Transfer-Encoding: Chunked\t\r\n", chunks, chunked),
        (
            "Transfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n",
            chunks,
            chunked,
        ),
        (
            "Content_Length: 3\r\nTransfer-Encoding: chunked\r\n",
            chunks,
            chunked,
        ),
        ("content-length:5\r\n", "hello", length),
        ("Content-Length: \t5 \r\n", "hello", length),
        ("Content-Length: 0000000000005\r\n", "hello", length),
        (
            "Connection: Content-Length\r\nContent-Length: 5\r\n",
            "hello",
            length,
        ),
        (
            "Transfer_Encoding: chunked\r\nContent-Length: 5\r\n",
            "hello",
            length,
        ),
        ("Content-Length: 0\r\n", "", "Content-Length: 0\r\n"),
        ("", "", ""),
    ];
    for (sent, body, passed) in table {
        let request = format!("PUT / HTTP/1.1\r\nHost: a\r\n{sent}\r\n{body}");
        let ours = ours("a");
        let expected = format!("PUT / HTTP/1.1\r\nHost: a\r\n{ours}{passed}\r\n{body}");
        assert_eq!(passed_on(&gateway, &origin, request), expected, "{sent}");
    }
}

#[test]
fn a_client_that_takes_trailers_says_so_to_the_peer() {
    let origin = obliging();
    let gateway = Gateway::serving(&origin);
    let asked = "Connection: TE\r\nTE: trailers\r\n";
    let table = [
        ("1.1", "TE: trailers\r\nConnection: TE\r\n", asked),
        ("1.1", "te: Trailers\r\n", asked),
        ("1.1", "TE: gzip;q=0.5 , trailers,chunked;q=0\r\n", asked),
        (
            "1.1",
            "TE: gzip\r\nTE: trailers\r\nconnection: te, close\r\n",
            asked,
        ),
        ("1.1", "TE: gzip\r\nConnection: TE\r\n", ""),
        ("1.1", "TE: trailers;q=1\r\nTE: xtrailers\r\nTE:\r\n", ""),
        ("1.0", "TE: trailers\r\nConnection: TE\r\n", ""),
        // Not beside an upgrade.
        (
            "1.1",
            "TE: trailers\r\nConnection: TE, Upgrade\r\nUpgrade: x\r\n",
            "Connection: Upgrade\r\nUpgrade: x\r\n",
        ),
    ];
    for (version, sent, passed) in table {
        let request = format!("GET / HTTP/{version}\r\nHost: a\r\n{sent}\r\n");
        let expected = format!("GET / HTTP/1.1\r\nHost: a\r\n{}{passed}\r\n", ours("a"));
        assert_eq!(passed_on(&gateway, &origin, request), expected, "{sent}");
    }
}

#[test]
fn trailers_are_announced_wherever_they_pass() {
    let origin = obliging();
    let gateway = Gateway::serving(&origin);
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    let body = "2\r\nab\r\n0\r\ngrpc-status: 0\r\n\r\n";
    let request = format!(
        "POST / HTTP/1.1\r\nHost: a\r\ntrailer: grpc-status\r\nTE: trailers\r\n{chunked}{body}"
    );
    let ours = ours("a");
    let expected = format!(
        "POST / HTTP/1.1\r\nHost: a\r\ntrailer: grpc-status\r\n{ours}\
         Transfer-Encoding: chunked\r\nConnection: TE\r\nTE: trailers\r\n\r\n{body}"
    );
    assert_eq!(passed_on(&gateway, &origin, request), expected);
    // Not where a body has none, nor where the client says that it is of its hop.
    for fields in [
        "Trailer: a\r\nContent-Length: 2\r\n\r\nab",
        "Trailer: a\r\nConnection: trailer\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}");
        let passed = passed_on(&gateway, &origin, request);
        assert!(!passed.contains("railer"), "{passed}");
    }
    // The same in the other direction.
    let said = format!("HTTP/1.1 200 OK\r\nTrailer: grpc-status\r\n{chunked}{body}");
    let origin = Origin::saying(said.clone());
    let gateway = Gateway::serving(&origin);
    let got = gateway.connect().get("/").bytes();
    assert_eq!(String::from_utf8_lossy(&got), said);
    let mut old = gateway.connect();
    old.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let got = String::from_utf8_lossy(&old.rest()).into_owned();
    assert_eq!(got, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nab");
}

#[test]
fn what_http10_does_not_know_is_not_asked_of_the_peer() {
    let origin = obliging();
    let gateway = Gateway::serving(&origin);
    let table = [
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "Connection: keep-alive\r\n",
        "Expect: 100-continue\r\n",
        // Not even understood.
        "Expect: anything\r\n",
    ];
    for sent in table {
        let request = format!("PUT / HTTP/1.0\r\nHost: a\r\n{sent}Content-Length: 2\r\n\r\nab");
        let ours = ours("a");
        let expected = format!("PUT / HTTP/1.1\r\nHost: a\r\n{ours}Content-Length: 2\r\n\r\nab");
        assert_eq!(passed_on(&gateway, &origin, request), expected, "{sent}");
    }
}

#[test]
fn what_connection_names_is_dropped_from_the_trailer_too() {
    let origin = obliging();
    let gateway = Gateway::serving(&origin);
    let body = "2\r\nab\r\n0\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    let request = format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nConnection: x-one, X-Two\r\nX-One: 1\r\n{chunked}{body}\
         X-One: 1\r\nx-two: 2\r\nX-Three: 3\r\n\r\n"
    );
    let ours = ours("a");
    let expected = format!("PUT / HTTP/1.1\r\nHost: a\r\n{ours}{chunked}{body}X-Three: 3\r\n\r\n");
    assert_eq!(passed_on(&gateway, &origin, request), expected);
    // The same in the other direction.
    let origin = Origin::saying(format!(
        "HTTP/1.1 200 OK\r\nConnection: x-one\r\n{chunked}{body}X-One: 1\r\nX-Three: 3\r\n\r\n"
    ));
    let got = Gateway::serving(&origin).connect().get("/").bytes();
    let expected = format!("HTTP/1.1 200 OK\r\n{chunked}{body}X-Three: 3\r\n\r\n");
    assert_eq!(String::from_utf8_lossy(&got), expected);
}

#[test]
fn an_options_goes_as_many_hops_as_it_says() {
    let origin = obliging();
    let gateway = Gateway::serving(&origin);
    for (sent, passed) in [
        ("3", "2"),
        ("1", "0"),
        ("010", "9"),
        ("99999999999999999999", "18446744073709551614"),
        ("x", "x"),
        ("", ""),
        ("-1", "-1"),
    ] {
        let request = format!("OPTIONS * HTTP/1.1\r\nHost: a\r\nmax-forwards: {sent}\r\n\r\n");
        let expected = format!(
            "OPTIONS * HTTP/1.1\r\nHost: a\r\nmax-forwards: {passed}\r\n{}\r\n",
            ours("a")
        );
        assert_eq!(passed_on(&gateway, &origin, request), expected);
    }
}

#[test]
fn trailer_fields_pass_unless_something_was_decided_without_them() {
    let origin = obliging();
    let gateway = Gateway::serving(&origin);
    let never = [
        "Transfer-Encoding",
        "Content-Length",
        "Content_Length",
        "Content.Length",
        "Host",
        "Connection",
        "Keep-Alive",
        "TE",
        "Trailer",
        "Upgrade",
        "Expect",
        "Authorization",
        "Proxy-Authorization",
        "Proxy-Authentication-Info",
        "Cookie",
        "X-Forwarded-For",
        "X_Forwarded_For",
        "X!Forwarded*Port",
        "X.Real.IP",
        "Proxy.Authorization",
        "Proxy",
        "X.Graygate",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Real-IP",
        "Forwarded",
        "Via",
        "Max-Forwards",
        "Cache-Control",
        "Content-Type",
        "Content-Encoding",
        "Content-Range",
        "Range",
        "X-Graygate-Pool",
    ];
    let lines: String = never
        .iter()
        .map(|name| format!("{name}: 1\r\n{}: 1\r\n", name.to_lowercase()))
        .collect();
    let request = format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\
         X-Sum: 1\r\n{lines}x-sum:  2 \r\nETag: x\r\n\r\n"
    );
    let ours = ours("a");
    let expected = format!(
        "PUT / HTTP/1.1\r\nHost: a\r\n{ours}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\
         X-Sum: 1\r\nx-sum: 2\r\nETag: x\r\n\r\n"
    );
    assert_eq!(passed_on(&gateway, &origin, request), expected);
    // The same in the other direction.
    let origin = Origin::saying(format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\
         X-Sum: 1\r\n{lines}Set-Cookie: 1\r\nWWW-Authenticate: 1\r\nETag: x\r\n\r\n"
    ));
    let gateway = Gateway::serving(&origin);
    let expected = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\
                    X-Sum: 1\r\nETag: x\r\n\r\n";
    let response = gateway.connect().get("/");
    assert_eq!(String::from_utf8_lossy(&response.bytes()), expected);
}

#[test]
fn the_status_passes_to_the_byte() {
    for status in [
        "200 ",
        "299 As You Like",
        "404 N\u{e4}\u{fc} gefunden\t!",
        "599 two  spaces ",
        "999 no status of HTTP",
    ] {
        let response = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nab");
        let origin = Origin::saying(response.clone());
        let got = Gateway::serving(&origin).connect().get("/").bytes();
        assert_eq!(String::from_utf8_lossy(&got), response);
    }
}

#[test]
fn response_fields_that_mean_nothing_to_a_gateway_pass_and_those_of_a_hop_do_not() {
    // What the origin says besides its length, and what of it the client gets.
    let table = [
        (
            "b: 2\r\nA: 1\r\nB:\r\na:1\r\nSet-Cookie: c\r\nSet-Cookie: d\r\n",
            "b: 2\r\nA: 1\r\nB: \r\na: 1\r\nSet-Cookie: c\r\nSet-Cookie: d\r\n",
        ),
        (
            "Server: s\r\nVia: 1.1 v\r\nX: \u{e4}\t\"\r\n",
            "Server: s\r\nVia: 1.1 v\r\nX: \u{e4}\t\"\r\n",
        ),
        ("Connection: x\r\nX: 1\r\nY: 2\r\n", "Y: 2\r\n"),
        ("X: 1\r\nConnection: close, X\r\nx: 3\r\n", ""),
        ("Connection: content-length\r\n", ""),
        ("Connection: close\r\n", ""),
        ("Keep-Alive: timeout=5\r\nProxy-Connection: x\r\n", ""),
        ("TE: x\r\nTrailer: X\r\nHTTP2-Settings: x\r\n", ""),
        ("Upgrade: h2c\r\nConnection: Upgrade\r\n", ""),
        ("Upgrade: websocket\r\n", ""),
        ("Transfer_Encoding: chunked\r\nContent_Length: 9\r\n", ""),
        ("X-Graygate-Pool: pre\r\nX_Graygate: 1\r\n", ""),
        ("Transfer.Encoding: chunked\r\nContent+Length: 9\r\n", ""),
        ("X.Graygate-Pool: pre\r\nX-Graygate.Pool: pre\r\n", ""),
        (
            "X.Frame.Options: 1\r\nUser_Agent: u\r\n",
            "X.Frame.Options: 1\r\nUser_Agent: u\r\n",
        ),
    ];
    for (said, passed) in table {
        let response =
            |fields| format!("HTTP/1.1 299 As You Like\r\n{fields}Content-Length: 2\r\n\r\nab");
        let origin = Origin::saying(response(said));
        let gateway = Gateway::serving(&origin);
        let mut client = gateway.connect();
        for _ in 0..2 {
            let got = client.get("/").bytes();
            assert_eq!(String::from_utf8_lossy(&got), response(passed), "{said}");
        }
    }
}
