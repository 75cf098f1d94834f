//! Heads: parsed, judged, and written anew.

use std::net::{IpAddr, Ipv4Addr};

use graygate::http::client;
use graygate::http::fields::ConnectionOptions;
use graygate::http::h1::encode::{self, Connection, RequestToPeer, ResponseToClient};
use graygate::http::h1::framing::{self, Framing};
use graygate::http::h1::head::{Parsed, RequestHead, ResponseHead, Scanner};
use graygate::http::limits::Limits;
use graygate::http::version::Version;

/// How much there is in a head.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Size {
    /// What curl sends, and the least that servers answer.
    Small,
    /// What browsers send, and what servers answer them: twelve fields.
    Typical,
    /// Thirty fields.
    Large,
}

/// Those of a gateway without settings of its own.
pub(super) const LIMITS: Limits = Limits {
    line: 8192,
    head: 32_768,
    fields: 100,
};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 10));

const CURL: &str = "\
GET /index.html HTTP/1.1
Host: shop.example
User-Agent: curl/7.88.1
Accept: */*
";

const BROWSER: &str = "\
GET /catalogue/shoes?colour=brown&size=42 HTTP/1.1
Host: shop.example
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8
Accept-Language: en-GB,en;q=0.5
Accept-Encoding: gzip, deflate, br, zstd
Referer: http://shop.example/catalogue?page=3
Connection: keep-alive
Cookie: session=8f14e45fceea167a5a36dedd4bea2543; consent=yes; theme=light
Upgrade-Insecure-Requests: 1
Sec-Fetch-Dest: document
Sec-Fetch-Mode: navigate
Priority: u=0, i
";

const ANSWER: &str = "\
HTTP/1.1 200 OK
Content-Length: 128
";

const PAGE: &str = "\
HTTP/1.1 200 OK
Server: nginx/1.22.1
Date: Tue, 14 Jul 2026 09:26:53 GMT
Content-Type: text/html; charset=utf-8
Content-Length: 5120
Last-Modified: Mon, 13 Jul 2026 18:00:00 GMT
Connection: keep-alive
Vary: Accept-Encoding, Cookie
ETag: \"5f3e1d2c-1400\"
Cache-Control: private, max-age=60
Set-Cookie: session=8f14e45fceea167a5a36dedd4bea2543; Path=/; HttpOnly; SameSite=Lax
X-Content-Type-Options: nosniff
Accept-Ranges: bytes
";

/// A head from its lines, with fields that mean nothing to a gateway up to the number that `size` has.
fn head(small: &str, typical: &str, size: Size) -> Vec<u8> {
    let mut lines: Vec<String> = match size {
        Size::Small => small,
        Size::Typical | Size::Large => typical,
    }
    .lines()
    .map(str::to_owned)
    .collect();
    if let Size::Large = size {
        // One line is none of the fields.
        for number in lines.len()..=30 {
            lines.push(format!(
                "X-Shop-Trace-{number}: 4bf92f3577b34da6a3ce929d0e0e{number:04}"
            ));
        }
    }
    (lines.join("\r\n") + "\r\n\r\n").into()
}

/// A client's request on its way to a peer.
pub(crate) struct RequestStep {
    bytes: Vec<u8>,
    head: RequestHead,
    options: ConnectionOptions,
    out: Vec<u8>,
}

impl RequestStep {
    pub(crate) fn new(size: Size) -> Self {
        let mut step = Self {
            bytes: head(CURL, BROWSER, size),
            head: RequestHead::default(),
            options: ConnectionOptions::default(),
            out: Vec::new(),
        };
        assert!(step.parse(), "a head that the gateway refuses");
        step.encode();
        step
    }

    /// Finds its end, takes it apart, and judges it. True when all is well.
    pub(crate) fn parse(&mut self) -> bool {
        let Self {
            bytes,
            head,
            options,
            ..
        } = self;
        let parsed = head.parse(bytes, &mut Scanner::default(), &LIMITS);
        parsed == Ok(Parsed::Complete)
            && options.read(bytes, &head.fields)
            && framing::of_request(head, bytes, None) == Ok(Framing::None)
    }

    /// Writes it for the peer; returns its length.
    pub(crate) fn encode(&mut self) -> usize {
        let client = client::identify(CLIENT, &[], &self.head.fields, &self.bytes).address;
        let request = RequestToPeer {
            head: &self.head,
            bytes: &self.bytes,
            options: &self.options,
            framing: Framing::None,
            expects_continue: false,
            upgrade: false,
            socket: CLIENT,
            client,
            default_host: b"",
            request_id: b"",
            trusted: false,
            amended: None,
        };
        self.out.clear();
        encode::request(&mut self.out, &request);
        self.out.len()
    }
}

/// A peer's response on its way to the client.
pub(crate) struct ResponseStep {
    bytes: Vec<u8>,
    head: ResponseHead,
    options: ConnectionOptions,
    framing: Framing,
    out: Vec<u8>,
}

impl ResponseStep {
    pub(crate) fn new(size: Size) -> Self {
        let mut step = Self {
            bytes: head(ANSWER, PAGE, size),
            head: ResponseHead::default(),
            options: ConnectionOptions::default(),
            framing: Framing::None,
            out: Vec::new(),
        };
        assert!(step.parse(), "a head that the gateway refuses");
        step.encode();
        step
    }

    /// Finds its end, takes it apart, and judges it. True when all is well.
    pub(crate) fn parse(&mut self) -> bool {
        let Self {
            bytes,
            head,
            options,
            ..
        } = self;
        let parsed = head.parse(bytes, &mut Scanner::default(), &LIMITS);
        if parsed != Ok(Parsed::Complete) || !options.read(bytes, &head.fields) {
            return false;
        }
        match framing::of_response(head, bytes, false) {
            Ok(framing) => {
                self.framing = framing;
                true
            }
            Err(_) => false,
        }
    }

    /// Writes it for the client; returns its length.
    pub(crate) fn encode(&mut self) -> usize {
        let response = ResponseToClient {
            head: &self.head,
            bytes: &self.bytes,
            options: &self.options,
            framing: self.framing,
            version: Version::Http11,
            connection: Connection::KeepAlive,
            added: b"",
        };
        self.out.clear();
        encode::response(&mut self.out, &response);
        self.out.len()
    }
}
