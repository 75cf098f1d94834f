//! `graygate explain`: who would serve a client, and why.
//!
//! The same functions as for a request decide here, with the same snapshot: the head is parsed, the
//! client's address is found in it, and [`route::decide`] names the pool.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::http::client;
use crate::http::fields::{Kind, list};
use crate::http::h1::head::{Parsed, RequestHead, Scanner};
use crate::http::limits::{Limits, MAX_FIELDS};
use crate::lists::Lists;
use crate::route::{self, PoolName};

/// Limits of the head in a question.
const LIMITS: Limits = Limits {
    line: 64,
    head: 32 * 1024,
    fields: MAX_FIELDS,
};

/// A request as far as the decision depends on it.
pub struct Question<'a> {
    /// The address that the connection comes from.
    pub socket: IpAddr,
    /// Header fields, each as `Name: value`.
    pub headers: &'a [String],
}

/// What of the configuration the decision depends on.
pub struct Rules<'a> {
    /// See [`crate::config::Gateway::trusted_proxies`].
    pub trusted_proxies: &'a [IpNet],
    /// See [`crate::config::Upstream::fallback`].
    pub fallback: bool,
}

/// Decides as for a request, and says why. A JSON object: `socket`, `x_forwarded_for` (of a trusted
/// proxy: what became of it), `doubt` (why that is not believed), `client`, `pool`, `reason` (or
/// `refusal`), `entry` (of the gray list, if one covers the client), `generation`, `digest`, `peers`;
/// and `fallback`, the peers of `prod` for a gray client, in case every attempt on `pre` fails.
///
/// # Errors
/// When the header fields are none.
pub fn explain(question: &Question<'_>, rules: &Rules<'_>, lists: &Lists) -> Result<Value, String> {
    let mut text = "GET / HTTP/1.1\r\nHost: explain\r\n".to_owned();
    for header in question.headers {
        // With a line end in it, it would be several; a real one with another of these is refused.
        if header.contains(|it: char| it.is_control() && it != '\t') {
            return Err(format!(
                "a header with a control character in it: {header:?}"
            ));
        }
        if header.is_empty() {
            return Err("a header that is empty".to_owned());
        }
        text.push_str(header);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    let (mut head, bytes) = (RequestHead::default(), text.as_bytes());
    match head.parse(bytes, &mut Scanner::default(), &LIMITS) {
        Ok(Parsed::Complete) if head.len == bytes.len() => {}
        Ok(_) => return Err("such a head has no end".to_owned()),
        Err(refusal) => {
            let (name, text) = (refusal.name(), refusal.text());
            return Err(format!("such a request is refused: {name}: {text}"));
        }
    }
    let socket = client::canonical(question.socket);
    let is_proxy = client::is_trusted(socket, rules.trusted_proxies);
    let client::Client {
        address: client,
        doubt,
    } = client::identify(socket, rules.trusted_proxies, &head.fields, bytes);
    let said = match doubt {
        Some((doubt, said)) => {
            let (name, text) = (doubt.name(), doubt.text());
            let said = said.of(bytes).escape_ascii();
            format!("is not believed: {name}: {text}: \"{said}\"")
        }
        None if names_nobody(&head, bytes) => "names nobody".to_owned(),
        None => "is believed".to_owned(),
    };
    let decision = route::decide(client, lists, rules.fallback);
    let pools = lists.pools();
    let peers = decision.map_or(&[][..], |decision| decision.pool.peers(&pools));
    let falls_back = decision.is_ok_and(|it| it.pool == PoolName::Pre) && rules.fallback;
    let fallback = falls_back.then(|| shown(PoolName::Prod.peers(&pools)));
    Ok(json!({
        "socket": socket.to_string(),
        "socket_is_trusted_proxy": is_proxy,
        "x_forwarded_for": is_proxy.then_some(said),
        "doubt": doubt.map(|(doubt, _)| doubt.name()),
        "client": client.to_string(),
        "pool": decision.ok().map(|it| it.pool.name()),
        "reason": decision.ok().map(|it| it.reason.name()),
        "refusal": decision.err().map(|it| it.name()),
        "entry": lists.gray.matching(client).map(crate::lists::canonical),
        "generation": lists.generation,
        "digest": lists.digest.to_string(),
        "peers": shown(peers),
        "peers_count": peers.len(),
        "fallback": fallback,
        "fallback_count": falls_back.then(|| PoolName::Prod.peers(&pools).len()),
    }))
}

/// True when no `X-Forwarded-For` has anything in it.
fn names_nobody(head: &RequestHead, bytes: &[u8]) -> bool {
    let mut chain = head
        .fields
        .iter()
        .filter(|it| it.kind == Kind::ForwardedFor);
    !chain.any(|it| list(it.value, bytes).next().is_some())
}

fn shown(peers: &[SocketAddr]) -> Vec<String> {
    let first = peers.iter().take(NAMED);
    first.map(ToString::to_string).collect()
}

/// So many peers are named.
const NAMED: usize = 1000;

/// The explanation as text, a line for each member.
pub fn text(explanation: &Value) -> String {
    let plain = |key: &str| match &explanation[key] {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let peers = |key: &str| {
        let peers = explanation[key].as_array().into_iter().flatten();
        match peers.filter_map(Value::as_str).collect::<Vec<_>>() {
            none if none.is_empty() => "-".to_owned(),
            peers => {
                let count = explanation[&format!("{key}_count")].as_u64();
                let more = count.unwrap_or_default().saturating_sub(peers.len() as u64);
                let more = (more > 0).then(|| format!(" and {more} more"));
                peers.join(" ") + &more.unwrap_or_default()
            }
        }
    };
    let socket = match explanation["x_forwarded_for"].as_str() {
        Some(said) => format!("a trusted proxy, whose X-Forwarded-For {said}"),
        None => "no trusted proxy, so it is the client".to_owned(),
    };
    let outcome = match &explanation["refusal"] {
        Value::String(refusal) => format!("503 {refusal}"),
        _ => format!("{} ({})", plain("pool"), plain("reason")),
    };
    let fallback = match explanation["fallback"].is_array() {
        true => format!("fallback    {} (prod)\n", peers("fallback")),
        false => String::new(),
    };
    format!(
        "connection  {} ({socket})\nclient      {}\nentry       {}\nserved by   {outcome}\n\
         peers       {}\n{fallback}generation  {}, digest {}\n",
        plain("socket"),
        plain("client"),
        plain("entry"),
        peers("peers"),
        plain("generation"),
        plain("digest"),
    )
}
