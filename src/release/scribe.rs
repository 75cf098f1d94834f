//! The scribe: a thread that has the history say what was changed by hand.
//!
//! Each gateway is told what the store has of a service whenever that is something else ([`ListsWatch`]),
//! whether or not it comes into force: frozen and held lists are changed all the same. Of each service the
//! scribe remembers what was there when the history was last known to say so, and what has come since. Once
//! nothing more comes for a moment ([`gathering`]), it has the ledger compare that with the last record.
//! What a verb has done is there already, since a verb writes its record together with the lists; and of
//! several gateways that see a change by hand, the first one writes it, and the others find it there.
//!
//! What this process finds in the store first is where its account begins. So whoever only ever serves lists
//! asks for nothing, and where the history cannot be written nothing else suffers: that is said once.

mod gathering;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use self::gathering::Gathering;
use super::ledger::{Ledger, NotNoted, Noting, SeenAccount};
use crate::config::Config;
use crate::lists::ServiceName;
use crate::process::supervised;
use crate::snapshot::Published;
use crate::store::{ListsWatch, SeenLists, heavy};

/// So many states of the lists of a service are remembered until the history is looked at.
const REMEMBERED: usize = 8;

/// By so much gateways look at different times, as chance will have it.
const SPREAD: Duration = Duration::from_millis(300);

/// By so much where long lists have to be read, which takes a while: one after the other.
const READ_SPREAD: Duration = Duration::from_secs(10);

/// After an attempt for which the store was away, or somebody else at it.
const AWAY: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(100);

/// After one that was refused.
const REFUSED: Duration = Duration::from_secs(600);

/// See the module. One for the process.
pub(crate) struct Scribe {
    services: Mutex<BTreeMap<ServiceName, Noticed>>,
    /// Rung when something has come.
    wake: Sender<()>,
}

/// What is known of a service.
struct Noticed {
    /// What the history is known to say, or was found first; and what has come since.
    seen: Vec<SeenLists>,
    gathering: Gathering,
    /// It was there when it was looked at.
    had_history: bool,
    /// The number of its last record then.
    noted: Option<u64>,
    /// It was found that long lists have to be read.
    must_read: bool,
    /// What was said of it.
    told: Option<String>,
}

impl Scribe {
    /// Begins to look after the history.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start(config: Arc<Published<Config>>) -> io::Result<Arc<Self>> {
        let (wake, news) = bounded(1);
        let scribe = Arc::new(Self {
            services: Mutex::default(),
            wake,
        });
        let own = Arc::clone(&scribe);
        supervised::spawn("history", move || own.look_after(&config, &news))?;
        Ok(scribe)
    }

    fn services(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Noticed>> {
        // Whole at any moment.
        let services = self.services.lock();
        services.unwrap_or_else(PoisonError::into_inner)
    }

    fn look_after(&self, config: &Published<Config>, news: &Receiver<()>) {
        // Nobody waits for this.
        heavy::step_back();
        loop {
            let due = self.due();
            let _ = match due {
                Some((at, _)) => news.recv_deadline(at),
                None => news.recv().map_err(Into::into),
            };
            if let Some((at, service)) = self.due()
                && at <= Instant::now()
            {
                self.note(&config.load(), &service);
            }
        }
    }

    /// The service that is to be looked at next, and when.
    fn due(&self) -> Option<(Instant, ServiceName)> {
        let services = self.services();
        let due = services.iter().filter_map(|(service, it)| {
            let at = it.gathering.due()?;
            Some((at, service))
        });
        let next = due.min_by_key(|(at, _)| *at);
        next.map(|(at, service)| (at, service.clone()))
    }

    /// Has the ledger compare what has come with the history.
    fn note(&self, config: &Config, service: &ServiceName) {
        if !config.services.iter().any(|it| it.name == *service) {
            self.services().remove(service);
            return;
        }
        let (seen, had_history, noted, may_read) = match self.services().get(service) {
            Some(it) => (it.seen.clone(), it.had_history, it.noted, it.must_read),
            None => return,
        };
        let account = SeenAccount {
            seen: &seen,
            had_history,
            noted,
            may_read,
        };
        let outcome = Ledger::of(config, service)
            .map_err(NotNoted::Refused)
            .and_then(|mut it| it.note_by_hand(&account));
        let now = Instant::now();
        let mut services = self.services();
        let Some(known) = services.get_mut(service) else {
            return;
        };
        match outcome {
            Ok(Noting::Again) => known.gathering.wait(now + AGAIN),
            Ok(Noting::MustRead) => {
                known.must_read = true;
                known
                    .gathering
                    .wait(now + READ_SPREAD.mul_f64(fastrand::f64()));
            }
            Err(NotNoted::Away(_)) => known.gathering.wait(now + AWAY),
            Err(NotNoted::Refused(error)) => {
                known.gathering.wait(now + REFUSED);
                if known.told.as_ref() != Some(&error) {
                    let name = service.in_log();
                    log::info!(
                        "history-refused {name}error={error:?} effect=\"what is changed by hand is not in the history\""
                    );
                }
                known.told = Some(error);
            }
            Ok(noting) => {
                known.told = None;
                known.must_read = false;
                known.noted = match noting {
                    Noting::Known(number) | Noting::Written(number) => Some(number),
                    _ => None,
                };
                known.had_history = known.noted.is_some();
                known.is_noted(&seen, matches!(noting, Noting::Written(_)), now);
                if let Noting::Written(number) = noting {
                    let name = service.in_log();
                    log::info!("changed-by-hand {name}change={number}");
                }
            }
        }
    }
}

impl Noticed {
    fn of(seen: SeenLists, now: Instant) -> Self {
        Self {
            seen: vec![seen],
            gathering: Gathering::new(now),
            had_history: false,
            noted: None,
            must_read: false,
            told: None,
        }
    }

    fn saw(&mut self, seen: SeenLists, now: Instant) {
        if self.seen.last() == Some(&seen) {
            return;
        }
        self.seen.push(seen);
        // The first is where the account begins, the last is what there is.
        if self.seen.len() > REMEMBERED {
            self.seen.remove(1);
        }
        self.gathering.add(now, SPREAD.mul_f64(fastrand::f64()));
    }

    /// The history says what was `seen`.
    fn is_noted(&mut self, seen: &[SeenLists], is_new: bool, now: Instant) {
        let latest = seen.last();
        let at = self.seen.iter().rposition(|it| Some(it) == latest);
        self.seen.drain(..at.unwrap_or_default());
        self.gathering.done(now, is_new, self.seen.len() > 1);
    }
}

impl ListsWatch for Scribe {
    fn saw(&self, service: &ServiceName, seen: SeenLists) {
        let now = Instant::now();
        let mut services = self.services();
        match services.get_mut(service) {
            Some(known) => known.saw(seen, now),
            None => drop(services.insert(service.clone(), Noticed::of(seen, now))),
        }
        drop(services);
        // A ring that nobody has heard yet is enough.
        let _ = self.wake.try_send(());
    }

    fn forget(&self) {
        self.services().clear();
    }
}
