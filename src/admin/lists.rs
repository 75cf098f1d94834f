//! The page `/lists`: the state of the lists, and their entries.
//!
//! There may be a million entries, and several who ask at once and read slowly. So entries are written
//! some at a time and never stand in memory as a page, and `?offset=` and `?limit=` take a part of
//! each list: none of them with `limit=0`. The members are what they always were, in the same order.
//!
//! Lists that are replaced meanwhile are kept for whoever reads them, but not for long: there may be
//! other lists every moment. Who reads slower than that gets less than was announced, and has to ask
//! again, whoever else still has the same lists; who takes pages compares their digests.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::admin::pages::{copy, copy_is_in_force, findings, heartbeat, held, rfc3339};
use crate::admin::query::unknown;
use crate::admin::view::View;
use crate::lists::{GrayList, ListName, Lists, PeerList};
use crate::snapshot::Published;
use crate::store::Cause;

/// So many entries are put into text at once.
const AT_ONCE: usize = 256;

/// So long replaced lists are kept for who reads them.
const KEPT: Duration = Duration::from_secs(1);

/// Which entries of each list are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    offset: usize,
    limit: usize,
}

impl Part {
    /// What a query asks for: all, unless it says something else.
    pub(super) fn of(query: &[u8]) -> Result<Self, String> {
        let mut part = Self {
            offset: 0,
            limit: usize::MAX,
        };
        for (key, value) in form_urlencoded::parse(query) {
            let place = match &*key {
                "offset" => &mut part.offset,
                "limit" => &mut part.limit,
                // With a typo, all of the entries would be the answer.
                name => return Err(unknown(name, "/lists?offset=0&limit=1000")),
            };
            let number = value.parse();
            *place = number.map_err(|_| {
                "offset and limit are numbers: /lists?offset=0&limit=1000".to_owned()
            })?;
        }
        Ok(part)
    }

    fn of_list(self, len: usize) -> Range<usize> {
        let start = self.offset.min(len);
        start..start.saturating_add(self.limit).min(len)
    }
}

/// One look at the lists.
pub(super) struct Page {
    members: BTreeMap<&'static str, Member>,
    part: Part,
    lists: Kept,
}

enum Member {
    Value(Value),
    Entries(Of),
    Written,
}

/// Which entries.
#[derive(Clone, Copy)]
enum Of {
    Gray,
    /// The addresses of a pool.
    Peers(ListName),
    /// The same, as they were written.
    Written(ListName),
}

/// Lists that may be replaced while they are read. Shared with who writes, so that they are let go in
/// time while the other side takes nothing, too.
#[derive(Clone)]
pub(super) struct Kept {
    in_force: Arc<Published<Lists>>,
    /// Tells these lists from others, also when they have been let go.
    weak: Weak<Lists>,
    strong: Rc<RefCell<Option<Arc<Lists>>>>,
    until: Instant,
}

impl Kept {
    pub(super) fn new(in_force: &Arc<Published<Lists>>, lists: Arc<Lists>, until: Instant) -> Self {
        Self {
            in_force: Arc::clone(in_force),
            weak: Arc::downgrade(&lists),
            strong: Rc::new(RefCell::new(Some(lists))),
            until,
        }
    }

    /// The lists. Once they are kept no longer, only while they are in force: others may still have
    /// them, but that is no matter of who reads here.
    fn get(&self) -> io::Result<Arc<Lists>> {
        self.let_go(Instant::now());
        if let Some(lists) = &*self.strong.borrow() {
            return Ok(Arc::clone(lists));
        }
        let lists = self.in_force.load();
        if !std::ptr::eq(Arc::as_ptr(&lists), self.weak.as_ptr()) {
            return Err(io::Error::other("the lists were replaced"));
        }
        Ok(lists)
    }

    /// Keeps the lists no longer if it is time; if not, says when that is.
    pub(super) fn let_go(&self, now: Instant) -> Option<Instant> {
        let mut strong = self.strong.borrow_mut();
        if now >= self.until {
            *strong = None;
        }
        strong.as_ref().map(|_| self.until)
    }
}

