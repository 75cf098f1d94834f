//! Heads of messages, and who the client is by what they say.

use std::net::IpAddr;

use graygate::http::client;
use graygate::http::fields::{ConnectionOptions, Field, FieldKind, list};
use graygate::http::h1::encode::{self, Connection, RequestToPeer, ResponseToClient};
use graygate::http::h1::framing::{self, Framing};
use graygate::http::h1::head::{Parsed, RequestHead, ResponseHead, Scanner};
use graygate::http::limits::Limits;
use graygate::http::version::Version;
use ipnet::IpNet;

use super::{LIMITS, WIDE, arrivals};

fn parse_request(
    bytes: &[u8],
    arrivals: &[usize],
    limits: &Limits,
) -> Result<Option<RequestHead>, String> {
    let (mut head, mut scanner) = (RequestHead::default(), Scanner::default());
    for length in arrivals {
        match head.parse(&bytes[..*length], &mut scanner, limits) {
            Ok(Parsed::Complete) => return Ok(Some(head)),
            Ok(Parsed::Incomplete) => {}
            Err(refusal) => return Err(refusal.name().to_owned()),
        }
    }
    Ok(None)
}

fn parse_response(
    bytes: &[u8],
    arrivals: &[usize],
    limits: &Limits,
) -> Result<Option<ResponseHead>, String> {
    let (mut head, mut scanner) = (ResponseHead::default(), Scanner::default());
    for length in arrivals {
        match head.parse(&bytes[..*length], &mut scanner, limits) {
            Ok(Parsed::Complete) => return Ok(Some(head)),
            Ok(Parsed::Incomplete) => {}
            Err(bad) => return Err(format!("{bad:?}")),
        }
    }
    Ok(None)
}

/// Where the first empty line ends, behind at most one at the begin.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let found = bytes[start..].windows(4).position(|it| it == b"\r\n\r\n");
    found.map(|it| it + start + 4)
}

type Pairs<'a> = Vec<(&'a [u8], &'a [u8])>;

/// Names and values of the fields that are nothing to a gateway.
fn plain<'a>(fields: &[Field], options: &ConnectionOptions, bytes: &'a [u8]) -> Pairs<'a> {
    let plain = fields.iter().filter(|field| {
        matches!(field.kind, FieldKind::Other | FieldKind::UserAgent)
            && !options.nominates(field.name.of(bytes))
    });
    let pair = |field: &Field| (field.name.of(bytes), field.value.of(bytes));
    plain.map(pair).collect()
}

/// A request head is judged the same however it arrives and whatever follows; what is passed on
/// says the same to the next parser.
pub fn request_head(bytes: &[u8]) {
    let whole = parse_request(bytes, &[bytes.len()], &LIMITS);
    for arrivals in arrivals(bytes) {
        let pieces = parse_request(bytes, &arrivals, &LIMITS);
        assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
    }
    let Ok(Some(head)) = whole else { return };
    assert_eq!(Some(head.len), end_of_head(bytes));
    assert!(head.len <= LIMITS.head + 2 && head.fields.len() <= LIMITS.fields);
    let mut options = ConnectionOptions::default();
    let framing = framing::of_request(&head, bytes, None);
    let (Ok(framing), true) = (framing, options.read(bytes, &head.fields)) else {
        return;
    };
    for trusted in [false, true] {
        pass_on(&head, bytes, &options, framing, trusted);
    }
}

