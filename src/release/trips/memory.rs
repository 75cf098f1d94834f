//! The file by which the next process of this gateway knows what was taken back, should the store be away;
//! and the same text for a process that takes over. It is kept beside the last-good copy, by the name of that
//! with `.trips`, and is there only while there is a trip.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::known::{HeldTrip, KnownRelease, UntoldTrip};
use super::place::TripsPlace;
use crate::lists::ServiceName;
use crate::release::replaced::{self, FileAccess};
use crate::release::state::{ReleaseState, Trip};

/// The most bytes that are read of it.
const LONGEST: u64 = 16 << 20;

fn path_of(place: &TripsPlace) -> Option<PathBuf> {
    let mut path = place.last_good.clone()?.into_os_string();
    path.push(".trips");
    Some(path.into())
}

/// A file that is there and cannot be read.
#[derive(Clone, Debug)]
pub(super) struct UnreadFile {
    path: PathBuf,
    error: String,
}

/// What is known of the file.
pub(super) struct SavingNotes {
    /// Why it could not be written, as was said last.
    pub(super) error: Option<String>,
    /// What is there cannot be read, so it is kept.
    pub(super) unread: Option<UnreadFile>,
}

impl UnreadFile {
    /// What it is called once another one has taken its place.
    fn aside(&self) -> PathBuf {
        let mut aside = self.path.clone().into_os_string();
        aside.push(".damaged");
        aside.into()
    }

    /// Says so.
    pub(super) fn tell(self) -> Self {
        let (path, error, aside) = (&self.path, &self.error, self.aside());
        log::warn!(
            "trips-unreadable path={path:?} error={error:?} as={aside:?} effect=\"what was taken back counts only if \
             the store has it; the file is kept, by its new name once there is another one\""
        );
        self
    }
}

/// What the file has; nothing if there is none, or it is of another store.
///
/// # Errors
/// It is there, and cannot be read.
pub(super) fn read(place: &TripsPlace) -> Result<BTreeMap<ServiceName, KnownRelease>, UnreadFile> {
    let Some(path) = path_of(place) else {
        return Ok(BTreeMap::new());
    };
    match text_of(&path) {
        Ok(text) => Ok(parse(&text, &place.name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(UnreadFile {
            path,
            error: error.to_string(),
        }),
    }
}

/// Of a file that a gateway has written.
fn text_of(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > LONGEST {
        return Err(io::Error::other("it is longer than 16 MiB"));
    }
    let text = fs::read_to_string(path)?;
    let value: Value = serde_json::from_str(&text)?;
    match value["store"].is_string() && value["services"].is_object() {
        true => Ok(text),
        false => Err(io::Error::other("it is no file of trips")),
    }
}

/// From such a text, if it is of this store.
pub(super) fn parse(text: &str, store: &str) -> BTreeMap<ServiceName, KnownRelease> {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let services = value["services"].as_object().into_iter().flatten();
    let services = services.filter(|_| value["store"] == store);
    let services = services.filter_map(|(name, it)| {
        let trip = Trip::of_json(&it["trip"])?;
        let resets = it["resets"].as_array().into_iter().flatten();
        let resets: Vec<String> = resets
            .filter_map(|it| Some(it.as_str()?.to_owned()))
            .collect();
        // A file of before says nothing of that.
        let is_untold = it["told"] == false;
        let untold = is_untold.then(|| UntoldTrip::new(trip.clone()));
        let known = KnownRelease {
            state: ReleaseState {
                epoch: it["epoch"].as_str().unwrap_or_default().to_owned(),
                ..ReleaseState::default()
            },
            rollout: None,
            other: None,
            taken_for: it["text"]
                .as_str()
                .map(|it| (it.as_bytes().to_vec(), trip.clone())),
            held: Some(HeldTrip {
                version: trip.version(),
                trip,
                is_stored: it["stored"].as_bool().unwrap_or(true),
                resets: resets.clone(),
            }),
            expected: None,
            begun_anew: None,
            is_heard: false,
            resets,
            latest: None,
            told: None,
            is_own: false,
            ended_by: None,
            keeping: None,
            in_force: None,
            untold,
        };
        let name = match &**name {
            ServiceName::DEFAULT => ServiceName::default(),
            other => ServiceName::parse(other)?,
        };
        Some((name, known))
    });
    services.collect()
}

/// The text.
pub(super) fn render(services: &BTreeMap<ServiceName, KnownRelease>, store: &str) -> String {
    let services = services.iter().filter_map(|(name, known)| {
        let held = known.held.as_ref()?;
        let mut value = json!({ "trip": held.trip.to_json(), "stored": held.is_stored });
        value["epoch"] = known.state.epoch.clone().into();
        value["resets"] = held.resets.clone().into();
        let untold = known.untold.as_ref();
        value["told"] = untold.is_none_or(|it| !it.is_of(&held.trip)).into();
        if let Some((text, _)) = &known.taken_for {
            value["text"] = String::from_utf8_lossy(text).into();
        }
        Some((name.to_string(), value))
    });
    let services: Map<String, Value> = services.collect();
    json!({ "store": store, "services": services }).to_string()
}

/// Writes the file anew, or removes it where there is nothing to be known. What is `unread` is kept.
///
/// # Errors
/// Why it cannot be written.
pub(super) fn write(
    place: &TripsPlace,
    services: &BTreeMap<ServiceName, KnownRelease>,
    unread: &mut Option<UnreadFile>,
) -> io::Result<()> {
    let Some(path) = path_of(place) else {
        return Ok(());
    };
    let kept = unread.as_ref().filter(|it| it.path == path);
    if services.values().all(|it| it.held.is_none()) {
        if kept.is_some() {
            return Ok(());
        }
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    if let Some(kept) = kept {
        fs::rename(&path, kept.aside())?;
        *unread = None;
    }
    let text = render(services, &place.name);
    replace(&path, text.as_bytes(), FileAccess::Mode(0o640))
}

/// Puts a file with this text in the place of what is there, at once. During an upgrade two processes may do
/// so.
///
/// # Errors
/// Why it cannot be written: then all is as it was.
pub(super) fn replace(path: &Path, text: &[u8], access: FileAccess<'_>) -> io::Result<()> {
    let ending = format!(".{}.new", std::process::id());
    replaced::replace(path, &ending, text, access)
}
