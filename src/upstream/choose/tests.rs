use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::error::Failure;
use crate::upstream::budget::Budget;
use crate::upstream::health::tests::rules;
use crate::upstream::health::{LONGEST_OUT, Why};
use crate::upstream::roster::{Registry, ResolvedPeer, Roster};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Peers with these weights.
fn roster(weights: &[u16]) -> Roster {
    let address = |number: u32| SocketAddr::from((Ipv4Addr::from(0x0a00_0001 + number), 80));
    let addresses = (0..).map(address);
    roster_of(addresses.zip(weights.iter().copied()))
}

fn roster_of(peers: impl Iterator<Item = (SocketAddr, u16)>) -> Roster {
    let found = peers.map(|(address, weight)| ResolvedPeer {
        address,
        weight,
        name: None,
    });
    let budget = Arc::new(Budget::new(1));
    Registry::new(1).roster(found.collect(), &budget, false, Instant::now())
}

fn usable(roster: &Roster, all_may_be_out: bool) -> Usable {
    Usable::of(roster.peers(), all_may_be_out, Instant::now(), &rules())
}

fn put_out(roster: &Roster, place: usize) {
    let why = Why::Failed(Failure::ReadTimeout);
    for _ in 0..3 {
        roster.peers()[place]
            .health
            .failed(0, why, Instant::now(), &rules(), 0.0);
    }
}

const REQUEST: Request<'_> = Request {
    tried: &[],
    may_be_risked: true,
    client: CLIENT,
    worker: 0,
};

/// How often each peer is chosen, in percent, of 100,000 times.
fn shares(roster: &Roster, usable: &Usable, balance: Balance, request: &Request<'_>) -> Vec<f64> {
    const TIMES: u32 = 100_000;
    let mut random = fastrand::Rng::with_seed(5);
    let mut counts = vec![0.0; roster.peers().len()];
    for number in 0..TIMES {
        let request = Request {
            client: CLIENT,
            ..*request
        };
        let client = IpAddr::from((u128::from(number) << 64 | 7).to_be_bytes());
        let request = match balance {
            Balance::Hash => Request { client, ..request },
            _ => request,
        };
        let below = |limit| random.u32(..limit);
        if let Some(place) = usable.choose(roster.peers(), &request, balance, 3, below) {
            counts[place] += 100.0 / f64::from(TIMES);
        }
    }
    counts
}

const ALL: [Balance; 3] = [Balance::Random, Balance::Least, Balance::Hash];

fn assert_near(shares: &[f64], expected: &[f64]) {
    let near = |(share, expected): (&f64, &f64)| (share - expected).abs() < 1.0;
    assert!(
        shares.iter().zip(expected).all(near),
        "{shares:?} {expected:?}"
    );
}

#[test]
fn every_peer_is_chosen_as_often_as_its_weight_says() {
    for balance in ALL {
        let even = roster(&[1, 1, 1, 1]);
        let found = shares(&even, &usable(&even, false), balance, &REQUEST);
        assert_near(&found, &[25.0; 4]);
        let weighed = roster(&[1, 3, 6]);
        let found = shares(&weighed, &usable(&weighed, false), balance, &REQUEST);
        assert_near(&found, &[10.0, 30.0, 60.0]);
    }
}

#[test]
fn no_sum_of_weights_is_too_great() {
    // As much as 140,000 peers of the greatest weight that a list can give.
    let weights: Vec<u16> = (0..3000)
        .map(|at| if at < 2000 { 60_000 } else { 20_000 })
        .collect();
    let many = roster(&weights);
    let usable = usable(&many, false);
    let found = shares(&many, &usable, Balance::Random, &REQUEST);
    let (great, small) = found.split_at(2000);
    assert_near(
        &[great.iter().sum(), small.iter().sum()],
        &[600.0 / 7.0, 100.0 / 7.0],
    );
    let tried = [many.peers()[0].address];
    let request = Request {
        tried: &tried,
        ..REQUEST
    };
    // The last one takes the place of all before it if the number by chance is below its weight.
    let mut greatest = 0;
    let place = usable.choose(many.peers(), &request, Balance::Random, 3, |limit| {
        assert!(limit > greatest);
        greatest = limit;
        0
    });
    assert_eq!(place, Some(2999));
}

