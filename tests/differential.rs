//! What peers take for requests is what the gateway took for requests: one for one.
//!
//! A stream of good and spoilt requests goes through the gateway to an origin with a strict reader
//! of its own. Whatever the gateway lets through must be well-formed to that reader, and the requests
//! that it has read must be exactly those that stand in the gateway's access log as served.
//!
//! `DIFFERENTIAL_REQUESTS=1000000 cargo test --release --test differential -- --nocapture` is the
//! long run.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use support::{AccessLine, Client, NoRequest, Setup, StrictReader, wait_until};

/// How often each request was read by the origin, less how often it was logged.
#[derive(Default)]
struct Balance(HashMap<Vec<u8>, i64>);

impl Balance {
    fn add(&mut self, parts: [&[u8]; 3], count: i64) {
        let key = parts.join(&b' ');
        let entry = self.0.entry(key).or_default();
        *entry += count;
    }

    /// Requests that were read and not logged, or logged and not read.
    fn unmatched(&self) -> Vec<String> {
        let unmatched = self.0.iter().filter(|(_, count)| **count != 0);
        let text = unmatched.map(|(key, count)| format!("{count}: {}", key.escape_ascii()));
        text.collect()
    }
}

/// What the origin has to say.
#[derive(Default)]
struct Judged {
    balance: Mutex<Balance>,
    requests: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

/// Serves a connection of the origin: whatever is no request is noted.
fn judge(stream: TcpStream, judged: &Judged) {
    let mut answers = stream.try_clone().unwrap();
    let mut reader = StrictReader::new(stream);
    loop {
        match reader.request() {
            Ok(request) => {
                judged.requests.fetch_add(1, Ordering::Relaxed);
                let parts = [&request.method[..], &request.target, &request.host];
                judged.balance.lock().unwrap().add(parts, 1);
                let body = match &request.method[..] {
                    b"HEAD" => String::new(),
                    _ => request.content.len().to_string(),
                };
                let length = request.content.len().to_string().len();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
                if answers.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
            Err(NoRequest::Ended) => return,
            Err(NoRequest::Wrong(what)) => {
                judged.wrong.lock().unwrap().push(what);
                return;
            }
        }
    }
}

fn pick<'a>(rng: &mut Rng, choices: &[&'a str]) -> &'a str {
    choices[rng.usize(..choices.len())]
}

/// A body in some framing: the fields for it, and its bytes.
fn body(rng: &mut Rng) -> (String, Vec<u8>) {
    let content = |rng: &mut Rng| {
        // What looks like a request is the most interesting content.
        let text = format!("GET /smuggled/{} HTTP/1.1\r\nHost: s\r\n\r\n", rng.u32(..));
        let length = rng.usize(..=text.len());
        text.into_bytes()[..length].to_vec()
    };
    match rng.u8(..6) {
        0 | 1 => (String::new(), Vec::new()),
        2 | 3 => {
            let content = content(rng);
            (format!("Content-Length: {}\r\n", content.len()), content)
        }
        _ => {
            let mut bytes = Vec::new();
            for _ in 0..rng.usize(..4) {
                let content = content(rng);
                if !content.is_empty() {
                    let extension = pick(rng, &["", "", ";a", ";a=b;c=\"d;e\""]);
                    bytes.extend_from_slice(
                        format!("{:x}{extension}\r\n", content.len()).as_bytes(),
                    );
                    bytes.extend_from_slice(&content);
                    bytes.extend_from_slice(b"\r\n");
                }
            }
            let trailer = pick(
                rng,
                &["", "", "X-T: 1\r\n", "Content-Length: 5\r\nX-T: 2\r\n"],
            );
            bytes.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
            ("Transfer-Encoding: chunked\r\n".to_owned(), bytes)
        }
    }
}

const FIELDS: &[&str] = &[
    "Accept: */*",
    "X-Empty:",
    "X-Odd: a\tb \u{e4} \"c\", d;e=f",
    "Connection: keep-alive",
    "Connection: X-Odd, Host, Content-Length, Transfer-Encoding",
    "Content_Length: 3",
    "Transfer_Encoding: chunked",
    "X-Forwarded-For: 1.2.3.4",
    "X_Forwarded_For: 1.2.3.4",
    "X-Real-IP: 1.2.3.4",
    "X-Graygate-Pool: pre",
    "TE: trailers",
    "Trailer: X-T",
    "Keep-Alive: timeout=5",
    "Upgrade: h2c",
    "Expect: 100-continue",
];

