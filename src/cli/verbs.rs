//! The verbs of a release: what all of them have in common. What a verb makes of the lists is in
//! [`crate::release::change`].
//!
//! The difference is said first, and on a terminal whoever asks for a change that gateways would hold is
//! asked for a yes. Then the change is in the store, or it is not; and if that is wanted, the gateways are
//! waited for.

use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};
use serde_json::{Value, json};

use crate::cli::admin_client::AdminClient;
use crate::cli::arguments::VerbFlags;
use crate::cli::confirmation::Confirmation;
use crate::cli::fleet_wait::{self, AwaitedState, LONGEST_WAIT, LaterLists};
use crate::cli::lists::named;
use crate::cli::notify::{self, Telling};
use crate::cli::report::{Afterwards, Form, Report};
use crate::config::{Config, Store};
use crate::fleet::plain::plain;
use crate::lists::ServiceName;
use crate::release::change::{ListsChange, Verb};
use crate::release::history::overtaking;
use crate::release::ledger::{Consent, Done, Ledger, Order, TendedState};
use crate::release::state::ReleaseState;
use crate::run;

/// A check before a change, beyond what the lists say. The error is one line; what is returned are notes.
pub(crate) type Objections<'a> =
    &'a mut dyn FnMut(&Config, &ListsChange) -> Result<Vec<String>, String>;

/// Does what `verb` says.
///
/// # Errors
/// One line: why nothing was changed.
pub(crate) fn perform(flags: &VerbFlags, verb: Verb) -> Result<Report, String> {
    perform_checked(flags, verb, &mut |_, _| Ok(Vec::new()))
}

/// The same, if `check` has nothing against it.
///
/// # Errors
/// The same, or what it has.
pub(crate) fn perform_checked(
    flags: &VerbFlags,
    verb: Verb,
    check: Objections<'_>,
) -> Result<Report, String> {
    is_short_enough("--reason", flags.reason.as_deref(), LONGEST_REASON)?;
    is_short_enough("--by", flags.by.as_deref(), LONGEST_NAME)?;
    let config = run::load(&flags.config)?;
    let service = of(flags)?;
    let mut ledger = Ledger::of(&config, &service)?;
    let by = match &flags.by {
        Some(by) => by.trim().to_owned(),
        None => whoever(),
    };
    let order = Order::new(verb, plain(&by), flags.reason.clone());
    let mut notes = Vec::new();
    let mut confirmation = Confirmation::default();
    let mut takes_back = None;
    let mut hear = |change: &ListsChange| {
        is_the_same(&mut takes_back, change)?;
        notes = check(&config, change)?;
        if flags.dry_run {
            return Ok(Consent::No);
        }
        if !flags.yes && !confirmation.is_given(change, &mut ask)? {
            return Err("not done".to_owned());
        }
        Ok(Consent::Yes)
    };
    let mut done = ledger.perform(&order, &mut hear)?;
    let mut telling = None;
    if done.number.is_some() {
        match notify::begin(&config, &service, &order) {
            Ok(begun) => telling = begun,
            Err(why) => done.notes.push(why),
        }
    }
    let outcome = VerbOutcome {
        flags,
        config: &config,
        service: &service,
        order: &order,
    };
    Ok(outcome.report(done, notes, telling))
}

/// Whoever takes back the last change means the one that was the last when he said so: that of somebody who
/// was faster may be what takes it back already.
fn is_the_same(before: &mut Option<u64>, change: &ListsChange) -> Result<(), String> {
    let Some(now) = change.takes_back else {
        return match before {
            Some(before) => Err(format!(
                "not done: others were faster, and change {before} is not the last any more"
            )),
            None => Ok(()),
        };
    };
    match *before.get_or_insert(now) {
        before if before == now => Ok(()),
        before => Err(format!(
            "not done: others were faster, and change {before} is not the last any more, but change {now}; \
             look at `graygate history`"
        )),
    }
}

/// The longest reason, in characters: it is in the state of the release, which gateways read up to a size.
const LONGEST_REASON: usize = 1000;

/// The longest name of somebody, in characters.
const LONGEST_NAME: usize = 200;

fn is_short_enough(option: &str, text: Option<&str>, most: usize) -> Result<(), String> {
    match text.map(|it| it.chars().count()) {
        Some(count) if count > most => Err(format!(
            "not done: {option} has {count} characters, which are more than {most}"
        )),
        _ => Ok(()),
    }
}

/// The service that is meant.
pub(super) fn of(flags: &VerbFlags) -> Result<ServiceName, String> {
    let service = flags.service.as_deref().map(named).transpose()?;
    Ok(service.unwrap_or_default())
}

