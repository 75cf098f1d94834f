use super::*;
use crate::http::fields::Field;
use crate::http::limits::MAX_FIELDS;

const LIMITS: Limits = Limits {
    line: 60,
    head: 200,
    fields: 5,
};

/// Parses `bytes`, first in one piece, then cut at every position, then byte by byte; all must
/// give the same.
fn request(bytes: &[u8]) -> Result<Parsed, Refusal> {
    request_within(&LIMITS, bytes)
}

fn request_within(limits: &Limits, bytes: &[u8]) -> Result<Parsed, Refusal> {
    let whole = RequestHead::default().parse(bytes, &mut Scanner::default(), limits);
    let in_pieces = |cuts: &mut dyn Iterator<Item = usize>| {
        let (mut scanner, mut head) = (Scanner::default(), RequestHead::default());
        for cut in cuts {
            match head.parse(&bytes[..cut], &mut scanner, limits) {
                Ok(Parsed::Incomplete) => {}
                outcome => return outcome,
            }
        }
        head.parse(bytes, &mut scanner, limits)
    };
    for cut in 0..bytes.len() {
        assert_eq!(in_pieces(&mut [cut].into_iter()), whole, "cut at {cut}");
    }
    assert_eq!(in_pieces(&mut (0..bytes.len())), whole, "byte by byte");
    whole
}