/// Spoils a request: what other parsers have fallen for.
const SPOILERS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "_",
    "+",
    "-",
    "0",
    "0x",
    "\u{b}",
    "\u{c}",
    "\u{7f}",
    "\u{80}",
    "chunked",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: \u{b}chunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer-Encoding:\r\n chunked\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 3, 3\r\n",
    "Content-Length: +3\r\n",
    "Content-Length : 3\r\n",
    " Content-Length: 3\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Host: b\r\n",
    "Host: a, b\r\n",
    "HTTP/1.0",
    "HTTP/1.1",
    "\r\n\r\n",
    "0\r\n\r\n",
    "GET /inner HTTP/1.1\r\nHost: i\r\n\r\n",
    "Connection: close\r\n",
    "Expect: 100-continue\r\n",
    "ffffffffffffffff",
    "10000000000000000",
    "http://x/",
    "#",
    "?",
    "*",
];

fn spoil(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let at = rng.usize(..=bytes.len());
    match rng.u8(..8) {
        0 => bytes.truncate(at),
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = rng.u8(..);
            }
        }
        2 => {
            let end = bytes.len().min(at + rng.usize(1..8));
            bytes.drain(at..end);
        }
        3 => {
            let end = bytes.len().min(at + rng.usize(1..80));
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
        // At the begin of a line, where a field would stand.
        4 | 5 => {
            let feeds: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] == b'\n').collect();
            if !feeds.is_empty() {
                let at = feeds[rng.usize(..feeds.len())] + 1;
                bytes.splice(at..at, pick(rng, SPOILERS).bytes());
            }
        }
        _ => {
            bytes.splice(at..at, pick(rng, SPOILERS).bytes());
        }
    }
}

fn request(rng: &mut Rng) -> Vec<u8> {
    let method = pick(
        rng,
        &[
            "GET", "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PURGE",
        ],
    );
    let more = pick(rng, &["", "", "?a=b&c", "//x/%2e%2e/%00", ";p=\"q\"|{}"]);
    let version = if rng.u8(..20) == 0 { "1.0" } else { "1.1" };
    let target = format!("/{:x}{more}", rng.u64(..));
    let target = match rng.u8(..20) {
        0 => format!("http://absolute:80{target}"),
        _ => target,
    };
    let (framing, content) = match version {
        "1.0" => (String::new(), Vec::new()),
        _ => body(rng),
    };
    let mut head = format!("{method} {target} HTTP/{version}\r\nHost: a.example\r\n");
    for _ in 0..rng.usize(..4) {
        head.push_str(pick(rng, FIELDS));
        head.push_str("\r\n");
    }
    head.push_str(&framing);
    head.push_str("\r\n");
    let mut bytes = [head.into_bytes(), content].concat();
    if rng.u8(..8) == 0 {
        for _ in 0..rng.usize(1..3) {
            spoil(rng, &mut bytes);
        }
    }
    bytes
}

/// Sends a few requests on one connection, in segments cut anywhere, and reads all answers.
fn converse(rng: &mut Rng, gateway: std::net::SocketAddr) -> u64 {
    let count = rng.u64(1..12);
    let bytes: Vec<u8> = (0..count).flat_map(|_| request(rng)).collect();
    let mut stream = Client::from_another(gateway).wire.stream;
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let most = if rng.bool() {
            rest.len()
        } else {
            rest.len().min(200)
        };
        let (piece, behind) = rest.split_at(rng.usize(1..=most));
        // The gateway may have refused and closed.
        if stream.write_all(piece).is_err() {
            break;
        }
        rest = behind;
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut answers = Vec::new();
    match stream.read_to_end(&mut answers) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!(
            "the connection does not end: {error}: {}",
            bytes.escape_ascii()
        ),
    }
    count
}

/// A value of the access log as it was before it was escaped.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        rest = match (byte, behind) {
            (b'\\', [b'x', high, low, behind @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
                bytes.push(digit(*high) << 4 | digit(*low));
                behind
            }
            _ => {
                bytes.push(*byte);
                behind
            }
        };
    }
    bytes
}

