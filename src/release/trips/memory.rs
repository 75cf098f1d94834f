//! The file by which the next process of this gateway knows what was taken back, should the store be away;
//! and the same text for a process that takes over. It is kept beside the last-good copy, by the name of that
//! with `.trips`, and is there only while there is a trip.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::known::{HeldTrip, KnownRelease};
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

/// What the file has; nothing if there is none, or it is of another store.
pub(super) fn read(place: &TripsPlace) -> BTreeMap<ServiceName, KnownRelease> {
    let Some(path) = path_of(place) else {
        return BTreeMap::new();
    };
    let is_short = fs::metadata(&path).is_ok_and(|it| it.len() <= LONGEST);
    let text = is_short.then(|| fs::read_to_string(&path));
    match text {
        Some(Ok(text)) => parse(&text, &place.name),
        _ => BTreeMap::new(),
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
            is_being_kept: false,
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
        if let Some((text, _)) = &known.taken_for {
            value["text"] = String::from_utf8_lossy(text).into();
        }
        Some((name.to_string(), value))
    });
    let services: Map<String, Value> = services.collect();
    json!({ "store": store, "services": services }).to_string()
}

/// Writes the file anew, or removes it where there is nothing to be known.
///
/// # Errors
/// Why it cannot be written.
pub(super) fn write(
    place: &TripsPlace,
    services: &BTreeMap<ServiceName, KnownRelease>,
) -> io::Result<()> {
    let Some(path) = path_of(place) else {
        return Ok(());
    };
    if services.values().all(|it| it.held.is_none()) {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    replace(&path, render(services, &place.name).as_bytes())
}

/// Puts a file with this text in the place of what is there, at once. During an upgrade two processes may do
/// so.
///
/// # Errors
/// Why it cannot be written: then all is as it was.
pub(super) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let ending = format!(".{}.new", std::process::id());
    replaced::replace(path, &ending, text, FileAccess::Mode(0o666))
}