#[test]
fn request_lines_are_strict() {
    let table: &[(&str, Result<(), Refusal>)] = &[
        ("GET / HTTP/1.1", Ok(())),
        ("GET / HTTP/1.0", Ok(())),
        ("PURGE /x?y=%00%2e%2e// HTTP/1.1", Ok(())),
        ("OPTIONS * HTTP/1.1", Ok(())),
        ("GET http://b:80/x HTTP/1.1", Ok(())),
        ("GET HTTPS://[::1]?q HTTP/1.1", Ok(())),
        ("GET  / HTTP/1.1", Err(Refusal::BadRequestLine)),
        ("GET /  HTTP/1.1", Err(Refusal::BadRequestLine)),
        ("GET\t/ HTTP/1.1", Err(Refusal::BadRequestLine)),
        ("GET / HTTP/1.1 ", Err(Refusal::BadRequestLine)),
        (" GET / HTTP/1.1", Err(Refusal::BadRequestLine)),
        ("GET /", Err(Refusal::BadRequestLine)),
        ("GET / HTTP/0.9", Err(Refusal::BadVersion)),
        ("GET / HTTP/2.0", Err(Refusal::BadVersion)),
        ("GET / HTTP/1.10", Err(Refusal::BadVersion)),
        ("GET / HTTP/01.1", Err(Refusal::BadVersion)),
        ("GET / HTTP/1.2", Err(Refusal::BadVersion)),
        ("GET / http/1.1", Err(Refusal::BadRequestLine)),
        ("PRI * HTTP/2.0", Err(Refusal::BadVersion)),
        ("G@T / HTTP/1.1", Err(Refusal::BadMethod)),
        (
            "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1",
            Err(Refusal::BadMethod),
        ),
        ("CONNECT a:80 HTTP/1.1", Err(Refusal::MethodNotAllowed)),
        ("TRACE / HTTP/1.1", Err(Refusal::MethodNotAllowed)),
        ("GET * HTTP/1.1", Err(Refusal::BadTarget)),
        ("GET a HTTP/1.1", Err(Refusal::BadTarget)),
        ("GET /# HTTP/1.1", Err(Refusal::BadTarget)),
        ("GET /\u{7f} HTTP/1.1", Err(Refusal::BadTarget)),
        ("GET /ü?ü HTTP/1.1", Ok(())),
        ("GET http://b/ü HTTP/1.1", Ok(())),
        ("GET http://b?ü HTTP/1.1", Ok(())),
        ("GET http://ü/ HTTP/1.1", Err(Refusal::BadTarget)),
        ("GET http://b:ü/ HTTP/1.1", Err(Refusal::BadTarget)),
        ("GET ü HTTP/1.1", Err(Refusal::BadTarget)),
        ("GET /ü#ü HTTP/1.1", Err(Refusal::BadTarget)),
        ("GET /ü\u{7f} HTTP/1.1", Err(Refusal::BadTarget)),
        ("GET /ü ü HTTP/1.1", Err(Refusal::BadRequestLine)),
        ("GET / HTTP/1.1ü", Err(Refusal::BadVersion)),
        ("Gü / HTTP/1.1", Err(Refusal::BadMethod)),
        ("GET ftp://a/ HTTP/1.1", Err(Refusal::BadTarget)),
        ("GET http:///x HTTP/1.1", Err(Refusal::BadTarget)),
        ("GET http://u@a/ HTTP/1.1", Err(Refusal::BadTarget)),
        (
            "GET /0123456789012345678901234567890123456789012345678901234567890 HTTP/1.1",
            Err(Refusal::LineTooLong),
        ),
    ];
    for (line, expected) in table {
        let outcome = request(format!("{line}\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!(outcome, expected.map(|()| Parsed::Complete), "{line:?}");
    }
}

#[test]
fn fields_are_strict() {
    let table: &[(&str, Result<(), Refusal>)] = &[
        ("Host: a\r\nX:\r\nY: a\tb \u{80}\r\n", Ok(())),
        ("Host: a\r\nX : b\r\n", Err(Refusal::BadField)),
        ("Host: a\r\nX\r\n", Err(Refusal::BadField)),
        ("Host: a\r\n: b\r\n", Err(Refusal::BadField)),
        ("Host: a\r\n X: b\r\n", Err(Refusal::BadField)),
        ("Host: a\r\nX: a\r\n b\r\n", Err(Refusal::BadField)),
        ("Host: a\r\nX(: b\r\n", Err(Refusal::BadField)),
        ("Host: a\r\nX: a\0b\r\n", Err(Refusal::BadField)),
        ("Host: a\r\nX: a\rb\r\n", Err(Refusal::BadField)),
        ("Host: a\r\nX: a\u{1b}b\r\n", Err(Refusal::BadField)),
        ("Host: a\nX: b\r\n", Err(Refusal::BareLineFeed)),
        ("Host: a\r\nX: b\n", Err(Refusal::BareLineFeed)),
        ("X: b\r\n", Err(Refusal::NoHost)),
        ("Host: a\r\nhost: a\r\n", Err(Refusal::ManyHosts)),
        ("Host:\r\n", Err(Refusal::BadHost)),
        ("Host: a,b\r\n", Err(Refusal::BadHost)),
        ("Host: a/b\r\n", Err(Refusal::BadHost)),
        ("Host: u@a\r\n", Err(Refusal::BadHost)),
        ("Host: a:65536\r\n", Err(Refusal::BadHost)),
        ("Host: a:x\r\n", Err(Refusal::BadHost)),
        ("Host: a:80:80\r\n", Err(Refusal::BadHost)),
        ("Host: [::1]:80\r\n", Ok(())),
        ("Host: [::g]\r\n", Err(Refusal::BadHost)),
        ("Host: a%2\r\n", Err(Refusal::BadHost)),
        ("Host: a b\r\n", Err(Refusal::BadHost)),
        (
            "Host: a\r\nA:\r\nB:\r\nC:\r\nD:\r\nE:\r\n",
            Err(Refusal::TooManyFields),
        ),
    ];
    for (fields, expected) in table {
        let outcome = request(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes());
        assert_eq!(outcome, expected.map(|()| Parsed::Complete), "{fields:?}");
    }
}

#[test]
fn a_head_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
    let head = |size: usize| {
        let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        let value = "v".repeat(size - frame);
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n")
    };
    assert_eq!(request(head(200).as_bytes()), Ok(Parsed::Complete));
    assert_eq!(request(head(201).as_bytes()), Err(Refusal::HeadTooLarge));
}

#[test]
fn a_line_that_is_too_long_for_the_head_is_one_that_is_too_long() {
    let limits = Limits {
        line: 200,
        ..LIMITS
    };
    for length in [197, 200, 201, 300] {
        let line = format!("GET /{}", "q".repeat(length - 5));
        let outcome = request_within(&limits, line.as_bytes());
        assert_eq!(outcome, Err(Refusal::LineTooLong), "{length}");
    }
}

#[test]
fn one_empty_line_before_the_head_is_ignored_and_no_second() {
    let head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(
        request(format!("\r\n{head}").as_bytes()),
        Ok(Parsed::Complete)
    );
    assert_eq!(
        request(format!("\r\n\r\n{head}").as_bytes()),
        Err(Refusal::BadRequestLine)
    );
    assert_eq!(
        request(format!("\n{head}").as_bytes()),
        Err(Refusal::BareLineFeed)
    );
}

#[test]
fn a_message_that_is_no_http_is_refused_at_its_first_byte() {
    assert_eq!(request(b"\x16\x03\x01"), Err(Refusal::BadRequestLine));
}

#[test]
fn the_authority_of_an_absolute_target_wins() {
    let bytes = b"GET http://b:1?q HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut head = RequestHead::default();
    let parsed = head.parse(bytes, &mut Scanner::default(), &LIMITS);
    assert_eq!(parsed, Ok(Parsed::Complete));
    assert_eq!(head.authority().map(|it| it.of(bytes)), Some(&b"b:1"[..]));
    let Target::Absolute { rest, .. } = head.form else {
        panic!("{:?}", head.form)
    };
    assert_eq!(rest.of(bytes), b"?q");
}

#[test]
fn response_heads_are_strict() {
    let table: &[(&str, Result<Parsed, BadResponse>)] = &[
        ("HTTP/1.1 200 OK\r\nA: b\r\n\r\n", Ok(Parsed::Complete)),
        ("HTTP/1.0 200 \r\n\r\n", Ok(Parsed::Complete)),
        ("HTTP/1.0 200\r\n\r\n", Err(BadResponse::Malformed)),
        ("HTTP/1.1 200 \r\n\r\n", Ok(Parsed::Complete)),
        ("HTTP/1.1 200 OK\r\n", Ok(Parsed::Incomplete)),
        ("HTTP/1.1 20 OK\r\n\r\n", Err(BadResponse::Malformed)),
        ("HTTP/1.1 2000 OK\r\n\r\n", Err(BadResponse::Malformed)),
        ("HTTP/1.1 099 OK\r\n\r\n", Err(BadResponse::Malformed)),
        ("HTTP/2.0 200 OK\r\n\r\n", Err(BadResponse::Malformed)),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", Err(BadResponse::Malformed)),
        ("HTTP/1.1 200 OK\nA: b\r\n\r\n", Err(BadResponse::Malformed)),
        (
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            Err(BadResponse::Malformed),
        ),
        (
            "HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
            Err(BadResponse::Malformed),
        ),
        (
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            Err(BadResponse::Malformed),
        ),
        (
            "HTTP/1.1 200 OK\r\nA:\r\nB:\r\nC:\r\nD:\r\nE:\r\nF:\r\n\r\n",
            Err(BadResponse::TooLarge),
        ),
    ];
    for (bytes, expected) in table {
        let outcome =
            ResponseHead::default().parse(bytes.as_bytes(), &mut Scanner::default(), &LIMITS);
        assert_eq!(outcome, *expected, "{bytes:?}");
    }
}

#[test]
fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
    let digits = "0".repeat(50);
    let table: &[(&str, bool)] = &[
        ("a", true),
        ("127.0.0.1:29510", true),
        ("a:", true),
        ("a:0", true),
        ("a:65535", true),
        ("a:65536", false),
        ("a:655350", false),
        ("a:4294967376", false),
        ("a:99999999999999999999", false),
        (&format!("a:{digits}80"), true),
        ("a:+80", false),
        ("a:8 0", false),
        ("a:80:80", false),
        ("a::80", false),
        (":80", false),
        ("", false),
        ("a%2f%C3b:1", true),
        ("%41", true),
        ("%4", false),
        ("%", false),
        ("%g1", false),
        ("%1g", false),
        ("a%:80", false),
        ("a%8:0", false),
        ("a%2:", false),
        ("a-._~!$&'()*+;=b", true),
        ("a,b", false),
        ("a/b", false),
        ("a?b", false),
        ("a#b", false),
        ("u@a", false),
        ("u:1@a", false),
        ("a\\b", false),
        ("a b", false),
        ("\u{e4}", false),
        ("[::1]", true),
        ("[::1]:8080", true),
        ("[::1]8080", false),
        ("[::1", false),
        ("[]", false),
        ("[::1%25eth0]", false),
        ("[v1.a]", false),
        ("a]", false),
    ];
    for (text, expected) in table {
        assert_eq!(is_authority(text.as_bytes()), *expected, "{text:?}");
    }
}