/// A target as it is passed on.
fn in_origin_form(target: &[u8], method: &str) -> Vec<u8> {
    let begin = |scheme: &str| {
        let begin = target.get(..scheme.len())?;
        begin
            .eq_ignore_ascii_case(scheme.as_bytes())
            .then(|| &target[scheme.len()..])
    };
    let Some(rest) = begin("http://").or_else(|| begin("https://")) else {
        return target.to_vec();
    };
    let path = rest.iter().position(|byte| b"/?".contains(byte));
    match path.map(|at| &rest[at..]) {
        None if method == "OPTIONS" => b"*".to_vec(),
        None => b"/".to_vec(),
        Some(path @ [b'/', ..]) => path.to_vec(),
        Some(query) => [b"/", query].concat(),
    }
}

#[test]
fn peers_see_exactly_the_requests_that_the_gateway_has_logged() {
    let wanted = std::env::var("DIFFERENTIAL_REQUESTS").ok();
    let wanted: u64 = wanted.map_or(20_000, |it| it.parse().unwrap());
    let seed = std::env::var("DIFFERENTIAL_SEED").ok();
    let seed: u64 = seed.map_or_else(|| fastrand::u64(..), |it| it.parse().unwrap());
    let judged = Arc::new(Judged::default());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = listener.local_addr().unwrap();
    let judging = Arc::clone(&judged);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let judged = Arc::clone(&judging);
            std::thread::spawn(move || judge(stream.unwrap(), &judged));
        }
    });
    let gateway = Setup::serving(&origin)
        .set("gateway.max_body", "100k")
        // The origin is slow only when the machine is; what it has read must not be asked twice.
        .set("upstream.read_timeout", "1m")
        .set("upstream.tries", 1)
        .start();
    let addr = gateway.addr();
    let sent = &AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                let mut rng = Rng::with_seed(seed.wrapping_add(thread));
                while sent.load(Ordering::Relaxed) < wanted {
                    sent.fetch_add(converse(&mut rng, addr), Ordering::Relaxed);
                }
            });
        }
    });
    let served = || gateway.metric("graygate_attempts_total{pool=\"prod\",outcome=\"ok\"}") as u64;
    let total = || {
        let classes = (0..6).map(|it| format!("{it}xx"));
        let pools = ["prod", "none"].into_iter();
        let names = pools.flat_map(|pool| classes.clone().map(move |it| (pool, it)));
        let name = |(pool, class)| {
            format!("graygate_requests_total{{pool=\"{pool}\",status=\"{class}\"}}")
        };
        names.map(name).map(|it| gateway.metric(&it)).sum::<f64>() as u64
    };
    let lines = || BufReader::new(std::fs::File::open(gateway.path("access.log")).unwrap()).lines();
    wait_until("every request is logged", Duration::from_secs(60), || {
        lines().count() as u64 == total()
    });
    assert_eq!(
        gateway.metric("graygate_log_dropped_total{log=\"access\"}"),
        0.0
    );
    assert_eq!(gateway.metric("graygate_panics_total"), 0.0);

    let seen = judged.requests.load(Ordering::Relaxed);
    let mut balance = std::mem::take(&mut *judged.balance.lock().unwrap());
    let (mut logged, mut refused) = (0_u64, 0_u64);
    for line in lines() {
        let line = line.unwrap();
        let line = AccessLine::parse(&line).unwrap_or_else(|| panic!("no access line: {line}"));
        match line.get("status") {
            "200" => {
                let [target, host] = ["target", "host"].map(|it| unescaped(line.get(it)));
                let path = in_origin_form(&target, line.get("method"));
                // Without a Host a request is for the address that it came to.
                let host = Some(host).filter(|it| !it.is_empty());
                let host = host.unwrap_or_else(|| addr.to_string().into_bytes());
                balance.add([line.get("method").as_bytes(), &path, &host], -1);
                logged += 1;
            }
            _ => refused += 1,
        }
    }
    let sent = sent.load(Ordering::Relaxed);
    let unmatched = balance.unmatched();
    let wrong = judged.wrong.lock().unwrap();
    println!(
        "seed {seed}: {sent} requests sent, {seen} read by the origin, {logged} logged as served, \
         {refused} refused or cut, {} malformed at the origin, {} unmatched",
        wrong.len(),
        unmatched.len()
    );
    assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
    assert_eq!((seen, served()), (logged, logged), "seed {seed}");
    assert!(unmatched.is_empty(), "seed {seed}: {unmatched:#?}");
    // The stream is worth its name: much passes, much is refused.
    assert!(
        seen > sent / 10 && refused > sent / 100,
        "{seen} {refused} of {sent}"
    );
}
