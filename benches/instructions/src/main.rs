//! What the steps of a request's way take in instructions: run by `scripts/instructions` under
//! callgrind, and compared with `benches/instructions.tsv`.
//!
//! Prints the name of each step before it is measured; callgrind counts what runs within
//! [`measured_step`], and writes a file each time that this returns, so that the order joins the two.
//! Nothing here may depend on time, on addresses, or on random numbers of each run's own.

#[path = "../../steps/mod.rs"]
mod steps;

use std::hint::black_box;

use steps::{
    DecideStep, Family, LookUpStep, PoolStep, RequestStep, ResponseStep, Size, UnitStep,
    browser_head, on_a_worker,
};

fn main() {
    for (size, name) in [
        (Size::Small, "small"),
        (Size::Typical, "typical"),
        (Size::Large, "large"),
    ] {
        let mut request = RequestStep::new(size);
        measure(&format!("request-parse-{name}"), || request.parse());
        measure(&format!("request-encode-{name}"), || request.encode());
        let mut response = ResponseStep::new(size);
        measure(&format!("response-parse-{name}"), || response.parse());
        measure(&format!("response-encode-{name}"), || response.encode());
    }
    let mut decide = DecideStep::new();
    measure("decide-64", || decide.decide());
    for (head, name) in [
        (
            "GET / HTTP/1.1\r\nHost: shop.example.com\r\n\r\n".to_owned(),
            "small",
        ),
        (browser_head("/"), "browser"),
    ] {
        let mut decide = DecideStep::by_others(head);
        measure(&format!("decide-64-others-{name}"), || decide.decide());
    }
    let mut units = UnitStep::new();
    measure("units-64-first", || units.first_requests());
    measure("units-64-more", || units.more_requests());
    on_a_worker(|| {
        let pool = PoolStep::new();
        measure("pool-out-and-in", || pool.check_out_and_in());
    });
    // To make a million entries a list takes most of the time, so there is one such list.
    for (family, name, counts) in [
        (Family::V4, "v4", &[10, 1000, 1_000_000][..]),
        (Family::V6, "v6", &[10, 1000]),
    ] {
        for &count in counts {
            let list = LookUpStep::new(family, count);
            measure(&format!("look-up-64-{name}-{count}"), || list.look_up());
        }
    }
}

fn measure<T>(name: &str, mut step: impl FnMut() -> T) {
    println!("{name}");
    let mut step = || {
        black_box(step());
    };
    // What is found out once (where a function of a library is, what the processor can do) is found
    // out now.
    step();
    measured_step(&mut step);
}

/// One function for all, whose name callgrind is given: of several that are the same but for their
/// name, the compiler would make one.
#[inline(never)]
fn measured_step(step: &mut dyn FnMut()) -> u8 {
    step();
    // Else the call above could become a jump, and this would have returned before it.
    black_box(1)
}
