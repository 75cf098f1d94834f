//! Every byte from 0x00 to 0xff at every position of a message where a byte could matter: what the
//! grammar allows passes unchanged, and everything else is refused.
//!
//! The verdicts are computed here from the grammar (RFC 9110 section 5, RFC 9112 sections 2 to 7,
//! RFC 3986 section 3.2.2) and from where the gateway is stricter on purpose; no code of the
//! gateway's has a say.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use support::{Client, Gateway, Origin, ok};

/// Stands behind every refused request, and must never be taken for one.
const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

fn bytes() -> impl Iterator<Item = u8> {
    0..=255
}

/// RFC 9110 section 5.6.2.
fn is_tchar(byte: u8) -> bool {
    matches!(byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z')
}

/// RFC 9110 section 5.5: what may stand inside a field's value.
fn is_in_value(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// RFC 9110 section 5.6.3: white space, which is no part of a value at its edges.
fn is_ows(byte: u8) -> bool {
    matches!(byte, b'\t' | b' ')
}

/// RFC 3986 section 3.2.2: what may stand in a host's name, besides percent-encoding. The comma is
/// left out: two hosts joined by a careless hop look like that.
fn is_in_host(byte: u8) -> bool {
    matches!(byte,
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~'
        | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=')
}

/// RFC 9112 section 3.2 would have URI characters only. What else is visible is in use, and no two
/// parsers disagree about it; nor do they about where a line with bytes from 0x80 on ends.
fn is_in_target(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0x80..) && byte != b'#'
}

/// Parts joined to a message.
macro_rules! message {
    ($($part:expr),*) => { [$(&$part[..]),*].concat() };
}

/// The head of a request as the peer gets it.
fn at_peer(method: &[u8], target: &[u8], host: &[u8], fields: &[u8], framing: &[u8]) -> Vec<u8> {
    message!(
        method,
        b" ",
        target,
        b" HTTP/1.1\r\nHost: ",
        host,
        b"\r\n",
        fields,
        b"X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n",
        b"X-Forwarded-Host: ",
        host,
        b"\r\n",
        framing,
        b"\r\n"
    )
}

/// The same with one field, or none.
fn with_field(field: &[u8]) -> Vec<u8> {
    at_peer(b"GET", b"/", b"a", field, b"")
}

/// A request, and what the peer gets of it: nothing when it must be refused.
type Case = (Vec<u8>, Option<Vec<u8>>);

/// Where the byte stands, and the case of each.
type At<T> = (&'static str, fn(u8) -> T);
type Position = At<Case>;

/// A request that has but one field besides Host.
fn field_case(line: &[u8], passes: bool, passed: &[u8]) -> Case {
    let request = message!(b"GET / HTTP/1.1\r\nHost: a\r\n", line, b"\r\n\r\n");
    (request, passes.then(|| with_field(passed)))
}

/// A request of the form `line CR LF Host: a`.
fn line_case(line: &[u8], passed: Option<Vec<u8>>) -> Case {
    (message!(line, b"\r\nHost: a\r\n\r\n"), passed)
}

fn host_case(host: &[u8], passes: bool) -> Case {
    let request = message!(b"GET / HTTP/1.1\r\nHost: ", host, b"\r\n\r\n");
    (
        request,
        passes.then(|| at_peer(b"GET", b"/", host.trim_ascii(), b"", b"")),
    )
}

const REQUEST_LINES: &[Position] = &[
    ("first byte of all", |byte| {
        let passed =
            is_tchar(byte).then(|| at_peer(&message!([byte], b"GET"), b"/", b"a", b"", b""));
        line_case(&message!([byte], b"GET / HTTP/1.1"), passed)
    }),
    ("inside the method", |byte| {
        let method = message!(b"A", [byte], b"B");
        let passed = is_tchar(byte).then(|| at_peer(&method, b"/", b"a", b"", b""));
        line_case(&message!(method, b" / HTTP/1.1"), passed)
    }),
    ("between method and target", |byte| {
        let passed = (byte == b' ').then(|| with_field(b""));
        line_case(&message!(b"GET", [byte], b"/ HTTP/1.1"), passed)
    }),
    ("begin of the target", |byte| {
        let target = message!([byte], b"x");
        let passed = (byte == b'/').then(|| at_peer(b"GET", &target, b"a", b"", b""));
        line_case(&message!(b"GET ", target, b" HTTP/1.1"), passed)
    }),
    ("inside the target", |byte| {
        let target = message!(b"/x", [byte], b"y");
        let passed = is_in_target(byte).then(|| at_peer(b"GET", &target, b"a", b"", b""));
        line_case(&message!(b"GET ", target, b" HTTP/1.1"), passed)
    }),
    ("inside the query", |byte| {
        let target = message!(b"/?x", [byte]);
        let passed = is_in_target(byte).then(|| at_peer(b"GET", &target, b"a", b"", b""));
        line_case(&message!(b"GET ", target, b" HTTP/1.1"), passed)
    }),
    ("inside the path of an absolute target", |byte| {
        let path = message!(b"/x", [byte], b"y");
        let passed = is_in_target(byte).then(|| at_peer(b"GET", &path, b"b", b"", b""));
        line_case(&message!(b"GET http://b", path, b" HTTP/1.1"), passed)
    }),
    ("inside the authority of an absolute target", |byte| {
        let host = message!(b"b", [byte], b"zz");
        let rest = match byte {
            b'/' => Some(&b"/zz"[..]),
            b'?' => Some(&b"/?zz"[..]),
            _ => None,
        };
        let passed = match rest {
            Some(rest) => Some(at_peer(b"GET", rest, b"b", b"", b"")),
            None => is_in_host(byte).then(|| at_peer(b"GET", b"/", &host, b"", b"")),
        };
        line_case(&message!(b"GET http://", host, b" HTTP/1.1"), passed)
    }),
    ("between target and version", |byte| {
        let passed = (byte == b' ').then(|| with_field(b""));
        line_case(&message!(b"GET /", [byte], b"HTTP/1.1"), passed)
    }),
    ("inside the version's name", |byte| {
        let passed = (byte == b'T').then(|| with_field(b""));
        line_case(&message!(b"GET / H", [byte], b"TP/1.1"), passed)
    }),
    ("the major version", |byte| {
        let passed = (byte == b'1').then(|| with_field(b""));
        line_case(&message!(b"GET / HTTP/", [byte], b".1"), passed)
    }),
    ("inside the version", |byte| {
        let passed = (byte == b'.').then(|| with_field(b""));
        line_case(&message!(b"GET / HTTP/1", [byte], b"1"), passed)
    }),
    ("the minor version", |byte| {
        let passed = matches!(byte, b'0' | b'1').then(|| with_field(b""));
        line_case(&message!(b"GET / HTTP/1.", [byte]), passed)
    }),
    ("behind the version", |byte| {
        line_case(&message!(b"GET / HTTP/1.1", [byte]), None)
    }),
    ("in place of the line's CR", |byte| {
        let passed = (byte == b'\r').then(|| with_field(b""));
        let request = message!(b"GET / HTTP/1.1", [byte], b"\nHost: a\r\n\r\n");
        (request, passed)
    }),
];

const FIELDS: &[Position] = &[
    ("begin of a field's name", |byte| {
        let line = message!([byte], b"X: v");
        field_case(&line, is_tchar(byte), &message!(line, b"\r\n"))
    }),
    ("inside a field's name", |byte| {
        // A colon ends the name.
        let (line, passed) = match byte {
            b':' => (b"X:Y: v".to_vec(), b"X: Y: v\r\n".to_vec()),
            _ => (
                message!(b"X", [byte], b"Y: v"),
                message!(b"X", [byte], b"Y: v\r\n"),
            ),
        };
        field_case(&line, is_tchar(byte) || byte == b':', &passed)
    }),
    ("between a field's name and the colon", |byte| {
        let passed = match byte {
            b':' => b"X: : v\r\n".to_vec(),
            _ => message!(b"X", [byte], b": v\r\n"),
        };
        let line = message!(b"X", [byte], b": v");
        field_case(&line, is_tchar(byte) || byte == b':', &passed)
    }),
    ("begin of a field's value", |byte| {
        let value = if is_ows(byte) { vec![] } else { vec![byte] };
        let line = message!(b"X:", [byte], b"v");
        field_case(&line, is_in_value(byte), &message!(b"X: ", value, b"v\r\n"))
    }),
    ("inside a field's value", |byte| {
        let line = message!(b"X: v", [byte], b"w");
        field_case(&line, is_in_value(byte), &message!(line, b"\r\n"))
    }),
    ("end of a field's value", |byte| {
        let value = if is_ows(byte) { vec![] } else { vec![byte] };
        let line = message!(b"X: v", [byte]);
        field_case(&line, is_in_value(byte), &message!(b"X: v", value, b"\r\n"))
    }),
    ("a field's only byte of a value", |byte| {
        let value = if is_ows(byte) { vec![] } else { vec![byte] };
        let line = message!(b"X:", [byte]);
        field_case(&line, is_in_value(byte), &message!(b"X: ", value, b"\r\n"))
    }),
    ("in place of a field's CR", |byte| {
        let line = message!(b"X: v", [byte], b"\nY: w");
        field_case(&line, byte == b'\r', b"X: v\r\nY: w\r\n")
    }),
    ("inside a Connection field", |byte| {
        // A list of tokens; none of these names a field that is there.
        let line = message!(b"Connection: x", [byte], b"y");
        let passes = is_tchar(byte) || byte == b',';
        field_case(&line, passes, b"")
    }),
    ("inside a Host", |byte| {
        host_case(&message!(b"a", [byte], b"zz"), is_in_host(byte))
    }),
    ("begin of a Host", |byte| {
        host_case(&message!([byte], b"a"), is_in_host(byte) || is_ows(byte))
    }),
    ("end of a Host", |byte| {
        // An empty port is allowed (RFC 3986 section 3.2.3).
        let passes = is_in_host(byte) || is_ows(byte) || byte == b':';
        host_case(&message!(b"a", [byte]), passes)
    }),
    ("inside a Host's port", |byte| {
        host_case(&message!(b"a:8", [byte], b"0"), byte.is_ascii_digit())
    }),
    ("inside a Host's IPv6 address", |byte| {
        let digit = byte.is_ascii_hexdigit();
        host_case(&message!(b"[", [byte], b"::1]"), digit)
    }),
    ("behind a Host's IPv6 address", |byte| {
        host_case(&message!(b"[::1]", [byte]), byte == b':' || is_ows(byte))
    }),
];

/// The bodies of every byte at all positions of the chunked coding, in a message that may have white
/// space around extensions or not.
fn bodies(bws: bool) -> impl Iterator<Item = (String, Coded)> {
    let plain = CHUNKS.iter().flat_map(|(name, coded)| {
        bytes().map(move |byte| (format!("{name}, 0x{byte:02x}"), coded(byte)))
    });
    let extended = EXTENSIONS.iter().flat_map(move |(name, coded)| {
        bytes().map(move |byte| (format!("{name}, 0x{byte:02x}"), coded(byte, bws)))
    });
    plain.chain(extended)
}

/// A request with a body, and what is passed on of its framing field and body.
fn body_case(framing: &[u8], body: &[u8], passed: Option<(&[u8], &[u8])>) -> Case {
    let request = message!(b"PUT / HTTP/1.1\r\nHost: a\r\n", framing, b"\r\n\r\n", body);
    let passed = passed.map(|(framing, body)| {
        let head = at_peer(b"PUT", b"/", b"a", b"", &message!(framing, b"\r\n"));
        message!(head, body)
    });
    (request, passed)
}

const CHUNKED: &[u8] = b"Transfer-Encoding: chunked";
const HELLO: &[u8] = b"5\r\nhello\r\n0\r\n\r\n";

fn coding_case(value: &[u8], passes: bool) -> Case {
    let framing = message!(b"Transfer-Encoding:", value);
    body_case(&framing, HELLO, passes.then_some((CHUNKED, HELLO)))
}

/// `Content-Length` with this value, which is so many bytes if it is one.
fn length_case(value: &[u8], length: Option<usize>) -> Case {
    let body = vec![b'x'; length.unwrap_or(5)];
    let anew = length.map(|it| format!("Content-Length: {it}").into_bytes());
    let passed = anew.as_ref().map(|anew| (&anew[..], &body[..]));
    body_case(&message!(b"Content-Length:", value), &body, passed)
}

fn digit(byte: u8) -> Option<usize> {
    byte.is_ascii_digit().then(|| usize::from(byte - b'0'))
}

const FRAMING: &[Position] = &[
    ("before a coding", |byte| {
        coding_case(&message!([byte], b"chunked"), is_ows(byte))
    }),
    ("inside a coding", |byte| {
        let passes = byte.eq_ignore_ascii_case(&b'n');
        coding_case(&message!(b" chu", [byte], b"ked"), passes)
    }),
    ("behind a coding", |byte| {
        coding_case(&message!(b" chunked", [byte]), is_ows(byte))
    }),
    ("before a length", |byte| {
        let length = match byte {
            byte if is_ows(byte) => Some(5),
            byte => digit(byte).map(|it| it * 10 + 5),
        };
        length_case(&message!([byte], b"5"), length)
    }),
    ("inside a length", |byte| {
        let length = digit(byte).map(|it| 105 + it * 10);
        length_case(&message!(b" 1", [byte], b"5"), length)
    }),
    ("behind a length", |byte| {
        let length = match byte {
            byte if is_ows(byte) => Some(5),
            byte => digit(byte).map(|it| it + 50),
        };
        length_case(&message!(b" 5", [byte]), length)
    }),
];

/// The body of a message in the chunked coding, and its content and trailer: nothing when it must
/// be refused.
type Coded = (Vec<u8>, Option<(Vec<u8>, &'static [u8])>);

/// One chunk that begins with `line`, of `size` bytes if it is a chunk at all.
fn chunk(line: &[u8], size: Option<usize>) -> Coded {
    let content = vec![b'x'; size.unwrap_or(1)];
    let body = match size {
        // It is the last one.
        Some(0) => message!(line, b"\r\n\r\n"),
        _ => message!(line, b"\r\n", content, b"\r\n0\r\n\r\n"),
    };
    (body, size.map(|_| (content, &b""[..])))
}

fn hex(byte: u8) -> Option<usize> {
    let digit = (byte as char).to_digit(16);
    digit.map(|digit| digit as usize)
}

fn one_if(passes: bool) -> Option<usize> {
    passes.then_some(1)
}

/// A trailer section of one line, with a field that is never passed on.
fn trailer(line: &[u8], passes: bool) -> Coded {
    let body = message!(b"1\r\nx\r\n0\r\n", line, b"\r\n\r\n");
    (body, passes.then(|| (b"x".to_vec(), &b""[..])))
}

/// What a byte makes of a body, where blanks may be or not.
type OfByte = fn(u8, bool) -> Coded;

/// White space around the parts of an extension is allowed by RFC 9112 section 7.1.1, and here in
/// responses only: parsers have disagreed about it. Old servers pad the size with it.
const EXTENSIONS: &[(&str, OfByte)] = &[
    ("behind a chunk's size", |byte, bws| {
        let size = match byte {
            byte if is_ows(byte) && bws => Some(1),
            byte => hex(byte).map(|it| 16 + it),
        };
        chunk(&[b'1', byte], size)
    }),
    ("behind an extension's quoted value", |byte, bws| {
        let passes = is_ows(byte) && bws;
        chunk(&message!(b"1;a=\"b\"", [byte]), one_if(passes))
    }),
    ("between a chunk's size and its extension", |byte, bws| {
        let size = match byte {
            // A second semicolon is an extension without a name.
            b';' => None,
            byte if is_ows(byte) && bws => Some(1),
            byte => hex(byte).map(|it| 16 + it),
        };
        chunk(&message!(b"1", [byte], b";a"), size)
    }),
    ("begin of an extension", |byte, bws| {
        let passes = is_tchar(byte) || (is_ows(byte) && bws);
        chunk(&message!(b"1;", [byte], b"a"), one_if(passes))
    }),
    ("inside an extension's name", |byte, _| {
        let passes = is_tchar(byte) || byte == b';' || byte == b'=';
        chunk(&message!(b"1;a", [byte], b"b"), one_if(passes))
    }),
    ("behind an extension's name", |byte, bws| {
        let passes = is_tchar(byte) || (is_ows(byte) && bws);
        chunk(&message!(b"1;a", [byte], b"=b"), one_if(passes))
    }),
    ("begin of an extension's value", |byte, bws| {
        let passes = is_tchar(byte) || (is_ows(byte) && bws);
        chunk(&message!(b"1;a=", [byte], b"b"), one_if(passes))
    }),
    ("inside an extension's value", |byte, _| {
        let passes = is_tchar(byte) || byte == b';';
        chunk(&message!(b"1;a=b", [byte], b"c"), one_if(passes))
    }),
    ("behind an extension's value", |byte, bws| {
        let passes = is_tchar(byte) || (is_ows(byte) && bws);
        chunk(&message!(b"1;a=b", [byte], b";c"), one_if(passes))
    }),
    (
        "between an extension's quoted value and the next",
        |byte, bws| {
            let passes = is_ows(byte) && bws;
            chunk(&message!(b"1;a=\"b\"", [byte], b";c"), one_if(passes))
        },
    ),
];

const CHUNKS: &[At<Coded>] = &[
    ("a chunk's size", |byte| chunk(&[byte], hex(byte))),
    ("before a chunk's size", |byte| {
        chunk(&[byte, b'2'], hex(byte).map(|it| it * 16 + 2))
    }),
    ("inside an extension's quoted value", |byte| {
        let passes = is_in_value(byte) && byte != b'"';
        chunk(&message!(b"1;a=\"b", [byte], b"c\""), one_if(passes))
    }),
    ("behind a backslash in a quoted value", |byte| {
        let passes = is_in_value(byte);
        chunk(&message!(b"1;a=\"\\", [byte], b"\""), one_if(passes))
    }),
    ("in place of a chunk line's CR", |byte| {
        let body = message!(b"1", [byte], b"\nx\r\n0\r\n\r\n");
        (body, (byte == b'\r').then(|| (b"x".to_vec(), &b""[..])))
    }),
    ("in place of a chunk line's LF", |byte| {
        let body = message!(b"1\r", [byte], b"x\r\n0\r\n\r\n");
        (body, (byte == b'\n').then(|| (b"x".to_vec(), &b""[..])))
    }),
    ("in place of the CR behind a chunk", |byte| {
        let body = message!(b"1\r\nx", [byte], b"\n0\r\n\r\n");
        (body, (byte == b'\r').then(|| (b"x".to_vec(), &b""[..])))
    }),
    ("in place of the LF behind a chunk", |byte| {
        let body = message!(b"1\r\nx\r", [byte], b"0\r\n\r\n");
        (body, (byte == b'\n').then(|| (b"x".to_vec(), &b""[..])))
    }),
    ("inside the name of a trailer field", |byte| {
        let line = message!(b"X-Graygate", [byte], b"Y: v");
        trailer(&line, is_tchar(byte) || byte == b':')
    }),
    ("inside the value of a trailer field", |byte| {
        let line = message!(b"Content-Length: v", [byte], b"w");
        trailer(&line, is_in_value(byte))
    }),
    ("in place of a trailer line's CR", |byte| {
        let body = message!(b"1\r\nx\r\n0\r\nHost: v", [byte], b"\n\r\n");
        (body, (byte == b'\r').then(|| (b"x".to_vec(), &b""[..])))
    }),
    ("in place of the last CR", |byte| {
        let body = message!(b"1\r\nx\r\n0\r\n", [byte], b"\n");
        // Anything else begins a trailer field that does not end.
        (body, (byte == b'\r').then(|| (b"x".to_vec(), &b""[..])))
    }),
];

/// Sends the request of every case, and checks that the answer is a refusal and the end, or that
/// the peer got exactly what it should.
fn check(cases: impl Iterator<Item = (String, Case)>) {
    let origin = Origin::answering(|_| ok(""));
    let gateway = Gateway::serving(&origin);
    let (mut passed, mut refused) = (0, 0);
    for (name, (request, expected)) in cases {
        let of = format!("{name}: {}", request.escape_ascii());
        // As many as there are cases.
        let mut client = gateway.connect_from_another();
        let own = client.wire.stream.local_addr().unwrap().ip().to_string();
        match expected {
            Some(expected) => {
                client.send(&request);
                assert_eq!(client.response().status(), 200, "{of}");
                passed += 1;
                let requests = origin.seen(|it| it.requests.len());
                assert_eq!(requests, passed, "{of}");
                let received = origin.last().bytes();
                let (received, expected) = (received.escape_ascii(), expected.escape_ascii());
                let received = received.to_string().replace(&own, "127.0.0.1");
                assert_eq!(received, expected.to_string(), "{of}");
            }
            None => {
                client.send_if_open([&request, SMUGGLED].concat());
                expect_refusal(&mut client, &of);
                refused += 1;
            }
        }
    }
    // Nothing of a refused request was complete for a peer, nor what stood behind it.
    assert_eq!(origin.requests().len(), passed);
    assert!(passed > 0 && refused > 0);
    assert_eq!(gateway.metric("graygate_panics_total"), 0.0);
}

#[track_caller]
fn expect_refusal(client: &mut Client, of: &str) {
    let response = client.response();
    let status = response.status();
    assert!(matches!(status, 400 | 501 | 505), "{status} to {of}");
    let length = response.content.len().to_string();
    assert_eq!(response.field("content-length"), Some(length), "{of}");
    assert_eq!(response.field("connection").as_deref(), Some("close"));
    client.expect_close();
}

/// The cases of every byte at these positions.
fn at(positions: &'static [Position]) -> impl Iterator<Item = (String, Case)> {
    let each = |(name, case): &'static Position| {
        bytes().map(move |byte| (format!("{name}, 0x{byte:02x}"), case(byte)))
    };
    positions.iter().flat_map(each)
}

#[test]
fn every_byte_in_a_request_line_passes_or_is_refused_by_the_grammar() {
    check(at(REQUEST_LINES));
}

#[test]
fn every_byte_in_a_field_passes_or_is_refused_by_the_grammar() {
    check(at(FIELDS));
}

#[test]
fn every_byte_in_a_framing_field_passes_or_is_refused_by_the_grammar() {
    check(at(FRAMING));
}

/// The body as the gateway writes it: in one chunk, without extensions.
fn recoded(content: &[u8], trailer: &[u8]) -> Vec<u8> {
    let chunk = match content {
        [] => vec![],
        content => message!(
            format!("{:x}\r\n", content.len()).as_bytes(),
            content,
            b"\r\n"
        ),
    };
    message!(chunk, b"0\r\n", trailer, b"\r\n")
}

#[test]
fn every_byte_in_the_chunked_coding_of_a_request_passes_or_is_refused_by_the_grammar() {
    check(bodies(false).map(|(name, (body, meant))| {
        let recoded = meant.map(|(content, trailer)| recoded(&content, trailer));
        let passed = recoded.as_ref().map(|it| (CHUNKED, &it[..]));
        (name, body_case(CHUNKED, &body, passed))
    }));
}

/// A response, and what the client gets of it: nothing when it cannot be trusted.
type Said = (Vec<u8>, Option<Vec<u8>>);

fn status_case(line: &[u8], phrase: Option<&[u8]>) -> Said {
    let said = message!(line, b"\r\nContent-Length: 0\r\n\r\n");
    let passed =
        |phrase: &[u8]| message!(b"HTTP/1.1 200 ", phrase, b"\r\nContent-Length: 0\r\n\r\n");
    (said, phrase.map(passed))
}

fn response_field_case(line: &[u8], passes: bool, passed: &[u8]) -> Said {
    let ok = b"HTTP/1.1 200 OK\r\n";
    let said = message!(ok, line, b"\r\nContent-Length: 0\r\n\r\n");
    let passed = message!(ok, passed, b"Content-Length: 0\r\n\r\n");
    (said, passes.then_some(passed))
}

fn response_length_case(value: &[u8], length: Option<usize>) -> Said {
    let content = vec![b'x'; length.unwrap_or(5)];
    let head = |value: &[u8]| message!(b"HTTP/1.1 200 OK\r\nContent-Length:", value, b"\r\n\r\n");
    let said = message!(head(value), content);
    let anew = |length: usize| message!(head(format!(" {length}").as_bytes()), content);
    (said, length.map(anew))
}

fn response_coding_case(value: &[u8], passes: bool) -> Said {
    let head =
        |value: &[u8]| message!(b"HTTP/1.1 200 OK\r\nTransfer-Encoding:", value, b"\r\n\r\n");
    let said = message!(head(value), HELLO);
    (said, passes.then(|| message!(head(b" chunked"), HELLO)))
}

const RESPONSES: &[At<Said>] = &[
    ("first byte of all", |byte| {
        status_case(&message!([byte], b"HTTP/1.1 200 OK"), None)
    }),
    ("the major version", |byte| {
        let line = message!(b"HTTP/", [byte], b".1 200 OK");
        status_case(&line, (byte == b'1').then_some(b"OK"))
    }),
    ("the minor version", |byte| {
        let line = message!(b"HTTP/1.", [byte], b" 200 OK");
        let passes = matches!(byte, b'0' | b'1');
        status_case(&line, passes.then_some(b"OK"))
    }),
    ("between version and status", |byte| {
        let line = message!(b"HTTP/1.1", [byte], b"200 OK");
        status_case(&line, (byte == b' ').then_some(b"OK"))
    }),
    ("inside the status", |byte| {
        let line = message!(b"HTTP/1.1 2", [byte], b"0 OK");
        // Other digits are other statuses.
        let digit = byte.is_ascii_digit();
        let (said, passed) = status_case(&line, digit.then_some(b"OK"));
        let passed = passed.map(|mut passed| {
            passed[b"HTTP/1.1 2".len()] = byte;
            passed
        });
        (said, passed)
    }),
    ("behind the status", |byte| {
        let line = message!(b"HTTP/1.1 200", [byte], b"OK");
        status_case(&line, (byte == b' ').then_some(b"OK"))
    }),
    ("inside the reason phrase", |byte| {
        let phrase = message!(b"O", [byte], b"K");
        let line = message!(b"HTTP/1.1 200 ", phrase);
        status_case(&line, is_in_value(byte).then_some(&phrase))
    }),
    ("in place of the status line's CR", |byte| {
        let said = message!(b"HTTP/1.1 200 OK", [byte], b"\nContent-Length: 0\r\n\r\n");
        let passed = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec();
        (said, (byte == b'\r').then_some(passed))
    }),
    ("begin of a field's name", |byte| {
        let line = message!([byte], b"X: v");
        response_field_case(&line, is_tchar(byte), &message!(line, b"\r\n"))
    }),
    ("inside a field's name", |byte| {
        let (line, passed) = match byte {
            b':' => (b"X:Y: v".to_vec(), b"X: Y: v\r\n".to_vec()),
            _ => (
                message!(b"X", [byte], b"Y: v"),
                message!(b"X", [byte], b"Y: v\r\n"),
            ),
        };
        response_field_case(&line, is_tchar(byte) || byte == b':', &passed)
    }),
    ("between a field's name and the colon", |byte| {
        let passed = match byte {
            b':' => b"X: : v\r\n".to_vec(),
            _ => message!(b"X", [byte], b": v\r\n"),
        };
        let line = message!(b"X", [byte], b": v");
        response_field_case(&line, is_tchar(byte) || byte == b':', &passed)
    }),
    ("inside a field's value", |byte| {
        let line = message!(b"X: v", [byte], b"w");
        response_field_case(&line, is_in_value(byte), &message!(line, b"\r\n"))
    }),
    ("end of a field's value", |byte| {
        let value = if is_ows(byte) { vec![] } else { vec![byte] };
        let line = message!(b"X: v", [byte]);
        response_field_case(&line, is_in_value(byte), &message!(b"X: v", value, b"\r\n"))
    }),
    ("in place of a field's CR", |byte| {
        let line = message!(b"X: v", [byte], b"\nY: w");
        response_field_case(&line, byte == b'\r', b"X: v\r\nY: w\r\n")
    }),
    ("before a coding", |byte| {
        response_coding_case(&message!([byte], b"chunked"), is_ows(byte))
    }),
    ("behind a coding", |byte| {
        response_coding_case(&message!(b" chunked", [byte]), is_ows(byte))
    }),
    ("before a length", |byte| {
        let length = match byte {
            byte if is_ows(byte) => Some(5),
            byte => digit(byte).map(|it| it * 10 + 5),
        };
        response_length_case(&message!([byte], b"5"), length)
    }),
    ("behind a length", |byte| {
        let length = match byte {
            byte if is_ows(byte) => Some(5),
            byte => digit(byte).map(|it| it + 50),
        };
        response_length_case(&message!(b" 5", [byte]), length)
    }),
];

/// Lets an origin say each of these, and checks that the client gets exactly what it should, or a
/// 502 and nothing else.
fn check_responses(cases: impl Iterator<Item = (String, Said)>) {
    let cases: Arc<[(String, Said)]> = cases.collect();
    let script = Arc::clone(&cases);
    let origin = Origin::scripted(move |conn| {
        while let Some(request) = conn.request()? {
            let at: usize = request.head.target()[1..].parse().unwrap();
            conn.send(&script[at].1.0)?;
        }
        Ok(())
    });
    let gateway = Gateway::serving(&origin);
    let mut client = gateway.connect();
    let (mut passed, mut distrusted) = (0, 0);
    for (at, (name, (said, expected))) in cases.iter().enumerate() {
        let of = format!("{name}: {}", said.escape_ascii());
        let response = client.ask(format!("POST /{at} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let got = response.bytes().escape_ascii().to_string();
        match expected {
            Some(expected) => {
                assert_eq!(got, expected.escape_ascii().to_string(), "{of}");
                passed += 1;
            }
            None => {
                assert_eq!(response.status(), 502, "{of}: {got}");
                let text = response.text();
                assert!(text.starts_with("502 Bad Gateway: bad-response-"), "{text}");
                distrusted += 1;
                // Such a connection is never used again.
                origin.wait_closed(distrusted);
            }
        }
    }
    assert!(passed > 0 && distrusted > 0);
    assert_eq!(origin.requests().len(), cases.len());
}

#[test]
fn every_byte_in_a_response_head_passes_or_is_distrusted_by_the_grammar() {
    check_responses(RESPONSES.iter().flat_map(|(name, said)| {
        bytes().map(move |byte| (format!("{name}, 0x{byte:02x}"), said(byte)))
    }));
}

#[test]
fn every_byte_in_the_chunked_coding_of_a_response_passes_or_is_distrusted_by_the_grammar() {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    check_responses(bodies(true).map(|(name, (body, meant))| {
        let recoded = meant.map(|(content, trailer)| recoded(&content, trailer));
        let passed = recoded.map(|it| message!(head, it));
        (name, (message!(head, body), passed))
    }));
}
