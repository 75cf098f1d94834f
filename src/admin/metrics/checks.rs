//! Health checks of peers.
//!
//! Those of the default service have no label `service`, also where there are others: they had none when
//! there were no others yet.

use std::fmt::Display;

use super::page::MetricsPage;
use crate::error::Checked;
use crate::lists::PoolName;
use crate::upstream::check_counts::CheckCounts;
use crate::upstream::serving::Serving;

const NAME: &str = "health_checks_total";

pub(super) fn render(page: &mut MetricsPage, serving: &Serving) {
    let help = "Health checks of peers by pool and outcome.";
    page.family(NAME, "counter", help);
    for service in serving.services() {
        let (name, counts) = (service.name(), service.pools().checks());
        match (name.is_default(), counts) {
            (true, Some(counts)) => of_service(page, None, counts),
            (true, None) => of_service(page, None, &CheckCounts::default()),
            (false, Some(counts)) => of_service(page, Some(name as &dyn Display), counts),
            // A thousand services would fill the page with zeros.
            (false, None) => {}
        }
    }
}

fn of_service(page: &mut MetricsPage, name: Option<&dyn Display>, counts: &CheckCounts) {
    for pool in PoolName::ALL {
        for outcome in Checked::ALL {
            let own: [(&str, &dyn Display); 2] =
                [("pool", &pool.name()), ("outcome", &outcome.name())];
            let service = name.map(|it| ("service", it));
            let labels: Vec<_> = service.into_iter().chain(own).collect();
            page.value(NAME, &labels, counts.count(pool, *outcome));
        }
    }
}
