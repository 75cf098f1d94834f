//! The protocol code on generated messages: whatever the bytes and wherever they are cut, the
//! outcome is the same, nothing panics, and not a byte too many is taken.
//!
//! `PROPTEST_CASES=1000000 cargo test --release --test codecs` runs longer. Guided by coverage, the
//! same properties are run by the targets under `fuzz/`.

use graygate::http::fields::{ConnectionOptions, FieldKind};
use graygate::http::h1::body::BodyReader;
use graygate::http::h1::chunked::{MessageKind, Piece, Trailer};
use graygate::http::h1::encode::{self, RequestToPeer, ResponseToClient};
use graygate::http::h1::framing::{self, Framing};
use graygate::http::h1::head::{Parsed, RequestHead, ResponseHead, Scanner};
use graygate::http::limits::Limits;
use graygate::http::version::Version;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

const LIMITS: Limits = Limits {
    line: 256,
    head: 2048,
    fields: 20,
};

/// Where a message is cut: the lengths of what has arrived, in rising order.
fn cuts(length: usize, indexes: &[Index]) -> Vec<usize> {
    let mut cuts: Vec<usize> = indexes.iter().map(|it| it.index(length + 1)).collect();
    cuts.push(length);
    cuts.sort_unstable();
    cuts
}

fn indexes() -> impl Strategy<Value = Vec<Index>> {
    prop_oneof![vec(any::<Index>(), 0..4), vec(any::<Index>(), 200..201)]
}

/// A change of some bytes of a message.
#[derive(Clone, Debug)]
enum Mutation {
    Replace(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize),
    Cut(Index),
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let at = |index: &Index| index.index(bytes.len() + 1);
        match self {
            Self::Replace(index, byte) => {
                let at = at(index);
                if let Some(place) = bytes.get_mut(at) {
                    *place = *byte;
                }
            }
            Self::Insert(index, inserted) => {
                let at = at(index);
                bytes.splice(at..at, inserted.iter().copied());
            }
            Self::Remove(index, length) => {
                let at = at(index);
                bytes.drain(at..bytes.len().min(at + length));
            }
            Self::Repeat(index, length) => {
                let at = at(index);
                let part = bytes[at..bytes.len().min(at + length)].to_vec();
                bytes.splice(at..at, part);
            }
            Self::Cut(index) => bytes.truncate(at(index)),
        }
    }
}

/// Bytes and words that mean something somewhere in a message.
fn telling() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&[u8]> = vec![
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"=",
        b"\"",
        b"\\",
        b"_",
        b"-",
        b"+",
        b"0",
        b"0x",
        b"\x7f",
        b"\x80",
        b"\xff",
        b"\x0b",
        b"#",
        b"?",
        b"*",
        b"/",
        b"@",
        b"[",
        b"]",
        b"%",
        b"chunked",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 3\r\n",
        b"Host: b\r\n",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"close",
        b"Connection: Host\r\n",
        b"\r\n\r\n",
        b"0\r\n\r\n",
        b"http://b",
        b"Upgrade",
        b"100-continue",
        b"ffffffffffffffff",
    ];
    select(words).prop_map(<[u8]>::to_vec)
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let one = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Replace(at, byte)),
        (any::<Index>(), telling()).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (any::<Index>(), 1..8_usize).prop_map(|(at, length)| Mutation::Remove(at, length)),
        (any::<Index>(), 1..60_usize).prop_map(|(at, length)| Mutation::Repeat(at, length)),
        any::<Index>().prop_map(Mutation::Cut),
    ];
    vec(one, 0..4)
}

fn mutated(message: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    let mut bytes = message;
    for mutation in mutations {
        mutation.apply(&mut bytes);
    }
    bytes
}

fn token() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9!#$%&'*+.^`|~-]{1,12}"
}

/// A field's value: visible characters, blanks inside, bytes above ASCII.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let inner =
        prop_oneof![8 => 0x21..0x7f_u8, 1 => 0x80..=0xff_u8, 1 => select(vec![b' ', b'\t'])];
    vec(inner, 0..30).prop_map(|bytes| bytes.trim_ascii().to_vec())
}

/// Fields without a meaning, between fields with one.
fn fields() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let known = select(vec![
        ("Content-Length", "0"),
        ("Content-Length", "12"),
        ("content-length", "5, 5"),
        ("Transfer-Encoding", "chunked"),
        ("TRANSFER-ENCODING", "gzip, chunked"),
        ("Transfer_Encoding", "chunked"),
        ("Connection", "close"),
        ("Connection", "keep-alive, x-a, Host"),
        ("Connection", "upgrade"),
        ("Upgrade", "websocket"),
        ("Upgrade", "h2c"),
        ("Expect", "100-continue"),
        ("X-Forwarded-For", "1.2.3.4, 5.6.7.8"),
        ("X-Forwarded-Proto", "https"),
        ("X-Real-IP", "1.2.3.4"),
        ("X-Graygate-Pool", "pre"),
        ("TE", "trailers"),
        ("x-a", "1"),
    ]);
    let known = known.prop_map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    vec(prop_oneof![3 => (token(), value()), 1 => known], 0..8)
}