fn pass_on(
    head: &RequestHead,
    bytes: &[u8],
    options: &ConnectionOptions,
    framing: Framing,
    trusted: bool,
) {
    let upgrade = encode::wants_upgrade(options, &head.fields, bytes);
    let expects_continue = head.fields.iter().any(|it| it.kind == FieldKind::Expect);
    let mut out = Vec::new();
    let request = RequestToPeer {
        head,
        bytes,
        options,
        framing,
        expects_continue,
        upgrade,
        socket: [127, 0, 0, 1].into(),
        client: [127, 0, 0, 1].into(),
        default_host: b"127.0.0.1:80",
        request_id: b"",
        trusted,
        amended: None,
    };
    encode::request(&mut out, &request);
    let shown = || out.escape_ascii().to_string();
    let next = match parse_request(&out, &[out.len()], &WIDE) {
        Ok(Some(next)) => next,
        other => panic!("{other:?}: {}", shown()),
    };
    assert_eq!((next.len, next.version), (out.len(), Version::Http11));
    assert_eq!(next.method.of(&out), head.method.of(bytes));
    assert_eq!(framing::of_request(&next, &out, None), Ok(framing));
    if let Some(host) = head.authority() {
        let passed = next.authority().map(|it| it.of(&out));
        assert_eq!(passed, Some(host.of(bytes)));
    }
    let mut of_next = ConnectionOptions::default();
    assert!(of_next.read(&out, &next.fields), "{}", shown());
    assert!(!of_next.close && !of_next.keep_alive, "{}", shown());
    assert_eq!(of_next.upgrade, upgrade, "{}", shown());
    assert_eq!(
        plain(&next.fields, &ConnectionOptions::default(), &out),
        plain(&head.fields, options, bytes)
    );
    let framed = match framing {
        Framing::None | Framing::UntilClose => [0, 0],
        Framing::Length(_) => [1, 0],
        Framing::Chunked => [0, 1],
    };
    let te = head.fields.iter().filter(|it| it.kind == FieldKind::Te);
    let mut te = te.flat_map(|it| list(it.value, bytes));
    let trailers = te.any(|it| it.of(bytes).eq_ignore_ascii_case(b"trailers"))
        && head.version == Version::Http11
        && !upgrade;
    let passes = |it: &&Field| {
        it.kind == FieldKind::Trailer
            && framing == Framing::Chunked
            && !options.nominates(it.name.of(bytes))
    };
    let announced = head.fields.iter().filter(passes).count();
    // Counted by name, and not by what the gateway takes a name for.
    let expected = [
        ("host", 1),
        ("x-forwarded-for", 1),
        ("x-real-ip", 1),
        ("x-forwarded-proto", 1),
        ("x-forwarded-host", 1),
        ("content-length", framed[0]),
        ("transfer-encoding", framed[1]),
        ("connection", usize::from(upgrade || trailers)),
        ("expect", usize::from(expects_continue)),
        ("te", usize::from(trailers)),
        ("trailer", announced),
        ("keep-alive", 0),
        ("proxy-connection", 0),
        ("http2-settings", 0),
        ("x-graygate-pool", 0),
    ];
    // What is added is bounded, whatever there is; the host may stand twice.
    assert!(out.len() <= 2 * head.len + 512, "{}", shown());
    let protocols = next.fields.iter().any(|it| it.kind == FieldKind::Upgrade);
    assert_eq!(protocols, upgrade, "{}", shown());
    for (name, times) in expected {
        let reads_as = |field: &&Field| {
            let text = field.name.of(&out).to_ascii_lowercase();
            let dashed = text.iter().map(|it| match it {
                it if it.is_ascii_alphanumeric() => *it,
                _ => b'-',
            });
            dashed.eq(name.bytes())
        };
        let count = next.fields.iter().filter(reads_as).count();
        assert_eq!(count, times, "{name}: {}", shown());
    }
}

