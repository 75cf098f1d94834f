//! What `explain` says of a request that was just sent, while the lists stand still: the same as the gateway
//! has decided, and as the model does.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use fastrand::Rng;
use serde_json::Value;

use super::entries::Verdict;
use super::model::{InForce, now};
use super::requests::Asked;
use super::services::service_of;
use super::traffic::send;
use crate::support::{DEADLINE, Gateway, poll, run_to_exit};

/// The format of the access log.
pub(crate) const LOG_FORMAT: &str =
    "escape=none $request_uri\u{9}$service\u{9}$pool\u{9}$reason\u{9}$bucket\u{9}$entry";

/// The log is emptied when it is so long, in bytes.
const LONGEST_LOG: u64 = 16 << 20;

/// An entry may end meanwhile: then nothing is compared. In milliseconds.
const MEANWHILE: u64 = 100;

/// Sends a request, and asks about it. An error says how the answers differ; `Ok(false)`: they could not be
/// compared.
pub(crate) fn check(
    gateway: &Gateway,
    lists: &InForce,
    mark: u64,
    rng: &mut Rng,
) -> Result<bool, String> {
    let asked = Asked::by_chance(rng).into_visitor(rng).with_mark(mark);
    let log = gateway.path("access.log");
    let end = || std::fs::metadata(&log).map_or(0, |it| it.len());
    if end() > LONGEST_LOG {
        let file = File::options().write(true).open(&log).unwrap();
        file.set_len(0).unwrap();
    }
    let (offset, begun) = (end(), now().1);
    let mut client = gateway.connect_from(&asked.client.to_string());
    let said = send(&mut client, &asked);
    let explained = match rng.u8(..5) {
        0 => by_command(gateway, &asked),
        _ => by_page(gateway, &asked),
    };
    let service = service_of(&asked, lists.has_guest);
    let of = |now| lists.services[service].verdict(&asked, asked.visitor(), now);
    let (first, last) = (of(begun - MEANWHILE), of(now().1 + MEANWHILE));
    if first != last {
        return Ok(false);
    }
    let marked = format!("mark={mark}\t");
    let logged = poll(DEADLINE, || {
        let text = read_from(&log, offset);
        let mut lines = text.lines().filter(|it| it.contains(&marked));
        lines.next().map(str::to_owned)
    });
    let Some(logged) = logged else {
        return Err(format!("no line of {marked} in the log"));
    };
    let is_pre = first.reason == "listed";
    let pool = if is_pre { "pre" } else { "prod" };
    let bucket = first
        .bucket
        .map(|it| format!("{}.{:02}", it / 100, it % 100));
    let expected = [
        Some(service),
        Some(pool),
        Some(first.reason),
        bucket.as_deref(),
    ];
    let member = |name: &str| explained[name].as_str();
    let members = [
        member("service"),
        member("pool"),
        member("reason"),
        member("bucket"),
    ];
    let words = logged.split('\t').skip(1);
    let words = words.map(|it| Some(it).filter(|it| !matches!(*it, "" | "-")));
    let words: Vec<Option<&str>> = words.collect();
    let agree = members == expected
        && words[..4] == expected
        && (said.pool == pool && said.reason == first.reason)
        && member("entry") == first.entry.as_deref()
        && is_entry_of(words[4], &first);
    match agree {
        true => Ok(true),
        false => Err(format!(
            "{service}: the model has {first:?}; the answer {} {}; the log {logged:?}; explain {explained}; to {}",
            said.pool,
            said.reason,
            asked.head().replace("\r\n", " | ")
        )),
    }
}

/// In the log, addresses are not named, and others are cut to 100 bytes.
fn is_entry_of(logged: Option<&str>, verdict: &Verdict) -> bool {
    let is_plain =
        |it: &str| it.starts_with(|first: char| first.is_ascii_digit()) && !it.contains(' ');
    match (logged, &verdict.entry) {
        (None, None) => true,
        (None, Some(entry)) => is_plain(entry),
        (Some(logged), Some(entry)) if entry.len() > 100 => entry.starts_with(&logged[..90]),
        (Some(logged), Some(entry)) => logged == entry,
        (Some(_), None) => false,
    }
}

fn by_page(gateway: &Gateway, asked: &Asked) -> Value {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query
        .append_pair("ip", &asked.client.to_string())
        .append_pair("method", asked.method)
        .append_pair("host", asked.host)
        .append_pair("path", &asked.target());
    for line in asked.lines() {
        query.append_pair("header", &line);
    }
    let (status, text) = gateway.admin_get(&format!("/explain?{}", query.finish()));
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn by_command(gateway: &Gateway, asked: &Asked) -> Value {
    let (ini, client) = (gateway.path("graygate.ini"), asked.client.to_string());
    let (target, lines) = (asked.target(), asked.lines());
    let mut words = vec!["explain", &client, "--json", "-c", ini.to_str().unwrap()];
    words.extend([
        "--method",
        asked.method,
        "--host",
        asked.host,
        "--path",
        &target,
    ]);
    words.extend(lines.iter().flat_map(|it| ["--header", it]));
    let output = run_to_exit(&words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn read_from(log: &std::path::Path, offset: u64) -> String {
    let mut text = Vec::new();
    let mut file = File::open(log).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.read_to_end(&mut text).unwrap();
    let text = String::from_utf8_lossy(&text);
    // A last line without its end is still being written.
    text.rsplit_once('\n')
        .map_or(String::new(), |it| it.0.to_owned())
}
