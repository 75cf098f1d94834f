//! A scenario, from starting its proxies to their figures.
//!
//! The proxies run side by side, but only one has traffic at a time: A B C, A B C. What one of them
//! does wrong costs only its own figures.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::accounting;
use crate::changes::Changes;
use crate::children::Running;
use crate::downloads::Downloads;
use crate::figures::{Metric, Sample};
use crate::idle;
use crate::load::{self, Pace, Plan};
use crate::proxies::{Proxy, Setting};
use crate::scenarios::{Content, Scenario, Traffic};
use crate::site::{CHANGING, MILLION, OTHERS, Site};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// Of each run.
    pub(crate) measured: Duration,
}

/// Load before each run that does not count.
const WARM_UP: Duration = Duration::from_millis(300);

/// A proxy's figures.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) setting: Setting,
    /// By round.
    pub(crate) samples: Vec<Option<Sample>>,
    /// Why there is no sample.
    pub(crate) problems: Vec<String>,
}

/// A scenario's figures.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) scenario: &'static Scenario,
    /// As a headline.
    pub(crate) title: String,
    pub(crate) subjects: Vec<Subject>,
}

impl Measured {
    /// False when a run has had errors, or there was none.
    pub(crate) fn is_clean(&self) -> bool {
        self.subjects.iter().all(|it| {
            let mut samples = it.samples.iter().flatten();
            it.problems.is_empty() && samples.all(|it| it.errors.is_empty())
        })
    }
}

/// Runs scenarios.
pub(crate) struct Runner<'a> {
    pub(crate) site: &'a Site,
    pub(crate) effort: Effort,
    pub(crate) interrupted: &'a AtomicBool,
    /// How many descriptors a process may have.
    pub(crate) descriptors: u64,
    /// The best rates of nginx so far, by workers.
    pub(crate) best_of_nginx: Vec<(u8, f64)>,
}

