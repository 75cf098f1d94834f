use std::path::Path;
use std::time::Duration;

use super::*;
use crate::config::{self, Config, ServiceSettings};
use crate::lists::lists_of;
use crate::upstream::health::PeerState;
use crate::upstream::health::tests::rules;
use crate::upstream::in_force::InForce;

struct Case {
    in_force: InForce,
    settings: config::HealthSettings,
    schedule: Schedule,
    now: Instant,
    chance: f64,
}

impl Case {
    /// With these lines of the ini file.
    fn new(settings: &str) -> Self {
        Self {
            in_force: InForce::new(1),
            settings: health(settings),
            schedule: Schedule::default(),
            now: Instant::now(),
            chance: 0.5,
        }
    }

    /// Peers at these ports are in the lists now.
    fn list(&mut self, pre: &[u16], prod: &[u16]) -> Vec<(PoolName, SocketAddr)> {
        let entry = |port: &u16| at(*port).to_string();
        let [pre, prod] = [pre, prod].map(|it| it.iter().map(entry).collect::<Vec<_>>());
        let [pre, prod] = [&pre, &prod].map(|it| it.iter().map(String::as_str).collect::<Vec<_>>());
        self.use_settings();
        self.in_force.store(lists_of(&[], &pre, &prod));
        self.update()
    }

    fn use_settings(&self) {
        let settings = ServiceSettings {
            health: self.settings.clone(),
            ..ServiceSettings::default()
        };
        self.in_force.set_services(&[Arc::new(settings)]);
    }

    fn update(&mut self) -> Vec<(PoolName, SocketAddr)> {
        let (serving, chance) = (self.in_force.serving(), self.chance);
        let back = self.schedule.update(&serving, self.now, || chance);
        back.into_iter()
            .map(|(_, pool, peer)| (pool, peer))
            .collect()
    }

    /// Another section of the ini file is in force.
    fn set(&mut self, settings: &str) -> Vec<(PoolName, SocketAddr)> {
        self.settings = health(settings);
        self.use_settings();
        self.update()
    }

    /// All checks that begin now, by what they ask for.
    fn begin(&mut self, room: usize) -> Vec<(CheckTarget, String)> {
        let mut begun = Vec::new();
        while let Some(job) = self.schedule.next(self.now, room - begun.len()) {
            begun.push((job.target, job.asker.checks.path.clone()));
        }
        begun
    }

    fn end(&mut self, target: CheckTarget, outcome: Checked) -> Option<Consequence> {
        let check = LastCheck {
            at: self.now,
            outcome,
            status: None,
        };
        self.schedule.has_ended(target, check, self.chance)
    }

    /// The next check of the only target, whenever it is due: what is told of it.
    fn check(&mut self, outcome: Checked) -> Option<CheckNews> {
        self.now = self.schedule.wakes_at().unwrap();
        let begun = self.begin(1);
        self.end(begun[0].0, outcome).unwrap().news
    }

    fn state(&self, port: u16) -> PeerState {
        let pools = self.in_force.pools();
        let mut peers = PoolName::ALL.iter().flat_map(|it| pools[*it].peers());
        let peer = peers.find(|it| it.address == at(port)).unwrap();
        peer.health.state(self.now, &rules())
    }