fn put_fields(bytes: &mut Vec<u8>, fields: &[(String, Vec<u8>)]) {
    for (name, value) in fields {
        bytes.extend_from_slice(format!("{name}: ").as_bytes());
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    }
}

prop_compose! {
    fn request_head()(
        method in prop_oneof![select(vec!["GET", "POST", "HEAD", "OPTIONS", "PURGE"]).prop_map(str::to_owned), token()],
        target in prop_oneof!["/[!-\"$-~äÿ路]{0,20}", Just("*".to_owned()), "http://[a-z.]{1,9}(:[0-9]{1,4})?(/[a-z?]{0,5})?"],
        minor in 0..2_u8,
        host in prop_oneof!["[a-z.]{1,9}(:[0-9]{1,4})?", Just("[::1]:80".to_owned())],
        fields in fields(),
    ) -> Vec<u8> {
        let mut bytes = format!("{method} {target} HTTP/1.{minor}\r\nHost: {host}\r\n").into_bytes();
        put_fields(&mut bytes, &fields);
        bytes.extend_from_slice(b"\r\n");
        bytes
    }
}

prop_compose! {
    fn response_head()(
        minor in 0..2_u8,
        status in prop_oneof![100..600_u16, select(vec![100, 101, 200, 204, 304, 999])],
        reason in "[ -~]{0,20}",
        fields in fields(),
    ) -> Vec<u8> {
        let mut bytes = format!("HTTP/1.{minor} {status} {reason}\r\n").into_bytes();
        put_fields(&mut bytes, &fields);
        bytes.extend_from_slice(b"\r\n");
        bytes
    }
}

/// What a request head says, in a form that can be compared.
fn parse_request(bytes: &[u8], cuts: &[usize]) -> Result<Option<RequestHead>, String> {
    let (mut head, mut scanner) = (RequestHead::default(), Scanner::default());
    for cut in cuts {
        match head.parse(&bytes[..*cut], &mut scanner, &LIMITS) {
            Ok(Parsed::Complete) => return Ok(Some(head)),
            Ok(Parsed::Incomplete) => {}
            Err(refusal) => return Err(refusal.name().to_owned()),
        }
    }
    Ok(None)
}

fn parse_response(bytes: &[u8], cuts: &[usize]) -> Result<Option<ResponseHead>, String> {
    let (mut head, mut scanner) = (ResponseHead::default(), Scanner::default());
    for cut in cuts {
        match head.parse(&bytes[..*cut], &mut scanner, &LIMITS) {
            Ok(Parsed::Complete) => return Ok(Some(head)),
            Ok(Parsed::Incomplete) => {}
            Err(bad) => return Err(format!("{bad:?}")),
        }
    }
    Ok(None)
}

/// Names and values of the fields that are passed on as they are.
fn plain_fields(
    head: &RequestHead,
    options: &ConnectionOptions,
    bytes: &[u8],
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let fields = head.fields.iter().filter(|field| {
        matches!(field.kind, FieldKind::Other | FieldKind::UserAgent)
            && !options.nominates(field.name.of(bytes))
    });
    let pair = |field: &graygate::http::fields::Field| {
        (
            field.name.of(bytes).to_vec(),
            field.value.of(bytes).to_vec(),
        )
    };
    fields.map(pair).collect()
}

/// Where the first empty line ends, behind at most one at the begin.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let mut windows = bytes[start..].windows(4);
    windows
        .position(|it| it == b"\r\n\r\n")
        .map(|it| it + start + 4)
}

/// The request as a peer would get it.
fn forward(head: &RequestHead, bytes: &[u8]) -> Option<(Framing, ConnectionOptions, Vec<u8>)> {
    let mut options = ConnectionOptions::default();
    let framing = framing::of_request(head, bytes, None).ok()?;
    if !options.read(bytes, &head.fields) {
        return None;
    }
    let mut out = Vec::new();
    let request = RequestToPeer {
        head,
        bytes,
        options: &options,
        framing,
        expects_continue: false,
        upgrade: encode::wants_upgrade(&options, &head.fields, bytes),
        socket: [127, 0, 0, 1].into(),
        client: [127, 0, 0, 1].into(),
        default_host: b"127.0.0.1:80",
        request_id: b"",
        trusted: false,
        amended: None,
    };
    encode::request(&mut out, &request);
    Some((framing, options, out))
}

