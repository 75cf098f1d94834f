//! What clients do, each act once, and how it may end.
//!
//! Clients from [`GRAY`] are on the gray list: their servers are always sound, so whatever they ask must
//! succeed, unless the target itself asks for a fault. The others' servers include one that closes,
//! resets, stalls and goes away ([`crate::origin::Flaky`]): what can be sent again must succeed, what
//! cannot may fail by names.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use fastrand::Rng;

use crate::client::{Answer, Client};
use crate::selected;
use crate::tally::Outcome;

/// The net of the clients on the gray list.
pub(crate) const GRAY: &str = "127.0.1.0/24";

/// A gateway, and what chance says.
pub(crate) struct Stage {
    pub(crate) listen: SocketAddr,
    pub(crate) random: Rng,
}

type Act = fn(&mut Stage) -> io::Result<Outcome>;

/// Everything, by name, and how often beside the others.
const ACTS: [(&str, u32, Act); 15] = [
    ("short connection", 30, short),
    ("kept connection", 20, kept),
    ("pipeline", 10, pipeline),
    ("upload with a length", 8, upload),
    ("upload in chunks", 8, chunked_upload),
    ("upload to flaky servers", 4, risky_upload),
    ("tunnel", 8, tunnel),
    ("abort", 20, abort),
    ("slow client", 2, slow),
    ("greedy client", 2, greedy),
    ("giant answer", 1, giant),
    ("answer that is cut", 4, cut),
    ("server that resets", 4, reset_by_server),
    ("malformed request", 4, malformed),
    ("entries of other kinds", 10, selected::act),
];

/// Does one of them.
pub(crate) fn act(stage: &mut Stage) -> (&'static str, Outcome) {
    let all: u32 = ACTS.iter().map(|(_, weight, _)| weight).sum();
    let mut drawn = stage.random.u32(..all);
    let mut acts = ACTS.iter();
    let (name, _, act) = loop {
        match acts.next() {
            Some((_, weight, _)) if drawn >= *weight => drawn -= weight,
            Some(found) => break found,
            None => break &ACTS[0],
        }
    };
    let outcome = act(stage).unwrap_or_else(|error| Outcome::Wrong(error.to_string()));
    (name, outcome)
}

impl Stage {
    fn gray(&mut self) -> io::Result<Client> {
        let source = Ipv4Addr::new(127, 0, 1, self.random.u8(1..=200));
        Client::connect_from(IpAddr::V4(source), self.listen)
    }

    /// From an address that nobody has listed.
    pub(crate) fn plain(&mut self) -> io::Result<Client> {
        let source = Ipv4Addr::new(127, 0, 2, self.random.u8(1..=200));
        Client::connect_from(IpAddr::V4(source), self.listen)
    }

    /// A target whose answer comes in one of the ways that answers come, and its length.
    pub(crate) fn target(&mut self) -> (String, usize) {
        let kinds = ["plain", "chunked", "closed", "until-close"];
        let kind = kinds[self.random.usize(..kinds.len())];
        let length = self.random.usize(..20_000);
        (format!("/{kind}/{length}"), length)
    }
}

pub(crate) fn get(target: &str, more: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: soak\r\n{more}\r\n")
}

fn judge(answer: &Answer, length: usize, count: u64) -> Outcome {
    match answer.status == 200 && answer.body.len() == length {
        true => Outcome::Right(count),
        false => Outcome::Wrong(answer.brief()),
    }
}

fn short(stage: &mut Stage) -> io::Result<Outcome> {
    let (target, length) = stage.target();
    let mut client = stage.plain()?;
    let answer = client.ask(get(&target, "Connection: close\r\n"))?;
    Ok(judge(&answer, length, 1))
}

