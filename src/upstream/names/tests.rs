use super::*;

fn list(entries: &[&str]) -> PeerList {
    PeerList::parse(entries, 80)
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|it| it.parse().unwrap()).collect()
}

fn answer(texts: &[&str]) -> Result<NameAddresses, String> {
    Ok(NameAddresses {
        addresses: addresses(texts),
        ..NameAddresses::default()
    })
}

/// Names of which nobody asks the resolver: the answers are the test's.
fn names_of(pre: &[&str]) -> (Names, Lists) {
    let names = Names::default();
    names.0.locked().threads = AT_ONCE;
    let lists = crate::lists::lists_of(&[], pre, &[]);
    names.use_for(&ServiceName::default(), &lists);
    (names, lists)
}

fn tell(names: &Names, name: &str, answer: Result<NameAddresses, String>) -> bool {
    let mut state = names.0.locked();
    state.take(&name.into(), answer, Instant::now());
    std::mem::take(&mut state.has_changed)
}

fn found(names: &Names, list: &PeerList) -> Vec<String> {
    let found = names.found(list).into_iter();
    found
        .map(|it| format!("{} {} {:?}", it.address, it.weight, it.name))
        .collect()
}

#[test]
fn all_addresses_of_a_name_are_peers_with_its_port_and_weight() {
    let (names, lists) = names_of(&["app:81 weight=3", "10.0.0.1:81 weight=2", "10.0.0.3"]);
    assert!(tell(&names, "app", answer(&["10.0.0.1", "10.0.0.2"])));
    assert!(!tell(&names, "app", answer(&["10.0.0.1", "10.0.0.2"])));
    let all = [
        "10.0.0.1:81 3 Some(\"app\")",
        "10.0.0.1:81 2 None",
        "10.0.0.2:81 3 Some(\"app\")",
        "10.0.0.3:80 1 None",
    ];
    assert_eq!(found(&names, &lists.pre), all);
}

#[test]
fn the_last_addresses_stay_while_a_name_cannot_be_resolved() {
    let (names, lists) = names_of(&["app", "never"]);
    assert!(tell(&names, "app", answer(&["10.0.0.1"])));
    assert!(!tell(&names, "app", Err("no".to_owned())));
    assert!(!tell(&names, "never", Err("no".to_owned())));
    assert_eq!(found(&names, &lists.pre), ["10.0.0.1:80 1 Some(\"app\")"]);
    let counts = names.counts();
    assert_eq!((counts.resolved, counts.kept, counts.unresolved), (0, 1, 1));
    assert_eq!((counts.answers, counts.failures), (1, 2));
    let later = Instant::now() + Duration::from_secs(9);
    let Unresolved { count, first } = names.unresolved(later);
    assert_eq!(count, 2);
    let texts: Vec<_> = first
        .iter()
        .map(|(name, text)| format!("{name} {text}"))
        .collect();
    assert!(
        texts[0]
            .starts_with("app cannot be resolved, for 9 s: no; its last addresses stay: 10.0.0.1")
    );
    assert!(texts[1].ends_with(": no; it has no servers"), "{texts:?}");
    assert!(tell(&names, "app", answer(&["10.0.0.2"])));
    assert_eq!(names.unresolved(later).count, 1);
}

#[test]
fn a_name_is_known_while_a_list_has_it_that_may_be_in_force() {
    let (names, _) = names_of(&["app", "both"]);
    let (pre, prod) = (list(&["both", "held"]), list(&["held"]));
    names.prepare([Some(&pre), Some(&prod)]);
    for name in ["app", "both", "held"] {
        // In force or not, it is known; peers change only with one that is.
        assert_eq!(tell(&names, name, answer(&["10.0.0.1"])), name != "held");
    }
    // What the list is cannot be told.
    names.prepare([Some(&list(&[])), None]);
    names.use_for(
        &ServiceName::default(),
        &crate::lists::lists_of(&[], &[], &["both"]),
    );
    let known = names.addresses().into_iter().map(|it| it.0.to_string());
    assert_eq!(known.collect::<Vec<_>>(), ["both", "held"]);
    names.prepare([None, Some(&list(&[]))]);
    assert_eq!(names.addresses().len(), 1);
}

#[test]
fn addresses_from_before_the_start_count_until_there_are_others() {
    let names = Names::default();
    names.0.locked().threads = AT_ONCE;
    names.remember([
        ("app".into(), addresses(&["10.0.0.1"])),
        ("other".into(), Vec::new()),
    ]);
    let lists = crate::lists::lists_of(&[], &["app"], &[]);
    names.use_for(&ServiceName::default(), &lists);
    assert_eq!(found(&names, &lists.pre).len(), 1);
    assert!(!tell(&names, "app", Err("no".to_owned())));
    assert_eq!(found(&names, &lists.pre), ["10.0.0.1:80 1 Some(\"app\")"]);
    assert!(tell(&names, "app", answer(&["10.0.0.2"])));
    assert_eq!(found(&names, &lists.pre), ["10.0.0.2:80 1 Some(\"app\")"]);
}

