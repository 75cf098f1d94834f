//! What is in force, or in the store: `graygate lists show`.
//!
//! The running gateway is asked by its admin socket, or over TCP; offline, the configured store is read,
//! by the same functions as in the gateway.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::admin::pages::lists::ListsPage;
use crate::admin::pages::standing::{ListsStanding, ServiceStanding};
use crate::admin::pages::{Member as _, Page};
use crate::cli::admin_client::AdminClient;
use crate::cli::report::Report;
use crate::cli::stored::{self, StoredLists};
use crate::config::Config;
use crate::lists::{ListName, Lists, PeerList, ServiceName};
use crate::run;
use crate::store::format;

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    /// The running gateway.
    Gateway,
    /// The store that is configured.
    Store,
}

/// Lists of a service, from wherever they come.
pub(super) struct ListsContent {
    pub(super) service: ServiceName,
    /// The service whose gray list it has.
    gray_of: Option<ServiceName>,
    /// Lines about them, without line ends.
    about: Vec<String>,
    /// As the status of a gateway names it.
    pub(super) source: String,
    pub(super) digest: String,
    /// In the order of [`ListName::ALL`], in canonical form, but peers as they were written.
    pub(super) entries: [BTreeSet<String>; 3],
    /// What a gateway says of them besides.
    pub(super) standing: Option<ListsStanding>,
}

impl ListsContent {
    /// The members of the page `/lists` that are known.
    fn members(&self) -> Map<String, Value> {
        let mut members = match self.standing.as_ref().map(ListsStanding::render) {
            Some(Value::Object(members)) => members,
            _ => Map::new(),
        };
        // They are told with their entries.
        members.remove("services");
        let [gray, pre, prod] = &self.entries;
        members.extend([
            ("source".to_owned(), json!(self.source)),
            ("digest".to_owned(), json!(self.digest)),
            ("gray".to_owned(), json!(gray)),
            ("written".to_owned(), json!({ "pre": pre, "prod": prod })),
        ]);
        members
    }

    /// The same, with whose they are.
    fn members_of_service(&self) -> Value {
        let mut members = self.members();
        members.extend([
            ("service".to_owned(), json!(self.service.as_str())),
            (
                "gray_of".to_owned(),
                json!(self.gray_of.as_ref().map(ServiceName::as_str)),
            ),
        ]);
        Value::Object(members)
    }

    /// A part of a lists file. A gray list that is shared is not there twice: it `stands` elsewhere.
    fn write(&self, text: &mut String, stands: bool) {
        // Writing to a String cannot fail.
        for line in &self.about {
            let _ = match self.service.is_default() {
                true => writeln!(text, "# {line}"),
                false => writeln!(text, "# {}: {line}", self.service),
            };
        }
        for (list, entries) in ListName::ALL.into_iter().zip(&self.entries) {
            let shared = self.gray_of.as_ref().filter(|_| list == ListName::Gray);
            if let Some(owner) = shared {
                let _ = writeln!(text, "# {}: the gray list of {owner}", self.service);
                if stands {
                    continue;
                }
            }
            let title = format::title(shared.unwrap_or(&self.service), list.name());
            let _ = writeln!(text, "[{title}]");
            for entry in entries {
                let _ = writeln!(text, "{entry}");
            }
        }
    }
}

/// The lists of one service, or of all, in the format of a lists file, with remarks about them in comments
/// on top.
///
/// # Errors
/// One line: which of them cannot be asked, and why.
pub(crate) fn show(config: &Path, service: Option<&str>, whom: Whom) -> Result<Report, String> {
    let one = service.map(named).transpose()?;
    let found = match whom {
        Whom::Gateway => of_gateway(config, one.as_ref())?,
        Whom::Store => of_store(&run::load(config)?, one.as_ref())?,
    };
    let mut text = String::new();
    for content in &found {
        content.write(&mut text, one.is_none());
    }
    let Some((first, others)) = found.split_first() else {
        return Err("there are no lists".to_owned());
    };
    let members = match &one {
        Some(_) => first.members_of_service(),
        None => {
            let mut members = first.members();
            if !others.is_empty() {
                let others = others.iter().map(ListsContent::members_of_service);
                members.insert("services".to_owned(), others.collect());
            }
            Value::Object(members)
        }
    };
    Ok(Report::new(text, members))
}

