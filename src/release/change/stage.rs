//! `stage`: the share of the clients that a release has.
//!
//! A release is what is in `pre`. Its share is one entry, `percent:…`, which the state of the release names;
//! the first stage of another release deals anew whom a share has, by another salt.

use serde_json::{Map, Value, json};

use super::basis::{Edit, STAGE, WantedChange, Work};
use crate::lists::{GrayEntry, gray_entry};

/// By what it is told who is in a share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ShareBy {
    /// The value of a cookie of this name.
    Cookie(String),
    /// The value of a header field.
    Header(String),
    /// The cookie that the gateway sets.
    Visitor,
}

impl ShareBy {
    /// As it stands behind the number.
    fn suffix(&self) -> String {
        match self {
            Self::Cookie(name) => format!(":cookie:{name}"),
            Self::Header(name) => format!(":header:{name}"),
            Self::Visitor => ":visitor".to_owned(),
        }
    }
}

/// All of the clients, in hundredths of a percent.
const ALL: u16 = 10_000;

/// A share as it is said: `5%`, `0.5`; in hundredths of a percent.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn share(text: &str) -> Result<u16, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let wrong = || "a share is a number from 0 to 100 with at most two decimals, like 5% or 0.5%";
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let are_digits = |it: &str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit());
    let is_number =
        are_digits(whole) && are_digits(decimals) && whole.len() < 4 && decimals.len() < 3;
    let hundredths = format!("{whole}{decimals:0<2}").parse().ok();
    let hundredths = hundredths.filter(|it| is_number && *it <= ALL);
    hundredths.ok_or_else(|| wrong().to_owned())
}

/// As it stands in an entry.
pub(super) fn percent(share: u16) -> String {
    match share % 100 {
        0 => format!("{}", share / 100),
        tenths if tenths % 10 == 0 => format!("{}.{}", share / 100, tenths / 10),
        hundredths => format!("{}.{hundredths:02}", share / 100),
    }
}

/// A share on the list.
struct StagedShare {
    /// As it is written there.
    written: Vec<u8>,
    canonical: String,
}

impl StagedShare {
    /// All that are nothing but shares, each as often as it is there.
    fn all(work: &Work<'_>) -> Vec<Self> {
        if !work.lists.gray.has_shares() {
            return Vec::new();
        }
        let read = |written: &[u8]| {
            let text = std::str::from_utf8(written).ok()?.trim_ascii();
            if !text.contains("percent:") {
                return None;
            }
            let GrayEntry::Rule(rule) = gray_entry(text).ok()? else {
                return None;
            };
            rule.is_share_alone().then(|| Self {
                written: written.to_vec(),
                canonical: rule.to_string(),
            })
        };
        let entries = &work.found.lists.gray.entries;
        entries.into_iter().filter_map(read).collect()
    }

    /// In hundredths of a percent.
    fn size(&self) -> Option<u16> {
        let text = self.canonical.strip_prefix("percent:")?;
        let end = text.find([':', ' ']).unwrap_or(text.len());
        share(&text[..end]).ok()
    }

    /// How it is dealt, as it stands behind the number.
    fn suffix(&self) -> &str {
        suffix(&self.canonical)
    }
}

fn suffix(canonical: &str) -> &str {
    let share = canonical.split(" note=").next().unwrap_or_default();
    let share = share.strip_prefix("percent:").unwrap_or(share);
    share.find(':').map_or("", |at| &share[at..])
}

/// True if this share is on the list, as it is spelled there canonically.
pub(super) fn is_on_gray(work: &Work<'_>, canonical: &str) -> bool {
    StagedShare::all(work)
        .iter()
        .any(|it| it.canonical == canonical)
}

/// How large the share of the release is, if it has one that is known.
pub(super) fn staged(work: &Work<'_>) -> Option<u16> {
    let known = work
        .found
        .state
        .get(STAGE)
        .and_then(|it| it["share"].as_str());
    let current = of_release(StagedShare::all(work), known).ok()?;
    current.first().and_then(StagedShare::size)
}

/// The share of the release, of all that there are.
///
/// # Errors
/// There are several, and none is known to be it.
fn of_release(all: Vec<StagedShare>, known: Option<&str>) -> Result<Vec<StagedShare>, String> {
    let is_known = |it: &StagedShare| known == Some(&*it.canonical);
    if all.iter().any(is_known) {
        return Ok(all.into_iter().filter(is_known).collect());
    }
    let mut names: Vec<&str> = all.iter().map(|it| &*it.canonical).collect();
    names.sort_unstable();
    names.dedup();
    match names.as_slice() {
        [] | [_] => Ok(all),
        several => Err(format!(
            "gray has several shares, and it is not known which is the release's: {}; remove all others first",
            several.join(", ")
        )),
    }
}

/// What a share of the release takes.
pub(super) enum Staging {
    /// Nothing: it has this one.
    Present(String),
    Wanted(Box<WantedChange>),
}

