use super::*;
use crate::config::ServiceSettings;

fn settings() -> VerdictSettings {
    ServiceSettings::default().verdict
}

fn counted(units: u64, bad: u64) -> Counted {
    Counted { units, bad }
}

/// A second of so many units and bad ones, of `pre` and of `prod`, with so many clients.
fn second(pre: (u64, u64), prod: (u64, u64), clients: &[u64]) -> Second {
    Second {
        failing: Block {
            pre: counted(pre.0, pre.1),
            prod: counted(prod.0, prod.1),
        },
        slow: Block::default(),
        left_out: Block::default(),
        pre_clients: 5,
        bad_clients: clients.to_vec(),
    }
}

struct Bench {
    case: Case,
    habits: Habits,
    settings: VerdictSettings,
    now: Duration,
}

impl Bench {
    fn new() -> Self {
        let mut habits = Habits::default();
        let settings = settings();
        let begun = SystemTime::UNIX_EPOCH;
        let case = Case::new("a/".to_owned(), begun, &settings, false, &mut habits);
        Self {
            case,
            habits,
            settings,
            now: Duration::ZERO,
        }
    }

    /// A second, and what has turned.
    fn take(&mut self, second: Second, others: &[NodeVerdict]) -> Vec<&'static str> {
        self.now += Duration::from_secs(1);
        self.case
            .take(second, &self.settings, false, &mut self.habits);
        let turns = self
            .case
            .judge(others, &self.settings, &self.habits, self.now);
        turns.iter().map(|it| it.judged.verdict.name()).collect()
    }

    fn state(&self) -> &'static str {
        self.case.judged(Concern::Failing).unwrap().verdict.name()
    }

    fn ln_worse(&self) -> f64 {
        self.case.judged(Concern::Failing).unwrap().ln_worse
    }
}

#[test]
fn what_was_found_worse_once_stays_so_and_is_told_once() {
    let mut it = Bench::new();
    let mut told = Vec::new();
    for _ in 0..5 {
        told.extend(it.take(second((10, 5), (90, 0), &[1, 2, 3, 4, 5]), &[]));
    }
    assert_eq!(told.last(), Some(&"worse"), "{told:?}");
    // Far more good ones than it takes to have the evidence vanish.
    for _ in 0..300 {
        assert!(it.take(second((50, 0), (50, 9), &[]), &[]).is_empty());
    }
    assert!(it.ln_worse() < 3.0);
    assert_eq!(it.state(), "worse");
}

#[test]
fn a_version_is_taken_back_where_that_is_enforced_and_not_while_both_fail() {
    let mut it = Bench::new();
    let warm_up = || second((50, 0), (450, 0), &[]);
    (0..3).for_each(|_| drop(it.take(warm_up(), &[])));
    let taken_back = |it: &Bench, mode, slow| {
        let settings = VerdictSettings {
            mode,
            slow,
            ..it.settings.clone()
        };
        it.case.takes_back(&settings).map(|it| it.0)
    };
    let (off, observe, enforce) = (VerdictMode::Off, VerdictMode::Observe, VerdictMode::Enforce);
    assert_eq!(taken_back(&it, enforce, enforce), None);
    it.take(second((10, 5), (90, 0), &[1, 2, 3, 4, 5]), &[]);
    assert_eq!(it.state(), "worse");
    assert_eq!(taken_back(&it, enforce, observe), Some(Ground::Failing));
    assert_eq!(taken_back(&it, observe, enforce), None);
    assert_eq!(taken_back(&it, off, enforce), None);
    // Then prod fails as well.
    for _ in 0..3 {
        it.take(second((50, 25), (450, 225), &[1, 2, 3, 4, 5]), &[]);
    }
    assert_eq!(it.state(), "worse");
    assert_eq!(taken_back(&it, enforce, enforce), None);
}

#[test]
fn what_comes_and_goes_is_told_once_a_minute() {
    let mut it = Bench::new();
    let judged = |verdict, it: &Bench| Judged {
        verdict,
        ..*it.case.judged(Concern::Failing).unwrap()
    };
    it.take(second((1, 0), (1, 0), &[]), &[]);
    let (calm, suspect) = (judged(Verdict::Nothing, &it), judged(Verdict::Suspect, &it));
    let mut find = |judged, at| {
        let told = it.case.failing.find(judged, Duration::from_secs(at));
        told.is_some()
    };
    assert!(find(suspect, 100));
    assert!(!find(suspect, 101));
    assert!(!find(calm, 102));
    assert!(!find(suspect, 103));
    assert!(!find(calm, 159));
    assert!(find(suspect, 160));
}