impl Runner<'_> {
    /// Runs one. `note` is told of each run.
    pub(crate) fn run(
        &mut self,
        scenario: &'static Scenario,
        mut note: impl FnMut(usize, Setting),
    ) -> Measured {
        let mut subjects: Vec<Subject> = Vec::new();
        let mut running = Vec::new();
        for &setting in scenario.settings {
            let started = self.start(scenario, setting);
            let problem = started.as_ref().err().cloned();
            running.push(started.ok());
            subjects.push(Subject {
                setting,
                samples: Vec::new(),
                problems: problem.into_iter().collect(),
            });
        }
        for round in 0..self.effort.rounds.min(scenario.rounds) {
            for (subject, running) in subjects.iter_mut().zip(&running) {
                if self.interrupted.load(Ordering::Relaxed) {
                    break;
                }
                let Some(running) = running else {
                    subject.samples.push(None);
                    continue;
                };
                note(round, subject.setting);
                let sample = self.sample(scenario, subject.setting, running.as_ref());
                let sample = sample.map_err(|it| format!("round {}: {it}", round + 1));
                let sample = sample.map_err(|it| subject.problems.push(it)).ok();
                self.remember_nginx(scenario, subject.setting, sample.as_ref());
                subject.samples.push(sample);
            }
        }
        Measured {
            scenario,
            title: self.title(scenario),
            subjects,
        }
    }

    /// With as many idle connections as there are.
    fn title(&self, scenario: &Scenario) -> String {
        match scenario.traffic {
            Traffic::Idle { connections } => {
                let connections = affordable(connections, self.descriptors);
                format!("{} {}", thousands(connections), scenario.title)
            }
            _ => scenario.title.to_owned(),
        }
    }

    /// None where each run has a new instance.
    fn start(&self, scenario: &Scenario, setting: Setting) -> Result<Option<Running>, String> {
        let filled = match setting.gray {
            MILLION => self.site.fill_million(),
            OTHERS => self.site.fill_others(),
            _ => Ok(()),
        };
        filled.map_err(|it| format!("redis: {it}"))?;
        match scenario.traffic {
            Traffic::Idle { .. } => Ok(None),
            _ => setting.start(self.site).map(Some),
        }
    }

    fn sample(
        &mut self,
        scenario: &Scenario,
        setting: Setting,
        running: Option<&Running>,
    ) -> Result<Sample, String> {
        let changes = (setting.gray == CHANGING).then(|| Changes::start(self.site));
        let changes = changes.transpose().map_err(|it| format!("redis: {it}"))?;
        let measured = self.effort.measured.max(scenario.measured);
        let sample = match (scenario.traffic, running) {
            (Traffic::Idle { connections }, _) => self.idle(setting, connections),
            (
                Traffic::Closed {
                    connections,
                    content,
                },
                Some(running),
            ) => self.load(running, content, connections, Pace::Closed, measured),
            (
                Traffic::Offered {
                    percent,
                    connections,
                },
                Some(running),
            ) => {
                let best = self.best_of_nginx(setting.workers)?;
                let pace = Pace::Offered(best * f64::from(percent) / 100.0);
                self.load(running, Content::Small, connections, pace, measured)
            }
            (
                Traffic::Beside {
                    connections,
                    downloads,
                },
                Some(running),
            ) => self.beside(running, connections, downloads),
            (_, None) => Err("not started".to_owned()),
        };
        if changes.is_some_and(|it| !it.is_running()) {
            return Err("the changes ended".to_owned());
        }
        if !self.site.origin.is_running() {
            return Err("the origin ended".to_owned());
        }
        sample
    }

    fn load(
        &self,
        running: &Running,
        content: Content,
        connections: usize,
        pace: Pace,
        measured: Duration,
    ) -> Result<Sample, String> {
        let request = content.request();
        let plan = Plan {
            address: running.address,
            request: &request,
            connections,
            pace,
            warm_up: WARM_UP,
            measured,
            endures: false,
        };
        let processes = accounting::processes(running.id())?;
        let outcome = load::run(&plan, self.interrupted, || {
            // The time of a process that has ended would be missing.
            if accounting::processes(running.id())? != processes {
                return Err("processes of the proxy came or went".to_owned());
            }
            accounting::cpu_time(&processes)
        });
        let outcome = outcome.map_err(|it| format!("{it}\n{}", running.said()))?;
        if !outcome.errors.is_empty() {
            // Which may be why.
            let _ = writeln!(io::stderr(), "bench: the proxy said: {}", running.said());
        }
        Ok(Sample::of(outcome))
    }

    fn beside(
        &self,
        running: &Running,
        connections: usize,
        downloads: usize,
    ) -> Result<Sample, String> {
        let downloads = Downloads::start(running.address, downloads);
        let downloads = downloads.map_err(|it| format!("a download: {it}"))?;
        let (before, start) = (downloads.received()?, Instant::now());
        let measured = self.effort.measured;
        let sample = self.load(running, Content::Small, connections, Pace::Closed, measured)?;
        let (after, seconds) = (downloads.received()?, start.elapsed().as_secs_f64());
        let moved: Vec<u64> = before
            .iter()
            .zip(&after)
            .map(|(it, after)| after - it)
            .collect();
        if moved.contains(&0) {
            return Err("a download stood still".to_owned());
        }
        let rate = moved.iter().sum::<u64>() as f64 / 1e6 / seconds;
        Ok(sample.with_downloads(rate))
    }

    fn idle(&self, setting: Setting, connections: usize) -> Result<Sample, String> {
        let connections = affordable(connections, self.descriptors);
        let running = setting.start(self.site)?;
        // What a proxy makes once, it has made then.
        self.load(
            &running,
            Content::Small,
            64,
            Pace::Closed,
            self.effort.measured,
        )?;
        let processes = accounting::processes(running.id())?;
        let memory = || accounting::memory(&processes);
        let each = idle::memory_each(running.address, connections, self.interrupted, memory);
        let each = each.map_err(|it| format!("{it}\n{}", running.said()));
        each.map(Sample::of_memory)
    }

    fn remember_nginx(&mut self, scenario: &Scenario, setting: Setting, sample: Option<&Sample>) {
        let is_it = setting.proxy == Proxy::Nginx && scenario.name == crate::scenarios::MAIN;
        let rate = sample.and_then(|it| it.get(Metric::Rate));
        if let (true, Some(rate)) = (is_it, rate) {
            let all = &mut self.best_of_nginx;
            match all.iter_mut().find(|it| it.0 == setting.workers) {
                Some((_, best)) => *best = best.max(rate),
                None => all.push((setting.workers, rate)),
            }
        }
    }

    /// What it was in this run of the program; measured now, if it was not yet.
    fn best_of_nginx(&mut self, workers: u8) -> Result<f64, String> {
        let known = self.best_of_nginx.iter().find(|it| it.0 == workers);
        if let Some((_, best)) = known {
            return Ok(*best);
        }
        let setting = Setting {
            proxy: Proxy::Nginx,
            workers,
            gray: crate::site::STILL,
        };
        let running = setting.start(self.site)?;
        let mut best: f64 = 0.0;
        for _ in 0..2 {
            let sample = self.load(
                &running,
                Content::Small,
                64,
                Pace::Closed,
                self.effort.measured,
            )?;
            best = best.max(sample.get(Metric::Rate).unwrap_or(0.0));
        }
        if best > 0.0 {
            self.best_of_nginx.push((workers, best));
            return Ok(best);
        }
        Err("nginx's best rate is not known".to_owned())
    }
}

/// Of these connections, how many a proxy can hold with a connection to a server for each.
fn affordable(connections: usize, descriptors: u64) -> usize {
    connections.min((descriptors / 2).saturating_sub(100) as usize)
}

/// As in `10,000`; below a million.
fn thousands(count: usize) -> String {
    match (count / 1000, count % 1000) {
        (0, rest) => rest.to_string(),
        (thousands, rest) => format!("{thousands},{rest:03}"),
    }
}
