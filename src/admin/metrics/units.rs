//! What the verdict on a release is drawn from.

use super::page::MetricsPage;
use super::service::ServiceLabel;
use crate::lists::PoolName;
use crate::upstream::serving::Serving;
use crate::upstream::units::{UnitCount, UnitCounts};

/// One of the two numbers.
type OfCount = fn(UnitCount) -> u32;

pub(super) fn render(page: &mut MetricsPage, serving: &Serving) {
    let services = serving.services().iter().filter_map(|it| {
        let counts = it.pools().units()?.counts();
        Some((ServiceLabel::of(serving, it.name()), counts))
    });
    let services: Vec<(ServiceLabel<'_>, UnitCounts)> = services.collect();
    let families: [(&str, &str, OfCount); 2] = [
        (
            "verdict_units_total",
            "While pre has a server: requests that count for the verdict, of each client the first one in a second, by pool.",
            |it| it.units,
        ),
        (
            "verdict_bad_units_total",
            "Those of them that a server of their pool has failed or answered with 5xx, by pool.",
            |it| it.bad,
        ),
    ];
    for (name, help, of) in families {
        page.family(name, "counter", help);
        for (service, counts) in &services {
            for pool in PoolName::ALL {
                let labels = [("pool", &pool.name() as &dyn std::fmt::Display)];
                let count = of(counts.units[pool as usize]);
                page.value(name, &service.labels(&labels), count);
            }
        }
    }
}
