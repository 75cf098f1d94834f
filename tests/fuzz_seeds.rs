//! The properties of the fuzz targets under `fuzz/`, without a fuzzer: on their seeds and on some
//! thousands of mutations of them.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

// Made for a crate of its own, of which they are the public part.
#[allow(unreachable_pub)]
#[path = "../fuzz/src/lib.rs"]
mod properties;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use fastrand::Rng;

/// Mutations of each property's seeds.
const MUTATIONS: usize = 3000;

/// Bytes and words that mean something to one of the properties.
const TELLING: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"=",
    b"\"",
    b"#",
    b"[",
    b"]",
    b"/",
    b"0",
    b"\x7f",
    b"\xff",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 3\r\n",
    b"Connection: close, Host\r\n",
    b"Cookie: a=1; b=2\r\n",
    b"; a=",
    b"?a=1&",
    b"%41",
    b"10.0.0.1",
    b"::ffff:1.2.3.4",
    b"[gray]\n",
    b"/33",
    b"1.2.3.4:70000\n",
    b"header:",
    b"percent:5:",
    b" until=2026-12-01T18:00Z",
    b"\\*",
    b">=",
];

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let mut paths: Vec<_> = std::fs::read_dir(folder.join(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    // The system's order is any; that of the mutations is not.
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], noise: &mut Rng) {
    let at = noise.usize(..=bytes.len());
    let end = bytes.len().min(at + noise.usize(1..40));
    match noise.u8(..6) {
        0 if at < bytes.len() => bytes[at] = noise.u8(..),
        0 | 1 => {
            let telling = TELLING[noise.usize(..TELLING.len())];
            bytes.splice(at..at, telling.iter().copied());
        }
        2 => drop(bytes.drain(at..bytes.len().min(at + noise.usize(1..8)))),
        3 => {
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
        4 => bytes.truncate(at),
        _ => {
            let from = noise.usize(..=other.len());
            bytes.splice(at.., other[from..].iter().copied());
        }
    }
}

/// Runs one property, and says on what bytes it fails.
#[track_caller]
fn run(target: &str, property: properties::Property, bytes: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| property(bytes))) {
        eprintln!("{target} fails on: {}", bytes.escape_ascii());
        resume_unwind(panic);
    }
}

#[test]
fn the_properties_hold_for_every_seed() {
    for (target, property) in properties::ALL {
        let seeds = seeds(target);
        assert!(!seeds.is_empty(), "{target}");
        for seed in &seeds {
            run(target, *property, seed);
        }
        run(target, *property, b"");
    }
}

#[test]
fn the_properties_hold_for_mutated_seeds() {
    // The same ones in every run: what runs for hours is the fuzzer's.
    let mut noise = Rng::with_seed(1);
    for (target, property) in properties::ALL {
        let seeds = seeds(target);
        for _ in 0..MUTATIONS {
            let mut bytes = seeds[noise.usize(..seeds.len())].clone();
            let other = &seeds[noise.usize(..seeds.len())];
            for _ in 0..noise.usize(1..5) {
                mutate(&mut bytes, other, &mut noise);
            }
            run(target, *property, &bytes);
        }
    }
}

#[test]
fn every_property_has_a_target_and_every_target_a_property() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut targets: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    targets.sort();
    let mut properties: Vec<String> = properties::ALL
        .iter()
        .map(|(name, _)| format!("{name}.rs"))
        .collect();
    properties.sort();
    assert_eq!(targets, properties);
}