/// `stage`: the release has this share.
pub(super) fn stage(
    work: &Work<'_>,
    share: u16,
    by: Option<&ShareBy>,
) -> Result<WantedChange, String> {
    Ok(match staging(work, share, by)? {
        Staging::Wanted(wanted) => *wanted,
        Staging::Present(share) => WantedChange {
            notes: vec![format!("gray has {share} already")],
            ..WantedChange::default()
        },
    })
}

/// What it takes that the release has this share.
///
/// # Errors
/// Why it cannot have it.
pub(super) fn staging(
    work: &Work<'_>,
    share: u16,
    by: Option<&ShareBy>,
) -> Result<Staging, String> {
    work.must_own_gray()?;
    let recorded = work.found.state.get(STAGE);
    let word = |name: &str| recorded.and_then(|it| it[name].as_str());
    let current = of_release(StagedShare::all(work), word("share"))?;
    if share == 0 {
        return Ok(Staging::Wanted(Box::new(taken_away(work, current))));
    }
    may_have_clients(work)?;
    let release = work.release();
    let is_first = match word("pre") {
        Some(pre) => pre != release,
        // Somebody has begun by hand: whoever is in the share stays in it.
        None => current.is_empty(),
    };
    let suffix = dealt_by(by, &current, word("share").or_else(|| word("before")));
    let text = format!("percent:{}{suffix}", percent(share));
    let entry = gray_entry(&text).map_err(|why| format!("{text}: {why}"))?;
    let canonical = entry.to_string();
    if let [one] = current.as_slice()
        && one.canonical == canonical
        && word("pre") == Some(&*release)
    {
        return Ok(Staging::Present(canonical));
    }
    let mut wanted = WantedChange::default();
    if !is_first && current.first().is_some_and(|it| it.suffix() != suffix) {
        wanted
            .notes
            .push("by another key, others are in the share than before".to_owned());
    }
    wanted.edits.gray = replaced(current, &canonical);
    if is_first {
        wanted.salt = Some(Some(work.drawn.salt.clone().into_bytes()));
        wanted
            .more
            .push("+ salt another one: a new release".to_owned());
    }
    if share == ALL {
        wanted.asks.push("everybody gets pre".to_owned());
    }
    let mut state = work.next_state();
    state.insert(
        STAGE.to_owned(),
        json!({ "pre": release, "share": canonical }),
    );
    wanted.state = Some(state);
    Ok(Staging::Wanted(Box::new(wanted)))
}

/// That clients can be given to what is in `pre`, or why not.
fn may_have_clients(work: &Work<'_>) -> Result<(), String> {
    if work.lists.pre.is_empty() {
        return Err("pre has no server: nobody can be served by it".to_owned());
    }
    match work.trip() {
        None => Ok(()),
        Some(trip) => Err(format!(
            "{trip}; `graygate verdict reset` lets it have clients again"
        )),
    }
}

/// How a share is dealt, as it stands behind the number: as is said, or else as the one that is there, or
/// else as the one `before`.
fn dealt_by(by: Option<&ShareBy>, current: &[StagedShare], before: Option<&str>) -> String {
    match (by, current.first(), before) {
        (Some(by), ..) => by.suffix(),
        (None, Some(current), _) => current.suffix().to_owned(),
        (None, None, Some(before)) => suffix(before).to_owned(),
        (None, None, None) => String::new(),
    }
}

/// What makes this the share of the release, in place of those that there are.
fn replaced(current: Vec<StagedShare>, canonical: &str) -> Edit {
    let gone: Vec<Vec<u8>> = current.into_iter().map(|it| it.written).collect();
    match gone.as_slice() {
        [same] if *same == canonical.as_bytes() => Edit::None,
        _ => Edit::Some {
            gone,
            new: vec![canonical.as_bytes().to_vec()],
        },
    }
}

/// The release has no share any more.
fn taken_away(work: &Work<'_>, current: Vec<StagedShare>) -> WantedChange {
    let mut wanted = WantedChange::default();
    if current.is_empty() {
        wanted.notes.push("gray has no share".to_owned());
        return wanted;
    }
    wanted.edits.gray = Edit::Some {
        gone: current.into_iter().map(|it| it.written).collect(),
        new: Vec::new(),
    };
    let mut state = work.next_state();
    without_share(&mut state);
    wanted.state = Some(state);
    wanted
}

/// The release has no share any more. How that was dealt is kept for the next one.
pub(super) fn without_share(state: &mut Map<String, Value>) {
    if let Some(stage) = state.get_mut(STAGE).and_then(Value::as_object_mut)
        && let Some(share) = stage.remove("share")
    {
        stage.insert("before".to_owned(), share);
    }
}

/// The release is over. How its share was dealt is kept for the next one.
pub(super) fn without_release(state: &mut Map<String, Value>) {
    without_share(state);
    if let Some(stage) = state.get_mut(STAGE).and_then(Value::as_object_mut) {
        stage.retain(|name, _| name == "before");
    }
}