#[test]
fn a_retry_goes_to_another_peer_by_the_same_weights() {
    let peers = roster(&[1, 3, 6]);
    let tried = [peers.peers()[1].address];
    let request = Request {
        tried: &tried,
        ..REQUEST
    };
    for balance in ALL {
        let found = shares(&peers, &usable(&peers, false), balance, &request);
        assert_near(&found, &[100.0 / 7.0, 0.0, 600.0 / 7.0]);
    }
    let tried: Vec<_> = peers.peers().iter().map(|it| it.address).collect();
    let request = Request {
        tried: &tried,
        ..REQUEST
    };
    for balance in ALL {
        assert_near(
            &shares(&peers, &usable(&peers, false), balance, &request),
            &[0.0; 3],
        );
    }
}

#[test]
fn least_prefers_the_peer_with_fewer_requests_under_way_for_its_weight() {
    let peers = roster(&[1, 2]);
    let under_way =
        |place: usize, count| peers.peers()[place].health.counts(0).in_flight.set(count);
    under_way(0, 10);
    under_way(1, 19);
    // The first one is drawn in a third of cases; it stays when it is drawn twice.
    let found = shares(&peers, &usable(&peers, false), Balance::Least, &REQUEST);
    assert_near(&found, &[100.0 / 9.0, 800.0 / 9.0]);
    under_way(1, 22);
    let found = shares(&peers, &usable(&peers, false), Balance::Least, &REQUEST);
    assert_near(&found, &[500.0 / 9.0, 400.0 / 9.0]);
    // With the request neither would have less for its weight than the other one.
    under_way(1, 20);
    let found = shares(&peers, &usable(&peers, false), Balance::Least, &REQUEST);
    assert_near(&found, &[100.0 / 3.0, 200.0 / 3.0]);
}

/// It has a tenth of its weight.
#[test]
fn least_gives_a_peer_that_starts_no_more_than_its_share() {
    let peers = roster(&[1, 1]);
    put_out(&peers, 0);
    let later = Instant::now() + Duration::from_secs(11);
    let health = &peers.peers()[0].health;
    assert!(health.begin_trial(later, true, &rules()).is_some());
    health.is_answering(later);
    let found = Usable::of(peers.peers(), false, later, &rules());
    let under_way =
        |place: usize, count| peers.peers()[place].health.counts(0).in_flight.set(count);
    for (starting, other, expected) in [
        (0, 0, 100.0 / 11.0),
        (0, 5, 100.0 / 11.0),
        // As many as are due to it: then it need not be drawn twice.
        (0, 12, 2100.0 / 121.0),
        (1, 15, 100.0 / 11.0),
        // Too many: it has to be drawn twice.
        (4, 15, 100.0 / 121.0),
    ] {
        under_way(0, starting);
        under_way(1, other);
        let shares = shares(&peers, &found, Balance::Least, &REQUEST);
        assert_near(&shares, &[expected, 100.0 - expected]);
    }
}

#[test]
fn a_peer_that_goes_moves_only_its_own_clients() {
    let ten = roster(&[1; 10]);
    let nine = roster_of(ten.peers().iter().skip(1).map(|it| (it.address, it.weight)));
    let (before, after) = (usable(&ten, false), usable(&nine, false));
    let at = |roster: &Roster, usable: &Usable, client: IpAddr| {
        let request = Request { client, ..REQUEST };
        let place = usable.choose(roster.peers(), &request, Balance::Hash, 3, |_| 0);
        roster.peers()[place.unwrap()].address
    };
    let gone = ten.peers()[0].address;
    let mut moved = 0;
    for number in 0..10_000_u32 {
        let client = IpAddr::from((0x0a00_0000 + number).to_be_bytes());
        let (was, is) = (at(&ten, &before, client), at(&nine, &after, client));
        match was == gone {
            true => moved += 1,
            false => assert_eq!(was, is),
        }
    }
    assert!((900..1100).contains(&moved), "{moved}");
}

/// How little is to be hoped of a peer may change while peers are put in that order, and a sort that sees no
/// order may panic.
#[test]
fn a_choice_goes_well_while_other_workers_see_peers_fail() {
    const PEERS: usize = 300;
    let (peers, rules) = (&roster(&[1; PEERS]), &rules());
    (0..PEERS).for_each(|place| put_out(peers, place));
    let is_over = &AtomicBool::new(false);
    let fail = |seed| {
        let (mut random, mut now) = (fastrand::Rng::with_seed(seed), Instant::now());
        while !is_over.load(Ordering::Relaxed) {
            now += 2 * LONGEST_OUT;
            for peer in peers.peers().iter().filter(|_| random.bool()) {
                let why = Why::Failed(Failure::ReadTimeout);
                peer.health.failed(0, why, now, rules, 0.0);
            }
        }
    };
    let outcome = thread::scope(|scope| {
        scope.spawn(|| fail(1));
        scope.spawn(|| fail(2));
        let choose = || (0..1000).for_each(|_| assert_eq!(usable(peers, false).len(), PEERS / 2));
        let outcome = scope.spawn(choose).join();
        is_over.store(true, Ordering::Relaxed);
        outcome
    });
    outcome.unwrap();
}

