//! How seldom a verdict is wrong, and how soon it is found: `cargo bench --bench verdict`.
//!
//! Ten thousand healthy releases of every kind, of which at most one in a thousand may ever be found worse
//! (and one in twenty suspect); and a few thousand broken ones, with the time until they are. What an
//! addition of a block costs comes last. `-- --quick` plays a tenth of them, `-- --seed N` others. It fails
//! where a target is missed.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "simulation/mod.rs"]
mod simulation;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use graygate::release::evidence::{Block, Concern, Counted, Evidence};
use nix::time::ClockId;

use simulation::world::{Drift, Gateways, World};
use simulation::{Fate, play};

/// What is played, how often, and by which chance.
struct Plan {
    /// One of so many is played.
    divisor: usize,
    seed: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seed = arguments.iter().position(|it| it == "--seed");
    let seed = seed.and_then(|at| arguments.get(at + 1)?.parse().ok());
    let plan = Plan {
        divisor: match arguments.iter().any(|it| it == "--quick") {
            true => 10,
            false => 1,
        },
        seed: seed.unwrap_or(17),
    };
    println!("seed {}, one of {} played", plan.seed, plan.divisor);
    let all_kept = [healthy(&plan), broken(&plan)];
    others(&plan);
    println!("\nplayed in {} s of CPU time", spent().as_secs());
    costs();
    match all_kept.iter().all(|it| *it) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Plays a kind of release so often; each with a chance of its own, whatever else is played.
fn fates(
    plan: &Plan,
    name: &str,
    runs: usize,
    world: impl Fn(&mut fastrand::Rng) -> World,
) -> Vec<Fate> {
    let of_name = name.bytes().fold(plan.seed, |seed, byte| {
        seed.wrapping_mul(0x100_0000_01b3) ^ u64::from(byte)
    });
    let mut random = fastrand::Rng::with_seed(of_name);
    let play_one = |_| {
        let world = world(&mut random);
        play(&world, &mut random)
    };
    (0..runs.div_ceil(plan.divisor)).map(play_one).collect()
}

fn one_of<T: Copy>(of: &[T], random: &mut fastrand::Rng) -> T {
    of[random.usize(..of.len())]
}

/// A healthy release with any share, any rate of errors from 0.01 % to 50 %, and any drift.
fn any(random: &mut fastrand::Rng) -> World {
    World {
        share: one_of(&[0.01, 0.02, 0.05, 0.1, 0.25, 0.5], random),
        rate: 0.0001 * 5000.0_f64.powf(random.f64()),
        clients: one_of(&[500, 2000, 20_000], random),
        drift: one_of(
            &[
                Drift::None,
                Drift::Swing(0.9, 60.0),
                Drift::Swing(0.5, 600.0),
                Drift::Outage(0.5),
            ],
            random,
        ),
        ..World::healthy()
    }
}

fn with_broken(random: &mut fastrand::Rng) -> World {
    World {
        broken: one_of(&[0.002, 0.01, 0.05], random),
        ..any(random)
    }
}

/// A kind of healthy release: its name, how many, and how it is made.
type Kind = (&'static str, usize, fn(&mut fastrand::Rng) -> World);

const HEALTHY: &[Kind] = &[
    ("1 a second", 1500, |random| World {
        per_second: 1.0,
        ..any(random)
    }),
    ("10 a second", 1600, any),
    ("1,000 a second, 20 s", 300, |random| World {
        per_second: 1000.0,
        clients: one_of(&[20_000, 200_000], random),
        seconds: 20,
        ..any(random)
    }),
    ("0.2 to 5 % broken clients", 2500, with_broken),
    ("the same, 1 a second", 500, |random| World {
        per_second: 1.0,
        ..with_broken(random)
    }),
    ("the same, 10 gateways", 200, |random| World {
        per_second: 1.0,
        gateways: Gateways::Spread(10),
        ..with_broken(random)
    }),
    ("6 hours, 1,000 clients, 1 % broken", 200, |random| World {
        share: one_of(&[0.1, 0.25, 0.5], random),
        rate: 0.0001 * 1000.0_f64.powf(random.f64()),
        clients: 1000,
        broken: 0.01,
        seconds: 6 * 3600,
        ..World::healthy()
    }),
    ("an outage every 6 minutes for an hour", 200, |random| {
        World {
            share: one_of(&[0.1, 0.25, 0.5], random),
            rate: 0.0001 * 100.0_f64.powf(random.f64()),
            clients: one_of(&[300, 1000, 5000], random),
            broken: one_of(&[0.0, 0.01, 0.05], random),
            drift: Drift::Outages(one_of(&[0.3, 1.0], random), 60, 360),
            seconds: 3600,
            ..World::healthy()
        }
    }),
    ("a list, truly twice the odds", 500, |random| World {
        odds: 2.0,
        is_list: true,
        ..any(random)
    }),
    ("1 to 4 clients of pre", 500, |random| World {
        per_second: 1.0,
        pre_clients: Some(random.usize(1..=4)),
        ..any(random)
    }),
    ("3 or 4 of them, 5 % broken", 1000, |random| World {
        per_second: 1.0,
        pre_clients: Some(random.usize(3..=4)),
        broken: 0.05,
        ..any(random)
    }),
    ("10 gateways, clients stay", 500, |random| World {
        gateways: Gateways::Sticky(10),
        ..with_broken(random)
    }),
    ("10 gateways, clients roam", 500, |random| World {
        gateways: Gateways::Spread(10),
        clients: one_of(&[500, 2000], random),
        ..with_broken(random)
    }),
];

/// What nothing is promised for, since a version and its clients cannot be told apart.
const NOT_PROMISED: &[Kind] = &[
    ("(2 clients of pre, 5 % broken)", 500, |random| World {
        per_second: 1.0,
        pre_clients: Some(2),
        broken: 0.05,
        ..any(random)
    }),
    ("(1 client of pre, 5 % broken)", 500, |random| World {
        per_second: 1.0,
        pre_clients: Some(1),
        broken: 0.05,
        ..any(random)
    }),
];

/// True when no more were found worse than alpha allows.
fn healthy(plan: &Plan) -> bool {
    println!("\nHealthy releases, 600 s each unless said otherwise; 10 a second to `pre`\n");
    println!("| what | releases | M ≥ 20 | M ≥ 1000 | found worse |");
    println!("|---|---|---|---|---|");
    let mut all = Vec::new();
    for (kinds, are_promised) in [(HEALTHY, true), (NOT_PROMISED, false)] {
        for (name, runs, world) in kinds {
            let fates = fates(plan, name, *runs, world);
            healthy_row(name, &fates);
            if are_promised {
                all.extend(fates);
            }
        }
        if are_promised {
            healthy_row("all", &all);
        }
    }
    let worse = count(&all, |it| it.tripped.is_some());
    let suspect = count(&all, |it| it.is_suspect);
    let worst_case = all.len() as f64 * simulation::RULES.alpha;
    let is_kept = worse as f64 <= worst_case && suspect * 20 <= all.len();
    println!(
        "\nAllowed: {worst_case} found worse, {} with M ≥ 20: {}",
        all.len() / 20,
        said(is_kept)
    );
    is_kept
}

fn healthy_row(name: &str, fates: &[Fate]) {
    println!(
        "| {name} | {} | {} | {} | {} |",
        fates.len(),
        count(fates, |it| it.is_suspect),
        count(fates, |it| it.is_proven),
        count(fates, |it| it.tripped.is_some())
    );
}

fn count(fates: &[Fate], of: impl Fn(&Fate) -> bool) -> usize {
    fates.iter().filter(|it| of(it)).count()
}

fn said(is_kept: bool) -> &'static str {
    match is_kept {
        true => "kept",
        false => "MISSED",
    }
}

/// From the beginning, `pre` fails more often: from, to, and for how long it is looked at.
const RISES: &[(f64, f64, u32)] = &[(0.0001, 0.5, 600), (0.001, 0.05, 1200), (0.005, 0.01, 7200)];

/// Clients enough for nobody to be used up.
fn worsened(per_second: f64, share: f64, rise: &(f64, f64, u32)) -> World {
    let (rate, worse, seconds) = *rise;
    World {
        per_second,
        share,
        rate,
        worse,
        seconds,
        clients: ((per_second / share) as usize * 100).clamp(2000, 1_000_000),
        ..World::healthy()
    }
}

/// True when the targets are kept.
fn broken(plan: &Plan) -> bool {
    println!(
        "\nBroken releases: units of `pre`, and seconds, until found worse; median and 95 %\n"
    );
    println!("| from → to, a second | share 1 % | 10 % | 50 % | 10 %, a list |");
    println!("|---|---|---|---|---|");
    let mut all_kept = Vec::new();
    for rise in RISES {
        for per_second in [1.0, 10.0, 1000.0] {
            let (from, to) = (rise.0 * 100.0, rise.1 * 100.0);
            let name = format!("{from} → {to} %, {per_second}");
            let mut row = format!("| {name} |");
            for (share, is_list) in [(0.01, false), (0.1, false), (0.5, false), (0.1, true)] {
                let column = format!("{name} {share} {is_list}");
                // Twice the odds are what a list may have.
                if is_list && is_small(rise) {
                    row += " - |";
                    continue;
                }
                let runs = runs_of(rise, per_second, share);
                let fates = fates(plan, &column, runs, |_| World {
                    is_list,
                    ..worsened(per_second, share, rise)
                });
                row += &format!(" {} |", times(&fates));
                all_kept.extend(target(rise, per_second, share, is_list, &fates));
            }
            println!("{row}");
        }
    }
    println!();
    for (line, _) in &all_kept {
        println!("{line}");
    }
    all_kept.iter().all(|(_, is_kept)| *is_kept)
}

fn is_small(rise: &(f64, f64, u32)) -> bool {
    rise.1 < 3.0 * rise.0
}

/// Fewer where a run takes long.
fn runs_of(rise: &(f64, f64, u32), per_second: f64, share: f64) -> usize {
    match (is_small(rise), per_second, share) {
        (true, 1.0, _) => 20,
        (true, _, 0.01) => 20,
        (true, ..) => 50,
        (false, 1000.0, 0.01) => 50,
        (false, 10.0, 0.1) => 1000,
        _ => 100,
    }
}

/// A target of the releases with 10 a second, a tenth of all: by its name, and whether it is kept.
fn target(
    rise: &(f64, f64, u32),
    per_second: f64,
    share: f64,
    is_list: bool,
    fates: &[Fate],
) -> Option<(String, bool)> {
    let (within, of_100) = match rise.1 {
        0.5 => (10, 99),
        0.05 => (40, 95),
        _ => return None,
    };
    if per_second != 10.0 || share != 0.1 || is_list {
        return None;
    }
    let found = count(fates, |it| {
        it.tripped.is_some_and(|it| it.seconds <= within)
    });
    let is_kept = found * 100 >= of_100 * fates.len();
    let (from, to) = (rise.0 * 100.0, rise.1 * 100.0);
    let line = format!(
        "{from} → {to} % at 10 a second: {found} of {} within {within} s (wanted: {of_100} of 100): {}",
        fates.len(),
        said(is_kept)
    );
    Some((line, is_kept))
}

/// "11, 20 (2, 3 s)", or how many were found at all where it was not nearly everyone.
fn times(fates: &[Fate]) -> String {
    let mut units: Vec<u64> = fates
        .iter()
        .filter_map(|it| Some(it.tripped?.units))
        .collect();
    let mut seconds: Vec<u32> = fates
        .iter()
        .filter_map(|it| Some(it.tripped?.seconds))
        .collect();
    units.sort_unstable();
    seconds.sort_unstable();
    let at = |of_100: usize| (fates.len() * of_100).div_ceil(100).max(1) - 1;
    match (units.get(at(50)), units.get(at(95))) {
        (Some(median), Some(most)) => format!(
            "{median}, {most} ({}, {} s)",
            seconds[at(50)],
            seconds[at(95)]
        ),
        (Some(median), None) => format!(
            "{median} ({} s); {} of {}",
            seconds[at(50)],
            units.len(),
            fates.len()
        ),
        _ => format!("{} of {}", units.len(), fates.len()),
    }
}

/// A defect that appears while all is well, clients of other kinds, and gateways that share the traffic.
fn others(plan: &Plan) {
    println!("\nOther broken releases, 10 a second to `pre`, a tenth of all: the same\n");
    println!("| what | 0.01 → 50 % | 0.1 → 5 % |");
    println!("|---|---|---|");
    type Change = fn(World) -> World;
    let kinds: &[(&str, Change)] = &[
        ("from the beginning", |it| it),
        ("after 12 minutes", |it| World {
            onset: 750,
            seconds: it.seconds + 750,
            ..it
        }),
        ("after 2 hours", |it| World {
            onset: 7350,
            seconds: it.seconds + 7350,
            ..it
        }),
        ("after a day, 1,000 clients, 20 of each", |it| World {
            onset: 86_400 + 150,
            seconds: it.seconds + 86_400 + 150,
            clients: 1000,
            ..it
        }),
        ("3 min. after an outage that all clients had", |it| World {
            drift: Drift::Outages(1.0, 120, 600),
            onset: 600 + 120 + 180,
            seconds: it.seconds.min(250) + 900,
            clients: 1000,
            ..it
        }),
        ("500 clients, 1 % broken", |it| World {
            clients: 500,
            broken: 0.01,
            ..it
        }),
        ("4 clients of pre", |it| World {
            pre_clients: Some(4),
            ..it
        }),
        ("1 a second, 10 gateways", |it| World {
            per_second: 1.0,
            seconds: 1200,
            gateways: Gateways::Spread(10),
            ..it
        }),
        ("the same, half of all", |it| World {
            per_second: 1.0,
            share: 0.5,
            seconds: 1200,
            gateways: Gateways::Spread(10),
            ..it
        }),
        ("10 gateways, clients stay", |it| World {
            gateways: Gateways::Sticky(10),
            ..it
        }),
        ("10 gateways, clients roam", |it| World {
            gateways: Gateways::Spread(10),
            ..it
        }),
        ("the same, 200 clients of pre", |it| World {
            gateways: Gateways::Spread(10),
            clients: 2000,
            ..it
        }),
    ];
    for (name, change) in kinds {
        let columns = RISES[..2].iter().map(|rise| {
            let name = format!("{name} {}", rise.1);
            let world = |_: &mut fastrand::Rng| change(worsened(10.0, 0.1, rise));
            let runs = match name.contains("a day") {
                true => 20,
                false => 100,
            };
            times(&fates(plan, &name, runs, world))
        });
        let columns: Vec<String> = columns.collect();
        println!("| {name} | {} |", columns.join(" | "));
    }
}

/// What it takes to add a block.
fn costs() {
    println!("\nAdding a block\n");
    println!("| units of `pre`, of both; bad of `pre`, of both | µs |");
    println!("|---|---|");
    for (n, total, x, m) in [
        (10, 100, 0, 0),
        (10, 100, 0, 1),
        (10, 100, 3, 5),
        (100, 1000, 5, 50),
        (1000, 10_000, 500, 5000),
        (1000, 100_000, 1000, 1000),
        (50_000, 100_000, 50_000, 50_000),
        (50_000, 100_000, 25_000, 50_000),
    ] {
        let pre = Counted { units: n, bad: x };
        let prod = Counted {
            units: total - n,
            bad: m - x,
        };
        let block = Block { pre, prod };
        let mut evidence = Evidence::new(Concern::Failing);
        let before = spent();
        let mut times = 0_u32;
        while (spent() - before).as_millis() < 100 {
            for _ in 0..10 {
                evidence.add(black_box(&block), 2.0);
            }
            times += 10;
        }
        black_box(evidence);
        let each = (spent() - before).as_secs_f64() * 1e6 / f64::from(times);
        println!("| {n}, {total}; {x}, {m} | {each:.2} |");
    }
}

/// CPU time of this process, which others on the machine do not add to.
fn spent() -> Duration {
    Duration::from(ClockId::CLOCK_PROCESS_CPUTIME_ID.now().unwrap())
}
