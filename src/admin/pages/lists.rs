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

use serde_json::Value;

use crate::admin::pages::member::{Member as _, Page};
use crate::admin::pages::standing::ListsStanding;
use crate::admin::query::{SERVICE, unknown};
use crate::admin::view::View;
use crate::lists::{GrayList, ListName, Lists, PoolName, ServiceName};
use crate::store::Status;
use crate::upstream::in_force::InForce;

/// The member with the entries of the pools as they were written.
const WRITTEN: &str = "written";

/// So many entries are put into text at once.
const AT_ONCE: usize = 256;

/// So long replaced lists are kept for who reads them.
const KEPT: Duration = Duration::from_secs(1);

/// How many entries of each list are left out before.
const OFFSET: &str = "offset";

/// How many are wanted at most.
const LIMIT: &str = "limit";

/// Which entries of each list are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartAsked {
    offset: usize,
    limit: usize,
}

impl PartAsked {
    /// What a query asks for: all, unless it says something else.
    pub(crate) fn of(query: &[u8]) -> Result<Self, String> {
        let mut part = Self {
            offset: 0,
            limit: usize::MAX,
        };
        for (key, value) in form_urlencoded::parse(query) {
            let place = match &*key {
                OFFSET => &mut part.offset,
                LIMIT => &mut part.limit,
                SERVICE => continue,
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

/// One look at the lists, to be written.
pub(crate) struct PageWriter {
    members: BTreeMap<String, Shown>,
    part: PartAsked,
    lists: ListsBeingRead,
}

enum Shown {
    Value(Value),
    Entries(EntrySelection),
    Written,
}

/// Which entries.
#[derive(Clone, Copy)]
enum EntrySelection {
    Gray,
    /// The addresses of a pool.
    Peers(PoolName),
    /// The same, as they were written.
    Written(PoolName),
}

/// Lists that may be replaced while they are read. Shared with who writes, so that they are let go in
/// time while the other side takes nothing, too.
#[derive(Clone)]
pub(crate) struct ListsBeingRead {
    in_force: Arc<InForce>,
    service: ServiceName,
    /// Tells these lists from others, also when they have been let go.
    weak: Weak<Lists>,
    strong: Rc<RefCell<Option<Arc<Lists>>>>,
    until: Instant,
}

impl ListsBeingRead {
    pub(crate) fn new(
        in_force: &Arc<InForce>,
        service: &ServiceName,
        lists: Arc<Lists>,
        until: Instant,
    ) -> Self {
        Self {
            in_force: Arc::clone(in_force),
            service: service.clone(),
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
        let gone = || io::Error::other("there is no such service any more");
        let lists = self.in_force.load_of(&self.service).ok_or_else(gone)?;
        if !std::ptr::eq(Arc::as_ptr(&lists), self.weak.as_ptr()) {
            return Err(io::Error::other("the lists were replaced"));
        }
        Ok(lists)
    }

    /// Keeps the lists no longer if it is time; if not, says when that is.
    pub(crate) fn let_go(&self, now: Instant) -> Option<Instant> {
        let mut strong = self.strong.borrow_mut();
        if now >= self.until {
            *strong = None;
        }
        strong.as_ref().map(|_| self.until)
    }
}

impl PageWriter {
    /// With nothing that tells who is on a list of clients, unless it `shows_clients`.
    pub(crate) fn new(
        view: &View,
        service: &ServiceName,
        part: PartAsked,
        shows_clients: bool,
    ) -> Self {
        let (lists, status) = view.publisher.lists_with(service, Status::clone);
        let standing = ListsStanding::of(view, service, &lists, status);
        let (standing, gray) = match shows_clients {
            true => (standing, Shown::Entries(EntrySelection::Gray)),
            // Not an empty list, which would be believed.
            false => (standing.without_clients(view), Shown::Value(Value::Null)),
        };
        let values = standing
            .shown()
            .into_iter()
            .map(|(name, it)| (name, Shown::Value(it)));
        let entries = [(ListName::Gray.name(), gray), (WRITTEN, Shown::Written)];
        let peers =
            PoolName::ALL.map(|pool| (pool.name(), Shown::Entries(EntrySelection::Peers(pool))));
        let entries = entries.into_iter().chain(peers);
        let entries = entries.map(|(name, it)| (name.to_owned(), it));
        Self {
            members: values.chain(entries).collect(),
            part,
            lists: ListsBeingRead::new(&view.gateway.lists, service, lists, Instant::now() + KEPT),
        }
    }

    /// The lists that are read.
    pub(crate) fn kept(&self) -> ListsBeingRead {
        self.lists.clone()
    }

    /// How long the page is, in bytes.
    pub(crate) fn len(&mut self) -> io::Result<u64> {
        let mut count = ByteCount(0);
        self.write(&mut count)?;
        Ok(count.0)
    }

    /// Writes the page.
    pub(crate) fn write(&mut self, out: &mut dyn Write) -> io::Result<()> {
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
                Shown::Value(value) => {
                    let text = format!("{value:#}").replace('\n', "\n  ");
                    out.write_all(text.as_bytes())?;
                }
                Shown::Entries(of) => write_entries(out, lists, *of, *part, "  ")?,
                Shown::Written => {
                    let mut before = "{\n";
                    for pool in PoolName::ALL {
                        write!(out, "{before}    \"{}\": ", pool.name())?;
                        before = ",\n";
                        write_entries(out, lists, EntrySelection::Written(pool), *part, "    ")?;
                    }
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
    lists: &ListsBeingRead,
    of: EntrySelection,
    part: PartAsked,
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
            let _ = write!(text, "{before}{indent}  ");
            let start = text.len();
            let _ = write!(text, "\"{entry}\"");
            if let [_, shown @ .., _] = &text[start..]
                && memchr::memchr2(b'"', b'\\', shown).is_some()
            {
                let escaped = Value::from(String::from_utf8_lossy(shown));
                text.truncate(start);
                let _ = write!(text, "{escaped}");
            }
            before = ",\n";
        });
        // Whoever reads may take their time.
        out.write_all(&text)?;
        text.clear();
    }
    write!(out, "\n{indent}]")
}

impl EntrySelection {
    fn len(self, lists: &Lists) -> usize {
        match self {
            Self::Gray => lists.gray.len(),
            Self::Peers(pool) => lists.pool(pool).peers().len(),
            Self::Written(pool) => lists.pool(pool).written().len(),
        }
    }

    /// Takes each of some entries; none has a control character.
    fn each(
        self,
        lists: &Lists,
        range: Range<usize>,
        mut take: impl FnMut(&dyn std::fmt::Display),
    ) {
        match self {
            Self::Gray => GrayList::entries_in(&lists.gray, range).for_each(|it| take(&it)),
            Self::Peers(pool) => lists.pool(pool).peers()[range]
                .iter()
                .for_each(|it| take(it)),
            Self::Written(pool) => lists.pool(pool).written()[range]
                .iter()
                .for_each(|it| take(it)),
        }
    }
}

/// The page as the command line reads it.
pub(crate) struct ListsPage {
    /// All but the entries.
    pub(crate) standing: ListsStanding,
    /// Those in force, of this part, by list.
    in_force: BTreeMap<String, Vec<String>>,
    /// Those of the pools as they were written.
    written: BTreeMap<String, Vec<String>>,
}

impl Page for ListsPage {
    const PATH: &'static str = "/lists";

    fn of(page: &Value) -> Option<Self> {
        let of_list = |list: ListName| {
            let entries = Vec::read(&page[list.name()])?;
            Some((list.name().to_owned(), entries))
        };
        Some(Self {
            standing: ListsStanding::read(page)?,
            in_force: ListName::ALL.into_iter().filter_map(of_list).collect(),
            written: BTreeMap::read(&page[WRITTEN]).unwrap_or_default(),
        })
    }
}

impl ListsPage {
    /// The query for a part of each list.
    pub(crate) fn part(offset: usize, limit: usize) -> [(&'static str, String); 2] {
        [(OFFSET, offset.to_string()), (LIMIT, limit.to_string())]
    }

    /// The same, of a service. An older gateway knows no other than the default one, nor the question.
    pub(crate) fn part_of(
        service: &ServiceName,
        offset: usize,
        limit: usize,
    ) -> Vec<(&'static str, String)> {
        let named = (!service.is_default()).then(|| (SERVICE, service.to_string()));
        let part = Self::part(offset, limit);
        named.into_iter().chain(part).collect()
    }

    /// The entries of a list that are on this page; peers as they were written, where the gateway says that.
    pub(crate) fn entries(&self, list: ListName) -> &[String] {
        let written = self.written.get(list.name());
        let entries = written.or_else(|| self.in_force.get(list.name()));
        entries.map_or(&[], Vec::as_slice)
    }

    /// How many entries a list has. An older gateway shows all of them instead.
    pub(crate) fn count(&self, list: ListName) -> u64 {
        let count = self.standing.counts.get(list.name()).copied();
        let shown = || self.in_force.get(list.name()).map_or(0, Vec::len) as u64;
        count.unwrap_or_else(shown)
    }

    /// False where an older gateway shows all entries at once.
    pub(crate) fn is_part(&self) -> bool {
        !self.standing.counts.is_empty()
    }
}

/// Counts what is written.
struct ByteCount(u64);

impl Write for ByteCount {
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
            let part = PartAsked::of(query.as_bytes()).unwrap();
            assert_eq!(part.of_list(len), expected, "{query}");
        }
        for unknown in ["limt=0", "limit=1&Offset=1", "x"] {
            let said = PartAsked::of(unknown.as_bytes()).unwrap_err();
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
            assert!(PartAsked::of(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lists_that_were_replaced_are_kept_for_a_moment() {
        let in_force = Arc::new(InForce::new(1));
        let kept = |until| {
            let own = ServiceName::default();
            ListsBeingRead::new(&in_force, &own, in_force.load(), until)
        };
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
