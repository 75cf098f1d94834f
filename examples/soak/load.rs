//! A round of load: clients of every gateway, beside all the unrest.

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::acts::{self, Stage};
use crate::sample::Series;
use crate::site::Site;
use crate::tally::Tallies;
use crate::unrest;

/// Clients of each gateway at once.
const CLIENTS: u64 = 8;

/// The samples under load are taken so long before its end.
const BEFORE_THE_END: Duration = Duration::from_millis(200);

/// Lasts until `until`, and until what was begun by then has ended.
pub(crate) fn round(
    site: &mut Site,
    tallies: &Tallies,
    series: &mut [Series],
    seed: u64,
    until: Instant,
) -> Result<(), String> {
    let (gateways, flaky, redis) = (&site.gateways, &site.flaky, &mut site.redis);
    for (series, gateway) in series.iter_mut().zip(gateways) {
        series.begin(gateway)?;
    }
    std::thread::scope(|scope| {
        for (at, gateway) in gateways.iter().enumerate() {
            for client in 0..CLIENTS {
                let mut stage = Stage {
                    listen: gateway.listen[0],
                    random: Rng::with_seed(seed ^ (at as u64) << 8 ^ client << 16),
                };
                scope.spawn(move || {
                    while Instant::now() < until {
                        let (act, outcome) = acts::act(&mut stage);
                        tallies.of(at).note(act, outcome);
                    }
                });
            }
        }
        let random = Rng::with_seed(!seed);
        let unrest = scope.spawn(move || unrest::until(until, redis, gateways, flaky, random));
        std::thread::sleep((until - BEFORE_THE_END).saturating_duration_since(Instant::now()));
        for (series, gateway) in series.iter_mut().zip(gateways) {
            series.take_busy(gateway)?;
        }
        let outcome = unrest.join();
        outcome.map_err(|_| "the unrest has panicked".to_owned())?
    })
}
