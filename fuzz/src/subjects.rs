//! What decisions depend on, as it is read from a head.

use graygate::http::fields::{ConnectionOptions, FieldKind};
use graygate::http::h1::encode::{self, Amendment, RequestToPeer};
use graygate::http::h1::framing::Framing;
use graygate::http::h1::head::{Parsed, RequestHead, Scanner, Target};
use graygate::http::query;
use graygate::http::subject::Subject;

use super::WIDE;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Whatever the head, its parts lie within it, and are those that a plain reader finds; a cookie that a peer
/// is not to get is the only thing that it does not get.
pub fn subject(bytes: &[u8]) {
    let Some(head) = parse(bytes) else { return };
    let subject = Subject::new([127, 0, 0, 1].into(), &head, bytes);
    let cookies: Pairs = subject.cookies().map(owned).collect();
    assert_eq!(cookies, plain_cookies(&head, bytes));
    let parameters: Pairs = subject.parameters().map(owned).collect();
    let (path, parameters_sent) = plain_target(&head, bytes);
    assert_eq!(subject.path(), path);
    assert_eq!(parameters, parameters_sent);
    let mut memory = Vec::new();
    for (name, value) in subject.parameters() {
        for text in [name, value] {
            assert_eq!(query::decode(text, &mut memory), plainly_decoded(text));
        }
    }
    let parts = [subject.method(), subject.host(), subject.path()];
    let read = subject.cookies().chain(subject.parameters());
    let read = read.flat_map(|(name, value)| [name, value]);
    for part in parts.into_iter().chain(subject.query()).chain(read) {
        let is_within = bytes.as_ptr_range().contains(&part.as_ptr());
        assert!(part.is_empty() || part == b"/" || is_within);
    }
    let host = subject.host();
    assert!(!host.contains(&b':') || host.starts_with(b"["));
    for (name, value) in &cookies {
        let first = cookies.iter().find(|(it, _)| it == name);
        let first = first.map(|(_, value)| value.as_slice());
        assert_eq!(subject.cookie(name), first, "{value:?}");
    }
    for field in &head.fields {
        let name = String::from_utf8_lossy(field.name.of(bytes)).to_uppercase();
        assert!(subject.header(&name).is_some());
    }
    let names = cookies.iter().map(|(name, _)| name.as_slice());
    for without in names.take(4).chain([&b"absent"[..], b""]) {
        without_cookie(&head, bytes, without);
    }
}

fn parse(bytes: &[u8]) -> Option<RequestHead> {
    let mut head = RequestHead::default();
    let parsed = head.parse(bytes, &mut Scanner::default(), &WIDE);
    (parsed == Ok(Parsed::Complete)).then_some(head)
}

fn owned((name, value): (&[u8], &[u8])) -> (Vec<u8>, Vec<u8>) {
    (name.to_vec(), value.to_vec())
}

/// The bytes up to the first of these, and those behind it.
fn cut(text: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|it| *it == at) {
        Some(place) => (&text[..place], Some(&text[place + 1..])),
        None => (text, None),
    }
}

fn plain_cookies(head: &RequestHead, bytes: &[u8]) -> Pairs {
    let mut all = Vec::new();
    for field in head.fields.iter().filter(|it| it.kind == FieldKind::Cookie) {
        let mut rest = Some(field.value.of(bytes));
        while let Some(text) = rest {
            let (part, behind) = cut(text, b';');
            if let (name, Some(value)) = cut(part, b'=')
                && !name.trim_ascii().is_empty()
            {
                all.push((name.trim_ascii().to_vec(), value.trim_ascii().to_vec()));
            }
            rest = behind;
        }
    }
    all
}

/// The path, and the parameters behind it.
fn plain_target<'a>(head: &RequestHead, bytes: &'a [u8]) -> (&'a [u8], Pairs) {
    let target = match head.form {
        Target::Absolute { rest, .. } => rest.of(bytes),
        _ => head.target.of(bytes),
    };
    let (path, mut rest) = cut(target, b'?');
    let mut all = Vec::new();
    while let Some(text) = rest {
        let (part, behind) = cut(text, b'&');
        let (name, value) = cut(part, b'=');
        if !part.is_empty() {
            all.push((name.to_vec(), value.unwrap_or_default().to_vec()));
        }
        rest = behind;
    }
    let path = if path.is_empty() { b"/" } else { path };
    (path, all)
}

fn plainly_decoded(text: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let code = text.get(at + 1..at + 3);
        let code = code.filter(|it| it.iter().all(u8::is_ascii_hexdigit));
        let code = code.and_then(|it| std::str::from_utf8(it).ok());
        let code = code.and_then(|it| u8::from_str_radix(it, 16).ok());
        let (byte, length) = match (text[at], code) {
            (b'%', Some(byte)) => (byte, 3),
            (b'+', _) => (b' ', 1),
            (byte, _) => (byte, 1),
        };
        out.push(byte);
        at += length;
    }
    out
}

/// A peer that is not to get a cookie gets all else as it would.
fn without_cookie(head: &RequestHead, bytes: &[u8], name: &[u8]) {
    let mut options = ConnectionOptions::default();
    if !options.read(bytes, &head.fields) {
        return;
    }
    let written = |without_cookie| {
        let mut out = Vec::new();
        let request = RequestToPeer {
            head,
            bytes,
            options: &options,
            framing: Framing::None,
            expects_continue: false,
            upgrade: false,
            socket: [127, 0, 0, 1].into(),
            client: [127, 0, 0, 1].into(),
            default_host: b"127.0.0.1:80",
            request_id: b"",
            trusted: false,
            amended: Some(Amendment {
                without_cookie,
                mark: Some(("X-Graygate-Pool", "pre")),
            }),
        };
        let mark = encode::request(&mut out, &request);
        assert_eq!(mark.map(|at| &out[at..]), Some(&b"pre\r\n\r\n"[..]));
        out
    };
    let (all, less) = (written(b""), written(name));
    let (Some(all_head), Some(less_head)) = (parse(&all), parse(&less)) else {
        panic!("{}", less.escape_ascii());
    };
    let mut cookies = plain_cookies(&all_head, &all);
    cookies.retain(|(it, _)| it != name);
    assert_eq!(cookies, plain_cookies(&less_head, &less));
    let others = |head: &RequestHead, bytes: &[u8]| -> Pairs {
        let fields = head.fields.iter();
        let fields = fields.filter(|it| it.kind != FieldKind::Cookie);
        let pair = fields.map(|it| owned((it.name.of(bytes), it.value.of(bytes))));
        pair.collect()
    };
    assert_eq!(others(&all_head, &all), others(&less_head, &less));
}
