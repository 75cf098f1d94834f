//! What is counted of a request for the verdict on a release, from the choice to the end.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use graygate::lists::PoolName;
use graygate::proxy::units::UnitTable;
use graygate::upstream::units::Units;

/// Requests of 64 clients, every second one of which is served by `pre`.
pub(crate) struct UnitStep {
    units: Units,
    table: UnitTable,
    begun: Instant,
    /// Seconds that are over.
    seconds: u64,
}

impl UnitStep {
    const CLIENTS: u32 = 64;

    /// All have asked before.
    pub(crate) fn new() -> Self {
        let (units, begun) = (Units::new(2, 0), Instant::now());
        units.begin(7);
        units.set_slow_bound(Some(Duration::from_millis(50)));
        let table = UnitTable::new(begun);
        let mut step = Self {
            units,
            table,
            begun,
            seconds: 0,
        };
        step.first_requests();
        step
    }

    /// The first request of each client within a second: a unit.
    pub(crate) fn first_requests(&mut self) -> u32 {
        self.seconds += 1;
        self.requests()
    }

    /// One more of each in the same second, as most requests are.
    pub(crate) fn more_requests(&self) -> u32 {
        self.requests()
    }

    fn requests(&self) -> u32 {
        let at = self.begun + Duration::from_secs(self.seconds);
        let mut counted = 0;
        for client in 0..Self::CLIENTS {
            let pool = [PoolName::Pre, PoolName::Prod][client as usize % 2];
            let address = black_box(Ipv4Addr::from_bits(0x0a00_0000 + client));
            if !self.table.is_first(address.to_bits().into(), 1, at) {
                continue;
            }
            let Some(mut unit) = self.units.unit(&address.octets(), pool) else {
                continue;
            };
            unit.is_answered(pool, false, Some(black_box(Duration::from_millis(3))));
            unit.attempt_has_ended(pool, false);
            self.units.count(0, &unit);
            counted += 1;
        }
        counted
    }
}