/// Who is at the terminal: the name with which somebody has logged in, and where.
pub(super) fn whoever() -> String {
    let named = ["SUDO_USER", "LOGNAME", "USER"];
    let mut named = named.iter().filter_map(|it| std::env::var(it).ok());
    let name = named.find(|it| !it.is_empty());
    let own = || {
        User::from_uid(Uid::current())
            .ok()
            .flatten()
            .map(|it| it.name)
    };
    let name = name.or_else(own);
    let host = nix::unistd::gethostname().unwrap_or_default();
    let name = name.unwrap_or_else(|| Uid::current().to_string());
    format!("{name}@{}", host.to_string_lossy())
}

/// Asks whether a change is meant, where it is another one than was said yes to before, if that is so.
///
/// # Errors
/// Nobody is there who could be asked.
fn ask(change: &ListsChange, is_again: bool) -> Result<bool, String> {
    let why = change.asks.join("; ");
    if !io::stdin().is_terminal() {
        return Err(format!("not done: {why}; --yes says that this is meant"));
    }
    let mut text = match is_again {
        true => "Others have changed the lists meanwhile. Now it is:\n".to_owned(),
        false => String::new(),
    };
    text.push_str(&lines(change));
    // Writing to a String cannot fail.
    let _ = write!(text, "{why}. Is this meant? [y/N] ");
    let _ = io::stderr().write_all(text.as_bytes());
    let _ = io::stderr().flush();
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| error.to_string())?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}

fn lines(change: &ListsChange) -> String {
    change
        .difference
        .iter()
        .map(|it| format!("{it}\n"))
        .collect()
}

/// What comes of an order.
struct VerbOutcome<'a> {
    flags: &'a VerbFlags,
    config: &'a Config,
    service: &'a ServiceName,
    order: &'a Order,
}

