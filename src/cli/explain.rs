//! `graygate explain`: who would serve a client, and why.
//!
//! The running gateway is asked by its admin socket, or over TCP; offline, the configured store is read,
//! and the same function decides in this process.

use std::path::Path;

use crate::admin::pages::Member as _;
use crate::admin::pages::explain::{HEADER, HOST, IP, METHOD, REQUEST_PATH};
use crate::cli::admin_client::AdminClient;
use crate::cli::lists::{Whom, stored};
use crate::cli::report::Report;
use crate::route::PoolStanding;
use crate::route::explain::{self, Explanation, Question, RoutingRules};
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
            let config = run::load(config)?;
            let lists = stored(&config)?;
            let rules = RoutingRules {
                trusted_proxies: &config.gateway.trusted_proxies,
                fallback: config.upstream.fallback,
                pre: PoolStanding::by_list(&lists.pre),
                prod: PoolStanding::by_list(&lists.prod),
            };
            Explanation {
                // Only a gateway counts them.
                generation: None,
                ..explain::explain(question, &rules, &lists)?
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
        Some(refusal) => format!("503 {refusal}"),
        None => format!("{} ({})", plain(&it.pool), plain(&it.reason)),
    };
    let fallback = it.fallback.as_ref().map(|fallback| {
        let count = it.fallback_count.unwrap_or_default();
        format!("fallback    {} (prod)\n", peers(fallback, count))
    });
    let generation = it.generation.map_or("-".to_owned(), |it| it.to_string());
    format!(
        "connection  {} ({socket})\nclient      {}\nentry       {}\nserved by   {outcome}\n\
         peers       {}\n{}generation  {generation}, digest {}\n",
        it.socket,
        it.client,
        plain(&it.entry),
        peers(&it.peers, it.peers_count),
        fallback.unwrap_or_default(),
        it.digest,
    )
}
