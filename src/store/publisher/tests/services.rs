//! Several services: each is judged by itself, and what was read together comes into force together.

use super::*;
use crate::store::publisher::handed::HandedLists;
use crate::upstream::in_force::InForce;

fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap_or_default()
}

/// The settings of services; of each the name, its port, and whose gray list it has.
fn settings(services: &[(&str, u16, Option<&str>)]) -> Vec<Arc<ServiceSettings>> {
    let settings = |(service, port, gray_of): &(&str, u16, Option<&str>)| {
        let mut settings = ServiceSettings {
            name: name(service),
            gray_of: gray_of.map(name),
            ..ServiceSettings::default()
        };
        settings.upstream.peer_port = *port;
        Arc::new(settings)
    };
    services.iter().map(settings).collect()
}

const THREE: &[(&str, u16, Option<&str>)] = &[
    ("default", 80, None),
    ("shop", 81, None),
    ("api", 82, Some("shop")),
];

fn publisher_of(services: &[(&str, u16, Option<&str>)]) -> Publisher {
    let publisher = Publisher::new(Arc::new(InForce::new(1)), 80, RULES, "test");
    publisher.with_services(&settings(services))
}

fn of(service: &str, gray: &[&str], pre: &[&str], prod: &[&str]) -> ServiceReading {
    ServiceReading {
        service: name(service),
        gray_of: (service == "api").then(|| name("shop")),
        ..ServiceReading::settled(reading(gray, pre, prod))
    }
}

/// What all of [`THREE`] have first.
fn first() -> Vec<ServiceReading> {
    vec![
        // Before the one whose list it has.
        of("api", &[], &["2.2.2.1"], &["2.2.3.1", "2.2.3.2"]),
        of("default", &["1.0.0.1"], &["1.1.1.1"], &["1.1.2.1"]),
        of("shop", &["1.0.0.2"], &["2.1.1.1"], &["2.1.2.1", "2.1.2.2"]),
    ]
}

fn publish(publisher: &Publisher, readings: Vec<ServiceReading>) -> Awaited {
    let read = publisher.parse(readings);
    publisher.prepare(&read);
    publisher.publish_parsed(read, Cause::Event, Timestamp::now)
}

fn three() -> Publisher {
    let publisher = publisher_of(THREE);
    publish(&publisher, first());
    publisher
}

/// Generation and entries of a service.
fn state(publisher: &Publisher, service: &str) -> (u64, Vec<String>, Vec<String>) {
    let lists = publisher.lists_of(&name(service));
    let prod = lists.prod.peers().iter().map(ToString::to_string);
    let gray = lists.gray.entries().map(|it| it.to_string());
    (lists.generation, gray.collect(), prod.collect())
}

fn generations(publisher: &Publisher) -> [u64; 3] {
    ["default", "shop", "api"].map(|it| publisher.lists_of(&name(it)).generation)
}

fn held_of(publisher: &Publisher, service: &str) -> Vec<(ListName, String)> {
    let held = publisher.status().of(&name(service)).held.into_iter();
    held.map(|it| (it.list, it.digest.to_string())).collect()
}

#[test]
fn a_service_has_its_own_lists_ports_and_generation() {
    let publisher = three();
    assert_eq!(generations(&publisher), [1, 1, 1]);
    let shop = state(&publisher, "shop");
    assert_eq!(shop.2, ["2.1.2.1:81", "2.1.2.2:81"]);
    // Only what was read changes, and only that is counted.
    publish(
        &publisher,
        vec![of(
            "shop",
            &["9.9.9.9"],
            &["2.1.1.1"],
            &["2.1.2.1", "2.1.2.2"],
        )],
    );
    assert_eq!(generations(&publisher), [1, 2, 2]);
    publish(
        &publisher,
        vec![of("default", &[], &["1.1.1.1"], &["1.1.2.1"])],
    );
    assert_eq!(generations(&publisher), [2, 2, 2]);
    // One that is not configured is none.
    publish(&publisher, vec![of("other", &[], &[], &["1.1.1.1"])]);
    assert!(!publisher.lists_of(&name("other")).are_read());
}

