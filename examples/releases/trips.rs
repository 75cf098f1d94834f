//! Trips: how long from the moment a gateway takes a version back to the last answer by that version, on any
//! of the gateways.
//!
//! Half of the answers of the new version begin to fail, and the gateways find that by themselves. The first
//! of them to say so in its log is the beginning. A user whom `gray` names asks each gateway all the time,
//! and a crowd, of which a share has the new version, asks each of them at random.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use crate::load::{Answered, Load, Who};
use crate::programs::Gateway;
use crate::site::Site;
use crate::table::{Times, table, time};
use crate::{Arguments, say, wait};

const PAUSE: Duration = Duration::from_millis(5);
const CROWD: Who = Who::Crowd {
    users: 500,
    a_second: 30.0,
};
const TARGET: Duration = Duration::from_millis(100);

/// What was it, and whether targets are met.
pub(crate) fn measure(
    arguments: &Arguments,
    interrupted: &AtomicBool,
) -> Result<(String, bool), String> {
    let mut site = Site::start()?;
    site.fill(0, &["header:X-User=probe", "percent:20:header:X-User"])?;
    for _ in 0..arguments.gateways {
        site.add(&arguments.graygate, 0, "enforce")?;
    }
    let start = |it: &Gateway| {
        let probe = Load::start(it.address, Who::Probe(PAUSE));
        (probe, Load::start(it.address, CROWD))
    };
    let loads: Vec<(Load, Load)> = site.gateways.iter().map(start).collect();
    let (mut found, mut last_answers, mut last_gateways) = (Vec::new(), Vec::new(), Vec::new());
    let mut later = 0;
    for round in 0..arguments.trips {
        site.new.fail(0);
        wait("the new version serves", interrupted, || {
            loads.iter().all(|it| {
                let all = it.0.take();
                all.last().is_some_and(|it| it.is_new && it.status == 200)
            })
        })?;
        // The workers have counted these for a block or two: nothing bad is known of anybody.
        std::thread::sleep(Duration::from_secs(2));
        for (probe, crowd) in &loads {
            drop((probe.take(), crowd.take()));
        }
        let known: Vec<usize> = site.gateways.iter().map(|it| it.log().len()).collect();
        let (begun, begun_at) = (Instant::now(), SystemTime::now());
        site.new.fail(500_000);
        let mut answers: Vec<Vec<Answered>> = vec![Vec::new(); loads.len()];
        let mut until = None;
        wait("the version is taken back everywhere", interrupted, || {
            for (all, (probe, crowd)) in answers.iter_mut().zip(&loads) {
                all.extend(probe.take());
                all.extend(crowd.take());
            }
            let is_back = |all: &Vec<Answered>| {
                let last = all.iter().max_by_key(|it| it.at);
                last.is_some_and(|it| !it.is_new)
            };
            match answers.iter().all(is_back) {
                true => *until.get_or_insert_with(|| Instant::now() + 40 * PAUSE) < Instant::now(),
                false => {
                    until = None;
                    false
                }
            }
        })?;
        let first = site.gateways.iter().zip(&known);
        let first = first.filter_map(|(it, known)| tripped_at(&it.log()[*known..]));
        let first = first.min().ok_or("no gateway says that it has tripped")?;
        let trip = first.duration_since(begun_at).unwrap_or_default();
        found.push(trip);
        let mut last = begun + trip;
        for all in &answers {
            let of_new = all.iter().filter(|it| it.is_new).map(|it| it.at);
            last = last.max(of_new.max().unwrap_or(begun));
        }
        last_answers.push(last - (begun + trip));
        let mut slowest = begun + trip;
        for all in &answers {
            let after = all.iter().filter(|it| !it.is_new && it.at > begun + trip);
            slowest = slowest.max(after.map(|it| it.at).min().unwrap_or(begun));
        }
        last_gateways.push(slowest - (begun + trip));
        let bound = begun + trip + TARGET;
        let too_late = |it: &&Answered| it.is_new && it.at > bound;
        later += answers.iter().flatten().filter(too_late).count();
        site.gateways[0].command(&arguments.graygate, &["verdict", "reset"])?;
        if (round + 1) % 10 == 0 {
            say(&format!("{} of {} trips", round + 1, arguments.trips));
        }
    }
    let (found, answers) = (Times::of(found), Times::of(last_answers));
    let is_good = answers.share(0.99).is_some_and(|it| it <= TARGET);
    let head = format!(
        "A version of which half of the answers begin to fail, on {} gateways: from then to the trip, and from the \
         trip to the last answer by that version on any gateway.\n\n",
        arguments.gateways
    );
    let row = vec![
        arguments.trips.to_string(),
        time(found.share(0.5)),
        time(answers.share(0.5)),
        time(answers.share(0.99)),
        time(answers.share(1.0)),
        later.to_string(),
    ];
    let columns = [
        "trips",
        "found, median",
        "last answer, median",
        "p99",
        "the last",
        "after 100 ms",
    ];
    Ok((head + &table(&columns, &[row]), is_good))
}

/// When a gateway has said that it takes the version back.
pub(crate) fn tripped_at(log: &str) -> Option<SystemTime> {
    let line = log.lines().find(|it| it.contains(" tripped "))?;
    humantime::parse_rfc3339(line.split_whitespace().next()?).ok()
}
