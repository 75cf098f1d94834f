//! `graygate status`: asks the running gateway.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::admin::pages::Member as _;
use crate::admin::pages::config::{AdminDoors, ConfigPage, SupervisorPart};
use crate::admin::pages::health;
use crate::admin::pages::lists::ListsPage;
use crate::admin::pages::standing::TripShown;
use crate::admin::pages::upgrades::UpgradesPage;
use crate::cli::admin_client::AdminClient;
use crate::cli::exit::Exit;
use crate::cli::report::Report;
use crate::lists::{ListName, ServiceName};

/// Asks the gateway that runs with the ini file at `config`. If it is to be `strict`, one that serves and
/// lacks something has an exit code of its own.
///
/// # Errors
/// When it cannot be asked, or does not answer.
pub(crate) fn ask(config: &Path, strict: bool) -> Result<Report, String> {
    let asker = AdminClient::of(config)?;
    let (health, page) = asker.get(&format!("{}?{}", health::PATH, health::FULL))?;
    if matches!(health, 401 | 403) {
        return Err(asker.refused(health::PATH, health, &page));
    }
    let (word, lacks) = health::read(&page);
    let lists = asker.lists()?;
    // An older gateway says nothing of that.
    let config = asker.page::<ConfigPage>().unwrap_or_default();
    let config = ConfigPage {
        // `graygate config` shows them.
        settings: None,
        ..config
    };
    let processes = asker.page::<UpgradesPage>().unwrap_or_default();
    let serves = health == 200;
    let degraded: Vec<Value> = lacks.iter().map(|it| degradation(it)).collect();
    let json = json!({
        "health": word,
        "serves": serves,
        "degraded": degraded,
        "lists": lists.standing.shown(),
        "config": config.render(),
        "upgrades": processes.render(),
    });
    let text = text(word, &lacks, &lists)
        + &supervisor(config.supervisor.as_ref())
        + &doors(&config.admin)
        + &upgrades(&processes);
    let report = Report::new(text, json);
    Ok(match serves {
        true if strict && !lacks.is_empty() => report.ending(Exit::Degraded),
        true => report,
        false => report.but("not serving".to_owned()),
    })
}

/// What is lacking: its name, and what that is; see [`Degradation`](crate::error::Degradation).
fn degradation(line: &str) -> Value {
    let (reason, text) = line.split_once(": ").unwrap_or((line, ""));
    json!({ "reason": reason, "text": text })
}

/// First what always matters, then anything out of the ordinary.
fn text(health: &str, lacks: &[&str], page: &ListsPage) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |label: &str, what: String| {
        let _ = writeln!(text, "{label:<11} {what}");
    };
    let lists = &page.standing;
    line("health", health.to_owned());
    if let Some(trip) = &page.standing.tripped {
        line("TRIPPED", tripped(None, trip));
    }
    for of in &page.standing.services {
        if let Some(trip) = of
            .tripped
            .as_ref()
            .filter(|_| of.service != ServiceName::DEFAULT)
        {
            line("TRIPPED", tripped(Some(&of.service), trip));
        }
    }
    let age = match lists.age_seconds {
        Some(age) => format!("read {age:.1} s ago"),
        None => "not read yet".to_owned(),
    };
    line(
        "source",
        format!("{} ({}), {age}", lists.source, lists.mode),
    );
    let (generation, digest) = (lists.generation, &lists.digest);
    let changed = lists.changed_at.as_deref().unwrap_or("-");
    line(
        "generation",
        format!("{generation}, digest {digest}, changed {changed}"),
    );
    let [gray, pre, prod] = ListName::ALL.map(|it| page.count(it));
    line("entries", format!("gray {gray}, pre {pre}, prod {prod}"));
    line("error", lists.error.as_deref().unwrap_or("-").to_owned());
    for what in lacks {
        line("degraded", (*what).to_owned());
    }
    for found in &lists.findings.first {
        // There may be many about entries; `lists check` shows them.
        if found.list.is_none() {
            line("finding", format!("{}: {}", found.finding, found.text));
        }
    }
    for kept in &lists.kept {
        let (list, fault) = (&kept.list, &kept.fault);
        line("kept", format!("{list}, since the store has: {fault}"));
    }
    for held in &lists.held {
        let (list, reason) = (&held.list, &held.reason);
        let remedy = format!("graygate lists accept {}", held.digest);
        line("held", format!("{list}: {reason}; to accept it: {remedy}"));
    }
    let others = lists.services.iter();
    for of in others.filter(|it| it.service != ServiceName::DEFAULT) {
        let (service, generation, digest) = (&of.service, of.generation, &of.digest);
        let counts = of
            .counts
            .iter()
            .map(|(list, count)| format!("{list} {count}"));
        let counts: Vec<String> = counts.collect();
        let counts = counts.join(", ");
        line(
            "service",
            format!("{service}: generation {generation}, digest {digest}, {counts}"),
        );
        for kept in &of.kept {
            let (list, fault) = (&kept.list, &kept.fault);
            line(
                "kept",
                format!("{service} {list}, since the store has: {fault}"),
            );
        }
        for held in &of.held {
            let (list, reason, digest) = (&held.list, &held.reason, &held.digest);
            let remedy = format!("graygate lists accept {digest}");
            line(
                "held",
                format!("{service} {list}: {reason}; to accept it: {remedy}"),
            );
        }
    }
    for (list, skipped) in &lists.skipped {
        if let Some(first) = skipped.first.first() {
            let (entry, reason, count) = (&first.entry, &first.reason, skipped.count);
            line(
                "skipped",
                format!("{list}: {count}, first {entry:?}: {reason}"),
            );
        }
    }
    if let Some(copy) = &lists.copy {
        if copy.in_force {
            let written = copy.written.as_deref().unwrap_or("-");
            line("copy", format!("in force, written {written}"));
        }
        if let Some(error) = &copy.error {
            line("copy", error.clone());
        }
    }
    if let Some(heartbeat) = &lists.heartbeat
        && let Some(error) = &heartbeat.error
    {
        let node = &heartbeat.node;
        line("heartbeat", format!("of {node} fails: {error}"));
    }
    text
}