fn kept(stage: &mut Stage) -> io::Result<Outcome> {
    let mut client = match stage.random.bool() {
        true => stage.plain()?,
        false => stage.gray()?,
    };
    let count = stage.random.u64(2..20);
    for _ in 0..count {
        let (target, length) = stage.target();
        let answer = client.ask(get(&target, ""))?;
        if let wrong @ Outcome::Wrong(_) = judge(&answer, length, 1) {
            return Ok(wrong);
        }
        if answer.closes {
            return Ok(Outcome::Wrong("closed though nobody asked".to_owned()));
        }
    }
    Ok(Outcome::Right(count))
}

fn pipeline(stage: &mut Stage) -> io::Result<Outcome> {
    let targets: Vec<_> = (0..8).map(|_| stage.target()).collect();
    let all: String = targets.iter().map(|(target, _)| get(target, "")).collect();
    let mut client = stage.plain()?;
    client.send(all)?;
    for (_, length) in &targets {
        let answer = client.answer()?;
        if let wrong @ Outcome::Wrong(_) = judge(&answer, *length, 1) {
            return Ok(wrong);
        }
    }
    Ok(Outcome::Right(targets.len() as u64))
}

/// The head of an upload that is answered with its length.
fn post(framing: &str) -> String {
    format!("POST /count HTTP/1.1\r\nHost: soak\r\n{framing}\r\n\r\n")
}

fn counted(answer: &Answer, length: usize) -> Outcome {
    match answer.status == 200 && answer.body == length.to_string().as_bytes() {
        true => Outcome::Right(1),
        false => Outcome::Wrong(answer.brief()),
    }
}

/// A length of a body: mostly small, and at times one that is streamed.
fn body_length(random: &mut Rng) -> usize {
    let most = [100, 10_000, 300_000][random.usize(..3)];
    random.usize(1..most)
}

fn upload(stage: &mut Stage) -> io::Result<Outcome> {
    let length = body_length(&mut stage.random);
    let mut client = stage.gray()?;
    client.send(post(&format!("Content-Length: {length}")))?;
    client.send(vec![b'u'; length])?;
    Ok(counted(&client.answer()?, length))
}

fn chunked_upload(stage: &mut Stage) -> io::Result<Outcome> {
    let length = body_length(&mut stage.random);
    let mut client = stage.gray()?;
    client.send(post("Transfer-Encoding: chunked"))?;
    let mut left = length;
    while left > 0 {
        let size = stage.random.usize(1..=left);
        let chunk = [
            format!("{size:x}\r\n").as_bytes(),
            &vec![b'c'; size],
            b"\r\n",
        ]
        .concat();
        client.send(chunk)?;
        left -= size;
    }
    client.send("0\r\n\r\n")?;
    Ok(counted(&client.answer()?, length))
}

/// It cannot be sent again, so it fails where its server does.
fn risky_upload(stage: &mut Stage) -> io::Result<Outcome> {
    let length = stage.random.usize(1..4000);
    let mut client = stage.plain()?;
    client.send(post(&format!("Content-Length: {length}")))?;
    client.send(vec![b'r'; length])?;
    let answer = client.answer()?;
    Ok(match answer.status {
        502 => Outcome::Allowed("502 of a flaky server"),
        504 => Outcome::Allowed("504 of a flaky server"),
        _ => counted(&answer, length),
    })
}

fn tunnel(stage: &mut Stage) -> io::Result<Outcome> {
    let mut client = stage.gray()?;
    let answer = client.ask(get("/tunnel", "Connection: Upgrade\r\nUpgrade: soak\r\n"))?;
    if answer.status != 101 {
        return Ok(Outcome::Wrong(answer.brief()));
    }
    for _ in 0..stage.random.usize(1..10) {
        let bytes = vec![stage.random.u8(..); stage.random.usize(1..5000)];
        client.send(&bytes)?;
        if client.exactly(bytes.len())? != bytes {
            return Ok(Outcome::Wrong("other bytes".to_owned()));
        }
    }
    if stage.random.bool() {
        client.reset();
        return Ok(Outcome::Right(1));
    }
    client.stream.shutdown(std::net::Shutdown::Write)?;
    client.rest()?;
    Ok(Outcome::Right(1))
}

