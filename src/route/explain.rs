//! `graygate explain`: who would serve a client, and why.
//!
//! The same functions as for a request decide here, with the same snapshot: the head is parsed, the
//! client's address is found in it, and [`route::decide`] names the pool.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;

use crate::config::GraySettings;
use crate::error::Refusal;
use crate::http::client;
use crate::http::fields::{FieldKind, list};
use crate::http::h1::head::{Parsed, RequestHead, Scanner};
use crate::http::limits::{Limits, MAX_FIELDS};
use crate::http::subject::Subject;
use crate::http::visitor::{Visitor, VisitorId};
use crate::lists::{
    GrayList, Inspection, ListedPeer, Lists, PoolName, Scratch, Selected, ServiceName, TermFinding,
};
use crate::route::{self, DecidingEntry, PoolStanding, Service, UnknownService, grant, wish};

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
    /// What testers and marks may say, and the cookie of visitors.
    pub gray: &'a GraySettings,
    /// Finds the service that a request belongs to.
    pub find: &'a dyn Fn(&Subject<'_>) -> Result<Candidate, UnknownService>,
}

/// A service that a request belongs to, as far as the decision depends on it.
pub(crate) struct Candidate {
    /// Its name.
    pub name: ServiceName,
    /// Its lists.
    pub lists: Arc<Lists>,
    /// See [`crate::config::UpstreamSettings::fallback`].
    pub fallback: bool,
    /// The version in `pre` was taken back, as far as that is known.
    pub tripped: bool,
    /// How the peers of `pre` are, as far as that is known.
    pub pre: PoolStanding,
    /// The same of `prod`.
    pub prod: PoolStanding,
    /// The addresses of each pool with the states of their peers; none where only the lists are known.
    pub states: Option<[Vec<(String, String)>; PoolName::ALL.len()]>,
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
    /// The status of that answer.
    pub status: Option<u64>,
    /// The service that it belongs to.
    pub service: Option<String>,
    /// The entry of the gray list that has decided.
    pub entry: Option<String>,
    /// In which bucket of the share in it the request is, in percent: `37.42`.
    pub bucket: Option<String>,
    /// A tester's word that does not count, and why.
    pub force_refused: Option<String>,
    /// The client is no visitor yet: the gateway would give it an id by chance, and did so here.
    pub visitor_is_new: bool,
    /// Entries that hold or came near, the nearest first; without plain addresses.
    pub near: Vec<NearEntry>,
    /// How many there are.
    pub near_count: u64,
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
    /// The addresses of the pool's peers, each with its state; only a gateway knows them.
    pub states: BTreeMap<String, String>,
}

/// An entry, and what it makes of the request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NearEntry {
    /// The entry.
    pub entry: String,
    /// It holds.
    pub holds: bool,
    /// Its end has come.
    pub expired: bool,
    /// Its terms.
    pub terms: Vec<NearTerm>,
}

/// A term, and what it makes of the request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NearTerm {
    /// The term.
    pub term: String,
    /// It holds.
    pub holds: bool,
    /// What was found where it looks: the value, escaped where it is not printable, or the bucket.
    pub found: Option<String>,
}

/// What is found where a request has no such part; a value is in quotes.
pub(crate) const ABSENT: &str = "absent";

/// Decides as for a request, and says why.
///
/// # Errors
/// When the header fields are none.
pub(crate) fn explain(
    question: &Question<'_>,
    rules: &RoutingRules<'_>,
) -> Result<Explanation, String> {
    let next_id = || VisitorId::of(fastrand::u64(..));
    explain_at(question, rules, SystemTime::now(), &next_id)
}

/// The same at the time `now`; a new visitor gets the `next_id`.
///
/// # Errors
/// When the header fields are none.
pub(crate) fn explain_at(
    question: &Question<'_>,
    rules: &RoutingRules<'_>,
    now: SystemTime,
    next_id: &dyn Fn() -> VisitorId,
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
    let owned = |name: &str| name.to_owned();
    let visitor = Visitor::new(rules.gray.visitor_cookie.as_bytes(), next_id);
    let subject = Subject::new(client, &head, bytes).with_visitor(&visitor);
    let mut explanation = Explanation {
        socket: socket.to_string(),
        socket_is_trusted_proxy: is_proxy,
        x_forwarded_for: is_proxy.then_some(said),
        doubt: doubt.map(|(doubt, _)| owned(doubt.name())),
        client: client.to_string(),
        ..Explanation::default()
    };
    match (rules.find)(&subject) {
        Ok(candidate) => {
            explanation.decide(&subject, rules.gray, is_proxy, &candidate, now);
            explanation.visitor_is_new = visitor.to_be_told().is_some();
            // Nobody becomes a visitor by what did not decide.
            let stranger = Subject::new(client, &head, bytes);
            let inspected = match explanation.visitor_is_new || is_visitor(stranger, rules.gray) {
                true => subject,
                false => stranger,
            };
            explanation.inspect(&inspected, &candidate.lists.gray, now);
        }
        Err(unknown) => explanation.refuse(unknown.refusal()),
    }
    Ok(explanation)
}

