//! Health checks of peers.

use super::page::{Labels, MetricsPage};
use crate::error::Checked;
use crate::lists::PoolName;
use crate::upstream::check::CheckCounts;

pub(super) fn render(page: &mut MetricsPage, counts: &CheckCounts) {
    let name = "health_checks_total";
    page.family(
        name,
        "counter",
        "Health checks of peers by pool and outcome.",
    );
    for pool in PoolName::ALL {
        for outcome in Checked::ALL {
            let labels: Labels<'_> = &[("pool", &pool.name()), ("outcome", &outcome.name())];
            page.value(name, labels, counts.count(pool, *outcome));
        }
    }
}
