//! Plots of the figures, drawn by gnuplot as SVG.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::figures::{Metric, PARTS};
use crate::proxies::Proxy;
use crate::report;
use crate::runs::{Measured, Subject};
use crate::site::STILL;

/// A drawn plot.
pub(crate) struct Plot {
    /// The scenario that it stands with.
    pub(crate) scenario: &'static str,
    pub(crate) title: &'static str,
    pub(crate) file: &'static str,
}

/// Bars of several scenarios, or of one with several numbers of workers.
struct Bars {
    plot: Plot,
    metric: Metric,
    unit: &'static str,
    /// Left to right: scenario, workers, and what to write below.
    groups: &'static [(&'static str, u8, &'static str)],
    proxies: &'static [Proxy],
}

const PLAIN: &[Proxy] = &[Proxy::Graygate, Proxy::Nginx, Proxy::Haproxy, Proxy::Floor];
const EVERY: &[Proxy] = &[
    Proxy::Graygate,
    Proxy::Nginx,
    Proxy::Haproxy,
    Proxy::OpenResty,
    Proxy::OpenRestyPool,
    Proxy::Floor,
];

const BARS: &[Bars] = &[
    Bars {
        plot: Plot {
            scenario: "small",
            title: "CPU time a request: 128-byte answers, keep-alive",
            file: "cpu-a-request.svg",
        },
        metric: Metric::CpuRequest,
        unit: "µs",
        groups: &[
            ("small", 1, "64 connections,\\n1 worker"),
            ("small", 2, "64 connections,\\n2 workers"),
            ("many", 1, "1,000 connections,\\n1 worker"),
            ("many", 2, "1,000 connections,\\n2 workers"),
        ],
        proxies: PLAIN,
    },
    Bars {
        plot: Plot {
            scenario: "small",
            title: "Requests a second: 128-byte answers on 64 keep-alive connections",
            file: "requests-a-second.svg",
        },
        metric: Metric::Rate,
        unit: "requests/s",
        groups: &[("small", 1, "1 worker"), ("small", 2, "2 workers")],
        proxies: EVERY,
    },
    Bars {
        plot: Plot {
            scenario: "answers-16k",
            title: "CPU time a gigabyte, 1 worker",
            file: "cpu-a-gigabyte.svg",
        },
        metric: Metric::CpuGigabyte,
        unit: "ms",
        groups: &[
            ("answers-16k", 1, "16 KiB answers"),
            ("answers-1m", 1, "1 MiB answers"),
            ("answers-64m", 1, "64 MiB answers"),
            ("uploads-1m", 1, "1 MiB uploads"),
        ],
        proxies: PLAIN,
    },
    Bars {
        plot: Plot {
            scenario: "connections",
            title: "CPU time a request, 1 worker",
            file: "cpu-of-others.svg",
        },
        metric: Metric::CpuRequest,
        unit: "µs",
        groups: &[
            ("connections", 1, "a new connection\\neach"),
            ("fields", 1, "30 fields\\nboth ways"),
            ("uploads-1k", 1, "1 KiB uploads"),
        ],
        proxies: PLAIN,
    },
];

/// For each percentile, what was offered.
const LATENCIES: Plot = Plot {
    scenario: "offered-50",
    title: "Latency at the same offered rates, in percent of nginx's best",
    file: "latency.svg",
};
const OFFERED: &[(&str, u8, &str)] = &[
    ("offered-50", 1, "50 %, 1 worker"),
    ("offered-80", 1, "80 %, 1 worker"),
    ("offered-50", 2, "50 %, 2 workers"),
    ("offered-80", 2, "80 %, 2 workers"),
];

/// Draws what there are figures for. What fails is said, and is not among the plots.
pub(crate) fn draw(all: &[Measured], folder: &Path) -> Vec<Plot> {
    let bars = BARS.iter().map(|it| (&it.plot, it.script(all)));
    let scripts = bars.chain([(&LATENCIES, latencies(all))]);
    let mut drawn = Vec::new();
    for (plot, script) in scripts {
        let Some(script) = script else {
            continue;
        };
        match run_gnuplot(&script, &folder.join(plot.file)) {
            Ok(()) => drawn.push(Plot { ..*plot }),
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "bench: {}: {error}", plot.file);
            }
        }
    }
    drawn
}

fn run_gnuplot(script: &str, file: &Path) -> Result<(), String> {
    let failed = |it: std::io::Error| format!("gnuplot: {it}");
    let mut child = Command::new("gnuplot")
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // The script is small enough to be taken before anything is drawn.
    let mut input = child.stdin.take().ok_or("gnuplot: no input")?;
    input.write_all(script.as_bytes()).map_err(failed)?;
    drop(input);
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() || output.stdout.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("gnuplot: {}", said.trim()));
    }
    std::fs::write(file, output.stdout).map_err(failed)
}

/// Colours that people with any eyesight can tell apart (Okabe and Ito's).
fn colour(proxy: Proxy) -> &'static str {
    match proxy {
        Proxy::Graygate => "#0072B2",
        Proxy::GraygateTuned | Proxy::GraygateUnwatched | Proxy::OtherBuild => "#56B4E9",
        Proxy::Nginx => "#009E73",
        Proxy::Haproxy => "#D55E00",
        Proxy::OpenResty => "#CC79A7",
        Proxy::OpenRestyPool => "#E69F00",
        Proxy::Floor => "#999999",
    }
}

fn title(proxy: Proxy) -> &'static str {
    match proxy {
        Proxy::OpenRestyPool => "OpenResty with Redis pool",
        _ => proxy.name(),
    }
}

