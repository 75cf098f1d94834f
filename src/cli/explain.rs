//! `graygate explain`: who would serve a client, and why.
//!
//! The running gateway is asked by its admin socket, or over TCP; offline, the configured store is read,
//! and the same function decides in this process.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use crate::admin::pages::Member as _;
use crate::admin::pages::explain::{HEADER, HOST, IP, METHOD, REQUEST_PATH};
use crate::cli::admin_client::AdminClient;
use crate::cli::lists::Whom;
use crate::cli::report::Report;
use crate::cli::stored;
use crate::http::subject::Subject;
use crate::lists::{Lists, ServiceName};
use crate::route::explain::{
    self, ABSENT, Candidate, Explanation, NearEntry, NearTerm, Question, RoutingRules,
};
use crate::route::{PoolStanding, ServiceTable};
use crate::run;

/// Who would serve a request from `ip` with these header fields, and why.
///
/// # Errors
/// One line: which of them cannot be asked, and why; or what is wrong with the question.
pub(crate) fn explain(
    config: &Path,
    question: &Question<'_>,
    whom: Whom,
) -> Result<Report, String> {
    let explanation = match whom {
        Whom::Gateway => {
            let ip = question.socket.to_string();
            let parts = [
                (IP, ip.as_str()),
                (METHOD, question.method),
                (HOST, question.host),
                (REQUEST_PATH, question.path),
            ];
            let headers = question.headers.iter().map(|it| (HEADER, it.as_str()));
            let query: Vec<_> = parts.into_iter().chain(headers).collect();
            AdminClient::of(config)?.page_with(&query)?
        }
        Whom::Store => {
            let mut config = run::load(config)?;
            let secret = run::force_secret::read(&config.gray);
            let unread = secret.as_ref().err().map(ToString::to_string);
            config.gray.force_secret = secret.unwrap_or_default();
            let table = ServiceTable::new(&config.services);
            let stored = stored::all(&config)?;
            let error = RefCell::new(None);
            let find = |subject: &Subject<'_>| {
                let place = table.find(subject.host(), subject.path())?;
                let service = &config.services[place];
                let of_it = stored.iter().find(|it| it.service == service.name);
                let lists = match of_it.map(|it| &it.lists) {
                    Some(Ok(lists)) => lists.clone(),
                    Some(Err(what)) => {
                        *error.borrow_mut() = Some(what.clone());
                        Lists::unread()
                    }
                    None => Lists::unread(),
                };
                Ok(Candidate {
                    name: service.name.clone(),
                    fallback: service.upstream.fallback,
                    tripped: of_it.is_some_and(stored::StoredLists::is_tripped),
                    pre: PoolStanding::by_list(&lists.pre),
                    prod: PoolStanding::by_list(&lists.prod),
                    lists: Arc::new(lists),
                    states: None,
                })
            };
            let rules = RoutingRules {
                trusted_proxies: &config.gateway.trusted_proxies,
                gray: &config.gray,
                find: &find,
            };
            let explanation = explain::explain(question, &rules)?;
            // Where it could not be read, nothing that a tester shows can be told from a wrong one.
            let unread = unread.filter(|_| explanation.force_refused.is_some());
            if let Some(error) = error.take().or(unread) {
                return Err(error);
            }
            Explanation {
                // Only a gateway counts them.
                generation: None,
                ..explanation
            }
        }
    };
    Ok(Report::new(text(&explanation), explanation.render()))
}

