//! What the gateway holds beside what the store has: `graygate lists diff`.
//!
//! Of services besides the default one, digests are compared first: entries are asked for only where these
//! differ.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::admin::pages::Member as _;
use crate::admin::pages::standing::{HeldShown, KeptList, ListsStanding, ServiceStanding};
use crate::cli::admin_client::AdminClient;
use crate::cli::lists::{self, ListsContent};
use crate::cli::report::Report;
use crate::cli::stored::{self, StoredLists};
use crate::config::Config;
use crate::lists::{ListName, ServiceName};
use crate::run;
use crate::store::format;

/// The most services that are named at once.
const NAMED: usize = 20;

/// How a service compares.
struct ServiceDifference {
    service: ServiceName,
    same: bool,
    /// What there is to say, in lines.
    text: String,
    members: Map<String, Value>,
}

/// Compares the store with what the gateway holds, of one service or of all: a line for each entry, `+` where
/// only the store has it, `-` where only the gateway has it; one for each list that the gateway holds or
/// keeps, with the reason; one with both digests; and one more where the gateway does not read this store.
/// The answer is no if they differ.
///
/// # Errors
/// One line: which of them cannot be asked, or why.
pub(crate) fn diff(path: &Path, service: Option<&str>) -> Result<Report, String> {
    let one = service.map(lists::named).transpose()?;
    let asker = AdminClient::of(path)?;
    let standing = asker.lists()?.standing;
    if standing.hides_clients() || standing.generation == 0 && standing.services.is_empty() {
        // It says why.
        lists::content(&asker, &ServiceName::default(), None)?;
    }
    let config = run::load(path)?;
    let default = standing_of_default(&standing);
    let held: &[ServiceStanding] = match &*standing.services {
        [] => std::slice::from_ref(&default),
        services => services,
    };
    let mut comparison = DiffSubject {
        asker,
        stored: stored::all(&config)?,
        config: &config,
        source: standing.source.clone(),
        held,
    };
    let names = comparison.names(one.as_ref())?;
    let mut all = Vec::new();
    for service in &names {
        all.push(comparison.of(service, names.len() > 1)?);
    }
    Ok(report(all, &comparison, one.is_some()))
}

/// An older gateway says no more than that of its only service.
fn standing_of_default(standing: &ListsStanding) -> ServiceStanding {
    ServiceStanding {
        service: ServiceName::DEFAULT.to_owned(),
        generation: standing.generation,
        digest: standing.digest.clone(),
        kept: standing.kept.clone(),
        held: standing.held.clone(),
        ..ServiceStanding::default()
    }
}

/// What is compared.
struct DiffSubject<'a> {
    asker: AdminClient,
    config: &'a Config,
    stored: Vec<StoredLists>,
    /// What the gateway reads.
    source: String,
    /// How its services stand.
    held: &'a [ServiceStanding],
}

impl DiffSubject<'_> {
    /// The services to compare: of the ini file, and those that only the gateway has.
    fn names(&self, one: Option<&ServiceName>) -> Result<Vec<ServiceName>, String> {
        let mut names: Vec<ServiceName> = self.stored.iter().map(|it| it.service.clone()).collect();
        for it in self.held {
            let name = ServiceName::named(&it.service);
            names.extend(name.filter(|it| !names.contains(it)));
        }
        match one {
            None => Ok(names),
            Some(one) if names.contains(one) => Ok(vec![one.clone()]),
            Some(one) => {
                let names = names.iter().map(ServiceName::as_str);
                Err(lists::unknown(one, "neither gateway nor ini file", names))
            }
        }
    }

    /// How this service compares; where it is one of several, one that cannot be compared is told as such.
    fn of(&mut self, service: &ServiceName, goes_on: bool) -> Result<ServiceDifference, String> {
        let held = self.held.iter().find(|it| it.service == service.as_str());
        let place = self.stored.iter().position(|it| it.service == *service);
        let stored = place.map(|at| self.stored.swap_remove(at));
        let prefix = prefix(service);
        let (held, stored) = match (held, stored) {
            (Some(held), Some(stored)) => (held, stored),
            (None, _) => {
                let what = "the gateway has no such service; a reload takes it on";
                return Ok(ServiceDifference::failed(service, what));
            }
            (_, None) => {
                let what = "the ini file has no such service; a reload takes it away";
                return Ok(ServiceDifference::failed(service, what));
            }
        };
        let mut text = String::new();
        let is_as_held = |it: &StoredLists| {
            let lists = it.lists.as_ref();
            lists.is_ok_and(|it| held.generation > 0 && it.digest.to_string() == held.digest)
        };
        if !service.is_default() && is_as_held(&stored) {
            kept(&mut text, &prefix, &held.kept, &held.held);
            return Ok(ServiceDifference::none(held, text));
        }
        let both = lists::content(&self.asker, service, Some(held))
            .and_then(|gateway| Ok((gateway, lists::of_stored(self.config, stored)?)));
        let (gateway, store) = match both {
            Ok(both) => both,
            Err(what) if goes_on => return Ok(ServiceDifference::failed(service, &what)),
            Err(what) => return Err(what),
        };
        entries(&mut text, service, &gateway, &store);
        if let Some(standing) = &gateway.standing {
            kept(&mut text, &prefix, &standing.kept, &standing.held);
        }
        let same = gateway.digest == store.digest;
        let relation = if same { "the same" } else { "different" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{prefix}{relation}: the gateway holds {}, the store has {}",
            gateway.digest, store.digest
        );
        Ok(ServiceDifference {
            service: service.clone(),
            same,
            text,
            members: members(&gateway, &store),
        })
    }
}