#[test]
fn where_nobody_else_answers_only_a_share_of_the_pool_is_out_and_never_the_last() {
    // Peers, how many fail, how many of them are left alone.
    for (count, failing, alone) in [
        (4, 1, 1),
        (4, 2, 2),
        (4, 3, 2),
        (4, 4, 2),
        (3, 2, 1),
        (2, 2, 1),
        (1, 1, 0),
    ] {
        let peers = roster(&vec![1; count]);
        (0..failing).for_each(|place| put_out(&peers, place));
        let found = usable(&peers, false);
        assert_eq!(found.len(), count - alone, "{count} {failing}");
        assert_eq!(
            usable(&peers, true).len(),
            count - failing,
            "with a fallback"
        );
    }
}

#[test]
fn what_would_better_be_out_is_asked_little() {
    let peers = roster(&[1, 1, 1]);
    put_out(&peers, 0);
    put_out(&peers, 1);
    let found = shares(&peers, &usable(&peers, false), Balance::Random, &REQUEST);
    assert_near(
        &[found[0] + found[1], found[2]],
        &[100.0 / 11.0, 1000.0 / 11.0],
    );
}

#[test]
fn a_request_that_must_not_be_repeated_waits_with_few_others_for_who_has_never_answered() {
    let request = Request {
        may_be_risked: false,
        ..REQUEST
    };
    for balance in ALL {
        let peers = roster(&[1, 1]);
        let [one, other] = [0, 1].map(|place: usize| &peers.peers()[place].health);
        other.is_answering(Instant::now());
        one.counts(0).in_flight.set(2);
        other.counts(0).in_flight.set(2);
        assert_near(
            &shares(&peers, &usable(&peers, false), balance, &request),
            &[50.0, 50.0],
        );
        // One that has failed makes no room for another.
        one.counts(0).in_flight.set(2);
        one.failed(
            0,
            Why::Failed(Failure::ReadTimeout),
            Instant::now(),
            &rules(),
            0.0,
        );
        assert_near(
            &shares(&peers, &usable(&peers, false), balance, &request),
            &[0.0, 100.0],
        );
        one.counts(0).in_flight.set(3);
        other.counts(0).in_flight.set(3);
        assert_near(
            &shares(&peers, &usable(&peers, false), balance, &request),
            &[0.0, 100.0],
        );
        assert_near(
            &shares(&peers, &usable(&peers, false), balance, &REQUEST),
            &[50.0, 50.0],
        );
    }
}

#[test]
fn the_last_resort_is_the_peer_that_went_out_least_often() {
    let peers = roster(&[1, 1, 1]);
    let now = Instant::now();
    for (place, times) in [(0, 2), (1, 1), (2, 2)] {
        for _ in 0..times {
            put_out(&peers, place);
            peers.peers()[place].health.begin_trial(
                now + Duration::from_secs(3600),
                true,
                &rules(),
            );
        }
        put_out(&peers, place);
    }
    let resort = |tried: &[SocketAddr]| last_resort(peers.peers(), tried, now, &rules());
    assert_eq!(resort(&[]), Some(1));
    let addresses: Vec<_> = peers.peers().iter().map(|it| it.address).collect();
    assert_eq!(resort(&addresses), None);
}

#[test]
fn a_share_that_grows_is_worked_out_anew() {
    let peers = roster(&[1, 1]);
    put_out(&peers, 0);
    let later = Instant::now() + Duration::from_secs(11);
    let found = usable(&peers, false);
    assert!(
        !found.is_over(later)
            && found.has_trial(later, true)
            && !found.has_trial(Instant::now(), true)
    );
    let health = &peers.peers()[0].health;
    assert!(health.begin_trial(later, true, &rules()).is_some());
    health.is_answering(later);
    let found = Usable::of(peers.peers(), false, later, &rules());
    assert!(!found.is_over(later) && found.is_over(later + STEP));
    let now = shares(&peers, &found, Balance::Random, &REQUEST);
    assert_near(&now, &[100.0 / 11.0, 1000.0 / 11.0]);
}