/// True when a client has come before.
fn is_visitor(subject: Subject<'_>, settings: &GraySettings) -> bool {
    let visitor = Visitor::new(settings.visitor_cookie.as_bytes(), &|| VisitorId::of(0));
    subject.with_visitor(&visitor).visitor();
    visitor.to_be_told().is_none()
}

impl Explanation {
    fn refuse(&mut self, refusal: Refusal) {
        self.refusal = Some(refusal.name().to_owned());
        self.status = Some(u64::from(refusal.status()));
    }

    /// Decides for a service as for a request.
    fn decide(
        &mut self,
        subject: &Subject<'_>,
        settings: &GraySettings,
        by_proxy: bool,
        candidate: &Candidate,
        now: SystemTime,
    ) {
        let owned = |name: &str| name.to_owned();
        let lists = &*candidate.lists;
        let service = Service {
            lists,
            pre: candidate.pre,
            prod: candidate.prod,
            fallback: candidate.fallback,
            tripped: candidate.tripped,
        };
        let wish = wish(subject, settings, by_proxy);
        let decision = match wish.decision {
            Some(wanted) => grant(wanted, &service),
            None => route::decide(subject, &service, Some(now), &mut Scratch::default()),
        };
        let decided = decision.ok();
        self.service = Some(candidate.name.to_string());
        self.force_refused = wish.refused.map(|it| owned(it.name()));
        self.pool = decided.map(|it| owned(it.pool.name()));
        self.reason = decided.map(|it| owned(it.reason.name()));
        if let Err(refusal) = decision {
            self.refuse(refusal);
        }
        let entry = decided.and_then(|it| it.entry);
        (self.entry, self.bucket) = match entry {
            None => (None, None),
            Some(DecidingEntry::Address) => {
                let net = lists.gray.matching(subject.client);
                (net.map(crate::lists::canonical), None)
            }
            Some(DecidingEntry::Rule(Selected { place, bucket })) => {
                let rule = lists.gray.rules().get(place as usize);
                (rule.map(ToString::to_string), bucket.map(percent))
            }
        };
        self.generation = Some(lists.generation);
        self.digest = lists.digest.to_string();
        let peers = decided.map_or(&[][..], |it| lists.pool(it.pool).peers());
        (self.peers, self.peers_count) = (shown(peers), peers.len() as u64);
        if let (Some(it), Some(states)) = (decided, &candidate.states) {
            let states = states[it.pool as usize].iter().take(NAMED).cloned();
            self.states = states.collect();
        }
        if decided.is_some_and(|it| it.pool == PoolName::Pre) && candidate.fallback {
            let prod = lists.prod.peers();
            (self.fallback, self.fallback_count) = (Some(shown(prod)), Some(prod.len() as u64));
        }
    }

    /// Shows what entries make of the request.
    fn inspect(&mut self, subject: &Subject<'_>, gray: &GrayList, now: SystemTime) {
        let (near, count) = gray.inspect(subject, now, NEAR);
        self.near = near.into_iter().map(|it| NearEntry::of(it, gray)).collect();
        self.near_count = count as u64;
    }
}

impl NearEntry {
    fn of(inspection: Inspection, gray: &GrayList) -> Self {
        let rule = gray.rules().get(inspection.place);
        let terms = inspection.terms.into_iter().map(|it| NearTerm {
            holds: it.holds,
            found: match it.found {
                TermFinding::Client => None,
                TermFinding::Absent => Some(ABSENT.to_owned()),
                TermFinding::Bucket(bucket) => Some(percent(bucket)),
                TermFinding::Value(value) => {
                    let shown = &value[..value.len().min(VALUE_SHOWN)];
                    let more = if shown.len() < value.len() { "…" } else { "" };
                    Some(format!("\"{}\"{more}", shown.escape_ascii()))
                }
            },
            term: it.text,
        });
        Self {
            entry: rule.map(ToString::to_string).unwrap_or_default(),
            holds: inspection.holds,
            expired: inspection.has_expired,
            terms: terms.collect(),
        }
    }
}

/// A bucket, in percent with two decimals.
fn percent(bucket: u16) -> String {
    format!("{}.{:02}", bucket / 100, bucket % 100)
}

/// So many entries that came near are shown.
const NEAR: usize = 20;

/// So many bytes of a value are shown.
const VALUE_SHOWN: usize = 60;

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