#[test]
fn the_margin_of_a_block_is_the_larger_one_of_before_and_after() {
    let mut it = Bench::new();
    // Nobody knows yet that there are many clients.
    assert_eq!(it.case.margin(), 2.0);
    it.take(second((8, 0), (8, 0), &[]), &[]);
    assert_eq!(it.case.margin(), 1.0);
    let (settings, mut habits) = (settings(), Habits::default());
    let mut listed = it.case.clone();
    let block = second((10, 2), (10, 1), &[1, 2]);
    listed.take(block.clone(), &settings, true, &mut habits);
    let mut dealt = it.case.clone();
    dealt.take(block, &settings, false, &mut habits);
    let sum = |it: &Case| it.evidence(Concern::Failing).sums()[7];
    assert_ne!(sum(&listed), sum(&dealt));
    assert_eq!((listed.margin(), dealt.margin()), (2.0, 1.0));
}

#[test]
fn ten_gateways_with_a_tenth_of_the_traffic_see_what_one_would_have_seen() {
    let mut all = Bench::new();
    let clients: Vec<u64> = (1..=10).collect();
    let warm_up = || second((0, 0), (0, 0), &[]);
    all.take(warm_up(), &[]);
    let others: Vec<NodeVerdict> = clients
        .iter()
        .map(|client| {
            let mut it = Bench::new();
            it.take(warm_up(), &[]);
            it.take(second((10, 1), (90, 0), &[*client]), &[]);
            it.case.told()
        })
        .collect();
    // Each of them alone finds nothing, and neither does one who hears of another release.
    let mut alone = Bench::new();
    alone.take(warm_up(), &[]);
    alone.take(second((10, 1), (90, 0), &[1]), &[]);
    assert_eq!((alone.state(), alone.case.gateways()), ("nothing", 1));
    let elsewhere: Vec<NodeVerdict> = others
        .iter()
        .map(|it| NodeVerdict {
            release: "b/".to_owned(),
            ..it.clone()
        })
        .collect();
    alone.take(warm_up(), &elsewhere);
    assert_eq!((alone.state(), alone.case.gateways()), ("nothing", 1));
    // Together it is ten times as much.
    let own = alone.ln_worse();
    alone.take(second((0, 0), (0, 0), &[1]), &others[1..]);
    assert_eq!((alone.state(), alone.case.gateways()), ("worse", 10));
    let judged = alone.case.judged(Concern::Failing).unwrap();
    assert_eq!(judged.bad_clients, Some(10));
    assert_eq!(
        (judged.pre, judged.prod),
        (counted(100, 10), counted(900, 0))
    );
    assert!(alone.ln_worse() > 9.0 * own, "{own} {}", alone.ln_worse());
    // One client at all of them is one client.
    let same: Vec<NodeVerdict> = others
        .iter()
        .map(|it| NodeVerdict {
            bad_clients: vec![1],
            ..it.clone()
        })
        .collect();
    let mut one = Bench::new();
    one.take(warm_up(), &[]);
    one.take(second((10, 1), (90, 0), &[1]), &same[1..]);
    assert_eq!(one.state(), "nothing");
    assert!(one.ln_worse() <= own + 1e-9);
}

#[test]
fn after_an_hour_every_client_counts_again_and_what_was_counted_stays() {
    let mut it = Bench::new();
    for _ in 0..3600 {
        assert!(!it.case.is_used_up(&it.habits));
        it.take(second((10, 0), (90, 1), &[7]), &[]);
    }
    assert!(it.case.is_used_up(&it.habits));
    it.case.renew();
    assert!(!it.case.is_used_up(&it.habits));
    let told = it.case.told();
    assert!(told.bad_clients.is_empty());
    assert_eq!(
        (told.failing.pre, told.failing.prod),
        ([36_000, 0], [324_000, 3600])
    );
    assert!(told.failing.sums[..16].iter().all(|it| *it == 0.0));
    // How often is told, to those who add it up.
    assert_eq!(told.failing.sums.last(), Some(&1.0));
}