#[test]
fn lists_wait_for_new_names_and_not_twice_for_one() {
    let names = Arc::new(Names::default());
    names.0.locked().threads = AT_ONCE;
    let pre = list(&["app"]);
    let took = |list: &PeerList| {
        let begun = Instant::now();
        names.prepare([Some(list), None]);
        begun.elapsed()
    };
    assert!(took(&pre) >= PATIENCE);
    assert!(took(&pre) < LESS_PATIENCE, "it was waited for");
    // One that does not answer is trusted less.
    let more = list(&["app", "app2"]);
    let second = took(&more);
    assert!(second >= LESS_PATIENCE && second < PATIENCE, "{second:?}");
    assert_eq!(names.unresolved(Instant::now()).count, 2);
    tell(&names, "app", answer(&["10.0.0.1"]));
    let other = Arc::clone(&names);
    let resolver = std::thread::spawn(move || {
        while other.0.locked().known.len() < 3 {
            std::thread::yield_now();
        }
        tell(&other, "app3", answer(&["10.0.0.1"]));
        other.0.news.notify_all();
    });
    assert!(took(&list(&["app", "app2", "app3"])) < PATIENCE);
    resolver.join().unwrap();
    assert!(took(&list(&["10.0.0.1"])) < LESS_PATIENCE);
}

#[test]
fn names_are_asked_for_in_their_interval_by_few_threads() {
    let (names, _) = names_of(&["app", "other"]);
    let asked = |names: &Names| names.0.locked().queue.len();
    names.0.locked().queue.clear();
    let interval = Duration::from_millis(20);
    names.0.locked().interval = interval;
    for name in ["app", "other"] {
        tell(&names, name, answer(&["10.0.0.1"]));
    }
    assert_eq!(asked(&names), 0);
    assert!(!names.turn(interval));
    assert_eq!(asked(&names), 2, "a turn takes longer than this interval");
    assert!(!names.turn(interval));
    assert_eq!(asked(&names), 2, "each once");
    // An interval that becomes shorter is in force at once.
    names.0.locked().queue.clear();
    names.0.locked().interval = Duration::from_secs(3600);
    tell(&names, "app", answer(&["10.0.0.1"]));
    names.turn(interval);
    assert_eq!(asked(&names), 1);
    assert_eq!(names.0.locked().threads, AT_ONCE);
}

#[test]
fn names_that_are_not_resolved_leave_room_for_others() {
    let entries = |name: &str, count: usize| {
        let texts: Vec<String> = (0..count).map(|it| format!("{name}{it}")).collect();
        list(&texts.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let (names, now) = (Names::default(), Instant::now());
    names.0.locked().threads = AT_ONCE;
    let service = ServiceName::default();
    let mut state = names.0.locked();
    let (bad, new, good) = (entries("bad", 20), entries("new", 20), list(&["good"]));
    state.take_up(&service, UserKind::InForce, bad.names());
    bad.names().for_each(|it| state.fail(it, "no".to_owned()));
    assert_eq!(state.startable(), Room::FAILING);
    let started = |state: &mut NamesState| std::iter::from_fn(|| state.next(now)).count();
    assert_eq!(started(&mut state), Room::FAILING);
    state.take_up(&service, UserKind::Read(PoolName::Pre), new.names());
    assert_eq!(
        (state.startable(), started(&mut state)),
        (Room::NEW, Room::NEW)
    );
    // Lists have waited for the new ones in vain: that is no reason to let others wait.
    new.names().for_each(|it| state.fail(it, "no".to_owned()));
    let more = entries("more", 20);
    state.take_up(&service, UserKind::Read(PoolName::Prod), more.names());
    let left = Room::BOTH - Room::FAILING - Room::NEW;
    assert_eq!((state.startable(), started(&mut state)), (left, left));
    // What was resolved the last time has room in any case.
    state.take_up(&service, UserKind::InForce, good.names());
    state.take(&"good".into(), answer(&["10.0.0.1"]), now);
    state.ask_for_due(now + PERIOD);
    assert_eq!(state.next(now), Some("good".into()));
    // Nobody needs these any more.
    state.take_up(&service, UserKind::Read(PoolName::Pre), good.names());
    state.take_up(&service, UserKind::Read(PoolName::Prod), good.names());
    assert_eq!(state.next(now), None);
    assert!(state.queue.is_empty());
}