/// A response head is judged the same however it arrives, and passed on whole.
pub fn response_head(bytes: &[u8]) {
    let whole = parse_response(bytes, &[bytes.len()], &LIMITS);
    for arrivals in arrivals(bytes) {
        let pieces = parse_response(bytes, &arrivals, &LIMITS);
        assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
    }
    let Ok(Some(head)) = whole else { return };
    assert_eq!(Some(head.len), end_of_head(bytes));
    assert!((100..=999).contains(&head.status));
    let mut options = ConnectionOptions::default();
    if !options.read(bytes, &head.fields) {
        return;
    }
    for to_head in [false, true] {
        let Ok(framing) = framing::of_response(&head, bytes, to_head) else {
            return;
        };
        let mut out = Vec::new();
        let response = ResponseToClient {
            head: &head,
            bytes,
            options: &options,
            framing,
            version: Version::Http11,
            connection: Connection::KeepAlive,
            added: b"",
        };
        match head.status {
            200.. => encode::response(&mut out, &response),
            _ => encode::interim(&mut out, &head, bytes, &options),
        }
        let next = match parse_response(&out, &[out.len()], &WIDE) {
            Ok(Some(next)) => next,
            other => panic!("{other:?}: {}", out.escape_ascii()),
        };
        assert_eq!((next.len, next.status), (out.len(), head.status));
        assert!(out.len() <= head.len + 512, "{}", out.escape_ascii());
        assert_eq!(next.reason.of(&out), head.reason.of(bytes));
        assert_eq!(framing::of_response(&next, &out, to_head), Ok(framing));
        assert_eq!(
            plain(&next.fields, &ConnectionOptions::default(), &out),
            plain(&head.fields, &options, bytes)
        );
    }
}

/// Each line is the value of an `X-Forwarded-For` field. Only trusted proxies are believed, and
/// what a client sends ahead of what they say makes no difference.
pub fn client_address(lines: &[u8]) {
    let request = |first: &[u8]| {
        let mut bytes = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
        let lines = lines.split(|byte| *byte == b'\n');
        for line in [first].into_iter().chain(lines) {
            bytes.extend_from_slice(b"X-Forwarded-For: ");
            bytes.extend_from_slice(line);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    };
    let (bytes, forged) = (request(b""), request(b"6.6.6.6"));
    let parse = |bytes: &[u8]| parse_request(bytes, &[bytes.len()], &WIDE);
    let (Ok(Some(head)), Ok(Some(forged_head))) = (parse(&bytes), parse(&forged)) else {
        return;
    };
    // A field of another name, which a CR LF inside a line makes, is none of this.
    let trusted = [
        [10, 0, 0, 0].into(),
        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 0]),
    ]
    .map(|address: IpAddr| IpNet::new_assert(address, 8));
    let clients = |socket: IpAddr| {
        let client = client::identify(socket, &trusted, &head.fields, &bytes);
        let forged = client::identify(socket, &trusted, &forged_head.fields, &forged);
        // Who is not believed speaks for nobody.
        assert!(client.doubt.is_none() || client.address == socket.to_canonical());
        let (client, forged) = (client.address, forged.address);
        assert_eq!(client, client.to_canonical());
        (client, forged)
    };
    let stranger: IpAddr = [1, 1, 1, 1].into();
    assert_eq!(clients(stranger), (stranger, stranger));
    for socket in ["10.0.0.1", "::ffff:10.0.0.1", "fd00::1"] {
        let Ok(socket) = socket.parse::<IpAddr>() else {
            unreachable!("{socket}")
        };
        let (client, forged) = clients(socket);
        let chain = head
            .fields
            .iter()
            .filter(|it| it.kind == FieldKind::ForwardedFor);
        let chain = chain.flat_map(|field| list(field.value, &bytes));
        let said: Vec<Option<IpAddr>> = chain.map(|it| address(it.of(&bytes))).collect();
        let is_trusted =
            |it: &Option<IpAddr>| it.is_some_and(|it| client::is_trusted(it, &trusted));
        assert!(
            client == socket.to_canonical() || said.contains(&Some(client)),
            "{client} of {said:?}"
        );
        if !said.iter().all(is_trusted) {
            assert_eq!(client, forged, "{said:?}");
        }
    }
}

/// An element of a chain, read by other code than the gateway's.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let socket = text.parse::<std::net::SocketAddr>().map(|it| it.ip());
    let address = match (text.starts_with('['), text.ends_with(']')) {
        (true, true) => text.get(1..text.len() - 1)?,
        _ => text,
    };
    let address: IpAddr = address.parse().or(socket).ok()?;
    Some(address.to_canonical())
}