/// The service of that name.
///
/// # Errors
/// It is none.
pub(super) fn named(service: &str) -> Result<ServiceName, String> {
    ServiceName::named(service).ok_or_else(|| format!("{service:?} is no name of a service"))
}

/// That there is no such service.
pub(super) fn unknown<'a>(
    service: &ServiceName,
    place: &str,
    there: impl IntoIterator<Item = &'a str>,
) -> String {
    let there: Vec<&str> = there.into_iter().collect();
    format!(
        "{place} has no service {service}; there is {}",
        there.join(", ")
    )
}

/// What a gateway has of one service, or of all.
fn of_gateway(config: &Path, one: Option<&ServiceName>) -> Result<Vec<ListsContent>, String> {
    let asker = AdminClient::of(config)?;
    let services = asker.lists()?.standing.services;
    let default = ServiceName::default();
    if services.is_empty() {
        return match one {
            Some(one) if !one.is_default() => Err(unknown(one, "the gateway", [default.as_str()])),
            _ => Ok(vec![content(&asker, &default, None)?]),
        };
    }
    let names = services.iter().map(|it| it.service.as_str());
    if let Some(one) = one.filter(|one| !names.clone().any(|it| it == one.as_str())) {
        return Err(unknown(one, "the gateway", names));
    }
    let wanted = services
        .iter()
        .filter(|it| one.is_none_or(|one| one.as_str() == it.service));
    let contents = wanted.map(|it| {
        let service = ServiceName::named(&it.service).unwrap_or_default();
        content(&asker, &service, Some(it))
    });
    contents.collect()
}

/// What a gateway has of a service.
///
/// # Errors
/// Why it cannot be asked, or that it has no lists of it.
pub(super) fn content(
    asker: &AdminClient,
    service: &ServiceName,
    of_service: Option<&ServiceStanding>,
) -> Result<ListsContent, String> {
    let (lists, entries) = whole(asker, service)?;
    let source = &lists.source;
    if lists.generation == 0 {
        let why = lists.error.as_deref().unwrap_or("not yet");
        let of_it = match service.is_default() {
            true => String::new(),
            false => format!(" of {service}"),
        };
        return Err(format!(
            "the gateway has read no lists{of_it} from {source}: {why}"
        ));
    }
    let (generation, digest) = (lists.generation, &lists.digest);
    let mut about = vec![format!("generation {generation}, digest {digest}")];
    if service.is_default() {
        about.insert(0, format!("in force; source {source}, mode {}", lists.mode));
    }
    let gray_of = of_service.and_then(|it| it.gray_of.as_deref());
    Ok(ListsContent {
        service: service.clone(),
        gray_of: gray_of.and_then(ServiceName::named),
        about,
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
fn whole(
    asker: &AdminClient,
    service: &ServiceName,
) -> Result<(ListsStanding, [BTreeSet<String>; 3]), String> {
    let page_from = |offset: usize| {
        let part = ListsPage::part_of(service, offset, AT_ONCE);
        let part: Vec<_> = part.iter().map(|(name, it)| (*name, it.as_str())).collect();
        asker.page_with::<ListsPage>(&part)
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

/// What the store has of one service, or of all.
fn of_store(config: &Config, one: Option<&ServiceName>) -> Result<Vec<ListsContent>, String> {
    let all = stored::all(config)?;
    let names = all.iter().map(|it| it.service.as_str());
    if let Some(one) = one.filter(|one| !names.clone().any(|it| it == one.as_str())) {
        return Err(unknown(one, "the ini file", names));
    }
    let wanted = all
        .into_iter()
        .filter(|it| one.is_none_or(|one| *one == it.service));
    wanted.map(|it| of_stored(config, it)).collect()
}

/// What the store has of a service.
///
/// # Errors
/// Which of its lists cannot be read, and why.
pub(super) fn of_stored(config: &Config, stored: StoredLists) -> Result<ListsContent, String> {
    let lists: Lists = stored.lists?;
    let source = config.store.to_string();
    let peers = |list: &PeerList| list.written().iter().map(ToString::to_string).collect();
    let mut about = vec![format!("digest {}", lists.digest)];
    if stored.service.is_default() {
        about.insert(0, format!("in the store: {source}"));
    }
    Ok(ListsContent {
        service: stored.service,
        gray_of: stored.gray_of,
        about,
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
