//! Promotions and rollbacks: how long from the command to the last gateway, and that nobody sees a half.
//!
//! A user whom `gray` names, and one whom it does not, ask every gateway all the time. While a release is
//! promoted and that is taken back, the first has the new version throughout, and the second changes over
//! once at each gateway. While it is rolled back and that is undone, the first changes over, and the second
//! has the old version throughout.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::load::{Answered, Load, Who};
use crate::site::Site;
use crate::table::{Times, table, time};
use crate::{Arguments, say, wait};

const PAUSE: Duration = Duration::from_millis(5);

/// Until it is in force on all gateways, in 99 of 100.
const TARGET: Duration = Duration::from_millis(100);

/// A change of the release by a command.
struct Move {
    name: &'static str,
    command: &'static [&'static str],
    /// Afterwards, the user whom `gray` names has the new version, and the other one.
    probe: bool,
    public: bool,
}

const MOVES: [Move; 6] = [
    Move {
        name: "promote",
        command: &["promote", "--yes", "--wait"],
        probe: true,
        public: true,
    },
    Move {
        name: "rollback of a promotion",
        command: &["rollback", "--yes", "--wait"],
        probe: true,
        public: false,
    },
    Move {
        name: "promote --swap",
        command: &["promote", "--swap", "--yes", "--wait"],
        probe: true,
        public: true,
    },
    Move {
        name: "rollback of that",
        command: &["rollback", "--yes", "--wait"],
        probe: true,
        public: false,
    },
    Move {
        name: "rollback",
        command: &["rollback", "--yes", "--wait"],
        probe: false,
        public: false,
    },
    Move {
        name: "undo",
        command: &["undo", "--yes", "--wait"],
        probe: true,
        public: false,
    },
];

#[derive(Default)]
struct Outcome {
    /// From the start of the command to the last gateway's first answer by it.
    after_start: Vec<Duration>,
    /// From when Redis had it.
    after_write: Vec<Duration>,
    /// The command itself, which waits until the heartbeats of all gateways have it.
    took: Vec<Duration>,
    answers: usize,
    failed: usize,
    /// Answers of a version that the client must not have seen any more, or not yet.
    halves: usize,
}

/// Two loads of each gateway.
struct Pair {
    probe: Load,
    public: Load,
}

/// What it was, and whether targets are met.
pub(crate) fn measure(
    arguments: &Arguments,
    interrupted: &AtomicBool,
) -> Result<(String, bool), String> {
    let mut site = Site::start()?;
    site.fill(0, &["header:X-User=probe"])?;
    for _ in 0..arguments.gateways {
        site.add(&arguments.graygate, 0, "enforce")?;
    }
    let start = |it: &crate::programs::Gateway| Pair {
        probe: Load::start(it.address, Who::Probe(PAUSE)),
        public: Load::start(it.address, Who::Public(PAUSE)),
    };
    let loads: Vec<Pair> = site.gateways.iter().map(start).collect();
    wait("everybody is served as listed", interrupted, || {
        loads.iter().all(|it| {
            let (probe, public) = (it.probe.take(), it.public.take());
            let has = |all: &[Answered], is_new| all.last().is_some_and(|it| it.is_new == is_new);
            has(&probe, true) && has(&public, false)
        })
    })?;
    let mut outcomes: [Outcome; MOVES.len()] = Default::default();
    for round in 0..arguments.moves {
        let (mut probe, mut public) = (true, false);
        for (it, outcome) in MOVES.iter().zip(&mut outcomes) {
            let before = (probe, public);
            make(&site, &loads, arguments, (it, before), outcome, interrupted)?;
            (probe, public) = (it.probe, it.public);
        }
        if (round + 1) % 10 == 0 {
            say(&format!("{} of {} promotions", round + 1, arguments.moves));
        }
    }
    Ok(page(arguments, outcomes))
}

/// One of them.
fn make(
    site: &Site,
    loads: &[Pair],
    arguments: &Arguments,
    (it, before): (&Move, (bool, bool)),
    outcome: &mut Outcome,
    interrupted: &AtomicBool,
) -> Result<(), String> {
    for pair in loads {
        drop((pair.probe.take(), pair.public.take()));
    }
    let mut answers: Vec<[Vec<Answered>; 2]> = loads.iter().map(|_| Default::default()).collect();
    let after = (it.probe, it.public);
    let watch = site.watch()?;
    let begun = Instant::now();
    site.gateways[0].command(&arguments.graygate, it.command)?;
    outcome.took.push(begun.elapsed());
    // Until every user of every gateway has had the version of afterwards, and for a while more.
    let mut until = None;
    wait(it.name, interrupted, || {
        let mut is_there = true;
        for (pair, known) in loads.iter().zip(&mut answers) {
            known[0].extend(pair.probe.take());
            known[1].extend(pair.public.take());
            let has = |all: &[Answered], is_new| all.last().is_some_and(|it| it.is_new == is_new);
            is_there &= has(&known[0], after.0) && has(&known[1], after.1);
        }
        if is_there {
            until.get_or_insert_with(|| Instant::now() + 4 * PAUSE);
        }
        until.is_some_and(|it| Instant::now() >= it)
    })?;
    let written = watch.written()?;
    let mut last = begun;
    for [probe, public] in &answers {
        for (all, was, is) in [(probe, before.0, after.0), (public, before.1, after.1)] {
            outcome.answers += all.len();
            outcome.failed += all.iter().filter(|it| it.status != 200).count();
            let first = all.iter().position(|it| it.is_new == is);
            let first = first.unwrap_or(all.len());
            let (earlier, later) = all.split_at(first);
            outcome.halves += later.iter().filter(|it| it.is_new != is).count();
            if was == is {
                outcome.halves += earlier.len();
            } else if let Some(first) = later.first() {
                last = last.max(first.at);
            }
        }
    }
    outcome.after_start.push(last - begun);
    outcome
        .after_write
        .push(last.saturating_duration_since(written));
    Ok(())
}

fn page(arguments: &Arguments, outcomes: [Outcome; MOVES.len()]) -> (String, bool) {
    let (mut rows, mut is_good) = (Vec::new(), true);
    for (it, outcome) in MOVES.iter().zip(outcomes) {
        let count = outcome.after_start.len();
        let start = Times::of(outcome.after_start);
        let write = Times::of(outcome.after_write);
        let took = Times::of(outcome.took);
        let met = start.share(0.99).is_some_and(|it| it <= TARGET) && outcome.halves == 0;
        is_good &= met && outcome.failed == 0;
        rows.push(vec![
            it.name.to_owned(),
            count.to_string(),
            time(start.share(0.5)),
            time(start.share(0.99)),
            time(write.share(0.5)),
            time(write.share(0.99)),
            time(took.share(0.5)),
            outcome.answers.to_string(),
            outcome.failed.to_string(),
            outcome.halves.to_string(),
        ]);
    }
    let head = format!(
        "In force on {} gateways: from the start of the command, and from when Redis had it, to the last gateway's \
         first answer by it.\n\n",
        arguments.gateways
    );
    let columns = [
        "what",
        "times",
        "start, median",
        "p99",
        "Redis, median",
        "p99",
        "the command waits",
        "answers",
        "failed",
        "by a half",
    ];
    (head + &table(&columns, &rows), is_good)
}
