//! `admit` and `remove`: entries of the gray list, by what they mean and not by how they are spelled.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;

use super::basis::{Edit, WantedChange, Work};
use crate::lists::{self, ByList, GrayEntry, Rule, almost_gray, gray_entry};
use crate::store::Entries;

/// An entry that somebody has named.
struct SoughtEntry {
    entry: GrayEntry,
    text: String,
    /// The texts on the list that are this entry.
    there: Vec<Vec<u8>>,
}

/// Entries that are looked for, each known by its place.
struct Sought {
    all: Vec<SoughtEntry>,
    nets: HashMap<IpNet, usize>,
    rules: BTreeMap<Rule, usize>,
}

impl Sought {
    /// Those of the command line, each once.
    ///
    /// # Errors
    /// Which of them is none, and what may be meant.
    fn of(texts: &[String]) -> Result<Self, String> {
        let mut sought = Self {
            all: Vec::new(),
            nets: HashMap::new(),
            rules: BTreeMap::new(),
        };
        for text in texts {
            let text = text.trim_ascii();
            let entry = gray_entry(text).map_err(|why| refused(text, &why))?;
            let at = sought.all.len();
            match &entry {
                GrayEntry::Net(net) => sought.nets.entry(*net).or_insert(at),
                GrayEntry::Rule(rule) => sought.rules.entry(rule.clone()).or_insert(at),
            };
            sought.all.push(SoughtEntry {
                entry,
                text: text.to_owned(),
                there: Vec::new(),
            });
        }
        Ok(sought)
    }

    fn place(&self, entry: &GrayEntry) -> Option<usize> {
        match entry {
            GrayEntry::Net(net) => self.nets.get(net).copied(),
            GrayEntry::Rule(rule) => self.rules.get(rule).copied(),
        }
    }

    /// Notes where they are on the list.
    fn find(&mut self, entries: &Entries) {
        for written in entries {
            let text = std::str::from_utf8(written).map(str::trim_ascii);
            let Some(entry) = text.ok().and_then(|it| gray_entry(it).ok()) else {
                continue;
            };
            if let Some(at) = self.place(&entry) {
                self.all[at].there.push(written.to_vec());
            }
        }
    }

    /// Each of them once.
    fn each(&self) -> impl Iterator<Item = &SoughtEntry> {
        let is_first = |(at, it): &(usize, &SoughtEntry)| self.place(&it.entry) == Some(*at);
        self.all
            .iter()
            .enumerate()
            .filter(is_first)
            .map(|(_, it)| it)
    }
}

fn refused(text: &str, why: &str) -> String {
    match almost_gray(text) {
        Some(meant) => format!("{text:?}: {meant} ({why})"),
        None => format!("{text:?}: {why}"),
    }
}

/// As it is written to a store: as it was said, unless a lists file would read something else in that.
pub(super) fn spelled(text: &str, entry: &GrayEntry) -> Vec<u8> {
    let is_else = lists::comment(text.as_bytes()).is_some() || text.starts_with([';', '[']);
    match is_else {
        true => entry.to_string().into_bytes(),
        false => text.as_bytes().to_vec(),
    }
}

/// The gray list gets what it does not have yet.
pub(super) fn admit(work: &Work<'_>, texts: &[String]) -> Result<WantedChange, String> {
    work.must_own_gray()?;
    let mut sought = Sought::of(texts)?;
    sought.find(&work.found.lists.gray.entries);
    let (mut new, mut notes) = (Vec::new(), Vec::new());
    for it in sought.each() {
        match it.there.first() {
            None => new.push(spelled(&it.text, &it.entry)),
            Some(there) => {
                let there = String::from_utf8_lossy(there);
                notes.push(match *there == it.text {
                    true => format!("{} is on gray already", it.text),
                    false => format!("{} is on gray already, as {there}", it.text),
                });
            }
        }
    }
    let gray = match new.is_empty() {
        true => Edit::None,
        false => Edit::Some {
            gone: Vec::new(),
            new,
        },
    };
    Ok(WantedChange {
        edits: ByList {
            gray,
            ..ByList::default()
        },
        notes,
        ..WantedChange::default()
    })
}

/// The gray list loses these, whatever they are spelled like.
pub(super) fn remove(work: &Work<'_>, texts: &[String]) -> Result<WantedChange, String> {
    work.must_own_gray()?;
    let mut sought = Sought::of(texts)?;
    let before = &work.found.lists.gray.entries;
    sought.find(before);
    if let Some(missing) = sought.each().find(|it| it.there.is_empty()) {
        return Err(not_there(work, missing));
    }
    let mut gone: Vec<Vec<u8>> = sought.each().flat_map(|it| it.there.clone()).collect();
    gone.sort_unstable();
    gone.dedup();
    let edit = Edit::Some {
        gone,
        new: Vec::new(),
    };
    let mut wanted = WantedChange::default();
    let gray = &work.lists.gray;
    if sought.each().count() == gray.len() && !gray.is_empty() {
        wanted.asks.push("gray is emptied".to_owned());
    }
    for it in sought.each() {
        if let GrayEntry::Net(net) = &it.entry
            && let Some(wider) = wider(work, net)
        {
            let text = &it.text;
            wanted
                .notes
                .push(format!("{text} is still gray, by {wider}"));
        }
    }
    wanted.edits.gray = edit;
    Ok(wanted)
}

/// An entry that has all of this net, besides the net itself.
fn wider(work: &Work<'_>, net: &IpNet) -> Option<IpNet> {
    let gray = &work.lists.gray;
    let mut above = net.supernet();
    while let Some(it) = above {
        if gray.has(&it) {
            return Some(it);
        }
        above = it.supernet();
    }
    None
}

/// That an entry is not on the list, and which one may be meant.
fn not_there(work: &Work<'_>, missing: &SoughtEntry) -> String {
    let text = &missing.text;
    let rules = work.lists.gray.rules();
    let like = rules.iter().find(|it| match &missing.entry {
        GrayEntry::Net(net) => it.is_about_net(net),
        GrayEntry::Rule(rule) => it.is_about_the_same_as(rule),
    });
    if let Some(like) = like {
        return format!("{text} is not on gray; is {like} meant?");
    }
    if let GrayEntry::Net(net) = &missing.entry
        && let Some(wider) = wider(work, net)
    {
        return format!("{text} is not on gray by itself: it is gray by {wider}");
    }
    format!("{text} is not on gray")
}
