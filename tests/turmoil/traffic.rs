//! Clients that ask on and on, and peers that say who they are.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use fastrand::Rng;

use super::model::{Answer, Floor, GATEWAYS, Model, Moment, now};
use super::requests::Asked;
use crate::support::{self, Client, Gateway, StrictReader};

/// What came back.
pub(crate) struct Said {
    pub(crate) sent: Moment,
    pub(crate) got: Moment,
    pub(crate) status: u16,
    pub(crate) peer: String,
    pub(crate) pool: String,
    pub(crate) reason: String,
    /// The cookie that came with it.
    pub(crate) visitor: Option<String>,
}

/// Sends a request.
pub(crate) fn send(client: &mut Client, asked: &Asked) -> Said {
    let head = asked.head();
    let sent = now();
    let response = client.ask(head);
    let got = now();
    let exposed = response.field("X-Graygate").unwrap_or_default();
    let word = |name: &str| {
        let mut words = exposed.split("; ").filter_map(|it| it.strip_prefix(name));
        words.next().unwrap_or_default().to_owned()
    };
    let cookie = response.field("Set-Cookie");
    let visitor = cookie.map(|it| {
        let value = it.split_once('=').unwrap().1;
        value.split(';').next().unwrap().to_owned()
    });
    Said {
        sent,
        got,
        status: response.status(),
        peer: response.text(),
        pool: word("pool="),
        reason: word("reason="),
        visitor,
    }
}

/// Asks from one address after the other until `done`.
pub(crate) fn ask(gateways: &[Gateway], model: &Model, done: &AtomicBool, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut clients: BTreeMap<(usize, Ipv4Addr), Client> = BTreeMap::new();
    let mut floors: [Floor; GATEWAYS] = Default::default();
    while !done.load(Ordering::Relaxed) {
        let (asked, gateway) = (Asked::by_chance(&mut rng), rng.usize(..GATEWAYS));
        let place = (gateway, asked.client);
        let connect = || gateways[gateway].connect_from(&asked.client.to_string());
        let client = clients.entry(place).or_insert_with(connect);
        let said = send(client, &asked);
        let answer = Answer {
            gateway,
            asked: &asked,
            visitor: said.visitor.as_deref().or(asked.visitor()),
            sent: said.sent,
            got: said.got,
            status: said.status,
            peer: &said.peer,
            reason: &said.reason,
        };
        model.judge(&answer, &mut floors[gateway]);
        if rng.u8(..50) == 0 {
            clients.remove(&place);
        }
    }
}

/// Starts a peer that answers every request with its address, as it is listed.
pub(crate) fn start_peer() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let name = address.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, name) = (stream.unwrap(), name.clone());
            std::thread::spawn(move || answer_all(stream, &name));
        }
    });
    address
}

fn answer_all(stream: TcpStream, name: &str) {
    let mut answers = stream.try_clone().unwrap();
    let mut reader = StrictReader::new(stream);
    while reader.request().is_ok() {
        let answer = support::ok(name);
        if answers.write_all(&answer).is_err() {
            return;
        }
    }
}