#[test]
fn a_shared_gray_list_is_the_same_one_at_the_same_moment() {
    let publisher = three();
    let gray = |service: &str| Arc::clone(&publisher.lists_of(&name(service)).gray);
    assert!(Arc::ptr_eq(&gray("shop"), &gray("api")));
    assert_eq!(state(&publisher, "api").1, ["1.0.0.2"]);
    publish(
        &publisher,
        vec![of(
            "shop",
            &["9.9.9.9"],
            &["2.1.1.1"],
            &["2.1.2.1", "2.1.2.2"],
        )],
    );
    assert!(Arc::ptr_eq(&gray("shop"), &gray("api")));
    assert_eq!(state(&publisher, "api").1, ["9.9.9.9"]);
    // Also where only what is skipped differs.
    publish(
        &publisher,
        vec![of(
            "shop",
            &["9.9.9.9", "x"],
            &["2.1.1.1"],
            &["2.1.2.1", "2.1.2.2"],
        )],
    );
    assert!(Arc::ptr_eq(&gray("shop"), &gray("api")));
    assert_eq!(generations(&publisher), [1, 2, 2]);
    // Its own reading says nothing of it.
    publish(
        &publisher,
        vec![of(
            "api",
            &["8.8.8.8"],
            &["2.2.2.1"],
            &["2.2.3.1", "2.2.3.3"],
        )],
    );
    assert_eq!(state(&publisher, "api").1, ["9.9.9.9"]);
    assert_eq!(generations(&publisher), [1, 2, 3]);
}

#[test]
fn a_shared_gray_list_is_held_once_and_let_in_everywhere() {
    let publisher = three();
    let everybody = || {
        of(
            "shop",
            &["0.0.0.0/0"],
            &["2.1.1.1"],
            &["2.1.2.1", "2.1.2.2"],
        )
    };
    publish(&publisher, vec![everybody(), first().remove(0)]);
    assert_eq!(generations(&publisher), [1, 1, 1]);
    let held = held_of(&publisher, "shop");
    assert_eq!((held.len(), held_of(&publisher, "api").len()), (1, 0));
    let accepted = publisher.accept(&held[0].1, By::Command).unwrap();
    assert_eq!(accepted.service, name("shop"));
    assert_eq!(state(&publisher, "api").1, ["0.0.0.0/0"]);
    assert_eq!(generations(&publisher), [1, 2, 2]);
}

#[test]
fn what_one_service_holds_holds_no_other_one_up_and_is_accepted_alone() {
    let publisher = three();
    let change = || {
        vec![
            of("default", &["1.0.0.9"], &["1.1.1.1"], &[]),
            of("shop", &["1.0.0.9"], &["2.1.1.1"], &[]),
            of("api", &[], &["2.2.2.9"], &["2.2.3.1", "2.2.3.2"]),
        ]
    };
    publish(&publisher, change());
    assert_eq!(generations(&publisher), [2, 2, 2]);
    let [default, shop] = ["default", "shop"].map(|it| held_of(&publisher, it));
    // The same content, but not the same change.
    assert_eq!((default[0].0, shop[0].0), (ListName::Prod, ListName::Prod));
    assert_ne!(default[0].1, shop[0].1);
    let accepted = publisher.accept(&shop[0].1, By::Key).unwrap();
    assert_eq!((accepted.service, accepted.generation), (name("shop"), 3));
    assert_eq!(generations(&publisher), [2, 3, 2]);
    assert_eq!(held_of(&publisher, "default"), default);
    let unknown = publisher.accept(&shop[0].1, By::Key).unwrap_err();
    assert_eq!(unknown.len(), 1);
}

