//! What must hold whatever bytes arrive: one function for each parser, which panics when it does
//! not.
//!
//! The targets under `fuzz_targets/` give these functions to libFuzzer. `tests/fuzz_seeds.rs`
//! includes this file and runs them on the seeds and on some thousands of their mutations.

mod bodies;
mod heads;
mod proxy;
mod subjects;
mod texts;

use graygate::http::limits::Limits;

pub use bodies::chunked;
pub use heads::{client_address, request_head, response_head};
pub use proxy::proxy_header;
pub use subjects::subject;
pub use texts::{entry, ini_file, lists_file};

/// Judges bytes.
pub type Property = fn(&[u8]);

/// Every property, by the name of its target and of the folder of its seeds.
pub const ALL: &[(&str, Property)] = &[
    ("request_head", request_head),
    ("response_head", response_head),
    ("chunked", chunked),
    ("proxy_header", proxy_header),
    ("client_address", client_address),
    ("subject", subject),
    ("lists_file", lists_file),
    ("ini_file", ini_file),
    ("entry", entry),
];

/// So small that short messages reach them.
const LIMITS: Limits = Limits {
    line: 256,
    head: 2048,
    fields: 20,
};

/// Limits that nothing reaches that has kept to [`LIMITS`].
const WIDE: Limits = Limits {
    line: 4096,
    head: 64 * 1024,
    fields: 100,
};

/// A generator that depends on the bytes alone, so that what was found is found again.
fn noise(bytes: &[u8]) -> fastrand::Rng {
    // FNV-1a.
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    fastrand::Rng::with_seed(hash)
}

/// How a message may arrive: the lengths of what is there, in rising order. Byte by byte, and in
/// a few pieces.
fn arrivals(bytes: &[u8]) -> [Vec<usize>; 3] {
    let mut noise = noise(bytes);
    let mut few = |count| {
        let mut cuts: Vec<usize> = (0..count).map(|_| noise.usize(..=bytes.len())).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        cuts
    };
    [few(1), few(4), (1..=bytes.len()).collect()]
}