#[test]
fn what_another_gateway_says_that_cannot_be_proves_nothing() {
    let mut it = Bench::new();
    it.take(second((10, 0), (90, 0), &[]), &[]);
    let nonsense = NodeVerdict {
        failing: NodeEvidence {
            sums: vec![1e9; 18],
            ..it.case.told().failing
        },
        bad_clients: vec![1, 2, 3],
        ..it.case.told()
    };
    it.take(second((10, 0), (90, 0), &[]), &[nonsense]);
    assert_eq!(it.state(), "nothing");
    assert!(it.ln_worse() < 1.0);
}

#[test]
fn slow_units_of_several_gateways_may_be_those_of_one_client() {
    let slow = |it: &mut Bench, others: &[NodeVerdict]| {
        let mut taken = second((10, 0), (90, 0), &[]);
        taken.slow = Block {
            pre: counted(10, 5),
            prod: counted(90, 4),
        };
        it.take(taken, others);
        it.case.judged(Concern::Slow).unwrap().ln_worse
    };
    let (mut other, mut own) = (Bench::new(), Bench::new());
    slow(&mut other, &[]);
    let alone = slow(&mut own.again(), &[]);
    let both = slow(&mut own, &[other.case.told()]);
    assert!(alone > 1.0 && (both - alone).abs() < 1e-9, "{alone} {both}");
    // And nothing is said of them where nobody wants to know.
    own.settings.slow = VerdictMode::Off;
    own.take(second((1, 0), (1, 0), &[]), &[]);
    assert!(own.case.judged(Concern::Slow).is_none());
}

impl Bench {
    fn again(&self) -> Self {
        Self {
            case: self.case.clone(),
            habits: self.habits,
            settings: self.settings.clone(),
            now: self.now,
        }
    }
}

#[test]
fn who_does_not_know_what_is_usual_takes_nothing_back_in_an_incident_that_others_see() {
    let outage = || second((50, 50), (90, 54), &[1, 2, 3, 4, 5]);
    let mut knows = Bench::new();
    for _ in 0..20 {
        knows.take(second((50, 0), (90, 0), &[]), &[]);
    }
    for _ in 0..3 {
        knows.take(outage(), &[]);
    }
    assert_eq!(knows.state(), "incident");
    let sees_it = [knows.case.told()];
    let enforcing = |it: &mut Bench| it.settings.mode = VerdictMode::Enforce;
    // One has no clients; one was restarted meanwhile; and what they count alone would be enough.
    for serves in [false, true] {
        let seconds = || match serves {
            true => outage(),
            false => second((0, 0), (0, 0), &[]),
        };
        let mut alone = Bench::new();
        enforcing(&mut alone);
        let mut it = Bench::new();
        enforcing(&mut it);
        for _ in 0..5 {
            alone.take(seconds(), &[]);
            it.take(seconds(), &sees_it);
            assert_eq!(it.state(), "incident");
            assert!(it.case.takes_back(&it.settings).is_none());
            assert_eq!(it.case.told().finding, "nothing", "it is not its own");
        }
        assert_eq!(alone.case.takes_back(&alone.settings).is_some(), serves);
        // It is over, and what was counted in it is put aside before anything is found.
        it.take(second((50, 0), (90, 0), &[]), &[]);
        assert_eq!(it.state(), "incident");
        assert!(it.case.is_used_up(&it.habits));
        it.case.renew();
        it.take(second((50, 0), (90, 0), &[]), &[]);
        assert!(!it.case.is_used_up(&it.habits));
        assert!(it.case.takes_back(&it.settings).is_none());
        assert!(it.ln_worse() < 1.0, "{}", it.ln_worse());
    }
}

#[test]
fn what_a_gateway_counts_in_an_incident_of_its_own_proves_nothing_to_others() {
    let mut other = Bench::new();
    other.take(second((50, 25), (90, 0), &[1, 2, 3, 4, 5]), &[]);
    let found = other.case.told();
    let in_an_incident = NodeVerdict {
        finding: "incident".to_owned(),
        ..found.clone()
    };
    let mut it = Bench::new();
    for _ in 0..20 {
        it.take(second((5, 0), (90, 0), &[]), &[]);
    }
    it.take(second((5, 0), (90, 0), &[]), &[in_an_incident]);
    assert!(it.ln_worse() < 1.0, "{}", it.ln_worse());
    it.take(second((5, 0), (90, 0), &[]), &[found]);
    assert!(it.ln_worse() > 5.0, "{}", it.ln_worse());
}