#[test]
fn what_is_left_open_is_said_of_each_service() {
    let publisher = three();
    let emptied = |service: &str, prod: &[&str]| ServiceReading {
        empty_for: ByList::all(Duration::ZERO),
        ..of(service, &["1.0.0.9"], &[], prod)
    };
    let awaited = publish(
        &publisher,
        vec![
            emptied("default", &["1.1.2.1"]),
            emptied("shop", &["2.1.2.1", "2.1.2.2"]),
        ],
    );
    let pre = ListName::Pre;
    assert_eq!(
        awaited.emptied,
        [(name("default"), pre), (name("shop"), pre)]
    );
    assert!(awaited.until.is_some());
    assert_eq!(generations(&publisher), [1, 1, 1]);
    assert!(!confirms(&publisher, Cause::Check));
}

#[test]
fn time_lets_in_what_it_decides_of_whatever_service() {
    let publisher = three();
    publisher.set_rules(GuardRules {
        timeout: Some(MINUTE),
        ..RULES
    });
    publish(
        &publisher,
        vec![of("shop", &["1.0.0.2"], &["2.1.1.1"], &[])],
    );
    let mut entrance = publisher.locked_entrance();
    assert_eq!(entrance.waiting(), [name("shop")]);
    assert!(entrance.look_at().is_some());
    publisher.let_in_ripe(&mut entrance, &name("shop"), later(MINUTE));
    entrance.note_time(&[name("shop")]);
    assert_eq!(entrance.waiting(), []);
    drop(entrance);
    assert_eq!(generations(&publisher), [1, 2, 1]);
}

#[test]
fn services_come_and_go_and_those_that_stay_keep_what_they_have_and_what_waits() {
    let publisher = three();
    publish(
        &publisher,
        vec![of("shop", &["1.0.0.2"], &["2.1.1.1"], &[])],
    );
    publish(
        &publisher,
        vec![of("default", &["1.0.0.1"], &["1.1.1.1"], &[])],
    );
    let held = held_of(&publisher, "shop");
    publisher.set_services(
        &settings(&[("default", 80, None), ("shop", 81, None), ("new", 83, None)]),
        Vec::new(),
    );
    assert_eq!(held_of(&publisher, "shop"), held);
    assert!(!publisher.lists_of(&name("api")).are_read(), "it is gone");
    assert!(
        !publisher.lists_of(&name("new")).are_read(),
        "nobody read it"
    );
    publish(&publisher, vec![of("new", &[], &[], &["4.4.4.4"])]);
    assert_eq!(state(&publisher, "new").2, ["4.4.4.4:83"]);
    publisher.accept(&held[0].1, By::Command).unwrap();
    publisher.set_services(
        &settings(&[("default", 80, None), ("new", 83, None)]),
        Vec::new(),
    );
    assert_eq!(held_of(&publisher, "default").len(), 1);
    // It is a new one when it comes back.
    publisher.set_services(
        &settings(&[("default", 80, None), ("shop", 81, None)]),
        Vec::new(),
    );
    assert!(!publisher.lists_of(&name("shop")).are_read());
    assert_eq!(publisher.status().held().count(), 1);
}

#[test]
fn a_copy_has_all_services_and_leaves_out_those_that_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lists");
    let publisher = three();
    let kept = publisher.kept_lists(&publisher.locked_entrance());
    let text = copy::render(&kept, &[], &store(), SystemTime::now());
    copy::write(&path, &text).unwrap();
    let purpose = copy::Purpose {
        store: store(),
        ports: copy::PeerPorts::of(&settings(THREE)),
        max_age: None,
        config: "/etc/graygate.ini".into(),
        succeeds: false,
    };
    let again = |services: &[(&str, u16, Option<&str>)]| {
        let publisher = publisher_of(services);
        let publisher = publisher.with_copy(&path, purpose.clone()).unwrap();
        publisher.use_copy();
        publisher.end();
        publisher
    };
    let found = again(THREE);
    for service in ["default", "shop", "api"] {
        assert_eq!(state(&found, service), state(&publisher, service));
    }
    let grays = ["shop", "api"].map(|it| Arc::clone(&found.lists_of(&name(it)).gray));
    assert!(Arc::ptr_eq(&grays[0], &grays[1]));
    // What is new is unread, and so is what has a list now that was another one's.
    let fewer = again(&[("default", 80, None), ("new", 81, None)]);
    assert!(fewer.lists().are_read());
    assert!(!fewer.lists_of(&name("new")).are_read());
    // The first reading is compared with it.
    publish(&fewer, vec![of("default", &["1.0.0.1"], &["1.1.1.1"], &[])]);
    assert_eq!(held_of(&fewer, "default").len(), 1);
}

