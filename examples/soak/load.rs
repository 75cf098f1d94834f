//! A round of load: clients of every gateway, beside all the unrest and a release.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::acts::{self, Stage};
use crate::release::Release;
use crate::sample::Series;
use crate::site::Site;
use crate::tally::Tallies;
use crate::unrest;

/// Clients of each gateway at once, besides one of the release.
const CLIENTS: u64 = 8;

/// The samples under load are taken so long before its end.
const BEFORE_THE_END: Duration = Duration::from_millis(200);

/// It lasts until `until`, and until what was begun by then has ended.
pub(crate) struct Round {
    pub(crate) at: u64,
    pub(crate) seed: u64,
    pub(crate) until: Instant,
}

impl Round {
    pub(crate) fn run(
        self,
        site: &mut Site,
        program: &Path,
        tallies: &Tallies,
        series: &mut [Series],
    ) -> Result<(), String> {
        let Self { at, seed, until } = self;
        let (gateways, flaky, redis) = (&site.gateways, &site.flaky, &mut site.redis);
        let weather = &site.weather;
        for (series, gateway) in series.iter_mut().zip(gateways) {
            series.begin(gateway)?;
        }
        let release = Release {
            program,
            gateways,
            tallies,
            new: &site.new,
            weather,
            receiver: &site.receiver,
            broken: AtomicBool::new(false),
            over: AtomicBool::new(false),
        };
        let release = &release;
        std::thread::scope(|scope| {
            for (gateway_at, gateway) in gateways.iter().enumerate() {
                let stage = move |client: u64| Stage {
                    listen: gateway.listen[0],
                    random: Rng::with_seed(seed ^ (gateway_at as u64) << 8 ^ client << 16),
                };
                let tally = tallies.of(gateway_at);
                for client in 0..CLIENTS {
                    let mut stage = stage(client);
                    scope.spawn(move || {
                        while Instant::now() < until {
                            let (act, outcome) = acts::act(&mut stage);
                            tally.note(act, outcome);
                        }
                    });
                }
                scope.spawn(move || release.ask(&mut stage(CLIENTS), tally));
            }
            scope.spawn(move || release.run(until, at, Rng::with_seed(seed.rotate_left(9))));
            let random = Rng::with_seed(!seed);
            let unrest =
                scope.spawn(move || unrest::until(until, redis, weather, gateways, flaky, random));
            std::thread::sleep((until - BEFORE_THE_END).saturating_duration_since(Instant::now()));
            for (series, gateway) in series.iter_mut().zip(gateways) {
                series.take_busy(gateway)?;
            }
            let outcome = unrest.join();
            outcome.map_err(|_| "the unrest has panicked".to_owned())?
        })
    }
}
