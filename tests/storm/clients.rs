//! Clients of one gateway, each of which asks once: what they get is compared with what the gateway says of
//! its lists before and after.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value;

use super::model::Model;
use super::node::Node;
use super::version::BY;
use crate::support::Client;

/// Requests between two looks at the gateway.
const BATCH: usize = 12;

/// Time between two batches: the machine has other things to do.
const PAUSE: Duration = Duration::from_millis(150);

/// Asks until `done`.
pub(crate) fn ask(node: &Node, model: &Model, done: &AtomicBool, asked: &AtomicU64, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut client = None;
    let mut before = node.lists();
    while !done.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let mut answers = Vec::new();
        for _ in 0..BATCH {
            let answer = ask_once(node, &mut client, &mut rng);
            match answer {
                Some(answer) => answers.push(answer),
                None => {
                    client = None;
                    break;
                }
            }
        }
        let after = node.lists();
        asked.fetch_add(answers.len() as u64, Ordering::Relaxed);
        if let (Some(before), Some(after)) = (&before, &after) {
            compare(node, model, (before, after), &answers);
        }
        before = after;
        std::thread::sleep(PAUSE.saturating_sub(begun.elapsed()));
    }
}

fn ask_once(node: &Node, client: &mut Option<Client>, rng: &mut Rng) -> Option<(u16, String)> {
    if client.is_none() {
        *client = Some(Client::try_from("127.0.0.1", node.listen).ok()?);
    }
    let client = client.as_mut()?;
    let of = format!("10.{}.{}.{}", rng.u8(..), rng.u8(..), rng.u8(1..255));
    client.send_if_open(format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{BY}: {}\r\nX-Forwarded-For: {of}\r\n\r\n",
        node.number
    ));
    let response = client.try_response_to("GET").ok()?;
    Some((response.status(), response.text()))
}

fn compare(
    node: &Node,
    model: &Model,
    (before, after): (&Value, &Value),
    answers: &[(u16, String)],
) {
    let name = &node.name;
    for (status, text) in answers {
        if !matches!(status, 200 | 500) || !text.starts_with('v') {
            model.violation(&format!("{name} answers {status} {text:?}"));
        }
    }
    // The same trip, before and after: in between as well.
    let (trip, pre) = (&before["tripped"], &before["digests"]["pre"]);
    let is_same = trip["at"] == after["tripped"]["at"] && trip["pre"] == after["tripped"]["pre"];
    if trip.is_null() || !is_same || *pre != after["digests"]["pre"] {
        return;
    }
    let version = pre.as_str().and_then(|it| model.version(it));
    if let Some(version) = version {
        model.count("batches while it was taken back");
        if answers.iter().any(|(_, text)| *text == version) {
            model.violation(&format!(
                "{name} serves {version}, which was taken back: {trip}"
            ));
        }
    }
}
