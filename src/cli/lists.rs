//! What is in force, and what is in the store: `graygate lists show` and `graygate lists diff`.
//!
//! The running gateway is asked by its admin socket, or over TCP; offline, the configured store is read,
//! by the same functions as in the gateway.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::admin::pages::lists::ListsPage;
use crate::admin::pages::standing::ListsStanding;
use crate::admin::pages::{Member as _, Page};
use crate::cli::admin_client::AdminClient;
use crate::cli::report::Report;
use crate::config::{Config, Store};
use crate::lists::{ByList, ListName, Lists, PeerList};
use crate::run;
use crate::store::{Entries, format, redis};

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    /// The running gateway.
    Gateway,
    /// The store that is configured.
    Store,
}

/// Lists, from wherever they come.
struct ListsContent {
    /// Lines about them, without line ends.
    about: Vec<String>,
    /// As the status of a gateway names it.
    source: String,
    digest: String,
    /// In the order of [`ListName::ALL`], in canonical form, but peers as they were written.
    entries: [BTreeSet<String>; 3],
    /// What a gateway says of them besides.
    standing: Option<ListsStanding>,
}

impl ListsContent {
    /// The members of the page `/lists` that are known.
    fn members(&self) -> Value {
        let mut members = match self.standing.as_ref().map(ListsStanding::render) {
            Some(Value::Object(members)) => members,
            _ => serde_json::Map::new(),
        };
        let [gray, pre, prod] = &self.entries;
        members.extend([
            ("source".to_owned(), json!(self.source)),
            ("digest".to_owned(), json!(self.digest)),
            ("gray".to_owned(), json!(gray)),
            ("written".to_owned(), json!({ "pre": pre, "prod": prod })),
        ]);
        Value::Object(members)
    }
}

/// The lists in the format of a lists file, with remarks about them in comments on top.
///
/// # Errors
/// One line: which of them cannot be asked, and why.
pub(crate) fn show(config: &Path, whom: Whom) -> Result<Report, String> {
    let content = match whom {
        Whom::Gateway => of_gateway(config)?,
        Whom::Store => of_store(&run::load(config)?)?,
    };
    let mut text = String::new();
    // Writing to a String cannot fail.
    for line in &content.about {
        let _ = writeln!(text, "# {line}");
    }
    for (list, entries) in ListName::ALL.iter().zip(&content.entries) {
        let _ = writeln!(text, "[{}]", list.name());
        for entry in entries {
            let _ = writeln!(text, "{entry}");
        }
    }
    Ok(Report::new(text, content.members()))
}

/// Compares the store with what the gateway holds: a line for each entry, `+` where only the store has it,
/// `-` where only the gateway has it; one for each list that the gateway holds or keeps, with the reason;
/// one with both digests; and one more where the gateway does not read this store. The answer is no if they
/// differ.
///
/// # Errors
/// One line: which of them cannot be asked, or why.
pub(crate) fn diff(config: &Path) -> Result<Report, String> {
    let (gateway, store) = (of_gateway(config)?, of_store(&run::load(config)?)?);
    let mut text = String::new();
    for (at, list) in ListName::ALL.iter().enumerate() {
        let (held, stored) = (&gateway.entries[at], &store.entries[at]);
        // Writing to a String cannot fail.
        for entry in held.difference(stored) {
            let _ = writeln!(text, "- {} {entry}", list.name());
        }
        for entry in stored.difference(held) {
            let _ = writeln!(text, "+ {} {entry}", list.name());
        }
    }
    for line in gateway.standing.iter().flat_map(kept) {
        let _ = writeln!(text, "{line}");
    }
    let same = gateway.digest == store.digest;
    let relation = if same { "the same" } else { "different" };
    let _ = writeln!(
        text,
        "{relation}: the gateway holds {}, the store has {}",
        gateway.digest, store.digest
    );
    if gateway.source != store.source {
        let _ = writeln!(
            text,
            "the gateway reads {}, not {} as configured here; only a restart changes that",
            gateway.source, store.source
        );
    }
    let report = Report::new(text, difference(&gateway, &store));
    Ok(match same {
        true => report,
        false => report.but("the gateway does not hold what the store has".to_owned()),
    })
}

/// The same, as members.
fn difference(gateway: &ListsContent, store: &ListsContent) -> Value {
    let without = |one: &ListsContent, other: &ListsContent| {
        let lists = ListName::ALL.iter().enumerate().map(|(at, list)| {
            let entries: Vec<_> = one.entries[at].difference(&other.entries[at]).collect();
            (list.name().to_owned(), json!(entries))
        });
        Value::Object(lists.collect())
    };
    let of = |it: &ListsContent| json!({ "source": it.source, "digest": it.digest });
    let standing = gateway.standing.as_ref();
    json!({
        "same": gateway.digest == store.digest,
        "only_gateway": without(gateway, store),
        "only_store": without(store, gateway),
        "gateway": of(gateway),
        "store": of(store),
        "held": standing.map(|it| it.held.render()),
        "kept": standing.map(|it| it.kept.render()),
    })
}

