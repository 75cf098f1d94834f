//! What Redis is told, command by command.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::forwarder::Writers;
use super::model::{Held, Model, Who};

/// The keys that matter.
const STATE: &str = "graygate:release";
const TRIPPED: &str = "graygate:tripped";

/// Follows the server until `done`, whenever it is there.
pub(crate) fn follow(server: SocketAddr, writers: &Writers, model: &Model, done: &AtomicBool) {
    let mut number = 0;
    while !done.load(Ordering::Relaxed) {
        number += 1;
        // It is away, as a rule.
        let _ = follow_once(server, writers, model, &format!("marker-{number}"), done);
        std::thread::sleep(Duration::from_millis(3));
    }
}

fn follow_once(
    server: SocketAddr,
    writers: &Writers,
    model: &Model,
    marker: &str,
    done: &AtomicBool,
) -> Option<()> {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(1)).ok()?;
    stream.write_all(b"*1\r\n$7\r\nMONITOR\r\n").ok()?;
    let mut lines = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    lines.read_line(&mut line).ok()?;
    // What is there at a moment that is found again in what follows.
    let client = redis::Client::open(format!("redis://{server}/0")).ok()?;
    let mut connection = client
        .get_connection_with_timeout(Duration::from_secs(2))
        .ok()?;
    let mut pipe = redis::pipe();
    pipe.atomic().cmd("ECHO").arg(marker).ignore();
    pipe.cmd("GET").arg(STATE).cmd("GET").arg(TRIPPED);
    let (state, tripped): (Option<String>, Option<String>) = pipe.query(&mut connection).ok()?;
    let held = Held {
        state: value(state),
        tripped: value(tripped),
    };
    let mut held = Some(held);
    let second = Some(Duration::from_secs(1));
    stream.set_read_timeout(second).ok()?;
    let mut bytes = Vec::new();
    while !done.load(Ordering::Relaxed) {
        match lines.read_until(b'\n', &mut bytes) {
            Ok(0) => return None,
            Ok(_) => {}
            // What has come of a line stays.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => return None,
        }
        let line = String::from_utf8_lossy(&bytes).into_owned();
        bytes.clear();
        let Some((at, from, words)) = parse(&line) else {
            continue;
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if held.is_some() {
            if words.len() == 2 && words[1] == marker {
                held.take().into_iter().for_each(|it| model.found(at, it));
            }
            continue;
        }
        let who = writers.lock().unwrap().get(&from).copied();
        let who = who.map_or(Who::Desk, Who::Node);
        let command = words[0].to_ascii_uppercase();
        match (&*command, &words[1..]) {
            ("SET", [STATE, text, ..]) => {
                model.wrote_state(at, who, value(Some((*text).to_owned())));
            }
            ("SET", [TRIPPED, text, ..]) => {
                model.wrote_trip(at, who, value(Some((*text).to_owned())));
            }
            ("DEL", keys) => {
                if keys.contains(&STATE) {
                    model.wrote_state(at, who, Value::Null);
                }
                if keys.contains(&TRIPPED) {
                    model.wrote_trip(at, who, Value::Null);
                }
            }
            _ => {}
        }
    }
    Some(())
}

fn value(text: Option<String>) -> Value {
    text.map_or(Value::Null, |it| {
        serde_json::from_str(&it).unwrap_or(Value::String(it))
    })
}

/// `+1339518083.107412 [0 127.0.0.1:60866] "SET" "x" "1"`: the time in microseconds, who says so, the words.
fn parse(line: &str) -> Option<(i64, SocketAddr, Vec<String>)> {
    let (time, rest) = line.strip_prefix('+')?.split_once(" [")?;
    let (seconds, micros) = time.split_once('.')?;
    let at = seconds.parse::<i64>().ok()? * 1_000_000 + micros.parse::<i64>().ok()?;
    let (from, rest) = rest.split_once("] ")?;
    let from = from.split_once(' ')?.1.parse().ok()?;
    let (mut words, mut word) = (Vec::new(), None::<Vec<u8>>);
    let mut bytes = rest.bytes();
    while let Some(byte) = bytes.next() {
        match (&mut word, byte) {
            (None, b'"') => word = Some(Vec::new()),
            (None, _) => {}
            (Some(_), b'"') => {
                let word = word.take().unwrap_or_default();
                words.push(String::from_utf8_lossy(&word).into_owned());
            }
            (Some(word), b'\\') => word.push(match bytes.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'a' => 7,
                b'b' => 8,
                b'x' => {
                    let digits = [bytes.next()?, bytes.next()?];
                    u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
                }
                other => other,
            }),
            (Some(word), byte) => word.push(byte),
        }
    }
    (!words.is_empty()).then_some((at, from, words))
}