/// Parts of a head as they are compared here.
type Parts = (Vec<Vec<u8>>, Vec<(Vec<u8>, Vec<u8>)>);

fn parts(first: &[Span], fields: &[Field], bytes: &[u8]) -> Parts {
    let text = |span: Span| span.of(bytes).to_vec();
    let pair = |field: &Field| (text(field.name), text(field.value));
    (
        first.iter().map(|it| text(*it)).collect(),
        fields.iter().map(pair).collect(),
    )
}

/// `head` with `~` for the bytes from 0x80 on in the second word of its first line: the other parser
/// wants UTF-8 there.
fn in_ascii(head: &[u8]) -> Vec<u8> {
    let mut head = head.to_vec();
    let line = head
        .iter()
        .position(|it| *it == b'\r')
        .unwrap_or(head.len());
    let mut words = head[..line].split_mut(|it| *it == b' ');
    let target = words.nth(1).unwrap_or_default();
    for byte in target.iter_mut().filter(|it| !it.is_ascii()) {
        *byte = b'~';
    }
    head
}

/// The head in `bytes` by a parser that many use, and by what it lets pass although it should not.
fn read_by_httparse(bytes: &[u8], is_request: bool) -> Option<Parts> {
    let mut scanner = Scanner::default();
    let end = scanner.scan(bytes, &LIMITS).ok()??;
    let received = &bytes[scanner.start..end];
    let ascii = in_ascii(received);
    let head = if is_request { &ascii } else { received };
    let mut headers = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let (first, len, headers) = if is_request {
        let mut request = httparse::Request::new(&mut headers);
        let len = request.parse(head).ok()?;
        let (method, target) = (request.method?, request.path?);
        if target.bytes().any(|byte| !is_target_byte(byte)) {
            return None;
        }
        let target = &received[method.len() + 1..][..target.len()];
        let version: &[u8] = [b"0", b"1"][usize::from(request.version?)];
        let first = vec![method.as_bytes(), target, version];
        (first, len, request.headers)
    } else {
        let mut response = httparse::Response::new(&mut headers);
        let len = response.parse(head).ok()?;
        let line = head.split(|byte| *byte == b'\r').next()?;
        if scanner.start > 0 || response.code? < 100 || line.get(12) != Some(&b' ') {
            return None;
        }
        let version: &[u8] = [b"0", b"1"][usize::from(response.version?)];
        (
            vec![&line[13..], &line[9..12], version],
            len,
            response.headers,
        )
    };
    assert_eq!(len, httparse::Status::Complete(head.len()));
    let field = |it: &httparse::Header<'_>| (it.name.as_bytes().to_vec(), it.value.to_vec());
    Some((
        first.into_iter().map(<[u8]>::to_vec).collect(),
        headers.iter().map(field).collect(),
    ))
}

