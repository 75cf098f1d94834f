//! The label `service`, which samples have where there are others than the default service.

use std::fmt::Display;

use crate::lists::ServiceName;
use crate::upstream::serving::Serving;

/// The label of a service.
#[derive(Clone, Copy)]
pub(super) struct ServiceLabel<'a>(Option<&'a ServiceName>);

impl<'a> ServiceLabel<'a> {
    /// That of `service` among those in force.
    pub(super) fn of(serving: &Serving, service: &'a ServiceName) -> Self {
        Self(serving.has_several().then_some(service))
    }

    /// The labels of a sample: this one, if it is needed, and `others`.
    pub(super) fn labels<'l>(
        &'l self,
        others: &[(&'l str, &'l dyn Display)],
    ) -> Vec<(&'l str, &'l dyn Display)> {
        let own = self.0.as_ref();
        let own = own.map(|it| ("service", it as &dyn Display));
        own.into_iter().chain(others.iter().copied()).collect()
    }
}