#[test]
fn another_process_goes_on_with_all_services() {
    let publisher = three();
    publish(
        &publisher,
        vec![of("shop", &["9.9.9.9"], &["2.1.1.1"], &[])],
    );
    publish(
        &publisher,
        vec![of("shop", &["9.9.9.8"], &["2.1.1.1"], &[])],
    );
    assert_eq!(generations(&publisher), [1, 3, 3]);
    let handed = publisher.hand_over(&store());
    let text = String::from_utf8(handed.copy.clone().unwrap()).unwrap();
    assert!(!text.contains("shop"), "an older one can read it: {text}");
    let (next, taken) = publisher_of(THREE).with_handed(&handed, &store());
    assert!(taken.in_force);
    for service in ["default", "shop", "api"] {
        assert_eq!(state(&next, service), state(&publisher, service));
    }
    assert_eq!(held_of(&next, "shop"), held_of(&publisher, "shop"));
    let grays = ["shop", "api"].map(|it| Arc::clone(&next.lists_of(&name(it)).gray));
    assert!(Arc::ptr_eq(&grays[0], &grays[1]));
    publish(&next, vec![of("shop", &["9.9.9.7"], &["2.1.1.1"], &[])]);
    assert_eq!(generations(&next), [1, 4, 4]);
    // An older one knows of the default service only.
    let older = HandedLists {
        services: Vec::new(),
        services_copy: None,
        ..handed
    };
    let (next, taken) = publisher_of(THREE).with_handed(&older, &store());
    assert!(taken.in_force);
    assert_eq!(generations(&next), [1, 0, 0]);
}

#[test]
fn an_unused_default_service_needs_no_servers() {
    let mut services = settings(&[("default", 80, None), ("shop", 81, None)]);
    Arc::make_mut(&mut services[0]).takes_rest = false;
    let text = "[shop gray]\n[shop pre]\n[shop prod]\n2.1.2.1\n";
    let readings = crate::store::format::parse_services(text.as_bytes(), &services).unwrap();
    let publisher = publisher_of(&[]).with_services(&services);
    publish(&publisher, readings);
    assert_eq!(state(&publisher, "shop").2, ["2.1.2.1:81"]);
    Arc::make_mut(&mut services[0]).takes_rest = true;
    assert!(crate::store::format::parse_services(text.as_bytes(), &services).is_err());
}

/// A reading of `shop`, with this salt in the store.
fn salted(gray: &[&str], salt: Option<&str>) -> ServiceReading {
    ServiceReading {
        salt: salt.map(|it| it.as_bytes().to_vec()),
        ..of("shop", gray, &["2.1.1.1"], &["2.1.2.1", "2.1.2.2"])
    }
}

fn salts(publisher: &Publisher) -> [String; 2] {
    ["shop", "api"].map(|it| {
        let lists = publisher.lists_of(&name(it));
        String::from_utf8(lists.gray.salt().text().to_vec()).unwrap()
    })
}

#[test]
fn a_new_service_begins_with_what_was_read_of_it_and_the_others_stay_as_they_are() {
    let publisher = publisher_of(&[("default", 80, None)]);
    publish(&publisher, vec![of("default", &[], &[], &["1.1.1.1"])]);
    let read = vec![
        of("default", &["1.0.0.9"], &[], &["9.9.9.9"]),
        // It has the gray list of the one that follows.
        ServiceReading {
            gray_of: Some(name("shop")),
            ..of("api", &[], &["3.3.3.3"], &["3.3.3.4"])
        },
        of("shop", &["1.0.0.2"], &["2.2.2.2"], &["2.2.2.3"]),
        of("gone", &["1.0.0.2"], &[], &["4.4.4.4"]),
    ];
    publisher.set_services(&settings(THREE), read);
    assert_eq!(state(&publisher, "default").2, ["1.1.1.1:80"]);
    assert_eq!(state(&publisher, "api").1, state(&publisher, "shop").1);
    assert_eq!(state(&publisher, "shop").1.concat(), "1.0.0.2");
    assert_eq!(generations(&publisher), [1, 1, 1]);
}

