//! The ledger in a lists file: the file is replaced by one rename, and stays as it was written but for what
//! changes.
//!
//! Beside it are the state of the release (`.release`), the lease of a rollout as it was renewed (`.lease`),
//! and the history (`.history`, a line of JSON a change). All of a change is written down first (`.change`):
//! whoever comes next brings to an end what was cut short after the rename, and forgets what was cut short
//! before. Only one is at it at a time, by a lock on the folder. What becomes of the text is in `editor`.

mod editor;

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use self::editor::edited;
use super::account::{Noting, SeenAccount, by_hand_until};
use super::order::{Consent, Done, Hear, Order, Tend, TendedState, by_hand, heard};
use crate::config::{Config, ServiceSettings};
use crate::lists::{ByList, Digest, ListName, ServiceName};
use crate::release::change::{FoundList, FoundLists, ListsChange, ServiceTerms};
use crate::release::history::{ChangeRecord, KEPT, next_number};
use crate::release::replaced::{self, FileAccess};
use crate::release::rollout::{add_renewal, is_under_way};
use crate::store::Entries;
use crate::store::file::beside;
use crate::store::format;

/// How long another one may be at it, or others be faster.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pause before the lock is tried again; the longest one between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// Above so many bytes, what undoes a change is not kept.
const UNDO: usize = 1024 * 1024;

/// See the module.
pub(crate) struct FileLedger<'a> {
    /// As the settings name it: what is beside it is found by that.
    named: PathBuf,
    /// Where it lies.
    path: PathBuf,
    services: &'a [Arc<ServiceSettings>],
    terms: ServiceTerms,
}

