//! Where the trips of this gateway are kept: in which store, and beside which copy.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{Config, ServiceSettings, Store, VerdictMode};
use crate::lists::ServiceName;
use crate::release::webhook::node_of;
use crate::store::StoreName;

/// Where trips are kept.
#[derive(Clone)]
pub(super) struct TripsPlace {
    pub(super) store: Store,
    /// Tells the store from others.
    pub(super) name: String,
    /// The name of this gateway.
    pub(super) node: String,
    /// What the file is named after, if there is to be one.
    pub(super) last_good: Option<PathBuf>,
    /// All services.
    pub(super) services: Arc<[Arc<ServiceSettings>]>,
    /// Those of which this gateway takes versions back. Where it only observes, others are the ones to
    /// write.
    pub(super) enforcing: BTreeSet<ServiceName>,
    /// Another process of this gateway writes, as yet.
    pub(super) rests: bool,
}

impl TripsPlace {
    pub(super) fn of(config: &Config, rests: bool) -> Self {
        let services = config.services.iter();
        let enforcing = services.filter(|it| {
            let verdict = &it.verdict;
            [verdict.mode, verdict.slow].contains(&VerdictMode::Enforce)
        });
        Self {
            enforcing: enforcing.map(|it| it.name.clone()).collect(),
            services: config.services.iter().cloned().collect(),
            store: config.store.clone(),
            name: StoreName::of(&config.store).to_string(),
            node: node_of(config),
            last_good: config.lists.last_good.clone(),
            rests,
        }
    }
}