/// The same by what is tested here.
fn read(bytes: &[u8], is_request: bool) -> Option<Parts> {
    let version = |version| match version {
        Version::Http10 => b"0".to_vec(),
        Version::Http11 => b"1".to_vec(),
    };
    if is_request {
        let mut head = RequestHead::default();
        let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
        head.read(bytes, start, &LIMITS)?;
        let (mut first, fields) = parts(&[head.method, head.target], &head.fields, bytes);
        first.push(version(head.version));
        Some((first, fields))
    } else {
        let mut head = ResponseHead::default();
        head.read(bytes, &LIMITS)?;
        let (mut first, fields) = parts(&[head.reason], &head.fields, bytes);
        assert_eq!(head.status.to_string().as_bytes(), &bytes[9..12]);
        first.extend([bytes[9..12].to_vec(), version(head.version)]);
        Some((first, fields))
    }
}

#[test]
fn a_head_is_read_as_another_parser_reads_it_whatever_is_changed() {
    let requests = [
        "GET /a?b HTTP/1.1\r\nHost: a\r\nA-1:x y \r\nB:\r\n\r\n",
        "GET /\u{fc}?\u{8def} HTTP/1.1\r\nA: b\r\n\r\n",
        "\r\nPOST http://a HTTP/1.0\r\nX:\t\u{80}\t\t\r\n\r\nGET",
        "PURGE * HTTP/1.1\r\n\r\n\r\n",
    ];
    let responses = [
        "HTTP/1.1 200 OK\r\nA: b\r\nLonger-Name: longer value of words\r\n\r\n",
        "HTTP/1.0 404 \r\nA:  \r\nB:b\r\n\r\nbody\r\n\r\n",
    ];
    let both = [(true, &requests[..]), (false, &responses[..])];
    for (is_request, text) in both
        .into_iter()
        .flat_map(|(is_request, texts)| texts.iter().map(move |text| (is_request, text)))
    {
        let same = |bytes: &[u8]| {
            let (ours, theirs) = (read(bytes, is_request), read_by_httparse(bytes, is_request));
            assert_eq!(ours, theirs, "{}", bytes.escape_ascii());
            ours.is_some()
        };
        let bytes = text.as_bytes();
        assert!(same(bytes), "{text:?}");
        for at in 0..=bytes.len() {
            same(&bytes[..at]);
            for to in at..bytes.len() {
                same(&[&bytes[..at], &bytes[to..]].concat());
                same(&[&bytes[..to], &bytes[at..]].concat());
            }
            for byte in 0..=u8::MAX {
                same(&[&bytes[..at], &[byte], &bytes[at..]].concat());
                for more in 1..=2 {
                    if let Some(rest) = bytes.get(at + more..) {
                        same(&[&bytes[..at], &[byte], rest].concat());
                    }
                }
            }
        }
    }
}
