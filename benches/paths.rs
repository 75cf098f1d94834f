//! What the steps of a request's way take: `cargo bench --bench paths`.
//!
//! Heads of three sizes parsed and written anew, the decision, and an idle connection taken from the
//! pool and given back. Lookups in lists of up to a million entries, and the decision behind them, have
//! `lists.rs`; the instructions of all of them, which no other load on the machine changes, are kept
//! an eye on by `scripts/instructions`.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not benchmarks.

mod steps;

use divan::Bencher;

use steps::{DecideStep, PoolStep, RequestStep, ResponseStep, Size, on_a_worker};

const SIZES: [Size; 3] = [Size::Small, Size::Typical, Size::Large];

fn main() {
    // Where requests are served, and where alone a pool can be had.
    on_a_worker(divan::main);
}

#[divan::bench(args = SIZES)]
fn request_parse(bencher: Bencher<'_, '_>, size: Size) {
    let mut step = RequestStep::new(size);
    bencher.bench_local(|| step.parse());
}

#[divan::bench(args = SIZES)]
fn request_encode(bencher: Bencher<'_, '_>, size: Size) {
    let mut step = RequestStep::new(size);
    bencher.bench_local(|| step.encode());
}

#[divan::bench(args = SIZES)]
fn response_parse(bencher: Bencher<'_, '_>, size: Size) {
    let mut step = ResponseStep::new(size);
    bencher.bench_local(|| step.parse());
}

#[divan::bench(args = SIZES)]
fn response_encode(bencher: Bencher<'_, '_>, size: Size) {
    let mut step = ResponseStep::new(size);
    bencher.bench_local(|| step.encode());
}

/// For 64 clients.
#[divan::bench]
fn decide(bencher: Bencher<'_, '_>) {
    let step = DecideStep::new();
    bencher.bench_local(|| step.decide());
}

#[divan::bench]
fn pool_out_and_in(bencher: Bencher<'_, '_>) {
    let step = PoolStep::new();
    bencher.bench_local(|| step.check_out_and_in());
}
