//! Writing beside a lists file: a trip, in one step with a look at what else is there.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::key::{KeyTurn, digest_of, turn_of};
use super::memory;
use super::task::{NotWritten, TripTask, Written, tell_unrecorded};
use crate::config::ServiceSettings;
use crate::lists::{Digest, ListName, ServiceName};
use crate::release::history::ChangeRecord;
use crate::release::ledger::note_beside;
use crate::release::replaced::FileAccess;
use crate::release::state::{ReleaseState, Trip};
use crate::store::StoredText;
use crate::store::file::{beside, text_beside};
use crate::store::format;

/// Writes a trip beside this lists file, unless there is one of the same version, or it is over.
///
/// # Errors
/// Why it cannot be written.
pub(super) fn write_trip(
    lists: &Path,
    (service, services): (&ServiceName, &[Arc<ServiceSettings>]),
    task: &TripTask<'_>,
) -> Result<Written, NotWritten> {
    let outcome = RefCell::new(None);
    // Verbs take the lock of the history as well, so none of them is in between.
    let locked = |newest: &[ChangeRecord]| {
        let written = write_now(lists, (service, services), task);
        let is_written = matches!(written, Ok(Written::Yes));
        outcome.replace(Some(written));
        is_written.then(|| (task.noted)(newest))?
    };
    let noted = note_beside(lists, service, &locked);
    let written = outcome.take();
    let written = written.unwrap_or_else(|| write_now(lists, (service, services), task));
    if let (Ok(Written::Yes), Err(error)) = (&written, noted) {
        tell_unrecorded(service, &error);
    }
    written.map_err(|error| NotWritten {
        why: error.to_string(),
        is_refused: false,
    })
}

fn write_now(
    lists: &Path,
    (service, services): (&ServiceName, &[Arc<ServiceSettings>]),
    task: &TripTask<'_>,
) -> io::Result<Written> {
    let path = beside(lists, service, "tripped");
    let text = match fs::read(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let pre = pre_of(lists, (service, services));
    let trip = &task.held.trip;
    let turn = turn_of(text.as_deref(), pre, trip, task.lags);
    match turn {
        KeyTurn::Written => return Ok(Written::Yes),
        KeyTurn::Before => return Ok(Written::Before),
        KeyTurn::Write | KeyTurn::Leave => {}
    }
    if let StoredText::Text(state) = text_beside(lists, service, "release") {
        let state = ReleaseState::parse(&state);
        if task.held.is_over(&state) {
            return Ok(Written::Over(Some(Box::new(state))));
        }
    }
    if turn == KeyTurn::Leave {
        return Ok(Written::Left);
    }
    let text = format!("{}\n", trip.to_json());
    memory::replace(&path, text.as_bytes(), FileAccess::Mode(0o666))?;
    Ok(Written::Yes)
}

/// Whoever writes a text has done so by then.
const WRITTEN: Duration = Duration::from_secs(1);

/// Has the file with this text of a person say which `trip` it was taken for, unless it is another one by
/// now, or about something else.
///
/// # Errors
/// Why it cannot be written.
pub(super) fn name_text(
    lists: &Path,
    (service, services): (&ServiceName, &[Arc<ServiceSettings>]),
    (text, trip): (&[u8], &Trip),
) -> Result<(), NotWritten> {
    let path = beside(lists, service, "tripped");
    let name_now = || -> io::Result<()> {
        let metadata = fs::metadata(&path)?;
        let age = metadata.modified()?.elapsed().unwrap_or_default();
        if age < WRITTEN {
            return Err(io::Error::other("somebody may be writing it"));
        }
        let pre = pre_of(lists, (service, services));
        let is_it = pre.is_some_and(|it| it.to_string() == trip.pre);
        if !is_it || fs::read(&path)? != text {
            return Ok(());
        }
        let text = format!("{}\n", trip.to_json());
        memory::replace(&path, text.as_bytes(), FileAccess::As(&metadata))
    };
    let outcome = RefCell::new(Ok(()));
    let noted = note_beside(lists, service, &|_| {
        *outcome.borrow_mut() = name_now();
        None
    });
    let outcome = outcome.into_inner().map_err(|error| error.to_string());
    noted.and(outcome).map_err(|why| NotWritten {
        why,
        is_refused: false,
    })
}

/// The digest of what the file has in `pre` of a service; none where that cannot be read.
pub(super) fn pre_of(
    lists: &Path,
    (service, services): (&ServiceName, &[Arc<ServiceSettings>]),
) -> Option<Digest> {
    let text = format::read(lists).ok()?;
    let readings = format::parse_services(&text, services).ok()?;
    let reading = readings.into_iter().find(|it| it.service == *service)?;
    let entries = reading.lists[ListName::Pre].as_ref().ok()?;
    Some(digest_of(entries))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nix::fcntl::{Flock, FlockArg};

    use super::*;
    use crate::release::trips::known::HeldTrip;

    const LISTS: &str = "[gray]\n[pre]\n10.0.0.9\n[prod]\n10.0.0.1\n";

    fn held(pre: &str) -> HeldTrip {
        let trip = Trip::by_hand(b"", "default", digest_of([pre]), "");
        HeldTrip {
            version: trip.version(),
            trip,
            is_stored: false,
            resets: Vec::new(),
        }
    }

    fn write(lists: &Path, held: &HeldTrip) -> Written {
        let task = TripTask {
            held,
            noted: &|_| None,
            is_wanted: &|| true,
            lags: true,
        };
        let services = [Arc::new(ServiceSettings::default())];
        let outcome = write_trip(lists, (&ServiceName::default(), &services), &task);
        outcome.unwrap_or_else(|error| panic!("{}", error.why))
    }

    #[test]
    fn a_reset_that_is_under_way_is_waited_for_and_ends_the_trip() {
        let folder = tempfile::tempdir().unwrap();
        let lists = folder.path().join("lists");
        fs::write(&lists, LISTS).unwrap();
        // As the verb has it, while it writes.
        let lock = File::open(folder.path()).unwrap();
        let lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
        let held = held("10.0.0.9");
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| write(&lists, &held));
            let until = std::time::Instant::now() + std::time::Duration::from_millis(200);
            while !writer.is_finished() && std::time::Instant::now() < until {
                std::thread::yield_now();
            }
            let state = "{\"epoch\":\"e\",\"reset\":{\"epoch\":\"e\",\"by\":\"ann\"}}";
            fs::write(folder.path().join("lists.release"), state).unwrap();
            drop(lock);
            let Written::Over(Some(state)) = writer.join().unwrap() else {
                panic!("it is over");
            };
            assert_eq!(state.epoch, "e");
        });
        assert!(!folder.path().join("lists.tripped").exists());
    }

    #[test]
    fn the_trip_of_what_the_file_has_in_pre_is_not_overwritten_by_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let lists = folder.path().join("lists");
        fs::write(&lists, LISTS).unwrap();
        let key = folder.path().join("lists.tripped");
        for text in [
            held("10.0.0.9").trip.to_json().to_string(),
            "stop".to_owned(),
        ] {
            fs::write(&key, &text).unwrap();
            assert!(matches!(write(&lists, &held("10.0.0.7")), Written::Left));
            assert_eq!(fs::read_to_string(&key).unwrap(), text);
        }
        assert!(matches!(write(&lists, &held("10.0.0.9")), Written::Yes));
    }
}
