//! What the steps of a request's way take: `cargo bench --bench paths`.
//!
//! Heads of three sizes parsed and written anew, the service of a request, the decision, and an idle connection taken from the
//! pool and given back. Lookups in lists of up to a million entries, and the decision behind them, have
//! `lists.rs`; the instructions of all of them, which no other load on the machine changes, are kept
//! an eye on by `scripts/instructions`.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not benchmarks.

mod steps;

use divan::Bencher;
use graygate::config::Config;
use graygate::route::ServiceTable;

use steps::{DecideStep, PoolStep, RequestStep, ResponseStep, Size, UnitStep, on_a_worker};

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
    let mut step = DecideStep::new();
    bencher.bench_local(|| step.decide());
}

/// For 64 clients.
#[divan::bench]
fn units_first(bencher: Bencher<'_, '_>) {
    let mut step = UnitStep::new();
    bencher.bench_local(|| step.first_requests());
}

/// Likewise.
#[divan::bench]
fn units_more(bencher: Bencher<'_, '_>) {
    let step = UnitStep::new();
    bencher.bench_local(|| step.more_requests());
}

#[divan::bench]
fn pool_out_and_in(bencher: Bencher<'_, '_>) {
    let step = PoolStep::new();
    bencher.bench_local(|| step.check_out_and_in());
}

/// The text of an ini file with so many services besides the default one, each with two hosts and two paths.
fn ini_of(services: usize) -> String {
    use std::fmt::Write as _;
    let mut text = "[redis]\nurl = redis://h\n".to_owned();
    for at in 0..services {
        writeln!(
            text,
            "[service s{at}]\nhosts = s{at}.example.com, *.s{at}.example.com\npaths = /api, /v{at}"
        )
        .unwrap();
    }
    text
}

fn config_of(text: &str) -> Config {
    Config::parse(std::path::Path::new("graygate.ini"), text, None).unwrap()
}

/// The ini file read, whose services are 0 with the default one only.
#[divan::bench(args = [0, 1, 10, 1000])]
fn services_read(bencher: Bencher<'_, '_>, services: usize) {
    let text = ini_of(services);
    bencher.bench_local(|| config_of(&text));
}

/// The service of a request for one of the hosts, and of one by a suffix of it.
#[divan::bench(args = [0, 1, 10, 1000])]
fn service_by_host(bencher: Bencher<'_, '_>, services: usize) {
    let table = ServiceTable::new(&config_of(&ini_of(services)).services);
    let host = format!("S{}.example.com", services / 2);
    bencher.bench_local(|| table.find(divan::black_box(host.as_bytes()), b"/api/users/17"));
}

#[divan::bench(args = [1, 10, 1000])]
fn service_by_suffix(bencher: Bencher<'_, '_>, services: usize) {
    let table = ServiceTable::new(&config_of(&ini_of(services)).services);
    let host = format!("eu.west.s{}.example.com", services / 2);
    bencher.bench_local(|| table.find(divan::black_box(host.as_bytes()), b"/api/users/17"));
}

/// The service of a request among so many paths of one host.
#[divan::bench(args = [1, 10, 1000])]
fn service_by_path(bencher: Bencher<'_, '_>, services: usize) {
    let mut text = ini_of(0);
    for at in 0..services {
        text += &format!("[service s{at}]\nhosts = example.com\npaths = /api/v{at}\n");
    }
    let table = ServiceTable::new(&config_of(&text).services);
    let path = format!("/api/v{}/users/17", services / 2);
    bencher.bench_local(|| table.find(b"example.com", divan::black_box(path.as_bytes())));
}