fn find<'a>(all: &'a [Measured], scenario: &str, workers: u8, proxy: Proxy) -> Option<&'a Subject> {
    let measured = all.iter().find(|it| it.scenario.name == scenario)?;
    measured.subjects.iter().find(|it| {
        let setting = it.setting;
        let fits = setting.workers == workers || proxy == Proxy::Floor;
        setting.proxy == proxy && setting.gray == STILL && fits
    })
}

fn head(title: &str, size: &str) -> String {
    format!(
        "set encoding utf8\n\
         set terminal svg size {size} font 'sans-serif,13' background '#ffffff'\n\
         set border 3 lc rgb '#666666'\n\
         set tics nomirror textcolor rgb '#222222'\n\
         set grid ytics lc rgb '#dddddd' lt 1\n\
         set title \"{title}\" font ',15'\n"
    )
}

impl Bars {
    /// None without figures.
    fn script(&self, all: &[Measured]) -> Option<String> {
        let has_run = |&&(scenario, ..): &&(&str, u8, &str)| {
            all.iter().any(|it| it.scenario.name == scenario)
        };
        let groups: Vec<_> = self.groups.iter().filter(has_run).collect();
        let mut blocks = String::new();
        let mut clauses: Vec<String> = Vec::new();
        let width = self.proxies.len() + 1;
        let digits = if self.metric == Metric::CpuRequest {
            1
        } else {
            0
        };
        for (at, &proxy) in self.proxies.iter().enumerate() {
            let mut rows = String::new();
            for (group, &&(scenario, workers, _)) in groups.iter().enumerate() {
                let subject = find(all, scenario, workers, proxy);
                let Some(it) = subject.and_then(|it| report::of(it, self.metric)) else {
                    continue;
                };
                let x = group * width + at;
                let (median, min, max) = (it.median, it.min, it.max);
                let _ = writeln!(rows, "{x} {median} {min} {max} {median:.digits$}");
            }
            if rows.is_empty() {
                continue;
            }
            let _ = write!(blocks, "$p{at} <<END\n{rows}END\n");
            let (name, colour) = (title(proxy), colour(proxy));
            clauses.push(format!(
                "$p{at} using 1:2 with boxes lc rgb '{colour}' title '{name}', \
                 '' using 1:3:(0):($4-$3) with vectors heads size 0.12,90 lc rgb '#333333' notitle, \
                 '' using 1:4:5 with labels offset 0,0.6 font ',10' notitle"
            ));
        }
        if clauses.is_empty() {
            return None;
        }
        let middle = (self.proxies.len() - 1) as f64 / 2.0;
        let tics: Vec<String> = groups
            .iter()
            .enumerate()
            .map(|(group, (.., label))| format!("\"{label}\" {}", (group * width) as f64 + middle))
            .collect();
        let mut script = head(self.plot.title, "820,440");
        let end = groups.len() * width - 1;
        let _ = write!(
            script,
            "set style fill solid 0.9\nset boxwidth 0.85\nset ylabel '{}'\n\
             set yrange [0:*<1e12]\nset offsets 0,0,graph 0.08,0\nset xrange [-1:{end}]\n\
             set xtics ({}) scale 0\nset bmargin 4\nset key outside above horizontal\n\
             {blocks}plot {}\n",
            self.unit,
            tics.join(", "),
            clauses.join(", ")
        );
        Some(script)
    }
}

/// Four pictures of latency by percentile. None without figures.
fn latencies(all: &[Measured]) -> Option<String> {
    let mut script = head("", "820,640");
    // Each percentile stands where as many nines are.
    let tics: Vec<String> = [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9")]
        .iter()
        .map(|(part, label)| format!("'{label}' {}", 1.0 / (1.0 - part)))
        .collect();
    let _ = write!(
        script,
        "set logscale xy\nset xtics ({})\nset xrange [2:5000]\nset ylabel 'ms'\n\
         set key right bottom\n",
        tics.join(", ")
    );
    let mut pictures = String::new();
    for (group, &(scenario, workers, label)) in OFFERED.iter().enumerate() {
        let mut clauses = Vec::new();
        for (at, &proxy) in PLAIN.iter().enumerate() {
            let Some(subject) = find(all, scenario, workers, proxy) else {
                continue;
            };
            let samples: Vec<_> = subject.samples.iter().flatten().collect();
            let samples: Vec<_> = samples.iter().filter_map(|it| it.latencies()).collect();
            let mut rows = String::new();
            for (place, part) in PARTS.iter().enumerate() {
                let values = samples.iter().map(|it| it[place]);
                let spread = crate::figures::spread(values);
                if let Some(spread) = spread {
                    let _ = writeln!(rows, "{} {}", 1.0 / (1.0 - part), spread.median);
                }
            }
            if rows.is_empty() {
                continue;
            }
            let _ = write!(script, "$g{group}p{at} <<END\n{rows}END\n");
            clauses.push(format!(
                "$g{group}p{at} using 1:2 with linespoints pt 7 ps 0.4 lw 2 lc rgb '{}' title '{}'",
                colour(proxy),
                title(proxy)
            ));
        }
        if !clauses.is_empty() {
            let _ = write!(
                pictures,
                "set title '{label}'\nplot {}\n",
                clauses.join(", ")
            );
        }
    }
    if pictures.is_empty() {
        return None;
    }
    let title = LATENCIES.title;
    let _ = write!(
        script,
        "set multiplot layout 2,2 title \"{title}\" font ',15'\n{pictures}unset multiplot\n"
    );
    Some(script)
}