/// Content, or what is wrong; bytes taken; whether it has ended.
type Decoded = (Result<Vec<u8>, String>, usize, bool);

/// Decodes a body that arrives in pieces. What a request may have, a response may have, too.
fn decode(framing: Framing, bytes: &[u8], cuts: &[usize]) -> Decoded {
    let of_request = decode_of(MessageKind::Request, framing, bytes, cuts);
    let of_response = decode_of(MessageKind::Response, framing, bytes, cuts);
    assert!(of_request.0.is_err() || of_request == of_response);
    of_request
}

fn decode_of(of: MessageKind, framing: Framing, bytes: &[u8], cuts: &[usize]) -> Decoded {
    let mut reader = BodyReader::new(of, framing, LIMITS);
    let (mut content, mut at) = (Vec::new(), 0);
    for cut in cuts {
        loop {
            match reader.next(&bytes[at..*cut]) {
                Err(bad) => return (Err(format!("{bad:?}")), at, false),
                Ok((taken, piece)) => {
                    assert!(taken <= cut - at, "{taken} bytes of {}", cut - at);
                    at += taken;
                    match piece {
                        Piece::Content(length) => {
                            assert!(0 < length && length <= taken);
                            content.extend_from_slice(&bytes[at - length..at]);
                        }
                        Piece::More => break,
                        Piece::End => {
                            let outcome = reader.trailer(&mut Trailer::default());
                            let outcome = outcome.map(|_| content).map_err(|it| format!("{it:?}"));
                            return (outcome, at, true);
                        }
                    }
                }
            }
        }
    }
    (Ok(content), at, false)
}

