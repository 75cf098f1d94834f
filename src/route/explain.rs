//! `graygate explain`: who would serve a client, and why.
//!
//! The same functions as for a request decide here, with the same snapshot: the head is parsed, the
//! client's address is found in it, and [`route::decide`] names the pool.

use std::net::IpAddr;
use std::time::SystemTime;

use ipnet::IpNet;

use crate::http::client;
use crate::http::fields::{FieldKind, list};
use crate::http::h1::head::{Parsed, RequestHead, Scanner};
use crate::http::limits::{Limits, MAX_FIELDS};
use crate::http::subject::Subject;
use crate::lists::{ListedPeer, Lists, PoolName, Scratch};
use crate::route::{self, PoolStanding, Service};

/// Limits of the head in a question.
const LIMITS: Limits = Limits {
    line: 16 * 1024,
    head: 32 * 1024,
    fields: MAX_FIELDS,
};

/// A request as far as the decision depends on it.
pub(crate) struct Question<'a> {
    /// The address that the connection comes from.
    pub socket: IpAddr,
    /// The method.
    pub method: &'a str,
    /// The host, perhaps with a port.
    pub host: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Header fields besides Host, each as `Name: value`.
    pub headers: &'a [String],
}

impl<'a> Question<'a> {
    /// Of whoever asks `GET /` without any header field, from there.
    pub(crate) fn from(socket: IpAddr, headers: &'a [String]) -> Self {
        Self {
            socket,
            method: "GET",
            host: "explain",
            path: "/",
            headers,
        }
    }

    /// The head of the request.
    ///
    /// # Errors
    /// When something of it would be more than it seems: a line end would make several fields of one.
    fn head(&self) -> Result<String, String> {
        let is_control = |it: char| it.is_control() && it != '\t';
        let Self {
            method, host, path, ..
        } = *self;
        for (what, text) in [("method", method), ("host", host), ("path", path)] {
            if text.is_empty() || text.contains(|it: char| is_control(it) || it.is_whitespace()) {
                return Err(format!("such a {what} cannot be sent: {text:?}"));
            }
        }
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
        for header in self.headers {
            // A real one with another of these is refused.
            if header.contains(is_control) {
                return Err(format!(
                    "a header with a control character in it: {header:?}"
                ));
            }
            if header.is_empty() {
                return Err("an empty header".to_owned());
            }
            head.push_str(header);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        Ok(head)
    }
}

/// What of the configuration the decision depends on.
pub(crate) struct RoutingRules<'a> {
    /// See [`crate::config::GatewaySettings::trusted_proxies`].
    pub trusted_proxies: &'a [IpNet],
    /// See [`crate::config::UpstreamSettings::fallback`].
    pub fallback: bool,
    /// How the peers of `pre` are, as far as that is known.
    pub pre: PoolStanding,
    /// The same of `prod`.
    pub prod: PoolStanding,
}

/// Who serves a request, and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Explanation {
    /// Where the connection comes from.
    pub socket: String,
    /// That is a trusted proxy.
    pub socket_is_trusted_proxy: bool,
    /// What became of what the proxy has said, if it is trusted.
    pub x_forwarded_for: Option<String>,
    /// Why that is not believed.
    pub doubt: Option<String>,
    /// The client.
    pub client: String,
    /// Its pool, unless it is refused.
    pub pool: Option<String>,
    /// Why that pool.
    pub reason: Option<String>,
    /// Why it is refused.
    pub refusal: Option<String>,
    /// The entry of the gray list that covers the client.
    pub entry: Option<String>,
    /// Of the lists; only a gateway counts them.
    pub generation: Option<u64>,
    /// Of the lists.
    pub digest: String,
    /// The first of the pool's peers.
    pub peers: Vec<String>,
    /// How many there are.
    pub peers_count: u64,
    /// The first peers of `prod`, for a gray client, in case every attempt on `pre` fails.
    pub fallback: Option<Vec<String>>,
    /// How many there are.
    pub fallback_count: Option<u64>,
}

/// Decides as for a request, and says why.
///
/// # Errors
/// When the header fields are none.
pub(crate) fn explain(
    question: &Question<'_>,
    rules: &RoutingRules<'_>,
    lists: &Lists,
) -> Result<Explanation, String> {
    let text = question.head()?;
    let (mut head, bytes) = (RequestHead::default(), text.as_bytes());
    match head.parse(bytes, &mut Scanner::default(), &LIMITS) {
        Ok(Parsed::Complete) if head.len == bytes.len() => {}
        Ok(_) => return Err("such a head would not end".to_owned()),
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
    let service = Service {
        lists,
        pre: rules.pre,
        prod: rules.prod,
        fallback: rules.fallback,
    };
    let subject = Subject::new(client, &head, bytes);
    let now = lists.gray.expires().then(SystemTime::now);
    let decision = route::decide(&subject, &service, now, &mut Scratch::default());
    let peers = decision.map_or(&[][..], |decision| lists.pool(decision.pool).peers());
    let falls_back = decision.is_ok_and(|it| it.pool == PoolName::Pre) && rules.fallback;
    let fallback = falls_back.then(|| shown(lists.prod.peers()));
    let owned = |name: &str| name.to_owned();
    Ok(Explanation {
        socket: socket.to_string(),
        socket_is_trusted_proxy: is_proxy,
        x_forwarded_for: is_proxy.then_some(said),
        doubt: doubt.map(|(doubt, _)| owned(doubt.name())),
        client: client.to_string(),
        pool: decision.ok().map(|it| owned(it.pool.name())),
        reason: decision.ok().map(|it| owned(it.reason.name())),
        refusal: decision.err().map(|it| owned(it.name())),
        entry: lists.gray.matching(client).map(crate::lists::canonical),
        generation: Some(lists.generation),
        digest: lists.digest.to_string(),
        peers: shown(peers),
        peers_count: peers.len() as u64,
        fallback,
        fallback_count: falls_back.then(|| lists.prod.peers().len() as u64),
    })
}

/// True when no `X-Forwarded-For` has anything in it.
fn names_nobody(head: &RequestHead, bytes: &[u8]) -> bool {
    let mut chain = head.fields.of_kind(FieldKind::ForwardedFor);
    !chain.any(|it| list(it.value, bytes).next().is_some())
}

fn shown(peers: &[ListedPeer]) -> Vec<String> {
    let first = peers.iter().take(NAMED);
    first.map(ToString::to_string).collect()
}

/// So many peers are named.
const NAMED: usize = 1000;
