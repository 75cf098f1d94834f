//! Defects: how long until a gateway has seen one at ten requests a second of the new version, and that it
//! does not see one where both versions fail.
//!
//! Many releases at once, each with a gateway of its own, which has a database of Redis and a crowd to
//! itself.

use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, SystemTime};

use crate::load::{Answered, Load, Who};
use crate::site::Site;
use crate::table::{Times, table, time};
use crate::trips::tripped_at;
use crate::{Arguments, say};

/// Releases that are watched at once: the databases that Redis has as shipped are sixteen.
const AT_ONCE: usize = 10;

/// Of which a tenth has the new version.
const CROWD: Who = Who::Crowd {
    users: 2000,
    a_second: 100.0,
};

struct Kind {
    name: &'static str,
    /// Failures in a million of either version, and of the new and the old one from some second on.
    before: u32,
    new: u32,
    old: u32,
    /// How long it is watched.
    limit: Duration,
    /// What share of the releases is to be taken back until then.
    target: f64,
}

const KINDS: [Kind; 3] = [
    Kind {
        name: "0.01 → 50 %",
        before: 100,
        new: 500_000,
        old: 100,
        limit: Duration::from_secs(10),
        target: 0.99,
    },
    Kind {
        name: "0.1 → 5 %",
        before: 1000,
        new: 50_000,
        old: 1000,
        limit: Duration::from_secs(40),
        target: 0.95,
    },
    Kind {
        name: "both 0.1 → 50 %",
        before: 1000,
        new: 500_000,
        old: 500_000,
        limit: Duration::from_secs(40),
        target: 0.0,
    },
];

/// What it was, and whether targets are met.
pub(crate) fn measure(
    arguments: &Arguments,
    interrupted: &AtomicBool,
) -> Result<(String, bool), String> {
    let (mut rows, mut is_good) = (Vec::new(), true);
    for kind in &KINDS {
        let (mut found, mut units, mut count) = (Vec::new(), 0, 0);
        while count < arguments.releases {
            let now = AT_ONCE.min(arguments.releases - count);
            let (times, asked) = watch(kind, now, arguments, interrupted)?;
            found.extend(times);
            units += asked;
            count += now;
            say(&format!("{}: {count} of {}", kind.name, arguments.releases));
        }
        let share = found.len() as f64 / count as f64;
        let met = match kind.target == 0.0 {
            true => found.is_empty(),
            false => share >= kind.target,
        };
        is_good &= met;
        let of_all = |share: f64| {
            // Those that were not found are the slowest.
            let place = (count as f64 * share).ceil();
            let is_there = place <= found.len() as f64;
            is_there.then(|| Times::of(found.clone()).share(place / found.len() as f64))?
        };
        rows.push(vec![
            kind.name.to_owned(),
            count.to_string(),
            format!("{} within {} s", found.len(), kind.limit.as_secs()),
            time(of_all(0.5)),
            time(of_all(0.95)),
            format!(
                "{:.1}",
                f64::from(units) / count as f64 / kind.limit.as_secs_f64()
            ),
        ]);
    }
    let head = "Releases of a tenth of 100 requests a second, each with a gateway of its own: from a defect to the trip.\n\n";
    let columns = [
        "failures",
        "releases",
        "taken back",
        "median",
        "95 %",
        "a second of all",
    ];
    Ok((head.to_owned() + &table(&columns, &rows), is_good))
}

/// So many at once: after what time each that was taken back was, and how many requests there were.
fn watch(
    kind: &Kind,
    count: usize,
    arguments: &Arguments,
    interrupted: &AtomicBool,
) -> Result<(Vec<Duration>, u32), String> {
    let mut site = Site::start()?;
    site.old.fail(kind.before);
    site.new.fail(kind.before);
    for database in 0..count {
        site.fill(database, &["percent:10:header:X-User"])?;
        site.add(&arguments.graygate, database, "enforce")?;
    }
    let start = |it: &crate::programs::Gateway| Load::start(it.address, CROWD);
    let loads: Vec<Load> = site.gateways.iter().map(start).collect();
    crate::wait("the new version has served everywhere", interrupted, || {
        let has = |all: Vec<Answered>| all.iter().any(|it| it.is_new);
        loads.iter().all(|it| has(it.take()))
    })?;
    // A healthy time before.
    thread::sleep(Duration::from_secs(5));
    for load in &loads {
        drop(load.take());
    }
    let begun = SystemTime::now();
    site.new.fail(kind.new);
    site.old.fail(kind.old);
    let tripped = |it: &crate::programs::Gateway| {
        let at = tripped_at(&it.log())?;
        at.duration_since(begun).ok()
    };
    let (mut asked, mut seconds) = (0, 0);
    while begun.elapsed().unwrap_or_default() < kind.limit {
        if interrupted.load(std::sync::atomic::Ordering::Relaxed) {
            return Err("interrupted".to_owned());
        }
        thread::sleep(Duration::from_secs(1));
        seconds += 1;
        if kind.target > 0.0 && site.gateways.iter().all(|it| tripped(it).is_some()) {
            break;
        }
    }
    for load in &loads {
        asked += u32::try_from(load.take().len()).unwrap_or(u32::MAX);
    }
    // As if it had gone on as long as it may.
    let asked = f64::from(asked) * kind.limit.as_secs_f64() / f64::from(seconds);
    let times = site.gateways.iter().filter_map(tripped);
    let times = times.filter(|it| *it <= kind.limit).collect();
    Ok((times, asked as u32))
}