/// That the new version of a service was taken back, and how to end that.
fn tripped(service: Option<&str>, trip: &TripShown) -> String {
    let (of, option) = match service {
        Some(service) => (format!("of {service} "), format!(" --service {service}")),
        None => Default::default(),
    };
    format!(
        "pre {of}was taken back {}; its clients get prod; to try it again: graygate verdict reset{option}",
        trip.words()
    )
}

/// Who starts the gateway again should it die, on a line, and how often that was so; nothing where nobody
/// does.
fn supervisor(supervisor: Option<&SupervisorPart>) -> String {
    supervisor.map_or_else(String::new, |it| {
        let reason = it.reason.as_ref();
        let reason = reason.map_or_else(String::new, |it| format!(", the last time after: {it}"));
        let (pid, restarts) = (it.pid, it.restarts);
        format!(
            "{:<11} pid {pid}, restarts {restarts}{reason}\n",
            "supervisor"
        )
    })
}

/// Where the gateway may be asked, on a line; nothing where it does not say so.
fn doors(admin: &AdminDoors) -> String {
    let token = if admin.token {
        ", changes with the token"
    } else {
        ""
    };
    let socket = admin.socket.as_ref().map(|it| format!("socket {it}"));
    let listen = admin.listen.as_ref();
    let listen = listen.map(|it| format!("listen {it} (expose {}{token})", admin.expose));
    let metrics = admin.metrics.as_ref().map(|it| format!("metrics {it}"));
    let all: Vec<String> = [socket, listen, metrics].into_iter().flatten().collect();
    match all.is_empty() {
        true => String::new(),
        false => format!("{:<11} {}\n", "admin", all.join(", ")),
    }
}

/// What upgrades there were, and who still finishes what was under way then.
fn upgrades(page: &UpgradesPage) -> String {
    let mut text = String::new();
    if let Some(last) = &page.last {
        let (count, since) = (page.upgrades, page.started_at.as_deref().unwrap_or("-"));
        let (at, from) = (&last.at, &last.from);
        let what = format!("{count} since {since}, the last at {at}, from version {from}");
        let _ = writeln!(text, "{:<11} {what}", "upgrades");
    }
    for old in &page.draining {
        let (pid, connections) = (old.pid, old.connections);
        let (since, until) = (&old.since, &old.until);
        let what = format!(
            "the old process {pid} since {since}, with {connections} connections, until {until} at most"
        );
        let _ = writeln!(text, "{:<11} {what}", "draining");
    }
    text
}