    fn wakes_after(&self) -> Duration {
        self.schedule.wakes_at().unwrap() - self.now
    }
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn health(settings: &str) -> config::HealthSettings {
    let url = Some("redis://127.0.0.1".to_owned());
    let config = Config::parse(Path::new("graygate.ini"), settings, url);
    config.unwrap().default_service().health.clone()
}

const BOTH: &str = "[health]\npath = /both\n";

#[test]
fn a_new_peer_is_due_at_once_and_those_that_came_together_part_then() {
    let mut case = Case::new(BOTH);
    case.list(&[], &[1, 2]);
    let begun = case.begin(32);
    assert_eq!(begun.len(), 2);
    for ((target, _), (chance, after)) in begun.into_iter().zip([(0.9, 4500), (0.1, 500)]) {
        case.chance = chance;
        case.end(target, Checked::Ok).unwrap();
        assert_eq!(case.wakes_after(), Duration::from_millis(after));
    }
    // From then on they stay apart: a tenth more or less.
    for (chance, after) in [(0.0, 4500), (1.0, 5500)] {
        let mut case = Case::new(BOTH);
        case.list(&[], &[1]);
        case.check(Checked::Ok);
        case.chance = chance;
        case.check(Checked::Ok);
        assert_eq!(case.wakes_after(), Duration::from_millis(after));
    }
}

#[test]
fn so_many_in_a_row_put_a_peer_out_and_so_many_bring_it_back() {
    let mut case = Case::new("[health]\npath = /\nrise = 2\nfall = 3\n");
    case.list(&[], &[1]);
    let outcomes = [
        (Checked::Status, None),
        (Checked::Timeout, None),
        (Checked::Ok, None),
        (Checked::Refused, None),
        (Checked::Closed, None),
        // It says nothing of the peer.
        (Checked::NotMade, None),
        (Checked::Malformed, Some(CheckNews::Out)),
        (Checked::Status, None),
        (Checked::Ok, None),
        (Checked::Status, None),
        (Checked::Ok, None),
        (Checked::NotMade, None),
        (Checked::Ok, Some(CheckNews::Back)),
        (Checked::Ok, None),
    ];
    for (at, (outcome, news)) in outcomes.into_iter().enumerate() {
        assert_eq!(case.check(outcome), news, "{at}");
    }
}

#[test]
fn whom_nobody_has_checked_yet_waits_for_one_success_whatever_was_before() {
    let mut case = Case::new("[health]\npath = /\nrise = 3\nfall = 2\ncheck_before_use = on\n");
    case.list(&[], &[1]);
    assert_eq!(case.state(1), PeerState::Unchecked);
    assert_eq!(case.check(Checked::Refused), None);
    assert_eq!(case.check(Checked::Refused), Some(CheckNews::Unchecked));
    assert_eq!(case.check(Checked::Refused), None, "it was told");
    assert_eq!(case.state(1), PeerState::Unchecked);
    assert_eq!(case.check(Checked::Ok), Some(CheckNews::Back));
    assert!(matches!(case.state(1), PeerState::Starting { .. }));

    let mut case = Case::new("[health]\npath = /\ncheck_before_use = on\n");
    case.list(&[], &[1]);
    assert_eq!(case.check(Checked::Ok), None, "nobody has missed it");
}

#[test]
fn peers_whose_last_check_has_timed_out_leave_room_for_the_others() {
    let mut case = Case::new(BOTH);
    let hung: Vec<u16> = (1..=100).collect();
    case.list(&hung, &[]);
    while let Some(job) = case.schedule.next(case.now, 1) {
        case.end(job.target, Checked::Timeout);
    }
    case.now += Duration::from_secs(5);
    let slow = case.begin(MOST);
    assert_eq!(slow.len(), SLOW_MOST);
    case.list(&hung, &[200]);
    let quick = case.begin(MOST - SLOW_MOST);
    assert_eq!(quick.len(), 1, "it is new");
    case.end(slow[0].0, Checked::Timeout);
    assert_eq!(case.begin(MOST).len(), 1, "one has made room for another");
    case.end(slow[1].0, Checked::Ok);
    case.end(slow[2].0, Checked::Ok);
    assert_eq!(case.begin(1).len(), 1, "no more than there is room for");
}

#[test]
fn a_peer_of_both_pools_is_checked_once_where_they_check_in_the_same_way() {
    let mut case = Case::new(BOTH);
    case.list(&[1], &[1, 2]);
    let begun = case.begin(32);
    let peers: Vec<SocketAddr> = begun.iter().map(|(target, _)| target.peer).collect();
    assert_eq!(peers, [at(1), at(2)]);
    let told: Vec<PoolName> = begun
        .iter()
        .map(|(target, _)| case.end(*target, Checked::Ok).unwrap().pool)
        .collect();
    assert_eq!(told, [PoolName::Pre, PoolName::Prod]);
}

#[test]
fn a_peer_that_is_checked_in_two_ways_is_well_by_both_and_by_one_after_the_other() {
    let mut case = Case::new(
        "[health]\nfall = 1\nrise = 1\n[health pre]\npath = /pre\n[health prod]\npath = /prod\n",
    );
    case.list(&[1], &[1]);
    let [(pre, path)] = &case.begin(32)[..] else {
        panic!("more than one at a time");
    };
    assert_eq!(path, "/pre");
    let pre = *pre;
    assert_eq!(
        case.end(pre, Checked::Status).unwrap().news,
        Some(CheckNews::Out)
    );
    let [(prod, path)] = &case.begin(32)[..] else {
        panic!("it has waited for the other");
    };
    assert_eq!(path, "/prod");
    let prod = *prod;
    assert_eq!(case.end(prod, Checked::Ok).unwrap().news, None);
    assert!(matches!(case.state(1), PeerState::Out { .. }));
    case.now += Duration::from_secs(5);
    let begun: Vec<CheckTarget> = case.begin(32).into_iter().map(|(it, _)| it).collect();
    let news = case.end(begun[0], Checked::Ok).unwrap().news;
    let second = case.begin(32);
    let news = news.or_else(|| case.end(second[0].0, Checked::Ok).unwrap().news);
    assert_eq!(news, Some(CheckNews::Back));
}

#[test]
fn what_has_gone_is_forgotten_and_the_end_of_its_check_says_nothing() {
    let mut case = Case::new(BOTH);
    case.list(&[], &[1, 2, 3]);
    let target = case.begin(1)[0].0;
    // One runs, one waits for room, and so does the last.
    case.list(&[], &[]);
    assert_eq!(case.begin(32), []);
    assert_eq!(case.end(target, Checked::Refused), None);
    assert!(case.schedule.targets.is_empty() && case.schedule.due.is_empty());
    assert!(case.schedule.ready.iter().all(VecDeque::is_empty));
    assert_eq!(case.schedule.wakes_at(), None);
}

#[test]
fn who_comes_again_while_it_is_checked_is_checked_anew_after_that() {
    let mut case = Case::new("[health]\npath = /\nfall = 1\n");
    case.list(&[], &[1]);
    let target = case.begin(32)[0].0;
    case.list(&[], &[]);
    case.list(&[], &[1]);
    assert_eq!(case.begin(32), [], "one at a time");
    assert_eq!(case.end(target, Checked::Refused), None);
    assert_eq!(case.state(1), PeerState::Up);
    assert_eq!(case.begin(32).len(), 1);
}

#[test]
fn a_change_of_the_settings_takes_hold_within_the_new_interval() {
    let mut case = Case::new("[health]\npath = /old\ninterval = 24h\n");
    case.list(&[], &[1]);
    case.check(Checked::Ok);
    case.set("[health]\npath = /new\ninterval = 10s\n");
    assert_eq!(case.wakes_after(), Duration::from_secs(5));
    case.now += Duration::from_secs(5);
    let [(target, path)] = &case.begin(32)[..] else {
        panic!("it is due");
    };
    assert_eq!(path, "/new");
    let target = *target;
    // What was asked before says nothing.
    case.set("[health]\npath = /newer\ninterval = 10s\nfall = 1\n");
    assert_eq!(case.end(target, Checked::Refused), None);
    assert_eq!(case.begin(32)[0].1, "/newer");
    // The same settings, read again, change nothing.
    let before = case.schedule.wakes_at();
    case.set("[health]\npath = /newer\ninterval = 10s\nfall = 1\n");
    assert_eq!(case.schedule.wakes_at(), before);
}

#[test]
fn without_checks_nobody_is_out_by_them_or_waits_for_them() {
    let on = "[health]\npath = /\nfall = 1\n[health pre]\ncheck_before_use = on\n";
    let mut case = Case::new(on);
    case.list(&[1], &[2]);
    for (target, _) in case.begin(32) {
        case.end(target, Checked::Refused);
    }
    assert_eq!(case.state(1), PeerState::Unchecked);
    assert!(matches!(case.state(2), PeerState::Out { .. }));
    assert_eq!(case.set(on), []);
    assert_eq!(case.set(""), [(PoolName::Prod, at(2))]);
    assert_eq!(case.state(1), PeerState::Up);
    assert!(matches!(case.state(2), PeerState::Starting { .. }));
    assert_eq!(case.schedule.wakes_at(), None);

    let mut case = Case::new(on);
    case.list(&[1], &[]);
    assert_eq!(case.state(1), PeerState::Unchecked);
    case.set(BOTH);
    assert_eq!(case.state(1), PeerState::Up, "it is checked, and not first");
}

#[test]
fn a_peer_of_several_services_is_checked_as_the_first_of_them_says_that_has_checks() {
    let mut case = Case::new("");
    let service = |name: &str, checks: &str| {
        Arc::new(ServiceSettings {
            name: ServiceName::parse(name).unwrap_or_default(),
            health: health(checks),
            ..ServiceSettings::default()
        })
    };
    let of = |path: &str| format!("[health]\npath = /{path}\nfall = 1\n");
    let all = [
        service("", ""),
        service("one", &of("one")),
        service("two", &of("two")),
        service("same", &of("two")),
    ];
    let entry = |port: u16| at(port).to_string();
    let lists = |ports: &[u16]| {
        let entries: Vec<String> = ports.iter().copied().map(entry).collect();
        let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
        lists_of(&[], &[], &entries)
    };
    case.in_force.set_services(&all);
    let name = |name: &str| ServiceName::parse(name).unwrap_or_default();
    case.in_force.store_all(vec![
        (name(""), lists(&[1, 4])),
        (name("one"), lists(&[1, 2])),
        (name("two"), lists(&[2, 3])),
        (name("same"), lists(&[3, 5])),
    ]);
    case.update();
    let asked = |begun: &[(CheckTarget, String)]| {
        let asked = begun
            .iter()
            .map(|(it, path)| (it.peer.port(), path.clone()));
        asked.collect::<BTreeSet<_>>()
    };
    let begun = case.begin(32);
    let expected = [(1, "/one"), (2, "/one"), (3, "/two"), (5, "/two")];
    let expected = expected.map(|(port, path)| (port, path.to_owned()));
    assert_eq!(asked(&begun), BTreeSet::from(expected));
    assert_eq!(case.schedule.askers.len(), 2, "equal ways are one");
    for (target, _) in begun {
        let told = case.end(target, Checked::Refused).unwrap();
        let of = if target.peer.port() < 3 { "one" } else { "two" };
        let of = if target.peer.port() == 5 { "same" } else { of };
        assert_eq!((told.service, told.news), (name(of), Some(CheckNews::Out)));
    }
    // Without the first one they are the second one's, and what nobody checks any more is back.
    case.in_force
        .set_services(&[all[0].clone(), all[2].clone()]);
    assert_eq!(case.update(), [(PoolName::Prod, at(1))]);
    case.now += Duration::from_secs(5);
    let expected = [(2, "/two".to_owned()), (3, "/two".to_owned())];
    let begun = case.begin(32);
    assert_eq!(asked(&begun), BTreeSet::from(expected));
}