fn of_gateway(config: &Path) -> Result<ListsContent, String> {
    let asker = AdminClient::of(config)?;
    let (lists, entries) = whole(&asker)?;
    let source = &lists.source;
    if lists.generation == 0 {
        let why = lists.error.as_deref().unwrap_or("not yet");
        return Err(format!(
            "the gateway has read no lists from {source}: {why}"
        ));
    }
    Ok(ListsContent {
        about: vec![
            format!("in force; source {source}, mode {}", lists.mode),
            format!("generation {}, digest {}", lists.generation, lists.digest),
        ],
        source: lists.source.clone(),
        digest: lists.digest.clone(),
        entries,
        standing: Some(lists),
    })
}

/// How many entries of each list are fetched at once.
const AT_ONCE: usize = 50_000;

/// How often the lists may change while they are fetched, piece by piece.
const CHANGES: usize = 10;

/// The state of the lists, and all their entries, at one moment.
fn whole(asker: &AdminClient) -> Result<(ListsStanding, [BTreeSet<String>; 3]), String> {
    let page_from = |offset: usize| {
        let part = ListsPage::part(offset, AT_ONCE);
        asker.page_with::<ListsPage>(&part.each_ref().map(|(name, it)| (*name, it.as_str())))
    };
    for _ in 0..CHANGES {
        let first = page_from(0)?;
        if first.standing.hides_clients() {
            let what = "the lists of clients are not shown there: ask as root or in the gateway's group, \
                        by [admin] socket, or set [admin] expose = full";
            return Err(asker.failed(ListsPage::PATH, what));
        }
        let mut entries: [BTreeSet<String>; 3] = Default::default();
        let (mut offset, mut more) = (0, take(&first, &mut entries));
        more &= first.is_part();
        while more {
            offset += AT_ONCE;
            let next = page_from(offset)?;
            if next.standing.digest != first.standing.digest {
                break;
            }
            more = take(&next, &mut entries);
        }
        if !more {
            return Ok((first.standing, entries));
        }
    }
    Err("the lists change faster than they can be shown".to_owned())
}

/// Takes the entries of a page; true when there may be more.
fn take(page: &ListsPage, entries: &mut [BTreeSet<String>; 3]) -> bool {
    let mut more = false;
    for (list, entries) in ListName::ALL.into_iter().zip(entries) {
        let some = page.entries(list);
        more |= some.len() >= AT_ONCE;
        entries.extend(some.iter().cloned());
    }
    more
}

/// What a gateway says about lists that have not come into force.
fn kept(lists: &ListsStanding) -> Vec<String> {
    let held = lists.held.iter().map(|it| {
        let (list, reason, digest) = (&it.list, &it.reason, &it.digest);
        format!("{list} is held: {reason}; to accept it: graygate lists accept {digest}")
    });
    let kept = lists.kept.iter();
    let kept = kept.map(|it| format!("{} is kept, since the store has: {}", it.list, it.fault));
    held.chain(kept).collect()
}

fn of_store(config: &Config) -> Result<ListsContent, String> {
    let lists = stored(config)?;
    let source = config.store.to_string();
    let peers = |list: &PeerList| list.written().iter().map(ToString::to_string).collect();
    Ok(ListsContent {
        about: vec![
            format!("in the store: {source}"),
            format!("digest {}", lists.digest),
        ],
        source,
        digest: lists.digest.to_string(),
        entries: [
            lists.gray.entries().collect(),
            peers(&lists.pre),
            peers(&lists.prod),
        ],
        standing: None,
    })
}

/// The lists as they are in the store at this moment, whatever a gateway does with them.
pub(super) fn stored(config: &Config) -> Result<Lists, String> {
    let port = config.default_service().upstream.peer_port;
    let mut types = redis::WrongTypes::default();
    let reading = match &config.store {
        Store::File(path) => {
            let read = format::read(path);
            let read = read.and_then(|text| format::parse_services(&text, &config.services));
            let all = read.map_err(|error| format!("{}: {error}", path.display()))?;
            // The default service's are the first.
            let own = all.into_iter().next().map(|it| it.lists);
            own.unwrap_or_else(|| ByList::from_fn(|_| Ok(Entries::default())))
        }
        Store::Redis(settings) => {
            let once = redis::read(settings);
            let once = once.map_err(|error| format!("{}: {error}", settings.url))?;
            types = once.types;
            once.reading
        }
    };
    if let Some((list, Err(fault))) = reading.iter().find(|(_, it)| it.is_err()) {
        return Err(match types.of(list) {
            Some(what) => format!("{}: {}: {what}", list.name(), fault.name()),
            None => format!("{}: {}", list.name(), fault.name()),
        });
    }
    let entries = reading.map(Result::unwrap_or_default);
    Ok(Lists::parse(1, entries.as_ref(), port))
}