impl Page {
    pub(super) fn new(view: &View, part: Part) -> Self {
        let (lists, status) = (view.publisher.lists(), view.publisher.status());
        let skipped = |list: ListName| {
            let skipped = lists.skipped(list);
            let first = skipped.first.iter();
            let first = first.map(|it| json!({ "entry": it.entry, "reason": it.reason }));
            json!({ "count": skipped.count, "first": first.collect::<Vec<_>>() })
        };
        let faults = status.faults.iter();
        let faults =
            faults.map(|(list, fault)| json!({ "list": list.name(), "fault": fault.name() }));
        let refreshes = Cause::ALL.map(|it| (it.name(), status.refreshes[it as usize]));
        let in_force = copy_is_in_force(&lists, &status);
        let counts = ListName::ALL.map(|it| (it.name(), lists.len(it)));
        let values = [
            ("generation", json!(lists.generation)),
            ("digest", json!(lists.digest.to_string())),
            (
                "digests",
                json!({
                    "gray": lists.gray.digest().to_string(),
                    "pre": lists.pre.digest(ListName::Pre).to_string(),
                    "prod": lists.prod.digest(ListName::Prod).to_string(),
                }),
            ),
            ("counts", json!(BTreeMap::from(counts))),
            ("source", json!(status.source)),
            ("server", json!(status.server.map(|it| it.to_string()))),
            ("mode", json!(status.mode.name())),
            ("refreshes", json!(BTreeMap::from(refreshes))),
            ("refreshed_by", json!(status.refreshed_by.map(Cause::name))),
            ("missed_events", json!(status.missed_events)),
            ("error", json!(status.error)),
            (
                "age_seconds",
                json!(status.checked.map(|at| at.elapsed().as_secs_f64())),
            ),
            ("changed_at", json!(status.changed.map(rfc3339))),
            (
                "skipped",
                json!({
                    "gray": skipped(ListName::Gray),
                    "pre": skipped(ListName::Pre),
                    "prod": skipped(ListName::Prod),
                }),
            ),
            ("kept", json!(faults.collect::<Vec<_>>())),
            (
                "findings",
                findings(
                    &view.publisher.findings(&lists),
                    &status.findings,
                    view.gateway.doubts.recent(Instant::now()).as_ref(),
                ),
            ),
            (
                "held",
                json!(status.held.iter().map(held).collect::<Vec<_>>()),
            ),
            (
                "heartbeat",
                json!(view.heartbeat.as_ref().map(|it| heartbeat(it))),
            ),
            (
                "copy",
                json!(view.publisher.copy().map(|it| copy(&it, in_force))),
            ),
        ];
        let values = values
            .into_iter()
            .map(|(name, it)| (name, Member::Value(it)));
        let entries = [
            ("gray", Member::Entries(Of::Gray)),
            ("pre", Member::Entries(Of::Peers(ListName::Pre))),
            ("prod", Member::Entries(Of::Peers(ListName::Prod))),
            ("written", Member::Written),
        ];
        Self {
            members: values.chain(entries).collect(),
            part,
            lists: Kept::new(&view.gateway.lists, lists, Instant::now() + KEPT),
        }
    }

    /// The lists that are read.
    pub(super) fn kept(&self) -> Kept {
        self.lists.clone()
    }

    /// How long the page is, in bytes.
    pub(super) fn len(&mut self) -> io::Result<u64> {
        let mut count = Count(0);
        self.write(&mut count)?;
        Ok(count.0)
    }

    /// Writes the page.
    pub(super) fn write(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let Self {
            members,
            part,
            lists,
        } = self;
        let mut before = "{\n";
        for (name, member) in members {
            write!(out, "{before}  \"{name}\": ")?;
            before = ",\n";
            match member {
                // A line feed within a string is escaped.
                Member::Value(value) => {
                    let text = format!("{value:#}").replace('\n', "\n  ");
                    out.write_all(text.as_bytes())?;
                }
                Member::Entries(of) => write_entries(out, lists, *of, *part, "  ")?,
                Member::Written => {
                    out.write_all(b"{\n    \"pre\": ")?;
                    write_entries(out, lists, Of::Written(ListName::Pre), *part, "    ")?;
                    out.write_all(b",\n    \"prod\": ")?;
                    write_entries(out, lists, Of::Written(ListName::Prod), *part, "    ")?;
                    out.write_all(b"\n  }")?;
                }
            }
        }
        out.write_all(b"\n}\n")
    }
}

