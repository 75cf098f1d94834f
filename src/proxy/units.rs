//! Which requests are units: of each client the first one within a second. See [`crate::upstream::units`].
//!
//! One table for all services of a worker, of a fixed size: where two clients, or a client's requests for two
//! services, share a place, one of them loses a unit. That is up to their hashes and to nothing that they do.

use std::cell::Cell;
use std::time::Instant;

/// So many places there are.
const PLACES: usize = 1 << 14;

/// An odd number whose bits look like chance.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// One worker's.
pub struct UnitTable {
    begun: Instant,
    /// Of each place the second of its last unit; 0 is none.
    seconds: Box<[Cell<u32>]>,
}

impl UnitTable {
    /// No unit yet; it begins at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            begun: now,
            seconds: vec![Cell::new(0); PLACES].into_boxed_slice(),
        }
    }

    /// Whether a request that has come at `at` is the first one of its client, by its hash, for the service
    /// within a second.
    #[inline]
    pub fn is_first(&self, client: u64, service: u64, at: Instant) -> bool {
        let second = at.saturating_duration_since(self.begun).as_secs() + 1;
        // A hundred years have fewer.
        let second = second as u32;
        let mixed = client ^ service.wrapping_mul(SPREAD);
        self.seconds[mixed as usize % PLACES].replace(second) != second
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_first_request_of_a_client_within_a_second_is_a_unit() {
        let begun = Instant::now();
        let table = UnitTable::new(begun);
        let at = |millis| begun + Duration::from_millis(millis);
        let asked = |client, service, millis| table.is_first(client, service, at(millis));
        assert!(asked(1, 1, 0));
        assert!(!asked(1, 1, 999));
        assert!(asked(2, 1, 999), "another client");
        assert!(asked(1, 2, 999), "another service");
        assert!(asked(1, 1, 1000), "another second");
        assert!(!asked(1, 1, 1999));
    }

    #[test]
    fn of_a_thousand_clients_nearly_all_have_a_unit_each_second() {
        let begun = Instant::now();
        let table = UnitTable::new(begun);
        let mut random = fastrand::Rng::with_seed(7);
        let clients: Vec<u64> = (0..1000).map(|_| random.u64(..)).collect();
        for second in 0..10 {
            let at = begun + Duration::from_secs(second);
            let units = clients.iter().filter(|it| table.is_first(**it, 1, at));
            assert!(units.count() > 940);
        }
    }
}