impl ServiceDifference {
    /// Both have lists of the same digest.
    fn none(held: &ServiceStanding, text: String) -> Self {
        let of = json!({ "digest": held.digest });
        let members = [
            ("same", json!(true)),
            ("gateway", of.clone()),
            ("store", of),
            ("held", held.held.render()),
            ("kept", held.kept.render()),
        ];
        Self {
            service: ServiceName::named(&held.service).unwrap_or_default(),
            same: true,
            text,
            members: with_names(members),
        }
    }

    /// It cannot be compared, so it is not known to be the same.
    fn failed(service: &ServiceName, what: &str) -> Self {
        let members = [("same", json!(false)), ("error", json!(what))];
        Self {
            service: service.clone(),
            same: false,
            text: format!("{service}: not compared: {what}\n"),
            members: with_names(members),
        }
    }
}

/// What stands in front of a line about a service.
fn prefix(service: &ServiceName) -> String {
    match service.is_default() {
        true => String::new(),
        false => format!("{service}: "),
    }
}

/// What only one of them has.
fn entries(text: &mut String, service: &ServiceName, gateway: &ListsContent, store: &ListsContent) {
    for (at, list) in ListName::ALL.iter().enumerate() {
        let (held, stored) = (&gateway.entries[at], &store.entries[at]);
        let list = format::title(service, list.name());
        // Writing to a String cannot fail.
        for entry in held.difference(stored) {
            let _ = writeln!(text, "- {list} {entry}");
        }
        for entry in stored.difference(held) {
            let _ = writeln!(text, "+ {list} {entry}");
        }
    }
}

/// What a gateway says about lists that have not come into force.
fn kept(text: &mut String, prefix: &str, kept: &[KeptList], held: &[HeldShown]) {
    // Writing to a String cannot fail.
    for it in held {
        let (list, reason, digest) = (&it.list, &it.reason, &it.digest);
        let _ = writeln!(
            text,
            "{prefix}{list} is held: {reason}; to accept it: graygate lists accept {digest}"
        );
    }
    for it in kept {
        let (list, fault) = (&it.list, &it.fault);
        let _ = writeln!(text, "{prefix}{list} is kept, since the store has: {fault}");
    }
}

/// The same, as members.
fn members(gateway: &ListsContent, store: &ListsContent) -> Map<String, Value> {
    let without = |one: &ListsContent, other: &ListsContent| {
        let lists = ListName::ALL.iter().enumerate().map(|(at, list)| {
            let entries: Vec<_> = one.entries[at].difference(&other.entries[at]).collect();
            (list.name().to_owned(), json!(entries))
        });
        Value::Object(lists.collect())
    };
    let of = |it: &ListsContent| json!({ "source": it.source, "digest": it.digest });
    let standing = gateway.standing.as_ref();
    let members = [
        ("same", json!(gateway.digest == store.digest)),
        ("only_gateway", without(gateway, store)),
        ("only_store", without(store, gateway)),
        ("gateway", of(gateway)),
        ("store", of(store)),
        ("held", json!(standing.map(|it| it.held.render()))),
        ("kept", json!(standing.map(|it| it.kept.render()))),
    ];
    with_names(members)
}

fn report(all: Vec<ServiceDifference>, of: &DiffSubject<'_>, one: bool) -> Report {
    let mut text: String = all.iter().map(|it| &*it.text).collect();
    let (count, stored) = (all.len(), of.config.store.to_string());
    let differing = all.iter().filter(|it| !it.same);
    let differing: Vec<&str> = differing.map(|it| it.service.as_str()).collect();
    let named = match differing.len().checked_sub(NAMED) {
        Some(more @ 1..) => format!("{} and {more} more", differing[..NAMED].join(", ")),
        _ => differing.join(", "),
    };
    // Writing to a String cannot fail.
    let _ = match (count, differing.len()) {
        (1, _) => Ok(()),
        (_, 0) => writeln!(text, "all {count} services are the same"),
        (_, some) => writeln!(text, "{some} of {count} services differ: {named}"),
    };
    if of.source != stored {
        let _ = writeln!(
            text,
            "the gateway reads {}, not {stored} as configured here; only a restart changes that",
            of.source
        );
    }
    let complaint = match (count, differing.len()) {
        (_, 0) => None,
        (1, _) => Some("the gateway does not hold what the store has".to_owned()),
        _ => Some(format!(
            "the gateway does not hold what the store has of {named}"
        )),
    };
    let same = complaint.is_none();
    let mut all = all.into_iter();
    let mut members = all.next().map(|it| with_name(it, one)).unwrap_or_default();
    let others: Vec<Value> = all.map(|it| Value::Object(with_name(it, true))).collect();
    if !others.is_empty() {
        members.insert("same".to_owned(), json!(same));
        members.insert("services".to_owned(), json!(others));
    }
    let report = Report::new(text, Value::Object(members));
    match complaint {
        None => report,
        Some(complaint) => report.but(complaint),
    }
}

fn with_names<const COUNT: usize>(members: [(&str, Value); COUNT]) -> Map<String, Value> {
    let members = members.map(|(name, it)| (name.to_owned(), it));
    members.into_iter().collect()
}

fn with_name(of: ServiceDifference, names: bool) -> Map<String, Value> {
    let mut members = of.members;
    if names {
        members.insert("service".to_owned(), json!(of.service.as_str()));
    }
    members
}
