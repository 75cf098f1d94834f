//! Shares of clients and of values: to which of 10,000 parts something belongs.
//!
//! The part, here a *bucket*, is `xxh64(key, seed) % 10000`, where `seed` is `xxh64(salt, 0)`: XXH64 as
//! everybody has it, so that whoever knows the salt can compute it elsewhere. `percent:N` has the buckets
//! below N × 100. So a share is the same on all gateways and after restarts, and who is in one stays in it
//! when it grows. Another salt deals anew.
//!
//! The key is the four bytes of an IPv4 address, the first eight of an IPv6 address, or the bytes of a
//! value, which are not empty.
//!
//! In Python: `xxhash.xxh64_intdigest(key, seed=xxhash.xxh64_intdigest(salt)) % 10000`.

use std::fmt;
use std::net::IpAddr;

use xxhash_rust::xxh64::xxh64;

/// So many buckets there are: a hundredth of a percent each.
pub(crate) const BUCKETS: u16 = 10_000;

/// What the shares of a service are dealt with: any bytes, chosen for a release, so that it is not always
/// the same people who get the new version first.
#[derive(Clone, PartialEq, Eq)]
pub struct Salt {
    text: Box<[u8]>,
    /// Its hash.
    seed: u64,
}

impl Salt {
    /// The salt of these bytes.
    pub fn new(text: &[u8]) -> Self {
        Self {
            text: text.into(),
            seed: xxh64(text, 0),
        }
    }

    /// The bytes.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// True if there are none, as long as nobody has chosen any.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The bucket of `key`.
    pub(crate) fn bucket(&self, key: &[u8]) -> u16 {
        (xxh64(key, self.seed) % u64::from(BUCKETS)) as u16
    }

    /// The bucket of a client, which must not be an IPv4-mapped IPv6 address.
    pub(crate) fn bucket_of_client(&self, client: IpAddr) -> u16 {
        of_address(client, |key| self.bucket(key))
    }
}

/// Makes something `of` the key of a client that is known by its address, which must not be an IPv4-mapped
/// IPv6 address.
#[inline]
pub(crate) fn of_address<T>(client: IpAddr, of: impl FnOnce(&[u8]) -> T) -> T {
    match client {
        IpAddr::V4(client) => of(&client.octets()),
        // The rest is the host's choice, and another one tomorrow (RFC 8981).
        IpAddr::V6(client) => of(&client.octets()[..8]),
    }
}

/// The empty one.
impl Default for Salt {
    fn default() -> Self {
        Self::new(b"")
    }
}

/// Not what it is: it is nobody's business in a log.
impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Salt({} bytes)", self.text.len())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const KEYS: u32 = 100_000;

    fn salts() -> [Salt; 4] {
        [&b""[..], b"1", b"2026-12 checkout", b"\xff\x00"].map(Salt::new)
    }

    /// The buckets of 100,000 clients or values each, of the kinds that there are.
    fn kinds(salt: &Salt) -> [(&'static str, Vec<u16>); 4] {
        let mut random = fastrand::Rng::with_seed(7);
        let base = u32::from(Ipv4Addr::new(10, 0, 0, 0));
        let v4 = (0..KEYS).map(|it| IpAddr::from(Ipv4Addr::from(base + it)));
        let base = u128::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
        let v6 = (0..KEYS).map(|it| Ipv6Addr::from(base + (u128::from(it) << 64)).into());
        let numbers = (0..KEYS).map(|it| it.to_string());
        let visitors = (0..KEYS).map(|_| format!("{:016x}", random.u64(..)));
        [
            ("IPv4", v4.map(|it| salt.bucket_of_client(it)).collect()),
            (
                "IPv6",
                v6.map(|it: IpAddr| salt.bucket_of_client(it)).collect(),
            ),
            (
                "numbers",
                numbers.map(|it| salt.bucket(it.as_bytes())).collect(),
            ),
            (
                "visitors",
                visitors.map(|it| salt.bucket(it.as_bytes())).collect(),
            ),
        ]
    }

    fn within(buckets: &[u16], limit: u16) -> usize {
        buckets.iter().filter(|it| **it < limit).count()
    }

    #[test]
    fn a_bucket_is_what_others_compute() {
        // By an implementation of XXH64 in Python, written for this table.
        let net = [0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 2];
        let long = b"0123456789abcdef0123456789abcdef0123";
        let table: [(&[u8], u16, u16); 7] = [
            (b"alice", 6726, 1076),
            (b"1", 3560, 9544),
            (&[10, 0, 0, 1], 6006, 7486),
            (&[203, 0, 113, 7], 696, 891),
            (&net, 663, 1000),
            ("Zoë".as_bytes(), 9721, 3444),
            (long, 8118, 1510),
        ];
        let (unsalted, salted) = (Salt::default(), Salt::new(b"2026-12 checkout"));
        for (key, without, with) in table {
            let shown = key.escape_ascii();
            assert_eq!(unsalted.bucket(key), without, "{shown}");
            assert_eq!(salted.bucket(key), with, "{shown}");
        }
        let client = |text: &str| unsalted.bucket_of_client(text.parse().unwrap());
        assert_eq!(client("10.0.0.1"), 6006);
        // Whatever the host chooses.
        assert_eq!(client("2001:db8:1:2::5"), 663);
        assert_eq!(client("2001:db8:1:2:ffff::"), 663);
        assert_ne!(client("2001:db8:1:3::5"), 663);
    }

    #[test]
    fn a_share_of_n_percent_has_n_percent_within_four_standard_deviations() {
        for salt in salts() {
            for (kind, buckets) in kinds(&salt) {
                for hundredths in [1, 100, 500, 5_000, 9_999] {
                    let (all, part) = (f64::from(KEYS), f64::from(hundredths) / 10_000.0);
                    let deviation = (all * part * (1.0 - part)).sqrt();
                    let off = (within(&buckets, hundredths) as f64 - all * part).abs();
                    let shown = format!("{kind} {salt:?} {hundredths}: {}", off / deviation);
                    assert!(off <= 4.0 * deviation, "{shown}");
                }
                assert_eq!(within(&buckets, 0), 0);
                assert_eq!(within(&buckets, BUCKETS), KEYS as usize);
            }
        }
    }

    #[test]
    fn another_salt_chooses_others() {
        let [one, other, ..] = salts();
        for ((kind, one), (_, other)) in kinds(&one).into_iter().zip(kinds(&other)) {
            // Of the half that the one has, the other has half.
            let both = one.iter().zip(&other);
            let both = both.filter(|(one, other)| **one < 5_000 && **other < 5_000);
            let (count, all) = (both.count() as f64, f64::from(KEYS));
            let deviation = (all * 0.25 * 0.75).sqrt();
            assert!(
                (count - all / 4.0).abs() <= 4.0 * deviation,
                "{kind} {count}"
            );
        }
    }
}
