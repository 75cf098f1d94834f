//! Which requests are units: of each client the first one within a second. See [`crate::upstream::units`].
//!
//! One table for all services of a worker, of a fixed size: where two clients, or a client's requests for two
//! services, share a place, one of them loses a unit. That is up to their hashes and to nothing that they do.

use std::cell::Cell;
use std::net::IpAddr;
use std::time::Instant;

use xxhash_rust::xxh64::xxh64;

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

    /// Whether a request that has come at `at` is the first one of its client, by some number of it, for the
    /// service within a second.
    #[inline]
    pub fn is_first(&self, client: u64, service: u64, at: Instant) -> bool {
        let second = at.saturating_duration_since(self.begun).as_secs() + 1;
        // A hundred years have fewer.
        let second = second as u32;
        let mixed = (client ^ service.wrapping_mul(SPREAD)).wrapping_mul(SPREAD);
        // The high bits depend on all of them.
        let place = mixed >> (u64::BITS - PLACES.ilog2());
        self.seconds[place as usize % PLACES].replace(second) != second
    }
}

/// A number of a client, by its name if it has one, or else its address, as far as that is its key.
#[inline]
pub(super) fn place_key(name: Option<&[u8]>, address: IpAddr) -> u64 {
    match (name, address) {
        (Some(name), _) => xxh64(name, 0),
        (None, IpAddr::V4(address)) => address.to_bits().into(),
        (None, IpAddr::V6(address)) => (address.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
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
        let first = u64::from(Ipv4Addr::new(10, 0, 0, 1).to_bits());
        let kinds: [Vec<u64>; 3] = [
            (0..1000).map(|_| random.u64(..)).collect(),
            (0..1000).map(|it| first + it).collect(),
            (0..1000).map(|it| first + (it << 16)).collect(),
        ];
        for (second, clients) in (0..).zip(kinds.iter().cycle().take(9)) {
            let at = begun + Duration::from_secs(second);
            for service in 1..=2 {
                let units = clients
                    .iter()
                    .filter(|it| table.is_first(**it, service, at));
                let count = units.count();
                assert!(count > 850, "{count}");
            }
        }
    }

    #[test]
    fn a_client_is_known_by_its_name_or_by_what_of_its_address_is_its_own() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let of =
            |name: Option<&str>, client: &str| place_key(name.map(str::as_bytes), address(client));
        assert_eq!(of(Some("a"), "10.0.0.1"), of(Some("a"), "10.0.0.2"));
        assert_ne!(of(Some("a"), "10.0.0.1"), of(Some("b"), "10.0.0.1"));
        assert_ne!(of(None, "10.0.0.1"), of(None, "10.0.0.2"));
        assert_eq!(of(None, "2001:db8::1"), of(None, "2001:db8::2"));
        assert_ne!(of(None, "2001:db8::1"), of(None, "2001:db8:0:1::1"));
    }
}