/// Goes away at some point, by FIN or by RST.
fn abort(stage: &mut Stage) -> io::Result<Outcome> {
    let mut client = match stage.random.bool() {
        true => stage.plain()?,
        false => stage.gray()?,
    };
    let (target, stage_of_end) = match stage.random.u8(..7) {
        0 => (String::new(), "before the request"),
        1 => (
            "GET /plain/10 HTTP/1.1\r\nHos".to_owned(),
            "within the head",
        ),
        2 => (get("/plain/10", ""), "after the head"),
        3 => (get("/late", ""), "while it waits"),
        4 => (get("/trickle/2000", ""), "within the answer"),
        5 => (
            post("Content-Length: 100000") + &"u".repeat(5000),
            "within an upload",
        ),
        _ => (
            post("Transfer-Encoding: chunked") + "5\r\nhel",
            "within a chunk",
        ),
    };
    client.send(target)?;
    if stage_of_end == "within the answer" {
        client.head()?;
    } else {
        std::thread::sleep(Duration::from_micros(stage.random.u64(..3000)));
    }
    if stage.random.bool() {
        client.reset();
    }
    Ok(Outcome::Allowed(stage_of_end))
}

/// Sends a byte at a time, and takes its answer little by little.
fn slow(stage: &mut Stage) -> io::Result<Outcome> {
    const LENGTH: usize = 400_000;
    let mut client = stage.gray()?;
    for piece in get(&format!("/plain/{LENGTH}"), "Connection: close\r\n")
        .as_bytes()
        .chunks(8)
    {
        client.send(piece)?;
        std::thread::sleep(Duration::from_millis(5));
    }
    client.head()?;
    let mut count = 0;
    let mut bytes = [0; 8000];
    loop {
        // What came with the head is in the client's own buffer; it is counted below.
        match client.stream.read(&mut bytes)? {
            0 => break,
            more => count += more,
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    count += client.rest()?.len();
    Ok(match count {
        LENGTH => Outcome::Right(1),
        _ => Outcome::Wrong(format!("{count} bytes")),
    })
}

/// Asks for much, takes nothing, and goes.
fn greedy(stage: &mut Stage) -> io::Result<Outcome> {
    let mut client = stage.gray()?;
    client.send(get("/plain/30000000", ""))?;
    std::thread::sleep(Duration::from_millis(100));
    if stage.random.bool() {
        client.reset();
    }
    Ok(Outcome::Allowed("gone with its answer unread"))
}

fn giant(stage: &mut Stage) -> io::Result<Outcome> {
    const LENGTH: usize = 12_000_000;
    let mut client = stage.gray()?;
    let answer = client.ask(get(&format!("/plain/{LENGTH}"), "Connection: close\r\n"))?;
    Ok(judge(&answer, LENGTH, 1))
}

/// The client must see that something is missing.
fn cut(stage: &mut Stage) -> io::Result<Outcome> {
    let kind = ["/half/length", "/half/chunked"][stage.random.usize(..2)];
    Ok(match stage.gray()?.ask(get(kind, "")) {
        Err(_) => Outcome::Allowed("cut, and seen to be"),
        Ok(answer) => Outcome::Wrong(format!("whole: {}", answer.brief())),
    })
}

fn reset_by_server(stage: &mut Stage) -> io::Result<Outcome> {
    let answer = stage.gray()?.ask(get("/reset", ""))?;
    Ok(match answer.status {
        502 => Outcome::Allowed("502 of a server that resets"),
        504 => Outcome::Allowed("504 of a server that stalls"),
        _ => Outcome::Wrong(answer.brief()),
    })
}

fn malformed(stage: &mut Stage) -> io::Result<Outcome> {
    let heads = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ];
    let head = heads[stage.random.usize(..heads.len())];
    let answer = stage.plain()?.ask(head)?;
    Ok(match answer.status {
        400 => Outcome::Right(1),
        _ => Outcome::Wrong(answer.brief()),
    })
}