/// Writes a part of a list as an array whose member is indented so far.
fn write_entries(
    out: &mut dyn Write,
    lists: &Kept,
    of: Of,
    part: Part,
    indent: &str,
) -> io::Result<()> {
    let range = part.of_list(of.len(&*lists.get()?));
    if range.is_empty() {
        return out.write_all(b"[]");
    }
    let mut before = "[\n";
    let mut text = Vec::new();
    for start in range.clone().step_by(AT_ONCE) {
        let some = start..start.saturating_add(AT_ONCE).min(range.end);
        of.each(&*lists.get()?, some, |entry| {
            // Writing to a vector cannot fail.
            let _ = write!(text, "{before}{indent}  \"{entry}\"");
            before = ",\n";
        });
        // Whoever reads may take their time.
        out.write_all(&text)?;
        text.clear();
    }
    write!(out, "\n{indent}]")
}

impl Of {
    fn len(self, lists: &Lists) -> usize {
        match self {
            Self::Gray => lists.gray.len(),
            Self::Peers(list) => pool(lists, list).peers().len(),
            Self::Written(list) => pool(lists, list).written().len(),
        }
    }

    /// Takes each of some entries; they need no escape in JSON.
    fn each(
        self,
        lists: &Lists,
        range: Range<usize>,
        mut take: impl FnMut(&dyn std::fmt::Display),
    ) {
        match self {
            Self::Gray => GrayList::entries_in(&lists.gray, range).for_each(|it| take(&it)),
            Self::Peers(list) => pool(lists, list).peers()[range]
                .iter()
                .for_each(|it| take(it)),
            Self::Written(list) => pool(lists, list).written()[range]
                .iter()
                .for_each(|it| take(it)),
        }
    }
}

/// The servers of a pool.
fn pool(lists: &Lists, list: ListName) -> &PeerList {
    match list {
        ListName::Pre => &lists.pre,
        ListName::Prod | ListName::Gray => &lists.prod,
    }
}

/// Counts what is written.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_takes_a_part_of_each_list() {
        for (query, len, expected) in [
            ("", 5, 0..5),
            ("limit=0", 5, 0..0),
            ("limit=2", 5, 0..2),
            ("offset=2", 5, 2..5),
            ("offset=4&limit=3", 5, 4..5),
            ("offset=9&limit=3", 5, 5..5),
            ("limit=18446744073709551615&offset=3", 5, 3..5),
        ] {
            let part = Part::of(query.as_bytes()).unwrap();
            assert_eq!(part.of_list(len), expected, "{query}");
        }
        for unknown in ["limt=0", "limit=1&Offset=1", "x"] {
            let said = Part::of(unknown.as_bytes()).unwrap_err();
            let name = unknown.rsplit('&').next().unwrap();
            let name = name.split('=').next().unwrap();
            assert!(said.starts_with(&format!("{name:?} is unknown")), "{said}");
        }
        for wrong in [
            "limit",
            "limit=",
            "limit=-1",
            "offset=x",
            "limit=1e9",
            "limit=18446744073709551616",
        ] {
            assert!(Part::of(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lists_that_were_replaced_are_kept_for_a_moment() {
        let in_force = Arc::new(Published::new(Lists::unread()));
        let kept = |until| Kept::new(&in_force, in_force.load(), until);
        let late = kept(Instant::now());
        let soon = kept(Instant::now() + Duration::from_secs(3600));
        assert!(late.get().is_ok(), "they are in force");
        in_force.store(Lists::unread());
        assert!(soon.get().is_ok());
        assert!(late.get().is_err(), "though others still have them");
        assert_eq!(in_force.kept(), 2);
        assert_eq!(soon.let_go(soon.until), None);
        assert_eq!(in_force.kept(), 1);
        assert!(soon.get().is_err());
    }
}