impl VerbOutcome<'_> {
    fn report(&self, done: Done, checked: Vec<String>, telling: Option<Telling>) -> Report {
        let Done {
            change,
            number,
            notes,
        } = done;
        let mut notes = [change.notes.clone(), checked, notes].concat();
        if self.flags.dry_run && !self.flags.yes && !change.asks.is_empty() {
            notes.push(format!("to be confirmed: {}", change.asks.join("; ")));
        }
        let mut text = lines(&change);
        let (before, after) = (change.before, change.after);
        let said = match number {
            Some(number) if before == after => {
                format!("change {number}: the lists are {after}, as before")
            }
            Some(number) => format!("change {number}: {before} is {after} now"),
            None if change.is_none() => "nothing to change".to_owned(),
            None => format!("{before} would be {after}; nothing was changed"),
        };
        text.push_str(&said);
        text.push('\n');
        let (mut held, mut failed) = (None, None);
        // Also where nothing is to be changed: that the store has it, does not say that gateways do.
        let is_there = change.is_none() && self.order.verb.is_of_lists() && !self.flags.dry_run;
        if number.is_some() || is_there {
            match self.awaited(&change) {
                Some(awaited) => match self.wait(number, awaited) {
                    Ok(waited) => held = waited,
                    Err(why) => failed = Some(why),
                },
                None if self.flags.wait => {
                    notes.push("the lists are as before, so no gateway is waited for".to_owned());
                }
                None => {}
            }
        }
        let is_text = self.flags.output.form() == Form::Text;
        // A program gets all in one; a person need not wait for what is done.
        let (told, telling) = match telling {
            Some(telling) if is_text => (None, Some(telling)),
            telling => (telling.and_then(Telling::end), None),
        };
        notes.extend(told);
        if let Some(held) = &held {
            text.push_str(held);
            text.push('\n');
        }
        let complaint = failed.map(|why| match number {
            Some(_) => format!("the change was made; {why}"),
            None => format!("there was nothing to change; {why}"),
        });
        let mut json = json!({
            "service": self.service.as_str(),
            "verb": self.order.verb.name(),
            "number": number,
            "dry_run": self.flags.dry_run,
            "difference": change.difference,
            "before": before.to_string(),
            "after": after.to_string(),
            "confirmed": if number.is_some() { json!(change.asks) } else { json!([]) },
            "asks": change.asks,
            "notes": notes,
            "in_force": held,
        });
        if let Some(complaint) = &complaint {
            json["error"] = json!(complaint);
        }
        let notes = notes.into_iter().filter(|_| is_text);
        let report = Report::new(text, json);
        let report = report.noting(notes.map(|it| format!("note: {it}")).collect());
        let report =
            report.then(telling.map(|it| -> Afterwards {
                Box::new(|| it.end().map(|why| format!("note: {why}")))
            }));
        match complaint {
            None => report,
            Some(complaint) => report.but(complaint),
        }
    }

    /// What gateways will hold that they have not held before, as far as they tell.
    fn awaited(&self, change: &ListsChange) -> Option<AwaitedState> {
        if change.before != change.after || change.is_none() {
            return Some(AwaitedState::of_service(
                self.service.clone(),
                change.after.to_string(),
            ));
        }
        let tells = matches!(self.config.store, Store::Redis(_));
        let turn = Some(&change.turn).filter(|it| tells && !it.is_none())?;
        Some(AwaitedState::Release(self.service.clone(), turn.clone()))
    }

    /// Waits until gateways hold what is awaited, if that is wanted; says who does.
    ///
    /// # Errors
    /// Who does not, or why that is not known.
    fn wait(&self, number: Option<u64>, awaited: AwaitedState) -> Result<Option<String>, String> {
        let flags = self.flags;
        let is_asked_for = flags.wait || !flags.no_wait && io::stdout().is_terminal();
        if !is_asked_for {
            return Ok(None);
        }
        // Whoever ends the wait should know what is done.
        if let Some(number) = number
            && io::stderr().is_terminal()
        {
            let text = format!("graygate: change {number} is made; waiting for the gateways\n");
            let _ = io::stderr().write_all(text.as_bytes());
        }
        match (&self.config.store, awaited) {
            (Store::Redis(settings), awaited) => {
                let follow = |awaited: &mut AwaitedState| self.follow(number, awaited);
                let limit = flags.timeout;
                fleet_wait::wait_for(settings, awaited, limit, flags.wait, &follow).map(Some)
            }
            (Store::File(_), _) if !flags.wait && !is_asked(&flags.config) => {
                Ok(Some("no gateway runs with this file".to_owned()))
            }
            (Store::File(_), AwaitedState::Lists(lists)) => {
                self.wait_for_gateway(number, &lists.digest).map(Some)
            }
            (Store::File(_), AwaitedState::Release(..)) => Ok(None),
        }
    }

    /// Notes by what this change was overtaken, if it was: gateways may never have had what it gave.
    fn follow(&self, number: Option<u64>, awaited: &mut AwaitedState) {
        match awaited {
            AwaitedState::Lists(lists) => {
                lists.overtaken_by(number.and_then(|it| self.later(it)));
            }
            AwaitedState::Release(_, turn) if turn.resets() => {
                if let Some(epoch) = self.epoch() {
                    turn.follow(epoch);
                }
            }
            AwaitedState::Release(..) => {}
        }
    }

    /// The lists that have come right after those of this change, if that can be read.
    fn later(&self, number: u64) -> Option<LaterLists> {
        let records = Ledger::of(self.config, self.service).and_then(|mut it| it.history(LATER));
        let records = records.ok()?;
        overtaking(&records, number).map(|it| LaterLists {
            digest: it.after.clone(),
            by: it.in_words(),
        })
    }

    /// The epoch in the store, if that can be read.
    fn epoch(&self) -> Option<String> {
        let mut epoch = None;
        let read = Ledger::of(self.config, self.service).and_then(|mut it| {
            it.tend(&mut |state| {
                epoch = Some(ReleaseState::of_json(&Value::Object(state.clone())).epoch);
                TendedState::Kept
            })
        });
        read.ok().and(epoch)
    }

    /// Waits for the only gateway that has this lists file.
    fn wait_for_gateway(&self, number: Option<u64>, digest: &str) -> Result<String, String> {
        let asker = AdminClient::of(&self.flags.config)?;
        let limit = self.flags.timeout.min(LONGEST_WAIT);
        let until = Instant::now() + limit;
        loop {
            let lists = asker.lists()?.standing;
            let mut services = lists.services.iter();
            let holds = match services.find(|it| it.service == self.service.as_str()) {
                Some(it) => Some(&it.digest),
                None => Some(&lists.digest).filter(|_| self.service.is_default()),
            };
            if holds.is_some_and(|it| it == digest) {
                return Ok(format!("the gateway holds {digest}"));
            }
            if let Some(holds) = holds
                && let Some(number) = number
                && let Some(later) = self.later(number).filter(|it| it.digest == *holds)
            {
                let LaterLists { digest, by } = later;
                return Ok(format!(
                    "the gateway holds {digest} by {by}, which has overtaken it"
                ));
            }
            if Instant::now() > until {
                let limit = humantime::format_duration(limit);
                let what = match holds {
                    Some(digest) => format!("holds {digest}"),
                    None => format!("has no service {}", self.service),
                };
                return Err(format!("not within {limit}: the gateway {what}"));
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// So many of the last changes are looked through for those that have come after one.
const LATER: usize = 50;

/// The pause between two looks at a gateway.
const LOOK: Duration = Duration::from_millis(50);

/// A gateway can be asked.
fn is_asked(config: &Path) -> bool {
    AdminClient::of(config).is_ok_and(|it| it.lists().is_ok())
}
