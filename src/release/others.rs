//! What the other gateways have told of their releases: by their heartbeats, which are read every second
//! while a release is under way, and not otherwise, on a connection of its own. That is so where this gateway
//! serves none of its clients, too.
//!
//! It is heard for as long as the heartbeat lives. While Redis cannot be read, each gateway goes on with what
//! it sees itself; so does one without heartbeats.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::case::version_of;
use crate::config::{Config, Store};
use crate::fleet::node::NodeVerdict;
use crate::fleet::nodes::{FleetLook, Nodes};
use crate::lists::ServiceName;
use crate::process::supervised;
use crate::snapshot::Published;

/// Between two readings.
const PERIOD: Duration = Duration::from_secs(1);

/// So long what was read counts at least, whatever the time between two heartbeats: until the next reading,
/// though that may be late.
const SPELL: Duration = Duration::from_secs(3);

/// A reading may take as long, and the next one waits as long after one that has failed.
const LIMIT: Duration = Duration::from_secs(3);

/// What one gateway has told.
#[derive(Clone, Debug)]
pub(super) struct HeardVerdicts {
    name: String,
    verdicts: Vec<(String, NodeVerdict)>,
    /// Its heartbeat is over then.
    until: Instant,
}

/// What all others have told last.
#[derive(Debug, Default)]
pub(super) struct Others {
    told: Mutex<Vec<HeardVerdicts>>,
    /// Why it cannot be read.
    trouble: Mutex<Option<String>>,
}

impl Others {
    /// From now on, this is it; or it cannot be read, and what was told holds for as long as it does.
    pub(super) fn hear(&self, outcome: Result<Vec<HeardVerdicts>, String>) {
        let trouble = match outcome {
            Ok(heard) => {
                *self.told() = heard;
                None
            }
            Err(error) => Some(error),
        };
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Why it cannot be read, if so.
    pub(super) fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock();
        trouble.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn told(&self) -> MutexGuard<'_, Vec<HeardVerdicts>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is told of a service at `now`.
    pub(super) fn of(&self, service: &ServiceName, now: Instant) -> Vec<NodeVerdict> {
        let all = self.told();
        let alive = all.iter().filter(|it| now < it.until);
        let verdicts = alive.flat_map(|it| &it.verdicts);
        let of_service = verdicts.filter(|(name, _)| name == service.as_str());
        of_service.map(|(_, it)| it.clone()).collect()
    }

    /// Whether of all gateways that judge this `version`, the one called `own` has the first name: what all
    /// of them find, it tells people. Who has told of an earlier step of it will judge this one, too.
    pub(super) fn is_first(
        &self,
        (service, version): (&ServiceName, &str),
        own: &str,
        now: Instant,
    ) -> bool {
        let all = self.told();
        let mut before = all.iter().filter(|it| now < it.until && *it.name < *own);
        let judges = |(name, it): &(String, NodeVerdict)| {
            name == service.as_str() && version_of(&it.release) == version
        };
        !before.any(|it| it.verdicts.iter().any(judges))
    }
}

/// Reads them while `is_needed`, and has each reading told.
///
/// # Errors
/// When the thread cannot be started.
pub(super) fn start(
    config: Arc<Published<Config>>,
    is_needed: impl Fn() -> bool + Send + 'static,
    tell: impl Fn(Result<Vec<HeardVerdicts>, String>) + Send + 'static,
) -> io::Result<()> {
    supervised::spawn("verdicts", move || {
        let (mut is_failing, mut is_alone_told) = (false, false);
        loop {
            let current = config.load();
            match &current.store {
                Store::Redis(settings) if settings.fleet.heartbeat.is_some() && is_needed() => {
                    let mut nodes = Nodes::indexed(settings);
                    while is_needed() && Arc::ptr_eq(&config.load(), &current) {
                        let looked = nodes.read(Instant::now() + LIMIT);
                        note(looked.as_ref().err(), &mut is_failing);
                        let own = &settings.fleet.node;
                        tell(looked.map(|look| heard(&look, own, Instant::now())));
                        thread::sleep(if is_failing { LIMIT } else { PERIOD });
                    }
                }
                Store::Redis(_) if is_needed() => {
                    if !std::mem::replace(&mut is_alone_told, true) {
                        log::info!("verdict-by-itself reason=\"[redis] heartbeat is off\"");
                    }
                    thread::sleep(PERIOD);
                }
                _ => thread::sleep(PERIOD),
            }
        }
    })?;
    Ok(())
}

/// Says once that they cannot be read, and once that they are again.
fn note(error: Option<&String>, is_failing: &mut bool) {
    let was = std::mem::replace(is_failing, error.is_some());
    match error {
        Some(error) if !was => log::warn!(
            "verdict-alone error={error:?} reason=\"what other gateways have seen of a release is not known\""
        ),
        None if was => log::info!("verdict-together"),
        _ => {}
    }
}

/// What those but the gateway `own` have told at `now`.
fn heard(look: &FleetLook, own: &str, now: Instant) -> Vec<HeardVerdicts> {
    let others = look.heard.iter().filter(|it| it.name != own);
    let told = others.filter_map(|it| {
        let node = it.node.as_ref().filter(|it| !it.verdicts.is_empty())?;
        let verdicts = node.verdicts.iter();
        Some(HeardVerdicts {
            name: it.name.clone(),
            verdicts: verdicts
                .map(|(name, it)| (name.clone(), it.clone()))
                .collect(),
            until: now + it.left?.max(SPELL),
        })
    });
    told.collect()
}
