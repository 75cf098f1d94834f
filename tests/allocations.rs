//! In the steady state a request allocates nothing: shown by an allocator that counts. The access log,
//! which has memory of its own, is off here; see `allocations_logged.rs`.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod counting;
mod support;

use std::sync::LazyLock;
use std::time::Instant;

use graygate::config::LogTarget;
use graygate::net::{Moment, Stream, Watch};
use graygate::upstream::pool::{Asker, Leftover, Need, Pool, PoolLimits, Spent};

use counting::Served;
use support::{DEADLINE, Origin, Traffic};

static SERVED: LazyLock<Served> = LazyLock::new(|| Served::start(&LogTarget::Off));

#[test]
fn a_request_with_a_small_answer_allocates_nothing() {
    SERVED.check(&Traffic::kinds()[0]);
}

#[test]
fn a_request_with_an_answer_in_chunks_allocates_nothing() {
    SERVED.check(&Traffic::kinds()[1]);
}

#[test]
fn a_request_with_a_body_allocates_nothing() {
    SERVED.check(&Traffic::kinds()[2]);
}

#[test]
fn a_request_and_an_answer_of_thirty_fields_allocate_nothing() {
    SERVED.check(&Traffic::kinds()[3]);
}

#[test]
fn a_request_that_an_entry_of_the_gray_list_selects_allocates_nothing() {
    SERVED.check(&Traffic::selected());
}

#[test]
fn a_request_that_counts_for_a_release_allocates_nothing_whatever_comes_of_it() {
    SERVED.check_units(&Traffic::kinds()[0]);
    SERVED.check_units(&Traffic::failing());
}

#[test]
fn the_only_connection_to_a_peer_comes_back_without_allocations_after_the_pool_was_looked_through()
{
    let origin = Origin::named("a");
    let peer = origin.address();
    let limits = PoolLimits {
        most: 1,
        total: 1,
        age: DEADLINE,
    };
    let keep = move |pool: &Pool, stream, in_use| {
        let spent = Spent {
            stream,
            leftover: Leftover::None,
            asker: Asker::Anybody,
            in_use,
            answered: Moment::now(),
            announced: None,
        };
        pool.checkin(spent, &limits);
    };
    let prepare = move || {
        let (pool, deadline) = (Pool::default(), Instant::now() + DEADLINE);
        let stream = Stream::connect(peer, deadline, Watch::Nothing).unwrap();
        keep(&pool, stream, pool.begin(peer, &limits));
        pool
    };
    let (allocations, places) = SERVED.allocations_of(prepare, move |pool| {
        let need = Need::Once(Moment::now());
        let found = pool.checkout(peer, Asker::Anybody, need).unwrap();
        pool.evict(Moment::now(), &limits);
        keep(pool, found.stream, found.in_use);
    });
    assert_eq!(allocations, 0, "at\n{places}");
}

#[test]
fn what_a_worker_allocates_is_counted_and_its_place_is_named() {
    let allocate = |(): &mut ()| drop(std::hint::black_box(Box::new(1_u64)));
    let (allocations, places) = SERVED.allocations_of(|| (), allocate);
    assert_eq!(allocations, 1);
    assert!(places.contains("allocations::"), "{places}");
}