impl<'a> FileLedger<'a> {
    pub(super) fn of(path: &Path, config: &'a Config, terms: ServiceTerms) -> Self {
        Self {
            named: path.to_owned(),
            // A link stays one.
            path: fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()),
            services: &config.services,
            terms,
        }
    }

    /// See `Ledger::perform`.
    pub(super) fn perform(&self, order: &Order, hear: Hear<'_>) -> Result<Done, String> {
        self.perform_within(PATIENCE, order, hear)
    }

    /// The same, with so much patience for others who are faster.
    fn perform_within(
        &self,
        patience: Duration,
        order: &Order,
        hear: Hear<'_>,
    ) -> Result<Done, String> {
        let mut until = Instant::now() + patience;
        loop {
            let lock = self.lock()?;
            self.finish_last().map_err(|error| self.failed(&error))?;
            let text = self.text()?;
            let found = self.found(&text)?;
            // Nobody waits for somebody who is thinking.
            drop(lock);
            let began = Instant::now();
            let (change, answer) = heard(order, &self.terms, &found, hear)?;
            // Whoever is asked takes his time.
            until += began.elapsed().saturating_sub(Duration::from_secs(1));
            if answer == Consent::No {
                return Ok(Done {
                    change,
                    number: None,
                    notes: Vec::new(),
                });
            }
            let lock = self.lock()?;
            if self.text()? == text && self.is_as(&found)? {
                return self.write(&text, order, change, &found);
            }
            drop(lock);
            if Instant::now() >= until {
                let path = self.path.display();
                return Err(format!(
                    "{path}: nothing was changed: others change the lists all the time"
                ));
            }
            std::thread::sleep(PAUSE.mul_f64(fastrand::f64()));
        }
    }

    fn failed(&self, error: &io::Error) -> String {
        format!("{}: {error}", self.path.display())
    }

    fn lock(&self) -> Result<Flock<File>, String> {
        lock_beside(&self.path)
    }

    /// The lists file.
    fn text(&self) -> Result<Vec<u8>, String> {
        format::read(&self.path).map_err(|error| format!("{}: {error}", self.path.display()))
    }

    /// The file of the service beside it that has this of it.
    fn of_service(&self, what: &str) -> PathBuf {
        beside(&self.named, &self.terms.service, what)
    }

    fn state(&self) -> Result<Map<String, Value>, String> {
        let path = self.of_service(RELEASE);
        let mut state = match read_if_there(&path) {
            Ok(None) => Map::new(),
            Ok(Some(text)) => serde_json::from_slice(&text).map_err(|_| {
                let path = path.display();
                format!("{path} holds something else than the state of a release")
            })?,
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        // What may not be read was never written.
        if is_under_way(&state)
            && let Ok(Some(text)) = read_if_there(&self.of_service(LEASE))
        {
            add_renewal(&mut state, &text);
        }
        Ok(state)
    }

    fn tripped(&self) -> Result<Option<Vec<u8>>, String> {
        let path = self.of_service(TRIPPED);
        read_if_there(&path).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// What is beside the lists is what was found, though others were let in meanwhile.
    fn is_as(&self, found: &FoundLists) -> Result<bool, String> {
        let records = self.records()?;
        let last = |all: &[ChangeRecord]| all.first().map(|it| it.id.clone());
        let is_noted = last(&records) == last(&found.history);
        Ok(is_noted && self.state()? == found.state && self.tripped()? == found.tripped)
    }

    /// The newest first.
    fn records(&self) -> Result<Vec<ChangeRecord>, String> {
        records_in(&self.of_service(HISTORY))
    }

    fn found(&self, text: &[u8]) -> Result<FoundLists, String> {
        let readings = format::parse_services(text, self.services);
        let readings = readings.map_err(|error| format!("{}: {error}", self.path.display()))?;
        let of = |service: &ServiceName| {
            let mut all = readings.iter();
            all.find(|it| it.service == *service)
        };
        let entries = |service: &ServiceName, list: ListName| -> Entries {
            let reading = of(service).map(|it| &it.lists[list]);
            reading
                .and_then(|it| it.as_ref().ok())
                .cloned()
                .unwrap_or_default()
        };
        let service = &self.terms.service;
        let owner = self.terms.gray_of.as_ref().unwrap_or(service);
        let lists = ByList::from_fn(|list| FoundList {
            is_set: false,
            entries: entries(
                if list == ListName::Gray {
                    owner
                } else {
                    service
                },
                list,
            ),
        });
        Ok(FoundLists {
            lists,
            salt: of(owner).and_then(|it| it.salt.clone()),
            tripped: self.tripped()?,
            state: self.state()?,
            // The file is there or not: see `finish`.
            is_renewed: false,
            history: self.records()?,
        })
    }

    fn write(
        &self,
        text: &[u8],
        order: &Order,
        change: ListsChange,
        found: &FoundLists,
    ) -> Result<Done, String> {
        let new = edited(text, &self.terms.service, &change);
        format::parse_services(&new, self.services)
            .map_err(|error| format!("{}: nothing was changed: {error}", self.path.display()))?;
        let mut notes = Vec::new();
        let mut records = Vec::new();
        let last = found.history.first();
        let mut number = next_number(last.map_or(0, |it| it.number));
        if let Some(record) = by_hand(last, &change, &self.terms) {
            records.push(record);
            number = next_number(number);
        }
        let mut record = order.record(&change, &self.terms, number);
        if change.undo.to_json().to_string().len() > UNDO {
            record.undo = None;
            notes.push("it is too large for the history to keep what undoes it".to_owned());
        }
        records.push(record);
        let lines: String = records.iter().map(ChangeRecord::to_line).collect();
        let step = FileStep {
            before: hash(text),
            after: hash(&new),
            lines,
            state: change.state.clone(),
            untrips: change.untrips,
        };
        self.carry_out(&new, text == new, &change.accept, &step)
            .map_err(|error| self.failed(&error))?;
        Ok(Done {
            change,
            number: Some(number),
            notes,
        })
    }

    /// Writes down what is to be done, and does it.
    fn carry_out(
        &self,
        new: &[u8],
        is_same: bool,
        accepted: &[Digest],
        step: &FileStep,
    ) -> io::Result<()> {
        let noted = self.of_service(CHANGE);
        replace(&noted, step.to_json().as_bytes(), None)?;
        if !accepted.is_empty() {
            let words: String = accepted.iter().map(|it| format!("{it}\n")).collect();
            let place = beside(&self.named, &ServiceName::default(), ACCEPT);
            replace(&place, words.as_bytes(), None)?;
        }
        if !is_same {
            let kept = fs::metadata(&self.path)?;
            let replaced = replace(&self.path, new, Some(&kept));
            if let Err(error) = replaced {
                fs::remove_file(&noted)?;
                return Err(error);
            }
        }
        self.finish(step)
    }

    /// What is left to be done when the lists are in their place.
    fn finish(&self, step: &FileStep) -> io::Result<()> {
        let state = self.of_service(RELEASE);
        match &step.state {
            None => {}
            Some(members) if members.is_empty() => remove_if_there(&state)?,
            Some(members) => replace(&state, json!(members).to_string().as_bytes(), None)?,
        }
        if step.state.as_ref().is_some_and(|it| !is_under_way(it)) {
            remove_if_there(&self.of_service(LEASE))?;
        }
        // After the state: who sees only one of the two sees what is taken back still.
        if step.untrips {
            remove_if_there(&self.of_service(TRIPPED))?;
        }
        self.append(&step.lines)?;
        fs::remove_file(self.of_service(CHANGE))
    }

    fn append(&self, lines: &str) -> io::Result<()> {
        append(&self.of_service(HISTORY), &self.path, lines)
    }

    /// See `Ledger::note_by_hand`.
    pub(super) fn note_by_hand(&self, account: &SeenAccount<'_>) -> Result<Noting, String> {
        if let Some(noting) = account.at_once(self.records()?.first()) {
            return Ok(noting);
        }
        let _lock = self.lock()?;
        self.finish_last().map_err(|error| self.failed(&error))?;
        let found = self.found(&self.text()?)?;
        let record = match by_hand_until(&self.terms, &found, account) {
            Ok(record) => record,
            Err(noting) => return Ok(noting),
        };
        let path = self.of_service(HISTORY);
        let outcome = self.append(&record.to_line());
        outcome.map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Noting::Written(record.number))
    }

    /// Brings to an end what another one has begun, and was kept from ending.
    fn finish_last(&self) -> io::Result<()> {
        let noted = self.of_service(CHANGE);
        let Some(text) = read_if_there(&noted)? else {
            return Ok(());
        };
        let now = hash(&fs::read(&self.path)?);
        match FileStep::of_json(&text) {
            Some(step) if step.after == now => self.finish(&step),
            // It was not begun, or the file was changed by hand since.
            _ => fs::remove_file(&noted),
        }
    }

    /// See `Ledger::tend`.
    pub(super) fn tend(&self, tend: Tend<'_>) -> Result<bool, String> {
        let _lock = self.lock()?;
        self.finish_last().map_err(|error| self.failed(&error))?;
        let (path, text) = match tend(&self.state()?) {
            TendedState::Kept => return Ok(true),
            TendedState::Changed(state) => (self.of_service(RELEASE), json!(state)),
            TendedState::Renewed(renewal) => (self.of_service(LEASE), renewal.to_json()),
        };
        replace(&path, text.to_string().as_bytes(), None)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(true)
    }

    /// See `Ledger::history`.
    pub(super) fn history(&self, most: usize) -> Result<Vec<ChangeRecord>, String> {
        let mut all = self.records()?;
        all.truncate(most);
        Ok(all)
    }
}