/// The explanation as text, a line for each member.
fn text(explanation: &Explanation) -> String {
    let plain = |text: &Option<String>| text.as_deref().unwrap_or("-").to_owned();
    let peers = |peers: &[String], count: u64| match peers {
        [] => "-".to_owned(),
        peers => {
            let more = count.saturating_sub(peers.len() as u64);
            let more = (more > 0).then(|| format!(" and {more} more"));
            peers.join(" ") + &more.unwrap_or_default()
        }
    };
    let it = explanation;
    let socket = match &it.x_forwarded_for {
        Some(said) => format!("a trusted proxy, whose X-Forwarded-For {said}"),
        None => "not a trusted proxy, so it is the client".to_owned(),
    };
    let outcome = match &it.refusal {
        Some(refusal) => format!("{} {refusal}", it.status.unwrap_or(503)),
        None => format!("{} ({})", plain(&it.pool), plain(&it.reason)),
    };
    let fallback = it.fallback.as_ref().map(|fallback| {
        let count = it.fallback_count.unwrap_or_default();
        format!("fallback    {} (prod)\n", peers(fallback, count))
    });
    let line = |name: &str, text: Option<String>| {
        text.map_or_else(String::new, |it| format!("{name:<12}{it}\n"))
    };
    let service = it.service.clone().filter(|it| it != ServiceName::DEFAULT);
    let bucket = it.bucket.as_ref().map(|bucket| match share_of(it, bucket) {
        Some(share) => format!("{bucket} of {share}"),
        None => bucket.clone(),
    });
    let visitor = it
        .visitor_is_new
        .then(|| "new, with an id by chance".to_owned());
    let refused = it
        .force_refused
        .as_ref()
        .map(|it| format!("not forced: {it}"));
    let states = it.states.iter();
    let states: Vec<String> = states
        .map(|(peer, state)| format!("{peer} {state}"))
        .collect();
    let states = (!states.is_empty()).then(|| states.join(", "));
    let generation = it.generation.map_or("-".to_owned(), |it| it.to_string());
    format!(
        "connection  {} ({socket})\nclient      {}\n{}{}{}entry       {}\n{}served by   {outcome}\n\
         peers       {}\n{}{}generation  {generation}, digest {}\n{}",
        it.socket,
        it.client,
        line("service", service),
        line("tester", refused),
        line("visitor", visitor),
        plain(&it.entry),
        line("bucket", bucket),
        peers(&it.peers, it.peers_count),
        line("states", states),
        fallback.unwrap_or_default(),
        it.digest,
        near(it),
    )
}

/// The entries that hold or came near, each with its terms: `+` before those that hold.
fn near(explanation: &Explanation) -> String {
    let entries = &explanation.near;
    let mut text = String::new();
    for (at, entry) in entries.iter().enumerate() {
        let name = if at == 0 { "near" } else { "" };
        let decides = explanation.entry.as_ref() == Some(&entry.entry);
        text.push_str(&format!(
            "{name:<12}{} ({})\n",
            entry.entry,
            verdict(entry, decides, explanation)
        ));
        for term in entry
            .terms
            .iter()
            .filter(|_| entry.terms.len() > 1 || entry.terms[0].found.is_some())
        {
            let sign = if term.holds { '+' } else { '-' };
            let found = found(term);
            text.push_str(&format!("{:<14}{sign} {}{found}\n", "", term.term));
        }
    }
    let more = explanation.near_count.saturating_sub(entries.len() as u64);
    if more > 0 {
        text.push_str(&format!("{:<12}and {more} more\n", ""));
    }
    text
}

/// What was found where a term looks; a bucket with the share that it is held against.
fn found(term: &NearTerm) -> String {
    match (&term.found, share(term)) {
        (None, _) => String::new(),
        (Some(found), Some(share)) if found != ABSENT => format!(": {found} of {share}"),
        (Some(found), _) => format!(": {found}"),
    }
}

/// The share that a term is about, in percent, if it is about one.
fn share(term: &NearTerm) -> Option<&str> {
    term.term.strip_prefix("percent:")?.split(':').next()
}

/// The share of the entry that decides in which the request has this bucket.
fn share_of<'a>(it: &'a Explanation, bucket: &str) -> Option<&'a str> {
    let decides = |entry: &&NearEntry| Some(&entry.entry) == it.entry.as_ref();
    let mut terms = it.near.iter().find(decides)?.terms.iter();
    terms.find_map(|term| share(term).filter(|_| term.found.as_deref() == Some(bucket)))
}

fn verdict(entry: &NearEntry, decides: bool, explanation: &Explanation) -> &'static str {
    match entry {
        _ if decides => "decides",
        NearEntry { expired: true, .. } => "has expired",
        // A tester or a mark has decided, or nobody could be served.
        NearEntry { holds: true, .. } if explanation.entry.is_none() => "holds",
        NearEntry { holds: true, .. } => "holds, but another one decides",
        NearEntry { holds: false, .. } => "does not hold",
    }
}