#[test]
fn another_salt_waits_with_its_list_where_another_list_is_unsettled() {
    let publisher = three();
    publish(&publisher, vec![salted(&["percent:5"], Some("a"))]);
    let unsettled = |gray: &[&str], salt| {
        let mut reading = salted(gray, Some(salt));
        reading.lists.pre = Ok(Entries::default());
        reading.empty_for.pre = Duration::ZERO;
        reading
    };
    // The list itself may be filled in a moment.
    let mut emptied = salted(&[], Some("b"));
    emptied.empty_for.gray = Duration::ZERO;
    publish(&publisher, vec![emptied]);
    assert_eq!(salts(&publisher), ["a", "a"]);
    // Together with an empty pool, which may be filled in a moment.
    publish(&publisher, vec![unsettled(&["percent:7"], "b")]);
    let gray = state(&publisher, "shop").1;
    assert_eq!(
        (&*gray.concat(), salts(&publisher)),
        ("percent:5", ["a", "a"].map(str::to_owned))
    );
    publish(&publisher, vec![unsettled(&["percent:5"], "b")]);
    assert_eq!(salts(&publisher), ["a", "a"]);
    publish(&publisher, vec![salted(&["percent:5"], Some("b"))]);
    assert_eq!(salts(&publisher), ["b", "b"]);
}

#[test]
fn another_salt_is_another_list_only_where_there_is_a_share_and_is_never_held() {
    let publisher = three();
    publish(&publisher, vec![salted(&["1.0.0.2"], Some("a"))]);
    assert_eq!(generations(&publisher), [1, 1, 1]);
    publish(&publisher, vec![salted(&["percent:5"], Some("a"))]);
    publish(&publisher, vec![salted(&["percent:5"], Some("b"))]);
    assert_eq!(generations(&publisher), [1, 3, 3]);
    assert_eq!(salts(&publisher), ["b", "b"]);
    // A change that is held keeps the list, and not its salt.
    publish(
        &publisher,
        vec![salted(&["0.0.0.0/0", "percent:50"], Some("c"))],
    );
    let gray = state(&publisher, "shop").1;
    assert_eq!(
        (&*gray.concat(), salts(&publisher)),
        ("percent:5", ["c", "c"].map(str::to_owned))
    );
    assert_eq!(held_of(&publisher, "shop").len(), 1);
    assert_eq!(generations(&publisher), [1, 4, 4]);
    // One that is gone, since the key is, goes.
    publish(&publisher, vec![salted(&["percent:5"], None)]);
    assert_eq!(salts(&publisher), ["", ""]);
}

#[test]
fn the_salt_of_the_settings_counts_where_the_store_has_none() {
    let mut services = settings(THREE);
    Arc::make_mut(&mut services[1]).salt = "set".to_owned();
    let publisher = publisher_of(THREE).with_services(&services);
    publish(
        &publisher,
        vec![salted(&["percent:5"], None), first().remove(0)],
    );
    assert_eq!(salts(&publisher), ["set", "set"]);
    publish(&publisher, vec![salted(&["percent:5"], Some("stored"))]);
    assert_eq!(salts(&publisher), ["stored", "stored"]);
    // Another process has it as well, by the copy.
    let (next, _) = publisher_of(THREE).with_handed(&publisher.hand_over(&store()), &store());
    assert_eq!(salts(&next), ["stored", "stored"]);
    let digest = |it: &Publisher| it.lists_of(&name("api")).digest;
    assert_eq!(digest(&next), digest(&publisher));
}
