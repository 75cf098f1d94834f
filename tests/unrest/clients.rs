//! What clients ask for, again and again, and how each of it may end.

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::accounts::{Accounts, End};
use super::peer::Peer;
use crate::support::{Client, Gateway, Head};

/// Clients of the new version: 127.0.1.x.
pub(crate) const GRAY: &str = "127.0.1.0/24";

/// Pause of a client between two requests, at most.
const PAUSE: Duration = Duration::from_millis(20);

/// What all clients have in common.
pub(crate) struct Stage<'a> {
    pub(crate) gateway: &'a Gateway,
    pub(crate) peers: &'a [Peer],
    pub(crate) accounts: &'a Accounts,
    pub(crate) done: &'a AtomicBool,
}

/// One request.
struct Plan {
    method: &'static str,
    target: String,
    /// Of the request's body.
    upload: usize,
    /// What the body of the answer must be.
    expected: Vec<u8>,
    keeps: bool,
    leaves: Leaves,
}

/// Whether the client goes away before the end.
#[derive(Clone, Copy, PartialEq)]
enum Leaves {
    Never,
    /// Once it has sent the request.
    Early,
    /// Once it has the head of the answer.
    Late,
}

impl Plan {
    fn new(rng: &mut Rng) -> Self {
        let keeps = rng.u8(..4) > 0;
        let leaves = match rng.u8(..40) {
            0 => Leaves::Early,
            1 => Leaves::Late,
            _ => Leaves::Never,
        };
        let length = match rng.u8(..10) {
            0 => rng.usize(100_000..1_000_000),
            _ => rng.usize(1..2000),
        };
        let (method, target, upload, expected) = match rng.u8(..10) {
            0..2 => {
                let expected = length.to_string().into_bytes();
                ("POST", "/count".to_owned(), length, expected)
            }
            2 => ("HEAD", format!("/length/{length}"), 0, Vec::new()),
            3..5 => ("GET", format!("/chunked/{length}"), 0, vec![b'a'; length]),
            _ => ("GET", format!("/length/{length}"), 0, vec![b'a'; length]),
        };
        Self {
            method,
            target,
            upload,
            expected,
            keeps,
            leaves,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let (method, target) = (self.method, &self.target);
        let close = if self.keeps {
            ""
        } else {
            "Connection: close\r\n"
        };
        let length = match method {
            "POST" => format!("Content-Length: {}\r\n", self.upload),
            _ => String::new(),
        };
        let head = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{close}{length}\r\n");
        [head.into_bytes(), vec![b'u'; self.upload]].concat()
    }
}

impl Stage<'_> {
    /// Is a client until all is done.
    pub(crate) fn ask(&self, seed: u64) {
        let mut rng = Rng::with_seed(seed);
        let mut kept: Option<Client> = None;
        while !self.done.load(Ordering::Relaxed) {
            let plan = Plan::new(&mut rng);
            let sent = Instant::now();
            let mut client = match kept.take() {
                Some(client) => client,
                None => match self.connect(&mut rng) {
                    Ok(client) => client,
                    Err(error) => {
                        self.accounts.wrong(format!("connecting: {error}"));
                        continue;
                    }
                },
            };
            let end = self.exchange(&mut client, &plan, sent);
            let stays = plan.keeps && plan.leaves == Leaves::Never && end.leaves_it_open();
            match plan.leaves {
                Leaves::Never => drop(stays.then(|| kept = Some(client))),
                _ => client.reset(),
            }
            self.accounts.note(plan.method, end);
            std::thread::sleep(PAUSE.mul_f64(rng.f64()));
        }
    }

    fn connect(&self, rng: &mut Rng) -> io::Result<Client> {
        let net = rng.u8(1..=2);
        let source = Ipv4Addr::new(127, 0, net, rng.u8(1..=200));
        Client::try_from(&source.to_string(), self.gateway.addr())
    }

    fn exchange(&self, client: &mut Client, plan: &Plan, sent: Instant) -> End {
        // What is not taken is answered all the same, or the connection has ended.
        client.send_if_open(plan.bytes());
        if plan.leaves == Leaves::Early {
            return End::LeftEarly;
        }
        let head = match client.wire.head() {
            Ok(Some(head)) => head,
            outcome => {
                let what = format!("{} {}: no answer: {outcome:?}", plan.method, plan.target);
                return End::Wrong(None, what);
            }
        };
        let status = head.status();
        if plan.leaves == Leaves::Late {
            return End::Answered(status);
        }
        let body = client.wire.body(head.response_framing(plan.method));
        match (status, body) {
            (200, Ok(body)) if body.content == plan.expected => End::Answered(status),
            (200, Ok(body)) => {
                let length = body.content.len();
                End::Wrong(Some(status), format!("{}: {length} bytes", plan.target))
            }
            // It can only be seen to be cut.
            (200, Err(_)) if self.was_in_trouble(&head, sent) => End::Cut,
            // Whether the server has acted on it nobody knows.
            (502 | 504, Ok(body)) if plan.method == "POST" && self.is_trouble(status, sent) => {
                drop(body);
                End::Failed(status)
            }
            (_, body) => {
                let body = body.map(|it| String::from_utf8_lossy(&it.content).trim().to_owned());
                let (method, target, took) = (plan.method, &plan.target, sent.elapsed());
                let peer = head.field("x-peer");
                let what =
                    format!("{method} {target}: {status} after {took:?}, {body:?}, {peer:?}");
                End::Wrong(Some(status), what)
            }
        }
    }

    fn was_in_trouble(&self, head: &Head, sent: Instant) -> bool {
        let name = head.field("x-peer").unwrap_or_default();
        let mut peers = self.peers.iter();
        let peer = peers.find(|it| it.address.to_string() == name);
        peer.is_some_and(|it| it.was_in_trouble(sent))
    }

    /// A busy machine may make any server late.
    fn is_trouble(&self, status: u16, sent: Instant) -> bool {
        status == 504 || self.peers.iter().any(|it| it.was_in_trouble(sent))
    }
}