/// Has the history beside a lists file say what `make` makes of the records that there are, the newest first.
///
/// # Errors
/// One line: why it cannot.
pub(crate) fn note_beside(
    lists: &Path,
    service: &ServiceName,
    make: &dyn Fn(&[ChangeRecord]) -> Option<ChangeRecord>,
) -> Result<(), String> {
    let path = fs::canonicalize(lists).unwrap_or_else(|_| lists.to_owned());
    let history = beside(lists, service, HISTORY);
    let _lock = lock_beside(&path)?;
    let Some(record) = make(&records_in(&history)?) else {
        return Ok(());
    };
    append(&history, &path, &record.to_line())
        .map_err(|error| format!("{}: {error}", history.display()))
}

/// Waits until nobody else is at the files in the folder of this one.
fn lock_beside(path: &Path) -> Result<Flock<File>, String> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let until = Instant::now() + PATIENCE;
    let mut file = File::open(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((unlocked, _)) if Instant::now() < until => file = unlocked,
            Err((_, error)) => {
                return Err(format!(
                    "{}: somebody else is at it: {error}",
                    folder.display()
                ));
            }
        }
        std::thread::sleep(PAUSE);
    }
}

/// What the history in this file has, the newest first.
fn records_in(path: &Path) -> Result<Vec<ChangeRecord>, String> {
    let text = read_if_there(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let text = String::from_utf8_lossy(text.as_deref().unwrap_or_default()).into_owned();
    let lines = text.lines().rev();
    Ok(lines.filter_map(ChangeRecord::of_line).collect())
}

/// Adds lines to the history at `path`, beside these lists, unless it has them.
fn append(path: &Path, lists: &Path, lines: &str) -> io::Result<()> {
    let old = read_if_there(path)?.unwrap_or_default();
    let old = String::from_utf8_lossy(&old);
    if old.contains(lines) {
        return Ok(());
    }
    let count = old.lines().count();
    let mut text: String = match count > 2 * KEPT {
        true => old.split_inclusive('\n').skip(count - KEPT).collect(),
        false => old.into_owned(),
    };
    text.push_str(lines);
    // Whoever may read the lists may read that, whoever writes it first.
    let kept = fs::metadata(path).or_else(|_| fs::metadata(lists));
    replace(path, text.as_bytes(), kept.ok().as_ref())
}

const RELEASE: &str = "release";
/// The lease of a rollout, as it was renewed.
const LEASE: &str = "lease";
const TRIPPED: &str = "tripped";
const HISTORY: &str = "history";
const CHANGE: &str = "change";
/// Of the lists file, whatever the service.
const ACCEPT: &str = "accept";

/// A change that is being made.
struct FileStep {
    /// The hashes of the lists file before and after.
    before: String,
    after: String,
    /// What the history gets.
    lines: String,
    /// The state of the release, if it is another one.
    state: Option<Map<String, Value>>,
    /// Nothing is taken back any more.
    untrips: bool,
}

impl FileStep {
    fn to_json(&self) -> String {
        let Self {
            before,
            after,
            lines,
            state,
            untrips,
        } = self;
        let step = json!({
            "before": before, "after": after, "history": lines, "release": state, "untrips": untrips,
        });
        step.to_string()
    }

    fn of_json(text: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(text).ok()?;
        let word = |name: &str| value[name].as_str().map(str::to_owned);
        Some(Self {
            before: word("before")?,
            after: word("after")?,
            lines: word("history")?,
            state: value["release"].as_object().cloned(),
            untrips: value["untrips"].as_bool().unwrap_or_default(),
        })
    }
}

fn hash(text: &[u8]) -> String {
    let hash = Sha256::digest(text);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Replaces the file at `path` in one step, with the owner and the mode that it had, by whoever has the lock.
fn replace(path: &Path, text: &[u8], kept: Option<&fs::Metadata>) -> io::Result<()> {
    let access = kept.map_or(FileAccess::Mode(0o640), FileAccess::As);
    replaced::replace(path, ".new", text, access)
}

#[cfg(test)]
mod tests;