/// A chunked body: the bytes on the wire.
fn chunked(chunks: &[Vec<u8>], extension: &str, trailer: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in chunks {
        bytes.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(format!("0{extension}\r\n").as_bytes());
    put_fields(&mut bytes, trailer);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

fn chunks() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(vec(any::<u8>(), 1..40), 0..6)
}

fn extension() -> impl Strategy<Value = String> {
    prop_oneof![3 => Just(String::new()), 1 => "(;[a-z]{1,5}(=([a-z]{1,5}|\"[ !#-\\[\\]-~]{0,6}\"))?){1,3}"]
}

fn trailer() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    vec((token(), value()), 0..3)
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: ProptestConfig::default().cases.max(2000),
        // What fails is printed; what is mended gets a test of its own.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_request_head_is_judged_the_same_however_it_is_cut(
        head in request_head(), mutations in mutations(), cut in indexes(), behind in vec(any::<u8>(), 0..20),
    ) {
        let mut bytes = mutated(head, &mutations);
        bytes.extend_from_slice(&behind);
        let whole = parse_request(&bytes, &[bytes.len()]);
        let pieces = parse_request(&bytes, &cuts(bytes.len(), &cut));
        match (&whole, &pieces) {
            (Ok(Some(one)), Ok(Some(other))) => {
                prop_assert_eq!(format!("{one:?}"), format!("{other:?}"));
                prop_assert_eq!(Some(one.len), end_of_head(&bytes));
            }
            _ => prop_assert_eq!(format!("{whole:?}"), format!("{pieces:?}")),
        }
    }

    #[test]
    fn a_request_that_is_passed_on_says_the_same_to_the_next_parser(
        head in request_head(), mutations in mutations(),
    ) {
        let bytes = mutated(head, &mutations);
        let Ok(Some(head)) = parse_request(&bytes, &[bytes.len()]) else { return Ok(()) };
        let Some((framing, options, out)) = forward(&head, &bytes) else { return Ok(()) };
        let limits = Limits { line: 4096, head: 8192, fields: 100 };
        let (mut next, mut scanner) = (RequestHead::default(), Scanner::default());
        let parsed = next.parse(&out, &mut scanner, &limits);
        prop_assert_eq!(parsed, Ok(Parsed::Complete), "{}", out.escape_ascii());
        prop_assert_eq!(next.len, out.len());
        prop_assert_eq!(next.version, Version::Http11);
        prop_assert_eq!(next.method.of(&out), head.method.of(&bytes));
        prop_assert_eq!(framing::of_request(&next, &out, None), Ok(framing));
        let authority = |head: &RequestHead, bytes: &[u8]| head.authority().map(|it| it.of(bytes).to_vec());
        if let Some(host) = authority(&head, &bytes) {
            prop_assert_eq!(authority(&next, &out), Some(host));
        }
        let mut nothing = ConnectionOptions::default();
        prop_assert!(nothing.read(&out, &next.fields));
        let own = ["x-forwarded-for", "x-real-ip", "x-forwarded-proto", "x-forwarded-host"];
        let received = plain_fields(&next, &ConnectionOptions::default(), &out);
        prop_assert_eq!(received, plain_fields(&head, &options, &bytes));
        for name in own {
            let count = next.fields.iter().filter(|it| it.name.of(&out).eq_ignore_ascii_case(name.as_bytes())).count();
            prop_assert_eq!(count, 1, "{}", name);
        }
    }

    #[test]
    fn a_response_head_is_judged_the_same_however_it_is_cut_and_passed_on_whole(
        head in response_head(), mutations in mutations(), cut in indexes(), to_head in any::<bool>(),
    ) {
        let bytes = mutated(head, &mutations);
        let whole = parse_response(&bytes, &[bytes.len()]);
        let pieces = parse_response(&bytes, &cuts(bytes.len(), &cut));
        prop_assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
        let Ok(Some(head)) = whole else { return Ok(()) };
        prop_assert_eq!(Some(head.len), end_of_head(&bytes));
        let mut options = ConnectionOptions::default();
        let Ok(framing) = framing::of_response(&head, &bytes, to_head) else { return Ok(()) };
        if head.status < 200 || !options.read(&bytes, &head.fields) {
            return Ok(());
        }
        let mut out = Vec::new();
        encode::response(&mut out, &ResponseToClient {
            head: &head,
            bytes: &bytes,
            options: &options,
            framing,
            version: Version::Http11,
            connection: encode::Connection::KeepAlive,
            added: b"",
        });
        let limits = Limits { line: 4096, head: 8192, fields: 100 };
        let (mut next, mut scanner) = (ResponseHead::default(), Scanner::default());
        let parsed = next.parse(&out, &mut scanner, &limits);
        prop_assert_eq!(parsed, Ok(Parsed::Complete), "{}", out.escape_ascii());
        prop_assert_eq!(next.len, out.len());
        prop_assert_eq!(next.status, head.status);
        prop_assert_eq!(framing::of_response(&next, &out, to_head), Ok(framing));
    }

    #[test]
    fn a_chunked_body_decodes_to_its_content_and_not_a_byte_more_is_taken(
        chunks in chunks(), extension in extension(), trailer in trailer(),
        cut in indexes(), behind in vec(any::<u8>(), 0..20),
    ) {
        let mut bytes = chunked(&chunks, &extension, &trailer);
        let length = bytes.len();
        bytes.extend_from_slice(&behind);
        let (content, taken, ended) = decode(Framing::Chunked, &bytes, &cuts(bytes.len(), &cut));
        prop_assert_eq!(content, Ok(chunks.concat()), "{}", bytes.escape_ascii());
        prop_assert!(ended);
        prop_assert_eq!(taken, length);
    }

    #[test]
    fn a_mutated_chunked_body_is_judged_the_same_however_it_is_cut(
        chunks in chunks(), extension in extension(), trailer in trailer(),
        mutations in mutations(), cut in indexes(),
    ) {
        let bytes = mutated(chunked(&chunks, &extension, &trailer), &mutations);
        let (content, taken, ended) = decode(Framing::Chunked, &bytes, &[bytes.len()]);
        let (again, taken_again, ended_again) = decode(Framing::Chunked, &bytes, &cuts(bytes.len(), &cut));
        prop_assert_eq!(ended, ended_again);
        match content {
            Ok(content) => {
                prop_assert_eq!(Ok(content), again);
                prop_assert_eq!(taken, taken_again);
            }
            // How much of a bad body was taken before it is known to be bad is of no interest.
            Err(bad) => prop_assert_eq!(Err(bad), again),
        }
    }

    #[test]
    fn a_body_of_a_length_is_so_many_bytes(
        length in 0..60_u64, bytes in vec(any::<u8>(), 0..100), cut in indexes(),
    ) {
        let (content, taken, ended) = decode(Framing::Length(length), &bytes, &cuts(bytes.len(), &cut));
        let expected = bytes.len().min(length as usize);
        prop_assert_eq!(content.unwrap(), &bytes[..expected]);
        prop_assert_eq!((taken, ended), (expected, bytes.len() as u64 >= length));
    }

    #[test]
    fn arbitrary_bytes_are_judged_without_a_panic(bytes in vec(prop_oneof![telling(), vec(any::<u8>(), 0..5)], 0..60)) {
        let bytes = bytes.concat();
        let every: Vec<usize> = (0..=bytes.len()).collect();
        let whole = parse_request(&bytes, &[bytes.len()]).map(|it| it.map(|it| format!("{it:?}")));
        let pieces = parse_request(&bytes, &every).map(|it| it.map(|it| format!("{it:?}")));
        prop_assert_eq!(whole, pieces);
        let _ = parse_response(&bytes, &every);
        let _ = decode(Framing::Chunked, &bytes, &every);
    }
}
